//! kill -9 at any moment: the store verifies, and the same command completes what was begun.
//!
//! Every test kills one verb again and again at moments that a seeded generator chooses within the time that the verb
//! takes. After each kill the store must be readable; after some, and at the end, everything is verified.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use semel_model::digest::Digest;

use crate::environment::{Ran, TestEnvironment};
use crate::layout::Layout;
use crate::random::Random;

/// How often each verb is killed: 234 times in all.
const BUILDS: u64 = 60;
const PUSHES: u64 = 50;
const ATTESTS: u64 = 35;
const PROMOTES: u64 = 35;
const DEPLOYS: u64 = 30;
const BACKUPS: u64 = 12;
const RESTORES: u64 = 12;

/// After how many kills everything is verified.
const VERIFY_EVERY: u64 = 10;

#[test]
fn killed_builds_are_completed_under_the_version_that_they_had() {
    let environment = TestEnvironment::project();
    let mut killer = Killer::new(1, &environment, &["build"]);
    let mut begun = Vec::new();
    for number in 1..=BUILDS {
        environment.write("run.sh", &format!("#!/bin/sh\necho {number}\n"));
        environment.commit("fix: count");
        let commit = environment.git(&["rev-parse", "HEAD"]);
        let said = killer.kill(&environment, &["build"]);
        killer.check(&environment, number);
        begun.push((commit, reserved(&said)));
    }
    killer.was_in_time(BUILDS);
    // A killed build keeps its lease for a while; the first ones are over by now, and the last ones are waited for.
    let mut numbers = BTreeMap::new();
    for (commit, reserved) in begun {
        let report = environment.ok(&["--json", "build", &commit]).json();
        let name = format!("{} (build {})", report["version"].as_str().unwrap(), report["number"]);
        if let Some(reserved) = reserved {
            assert_eq!(name, reserved, "the repeat of {commit} has the reserved version");
        }
        let other = numbers.insert(name.clone(), report["digest"].clone());
        assert_eq!(other, None, "{name} is given once");
    }
    let listed = environment.ok(&["--json", "versions", "-n", "1000"]).json();
    assert_eq!(listed["versions"].as_array().unwrap().len() as u64, BUILDS + 1, "no version is lost");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn killed_pushes_are_completed_with_the_same_bytes() {
    let environment = TestEnvironment::empty();
    for (dir, seed) in [("first", 0), ("measured", PUSHES + 1)] {
        layout(&environment.beside(dir), seed);
    }
    // Making the store takes longer than a push.
    environment.ok(&["push", "oci:../first", "other/thing@0.1.0"]);
    let mut killer = Killer::new(2, &environment, &["push", "oci:../measured", "other/thing@1.0.0"]);
    for number in 1..=PUSHES {
        let dir = format!("layout{number}");
        let digest = layout(&environment.beside(&dir), number);
        let words = ["push", &format!("oci:../{dir}"), &format!("other/thing@1.0.{number}")];
        killer.kill(&environment, &words);
        killer.check(&environment, number);
        assert_eq!(environment.ok(&words).digest(), digest.as_str());
    }
    killer.was_in_time(PUSHES);
    let listed = environment.ok(&["--json", "versions", "-c", "other/thing", "-n", "1000"]).json();
    assert_eq!(listed["versions"].as_array().unwrap().len() as u64, PUSHES + 2, "no version is lost");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn killed_attestations_and_promotions_are_completed() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.ok(&["deploy", "dev"]);
    environment.attest("0.1.0");
    let attest = |number: u64| format!("check-{number}");
    let mut killer =
        Killer::new(3, &environment, &["attest", "0.1.0", "--type", &attest(0), "--result", "pass"]);
    for number in 1..=ATTESTS {
        let kind = attest(number);
        let words = ["attest", "0.1.0", "--type", &kind, "--result", "pass"];
        killer.kill(&environment, &words);
        killer.check(&environment, number);
        environment.ok(&words);
    }
    killer.was_in_time(ATTESTS);
    let found = environment.ok(&["--json", "inspect", "0.1.0"]).stdout;
    for number in 1..=ATTESTS {
        assert!(found.contains(&format!("{}\"", attest(number))), "evidence {number} is there: {found}");
    }
    let mut killer = Killer::new(4, &environment, &["promote", "0.1.0", "staging", "--plan"]);
    for number in 1..=PROMOTES {
        // A rejection that is lifted makes a new decision necessary.
        environment.ok(&["reject", "0.1.0", "staging", "-m", "to see"]);
        environment.ok(&["accept", "0.1.0", "staging"]);
        killer.kill(&environment, &["promote", "0.1.0", "staging"]);
        killer.check(&environment, number);
        environment.ok(&["promote", "0.1.0", "staging"]);
    }
    killer.was_in_time(PROMOTES);
    environment.ok(&["resolve", "0.1.0", "staging"]);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn killed_deployments_are_completed() {
    let environment = TestEnvironment::project();
    let first = environment.build();
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    let second = environment.build();
    let mut killer = Killer::new(5, &environment, &["deploy", "0.1.0", "dev"]);
    for number in 1..=DEPLOYS {
        let (version, digest) = if number % 2 == 0 { ("0.1.0", &first) } else { ("0.1.1", &second) };
        killer.kill(&environment, &["deploy", version, "dev"]);
        killer.check(&environment, number);
        environment.ok(&["deploy", version, "dev"]);
        let status = environment.ok(&["--json", "status"]).json();
        let dev = &status["environments"][0];
        assert_eq!(dev["running"]["digest"], **digest, "after kill {number}: {dev:#}");
        assert_eq!(dev["observed"]["artefact"], **digest, "after kill {number}: {dev:#}");
        assert_eq!(dev["drift"], serde_json::json!([]), "after kill {number}: {dev:#}");
    }
    killer.was_in_time(DEPLOYS);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn killed_backups_and_restores_are_completed_and_leave_nothing_half_done() {
    let environment = TestEnvironment::project();
    environment.build();
    let (to, other) = (environment.beside("backup"), TestEnvironment::empty());
    let backup = ["backup", to.to_str().unwrap()];
    let restore = ["restore", to.to_str().unwrap()];
    let mut killer = Killer::new(6, &environment, &backup);
    for number in 1..=BACKUPS {
        environment.write("run.sh", &format!("#!/bin/sh\necho {number}\n"));
        environment.commit("fix: count");
        environment.build();
        killer.kill(&environment, &backup);
        // What is there is a whole store at any moment.
        forget(&other);
        other.ok(&restore);
        other.ok(&["audit", "verify"]);
    }
    killer.was_in_time(BACKUPS);
    environment.ok(&backup);
    forget(&other);
    let mut killer = Killer::new(7, &other, &restore);
    for number in 1..=RESTORES {
        forget(&other);
        let killed = killer.kill(&other, &restore);
        if killed.code == -1 {
            let was_done = other.store().join("store.json").exists();
            let again = other.semel(&restore);
            assert_eq!(again.code, if was_done { 2 } else { 0 }, "after kill {number}: {again:?}");
        }
        other.ok(&["attest", "tiny/service@0.1.0", "--type", "smoke", "--result", "pass"]);
        other.ok(&["audit", "verify"]);
    }
    killer.was_in_time(RESTORES);
}

/// A machine that never had a store.
fn forget(environment: &TestEnvironment) {
    for dir in ["data", "config"] {
        drop(fs::remove_dir_all(environment.beside(dir)));
    }
}

/// A store on a new machine that was restored from an older backup, while the target went on.
#[test]
fn a_target_that_is_ahead_of_a_restored_store_is_deployed_to_all_the_same() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    environment.build();
    environment.ok(&["deploy", "0.1.0", "dev"]);
    let backup = environment.beside("backup").display().to_string();
    environment.ok(&["backup", &backup]);
    for version in ["0.1.1", "0.1.0", "0.1.1"] {
        environment.ok(&["deploy", version, "dev"]);
    }
    forget(&environment);
    environment.ok(&["restore", &backup]);
    for (version, generation) in [("0.1.0", 5), ("0.1.0", 5), ("0.1.1", 6)] {
        let deployed = environment.ok(&["--json", "deploy", version, "dev"]).json();
        assert_eq!(deployed["order"]["generation"], generation, "{version}: {deployed:#}");
    }
    let status = environment.ok(&["--json", "status"]).json();
    assert_eq!(status["environments"][0]["drift"], serde_json::json!([]), "{status:#}");
}

/// The moment that a random kill seldom meets: the database has the entry, the entry files do not.
#[test]
fn an_append_that_was_broken_off_before_its_file_is_finished() {
    let environment = TestEnvironment::project();
    environment.build();
    let (files, keys) = (environment.store().join("ledger"), environment.beside("config/semel/keys"));
    let before = [environment.bytes_below(&files), environment.bytes_below(&keys)];
    environment.ok(&["attest", "0.1.0", "--type", "smoke", "--result", "pass"]);
    let put_back =
        |saved: &[(PathBuf, Vec<u8>)]| saved.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    before.iter().for_each(|saved| put_back(saved));
    let inspected = environment.ok(&["--json", "inspect", "0.1.0"]).stdout;
    environment.ok(&["audit", "verify"]);
    fs::remove_file(environment.store().join("semel.db")).unwrap();
    environment.ok(&["recover"]);
    assert_eq!(
        environment.ok(&["--json", "inspect", "0.1.0"]).stdout,
        inspected,
        "what was shown is not lost"
    );

    // Files that were whole once and are not any more are damage, which is reported and not hidden.
    put_back(&before[0]);
    let reported = environment.semel(&["audit", "verify"]);
    assert_eq!(reported.code, 7, "{reported:?}");
    assert!(reported.stderr.contains("the entry files hold"), "{}", reported.stderr);
}

/// Kills commands, at moments within the time that they take.
struct Killer {
    random: Random,
    /// What one took that was left alone; then what the others show, since a machine is not always as busy.
    takes: Duration,
    /// How many commands did not end by themselves.
    hits: u64,
}

impl Killer {
    /// Measures one run.
    fn new(seed: u64, environment: &TestEnvironment, words: &[&str]) -> Self {
        let started = Instant::now();
        environment.ok(words);
        Self { random: Random::new(seed), takes: started.elapsed(), hits: 0 }
    }

    /// Starts a command and kills it. What it had said by then.
    fn kill(&mut self, environment: &TestEnvironment, words: &[&str]) -> Ran {
        let wait = self.takes * u32::try_from(self.random.below(1_000)).unwrap() / 1_000;
        let mut command = environment.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The moment of the kill is what is tested.
        std::thread::sleep(wait);
        // It may have ended by itself.
        drop(child.kill());
        let output = child.wait_with_output().unwrap();
        let was_killed = output.status.code().is_none();
        self.hits += u64::from(was_killed);
        self.takes = if was_killed { self.takes * 21 / 20 } else { wait.min(self.takes * 4 / 5) };
        Ran::of(&output)
    }

    /// Most of the commands were killed before they ended.
    fn was_in_time(&self, commands: u64) {
        assert!(self.hits * 2 > commands, "only {} of {commands} commands were killed in time", self.hits);
    }

    /// The store can be read; now and then everything is verified.
    fn check(&self, environment: &TestEnvironment, number: u64) {
        let words: &[&str] =
            if number.is_multiple_of(VERIFY_EVERY) { &["audit", "verify"] } else { &["status"] };
        let ran = environment.semel(words);
        assert_eq!(ran.code, 0, "after kill {number}, semel {words:?}: {}{}", ran.stdout, ran.stderr);
    }
}

/// `1.2.3 (build 4)`, if a build had said so.
fn reserved(said: &Ran) -> Option<String> {
    let line = said.stderr.lines().find_map(|line| line.split_once("reserved "))?.1;
    Some(line.split_once(": ")?.0.to_owned())
}

/// An OCI layout of one image with bytes of its own.
fn layout(dir: &Path, seed: u64) -> Digest {
    let layout = Layout::create(dir.to_owned());
    let content: String =
        (0..25_000_u64).map(|at| format!("{:08x}", at.wrapping_mul(seed + 3) as u32)).collect();
    let image = layout.small(&content);
    layout.name(&[("made", &image)]);
    image.digest
}

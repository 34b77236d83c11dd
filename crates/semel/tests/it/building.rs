//! Builds of one source by many: who waits, who takes over, who comes too late, and what is built again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::environment::{Ran, TestEnvironment, at_another_time, has};
use crate::random::Random;

/// A command that runs and is watched.
struct Watched {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Watched {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new() }
    }

    /// The next line that it prints about what it does; none: it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        self.said.push_str(&line);
        (!line.is_empty()).then_some(line)
    }

    /// Waits until it says something.
    fn says(mut self, words: &str) -> Self {
        while let Some(line) = self.line() {
            if line.contains(words) {
                return self;
            }
        }
        panic!("it ended without saying `{words}`: {}", self.said);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it while it does not hold the store, which nobody else could use otherwise.
    fn stop_between_turns(&self, environment: &TestEnvironment) {
        let lock = std::fs::File::open(environment.store().join("store.lock")).unwrap();
        self.signal(Signal::STOP);
        while lock.try_lock().is_err() {
            self.signal(Signal::CONT);
            std::thread::yield_now();
            self.signal(Signal::STOP);
        }
    }

    fn ended(mut self) -> Ran {
        while self.line().is_some() {}
        let output = self.child.wait_with_output().unwrap();
        Ran { stderr: self.said, ..Ran::of(&output) }
    }
}

impl TestEnvironment {
    fn begin(&self, words: &[&str]) -> Watched {
        Watched::start(self.command(words))
    }

    /// The same, whatever the tests themselves were started by: `--default-signal=HUP` or, as `nohup` does,
    /// `--ignore-signal=HUP`.
    fn begin_by_env(&self, hangup: &str, words: &[&str]) -> Watched {
        let mut command = self.program("env");
        command.args([hangup, env!("CARGO_BIN_EXE_semel")]).args(words);
        Watched::start(command)
    }

    /// The small project, whose build runs a command first.
    fn with_recipe(run: &str) -> Self {
        let environment = Self::project();
        environment.set_recipe(run);
        environment
    }

    fn set_recipe(&self, run: &str) {
        self.edit("semel.toml", "[artefact]", &format!("[build]\nrun = {run:?}\n\n[artefact]"));
        self.commit("fix: build with a command");
    }

    /// The pieces of evidence about an artefact: kind and result.
    fn evidence(&self, version: &str) -> Vec<(String, String)> {
        let found = self.ok(&["--json", "inspect", version]).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        found["evidence"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (text(&one["kind"]), text(&one["result"])))
            .collect()
    }
}

/// How many processes build how many keys.
const BUILDERS: usize = 40;
const KEYS: usize = 5;
/// How many holders of one key are killed at most: some are left to build it.
const KILLS: u64 = 4;

/// Forty processes build five commits; those that get to build are killed at random moments. Each commit becomes one
/// artefact, under one number.
fn forty_builders(environment: &TestEnvironment, server: Option<&str>) {
    environment.set_recipe("sleep 0.2");
    let commits: Vec<String> = (0..KEYS)
        .map(|number| {
            environment.write("run.sh", &format!("#!/bin/sh\necho {number}\n"));
            environment.commit("fix: count");
            environment.git(&["rev-parse", "HEAD"])
        })
        .collect();
    let build = |commit: &str| {
        let mut command = environment.command(&["build", commit]);
        command.envs(server.map(|address| ("SEMEL_SERVER", format!("http://{address}"))));
        command
    };
    let killed = Mutex::new(BTreeMap::<usize, u64>::new());
    let ended: Vec<(usize, Ran)> = std::thread::scope(|scope| {
        let watch = |at: usize| {
            let (key, watched, killed) = (at % KEYS, Watched::start(build(&commits[at % KEYS])), &killed);
            scope.spawn(move || (key, run_or_kill(watched, &mut Random::new(at as u64), key, killed)))
        };
        let running: Vec<_> = (0..BUILDERS).map(watch).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let killed: u64 = killed.into_inner().unwrap().values().sum();
    assert!(killed >= KEYS as u64, "only {killed} holders were killed");
    let mut digests = BTreeMap::<usize, BTreeSet<String>>::new();
    for (key, ran) in ended.iter().filter(|(_, ran)| ran.code != -1) {
        assert_eq!(ran.code, 0, "{ran:?}");
        digests.entry(*key).or_default().insert(ran.digest());
    }
    assert_eq!(digests.len(), KEYS);
    assert!(digests.values().all(|of_key| of_key.len() == 1), "one digest for each key: {digests:?}");
    let versions = environment.ok(&["--json", "versions"]).json();
    let numbers: BTreeSet<u64> =
        versions["versions"].as_array().unwrap().iter().map(|one| one["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=KEYS as u64).collect(), "each number is given once: {versions}");
    environment.ok(&["audit", "verify"]);
}

/// Lets a build go on to its end, or kills it at one of its steps, once it has become the holder.
fn run_or_kill(
    mut watched: Watched,
    random: &mut Random,
    key: usize,
    killed: &Mutex<BTreeMap<usize, u64>>,
) -> Ran {
    watched = loop {
        match watched.line() {
            Some(line) if line.contains("reserved ") => break watched,
            Some(_) => {}
            None => return watched.ended(),
        }
    };
    let may_be_killed = {
        let mut killed = killed.lock().unwrap();
        let so_far = killed.entry(key).or_default();
        let chosen = *so_far == 0 || (*so_far < KILLS && random.below(2) > 0);
        *so_far += u64::from(chosen);
        chosen
    };
    if may_be_killed {
        for _ in 0..random.below(4) {
            watched.line();
        }
        // It may have ended by itself.
        drop(watched.child.kill());
    }
    watched.ended()
}

#[test]
fn forty_builders_of_five_keys_make_five_artefacts_although_holders_are_killed() {
    forty_builders(&TestEnvironment::project(), None);
}

#[test]
fn forty_builders_make_five_artefacts_in_postgresql() {
    let Some(cluster) = Cluster::get() else { return };
    cluster.create("builders");
    let mut environment = TestEnvironment::project();
    environment.keep_tables_in(cluster.url("builders"));
    forty_builders(&environment, None);
}

#[test]
fn forty_builders_make_five_artefacts_through_a_server() {
    let environment = TestEnvironment::project();
    let serving = environment.serve();
    forty_builders(&environment, Some(&serving.address));
}

#[test]
fn who_ends_gives_the_build_up_at_once_and_who_is_killed_is_found_gone() {
    let environment = TestEnvironment::with_recipe("sleep 600");
    let mut versions = BTreeSet::new();
    for (attempt, signal, code) in
        [(1, Signal::TERM, 130), (2, Signal::INT, 130), (3, Signal::HUP, 130), (4, Signal::KILL, -1)]
    {
        // Nobody waits for a lease to lapse: it is free.
        let holder = environment.begin_by_env("--default-signal=HUP", &["build", "--no-wait"]);
        let holder = holder.says("reserved ");
        assert!(attempt == 1 || holder.said.contains(&format!("attempt {attempt}")), "{}", holder.said);
        let waiting = environment.semel(&["build", "--no-wait"]);
        assert_eq!(waiting.code, 75, "{waiting:?}");
        assert!(waiting.stderr.contains("is being built by tester (process "), "{waiting:?}");
        assert!(waiting.stderr.contains("semel build log 1 -c tiny/service --follow"), "{waiting:?}");
        holder.signal(signal);
        let ended = holder.ended();
        assert_eq!(ended.code, code, "{signal:?}: {ended:?}");
        let name = ended.stderr.split_once("reserved ").unwrap().1.split_once(':').unwrap().0;
        versions.insert(name.to_owned());
    }
    assert_eq!(versions.len(), 1, "every attempt has the same number and version: {versions:?}");
}

#[test]
fn a_build_that_nohup_started_goes_on_when_the_terminal_is_gone() {
    let environment = TestEnvironment::with_recipe("sleep 0.5");
    let holder = environment.begin_by_env("--ignore-signal=HUP", &["build"]).says("reserved ");
    holder.signal(Signal::HUP);
    assert_eq!(holder.ended().code, 0);
}

#[test]
fn who_waits_for_a_build_that_fails_gets_its_failure_unless_it_wants_to_try() {
    let environment = TestEnvironment::with_recipe("sleep 0.5; echo no such thing; exit 1");
    let holder = environment.begin(&["build"]).says("reserved ");
    holder.signal(Signal::STOP);
    let waiting = environment.begin(&["build"]).says("waiting");
    let trying = environment.begin(&["build", "--retry"]).says("waiting");
    holder.signal(Signal::CONT);
    assert_eq!(holder.ended().code, 10);
    let (waited, tried) = (waiting.ended(), trying.ended());
    assert_eq!((waited.code, tried.code), (10, 10));
    assert!(waited.stderr.contains("failed for tester (process "), "{waited:?}");
    assert!(waited.stderr.contains("semel build log 1 -c tiny/service"), "{waited:?}");
    assert!(!waited.stderr.contains("reserved "), "it did not build: {waited:?}");
    assert!(tried.stderr.contains("attempt 2"), "{tried:?}");
    assert!(environment.semel(&["build"]).stderr.contains("attempt 3"), "the next build tries again");
}

#[test]
fn a_result_that_comes_too_late_is_compared_with_the_one_that_was_committed() {
    if !has("faketime") {
        return;
    }
    for (run, result, words) in [
        ("sleep 0.5", "pass", "with the same bytes: recorded as reproduced"),
        ("sleep 0.5; od -An -N8 -tx1 /dev/urandom >> run.sh", "fail", "not deterministic"),
    ] {
        let environment = TestEnvironment::with_recipe(run);
        let late = environment.begin(&["build"]).says("reserved ");
        late.stop_between_turns(&environment);
        let mut heir = environment.program("sh");
        heir.args(["-c", &at_another_time("+60s"), "sh", env!("CARGO_BIN_EXE_semel"), "build"]);
        let heir = Watched::start(heir).ended();
        assert_eq!(heir.code, 0, "{heir:?}");
        assert!(heir.stderr.contains("attempt 2"), "the lease has lapsed: {heir:?}");
        late.signal(Signal::CONT);
        let late = late.ended();
        assert_eq!((late.code, late.digest()), (0, heir.digest()), "{late:?}");
        assert!(late.stderr.contains(words), "{late:?}");
        let evidence = environment.evidence("0.1.0");
        assert!(evidence.contains(&("reproducibility".to_owned(), result.to_owned())), "{evidence:?}");
        environment.ok(&["audit", "verify"]);
    }
}

#[test]
fn a_source_is_built_again_for_a_reason_and_the_old_artefact_stays() {
    let environment = TestEnvironment::with_recipe("od -An -N8 -tx1 /dev/urandom >> run.sh");
    let first = environment.build();
    let again = ["--json", "build", "--again", "--reason", "rustc CVE-2026-1"];
    let second = environment.ok(&again).json();
    assert_eq!((&second["version"], &second["number"]), (&"0.1.1".into(), &2.into()));
    assert_ne!(second["digest"], first);
    assert_eq!(environment.ok(&again).json()["digest"], second["digest"], "the same reason builds once");
    assert_eq!(environment.ok(&["build"]).digest(), second["digest"], "the newest answers");
    let third = environment.ok(&["--json", "build", "--again", "--reason", "another"]).json();
    assert_eq!(third["version"], "0.1.2");
    assert_eq!(environment.ok(&again).json()["digest"], second["digest"], "whatever was built since");
    assert_eq!(environment.ok(&["--json", "inspect", "0.1.0"]).json()["artefact"]["digest"], first);
    for words in
        [&["build", "--again"][..], &["build", "--reason", "x"], &["build", "--again", "--reason", " "]]
    {
        assert_eq!(environment.semel(words).code, 2, "{words:?}");
    }
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_merged_branch_is_released_under_a_final_version_without_a_build() {
    let environment = TestEnvironment::project();
    environment.build();
    let on_branch = environment.build_branch();
    assert_eq!(on_branch["version"], "0.2.0-feat-mood.2");
    environment.git(&["merge", "--quiet", "--no-ff", "--message", "Merge feat/mood", "feat/mood"]);
    for _ in 0..2 {
        let merged = environment.ok(&["--json", "build"]).json();
        assert_eq!((&merged["version"], &merged["reused"]), (&"0.2.0".into(), &true.into()));
        assert_eq!((&merged["digest"], &merged["number"]), (&on_branch["digest"], &2.into()));
    }
    let names = environment.ok(&["--json", "inspect", "2"]).json();
    assert_eq!(names["names"], serde_json::json!(["0.2.0-feat-mood.2", "0.2.0"]));
    let table = environment.ok(&["versions"]).stdout;
    assert!(table.contains("\n0.2.0 = 0.2.0-feat-mood.2  2  "), "{table}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn every_name_and_commit_of_a_build_leads_to_its_log() {
    let environment = TestEnvironment::project();
    environment.set_recipe("echo made here; test ! -e bad");
    environment.build();
    environment.git(&["switch", "--quiet", "--create", "mood"]);
    environment.edit("run.sh", "hello", "good day");
    environment.commit("feat: be polite");
    environment.build();
    environment.git(&["switch", "--quiet", "main"]);
    environment.git(&["merge", "--quiet", "--no-ff", "--message", "Merge mood", "mood"]);
    let published = environment.ok(&["--json", "build"]).json();
    assert_eq!(published["version"], "0.2.0");
    let commit = environment.git(&["rev-parse", "--short", "HEAD"]);
    for name in
        ["2", "0.2.0-mood.2", "0.2.0", &format!("commit:{commit}"), published["digest"].as_str().unwrap()]
    {
        let log = environment.ok(&["build", "log", name]);
        assert!(log.stdout.contains("made here"), "{name}: {log:?}");
    }

    environment.write("bad", "");
    environment.commit("fix: break it");
    assert_eq!(environment.semel(&["build"]).code, 10);
    let commit = environment.git(&["rev-parse", "HEAD"]);
    let named = format!("commit:{}", &commit[..7]);
    let log = environment.ok(&["build", "log", &named]);
    assert!(log.stderr.contains("version 0.2.1, failed"), "{log:?}");
    for words in [["inspect", &named], ["where", &named], ["where", &commit], ["where", &commit[..8]]] {
        let unfinished = environment.semel(&words);
        assert_eq!(unfinished.code, 4, "{unfinished:?}");
        assert!(
            unfinished.stderr.contains("0.2.1 (build 3) is reserved, but its build failed"),
            "{unfinished:?}"
        );
        assert!(unfinished.stderr.contains("semel build log 3"), "{unfinished:?}");
    }
    let unknown = environment.semel(&["where", "abcdef0123"]);
    assert!(unknown.stderr.contains("nothing in this store is known as abcdef0123"), "{unknown:?}");
}

#[test]
fn a_build_that_the_main_line_takes_from_a_branch_is_foretold_and_named_for_it() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.git(&["switch", "--quiet", "--create", "mood"]);
    let bad = environment.beside("bad");
    environment.set_recipe(&format!("test ! -e {}", bad.display()));
    environment.edit("semel.toml", "[build]", "[build]\nsandbox = \"none\"");
    environment.commit("feat: be polite");
    std::fs::write(&bad, "").unwrap();
    assert_eq!(environment.semel(&["build"]).code, 10);
    assert_eq!(environment.ok(&["version"]).value(), "0.2.0-mood.2");
    environment.git(&["switch", "--quiet", "main"]);
    environment.git(&["merge", "--quiet", "mood"]);
    let foretold = environment.ok(&["version", "--explain"]);
    assert!(foretold.stdout.contains("0.2.0 (build 2)"), "{foretold:?}");
    std::fs::remove_file(&bad).unwrap();
    let built = environment.ok(&["build"]);
    assert!(built.stderr.contains("it is 0.2.0 on main\n  next: semel deploy 0.2.0 ENV"), "{built:?}");
    assert_eq!(environment.ok(&["version"]).value(), "0.2.0");
}

/// A project for two platforms, whose recipe writes down for which one it was called.
fn for_two_platforms() -> TestEnvironment {
    let environment = TestEnvironment::project();
    let platforms = "[artefact]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]";
    environment.edit("semel.toml", "[artefact]", platforms);
    environment.set_recipe("echo \"# $SEMEL_PLATFORM $TARGETOS $TARGETARCH\" >> run.sh");
    environment
}

#[test]
fn one_machine_builds_all_parts_in_turn_or_each_builds_its_own() {
    let digests: Vec<Value> = [
        &[&["--platform", "all"][..]][..],
        &[&["--platform", "linux/arm64"], &["--platform", "linux/amd64"]],
    ]
    .iter()
    .map(|commands| {
        let environment = for_two_platforms();
        let (last, parts) = commands.split_last().unwrap();
        for part in parts {
            let report = environment.ok(&[&["--json", "build"], *part].concat()).json();
            assert_eq!(report["missing"], serde_json::json!(["linux/amd64"]));
            assert_eq!(report["platform"], "linux/arm64");
            let again = environment.ok(&[&["--json", "build"], *part].concat()).json();
            assert_eq!((&again["digest"], &again["reused"]), (&report["digest"], &true.into()));
            assert_eq!(environment.semel(&["inspect", "0.1.0"]).code, 4, "it has no version yet");
        }
        let report = environment.ok(&[&["--json", "build"], *last].concat()).json();
        assert_eq!((&report["version"], &report["number"]), (&"0.1.0".into(), &1.into()));
        assert!(report.get("missing").is_none(), "{report}");
        let found = environment.ok(&["--json", "inspect", "0.1.0"]).json();
        let platforms: Vec<&Value> =
            found["parts"].as_array().unwrap().iter().map(|part| &part["platform"]).collect();
        assert_eq!(platforms, ["linux/amd64", "linux/arm64"], "in the order of the project");
        assert_eq!(environment.evidence("0.1.0"), [("provenance".to_owned(), "info".to_owned())]);
        environment.ok(&["verify", "0.1.0"]);
        environment.ok(&["audit", "verify"]);
        report["digest"].clone()
    })
    .collect();
    assert_eq!(digests[0], digests[1], "the order of building is not in the bytes");
}

#[test]
fn each_part_has_a_log_of_its_own_and_an_unfinished_version_says_what_is_missing() {
    let environment = for_two_platforms();
    environment.edit("semel.toml", "echo ", "echo made for $TARGETARCH; test $TARGETARCH = arm64; echo ");
    environment.commit("fix: build for one of them");
    let arm = ["--platform", "linux/arm64"];
    let log = |words: &[&str]| environment.semel(&[&["build", "log", "1"], words].concat());
    environment.ok(&[&["build"], &arm[..]].concat());
    for following in [&[][..], &["--follow"]] {
        let ran = log(&[&arm, following].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains("made for arm64"), "{ran:?}");
    }
    let unfinished = environment.semel(&["inspect", "0.1.0"]);
    assert_eq!(unfinished.code, 4, "{unfinished:?}");
    assert!(unfinished.stderr.contains("its parts are not complete: linux/amd64 to come"), "{unfinished:?}");
    assert!(unfinished.stderr.contains("semel build --platform linux/amd64"), "{unfinished:?}");

    let status = environment.ok(&["status"]);
    let incomplete = "tiny/service 0.1.0 (build 1) is not complete: linux/amd64 to come";
    assert!(status.stdout.contains(incomplete), "{status:?}");
    assert!(
        status.stderr.contains("next: where that can be built: semel build --platform linux/amd64"),
        "{status:?}"
    );

    let failed = environment.semel(&["build", "--platform", "linux/amd64"]);
    assert_eq!(failed.code, 10, "{failed:?}");
    let status = environment.ok(&["status"]).stdout;
    assert!(status.contains(&format!("{incomplete}; its build failed: ")), "{status}");
    let hint = "semel build log 1 -c tiny/service --platform linux/amd64";
    assert!(failed.stderr.contains(hint), "{failed:?}");
    let ran = log(&["--platform", "linux/amd64"]);
    assert!(ran.stdout.contains("made for amd64"), "{ran:?}");
    assert!(ran.stderr.contains("this is linux/amd64, failed: "), "{ran:?}");
    assert!(ran.stderr.contains("also linux/arm64, built"), "{ran:?}");
    let parts = log(&["--json"]).json()["parts"].clone();
    assert_eq!((&parts[0]["state"], &parts[1]["state"]), (&"failed".into(), &"built".into()), "{parts}");
    let unknown = log(&["--platform", "linux/riscv64"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("linux/amd64, linux/arm64"), "{unknown:?}");
}

#[test]
fn artefacts_for_several_platforms_are_compared_part_by_part() {
    let environment = for_two_platforms();
    environment.ok(&["build", "--platform", "all"]);
    environment.edit("semel.toml", "echo ", "test $TARGETARCH = amd64 || echo more >> run.sh; echo ");
    environment.commit("fix: say more on one of them");
    environment.ok(&["build", "--platform", "all"]);
    let table = environment.ok(&["versions"]).stdout;
    assert!(table.contains("published, linux/amd64, linux/arm64"), "{table}");
    let differ = environment.semel(&["diff", "0.1.0", "0.1.1"]);
    assert_eq!(differ.code, 1, "{differ:?}");
    assert!(differ.stdout.contains("fix: say more on one of them"), "{differ:?}");
    assert!(differ.stdout.contains("linux/amd64: the same inside"), "{differ:?}");
    assert!(differ.stdout.contains("linux/arm64 files (1):\n  ~ /run.sh"), "{differ:?}");
    assert!(!differ.stdout.contains("not compared"), "{differ:?}");
    let json = environment.semel(&["--json", "diff", "0.1.0", "0.1.1"]).json();
    assert_eq!(json["parts"][1]["compared"]["files"][0]["path"], "/run.sh", "{json:#}");
    let packages = environment.ok(&["sbom", "0.1.1"]);
    assert!(packages.stderr.contains("the part of tiny/service 0.1.1 for linux/"), "{packages:?}");
}

#[test]
fn the_files_of_one_part_are_taken_out_and_of_all_at_once_none() {
    let environment = for_two_platforms();
    environment.ok(&["build", "--platform", "all"]);
    let refused = environment.semel(&["pull", "0.1.0", "../out"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    let hint = refused.stderr.lines().find_map(|line| line.strip_prefix("  hint: linux/arm64: semel "));
    let words: Vec<&str> = hint.unwrap_or_else(|| panic!("{refused:?}")).split(' ').collect();
    environment.ok(&words);
    let script = std::fs::read_to_string(environment.beside("out/run.sh")).unwrap();
    assert!(script.contains("# linux/arm64 linux arm64"), "{script}");
}

#[test]
fn the_parts_of_a_source_that_is_built_again_are_built_for_its_reason() {
    let environment = for_two_platforms();
    let all = environment.ok(&["build", "--platform", "all"]);
    assert!(!all.stderr.contains("to come"), "it builds them all: {}", all.stderr);
    let again = ["--again", "--reason", "the mirror's certificate"];
    let first = environment.ok(&[&["build", "--platform", "linux/arm64"], &again[..]].concat());
    let next = r"semel build --platform linux/amd64 --again --reason 'the mirror'\''s certificate'";
    assert!(first.stderr.contains(next), "{first:?}");
    let last =
        environment.ok(&[&["--json", "build", "--platform", "linux/amd64"], &again[..]].concat()).json();
    assert_eq!((&last["version"], last.get("missing")), (&"0.1.1".into(), None), "{last}");
}

#[test]
fn a_part_is_built_once_more_by_its_platform_or_its_digest() {
    let environment = for_two_platforms();
    environment.ok(&["build", "--platform", "all"]);
    let found = environment.ok(&["--json", "inspect", "0.1.0"]).json();
    let digest = |place: usize| found["parts"][place]["digest"].as_str().unwrap().to_owned();
    let (amd, arm) = (digest(0), digest(1));
    for (words, part, platform) in [
        (&["0.1.0", "--platform", "linux/amd64"][..], &amd, "linux/amd64"),
        (&["HEAD", "--platform", "linux/arm64"], &arm, "linux/arm64"),
        (&[&arm], &arm, "linux/arm64"),
    ] {
        let told = environment.ok(&[&["build", "--check=quick"], words].concat());
        let said = format!("tiny/service 0.1.0 for {platform} is reproducible");
        assert!(told.stderr.contains(&said), "{told:?}");
        let checked = environment.ok(&[&["--json", "build", "--check=quick"], words].concat()).json();
        let report = &checked["report"];
        assert_eq!((&report["committed"], &report["built"]), (&part.as_str().into(), &part.as_str().into()));
        assert_eq!(report["platform"], platform);
        assert!(environment.evidence(part).contains(&("reproducibility".to_owned(), "pass".to_owned())));
    }
    if matches!(std::env::consts::ARCH, "x86_64" | "aarch64") {
        environment.ok(&["build", "--check=quick"]);
    }
    for (words, said) in [
        (&["0.1.0", "--platform", "linux/riscv64"][..], "--platform linux/amd64"),
        (&["0.1.0", "--platform", "all"], "one part is checked at a time"),
        (&[&arm, "--platform", "linux/amd64"], "is the part for linux/arm64, not for linux/amd64"),
    ] {
        let refused = environment.semel(&[&["build", "--check"], words].concat());
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
}

#[test]
fn a_directory_target_runs_the_part_of_its_machine() {
    let environment = for_two_platforms();
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return,
    };
    let refused = environment.semel(&["deploy", "dev"]);
    assert_eq!(refused.code, 75, "one part is missing: {refused:?}");
    let digest = environment.ok(&["build", "--platform", "all"]).digest();
    environment.ok(&["deploy", "dev"]);
    let status = environment.ok(&["--json", "status", "-c", "tiny/service"]).json();
    let dev = &status["environments"][0];
    assert_eq!(dev["observed"]["artefact"], digest, "what runs is the version: {dev:#}");
    assert_eq!(dev["drift"], serde_json::json!([]), "{dev:#}");
    let unpacked = environment.bytes_below(&environment.beside("state"));
    let script = unpacked.iter().find(|(path, _)| path.ends_with("run.sh")).unwrap();
    let text = String::from_utf8_lossy(&script.1);
    assert!(text.contains(&format!("# linux/{host} linux {host}")), "{text}");
}

#[test]
fn a_platform_that_the_artefact_does_not_have_is_refused_with_those_that_it_has() {
    let environment = for_two_platforms();
    let refused = environment.semel(&["build", "--platform", "linux/riscv64"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("linux/amd64, linux/arm64"), "{refused:?}");
    let plain = TestEnvironment::project().semel(&["build", "--platform", "linux/amd64"]);
    assert_eq!(plain.code, 2);
    assert!(plain.stderr.contains("platforms = ["), "{plain:?}");
    assert_eq!(environment.semel(&["build", "--platform", "linux"]).code, 2);
}

impl TestEnvironment {
    /// Where a blob of the store lies.
    fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.store().join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    /// The manifest, the configuration and the layer of what was built.
    fn contents(&self, manifest: &str) -> [String; 3] {
        let parsed: Value = serde_json::from_slice(&fs::read(self.blob(manifest)).unwrap()).unwrap();
        let digest = |place: &str| parsed.pointer(place).unwrap().as_str().unwrap().to_owned();
        [manifest.to_owned(), digest("/config/digest"), digest("/layers/0/digest")]
    }
}

#[test]
fn what_is_lost_of_a_version_comes_back_when_it_is_built_again_and_comes_out_the_same() {
    let environment = TestEnvironment::project();
    let digest = environment.build();
    for lost in environment.contents(&digest) {
        for is_damage in [false, true] {
            let blob = environment.blob(&lost);
            let bytes = fs::read(&blob).unwrap();
            fs::remove_file(&blob).unwrap();
            if is_damage {
                fs::write(&blob, b"other bytes").unwrap();
                assert_eq!(environment.semel(&["scrub"]).code, 7);
            }
            let named = environment.ok(&["--json", "version"]).json();
            assert_eq!(named["version"], "0.1.0", "it has its version: {named}");
            let ran = environment.ok(&["build"]);
            assert_eq!(ran.digest(), digest);
            assert!(ran.stderr.contains(&format!("{lost} of it is missing from the store")), "{ran:?}");
            assert!(ran.stderr.contains("tiny/service 0.1.0 (build 1) is whole again"), "{ran:?}");
            assert_eq!(fs::read(&blob).unwrap(), bytes);
            environment.ok(&["scrub"]);
            let again = environment.ok(&["build"]);
            assert!(again.stderr.contains("was already built"), "{again:?}");
        }
    }
    environment.ok(&["audit", "verify"]);
    environment.ok(&["deploy", "0.1.0", "dev"]);
    let reproduced = environment.evidence("0.1.0");
    assert!(reproduced.contains(&("reproducibility".to_owned(), "pass".to_owned())), "{reproduced:?}");
}

#[test]
fn what_is_lost_comes_back_through_a_server_that_has_just_sent_it() {
    let environment = TestEnvironment::project();
    let serving = environment.serve();
    let server = format!("http://{}", serving.address);
    let ok = |words: &[&str]| environment.ok(&[&["--server", &server], words].concat());
    let digest = ok(&["build"]).digest();
    ok(&["pull", "0.1.0", "oci:../out"]);
    for lost in environment.contents(&digest) {
        fs::remove_file(environment.blob(&lost)).unwrap();
    }
    assert_eq!(ok(&["build"]).digest(), digest);
    ok(&["pull", "0.1.0", "oci:../again"]);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn what_is_lost_of_a_version_is_not_replaced_by_other_bytes() {
    let environment =
        TestEnvironment::with_recipe("echo \"# $(cat /proc/sys/kernel/random/uuid)\" >> run.sh");
    let digest = environment.build();
    let [_, _, layer] = environment.contents(&digest);
    fs::remove_file(environment.blob(&layer)).unwrap();
    for _ in 0..2 {
        let ran = environment.semel(&["build", "--no-wait"]);
        assert_eq!(ran.code, 8, "{ran:?}");
        let said = format!("error: {layer} of tiny/service 0.1.0 (build 1) is still missing");
        assert!(ran.stderr.contains(&said), "{ran:?}");
        assert!(ran.stderr.contains(&format!("hint: push {digest} again")), "{ran:?}");
        assert!(ran.stderr.contains("semel build --again --reason"), "{ran:?}");
    }
    assert_eq!(environment.ok(&["--json", "inspect", "0.1.0"]).json()["artefact"]["digest"], digest);
    let again = environment.ok(&["--json", "build", "--again", "--reason", "the bytes were lost"]).json();
    assert_ne!((&again["version"], &again["digest"]), (&"0.1.0".into(), &digest.into()));
    environment.ok(&["deploy", "dev"]);
}

#[test]
fn what_is_lost_comes_back_with_the_commit_that_it_was_built_from() {
    let environment = TestEnvironment::project();
    let digest = environment.build();
    let commit = environment.git(&["rev-parse", "HEAD"]);
    environment.git(&["commit", "--quiet", "--allow-empty", "--message", "docs: say nothing"]);
    assert_eq!(environment.build(), digest);
    fs::remove_file(environment.blob(&digest)).unwrap();
    let ran = environment.semel(&["build"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stderr.contains(&format!("semel build {commit}")), "{ran:?}");
    assert_eq!(environment.ok(&["build", &commit]).digest(), digest);
    assert_eq!(environment.build(), digest);
}

#[test]
fn what_is_lost_of_an_import_comes_back_with_the_same_bytes_alone() {
    let environment = TestEnvironment::project();
    let import = |from: &str| {
        let commit = "1234567890123456789012345678901234567890";
        environment.semel(&["import", from, "--commit", commit, "-c", "other/imported"])
    };
    let digest = import("raw:run.sh").digest();
    let [_, _, layer] = environment.contents(&digest);
    fs::remove_file(environment.blob(&layer)).unwrap();
    for _ in 0..2 {
        let other = import("raw:semel.toml");
        assert_eq!(other.code, 5, "{other:?}");
        assert!(
            other.stderr.contains(&format!("of that one {layer} is missing from the store")),
            "{other:?}"
        );
    }
    assert_eq!(import("raw:run.sh").digest(), digest);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn what_is_lost_of_an_artefact_for_several_platforms_is_named_with_a_way_out() {
    let environment = for_two_platforms();
    let digest = environment.ok(&["build", "--platform", "all"]).digest();
    fs::remove_file(environment.blob(&digest)).unwrap();
    let ran = environment.semel(&["build", "--platform", "all"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    let said = format!("0.1.0 (build 1) was built, and {digest} of it is missing from the store");
    assert!(ran.stderr.contains(&said), "{ran:?}");
    environment.ok(&["build", "--again", "--reason", "the bytes were lost", "--platform", "all"]);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_component_that_is_not_the_projects_is_not_built_in_its_place() {
    let environment = TestEnvironment::project();
    for words in [&["build"][..], &["version"], &["build", "--check"]] {
        let refused = environment.semel(&[words, &["-c", "tiny/other"]].concat());
        assert_eq!(refused.code, 2, "{refused:?}");
        let said = "this project is tiny/service, and tiny/other is another";
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    environment.ok(&["build", "-c", "tiny/service"]);
}

#[test]
fn a_moved_home_goes_on_with_the_numbers_and_the_old_one_names_it() {
    let environment = TestEnvironment::project();
    let digest = environment.build();
    let to = environment.beside("other");
    let to = to.to_str().unwrap();
    let moved = ["move-home", "--to", to];
    let home = environment.ok(&moved).value();
    assert_eq!(environment.ok(&moved).value(), home, "moving once more changes nothing");
    environment.write("run.sh", "#!/bin/sh\necho more\n");
    environment.commit("fix: say more");
    let refused = environment.semel(&["build"]);
    assert_eq!(refused.code, 6, "{refused:?}");
    assert!(refused.stderr.contains(&format!("has moved to store {home}")), "{refused:?}");
    let there = environment.ok(&["--store", to, "--json", "build"]).json();
    assert_eq!((&there["version"], &there["number"]), (&"0.1.1".into(), &2.into()));
    let before = environment.ok(&["--store", to, "--json", "build", "HEAD~1"]).json();
    assert_eq!((&before["digest"], &before["reused"]), (&digest.into(), &true.into()), "built once");
    let gone = environment.semel(&["--store", to, "pull", "0.1.0", "../out"]);
    assert!(gone.stderr.contains("in the store that was its home"), "{gone:?}");
    assert_eq!(environment.semel(&["move-home", "--to", environment.store().to_str().unwrap()]).code, 2);
    environment.ok(&["audit", "verify"]);
    environment.ok(&["--store", to, "audit", "verify"]);
}

#[test]
fn a_candidate_whose_bytes_stayed_in_the_old_home_is_final_when_they_are_brought() {
    let environment = TestEnvironment::project();
    environment.edit("semel.toml", "[artefact]", "[version]\nscheme = \"candidate\"\n\n[artefact]");
    environment.commit("feat: candidates");
    let digest = environment.build();
    let to = environment.beside("other");
    let to = to.to_str().unwrap();
    environment.ok(&["move-home", "--to", to]);
    let refused = environment.semel(&["--store", to, "finalise", "0.1.0-rc.1"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    let taking = format!("semel --store OTHER pull tiny/service@{digest} oci:DIR");
    let bringing = format!("semel --store {to} push oci:DIR tiny/service@0.1.0-rc.1");
    for words in ["in the store that was its home", &taking, &bringing] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    environment.ok(&["pull", &format!("tiny/service@{digest}"), "oci:../taken"]);
    environment.ok(&["--store", to, "push", "oci:../taken", "tiny/service@0.1.0-rc.1"]);
    assert_eq!(environment.ok(&["--store", to, "finalise", "0.1.0-rc.1"]).digest(), digest);
}

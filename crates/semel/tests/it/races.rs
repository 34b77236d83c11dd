//! Many processes at once on one store: one artefact, one winner, nothing lost.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Stdio;

use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{EncodedManifest, ImageManifest};

use crate::environment::{self, COMPONENT, Ran, TestEnvironment};
use crate::http::{self, Answer};

#[test]
fn twenty_builds_of_one_commit_make_one_artefact() {
    let environment = TestEnvironment::project();
    // A build that takes a moment, so that the others find it running.
    environment.edit("semel.toml", "[artefact]", "[build]\nrun = \"sleep 0.3\"\n\n[artefact]");
    environment.commit("feat: take a moment");
    let ended = at_once(&environment, &vec![words(&["--json", "build"]); 20]);
    one_built_it(&ended);
    let versions = environment.ok(&["--json", "versions"]).json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1, "{versions}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn builds_of_different_commits_get_different_numbers() {
    let environment = TestEnvironment::project();
    let mut commits = vec![environment.git(&["rev-parse", "HEAD"])];
    for number in 0..5 {
        environment.write("number", &number.to_string());
        environment.commit("fix: count");
        commits.push(environment.git(&["rev-parse", "HEAD"]));
    }
    let all: Vec<_> = commits.iter().map(|commit| words(&["--json", "build", commit])).collect();
    let ended = at_once(&environment, &all);
    let numbers: BTreeSet<u64> = ended
        .iter()
        .inspect(|ran| assert_eq!(ran.code, 0, "{ran:?}"))
        .map(|ran| ran.json()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=6).collect(), "every number is given once, and none is left out");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn evidence_and_promotions_of_many_processes_are_all_kept() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.ok(&["deploy", "dev"]);
    environment.attest("0.1.0");
    let checks: Vec<String> = (0..8).map(|number| format!("check-{number}")).collect();
    let mut all: Vec<_> =
        checks.iter().map(|check| words(&["attest", "0.1.0", "--type", check, "--result", "pass"])).collect();
    all.extend(vec![words(&["promote", "0.1.0", "staging"]); 8]);
    for ran in at_once(&environment, &all) {
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let found = environment.ok(&["--json", "inspect", "0.1.0"]).stdout;
    for check in &checks {
        assert!(found.contains(check.as_str()), "{check} is kept: {found}");
    }
    let history = environment.ok(&["history", "staging"]).stdout;
    assert_eq!(history.matches("may run here").count(), 1, "one promotion is granted once:\n{history}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn one_of_many_pushes_gets_a_version() {
    let environment = TestEnvironment::project();
    for number in 0..4 {
        environment.write("run.sh", &format!("#!/bin/sh\necho {number}\n"));
        environment.commit("fix: count");
        let digest = environment.build();
        environment.ok(&["pull", &digest, &format!("oci:../layout{number}")]);
    }
    let all: Vec<_> = (0..12)
        .map(|at| words(&["push", &format!("oci:../layout{}", at % 4), "other/raced@1.0.0"]))
        .collect();
    let ended = at_once(&environment, &all);
    let winners: BTreeSet<String> = ended.iter().filter(|ran| ran.code == 0).map(Ran::digest).collect();
    assert_eq!(winners.len(), 1, "{ended:?}");
    assert_eq!(ended.iter().filter(|ran| ran.code == 0).count(), 3, "a repeat of the winner is no error");
    assert_eq!(ended.iter().filter(|ran| ran.code == 5).count(), 9, "{ended:?}");
    let versions = environment.ok(&["--json", "versions", "-c", "other/raced"]).json();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 1, "{versions}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn deployments_of_one_environment_follow_each_other() {
    let environment = TestEnvironment::project();
    let digest = environment.build();
    let ended = at_once(&environment, &vec![words(&["deploy", "0.1.0", "dev"]); 6]);
    for ran in &ended {
        assert!([0, 75].contains(&ran.code), "{ran:?}");
    }
    assert!(ended.iter().any(|ran| ran.code == 0), "{ended:?}");
    environment.ok(&["deploy", "0.1.0", "dev"]);
    let status = environment.ok(&["--json", "status", "-c", COMPONENT]).json();
    let dev = &status["environments"][0];
    assert_eq!(dev["running"]["digest"], digest, "{dev:#}");
    assert_eq!(dev["observed"]["artefact"], digest, "{dev:#}");
    assert_eq!(dev["drift"], serde_json::json!([]), "{dev:#}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn of_two_deployments_at_once_neither_takes_the_other_for_broken_off() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    environment.build();
    for _ in 0..3 {
        let both = [words(&["deploy", "0.1.0", "dev"]), words(&["deploy", "0.1.1", "dev"])];
        let ended = at_once(&environment, &both);
        assert!(ended.iter().all(|ran| [0, 75].contains(&ran.code)), "{ended:?}");
    }
    let history = environment.ok(&["history", "dev", "-n", "1000"]).stdout;
    assert!(!history.contains("broken off"), "{history}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn verification_is_not_disturbed_by_others_who_record() {
    let environment = TestEnvironment::project();
    environment.build();
    let all: Vec<_> = (0..24)
        .map(|at| match at % 4 {
            0 => words(&["audit", "verify"]),
            _ => words(&["attest", "0.1.0", "--type", &format!("check-{at}"), "--result", "pass"]),
        })
        .collect();
    for ran in at_once(&environment, &all) {
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

/// How many connections push at once.
const PUSHES: usize = 1_000;
/// How often the same refused push is repeated.
const FLOOD: usize = 500;

#[test]
fn of_a_thousand_pushes_at_once_one_gets_the_version_and_the_others_hear_which() {
    let environment = TestEnvironment::empty();
    environment::allow_many_files();
    let serving = environment.serve();
    push_blob(&serving.address, b"{}");
    let manifests: Vec<_> = (0..PUSHES).map(|number| manifest(&number.to_string())).collect();
    let answers = push_at_once(&serving.address, "1.0.0", &manifests);
    let of = |status: u16| answers.iter().zip(&manifests).filter(move |(answer, _)| answer.status == status);
    let winners: Vec<_> = of(201).collect();
    assert_eq!(
        (winners.len(), of(409).count()),
        (1, PUSHES - 1),
        "one is told that it won, the others that not"
    );
    let bound = winners[0].1.descriptor.digest.as_str();
    for (answer, manifest) in of(409) {
        let error = &answer.json()["errors"][0];
        assert_eq!(error["code"], "DENIED", "{error}");
        assert_eq!(error["detail"]["bound"], bound, "{error}");
        assert_eq!(error["detail"]["pushed"], manifest.descriptor.digest.as_str(), "{error}");
        assert!(error["message"].as_str().unwrap().contains(bound), "{error}");
    }
    let served = http::send(&serving.address, "GET", &path("1.0.0"), &[], b"").unwrap();
    assert_eq!(served.body, winners[0].1.bytes);
    assert_eq!(recorded(&environment, "VersionPublished"), 1);
    assert_eq!(
        recorded(&environment, "OverwriteRefused"),
        PUSHES - 1,
        "each is told once to whoever asks later"
    );
    environment.ok(&["audit", "verify"]);
}

/// Each connection is a file, and so is what it reads or writes.
#[test]
fn more_connections_than_files_wait_and_the_others_are_served() {
    let environment = TestEnvironment::empty();
    environment::allow_many_files();
    let serving = environment.serve_with_files(256);
    let mut idle: Vec<_> = (0..300).map(|_| TcpStream::connect(&serving.address).unwrap()).collect();
    let digest = Digest::of(b"{}");
    let path = format!("/v2/shop/api/blobs/uploads/?digest={digest}");
    let push = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let mut first = idle.remove(0);
    first.write_all(push.as_bytes()).unwrap();
    let answer = http::receive(first).unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    drop(idle);
    let served =
        http::send(&serving.address, "GET", &format!("/v2/shop/api/blobs/{digest}"), &[], b"").unwrap();
    assert_eq!(served.body, b"{}");
}

#[test]
fn a_flood_of_refused_pushes_is_one_entry() {
    let environment = TestEnvironment::empty();
    environment::allow_many_files();
    let serving = environment.serve();
    push_blob(&serving.address, b"{}");
    let (first, second) = (manifest("first"), manifest("second"));
    push_at_once(&serving.address, "1.0.0", std::slice::from_ref(&first));
    let entries = || environment.ok(&["--json", "audit", "verify"]).json()["entries"].as_u64().unwrap();
    let before = entries();
    for answer in push_at_once(&serving.address, "1.0.0", &vec![second; FLOOD]) {
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(answer.json()["errors"][0]["detail"]["bound"], first.descriptor.digest.as_str());
    }
    assert_eq!(entries(), before + 1);
    assert_eq!(recorded(&environment, "OverwriteRefused"), 1);
}

/// An artefact whose only blob is the empty object.
pub(crate) fn manifest(text: &str) -> EncodedManifest {
    let manifest = ImageManifest {
        artifact_type: Some("application/vnd.example.thing".to_owned()),
        config: Descriptor::empty(),
        layers: vec![Descriptor::empty()],
        subject: None,
        annotations: Annotations::from([("text".to_owned(), text.to_owned())]),
    };
    manifest.encode()
}

fn path(reference: &str) -> String {
    format!("/v2/shop/api/manifests/{reference}")
}

pub(crate) fn push_blob(address: &str, bytes: &[u8]) {
    let path = format!("/v2/shop/api/blobs/uploads/?digest={}", Digest::of(bytes));
    assert_eq!(http::send(address, "POST", &path, &[], bytes).unwrap().status, 201);
}

/// Pushes manifests under one name: each has its connection and has said what is coming before the first one is sent.
fn push_at_once(address: &str, reference: &str, manifests: &[EncodedManifest]) -> Vec<Answer> {
    let begin = |manifest: &EncodedManifest| {
        let kind = [("content-type", manifest.descriptor.media_type.as_str())];
        http::begin(address, "PUT", &path(reference), &kind, manifest.bytes.len()).unwrap()
    };
    let mut connections: Vec<_> = manifests.iter().map(begin).collect();
    for (connection, manifest) in connections.iter_mut().zip(manifests) {
        connection.write_all(&manifest.bytes).unwrap();
    }
    connections.into_iter().map(|connection| http::receive(connection).unwrap()).collect()
}

/// How many entries of a kind the entry files hold.
fn recorded(environment: &TestEnvironment, kind: &str) -> usize {
    let needle = format!("\"kind\":\"{kind}\"");
    let files = environment.bytes_below(&environment.store().join("ledger"));
    files.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).matches(&needle).count()).sum()
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Of processes that built the same at once, one did, and all have the same artefact.
pub(crate) fn one_built_it(ended: &[Ran]) {
    let reports: Vec<_> =
        ended.iter().inspect(|ran| assert_eq!(ran.code, 0, "{ran:?}")).map(Ran::json).collect();
    let artefacts: BTreeSet<String> = reports
        .iter()
        .map(|report| format!("{} {} {}", report["digest"], report["number"], report["version"]))
        .collect();
    assert_eq!(artefacts.len(), 1, "{artefacts:?}");
    let built = reports.iter().filter(|report| report["reused"] == false).count();
    assert_eq!(built, 1, "one process built it, the others took it");
}

/// Starts all commands before it waits for any.
pub(crate) fn at_once(environment: &TestEnvironment, commands: &[Vec<String>]) -> Vec<Ran> {
    let children: Vec<_> = commands
        .iter()
        .map(|words| {
            let mut command = environment.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    children.into_iter().map(|child| Ran::of(&child.wait_with_output().unwrap())).collect()
}

//! Many processes at once on one store: one artefact, one winner, nothing lost.

use std::collections::BTreeSet;
use std::process::Stdio;

use crate::environment::{COMPONENT, Ran, TestEnvironment};

#[test]
fn twenty_builds_of_one_commit_make_one_artefact() {
    let environment = TestEnvironment::project();
    // A build that takes a moment, so that the others find it running.
    environment.edit("semel.toml", "[artefact]", "[build]\nrun = \"sleep 0.3\"\n\n[artefact]");
    environment.commit("feat: take a moment");
    let ended = at_once(&environment, &vec![words(&["--json", "build"]); 20]);
    let reports: Vec<_> =
        ended.iter().inspect(|ran| assert_eq!(ran.code, 0, "{ran:?}")).map(Ran::json).collect();
    let artefacts: BTreeSet<String> = reports
        .iter()
        .map(|report| format!("{} {} {}", report["digest"], report["number"], report["version"]))
        .collect();
    assert_eq!(artefacts.len(), 1, "{artefacts:?}");
    let built = reports.iter().filter(|report| report["reused"] == false).count();
    assert_eq!(built, 1, "one process built it, the others took it");
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

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Starts all commands before it waits for any.
fn at_once(environment: &TestEnvironment, commands: &[Vec<String>]) -> Vec<Ran> {
    let children: Vec<_> = commands
        .iter()
        .map(|words| {
            let mut command = environment.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            Ran {
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                code: output.status.code().unwrap_or(-1),
            }
        })
        .collect()
}

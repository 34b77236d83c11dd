//! What must not be inside an artefact: where it is looked for, and who is asked for what.

use std::fs;

use crate::environment::TestEnvironment;

const SECRET: &str = "opens the door";

/// The small project, whose script carries the secret of an environment.
fn project_with_a_secret_inside() -> TestEnvironment {
    let environment = TestEnvironment::project();
    environment.edit("run.sh", "hello", &format!("{SECRET}, hello"));
    environment.commit("feat: greet friends");
    let set = environment.piped(&["config", "set", "dev", "TOKEN"], SECRET);
    assert_eq!(set.code, 0, "{set:?}");
    environment
}

#[test]
fn what_carries_a_secret_of_its_environment_is_refused_there_and_nothing_is_held() {
    let environment = project_with_a_secret_inside();
    let refused = environment.semel(&["deploy", "dev"]);
    assert_eq!(refused.code, 9, "{refused:?}");
    assert!(refused.stderr.contains("the value of TOKEN as it is in /run.sh"), "{refused:?}");
    assert!(!refused.stderr.contains(SECRET), "{refused:?}");
    let history = environment.ok(&["history", "dev"]).stdout;
    assert!(history.contains("generation 1 was not switched on") && !history.contains(SECRET), "{history}");
    assert_eq!(environment.semel(&["deploy", "dev"]).code, 9, "the same again gets the same answer");
    environment.edit("run.sh", &format!("{SECRET}, hello"), "hello");
    environment.commit("fix: keep secrets");
    environment.ok(&["deploy", "dev"]);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_build_never_asks_for_the_secrets_of_an_environment() {
    let environment = project_with_a_secret_inside();
    let kept: Vec<_> = environment
        .bytes_below(&environment.beside("."))
        .into_iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "secrets"))
        .collect();
    assert!(!kept.is_empty(), "the secret lies somewhere");
    let all = kept[0].0.ancestors().find(|dir| dir.ends_with("secrets")).unwrap();
    fs::remove_dir_all(all).unwrap();
    fs::write(all, "nobody can read this").unwrap();
    let served = environment.serve_logging("debug");
    let server = format!("http://{}", served.address);
    environment.ok(&["--server", &server, "build"]);
    let asked = served.log();
    assert!(asked.contains("/api/v1/builds"), "the log shows what was asked: {asked}");
    for word in ["secret", "config", "values", "deploy", "environment"] {
        assert!(!asked.contains(&format!("/{word}")), "{word}: {asked}");
    }
    let target = environment.semel(&["--server", &server, "deploy", "dev"]);
    assert_ne!(target.code, 0, "who does need the secrets cannot have them: {target:?}");
}

#[test]
fn warnings_of_one_rule_in_one_file_are_one_line() {
    let environment = TestEnvironment::project();
    let settings = ["password", "secret", "token"].map(|name| format!("{name} = \"hG7kQ9zLm2XpvR4tYw8\"\n"));
    environment.write("settings.ini", &settings.concat());
    let both = "files = [{ from = \"settings.ini\", to = \"/settings.ini\" }, ";
    environment.edit("semel.toml", "files = [", both);
    environment.commit("feat: settings");
    let said = environment.ok(&["build"]).stderr;
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("lint: ")).collect();
    assert!(lines.len() == 1 && lines[0].ends_with(", and 2 more like it in this file"), "{said}");
}

#[test]
fn a_waiver_that_ran_out_is_said_and_hinders_no_comparison_of_what_was_published_under_it() {
    let environment = TestEnvironment::project();
    let key = format!("{}{}", "AK", "IAQWERTYUIOP234567");
    environment.edit("semel.toml", "[config]", "[[waiver]]\nrule = \"secret/aws-access-key\"\npath = \"/run.sh\"\nreason = \"revoked, kept as a bait\"\nuntil = 2020-12-31\n\n[config]");
    environment.edit("run.sh", "hello", &key);
    environment.commit("feat: bait");
    let ran_out = "the waiver of secret/aws-access-key for /run.sh ran out on 2020-12-31";
    for (words, code) in [(&["build"][..], 7), (&["lint", "run.sh"], 1)] {
        let refused = environment.semel(words);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.stderr.contains(ran_out), "{refused:?}");
    }
    let told = environment.semel(&["--json", "lint", "run.sh"]).json();
    assert_eq!(told["lapsed"][0]["until"], "2020-12-31", "{told:#}");
    // The build that this commit began is finished by one that only lengthens the waiver.
    environment.edit("semel.toml", "2020-12-31", "2999-12-31");
    environment.commit("chore: go on with the bait");
    environment.build();
    let commit = environment.ok(&["--json", "inspect", "0.1.0"]).json()["artefact"]["commit"].clone();
    assert_eq!(commit, environment.git(&["rev-parse", "HEAD~1"]));
    let checked = environment.ok(&["build", "--check=quick", "0.1.0"]);
    assert!(checked.stderr.contains("tiny/service 0.1.0 is reproducible"), "{checked:?}");
}

#[test]
fn files_a_layout_and_a_stored_version_are_looked_at_alike() {
    let environment = TestEnvironment::project();
    let key = format!("{}{}", "AK", "IAQWERTYUIOP234567");
    environment.edit("semel.toml", "[config]", "[[waiver]]\nrule = \"secret/aws-access-key\"\npath = \"/run.sh\"\nreason = \"revoked, kept as a bait\"\nuntil = 2999-12-31\n\n[config]");
    environment.edit("run.sh", "hello", &key);
    environment.commit("feat: bait");
    environment.build();
    let version = environment.ok(&["--json", "lint", "0.1.0"]).json();
    assert_eq!(version["report"]["waived"][0]["finding"]["rule"], "secret/aws-access-key");
    assert_eq!(version["stored"]["report"]["waived"][0]["finding"]["rule"], "secret/aws-access-key");
    assert_eq!(version["stored"]["verified"], true);
    environment.ok(&["pull", "0.1.0", "oci:../out"]);
    assert_eq!(environment.ok(&["--json", "lint", "../out"]).json()["report"], version["report"]);
    environment.edit("semel.toml", "/run.sh\"\nreason", "/other.sh\"\nreason");
    let found = environment.semel(&["lint", "run.sh"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("/run.sh:2") && !found.stdout.contains(&key), "{found:?}");
    assert_eq!(environment.semel(&["lint", "0.1.0"]).code, 1);
    assert_eq!(environment.semel(&["lint", "9.9.9"]).code, 4);
}

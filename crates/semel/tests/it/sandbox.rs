//! Builds in a sandbox, and what a host offers for them, as a user sees it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::environment::{TestEnvironment, finish, free_port, has, has_all, make_private, met};

/// A project whose commands say what they see.
fn project(build: &str) -> TestEnvironment {
    let environment = TestEnvironment::repository();
    environment.write(
        "semel.toml",
        &format!(
            "format = 1\ncomponent = \"tiny/service\"\n\n[build]\n{build}\n\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"out\", to = \"/out\" }}]\n"
        ),
    );
    environment.write("source", "");
    environment.commit("feat: build");
    environment
}

const VALUE: &str = "correct-horse-battery";

#[test]
fn a_secret_comes_from_the_environment_or_a_private_file_and_goes_nowhere() {
    let environment = project(
        "fetch = \"test ${#TOKEN} = 21; echo the token is $TOKEN\"\nrun = \"echo ${TOKEN-none} > out\"\nsecrets = [\"TOKEN\"]",
    );
    let missing = environment.semel(&["build"]);
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.stderr.contains("`fetch` needs secrets that are not here: TOKEN"), "{missing:?}");

    environment.write("../token", &format!("{VALUE}\n"));
    let named = ["build", "--secret", "TOKEN=../token"];
    let open = environment.semel(&named);
    assert!(open.code == 2 && open.stderr.contains("chmod 600"), "{open:?}");
    make_private(&environment.beside("token"));
    let unknown = environment.semel(&["build", "--secret", "TOKEN=../token", "--secret", "OTHER=../token"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("`OTHER` is not one of"), "{unknown:?}");

    let built = environment.ok(&named);
    fs::remove_file(environment.beside("token")).unwrap();
    let log = environment.ok(&["build", "log", "1"]);
    assert!(log.stdout.contains("the token is [secret TOKEN]"), "{log:?}");
    assert!(!format!("{built:?}{log:?}").contains(VALUE));
    let found = environment.bytes_below(&environment.beside("."));
    let leaked =
        found.iter().find(|(_, bytes)| bytes.windows(VALUE.len()).any(|some| some == VALUE.as_bytes()));
    assert_eq!(leaked.map(|(path, _)| path), None);

    environment.write("source", "changed");
    environment.commit("fix: change");
    let mut again = environment.command(&["build"]);
    again.env("TOKEN", VALUE);
    assert_eq!(finish(again, "").code, 0);
}

#[test]
fn the_level_is_chosen_told_and_recorded() {
    let environment = project("run = \"touch out\"");
    let unknown = environment.semel(&["build", "--sandbox", "docker"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("bubblewrap, landlock or none"), "{unknown:?}");
    let loud = environment.ok(&["build", "--sandbox", "none"]);
    assert!(loud.stderr.contains("NO SANDBOX"), "{loud:?}");
    let shown = environment.ok(&["inspect", "1"]).stdout;
    assert!(shown.contains("none, `run` with network"), "{shown}");
    if !has("bwrap") {
        return;
    }
    environment.edit("semel.toml", "touch out", "touch  out");
    environment.commit("fix: build again");
    let isolated = environment.ok(&["build", "--sandbox", "bubblewrap"]);
    assert!(!isolated.stderr.contains("SANDBOX"), "{isolated:?}");
    let shown = environment.ok(&["inspect", "2"]).stdout;
    assert!(shown.contains("bubblewrap, `run` without network"), "{shown}");

    environment.edit("semel.toml", "[build]", "[build]\nsandbox = \"none\"");
    environment.commit("fix: need devices");
    let refused = environment.semel(&["build", "--sandbox", "bubblewrap"]);
    assert!(refused.code == 2 && refused.stderr.contains("cannot be built in a sandbox"), "{refused:?}");
}

#[test]
fn a_cache_is_kept_between_builds_unless_it_is_not_wanted() {
    let environment =
        project("run = \"echo . >> kept/file; wc -l < kept/file > out; cat out\"\ncache = [\"kept\"]");
    let mut seen = Vec::new();
    for (number, words) in [(1, &["build"][..]), (2, &["build"]), (3, &["build", "--no-cache"])] {
        environment.write("source", &format!("{number}"));
        environment.commit("fix: change");
        environment.ok(words);
        let log = environment.ok(&["build", "log", &number.to_string()]).stdout;
        seen.push(log.lines().any(|line| line.trim_end().ends_with(" 2") || line.trim() == "2"));
    }
    assert_eq!(seen, [false, true, false]);
}

/// The commands of a user without any rights of root's are held back as much.
#[test]
fn an_ordinary_user_builds_at_every_level() {
    let root = rustix::process::geteuid().is_root();
    if !met(root, "only root can become another user") || !has_all(&["setpriv", "bwrap"]) {
        return;
    }
    let environment = project("run = \"id -u > out; ! cat /etc/shadow; ! touch /usr/here\"");
    // The program may lie where only its owner can go.
    let program = environment.beside("semel");
    fs::copy(env!("CARGO_BIN_EXE_semel"), &program).unwrap();
    let everything = environment.beside(".");
    assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(&everything).status().unwrap().success());
    for level in ["bubblewrap", "landlock"] {
        let mut command = environment.program("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
        // Each level has a store of its own, which has not seen the commit.
        command.args(["build", "--sandbox", level]).env("XDG_DATA_HOME", environment.beside(level));
        let built = finish(command, "");
        assert_eq!(built.code, 0, "{level}: {built:?}");
    }
}

#[test]
fn the_doctor_says_what_is_there_and_fails_for_what_is_configured_and_is_not() {
    let environment = TestEnvironment::project();
    let well = environment.semel(&["doctor"]);
    assert_eq!(well.code, 0, "{well:?}");
    for name in ["kernel", "git", "bubblewrap", "landlock", "sandbox", "work", "store"] {
        assert!(well.stdout.lines().any(|line| line.contains(&format!(" {name:<11}"))), "{name}: {well:?}");
    }
    assert!(!environment.store().exists(), "it makes nothing");
    environment.build();
    let json = environment.ok(&["doctor", "--json"]).json();
    assert_eq!(json["works"], true);
    let states = |name: &str| {
        let findings = json["findings"].as_array().unwrap();
        findings.iter().filter(|one| one["name"] == name).map(|one| one["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(states("clock"), ["good"]);

    let server = format!("http://127.0.0.1:{}", free_port());
    let unreachable = environment.semel(&["doctor", "--server", &server]);
    assert!(unreachable.code == 1 && unreachable.stdout.contains("✗ server"), "{unreachable:?}");
    fs::write(environment.store().join("store.json"), "{}").unwrap();
    let damaged = environment.semel(&["doctor"]);
    assert!(damaged.code == 1 && damaged.stdout.contains("✗ store"), "{damaged:?}");
    let on_a_runner = {
        let mut command = TestEnvironment::project().command(&["doctor"]);
        command.env("CI", "true").env("GITHUB_ACTIONS", "true").current_dir(Path::new("/"));
        finish(command, "")
    };
    assert!(on_a_runner.code == 1 && on_a_runner.stdout.contains("GitHub Actions"), "{on_a_runner:?}");
    assert!(on_a_runner.stdout.contains("SEMEL_SERVER=URL"), "{on_a_runner:?}");
}

//! Bad input: every case has its exit code and says what is wrong, why and what to do; nothing is half done.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::environment::{COMPONENT, Ran, TestEnvironment, finish, has, make_private, taken_port};

/// One case: a world, what is done to it, a command, and what has to come of it.
struct Case {
    what: &'static str,
    world: fn() -> TestEnvironment,
    setup: fn(&TestEnvironment),
    command: &'static [&'static str],
    code: i32,
    /// What standard error must contain.
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "an unknown key of semel.toml is named with its place and its nearest neighbour",
        world: TestEnvironment::project,
        setup: |env| {
            env.edit("semel.toml", "kind = \"archive\"", "kint = \"archive\"");
            env.commit("a typing mistake");
        },
        command: &["build"],
        code: 2,
        says: &["semel.toml:5:1", "`kint`", "did you mean `kind`", "hint: correct semel.toml and commit it"],
    },
    Case {
        what: "an unknown table of semel.toml",
        world: TestEnvironment::project,
        setup: |env| env.edit("semel.toml", "[artefact]", "[artifact]"),
        command: &["versions"],
        code: 2,
        says: &["semel.toml:4:", "`artifact`", "`artefact`", "hint: correct ", "/p/semel.toml\n"],
    },
    Case {
        what: "a semel.toml that is no TOML",
        world: TestEnvironment::project,
        setup: |env| env.edit("semel.toml", "format = 1", "format ="),
        command: &["versions"],
        code: 2,
        says: &["semel.toml:1:"],
    },
    Case {
        what: "a project file of a later format",
        world: TestEnvironment::project,
        setup: |env| env.edit("semel.toml", "format = 1", "format = 2"),
        command: &["versions"],
        code: 2,
        says: &["semel.toml:1:", "format"],
    },
    Case {
        what: "a contract key that no variable can have",
        world: TestEnvironment::project,
        setup: |env| env.edit("semel.toml", "MOOD =", "SEMEL_MOOD ="),
        command: &["versions"],
        code: 2,
        says: &["semel.toml:", "SEMEL_MOOD"],
    },
    Case {
        what: "an environment that wants to be built for",
        world: TestEnvironment::project,
        setup: |env| {
            let built_for = "[environment.dev.build]\nrun = \"make dev\"\n\n[environment.staging]";
            env.edit("semel.toml", "[environment.staging]", built_for);
            env.commit("feat: another build for dev");
        },
        command: &["build"],
        code: 2,
        says: &["unknown key `build`", "hint: correct semel.toml and commit it"],
    },
    Case {
        what: "an environment that wants files of its own in the artefact",
        world: TestEnvironment::project,
        setup: |env| {
            let own = "[environment.dev]\nfiles = [{ from = \"dev\", to = \"/dev\" }]";
            env.edit("semel.toml", "[environment.dev]", own);
            env.commit("feat: more files for dev");
        },
        command: &["build"],
        code: 2,
        says: &["unknown key `files`", "hint: correct semel.toml and commit it"],
    },
    Case {
        what: "a repository without a commit",
        world: TestEnvironment::repository,
        setup: |_| {},
        command: &["build"],
        code: 2,
        says: &["has no commit yet", "hint: git add . && git commit"],
    },
    Case {
        what: "a directory that is no repository",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["build"],
        code: 2,
        says: &["is not in a git repository", "hint: git init"],
    },
    Case {
        what: "a commit without a project file",
        world: TestEnvironment::repository,
        setup: |env| {
            env.write("readme", "hello\n");
            env.commit("nothing to build");
        },
        command: &["build"],
        code: 2,
        says: &["has no semel.toml", "hint: semel init"],
    },
    Case {
        what: "a revision that git does not know",
        world: TestEnvironment::project,
        setup: |_| {},
        command: &["build", "no-such-branch"],
        code: 4,
        says: &["`no-such-branch` is no commit", "hint: git log"],
    },
    Case {
        what: "uncommitted changes are a notice that names them",
        world: TestEnvironment::project,
        setup: |env| env.write("run.sh", "#!/bin/sh\nexit 1\n"),
        command: &["build"],
        code: 0,
        says: &["note: 1 uncommitted file is not part of this build: run.sh\n"],
    },
    Case {
        what: "of many uncommitted changes the first are named",
        world: TestEnvironment::project,
        setup: |env| ["a", "b", "c/d", "e", "f", "g", "h"].iter().for_each(|name| env.write(name, "")),
        command: &["build"],
        code: 0,
        says: &["note: 7 uncommitted files are not part of this build: a, b, c/, e, f and 2 more\n"],
    },
    Case {
        what: "an output file that the build did not leave",
        world: TestEnvironment::project,
        setup: |env| {
            env.edit("semel.toml", "from = \"run.sh\"", "from = \"out/run.sh\"");
            env.commit("another place");
        },
        command: &["build"],
        code: 2,
        says: &["the build left no `out/run.sh`", "the tree has run.sh", "hint: semel build log 1"],
    },
    Case {
        what: "a file with the values of an environment as part of the artefact",
        world: TestEnvironment::project,
        setup: |env| {
            let both = "files = [{ from = \"config/dev.toml\", to = \"/dev.toml\" }, ";
            env.edit("semel.toml", "files = [", both);
            env.commit("values inside");
        },
        command: &["build"],
        code: 2,
        says: &[
            "`config/dev.toml` is no part of the source tree: it has the values of an environment",
            "hint: leave it out of [artefact] files",
        ],
    },
    Case {
        what: "a build command that fails",
        world: TestEnvironment::project,
        setup: |env| {
            env.edit(
                "semel.toml",
                "[artefact]",
                "[build]\nrun = \"echo one step too far; exit 7\"\n\n[artefact]",
            );
            env.commit("a failing build");
        },
        command: &["build"],
        code: 10,
        says: &["exit", "7", "| one step too far", "hint: semel build log 1 -c tiny/service"],
    },
    Case {
        what: "an image without the program that runs its script",
        world: TestEnvironment::project,
        setup: |env| {
            env.edit("semel.toml", "kind = \"archive\"", "kind = \"image\"");
            env.commit("an image");
        },
        command: &["build"],
        code: 7,
        says: &[
            "the artefact is not complete: 1 problem",
            "because: /run.sh is run by /bin/sh, which is not in the artefact",
            "hint: put it into [artefact] files or the base",
        ],
    },
    Case {
        what: "a version that nobody published",
        world: built,
        setup: |_| {},
        command: &["promote", "9.9.9", "staging"],
        code: 4,
        says: &["9.9.9", "hint: semel versions"],
    },
    Case {
        what: "a word that names no version",
        world: built,
        setup: |_| {},
        command: &["inspect", "sha256:short"],
        code: 2,
        says: &["sha256:short"],
    },
    Case {
        what: "an environment that does not exist, and the one that was meant",
        world: built,
        setup: |_| {},
        command: &["promote", "0.1.0", "stagging"],
        code: 4,
        says: &["stagging", "staging"],
    },
    Case {
        what: "an environment that does not exist, for deploy",
        world: built,
        setup: |_| {},
        command: &["deploy", "0.1.0", "stagging"],
        code: 4,
        says: &["stagging", "staging"],
    },
    Case {
        what: "a component that does not exist",
        world: built,
        setup: |_| {},
        command: &["versions", "-c", "tiny/servise"],
        code: 4,
        says: &["tiny/servise"],
    },
    Case {
        what: "a version of a component that does not exist",
        world: built,
        setup: |_| {},
        command: &["inspect", "tiny/servise@0.1.0"],
        code: 4,
        says: &["tiny/servise"],
    },
    Case {
        what: "a name that no component can have",
        world: built,
        setup: |_| {},
        command: &["versions", "-c", "Tiny Service"],
        code: 2,
        says: &["Tiny Service"],
    },
    Case {
        what: "a digest that was not expected",
        world: built,
        setup: |_| {},
        command: &[
            "promote",
            "0.1.0",
            "staging",
            "--expect",
            "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ],
        code: 5,
        says: &["0.1.0", "sha256:0000"],
    },
    Case {
        what: "a JUnit report that is broken off",
        world: built,
        setup: |env| env.write("results.xml", "<testsuite><testcase name=\"a\">"),
        command: &["attest", "0.1.0", "--type", "junit", "results.xml"],
        code: 2,
        says: &["not a JUnit report", "byte"],
    },
    Case {
        what: "a JUnit report without a test",
        world: built,
        setup: |env| env.write("results.xml", "<testsuite/>"),
        command: &["attest", "0.1.0", "--type", "junit", "results.xml"],
        code: 2,
        says: &["a run without tests proves nothing"],
    },
    Case {
        what: "a report that is something else",
        world: built,
        setup: |env| env.write("results.xml", "<html/>"),
        command: &["attest", "0.1.0", "--type", "junit", "results.xml"],
        code: 2,
        says: &["<html>", "<testsuite>"],
    },
    Case {
        what: "a report that is not there",
        world: built,
        setup: |_| {},
        command: &["attest", "0.1.0", "--type", "junit", "no.xml"],
        code: 4,
        says: &["no.xml"],
    },
    Case {
        what: "evidence that says nothing",
        world: built,
        setup: |_| {},
        command: &["attest", "0.1.0", "--type", "smoke"],
        code: 2,
        says: &["nothing says what the result of type smoke is", "--result"],
    },
    Case {
        what: "an address that others can reach",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["serve", "--listen", "0.0.0.0:0"],
        code: 2,
        says: &["0.0.0.0:0", "loopback", "127.0.0.1:0", "sign-in"],
    },
    Case {
        what: "a store that cannot be written",
        world: TestEnvironment::project,
        setup: |_| {},
        command: &["build", "--store", "/dev/null/store"],
        code: 3,
        says: &["/dev/null/store"],
    },
    Case {
        what: "a directory that is something else than a store",
        world: TestEnvironment::project,
        setup: |_| {},
        command: &["build", "--store", "config"],
        code: 2,
        says: &["is not empty and is no store", "hint: name another directory: --store DIR"],
    },
    Case {
        what: "a project that has a semel.toml already",
        world: TestEnvironment::project,
        setup: |_| {},
        command: &["init"],
        code: 5,
        says: &["never overwritten", "hint: to see what would be proposed: semel init --print"],
    },
    Case {
        what: "a layout that is not there",
        world: TestEnvironment::project,
        setup: |_| {},
        command: &["push", "oci:nowhere", "1.0.0"],
        code: 4,
        says: &["nowhere"],
    },
    Case {
        what: "required keys without a value, all at once",
        world: built,
        setup: |env| {
            env.edit(
                "semel.toml",
                "MOOD = { type = \"string\", default = \"calm\" }",
                "MOOD = { type = \"port\" }",
            );
            env.commit("a new contract");
            env.build();
            env.write("config/dev.toml", "PALACE = \"a laptop\"\nMOOD = \"a good one\"\n");
        },
        command: &["deploy", "0.1.1", "dev"],
        code: 9,
        says: &["nothing was touched", "PLACE", "MOOD", "PALACE", "hint:"],
    },
    Case {
        what: "an environment has no value of the one before it",
        world: TestEnvironment::project,
        setup: |env| {
            env.edit("semel.toml", "gates = [{ evidence = \"junit\" }]\n", "");
            env.commit("feat: no tests");
            env.ok(&["deploy", "dev"]);
            env.write("config/staging.toml", "");
        },
        command: &["deploy", "0.1.0", "staging"],
        code: 9,
        says: &["nothing was touched", "PLACE", "hint:"],
    },
    Case {
        what: "a rollback without anything to go back to",
        world: built,
        setup: |env| drop(env.ok(&["pipeline", "apply"])),
        command: &["rollback", "dev"],
        code: 4,
        says: &["dev", "hint:"],
    },
    Case {
        what: "a verb that does not exist",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["bild"],
        code: 2,
        says: &["bild", "build"],
    },
    Case {
        what: "a backup that is none",
        world: TestEnvironment::empty,
        setup: |env| env.write("something", "else"),
        command: &["restore", ".", "--store", "new"],
        code: 4,
        says: &["is no backup"],
    },
    Case {
        what: "a policy that does not exist",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "create", "shop/api", "--policy", "loose"],
        code: 2,
        says: &["`loose` is no policy"],
    },
    Case {
        what: "a pattern that no name can have",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "create", "shop/api", "--version-pattern", "a/b"],
        code: 2,
        says: &["`a/b` is no pattern for names"],
    },
    Case {
        what: "a rule for bytes that does not exist",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "create", "shop/api", "--keep", "main=3d"],
        code: 2,
        says: &["`main=3d` is no rule for keeping bytes"],
    },
    Case {
        what: "a term that is no time",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "create", "shop/api", "--keep", "trunk=soon"],
        code: 2,
        says: &["`trunk=soon` does not say how long"],
    },
    Case {
        what: "a component that is to change and is not there",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "set", "shop/api", "--keep", "trunk=3d"],
        code: 4,
        says: &["there is no component shop/api", "semel component create shop/api"],
    },
    Case {
        what: "a change of rules without a rule",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "set", "shop/api"],
        code: 2,
        says: &["nothing is said that could change"],
    },
    Case {
        what: "a pattern where all names are versions",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["component", "create", "shop/api", "--policy", "strict", "--version-pattern", "a-#"],
        code: 2,
        says: &["has the policy strict"],
    },
    Case {
        what: "a deprecation without a reason",
        world: built,
        setup: |_| {},
        command: &["deprecate", "0.1.0"],
        code: 2,
        says: &["--reason <TEXT>"],
    },
    Case {
        what: "a deprecation with an empty reason",
        world: built,
        setup: |_| {},
        command: &["deprecate", "0.1.0", "-m", " "],
        code: 2,
        says: &["a reason is one line"],
    },
    Case {
        what: "a rejection of pulls in one environment",
        world: built,
        setup: |env| drop(env.ok(&["pipeline", "apply"])),
        command: &["reject", "0.1.0", "dev", "-m", "it leaks", "--pulls"],
        code: 2,
        says: &["leave the environment out"],
    },
    Case {
        what: "a draft that is held for no time that can be read",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["push", "--draft", "oci:../x", "shop/api@1.0.0", "--for", "long"],
        code: 2,
        says: &["`long` is not a duration"],
    },
    Case {
        what: "a term without a draft",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["push", "oci:../x", "shop/api@1.0.0", "--for", "2h"],
        code: 2,
        says: &["--draft"],
    },
    Case {
        what: "a draft with another name",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["publish", "shop/api@1.0.0", "--as", "2.0.0"],
        code: 2,
        says: &["has its name"],
    },
    Case {
        what: "a time that nobody can read",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["inspect", "shop/api@latest@{soon}"],
        code: 2,
        says: &["`soon` is no time", "2.hours.ago"],
    },
    Case {
        what: "a channel of a component that has none",
        world: built,
        setup: |_| {},
        command: &["channels", "latest"],
        code: 4,
        says: &["never had a channel latest", "hint: semel channels"],
    },
    Case {
        what: "a name that is no channel",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["channels", "a b", "-c", "shop/api"],
        code: 2,
        says: &["a b"],
    },
    Case {
        what: "a collection that is to be done and not",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["gc", "--yes", "--dry-run"],
        code: 2,
        says: &["cannot be used with"],
    },
    Case {
        what: "a collection with a term that is none",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["gc", "--grace", "tomorrow"],
        code: 2,
        says: &["`tomorrow` is not a duration"],
    },
    Case {
        what: "the configuration of an environment that does not exist",
        world: applied,
        setup: |_| {},
        command: &["config", "show", "stagging"],
        code: 4,
        says: &["has no environment stagging", "hint: did you mean staging?"],
    },
    Case {
        what: "the configuration of a component that does not exist",
        world: applied,
        setup: |_| {},
        command: &["config", "show", "dev", "-c", "tiny/servise"],
        code: 4,
        says: &["tiny/servise has no pipeline in this store"],
    },
    Case {
        what: "a key to forget in an environment that does not exist",
        world: applied,
        setup: |_| {},
        command: &["config", "unset", "nowhere", "TOKEN"],
        code: 4,
        says: &["has no environment nowhere (it has: dev, staging)"],
    },
    Case {
        what: "the log of an environment that does not exist",
        world: applied,
        setup: |_| {},
        command: &["logs", "stagging"],
        code: 4,
        says: &["has no environment stagging", "hint: did you mean staging?"],
    },
    Case {
        what: "the end of an environment that does not exist",
        world: applied,
        setup: |_| {},
        command: &["stop", "stagging"],
        code: 4,
        says: &["has no environment stagging", "hint: did you mean staging?"],
    },
    Case {
        what: "a deployment to nowhere",
        world: built,
        setup: |_| {},
        command: &["deploy", "0.1.0"],
        code: 2,
        says: &["`0.1.0` is not a valid environment name", "hint: an environment is missing: 0.1.0 ENV"],
    },
    Case {
        what: "a deployment before the first one",
        world: TestEnvironment::project,
        setup: |env| drop(env.ok(&["deploy", "dev"])),
        command: &["inspect", "dev~1"],
        code: 4,
        says: &["fewer than 2 deployments", "hint: semel history dev -c tiny/service"],
    },
    Case {
        what: "nothing was promoted, so nothing resolves",
        world: applied,
        setup: |_| {},
        command: &["resolve", "dev"],
        code: 9,
        says: &[
            "refused: nothing of tiny/service may run in dev",
            "hint: to see what is missing: semel promote VERSION dev --plan",
        ],
    },
    Case {
        what: "a value that was set and that the contract does not know",
        world: applied,
        setup: |env| drop(env.piped(&["config", "set", "dev", "TOKEM"], "x")),
        command: &["deploy", "dev"],
        code: 9,
        says: &[
            "did you mean TOKEN?",
            "hint: declare TOKEM under [config] in a new version, or: semel config unset dev TOKEM -c tiny/service",
        ],
    },
    Case {
        what: "a place of pulled files that is none",
        world: built,
        setup: |_| {},
        command: &["pull", "0.1.0", "docker://example.org/tiny:1"],
        code: 2,
        says: &["is no place that can be written to"],
    },
    Case {
        what: "a source that was restored already",
        world: built,
        setup: |env| drop(env.ok(&["source", "0.1.0", "-o", "../source"])),
        command: &["source", "0.1.0", "-o", "../source"],
        code: 2,
        says: &["is there already", "hint: name another place: -o PLACE"],
    },
    Case {
        what: "a file to look at that is not there",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["lint", "dist/app.js"],
        code: 4,
        says: &["dist/app.js is no file here", "nor is it an artefact"],
    },
    Case {
        what: "a directory to work in that is not there",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["-C", "nowhere", "status"],
        code: 2,
        says: &["nowhere is no directory", "hint: name the project's: -C DIR"],
    },
    Case {
        what: "a scrub of no number of bytes",
        world: TestEnvironment::empty,
        setup: |_| {},
        command: &["scrub", "--max-bytes", "many"],
        code: 2,
        says: &["many"],
    },
];

fn built() -> TestEnvironment {
    let environment = TestEnvironment::project();
    environment.build();
    environment
}

fn applied() -> TestEnvironment {
    let environment = TestEnvironment::project();
    environment.ok(&["pipeline", "apply"]);
    environment
}

#[test]
fn bad_input_is_named_with_its_cause_and_the_next_step() {
    let wrong: Vec<String> = CASES.iter().filter_map(complaint).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with how a case came out.
fn complaint(case: &Case) -> Option<String> {
    let environment = (case.world)();
    (case.setup)(&environment);
    let ran = environment.semel(case.command);
    let missing: Vec<&&str> = case.says.iter().filter(|words| !ran.stderr.contains(**words)).collect();
    let quiet = case.code == 0 || ran.stdout.is_empty();
    let panicked = ran.stderr.contains("panicked");
    let right = ran.code == case.code && missing.is_empty() && quiet && !panicked;
    (!right).then(|| {
        format!(
            "{}\n  expected exit {}, and the words {missing:?}; was exit {}\n{}{}",
            case.what, case.code, ran.code, ran.stderr, ran.stdout
        )
    })
}

#[test]
fn an_artefact_that_does_not_start_is_not_published_and_keeps_its_number() {
    if !has("bwrap") {
        return;
    }
    let environment = TestEnvironment::project();
    let smoke = "entrypoint = [\"/run.sh\"]\nneeds = [\"sh\"]\nsmoke = [\"sh -c 'echo too far; exit 3'\"]";
    environment.edit("semel.toml", "entrypoint = [\"/run.sh\"]", smoke);
    environment.commit("feat: smoke");
    for attempt in ["minor", "attempt 2"] {
        let ran = environment.semel(&["build"]);
        expect(&ran, 10, &[&format!("(build 1): {attempt}"), "exited with code 3", "| too far"]);
    }
    let log = environment.ok(&["build", "log", "1"]).stdout;
    assert!(log.contains("smoke: sh -c 'echo too far; exit 3'") && log.contains("too far"), "{log}");
    assert_eq!(environment.ok(&["versions", "--json"]).json()["versions"], serde_json::json!([]));

    environment.edit("semel.toml", "exit 3", "exit 0");
    environment.commit("fix: smoke");
    let ran = environment.ok(&["build"]);
    assert!(ran.stderr.contains("closure complete: the host has sh, smoke 1/1"), "{}", ran.stderr);
    let shown = environment.ok(&["inspect", "2"]).stdout;
    assert!(shown.contains("closure = pass"), "{shown}");
}

#[test]
fn another_digest_for_a_version_is_refused_and_the_next_free_one_is_named() {
    let environment = two_layouts();
    let first = environment.ok(&["push", "oci:../one", "other/copy@1.0.0"]).digest();
    assert_eq!(
        environment.ok(&["push", "oci:../one", "other/copy@1.0.0"]).digest(),
        first,
        "a repeat is no error"
    );
    let refused = environment.semel(&["push", "oci:../two", "other/copy@1.0.0"]);
    expect(&refused, 5, &[&first, "1.0.0", "hint: push it as other/copy@1.0.1"]);
    let listed = environment.ok(&["--json", "versions", "-c", "other/copy"]).json();
    assert_eq!(listed["versions"].as_array().unwrap().len(), 1, "{listed}");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn damaged_bytes_in_a_layout_are_refused_and_named() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("a truncated blob", |blob| fs::write(blob, &fs::read(blob).unwrap()[1..]).unwrap()),
        ("a flipped bit", |blob| {
            let mut bytes = fs::read(blob).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(blob, bytes).unwrap();
        }),
        ("a longer blob", |blob| {
            fs::write(blob, [fs::read(blob).unwrap(), b"more".to_vec()].concat()).unwrap();
        }),
        ("a missing blob", |blob| fs::remove_file(blob).unwrap()),
    ];
    let environment = two_layouts();
    // Once with what is attached, which is damaged in one way.
    environment.ok(&["pull", "0.1.0", "oci:../bare", "--alone"]);
    let own: Vec<_> =
        blobs(&environment.beside("bare")).iter().map(|blob| blob.file_name().unwrap().to_owned()).collect();
    for (at, (what, damage)) in damages.into_iter().enumerate() {
        let is_tried = |blob: &PathBuf| at == 0 || own.iter().any(|name| blob.ends_with(name));
        for blob in blobs(&environment.beside("one")).into_iter().filter(is_tried) {
            let name = blob.file_name().unwrap().to_string_lossy().into_owned();
            // A store of its own, since what is whole in a store is not read again from elsewhere.
            let store = format!("../store-{at}-{name}");
            let push = ["--store", &store, "push", "oci:../one", "other/copy@1.0.0"];
            let whole = fs::read(&blob).unwrap();
            damage(&blob);
            let refused = environment.semel(&push);
            assert_eq!(refused.code, 7, "{what}: {refused:?}");
            assert!(refused.stderr.contains(&name), "{what} is named: {}", refused.stderr);
            let versions = environment.semel(&["--store", &store, "versions", "-c", "other/copy"]);
            assert!(versions.stdout.is_empty(), "{what}: nothing is named: {}", versions.stdout);
            fs::write(&blob, whole).unwrap();
            environment.ok(&push);
            environment.ok(&["--store", &store, "audit", "verify"]);
        }
    }
}

#[test]
fn a_taken_port_is_named() {
    let environment = TestEnvironment::empty();
    let (_listener, port): (TcpListener, u16) = taken_port();
    let address = format!("127.0.0.1:{port}");
    expect(&environment.semel(&["serve", "--listen", &address]), 2, &[&address, "port is taken", "port 0"]);
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_left_as_it_is() {
    let environment = built();
    let identity = environment.store().join("store.json");
    let text = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let before = environment.bytes_below(&environment.store());
    for words in
        [&["build"][..], &["versions"], &["recover"], &["audit", "verify"], &["serve"], &["backup", "../b"]]
    {
        expect(&environment.semel(words), 2, &["format 2", "use a newer semel"]);
        assert!(environment.bytes_below(&environment.store()) == before, "semel {words:?} wrote something");
    }
}

#[test]
fn who_only_looks_makes_no_store_of_a_mistyped_name() {
    let environment = built();
    for words in [
        &["status"][..],
        &["versions"],
        &["build", "log", "1"],
        &["audit", "verify"],
        &["gc"],
        &["backup", "../backup"],
    ] {
        let refused = environment.semel(&[&["--store", "../mistyped"], words].concat());
        expect(&refused, 4, &["there is no store in", "mistyped", "hint: name the one that is meant"]);
        assert!(!environment.beside("mistyped").exists(), "semel {words:?} made a store");
    }
    let new = environment.ok(&["--store", "../new", "build"]);
    assert!(new.stderr.contains("note: there was no store in"), "{new:?}");
    let again = environment.ok(&["--store", "../new", "build"]);
    assert!(!again.stderr.contains("there was no store"), "{again:?}");
}

#[test]
fn a_ci_runner_needs_a_store_with_a_name() {
    let environment = TestEnvironment::project();
    let mut command = environment.command(&["build"]);
    command.env("CI", "true");
    let refused = finish(command, "");
    expect(&refused, 2, &["no store is named", "SEMEL_STORE=DIR", "SEMEL_SERVER=URL"]);
    assert!(!environment.beside("data").exists(), "nothing is written");
    let mut command = environment.command(&["deploy", "dev"]);
    command.env("CI", "true");
    let refused = finish(command, "");
    expect(&refused, 2, &["no store is named"]);
    let mut command = environment.command(&["build"]);
    command.env("CI", "true").env("SEMEL_STORE", environment.beside("kept"));
    let ran = finish(command, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(environment.beside("kept/store.json").exists());
}

#[test]
fn a_file_is_tracked_whichever_repository_the_caller_works_in() {
    let environment = built();
    environment.write("config/dev.toml", "PLACE = \"a laptop\"\nTOKEN = \"opens the door\"\n");
    environment.commit("a secret that should not be here");
    make_private(&environment.dir().join("config/dev.toml"));
    // As in a hook of another repository.
    let elsewhere = environment.beside("elsewhere");
    environment.git(&["init", "--quiet", "--bare", &elsewhere.display().to_string()]);
    let mut command = environment.command(&["deploy", "0.1.0", "dev"]);
    command.env("GIT_DIR", elsewhere);
    expect(&finish(command, ""), 9, &["TOKEN", "config set dev TOKEN"]);
}

#[test]
fn a_secret_in_a_tracked_file_is_refused_and_never_repeated() {
    let secret = "correct-horse-battery-staple";
    let environment = built();
    environment
        .write("config/dev.toml", &format!("PLACE = \"a laptop\"\nTOKEN = \"{secret}\"\nNO_SUCH_KEY = 1\n"));
    environment.commit("a secret that should not be here");
    environment.ok(&["build"]);
    let refused = environment.semel(&["deploy", "0.1.0", "dev"]);
    expect(&refused, 9, &["TOKEN", "NO_SUCH_KEY", "config set dev TOKEN"]);
    assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    environment.write("config/dev.toml", "PLACE = \"a laptop\"\n");
    environment.commit("without it");
    let set = environment.piped(&["config", "set", "dev", "TOKEN"], secret);
    assert_eq!(set.code, 0, "{set:?}");
    let mut said = set.stdout + &set.stderr;
    for words in [
        &["deploy", "0.1.0", "dev"][..],
        &["--json", "status"],
        &["config", "show", "dev"],
        &["--json", "config", "show", "dev"],
        &["--json", "why", "dev"],
        &["--json", "history", "dev"],
        &["rollback", "dev"],
        &["logs", "dev"],
    ] {
        let ran = environment.semel(words);
        said.extend([ran.stdout, ran.stderr]);
    }
    assert!(!said.contains(secret), "{said}");
    for place in ["data", "config"] {
        for (path, bytes) in environment.bytes_below(&environment.beside(place)) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds the secret", path.display());
        }
    }
}

#[test]
fn a_broken_values_file_is_refused_without_its_values() {
    let environment = built();
    environment.write("config/dev.toml", "PLACE = \"a laptop\"\nTOKEN = \"half-a-secret\n");
    let refused = environment.semel(&["deploy", "0.1.0", "dev"]);
    expect(&refused, 2, &["config/dev.toml", "line 2", "hint:"]);
    assert!(!refused.stderr.contains("half-a-secret"), "{}", refused.stderr);
}

#[test]
fn versions_come_from_the_home_alone() {
    let environment = built();
    environment.ok(&["pull", "0.1.0", "oci:../copy"]);
    let home = environment.ok(&["--json", "inspect", "0.1.0"]).json()["home"].as_str().unwrap().to_owned();
    let pushed =
        environment.ok(&["--store", "../second", "push", "oci:../copy", &format!("{COMPONENT}@0.1.0")]);
    assert!(pushed.digest().starts_with("sha256:"));
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    let refused = environment.semel(&["--store", "../second", "build"]);
    expect(&refused, 6, &[&home, COMPONENT]);
    let renamed =
        environment.semel(&["--store", "../second", "push", "oci:../copy", &format!("{COMPONENT}@0.1.1")]);
    expect(&renamed, 6, &[&home, "0.1.0", "hint:"]);
    environment.ok(&["--store", "../second", "audit", "verify"]);
}

#[test]
fn a_refused_resolution_prints_nothing_to_take() {
    let environment = built();
    for words in
        [&["resolve", "staging"][..], &["resolve", "0.1.0", "staging"], &["--json", "resolve", "staging"]]
    {
        let refused = environment.semel(words);
        expect(&refused, 9, &["refused:", "staging"]);
        assert_eq!(refused.stdout, "", "{words:?}");
    }
}

/// A built project, and the artefacts of two commits as layouts `one` and `two` beside it.
fn two_layouts() -> TestEnvironment {
    let environment = built();
    environment.ok(&["pull", "0.1.0", "oci:../one"]);
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    environment.build();
    environment.ok(&["pull", "0.1.1", "oci:../two"]);
    environment
}

fn blobs(layout: &Path) -> Vec<PathBuf> {
    fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn expect(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    for words in says {
        assert!(ran.stderr.contains(words), "`{words}` is missing:\n{}", ran.stderr);
    }
}

//! The project's own commands.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use semel_build::log::{self, Mark};
use semel_build::pipeline::{Blame, BuildError};
use semel_build::sandbox::HostEnvironment;
use tempfile::TempDir;

use crate::support::{Done, Repo};

fn project(build: &str) -> String {
    format!(
        "format = 1\ncomponent = \"shop/api\"\n[build]\n{build}\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"out\", to = \"/out\" }}]\n"
    )
}

fn repo(build: &str) -> Repo {
    Repo::with(&project(build), &[("source", "hello\n")]).committed()
}

fn run(build: &str) -> Result<Done, BuildError> {
    repo(build).build()
}

#[test]
fn commands_see_the_fixed_list_of_variables_and_their_own() {
    let repo = repo(
        "run = \"/usr/bin/env > out; umask >> out; ls -A $HOME >> out; echo end >> out\"\nenv = { MINE = \"1\" }",
    );
    let done = repo.built();
    let text = fs::read_to_string(done.work.path().join("tree/out")).unwrap();
    let mut names: Vec<&str> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // The shell itself adds these.
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"));
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "HOME",
            "LC_ALL",
            "MINE",
            "PATH",
            "SEMEL",
            "SEMEL_PLATFORM",
            "SOURCE_COMMIT",
            "SOURCE_DATE_EPOCH",
            "TARGETARCH",
            "TARGETOS",
            "TMPDIR",
            "TZ"
        ]
    );
    assert!(text.contains("SOURCE_DATE_EPOCH=1714979289\n"), "{text}");
    assert!(text.ends_with("\n0022\nend\n"), "the home is empty: {text}");
    assert_eq!(done.built.report.variables, names);
}

#[test]
fn toolchains_are_found_where_they_were_before_the_home_changed() {
    let home = TempDir::new().unwrap();
    let below = |name: &str| {
        fs::create_dir_all(home.path().join(name)).unwrap();
        home.path().join(name)
    };
    let (rustup, bin, lib) = (below(".rustup"), below("node/bin"), below("node/lib"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let given = BTreeMap::from([
        ("HOME".to_owned(), text(home.path())),
        // The home itself is no directory of programs, whatever the PATH says.
        ("PATH".to_owned(), format!("/bin:{}:{}", text(&bin), text(home.path()))),
        ("GOROOT".to_owned(), "/no/such/go".to_owned()),
        ("CARGO_HOME".to_owned(), text(&below(".cargo"))),
        ("GITHUB_TOKEN".to_owned(), "hunter2".to_owned()),
    ]);
    let mut variables = given.clone();
    variables.retain(|name, _| name == "PATH" || name == "GOROOT");
    variables.insert("RUSTUP_HOME".to_owned(), text(&rustup));
    assert_eq!(
        HostEnvironment::of(&given),
        HostEnvironment { variables, toolchains: vec![rustup, bin, lib], ..HostEnvironment::default() }
    );
}

#[test]
fn fetch_runs_before_run_and_both_are_logged_in_order() {
    let done = run("fetch = [\"sh\", \"-c\", \"echo one; echo two >&2; echo fetched > cache\"]\nrun = \"cp cache out\\necho three\"").unwrap();
    let expected = [
        "== fetch: sh -c echo one; echo two >&2; echo fetched > cache",
        "one",
        "two",
        "== run: cp cache out echo three",
        "three",
    ];
    assert_eq!(done.lines, expected);
    let log = fs::read(&done.built.log).unwrap();
    let marks: Vec<Mark> = log::lines(&log).map(|line| line.mark).collect();
    assert_eq!(marks, [Mark::Phase, Mark::Line, Mark::Line, Mark::Phase, Mark::Line]);
    assert_eq!(log::raw(&log), b"one\ntwo\nthree\n");
    assert_eq!(done.built.report.phases.len(), 2);
}

#[test]
fn a_failing_command_is_told_with_its_first_and_last_lines() {
    for (build, ending) in [
        ("run = \"for n in $(seq 30); do echo line $n; done; exit 7\"", "exited with code 7"),
        ("run = \"for n in $(seq 30); do echo line $n; done; false; echo never\"", "exited with code 1"),
        ("run = \"for n in $(seq 30); do echo line $n; done; echo $UNSET_VARIABLE\"", "exited with code"),
        ("run = \"for n in $(seq 30); do echo line $n; done; kill -9 $$\"", "was ended by signal 9"),
    ] {
        let error = run(build).err().unwrap();
        assert!(
            error.to_string().starts_with("run: `for n") && error.to_string().contains(ending),
            "{error}"
        );
        assert_eq!(error.blame(), Blame::Command);
        let BuildError::Run(error) = error else { panic!("{error}") };
        let excerpt = error.excerpt();
        assert_eq!(excerpt[..2], ["line 1", "line 2"]);
        assert!(excerpt.len() <= 21 && excerpt.iter().any(|line| line == "line 30"), "{excerpt:?}");
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run("run = [\"no-such-program\", \"x\"]").err().unwrap();
    assert_eq!(error.to_string(), "run: cannot find the program `no-such-program`");
    assert_eq!(error.blame(), Blame::Caller);
}

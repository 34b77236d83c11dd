//! The project's own commands.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use semel_build::log::{self, Mark};
use semel_build::pipeline::{self, Blame, BuildError};
use semel_build::recipe::{HostEnvironment, RunError};
use tempfile::TempDir;

use crate::support::{Done, Recorder, Repo, request, runtime};

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
        "run = \"/usr/bin/env > out; umask >> out; pwd >> out; ls -A $HOME >> out\"\nenv = { MINE = \"1\" }",
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
        ["HOME", "LC_ALL", "MINE", "PATH", "SEMEL", "SOURCE_COMMIT", "SOURCE_DATE_EPOCH", "TZ"]
    );
    assert!(text.contains("SOURCE_DATE_EPOCH=1714979289\n") && text.contains("SEMEL=/opt/semel\n"), "{text}");
    assert!(text.contains("\n0022\n"), "{text}");
    let tail = text.lines().last().unwrap();
    assert!(tail.ends_with("/tree"), "the home is empty, so the last line is the directory: {text}");
    assert_eq!(done.built.report.variables.len(), 8);
}

#[test]
fn toolchains_are_found_where_they_were_before_the_home_changed() {
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join(".cargo")).unwrap();
    let variables = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let given = variables(&[
        ("HOME", home.path().to_str().unwrap()),
        ("PATH", "/bin"),
        ("GOROOT", "/opt/go"),
        ("GITHUB_TOKEN", "hunter2"),
    ]);
    let cargo = home.path().join(".cargo");
    let expected =
        variables(&[("PATH", "/bin"), ("GOROOT", "/opt/go"), ("CARGO_HOME", cargo.to_str().unwrap())]);
    assert_eq!(HostEnvironment::of(&given).variables, expected);
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
fn a_failing_command_is_told_with_its_last_lines() {
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
        assert!(
            error.tail().len() <= 20 && error.tail().iter().any(|line| line == "line 30"),
            "{:?}",
            error.tail()
        );
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run("run = [\"no-such-program\", \"x\"]").err().unwrap();
    assert_eq!(error.to_string(), "run: cannot find the program `no-such-program`");
    assert_eq!(error.blame(), Blame::Caller);
}

#[test]
fn a_timeout_ends_the_grandchildren_too() {
    let build =
        "run = \"(sleep 600 & echo $! > $HOME/../grandchild; sleep 600) & wait\"\ntimeout = \"300ms\"";
    let work = TempDir::new().unwrap();
    let started = Instant::now();
    let repo = repo(build);
    let request = request(repo.source(), work.path().to_owned());
    let error = runtime().block_on(pipeline::run(request, Arc::new(Recorder::default()))).unwrap_err();
    assert!(matches!(&error, BuildError::Run(RunError::TimedOut { .. })), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_gone(&work.path().join("grandchild"));
}

#[test]
fn what_a_command_leaves_running_is_ended_with_it() {
    let done = run("run = \"sleep 600 & echo $! > out\"").unwrap();
    assert_gone(&done.work.path().join("tree/out"));
}

#[test]
fn dropping_the_build_ends_the_command() {
    let work = TempDir::new().unwrap();
    let repo = repo("run = \"echo $$ > $HOME/../leader; echo ready; sleep 600\"");
    let source = repo.source();
    runtime().block_on(async {
        let (sender, mut ready) = tokio::sync::mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder { on_line: Some(sender), ..Recorder::default() });
        let build = tokio::spawn(pipeline::run(request(source, work.path().to_owned()), recorder));
        while ready.recv().await.is_some_and(|line| line != "ready") {}
        build.abort();
        assert!(build.await.unwrap_err().is_cancelled());
    });
    assert_gone(&work.path().join("leader"));
}

/// A process that was killed is gone, or waits for somebody to reap it.
fn assert_gone(file: &Path) {
    let pid = fs::read_to_string(file).unwrap();
    let process = Path::new("/proc").join(pid.trim());
    let started = Instant::now();
    loop {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim().chars().next();
        if matches!(state, None | Some('Z' | 'X')) {
            return;
        }
        // The kernel ends a process a moment after it was told to.
        assert!(started.elapsed() < Duration::from_secs(20), "process {} still runs: {stat}", pid.trim());
        std::thread::yield_now();
    }
}

//! Small projects that are reproducible and that are not, each with the cause that is named.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use semel_build::check::cause::{self, Cause, Marks};
use semel_build::check::compare::{Side, compare};
use semel_build::check::rebuild::{self, Machine, Plan, Variation};
use semel_build::pipeline::{self, BuildRequest, Quiet};
use semel_build::sandbox::Level;
use semel_model::reproducibility::Difference;
use tempfile::TempDir;

use crate::support::{Repo, has_all, host_with_toolchains, isolating_levels, request, runtime, sandbox};

const PROJECT: &str = r#"format = 1
component = "shop/api"

[build]
run = '''RUN'''

[artefact]
kind = "archive"
entrypoint = ["/start"]
files = [{ from = "start", to = "/start", mode = "0755" }, { from = "out", to = "/out" }]
"#;

const FILES: [(&str, &str); 5] = [
    ("start", "#!/bin/sh\n"),
    ("src/a", "a\n"),
    ("src/b", "b\n"),
    ("src/c", "c\n"),
    ("main.c", "#include <stdio.h>\nint main(void) { puts(__FILE__); return 0; }\n"),
];

/// What is found when a project with this command is built once more.
struct Checked {
    machine: Machine,
    plan: Plan,
    differences: Vec<Difference>,
}

/// Without a sandbox, which shows every build the same names.
fn checked(run: &str, below: &Path) -> Checked {
    checked_in(Level::None, run, below)
}

fn checked_in(level: Level, run: &str, below: &Path) -> Checked {
    let repo = Repo::with(&PROJECT.replace("RUN", run), &FILES);
    if run.contains("rustc") {
        repo.write("main.rs", "fn main() { println!(\"{}\", file!()); }\n");
    }
    let repo = repo.committed();
    let work = TempDir::new_in(below).unwrap();
    let dir = |name: &str| {
        let dir = work.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let (host, sandbox) = (host_with_toolchains(), sandbox(Some(level)));
    let request = BuildRequest { host, sandbox, ..request(repo.source(), dir("first")) };
    let machine = Machine::look(&request.host, work.path());
    let plan = Plan::of(&machine, level, &request.source);
    let again = dir("again");
    let (first, second) = runtime().block_on(async {
        let first = pipeline::run(request.clone(), Arc::new(Quiet)).await.unwrap();
        let second = rebuild::rebuild(&request, &machine, &plan.made, &again, Arc::new(Quiet)).await.unwrap();
        (first, second)
    });
    let side = |layout: &Path, manifest| Side::open(layout, manifest).unwrap();
    let one = side(&first.layout_dir, &first.packaged.manifest);
    let other = side(&second.layout_dir, &second.packaged.manifest);
    let found = compare(&one, &other, &dir("scratch")).unwrap();
    assert_eq!(found.is_empty(), first.packaged.manifest == second.packaged.manifest, "{run}");
    let marks = Marks {
        places: vec![again.display().to_string()],
        started: jiff::Timestamp::now(),
        user: machine.other.clone(),
        made: plan.made.clone(),
    };
    let differences = found.iter().map(|one| cause::explain(one, &marks)).collect();
    Checked { machine, plan, differences }
}

/// Checks that one file differs, and why.
fn assert_cause(run: &str, expected: Cause, checked: &Checked) {
    let [difference] = checked.differences.as_slice() else { panic!("{run}: {:?}", checked.differences) };
    assert_eq!(difference.cause.as_deref(), Some(expected.as_str()), "{run}: {difference:?}");
    assert_eq!(difference.fix.as_deref(), Some(expected.fix()));
    assert_eq!((difference.place.as_str(), difference.path.as_deref()), ("layer 1", Some("out")), "{run}");
    assert_ne!(difference.committed, difference.built, "{run}");
}

#[test]
fn what_does_not_look_around_is_reproducible() {
    for run in [
        "cat src/a src/b > out",
        "date -u -d @$SOURCE_DATE_EPOCH > out; echo $SOURCE_COMMIT >> out",
        "find src -type f | LC_ALL=C sort > out",
        "gzip -n < src/a > out",
    ] {
        let checked = checked(run, &std::env::temp_dir());
        assert_eq!(checked.differences, [], "{run}");
        assert!(checked.plan.made.contains(&Variation::Environment));
        assert_eq!(checked.plan.made.len() + checked.plan.left_out.len(), 9);
    }
}

#[test]
fn what_a_sandbox_shows_every_build_the_same_makes_no_difference() {
    if !isolating_levels().contains(&Level::Bubblewrap) {
        return;
    }
    for run in
        ["pwd > out; hostname >> out; whoami >> out; echo $HOME >> out", "cc -g -o out \"$PWD/main.c\""]
    {
        let checked = checked_in(Level::Bubblewrap, run, &std::env::temp_dir());
        assert_eq!(checked.differences, [], "{run}");
        let left_out: Vec<Variation> =
            checked.plan.left_out.iter().map(|(variation, _)| *variation).collect();
        assert!(left_out.starts_with(&[Variation::Path]), "{left_out:?}");
    }
    let clock = checked_in(Level::Bubblewrap, "date -u +%s > out", &std::env::temp_dir());
    if clock.plan.made.contains(&Variation::Clock) {
        assert_cause("date", Cause::Clock, &clock);
    }
}

#[test]
fn what_a_shell_command_looks_at_is_named_as_the_cause() {
    if !has_all(&["faketime", "unshare", "taskset", "hostname", "gzip", "ar", "mktemp"]) {
        return;
    }
    for (run, expected, needs) in [
        ("pwd > out", Cause::Path, Variation::Path),
        ("echo $HOME > out", Cause::Path, Variation::Path),
        ("date -u +%s > out", Cause::Clock, Variation::Clock),
        ("date -u > out", Cause::Clock, Variation::Clock),
        ("date -d @$SOURCE_DATE_EPOCH > out", Cause::TimeZone, Variation::TimeZone),
        ("whoami > out", Cause::User, Variation::User),
        ("id > out", Cause::User, Variation::User),
        ("hostname > out", Cause::Host, Variation::Host),
        ("nproc > out", Cause::Cores, Variation::Cores),
        ("env | cut -d= -f1 | sort > out", Cause::Environment, Variation::Environment),
        ("mktemp -u -p /tmp > out", Cause::Random, Variation::Path),
        ("echo a > a; touch a; gzip -N a; mv a.gz out", Cause::GzipTime, Variation::Clock),
        ("cp src/a a; touch a; ar rcU out a", Cause::MemberTime, Variation::Clock),
    ] {
        let checked = checked(run, &std::env::temp_dir());
        if checked.plan.made.contains(&needs) {
            assert_cause(run, expected, &checked);
        }
    }
}

#[test]
fn the_order_of_a_directory_is_named_where_the_file_system_keeps_one() {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return;
    }
    let run = "find src -type f > out";
    let checked = checked(run, memory);
    if checked.machine.keeps_order {
        assert_cause(run, Cause::Order, &checked);
    }
}

#[test]
fn what_languages_write_by_themselves_is_named_as_the_cause() {
    let node =
        "node -e \"require('fs').writeFileSync('out', 'const built = ' + JSON.stringify(new Date()))\"";
    // The number comes first, and says nothing; the text behind it does.
    let stamped = "t=$(date +%s); printf 'const unsigned n[] = { %s, 7 }; const char at[] = \"built at %s\"; \
        int main(void) { return n[0] == at[0]; }' $t $t | cc -x c -o out -";
    let zip = "cp src/a a; touch a; python3 -m zipfile -c out.zip a; mv out.zip out";
    for (programs, run, expected) in [
        (vec!["python3"], "python3 -c \"print(set('abcdefghijkl'))\" > out", Cause::Order),
        (vec!["python3"], "python3 -c 'import uuid; print(uuid.uuid4())' > out", Cause::Random),
        (vec!["python3", "faketime"], zip, Cause::MemberTime),
        (vec!["node", "faketime"], node, Cause::Clock),
        (vec!["cc"], "cc -o out \"$PWD/main.c\"", Cause::Path),
        (vec!["rustc"], "rustc --edition 2024 -o out \"$PWD/main.rs\"", Cause::Path),
        (vec!["cc", "faketime"], stamped, Cause::Clock),
    ] {
        if has_all(&programs) {
            assert_cause(run, expected, &checked(run, &std::env::temp_dir()));
        }
    }
}

//! The source that an artefact was built from: kept, restored, and built from again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::environment::{COMPONENT, TestEnvironment};

#[test]
fn the_source_is_restored_when_the_repository_is_gone_and_builds_to_the_same_artefact() {
    let environment = TestEnvironment::project();
    let digest = environment.build();
    let project = fs::read_to_string(environment.dir().join("semel.toml")).unwrap();
    let script = fs::read_to_string(environment.dir().join("run.sh")).unwrap();
    fs::remove_dir_all(environment.dir()).unwrap();
    fs::create_dir(environment.dir()).unwrap();
    let word = format!("{COMPONENT}@0.1.0");

    let restored = environment.ok(&["source", &word]);
    assert!(restored.stdout.trim().ends_with("/p/tiny-service-0.1.0"), "{restored:?}");
    let dir = environment.dir().join("tiny-service-0.1.0");
    assert_eq!(fs::read_to_string(dir.join("run.sh")).unwrap(), script);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "neither the project file nor values of environments");

    let again = environment.semel(&["source", &word]);
    assert_eq!((again.code, again.stdout.as_str()), (2, ""), "{}", again.stderr);
    assert!(again.stderr.contains("is there already, and nothing is overwritten"), "{}", again.stderr);

    // With a project file, the restored tree is the same source.
    environment.git(&["-C", "tiny-service-0.1.0", "init", "--quiet", "--initial-branch=main"]);
    environment.write("tiny-service-0.1.0/semel.toml", &project);
    environment.git(&["-C", "tiny-service-0.1.0", "add", "--all"]);
    environment.git(&["-C", "tiny-service-0.1.0", "commit", "--quiet", "--message", "restored"]);
    let built = environment.ok(&["-C", "tiny-service-0.1.0", "build"]);
    assert_eq!(built.digest(), digest);
    assert!(built.stderr.contains("which has the same source tree"), "{}", built.stderr);
}

#[test]
fn the_source_is_written_as_a_tar_file_or_stream() {
    let environment = TestEnvironment::project();
    environment.build();
    let piped = environment.ok(&["source", "0.1.0", "-o", "-"]);
    environment.ok(&["source", "0.1.0", "-o", "../a.tar"]);
    environment.ok(&["source", "0.1.0", "-o", "../a.tar.gz"]);
    let tar = fs::read(environment.beside("a.tar")).unwrap();
    assert_eq!(piped.stdout.as_bytes(), tar, "the stream is the file");
    for file in ["a.tar", "a.tar.gz"] {
        let mut listed = environment.program("tar");
        listed.args(["-tf"]).arg(environment.beside(file)).stdin(Stdio::null());
        let listed = listed.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "run.sh\n", "{file}");
        let taken = environment.semel(&["source", "0.1.0", "-o", &format!("../{file}")]);
        assert_eq!(taken.code, 2, "{}", taken.stderr);
    }
    let json = environment.ok(&["source", "0.1.0", "-o", "../b", "--json"]).json();
    let inspected = environment.ok(&["inspect", "0.1.0", "--json"]).json();
    assert_eq!(json["snapshot"], inspected["source"]);
}

#[test]
fn a_version_without_kept_source_says_why_and_where_it_is() {
    let environment = TestEnvironment::project();
    environment.edit("semel.toml", "[artefact]", "[source]\nsnapshot = false\n\n[artefact]");
    environment.commit("feat: keep nothing");
    environment.build();
    let ran = environment.semel(&["source", "0.1.0"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    let commit = environment.git(&["rev-parse", "HEAD"]);
    assert!(ran.stderr.contains(&format!("hint: git switch --detach {commit}")), "{}", ran.stderr);
}

#[test]
fn a_collection_leaves_the_source_of_what_it_leaves() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.ok(&["component", "set", COMPONENT, "--keep", "trunk=1s,branch=1s"]);
    environment.ok(&["gc", "--yes"]);
    environment.ok(&["source", "0.1.0"]);
    assert!(environment.dir().join("tiny-service-0.1.0/run.sh").exists());
}

#[test]
fn a_build_changes_nothing_of_the_project_and_deploys_nothing() {
    let environment = TestEnvironment::project();
    environment.write("run.sh", "#!/bin/sh\necho work in progress\n");
    environment.write("notes", "not committed\n");
    let before = environment.bytes_below(&environment.dir());
    for words in [&["build"][..], &["build"], &["version"], &["lock"], &["lint"], &["build", "--check=quick"]]
    {
        environment.ok(words);
        assert!(
            environment.bytes_below(&environment.dir()) == before,
            "semel {words:?} wrote into the project"
        );
    }
    assert!(!environment.beside("state/semel/run").exists(), "nothing was laid out to run");
    assert_eq!(environment.ok(&["--json", "versions"]).json()["versions"].as_array().unwrap().len(), 1);
}

#[test]
fn the_variables_of_a_git_hook_do_not_lead_a_build_elsewhere() {
    let environment = TestEnvironment::project();
    let other = TestEnvironment::repository();
    other.write("semel.toml", "format = 1\ncomponent = \"other\"\n");
    other.commit("feat: other");
    let git_dir = other.dir().join(".git");
    let mut command = environment.command(&["build"]);
    command.envs([
        ("GIT_DIR", git_dir.clone()),
        ("GIT_WORK_TREE", other.dir()),
        ("GIT_INDEX_FILE", git_dir.join("index")),
        ("GIT_OBJECT_DIRECTORY", git_dir.join("objects")),
        ("GIT_COMMON_DIR", git_dir.clone()),
        ("GIT_PREFIX", "nowhere/".into()),
        ("GIT_NAMESPACE", "elsewhere".into()),
        ("GIT_CONFIG_PARAMETERS", "'core.worktree=/nowhere'".into()),
        ("GIT_ATTR_SOURCE", "nothing".into()),
        ("GIT_QUARANTINE_PATH", git_dir.join("objects")),
    ]);
    let ran = command.stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(String::from_utf8_lossy(&ran.stdout).starts_with("tiny/service@sha256:"));
}

/// The first line that fits, and what follows when it is asked for.
fn wait_for(reader: &mut impl BufRead, wanted: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains(wanted)) {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "`{wanted}` never came: {seen:?}");
        seen.push(line.trim_end().to_owned());
    }
    seen
}

/// What was printed, without the times before it.
fn printed(lines: &[String]) -> Vec<&str> {
    let lines = lines.iter().map(|line| line.strip_prefix("  | ").unwrap_or(line));
    let timed = lines.filter_map(|line| line.trim_start().split_once("  "));
    timed.filter(|(at, _)| at.parse::<f64>().is_ok()).map(|(_, text)| text).collect()
}

/// The pipe that the build made for itself, when it is there.
fn gate_of(environment: &TestEnvironment) -> PathBuf {
    loop {
        let builds = fs::read_dir(environment.beside("cache/semel/build")).into_iter().flatten().flatten();
        let mut gates = builds.map(|build| build.path().join("files/tree/gate"));
        if let Some(gate) = gates.find(|gate| gate.exists()) {
            return gate;
        }
        std::thread::yield_now();
    }
}

#[test]
fn who_waits_for_a_build_reads_its_log_from_the_beginning_without_gaps_and_repeats() {
    for served in [false, true] {
        let environment = TestEnvironment::project();
        let run = "[build]\nrun = \"mkfifo gate; echo one; read line < gate; echo two\"\n\n[artefact]";
        environment.edit("semel.toml", "[artefact]", run);
        environment.commit("feat: take a while");
        let server = served.then(|| environment.serve());
        let start = |words: &[&str]| {
            let mut command = environment.command(words);
            command.envs(server.iter().map(|server| ("SEMEL_SERVER", format!("http://{}", server.address))));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let holder = start(&["build"]);
        let gate = gate_of(&environment);
        let mut waiter = start(&["build"]);
        let mut follower = start(&["build", "log", "1", "--follow"]);
        let mut waited = BufReader::new(waiter.stderr.take().unwrap());
        let mut followed = BufReader::new(follower.stdout.take().unwrap());
        let mut seen = [wait_for(&mut waited, "  one"), wait_for(&mut followed, "  one")];
        fs::write(gate, "go\n").unwrap();
        seen[0].extend(waited.lines().map(|line| line.unwrap()));
        seen[1].extend(followed.lines().map(|line| line.unwrap()));
        for (process, seen) in [waiter, follower].into_iter().zip(&seen) {
            assert!(process.wait_with_output().unwrap().status.success(), "{seen:?}");
            let lines = printed(seen);
            assert_eq!(lines[1..], ["one", "two"], "{seen:?}");
            assert!(lines[0].starts_with("== run: mkfifo gate"), "{seen:?}");
        }
        assert!(holder.wait_with_output().unwrap().status.success());

        let raw = start(&["build", "log", "1", "--raw"]).wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&raw.stdout), "one\ntwo\n");
        let table = if served { "served" } else { "embedded" };
        assert!(seen[0].iter().any(|line| line.contains("is being built by")), "{table}: {:?}", seen[0]);
    }
}

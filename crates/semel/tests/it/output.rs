//! What is printed, and where: one JSON object with `--json`, one value with `-q`, colour only where it is wanted, help that
//! fits a screen.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::environment::{COMPONENT, TestEnvironment, finish, met};

/// Verbs in an order in which each has something to do, and the exit code that each ends with.
const VERBS: &[(&[&str], i32)] = &[
    (&["build"], 0),
    (&["build"], 0),
    (&["build", "log", "1"], 0),
    (&["build", "--check=quick"], 0),
    (&["version"], 0),
    (&["lock"], 0),
    (&["lint"], 0),
    (&["lint", "0.1.0"], 0),
    (&["versions"], 0),
    (&["inspect", "0.1.0"], 0),
    (&["inspect", "0.1.0", "--provenance"], 0),
    (&["evidence", "0.1.0"], 0),
    (&["evidence", "0.1.0", "lint"], 0),
    (&["sbom", "0.1.0"], 0),
    (&["source", "0.1.0", "-o", "../source"], 0),
    (&["finalise", "0.1.0"], 2),
    (&["diff", "0.1.0", "1"], 0),
    (&["verify", "0.1.0"], 0),
    (&["pipeline", "apply"], 0),
    (&["pipeline", "show"], 0),
    (&["pipeline", "diff"], 0),
    (&["promote", "0.1.0", "staging"], 9),
    (&["promote", "0.1.0", "nowhere"], 4),
    (&["deploy", "dev"], 0),
    (&["deploy", "dev"], 0),
    (&["attest", "0.1.0", "--type", "junit", "--result", "pass"], 0),
    (&["promote", "0.1.0", "staging", "--plan"], 0),
    (&["promote", "0.1.0", "staging"], 0),
    (&["resolve", "0.1.0", "staging"], 0),
    (&["deploy", "0.1.0", "staging"], 0),
    (&["config", "show", "dev"], 0),
    (&["config", "unset", "dev", "TOKEN"], 0),
    (&["status"], 0),
    (&["why", "dev"], 0),
    (&["where", "0.1.0"], 0),
    (&["history", "dev"], 0),
    (&["diff", "dev", "staging"], 1),
    (&["logs", "dev"], 0),
    (&["hold", "dev", "-m", "to see"], 0),
    (&["resume", "dev"], 0),
    (&["reject", "0.1.0", "dev", "-m", "to see"], 0),
    (&["accept", "0.1.0", "dev"], 0),
    (&["rollback", "dev"], 4),
    (&["pull", "0.1.0", "oci:../out"], 0),
    (&["push", "oci:../out", "other/copy@1.0.0"], 0),
    (
        &[
            "import",
            "raw:run.sh",
            "--commit",
            "1234567890123456789012345678901234567890",
            "-c",
            "other/imported",
        ],
        0,
    ),
    (&["publish", "oci:../out", "--as", "2.0.0", "-c", "other/published"], 0),
    (&["component", "create", "other/ruled", "--policy", "strict"], 0),
    (&["component", "set", "other/ruled", "--keep", "branch=7d"], 0),
    (&["component", "list"], 0),
    (&["component", "show", "other/ruled"], 0),
    (&["move-home", "other/ruled", "--to", "../elsewhere"], 0),
    (&["push", "--draft", "oci:../out", "other/copy@1.1.0"], 0),
    (&["publish", "other/copy@1.1.0"], 0),
    (&["push", "oci:../out", "other/copy@latest"], 0),
    (&["channels", "-c", "other/copy"], 0),
    (&["channels", "latest", "-c", "other/copy"], 0),
    (&["deprecate", "other/copy@1.0.0", "-m", "use 1.1.0"], 0),
    (&["deprecate", "other/copy@1.0.0", "--undo"], 0),
    (&["gc"], 0),
    (&["gc", "--yes"], 0),
    (&["scrub"], 0),
    (&["audit", "verify"], 0),
    (&["rebuild"], 0),
    (&["backup", "../backup"], 0),
    (&["restore", "../backup", "--store", "../restored"], 0),
    (&["recover"], 0),
    (&["stop", "dev"], 0),
    (&["man", "../man"], 0),
    (&["init"], 5),
    (&["init", "--print"], 0),
];

#[test]
fn every_verb_prints_one_json_object_without_colour() {
    let environment = TestEnvironment::project();
    let mut wrong = Vec::new();
    for (words, code) in VERBS {
        let mut command = environment.command(&[&["--json"], *words].concat());
        command.env("CLICOLOR_FORCE", "1");
        let ran = finish(command, "");
        let object =
            serde_json::from_str::<serde_json::Value>(&ran.stdout).is_ok_and(|value| value.is_object());
        if ran.code != *code || !object || ran.stdout.contains('\u{1b}') || !ran.stderr.is_empty() {
            wrong.push(format!("{words:?} (expected exit {code}): {ran:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn quiet_prints_the_one_essential_value() {
    let environment = TestEnvironment::project();
    let reference = format!("tiny/service@{}", environment.build());
    environment.ok(&["pipeline", "apply"]);
    let digest = reference.split_once('@').unwrap().1;
    let cases: [(&[&str], &str); 7] = [
        (&["build"], &reference),
        (&["versions"], "0.1.0"),
        (&["promote", "0.1.0", "dev"], &reference),
        (&["resolve", "dev"], &reference),
        (&["deploy", "0.1.0", "dev"], &reference),
        (&["verify", "0.1.0"], &reference),
        (&["pull", "0.1.0", "oci:../out"], digest),
    ];
    for (words, value) in cases {
        let ran = environment.ok(&[&["-q"], words].concat());
        assert_eq!((ran.value().as_str(), ran.stderr.as_str()), (value, ""), "{words:?}");
    }
}

#[test]
fn what_is_proposed_can_be_pasted_where_no_project_is_and_means_the_same_store() {
    const ELSEWHERE: [&str; 4] = ["-C", "..", "--store", "elsewhere"];
    let environment = TestEnvironment::project();
    environment.ok(&["--store", "../elsewhere", "deploy", "dev"]);
    let verbs: [&[&str]; 12] = [
        &["attest", "tiny/service@0.1.0", "--result", "pass"],
        &["promote", "tiny/service@0.1.0", "dev"],
        &["resolve", "staging", "-c", COMPONENT],
        &["hold", "dev", "-m", "to see", "-c", COMPONENT],
        &["resume", "dev", "-c", COMPONENT],
        &["rollback", "dev", "-c", COMPONENT],
        &["deprecate", "0.1.0", "-m", "to see", "-c", COMPONENT],
        &["config", "set", "dev", "TOKEN", "-c", COMPONENT],
        &["logs", "staging", "-c", COMPONENT],
        &["inspect", "9.9.9", "-c", COMPONENT],
        &["stop", "dev", "-c", COMPONENT],
        &["reject", "0.1.0", "-m", "to see", "-c", COMPONENT],
    ];
    for words in verbs {
        let said = environment.semel(&[&ELSEWHERE, words].concat()).stderr;
        let proposed: Vec<&str> = said.lines().filter_map(proposed).collect();
        assert!(!proposed.is_empty(), "{words:?} proposes nothing: {said}");
        for line in proposed {
            assert!(line.starts_with("semel -C .. --store elsewhere "), "{words:?} proposes `{line}`");
            let line = line.replace("VERSION", "0.1.0").replace("ENV", "dev");
            let pasted: Vec<&str> = line.split_whitespace().skip(1).collect();
            let ran = environment.semel(&pasted);
            let understood = !ran.stderr.contains("which component?") && !ran.stderr.contains("Usage:");
            assert!(understood, "{words:?} proposes `{line}`: {}", ran.stderr);
        }
    }
}

#[test]
fn a_proposed_command_names_the_store_or_the_server_of_the_one_before_it() {
    let environment = TestEnvironment::project();
    let built = environment.ok(&["--store", "../my store", "build"]);
    let line = built.stderr.lines().rfind(|line| line.contains("  next: ")).unwrap();
    let expected = "  next: semel --store '../my store' deploy 0.1.0 ENV   or   semel --store '../my store' inspect 0.1.0";
    assert_eq!(line, expected);
    let mut shell = environment.program("/bin/sh");
    let (_, inspect) = line.rsplit_once("semel").unwrap();
    shell.args(["-ec", &format!("{} {inspect}", env!("CARGO_BIN_EXE_semel"))]);
    assert_eq!(finish(shell, "").code, 0);

    environment.build();
    let serving = environment.serve();
    let server = format!("http://{}", serving.address);
    let unknown = environment.semel(&["--server", &server, "inspect", "9.9.9"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
    let hint = format!("semel --server {server} versions -c tiny/service");
    assert!(unknown.stderr.ends_with(&format!("  hint: {hint}\n")), "{unknown:?}");
    let json = environment.semel(&["--server", &server, "--json", "inspect", "9.9.9"]).json();
    assert_eq!(json["error"]["hints"], serde_json::json!([hint]));
}

#[test]
fn what_init_proposes_works_with_and_without_a_repository() {
    const SCRIPT: &str = "#!/bin/sh\necho hello\n";
    let committed = || {
        let environment = TestEnvironment::repository();
        environment.write("run.sh", SCRIPT);
        environment.commit("chore: begin");
        environment
    };
    for world in [TestEnvironment::empty, TestEnvironment::repository, committed] {
        let environment = world();
        environment.write("run.sh", SCRIPT);
        let said = environment.ok(&["init"]).stderr;
        let line = said.lines().find_map(|line| line.strip_prefix("  next: ")).unwrap_or_default();
        let line = line.replace("semel build", env!("CARGO_BIN_EXE_semel"));
        let mut shell = environment.program("/bin/sh");
        shell.args(["-ec", &format!("{line} build")]);
        let ran = finish(shell, "");
        assert_eq!(ran.code, 0, "`{line}`: {ran:?}");
    }
}

/// The command of a `next:` or `hint:` line; of alternatives the first.
fn proposed(line: &str) -> Option<&str> {
    let line = line.strip_prefix("  next: ").or_else(|| line.strip_prefix("  hint: "))?;
    let command = &line[line.find("semel ")?..];
    command.split("   ").next()
}

#[test]
fn colour_is_used_only_where_it_is_wanted() {
    let environment = TestEnvironment::project();
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = environment.command(&["build"]);
        command.envs(variables.iter().copied());
        finish(command, "").stderr.contains('\u{1b}')
    };
    assert!(!coloured(&[]), "a pipe is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "NO_COLOR has the last word");
}

#[test]
fn a_pipe_that_nobody_reads_is_no_failure() {
    let environment = TestEnvironment::project();
    environment.build();
    for words in [
        &["--help"][..],
        &["versions"],
        &["--json", "inspect", "0.1.0"],
        &["completions", "bash"],
        &["build"],
    ] {
        let mut command = environment.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        assert!(output.status.success(), "{words:?}: {:?} {said}", output.status);
    }
}

#[test]
fn who_follows_a_log_ends_with_its_reader() {
    let environment = TestEnvironment::project();
    environment.edit("run.sh", "do sleep 1", "do echo still here; sleep 0.1");
    environment.commit("feat: go on greeting");
    environment.ok(&["deploy", "dev"]);
    let mut command = environment.command(&["logs", "dev", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(child.wait().unwrap().success(), "{line}");
}

#[test]
fn data_that_cannot_be_written_is_a_fault() {
    const FULL: &str = "/dev/full";
    if !met(std::path::Path::new(FULL).exists(), "there is no /dev/full") {
        return;
    }
    let environment = TestEnvironment::project();
    environment.build();
    for words in [
        &["versions"][..],
        &["--json", "inspect", "0.1.0"],
        &["evidence", "0.1.0", "sbom", "--raw"],
        &["completions", "bash"],
    ] {
        let mut command = environment.command(words);
        command.stdout(fs::File::create(FULL).unwrap());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{words:?}: {said}");
        assert!(said.contains("error: cannot write to standard output: "), "{words:?}: {said}");
    }
}

#[test]
fn help_fits_a_screen_and_every_verb_has_one() {
    let environment = TestEnvironment::empty();
    let help = environment.ok(&["--help"]).stdout;
    assert!(help.lines().count() <= 60, "{} lines:\n{help}", help.lines().count());
    let verbs = verbs(&help);
    for verb in
        ["demo", "init", "build", "promote", "deploy", "rollback", "status", "why", "where", "audit", "serve"]
    {
        assert!(verbs.iter().any(|one| one == verb), "{verb} is not listed:\n{help}");
    }
    for verb in verbs {
        let own = environment.ok(&[&verb, "--help"]).stdout;
        let first = own.lines().next().unwrap_or_default();
        assert!(!first.is_empty() && !first.ends_with('.'), "semel {verb} --help begins with `{first}`");
        assert!(own.contains("Usage: semel"), "semel {verb} --help shows no usage");
    }
}

#[test]
fn shells_complete_and_man_pages_are_written() {
    let environment = TestEnvironment::empty();
    for shell in ["bash", "zsh", "fish"] {
        let script = environment.ok(&["completions", shell]).stdout;
        assert!(script.contains("rollback"), "{shell}: {script}");
    }
    environment.ok(&["man", "../man"]);
    let pages: Vec<_> = fs::read_dir(environment.beside("man")).unwrap().map(|page| page.unwrap()).collect();
    assert!(pages.iter().any(|page| page.file_name() == "semel.1"), "{pages:?}");
    assert!(pages.iter().any(|page| page.file_name() == "semel-build.1"), "{pages:?}");
}

/// The verbs that the help lists.
fn verbs(help: &str) -> Vec<String> {
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "));
    let verbs: Vec<String> = listed
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|verb| verb != "help")
        .collect();
    assert!(verbs.len() > 20, "{help}");
    verbs
}

//! Whether an artefact comes out the same again: as a user asks it, and as a gate does.

use crate::environment::TestEnvironment;

/// What is built is looked at by a gate.
const PROJECT: &str = r#"format = 1
component = "shop/api"

[build]
run = "RUN"

[artefact]
kind = "archive"
entrypoint = ["/start"]
files = [{ from = "start", to = "/start", mode = "0755" }, { from = "out", to = "/out" }]

[environment.dev]
gates = [{ evidence = "reproducibility" }]
target = { kind = "directory", health = ["sh", "-c", "exit 0"] }
"#;

fn built(run: &str) -> TestEnvironment {
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", &PROJECT.replace("RUN", run));
    environment.write("start", "#!/bin/sh\n");
    environment.commit("feat: begin");
    environment.ok(&["build"]);
    environment.ok(&["pipeline", "apply"]);
    environment
}

/// The result of all evidence of this type.
fn evidence(environment: &TestEnvironment) -> Vec<String> {
    let inspected = environment.ok(&["--json", "inspect", "0.1.0"]).json();
    let lines = inspected["evidence"].as_array().unwrap().clone();
    let of_type = lines.into_iter().filter(|line| line.to_string().contains("reproducibility"));
    of_type.map(|line| line["result"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_gate_lets_only_what_was_reproduced_through() {
    let environment = built("cat start > out");
    let refused = environment.semel(&["promote", "0.1.0", "dev"]);
    assert_eq!(refused.code, 9, "{}", refused.stderr);
    assert!(refused.stderr.contains("reproducibility"), "{}", refused.stderr);

    let entries = environment.ok(&["--json", "versions"]).json();
    let checked = environment.ok(&["build", "--check", "0.1.0"]);
    assert!(
        checked.stderr.contains("shop/api 0.1.0 is reproducible: identical (rebuilt in"),
        "{}",
        checked.stderr
    );
    assert_eq!(environment.ok(&["--json", "versions"]).json(), entries, "no further version");
    assert_eq!(evidence(&environment), ["pass"]);

    environment.ok(&["build", "--check=quick"]);
    environment.ok(&["build", "--check", "0.1.0"]);
    assert!(evidence(&environment).iter().all(|result| result == "pass"));
    environment.ok(&["promote", "0.1.0", "dev"]);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn what_differs_is_told_with_its_cause_and_closes_the_gate() {
    let environment = built("env | cut -d= -f1 | sort > out");
    environment.ok(&["build", "--check=quick"]);
    assert_eq!(evidence(&environment), ["pass"], "nothing was varied");
    let checked = environment.semel(&["--json", "build", "--check"]);
    assert_eq!(checked.code, 8, "{}", checked.stderr);
    let report = &checked.json()["report"];
    let [difference] = report["differences"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((difference["place"].as_str(), difference["path"].as_str()), (Some("layer 1"), Some("out")));
    assert_eq!(difference["cause"], "environment variables");
    assert_ne!(report["committed"], report["built"]);
    assert_eq!(evidence(&environment).last().map(String::as_str), Some("fail"));
    assert_eq!(environment.semel(&["promote", "0.1.0", "dev"]).code, 9);

    let told = environment.semel(&["build", "--check", "HEAD"]);
    assert_eq!(told.code, 8);
    for words in [
        "is not reproducible",
        "layer 1 out",
        "cause: environment variables",
        "fix: ",
        "reproducibility = fail",
    ] {
        assert!(told.stderr.contains(words), "{words}: {}", told.stderr);
    }
    environment.ok(&["audit", "verify"]);
}

#[test]
fn what_another_commit_named_or_finished_is_rebuilt_from_the_commit_that_is_in_its_bytes() {
    let environment = built("cat start > out");
    environment.git(&["switch", "--quiet", "--create", "mood"]);
    environment.write("start", "#!/bin/sh\nexit 0\n");
    environment.commit("feat: be polite");
    environment.ok(&["build"]);
    environment.git(&["switch", "--quiet", "main"]);
    environment.git(&["merge", "--quiet", "--no-ff", "--message", "Merge mood", "mood"]);
    environment.ok(&["build"]);
    let (merge, merged) = ["HEAD", "mood"].map(|name| environment.git(&["rev-parse", name])).into();
    let found = environment.ok(&["--json", "inspect", "0.2.0"]).json();
    assert_eq!(
        (&found["artefact"]["commit"], &found["built_from"]),
        (&merge.into(), &merged.as_str().into())
    );
    let shown = environment.ok(&["inspect", "0.2.0"]).stdout;
    assert!(shown.contains(&format!("built from  {merged}, which has the same source tree")), "{shown}");
    for words in [&["--check=quick", "0.2.0"][..], &["--check=quick"]] {
        let checked = environment.ok(&[&["build"], words].concat());
        assert!(checked.stderr.contains("0.2.0 is reproducible"), "{checked:?}");
    }
}

#[test]
fn a_rebuild_without_variations_is_proposed_where_a_command_may_not_have_borne_them() {
    let environment = built("test -z ${SEMEL_VARIED_NAME:-}; cat start > out");
    let quick = "semel build --check=quick";
    let varied = environment.semel(&["build", "--check"]);
    assert_eq!(varied.code, 10, "{varied:?}");
    assert!(varied.stderr.contains(quick), "{varied:?}");
    environment.ok(&["build", "--check=quick"]);

    let environment = built("cat start > out; test ! -e ../../gone");
    let gone = environment.beside("gone");
    environment.edit("semel.toml", "../../gone", gone.to_str().unwrap());
    environment.edit("semel.toml", "[build]", "[build]\nsandbox = \"none\"");
    environment.commit("feat: look outside");
    environment.ok(&["build"]);
    std::fs::write(gone, "").unwrap();
    let failed = environment.semel(&["build", "--check=quick"]);
    assert_eq!(failed.code, 10, "{failed:?}");
    assert!(!failed.stderr.contains(quick), "that was it: {failed:?}");
}

#[test]
fn what_cannot_be_rebuilt_is_said() {
    let environment = built("cat start > out");
    environment.commit("fix: later");
    environment.write("start", "#!/bin/sh\nexit 0\n");
    environment.commit("fix: not built");
    let unbuilt = environment.semel(&["build", "--check"]);
    assert_eq!(unbuilt.code, 4, "{}", unbuilt.stderr);
    assert!(unbuilt.stderr.contains("nothing was built from commit"), "{}", unbuilt.stderr);
    let unknown = environment.semel(&["build", "--check", "9.9.9"]);
    assert_eq!(unknown.code, 4, "{}", unknown.stderr);

    environment.ok(&["push", "start", "1.0.0"]);
    let pushed = environment.semel(&["build", "--check", "1.0.0"]);
    assert_eq!(pushed.code, 2, "{}", pushed.stderr);
    let cannot = "what was pushed or imported cannot be rebuilt";
    assert!(pushed.stderr.contains(cannot), "{}", pushed.stderr);
    std::fs::write(environment.dir().join("x.zip"), b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .unwrap();
    let commit = environment.git(&["rev-parse", "HEAD"]);
    let import = environment.ok(&["--json", "import", "zip:x.zip", "--commit", &commit]).json();
    let imported = environment.semel(&["build", "--check", import["version"].as_str().unwrap()]);
    assert_eq!(imported.code, 2, "{imported:?}");
    assert!(imported.stderr.contains(cannot), "{imported:?}");

    std::fs::remove_dir_all(environment.dir().join(".git")).unwrap();
    environment.git(&["init", "--quiet", "--initial-branch=main"]);
    environment.commit("feat: another history");
    let elsewhere = environment.semel(&["build", "--check", "0.1.0"]);
    assert_eq!(elsewhere.code, 4, "{}", elsewhere.stderr);
    assert!(elsewhere.stderr.contains("which is not in this clone"), "{}", elsewhere.stderr);
    assert!(elsewhere.stderr.contains("git fetch origin "), "{}", elsewhere.stderr);
    assert_eq!(evidence(&environment), Vec::<String>::new());
}

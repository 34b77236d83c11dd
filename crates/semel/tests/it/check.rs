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
    assert!(pushed.stderr.contains("what was pushed cannot be rebuilt"), "{}", pushed.stderr);

    std::fs::remove_dir_all(environment.dir().join(".git")).unwrap();
    environment.git(&["init", "--quiet", "--initial-branch=main"]);
    environment.commit("feat: another history");
    let elsewhere = environment.semel(&["build", "--check", "0.1.0"]);
    assert_eq!(elsewhere.code, 4, "{}", elsewhere.stderr);
    assert!(elsewhere.stderr.contains("which is not in this clone"), "{}", elsewhere.stderr);
    assert!(elsewhere.stderr.contains("git fetch origin "), "{}", elsewhere.stderr);
    assert_eq!(evidence(&environment), Vec::<String>::new());
}

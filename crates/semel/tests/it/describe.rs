//! What an artefact is made of, how it came about, and what differs between two of them.

use crate::environment::TestEnvironment;

/// A project with a lock file and a dependency that lies in the artefact.
fn with_packages() -> TestEnvironment {
    let environment = TestEnvironment::project();
    environment.edit(
        "semel.toml",
        "files = [",
        "files = [{ from = \"node_modules\", to = \"/app/node_modules\" }, ",
    );
    left_pad(&environment, "1.2.0");
    environment.write("Cargo.lock", "version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n");
    environment.commit("feat: pad");
    environment
}

fn left_pad(environment: &TestEnvironment, version: &str) {
    let text = format!(r#"{{"name": "left-pad", "version": "{version}", "license": "WTFPL"}}"#);
    environment.write("node_modules/left-pad/package.json", &text);
}

#[test]
fn the_packages_of_an_artefact_are_listed_and_signed() {
    let environment = with_packages();
    let built = environment.ok(&["build"]);
    assert!(built.stderr.contains("2 packages are listed"), "{}", built.stderr);
    let table = environment.ok(&["sbom"]).stdout;
    for line in ["pkg:cargo/serde@1.0.0", "pkg:npm/left-pad@1.2.0"] {
        assert!(table.contains(line), "{table}");
    }
    assert!(table.lines().any(|line| line.contains("serde") && line.contains("lock file")), "{table}");
    assert!(
        table
            .lines()
            .any(|line| line.contains("left-pad") && line.contains("artefact") && line.contains("WTFPL")),
        "{table}"
    );
    let document = environment.ok(&["sbom", "0.1.0", "--format", "cyclonedx"]).json();
    assert_eq!(document["specVersion"], "1.6");
    assert_eq!(document, environment.ok(&["evidence", "0.1.0", "sbom"]).json());
    let inspected = environment.ok(&["inspect", "0.1.0", "--json"]).json();
    let kinds: Vec<_> = inspected["evidence"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["provenance", "lint", "closure", "sbom"]);
}

#[test]
fn every_report_of_a_build_is_fetched_with_its_signature() {
    let environment = with_packages();
    environment.build();
    let list = environment.ok(&["evidence", "0.1.0"]).stdout;
    for kind in ["provenance", "lint", "closure", "sbom"] {
        assert!(list.lines().any(|line| line.starts_with(kind) && line.ends_with(" verifies")), "{list}");
        assert!(environment.ok(&["evidence", "0.1.0", kind]).json().is_object(), "{kind}");
        let envelope = environment.ok(&["evidence", "0.1.0", kind, "--raw"]).json();
        assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json", "{kind}");
    }
    let missing = environment.semel(&["evidence", "0.1.0", "junit"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (4, ""), "{}", missing.stderr);
    let told = environment.ok(&["inspect", "0.1.0", "--provenance"]).stdout;
    for line in ["used source", "used Cargo.lock", "sandbox", "platform", "range"] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn two_versions_differ_in_commits_files_packages_and_contract() {
    let environment = with_packages();
    environment.build();
    left_pad(&environment, "1.3.0");
    environment.edit("run.sh", "hello", "welcome");
    environment.write("node_modules/new/package.json", r#"{"name": "new", "version": "0.1.0"}"#);
    environment.edit(
        "semel.toml",
        "[config]",
        "[config]\nGREETING = { type = \"string\", required = false }",
    );
    environment.edit("semel.toml", "kind = \"archive\"", "kind = \"archive\"\nneeds = [\"sh\"]");
    environment.commit("fix: greet warmly");
    environment.build();
    let differ = environment.semel(&["diff", "0.1.0", "0.1.1"]);
    assert_eq!(differ.code, 1, "{}", differ.stderr);
    for line in [
        "fix: greet warmly",
        "~ /run.sh",
        "~ /app/node_modules/left-pad/package.json other bytes of the same length",
        "+ /app/node_modules/new/package.json",
        "~ pkg:npm/left-pad 1.2.0 → 1.3.0",
        "+ pkg:npm/new 0.1.0",
        "+ GREETING",
        "~ needs [] → [\"sh\"]",
    ] {
        assert!(differ.stdout.contains(line), "{line}: {}", differ.stdout);
    }
    let json = environment.semel(&["diff", "0.1.1", "0.1.0", "--json"]).json();
    assert_eq!((&json["identical"], &json["backwards"]), (&false.into(), &true.into()));
    let same = environment.ok(&["diff", "0.1.0", "1"]);
    assert!(same.stderr.contains("the same artefact, byte for byte"), "{same:?}");
}

#[test]
fn a_version_has_the_commits_behind_it_and_none_of_another_branch() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.build_branch();
    for (name, text) in [("a", "fix: a"), ("b", "fix: b")] {
        environment.write(name, text);
        environment.commit(text);
    }
    assert_eq!(environment.ok(&["--json", "build"]).json()["number"], 3);
    environment.ok(&["build", "HEAD~1"]);
    let subjects = |first: &str, second: &str| {
        let found = environment.semel(&["--json", "diff", first, second]).json();
        let commits = found["commits"].as_array().unwrap().iter();
        let subjects: Vec<String> = commits.map(|one| one["subject"].as_str().unwrap().to_owned()).collect();
        (subjects.join(", "), found["backwards"].as_bool().unwrap(), found["unknown"].to_string())
    };
    let main = subjects("1", "3");
    assert_eq!((main.0.as_str(), main.1), ("fix: b, fix: a", false), "the branch was built between the two");
    let late = subjects("3", "4");
    assert_eq!((late.0.as_str(), late.1), ("fix: b", true), "what was built later is the older one");
    let apart = subjects("2", "3");
    assert_eq!((apart.0.as_str(), apart.1), ("fix: b, fix: a", false));
    assert!(apart.2.contains("has: 1, on another branch"), "{apart:?}");
}

#[test]
fn a_name_of_the_main_line_has_the_commit_that_was_merged_there() {
    let environment = TestEnvironment::project();
    environment.build();
    environment.build_branch();
    environment.git(&["merge", "--quiet", "--squash", "feat/mood"]);
    environment.git(&["commit", "--quiet", "--message", "feat: a polite greeting (#7)"]);
    let merged = environment.ok(&["--json", "build"]).json();
    assert_eq!((&merged["version"], &merged["reused"]), (&"0.2.0".into(), &true.into()));
    let found = environment.semel(&["--json", "diff", "0.1.0", "0.2.0"]).json();
    let subjects: Vec<_> = found["commits"].as_array().unwrap().iter().map(|one| &one["subject"]).collect();
    assert_eq!(subjects, ["feat: a polite greeting (#7)"], "{found:#}");
    environment.ok(&["audit", "verify"]);
    environment.ok(&["rebuild"]);
}

//! The one path, as a user types it, in one transcript; then the record is lost in two ways and comes back the same.

use std::fs;

use crate::environment::{COMPONENT, JUNIT, TestEnvironment};
use crate::transcript::{self, Transcript};

/// What must not change when tables are folded again or the database is recovered.
const RECORD: [&[&str]; 6] = [
    &["--json", "versions"],
    &["--json", "history", "dev"],
    &["--json", "history", "staging"],
    &["--json", "inspect", "0.1.0"],
    &["--json", "diff", "dev", "staging"],
    &["--json", "pipeline", "show"],
];

#[test]
fn a_commit_goes_to_staging_and_back_and_its_record_survives() {
    let environment = TestEnvironment::project();
    let told = tell(&environment);
    transcript::settings().bind(|| insta::assert_snapshot!("one_path", told));

    let before = record(&environment);
    environment.ok(&["rebuild"]);
    assert_eq!(record(&environment), before, "rebuilding changes nothing");

    for file in ["semel.db", "semel.db-wal", "semel.db-shm"] {
        // The last two are there only while somebody writes.
        drop(fs::remove_file(environment.store().join(file)));
    }
    let lost = environment.semel(&["versions"]);
    assert_eq!(lost.code, 3, "{lost:?}");
    assert!(lost.stderr.contains("hint: semel recover"), "{}", lost.stderr);
    environment.ok(&["recover"]);
    assert_eq!(record(&environment), before, "recovering loses nothing");
    environment.ok(&["audit", "verify"]);
    assert_eq!(environment.ok(&["recover"]).code, 0, "recovering twice is no error");
}

/// The path: built once, refused, assured, granted, deployed twice, configured, rolled back, explained, verified.
fn tell(environment: &TestEnvironment) -> String {
    let mut told = Transcript::default();
    let commit = environment.git(&["rev-parse", "HEAD"]);
    told.run(environment, &["build"]);
    told.run(environment, &["build"]);
    told.run(environment, &["promote", "0.1.0", "staging"]);
    told.run(environment, &["resolve", "0.1.0", "staging"]);
    told.run(environment, &["deploy", "dev"]);
    // Beside the project: a report that is committed would be part of the next source tree.
    environment.write("../results.xml", JUNIT);
    told.run(environment, &["attest", "0.1.0", "--type", "junit", "../results.xml"]);
    told.run(environment, &["promote", "0.1.0", "staging", "--plan"]);
    told.run(environment, &["promote", "0.1.0", "staging"]);
    told.run(environment, &["promote", "0.1.0", "staging"]);
    told.run(environment, &["resolve", "0.1.0", "staging"]);
    told.run(environment, &["deploy", "staging"]);
    told.run(environment, &["deploy", "staging"]);
    let value = "a secret of staging";
    let set = environment.piped(&["config", "set", "staging", "TOKEN"], value);
    told.write("printf %s … | semel config set staging TOKEN", environment, &set);
    told.run(environment, &["config", "show", "staging"]);

    told.say("only the configuration of staging changes");
    environment.write("config/staging.toml", "PLACE = \"the stage\"\n");
    environment.commit("chore: staging moved");
    told.run(environment, &["build"]);
    told.run(environment, &["deploy", "staging"]);
    told.run(environment, &["diff", "dev", "staging"]);

    told.say("a new version goes to dev");
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    told.run(environment, &["deploy", "dev"]);
    told.run(environment, &["diff", "dev", "staging"]);
    told.run(environment, &["rollback", "dev"]);
    told.run(environment, &["deploy", "0.1.1", "dev"]);
    told.run(environment, &["resume", "dev"]);
    told.run(environment, &["logs", "dev", "-n", "1"]);

    told.say("what is true now");
    told.run(environment, &["versions"]);
    told.run(environment, &["status"]);
    told.run(environment, &["why", "staging"]);
    told.run(environment, &["where", &commit]);
    told.run(environment, &["where", "0.1.1"]);
    told.run(environment, &["history", "staging"]);
    told.run(environment, &["verify", "0.1.0"]);
    told.run(environment, &["audit", "verify"]);
    told.run(environment, &["stop", "dev"]);
    told.run(environment, &["status", "--exit-code"]);
    told.run(environment, &["stop", "staging"]);
    let text = told.finish();
    assert!(!text.contains(value), "no secret is printed");
    text
}

fn record(environment: &TestEnvironment) -> Vec<String> {
    RECORD
        .iter()
        .map(|words| {
            let ran = environment.semel(&[&["-c", COMPONENT], *words].concat());
            assert!(ran.code <= 1, "{words:?}: {}", ran.stderr);
            ran.stdout
        })
        .collect()
}

#[test]
fn the_demo_walks_the_whole_path_and_leaves_nothing_behind() {
    let environment = TestEnvironment::empty();
    let ran = environment.ok(&["demo"]);
    assert!(ran.stderr.contains("every step was checked"), "{ran:?}");
    assert!(!environment.store().exists(), "the demo has a store of its own");
    let kept = environment.beside("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("thesis"), "mine").unwrap();
    let refused = environment.semel(&["demo", "--keep", &kept.to_string_lossy()]);
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[test]
fn a_rollback_takes_a_secret_from_a_private_values_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let environment = TestEnvironment::project();
    environment.git(&["rm", "--quiet", "--cached", "config/dev.toml"]);
    environment.write(".gitignore", "config/dev.toml\n");
    environment.edit("semel.toml", "secret = true, required = false", "secret = true");
    environment.write("config/dev.toml", "PLACE = \"a laptop\"\nTOKEN = \"opens the door\"\n");
    let values = environment.dir().join("config/dev.toml");
    fs::set_permissions(&values, fs::Permissions::from_mode(0o600)).unwrap();
    environment.commit("feat: a secret of one's own");
    let first = environment.ok(&["deploy", "dev"]).digest();
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    assert_ne!(environment.ok(&["deploy", "dev"]).digest(), first);
    let back = environment.ok(&["rollback", "dev"]);
    assert_eq!(back.digest(), first);
    assert!(back.stderr.contains("TOKEN: secret as it is now"), "{back:?}");
}

//! A repository that forgets no name: versions, channels with their history, drafts, rules of components, bytes by rule.

use std::fs;

use serde_json::Value;

use crate::environment::{Ran, TestEnvironment, finish, has};
use crate::layout::Layout;

const SHOP: &str = "shop/api";

/// The layouts `../1` and `../2` beside a directory without a project, with the digests of what is in them.
fn two_releases() -> (TestEnvironment, [String; 2]) {
    let environment = TestEnvironment::empty();
    let digests = ["1", "2"].map(|release| {
        let layout = Layout::create(environment.beside(release));
        let image = layout.small(release);
        layout.name(&[("made", &image)]);
        image.digest.to_string()
    });
    (environment, digests)
}

fn push(environment: &TestEnvironment, release: u64, tag: &str) -> Ran {
    environment.semel(&["push", &format!("oci:../{release}"), &format!("{SHOP}@{tag}")])
}

fn pushed(environment: &TestEnvironment, release: u64, tag: &str) {
    let ran = push(environment, release, tag);
    assert_eq!(ran.code, 0, "{tag}: {}", ran.stderr);
}

fn digest_of(environment: &TestEnvironment, word: &str) -> String {
    environment.ok(&["-q", "inspect", &format!("{SHOP}@{word}")]).digest()
}

/// The versions of the component with their states, by name.
fn states(environment: &TestEnvironment) -> Vec<(String, &'static str)> {
    let listed = environment.ok(&["--json", "versions", "-c", SHOP]).json();
    let state = |one: &Value| match (&one["expired"], &one["deprecated"]) {
        (Value::Null, Value::Null) => "published",
        (Value::Null, _) => "deprecated",
        _ => "expired",
    };
    let line = |one: &Value| (one["version"].as_str().unwrap().to_owned(), state(one));
    let mut lines: Vec<_> = listed["versions"].as_array().unwrap().iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn the_usual_tags_of_two_releases_are_versions_that_stay_and_channels_that_move() {
    let (environment, [one, two]) = two_releases();
    for tag in ["1.4.2", "1.4", "1", "latest", "sha-4f1c2ab"] {
        pushed(&environment, 1, tag);
    }
    for tag in ["1.4.3", "1.4", "1", "latest", "sha-9a8b7c6"] {
        pushed(&environment, 2, tag);
    }
    for (word, digest) in
        [("1.4.2", &one), ("sha-4f1c2ab", &one), ("1.4.3", &two), ("1.4", &two), ("1", &two)]
    {
        assert_eq!(digest_of(&environment, word), *digest, "{word}");
    }
    for tag in ["1.4.2", "sha-4f1c2ab"] {
        let refused = push(&environment, 2, tag);
        assert_eq!(refused.code, 5, "{}", refused.stderr);
        assert!(refused.stderr.contains(&one), "{}", refused.stderr);
    }
    let channels = environment.ok(&["--json", "channels", "-c", SHOP]).json();
    let names: Vec<_> = channels["channels"].as_array().unwrap().iter().map(|one| &one["channel"]).collect();
    assert_eq!(names, ["1", "1.4", "latest"]);
    let history = environment.ok(&["channels", "latest", "-c", SHOP]).stdout;
    let told: Vec<_> = history.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(told, ["1.4.3", "1.4.2"], "newest first");
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_word_with_a_time_means_what_a_channel_pointed_to() {
    let (environment, [one, two]) = two_releases();
    pushed(&environment, 1, "latest");
    pushed(&environment, 2, "latest");
    let history = environment.ok(&["--json", "channels", "latest", "-c", SHOP]).json();
    let from = |at: usize| history["moves"][at]["from"].as_str().unwrap().to_owned();
    for (word, digest) in [
        ("latest".to_owned(), &two),
        (format!("latest@{{{}}}", from(0)), &two),
        (format!("latest@{{{}}}", from(1)), &one),
    ] {
        assert_eq!(digest_of(&environment, &word), *digest, "{word}");
    }
    let early = environment.semel(&["inspect", &format!("{SHOP}@latest@{{2.weeks.ago}}")]);
    assert_eq!(early.code, 4, "{early:?}");
    assert!(early.stderr.contains("had no channel latest"), "{}", early.stderr);
    environment.ok(&["pull", &format!("{SHOP}@latest@{{{}}}", from(1)), "oci:../out"]);
    let index = fs::read_to_string(environment.beside("out/index.json")).unwrap();
    assert!(index.contains(&one), "{index}");
}

#[test]
fn whoever_changes_something_names_what_does_not_move() {
    let (environment, [one, _]) = two_releases();
    for tag in ["1.4.2", "1.4", "20240101", "latest"] {
        pushed(&environment, 1, tag);
    }
    for word in ["1.4", "20240101", "latest", "latest@{0.seconds.ago}"] {
        let name = format!("{SHOP}@{word}");
        let commands: [&[&str]; 3] = [
            &["deprecate", &name, "-m", "old"],
            &["reject", &name, "-m", "it leaks"],
            &["attest", &name, "--result", "pass"],
        ];
        for command in commands {
            let refused = environment.semel(command);
            assert_eq!(refused.code, 2, "{command:?}: {refused:?}");
            for says in
                ["which can change while nobody looks", &format!("hint: name it instead: {SHOP}@{one}")]
            {
                assert!(refused.stderr.contains(says), "{command:?}: {}", refused.stderr);
            }
        }
    }
    assert_eq!(states(&environment), [("1.4.2".to_owned(), "published")]);
}

#[test]
fn rules_of_a_component_say_what_its_tags_are() {
    let cases: [(&[&str], &str, i32); 6] = [
        (&["--policy", "strict"], "latest", 5),
        (&["--policy", "mirror"], "1.4.2", 0),
        (&["--policy", "release"], "1.4.2", 5),
        (&[], "latest", 0),
        (&["--version-pattern", "build-#"], "build-482", 5),
        (&["--version-pattern", "build-#"], "build-x", 0),
    ];
    let (environment, _) = two_releases();
    for (number, (rules, tag, code)) in cases.into_iter().enumerate() {
        let component = format!("shop/{number}");
        let create = [&["component", "create", &component], rules].concat();
        environment.ok(&create);
        let again = environment.ok(&create);
        assert!(again.stderr.contains("was there already"), "{}", again.stderr);
        let name = format!("{component}@{tag}");
        environment.ok(&["push", "oci:../1", &name]);
        assert_eq!(environment.semel(&["push", "oci:../2", &name]).code, code, "{rules:?} {tag}");
    }
    let listed = environment.ok(&["-q", "component", "list"]).stdout;
    assert_eq!(listed.lines().count(), cases.len(), "{listed}");
    let other = environment.semel(&["component", "create", "shop/0", "--policy", "mirror"]);
    assert_eq!(other.code, 5, "{other:?}");
    assert!(other.stderr.contains("what a name is does not change"), "{}", other.stderr);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn a_deprecated_version_says_so_wherever_it_is_looked_at() {
    let (environment, [one, _]) = two_releases();
    pushed(&environment, 1, "1.4.2");
    let word = format!("{SHOP}@1.4.2");
    environment.ok(&["deprecate", &word, "-m", "use 1.4.3"]);
    let again = environment.ok(&["deprecate", &word, "-m", "use 1.4.3"]);
    assert!(again.stderr.contains("was already deprecated"), "{}", again.stderr);
    for command in [&["inspect", &word][..], &["where", "1.4.2", "-c", SHOP]] {
        let told = environment.ok(command).stdout;
        assert!(told.contains("deprecated: use 1.4.3"), "{command:?}: {told}");
    }
    assert_eq!(states(&environment), [("1.4.2".to_owned(), "deprecated")]);
    let pulled = environment.ok(&["pull", &word, "oci:../out"]);
    assert!(pulled.stderr.contains("1.4.2 is deprecated: use 1.4.3"), "{}", pulled.stderr);
    assert_eq!(pulled.value(), one, "it can be fetched as before");
    environment.ok(&["deprecate", &word, "--undo"]);
    assert_eq!(states(&environment), [("1.4.2".to_owned(), "published")]);
}

#[test]
fn what_must_not_be_fetched_is_not() {
    let (environment, _) = two_releases();
    pushed(&environment, 1, "1.4.2");
    let word = format!("{SHOP}@1.4.2");
    environment.ok(&["reject", &word, "-m", "it leaks", "--pulls"]);
    for command in [&["pull", &word, "oci:../out"][..], &["pull", &word, "../files/"]] {
        let pulled = environment.semel(command);
        assert_eq!(pulled.code, 6, "{pulled:?}");
        assert!(pulled.stderr.contains("it leaks"), "{}", pulled.stderr);
        assert!(!pulled.stderr.contains("run it again"), "{}", pulled.stderr);
    }
    environment.ok(&["accept", &word]);
    environment.ok(&["pull", &word, "oci:../out"]);
}

#[test]
fn a_draft_holds_its_name_until_it_is_published() {
    let (environment, [one, two]) = two_releases();
    let word = format!("{SHOP}@1.5.0");
    let draft = environment.ok(&["push", "--draft", "oci:../1", &word, "--for", "2h"]);
    assert_eq!(draft.digest(), one);
    assert!(draft.stderr.contains(&format!("semel publish {word}")), "{}", draft.stderr);
    let inspected = environment.semel(&["inspect", &word]);
    assert_eq!(inspected.code, 4, "a draft is no version: {inspected:?}");
    assert!(inspected.stderr.contains("is a draft"), "{}", inspected.stderr);
    let listed = environment.ok(&["--json", "versions", "-c", SHOP]).json();
    assert_eq!(
        (&listed["drafts"][0]["version"], &listed["drafts"][0]["digest"]),
        (&"1.5.0".into(), &one.into())
    );
    for command in [vec!["push"], vec!["push", "--draft"]] {
        let taken = environment.semel(&[&command[..], &["oci:../2", &word]].concat());
        assert_eq!(taken.code, 5, "{taken:?}");
        assert!(taken.stderr.contains("1.5.1"), "{}", taken.stderr);
    }
    let published = environment.ok(&["publish", &word]);
    assert!(published.stderr.contains("for ever"), "{}", published.stderr);
    let again = environment.ok(&["publish", "1.5.0", "-c", SHOP]);
    assert!(again.stderr.contains("was already"), "{}", again.stderr);
    let listed = environment.ok(&["versions", "-c", SHOP]).stdout;
    assert!(!listed.contains("DRAFT"), "{listed}");
    let none = environment.semel(&["publish", &format!("{SHOP}@1.6.0")]);
    assert_eq!(none.code, 4, "{none:?}");
    assert!(none.stderr.contains("hint: semel push --draft"), "{}", none.stderr);
    pushed(&environment, 2, "1.5.1");
    assert_eq!(digest_of(&environment, "1.5.1"), two);
    environment.ok(&["audit", "verify"]);
}

/// Every file of the store but those that every command may touch.
fn kept(environment: &TestEnvironment) -> Vec<std::path::PathBuf> {
    let store = environment.store();
    let below = |name: &str| environment.bytes_below(&store.join(name)).into_iter().map(|(path, _)| path);
    below("blobs").chain(below("trash")).chain(below("ledger")).collect()
}

#[test]
fn an_expired_version_keeps_its_name_says_why_and_comes_back_with_its_bytes() {
    let (environment, [one, two]) = two_releases();
    environment.ok(&["component", "create", SHOP, "--keep", "trunk=0s,branch=0s"]);
    pushed(&environment, 1, "1.4.2");
    pushed(&environment, 2, "1.4.3");
    let before = (kept(&environment), states(&environment));
    let told = environment.ok(&["gc", "--dry-run", "--grace", "0s"]);
    for says in ["1.4.2", &one, "by trunk=0s since", "1.4.3 is the newest version", "frees"] {
        assert!(told.stdout.contains(says), "`{says}` is missing: {}", told.stdout);
    }
    assert!(told.stderr.contains("nothing was changed"), "{}", told.stderr);
    environment.ok(&["gc"]);
    assert_eq!((kept(&environment), states(&environment)), before, "nothing goes unless somebody says yes");

    environment.ok(&["gc", "--yes", "--grace", "0s"]);
    assert_eq!(states(&environment), [("1.4.2".to_owned(), "expired"), ("1.4.3".to_owned(), "published")]);
    assert_eq!(digest_of(&environment, "1.4.2"), one, "its name means what it meant");
    let inspected = environment.ok(&["inspect", &format!("{SHOP}@1.4.2")]).stdout;
    assert!(inspected.contains("by trunk=0s"), "{inspected}");
    let pulled = environment.semel(&["pull", &format!("{SHOP}@1.4.2"), "oci:../out"]);
    assert_eq!(pulled.code, 4, "{pulled:?}");
    for says in ["were removed on 20", "by the rule trunk=0s", &format!("hint: pushing {one} again")] {
        assert!(pulled.stderr.contains(says), "`{says}` is missing: {}", pulled.stderr);
    }
    let other = push(&environment, 2, "1.4.2");
    assert_eq!(other.code, 5, "an expired version never means other bytes: {other:?}");

    environment.ok(&["gc", "--yes", "--grace", "0s", "--trash", "0s"]);
    pushed(&environment, 1, "1.4.2");
    assert!(states(&environment).iter().all(|(_, state)| *state == "published"));
    environment.ok(&["pull", &format!("{SHOP}@1.4.2"), "oci:../out"]);
    assert_eq!(digest_of(&environment, "1.4.3"), two);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn damage_is_named_with_what_it_means_and_healed_by_the_same_bytes() {
    let (environment, [one, _]) = two_releases();
    pushed(&environment, 1, "1.4.2");
    environment.ok(&["scrub"]);
    let inspected = environment.ok(&["--json", "inspect", &format!("{SHOP}@1.4.2")]).json();
    let layer = inspected["layers"][0]["digest"].as_str().unwrap().to_owned();
    let hex = layer.strip_prefix("sha256:").unwrap();
    let path = environment.store().join("blobs/sha256").join(&hex[..2]).join(hex);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    // The store's blobs are read-only, so the damaged one takes its place.
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    for _ in 0..2 {
        let found = environment.semel(&["scrub"]);
        assert_eq!(found.code, 7, "{found:?}");
        for says in [layer.as_str(), "needed by shop/api 1.4.2", "hint: push those artefacts again"] {
            assert!(found.stderr.contains(says), "`{says}` is missing: {}", found.stderr);
        }
    }
    let quarantined = environment.store().join("quarantine").join(layer.replace(':', "-"));
    assert!(quarantined.exists(), "{}", quarantined.display());
    pushed(&environment, 1, "1.4.2");
    let healed = environment.ok(&["scrub"]);
    assert!(healed.stderr.contains(&format!("whole again: {layer}")), "{}", healed.stderr);
    assert_eq!(digest_of(&environment, "1.4.2"), one);
    environment.ok(&["audit", "verify"]);
}

/// As from a backup that is mounted, or inside a container that must not change it.
#[test]
fn a_store_on_a_read_only_file_system_is_read_and_says_what_it_cannot_do() {
    if !has("bwrap") {
        return;
    }
    let environment = TestEnvironment::project();
    let digest = environment.build();
    environment.ok(&["deploy", "dev"]);
    environment.ok(&["stop", "dev"]);
    let store = environment.store();
    let before = environment.bytes_below(&store);
    let mounted = |words: &[&str]| {
        let mut command = environment.program("bwrap");
        command.args(["--dev-bind", "/", "/", "--ro-bind"]).args([&store, &store]);
        command.arg(env!("CARGO_BIN_EXE_semel")).args(words);
        finish(command, "")
    };
    let reads: [&[&str]; 9] = [
        &["versions"],
        &["inspect", "0.1.0"],
        &["verify", "0.1.0"],
        &["pull", "0.1.0", "oci:../out"],
        &["status"],
        &["why", "dev"],
        &["history", "dev"],
        &["build"],
        &["audit", "verify"],
    ];
    for words in reads {
        let ran = mounted(words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
    }
    assert_eq!(mounted(&["-q", "inspect", "0.1.0"]).digest(), digest);
    let refused = mounted(&["hold", "dev", "-m", "to see"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert_eq!(environment.bytes_below(&store), before);

    // What a writer left that was broken off can be read by a writer alone.
    fs::write(store.join("semel.db-wal"), b"what was recorded last").unwrap();
    let refused = mounted(&["versions"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("cannot be written to here"), "{refused:?}");
    assert!(refused.stderr.contains(&format!(
        "hint: make a copy that can be written to, and name that: cp -a {}",
        store.display()
    )));
    environment.ok(&["versions"]);
}

#[test]
fn a_server_collects_and_scrubs_as_the_program_does() {
    let (environment, _) = two_releases();
    environment.ok(&["component", "create", SHOP, "--keep", "trunk=0s"]);
    pushed(&environment, 1, "1.4.2");
    pushed(&environment, 2, "1.4.3");
    let serving = environment.serve();
    let url = format!("http://{}", serving.address);
    let ask = |words: &[&str]| environment.ok(&[&["--server", &url, "--json"], words].concat()).json();
    ask(&["component", "set", SHOP, "--keep", "branch=0s"]);
    assert_eq!(ask(&["gc"])["over"][0]["versions"][0], "1.4.2");
    assert_eq!(ask(&["gc", "--yes"])["dry_run"], false);
    assert_eq!(ask(&["gc"])["over"].as_array().unwrap().len(), 0, "it is over once");
    assert_eq!(ask(&["scrub"])["left"], 0);
    assert_eq!(ask(&["channels", "-c", SHOP])["channels"].as_array().unwrap().len(), 0);
}

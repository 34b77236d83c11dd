//! Versions as a user meets them: everything that other tools are blamed for, each with what Semel does about it.

use std::fs;
use std::path::Path;

use semel_model::version::Version;

use crate::environment::{Ran, TestEnvironment, finish};

/// A project of one file and no commands.
const PLAIN: &str = r#"format = 1
component = "shop/api"

[artefact]
kind = "archive"
entrypoint = ["/start"]
files = [{ from = "start", to = "/start", mode = "0755" }]
"#;

/// What a runner of each service sets, and how a clone is made whole there.
const RUNNERS: [(&str, &str); 9] = [
    ("GITHUB_ACTIONS", "fetch-depth: 0"),
    ("GITLAB_CI", "GIT_DEPTH: 0"),
    ("TF_BUILD", "fetchDepth: 0"),
    ("BITBUCKET_BUILD_NUMBER", "depth: full"),
    ("BUILDKITE", "BUILDKITE_GIT_CLONE_FLAGS"),
    ("DRONE", "take `depth` out"),
    ("JENKINS_URL", "Shallow clone"),
    ("TRAVIS", "depth: false"),
    ("HOME", "git fetch --unshallow"),
];

impl TestEnvironment {
    /// A repository with the plain project and one commit.
    fn plain(message: &str) -> Self {
        let environment = Self::repository();
        environment.write("semel.toml", PLAIN);
        environment.change(message);
        environment
    }

    /// Commits a change of the project's only file.
    fn change(&self, message: &str) -> String {
        let count = self.git(&["rev-list", "--all", "--count"]);
        self.write("start", &format!("#!/bin/sh\necho {count} {message}\n"));
        self.commit(message);
        self.head()
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// The version that a revision would get.
    fn version(&self, words: &[&str]) -> String {
        self.ok(&[&["version"], words].concat()).value()
    }

    /// Builds a revision, and gives its version.
    fn built(&self, words: &[&str]) -> String {
        let report = self.ok(&[&["--json", "build"], words].concat()).json();
        report["version"].as_str().unwrap().to_owned()
    }

    /// Runs the program with these variables, as a runner does, in a directory beside the project.
    fn on_runner(&self, place: &str, variables: &[(&str, &str)], words: &[&str]) -> Ran {
        let store = self.store();
        let mut command = self.command(&[&["--store", store.to_str().unwrap()], words].concat());
        command.current_dir(self.beside(place)).env("CI", "true").envs(variables.iter().copied());
        finish(command, "")
    }

    /// Clones the project into a directory beside it.
    fn clone_into(&self, place: &str, words: &[&str]) {
        let (from, to) = (format!("file://{}", self.dir().display()), self.beside(place));
        self.git(&[&["clone", "--quiet"], words, &[&from, to.to_str().unwrap()]].concat());
    }

    fn git_in(&self, place: &str, words: &[&str]) -> String {
        let place = self.beside(place);
        self.git(&[&["-C", place.to_str().unwrap()], words].concat())
    }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

#[test]
fn merges_that_are_built_at_once_get_versions_in_the_order_of_the_commits() {
    let environment = TestEnvironment::plain("feat: begin");
    let mut commits = vec![environment.head()];
    for message in ["fix: a", "feat: b", "fix: c", "docs: d"] {
        commits.push(environment.change(message));
    }
    let running: Vec<_> = commits
        .iter()
        .rev()
        .map(|commit| {
            let mut command = environment.command(&["--json", "build", commit]);
            std::thread::spawn(move || {
                finish(
                    {
                        command.env("SEMEL_LOG", "off");
                        command
                    },
                    "",
                )
            })
        })
        .collect();
    let ended: Vec<Ran> = running.into_iter().rev().map(|one| one.join().unwrap()).collect();
    let given: Vec<Version> = ended
        .iter()
        .map(|ran| version(ran.json()["version"].as_str().unwrap_or_else(|| panic!("{ran:?}"))))
        .collect();
    assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
    assert_eq!(environment.ok(&["--json", "versions"]).json()["versions"].as_array().unwrap().len(), 5);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn an_ancestor_that_is_built_last_is_named_below_what_follows_it() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.change("fix: a");
    environment.change("fix: b");
    assert_eq!(environment.built(&["HEAD"]), "0.1.0");
    let ran = environment.ok(&["build", "HEAD~1"]);
    assert!(ran.stderr.contains("note: 0.1.0 was built before"), "{}", ran.stderr);
    assert_eq!(environment.version(&["HEAD~1"]), "0.1.0-late.2.2");
    assert_eq!(environment.version(&["HEAD~2"]), "0.1.0-late.1.3");
    let explained = environment.ok(&["version", "HEAD~2", "--explain"]).stdout;
    assert!(explained.contains("a descendant was built before as 0.1.0-late.2.2"), "{explained}");
}

#[test]
fn a_release_that_failed_halfway_is_completed_by_the_next_try() {
    let environment = TestEnvironment::repository();
    let ready = environment.beside("ready");
    environment.write(
        "semel.toml",
        &format!("{PLAIN}\n[build]\nrun = \"test -e {}\"\nsandbox = \"none\"\n", ready.display()),
    );
    environment.change("feat: begin");
    assert_eq!(environment.semel(&["build"]).code, 10);
    let failed = environment.ok(&["version"]).stderr;
    assert!(failed.contains("build 1, whose last attempt failed: run: "), "{failed}");
    assert!(failed.contains("next: semel build"), "{failed}");
    fs::write(&ready, "").unwrap();
    let too_late = "note: --bump changes nothing any more: 0.1.0 is given";
    for again in ["", " (another version: --again --reason TEXT)"] {
        let built = environment.ok(&["build", "--bump", "major"]).stderr;
        assert!(built.contains(&format!("{too_late}{again}\n")), "{built}");
    }
    assert_eq!(environment.built(&[]), "0.1.0");
    assert_eq!(environment.git(&["tag"]), "", "a version does not hang on a tag");
}

#[test]
fn a_shallow_clone_that_reaches_the_last_build_is_enough() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.change("fix: a");
    assert_eq!(environment.built(&[]), "0.1.0");
    environment.change("fix: b");
    environment.clone_into("shallow", &["--depth", "1"]);
    environment.git_in("shallow", &["remote", "set-url", "origin", "file:///nowhere"]);
    let ran = environment.on_runner("shallow", &[], &["build"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(environment.version(&[]), "0.1.1");
    assert_eq!(environment.git_in("shallow", &["rev-parse", "--is-shallow-repository"]), "true");
}

#[test]
fn a_shallow_clone_is_completed_where_its_history_is_needed() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.git(&["tag", "v2.3.0"]);
    environment.change("feat: a");
    environment.change("fix: b");
    let whole = environment.version(&[]);
    environment.clone_into("shallow", &["--depth", "1"]);
    let ran = environment.on_runner("shallow", &[], &["version"]);
    assert_eq!((ran.value(), whole.as_str()), ("2.4.0".to_owned(), "2.4.0"), "{}", ran.stderr);
    assert_eq!(environment.git_in("shallow", &["rev-parse", "--is-shallow-repository"]), "false");
}

#[test]
fn a_shallow_clone_that_cannot_be_completed_is_refused_with_the_fix_for_its_runner() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.change("fix: a");
    environment.clone_into("shallow", &["--depth", "1"]);
    environment.git_in("shallow", &["remote", "set-url", "origin", "file:///nowhere"]);
    for (variable, fix) in RUNNERS {
        let home = environment.beside("home").display().to_string();
        let ran = environment.on_runner("shallow", &[(variable, &home)], &["version"]);
        assert_eq!(ran.code, 2, "{variable}: {ran:?}");
        assert!(ran.stderr.contains("the clone is shallow"), "{variable}: {}", ran.stderr);
        assert!(ran.stderr.contains(fix), "{variable}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "no number is better than a wrong one");
    }
    assert_eq!(environment.ok(&["--json", "component", "list"]).json()["components"], serde_json::json!([]));
}

#[test]
fn the_commit_of_a_tag_has_its_version_and_needs_no_history() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.change("fix: a");
    environment.git(&["tag", "-a", "-m", "release", "v1.4.2"]);
    environment.clone_into("shallow", &["--depth", "1"]);
    environment.git_in("shallow", &["fetch", "--quiet", "--depth", "1", "origin", "tag", "v1.4.2"]);
    environment.git_in("shallow", &["remote", "set-url", "origin", "file:///nowhere"]);
    let ran = environment.on_runner("shallow", &[], &["version"]);
    assert_eq!((ran.code, ran.value()), (0, "1.4.2".to_owned()), "{}", ran.stderr);
    let why = environment.on_runner("shallow", &[], &["version", "--explain"]).stdout;
    assert!(why.contains("tag      the commit's own says so\n"), "{why}");
    assert_eq!(environment.built(&[]), "1.4.2");
    environment.change("docs: b");
    assert_eq!(environment.built(&[]), "1.4.3");
}

#[test]
fn a_tag_far_behind_is_found() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.git(&["tag", "v3.1.0"]);
    // One stream of commits is much faster than a thousand calls.
    let commit = |n: u32| {
        let message = if n == 1 { "feat: far away" } else { "fix: step" };
        let (time, length) = (1_795_348_800 + n, message.len() + 1);
        format!(
            "commit refs/heads/main\ncommitter T <t@example.org> {time} +0000\ndata {length}\n{message}\n"
        )
    };
    let begun = "reset refs/heads/main\nfrom refs/heads/main^0\n\n".to_owned();
    let stream: Vec<String> = std::iter::once(begun).chain((1..=600).map(commit)).collect();
    let mut import = environment.program("git");
    import.args(["fast-import", "--quiet"]);
    let ran = finish(import, &stream.concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(environment.version(&[]), "3.2.0");
}

#[test]
fn a_request_to_merge_is_never_final_and_records_what_was_requested() {
    let environment = TestEnvironment::plain("feat: begin");
    assert_eq!(environment.built(&[]), "0.1.0");
    environment.git(&["checkout", "--quiet", "-b", "refunds"]);
    let head = environment.change("feat: refunds");
    environment.git(&["checkout", "--quiet", "--detach", "main"]);
    environment.git(&["merge", "--quiet", "--no-ff", "-m", "Merge 1 into 2", &head]);
    let runner =
        [("GITHUB_ACTIONS", "true"), ("GITHUB_REF", "refs/pull/12/merge"), ("GITHUB_HEAD_REF", "main")];
    let ran = environment.on_runner("p", &runner, &["--json", "build"]);
    assert_eq!(ran.json()["version"], "0.2.0-pr-12.2", "{}", ran.stderr);
    let recorded = environment.bytes_below(&environment.store().join("blobs"));
    let named = format!("\"head\":\"{head}\"");
    assert!(recorded.iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(&named)));
}

#[test]
fn every_message_gives_a_version_and_only_its_own_words_count() {
    for (message, expected) in [
        ("Merge pull request #4 from shop/feat-x\n\nfeat!: x", "1.4.1"),
        ("chore(release): cut (#12)\n\n* feat: refunds\n* fix!: rounding", "1.4.1"),
        ("no convention at all", "1.4.1"),
        ("feat: refunds (#12)\n\n* chore: wip", "1.5.0"),
        ("feat(api)!: drop v1", "2.0.0"),
        ("fix: a\n\nlong story\n\nBREAKING CHANGE: the story ends", "2.0.0"),
        ("docs: a\n\nVersion-Bump: minor", "1.5.0"),
        ("feat!: a\n\nVersion-Bump: patch", "1.4.1"),
    ] {
        let environment = TestEnvironment::plain("feat: begin");
        environment.git(&["tag", "v1.4.0"]);
        environment.change(message);
        assert_eq!(environment.version(&[]), expected, "{message}");
    }
}

#[test]
fn each_project_of_a_monorepo_counts_its_own_commits_and_reuses_its_own_tree() {
    let environment = TestEnvironment::repository();
    for name in ["api", "web"] {
        environment.write(
            &format!("services/{name}/semel.toml"),
            &PLAIN.replace("shop/api", &format!("shop/{name}")),
        );
        environment.write(&format!("services/{name}/start"), "#!/bin/sh\n");
    }
    environment.commit("feat: begin");
    environment.git(&["tag", "api/v2.0.0"]);
    environment.git(&["tag", "v9.0.0"]);
    environment.write("services/web/start", "#!/bin/sh\necho web\n");
    environment.commit("feat!: everything is new in web");
    environment.write("services/api/start", "#!/bin/sh\necho api\n");
    environment.commit("fix: api");
    assert_eq!(environment.version(&["-C", "services/api"]), "2.0.1");
    assert_eq!(environment.version(&["-C", "services/web"]), "10.0.0");
    assert_eq!(environment.built(&["-C", "services/api"]), "2.0.1");
    environment.write("services/web/start", "#!/bin/sh\necho web again\n");
    environment.commit("feat: only web");
    let again = environment.ok(&["--json", "build", "-C", "services/api"]).json();
    assert_eq!((again["version"].as_str(), again["reused"].as_bool()), (Some("2.0.1"), Some(true)));
    environment.edit("services/api/semel.toml", "[artefact]", "[version]\ntag_prefix = \"v\"\n\n[artefact]");
    environment.write("services/api/start", "#!/bin/sh\necho more\n");
    environment.commit("fix: api");
    assert_eq!(
        environment.version(&["-C", "services/api"]),
        "9.0.1",
        "the prefix says which tags are its own"
    );
}

#[test]
fn what_the_source_tree_leaves_out_asks_for_nothing() {
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", &format!("{PLAIN}\n[source]\nexclude = [\"docs\"]\n"));
    environment.change("feat: begin");
    environment.git(&["tag", "v1.0.0"]);
    environment.write("docs/guide.md", "words\n");
    environment.commit("feat!: a guide");
    environment.change("fix: a");
    assert_eq!(environment.version(&[]), "1.0.1");
    let explained = environment.ok(&["version", "--explain"]).stdout;
    assert!(explained.contains("fix: a") && !explained.contains("a guide"), "{explained}");
}

#[test]
fn a_release_line_goes_on_while_the_main_line_leaves_its_numbers() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.git(&["tag", "v1.4.0"]);
    environment.git(&["checkout", "--quiet", "-b", "release/1.4"]);
    environment.change("feat: too much for a patch");
    let ran = environment.ok(&["build"]);
    assert!(ran.stderr.contains("published shop/api 1.4.1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("note: release/1.4 gets a patch"), "{}", ran.stderr);
    environment.git(&["checkout", "--quiet", "main"]);
    environment.change("fix: a");
    let why = environment.ok(&["version", "--explain"]).stderr;
    assert!(why.contains("main leaves 1.4, which has a release line"), "{why}");
    assert_eq!(environment.built(&[]), "1.5.0");
    environment.git(&["merge", "--quiet", "--strategy", "ours", "-m", "Merge release/1.4", "release/1.4"]);
    environment.change("fix: b");
    assert_eq!(environment.built(&[]), "1.6.0", "what the release line brings is new on the main line");
}

#[test]
fn unusual_repositories_are_read_as_they_are() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.change("something, at some time");
    environment.git(&["worktree", "add", "--quiet", "../worktree", "HEAD"]);
    environment.clone_into("bare", &["--bare"]);
    for place in ["p", "worktree", "bare"] {
        let ran = environment.on_runner(place, &[], &["version", "--branch", "main"]);
        assert_eq!((ran.code, ran.value()), (0, "0.1.0".to_owned()), "{place}: {}", ran.stderr);
    }
    // Neither a graft nor a replaced commit changes what the commits say.
    let (first, second) = (environment.git(&["rev-parse", "HEAD~1"]), environment.head());
    fs::create_dir_all(environment.dir().join(".git/info")).unwrap();
    fs::write(environment.dir().join(".git/info/grafts"), format!("{second}\n")).unwrap();
    let tree = environment.git(&["rev-parse", "HEAD^{tree}"]);
    let other = environment.git(&["commit-tree", "-m", "feat!: never", &tree]);
    environment.git(&["replace", &first, &other]);
    assert_eq!(environment.version(&[]), "0.1.0");
    let none = TestEnvironment::repository();
    assert_eq!(none.semel(&["version"]).code, 2);
}

#[test]
fn a_repository_of_another_owner_is_built_from() {
    let environment = TestEnvironment::plain("feat: begin");
    // A container's checkout belongs to the user outside of it; git's own tests say so with this variable.
    let foreign = ("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1");
    let mut git = environment.program("git");
    git.arg("log").env(foreign.0, foreign.1);
    let refused = finish(git, "");
    assert!(refused.stderr.contains("dubious ownership"), "git itself refuses: {refused:?}");
    for (words, value) in [(&["version"][..], "0.1.0"), (&["-q", "build"], "shop/api@sha256:")] {
        let ran = environment.on_runner("p", &[foreign], words);
        assert!(ran.code == 0 && ran.stdout.starts_with(value), "{words:?}: {ran:?}");
    }
    for settings in [".gitconfig", "config/git/config"] {
        assert!(!environment.beside(settings).exists(), "nobody's {settings} is changed for it");
    }
}

#[test]
fn a_detached_head_is_built_for_the_branch_that_has_it() {
    let environment = TestEnvironment::plain("feat: begin");
    let begun = environment.head();
    environment.change("fix: a");
    environment.git(&["branch", "refunds"]);
    environment.clone_into("clone", &[]);
    environment.git_in("clone", &["checkout", "--quiet", "--detach", &begun]);
    environment.git_in("clone", &["branch", "--delete", "--force", "main"]);
    let detached = |words: &[&str], variables: &[(&str, &str)]| {
        environment.on_runner("clone", variables, &[&["version"], words].concat()).value()
    };
    assert_eq!(detached(&[], &[]), "0.1.0", "origin/main has it");
    assert_eq!(detached(&["--branch", "refunds"], &[]), "0.1.0-refunds.1");
    assert_eq!(detached(&[], &[("GITHUB_REF", "refs/heads/refunds")]), "0.1.0-refunds.1");
    assert_eq!(
        detached(&[], &[("CI_COMMIT_BRANCH", "main"), ("CI_COMMIT_PULL_REQUEST", "7")]),
        "0.1.0-pr-7.1"
    );
    environment.git_in("clone", &["commit", "--quiet", "--allow-empty", "-m", "fix: nowhere"]);
    assert_eq!(detached(&[], &[]), "0.1.0-detached.1");
    for verb in ["version", "build"] {
        let told = environment.on_runner("clone", &[], &[verb]).stderr;
        assert!(told.contains("git does not tell which branch"), "{told}");
        let named = environment.on_runner("clone", &[], &[verb, "--branch", "main"]).stderr;
        assert!(!named.contains("git does not tell"), "{named}");
    }
}

#[test]
fn the_next_version_is_explained_and_nothing_is_recorded() {
    let environment = TestEnvironment::plain("feat: begin");
    environment.git(&["tag", "v1.4.0"]);
    environment.change("docs: typo");
    let explained = environment.ok(&["version", "--explain"]).stdout;
    let commit = environment.head();
    for line in [
        "1.4.1".to_owned(),
        "1.4.1 (build 1)".to_owned(),
        "main, scheme continuous".to_owned(),
        "by the tag of".to_owned(),
        "patch: 1 commit since then".to_owned(),
        commit[..7].to_owned(),
        "docs: typo".to_owned(),
    ] {
        assert!(explained.contains(&line), "{line} in {explained}");
    }
    assert_eq!(environment.version(&["--bump", "major"]), "2.0.0");
    let told = environment.ok(&["--json", "version"]).json();
    assert_eq!((told["state"].as_str(), told["version"].as_str()), (Some("new"), Some("1.4.1")));
    assert_eq!(environment.ok(&["--json", "component", "list"]).json()["components"], serde_json::json!([]));
    let built = environment.built(&["--bump", "minor"]);
    assert_eq!((built.as_str(), environment.version(&[]).as_str()), ("1.5.0", "1.5.0"));

    let afterwards = environment.ok(&["version", "--explain"]).stdout;
    for line in ["1.5.0 (build 1)", "1.4.0\n", "1 commit since then", "docs: typo"] {
        assert!(afterwards.contains(line), "{line} in {afterwards}");
    }
    environment.git(&["commit", "--quiet", "--allow-empty", "--message", "docs: nothing"]);
    let shared = environment.ok(&["version", "--explain"]).stdout;
    let first = format!("{}, which has the same source tree", &commit[..7]);
    assert!(shared.contains(&first), "{shared}");
}

#[test]
fn a_candidate_becomes_final_without_another_build() {
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", &format!("{PLAIN}\n[version]\nscheme = \"candidate\"\n"));
    environment.change("feat: begin");
    let digest = environment.build();
    environment.change("fix: a");
    assert_eq!(environment.built(&[]), "0.1.0-rc.2");
    for said in ["is 0.1.0 now, for ever", "already: nothing to do"] {
        let ran = environment.ok(&["finalise", "0.1.0-rc.1"]);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert_eq!(ran.digest(), digest);
    }
    assert_eq!(environment.ok(&["-q", "inspect", "0.1.0"]).digest(), digest);
    let refused = environment.semel(&["finalise", "0.1.0-rc.2"]);
    assert_eq!(refused.code, 5);
    assert!(
        refused.stderr.contains("0.1.0 is finalised (it is 0.1.0-rc.1); next is 0.1.1-rc.1"),
        "{}",
        refused.stderr
    );
    environment.change("fix: b");
    assert_eq!(environment.built(&[]), "0.1.1-rc.1");
    let listed = environment.ok(&["-q", "versions"]).stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["0.1.1-rc.1", "0.1.0", "0.1.0-rc.2", "0.1.0-rc.1"]);
    let table = environment.ok(&["versions"]).stdout;
    let first: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split("  ").next()).collect();
    assert_eq!(
        first,
        ["0.1.1-rc.1", "0.1.0 = 0.1.0-rc.1", "0.1.0-rc.2"],
        "an artefact has one line: {table}"
    );
    environment.ok(&["audit", "verify"]);
    environment.ok(&["rebuild"]);
    assert_eq!(environment.ok(&["-q", "inspect", "0.1.0"]).digest(), digest);
}

#[test]
fn a_scheme_is_proposed_by_the_project_and_changed_by_hand() {
    let environment = TestEnvironment::plain("feat: begin");
    assert_eq!(environment.built(&[]), "0.1.0");
    environment.edit("semel.toml", "[artefact]", "[version]\nscheme = \"number\"\n\n[artefact]");
    environment.change("fix: a");
    let ran = environment.ok(&["build"]);
    assert!(ran.stderr.contains("published shop/api 0.1.1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("semel component set shop/api --scheme number"), "{}", ran.stderr);
    let ran = environment.ok(&["component", "set", "shop/api", "--scheme", "number"]);
    assert!(ran.stderr.contains("scheme number"), "{}", ran.stderr);
    environment.change("fix: b");
    assert_eq!(environment.built(&[]), "3");
    environment.git(&["checkout", "--quiet", "-b", "refunds"]);
    environment.change("fix: c");
    assert_eq!(environment.built(&[]), "0.1.2-refunds.4");
    assert!(Path::new(&environment.store()).exists());
}

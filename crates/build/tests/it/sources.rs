//! Which commit, which files, which key.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use semel_build::checkout::CheckoutError;
use semel_build::source::{self, Depth, Resolve, SourceError};
use semel_model::build::Line;
use tempfile::TempDir;

use crate::support::{COMMITTED, PLAIN, Repo, git, lay_out, resolve_at, told};

const WITH_ENVIRONMENTS: &str = r#"format = 1
component = "shop/api"

[artefact]
kind = "archive"
files = [{ from = "start", to = "/app/start" }]

[environment.dev]

[environment.production]
after = "dev"
values = "config/production.toml"
"#;

#[test]
fn a_commit_is_resolved_with_its_tree_its_time_and_its_line() {
    let repo = Repo::plain();
    repo.git(&["remote", "add", "origin", "https://user:hunter2@forge.example/shop/api.git"]);
    repo.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
    repo.git(&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main"]);
    let source = repo.source();
    assert_eq!(source.commit.as_str(), repo.git(&["rev-parse", "HEAD"]));
    assert_eq!(source.git_tree, repo.git(&["rev-parse", "HEAD^{tree}"]));
    assert_eq!(source.committed_seconds, COMMITTED);
    assert_eq!(source.line, Line::Main("main".into()));
    assert_eq!(source.remote.as_deref(), Some("https://forge.example/shop/api"));
    assert_eq!((source.uncommitted.len(), source.shallow, source.prefix.as_str()), (0, false, ""));
    assert_eq!(source.entries.len(), 1);
}

#[test]
fn the_build_key_depends_on_the_source_tree_and_the_definition_only() {
    let repo =
        Repo::with(WITH_ENVIRONMENTS, &[("start", "1"), ("config/production.toml", "A = 1")]).committed();
    let key = repo.source().key();
    let after = |path: &str, text: &str| {
        repo.write(path, text);
        repo.commit("fix: something");
        repo.source().key()
    };
    assert_eq!(after("config/production.toml", "A = 2"), key, "a values file is not source");
    let gated =
        WITH_ENVIRONMENTS.replace("after = \"dev\"", "after = \"dev\"\ngates = [{ evidence = \"junit\" }]");
    assert_eq!(after("semel.toml", &gated), key, "an environment is not part of the definition");
    let other = after("semel.toml", &gated.replace("/app/start", "/app/other"));
    assert_ne!(other, key, "the definition is");
    assert_ne!(after("start", "2"), other, "a tracked file is");
}

#[test]
fn include_and_exclude_name_files_and_directories() {
    let files = [("start", "1"), ("lib/a", "1"), ("lib/b/c", "1"), ("library", "1"), ("docs/x", "1")];
    let repo = Repo::with(PLAIN, &files);
    for (spec, expected) in [
        ("", &["docs/x", "lib/a", "lib/b/c", "library", "start"][..]),
        ("include = [\"./lib/\", \"start\"]", &["lib/a", "lib/b/c", "start"]),
        ("include = [\".\"]\nexclude = [\"lib/b\", \"docs\"]", &["lib/a", "library", "start"]),
    ] {
        repo.write("semel.toml", &format!("{PLAIN}\n[source]\n{spec}\n"));
        repo.commit("fix: spec");
        let paths: Vec<_> =
            repo.source().entries.into_iter().map(|e| String::from_utf8(e.path).unwrap()).collect();
        assert_eq!(paths, expected, "{spec}");
    }
    repo.write("semel.toml", &format!("{PLAIN}\n[source]\ninclude = [\"src/*.rs\"]\n"));
    repo.commit("fix: spec");
    let error = repo.resolve().unwrap_err();
    assert!(error.to_string().starts_with("`include` names `src/*.rs`, and commit"), "{error}");
}

#[test]
fn a_project_in_a_subdirectory_has_its_own_tree() {
    let repo = Repo::with(PLAIN, &[("start", "1")]);
    repo.write("services/web/semel.toml", &PLAIN.replace("shop/api", "shop/web"));
    repo.write("services/web/start", "2");
    repo.write("services/web/src/deep/file", "3");
    repo.commit("feat: web");
    repo.write("services/web/new", "");
    repo.write("elsewhere", "");
    let source = resolve_at(&repo.path().join("services/web/src/deep"), None, &[]).unwrap();
    assert_eq!(source.project.component.as_str(), "shop/web");
    assert_eq!(source.prefix, "services/web/");
    assert_eq!(source.uncommitted, ["new"]);
    let paths: Vec<_> = source.entries.iter().map(|entry| entry.path.as_slice()).collect();
    assert_eq!(paths, [b"src/deep/file".as_slice(), b"start"]);
    assert_eq!(lay_out(&source).unwrap().read("start"), "2");
}

#[test]
fn every_reason_why_there_is_no_source_names_the_next_step() {
    let nowhere = TempDir::new().unwrap();
    let error = resolve_at(nowhere.path(), None, &[]).unwrap_err();
    assert!(matches!(&error, SourceError::NotARepository { .. }), "{}", told(&error));

    let empty = Repo::empty();
    let error = empty.resolve().unwrap_err();
    assert!(matches!(&error, SourceError::NoCommit { .. }), "{}", told(&error));

    empty.write("readme", "");
    empty.commit("feat: begin");
    let error = empty.resolve().unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("semel init"));
    empty.write("semel.toml", PLAIN);
    let error = empty.resolve().unwrap_err();
    let hint = error.hint().unwrap();
    assert!(hint.starts_with("git add ") && hint.ends_with("semel.toml && git commit"), "{hint}");

    let repo = Repo::plain();
    for revision in
        ["nothing", "", "HEAD:start", "a\nb", "--help", "0123456789012345678901234567890123456789"]
    {
        let error = resolve_at(repo.path(), Some(revision), &[]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{revision}` is no commit of")), "{}", told(&error));
    }

    repo.write("semel.toml", &PLAIN.replace("[artefact]", "[artifact]"));
    repo.commit("fix: spelling");
    let error = told(&repo.resolve().unwrap_err());
    assert!(error.contains("semel.toml:4:2: unknown key `artifact`: did you mean `artefact`?"), "{error}");
}

#[test]
fn the_project_file_of_the_commit_counts_not_the_one_on_the_disk() {
    let repo = Repo::plain();
    repo.write("semel.toml", &PLAIN.replace("shop/api", "other"));
    repo.write("untracked", "");
    let source = repo.source();
    assert_eq!(source.project.component.as_str(), "shop/api");
    assert_eq!(source.uncommitted, ["semel.toml", "untracked"]);
}

#[test]
fn a_revision_is_built_for_the_line_that_has_it() {
    let repo = Repo::plain();
    repo.git(&["checkout", "-q", "-b", "feature/x"]);
    repo.commit("feat: x");
    assert_eq!(repo.source().line, Line::Branch("feature/x".into()));
    let line = |revision: &str, variables: &[(&str, &str)]| {
        resolve_at(repo.path(), Some(revision), variables).unwrap().line
    };
    assert_eq!(line("main", &[]), Line::Main("main".into()));
    assert_eq!(line("HEAD~1", &[]), Line::Main("main".into()));
    assert_eq!(line("HEAD", &[("GITHUB_REF", "refs/pull/7/merge")]), Line::Branch("pr-7".into()));
    repo.git(&["checkout", "-q", "--detach"]);
    assert_eq!(repo.source().line, Line::Branch("feature/x".into()));
    repo.commit("fix: nowhere");
    assert_eq!(repo.source().line, Line::Branch("detached".into()));
    let ci = [("CI", "true"), ("CI_COMMIT_BRANCH", "main")];
    assert_eq!(resolve_at(repo.path(), None, &ci).unwrap().line, Line::Main("main".into()));
    let none = BTreeMap::new();
    let asked = Resolve { start_dir: repo.path(), revision: None, branch: Some("hotfix"), variables: &none };
    assert_eq!(source::resolve(&asked).unwrap().line, Line::Branch("hotfix".into()));
}

#[test]
fn the_history_has_commits_tags_and_the_stated_version() {
    let repo = Repo::plain();
    repo.write("Cargo.toml", "[package]\nname = \"api\"\nversion = \"1.3.0\"\n");
    repo.commit("feat(api)!: new\n\nbody");
    repo.git(&["tag", "v2.0.0", "HEAD~1"]);
    repo.git(&["tag", "-a", "-m", "annotated", "api-2.1.0", "HEAD~1"]);
    repo.git(&["tag", "web-9.0.0"]);
    let source = repo.source();
    let history = source::history(&source, Depth::Near).unwrap();
    let seen: Vec<_> = history
        .commits
        .iter()
        .map(|c| (c.subject.as_str(), c.author.as_str(), c.parents.len(), c.bump))
        .collect();
    use semel_model::build::Bump;
    assert_eq!(
        seen,
        [
            ("feat(api)!: new", "ada@example.org", 1, Bump::Major),
            ("feat: begin", "ada@example.org", 0, Bump::Minor)
        ]
    );
    let tags: Vec<_> = history.tags.values().map(ToString::to_string).collect();
    assert_eq!((tags, history.truncated), (vec!["2.1.0".to_owned()], false));
    assert_eq!(history.manifest.unwrap().to_string(), "1.3.0");
}

#[test]
fn a_bare_repository_is_built_from_too() {
    let repo = Repo::plain();
    let bare = TempDir::new().unwrap();
    git(bare.path(), &["clone", "-q", "--bare", &format!("file://{}", repo.path().display()), "."]);
    let source = resolve_at(bare.path(), None, &[]).unwrap();
    assert_eq!((source.key(), source.uncommitted.len()), (repo.source().key(), 0));
}

#[test]
fn the_tree_is_the_commit_and_nothing_of_the_disk() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let repo = Repo::with(
        PLAIN,
        &[("start", "#!/bin/sh\n"), ("left-out", "kept"), ("crlf.txt", "a\nb\n"), ("empty", "")],
    )
    .executable("start");
    repo.write(
        ".gitattributes",
        "left-out export-ignore\nversion.txt export-subst ident filter=shout\n* text eol=crlf\nutf16 working-tree-encoding=UTF-16\n",
    );
    repo.write("version.txt", "$Format:%H$ $Id$\n");
    repo.git(&["config", "filter.shout.smudge", "tr a-z A-Z"]);
    repo.git(&["config", "filter.shout.required", "true"]);
    repo.git(&["config", "filter.shout.clean", "cat"]);
    symlink("start", repo.path().join("link")).unwrap();
    let odd: [&[u8]; 5] =
        [b"a b\tc", b"line\nbreak", "\u{e4}\u{1f600}".as_bytes(), b"\xff\xfe", b"-rf \"quoted\" \\"];
    for name in odd {
        fs::write(repo.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    repo.git(&["config", "core.autocrlf", "true"]);
    repo.git(&["config", "core.safecrlf", "false"]);
    repo.commit("feat: begin");
    repo.write("start", "changed");
    repo.write("untracked", "x");
    fs::remove_file(repo.path().join("left-out")).unwrap();

    let laid = repo.laid_out();
    let tree = laid.path("");
    let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
    assert_eq!(read("start"), "#!/bin/sh\n");
    assert_eq!(read("left-out"), "kept");
    assert_eq!(read("crlf.txt"), "a\nb\n");
    assert_eq!(read("version.txt"), "$Format:%H$ $Id$\n");
    assert_eq!(fs::read_link(tree.join("link")).unwrap().to_str(), Some("start"));
    assert!(
        !tree.join("untracked").exists() && !tree.join("semel.toml").exists() && !tree.join(".git").exists()
    );
    for name in odd {
        assert_eq!(fs::read(tree.join(std::ffi::OsStr::from_bytes(name))).unwrap(), name);
    }
    for (name, mode) in [("start", 0o755), ("empty", 0o644), ("", 0o755)] {
        let metadata = fs::metadata(tree.join(name)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (mode, COMMITTED), "{name}");
    }
    assert_eq!(fs::symlink_metadata(tree.join("link")).unwrap().mtime(), COMMITTED);
}

#[test]
fn a_tree_made_by_hand_cannot_write_outside() {
    let repo = Repo::plain();
    let hash = |kind: &str, bytes: &[u8]| {
        fs::write(repo.path().join("object.raw"), bytes).unwrap();
        repo.git(&["hash-object", "-w", "-t", kind, "--literally", "object.raw"])
    };
    // `MODE NAME<NUL>ID` for each entry; git-mktree would refuse these.
    let tree = |entries: &[(&str, &str, &str)]| {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend(format!("{mode} {name}\0").as_bytes());
            bytes.extend((0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
        }
        hash("tree", &bytes)
    };
    let (file, project) = (hash("blob", b"x"), repo.git(&["rev-parse", "HEAD:semel.toml"]));
    let outside = TempDir::new().unwrap();
    let link = hash("blob", outside.path().as_os_str().as_bytes());
    let below = tree(&[("100644", "evil", &file)]);
    let materialised = |entries: &[(&str, &str, &str)]| {
        let root = tree(&[entries, &[("100644", "semel.toml", &project)]].concat());
        let commit = repo.git(&["commit-tree", "-m", "evil", &root]);
        let source = resolve_at(repo.path(), Some(&commit), &[]).unwrap();
        lay_out(&source).err().unwrap()
    };
    for name in ["..", ".git", ".GIT"] {
        let error = materialised(&[("100644", name, &file)]);
        assert!(matches!(&error, CheckoutError::Unsafe { path } if path == name), "{error}");
    }
    for entries in [
        &[("120000", "d", link.as_str()), ("40000", "d", below.as_str())][..],
        &[("100644", "d", file.as_str()), ("100644", "d", file.as_str())],
    ] {
        let error = materialised(entries);
        assert!(
            matches!(&error, CheckoutError::Clash { path, other } if path == "d" && other.starts_with('d')),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

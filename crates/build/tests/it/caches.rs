//! What one build leaves for the next.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use semel_build::pipeline::{Blame, BuildError};
use tempfile::TempDir;

use crate::support::{Done, Repo, finish, request};

/// Each build adds a line to a file in each cache, and fails if the commit says so.
const RUN: &str = "mkdir -p target \"$HOME/.tool\"; echo built >> target/file; echo built >> \"$HOME/.tool/file\"; \
                   cat target/file \"$HOME/.tool/file\" | wc -l > out; test ! -e broken";

fn repo() -> Repo {
    let project = format!(
        "format = 1\ncomponent = \"shop/api\"\n[build]\nrun = '{RUN}'\ncache = [\"target\", \".home/.tool\"]\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"out\", to = \"/out\" }}]\n"
    );
    Repo::with(&project, &[("source", "hello\n")]).committed()
}

/// Builds the newest commit with caches that lie in a directory.
fn build(repo: &Repo, caches: Option<&Path>) -> Result<Done, BuildError> {
    let work = TempDir::new().unwrap();
    let mut request = request(repo.source(), work.path().to_owned());
    request.caches = caches.map(Path::to_owned);
    finish(request, work)
}

/// How many lines the caches had after a build: two for each good one.
fn lines(done: &Done) -> u32 {
    fs::read_to_string(done.work.path().join("tree/out")).unwrap().trim().parse().unwrap()
}

fn warm(done: &Done) -> Vec<bool> {
    let parameters = &done.built.claims[0].predicate["buildDefinition"]["internalParameters"];
    parameters["caches"].as_array().unwrap().iter().map(|cache| cache["warm"] == true).collect()
}

#[test]
fn a_build_finds_what_the_last_good_one_of_its_line_left() {
    let (repo, caches) = (repo(), TempDir::new().unwrap());
    let seen: Vec<_> = (0..3)
        .map(|_| {
            let done = build(&repo, Some(caches.path())).unwrap();
            (lines(&done), warm(&done))
        })
        .collect();
    assert_eq!(seen, [(2, vec![false, false]), (4, vec![true, true]), (6, vec![true, true])]);
    repo.git(&["checkout", "-q", "-b", "other"]);
    assert_eq!(lines(&build(&repo, Some(caches.path())).unwrap()), 2, "another line has caches of its own");
    let without = build(&repo, None).unwrap();
    assert_eq!((lines(&without), warm(&without)), (2, vec![]));
}

#[test]
fn a_build_that_fails_spoils_no_cache() {
    let (repo, caches) = (repo(), TempDir::new().unwrap());
    build(&repo, Some(caches.path())).unwrap();
    repo.write("broken", "");
    repo.commit("fix: break");
    let failed = build(&repo, Some(caches.path())).err().unwrap();
    assert_eq!(failed.blame(), Blame::Command);
    repo.git(&["rm", "-q", "broken"]);
    repo.commit("fix: mend");
    assert_eq!(lines(&build(&repo, Some(caches.path())).unwrap()), 4);
}

#[test]
fn builds_at_the_same_time_do_not_see_each_other() {
    let (repo, caches) = (repo(), TempDir::new().unwrap());
    build(&repo, Some(caches.path())).unwrap();
    std::thread::scope(|scope| {
        let builds: Vec<_> = (0..4).map(|_| scope.spawn(|| build(&repo, Some(caches.path())))).collect();
        for one in builds {
            let seen = lines(&one.join().unwrap().unwrap());
            assert!(seen.is_multiple_of(2) && seen >= 4, "{seen}");
        }
    });
}

/// The trap: the newer commit was made before the older one was built, so by their times its sources are older than
/// what was built from the older one.
#[test]
fn a_tool_that_goes_by_times_does_not_take_the_old_result_for_the_new_one() {
    let make = "mkdir -p target; if test ! source -ot target/made; then cp source target/made; fi; cp target/made out";
    let project = format!(
        "format = 1\ncomponent = \"shop/api\"\n[build]\nrun = '{make}'\ncache = [\"target\"]\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"out\", to = \"/out\" }}]\n"
    );
    let (repo, caches) = (Repo::with(&project, &[("source", "old\n")]).committed(), TempDir::new().unwrap());
    for expected in ["old\n", "new\n"] {
        repo.write("source", expected);
        repo.commit("fix: change");
        let done = build(&repo, Some(caches.path())).unwrap();
        assert_eq!(fs::read_to_string(done.work.path().join("tree/out")).unwrap(), expected);
    }
}

#[test]
fn a_cache_never_leads_out_of_the_build() {
    let caches = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    for (make, said) in [
        ("link", "the cache `target` lies behind a symbolic link of the source"),
        ("file", "the cache `target` is part of the source"),
        ("directory", "the cache `target` is part of the source"),
    ] {
        let repo = repo();
        match make {
            "link" => symlink(outside.path(), repo.path().join("target")).unwrap(),
            "file" => repo.write("target", ""),
            _ => repo.write("target/file", ""),
        }
        repo.commit("feat: be in the way");
        let error = build(&repo, Some(caches.path())).err().unwrap();
        assert_eq!((error.to_string().as_str(), error.blame()), (said, Blame::Caller), "{make}");
    }
    // Nor does what a build makes of it.
    let repo = repo();
    repo.write(
        "semel.toml",
        &fs::read_to_string(repo.path().join("semel.toml"))
            .unwrap()
            .replace("; test !", "; rm -r target; ln -s /etc target; test !"),
    );
    repo.commit("feat: leave a link");
    for _ in 0..2 {
        assert!(!warm(&build(&repo, Some(caches.path())).unwrap())[0]);
    }
}

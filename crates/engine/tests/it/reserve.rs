//! One build key: one number, one version, one artefact, however many ask.

use std::collections::BTreeSet;

use proptest::prelude::*;
use semel_engine::error::EngineError;
use semel_engine::reserve::{
    Commit, Fail, Finished, Granted, LEASE_MILLIS, Lookup, Reservation, Reserve, SourceDocument,
};
use semel_engine::reserve::{commit, fail, heartbeat, lookup, release, reserve};
use semel_model::actor::{Actor, ActorKind, AuthMethod};
use semel_model::build::{Bump, Line};
use semel_model::digest::Digest;
use semel_model::entry::Change;
use semel_model::pipeline::EvidenceResult;
use semel_model::reservation::{LOCAL_BUILDER, Process};
use semel_model::statement::{BUILD_TYPE, Claim, predicate_name};
use semel_model::version::Version;
use semel_store::projections::{build as builds, evidence};
use serde_json::json;

use crate::{World, commit_id, component, holding, name, request, time};

const LEASE_SECONDS: i64 = LEASE_MILLIS / 1_000 + 1;

fn on(line: Line, request: Reserve) -> Reserve {
    Reserve { line, ..request }
}

/// Asks whether the source tree `tree` was built, for commit `n` of the main line.
fn asking(n: u8, tree: &str) -> Lookup {
    let Reserve { inputs, commit, line, .. } = request(n, tree);
    Lookup { inputs, commit, line }
}

fn branch(name: &str) -> Line {
    Line::Branch(name.to_owned())
}

#[tokio::test]
async fn the_same_key_gets_the_same_number_version_and_digest() {
    let world = World::new().await;
    let first = world.built(1, "tree").await;
    let size = world.size().await;
    let again = world.reserve(request(1, "tree")).await;
    assert_eq!(again, Reservation::Built(first.clone()));
    assert_eq!((first.number, first.version.to_string()), (1, "0.0.1".to_owned()));
    assert_eq!(world.size().await, size, "asking again records nothing");
    world.assert_sound().await;
}

#[tokio::test]
async fn another_commit_with_the_same_tree_shares_the_artefact() {
    let world = World::new().await;
    let first = world.built(1, "tree").await;
    let question = asking(2, "tree");
    let asked = lookup(&world.store, &world.who, &question, world.now()).await.unwrap();
    assert_eq!(asked, Reservation::Built(first.clone()));
    for _ in 0..2 {
        assert_eq!(world.reserve(request(3, "tree")).await, Reservation::Built(first.clone()));
    }
    assert_eq!(world.count("CommitMatched").await, 2, "commits 2 and 3, once each");
    assert_eq!(world.count("BuildReserved").await, 1);
    assert_eq!(world.count("VersionPublished").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_key_that_nobody_reserved_is_unknown_and_stays_so() {
    let world = World::new().await;
    let size = world.size().await;
    let question = asking(1, "tree");
    let asked = lookup(&world.store, &world.who, &question, world.now()).await.unwrap();
    assert_eq!(asked, Reservation::Unknown);
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn a_live_lease_is_waited_for_and_its_holder_is_named() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    let seen = world.reserve(Reserve { holder: "ci job 7".to_owned(), ..request(1, "tree") }).await;
    let Reservation::Running(running) = seen else { panic!("{seen:?}") };
    assert_eq!((running.holder.as_str(), running.number), ("ana on laptop", 1));
    assert_eq!((running.version, running.attempt), (granted.version.clone(), 1));
    world.wait(LEASE_SECONDS - 10);
    heartbeat(&world.store, &holding(&granted), world.now()).await.unwrap();
    world.wait(LEASE_SECONDS - 10);
    let seen = world.reserve(request(1, "tree")).await;
    assert!(matches!(seen, Reservation::Running(_)), "a heartbeat keeps the lease: {seen:?}");
}

#[tokio::test]
async fn a_lapsed_lease_is_taken_over_with_the_same_number_and_version() {
    let world = World::new().await;
    let first = world.granted(request(1, "tree")).await;
    world.wait(LEASE_SECONDS);
    let second = world.granted(request(1, "tree")).await;
    assert_eq!((second.number, &second.version), (first.number, &first.version));
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_ne!(first.token, second.token);
    let error = heartbeat(&world.store, &holding(&first), world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "build 1 of shop/api was taken over by ana on laptop");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_commit_that_takes_a_build_over_is_known_by_its_result() {
    let world = World::new().await;
    let first = world.granted(request(1, "tree")).await;
    release(&world.store, &holding(&first)).await.unwrap();
    let second = world.granted(request(2, "tree")).await;
    let digest = world.artefact("tree").await;
    world.commit(&second, &digest).await.unwrap();
    let commits =
        builds::commits_of(&mut world.store.reader().await.unwrap(), &component(), 1).await.unwrap();
    assert_eq!(commits, [commit_id(1), commit_id(2)]);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_late_holder_takes_the_result_that_was_committed_after_it_was_replaced() {
    let world = World::new().await;
    let zombie = world.granted(request(1, "tree")).await;
    world.wait(LEASE_SECONDS);
    let heir = world.granted(request(1, "tree")).await;
    let (late, good) = (world.artefact("late").await, world.artefact("good").await);
    let error = world.commit(&zombie, &late).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error}");
    let built = world.commit(&heir, &good).await.unwrap();
    assert_eq!(built.digest, good);
    let size = world.size().await;
    assert_eq!(world.commit(&heir, &good).await.unwrap(), built, "repeating succeeds");
    assert_eq!(world.size().await, size, "and records nothing");
    for (delivered, reproduced, result) in
        [(&late, false, EvidenceResult::Fail), (&good, true, EvidenceResult::Pass)]
    {
        let committed = world.deliver(holding(&zombie), delivered).await.unwrap();
        assert_eq!(committed.finished, Finished::Built(built.clone()));
        let comparison = committed.late.unwrap();
        assert_eq!((comparison.reproduced, &comparison.delivered), (Some(reproduced), delivered));
        let size = world.size().await;
        assert_eq!(world.deliver(holding(&zombie), delivered).await.unwrap().late, None, "once is enough");
        assert_eq!(world.size().await, size);
        let Change::EvidenceAttached(attached) = world.newest("EvidenceAttached").await else { panic!() };
        assert_eq!((predicate_name(&attached.predicate_type), attached.result), ("reproducibility", result));
        assert_eq!(attached.digest, good, "it is about what was committed");
    }
    assert_eq!(world.count("VersionPublished").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_late_result_from_another_commit_with_the_same_tree_says_nothing_about_determinism() {
    let world = World::new().await;
    let zombie = world.granted(request(1, "tree")).await;
    world.wait(LEASE_SECONDS);
    let heir = world.granted(request(2, "tree")).await;
    let (late, good) = (world.artefact("late").await, world.artefact("good").await);
    let deliver = async |granted: &Granted, digest: &Digest, from: u8| {
        let source = json!({ "name": "source", "digest": { "gitCommit": commit_id(from) } });
        let said = json!({
            "buildDefinition": { "buildType": BUILD_TYPE, "resolvedDependencies": [source] },
            "runDetails": { "builder": { "id": LOCAL_BUILDER } },
        });
        let claims = vec![Claim::provenance(said)];
        let result = Commit { holding: holding(granted), digest: digest.clone(), claims, log: None };
        commit(&world.store, &world.who, result, world.now()).await.unwrap()
    };
    assert_eq!(deliver(&heir, &good, 2).await.late, None);
    for from in [1, 1] {
        let late = deliver(&zombie, &late, from).await.late;
        assert!(late.is_none_or(|late| late.reproduced.is_none()));
    }
    assert_eq!(world.count("EvidenceAttached").await, 1, "the provenance of what was committed");
    let late = deliver(&zombie, &world.artefact("other").await, 2).await.late.unwrap();
    assert_eq!(late.reproduced, Some(false), "the same commit gave other bytes");
    world.assert_sound().await;
}

fn on_host(host: &str, request: Reserve) -> Reserve {
    let process = Process { host: host.to_owned(), pid: 7, start: "1".to_owned() };
    Reserve { process: Some(process), ..request }
}

#[tokio::test]
async fn a_lease_ends_at_once_when_its_holder_is_found_gone_by_its_own_machine() {
    let world = World::new().await;
    let first = world.granted(on_host("laptop", request(1, "tree"))).await;
    for (host, gone) in [("laptop", None), ("laptop", Some(2)), ("elsewhere", Some(1))] {
        let seen = world.reserve(Reserve { gone, ..on_host(host, request(1, "tree")) }).await;
        assert!(matches!(seen, Reservation::Running(_)), "{host} {gone:?}: {seen:?}");
    }
    let seen = world.reserve(Reserve { gone: Some(1), ..request(1, "tree") }).await;
    assert!(matches!(seen, Reservation::Running(_)), "who says of no machine knows nothing: {seen:?}");
    let heir = world.granted(Reserve { gone: Some(1), ..on_host("laptop", request(1, "tree")) }).await;
    assert_eq!((heir.attempt, heir.number, &heir.version), (2, 1, &first.version));
    world.assert_sound().await;
}

#[tokio::test]
async fn who_waited_for_an_attempt_that_failed_gets_its_failure_and_a_new_try_builds() {
    let world = World::new().await;
    let first = world.granted(request(1, "tree")).await;
    let waiting = Reserve { waited_for: Some(1), ..request(1, "tree") };
    assert!(matches!(world.reserve(waiting.clone()).await, Reservation::Running(_)));
    let failure = Fail { holding: holding(&first), reason: "test 3 failed".to_owned(), log: None };
    fail(&world.store, &world.who, failure, world.now()).await.unwrap();
    for _ in 0..2 {
        let Reservation::Failed(failed) = world.reserve(waiting.clone()).await else { panic!("it failed") };
        assert_eq!((failed.reason.as_str(), failed.number), ("test 3 failed", 1));
        assert_eq!((failed.holder.as_str(), &failed.version), ("ana on laptop", &first.version));
    }
    let second = world.granted(request(1, "tree")).await;
    assert_eq!((second.number, second.attempt), (1, 2));
    let Reservation::Running(running) = world.reserve(waiting.clone()).await else { panic!("attempt 2") };
    assert_eq!(running.attempt, 2, "who waits follows the next attempt");
    release(&world.store, &holding(&second)).await.unwrap();
    let third = world.granted(Reserve { waited_for: Some(2), ..request(1, "tree") }).await;
    assert_eq!(third.attempt, 3, "what was broken off did not fail");
}

#[tokio::test]
async fn a_source_is_built_again_for_a_reason_and_once_for_each_reason() {
    let world = World::new().await;
    let first = world.built(1, "tree").await;
    let again = |reason: &str| Reserve { again: Some(reason.to_owned()), ..request(1, "tree") };
    let granted = world.granted(again("rustc CVE-2026-1")).await;
    assert_eq!((granted.number, granted.salt, granted.version.to_string()), (2, 1, "0.0.2".to_owned()));
    assert_eq!(
        world.reserve(request(1, "tree")).await,
        Reservation::Built(first.clone()),
        "until it is built"
    );
    assert!(matches!(world.reserve(again("rustc CVE-2026-1")).await, Reservation::Running(_)));
    assert!(matches!(world.reserve(again("another")).await, Reservation::Running(_)), "one at a time");
    let second = world.commit(&granted, &world.artefact("rebuilt").await).await.unwrap();
    assert_eq!(world.reserve(request(1, "tree")).await, Reservation::Built(second.clone()), "it is used now");
    assert_eq!(world.reserve(again("rustc CVE-2026-1")).await, Reservation::Built(second), "made already");
    assert_eq!(world.granted(again("another")).await.salt, 2);
    let Change::BuildReserved(reserved) = world.newest("BuildReserved").await else { panic!("its kind") };
    assert_eq!(reserved.again.unwrap().reason, "another");
    let found = builds::by_number(&mut world.store.reader().await.unwrap(), &component(), 1).await.unwrap();
    assert_eq!(found.unwrap().digest, Some(first.digest), "the old one is untouched");
    let error = reserve(&world.store, &world.who, again("  "), world.now()).await.unwrap_err();
    assert!(matches!(error, EngineError::Precondition { .. }), "{error:?}");
    world.assert_sound().await;
}

#[tokio::test]
async fn the_trunk_names_a_branchs_artefact_of_the_same_tree_and_builds_nothing() {
    let world = World::new().await;
    let granted = world.granted(on(branch("feat"), request(2, "tree"))).await;
    let built = world.commit(&granted, &world.artefact("tree").await).await.unwrap();
    assert_eq!(built.version.to_string(), "0.0.1-feat.1");
    let asked = lookup(&world.store, &world.who, &asking(3, "tree"), world.now()).await.unwrap();
    assert_eq!(asked, Reservation::Unknown, "the trunk has no name for it yet");
    let Reservation::Built(merged) = world.reserve(request(3, "tree")).await else { panic!("it is built") };
    assert_eq!((merged.version.to_string(), merged.number), ("0.0.1".to_owned(), 1));
    assert_eq!(merged.digest, built.digest, "the same bytes");
    let size = world.size().await;
    for _ in 0..2 {
        assert_eq!(world.reserve(request(3, "tree")).await, Reservation::Built(merged.clone()));
        let asked = lookup(&world.store, &world.who, &asking(3, "tree"), world.now()).await.unwrap();
        assert_eq!(asked, Reservation::Built(merged.clone()));
    }
    assert_eq!(world.size().await, size, "one name is enough");
    let on_branch = world.reserve(on(branch("feat"), request(2, "tree"))).await;
    assert_eq!(on_branch, Reservation::Built(built), "the branch knows it by its own");
    let next = world.granted(request(4, "another tree")).await;
    assert_eq!((next.version.to_string(), next.follows), ("0.0.2".to_owned(), Some(merged.version)));
    assert_eq!(world.count("BuildReserved").await, 2);
    world.assert_sound().await;
}

#[tokio::test]
async fn the_trunk_builds_itself_what_somebody_built_who_may_not_build_the_trunk() {
    let world = World::new().await;
    let job = |subject: &str| Actor {
        issuer: "https://ci.example".to_owned(),
        subject: subject.to_owned(),
        kind: ActorKind::Workload,
        method: AuthMethod::Oidc,
        via: "api".to_owned(),
    };
    let (fork, main) = (job("fork"), job("main"));
    let at_branch = on(branch("fork"), request(1, "tree"));
    let Reservation::Yours(granted) = reserve(&world.store, &fork, at_branch, world.now()).await.unwrap()
    else {
        panic!("it is free")
    };
    let digest = world.artefact("of the fork").await;
    let request_of = |granted: &Granted, digest: &Digest| Commit {
        holding: holding(granted),
        digest: digest.clone(),
        claims: vec![crate::provenance()],
        log: None,
    };
    commit(&world.store, &fork, request_of(&granted, &digest), world.now()).await.unwrap();
    let asked = reserve(&world.store, &main, request(2, "tree"), world.now()).await.unwrap();
    let Reservation::Yours(own) = asked else { panic!("it builds itself: {asked:?}") };
    assert_eq!((own.salt, own.version.to_string()), (1, "0.0.1".to_owned()));
    let digest = world.artefact("of the trunk").await;
    commit(&world.store, &main, request_of(&own, &digest), world.now()).await.unwrap();
    let asked = reserve(&world.store, &main, request(2, "tree"), world.now()).await.unwrap();
    assert!(matches!(asked, Reservation::Built(built) if built.digest == digest), "and takes its own");
    let Change::BuildReserved(reserved) = world.newest("BuildReserved").await else { panic!("its kind") };
    assert!(reserved.again.unwrap().reason.contains("may not build main"));
    world.assert_sound().await;
}

#[tokio::test]
async fn every_claim_of_a_builder_is_signed_and_attached_with_the_version() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    let digest = world.artefact("tree").await;
    let closure = Claim {
        predicate_type: "https://semel.dev/evidence/closure/v1".to_owned(),
        predicate: serde_json::json!({"missing": []}),
        result: EvidenceResult::Pass,
    };
    let commit_with = |claims| {
        let request = Commit { holding: holding(&granted), digest: digest.clone(), claims, log: None };
        commit(&world.store, &world.who, request, world.now())
    };
    let size = world.size().await;
    for claims in [vec![], vec![closure.clone()], vec![crate::provenance(), crate::provenance()]] {
        let error = commit_with(claims).await.unwrap_err();
        assert!(matches!(error, EngineError::Invalid { .. }), "{error:?}");
    }
    assert_eq!(world.size().await, size, "what is refused records nothing");
    commit_with(vec![crate::provenance(), closure]).await.unwrap();
    let about =
        evidence::about(&mut world.store.reader().await.unwrap(), &component(), &digest).await.unwrap();
    let said: Vec<_> =
        about.iter().map(|one| (predicate_name(&one.fact.predicate_type), one.fact.result)).collect();
    assert_eq!(said, [("provenance", EvidenceResult::Info), ("closure", EvidenceResult::Pass)]);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_failed_build_keeps_its_number_and_version() {
    let world = World::new().await;
    let first = world.granted(request(1, "tree")).await;
    let failure = Fail { holding: holding(&first), reason: "test 3 failed".to_owned(), log: None };
    fail(&world.store, &world.who, failure, world.now()).await.unwrap();
    let second = world.granted(request(1, "tree")).await;
    assert_eq!((second.number, &second.version, second.attempt), (1, &first.version, 2));
    let other = world.granted(request(2, "another tree")).await;
    assert_eq!((other.number, other.version.to_string()), (2, "0.0.2".to_owned()));
    let digest = world.artefact("tree").await;
    assert_eq!(world.commit(&second, &digest).await.unwrap().version, first.version);
    world.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_that_ask_for_one_key_exactly_one_builds() {
    let world = World::new().await;
    let digest = world.artefact("tree").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, who, digest) = (world.store.clone(), world.who.clone(), digest.clone());
        tasks.spawn(async move {
            let granted = match reserve(&store, &who, request(1, "tree"), time(10)).await.unwrap() {
                Reservation::Yours(granted) => granted,
                other => return (0, Some(other)),
            };
            let request =
                Commit { holding: holding(&granted), digest, claims: vec![crate::provenance()], log: None };
            commit(&store, &who, request, time(11)).await.unwrap();
            (1, None)
        });
    }
    let mut builds = 0;
    while let Some(done) = tasks.join_next().await {
        let (built, other) = done.unwrap();
        builds += built;
        match other {
            None => {}
            Some(Reservation::Running(running)) => assert_eq!(running.number, 1),
            Some(Reservation::Built(built)) => assert_eq!((built.number, &built.digest), (1, &digest)),
            Some(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(builds, 1);
    assert_eq!(world.count("BuildReserved").await, 1);
    assert_eq!(world.count("VersionPublished").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_store_that_is_not_the_home_gives_no_versions_and_names_the_home() {
    let world = World::new().await;
    let digest = world.artefact("copy").await;
    let copy = semel_engine::publish::Bind { home: Some("feedbeef".to_owned()), ..name("1.0.0", &digest) };
    semel_engine::publish::bind(&world.store, &world.who, copy, world.now()).await.unwrap();
    let size = world.size().await;
    let error = reserve(&world.store, &world.who, request(1, "tree"), world.now()).await.unwrap_err();
    assert!(matches!(error, EngineError::NotAllowed { .. }), "{error:?}");
    assert!(error.to_string().contains("from store feedbeef"), "{error}");
    assert!(error.hint().unwrap().contains("--server"));
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn the_main_line_gets_final_versions_and_a_branch_never_does() {
    for (line, expected) in [
        (Line::Main("main".to_owned()), "0.0.1"),
        (branch("feat/Login"), "0.0.1-feat-login.1"),
        (branch("007"), "0.0.1-b007.1"),
    ] {
        let world = World::new().await;
        let granted = world.granted(on(line, request(1, "tree"))).await;
        assert_eq!(granted.version.to_string(), expected);
    }
}

#[tokio::test]
async fn a_name_that_a_push_has_bound_is_skipped() {
    let world = World::new().await;
    world.published("0.0.1").await;
    world.published("v0.0.2").await;
    let granted = world.granted(request(1, "tree")).await;
    assert_eq!(granted.version.to_string(), "0.0.3");
    assert_eq!(granted.number, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn what_is_granted_says_what_it_follows() {
    let world = World::new().await;
    world.built(1, "one").await;
    let granted = world.granted(request(3, "three")).await;
    assert_eq!(granted.follows, Some("0.0.1".parse().unwrap()));
    assert_eq!(granted.bump, Bump::Patch);
    assert_eq!(granted.since, [commit_id(3), commit_id(2)]);
}

#[tokio::test]
async fn authors_are_recorded_under_pseudonyms_alone() {
    let world = World::new().await;
    world.granted(request(2, "tree")).await;
    let Change::BuildReserved(reserved) = world.newest("BuildReserved").await else { panic!("its kind") };
    let bytes = world.store.blobs().read(&reserved.source).unwrap();
    assert!(!String::from_utf8(bytes.clone()).unwrap().contains('@'));
    let source: SourceDocument = serde_json::from_slice(&bytes).unwrap();
    let authors: BTreeSet<&str> = source.since.iter().map(|commit| commit.author.as_str()).collect();
    assert_eq!((source.since.len(), authors.len()), (2, 1), "one person has one pseudonym");
    for entry in world.entries().await {
        assert!(!format!("{entry:?}").contains('@'), "{entry:?}");
    }
}

#[tokio::test]
async fn a_result_that_is_not_stored_is_not_committed() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    let missing = semel_model::digest::Digest::of(b"never stored");
    let error = world.commit(&granted, &missing).await.unwrap_err();
    assert!(error.to_string().contains("has no manifest"), "{error}");
    assert_eq!(world.count("VersionPublished").await, 0);
    world.assert_sound().await;
}

/// One thing that happens to a component: a build on the main line or a branch, one that fails, or a pushed version.
#[derive(Debug, Clone)]
enum Happening {
    Build { commit: u8, tree: u8, branch: bool },
    Broken { commit: u8, tree: u8 },
    Push { patch: u8 },
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1..6u8, 0..8u8, any::<bool>())
            .prop_map(|(commit, tree, branch)| Happening::Build { commit, tree, branch }),
        1 => (1..6u8, 0..8u8).prop_map(|(commit, tree)| Happening::Broken { commit, tree }),
        1 => (0..6u8).prop_map(|patch| Happening::Push { patch }),
    ]
}

async fn happen(world: &World, happening: Happening) {
    match happening {
        Happening::Build { commit, tree, branch: on_branch } => {
            let wanted = request(commit, &format!("tree {tree}"));
            let wanted = if on_branch { on(branch("work"), wanted) } else { wanted };
            if let Reservation::Yours(granted) = world.reserve(wanted).await {
                let digest = world.artefact(&format!("tree {tree}")).await;
                world.commit(&granted, &digest).await.unwrap();
            }
        }
        Happening::Broken { commit, tree } => {
            if let Reservation::Yours(granted) = world.reserve(request(commit, &format!("tree {tree}"))).await
            {
                let failure = Fail { holding: holding(&granted), reason: "broken".to_owned(), log: None };
                fail(&world.store, &world.who, failure, world.now()).await.unwrap();
            }
        }
        Happening::Push { patch } => {
            let digest = world.artefact(&format!("push {patch}")).await;
            world.bind(&format!("0.0.{patch}"), &digest).await.unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn versions_numbers_and_keys_are_unique_whatever_happens(
        happenings in proptest::collection::vec(any_happening(), 1..20)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            for happening in happenings {
                happen(&world, happening).await;
            }
            let (mut versions, mut numbers, mut keys) = (Vec::<Version>::new(), Vec::new(), Vec::new());
            let mut bound = BTreeSet::new();
            for entry in world.entries().await {
                match entry.change {
                    Change::BuildReserved(body) => {
                        numbers.push(body.number);
                        keys.push(body.key);
                        versions.push(body.version);
                    }
                    Change::VersionPublished(body) => {
                        assert!(bound.insert(body.version.to_string()), "{} was bound twice", body.version);
                        if body.number.is_none() {
                            versions.push(body.version);
                        }
                    }
                    _ => {}
                }
            }
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
            assert_eq!(versions.iter().collect::<BTreeSet<_>>().len(), versions.len(), "{versions:?}");
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
            world.assert_sound().await;
        });
    }
}

#[tokio::test]
async fn what_comes_behind_the_end_of_a_build_begins_nothing_again() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    release(&world.store, &holding(&granted)).await.unwrap();
    heartbeat(&world.store, &holding(&granted), world.now()).await.unwrap();
    assert_eq!(world.granted(request(1, "tree")).await.attempt, 2, "nobody waits for who has given up");
}

#[tokio::test]
async fn a_build_has_the_platforms_with_which_it_was_reserved() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    release(&world.store, &holding(&granted)).await.unwrap();
    let platforms = vec!["linux/amd64".parse().unwrap()];
    let other = Reserve { platform: platforms.first().cloned(), platforms, ..request(1, "tree") };
    let refused = reserve(&world.store, &world.who, other, world.now()).await;
    assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{refused:?}");
}

#[tokio::test]
async fn who_builds_is_a_word_that_can_be_shown() {
    let world = World::new().await;
    let process = |start: &str| Some(Process { host: "here".to_owned(), pid: 7, start: start.to_owned() });
    for wrong in [
        Reserve { holder: "x".repeat(201), ..request(1, "tree") },
        Reserve { holder: "ana\u{1b}[2J".to_owned(), ..request(1, "tree") },
        Reserve { process: process(&"9".repeat(201)), ..request(1, "tree") },
    ] {
        let refused = reserve(&world.store, &world.who, wrong, world.now()).await;
        assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{refused:?}");
    }
    world
        .granted(Reserve { holder: "\u{e4}".repeat(200), process: process("1"), ..request(1, "tree") })
        .await;
}

#[tokio::test]
async fn a_log_is_here_before_it_is_named() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    let digest = world.artefact("tree").await;
    // The bytes lie in the store, but nobody has sent them to this component.
    let elsewhere = world.store.blobs().put(b"of another component").unwrap().digest;
    for log in [Digest::of(b"nowhere"), elsewhere] {
        let failure = Fail { holding: holding(&granted), reason: "x".to_owned(), log: Some(log.clone()) };
        let refused = fail(&world.store, &world.who, failure, world.now()).await;
        assert!(matches!(refused, Err(EngineError::NotFound { .. })), "{refused:?}");
        let result = Commit {
            holding: holding(&granted),
            digest: digest.clone(),
            claims: vec![crate::provenance()],
            log: Some(log),
        };
        let refused = commit(&world.store, &world.who, result, world.now()).await;
        assert!(matches!(refused, Err(EngineError::NotFound { .. })), "{refused:?}");
    }
    world.commit(&granted, &digest).await.unwrap();
    world.assert_sound().await;
}

#[tokio::test]
async fn a_question_about_a_number_that_no_build_has_finds_nothing() {
    let world = World::new().await;
    world.built(1, "tree").await;
    let refused = reserve(
        &world.store,
        &world.who,
        Reserve { number: Some(u64::MAX), ..request(1, "tree") },
        world.now(),
    );
    assert!(matches!(refused.await, Err(EngineError::NotFound { .. })));
    let waited = world.reserve(Reserve { waited_for: Some(u64::MAX), ..request(2, "other") }).await;
    assert!(matches!(waited, Reservation::Yours(_)), "{waited:?}");
}

//! A build for several platforms: one number, one version, a lease for each part, one index.

use semel_engine::error::EngineError;
use semel_engine::remove::{Removed, remove_manifest};
use semel_engine::reserve::{Fail, Finished, Granted, Holding, Reservation, Reserve, fail, reserve};
use semel_model::digest::Digest;
use semel_model::entry::Change;
use semel_model::platform::Platform;
use semel_model::statement::predicate_name;
use semel_oci::manifest::ParsedManifest;
use semel_store::projections::evidence;

use crate::{World, component, request};

fn platform(name: &str) -> Platform {
    name.parse().unwrap()
}

/// Asks for one platform's part of the source tree `tree`.
fn part(name: &str, tree: &str) -> Reserve {
    let platforms = vec![platform("linux/arm64"), platform("linux/amd64")];
    Reserve { platforms, platform: Some(platform(name)), ..request(1, tree) }
}

fn holding(granted: &Granted, name: &str) -> Holding {
    Holding { platform: Some(platform(name)), ..crate::holding(granted) }
}

async fn index(world: &World, digest: &Digest) -> ParsedManifest {
    let bytes = world.store.blobs().read(digest).unwrap();
    ParsedManifest::parse(&bytes, None).unwrap()
}

#[tokio::test]
async fn the_last_part_publishes_the_index_whoever_is_last() {
    let mut indexes = Vec::new();
    for order in [["linux/amd64", "linux/arm64"], ["linux/arm64", "linux/amd64"]] {
        let world = World::new().await;
        let first = world.granted(part(order[0], "tree")).await;
        let second = world.granted(part(order[1], "tree")).await;
        assert_eq!((first.number, second.number), (1, 1), "one reservation");
        assert_eq!((&first.version, second.attempt), (&second.version, 1));
        let digest = world.artefact(order[0]).await;
        let done = world.deliver(holding(&first, order[0]), &digest).await.unwrap();
        let Finished::Part(done) = done.finished else { panic!("one is missing: {done:?}") };
        assert_eq!((&done.digest, done.missing.as_slice()), (&digest, [platform(order[1])].as_slice()));
        assert_eq!(world.count("VersionPublished").await, 0, "a part has no version");
        let again = world.reserve(part(order[0], "tree")).await;
        assert_eq!(again, Reservation::Part(done), "and is not built twice");
        let digest = world.artefact(order[1]).await;
        let done = world.deliver(holding(&second, order[1]), &digest).await.unwrap();
        let Finished::Built(built) = done.finished.clone() else { panic!("it was the last: {done:?}") };
        assert_eq!(
            world.deliver(holding(&second, order[1]), &digest).await.unwrap(),
            done,
            "repeating succeeds"
        );
        assert_eq!(world.reserve(part(order[0], "tree")).await, Reservation::Built(built.clone()));
        let whole = index(&world, &built.digest).await;
        let parts: Vec<_> = whole.manifests.iter().map(|one| one.platform.clone().unwrap()).collect();
        assert_eq!(parts, [platform("linux/arm64").to_oci(), platform("linux/amd64").to_oci()]);
        for digest in whole.manifests.iter().map(|one| &one.digest).chain([&built.digest]) {
            let mut reader = world.store.reader().await.unwrap();
            let about = evidence::about(&mut reader, &component(), digest).await.unwrap();
            let kinds: Vec<_> = about.iter().map(|one| predicate_name(&one.fact.predicate_type)).collect();
            assert_eq!(kinds, ["provenance"], "each part and the whole say how they came about");
        }
        world.assert_sound().await;
        indexes.push(built.digest);
    }
    assert_eq!(indexes[0], indexes[1], "the order of building is not in the bytes");
}

#[tokio::test]
async fn a_part_that_failed_is_built_again_alone() {
    let world = World::new().await;
    let arm = world.granted(part("linux/arm64", "tree")).await;
    let amd = world.granted(part("linux/amd64", "tree")).await;
    world.deliver(holding(&amd, "linux/amd64"), &world.artefact("amd64").await).await.unwrap();
    let failure = Fail { holding: holding(&arm, "linux/arm64"), reason: "no compiler".to_owned(), log: None };
    fail(&world.store, &world.who, failure, world.now()).await.unwrap();
    let waiting = Reserve { waited_for: Some(1), ..part("linux/arm64", "tree") };
    let seen = world.reserve(waiting).await;
    assert!(matches!(&seen, Reservation::Failed(failed) if failed.reason == "no compiler"), "{seen:?}");
    assert!(matches!(world.reserve(part("linux/amd64", "tree")).await, Reservation::Part(_)));
    let second = world.granted(part("linux/arm64", "tree")).await;
    assert_eq!((second.attempt, second.number), (2, 1));
    let done = world.deliver(holding(&second, "linux/arm64"), &world.artefact("arm64").await).await.unwrap();
    assert!(matches!(done.finished, Finished::Built(_)), "{done:?}");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_late_part_is_compared_with_the_part_that_was_committed() {
    let world = World::new().await;
    let zombie = world.granted(part("linux/arm64", "tree")).await;
    world.wait(60);
    let heir = world.granted(part("linux/arm64", "tree")).await;
    let (good, late) = (world.artefact("good").await, world.artefact("late").await);
    let error = world.deliver(holding(&zombie, "linux/arm64"), &late).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
    world.deliver(holding(&heir, "linux/arm64"), &good).await.unwrap();
    let done = world.deliver(holding(&zombie, "linux/arm64"), &late).await.unwrap();
    assert_eq!(done.late.unwrap().reproduced, Some(false));
    let Change::EvidenceAttached(attached) = world.newest("EvidenceAttached").await else { panic!() };
    assert_eq!(attached.digest, good);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_part_is_one_of_the_platforms_of_its_build() {
    let world = World::new().await;
    let of = |names: &[&str], wanted: Option<&str>| Reserve {
        platforms: names.iter().map(|name| platform(name)).collect(),
        platform: wanted.map(platform),
        ..request(1, "tree")
    };
    for wrong in [
        of(&["linux/amd64"], Some("linux/arm64")),
        of(&["linux/amd64"], None),
        of(&[], Some("linux/amd64")),
        of(&["linux/amd64", "linux/amd64"], Some("linux/amd64")),
    ] {
        let error = reserve(&world.store, &world.who, wrong, world.now()).await.unwrap_err();
        assert!(matches!(error, EngineError::Invalid { .. }), "{error:?}");
    }
    assert_eq!(world.count("BuildReserved").await, 0);
}

#[tokio::test]
async fn a_part_whose_bytes_have_gone_is_built_once_more_and_completes_the_whole() {
    for same in [true, false] {
        let world = World::new().await;
        let amd = world.granted(part("linux/amd64", "tree")).await;
        let first = world.artefact("amd64").await;
        world.deliver(holding(&amd, "linux/amd64"), &first).await.unwrap();
        let removed = remove_manifest(&world.store, &world.who, &component(), &first, world.now()).await;
        assert_eq!(removed.unwrap(), Removed::Gone);
        let arm = world.granted(part("linux/arm64", "tree")).await;
        let done = world.deliver(holding(&arm, "linux/arm64"), &world.artefact("arm64").await).await.unwrap();
        let Finished::Part(done) = done.finished else { panic!("one has gone: {done:?}") };
        assert_eq!(done.missing, [platform("linux/amd64")]);
        let again = world.granted(part("linux/amd64", "tree")).await;
        assert_eq!((again.number, again.attempt), (1, 2));
        let second = world.artefact(if same { "amd64" } else { "other bytes" }).await;
        let done = world.deliver(holding(&again, "linux/amd64"), &second).await.unwrap();
        let Finished::Built(built) = done.finished else { panic!("it is whole: {done:?}") };
        assert_eq!(index(&world, &built.digest).await.manifests[1].digest, second);
        world.assert_sound().await;
    }
}

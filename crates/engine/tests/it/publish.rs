//! A version is bound once and for ever; a channel moves and keeps its history.

use semel_engine::error::EngineError;
use semel_engine::publish::{Bind, Bound, bind, remove_channel};
use semel_model::digest::Digest;
use semel_model::entry::{Change, Entry};
use semel_store::projections::artefact as artefacts;

use crate::{World, component, name, request, usual_pipeline};

const HOUR: i64 = 60 * 60;

#[tokio::test]
async fn a_version_is_bound_once_and_binding_it_again_changes_nothing() {
    let world = World::new().await;
    let digest = world.published("1.4.2").await;
    let size = world.size().await;
    for spelling in ["1.4.2", "v1.4.2"] {
        let again = world.bind(spelling, &digest).await.unwrap();
        assert_eq!(again, Bound::Already { name: spelling.parse().unwrap(), digest: digest.clone() });
    }
    assert_eq!(world.size().await, size);
    assert_eq!(world.count("VersionPublished").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn another_digest_is_refused_with_what_is_bound_and_what_is_free() {
    let world = World::new().await;
    let first = world.published("1.4.2").await;
    world.published("1.4.3").await;
    let other = world.artefact("other").await;
    for (tag, free) in [("1.4.2", "1.4.4"), ("v1.4.2", "1.4.4"), ("1.4.3", "1.4.4")] {
        let Bound::Refused(refused) = world.bind(tag, &other).await.unwrap() else { panic!("bound: {tag}") };
        assert_eq!(refused.next_free.as_ref().unwrap().to_string(), free, "{tag}");
        assert_eq!(refused.pushed, other);
        assert!(refused.reason.ends_with("for ever; next free is 1.4.4"), "{}", refused.reason);
    }
    let mut conn = world.store.reader().await.unwrap();
    let bound = artefacts::version(&mut conn, &component(), &"1.4.2".parse().unwrap()).await.unwrap();
    assert_eq!(bound.unwrap().digest, first);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_refused_name_that_is_no_number_has_no_next_one() {
    let world = World::new().await;
    world.published("sha-4f1c2ab").await;
    let other = world.artefact("other").await;
    let Bound::Refused(refused) = world.bind("sha-4f1c2ab", &other).await.unwrap() else { panic!("bound") };
    assert_eq!(refused.next_free, None);
    assert!(refused.reason.ends_with("for ever"), "{}", refused.reason);
}

#[tokio::test]
async fn a_refused_overwrite_is_recorded_once_a_day_for_each_actor_and_digest() {
    let world = World::new().await;
    world.published("1.4.2").await;
    let (one, two) = (world.artefact("one").await, world.artefact("two").await);
    let ben = world.store.local_actor("ben", "test").await.unwrap();
    for _ in 0..5 {
        world.bind("1.4.2", &one).await.unwrap();
    }
    assert_eq!(world.count("OverwriteRefused").await, 1, "a client that tries again");
    world.bind("1.4.2", &two).await.unwrap();
    assert_eq!(world.count("OverwriteRefused").await, 2, "another digest");
    bind(&world.store, &ben, name("1.4.2", &one), world.now()).await.unwrap();
    assert_eq!(world.count("OverwriteRefused").await, 3, "another actor");
    world.wait(24 * HOUR);
    for _ in 0..3 {
        world.bind("1.4.2", &one).await.unwrap();
    }
    assert_eq!(world.count("OverwriteRefused").await, 4, "the next day");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_name_that_must_be_new_is_refused_whatever_it_means_and_nothing_is_recorded() {
    let world = World::new().await;
    let digest = world.published("1.4.2").await;
    let other = world.published("1.4.3").await;
    world.bind("latest", &digest).await.unwrap();
    let size = world.size().await;
    let create = |tag: &str, digest: &Digest| Bind { absent: true, ..name(tag, digest) };
    for (tag, pushed) in [("1.4.2", &digest), ("v1.4.2", &other), ("latest", &digest), ("latest", &other)] {
        let bound = bind(&world.store, &world.who, create(tag, pushed), world.now()).await.unwrap();
        let Bound::Refused(refused) = bound else { panic!("{tag}: {bound:?}") };
        assert_eq!((refused.bound.as_ref(), &refused.pushed), (Some(&digest), pushed), "{tag}");
    }
    assert_eq!(world.size().await, size);
    for tag in ["1.5.0", "edge"] {
        bind(&world.store, &world.who, create(tag, &digest), world.now()).await.unwrap();
    }
    assert_eq!(world.size().await, size + 2);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_channel_moves_and_keeps_its_history() {
    let world = World::new().await;
    let (one, two) = (world.published("1.0.0").await, world.published("1.1.0").await);
    let latest = || "latest".parse().unwrap();
    let moved = |digest: &Digest, from: Option<&Digest>| Bound::Moved {
        channel: latest(),
        digest: digest.clone(),
        from: from.cloned(),
    };
    assert_eq!(world.bind("latest", &one).await.unwrap(), moved(&one, None));
    assert_eq!(world.bind("latest", &two).await.unwrap(), moved(&two, Some(&one)));
    let again = world.bind("latest", &two).await.unwrap();
    assert_eq!(again, Bound::Already { name: latest(), digest: two.clone() });
    assert_eq!(world.bind("latest", &one).await.unwrap(), moved(&one, Some(&two)));
    remove_channel(&world.store, &world.who, &component(), &latest(), world.now()).await.unwrap();
    let error =
        remove_channel(&world.store, &world.who, &component(), &latest(), world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "shop/api has no channel latest");
    let destination = |entry: Entry| match entry.change {
        Change::ChannelMoved(body) => Some(body.to),
        _ => None,
    };
    let moves: Vec<_> = world.entries().await.into_iter().filter_map(destination).collect();
    assert_eq!(moves, [Some(one.clone()), Some(two), Some(one), None]);
    world.assert_sound().await;
}

#[tokio::test]
async fn the_name_of_an_environment_is_no_tag() {
    let world = World::new().await;
    let digest = world.published("1.0.0").await;
    world.apply(&usual_pipeline()).await;
    let size = world.size().await;
    let Bound::Refused(refused) = world.bind("staging", &digest).await.unwrap() else { panic!("bound") };
    assert_eq!(refused.reason, "staging is an environment: its tag is what was last deployed there");
    assert_eq!(world.size().await, size);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_name_that_a_build_has_reserved_is_refused_and_goes_to_the_build() {
    let world = World::new().await;
    let granted = world.granted(request(1, "tree")).await;
    let (pushed, built) = (world.artefact("pushed").await, world.artefact("built").await);
    let Bound::Refused(refused) = world.bind("0.0.1", &pushed).await.unwrap() else { panic!("bound") };
    assert_eq!(refused.reason, "shop/api 0.0.1 is reserved for build 1; next free is 0.0.2");
    assert_eq!(refused.bound, None);
    assert_eq!(world.commit(&granted, &built).await.unwrap().version.to_string(), "0.0.1");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_version_of_another_home_is_refused_unless_it_says_so() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let copy = world.artefact("copy").await;
    let from = |home: &str, tag: &str| Bind { home: Some(home.to_owned()), ..name(tag, &copy) };
    let error = bind(&world.store, &world.who, from("feedbeef", "1.1.0"), world.now()).await.unwrap_err();
    assert!(matches!(error, EngineError::NotAllowed { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "shop/api gets its versions from this store; 1.1.0 comes from store feedbeef"
    );
    let own = world.store.id().to_owned();
    let bound = bind(&world.store, &world.who, from(&own, "1.1.0"), world.now()).await.unwrap();
    assert!(matches!(bound, Bound::Published { .. }), "{bound:?}");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_store_of_copies_takes_versions_of_their_home_and_gives_none_of_its_own() {
    let world = World::new().await;
    let digest = world.artefact("copy").await;
    let copy = |tag: &str, home: Option<&str>| Bind { home: home.map(str::to_owned), ..name(tag, &digest) };
    for tag in ["1.0.0", "1.1.0"] {
        let bound = bind(&world.store, &world.who, copy(tag, Some("feedbeef")), world.now()).await.unwrap();
        assert!(matches!(bound, Bound::Published { .. }), "{tag}: {bound:?}");
    }
    for home in [None, Some("deadbeef")] {
        let error = bind(&world.store, &world.who, copy("1.2.0", home), world.now()).await.unwrap_err();
        assert_eq!(error.to_string(), "shop/api gets its versions from store feedbeef, not from here");
        assert!(error.hint().unwrap().starts_with("publish it there"), "{:?}", error.hint());
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn a_manifest_that_is_not_stored_cannot_be_named() {
    let world = World::new().await;
    let error = world.bind("1.0.0", &Digest::of(b"nothing")).await.unwrap_err();
    assert!(error.to_string().contains("has no manifest"), "{error}");
    assert_eq!(world.count("ComponentCreated").await, 0, "and no component comes of it");
}

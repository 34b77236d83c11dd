//! A draft holds a name; publishing it uses the name up, and forgetting about it does not.

use semel_engine::draft::{Drafted, OpenDraft, PublishDraft, list, open, publish};
use semel_engine::error::EngineError;
use semel_engine::publish::Bound;
use semel_model::digest::Digest;

use crate::{World, component};

const HOUR: i64 = 60 * 60;

async fn held(world: &World, tag: &str, digest: &Digest, term: Option<&str>) -> Result<Drafted, EngineError> {
    let (tag, term) = (tag.parse().unwrap(), term.map(|text| text.parse().unwrap()));
    let request = OpenDraft { component: component(), tag, digest: digest.clone(), term };
    open(&world.store, &world.who, request, world.now()).await
}

async fn published(world: &World, tag: &str) -> Result<Bound, EngineError> {
    let request = PublishDraft { component: component(), tag: tag.parse().unwrap(), commit: None };
    publish(&world.store, &world.who, request, world.now()).await
}

/// The open drafts of the component, by name.
async fn names(world: &World) -> Vec<String> {
    let drafts = list(&world.store, &component(), world.now()).await.unwrap();
    drafts.iter().map(|draft| draft.version.to_string()).collect()
}

#[tokio::test]
async fn a_draft_becomes_a_version_once() {
    let world = World::new().await;
    let digest = world.artefact("one").await;
    for _ in 0..2 {
        assert!(matches!(held(&world, "1.5.0", &digest, None).await.unwrap(), Drafted::Open { .. }));
    }
    assert_eq!(names(&world).await, ["1.5.0"]);
    assert_eq!(world.count("VersionPublished").await, 0, "a draft is no version");
    assert!(matches!(published(&world, "1.5.0").await.unwrap(), Bound::Published { .. }));
    assert!(matches!(published(&world, "1.5.0").await.unwrap(), Bound::Already { .. }));
    assert_eq!(names(&world).await, Vec::<String>::new());
    assert_eq!(world.count("VersionPublished").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_name_that_is_held_or_given_is_refused_to_other_bytes() {
    let world = World::new().await;
    let (one, two) = (world.artefact("one").await, world.artefact("two").await);
    world.published("1.4.2").await;
    held(&world, "1.5.0", &one, None).await.unwrap();
    for (tag, free) in [("1.5.0", "1.5.1"), ("1.4.2", "1.4.3")] {
        let Drafted::Refused(refused) = held(&world, tag, &two, None).await.unwrap() else {
            panic!("held: {tag}")
        };
        assert_eq!(refused.next_free.unwrap().to_string(), free, "{tag}");
    }
    let Bound::Refused(refused) = world.bind("1.5.0", &two).await.unwrap() else { panic!("bound") };
    assert!(refused.reason.contains("is the draft of other bytes"), "{}", refused.reason);
    assert!(matches!(world.bind("1.5.0", &one).await.unwrap(), Bound::Published { .. }), "its own bytes");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_draft_that_is_over_frees_its_name_and_burns_nothing() {
    let world = World::new().await;
    let (one, two) = (world.artefact("one").await, world.artefact("two").await);
    held(&world, "1.5.0", &one, Some("2h")).await.unwrap();
    world.wait(HOUR);
    assert_eq!(names(&world).await, ["1.5.0"]);
    held(&world, "1.5.0", &one, Some("2h")).await.unwrap();
    world.wait(HOUR + HOUR / 2);
    assert_eq!(names(&world).await, ["1.5.0"], "the same again gave it more time");
    world.wait(HOUR);
    assert_eq!(names(&world).await, Vec::<String>::new());
    let error = published(&world, "1.5.0").await.unwrap_err();
    assert_eq!(error.to_string(), "shop/api has no draft 1.5.0");
    held(&world, "1.5.0", &two, None).await.unwrap();
    assert!(
        matches!(published(&world, "1.5.0").await.unwrap(), Bound::Published { digest, .. } if digest == two)
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn only_a_stored_manifest_under_a_version_is_drafted() {
    let world = World::new().await;
    let digest = world.artefact("one").await;
    let error = held(&world, "latest", &digest, None).await.unwrap_err();
    assert!(error.to_string().contains("is a channel"), "{error}");
    let error = held(&world, "1.5.0", &Digest::of(b"nothing"), None).await.unwrap_err();
    assert!(error.to_string().contains("has no manifest"), "{error}");
}

#[tokio::test]
async fn a_draft_with_damaged_bytes_is_not_published() {
    let world = World::new().await;
    let layer = Digest::of(b"one");
    let digest = world.artefact("one").await;
    held(&world, "1.5.0", &digest, None).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test damages the store on purpose")]
    std::fs::write(world.store.blobs().path(&layer), b"0ne").unwrap();
    world.store.blobs().quarantine(&layer).unwrap().unwrap();
    let error = published(&world, "1.5.0").await.unwrap_err();
    assert!(error.to_string().contains(layer.as_str()), "{error}");
    assert_eq!(names(&world).await, ["1.5.0"], "its name is held as before");
    world.upload(b"one").await;
    assert!(matches!(published(&world, "1.5.0").await.unwrap(), Bound::Published { .. }));
}

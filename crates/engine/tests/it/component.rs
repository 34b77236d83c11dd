//! Components and their rules: how tags are read is chosen once, patterns and terms may change.

use semel_engine::component::{ChangeComponent, CreateComponent, Ruled, change, create, list, show};
use semel_engine::error::EngineError;
use semel_engine::publish::Bound;
use semel_model::version::TagPolicy;
use semel_store::projections::artefact as artefacts;

use crate::{World, component};

fn creation(policy: TagPolicy, patterns: &[&str], keep: Option<&str>) -> CreateComponent {
    let patterns: Vec<_> = patterns.iter().map(|text| text.parse().unwrap()).collect();
    CreateComponent {
        component: component(),
        policy,
        patterns: Some(patterns).filter(|some| !some.is_empty()),
        keep: keep.map(|text| text.parse().unwrap()),
        scheme: None,
    }
}

async fn created(world: &World, request: CreateComponent) -> Result<Ruled, EngineError> {
    create(&world.store, &world.who, request, world.now()).await
}

async fn patterned(world: &World, patterns: &[&str]) -> Result<Ruled, EngineError> {
    let patterns = Some(patterns.iter().map(|text| text.parse().unwrap()).collect());
    let request = ChangeComponent { component: component(), patterns, keep: None, scheme: None };
    change(&world.store, &world.who, request, world.now()).await
}

/// What binding a name to some artefact makes of it.
async fn kind(world: &World, tag: &str) -> &'static str {
    let digest = world.artefact(tag).await;
    match world.bind(tag, &digest).await.unwrap() {
        Bound::Published { .. } => "version",
        Bound::Moved { .. } => "channel",
        Bound::Already { .. } => "already",
        Bound::Refused(_) => "refused",
    }
}

#[tokio::test]
async fn a_policy_says_what_a_tag_is() {
    let cases = [
        (TagPolicy::Release, [("1.4.2", "version"), ("latest", "channel"), ("20240101", "channel")]),
        (TagPolicy::Strict, [("1.4.2", "version"), ("latest", "version"), ("20240101", "version")]),
        (TagPolicy::Mirror, [("1.4.2", "channel"), ("latest", "channel"), ("20240101", "channel")]),
    ];
    for (policy, tags) in cases {
        let world = World::new().await;
        assert!(!created(&world, creation(policy, &[], None)).await.unwrap().already);
        for (tag, expected) in tags {
            assert_eq!(kind(&world, tag).await, expected, "{policy} {tag}");
        }
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn creating_a_component_again_changes_nothing_and_another_policy_is_refused() {
    let world = World::new().await;
    let request = || creation(TagPolicy::Release, &["build-#"], Some("trunk=30d"));
    let first = created(&world, request()).await.unwrap();
    assert_eq!(first.component.keep.to_string(), "promoted=for ever, trunk=30d, branch=14d");
    let size = world.size().await;
    let again = created(&world, request()).await.unwrap();
    assert_eq!((again.already, &again.component), (true, &first.component));
    let cases = [
        (creation(TagPolicy::Mirror, &["build-#"], Some("trunk=30d")), "what a name is does not change"),
        (creation(TagPolicy::Release, &["rel-*"], None), "is there already, with other rules"),
        (creation(TagPolicy::Release, &[], Some("trunk=1d")), "is there already, with other rules"),
    ];
    for (request, says) in cases {
        let error = created(&world, request).await.unwrap_err();
        assert!(matches!(error, EngineError::Conflict { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(world.size().await, size, "what is refused records nothing");
    assert_eq!(list(&world.store).await.unwrap(), std::slice::from_ref(&first.component));
    assert_eq!(show(&world.store, &component()).await.unwrap(), first.component);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_pattern_applies_to_names_that_are_not_given_yet() {
    let world = World::new().await;
    assert_eq!(kind(&world, "build-1").await, "channel");
    assert!(!patterned(&world, &["build-#"]).await.unwrap().already);
    assert!(patterned(&world, &["build-#", "build-#"]).await.unwrap().already, "each pattern counts once");
    assert_eq!(kind(&world, "build-2").await, "version");
    let moved = world.artefact("moved").await;
    assert!(
        matches!(world.bind("build-1", &moved).await.unwrap(), Bound::Moved { .. }),
        "it stays a channel"
    );
    assert!(matches!(world.bind("build-2", &moved).await.unwrap(), Bound::Refused(_)));
    patterned(&world, &[]).await.unwrap();
    assert!(matches!(world.bind("build-2", &moved).await.unwrap(), Bound::Refused(_)), "it stays a version");
    assert_eq!(kind(&world, "build-3").await, "channel");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_channel_that_was_removed_does_not_become_a_version() {
    let world = World::new().await;
    assert_eq!(kind(&world, "build-1").await, "channel");
    let tag = "build-1".parse().unwrap();
    let (store, who) = (&world.store, &world.who);
    semel_engine::publish::remove_channel(store, who, &component(), &tag, world.now()).await.unwrap();
    patterned(&world, &["build-#"]).await.unwrap();
    let digest = world.artefact("build-1").await;
    assert!(matches!(world.bind("build-1", &digest).await.unwrap(), Bound::Moved { .. }));
    let mut conn = world.store.reader().await.unwrap();
    let moves = artefacts::channel_moves(&mut conn, &component(), &tag, 10).await.unwrap();
    assert_eq!(moves.len(), 3, "its history goes on");
}

#[tokio::test]
async fn patterns_are_for_the_policy_under_which_they_say_something() {
    for policy in [TagPolicy::Strict, TagPolicy::Mirror] {
        let world = World::new().await;
        let error = created(&world, creation(policy, &["build-#"], None)).await.unwrap_err();
        assert!(error.to_string().contains(&format!("policy {policy}")), "{error}");
        assert_eq!(world.count("ComponentCreated").await, 0, "nothing is half done");
        created(&world, creation(policy, &[], None)).await.unwrap();
        patterned(&world, &["build-#"]).await.unwrap_err();
    }
    let world = World::new().await;
    let error = patterned(&world, &["build-#"]).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no component shop/api in this store");
}

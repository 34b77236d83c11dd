//! The words that say no, and their undo: each may be repeated.

use semel_engine::error::EngineError;
use semel_engine::hold::{Held, Hold, hold};
use semel_engine::reject::{Judge, Judged, judge};

use crate::{World, component, environment, failed, start};

async fn ask(world: &World, reason: Option<&str>) -> Result<Held, EngineError> {
    let request =
        Hold { component: component(), environment: environment("dev"), reason: reason.map(str::to_owned) };
    hold(&world.store, &world.who, request, world.now()).await
}

async fn judged(world: &World, place: Option<&str>, reason: Option<&str>) -> Result<Judged, EngineError> {
    let request = Judge {
        component: component(),
        version: "1.0.0".to_owned(),
        environment: place.map(environment),
        reason: reason.map(str::to_owned),
        pulls: false,
    };
    judge(&world.store, &world.who, request, world.now()).await
}

async fn with_a_version() -> World {
    let world = World::with_pipeline().await;
    world.published("1.0.0").await;
    world
}

#[tokio::test]
async fn a_hold_and_its_release_may_be_repeated() {
    let world = with_a_version().await;
    let reason = |text: &str| Some(text.to_owned());
    for (asked, expected, records) in [
        (None, Held { held: false, already: true, reason: None }, 0),
        (Some(" freeze "), Held { held: true, already: false, reason: reason("freeze") }, 1),
        (Some("another"), Held { held: true, already: true, reason: reason("freeze") }, 0),
        (None, Held { held: false, already: false, reason: reason("freeze") }, 1),
        (None, Held { held: false, already: true, reason: None }, 0),
        (Some("again"), Held { held: true, already: false, reason: reason("again") }, 1),
    ] {
        let size = world.size().await;
        assert_eq!(ask(&world, asked).await.unwrap(), expected, "{asked:?}");
        assert_eq!(world.size().await, size + records, "{asked:?}");
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn a_mistyped_environment_is_neither_held_nor_resumed_nor_rejected_for() {
    let world = with_a_version().await;
    let size = world.size().await;
    let request = |reason: Option<&str>| Hold {
        component: component(),
        environment: environment("prodution"),
        reason: reason.map(str::to_owned),
    };
    for error in [
        hold(&world.store, &world.who, request(Some("freeze")), world.now()).await.unwrap_err(),
        hold(&world.store, &world.who, request(None), world.now()).await.unwrap_err(),
        judged(&world, Some("prodution"), Some("loses orders")).await.unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("shop/api has no environment prodution"), "{error}");
        assert_eq!(error.hint(), Some("did you mean production?"));
    }
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn a_hold_can_be_released_after_its_environment_left_the_pipeline() {
    let world = with_a_version().await;
    ask(&world, Some("freeze")).await.unwrap();
    world.apply(&serde_json::json!({"staging": {}})).await;
    assert_eq!(ask(&world, None).await.unwrap().reason.as_deref(), Some("freeze"));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_no_needs_a_reason() {
    let world = with_a_version().await;
    let size = world.size().await;
    assert_eq!(ask(&world, Some("  ")).await.unwrap_err().to_string(), "a hold needs a reason");
    let error = judged(&world, None, Some("")).await.unwrap_err();
    assert_eq!(error.to_string(), "a rejection needs a reason");
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn a_rejection_and_its_undo_may_be_repeated() {
    let world = with_a_version().await;
    for (place, reason, words) in [
        (None, None, vec![]),
        (None, Some("loses orders"), vec!["shop/api 1.0.0 may no longer be promoted anywhere"]),
        (None, Some("again"), vec![]),
        (Some("dev"), Some("slow"), vec!["shop/api 1.0.0 may no longer be promoted to dev"]),
        (Some("dev"), None, vec!["shop/api 1.0.0 is accepted again for dev (it was rejected: slow)"]),
        (Some("dev"), None, vec![]),
        (None, None, vec!["shop/api 1.0.0 is accepted again everywhere (it was rejected: loses orders)"]),
        (None, None, vec![]),
    ] {
        let size = world.size().await;
        let judged = judged(&world, place, reason).await.unwrap();
        assert_eq!(judged.changed, words, "{place:?} {reason:?}");
        assert_eq!(world.size().await, size + words.len() as u64, "{place:?} {reason:?}");
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn a_rejection_for_one_environment_leaves_the_others_alone() {
    let world = with_a_version().await;
    judged(&world, Some("staging"), Some("slow")).await.unwrap();
    assert!(world.promote("1.0.0", "dev").await.decision.is_granted());
    let refused = world.promote("1.0.0", "staging").await.decision;
    assert!(refused.closed().any(|gate| gate.reason == "rejected: slow"));
}

#[tokio::test]
async fn accepting_lifts_also_what_a_failed_deployment_rejected() {
    let world = with_a_version().await;
    let order = world.order(start("1.0.0", "dev")).await;
    world.finish(&order, failed("crashed")).await;
    assert!(ask(&world, None).await.unwrap().reason.is_some());
    let words = judged(&world, Some("dev"), None).await.unwrap().changed;
    assert_eq!(words, ["shop/api 1.0.0 is accepted again for dev (it was rejected: failed in dev: crashed)"]);
    assert_eq!(world.order(start("1.0.0", "dev")).await.generation, 2);
    world.assert_sound().await;
}

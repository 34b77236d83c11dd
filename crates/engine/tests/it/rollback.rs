//! Back to what succeeded here before and was not rejected.

use semel_engine::deploy::Start;
use semel_engine::error::EngineError;
use semel_engine::reject::{Judge, judge};
use semel_engine::rollback::{Candidate, candidate};
use semel_model::name::EnvironmentName;

use crate::{World, component, environment, failed, start, start_with, succeeded};

const OPEN: &str = r#"{"LOG_LEVEL":{"required":false,"type":"string"}}"#;

async fn world_with(versions: &[&str]) -> World {
    let world = World::with_pipeline().await;
    for version in versions {
        let digest = world.artefact_with(version, Some(OPEN)).await;
        world.bind(version, &digest).await.unwrap();
    }
    world
}

fn dev() -> EnvironmentName {
    environment("dev")
}

async fn back(world: &World, to: Option<&str>) -> Result<Candidate, EngineError> {
    let word = to.map(|text| text.parse().unwrap());
    candidate(&world.store, &component(), &dev(), word.as_ref(), world.now()).await
}

async fn resume(world: &World) {
    let request = semel_engine::hold::Hold { component: component(), environment: dev(), reason: None };
    semel_engine::hold::hold(&world.store, &world.who, request, world.now()).await.unwrap();
}

/// Rolls back and gives the generation that was gone to.
async fn rolled_back(world: &World) -> u64 {
    let found = back(world, None).await.unwrap();
    let version = found.to.digest.to_string();
    let order =
        world.order(Start { rollback_of: Some(found.from_generation), ..start(&version, "dev") }).await;
    world.finish(&order, succeeded()).await;
    resume(world).await;
    found.to_generation
}

#[tokio::test]
async fn it_goes_to_the_newest_earlier_success_with_another_key() {
    let world = world_with(&["1.0.0", "1.1.0"]).await;
    world.deployed("1.0.0", "dev").await;
    let loud = world.order(start_with("1.0.0", "dev", &[("LOG_LEVEL", "debug")])).await;
    world.finish(&loud, succeeded()).await;
    world.deployed("1.1.0", "dev").await;
    let found = back(&world, None).await.unwrap();
    assert_eq!((found.from_generation, found.to_generation), (3, 2));
    assert_eq!(found.from.version, Some("1.1.0".parse().unwrap()));
    assert_eq!(found.to.version, Some("1.0.0".parse().unwrap()));
    assert_eq!(found.snapshot.digest(), loud.config, "with the values that it ran with");
    assert!(found.contract.0.contains_key(&"LOG_LEVEL".parse().unwrap()));
    assert!(found.passed_over.is_empty());
    world.assert_sound().await;
}

#[tokio::test]
async fn what_failed_is_never_gone_back_to() {
    let world = world_with(&["1.0.0", "1.1.0", "1.2.0"]).await;
    world.deployed("1.0.0", "dev").await;
    let order = world.order(start("1.1.0", "dev")).await;
    world.finish(&order, failed("crashed")).await;
    resume(&world).await;
    world.deployed("1.2.0", "dev").await;
    assert_eq!(back(&world, None).await.unwrap().to_generation, 1);
    let error = back(&world, Some("1.1.0")).await.unwrap_err();
    assert_eq!(error.to_string(), "shop/api 1.1.0 never succeeded in dev before");
    world.assert_sound().await;
}

#[tokio::test]
async fn what_was_rejected_is_passed_over_with_its_reason() {
    let world = world_with(&["1.0.0", "1.1.0", "1.2.0"]).await;
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.deployed(version, "dev").await;
    }
    let rejection = Judge {
        component: component(),
        version: "1.1.0".to_owned(),
        environment: None,
        reason: Some("loses orders".to_owned()),
        pulls: false,
    };
    judge(&world.store, &world.who, rejection, world.now()).await.unwrap();
    let found = back(&world, None).await.unwrap();
    assert_eq!(found.to_generation, 1);
    assert_eq!(found.passed_over, ["generation 2: rejected: loses orders"]);
    let error = back(&world, Some("1.1.0")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "shop/api 1.1.0 never succeeded in dev before (generation 2: rejected: loses orders)"
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn what_was_rolled_back_from_is_passed_over_and_can_be_named() {
    let world = world_with(&["1.0.0", "1.1.0", "1.2.0"]).await;
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.deployed(version, "dev").await;
    }
    assert_eq!(rolled_back(&world).await, 2);
    assert_eq!(rolled_back(&world).await, 1, "a second rollback goes further back");
    let error = back(&world, None).await.unwrap_err();
    assert!(matches!(error, EngineError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().starts_with("nothing else ever succeeded in dev"), "{error}");
    assert!(error.to_string().contains("generation 3: it was rolled back"), "{error}");
    assert_eq!(back(&world, Some("1.2.0")).await.unwrap().to_generation, 3);
    world.assert_sound().await;
}

#[tokio::test]
async fn what_succeeded_again_after_a_rollback_is_as_good_as_new() {
    let world = world_with(&["1.0.0", "1.1.0", "1.2.0"]).await;
    world.deployed("1.0.0", "dev").await;
    world.deployed("1.1.0", "dev").await;
    assert_eq!(rolled_back(&world).await, 1);
    world.deployed("1.1.0", "dev").await;
    world.deployed("1.2.0", "dev").await;
    assert_eq!(back(&world, None).await.unwrap().to_generation, 4);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_version_can_be_named_but_not_the_one_that_runs() {
    let world = world_with(&["1.0.0", "1.1.0", "1.2.0"]).await;
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.deployed(version, "dev").await;
    }
    for (word, generation) in [("1.0.0", 1), ("1.1.0", 2), ("dev~2", 1)] {
        assert_eq!(back(&world, Some(word)).await.unwrap().to_generation, generation, "{word}");
    }
    let error = back(&world, Some("1.2.0")).await.unwrap_err();
    assert_eq!(error.to_string(), "shop/api 1.2.0 never succeeded in dev before");
    assert_eq!(error.hint(), Some("semel history dev -c shop/api"));
}

#[tokio::test]
async fn without_anything_to_go_back_to_it_says_so() {
    let world = world_with(&["1.0.0"]).await;
    let error = back(&world, None).await.unwrap_err();
    assert_eq!(error.to_string(), "nothing of shop/api ever ran in dev");
    let order = world.deployed("1.0.0", "dev").await;
    assert!(world.order(start("1.0.0", "dev")).await.current);
    let error = back(&world, None).await.unwrap_err();
    assert_eq!(error.to_string(), "nothing else ever succeeded in dev");
    assert_eq!(order.generation, 1);
}

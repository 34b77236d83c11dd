//! What a target reports: news is recorded, silence is unknown.

use semel_engine::look::status::{StatusLine, status};
use semel_engine::observe::{Observation, Seen, TIME_TO_LIVE_MILLIS, observe};
use semel_model::deployment::{Drift, HealthState, Observed, RunState};
use semel_model::digest::Digest;
use semel_model::entry::Change;

use crate::{World, component, environment, running, start};

async fn deployed() -> (World, Observed) {
    let world = World::with_pipeline().await;
    world.published("1.0.0").await;
    let order = world.deployed("1.0.0", "dev").await;
    (world, running(&order))
}

async fn report(world: &World, observed: &Observed) -> Seen {
    let report =
        Observation { component: component(), environment: environment("dev"), observed: observed.clone() };
    observe(&world.store, &world.who, report, world.now()).await.unwrap()
}

async fn line(world: &World) -> StatusLine {
    status(&world.store, Some(&component()), world.now()).await.unwrap().swap_remove(0)
}

#[tokio::test]
async fn a_report_without_news_records_nothing_and_is_remembered() {
    let (world, observed) = deployed().await;
    let before = line(&world).await.observed_at;
    let size = world.size().await;
    world.wait(60);
    assert_eq!(report(&world, &observed).await, Seen { changed: false, drift: Vec::new() });
    assert_eq!(world.size().await, size);
    assert!(line(&world).await.observed_at > before);
    world.assert_sound().await;
}

#[tokio::test]
async fn every_way_of_drifting_is_recorded_once_with_its_name() {
    for expected in [Drift::Stopped, Drift::Unhealthy, Drift::WrongArtefact, Drift::ConfigDrift] {
        let (world, well) = deployed().await;
        let other = Some(Digest::of(b"something else"));
        let observed = match expected {
            Drift::Stopped => Observed { state: RunState::Stopped, ..well },
            Drift::Unhealthy => Observed { health: HealthState::Unhealthy, ..well },
            Drift::WrongArtefact => Observed { artefact: other, ..well },
            _ => Observed { config: other, ..well },
        };
        assert_eq!(report(&world, &observed).await, Seen { changed: true, drift: vec![expected] });
        assert_eq!(report(&world, &observed).await, Seen { changed: false, drift: vec![expected] });
        assert_eq!(world.count("DriftDetected").await, 1);
        let Change::DriftDetected(body) = world.newest("DriftDetected").await else { panic!("kind") };
        assert_eq!((body.generation, body.drift), (1, vec![expected]));
        assert_eq!(line(&world).await.drift, [expected]);
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn what_is_well_again_is_news_and_no_drift() {
    let (world, observed) = deployed().await;
    report(&world, &Observed { state: RunState::Stopped, ..observed.clone() }).await;
    assert_eq!(report(&world, &observed).await, Seen { changed: true, drift: Vec::new() });
    assert_eq!(world.count("DriftDetected").await, 1);
    assert!(line(&world).await.drift.is_empty());
}

#[tokio::test]
async fn a_report_from_where_nothing_was_deployed_is_recorded_without_drift() {
    let world = World::with_pipeline().await;
    assert_eq!(report(&world, &Observed::absent()).await, Seen { changed: true, drift: Vec::new() });
    let line = line(&world).await;
    assert_eq!((&line.observed, &line.running), (&Some(Observed::absent()), &None));
    assert!(line.drift.is_empty());
}

#[tokio::test]
async fn silence_becomes_unknown_and_never_healthy() {
    let (world, observed) = deployed().await;
    report(&world, &observed).await;
    world.wait(TIME_TO_LIVE_MILLIS / 1_000 - 2);
    let fresh = line(&world).await;
    assert!(fresh.drift.is_empty() && !fresh.is_exception());
    world.wait(4);
    let silent = line(&world).await;
    assert_eq!(silent.drift, [Drift::Stale]);
    assert!(silent.is_exception());
    assert_eq!(silent.observed, Some(observed.clone()), "what was seen last is still told");
    report(&world, &observed).await;
    assert!(line(&world).await.drift.is_empty(), "a report ends the silence");
    world.assert_sound().await;
}

#[tokio::test]
async fn while_a_deployment_has_no_outcome_the_one_before_it_is_wanted() {
    let (world, observed) = deployed().await;
    world.published("1.1.0").await;
    world.order(start("1.1.0", "dev")).await;
    assert!(report(&world, &observed).await.drift.is_empty());
    let line = line(&world).await;
    assert_eq!(line.trouble.as_deref(), Some("deploying 1.1.0 (generation 2)"));
    assert_eq!(line.generation, Some(1));
}

//! An intent before the effect, an outcome after it.

use proptest::prelude::*;
use semel_engine::deploy::{
    Config, Finish, Outcome, Start, Started, SwitchedOn, finish, plan, start as begin,
};
use semel_engine::error::EngineError;
use semel_model::config::Problem;
use semel_model::deployment::Observed;
use semel_model::digest::Digest;
use semel_model::entry::{Change, FailedOutcome, RejectedThing};
use semel_store::projections::deployment::{self as deployments, DeploymentState};

use crate::{CONTRACT, World, component, environment, errored, failed, running, snapshot, start, start_with};
use crate::{promotion, succeeded, time, usual_pipeline};

const SECRET: &str = "postgres://shop:hunter2@db/shop";

async fn state(world: &World, place: &str, generation: u64) -> DeploymentState {
    let mut conn = world.store.reader().await.unwrap();
    deployments::get(&mut conn, &component(), &environment(place), generation).await.unwrap().unwrap().state
}

async fn is_held(world: &World, place: &str) -> Option<String> {
    let mut conn = world.store.reader().await.unwrap();
    let hold = deployments::hold(&mut conn, &component(), &environment(place)).await.unwrap();
    hold.map(|hold| hold.reason)
}

async fn resume(world: &World, place: &str) {
    let request =
        semel_engine::hold::Hold { component: component(), environment: environment(place), reason: None };
    semel_engine::hold::hold(&world.store, &world.who, request, world.now()).await.unwrap();
}

/// A world with artefacts 1.0.0 to 1.2.0 without a contract, and dev open to all of them.
async fn with_versions() -> World {
    let world = World::with_pipeline().await;
    for version in ["1.0.0", "1.1.0", "1.2.0"] {
        world.published(version).await;
    }
    world
}

/// A world with 1.0.0, whose contract asks for a secret and a level, and 1.1.0, which takes any level.
async fn with_contract() -> World {
    let world = World::with_pipeline().await;
    let digest = world.artefact_with("with a contract", Some(CONTRACT)).await;
    world.bind("1.0.0", &digest).await.unwrap();
    let level = r#"{"LOG_LEVEL":{"required":false,"type":"string"}}"#;
    let digest = world.artefact_with("with a level", Some(level)).await;
    world.bind("1.1.0", &digest).await.unwrap();
    world
}

#[tokio::test]
async fn without_a_promotion_nothing_is_started_and_the_decision_is_kept() {
    let world = with_versions().await;
    for place in ["staging", "production"] {
        let Started::Refused(refusal) = world.start(start("1.0.0", place)).await else { panic!("{place}") };
        let decision = refusal.decision.unwrap();
        assert!(!decision.is_granted());
        assert_eq!(refusal.reasons.len(), decision.closed().count());
        assert!(refusal.remedies.iter().any(|remedy| remedy.starts_with("semel deploy shop/api@1.0.0")));
        let Change::PromotionRefused(body) = world.newest("PromotionRefused").await else { panic!("kind") };
        assert_eq!(body.decision, decision.digest());
        assert!(world.store.blobs().contains(&body.decision));
    }
    assert_eq!(world.count("DeploymentRefused").await, 2);
    assert_eq!(world.count("DeploymentStarted").await, 0);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_promotion_under_another_policy_starts_nothing() {
    let world = with_versions().await;
    world.deployed("1.0.0", "dev").await;
    world.attest("1.0.0", "junit-like", "pass").await;
    let mut pipeline = usual_pipeline();
    pipeline["staging"]["gates"] = serde_json::json!([{"evidence": "junit-like"}]);
    world.apply(&pipeline).await;
    assert!(world.promote("1.0.0", "staging").await.decision.is_granted());
    pipeline["staging"]["gates"] = serde_json::json!([{"evidence": "load-test"}]);
    world.apply(&pipeline).await;
    let (reasons, remedies) = world.refusal(start("1.0.0", "staging")).await;
    assert_eq!(reasons, ["load-test=pass: no evidence of type load-test"]);
    assert_eq!(remedies, ["semel attest shop/api@1.0.0 --type load-test --result pass"]);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_deployment_asks_for_the_promotion_that_it_needs() {
    let world = with_versions().await;
    let order = world.order(start("1.0.0", "dev")).await;
    assert!(order.promoted);
    assert_eq!((order.generation, order.current), (1, false));
    assert_eq!(world.count("PromotionGranted").await, 1);
    let Change::DeploymentStarted(body) = world.newest("DeploymentStarted").await else { panic!("kind") };
    assert_eq!((&body.key, &body.decision, &body.config), (&order.key, &order.decision, &order.config));
    assert_eq!(body.digest, order.artefact.digest);
    world.assert_sound().await;
}

#[tokio::test]
async fn problems_of_the_configuration_are_all_listed_and_no_value_is_kept() {
    let world = with_contract().await;
    let values = [("LOG_LEVEL", "hunter2"), ("PORT", "hunter2"), ("LOGLEVEL", "hunter2")];
    let (reasons, remedies) = world.refusal(start_with("1.0.0", "dev", &values)).await;
    assert_eq!(
        reasons,
        [
            "DATABASE_URL is missing (url, required)",
            "LOG_LEVEL is none of debug, info",
            "PORT is not a port (1 to 65535)",
            "LOGLEVEL is not in the contract of this version (did you mean LOG_LEVEL?)",
        ]
    );
    assert_eq!(remedies[0], "semel config set dev DATABASE_URL -c shop/api");
    let Change::DeploymentRefused(body) = world.newest("DeploymentRefused").await else { panic!("kind") };
    assert_eq!(body.reasons, reasons);
    assert_eq!(world.count("DeploymentStarted").await, 0);
    assert_nowhere(&world, "hunter2").await;
    world.assert_sound().await;
}

#[tokio::test]
async fn what_was_found_wrong_where_the_secrets_are_is_recorded() {
    let world = with_contract().await;
    let problem = Problem {
        key: "DATABASE_URL".parse().unwrap(),
        what: "is not a URL (scheme://…)".to_owned(),
        remedy: "semel config set dev DATABASE_URL".to_owned(),
    };
    let request = Start { config: Config::Problems(vec![problem]), ..start("1.0.0", "dev") };
    let (reasons, remedies) = world.refusal(request).await;
    assert_eq!(reasons, ["DATABASE_URL is not a URL (scheme://…)"]);
    assert_eq!(remedies, ["semel config set dev DATABASE_URL -c shop/api"]);
    assert_eq!(world.count("DeploymentRefused").await, 1);
}

#[tokio::test]
async fn a_secret_that_comes_as_a_plain_value_is_refused_and_not_kept() {
    let world = with_contract().await;
    let values = [("LOG_LEVEL", "info"), ("DATABASE_URL", SECRET)];
    let (reasons, _) = world.refusal(start_with("1.0.0", "dev", &values)).await;
    assert_eq!(reasons, ["DATABASE_URL is a secret and came as a plain value"]);
    assert_nowhere(&world, "hunter2").await;
    let sealed = snapshot("dev", &[("LOG_LEVEL", "info"), ("PORT", "80")], &[("DATABASE_URL", "0badc0de")]);
    let order = world.order(Start { config: Config::Snapshot(sealed), ..start("1.0.0", "dev") }).await;
    assert!(world.store.blobs().contains(&order.config));
    world.assert_sound().await;
}

/// No entry, no row of the database and no blob holds a text.
async fn assert_nowhere(world: &World, text: &str) {
    for entry in world.entries().await {
        assert!(!format!("{entry:?}").contains(text), "{entry:?}");
    }
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for digest in world.store.blobs().list().unwrap() {
        assert!(!holds(&world.store.blobs().read(&digest).unwrap()), "{digest}");
    }
    for file in ["semel.db", "semel.db-wal"] {
        let bytes = std::fs::read(world.store.dir().join(file)).unwrap_or_default();
        assert!(!holds(&bytes), "{file}");
    }
}

#[tokio::test]
async fn a_held_environment_starts_nothing_until_it_is_resumed() {
    let world = with_versions().await;
    let request = semel_engine::hold::Hold {
        component: component(),
        environment: environment("dev"),
        reason: Some("freeze".to_owned()),
    };
    semel_engine::hold::hold(&world.store, &world.who, request, world.now()).await.unwrap();
    let (reasons, remedies) = world.refusal(start("1.0.0", "dev")).await;
    assert!(reasons[0].starts_with("dev is held since ") && reasons[0].ends_with(": freeze"), "{reasons:?}");
    assert_eq!(remedies, ["semel resume dev -c shop/api"]);
    assert_eq!(world.count("DeploymentStarted").await, 0);
    resume(&world, "dev").await;
    assert_eq!(world.order(start("1.0.0", "dev")).await.generation, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_repeat_goes_on_with_the_same_generation() {
    let world = with_versions().await;
    let first = world.order(start("1.0.0", "dev")).await;
    let size = world.size().await;
    let again = world.order(start("1.0.0", "dev")).await;
    assert_eq!((again.generation, &again.key, again.current), (1, &first.key, false));
    assert_eq!(world.size().await, size);
    world.assert_sound().await;
}

#[tokio::test]
async fn another_deployment_settles_the_one_that_was_broken_off() {
    let world = with_versions().await;
    world.order(start("1.0.0", "dev")).await;
    let second = world.order(start("1.1.0", "dev")).await;
    assert_eq!(second.generation, 2);
    assert_eq!(state(&world, "dev", 1).await, DeploymentState::Errored);
    let Change::DeploymentFailed(body) = world.newest("DeploymentFailed").await else { panic!("kind") };
    assert_eq!((body.generation, body.outcome), (1, FailedOutcome::Errored));
    assert!(body.reason.starts_with("broken off"), "{}", body.reason);
    assert_eq!(is_held(&world, "dev").await, None);
    world.assert_sound().await;
}

/// As after the restore of an older backup: the target has come further than the store knows.
#[tokio::test]
async fn what_a_target_came_to_without_the_store_is_passed() {
    let world = with_versions().await;
    let first = world.deployed("1.0.0", "dev").await;
    let at = |generation, key: &Digest| Some(SwitchedOn { generation, key: key.clone() });
    let same = world.order(Start { newest: at(1, &first.key), ..start("1.0.0", "dev") }).await;
    assert_eq!((same.generation, same.current), (1, true));

    let elsewhere = Digest::of(b"another deployment");
    let other = world.order(Start { newest: at(1, &elsewhere), ..start("1.0.0", "dev") }).await;
    assert_eq!((other.generation, other.current), (2, false), "the target means something else by it");
    world.finish(&other, succeeded()).await;
    let further = world.order(Start { newest: at(8, &elsewhere), ..start("1.0.0", "dev") }).await;
    assert_eq!((further.generation, further.current), (9, false));
    // It was broken off before the target switched.
    let again = world.order(Start { newest: at(8, &elsewhere), ..start("1.0.0", "dev") }).await;
    assert_eq!((again.generation, again.key), (9, further.key));
    world.assert_sound().await;
    let beyond = Start { newest: at(u64::MAX, &elsewhere), ..start("1.0.0", "dev") };
    let refused = begin(&world.store, &world.who, beyond, world.now()).await;
    assert!(matches!(refused, Err(EngineError::Invalid { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_runs_already_is_current_and_records_nothing() {
    let world = with_versions().await;
    let first = world.deployed("1.0.0", "dev").await;
    assert_eq!(world.count("DeploymentSucceeded").await, 1);
    let size = world.size().await;
    let again = world.order(start("1.0.0", "dev")).await;
    assert!(again.current);
    assert_eq!((again.generation, &again.key, &again.decision), (1, &first.key, &first.decision));
    let finished = world.finish(&again, succeeded()).await;
    assert!(finished.already);
    assert_eq!(world.size().await, size);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_restart_or_another_configuration_is_another_deployment() {
    let world = with_contract().await;
    let quiet = || start_with("1.1.0", "dev", &[("LOG_LEVEL", "info")]);
    let first = world.order(quiet()).await;
    world.finish(&first, succeeded()).await;
    let again = world.order(Start { restart: 1, ..quiet() }).await;
    world.finish(&again, succeeded()).await;
    let loud = world.order(start_with("1.1.0", "dev", &[("LOG_LEVEL", "debug")])).await;
    assert_eq!((first.generation, again.generation, loud.generation), (1, 2, 3));
    assert_eq!(first.config, again.config);
    assert_ne!(first.key, again.key);
    assert_ne!(first.config, loud.config);
    assert_eq!(first.artefact.digest, loud.artefact.digest, "the same bytes");
}

#[tokio::test]
async fn a_failure_holds_the_environment_and_rejects_what_failed_with_this_configuration() {
    let world = with_contract().await;
    let loud = || start_with("1.1.0", "dev", &[("LOG_LEVEL", "debug")]);
    let order = world.order(loud()).await;
    let finished = world.finish(&order, failed("no answer on port 8080\nsecond line")).await;
    assert_eq!(
        finished.consequences,
        [
            "dev is held: 1.1.0 failed: no answer on port 8080",
            "1.1.0 is rejected for dev with this configuration"
        ]
    );
    let Change::Rejected(body) = world.newest("Rejected").await else { panic!("kind") };
    assert_eq!((body.what, body.environments), (RejectedThing::Key(order.key), vec![environment("dev")]));
    resume(&world, "dev").await;
    let (reasons, remedies) = world.refusal(loud()).await;
    assert!(reasons[0].contains("failed in dev with exactly this configuration"), "{reasons:?}");
    assert_eq!(remedies[0], "semel accept shop/api@1.1.0 dev");
    world.assert_sound().await;
}

#[tokio::test]
async fn a_digest_that_fails_with_two_configurations_is_rejected_itself() {
    let world = with_contract().await;
    for level in ["debug", "info"] {
        let order = world.order(start_with("1.1.0", "dev", &[("LOG_LEVEL", level)])).await;
        world.finish(&order, failed("crashed")).await;
        resume(&world, "dev").await;
    }
    let digest = |change: &Change| matches!(change, Change::Rejected(body) if matches!(body.what, RejectedThing::Digest(_)));
    assert_eq!(world.entries().await.iter().filter(|entry| digest(&entry.change)).count(), 1);
    let (reasons, _) = world.refusal(start("1.1.0", "dev")).await;
    assert_eq!(reasons, ["shop/api 1.1.0 was rejected: failed in dev: crashed (with two configurations)"]);
    let promoted = world.promote("1.1.0", "dev").await;
    assert!(!promoted.decision.is_granted());
    world.assert_sound().await;
}

#[tokio::test]
async fn what_goes_wrong_outside_only_holds_the_environment() {
    let world = with_versions().await;
    let order = world.order(start("1.0.0", "dev")).await;
    let finished = world.finish(&order, errored("the disk is full")).await;
    assert_eq!(finished.consequences, ["dev is held: deploying 1.0.0 went wrong: the disk is full"]);
    assert_eq!(world.count("Rejected").await, 0);
    resume(&world, "dev").await;
    let again = world.order(start("1.0.0", "dev")).await;
    assert_eq!((again.generation, &again.key), (2, &order.key), "it may be tried again");
    world.assert_sound().await;
}

#[tokio::test]
async fn an_outcome_that_is_reported_again_is_recorded_once() {
    for (outcome, kind) in [
        (succeeded(), "DeploymentSucceeded"),
        (failed("crashed"), "DeploymentFailed"),
        (errored("no disk"), "DeploymentFailed"),
    ] {
        let world = with_versions().await;
        let order = world.order(start("1.0.0", "dev")).await;
        assert!(!world.finish(&order, outcome.clone()).await.already);
        let size = world.size().await;
        let again = world.finish(&order, outcome.clone()).await;
        assert!(again.already && again.consequences.is_empty(), "{outcome:?}");
        assert_eq!((world.size().await, world.count(kind).await), (size, 1), "{outcome:?}");
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn a_success_that_cannot_be_started_again_stays_a_success_and_shows_as_drift() {
    let world = with_versions().await;
    let order = world.deployed("1.0.0", "dev").await;
    let finished = world.finish(&order, failed("does not start any more")).await;
    assert!(!finished.already && finished.consequences[0].contains("does not run any more"), "{finished:?}");
    assert_eq!(state(&world, "dev", order.generation).await, DeploymentState::Succeeded);
    assert_eq!(world.count("Rejected").await + world.count("DeploymentFailed").await, 0);
    assert_eq!(world.count("DriftDetected").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn an_outcome_of_what_was_never_started_is_refused() {
    let world = with_versions().await;
    let report = Finish {
        component: component(),
        environment: environment("dev"),
        generation: 7,
        outcome: succeeded(),
        observed: Observed::absent(),
    };
    let error = finish(&world.store, &world.who, report, world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "shop/api has no deployment 7 in dev");
}

#[tokio::test]
async fn a_rollback_passes_a_hold_needs_only_the_earlier_grant_and_sets_a_hold() {
    let world = with_versions().await;
    world.deployed("1.0.0", "dev").await;
    world.deployed("1.1.0", "dev").await;
    let mut pipeline = usual_pipeline();
    pipeline["dev"]["gates"] = serde_json::json!([{"evidence": "load-test"}]);
    world.apply(&pipeline).await;
    let hold = semel_engine::hold::Hold {
        component: component(),
        environment: environment("dev"),
        reason: Some("it loses orders".to_owned()),
    };
    semel_engine::hold::hold(&world.store, &world.who, hold, world.now()).await.unwrap();
    let grants = world.count("PromotionGranted").await;
    let order = world.order(Start { rollback_of: Some(2), ..start("1.0.0", "dev") }).await;
    assert_eq!((order.generation, order.promoted), (3, false));
    resume(&world, "dev").await;
    let finished = world.finish(&order, succeeded()).await;
    assert_eq!(finished.consequences, ["dev is held: rolled back from generation 2 to 1.0.0"]);
    assert!(is_held(&world, "dev").await.is_some());
    assert_eq!(world.count("PromotionGranted").await, grants);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_rollback_goes_nowhere_else_than_to_what_succeeded_there() {
    let world = with_versions().await;
    world.deployed("1.0.0", "dev").await;
    assert!(world.promote("1.1.0", "dev").await.decision.is_granted());
    let (reasons, remedies) = world.refusal(Start { rollback_of: Some(1), ..start("1.1.0", "dev") }).await;
    assert_eq!(reasons, ["shop/api 1.1.0 never succeeded in dev: a rollback cannot go there"]);
    assert_eq!(remedies, ["semel history dev -c shop/api"]);
    assert_eq!(world.count("DeploymentStarted").await, 1);
    world.assert_sound().await;
}

#[tokio::test]
async fn what_was_looked_at_is_what_is_deployed() {
    let world = with_versions().await;
    let reviewed = Some(Digest::of(b"what was reviewed"));
    let request = Start { expect: reviewed, ..start("1.0.0", "dev") };
    let error = begin(&world.store, &world.who, request, world.now()).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
    assert_eq!(world.count("DeploymentStarted").await, 0);
}

#[tokio::test]
async fn an_environment_without_a_target_is_only_decided_about() {
    let world = World::new().await;
    world.published("1.0.0").await;
    world.apply(&serde_json::json!({"cluster": {}})).await;
    let error = begin(&world.store, &world.who, start("1.0.0", "cluster"), world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "cluster has no target: it is only decided about");
    assert!(error.hint().unwrap().starts_with("semel resolve cluster"));
}

#[tokio::test]
async fn a_plan_without_a_version_means_the_newest_that_was_promoted() {
    let world = with_contract().await;
    let dev = environment("dev");
    let error = plan(&world.store, &component(), None, &dev, world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "nothing of shop/api was promoted to dev yet");
    let request = promotion("1.0.0", "dev");
    semel_engine::promote::promote(&world.store, &world.who, request, world.now()).await.unwrap();
    let size = world.size().await;
    let planned = plan(&world.store, &component(), None, &dev, world.now()).await.unwrap();
    assert_eq!(planned.artefact.version, Some("1.0.0".parse().unwrap()));
    assert_eq!(planned.contract.0.len(), 3);
    assert!(planned.first);
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn what_has_lost_its_bytes_is_not_begun() {
    let world = World::new().await;
    world.apply(&serde_json::json!({"dev": {"target": {"kind": "directory"}}})).await;
    for version in ["1.0.0", "1.1.0"] {
        world.published(version).await;
    }
    world.wait(91 * 24 * 3_600);
    let request = semel_engine::collect::Collect::default();
    semel_engine::collect::collect(&world.store, &world.who, request, world.now()).await.unwrap();
    let size = world.size().await;
    let error = begin(&world.store, &world.who, start("1.0.0", "dev"), world.now()).await.unwrap_err();
    assert!(error.to_string().contains("were removed on"), "{error}");
    assert!(error.to_string().ends_with("by the rule trunk=90d; its name and digest stay"), "{error}");
    assert!(error.hint().unwrap().contains("brings it back"));
    assert_eq!(world.size().await, size, "nothing was begun, and nothing promoted on the way");
    world.deployed("1.1.0", "dev").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_deploy_at_once_each_gets_a_place_and_one_stays() {
    let world = with_versions().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..12 {
        let (store, who) = (world.store.clone(), world.who.clone());
        let version = ["1.0.0", "1.1.0", "1.2.0"][n % 3];
        tasks.spawn(async move { begin(&store, &who, start(version, "dev"), time(100)).await.unwrap() });
    }
    let mut keys = std::collections::BTreeMap::new();
    while let Some(started) = tasks.join_next().await {
        let Started::Go(order) = started.unwrap() else { panic!("refused") };
        let key = keys.entry(order.generation).or_insert_with(|| order.key.clone());
        assert_eq!(*key, order.key, "a generation stands for one deployment");
    }
    let newest = keys.len() as u64;
    assert_eq!(keys.into_keys().collect::<Vec<_>>(), (1..=newest).collect::<Vec<_>>());
    assert_eq!(state(&world, "dev", newest).await, DeploymentState::Started);
    for earlier in 1..newest {
        assert_eq!(state(&world, "dev", earlier).await, DeploymentState::Errored);
    }
    world.assert_sound().await;
}

/// One step of somebody who deploys.
#[derive(Debug, Clone)]
enum Step {
    Start(usize),
    Finish(Outcome),
    RollBack(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3usize).prop_map(Step::Start),
        2 => Just(Step::Finish(succeeded())),
        1 => Just(Step::Finish(failed("crashed"))),
        1 => Just(Step::Finish(errored("no disk"))),
        1 => (0..3usize).prop_map(Step::RollBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn generations_only_go_up_whatever_happens(steps in proptest::collection::vec(any_step(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = with_versions().await;
            let versions = ["1.0.0", "1.1.0", "1.2.0"];
            let mut newest: Option<semel_engine::deploy::Order> = None;
            for step in steps {
                let request = match step {
                    Step::Finish(outcome) => {
                        if let Some(order) = &newest {
                            world.finish_with(order, outcome, running(order)).await;
                            resume(&world, "dev").await;
                        }
                        continue;
                    }
                    Step::Start(n) => start(versions[n], "dev"),
                    Step::RollBack(n) => Start {
                        rollback_of: newest.as_ref().map(|order| order.generation),
                        ..start(versions[n], "dev")
                    },
                };
                if let Started::Go(order) = world.start(request).await {
                    let before = newest.as_ref().map_or(0, |order| order.generation);
                    let same = newest.as_ref().is_some_and(|newest| newest.key == order.key);
                    assert!(
                        order.generation == before + 1 || (same && order.generation == before),
                        "{before} then {}", order.generation
                    );
                    newest = Some(order);
                }
            }
            let mut last = 0;
            for entry in world.entries().await {
                if let Change::DeploymentStarted(body) = entry.change {
                    assert_eq!(body.generation, last + 1);
                    last = body.generation;
                }
            }
            world.assert_sound().await;
        });
    }
}

//! May this artefact run there? Decided by rule, recorded with everything that it was decided from.

use semel_engine::error::EngineError;
use semel_engine::promote::{Promote, Resolved, promote, resolve};
use semel_model::digest::Digest;
use semel_model::entry::{Change, PromotionDecided};
use semel_model::promotion::{Decision, decide};
use semel_model::statement::Envelope;
use semel_store::keys::Role;
use serde_json::json;

use crate::{World, component, environment, promotion, usual_pipeline};

fn stored(world: &World, digest: &Digest) -> Decision {
    serde_json::from_slice(&world.store.blobs().read(digest).unwrap()).unwrap()
}

async fn decided(world: &World) -> Vec<PromotionDecided> {
    let body = |entry: semel_model::entry::Entry| match entry.change {
        Change::PromotionGranted(body) | Change::PromotionRefused(body) => Some(body),
        _ => None,
    };
    world.entries().await.into_iter().filter_map(body).collect()
}

/// A world in which 1.0.0 may be promoted to staging.
async fn ready_for_staging() -> (World, Digest) {
    let world = World::with_pipeline().await;
    let digest = world.published("1.0.0").await;
    world.deployed("1.0.0", "dev").await;
    world.attest("1.0.0", "manual", "pass").await;
    world.apply(&gated_by("manual")).await;
    (world, digest)
}

fn gated_by(evidence: &str) -> serde_json::Value {
    let mut pipeline = usual_pipeline();
    pipeline["staging"]["gates"] = json!([{"evidence": evidence}]);
    pipeline
}

#[tokio::test]
async fn a_refusal_is_recorded_with_the_decision_and_every_closed_gate() {
    let world = World::with_pipeline().await;
    world.published("1.0.0").await;
    let promoted = world.promote("1.0.0", "staging").await;
    let closed: Vec<&str> = promoted.decision.closed().map(|gate| gate.gate.as_str()).collect();
    assert_eq!(closed, ["after dev", "junit=pass"]);
    assert_eq!(world.count("PromotionRefused").await, 1);
    assert_eq!(stored(&world, &promoted.digest), promoted.decision);
    let Change::PromotionRefused(body) = world.newest("PromotionRefused").await else { panic!("kind") };
    assert_eq!((body.decision, body.statement), (promoted.digest, None));
    world.assert_sound().await;
}

#[tokio::test]
async fn a_grant_is_signed_by_the_key_of_its_environment_alone() {
    let (world, digest) = ready_for_staging().await;
    let promoted = world.promote("1.0.0", "staging").await;
    assert!(promoted.decision.is_granted() && promoted.recorded && !promoted.already);
    let Change::PromotionGranted(body) = world.newest("PromotionGranted").await else { panic!("kind") };
    let envelope = Envelope::parse(&world.store.blobs().read(&body.statement.unwrap()).unwrap()).unwrap();
    let key = |role: &Role| *world.store.keys().role_key(role).unwrap().verifying_key();
    let statement = envelope.verify(&key(&Role::Promoter(environment("staging")))).unwrap();
    assert!(statement.is_about(&digest));
    assert_eq!(statement.predicate_type, semel_engine::promote::SUMMARY);
    assert_eq!(statement.predicate["verificationResult"], "PASSED");
    assert_eq!(statement.predicate["verifiedLevels"], json!(["SEMEL_PROMOTED_STAGING"]));
    assert_eq!(statement.predicate["inputAttestations"].as_array().unwrap().len(), 1);
    assert_eq!(statement.predicate["semel_decision"], json!(promoted.digest));
    for other in [Role::Promoter(environment("production")), Role::Evidence, Role::Builder] {
        assert!(envelope.verify(&key(&other)).is_err(), "{other:?}");
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn what_is_granted_already_is_not_recorded_again() {
    let (world, _) = ready_for_staging().await;
    let first = world.promote("1.0.0", "staging").await;
    let size = world.size().await;
    let again = world.promote("1.0.0", "staging").await;
    assert_eq!((again.already, again.digest), (true, first.digest));
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn another_policy_asks_again() {
    let (world, _) = ready_for_staging().await;
    let first = world.promote("1.0.0", "staging").await;
    world.apply(&gated_by("load-test")).await;
    let refused = world.promote("1.0.0", "staging").await;
    assert!(!refused.decision.is_granted());
    world.attest("1.0.0", "load-test", "pass").await;
    let second = world.promote("1.0.0", "staging").await;
    assert!(second.decision.is_granted() && !second.already);
    assert_ne!(second.digest, first.digest);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_plan_says_what_would_be_decided_and_records_nothing() {
    let (world, _) = ready_for_staging().await;
    for (place, granted) in [("staging", true), ("production", false)] {
        let size = world.size().await;
        let request = Promote { plan: true, ..promotion("1.0.0", place) };
        let planned = promote(&world.store, &world.who, request, world.now()).await.unwrap();
        assert_eq!((planned.decision.is_granted(), planned.recorded), (granted, false), "{place}");
        assert_eq!(world.size().await, size, "{place}");
    }
}

#[tokio::test]
async fn words_that_mean_another_digest_than_expected_are_a_conflict() {
    let (world, digest) = ready_for_staging().await;
    let expecting = |expected: Digest| Promote { expect: Some(expected), ..promotion("1.0.0", "staging") };
    let size = world.size().await;
    let other = expecting(Digest::of(b"what was reviewed"));
    let error = promote(&world.store, &world.who, other, world.now()).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
    assert!(error.to_string().contains(digest.as_str()), "{error}");
    assert_eq!(world.size().await, size);
    let granted = promote(&world.store, &world.who, expecting(digest), world.now()).await.unwrap();
    assert!(granted.decision.is_granted());
}

#[tokio::test]
async fn a_rejected_digest_is_refused_until_it_is_accepted() {
    let (world, _) = ready_for_staging().await;
    let judge = |reason: Option<&str>| semel_engine::reject::Judge {
        component: component(),
        version: "1.0.0".to_owned(),
        environment: None,
        reason: reason.map(str::to_owned),
        pulls: false,
    };
    world.promote("1.0.0", "staging").await;
    let rejection = judge(Some("loses orders"));
    semel_engine::reject::judge(&world.store, &world.who, rejection, world.now()).await.unwrap();
    let refused = world.promote("1.0.0", "staging").await;
    let reasons: Vec<&str> = refused.decision.closed().map(|gate| gate.reason.as_str()).collect();
    assert_eq!(reasons, ["rejected: loses orders"], "an earlier grant does not help");
    semel_engine::reject::judge(&world.store, &world.who, judge(None), world.now()).await.unwrap();
    assert!(world.promote("1.0.0", "staging").await.decision.is_granted());
    world.assert_sound().await;
}

#[tokio::test]
async fn the_newest_evidence_counts_also_when_the_same_was_said_before() {
    let (world, _) = ready_for_staging().await;
    for (result, granted) in [("pass", true), ("fail", false), ("pass", true), ("fail", false)] {
        world.attest("1.0.0", "manual", result).await;
        let request = Promote { plan: true, ..promotion("1.0.0", "staging") };
        let planned = promote(&world.store, &world.who, request, world.now()).await.unwrap();
        assert_eq!(planned.decision.is_granted(), granted, "{result}: {:?}", planned.decision.gates);
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn every_decision_comes_out_the_same_from_its_recorded_inputs() {
    let (world, _) = ready_for_staging().await;
    world.promote("1.0.0", "production").await;
    world.promote("1.0.0", "staging").await;
    world.attest("1.0.0", "manual", "fail").await;
    world.promote("1.0.0", "staging").await;
    let decisions = decided(&world).await;
    assert_eq!(decisions.len(), 4, "dev, production, and staging twice");
    for body in decisions {
        let decision = stored(&world, &body.decision);
        assert_eq!(decide(decision.inputs.clone()), decision);
        assert_eq!(decision.is_granted(), body.statement.is_some());
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn a_name_that_means_nothing_is_an_error_with_a_way_on() {
    let (world, _) = ready_for_staging().await;
    for (version, place, expected, hint) in [
        ("9.9.9", "staging", "shop/api has no version 9.9.9 in this store", "semel versions -c shop/api"),
        (
            "1.0.0",
            "stagin",
            "shop/api has no environment stagin (it has: dev, staging, production)",
            "did you mean staging?",
        ),
    ] {
        let error =
            promote(&world.store, &world.who, promotion(version, place), world.now()).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), (expected, Some(hint)));
    }
}

#[tokio::test]
async fn only_what_was_granted_and_is_not_held_is_resolved() {
    let (world, digest) = ready_for_staging().await;
    let staging = environment("staging");
    let word = "1.0.0".parse().unwrap();
    let ask = async |named: bool| {
        let word = Some(&word).filter(|_| named);
        match resolve(&world.store, &component(), word, &staging, world.now()).await.unwrap() {
            Resolved::Allowed { artefact, .. } => artefact.digest.to_string(),
            Resolved::Refused { reasons, .. } => reasons.join("; "),
        }
    };
    assert_eq!(ask(false).await, "nothing was promoted to staging yet");
    assert_eq!(ask(true).await, "shop/api 1.0.0 was not promoted to staging yet");
    world.promote("1.0.0", "staging").await;
    assert_eq!(ask(false).await, digest.as_str());
    assert_eq!(ask(true).await, digest.as_str());
    world.attest("1.0.0", "manual", "fail").await;
    assert!(ask(true).await.starts_with("manual=pass: the newest says fail"));
    let hold = semel_engine::hold::Hold {
        component: component(),
        environment: staging.clone(),
        reason: Some("freeze".to_owned()),
    };
    semel_engine::hold::hold(&world.store, &world.who, hold, world.now()).await.unwrap();
    assert_eq!(ask(true).await, "staging is held: freeze");
}

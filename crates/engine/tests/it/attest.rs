//! A result about an artefact, signed and linked to its digest.

use semel_engine::attest::{Attached, Attest, attest};
use semel_engine::error::EngineError;
use semel_model::digest::Digest;
use semel_model::entry::Change;
use semel_model::pipeline::EvidenceResult;
use semel_model::statement::Envelope;
use semel_store::keys::Role;

use crate::{World, component, environment};

const PASS: &str = r#"<testsuite><testcase name="pays"/><testcase name="refunds"/></testsuite>"#;
const FAIL: &str =
    r#"<testsuite><testcase name="pays"/><testcase name="refunds"><failure/></testcase></testsuite>"#;

fn about(version: &str, kind: &str) -> Attest {
    Attest {
        component: component(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        result: None,
        report: None,
        environment: None,
        comment: None,
    }
}

async fn report(world: &World, xml: &str) -> Result<Attached, EngineError> {
    let report = world.store.blobs().put(xml.as_bytes()).unwrap().digest;
    let request = Attest { report: Some(report), ..about("1.0.0", "junit") };
    attest(&world.store, &world.who, request, world.now()).await
}

#[tokio::test]
async fn a_test_report_says_its_result_itself() {
    for (xml, result, summary) in [
        (PASS, EvidenceResult::Pass, "2 passed, 0 failed, 0 skipped"),
        (FAIL, EvidenceResult::Fail, "1 passed, 1 failed, 0 skipped"),
    ] {
        let world = World::new().await;
        let digest = world.published("1.0.0").await;
        let attached = report(&world, xml).await.unwrap();
        assert_eq!((attached.result, attached.summary.as_str()), (result, summary));
        assert!(!attached.already);
        let Change::EvidenceAttached(body) = world.newest("EvidenceAttached").await else { panic!("kind") };
        assert_eq!((body.digest, body.result, body.envelope), (digest, result, attached.envelope));
        assert_eq!(body.attachment, Some(Digest::of(xml.as_bytes())));
        world.assert_sound().await;
    }
}

#[tokio::test]
async fn what_proves_nothing_is_refused_and_leaves_nothing() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let size = world.size().await;
    for (xml, expected) in [
        ("<testsuite/>", "contains no test"),
        ("<testsuite><testcase name=\"a\">", "it ends inside <testcase>"),
        ("<html/>", "its root is <html>"),
        ("", "contains no test"),
    ] {
        let error = report(&world, xml).await.unwrap_err();
        assert!(matches!(error, EngineError::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{xml}: {error}");
    }
    for (request, expected) in [
        (about("1.0.0", "junit"), "a junit result needs its report"),
        (about("1.0.0", "manual"), "nothing says what the result of type manual is"),
        (about("1.0.0", "Not A Type"), "is no type of evidence"),
        (Attest { result: Some(EvidenceResult::Pass), ..about("9.9.9", "manual") }, "has no version 9.9.9"),
    ] {
        let error = attest(&world.store, &world.who, request, world.now()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(world.size().await, size);
}

#[tokio::test]
async fn a_claim_that_differs_from_its_report_is_refused() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let report = world.store.blobs().put(FAIL.as_bytes()).unwrap().digest;
    let claim =
        Attest { report: Some(report), result: Some(EvidenceResult::Pass), ..about("1.0.0", "junit") };
    let error = attest(&world.store, &world.who, claim, world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "the report says fail, --result says otherwise");
}

#[tokio::test]
async fn the_same_report_again_changes_nothing_and_a_newer_one_counts() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let first = report(&world, PASS).await.unwrap();
    let size = world.size().await;
    let again = report(&world, PASS).await.unwrap();
    assert_eq!((again.already, &again.envelope), (true, &first.envelope));
    assert_eq!(world.size().await, size);
    assert!(!report(&world, FAIL).await.unwrap().already);
    assert!(!report(&world, PASS).await.unwrap().already, "a pass after a failure is news");
    assert_eq!(world.count("EvidenceAttached").await, 3);
    world.assert_sound().await;
}

#[tokio::test]
async fn evidence_verifies_under_the_evidence_key_alone() {
    let world = World::new().await;
    let digest = world.published("1.0.0").await;
    let attached = report(&world, PASS).await.unwrap();
    let envelope = Envelope::parse(&world.store.blobs().read(&attached.envelope).unwrap()).unwrap();
    let key = |role: &Role| *world.store.keys().role_key(role).unwrap().verifying_key();
    let statement = envelope.verify(&key(&Role::Evidence)).unwrap();
    assert!(statement.is_about(&digest));
    assert_eq!(statement.predicate_type, attached.predicate_type);
    for other in [Role::Promoter(environment("staging")), Role::Builder] {
        assert!(envelope.verify(&key(&other)).is_err(), "{other:?}");
    }
}

#[tokio::test]
async fn what_a_person_says_is_signed_with_where_it_was_found_out() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let request = Attest {
        result: Some(EvidenceResult::Warn),
        environment: Some(environment("staging")),
        comment: Some("slow, but right".to_owned()),
        ..about("1.0.0", "manual")
    };
    let attached = attest(&world.store, &world.who, request, world.now()).await.unwrap();
    let envelope = Envelope::parse(&world.store.blobs().read(&attached.envelope).unwrap()).unwrap();
    let key = world.store.keys().role_key(&Role::Evidence).unwrap();
    let said = envelope.verify(key.verifying_key()).unwrap().predicate;
    assert_eq!(
        said,
        serde_json::json!({"result": "warn", "comment": "slow, but right", "environment": "staging"})
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn the_same_statement_a_day_later_is_new_evidence() {
    let world = World::new().await;
    world.published("1.0.0").await;
    let request = || Attest { result: Some(EvidenceResult::Pass), ..about("1.0.0", "manual") };
    let say = || async { attest(&world.store, &world.who, request(), world.now()).await.unwrap().already };
    assert!(!say().await);
    world.wait(60);
    assert!(say().await);
    world.wait(25 * 60 * 60);
    assert!(!say().await, "a gate with a largest age would otherwise never open again");
    assert_eq!(world.count("EvidenceAttached").await, 2);
    world.assert_sound().await;
}

#[tokio::test]
async fn a_rebuild_says_its_result_itself_and_is_about_one_artefact() {
    let world = World::new().await;
    let digest = world.published("1.0.0").await;
    let other = Digest::of(b"something else");
    let said = async |committed: &Digest, built: &Digest| {
        let text = serde_json::json!({
            "buildKey": Digest::of(b"key"), "platform": "linux/amd64", "committed": committed, "built": built,
            "builder": {"id": "https://example.org", "version": "1"}, "variations": ["clock", "path"],
        });
        let report = world.store.blobs().put(text.to_string().as_bytes()).unwrap().digest;
        let request = Attest { report: Some(report), ..about("1.0.0", "reproducibility") };
        attest(&world.store, &world.who, request, world.now()).await
    };
    let same = said(&digest, &digest).await.unwrap();
    assert_eq!((same.result, same.summary.as_str()), (EvidenceResult::Pass, "identical, 2 variations"));
    assert!(said(&digest, &digest).await.unwrap().already, "the same again changes nothing");
    let differs = said(&digest, &other).await.unwrap();
    assert_eq!((differs.result, differs.already), (EvidenceResult::Fail, false));
    let size = world.size().await;
    let foreign = said(&other, &other).await.unwrap_err();
    assert!(foreign.to_string().contains("the report is about"), "{foreign}");
    assert_eq!(world.size().await, size);
    world.assert_sound().await;
}

//! Looking at what is where, and why. Nothing here records anything.

use semel_engine::look::difference::difference;
use semel_engine::look::history::history;
use semel_engine::look::place::locate;
use semel_engine::look::status::status;
use semel_engine::look::why::why;
use semel_model::deployment::Observed;
use semel_store::projections::artefact as artefacts;

use crate::{World, commit_id, component, environment, failed, start, start_with, usual_pipeline};

const OPEN: &str = r#"{"LOG_LEVEL":{"required":false,"type":"string"}}"#;

/// Three builds; 0.0.2 runs in dev and staging, 0.0.1 in production.
async fn shop() -> World {
    let world = World::new().await;
    for n in 1..=3 {
        world.built(n, &format!("tree {n}")).await;
    }
    let mut pipeline = usual_pipeline();
    pipeline["staging"]["gates"] = serde_json::json!([]);
    world.apply(&pipeline).await;
    for place in ["dev", "staging", "production"] {
        world.deployed("0.0.1", place).await;
    }
    for place in ["dev", "staging"] {
        world.deployed("0.0.2", place).await;
    }
    world
}

#[tokio::test]
async fn status_tells_what_runs_where_and_how_far_behind() {
    let world = shop().await;
    let size = world.size().await;
    let lines = status(&world.store, None, world.now()).await.unwrap();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let version = line.running.as_ref().unwrap().version.as_ref().unwrap().to_string();
            (line.environment.to_string(), version, line.generation.unwrap(), line.behind)
        })
        .collect();
    let expected = [("dev", "0.0.2", 2, 1), ("staging", "0.0.2", 2, 1), ("production", "0.0.1", 1, 2)];
    assert_eq!(told, expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c, d)));
    assert!(lines.iter().all(|line| !line.is_exception() && line.since.is_some()));
    assert_eq!(world.size().await, size);
    world.assert_sound().await;
}

#[tokio::test]
async fn status_tells_what_is_wrong() {
    let world = shop().await;
    let order = world.order(start("0.0.3", "dev")).await;
    world.finish_with(&order, failed("no answer"), Observed::absent()).await;
    let line = status(&world.store, Some(&component()), world.now()).await.unwrap().swap_remove(0);
    assert!(line.is_exception());
    assert_eq!(line.trouble.as_deref(), Some("0.0.3 failed: no answer"));
    assert_eq!(line.hold.as_deref(), Some("0.0.3 failed: no answer"));
    assert_eq!(line.generation, Some(2), "what succeeded last is still what should run");
}

#[tokio::test]
async fn a_commit_a_version_a_number_and_a_digest_are_found_where_they_run() {
    let world = shop().await;
    let first = "0.0.1".parse().unwrap();
    let published = artefacts::version(&mut world.store.reader().await.unwrap(), &component(), &first).await;
    let digest = published.unwrap().unwrap().digest.to_string();
    for word in [commit_id(1).to_string(), "0.0.1".to_owned(), "#1".to_owned(), digest] {
        let found = locate(&world.store, Some(&component()), &word, world.now()).await.unwrap();
        assert_eq!(found.len(), 1, "{word}");
        assert_eq!(found[0].artefact.version, Some("0.0.1".parse().unwrap()), "{word}");
        assert_eq!(found[0].commits, [commit_id(1)], "{word}");
        let [dev, staging, production] = found[0].environments.as_slice() else { panic!("{word}") };
        assert!(dev.promoted && staging.promoted && production.promoted);
        assert_eq!((dev.running_since.as_ref(), dev.instead.as_deref()), (None, Some("0.0.2")));
        assert_eq!((dev.ran.len(), dev.ran[0].generation), (1, 1));
        assert!(dev.ran[0].until.as_ref().unwrap() > &dev.ran[0].from);
        assert!(production.running_since.is_some() && production.ran.is_empty());
    }
}

#[tokio::test]
async fn what_nobody_knows_is_named() {
    let world = shop().await;
    let error = locate(&world.store, None, "abcdef0123456", world.now()).await.unwrap_err();
    assert_eq!(error.to_string(), "nothing in this store is known as abcdef0123456");
    assert!(error.hint().unwrap().starts_with("a commit, a version"));
}

#[tokio::test]
async fn why_tells_the_grounds_and_what_stands_in_the_way() {
    let world = shop().await;
    let asked = why(&world.store, &component(), &environment("dev")).await.unwrap();
    let running = asked.running.unwrap();
    assert_eq!((running.generation, running.rollback_of), (2, None));
    assert!(running.decision.is_granted());
    assert_eq!(running.decision.inputs.digest, running.artefact.digest);
    let commits: Vec<_> =
        running.commits.iter().map(|commit| (&commit.id, commit.subject.as_str())).collect();
    assert_eq!(commits, [(&commit_id(2), "fix: number 2")]);
    assert_eq!((asked.hold, asked.trouble, asked.refused), (None, None, None));

    world.refusal(start("0.0.3", "production")).await;
    let asked = why(&world.store, &component(), &environment("production")).await.unwrap();
    let closed: Vec<_> = asked.refused.as_ref().unwrap().closed().map(|gate| gate.gate.clone()).collect();
    assert_eq!(closed, ["after staging"]);
    assert_eq!(asked.running.unwrap().generation, 1);
}

#[tokio::test]
async fn a_difference_names_commits_and_keys_and_never_values() {
    let world = shop().await;
    let (staging, production) = (environment("staging"), environment("production"));
    let ahead = difference(&world.store, &component(), &production, &staging).await.unwrap();
    assert!(!ahead.is_empty() && !ahead.backwards);
    assert_eq!(ahead.commits.iter().map(|commit| &commit.id).collect::<Vec<_>>(), [&commit_id(2)]);
    assert!(difference(&world.store, &component(), &staging, &production).await.unwrap().backwards);
    let dev = environment("dev");
    assert!(difference(&world.store, &component(), &dev, &staging).await.unwrap().is_empty());

    let digest = world.artefact_with("open", Some(OPEN)).await;
    world.bind("1.0.0", &digest).await.unwrap();
    let order = world.order(start_with("1.0.0", "dev", &[("LOG_LEVEL", "chatty")])).await;
    world.finish(&order, crate::succeeded()).await;
    let found = difference(&world.store, &component(), &staging, &dev).await.unwrap();
    assert_eq!(found.contract, ["+ LOG_LEVEL (string)"]);
    let keys: Vec<_> = found.config.iter().map(|one| (one.key.as_str(), one.how.as_str())).collect();
    assert_eq!(keys, [("LOG_LEVEL", "only in dev")]);
    assert!(!format!("{found:?}").contains("chatty"));
}

#[tokio::test]
async fn history_tells_what_happened_newest_first_and_who_did_it() {
    let world = shop().await;
    let order = world.order(start("0.0.3", "dev")).await;
    world.finish_with(&order, failed("no answer"), Observed::absent()).await;
    let events = history(&world.store, &component(), &environment("dev"), 100).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds[..6],
        [
            "ObservationChanged",
            "Rejected",
            "HoldSet",
            "DeploymentFailed",
            "DeploymentStarted",
            "PromotionGranted"
        ]
    );
    assert!(events.windows(2).all(|pair| pair[0].seq > pair[1].seq));
    assert_eq!(events[3].what, "generation 3 failed: no answer");
    assert_eq!(events[5].what, "0.0.3 may run here");
    assert!(events.iter().all(|event| event.who == "ana@shop.example"));
    let few = history(&world.store, &component(), &environment("dev"), 2).await.unwrap();
    assert_eq!(few, events[..2]);
}

//! Appending, reading, proving.

use std::pin::Pin;
use std::task::Poll;

use semel_model::digest::Digest;
use semel_model::entry::{BuildFailed, Change, ComponentCreated, HoldReleased, Leaf, ManifestStored};
use semel_model::merkle;
use semel_model::version::TagPolicy;
use semel_store::keys::{KeyError, KeyRing};
use semel_store::ledger::{self, AppendError};
use semel_store::projections::{artefact, component, deployment};
use semel_store::{OpenError, Store, audit};

use super::world;
use crate::{MEDIA_TYPE, actor, fill, now};

#[tokio::test]
async fn what_is_recorded_is_found_again_and_proved() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 5).await;
    let mut conn = store.reader().await.unwrap();
    let name = "shop/api".parse().unwrap();
    let version = artefact::version(&mut conn, &name, &"1.0.3".parse().unwrap()).await.unwrap().unwrap();
    let channel = artefact::channel(&mut conn, &name, &"latest".parse().unwrap()).await.unwrap().unwrap();
    assert_ne!(version.digest, channel);
    assert_eq!(artefact::tags(&mut conn, &name, "1.0.2", 3).await.unwrap(), ["1.0.3", "1.0.4", "latest"]);
    assert!(deployment::hold(&mut conn, &name, &"production".parse().unwrap()).await.unwrap().is_some());
    let events = ledger::events(&mut conn, "production", "shop/api", 10).await.unwrap();
    assert_eq!(events.len(), 1);

    let note = ledger::checkpoint(&mut conn).await.unwrap();
    let signed = semel_model::note::Checkpoint::verify(&note, &store.ledger_key().unwrap()).unwrap();
    let head = ledger::head(&mut conn).await.unwrap();
    assert_eq!((signed.size, signed.root), (head.size, head.root));
    for index in 0..head.size {
        let leaf = ledger::read_one(&mut conn, index).await.unwrap().unwrap().leaf.to_bytes().unwrap();
        let proof = ledger::inclusion_proof(&mut conn, index, head.size).await.unwrap();
        assert!(merkle::verify_inclusion(index, head.size, &merkle::leaf_hash(&leaf), &proof, &head.root));
        let proof = ledger::consistency_proof(&mut conn, index, head.size).await.unwrap();
        let root = ledger::root(&mut conn, index).await.unwrap();
        assert!(merkle::verify_consistency(index, &root, head.size, &head.root, &proof));
    }
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_turn_that_is_given_up_leaves_nothing_behind() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let mut turn = store.turn().await.unwrap();
    turn.db()
        .execute("INSERT INTO identity (subject, issuer, name) VALUES ('x', 'local', 'x')", &[])
        .await
        .unwrap();
    drop(turn);
    assert_eq!(store.name_of("x").await.unwrap(), "x");
    let turn = store.turn().await.unwrap();
    assert_eq!(turn.size(), 1);
}

/// One look at a future, and no waiting for it.
async fn poll_once<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> Poll<T> {
    // Without the budget of a task, which says "not yet" where nothing is waited for.
    let once = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
    tokio::task::unconstrained(once).await
}

#[tokio::test]
async fn who_goes_away_while_a_full_group_is_closed_makes_nobody_elses_turn_fail() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    let (actor, before) = (actor(&store).await, store.turn().await.unwrap().size());
    let mut waiting = Vec::new();
    // Nothing else runs on this thread until it waits, so that all of these share one group, and the last finds it full.
    let gone = loop {
        let mut turn = Box::pin(store.turn());
        match poll_once(&mut turn).await {
            Poll::Ready(turn) => {
                let hold = HoldReleased { environment: "dev".parse().unwrap(), component: None };
                let mut kept =
                    Box::pin(turn.unwrap().record(&actor, now(), vec![Change::HoldReleased(hold)]));
                assert!(poll_once(&mut kept).await.is_pending(), "nobody hears of it before it is durable");
                waiting.push(kept);
            }
            Poll::Pending => break turn,
        }
    };
    drop(gone);
    let count = waiting.len() as u64;
    for kept in waiting {
        kept.await.unwrap();
    }
    assert_eq!(store.turn().await.unwrap().size(), before + count);
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_wait_for_each_other_are_made_durable_together() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let who = actor(&store).await;
    let first = store.turn().await.unwrap();
    let given_up = first.size();
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let (store, who) = (store.clone(), who.clone());
            tokio::spawn(async move {
                let mut turn = store.turn().await.unwrap();
                let row = [format!("writer-{number}").into()];
                turn.db()
                    .execute("INSERT INTO identity (subject, issuer, name) VALUES ($1, 'local', $1)", &row)
                    .await
                    .unwrap();
                // Every fourth is given up in the middle, and every other has nothing to record.
                match number % 4 {
                    0 => drop(turn),
                    1 => drop(turn.append(Vec::new()).await.unwrap()),
                    _ => drop(turn.record(&who, now(), vec![created(&store, number)]).await.unwrap()),
                }
                number
            })
        })
        .collect();
    drop(first);
    for task in tasks {
        let number = task.await.unwrap();
        let subject = format!("writer-{number}");
        let rows = store
            .reader()
            .await
            .unwrap()
            .rows("SELECT name FROM identity WHERE subject = $1", &[subject.as_str().into()])
            .await
            .unwrap();
        assert_eq!(rows.len(), usize::from(number % 4 != 0), "what is acknowledged is there: {subject}");
    }
    let mut conn = store.reader().await.unwrap();
    assert_eq!(ledger::size(&mut conn).await.unwrap(), given_up + 20);
    let checkpoints = ledger::checkpoints(&mut conn, given_up).await.unwrap();
    assert!(checkpoints.len() < 20, "{} checkpoints for 20 records", checkpoints.len());
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

fn stored(digest: &Digest, bytes: &[u8]) -> Change {
    Change::ManifestStored(ManifestStored {
        component: "shop/api".parse().unwrap(),
        digest: digest.clone(),
        media_type: MEDIA_TYPE.to_owned(),
        size: bytes.len() as u64,
        subject: None,
    })
}

fn created(store: &Store, number: u32) -> Change {
    Change::ComponentCreated(ComponentCreated {
        component: format!("c{number}").parse().unwrap(),
        policy: TagPolicy::Release,
        home: store.id().to_owned(),
    })
}

#[tokio::test]
async fn a_change_is_made_durable_also_when_nobody_waits_for_it_any_more() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let who = actor(&store).await;
    let turn = store.turn().await.unwrap();
    let before = turn.size();
    {
        let mut waiting = Box::pin(turn.record(&who, now(), vec![created(&store, 1)]));
        // Polled until it waits for the disk, and then forgotten.
        while store.generation() >> 20 == before {
            if let std::task::Poll::Ready(done) = futures_util::poll!(waiting.as_mut()) {
                done.unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(store.turn().await.unwrap().size(), before + 1);
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

/// A collection may have its turn between the bytes and the entry that names them.
#[tokio::test]
async fn what_an_entry_names_is_there_when_it_is_recorded() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    fill(&store, 1).await;
    let who = actor(&store).await;
    let bytes = crate::manifest(7);
    let digest = store.blobs().put(&bytes).unwrap().digest;
    let log = store.blobs().put(b"what the build said").unwrap().digest;
    let failed = BuildFailed {
        component: "shop/api".parse().unwrap(),
        number: 1,
        reason: "it did not build".to_owned(),
        log: Some(log.clone()),
        platform: None,
    };
    let size = store.turn().await.unwrap().size();
    for (named, change) in [(digest.clone(), stored(&digest, &bytes)), (log, Change::BuildFailed(failed))] {
        store.blobs().discard(&named).unwrap();
        store.blobs().purge(&named).unwrap();
        let refused = store.turn().await.unwrap().record(&who, now(), vec![change.clone()]).await;
        assert!(matches!(&refused, Err(AppendError::Collected(gone)) if *gone == named), "{refused:?}");
        assert_eq!(store.turn().await.unwrap().size(), size, "nothing was recorded");
    }
    store.blobs().put(&bytes).unwrap();
    store.blobs().discard(&digest).unwrap();
    store.turn().await.unwrap().record(&who, now(), vec![stored(&digest, &bytes)]).await.unwrap();
    assert!(store.blobs().contains(&digest), "what was on its way out comes back");
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_signed_with_a_key_that_is_not_the_stores() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let who = actor(&store).await;
    let file = world.place().keys.join(store.id()).join("ledger");
    let change = || vec![created(&store, 1)];
    std::fs::remove_file(&file).unwrap();
    KeyRing::at(&world.place().keys, store.id()).create_ledger_key().unwrap();
    let refused = store.turn().await.unwrap().record(&who, now(), change()).await;
    assert!(matches!(refused, Err(AppendError::Key(KeyError::Foreign(_)))), "{refused:?}");
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn the_ledger_refuses_updates_and_deletes() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    for statement in [
        "UPDATE entry SET kind = 'x'",
        "DELETE FROM entry",
        "DELETE FROM checkpoint",
        "UPDATE node SET hash = ''",
    ] {
        let mut turn = store.turn().await.unwrap();
        let refused = turn.db().execute(statement, &[]).await;
        // An empty table has no row that a trigger could refuse.
        assert!(refused.is_err() || statement.contains("node"), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_of_many_processes_get_their_turn() {
    let Some(world) = world() else { return };
    drop(world.new_store().await);
    let mut tasks = Vec::new();
    for process in 0..4 {
        // Each store has connections and a lock of its own, as another process would.
        let store = Store::open(&world.place()).await.unwrap();
        for writer in 0..5 {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let who = actor(&store).await;
                let created = ComponentCreated {
                    component: format!("c{process}-{writer}").parse().unwrap(),
                    policy: TagPolicy::Release,
                    home: store.id().to_owned(),
                };
                store
                    .turn()
                    .await
                    .unwrap()
                    .record(&who, now(), vec![Change::ComponentCreated(created)])
                    .await
                    .unwrap()
            }));
        }
    }
    let mut places = Vec::new();
    for task in tasks {
        places.push(task.await.unwrap());
    }
    places.sort_unstable();
    assert_eq!(places, (1..=20).collect::<Vec<u64>>());
    let store = Store::open(&world.place()).await.unwrap();
    assert_eq!(component::list(&mut store.reader().await.unwrap(), "", 100).await.unwrap().len(), 20);
    assert_eq!(audit::verify(&store).await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_creators_end_up_with_one_store() {
    let Some(world) = world() else { return };
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let place = world.place();
            tokio::spawn(async move { Store::open_or_create(&place, now()).await.unwrap().id().to_owned() })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let store = Store::open(&world.place()).await.unwrap();
    assert_eq!(ledger::size(&mut store.reader().await.unwrap()).await.unwrap(), 1);
}

#[tokio::test]
async fn an_entry_that_names_a_document_instead_of_its_digest_is_refused() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let leaf = Leaf::Signature(vec![b'x'; 20_000]);
    let refused = store.turn().await.unwrap().append(vec![leaf]).await;
    assert!(matches!(refused, Err(AppendError::Leaf(_))));
    let released = HoldReleased { environment: "dev".parse().unwrap(), component: None };
    let who = actor(&store).await;
    store.turn().await.unwrap().record(&who, now(), vec![Change::HoldReleased(released)]).await.unwrap();
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_left_alone() {
    let Some(world) = world() else { return };
    let store = world.new_store().await;
    let path = store.dir().join("store.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
    #[expect(clippy::disallowed_methods, reason = "the test damages the store on purpose")]
    std::fs::write(&path, text).unwrap();
    assert!(matches!(
        Store::open_or_create(&world.place(), now()).await,
        Err(OpenError::Newer { found: 2, .. })
    ));
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_not_made_a_store() {
    let Some(world) = world() else { return };
    let place = world.place();
    std::fs::create_dir(&place.dir).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test plays another program")]
    std::fs::write(place.dir.join("thesis.txt"), "chapter one").unwrap();
    assert!(matches!(Store::open_or_create(&place, now()).await, Err(OpenError::NotAStore(_))));
    assert_eq!(std::fs::read_dir(&place.dir).unwrap().count(), 1);
}

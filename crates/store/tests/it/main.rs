//! The store through its public door.

#![allow(clippy::unwrap_used, reason = "a helper of a test panics for the test")]
#![allow(clippy::duplicate_mod, reason = "one suite, two databases")]

mod cluster;
mod world;

mod blobs;
mod embedded;
mod frozen;
mod schema;

/// The suite on SQLite.
#[path = "."]
mod sqlite {
    mod database;
    mod disaster;
    mod ledger;

    #[expect(clippy::unnecessary_wraps, reason = "PostgreSQL may not be there")]
    fn world() -> Option<crate::world::World> {
        Some(crate::world::World::on_sqlite())
    }
}

/// The suite on PostgreSQL.
#[path = "."]
mod postgres {
    mod database;
    mod disaster;
    mod ledger;
    mod server;

    fn world() -> Option<crate::world::World> {
        crate::world::World::on_postgres()
    }
}

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ChannelMoved, ComponentCreated, HoldSet, ManifestStored, VersionPublished};
use semel_model::version::TagPolicy;
use semel_store::Store;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

async fn actor(store: &Store) -> Actor {
    store.local_actor("ana", "test").await.unwrap()
}

const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The bytes of an index without parts.
fn manifest(number: u64) -> Vec<u8> {
    let annotations = serde_json::json!({"number": number.to_string()});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE, "manifests": [], "annotations": annotations});
    index.to_string().into_bytes()
}

/// Some history: a component, `n` versions, a channel and a hold.
async fn fill(store: &Store, n: u64) {
    let who = actor(store).await;
    let component: semel_model::name::ComponentName = "shop/api".parse().unwrap();
    let created = ComponentCreated {
        component: component.clone(),
        policy: TagPolicy::Release,
        home: store.id().to_owned(),
    };
    store.turn().await.unwrap().record(&who, now(), vec![Change::ComponentCreated(created)]).await.unwrap();
    for number in 0..n {
        let bytes = manifest(number);
        let digest = Digest::of(&bytes);
        store.blobs().put(&bytes).unwrap();
        let stored = ManifestStored {
            component: component.clone(),
            digest: digest.clone(),
            media_type: MEDIA_TYPE.into(),
            size: bytes.len() as u64,
            subject: None,
        };
        let published = VersionPublished {
            component: component.clone(),
            version: format!("1.0.{number}").parse().unwrap(),
            digest: digest.clone(),
            number: None,
            commit: None,
            log: None,
            source: None,
        };
        let moved = ChannelMoved {
            component: component.clone(),
            channel: "latest".parse().unwrap(),
            from: None,
            to: Some(digest),
        };
        let changes = vec![
            Change::ManifestStored(stored),
            Change::VersionPublished(published),
            Change::ChannelMoved(moved),
        ];
        store.turn().await.unwrap().record(&who, now(), changes).await.unwrap();
    }
    let hold =
        HoldSet { environment: "production".parse().unwrap(), component: None, reason: "freeze".into() };
    store.turn().await.unwrap().record(&who, now(), vec![Change::HoldSet(hold)]).await.unwrap();
}

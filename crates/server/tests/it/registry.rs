//! Names whose rules lie outside the registry (environments, reservations), damage, our own client, and who asks.

use std::collections::BTreeMap;

use semel_engine::pipeline;
use semel_model::digest::Digest;
use semel_model::entry::{BuildReserved, Change, ComponentCreated, DeploymentStarted, DeploymentSucceeded};
use semel_model::pipeline::{Binding, Pipeline};
use semel_model::version::TagPolicy;
use semel_oci::manifest::EncodedManifest;
use semel_oci::media_type;
use semel_oci::reference::TagOrDigest;
use serde_json::json;

use crate::{House, config, image, name, now, refused};

#[tokio::test]
async fn an_environment_is_a_tag_that_only_deployments_move() {
    let house = House::new().await;
    let image = house.push("1.0.0", "first").await;
    let who = house.store.local_actor("ana", "cli").await.unwrap();
    let environments = BTreeMap::from([("production".parse().unwrap(), binding())]);
    let pipeline = Pipeline::new(environments).unwrap();
    let apply = pipeline::Apply { component: name(), pipeline, only_first: false };
    pipeline::apply(&house.store, &who, apply, now()).await.unwrap();
    assert_eq!(house.get("/v2/shop/api/manifests/production").await.status, 404);

    let heard = house.put("production", &image).await;
    assert_eq!(heard.refusal(), refused(409, "DENIED"));
    assert_eq!(heard.detail()["reason"], "environment");

    deploy(&house, &image).await;
    assert_eq!(house.get("/v2/shop/api/manifests/production").await.body, image.bytes);
    assert_eq!(house.get("/v2/shop/api/tags/list").await.json()["tags"], json!(["1.0.0", "production"]));
    let heard = house.send("DELETE", "/v2/shop/api/manifests/production", &[], "").await;
    assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"));
}

fn binding() -> Binding {
    serde_json::from_value(json!({})).unwrap()
}

async fn deploy(house: &House, image: &EncodedManifest) {
    let some = house.store.blobs().put(b"some document").unwrap().digest;
    let started = DeploymentStarted {
        component: name(),
        environment: "production".parse().unwrap(),
        generation: 1,
        key: some.clone(),
        digest: image.descriptor.digest.clone(),
        version: None,
        config: some.clone(),
        target: some.clone(),
        decision: some,
        rollback_of: None,
    };
    let succeeded = DeploymentSucceeded {
        component: name(),
        environment: "production".parse().unwrap(),
        generation: 1,
        checked_by: "semel".to_owned(),
        needs: Vec::new(),
        warnings: Vec::new(),
    };
    record(house, vec![Change::DeploymentStarted(started), Change::DeploymentSucceeded(succeeded)]).await;
}

async fn record(house: &House, changes: Vec<Change>) {
    let who = house.store.local_actor("ana", "cli").await.unwrap();
    house.store.turn().await.unwrap().record(&who, now(), changes).await.unwrap();
}

#[tokio::test]
async fn a_name_that_a_build_has_reserved_is_refused_with_a_free_one() {
    let house = House::new().await;
    let created =
        ComponentCreated { component: name(), policy: TagPolicy::Release, home: house.store.id().to_owned() };
    let reserved = BuildReserved {
        component: name(),
        number: 7,
        version: "2.0.0".parse().unwrap(),
        key: Digest::of(b"key"),
        commit: "a".repeat(40).parse().unwrap(),
        line: semel_model::build::Line::Main("main".to_owned()),
        source: house.store.blobs().put(b"source").unwrap().digest,
        platforms: Vec::new(),
        again: None,
    };
    record(&house, vec![Change::ComponentCreated(created), Change::BuildReserved(reserved)]).await;
    let image = house.prepare("a").await;
    let heard = house.put("2.0.0", &image).await;
    assert_eq!(heard.refusal(), refused(409, "DENIED"));
    assert_eq!(heard.detail()["reason"], "version_reserved");
    assert_eq!(heard.detail()["next_free"], "2.0.1");
}

#[tokio::test]
async fn damage_is_a_fault_and_never_makes_a_name_disappear() {
    let house = House::new().await;
    let image = house.push("1.0.0", "a").await;
    let path = house.store.blobs().path(&image.descriptor.digest);
    std::fs::remove_file(&path).unwrap();
    for method in ["GET", "HEAD"] {
        let heard = house.send(method, "/v2/shop/api/manifests/1.0.0", &[], "").await;
        assert_eq!(heard.status, 500);
        assert!(!String::from_utf8_lossy(&heard.body).contains("sha256"));
    }
    assert_eq!(house.get("/v2/shop/api/tags/list").await.json()["tags"], json!(["1.0.0"]));
    // The same bytes heal it.
    assert_eq!(house.put("1.0.0", &image).await.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.body, image.bytes);
}

#[tokio::test]
async fn our_own_client_pushes_and_pulls() {
    let house = House::new().await;
    let client = house.client();
    let image = image("a", None);
    for bytes in [config("a"), "a".to_owned()] {
        client.put_bytes(&name(), bytes.into()).await.unwrap();
    }
    let tag = TagOrDigest::Tag("1.0.0".parse().unwrap());
    client.put_manifest(&name(), &tag, image.bytes.clone(), media_type::OCI_MANIFEST).await.unwrap();
    let pulled = client.get_manifest(&name(), &tag).await.unwrap();
    assert_eq!(pulled.parsed.layers[0].digest, Digest::of(b"a"));
    let head = client.head_manifest(&name(), &tag).await.unwrap().unwrap();
    assert_eq!(head.digest, Some(image.descriptor.digest));
}

#[tokio::test]
async fn who_asks_is_what_the_request_claims_else_the_servers_own_user() {
    let house = House::new().await;
    let long = "x".repeat(300);
    let cases = [
        (vec![("semel-actor", "Zoë"), ("semel-via", "cli")], ("Zoë", "cli")),
        (vec![("semel-actor", " "), ("semel-via", "registry")], ("ana", "api")),
        (vec![("semel-actor", long.as_str())], ("ana", "api")),
        (vec![], ("ana", "api")),
    ];
    for (claims, (name, via)) in cases {
        let mut headers = http::HeaderMap::new();
        for (header, value) in claims {
            headers.insert(header, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let caller = house.app.caller(&headers);
        assert_eq!((caller.name.as_str(), caller.via), (name, via));
        let actor = house.app.actor(&headers).await.unwrap();
        assert_eq!(
            (house.store.name_of(&actor.subject).await.unwrap().as_str(), actor.via.as_str()),
            (name, via)
        );
    }
}

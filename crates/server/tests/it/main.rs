//! The server through its public door: in the process, over a socket, and with other people's clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod conformance;
mod hostile;
mod openapi;
mod memory;
mod properties;
mod registry;
mod serving;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use jiff::Timestamp;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::client::RegistryClient;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{EncodedManifest, ImageManifest};
use semel_oci::media_type;
use semel_oci::transport::{Body, Transport};
use semel_server::{App, router};
use semel_store::{Place, Store};
use serde_json::Value;

const NOW: &str = "2026-11-22T10:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn name() -> ComponentName {
    "shop/api".parse().unwrap()
}

/// A server with a new store, in this process.
struct House {
    directory: tempfile::TempDir,
    store: Store,
    app: App,
    transport: Transport,
}

/// An answer, taken in whole.
#[derive(Debug)]
struct Heard {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl House {
    async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    /// The store in a directory, with a server that knows nothing of the one before.
    async fn on(directory: tempfile::TempDir) -> Self {
        let place = Place::embedded(directory.path().join("store"), directory.path().join("keys"));
        let store = Store::open_or_create(&place, now()).await.unwrap();
        let app = App::new(store.clone(), now, "ana");
        let transport = Transport::in_process(router(app.clone()));
        Self { directory, store, app, transport }
    }

    fn client(&self) -> RegistryClient {
        RegistryClient::new(self.transport.clone())
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Heard {
        send(&self.transport, method, path, headers, Body::full(body)).await
    }

    async fn get(&self, path: &str) -> Heard {
        self.send("GET", path, &[], "").await
    }

    async fn push_blob(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let heard =
            self.send("POST", &format!("/v2/shop/api/blobs/uploads/?digest={digest}"), &[], bytes).await;
        assert_eq!(heard.status, 201, "{heard:?}");
        digest
    }

    /// Pushes what an image needs, and gives its manifest.
    async fn prepare(&self, content: &str) -> EncodedManifest {
        let image = image(content, None);
        self.push_blob(config(content)).await;
        self.push_blob(content.to_owned()).await;
        image
    }

    async fn put(&self, reference: &str, manifest: &EncodedManifest) -> Heard {
        let path = format!("/v2/shop/api/manifests/{reference}");
        let headers = [("content-type", manifest.descriptor.media_type.as_str())];
        self.send("PUT", &path, &headers, manifest.bytes.clone()).await
    }

    async fn push(&self, reference: &str, content: &str) -> EncodedManifest {
        let image = self.prepare(content).await;
        let heard = self.put(reference, &image).await;
        assert_eq!(heard.status, 201, "{heard:?}");
        image
    }
}

async fn send(
    transport: &Transport,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Heard {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Heard::of(transport.send(request.body(body).unwrap()).await.unwrap()).await
}

impl Heard {
    async fn of(answer: http::Response<Body>) -> Self {
        let (parts, body) = answer.into_parts();
        let body = body.collect_limited(100_000_000).await.unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and error code.
    fn refusal(&self) -> (u16, String) {
        let body = self.json();
        assert_eq!(body["errors"].as_array().unwrap().len(), 1);
        (self.status, body["errors"][0]["code"].as_str().unwrap().to_owned())
    }

    fn detail(&self) -> Value {
        self.json()["errors"][0]["detail"].clone()
    }

    fn message(&self) -> String {
        self.json()["errors"][0]["message"].as_str().unwrap().to_owned()
    }
}

fn config(content: &str) -> String {
    format!("{{\"of\":\"{content}\"}}")
}

fn image(content: &str, subject: Option<Descriptor>) -> EncodedManifest {
    let manifest = ImageManifest {
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, config(content).as_bytes()),
        layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, content.as_bytes())],
        subject,
        annotations: Annotations::from([("content".to_owned(), content.to_owned())]),
    };
    manifest.encode()
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

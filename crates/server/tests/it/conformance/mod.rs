//! The conformance suite: what the OCI distribution specification 1.1 asks of a registry, what its own suite checks, and what
//! that leaves out.
//!
//! One file per area. Each test has a component of its own, so the suite also runs against a server that has others:
//!
//! ```text
//! SEMEL_CONFORMANCE=http://127.0.0.1:5000 cargo test -p semel-server --test it conformance
//! ```
//!
//! What needs the inside of the store, or a store that nobody else uses, is left out then.

mod base;
mod blobs;
mod catalog;
mod concurrency;
mod conditions;
mod deletes;
mod errors;
mod manifests;
mod names;
mod ranges;
mod referrers;
mod restart;
mod tags;
mod uploads;

use std::hash::{BuildHasher as _, Hasher as _};

use bytes::Bytes;
use semel_model::digest::{Algorithm, Digest};
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::EncodedManifest;
use semel_oci::media_type;
use semel_oci::transport::{Body, Transport};
use serde_json::{Value, json};

use crate::{Heard, House};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The registry under test, and a component in it that nobody else uses.
struct Registry {
    transport: Transport,
    component: String,
    /// Where the registry is in this process.
    house: Option<House>,
}

impl Registry {
    async fn new() -> Self {
        let component = format!("conformance/{:016x}", random());
        match remote() {
            Some(transport) => Self { transport, component, house: None },
            None => {
                let house = House::new().await;
                Self { transport: house.transport.clone(), component, house: Some(house) }
            }
        }
    }

    /// A registry whose inside can be reached; none when the suite runs against a server.
    #[expect(clippy::print_stderr, reason = "whoever runs the suite should know what it did not look at")]
    async fn own() -> Option<(Self, House)> {
        let mut registry = Self::new().await;
        let Some(house) = registry.house.take() else {
            eprintln!("left out: it needs the inside of the store");
            return None;
        };
        Some((registry, house))
    }

    /// The same registry with another component.
    fn beside(&self, suffix: &str) -> Self {
        let component = format!("{}-{suffix}", self.component);
        Self { transport: self.transport.clone(), component, house: None }
    }

    /// The path of something of the component.
    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.component)
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Heard {
        crate::send(&self.transport, method, path, headers, Body::full(body)).await
    }

    /// Asks for something of the component.
    async fn get(&self, rest: &str) -> Heard {
        self.send("GET", &self.path(rest), &[], "").await
    }

    async fn head(&self, rest: &str) -> Heard {
        self.send("HEAD", &self.path(rest), &[], "").await
    }

    async fn delete(&self, rest: &str) -> Heard {
        self.send("DELETE", &self.path(rest), &[], "").await
    }

    /// Opens an upload and gives its address.
    async fn start(&self) -> String {
        let heard = self.send("POST", &self.path("blobs/uploads/"), &[], "").await;
        assert_eq!(heard.status, 202, "{heard:?}");
        heard.header("location").to_owned()
    }

    async fn push_blob(&self, bytes: impl Into<Bytes>) -> Digest {
        self.push_blob_as(Algorithm::Sha256, bytes).await
    }

    async fn push_blob_as(&self, algorithm: Algorithm, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of_with(algorithm, &bytes);
        let path = self.path(&format!("blobs/uploads/?digest={digest}"));
        let heard = self.send("POST", &path, &[], bytes).await;
        assert_eq!(heard.status, 201, "{heard:?}");
        digest
    }

    async fn put(&self, reference: &str, manifest: &Document) -> Heard {
        let path = self.path(&format!("manifests/{reference}"));
        self.send("PUT", &path, &[("content-type", &manifest.media_type)], manifest.bytes.clone()).await
    }

    /// Pushes an image with its content, and gives its manifest.
    async fn push(&self, reference: &str, content: &str) -> Document {
        let image = self.prepare(content).await;
        let heard = self.put(reference, &image).await;
        assert_eq!(heard.status, 201, "{heard:?}");
        image
    }

    /// Pushes what an image needs, and gives its manifest.
    async fn prepare(&self, content: &str) -> Document {
        self.push_blob(crate::config(content)).await;
        self.push_blob(content.to_owned()).await;
        crate::image(content, None).into()
    }
}

/// A manifest as it is pushed.
#[derive(Debug, Clone)]
struct Document {
    bytes: Bytes,
    media_type: String,
}

impl Document {
    /// JSON as other programs write it, with line ends that a registry must keep.
    fn new(media_type: &str, document: &Value) -> Self {
        let bytes = serde_json::to_vec_pretty(document).unwrap().into();
        Self { bytes, media_type: media_type.to_owned() }
    }

    fn index(manifests: &[&Self]) -> Self {
        let manifests: Vec<Descriptor> = manifests.iter().map(|manifest| manifest.descriptor()).collect();
        let media_type = media_type::OCI_INDEX;
        Self::new(media_type, &json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}))
    }

    fn digest(&self) -> Digest {
        self.descriptor().digest
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor::of(&self.media_type, &self.bytes)
    }
}

impl From<EncodedManifest> for Document {
    fn from(manifest: EncodedManifest) -> Self {
        Self { bytes: manifest.bytes, media_type: manifest.descriptor.media_type }
    }
}

#[expect(clippy::disallowed_methods, reason = "the suite is told by the environment what to run against")]
fn remote() -> Option<Transport> {
    let address = std::env::var("SEMEL_CONFORMANCE").ok()?;
    Some(Transport::remote(&address).unwrap())
}

fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

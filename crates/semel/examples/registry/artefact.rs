//! Small artefacts: a blob of 1 KiB and a manifest with a version for its tag.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use semel_model::digest::Digest;
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;

use crate::Error;
use crate::http::Connection;
use crate::layer::{Layer, Layers};
use crate::load::Work;
use crate::push::{self, Upload};

/// The size of the blob.
pub(crate) const BLOB_BYTES: u64 = 1024;

/// Pushes small artefacts, every time another one under another version.
#[derive(Debug)]
pub(crate) struct Artefacts {
    server: SocketAddr,
    component: String,
    blobs: Layers,
    next: AtomicU64,
}

/// A small artefact.
#[derive(Debug, Clone)]
pub(crate) struct Artefact {
    pub(crate) blob: Layer,
    pub(crate) version: String,
    pub(crate) manifest: Bytes,
    pub(crate) digest: Digest,
}

impl Artefact {
    /// The artefact of a number: version 2.0.NUMBER, with a layer for its only blob.
    pub(crate) fn new(blobs: &Layers, number: u64) -> Self {
        let blob = blobs.number(number);
        let descriptor = |media_type: &str| Descriptor::new(media_type, blob.digest.clone(), blob.size);
        let manifest = ImageManifest {
            artifact_type: None,
            config: descriptor(media_type::OCI_CONFIG),
            layers: vec![descriptor(media_type::OCI_LAYER_GZIP)],
            subject: None,
            annotations: BTreeMap::new(),
        };
        let encoded = manifest.encode();
        let version = format!("2.0.{number}");
        Self { blob, version, manifest: encoded.bytes, digest: encoded.descriptor.digest }
    }

    /// Pushes the blob, then the manifest under its version.
    pub(crate) async fn push(
        &self,
        connection: &mut Connection,
        server: SocketAddr,
        component: &str,
    ) -> Result<(), Error> {
        push::blob(connection, server, component, &self.blob, Upload::Monolithic).await?;
        push::manifest(connection, server, component, &self.version, &self.manifest).await
    }
}

impl Artefacts {
    /// Beginning with a number.
    pub(crate) fn new(server: SocketAddr, component: &str, first: u64) -> Self {
        let blobs = Layers::new(BLOB_BYTES);
        Self { server, component: component.to_owned(), blobs, next: AtomicU64::new(first) }
    }
}

impl Work for Artefacts {
    async fn once(&self, connection: &mut Connection) -> Result<(), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Artefact::new(&self.blobs, number).push(connection, self.server, &self.component).await
    }
}

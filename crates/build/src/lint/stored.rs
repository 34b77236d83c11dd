//! Stored: an artefact as it lies in an OCI layout, layer by layer.

use std::path::PathBuf;

use semel_model::config::{CONTRACT_ANNOTATION, Contract};
use semel_model::digest::Digest;
use semel_oci::chunked::{ChunkedFile, InvalidChunks};
use semel_oci::compression::Compression;
use semel_oci::copy::{Endpoint, Source};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, LayoutError, Select};
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use serde_json::Value;

use crate::base::Base;
use crate::layer::{self, Listing};
use crate::zip::ZIP;

/// The annotation with the name of a layer that is a file by itself (image-spec 1.1 `annotations.md`).
const TITLE: &str = "org.opencontainers.image.title";

/// How deep indexes may lie in each other.
const DEPTH_MAX: u32 = 3;

/// One manifest with its layers.
#[derive(Debug, Clone)]
pub struct Stored {
    pub(super) layers: Vec<StoredLayer>,
    /// The paths that the layers leave together; none: that is not known yet.
    pub(super) visible: Option<Listing>,
    /// The configuration, where it is JSON.
    pub(super) config: Option<Value>,
    /// The contract that it carries.
    pub contract: Contract,
}

/// The bytes of a layer.
#[derive(Debug, Clone)]
pub(super) struct StoredLayer {
    pub(super) digest: Digest,
    pub(super) path: PathBuf,
    pub(super) packing: Packing,
}

/// How a layer is stored.
#[derive(Debug, Clone)]
pub(super) enum Packing {
    /// Files in a tar stream.
    Tar(Compression),
    /// One file by this name.
    File(String),
    /// A serverless package.
    Zip,
    /// A disk image, in chunks.
    Chunks {
        /// Its name.
        name: String,
        /// Its length in bytes.
        size: u64,
        /// The chunks, in order.
        chunks: Vec<PathBuf>,
    },
    /// In a way that is not read here: the media type.
    Other(String),
}

/// Why a stored artefact cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The layout cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Its bytes are no manifest.
    #[error("{digest} is no manifest")]
    Manifest {
        /// Which bytes.
        digest: Digest,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// Its layers are not the disk image that its configuration describes.
    #[error(transparent)]
    Chunks(#[from] InvalidChunks),
    /// It has a configuration or a contract that cannot be looked at.
    #[error("the {what} of {digest} cannot be read")]
    Unreadable {
        /// Which of the two.
        what: &'static str,
        /// Whose.
        digest: Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Indexes lie in each other without end.
    #[error("{digest} is an index of indexes")]
    TooDeep {
        /// The index.
        digest: Digest,
    },
}

impl Stored {
    /// Opens an artefact of a layout: one, or the parts of an index.
    pub async fn open(layout: &Layout, artefact: &Digest) -> Result<Vec<Self>, StoredError> {
        let mut found = Vec::new();
        let mut ahead = vec![(artefact.clone(), 0)];
        while let Some((digest, depth)) = ahead.pop() {
            let descriptor = layout.resolve(Select::Digest(&digest)).await?;
            let bytes = layout.read_blob(&digest).await?;
            let manifest = ParsedManifest::parse(&bytes, Some(&descriptor.media_type))
                .map_err(|source| StoredError::Manifest { digest: digest.clone(), source })?;
            if !manifest.is_index() {
                found.push(Self::of_manifest(layout, &digest, &manifest).await?);
            } else if depth == DEPTH_MAX {
                return Err(StoredError::TooDeep { digest });
            } else {
                ahead.extend(manifest.manifests.iter().map(|part| (part.digest.clone(), depth + 1)));
            }
        }
        Ok(found)
    }

    /// A configuration that nobody promises to be JSON need not be; an image's and a contract must.
    async fn of_manifest(
        layout: &Layout,
        digest: &Digest,
        manifest: &ParsedManifest,
    ) -> Result<Self, StoredError> {
        let unreadable =
            |what| move |source| StoredError::Unreadable { what, digest: digest.clone(), source };
        let config = match &manifest.config {
            Some(config) if config.media_type.ends_with("json") => {
                let bytes = layout.read_blob(&config.digest).await?;
                Some(serde_json::from_slice(&bytes).map_err(unreadable("configuration"))?)
            }
            _ => None,
        };
        let contract = manifest.annotations.get(CONTRACT_ANNOTATION);
        let contract = contract.map(|text| serde_json::from_str(text)).transpose();
        let contract = contract.map_err(unreadable("contract"))?.unwrap_or_default();
        let layers = match ChunkedFile::is_in(manifest) {
            true => vec![StoredLayer::of_chunks(layout, manifest).await?],
            false => manifest.layers.iter().map(|layer| StoredLayer::of(layout, layer)).collect(),
        };
        Ok(Self { layers, visible: None, config, contract })
    }

    /// The layers below an artefact. Their configuration went into that of the artefact.
    pub(crate) fn of_base(base: &Base) -> Self {
        let layers = base.layers.iter().zip(&base.tars).map(|(layer, tar)| StoredLayer {
            digest: layer.digest.clone(),
            path: tar.clone(),
            packing: Packing::Tar(Compression::None),
        });
        let visible = Some(base.listing.clone());
        Self { layers: layers.collect(), visible, config: None, contract: Contract::default() }
    }

    /// What the layers leave together.
    pub(super) fn list(&mut self) -> Result<Listing, super::LintError> {
        if let Some(visible) = self.visible.take() {
            return Ok(visible);
        }
        let mut listing = Listing::default();
        for layer in &self.layers {
            if let Packing::Tar(compression) = layer.packing {
                let added = layer::open(&layer.path, compression).and_then(|tar| listing.add(tar));
                added.map_err(|source| super::LintError::Layer { layer: layer.digest.clone(), source })?;
            }
        }
        Ok(listing)
    }
}

impl StoredLayer {
    fn of(layout: &Layout, layer: &Descriptor) -> Self {
        let path = layout.blob_path(&layer.digest);
        Self { digest: layer.digest.clone(), path, packing: Packing::of(layer) }
    }

    /// The chunks of a disk image are one file, by its own digest.
    async fn of_chunks(layout: &Layout, manifest: &ParsedManifest) -> Result<Self, StoredError> {
        let source = Source::Endpoint(Endpoint::Layout(layout.clone()));
        let file = ChunkedFile::read(manifest, &source).await?;
        let chunks = manifest.layers.iter().map(|chunk| layout.blob_path(&chunk.digest)).collect();
        let packing = Packing::Chunks { name: file.name, size: file.size, chunks };
        Ok(Self { path: layout.blob_path(&file.digest), digest: file.digest, packing })
    }
}

impl Packing {
    fn of(layer: &Descriptor) -> Self {
        if layer.media_type == ZIP {
            return Self::Zip;
        }
        match (Compression::of_layer(&layer.media_type), layer.annotations.get(TITLE)) {
            (Some(compression), _) => Self::Tar(compression),
            (None, Some(title)) => Self::File(format!("/{}", title.trim_start_matches('/'))),
            (None, None) if layer.media_type.contains(".tar") => Self::Other(layer.media_type.clone()),
            (None, None) => Self::File(format!("layer {}", layer.digest.short())),
        }
    }
}

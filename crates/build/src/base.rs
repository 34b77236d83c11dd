//! Base: the image below the files, an OCI layout that is pinned by digest.
//!
//! It lies in the working tree, tracked or not: the digest says what it is, and every byte that is used is hashed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use semel_model::digest::Digest;
use semel_model::platform::Platform;
use semel_model::project::split_base;
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, LayoutError, Select};
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use semel_oci::media_type;
use serde_json::Value;

use crate::collect::{PackFile, PackKind, lexical, parents};
use crate::rootfs::Rootfs;

/// A base image, read.
#[derive(Debug, Clone)]
pub struct Base {
    layout: Layout,
    /// The layout as the project file names it.
    pub name: String,
    /// The digest in the project file.
    pub digest: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Its configuration.
    pub config: Value,
    /// What its layers lay out together, sorted by path.
    pub files: Vec<PackFile>,
}

/// Why a base cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The layout could not be read or written.
    #[error("cannot read the base {name}")]
    Layout {
        /// As the project file names it.
        name: String,
        /// The cause.
        #[source]
        source: LayoutError,
    },
    /// What has the digest is no manifest.
    #[error("the base {name} has no manifest {digest}")]
    Manifest {
        /// As the project file names it.
        name: String,
        /// The digest.
        digest: Digest,
        /// The cause.
        #[source]
        source: InvalidManifest,
    },
    /// It is no image, or none for this platform.
    #[error("the base {name} {problem}")]
    Unusable {
        /// As the project file names it.
        name: String,
        /// Why.
        problem: String,
    },
    /// A layer could not be read as a tar file.
    #[error("cannot read layer {layer} of the base {name}")]
    Layer {
        /// As the project file names it.
        name: String,
        /// Its digest.
        layer: Digest,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Base {
    /// Opens the base that a definition names. An index is entered at the platform's manifest.
    pub async fn open(project_dir: &Path, base: &str, platform: &Platform) -> Result<Self, BaseError> {
        let (name, digest) = split_base(base).ok_or_else(|| BaseError::Unusable {
            name: base.to_owned(),
            problem: "is not pinned: write layout@sha256:…".to_owned(),
        })?;
        let opened = Layout::open(project_dir.join(name)).await;
        let reader = Reader { layout: opened.map_err(|source| unreadable(name, source))?, name };
        let manifest = reader.manifest(&digest, platform).await?;
        let config = reader.config(&manifest).await?;
        reader.verify(&manifest.layers).await?;
        let files = reader.list(manifest.layers.clone()).await?;
        Ok(Self {
            layout: reader.layout,
            name: name.to_owned(),
            digest,
            layers: manifest.layers,
            config,
            files,
        })
    }

    /// What the layers lay out together, with files that can be opened for as long as `copies` lasts: a directory that
    /// does not exist yet, where each layer is written once as a plain tar file.
    pub fn rootfs(&self, copies: &Path) -> Result<Rootfs, BaseError> {
        let broken = |layer: &Descriptor, source| BaseError::Layer {
            name: self.name.clone(),
            layer: layer.digest.clone(),
            source,
        };
        let mut rootfs = Rootfs::default();
        for (number, layer) in self.layers.iter().enumerate() {
            let mut apply = || {
                fs::create_dir_all(copies)?;
                rootfs.add_layer(self.open_layer(layer)?, &copies.join(format!("layer{number}.tar")))
            };
            apply().map_err(|source| broken(layer, source))?;
        }
        Ok(rootfs)
    }

    /// The tar stream of one of its layers.
    pub(crate) fn open_layer(&self, layer: &Descriptor) -> io::Result<Box<dyn Read>> {
        let compression = Compression::of(layer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, layer.media_type.as_str()))?;
        compression.open(&self.layout.blob_path(&layer.digest))
    }

    /// Copies the layers into another layout.
    pub(crate) async fn copy_layers(&self, to: &Layout) -> Result<(), BaseError> {
        for layer in &self.layers {
            let reader =
                self.layout.open_blob(layer).await.map_err(|source| unreadable(&self.name, source))?;
            to.add_blob(layer, reader).await.map_err(|source| unreadable(&self.name, source))?;
        }
        Ok(())
    }
}

fn unreadable(name: &str, source: LayoutError) -> BaseError {
    BaseError::Layout { name: name.to_owned(), source }
}

struct Reader<'a> {
    layout: Layout,
    name: &'a str,
}

impl Reader<'_> {
    async fn manifest(&self, digest: &Digest, platform: &Platform) -> Result<ParsedManifest, BaseError> {
        let mut digest = digest.clone();
        for _ in 0..3 {
            let found = self.layout.resolve(Select::Digest(&digest)).await;
            let descriptor = found.map_err(|source| unreadable(self.name, source))?;
            let bytes =
                self.layout.read_blob(&digest).await.map_err(|source| unreadable(self.name, source))?;
            let manifest = ParsedManifest::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| {
                BaseError::Manifest { name: self.name.to_owned(), digest: digest.clone(), source }
            })?;
            if !manifest.is_index() {
                return Ok(manifest);
            }
            let is_met = |platform_of: &Value| platform.is_met_by(platform_of);
            let part = manifest.manifests.iter().find(|part| part.platform.as_ref().is_some_and(is_met));
            digest = part
                .map(|part| part.digest.clone())
                .ok_or_else(|| self.unusable(format!("has no manifest for {platform}")))?;
        }
        Err(self.unusable("is an index of indexes"))
    }

    async fn config(&self, manifest: &ParsedManifest) -> Result<Value, BaseError> {
        let config = manifest.config.as_ref().ok_or_else(|| self.unusable("has no image configuration"))?;
        let bytes =
            self.layout.read_blob(&config.digest).await.map_err(|source| unreadable(self.name, source))?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| self.unusable(format!("has a configuration that is not JSON: {error}")))?;
        let ids = value.pointer("/rootfs/diff_ids").and_then(Value::as_array).map_or(0, Vec::len);
        if ids != manifest.layers.len() {
            return Err(self.unusable(format!("has {} layers and {ids} diff_ids", manifest.layers.len())));
        }
        Ok(value)
    }

    /// Reads every layer to its end: the reader of the layout fails where a byte is wrong.
    async fn verify(&self, layers: &[Descriptor]) -> Result<(), BaseError> {
        for layer in layers {
            let mut reader =
                self.layout.open_blob(layer).await.map_err(|source| unreadable(self.name, source))?;
            tokio::io::copy(&mut reader, &mut tokio::io::sink())
                .await
                .map_err(|source| self.broken(layer, source))?;
        }
        Ok(())
    }

    async fn list(&self, layers: Vec<Descriptor>) -> Result<Vec<PackFile>, BaseError> {
        let mut files = BTreeMap::new();
        for layer in layers {
            let compression = Compression::of(&layer).ok_or_else(|| {
                self.unusable(format!("has a layer of type {}, which is not read here", layer.media_type))
            })?;
            let path = self.layout.blob_path(&layer.digest);
            let listed = tokio::task::spawn_blocking(move || read_layer(&path, compression, files)).await;
            files = listed
                .unwrap_or_else(|panic| Err(io::Error::other(panic)))
                .map_err(|e| self.broken(&layer, e))?;
        }
        Ok(files.into_values().collect())
    }

    fn unusable(&self, problem: impl Into<String>) -> BaseError {
        BaseError::Unusable { name: self.name.to_owned(), problem: problem.into() }
    }

    fn broken(&self, layer: &Descriptor, source: io::Error) -> BaseError {
        BaseError::Layer { name: self.name.to_owned(), layer: layer.digest.clone(), source }
    }
}

/// How a layer is stored.
#[derive(Debug, Clone, Copy)]
enum Compression {
    None,
    Gzip,
}

impl Compression {
    fn of(layer: &Descriptor) -> Option<Self> {
        match layer.media_type.as_str() {
            media_type::OCI_LAYER_TAR => Some(Self::None),
            media_type::OCI_LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Some(Self::Gzip)
            }
            _ => None,
        }
    }

    /// The tar stream of a layer.
    fn open(self, path: &Path) -> io::Result<Box<dyn Read>> {
        let file = BufReader::new(File::open(path)?);
        Ok(match self {
            Self::None => Box::new(file),
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
        })
    }
}

type Listing = BTreeMap<Vec<u8>, PackFile>;

/// Applies one layer to what the layers below it laid out (image-spec, layer.md, "Applying Changesets").
fn read_layer(path: &Path, compression: Compression, mut files: Listing) -> io::Result<Listing> {
    let mut archive = tar::Archive::new(compression.open(path)?);
    for entry in archive.entries()? {
        let entry = entry?;
        let name = lexical(&entry.path_bytes());
        let (dir, base) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&name[..at], &name[at + 1..]),
            None => (&b""[..], name.as_slice()),
        };
        if base == b".wh..wh..opq" {
            files.retain(|path, _| !is_below(path, dir));
        } else if let Some(gone) = base.strip_prefix(b".wh.") {
            let gone = if dir.is_empty() { gone.to_vec() } else { [dir, b"/", gone].concat() };
            files.retain(|path, _| *path != gone && !is_below(path, &gone));
        } else if !name.is_empty() {
            let header = entry.header();
            let kind = match header.entry_type() {
                tar::EntryType::Directory => PackKind::Dir,
                tar::EntryType::Symlink => {
                    PackKind::Symlink { target: entry.link_name_bytes().unwrap_or_default().into_owned() }
                }
                _ => PackKind::File { mode: header.mode()?, size: 0, from: path.to_owned(), stamp: [0; 6] },
            };
            files.insert(name.clone(), PackFile { path: name, layer: None, kind });
        }
    }
    Ok(files)
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || parents(path).any(|parent| parent == dir)
}

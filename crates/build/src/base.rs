//! Base: the image below the files, pinned by digest.
//!
//! It comes from a registry, from the store in use, or from an OCI layout or archive of the project, tracked or not: the
//! digest says what it is, and every byte that is used is hashed. What is fetched is kept by digest, so that the next build
//! needs no network.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use http::StatusCode;
use ruzstd::decoding::StreamingDecoder;
use semel_model::digest::Digest;
use semel_model::platform::Platform;
use semel_model::project::split_base;
use semel_oci::archive::{self, ArchiveError};
use semel_oci::bundle::Bundle;
use semel_oci::client::RegistryClient;
use semel_oci::closure::ManifestSource as _;
use semel_oci::copy::{CopyError, Endpoint, Progress, Source, copy_found};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, LayoutError, Select};
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use semel_oci::media_type;
use semel_oci::reference::{InvalidReference, Place, Reference, TagOrDigest, registry_base};
use semel_oci::sign_in::Logins;
use semel_oci::transport::Transport;
use serde_json::Value;

use crate::collect::{PackFile, PackKind, lexical, parents};
use crate::rootfs::Rootfs;

/// Where bases are, besides the project's own directory.
#[derive(Debug, Clone)]
pub struct BaseSources {
    /// An OCI layout that keeps what was fetched. It is made when it is needed, and may be removed at any time between
    /// builds.
    pub cache: PathBuf,
    /// The store in use, which has the bases that are written as `component@sha256:…`.
    pub store: Option<RegistryClient>,
    /// Who one is at registries.
    pub logins: Logins,
}

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
    /// It could not be fetched.
    #[error("cannot fetch the base {name}")]
    Fetch {
        /// As the project file names it.
        name: String,
        /// The cause.
        #[source]
        source: Box<CopyError>,
    },
    /// The archive could not be read.
    #[error("cannot read the base {name}")]
    Archive {
        /// As the project file names it.
        name: String,
        /// The cause.
        #[source]
        source: Box<ArchiveError>,
    },
    /// Its name leads nowhere.
    #[error("the base {name} is neither a file or directory of the project nor an image")]
    Place {
        /// As the project file names it.
        name: String,
        /// The cause.
        #[source]
        source: InvalidReference,
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

impl BaseError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch { name, source } if is_unauthorised(source) => {
                Some(format!("sign in to the registry of {name}: docker login, or podman login"))
            }
            Self::Fetch { .. } => Some("semel lock shows whether it is still there".to_owned()),
            Self::Place { name, .. } => Some(format!("semel lock --update-base {name}")),
            _ => None,
        }
    }
}

fn is_unauthorised(error: &CopyError) -> bool {
    matches!(error, CopyError::Registry(error) if error.status() == Some(StatusCode::UNAUTHORIZED))
}

impl Base {
    /// Opens the base that a definition names, and fetches it if need be. An index is entered at the platform's manifest.
    pub async fn open(
        project_dir: &Path,
        base: &str,
        platform: &Platform,
        sources: &BaseSources,
    ) -> Result<Self, BaseError> {
        let (name, digest) = split_base(base).ok_or_else(|| BaseError::Unusable {
            name: base.to_owned(),
            problem: "is not pinned: write name@sha256:…".to_owned(),
        })?;
        let layout = match find(project_dir, name, sources).await? {
            Found::Layout(layout) => layout,
            Found::Elsewhere(elsewhere) => kept(name, &digest, platform, &elsewhere, &sources.cache).await?,
        };
        Self::in_layout(layout, name, digest, platform).await
    }

    /// Opens an image of a layout.
    pub(crate) async fn in_layout(
        layout: Layout,
        name: &str,
        digest: Digest,
        platform: &Platform,
    ) -> Result<Self, BaseError> {
        let reader = Reader { layout, name };
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

    /// Where the bytes of one of its layers are.
    pub(crate) fn layer_path(&self, layer: &Descriptor) -> PathBuf {
        self.layout.blob_path(&layer.digest)
    }

    /// The tar stream of one of its layers.
    fn open_layer(&self, layer: &Descriptor) -> io::Result<Box<dyn Read>> {
        let compression = Compression::of(&layer.media_type)
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, layer.media_type.as_str()))?;
        compression.open(&self.layer_path(layer))
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

/// Where a base is.
enum Found {
    /// Here, and it can be read where it lies.
    Layout(Layout),
    /// Where it must be copied from.
    Elsewhere(Source),
}

async fn find(project_dir: &Path, name: &str, sources: &BaseSources) -> Result<Found, BaseError> {
    match place_of(project_dir, name)? {
        Place::Layout { directory, .. } => {
            let opened = Layout::open(project_dir.join(directory)).await;
            Ok(Found::Layout(opened.map_err(|source| unreadable(name, source))?))
        }
        Place::Archive { file, .. } => {
            let bundle = open_archive(name, &project_dir.join(file)).await?;
            Ok(Found::Elsewhere(Source::Bundle(bundle)))
        }
        Place::Registry(reference) | Place::Component(reference) => {
            let client = sources.client(name, &reference)?;
            Ok(Found::Elsewhere(Source::Endpoint(Endpoint::Registry { client, name: reference.name })))
        }
    }
}

/// What lies in the project comes first: a path can be written so that it is nothing else.
fn place_of(project_dir: &Path, name: &str) -> Result<Place, BaseError> {
    match std::fs::metadata(project_dir.join(name)) {
        Ok(found) if found.is_dir() => Ok(Place::Layout { directory: name.into(), tag: None, digest: None }),
        Ok(_) => Ok(Place::Archive { file: name.into(), tag: None, digest: None }),
        Err(_) => name.parse().map_err(|source| BaseError::Place { name: name.to_owned(), source }),
    }
}

async fn open_archive(name: &str, file: &Path) -> Result<Bundle, BaseError> {
    archive::open(file)
        .await
        .map_err(|source| BaseError::Archive { name: name.to_owned(), source: Box::new(source) })
}

/// Which image the name of a base means now; none where it has no tag, so that it can mean only one.
pub async fn newest(
    project_dir: &Path,
    name: &str,
    sources: &BaseSources,
) -> Result<Option<Digest>, BaseError> {
    match place_of(project_dir, name)? {
        Place::Layout { directory, tag, .. } => {
            let failed = |source| unreadable(name, source);
            let layout = Layout::open(project_dir.join(directory)).await.map_err(failed)?;
            let wanted = tag.as_deref().map_or(Select::Only, Select::Tag);
            Ok(Some(layout.resolve(wanted).await.map_err(failed)?.digest))
        }
        Place::Archive { file, tag, .. } => {
            let bundle = open_archive(name, &project_dir.join(file)).await?;
            let wanted = tag.as_deref().map_or(Select::Only, Select::Tag);
            let found = bundle.resolve(wanted).map(|entry| entry.digest.clone());
            Ok(Some(found.map_err(|source| fetch_error(name, source.into()))?))
        }
        Place::Registry(reference) | Place::Component(reference) => {
            let client = sources.client(name, &reference)?;
            let Some(tag) = reference.tag else { return Ok(None) };
            let manifest = client.get_manifest(&reference.name, &TagOrDigest::Tag(tag)).await;
            Ok(Some(manifest.map_err(|source| fetch_error(name, source.into()))?.descriptor.digest))
        }
    }
}

fn fetch_error(name: &str, source: CopyError) -> BaseError {
    BaseError::Fetch { name: name.to_owned(), source: Box::new(source) }
}

impl BaseSources {
    /// The registry of a reference: the named one, or the store.
    fn client(&self, name: &str, reference: &Reference) -> Result<RegistryClient, BaseError> {
        let unusable = |problem: String| BaseError::Unusable { name: name.to_owned(), problem };
        let Some(host) = &reference.host else {
            return self
                .store
                .clone()
                .ok_or_else(|| unusable("is of a store, and no store is in use".to_owned()));
        };
        let transport =
            Transport::remote(&registry_base(host)).map_err(|error| unusable(error.to_string()))?;
        Ok(RegistryClient::new(transport).with_logins(self.logins.clone()))
    }
}

/// The layout that keeps what was fetched, with the base in it. What it has whole is not asked for again.
async fn kept(
    name: &str,
    digest: &Digest,
    platform: &Platform,
    from: &Source,
    cache: &Path,
) -> Result<Layout, BaseError> {
    let cache = Layout::create(cache).await.map_err(|source| unreadable(name, source))?;
    let reader = Reader { layout: cache.clone(), name };
    if reader.is_whole(digest, platform).await {
        return Ok(cache);
    }
    let fetch = |source| fetch_error(name, source);
    let mut found = from.find(digest).await.map_err(fetch)?;
    for _ in 0..MOST_INDEXES {
        let manifest = from.read_manifest(&found).await.map_err(fetch)?;
        if !manifest.parsed.is_index() {
            let to = Endpoint::Layout(cache.clone());
            copy_found(from, &to, &found, None, &Progress::ignored()).await.map_err(fetch)?;
            return Ok(cache);
        }
        let kept = cache.add_manifest(&found.digest, &found.media_type, &manifest.bytes).await;
        kept.map_err(|source| unreadable(name, source))?;
        found = reader.part(&manifest.parsed, platform)?;
    }
    Err(reader.unusable("is an index of indexes"))
}

/// Whether a layer of this type is a tar file that is read here.
pub fn is_layer(media_type: &str) -> bool {
    Compression::of(media_type).is_some()
}

/// The tar stream of a layer whose bytes lie in a file; none: it is no tar file, or one that is not read here.
pub fn layer_tar(media_type: &str, file: &Path) -> Option<io::Result<Box<dyn Read>>> {
    Some(Compression::of(media_type)?.open(file))
}

fn unreadable(name: &str, source: LayoutError) -> BaseError {
    BaseError::Layout { name: name.to_owned(), source }
}

/// An index may list indexes, but not for ever.
const MOST_INDEXES: usize = 3;

struct Reader<'a> {
    layout: Layout,
    name: &'a str,
}

impl Reader<'_> {
    async fn manifest(&self, digest: &Digest, platform: &Platform) -> Result<ParsedManifest, BaseError> {
        let mut digest = digest.clone();
        for _ in 0..MOST_INDEXES {
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
            digest = self.part(&manifest, platform)?.digest;
        }
        Err(self.unusable("is an index of indexes"))
    }

    /// The manifest of an index that is for the platform.
    fn part(&self, index: &ParsedManifest, platform: &Platform) -> Result<Descriptor, BaseError> {
        let part = index
            .manifests
            .iter()
            .find(|part| part.platform.as_ref().is_some_and(|of| platform.is_met_by(of)));
        part.cloned().ok_or_else(|| {
            self.unusable(format!("has no manifest for {}/{}", platform.os, platform.architecture))
        })
    }

    /// Whether everything is here. What is damaged counts as missing, so that it is fetched again.
    async fn is_whole(&self, digest: &Digest, platform: &Platform) -> bool {
        let Ok(manifest) = self.manifest(digest, platform).await else { return false };
        for blob in manifest.required_blobs() {
            if !matches!(self.layout.holds(blob).await, Ok(true)) {
                return false;
            }
        }
        true
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
            let compression = Compression::of(&layer.media_type).ok_or_else(|| {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_LAYER_TAR
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Self::None),
            media_type::OCI_LAYER_GZIP
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => Some(Self::Gzip),
            media_type::OCI_LAYER_ZSTD | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                Some(Self::Zstd)
            }
            _ => None,
        }
    }

    /// The tar stream of a layer.
    pub(crate) fn open(self, path: &Path) -> io::Result<Box<dyn Read>> {
        let file = BufReader::with_capacity(256 * 1024, File::open(path)?);
        Ok(match self {
            Self::None => Box::new(file),
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Zstd => Box::new(StreamingDecoder::new(file).map_err(io::Error::other)?),
        })
    }
}

pub(crate) type Listing = BTreeMap<Vec<u8>, PackFile>;

/// Applies one layer to what the layers below it laid out (image-spec, layer.md, "Applying Changesets").
pub(crate) fn read_layer(path: &Path, compression: Compression, mut files: Listing) -> io::Result<Listing> {
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

//! Base: the image below the files, pinned by digest.
//!
//! It comes from a registry, from the store in use, or from an OCI layout or archive of the project, tracked or not: the
//! digest says what it is, and every byte that is used is hashed. What is fetched is kept by digest, so that the next build
//! needs no network.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use semel_model::digest::{Digest, InvalidDigest};
use semel_model::platform::Platform;
use semel_model::project::split_base;
use semel_oci::archive::{self, ArchiveError};
use semel_oci::bundle::Bundle;
use semel_oci::client::RegistryClient;
use semel_oci::closure::ManifestSource as _;
use semel_oci::compression::Compression;
use semel_oci::copy::{CopyError, Endpoint, Progress, Source, copy_found};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, LayoutError, Select};
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use semel_oci::media_type;
use semel_oci::reference::{InvalidReference, Place, Reference, TagOrDigest, registry_base};
use semel_oci::sign_in::Logins;
use semel_oci::transport::Transport;
use serde_json::Value;

use crate::layer::{self, Listing, Packed, UnpackError, Unpacked};
use crate::rootfs::Rootfs;

/// Where bases are, besides the project's own directory.
#[derive(Debug, Clone)]
pub struct BaseSources {
    /// A directory that keeps what was fetched as an OCI layout, and beside its blobs the layers that were unpacked. It is
    /// made when it is needed, and may be removed at any time between builds.
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
    /// The digests of their tar files, as its configuration has them and as they are.
    pub diff_ids: Vec<Digest>,
    /// Its configuration.
    pub config: Value,
    /// What its layers lay out together, as a program inside would see it.
    pub rootfs: Arc<Rootfs>,
    /// The same under the paths that they name.
    pub(crate) listing: Listing,
    /// The tar files of its layers.
    pub(crate) tars: Vec<PathBuf>,
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
    /// What is there is something else than an image.
    #[error("{name} holds no container image: it is of type {kind}")]
    NoImage {
        /// As the project file names it.
        name: String,
        /// What it says it is.
        kind: String,
    },
    /// It is no whole image, or none for this platform.
    #[error("the base {name} {problem}")]
    Unusable {
        /// As the project file names it.
        name: String,
        /// Why.
        problem: String,
    },
    /// It is made for something else than the artefact.
    #[error("the image {name} is made for {made_for}, and the artefact for {wanted}")]
    Platform {
        /// As the project file names it.
        name: String,
        /// What its configuration says.
        made_for: String,
        /// What is built.
        wanted: Box<Platform>,
    },
    /// Its configuration names a layer by what is no digest.
    #[error("the configuration of the image {name} names layer {number} by what is no digest")]
    DiffId {
        /// As the project file names it.
        name: String,
        /// Which layer, counted from 1.
        number: usize,
        /// The cause.
        #[source]
        source: InvalidDigest,
    },
    /// A layer could not be read as a tar file, or goes beyond a limit.
    #[error("cannot read layer {layer} of the image {name}")]
    Layer {
        /// As the project file names it.
        name: String,
        /// Its digest.
        layer: Digest,
        /// The cause, with the limit.
        #[source]
        source: io::Error,
    },
    /// A layer could not be unpacked here.
    #[error("cannot unpack layer {layer} of the image {name}")]
    Unpack {
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
            Self::Fetch { .. } => Some("to see whether it is still there: semel lock".to_owned()),
            Self::Place { name, .. } => Some(match name.rsplit_once('@') {
                Some((image, version)) if !version.contains(':') => {
                    format!("an image is named with a colon: {image}:{version}")
                }
                _ => format!("semel lock --update-base {name}"),
            }),
            Self::Platform { made_for, wanted, .. } => Some(format!(
                "take the image for {wanted}, or, if the artefact is for {made_for}: platforms = [\"{made_for}\"] in [artefact]"
            )),
            Self::Layer { .. } => {
                Some("fetch or build that image once more, or take another base".to_owned())
            }
            Self::Unpack { .. } => Some("make room on the disk, and build again".to_owned()),
            _ => None,
        }
    }

    /// Whether the project must change, and not this machine.
    pub fn is_callers(&self) -> bool {
        match self {
            Self::Unpack { .. } => false,
            Self::Fetch { source, .. } => !is_passing(source),
            _ => true,
        }
    }
}

/// Whether the registry could not be reached, or could not answer.
fn is_passing(error: &CopyError) -> bool {
    matches!(error, CopyError::Registry(error) if error.is_passing())
}

fn is_unauthorised(error: &CopyError) -> bool {
    matches!(error, CopyError::Registry(error) if error.status() == Some(StatusCode::UNAUTHORIZED))
}

impl Base {
    /// Opens the base that a definition names, and fetches it if need be. An index is entered at the platform's manifest;
    /// an image for another platform is refused. `now` counts as the last use of what is kept.
    pub async fn open(
        project_dir: &Path,
        base: &str,
        platform: &Platform,
        sources: &BaseSources,
        now: SystemTime,
    ) -> Result<Self, BaseError> {
        let (name, digest) = split_base(base).ok_or_else(|| BaseError::Unusable {
            name: base.to_owned(),
            problem: "is not pinned: write name@sha256:…".to_owned(),
        })?;
        let layout = match find(project_dir, name, sources).await? {
            Found::Layout(layout) => layout,
            Found::Elsewhere(elsewhere) => kept(name, &digest, platform, &elsewhere, &sources.cache).await?,
        };
        let unpacked = sources.unpacked(name).await?;
        let opened = Self::in_layout(layout, name, digest, platform, &unpacked, now).await?;
        opened.check_platform(platform)?;
        unpacked.sweep(now);
        Ok(opened)
    }

    /// Opens an image of a layout.
    pub(crate) async fn in_layout(
        layout: Layout,
        name: &str,
        digest: Digest,
        platform: &Platform,
        unpacked: &Unpacked,
        now: SystemTime,
    ) -> Result<Self, BaseError> {
        let reader = Reader { layout, name };
        let manifest = reader.manifest(&digest, platform).await?;
        let config = reader.config(&manifest).await?;
        let diff_ids = reader.diff_ids(&manifest.layers, &config)?;
        let laid_out = reader.lay_out(&manifest.layers, &diff_ids, unpacked, now).await?;
        Ok(Self {
            layout: reader.layout,
            name: name.to_owned(),
            digest,
            layers: manifest.layers,
            diff_ids,
            config,
            rootfs: Arc::new(laid_out.rootfs),
            listing: laid_out.listing,
            tars: laid_out.tars,
        })
    }

    /// Refuses an image that says it is for another platform. What it does not say is taken to fit.
    pub(crate) fn check_platform(&self, wanted: &Platform) -> Result<(), BaseError> {
        let mut said = wanted.to_oci();
        for key in ["os", "architecture", "variant"] {
            if let Some(own) = self.config.get(key).filter(|own| own.as_str() != Some("")) {
                said[key] = own.clone();
            }
        }
        if wanted.is_met_by(&said) {
            return Ok(());
        }
        let text = |key: &str| said[key].as_str().unwrap_or("?").to_owned();
        let made_for = Platform::from_oci(&said).map_or_else(
            || format!("{}/{}", text("os"), text("architecture")),
            |platform| platform.to_string(),
        );
        Err(BaseError::Platform { name: self.name.clone(), made_for, wanted: Box::new(wanted.clone()) })
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
    /// Where layers lie that were unpacked. A layout is only made in an empty directory, so that comes first.
    async fn unpacked(&self, name: &str) -> Result<Unpacked, BaseError> {
        let layout = Layout::create(&self.cache).await.map_err(|source| unreadable(name, source))?;
        Ok(Unpacked::below(&layout.root().join("unpacked")))
    }

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

fn unreadable(name: &str, source: LayoutError) -> BaseError {
    BaseError::Layout { name: name.to_owned(), source }
}

/// An index may list indexes, but not for ever.
const MOST_INDEXES: usize = 3;
/// Linux lays no more directories over one another (overlayfs, `OVL_MAX_STACK`), and no builder makes so many layers.
const MOST_LAYERS: usize = 500;

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
            let platforms = index.manifests.iter().filter_map(|part| part.platform.as_ref());
            let has: Vec<String> =
                platforms.filter_map(Platform::from_oci).map(|platform| platform.to_string()).collect();
            self.unusable(format!("has no manifest for {platform}, only for: {}", has.join(", ")))
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
        if !media_type::is_image_config(&config.media_type) {
            let kind = manifest.artifact_type.as_ref().unwrap_or(&config.media_type).clone();
            return Err(BaseError::NoImage { name: self.name.to_owned(), kind });
        }
        let bytes =
            self.layout.read_blob(&config.digest).await.map_err(|source| unreadable(self.name, source))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.unusable(format!("has a configuration that is not JSON: {error}")))
    }

    /// One digest for each layer.
    fn diff_ids(&self, layers: &[Descriptor], config: &Value) -> Result<Vec<Digest>, BaseError> {
        let ids = config.pointer("/rootfs/diff_ids").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if ids.len() != layers.len() {
            return Err(self.unusable(format!("has {} layers and {} diff_ids", layers.len(), ids.len())));
        }
        if layers.len() > MOST_LAYERS {
            return Err(self.unusable(format!("has {} layers; the limit is {MOST_LAYERS}", layers.len())));
        }
        let parse = |(at, id): (usize, &Value)| {
            id.as_str().unwrap_or_default().parse().map_err(|source| BaseError::DiffId {
                name: self.name.to_owned(),
                number: at + 1,
                source,
            })
        };
        ids.iter().enumerate().map(parse).collect()
    }

    /// Unpacks the layers and lays them over one another.
    async fn lay_out(
        &self,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        unpacked: &Unpacked,
        now: SystemTime,
    ) -> Result<LaidOut, BaseError> {
        let mut laid_out = LaidOut::default();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let compression = Compression::of_layer(&layer.media_type).ok_or_else(|| {
                self.unusable(format!("has a layer of type {}, which is not read here", layer.media_type))
            })?;
            let (digest, diff_id) = (layer.digest.clone(), diff_id.clone());
            let packed = Packed { blob: self.layout.blob_path(&digest), compression, digest, diff_id };
            let unpacked = unpacked.clone();
            let laid = tokio::task::spawn_blocking(move || laid_out.add(&packed, &unpacked, now)).await;
            laid_out = laid
                .unwrap_or_else(|panic| Err(io::Error::other(panic).into()))
                .map_err(|error| self.not_unpacked(layer, error))?;
        }
        Ok(laid_out)
    }

    fn not_unpacked(&self, layer: &Descriptor, error: UnpackError) -> BaseError {
        let (name, layer) = (self.name.to_owned(), layer.digest.clone());
        match error {
            UnpackError::Read(source) => BaseError::Layer { name, layer, source },
            UnpackError::Write { .. } => BaseError::Unpack { name, layer, source: io::Error::other(error) },
            other => BaseError::Layer { name, layer, source: io::Error::other(other) },
        }
    }

    fn unusable(&self, problem: impl Into<String>) -> BaseError {
        BaseError::Unusable { name: self.name.to_owned(), problem: problem.into() }
    }
}

/// What the layers of an image lay out together, as far as they were looked at.
#[derive(Default)]
struct LaidOut {
    listing: Listing,
    rootfs: Rootfs,
    tars: Vec<PathBuf>,
}

impl LaidOut {
    fn add(mut self, layer: &Packed, unpacked: &Unpacked, now: SystemTime) -> Result<Self, UnpackError> {
        let tar = unpacked.file(layer, now)?;
        self.listing.add(layer::open(&tar, Compression::None)?)?;
        self.rootfs.add_tar(&tar)?;
        self.tars.push(tar);
        Ok(self)
    }
}

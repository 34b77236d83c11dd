//! Finished: an image that another builder wrote, taken as it is.
//!
//! Its manifest keeps its bytes and its digest. What `buildx` puts beside it in an index (attestations, for the platform
//! `unknown/unknown`) is taken apart: the index is left behind, because many platforms that run images cannot read it, and
//! in-toto statements become referrers of the image.
//!
//! What `docker save` writes has no manifest and no compressed layers: those are made here, so the digest is a new one.

use std::fs::OpenOptions;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use semel_model::digest::Digest;
use semel_model::platform::Platform;
use semel_model::project;
use semel_oci::archive::{self, ArchiveError};
use semel_oci::bundle::Bundle;
use semel_oci::closure::{ManifestSource as _, ReadManifest};
use semel_oci::compression::Compression;
use semel_oci::copy::{CopyError, Endpoint, Progress, Source, copy_found};
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::{Layout, LayoutError, Select};
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use serde_json::Value;
use tokio_util::io::SyncIoBridge;

use crate::base::{Base, BaseError};
use crate::compress::Compressor;
use crate::layer::{self, Unpacked};
use crate::package::{Packaged, PackagedLayer, cores};

/// Statements of buildx (BuildKit, "Image attestation storage").
const IN_TOTO: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// An image that was taken.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What it is, in the layout.
    pub packaged: Packaged,
    /// What is in it.
    pub image: Base,
    /// Manifests in the layout that are about it.
    pub attached: Vec<Digest>,
    /// What was left behind, for people.
    pub notes: Vec<String>,
}

/// Why an image cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FinishedError {
    /// It is not there.
    #[error("the build left no `{}`", .path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is no archive of an image.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It cannot be read, or the layout cannot be written.
    #[error("cannot read the image {}", .path.display())]
    Layout {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: LayoutError,
    },
    /// It cannot be taken over.
    #[error("cannot take the image {}", .path.display())]
    Copy {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CopyError>,
    },
    /// What `docker save` writes is no image yet.
    #[error("{} is what `docker save` writes: it has no manifest and no compressed layers, so it has no digest to keep", .path.display())]
    DockerArchive {
        /// Where it is.
        path: PathBuf,
    },
    /// It holds several images.
    #[error("{} holds {} images, for {}", .path.display(), .platforms.len(), .platforms.join(", "))]
    Several {
        /// Where it is.
        path: PathBuf,
        /// What they are for.
        platforms: Vec<String>,
    },
    /// It is no image.
    #[error(transparent)]
    Image(#[from] BaseError),
    /// A layer could not be compressed.
    #[error("cannot compress layer {layer} of {}", .path.display())]
    Compress {
        /// Where the image is.
        path: PathBuf,
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FinishedError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "correct `from` in [artefact], or what [build] run writes".to_owned(),
            Self::DockerArchive { .. } => {
                "write an OCI archive: docker buildx build --output type=oci,dest=image.oci, or podman save --format oci-archive".to_owned()
            }
            Self::Several { .. } => "write one platform: docker buildx build --platform linux/amd64 …".to_owned(),
            Self::Image(error) => return error.hint(),
            _ => return None,
        })
    }

    /// Whether the project must change, and not this machine.
    pub fn is_callers(&self) -> bool {
        match self {
            Self::Compress { source, .. } => is_of_bytes(source),
            Self::Image(error) => error.is_callers(),
            _ => true,
        }
    }
}

/// Whether the bytes are what cannot be read, and not the place where they are, or go to.
fn is_of_bytes(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
}

/// Takes the image of a layout or an archive over into a new layout.
pub async fn take(path: &Path, layout_dir: &Path, platform: &Platform) -> Result<Finished, FinishedError> {
    let from = open(path).await?;
    if let Source::Bundle(bundle) = &from
        && bundle.is_docker()
    {
        return Err(FinishedError::DockerArchive { path: path.to_owned() });
    }
    let taking = Taking { path, from, layout: new_layout(path, layout_dir).await? };
    taking.run(platform).await
}

/// Makes an image of what `docker save` wrote: its layers, compressed, and a manifest. Gives the image's old id too.
pub async fn repack(
    path: &Path,
    layout_dir: &Path,
    platform: &Platform,
) -> Result<(Finished, Digest), FinishedError> {
    let bundle = archive::open(path).await?;
    let copy = |source: CopyError| FinishedError::Copy { path: path.to_owned(), source: Box::new(source) };
    let found = bundle.resolve(Select::Only).map_err(|error| copy(error.into()))?.clone();
    let read = bundle.read_manifest(&found).await.map_err(|error| copy(error.into()))?;
    let layout = new_layout(path, layout_dir).await?;
    let unwritten = |source| FinishedError::Layout { path: path.to_owned(), source };
    let mut layers = Vec::new();
    for (number, layer) in read.parsed.layers.iter().enumerate() {
        let scratch = layout_dir.with_extension(format!("layer{number}"));
        let compressed = compress(path, &bundle, layer, &scratch).await?;
        let file = tokio::fs::File::open(&scratch).await;
        let file = file.map_err(|source| compress_error(path, layer, source))?;
        layout.add_blob(&compressed, file).await.map_err(unwritten)?;
        layers.push(compressed);
    }
    let config = read.parsed.config.clone().ok_or_else(|| BaseError::Unusable {
        name: path.display().to_string(),
        problem: "has no image configuration".to_owned(),
    })?;
    let reader = bundle.open(&config, 0).await.map_err(|error| copy(error.into()))?;
    layout.add_blob(&config, reader).await.map_err(unwritten)?;
    let image_id = config.digest.clone();
    let manifest =
        ImageManifest { artifact_type: None, config, layers, subject: None, annotations: Annotations::new() };
    let encoded = manifest.encode();
    let stored =
        layout.put_manifest(&encoded.descriptor.digest, &encoded.descriptor.media_type, &encoded.bytes, None);
    stored.await.map_err(unwritten)?;
    let root = encoded.descriptor.clone();
    let taking = Taking { path, from: Source::Bundle(bundle), layout };
    Ok((taking.finished(&root, platform).await?, image_id))
}

async fn open(path: &Path) -> Result<Source, FinishedError> {
    if path.is_dir() {
        let opened = Layout::open(path).await;
        let layout = opened.map_err(|source| FinishedError::Layout { path: path.to_owned(), source })?;
        return Ok(Source::Endpoint(Endpoint::Layout(layout)));
    }
    if !path.exists() {
        return Err(FinishedError::Missing { path: path.to_owned() });
    }
    Ok(Source::Bundle(archive::open(path).await?))
}

async fn new_layout(path: &Path, dir: &Path) -> Result<Layout, FinishedError> {
    Layout::create(dir).await.map_err(|source| FinishedError::Layout { path: path.to_owned(), source })
}

fn compress_error(path: &Path, layer: &Descriptor, source: io::Error) -> FinishedError {
    FinishedError::Compress { path: path.to_owned(), layer: layer.digest.clone(), source }
}

/// Compresses a layer as packaging does, whether it was compressed before or not.
async fn compress(
    path: &Path,
    bundle: &Bundle,
    layer: &Descriptor,
    scratch: &Path,
) -> Result<Descriptor, FinishedError> {
    let reader = bundle
        .open(layer, 0)
        .await
        .map_err(|error| FinishedError::Copy { path: path.to_owned(), source: Box::new(error.into()) })?;
    let stored = Compression::of_layer(&layer.media_type).unwrap_or(Compression::None);
    let (reader, size, to) = (SyncIoBridge::new(reader), layer.size, scratch.to_owned());
    let compressed = tokio::task::spawn_blocking(move || {
        let mut plain = layer::unpacked(BufReader::new(reader), size, stored)?;
        let file = OpenOptions::new().write(true).create_new(true).open(to)?;
        let file = BufWriter::with_capacity(256 * 1024, file);
        let mut gzip = Compressor::new(file, project::Compression::Gzip, cores());
        gzip.take_from(&mut plain, u64::MAX)?;
        let mut done = gzip.finish()?;
        done.inner.flush()?;
        Ok(Descriptor::new(media_type::OCI_LAYER_GZIP, done.digest, done.size))
    });
    let compressed = compressed.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    compressed.map_err(|source| compress_error(path, layer, source))
}

/// One image on its way.
struct Taking<'a> {
    path: &'a Path,
    from: Source,
    layout: Layout,
}

/// What the index of a builder lists.
#[derive(Default)]
struct Listed {
    images: Vec<Descriptor>,
    attestations: Vec<Descriptor>,
}

impl Taking<'_> {
    async fn run(&self, platform: &Platform) -> Result<Finished, FinishedError> {
        let root = self.root().await?;
        let manifest = self.read(&root).await?;
        if !manifest.parsed.is_index() {
            self.copy(&root).await?;
            return self.finished(&root, platform).await;
        }
        let listed = Listed::of(manifest.parsed.manifests);
        let [image] = listed.images.as_slice() else {
            let platforms = listed.images.iter().map(platform_of).collect();
            return Err(FinishedError::Several { path: self.path.to_owned(), platforms });
        };
        self.copy(image).await?;
        let mut finished = self.finished(image, platform).await?;
        for attestation in &listed.attestations {
            self.attach(attestation, image, &mut finished).await?;
        }
        Ok(finished)
    }

    /// The one entry of the layout or archive.
    async fn root(&self) -> Result<Descriptor, FinishedError> {
        match &self.from {
            Source::Bundle(bundle) => {
                bundle.resolve(Select::Only).cloned().map_err(|e| self.failed(e.into()))
            }
            Source::Endpoint(Endpoint::Layout(layout)) => {
                layout.resolve(Select::Only).await.map_err(|error| self.failed(error.into()))
            }
            Source::Endpoint(Endpoint::Registry { .. }) => unreachable!("an image is taken from a file"),
        }
    }

    async fn read(&self, manifest: &Descriptor) -> Result<ReadManifest, FinishedError> {
        self.from.read_manifest(manifest).await.map_err(|error| self.failed(error))
    }

    async fn copy(&self, image: &Descriptor) -> Result<(), FinishedError> {
        let to = Endpoint::Layout(self.layout.clone());
        let copied = copy_found(&self.from, &to, image, None, &Progress::ignored()).await;
        copied.map(drop).map_err(|error| self.failed(error))
    }

    /// Makes referrers of the statements of an attestation manifest.
    async fn attach(
        &self,
        attestation: &Descriptor,
        image: &Descriptor,
        finished: &mut Finished,
    ) -> Result<(), FinishedError> {
        let about = attestation.annotations.get(REFERENCE_DIGEST).map(String::as_str);
        let manifest = self.read(attestation).await?;
        for layer in &manifest.parsed.layers {
            let is_statement = layer.media_type == IN_TOTO && about == Some(image.digest.as_str());
            if !is_statement {
                let left = format!("{} of type {} was left behind", layer.digest, layer.media_type);
                finished.notes.push(left);
                continue;
            }
            let reader = self.open_blob(layer).await?;
            self.layout.add_blob(layer, reader).await.map_err(|source| self.unwritten(source))?;
            let empty = self.layout.add_bytes(media_type::OCI_EMPTY, b"{}").await;
            empty.map_err(|source| self.unwritten(source))?;
            let kind = layer.annotations.get(PREDICATE_TYPE).cloned();
            let annotations = kind.map(|kind| (PREDICATE_TYPE.to_owned(), kind)).into_iter().collect();
            let subject = Descriptor::new(&image.media_type, image.digest.clone(), image.size);
            let referrer =
                ImageManifest::referrer(&subject, IN_TOTO, vec![layer.clone()], annotations).encode();
            let (descriptor, bytes) = (&referrer.descriptor, &referrer.bytes);
            let added = self.layout.add_manifest(&descriptor.digest, &descriptor.media_type, bytes).await;
            added.map_err(|source| self.unwritten(source))?;
            finished.attached.push(descriptor.digest.clone());
        }
        Ok(())
    }

    async fn open_blob(&self, blob: &Descriptor) -> Result<semel_oci::transport::BoxRead, FinishedError> {
        match &self.from {
            Source::Bundle(bundle) => bundle.open(blob, 0).await.map_err(|error| self.failed(error.into())),
            Source::Endpoint(Endpoint::Layout(layout)) => {
                layout.open_blob(blob).await.map_err(|error| self.failed(error.into()))
            }
            Source::Endpoint(Endpoint::Registry { .. }) => unreachable!("an image is taken from a file"),
        }
    }

    /// Describes the image, which is in the layout now. What it unpacks to lies beside the layout, and goes with it.
    async fn finished(&self, image: &Descriptor, platform: &Platform) -> Result<Finished, FinishedError> {
        let name = self.path.display().to_string();
        let unpacked = Unpacked::below(&self.layout.root().with_extension("unpacked"));
        let (layout, digest) = (self.layout.clone(), image.digest.clone());
        let base =
            Base::in_layout(layout, &name, digest, platform, &unpacked, SystemTime::UNIX_EPOCH).await?;
        let packaged = self.packaged(image, &base).await?;
        Ok(Finished { packaged, image: base, attached: Vec::new(), notes: Vec::new() })
    }

    async fn packaged(&self, image: &Descriptor, base: &Base) -> Result<Packaged, FinishedError> {
        let read = self.layout.read_manifest(image).await.map_err(|source| self.unwritten(source))?;
        let config = read.parsed.config.as_ref().map(|config| (config.digest.clone(), config.size));
        let (config, config_size) = config.unwrap_or_else(|| (image.digest.clone(), 0));
        let layer = |(layer, diff_id): (&Descriptor, &Digest)| PackagedLayer {
            name: None,
            digest: layer.digest.clone(),
            diff_id: diff_id.clone(),
            size: layer.size,
            files: 0,
        };
        let layers: Vec<_> = base.layers.iter().zip(&base.diff_ids).map(layer).collect();
        Ok(Packaged {
            manifest: image.digest.clone(),
            media_type: read.parsed.media_type,
            artifact_type: None,
            size: image.size,
            config,
            bytes: image.size + config_size + layers.iter().map(|layer| layer.size).sum::<u64>(),
            layers,
            diff_ids: base.diff_ids.iter().map(Digest::to_string).collect(),
        })
    }

    fn failed(&self, source: CopyError) -> FinishedError {
        FinishedError::Copy { path: self.path.to_owned(), source: Box::new(source) }
    }

    fn unwritten(&self, source: LayoutError) -> FinishedError {
        FinishedError::Layout { path: self.path.to_owned(), source }
    }
}

impl Listed {
    fn of(manifests: Vec<Descriptor>) -> Self {
        let mut listed = Self::default();
        for manifest in manifests {
            let says_so = manifest.annotations.contains_key(REFERENCE_TYPE);
            if says_so || platform_of(&manifest) == "unknown/unknown" {
                listed.attestations.push(manifest);
            } else {
                listed.images.push(manifest);
            }
        }
        listed
    }
}

fn platform_of(manifest: &Descriptor) -> String {
    let text = |key: &str| {
        let platform = manifest.platform.as_ref().and_then(|platform| platform.get(key));
        platform.and_then(Value::as_str).unwrap_or("?").to_owned()
    };
    format!("{}/{}", text("os"), text("architecture"))
}

//! Copying an artefact with everything that belongs to it, between layouts and registries.
//!
//! Blobs go first, then manifests, children before parents, so that a place never holds a manifest without what it
//! refers to. Every byte is hashed where it arrives. What is there already is not sent again, so a copy that broke off
//! is completed by repeating it.

use std::fmt;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, InvalidName, Tag};
use tokio::io::{AsyncRead, AsyncSeekExt as _, ReadBuf};

use crate::body::BoxRead;
use crate::client::{BlobSource, ClientError, Pushed, RegistryClient};
use crate::closure::{self, Closure, ManifestSource, ReadManifest, TooManyManifests};
use crate::descriptor::Descriptor;
use crate::layout::{Layout, LayoutError, Select};
use crate::reference::TagOrDigest;

/// How many blobs are on their way at the same time.
const PARALLEL: usize = 4;

/// A place that artefacts are copied from or to.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// An image layout.
    Layout(Layout),
    /// A repository of a registry.
    Registry {
        /// The registry.
        client: RegistryClient,
        /// The repository.
        name: ComponentName,
    },
}

/// Something that happened during a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The manifests are read; so much is to be copied, unless it is there.
    Planned {
        /// How many blobs.
        blobs: usize,
        /// How many bytes they have together.
        bytes: u64,
    },
    /// So many further bytes have left the source.
    Bytes(u64),
    /// A blob has arrived.
    Copied(Descriptor),
    /// A blob was there already.
    Skipped(Descriptor),
}

/// Is told what happens during a copy. It is called often and must not block.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event) + Send + Sync>);

/// What a copy has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The artefact at the destination.
    pub descriptor: Descriptor,
    /// How many manifests it consists of.
    pub manifests: usize,
    /// How many blobs were sent.
    pub blobs_copied: usize,
    /// How many were there already.
    pub blobs_skipped: usize,
    /// How many bytes the blobs have that were sent.
    pub bytes_copied: u64,
}

/// Why an artefact was not copied. Nothing is undone: what has arrived is whole and is found by the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// The artefact.
    #[error(transparent)]
    TooManyManifests(#[from] TooManyManifests),
    /// A registry lists a manifest as something else than what it sends.
    #[error("{digest} is listed as `{listed}` with {listed_size} bytes but is `{found}` with {found_size}")]
    Listed {
        /// The manifest.
        digest: Digest,
        /// The type in the index.
        listed: String,
        /// The size in the index.
        listed_size: u64,
        /// The type of the manifest.
        found: String,
        /// The size of the manifest.
        found_size: u64,
    },
    /// The name for the copy cannot be a tag of a registry.
    #[error("cannot copy {digest} under this name")]
    Name {
        /// The artefact.
        digest: Digest,
        /// Why.
        #[source]
        source: InvalidName,
    },
}

impl Progress {
    /// Tells a function.
    pub fn to(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Tells nobody.
    pub fn ignored() -> Self {
        Self::to(drop)
    }

    fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Copies the artefact with this digest and everything that belongs to it. At the destination it gets the name, if
/// there is one: a tag of the repository, or the name of an entry in the layout.
pub async fn copy(
    source: &Endpoint,
    destination: &Endpoint,
    digest: &Digest,
    name: Option<&str>,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let name = Name::check(destination, digest, name)?;
    let root = source.find(digest).await?;
    let closure = closure::walk(source, &root).await?;
    let blobs = source.blobs_to_copy(&closure).await?;
    progress.tell(Event::Planned { blobs: blobs.len(), bytes: total(&blobs) });

    let copied: Vec<Option<u64>> = stream::iter(&blobs)
        .map(|blob| copy_blob(source, destination, blob, progress))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let descriptor = write_manifests(destination, &closure, &name).await?;

    let sent: Vec<u64> = copied.into_iter().flatten().collect();
    Ok(Copied {
        descriptor,
        manifests: closure.manifests.len(),
        blobs_copied: sent.len(),
        blobs_skipped: blobs.len() - sent.len(),
        bytes_copied: sent.iter().sum(),
    })
}

/// Sizes come from other people's manifests: their sum may be anything.
fn total(blobs: &[Descriptor]) -> u64 {
    blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
}

impl ManifestSource for Endpoint {
    type Error = CopyError;

    async fn read_manifest(&self, descriptor: &Descriptor) -> Result<ReadManifest, CopyError> {
        match self {
            Self::Layout(layout) => Ok(layout.read_manifest(descriptor).await?),
            Self::Registry { client, name } => {
                let reference = TagOrDigest::Digest(descriptor.digest.clone());
                let manifest = client.get_manifest(name, &reference).await?;
                require_listed(descriptor, &manifest.descriptor)?;
                Ok(manifest)
            }
        }
    }
}

impl Endpoint {
    async fn find(&self, digest: &Digest) -> Result<Descriptor, CopyError> {
        match self {
            Self::Layout(layout) => Ok(layout.resolve(Select::Digest(digest)).await?),
            Self::Registry { client, name } => {
                let manifest = client.get_manifest(name, &TagOrDigest::Digest(digest.clone())).await?;
                Ok(manifest.descriptor)
            }
        }
    }

    /// All required blobs, and those of the optional ones that are here.
    async fn blobs_to_copy(&self, closure: &Closure) -> Result<Vec<Descriptor>, CopyError> {
        let mut blobs = closure.blobs.clone();
        for blob in &closure.optional_blobs {
            let here = match self {
                Self::Layout(layout) => layout.blob_size(&blob.digest).await?.is_some(),
                Self::Registry { client, name } => client.has_blob(name, &blob.digest).await?,
            };
            if here {
                blobs.push(blob.clone());
            }
        }
        Ok(blobs)
    }

    async fn open_blob(&self, descriptor: &Descriptor) -> Result<BoxRead, CopyError> {
        match self {
            Self::Layout(layout) => Ok(layout.open_blob(descriptor).await?),
            Self::Registry { client, name } => {
                let blob = client.get_blob(name, &descriptor.digest, Some(descriptor.size)).await?;
                Ok(blob.reader)
            }
        }
    }

    /// The rest of a blob, unverified: the destination hashes the whole.
    async fn open_rest(&self, descriptor: &Descriptor, offset: u64) -> Result<BoxRead, CopyError> {
        match self {
            Self::Layout(layout) => {
                let path = layout.blob_path(&descriptor.digest);
                let opened = async {
                    let mut file = tokio::fs::File::open(&path).await?;
                    file.seek(SeekFrom::Start(offset)).await?;
                    Ok(Box::pin(file) as BoxRead)
                };
                Ok(opened.await.map_err(|source| LayoutError::Read { path: path.clone(), source })?)
            }
            Self::Registry { client, name } => {
                Ok(client.get_blob_from(name, &descriptor.digest, offset).await?)
            }
        }
    }
}

/// How the artefact is entered at the destination.
enum Name {
    Digest,
    Tag(Tag),
    Entry(Option<String>),
}

impl Name {
    fn check(destination: &Endpoint, digest: &Digest, name: Option<&str>) -> Result<Self, CopyError> {
        match (destination, name) {
            (Endpoint::Layout(_), name) => Ok(Self::Entry(name.map(str::to_owned))),
            (Endpoint::Registry { .. }, None) => Ok(Self::Digest),
            (Endpoint::Registry { .. }, Some(name)) => match name.parse() {
                Ok(tag) => Ok(Self::Tag(tag)),
                Err(source) => Err(CopyError::Name { digest: digest.clone(), source }),
            },
        }
    }
}

fn require_listed(listed: &Descriptor, found: &Descriptor) -> Result<(), CopyError> {
    if listed.media_type == found.media_type && listed.size == found.size {
        return Ok(());
    }
    Err(CopyError::Listed {
        digest: listed.digest.clone(),
        listed: listed.media_type.clone(),
        listed_size: listed.size,
        found: found.media_type.clone(),
        found_size: found.size,
    })
}

/// The bytes that were sent, or none when the blob was there already.
async fn copy_blob(
    source: &Endpoint,
    destination: &Endpoint,
    blob: &Descriptor,
    progress: &Progress,
) -> Result<Option<u64>, CopyError> {
    let from = Counted { source, blob, progress };
    let pushed = match destination {
        Endpoint::Registry { client, name } => client.put_blob(name, &blob.digest, blob.size, &from).await?,
        Endpoint::Layout(layout) if layout.holds(blob).await? => Pushed::Existed,
        Endpoint::Layout(layout) => {
            let reader = from.count(source.open_blob(blob).await?);
            layout.add_blob(blob, reader).await?;
            Pushed::Sent
        }
    };
    Ok(match pushed {
        Pushed::Sent => {
            progress.tell(Event::Copied(blob.clone()));
            Some(blob.size)
        }
        Pushed::Existed => {
            progress.tell(Event::Skipped(blob.clone()));
            None
        }
    })
}

async fn write_manifests(
    destination: &Endpoint,
    closure: &Closure,
    entered: &Name,
) -> Result<Descriptor, CopyError> {
    let (root, children) = closure.manifests.split_last().expect("a closure holds at least its root");
    for child in children {
        write_child(destination, child).await?;
    }
    let Descriptor { digest, media_type, .. } = &root.descriptor;
    match (destination, entered) {
        (Endpoint::Layout(layout), Name::Entry(name)) => {
            Ok(layout.put_manifest(digest, media_type, &root.bytes, name.as_deref()).await?)
        }
        (Endpoint::Registry { client, name }, Name::Tag(tag)) => {
            let reference = TagOrDigest::Tag(tag.clone());
            client.put_manifest(name, &reference, root.bytes.clone(), media_type).await?;
            Ok(root.descriptor.clone())
        }
        _ => {
            write_child(destination, root).await?;
            Ok(root.descriptor.clone())
        }
    }
}

async fn write_child(destination: &Endpoint, manifest: &ReadManifest) -> Result<(), CopyError> {
    let Descriptor { digest, media_type, .. } = &manifest.descriptor;
    match destination {
        Endpoint::Layout(layout) => {
            layout.add_manifest(digest, media_type, &manifest.bytes).await?;
        }
        Endpoint::Registry { client, name } => {
            let reference = TagOrDigest::Digest(digest.clone());
            client.put_manifest(name, &reference, manifest.bytes.clone(), media_type).await?;
        }
    }
    Ok(())
}

/// A blob of the source whose bytes are counted as they leave.
struct Counted<'a> {
    source: &'a Endpoint,
    blob: &'a Descriptor,
    progress: &'a Progress,
}

impl Counted<'_> {
    fn count(&self, reader: BoxRead) -> CountingReader {
        CountingReader { reader, progress: self.progress.clone() }
    }
}

impl BlobSource for Counted<'_> {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        async move {
            let opened = match offset {
                0 => self.source.open_blob(self.blob).await,
                _ => self.source.open_rest(self.blob, offset).await,
            };
            let reader = opened.map_err(io::Error::other)?;
            Ok(Box::pin(self.count(reader)) as BoxRead)
        }
        .boxed()
    }
}

struct CountingReader {
    reader: BoxRead,
    progress: Progress,
}

impl AsyncRead for CountingReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.reader.as_mut().poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.progress.tell(Event::Bytes(read as u64));
        }
        polled
    }
}

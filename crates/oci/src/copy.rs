//! Copying an artefact with everything that belongs to it, from files, layouts and registries to layouts and registries.
//!
//! Blobs go first, then manifests, children before parents, so that a place never holds a manifest without what it
//! refers to. Every byte is hashed where it arrives. What is there already is not sent again, so a copy that broke off
//! is completed by repeating it.

use std::error::Error;
use std::fmt;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use semel_model::digest::{Digest, InvalidDigest};
use semel_model::name::{ComponentName, InvalidName, Tag};
use tokio::io::{AsyncRead, AsyncSeekExt as _, ReadBuf};

use crate::attached::ATTACHED;
use crate::body::BoxRead;
use crate::bundle::{Bundle, BundleError};
use crate::client::{ClientError, Pushed, RegistryClient};
use crate::closure::{self, Closure, ManifestSource, ReadManifest, TooManyManifests};
use crate::descriptor::Descriptor;
use crate::error::cause;
use crate::layout::{Layout, LayoutError, Select};
use crate::reference::TagOrDigest;
use crate::source::BlobSource;
use crate::verify::VerifyingReader;

/// How many blobs are on their way at the same time.
const PARALLEL: usize = 4;

/// Where artefacts are copied from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A place that could also be copied to.
    Endpoint(Endpoint),
    /// Files, or an archive.
    Bundle(Bundle),
}

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
    /// So many bytes of a blob were kept from an attempt before; they are not sent again.
    Kept(u64),
    /// A blob has arrived, or was there, in one of these ways.
    Done(Descriptor, Pushed),
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
    /// The blobs that were sent.
    pub sent: Tally,
    /// The blobs that the registry took from another of its repositories.
    pub mounted: Tally,
    /// The blobs that were there already.
    pub existing: Tally,
}

/// A number of blobs and what they have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many blobs.
    pub blobs: usize,
    /// How many bytes.
    pub bytes: u64,
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
    /// Files, or an archive.
    #[error(transparent)]
    Bundle(#[from] BundleError),
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
    /// More is attached to an artefact than anybody needs.
    #[error("more than {most} manifests are attached to {digest}")]
    TooMuchAttached {
        /// The artefact.
        digest: Digest,
        /// How many are copied.
        most: usize,
    },
    /// The annotation that names what is attached to an artefact cannot be read.
    #[error("the annotation {ATTACHED} of {digest} names something that is no digest")]
    Attached {
        /// The artefact.
        digest: Digest,
        /// Why.
        #[source]
        source: InvalidDigest,
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

/// The registry's part in an error of a copy, or of [`crate::files`] and [`crate::chunked`]; none if bytes, layouts or files are
/// to blame.
pub fn registry_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ClientError> {
    match error.downcast_ref() {
        Some(CopyError::Registry(found)) => Some(found),
        _ => cause(error),
    }
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

    pub(crate) fn tell(&self, event: Event) {
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
    source: impl Into<Source>,
    destination: &Endpoint,
    digest: &Digest,
    name: Option<&str>,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let source = source.into();
    Name::check(destination, digest, name)?;
    let root = source.find(digest).await?;
    copy_found(&source, destination, &root, name, progress).await
}

/// Copies an artefact as [`copy`] does, of which the source said before where it is: also one that only an index names.
pub async fn copy_found(
    source: &Source,
    destination: &Endpoint,
    root: &Descriptor,
    name: Option<&str>,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let name = Name::check(destination, &root.digest, name)?;
    copy_as(source, destination, root, &name, progress).await
}

/// Copies a manifest with everything that belongs to it under its digest alone: in a layout it gets no entry.
pub(crate) async fn copy_unnamed(
    source: &Source,
    destination: &Endpoint,
    root: &Descriptor,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    copy_as(source, destination, root, &Name::Digest, progress).await
}

async fn copy_as(
    source: &Source,
    destination: &Endpoint,
    root: &Descriptor,
    name: &Name,
    progress: &Progress,
) -> Result<Copied, CopyError> {
    let closure = closure::walk(source, root).await?;
    let blobs = source.blobs_to_copy(&closure).await?;
    let all = Tally::of(blobs.iter().map(|blob| blob.size));
    progress.tell(Event::Planned { blobs: all.blobs, bytes: all.bytes });

    // Boxed, so that the compiler sees that a task may do this.
    let copies = blobs.iter().map(|blob| copy_blob(source, destination, blob, progress).boxed());
    let done: Vec<(Pushed, u64)> =
        stream::iter(copies.collect::<Vec<_>>()).buffer_unordered(PARALLEL).try_collect().await?;
    let descriptor = write_manifests(destination, &closure, name).await?;
    let tally = |way| Tally::of(done.iter().filter(|(pushed, _)| *pushed == way).map(|(_, bytes)| *bytes));
    Ok(Copied {
        descriptor,
        manifests: closure.manifests.len(),
        sent: tally(Pushed::Sent),
        mounted: tally(Pushed::Mounted),
        existing: tally(Pushed::Existed),
    })
}

impl Copied {
    /// How many bytes its blobs have.
    pub fn bytes(&self) -> u64 {
        [self.sent, self.mounted, self.existing].iter().fold(0, |sum, tally| sum.saturating_add(tally.bytes))
    }
}

impl Tally {
    /// Sizes come from other people's manifests: their sum may be anything.
    fn of(sizes: impl Iterator<Item = u64>) -> Self {
        sizes.fold(Self::default(), |sum, bytes| Self {
            blobs: sum.blobs + 1,
            bytes: sum.bytes.saturating_add(bytes),
        })
    }
}

impl From<&Endpoint> for Source {
    fn from(endpoint: &Endpoint) -> Self {
        Self::Endpoint(endpoint.clone())
    }
}

impl From<&Self> for Source {
    fn from(source: &Self) -> Self {
        source.clone()
    }
}

impl ManifestSource for Source {
    type Error = CopyError;

    async fn read_manifest(&self, descriptor: &Descriptor) -> Result<ReadManifest, CopyError> {
        match self {
            Self::Bundle(bundle) => {
                let manifest = bundle.read_manifest(descriptor).await?;
                require_listed(descriptor, &manifest.descriptor)?;
                Ok(manifest)
            }
            Self::Endpoint(Endpoint::Layout(layout)) => Ok(layout.read_manifest(descriptor).await?),
            Self::Endpoint(Endpoint::Registry { client, name }) => {
                let reference = TagOrDigest::Digest(descriptor.digest.clone());
                let manifest = client.get_manifest(name, &reference).await?;
                require_listed(descriptor, &manifest.descriptor)?;
                Ok(manifest)
            }
        }
    }
}

impl Source {
    /// Finds the artefact with this digest.
    pub async fn find(&self, digest: &Digest) -> Result<Descriptor, CopyError> {
        match self {
            Self::Bundle(bundle) => Ok(bundle.resolve(Select::Digest(digest))?.clone()),
            Self::Endpoint(Endpoint::Layout(layout)) => Ok(layout.resolve(Select::Digest(digest)).await?),
            Self::Endpoint(Endpoint::Registry { client, name }) => {
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
                Self::Bundle(bundle) => bundle.has(&blob.digest),
                Self::Endpoint(Endpoint::Layout(layout)) => layout.blob_size(&blob.digest).await?.is_some(),
                Self::Endpoint(Endpoint::Registry { client, name }) => {
                    client.has_blob(name, &blob.digest).await?
                }
            };
            if here {
                blobs.push(blob.clone());
            }
        }
        Ok(blobs)
    }

    /// From the beginning, the reader fails unless the bytes are the right ones. A rest is unverified: the destination
    /// hashes the whole.
    async fn open_blob(&self, blob: &Descriptor, offset: u64) -> Result<BoxRead, CopyError> {
        match self {
            Self::Bundle(bundle) => Ok(bundle.open(blob, offset).await?),
            Self::Endpoint(Endpoint::Layout(layout)) if offset == 0 => Ok(layout.open_blob(blob).await?),
            Self::Endpoint(Endpoint::Layout(layout)) => {
                let path = layout.blob_path(&blob.digest);
                let opened = async {
                    let mut file = tokio::fs::File::open(&path).await?;
                    file.seek(SeekFrom::Start(offset)).await?;
                    Ok(Box::pin(file) as BoxRead)
                };
                Ok(opened.await.map_err(|source| LayoutError::Read { path: path.clone(), source })?)
            }
            Self::Endpoint(Endpoint::Registry { client, name }) => {
                let reader = client.read_blob(name, blob, offset);
                if offset > 0 {
                    return Ok(reader);
                }
                let what = format!("the blob of {name}");
                let (digest, size) = (blob.digest.clone(), Some(blob.size));
                Ok(Box::pin(VerifyingReader::new(reader, what, digest, size)))
            }
        }
    }

    /// The repository from which a registry can take a blob by itself, because it is one of its own.
    fn repository_in(&self, destination: &Endpoint) -> Option<&ComponentName> {
        match (self, destination) {
            (
                Self::Endpoint(Endpoint::Registry { client: from, name }),
                Endpoint::Registry { client: to, .. },
            ) => {
                let base = from.transport().base();
                (base.is_some() && base == to.transport().base()).then_some(name)
            }
            _ => None,
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

/// How the blob came to be there, and its size.
async fn copy_blob(
    source: &Source,
    destination: &Endpoint,
    blob: &Descriptor,
    progress: &Progress,
) -> Result<(Pushed, u64), CopyError> {
    let from =
        Counted { repository: source.repository_in(destination), ..Counted::new(source, blob, progress) };
    let pushed = match destination {
        Endpoint::Registry { client, name } => client.put_blob(name, &blob.digest, blob.size, &from).await?,
        Endpoint::Layout(layout) if layout.holds(blob).await? => Pushed::Existed,
        Endpoint::Layout(layout) => {
            layout.receive(blob, &from).await?;
            Pushed::Sent
        }
    };
    progress.tell(Event::Done(blob.clone(), pushed));
    Ok((pushed, blob.size))
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

/// A blob of the source whose bytes are counted as they leave, each once, however often it is sent.
pub(crate) struct Counted<'a> {
    source: &'a Source,
    blob: &'a Descriptor,
    repository: Option<&'a ComponentName>,
    progress: &'a Progress,
    /// The position up to which bytes were counted.
    counted: Arc<AtomicU64>,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(source: &'a Source, blob: &'a Descriptor, progress: &'a Progress) -> Self {
        Self { source, blob, repository: None, progress, counted: Arc::default() }
    }
}

impl BlobSource for Counted<'_> {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        async move {
            let opened = self.source.open_blob(self.blob, offset).await;
            let reader = opened.map_err(io::Error::other)?;
            let before = self.counted.fetch_max(offset, Ordering::Relaxed);
            if offset > before {
                self.progress.tell(Event::Kept(offset - before));
            }
            let (progress, counted) = (self.progress.clone(), self.counted.clone());
            Ok(Box::pin(CountingReader { reader, position: offset, progress, counted }) as BoxRead)
        }
        .boxed()
    }

    fn repository(&self) -> Option<&ComponentName> {
        self.repository
    }
}

struct CountingReader {
    reader: BoxRead,
    position: u64,
    progress: Progress,
    counted: Arc<AtomicU64>,
}

impl AsyncRead for CountingReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = self.reader.as_mut().poll_read(cx, buf);
        self.position += (buf.filled().len() - before) as u64;
        let counted = self.counted.fetch_max(self.position, Ordering::Relaxed);
        if self.position > counted {
            self.progress.tell(Event::Bytes(self.position - counted));
        }
        polled
    }
}

//! Staging: an artefact's bytes, fetched by digest, verified and unpacked into the content store.
//!
//! Nothing that runs is touched. An artefact counts as staged when its `.tree` record is there, which is written last;
//! what a crash leaves before that is swept and done again.

use std::future::Future;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use semel_model::digest::{Digest, Hasher};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::durable::{self, FileError};
use super::release::{self, InvalidRelease, Layer, ReleaseSpec};
use super::tree::{self, Closeness};
use super::{Layout, unpack};

/// The bytes of a blob, as they arrive. They are hashed here; the source need not.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// A blob on its way.
pub type BlobFuture<'a> = Pin<Box<dyn Future<Output = io::Result<BlobReader>> + Send + 'a>>;

/// Where an artefact's blobs come from.
pub trait BlobSource: Send + Sync {
    /// Opens a blob. `size` is what the manifest says, in bytes.
    fn blob<'a>(&'a self, digest: &'a Digest, size: u64) -> BlobFuture<'a>;

    /// Opens the manifest of a part, which a registry gives in another place than blobs.
    fn manifest<'a>(&'a self, digest: &'a Digest, size: u64) -> BlobFuture<'a> {
        self.blob(digest, size)
    }
}

/// Why an artefact was not staged. Nothing that runs was touched.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The manifest is another one.
    #[error("the manifest of {expected} has digest {found}: it was damaged on its way")]
    Manifest {
        /// The artefact that was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The artefact cannot run in a directory.
    #[error("artefact {artefact} cannot be run by a directory target")]
    Release {
        /// Which artefact.
        artefact: Digest,
        /// Why.
        #[source]
        source: InvalidRelease,
    },
    /// The source gives no bytes.
    #[error("cannot fetch blob {digest}")]
    Fetch {
        /// Which blob.
        digest: Digest,
        /// What the source said.
        #[source]
        source: io::Error,
    },
    /// The source gives other bytes.
    #[error("blob {expected} is damaged: {bytes} of {size} bytes came, with digest {found}")]
    Damaged {
        /// The blob that was asked for.
        expected: Digest,
        /// Its size.
        size: u64,
        /// The digest of what came.
        found: Digest,
        /// How much came.
        bytes: u64,
    },
    /// A layer that cannot be laid out.
    #[error("cannot unpack layer {digest}")]
    Unpack {
        /// Which layer.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What to do with an artefact that is unpacked already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Keep it, if every byte is as it was.
    Keep,
    /// Lay it out anew.
    Replace,
}

/// An artefact in the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Staged {
    /// The digest of its tree record.
    pub(super) tree: Digest,
    /// Whether it was there already.
    pub(super) already: bool,
}

/// Reads what an artefact asks to run: checks its manifest, goes on to this machine's part where it has parts, and fetches
/// the configuration blob.
pub(super) async fn read_spec(
    artefact: &Digest,
    manifest: &[u8],
    source: &dyn BlobSource,
) -> Result<ReleaseSpec, StageError> {
    if !artefact.matches(manifest) {
        let found = Digest::of_with(artefact.algorithm(), manifest);
        return Err(StageError::Manifest { expected: artefact.clone(), found });
    }
    let invalid = |source| StageError::Release { artefact: artefact.clone(), source };
    let part = match release::part_for_host(manifest).map_err(invalid)? {
        Some(part) => {
            let opened = source.manifest(&part.digest, part.size);
            Some(fetch_whole(&part.digest, part.size, opened).await?)
        }
        None => None,
    };
    let manifest = part.as_deref().unwrap_or(manifest);
    let config = release::config_of(manifest).map_err(invalid)?;
    let bytes = fetch_whole(&config.digest, config.size, source.blob(&config.digest, config.size)).await?;
    ReleaseSpec::from_artefact(manifest, &bytes).map_err(invalid)
}

/// Makes an artefact stand in the content store, every byte of it verified.
pub(super) async fn stage(
    layout: &Layout,
    artefact: &Digest,
    spec: &ReleaseSpec,
    source: &dyn BlobSource,
    existing: Existing,
) -> Result<Staged, StageError> {
    if existing == Existing::Keep
        && let Some(tree) = intact(layout, artefact).await?
    {
        return Ok(Staged { tree, already: true });
    }
    let unpacked = durable::temporary_beside(&layout.store(artefact));
    durable::create_dirs(&unpacked, 0o700)?;
    if let Err(error) = fetch_layers(&spec.layers, source, &unpacked).await {
        // What cannot be removed now is swept by the next converge.
        drop(blocking(move || durable::remove_tree(&unpacked)).await);
        return Err(error);
    }
    let tree = put_in_place(layout.clone(), artefact.clone(), unpacked).await?;
    Ok(Staged { tree, already: false })
}

/// The tree digest of an artefact whose files all are as they were unpacked.
async fn intact(layout: &Layout, artefact: &Digest) -> Result<Option<Digest>, FileError> {
    let (dir, record_file) = (layout.store(artefact), layout.tree_file(artefact));
    blocking(move || {
        let Some(record) = durable::read_if_there(&record_file)? else { return Ok(None) };
        let difference = tree::first_difference(&dir, &record, Closeness::Full);
        let difference = difference.map_err(|source| FileError::new("compare", &dir, source))?;
        Ok(difference.is_none().then(|| Digest::of(&record)))
    })
    .await
}

/// Whether an artefact's record is the one that a generation was switched on with, and its files agree with it.
pub(super) async fn is_intact(layout: &Layout, artefact: &Digest, tree: &Digest) -> Result<bool, FileError> {
    Ok(intact(layout, artefact).await?.is_some_and(|found| found == *tree))
}

async fn fetch_whole(digest: &Digest, size: u64, opened: BlobFuture<'_>) -> Result<Vec<u8>, StageError> {
    let fetch = |source| StageError::Fetch { digest: digest.clone(), source };
    if size > release::CONFIG_BYTES_MAX {
        let what = format!("a document of {size} bytes is larger than {}", release::CONFIG_BYTES_MAX);
        return Err(fetch(io::Error::other(what)));
    }
    let mut bytes = Vec::new();
    let reader = opened.await.map_err(fetch)?;
    reader.take(size + 1).read_to_end(&mut bytes).await.map_err(fetch)?;
    if bytes.len() as u64 != size || !digest.matches(&bytes) {
        let found = Digest::of_with(digest.algorithm(), &bytes);
        return Err(StageError::Damaged { expected: digest.clone(), size, found, bytes: bytes.len() as u64 });
    }
    Ok(bytes)
}

async fn fetch_layers(layers: &[Layer], source: &dyn BlobSource, into: &Path) -> Result<(), StageError> {
    for layer in layers {
        fetch_layer(layer, source, into).await?;
    }
    Ok(())
}

async fn fetch_layer(layer: &Layer, source: &dyn BlobSource, into: &Path) -> Result<(), StageError> {
    let reader = source
        .blob(&layer.digest, layer.size)
        .await
        .map_err(|source| StageError::Fetch { digest: layer.digest.clone(), source })?;
    let (sender, receiver) = mpsc::channel(4);
    let (layer, into) = (layer.clone(), into.to_owned());
    let unpacking = tokio::task::spawn_blocking(move || unpack_verified(&layer, receiver, &into));
    feed(reader, sender).await;
    unpacking.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Reads a blob in pieces of bounded size until it ends, fails, or nobody wants more of it.
async fn feed(mut reader: BlobReader, sender: mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(64 * 1024);
        let piece = match reader.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => Ok(buffer.split().freeze()),
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if sender.send(piece).await.is_err() || failed {
            return;
        }
    }
}

/// Unpacks a layer and hashes it on the way. What is unpacked counts only after the digest was found right.
fn unpack_verified(
    layer: &Layer,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    into: &Path,
) -> Result<(), StageError> {
    let mut blob = Hashing::new(pieces, layer);
    let room = unpack::Room::for_layer(layer.size);
    let stream = BufReader::with_capacity(64 * 1024, &mut blob);
    let tar = layer.compression.decode(stream).map_err(unpack::UnpackError::Read);
    let unpacked = tar.and_then(|tar| unpack::layer(tar, into, room));
    // Wrong bytes usually make a wrong archive as well: the digest is what tells the reader what happened.
    blob.finish(layer)?;
    unpacked.map_err(|error| StageError::Unpack { digest: layer.digest.clone(), source: Box::new(error) })
}

/// The receiving end of [`feed`], as a blocking reader that hashes what passes.
struct Hashing {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
    hasher: Hasher,
    bytes: u64,
    bytes_max: u64,
    failure: Option<io::Error>,
}

impl Hashing {
    fn new(pieces: mpsc::Receiver<io::Result<Bytes>>, layer: &Layer) -> Self {
        let hasher = Hasher::new(layer.digest.algorithm());
        Self { pieces, piece: Bytes::new(), hasher, bytes: 0, bytes_max: layer.size, failure: None }
    }

    fn finish(mut self, layer: &Layer) -> Result<(), StageError> {
        let drained = io::copy(&mut self, &mut io::sink());
        if let Some(source) = self.failure.or(drained.err()) {
            return Err(StageError::Fetch { digest: layer.digest.clone(), source });
        }
        let found = self.hasher.finish();
        if found == layer.digest && self.bytes == layer.size {
            return Ok(());
        }
        Err(StageError::Damaged {
            expected: layer.digest.clone(),
            size: layer.size,
            found,
            bytes: self.bytes,
        })
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A blob that is longer than its manifest says is wrong already; nobody needs the rest.
        if self.piece.is_empty() && self.failure.is_none() && self.bytes <= self.bytes_max {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => {
                    self.hasher.update(&piece);
                    self.bytes += piece.len() as u64;
                    self.piece = piece;
                }
                Some(Err(error)) => {
                    let shown = io::Error::new(error.kind(), "the blob broke off");
                    self.failure = Some(error);
                    return Err(shown);
                }
                None => {}
            }
        }
        let n = buffer.len().min(self.piece.len());
        buffer[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}

/// Seals, records and makes durable what was unpacked, then gives it its name; the record comes last.
async fn put_in_place(layout: Layout, artefact: Digest, unpacked: PathBuf) -> Result<Digest, FileError> {
    blocking(move || {
        unpack::seal(&unpacked).map_err(|source| FileError::new("seal", &unpacked, source))?;
        let record = tree::record(&unpacked).map_err(|source| FileError::new("read", &unpacked, source))?;
        durable::sync_tree(&unpacked)?;
        let dir = layout.store(&artefact);
        durable::remove_file(&layout.tree_file(&artefact))?;
        let aside = durable::temporary_beside(&dir);
        if dir.exists() {
            durable::rename(&dir, &aside)?;
        }
        durable::rename(&unpacked, &dir)?;
        durable::write(&layout.tree_file(&artefact), &record, 0o444)?;
        durable::remove_tree(&aside)?;
        Ok(Digest::of(&record))
    })
    .await
}

/// Runs work on files where it may block.
pub(super) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

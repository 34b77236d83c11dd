//! Blobs: every content of any size is a file under its digest.
//!
//! Written: stream → buffers that go round: writer into `uploads/`, hasher → `fdatasync`, rename to the final name, `fsync` of
//! the directory. A name is never rewritten; bytes are visible only after their digest was verified.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use semel_model::digest::{Algorithm, Digest, Hasher};

use crate::blob_reader::BlobReader;
use crate::durable;
use crate::lock::Held;
use crate::uploads::{self, Uploads};

/// How many bytes a read takes at once.
pub const READ_BYTES: usize = 64 * 1024;
/// How many buffers an upload goes through: one is filled, one is written, one is hashed.
const BUFFERS: usize = 3;
/// How much each of them takes: what comes in smaller pieces is handed on, written and hashed at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// How long nothing comes until a buffer that is not full is handed on, and the threads of the upload go.
const SILENCE: Duration = Duration::from_millis(10);
/// After how many bytes the kernel is asked to start writing them out.
const FLUSH_BYTES: u64 = 8 * 1024 * 1024;
/// How far back it is told then that what is written out is not needed in memory.
#[cfg(target_os = "linux")]
const LOOK_BACK_BYTES: u64 = 3 * FLUSH_BYTES;

/// The blobs of a store.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
    uploads: Uploads,
    running: Arc<Running>,
}

/// A blob could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It is not there.
    #[error("blob {0} is not in this store")]
    Unknown(Digest),
    /// The bytes are not what was announced.
    #[error("the bytes have digest {found}, not {expected}")]
    WrongDigest {
        /// What was announced.
        expected: Digest,
        /// What was computed.
        found: Digest,
    },
    /// What lies under the name is something else.
    #[error("blob {0} is damaged: its bytes do not have this digest")]
    Damaged(Digest),
    /// The source of the bytes failed.
    #[error("the bytes could not be received")]
    Source(#[source] io::Error),
    /// The disk failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such upload.
    #[error("there is no upload {0}")]
    UnknownUpload(String),
    /// Somebody else works on the upload, in this process or in another one.
    #[error("another request is writing to upload {0}")]
    BusyUpload(String),
    /// A piece of an upload does not follow the one before.
    #[error("the upload has {have} bytes; a piece that begins at {start} does not follow")]
    OutOfOrder {
        /// What is there.
        have: u64,
        /// Where the piece begins.
        start: u64,
    },
}

/// A blob that is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was new.
    pub fresh: bool,
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// How many bytes can still be written by this user.
    pub free_bytes: u64,
    /// How many bytes it has in all.
    pub size_bytes: u64,
}

impl Blobs {
    pub(crate) fn at(store: &Path) -> Self {
        Self { dir: store.join("blobs"), uploads: Uploads::of(store), running: Arc::default() }
    }

    /// The store's directory.
    pub(crate) fn root(&self) -> &Path {
        self.dir.parent().expect("blobs lie in the store's directory")
    }

    /// What is coming in.
    pub fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Where a blob lies.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
    }

    /// The size of a blob in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64, BlobError> {
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Unknown(digest.clone())),
            Err(source) => Err(BlobError::Io { action: "look at", path, source }),
        }
    }

    /// Whether a blob is there.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens `length` bytes of a blob from `start` on.
    pub async fn open(&self, digest: &Digest, start: u64, length: u64) -> Result<BlobReader, BlobError> {
        let path = self.path(digest);
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(BlobReader::new(file.into_std().await, start, length)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Unknown(digest.clone())),
            Err(source) => Err(BlobError::Io { action: "open", path, source }),
        }
    }

    /// A small blob whole, with its digest checked.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, BlobError> {
        let path = self.path(digest);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Unknown(digest.clone()));
            }
            Err(source) => return Err(BlobError::Io { action: "read", path, source }),
        };
        if digest.matches(&bytes) { Ok(bytes) } else { Err(BlobError::Damaged(digest.clone())) }
    }

    /// Hashes what lies under a digest.
    pub fn verify(&self, digest: &Digest) -> Result<u64, BlobError> {
        verify_file(&self.path(digest), digest)
    }

    /// Stores a small blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Stored, BlobError> {
        self.put_verified(bytes, Digest::of(bytes))
    }

    /// Stores a small blob under the digest that is announced for it.
    pub async fn put_announced(
        &self,
        bytes: impl AsRef<[u8]> + Send + 'static,
        expected: &Digest,
    ) -> Result<Stored, BlobError> {
        let (this, path, expected) = (self.clone(), self.path(expected), expected.clone());
        let put = move || {
            let found = Digest::of_with(expected.algorithm(), bytes.as_ref());
            if found == expected {
                this.put_verified(bytes.as_ref(), found)
            } else {
                Err(BlobError::WrongDigest { expected, found })
            }
        };
        in_background("write", path, put).await
    }

    fn put_verified(&self, bytes: &[u8], digest: Digest) -> Result<Stored, BlobError> {
        let size = bytes.len() as u64;
        let path = self.path(&digest);
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == size)
            && self.read(&digest).is_ok()
            && self.hold(&digest)?
        {
            return Ok(Stored { digest, size, fresh: false });
        }
        let temporary = self.uploads.path(&durable::temporary_name("put-"));
        let failed = |source| BlobError::Io { action: "write", path: temporary.clone(), source };
        let mut file = self.uploads.create(&temporary).map_err(failed)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_data()).map_err(failed);
        let stored = written.and_then(|()| self.adopt(&temporary, digest, size));
        if stored.is_err() {
            // If it stays, it is a file that nobody reads, until a collection removes it.
            drop(std::fs::remove_file(&temporary));
        }
        stored
    }

    /// Stores several small blobs at once: their syncs are waited for together, not one after the other.
    pub fn put_all(&self, blobs: &[&[u8]]) -> Result<Vec<Stored>, BlobError> {
        std::thread::scope(|scope| {
            let writers: Vec<_> = blobs.iter().map(|bytes| scope.spawn(|| self.put(bytes))).collect();
            let stored =
                writers.into_iter().map(|writer| writer.join().expect("storing a blob does not panic"));
            stored.collect()
        })
    }

    /// Stores a stream of unknown length under the digest that is announced for it.
    pub async fn put_stream(
        &self,
        source: impl Stream<Item = io::Result<Bytes>> + Unpin,
        expected: &Digest,
    ) -> Result<Stored, BlobError> {
        let id = self.begin_upload()?;
        self.expect_algorithm(&id, expected.algorithm())?;
        let written = async {
            self.extend_upload(&id, None, source).await?;
            self.finish_upload(&id, expected).await
        };
        let result = written.await;
        if result.is_err() {
            drop(self.cancel_upload(&id));
        }
        result
    }

    /// Begins an upload session; its id is unguessable.
    pub fn begin_upload(&self) -> Result<String, BlobError> {
        let id = hex::encode(&crate::keys::random()[..16]);
        let path = self.upload_path(&id)?;
        match self.uploads.create(&path) {
            Ok(_) => Ok(id),
            Err(source) => Err(BlobError::Io { action: "create", path, source }),
        }
    }

    /// Says by which algorithm a new upload session will be checked, which is then done while its bytes come in. Without it,
    /// or after a restart, SHA-256 is computed, and a digest of another kind costs one more reading at the end.
    pub fn expect_algorithm(&self, id: &str, algorithm: Algorithm) -> Result<(), BlobError> {
        self.running.keep(&self.upload_path(id)?, Hasher::new(algorithm), 0);
        Ok(())
    }

    /// How many bytes an upload session has.
    pub fn upload_size(&self, id: &str) -> Result<u64, BlobError> {
        let path = self.upload_path(id)?;
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::UnknownUpload(id.to_owned()))
            }
            Err(source) => Err(BlobError::Io { action: "look at", path, source }),
        }
    }

    /// Appends a stream to an upload session; `start` is where the client says that it begins. Returns the new size.
    pub async fn extend_upload(
        &self,
        id: &str,
        start: Option<u64>,
        source: impl Stream<Item = io::Result<Bytes>> + Unpin,
    ) -> Result<u64, BlobError> {
        let start = start.map_or_else(|| self.upload_size(id), Ok)?;
        let (path, this, id) = (self.upload_path(id)?, self.clone(), id.to_owned());
        let mut session = in_background("open", path, move || Session::at(&this, &id, start)).await?;
        let mut source = source.fuse();
        // While nothing comes, no thread waits for it: there are only so many, and clients that send nothing would have them all.
        while let Some(first) = source.next().await {
            session = session.take_in(first.map_err(BlobError::Source)?, &mut source).await?;
        }
        Ok(session.size)
    }

    /// Appends a few bytes to an upload session and returns its new size: without the queue that a stream needs.
    pub async fn append_to_upload(&self, id: &str, start: u64, bytes: Bytes) -> Result<u64, BlobError> {
        let (path, this, id) = (self.upload_path(id)?, self.clone(), id.to_owned());
        let append = move || Session::at(&this, &id, start)?.append(&bytes);
        in_background("write", path, append).await
    }

    /// Checks an upload session against its digest and makes it a blob.
    pub async fn finish_upload(&self, id: &str, expected: &Digest) -> Result<Stored, BlobError> {
        let path = self.upload_path(id)?;
        let (this, id, expected) = (self.clone(), id.to_owned(), expected.clone());
        in_background("finish", path, move || this.finish_blocking(Session::enter(&this, &id)?, &expected))
            .await
    }

    /// As [`Blobs::append_to_upload`] and [`Blobs::finish_upload`], in one go.
    pub async fn finish_upload_with(
        &self,
        id: &str,
        start: u64,
        bytes: Bytes,
        expected: &Digest,
    ) -> Result<Stored, BlobError> {
        let path = self.upload_path(id)?;
        let (this, id, expected) = (self.clone(), id.to_owned(), expected.clone());
        let finish = move || {
            let mut session = Session::at(&this, &id, start)?;
            session.append(&bytes)?;
            this.finish_blocking(session, &expected)
        };
        in_background("finish", path, finish).await
    }

    /// The session is held until its file has its name as a blob, so that nobody else adds to its bytes.
    fn finish_blocking(&self, session: Session, expected: &Digest) -> Result<Stored, BlobError> {
        let Session { mut file, path, size, .. } = session;
        let failed = |source| BlobError::Io { action: "read", path: path.clone(), source };
        let known = self.running.take(&path, expected.algorithm(), size);
        let (found, size) = match known {
            Some((digest, size)) => (digest, size),
            None => hash_file(&mut file, expected.algorithm()).map_err(failed)?,
        };
        if found != *expected {
            drop(std::fs::remove_file(&path));
            return Err(BlobError::WrongDigest { expected: expected.clone(), found });
        }
        file.sync_data().map_err(failed)?;
        self.adopt(&path, found, size)
    }

    /// Gives an upload session up.
    pub fn cancel_upload(&self, id: &str) -> Result<(), BlobError> {
        let path = self.upload_path(id)?;
        self.running.forget(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(BlobError::UnknownUpload(id.to_owned()))
            }
            Err(source) => Err(BlobError::Io { action: "remove", path, source }),
            Ok(()) => Ok(()),
        }
    }

    /// Upload sessions, and what a crash left of writes, that nobody has touched since: the size of each in bytes.
    pub fn idle_uploads(&self, since: SystemTime) -> Result<Vec<u64>, BlobError> {
        self.each_idle_upload(since, |_, _| Ok(true))
    }

    /// Removes those uploads; says the size of each in bytes.
    pub fn remove_idle_uploads(&self, since: SystemTime) -> Result<Vec<u64>, BlobError> {
        self.each_idle_upload(since, |this, path| this.remove_idle(path))
    }

    /// Removes the one of these upload sessions that nobody has touched for longest, unless somebody has since; says which.
    pub fn remove_most_idle<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a String>,
        since: SystemTime,
    ) -> Result<Option<&'a String>, BlobError> {
        let mut idle = Vec::new();
        for id in ids {
            let path = self.upload_path(id)?;
            idle.extend(idle_time_and_size(&path, since)?.map(|(touched, _)| (touched, id, path)));
        }
        idle.sort_unstable();
        for (_, id, path) in idle {
            if self.remove_idle(&path)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn each_idle_upload(
        &self,
        since: SystemTime,
        take: impl Fn(&Self, &Path) -> Result<bool, BlobError>,
    ) -> Result<Vec<u64>, BlobError> {
        let dir = self.uploads.dir();
        let failed = |source| BlobError::Io { action: "look through", path: dir.to_owned(), source };
        let mut sizes = Vec::new();
        for path in self.uploads.files().map_err(failed)? {
            match idle_time_and_size(&path, since)? {
                Some((_, size)) if take(self, &path)? => sizes.push(size),
                _ => {}
            }
        }
        Ok(sizes)
    }

    /// One that ends meanwhile is none of ours any more.
    fn remove_idle(&self, path: &Path) -> Result<bool, BlobError> {
        // Nobody may begin to finish it while it goes, and one that is being finished stays.
        let held = File::open(path).and_then(Held::try_of);
        if matches!(held, Ok(None)) {
            return Ok(false);
        }
        self.running.forget(path);
        match std::fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(BlobError::Io { action: "remove", path: path.to_owned(), source }),
        }
    }

    /// How full the disk is on which blobs are written.
    pub fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(self.uploads.dir())?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space { free_bytes: bytes(found.f_bavail), size_bytes: bytes(found.f_blocks) })
    }

    /// Gives a finished, synced and verified file its final name. What lies there already and is whole stays; a damaged
    /// blob is healed by good bytes.
    fn adopt(&self, temporary: &Path, digest: Digest, size: u64) -> Result<Stored, BlobError> {
        let path = self.path(&digest);
        let failed = |source| BlobError::Io { action: "write", path: path.clone(), source };
        durable::create_dir(path.parent().expect("a blob lies in a directory")).map_err(failed)?;
        let fresh = match std::fs::metadata(&path) {
            Ok(metadata)
                if metadata.len() == size && self.verify(&digest).is_ok() && self.hold(&digest)? =>
            {
                std::fs::remove_file(temporary).map_err(failed)?;
                false
            }
            Ok(_) => {
                durable::rename_into_place(temporary, &path).map_err(failed)?;
                true
            }
            Err(_) => durable::move_into_place(temporary, &path).map_err(failed)?,
        };
        Ok(Stored { digest, size, fresh })
    }

    fn upload_path(&self, id: &str) -> Result<PathBuf, BlobError> {
        match uploads::is_session(id) {
            true => Ok(self.uploads.path(id)),
            false => Err(BlobError::UnknownUpload(id.chars().take(80).collect())),
        }
    }

    /// The digests of all blobs, in no order. What cannot be listed is an error, and never taken for empty.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let shards = match std::fs::read_dir(self.dir.join(algorithm.as_str())) {
                // It is made with the first blob of its kind.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                shards => shards?,
            };
            for shard in shards {
                for item in std::fs::read_dir(shard?.path())? {
                    let name = item?.file_name();
                    let text = format!("{}:{}", algorithm.as_str(), name.to_string_lossy());
                    digests.extend(text.parse::<Digest>());
                }
            }
        }
        Ok(digests)
    }
}

/// Hashes a file that should have a digest; gives its size in bytes.
pub(crate) fn verify_file(path: &Path, digest: &Digest) -> Result<u64, BlobError> {
    let failed = |source| BlobError::Io { action: "read", path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BlobError::Unknown(digest.clone()));
        }
        Err(source) => return Err(failed(source)),
    };
    let (found, size) = hash_file(&mut file, digest.algorithm()).map_err(failed)?;
    if found == *digest { Ok(size) } else { Err(BlobError::Damaged(digest.clone())) }
}

/// When a file was last touched that nobody has touched since, and how many bytes it has. `None`: somebody has, or it is gone.
fn idle_time_and_size(path: &Path, since: SystemTime) -> Result<Option<(SystemTime, u64)>, BlobError> {
    let looked = std::fs::metadata(path).and_then(|found| Ok((found.modified()?, found.len())));
    match looked {
        Ok(found) => Ok((found.0 < since).then_some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BlobError::Io { action: "look at", path: path.to_owned(), source }),
    }
}

/// Begins at once what waits for the disk, on a thread that may wait.
fn in_background<T: Send + 'static>(
    action: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> impl Future<Output = Result<T, BlobError>> {
    let running = tokio::task::spawn_blocking(work);
    async move { running.await.map_err(|error| BlobError::Io { action, path, source: io::Error::other(error) })? }
}

/// An upload session on which nobody else works until this is dropped, in no process of the host: several servers may work on
/// one directory, and what one of them has published must not be added to by another.
struct Session {
    file: Held,
    path: PathBuf,
    /// How many bytes it has.
    size: u64,
    running: Arc<Running>,
}

impl Session {
    fn enter(blobs: &Blobs, id: &str) -> Result<Self, BlobError> {
        let path = blobs.upload_path(id)?;
        let failed = |action, source| BlobError::Io { action, path: path.clone(), source };
        let unknown = || BlobError::UnknownUpload(id.to_owned());
        let file = match File::options().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown()),
            Err(source) => return Err(failed("open", source)),
        };
        let held = Held::try_of(file).map_err(|source| failed("lock", source))?;
        let file = held.ok_or_else(|| BlobError::BusyUpload(id.to_owned()))?;
        // It may have ended between our opening and our locking.
        let ours = file.metadata().map_err(|source| failed("look at", source))?;
        let named = std::fs::symlink_metadata(&path);
        if !named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
            return Err(unknown());
        }
        Ok(Self { file, path, size: ours.len(), running: Arc::clone(&blobs.running) })
    }

    /// A session whose next byte is at `start`.
    fn at(blobs: &Blobs, id: &str, start: u64) -> Result<Self, BlobError> {
        let session = Self::enter(blobs, id)?;
        // A crash may have left the name of a session whose bytes are a blob already.
        if session.file.metadata().map_err(|source| session.unwritten(source))?.nlink() > 1 {
            return Err(BlobError::UnknownUpload(id.to_owned()));
        }
        match session.size {
            have if have != start => Err(BlobError::OutOfOrder { have, start }),
            _ => Ok(session),
        }
    }

    fn unwritten(&self, source: io::Error) -> BlobError {
        BlobError::Io { action: "write", path: self.path.clone(), source }
    }

    /// Writes and hashes a few bytes; returns how many there are with those before.
    fn append(&mut self, bytes: &[u8]) -> Result<u64, BlobError> {
        let hasher = self.running.resume(&self.path, self.size);
        self.file.write_all(bytes).map_err(|source| self.unwritten(source))?;
        self.size += bytes.len() as u64;
        if let Some(mut hasher) = hasher {
            hasher.update(bytes);
            self.running.keep(&self.path, hasher, self.size);
        }
        Ok(self.size)
    }

    /// Takes a stream in from a first piece on, until it is silent, ends or breaks off.
    async fn take_in(
        self,
        first: Bytes,
        source: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin),
    ) -> Result<Self, BlobError> {
        let (filled, to_write) = tokio::sync::mpsc::channel(BUFFERS);
        let (spare, empty) = tokio::sync::mpsc::channel(BUFFERS);
        // They take memory when they are filled for the first time: a short stream needs but one.
        (1..BUFFERS).try_for_each(|_| spare.try_send(Vec::new())).expect("there is room for every buffer");
        let path = self.path.clone();
        let writer = in_background("write", path, move || self.append_buffers(to_write, spare));
        let received = Buffers { current: Vec::new(), filled, empty }.fill(first, source).await;
        let session = writer.await?;
        received.map(|()| session)
    }

    /// Writes and hashes buffers as they come: this thread writes, another one hashes what was written and gives the buffer
    /// back. The running hash is kept for the next piece of the same upload.
    fn append_buffers(
        mut self,
        mut to_write: tokio::sync::mpsc::Receiver<Vec<u8>>,
        spare: tokio::sync::mpsc::Sender<Vec<u8>>,
    ) -> Result<Self, BlobError> {
        let first = to_write.blocking_recv().unwrap_or_default();
        let Some(second) = to_write.blocking_recv() else {
            // What fits into one buffer is not worth a second thread.
            self.append(&first)?;
            return Ok(self);
        };
        let buffers = [first, second].into_iter().chain(std::iter::from_fn(|| to_write.blocking_recv()));
        let hasher = self.running.resume(&self.path, self.size);
        let (written, to_hash) = mpsc::sync_channel(BUFFERS);
        let result = std::thread::scope(|scope| {
            let hashing = scope.spawn(move || hash_buffers(hasher, to_hash, &spare));
            let size = write_buffers(&mut self.file, self.size, buffers, &written);
            drop(written);
            let hasher = hashing.join().unwrap_or(None);
            size.map(|size| (size, hasher))
        });
        let (size, hasher) = result.map_err(|source| self.unwritten(source))?;
        self.size = size;
        if let Some(hasher) = hasher {
            self.running.keep(&self.path, hasher, size);
        }
        Ok(self)
    }
}

/// The buffers of an upload, on the side where they are filled.
struct Buffers {
    /// The one that is being filled.
    current: Vec<u8>,
    filled: tokio::sync::mpsc::Sender<Vec<u8>>,
    /// Those that were written and hashed.
    empty: tokio::sync::mpsc::Receiver<Vec<u8>>,
}

impl Buffers {
    /// Takes a stream in until it is silent, ends or breaks off. What came stays, whatever becomes of the rest.
    async fn fill(
        mut self,
        first: Bytes,
        source: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin),
    ) -> Result<(), BlobError> {
        let mut goes_on = self.take(first).await;
        let received = loop {
            // The writer failed; its own error is the one to report.
            if goes_on.is_none() {
                return Ok(());
            }
            match tokio::time::timeout(SILENCE, source.next()).await {
                Err(_) | Ok(None) => break Ok(()),
                Ok(Some(Err(error))) => break Err(BlobError::Source(error)),
                Ok(Some(Ok(piece))) => goes_on = self.take(piece).await,
            }
        };
        drop(self.filled.send(self.current).await);
        received
    }

    /// `None`: nobody writes any more.
    async fn take(&mut self, mut piece: Bytes) -> Option<()> {
        while !piece.is_empty() {
            if self.current.len() == BUFFER_BYTES {
                self.hand_over().await?;
            }
            let room = BUFFER_BYTES - self.current.len();
            self.current.reserve_exact(room);
            self.current.extend_from_slice(&piece.split_to(room.min(piece.len())));
        }
        Some(())
    }

    /// `None`: nobody writes any more.
    async fn hand_over(&mut self) -> Option<()> {
        self.filled.send(std::mem::take(&mut self.current)).await.ok()?;
        self.current = self.empty.recv().await?;
        Some(())
    }
}

/// Writes buffers behind the first `size` bytes of a file and passes them on; returns the new size.
fn write_buffers(
    file: &mut File,
    mut size: u64,
    buffers: impl Iterator<Item = Vec<u8>>,
    written: &mpsc::SyncSender<Vec<u8>>,
) -> io::Result<u64> {
    for buffer in buffers {
        file.write_all(&buffer)?;
        let before = size / FLUSH_BYTES;
        size += buffer.len() as u64;
        if size / FLUSH_BYTES > before {
            start_writeback(file, size);
        }
        // The hasher ends only when the sender is dropped, and no buffer would come back from it.
        written.send(buffer).map_err(|_| io::Error::other("the hasher has ended"))?;
    }
    Ok(size)
}

fn hash_buffers(
    mut hasher: Option<Hasher>,
    to_hash: mpsc::Receiver<Vec<u8>>,
    spare: &tokio::sync::mpsc::Sender<Vec<u8>>,
) -> Option<Hasher> {
    for mut buffer in to_hash {
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer);
        }
        buffer.clear();
        // There is room for every buffer, and who receives no more needs none.
        drop(spare.try_send(buffer));
    }
    hasher
}

/// Asks the kernel to begin writing what came last, so that the final sync does not wait for everything at once, and to
/// give up the pages of what it has written since it was asked before: a large upload goes through the same few pages.
#[cfg(target_os = "linux")]
fn start_writeback(file: &File, size: u64) {
    // `sync_file_range` has no safe wrapper; advising that pages are not needed starts their write-back, and drops those
    // that are written already. It is advice: what cannot be done now is done by the final sync.
    let start = size.saturating_sub(LOOK_BACK_BYTES);
    let length = std::num::NonZeroU64::new(size - start);
    let _ = rustix::fs::fadvise(file, start, length, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(_file: &File, _size: u64) {}

fn hash_file(file: &mut File, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    file.seek(io::SeekFrom::Start(0))?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; READ_BYTES];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), size)),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// The running hashes of uploads of this process, so that a finished upload need not be read again. Lost with the process;
/// the file is hashed then.
#[derive(Debug, Default)]
struct Running(Mutex<HashMap<PathBuf, (Hasher, u64)>>);

impl Running {
    fn hashes(&self) -> MutexGuard<'_, HashMap<PathBuf, (Hasher, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of the first `size` bytes, if it is known.
    fn resume(&self, path: &Path, size: u64) -> Option<Hasher> {
        let known = self.hashes().remove(path).filter(|(_, known)| *known == size).map(|(hasher, _)| hasher);
        known.or_else(|| (size == 0).then(|| Hasher::new(Algorithm::Sha256)))
    }

    fn keep(&self, path: &Path, hasher: Hasher, size: u64) {
        self.hashes().insert(path.to_owned(), (hasher, size));
    }

    fn take(&self, path: &Path, algorithm: Algorithm, size: u64) -> Option<(Digest, u64)> {
        let (hasher, known) = self.hashes().remove(path)?;
        let digest = (known == size).then(|| hasher.finish())?;
        (digest.algorithm() == algorithm).then_some((digest, size))
    }

    fn forget(&self, path: &Path) {
        self.hashes().remove(path);
    }
}

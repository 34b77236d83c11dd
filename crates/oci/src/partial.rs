//! Files that arrive over several attempts: what came before a broken connection or a killed process is kept.
//!
//! ```text
//! <directory>/.semel-sha256-9f86….part      the bytes so far; locked by whoever is adding to them
//! ```
//!
//! The bytes that are there are hashed again before the rest is asked for, and nothing gets its name before the whole has
//! the right digest.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use semel_model::digest::Hasher;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::body::CHUNK_BYTES;
use crate::descriptor::Descriptor;
use crate::source::BlobSource;
use crate::verify::Mismatch;

/// Why bytes did not become a file.
#[derive(Debug)]
pub(crate) enum PartialError {
    /// Where they were to be written.
    Write { path: PathBuf, source: io::Error },
    /// Where they come from.
    Source(io::Error),
    /// They are others.
    WrongBytes(Mismatch),
    /// Something else got the name meanwhile.
    Taken,
}

/// What becomes of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It is replaced.
    Replaced,
    /// It stays, and that is an error.
    Kept,
}

/// What becomes of stretches of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holes {
    /// They are written as any other bytes.
    Written,
    /// They are left out, where the file system can do that: for disk images.
    Left,
}

/// Brings bytes to a file, durably and whole, and says how many of them were there from an attempt before.
pub(crate) async fn receive(
    wanted: &Descriptor,
    source: &dyn BlobSource,
    directory: &Path,
    place: &Path,
    existing: Existing,
    holes: Holes,
) -> Result<u64, PartialError> {
    let mut partial = Partial::open(directory, wanted).await?;
    partial.holes = holes;
    let mut kept = partial.size;
    let mut filled = partial.fill(wanted, source, place).await;
    // What was kept may be what a crash left of it: nothing is lost but time.
    if kept > 0 && matches!(filled, Err(PartialError::WrongBytes(_))) {
        partial.restart(wanted).await?;
        kept = 0;
        filled = partial.fill(wanted, source, place).await;
    }
    partial.resumable &= !matches!(filled, Err(PartialError::WrongBytes(_)));
    if filled.is_err() {
        // The last piece may still be on its way to the file, and the file locked by it: the next attempt would begin alone.
        drop(partial.file.flush().await);
    }
    filled?;
    partial.publish(place, existing).await?;
    Ok(kept)
}

struct Partial {
    path: PathBuf,
    file: File,
    hasher: Option<Hasher>,
    size: u64,
    holes: Holes,
    /// Whether it is worth keeping.
    resumable: bool,
    published: bool,
}

impl Partial {
    async fn open(directory: &Path, wanted: &Descriptor) -> Result<Self, PartialError> {
        let name = wanted.digest.as_str().replacen(':', "-", 1);
        let path = directory.join(format!(".semel-{name}.part"));
        let mut partial = match open_alone(&path) {
            Ok(Some(file)) => Self::new(path, file, wanted, true),
            // Somebody else fetches the same: then each for himself.
            Ok(None) => create_own(directory, &name, wanted)?,
            Err(source) => return Err(PartialError::Write { path, source }),
        };
        partial.take_in_what_is_there(wanted).await.map_err(|source| partial.unwritten(source))?;
        Ok(partial)
    }

    fn new(path: PathBuf, file: std::fs::File, wanted: &Descriptor, resumable: bool) -> Self {
        let hasher = Some(Hasher::new(wanted.digest.algorithm()));
        let holes = Holes::Written;
        Self { path, file: File::from_std(file), hasher, size: 0, holes, resumable, published: false }
    }

    async fn take_in_what_is_there(&mut self, wanted: &Descriptor) -> io::Result<()> {
        if self.file.metadata().await?.len() > wanted.size {
            self.file.set_len(0).await?;
        }
        let mut buffer = Vec::with_capacity(CHUNK_BYTES);
        while self.file.read_buf(&mut buffer).await? > 0 {
            self.take_in(&buffer);
            buffer.clear();
        }
        Ok(())
    }

    fn take_in(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    async fn restart(&mut self, wanted: &Descriptor) -> Result<(), PartialError> {
        self.hasher = Some(Hasher::new(wanted.digest.algorithm()));
        self.size = 0;
        let emptied = async {
            self.file.set_len(0).await?;
            self.file.rewind().await
        };
        emptied.await.map(drop).map_err(|source| self.unwritten(source))
    }

    async fn fill(
        &mut self,
        wanted: &Descriptor,
        source: &dyn BlobSource,
        place: &Path,
    ) -> Result<(), PartialError> {
        if self.size < wanted.size || wanted.size == 0 {
            let rest = source.open(self.size).await.map_err(source_error)?;
            let mut rest = rest.take(wanted.size - self.size);
            let mut buffer = Vec::with_capacity(CHUNK_BYTES);
            while rest.read_buf(&mut buffer).await.map_err(source_error)? > 0 {
                self.write(&buffer).await.map_err(|source| self.unwritten(source))?;
                self.take_in(&buffer);
                buffer.clear();
            }
        }
        // The last bytes may be a hole.
        self.file.flush().await.map_err(|source| self.unwritten(source))?;
        self.file.set_len(self.size).await.map_err(|source| self.unwritten(source))?;
        let found = self.hasher.take().map(Hasher::finish).unwrap_or_else(|| wanted.digest.clone());
        if found == wanted.digest && self.size == wanted.size {
            return Ok(());
        }
        let what = place.display().to_string();
        let (expected, size) = (wanted.digest.clone(), Some(wanted.size));
        Err(PartialError::WrongBytes(Mismatch::new(what, expected, size, found, self.size)))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.holes == Holes::Left && bytes.iter().all(|byte| *byte == 0) {
            let over = i64::try_from(bytes.len()).map_err(io::Error::other)?;
            return self.file.seek(io::SeekFrom::Current(over)).await.map(drop);
        }
        self.file.write_all(bytes).await
    }

    /// Gives the file its name, durably.
    async fn publish(mut self, place: &Path, existing: Existing) -> Result<(), PartialError> {
        let flushed = async {
            self.file.flush().await?;
            self.file.sync_data().await
        };
        flushed.await.map_err(|source| self.unwritten(source))?;
        let (from, to) = (self.path.clone(), place.to_owned());
        let named = tokio::task::spawn_blocking(move || give_name(&from, &to, existing)).await;
        match named.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(PartialError::Taken),
            Err(source) => Err(PartialError::Write { path: place.to_owned(), source }),
        }
    }

    fn unwritten(&self, source: io::Error) -> PartialError {
        PartialError::Write { path: self.path.clone(), source }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published && (self.size == 0 || !self.resumable) {
            // If it stays, it is a file that nobody reads.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where received files get their names, durably")]
pub(crate) fn give_name(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    let directory = to.parent().expect("a file lies in a directory");
    std::fs::create_dir_all(directory)?;
    match existing {
        Existing::Replaced => std::fs::rename(from, to)?,
        // Unlike a rename, a link replaces nothing. Where there are no links, we look first.
        Existing::Kept => match std::fs::hard_link(from, to) {
            Ok(()) => std::fs::remove_file(from)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if to.symlink_metadata().is_ok() => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => std::fs::rename(from, to)?,
        },
    }
    std::fs::File::open(directory)?.sync_all()
}

/// Opens the file and locks it; `None` when somebody else has it.
pub(crate) fn open_alone(path: &Path) -> io::Result<Option<std::fs::File>> {
    loop {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had it may have given it its name between our opening and our locking: then it is no longer ours.
        let ours = file.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(Some(file)),
            Ok(there) if !there.is_file() => return Err(io::Error::other("it is no regular file")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

fn create_own(directory: &Path, name: &str, wanted: &Descriptor) -> Result<Partial, PartialError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".semel-{name}-{}-{number}.part", std::process::id()));
        match std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return Ok(Partial::new(path, file, wanted, false)),
            // Left by a process that was killed and had our number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(PartialError::Write { path, source }),
        }
    }
}

fn source_error(error: io::Error) -> PartialError {
    match Mismatch::of(&error) {
        Some(mismatch) => PartialError::WrongBytes(mismatch.clone()),
        None => PartialError::Source(error),
    }
}

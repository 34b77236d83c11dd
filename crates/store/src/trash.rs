//! How blobs go: aside first, and for good only later. Nothing is unlinked from its place.
//!
//! A blob that nothing needs is renamed into `trash/`, from where it comes back when it is asked for; after a time it is
//! purged. A blob that is damaged is renamed into `quarantine/`, so that it counts as missing and the next push of its bytes
//! heals it. The file's modification time says when somebody last relied on a blob: a collection leaves young ones alone. A
//! client that was told "exists" from memory finds it all the same: what its manifest names comes back from the trash.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use semel_model::digest::Digest;

use crate::blobs::{BlobError, Blobs, verify_file};
use crate::durable;

/// A blob in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// Which.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Since when it is there.
    pub since: Timestamp,
}

impl Blobs {
    /// Whether a blob is here, and keeps it from collection for a while. One in the trash comes back.
    pub fn hold(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        match touch(&path) {
            Ok(()) => return Ok(true),
            // Where nothing can be changed, nothing is collected either.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(path.exists()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BlobError::Io { action: "hold", path, source }),
        }
        let trashed = self.trash_path(digest);
        match touch(&trashed).and_then(|()| durable::rename_into_place(&trashed, &path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.exists()),
            Err(source) => Err(BlobError::Io { action: "bring back", path: trashed, source }),
        }
    }

    /// When somebody last relied on a blob.
    pub fn last_held(&self, digest: &Digest) -> Result<Timestamp, BlobError> {
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(modified(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BlobError::Unknown(digest.clone())),
            Err(source) => Err(BlobError::Io { action: "look at", path, source }),
        }
    }

    /// Puts a blob into the trash; returns its size. For whoever holds the store's turn and knows that nothing needs it.
    pub fn discard(&self, digest: &Digest) -> Result<u64, BlobError> {
        let size = self.size(digest)?;
        let (path, target) = (self.path(digest), self.trash_path(digest));
        let moved = touch(&path).and_then(|()| durable::rename_into_place(&path, &target));
        moved.map_err(|source| BlobError::Io { action: "put into the trash", path, source })?;
        Ok(size)
    }

    /// What is in the trash.
    pub fn trashed(&self) -> io::Result<Vec<Trashed>> {
        let mut found = Vec::new();
        for item in std::fs::read_dir(self.root().join("trash"))? {
            let item = item?;
            let name = item.file_name().to_string_lossy().replacen('-', ":", 1);
            let Ok(digest) = name.parse() else { continue };
            let metadata = item.metadata()?;
            found.push(Trashed { digest, size: metadata.len(), since: modified(&metadata) });
        }
        found.sort_by(|a, b| a.digest.as_str().cmp(b.digest.as_str()));
        Ok(found)
    }

    /// Removes a blob from the trash for good.
    pub fn purge(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.trash_path(digest);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(BlobError::Io { action: "remove", path, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Puts a damaged blob aside, so that the next push of its bytes heals it; says where it lies. One that is whole by now, or
    /// gone, stays as it is: what was put aside is looked at once more.
    pub fn quarantine(&self, digest: &Digest) -> Result<Option<PathBuf>, BlobError> {
        let path = self.path(digest);
        let target = self.root().join("quarantine").join(file_name(digest));
        let failed = |source| BlobError::Io { action: "put aside", path: path.clone(), source };
        durable::create_dir(&self.root().join("quarantine")).map_err(failed)?;
        match durable::rename_into_place(&path, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        }
        match verify_file(&target, digest) {
            Ok(_) => {
                durable::move_into_place(&target, &path).map_err(failed)?;
                Ok(None)
            }
            Err(_) => Ok(Some(target)),
        }
    }

    fn trash_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("trash").join(file_name(digest))
    }
}

fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn touch(path: &std::path::Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    Ok(utimensat(CWD, path, &times, AtFlags::empty())?)
}

fn modified(metadata: &std::fs::Metadata) -> Timestamp {
    metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

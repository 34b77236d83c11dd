//! The one place where this crate writes its own files: temporary name, fsync, rename, fsync of the directory.
//!
//! A reader sees the old file or the new one, never a part. What a crash leaves behind has a temporary name and is
//! swept by the next converge. (An artefact's own files are written by `unpack`, into a temporary directory.)

#![allow(clippy::disallowed_methods, reason = "this is the crate's durable module")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}")]
pub struct FileError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    pub(super) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// Names the operation and the path of an I/O error.
pub(super) trait At<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError::new(operation, path, source))
    }
}

const TEMPORARY: &str = ".tmp-";

/// Whether a file name is one that only a crash leaves behind.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY)
}

/// A name beside `path` that nobody else uses.
pub(super) fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{TEMPORARY}{}-{n}", std::process::id()))
}

/// Replaces a file's content durably. `mode` holds from the first byte on.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    replace(path, bytes, mode, |file| file.sync_all())?;
    sync_parent(path)
}

/// Replaces a file's content in one step, but not durably: for what a restart of the machine makes meaningless.
pub(super) fn write_volatile(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes, 0o600, |_| Ok(()))
}

fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    sync: impl Fn(&File) -> io::Result<()>,
) -> Result<(), FileError> {
    let temporary = temporary_beside(path);
    let attempt = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        sync(&file)?;
        fs::rename(&temporary, path)
    };
    attempt().inspect_err(|_| drop(fs::remove_file(&temporary))).at("write", path)
}

/// Makes `path` a symbolic link to `to`, replacing the one that is there in one step.
pub(super) fn symlink(to: &Path, path: &Path) -> Result<(), FileError> {
    let temporary = temporary_beside(path);
    let attempt = || -> io::Result<()> {
        std::os::unix::fs::symlink(to, &temporary)?;
        fs::rename(&temporary, path)
    };
    attempt().inspect_err(|_| drop(fs::remove_file(&temporary))).at("link", path)?;
    sync_parent(path)
}

/// Renames durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).at("put in place", to)?;
    sync_parent(to)
}

/// Makes a directory and its parents, if they are not there. The mode is for what is made.
pub(super) fn create_dirs(path: &Path, mode: u32) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path).at("make directory", path)?;
    sync_parent(path)
}

/// Removes a file, if it is there, durably.
pub(super) fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.at("remove", path).and_then(|()| sync_parent(path)),
    }
}

/// Removes a tree, also one whose directories have no write bits.
pub(super) fn remove_tree(path: &Path) -> Result<(), FileError> {
    fn unlock(path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                unlock(&entry.path())?;
            }
        }
        Ok(())
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("remove", path),
        Ok(found) if found.is_dir() => {
            unlock(path).and_then(|()| fs::remove_dir_all(path)).at("remove", path)
        }
        Ok(_) => fs::remove_file(path).at("remove", path),
    }
}

/// Removes everything with a temporary name in a directory.
pub(super) fn sweep(dir: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        if entry.file_name().to_str().is_some_and(is_temporary) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes a whole tree durable. One call for the file system where there is one, else file by file.
pub(super) fn sync_tree(dir: &Path) -> Result<(), FileError> {
    #[cfg(target_os = "linux")]
    {
        let opened = File::open(dir).at("open", dir)?;
        rustix::fs::syncfs(&opened).map_err(io::Error::from).at("sync", dir)
    }
    #[cfg(not(target_os = "linux"))]
    {
        for entry in fs::read_dir(dir).at("list", dir)? {
            let path = entry.at("list", dir)?.path();
            let kind = fs::symlink_metadata(&path).at("look at", &path)?.file_type();
            if kind.is_dir() {
                sync_tree(&path)?;
            } else if kind.is_file() {
                File::open(&path).and_then(|file| file.sync_all()).at("sync", &path)?;
            }
        }
        File::open(dir).and_then(|file| file.sync_all()).at("sync", dir)
    }
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).at("sync", parent)
}

/// Reads a file; none: it is not there.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).at("read", path),
    }
}

/// Reads a JSON file of ours; none: it is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    read_if_there(path)?.map(|bytes| parse(path, &bytes)).transpose()
}

/// Parses the content of a JSON file of ours.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FileError> {
    serde_json::from_slice(bytes).map_err(io::Error::from).at("understand", path)
}

/// An exclusive lock that ends with its holder, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

/// Closing the file would not do: a program that this process is just starting has it open too, until it is itself.
impl Drop for Lock {
    fn drop(&mut self) {
        // Then it goes with the file.
        drop(self.0.unlock());
    }
}

/// Takes a lock; none: somebody else holds it.
pub(super) fn try_lock(path: &Path) -> Result<Option<Lock>, FileError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.at("open", path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(io::Error::from(error)).at("lock", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        write(&path, b"one", 0o400).unwrap();
        write(&path, b"two", 0o400).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_sweep_removes_what_a_crash_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = temporary_beside(&dir.path().join("x"));
        fs::create_dir_all(sealed.join("deep")).unwrap();
        fs::set_permissions(&sealed, fs::Permissions::from_mode(0o500)).unwrap();
        fs::write(dir.path().join("kept"), "").unwrap();
        sweep(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

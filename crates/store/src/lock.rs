//! Whose turn it is to write: `flock` on `store.lock`, one holder among all processes of the host.
//!
//! A busy-timeout of the database would starve writers; the lock lets each in after the other.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};

/// The lock file of a store.
#[derive(Debug, Clone)]
pub(crate) struct StoreLock(PathBuf);

/// A file that is locked (`flock`) until this is dropped. Each holder has an open file of its own, to which the lock belongs: no
/// other holder of this process can give it up by mistake, not even one that was no longer waited for.
#[derive(Debug)]
pub(crate) struct Held(File);

impl Held {
    /// Locks an open file; none: somebody else has it.
    pub(crate) fn try_of(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

/// Closing the file would not do: a program that this process is just starting has it open too, until it is itself.
impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "A lock goes with its file alone");
        }
    }
}

impl StoreLock {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Waits for the lock without blocking the other tasks of this process. Mostly nobody has it.
    pub(crate) async fn acquire(&self) -> io::Result<Held> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.0)?;
        Self::wait_for(file).await
    }

    /// The same for who changes nothing, also where nothing can be changed.
    pub(crate) async fn acquire_to_read(&self) -> io::Result<Held> {
        match self.acquire().await {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Self::wait_for(File::open(&self.0)?).await
            }
            other => other,
        }
    }

    async fn wait_for(file: File) -> io::Result<Held> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Held(file)),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK || error == rustix::io::Errno::INTR => {}
            Err(error) => return Err(error.into()),
        }
        let locked = tokio::task::spawn_blocking(move || {
            loop {
                match flock(&file, FlockOperation::LockExclusive) {
                    Err(error) if error == rustix::io::Errno::INTR => {}
                    // Closing the file gives the lock up.
                    other => return other.map(|()| Held(file)).map_err(io::Error::from),
                }
            }
        });
        locked.await.map_err(io::Error::other)?
    }
}

/// The kind of a file system on which neither locks nor `fsync` can be relied on, if a path lies on one.
#[cfg(target_os = "linux")]
pub fn network_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    const KINDS: [(i64, &str); 6] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x0102_1997, "9p"),
        (0x5346_414f, "AFS"),
    ];
    #[allow(clippy::useless_conversion, reason = "the type of `f_type` differs between architectures")]
    let kind = i64::try_from(rustix::fs::statfs(path)?.f_type).unwrap_or(0) & 0xffff_ffff;
    Ok(KINDS.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name))
}

/// Elsewhere the kinds have no numbers that could be compared.
#[cfg(not(target_os = "linux"))]
pub fn network_file_system(_path: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// Whether the file system is mounted read-only where a path lies.
pub fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_holder_although_its_file_is_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        File::create_new(&path).unwrap();
        let held = Held::try_of(File::open(&path).unwrap()).unwrap().unwrap();
        let as_in_a_forked_process = held.try_clone().unwrap();
        assert!(Held::try_of(File::open(&path).unwrap()).unwrap().is_none());
        drop(held);
        assert!(Held::try_of(File::open(&path).unwrap()).unwrap().is_some());
        drop(as_in_a_forked_process);
    }
}

//! Whose turn it is to write: `flock` on `store.lock`, one holder among all processes of the host.
//!
//! A busy-timeout of the database would starve writers; the lock lets each in after the other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The lock file of a store.
#[derive(Debug, Clone)]
pub(crate) struct StoreLock(PathBuf);

/// Held until it is dropped. Each holder has an open file of its own, to which the lock belongs: no other holder of this
/// process can give it up by mistake, not even one that was no longer waited for.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

impl StoreLock {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Waits for the lock without blocking the other tasks of this process. Mostly nobody has it.
    pub(crate) async fn acquire(&self) -> io::Result<Held> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.0)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Held { _file: file }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK || error == rustix::io::Errno::INTR => {}
            Err(error) => return Err(error.into()),
        }
        let locked = tokio::task::spawn_blocking(move || {
            loop {
                match flock(&file, FlockOperation::LockExclusive) {
                    Err(error) if error == rustix::io::Errno::INTR => {}
                    // Closing the file gives the lock up.
                    other => return other.map(|()| Held { _file: file }).map_err(io::Error::from),
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

//! Directories that a build works in: removed when it ends, and, if it was killed, by the next one.
//!
//! ```text
//! <cache>/semel/build/<random>/lock      held by the build for as long as it lives
//!                             /files/    what the build writes
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use semel_build::cache::remove_tree;
use semel_store::durable::{self, Access};
use tempfile::TempDir;

/// A directory without a lock is one that is just being made, unless it is older than this.
const YOUNG: Duration = Duration::from_secs(3_600);

/// A directory of this process's own.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: TempDir,
    _lock: File,
}

impl WorkDir {
    /// Makes one below `base`, after removing what killed builds left there.
    pub(crate) fn new(base: &Path, now: SystemTime) -> io::Result<Self> {
        durable::create_dir(base)?;
        sweep(base, now);
        let dir = TempDir::with_prefix_in("b", base)?;
        // It has its name when it is held: one that nobody holds is what a killed build left.
        let unnamed = dir.path().join("lock.new");
        let lock = durable::create_new(&unnamed, Access::Private)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        durable::move_into_place(&unnamed, &dir.path().join("lock"))?;
        fs::create_dir(dir.path().join("files"))?;
        Ok(Self { dir, _lock: lock })
    }

    /// Where to work.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("files")
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Builds make directories read-only, which the directory's own end does not get over.
        drop(remove_tree(self.dir.path()));
    }
}

/// Removes what nobody holds any more. What cannot be removed now is left to the next build.
fn sweep(base: &Path, now: SystemTime) {
    for item in fs::read_dir(base).into_iter().flatten().flatten() {
        if is_abandoned(&item.path(), now) {
            drop(remove_tree(&item.path()));
        }
    }
}

fn is_abandoned(dir: &Path, now: SystemTime) -> bool {
    match File::open(dir.join("lock")) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(_) => {
            let made = fs::metadata(dir).and_then(|metadata| metadata.modified());
            made.is_ok_and(|made| now.duration_since(made).is_ok_and(|age| age > YOUNG))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_build_left_is_removed_and_what_is_in_use_is_not() {
        let base = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let soon = fs::metadata(base.path()).unwrap().modified().unwrap();
        let held = WorkDir::new(base.path(), soon).unwrap();
        for (name, with_lock) in [("killed", true), ("unfinished", false)] {
            fs::create_dir(base.path().join(name)).unwrap();
            if with_lock {
                drop(durable::create_new(&base.path().join(name).join("lock"), Access::Private).unwrap());
            }
        }
        let other = WorkDir::new(base.path(), soon).unwrap();
        assert!(held.path().is_dir() && other.path().is_dir());
        assert!(!base.path().join("killed").exists());
        assert!(base.path().join("unfinished").exists(), "it may just be being made");
        drop(WorkDir::new(base.path(), now).unwrap());
        assert!(!base.path().join("unfinished").exists());
        drop((held, other));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }
}

//! Caches: directories that a build finds as the last good build of its line left them.
//!
//! ```text
//! <caches>/<digest of component, line and path>/lock       shared while it is copied out, exclusive while it is replaced
//!                                              /content/   what the last good build left
//! ```
//!
//! A build works on a copy (where the file system can, one that shares its blocks), and what it leaves takes the place
//! of the old content only when the build is good. So builds at the same time do not see each other, and one that fails
//! spoils nothing.
//!
//! Tools such as make and cargo rebuild what is older than its source. All files of a source tree have the time of their
//! commit, which may be before the time at which an older commit was built; such a tool would then take the old result
//! for the new one. A copy is therefore moved back in time as a whole, to before the commit: what goes by times
//! builds the project's own files again, and what goes by contents or versions (dependencies, downloads) is reused.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, flock, utimensat};
use semel_model::digest::Digest;
use semel_model::project::CACHE_HOME;

use crate::sandbox::Room;
use crate::source::Source;

/// A cache that nothing was built with for so long is removed.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A cache of one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its path as the project names it.
    pub path: String,
    /// Whether a build before left something in it.
    pub warm: bool,
    place: PathBuf,
    used: PathBuf,
}

/// Why a cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The commit has files there.
    #[error("the cache `{path}` is part of the source")]
    InSource {
        /// The cache.
        path: String,
    },
    /// The commit has a symbolic link on the way there.
    #[error("the cache `{path}` lies behind a symbolic link of the source")]
    BehindLink {
        /// The cache.
        path: String,
    },
    /// It could not be read or written.
    #[error("cannot use the cache {}", .path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Makes the directories without anything in them, for a build that uses no caches.
pub(crate) fn leave_empty(source: &Source, room: &Room) -> Result<(), CacheError> {
    source.project.definition.build.cache.iter().try_for_each(|path| {
        let used = destination(path, room)?;
        fs::create_dir_all(&used).map_err(|source| CacheError::Io { path: used, source })
    })
}

/// Gives a build its caches, and removes those that nobody used for a month. `caches` is where all of them lie.
pub fn take(caches: &Path, source: &Source, room: &Room, now: SystemTime) -> Result<Vec<Cache>, CacheError> {
    sweep(caches, now);
    let wanted = &source.project.definition.build.cache;
    wanted.iter().map(|path| take_one(caches, path, source, room, now)).collect()
}

fn take_one(
    caches: &Path,
    path: &str,
    source: &Source,
    room: &Room,
    now: SystemTime,
) -> Result<Cache, CacheError> {
    let place = caches.join(name(source, path));
    let used = destination(path, room)?;
    let failed = |source| CacheError::Io { path: place.clone(), source };
    fs::create_dir_all(&place).map_err(failed)?;
    fs::create_dir_all(&used).map_err(failed)?;
    let lock = lock(&place, FlockOperation::LockShared).map_err(failed)?;
    lock.set_modified(now).map_err(failed)?;
    let content = place.join("content");
    let warm = content.is_dir();
    if warm {
        copy_before(&content, &used, source.committed_seconds).map_err(failed)?;
    }
    Ok(Cache { path: path.to_owned(), warm, place, used })
}

/// Keeps what a good build left in its caches.
pub fn keep(caches: &[Cache]) -> Result<(), CacheError> {
    caches.iter().try_for_each(|cache| {
        keep_one(cache).map_err(|source| CacheError::Io { path: cache.place.clone(), source })
    })
}

fn keep_one(cache: &Cache) -> io::Result<()> {
    // The build may have removed it, or made a link to somewhere else of it.
    if !cache.used.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    let _lock = lock(&cache.place, FlockOperation::LockExclusive)?;
    let (content, next, last) =
        (cache.place.join("content"), cache.place.join("next"), cache.place.join("last"));
    for left_by_a_crash in [&next, &last] {
        remove_tree(left_by_a_crash)?;
    }
    move_tree(&cache.used, &next)?;
    if content.exists() {
        rename(&content, &last)?;
    }
    rename(&next, &content)?;
    remove_tree(&last)
}

/// One cache for each component, line and path.
fn name(source: &Source, path: &str) -> String {
    let key = (source.project.component.as_str(), source.line.name(), path);
    let digest = Digest::of(serde_json::to_string(&key).expect("texts are JSON").as_bytes());
    digest.hex()[..32].to_owned()
}

/// Where a build finds the cache: below its tree or its home, behind no link that the commit made.
fn destination(path: &str, room: &Room) -> Result<PathBuf, CacheError> {
    let (root, below) = match path.split_once('/') {
        Some((CACHE_HOME, below)) => (&room.home, below),
        _ => (&room.tree, path),
    };
    let mut at = root.clone();
    for part in Path::new(below) {
        at.push(part);
        match at.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                return Err(CacheError::BehindLink { path: path.to_owned() });
            }
            Ok(metadata) if !metadata.is_dir() => return Err(CacheError::InSource { path: path.to_owned() }),
            Ok(_) | Err(_) => {}
        }
    }
    let used = fs::read_dir(&at).is_ok_and(|mut listing| listing.next().is_some());
    if used { Err(CacheError::InSource { path: path.to_owned() }) } else { Ok(at) }
}

fn lock(place: &Path, how: FlockOperation) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(place.join("lock"))?;
    flock(&file, how)?;
    Ok(file)
}

/// Removes what nobody used for a long time. What cannot be removed now is left to the next build.
fn sweep(caches: &Path, now: SystemTime) {
    for entry in fs::read_dir(caches).into_iter().flatten().flatten() {
        let place = entry.path();
        let used = fs::metadata(place.join("lock")).and_then(|metadata| metadata.modified());
        let unused = used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > UNUSED));
        if unused && lock(&place, FlockOperation::NonBlockingLockExclusive).is_ok() {
            drop(remove_tree(&place));
        }
    }
}

/// Copies what lies in a directory into another one, with times that are all earlier than `seconds`, in their old order.
fn copy_before(from: &Path, to: &Path, seconds: i64) -> io::Result<()> {
    let newest = newest(from)?;
    let back = newest.max(seconds - 1) - (seconds - 1);
    copy_contents(from, to, back)
}

/// The newest time below a directory, in whole seconds.
fn newest(dir: &Path) -> io::Result<i64> {
    let mut newest = fs::symlink_metadata(dir)?.mtime();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let below = if metadata.is_dir() { self::newest(&entry.path())? } else { metadata.mtime() };
        newest = newest.max(below);
    }
    Ok(newest)
}

fn copy_contents(from: &Path, to: &Path, back: i64) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_entry(&entry.path(), &to.join(entry.file_name()), &entry.metadata()?, back)?;
    }
    Ok(())
}

fn copy_entry(from: &Path, to: &Path, metadata: &Metadata, back: i64) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        copy_contents(from, to, back)?;
        // At last, as it may not be writable.
        fs::set_permissions(to, metadata.permissions())?;
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        fs::copy(from, to)?;
    } else {
        // A socket or a pipe is of no use to another build.
        return Ok(());
    }
    let time = Timespec { tv_sec: metadata.mtime() - back, tv_nsec: metadata.mtime_nsec() as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Moves a directory, or copies it to another file system.
fn move_tree(from: &Path, to: &Path) -> io::Result<()> {
    match rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::create_dir(to)?;
            copy_contents(from, to, 0)
        }
        other => other,
    }
}

#[expect(clippy::disallowed_methods, reason = "a cache may be lost")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    // A directory that moves is written to: its parent is another one then.
    fs::set_permissions(from, writable(&from.symlink_metadata()?))?;
    fs::rename(from, to)
}

fn writable(metadata: &Metadata) -> Permissions {
    Permissions::from_mode(metadata.permissions().mode() | 0o700)
}

/// Removes a directory with everything in it, also what was made read-only (as Go does with its modules). That there is
/// none is no failure.
pub fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(dir)?;
            fs::remove_dir_all(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_writable(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, writable(&dir.symlink_metadata()?))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(path: &Path) -> i64 {
        path.symlink_metadata().unwrap().mtime()
    }

    #[test]
    fn a_copy_is_older_than_the_commit_and_keeps_its_order() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("dir")).unwrap();
        for (name, time) in [("dir/old", 5_000), ("dir/new", 9_000), ("newest", 9_500)] {
            let file = File::create_new(from.path().join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(time)).unwrap();
        }
        symlink("dir/new", from.path().join("link")).unwrap();
        let commit = 7_000;
        copy_before(from.path(), to.path(), commit).unwrap();
        let times = ["dir/old", "dir/new", "newest", "link"].map(|name| seconds(&to.path().join(name)));
        assert!(times.iter().all(|time| *time < commit), "{times:?}");
        assert_eq!((times[1] - times[0], times[2] - times[1]), (4_000, 500));
        assert_eq!(fs::read_link(to.path().join("link")).unwrap(), Path::new("dir/new"));
    }

    #[test]
    fn read_only_directories_are_copied_and_removed() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let module = from.path().join("module");
        fs::create_dir(&module).unwrap();
        File::create_new(module.join("file")).unwrap();
        fs::set_permissions(&module, Permissions::from_mode(0o555)).unwrap();
        copy_contents(from.path(), to.path(), 0).unwrap();
        let copied = to.path().join("module");
        assert_eq!(copied.metadata().unwrap().permissions().mode() & 0o777, 0o555);
        assert!(copied.join("file").is_file());
        for dir in [&module, &copied] {
            remove_tree(dir).unwrap();
            assert!(!dir.exists());
        }
    }
}

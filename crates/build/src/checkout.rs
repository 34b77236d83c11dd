//! Checkout: the source tree of a commit as files, and nothing else.
//!
//! Each file is written from its git object, so the tree holds exactly the bytes that the source tree's digest names:
//! no filters, no attributes, no line-ending settings, no index, and nothing of the working directory. All times are the
//! commit's; permissions are 0644 or 0755 whatever the umask is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use semel_model::build::TreeEntry;

use crate::git::{GitError, Object, Objects};
use crate::source::Source;

/// Why the tree could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// A file could not be written.
    #[error("cannot write {} of commit {commit}", .path.display())]
    Write {
        /// The commit.
        commit: String,
        /// The path on disk.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Two paths of the commit are one on this disk.
    #[error(
        "`{path}` and another file of the commit are the same file on this disk (they differ only in case or spelling)"
    )]
    Clash {
        /// The later of the two.
        path: String,
    },
    /// A path that git itself would never check out.
    #[error("the commit has a file with the path `{path}`, which leads out of the tree")]
    Unsafe {
        /// As the commit has it.
        path: String,
    },
    /// The content lies on an LFS server.
    #[error("`{path}` is a Git LFS pointer, not the file itself; LFS content is not fetched yet")]
    LfsPointer {
        /// Its path.
        path: String,
    },
    /// The repository lacks an object.
    #[error("the repository has no content for `{path}` (object {object})")]
    Missing {
        /// Its path.
        path: String,
        /// The git object.
        object: String,
    },
    /// Git did not answer.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl CheckoutError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::LfsPointer { path } => {
                format!(
                    "commit the file itself (git lfs untrack \"{path}\"), or leave it out with [source] exclude"
                )
            }
            Self::Missing { .. } => "git fetch --refetch".to_owned(),
            Self::Clash { path } => format!("rename one of them: git mv \"{path}\" …"),
            Self::Write { .. } | Self::Unsafe { .. } | Self::Git(_) => return None,
        })
    }
}

/// Writes the source tree below `dest`, a directory that does not exist yet or is empty.
pub fn materialise(source: &Source, dest: &Path) -> Result<(), CheckoutError> {
    let work = Checkout { source, dest, modified: time_of(source.committed_seconds) };
    let (links, files): (Vec<_>, Vec<_>) = source.entries.iter().partition(|entry| entry.mode == "120000");
    for entry in &source.entries {
        check_path(entry)?;
    }
    let dirs = work.make_dirs()?;
    // Links come last: no file is ever written through one.
    let order: Vec<&TreeEntry> = files.iter().chain(links.iter()).copied().collect();
    let mut objects = source.git().stream(order.iter().map(|entry| entry.object.clone()).collect())?;
    for entry in order {
        let found = objects.next_head()?;
        let object = found
            .ok_or_else(|| CheckoutError::Missing { path: shown(entry), object: entry.object.clone() })?;
        if entry.mode == "120000" {
            work.write_link(entry, &object, &mut objects)?;
        } else {
            work.write_file(entry, &object, &mut objects)?;
        }
    }
    work.date_dirs(&dirs)
}

struct Checkout<'a> {
    source: &'a Source,
    dest: &'a Path,
    modified: SystemTime,
}

impl Checkout<'_> {
    /// All directories, parents first.
    fn make_dirs(&self) -> Result<Vec<PathBuf>, CheckoutError> {
        fs::create_dir_all(self.dest).map_err(|error| self.unwritten(self.dest, error))?;
        let mut dirs = BTreeSet::from([PathBuf::new()]);
        for entry in &self.source.entries {
            dirs.extend(path_of(entry).ancestors().skip(1).map(Path::to_owned));
        }
        for dir in &dirs {
            let path = self.dest.join(dir);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path == self.dest.join("") => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CheckoutError::Clash { path: dir.display().to_string() });
                }
                made => made.map_err(|error| self.unwritten(&path, error))?,
            }
            set_mode(&path, 0o755).map_err(|error| self.unwritten(&path, error))?;
        }
        Ok(dirs.into_iter().collect())
    }

    fn write_file(
        &self,
        entry: &TreeEntry,
        object: &Object,
        objects: &mut Objects,
    ) -> Result<(), CheckoutError> {
        let path = self.dest.join(path_of(entry));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| self.clash_or(entry, &path, error))?;
        let mut watched = LfsWatch { file: &file, head: Vec::new() };
        objects.content(object, &mut watched)?.map_err(|error| self.unwritten(&path, error))?;
        if watched.is_pointer(object.size) {
            return Err(CheckoutError::LfsPointer { path: shown(entry) });
        }
        let mode = if entry.mode == "100755" { 0o755 } else { 0o644 };
        self.finish_file(&file, mode).map_err(|error| self.unwritten(&path, error))
    }

    fn finish_file(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.set_times(FileTimes::new().set_accessed(self.modified).set_modified(self.modified))
    }

    fn write_link(
        &self,
        entry: &TreeEntry,
        object: &Object,
        objects: &mut Objects,
    ) -> Result<(), CheckoutError> {
        let path = self.dest.join(path_of(entry));
        let mut target = Vec::new();
        objects.content(object, &mut target)?.map_err(|error| self.unwritten(&path, error))?;
        symlink(OsStr::from_bytes(&target), &path).map_err(|error| self.clash_or(entry, &path, error))?;
        self.date(&path).map_err(|error| self.unwritten(&path, error))
    }

    /// Children first: making a file in a directory changes the directory's time.
    fn date_dirs(&self, dirs: &[PathBuf]) -> Result<(), CheckoutError> {
        for dir in dirs.iter().rev() {
            let path = self.dest.join(dir);
            self.date(&path).map_err(|error| self.unwritten(&path, error))?;
        }
        Ok(())
    }

    fn date(&self, path: &Path) -> io::Result<()> {
        let time = Timespec { tv_sec: self.source.committed_seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn clash_or(&self, entry: &TreeEntry, path: &Path, error: io::Error) -> CheckoutError {
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
                CheckoutError::Clash { path: shown(entry) }
            }
            _ => self.unwritten(path, error),
        }
    }

    fn unwritten(&self, path: &Path, source: io::Error) -> CheckoutError {
        CheckoutError::Write { commit: self.source.commit.to_string(), path: path.to_owned(), source }
    }
}

/// Passes bytes on and remembers the first ones.
struct LfsWatch<'a> {
    file: &'a File,
    head: Vec<u8>,
}

/// How an LFS pointer begins (git-lfs, docs/spec.md, "The Pointer"); it is smaller than 1024 bytes.
const LFS_HEAD: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";

impl LfsWatch<'_> {
    fn is_pointer(&self, size: u64) -> bool {
        size < 1024 && self.head == LFS_HEAD
    }
}

impl Write for LfsWatch<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = self.file.write(bytes)?;
        let wanted = LFS_HEAD.len().saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..some.min(wanted)]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn time_of(seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - span } else { SystemTime::UNIX_EPOCH + span }
}

/// A tree that was made by hand may contain what git refuses to check out.
fn check_path(entry: &TreeEntry) -> Result<(), CheckoutError> {
    let bad = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.eq_ignore_ascii_case(b".git");
    if entry.path.split(|byte| *byte == b'/').any(bad) {
        return Err(CheckoutError::Unsafe { path: shown(entry) });
    }
    Ok(())
}

fn path_of(entry: &TreeEntry) -> &Path {
    Path::new(OsStr::from_bytes(&entry.path))
}

fn shown(entry: &TreeEntry) -> String {
    String::from_utf8_lossy(&entry.path).into_owned()
}

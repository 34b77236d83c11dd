//! Checkout: the source tree of a commit as files, and nothing else.
//!
//! Each file is written from its git object, so the tree holds exactly the bytes that the source tree's digest names:
//! no filters, no attributes, no line-ending settings, no index, and nothing of the working directory. Two things are
//! opened, because the commit names their content by a digest: submodules, and files that its attributes give to Git LFS.
//! All times are the commit's; permissions are 0644 or 0755 whatever the umask is.

mod names;
mod tree;
mod partial;
mod lfs;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use semel_model::build::TreeEntry;

use crate::collect::{PackFile, PackKind, stamp};
use crate::git::{GitError, Object, Objects};
use crate::source::Source;
use lfs::{AttributesError, Pointer};
pub(crate) use names::check as check_name;
use names::shown;
use tree::Repository;

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
    #[error("`{path}` and `{other}` are the same file on this disk (they differ only in case or spelling)")]
    Clash {
        /// The later of the two.
        path: String,
        /// The other.
        other: String,
    },
    /// A path that git itself would never check out.
    #[error(
        "the commit has a file with the path `{path}`, which leads out of the tree or into git's own directory"
    )]
    Unsafe {
        /// As the commit has it.
        path: String,
    },
    /// A submodule whose commit is nowhere to be found.
    #[error("the submodule `{path}` is at commit {commit}, which is not here")]
    Submodule {
        /// Its path in the source tree.
        path: String,
        /// The commit.
        commit: String,
    },
    /// The contents of these files lie on an LFS server.
    #[error("{} not here, but with Git LFS: {}", counted(.files.len()), list(.files))]
    LfsMissing {
        /// All of them.
        files: Vec<LfsFile>,
    },
    /// The contents of these files are here and wrong.
    #[error("{} not what the Git LFS pointer says: {}", counted(.files.len()), list(.files))]
    LfsDamaged {
        /// All of them.
        files: Vec<LfsFile>,
    },
    /// A pointer that only a program of the project's own can open.
    #[error("`{path}` is a Git LFS pointer with an extension, whose program would have to be run")]
    LfsExtension {
        /// Its path.
        path: String,
    },
    /// The attributes of the commit could not be read.
    #[error("cannot read the attributes of commit {commit}")]
    Attributes {
        /// The commit.
        commit: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The repository lacks an object.
    #[error("the repository has no content for `{path}` (object {object})")]
    Missing {
        /// Its path.
        path: String,
        /// The git object.
        object: String,
    },
    /// What was left out when cloning cannot be fetched.
    #[error("the clone is partial, and the remote {remote} does not give it the content of `{path}`{}", others(*.more))]
    Promised {
        /// A file without content.
        path: String,
        /// How many others there are.
        more: usize,
        /// Who promised to have it.
        remote: String,
        /// What git said.
        #[source]
        source: GitError,
    },
    /// Git did not answer.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// A file whose content belongs to Git LFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LfsFile {
    /// Its path in the source tree.
    pub path: String,
    /// The SHA-256 of its content.
    pub oid: String,
    /// The length of its content in bytes.
    pub size: u64,
}

fn counted(files: usize) -> String {
    if files == 1 {
        "the content of 1 file is".to_owned()
    } else {
        format!("the contents of {files} files are")
    }
}

fn list(files: &[LfsFile]) -> String {
    let shown: Vec<_> =
        files.iter().map(|file| format!("`{}` (oid {}, {} bytes)", file.path, file.oid, file.size)).collect();
    shown.join(", ")
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} others") }
}

impl CheckoutError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Submodule { path, .. } => format!("git submodule update --init --recursive \"{path}\""),
            Self::LfsMissing { .. } => {
                "git lfs pull   (of another commit: git lfs fetch origin COMMIT; in a submodule: git -C PATH lfs pull)"
                    .to_owned()
            }
            Self::LfsDamaged { .. } => "git lfs fsck && git lfs pull".to_owned(),
            Self::LfsExtension { path } => {
                format!(
                    "commit the file itself (git lfs untrack \"{path}\"), or leave it out with [source] exclude"
                )
            }
            Self::Missing { .. } => "git fetch --refetch".to_owned(),
            Self::Promised { remote, .. } => format!("git fetch --refetch --no-filter {remote}"),
            Self::Clash { path, .. } => format!("rename one of them: git mv \"{path}\" …"),
            Self::Write { .. } | Self::Unsafe { .. } | Self::Attributes { .. } | Self::Git(_) => return None,
        })
    }
}

/// A source tree that was laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaidOut {
    /// Its files, links, and the directories that need not have files; sorted by the bytes of their paths.
    pub files: Arc<Vec<PackFile>>,
    /// What should be known about it.
    pub notes: Vec<String>,
}

impl LaidOut {
    /// The length of all files in bytes.
    pub fn bytes(&self) -> u64 {
        let size = |file: &PackFile| if let PackKind::File { size, .. } = file.kind { size } else { 0 };
        self.files.iter().map(size).sum()
    }
}

/// Writes the source tree below `dest`, a directory that does not exist yet or is empty. `scratch` names a directory
/// beside which nothing lies; it is used and removed.
pub fn materialise(source: &Source, dest: &Path, scratch: &Path) -> Result<LaidOut, CheckoutError> {
    let (repositories, submodules) = tree::expand(source)?;
    for repository in &repositories {
        repository.files.iter().try_for_each(|entry| names::check(&entry.path))?;
        partial::complete(repository)?;
    }
    let mut work = Checkout {
        source,
        dest,
        modified: time_of(source.committed_seconds),
        paths: repositories.iter().flat_map(|one| &one.files).map(|entry| entry.path.as_slice()).collect(),
        laid: Vec::new(),
    };
    let directories = work.make_dirs(&submodules)?;
    for repository in &repositories {
        work.write_files(repository, scratch)?;
    }
    // Links come last: no file is ever written through one.
    for repository in &repositories {
        work.write_links(repository)?;
    }
    work.date_dirs(&directories)?;
    let notes = clashes_elsewhere(&work.paths);
    let empty = |path: Vec<u8>| PackFile { path: path.into(), layer: None, kind: PackKind::Dir };
    let mut files = work.laid;
    files.extend(submodules.into_iter().map(empty));
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(LaidOut { files: Arc::new(files), notes })
}

/// How many pairs are named.
const PAIRS: usize = 3;

fn clashes_elsewhere(paths: &[&[u8]]) -> Vec<String> {
    let twins = names::twins(paths.iter().copied());
    let more = others(twins.len().saturating_sub(PAIRS)).replace("others", "other pairs");
    let pairs: Vec<_> =
        twins.iter().take(PAIRS).map(|(one, other)| format!("`{one}` and `{other}`")).collect();
    if pairs.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "{}{more} differ only in case: macOS and Windows users cannot check this out",
        pairs.join(", ")
    )]
}

struct Checkout<'a> {
    source: &'a Source,
    dest: &'a Path,
    modified: SystemTime,
    /// Every path of the tree.
    paths: Vec<&'a [u8]>,
    laid: Vec<PackFile>,
}

/// A file that was written with its git content, which may be an LFS pointer.
struct Suspect<'a> {
    entry: &'a TreeEntry,
    pointer: Pointer,
    /// Where its entry is in what was laid out.
    laid: usize,
}

impl Checkout<'_> {
    /// All directories, parents first.
    fn make_dirs(&self, submodules: &[Vec<u8>]) -> Result<Vec<PathBuf>, CheckoutError> {
        fs::create_dir_all(self.dest).map_err(|error| self.unwritten(self.dest, error))?;
        let mut dirs = BTreeSet::from([PathBuf::new()]);
        let submodules = submodules.iter().map(|path| path_of(path).join("_"));
        for path in self.paths.iter().map(|path| path_of(path).to_owned()).chain(submodules) {
            dirs.extend(path.ancestors().skip(1).map(Path::to_owned));
        }
        for dir in &dirs {
            let path = self.dest.join(dir);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path == self.dest.join("") => {}
                made => made.map_err(|error| self.clash_or(dir.as_os_str().as_bytes(), &path, error))?,
            }
            set_mode(&path, 0o755).map_err(|error| self.unwritten(&path, error))?;
        }
        Ok(dirs.into_iter().collect())
    }

    fn write_files(&mut self, repository: &Repository, scratch: &Path) -> Result<(), CheckoutError> {
        let files: Vec<&TreeEntry> = repository.files.iter().filter(|entry| !is_link(entry)).collect();
        let mut suspects = Vec::new();
        self.each_blob(repository, files, |this, entry, object, objects| {
            let pointer = this.write_file(entry, object, objects)?;
            let laid = this.laid.len() - 1;
            suspects.extend(pointer.map(|pointer| Suspect { entry, pointer, laid }));
            Ok(())
        })?;
        if suspects.is_empty() {
            return Ok(());
        }
        self.fill_in(repository, &suspects, scratch)
    }

    fn write_links(&mut self, repository: &Repository) -> Result<(), CheckoutError> {
        let links: Vec<&TreeEntry> = repository.files.iter().filter(|entry| is_link(entry)).collect();
        self.each_blob(repository, links, Self::write_link)
    }

    /// Has git hand out the contents of entries, in their order.
    fn each_blob<'e>(
        &mut self,
        repository: &Repository,
        entries: Vec<&'e TreeEntry>,
        mut write: impl FnMut(&mut Self, &'e TreeEntry, &Object, &mut Objects) -> Result<(), CheckoutError>,
    ) -> Result<(), CheckoutError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut objects =
            repository.git.stream(entries.iter().map(|entry| entry.object.clone()).collect())?;
        for entry in entries {
            let found = objects.next_head()?.filter(|object| object.kind == "blob");
            let missing =
                || CheckoutError::Missing { path: shown(&entry.path), object: entry.object.clone() };
            write(self, entry, &found.ok_or_else(missing)?, &mut objects)?;
        }
        Ok(())
    }

    /// Writes a file with its git content; gives back the LFS pointer that this may be.
    fn write_file(
        &mut self,
        entry: &TreeEntry,
        object: &Object,
        objects: &mut Objects,
    ) -> Result<Option<Pointer>, CheckoutError> {
        let path = self.dest.join(path_of(&entry.path));
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| self.clash_or(&entry.path, &path, error))?;
        let mut seen = Vec::new();
        if object.size < lfs::SMALLER_THAN {
            let into = objects.content(object, &mut seen)?.and_then(|()| (&file).write_all(&seen));
            into.map_err(|error| self.unwritten(&path, error))?;
        } else {
            objects.content(object, &mut &file)?.map_err(|error| self.unwritten(&path, error))?;
        }
        let kind = self.finish_file(entry, &file, &path).map_err(|error| self.unwritten(&path, error))?;
        self.laid.push(PackFile { path: entry.path.as_slice().into(), layer: None, kind });
        Ok(Pointer::parse(&seen))
    }

    fn finish_file(&self, entry: &TreeEntry, file: &File, path: &Path) -> io::Result<PackKind> {
        let mode = if entry.mode == "100755" { 0o755 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode))?;
        file.set_times(FileTimes::new().set_accessed(self.modified).set_modified(self.modified))?;
        let metadata = file.metadata()?;
        Ok(PackKind::File { mode, size: metadata.len(), from: path.into(), stamp: stamp(&metadata) })
    }

    /// Puts the contents in the place of the pointers that the commit gives to LFS.
    fn fill_in(
        &mut self,
        repository: &Repository,
        suspects: &[Suspect<'_>],
        scratch: &Path,
    ) -> Result<(), CheckoutError> {
        let paths: Vec<_> = suspects.iter().map(|one| repository.own_path(&one.entry.path)).collect();
        let tracked = lfs::tracked(repository, &paths, scratch);
        // It is our own, and the build goes on without it.
        drop(fs::remove_dir_all(scratch));
        let tracked = tracked.map_err(|error| match error {
            AttributesError::Git(error) => error.into(),
            AttributesError::Io(source) => {
                CheckoutError::Attributes { commit: repository.commit.clone(), source }
            }
        })?;
        let stores = lfs::stores(repository)?;
        let (mut missing, mut damaged) = (Vec::new(), Vec::new());
        for (suspect, path) in suspects.iter().zip(&paths).filter(|(_, path)| tracked.contains(*path)) {
            let file = || LfsFile {
                path: shown(&suspect.entry.path),
                oid: suspect.pointer.oid.hex().to_owned(),
                size: suspect.pointer.size,
            };
            if suspect.pointer.extended {
                return Err(CheckoutError::LfsExtension { path: shown(path) });
            }
            match lfs::find(&stores, &suspect.pointer) {
                None => missing.push(file()),
                Some(from) if !self.replace_pointer(suspect, &from)? => damaged.push(file()),
                Some(_) => {}
            }
        }
        if !missing.is_empty() {
            return Err(CheckoutError::LfsMissing { files: missing });
        }
        if damaged.is_empty() { Ok(()) } else { Err(CheckoutError::LfsDamaged { files: damaged }) }
    }

    fn replace_pointer(&mut self, suspect: &Suspect<'_>, from: &Path) -> Result<bool, CheckoutError> {
        let path = self.dest.join(path_of(&suspect.entry.path));
        let replaced = OpenOptions::new().write(true).truncate(true).open(&path).and_then(|file| {
            let right = lfs::copy(from, &file, &suspect.pointer)?;
            Ok((right, self.finish_file(suspect.entry, &file, &path)?))
        });
        let (right, kind) = replaced.map_err(|error| self.unwritten(&path, error))?;
        self.laid[suspect.laid].kind = kind;
        Ok(right)
    }

    fn write_link(
        &mut self,
        entry: &TreeEntry,
        object: &Object,
        objects: &mut Objects,
    ) -> Result<(), CheckoutError> {
        let path = self.dest.join(path_of(&entry.path));
        let mut target = Vec::new();
        objects.content(object, &mut target)?.map_err(|error| self.unwritten(&path, error))?;
        symlink(OsStr::from_bytes(&target), &path)
            .map_err(|error| self.clash_or(&entry.path, &path, error))?;
        self.date(&path).map_err(|error| self.unwritten(&path, error))?;
        let kind = PackKind::Symlink { target };
        self.laid.push(PackFile { path: entry.path.as_slice().into(), layer: None, kind });
        Ok(())
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
        date(path, self.source.committed_seconds)
    }

    fn clash_or(&self, name: &[u8], path: &Path, error: io::Error) -> CheckoutError {
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                // The same path twice is its own twin.
                let other = names::twin_of(name, self.paths.iter().copied());
                CheckoutError::Clash { path: shown(name), other: other.unwrap_or_else(|| shown(name)) }
            }
            _ => self.unwritten(path, error),
        }
    }

    fn unwritten(&self, path: &Path, source: io::Error) -> CheckoutError {
        CheckoutError::Write { commit: self.source.commit.to_string(), path: path.to_owned(), source }
    }
}

fn is_link(entry: &TreeEntry) -> bool {
    entry.mode == "120000"
}

/// Gives a file, directory or link the time of a commit, in seconds since 1970.
pub(crate) fn date(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn time_of(seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - span } else { SystemTime::UNIX_EPOCH + span }
}

fn path_of(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

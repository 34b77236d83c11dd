//! Collect: the files that the definition names, from the tree that the build left.
//!
//! Nothing is read but names and metadata; the bytes are read once, while they are packaged. Nothing outside the tree is
//! ever taken in, and no link is kept that would lead out of the artefact.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use semel_model::project::{
    ArtefactSpec, ClosureSpec, Compression, FILE_NAME, FileSpec, Kind, Project, nearest,
};

use crate::rootfs::shown;

/// One entry of the artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFile {
    /// Its path in the artefact, without a slash in front, as raw bytes.
    pub path: Arc<[u8]>,
    /// The layer that it was given to.
    pub layer: Option<String>,
    /// What it is.
    pub kind: PackKind,
}

impl PackFile {
    /// The path in the artefact, with a slash in front, as far as it is text.
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// What tells whether somebody wrote to a file: device, inode, times of modification and of change, each in seconds and
/// nanoseconds.
pub type Stamp = [i64; 6];

/// The kinds of entries. There may be hundreds of thousands, so what is copied with them is small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackKind {
    /// A regular file.
    File {
        /// 0o644 or 0o755.
        mode: u32,
        /// Its length in bytes.
        size: u64,
        /// Where its bytes are.
        from: Arc<Path>,
        /// What it looked like when it was found.
        stamp: Stamp,
    },
    /// A symbolic link.
    Symlink {
        /// What it says, as raw bytes.
        target: Vec<u8>,
    },
    /// A directory.
    Dir,
}

/// Why the artefact's files could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file of the definition is not there after the build.
    #[error("the build left no `{from}`{found}")]
    Missing {
        /// As the definition names it.
        from: String,
        /// What is there instead.
        found: Found,
    },
    /// A file of the project that a build never sees.
    #[error("`{from}` is no part of the source tree: it {what}")]
    NoSource {
        /// As the definition names it.
        from: String,
        /// What it is instead.
        what: &'static str,
    },
    /// A path that leads out of the tree.
    #[error("`{from}` leads out of the source tree, to {}", .to.display())]
    Outside {
        /// As the definition names it.
        from: String,
        /// Where it leads.
        to: PathBuf,
    },
    /// A link that leads out of the artefact.
    #[error("the link `{path}` → `{target}` leads out of the artefact")]
    Link {
        /// Its path in the tree.
        path: String,
        /// What it says.
        target: String,
    },
    /// Neither a file, nor a directory, nor a link.
    #[error("`{path}` is a {what}; an artefact holds files, directories and links")]
    Special {
        /// Its path in the tree.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// Two files on one path.
    #[error("two files would be `/{path}` in the artefact: from `{first}` and from `{second}`")]
    Twice {
        /// The path in the artefact.
        path: String,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A name that means a deletion in a layer (image-spec, layer.md, "Whiteouts").
    #[error("`{path}`: a name that begins with `.wh.` would delete a file of the layer below")]
    Whiteout {
        /// Its path in the artefact.
        path: String,
    },
    /// A name that no directory target can lay out.
    #[error("`{path}` has a name that is no UTF-8; a directory target knows the files of an archive by text")]
    NoText {
        /// Its path in the artefact, as far as it is text.
        path: String,
    },
    /// A pattern of what stays out cannot be understood.
    #[error("`exclude` has a pattern that cannot be understood")]
    Pattern {
        /// The cause, which names the pattern.
        #[source]
        source: globset::Error,
    },
    /// Something could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The path on disk.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What is in the place of a missing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    dir: String,
    names: Vec<String>,
    nearest: Option<String>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dir = if self.dir.is_empty() { "the tree" } else { &self.dir };
        match self.names.as_slice() {
            [] => write!(f, "; {dir} is empty")?,
            names => {
                let shown = names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = names.len().saturating_sub(8);
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(f, "; {dir} has {shown}{rest}")?;
            }
        }
        self.nearest.as_ref().map_or(Ok(()), |name| write!(f, " (did you mean `{name}`?)"))
    }
}

impl CollectError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => {
                "correct `from` in [artefact] files, or what [build] run produces".to_owned()
            }
            Self::Outside { .. } | Self::Link { .. } => {
                "put the file itself there instead of a link".to_owned()
            }
            Self::NoText { .. } => "rename it, or leave it out with [artefact] exclude".to_owned(),
            Self::Special { .. } | Self::Whiteout { .. } | Self::NoSource { .. } => {
                "leave it out of [artefact] files".to_owned()
            }
            Self::Twice { .. } => "give one of them another `to` in [artefact] files".to_owned(),
            Self::Pattern { .. } => {
                "write a path of the artefact, such as \"**/tests\" or \"app/*.md\"".to_owned()
            }
            Self::Read { .. } => return None,
        })
    }
}

impl CollectError {
    /// The same, of a project. That a file is missing which lies in every clone needs another word.
    pub(crate) fn of_project(self, project: &Project) -> Self {
        let Self::Missing { from, found } = self else { return self };
        let path = from.trim_start_matches("./");
        let what = if path == FILE_NAME {
            "says what the artefact is"
        } else if project.values_files().into_iter().any(|values| values.trim_start_matches("./") == path) {
            "has the values of an environment, which the artefact gets where it runs"
        } else {
            return Self::Missing { from, found };
        };
        Self::NoSource { from, what }
    }
}

/// Finds the artefact's files in the tree, sorted by the bytes of their paths.
///
/// A `from` that is itself a link is followed, inside the tree; links inside a directory are kept as links. A `to` that
/// ends in `/` takes a file under its own name.
pub fn collect(tree: &Path, spec: &ArtefactSpec) -> Result<Vec<PackFile>, CollectError> {
    let root =
        fs::canonicalize(tree).map_err(|source| CollectError::Read { path: tree.to_owned(), source })?;
    let left_out = left_out(spec)?;
    let mut found = Collected { root: &root, left_out, entries: BTreeMap::new() };
    for file in &spec.files {
        found.take(file)?;
    }
    if let Some(image) = &spec.image {
        found.take(&disk_image(image))?;
    }
    found.check_parents()?;
    found.check_links(spec)?;
    Ok(found.entries.into_values().map(|(file, _)| file).collect())
}

/// Whether a target can lay the files out by their names. An image has runtimes that take any bytes; an archive has
/// directory targets alone, so whatever they would refuse is refused before there is a version of it.
pub(crate) fn check_names(files: &[PackFile], kind: Kind) -> Result<(), CollectError> {
    let unreadable = files.iter().find(|file| std::str::from_utf8(&file.path).is_err());
    match unreadable.filter(|_| kind == Kind::Archive) {
        Some(file) => Err(CollectError::NoText { path: file.shown() }),
        None => Ok(()),
    }
}

/// Whether what stays out is said in a way that can be understood: worth knowing before a long build, not after it.
pub(crate) fn check(spec: &ArtefactSpec) -> Result<(), CollectError> {
    left_out(spec).map(drop)
}

/// Finds all files of a directory that is to be an artefact as it is, by the rules of [`collect`].
pub(crate) fn tree(dir: &Path) -> Result<Vec<PackFile>, CollectError> {
    let whole = FileSpec { from: ".".to_owned(), to: "/".to_owned(), mode: None, layer: None };
    let spec = ArtefactSpec {
        kind: Kind::Archive,
        entrypoint: Vec::new(),
        files: vec![whole],
        base: None,
        needs: Vec::new(),
        user: None,
        workdir: None,
        smoke: Vec::new(),
        closure: ClosureSpec::default(),
        from: None,
        expose: Vec::new(),
        env: BTreeMap::new(),
        platforms: Vec::new(),
        exclude: Vec::new(),
        compression: Compression::Gzip,
        runtime: None,
        handler: None,
        image: None,
        disk: None,
    };
    collect(dir, &spec)
}

/// A disk image is the one file of its artefact.
fn disk_image(image: &str) -> FileSpec {
    FileSpec { from: image.to_owned(), to: "/".to_owned(), mode: Some("0644".to_owned()), layer: None }
}

fn left_out(spec: &ArtefactSpec) -> Result<GlobSet, CollectError> {
    let unread = |source| CollectError::Pattern { source };
    let mut patterns = GlobSetBuilder::new();
    for pattern in &spec.exclude {
        let pattern = pattern.trim_matches('/');
        patterns.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(unread)?);
    }
    patterns.build().map_err(unread)
}

struct Collected<'a> {
    root: &'a Path,
    left_out: GlobSet,
    /// By path in the artefact: the entry, and where in the tree it came from.
    entries: BTreeMap<Arc<[u8]>, (PackFile, Arc<Path>)>,
}

impl Collected<'_> {
    fn take(&mut self, spec: &FileSpec) -> Result<(), CollectError> {
        let path = self.root.join(&spec.from);
        let real = match fs::canonicalize(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(CollectError::Missing {
                    from: spec.from.clone(),
                    found: self.look_around(&spec.from),
                });
            }
            real => real.map_err(|source| CollectError::Read { path, source })?,
        };
        if !real.starts_with(self.root) {
            return Err(CollectError::Outside { from: spec.from.clone(), to: real });
        }
        let metadata = stat(&real)?;
        let mut to = lexical(spec.to.as_bytes());
        if !metadata.is_dir() && spec.to.ends_with('/') {
            let name = Path::new(&spec.from).file_name().unwrap_or(real.as_os_str());
            to = join(&to, name.as_bytes());
        }
        self.add(spec, &real, &metadata, to)
    }

    fn add(
        &mut self,
        spec: &FileSpec,
        path: &Path,
        metadata: &Metadata,
        to: Vec<u8>,
    ) -> Result<(), CollectError> {
        // The whole is never left out, whatever `**` says: then it is empty, and that is told.
        if !to.is_empty() && self.left_out.is_match(OsStr::from_bytes(&to)) {
            return Ok(());
        }
        let from: Arc<Path> = path.into();
        let kind = if metadata.is_dir() {
            self.add_dir(spec, path, &to)?;
            PackKind::Dir
        } else if metadata.is_symlink() {
            let target =
                fs::read_link(path).map_err(|source| CollectError::Read { path: path.to_owned(), source })?;
            PackKind::Symlink { target: target.into_os_string().as_bytes().to_vec() }
        } else if metadata.is_file() {
            PackKind::File {
                mode: mode_of(spec, metadata),
                size: metadata.len(),
                from: Arc::clone(&from),
                stamp: stamp(metadata),
            }
        } else {
            return Err(CollectError::Special { path: self.shown(path), what: special(metadata) });
        };
        if to.is_empty() {
            return Ok(());
        }
        if base_name(&to).starts_with(b".wh.") {
            return Err(CollectError::Whiteout { path: text(&to) });
        }
        let to: Arc<[u8]> = to.into();
        let entry = PackFile { path: Arc::clone(&to), layer: spec.layer.clone(), kind };
        match self.entries.get(&to) {
            Some((there, _)) if there.kind == PackKind::Dir && entry.kind == PackKind::Dir => {}
            Some((_, first)) => {
                return Err(CollectError::Twice {
                    path: text(&to),
                    first: self.shown(first),
                    second: self.shown(path),
                });
            }
            None => drop(self.entries.insert(to, (entry, from))),
        }
        Ok(())
    }

    fn add_dir(&mut self, spec: &FileSpec, dir: &Path, to: &[u8]) -> Result<(), CollectError> {
        let unread = |source| CollectError::Read { path: dir.to_owned(), source };
        for entry in fs::read_dir(dir).map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            let metadata = stat(&path)?;
            let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
            self.add(spec, &path, &metadata, join(to, &name))?;
        }
        Ok(())
    }

    /// No entry may lie below one that is not a directory.
    fn check_parents(&self) -> Result<(), CollectError> {
        for (path, (_, second)) in &self.entries {
            let above = parents(path).find_map(|parent| self.entries.get_key_value(parent));
            if let Some((parent, (file, first))) = above
                && file.kind != PackKind::Dir
            {
                let (path, first, second) = (text(parent), self.shown(first), self.shown(second));
                return Err(CollectError::Twice { path, first, second });
            }
        }
        Ok(())
    }

    /// A relative link must stay inside. An absolute one names a path of the image; in an archive, which is unpacked
    /// anywhere, it would name one of the host.
    fn check_links(&self, spec: &ArtefactSpec) -> Result<(), CollectError> {
        for (path, (file, from)) in &self.entries {
            let PackKind::Symlink { target } = &file.kind else { continue };
            let good = if target.starts_with(b"/") {
                let inside = lexical(target);
                let known = self.entries.contains_key(inside.as_slice())
                    || self.is_directory(&inside)
                    || spec.base.is_some();
                let of_this_tree = target.starts_with(self.root.as_os_str().as_bytes());
                spec.kind == Kind::Image && known && !of_this_tree
            } else {
                resolve_link(path, target).is_some()
            };
            if !good {
                return Err(CollectError::Link { path: self.shown(from), target: text(target) });
            }
        }
        Ok(())
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        self.entries.keys().any(|key| parents(key).any(|parent| parent == path))
    }

    /// What there is where the file should have been.
    fn look_around(&self, from: &str) -> Found {
        let mut dir = PathBuf::new();
        let mut wanted = String::new();
        for part in Path::new(from).components() {
            if let Component::Normal(name) = part {
                if !self.root.join(&dir).join(name).is_dir() {
                    wanted = name.to_string_lossy().into_owned();
                    break;
                }
                dir.push(name);
            }
        }
        let entries = fs::read_dir(self.root.join(&dir)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let near = nearest(&wanted, names.iter().map(String::as_str)).map(str::to_owned);
        Found { dir: dir.display().to_string(), names, nearest: near }
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.root).unwrap_or(path).display().to_string()
    }
}

fn stat(path: &Path) -> Result<Metadata, CollectError> {
    fs::symlink_metadata(path).map_err(|source| CollectError::Read { path: path.to_owned(), source })
}

/// As the definition says, else as built; set-user-id and the like are dropped.
fn mode_of(spec: &FileSpec, metadata: &Metadata) -> u32 {
    let executable = match spec.mode.as_deref() {
        Some(mode) => mode == "0755",
        None => metadata.mode() & 0o111 != 0,
    };
    if executable { 0o755 } else { 0o644 }
}

/// What changes when a file does.
pub(crate) fn stamp(metadata: &Metadata) -> Stamp {
    [
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ]
}

fn special(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "named pipe"
    } else {
        "device"
    }
}

/// A path of the artefact in its one spelling: `/app//x/` → `app/x`.
pub(crate) fn lexical(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

/// Where a relative link leads, as a path of the artefact; `None`: out of it.
fn resolve_link(link: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = link.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

/// The directories above a path, from the top.
pub(crate) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

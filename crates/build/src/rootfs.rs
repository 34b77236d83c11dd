//! Rootfs: what is inside a finished artefact, as a program in it would see it.
//!
//! The artefact's own files lie over those of its base. Links are resolved inside, as after `chroot(2)`: an absolute one
//! begins at the top of the artefact, and `..` at the top stays there. Nothing is unpacked into directories: a layer of
//! the base lies there as a plain tar file, and its files are ranges of that. So no name of a foreign layer ever
//! becomes a path of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use crate::collect::{PackFile, PackKind, parents};
use crate::layer::{self, Refused, Room, Whiteout};

/// The merged view. Paths have no slash in front; the top is the empty path.
#[derive(Debug, Clone, Default)]
pub struct Rootfs {
    nodes: BTreeMap<Vec<u8>, Kept>,
    /// How many layers there are.
    layers: u32,
    /// What further layers may bring.
    room: Room,
    /// How long the names of directories are that no entry names, in bytes.
    implied_bytes: u64,
}

/// A node, and the last layer that put it there, or put something into it.
#[derive(Debug, Clone)]
struct Kept {
    node: Node,
    layer: u32,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory {
        /// Permissions, with set-id and sticky bits: `0o7777`.
        mode: u32,
    },
    /// A regular file.
    File {
        /// Permissions, with set-id and sticky bits: `0o7777`.
        mode: u32,
        /// Its length in bytes.
        size: u64,
        /// Where its bytes are.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// What it says, as raw bytes.
        target: Vec<u8>,
    },
    /// A device or a named pipe; only a base has such.
    Special,
}

/// The bytes of a file: a range of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    file: Arc<Path>,
    offset: u64,
    origin: Origin,
}

/// Who brought a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Own,
    Base,
}

impl Node {
    /// Whether it is a file that lies as the base has it.
    pub(crate) fn is_of_base(&self) -> bool {
        matches!(self, Self::File { content: Content { origin: Origin::Base, .. }, .. })
    }
}

/// A path that was followed to its end: the place itself, behind all links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The place, without a slash in front.
    pub path: &'a [u8],
    /// What lies there; never a link.
    pub node: &'a Node,
}

/// Why a path leads to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// There is nothing at this path, which the path or one of its links names.
    Missing(Vec<u8>),
    /// The links form a circle, or there are more than Linux follows.
    Circle,
}

/// How many links Linux follows for one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

const TOP: Node = Node::Directory { mode: 0o755 };

impl Rootfs {
    /// The artefact's own files over what lies below them.
    ///
    /// A directory that is a link below is followed, as an unpacking runtime does it; one that both have keeps the
    /// permissions from below, because packaging leaves it out.
    pub fn new(files: &[PackFile], below: Option<Self>) -> Self {
        let mut merged = below.unwrap_or_default();
        for file in files {
            let path = merged.place(&file.path);
            let node = match &file.kind {
                PackKind::Dir if merged.is_directory_or_link(&path) => continue,
                PackKind::Dir => TOP,
                PackKind::Symlink { target } => Node::Symlink { target: target.clone() },
                PackKind::File { mode, size, from, .. } => {
                    let content = Content { file: Arc::clone(from), offset: 0, origin: Origin::Own };
                    Node::File { mode: *mode, size: *size, content }
                }
            };
            merged.put(path, node);
        }
        merged
    }

    /// Applies the next layer, an uncompressed tar stream (image-spec, layer.md, "Applying Changesets").
    ///
    /// `copy` is a file that does not exist yet; the layer is written there, and must stay there as long as its files
    /// are to be opened.
    ///
    /// # Errors
    /// Also where all layers together have more entries or longer names than any image has.
    pub fn add_layer(&mut self, tar: impl Read, copy: &Path) -> io::Result<()> {
        let mut writer = BufWriter::with_capacity(256 * 1024, File::create_new(copy)?);
        self.apply(Tee { from: tar, to: &mut writer }, copy)?;
        writer.flush()
    }

    /// The same with a layer that is a plain tar file already.
    pub(crate) fn add_tar(&mut self, file: &Path) -> io::Result<()> {
        self.apply(BufReader::with_capacity(256 * 1024, File::open(file)?), file)
    }

    fn apply(&mut self, tar: impl Read, file: &Path) -> io::Result<()> {
        self.layers += 1;
        let mut room = std::mem::take(&mut self.room);
        let mut layer = Layer { rootfs: self, file: Arc::from(file), hidden: BTreeSet::new() };
        layer::walk(tar, &mut room, |entry| layer.apply(entry))?;
        self.room = room;
        Ok(())
    }

    /// What lies at exactly this path, links not followed.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        if path.is_empty() { Some(&TOP) } else { self.nodes.get(path).map(|kept| &kept.node) }
    }

    /// Follows a path with or without a slash in front to its end, through all links.
    pub fn resolve(&self, path: &[u8]) -> Result<Resolved<'_>, Unresolved> {
        let path = self.walk(path)?;
        match self.nodes.get_key_value(path.as_slice()) {
            Some((path, kept)) => Ok(Resolved { path, node: &kept.node }),
            None if path.is_empty() => Ok(Resolved { path: b"", node: &TOP }),
            None => Err(Unresolved::Missing(path)),
        }
    }

    /// The regular file that a path leads to.
    pub(crate) fn resolve_file(&self, path: &[u8]) -> Option<Resolved<'_>> {
        self.resolve(path).ok().filter(|found| matches!(found.node, Node::File { .. }))
    }

    /// Everything, sorted by the bytes of the paths: a directory comes before what is in it.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(path, kept)| (path.as_slice(), &kept.node))
    }

    /// The regular files, sorted by the bytes of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.entries().filter(|(_, node)| matches!(node, Node::File { .. }))
    }

    /// The entries directly in a directory, by name.
    pub fn children<'a>(&'a self, dir: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a Node)> {
        let prefix = inside(dir);
        self.nodes
            .range(prefix.clone()..)
            .map_while(move |(path, kept)| Some((path.strip_prefix(prefix.as_slice())?, &kept.node)))
            .filter(|(name, _)| !name.contains(&b'/'))
    }

    /// The path without a link in it, except that nothing need be at its end.
    fn walk(&self, path: &[u8]) -> Result<Vec<u8>, Unresolved> {
        let mut done: Vec<u8> = Vec::new();
        let mut ahead: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            if part == b".." {
                done.truncate(done.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            let next = below(&done, &part);
            match self.node(&next) {
                Some(Node::Symlink { target }) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Unresolved::Circle);
                    }
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    ahead.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
                Some(Node::Directory { .. }) => done = next,
                _ if ahead.is_empty() => done = next,
                _ => return Err(Unresolved::Missing(next)),
            }
        }
        Ok(done)
    }

    /// Where an entry comes to lie: its directory is followed, its own name is not.
    fn place(&self, path: &[u8]) -> Vec<u8> {
        let mut place: Vec<u8> = Vec::new();
        let mut ahead = parts(path).peekable();
        while let Some(part) = ahead.next() {
            let next = below(&place, part);
            let is_link = matches!(self.node(&next), Some(Node::Symlink { .. }));
            place = match is_link && ahead.peek().is_some() {
                // What a link leads to and is not there yet is made.
                true => self.walk(&next).unwrap_or(next),
                false => next,
            };
        }
        place
    }

    fn is_directory_or_link(&self, path: &[u8]) -> bool {
        matches!(self.node(path), Some(Node::Directory { .. } | Node::Symlink { .. }))
    }

    fn node(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path).map(|kept| &kept.node)
    }

    /// Puts something in the place of whatever was there, with the directories above it.
    fn put(&mut self, path: Vec<u8>, node: Node) {
        let layer = self.layers;
        for parent in parents(&path) {
            match self.nodes.get_mut(parent) {
                Some(kept) if matches!(kept.node, Node::Directory { .. }) => kept.layer = layer,
                _ => {
                    self.implied_bytes += parent.len() as u64;
                    self.nodes.insert(parent.to_vec(), Kept { node: TOP, layer });
                }
            }
        }
        if !matches!(node, Node::Directory { .. }) {
            self.remove_below(&path, |_| true);
        }
        self.nodes.insert(path, Kept { node, layer });
    }

    fn remove_below(&mut self, dir: &[u8], goes: impl Fn(&Kept) -> bool) {
        let prefix = inside(dir);
        let inside = self.nodes.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let gone: Vec<Vec<u8>> =
            inside.filter(|(_, kept)| goes(kept)).map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }
}

/// Opens a file of a rootfs. What is no file is an error of kind [`io::ErrorKind::InvalidInput`].
pub fn open(node: &Node) -> io::Result<Opened> {
    let Node::File { size, content, .. } = node else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    };
    Opened::range(&content.file, content.offset, *size)
}

/// A file of a rootfs, being read: a range of another file.
#[derive(Debug)]
pub struct Opened {
    file: File,
    offset: u64,
    size: u64,
    at: u64,
}

impl Opened {
    /// Opens the bytes of a file from `offset` on, `size` of them.
    pub(crate) fn range(file: &Path, offset: u64, size: u64) -> io::Result<Self> {
        let mut file = File::open(file)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, offset, size, at: 0 })
    }
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let some = self.file.read(&mut buffer[..most])?;
        self.at += some as u64;
        Ok(some)
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let before_start = || io::Error::new(io::ErrorKind::InvalidInput, "it is before the first byte");
        let at = wanted.ok_or_else(before_start)?;
        let in_file = self.offset.checked_add(at).ok_or_else(before_start)?;
        self.file.seek(SeekFrom::Start(in_file))?;
        self.at = at;
        Ok(at)
    }
}

/// A layer that is being applied.
struct Layer<'a> {
    rootfs: &'a mut Rootfs,
    /// What its files are ranges of.
    file: Arc<Path>,
    /// What it has hidden: once is enough, however often it says so.
    hidden: BTreeSet<Vec<u8>>,
}

impl Layer<'_> {
    fn apply<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        let name = layer::path_of(entry)?;
        match Whiteout::of(&name)? {
            Some(hides) => self.hide(&hides),
            None if name.is_empty() => {}
            None => {
                let node = self.node(entry)?;
                let place = self.rootfs.place(&name);
                self.rootfs.put(place, node);
                if self.rootfs.implied_bytes > layer::NAMES_BYTES_MAX {
                    return Err(Refused::Names { most: layer::NAMES_BYTES_MAX }.into());
                }
            }
        }
        Ok(())
    }

    /// Takes away what is still as the layers below laid it out: a whiteout hides nothing of its own layer, whichever
    /// comes first.
    fn hide(&mut self, what: &Whiteout<'_>) {
        let this = self.rootfs.layers;
        let is_lower = |kept: &Kept| kept.layer < this;
        let path = match what {
            Whiteout::Inside(dir) => self.rootfs.place(dir),
            Whiteout::Itself { dir, name } => self.rootfs.place(&below(dir, name)),
        };
        let itself = matches!(what, Whiteout::Itself { .. });
        if itself && self.rootfs.nodes.get(&path).is_some_and(is_lower) {
            self.rootfs.nodes.remove(&path);
        }
        if self.hidden.insert(path.clone()) {
            self.rootfs.remove_below(&path, is_lower);
        }
    }

    fn node<R: Read>(&self, entry: &tar::Entry<'_, R>) -> io::Result<Node> {
        let header = entry.header();
        let mode = header.mode()? & 0o7777;
        Ok(match header.entry_type() {
            tar::EntryType::Directory => Node::Directory { mode },
            tar::EntryType::Symlink => Node::Symlink { target: layer::link_of(entry).into_owned() },
            tar::EntryType::Link => {
                let first = layer::first_name_of(entry)?;
                match self.rootfs.get(&self.rootfs.place(&first)) {
                    Some(node) if !matches!(node, Node::Directory { .. }) => node.clone(),
                    _ => {
                        let (path, first) = (layer::shown(&entry.path_bytes()), layer::shown(&first));
                        return Err(Refused::HardLink { path, first }.into());
                    }
                }
            }
            tar::EntryType::Block | tar::EntryType::Char | tar::EntryType::Fifo => Node::Special,
            _ => {
                let (file, offset) = (Arc::clone(&self.file), entry.raw_file_position());
                let content = Content { file, offset, origin: Origin::Base };
                Node::File { mode, size: entry.size(), content }
            }
        })
    }
}

/// Passes bytes on and writes them down.
struct Tee<'a, R> {
    from: R,
    to: &'a mut BufWriter<File>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.from.read(buffer)?;
        self.to.write_all(&buffer[..some])?;
        Ok(some)
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

fn below(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// How every path in a directory begins.
fn inside(dir: &[u8]) -> Vec<u8> {
    if dir.is_empty() { Vec::new() } else { [dir, b"/"].concat() }
}

/// A path of a rootfs for people: with a slash in front, as far as it is text.
pub fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

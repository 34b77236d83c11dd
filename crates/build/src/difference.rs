//! Difference: which files of two finished artefacts differ.
//!
//! What both have from the same layer is the same without being read; what has the same length is compared byte by byte.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use serde::Serialize;

use crate::rootfs::{self, Node, Rootfs, shown};

/// A path that only one artefact has, or that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The path, with a slash in front.
    pub path: String,
    /// What the first has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Entry>,
    /// What the second has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Entry>,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// A directory.
    Directory {
        /// Permissions, in octal digits.
        mode: String,
    },
    /// A regular file.
    File {
        /// Permissions, in octal digits.
        mode: String,
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A device or a named pipe.
    Special,
}

impl From<&Node> for Entry {
    fn from(node: &Node) -> Self {
        match node {
            Node::Directory { mode } => Self::Directory { mode: format!("{mode:o}") },
            Node::File { mode, size, .. } => Self::File { mode: format!("{mode:o}"), size: *size },
            Node::Symlink { target } => Self::Link { target: String::from_utf8_lossy(target).into_owned() },
            Node::Special => Self::Special,
        }
    }
}

/// Compares two artefacts. The result is in the order of the paths.
pub fn difference(a: &Rootfs, b: &Rootfs) -> io::Result<Vec<FileChange>> {
    let paths: BTreeSet<&[u8]> = a.entries().chain(b.entries()).map(|(path, _)| path).collect();
    let mut changes = Vec::new();
    for path in paths {
        let (from, to) = (a.get(path), b.get(path));
        let same = match (from, to) {
            (Some(from), Some(to)) => is_same(from, to)?,
            _ => false,
        };
        if !same {
            let (from, to) = (from.map(Entry::from), to.map(Entry::from));
            changes.push(FileChange { path: shown(path), from, to });
        }
    }
    Ok(changes)
}

fn is_same(a: &Node, b: &Node) -> io::Result<bool> {
    match (a, b) {
        _ if a == b => Ok(true),
        (Node::File { mode, size, .. }, Node::File { mode: other_mode, size: other_size, .. }) => {
            Ok(mode == other_mode && size == other_size && has_same_bytes(a, b)?)
        }
        _ => Ok(false),
    }
}

fn has_same_bytes(a: &Node, b: &Node) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::new(rootfs::open(a)?), BufReader::new(rootfs::open(b)?));
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let some = a.read(&mut left)?;
        if some == 0 {
            return Ok(true);
        }
        match b.read_exact(&mut right[..some]) {
            Ok(()) if left[..some] == right[..some] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

//! Difference: which files of two finished artefacts differ.
//!
//! What both have from the same layer is the same without being read; what has the same length is compared byte by byte. A
//! serverless package is compared by what it unpacks to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::Serialize;

use crate::rootfs::{self, Node, Rootfs, shown};
use crate::zip::read::{self as zip, Member};

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
    same_bytes(rootfs::open(a)?, rootfs::open(b)?)
}

fn same_bytes(a: impl Read, b: impl Read) -> io::Result<bool> {
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
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

/// Compares what two zip files unpack to; none: one of them cannot be read. The result is in the order of the paths.
pub fn of_zips(a: &Path, b: &Path) -> io::Result<Option<Vec<FileChange>>> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (Some(from), Some(to)) = (zip::members(&mut a)?, zip::members(&mut b)?) else { return Ok(None) };
    let (from, to) = (by_path(from), by_path(to));
    let paths: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let mut changes = Vec::new();
    for path in paths {
        let (from, to) = (from.get(path), to.get(path));
        let same = match (from, to) {
            (Some(from), Some(to)) => {
                mode(from) == mode(to)
                    && (from.size, from.crc) == (to.size, to.crc)
                    && has_same_content(&mut a, from, &mut b, to)?
            }
            _ => false,
        };
        if !same {
            let (from, to) = (from.map(Entry::from), to.map(Entry::from));
            changes.push(FileChange { path: format!("/{path}"), from, to });
        }
    }
    Ok(Some(changes))
}

/// The files of a zip file. Its directories come with them.
fn by_path(members: Vec<Member>) -> BTreeMap<String, Member> {
    let files = members.into_iter().filter(|member| !member.name.ends_with('/'));
    files.map(|member| (member.name.clone(), member)).collect()
}

/// What is packed in a way that is not known here is the same where length and checksum are.
fn has_same_content(a: &mut File, from: &Member, b: &mut File, to: &Member) -> io::Result<bool> {
    match (zip::open(a, from)?, zip::open(b, to)?) {
        (Some(a), Some(b)) => same_bytes(a, b),
        _ => Ok(true),
    }
}

/// Permissions; who does not say any means those of a file that is not executable.
fn mode(member: &Member) -> u32 {
    match member.attributes >> 16 & 0o7777 {
        0 => 0o644,
        mode => mode,
    }
}

impl From<&Member> for Entry {
    fn from(member: &Member) -> Self {
        Self::File { mode: format!("{:o}", mode(member)), size: member.size.into() }
    }
}

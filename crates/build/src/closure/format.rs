//! Format: what the files of an artefact are, by their first bytes.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use super::elf::{self, ElfError, Object};
use super::script::Shebang;
use super::{ClosureError, is_executable, shown};
use crate::rootfs::{self, Node, Rootfs};

/// What a file is, as far as it can need something.
#[derive(Debug)]
pub(super) enum Format {
    /// A program or library.
    Object(Box<Object>),
    /// It begins like an object and is none.
    BrokenObject(String),
    /// A text that another program runs.
    Script(Shebang),
    /// A program or library of another operating system, by its name.
    Foreign(&'static str),
}

/// How much the kernel reads of a script's first line, in bytes (`BINPRM_BUF_SIZE` of linux/binfmts.h).
const FIRST_LINE: u64 = 256;

/// Looks at the beginning of every file. Files of no interest are left out.
pub(super) fn read_all(rootfs: &Rootfs) -> Result<BTreeMap<&[u8], Format>, ClosureError> {
    let mut formats = BTreeMap::new();
    for (path, node) in rootfs.files() {
        let read = read(node).map_err(|source| ClosureError { path: shown(path), source })?;
        if let Some(format) = read {
            formats.insert(path, format);
        }
    }
    Ok(formats)
}

fn read(node: &Node) -> std::io::Result<Option<Format>> {
    let mut file = rootfs::open(node)?;
    let mut head = Vec::new();
    file.by_ref().take(FIRST_LINE).read_to_end(&mut head)?;
    Ok(match head.as_slice() {
        head if head.starts_with(elf::MAGIC) => Some(object(&mut file, node)?),
        head if head.starts_with(b"#!") && is_executable(node) => Some(Format::Script(Shebang::parse(head))),
        // Mach-O for one processor or several (mach-o/loader.h, fat.h); PE begins as DOS programs did.
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 1..=8, ..] => {
            Some(Format::Foreign("macOS"))
        }
        [b'M', b'Z', ..] => Some(Format::Foreign("Windows")),
        _ => None,
    })
}

fn object(file: &mut (impl Read + Seek), node: &Node) -> std::io::Result<Format> {
    let Node::File { size, .. } = node else { return Ok(Format::BrokenObject("it is no file".to_owned())) };
    match elf::read(file, *size) {
        Ok(object) => Ok(Format::Object(Box::new(object))),
        Err(ElfError::Broken(problem)) => Ok(Format::BrokenObject(problem)),
        Err(ElfError::Read(source)) => Err(source),
    }
}

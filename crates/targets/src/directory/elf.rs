//! Which loader a program asks for: `PT_INTERP` of an ELF file (System V ABI, "Program Header"; ELF-64 and ELF-32, both
//! byte orders).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PT_INTERP: u32 = 3;

/// How long the path of a loader may be.
const PATH_BYTES_MAX: u64 = 4096;

/// The loader that a program names; none: the file is no ELF file, or a static one.
pub(super) fn interpreter(program: &Path) -> io::Result<Option<String>> {
    let file = File::open(program)?;
    let mut ident = [0; 64];
    if file.read_exact_at(&mut ident, 0).is_err() || &ident[..4] != b"\x7fELF" {
        return Ok(None);
    }
    let Some(shape) = Shape::of(&ident) else { return Ok(None) };
    let table = shape.word(&ident, shape.table_at);
    let entry_size = shape.half(&ident, shape.entry_size_at);
    let count = shape.half(&ident, shape.count_at);
    for index in 0..count {
        let mut header = [0; 56];
        let at = table.saturating_add(index * entry_size);
        let wanted = &mut header[..shape.header_size];
        if file.read_exact_at(wanted, at).is_err() {
            return Ok(None);
        }
        if shape.number(&header, 0, 4) == u64::from(PT_INTERP) {
            let (offset, size) = (shape.word(&header, shape.offset_at), shape.word(&header, shape.size_at));
            return read_path(&file, offset, size);
        }
    }
    Ok(None)
}

/// Where the fields stand, which the class of the file decides.
struct Shape {
    big_endian: bool,
    word_size: usize,
    table_at: usize,
    entry_size_at: usize,
    count_at: usize,
    header_size: usize,
    offset_at: usize,
    size_at: usize,
}

impl Shape {
    fn of(ident: &[u8; 64]) -> Option<Self> {
        let big_endian = match ident[5] {
            1 => false,
            2 => true,
            _ => return None,
        };
        match ident[4] {
            1 => Some(Self {
                big_endian,
                word_size: 4,
                table_at: 28,
                entry_size_at: 42,
                count_at: 44,
                header_size: 32,
                offset_at: 4,
                size_at: 16,
            }),
            2 => Some(Self {
                big_endian,
                word_size: 8,
                table_at: 32,
                entry_size_at: 54,
                count_at: 56,
                header_size: 56,
                offset_at: 8,
                size_at: 32,
            }),
            _ => None,
        }
    }

    fn word(&self, bytes: &[u8], at: usize) -> u64 {
        self.number(bytes, at, self.word_size)
    }

    fn half(&self, bytes: &[u8], at: usize) -> u64 {
        self.number(bytes, at, 2)
    }

    fn number(&self, bytes: &[u8], at: usize, size: usize) -> u64 {
        let digits = bytes[at..at + size].iter();
        let join = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        if self.big_endian { digits.fold(0, join) } else { digits.rev().fold(0, join) }
    }
}

fn read_path(file: &File, offset: u64, size: u64) -> io::Result<Option<String>> {
    let mut path = vec![0; usize::try_from(size.min(PATH_BYTES_MAX)).unwrap_or(0)];
    if file.read_exact_at(&mut path, offset).is_err() {
        return Ok(None);
    }
    let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
    Ok(Some(String::from_utf8_lossy(&path[..end]).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal ELF-64 file with one program header.
    fn elf64(segment: u32, interpreter: &str) -> Vec<u8> {
        let mut bytes = vec![0; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&segment.to_le_bytes());
        bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&(interpreter.len() as u64 + 1).to_le_bytes());
        bytes.extend_from_slice(interpreter.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn the_loader_of_a_program_is_read_and_damage_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            interpreter(&file).unwrap()
        };
        assert_eq!(read(&elf64(PT_INTERP, "/lib/ld.so")), Some("/lib/ld.so".to_owned()));
        assert_eq!(read(&elf64(1, "/lib/ld.so")), None);
        assert_eq!(read(b"#!/bin/sh\n"), None);
        assert_eq!(read(b""), None);
        let whole = elf64(PT_INTERP, "/lib/ld.so");
        for length in 0..whole.len() {
            read(&whole[..length]);
        }
        let mut wild = whole;
        wild[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(read(&wild), None);
    }
}

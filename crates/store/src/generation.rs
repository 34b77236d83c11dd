//! The generation of a store: a number that changes with everything that a name or a blob's readability rests on.
//!
//! What was read from the database at one generation is true as long as the generation is the same. It lies in a file of
//! eight bytes that every process of the host reads with one system call, so that answers from memory need no database.
//! Operational: it may be lost, and begins again with the next turn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The lower bits count changes between two sizes of the ledger; the lowest says that one is being made.
const BUMP_BITS: u32 = 20;
/// Numbers from here on are never written.
const UNKNOWN: u64 = 1 << 63;

/// The file with the number.
#[derive(Debug)]
pub(crate) struct Generation {
    file: Option<File>,
    /// Where there is no file to read, nothing is the same twice.
    unknown: AtomicU64,
}

impl Generation {
    /// Opens the file of a store. A store that cannot be written to has none.
    pub(crate) fn at(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path).ok();
        Self { file, unknown: AtomicU64::new(UNKNOWN) }
    }

    /// The number now. While a change is being made, and after somebody stopped in the middle of one, no number is the same
    /// twice: what is read then may be true no longer.
    pub(crate) fn now(&self) -> u64 {
        match self.written() {
            Some(number) if number & 1 == 0 => number,
            _ => self.unknown.fetch_add(1, Ordering::Relaxed),
        }
    }

    fn written(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        match self.file.as_ref()?.read_at(&mut bytes, 0) {
            Ok(8) => Some(u64::from_le_bytes(bytes)),
            Ok(_) => Some(0),
            Err(_) => None,
        }
    }

    /// Says that a change is about to be committed.
    pub(crate) fn moving(&self) -> io::Result<()> {
        self.write(self.written().unwrap_or(0) | 1)
    }

    /// Brings the number level with a ledger of `size` leaves. Whoever crashed before this left it behind.
    pub(crate) fn level(&self, size: u64) -> io::Result<()> {
        match self.written() {
            Some(number) if number & 1 == 0 && number >> BUMP_BITS == size => Ok(()),
            // Another process may have read the number that was there when a change was broken off.
            Some(number) if number >> BUMP_BITS == size => self.bump(),
            _ => self.write(size << BUMP_BITS),
        }
    }

    /// Something changed that is no entry of the ledger.
    pub(crate) fn bump(&self) -> io::Result<()> {
        let now = self.written().unwrap_or(0);
        let bump = ((now | 1) + 1) & ((1 << BUMP_BITS) - 1);
        self.write((now >> BUMP_BITS << BUMP_BITS) | bump)
    }

    fn write(&self, number: u64) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(&number.to_le_bytes(), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_sees_the_same_number_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("generation");
        let (one, other) = (Generation::at(&path), Generation::at(&path));
        let mut seen = vec![other.now()];
        for size in [1, 2, 2, 7] {
            one.level(size).unwrap();
            seen.push(other.now());
            one.bump().unwrap();
            seen.push(other.now());
        }
        assert_eq!(one.now(), other.now());
        seen.dedup();
        assert_eq!(seen.len(), 8, "levelling to the size that is there changes nothing: {seen:?}");
    }

    #[test]
    fn in_the_middle_of_a_change_nothing_is_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let generation = Generation::at(&dir.path().join("generation"));
        generation.level(3).unwrap();
        let before = generation.now();
        generation.moving().unwrap();
        assert_ne!(generation.now(), generation.now());
        generation.level(3).unwrap();
        assert_ne!(generation.now(), before, "somebody may have committed and stopped");
        assert_eq!(generation.now(), generation.now());
    }

    #[test]
    fn without_a_file_nothing_is_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let none = Generation::at(&dir.path().join("not/there/generation"));
        assert_ne!(none.now(), none.now());
    }
}

//! The ledger beside its database: every committed batch is appended to `ledger/entries-<n>`, so that a lost database can
//! be recovered from files.
//!
//! A file holds the batches that begin with its number, up to [`BATCH_BYTES_PER_FILE`] bytes. A batch is
//!
//! ```text
//! "SEMEL\x00B1"  first sequence number u64  number of leaves u32  length of the note u32  bytes behind this header u64
//! leaves, each: length u32, bytes
//! signed checkpoint of the tree after the batch
//! SHA-256 of everything above, from the first byte of the batch
//! ```
//!
//! with all numbers big-endian. A torn tail (a crash in the middle of a write) is recognised by its hash and cut off; the
//! database, which was committed before, writes the batch again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::durable;

const MAGIC: &[u8; 8] = b"SEMEL\0B1";
const HEADER: usize = 8 + 8 + 4 + 4 + 8;
const HASH: usize = 32;
/// A file that has reached this size gets no further batch.
pub(crate) const BATCH_BYTES_PER_FILE: u64 = 1024 * 1024;

/// One committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The sequence number of its first leaf.
    pub(crate) first: u64,
    /// The bytes of its leaves.
    pub(crate) leaves: Vec<Vec<u8>>,
    /// The signed checkpoint of the tree after it.
    pub(crate) note: String,
}

impl Batch {
    /// The number of leaves in the tree after this batch.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.leaves.len() as u64
    }

    fn to_bytes(&self) -> Vec<u8> {
        let body: usize = self.leaves.iter().map(|leaf| leaf.len() + 4).sum::<usize>() + self.note.len();
        let mut bytes = Vec::with_capacity(HEADER + body + HASH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.first.to_be_bytes());
        bytes.extend_from_slice(&length(self.leaves.len()));
        bytes.extend_from_slice(&length(self.note.len()));
        bytes.extend_from_slice(&(body as u64).to_be_bytes());
        for leaf in &self.leaves {
            bytes.extend_from_slice(&length(leaf.len()));
            bytes.extend_from_slice(leaf);
        }
        bytes.extend_from_slice(self.note.as_bytes());
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// Reads the batch at the beginning of some bytes, and how many bytes it has. None: there is no whole batch.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = bytes.get(..HEADER)?;
        if &header[..8] != MAGIC {
            return None;
        }
        let first = u64::from_be_bytes(header[8..16].try_into().ok()?);
        let count = u32::from_be_bytes(header[16..20].try_into().ok()?);
        let note_length = usize::try_from(u32::from_be_bytes(header[20..24].try_into().ok()?)).ok()?;
        let body = usize::try_from(u64::from_be_bytes(header[24..32].try_into().ok()?)).ok()?;
        let signed = bytes.get(..HEADER.checked_add(body)?)?;
        let hash = bytes.get(signed.len()..signed.len() + HASH)?;
        if Sha256::digest(signed).as_slice() != hash {
            return None;
        }
        let mut rest = &signed[HEADER..];
        let mut leaves = Vec::new();
        for _ in 0..count {
            let size = usize::try_from(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
            leaves.push(rest.get(4..4 + size)?.to_vec());
            rest = &rest[4 + size..];
        }
        let note = (rest.len() == note_length).then(|| String::from_utf8(rest.to_vec()).ok())??;
        Some((Self { first, leaves, note }, signed.len() + HASH))
    }
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).expect("leaves and notes are small").to_be_bytes()
}

/// The `ledger` directory of a store.
#[derive(Debug, Clone)]
pub(crate) struct EntryFiles {
    dir: PathBuf,
}

/// Where the files end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    path: PathBuf,
    length: u64,
}

impl Tail {
    /// Whether they end there still.
    pub(crate) fn is_here(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.length)
    }
}

/// What the files hold.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The batches in order.
    pub(crate) batches: Vec<Batch>,
    /// A file with bytes behind its last whole batch, and where these begin.
    pub(crate) torn: Option<(PathBuf, u64)>,
}

/// Where the files end.
struct Newest {
    last: Option<Batch>,
    /// As in [`Contents`], of the newest file.
    torn: Option<(PathBuf, u64)>,
}

impl EntryFiles {
    /// The files in a directory.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// How many leaves the files hold, read from the newest file alone.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.last()?.map_or(0, |last| last.end()))
    }

    /// The last batch that the files hold, read from the newest file alone.
    pub(crate) fn last(&self) -> io::Result<Option<Batch>> {
        Ok(self.newest()?.last)
    }

    fn newest(&self) -> io::Result<Newest> {
        let mut torn = None;
        for file in self.files()?.iter().rev() {
            let mut contents = Contents::default();
            read_file(file, &mut contents)?;
            torn = torn.or(contents.torn);
            if let Some(last) = contents.batches.pop() {
                return Ok(Newest { last: Some(last), torn });
            }
        }
        Ok(Newest { last: None, torn })
    }

    /// Appends batches and makes them durable; says where the files end then. A torn tail is to be cut off before. Who knows
    /// where the files end saves looking for it.
    pub(crate) fn append(&self, known: Option<Tail>, batches: &[Batch]) -> io::Result<Option<Tail>> {
        let Some(first) = batches.first() else { return Ok(known) };
        let tail = match known {
            Some(tail) => Some(tail),
            None => self.tail()?,
        };
        let fresh = || Tail { path: self.dir.join(format!("entries-{:020}", first.first)), length: 0 };
        let Tail { path, length } =
            tail.filter(|tail| tail.length < BATCH_BYTES_PER_FILE).unwrap_or_else(fresh);
        let bytes: Vec<u8> = batches.iter().flat_map(Batch::to_bytes).collect();
        durable::append(&path, &bytes)?;
        Ok(Some(Tail { path, length: length + bytes.len() as u64 }))
    }

    /// Where the files end; none: there are none.
    fn tail(&self) -> io::Result<Option<Tail>> {
        let Some(path) = self.files()?.pop() else { return Ok(None) };
        let length = fs::metadata(&path)?.len();
        Ok(Some(Tail { path, length }))
    }

    /// Cuts off what a crash left behind the last whole batch. Says how many leaves the files hold.
    pub(crate) fn repair(&self) -> io::Result<u64> {
        let Newest { last, torn } = self.newest()?;
        if let Some((path, length)) = torn {
            durable::truncate(&path, length)?;
        }
        Ok(last.map_or(0, |last| last.end()))
    }

    /// Reads everything.
    pub(crate) fn read(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for file in self.files()? {
            read_file(&file, &mut contents)?;
        }
        Ok(contents)
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for item in fs::read_dir(&self.dir)? {
            let path = item?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("entries-")) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn read_file(path: &Path, contents: &mut Contents) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let mut at = 0;
    while at < bytes.len() {
        let Some((batch, length)) = Batch::parse(&bytes[at..]) else {
            contents.torn = Some((path.to_owned(), at as u64));
            break;
        };
        contents.batches.push(batch);
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64) -> Batch {
        Batch { first, leaves: vec![b"one".to_vec(), b"two".to_vec()], note: "note\n".into() }
    }

    #[test]
    fn batches_read_back_and_their_bytes_are_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let files = EntryFiles::at(dir.path().to_owned());
        files.append(None, &[batch(0)]).unwrap();
        files.append(None, &[batch(2), batch(4)]).unwrap();
        assert_eq!(files.read().unwrap().batches, [batch(0), batch(2), batch(4)]);
        assert_eq!(files.size().unwrap(), 6);
        let bytes = batch(0).to_bytes();
        assert_eq!(
            hex::encode(&bytes[..bytes.len() - HASH]),
            "53454d454c0042310000000000000000000000020000000500000000000000130000000\
             36f6e6500000003\
             74776f6e6f74650a"
        );
    }

    #[test]
    fn every_torn_tail_is_recognised_and_cut_off() {
        let whole = batch(0).to_bytes();
        for length in 0..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            let files = EntryFiles::at(dir.path().to_owned());
            files.append(None, &[batch(0)]).unwrap();
            durable::append(&dir.path().join(format!("entries-{:020}", 0)), &whole[..length]).unwrap();
            assert_eq!(files.size().unwrap(), 2, "tail of {length} bytes");
            files.repair().unwrap();
            files.append(None, &[batch(2)]).unwrap();
            assert_eq!(files.read().unwrap().batches.len(), 2, "tail of {length} bytes");
            assert!(files.read().unwrap().torn.is_none());
        }
    }
}

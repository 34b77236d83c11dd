//! The members of a zip file (also jar, wheel, egg), as far as a comparison and the linter need them.
//!
//! Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16. What needs zip64 is not read.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

/// A member, by its record in the central directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Time and date as MS-DOS writes them.
    pub(crate) time: (u16, u16),
    /// Extra fields, such as times in seconds and the owner.
    pub(crate) extra: Vec<u8>,
    /// Permissions in the upper half, where the maker was Unix.
    pub(crate) attributes: u32,
    pub(crate) crc: u32,
    /// The length of its content in bytes, as the record has it.
    pub(crate) size: u32,
    method: u16,
    packed: u32,
    header: u32,
}

/// The longest comment after the last record, and that record.
const TAIL: u64 = 65_535 + 22;
/// How many members are told apart.
const MEMBERS_MAX: usize = 100_000;
/// The largest central directory that is read.
const DIRECTORY_MAX: u32 = 64 << 20;

/// Why a zip file that somebody else packed is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidZip {
    /// It is something else, or cut off.
    #[error("it is no zip file")]
    Other,
    /// Who unpacks it would write somewhere else.
    #[error("its member `{name}` leads out of where it is unpacked")]
    Outside {
        /// The name.
        name: String,
    },
    /// What it unpacks to would depend on who unpacks it.
    #[error("two of its members are named `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
}

/// Whether everybody unpacks a zip file to the same files in one place. One that needs zip64 is not looked into.
pub(crate) fn check(file: &mut (impl Read + Seek)) -> io::Result<Result<(), InvalidZip>> {
    let Some(end) = End::find(file)? else { return Ok(Err(InvalidZip::Other)) };
    if end.is_zip64() {
        return Ok(Ok(()));
    }
    let Some(members) = members(file)? else { return Ok(Err(InvalidZip::Other)) };
    let mut names = HashSet::new();
    for Member { name, .. } in &members {
        // Some unpack a backslash as a slash.
        let mut parts = name.split(['/', '\\']);
        if parts.next().is_none_or(|first| first.is_empty() || first == "..")
            || parts.any(|part| part == "..")
        {
            return Ok(Err(InvalidZip::Outside { name: name.clone() }));
        }
        if !names.insert(name) {
            return Ok(Err(InvalidZip::Twice { name: name.clone() }));
        }
    }
    Ok(Ok(()))
}

/// The last record (4.3.16), which says where the central directory is.
struct End {
    length: u32,
    offset: u32,
    entries: u16,
}

impl End {
    fn find<R: Read + Seek + ?Sized>(file: &mut R) -> io::Result<Option<Self>> {
        let size = file.seek(SeekFrom::End(0))?;
        let start = size.saturating_sub(TAIL);
        let tail = read_at(file, start, size - start)?;
        let at = (0..tail.len()).rev().find(|at| tail[*at..].starts_with(b"PK\x05\x06"));
        Ok(at.and_then(|at| {
            let (length, offset) = (u32_at(&tail, at + 12)?, u32_at(&tail, at + 16)?);
            Some(Self { length, offset, entries: u16_at(&tail, at + 10)? })
        }))
    }

    /// Whether another record has the right numbers (4.4.1.4).
    fn is_zip64(&self) -> bool {
        self.length == u32::MAX || self.offset == u32::MAX || self.entries == u16::MAX
    }
}

/// The members in their order; nothing if this is no zip file that can be read.
pub(crate) fn members<R: Read + Seek + ?Sized>(file: &mut R) -> io::Result<Option<Vec<Member>>> {
    let Some(End { length, offset, .. }) = End::find(file)? else { return Ok(None) };
    let size = file.seek(SeekFrom::End(0))?;
    if length > DIRECTORY_MAX || u64::from(offset) + u64::from(length) > size {
        return Ok(None);
    }
    let directory = read_at(file, u64::from(offset), u64::from(length))?;
    let mut members = Vec::new();
    let mut at = 0;
    while directory.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02")) {
        let Some((member, next)) = member(&directory, at) else { return Ok(None) };
        if members.len() == MEMBERS_MAX {
            return Ok(None);
        }
        members.push(member);
        at = next;
    }
    Ok(Some(members))
}

fn member(bytes: &[u8], at: usize) -> Option<(Member, usize)> {
    let short = |offset: usize| u16_at(bytes, at + offset);
    let name_end = at + 46 + usize::from(short(28)?);
    let extra_end = name_end + usize::from(short(30)?);
    let member = Member {
        method: short(10)?,
        time: (short(12)?, short(14)?),
        crc: u32_at(bytes, at + 16)?,
        packed: u32_at(bytes, at + 20)?,
        size: u32_at(bytes, at + 24)?,
        attributes: u32_at(bytes, at + 38)?,
        header: u32_at(bytes, at + 42)?,
        name: String::from_utf8_lossy(bytes.get(at + 46..name_end)?).into_owned(),
        extra: bytes.get(name_end..extra_end)?.to_vec(),
    };
    Some((member, extra_end + usize::from(short(32)?)))
}

/// The content of a member, if it has at most `most` bytes and a method that is known.
pub(crate) fn content<R: Read + Seek + ?Sized>(
    file: &mut R,
    member: &Member,
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    if u64::from(member.packed) > most {
        return Ok(None);
    }
    match open(file, member)? {
        Some(content) => unpacked(content, most),
        None => Ok(None),
    }
}

/// Reads a member, if its method is known.
pub(crate) fn open<'a, R: Read + Seek + ?Sized>(
    file: &'a mut R,
    member: &Member,
) -> io::Result<Option<Box<dyn Read + 'a>>> {
    let header = read_at(file, u64::from(member.header), 30)?;
    let (Some(name), Some(extra)) = (u16_at(&header, 26), u16_at(&header, 28)) else { return Ok(None) };
    file.seek(SeekFrom::Start(u64::from(member.header) + 30 + u64::from(name) + u64::from(extra)))?;
    let packed = file.take(u64::from(member.packed));
    Ok(match member.method {
        0 => Some(Box::new(packed)),
        8 => Some(Box::new(DeflateDecoder::new(packed))),
        _ => None,
    })
}

/// Everything that a decoder gives, if that is at most `most` bytes.
pub(crate) fn unpacked(decoder: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    decoder.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// At most `length` bytes from an offset.
pub(crate) fn read_at<R: Read + Seek + ?Sized>(
    file: &mut R,
    offset: u64,
    length: u64,
) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn packed(names: &[&str]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"content").unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn a_zip_that_is_not_the_same_everywhere_is_refused() {
        let (good, twice) = (packed(&["a/b.py", "..c", "d"]), packed(&["a", "b"]));
        let twice: Vec<u8> = twice.into_iter().map(|byte| if byte == b'b' { b'a' } else { byte }).collect();
        for (bytes, problem) in [
            (good.clone(), None),
            (packed(&[]), None),
            (good[..good.len() - 22].to_vec(), Some("no zip file")),
            (b"PK".to_vec(), Some("no zip file")),
            (packed(&["a/../../b"]), Some("`a/../../b` leads out")),
            (packed(&["..\\b"]), Some("leads out")),
            (packed(&["/etc/passwd"]), Some("leads out")),
            (twice, Some("two of its members are named `a`")),
        ] {
            let told = check(&mut Cursor::new(bytes)).unwrap().map_err(|error| error.to_string());
            match (told, problem) {
                (Ok(()), None) => {}
                (Err(told), Some(problem)) => assert!(told.contains(problem), "{told}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

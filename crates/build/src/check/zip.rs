//! Zip: the members of a zip file (also jar, wheel, egg), as far as a comparison needs them.
//!
//! Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16. What needs zip64 is not read.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

/// A member, by its record in the central directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Time and date as MS-DOS writes them.
    pub(super) time: (u16, u16),
    /// Extra fields, such as times in seconds and the owner.
    pub(super) extra: Vec<u8>,
    /// Permissions in the upper half, where the maker was Unix.
    pub(super) attributes: u32,
    pub(super) crc: u32,
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

/// The members in their order; nothing if this is no zip file that can be read.
pub(super) fn members<R: Read + Seek + ?Sized>(file: &mut R) -> io::Result<Option<Vec<Member>>> {
    let size = file.seek(SeekFrom::End(0))?;
    let start = size.saturating_sub(TAIL);
    let tail = read_at(file, start, size - start)?;
    let Some(end) = (0..tail.len()).rev().find(|at| tail[*at..].starts_with(b"PK\x05\x06")) else {
        return Ok(None);
    };
    let (Some(length), Some(offset)) = (u32_at(&tail, end + 12), u32_at(&tail, end + 16)) else {
        return Ok(None);
    };
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
        attributes: u32_at(bytes, at + 38)?,
        header: u32_at(bytes, at + 42)?,
        name: String::from_utf8_lossy(bytes.get(at + 46..name_end)?).into_owned(),
        extra: bytes.get(name_end..extra_end)?.to_vec(),
    };
    Some((member, extra_end + usize::from(short(32)?)))
}

/// The content of a member, if it has at most `most` bytes and a method that is known.
pub(super) fn content<R: Read + Seek + ?Sized>(
    file: &mut R,
    member: &Member,
    most: u64,
) -> io::Result<Option<Vec<u8>>> {
    let header = read_at(file, u64::from(member.header), 30)?;
    let (Some(name), Some(extra)) = (u16_at(&header, 26), u16_at(&header, 28)) else { return Ok(None) };
    if u64::from(member.packed) > most {
        return Ok(None);
    }
    let start = u64::from(member.header) + 30 + u64::from(name) + u64::from(extra);
    let packed = read_at(file, start, u64::from(member.packed))?;
    match member.method {
        0 => Ok(Some(packed)),
        8 => unpacked(DeflateDecoder::new(Cursor::new(packed)), most),
        _ => Ok(None),
    }
}

/// Everything that a decoder gives, if that is at most `most` bytes.
pub(super) fn unpacked(decoder: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    decoder.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// At most `length` bytes from an offset.
pub(super) fn read_at<R: Read + Seek + ?Sized>(
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

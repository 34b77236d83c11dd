//! The zip bytes of packaging format 1.
//!
//! These bytes are frozen: a change here is a new format number. Source: PKWARE APPNOTE.TXT 6.3.10. Entries are as
//! everything reads them: no extra fields, no data descriptors, no comments, names in UTF-8, permissions as Unix has them.
//! There is no zip64: what needs it is far beyond what platforms take, and is refused.

use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The deflate implementation sees its input in pieces of exactly this many bytes, the last one excepted.
const PIECE: usize = 64 * 1024;
/// The level of that implementation: a zip is small, and its platform counts its bytes.
const LEVEL: u32 = 6;
/// Larger numbers mean that a zip64 field has the right one (4.4.1.4).
const LARGEST: u64 = 0xffff_fffe;
const MOST_ENTRIES: usize = 0xfffe;
const LOCAL_HEADER: u32 = 0x0403_4b50;
const LOCAL_HEADER_BYTES: u64 = 30;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
/// 2.0, the first with deflate and directories (4.4.3.2).
const NEEDED: u16 = 20;
/// Unix (4.4.2.2): the upper half of the external attributes is a mode.
const MADE_BY: u16 = 3 << 8 | NEEDED;
/// Bit 11 (4.4.4): the name is UTF-8.
const FLAGS: u16 = 1 << 11;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// The attribute of a directory, as MS-DOS has it.
const DIRECTORY: u32 = 0x10;

/// Writes one zip.
pub(super) struct ZipWriter<W> {
    inner: W,
    at: u64,
    time: DosTime,
    entries: Vec<Entry>,
}

/// One entry, as the central directory has it.
struct Entry {
    name: String,
    attributes: u32,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    at: u64,
}

impl<W: Write + Seek> ZipWriter<W> {
    /// Starts a zip whose entries all carry this time, in seconds.
    pub(super) fn new(inner: W, seconds: i64) -> Self {
        Self { inner, at: 0, time: DosTime::of(seconds), entries: Vec::new() }
    }

    pub(super) fn directory(&mut self, path: &[u8]) -> io::Result<()> {
        let name = format!("{}/", name(path)?);
        let entry = self.begin(name, 0o40755 << 16 | DIRECTORY, STORED)?;
        self.end(entry)
    }

    /// A link, as Info-ZIP writes it: what it says are its bytes.
    pub(super) fn symlink(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let mut entry = self.begin(name(path)?, 0o120777 << 16, STORED)?;
        let mut crc = Crc::new();
        crc.update(target);
        self.inner.write_all(target)?;
        (entry.crc, entry.size, entry.packed) = (crc.sum(), target.len() as u64, target.len() as u64);
        self.end(entry)
    }

    /// Writes a file of exactly `size` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when there are fewer, [`io::ErrorKind::InvalidData`] when there are more.
    pub(super) fn file(
        &mut self,
        path: &[u8],
        mode: u32,
        size: u64,
        mut content: impl Read,
    ) -> io::Result<()> {
        let method = if size == 0 { STORED } else { DEFLATED };
        let mut entry = self.begin(name(path)?, (0o100_000 | mode) << 16, method)?;
        let mut crc = Crc::new();
        if size > 0 {
            let counted = Counted { inner: &mut self.inner, bytes: 0 };
            let mut deflate = DeflateEncoder::new(counted, Compression::new(LEVEL));
            copy_pieces(content.by_ref().take(size), &mut crc, &mut deflate)?;
            entry.packed = deflate.finish()?.bytes;
        }
        if u64::from(crc.amount()) != size & u64::from(u32::MAX) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if content.read(&mut [0])? != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        (entry.crc, entry.size) = (crc.sum(), size);
        self.end(entry)
    }

    /// Ends the zip, and gives back what it was written to, flushed.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let start = self.at;
        let mut directory = Vec::new();
        for entry in &self.entries {
            put32(&mut directory, CENTRAL_HEADER);
            put16(&mut directory, MADE_BY);
            self.put_common(&mut directory, entry);
            // Comment, disk, internal attributes.
            directory.extend_from_slice(&[0; 6]);
            put32(&mut directory, entry.attributes);
            put32(&mut directory, fitting(entry.at)?);
            directory.extend_from_slice(entry.name.as_bytes());
        }
        let count = u16::try_from(self.entries.len()).map_err(io::Error::other)?;
        let length = fitting(directory.len() as u64)?;
        put32(&mut directory, END);
        put32(&mut directory, 0);
        put16(&mut directory, count);
        put16(&mut directory, count);
        put32(&mut directory, length);
        put32(&mut directory, fitting(start)?);
        put16(&mut directory, 0);
        self.inner.write_all(&directory)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// Writes the header, in which the lengths and the checksum are not known yet.
    fn begin(&mut self, name: String, attributes: u32, method: u16) -> io::Result<Entry> {
        if self.entries.len() == MOST_ENTRIES {
            return Err(too_large());
        }
        let entry = Entry { name, attributes, method, crc: 0, packed: 0, size: 0, at: self.at };
        self.write_header(&entry)?;
        Ok(entry)
    }

    /// Writes the header again, with everything in it.
    fn end(&mut self, entry: Entry) -> io::Result<()> {
        fitting(entry.size)?;
        self.at = entry.at + LOCAL_HEADER_BYTES + entry.name.len() as u64 + u64::from(fitting(entry.packed)?);
        fitting(self.at)?;
        self.inner.seek(SeekFrom::Start(entry.at))?;
        self.write_header(&entry)?;
        self.inner.seek(SeekFrom::Start(self.at))?;
        self.entries.push(entry);
        Ok(())
    }

    fn write_header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut header = Vec::new();
        put32(&mut header, LOCAL_HEADER);
        self.put_common(&mut header, entry);
        header.extend_from_slice(entry.name.as_bytes());
        self.inner.write_all(&header)
    }

    /// What both headers of an entry have: from the version that is needed to the length of the extra field.
    fn put_common(&self, header: &mut Vec<u8>, entry: &Entry) {
        let short = |value: u64| u32::try_from(value).expect("`end` refuses more");
        for value in [NEEDED, FLAGS, entry.method, self.time.time, self.time.date] {
            put16(header, value);
        }
        for value in [entry.crc, short(entry.packed), short(entry.size)] {
            put32(header, value);
        }
        put16(header, u16::try_from(entry.name.len()).expect("`name` refuses more"));
        put16(header, 0);
    }
}

fn put16(header: &mut Vec<u8>, value: u16) {
    header.extend_from_slice(&value.to_le_bytes());
}

fn put32(header: &mut Vec<u8>, value: u32) {
    header.extend_from_slice(&value.to_le_bytes());
}

/// A path of the artefact as a name.
fn name(path: &[u8]) -> io::Result<String> {
    let name = std::str::from_utf8(path).map_err(|_| refused("a zip holds names in UTF-8 only"))?;
    // One byte more for the slash of a directory.
    if name.len() >= usize::from(u16::MAX) || name.contains('\\') {
        return Err(refused("a zip holds names of less than 64 KiB and without a backslash only"));
    }
    Ok(name.to_owned())
}

fn fitting(value: u64) -> io::Result<u32> {
    u32::try_from(value).ok().filter(|_| value <= LARGEST).ok_or_else(too_large)
}

fn too_large() -> io::Error {
    refused("a zip without extensions holds less than 4 GiB and 65,535 files, and platforms take 250 MB")
}

/// Something that cannot be said in a zip.
fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

fn copy_pieces(mut from: impl Read, crc: &mut Crc, to: &mut impl Write) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        piece.clear();
        if from.by_ref().take(PIECE as u64).read_to_end(&mut piece)? == 0 {
            return Ok(());
        }
        crc.update(&piece);
        to.write_all(&piece)?;
    }
}

/// Counts what passes.
struct Counted<'a, W> {
    inner: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = self.inner.write(bytes)?;
        self.bytes += some as u64;
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A time as MS-DOS had it (4.4.6), in UTC: 1980 to 2107, of two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DosTime {
    date: u16,
    time: u16,
}

impl DosTime {
    fn of(seconds: i64) -> Self {
        let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::UTC);
        let bits = |value: i8| u16::try_from(value).unwrap_or_default();
        match at.year() {
            ..1980 => Self { date: 1 << 5 | 1, time: 0 },
            2108.. => Self { date: 127 << 9 | 12 << 5 | 31, time: 23 << 11 | 59 << 5 | 29 },
            year => Self {
                date: (year - 1980).unsigned_abs() << 9 | bits(at.month()) << 5 | bits(at.day()),
                time: bits(at.hour()) << 11 | bits(at.minute()) << 5 | (bits(at.second()) / 2),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use semel_model::digest::Digest;

    use super::*;

    #[test]
    fn the_bytes_of_a_zip_are_frozen() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()), 1_714_979_289);
        zip.directory(b"app").unwrap();
        zip.file(b"app/empty", 0o644, 0, io::empty()).unwrap();
        zip.file(b"app/long", 0o644, 300_000, io::repeat(7).take(300_000)).unwrap();
        zip.symlink(b"app/link", b"main.py").unwrap();
        zip.file("app/m\u{e4}in.py".as_bytes(), 0o755, 5, &b"print"[..]).unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        assert_eq!(
            Digest::of(&bytes).as_str(),
            "sha256:3ec0736c749d6a4fd73bb65abf55c8c7040b34aaed5f2b70e3126b5119b0a262"
        );
    }

    #[test]
    fn a_time_is_that_of_the_commit_within_what_a_zip_can_say() {
        for (seconds, date, time) in [
            (0, 0x0021, 0),
            (315_532_800, 0x0021, 0),
            (1_714_979_289, 0x58a6, 0x3904),
            (4_354_819_199, 0xff9f, 0xbf7d),
            (9_999_999_999, 0xff9f, 0xbf7d),
        ] {
            assert_eq!(DosTime::of(seconds), DosTime { date, time }, "{seconds}");
        }
    }

    #[test]
    fn what_a_zip_cannot_say_is_refused() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()), 0);
        for (size, kind) in [(2, io::ErrorKind::InvalidData), (4, io::ErrorKind::UnexpectedEof)] {
            assert_eq!(zip.file(b"a", 0o644, size, &b"abc"[..]).unwrap_err().kind(), kind);
        }
        for name in [&b"\xff"[..], b"a\\b", &[b'a'; 70_000]] {
            assert_eq!(zip.directory(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(fitting(LARGEST).is_ok() && fitting(LARGEST + 1).is_err());
    }
}

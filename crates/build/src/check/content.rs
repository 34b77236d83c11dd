//! Content: in which ways two files differ, in words of what they are.
//!
//! Text is compared line by line, an ELF object section by section, archives member by member; anything else has an offset.
//! Files are read in pieces; only what is compressed inside is unpacked into memory, up to a limit.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;

use flate2::read::MultiGzDecoder;
use goblin::elf::section_header::SHT_NOBITS;
use goblin::elf::{header::header64, section_header::section_header64};

use crate::zip::read::{self as zip, Member, read_at, unpacked};

/// A way in which two files or fields differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// Where and how.
    pub what: What,
    /// What the first has there, in part.
    pub committed: String,
    /// What the second has there, in part.
    pub built: String,
    /// Whether both are text, and no bytes in hexadecimal digits, which look like anything.
    pub is_text: bool,
}

impl Detail {
    #[expect(clippy::needless_pass_by_value, reason = "texts, numbers and digests are told alike")]
    pub(super) fn new(what: What, committed: impl ToString, built: impl ToString) -> Self {
        Self { what, committed: committed.to_string(), built: built.to_string(), is_text: true }
    }

    /// What lies around the places at which two files begin to differ.
    fn at(
        what: What,
        (one, offset): (&mut dyn Seekable, u64),
        (other, twin_offset): (&mut dyn Seekable, u64),
    ) -> io::Result<Self> {
        let (here, there) = (Surroundings::of(one, offset)?, Surroundings::of(other, twin_offset)?);
        Ok(match (here.text(), there.text()) {
            (Some(text), Some(twin)) if text != twin => Self::new(what, text, twin),
            _ => Self { is_text: false, ..Self::new(what, here.hex(), there.hex()) },
        })
    }
}

/// Where and how two files or fields differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A field of a document.
    Field,
    /// One of two has an entry, the other has not.
    Entry,
    /// An entry has another name.
    Name,
    /// `permissions`, `type`, `link`, `time` or `owner` of an entry.
    Metadata(&'static str),
    /// The same bytes are compressed otherwise.
    Compression,
    /// A line, counted from 1.
    Line(u64),
    /// The lines are the same in another order.
    LineOrder,
    /// A section of an ELF object, and the offset in the file.
    Section {
        /// Its name.
        name: String,
        /// In the first file.
        offset: u64,
    },
    /// Nothing but the build id of an ELF object.
    BuildId,
    /// The source's time in the header of a Python cache file.
    PycTime,
    /// The time in the header of a gzip file.
    GzipTime,
    /// Inside what a gzip file unpacks to.
    Unpacked(Box<Self>),
    /// Inside a member of an archive.
    Member(String, Box<Self>),
    /// The time of a member.
    MemberTime(String),
    /// The owner or the permissions of a member.
    MemberOwner(String),
    /// One of two archives has a member, the other has not.
    MemberMissing,
    /// The members are the same in another order.
    MemberOrder,
    /// A byte.
    Offset(u64),
}

impl What {
    /// What it is inside all archives.
    pub(super) fn innermost(&self) -> &Self {
        match self {
            Self::Unpacked(inner) | Self::Member(_, inner) => inner.innermost(),
            other => other,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => f.write_str("value"),
            Self::Entry => f.write_str("entry"),
            Self::Name => f.write_str("name"),
            Self::Metadata(name) => f.write_str(name),
            Self::Compression => f.write_str("compression"),
            Self::Line(number) => write!(f, "line {number}"),
            Self::LineOrder => f.write_str("order of the lines"),
            Self::Section { name, offset } => write!(f, "ELF {name} at {offset:#x}"),
            Self::BuildId => f.write_str("ELF build id alone"),
            Self::PycTime => f.write_str("time of the source in the .pyc header"),
            Self::GzipTime => f.write_str("time in the gzip header"),
            Self::Unpacked(inner) => write!(f, "unpacked: {inner}"),
            Self::Member(name, inner) => write!(f, "member {name}: {inner}"),
            Self::MemberTime(name) => write!(f, "member {name}: time"),
            Self::MemberOwner(name) => write!(f, "member {name}: owner or permissions"),
            Self::MemberMissing => f.write_str("members"),
            Self::MemberOrder => f.write_str("order of the members"),
            Self::Offset(offset) => write!(f, "byte {offset:#x}"),
        }
    }
}

/// In how many ways one file is said to differ: enough that one of them shows a cause.
const DETAILS_MAX: usize = 32;
/// How many members of an archive are told apart.
const MEMBERS_MAX: usize = 100_000;
/// The name of a section is not longer, in bytes.
const SECTION_NAME_MAX: usize = 256;
/// How much of what is compressed inside a file is unpacked.
const UNPACKED_MAX: u64 = 64 << 20;
/// How deep archives in archives are opened.
const DEPTH_MAX: usize = 3;
/// How much is told of a line or of what lies around a byte.
const SAMPLE: usize = 240;

pub(super) trait Seekable: Read + Seek {}

impl<T: Read + Seek> Seekable for T {}

/// The first ways in which two files differ; none: they are the same.
pub(super) fn differences(
    path: &str,
    one: &mut dyn Seekable,
    other: &mut dyn Seekable,
) -> io::Result<Vec<Detail>> {
    let mut details = Files { path, depth: 0 }.compare(one, other)?;
    details.truncate(DETAILS_MAX);
    Ok(details)
}

struct Files<'a> {
    path: &'a str,
    depth: usize,
}

impl Files<'_> {
    fn compare(&self, one: &mut dyn Seekable, other: &mut dyn Seekable) -> io::Result<Vec<Detail>> {
        let ends = (one.seek(SeekFrom::End(0))?, other.seek(SeekFrom::End(0))?);
        let Some(first) = first_difference(one, (0, ends.0), other, (0, ends.1))? else {
            return Ok(Vec::new());
        };
        let (head, twin) = (read_at(one, 0, 8192)?, read_at(other, 0, 8192)?);
        let both = |magic: &[u8]| head.starts_with(magic) && twin.starts_with(magic);
        let details = if both(b"\x7fELF\x02\x01") {
            elf(one, other)?
        } else if both(b"PK\x03\x04") && self.depth < DEPTH_MAX {
            self.zip(one, other)?
        } else if both(b"\x1f\x8b") && self.depth < DEPTH_MAX {
            self.gzip(one, other, &head, &twin)?
        } else if both(b"!<arch>\n") && self.depth < DEPTH_MAX {
            self.ar(one, other)?
        } else if self.path.ends_with(".pyc") {
            pyc(one, other, ends)?
        } else if is_text(&head) && is_text(&twin) {
            lines(one, other)?
        } else {
            Vec::new()
        };
        if details.is_empty() {
            return Ok(vec![Detail::at(What::Offset(first), (one, first), (other, first))?]);
        }
        Ok(details)
    }

    /// What lies inside, compared in its turn.
    fn inside(&self, name: &str, one: Vec<u8>, other: Vec<u8>) -> io::Result<Vec<Detail>> {
        Files { path: name, depth: self.depth + 1 }.compare(&mut Cursor::new(one), &mut Cursor::new(other))
    }

    /// RFC 1952, section 2.3: MTIME is the four bytes from offset 4.
    fn gzip(
        &self,
        one: &mut dyn Seekable,
        other: &mut dyn Seekable,
        head: &[u8],
        twin: &[u8],
    ) -> io::Result<Vec<Detail>> {
        let mut details = Vec::new();
        if let (Some(time), Some(twin)) = (u32_at(head, 4), u32_at(twin, 4))
            && time != twin
        {
            details.push(Detail::new(What::GzipTime, time, twin));
        }
        one.rewind()?;
        other.rewind()?;
        let unpacked = (
            unpacked(MultiGzDecoder::new(one), UNPACKED_MAX),
            unpacked(MultiGzDecoder::new(other), UNPACKED_MAX),
        );
        if let (Ok(Some(one)), Ok(Some(other))) = unpacked {
            let name = self.path.strip_suffix(".gz").unwrap_or(self.path);
            for detail in self.inside(name, one, other)? {
                details.push(Detail { what: What::Unpacked(Box::new(detail.what)), ..detail });
            }
        }
        Ok(details)
    }

    fn zip(&self, one: &mut dyn Seekable, other: &mut dyn Seekable) -> io::Result<Vec<Detail>> {
        let (Some(members), Some(twins)) = (zip::members(one)?, zip::members(other)?) else {
            return Ok(Vec::new());
        };
        let names = |members: &[Member]| members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
        let mut details = order_of(&names(&members), &names(&twins));
        let by_name: BTreeMap<&str, &Member> = twins.iter().map(|twin| (twin.name.as_str(), twin)).collect();
        for member in &members {
            if details.len() >= DETAILS_MAX {
                break;
            }
            let Some(twin) = by_name.get(member.name.as_str()) else { continue };
            if member.crc != twin.crc
                && let (Some(this), Some(that)) =
                    (zip::content(one, member, UNPACKED_MAX)?, zip::content(other, twin, UNPACKED_MAX)?)
            {
                details.extend(within(&member.name, self.inside(&member.name, this, that)?));
            }
            if member.time != twin.time {
                let what = What::MemberTime(member.name.clone());
                details.push(Detail::new(what, dos_time(member.time), dos_time(twin.time)));
            } else if (member.attributes, &member.extra) != (twin.attributes, &twin.extra) {
                let shown =
                    |member: &Member| format!("{:06o} {}", member.attributes >> 16, hex(&member.extra));
                details.push(Detail::new(What::MemberOwner(member.name.clone()), shown(member), shown(twin)));
            }
        }
        Ok(details)
    }

    /// ar(5), the common format: a header of 60 bytes before each member, which begins at an even offset.
    fn ar(&self, one: &mut dyn Seekable, other: &mut dyn Seekable) -> io::Result<Vec<Detail>> {
        let (members, twins) = (ar_members(one)?, ar_members(other)?);
        let names =
            |members: &[ArMember]| members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
        let mut details = order_of(&names(&members), &names(&twins));
        for (member, twin) in members.iter().zip(&twins).filter(|(member, twin)| member.name == twin.name) {
            if details.len() >= DETAILS_MAX {
                break;
            }
            if member.time != twin.time {
                details.push(Detail::new(What::MemberTime(member.name.clone()), &member.time, &twin.time));
            }
            if member.owner != twin.owner {
                details.push(Detail::new(What::MemberOwner(member.name.clone()), &member.owner, &twin.owner));
            }
            if member.size.max(twin.size) <= UNPACKED_MAX {
                let this = read_at(one, member.offset, member.size)?;
                let that = read_at(other, twin.offset, twin.size)?;
                details.extend(within(&member.name, self.inside(&member.name, this, that)?));
            }
        }
        Ok(details)
    }
}

fn within(name: &str, details: Vec<Detail>) -> impl Iterator<Item = Detail> {
    let name = name.to_owned();
    details
        .into_iter()
        .map(move |detail| Detail { what: What::Member(name.clone(), Box::new(detail.what)), ..detail })
}

/// Whether the members are the same and their order is not, or some are missing.
fn order_of(names: &[String], twins: &[String]) -> Vec<Detail> {
    if names == twins {
        return Vec::new();
    }
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let what = if sorted(names) == sorted(twins) { What::MemberOrder } else { What::MemberMissing };
    vec![Detail::new(what, clipped(&names.join(" ")), clipped(&twins.join(" ")))]
}

struct ArMember {
    name: String,
    time: String,
    owner: String,
    offset: u64,
    size: u64,
}

fn ar_members(file: &mut dyn Seekable) -> io::Result<Vec<ArMember>> {
    let mut members = Vec::new();
    let mut at = 8;
    loop {
        let header = read_at(file, at, 60)?;
        let field = |from: usize, to: usize| {
            header
                .get(from..to)
                .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
                .unwrap_or_default()
        };
        let Some(size) = field(48, 58).parse::<u64>().ok().filter(|_| header.ends_with(b"`\n")) else {
            return Ok(members);
        };
        if members.len() == MEMBERS_MAX {
            return Ok(members);
        }
        members.push(ArMember {
            name: field(0, 16).trim_end_matches('/').to_owned(),
            time: field(16, 28),
            owner: format!("{}:{} {}", field(28, 34), field(34, 40), field(40, 48)),
            offset: at + 60,
            size,
        });
        at += 60 + size + size % 2;
    }
}

/// PEP 552: magic number, flags, then time and size of the source where no flag is set.
fn pyc(one: &mut dyn Seekable, other: &mut dyn Seekable, ends: (u64, u64)) -> io::Result<Vec<Detail>> {
    let (head, twin) = (read_at(one, 0, 16)?, read_at(other, 0, 16)?);
    let mut details = Vec::new();
    if let Some(first) = first_difference(one, (16, ends.0), other, (16, ends.1))? {
        details.push(Detail::at(What::Offset(first), (one, first), (other, first))?);
    }
    if let (Some(0), Some(0), Some(time), Some(twin)) =
        (u32_at(&head, 4), u32_at(&twin, 4), u32_at(&head, 8), u32_at(&twin, 8))
        && time != twin
    {
        details.push(Detail::new(What::PycTime, time, twin));
    }
    Ok(details)
}

struct Section {
    /// Where its bytes are in the file.
    range: Range<u64>,
}

/// The sections of two ELF objects that differ. The build id follows from all others, so it counts only alone.
fn elf(one: &mut dyn Seekable, other: &mut dyn Seekable) -> io::Result<Vec<Detail>> {
    let (sections, twins) = (sections(one)?, sections(other)?);
    let mut by_name = BTreeMap::new();
    for (name, twin) in &twins {
        by_name.entry(name).or_insert(twin);
    }
    let mut details = Vec::new();
    let mut build_id = None;
    for (name, section) in &sections {
        let Some(twin) = by_name.get(name) else { continue };
        let Some(places) = Differing::of(one, &section.range, other, &twin.range)? else { continue };
        if name == ".note.gnu.build-id" {
            let (offset, twin_offset) = places.first;
            build_id = Some(Detail::at(What::BuildId, (one, offset), (other, twin_offset))?);
        } else if details.len() < DETAILS_MAX {
            let (offset, twin_offset) =
                if has_text(name) { places.in_text(one, other)? } else { places.first };
            let what = What::Section { name: name.clone(), offset };
            details.push(Detail::at(what, (one, offset), (other, twin_offset))?);
        }
    }
    // Data says why; code only that addresses have moved.
    details.sort_by_key(|detail| !matches!(&detail.what, What::Section { name, .. } if has_text(name)));
    Ok(if details.is_empty() { build_id.into_iter().collect() } else { details })
}

fn has_text(section: &str) -> bool {
    [".rodata", ".data", ".comment", ".debug_str", ".debug_line_str"]
        .iter()
        .any(|name| section.starts_with(name))
}

/// Where the bytes of two sections differ.
struct Differing {
    /// The first place, in either file.
    first: (u64, u64),
    /// How many bytes behind it the sections have in common.
    common: u64,
}

impl Differing {
    /// None: they are the same.
    fn of(
        one: &mut dyn Seekable,
        range: &Range<u64>,
        other: &mut dyn Seekable,
        twin: &Range<u64>,
    ) -> io::Result<Option<Self>> {
        let offset = first_difference(one, (range.start, range.end), other, (twin.start, twin.end))?;
        Ok(offset.map(|offset| {
            let twin_offset = offset - range.start + twin.start;
            let common = range.end.saturating_sub(offset).min(twin.end.saturating_sub(twin_offset));
            Self { first: (offset, twin_offset), common }
        }))
    }

    /// The first place where both have text. Before it there are tables of addresses, which move with whatever grows.
    fn in_text(&self, one: &mut dyn Seekable, other: &mut dyn Seekable) -> io::Result<(u64, u64)> {
        let length = self.common.min(TEXT_SEARCHED_MAX);
        let (bytes, twins) = (read_at(one, self.first.0, length)?, read_at(other, self.first.1, length)?);
        let text_around = |bytes: &[u8], at: usize| text_at(bytes, at).len() >= TELLING_TEXT;
        let found = bytes.iter().zip(&twins).enumerate().find(|(at, (byte, twin))| {
            byte != twin
                && printable(byte)
                && printable(twin)
                && text_around(&bytes, *at)
                && text_around(&twins, *at)
        });
        let ahead = found.map_or(0, |(at, _)| at as u64);
        Ok((self.first.0 + ahead, self.first.1 + ahead))
    }
}

/// So many bytes of a section are searched for text that differs.
const TEXT_SEARCHED_MAX: u64 = 16 << 20;
/// Fewer printable bytes in a row are no text.
const TELLING_TEXT: usize = 8;

/// The sections that have bytes in the file, by name, in their order. An object without a table of sections has none.
fn sections(file: &mut dyn Seekable) -> io::Result<Vec<(String, Section)>> {
    let file_size = file.seek(SeekFrom::End(0))?;
    let bytes = read_at(file, 0, header64::SIZEOF_EHDR as u64)?;
    let Ok(bytes) = <[u8; header64::SIZEOF_EHDR]>::try_from(bytes) else { return Ok(Vec::new()) };
    let header = header64::Header::from_bytes(&bytes);
    let size = section_header64::SIZEOF_SHDR;
    if header.e_shoff == 0 || header.e_shoff >= file_size {
        return Ok(Vec::new());
    }
    let table = read_at(file, header.e_shoff, (usize::from(header.e_shnum) * size) as u64)?;
    let number = table.len() / size;
    if number == 0 {
        return Ok(Vec::new());
    }
    let headers = section_header64::SectionHeader::from_bytes(&table, number);
    let names = headers.get(usize::from(header.e_shstrndx)).filter(|names| names.sh_offset < file_size);
    let Some(names) = names else { return Ok(Vec::new()) };
    let names = read_at(file, names.sh_offset, names.sh_size.min(1 << 20))?;
    let name = |at: u32| {
        let rest = usize::try_from(at).ok().and_then(|at| names.get(at..)).unwrap_or_default();
        let rest = &rest[..rest.len().min(SECTION_NAME_MAX)];
        String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    };
    let section = |header: &section_header64::SectionHeader| {
        let end = header.sh_offset.checked_add(header.sh_size).filter(|end| *end <= file_size)?;
        let has_bytes = header.sh_type != SHT_NOBITS;
        has_bytes.then(|| (name(header.sh_name), Section { range: header.sh_offset..end }))
    };
    Ok(headers.iter().filter_map(section).collect())
}

/// The first lines that differ, side by side, or that only their order does.
fn lines(one: &mut dyn Seekable, other: &mut dyn Seekable) -> io::Result<Vec<Detail>> {
    one.rewind()?;
    other.rewind()?;
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    let (mut details, mut number, mut sums) = (Vec::new(), 0, (0_u64, 0_u64));
    loop {
        number += 1;
        let (line, twin) = (next_line(&mut one)?, next_line(&mut other)?);
        if line.is_none() && twin.is_none() {
            break;
        }
        sums.0 = sums.0.wrapping_add(line.as_ref().map_or(0, |line| line.hash));
        sums.1 = sums.1.wrapping_add(twin.as_ref().map_or(0, |line| line.hash));
        if line != twin && details.len() < DETAILS_MAX {
            let shown =
                |line: Option<Line>| line.map_or_else(|| "(end of file)".to_owned(), |line| line.begin);
            details.push(Detail::new(What::Line(number), shown(line), shown(twin)));
        }
    }
    // A sum of hashes is the same for the same lines, whatever their order.
    if sums.0 == sums.1
        && let Some(first) = details.first()
    {
        return Ok(vec![Detail { what: What::LineOrder, ..first.clone() }]);
    }
    Ok(details)
}

#[derive(PartialEq, Eq)]
struct Line {
    begin: String,
    hash: u64,
}

/// How much of a line is read at once: there are files of one line.
const LINE_PIECE: u64 = 1 << 20;

fn next_line(reader: &mut BufReader<&mut dyn Seekable>) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    reader.take(LINE_PIECE).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(Some(Line { begin: String::from_utf8_lossy(text).into_owned(), hash: hasher.finish() }))
}

fn is_text(head: &[u8]) -> bool {
    !head.contains(&0)
        && head.iter().filter(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()).count() < 8
}

/// The offset in the first file of the first byte that two ranges do not have in common.
fn first_difference(
    one: &mut dyn Seekable,
    range: (u64, u64),
    other: &mut dyn Seekable,
    other_range: (u64, u64),
) -> io::Result<Option<u64>> {
    one.seek(SeekFrom::Start(range.0))?;
    other.seek(SeekFrom::Start(other_range.0))?;
    let length = |range: (u64, u64)| range.1.saturating_sub(range.0);
    let (mut one, mut other) = (
        BufReader::with_capacity(1 << 16, one.take(length(range))),
        BufReader::with_capacity(1 << 16, other.take(length(other_range))),
    );
    let mut at = range.0;
    loop {
        let (this, that) = (one.fill_buf()?, other.fill_buf()?);
        let common = this.len().min(that.len());
        if let Some(place) = (0..common).find(|place| this[*place] != that[*place]) {
            return Ok(Some(at + place as u64));
        }
        if common == 0 {
            return Ok((this.len() != that.len()).then_some(at));
        }
        one.consume(common);
        other.consume(common);
        at += common as u64;
    }
}

/// What lies around a byte of a file.
struct Surroundings {
    bytes: Vec<u8>,
    /// The byte itself.
    at: usize,
}

impl Surroundings {
    fn of(file: &mut dyn Seekable, offset: u64) -> io::Result<Self> {
        let start = offset.saturating_sub(SAMPLE as u64);
        let bytes = read_at(file, start, 2 * SAMPLE as u64)?;
        let at = usize::try_from(offset - start).unwrap_or(0).min(bytes.len());
        Ok(Self { bytes, at })
    }

    /// The printable text around it, if there is any.
    fn text(&self) -> Option<String> {
        let text = text_at(&self.bytes, self.at);
        (text.len() >= 4).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// The bytes from there on.
    fn hex(&self) -> String {
        hex(&self.bytes[self.at..self.bytes.len().min(self.at + 16)])
    }
}

/// The printable bytes before and behind a place.
fn text_at(bytes: &[u8], at: usize) -> &[u8] {
    let before = bytes[..at].iter().rev().take(SAMPLE).take_while(|byte| printable(byte)).count();
    let after = bytes[at..].iter().take(SAMPLE).take_while(|byte| printable(byte)).count();
    &bytes[at - before..at + after]
}

fn printable(byte: &u8) -> bool {
    byte.is_ascii_graphic() || *byte == b' '
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn clipped(text: &str) -> String {
    text.chars().take(SAMPLE).collect()
}

/// APPNOTE 4.4.6: days from bit 0, months from bit 5, years since 1980 from bit 9; seconds in twos.
fn dos_time((time, date): (u16, u16)) -> String {
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        1980 + (date >> 9),
        (date >> 5) & 15,
        date & 31,
        time >> 11,
        (time >> 5) & 63,
        (time & 31) * 2
    )
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of 64 bits with a table of one section, at these places.
    fn object(table_at: u64, section: (u64, u64), content: u8) -> Vec<u8> {
        let mut bytes = vec![0; 300];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[40..48].copy_from_slice(&table_at.to_le_bytes());
        // One section header, which is that of the names too.
        bytes[60] = 1;
        bytes[64 + 4] = 1;
        bytes[64 + 24..64 + 32].copy_from_slice(&section.0.to_le_bytes());
        bytes[64 + 32..64 + 40].copy_from_slice(&section.1.to_le_bytes());
        bytes[200] = content;
        bytes
    }

    #[test]
    fn an_object_whose_tables_lead_anywhere_is_compared_byte_by_byte() {
        for (table_at, section, by_section) in [
            (64, (190, 20), true),
            (64, (u64::MAX - 1, 20), false),
            (64, (190, u64::MAX), false),
            (64, (1 << 62, 1), false),
            (u64::MAX - 3, (190, 20), false),
            (299, (190, 20), false),
        ] {
            let (one, other) = (object(table_at, section, 1), object(table_at, section, 2));
            let found = differences("lib.so", &mut Cursor::new(one), &mut Cursor::new(other)).unwrap();
            let [detail] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!(matches!(detail.what, What::Section { offset: 200, .. }), by_section, "{detail:?}");
            assert!(by_section || detail.what == What::Offset(200), "{detail:?}");
        }
    }
}

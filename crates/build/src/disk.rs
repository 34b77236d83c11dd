//! Disk images of virtual machines: which format they have, and whether they are whole by themselves.
//!
//! Sources: QEMU `docs/interop/qcow2.txt`; UEFI 2.10, 5.2.1 and 5.3.2, for boot records. Only headers are read, and, where it
//! is asked, the tables that say where the clusters of a qcow2 image lie.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use semel_model::project::{DiskFormat, DiskSpec};

/// How many bytes of a file [`Format::of`] looks at.
pub const HEAD_BYTES: usize = 512;

const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// "Incompatible features": a reader must not open an image with a bit that it does not know. Bit 3 is another compression.
const NOT_CLOSED: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_ELSEWHERE: u64 = 1 << 2;
const LONG_ENTRIES: u64 = 1 << 4;
/// All of them up to this one.
const KNOWN: u64 = (LONG_ENTRIES << 1) - 1;

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU copy-on-write, version 2 or 3.
    Qcow2,
    /// The bytes of the disk as they are.
    Raw,
}

/// Why a disk image cannot be an artefact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDisk {
    /// The file is shorter than its header, or than its header says.
    #[error("the disk image ends within its header")]
    Short,
    /// A version of qcow2 that is not known.
    #[error("the disk image has version {0}, which is neither 2 nor 3")]
    Version(u64),
    /// It is a difference to another image.
    #[error("the disk image lies on a backing file")]
    Backed,
    /// Its header is here, its data in another file.
    #[error("the disk image keeps its data in another file")]
    DataElsewhere,
    /// It has states of the machine in it.
    #[error("the disk image has snapshots")]
    Snapshots,
    /// It needs a key.
    #[error("the disk image is encrypted: its key would be configuration")]
    Encrypted,
    /// A machine runs, or was ended while it wrote.
    #[error("the disk image was not closed properly")]
    NotClosed,
    /// QEMU found it to be broken.
    #[error("the disk image is marked as corrupt")]
    Corrupt,
    /// It needs more than is known here.
    #[error("the disk image has features that are not known here: {0:#x}")]
    Features(u64),
    /// It says of itself what cannot be.
    #[error("the disk image has {0}")]
    Absurd(&'static str),
    /// A raw image from which nothing starts.
    #[error("the disk image begins with neither a boot record nor a partition table")]
    NoBootRecord,
    /// A raw image that is cut off.
    #[error("the disk image has {bytes} bytes, which are no whole sectors of {SECTOR}")]
    PartOfSector {
        /// Its length.
        bytes: u64,
    },
    /// It is something else than the project says.
    #[error("the disk image is {is}, and [artefact] disk says {should}", is = is.as_str(), should = should.as_str())]
    Format {
        /// What it is.
        is: DiskFormat,
        /// What it should be.
        should: DiskFormat,
    },
    /// The definition names a directory, or nothing that is a file.
    #[error("a disk image is one file")]
    NoFile,
    /// The file is larger than what can be stored in chunks.
    #[error("the disk image has {bytes} bytes, and {most} can be stored")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The largest that can be stored.
        most: u64,
    },
    /// The disk is larger than the project says.
    #[error("the disk image is of a disk of {bytes} bytes, and [artefact] disk max_virtual allows {most}")]
    TooLarge {
        /// The virtual size.
        bytes: u64,
        /// The largest that is allowed.
        most: u64,
    },
}

impl InvalidDisk {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Backed | Self::DataElsewhere | Self::Encrypted => {
                "qemu-img convert -O qcow2 IMAGE ALONE.qcow2 writes one that has everything inside"
            }
            Self::Snapshots => {
                "qemu-img snapshot -l IMAGE lists them, and qemu-img snapshot -d NAME IMAGE removes one"
            }
            Self::NotClosed | Self::Corrupt => "qemu-img check -r all IMAGE",
            Self::PartOfSector { .. } => "truncate -s %512 IMAGE",
            Self::Format { .. } => {
                "correct `format` of [artefact] disk, or convert it: qemu-img convert -O FORMAT IMAGE NEW"
            }
            Self::NoFile => "name the file: image = \"out/disk.qcow2\"",
            Self::TooLong { .. } => "qemu-img convert -O qcow2 IMAGE SMALLER.qcow2 leaves out what is empty",
            Self::TooLarge { .. } => "raise `max_virtual` of [artefact] disk, or make the disk smaller",
            Self::Short | Self::Version(_) | Self::Features(_) | Self::Absurd(_) | Self::NoBootRecord => {
                return None;
            }
        })
    }
}

/// A disk image that stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Its format.
    pub format: DiskFormat,
    /// How large the disk is for the machine that it is in, in bytes.
    pub virtual_size_bytes: u64,
}

/// The bytes of a sector.
const SECTOR: u64 = 512;

impl Disk {
    /// Reads the headers of an image. A qcow2 image is refused unless it stands alone, a raw one unless it is whole sectors
    /// and begins with a boot record, which every partition table has, too.
    pub fn read(path: &Path) -> io::Result<Result<Self, InvalidDisk>> {
        let (head, file) = open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self::of(&head, bytes))
    }

    fn of(head: &[u8], bytes: u64) -> Result<Self, InvalidDisk> {
        match Format::of(head)? {
            Format::Qcow2 => {
                let virtual_size_bytes = Tables::of(head, bytes)?.virtual_bytes;
                Ok(Self { format: DiskFormat::Qcow2, virtual_size_bytes })
            }
            Format::Raw if !Format::is_evident(head) => Err(InvalidDisk::NoBootRecord),
            Format::Raw if !bytes.is_multiple_of(SECTOR) => Err(InvalidDisk::PartOfSector { bytes }),
            Format::Raw => Ok(Self { format: DiskFormat::Raw, virtual_size_bytes: bytes }),
        }
    }

    /// Whether it is what the project says.
    pub fn fits(&self, spec: Option<&DiskSpec>) -> Result<(), InvalidDisk> {
        let Some(spec) = spec else { return Ok(()) };
        if self.format != spec.format {
            return Err(InvalidDisk::Format { is: self.format, should: spec.format });
        }
        match spec.max_virtual_bytes() {
            Some(most) if self.virtual_size_bytes > most => {
                Err(InvalidDisk::TooLarge { bytes: self.virtual_size_bytes, most })
            }
            _ => Ok(()),
        }
    }
}

/// The fields of a qcow2 header that lead to its clusters.
struct Tables {
    virtual_bytes: u64,
    cluster_bytes: u64,
    /// How many bytes an entry of a table of the second level has.
    entry_bytes: u64,
    /// How many entries the table of the first level has, and where it begins.
    entries: u64,
    at: u64,
    file_bytes: u64,
}

/// QEMU reads no larger table of the first level (`QCOW_MAX_L1_SIZE`), in bytes.
const MOST_TABLE_BYTES: u64 = 32 * 1024 * 1024;
/// "L1 table entry" and "L2 table entry": the bits of an offset, and the one that says that a cluster is compressed.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// Whether the clusters of a qcow2 image lie in the order of the disk. Where they do not, it was written in place, or by
/// several threads (`qemu-img convert -W`), and the same content written again may give other bytes.
///
/// Each table is read once: an image that names more of them than it has room for is refused.
pub(crate) fn is_in_order(path: &Path) -> io::Result<Result<bool, InvalidDisk>> {
    let (head, file) = open(path)?;
    if !head.starts_with(QCOW2_MAGIC) {
        return Ok(Ok(true));
    }
    match Tables::of(&head, file.metadata()?.len()) {
        Ok(tables) => tables.are_in_order(&file),
        Err(invalid) => Ok(Err(invalid)),
    }
}

fn open(path: &Path) -> io::Result<(Vec<u8>, File)> {
    let mut head = Vec::new();
    let mut file = File::open(path)?;
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok((head, file))
}

impl Tables {
    fn of(head: &[u8], file_bytes: u64) -> Result<Self, InvalidDisk> {
        let (bits, virtual_bytes) = (big_endian(head, 20, 4)?, big_endian(head, 24, 8)?);
        let (entries, at) = (big_endian(head, 36, 4)?, big_endian(head, 40, 8)?);
        // QEMU reads no others (`MIN_CLUSTER_BITS`, `MAX_CLUSTER_BITS`).
        if !(9..=21).contains(&bits) {
            return Err(InvalidDisk::Absurd("clusters of a size that QEMU does not read"));
        }
        let cluster_bytes = 1_u64 << bits;
        let entry_bytes = if features(head)? & LONG_ENTRIES == 0 { 8 } else { 16 };
        let reached =
            u128::from(entries) * u128::from(cluster_bytes) * u128::from(cluster_bytes / entry_bytes);
        if virtual_bytes == 0 {
            return Err(InvalidDisk::Absurd("not one byte of disk"));
        }
        if entries * 8 > MOST_TABLE_BYTES || reached < u128::from(virtual_bytes) {
            return Err(InvalidDisk::Absurd("a disk that its tables do not reach"));
        }
        if at.checked_add(entries * 8).is_none_or(|end| end > file_bytes) {
            return Err(InvalidDisk::Short);
        }
        Ok(Self { virtual_bytes, cluster_bytes, entry_bytes, entries, at, file_bytes })
    }

    fn are_in_order(&self, file: &File) -> io::Result<Result<bool, InvalidDisk>> {
        let mut last = 0;
        let mut left = self.file_bytes / self.cluster_bytes;
        for first in words(file, self.at, self.entries * 8, 8)? {
            let table = first & OFFSET;
            if table == 0 {
                continue;
            }
            if left == 0 || table.saturating_add(self.cluster_bytes) > self.file_bytes {
                return Ok(Err(InvalidDisk::Absurd("tables that are not in the file")));
            }
            left -= 1;
            for second in words(file, table, self.cluster_bytes, self.entry_bytes)? {
                let offset = second & self.offset_bits(second);
                if offset != 0 && offset < last {
                    return Ok(Ok(false));
                }
                last = last.max(offset);
            }
        }
        Ok(Ok(true))
    }

    /// The bits of an entry that are an offset; of a compressed cluster, the upper ones are its length.
    fn offset_bits(&self, entry: u64) -> u64 {
        let length_from = 62 - (self.cluster_bytes.trailing_zeros() - 8);
        if entry & COMPRESSED == 0 { OFFSET } else { (1 << length_from) - 1 }
    }
}

/// The first word of each entry of a table.
fn words(file: &File, at: u64, bytes: u64, entry_bytes: u64) -> io::Result<Vec<u64>> {
    let mut table = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut table, at)?;
    let entry_bytes = usize::try_from(entry_bytes).map_err(io::Error::other)?;
    Ok(table.chunks_exact(entry_bytes).map(|entry| number(&entry[..8])).collect())
}

fn number(field: &[u8]) -> u64 {
    field.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
}

fn big_endian(head: &[u8], at: usize, bytes: usize) -> Result<u64, InvalidDisk> {
    head.get(at..at + bytes).map(number).ok_or(InvalidDisk::Short)
}

/// The incompatible features, which version 2 has not.
fn features(head: &[u8]) -> Result<u64, InvalidDisk> {
    if big_endian(head, 4, 4)? == 3 { big_endian(head, 72, 8) } else { Ok(0) }
}

impl Format {
    /// The format of an image with this beginning; a qcow2 image is refused unless it stands alone.
    pub fn of(head: &[u8]) -> Result<Self, InvalidDisk> {
        if !head.starts_with(QCOW2_MAGIC) {
            return Ok(Self::Raw);
        }
        let version = big_endian(head, 4, 4)?;
        if !matches!(version, 2 | 3) {
            return Err(InvalidDisk::Version(version));
        }
        let features = features(head)?;
        let has = |bit: u64| features & bit != 0;
        let problems = [
            (big_endian(head, 8, 8)? != 0, InvalidDisk::Backed),
            (has(DATA_ELSEWHERE), InvalidDisk::DataElsewhere),
            (big_endian(head, 32, 4)? != 0, InvalidDisk::Encrypted),
            (big_endian(head, 60, 4)? != 0, InvalidDisk::Snapshots),
            (has(NOT_CLOSED), InvalidDisk::NotClosed),
            (has(CORRUPT), InvalidDisk::Corrupt),
            (has(!KNOWN), InvalidDisk::Features(features & !KNOWN)),
        ];
        match problems.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, problem)) => Err(problem),
            None => Ok(Self::Qcow2),
        }
    }

    /// Whether a file with this beginning is a disk that can be started: a qcow2 image, or one with a boot record.
    pub(crate) fn is_evident(head: &[u8]) -> bool {
        head.starts_with(QCOW2_MAGIC) || head.get(510..512) == Some(&[0x55, 0xaa])
    }

    /// The media type (shared-mime-info names these two).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Qcow2 => "application/x-qemu-disk",
            Self::Raw => "application/x-raw-disk-image",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Bytes of a sound header that are others.
    type Changes = [(usize, u8)];

    fn header(changes: &Changes) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        // Clusters of 64 KiB, a disk of 64 KiB, a table of the first level with one entry at 512.
        for (at, byte) in [(23, 16), (29, 1), (39, 1), (46, 2)] {
            head[at] = byte;
        }
        for (at, byte) in changes {
            head[*at] = *byte;
        }
        head
    }

    #[test]
    fn an_image_that_needs_another_file_or_is_not_sound_is_refused() {
        let cases: [(&Changes, Option<&str>); 12] = [
            (&[], None),
            (&[(7, 2), (79, 7)], None),
            (&[(7, 4)], Some("version 4")),
            (&[(14, 2)], Some("backing file")),
            (&[(63, 1)], Some("snapshots")),
            (&[(35, 2)], Some("encrypted")),
            (&[(79, 1)], Some("not closed")),
            (&[(79, 2)], Some("corrupt")),
            (&[(79, 4)], Some("another file")),
            (&[(79, 0x18)], None),
            (&[(79, 0x20)], Some("not known here: 0x20")),
            (&[(72, 0x80)], Some("not known here: 0x8000000000000000")),
        ];
        for (changes, problem) in cases {
            match (Format::of(&header(changes)), problem) {
                (Ok(format), None) => assert_eq!(format, Format::Qcow2),
                (Err(error), Some(problem)) => assert!(error.to_string().contains(problem), "{error}"),
                (other, _) => panic!("{changes:?}: {other:?}"),
            }
        }
        assert!(Format::of(&header(&[])[..40]).is_err());
        assert_eq!(Format::of(b"anything"), Ok(Format::Raw));
    }

    #[test]
    fn an_image_is_what_the_project_says_or_is_refused() {
        let mut boot = vec![0; HEAD_BYTES];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let qcow2 = Disk::of(&header(&[]), 65_536).unwrap();
        let raw = Disk::of(&boot, 1 << 20).unwrap();
        assert_eq!((qcow2.virtual_size_bytes, raw.virtual_size_bytes), (1 << 16, 1 << 20));
        let spec =
            |format, most: &str| DiskSpec { format, max_virtual: Some(most.to_owned()), firmware: None };
        for (disk, spec, problem) in [
            (qcow2, spec(DiskFormat::Qcow2, "64KiB"), None),
            (raw, spec(DiskFormat::Raw, "1MiB"), None),
            (qcow2, spec(DiskFormat::Qcow2, "63KiB"), Some("allows 64512")),
            (raw, spec(DiskFormat::Qcow2, "1GiB"), Some("is raw, and [artefact] disk says qcow2")),
        ] {
            let told = disk.fits(Some(&spec)).err().map(|error| error.to_string());
            assert_eq!(told.is_some(), problem.is_some(), "{told:?}");
            assert!(told.unwrap_or_default().contains(problem.unwrap_or_default()));
        }
        for (head, bytes, problem) in [
            (vec![0; HEAD_BYTES], 1 << 20, "neither a boot record"),
            (boot, 1000, "no whole sectors"),
            (header(&[(29, 0)]), 65_536, "not one byte of disk"),
            (header(&[(23, 8)]), 65_536, "clusters of a size"),
            (header(&[(23, 0xff), (20, 0xff)]), 65_536, "clusters of a size"),
            (header(&[(24, 0x7f)]), 65_536, "a disk that its tables do not reach"),
            (header(&[(36, 0xff)]), 65_536, "a disk that its tables do not reach"),
            (header(&[(40, 0xff)]), 65_536, "ends within its header"),
            (header(&[]), 519, "ends within its header"),
        ] {
            let told = Disk::of(&head, bytes).unwrap_err().to_string();
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn clusters_that_are_not_in_the_order_of_the_disk_are_noticed() {
        // Clusters and a disk of 512 bytes: header, table of the first level, table of the second, data.
        let image_with = |table: u64, offsets: [u64; 3]| {
            let mut bytes = header(&[(23, 9), (29, 0), (30, 2)]);
            bytes.resize(4096, 0);
            bytes[512..520].copy_from_slice(&table.to_be_bytes());
            for (at, offset) in offsets.into_iter().enumerate() {
                bytes[1024 + 8 * at..1032 + 8 * at].copy_from_slice(&offset.to_be_bytes());
            }
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&bytes).unwrap();
            is_in_order(file.path()).unwrap()
        };
        let image = |offsets| image_with(1024, offsets).unwrap();
        assert!(image([2048, 0, 3072]));
        assert!(image([2048, COMPRESSED | 1 << 61 | 2600, COMPRESSED | 2800]));
        assert!(!image([3072, 2048, 0]));
        assert!(!image([3072, COMPRESSED | 2600, 0]));
        for table in [3584 + 512, OFFSET] {
            let told = image_with(table, [0; 3]).unwrap_err().to_string();
            assert!(told.contains("tables that are not in the file"), "{told}");
        }
    }

    #[test]
    fn a_disk_is_known_by_its_header_or_its_boot_record() {
        let mut boot = vec![0; HEAD_BYTES];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(Format::is_evident(&boot) && Format::is_evident(&header(&[])));
        assert!(!Format::is_evident(&[0; HEAD_BYTES]) && !Format::is_evident(b"QF"));
    }
}

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
/// "Incompatible features": bits that a reader must not ignore.
const FEATURES: [(u32, &str); 3] = [
    (0, "was not closed properly: repair it with `qemu-img check -r all`"),
    (1, "is marked as corrupt"),
    (2, "keeps its data in another file: convert it with `qemu-img convert`"),
];

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
#[error("the disk image {0}")]
pub struct InvalidDisk(String);

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
        let mut head = Vec::new();
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        Ok(Self::of(&head, bytes))
    }

    fn of(head: &[u8], bytes: u64) -> Result<Self, InvalidDisk> {
        match Format::of(head)? {
            Format::Qcow2 => {
                let virtual_size_bytes = big_endian(head, 24, 8)?;
                if virtual_size_bytes == 0 {
                    return Err(InvalidDisk("is of a disk without a byte".into()));
                }
                Ok(Self { format: DiskFormat::Qcow2, virtual_size_bytes })
            }
            Format::Raw if !Format::is_evident(head) => {
                Err(InvalidDisk("begins with neither a boot record nor a partition table".into()))
            }
            Format::Raw if bytes % SECTOR != 0 => {
                Err(InvalidDisk(format!("has {bytes} bytes, which are no whole sectors of {SECTOR}")))
            }
            Format::Raw => Ok(Self { format: DiskFormat::Raw, virtual_size_bytes: bytes }),
        }
    }

    /// Whether it is what the project says.
    pub fn fits(&self, spec: Option<&DiskSpec>) -> Result<(), InvalidDisk> {
        let Some(spec) = spec else { return Ok(()) };
        let (is, should) = (self.format.as_str(), spec.format.as_str());
        if is != should {
            return Err(InvalidDisk(format!("is {is}, and [artefact] disk says {should}")));
        }
        match spec.max_virtual_bytes() {
            Some(most) if self.virtual_size_bytes > most => Err(InvalidDisk(format!(
                "is of a disk of {} bytes, and [artefact] disk max_virtual allows {most}",
                self.virtual_size_bytes
            ))),
            _ => Ok(()),
        }
    }
}

/// The fields of a qcow2 header that lead to its clusters.
struct Tables {
    cluster_bytes: u64,
    entries: u64,
    at: u64,
}

/// QEMU reads no larger table of the first level (`QCOW_MAX_L1_SIZE`), in bytes.
const MOST_TABLE_BYTES: u64 = 32 * 1024 * 1024;
/// "L1 table entry" and "L2 table entry": the bits of an offset, and the one that says that a cluster is compressed.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// Whether the clusters of a qcow2 image lie in the order of the disk. Where they do not, it was written in place, or by
/// several threads (`qemu-img convert -W`), and the same content written again may give other bytes.
pub fn is_in_order(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    let mut file = File::open(path)?;
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    if !head.starts_with(QCOW2_MAGIC) {
        return Ok(true);
    }
    let tables = Tables::of(&head).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut last = 0;
    for first in entries(&file, tables.at, tables.entries * 8)? {
        if first & OFFSET == 0 {
            continue;
        }
        for second in entries(&file, first & OFFSET, tables.cluster_bytes)? {
            let offset = second & tables.offset_bits(second);
            if offset != 0 && offset < last {
                return Ok(false);
            }
            last = last.max(offset);
        }
    }
    Ok(true)
}

impl Tables {
    fn of(head: &[u8]) -> Result<Self, InvalidDisk> {
        let (bits, entries, at) =
            (big_endian(head, 20, 4)?, big_endian(head, 36, 4)?, big_endian(head, 40, 8)?);
        // QEMU reads no others (`MIN_CLUSTER_BITS`, `MAX_CLUSTER_BITS`).
        if !(9..=21).contains(&bits) || entries * 8 > MOST_TABLE_BYTES {
            return Err(InvalidDisk("has tables of a size that QEMU does not read".into()));
        }
        Ok(Self { cluster_bytes: 1 << bits, entries, at })
    }

    /// The bits of an entry that are an offset; of a compressed cluster, the upper ones are its length.
    fn offset_bits(&self, entry: u64) -> u64 {
        let length_from = 62 - (self.cluster_bytes.trailing_zeros() - 8);
        if entry & COMPRESSED == 0 { OFFSET } else { (1 << length_from) - 1 }
    }
}

fn entries(file: &File, at: u64, bytes: u64) -> io::Result<impl Iterator<Item = u64> + use<>> {
    let mut table = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut table, at)?;
    let words: Vec<u64> = table.chunks_exact(8).map(number).collect();
    Ok(words.into_iter())
}

fn number(field: &[u8]) -> u64 {
    field.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
}

fn big_endian(head: &[u8], at: usize, bytes: usize) -> Result<u64, InvalidDisk> {
    let field = head.get(at..at + bytes).ok_or_else(|| InvalidDisk("ends within its header".into()))?;
    Ok(number(field))
}

impl Format {
    /// The format of an image with this beginning; a qcow2 image is refused unless it stands alone.
    pub fn of(head: &[u8]) -> Result<Self, InvalidDisk> {
        if !head.starts_with(QCOW2_MAGIC) {
            return Ok(Self::Raw);
        }
        let number = |at: usize, bytes: usize| big_endian(head, at, bytes);
        let version = number(4, 4)?;
        if !matches!(version, 2 | 3) {
            return Err(InvalidDisk(format!("has version {version}, which is neither 2 nor 3")));
        }
        if number(8, 8)? != 0 {
            return Err(InvalidDisk("lies on a backing file: convert it with `qemu-img convert`".into()));
        }
        if number(60, 4)? != 0 {
            return Err(InvalidDisk("has snapshots: remove them with `qemu-img snapshot -d`".into()));
        }
        if number(32, 4)? != 0 {
            return Err(InvalidDisk("is encrypted: its key would be configuration".into()));
        }
        let features = if version == 3 { number(72, 8)? } else { 0 };
        match FEATURES.iter().find(|(bit, _)| features >> bit & 1 == 1) {
            Some((_, problem)) => Err(InvalidDisk((*problem).to_owned())),
            None => Ok(Self::Qcow2),
        }
    }

    /// Whether a file with this beginning is a disk that can be started: a qcow2 image, or one with a boot record.
    pub fn is_evident(head: &[u8]) -> bool {
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
    use super::*;

    /// Bytes of a sound header that are others.
    type Changes = [(usize, u8)];

    fn header(changes: &Changes) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        for (at, byte) in changes {
            head[*at] = *byte;
        }
        head
    }

    #[test]
    fn an_image_that_needs_another_file_or_is_not_sound_is_refused() {
        let cases: [(&Changes, Option<&str>); 9] = [
            (&[], None),
            (&[(7, 2), (79, 7)], None),
            (&[(7, 4)], Some("version 4")),
            (&[(14, 2)], Some("backing file")),
            (&[(63, 1)], Some("snapshots")),
            (&[(35, 2)], Some("encrypted")),
            (&[(79, 1)], Some("not closed")),
            (&[(79, 2)], Some("corrupt")),
            (&[(79, 4)], Some("another file")),
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
        let qcow2 = Disk::of(&header(&[(29, 1)]), 65_536).unwrap();
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
            (header(&[]), 65_536, "without a byte"),
        ] {
            let told = Disk::of(&head, bytes).unwrap_err().to_string();
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn clusters_that_are_not_in_the_order_of_the_disk_are_noticed() {
        // Clusters of 512 bytes: header, table of the first level, table of the second, data.
        let image = |offsets: [u64; 3]| {
            let mut bytes = header(&[(23, 9), (39, 1), (46, 2)]);
            bytes.resize(4096, 0);
            bytes[512..520].copy_from_slice(&1024_u64.to_be_bytes());
            for (at, offset) in offsets.into_iter().enumerate() {
                bytes[1024 + 8 * at..1032 + 8 * at].copy_from_slice(&offset.to_be_bytes());
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            is_in_order(file.path()).unwrap()
        };
        assert!(image([2048, 0, 3072]));
        assert!(image([2048, COMPRESSED | 1 << 61 | 2600, COMPRESSED | 2800]));
        assert!(!image([3072, 2048, 0]));
        assert!(!image([3072, COMPRESSED | 2600, 0]));
    }

    #[test]
    fn a_disk_is_known_by_its_header_or_its_boot_record() {
        let mut boot = vec![0; HEAD_BYTES];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(Format::is_evident(&boot) && Format::is_evident(&header(&[])));
        assert!(!Format::is_evident(&[0; HEAD_BYTES]) && !Format::is_evident(b"QF"));
    }
}

//! Disk images of virtual machines: which format they have, and whether they are whole by themselves.
//!
//! Source: QEMU `docs/interop/qcow2.txt`. Only the header is read.

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
#[error("the qcow2 image {0}")]
pub struct InvalidDisk(String);

impl Format {
    /// The format of an image with this beginning; a qcow2 image is refused unless it stands alone.
    pub fn of(head: &[u8]) -> Result<Self, InvalidDisk> {
        if !head.starts_with(QCOW2_MAGIC) {
            return Ok(Self::Raw);
        }
        let number = |at: usize, bytes: usize| {
            let field =
                head.get(at..at + bytes).ok_or_else(|| InvalidDisk("ends within its header".into()))?;
            Ok(field.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
        };
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
        let cases: [(&Changes, Option<&str>); 8] = [
            (&[], None),
            (&[(7, 2), (79, 7)], None),
            (&[(7, 4)], Some("version 4")),
            (&[(14, 2)], Some("backing file")),
            (&[(63, 1)], Some("snapshots")),
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
    fn a_disk_is_known_by_its_header_or_its_boot_record() {
        let mut boot = vec![0; HEAD_BYTES];
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(Format::is_evident(&boot) && Format::is_evident(&header(&[])));
        assert!(!Format::is_evident(&[0; HEAD_BYTES]) && !Format::is_evident(b"QF"));
    }
}

//! Compression: how a layer is stored, what it holds, and how much that may be.
//!
//! Sources: image-spec 1.1, `media-types.md` and `layer.md`; RFC 1952 (gzip); RFC 8878 (Zstandard).

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Cursor, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::media_type;

/// How the tar file of a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// One gzip member, or several.
    Gzip,
    /// One Zstandard frame, or several: some builders write one for each file.
    Zstd,
}

impl Compression {
    /// By the media type of a layer; none: it is no tar file, or one that is not read here.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_LAYER_TAR
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Self::None),
            media_type::OCI_LAYER_GZIP
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => Some(Self::Gzip),
            media_type::OCI_LAYER_ZSTD
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// By the first [`MAGIC_BYTES`] of a file (RFC 1952, 2.3.1; RFC 8878, 3.1.1 and 3.1.2).
    pub fn of_bytes(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The media type of a layer that is stored so.
    pub const fn layer_type(self) -> &'static str {
        match self {
            Self::None => media_type::OCI_LAYER_TAR,
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// What the stored bytes hold, to the end of the last member or frame. It can be any number of times as long.
    ///
    /// # Errors
    /// When the bytes begin as those of another compression do, or there is no memory for a decoder. Reading fails where
    /// the bytes are broken, or break off.
    pub fn decode<'a, R: BufRead + 'a>(self, mut stored: R) -> io::Result<Box<dyn Read + 'a>> {
        let mut first = Vec::with_capacity(MAGIC_BYTES);
        stored.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut first)?;
        let found = Self::of_bytes(&first);
        if found != self {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Mislabelled { found, said: self }));
        }
        let stored = Cursor::new(first).chain(stored);
        Ok(match self {
            Self::None => Box::new(stored),
            Self::Gzip => Box::new(MultiGzDecoder::new(stored)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(stored)?),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "not compressed",
            Self::Gzip => "compressed with gzip",
            Self::Zstd => "compressed with Zstandard",
        })
    }
}

/// How many bytes say how a file is compressed.
pub const MAGIC_BYTES: usize = 4;

/// A layer that is stored otherwise than its media type says.
#[derive(Debug, thiserror::Error)]
#[error("it is {found}, and its media type says that it is {said}")]
struct Mislabelled {
    found: Compression,
    said: Compression,
}

/// How many times its own size a layer may become. Programs and texts become four times as long; what is all zeros, a
/// thousand times with gzip and twenty thousand times with Zstandard.
const GROWTH: u64 = 200;
/// What a small layer may become in any case, in bytes.
const LEAST_ROOM_BYTES: u64 = 256 << 20;

/// How long the tar file of a layer of so many stored bytes may be: whoever packs a layer keeps to it, and whoever unpacks
/// one takes what is longer for an attack.
pub fn most_bytes(stored_bytes: u64) -> u64 {
    stored_bytes.saturating_mul(GROWTH).max(LEAST_ROOM_BYTES)
}

/// The length of a block of a tar file, in bytes (POSIX.1-2017 `pax`, "ustar Interchange Format").
const TAR_BLOCK_BYTES: u64 = 512;

/// A tar file with the zeros that fill its last block, also where they are missing: some writers leave them out, `umoci insert`
/// among them, and what runs images takes that. A stream that breaks off within the content of an entry stays as it is.
#[derive(Debug)]
pub struct Padded<R> {
    tar: R,
    read: u64,
    content_end: Rc<Cell<u64>>,
}

impl<R> Padded<R> {
    /// `content_end` is to say, of the entry that is being read, where in the tar file its content ends, in bytes.
    pub fn new(tar: R, content_end: Rc<Cell<u64>>) -> Self {
        Self { tar, read: 0, content_end }
    }
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut some = self.tar.read(buffer)?;
        if some == 0 && self.read >= self.content_end.get() {
            let missing = self.read.next_multiple_of(TAR_BLOCK_BYTES) - self.read;
            some = usize::try_from(missing).expect("less than a block").min(buffer.len());
            buffer[..some].fill(0);
        }
        self.read += some as u64;
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    /// RFC 8878, 3.1.2.
    fn to_skip(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&0x184d_2a50_u32.to_le_bytes()[..], &length.to_le_bytes(), bytes].concat()
    }

    fn read_as(compression: Compression, stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        compression.decode(stored)?.read_to_end(&mut read).map(|_| read)
    }

    fn read(stored: &[u8]) -> io::Result<Vec<u8>> {
        read_as(Compression::Zstd, stored)
    }

    #[test]
    fn every_frame_is_read_and_what_is_to_be_skipped_is() {
        let long = vec![b'x'; 700_000];
        let stored = [frame(b"one "), to_skip(b"not this"), frame(b""), frame(&long), to_skip(b"")].concat();
        assert_eq!(read(&stored).unwrap(), [b"one ".as_slice(), &long].concat());
        assert_eq!(read(&[to_skip(b"first"), frame(b"one")].concat()).unwrap(), b"one");
    }

    #[test]
    fn what_breaks_off_or_is_something_else_is_an_error() {
        let whole = [frame(b"one"), to_skip(b"a comment"), frame(b"two")].concat();
        for end in [0, 5, frame(b"one").len() + 10, whole.len() - 2] {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        assert!(read(&[frame(b"one").as_slice(), b"and more"].concat()).is_err());
    }

    #[test]
    fn a_frame_that_wants_more_than_128_mib_of_memory_is_refused() {
        // RFC 8878, 3.1.1.1.2: a window of 2^(10 + exponent) bytes.
        let with_window = |exponent: u8| {
            let mut stored = frame(b"one");
            let header = [&stored[..4], &[0, exponent << 3]].concat();
            stored.splice(..6, header);
            read(&stored).map_err(|error| error.to_string())
        };
        assert_eq!(with_window(17), Ok(b"one".to_vec()));
        assert!(with_window(18).unwrap_err().contains("too much memory"));
    }

    #[test]
    fn a_stream_is_known_by_its_type_and_by_its_first_bytes() {
        let gzip = [0x1f, 0x8b, 8];
        for (media_type, first, compression) in [
            (media_type::OCI_LAYER_TAR, &b"app/"[..], Compression::None),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar", b"", Compression::None),
            (media_type::OCI_LAYER_GZIP, &gzip, Compression::Gzip),
            (media_type::OCI_LAYER_ZSTD, &frame(b"a"), Compression::Zstd),
            ("application/vnd.docker.image.rootfs.diff.tar.zstd", &to_skip(b"first"), Compression::Zstd),
        ] {
            assert_eq!(Compression::of_layer(media_type), Some(compression));
            assert_eq!(Compression::of_bytes(first), compression);
            assert_eq!(Compression::of_layer(compression.layer_type()), Some(compression));
        }
        assert_eq!(Compression::of_layer(media_type::HELM_CHART), None);
    }

    #[test]
    fn bytes_that_are_something_else_than_their_type_says_are_told_so() {
        let (zstd, gzip) = (frame(b"one"), [0x1f, 0x8b, 8, 0]);
        for (said, stored, expected) in [
            (
                Compression::Zstd,
                &gzip[..],
                "it is compressed with gzip, and its media type says that it is compressed with Zstandard",
            ),
            (
                Compression::Gzip,
                &zstd,
                "it is compressed with Zstandard, and its media type says that it is compressed with gzip",
            ),
            (
                Compression::None,
                &zstd,
                "it is compressed with Zstandard, and its media type says that it is not compressed",
            ),
            (
                Compression::Zstd,
                b"app/",
                "it is not compressed, and its media type says that it is compressed with Zstandard",
            ),
            (
                Compression::Gzip,
                b"",
                "it is not compressed, and its media type says that it is compressed with gzip",
            ),
        ] {
            assert_eq!(read_as(said, stored).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_small_layer_may_become_large_and_a_large_one_far_larger() {
        for (stored, most) in
            [(0, 256 << 20), (1 << 20, 256 << 20), (1 << 30, 200 << 30), (u64::MAX, u64::MAX)]
        {
            assert_eq!(most_bytes(stored), most, "{stored}");
        }
    }
}

//! Compression: how a layer is stored, and what it holds.
//!
//! Sources: image-spec 1.1, `media-types.md` and `layer.md`; RFC 1952 (gzip); RFC 8878 (Zstandard).

use std::io::{self, BufRead, Read};

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

    /// By the first bytes of a file (RFC 1952, 2.3.1; RFC 8878, 3.1.1).
    pub fn of_bytes(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What the stored bytes hold, to the end of the last member or frame. It can be any number of times as long.
    ///
    /// # Errors
    /// When there is no memory for a decoder. Reading fails where the bytes are broken, or break off.
    pub fn decode<'a, R: BufRead + 'a>(self, stored: R) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(stored),
            Self::Gzip => Box::new(MultiGzDecoder::new(stored)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(stored)?),
        })
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

    fn read(stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        Compression::Zstd.decode(stored)?.read_to_end(&mut read).map(|_| read)
    }

    #[test]
    fn every_frame_is_read_and_what_is_to_be_skipped_is() {
        let long = vec![b'x'; 700_000];
        let stored = [frame(b"one "), to_skip(b"not this"), frame(b""), frame(&long), to_skip(b"")].concat();
        assert_eq!(read(&stored).unwrap(), [b"one ".as_slice(), &long].concat());
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
            (media_type::OCI_LAYER_GZIP, &gzip, Compression::Gzip),
            (media_type::OCI_LAYER_ZSTD, &frame(b"a"), Compression::Zstd),
        ] {
            assert_eq!(Compression::of_layer(media_type), Some(compression));
            assert_eq!(Compression::of_bytes(first), compression);
        }
        assert_eq!(Compression::of_layer(media_type::HELM_CHART), None);
        assert_eq!(Compression::of_bytes(b""), Compression::None);
    }
}

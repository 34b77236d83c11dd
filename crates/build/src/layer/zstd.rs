//! Zstd: all frames of a Zstandard stream, of which some builders write one for each file.
//!
//! Source: RFC 8878, 3.1. Frames that are to be skipped (3.1.2) are.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Reads what the frames hold, one after the other.
pub(super) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether the decoder is inside a frame.
    inside: bool,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), inside: false }
    }

    /// Begins the next frame; `false`: there is none.
    fn enter(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(error) => match skipped(&error) {
                    Some(length) => self.skip(length)?,
                    None => return Err(io::Error::other(error)),
                },
            }
        }
        Ok(false)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let some = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
        if some == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The length of a frame that is to be skipped, in bytes.
fn skipped(error: &FrameDecoderError) -> Option<u64> {
    match error {
        FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. }) => {
            Some(u64::from(*length))
        }
        _ => None,
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside && !self.enter()? {
                return Ok(0);
            }
            self.inside = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            }
            let some = self.decoder.read(buffer)?;
            if some > 0 {
                return Ok(some);
            }
            self.inside = !self.decoder.is_finished();
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn frame(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    /// RFC 8878, 3.1.2.
    fn to_skip(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&0x184d_2a50_u32.to_le_bytes()[..], &length.to_le_bytes(), bytes].concat()
    }

    fn read(stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        Frames::new(stored).read_to_end(&mut read).map(|_| read)
    }

    #[test]
    fn every_frame_is_read_and_what_is_to_be_skipped_is() {
        let long = vec![b'x'; 700_000];
        let stored = [frame(b"one "), to_skip(b"not this"), frame(b""), frame(&long), to_skip(b"")].concat();
        assert_eq!(read(&stored).unwrap(), [b"one ".as_slice(), &long].concat());
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn what_breaks_off_or_is_something_else_is_an_error() {
        let whole = [frame(b"one"), to_skip(b"a comment"), frame(b"two")].concat();
        for end in [5, frame(b"one").len() + 10, whole.len() - 2] {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        assert!(read(&[frame(b"one").as_slice(), b"and more"].concat()).is_err());
    }
}

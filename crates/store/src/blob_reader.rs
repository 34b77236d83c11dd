//! Reading a part of a blob, at the speed of the page cache and in the memory of one buffer.
//!
//! What the page cache has is read where the reader is polled, without a thread in between; only what must come from the disk
//! goes through the pool of blocking threads. A piece that its receiver is done with gives its buffer back for the next one.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::JoinHandle;

/// How many bytes a piece has at most.
pub(crate) const PIECE_BYTES: usize = 128 * 1024;

/// A part of a blob as a stream of pieces. A file that ends before the part does is an error, not an end.
pub struct BlobReader {
    file: Arc<File>,
    position: u64,
    remaining: u64,
    /// The buffer of the last piece, free again when the receiver has dropped it.
    buffer: Arc<Vec<u8>>,
    /// Whether the file system tells what is in the page cache.
    tells: bool,
    reading: Option<JoinHandle<io::Result<Piece>>>,
}

impl BlobReader {
    /// Reads `length` bytes of a file from `start` on.
    pub(crate) fn new(file: File, start: u64, length: u64) -> Self {
        Self {
            file: Arc::new(file),
            position: start,
            remaining: length,
            buffer: Arc::default(),
            tells: true,
            reading: None,
        }
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// A buffer for the next piece: that of the last one, unless somebody still has it.
    fn take_buffer(&mut self) -> Vec<u8> {
        let length = PIECE_BYTES.min(usize::try_from(self.remaining).unwrap_or(PIECE_BYTES));
        let mut buffer = Arc::try_unwrap(std::mem::take(&mut self.buffer)).unwrap_or_default();
        if buffer.len() < length {
            buffer = vec![0; length];
        }
        buffer
    }

    /// The next piece, if the page cache has it.
    fn read_cached(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.tells {
            return Ok(None);
        }
        match cached(&self.file, buffer, self.position) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.tells = false;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn deliver(&mut self, piece: Piece) -> io::Result<Bytes> {
        if piece.length == 0 {
            let text = format!("the file ends {} bytes too early", self.remaining);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.position += piece.length as u64;
        self.remaining -= piece.length as u64;
        self.buffer = Arc::clone(&piece.buffer);
        Ok(Bytes::from_owner(piece))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Piece>> {
        if self.reading.is_none() {
            let mut buffer = self.take_buffer();
            let wanted = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            if let Some(length) = self.read_cached(&mut buffer[..wanted])? {
                return Poll::Ready(Ok(Piece { buffer: Arc::new(buffer), length }));
            }
            let (file, position) = (Arc::clone(&self.file), self.position);
            let read = move || {
                let length = from_disk(&file, &mut buffer[..wanted], position)?;
                Ok(Piece { buffer: Arc::new(buffer), length })
            };
            self.reading = Some(tokio::task::spawn_blocking(read));
        }
        let reading = self.reading.as_mut().expect("it was begun above, unless it was under way");
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other).flatten())
    }
}

impl Stream for BlobReader {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let delivered = ready!(this.poll_piece(cx)).and_then(|piece| this.deliver(piece));
        if delivered.is_err() {
            this.remaining = 0;
        }
        Poll::Ready(Some(delivered))
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, remaining, .. } = self;
        f.debug_struct("BlobReader").field("position", position).field("remaining", remaining).finish()
    }
}

/// The first bytes of a buffer that is shared with the reader.
struct Piece {
    buffer: Arc<Vec<u8>>,
    length: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Reads what is in the page cache, or says that it would have to wait.
#[cfg(target_os = "linux")]
fn cached(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};
    let read = || preadv2(file, &mut [io::IoSliceMut::new(buffer)], position, ReadWriteFlags::NOWAIT);
    retry_on_intr(read).map_err(|error| match error {
        // File systems and kernels say in several ways that they cannot tell.
        Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP => io::ErrorKind::Unsupported.into(),
        other => other.into(),
    })
}

#[cfg(not(target_os = "linux"))]
fn cached(_file: &File, _buffer: &mut [u8], _position: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

fn from_disk(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::StreamExt as _;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    async fn all(mut reader: BlobReader) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        while let Some(piece) = reader.next().await {
            read.extend_from_slice(&piece?);
        }
        Ok(read)
    }

    #[tokio::test]
    async fn every_part_is_read_as_it_lies_in_the_file() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let size = bytes.len();
        for (start, length) in [(0, size), (0, 0), (0, 1), (7, 130_000), (size - 1, 1), (size, 0)] {
            for tells in [true, false] {
                let mut reader = BlobReader::new(file_of(&bytes), start as u64, length as u64);
                reader.tells = tells;
                assert_eq!(all(reader).await.unwrap(), &bytes[start..start + length], "{start} {length}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error() {
        let reader = BlobReader::new(file_of(b"semel"), 2, 10);
        assert_eq!(all(reader).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_piece_that_is_kept_stays_as_it_is_and_one_that_is_dropped_gives_its_buffer_back() {
        let bytes: Vec<u8> = (0..4 * PIECE_BYTES).map(|n| (n / PIECE_BYTES) as u8).collect();
        let mut reader = BlobReader::new(file_of(&bytes), 0, bytes.len() as u64);
        let kept = reader.next().await.unwrap().unwrap();
        let second = reader.next().await.unwrap().unwrap();
        let place = second.as_ptr();
        drop(second);
        let third = reader.next().await.unwrap().unwrap();
        assert_eq!((third.as_ptr(), third[0]), (place, 2));
        assert!(kept.iter().all(|byte| *byte == 0));
    }
}

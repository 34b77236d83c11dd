//! The compressed bytes of packaging format 1, made by several threads.
//!
//! ```text
//! writer ─ blocks of 1 MiB ─┬─► compressors, any number ─┐
//!                           └─► sealer: hashes the block, ◄┘ takes what came of it, hashes and writes that, in order
//! ```
//!
//! These bytes are frozen. Each MiB of the input is compressed by itself, so they depend on the input alone: not on how
//! many threads there are, nor on the pieces in which it comes.
//!
//! - *gzip*: one member (RFC 1952) holds one deflate stream (RFC 1951). Each block has the 32 KiB before it as dictionary,
//!   and ends on a byte ("sync flush"); the last one ends the stream. Decision 14 says why the level is what it is.
//! - *Zstandard*: each block is a frame (RFC 8878, 3.1.1) with its length and its checksum. Decision 22.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Crc, FlushCompress, Status};
use semel_model::digest::{Algorithm, Digest, Hasher};
use semel_model::project::Compression;

/// The level of the deflate implementation that the workspace holds at one version.
const DEFLATE_LEVEL: u32 = 3;
/// The level of the Zstandard implementation that the workspace holds at one version.
const ZSTD_LEVEL: i32 = 2;
/// How many bytes are compressed by themselves.
const BLOCK: usize = 1024 * 1024;
/// How far back deflate can point (RFC 1951, 2).
const WINDOW: usize = 32 * 1024;
/// More threads than this wait for the one that reads, and each holds some MiB.
const MOST_THREADS: usize = 16;
/// RFC 1952, 2.3: no name, no time, no flags, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses what is written to it, and hashes it before and after.
pub(crate) struct Compressor<W> {
    compression: Compression,
    block: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    jobs: SyncSender<Job>,
    pending: SyncSender<Pending>,
    sealer: Option<JoinHandle<io::Result<Compressed<W>>>>,
}

/// What came out.
pub(crate) struct Compressed<W> {
    /// Where the bytes were written to; not flushed.
    pub(crate) inner: W,
    /// The digest of the bytes that were written in.
    pub(crate) plain: Digest,
    /// How many of them there were.
    pub(crate) plain_size: u64,
    /// The digest of the compressed bytes.
    pub(crate) digest: Digest,
    /// How many compressed bytes there are.
    pub(crate) size: u64,
}

/// One block to compress.
struct Job {
    compression: Compression,
    before: Option<Arc<Vec<u8>>>,
    block: Arc<Vec<u8>>,
    is_last: bool,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// One block that is being compressed.
struct Pending {
    block: Arc<Vec<u8>>,
    compressed: Receiver<io::Result<Vec<u8>>>,
}

impl<W: Write + Send + 'static> Compressor<W> {
    /// Begins a stream that at most so many threads compress. They end with it, also when it is dropped.
    pub(crate) fn new(inner: W, compression: Compression, threads: NonZeroUsize) -> Self {
        let threads = threads.get().min(MOST_THREADS);
        let (jobs, to_compress) = sync_channel(threads);
        let (pending, to_seal) = sync_channel(2 * threads);
        let to_compress = Arc::new(Mutex::new(to_compress));
        for _ in 0..threads {
            let to_compress = Arc::clone(&to_compress);
            thread::spawn(move || compress_blocks(&to_compress));
        }
        let sealer = thread::spawn(move || Sealer::new(inner, compression).run(&to_seal));
        let block = Vec::with_capacity(BLOCK);
        Self { compression, block, before: None, jobs, pending, sealer: Some(sealer) }
    }

    /// Takes at most so many bytes from a reader, and says how many there were.
    pub(crate) fn take_from(&mut self, from: &mut impl Read, size_bytes: u64) -> io::Result<u64> {
        let mut left = size_bytes;
        while left > 0 {
            self.make_room()?;
            let room = (BLOCK - self.block.len()) as u64;
            let some = from.take(room.min(left)).read_to_end(&mut self.block)? as u64;
            if some == 0 {
                break;
            }
            left -= some;
        }
        Ok(size_bytes - left)
    }

    /// Hands the block over when it is full. A full one waits for more, because the last one may be empty only where it
    /// is the only one.
    fn make_room(&mut self) -> io::Result<()> {
        if self.block.len() == BLOCK { self.hand_over(false) } else { Ok(()) }
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> io::Result<Compressed<W>> {
        self.hand_over(true)?;
        self.sealed()
    }

    fn hand_over(&mut self, is_last: bool) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        let (done, compressed) = sync_channel(1);
        let before = self.before.replace(Arc::clone(&block));
        let job = Job { compression: self.compression, before, block: Arc::clone(&block), is_last, done };
        let sent = self.jobs.send(job).is_ok() && self.pending.send(Pending { block, compressed }).is_ok();
        // The sealer stops taking blocks only when it could not write one.
        if sent { Ok(()) } else { self.sealed().map(drop) }
    }

    fn sealed(&mut self) -> io::Result<Compressed<W>> {
        let sealer = self.sealer.take().ok_or_else(|| io::Error::other("the stream has failed before"))?;
        (self.jobs, self.pending) = (sync_channel(0).0, sync_channel(0).0);
        sealer.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the compression panicked")))
    }
}

impl<W: Write + Send + 'static> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.make_room()?;
        let some = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses until there are no more blocks.
fn compress_blocks(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Nobody waits for it when the stream was given up.
        drop(job.done.send(job.compress()));
    }
}

impl Job {
    fn compress(&self) -> io::Result<Vec<u8>> {
        match self.compression {
            Compression::Gzip => {
                let before = self.before.as_ref().map_or(&[][..], |before| before.as_slice());
                deflate(before, &self.block, self.is_last)
            }
            Compression::Zstd => frame(&self.block),
        }
    }
}

fn deflate(before: &[u8], block: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
    // Made anew: after `reset`, what it did before shows in the bytes.
    let mut deflate = Compress::new(flate2::Compression::new(DEFLATE_LEVEL), false);
    if !before.is_empty() {
        deflate.set_dictionary(&before[before.len().saturating_sub(WINDOW)..])?;
    }
    // Room for the worst case, so that there is one call, whose output depends on its input alone.
    let mut deflated = Vec::with_capacity(block.len() + block.len() / 8 + 1024);
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let status = deflate.compress_vec(block, &mut deflated, flush)?;
    let whole = if is_last { Status::StreamEnd } else { Status::Ok };
    if status != whole || deflated.len() == deflated.capacity() {
        return Err(io::Error::other("deflate took more room than its input needs at most"));
    }
    Ok(deflated)
}

fn frame(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut frames = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    frames.include_contentsize(true)?;
    frames.include_checksum(true)?;
    frames.compress(block)
}

/// Puts the blocks together in their order.
struct Sealer<W> {
    inner: W,
    plain: Hasher,
    plain_size: u64,
    /// Of what a gzip member holds; a frame has its own.
    crc: Option<Crc>,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Sealer<W> {
    fn new(inner: W, compression: Compression) -> Self {
        let hasher = || Hasher::new(Algorithm::Sha256);
        let crc = (compression == Compression::Gzip).then(Crc::new);
        Self { inner, plain: hasher(), plain_size: 0, crc, hasher: hasher(), size: 0 }
    }

    fn run(mut self, blocks: &Receiver<Pending>) -> io::Result<Compressed<W>> {
        if self.crc.is_some() {
            self.put(&GZIP_HEADER)?;
        }
        while let Ok(Pending { block, compressed }) = blocks.recv() {
            self.plain.update(&block);
            self.plain_size += block.len() as u64;
            if let Some(crc) = &mut self.crc {
                crc.update(&block);
            }
            let lost = |_| io::Error::other("a thread of the compression panicked");
            self.put(&compressed.recv().map_err(lost)??)?;
        }
        if let Some(crc) = self.crc.take() {
            // RFC 1952, 2.3.1: CRC32 and ISIZE.
            self.put(&[crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat())?;
        }
        Ok(Compressed {
            inner: self.inner,
            plain: self.plain.finish(),
            plain_size: self.plain_size,
            digest: self.hasher.finish(),
            size: self.size,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

    fn compressed(compression: Compression, pieces: &[&[u8]], threads: usize) -> Compressed<Vec<u8>> {
        let mut to = Compressor::new(Vec::new(), compression, NonZeroUsize::new(threads).unwrap());
        for (at, piece) in pieces.iter().enumerate() {
            if at % 2 == 0 {
                to.write_all(piece).unwrap();
            } else {
                let taken = to.take_from(&mut &piece[..], piece.len() as u64).unwrap();
                assert_eq!(taken, piece.len() as u64);
            }
        }
        to.finish().unwrap()
    }

    /// Of gzip, what a reader finds that ends with the first member.
    fn read(compression: Compression, mut stored: &[u8]) -> Vec<u8> {
        let mut found = Vec::new();
        let read = match compression {
            Compression::Gzip => GzDecoder::new(stored).read_to_end(&mut found),
            Compression::Zstd => zstd::Decoder::new(&mut stored).unwrap().read_to_end(&mut found),
        };
        read.unwrap();
        found
    }

    /// Neither random nor the same all over.
    fn text(length: usize, seed: u32) -> Vec<u8> {
        let word = |n: u32| n.wrapping_mul(2_654_435_761).rotate_left(seed) % 977;
        (0..).flat_map(|n| format!("{} ", word(n / 3)).into_bytes()).take(length).collect()
    }

    #[test]
    fn a_reader_finds_what_was_written() {
        for length in [0, 1, WINDOW, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 77] {
            let input = text(length, 5);
            for compression in BOTH {
                let done = compressed(compression, &[&input], 2);
                assert!(read(compression, &done.inner) == input, "{compression:?} {length}");
                assert_eq!((done.plain, done.plain_size), (Digest::of(&input), length as u64));
                assert_eq!((done.digest, done.size), (Digest::of(&done.inner), done.inner.len() as u64));
            }
        }
    }

    #[test]
    fn zstandard_is_a_frame_for_each_block_that_says_how_long_it_is() {
        let done = compressed(Compression::Zstd, &[&text(2 * BLOCK + 5, 5)], 2);
        let mut stored = done.inner.as_slice();
        for length in [BLOCK, BLOCK, 5] {
            assert_eq!(zstd::zstd_safe::get_frame_content_size(stored).unwrap(), Some(length as u64));
            stored = &stored[zstd::zstd_safe::find_frame_compressed_size(stored).unwrap()..];
        }
        assert!(stored.is_empty());
    }

    #[test]
    fn a_byte_that_changed_is_noticed() {
        let input = text(BLOCK, 5);
        for compression in BOTH {
            let mut stored = compressed(compression, &[&input], 1).inner;
            let middle = stored.len() / 2;
            stored[middle] ^= 1;
            let read = semel_oci::compression::Compression::of_bytes(&stored)
                .decode(stored.as_slice())
                .and_then(|mut plain| plain.read_to_end(&mut Vec::new()));
            assert!(read.is_err(), "{compression:?}");
        }
    }

    #[test]
    fn bytes_that_cannot_be_compressed_fit_as_well() {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let input: Vec<u8> = (0..BLOCK / 4).flat_map(|_| random()).collect();
        for compression in BOTH {
            assert!(compressed(compression, &[&input], 2).size < input.len() as u64 + 2048);
        }
    }

    #[test]
    fn a_writer_that_fails_fails_the_stream() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in BOTH {
            let mut to = Compressor::new(Full, compression, NonZeroUsize::MIN);
            let written = to.write_all(&vec![0; 20 * BLOCK]).and_then(|()| to.finish().map(drop));
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_bytes_depend_neither_on_the_threads_nor_on_the_pieces(
            length in 0..5 * BLOCK, seed in 0_u32..32, threads in 1_usize..9, cuts in proptest::collection::vec(1..2 * BLOCK, 0..9),
        ) {
            let input = text(length, seed);
            let (mut pieces, mut rest) = (Vec::new(), input.as_slice());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            for compression in BOTH {
                let digest = |pieces: &[&[u8]], threads| compressed(compression, pieces, threads).digest;
                prop_assert_eq!(digest(&pieces, threads), digest(&[&input], 1));
            }
        }
    }
}

//! The gzip bytes of packaging format 1, made by several threads.
//!
//! ```text
//! writer ─ blocks of 1 MiB ─┬─► compressors, any number ─┐
//!                           └─► sealer: hashes the block, ◄┘ takes its deflate bytes, hashes and writes them, in order
//! ```
//!
//! These bytes are frozen. One gzip member (RFC 1952) holds one deflate stream (RFC 1951). Each MiB of the input is
//! compressed by itself, with the 32 KiB before it as dictionary, and ends on a byte ("sync flush"); the last one ends the
//! stream. So the bytes depend on the input alone: not on how many threads there are, nor on the pieces in which it comes.
//! Decision 14 says why the level is what it is.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use semel_model::digest::{Algorithm, Digest, Hasher};

/// The level of the deflate implementation that the workspace holds at one version.
const LEVEL: u32 = 3;
/// How many bytes are compressed by themselves.
const BLOCK: usize = 1024 * 1024;
/// How far back deflate can point (RFC 1951, 2).
const WINDOW: usize = 32 * 1024;
/// More threads than this wait for the one that reads, and each holds some MiB.
const MOST_THREADS: usize = 16;
/// RFC 1952, 2.3: no name, no time, no flags, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses what is written to it, and hashes it before and after.
pub(crate) struct Gzip<W> {
    block: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    jobs: SyncSender<Job>,
    pending: SyncSender<Pending>,
    sealer: Option<JoinHandle<io::Result<Gzipped<W>>>>,
}

/// What came out.
pub(crate) struct Gzipped<W> {
    /// Where the bytes were written to; not flushed.
    pub(crate) inner: W,
    /// The digest of the bytes that were written in.
    pub(crate) plain: Digest,
    /// The digest of the compressed bytes.
    pub(crate) digest: Digest,
    /// How many compressed bytes there are.
    pub(crate) size: u64,
}

/// One block to compress.
struct Job {
    before: Option<Arc<Vec<u8>>>,
    block: Arc<Vec<u8>>,
    is_last: bool,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// One block that is being compressed.
struct Pending {
    block: Arc<Vec<u8>>,
    deflated: Receiver<io::Result<Vec<u8>>>,
}

impl<W: Write + Send + 'static> Gzip<W> {
    /// Begins a stream that at most so many threads compress. They end with it, also when it is dropped.
    pub(crate) fn new(inner: W, threads: NonZeroUsize) -> Self {
        let threads = threads.get().min(MOST_THREADS);
        let (jobs, to_compress) = sync_channel(threads);
        let (pending, to_seal) = sync_channel(2 * threads);
        let to_compress = Arc::new(Mutex::new(to_compress));
        for _ in 0..threads {
            let to_compress = Arc::clone(&to_compress);
            thread::spawn(move || compress_blocks(&to_compress));
        }
        let sealer = thread::spawn(move || Sealer::new(inner).run(&to_seal));
        Self { block: Vec::with_capacity(BLOCK), before: None, jobs, pending, sealer: Some(sealer) }
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
    pub(crate) fn finish(mut self) -> io::Result<Gzipped<W>> {
        self.hand_over(true)?;
        self.sealed()
    }

    fn hand_over(&mut self, is_last: bool) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        let (done, deflated) = sync_channel(1);
        let before = self.before.replace(Arc::clone(&block));
        let job = Job { before, block: Arc::clone(&block), is_last, done };
        let sent = self.jobs.send(job).is_ok() && self.pending.send(Pending { block, deflated }).is_ok();
        // The sealer stops taking blocks only when it could not write one.
        if sent { Ok(()) } else { self.sealed().map(drop) }
    }

    fn sealed(&mut self) -> io::Result<Gzipped<W>> {
        let sealer = self.sealer.take().ok_or_else(|| io::Error::other("the stream has failed before"))?;
        (self.jobs, self.pending) = (sync_channel(0).0, sync_channel(0).0);
        sealer.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the compression panicked")))
    }
}

impl<W: Write + Send + 'static> Write for Gzip<W> {
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
        let before = job.before.as_ref().map_or(&[][..], |before| before.as_slice());
        let deflated = compress_block(before, &job.block, job.is_last);
        // Nobody waits for it when the stream was given up.
        drop(job.done.send(deflated));
    }
}

fn compress_block(before: &[u8], block: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
    // Made anew: after `reset`, what it did before shows in the bytes.
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
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

/// Puts the blocks together in their order.
struct Sealer<W> {
    inner: W,
    plain: Hasher,
    crc: Crc,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Sealer<W> {
    fn new(inner: W) -> Self {
        let hasher = || Hasher::new(Algorithm::Sha256);
        Self { inner, plain: hasher(), crc: Crc::new(), hasher: hasher(), size: 0 }
    }

    fn run(mut self, blocks: &Receiver<Pending>) -> io::Result<Gzipped<W>> {
        self.put(&HEADER)?;
        while let Ok(Pending { block, deflated }) = blocks.recv() {
            self.plain.update(&block);
            self.crc.update(&block);
            let lost = |_| io::Error::other("a thread of the compression panicked");
            self.put(&deflated.recv().map_err(lost)??)?;
        }
        // RFC 1952, 2.3.1: CRC32 and ISIZE.
        let trailer = [self.crc.sum().to_le_bytes(), self.crc.amount().to_le_bytes()].concat();
        self.put(&trailer)?;
        Ok(Gzipped {
            inner: self.inner,
            plain: self.plain.finish(),
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

    fn gzipped(pieces: &[&[u8]], threads: usize) -> Gzipped<Vec<u8>> {
        let mut gzip = Gzip::new(Vec::new(), NonZeroUsize::new(threads).unwrap());
        for (at, piece) in pieces.iter().enumerate() {
            if at % 2 == 0 {
                gzip.write_all(piece).unwrap();
            } else {
                let taken = gzip.take_from(&mut &piece[..], piece.len() as u64).unwrap();
                assert_eq!(taken, piece.len() as u64);
            }
        }
        gzip.finish().unwrap()
    }

    /// Neither random nor the same all over.
    fn text(length: usize, seed: u32) -> Vec<u8> {
        let word = |n: u32| n.wrapping_mul(2_654_435_761).rotate_left(seed) % 977;
        (0..).flat_map(|n| format!("{} ", word(n / 3)).into_bytes()).take(length).collect()
    }

    #[test]
    fn another_reader_finds_one_stream_with_what_was_written() {
        for length in [0, 1, WINDOW, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 77] {
            let input = text(length, 5);
            let done = gzipped(&[&input], 2);
            let mut found = Vec::new();
            GzDecoder::new(done.inner.as_slice()).read_to_end(&mut found).unwrap();
            assert!(found == input, "{length}");
            assert_eq!(done.plain, Digest::of(&input));
            assert_eq!((done.digest, done.size), (Digest::of(&done.inner), done.inner.len() as u64));
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
        assert!(gzipped(&[&input], 2).size < input.len() as u64 + 2048);
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
        let mut gzip = Gzip::new(Full, NonZeroUsize::MIN);
        let written = gzip.write_all(&vec![0; 20 * BLOCK]).and_then(|()| gzip.finish().map(drop));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
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
            prop_assert_eq!(gzipped(&pieces, threads).digest, gzipped(&[&input], 1).digest);
        }
    }
}

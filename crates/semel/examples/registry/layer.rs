//! Large content that is made as it is sent: one block again and again, and a number at the end that makes it its own.

use std::borrow::Cow;
use std::sync::Arc;

use semel_model::digest::{Algorithm, Digest, Hasher};

use crate::content::block;

/// How much is sent at once, and in one chunk of a stream.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// The number at the end.
const STAMP_BYTES: u64 = 8;

/// Contents of one size that differ only in their numbers. Knows their hash but for the end.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    size: u64,
    piece: Arc<Vec<u8>>,
    begun: Hasher,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    piece: Arc<Vec<u8>>,
    stamp: [u8; STAMP_BYTES as usize],
}

impl Layers {
    /// Hashes all but the end, on one processor.
    pub(crate) fn new(size: u64) -> Self {
        let mut piece = block();
        piece.truncate(PIECE_BYTES);
        let (whole, rest) = before_stamp(size, &piece);
        let mut begun = Hasher::new(Algorithm::Sha256);
        (0..whole).for_each(|_| begun.update(&piece));
        begun.update(rest);
        Self { size, begun, piece: Arc::new(piece) }
    }

    pub(crate) fn number(&self, number: u64) -> Layer {
        let stamp = number.to_be_bytes();
        let mut hasher = self.begun.clone();
        hasher.update(&stamp);
        Layer { digest: hasher.finish(), size: self.size, piece: Arc::clone(&self.piece), stamp }
    }
}

impl Layer {
    /// The content in pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let (times, whole, last) = self.parts();
        std::iter::repeat_n(Cow::Borrowed(whole), times).chain(std::iter::once(Cow::Owned(last)))
    }

    /// How many times it has which piece, and what comes after that.
    pub(crate) fn parts(&self) -> (usize, &[u8], Vec<u8>) {
        let (times, rest) = before_stamp(self.size, &self.piece);
        (times, &self.piece, [rest, &self.stamp].concat())
    }
}

/// All of a content but its number: how many whole pieces, and what is left.
fn before_stamp(size: u64, piece: &[u8]) -> (usize, &[u8]) {
    let (length, piece_bytes) = (size - STAMP_BYTES, piece.len() as u64);
    let rest = usize::try_from(length % piece_bytes).expect("shorter than a piece");
    (usize::try_from(length / piece_bytes).expect("a process can count its pieces"), &piece[..rest])
}

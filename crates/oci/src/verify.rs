//! Reading bytes that prove themselves: a reader that fails unless they are the ones that a digest names.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use semel_model::digest::{Digest, Hasher};
use tokio::io::{AsyncRead, ReadBuf};

use crate::error::cause;

/// Bytes are not what their digest and size say. The text names what was read, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(Box<Difference>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Difference {
    /// Other bytes, or fewer.
    #[error("{what} should be {expected}{} but is {found} ({found_size} bytes)", size_text(*.expected_size))]
    Content { what: String, expected: Digest, expected_size: Option<u64>, found: Digest, found_size: u64 },
    /// More bytes; how many, and with which digest, was not looked at.
    #[error("{what} should be {expected} ({expected_size} bytes) but is longer")]
    TooLong { what: String, expected: Digest, expected_size: u64 },
}

impl Mismatch {
    pub(crate) fn new(
        what: String,
        expected: Digest,
        expected_size: Option<u64>,
        found: Digest,
        found_size: u64,
    ) -> Self {
        Self(Box::new(Difference::Content { what, expected, expected_size, found, found_size }))
    }

    /// The digest that the bytes should have.
    pub fn expected(&self) -> &Digest {
        match &*self.0 {
            Difference::Content { expected, .. } | Difference::TooLong { expected, .. } => expected,
        }
    }

    /// The digest that they have; none when there were more bytes than expected, which are not read to the end.
    pub fn found(&self) -> Option<&Digest> {
        match &*self.0 {
            Difference::Content { found, .. } => Some(found),
            Difference::TooLong { .. } => None,
        }
    }

    /// Finds the mismatch in an error of a [`VerifyingReader`], also after it travelled through other readers.
    pub fn of(error: &io::Error) -> Option<&Self> {
        cause(error)
    }

    /// Checks bytes that are already in memory.
    pub fn check(
        what: &str,
        expected: &Digest,
        expected_size: Option<u64>,
        bytes: &[u8],
    ) -> Result<(), Self> {
        let found = Digest::of_with(expected.algorithm(), bytes);
        let found_size = bytes.len() as u64;
        if found == *expected && expected_size.is_none_or(|size| size == found_size) {
            return Ok(());
        }
        Err(Self::new(what.to_owned(), expected.clone(), expected_size, found, found_size))
    }
}

fn size_text(size: Option<u64>) -> String {
    size.map(|size| format!(" ({size} bytes)")).unwrap_or_default()
}

/// Hashes what passes through and fails with a [`Mismatch`] (as `InvalidData`) when it is not what it should be.
///
/// With a known size the check is made before the last bytes are handed out, so a consumer that counts bytes and
/// never reads to the end is protected too. Without one it is made at the end.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    what: String,
    expected: Digest,
    expected_size: Option<u64>,
    hasher: Option<Hasher>,
    read: u64,
}

impl<R> VerifyingReader<R> {
    /// Wraps a reader; `what` names it in the error.
    pub fn new(inner: R, what: impl Into<String>, expected: Digest, expected_size: Option<u64>) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self { inner, what: what.into(), expected, expected_size, hasher, read: 0 }
    }

    /// Compares what was read so far; says it at most once.
    fn conclude(&mut self) -> Result<(), Mismatch> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let found = hasher.finish();
        if found == self.expected && self.expected_size.is_none_or(|size| size == self.read) {
            return Ok(());
        }
        let (what, expected) = (self.what.clone(), self.expected.clone());
        Err(Mismatch::new(what, expected, self.expected_size, found, self.read))
    }

    fn take_in(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        self.read += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        match self.expected_size {
            Some(size) if self.read > size => Err(Mismatch(Box::new(Difference::TooLong {
                what: self.what.clone(),
                expected: self.expected.clone(),
                expected_size: size,
            }))),
            Some(size) if self.read == size => self.conclude(),
            _ => Ok(()),
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for VerifyingReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let checked = match &buf.filled()[before..] {
            [] => this.conclude(),
            bytes => this.take_in(bytes),
        };
        if let Err(mismatch) = checked {
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, mismatch)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read(bytes: &[u8], expected: &[u8], size: Option<u64>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        VerifyingReader::new(bytes, "x", Digest::of(expected), size).read_to_end(&mut out).await?;
        Ok(out)
    }

    #[tokio::test]
    async fn the_right_bytes_pass_with_or_without_a_known_size() {
        for content in [&b""[..], b"semel"] {
            for size in [None, Some(content.len() as u64)] {
                assert_eq!(read(content, content, size).await.unwrap(), content);
            }
        }
    }

    #[tokio::test]
    async fn wrong_missing_and_surplus_bytes_fail_and_say_what_was_found() {
        let cases: [(&[u8], Option<u64>, &str); 6] = [
            (b"semul", Some(5), "but is sha256:"),
            (b"semul", None, "but is sha256:"),
            (b"seme", Some(5), "(4 bytes)"),
            (b"", Some(5), "(0 bytes)"),
            (b"semel!", Some(5), "is longer"),
            (b"semel!", None, "(6 bytes)"),
        ];
        for (content, size, expected) in cases {
            let error = read(content, b"semel", size).await.unwrap_err();
            let wrapped = io::Error::other(io::Error::other(error));
            let mismatch = Mismatch::of(&wrapped).unwrap().to_string();
            assert!(
                mismatch.contains(expected) && mismatch.contains(Digest::of(b"semel").as_str()),
                "{mismatch}"
            );
        }
    }

    #[tokio::test]
    async fn a_consumer_that_never_reads_to_the_end_is_protected() {
        let mut reader = VerifyingReader::new(&b"semul"[..], "x", Digest::of(b"semel"), Some(5));
        let mut out = [0; 5];
        assert!(reader.read_exact(&mut out).await.is_err());
    }
}

//! The body of a request or an answer: a stream of bytes that is never held in memory as a whole.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt as _, Empty, Full};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

/// Any error that a body or a service may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A reader behind a pointer.
pub type BoxRead = Pin<Box<dyn AsyncRead + Send>>;

/// How many bytes are read at once from a file or another reader.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// A body that streams both ways.
pub struct Body(UnsyncBoxBody<Bytes, BoxError>);

/// Why a body could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than the caller is ready to hold in memory.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The most bytes that were accepted.
        limit: usize,
    },
    /// It broke off.
    #[error("the body broke off")]
    Read(#[source] BoxError),
}

impl Body {
    /// Takes in the body of another library.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(body.map_err(Into::into).boxed_unsync())
    }

    /// No bytes.
    pub fn empty() -> Self {
        Self::new(Empty::new())
    }

    /// Bytes that are in memory anyway.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(Full::new(bytes.into()))
    }

    /// What a reader gives. With a length, exactly that many bytes: fewer are an error, further ones are not read.
    pub fn from_reader(reader: impl AsyncRead + Send + 'static, length: Option<u64>) -> Self {
        let reader: BoxRead = Box::pin(reader);
        Self::new(ReaderBody {
            stream: ReaderStream::with_capacity(reader, CHUNK_BYTES),
            length,
            remaining: length,
        })
    }

    /// How many bytes there are, where that is known beforehand.
    pub(crate) fn exact_length(&self) -> Option<u64> {
        http_body::Body::size_hint(self).exact()
    }

    /// All bytes in memory, if there are at most `limit`.
    pub async fn collect_limited(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame.map_err(BodyError::Read)?.into_data() else { continue };
            if data.len() > limit - all.len() {
                return Err(BodyError::TooLarge { limit });
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    /// The bytes as a reader.
    pub fn into_async_read(self) -> BoxRead {
        Box::pin(StreamReader::new(ErrorsAsIo(BodyDataStream::new(self))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("exact_length", &self.exact_length()).finish()
    }
}

struct ReaderBody {
    stream: ReaderStream<BoxRead>,
    length: Option<u64>,
    remaining: Option<u64>,
}

impl http_body::Body for ReaderBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.remaining == Some(0) {
            return Poll::Ready(None);
        }
        let mut chunk = match ready!(Pin::new(&mut this.stream).poll_next(cx)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(this.ended_early().map(Err)),
        };
        if let Some(remaining) = &mut this.remaining {
            let most = usize::try_from(*remaining).unwrap_or(usize::MAX);
            chunk.truncate(most);
            *remaining -= chunk.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl ReaderBody {
    fn ended_early(&mut self) -> Option<io::Error> {
        let (length, missing) = (self.length?, self.remaining.take()?);
        let text = format!("the source ended after {} of {length} bytes", length - missing);
        Some(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

struct ErrorsAsIo(BodyDataStream<Body>);

impl Stream for ErrorsAsIo {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Pin::new(&mut self.0).poll_next(cx).map_err(|error| match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_reader_of_known_length_gives_exactly_that() {
        let body = Body::from_reader(&b"semel"[..], Some(3));
        assert_eq!(body.exact_length(), Some(3));
        assert_eq!(body.collect_limited(3).await.unwrap(), "sem");
        let error = Body::from_reader(&b"semel"[..], Some(7)).collect_limited(100).await.unwrap_err();
        assert!(matches!(error, BodyError::Read(cause) if cause.to_string().contains("5 of 7 bytes")));
        let body = Body::from_reader(&b"semel"[..], None);
        assert_eq!(body.exact_length(), None);
        assert_eq!(body.collect_limited(5).await.unwrap(), "semel");
    }

    #[tokio::test]
    async fn more_than_the_limit_is_not_collected() {
        let error = Body::full("semel").collect_limited(4).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 4 }));
        assert_eq!(Body::empty().collect_limited(0).await.unwrap(), "");
    }

    #[tokio::test]
    async fn errors_of_a_source_come_out_of_the_reader_as_they_are() {
        let mut out = Vec::new();
        let mut reader = Body::from_reader(&b"semel"[..], Some(7)).into_async_read();
        let error = reader.read_to_end(&mut out).await.unwrap_err();
        assert_eq!((error.kind(), &out[..]), (io::ErrorKind::UnexpectedEof, &b"semel"[..]));
    }
}

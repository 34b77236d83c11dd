//! The end of a connection whose client may still be sending.
//!
//! Whoever closes a socket in which unread bytes lie makes the system reset the connection, and a client that is still
//! sending its body never hears why it was refused. So the server first says that it sends no more, then throws away what still
//! comes, until the client closes too or has had its time (RFC 9112 §9.6).
//!
//! A client that has sent a part of a request's head may be sending the rest for ever. A server that is to stop answers what
//! has arrived whole, and takes what has not for the end.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// How long a client may go on sending after its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many bytes are thrown away at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Whether a connection's client has begun a request whose head is not here yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head(Arc<Reading>);

#[derive(Debug, Default)]
struct Reading {
    is_begun: AtomicBool,
    is_answering: AtomicBool,
}

impl Head {
    /// The head is here: what comes from now on belongs to the request's body, until it is [`Head::answered`].
    pub(crate) fn arrived(&self) {
        self.0.is_answering.store(true, Ordering::Relaxed);
        self.0.is_begun.store(false, Ordering::Relaxed);
    }

    /// What comes from now on begins another request.
    pub(crate) fn answered(&self) {
        self.0.is_answering.store(false, Ordering::Relaxed);
    }

    fn came(&self) {
        if !self.0.is_answering.load(Ordering::Relaxed) {
            self.0.is_begun.store(true, Ordering::Relaxed);
        }
    }

    fn is_begun(&self) -> bool {
        self.0.is_begun.load(Ordering::Relaxed)
    }
}

/// A connection that ends without losing the last answer, unless the server is to stop.
pub(crate) struct Lingering<S> {
    inner: S,
    stop: CancellationToken,
    head: Head,
    /// Runs once the server has said that it sends no more.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(inner: S, stop: CancellationToken, head: Head) -> Self {
        Self { inner, stop, head, patience: None }
    }
}

impl<S: AsyncRead + Unpin> Lingering<S> {
    /// Throws away what comes, until nothing more does.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [MaybeUninit::uninit(); PIECE_BYTES];
        loop {
            let mut piece = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece));
            if read.is_err() || piece.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if read.is_pending() && self.stop.is_cancelled() && self.head.is_begun() {
            // The rest of the head would be waited for: without it, this is where the client's words end.
            return Poll::Ready(Ok(()));
        }
        if buffer.filled().len() > before {
            self.head.came();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.patience.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.patience = Some(Box::pin(tokio::time::sleep(PATIENCE)));
        }
        let is_over = this.patience.as_mut().is_some_and(|patience| patience.as_mut().poll(cx).is_ready());
        if is_over || this.stop.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        this.poll_discard(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

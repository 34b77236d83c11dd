//! As much of HTTP/1.1 (RFC 9112) as it takes to measure a server: one connection that stays, one request after the other.
//!
//! The same for every server and as cheap as can be: bodies are read into one buffer and thrown away. What is not
//! expected is an error.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Error;

/// How much is read at once.
const BUFFER_BYTES: usize = 128 * 1024;
/// How much of a refusal is repeated.
const SHOWN_BYTES: usize = 400;

/// A connection, and how much went over it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of bodies that came in.
    pub(crate) received: u64,
    /// Bytes of bodies that went out.
    pub(crate) sent: u64,
}

/// What was asked, as far as the answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// With a `HEAD`, which is answered without a body.
    Head,
    /// With any other method.
    Other,
}

/// The head of an answer. Its body was read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: u64,
    pub(crate) location: Option<String>,
}

impl Connection {
    /// Connects, outside of any runtime.
    pub(crate) fn open(address: SocketAddr) -> Result<std::net::TcpStream, Error> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Takes the connection into the runtime of the caller.
    pub(crate) fn new(stream: std::net::TcpStream) -> Result<Self, Error> {
        let stream = TcpStream::from_std(stream)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], received: 0, sent: 0 })
    }

    /// Sends a request without a body, or the head of one.
    pub(crate) async fn send(&mut self, head: &[u8]) -> Result<(), Error> {
        Ok(self.stream.write_all(head).await?)
    }

    /// Sends a piece of a body, of which `counted` bytes are content.
    pub(crate) async fn send_body(&mut self, piece: &[u8], counted: u64) -> Result<(), Error> {
        self.stream.write_all(piece).await?;
        self.sent += counted;
        Ok(())
    }

    /// Reads an answer to its end. Another status than `expected` is an error with what the server says.
    pub(crate) async fn answer(&mut self, asked: Asked, expected: u16) -> Result<Answer, Error> {
        let (head_bytes, filled) = self.read_head().await?;
        let answer = parse(&self.buffer[..head_bytes])?;
        if answer.status != expected {
            let said = &self.buffer[..filled.min(SHOWN_BYTES)];
            return Err(format!("expected {expected}, got: {}", String::from_utf8_lossy(said)).into());
        }
        let body = if asked == Asked::Head { 0 } else { answer.length };
        self.discard(body, (filled - head_bytes) as u64).await?;
        Ok(answer)
    }

    /// Reads until the head is complete; how long it is, and how much was read.
    async fn read_head(&mut self) -> Result<(usize, usize), Error> {
        let mut filled = 0;
        loop {
            match self.stream.read(&mut self.buffer[filled..]).await? {
                0 => return Err("the connection was closed in the middle of an answer".into()),
                length => filled += length,
            }
            if let Some(end) = self.buffer[..filled].windows(4).position(|end| end == b"\r\n\r\n") {
                return Ok((end + 4, filled));
            }
            if filled == self.buffer.len() {
                return Err("the head of an answer has no end".into());
            }
        }
    }

    /// Reads a body of which a part is in the buffer already.
    async fn discard(&mut self, length: u64, have: u64) -> Result<(), Error> {
        let mut left = length.checked_sub(have).ok_or("a body is longer than it says")?;
        self.received += have;
        while left > 0 {
            let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.stream.read(&mut self.buffer[..most]).await? {
                0 => return Err(format!("a body ended {left} bytes early").into()),
                read => {
                    left -= read as u64;
                    self.received += read as u64;
                }
            }
        }
        Ok(())
    }
}

fn parse(head: &[u8]) -> Result<Answer, Error> {
    let text = std::str::from_utf8(head)?;
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let mut answer = Answer { status: status.ok_or("the answer is no HTTP/1.1")?, length: 0, location: None };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            answer.length = value.parse()?;
        } else if name.eq_ignore_ascii_case("location") {
            answer.location = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("transfer-encoding") && answer.status < 400 {
            return Err(format!("an answer in pieces has no length to check:\n{text}").into());
        }
    }
    Ok(answer)
}

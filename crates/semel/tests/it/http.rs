//! HTTP by hand: each request on a connection of its own, so that a test says exactly what is sent, and when.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

/// An answer, taken in whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head
            .lines()
            .find(|line| of(line))
            .and_then(|line| line.split_once(": "))
            .map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// Sends a request and takes the answer in.
pub(crate) fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = begin(address, method, path, headers, body.len())?;
    stream.write_all(body)?;
    receive(stream)
}

/// Sends the head of a request whose body is to follow.
pub(crate) fn begin(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: usize,
) -> io::Result<TcpStream> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n"
    );
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Takes the answer in. It ends with the connection; one that broke off before its time is an error.
pub(crate) fn receive(stream: TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    BufReader::new(stream).read_to_end(&mut bytes)?;
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(broken)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(broken)?;
    let answer = Answer { status, head, body: bytes.split_off(end + 4) };
    match answer.header("content-length").parse() {
        Ok(length) if answer.body.len() as u64 != length => Err(broken()),
        Ok::<u64, _>(_) | Err(_) => Ok(answer),
    }
}

//! Pushing, as the specification says it (OCI distribution-spec 1.1, "Push"): blobs in one piece or as a stream, manifests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use semel_oci::media_type;

use crate::Error;
use crate::http::{Asked, Connection};
use crate::layer::{Layer, Layers};
use crate::load::Work;

/// How a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// `POST`, then `PUT` with everything.
    Monolithic,
    /// `POST`, `PATCH` with everything in chunks and no range, `PUT` without a body: what Docker does.
    Streamed,
}

/// Pushes blobs of one size, every time another one.
#[derive(Debug)]
pub(crate) struct Pushes {
    pub(crate) server: SocketAddr,
    pub(crate) component: String,
    pub(crate) upload: Upload,
    pub(crate) layers: Layers,
    pub(crate) next: AtomicU64,
}

impl Work for Pushes {
    async fn once(&self, connection: &mut Connection) -> Result<(), Error> {
        let layer = self.layers.number(self.next.fetch_add(1, Ordering::Relaxed));
        blob(connection, self.server, &self.component, &layer, self.upload).await
    }
}

/// Pushes a blob.
pub(crate) async fn blob(
    connection: &mut Connection,
    server: SocketAddr,
    component: &str,
    layer: &Layer,
    upload: Upload,
) -> Result<(), Error> {
    let begin = format!("/v2/{component}/blobs/uploads/");
    connection.send(&head("POST", &begin, server, "Content-Length: 0\r\n")).await?;
    let mut place = place(connection.answer(Asked::Other, 202).await?.location)?;
    if upload == Upload::Streamed {
        let headers = "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n";
        connection.send(&head("PATCH", &place, server, headers)).await?;
        send_in_chunks(connection, layer).await?;
        place = self::place(connection.answer(Asked::Other, 202).await?.location)?;
    }
    let separator = if place.contains('?') { '&' } else { '?' };
    let end = format!("{place}{separator}digest={}", layer.digest);
    let length = if upload == Upload::Streamed { 0 } else { layer.size };
    let headers = format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n");
    let mut request = head("PUT", &end, server, &headers);
    let mut pieces = (upload == Upload::Monolithic).then(|| layer.pieces()).into_iter().flatten();
    // A small blob goes out together with the head, as clients with a buffer send it.
    let first = pieces.next().unwrap_or_default();
    request.extend_from_slice(&first);
    connection.send_body(&request, first.len() as u64).await?;
    for piece in pieces {
        connection.send_body(&piece, piece.len() as u64).await?;
    }
    connection.answer(Asked::Other, 201).await.map(drop)
}

/// Pushes a manifest under a tag or its digest.
pub(crate) async fn manifest(
    connection: &mut Connection,
    server: SocketAddr,
    component: &str,
    reference: &str,
    bytes: &[u8],
) -> Result<(), Error> {
    let path = format!("/v2/{component}/manifests/{reference}");
    let headers =
        format!("Content-Type: {}\r\nContent-Length: {}\r\n", media_type::OCI_MANIFEST, bytes.len());
    let request = [head("PUT", &path, server, &headers).as_slice(), bytes].concat();
    connection.send_body(&request, bytes.len() as u64).await?;
    connection.answer(Asked::Other, 201).await.map(drop)
}

/// The head of a request; `headers` end with a line break each.
pub(crate) fn head(method: &str, path: &str, server: SocketAddr, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\n{headers}\r\n").into_bytes()
}

/// Where an upload goes on: servers give a path, or the same with their address in front.
fn place(location: Option<String>) -> Result<String, Error> {
    let location = location.ok_or("an upload has no Location")?;
    let Some(rest) = location.strip_prefix("http://") else { return Ok(location) };
    let path = rest.find('/').ok_or("a Location has no path")?;
    Ok(rest[path..].to_owned())
}

/// The content in chunks (RFC 9112, section 7.1). The piece that comes again and again is framed once.
async fn send_in_chunks(connection: &mut Connection, layer: &Layer) -> Result<(), Error> {
    let (times, whole, last) = layer.parts();
    let framed = chunk(whole);
    for _ in 0..times {
        connection.send_body(&framed, whole.len() as u64).await?;
    }
    connection.send_body(&chunk(&last), last.len() as u64).await?;
    connection.send_body(b"0\r\n\r\n", 0).await
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
    framed.extend_from_slice(piece);
    framed.extend_from_slice(b"\r\n");
    framed
}

//! Fetching one thing again and again.

use std::net::SocketAddr;

use semel_oci::media_type;

use crate::Error;
use crate::http::{Asked, Connection};
use crate::load::Work;
use crate::push::head;

/// A request that is answered with 200 and as many bytes as are there.
#[derive(Debug)]
pub(crate) struct Fetch {
    request: Vec<u8>,
    asked: Asked,
    /// How long the content is, when that is known.
    length: Option<u64>,
}

impl Fetch {
    /// `GET` of a path with content of a known length.
    pub(crate) fn get(server: SocketAddr, path: &str, length: u64) -> Self {
        Self { request: request("GET", path, server), asked: Asked::Other, length: Some(length) }
    }

    /// `HEAD` of a path with content of a known length.
    pub(crate) fn head(server: SocketAddr, path: &str, length: u64) -> Self {
        Self { request: request("HEAD", path, server), asked: Asked::Head, length: Some(length) }
    }

    /// `GET` of a list, however long.
    pub(crate) fn list(server: SocketAddr, path: &str) -> Self {
        Self { request: request("GET", path, server), asked: Asked::Other, length: None }
    }
}

/// With the media type that `docker-registry` has to be told, so as not to convert.
fn request(method: &str, path: &str, server: SocketAddr) -> Vec<u8> {
    head(method, path, server, &format!("Accept: {}\r\n", media_type::OCI_MANIFEST))
}

impl Work for Fetch {
    async fn once(&self, connection: &mut Connection) -> Result<(), Error> {
        connection.send(&self.request).await?;
        let answer = connection.answer(self.asked, 200).await?;
        match self.length {
            Some(length) if length != answer.length => {
                Err(format!("expected {length} bytes, got {}", answer.length).into())
            }
            _ => Ok(()),
        }
    }
}

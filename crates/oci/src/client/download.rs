//! Downloads: a blob on its way here.

use std::io;

use bytes::{Buf as _, Bytes};
use futures_util::stream;
use http::header::{CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use semel_model::name::ComponentName;
use tokio_util::io::StreamReader;

use super::patience::Patience;
use super::{ClientError, RegistryClient, header_text};
use crate::descriptor::Descriptor;
use crate::route::Route;
use crate::transport::{Body, BodyError, BoxError, BoxRead};

impl RegistryClient {
    /// Reads a blob from a position on, and goes on where it was when the connection breaks (RFC 9110, 14.2 and
    /// 13.1.5). A part cannot be verified: who puts the whole together must do that.
    pub fn read_blob(&self, name: &ComponentName, blob: &Descriptor, offset: u64) -> BoxRead {
        let download = Download {
            client: self.clone(),
            operation: format!("fetch blob {} of {name}", blob.digest),
            uri: Route::Blob { name: name.clone(), digest: blob.digest.clone() }.to_string(),
            size: blob.size,
            position: offset,
            etag: None,
            answer: None,
            to_skip: 0,
            patience: self.patience(),
        };
        Box::pin(StreamReader::new(Box::pin(stream::try_unfold(download, Download::next))))
    }
}

/// A blob on its way here, from a position on.
struct Download {
    client: RegistryClient,
    operation: String,
    uri: String,
    size: u64,
    /// The next byte that is wanted.
    position: u64,
    /// What the first answer called these bytes: a rest of others is not asked for.
    etag: Option<HeaderValue>,
    answer: Option<Body>,
    /// How many bytes of the answer come before the wanted one.
    to_skip: u64,
    patience: Patience,
}

impl Download {
    /// The next bytes, however many attempts they take.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while self.position < self.size {
            match self.piece().await {
                Ok(piece) => {
                    self.position += piece.len() as u64;
                    self.patience.got_on();
                    return Ok(Some((piece, self)));
                }
                Err(error) => {
                    self.answer = None;
                    let waited = self.patience.wait_after(error, ClientError::is_passing).await;
                    waited.map_err(io::Error::other)?;
                    tracing::debug!("{} goes on at byte {}", self.operation, self.position);
                }
            }
        }
        Ok(None)
    }

    async fn piece(&mut self) -> Result<Bytes, ClientError> {
        if self.answer.is_none() {
            self.answer = Some(self.ask().await?);
        }
        let answer = self.answer.as_mut().expect("it was asked for above");
        loop {
            let mut data = next_data(answer).await.map_err(|source| ClientError::Answer {
                operation: self.operation.clone(),
                source: BodyError::Read(source),
            })?;
            let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(data.len());
            self.to_skip -= skipped as u64;
            data.advance(skipped);
            if !data.is_empty() {
                return Ok(data);
            }
        }
    }

    /// Asks for what is missing.
    async fn ask(&mut self) -> Result<Body, ClientError> {
        let mut request = Request::get(&self.uri);
        if self.position > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.position));
            request = self.etag.iter().fold(request, |request, etag| request.header(IF_RANGE, etag));
        }
        let accepted = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let answer = self.client.expect(&self.operation, request, Body::empty(), &accepted).await?;
        let etag = answer.headers().get(ETAG).filter(|etag| etag.as_bytes().starts_with(b"\""));
        self.etag = etag.cloned();
        let partial = answer.status() == StatusCode::PARTIAL_CONTENT;
        if partial && !begins_at(answer.headers(), self.position) {
            let problem = format!("the registry sent another part than the one from byte {}", self.position);
            return Err(ClientError::Protocol { operation: self.operation.clone(), problem });
        }
        // A whole comes from a server that knows no ranges, or has other bytes by now, which their digest will show.
        self.to_skip = if partial { 0 } else { self.position };
        Ok(answer.into_body())
    }
}

/// The next bytes of a body; its end is an error.
async fn next_data(body: &mut Body) -> Result<Bytes, BoxError> {
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if !data.is_empty() => return Ok(data),
            _ => {}
        }
    }
    Err("it ended early".into())
}

/// Whether a part begins where it was asked for. What does not say is believed: the digest of the whole decides.
fn begins_at(headers: &HeaderMap, position: u64) -> bool {
    let said = header_text(headers, CONTENT_RANGE.as_str());
    let first =
        said.and_then(|text| text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
    first.is_none_or(|first: u64| first == position)
}

//! Uploads: a blob on its way to the registry.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use tokio::io::{AsyncRead, ReadBuf};

use super::error::refused;
use super::{ClientError, RegistryClient, header_text};
use crate::range;
use crate::route::Route;
use crate::source::BlobSource;
use crate::transport::{Body, BoxRead, Forbearance};

/// Up to here a blob is sent in one request; it costs little to send it again.
const WHOLE_BYTES: u64 = 1024 * 1024;

/// Whether bytes had to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// They were sent.
    Sent,
    /// The registry had them in another repository and takes them from there.
    Mounted,
    /// They were there already.
    Existed,
}

impl RegistryClient {
    /// Sends a blob, unless it is there. After a broken connection it goes on from where the registry is.
    pub async fn put_blob(
        &self,
        name: &ComponentName,
        digest: &Digest,
        size: u64,
        source: &dyn BlobSource,
    ) -> Result<Pushed, ClientError> {
        let mut upload = Upload { name, digest, size, source, begun: false, location: None, there: 0 };
        let mut patience = self.patience();
        loop {
            let there = upload.there;
            let error = match self.upload(&mut upload).await {
                Ok(pushed) => return Ok(pushed),
                Err(error) => error,
            };
            if upload.there > there {
                patience.got_on();
            }
            patience.wait_after(error, |error| upload.may_go_on(error)).await?;
            tracing::debug!(blob.digest = %digest, "The upload of {digest} broke off and is taken up again");
        }
    }

    /// Sends a blob that is in memory.
    pub async fn put_bytes(&self, name: &ComponentName, bytes: Bytes) -> Result<Digest, ClientError> {
        let digest = Digest::of(&bytes);
        self.put_blob(name, &digest, bytes.len() as u64, &bytes).await?;
        Ok(digest)
    }

    /// One attempt to bring an upload to its end, from where the last one got to.
    async fn upload(&self, upload: &mut Upload<'_>) -> Result<Pushed, ClientError> {
        if self.look_up_blob(upload.name, upload.digest).await? {
            // The answer may have been lost after the registry had everything.
            return Ok(if upload.begun { Pushed::Sent } else { Pushed::Existed });
        }
        let known = match upload.location.clone() {
            Some(location) => self.upload_status(upload, location).await?,
            None => None,
        };
        upload.location = None;
        let (location, offset) = match known {
            Some(there) => there,
            None => match self.start_upload(upload).await? {
                Some(location) => (location, 0),
                None => return Ok(Pushed::Mounted),
            },
        };
        upload.begun = true;
        upload.there = upload.there.max(offset);
        if offset == 0 && upload.size <= WHOLE_BYTES {
            self.finish_upload(upload, &location, 0).await?;
            return Ok(Pushed::Sent);
        }
        upload.location = Some(location.clone());
        if offset < upload.size {
            upload.location = Some(self.send_rest(upload, &location, offset).await?);
        }
        let location = upload.location.clone().unwrap_or(location);
        self.finish_upload(upload, &location, upload.size).await?;
        Ok(Pushed::Sent)
    }

    /// Begins an upload, or has the registry take the blob from where it has it: then there is no address. A registry
    /// that does not know mounting begins an upload (distribution-spec 1.1, "Mounting a blob from another repository").
    async fn start_upload(&self, upload: &Upload<'_>) -> Result<Option<Uri>, ClientError> {
        let operation = upload.operation("start the upload");
        let from = upload.source.repository().map(|from| format!("&from={from}")).unwrap_or_default();
        let route = Route::Uploads { name: upload.name.clone() };
        let request = Request::post(format!("{route}?mount={}{from}", upload.digest));
        let accepted = [StatusCode::ACCEPTED, StatusCode::CREATED];
        let answer = self.expect(&operation, request, Body::empty(), &accepted).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(None);
        }
        self.location(operation, answer.headers()).map(Some)
    }

    /// Where an upload goes on: its address and how many bytes the registry has. `None` when it has forgotten it.
    async fn upload_status(
        &self,
        upload: &Upload<'_>,
        location: Uri,
    ) -> Result<Option<(Uri, u64)>, ClientError> {
        let operation = upload.operation("take up the upload");
        let answer = self.send(&operation, Request::get(location.clone()), Body::empty()).await?;
        match answer.status() {
            StatusCode::NO_CONTENT | StatusCode::OK => {}
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => return Ok(None),
            _ => return Err(refused(operation, answer).await),
        }
        let location = match answer.headers().contains_key(LOCATION) {
            true => self.location(operation, answer.headers())?,
            false => location,
        };
        let there = header_text(answer.headers(), RANGE.as_str()).and_then(|text| range::chunk(text).ok());
        let bytes = match there {
            // `0-0` is said of one byte, and also of none. If it is one, our first chunk is refused and we start anew.
            Some(chunk) if chunk.first == 0 && chunk.last > 0 => chunk.length(),
            _ => 0,
        };
        // More than we have cannot be ours.
        Ok((bytes <= upload.size).then_some((location, bytes)))
    }

    async fn send_rest(&self, upload: &Upload<'_>, location: &Uri, offset: u64) -> Result<Uri, ClientError> {
        let operation = upload.operation("send the bytes");
        let request = Request::patch(location.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_RANGE, format!("{offset}-{}", upload.size - 1));
        let accepted = [StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
        let answer = self.send_from_source(upload, &operation, request, offset, &accepted).await?;
        match answer.headers().contains_key(LOCATION) {
            true => self.location(operation, answer.headers()),
            false => Ok(location.clone()),
        }
    }

    /// Closes an upload with the bytes from `offset` on, which may be none.
    async fn finish_upload(
        &self,
        upload: &Upload<'_>,
        location: &Uri,
        offset: u64,
    ) -> Result<(), ClientError> {
        let operation = upload.operation("finish the upload");
        let separator = if location.query().is_some() { '&' } else { '?' };
        let request = Request::put(format!("{location}{separator}digest={}", upload.digest))
            .extension(Forbearance::for_reading(upload.size))
            .header(CONTENT_TYPE, "application/octet-stream");
        let accepted = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        self.send_from_source(upload, &operation, request, offset, &accepted).await.map(drop)
    }

    async fn send_from_source(
        &self,
        upload: &Upload<'_>,
        operation: &str,
        request: http::request::Builder,
        offset: u64,
        accepted: &[StatusCode],
    ) -> Result<Response<Body>, ClientError> {
        let failed = |source| ClientError::Source { operation: operation.to_owned(), source };
        let length = upload.size - offset;
        let failure = SourceFailure::default();
        let body = match length {
            0 => Body::empty(),
            _ => {
                let reader = upload.source.open(offset).await.map_err(failed)?;
                Body::from_reader(failure.watch(reader, length), Some(length))
            }
        };
        let answer = self.expect(operation, request, body, accepted).await;
        // What the registry says about half a body is not the point when it was we who could not read on.
        match (answer, failure.take()) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Some(source)) => Err(failed(source)),
            (Err(error), None) => Err(error),
        }
    }

    fn location(&self, operation: String, headers: &HeaderMap) -> Result<Uri, ClientError> {
        let text = header_text(headers, LOCATION.as_str());
        let uri = text.and_then(|text| text.parse::<Uri>().ok());
        let uri = uri.filter(|uri| uri.authority().is_some() || uri.path().starts_with('/'));
        let Some(uri) = uri else {
            let problem = format!("the registry gave no usable Location (`{}`)", text.unwrap_or_default());
            return Err(ClientError::Protocol { operation, problem });
        };
        // A registry behind a proxy may name itself by the scheme that it sees; our way to it is the one that works.
        let base = self.transport.base().and_then(|base| base.parse::<Uri>().ok());
        let ours = base.is_some_and(|base| base.authority() == uri.authority());
        match uri.path_and_query() {
            Some(path) if ours => Ok(Uri::from(path.clone())),
            _ => Ok(uri),
        }
    }
}

struct Upload<'a> {
    name: &'a ComponentName,
    digest: &'a Digest,
    size: u64,
    source: &'a dyn BlobSource,
    /// Whether bytes were sent, be it in vain.
    begun: bool,
    /// Where it goes on, once it has begun.
    location: Option<Uri>,
    /// The most bytes that the registry was known to have.
    there: u64,
}

impl Upload<'_> {
    fn operation(&self, step: &str) -> String {
        format!("push blob {} to {} ({step})", self.digest, self.name)
    }

    /// Whether another attempt makes sense. After 416 the registry and we disagree about where it is: start anew.
    fn may_go_on(&mut self, error: &ClientError) -> bool {
        if error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE) {
            self.location = None;
            return true;
        }
        error.is_passing()
    }
}

/// Remembers that it was the source that failed, which the error of the exchange cannot tell.
#[derive(Clone, Default)]
struct SourceFailure(Arc<Mutex<Option<io::Error>>>);

impl SourceFailure {
    fn watch(&self, reader: BoxRead, length: u64) -> WatchedSource {
        WatchedSource { reader, missing: length, failure: self.clone() }
    }

    fn note(&self, error: io::Error) -> io::Error {
        let passed_on = io::Error::new(error.kind(), "the source cannot be read");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        passed_on
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct WatchedSource {
    reader: BoxRead,
    /// How many bytes are still to come.
    missing: u64,
    failure: SourceFailure,
}

impl AsyncRead for WatchedSource {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if let Err(error) = std::task::ready!(this.reader.as_mut().poll_read(cx, buf)) {
            return Poll::Ready(Err(this.failure.note(error)));
        }
        let read = buf.filled().len() - before;
        this.missing = this.missing.saturating_sub(read as u64);
        if read == 0 && buf.remaining() > 0 && this.missing > 0 {
            let text = format!("it ended {} bytes early", this.missing);
            return Poll::Ready(Err(this.failure.note(io::Error::new(io::ErrorKind::UnexpectedEof, text))));
        }
        Poll::Ready(Ok(()))
    }
}

//! The client of a registry (distribution-spec 1.1): ours and everybody else's.
//!
//! It believes nothing that it has not hashed: a manifest is compared with its digest before it is handed out, a blob
//! while it streams. What passes is waited out: after a broken connection or an answer like 503 the same is asked again,
//! an upload goes on from where the server says it is, a download from where it broke off. It signs in where it is asked to
//! for reading.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::stream;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, LINK, LOCATION,
    RANGE, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, Tag};
use serde::Deserialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use crate::closure::ReadManifest;
use crate::descriptor::{Descriptor, null_is_empty};
use crate::error::{ErrorBody, ErrorCode, ErrorEntry};
use crate::manifest::{InvalidManifest, MAX_MANIFEST_BYTES, ParsedManifest};
use crate::media_type;
use crate::range;
use crate::reference::TagOrDigest;
use crate::route::Route;
use crate::sign_in::{self, Challenge, Logins, SignInError};
use crate::transport::{Body, BodyError, BoxError, BoxRead, Forbearance, Transport, TransportError};
use crate::verify::{Mismatch, VerifyingReader};

pub use crate::source::{BlobSource, FileSource};

/// The header in which a registry says which digest it means (distribution-spec 1.1).
pub const CONTENT_DIGEST: &str = "docker-content-digest";
/// The header in which a registry says that it has understood `subject`.
pub const OCI_SUBJECT: &str = "oci-subject";
/// The header in which a registry says which filters it has applied to a list of referrers.
pub const OCI_FILTERS_APPLIED: &str = "oci-filters-applied";

const MAX_ERROR_BYTES: usize = 64 * 1024;
const MAX_LIST_BYTES: usize = 2 * MAX_MANIFEST_BYTES;
const PAGE: u32 = 1000;
const MAX_PAGES: usize = 10_000;
/// Up to here a blob is sent in one request; it costs little to send it again.
const WHOLE_BYTES: u64 = 1024 * 1024;
/// The longest pause before an attempt, whatever the registry asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Speaks to one registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    transport: Transport,
    retry: Retry,
    /// Whether the registry has ever answered. One that never did is not waited for: its address may be wrong.
    reached: Arc<AtomicBool>,
    logins: Logins,
    /// What the registry was last content with.
    authorisation: Arc<Mutex<Option<HeaderValue>>>,
}

/// How often something that failed in passing is tried again without getting on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often after the first failure. Bytes that arrive begin the count anew.
    pub times: u32,
    /// How long to wait before the first of them; doubled for each further one. A registry may ask for more.
    pub pause: Duration,
}

/// What a registry says about a manifest without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// Its digest; for a request by tag none when the registry does not say.
    pub digest: Option<Digest>,
    /// What it is.
    pub media_type: Option<String>,
    /// How many bytes it has.
    pub size: Option<u64>,
}

/// What a registry says about a manifest that it has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedManifest {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The subject, when the registry lists this manifest among its referrers.
    pub subject: Option<Digest>,
}

/// A blob on its way. The reader fails unless the bytes are the right ones.
pub struct FetchedBlob {
    /// How many bytes are to come.
    pub size: Option<u64>,
    /// The bytes.
    pub reader: BoxRead,
}

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

/// Why a registry did not do what it was asked. Each error names what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There was no answer.
    #[error("cannot {operation}")]
    Transport {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// The registry said no.
    #[error("cannot {operation}: the registry answered {status}{}", entries_text(.entries))]
    Refused {
        /// What was attempted.
        operation: String,
        /// The status of the answer.
        status: StatusCode,
        /// What the answer says; empty when it is not in the format of a registry.
        entries: Vec<ErrorEntry>,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry wants to know who asks, and who could say so does not.
    #[error("cannot {operation}: the registry wants to know who asks")]
    SignIn {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: SignInError,
    },
    /// The answer broke off or is too long.
    #[error("cannot {operation}")]
    Answer {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The bytes received are not the ones asked for.
    #[error("cannot {operation}: the registry sent something else")]
    Damaged {
        /// What was attempted.
        operation: String,
        /// What was expected and what was found.
        #[source]
        source: Mismatch,
    },
    /// What was received is no manifest.
    #[error("cannot {operation}: the registry sent no valid manifest")]
    Manifest {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// The answer breaks the protocol.
    #[error("cannot {operation}: {problem}")]
    Protocol {
        /// What was attempted.
        operation: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The bytes to be sent cannot be read.
    #[error("cannot {operation}: the source cannot be read")]
    Source {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// The status of the registry's answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The first error of the registry's answer.
    pub fn entry(&self) -> Option<&ErrorEntry> {
        match self {
            Self::Refused { entries, .. } => entries.first(),
            _ => None,
        }
    }

    /// The code of the registry's answer, if it is one of the specification.
    pub fn code(&self) -> Option<ErrorCode> {
        self.entry()?.known_code()
    }

    /// Whether the registry has no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether the registry will not let this caller.
    pub fn is_denied(&self) -> bool {
        self.status() == Some(StatusCode::FORBIDDEN)
    }

    /// Whether the registry was not reached at all.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Transport { source, .. } if source.is_connect())
    }

    /// Whether the same may succeed in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Answer { source: BodyError::Read(_), .. } => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }
}

impl RegistryClient {
    /// A client that tries again four times, after 0.5, 1, 2 and 4 seconds.
    pub fn new(transport: Transport) -> Self {
        let retry = Retry { times: 4, pause: Duration::from_millis(500) };
        Self {
            transport,
            retry,
            reached: Arc::default(),
            logins: Logins::none(),
            authorisation: Arc::default(),
        }
    }

    /// The same client as somebody who may be known to the registry.
    #[must_use]
    pub fn with_logins(self, logins: Logins) -> Self {
        Self { logins, ..self }
    }

    /// The same client with another patience.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// How it reaches the registry.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Asks about a manifest; `None` when there is none.
    pub async fn head_manifest(
        &self,
        name: &ComponentName,
        reference: &TagOrDigest,
    ) -> Result<Option<ManifestHead>, ClientError> {
        let operation = format!("look up {}", shown(name, reference));
        let route = Route::Manifest { name: name.clone(), reference: reference.clone() };
        let uri = route.to_string();
        let accepted = [StatusCode::OK, StatusCode::NOT_FOUND];
        let ask = || {
            let request = Request::head(&uri).header(ACCEPT, media_type::MANIFEST_TYPES.join(", "));
            self.expect(&operation, request, Body::empty(), &accepted)
        };
        let answer = self.patiently(ask).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let said = header_digest(&operation, answer.headers(), CONTENT_DIGEST)?;
        Ok(Some(ManifestHead {
            digest: said.or_else(|| by_digest(reference).cloned()),
            media_type: header_text(answer.headers(), CONTENT_TYPE.as_str()).map(media_type::essence),
            size: content_length(answer.headers()),
        }))
    }

    /// Fetches a manifest and checks it against its digest.
    pub async fn get_manifest(
        &self,
        name: &ComponentName,
        reference: &TagOrDigest,
    ) -> Result<ReadManifest, ClientError> {
        self.patiently(|| self.fetch_manifest(name, reference)).await
    }

    async fn fetch_manifest(
        &self,
        name: &ComponentName,
        reference: &TagOrDigest,
    ) -> Result<ReadManifest, ClientError> {
        let operation = format!("fetch {}", shown(name, reference));
        let route = Route::Manifest { name: name.clone(), reference: reference.clone() };
        let request = Request::get(route.to_string()).header(ACCEPT, media_type::MANIFEST_TYPES.join(", "));
        let answer = self.expect(&operation, request, Body::empty(), &[StatusCode::OK]).await?;
        let said = header_digest(&operation, answer.headers(), CONTENT_DIGEST)?;
        let content_type = header_text(answer.headers(), CONTENT_TYPE.as_str()).map(media_type::essence);
        let bytes = collect(&operation, answer.into_body(), MAX_MANIFEST_BYTES).await?;

        let digest = by_digest(reference).cloned().or(said).unwrap_or_else(|| Digest::of(&bytes));
        Mismatch::check("the manifest", &digest, None, &bytes)
            .map_err(|source| ClientError::Damaged { operation: operation.clone(), source })?;
        // A server of plain files knows no better type; then the body decides.
        let content_type = content_type.filter(|content_type| media_type::is_manifest(content_type));
        let parsed = ParsedManifest::parse(&bytes, content_type.as_deref())
            .map_err(|source| ClientError::Manifest { operation, source })?;
        let descriptor = Descriptor::new(&parsed.media_type, digest, bytes.len() as u64);
        Ok(ReadManifest { descriptor, bytes, parsed })
    }

    /// Sends a manifest. What it refers to must be there already.
    pub async fn put_manifest(
        &self,
        name: &ComponentName,
        reference: &TagOrDigest,
        bytes: Bytes,
        media_type: &str,
    ) -> Result<PushedManifest, ClientError> {
        let operation = format!("push {}", shown(name, reference));
        let digest = match by_digest(reference) {
            Some(digest) => Digest::of_with(digest.algorithm(), &bytes),
            None => Digest::of(&bytes),
        };
        let route = Route::Manifest { name: name.clone(), reference: reference.clone() };
        let uri = route.to_string();
        let accepted = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let ask = || {
            let request = Request::put(&uri).header(CONTENT_TYPE, media_type);
            self.expect(&operation, request, Body::full(bytes.clone()), &accepted)
        };
        let answer = self.patiently(ask).await?;
        if let Some(said) = header_digest(&operation, answer.headers(), CONTENT_DIGEST)?
            && said.algorithm() == digest.algorithm()
            && said != digest
        {
            let problem = format!("the registry says that it stored {said}, but it was sent {digest}");
            return Err(ClientError::Protocol { operation, problem });
        }
        let subject = header_digest(&operation, answer.headers(), OCI_SUBJECT)?;
        Ok(PushedManifest { digest, subject })
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, name: &ComponentName, digest: &Digest) -> Result<bool, ClientError> {
        self.patiently(|| self.look_up_blob(name, digest)).await
    }

    async fn look_up_blob(&self, name: &ComponentName, digest: &Digest) -> Result<bool, ClientError> {
        let operation = format!("look up blob {digest} in {name}");
        let route = Route::Blob { name: name.clone(), digest: digest.clone() };
        let request = Request::head(route.to_string());
        let accepted = [StatusCode::OK, StatusCode::NOT_FOUND];
        let answer = self.expect(&operation, request, Body::empty(), &accepted).await?;
        Ok(answer.status() == StatusCode::OK)
    }

    /// Fetches a blob. Give the size if it is known: then the reader also fails before a byte too many is taken.
    pub async fn get_blob(
        &self,
        name: &ComponentName,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<FetchedBlob, ClientError> {
        let operation = format!("fetch blob {digest} of {name}");
        let route = Route::Blob { name: name.clone(), digest: digest.clone() };
        let request = Request::get(route.to_string());
        let answer = self.expect(&operation, request, Body::empty(), &[StatusCode::OK]).await?;
        let size = size.or_else(|| content_length(answer.headers()));
        let what = format!("the blob of {name}");
        let reader = VerifyingReader::new(answer.into_body().into_async_read(), what, digest.clone(), size);
        Ok(FetchedBlob { size, reader: Box::pin(reader) })
    }

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

    /// All tags of a repository, in the order of the registry.
    pub async fn tags(&self, name: &ComponentName) -> Result<Vec<Tag>, ClientError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default, deserialize_with = "null_is_empty")]
            tags: Vec<Tag>,
        }
        let operation = format!("list the tags of {name}");
        let first = format!("{}?n={PAGE}", Route::Tags { name: name.clone() });
        let mut pages = Pages::from(first);
        let mut tags = Vec::new();
        while let Some(uri) = pages.next(&operation)? {
            let ask = || self.expect(&operation, Request::get(&uri), Body::empty(), &[StatusCode::OK]);
            let answer = self.patiently(ask).await?;
            pages.follow(answer.headers());
            let page: Page = read_json(&operation, answer.into_body()).await?;
            tags.extend(page.tags);
        }
        Ok(tags)
    }

    /// All manifests that say that they are about this one, of one type or of all. A registry without the referrers
    /// API is asked for the tag that stands in for it (distribution-spec 1.1, "Referrers Tag Schema").
    pub async fn referrers(
        &self,
        name: &ComponentName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let operation = format!("list the referrers of {name}@{digest}");
        let route = Route::Referrers { name: name.clone(), digest: digest.clone() };
        let filter =
            artifact_type.map(|wanted| format!("?artifactType={}", query_value(wanted))).unwrap_or_default();
        let mut pages = Pages::from(format!("{route}{filter}"));
        let mut found = Vec::new();
        while let Some(uri) = pages.next(&operation)? {
            let accepted = [StatusCode::OK, StatusCode::NOT_FOUND];
            let ask = || {
                let request = Request::get(&uri).header(ACCEPT, media_type::OCI_INDEX);
                self.expect(&operation, request, Body::empty(), &accepted)
            };
            let answer = self.patiently(ask).await?;
            match answer.status() {
                StatusCode::OK => {}
                _ if found.is_empty() => {
                    found = self.referrers_by_tag(name, digest).await?;
                    break;
                }
                _ => return Err(refused(operation, answer).await),
            }
            pages.follow(answer.headers());
            let bytes = collect(&operation, answer.into_body(), MAX_LIST_BYTES).await?;
            let index = ParsedManifest::parse(&bytes, Some(media_type::OCI_INDEX))
                .map_err(|source| ClientError::Manifest { operation: operation.clone(), source })?;
            found.extend(index.manifests);
        }
        if let Some(wanted) = artifact_type {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    async fn referrers_by_tag(
        &self,
        name: &ComponentName,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let tag = digest.as_str().replacen(':', "-", 1);
        // Longer than a tag may be: then there can be none (SHA-512).
        let Ok(tag) = tag.parse() else { return Ok(Vec::new()) };
        match self.get_manifest(name, &TagOrDigest::Tag(tag)).await {
            Ok(index) => Ok(index.parsed.manifests),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
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

    fn patience(&self) -> Patience {
        Patience { retry: self.retry, failures: 0, reached: self.reached.clone() }
    }

    /// Asks until there is an answer, or a refusal that does not pass, or patience ends.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut patience = self.patience();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => patience.wait_after(error, ClientError::is_passing).await?,
            }
        }
    }

    async fn send(
        &self,
        operation: &str,
        request: http::request::Builder,
        body: Body,
    ) -> Result<Response<Body>, ClientError> {
        let request = request.body(body).map_err(|error| ClientError::Protocol {
            operation: operation.to_owned(),
            problem: format!("the request cannot be made: {error}"),
        })?;
        // Only what has no body can be asked again, and only reading needs it. Who answers at an absolute address, which the
        // registry gave and which may be anybody's, does not learn who this is.
        let may_sign_in =
            matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().authority().is_none();
        let again = may_sign_in.then(|| {
            let mut again = Request::new(Body::empty());
            (*again.method_mut(), *again.uri_mut()) = (request.method().clone(), request.uri().clone());
            *again.headers_mut() = request.headers().clone();
            again
        });
        let answer = self.exchange(operation, request).await?;
        match again {
            Some(again) if answer.status() == StatusCode::UNAUTHORIZED => {
                let Some(challenge) = Challenge::of(answer.headers()) else { return Ok(answer) };
                let signed_in = self
                    .sign_in(&challenge)
                    .await
                    .map_err(|source| ClientError::SignIn { operation: operation.to_owned(), source })?;
                if signed_in { self.exchange(operation, again).await } else { Ok(answer) }
            }
            _ => Ok(answer),
        }
    }

    async fn exchange(
        &self,
        operation: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ClientError> {
        let known = self.authorisation.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|_| request.uri().authority().is_none()) {
            request.headers_mut().insert(AUTHORIZATION, known);
        }
        let answer = self.transport.send(request).await;
        self.reached.fetch_or(answer.is_ok(), Ordering::Relaxed);
        answer.map_err(|source| ClientError::Transport { operation: operation.to_owned(), source })
    }

    /// Whether there is now something to say to a registry that asks who this is.
    async fn sign_in(&self, challenge: &Challenge) -> Result<bool, SignInError> {
        let Some(base) = self.transport.base() else { return Ok(false) };
        let host = base.split_once("://").map_or(base, |(_, host)| host).to_owned();
        let logins = self.logins.clone();
        let login = tokio::task::spawn_blocking(move || logins.of(&host)).await.unwrap_or(None);
        let Some(known) = sign_in::authorise(challenge, base, login.as_ref()).await? else {
            return Ok(false);
        };
        *self.authorisation.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(true)
    }

    async fn expect(
        &self,
        operation: &str,
        request: http::request::Builder,
        body: Body,
        accepted: &[StatusCode],
    ) -> Result<Response<Body>, ClientError> {
        let answer = self.send(operation, request, body).await?;
        if accepted.contains(&answer.status()) {
            return Ok(answer);
        }
        Err(refused(operation.to_owned(), answer).await)
    }
}

impl fmt::Debug for FetchedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchedBlob").field("size", &self.size).finish_non_exhaustive()
    }
}

/// How often something was tried in vain since it last got on.
struct Patience {
    retry: Retry,
    failures: u32,
    reached: Arc<AtomicBool>,
}

impl Patience {
    fn got_on(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt; gives the error back when there is to be none.
    async fn wait_after(
        &mut self,
        error: ClientError,
        passes: impl FnOnce(&ClientError) -> bool,
    ) -> Result<(), ClientError> {
        let never_reached = error.is_connect() && !self.reached.load(Ordering::Relaxed);
        if self.failures >= self.retry.times || never_reached || !passes(&error) {
            return Err(error);
        }
        tokio::time::sleep(self.pause_after(&error)).await;
        self.failures += 1;
        Ok(())
    }

    fn pause_after(&self, error: &ClientError) -> Duration {
        let own = self.retry.pause.saturating_mul(1 << self.failures.min(10));
        let asked = match error {
            ClientError::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        own.max(asked).min(LONGEST_PAUSE)
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

/// The pages of a list, one `Link` after the other (RFC 8288, `rel="next"`).
struct Pages {
    next: Option<String>,
    seen: usize,
}

impl Pages {
    fn from(first: String) -> Self {
        Self { next: Some(first), seen: 0 }
    }

    fn next(&mut self, operation: &str) -> Result<Option<String>, ClientError> {
        self.seen += 1;
        if self.seen > MAX_PAGES {
            let problem = format!("the list has more than {MAX_PAGES} pages");
            return Err(ClientError::Protocol { operation: operation.to_owned(), problem });
        }
        Ok(self.next.take())
    }

    fn follow(&mut self, headers: &HeaderMap) {
        let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        self.next = links.flat_map(|links| links.split(',')).find_map(next_link);
    }
}

fn next_link(link: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or_default();
        key.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
    });
    next.then(|| target.to_owned())
}

fn shown(name: &ComponentName, reference: &TagOrDigest) -> String {
    match reference {
        TagOrDigest::Tag(tag) => format!("{name}:{tag}"),
        TagOrDigest::Digest(digest) => format!("{name}@{digest}"),
    }
}

fn by_digest(reference: &TagOrDigest) -> Option<&Digest> {
    match reference {
        TagOrDigest::Digest(digest) => Some(digest),
        TagOrDigest::Tag(_) => None,
    }
}

async fn refused(operation: String, answer: Response<Body>) -> ClientError {
    let status = answer.status();
    let asked = header_text(answer.headers(), RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
    // A body that cannot be read takes nothing away from the refusal.
    let bytes = answer.into_body().collect_limited(MAX_ERROR_BYTES).await.unwrap_or_default();
    let entries = ErrorBody::parse(&bytes).unwrap_or_default().errors;
    ClientError::Refused { operation, status, entries, retry_after: asked.map(Duration::from_secs) }
}

fn entries_text(entries: &[ErrorEntry]) -> String {
    let texts: Vec<_> = entries.iter().take(5).map(ErrorEntry::to_string).collect();
    if texts.is_empty() { String::new() } else { format!(": {}", texts.join("; ")) }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    header_text(headers, CONTENT_LENGTH.as_str())?.parse().ok()
}

fn header_digest(operation: &str, headers: &HeaderMap, name: &str) -> Result<Option<Digest>, ClientError> {
    let Some(text) = header_text(headers, name) else { return Ok(None) };
    let digest = text.parse().map_err(|error| ClientError::Protocol {
        operation: operation.to_owned(),
        problem: format!("the header {name} is malformed: {error}"),
    })?;
    Ok(Some(digest))
}

async fn collect(operation: &str, body: Body, limit: usize) -> Result<Bytes, ClientError> {
    let collected = body.collect_limited(limit).await;
    collected.map_err(|source| ClientError::Answer { operation: operation.to_owned(), source })
}

async fn read_json<T: serde::de::DeserializeOwned>(operation: &str, body: Body) -> Result<T, ClientError> {
    let bytes = collect(operation, body, MAX_LIST_BYTES).await?;
    serde_json::from_slice(&bytes).map_err(|error| ClientError::Protocol {
        operation: operation.to_owned(),
        problem: format!("the answer is not in the expected form: {error}"),
    })
}

/// Percent-encodes a value of a query: a `+` in it would be read as a space.
pub fn query_value(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_any_spelling_of_a_link() {
        let cases = [
            (r#"</v2/a/tags/list?last=x&n=2>; rel="next""#, Some("/v2/a/tags/list?last=x&n=2")),
            ("<http://h/x>;rel=next", Some("http://h/x")),
            (r#"</p>; rel="prev", </n>; title="a"; rel="next""#, Some("/n")),
            (r#"</p>; rel="prev""#, None),
            ("nonsense", None),
        ];
        for (header, expected) in cases {
            let mut pages = Pages::from(String::new());
            pages.follow(&HeaderMap::from_iter([(LINK, header.parse().unwrap())]));
            assert_eq!(pages.next.as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn media_types_are_encoded_for_a_query() {
        assert_eq!(query_value("application/vnd.x.v1+json"), "application/vnd.x.v1%2Bjson");
        assert_eq!(query_value("a b&c"), "a%20b%26c");
    }
}

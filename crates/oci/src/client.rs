//! The client of a registry (distribution-spec 1.1): ours and everybody else's.
//!
//! It believes nothing that it has not hashed: a manifest is compared with its digest before it is handed out, a blob
//! while it streams. What passes is waited out: after a broken connection or an answer like 503 the same is asked again,
//! an upload goes on from where the server says it is, a download from where it broke off. It signs in where it is asked to
//! for reading.

mod download;
mod error;
mod pages;
mod patience;
mod upload;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, Tag};
use serde::Deserialize;

use crate::closure::ReadManifest;
use crate::descriptor::{Descriptor, null_is_empty};
use crate::manifest::{MAX_MANIFEST_BYTES, ParsedManifest};
use crate::media_type;
use crate::reference::TagOrDigest;
use crate::route::Route;
use crate::sign_in::{self, Challenge, Logins, SignInError};
use crate::transport::{Body, BoxRead, Transport};
use crate::verify::{Mismatch, VerifyingReader};

use self::error::refused;
use self::pages::Pages;
use self::patience::Patience;

pub use self::error::ClientError;
pub use self::upload::Pushed;
pub use crate::source::{BlobSource, FileSource};

/// The header in which a registry says which digest it means (distribution-spec 1.1).
pub const CONTENT_DIGEST: &str = "docker-content-digest";
/// The header in which a registry says that it has understood `subject`.
pub const OCI_SUBJECT: &str = "oci-subject";
/// The header in which a registry says which filters it has applied to a list of referrers.
pub const OCI_FILTERS_APPLIED: &str = "oci-filters-applied";

const MAX_LIST_BYTES: usize = 2 * MAX_MANIFEST_BYTES;
const PAGE: u32 = 1000;

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

    /// All manifests that say that they are about this one. A registry without the referrers API is asked for the tag that
    /// stands in for it (distribution-spec 1.1, "Referrers Tag Schema").
    pub async fn referrers(
        &self,
        name: &ComponentName,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let operation = format!("list the referrers of {name}@{digest}");
        let route = Route::Referrers { name: name.clone(), digest: digest.clone() };
        let mut pages = Pages::from(route.to_string());
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
    fn media_types_are_encoded_for_a_query() {
        assert_eq!(query_value("application/vnd.x.v1+json"), "application/vnd.x.v1%2Bjson");
        assert_eq!(query_value("a b&c"), "a%20b%26c");
    }
}

//! Sessions by which blobs come in: in one request, as a stream, or chunk by chunk.
//!
//! The bytes of a session stay when a connection breaks, and the client asks where to go on. A session ends with the digest
//! that its bytes must have. One request at a time works on a session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use semel_engine::content;
use semel_model::digest::{Algorithm, Digest};
use semel_model::name::ComponentName;
use semel_oci::error::ErrorCode;
use semel_oci::range::{self, Chunk};
use semel_oci::route::Route;
use semel_store::blobs::BlobError;
use tokio::sync::OwnedMutexGuard;

use super::{Asked, CONTENT_DIGEST, Result};
use crate::App;
use crate::error::Refusal;
use crate::limits;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// Up to here the bytes of a request are taken into memory and written at once.
const FEW_BYTES: u64 = 64 * 1024;
/// How long a request waits for the one before it. After a broken connection, that one is still writing what it received.
const BUSY: Duration = Duration::from_secs(5);

/// The sessions on which a request works.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Sessions {
    async fn enter(&self, id: &str) -> Result<OwnedMutexGuard<()>> {
        let session = self.session(id);
        tokio::time::timeout(BUSY, session.lock_owned())
            .await
            .map_err(|_| BlobError::BusyUpload(id.to_owned()).into())
    }

    fn session(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.strong_count() > 0);
        if let Some(session) = sessions.get(id).and_then(Weak::upgrade) {
            return session;
        }
        let session = Arc::default();
        sessions.insert(id.to_owned(), Arc::downgrade(&session));
        session
    }
}

/// `POST …/blobs/uploads/`: begins a session, or takes a blob at once, or finds it here already.
pub(super) async fn start(app: &App, asked: &Asked, name: &ComponentName, body: Body) -> Result {
    if asked.method != Method::POST {
        return Err(asked.not_allowed("POST"));
    }
    let blobs = app.store().blobs();
    if let Some(digest) = mounted(app, asked, name).await? {
        return Ok(created(name, &digest));
    }
    if let Some(digest) = asked.query.digest()? {
        match Content::of(app, body).await {
            Content::Few(bytes) => blobs.put_announced(bytes, &digest).await?,
            Content::Broken(_, error) => return Err(error.into()),
            Content::Stream(body) => blobs.put_stream(limits::received(app, body), &digest).await?,
        };
        content::received(app.store(), name, &digest).await?;
        return Ok(created(name, &digest));
    }
    let algorithm = announced_algorithm(asked)?;
    let id = limits::begin_upload(app, asked.client)?;
    if let Some(algorithm) = algorithm {
        blobs.expect_algorithm(&id, algorithm)?;
    }
    Ok(progress(StatusCode::ACCEPTED, name, &id, 0))
}

/// The blob that the client asks to take from another component, when it is here. Whatever is wrong with the question, the
/// client may send the bytes instead.
async fn mounted(app: &App, asked: &Asked, name: &ComponentName) -> Result<Option<Digest>> {
    let Some(digest) = asked.query.first("mount").and_then(|text| text.parse().ok()) else { return Ok(None) };
    let from: Option<ComponentName> = match asked.query.first("from").map(str::parse) {
        Some(Err(_)) => return Ok(None),
        Some(Ok(from)) => Some(from),
        None => None,
    };
    let mounted = content::mount(app.store(), name, from.as_ref(), &digest).await?;
    Ok(mounted.then_some(digest))
}

/// Whatever was announced, the digest at the end decides; but who announces something else need not send it all first.
fn announced_algorithm(asked: &Asked) -> Result<Option<Algorithm>> {
    match asked.query.first("digest-algorithm") {
        None => Ok(None),
        Some("sha256") => Ok(Some(Algorithm::Sha256)),
        Some("sha512") => Ok(Some(Algorithm::Sha512)),
        Some(_) => Err(Refusal::new(ErrorCode::DigestInvalid, "the digest algorithms are sha256 and sha512")),
    }
}

/// The requests to one session.
pub(super) async fn answer(app: &App, asked: &Asked, name: &ComponentName, id: &str, body: Body) -> Result {
    match asked.method {
        Method::PATCH => append(app, asked, name, id, body).await,
        Method::PUT => finish(app, asked, name, id, body).await,
        Method::GET | Method::HEAD => status(app, name, id).await,
        Method::DELETE => cancel(app, id).await,
        _ => Err(asked.not_allowed("GET, HEAD, PATCH, PUT, DELETE")),
    }
}

async fn append(app: &App, asked: &Asked, name: &ComponentName, id: &str, body: Body) -> Result {
    let _session = app.sessions().enter(id).await?;
    let size = take(app, asked, name, id, body).await?;
    Ok(progress(StatusCode::ACCEPTED, name, id, size))
}

async fn finish(app: &App, asked: &Asked, name: &ComponentName, id: &str, body: Body) -> Result {
    let Some(digest) = asked.query.digest()? else {
        return Err(Refusal::new(
            ErrorCode::DigestInvalid,
            "an upload ends with `?digest=`, the digest of its bytes",
        ));
    };
    let _session = app.sessions().enter(id).await?;
    let (have, few) = receive(app, asked, name, id, body).await?;
    let blobs = app.store().blobs();
    match few.is_empty() {
        true => blobs.finish_upload(id, &digest).await?,
        false => blobs.finish_upload_with(id, have, few, &digest).await?,
    };
    content::received(app.store(), name, &digest).await?;
    Ok(created(name, &digest))
}

async fn status(app: &App, name: &ComponentName, id: &str) -> Result {
    // A request that is still at work is waited for, but an answer that may be old at once is better than none.
    let _session = app.sessions().enter(id).await.ok();
    let size = app.store().blobs().upload_size(id)?;
    Ok(progress(StatusCode::NO_CONTENT, name, id, size))
}

async fn cancel(app: &App, id: &str) -> Result {
    let _session = app.sessions().enter(id).await?;
    app.store().blobs().cancel_upload(id)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Appends the body of the request and returns the new size.
async fn take(app: &App, asked: &Asked, name: &ComponentName, id: &str, body: Body) -> Result<u64> {
    let (have, few) = receive(app, asked, name, id, body).await?;
    match few.is_empty() {
        true => Ok(have),
        false => Ok(app.store().blobs().append_to_upload(id, have, few).await?),
    }
}

/// Receives the body of the request. A few bytes are given back, to be written behind the size that is given with them; of
/// anything else that is the size with them.
async fn receive(
    app: &App,
    asked: &Asked,
    name: &ComponentName,
    id: &str,
    body: Body,
) -> Result<(u64, Bytes)> {
    let blobs = app.store().blobs();
    let have = blobs.upload_size(id)?;
    let chunk = announced(asked, name, id, have)?;
    let (size, few) = match Content::of(app, body).await {
        Content::Few(bytes) => (have, bytes),
        Content::Broken(bytes, error) => {
            blobs.append_to_upload(id, have, bytes).await?;
            return Err(error.into());
        }
        Content::Stream(body) => {
            (blobs.extend_upload(id, Some(have), limits::received(app, body)).await?, Bytes::new())
        }
    };
    let received = size - have + few.len() as u64;
    match chunk {
        Some(chunk) if received != 0 && received != chunk.length() => {
            Err(wrong_size(chunk, received, name, id, size))
        }
        _ => Ok((size, few)),
    }
}

/// The chunk that the request says it carries; refused when it does not follow what is there.
fn announced(asked: &Asked, name: &ComponentName, id: &str, have: u64) -> Result<Option<Chunk>> {
    let Some(header) = asked.header(&CONTENT_RANGE) else { return Ok(None) };
    let chunk = range::chunk(header)
        .map_err(|error| Refusal::new(ErrorCode::BlobUploadInvalid, error.to_string()))?;
    if chunk.first != have {
        let message =
            format!("the upload has {have} bytes; a chunk that begins at {} does not follow", chunk.first);
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        return Err(Refusal::with_status(status, ErrorCode::BlobUploadInvalid, message)
            .headers(place(name, id, have)));
    }
    let length = asked.header(&CONTENT_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
    match length == 0 || length == chunk.length() {
        true => Ok(Some(chunk)),
        false => Err(wrong_size(chunk, length, name, id, have)),
    }
}

fn wrong_size(chunk: Chunk, found: u64, name: &ComponentName, id: &str, size: u64) -> Refusal {
    let message =
        format!("the chunk {}-{} has {found} bytes, not {}", chunk.first, chunk.last, chunk.length());
    Refusal::new(ErrorCode::SizeInvalid, message).headers(place(name, id, size))
}

fn created(name: &ComponentName, digest: &Digest) -> Response {
    let location = Route::Blob { name: name.clone(), digest: digest.clone() }.to_string();
    (StatusCode::CREATED, [(LOCATION, location), (CONTENT_DIGEST, digest.to_string())]).into_response()
}

fn progress(status: StatusCode, name: &ComponentName, id: &str, size: u64) -> Response {
    (status, place(name, id, size)).into_response()
}

/// Where an upload goes on. `0-0` is also what is said of an upload without bytes.
fn place(name: &ComponentName, id: &str, size: u64) -> HeaderMap {
    let location = Route::Upload { name: name.clone(), id: id.to_owned() }.to_string();
    let headers =
        [(LOCATION, location), (RANGE, format!("0-{}", size.saturating_sub(1))), (UPLOAD_ID, id.to_owned())];
    let value = |text: &str| HeaderValue::from_str(text).expect("names and numbers are visible ASCII");
    headers.into_iter().map(|(name, text)| (name, value(&text))).collect()
}

/// The bytes of a request.
enum Content {
    /// All of them: they are few.
    Few(Bytes),
    /// What came of a few before they broke off.
    Broken(Bytes, BlobError),
    /// Still to come.
    Stream(Body),
}

impl Content {
    async fn of(app: &App, body: Body) -> Self {
        if http_body::Body::size_hint(&body).upper().is_none_or(|most| most > FEW_BYTES) {
            return Self::Stream(body);
        }
        let (mut bytes, mut pieces) = (BytesMut::new(), limits::received(app, body));
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => return Self::Broken(bytes.freeze(), BlobError::Source(error)),
            }
        }
        Self::Few(bytes.freeze())
    }
}

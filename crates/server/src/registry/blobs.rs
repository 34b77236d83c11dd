//! Content by digest: whole or in part, streamed from the disk.

use std::ops::RangeInclusive;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    RANGE,
};
use http::{HeaderValue, Method, StatusCode};
use semel_engine::content::{self as engine_content, Released};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::error::ErrorCode;
use semel_oci::range::{self, Requested};
use semel_oci::transport;
use semel_store::blobs::BlobError;
use semel_store::content;
use serde_json::json;

use super::{Asked, CONTENT_DIGEST, IMMUTABLE, Result, entity_tag};
use crate::App;
use crate::error::Refusal;

pub(super) async fn answer(app: &App, asked: &Asked, name: &ComponentName, digest: &Digest) -> Result {
    match asked.method {
        Method::GET | Method::HEAD => {
            require_readable(app, name, digest).await?;
            get(app, asked, digest).await
        }
        Method::DELETE => delete(app, asked, name, digest).await,
        _ => Err(asked.not_allowed("GET, HEAD, DELETE")),
    }
}

/// A blob of another component is as good as not here: who may read that one can mount it. One in the trash comes back.
async fn require_readable(app: &App, name: &ComponentName, digest: &Digest) -> Result<()> {
    let readable = content::is_readable(&mut app.store().reader().await?, name, digest).await?;
    if readable && (app.store().blobs().contains(digest) || app.store().blobs().hold(digest)?) {
        return Ok(());
    }
    Err(BlobError::Unknown(digest.clone()).into())
}

async fn delete(app: &App, asked: &Asked, name: &ComponentName, digest: &Digest) -> Result {
    match engine_content::release(app.store(), name, digest).await? {
        Released::Gone => Ok(StatusCode::ACCEPTED.into_response()),
        Released::Unknown => Err(BlobError::Unknown(digest.clone()).into()),
        Released::Needed(manifests) => Err(asked
            .not_allowed("GET, HEAD")
            .message(format!(
                "{digest} stays: {} needs it",
                manifests.first().map_or("a manifest", Digest::as_str)
            ))
            .detail(json!({"reason": "needed", "manifests": manifests}))),
    }
}

async fn get(app: &App, asked: &Asked, digest: &Digest) -> Result {
    let size = app.store().blobs().size(digest)?;
    if asked.names_entity(&IF_NONE_MATCH, digest) {
        return Ok(with_identity(StatusCode::NOT_MODIFIED, digest, Body::empty()));
    }
    if asked.is_head() {
        return Ok(with_length(with_identity(StatusCode::OK, digest, Body::empty()), size));
    }
    match wanted(asked, digest, size) {
        Requested::Ignore => {
            Ok(with_length(with_identity(StatusCode::OK, digest, part(app, digest, 0, size).await?), size))
        }
        Requested::Satisfiable(range) => partial(app, digest, &range, size).await,
        Requested::Unsatisfiable => {
            let message = format!("the blob has {size} bytes; nothing of it is in the range asked for");
            Err(Refusal::with_status(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message)
                .header(CONTENT_RANGE, value(&format!("bytes */{size}"))))
        }
    }
}

/// A range is meant only for the representation that the client has begun to fetch (RFC 9110 §13.1.5).
fn wanted(asked: &Asked, digest: &Digest, size: u64) -> Requested {
    let same = asked.header(&IF_RANGE).is_none_or(|tag| tag == entity_tag(digest));
    match asked.header(&RANGE) {
        Some(header) if same => range::requested(header, size),
        _ => Requested::Ignore,
    }
}

async fn partial(app: &App, digest: &Digest, range: &RangeInclusive<u64>, size: u64) -> Result {
    let length = range.end() - range.start() + 1;
    let body = part(app, digest, *range.start(), length).await?;
    let mut response = with_length(with_identity(StatusCode::PARTIAL_CONTENT, digest, body), length);
    response.headers_mut().insert(CONTENT_RANGE, value(&range::content_range(range, size)));
    Ok(response)
}

/// A file that is shorter than it should be breaks the answer off rather than ending it.
async fn part(app: &App, digest: &Digest, start: u64, length: u64) -> Result<Body> {
    if length == 0 {
        return Ok(Body::empty());
    }
    let reader = app.store().blobs().open(digest, start, length).await?;
    Ok(Body::new(transport::Body::from_reader(reader.file, Some(reader.length))))
}

fn with_identity(status: StatusCode, digest: &Digest, body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, value("application/octet-stream")),
        (ACCEPT_RANGES, value("bytes")),
        (CACHE_CONTROL, value(IMMUTABLE)),
        (ETAG, value(&entity_tag(digest))),
        (CONTENT_DIGEST, value(digest.as_str())),
    ];
    (status, headers, body).into_response()
}

fn with_length(mut response: Response, length: u64) -> Response {
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("digests and ranges are visible ASCII")
}

//! Content by digest: whole or in part, from memory or streamed from the disk.

use std::ops::RangeInclusive;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use semel_engine::content::{self, Released};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::error::ErrorCode;
use semel_oci::range::{self, Requested};
use semel_store::blobs::BlobError;
use serde_json::json;

use super::memory::{self, Found};
use super::{Asked, Result, entity_tag};
use crate::App;
use crate::error::Refusal;

pub(super) async fn answer(app: &App, asked: &Asked, name: &ComponentName, digest: &Digest) -> Result {
    match asked.method {
        Method::GET | Method::HEAD => get(app, asked, name, digest).await,
        Method::DELETE => delete(app, asked, name, digest).await,
        _ => Err(asked.not_allowed("GET, HEAD, DELETE")),
    }
}

async fn get(app: &App, asked: &Asked, name: &ComponentName, digest: &Digest) -> Result {
    let found = memory::resolve_blob(app, name, digest).await?;
    if asked.names_entity(&IF_NONE_MATCH, digest) {
        return Ok(found.answer(StatusCode::NOT_MODIFIED, Body::empty()));
    }
    if asked.is_head() {
        return Ok(found.length_alone());
    }
    match wanted(asked, &found) {
        Requested::Ignore => whole(app, &found).await,
        Requested::Satisfiable(range) => partial(app, &found, &range).await,
        Requested::Unsatisfiable => {
            let size = found.size;
            let message = format!("the blob has {size} bytes; nothing of it is in the range asked for");
            Err(Refusal::with_status(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message)
                .header(CONTENT_RANGE, value(&format!("bytes */{size}"))))
        }
    }
}

/// A range is meant only for the representation that the client has begun to fetch (RFC 9110 §13.1.5).
fn wanted(asked: &Asked, found: &Found) -> Requested {
    let Some(header) = asked.header(&RANGE) else { return Requested::Ignore };
    let same = asked.header(&IF_RANGE).is_none_or(|tag| tag == entity_tag(&found.digest));
    if same { range::requested(header, found.size) } else { Requested::Ignore }
}

async fn whole(app: &App, found: &Found) -> Result {
    let body = part(app, found, 0, found.size).await?;
    Ok(with_length(found.answer(StatusCode::OK, body), found.size))
}

async fn partial(app: &App, found: &Found, range: &RangeInclusive<u64>) -> Result {
    let length = range.end() - range.start() + 1;
    let body = part(app, found, *range.start(), length).await?;
    let mut response = with_length(found.answer(StatusCode::PARTIAL_CONTENT, body), length);
    response.headers_mut().insert(CONTENT_RANGE, value(&range::content_range(range, found.size)));
    Ok(response)
}

/// Small blobs come from memory, others from the disk piece by piece.
async fn part(app: &App, found: &Found, start: u64, length: u64) -> Result<Body> {
    if found.size <= memory::SMALL_BYTES {
        let bytes = memory::bytes_of(app, found).await?;
        if bytes.len() as u64 != found.size {
            // The file had another length when it was looked at: somebody else changes it.
            return Err(BlobError::Damaged(found.digest.clone()).into());
        }
        let index = |place: u64| usize::try_from(place).expect("a small blob lies in memory");
        return Ok(bytes.slice(index(start)..index(start + length)).into());
    }
    // A file that is shorter than it should be breaks the answer off rather than ending it.
    Ok(Body::from_stream(app.store().blobs().open(&found.digest, start, length).await?))
}

fn with_length(mut response: Response, length: u64) -> Response {
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ranges are visible ASCII")
}

async fn delete(app: &App, asked: &Asked, name: &ComponentName, digest: &Digest) -> Result {
    match content::release(app.store(), name, digest).await? {
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

//! Artefacts by digest and by name.
//!
//! Bytes and media type go out exactly as they came in. Whether a name may be given is the engine's to say; a refused
//! overwrite is 409 `DENIED`, for which clients stop, and never a code at which they convert the manifest and push again.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{ALLOW, CONTENT_TYPE, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use semel_engine::publish::{self, Bound, Overwrite};
use semel_engine::pull::{self, NameKind, Named};
use semel_engine::remove::{self, Removed};
use semel_engine::store_manifest::{Manifest, Names, StoreManifestError, StoredManifest, push};
use semel_model::digest::Digest;
use semel_model::keep::Holder;
use semel_model::name::{ComponentName, Tag};
use semel_oci::error::ErrorCode;
use semel_oci::manifest::{InvalidManifest, MAX_MANIFEST_BYTES};
use semel_oci::reference::TagOrDigest;
use semel_oci::route::Route;
use semel_store::blobs::BlobError;
use serde_json::json;

use super::memory;
use super::names;
use super::{Asked, CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, Result};
use crate::App;
use crate::error::Refusal;
use crate::limits;

/// How many tags one push may give. The specification asks for ten at least.
const MAX_TAGS: usize = 64;

pub(super) async fn answer(
    app: &App,
    asked: &Asked,
    name: &ComponentName,
    reference: &TagOrDigest,
    body: Body,
) -> Result {
    match asked.method {
        Method::GET | Method::HEAD => get(app, asked, name, reference).await,
        Method::PUT => put(app, asked, name, reference, body).await,
        Method::DELETE => delete(app, asked, name, reference).await,
        _ => Err(asked.not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

async fn get(app: &App, asked: &Asked, name: &ComponentName, reference: &TagOrDigest) -> Result {
    let found = memory::resolve(app, name, reference).await?;
    if asked.names_entity(&IF_NONE_MATCH, &found.digest) {
        return Ok(found.answer(StatusCode::NOT_MODIFIED, Body::empty()));
    }
    if asked.is_head() {
        return Ok(found.length_alone());
    }
    let bytes = memory::bytes_of(app, &found).await.map_err(memory::without_bytes)?;
    Ok(found.answer(StatusCode::OK, bytes.into()))
}

async fn put(app: &App, asked: &Asked, name: &ComponentName, reference: &TagOrDigest, body: Body) -> Result {
    let tags = tags_to_bind(asked, reference)?;
    let bytes = read_body(app, body).await?;
    let who = app.registry_actor().await?;
    let manifest = Manifest {
        component: name,
        bytes: &bytes,
        media_type: asked.header(&CONTENT_TYPE),
        digest: match reference {
            TagOrDigest::Digest(digest) => Some(digest),
            TagOrDigest::Tag(_) => None,
        },
    };
    let absent = must_be_new(asked);
    let by_name = matches!(reference, TagOrDigest::Tag(_));
    let names = Names { tags: &tags, absent: absent && by_name, new_manifest: absent && !by_name };
    let pushed = push(app.store(), &who, manifest, names, app.now()).await?;
    if absent && pushed.stored.already && !by_name {
        return Err(exists(&pushed.stored.digest, format!("{name} has {} already", pushed.stored.digest)));
    }
    let accepted = accepted(&pushed.names, &tags, names.absent)?;
    Ok(answer_push(name, &pushed.stored, asked, accepted))
}

/// The names that were given. The first refusal is the answer; the names before it are given, and it says so.
fn accepted(names: &[Bound], tags: &[Tag], absent: bool) -> Result<HeaderMap> {
    let mut accepted = HeaderMap::new();
    for (bound, tag) in names.iter().zip(tags) {
        match bound {
            Bound::Refused(overwrite) => match &overwrite.bound {
                Some(bound) if absent => return Err(exists(bound, &overwrite.reason)),
                _ => return Err(refused(overwrite.clone()).headers(accepted)),
            },
            Bound::Published { .. } | Bound::Already { .. } | Bound::Moved { .. } => {
                let header = HeaderValue::from_str(tag.as_str()).expect("a tag is visible ASCII");
                accepted.append(OCI_TAG, header);
            }
        }
    }
    Ok(accepted)
}

/// `If-None-Match: *` asks for a name, or a digest, that is not here yet. Whether it is, is decided in the turn that gives it.
fn must_be_new(asked: &Asked) -> bool {
    asked.header(&IF_NONE_MATCH).is_some_and(|tags| tags.trim() == "*")
}

fn exists(bound: &Digest, message: impl Into<String>) -> Refusal {
    Refusal::with_status(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied, message)
        .detail(json!({"reason": "exists", "bound": bound}))
}

/// The tag of the path, or those of the parameters beside a digest.
fn tags_to_bind(asked: &Asked, reference: &TagOrDigest) -> Result<Vec<Tag>> {
    if let TagOrDigest::Tag(tag) = reference {
        return Ok(vec![tag.clone()]);
    }
    let invalid = |text: &str| {
        let shown: String = text.chars().take(160).collect();
        Refusal::new(ErrorCode::NameInvalid, format!("`{shown}` is not a tag"))
    };
    let tags: Result<Vec<Tag>> =
        asked.query.all("tag").map(|text| text.parse().map_err(|_| invalid(text))).collect();
    let mut tags = tags?;
    let mut seen = BTreeSet::new();
    tags.retain(|tag| seen.insert(tag.to_string()));
    if tags.len() > MAX_TAGS {
        let message = format!("at most {MAX_TAGS} tags can be given at once");
        return Err(Refusal::with_status(StatusCode::URI_TOO_LONG, ErrorCode::Unsupported, message));
    }
    Ok(tags)
}

async fn read_body(app: &App, body: Body) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    let mut pieces = limits::received(app, body);
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.map_err(BlobError::Source)?);
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(too_large());
        }
    }
    Ok(bytes.freeze())
}

fn too_large() -> Refusal {
    let message = format!("a manifest may have at most {MAX_MANIFEST_BYTES} bytes");
    Refusal::with_status(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message)
}

fn refused(overwrite: Overwrite) -> Refusal {
    let reason = match (&overwrite.bound, &overwrite.next_free) {
        (Some(_), _) => "version_bound",
        (None, Some(_)) => "version_reserved",
        (None, None) => "environment",
    };
    let detail = json!({
        "reason": reason,
        "bound": overwrite.bound,
        "bound_at": overwrite.bound_at,
        "pushed": overwrite.pushed,
        "next_free": overwrite.next_free,
    });
    Refusal::with_status(StatusCode::CONFLICT, ErrorCode::Denied, overwrite.reason).detail(detail)
}

fn answer_push(
    name: &ComponentName,
    stored: &StoredManifest,
    asked: &Asked,
    accepted: HeaderMap,
) -> Response {
    let reference = TagOrDigest::Digest(stored.digest.clone());
    let location = Route::Manifest { name: name.clone(), reference }.to_string();
    let headers = [(LOCATION, location), (CONTENT_DIGEST, stored.digest.to_string())];
    let mut response = (StatusCode::CREATED, headers).into_response();
    if let Some(subject) = &stored.subject {
        let value = HeaderValue::from_str(subject.as_str()).expect("a digest is visible ASCII");
        response.headers_mut().insert(OCI_SUBJECT, value);
    }
    // The header answers the parameters; who gave the tag in the path knows it.
    if asked.query.first("tag").is_some() {
        response.headers_mut().extend(accepted);
    }
    response
}

impl From<StoreManifestError> for Refusal {
    fn from(error: StoreManifestError) -> Self {
        match error {
            StoreManifestError::Invalid(InvalidManifest::TooLarge { .. }) => too_large(),
            StoreManifestError::Invalid(error) => Self::new(ErrorCode::ManifestInvalid, told(&error)),
            StoreManifestError::WrongDigest { .. } => Self::new(ErrorCode::DigestInvalid, error.to_string()),
            StoreManifestError::MissingContent(ref digest) => {
                Self::new(ErrorCode::ManifestBlobUnknown, error.to_string()).detail(json!({"digest": digest}))
            }
            StoreManifestError::WrongSize { .. } => Self::new(ErrorCode::SizeInvalid, error.to_string()),
            StoreManifestError::WrongType { .. } => Self::new(ErrorCode::ManifestInvalid, error.to_string()),
            StoreManifestError::Engine(error) => error.into(),
        }
    }
}

/// What is wrong with a manifest, with the place in it.
fn told(error: &InvalidManifest) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

async fn delete(app: &App, asked: &Asked, name: &ComponentName, reference: &TagOrDigest) -> Result {
    let tag = match reference {
        TagOrDigest::Digest(digest) => return delete_digest(app, asked, name, digest).await,
        TagOrDigest::Tag(tag) => tag,
    };
    let mut conn = app.store().reader().await?;
    let Some(named) = pull::look_up(&mut conn, name, tag).await? else {
        names::require_component(&mut conn, name).await?;
        return Err(memory::unknown(name, reference));
    };
    drop(conn);
    match named.kind {
        NameKind::Channel => remove(app, name, tag).await,
        _ => {
            let holders = remove::holders_of(app.store(), name, &named.digest, app.now()).await?;
            Err(keep_name(asked, name, tag, &named, &holders))
        }
    }
}

/// A digest goes when nothing holds it; what does is named.
async fn delete_digest(app: &App, asked: &Asked, name: &ComponentName, digest: &Digest) -> Result {
    let who = app.registry_actor().await?;
    match remove::remove_manifest(app.store(), &who, name, digest, app.now()).await? {
        Removed::Gone => Ok(StatusCode::ACCEPTED.into_response()),
        Removed::Held(holders) => {
            let message = format!("{digest} stays: {}", words(&holders));
            Err(keep(asked, &message).detail(json!({"reason": "held", "holders": holders})))
        }
        Removed::Unknown => {
            names::require_component(&mut app.store().reader().await?, name).await?;
            Err(memory::unknown(name, &TagOrDigest::Digest(digest.clone())))
        }
    }
}

/// The first few holders in words.
fn words(holders: &[Holder]) -> String {
    const FEW: usize = 3;
    let mut words: Vec<String> = holders.iter().take(FEW).map(ToString::to_string).collect();
    if holders.len() > FEW {
        words.push(format!("{} more", holders.len() - FEW));
    }
    words.join(", ")
}

async fn remove(app: &App, name: &ComponentName, tag: &Tag) -> Result {
    let who = app.registry_actor().await?;
    publish::remove_channel(app.store(), &who, name, tag, app.now()).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

fn keep_name(asked: &Asked, name: &ComponentName, tag: &Tag, named: &Named, holders: &[Holder]) -> Refusal {
    let digest = &named.digest;
    let (reason, message) = match named.kind {
        NameKind::Version => ("version_bound", format!("{name} {tag} is bound to {digest} for ever")),
        NameKind::Environment => {
            ("environment", format!("{tag} is an environment: its tag is what was last deployed there"))
        }
        NameKind::Channel | NameKind::Attachment => {
            ("attachment", format!("{tag} holds attachments, which are kept"))
        }
    };
    keep(asked, &message).detail(json!({"reason": reason, "bound": digest, "holders": holders}))
}

fn keep(asked: &Asked, message: &str) -> Refusal {
    debug_assert_eq!(asked.method, Method::DELETE);
    Refusal::new(ErrorCode::Unsupported, message).header(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"))
}

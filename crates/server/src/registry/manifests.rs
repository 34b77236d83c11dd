//! Artefacts by digest and by name.
//!
//! Bytes and media type go out exactly as they came in. Whether a name may be given is the engine's to say; a refused
//! overwrite is 409 `DENIED`, for which clients stop, and never a code at which they convert the manifest and push again.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use semel_engine::publish::{self, Bind, Bound, Overwrite};
use semel_engine::store_manifest::{Manifest, StoreManifestError, StoredManifest, store_manifest};
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, Tag};
use semel_oci::error::ErrorCode;
use semel_oci::manifest::{InvalidManifest, MAX_MANIFEST_BYTES};
use semel_oci::reference::TagOrDigest;
use semel_oci::route::Route;
use semel_store::blobs::BlobError;
use semel_store::projections::artefact;
use serde_json::json;

use super::names::{self, Kind, Named};
use super::uploads::pieces;
use super::{Asked, CONTENT_DIGEST, IMMUTABLE, OCI_SUBJECT, OCI_TAG, Result, entity_tag};
use crate::App;
use crate::error::Refusal;

/// How many tags one push may give. The specification asks for ten at least.
const MAX_TAGS: usize = 64;
/// How many bytes of a manifest that is too large are read and thrown away, so that the client hears the answer.
const MAX_DRAINED_BYTES: usize = 4 * MAX_MANIFEST_BYTES;

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
    let (found, caching) = find(app, name, reference).await?;
    if asked.names_entity(&IF_NONE_MATCH, &found.digest) {
        return Ok((StatusCode::NOT_MODIFIED, identity(&found, caching)).into_response());
    }
    if asked.is_head() {
        app.store().blobs().size(&found.digest).map_err(without_bytes)?;
        let length = [(CONTENT_LENGTH, found.size)].map(|(name, size)| (name, HeaderValue::from(size)));
        return Ok((StatusCode::OK, identity(&found, caching), length).into_response());
    }
    let bytes = app.store().blobs().read(&found.digest).map_err(without_bytes)?;
    Ok((StatusCode::OK, identity(&found, caching), bytes).into_response())
}

async fn find(
    app: &App,
    name: &ComponentName,
    reference: &TagOrDigest,
) -> Result<(artefact::Manifest, &'static str)> {
    let mut conn = app.store().reader().await?;
    let (digest, caching) = match reference {
        TagOrDigest::Digest(digest) => (Some(digest.clone()), IMMUTABLE),
        TagOrDigest::Tag(tag) => {
            (names::look_up(&mut conn, name, tag).await?.map(|named| named.digest), "no-cache")
        }
    };
    let found = match digest {
        Some(digest) => artefact::manifest(&mut conn, name, &digest).await?,
        None => None,
    };
    if let Some(manifest) = found {
        return Ok((manifest, caching));
    }
    names::require_component(&mut conn, name).await?;
    Err(unknown(name, reference))
}

fn unknown(name: &ComponentName, reference: &TagOrDigest) -> Refusal {
    let message = match reference {
        TagOrDigest::Digest(digest) => format!("{name} has no manifest {digest} in this store"),
        TagOrDigest::Tag(tag) => format!("{name} has no version, environment or channel {tag} in this store"),
    };
    Refusal::new(ErrorCode::ManifestUnknown, message)
}

fn identity(found: &artefact::Manifest, caching: &'static str) -> [(HeaderName, String); 4] {
    [
        (CONTENT_TYPE, found.media_type.clone()),
        (CACHE_CONTROL, caching.to_owned()),
        (ETAG, entity_tag(&found.digest)),
        (CONTENT_DIGEST, found.digest.to_string()),
    ]
}

/// A manifest that is recorded and not there is damage, not an unknown name.
fn without_bytes(error: BlobError) -> Refusal {
    match error {
        BlobError::Unknown(digest) => BlobError::Damaged(digest).into(),
        other => other.into(),
    }
}

async fn put(app: &App, asked: &Asked, name: &ComponentName, reference: &TagOrDigest, body: Body) -> Result {
    let tags = tags_to_bind(asked, reference)?;
    let bytes = read_body(body).await?;
    require_absent(app, asked, name, reference).await?;
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
    let stored = store_manifest(app.store(), &who, manifest, app.now()).await?;
    let accepted = bind_all(app, &who, name, &stored.digest, tags).await?;
    Ok(pushed(name, &stored, asked, accepted))
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
    let tags = tags?;
    if tags.len() > MAX_TAGS {
        let message = format!("at most {MAX_TAGS} tags can be given at once");
        return Err(Refusal::with_status(StatusCode::URI_TOO_LONG, ErrorCode::Unsupported, message));
    }
    Ok(tags)
}

async fn read_body(body: Body) -> Result<Bytes> {
    let (mut bytes, mut size) = (BytesMut::new(), 0);
    let mut pieces = pieces(body);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(BlobError::Source)?;
        size += piece.len();
        match size {
            0..=MAX_MANIFEST_BYTES => bytes.extend_from_slice(&piece),
            _ if size <= MAX_DRAINED_BYTES => bytes.clear(),
            _ => break,
        }
    }
    if size > MAX_MANIFEST_BYTES {
        return Err(too_large());
    }
    Ok(bytes.freeze())
}

fn too_large() -> Refusal {
    let message = format!("a manifest may have at most {MAX_MANIFEST_BYTES} bytes");
    Refusal::with_status(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, message)
}

/// `If-None-Match: *` asks for a name that nobody has yet.
async fn require_absent(
    app: &App,
    asked: &Asked,
    name: &ComponentName,
    reference: &TagOrDigest,
) -> Result<()> {
    if asked.header(&IF_NONE_MATCH).map(str::trim) != Some("*") {
        return Ok(());
    }
    let mut conn = app.store().reader().await?;
    let there = match reference {
        TagOrDigest::Digest(digest) => {
            artefact::manifest(&mut conn, name, digest).await?.map(|found| found.digest)
        }
        TagOrDigest::Tag(tag) => names::look_up(&mut conn, name, tag).await?.map(|named| named.digest),
    };
    match there {
        Some(bound) => {
            let message = format!("it is there already, as {bound}");
            Err(Refusal::with_status(StatusCode::PRECONDITION_FAILED, ErrorCode::Denied, message)
                .detail(json!({"reason": "exists", "bound": bound})))
        }
        None => Ok(()),
    }
}

/// Gives the names one after the other. The first refusal is the answer; the names before it are given, and it says so.
async fn bind_all(
    app: &App,
    who: &Actor,
    name: &ComponentName,
    digest: &Digest,
    tags: Vec<Tag>,
) -> Result<HeaderMap> {
    let mut accepted = HeaderMap::new();
    for tag in tags {
        let header = HeaderValue::from_str(tag.as_str()).expect("a tag is visible ASCII");
        let request = Bind {
            component: name.clone(),
            tag,
            digest: digest.clone(),
            commit: None,
            location: None,
            home: None,
        };
        match publish::bind(app.store(), who, request, app.now()).await? {
            Bound::Refused(overwrite) => return Err(refused(overwrite).headers(accepted)),
            Bound::Published { .. } | Bound::Already { .. } | Bound::Moved { .. } => {
                accepted.append(OCI_TAG, header);
            }
        }
    }
    Ok(accepted)
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
        "pushed": overwrite.pushed,
        "next_free": overwrite.next_free,
    });
    Refusal::with_status(StatusCode::CONFLICT, ErrorCode::Denied, overwrite.reason).detail(detail)
}

fn pushed(name: &ComponentName, stored: &StoredManifest, asked: &Asked, accepted: HeaderMap) -> Response {
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
                Self::with_status(StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown, error.to_string())
                    .detail(json!({"digest": digest}))
            }
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
    let TagOrDigest::Tag(tag) = reference else {
        find(app, name, reference).await?;
        return Err(keep(asked, "manifests are removed by collection, when nothing needs them any more"));
    };
    let mut conn = app.store().reader().await?;
    let Some(named) = names::look_up(&mut conn, name, tag).await? else {
        names::require_component(&mut conn, name).await?;
        return Err(unknown(name, reference));
    };
    drop(conn);
    match named.kind {
        Kind::Channel => remove(app, name, tag).await,
        _ => Err(keep_name(asked, name, tag, &named)),
    }
}

async fn remove(app: &App, name: &ComponentName, tag: &Tag) -> Result {
    let who = app.registry_actor().await?;
    publish::remove_channel(app.store(), &who, name, tag, app.now()).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

fn keep_name(asked: &Asked, name: &ComponentName, tag: &Tag, named: &Named) -> Refusal {
    let digest = &named.digest;
    let (reason, message) = match named.kind {
        Kind::Version => ("version_bound", format!("{name} {tag} is bound to {digest} for ever")),
        Kind::Environment => {
            ("environment", format!("{tag} is an environment: its tag is what was last deployed there"))
        }
        Kind::Channel | Kind::Attachment => {
            ("attachment", format!("{tag} holds attachments, which are kept"))
        }
    };
    keep(asked, &message).detail(json!({"reason": reason, "bound": digest}))
}

fn keep(asked: &Asked, message: &str) -> Refusal {
    debug_assert_eq!(asked.method, Method::DELETE);
    Refusal::new(ErrorCode::Unsupported, message).header(ALLOW, HeaderValue::from_static("GET, HEAD, PUT"))
}

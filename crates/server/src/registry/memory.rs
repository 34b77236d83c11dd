//! What is read again and again, kept in memory.
//!
//! Two things are kept, each within a bound. A **meaning** is what a name or a digest stands for in a component, with the head
//! of the answer ready made; it holds for one generation of the store, and every change begins another. **Content** is the
//! bytes of a small blob or manifest; it is the same for ever, and is given out only through a meaning that holds. So an answer
//! from memory is one that the database gave to the same question since the last change, and costs neither it nor the disk.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, WARNING};
use http::{HeaderMap, HeaderValue, StatusCode};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};
use semel_engine::pull::{self, Pull};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::version::Version;
use semel_oci::error::ErrorCode;
use semel_oci::reference::TagOrDigest;
use semel_store::blobs::BlobError;
use semel_store::content;
use semel_store::projections::artefact;
use serde_json::json;

use super::{CONTENT_DIGEST, IMMUTABLE, Result, entity_tag, names};
use crate::App;
use crate::error::Refusal;

/// How many meanings are kept, of about 1 KiB each.
const MEANINGS: usize = 4096;
/// How many bytes of content are kept.
const CONTENT_BYTES: u64 = 8 * 1024 * 1024;
/// The most bytes that content may have to be kept.
pub(super) const SMALL_BYTES: u64 = 64 * 1024;
/// The most bytes of a warning (distribution-spec 1.1).
const MAX_WARNING_BYTES: usize = 4096;
/// For how many pieces of content there is room at first.
const CONTENT_PIECES: usize = 1024;
/// Into how many parts, each with its own lock, the memory is divided.
const SHARDS: usize = 4;

/// The memory of a server.
pub(crate) struct Memory {
    meanings: Cache<Question, Meaning>,
    content: Cache<Digest, Bytes, BySize>,
}

/// What is asked for in a component.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    component: ComponentName,
    wanted: Wanted<TagOrDigest, Digest>,
}

/// A question in the words of a request: asking allocates nothing. It has the hash of the [`Question`] that it equals.
#[derive(Clone, Copy, Hash)]
struct Asking<'a> {
    component: &'a ComponentName,
    wanted: Wanted<&'a TagOrDigest, &'a Digest>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wanted<R, D> {
    Manifest(R),
    Blob(D),
}

/// The answer to a question, for one generation of the store.
#[derive(Clone)]
struct Meaning {
    generation: u64,
    found: Arc<Found>,
}

/// A manifest or a blob that a component has.
#[derive(Debug)]
pub(super) struct Found {
    /// Its digest.
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
    /// What every answer about it says, beside a length.
    head: HeaderMap,
}

impl Asking<'_> {
    fn question(self) -> Question {
        let wanted = match self.wanted {
            Wanted::Manifest(reference) => Wanted::Manifest(reference.clone()),
            Wanted::Blob(digest) => Wanted::Blob(digest.clone()),
        };
        Question { component: self.component.clone(), wanted }
    }
}

impl Equivalent<Question> for Asking<'_> {
    fn equivalent(&self, question: &Question) -> bool {
        let same = match (self.wanted, &question.wanted) {
            (Wanted::Manifest(own), Wanted::Manifest(other)) => own == other,
            (Wanted::Blob(own), Wanted::Blob(other)) => own == other,
            _ => false,
        };
        same && *self.component == question.component
    }
}

#[derive(Clone)]
struct BySize;

impl Weighter<Digest, Bytes> for BySize {
    fn weight(&self, digest: &Digest, bytes: &Bytes) -> u64 {
        (digest.as_str().len() + bytes.len()) as u64
    }
}

impl Default for Memory {
    fn default() -> Self {
        let meanings = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(MEANINGS)
            .weight_capacity(MEANINGS as u64)
            .build()
            .expect("both capacities are given");
        let content = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(CONTENT_PIECES)
            .weight_capacity(CONTENT_BYTES)
            .build()
            .expect("both capacities are given");
        Self {
            meanings: Cache::with_options(
                meanings,
                quick_cache::UnitWeighter,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            content: Cache::with_options(
                content,
                BySize,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (meanings, content_bytes) = (self.meanings.len(), self.content.weight());
        f.debug_struct("Memory")
            .field("meanings", &meanings)
            .field("content_bytes", &content_bytes)
            .finish_non_exhaustive()
    }
}

impl Found {
    /// An answer without a body that says how long the body would be.
    pub(super) fn length_alone(&self) -> Response {
        let mut response = self.answer(StatusCode::OK, Body::empty());
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(self.size));
        response
    }

    /// An answer about it.
    pub(super) fn answer(&self, status: StatusCode, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = self.head.clone();
        response
    }
}

/// The manifest that a reference names in a component.
pub(super) async fn resolve(
    app: &App,
    component: &ComponentName,
    reference: &TagOrDigest,
) -> Result<Arc<Found>> {
    let asking = Asking { component, wanted: Wanted::Manifest(reference) };
    remember(app, asking, look_up_manifest(app, component, reference)).await
}

/// The blob of a digest, as a component has it.
pub(super) async fn resolve_blob(
    app: &App,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Arc<Found>> {
    let asking = Asking { component, wanted: Wanted::Blob(digest) };
    remember(app, asking, look_up_blob(app, component, digest)).await
}

/// The bytes of something small, with their digest checked when they came from the disk. Something larger is read each time.
pub(super) async fn bytes_of(app: &App, found: &Found) -> std::result::Result<Bytes, BlobError> {
    let memory = app.memory();
    if let Some(bytes) = memory.content.get(&found.digest) {
        return Ok(bytes);
    }
    let (blobs, digest) = (app.store().blobs().clone(), found.digest.clone());
    let read = tokio::task::spawn_blocking(move || blobs.read(&digest)).await;
    let read = read.expect("reading a blob does not panic");
    let bytes = Bytes::from(read.inspect_err(|error| count_damage(app, error))?);
    if found.size <= SMALL_BYTES {
        memory.content.insert(found.digest.clone(), bytes.clone());
    }
    Ok(bytes)
}

/// What is known in this generation, or what looking it up gives. A refusal is not kept: bytes may come back at any time.
async fn remember(
    app: &App,
    asking: Asking<'_>,
    look_up: impl Future<Output = Result<Found>>,
) -> Result<Arc<Found>> {
    let memory = app.memory();
    // Read before the database is asked: what is found then is at least as new as the generation that it is kept under.
    let generation = generation(app).await;
    if let Some(meaning) = memory.meanings.get(&asking).filter(|meaning| meaning.generation == generation) {
        app.metrics().memory_hits.add(1);
        return Ok(meaning.found);
    }
    app.metrics().memory_misses.add(1);
    let found = Arc::new(look_up.await?);
    memory.meanings.insert(asking.question(), Meaning { generation, found: Arc::clone(&found) });
    Ok(found)
}

/// The store's generation.
#[expect(
    clippy::unused_async,
    reason = "a store whose generation lies in a database on the network is asked here"
)]
async fn generation(app: &App) -> u64 {
    app.store().generation()
}

async fn look_up_manifest(app: &App, component: &ComponentName, reference: &TagOrDigest) -> Result<Found> {
    let mut conn = app.store().reader().await?;
    let (digest, caching) = match reference {
        TagOrDigest::Digest(digest) => (Some(digest.clone()), IMMUTABLE),
        TagOrDigest::Tag(tag) => {
            (pull::look_up(&mut conn, component, tag).await?.map(|named| named.digest), "no-cache")
        }
    };
    let meaning = match &digest {
        Some(digest) => pull::find(&mut conn, component, digest).await?,
        None => Pull::Unknown,
    };
    match meaning {
        Pull::Found { manifest, warning } => found_manifest(app, manifest, caching, warning),
        Pull::Rejected { digest, reason } => Err(pulls_rejected(component, &digest, &reason)),
        Pull::Expired { version, digest, expired } => {
            Err(has_expired(component, &version, &digest, &expired))
        }
        Pull::Unknown => {
            names::require_component(&mut conn, component).await?;
            Err(unknown(component, reference))
        }
    }
}

fn found_manifest(
    app: &App,
    manifest: artefact::Manifest,
    caching: &'static str,
    warning: Option<String>,
) -> Result<Found> {
    let there = app.store().blobs().size(&manifest.digest).inspect_err(|error| count_damage(app, error));
    there.map_err(without_bytes)?;
    let mut head = identity(&manifest.digest, caching);
    let media_type = HeaderValue::from_str(&manifest.media_type);
    head.insert(CONTENT_TYPE, media_type.expect("a media type is checked when its manifest is stored"));
    head.extend(warning.map(|text| (WARNING, warning_of(&text))));
    Ok(Found { digest: manifest.digest, size: manifest.size, head })
}

/// A warning to people (distribution-spec 1.1, "Warnings"; RFC 7234 section 5.5): code 299, no agent, a quoted text. What cannot
/// stand in a header is shown as `?`.
fn warning_of(text: &str) -> HeaderValue {
    let mut value = String::from("299 - \"");
    for character in text.chars() {
        let shown = if matches!(character, ' '..='~') { character } else { '?' };
        if value.len() + 3 > MAX_WARNING_BYTES {
            break;
        }
        if matches!(shown, '"' | '\\') {
            value.push('\\');
        }
        value.push(shown);
    }
    value.push('"');
    HeaderValue::from_str(&value).expect("only printable ASCII is left")
}

fn pulls_rejected(component: &ComponentName, digest: &Digest, reason: &str) -> Refusal {
    let message = format!("{digest} of {component} must not be fetched: {reason}");
    Refusal::with_status(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
        .detail(json!({"reason": "rejected", "digest": digest}))
}

fn has_expired(
    component: &ComponentName,
    version: &Version,
    digest: &Digest,
    expired: &artefact::Expired,
) -> Refusal {
    let artefact::Expired { time, rule } = expired;
    let message = format!(
        "the bytes of {component} {version} were removed on {time} by the rule {rule}; pushing {digest} again brings it back"
    );
    Refusal::new(ErrorCode::ManifestUnknown, message)
        .detail(json!({"reason": "expired", "digest": digest, "expired": time, "rule": rule}))
}

/// The refusal of a reference that names nothing in a component that is there.
pub(super) fn unknown(component: &ComponentName, reference: &TagOrDigest) -> Refusal {
    let message = match reference {
        TagOrDigest::Digest(digest) => format!("{component} has no manifest {digest} in this store"),
        TagOrDigest::Tag(tag) => {
            format!("{component} has no version, environment or channel {tag} in this store")
        }
    };
    Refusal::new(ErrorCode::ManifestUnknown, message)
}

/// A manifest that is recorded and not there is damage, not an unknown name.
pub(super) fn without_bytes(error: BlobError) -> Refusal {
    match error {
        BlobError::Unknown(digest) => BlobError::Damaged(digest).into(),
        other => other.into(),
    }
}

/// For bytes that must be there.
fn count_damage(app: &App, error: &BlobError) {
    if matches!(error, BlobError::Unknown(_) | BlobError::Damaged(_)) {
        app.metrics().damaged.add(1);
    }
}

/// A blob of another component is as good as not here: who may read that one can mount it. One in the trash comes back.
async fn look_up_blob(app: &App, component: &ComponentName, digest: &Digest) -> Result<Found> {
    let blobs = app.store().blobs();
    let readable = content::is_readable(&mut app.store().reader().await?, component, digest).await?;
    if !(readable && blobs.hold(digest)?) {
        return Err(BlobError::Unknown(digest.clone()).into());
    }
    let size = blobs.size(digest)?;
    let mut head = identity(digest, IMMUTABLE);
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(Found { digest: digest.clone(), size, head })
}

fn identity(digest: &Digest, caching: &'static str) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).expect("a digest is visible ASCII");
    let mut head = HeaderMap::with_capacity(8);
    head.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    head.insert(ETAG, value(&entity_tag(digest)));
    head.insert(CONTENT_DIGEST, value(digest.as_str()));
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_one_quoted_text_of_bounded_length() {
        for (text, value) in [
            ("a 1.0.0 is deprecated: no", r#"299 - "a 1.0.0 is deprecated: no""#),
            (r#"say "no" \ é"#, r#"299 - "say \"no\" \\ ?""#),
            ("two\nlines", r#"299 - "two?lines""#),
        ] {
            assert_eq!(warning_of(text).to_str().unwrap(), value);
        }
        for text in ["a".repeat(5_000), "\"".repeat(5_000)] {
            assert!((4_000..=MAX_WARNING_BYTES).contains(&warning_of(&text).len()));
        }
    }
}

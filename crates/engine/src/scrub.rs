//! Scrub: hashes what the store keeps again, and says what damage means for whom.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::digest::Digest;
use semel_store::blobs::BlobError;
use semel_store::projections::{artefact, document};
use semel_store::scrub::{self, ScrubError};
use semel_store::sql::Conn;
use semel_store::{Store, content};
use serde::{Deserialize, Serialize};

use crate::error::EngineError;

/// Asks for a look at the blobs, the longest unseen first.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    /// After so many bytes it is enough for now; all blobs, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scrubbed {
    /// How many blobs were hashed.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How many blobs there are that were not reached this time.
    pub left: u64,
    /// What is damaged and put aside, now or before, and is still missing.
    pub damaged: Vec<Damaged>,
    /// What was damaged before and is whole again.
    pub healed: Vec<Digest>,
}

/// A damaged blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Damaged {
    /// Which.
    pub digest: Digest,
    /// When it was found (RFC 3339).
    pub found: String,
    /// What needs it, in words: versions, manifests, the ledger.
    pub needed_by: Vec<String>,
}

/// Hashes blobs until `max_bytes` were read. Damaged ones are put aside, so that the next push of their bytes heals them.
pub async fn scrub(store: &Store, request: Scrub, now: Timestamp) -> Result<Scrubbed, EngineError> {
    let done =
        scrub::scrub(store, request.max_bytes.unwrap_or(u64::MAX), now).await.map_err(failed(store))?;
    let mut damaged = Vec::new();
    for (digest, found) in scrub::damaged(store).await? {
        let needed_by = needed_by(&mut store.reader().await?, &digest).await?;
        damaged.push(Damaged { digest, found, needed_by });
    }
    Ok(Scrubbed { blobs: done.blobs, bytes: done.bytes, left: done.left, damaged, healed: done.healed })
}

fn failed(store: &Store) -> impl FnOnce(ScrubError) -> EngineError {
    let path = store.dir().join("blobs");
    move |error| match error {
        ScrubError::List(source) => BlobError::Io { action: "list", path, source }.into(),
        ScrubError::Blob(error) => error.into(),
        ScrubError::Sql(error) => error.into(),
        ScrubError::Append(error) => error.into(),
    }
}

/// How many artefacts are named for one damaged blob.
const NAMED: u64 = 10;

async fn needed_by(conn: &mut Conn, digest: &Digest) -> Result<Vec<String>, EngineError> {
    let mut words = Vec::new();
    if document::is_named(conn, digest).await? {
        words.push("the ledger".to_owned());
    }
    for manifest in content::needing(conn, digest, NAMED).await? {
        let versions = artefact::by_digest(conn, manifest.as_str()).await?;
        words.extend(versions.iter().map(|one| format!("{} {}", one.component, one.version)));
        if versions.is_empty() {
            let stored = artefact::manifests_by_digest(conn, manifest.as_str()).await?;
            words.extend(stored.iter().map(|(component, digest)| format!("{component} {digest}")));
        }
    }
    Ok(words)
}

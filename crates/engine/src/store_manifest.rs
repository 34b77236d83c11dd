//! Store a manifest: its bytes exactly as they came, once everything that it needs is there.

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ManifestStored};
use semel_model::name::ComponentName;
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use semel_store::Store;
use semel_store::projections::artefact;

use crate::batch::Batch;
use crate::error::EngineError;

/// A manifest as somebody sends it.
#[derive(Debug, Clone)]
pub struct Manifest<'a> {
    /// Where it is stored.
    pub component: &'a ComponentName,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The media type that came with it.
    pub media_type: Option<&'a str>,
    /// The digest that it must have, if it was named.
    pub digest: Option<&'a Digest>,
}

/// A manifest that is stored now.
#[derive(Debug, Clone)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// Whether it was there before.
    pub already: bool,
}

/// Why a manifest is not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreManifestError {
    /// It cannot be read.
    #[error("the manifest cannot be accepted")]
    Invalid(#[from] InvalidManifest),
    /// It has another digest than the one it was sent under.
    #[error("the manifest has digest {found}, not {expected}")]
    WrongDigest {
        /// What was named.
        expected: Digest,
        /// What was computed.
        found: Digest,
    },
    /// Something that it needs is not there.
    #[error("the manifest needs {0}, which is not in this store")]
    MissingContent(Digest),
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

macro_rules! from_store {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreManifestError {
            fn from(error: $error) -> Self {
                Self::Engine(error.into())
            }
        })*
    };
}
from_store!(semel_store::sql::SqlError, semel_store::blobs::BlobError, semel_store::ledger::AppendError);

/// Stores a manifest. Storing the same again changes nothing.
pub async fn store_manifest(
    store: &Store,
    who: &Actor,
    manifest: Manifest<'_>,
    now: Timestamp,
) -> Result<StoredManifest, StoreManifestError> {
    let parsed = ParsedManifest::parse(manifest.bytes, manifest.media_type)?;
    let digest = check_digest(&manifest)?;
    require_contents(store, &manifest, &parsed)?;
    let subject = parsed.subject.as_ref().map(|subject| subject.digest.clone());
    let stored = StoredManifest {
        digest: digest.clone(),
        media_type: parsed.media_type.clone(),
        subject: subject.clone(),
        already: true,
    };
    if artefact::manifest(&mut store.reader().await?, manifest.component, &digest).await?.is_some()
        && store.blobs().contains(&digest)
    {
        return Ok(stored);
    }
    put_bytes(store, &digest, manifest.bytes).await?;
    let mut turn = store.turn().await?;
    if artefact::manifest(turn.db(), manifest.component, &digest).await?.is_some() {
        return Ok(stored);
    }
    let mut batch = Batch::new(who, now);
    batch.change(Change::ManifestStored(ManifestStored {
        component: manifest.component.clone(),
        digest,
        media_type: parsed.media_type,
        size: manifest.bytes.len() as u64,
        subject,
    }));
    turn.append(batch.into_leaves()).await?;
    Ok(StoredManifest { already: false, ..stored })
}

fn check_digest(manifest: &Manifest<'_>) -> Result<Digest, StoreManifestError> {
    let Some(expected) = manifest.digest else { return Ok(Digest::of(manifest.bytes)) };
    let found = Digest::of_with(expected.algorithm(), manifest.bytes);
    if found == *expected {
        Ok(found)
    } else {
        Err(StoreManifestError::WrongDigest { expected: expected.clone(), found })
    }
}

/// Bytes are durable before the entry that names them (invariant I6).
async fn put_bytes(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<(), EngineError> {
    store.blobs().put_reader(bytes, digest).await?;
    Ok(())
}

fn require_contents(
    store: &Store,
    manifest: &Manifest<'_>,
    parsed: &ParsedManifest,
) -> Result<(), StoreManifestError> {
    let children = parsed.required_manifests().into_iter();
    let missing = parsed
        .required_blobs()
        .into_iter()
        .chain(children)
        .find(|needed| needed.embedded().is_none() && !store.blobs().contains(&needed.digest));
    match missing {
        Some(needed) => {
            tracing::debug!(component = %manifest.component, blob = %needed.digest, "Refused a manifest without its content");
            Err(StoreManifestError::MissingContent(needed.digest.clone()))
        }
        None => Ok(()),
    }
}

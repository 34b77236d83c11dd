//! Store a manifest: its bytes exactly as they came, once everything that it needs is there, and with the names that it is to
//! get.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ManifestStored};
use semel_model::name::{ComponentName, Tag};
use semel_model::version::{TagMeaning, meaning_of};
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use semel_store::projections::artefact;
use semel_store::sql::Conn;
use semel_store::{Store, content};

use crate::error::EngineError;
use crate::publish::{Bind, Bound, Giving};

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
    /// It says another size of something than that has: two readers would see two artefacts.
    #[error("the manifest says that {digest} has {said} bytes; it has {found}")]
    WrongSize {
        /// What.
        digest: Digest,
        /// What the manifest says.
        said: u64,
        /// What is so.
        found: u64,
    },
    /// It lists a manifest as another kind than that is: likewise, and no copy of it would be taken.
    #[error("the manifest lists {digest} as `{said}`; it is `{found}`")]
    WrongType {
        /// What.
        digest: Digest,
        /// What the manifest says.
        said: String,
        /// What is so.
        found: String,
    },
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

/// A manifest that is stored now, and what became of the names that it was to get.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The manifest.
    pub stored: StoredManifest,
    /// Each name that was decided, in the order asked. Behind a refused one none is decided.
    pub names: Vec<Bound>,
}

/// Names for a manifest that is being stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Which.
    pub tags: &'a [Tag],
    /// Only if nobody has them yet.
    pub absent: bool,
    /// Only if the manifest is not here yet: otherwise nothing is given.
    pub new_manifest: bool,
}

/// Stores a manifest without a name.
pub async fn store_manifest(
    store: &Store,
    who: &Actor,
    manifest: Manifest<'_>,
    now: Timestamp,
) -> Result<StoredManifest, StoreManifestError> {
    Ok(push(store, who, manifest, Names::default(), now).await?.stored)
}

/// Stores a manifest and gives it names, in one turn. The same again changes nothing. A manifest whose first name is refused
/// is not recorded: who floods the store with overwrites leaves one refusal behind.
pub async fn push(
    store: &Store,
    who: &Actor,
    manifest: Manifest<'_>,
    names: Names<'_>,
    now: Timestamp,
) -> Result<Pushed, StoreManifestError> {
    let parsed = ParsedManifest::parse(manifest.bytes, manifest.media_type)?;
    let digest = check_digest(&manifest)?;
    require_contents(&mut store.reader().await?, store, &manifest, &parsed).await?;
    // Also what is there already is looked at: good bytes heal a damaged manifest.
    put_bytes(store, &digest, manifest.bytes).await?;
    let subject = parsed.subject.as_ref().map(|subject| subject.digest.clone());
    let mut giving = Giving::begin(store, who, now).await?;
    // Since it was looked at, others had their turns: a collection, or somebody who deletes. What went into the trash comes
    // back, and what is gone for good is asked for again.
    require_contents(giving.turn.db(), store, &manifest, &parsed).await?;
    if !store.blobs().hold(&digest)? {
        return Err(
            EngineError::TryAgain { what: format!("{digest} was collected while it was pushed") }.into()
        );
    }
    let row = artefact::manifest(giving.turn.db(), manifest.component, &digest).await?;
    let stored = StoredManifest {
        digest: digest.clone(),
        media_type: parsed.media_type.clone(),
        subject: subject.clone(),
        already: row.is_some(),
    };
    let recorded = Change::ManifestStored(ManifestStored {
        component: manifest.component.clone(),
        digest: digest.clone(),
        media_type: parsed.media_type.clone(),
        size: manifest.bytes.len() as u64,
        subject,
    });
    if names.new_manifest && stored.already {
        return Ok(Pushed { stored, names: Vec::new() });
    }
    let bound = give_names(&mut giving, &manifest, &digest, names).await?;
    if bound.is_empty() || bound.iter().any(|one| !matches!(one, Bound::Refused(_))) {
        giving.revive(manifest.component, &digest).await?;
        let parts: BTreeSet<_> = parsed.required_manifests().iter().map(|part| &part.digest).collect();
        for part in parts {
            giving.revive(manifest.component, part).await?;
        }
        if row.is_none() {
            giving.batch.change_first(recorded);
        }
    }
    giving.finish().await?;
    Ok(Pushed { stored, names: bound })
}

async fn give_names(
    giving: &mut Giving<'_>,
    manifest: &Manifest<'_>,
    digest: &Digest,
    names: Names<'_>,
) -> Result<Vec<Bound>, EngineError> {
    let mut bound = Vec::with_capacity(names.tags.len());
    if names.tags.is_empty() {
        return Ok(bound);
    }
    let known = giving.component(manifest.component, None).await?;
    let mut given = BTreeSet::new();
    for tag in names.tags {
        // `1.4.2` and `v1.4.2` are one name.
        let meant = match meaning_of(tag, known.policy, &known.patterns) {
            TagMeaning::Version(version) => version.to_string(),
            TagMeaning::Channel(tag) | TagMeaning::Attachment(tag) => tag.to_string(),
        };
        if !given.insert(meant) {
            bound.push(Bound::Already { name: tag.clone(), digest: digest.clone() });
            continue;
        }
        let request = Bind {
            component: manifest.component.clone(),
            tag: tag.clone(),
            digest: digest.clone(),
            commit: None,
            location: None,
            home: None,
            absent: names.absent,
        };
        let outcome = giving.give(&known, &request).await?;
        let refused = matches!(outcome, Bound::Refused(_));
        bound.push(outcome);
        if refused {
            break;
        }
    }
    Ok(bound)
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
    store.blobs().put_announced(bytes.to_vec(), digest).await?;
    Ok(())
}

/// Everything that the manifest needs is here, and this component may read it: who names the digest of other people's bytes
/// does not get them. What it names several times is looked up once: a manifest has room for tens of thousands.
async fn require_contents(
    conn: &mut Conn,
    store: &Store,
    manifest: &Manifest<'_>,
    parsed: &ParsedManifest,
) -> Result<(), StoreManifestError> {
    let component = manifest.component;
    let mut sizes = BTreeMap::new();
    for needed in parsed.required_blobs() {
        if needed.embedded().is_some() {
            continue;
        }
        if !sizes.contains_key(&needed.digest) {
            let here = content::is_readable(conn, component, &needed.digest).await?
                && store.blobs().hold(&needed.digest)?;
            if !here {
                return Err(missing(component, &needed.digest));
            }
            sizes.insert(&needed.digest, store.blobs().size(&needed.digest)?);
        }
        require_size(needed, sizes[&needed.digest])?;
    }
    let mut children = BTreeMap::new();
    for child in parsed.required_manifests() {
        if !children.contains_key(&child.digest) {
            children.insert(&child.digest, artefact::manifest(conn, component, &child.digest).await?);
        }
        match &children[&child.digest] {
            Some(row) => {
                require_type(child, &row.media_type)?;
                require_size(child, row.size)?;
            }
            None if child.embedded().is_some() => {}
            None => return Err(missing(component, &child.digest)),
        }
    }
    // An artefact whose bytes expired is no part of a new one.
    match content::first_missing(conn, store.blobs(), children.into_keys()).await? {
        Some(gone) => Err(missing(component, &gone)),
        None => Ok(()),
    }
}

fn require_type(descriptor: &Descriptor, found: &str) -> Result<(), StoreManifestError> {
    match descriptor.media_type == found {
        true => Ok(()),
        false => Err(StoreManifestError::WrongType {
            digest: descriptor.digest.clone(),
            said: descriptor.media_type.clone(),
            found: found.to_owned(),
        }),
    }
}

fn require_size(descriptor: &Descriptor, found: u64) -> Result<(), StoreManifestError> {
    match descriptor.size == found {
        true => Ok(()),
        false => Err(StoreManifestError::WrongSize {
            digest: descriptor.digest.clone(),
            said: descriptor.size,
            found,
        }),
    }
}

fn missing(component: &ComponentName, digest: &Digest) -> StoreManifestError {
    tracing::debug!(%component, blob = %digest, "Refused a manifest without its content");
    StoreManifestError::MissingContent(digest.clone())
}

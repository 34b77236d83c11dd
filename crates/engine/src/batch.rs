//! What one verb records: changes and signatures of one actor at one time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::entry::{Change, Entry, Leaf, ManifestStored};
use semel_model::name::ComponentName;
use semel_model::statement::{Envelope, Statement, key_hint};
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use semel_store::Store;
use semel_store::keys::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::EngineError;

/// Leaves in the making.
#[derive(Debug)]
pub(crate) struct Batch {
    time: Timestamp,
    actor: Actor,
    leaves: Vec<Leaf>,
}

/// A statement that was signed and stored.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) envelope: Digest,
    pub(crate) signer: String,
}

impl Batch {
    pub(crate) fn new(actor: &Actor, now: Timestamp) -> Self {
        let time = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        Self { time, actor: actor.clone(), leaves: Vec::new() }
    }

    /// Adds a change.
    pub(crate) fn change(&mut self, change: Change) {
        self.leaves.push(Leaf::Entry(Box::new(Entry::new(self.time, self.actor.clone(), change))));
    }

    /// Adds a change before all others.
    pub(crate) fn change_first(&mut self, change: Change) {
        self.leaves.insert(0, Leaf::Entry(Box::new(Entry::new(self.time, self.actor.clone(), change))));
    }

    /// Signs a statement about an artefact, stores the envelope and a referrer that other tools find, and adds the leaves of
    /// both. The bytes are durable before the entries that name them.
    pub(crate) fn sign(
        &mut self,
        store: &Store,
        role: &Role,
        component: &ComponentName,
        subject: &Descriptor,
        statement: &Statement,
    ) -> Result<Signed, EngineError> {
        let key = store.keys().role_key(role)?;
        let envelope = Envelope::sign(statement, &key);
        let (signed, bundle) = (envelope.to_bytes(), envelope.bundle());
        let layer = Descriptor::of(media_type::SIGSTORE_BUNDLE, &bundle);
        let annotations = BTreeMap::from([
            ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
            ("dev.sigstore.bundle.predicateType".to_owned(), statement.predicate_type.clone()),
        ]);
        let encoded =
            ImageManifest::referrer(subject, media_type::SIGSTORE_BUNDLE, vec![layer], annotations).encode();
        store.blobs().put_all(&[&signed, &bundle, b"{}", &encoded.bytes])?;
        self.change(Change::ManifestStored(ManifestStored {
            component: component.clone(),
            digest: encoded.descriptor.digest,
            media_type: encoded.descriptor.media_type,
            size: encoded.bytes.len() as u64,
            subject: Some(subject.digest.clone()),
        }));
        let body = envelope
            .hashedrekord(key.verifying_key())
            .map_err(|error| EngineError::invalid(format!("the statement cannot be recorded: {error}")))?;
        self.leaves.push(Leaf::Signature(body));
        Ok(Signed { envelope: Digest::of(&signed), signer: key_hint(key.verifying_key()) })
    }

    pub(crate) fn into_leaves(self) -> Vec<Leaf> {
        self.leaves
    }
}

/// Stores a document in canonical form and gives its digest.
pub(crate) fn put_document<T: Serialize>(store: &Store, document: &T) -> Result<Digest, EngineError> {
    Ok(store.blobs().put(&canonical::bytes(document))?.digest)
}

/// Reads a document that the ledger names.
pub(crate) fn read_document<T: DeserializeOwned>(store: &Store, digest: &Digest) -> Result<T, EngineError> {
    let bytes = store.blobs().read(digest)?;
    serde_json::from_slice(&bytes).map_err(|source| EngineError::Document { digest: digest.clone(), source })
}

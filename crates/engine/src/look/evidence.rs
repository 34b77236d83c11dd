//! `semel evidence`: what is said about an artefact, word for word.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::name::ComponentName;
use semel_model::statement::{Envelope, Statement, predicate_name, predicate_type};
use semel_model::version::VersionWord;
use semel_store::Store;
use semel_store::projections::evidence;
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::versions::EvidenceLine;
use crate::artefact::{self, Artefact};
use crate::batch::read_document;
use crate::error::EngineError;

/// One piece of evidence in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// About which artefact.
    pub artefact: Artefact,
    /// What the ledger knows of it, and whether its signature verifies.
    pub evidence: EvidenceLine,
    /// The type of the statement as a URI.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
    /// The signed envelope.
    pub envelope: Value,
}

/// The newest evidence of a type, which is a short name or a URI.
pub async fn read(
    store: &Store,
    name: &ComponentName,
    word: &VersionWord,
    kind: &str,
    now: Timestamp,
) -> Result<Said, EngineError> {
    let mut conn = store.reader().await?;
    let artefact = artefact::find(&mut conn, name, word, now).await?;
    let wanted = predicate_type(kind)
        .ok_or_else(|| EngineError::precondition(format!("`{kind}` is no type of evidence")))?;
    match newest(store, &mut conn, &artefact, &wanted).await? {
        Some(said) => Ok(said),
        None => {
            Err(EngineError::not_found(format!("nothing of type {kind} is attached to {}", artefact.name()))
                .with_hint(format!("semel evidence {name}@{word}")))
        }
    }
}

/// The newest evidence of a type about an artefact.
pub(crate) async fn newest(
    store: &Store,
    conn: &mut Conn,
    artefact: &Artefact,
    wanted: &str,
) -> Result<Option<Said>, EngineError> {
    let all = evidence::about(conn, &artefact.component, &artefact.digest).await?;
    let Some(one) = all.into_iter().rfind(|one| one.fact.predicate_type == wanted) else { return Ok(None) };
    let envelope: Envelope = read_document(store, &one.fact.envelope)?;
    let verified = verified(store, artefact, &envelope)?;
    let evidence = EvidenceLine {
        kind: predicate_name(&one.fact.predicate_type).to_owned(),
        result: one.fact.result,
        time: one.fact.time,
        environment: one.fact.environment,
        envelope: one.fact.envelope,
        verified: verified.is_some(),
    };
    let envelope = json!(envelope);
    // What nobody signed is not shown as what somebody said.
    let predicate = verified.map(|statement| statement.predicate).unwrap_or_default();
    let predicate_type = wanted.to_owned();
    Ok(Some(Said { artefact: artefact.clone(), evidence, predicate_type, predicate, envelope }))
}

/// What an envelope says, if a key of this store signed it and it is about this artefact.
pub(crate) fn verified(
    store: &Store,
    artefact: &Artefact,
    envelope: &Envelope,
) -> Result<Option<Statement>, EngineError> {
    let keys = store.keys().existing_public_keys()?;
    let mut statements = keys.iter().filter_map(|key| envelope.verify(key).ok());
    Ok(statements.find(|statement| statement.is_about(&artefact.digest)))
}

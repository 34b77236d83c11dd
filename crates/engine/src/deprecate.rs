//! Deprecate: this version should not be used any more. It can be fetched as before; who fetches it is told.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::entry::{Change, VersionDeprecated};
use semel_model::name::ComponentName;
use semel_model::version::VersionWord;
use semel_store::Store;
use semel_store::projections::artefact as artefacts;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::batch::Batch;
use crate::error::EngineError;

/// Deprecates a version, or takes that back.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deprecate {
    /// Which component.
    pub component: ComponentName,
    /// Which of its versions, as a person writes it.
    pub version: String,
    /// Why it should not be used; none takes the deprecation back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deprecated {
    /// Which artefact.
    pub artefact: Artefact,
    /// Why it should not be used, if it should not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether that was so before.
    pub already: bool,
}

/// The most characters of a reason: it is sent to clients in a header.
const MAX_REASON: usize = 500;

/// Deprecates a version with a reason, or takes the deprecation back without one.
pub async fn deprecate(
    store: &Store,
    who: &Actor,
    request: Deprecate,
    now: Timestamp,
) -> Result<Deprecated, EngineError> {
    let word: VersionWord = request.version.parse().map_err(|e| EngineError::precondition(format!("{e}")))?;
    let reason = request.reason.as_deref().map(clean).transpose()?;
    let mut turn = store.turn().await?;
    let artefact = artefact::find(turn.db(), &request.component, &word, now).await?;
    let Some(version) = artefact.version.clone() else {
        return Err(EngineError::precondition(format!("{} has no version to deprecate", artefact.name()))
            .with_hint("reject the digest instead: semel reject"));
    };
    let known = artefacts::version(turn.db(), &request.component, &version).await?;
    let already = known.and_then(|one| one.deprecated) == reason;
    let mut batch = Batch::new(who, now);
    if !already {
        let (component, reason) = (request.component, reason.clone());
        batch.change(Change::VersionDeprecated(VersionDeprecated { component, version, reason }));
    }
    turn.append(batch.into_leaves()).await?;
    Ok(Deprecated { artefact, reason, already })
}

/// One line that fits into a header.
fn clean(reason: &str) -> Result<String, EngineError> {
    let reason = reason.trim();
    match reason.is_empty() || reason.len() > MAX_REASON || reason.contains(char::is_control) {
        true => {
            Err(EngineError::precondition(format!("a reason is one line of 1 to {MAX_REASON} characters")))
        }
        false => Ok(reason.to_owned()),
    }
}

//! Reject and accept: this digest may not run, until somebody says so.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, Rejected, RejectedThing};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::version::VersionWord;
use semel_store::Store;
use semel_store::ledger::Turn;
use semel_store::projections::{deployment, promotion};
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::batch::Batch;
use crate::error::EngineError;
use crate::pipeline;

/// Rejects an artefact, or accepts it again.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// Which component.
    pub component: ComponentName,
    /// Which of its artefacts, as a person writes it.
    pub version: String,
    /// Only here; none: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// Why it is rejected; none accepts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It may not be fetched either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pulls: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    /// Which artefact.
    pub artefact: Artefact,
    /// The rejections that were lifted, or the one that was made, in words.
    pub changed: Vec<String>,
}

/// Rejects with a reason, or lifts every rejection that applies without one.
pub async fn judge(
    store: &Store,
    who: &Actor,
    request: Judge,
    now: Timestamp,
) -> Result<Judged, EngineError> {
    let word: VersionWord = request.version.parse().map_err(|e| EngineError::precondition(format!("{e}")))?;
    let mut turn = store.turn().await?;
    let artefact = artefact::find(turn.db(), &request.component, &word, now).await?;
    if let (Some(environment), Some(_)) = (&request.environment, &request.reason) {
        pipeline::require(store, turn.db(), &request.component, environment).await?;
    }
    let mut batch = Batch::new(who, now);
    let changed = match &request.reason {
        Some(reason) => reject(&mut turn, &mut batch, &artefact, &request, reason).await?,
        None => accept(&mut turn, &mut batch, &artefact, &request).await?,
    };
    turn.append(batch.into_leaves()).await?;
    Ok(Judged { artefact, changed })
}

async fn reject(
    turn: &mut Turn,
    batch: &mut Batch,
    artefact: &Artefact,
    request: &Judge,
    reason: &str,
) -> Result<Vec<String>, EngineError> {
    let reason = reason.trim();
    if reason.is_empty() {
        return Err(EngineError::precondition("a rejection needs a reason"));
    }
    let place = request.environment.as_ref().map_or("", EnvironmentName::as_str);
    if request.pulls && !place.is_empty() {
        return Err(EngineError::precondition("what is fetched is not fetched for an environment")
            .with_hint("reject it for every environment: leave the environment out"));
    }
    let known = promotion::all_rejections(turn.db(), &artefact.component).await?;
    let rejected = known
        .iter()
        .any(|(kind, digest, at, _)| kind == "digest" && *digest == artefact.digest && at == place);
    let stopped =
        promotion::pulls_rejected(turn.db(), &artefact.component, &artefact.digest).await?.is_some();
    if rejected && (stopped || !request.pulls) {
        return Ok(Vec::new());
    }
    batch.change(Change::Rejected(Rejected {
        component: artefact.component.clone(),
        what: RejectedThing::Digest(artefact.digest.clone()),
        environments: request.environment.iter().cloned().collect(),
        reason: reason.to_owned(),
        pulls: request.pulls,
    }));
    Ok(vec![match &request.environment {
        None if request.pulls => {
            format!("{} may no longer be promoted anywhere, nor fetched", artefact.name())
        }
        Some(environment) => format!("{} may no longer be promoted to {environment}", artefact.name()),
        None => format!("{} may no longer be promoted anywhere", artefact.name()),
    }])
}

/// Lifts the rejections of the digest and of every deployment key that it failed with.
async fn accept(
    turn: &mut Turn,
    batch: &mut Batch,
    artefact: &Artefact,
    request: &Judge,
) -> Result<Vec<String>, EngineError> {
    let keys: Vec<Digest> =
        deployment::of_digest(turn.db(), &artefact.digest).await?.into_iter().map(|one| one.key).collect();
    let mut words = Vec::new();
    for (kind, digest, place, reason) in promotion::all_rejections(turn.db(), &artefact.component).await? {
        let concerns =
            (kind == "digest" && digest == artefact.digest) || (kind == "key" && keys.contains(&digest));
        let here = request.environment.as_ref().is_none_or(|environment| place == environment.as_str());
        if !concerns || !here {
            continue;
        }
        let what = if kind == "digest" { RejectedThing::Digest(digest) } else { RejectedThing::Key(digest) };
        let at = if place.is_empty() { "everywhere".to_owned() } else { format!("for {place}") };
        words.push(format!("{} is accepted again {at} (it was rejected: {reason})", artefact.name()));
        let environments = place.parse().into_iter().collect();
        let component = artefact.component.clone();
        let reason = "accepted".to_owned();
        batch.change(Change::Accepted(Rejected { component, what, environments, reason, pulls: false }));
    }
    Ok(words)
}

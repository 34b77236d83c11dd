//! `semel history ENV`: what happened there, newest first, in words.

use schemars::JsonSchema;
use semel_model::deployment::Observed;
use semel_model::entry::{Change, FailedOutcome, Leaf, RejectedThing};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::version::known_as;
use semel_store::Store;
use semel_store::ledger;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Happened {
    /// Its place in the ledger.
    pub seq: u64,
    /// When.
    pub time: String,
    /// What kind of entry.
    pub kind: String,
    /// In words.
    pub what: String,
    /// Who did it, as far as the store still knows.
    pub who: String,
}

/// What happened in an environment to one component, newest first.
pub async fn history(
    store: &Store,
    component: &ComponentName,
    environment: &EnvironmentName,
    limit: u64,
) -> Result<Vec<Happened>, EngineError> {
    let mut conn = store.reader().await?;
    let events = ledger::events(&mut conn, environment.as_str(), component.as_str(), limit).await?;
    let mut happened = Vec::new();
    for recorded in events {
        let Leaf::Entry(entry) = recorded.leaf else { continue };
        happened.push(Happened {
            seq: recorded.seq,
            time: entry.time.to_string(),
            kind: entry.change.kind().to_owned(),
            what: words(&entry.change),
            who: store.name_of(&entry.actor.subject).await?,
        });
    }
    Ok(happened)
}

/// A change in one line.
pub(crate) fn words(change: &Change) -> String {
    match change {
        Change::PromotionGranted(b) => format!("{} may run here", known_as(b.version.as_ref(), &b.digest)),
        Change::PromotionRefused(b) => format!("{} was refused", known_as(b.version.as_ref(), &b.digest)),
        Change::DeploymentStarted(b) => match b.rollback_of {
            Some(from) => format!(
                "rolling back from generation {from} to {} (generation {})",
                known_as(b.version.as_ref(), &b.digest),
                b.generation
            ),
            None => format!(
                "deploying {} (generation {}, config {})",
                known_as(b.version.as_ref(), &b.digest),
                b.generation,
                b.config.short()
            ),
        },
        Change::DeploymentSucceeded(b) => {
            let warnings = b.warnings.iter().map(|warning| format!("; {warning}"));
            format!("generation {} runs{}", b.generation, warnings.collect::<String>())
        }
        Change::DeploymentFailed(b) => {
            let how = match b.outcome {
                FailedOutcome::Failed => "failed",
                FailedOutcome::Errored => "went wrong",
                FailedOutcome::Refused => "was not switched on",
            };
            let restored = b.restored.map(|n| format!("; generation {n} runs again")).unwrap_or_default();
            format!("generation {} {how}: {}{restored}", b.generation, b.reason)
        }
        Change::DeploymentRefused(b) => {
            format!("deployment of {} refused: {}", b.digest.short(), b.reasons.join("; "))
        }
        Change::ObservationChanged(b) => format!("observed: {}", observed(&b.observed)),
        Change::DriftDetected(b) => {
            let drift: Vec<String> = b.drift.iter().map(ToString::to_string).collect();
            format!("drift from generation {}: {}", b.generation, drift.join(", "))
        }
        Change::HoldSet(b) => format!("held: {}", b.reason),
        Change::HoldReleased(_) => "resumed".to_owned(),
        Change::Rejected(b) => match &b.what {
            RejectedThing::Digest(digest) => format!("{} rejected: {}", digest.short(), b.reason),
            RejectedThing::Key(key) => format!("deployment {} rejected: {}", key.short(), b.reason),
        },
        Change::Accepted(b) => match &b.what {
            RejectedThing::Digest(digest) => format!("{} accepted again", digest.short()),
            RejectedThing::Key(key) => format!("deployment {} accepted again", key.short()),
        },
        other => other.kind().to_owned(),
    }
}

/// A report in words.
pub(crate) fn observed(observed: &Observed) -> String {
    use semel_model::deployment::{FilesState, HealthState, RunState};
    let state = match observed.state {
        RunState::Running => "running",
        RunState::Stopped => "stopped",
        RunState::Absent => "nothing deployed",
    };
    let artefact =
        observed.artefact.as_ref().map(|digest| format!(" {}", digest.short())).unwrap_or_default();
    let health = match observed.health {
        HealthState::Healthy => ", healthy",
        HealthState::Unhealthy => ", unhealthy",
        HealthState::Unknown => "",
    };
    let files = if observed.files == FilesState::Edited { ", files edited" } else { "" };
    format!("{state}{artefact}{health}{files}")
}

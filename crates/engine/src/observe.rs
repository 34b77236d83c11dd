//! Observe: what a target reports that it runs. Recorded when it is news.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::deployment::{Desired, Drift, Observed, drift};
use semel_model::entry::{Change, DriftDetected, ObservationChanged};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_store::Store;
use semel_store::ledger::Turn;
use semel_store::projections::deployment::{self, Deployment, DeploymentState};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::EngineError;

/// How old an observation may be before nothing is known (invariant I20), in milliseconds.
pub const TIME_TO_LIVE_MILLIS: i64 = 10 * 60 * 1_000;

/// A report of a target.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// What is there.
    pub observed: Observed,
}

/// What a report means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// Whether it was news.
    pub changed: bool,
    /// How it differs from what was deployed.
    pub drift: Vec<Drift>,
}

/// Takes a report in. Only news is recorded; that something was seen at all is remembered.
pub async fn observe(
    store: &Store,
    who: &Actor,
    report: Observation,
    now: Timestamp,
) -> Result<Seen, EngineError> {
    let mut turn = store.turn().await?;
    let (component, environment) = (&report.component, &report.environment);
    let wanted = wanted(&mut turn, component, environment).await?;
    let mut batch = Batch::new(who, now);
    let changed =
        record(&mut turn, &mut batch, component, environment, &report.observed, now, wanted.as_ref()).await?;
    turn.append(batch.into_leaves()).await?;
    let drift = wanted.map(|wanted| drift(&desired(&wanted), Some(&report.observed))).unwrap_or_default();
    Ok(Seen { changed, drift })
}

/// The deployment that should run: the newest that succeeded, unless another one is under way, when nothing can be said.
async fn wanted(
    turn: &mut Turn,
    component: &ComponentName,
    environment: &EnvironmentName,
) -> Result<Option<Deployment>, EngineError> {
    let newest = deployment::list(turn.db(), component, environment, 1).await?.pop();
    if newest.is_some_and(|newest| newest.state == DeploymentState::Started) {
        return Ok(None);
    }
    Ok(deployment::nth_success(turn.db(), component, environment, 0).await?)
}

/// What a deployment asks a target to run.
pub(crate) fn desired(deployment: &Deployment) -> Desired {
    Desired {
        key: deployment.key.clone(),
        artefact: deployment.digest.clone(),
        config: deployment.config.clone(),
    }
}

/// Adds a report to the batch when it is news, which is the answer, and the drift that it shows. `wanted` is what should run.
pub(crate) async fn record(
    turn: &mut Turn,
    batch: &mut Batch,
    component: &ComponentName,
    environment: &EnvironmentName,
    observed: &Observed,
    now: Timestamp,
    wanted: Option<&Deployment>,
) -> Result<bool, EngineError> {
    deployment::touch_observation(turn.db(), component, environment, now).await?;
    let before = deployment::observation(turn.db(), component, environment).await?;
    if before.is_some_and(|(before, _)| before.same_as(observed)) {
        return Ok(false);
    }
    batch.change(Change::ObservationChanged(ObservationChanged {
        component: component.clone(),
        environment: environment.clone(),
        observed: observed.clone(),
    }));
    // While a deployment has no outcome, differing from it is no drift.
    if let Some(wanted) = wanted.filter(|wanted| wanted.state == DeploymentState::Succeeded) {
        let drift = drift(&desired(wanted), Some(observed));
        if !drift.is_empty() {
            batch.change(Change::DriftDetected(DriftDetected {
                component: component.clone(),
                environment: environment.clone(),
                generation: wanted.generation,
                drift,
            }));
        }
    }
    Ok(true)
}

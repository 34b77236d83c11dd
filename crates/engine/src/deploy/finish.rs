//! Finish: how a deployment came out, and what follows from it.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::deployment::Observed;
use semel_model::entry::{
    Change, DeploymentFailed, DeploymentSucceeded, FailedOutcome, HoldSet, Rejected, RejectedThing,
};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::version::known_as;
use semel_store::Store;
use semel_store::ledger::Turn;
use semel_store::projections::deployment::{self, Deployment, DeploymentState};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::EngineError;
use crate::observe;

/// How a deployment came out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// Which deployment.
    pub generation: u64,
    /// How.
    pub outcome: Outcome,
    /// What the target reports now.
    pub observed: Observed,
}

/// How a deployment came out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It runs and was observed to.
    Succeeded {
        /// What was found on the host for each need.
        needs: Vec<String>,
        /// What somebody should look at, one line each, without values.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// The new release started and was not well.
    Failed {
        /// Why, in one line, without values.
        reason: String,
        /// The generation that runs again.
        restored: Option<u64>,
    },
    /// The target did not switch it on, and touched nothing: the artefact carries a secret of the environment.
    Refused {
        /// Why, in one line, without values.
        reason: String,
    },
    /// Something outside it went wrong.
    Errored {
        /// Why, in one line, without values.
        reason: String,
        /// The generation that runs again.
        restored: Option<u64>,
    },
}

/// A deployment whose outcome is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// Which deployment.
    pub generation: u64,
    /// What was recorded besides the outcome, in words.
    pub consequences: Vec<String>,
    /// Whether the outcome was recorded before.
    pub already: bool,
}

/// Records how a deployment came out, and what follows from it (a success that was recorded stays one): a failure holds the
/// environment and rejects the deployment key; a rollback holds the environment; a refusal by the target does neither.
pub async fn finish(
    store: &Store,
    who: &Actor,
    request: Finish,
    now: Timestamp,
) -> Result<Finished, EngineError> {
    let mut turn = store.turn().await?;
    let (component, environment) = (&request.component, &request.environment);
    let Some(known) = deployment::get(turn.db(), component, environment, request.generation).await? else {
        return Err(EngineError::not_found(format!(
            "{component} has no deployment {} in {environment}",
            request.generation
        )));
    };
    let mut batch = Batch::new(who, now);
    let already = is_recorded(known.state, &request.outcome);
    let mut consequences = Vec::new();
    if known.state == DeploymentState::Succeeded && !already {
        // It did run: that it cannot be started again now is seen as drift, and takes nothing back.
        consequences.push(format!(
            "generation {} does not run any more: semel status shows the drift",
            known.generation
        ));
    } else if !already {
        record_outcome(&mut batch, &request);
        consequences = consequences_of(&mut turn, &mut batch, &known, &request).await?;
    }
    observe::record(&mut turn, &mut batch, component, environment, &request.observed, now, Some(&known))
        .await?;
    turn.append(batch.into_leaves()).await?;
    Ok(Finished { generation: request.generation, consequences, already })
}

/// Whether a deployment came out like this before: a report that is repeated changes nothing (invariant I16).
fn is_recorded(state: DeploymentState, outcome: &Outcome) -> bool {
    matches!(
        (state, outcome),
        (DeploymentState::Succeeded, Outcome::Succeeded { .. })
            | (DeploymentState::Failed, Outcome::Failed { .. })
            | (DeploymentState::Errored, Outcome::Errored { .. })
            | (DeploymentState::Refused, Outcome::Refused { .. })
    )
}

fn record_outcome(batch: &mut Batch, request: &Finish) {
    let (component, environment, generation) =
        (request.component.clone(), request.environment.clone(), request.generation);
    let failed = |outcome, reason: &str, restored| DeploymentFailed {
        component: component.clone(),
        environment: environment.clone(),
        generation,
        outcome,
        reason: cut(reason),
        restored,
    };
    let change = match &request.outcome {
        Outcome::Succeeded { needs, warnings } => Change::DeploymentSucceeded(DeploymentSucceeded {
            component: component.clone(),
            environment: environment.clone(),
            generation,
            checked_by: "semel".to_owned(),
            needs: needs.clone(),
            warnings: bounded(warnings),
        }),
        Outcome::Failed { reason, restored } => {
            Change::DeploymentFailed(failed(FailedOutcome::Failed, reason, *restored))
        }
        Outcome::Errored { reason, restored } => {
            Change::DeploymentFailed(failed(FailedOutcome::Errored, reason, *restored))
        }
        Outcome::Refused { reason } => Change::DeploymentFailed(failed(FailedOutcome::Refused, reason, None)),
    };
    batch.change(change);
}

/// As much of a report as an entry takes.
fn cut(text: &str) -> String {
    text.chars().take(1_000).collect()
}

fn bounded(lines: &[String]) -> Vec<String> {
    lines.iter().take(5).map(|line| cut(line)).collect()
}

async fn consequences_of(
    turn: &mut Turn,
    batch: &mut Batch,
    known: &Deployment,
    request: &Finish,
) -> Result<Vec<String>, EngineError> {
    let mut words = Vec::new();
    let (environment, name) = (&request.environment, known_as(known.version.as_ref(), &known.digest));
    match &request.outcome {
        Outcome::Succeeded { .. } => {
            if let Some(from) = known.rollback_of {
                let reason = format!("rolled back from generation {from} to {name}");
                words.push(hold(batch, request, reason));
            }
        }
        Outcome::Failed { reason, .. } => {
            words.push(hold(batch, request, format!("{name} failed: {}", first_line(reason))));
            let reason = format!("failed in {environment}: {}", first_line(reason));
            reject(batch, request, RejectedThing::Key(known.key.clone()), reason.clone());
            words.push(format!("{name} is rejected for {environment} with this configuration"));
            let mut configs = deployment::failed_configs(turn.db(), &known.component, &known.digest).await?;
            configs.push(known.config.clone());
            configs.sort();
            configs.dedup();
            if configs.len() > 1 {
                reject(
                    batch,
                    request,
                    RejectedThing::Digest(known.digest.clone()),
                    format!("{reason} (with two configurations)"),
                );
                words
                    .push(format!("{name} failed with two configurations and is rejected for {environment}"));
            }
        }
        // Nothing was touched and nothing needs holding; the same again gets the same answer.
        Outcome::Refused { .. } => {}
        Outcome::Errored { reason, .. } => {
            words.push(hold(batch, request, format!("deploying {name} went wrong: {}", first_line(reason))));
        }
    }
    Ok(words)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("").chars().take(300).collect()
}

fn hold(batch: &mut Batch, request: &Finish, reason: String) -> String {
    let words = format!("{} is held: {reason}", request.environment);
    batch.change(Change::HoldSet(HoldSet {
        environment: request.environment.clone(),
        component: Some(request.component.clone()),
        reason,
    }));
    words
}

fn reject(batch: &mut Batch, request: &Finish, what: RejectedThing, reason: String) {
    batch.change(Change::Rejected(Rejected {
        component: request.component.clone(),
        what,
        environments: vec![request.environment.clone()],
        reason,
        pulls: false,
    }));
}

//! `semel why ENV`: why does this run here? And why did the last attempt not?

use schemars::JsonSchema;
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::promotion::Decision;
use semel_model::version::known_as;
use semel_store::Store;
use semel_store::projections::deployment::{self, DeploymentState};
use semel_store::projections::promotion;
use serde::{Deserialize, Serialize};

use super::commits::{self, Commit};
use super::history::{self, Happened};
use crate::artefact::Artefact;
use crate::batch::read_document;
use crate::error::EngineError;
use crate::pipeline;

/// The reasons for what runs in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// What runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Why nothing moves there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// The newest deployment, where it did not succeed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The newest refused promotion that is newer than what runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Decision>,
    /// What happened last.
    pub recent: Vec<Happened>,
}

/// What runs, and on what grounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Running {
    /// The artefact.
    pub artefact: Artefact,
    /// Its deployment.
    pub generation: u64,
    /// Since when.
    pub since: String,
    /// The generation that it was rolled back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// The decision that allowed it.
    pub decision: Decision,
    /// The commits that came with it.
    pub commits: Vec<Commit>,
}

/// Explains an environment.
pub async fn why(
    store: &Store,
    component: &ComponentName,
    environment: &EnvironmentName,
) -> Result<Why, EngineError> {
    let mut conn = store.reader().await?;
    let in_force = pipeline::get(store, &mut conn, component).await?;
    pipeline::binding(&in_force, environment)?;
    let newest = deployment::list(&mut conn, component, environment, 1).await?.pop();
    let succeeded = deployment::nth_success(&mut conn, component, environment, 0).await?;
    let running = match &succeeded {
        Some(one) => {
            let artefact = super::versions::running_version(&mut conn, one).await?;
            let commits = match artefact.number {
                Some(number) => commits::of_build(store, &mut conn, component, number).await?,
                None => Vec::new(),
            };
            Some(Running {
                artefact,
                generation: one.generation,
                since: one.finished.clone().unwrap_or_else(|| one.started.clone()),
                rollback_of: one.rollback_of,
                decision: read_document(store, &one.decision)?,
                commits,
            })
        }
        None => None,
    };
    let since = running.as_ref().map_or("", |one| one.since.as_str());
    let newest_decision = promotion::newest(&mut conn, component, environment, 1).await?.pop();
    let refused = match newest_decision.filter(|decision| !decision.granted && decision.time.as_str() > since)
    {
        Some(decision) => Some(read_document(store, &decision.decision)?),
        None => None,
    };
    let trouble = newest.filter(|one| one.state != DeploymentState::Succeeded).map(|one| {
        let name = known_as(one.version.as_ref(), &one.digest);
        format!(
            "{name} (generation {}): {}",
            one.generation,
            one.reason.unwrap_or_else(|| "no outcome yet".to_owned())
        )
    });
    Ok(Why {
        component: component.clone(),
        environment: environment.clone(),
        running,
        hold: deployment::hold(&mut conn, component, environment).await?.map(|hold| hold.reason),
        trouble,
        refused,
        recent: history::history(store, component, environment, 6).await?,
    })
}

//! `semel status`: what runs where, exceptions first.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::deployment::{Drift, Observed, drift};
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::Target;
use semel_model::platform::Platform;
use semel_model::version::{Version, known_as};
use semel_store::Store;
use semel_store::projections::build::{self, BuildState};
use semel_store::projections::{artefact as artefacts, component, deployment, pipeline as pipelines};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::error::EngineError;
use crate::observe::{TIME_TO_LIVE_MILLIS, desired};
use crate::pipeline;

/// One environment of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusLine {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// What was last deployed successfully.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Artefact>,
    /// Its generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Its config digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How many published versions are newer.
    pub behind: u64,
    /// What the target last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// When it last reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<String>,
    /// How what runs differs from what was deployed.
    pub drift: Vec<Drift>,
    /// Why nothing moves here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// A newer deployment that has not succeeded, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

impl StatusLine {
    /// Whether somebody should look at it.
    pub fn is_exception(&self) -> bool {
        !self.drift.is_empty() || self.hold.is_some() || self.trouble.is_some()
    }
}

/// The newest build of a component, when its version waits for parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// Which component.
    pub component: ComponentName,
    /// The version that the whole will have.
    pub version: Version,
    /// The build number.
    pub number: u64,
    /// The platforms whose parts are to come.
    pub missing: Vec<Platform>,
    /// Why the last attempt at one of them failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Every environment of every component that has a pipeline, or of one component, in the order of the pipelines.
pub async fn status(
    store: &Store,
    component: Option<&ComponentName>,
    now: Timestamp,
) -> Result<Vec<StatusLine>, EngineError> {
    let mut conn = store.reader().await?;
    let mut lines = Vec::new();
    for name in components(&mut conn, component).await? {
        let in_force = pipeline::get(store, &mut conn, &name).await?;
        for environment in in_force.pipeline.in_order() {
            let target = in_force.pipeline.environments[environment].target.clone();
            lines.push(line(&mut conn, &name, environment, target, now).await?);
        }
    }
    Ok(lines)
}

async fn components(
    conn: &mut Conn,
    component: Option<&ComponentName>,
) -> Result<Vec<ComponentName>, EngineError> {
    Ok(match component {
        Some(one) => vec![one.clone()],
        None => pipelines::components(conn).await?,
    })
}

/// The newest builds of the same components, as far as they wait for parts. What waits behind a newer build is not waited for.
pub async fn waiting(store: &Store, component: Option<&ComponentName>) -> Result<Vec<Waiting>, EngineError> {
    let mut conn = store.reader().await?;
    let mut waiting = Vec::new();
    for name in components(&mut conn, component).await? {
        let Some(known) = component::get(&mut conn, &name).await? else { continue };
        let Some(newest) = build::by_number(&mut conn, &name, known.last_build).await? else { continue };
        if newest.platforms.is_empty() || newest.state == BuildState::Published {
            continue;
        }
        let missing = artefact::missing_parts(&mut conn, &newest).await?;
        let build::Build { component, version, number, reason, .. } = newest;
        waiting.push(Waiting { component, version, number, missing, reason });
    }
    Ok(waiting)
}

async fn line(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    target: Option<Target>,
    now: Timestamp,
) -> Result<StatusLine, EngineError> {
    let newest = deployment::list(conn, component, environment, 1).await?.pop();
    let succeeded = deployment::nth_success(conn, component, environment, 0).await?;
    let running = match &succeeded {
        Some(one) => Some(super::versions::running_version(conn, one).await?),
        None => None,
    };
    let reported = deployment::observation(conn, component, environment).await?;
    let fresh = reported.as_ref().filter(|(_, at)| is_fresh(at, now)).map(|(observed, _)| observed);
    let differs = match &succeeded {
        Some(one) if target.is_some() => drift(&desired(one), fresh),
        _ => Vec::new(),
    };
    Ok(StatusLine {
        component: component.clone(),
        environment: environment.clone(),
        behind: behind(conn, running.as_ref()).await?,
        running,
        generation: succeeded.as_ref().map(|one| one.generation),
        config: succeeded.as_ref().map(|one| one.config.clone()),
        since: succeeded.as_ref().and_then(|one| one.finished.clone()),
        observed_at: reported.as_ref().map(|(_, at)| at.clone()),
        observed: reported.map(|(observed, _)| observed),
        drift: differs,
        hold: deployment::hold(conn, component, environment).await?.map(|hold| hold.reason),
        trouble: newest
            .filter(|one| one.state != deployment::DeploymentState::Succeeded)
            .map(|one| trouble(&one)),
        target,
    })
}

/// Silence is unknown (invariant I20).
fn is_fresh(at: &str, now: Timestamp) -> bool {
    at.parse::<Timestamp>().is_ok_and(|at| now.as_millisecond() - at.as_millisecond() <= TIME_TO_LIVE_MILLIS)
}

fn trouble(one: &deployment::Deployment) -> String {
    let name = known_as(one.version.as_ref(), &one.digest);
    match (one.state, &one.reason) {
        (deployment::DeploymentState::Started, _) => {
            format!("deploying {name} (generation {})", one.generation)
        }
        (deployment::DeploymentState::Failed, Some(reason)) => format!("{name} failed: {reason}"),
        (deployment::DeploymentState::Refused, Some(reason)) => {
            format!("{name} was not switched on: {reason}")
        }
        (_, Some(reason)) => format!("deploying {name} went wrong: {reason}"),
        (_, None) => format!("{name} did not come to run"),
    }
}

async fn behind(conn: &mut Conn, running: Option<&Artefact>) -> Result<u64, EngineError> {
    let Some(running) = running else { return Ok(0) };
    let Some(version) = &running.version else { return Ok(0) };
    match artefacts::version(conn, &running.component, version).await? {
        Some(published) => Ok(artefacts::published_after(conn, &running.component, published.seq).await?),
        None => Ok(0),
    }
}

/// Which digest runs in which environment, as far as deployments tell.
pub(crate) async fn running(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
) -> Result<Vec<(EnvironmentName, Digest)>, EngineError> {
    let Some(in_force) = pipeline::find(store, conn, component).await? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for environment in in_force.pipeline.in_order() {
        if let Some(one) = deployment::nth_success(conn, component, environment, 0).await? {
            found.push((environment.clone(), one.digest));
        }
    }
    Ok(found)
}

//! Roll back: to what succeeded here before and was not rejected.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::config::{Contract, Snapshot};
use semel_model::entry::RejectedThing;
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::Target;
use semel_model::version::VersionWord;
use semel_store::Store;
use semel_store::projections::deployment::{self, Deployment, DeploymentState};
use semel_store::projections::promotion;
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::deploy;
use crate::error::EngineError;
use crate::pipeline;

/// What a rollback would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// What runs now.
    pub from: Artefact,
    /// Its generation.
    pub from_generation: u64,
    /// What would run.
    pub to: Artefact,
    /// The generation that succeeded with it.
    pub to_generation: u64,
    /// When it succeeded.
    pub succeeded: String,
    /// The contract of what would run.
    pub contract: Contract,
    /// The values that it ran with: plain ones are taken as they were.
    pub snapshot: Snapshot,
    /// The environment's values file, where secrets may be: relative to the project file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// The target.
    pub target: Target,
    /// Generations that were passed over, with the reason.
    pub passed_over: Vec<String>,
}

/// Finds the deployment to go back to: the newest before the one that runs, or the newest of a version that is named.
pub async fn candidate(
    store: &Store,
    component: &ComponentName,
    environment: &EnvironmentName,
    to: Option<&VersionWord>,
    now: Timestamp,
) -> Result<Candidate, EngineError> {
    let mut conn = store.reader().await?;
    let in_force = pipeline::get(store, &mut conn, component).await?;
    let binding = pipeline::binding(&in_force, environment)?;
    let target = binding.target.clone().ok_or_else(|| {
        EngineError::precondition(format!("{environment} has no target: nothing runs there through Semel"))
    })?;
    let named = match to {
        Some(word) => Some(artefact::find(&mut conn, component, word, now).await?),
        None => None,
    };
    let history = deployment::list(&mut conn, component, environment, 1_000).await?;
    let Some(running) = history.iter().find(|one| one.state == DeploymentState::Succeeded) else {
        return Err(EngineError::NotFound {
            what: format!("nothing of {component} ever ran in {environment}"),
            hint: Some(format!("semel deploy VERSION {environment} -c {component}")),
        });
    };
    let (earlier, passed_over) = choose(&mut conn, &history, running, named.as_ref()).await?;
    let Some(earlier) = earlier else {
        let because =
            if passed_over.is_empty() { String::new() } else { format!(" ({})", passed_over.join("; ")) };
        let what = match &named {
            Some(wanted) => format!("{} never succeeded in {environment} before{because}", wanted.name()),
            None => format!("nothing else ever succeeded in {environment}{because}"),
        };
        return Err(
            EngineError::not_found(what).with_hint(format!("semel history {environment} -c {component}"))
        );
    };
    let from = artefact_of(&mut conn, running).await?;
    let to = artefact_of(&mut conn, earlier).await?;
    let (_, manifest) = artefact::manifest(store, &mut conn, component, &to.digest).await?;
    Ok(Candidate {
        from,
        from_generation: running.generation,
        contract: artefact::contract(&to.digest, &manifest)?,
        to,
        to_generation: earlier.generation,
        succeeded: earlier.finished.clone().unwrap_or_else(|| earlier.started.clone()),
        snapshot: deploy::snapshot(store, earlier)?,
        values: binding.values.clone(),
        target,
        passed_over,
    })
}

/// The newest deployment that can be gone back to, and what was passed over on the way there.
async fn choose<'a>(
    conn: &mut Conn,
    history: &'a [Deployment],
    running: &Deployment,
    named: Option<&Artefact>,
) -> Result<(Option<&'a Deployment>, Vec<String>), EngineError> {
    let mut passed_over = Vec::new();
    for earlier in
        history.iter().filter(|one| one.state == DeploymentState::Succeeded && one.key != running.key)
    {
        if named.is_some_and(|wanted| wanted.digest != earlier.digest) {
            continue;
        }
        let objection = match rejection(conn, earlier).await? {
            None if named.is_none() && was_left(history, earlier) => Some("it was rolled back".to_owned()),
            other => other,
        };
        match objection {
            Some(reason) => passed_over.push(format!("generation {}: {reason}", earlier.generation)),
            None => return Ok((Some(earlier), passed_over)),
        }
    }
    Ok((None, passed_over))
}

/// Whether the last time that this ran here ended with a rollback. The same deployment key is the same thing, whichever
/// generation it ran as; what succeeded again after a rollback is as good as new.
fn was_left(history: &[Deployment], earlier: &Deployment) -> bool {
    let last = history.iter().find(|one| one.state == DeploymentState::Succeeded && one.key == earlier.key);
    last.is_some_and(|last| history.iter().any(|one| one.rollback_of == Some(last.generation)))
}

async fn rejection(conn: &mut Conn, earlier: &Deployment) -> Result<Option<String>, EngineError> {
    for what in [RejectedThing::Digest(earlier.digest.clone()), RejectedThing::Key(earlier.key.clone())] {
        let found = promotion::rejections(conn, &earlier.component, &what, &earlier.environment).await?;
        if let Some(rejection) = found.last() {
            return Ok(Some(format!("rejected: {}", rejection.reason)));
        }
    }
    Ok(None)
}

async fn artefact_of(conn: &mut Conn, deployment: &Deployment) -> Result<Artefact, EngineError> {
    artefact::by_digest(conn, &deployment.component, &deployment.digest).await
}

//! Pipelines: the file proposes, the store disposes.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, PipelineApplied};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::{Binding, Pipeline};
use semel_store::Store;
use semel_store::projections::pipeline as pipelines;
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, put_document, read_document};
use crate::error::EngineError;

/// A pipeline to put in force.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// Which component.
    pub component: ComponentName,
    /// Its bindings.
    pub pipeline: Pipeline,
    /// Put it in force only if the store has none yet.
    #[serde(default)]
    pub only_first: bool,
}

/// A pipeline that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InForce {
    /// Which component.
    pub component: ComponentName,
    /// Its policy digest.
    pub digest: Digest,
    /// Its bindings.
    pub pipeline: Pipeline,
    /// What this call changed, one line per difference; empty: it was in force already.
    #[serde(default)]
    pub changes: Vec<String>,
}

/// Puts a pipeline in force. The one in force already changes nothing.
pub async fn apply(
    store: &Store,
    who: &Actor,
    request: Apply,
    now: Timestamp,
) -> Result<InForce, EngineError> {
    let proposed = Pipeline::new(request.pipeline.environments)
        .map_err(|error| EngineError::invalid(error.to_string()))?;
    let mut turn = store.turn().await?;
    let before = pipelines::in_force(turn.db(), &request.component).await?;
    let earlier: Option<Pipeline> = before.as_ref().map(|digest| read_document(store, digest)).transpose()?;
    if let (Some(digest), Some(earlier)) = (&before, &earlier)
        && (request.only_first || *digest == proposed.digest())
    {
        let (component, digest, pipeline) = (request.component, digest.clone(), earlier.clone());
        return Ok(InForce { component, digest, pipeline, changes: Vec::new() });
    }
    let digest = put_document(store, &proposed)?;
    let mut batch = Batch::new(who, now);
    batch.change(Change::PipelineApplied(PipelineApplied {
        component: request.component.clone(),
        pipeline: digest.clone(),
        replaces: before,
    }));
    turn.append(batch.into_leaves()).await?;
    let changes = proposed.differences_from(earlier.as_ref());
    Ok(InForce { component: request.component, digest, pipeline: proposed, changes })
}

/// The pipeline in force, if there is one.
pub async fn find(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
) -> Result<Option<InForce>, EngineError> {
    let Some(digest) = pipelines::in_force(conn, component).await? else { return Ok(None) };
    let pipeline = read_document(store, &digest)?;
    Ok(Some(InForce { component: component.clone(), digest, pipeline, changes: Vec::new() }))
}

/// The pipeline in force, which must be there.
pub async fn get(store: &Store, conn: &mut Conn, component: &ComponentName) -> Result<InForce, EngineError> {
    find(store, conn, component).await?.ok_or_else(|| none_in_force(component))
}

/// A component has no pipeline, where one is needed.
pub fn none_in_force(component: &ComponentName) -> EngineError {
    EngineError::not_found(format!("{component} has no pipeline in this store"))
        .with_hint("declare [environment.NAME] tables in semel.toml, then: semel pipeline apply")
}

/// Refuses an environment that the component does not have: a mistyped name must not look as if it had an effect.
pub(crate) async fn require(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
) -> Result<(), EngineError> {
    binding(&get(store, conn, component).await?, environment).map(drop)
}

/// The binding of an environment, which must be there.
pub fn binding<'a>(in_force: &'a InForce, environment: &EnvironmentName) -> Result<&'a Binding, EngineError> {
    in_force.pipeline.environments.get(environment).ok_or_else(|| {
        let names: Vec<&str> =
            in_force.pipeline.in_order().into_iter().map(EnvironmentName::as_str).collect();
        let near = semel_model::project::nearest(environment.as_str(), names.iter().copied());
        let hint = near.map_or_else(
            || "add it to semel.toml, then: semel pipeline apply".to_owned(),
            |name| format!("did you mean {name}?"),
        );
        EngineError::not_found(format!(
            "{} has no environment {environment} (it has: {})",
            in_force.component,
            names.join(", ")
        ))
        .with_hint(hint)
    })
}

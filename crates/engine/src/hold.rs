//! Hold and resume: nothing and nobody moves here, until somebody says so.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::entry::{Change, HoldReleased, HoldSet};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_store::Store;
use semel_store::projections::deployment;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::EngineError;
use crate::pipeline;

/// Sets or releases a hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// Why; none releases the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// Whether the environment is held now.
    pub held: bool,
    /// Whether it was so before.
    pub already: bool,
    /// The reason of the hold that was set or released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Sets a hold with a reason, or releases it without one.
pub async fn hold(store: &Store, who: &Actor, request: Hold, now: Timestamp) -> Result<Held, EngineError> {
    let mut turn = store.turn().await?;
    let mut batch = Batch::new(who, now);
    let before = deployment::hold(turn.db(), &request.component, &request.environment).await?;
    if before.is_none() {
        pipeline::require(store, turn.db(), &request.component, &request.environment).await?;
    }
    let held = match (request.reason, before) {
        (Some(reason), None) => {
            let reason = reason.trim().to_owned();
            if reason.is_empty() {
                return Err(EngineError::precondition("a hold needs a reason"));
            }
            batch.change(Change::HoldSet(HoldSet {
                environment: request.environment,
                component: Some(request.component),
                reason: reason.clone(),
            }));
            Held { held: true, already: false, reason: Some(reason) }
        }
        (Some(_), Some(hold)) => Held { held: true, already: true, reason: Some(hold.reason) },
        (None, None) => Held { held: false, already: true, reason: None },
        (None, Some(hold)) => {
            batch.change(Change::HoldReleased(HoldReleased {
                environment: request.environment,
                component: hold.component,
            }));
            Held { held: false, already: false, reason: Some(hold.reason) }
        }
    };
    turn.append(batch.into_leaves()).await?;
    Ok(held)
}

//! Holding: what the holder of a build's lease does with it until the result is committed (`commit`): keep it, give it up, fail.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{BuildFailed, Change};
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_store::lease::{self, Lease, Leased};
use semel_store::projections::build::{self, Build};
use semel_store::sql::Conn;
use semel_store::{Store, content};
use serde::{Deserialize, Serialize};

use super::{LEASE_MILLIS, REASON_CHARS_MAX};
use crate::batch::Batch;
use crate::build_log;
use crate::error::EngineError;

/// Which running build is meant, and the proof that the caller holds it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// The part, for a build that has parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The lease's token.
    pub token: String,
}

/// Renews the lease on a running build.
pub async fn heartbeat(store: &Store, holding: &Holding, now: Timestamp) -> Result<(), EngineError> {
    let until_millis = now.as_millisecond() + LEASE_MILLIS;
    // One that comes behind the end of its build begins nothing again.
    change_lease(store, holding, |lease| {
        if !lease.is_given_up() {
            lease.until_millis = until_millis;
        }
    })
    .await
}

/// Gives the lease on a build up without a result: the build was broken off.
pub async fn release(store: &Store, holding: &Holding) -> Result<(), EngineError> {
    change_lease(store, holding, |lease| lease.until_millis = 0).await
}

async fn change_lease(
    store: &Store,
    holding: &Holding,
    change: impl FnOnce(&mut Lease),
) -> Result<(), EngineError> {
    let mut jotting = store.jotting().await?;
    let (build, mut lease) = held(jotting.db(), holding).await?;
    change(&mut lease);
    lease::set(jotting.db(), leased(&build, holding), &lease).await?;
    if lease.is_given_up() {
        build_log::forget(jotting.db(), holding).await?;
    }
    Ok(jotting.keep().await?)
}

pub(super) fn leased<'a>(build: &'a Build, holding: &'a Holding) -> Leased<'a> {
    Leased { component: &build.component, key: &build.key, platform: holding.platform.as_ref() }
}

/// The build, and the lease if it is still the caller's.
pub(crate) async fn held(conn: &mut Conn, holding: &Holding) -> Result<(Build, Lease), EngineError> {
    let build = held_build(conn, holding).await?;
    match lease::newest(conn, leased(&build, holding)).await? {
        Some(lease) if lease.token == holding.token => Ok((build, lease)),
        newest => Err(taken_over(holding, newest.as_ref())),
    }
}

pub(super) async fn held_build(conn: &mut Conn, holding: &Holding) -> Result<Build, EngineError> {
    let found = build::by_number(conn, &holding.component, holding.number).await?;
    found.ok_or_else(|| {
        EngineError::not_found(format!("{} has no build {}", holding.component, holding.number))
    })
}

pub(super) fn taken_over(holding: &Holding, newest: Option<&Lease>) -> EngineError {
    let heir = newest.map_or("somebody else", |lease| lease.holder.as_str());
    EngineError::Conflict {
        what: format!("build {} of {} was taken over by {heir}", holding.number, holding.component),
        hint: Some("run `semel build` again: it takes the result that was committed".to_owned()),
    }
}

/// What the ledger names is here before it is named, and came to this component.
pub(super) async fn require_log(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    log: Option<&Digest>,
) -> Result<(), EngineError> {
    let Some(log) = log else { return Ok(()) };
    if store.blobs().contains(log) && content::is_readable(conn, component, log).await? {
        return Ok(());
    }
    Err(EngineError::not_found(format!(
        "the log {log} is not in {component}: it is uploaded before it is named"
    )))
}

/// A build that failed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// The running build.
    #[serde(flatten)]
    pub holding: Holding,
    /// What failed, in one line.
    pub reason: String,
    /// What the build printed, stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
}

/// Records that a build failed and gives its lease up; number and version stay with the key.
pub async fn fail(store: &Store, who: &Actor, request: Fail, now: Timestamp) -> Result<(), EngineError> {
    let mut turn = store.turn().await?;
    let (build, mut lease) = held(turn.db(), &request.holding).await?;
    require_log(store, turn.db(), &build.component, request.log.as_ref()).await?;
    let mut batch = Batch::new(who, now);
    batch.change(Change::BuildFailed(BuildFailed {
        component: build.component.clone(),
        number: build.number,
        reason: request.reason.chars().take(REASON_CHARS_MAX).collect(),
        log: request.log,
        platform: request.holding.platform.clone(),
    }));
    lease.until_millis = 0;
    lease.failed = true;
    lease::set(turn.db(), leased(&build, &request.holding), &lease).await?;
    build_log::forget(turn.db(), &request.holding).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(())
}

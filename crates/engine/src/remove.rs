//! Remove: a manifest that nothing holds goes; whatever holds one is named to whoever wants it gone.

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ManifestRemoved};
use semel_model::keep::Holder;
use semel_model::name::ComponentName;
use semel_store::projections::{artefact, component, deployment};
use semel_store::sql::Conn;
use semel_store::{Store, content, draft};

use crate::batch::Batch;
use crate::error::EngineError;

/// What became of the wish to remove a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// It is not here any more.
    Gone,
    /// It stays, for these reasons.
    Held(Vec<Holder>),
    /// It was not here.
    Unknown,
}

/// Removes a manifest from a component, unless something holds it.
pub async fn remove_manifest(
    store: &Store,
    who: &Actor,
    component: &ComponentName,
    digest: &Digest,
    now: Timestamp,
) -> Result<Removed, EngineError> {
    let mut turn = store.turn().await?;
    if artefact::manifest(turn.db(), component, digest).await?.is_none() {
        return Ok(Removed::Unknown);
    }
    let holding = holding(turn.db(), component, digest, now).await?;
    if !holding.is_empty() {
        return Ok(Removed::Held(holding));
    }
    let mut batch = Batch::new(who, now);
    batch.change(Change::ManifestRemoved(ManifestRemoved {
        component: component.clone(),
        digest: digest.clone(),
        reason: "deleted".to_owned(),
    }));
    turn.append(batch.into_leaves()).await?;
    Ok(Removed::Gone)
}

/// Everything that holds what a version means, its name among it.
pub async fn holders_of(
    store: &Store,
    component: &ComponentName,
    digest: &Digest,
    now: Timestamp,
) -> Result<Vec<Holder>, EngineError> {
    holding(&mut store.reader().await?, component, digest, now).await
}

/// The same, for views that read more.
pub(crate) async fn holding(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    now: Timestamp,
) -> Result<Vec<Holder>, EngineError> {
    let mut holding = versions(conn, component, digest).await?;
    holding.extend(holders(conn, component, digest, now).await?);
    Ok(holding)
}

async fn versions(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Holder>, EngineError> {
    let versions = artefact::versions_of(conn, component, digest).await?;
    Ok(versions.into_iter().map(|one| Holder::Version { version: one.version }).collect())
}

/// How many deployments back an environment may go.
pub(crate) const ROLLBACK_WINDOW: u64 = 5;
/// How many indexes are named.
const NAMED: u64 = 10;

/// Everything that holds an artefact but its own versions: channels, deployments, indexes, what it is a statement about, and
/// drafts.
pub(crate) async fn holders(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    now: Timestamp,
) -> Result<Vec<Holder>, EngineError> {
    let mut holding = Vec::new();
    for channel in artefact::channels_of(conn, component, digest).await? {
        holding.push(Holder::Channel { channel });
    }
    for (environment, generation) in
        deployment::within_reach(conn, component, digest, ROLLBACK_WINDOW).await?
    {
        holding.push(Holder::Deployment { environment, generation });
    }
    for index in content::needed_by(conn, component, digest, NAMED).await? {
        holding.push(Holder::Index { digest: index });
    }
    let subject = artefact::manifest(conn, component, digest).await?.and_then(|manifest| manifest.subject);
    if let Some(subject) = subject
        && artefact::manifest(conn, component, &subject).await?.is_some()
    {
        holding.push(Holder::Subject { digest: subject });
    }
    for version in draft::of_digest(conn, component, digest, now).await? {
        holding.push(Holder::Draft { version });
    }
    Ok(holding)
}

/// The highest final version of a component, or its newest where none is final: nobody expects that it goes because nothing
/// came after it.
pub(crate) async fn newest(
    conn: &mut Conn,
    component: &ComponentName,
) -> Result<Option<artefact::Published>, EngineError> {
    const PAGE: u64 = 256;
    if component::get(conn, component).await?.is_none() {
        return Ok(None);
    }
    let versions = artefact::versions(conn, component, PAGE).await?;
    let final_ones = versions.iter().filter(|one| one.version.is_final());
    Ok(final_ones.max_by(|a, b| a.version.cmp(&b.version)).or(versions.first()).cloned())
}

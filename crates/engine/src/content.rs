//! Content: blobs that come into a component, and those that it lets go of.

use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_store::{Store, content};

use crate::error::EngineError;

/// A blob was uploaded to a component, whose clients may read it from now on. If the power fails before a manifest names it,
/// the client has to send it again; its bytes are there.
pub async fn received(store: &Store, component: &ComponentName, digest: &Digest) -> Result<(), EngineError> {
    if content::is_readable(&mut store.reader().await?, component, digest).await? {
        return Ok(());
    }
    let mut jotting = store.jotting().await?;
    content::link(jotting.db(), component, digest).await?;
    jotting.touch();
    jotting.keep().await?;
    Ok(())
}

/// Takes a blob over from another component, or from any that has it. Says whether it could: who may not read it there has
/// to send the bytes.
pub async fn mount(
    store: &Store,
    component: &ComponentName,
    from: Option<&ComponentName>,
    digest: &Digest,
) -> Result<bool, EngineError> {
    let mut conn = store.reader().await?;
    let readable = match from {
        Some(from) => content::is_readable(&mut conn, from, digest).await?,
        None => content::is_readable_somewhere(&mut conn, digest).await?,
    };
    drop(conn);
    if !readable || !store.blobs().hold(digest)? {
        return Ok(false);
    }
    received(store, component, digest).await?;
    Ok(true)
}

/// What became of the wish to remove a blob from a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// The component does not have it any more.
    Gone,
    /// Manifests of the component need it: the first of them.
    Needed(Vec<Digest>),
    /// The component does not have it.
    Unknown,
}

/// How many manifests are named to whoever may not remove a blob.
const NAMED: u64 = 10;

/// Takes a blob away from a component, unless a manifest there needs it. Its bytes are collected when nothing needs them.
pub async fn release(
    store: &Store,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Released, EngineError> {
    let mut turn = store.turn().await?;
    if !content::is_readable(turn.db(), component, digest).await? {
        return Ok(Released::Unknown);
    }
    let needed = content::needed_by(turn.db(), component, digest, NAMED).await?;
    if !needed.is_empty() {
        return Ok(Released::Needed(needed));
    }
    content::unlink(turn.db(), component, digest).await?;
    turn.touch();
    turn.append(Vec::new()).await?;
    Ok(Released::Gone)
}

//! `semel channels`: where the channels of a component point, and where one of them pointed before.

use schemars::JsonSchema;
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, Tag};
use semel_model::version::{TagMeaning, TagPolicy, Version, meaning_of};
use semel_store::Store;
use semel_store::projections::artefact as artefacts;
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::artefact::best_name;
use crate::component;
use crate::error::EngineError;

/// A channel and where it points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelLine {
    /// Its name.
    pub channel: Tag,
    /// What it points to.
    pub digest: Digest,
    /// The version that it is known by, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Since when (RFC 3339).
    pub since: String,
}

/// Where a channel pointed for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pointed {
    /// To what; none: it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The version that it is known by, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// From when (RFC 3339).
    pub from: String,
    /// Until when; none: it still does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The channels of a component behind a name, in byte order. What clients without the referrers API attach is no channel.
pub async fn channels(
    store: &Store,
    name: &ComponentName,
    after: &str,
    limit: u64,
) -> Result<Vec<ChannelLine>, EngineError> {
    let mut conn = store.reader().await?;
    component::get(&mut conn, name).await?;
    let mut lines = Vec::new();
    for (channel, digest) in artefacts::channels(&mut conn, name, after, limit).await? {
        if matches!(meaning_of(&channel, TagPolicy::Mirror, &[]), TagMeaning::Attachment(_)) {
            continue;
        }
        let moved = artefacts::channel_moves(&mut conn, name, &channel, 1).await?.pop();
        let since = moved.map(|one| one.time).unwrap_or_default();
        let version = version_of(&mut conn, name, &digest).await?;
        lines.push(ChannelLine { channel, digest, version, since });
    }
    Ok(lines)
}

/// Where a channel pointed, newest first.
pub async fn history(
    store: &Store,
    name: &ComponentName,
    channel: &Tag,
    limit: u64,
) -> Result<Vec<Pointed>, EngineError> {
    let mut conn = store.reader().await?;
    component::get(&mut conn, name).await?;
    let moves = artefacts::channel_moves(&mut conn, name, channel, limit).await?;
    if moves.is_empty() {
        return Err(EngineError::not_found(format!("{name} never had a channel {channel}"))
            .with_hint(format!("semel channels -c {name}")));
    }
    let (mut lines, mut until) = (Vec::with_capacity(moves.len()), None);
    for one in moves {
        let version = match &one.digest {
            Some(digest) => version_of(&mut conn, name, digest).await?,
            None => None,
        };
        let from = one.time;
        lines.push(Pointed { digest: one.digest, version, from: from.clone(), until });
        until = Some(from);
    }
    Ok(lines)
}

async fn version_of(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<Version>, EngineError> {
    Ok(best_name(artefacts::versions_of(conn, component, digest).await?).map(|one| one.version))
}

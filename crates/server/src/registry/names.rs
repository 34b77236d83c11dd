//! What a tag means in a component: a version, an environment, or a channel.

use semel_model::digest::Digest;
use semel_model::name::{ComponentName, EnvironmentName, Tag};
use semel_model::version::{TagMeaning, TagPolicy, Version, meaning_of};
use semel_oci::error::ErrorCode;
use semel_store::projections::{artefact, component, deployment};
use semel_store::sql::Conn;

use super::Result;
use crate::error::Refusal;

/// What a tag points to, and what kind of name it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) digest: Digest,
    pub(super) kind: Kind,
}

/// What kind of name a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bound for ever.
    Version,
    /// The newest successful deployment there.
    Environment,
    /// Movable by people.
    Channel,
    /// What clients without the referrers API attach: it grows and does not shrink.
    Attachment,
}

pub(super) async fn look_up(conn: &mut Conn, name: &ComponentName, tag: &Tag) -> Result<Option<Named>> {
    if let Some(published) = artefact::version(conn, name, &Version::named(tag.clone())).await? {
        return Ok(Some(Named { digest: published.digest, kind: Kind::Version }));
    }
    if let Some(digest) = running(conn, name, tag).await? {
        return Ok(Some(Named { digest, kind: Kind::Environment }));
    }
    let kind = match meaning_of(tag, TagPolicy::Mirror) {
        TagMeaning::Attachment(_) => Kind::Attachment,
        TagMeaning::Version(_) | TagMeaning::Channel(_) => Kind::Channel,
    };
    Ok(artefact::channel(conn, name, tag).await?.map(|digest| Named { digest, kind }))
}

async fn running(conn: &mut Conn, name: &ComponentName, tag: &Tag) -> Result<Option<Digest>> {
    let Ok(environment) = tag.as_str().parse::<EnvironmentName>() else { return Ok(None) };
    let deployed = deployment::nth_success(conn, name, &environment, 0).await?;
    Ok(deployed.map(|deployment| deployment.digest))
}

/// Refuses when there is no such component.
pub(super) async fn require_component(conn: &mut Conn, name: &ComponentName) -> Result<()> {
    match component::get(conn, name).await? {
        Some(_) => Ok(()),
        None => {
            Err(Refusal::new(ErrorCode::NameUnknown, format!("there is no component {name} in this store")))
        }
    }
}

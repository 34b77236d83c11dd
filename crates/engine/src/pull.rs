//! Pull: what a name or a digest means in a component, and whether it may be fetched.

use semel_model::digest::Digest;
use semel_model::name::{ComponentName, EnvironmentName, Tag};
use semel_model::version::{TagMeaning, TagPolicy, Version, meaning_of};
use semel_store::projections::artefact::{self, Expired, Manifest, Published};
use semel_store::projections::{deployment, promotion};
use semel_store::sql::{Conn, SqlError};

/// What a tag points to, and what kind of name it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it points to.
    pub digest: Digest,
    /// What kind of name it is.
    pub kind: NameKind,
}

/// What kind of name a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// Bound for ever.
    Version,
    /// The newest successful deployment there.
    Environment,
    /// Movable by people.
    Channel,
    /// What clients without the referrers API attach: it grows and does not shrink.
    Attachment,
}

/// Whether an artefact may be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    /// It may.
    Found {
        /// The manifest.
        manifest: Manifest,
        /// Why it should not be used any more, if somebody said so: one line for people.
        warning: Option<String>,
    },
    /// Somebody said that it must not be fetched.
    Rejected {
        /// Which artefact.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// Its bytes are gone by rule.
    Expired {
        /// One of its versions.
        version: Version,
        /// What that means, for ever.
        digest: Digest,
        /// When and by which rule.
        expired: Expired,
    },
    /// There is no such thing here.
    Unknown,
}

/// What a tag means in a component.
pub async fn look_up(
    conn: &mut Conn,
    component: &ComponentName,
    tag: &Tag,
) -> Result<Option<Named>, SqlError> {
    if let Some(published) = artefact::version(conn, component, &Version::named(tag.clone())).await? {
        return Ok(Some(Named { digest: published.digest, kind: NameKind::Version }));
    }
    if let Some(digest) = running(conn, component, tag).await? {
        return Ok(Some(Named { digest, kind: NameKind::Environment }));
    }
    let kind = match meaning_of(tag, TagPolicy::Mirror, &[]) {
        TagMeaning::Attachment(_) => NameKind::Attachment,
        TagMeaning::Version(_) | TagMeaning::Channel(_) => NameKind::Channel,
    };
    Ok(artefact::channel(conn, component, tag).await?.map(|digest| Named { digest, kind }))
}

async fn running(conn: &mut Conn, component: &ComponentName, tag: &Tag) -> Result<Option<Digest>, SqlError> {
    let Ok(environment) = tag.as_str().parse::<EnvironmentName>() else { return Ok(None) };
    let deployed = deployment::nth_success(conn, component, &environment, 0).await?;
    Ok(deployed.map(|deployment| deployment.digest))
}

/// Whether a digest of a component may be fetched.
pub async fn find(conn: &mut Conn, component: &ComponentName, digest: &Digest) -> Result<Pull, SqlError> {
    let Some(manifest) = artefact::manifest(conn, component, digest).await? else {
        return Ok(Pull::Unknown);
    };
    if let Some(reason) = promotion::pulls_rejected(conn, component, digest).await? {
        return Ok(Pull::Rejected { digest: digest.clone(), reason });
    }
    let versions = artefact::versions_of(conn, component, digest).await?;
    let gone = versions.iter().rev().find_map(|one| one.expired.clone().map(|expired| (one, expired)));
    if let Some((version, expired)) = gone {
        let (version, digest) = (version.version.clone(), digest.clone());
        return Ok(Pull::Expired { version, digest, expired });
    }
    Ok(Pull::Found { manifest, warning: versions.iter().rev().find_map(deprecation) })
}

fn deprecation(published: &Published) -> Option<String> {
    let reason = published.deprecated.as_ref()?;
    Some(format!("{} {} is deprecated: {reason}", published.component, published.version))
}

//! Publish: bind a name to a digest. A version is bound once and for ever; a channel moves and keeps its history.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, ChannelMoved, LocationRecorded, OverwriteRefused, VersionPublished};
use semel_model::name::{CommitId, ComponentName, Tag};
use semel_model::version::{TagMeaning, Version, meaning_of};
use semel_store::Store;
use semel_store::ledger::Turn;
use semel_store::projections::component::Component;
use semel_store::projections::{artefact, build, pipeline};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, read_document};
use crate::component;
use crate::error::EngineError;

/// A name for a stored manifest.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// Which component.
    pub component: ComponentName,
    /// The name: a version or a channel.
    pub tag: Tag,
    /// The stored manifest.
    pub digest: Digest,
    /// The commit that it was built from, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// Where the bytes also are, such as `registry.example/shop/api@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The store that gives the component versions, where this store gets a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Bound {
    /// The version means this digest now, for ever.
    Published {
        /// The version.
        version: Version,
        /// Its digest.
        digest: Digest,
    },
    /// It did before.
    Already {
        /// The name.
        name: Tag,
        /// Its digest.
        digest: Digest,
    },
    /// The channel points here now.
    Moved {
        /// The channel.
        channel: Tag,
        /// Its digest.
        digest: Digest,
        /// Where it pointed before.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Digest>,
    },
    /// The name means something else, and that cannot change.
    Refused(Overwrite),
}

/// A refused overwrite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overwrite {
    /// The name.
    pub name: Tag,
    /// What it means, if it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Digest>,
    /// What it was to mean.
    pub pushed: Digest,
    /// The next version that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_free: Option<Version>,
    /// The refusal in one line.
    pub reason: String,
}

/// Binds a name to a stored manifest. The same again succeeds and changes nothing; another digest for a version is refused
/// and recorded.
pub async fn bind(store: &Store, who: &Actor, request: Bind, now: Timestamp) -> Result<Bound, EngineError> {
    let mut turn = store.turn().await?;
    let mut batch = Batch::new(who, now);
    let known = component::ensure(
        turn.db(),
        &mut batch,
        &request.component,
        request.home.as_deref().unwrap_or(store.id()),
    )
    .await?;
    if artefact::manifest(turn.db(), &request.component, &request.digest).await?.is_none() {
        return Err(EngineError::not_found(format!(
            "{} has no manifest {} in this store",
            request.component, request.digest
        ))
        .with_hint("push the manifest first"));
    }
    if is_environment(store, &mut turn, &request).await? {
        let reason = format!("{} is an environment: its tag is what was last deployed there", request.tag);
        return Ok(Bound::Refused(refusal(&request, None, None, reason)));
    }
    let outcome = match meaning_of(&request.tag, known.policy) {
        TagMeaning::Version(version) => {
            let bound = bind_version(&mut turn, &mut batch, &request, version, who, now).await?;
            if let Bound::Published { version, .. } = &bound {
                refuse_foreign_version(&known, version, &request, store.id())?;
            }
            bound
        }
        TagMeaning::Channel(channel) | TagMeaning::Attachment(channel) => {
            move_channel(&mut turn, &mut batch, &request, channel).await?
        }
    };
    if !matches!(outcome, Bound::Refused(_)) {
        record_location(&mut turn, &mut batch, &request).await?;
    }
    turn.append(batch.into_leaves()).await?;
    Ok(outcome)
}

/// Versions of a component come from its home alone (invariant I3): another store takes only copies that say so.
fn refuse_foreign_version(
    known: &Component,
    version: &Version,
    request: &Bind,
    here: &str,
) -> Result<(), EngineError> {
    let from = request.home.as_deref().unwrap_or(here);
    if from == known.home {
        return Ok(());
    }
    let (what, hint) = if known.home == here {
        (
            format!("{} gets its versions from this store; {version} comes from store {from}", known.name),
            "push it under another component name".to_owned(),
        )
    } else {
        (
            format!("{} gets its versions from store {}, not from here", known.name, known.home),
            format!(
                "publish it there, then: semel pull {}@{version} oci:DIR, and push that here",
                known.name
            ),
        )
    };
    Err(EngineError::NotAllowed { what, hint: Some(hint) })
}

async fn record_location(turn: &mut Turn, batch: &mut Batch, request: &Bind) -> Result<(), EngineError> {
    let Some(place) = &request.location else { return Ok(()) };
    let known = artefact::locations(turn.db(), &request.digest).await?;
    if !known.iter().any(|(known, _)| known == place) {
        batch.change(Change::LocationRecorded(LocationRecorded {
            component: request.component.clone(),
            digest: request.digest.clone(),
            place: place.clone(),
        }));
    }
    Ok(())
}

async fn is_environment(store: &Store, turn: &mut Turn, request: &Bind) -> Result<bool, EngineError> {
    let Some(digest) = pipeline::in_force(turn.db(), &request.component).await? else { return Ok(false) };
    let pipeline: semel_model::pipeline::Pipeline = read_document(store, &digest)?;
    Ok(pipeline.environments.keys().any(|name| name.as_str() == request.tag.as_str()))
}

async fn bind_version(
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    version: Version,
    who: &Actor,
    now: Timestamp,
) -> Result<Bound, EngineError> {
    if let Some(bound) = artefact::version(turn.db(), &request.component, &version).await? {
        if bound.digest == request.digest {
            return Ok(Bound::Already { name: request.tag.clone(), digest: bound.digest });
        }
        return refuse_overwrite(turn, batch, request, version, bound.digest, who, now).await;
    }
    if let Some(reserved) = build::by_version(turn.db(), &request.component, &version).await? {
        let next = next_free(turn, &request.component, &version).await?;
        let reason = format!(
            "{} {version} is reserved for build {}{}",
            request.component,
            reserved.number,
            free_word(next.as_ref())
        );
        return Ok(Bound::Refused(refusal(request, None, next, reason)));
    }
    batch.change(Change::VersionPublished(VersionPublished {
        component: request.component.clone(),
        version: version.clone(),
        digest: request.digest.clone(),
        number: None,
        commit: request.commit.clone(),
        log: None,
    }));
    Ok(Bound::Published { version, digest: request.digest.clone() })
}

/// Recorded once a day for each actor, name and digest: a retrying client does not fill the ledger.
async fn refuse_overwrite(
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    version: Version,
    bound: Digest,
    who: &Actor,
    now: Timestamp,
) -> Result<Bound, EngineError> {
    let refused = OverwriteRefused {
        component: request.component.clone(),
        version: version.clone(),
        bound: bound.clone(),
        pushed: request.digest.clone(),
    };
    if !artefact::refused_today(turn.db(), &refused, &who.subject, now).await? {
        batch.change(Change::OverwriteRefused(refused));
    }
    let next = next_free(turn, &request.component, &version).await?;
    let free = free_word(next.as_ref());
    let reason = format!("{} {version} is bound to {bound} for ever{free}", request.component);
    Ok(Bound::Refused(refusal(request, Some(bound), next, reason)))
}

fn free_word(next: Option<&Version>) -> String {
    next.map(|version| format!("; next free is {version}")).unwrap_or_default()
}

fn refusal(request: &Bind, bound: Option<Digest>, next_free: Option<Version>, reason: String) -> Overwrite {
    Overwrite { name: request.tag.clone(), bound, pushed: request.digest.clone(), next_free, reason }
}

/// The next patch version that nobody has; after a name that is no number there is none.
async fn next_free(
    turn: &mut Turn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Version>, EngineError> {
    let Some(semver) = version.as_semver() else { return Ok(None) };
    let mut patch = semver.patch + 1;
    loop {
        let next = Version::final_release(semver.major, semver.minor, patch);
        if !build::is_taken(turn.db(), component, &next).await? {
            return Ok(Some(next));
        }
        patch += 1;
    }
}

async fn move_channel(
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    channel: Tag,
) -> Result<Bound, EngineError> {
    let from = artefact::channel(turn.db(), &request.component, &channel).await?;
    if from.as_ref() == Some(&request.digest) {
        return Ok(Bound::Already { name: channel, digest: request.digest.clone() });
    }
    batch.change(Change::ChannelMoved(ChannelMoved {
        component: request.component.clone(),
        channel: channel.clone(),
        from: from.clone(),
        to: Some(request.digest.clone()),
    }));
    Ok(Bound::Moved { channel, digest: request.digest.clone(), from })
}

/// Removes a channel; its history stays. A version cannot be removed.
pub async fn remove_channel(
    store: &Store,
    who: &Actor,
    component: &ComponentName,
    channel: &Tag,
    now: Timestamp,
) -> Result<(), EngineError> {
    let mut turn = store.turn().await?;
    let Some(from) = artefact::channel(turn.db(), component, channel).await? else {
        return Err(EngineError::not_found(format!("{component} has no channel {channel}")));
    };
    let mut batch = Batch::new(who, now);
    batch.change(Change::ChannelMoved(ChannelMoved {
        component: component.clone(),
        channel: channel.clone(),
        from: Some(from),
        to: None,
    }));
    turn.append(batch.into_leaves()).await?;
    Ok(())
}

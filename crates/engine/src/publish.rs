//! Publish: bind a name to a digest. A version is bound once and for ever; a channel moves and keeps its history.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::Scheme;
use semel_model::digest::Digest;
use semel_model::entry::{
    Change, ChannelMoved, LocationRecorded, OverwriteRefused, VersionPublished, VersionRevived,
};
use semel_model::name::{CommitId, ComponentName, Tag};
use semel_model::version::{TagMeaning, TagPolicy, Version, meaning_of};
use semel_store::ledger::Turn;
use semel_store::projections::artefact::{self, Published};
use semel_store::projections::component::Component;
use semel_store::projections::{build, pipeline};
use semel_store::sql::Conn;
use semel_store::{Store, content, draft};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, read_document};
use crate::component;
use crate::error::EngineError;
use crate::finalise;

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
    /// Only if nobody has the name yet: what has it is refused, whatever it means.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
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
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_at: Option<String>,
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
    let mut giving = Giving::begin(store, who, now).await?;
    giving.require_bytes(&request.component, &request.digest).await?;
    let known = giving.component(&request.component, request.home.as_deref()).await?;
    let bound = giving.give(&known, &request).await?;
    giving.finish().await?;
    Ok(bound)
}

/// A turn in which names are given.
pub(crate) struct Giving<'a> {
    store: &'a Store,
    who: &'a Actor,
    now: Timestamp,
    pub(crate) turn: Turn,
    pub(crate) batch: Batch,
}

impl<'a> Giving<'a> {
    pub(crate) async fn begin(store: &'a Store, who: &'a Actor, now: Timestamp) -> Result<Self, EngineError> {
        let mut turn = store.turn().await?;
        draft::forget_expired(turn.db(), now).await?;
        Ok(Self { store, who, now, turn, batch: Batch::new(who, now) })
    }

    /// The component, created when this is its first name here.
    pub(crate) async fn component(
        &mut self,
        name: &ComponentName,
        home: Option<&str>,
    ) -> Result<Component, EngineError> {
        let home = home.unwrap_or(self.store.id());
        component::ensure(self.turn.db(), &mut self.batch, name, home).await
    }

    /// Decides about one name. Whether the manifest is there is the caller's to know.
    pub(crate) async fn give(&mut self, known: &Component, request: &Bind) -> Result<Bound, EngineError> {
        if is_environment(self.store, &mut self.turn, request).await? {
            let reason =
                format!("{} is an environment: its tag is what was last deployed there", request.tag);
            return Ok(Bound::Refused(refusal(request, None, None, reason)));
        }
        let meaning = meaning(self.turn.db(), known, &request.tag).await?;
        let (turn, batch) = (&mut self.turn, &mut self.batch);
        let outcome = match meaning {
            TagMeaning::Version(version) => {
                let bound =
                    bind_version(self.store, turn, batch, request, version, self.who, self.now).await?;
                if let Bound::Published { version, .. } = &bound {
                    refuse_foreign_version(known, version, request, self.store.id())?;
                }
                bound
            }
            TagMeaning::Channel(channel) => move_channel(turn, batch, request, channel).await?,
            TagMeaning::Attachment(tag) => attach(self.store, turn, batch, request, tag).await?,
        };
        if !matches!(outcome, Bound::Refused(_)) {
            record_location(turn, batch, request).await?;
        }
        Ok(outcome)
    }

    /// What is said where a version cannot be given: that it was, or why not.
    pub(crate) async fn hindrance(
        &mut self,
        request: &Bind,
        version: &Version,
    ) -> Result<Option<Bound>, EngineError> {
        hindrance(self.store, &mut self.turn, &mut self.batch, request, version, self.who, self.now).await
    }

    /// What gets a name has its bytes: a digest that expired is revived when they are still here, and refused when not.
    pub(crate) async fn require_bytes(
        &mut self,
        component: &ComponentName,
        digest: &Digest,
    ) -> Result<(), EngineError> {
        if artefact::manifest(self.turn.db(), component, digest).await?.is_none() {
            let what = format!("{component} has no manifest {digest} in this store");
            return Err(EngineError::not_found(what).with_hint("push the manifest first"));
        }
        match content::first_missing(self.turn.db(), self.store.blobs(), [digest]).await? {
            Some(gone) => Err(EngineError::Verification {
                what: format!("{digest} needs {gone}, which is not in this store any more"),
                hint: Some("push it again: what is missing is sent".to_owned()),
            }),
            None => self.revive(component, digest).await,
        }
    }

    /// The bytes of a digest are here: versions of it that had expired are back.
    pub(crate) async fn revive(
        &mut self,
        component: &ComponentName,
        digest: &Digest,
    ) -> Result<(), EngineError> {
        for version in artefact::expired_versions(self.turn.db(), component, digest).await? {
            self.batch.change(Change::VersionRevived(VersionRevived {
                component: component.clone(),
                version,
                digest: digest.clone(),
            }));
        }
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<(), EngineError> {
        self.turn.append(self.batch.into_leaves()).await?;
        Ok(())
    }
}

/// What a name is: what it was given as, else what the component's rules say. A pattern that comes or goes does not change
/// what is there: a channel stays one, and so does a version.
pub(crate) async fn meaning(
    conn: &mut Conn,
    known: &Component,
    tag: &Tag,
) -> Result<TagMeaning, EngineError> {
    let by_rule = meaning_of(tag, known.policy, &known.patterns);
    if known.policy != TagPolicy::Release {
        return Ok(by_rule);
    }
    // Where build numbers are versions, a number is no channel.
    let by_rule = match (known.scheme, Version::named(tag.clone())) {
        (Some(Scheme::Number), number) if number.as_number().is_some() => TagMeaning::Version(number),
        _ => by_rule,
    };
    Ok(match by_rule {
        TagMeaning::Version(version) if version.as_semver().is_none() => {
            // Also one that was removed: its history is told under its name.
            match artefact::channel_moves(conn, &known.name, tag, 1).await?.is_empty() {
                true => TagMeaning::Version(version),
                false => TagMeaning::Channel(tag.clone()),
            }
        }
        TagMeaning::Channel(tag) => {
            let version = Version::named(tag.clone());
            match artefact::version(conn, &known.name, &version).await? {
                Some(_) => TagMeaning::Version(version),
                None => TagMeaning::Channel(tag),
            }
        }
        other => other,
    })
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
                "publish it there, then: semel --store OTHER pull {}@{version} oci:DIR, and push that here",
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
    store: &Store,
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    version: Version,
    who: &Actor,
    now: Timestamp,
) -> Result<Bound, EngineError> {
    if let Some(said) = hindrance(store, turn, batch, request, &version, who, now).await? {
        return Ok(said);
    }
    batch.change(Change::VersionPublished(VersionPublished {
        component: request.component.clone(),
        version: version.clone(),
        digest: request.digest.clone(),
        number: None,
        commit: request.commit.clone(),
        log: None,
        source: None,
    }));
    Ok(Bound::Published { version, digest: request.digest.clone() })
}

/// A draft of these bytes is no hindrance, and none any more.
async fn hindrance(
    store: &Store,
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    version: &Version,
    who: &Actor,
    now: Timestamp,
) -> Result<Option<Bound>, EngineError> {
    if let Some(bound) = artefact::version(turn.db(), &request.component, version).await? {
        if request.absent {
            return Ok(Some(refuse_present(request, bound.digest)));
        }
        if bound.digest == request.digest || are_its_bytes(store, &bound, &request.digest)? {
            return Ok(Some(Bound::Already { name: request.tag.clone(), digest: bound.digest }));
        }
        return refuse_overwrite(turn, batch, request, bound, who, now).await.map(Some);
    }
    if let Some((reason, next)) = finalise::closed(turn.db(), &request.component, version).await? {
        return Ok(Some(Bound::Refused(refusal(request, None, Some(next), reason))));
    }
    if let Some(reserved) = build::by_version(turn.db(), &request.component, version).await? {
        let next = next_free(turn, &request.component, version).await?;
        let reason = format!(
            "{} {version} is reserved for build {}{}",
            request.component,
            reserved.number,
            free_word(next.as_ref())
        );
        return Ok(Some(Bound::Refused(refusal(request, None, next, reason))));
    }
    match draft::get(turn.db(), &request.component, version).await? {
        Some(open) if open.digest != request.digest => {
            let next = next_free(turn, &request.component, version).await?;
            let reason = format!(
                "{} {version} is the draft of other bytes{}",
                request.component,
                free_word(next.as_ref())
            );
            return Ok(Some(Bound::Refused(refusal(request, None, next, reason))));
        }
        Some(_) => drop(draft::remove(turn.db(), &request.component, version).await?),
        None => {}
    }
    Ok(None)
}

/// Whether a digest is another name for the bytes of a version: clients push by tag under the algorithm of their choice.
fn are_its_bytes(store: &Store, bound: &Published, digest: &Digest) -> Result<bool, EngineError> {
    let algorithm = bound.digest.algorithm();
    if bound.expired.is_some() || algorithm == digest.algorithm() {
        return Ok(false);
    }
    Ok(Digest::of_with(algorithm, &store.blobs().read(digest)?) == bound.digest)
}

/// Not an overwrite: who asks for a new name learns that it is none, and nothing is recorded.
fn refuse_present(request: &Bind, bound: Digest) -> Bound {
    let reason = format!("{} {} is there already, as {bound}", request.component, request.tag);
    Bound::Refused(refusal(request, Some(bound), None, reason))
}

/// Recorded once a day for each actor, name and digest: a retrying client does not fill the ledger.
async fn refuse_overwrite(
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    published: Published,
    who: &Actor,
    now: Timestamp,
) -> Result<Bound, EngineError> {
    let Published { version, digest: bound, time, .. } = published;
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
    let refusal = refusal(request, Some(bound), next, reason);
    Ok(Bound::Refused(Overwrite { bound_at: Some(time), ..refusal }))
}

fn free_word(next: Option<&Version>) -> String {
    next.map(|version| format!("; next free is {version}")).unwrap_or_default()
}

fn refusal(request: &Bind, bound: Option<Digest>, next_free: Option<Version>, reason: String) -> Overwrite {
    let (name, pushed) = (request.tag.clone(), request.digest.clone());
    Overwrite { name, bound, bound_at: None, pushed, next_free, reason }
}

/// How many patch versions are tried for a free one: a refusal must not cost more the more versions there are.
const TRIES: usize = 64;

/// The next patch version that nobody has; after a name that is no number there is none.
pub(crate) async fn next_free(
    turn: &mut Turn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Version>, EngineError> {
    let Some(semver) = version.as_semver() else { return Ok(None) };
    for patch in (semver.patch + 1..).take(TRIES) {
        let next = Version::final_release(semver.major, semver.minor, patch);
        let drafted = draft::get(turn.db(), component, &next).await?.is_some();
        if !drafted && !build::is_taken(turn.db(), component, &next).await? {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

async fn move_channel(
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    channel: Tag,
) -> Result<Bound, EngineError> {
    let from = artefact::channel(turn.db(), &request.component, &channel).await?;
    if let Some(bound) = from.clone().filter(|_| request.absent) {
        return Ok(refuse_present(request, bound));
    }
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

/// Attachments of clients without the referrers API are rewritten to be added to: what was there must be there still.
async fn attach(
    store: &Store,
    turn: &mut Turn,
    batch: &mut Batch,
    request: &Bind,
    tag: Tag,
) -> Result<Bound, EngineError> {
    if let Some(bound) = artefact::channel(turn.db(), &request.component, &tag).await? {
        let before = crate::artefact::parse(store, &bound, None)?;
        // It is recorded in this turn, so that only its bytes are there yet.
        let after = crate::artefact::parse(store, &request.digest, None)?;
        let kept: BTreeSet<_> = after.layers.iter().map(|layer| &layer.digest).collect();
        if !before.layers.iter().all(|layer| kept.contains(&layer.digest)) {
            let reason = format!("{tag} holds attachments, which can be added to, not taken away");
            return Ok(Bound::Refused(refusal(request, Some(bound), None, reason)));
        }
    }
    move_channel(turn, batch, request, tag).await
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

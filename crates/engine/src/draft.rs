//! Draft: upload, verify, publish. A draft holds a name for a while; only publishing it uses the name up.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::duration::Span;
use semel_model::name::{CommitId, ComponentName, Tag};
use semel_model::version::{TagMeaning, Version};
use semel_store::projections::{artefact, build};
use semel_store::{Store, content, draft};
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::publish::{Bind, Bound, Giving, Overwrite, meaning, next_free};

/// How long a draft holds its name when nobody says otherwise.
pub const DEFAULT_TERM: Span = Span::seconds(24 * 3_600);
/// The longest that a draft may hold its name: a name is not taken away from others by forgetting about it.
const LONGEST_TERM: Span = Span::seconds(30 * 86_400);

/// Holds a version's name for a stored manifest.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenDraft {
    /// Which component.
    pub component: ComponentName,
    /// The name that is to become a version.
    pub tag: Tag,
    /// The stored manifest.
    pub digest: Digest,
    /// For how long; at most thirty days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Span>,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Drafted {
    /// The name is held.
    Open {
        /// Which component.
        component: ComponentName,
        /// The name.
        version: Version,
        /// What it is to mean.
        digest: Digest,
        /// Until when (RFC 3339).
        until: String,
    },
    /// The name means something already, or is held for other bytes.
    Refused(Overwrite),
}

/// Opens a draft. The same again gives it more time.
pub async fn open(
    store: &Store,
    who: &Actor,
    request: OpenDraft,
    now: Timestamp,
) -> Result<Drafted, EngineError> {
    let mut giving = Giving::begin(store, who, now).await?;
    let known = giving.component(&request.component, None).await?;
    let TagMeaning::Version(version) = meaning(giving.turn.db(), &known, &request.tag).await? else {
        let what =
            format!("{} is a channel of {}: only a version is drafted", request.tag, request.component);
        return Err(
            EngineError::precondition(what).with_hint("push it without --draft: a channel can move back")
        );
    };
    giving.require_bytes(&request.component, &request.digest).await?;
    if let Some(reason) = taken(&mut giving, &request, &version).await? {
        let next_free = next_free(&mut giving.turn, &request.component, &version).await?;
        return Ok(Drafted::Refused(Overwrite {
            name: request.tag,
            bound: None,
            bound_at: None,
            pushed: request.digest,
            next_free,
            reason,
        }));
    }
    let term = request.term.unwrap_or(DEFAULT_TERM).min(LONGEST_TERM);
    let until_millis =
        now.as_millisecond().saturating_add(i64::try_from(term.as_millis()).unwrap_or(i64::MAX));
    let (digest, holder) = (request.digest, who.subject.clone());
    let held = draft::Draft { version: version.clone(), digest: digest.clone(), holder, until_millis };
    draft::set(giving.turn.db(), &request.component, &held).await?;
    giving.finish().await?;
    let until = Timestamp::from_millisecond(until_millis).unwrap_or(Timestamp::MAX).to_string();
    Ok(Drafted::Open { component: request.component, version, digest, until })
}

/// Why a name cannot be held for these bytes.
async fn taken(
    giving: &mut Giving<'_>,
    request: &OpenDraft,
    version: &Version,
) -> Result<Option<String>, EngineError> {
    let (component, turn) = (&request.component, &mut giving.turn);
    if let Some(bound) = artefact::version(turn.db(), component, version).await? {
        return Ok(Some(format!("{component} {version} is bound to {} for ever", bound.digest)));
    }
    if let Some(reserved) = build::by_version(turn.db(), component, version).await? {
        return Ok(Some(format!("{component} {version} is reserved for build {}", reserved.number)));
    }
    let held = draft::get(turn.db(), component, version).await?.filter(|open| open.digest != request.digest);
    Ok(held.map(|_| format!("{component} {version} is the draft of other bytes")))
}

/// Publishes a draft: everything that it needs is hashed first, then its name is bound for ever.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishDraft {
    /// Which component.
    pub component: ComponentName,
    /// The name.
    pub tag: Tag,
    /// The commit that it was built from, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// Publishes a draft. A draft that was published before is published.
pub async fn publish(
    store: &Store,
    who: &Actor,
    request: PublishDraft,
    now: Timestamp,
) -> Result<Bound, EngineError> {
    let digest = drafted(store, &request, now).await?;
    verify(store, &digest).await?;
    let mut giving = Giving::begin(store, who, now).await?;
    giving.require_bytes(&request.component, &digest).await?;
    let known = giving.component(&request.component, None).await?;
    let PublishDraft { component, tag, commit } = request;
    let bind = Bind { component, tag, digest, commit, location: None, home: None, absent: false };
    let bound = giving.give(&known, &bind).await?;
    giving.finish().await?;
    Ok(bound)
}

async fn drafted(store: &Store, request: &PublishDraft, now: Timestamp) -> Result<Digest, EngineError> {
    let mut conn = store.reader().await?;
    let version = Version::named(request.tag.clone());
    if let Some(bound) = artefact::version(&mut conn, &request.component, &version).await? {
        return Ok(bound.digest);
    }
    let open = draft::get(&mut conn, &request.component, &version).await?;
    match open.filter(|open| open.until_millis > now.as_millisecond()) {
        Some(open) => Ok(open.digest),
        None => Err(EngineError::not_found(format!("{} has no draft {version}", request.component))
            .with_hint(format!("semel push --draft SOURCE {}@{version}", request.component))),
    }
}

/// Hashes everything that an artefact needs.
async fn verify(store: &Store, digest: &Digest) -> Result<(), EngineError> {
    let mut conn = store.reader().await?;
    if let Some(missing) = content::first_missing(&mut conn, store.blobs(), [digest]).await? {
        return Err(EngineError::Verification {
            what: format!("{digest} cannot be published: it needs {missing}, which is not here"),
            hint: Some("push it again: what is missing is sent".to_owned()),
        });
    }
    let needed = content::closure(&mut conn, digest).await?;
    drop(conn);
    let blobs = store.blobs().clone();
    let hashed = tokio::task::spawn_blocking(move || {
        needed.iter().filter(|needed| blobs.contains(needed)).try_for_each(|one| blobs.verify(one).map(drop))
    });
    hashed.await.map_err(|_| EngineError::TryAgain { what: "hashing was broken off".to_owned() })??;
    Ok(())
}

/// An open draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DraftFact {
    /// The name.
    pub version: Version,
    /// What it is to mean.
    pub digest: Digest,
    /// Until when (RFC 3339).
    pub until: String,
}

/// The drafts of a component.
pub async fn list(
    store: &Store,
    component: &ComponentName,
    now: Timestamp,
) -> Result<Vec<DraftFact>, EngineError> {
    let open = draft::list(&mut store.reader().await?, component, now).await?;
    let fact = |one: draft::Draft| DraftFact {
        version: one.version,
        digest: one.digest,
        until: Timestamp::from_millisecond(one.until_millis).unwrap_or(Timestamp::MAX).to_string(),
    };
    Ok(open.into_iter().map(fact).collect())
}

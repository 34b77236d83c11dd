//! Reserve: one build key, one number, one version, one artefact, however many ask.
//!
//! ```text
//! committed            → reuse
//! leased and running   → wait for the holder
//! free, failed, lapsed → build, with the same number and version as before
//! ```
//!
//! The reservation is recorded in the ledger; the lease is operational. The result is committed by who holds the lease.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::Scheme;
use semel_model::build::{BuildInputs, Bump, CommitFact, History, Line};
use semel_model::digest::Digest;
use semel_model::entry::{
    BuildFailed, BuildReserved, Change, CommitMatched, EvidenceAttached, VersionPublished,
};
use semel_model::name::{CommitId, ComponentName};
use semel_model::statement::{Claim, PROVENANCE, Statement, check_claims};
use semel_model::version::Version;
use semel_store::Store;
use semel_store::keys::Role;
use semel_store::lease::{self, Lease};
use semel_store::ledger::Turn;
use semel_store::projections::build::{self, Build, BuildState};
use semel_store::projections::component as components;
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::allocate::{self, Allotted};
use crate::artefact;
use crate::batch::{Batch, put_document, read_document};
use crate::build_log;
use crate::component;
use crate::error::EngineError;

/// How long a holder may be silent, in milliseconds.
pub const LEASE_MILLIS: i64 = 45_000;
/// How soon a waiter asks again, in milliseconds.
pub const RETRY_MILLIS: u64 = 250;

/// Asks whether a key was built, without reserving it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// What the key is made of.
    pub inputs: BuildInputs,
    /// The commit that asks.
    pub commit: CommitId,
}

/// Asks for the right to build a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// What the key is made of.
    pub inputs: BuildInputs,
    /// The commit.
    pub commit: CommitId,
    /// Its git tree.
    pub tree: String,
    /// The line that it is built for.
    pub line: Line,
    /// The history behind it.
    pub history: History,
    /// For a merge commit that a forge made to try a request out: the commit that was requested to be merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<CommitId>,
    /// How versions look, as the project proposes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The step that the caller wants, whatever the commits say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bump: Option<Bump>,
    /// Who builds, for people who wait.
    pub holder: String,
}

/// How a reservation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Reservation {
    /// The key was never reserved; only a lookup says so.
    Unknown,
    /// It is built; nothing needs to be done.
    Built(Built),
    /// Somebody else is building it.
    Running {
        /// Who.
        holder: String,
        /// The build number.
        number: u64,
        /// The version that it will have.
        version: Version,
        /// When to ask again, in milliseconds.
        retry_millis: u64,
    },
    /// The caller may build it.
    Yours(Granted),
    /// The version depends on more of the history than was sent.
    HistoryNeeded {
        /// On these commits, or on how they relate to what is known.
        commits: Vec<CommitId>,
    },
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Built {
    /// The build number.
    pub number: u64,
    /// The version.
    pub version: Version,
    /// The artefact.
    pub digest: Digest,
    /// The commit that was built first.
    pub commit: CommitId,
    /// When it was reserved.
    pub time: String,
}

/// The right to build a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Granted {
    /// The build number.
    pub number: u64,
    /// The version that the result will get.
    pub version: Version,
    /// Counts the attempts at this key.
    pub attempt: u64,
    /// Must be shown to go on and to commit.
    pub token: String,
    /// The version that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Version>,
    /// The step since then.
    pub bump: Bump,
    /// The commits since then.
    pub since: Vec<CommitId>,
    /// The version of a descendant that was built before, where this one had to be lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_before: Option<Version>,
    /// What is not as the commits or the project ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The recorded source of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDocument {
    /// Format number, 1.
    pub v: u32,
    /// What the key is made of.
    pub inputs: BuildInputs,
    /// The commit.
    pub commit: CommitId,
    /// Its git tree.
    pub tree: String,
    /// The line.
    pub line: Line,
    /// For a merge commit that a forge made to try a request out: the commit that was requested to be merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<CommitId>,
    /// The version that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Version>,
    /// The largest step that the commits ask for.
    pub bump: Bump,
    /// The commits since then, with pseudonyms for their authors.
    pub since: Vec<CommitFact>,
}

/// Looks a key up. A commit that shares an earlier commit's tree is recorded as such.
pub async fn lookup(
    store: &Store,
    who: &Actor,
    request: &Lookup,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let (name, key) = (&request.inputs.component, request.inputs.key());
    let mut reader = store.reader().await?;
    let Some(found) = build::by_key(&mut reader, name, &key).await? else { return Ok(Reservation::Unknown) };
    let Some(built) = built(&found) else { return Ok(Reservation::Unknown) };
    if !build::is_matched(&mut reader, name, &request.commit, found.number).await? {
        let turn = store.turn().await?;
        match_commit(turn, who, name, &request.commit, found.number, now).await?;
    }
    Ok(Reservation::Built(built))
}

/// Ends a turn by recording that a commit shares a build, unless that is known.
async fn match_commit(
    mut turn: Turn,
    who: &Actor,
    component: &ComponentName,
    commit: &CommitId,
    number: u64,
    now: Timestamp,
) -> Result<(), EngineError> {
    let mut batch = Batch::new(who, now);
    if !build::is_matched(turn.db(), component, commit, number).await? {
        let (component, commit) = (component.clone(), commit.clone());
        batch.change(Change::CommitMatched(CommitMatched { component, commit, number }));
    }
    turn.append(batch.into_leaves()).await?;
    Ok(())
}

fn built(build: &Build) -> Option<Built> {
    let digest = build.digest.clone()?;
    Some(Built {
        number: build.number,
        version: build.version.clone(),
        digest,
        commit: build.commit.clone(),
        time: build.time.clone(),
    })
}

/// Reserves a key: reuse, wait, or build.
pub async fn reserve(
    store: &Store,
    who: &Actor,
    request: Reserve,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let (name, key) = (request.inputs.component.clone(), request.inputs.key());
    let mut turn = store.turn().await?;
    refuse_foreign_home(store, turn.db(), &name).await?;
    match build::by_key(turn.db(), &name, &key).await? {
        Some(found) if found.state == BuildState::Published => {
            let built =
                built(&found).ok_or_else(|| EngineError::not_found("a published build has no digest"))?;
            match_commit(turn, who, &name, &request.commit, found.number, now).await?;
            Ok(Reservation::Built(built))
        }
        Some(found) => take_over(store, turn, who, &found, &request, now).await,
        None => first_reservation(store, turn, who, request, key, now).await,
    }
}

/// Versions of a component come from its home alone (invariant I3).
pub(crate) async fn refuse_foreign_home(
    store: &Store,
    conn: &mut Conn,
    name: &ComponentName,
) -> Result<(), EngineError> {
    match components::get(conn, name).await? {
        Some(known) if known.home != store.id() => Err(EngineError::NotAllowed {
            what: format!(
                "{name} gets its versions from store {}; this store holds copies and gives none",
                known.home
            ),
            hint: Some("build against that store: --store DIR or --server URL".to_owned()),
        }),
        _ => Ok(()),
    }
}

/// The key is reserved and not built: wait for its holder, or build it with the same number and version.
async fn take_over(
    store: &Store,
    mut turn: Turn,
    who: &Actor,
    found: &Build,
    request: &Reserve,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let before = lease::get(turn.db(), &found.component, &found.key).await?;
    if let Some(held) = before.as_ref().filter(|lease| lease.is_live(now)) {
        return Ok(Reservation::Running {
            holder: held.holder.clone(),
            number: found.number,
            version: found.version.clone(),
            retry_millis: RETRY_MILLIS,
        });
    }
    let source: SourceDocument = read_document(store, &found.source)?;
    let attempt = before.map_or(1, |lease| lease.attempt + 1);
    let token = grant_lease(&mut turn, found, attempt, &request.holder, now).await?;
    match_commit(turn, who, &found.component, &request.commit, found.number, now).await?;
    Ok(Reservation::Yours(Granted {
        number: found.number,
        version: found.version.clone(),
        attempt,
        token,
        follows: source.follows,
        bump: source.bump,
        since: source.since.into_iter().map(|commit| commit.id).collect(),
        late_before: None,
        notes: Vec::new(),
    }))
}

async fn grant_lease(
    turn: &mut Turn,
    build: &Build,
    attempt: u64,
    holder: &str,
    now: Timestamp,
) -> Result<String, EngineError> {
    let token = lease::new_token();
    let until_millis = now.as_millisecond() + LEASE_MILLIS;
    let granted = Lease { attempt, token: token.clone(), holder: holder.to_owned(), until_millis };
    lease::set(turn.db(), &build.component, &build.key, &granted).await?;
    Ok(token)
}

async fn first_reservation(
    store: &Store,
    mut turn: Turn,
    who: &Actor,
    request: Reserve,
    key: Digest,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let name = request.inputs.component.clone();
    let mut batch = Batch::new(who, now);
    let known = component::ensure_building(turn.db(), &mut batch, &name, store.id(), request.scheme).await?;
    let mut allotment = match allocate::allot(store, turn.db(), &known, &request).await? {
        Allotted::Version(allotment) => allotment,
        Allotted::HistoryNeeded(commits) => return Ok(Reservation::HistoryNeeded { commits }),
    };
    allotment.record(&mut batch, &name);
    let allocation = allotment.allocation;
    let number = allocation.number;
    let source = put_document(store, &allotment.source)?;
    batch.change(Change::BuildReserved(BuildReserved {
        component: name.clone(),
        number,
        version: allocation.version.clone(),
        key: key.clone(),
        commit: request.commit.clone(),
        line: request.line.clone(),
        source: source.clone(),
    }));
    let build = Build {
        component: name,
        number,
        key,
        version: allocation.version.clone(),
        commit: request.commit,
        line: request.line,
        source,
        state: BuildState::Reserved,
        digest: None,
        log: None,
        reason: None,
        time: now.to_string(),
    };
    let token = grant_lease(&mut turn, &build, 1, &request.holder, now).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(Reservation::Yours(Granted {
        number,
        version: allocation.version,
        attempt: 1,
        token,
        follows: allocation.base.follows().cloned(),
        bump: allocation.bump,
        since: allocation.since,
        late_before: allocation.late_before,
        notes: allocation.notes,
    }))
}

/// Which running build is meant, and the proof that the caller holds it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// The lease's token.
    pub token: String,
}

/// Renews the lease on a running build.
pub async fn heartbeat(store: &Store, holding: &Holding, now: Timestamp) -> Result<(), EngineError> {
    let mut turn = store.turn().await?;
    let (build, mut held) = held(&mut turn, holding).await?;
    held.until_millis = now.as_millisecond() + LEASE_MILLIS;
    lease::set(turn.db(), &build.component, &build.key, &held).await?;
    turn.append(Vec::new()).await?;
    Ok(())
}

pub(crate) async fn held(turn: &mut Turn, holding: &Holding) -> Result<(Build, Lease), EngineError> {
    let Some(build) = build::by_number(turn.db(), &holding.component, holding.number).await? else {
        return Err(EngineError::not_found(format!("{} has no build {}", holding.component, holding.number)));
    };
    match lease::get(turn.db(), &build.component, &build.key).await? {
        Some(lease) if lease.token == holding.token => Ok((build, lease)),
        _ => Err(EngineError::Conflict {
            what: format!(
                "build {} of {} was taken over by somebody else",
                holding.number, holding.component
            ),
            hint: Some("run `semel build` again: it takes the result that was committed".to_owned()),
        }),
    }
}

/// A build's result.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The running build.
    #[serde(flatten)]
    pub holding: Holding,
    /// The artefact's manifest, stored before.
    pub digest: Digest,
    /// What the builder says about the artefact: its provenance, and every report once. Signed here.
    pub claims: Vec<Claim>,
    /// What the build printed, stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
}

/// Binds a build's version to its result, and signs and attaches what its builder says. Repeating it succeeds.
///
/// A claim becomes three leaves (the stored bundle, its signature, the evidence) that name the bytes by digest, so an append
/// holds at most three times [`CLAIMS_MAX`](semel_model::statement::CLAIMS_MAX) leaves and the version.
pub async fn commit(
    store: &Store,
    who: &Actor,
    request: Commit,
    now: Timestamp,
) -> Result<Built, EngineError> {
    check_claims(&request.claims).map_err(|error| EngineError::invalid(error.to_string()))?;
    let component = &request.holding.component;
    let mut batch = Batch::new(who, now);
    attach_claims(store, &mut batch, component, &request).await?;
    let mut turn = store.turn().await?;
    let (build, mut lease) = match held(&mut turn, &request.holding).await {
        Ok(found) => found,
        Err(error) => return committed_before(&mut turn, &request, error).await,
    };
    if let Some(built) = built(&build) {
        return Ok(built);
    }
    artefact::manifest(store, turn.db(), component, &request.digest).await?;
    batch.change_first(Change::VersionPublished(VersionPublished {
        component: build.component.clone(),
        version: build.version.clone(),
        digest: request.digest.clone(),
        number: Some(build.number),
        commit: Some(build.commit.clone()),
        log: request.log.clone(),
    }));
    lease.until_millis = 0;
    lease::set(turn.db(), &build.component, &build.key, &lease).await?;
    build_log::forget(&mut turn, &build).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(Built {
        number: build.number,
        version: build.version,
        digest: request.digest,
        commit: build.commit,
        time: build.time,
    })
}

/// Signs what a builder says, before the turn: signing writes files.
async fn attach_claims(
    store: &Store,
    batch: &mut Batch,
    component: &ComponentName,
    request: &Commit,
) -> Result<(), EngineError> {
    let mut reader = store.reader().await?;
    let (subject, _) = artefact::manifest(store, &mut reader, component, &request.digest).await?;
    drop(reader);
    for claim in &request.claims {
        let Claim { predicate_type, predicate, result } = claim.clone();
        let statement = Statement::about(component.as_str(), &request.digest, &predicate_type, predicate);
        let signed = batch.sign(store, &Role::Builder, component, &subject, &statement)?;
        let attachment = request.log.clone().filter(|_| predicate_type == PROVENANCE);
        batch.change(Change::EvidenceAttached(EvidenceAttached {
            component: component.clone(),
            digest: request.digest.clone(),
            envelope: signed.envelope,
            predicate_type,
            result,
            signer: signed.signer,
            environment: None,
            attachment,
        }));
    }
    Ok(())
}

/// A holder whose lease lapsed and whose key was built by another takes that result.
async fn committed_before(
    turn: &mut Turn,
    request: &Commit,
    error: EngineError,
) -> Result<Built, EngineError> {
    let found = build::by_number(turn.db(), &request.holding.component, request.holding.number).await?;
    found.as_ref().and_then(built).ok_or(error)
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
    let (build, mut lease) = held(&mut turn, &request.holding).await?;
    let mut batch = Batch::new(who, now);
    batch.change(Change::BuildFailed(BuildFailed {
        component: build.component.clone(),
        number: build.number,
        reason: request.reason.chars().take(500).collect(),
        log: request.log,
    }));
    lease.until_millis = 0;
    lease::set(turn.db(), &build.component, &build.key, &lease).await?;
    build_log::forget(&mut turn, &build).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(())
}

/// Gives the lease on a build up without a result: the build was broken off.
pub async fn release(store: &Store, holding: &Holding) -> Result<(), EngineError> {
    let mut turn = store.turn().await?;
    let (build, mut lease) = held(&mut turn, holding).await?;
    lease.until_millis = 0;
    lease::set(turn.db(), &build.component, &build.key, &lease).await?;
    build_log::forget(&mut turn, &build).await?;
    turn.append(Vec::new()).await?;
    Ok(())
}

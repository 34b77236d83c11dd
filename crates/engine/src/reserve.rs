//! Reserve: one build key, one number, one version, one artefact, however many ask.
//!
//! ```text
//! committed            → reuse
//! leased and running   → wait for the holder
//! free, failed, lapsed → build, with the same number and version as before
//! committed, damaged   → build once more: the same bytes bring it back, and others get no name
//! ```
//!
//! The reservation is recorded in the ledger; the lease is operational. The result is committed by who holds the lease
//! (`commit`). A build for several platforms has one reservation and a lease for each of its parts.

mod standing;
mod commit;
mod holding;
mod parts;

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::Scheme;
use semel_model::build::{BuildInputs, Bump, CommitFact, History, Line};
use semel_model::digest::Digest;
use semel_model::entry::{Again, BuildReserved, Change, CommitMatched, VersionPublished};
use semel_model::name::CommitId;
use semel_model::platform::Platform;
use semel_model::reservation::{Process, is_branch};
use semel_model::version::Version;
use semel_store::Store;
use semel_store::lease::{self, Lease, Leased};
use semel_store::ledger::Turn;
use semel_store::projections::build::{self, Build};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::allocate::{self, Allotted};
use crate::batch::{Batch, put_document, read_document};
use crate::component;
use crate::error::EngineError;
use crate::home;

pub(crate) use commit::built_from;
pub use commit::{Commit, Committed, Comparison, Finished, commit};
pub(crate) use holding::held;
pub use holding::{Fail, Holding, fail, heartbeat, release};
use standing::{Question, Standing, is_of_branch, provenance_of, standing};

/// How long a holder may be silent, in milliseconds.
pub const LEASE_MILLIS: i64 = 45_000;
/// How soon a waiter asks again, in milliseconds.
const RETRY_MILLIS: u64 = 250;
/// The most platforms that one build has parts for: their names stand in the ledger.
const PLATFORMS_MAX: usize = 32;
/// The longest name of who builds, in characters.
const HOLDER_CHARS_MAX: usize = 200;
/// The longest reason to build again, in characters.
const REASON_CHARS_MAX: usize = 500;

/// Asks whether a key was built, without reserving it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// What the key is made of.
    pub inputs: BuildInputs,
    /// The commit that asks.
    pub commit: CommitId,
    /// The line that it asks for.
    pub line: Line,
}

/// Asks for the right to build a key.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// What the key is made of. Its salt is the store's to choose.
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
    /// The process that builds, so that others on its machine see when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Why the same source is to be built once more; none: what was built is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<String>,
    /// The platforms that the artefact has parts for, in the order of its index; none: it is one artefact for one platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Which part is asked for; one of the platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The attempt that the caller has waited for: if that failed, so has this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<u64>,
    /// The attempt whose process the caller, on the same machine, has found to be gone. Believed, because it gains nothing
    /// but the right to build: a false word costs a repeated build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<u64>,
    /// Only this build, whatever else there is of its source: the caller has begun it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
}

/// How a reservation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Reservation {
    /// There is nothing to take as it is; only a lookup says so.
    Unknown,
    /// It is built; nothing needs to be done.
    Built(Built),
    /// The part is built; others are missing.
    Part(BuiltPart),
    /// Somebody else is building it.
    Running(Running),
    /// The attempt that was waited for failed.
    Failed(FailedAttempt),
    /// The caller may build it.
    Yours(Granted),
    /// The version depends on more of the history than was sent.
    HistoryNeeded {
        /// On these commits, or on how they relate to what is known.
        commits: Vec<CommitId>,
    },
}

/// Somebody is building.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Running {
    /// Who.
    pub holder: String,
    /// The build number.
    pub number: u64,
    /// The version that it will have.
    pub version: Version,
    /// Which attempt it is.
    pub attempt: u64,
    /// The process that builds, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// When to ask again, in milliseconds.
    pub retry_millis: u64,
}

/// An attempt that failed while somebody waited for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedAttempt {
    /// Who built.
    pub holder: String,
    /// The build number; it stays with the key.
    pub number: u64,
    /// The version, which stays with the key too.
    pub version: Version,
    /// What failed, in one line.
    pub reason: String,
    /// Whether what it printed is kept.
    pub has_log: bool,
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

/// A finished part of a build that has others to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuiltPart {
    /// The build number.
    pub number: u64,
    /// The version that the whole will have.
    pub version: Version,
    /// What the part runs on.
    pub platform: Platform,
    /// The part.
    pub digest: Digest,
    /// The commit that was built first.
    pub commit: CommitId,
    /// The platforms whose parts are not built yet.
    pub missing: Vec<Platform>,
}

/// The right to build a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Granted {
    /// The build number.
    pub number: u64,
    /// The version that the result will get.
    pub version: Version,
    /// The salt of its key: how often the same source was built before on purpose.
    pub salt: u32,
    /// Counts the attempts at this key.
    pub attempt: u64,
    /// The artefact that was published before, of which bytes are missing: the same ones bring it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// Must be shown to go on and to commit.
    pub token: String,
    /// The version that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Version>,
    /// The step since then.
    pub bump: Bump,
    /// The commits since then.
    pub since: Vec<CommitId>,
    /// The pseudonyms of their authors, each once.
    #[serde(default)]
    pub authors: Vec<String>,
    /// The version of a descendant that was built before, where this one had to be lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_before: Option<Version>,
    /// What is not as the commits or the project ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A published artefact that is not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// Which.
    pub digest: Digest,
    /// What is missing of it in the store.
    pub missing: Digest,
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

/// Looks a key up: what can be taken as it is. A commit that shares an earlier commit's tree is recorded as such.
pub async fn lookup(
    store: &Store,
    who: &Actor,
    request: &Lookup,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let question = Question::new(who, &request.inputs, &request.line);
    let mut reader = store.reader().await?;
    let Standing::Built(build, built) = standing(store, &mut reader, &question, now).await? else {
        return Ok(Reservation::Unknown);
    };
    if !build::is_matched(&mut reader, &build.component, &request.commit, build.number).await? {
        drop(reader);
        let turn = store.turn().await?;
        match_commit(turn, who, &build, &request.commit, now).await?;
    }
    Ok(Reservation::Built(built))
}

/// What a source has got for a line already, reserved or published.
pub(crate) enum Had {
    /// This build, with the version that serves the line.
    Version(Box<Build>, Version),
    /// A branch's build with this number: it gets a name of the line when that is built.
    Unnamed(u64),
    /// Nothing that answers.
    Nothing,
}

/// What a reservation would find. Nothing is changed.
pub(crate) async fn had(
    store: &Store,
    conn: &mut Conn,
    who: &Actor,
    request: &Reserve,
    now: Timestamp,
) -> Result<Had, EngineError> {
    let question =
        Question { again: request.again.as_deref(), ..Question::new(who, &request.inputs, &request.line) };
    let build = match standing(store, conn, &question, now).await? {
        Standing::Built(build, built) => return Ok(Had::Version(build, built.version)),
        Standing::Unnamed(build, _) => return Ok(Had::Unnamed(build.number)),
        Standing::Part(build, _) | Standing::Free(build, _) | Standing::Lost(build, ..) => Some(build),
        Standing::Busy(Reservation::Running(Running { number, .. })) => {
            build::by_number(conn, question.component, number).await?.map(Box::new)
        }
        Standing::Busy(_) | Standing::New { .. } => None,
    };
    Ok(match build {
        Some(build) if !is_branch(&request.line) && is_of_branch(&build) => Had::Unnamed(build.number),
        Some(build) => {
            let version = build.version.clone();
            Had::Version(build, version)
        }
        None => Had::Nothing,
    })
}

/// Reserves a key: reuse, wait, or build.
pub async fn reserve(
    store: &Store,
    who: &Actor,
    request: Reserve,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    check_request(&request)?;
    let question = Question {
        again: request.again.as_deref(),
        platform: request.platform.as_ref(),
        waited_for: request.waited_for,
        gone: request.gone.zip(request.process.as_ref()),
        number: request.number,
        ..Question::new(who, &request.inputs, &request.line)
    };
    // Who waits asks often, and changes nothing.
    let at_first = standing(store, &mut store.reader().await?, &question, now).await?;
    if let Standing::Busy(answer) = at_first {
        return Ok(answer);
    }
    let mut turn = store.turn().await?;
    home::refuse_foreign_home(store, turn.db(), &request.inputs.component).await?;
    match standing(store, turn.db(), &question, now).await? {
        Standing::Busy(answer) => Ok(answer),
        Standing::Built(build, built) => {
            match_commit(turn, who, &build, &request.commit, now).await?;
            Ok(Reservation::Built(built))
        }
        Standing::Part(build, part) => {
            match_commit(turn, who, &build, &request.commit, now).await?;
            Ok(Reservation::Part(part))
        }
        Standing::Unnamed(build, digest) => {
            name_for_line(store, turn, who, *build, digest, &request, now).await
        }
        Standing::Free(build, salt) => {
            take_over(store, turn, who, *build, salt, &request, now).await.map(Reservation::Yours)
        }
        Standing::Lost(build, _, lost) if !build.platforms.is_empty() => Err(lost_parts(&build, &lost)),
        Standing::Lost(build, salt, lost) => {
            require_its_commit(store, turn.db(), &build, &lost, &request.commit).await?;
            // Clients may have been told from memory that the bytes are here: it is asked anew.
            turn.touch();
            let granted = take_over(store, turn, who, *build, salt, &request, now).await?;
            Ok(Reservation::Yours(Granted { lost: Some(lost), ..granted }))
        }
        Standing::New { salt, reason } => {
            first_reservation(store, turn, who, request, salt, reason, now).await
        }
    }
}

fn check_request(request: &Reserve) -> Result<(), EngineError> {
    let Reserve { platforms, platform, again, holder, process, .. } = request;
    let process = process.iter().flat_map(|process| [&process.host, &process.start]);
    if !std::iter::once(holder).chain(process).all(|text| is_word(text)) {
        return Err(EngineError::invalid(format!(
            "who builds is said in at most {HOLDER_CHARS_MAX} characters, without control characters"
        )));
    }
    let distinct: BTreeSet<_> = platforms.iter().collect();
    if distinct.len() != platforms.len() || platforms.len() > PLATFORMS_MAX {
        return Err(EngineError::invalid(format!(
            "a build names each of its platforms once, and at most {PLATFORMS_MAX}"
        )));
    }
    match platform {
        Some(platform) if !platforms.contains(platform) => {
            return Err(EngineError::invalid(format!("{platform} is none of the platforms of this build")));
        }
        None if !platforms.is_empty() => {
            return Err(EngineError::invalid("a build with platforms is reserved part by part"));
        }
        _ => {}
    }
    let is_reason = |text: &String| !text.trim().is_empty() && text.chars().count() <= REASON_CHARS_MAX;
    match again.as_ref().filter(|text| !is_reason(text)) {
        Some(_) => Err(EngineError::precondition(format!(
            "building again needs a reason of 1 to {REASON_CHARS_MAX} characters: it is recorded"
        ))),
        None => Ok(()),
    }
}

/// Whether a text can be shown to those who wait.
fn is_word(text: &str) -> bool {
    text.chars().count() <= HOLDER_CHARS_MAX && !text.chars().any(char::is_control)
}

fn built(build: &Build, version: Version, digest: Digest) -> Built {
    let (commit, time) = (build.commit.clone(), build.time.clone());
    Built { number: build.number, version, digest, commit, time }
}

/// Ends a turn by recording that a commit shares a build, unless that is known.
async fn match_commit(
    mut turn: Turn,
    who: &Actor,
    build: &Build,
    commit: &CommitId,
    now: Timestamp,
) -> Result<(), EngineError> {
    let mut batch = Batch::new(who, now);
    record_match(&mut turn, &mut batch, build, commit).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(())
}

async fn record_match(
    turn: &mut Turn,
    batch: &mut Batch,
    build: &Build,
    commit: &CommitId,
) -> Result<(), EngineError> {
    let (component, number) = (&build.component, build.number);
    if !build::is_matched(turn.db(), component, commit, number).await? {
        let (component, commit) = (component.clone(), commit.clone());
        batch.change(Change::CommitMatched(CommitMatched { component, commit, number }));
    }
    Ok(())
}

/// The artefact of a branch gets a version of the line that asks for the same tree: another name for the same digest.
async fn name_for_line(
    store: &Store,
    mut turn: Turn,
    who: &Actor,
    build: Build,
    digest: Digest,
    request: &Reserve,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let mut batch = Batch::new(who, now);
    record_match(&mut turn, &mut batch, &build, &request.commit).await?;
    let known = component::get(turn.db(), &build.component).await?;
    let mut allotment = match allocate::allot(store, turn.db(), &known, request).await? {
        Allotted::Version(allotment) => allotment,
        Allotted::HistoryNeeded(commits) => return Ok(Reservation::HistoryNeeded { commits }),
    };
    allotment.record(&mut batch, &build.component);
    let allocation = allotment.allocation;
    batch.change(Change::VersionPublished(VersionPublished {
        component: build.component.clone(),
        version: allocation.version.clone(),
        digest: digest.clone(),
        number: Some(build.number),
        commit: Some(request.commit.clone()),
        log: build.log.clone(),
        source: Some(put_document(store, &allotment.source)?),
    }));
    turn.append(batch.into_leaves()).await?;
    Ok(Reservation::Built(built(&build, allocation.version, digest)))
}

/// The key is reserved and nobody is building it: build it with the same number and version.
async fn take_over(
    store: &Store,
    mut turn: Turn,
    who: &Actor,
    build: Build,
    salt: u32,
    request: &Reserve,
    now: Timestamp,
) -> Result<Granted, EngineError> {
    if build.platforms != request.platforms {
        return Err(EngineError::invalid(format!("build {} has other platforms", build.number)));
    }
    let source: SourceDocument = read_document(store, &build.source)?;
    let leased = Leased { component: &build.component, key: &build.key, platform: request.platform.as_ref() };
    let attempt = lease::newest(turn.db(), leased).await?.map_or(1, |lease| lease.attempt + 1);
    let token = grant_lease(&mut turn, leased, attempt, request, now).await?;
    match_commit(turn, who, &build, &request.commit, now).await?;
    Ok(Granted {
        number: build.number,
        version: build.version,
        salt,
        attempt,
        lost: None,
        token,
        follows: source.follows,
        bump: source.bump,
        authors: authors(&source.since),
        since: source.since.into_iter().map(|commit| commit.id).collect(),
        late_before: None,
        notes: Vec::new(),
    })
}

/// The times in an artefact are its commit's: another commit with the same source tree does not bring its bytes back.
async fn require_its_commit(
    store: &Store,
    conn: &mut Conn,
    build: &Build,
    lost: &Lost,
    commit: &CommitId,
) -> Result<(), EngineError> {
    let known = provenance_of(store, conn, &build.component, &lost.digest).await?;
    match known.as_ref().and_then(built_from).filter(|its| its != commit) {
        None => Ok(()),
        Some(its) => Err(incomplete(
            build,
            lost,
            format!(
                "what it was built from brings it back, if it comes out the same: semel build {its}   or, for a new version: \
                 semel build --again --reason \"the bytes were lost\""
            ),
        )),
    }
}

/// The parts of an artefact for several platforms are built in different places: nobody here can bring back all of it.
fn lost_parts(build: &Build, lost: &Lost) -> EngineError {
    let hint = "push it again from wherever it still is, such as a backup; or make a new version: \
                semel build --again --reason \"the bytes were lost\" --platform all";
    incomplete(build, lost, hint.to_owned())
}

fn incomplete(build: &Build, lost: &Lost, hint: String) -> EngineError {
    let (Build { component, number, version, .. }, Lost { missing, .. }) = (build, lost);
    let what = format!(
        "{component} {version} (build {number}) was built, and {missing} of it is missing from the store"
    );
    EngineError::Verification { what, hint: Some(hint) }
}

fn authors(commits: &[CommitFact]) -> Vec<String> {
    let authors: BTreeSet<&String> = commits.iter().map(|commit| &commit.author).collect();
    authors.into_iter().cloned().collect()
}

async fn grant_lease(
    turn: &mut Turn,
    leased: Leased<'_>,
    attempt: u64,
    request: &Reserve,
    now: Timestamp,
) -> Result<String, EngineError> {
    let token = lease::new_token();
    let granted = Lease {
        attempt,
        token: token.clone(),
        holder: request.holder.clone(),
        process: request.process.clone(),
        until_millis: now.as_millisecond() + LEASE_MILLIS,
        delivered: None,
        failed: false,
    };
    lease::set(turn.db(), leased, &granted).await?;
    Ok(token)
}

async fn first_reservation(
    store: &Store,
    mut turn: Turn,
    who: &Actor,
    mut request: Reserve,
    salt: u32,
    reason: Option<String>,
    now: Timestamp,
) -> Result<Reservation, EngineError> {
    let name = request.inputs.component.clone();
    let first = BuildInputs { salt: 0, ..request.inputs.clone() }.key();
    request.inputs.salt = salt;
    let key = request.inputs.key();
    let mut batch = Batch::new(who, now);
    let known = component::ensure_building(turn.db(), &mut batch, &name, store.id(), request.scheme).await?;
    let mut allotment = match allocate::allot(store, turn.db(), &known, &request).await? {
        Allotted::Version(allotment) => allotment,
        Allotted::HistoryNeeded(commits) => return Ok(Reservation::HistoryNeeded { commits }),
    };
    allotment.record(&mut batch, &name);
    let allocation = allotment.allocation;
    let number = allocation.number;
    batch.change(Change::BuildReserved(BuildReserved {
        component: name.clone(),
        number,
        version: allocation.version.clone(),
        key: key.clone(),
        commit: request.commit.clone(),
        line: request.line.clone(),
        source: put_document(store, &allotment.source)?,
        platforms: request.platforms.clone(),
        again: reason.map(|reason| Again { of: first, reason }),
    }));
    let leased = Leased { component: &name, key: &key, platform: request.platform.as_ref() };
    let token = grant_lease(&mut turn, leased, 1, &request, now).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(Reservation::Yours(Granted {
        number,
        version: allocation.version,
        salt,
        attempt: 1,
        lost: None,
        token,
        follows: allocation.base.follows().cloned(),
        bump: allocation.bump,
        authors: authors(&allotment.source.since),
        since: allocation.since,
        late_before: allocation.late_before,
        notes: allocation.notes,
    }))
}

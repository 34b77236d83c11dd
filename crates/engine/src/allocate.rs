//! Allocate: which version a commit gets next.
//!
//! The rule is [`semel_model::allocation`]; here is gathered what it is told, and what the ledger keeps of that. [`next`]
//! asks without giving anything.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::{self as rule, Allocation, Ask, Base, Known, KnownCommit, Outcome, Scheme};
use semel_model::build::{Bump, CommitFact, Line};
use semel_model::entry::{Change, CommitsRecorded};
use semel_model::name::{CommitId, ComponentName};
use semel_model::version::Version;
use semel_store::Store;
use semel_store::projections::build::{Build, BuildState};
use semel_store::projections::component::Component;
use semel_store::projections::{commit, component as components};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, read_document};
use crate::component;
use crate::error::EngineError;
use crate::home;
use crate::look::commits;
use crate::reserve::{Had, Reserve, SourceDocument, had};

/// How many new commits one reservation records, the newest first. The others can be told again.
const RECORDED_AT_ONCE: usize = 2_000;
/// How many bytes of commits go into one leaf, well below [`semel_model::entry::LEAF_BYTES_MAX`].
const LEAF_BYTES: usize = 12 * 1024;

/// A version that is about to be given.
pub(crate) struct Allotment {
    /// The version and how it came about.
    pub(crate) allocation: Allocation,
    /// The source of the build.
    pub(crate) source: SourceDocument,
    /// What the store is told of for the first time.
    unrecorded: Vec<KnownCommit>,
}

/// What came of asking for a version.
pub(crate) enum Allotted {
    /// This one.
    Version(Box<Allotment>),
    /// More must be told.
    HistoryNeeded(Vec<CommitId>),
}

impl Allotment {
    /// Records the commits that are new.
    pub(crate) fn record(&mut self, batch: &mut Batch, component: &ComponentName) {
        let mut commits: Vec<KnownCommit> = Vec::new();
        let mut size = 0;
        for one in std::mem::take(&mut self.unrecorded) {
            let more = bytes_of(&one);
            if size + more > LEAF_BYTES && !commits.is_empty() {
                record_commits(batch, component, std::mem::take(&mut commits));
                size = 0;
            }
            size += more;
            commits.push(one);
        }
        if !commits.is_empty() {
            record_commits(batch, component, commits);
        }
    }
}

fn record_commits(batch: &mut Batch, component: &ComponentName, commits: Vec<KnownCommit>) {
    batch.change(Change::CommitsRecorded(CommitsRecorded { component: component.clone(), commits }));
}

/// At least as many bytes as the commit takes in a leaf: ids of at most 64 digits, and the words around them.
fn bytes_of(commit: &KnownCommit) -> usize {
    let id = commit.id.as_str().len() + 3;
    id * (commit.parents.len() + 1) + commit.author.len() + 64
}

/// The version for a reservation, from what the request and the store know.
pub(crate) async fn allot(
    store: &Store,
    conn: &mut Conn,
    to: &Component,
    request: &Reserve,
) -> Result<Allotted, EngineError> {
    let known = gather(conn, &to.name).await?;
    let ask = Ask {
        commit: &request.commit,
        line: &request.line,
        history: &request.history,
        scheme: to.scheme.unwrap_or_default(),
        bump: request.bump,
        number: to.last_build + 1,
    };
    let mut allocation = match rule::allocate(&ask, &known) {
        Outcome::Given(allocation) => *allocation,
        Outcome::HistoryNeeded(commits) => return Ok(Allotted::HistoryNeeded(commits)),
    };
    allocation.notes.extend(other_scheme(to, request.scheme));
    let source = source_document(store, request, &known, &allocation)?;
    let unrecorded = unrecorded(store, request, &known)?;
    Ok(Allotted::Version(Box::new(Allotment { allocation, source, unrecorded })))
}

async fn gather(conn: &mut Conn, component: &ComponentName) -> Result<Known, EngineError> {
    Ok(Known {
        commits: commit::known(conn, component).await?,
        given: commit::given(conn, component).await?,
        taken: commit::taken(conn, component).await?,
        lines: commit::release_lines(conn, component)
            .await?
            .into_iter()
            .map(|line| (line.major, line.minor))
            .collect(),
    })
}

/// The file proposes, the store disposes: what differs is said.
fn other_scheme(to: &Component, proposed: Option<Scheme>) -> Option<String> {
    let in_force = to.scheme.unwrap_or_default();
    let proposed = proposed.filter(|proposed| *proposed != in_force)?;
    let name = &to.name;
    Some(format!(
        "{name} has the version scheme {in_force}, not {proposed} (semel component set {name} --scheme {proposed})"
    ))
}

/// Authors are recorded under pseudonyms alone.
fn source_document(
    store: &Store,
    request: &Reserve,
    known: &Known,
    allocation: &Allocation,
) -> Result<SourceDocument, EngineError> {
    let sent: BTreeMap<&CommitId, &CommitFact> =
        request.history.commits.iter().map(|fact| (&fact.id, fact)).collect();
    let recorded: BTreeMap<&CommitId, &KnownCommit> =
        known.commits.iter().map(|one| (&one.id, one)).collect();
    let mut since = Vec::with_capacity(allocation.since.len());
    for id in &allocation.since {
        if let Some(fact) = sent.get(id) {
            let author = store.keys().pseudonym("git", &fact.author)?;
            since.push(CommitFact { author, ..(*fact).clone() });
        } else if let Some(one) = recorded.get(id) {
            since.push(remembered(one));
        }
    }
    Ok(SourceDocument {
        v: 1,
        inputs: request.inputs.clone(),
        commit: request.commit.clone(),
        tree: request.tree.clone(),
        line: request.line.clone(),
        head: request.head.clone(),
        follows: allocation.base.follows().cloned(),
        bump: allocation.bump,
        since,
    })
}

/// What the store remembers of a commit that was not sent again: its subject is not among it.
fn remembered(one: &KnownCommit) -> CommitFact {
    CommitFact {
        id: one.id.clone(),
        parents: one.parents.clone(),
        author: one.author.clone(),
        subject: String::new(),
        bump: one.bump.unwrap_or(Bump::Patch),
        outside: one.bump.is_none(),
    }
}

fn unrecorded(store: &Store, request: &Reserve, known: &Known) -> Result<Vec<KnownCommit>, EngineError> {
    // Of an import whose commit is only a name, nothing is known that could be relied on later.
    if request.tree.is_empty() {
        return Ok(Vec::new());
    }
    let recorded: HashSet<&CommitId> = known.commits.iter().map(|one| &one.id).collect();
    let new = request.history.commits.iter().filter(|fact| !recorded.contains(&fact.id));
    new.take(RECORDED_AT_ONCE)
        .map(|fact| {
            Ok(KnownCommit {
                id: fact.id.clone(),
                parents: fact.parents.clone(),
                author: store.keys().pseudonym("git", &fact.author)?,
                bump: (!fact.outside).then_some(fact.bump),
            })
        })
        .collect()
}

/// Asks which version a reservation would get, and reserves nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct NextVersion(pub Reserve);

/// Which version a commit has or would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Next {
    /// It has one already.
    Had(Box<Given>),
    /// It would get this one.
    New(Box<Forecast>),
    /// More of the history must be told first.
    HistoryNeeded {
        /// These commits, or how they relate to what is known.
        commits: Vec<CommitId>,
    },
}

/// A version that was given, and what it followed from then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Given {
    /// The version.
    pub version: Version,
    /// The build number.
    pub number: u64,
    /// Whether it is published; else it is reserved.
    pub published: bool,
    /// Why the last attempt at it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The commit that it was given to first: one with the same source tree.
    pub given_to: CommitId,
    /// The line that it was given on.
    pub line: Line,
    /// The version that it followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Version>,
    /// The step that the commits asked for.
    pub bump: Bump,
    /// The commits since the version before.
    pub since: Vec<CommitId>,
}

/// A version that would be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// The version.
    pub version: Version,
    /// The build number.
    pub number: u64,
    /// How versions of the component look.
    pub scheme: Scheme,
    /// The line.
    pub line: Line,
    /// What it goes on from.
    pub base: Base,
    /// The step from there.
    pub bump: Bump,
    /// The commits since then.
    pub since: Vec<CommitId>,
    /// The version of a descendant that was built before, where the name had to be lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_before: Option<Version>,
    /// What is not as the commits ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Says which version a commit has or would get now. Nothing is reserved: another build may take it first.
pub async fn next(
    store: &Store,
    who: &Actor,
    request: &NextVersion,
    now: Timestamp,
) -> Result<Next, EngineError> {
    let NextVersion(request) = request;
    let name = &request.inputs.component;
    let mut conn = store.reader().await?;
    home::refuse_foreign_home(store, &mut conn, name).await?;
    let unnamed = match had(store, &mut conn, who, request, now).await? {
        Had::Version(build, version) => {
            return Ok(Next::Had(Box::new(given(store, &mut conn, *build, version).await?)));
        }
        Had::Unnamed(number) => Some(number),
        Had::Nothing => None,
    };
    let known = components::get(&mut conn, name).await?;
    let to = known.unwrap_or_else(|| component::new(name.clone(), store.id()));
    let to = component::with_proposed_scheme(to, request.scheme);
    let allotment = match allot(store, &mut conn, &to, request).await? {
        Allotted::Version(allotment) => allotment,
        Allotted::HistoryNeeded(commits) => return Ok(Next::HistoryNeeded { commits }),
    };
    let Allocation { version, number, base, bump, since, late_before, notes } = allotment.allocation;
    let number = unnamed.unwrap_or(number);
    let scheme = to.scheme.unwrap_or_default();
    let line = request.line.clone();
    let forecast = Forecast { version, number, scheme, line, base, bump, since, late_before, notes };
    Ok(Next::New(Box::new(forecast)))
}

/// What is recorded of how a version came about.
async fn given(store: &Store, conn: &mut Conn, build: Build, version: Version) -> Result<Given, EngineError> {
    let source = commits::source_of_version(conn, &build, &version).await?;
    let source: SourceDocument = read_document(store, &source)?;
    Ok(Given {
        version,
        number: build.number,
        published: build.state == BuildState::Published,
        reason: build.reason,
        given_to: source.commit,
        line: source.line,
        follows: source.follows,
        bump: source.bump,
        since: source.since.into_iter().map(|commit| commit.id).collect(),
    })
}

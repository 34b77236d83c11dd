//! The commits that one artefact has and another does not.

use std::collections::HashSet;

use schemars::JsonSchema;
use semel_model::ancestry::Ancestry;
use semel_model::build::CommitFact;
use semel_model::digest::Digest;
use semel_model::entry::{Change, Leaf};
use semel_model::name::{CommitId, ComponentName};
use semel_model::version::Version;
use semel_store::projections::build::{self, Build};
use semel_store::projections::{artefact, commit};
use semel_store::sql::Conn;
use semel_store::{Store, ledger};
use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::batch::read_document;
use crate::error::EngineError;
use crate::reserve::SourceDocument;

/// A commit of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message; empty where the store was told of the commit alone.
    pub subject: String,
}

impl From<CommitFact> for Commit {
    fn from(fact: CommitFact) -> Self {
        Self { id: fact.id, subject: fact.subject }
    }
}

/// What lies between two artefacts.
#[derive(Debug, Default)]
pub(crate) struct Between {
    /// The commits that only one of them has, newest first.
    pub(crate) commits: Vec<Commit>,
    /// Whether that is the first of the two.
    pub(crate) backwards: bool,
    /// How many commits the other one has besides: they lie on different branches.
    pub(crate) others: usize,
}

/// What lies between two artefacts of a component, by the commits that the store was told of; where it was not, by the numbers
/// of the builds between them.
pub(crate) async fn between(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    [first, second]: [Option<&Artefact>; 2],
) -> Result<Between, EngineError> {
    let [from, to] = [first, second].map(|one| one.and_then(|artefact| artefact.number).unwrap_or(0));
    let known = commit::known(conn, component).await?;
    let ancestry = Ancestry::new(&known);
    let behind = |one: Option<&Artefact>| match one {
        None => Some(HashSet::new()),
        Some(artefact) => ancestry.behind(artefact.commit.as_ref()?),
    };
    let (Some(a), Some(b)) = (behind(first), behind(second)) else {
        let commits = of_builds(store, conn, component, from.min(to), from.max(to)).await?;
        return Ok(Between { commits, backwards: to < from, others: 0 });
    };
    let only = |of: &HashSet<&'_ CommitId>, not: &HashSet<&'_ CommitId>| -> HashSet<CommitId> {
        let only = known.iter().map(|one| &one.id).filter(|id| of.contains(id) && !not.contains(id));
        ancestry.changing(only).into_iter().cloned().collect()
    };
    let (ahead, back) = (only(&b, &a), only(&a, &b));
    let backwards = !back.is_empty() && (ahead.is_empty() || to < from);
    let (wanted, others, newer, older) =
        if backwards { (back, ahead, from, to) } else { (ahead, back, to, from) };
    let commits = told(store, conn, component, wanted, older.min(newer.saturating_sub(1)), newer).await?;
    Ok(Between { commits, backwards, others: others.len() })
}

/// These commits with their subjects, as the builds in a range of numbers tell them. What none of them tells has none.
async fn told(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    mut wanted: HashSet<CommitId>,
    after: u64,
    to: u64,
) -> Result<Vec<Commit>, EngineError> {
    let mut found = Vec::new();
    for number in (after + 1..=to).rev() {
        if wanted.is_empty() {
            break;
        }
        let commits = of_build(store, conn, component, number).await?;
        found.extend(commits.into_iter().filter(|commit| wanted.remove(&commit.id)));
    }
    let mut untold: Vec<CommitId> = wanted.into_iter().collect();
    untold.sort();
    found.extend(untold.into_iter().map(|id| Commit { id, subject: String::new() }));
    Ok(found)
}

/// The commits that a build brought, newest first; where a line has taken the artefact of a branch, those of the line before
/// those that it was built from.
pub(crate) async fn of_build(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
) -> Result<Vec<Commit>, EngineError> {
    let Some(built) = build::by_number(conn, component, number).await? else { return Ok(Vec::new()) };
    let mut commits = match source_of_name(conn, &built).await? {
        Some(source) => since(store, &source)?,
        None => Vec::new(),
    };
    for commit in since(store, &built.source)? {
        if !commits.contains(&commit) {
            commits.push(commit);
        }
    }
    Ok(commits)
}

fn since(store: &Store, source: &Digest) -> Result<Vec<Commit>, EngineError> {
    let source: SourceDocument = read_document(store, source)?;
    Ok(source.since.into_iter().map(Commit::from).collect())
}

/// The source document of the newest name of a build, where that is not the build's own.
async fn source_of_name(conn: &mut Conn, built: &Build) -> Result<Option<Digest>, EngineError> {
    let named = artefact::by_number(conn, &built.component, built.number).await?;
    match named.filter(|named| named.commit.as_ref() != Some(&built.commit)) {
        Some(named) => recorded_source(conn, named.seq).await,
        None => Ok(None),
    }
}

/// The source document behind a version of a build: its own, where a line took a branch's artefact under that name; else the
/// build's.
pub(crate) async fn source_of_version(
    conn: &mut Conn,
    built: &Build,
    version: &Version,
) -> Result<Digest, EngineError> {
    let own = match artefact::version(conn, &built.component, version).await? {
        Some(named) => recorded_source(conn, named.seq).await?,
        None => None,
    };
    Ok(own.unwrap_or_else(|| built.source.clone()))
}

/// The source document that the entry which bound a version names.
async fn recorded_source(conn: &mut Conn, seq: u64) -> Result<Option<Digest>, EngineError> {
    let recorded = ledger::read_one(conn, seq).await?;
    Ok(recorded.and_then(|recorded| match recorded.leaf {
        Leaf::Entry(entry) => match entry.change {
            Change::VersionPublished(body) => body.source,
            _ => None,
        },
        Leaf::Signature(_) => None,
    }))
}

/// The commits that the builds in a range of numbers brought, each once.
async fn of_builds(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    after: u64,
    to: u64,
) -> Result<Vec<Commit>, EngineError> {
    let mut all = Vec::new();
    for number in (after + 1..=to).rev() {
        for one in of_build(store, conn, component, number).await? {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    Ok(all)
}

//! Builds: which key got which number and version, and what became of it.

use semel_model::build::Line;
use semel_model::digest::Digest;
use semel_model::entry::{BuildFailed, BuildReserved, Entry};
use semel_model::name::{CommitId, ComponentName};
use semel_model::version::Version;

use crate::sql::{Conn, Row, SqlError, opt_text, text};

/// What became of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildState {
    /// Number and version are given; nothing is published yet.
    Reserved,
    /// The last attempt failed.
    Failed,
    /// Its artefact is published.
    Published,
}

/// A build as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// The build key.
    pub key: Digest,
    /// The version that it has or will have.
    pub version: Version,
    /// The commit that asked first.
    pub commit: CommitId,
    /// The line that it was built for.
    pub line: Line,
    /// The source document.
    pub source: Digest,
    /// What became of it.
    pub state: BuildState,
    /// The artefact, once published.
    pub digest: Option<Digest>,
    /// What the last attempt printed.
    pub log: Option<Digest>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// When it was reserved.
    pub time: String,
}

/// The columns that [`read`] takes, in its order.
macro_rules! select_build {
    ($rest:literal) => {
        concat!("SELECT component, number, build_key, version, commit_id, line, source, state, digest, log, reason, time ", "FROM build ", $rest)
    };
}

pub(super) async fn reserved(conn: &mut Conn, entry: &Entry, body: &BuildReserved) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO build (component, number, build_key, version, commit_id, line, source, state, time) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'reserved', $8)",
        &[
            text(&body.component),
            body.number.into(),
            text(&body.key),
            text(&body.version),
            text(&body.commit),
            serde_json::to_string(&body.line).expect("a line is JSON").into(),
            text(&body.source),
            text(&entry.time),
        ],
    )
    .await?;
    conn.execute(
        "UPDATE component SET last_build = $2 WHERE name = $1",
        &[text(&body.component), body.number.into()],
    )
    .await?;
    matched(conn, &body.component, &body.commit, body.number).await
}

pub(super) async fn failed(conn: &mut Conn, body: &BuildFailed) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE build SET state = 'failed', log = $3, reason = $4 WHERE component = $1 AND number = $2 AND state <> 'published'",
        &[text(&body.component), body.number.into(), opt_text(body.log.as_ref()), body.reason.as_str().into()],
    )
    .await
    .map(drop)
}

pub(super) async fn published(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
    digest: &Digest,
    log: Option<&Digest>,
) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE build SET state = 'published', digest = $3, log = $4, reason = NULL WHERE component = $1 AND number = $2",
        &[text(component), number.into(), text(digest), opt_text(log)],
    )
    .await
    .map(drop)
}

pub(super) async fn matched(
    conn: &mut Conn,
    component: &ComponentName,
    commit: &CommitId,
    number: u64,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO built_commit (component, commit_id, number) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        &[text(component), text(commit), number.into()],
    )
    .await
    .map(drop)
}

/// The build of a key.
pub async fn by_key(
    conn: &mut Conn,
    component: &ComponentName,
    key: &Digest,
) -> Result<Option<Build>, SqlError> {
    const BY_KEY: &str = select_build!("WHERE component = $1 AND build_key = $2");
    Ok(conn.row(BY_KEY, &[text(component), text(key)]).await?.as_ref().map(read))
}

/// The build with a number.
pub async fn by_number(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
) -> Result<Option<Build>, SqlError> {
    const BY_NUMBER: &str = select_build!("WHERE component = $1 AND number = $2");
    Ok(conn.row(BY_NUMBER, &[text(component), number.into()]).await?.as_ref().map(read))
}

/// The builds that a commit, or a commit with this beginning, asked for or shares; newest first.
pub async fn by_commit(conn: &mut Conn, commit: &str) -> Result<Vec<(CommitId, Build)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT build.component, build.number, build_key, version, build.commit_id, line, source, state, digest, log, reason, time, \
             built_commit.commit_id FROM built_commit JOIN build \
             ON build.component = built_commit.component AND build.number = built_commit.number \
             WHERE built_commit.commit_id >= $1 AND built_commit.commit_id < $2 ORDER BY build.component, build.number DESC",
            &[commit.into(), format!("{commit}g").into()],
        )
        .await?;
    Ok(rows.iter().map(|row| (super::parsed(row.text(12)), read(row))).collect())
}

/// The numbers that share a commit in one component.
pub async fn is_matched(
    conn: &mut Conn,
    component: &ComponentName,
    commit: &CommitId,
    number: u64,
) -> Result<bool, SqlError> {
    let row = conn
        .row(
            "SELECT number FROM built_commit WHERE component = $1 AND commit_id = $2 AND number = $3",
            &[text(component), text(commit), number.into()],
        )
        .await?;
    Ok(row.is_some())
}

/// Whether a version name is bound or reserved.
pub async fn is_taken(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
) -> Result<bool, SqlError> {
    let row = conn
        .row(
            "SELECT name FROM version WHERE component = $1 AND name = $2 \
             UNION ALL SELECT version FROM build WHERE component = $1 AND version = $2",
            &[text(component), text(version)],
        )
        .await?;
    Ok(row.is_some())
}

/// The build that a version name is reserved for, if it is.
pub async fn by_version(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Build>, SqlError> {
    const BY_VERSION: &str = select_build!("WHERE component = $1 AND version = $2");
    Ok(conn.row(BY_VERSION, &[text(component), text(version)]).await?.as_ref().map(read))
}

fn read(row: &Row) -> Build {
    Build {
        component: super::parsed(row.text(0)),
        number: row.count(1),
        key: super::parsed(row.text(2)),
        version: super::version(row.text(3)),
        commit: super::parsed(row.text(4)),
        line: serde_json::from_str(&row.text(5)).expect("the fold writes only well-formed values"),
        source: super::parsed(row.text(6)),
        state: match row.text(7).as_str() {
            "published" => BuildState::Published,
            "failed" => BuildState::Failed,
            _ => BuildState::Reserved,
        },
        digest: super::opt_parsed(row.opt_text(8)),
        log: super::opt_parsed(row.opt_text(9)),
        reason: row.opt_text(10),
        time: row.text(11),
    }
}

/// The commits that share a build.
pub async fn commits_of(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
) -> Result<Vec<CommitId>, SqlError> {
    let rows = conn
        .rows(
            "SELECT commit_id FROM built_commit WHERE component = $1 AND number = $2 ORDER BY commit_id",
            &[text(component), number.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| super::parsed(row.text(0))).collect())
}

//! Builds: which key got which number and version, and what became of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use semel_model::actor::Actor;
use semel_model::build::Line;
use semel_model::digest::Digest;
use semel_model::entry::{BuildFailed, BuildReserved, Entry, PartBuilt, VersionPublished};
use semel_model::name::{CommitId, ComponentName};
use semel_model::platform::Platform;
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
    /// The platforms that it has a part for; none: it is one artefact for one platform.
    pub platforms: Vec<Platform>,
    /// The key of the first build of its source: the one with salt 0.
    pub family: Digest,
    /// Why its source was built once more; none: it is the first build of its source.
    pub again: Option<String>,
    /// Who published it.
    pub actor: Option<Actor>,
}

/// One platform's part of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it runs on.
    pub platform: Platform,
    /// Its manifest, once it is built.
    pub digest: Option<Digest>,
    /// What the last attempt printed.
    pub log: Option<Digest>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// Who built it.
    pub actor: Option<Actor>,
}

/// The columns that [`read`] takes, in its order.
macro_rules! select_build {
    ($rest:literal) => {
        concat!(
            "SELECT component, number, build_key, version, commit_id, line, source, state, digest, log, reason, time, ",
            "platforms, again, actor, family FROM build ",
            $rest
        )
    };
}

pub(super) async fn reserved(conn: &mut Conn, entry: &Entry, body: &BuildReserved) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO build \
         (component, number, build_key, version, commit_id, line, source, state, time, family, again, platforms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'reserved', $8, $9, $10, $11)",
        &[
            text(&body.component),
            body.number.into(),
            text(&body.key),
            text(&body.version),
            text(&body.commit),
            json(&body.line).into(),
            text(&body.source),
            text(&entry.time),
            text(body.again.as_ref().map_or(&body.key, |again| &again.of)),
            body.again.as_ref().map(|again| again.reason.clone()).into(),
            (!body.platforms.is_empty()).then(|| json(&body.platforms)).into(),
        ],
    )
    .await?;
    conn.execute(
        "UPDATE component SET last_build = $2 WHERE name = $1 AND last_build < $2",
        &[text(&body.component), body.number.into()],
    )
    .await?;
    matched(conn, &body.component, &body.commit, body.number).await
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("what an entry holds is JSON")
}

/// A failed part is the failure of its build as long as nothing else is said.
pub(super) async fn failed(conn: &mut Conn, body: &BuildFailed) -> Result<(), SqlError> {
    if let Some(platform) = &body.platform {
        conn.execute(
            "INSERT INTO part (component, number, platform, log, reason) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (component, number, platform) DO UPDATE SET log = $4, reason = $5",
            &[
                text(&body.component),
                body.number.into(),
                text(platform),
                opt_text(body.log.as_ref()),
                body.reason.as_str().into(),
            ],
        )
        .await?;
    }
    conn.execute(
        "UPDATE build SET state = 'failed', log = $3, reason = $4 WHERE component = $1 AND number = $2 AND state <> 'published'",
        &[text(&body.component), body.number.into(), opt_text(body.log.as_ref()), body.reason.as_str().into()],
    )
    .await
    .map(drop)
}

pub(super) async fn part_built(conn: &mut Conn, entry: &Entry, body: &PartBuilt) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO part (component, number, platform, digest, log, actor) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (component, number, platform) DO UPDATE SET digest = $4, log = $5, actor = $6, reason = NULL",
        &[
            text(&body.component),
            body.number.into(),
            text(&body.platform),
            text(&body.digest),
            opt_text(body.log.as_ref()),
            json(&entry.actor).into(),
        ],
    )
    .await?;
    conn.execute(
        "UPDATE build SET state = 'reserved', reason = NULL WHERE component = $1 AND number = $2 AND state = 'failed' \
         AND NOT EXISTS (SELECT 1 FROM part WHERE component = $1 AND number = $2 AND reason IS NOT NULL)",
        &[text(&body.component), body.number.into()],
    )
    .await
    .map(drop)
}

/// The first name that a build gets says who made it; it may get others later.
pub(super) async fn published(
    conn: &mut Conn,
    entry: &Entry,
    body: &VersionPublished,
    number: u64,
) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE build SET state = 'published', digest = $3, log = $4, reason = NULL, actor = $5 \
         WHERE component = $1 AND number = $2 AND state <> 'published'",
        &[
            text(&body.component),
            number.into(),
            text(&body.digest),
            opt_text(body.log.as_ref()),
            json(&entry.actor).into(),
        ],
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

/// The builds of one source, oldest first: the one whose key has salt 0, and what was built again.
pub async fn family(
    conn: &mut Conn,
    component: &ComponentName,
    first: &Digest,
) -> Result<Vec<Build>, SqlError> {
    const FAMILY: &str = select_build!("WHERE component = $1 AND family = $2 ORDER BY number");
    Ok(conn.rows(FAMILY, &[text(component), text(first)]).await?.iter().map(read).collect())
}

/// So many builds of a component behind a number, in their order.
pub async fn after(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
    limit: u64,
) -> Result<Vec<Build>, SqlError> {
    const AFTER: &str = select_build!("WHERE component = $1 AND number > $2 ORDER BY number LIMIT $3");
    let rows = conn.rows(AFTER, &[text(component), number.into(), limit.into()]).await?;
    Ok(rows.iter().map(read).collect())
}

/// How many builds of a component have a number up to this one.
pub async fn count_up_to(conn: &mut Conn, component: &ComponentName, number: u64) -> Result<u64, SqlError> {
    let statement = "SELECT COUNT(*) FROM build WHERE component = $1 AND number <= $2";
    let row = conn.row(statement, &[text(component), number.into()]).await?;
    Ok(row.map_or(0, |row| row.count(0)))
}

/// The parts of a build that were tried, in the order of their names.
pub async fn parts(conn: &mut Conn, component: &ComponentName, number: u64) -> Result<Vec<Part>, SqlError> {
    let rows = conn
        .rows(
            "SELECT platform, digest, log, reason, actor FROM part WHERE component = $1 AND number = $2 ORDER BY platform",
            &[text(component), number.into()],
        )
        .await?;
    let read = |row: Row| Part {
        platform: super::parsed(row.text(0)),
        digest: super::opt_parsed(row.opt_text(1)),
        log: super::opt_parsed(row.opt_text(2)),
        reason: row.opt_text(3),
        actor: row.opt_text(4).map(|text| from_json(&text)),
    };
    Ok(rows.into_iter().map(read).collect())
}

/// The platforms of the builds of a component that have parts, by build number; of the builds with a number in a range.
pub async fn platforms(
    conn: &mut Conn,
    component: &ComponentName,
    range: RangeInclusive<u64>,
) -> Result<BTreeMap<u64, Vec<Platform>>, SqlError> {
    let rows = conn
        .rows(
            "SELECT number, platforms FROM build \
             WHERE component = $1 AND number >= $2 AND number <= $3 AND platforms IS NOT NULL",
            &[text(component), (*range.start()).into(), (*range.end()).into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (row.count(0), from_json(&row.text(1)))).collect())
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("the fold writes only well-formed values")
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
             platforms, again, actor, family, built_commit.commit_id FROM built_commit JOIN build \
             ON build.component = built_commit.component AND build.number = built_commit.number \
             WHERE built_commit.commit_id >= $1 AND built_commit.commit_id < $2 ORDER BY build.component, build.number DESC",
            &[commit.into(), format!("{commit}g").into()],
        )
        .await?;
    Ok(rows.iter().map(|row| (super::parsed(row.text(16)), read(row))).collect())
}

/// Whether a commit asked for a build, or is known to share it.
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
        line: from_json(&row.text(5)),
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
        platforms: row.opt_text(12).map(|text| from_json(&text)).unwrap_or_default(),
        again: row.opt_text(13),
        actor: row.opt_text(14).map(|text| from_json(&text)),
        family: super::parsed(row.text(15)),
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

//! Promotions and rejections.

use semel_model::digest::Digest;
use semel_model::entry::{Entry, PromotionDecided, Rejected, RejectedThing};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::promotion::RejectionFact;
use semel_model::version::Version;

use crate::sql::{Conn, Row, SqlError, opt_text, text};

/// A decision about a promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// The place of its entry.
    pub seq: u64,
    /// Which artefact.
    pub digest: Digest,
    /// The version that was asked for.
    pub version: Option<Version>,
    /// Whether it was granted.
    pub granted: bool,
    /// The decision document.
    pub decision: Digest,
    /// The signed summary of a grant.
    pub statement: Option<Digest>,
    /// When.
    pub time: String,
}

/// The columns that [`read`] takes, in its order.
macro_rules! select_promotion {
    ($rest:literal) => {
        concat!("SELECT seq, digest, version, outcome, decision, statement, time ", "FROM promotion ", $rest)
    };
}

pub(super) async fn decided(
    conn: &mut Conn,
    seq: u64,
    entry: &Entry,
    body: &PromotionDecided,
    outcome: &str,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO promotion (seq, component, environment, digest, version, outcome, decision, statement, time) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            seq.into(),
            text(&body.component),
            text(&body.environment),
            text(&body.digest),
            opt_text(body.version.as_ref()),
            outcome.into(),
            text(&body.decision),
            opt_text(body.statement.as_ref()),
            text(&entry.time),
        ],
    )
    .await
    .map(drop)
}

/// The newest grant of an artefact for an environment.
pub async fn grant(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    digest: &Digest,
) -> Result<Option<Promotion>, SqlError> {
    let row = conn
        .row(
            select_promotion!("WHERE component = $1 AND environment = $2 AND digest = $3 AND outcome = 'granted' ORDER BY seq DESC LIMIT 1"),
            &[text(component), text(environment), text(digest)],
        )
        .await?;
    Ok(row.as_ref().map(read))
}

/// The newest decisions for an environment, newest first.
pub async fn newest(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
    limit: u64,
) -> Result<Vec<Promotion>, SqlError> {
    let rows = conn
        .rows(
            select_promotion!("WHERE component = $1 AND environment = $2 ORDER BY seq DESC LIMIT $3"),
            &[text(component), text(environment), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read).collect())
}

/// Every decision document, for replaying.
pub(crate) async fn all_decisions(conn: &mut Conn) -> Result<Vec<(u64, Digest, bool)>, SqlError> {
    let rows = conn.rows("SELECT seq, decision, outcome FROM promotion ORDER BY seq", &[]).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.count(0), super::parsed(row.text(1)), row.text(2) == "granted"))
        .collect())
}

fn read(row: &Row) -> Promotion {
    Promotion {
        seq: row.count(0),
        digest: super::parsed(row.text(1)),
        version: row.opt_text(2).map(super::version),
        granted: row.text(3) == "granted",
        decision: super::parsed(row.text(4)),
        statement: super::opt_parsed(row.opt_text(5)),
        time: row.text(6),
    }
}

fn thing(what: &RejectedThing) -> (&'static str, &Digest) {
    match what {
        RejectedThing::Digest(digest) => ("digest", digest),
        RejectedThing::Key(key) => ("key", key),
    }
}

/// The environments of a rejection as rows: one each, or one empty for everywhere.
fn rows_of(body: &Rejected) -> Vec<&str> {
    if body.environments.is_empty() {
        vec![""]
    } else {
        body.environments.iter().map(EnvironmentName::as_str).collect()
    }
}

pub(super) async fn rejected(conn: &mut Conn, entry: &Entry, body: &Rejected) -> Result<(), SqlError> {
    let (kind, digest) = thing(&body.what);
    for environment in rows_of(body) {
        conn.execute(
            "INSERT INTO rejection (component, kind, digest, environment, reason, time, pulls) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (component, kind, digest, environment) DO UPDATE SET pulls = $7, reason = $5, time = $6 \
             WHERE rejection.pulls < $7",
            &[
                text(&body.component),
                kind.into(),
                text(digest),
                environment.into(),
                body.reason.as_str().into(),
                text(&entry.time),
                i64::from(body.pulls).into(),
            ],
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn accepted(conn: &mut Conn, body: &Rejected) -> Result<(), SqlError> {
    let (kind, digest) = thing(&body.what);
    for environment in rows_of(body) {
        conn.execute(
            "DELETE FROM rejection WHERE component = $1 AND kind = $2 AND digest = $3 AND environment = $4",
            &[text(&body.component), kind.into(), text(digest), environment.into()],
        )
        .await?;
    }
    Ok(())
}

/// The rejections of a digest or key that apply in an environment, oldest first.
pub async fn rejections(
    conn: &mut Conn,
    component: &ComponentName,
    what: &RejectedThing,
    environment: &EnvironmentName,
) -> Result<Vec<RejectionFact>, SqlError> {
    let (kind, digest) = thing(what);
    let rows = conn
        .rows(
            "SELECT reason, time FROM rejection WHERE component = $1 AND kind = $2 AND digest = $3 \
             AND environment IN ('', $4) ORDER BY time",
            &[text(component), kind.into(), text(digest), text(environment)],
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| RejectionFact { reason: row.text(0), time: super::parsed(row.text(1)) })
        .collect())
}

/// Why a digest may not be fetched, if somebody said so.
pub async fn pulls_rejected(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<String>, SqlError> {
    let row = conn
        .row(
            "SELECT reason FROM rejection WHERE component = $1 AND kind = 'digest' AND digest = $2 AND pulls = 1 \
             ORDER BY time LIMIT 1",
            &[text(component), text(digest)],
        )
        .await?;
    Ok(row.map(|row| row.text(0)))
}

/// When a digest was last promoted, if it ever was.
pub async fn last_granted(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<String>, SqlError> {
    let row = conn
        .row(
            "SELECT time FROM promotion WHERE component = $1 AND digest = $2 AND outcome = 'granted' \
             ORDER BY seq DESC LIMIT 1",
            &[text(component), text(digest)],
        )
        .await?;
    Ok(row.map(|row| row.text(0)))
}

/// Every rejection in force of a component: kind, digest, environment (empty: everywhere), reason.
pub async fn all_rejections(
    conn: &mut Conn,
    component: &ComponentName,
) -> Result<Vec<(String, Digest, String, String)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT kind, digest, environment, reason FROM rejection WHERE component = $1 ORDER BY time, digest",
            &[text(component)],
        )
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.text(0), super::parsed(row.text(1)), row.text(2), row.text(3)))
        .collect())
}

//! Build leases: who is building a key right now, and who did before. Operational: a lost lease costs a repeated build,
//! never a name.
//!
//! Each attempt at a key, or at one platform's part of it, has a row that stays: so a holder that was replaced is still
//! known when it comes back with a result.

use jiff::Timestamp;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_model::reservation::Process;

use crate::sql::{Conn, Row, SqlError, Value, opt_text, text};

/// What is leased: a build key, or one platform's part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased<'a> {
    /// Which component.
    pub component: &'a ComponentName,
    /// The build key.
    pub key: &'a Digest,
    /// The part, for a build that has parts.
    pub platform: Option<&'a Platform>,
}

impl Leased<'_> {
    fn columns(&self) -> [Value; 3] {
        let platform = self.platform.map(ToString::to_string).unwrap_or_default();
        [text(self.component), text(self.key), platform.into()]
    }
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Counts the attempts.
    pub attempt: u64,
    /// Known to the holder alone.
    pub token: String,
    /// Who builds, for people who wait.
    pub holder: String,
    /// The process that builds, for programs on the same machine.
    pub process: Option<Process>,
    /// When it ends unless it is renewed, in milliseconds since 1970.
    pub until_millis: i64,
    /// The result that its holder came back with.
    pub delivered: Option<Digest>,
    /// Whether its holder said that it failed.
    pub failed: bool,
}

impl Lease {
    /// Whether it is still held.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until_millis > now.as_millisecond()
    }

    /// Whether its holder has ended the attempt, with a result or without; one that only lapsed may still be renewed.
    pub fn is_given_up(&self) -> bool {
        self.until_millis == 0
    }
}

/// The columns that [`read`] takes, in its order.
macro_rules! select_lease {
    ($rest:literal) => {
        concat!(
            "SELECT attempt, token, holder, process, until_millis, delivered, failed FROM lease ",
            "WHERE component = $1 AND build_key = $2 AND platform = $3 ",
            $rest
        )
    };
}

/// The lease of the newest attempt, whether it is still held or not.
pub async fn newest(conn: &mut Conn, leased: Leased<'_>) -> Result<Option<Lease>, SqlError> {
    let row = conn.row(select_lease!("ORDER BY attempt DESC LIMIT 1"), &leased.columns()).await?;
    Ok(row.as_ref().map(read))
}

/// The lease of one attempt.
pub async fn of_attempt(
    conn: &mut Conn,
    leased: Leased<'_>,
    attempt: u64,
) -> Result<Option<Lease>, SqlError> {
    let [component, key, platform] = leased.columns();
    let values = [component, key, platform, attempt.into()];
    Ok(conn.row(select_lease!("AND attempt = $4"), &values).await?.as_ref().map(read))
}

/// The lease that was given with a token.
pub async fn by_token(conn: &mut Conn, leased: Leased<'_>, token: &str) -> Result<Option<Lease>, SqlError> {
    let [component, key, platform] = leased.columns();
    let row = conn.row(select_lease!("AND token = $4"), &[component, key, platform, token.into()]).await?;
    Ok(row.as_ref().map(read))
}

/// Who holds any lease on a component.
pub async fn holder_of_any(
    conn: &mut Conn,
    component: &ComponentName,
    now: Timestamp,
) -> Result<Option<String>, SqlError> {
    let row = conn
        .row(
            "SELECT holder FROM lease WHERE component = $1 AND until_millis > $2 LIMIT 1",
            &[text(component), now.as_millisecond().into()],
        )
        .await?;
    Ok(row.map(|row| row.text(0)))
}

fn read(row: &Row) -> Lease {
    Lease {
        attempt: row.count(0),
        token: row.text(1),
        holder: row.text(2),
        process: row.opt_text(3).and_then(|text| serde_json::from_str(&text).ok()),
        until_millis: row.int(4),
        delivered: row.opt_text(5).and_then(|text| text.parse().ok()),
        failed: row.int(6) != 0,
    }
}

/// Sets the lease of an attempt.
pub async fn set(conn: &mut Conn, leased: Leased<'_>, lease: &Lease) -> Result<(), SqlError> {
    let [component, key, platform] = leased.columns();
    let process = lease.process.as_ref().map(|it| serde_json::to_string(it).expect("a process is JSON"));
    conn.execute(
        "INSERT INTO lease (component, build_key, platform, attempt, token, holder, process, until_millis, delivered, failed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (component, build_key, platform, attempt) \
         DO UPDATE SET until_millis = $8, delivered = $9, failed = $10",
        &[
            component,
            key,
            platform,
            lease.attempt.into(),
            lease.token.as_str().into(),
            lease.holder.as_str().into(),
            process.into(),
            lease.until_millis.into(),
            opt_text(lease.delivered.as_ref()),
            u64::from(lease.failed).into(),
        ],
    )
    .await
    .map(drop)
}

/// A token that nobody can guess.
pub fn new_token() -> String {
    hex::encode(&crate::keys::random()[..16])
}

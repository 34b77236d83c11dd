//! Build leases: who is building a key right now. Operational: a lost lease costs a repeated build, never a name.

use jiff::Timestamp;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;

use crate::sql::{Conn, SqlError, text};

/// A lease on a build key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Counts the attempts at this key.
    pub attempt: u64,
    /// Known to the holder alone.
    pub token: String,
    /// Who builds, for people who wait.
    pub holder: String,
    /// When it ends unless it is renewed, in milliseconds since 1970.
    pub until_millis: i64,
}

impl Lease {
    /// Whether it is still held.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.until_millis > now.as_millisecond()
    }
}

/// The lease on a key, whether it is still held or not.
pub async fn get(
    conn: &mut Conn,
    component: &ComponentName,
    key: &Digest,
) -> Result<Option<Lease>, SqlError> {
    let row = conn
        .row(
            "SELECT attempt, token, holder, until_millis FROM lease WHERE component = $1 AND build_key = $2",
            &[text(component), text(key)],
        )
        .await?;
    Ok(row.map(|row| Lease {
        attempt: row.count(0),
        token: row.text(1),
        holder: row.text(2),
        until_millis: row.int(3),
    }))
}

/// Sets the lease on a key.
pub async fn set(
    conn: &mut Conn,
    component: &ComponentName,
    key: &Digest,
    lease: &Lease,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO lease (component, build_key, attempt, token, holder, until_millis) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (component, build_key) DO UPDATE SET attempt = $3, token = $4, holder = $5, until_millis = $6",
        &[
            text(component),
            text(key),
            lease.attempt.into(),
            lease.token.as_str().into(),
            lease.holder.as_str().into(),
            lease.until_millis.into(),
        ],
    )
    .await
    .map(drop)
}

/// A token that nobody can guess.
pub fn new_token() -> String {
    hex::encode(&crate::keys::random()[..16])
}

//! Drafts: names that are to become versions when they are published. Operational: a lost draft costs its opening again, and
//! a draft whose time is over frees its name.

use jiff::Timestamp;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::version::Version;

use crate::projections::parsed;
use crate::sql::{Conn, Row, SqlError, text};

/// A name that is to become a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The name.
    pub version: Version,
    /// What it is to mean.
    pub digest: Digest,
    /// Who opened it, as a pseudonym.
    pub holder: String,
    /// When it is over, in milliseconds since 1970.
    pub until_millis: i64,
}

fn read(row: &Row) -> Draft {
    Draft {
        version: Version::named(parsed(row.text(0))),
        digest: parsed(row.text(1)),
        holder: row.text(2),
        until_millis: row.int(3),
    }
}

/// Forgets the drafts whose time is over.
pub async fn forget_expired(conn: &mut Conn, now: Timestamp) -> Result<u64, SqlError> {
    conn.execute("DELETE FROM draft WHERE until_millis <= $1", &[now.as_millisecond().into()]).await
}

/// The draft of a name. Call [`forget_expired`] first.
pub async fn get(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Draft>, SqlError> {
    let row = conn
        .row(
            "SELECT version, digest, holder, until_millis FROM draft WHERE component = $1 AND version = $2",
            &[text(component), text(version)],
        )
        .await?;
    Ok(row.as_ref().map(read))
}

/// The drafts of a component that are not over, by name.
pub async fn list(
    conn: &mut Conn,
    component: &ComponentName,
    now: Timestamp,
) -> Result<Vec<Draft>, SqlError> {
    let rows = conn
        .rows(
            "SELECT version, digest, holder, until_millis FROM draft \
             WHERE component = $1 AND until_millis > $2 ORDER BY version",
            &[text(component), now.as_millisecond().into()],
        )
        .await?;
    Ok(rows.iter().map(read).collect())
}

/// The drafts of a digest that are not over.
pub async fn of_digest(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    now: Timestamp,
) -> Result<Vec<Version>, SqlError> {
    let rows = conn
        .rows(
            "SELECT version FROM draft WHERE component = $1 AND digest = $2 AND until_millis > $3 ORDER BY version",
            &[text(component), text(digest), now.as_millisecond().into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| Version::named(parsed(row.text(0)))).collect())
}

/// Opens a draft, or gives it more time.
pub async fn set(conn: &mut Conn, component: &ComponentName, draft: &Draft) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO draft (component, version, digest, holder, until_millis) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (component, version) DO UPDATE SET digest = $3, holder = $4, until_millis = $5",
        &[
            text(component),
            text(&draft.version),
            text(&draft.digest),
            draft.holder.as_str().into(),
            draft.until_millis.into(),
        ],
    )
    .await
    .map(drop)
}

/// Removes a draft; says whether there was one.
pub async fn remove(conn: &mut Conn, component: &ComponentName, version: &Version) -> Result<bool, SqlError> {
    let removed = conn
        .execute("DELETE FROM draft WHERE component = $1 AND version = $2", &[text(component), text(version)])
        .await?;
    Ok(removed > 0)
}

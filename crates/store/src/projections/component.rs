//! Components: who gives them versions, and how their tags are read.

use semel_model::entry::ComponentCreated;
use semel_model::name::ComponentName;
use semel_model::version::TagPolicy;

use crate::sql::{Conn, Row, SqlError, text};

/// A component as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: ComponentName,
    /// How its tags are read.
    pub policy: TagPolicy,
    /// The store that gives it versions.
    pub home: String,
    /// The newest build number given.
    pub last_build: u64,
}

pub(super) async fn created(conn: &mut Conn, body: &ComponentCreated) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO component (name, policy, home, last_build) VALUES ($1, $2, $3, 0)",
        &[text(&body.component), policy_text(body.policy).into(), body.home.as_str().into()],
    )
    .await
    .map(drop)
}

fn policy_text(policy: TagPolicy) -> &'static str {
    match policy {
        TagPolicy::Release => "release",
        TagPolicy::Strict => "strict",
        TagPolicy::Mirror => "mirror",
    }
}

/// One component.
pub async fn get(conn: &mut Conn, name: &ComponentName) -> Result<Option<Component>, SqlError> {
    let row = conn
        .row("SELECT name, policy, home, last_build FROM component WHERE name = $1", &[text(name)])
        .await?;
    Ok(row.as_ref().map(read))
}

/// All components behind a name, in order.
pub async fn list(conn: &mut Conn, after: &str, limit: u64) -> Result<Vec<Component>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name, policy, home, last_build FROM component WHERE name > $1 ORDER BY name LIMIT $2",
            &[after.into(), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read).collect())
}

fn read(row: &Row) -> Component {
    Component {
        name: super::parsed(row.text(0)),
        policy: match row.text(1).as_str() {
            "strict" => TagPolicy::Strict,
            "mirror" => TagPolicy::Mirror,
            _ => TagPolicy::Release,
        },
        home: row.text(2),
        last_build: row.count(3),
    }
}

//! Components: who gives them versions, and how their tags are read.

use semel_model::allocation::Scheme;
use semel_model::canonical;
use semel_model::entry::{ComponentChanged, ComponentCreated, HomeMoved, HomeTaken};
use semel_model::keep::Keep;
use semel_model::name::ComponentName;
use semel_model::version::{NamePattern, TagPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sql::{Conn, Row, SqlError, Value, text};

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
    /// How long the bytes of its artefacts are kept.
    pub keep: Keep,
    /// Which names are versions beside those that look like one.
    pub patterns: Vec<NamePattern>,
    /// How its versions look, if that was said.
    pub scheme: Option<Scheme>,
    /// The entry that says that its home has left this store.
    pub moved: Option<u64>,
    /// The URL of the store that it left for, if it has one.
    pub place: Option<String>,
}

/// The columns that [`read`] takes, in its order.
macro_rules! select_component {
    ($rest:literal) => {
        concat!(
            "SELECT name, policy, home, last_build, keep, patterns, scheme, moved, place FROM component ",
            $rest
        )
    };
}

pub(super) async fn created(conn: &mut Conn, body: &ComponentCreated) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO component (name, policy, home, last_build) VALUES ($1, $2, $3, 0)",
        &[text(&body.component), policy_text(body.policy).into(), body.home.as_str().into()],
    )
    .await
    .map(drop)
}

pub(super) async fn changed(conn: &mut Conn, body: &ComponentChanged) -> Result<(), SqlError> {
    if let Some(keep) = &body.keep {
        let values = [text(&body.component), json(keep)];
        conn.execute("UPDATE component SET keep = $2 WHERE name = $1", &values).await?;
    }
    if let Some(patterns) = &body.patterns {
        let values = [text(&body.component), json(patterns)];
        conn.execute("UPDATE component SET patterns = $2 WHERE name = $1", &values).await?;
    }
    if let Some(scheme) = &body.scheme {
        let values = [text(&body.component), text(scheme)];
        conn.execute("UPDATE component SET scheme = $2 WHERE name = $1", &values).await?;
    }
    Ok(())
}

pub(super) async fn home_moved(conn: &mut Conn, seq: u64, body: &HomeMoved) -> Result<(), SqlError> {
    let values = [text(&body.component), body.to.as_str().into(), seq.into(), body.place.clone().into()];
    conn.execute("UPDATE component SET home = $2, moved = $3, place = $4 WHERE name = $1", &values)
        .await
        .map(drop)
}

pub(super) async fn home_taken(conn: &mut Conn, body: &HomeTaken) -> Result<(), SqlError> {
    let values = [text(&body.component), body.home.as_str().into()];
    conn.execute("UPDATE component SET home = $2, moved = NULL, place = NULL WHERE name = $1", &values)
        .await
        .map(drop)
}

fn json(value: &impl Serialize) -> Value {
    String::from_utf8(canonical::bytes(value)).expect("JSON is UTF-8").into()
}

fn from_json<T: DeserializeOwned + Default>(column: Option<String>) -> T {
    column.map_or_else(T::default, |text| {
        serde_json::from_str(&text).expect("the fold writes only well-formed values")
    })
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
    let row = conn.row(select_component!("WHERE name = $1"), &[text(name)]).await?;
    Ok(row.as_ref().map(read))
}

/// All components behind a name, in order.
pub async fn list(conn: &mut Conn, after: &str, limit: u64) -> Result<Vec<Component>, SqlError> {
    let rows = conn
        .rows(select_component!("WHERE name > $1 ORDER BY name LIMIT $2"), &[after.into(), limit.into()])
        .await?;
    Ok(rows.iter().map(read).collect())
}

/// The names of all components behind a name, in order: those of [`list`], and those that have manifests without a name.
pub async fn names(conn: &mut Conn, after: &str, limit: u64) -> Result<Vec<String>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name FROM component WHERE name > $1 \
             UNION SELECT component FROM manifest WHERE component > $1 ORDER BY 1 LIMIT $2",
            &[after.into(), limit.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| row.text(0)).collect())
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
        keep: from_json(row.opt_text(4)),
        patterns: from_json(row.opt_text(5)),
        scheme: super::opt_parsed(row.opt_text(6)),
        moved: row.opt_count(7),
        place: row.opt_text(8),
    }
}

//! Commits: what the store was told of them, which versions they have, and which names are taken.
//!
//! One component's rows are read whole: the rule that gives versions looks at ancestors and descendants alike.

use std::collections::HashSet;

use semel_model::allocation::{Given, KnownCommit};
use semel_model::build::{Bump, Line, ReleaseLine};
use semel_model::entry::CommitsRecorded;
use semel_model::name::ComponentName;
use semel_model::version::Version;

use crate::sql::{Conn, SqlError, text};

pub(super) async fn recorded(conn: &mut Conn, body: &CommitsRecorded) -> Result<(), SqlError> {
    for commit in &body.commits {
        let parents: Vec<&str> = commit.parents.iter().map(|parent| parent.as_str()).collect();
        conn.execute(
            "INSERT INTO known_commit (component, commit_id, parents, author, bump) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT DO NOTHING",
            &[
                text(&body.component),
                text(&commit.id),
                parents.join(" ").into(),
                commit.author.as_str().into(),
                commit.bump.map(Bump::word).into(),
            ],
        )
        .await?;
    }
    Ok(())
}

/// Every commit that the store was told of for a component.
pub async fn known(conn: &mut Conn, component: &ComponentName) -> Result<Vec<KnownCommit>, SqlError> {
    let statement = "SELECT commit_id, parents, author, bump FROM known_commit WHERE component = $1";
    let rows = conn.rows(statement, &[text(component)]).await?;
    let read = rows.into_iter().map(|row| KnownCommit {
        id: super::parsed(row.text(0)),
        parents: row.text(1).split_whitespace().map(|id| super::parsed(id.to_owned())).collect(),
        author: row.text(2),
        bump: row.opt_text(3).and_then(|word| Bump::of_word(&word)),
    });
    Ok(read.collect())
}

/// The versions that commits of a component have: by a build of theirs, by one that they share, or by a name that somebody
/// gave.
pub async fn given(conn: &mut Conn, component: &ComponentName) -> Result<Vec<Given>, SqlError> {
    let rows = conn
        .rows(
            "SELECT built_commit.commit_id, build.version, build.commit_id FROM built_commit JOIN build \
             ON build.component = built_commit.component AND build.number = built_commit.number \
             WHERE built_commit.component = $1 \
             UNION ALL SELECT commit_id, name, '' FROM version \
             WHERE component = $1 AND commit_id IS NOT NULL AND (number IS NULL OR candidate IS NOT NULL) \
             UNION ALL SELECT version.commit_id, version.name, version.commit_id FROM version JOIN build \
             ON build.component = version.component AND build.number = version.number \
             WHERE version.component = $1 AND version.commit_id IS NOT NULL AND version.candidate IS NULL \
             AND version.name <> build.version",
            &[text(component)],
        )
        .await?;
    let read = rows.into_iter().map(|row| Given {
        shared: row.text(0) != row.text(2),
        commit: super::parsed(row.text(0)),
        version: super::version(row.text(1)),
    });
    Ok(read.collect())
}

/// All names of a component that are bound or reserved.
pub async fn taken(conn: &mut Conn, component: &ComponentName) -> Result<HashSet<Version>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name FROM version WHERE component = $1 UNION SELECT version FROM build WHERE component = $1",
            &[text(component)],
        )
        .await?;
    Ok(rows.into_iter().map(|row| super::version(row.text(0))).collect())
}

/// The release lines that something was reserved for.
pub async fn release_lines(conn: &mut Conn, component: &ComponentName) -> Result<Vec<ReleaseLine>, SqlError> {
    let statement = "SELECT DISTINCT line FROM build WHERE component = $1 AND line LIKE '{\"release\"%'";
    let rows = conn.rows(statement, &[text(component)]).await?;
    let read = |text: String| match serde_json::from_str(&text) {
        Ok(Line::Release(line)) => Some(line),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(|row| read(row.text(0))).collect())
}

//! The tables: what each of them is, and how they come to be.
//!
//! Every table is *ledger* (the source of truth), *projection* (a pure fold of the ledger; dropped and rebuilt
//! identically) or *operational* (may be lost with no loss of meaning). A test fails on a table that is not declared.

use crate::sql::{Conn, Dialect, SqlError};

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// The source of truth.
    Ledger,
    /// A pure fold of the ledger, with the columns that order its rows.
    Projection {
        /// The primary key, as it stands in `ORDER BY`.
        key: &'static str,
    },
    /// May be lost.
    Operational,
}

/// Every table of the store.
pub const TABLES: [(&str, TableKind); 33] = [
    ("entry", TableKind::Ledger),
    ("node", TableKind::Ledger),
    ("checkpoint", TableKind::Ledger),
    ("component", TableKind::Projection { key: "name" }),
    ("build", TableKind::Projection { key: "component, number" }),
    ("part", TableKind::Projection { key: "component, number, platform" }),
    ("built_commit", TableKind::Projection { key: "component, commit_id, number" }),
    ("known_commit", TableKind::Projection { key: "component, commit_id" }),
    ("manifest", TableKind::Projection { key: "component, digest" }),
    ("version", TableKind::Projection { key: "component, name" }),
    ("channel", TableKind::Projection { key: "component, name" }),
    ("channel_move", TableKind::Projection { key: "component, name, seq" }),
    ("overwrite_refused", TableKind::Projection { key: "component, version, pushed, actor, day" }),
    ("location", TableKind::Projection { key: "digest, place" }),
    ("evidence", TableKind::Projection { key: "component, digest, envelope" }),
    ("pipeline", TableKind::Projection { key: "component, seq" }),
    ("promotion", TableKind::Projection { key: "seq" }),
    ("deployment", TableKind::Projection { key: "component, environment, generation" }),
    ("observation", TableKind::Projection { key: "component, environment" }),
    ("event", TableKind::Projection { key: "environment, component, seq" }),
    ("hold", TableKind::Projection { key: "environment, component" }),
    ("rejection", TableKind::Projection { key: "component, kind, digest, environment" }),
    ("document", TableKind::Projection { key: "digest" }),
    ("content", TableKind::Operational),
    ("readable", TableKind::Operational),
    ("draft", TableKind::Operational),
    ("checked", TableKind::Operational),
    ("lease", TableKind::Operational),
    ("live_log", TableKind::Operational),
    ("identity", TableKind::Operational),
    ("observed_at", TableKind::Operational),
    ("migration", TableKind::Operational),
    ("turn", TableKind::Operational),
];

/// The migrations in order: name and text. A name that ends with a database's is for that one alone. Never edited once
/// released; the tidy test compares their digests.
pub const MIGRATIONS: [(&str, &str); 11] = [
    ("0001_initial", include_str!("../migrations/0001_initial.sql")),
    ("0001_immutable.sqlite", include_str!("../migrations/0001_immutable.sqlite.sql")),
    ("0001_immutable.postgres", include_str!("../migrations/0001_immutable.postgres.sql")),
    ("0002_repository", include_str!("../migrations/0002_repository.sql")),
    ("0003_turn", include_str!("../migrations/0003_turn.sql")),
    ("0004_versions", include_str!("../migrations/0004_versions.sql")),
    ("0005_reservation", include_str!("../migrations/0005_reservation.sql")),
    ("0006_live_log", include_str!("../migrations/0006_live_log.sql")),
    ("0007_refused", include_str!("../migrations/0007_refused.sql")),
    ("0008_indexes", include_str!("../migrations/0008_indexes.sql")),
    ("0009_indexes_in_order", include_str!("../migrations/0009_indexes_in_order.sql")),
];

/// The migrations of one database.
fn migrations(dialect: Dialect) -> impl Iterator<Item = (&'static str, &'static str)> {
    let other = match dialect {
        Dialect::Sqlite => ".postgres",
        Dialect::Postgres => ".sqlite",
    };
    MIGRATIONS.into_iter().filter(move |(name, _)| !name.ends_with(other))
}

const MIGRATION_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, digest TEXT NOT NULL)";

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A statement failed.
    #[error("cannot apply migration {name}")]
    Apply {
        /// Which one.
        name: String,
        /// The database's answer.
        #[source]
        source: SqlError,
    },
    /// The database was migrated by another program.
    #[error("migration {name} in the database is not the one that this program knows")]
    Foreign {
        /// Which one.
        name: String,
    },
}

/// What a database was before its migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrated {
    /// Empty.
    New,
    /// Of an older program: its projections must be folded again.
    Older,
}

/// Applies the migrations that a database has not seen, in a transaction of its own.
pub(crate) async fn migrate(conn: &mut Conn) -> Result<Migrated, SchemaError> {
    let failed = |source| SchemaError::Apply { name: "(transaction)".to_owned(), source };
    conn.begin_defining().await.map_err(failed)?;
    let before = apply_migrations(conn).await?;
    conn.commit().await.map_err(failed)?;
    Ok(before)
}

/// Applies the migrations that a database has not seen, in the transaction of the connection.
pub(crate) async fn apply_migrations(conn: &mut Conn) -> Result<Migrated, SchemaError> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| SchemaError::Apply { name, source }
    };
    conn.define(MIGRATION_TABLE).await.map_err(failed("(table)"))?;
    let mut before = Migrated::New;
    for (name, text) in migrations(conn.dialect()) {
        let digest = semel_model::digest::Digest::of(text.as_bytes());
        let row = conn
            .row("SELECT digest FROM migration WHERE name = $1", &[name.into()])
            .await
            .map_err(failed(name))?;
        match row {
            Some(row) if row.text(0) == digest.as_str() => before = Migrated::Older,
            Some(_) => return Err(SchemaError::Foreign { name: name.to_owned() }),
            None => {
                conn.define(text).await.map_err(failed(name))?;
                conn.execute(
                    "INSERT INTO migration (name, digest) VALUES ($1, $2)",
                    &[name.into(), digest.as_str().into()],
                )
                .await
                .map_err(failed(name))?;
            }
        }
    }
    Ok(before)
}

/// Whether a database has seen all migrations.
pub(crate) async fn is_current(conn: &mut Conn) -> Result<bool, SqlError> {
    if !has_table(conn, "migration").await? {
        return Ok(false);
    }
    let known = migrations(conn.dialect()).count() as u64;
    let row = conn.row("SELECT COUNT(*) FROM migration", &[]).await?;
    Ok(row.is_some_and(|row| row.count(0) == known))
}

async fn has_table(conn: &mut Conn, name: &str) -> Result<bool, SqlError> {
    Ok(conn.tables().await?.iter().any(|table| table == name))
}

/// The id of the store that a database belongs to; none, if it is still nobody's.
pub(crate) async fn owner(conn: &mut Conn) -> Result<Option<String>, SqlError> {
    if !has_table(conn, "turn").await? {
        return Ok(None);
    }
    let row = conn.row("SELECT store FROM turn", &[]).await?;
    Ok(row.map(|row| row.text(0)))
}

/// Says whose a migrated database is, unless that was said before. Gives the owner.
pub(crate) async fn claim(conn: &mut Conn, store: &str) -> Result<String, SqlError> {
    if owner(conn).await?.is_none() {
        let statement = "INSERT INTO turn (one, store, number) VALUES (1, $1, 0) ON CONFLICT DO NOTHING";
        conn.execute(statement, &[store.into()]).await?;
    }
    Ok(owner(conn).await?.unwrap_or_default())
}

/// The names of the projection tables with their keys.
pub fn projections() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.into_iter().filter_map(|(name, kind)| match kind {
        TableKind::Projection { key } => Some((name, key)),
        _ => None,
    })
}

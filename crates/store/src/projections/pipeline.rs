//! Which pipeline is in force.

use semel_model::digest::Digest;
use semel_model::entry::{Entry, PipelineApplied};
use semel_model::name::ComponentName;

use crate::sql::{Conn, SqlError, text};

pub(super) async fn applied(
    conn: &mut Conn,
    seq: u64,
    entry: &Entry,
    body: &PipelineApplied,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO pipeline (component, seq, digest, time) VALUES ($1, $2, $3, $4)",
        &[text(&body.component), seq.into(), text(&body.pipeline), text(&entry.time)],
    )
    .await
    .map(drop)
}

/// The pipeline document in force for a component.
pub async fn in_force(conn: &mut Conn, component: &ComponentName) -> Result<Option<Digest>, SqlError> {
    let row = conn
        .row("SELECT digest FROM pipeline WHERE component = $1 ORDER BY seq DESC LIMIT 1", &[text(component)])
        .await?;
    Ok(row.map(|row| super::parsed(row.text(0))))
}

/// The components that have a pipeline, in order.
pub async fn components(conn: &mut Conn) -> Result<Vec<ComponentName>, SqlError> {
    let rows = conn.rows("SELECT DISTINCT component FROM pipeline ORDER BY component", &[]).await?;
    Ok(rows.into_iter().map(|row| super::parsed(row.text(0))).collect())
}

/// Whether some component has an environment of this name as far as deployments and decisions tell.
pub async fn is_environment(conn: &mut Conn, name: &str) -> Result<bool, SqlError> {
    let row = conn.row("SELECT seq FROM event WHERE environment = $1 LIMIT 1", &[name.into()]).await?;
    Ok(row.is_some())
}

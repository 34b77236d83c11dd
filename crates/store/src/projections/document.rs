//! Documents: what entries name by digest, beside manifests. They are kept as long as the ledger that names them.

use semel_model::digest::Digest;
use semel_model::entry::Change;

use crate::sql::{Conn, SqlError, text};

/// The documents that an entry names; manifests are found through their own table.
pub fn of(change: &Change) -> Vec<Digest> {
    match change {
        Change::BuildReserved(body) => vec![body.source.clone()],
        Change::BuildFailed(body) => body.log.iter().cloned().collect(),
        Change::HomeTaken(body) => vec![body.proof.clone()],
        Change::PartBuilt(body) => body.log.iter().cloned().collect(),
        Change::VersionPublished(body) => body.log.iter().chain(&body.source).cloned().collect(),
        Change::EvidenceAttached(body) => {
            std::iter::once(&body.envelope).chain(&body.attachment).cloned().collect()
        }
        Change::PipelineApplied(body) => vec![body.pipeline.clone()],
        Change::PromotionGranted(body) | Change::PromotionRefused(body) => {
            std::iter::once(&body.decision).chain(&body.statement).cloned().collect()
        }
        Change::DeploymentStarted(body) => {
            vec![body.config.clone(), body.decision.clone(), body.target.clone()]
        }
        _ => Vec::new(),
    }
}

pub(super) async fn named(conn: &mut Conn, change: &Change) -> Result<(), SqlError> {
    for digest in of(change) {
        conn.execute("INSERT INTO document (digest) VALUES ($1) ON CONFLICT DO NOTHING", &[text(&digest)])
            .await?;
    }
    Ok(())
}

/// Whether some entry names a digest as a document.
pub async fn is_named(conn: &mut Conn, digest: &Digest) -> Result<bool, SqlError> {
    Ok(conn.row("SELECT 1 FROM document WHERE digest = $1", &[text(digest)]).await?.is_some())
}

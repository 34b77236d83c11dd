//! Evidence about artefacts.

use semel_model::digest::Digest;
use semel_model::entry::{Entry, EvidenceAttached};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::EvidenceResult;
use semel_model::promotion::EvidenceFact;

use crate::sql::{Conn, SqlError, opt_text, text};

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What decisions see of it.
    pub fact: EvidenceFact,
    /// The hint of the key that signed it.
    pub signer: String,
    /// The document that it was made from.
    pub attachment: Option<Digest>,
    /// The place of its entry.
    pub seq: u64,
}

pub(super) async fn attached(
    conn: &mut Conn,
    seq: u64,
    entry: &Entry,
    body: &EvidenceAttached,
) -> Result<(), SqlError> {
    // The same statement has the same envelope: when it is made again after another one, it is the newest.
    conn.execute(
        "INSERT INTO evidence (component, digest, envelope, predicate_type, result, signer, environment, attachment, time, seq) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (component, digest, envelope) DO UPDATE SET time = $9, seq = $10",
        &[
            text(&body.component),
            text(&body.digest),
            text(&body.envelope),
            body.predicate_type.as_str().into(),
            text(&body.result),
            body.signer.as_str().into(),
            opt_text(body.environment.as_ref()),
            opt_text(body.attachment.as_ref()),
            text(&entry.time),
            seq.into(),
        ],
    )
    .await
    .map(drop)
}

/// The evidence about an artefact, oldest first.
pub async fn about(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Evidence>, SqlError> {
    let rows = conn
        .rows(
            "SELECT envelope, predicate_type, result, time, environment, signer, attachment, seq FROM evidence \
             WHERE component = $1 AND digest = $2 ORDER BY seq",
            &[text(component), text(digest)],
        )
        .await?;
    let read = |row: crate::sql::Row| Evidence {
        fact: EvidenceFact {
            envelope: super::parsed(row.text(0)),
            predicate_type: row.text(1),
            result: result(&row.text(2)),
            time: super::parsed(row.text(3)),
            environment: super::opt_parsed::<EnvironmentName>(row.opt_text(4)),
        },
        signer: row.text(5),
        attachment: super::opt_parsed(row.opt_text(6)),
        seq: row.count(7),
    };
    Ok(rows.into_iter().map(read).collect())
}

fn result(text: &str) -> EvidenceResult {
    match text {
        "pass" => EvidenceResult::Pass,
        "fail" => EvidenceResult::Fail,
        "warn" => EvidenceResult::Warn,
        "info" => EvidenceResult::Info,
        _ => EvidenceResult::Inconclusive,
    }
}

//! `semel audit verify` and `semel rebuild`

use semel_server::api::calls::{Rebuild, VerifyAudit};

use super::Outcome;
use crate::output::bytes;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn verify(session: &Session) -> Outcome {
    let report = session.client.call(&VerifyAudit {}).await?;
    let output = session.output;
    if !report.problems.is_empty() {
        return Err(Failure::new(
            Exit::Verification,
            format!("the store does not verify: {} problems", report.problems.len()),
        )
        .because(report.problems.clone())
        .hint("to mend entries that the ledger's files still have: semel recover")
        .hint("to mend tables: semel rebuild")
        .hint("a backup mends blobs and entry files")
        .answer(&report));
    }
    if output.is_json() {
        output.json(&report);
        return Ok(Exit::Done);
    }
    output.done(format!(
        "{} entries have their hashes; the tree's root is {}",
        report.entries,
        report.root.short()
    ));
    output.done(format!("{} signed checkpoints are prefixes of it", report.checkpoints));
    output.done("every table is what the ledger says");
    output.done(format!("{} decisions follow from their recorded inputs", report.decisions));
    output.done(format!("{} blobs, {}, have their digests", report.blobs, bytes(report.blob_bytes)));
    output.data(report.root.as_str());
    Ok(Exit::Done)
}

pub(super) async fn rebuild(session: &Session) -> Outcome {
    let rebuilt = session.client.call(&Rebuild {}).await?;
    session.output.done(format!("{} entries folded into fresh tables", rebuilt.entries));
    if session.output.is_json() {
        session.output.json(&rebuilt);
    }
    Ok(Exit::Done)
}

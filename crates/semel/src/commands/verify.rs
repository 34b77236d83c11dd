//! `semel verify`

use semel_server::api::calls::Verify;

use super::Outcome;
use crate::cli::{Cli, VersionArg};
use crate::output::bytes;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &VersionArg, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = super::artefact(&args.version, cli, session)?;
    let found = session.client.call(&Verify { component, version }).await?;
    let output = session.output;
    if !found.problems.is_empty() {
        let message = format!("{} does not verify", found.artefact.name());
        return Err(Failure::new(Exit::Verification, message)
            .because(found.problems.clone())
            .hint("push the same bytes again to heal a damaged blob")
            .hint("to look at everything: semel audit verify")
            .answer(&found));
    }
    if output.is_json() {
        output.json(&found);
        return Ok(Exit::Done);
    }
    output.done(format!("{} blobs, {}: every byte has its digest", found.blobs, bytes(found.bytes)));
    output.done(format!("{} signatures verify", found.signatures));
    match found.proved {
        Some((entry, size)) => {
            output.done(format!("the name is entry {entry} of {size} in the signed ledger"));
        }
        None => output.warn("it has no version name, so the ledger binds none to it"),
    }
    output.data(&format!("{}@{}", found.artefact.component, found.artefact.digest));
    Ok(Exit::Done)
}

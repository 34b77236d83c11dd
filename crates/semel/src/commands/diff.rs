//! `semel diff`

use semel_engine::artefact::Artefact;
use semel_server::api::calls::Diff;

use super::{Outcome, component};
use crate::cli::{Cli, DiffArgs};
use crate::report::Exit;
use crate::session::Session;

pub(super) async fn run(args: &DiffArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let ask = Diff { component, first: args.first.clone(), second: args.second.clone() };
    let found = session.client.call(&ask).await?;
    let output = session.output;
    let exit = if found.is_empty() { Exit::Done } else { Exit::Difference };
    if output.is_json() {
        output.json(&found);
        return Ok(exit);
    }
    let name = |artefact: Option<&Artefact>| artefact.map_or_else(|| "nothing".to_owned(), Artefact::name);
    output.data(&format!("{}: {}", args.first, name(found.from.as_ref())));
    output.data(&format!("{}: {}", args.second, name(found.to.as_ref())));
    if found.is_empty() {
        output.done("the same artefact with the same plain configuration");
        return Ok(exit);
    }
    if found.from.as_ref().map(|a| &a.digest) == found.to.as_ref().map(|a| &a.digest) {
        output.data("the same artefact");
    } else {
        let which = if found.backwards { &args.first } else { &args.second };
        output.data(&format!("{} commits that only {which} has:", found.commits.len()));
        found
            .commits
            .iter()
            .for_each(|commit| output.data(&format!("  {} {}", commit.id.short(), commit.subject)));
    }
    found.config.iter().for_each(|key| output.data(&format!("config {} {}", key.key, key.how)));
    found.contract.iter().for_each(|line| output.data(&format!("contract {line}")));
    Ok(exit)
}

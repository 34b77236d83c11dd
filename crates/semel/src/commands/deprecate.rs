//! `semel deprecate`: a version should not be used any more, or may be again.

use semel_engine::deprecate::Deprecate;

use super::{Outcome, artefact, require_fixed_word};
use crate::cli::{Cli, DeprecateArgs};
use crate::report::Exit;
use crate::session::Session;

pub(super) async fn run(args: &DeprecateArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = artefact(&args.version, cli, session)?;
    require_fixed_word(&component, &version, session).await?;
    let undo = format!("semel deprecate {component}@{version} --undo");
    let ask = Deprecate { component, version, reason: args.reason.clone() };
    let done = session.client.call(&ask).await?;
    let (output, name) = (session.output, done.artefact.name());
    match (&done.reason, done.already) {
        (Some(reason), false) => output.done(format!("{name} is deprecated: {reason}")),
        (Some(reason), true) => output.done(format!("{name} was already deprecated: {reason}")),
        (None, false) => output.done(format!("{name} is not deprecated any more")),
        (None, true) => output.done(format!("{name} was not deprecated already")),
    }
    if done.reason.is_some() {
        output.say("  who fetches it is told");
        output.next(format!("to undo it: {undo}"));
    }
    if output.is_json() {
        output.json(&done);
    } else if output.is_quiet() {
        output.data(&format!("{}@{}", done.artefact.component, done.artefact.digest));
    }
    Ok(Exit::Done)
}

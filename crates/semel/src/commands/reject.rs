//! `semel reject` and `semel accept`

use semel_engine::reject::{Judge, Judged};

use super::{Outcome, artefact, require_fixed_word};
use crate::cli::{AcceptArgs, Cli, RejectArgs};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn reject(args: &RejectArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = artefact(&args.version, cli, session)?;
    let (environment, reason) = (args.environment.clone(), Some(args.reason.clone()));
    let undo = format!("semel accept {component}@{version}");
    let ask = Judge { component, version, environment, reason, pulls: args.pulls };
    let judged = judge(ask, session).await?;
    say(&judged, "was already rejected", session);
    session.output.say("  what runs goes on running");
    session.output.next(format!("to undo it: {undo}"));
    Ok(Exit::Done)
}

pub(super) async fn accept(args: &AcceptArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = artefact(&args.version, cli, session)?;
    let environment = args.environment.clone();
    let judged =
        judge(Judge { component, version, environment, reason: None, pulls: false }, session).await?;
    say(&judged, "was not rejected already", session);
    Ok(Exit::Done)
}

async fn judge(ask: Judge, session: &Session) -> Result<Judged, Failure> {
    require_fixed_word(&ask.component, &ask.version, session).await?;
    Ok(session.client.call(&ask).await?)
}

fn say(judged: &Judged, nothing: &str, session: &Session) {
    let output = session.output;
    if judged.changed.is_empty() {
        output.done(format!("{} {nothing}", judged.artefact.name()));
    }
    judged.changed.iter().for_each(|line| output.done(line));
    if output.is_json() {
        output.json(judged);
    }
}

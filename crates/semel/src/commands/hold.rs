//! `semel hold` and `semel resume`

use semel_engine::hold::Hold;

use super::{Outcome, component, naming};
use crate::cli::{Cli, EnvironmentArg, HoldArgs};
use crate::report::Exit;
use crate::session::Session;

pub(super) async fn hold(args: &HoldArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    super::pipeline::ensure(&component, session).await?;
    let of = naming(&component, session);
    let ask = Hold { component, environment: args.environment.clone(), reason: Some(args.reason.clone()) };
    let held = session.client.call(&ask).await?;
    let output = session.output;
    let reason = held.reason.clone().unwrap_or_default();
    let word = if held.already { "was already held" } else { "is held" };
    output.done(format!("{} {word}: {reason}", args.environment));
    output.next(format!("semel resume {}{of}", args.environment));
    if output.is_json() {
        output.json(&held);
    }
    Ok(Exit::Done)
}

pub(super) async fn resume(args: &EnvironmentArg, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let of = naming(&component, session);
    let ask = Hold { component, environment: args.environment.clone(), reason: None };
    let held = session.client.call(&ask).await?;
    let output = session.output;
    match (&held.reason, held.already) {
        (Some(reason), false) => {
            output.done(format!("{} moves again (it was held: {reason})", args.environment));
        }
        _ => output.done(format!("{} was not held already", args.environment)),
    }
    output.next(format!("semel deploy VERSION {}{of}", args.environment));
    if output.is_json() {
        output.json(&held);
    }
    Ok(Exit::Done)
}

//! `semel stop`: end what an environment runs on this machine. The record stays; `semel deploy` starts it again.

use semel_engine::observe::Observation;
use semel_server::api::calls::Status;
use semel_targets::directory::control;
use serde_json::json;

use super::{Outcome, component, converge};
use crate::cli::{Cli, EnvironmentArg};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &EnvironmentArg, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let lines = session.client.call(&Status { component: Some(component.clone()) }).await?.environments;
    let target =
        lines.into_iter().find(|line| line.environment == args.environment).and_then(|line| line.target);
    let Some(target) = target else {
        return Err(Failure::new(
            Exit::NotFound,
            format!("{component} runs nothing in {} through Semel", args.environment),
        ));
    };
    let root = converge::root(session, &component, &args.environment, &target).await?;
    let stopped = control::stop(&root).await.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    let observed = converge::observe(&root).await;
    let report =
        Observation { component: component.clone(), environment: args.environment.clone(), observed };
    session.client.call(&report).await?;
    let word = if stopped.is_some() { "is stopped" } else { "was stopped already" };
    session.output.done(format!("{component} {word} in {}", args.environment));
    session.output.next(format!("semel deploy VERSION {} starts it again", args.environment));
    if session.output.is_json() {
        session.output.json(&json!({
            "component": component,
            "environment": args.environment,
            "stopped": stopped.is_some(),
            "observed": report.observed,
        }));
    }
    Ok(Exit::Done)
}

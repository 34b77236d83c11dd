//! `semel stop`: end what an environment runs on this machine. The record stays; `semel deploy` starts it again.

use semel_engine::observe::Observation;
use semel_targets::directory::control;
use serde_json::json;

use super::{Outcome, component, converge, naming, pipeline};
use crate::cli::{Cli, EnvironmentArg};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &EnvironmentArg, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let binding = pipeline::binding(&component, &args.environment, session).await?;
    let Some(target) = binding.target else {
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
    let of = naming(&component, session);
    session.output.next(format!("to start it again: semel deploy VERSION {}{of}", args.environment));
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

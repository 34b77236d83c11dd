//! `semel logs`: what the application of an environment prints.

use std::time::Duration;

use semel_targets::directory::logs;
use serde_json::json;

use super::{Outcome, component, converge, naming, pipeline};
use crate::cli::{Cli, LogsArgs};
use crate::output;
use crate::report::{Exit, Failure};
use crate::session::Session;

const FOLLOW_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(args: &LogsArgs, cli: &Cli, session: &Session) -> Outcome {
    if args.follow && session.output.is_json() {
        return Err(Failure::usage("--json prints one object, and --follow never comes to an end")
            .hint("leave one of them out"));
    }
    let component = component(cli, session)?;
    let binding = pipeline::binding(&component, &args.environment, session).await?;
    let Some(target) = binding.target else {
        return Err(Failure::usage(format!(
            "{} has no target: nothing runs there through Semel",
            args.environment
        )));
    };
    let root = converge::root(session, &component, &args.environment, &target).await?;
    if !root.join("target.json").exists() {
        return Err(Failure::new(
            Exit::NotFound,
            format!("nothing of {component} was ever deployed to {} on this machine", args.environment),
        )
        .hint(format!("semel deploy VERSION {}{}", args.environment, naming(&component, session))));
    }
    let failed = |error: semel_targets::directory::RootError| Failure::from_error(Exit::Fault, &error);
    let tail = logs::tail(&root, args.lines).map_err(failed)?;
    if session.output.is_json() {
        session
            .output
            .json(&json!({"component": component, "environment": args.environment, "lines": tail.lines}));
        return Ok(Exit::Done);
    }
    tail.lines.iter().for_each(|line| session.output.data(line));
    let mut mark = tail.mark;
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_PAUSE) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
        let (bytes, next) = logs::since(&root, mark).map_err(failed)?;
        session.output.bytes(&bytes);
        if output::is_over() {
            return Ok(Exit::Done);
        }
        mark = next;
    }
}

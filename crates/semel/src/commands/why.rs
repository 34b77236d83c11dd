//! `semel why`: why does this run here, and why does nothing else?

use semel_engine::look::why::Running;
use semel_model::name::EnvironmentName;
use semel_model::promotion::{Decision, GateResult};
use semel_model::version::known_as;
use semel_server::api::calls::Why;

use super::{Outcome, component, promote};
use crate::cli::{Cli, EnvironmentArg};
use crate::output::{Output, ago};
use crate::report::Exit;
use crate::session::{Session, now};

pub(super) async fn run(args: &EnvironmentArg, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let why = session.client.call(&Why { component, environment: args.environment.clone() }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&why);
        return Ok(Exit::Done);
    }
    match &why.running {
        None => output.data(&format!("{}: nothing of {} ever ran here", why.environment, why.component)),
        Some(running) => show_running(&why.environment, running, output),
    }
    if let Some(hold) = &why.hold {
        output.data(&format!("! held: {hold}"));
    }
    if let Some(trouble) = &why.trouble {
        output.data(&format!("! last attempt: {trouble}"));
    }
    if let Some(refused) = &why.refused {
        show_refused(refused, output);
    }
    if !why.recent.is_empty() {
        output.data("recently:");
    }
    for event in &why.recent {
        output.data(&format!("  {:<12} {} ({})", ago(&event.time, now()), event.what, event.who));
    }
    if why.hold.is_some() {
        output.next(format!("semel resume {}{}", why.environment, super::naming(&why.component, session)));
    }
    Ok(Exit::Done)
}

fn show_running(environment: &EnvironmentName, running: &Running, output: Output) {
    let back =
        running.rollback_of.map(|from| format!(", rolled back from generation {from}")).unwrap_or_default();
    output.data(&format!(
        "{environment}: {} (generation {}), since {} ({}){back}",
        running.artefact.name(),
        running.generation,
        running.since,
        ago(&running.since, now())
    ));
    output.data(&format!("  digest {}", running.artefact.digest));
    if let Some(commit) = &running.artefact.commit {
        output.data(&format!("  commit {commit}"));
    }
    for commit in running.commits.iter().take(8) {
        output.data(&format!("    {} {}", commit.id.short(), commit.subject));
    }
    output.data(&format!("  allowed {} because:", running.decision.inputs.clock));
    show_gates(&running.decision.gates, output);
}

fn show_refused(refused: &Decision, output: Output) {
    let asked = &refused.inputs;
    let name = known_as(asked.version.as_ref(), &asked.digest);
    output.data(&format!("! {name} was refused:"));
    show_gates(refused.closed(), output);
    promote::refusal(String::new(), refused).hints.iter().for_each(|hint| output.next(hint));
}

fn show_gates<'a>(gates: impl IntoIterator<Item = &'a GateResult>, output: Output) {
    for gate in gates {
        output.data(&format!("    {:<16} {}", gate.gate, gate.reason));
    }
}

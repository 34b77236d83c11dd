//! `semel promote`

use semel_engine::promote::{Promote, Promoted};
use semel_model::promotion::{Decision, Verdict};
use semel_server::api::calls::Inspect;

use super::{Outcome, pipeline};
use crate::cli::{Cli, PromoteArgs};
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &PromoteArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = super::artefact(&args.version, cli, session)?;
    pipeline::ensure(&component, session).await?;
    if args.expect.is_none() && super::may_move(&version) {
        let ask = Inspect { component: component.clone(), version: version.clone() };
        super::refuse_moving_word(&version, &session.client.call(&ask).await?.artefact, None)?;
    }
    let promote = Promote {
        component,
        version: version.clone(),
        environment: args.environment.clone(),
        plan: args.plan,
        expect: super::digest(args.expect.as_ref())?,
    };
    let promoted = session.client.call(&promote).await?;
    if !promoted.decision.is_granted() {
        let verb = if args.plan { "could not be promoted" } else { "may not run" };
        let message = format!("{} {verb} in {}", promoted.artefact.name(), args.environment);
        return Err(refusal(message, &promoted.decision).answer(&promoted));
    }
    let output = session.output;
    if output.is_json() {
        output.json(&promoted);
        return Ok(Exit::Done);
    }
    granted(&promoted, args.plan, output);
    let of = super::naming(&promoted.artefact.component, session);
    output.next(format!("semel deploy {version} {}{of}", args.environment));
    if output.is_quiet() {
        output.data(&format!("{}@{}", promoted.artefact.component, promoted.artefact.digest));
    }
    Ok(Exit::Done)
}

fn granted(promoted: &Promoted, plan: bool, output: Output) {
    gates(&promoted.decision, output);
    let (name, environment) = (promoted.artefact.name(), &promoted.environment);
    match (plan, promoted.already) {
        (true, _) => output.done(format!("{name} would be promoted to {environment}; nothing was recorded")),
        (false, true) => output.done(format!("{name} was already promoted to {environment}")),
        (false, false) => output.done(format!("{name} may run in {environment}")),
    }
}

/// The answer of every gate, one line each.
pub(super) fn gates(decision: &Decision, output: Output) {
    for gate in &decision.gates {
        let mark = match gate.verdict {
            Verdict::Pass => "open  ",
            Verdict::Fail | Verdict::Unknown => "closed",
        };
        output.say(format!("  {mark}  {:<22} {}", gate.gate, gate.reason));
    }
}

/// A refused promotion: what is missing, who can provide it, and how.
pub(super) fn refusal(message: String, decision: &Decision) -> Failure {
    let reasons = decision.closed().map(|gate| format!("{}: {}", gate.gate, gate.reason));
    let remedies = decision
        .closed()
        .filter_map(|gate| gate.remedy.as_ref())
        .map(|remedy| format!("{}: semel {}", remedy.who, remedy.command));
    Failure::new(Exit::Refused, message).because(reasons).hints(remedies)
}

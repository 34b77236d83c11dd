//! `semel rollback`: go back to what ran before. Plain values as they were, secrets as they are now.

use std::collections::BTreeMap;

use semel_engine::deploy::Start;
use semel_engine::rollback::Candidate;
use semel_model::config::Offered;
use semel_model::name::ConfigKey;
use semel_server::api::calls::RollbackCandidate;
use serde_json::json;

use super::{Outcome, component, converge, naming};
use crate::cli::{Cli, RollbackArgs};
use crate::output::ago;
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::{Session, now};

pub(super) async fn run(args: &RollbackArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    super::pipeline::ensure(&component, session).await?;
    let ask = RollbackCandidate {
        component: component.clone(),
        environment: args.environment.clone(),
        to: args.to.clone(),
    };
    let candidate = session.client.call(&ask).await?;
    let output = session.output;
    candidate.passed_over.iter().for_each(|line| output.say(format!("  passed over {line}")));
    output.say(format!(
        "{}: {} (generation {}) → {} (generation {}, succeeded {})",
        args.environment,
        candidate.from.name(),
        candidate.from_generation,
        candidate.to.name(),
        candidate.to_generation,
        ago(&candidate.succeeded, now()),
    ));
    let (offered, notes) = values_then(&candidate, args, session).await?;
    notes.iter().for_each(|line| output.say(format!("  {line}")));
    if args.plan {
        if output.is_json() {
            output.json(&json!({"candidate": candidate, "values": notes}));
        }
        return Ok(Exit::Done);
    }
    let resolved = converge::resolve(session, &candidate.contract, &args.environment, &offered).await?;
    let start = Start {
        component,
        version: candidate.to.digest.to_string(),
        environment: args.environment.clone(),
        config: resolved.config,
        restart: 0,
        expect: None,
        rollback_of: Some(candidate.from_generation),
        newest: None,
    };
    let deployed = converge::deploy(session, start, resolved.supplied, Some(&candidate.target)).await?;
    output.done(format!(
        "{} runs in {} again (generation {})",
        candidate.to.name(),
        args.environment,
        deployed.order.generation
    ));
    deployed.consequences.iter().for_each(|line| output.warn(line));
    let of = naming(&candidate.to.component, session);
    output.next(format!("before a version is deployed there again: semel resume {}{of}", args.environment));
    if output.is_json() {
        output.json(&json!({"candidate": candidate, "order": deployed.order, "observed": deployed.observed}));
    } else {
        output.data(&format!("{}@{}", candidate.to.component, candidate.to.digest));
    }
    Ok(Exit::Done)
}

/// The values of a rollback, and one line for each key that is not as it was.
async fn values_then(
    candidate: &Candidate,
    args: &RollbackArgs,
    session: &Session,
) -> Result<(BTreeMap<ConfigKey, Offered>, Vec<String>), Failure> {
    let now = secrets_now(candidate, args, session).await?;
    let mut offered = BTreeMap::new();
    let mut notes = Vec::new();
    for (key, entry) in &candidate.snapshot.entries {
        match (&entry.value, now.get(key)) {
            (Some(value), _) => {
                offered.insert(key.clone(), Offered { value: value.clone(), source: entry.source });
            }
            (None, Some(value)) => {
                notes.push(format!("{key}: secret as it is now"));
                offered.insert(key.clone(), value.clone());
            }
            (None, None) => notes.push(format!("{key}: secret, no longer set")),
        }
    }
    Ok((offered, notes))
}

/// The secrets as they are now: what was set here, and what a private values file holds. The file is not looked for when
/// everything was set, so that a rollback needs no project.
async fn secrets_now(
    candidate: &Candidate,
    args: &RollbackArgs,
    session: &Session,
) -> Result<BTreeMap<ConfigKey, Offered>, Failure> {
    let component = &candidate.to.component;
    let set = converge::offered(session, component, &args.environment, None, None).await?;
    let mut secrets = candidate.snapshot.entries.iter().filter(|(_, entry)| entry.commitment.is_some());
    if secrets.all(|(key, _)| set.contains_key(key)) {
        return Ok(set);
    }
    let found =
        project::find(session.settings.directory())?.filter(|found| found.project.component == *component);
    let dir = found.map(|found| found.dir);
    converge::offered(session, component, &args.environment, candidate.values.as_deref(), dir.as_deref())
        .await
}

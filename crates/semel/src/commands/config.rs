//! `semel config`: values of environments that are set here. No value is ever shown.

use std::io::{IsTerminal as _, Read as _};

use semel_model::config::Source;
use semel_server::api::calls::PlanDeployment;
use serde_json::json;

use super::{Outcome, component, converge, naming, pipeline};
use crate::cli::{Cli, ConfigKeyArgs, ConfigVerb, EnvironmentArg};
use crate::output::table;
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::Session;

/// The most bytes that a value may have.
const VALUE_BYTES_MAX: u64 = 1024 * 1024;

pub(super) async fn run(verb: &ConfigVerb, cli: &Cli, session: &Session) -> Outcome {
    match verb {
        ConfigVerb::Set(args) => set(args, cli, session).await,
        ConfigVerb::Unset(args) => unset(args, cli, session).await,
        ConfigVerb::Show(args) => show(args, cli, session).await,
    }
}

async fn set(args: &ConfigKeyArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    pipeline::ensure(&component, session).await?;
    pipeline::find_binding(&component, &args.environment, session).await?;
    let (output, of) = (session.output, naming(&component, session));
    if std::io::stdin().is_terminal() {
        output.say(format!("value of {} in {} (end with Ctrl-D):", args.key, args.environment));
    }
    let mut value = String::new();
    let read = std::io::stdin().lock().take(VALUE_BYTES_MAX + 1).read_to_string(&mut value);
    read.map_err(|error| Failure::usage(format!("cannot read the value from standard input: {error}")))?;
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::usage(format!("the value has more than {VALUE_BYTES_MAX} bytes")));
    }
    let value = value.strip_suffix('\n').map(|v| v.strip_suffix('\r').unwrap_or(v)).unwrap_or(&value);
    if value.is_empty() {
        return Err(Failure::usage("the value on standard input is empty")
            .hint(format!("printf %s VALUE | semel config set {} {}{of}", args.environment, args.key)));
    }
    let vault = converge::vault(session, &args.environment).await?;
    vault.set(&component, &args.key, value).map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    output.done(format!(
        "{} is set for {component} in {}, sealed on this machine; it takes effect with the next deployment",
        args.key, args.environment
    ));
    output.next(format!("semel deploy {}{of}", args.environment));
    if output.is_json() {
        output.json(&json!({"environment": args.environment, "key": args.key, "set": true}));
    }
    Ok(Exit::Done)
}

async fn unset(args: &ConfigKeyArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let vault = converge::vault(session, &args.environment).await?;
    let was = vault.unset(&component, &args.key).map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    if !was {
        // What was set for an environment that is no longer there can be forgotten.
        pipeline::find_binding(&component, &args.environment, session).await?;
    }
    let word = if was { "is forgotten" } else { "was not set already" };
    session.output.done(format!("{} {word} for {component} in {}", args.key, args.environment));
    if session.output.is_json() {
        session.output.json(&json!({"environment": args.environment, "key": args.key, "set": false}));
    }
    Ok(Exit::Done)
}

/// The keys that the newest version needs, and where their values come from.
async fn show(args: &EnvironmentArg, cli: &Cli, session: &Session) -> Outcome {
    let component = component(cli, session)?;
    let found =
        project::find(session.settings.directory())?.filter(|found| found.project.component == component);
    let binding = pipeline::find_binding(&component, &args.environment, session).await?;
    let values = binding.and_then(|binding| binding.values);
    let offered = converge::offered(
        session,
        &component,
        &args.environment,
        values.as_deref(),
        found.as_ref().map(|f| f.dir.as_path()),
    )
    .await?;
    let planned =
        PlanDeployment { component: component.clone(), version: None, environment: args.environment.clone() };
    let contract = match (session.client.call(&planned).await, found) {
        (Ok(plan), _) => plan.contract,
        (Err(_), Some(found)) => found.project.definition.config,
        (Err(error), None) => return Err(error.into()),
    };
    let mut rows = Vec::new();
    for (key, rule) in &contract.0 {
        let source = match (offered.get(key).map(|one| one.source), &rule.default) {
            (Some(Source::Set), _) => "set".to_owned(),
            (Some(Source::File | Source::Private), _) => values.clone().unwrap_or_default(),
            (Some(Source::Default), _) | (None, Some(_)) => "default".to_owned(),
            (None, None) if rule.is_required() => "MISSING".to_owned(),
            (None, None) => "-".to_owned(),
        };
        let secret = if rule.secret { "secret" } else { "" };
        rows.push(vec![key.to_string(), rule.kind.to_string(), secret.to_owned(), source]);
    }
    for key in offered.keys().filter(|key| !contract.0.contains_key(*key)) {
        rows.push(vec![key.to_string(), "?".to_owned(), String::new(), "not in the contract".to_owned()]);
    }
    let output = session.output;
    if output.is_json() {
        let list: Vec<_> = rows
            .iter()
            .map(|row| json!({"key": row[0], "type": row[1], "secret": row[2] == "secret", "source": row[3]}))
            .collect();
        output.json(&json!({"environment": args.environment, "keys": list}));
    } else if rows.is_empty() {
        output.say(format!("{component} needs no configuration"));
    } else {
        output.data(&table(&["KEY", "TYPE", "", "FROM"], rows));
    }
    Ok(Exit::Done)
}

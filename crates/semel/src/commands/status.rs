//! `semel status`: what runs where, exceptions first. Targets on this machine are observed now.

use semel_engine::look::status::{StatusLine, Waiting};
use semel_engine::observe::Observation;
use semel_model::deployment::{HealthState, RunState};
use semel_server::api::calls::{Status, StatusList};
use semel_store::is_read_only;

use super::{Outcome, converge};
use crate::cli::{Cli, StatusArgs};
use crate::output::{ago, table};
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::{Session, now};

pub(super) async fn run(args: &StatusArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = match &cli.component {
        Some(name) => Some(name.clone()),
        None => project::find(session.settings.directory())?.map(|found| found.project.component),
    };
    let ask = Status { component };
    if let Some(component) = &ask.component {
        super::pipeline::ensure(component, session).await?;
    }
    let before = session.client.call(&ask).await?;
    observe_here(&before, session).await?;
    let status = session.client.call(&ask).await?;
    let exceptions = status.environments.iter().filter(|line| line.is_exception()).count();
    let output = session.output;
    if output.is_json() {
        output.json(&status);
    } else {
        show(&status, session);
    }
    Ok(if args.exit_code && exceptions > 0 { Exit::Difference } else { Exit::Done })
}

/// Reports what the directory targets on this machine run.
async fn observe_here(status: &StatusList, session: &Session) -> Result<(), Failure> {
    for line in &status.environments {
        let Some(target) = &line.target else { continue };
        let Ok(root) = converge::root(session, &line.component, &line.environment, target).await else {
            continue;
        };
        if !root.join("target.json").exists() {
            continue;
        }
        if session.store.as_ref().is_some_and(|store| is_read_only(store.dir())) {
            session.output.warn("what runs on this machine is not looked at: the store is mounted read-only");
            return Ok(());
        }
        let observed = converge::observe(&root).await;
        let report = Observation {
            component: line.component.clone(),
            environment: line.environment.clone(),
            observed,
        };
        session.client.call(&report).await?;
    }
    Ok(())
}

fn show(status: &StatusList, session: &Session) {
    let output = session.output;
    if status.environments.is_empty() {
        output.say("no component has a pipeline here yet");
        output.next("declare [environment.NAME] tables in semel.toml, then: semel pipeline apply");
        return;
    }
    for line in status.environments.iter().filter(|line| line.is_exception()) {
        for problem in exceptions(line) {
            output.data(&format!("! {} {}: {problem}", line.component, line.environment));
        }
    }
    let rows = status.environments.iter().map(row).collect();
    output.data(&table(
        &["COMPONENT", "ENVIRONMENT", "RUNS", "BUILD", "SINCE", "BEHIND", "CONFIG", "OBSERVED"],
        rows,
    ));
    if let Some(line) = status.environments.iter().find(|line| line.is_exception()) {
        output.next(format!("semel why {} -c {}", line.environment, line.component));
    }
    status.waiting.iter().for_each(|one| show_waiting(one, session));
}

fn show_waiting(waiting: &Waiting, session: &Session) {
    let Waiting { component, version, number, missing, reason } = waiting;
    let failed = reason.as_ref().map(|reason| format!("; its build failed: {reason}")).unwrap_or_default();
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    session.output.data(&format!(
        "{component} {version} (build {number}) is not complete: {} to come{failed}",
        names.join(", ")
    ));
    if let Some(first) = names.first() {
        session.output.next(format!("where that can be built: semel build --platform {first}"));
    }
}

fn exceptions(line: &StatusLine) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(line.trouble.clone());
    words.extend(line.drift.iter().map(|drift| format!("drift: {drift}")));
    words.extend(line.hold.as_ref().map(|reason| format!("held: {reason}")));
    words
}

fn row(line: &StatusLine) -> Vec<String> {
    let running = line.running.as_ref();
    let dash = || "-".to_owned();
    vec![
        line.component.to_string(),
        line.environment.to_string(),
        running.and_then(|one| one.version.as_ref()).map_or_else(dash, ToString::to_string),
        running.and_then(|one| one.number).map_or_else(dash, |number| number.to_string()),
        line.since.as_ref().map_or_else(dash, |since| ago(since, now())),
        running.map_or_else(dash, |_| line.behind.to_string()),
        line.config.as_ref().map_or_else(dash, |config| config.short().to_owned()),
        observed(line),
    ]
}

fn observed(line: &StatusLine) -> String {
    let (Some(observed), Some(at)) = (&line.observed, &line.observed_at) else { return "-".to_owned() };
    let state = match (observed.state, observed.health) {
        (RunState::Absent, _) => "nothing",
        (RunState::Stopped, _) => "stopped",
        (RunState::Running, HealthState::Healthy) => "healthy",
        (RunState::Running, HealthState::Unhealthy) => "unhealthy",
        (RunState::Running, HealthState::Unknown) => "running",
    };
    format!("{state}, {}", ago(at, now()))
}

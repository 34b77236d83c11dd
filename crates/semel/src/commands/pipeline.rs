//! `semel pipeline`: the file proposes, the store disposes.

use semel_engine::error::EngineError;
use semel_engine::pipeline::{self, Apply, InForce};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::{Binding, Health, Pipeline};
use semel_server::api::calls::ShowPipeline;
use serde_json::json;

use super::Outcome;
use crate::cli::{Cli, PipelineVerb};
use crate::output::table;
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(verb: &PipelineVerb, cli: &Cli, session: &Session) -> Outcome {
    match verb {
        PipelineVerb::Apply => apply(session).await,
        PipelineVerb::Show => show(&super::component(cli, session)?, session).await,
        PipelineVerb::Diff => diff(session).await,
    }
}

async fn apply(session: &Session) -> Outcome {
    let found = project::get(session.settings.directory())?;
    refuse_empty(&found.project.pipeline)?;
    let apply = Apply {
        component: found.project.component.clone(),
        pipeline: found.project.pipeline,
        only_first: false,
    };
    let in_force = session.client.call(&apply).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&in_force);
    } else if in_force.changes.is_empty() {
        output.done(format!(
            "the pipeline of {} was already in force ({})",
            in_force.component,
            in_force.digest.short()
        ));
    } else {
        in_force.changes.iter().for_each(|line| output.say(format!("  {line}")));
        output.done(format!(
            "the pipeline of {} is in force ({})",
            in_force.component,
            in_force.digest.short()
        ));
        output.next("semel status");
    }
    Ok(Exit::Done)
}

fn refuse_empty(pipeline: &Pipeline) -> Result<(), Failure> {
    if pipeline.environments.is_empty() {
        return Err(Failure::usage("semel.toml declares no environment")
            .hint("add for example: [environment.dev] and target = { kind = \"directory\" }"));
    }
    Ok(())
}

async fn show(component: &ComponentName, session: &Session) -> Outcome {
    let Some(in_force) = session.client.call(&ShowPipeline { component: component.clone() }).await?.in_force
    else {
        return Err(not_found(&pipeline::none_in_force(component)));
    };
    let output = session.output;
    if output.is_json() {
        output.json(&in_force);
        return Ok(Exit::Done);
    }
    let rows = in_force.pipeline.in_order().into_iter().map(|name| {
        let binding = &in_force.pipeline.environments[name];
        let words = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
        let health = match binding.target.as_ref().and_then(|target| target.health.as_ref()) {
            Some(Health::Url(url)) => url.clone(),
            Some(Health::Command(words)) => words.join(" "),
            None => "-".to_owned(),
        };
        vec![
            name.to_string(),
            words(binding.after.iter().map(ToString::to_string).collect()),
            words(binding.gates.iter().map(ToString::to_string).collect()),
            binding.values.clone().unwrap_or_else(|| "-".to_owned()),
            binding.target.as_ref().map_or_else(|| "-".to_owned(), |_| "directory".to_owned()),
            health,
        ]
    });
    output.data(&table(&["ENVIRONMENT", "AFTER", "GATES", "VALUES", "TARGET", "HEALTH"], rows.collect()));
    Ok(Exit::Done)
}

fn not_found(error: &EngineError) -> Failure {
    Failure::from_error(Exit::NotFound, error).hints(error.hint().map(str::to_owned))
}

/// The binding of an environment. An environment that the pipeline does not have is refused; none: there is no pipeline.
pub(super) async fn find_binding(
    component: &ComponentName,
    environment: &EnvironmentName,
    session: &Session,
) -> Result<Option<Binding>, Failure> {
    let in_force = session.client.call(&ShowPipeline { component: component.clone() }).await?.in_force;
    let Some(in_force) = in_force else { return Ok(None) };
    let binding = pipeline::binding(&in_force, environment).map_err(|error| not_found(&error))?;
    Ok(Some(binding.clone()))
}

/// The binding of an environment, which must be there.
pub(super) async fn binding(
    component: &ComponentName,
    environment: &EnvironmentName,
    session: &Session,
) -> Result<Binding, Failure> {
    let found = find_binding(component, environment, session).await?;
    found.ok_or_else(|| not_found(&pipeline::none_in_force(component)))
}

async fn diff(session: &Session) -> Outcome {
    let found = project::get(session.settings.directory())?;
    let component = found.project.component.clone();
    let in_force = session.client.call(&ShowPipeline { component: component.clone() }).await?.in_force;
    let lines = found.project.pipeline.differences_from(in_force.as_ref().map(|one| &one.pipeline));
    let output = session.output;
    if output.is_json() {
        output.json(&json!({"component": component, "differences": lines}));
    } else if lines.is_empty() {
        output.done("semel.toml and the store say the same");
    } else {
        lines.iter().for_each(|line| output.data(line));
        output.next("semel pipeline apply");
    }
    Ok(if lines.is_empty() { Exit::Done } else { Exit::Difference })
}

/// The pipeline in force. An embedded store without one takes the file's at first use and says so; a file that differs is
/// mentioned in one line.
pub(super) async fn ensure(component: &ComponentName, session: &Session) -> Result<Option<InForce>, Failure> {
    let in_force = session.client.call(&ShowPipeline { component: component.clone() }).await?.in_force;
    let proposed =
        project::find(session.settings.directory())?.filter(|found| found.project.component == *component);
    let Some(proposed) = proposed.map(|found| found.project.pipeline) else { return Ok(in_force) };
    match in_force {
        Some(in_force) => {
            if in_force.digest != proposed.digest() {
                let output = session.output;
                let command = output.proposed("semel pipeline diff");
                output.say(format!(
                    "  note: semel.toml proposes another pipeline than the one in force ({command})"
                ));
            }
            Ok(Some(in_force))
        }
        None if session.store.is_some() && !proposed.environments.is_empty() => {
            let apply = Apply { component: component.clone(), pipeline: proposed, only_first: true };
            let in_force = session.client.call(&apply).await?;
            session.output.say(format!("  note: the pipeline of semel.toml is in force for {component} now"));
            Ok(Some(in_force))
        }
        None => Ok(None),
    }
}

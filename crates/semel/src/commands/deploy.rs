//! `semel deploy`: make an environment run a version.

use semel_engine::deploy::Start;
use semel_model::deployment::Plan;
use semel_server::api::calls::{PlanDeployment, Status};
use serde_json::json;

use super::build::{self, Wanted};
use super::{Outcome, Target, converge, digest, naming, pipeline, refuse_moving_word, target};
use crate::cli::{Cli, DeployArgs};
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &DeployArgs, cli: &Cli, session: &Session) -> Outcome {
    let mut wanted = target(&args.words, cli, session)?;
    pipeline::ensure(&wanted.component, session).await?;
    if wanted.version.is_none() {
        wanted.version = newest(&wanted, cli, session).await?;
    }
    let plan = session
        .client
        .call(&PlanDeployment {
            component: wanted.component.clone(),
            version: wanted.version.clone(),
            environment: wanted.environment.clone(),
        })
        .await?;
    if let Some(word) = &wanted.version {
        refuse_moving_word(word, &plan.artefact, args.expect.as_ref())?;
    }
    if let Some(target) = &plan.target {
        converge::refuse_secrets_in_health(&plan.contract, target)?;
    }
    let project = project::find(session.settings.directory())?;
    let dir = project.filter(|found| found.project.component == wanted.component).map(|found| found.dir);
    let values = plan.values.as_deref();
    let offered =
        converge::offered(session, &wanted.component, &wanted.environment, values, dir.as_deref()).await?;
    let resolved = converge::resolve(session, &plan.contract, &wanted.environment, &offered).await?;
    let start = Start {
        component: wanted.component.clone(),
        version: plan.artefact.digest.to_string(),
        environment: wanted.environment.clone(),
        config: resolved.config,
        restart: restarts(args, &wanted, session).await?,
        expect: digest(args.expect.as_ref())?,
        rollback_of: None,
        newest: None,
    };
    let deployed = converge::deploy(session, start, resolved.supplied, plan.target.as_ref()).await?;
    let output = session.output;
    let (name, environment) = (plan.artefact.name(), &wanted.environment);
    let word = match deployed.plan {
        Plan::Nothing => "already runs",
        Plan::Start => "was started again",
        Plan::Repair => "was repaired and runs",
        Plan::Switch => "runs",
    };
    output.done(format!(
        "{name} {word} in {environment} (generation {}, config {})",
        deployed.order.generation,
        deployed.order.config.short()
    ));
    deployed.consequences.iter().for_each(|line| output.warn(line));
    if output.is_json() {
        output.json(&json!({"order": deployed.order, "plan": deployed.plan, "observed": deployed.observed}));
    } else {
        let of = naming(&wanted.component, session);
        output.next(format!("semel status   or   semel logs {environment}{of}"));
        output.data(&format!("{}@{}", plan.artefact.component, plan.artefact.digest));
    }
    Ok(Exit::Done)
}

/// Without a version: in the first environment HEAD, built if it is not; elsewhere the newest that was promoted.
async fn newest(wanted: &Target, cli: &Cli, session: &Session) -> Result<Option<String>, Failure> {
    let Some(found) = project::find(session.settings.directory())? else { return Ok(None) };
    let binding = found.project.pipeline.environments.get(&wanted.environment);
    let first = binding.is_some_and(|binding| binding.after.is_empty());
    if !first || found.project.component != wanted.component {
        return Ok(None);
    }
    let head = Wanted { within: true, ..Wanted::default() };
    let source = build::resolve(&head, &session.settings).await?;
    build::refuse_lost_store(cli, &session.settings)?;
    let built = build::build(&head, source, session).await?;
    if let Some(missing) = built.missing.first() {
        let what = format!("{} has no version yet: its part for {missing} is missing", built.version);
        return Err(Failure::new(Exit::TryAgain, what).hint(format!("semel build --platform {missing}")));
    }
    Ok(Some(built.version.to_string()))
}

/// A restart is a deployment of its own: its number is the generation that it follows.
async fn restarts(args: &DeployArgs, wanted: &Target, session: &Session) -> Result<u32, Failure> {
    if !args.restart {
        return Ok(0);
    }
    let lines =
        session.client.call(&Status { component: Some(wanted.component.clone()) }).await?.environments;
    let generation = lines
        .into_iter()
        .find(|line| line.environment == wanted.environment)
        .and_then(|line| line.generation);
    Ok(u32::try_from(generation.unwrap_or(0)).unwrap_or(u32::MAX))
}

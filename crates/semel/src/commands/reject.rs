//! `semel reject` and `semel accept`

use semel_engine::reject::{Judge, Judged};
use semel_model::name::EnvironmentName;

use super::{Outcome, artefact};
use crate::cli::{AcceptArgs, Cli, RejectArgs};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn reject(args: &RejectArgs, cli: &Cli, session: &Session) -> Outcome {
    let judged =
        judge(&args.version, args.environment.as_ref(), Some(args.reason.clone()), cli, session).await?;
    say(&judged, "was already rejected", session);
    session.output.next(format!("semel accept {} undoes it; what runs goes on running", args.version));
    Ok(Exit::Done)
}

pub(super) async fn accept(args: &AcceptArgs, cli: &Cli, session: &Session) -> Outcome {
    let judged = judge(&args.version, args.environment.as_ref(), None, cli, session).await?;
    say(&judged, "was not rejected already", session);
    Ok(Exit::Done)
}

async fn judge(
    version: &str,
    environment: Option<&EnvironmentName>,
    reason: Option<String>,
    cli: &Cli,
    session: &Session,
) -> Result<Judged, Failure> {
    let (component, version) = artefact(version, cli, session)?;
    Ok(session
        .client
        .call(&Judge { component, version, environment: environment.cloned(), reason, pulls: false })
        .await?)
}

fn say(judged: &Judged, nothing: &str, session: &Session) {
    let output = session.output;
    if judged.changed.is_empty() {
        output.done(format!("{} {nothing}", judged.artefact.name()));
    }
    judged.changed.iter().for_each(|line| output.done(line));
    if output.is_json() {
        output.json(judged);
    }
}

//! `semel resolve`: what may run, pinned, for every other tool; nothing on standard output when nothing may.

use semel_engine::promote::Resolved;
use semel_server::api::calls::Resolve;
use serde_json::json;

use super::{Outcome, pipeline, target};
use crate::cli::{Cli, ResolveArgs};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &ResolveArgs, cli: &Cli, session: &Session) -> Outcome {
    let wanted = target(&args.words, cli, session)?;
    pipeline::ensure(&wanted.component, session).await?;
    let ask = Resolve {
        component: wanted.component.clone(),
        version: wanted.version.clone(),
        environment: wanted.environment.clone(),
    };
    match session.client.call(&ask).await? {
        Resolved::Allowed { artefact, places } => {
            let pinned = places.first().cloned().unwrap_or_else(|| own_place(session, &artefact));
            if session.output.is_json() {
                session.output.json(&json!({"reference": pinned, "artefact": artefact, "places": places}));
            } else {
                session.output.data(&pinned);
            }
            Ok(Exit::Done)
        }
        Resolved::Refused { artefact, reasons } => {
            let (environment, of) = (&wanted.environment, super::naming(&wanted.component, session));
            let message = match artefact {
                Some(artefact) => format!("{} may not run in {environment}", artefact.name()),
                None => format!("nothing of {} may run in {environment}", wanted.component),
            };
            let version = wanted.version.unwrap_or_else(|| "VERSION".to_owned());
            // Nothing at all on standard output, also with --json: a pipe must not take a refusal for a reference.
            let failure = Failure::new(Exit::Refused, message)
                .because(reasons)
                .hint(format!("to see what is missing: semel promote {version} {environment}{of} --plan"));
            session.output.problem("refused", &failure.message);
            failure.because.iter().for_each(|reason| session.output.note("because", reason));
            failure.hints.iter().for_each(|hint| session.output.note("hint", hint));
            Ok(Exit::Refused)
        }
    }
}

/// The artefact in this store: behind the server's address, or by name alone where no server is.
fn own_place(session: &Session, artefact: &semel_engine::artefact::Artefact) -> String {
    let host = session
        .client
        .base()
        .and_then(|base| base.split_once("://"))
        .map(|(_, host)| host.trim_end_matches('/'));
    match host {
        Some(host) => format!("{host}/{}@{}", artefact.component, artefact.digest),
        None => format!("{}@{}", artefact.component, artefact.digest),
    }
}

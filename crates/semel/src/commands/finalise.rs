//! `semel finalise`: a candidate gets its final name.

use semel_engine::finalise::{Finalise, Finalised};

use super::{Outcome, artefact, require_fixed_word};
use crate::cli::{Cli, VersionArg};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &VersionArg, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = artefact(&args.version, cli, session)?;
    require_fixed_word(&component, &version, session).await?;
    let done = session.client.call(&Finalise { component: component.clone(), version }).await?;
    let output = session.output;
    let (version, candidate, digest, already) = match &done {
        Finalised::Final { version, candidate, digest, already } => (version, candidate, digest, *already),
        Finalised::Refused(refused) => {
            let hint = refused.next_free.as_ref().map(|_| format!("semel versions -c {component}"));
            return Err(Failure::new(Exit::Conflict, refused.reason.clone()).hints(hint).answer(&done));
        }
    };
    if already {
        output.done(format!("{component} {version} is {candidate} already: nothing to do"));
    } else {
        output.done(format!("{component} {candidate} is {version} now, for ever"));
        let of = super::naming(&component, session);
        output.next(format!("semel deploy {version} ENV{of}   or   semel inspect {version}{of}"));
    }
    if output.is_json() {
        output.json(&done);
    } else {
        output.data(&format!("{component}@{digest}"));
    }
    Ok(Exit::Done)
}

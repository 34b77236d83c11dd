//! `semel build log`: what the commands of a build printed, and when.

use semel_build::log::{self, Line, Mark};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_server::api::calls::BuildLog;
use tokio::io::AsyncReadExt as _;

use super::Outcome;
use super::live_log::{Following, PAUSE};
use crate::cli::{BuildLogArgs, Cli};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &BuildLogArgs, cli: &Cli, session: &Session) -> Outcome {
    if args.follow && session.output.is_json() {
        return Err(Failure::usage("--json prints one object, and --follow prints lines")
            .hint("leave one of them out"));
    }
    let (component, build) = super::artefact(&args.build, cli, session)?;
    let found = session.client.call(&BuildLog { component: component.clone(), build }).await?;
    if session.output.is_json() {
        session.output.json(&found);
        return Ok(Exit::Done);
    }
    if args.follow {
        return follow(component, found.number, session).await;
    }
    let reason = found.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    session.output.say(format!(
        "build {} of {component}, version {}, {}{reason}",
        found.number, found.version, found.state
    ));
    let Some(log) = found.log else {
        return Err(Failure::new(Exit::NotFound, format!("build {} has left no log", found.number))
            .hint(format!("if it is running: semel build log {} -c {component} --follow", found.number)));
    };
    let bytes = read(&component, &log, session).await?;
    if args.raw {
        session.output.bytes(&log::raw(&bytes));
    } else {
        log::lines(&bytes).for_each(|line| session.output.data(&shown(&line)));
    }
    Ok(Exit::Done)
}

async fn follow(component: ComponentName, number: u64, session: &Session) -> Outcome {
    let mut following = Following::new(component, number, None);
    let show = |line: &Line<'_>| session.output.data(&shown(line));
    while following.step(session, show).await? {
        tokio::time::sleep(PAUSE).await;
    }
    following.finish(session, show).await?;
    Ok(Exit::Done)
}

pub(super) async fn read(
    component: &ComponentName,
    log: &Digest,
    session: &Session,
) -> Result<Vec<u8>, Failure> {
    let fetched = session.client.registry().get_blob(component, log, None).await;
    let mut fetched = fetched.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    let mut bytes = Vec::new();
    let read = fetched.reader.read_to_end(&mut bytes).await;
    read.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    Ok(bytes)
}

/// A line for a terminal, behind the seconds since the commands began.
pub(super) fn shown(line: &Line<'_>) -> String {
    let at = line.at.map(|at| format!("{:>9.3}  ", at.as_secs_f64())).unwrap_or_default();
    let text = log::harmless(line.text);
    let mark = match line.mark {
        Mark::Phase => "== ",
        Mark::Words => "… ",
        Mark::Line | Mark::Piece => "",
    };
    format!("{at}{mark}{text}")
}

//! `semel build log`: what the commands of a build printed, and when.

use semel_build::log::{self, Line, Mark};
use semel_engine::look::versions::{BuildLog as Found, PartLog};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_server::api::calls::BuildLog;
use tokio::io::AsyncReadExt as _;

use super::Outcome;
use super::live_log::{Following, PAUSE};
use crate::cli::{BuildLogArgs, Cli};
use crate::output;
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
    let part = part(&found, args.platform.as_ref(), &component)?;
    if args.follow {
        return follow(component, found.number, part.map(|part| part.platform.clone()), session).await;
    }
    tell(&component, &found, part, session);
    let log = part.map_or(&found.log, |part| &part.log);
    let Some(log) = log else {
        let of_part = part.map(|part| format!(" --platform {}", part.platform)).unwrap_or_default();
        let follow = format!("semel build log {} -c {component}{of_part} --follow", found.number);
        return Err(Failure::new(Exit::NotFound, format!("build {} has left no log", found.number))
            .hint(format!("if it is running: {follow}")));
    };
    let bytes = read(&component, log, session).await?;
    if args.raw {
        session.output.bytes(&log::raw(&bytes));
    } else {
        log::lines(&bytes).for_each(|line| session.output.data(&shown(&line)));
    }
    Ok(Exit::Done)
}

/// The part that is meant: the one that is named, else the one of this machine, else the first. None: the build has no parts.
fn part<'a>(
    found: &'a Found,
    named: Option<&Platform>,
    component: &ComponentName,
) -> Result<Option<&'a PartLog>, Failure> {
    let of = |platform: &Platform| found.parts.iter().find(|part| part.platform == *platform);
    let Some(named) = named else { return Ok(of(&Platform::host()).or(found.parts.first())) };
    of(named).map(Some).ok_or_else(|| {
        let number = found.number;
        let names: Vec<String> = found.parts.iter().map(|part| part.platform.to_string()).collect();
        let what = match names.is_empty() {
            true => format!("build {number} of {component} has no parts"),
            false => format!("{named} is none of the parts of build {number}: {}", names.join(", ")),
        };
        Failure::usage(what).hint(format!("semel build log {number} -c {component}"))
    })
}

/// Says which build it is, and how its parts are.
fn tell(component: &ComponentName, found: &Found, shown: Option<&PartLog>, session: &Session) {
    let Found { number, version, state, reason, .. } = found;
    let because =
        |reason: &Option<String>| reason.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    session
        .output
        .say(format!("build {number} of {component}, version {version}, {state}{}", because(reason)));
    for part in &found.parts {
        let mark = if Some(part) == shown { "this is" } else { "also" };
        let PartLog { platform, state, reason, .. } = part;
        session.output.say(format!("  {mark} {platform}, {state}{}", because(reason)));
    }
}

async fn follow(
    component: ComponentName,
    number: u64,
    platform: Option<Platform>,
    session: &Session,
) -> Outcome {
    let mut following = Following::new(component, number, platform);
    let show = |line: &Line<'_>| session.output.data(&shown(line));
    while following.step(session, show).await? {
        if output::is_over() {
            return Ok(Exit::Done);
        }
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

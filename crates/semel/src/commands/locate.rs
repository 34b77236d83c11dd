//! `semel where`

use semel_engine::look::place::Presence;
use semel_server::api::calls::Where;

use super::{Outcome, inspect};
use crate::cli::{Cli, WhereArgs};
use crate::output::ago;
use crate::project;
use crate::report::Exit;
use crate::session::{Session, now};

pub(super) async fn run(args: &WhereArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = match &cli.component {
        Some(name) => Some(name.clone()),
        None => project::find(session.settings.directory())?.map(|found| found.project.component),
    };
    let found = session.client.call(&Where { component, word: args.word.clone() }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&found);
        return Ok(Exit::Done);
    }
    for place in &found.places {
        let build = place.artefact.number.map(|number| format!(", build {number}")).unwrap_or_default();
        output.data(&format!("{}{build}  {}", place.artefact.name(), place.artefact.digest));
        if place.artefact.deprecated.is_some() || place.artefact.expired.is_some() {
            output.data(&format!("  {}", inspect::state(&place.artefact)));
        }
        for commit in &place.commits {
            output.data(&format!("  commit {commit}"));
        }
        for presence in &place.environments {
            output.data(&format!("  {:<14} {}", presence.environment.as_str(), words(presence)));
        }
    }
    Ok(Exit::Done)
}

fn words(presence: &Presence) -> String {
    let mut words = Vec::new();
    match (&presence.running_since, &presence.instead) {
        (Some(since), _) => words.push(format!("runs since {since} ({})", ago(since, now()))),
        (None, Some(instead)) => words.push(format!("not running ({instead} runs)")),
        (None, None) => words.push("not running".to_owned()),
    }
    for stay in &presence.ran {
        let until = stay.until.as_deref().unwrap_or("now");
        words.push(format!("ran {} to {until} (generation {})", stay.from, stay.generation));
    }
    if presence.promoted && presence.running_since.is_none() {
        words.push("promoted".to_owned());
    }
    words.join("; ")
}

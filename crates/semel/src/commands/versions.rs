//! `semel versions`

use semel_engine::artefact::Artefact;
use semel_engine::draft::DraftFact;
use semel_engine::look::versions::VersionLine;
use semel_server::api::calls::Versions;

use super::Outcome;
use crate::cli::{Cli, VersionsArgs};
use crate::output::{ago, table};
use crate::report::Exit;
use crate::session::{Session, now};

pub(super) async fn run(args: &VersionsArgs, cli: &Cli, session: &Session) -> Outcome {
    let component = super::component(cli, session)?;
    let answer = session.client.call(&Versions { component: component.clone(), limit: args.limit }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&answer);
        return Ok(Exit::Done);
    }
    if output.is_quiet() {
        let names = answer.versions.iter().filter_map(|one| one.artefact.version.as_ref());
        names.for_each(|version| output.data(&version.to_string()));
        return Ok(Exit::Done);
    }
    if answer.versions.is_empty() {
        output.say(format!("{component} has no version yet"));
        match answer.drafts.first() {
            Some(draft) => output.next(format!("semel publish {component}@{}", draft.version)),
            None => output.next("semel build"),
        }
    } else {
        let rows = named(&answer.versions).into_iter().map(|(line, others)| row(line, &others));
        let header = ["VERSION", "BUILD", "COMMIT", "DIGEST", "PUBLISHED", "STATE", "RUNS IN"];
        output.data(&table(&header, rows.collect()));
    }
    if !answer.drafts.is_empty() {
        output.data(&table(&["DRAFT", "DIGEST", "HELD UNTIL"], answer.drafts.iter().map(draft).collect()));
    }
    Ok(Exit::Done)
}

/// Each artefact once, under its newest name, with the names that it had before: a candidate that was finalised, a branch's
/// build that the main line took. Names of which only one is deprecated stay apart.
fn named(lines: &[VersionLine]) -> Vec<(&VersionLine, Vec<&VersionLine>)> {
    let mut named: Vec<(&VersionLine, Vec<&VersionLine>)> = Vec::new();
    for line in lines {
        let is_same = |one: &&mut (&VersionLine, Vec<&VersionLine>)| {
            one.0.artefact.digest == line.artefact.digest && state(&one.0.artefact) == state(&line.artefact)
        };
        match named.iter_mut().find(is_same) {
            Some((_, others)) => others.push(line),
            None => named.push((line, Vec::new())),
        }
    }
    named
}

fn row(line: &VersionLine, others: &[&VersionLine]) -> Vec<String> {
    let artefact = &line.artefact;
    let environments: Vec<&str> = line.environments.iter().map(|name| name.as_str()).collect();
    let names = std::iter::once(&line).chain(others).filter_map(|one| one.artefact.version.as_ref());
    let names: Vec<String> = names.map(ToString::to_string).collect();
    let state =
        [state(artefact).to_owned()].into_iter().chain(line.platforms.iter().map(ToString::to_string));
    vec![
        names.join(" = "),
        artefact.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
        artefact.commit.as_ref().map_or_else(|| "-".to_owned(), |commit| commit.short().to_owned()),
        artefact.digest.short().to_owned(),
        artefact.published.as_ref().map_or_else(String::new, |time| ago(time, now())),
        state.collect::<Vec<_>>().join(", "),
        environments.join(", "),
    ]
}

/// The state in one word; `semel inspect` says more.
fn state(artefact: &Artefact) -> &'static str {
    match (&artefact.expired, &artefact.deprecated) {
        (Some(_), _) => "expired",
        (None, Some(_)) => "deprecated",
        (None, None) => "published",
    }
}

fn draft(draft: &DraftFact) -> Vec<String> {
    vec![draft.version.to_string(), draft.digest.short().to_owned(), draft.until.clone()]
}

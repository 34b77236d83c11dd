//! `semel version`: which version a commit has or would get, and why. Also how the history of a commit is told, which a
//! build needs for its version too.

use semel_build::source::{self, Depth, Source};
use semel_engine::allocate::{Forecast, Given, Next, NextVersion};
use semel_engine::reserve::Reserve;
use semel_model::allocation::Base;
use semel_model::build::{Bump, CommitFact, History};
use semel_model::name::{CommitId, ComponentName};
use serde::Serialize;

use super::build::{self, Wanted};
use super::{Outcome, queue};
use crate::cli::{Cli, VersionArgs};
use crate::output::{Output, table};
use crate::process;
use crate::report::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;

/// The answer, for `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    component: &'a ComponentName,
    commit: &'a CommitId,
    #[serde(flatten)]
    next: &'a Next,
}

pub(super) async fn run(args: &VersionArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    let wanted = Wanted {
        revision: args.revision.clone(),
        branch: args.branch.clone(),
        bump: args.bump.map(Into::into),
        ..Wanted::default()
    };
    let source = build::resolve(&wanted, &settings).await?;
    build::require_component(cli, &source)?;
    build::refuse_lost_store(cli, &settings)?;
    build::say_no_branch(&wanted, &source, output);
    let session = Session::open(cli, settings, output).await?;
    let (next, history) = ask(&wanted, &source, &session).await?;
    let (component, commit) = (&source.project.component, &source.commit);
    if output.is_json() {
        output.json(&Report { component, commit, next: &next });
        return Ok(Exit::Done);
    }
    match &next {
        Next::Had(given) => {
            let Given { version, number, published, reason, .. } = &**given;
            output.data(&version.to_string());
            let state = match (published, reason) {
                (true, _) => "published".to_owned(),
                (false, None) => "reserved".to_owned(),
                (false, Some(reason)) => format!("whose last attempt failed: {reason}"),
            };
            output.say(format!("{} has it already: build {number}, {state}", commit.short()));
            if args.explain {
                explain_given(given, commit, &history, output);
            }
            if reason.is_some() {
                output.next("semel build, which tries again under the same version");
            }
        }
        Next::New(forecast) => {
            output.data(&forecast.version.to_string());
            forecast.notes.iter().for_each(|note| output.warn(note));
            if args.explain {
                explain(forecast, commit, &history, output);
            }
        }
        Next::HistoryNeeded { .. } => return Err(Failure::fault("the version has no outcome")),
    }
    Ok(Exit::Done)
}

async fn ask(wanted: &Wanted, source: &Source, session: &Session) -> Result<(Next, History), Failure> {
    let mut history = tell(source, None).await?;
    loop {
        let question = NextVersion(request(wanted, source, history.clone(), session));
        match session.client.call(&question).await? {
            Next::HistoryNeeded { .. } => history = tell(source, Some(&history)).await?,
            next => return Ok((next, history)),
        }
    }
}

/// Asks for the version of a source, as a build does.
pub(super) fn request(wanted: &Wanted, source: &Source, history: History, session: &Session) -> Reserve {
    Reserve {
        inputs: source.inputs.clone(),
        commit: source.commit.clone(),
        tree: source.git_tree.clone(),
        line: source.line.clone(),
        history,
        head: source.head.clone(),
        scheme: source.project.version.scheme,
        bump: wanted.bump,
        holder: queue::holder(session),
        process: process::own(),
        again: wanted.again.clone(),
        platforms: source.project.definition.artefact.platforms.clone(),
        platform: None,
        waited_for: None,
        gone: None,
        number: None,
    }
}

/// The history of a commit: at first its newest part; when that was told and is not enough, everything that there is. A
/// shallow clone is completed for that.
pub(super) async fn tell(source: &Source, before: Option<&History>) -> Result<History, Failure> {
    if before.is_some_and(|before| before.tips) {
        let message = format!(
            "no version for {}: what this clone has of its history does not lead to the version before",
            source.commit.short()
        );
        return Err(
            Failure::usage(message).hint("tag the commit of the newest release: git tag v1.4.2 COMMIT")
        );
    }
    let depth = if before.is_none() { Depth::Near } else { Depth::Whole };
    let mut source = source.clone();
    let read = tokio::task::spawn_blocking(move || {
        if depth == Depth::Whole {
            source::deepen(&mut source)?;
        }
        source::history(&source, depth)
    });
    let read = read.await.map_err(|error| Failure::fault(error.to_string()))?;
    read.map_err(|error| build::source_failure(&error))
}

fn explain(forecast: &Forecast, commit: &CommitId, history: &History, output: Output) {
    let Forecast { version, number, scheme, line, bump, since, .. } = forecast;
    let mut rows = vec![
        row("next", format!("{version} (build {number})")),
        row("line", format!("{}, scheme {scheme}", line.name())),
        row("follows", base(&forecast.base)),
        match history.tags.get(commit) {
            Some(tagged) if tagged == version => row("tag", "the commit's own says so"),
            _ => row("step", step(*bump, since)),
        },
    ];
    if let Some(above) = &forecast.late_before {
        rows.push(row("late", format!("a descendant was built before as {above}")));
    }
    rows.extend(brought(since, history));
    show(rows, output);
}

fn explain_given(given: &Given, commit: &CommitId, history: &History, output: Output) {
    let Given { version, number, given_to, line, follows, bump, since, .. } = given;
    let mut rows = vec![row("given", format!("{version} (build {number})")), row("line", line.name())];
    if given_to != commit {
        rows.push(row("to", format!("{}, which has the same source tree", given_to.short())));
    }
    let before = follows.as_ref().map_or_else(|| "no version before it".to_owned(), ToString::to_string);
    rows.push(row("follows", before));
    rows.push(row("step", step(*bump, since)));
    rows.extend(brought(since, history));
    show(rows, output);
}

fn row(name: &str, text: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), text.into()]
}

fn step(bump: Bump, since: &[CommitId]) -> String {
    let asks = match since.len() {
        0 => "no commit since then; each build gets a version".to_owned(),
        1 => "1 commit since then".to_owned(),
        many => format!("{many} commits since then"),
    };
    format!("{bump}: {asks}")
}

/// A line for each of the commits that a version brings, up to a number of them.
fn brought(since: &[CommitId], history: &History) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = since
        .iter()
        .take(EXPLAINED)
        .map(|id| {
            let fact = history.commits.iter().find(|fact| fact.id == *id);
            row(id.short(), fact.map_or_else(|| "(told before)".to_owned(), asked))
        })
        .collect();
    if let Some(more) = since.len().checked_sub(EXPLAINED).filter(|more| *more > 0) {
        rows.push(row("…", format!("and {more} more")));
    }
    rows
}

fn show(rows: Vec<Vec<String>>, output: Output) {
    let text = table(&["", ""], rows);
    output.data(text.trim_start_matches('\n').trim_start());
}

/// How many commits are listed.
const EXPLAINED: usize = 30;

fn asked(fact: &CommitFact) -> String {
    format!("{}  {}", fact.bump, fact.subject)
}

fn base(base: &Base) -> String {
    match base {
        Base::Given { version, commit } => format!("{version}, which {} has", commit.short()),
        Base::Tag { version, commit } => format!("{version}, by the tag of {}", commit.short()),
        Base::Manifest { version } => format!("{version}, which the project's manifest states"),
        Base::Nothing => "0.0.0: there is no version, no tag and no manifest that states one".to_owned(),
    }
}

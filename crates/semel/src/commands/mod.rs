//! One file per verb: what it asks, and what is said about the answer.

mod demo;
mod init;
mod build;
mod versions;
mod inspect;
mod verify;
mod attest;
mod promote;
mod resolve;
mod converge;
mod deploy;
mod rollback;
mod status;
mod why;
mod locate;
mod history;
mod diff;
mod logs;
mod stop;
mod hold;
mod reject;
mod pipeline;
mod config;
mod push;
mod pull;
mod take;
mod publish;
mod serve;
mod audit;
mod backup;
mod recover;
mod supervise;
mod sample;
mod shell;

use semel_model::name::ComponentName;
use semel_model::version::ArtefactWord;

use crate::cli::{Cli, Verb};
use crate::output::Output;
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;

/// How a verb ends.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Does what was asked.
pub(crate) async fn run(cli: Cli, settings: Settings, output: Output) -> Outcome {
    let settings = match &cli.directory {
        Some(dir) => settings.in_directory(dir),
        None => settings,
    };
    tokio::select! {
        done = dispatch(&cli, settings, output) => done,
        _ = interrupted() => Err(Failure::new(Exit::Interrupted, "broken off")),
    }
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process by itself.
        std::future::pending::<()>().await;
    }
    // Verbs that hold something give it back on their own; this is for those that do not.
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
}

async fn dispatch(cli: &Cli, settings: Settings, output: Output) -> Outcome {
    match &cli.verb {
        Verb::Demo(args) => demo::run(args, &settings, output),
        Verb::Init(args) => init::run(args, &settings, output),
        Verb::Pull(args) => pull::run(args, cli, settings, output).await,
        Verb::Serve(args) => serve::run(args, cli, &settings, output).await,
        Verb::Backup(args) => backup::backup(args, cli, &settings, output).await,
        Verb::Restore(args) => backup::restore(args, cli, &settings, output).await,
        Verb::Recover => recover::run(cli, &settings, output).await,
        Verb::Supervise(args) => supervise::run(args).await,
        Verb::Sample(verb) => sample::run(verb, &settings, output).await,
        Verb::Completions(args) => Ok(shell::completions(args)),
        Verb::Man(args) => shell::man(args, output),
        Verb::Build(args) => build::run(args, cli, settings, output).await,
        _ => with_session(cli, Session::open(cli, settings, output).await?).await,
    }
}

async fn with_session(cli: &Cli, session: Session) -> Outcome {
    match &cli.verb {
        Verb::Versions(args) => versions::run(args, cli, &session).await,
        Verb::Inspect(args) => inspect::run(args, cli, &session).await,
        Verb::Verify(args) => verify::run(args, cli, &session).await,
        Verb::Attest(args) => attest::run(args, cli, &session).await,
        Verb::Promote(args) => promote::run(args, cli, &session).await,
        Verb::Resolve(args) => resolve::run(args, cli, &session).await,
        Verb::Deploy(args) => deploy::run(args, cli, &session).await,
        Verb::Rollback(args) => rollback::run(args, cli, &session).await,
        Verb::Status(args) => status::run(args, cli, &session).await,
        Verb::Why(args) => why::run(args, cli, &session).await,
        Verb::Where(args) => locate::run(args, cli, &session).await,
        Verb::History(args) => history::run(args, cli, &session).await,
        Verb::Diff(args) => diff::run(args, cli, &session).await,
        Verb::Logs(args) => logs::run(args, cli, &session).await,
        Verb::Stop(args) => stop::run(args, cli, &session).await,
        Verb::Hold(args) => hold::hold(args, cli, &session).await,
        Verb::Resume(args) => hold::resume(args, cli, &session).await,
        Verb::Reject(args) => reject::reject(args, cli, &session).await,
        Verb::Accept(args) => reject::accept(args, cli, &session).await,
        Verb::Pipeline(verb) => pipeline::run(verb, cli, &session).await,
        Verb::Config(verb) => config::run(verb, cli, &session).await,
        Verb::Push(args) => push::run(args, cli, &session).await,
        Verb::Publish(args) => publish::run(args, cli, &session).await,
        Verb::Audit(_) => audit::verify(&session).await,
        Verb::Rebuild => audit::rebuild(&session).await,
        _ => Err(Failure::fault("this verb has no session")),
    }
}

/// `[COMPONENT@]VERSION`, with the component of `-c` or of the project where it is not named.
pub(crate) fn artefact(text: &str, cli: &Cli, session: &Session) -> Result<(ComponentName, String), Failure> {
    let word: ArtefactWord = text.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    let component = match word.component {
        Some(component) => component,
        None => component(cli, session)?,
    };
    Ok((component, word.version.to_string()))
}

/// The component of `-c` or of the project.
pub(crate) fn component(cli: &Cli, session: &Session) -> Result<ComponentName, Failure> {
    project::component(cli.component.as_ref(), session.settings.directory())
}

/// `[[COMPONENT@]VERSION] ENV`.
pub(crate) struct Target {
    pub(crate) component: ComponentName,
    pub(crate) version: Option<String>,
    pub(crate) environment: semel_model::name::EnvironmentName,
}

/// Reads the words of a verb that takes an optional version and an environment.
pub(crate) fn target(words: &[String], cli: &Cli, session: &Session) -> Result<Target, Failure> {
    let (version, environment) = match words {
        [environment] => (None, environment),
        [version, environment] => (Some(version), environment),
        _ => return Err(Failure::usage("expected [[COMPONENT@]VERSION] ENV")),
    };
    let environment = environment.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    match version {
        Some(text) => {
            let (component, version) = artefact(text, cli, session)?;
            Ok(Target { component, version: Some(version), environment })
        }
        None => Ok(Target { component: component(cli, session)?, version: None, environment }),
    }
}

/// A digest on the command line.
pub(crate) fn digest(text: Option<&String>) -> Result<Option<semel_model::digest::Digest>, Failure> {
    text.map(|text| text.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))).transpose()
}

/// A commit on the command line.
pub(crate) fn commit(text: Option<&String>) -> Result<Option<semel_model::name::CommitId>, Failure> {
    text.map(|text| text.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))).transpose()
}

/// An environment's name means another version tomorrow: without a person at the terminal, a verb that changes something
/// takes one only together with the digest that is meant.
pub(crate) fn refuse_moving_word(
    word: &str,
    artefact: &semel_engine::artefact::Artefact,
    expect: Option<&String>,
) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let moving = matches!(word.parse(), Ok(semel_model::version::VersionWord::Environment { .. }))
        && artefact.version.as_ref().is_none_or(|version| version.to_string() != word);
    if !moving || expect.is_some() || std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage(format!("`{word}` is what an environment runs, which can change while nobody looks"))
        .because([format!("now it is {} ({})", artefact.name(), artefact.digest)])
        .hint(format!("say which one you mean: --expect {}", artefact.digest)))
}

//! One file per verb: what it asks, and what is said about the answer.

mod demo;
mod init;
mod doctor;
mod build;
mod queue;
mod told;
mod check;
mod build_log;
mod version;
mod lint;
mod live_log;
mod surroundings;
mod lock;
mod import;
mod versions;
mod channels;
mod inspect;
mod evidence;
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
mod deprecate;
mod pipeline;
mod config;
mod push;
mod pull;
mod take;
mod source;
mod publish;
mod finalise;
mod draft;
mod component;
mod move_home;
mod serve;
mod audit;
mod collect;
mod scrub;
mod backup;
mod recover;
mod supervise;
pub(crate) mod sandbox;
mod sample;
mod shell;

use semel_engine::artefact::Artefact;
use semel_model::name::ComponentName;
use semel_model::version::ArtefactWord;
use semel_server::api::calls::Inspect;

use crate::cli::{Cli, Verb};
use crate::output::Output;
use crate::process;
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
    if cli.directory.is_some() && !settings.directory().is_dir() {
        return Err(Failure::usage(format!("{} is no directory", settings.directory().display()))
            .hint("name the project's: -C DIR"));
    }
    tokio::select! {
        done = dispatch(&cli, settings, output) => done,
        () = interrupted(&cli.verb) => Err(Failure::new(Exit::Interrupted, "broken off")),
    }
}

/// How long a verb has to give back what it holds.
const GRACE: std::time::Duration = std::time::Duration::from_secs(20);

/// Waits until a verb has to end because somebody wants that: at once, unless it has something to give back by itself.
async fn interrupted(verb: &Verb) {
    match verb {
        Verb::Build(build) if build.verb.is_none() => stopped().await,
        Verb::Import(_) | Verb::Deploy(_) => stopped().await,
        Verb::Demo(_) | Verb::Rollback(_) | Verb::Logs(_) | Verb::Serve(_) | Verb::Supervise(_) => {
            keyboard().await;
        }
        _ => return keyboard().await,
    }
    tokio::time::sleep(GRACE).await;
}

/// Waits for the keyboard. Without a handler the signal ends the process by itself.
async fn keyboard() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until somebody wants this process to end: from the keyboard, from a service manager, or because the terminal is
/// gone, unless `nohup` started it. From the first call on these signals end nothing by themselves.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let hangup = (!process::ignores_hangup()).then(|| signal(SignalKind::hangup())).transpose();
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (interrupt, terminate, hangup) else {
        return std::future::pending().await;
    };
    let terminal_gone = async {
        match &mut hangup {
            Some(hangup) => drop(hangup.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = terminal_gone => {}
    }
}

async fn dispatch(cli: &Cli, settings: Settings, output: Output) -> Outcome {
    match &cli.verb {
        Verb::Demo(args) => demo::run(args, &settings, output),
        Verb::Init(args) => init::run(args, &settings, output),
        Verb::Doctor => doctor::run(cli, &settings, output).await,
        Verb::Pull(args) => pull::run(args, cli, settings, output).await,
        Verb::Serve(args) => serve::run(args, cli, &settings, output).await,
        Verb::Backup(args) => backup::backup(args, cli, &settings, output).await,
        Verb::Restore(args) => backup::restore(args, cli, &settings, output).await,
        Verb::Recover => recover::run(cli, &settings, output).await,
        Verb::Supervise(args) => supervise::run(args).await,
        Verb::Sample(verb) => sample::run(verb, &settings, output).await,
        Verb::Completions(args) => Ok(shell::completions(args, output)),
        Verb::Man(args) => shell::man(args, output),
        Verb::Build(args) => build::run(args, cli, settings, output).await,
        Verb::Version(args) => version::run(args, cli, settings, output).await,
        Verb::Import(args) => import::run(args, cli, settings, output).await,
        Verb::Lock(args) => lock::run(args, cli, settings, output).await,
        Verb::Lint(args) => lint::run(args, cli, settings, output).await,
        _ => with_session(cli, Session::open(cli, settings, output).await?).await,
    }
}

async fn with_session(cli: &Cli, session: Session) -> Outcome {
    match &cli.verb {
        Verb::MoveHome(args) => move_home::run(args, cli, &session).await,
        Verb::Versions(args) => versions::run(args, cli, &session).await,
        Verb::Channels(args) => channels::run(args, cli, &session).await,
        Verb::Inspect(args) => inspect::run(args, cli, &session).await,
        Verb::Sbom(args) => evidence::sbom(args, cli, &session).await,
        Verb::Evidence(args) => evidence::run(args, cli, &session).await,
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
        Verb::Deprecate(args) => deprecate::run(args, cli, &session).await,
        Verb::Component(verb) => component::run(verb, &session).await,
        Verb::Pipeline(verb) => pipeline::run(verb, cli, &session).await,
        Verb::Config(verb) => config::run(verb, cli, &session).await,
        Verb::Push(args) => push::run(args, cli, &session).await,
        Verb::Source(args) => source::run(args, cli, &session).await,
        Verb::Publish(args) => publish::run(args, cli, &session).await,
        Verb::Finalise(args) => finalise::run(args, cli, &session).await,
        Verb::Gc(args) => collect::run(args, &session).await,
        Verb::Scrub(args) => scrub::run(args, &session).await,
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

/// What a command that is shown needs to mean this component when it is pasted: ` -c NAME`, or nothing where the project
/// here is it.
pub(crate) fn naming(component: &ComponentName, session: &Session) -> String {
    match project::find(session.settings.directory()) {
        Ok(Some(found)) if found.project.component == *component => String::new(),
        _ => format!(" -c {component}"),
    }
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
    let environment = environment.parse().map_err(|error| {
        let missing = (words.len() == 1).then(|| format!("an environment is missing: {} ENV", words[0]));
        Failure::from_error(Exit::Usage, &error).hints(missing)
    })?;
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

/// Whether a word may mean another artefact tomorrow, by its look: an environment, a channel, a time that counts from now.
pub(crate) fn may_move(word: &str) -> bool {
    use semel_model::version::{TimeWord, VersionWord};
    match word.parse() {
        Ok(VersionWord::Digest(_) | VersionWord::Commit(_)) => false,
        Ok(VersionWord::At { time, .. }) => matches!(time, TimeWord::Ago(_)),
        Ok(VersionWord::Version(version)) => version.as_semver().is_none(),
        Ok(VersionWord::Number(_) | VersionWord::Environment { .. }) => true,
        Err(_) => false,
    }
}

/// Whether it does: a name that the artefact itself has is no channel and no environment.
fn moves(word: &str, artefact: &Artefact) -> bool {
    let is_version = artefact.version.as_ref().is_some_and(|version| version.to_string() == word);
    let is_number = artefact.number.is_some_and(|number| number.to_string() == word);
    may_move(word) && !is_version && !is_number
}

/// The name of an environment or a channel means another artefact tomorrow: without a person at the terminal, a verb that
/// changes something takes one only together with the digest that is meant.
pub(crate) fn refuse_moving_word(
    word: &str,
    artefact: &Artefact,
    expect: Option<&String>,
) -> Result<(), Failure> {
    if expect.is_some() {
        return Ok(());
    }
    refuse_moved(word, artefact, format!("say which one you mean: --expect {}", artefact.digest))
}

/// The same, for a verb that takes no `--expect`.
pub(crate) async fn require_fixed_word(
    component: &ComponentName,
    word: &str,
    session: &Session,
) -> Result<(), Failure> {
    if !may_move(word) {
        return Ok(());
    }
    let ask = Inspect { component: component.clone(), version: word.to_owned() };
    let artefact = session.client.call(&ask).await?.artefact;
    refuse_moved(word, &artefact, format!("name it instead: {}@{}", artefact.component, artefact.digest))
}

fn refuse_moved(word: &str, artefact: &Artefact, hint: String) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if !moves(word, artefact) || std::io::stdin().is_terminal() {
        return Ok(());
    }
    let what = format!("`{word}` is an environment or a channel, which can change while nobody looks");
    Err(Failure::usage(what)
        .because([format!("now it is {} ({})", artefact.name(), artefact.digest)])
        .hint(hint))
}

/// What is to be fetched must have its bytes; that it should not be used is said.
pub(crate) fn require_bytes(artefact: &Artefact, output: Output) -> Result<(), Failure> {
    if let Some((what, hint)) = artefact.gone() {
        return Err(Failure::new(Exit::NotFound, what).hint(hint));
    }
    if let Some(reason) = &artefact.deprecated {
        output.warn(format!("{} is deprecated: {reason}", artefact.name()));
    }
    Ok(())
}

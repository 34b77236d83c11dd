//! `semel build`: a commit becomes an artefact, once.
//!
//! ```text
//! resolve the commit → look the key up → reserve → build → upload by digest → commit the version
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use semel_build::base::BaseSources;
use semel_build::closure::{self, Severity};
use semel_build::package::Platform;
use semel_build::pipeline::{self, Blame, BuildError, BuildRequest, Built, Progress, Step};
use semel_build::provenance::{self, BuilderInfo, Range};
use semel_build::sandbox::HostEnvironment;
use semel_build::source::{self, Resolve, Source};
use semel_engine::reserve::{self, Granted, Holding, Reservation};
use semel_model::build::Bump;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::client::FileSource;
use semel_oci::copy::{Endpoint, copy};
use semel_oci::layout::Layout;
use semel_server::api::calls::{Heartbeat, Release};
use serde::Serialize;
use tokio::task::AbortHandle;

use super::live_log::{Following, LiveLog};
use super::surroundings::{self, Asked, Surroundings};
use super::{Outcome, build_log, version};
use crate::cli::{BuildArgs, BuildVerb, Cli};
use crate::credentials;
use crate::output::{self, Output};
use crate::progress;
use crate::report::{Exit, Failure};
use crate::session::{self, Session, now};
use crate::settings::Settings;
use crate::workdir::WorkDir;

/// How often the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What a build came to, for `--json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) component: ComponentName,
    pub(super) version: semel_model::version::Version,
    pub(super) number: u64,
    pub(super) digest: Digest,
    pub(super) commit: semel_model::name::CommitId,
    pub(super) reused: bool,
}

impl Report {
    pub(super) fn of(component: ComponentName, built: reserve::Built, reused: bool) -> Self {
        Self {
            component,
            version: built.version,
            number: built.number,
            digest: built.digest,
            commit: built.commit,
            reused,
        }
    }
}

pub(super) async fn run(args: &BuildArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    if let Some(BuildVerb::Log(log)) = &args.verb {
        return build_log::run(log, cli, &Session::open(cli, settings, output).await?).await;
    }
    let wanted = Wanted {
        revision: args.revision.clone(),
        branch: args.branch.clone(),
        bump: args.bump.map(Into::into),
        no_wait: args.no_wait,
        asked: Asked { secrets: args.secrets.clone(), sandbox: args.sandbox, no_cache: args.no_cache },
        within: false,
    };
    let source = resolve(&wanted, &settings).await?;
    refuse_lost_store(cli, &settings)?;
    let session = Session::open(cli, settings, output).await?;
    let report = build(&wanted, source, &session).await?;
    if output.is_json() {
        output.json(&report);
    } else {
        output.data(&format!("{}@{}", report.component, report.digest));
    }
    Ok(Exit::Done)
}

/// What is to be built.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) revision: Option<String>,
    pub(super) branch: Option<String>,
    pub(super) bump: Option<Bump>,
    pub(super) no_wait: bool,
    /// What its commands run in.
    pub(super) asked: Asked,
    /// Whether another verb builds, which says itself what comes next.
    pub(super) within: bool,
}

/// A store that dies with the runner would give the same version to other bytes next time.
pub(super) fn refuse_lost_store(cli: &Cli, settings: &Settings) -> Result<(), Failure> {
    let (_, named) = session::place(cli, settings)?;
    if named || !settings.is_ci() {
        return Ok(());
    }
    Err(Failure::usage(
        "this is a CI runner and no store is named: a store that dies with the runner forgets its versions",
    )
    .because(["the next job would give the same version to other bytes".to_owned()])
    .hint("name one that lasts: SEMEL_SERVER=URL, SEMEL_STORE=DIR, or store = \"…\" in semel.toml"))
}

pub(super) async fn resolve(wanted: &Wanted, settings: &Settings) -> Result<Source, Failure> {
    let (wanted, dir, variables) =
        (wanted.clone(), settings.directory().to_owned(), settings.variables().clone());
    let resolved = tokio::task::spawn_blocking(move || {
        source::resolve(&Resolve {
            start_dir: &dir,
            revision: wanted.revision.as_deref(),
            branch: wanted.branch.as_deref(),
            variables: &variables,
            salt: 0,
        })
    });
    resolved.await.map_err(|error| Failure::fault(error.to_string()))?.map_err(|error| source_failure(&error))
}

pub(super) fn source_failure(error: &source::SourceError) -> Failure {
    let exit = match error {
        source::SourceError::UnknownRevision { .. } => Exit::NotFound,
        _ => Exit::Usage,
    };
    Failure::from_error(exit, error).hints(error.hint())
}

/// Builds a source, or takes what was built from it before.
pub(super) async fn build(wanted: &Wanted, source: Source, session: &Session) -> Result<Report, Failure> {
    let output = session.output;
    let component = source.project.component.clone();
    output.say(format!("{component} at {}", source.commit.short()));
    if source.uncommitted > 0 && wanted.revision.is_none() {
        let files = if source.uncommitted == 1 { "file is" } else { "files are" };
        output.say(format!("  note: {} uncommitted {files} not part of this build", source.uncommitted));
    }
    let lookup = reserve::Lookup { inputs: source.inputs.clone(), commit: source.commit.clone() };
    if let Reservation::Built(built) = session.client.call(&lookup).await? {
        return Ok(reused(wanted, &source, built, session));
    }
    let build = &source.project.definition.build;
    let surroundings = surroundings::find(&wanted.asked, build, session)?;
    surroundings::tell(&surroundings.sandbox, build, output);
    match reservation(wanted, &source, session).await? {
        Reservation::Built(built) => Ok(reused(wanted, &source, built, session)),
        Reservation::Yours(granted) => build_reserved(wanted, &source, granted, surroundings, session).await,
        Reservation::Unknown | Reservation::Running { .. } | Reservation::HistoryNeeded { .. } => {
            Err(Failure::fault("the reservation has no outcome"))
        }
    }
}

fn reused(wanted: &Wanted, source: &Source, built: reserve::Built, session: &Session) -> Report {
    let component = &source.project.component;
    let from = if built.commit == source.commit {
        String::new()
    } else {
        format!(" from {}, which has the same source tree", built.commit.short())
    };
    let when = output::ago(&built.time, now());
    session.output.done(format!(
        "{} (build {}) was already built{from}, {when}: nothing to do",
        built.version, built.number
    ));
    if !wanted.within {
        session.output.next(format!("semel deploy {} ENV", built.version));
    }
    Report::of(component.clone(), built, true)
}

/// Asks for the right to build, and waits while somebody else has it.
async fn reservation(wanted: &Wanted, source: &Source, session: &Session) -> Result<Reservation, Failure> {
    let history = version::tell(source, None).await?;
    let mut request = version::request(wanted, source, history, session);
    let mut following: Option<Following> = None;
    loop {
        match session.client.call(&request).await? {
            Reservation::HistoryNeeded { .. } => {
                request.history = version::tell(source, Some(&request.history)).await?;
            }
            Reservation::Running { holder, number, version, retry_millis } => {
                if wanted.no_wait {
                    return Err(Failure::new(
                        Exit::TryAgain,
                        format!("{version} (build {number}) is being built by {holder}"),
                    ));
                }
                let component = &source.project.component;
                let following = following.get_or_insert_with(|| {
                    session
                        .output
                        .say(format!("  {version} (build {number}) is being built by {holder}: waiting"));
                    Following::new(component.clone(), number)
                });
                following.step_while_waiting(session).await;
                tokio::time::sleep(Duration::from_millis(retry_millis)).await;
            }
            other => {
                if let (Reservation::Built(_), Some(following)) = (&other, &following) {
                    following.finish_waiting(session).await;
                }
                return Ok(other);
            }
        }
    }
}

/// Who this is, for people who wait.
pub(super) fn holder(session: &Session) -> String {
    format!("{} (process {})", session.settings.user(), std::process::id())
}

async fn build_reserved(
    wanted: &Wanted,
    source: &Source,
    granted: Granted,
    surroundings: Surroundings,
    session: &Session,
) -> Result<Report, Failure> {
    let component = source.project.component.clone();
    let follows = granted.follows.as_ref().map(|version| format!(" after {version}")).unwrap_or_default();
    let step =
        if granted.attempt > 1 { format!("attempt {}", granted.attempt) } else { granted.bump.to_string() };
    session.output.done(format!("reserved {} (build {}): {step}{follows}", granted.version, granted.number));
    if let Some(above) = &granted.late_before {
        session
            .output
            .say(format!("  note: {above} was built before, from a commit behind which this one lies"));
    }
    granted.notes.iter().for_each(|note| session.output.say(format!("  note: {note}")));
    let holding =
        Holding { component: component.clone(), number: granted.number, token: granted.token.clone() };
    let lease = Lease::keep(session, holding.clone());
    let worked = tokio::select! {
        worked = work(source, &granted, surroundings, &holding, session) => worked,
        _ = tokio::signal::ctrl_c() => {
            drop(lease);
            drop(session.client.call(&Release { holding }).await);
            let message = format!("broken off; {} stays reserved for the next try", granted.version);
            return Err(Failure::new(Exit::Interrupted, message));
        }
    };
    // A renewal that came after the lease was given up would bring it back.
    drop(lease);
    let (finished, bytes) = match worked {
        Ok(finished) => finished,
        Err(failed) => return Err(record_failure(failed, &holding, session).await),
    };
    session.output.done(format!(
        "published {component} {} (build {}), {}",
        finished.version,
        finished.number,
        output::bytes(bytes)
    ));
    if !wanted.within {
        let version = &finished.version;
        session.output.next(format!("semel deploy {version} ENV   or   semel inspect {version}"));
    }
    Ok(Report::of(component, finished, false))
}

async fn run_build(
    source: &Source,
    granted: &Granted,
    surroundings: Surroundings,
    work: &std::path::Path,
    session: &Session,
) -> Result<Built, BuildError> {
    let program = session.settings.program().to_owned();
    let digest = provenance::digest_of_file(&program)
        .map_err(|source| BuildError::Work { dir: program.clone(), source })?;
    let request = BuildRequest {
        source: source.clone(),
        work: work.to_owned(),
        host: HostEnvironment::of(session.settings.variables()),
        sandbox: surroundings.sandbox,
        secrets: surroundings.secrets,
        caches: surroundings.caches,
        semel: program,
        platform: Platform::host(),
        bases: base_sources(&session.settings, Some(session)),
        builder: BuilderInfo {
            id: "https://semel.dev/builder/local/v1".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program: digest,
        },
        range: Some(Range { follows: granted.follows.clone(), commits: granted.since.clone() }),
        started: now(),
    };
    let told = Arc::new(Told {
        output: session.output,
        bar: progress::spinner(&session.output, "check out".to_owned()),
    });
    let built = pipeline::run(request, Arc::clone(&told) as Arc<dyn Progress>).await;
    told.bar.finish_and_clear();
    if let Ok(built) = &built {
        say_closure(&built.closure, session.output);
    }
    built
}

/// How many warnings are said; all are in the report.
const WARNINGS_SAID: usize = 5;

fn say_closure(closure: &closure::Report, output: Output) {
    let warnings = closure.findings.iter().filter(|finding| finding.severity == Severity::Warning);
    for warning in warnings.take(WARNINGS_SAID) {
        output.warn(warning.to_string());
    }
    let summary = closure.summary();
    output.done(if summary.is_empty() {
        "closure complete".to_owned()
    } else {
        format!("closure complete: {summary}")
    });
}

/// Where bases are fetched from, and kept.
pub(super) fn base_sources(settings: &Settings, session: Option<&Session>) -> BaseSources {
    BaseSources {
        cache: settings.bases(),
        store: session.map(|session| session.client.registry()),
        logins: credentials::logins(settings),
    }
}

/// Tells a person how far the build is.
struct Told {
    output: Output,
    bar: indicatif::ProgressBar,
}

impl Progress for Told {
    fn started(&self, step: Step) {
        self.bar.set_message(step.to_string());
    }

    fn finished(&self, step: Step, took: Duration) {
        let line = format!("{step:<10} {:.1} s", took.as_secs_f32());
        self.bar.suspend(|| self.output.done(line));
    }

    fn note(&self, note: &str) {
        self.bar.suspend(|| self.output.warn(note));
    }

    fn line(&self, line: &str) {
        self.bar.set_message(format!("build: {}", line.chars().take(160).collect::<String>()));
    }
}

async fn publish(built: &Built, holding: Holding, session: &Session) -> Result<reserve::Built, Failure> {
    let registry = session.client.registry();
    let layout =
        Layout::open(&built.layout_dir).await.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    let from = Endpoint::Layout(layout);
    let to = Endpoint::Registry { client: registry.clone(), name: holding.component.clone() };
    let transfer = progress::Transfer::new(&session.output, "store");
    for digest in [&built.packaged.manifest].into_iter().chain(&built.attached).chain(&built.snapshot) {
        let copied = copy(&from, &to, digest, None, &transfer.listener()).await;
        copied.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    }
    transfer.finish();
    let log = put_log(&holding.component, &built.log, session).await?;
    let commit = reserve::Commit {
        holding,
        digest: built.packaged.manifest.clone(),
        claims: built.claims.clone(),
        log,
    };
    Ok(session.client.call(&commit).await?)
}

async fn put_log(
    component: &ComponentName,
    path: &std::path::Path,
    session: &Session,
) -> Result<Option<Digest>, Failure> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(None) };
    let digest =
        provenance::digest_of_file(path).map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    let stored = session
        .client
        .registry()
        .put_blob(component, &digest, metadata.len(), &FileSource(path.to_owned()))
        .await;
    stored.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    Ok(Some(digest))
}

/// A build that came to nothing, with what it printed as far as that is stored.
struct Failed {
    failure: Failure,
    log: Option<Digest>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, log: None }
    }
}

/// Builds, stores and publishes; says how many bytes the artefact has.
async fn work(
    source: &Source,
    granted: &Granted,
    surroundings: Surroundings,
    holding: &Holding,
    session: &Session,
) -> Result<(reserve::Built, u64), Failed> {
    let base = session.settings.work();
    let dir = WorkDir::new(&base, now().into()).map_err(|error| {
        Failure::fault(format!("cannot make a directory to build in below {}: {error}", base.display()))
            .hint("name another one: XDG_CACHE_HOME=DIR")
    })?;
    let live = LiveLog::keep(session, holding.clone(), pipeline::log_in(&dir.path()));
    let built = run_build(source, granted, surroundings, &dir.path(), session).await;
    // The whole log is stored from here on.
    drop(live);
    match built {
        Ok(built) => Ok((publish(&built, holding.clone(), session).await?, built.packaged.bytes)),
        Err(error) => {
            let log =
                put_log(&holding.component, &pipeline::log_in(&dir.path()), session).await.unwrap_or(None);
            Err(Failed { failure: build_failure(&error, session), log })
        }
    }
}

fn build_failure(error: &BuildError, session: &Session) -> Failure {
    let exit = match error.blame() {
        Blame::Caller => Exit::Usage,
        Blame::NotFound => Exit::NotFound,
        Blame::Command => Exit::Command,
        Blame::Stopped => Exit::Interrupted,
        Blame::Artefact => Exit::Verification,
        Blame::Fault => Exit::Fault,
    };
    for line in error.tail() {
        session.output.say(format!("  | {line}"));
    }
    let problems = error.problems();
    let fixes: BTreeSet<String> = problems.iter().map(|(_, fix)| (*fix).to_owned()).collect();
    let failure = Failure::from_error(exit, error)
        .because(problems.into_iter().map(|(problem, _)| problem))
        .hints(error.hint())
        .hints(fixes);
    match error {
        BuildError::Incomplete(report) => failure.answer(report),
        _ => failure,
    }
}

/// Records that the build came to nothing and gives its lease up, so that the next try need not wait.
async fn record_failure(failed: Failed, holding: &Holding, session: &Session) -> Failure {
    let Failed { mut failure, log } = failed;
    let logged = log.is_some();
    let fail = reserve::Fail { holding: holding.clone(), reason: failure.message.clone(), log };
    let recorded = session.client.call(&fail).await;
    if recorded.is_ok() && logged {
        failure.hints.push(format!("semel build log {} -c {}", holding.number, holding.component));
    }
    failure
}

/// Renews the lease until it is dropped.
pub(super) struct Lease(AbortHandle);

impl Lease {
    pub(super) fn keep(session: &Session, holding: Holding) -> Self {
        let client = session.client.clone();
        let renew = async move {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                // A lost renewal is tried again in time; a lost lease is found out at the commit.
                drop(client.call(&Heartbeat { holding: holding.clone() }).await);
            }
        };
        Self(tokio::spawn(renew).abort_handle())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}

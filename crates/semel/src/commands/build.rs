//! `semel build`: a commit becomes an artefact, once.
//!
//! ```text
//! resolve the commit → look the key up → reserve → build → upload by digest → commit the version
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use semel_build::base::BaseSources;
use semel_build::pipeline::{self, Blame, BuildError, BuildRequest, Built, Progress};
use semel_build::provenance::{self, BuilderInfo, Range};
use semel_build::recipe::Varied;
use semel_build::sandbox::HostEnvironment;
use semel_build::source::{self, Resolve, Source, SourceError};
use semel_engine::reserve::{
    self, BuiltPart, Committed, Comparison, Finished, Granted, Holding, Lost, Reservation,
};
use semel_model::build::Bump;
use semel_model::digest::Digest;
use semel_model::name::{CommitId, ComponentName};
use semel_model::platform::Platform;
use semel_model::reservation::{LOCAL_BUILDER, is_branch};
use semel_model::version::Version;
use semel_oci::client::FileSource;
use semel_oci::copy::{Endpoint, copy};
use semel_oci::layout::Layout;
use semel_server::api::ErrorClass;
use serde::Serialize;

use super::live_log::LiveLog;
use super::queue::{Lease, Queue, failed_for_another, give_back, holding, log_of};
use super::surroundings::{self, Asked, Surroundings};
use super::told::{Told, say_closure};
use super::{Outcome, build_log, check};
use crate::cli::{BuildArgs, BuildVerb, Cli, Parts};
use crate::credentials;
use crate::output::{self, Output};
use crate::progress;
use crate::report::{Exit, Failure};
use crate::session::{self, Session, now};
use crate::settings::Settings;
use crate::workdir::WorkDir;

/// What a build came to, for `--json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) component: ComponentName,
    pub(super) version: Version,
    pub(super) number: u64,
    pub(super) digest: Digest,
    pub(super) commit: CommitId,
    pub(super) reused: bool,
    /// The platform of a part whose artefact is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    /// The platforms whose parts are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<Platform>,
    /// Whether a result that came too late was the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reproduced: Option<bool>,
}

impl Report {
    pub(super) fn whole(component: &ComponentName, built: reserve::Built) -> Self {
        let reserve::Built { number, version, digest, commit, .. } = built;
        let (component, reused) = (component.clone(), false);
        let (platform, missing, reproduced) = (None, Vec::new(), None);
        Self { component, version, number, digest, commit, reused, platform, missing, reproduced }
    }

    fn part(component: &ComponentName, part: BuiltPart) -> Self {
        let BuiltPart { number, version, platform, digest, commit, missing } = part;
        let (component, reused, platform, reproduced) = (component.clone(), false, Some(platform), None);
        Self { component, version, number, digest, commit, reused, platform, missing, reproduced }
    }
}

pub(super) async fn run(args: &BuildArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    if let Some(BuildVerb::Log(log)) = &args.verb {
        return build_log::run(log, cli, &Session::open(cli, settings, output).await?).await;
    }
    if let Some(how) = args.check {
        return check::run(how, args, cli, &Session::open(cli, settings, output).await?).await;
    }
    let wanted = Wanted {
        revision: args.revision.clone(),
        branch: args.branch.clone(),
        bump: args.bump.map(Into::into),
        platform: args.platform.clone(),
        again: args.reason.clone(),
        no_wait: args.no_wait,
        asked: Asked { secrets: args.secrets.clone(), sandbox: args.sandbox, no_cache: args.no_cache },
        retry: args.retry,
        within: false,
    };
    let source = resolve(&wanted, &settings).await?;
    require_component(cli, &source)?;
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
    /// Which of the artefact's parts; none: the one of this machine.
    pub(super) platform: Option<Parts>,
    /// Why the same source is to be built once more.
    pub(super) again: Option<String>,
    pub(super) no_wait: bool,
    /// What its commands run in.
    pub(super) asked: Asked,
    /// Whether to try at once what somebody else has just failed to build.
    pub(super) retry: bool,
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

/// What is built is the project here; `-c` can only say the same.
pub(super) fn require_component(cli: &Cli, source: &Source) -> Result<(), Failure> {
    match &cli.component {
        Some(wanted) if *wanted != source.project.component => Err(another_project(source, wanted)),
        _ => Ok(()),
    }
}

pub(super) fn another_project(source: &Source, wanted: &ComponentName) -> Failure {
    Failure::usage(format!("this project is {}, and {wanted} is another", source.project.component))
        .hint("run it in the project's directory, or name one: -C DIR")
}

pub(super) async fn resolve(wanted: &Wanted, settings: &Settings) -> Result<Source, Failure> {
    read_source(wanted, settings).await?.map_err(|error| source_failure(&error))
}

/// The same, for who goes on where there is no source.
pub(super) async fn read_source(
    wanted: &Wanted,
    settings: &Settings,
) -> Result<Result<Source, SourceError>, Failure> {
    let (wanted, dir, variables) =
        (wanted.clone(), settings.directory().to_owned(), settings.variables().clone());
    let resolved = tokio::task::spawn_blocking(move || {
        source::resolve(&Resolve {
            start_dir: &dir,
            revision: wanted.revision.as_deref(),
            branch: wanted.branch.as_deref(),
            variables: &variables,
        })
    });
    resolved.await.map_err(|error| Failure::fault(error.to_string()))
}

pub(super) fn source_failure(error: &SourceError) -> Failure {
    let exit = match error {
        SourceError::UnknownRevision { .. } => Exit::NotFound,
        _ => Exit::Usage,
    };
    Failure::from_error(exit, error).hints(error.hint())
}

/// Builds a source, or takes what was built from it before. An artefact with parts is complete when nothing is missing.
pub(super) async fn build(wanted: &Wanted, source: Source, session: &Session) -> Result<Report, Failure> {
    let output = session.output;
    output.say(format!("{} at {}", source.project.component, source.commit.short()));
    if wanted.revision.is_none() {
        say_uncommitted(&source.uncommitted, output);
    }
    say_no_branch(wanted, &source, output);
    let (first, others) = platforms(wanted, &source)?;
    let mut report = build_one(wanted, &source, first, session).await?;
    for platform in others {
        if report.missing.is_empty() {
            break;
        }
        report = build_one(wanted, &source, Some(platform), session).await?;
    }
    Ok(report)
}

/// Says which files of the working tree are left out: the first few are named.
fn say_uncommitted(files: &[String], output: Output) {
    const NAMED: usize = 5;
    if files.is_empty() {
        return;
    }
    let (count, are) = (files.len(), if files.len() == 1 { "file is" } else { "files are" });
    let named = files[..count.min(NAMED)].join(", ");
    let rest = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    output.say(format!("  note: {count} uncommitted {are} not part of this build: {named}{rest}"));
}

/// Says why the version of a commit will not look final although nobody named a branch.
pub(super) fn say_no_branch(wanted: &Wanted, source: &Source, output: Output) {
    if wanted.branch.is_none() && source.line.name() == source::NO_BRANCH {
        let commit = source.commit.short();
        output.say(format!(
            "  note: git does not tell which branch {commit} is built for; to say it: --branch NAME"
        ));
    }
}

/// The parts that are to be built here, one after the other; no platform: the artefact has none.
fn platforms(wanted: &Wanted, source: &Source) -> Result<(Option<Platform>, Vec<Platform>), Failure> {
    let listed = &source.project.definition.artefact.platforms;
    let Some((first, others)) = listed.split_first() else {
        return match &wanted.platform {
            None => Ok((None, Vec::new())),
            Some(_) => Err(one_platform()),
        };
    };
    let named = match &wanted.platform {
        Some(Parts::All) => return Ok((Some(first.clone()), others.to_vec())),
        Some(Parts::One(platform)) => Some(platform),
        None => None,
    };
    let hint = || format!("semel build --platform {first}   or   semel build --platform all");
    let one = one_of(listed, named).map_err(|failure| failure.hint(hint()))?;
    Ok((Some(one), Vec::new()))
}

/// What a platform is named for that has no parts.
pub(super) fn one_platform() -> Failure {
    Failure::usage("this artefact is made for one platform, the one that builds it")
        .hint("in semel.toml: [artefact] platforms = [\"linux/amd64\", \"linux/arm64\"]")
}

/// The one of an artefact's platforms that is named, else that of this machine.
pub(super) fn one_of(listed: &[Platform], named: Option<&Platform>) -> Result<Platform, Failure> {
    let one = named.cloned().unwrap_or_else(Platform::host);
    if listed.contains(&one) {
        return Ok(one);
    }
    let names: Vec<String> = listed.iter().map(ToString::to_string).collect();
    Err(Failure::usage(format!("{one} is none of the platforms of this artefact: {}", names.join(", "))))
}

async fn build_one(
    wanted: &Wanted,
    source: &Source,
    platform: Option<Platform>,
    session: &Session,
) -> Result<Report, Failure> {
    let Source { inputs, commit, line, .. } = source;
    let lookup = reserve::Lookup { inputs: inputs.clone(), commit: commit.clone(), line: line.clone() };
    if wanted.again.is_none()
        && let Reservation::Built(built) = session.client.call(&lookup).await?
    {
        return Ok(reused(wanted, source, built, session));
    }
    let recipe = &source.project.definition.build;
    let surroundings = surroundings::find(&wanted.asked, recipe, session)?;
    surroundings::tell(&surroundings.sandbox, recipe, session.output);
    let queue = Queue::new(wanted, source, platform, session).await?;
    match queue.wait(&queue.request, wanted.retry).await? {
        Reservation::Built(built) => Ok(reused(wanted, source, built, session)),
        Reservation::Part(part) => Ok(reused_part(wanted, source, part, session)),
        Reservation::Yours(granted) => build_reserved(wanted, source, granted, surroundings, &queue).await,
        Reservation::Failed(failed) => Err(failed_for_another(failed, &queue)),
        Reservation::Unknown | Reservation::Running(_) | Reservation::HistoryNeeded { .. } => {
            Err(Failure::fault("the reservation has no outcome"))
        }
    }
}

fn reused(wanted: &Wanted, source: &Source, built: reserve::Built, session: &Session) -> Report {
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
    say_bump(wanted, &built.version, " (another version: --again --reason TEXT)", session);
    if !wanted.within {
        session.output.next(format!("semel deploy {} ENV", built.version));
    }
    Report { reused: true, ..Report::whole(&source.project.component, built) }
}

/// Says that the step that was asked for came too late.
fn say_bump(wanted: &Wanted, given: &Version, way_out: &str, session: &Session) {
    if wanted.bump.is_some() {
        session.output.say(format!("  note: --bump changes nothing any more: {given} is given{way_out}"));
    }
}

fn reused_part(wanted: &Wanted, source: &Source, part: BuiltPart, session: &Session) -> Report {
    let BuiltPart { platform, version, number, .. } = &part;
    session.output.done(format!("{platform} of {version} (build {number}) was already built: nothing to do"));
    say_missing(&part, wanted, session);
    Report { reused: true, ..Report::part(&source.project.component, part) }
}

/// Says what an artefact lacks before it has a version, unless it is built next.
fn say_missing(part: &BuiltPart, wanted: &Wanted, session: &Session) {
    let names: Vec<String> = part.missing.iter().map(ToString::to_string).collect();
    let Some(first) = names.first().filter(|_| wanted.platform != Some(Parts::All)) else { return };
    let come = names.join(", ");
    session.output.say(format!("  {} is published with its last part: {come} to come", part.version));
    // Without the reason, what was built before answers.
    let again = wanted.again.as_ref().map(|reason| format!(" --again --reason {}", in_shell(reason)));
    let again = again.unwrap_or_default();
    session.output.next(format!("where that can be built: semel build --platform {first}{again}"));
}

/// A text as one word of a shell.
fn in_shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn build_reserved(
    wanted: &Wanted,
    source: &Source,
    granted: Granted,
    surroundings: Surroundings,
    queue: &Queue<'_>,
) -> Result<Report, Failure> {
    let session = queue.session;
    let component = source.project.component.clone();
    let platform = queue.request.platform.clone();
    announce(&granted, platform.as_ref(), session);
    if granted.attempt > 1 {
        say_bump(wanted, &granted.version, "", session);
    }
    let mut source = source.clone();
    source.inputs.salt = granted.salt;
    let holding = holding(&component, platform, &granted);
    let lease = Lease::keep(session, holding.clone());
    let worked = tokio::select! {
        worked = work(&source, &granted, surroundings, &holding, queue) => worked,
        () = super::stopped() => {
            drop(lease);
            return Err(give_back(holding, &granted.version, session).await);
        }
    };
    // A renewal that came after the lease was given up would bring it back.
    drop(lease);
    let Worked { committed, bytes, _dir } = match worked {
        Ok(finished) => finished,
        Err(failed) => return Err(record_failure(failed, &holding, session).await),
    };
    let report = match committed.finished {
        Finished::Built(built) => {
            let report = Report::whole(&component, built);
            if committed.late.is_none() {
                say_published(&report, bytes, session);
            }
            report
        }
        Finished::Part(part) => {
            let BuiltPart { platform, version, number, .. } = &part;
            let size = output::bytes(bytes);
            session
                .output
                .done(format!("stored {platform} of {component} {version} (build {number}), {size}"));
            say_missing(&part, wanted, session);
            Report::part(&component, part)
        }
    };
    let (report, late) = match (committed.late, &granted.lost) {
        (Some(late), Some(lost)) => (restored(report, &late, lost, session)?, None),
        (late, _) => (report, late),
    };
    let named = named_for_line(report, queue).await?;
    if late.is_none() && named.missing.is_empty() && !wanted.within {
        let version = &named.version;
        session.output.next(format!("semel deploy {version} ENV   or   semel inspect {version}"));
    }
    Ok(compared(named, late, session))
}

/// Who took a branch's reservation over for another line has built what has a branch's name: asked for once more, it gets
/// one of that line.
async fn named_for_line(report: Report, queue: &Queue<'_>) -> Result<Report, Failure> {
    if is_branch(&queue.request.line) || !report.missing.is_empty() {
        return Ok(report);
    }
    let request = queue.for_build(report.number);
    match queue.wait(&request, false).await? {
        Reservation::Built(built) if built.version != report.version => {
            let line = queue.request.line.name();
            queue.session.output.done(format!("it is {} on {line}", built.version));
            Ok(Report { version: built.version, ..report })
        }
        _ => Ok(report),
    }
}

fn announce(granted: &Granted, platform: Option<&Platform>, session: &Session) {
    let follows = granted.follows.as_ref().map(|version| format!(" after {version}")).unwrap_or_default();
    let step =
        if granted.attempt > 1 { format!("attempt {}", granted.attempt) } else { granted.bump.to_string() };
    let part = platform.map(|platform| format!(", {platform}")).unwrap_or_default();
    let Granted { version, number, .. } = granted;
    session.output.done(format!("reserved {version} (build {number}{part}): {step}{follows}"));
    if let Some(above) = &granted.late_before {
        session
            .output
            .say(format!("  note: {above} was built before, from a commit behind which this one lies"));
    }
    if let Some(Lost { missing, .. }) = &granted.lost {
        session.output.warn(format!("it was published, and {missing} of it is missing from the store"));
    }
    granted.notes.iter().for_each(|note| session.output.say(format!("  note: {note}")));
}

fn say_published(report: &Report, bytes: u64, session: &Session) {
    let Report { component, version, number, .. } = report;
    let size = output::bytes(bytes);
    session.output.done(format!("published {component} {version} (build {number}), {size}"));
}

/// Says how a result that came too late compares with the one that was committed.
fn compared(report: Report, late: Option<Comparison>, session: &Session) -> Report {
    let Some(Comparison { delivered, reproduced }) = late else { return report };
    let Report { version, number, digest, .. } = &report;
    let committed = format!("{version} (build {number}) was committed meanwhile by somebody else");
    match reproduced {
        Some(true) => session.output.done(format!("{committed}, with the same bytes: recorded as reproduced")),
        Some(false) => session.output.warn(format!(
            "{committed}, with other bytes: it is not deterministic, which is recorded\n  committed {digest}\n  \
             built here {delivered}"
        )),
        None => session.output.done(format!(
            "{committed}, from another commit with the same source tree: what was built here is not needed"
        )),
    }
    Report { reused: true, reproduced, ..report }
}

/// Says whether what was missing of a published artefact is back. Other bytes never take its place.
fn restored(report: Report, late: &Comparison, lost: &Lost, session: &Session) -> Result<Report, Failure> {
    let Report { component, version, number, .. } = &report;
    let Lost { digest, missing } = lost;
    if late.reproduced == Some(true) {
        session.output.done(format!(
            "{component} {version} (build {number}) is whole again: it came out the same, which is recorded"
        ));
        return Ok(Report { reused: true, reproduced: late.reproduced, ..report });
    }
    Err(Failure::new(
        Exit::NotDeterministic,
        format!(
            "{missing} of {component} {version} (build {number}) is still missing: built again it is not the same"
        ),
    )
    .because([format!("published was {digest}"), format!("built here was {}", late.delivered)])
    .hint(format!("push {digest} again, from wherever it still is, such as a backup: that brings it back"))
    .hint("or make a new version of this source: semel build --again --reason \"the bytes were lost\"")
    .answer(&Report { reproduced: late.reproduced, ..report.clone() }))
}

/// What is asked of the pipeline; the platform is that of this machine.
pub(super) fn request(
    source: Source,
    surroundings: Surroundings,
    work: &std::path::Path,
    session: &Session,
) -> Result<BuildRequest, BuildError> {
    let program = session.settings.program().to_owned();
    let digest = provenance::digest_of_file(&program)
        .map_err(|source| BuildError::Work { dir: program.clone(), source })?;
    Ok(BuildRequest {
        source,
        work: work.to_owned(),
        host: HostEnvironment::of(session.settings.variables()),
        sandbox: surroundings.sandbox,
        secrets: surroundings.secrets,
        caches: surroundings.caches,
        semel: program,
        platform: Platform::host(),
        bases: base_sources(&session.settings, Some(session)),
        builder: BuilderInfo {
            id: LOCAL_BUILDER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            program: digest,
        },
        range: None,
        started: now(),
        varied: Varied::default(),
    })
}

async fn run_build(
    source: &Source,
    granted: &Granted,
    platform: Option<Platform>,
    surroundings: Surroundings,
    work: &std::path::Path,
    session: &Session,
) -> Result<Built, BuildError> {
    let request = BuildRequest {
        platform: platform.unwrap_or_else(Platform::host),
        range: Some(Range {
            follows: granted.follows.clone(),
            commits: granted.since.clone(),
            authors: granted.authors.clone(),
        }),
        ..request(source.clone(), surroundings, work, session)?
    };
    let told = Arc::new(Told::new(session.output));
    let built = pipeline::run(request, Arc::clone(&told) as Arc<dyn Progress>).await;
    told.finish();
    if let Ok(built) = &built {
        say_closure(&built.closure, session.output);
        match built.packages {
            0 => {}
            1 => session.output.done("1 package is listed"),
            packages => session.output.done(format!("{packages} packages are listed")),
        }
    }
    built
}

/// Where bases are fetched from, and kept.
pub(super) fn base_sources(settings: &Settings, session: Option<&Session>) -> BaseSources {
    BaseSources {
        cache: settings.bases(),
        store: session.map(|session| session.client.registry()),
        logins: credentials::logins(settings),
    }
}

async fn publish(built: &Built, holding: Holding, queue: &Queue<'_>) -> Result<Committed, Failure> {
    let session = queue.session;
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
    deliver(commit, queue).await
}

/// Commits a result. Whoever was taken over in the meantime queues again: the result is compared with what the other one
/// commits, or takes its place if that comes to nothing.
async fn deliver(mut commit: reserve::Commit, queue: &Queue<'_>) -> Result<Committed, Failure> {
    let session = queue.session;
    loop {
        match session.client.call(&commit).await {
            Err(lost) if lost.class() == ErrorClass::Conflict => session.output.warn(lost.to_string()),
            committed => return Ok(committed?),
        }
        let request = queue.for_build(commit.holding.number);
        if let Reservation::Yours(granted) = queue.wait(&request, true).await? {
            commit.holding.token = granted.token;
        }
    }
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
pub(super) struct Failed {
    failure: Failure,
    log: Option<Digest>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure, log: None }
    }
}

/// A build whose result is committed.
struct Worked {
    committed: Committed,
    /// How many bytes the artefact has.
    bytes: u64,
    /// Removing it takes its time: first it is said what has come of the build.
    _dir: WorkDir,
}

/// Builds, stores and publishes.
async fn work(
    source: &Source,
    granted: &Granted,
    surroundings: Surroundings,
    holding: &Holding,
    queue: &Queue<'_>,
) -> Result<Worked, Failed> {
    let session = queue.session;
    let dir = session.work_dir()?;
    let live = LiveLog::keep(session, holding.clone(), pipeline::log_in(&dir.path()));
    let built =
        run_build(source, granted, holding.platform.clone(), surroundings, &dir.path(), session).await;
    // The whole log is stored from here on.
    drop(live);
    match built {
        Ok(built) => {
            let committed = publish(&built, holding.clone(), queue).await?;
            Ok(Worked { committed, bytes: built.packaged.bytes, _dir: dir })
        }
        Err(error) => {
            let log =
                put_log(&holding.component, &pipeline::log_in(&dir.path()), session).await.unwrap_or(None);
            Err(Failed { failure: build_failure(&error, session), log })
        }
    }
}

pub(super) fn build_failure(error: &BuildError, session: &Session) -> Failure {
    let exit = match error.blame() {
        Blame::Caller => Exit::Usage,
        Blame::NotFound => Exit::NotFound,
        Blame::Command => Exit::Command,
        Blame::Stopped => Exit::Interrupted,
        Blame::Artefact => Exit::Verification,
        Blame::Fault => Exit::Fault,
    };
    for line in error.excerpt() {
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
pub(super) async fn record_failure(failed: Failed, holding: &Holding, session: &Session) -> Failure {
    let Failed { mut failure, log } = failed;
    let logged = log.is_some();
    let fail = reserve::Fail { holding: holding.clone(), reason: failure.message.clone(), log };
    let recorded = session.client.call(&fail).await;
    if recorded.is_ok() && logged {
        failure.hints.push(log_of(holding.number, &holding.component, holding.platform.as_ref()));
    }
    failure
}

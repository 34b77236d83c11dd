//! `semel import`: what something else built from a commit becomes that commit's artefact, once.
//!
//! It gets number and version like a build. Its key is the commit alone: the first artefact that is imported for a commit
//! answers for it from then on, and another one needs a reason.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use semel_build::base::BaseError;
use semel_build::files::{self, FilesRequest};
use semel_build::finished::{self, FinishedError};
use semel_build::provenance::{self, ImportFacts};
use semel_build::source::{self, SourceError};
use semel_engine::artefact::Artefact;
use semel_engine::reserve::{self, Finished, Granted, Holding, Lookup, Reservation, Reserve};
use semel_model::build::{BuildInputs, Bump, CommitFact, History, Line, RELEASE_BRANCHES, ReleaseLine};
use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::name::{CommitId, ComponentName};
use semel_model::platform::Platform;
use semel_model::project::NEWEST_FORMAT;
use semel_model::statement::Claim;
use semel_model::version::Version;
use semel_oci::copy::{Endpoint, Source, copy};
use semel_oci::layout::{Layout, Select};
use semel_server::api::ErrorClass;
use semel_server::api::calls::{Inspect, Release};
use serde_json::json;

use super::build::{Report, Wanted};
use super::{Outcome, build, component, push, queue, version};
use crate::cli::{Cli, ImportArgs};
use crate::output::Output;
use crate::process;
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::{Session, now};
use crate::settings::Settings;

pub(super) async fn run(args: &ImportArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    let place: Place = args.from.parse()?;
    let commit: CommitId = args.commit.parse().map_err(|error| {
        Failure::from_error(Exit::Usage, &error).hint("its whole name: --commit $(git rev-parse HEAD)")
    })?;
    build::refuse_lost_store(cli, &settings)?;
    let session = &Session::open(cli, settings, output).await?;
    let work = session.work_dir()?;
    let prepared = async {
        let origin = Origin::of(&commit, args.branch.as_deref(), cli, session).await?;
        let imported = take(&place, &origin.component, &work.path(), session).await?;
        Ok::<_, Failure>((origin, imported))
    };
    let (origin, imported) = tokio::select! {
        prepared = prepared => prepared?,
        () = super::stopped() => return Err(Failure::new(Exit::Interrupted, "broken off; nothing was reserved")),
    };
    let report = match reserved(args, &origin, &imported.digest, session).await? {
        Reserved::Already(report) => report,
        Reserved::Yours(granted) => {
            let reason = args.reason.as_deref();
            publish(&place, reason, &imported, &origin, granted, session).await?
        }
    };
    if session.output.is_json() {
        session.output.json(&report);
    } else {
        session.output.data(&format!("{}@{}", report.component, report.digest));
    }
    Ok(Exit::Done)
}

/// `FORMAT:PATH`.
struct Place {
    format: Format,
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Oci,
    OciArchive,
    DockerArchive,
    Zip,
    Qcow2,
    Raw,
}

const FORMATS: [(&str, Format); 6] = [
    ("oci", Format::Oci),
    ("oci-archive", Format::OciArchive),
    ("docker-archive", Format::DockerArchive),
    ("zip", Format::Zip),
    ("qcow2", Format::Qcow2),
    ("raw", Format::Raw),
];

impl std::str::FromStr for Place {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let found = text.split_once(':').and_then(|(word, path)| {
            let (_, format) = FORMATS.iter().find(|(known, _)| *known == word)?;
            (!path.is_empty()).then(|| Self { format: *format, path: path.into() })
        });
        found.ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|(word, _)| format!("{word}:PATH")).collect();
            Failure::usage(format!("`{text}` does not say what it is")).hint(known.join(", "))
        })
    }
}

impl Format {
    fn as_str(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("", |(word, _)| word)
    }
}

/// The commit, and what is known about it.
struct Origin {
    component: ComponentName,
    commit: CommitId,
    /// The repository that has it, if this is one.
    source: Option<source::Source>,
    /// How it asks for a version.
    request: Reserve,
}

impl Origin {
    /// What the repository here says about the commit; where none has it, the commit stands alone.
    async fn of(
        commit: &CommitId,
        branch: Option<&str>,
        cli: &Cli,
        session: &Session,
    ) -> Result<Self, Failure> {
        let wanted = Wanted {
            revision: Some(commit.to_string()),
            branch: branch.map(str::to_owned),
            ..Wanted::default()
        };
        let found = match build::read_source(&wanted, &session.settings).await? {
            Ok(found) => found,
            Err(error) if is_elsewhere(&error) => {
                let component = component(cli, session)?;
                let request = alone(&component, commit, branch, session);
                return Ok(Self { component, commit: commit.clone(), source: None, request });
            }
            Err(error) => return Err(build::source_failure(&error)),
        };
        let component = cli.component.clone().unwrap_or_else(|| found.project.component.clone());
        let history = version::tell(&found, None).await?;
        let request = Reserve {
            inputs: inputs(&component, &found.commit),
            // What is imported is whole, for however many platforms it is.
            platforms: Vec::new(),
            ..version::request(&wanted, &found, history, session)
        };
        Ok(Self { component, commit: found.commit.clone(), source: Some(found), request })
    }
}

/// Whether nothing here has the commit as a project's. A shallow clone may be the one that should have it.
fn is_elsewhere(error: &SourceError) -> bool {
    matches!(
        error,
        SourceError::NotARepository { .. }
            | SourceError::NoCommit { .. }
            | SourceError::NoProjectFile { .. }
            | SourceError::UnknownRevision { shallow: false, .. }
    )
}

/// What the key is made of: the commit, and that something was imported for it.
fn inputs(component: &ComponentName, commit: &CommitId) -> BuildInputs {
    BuildInputs {
        v: 1,
        component: component.clone(),
        format: NEWEST_FORMAT,
        source: Digest::of(commit.as_str().as_bytes()),
        definition: canonical::digest(&json!({ "v": 1, "import": true })),
        bases: Vec::new(),
        salt: 0,
    }
}

/// The line of a commit that no repository here has: only who imports it can say that it is not the main one.
fn line_of(branch: Option<&str>) -> Line {
    match branch.unwrap_or("main") {
        name @ ("main" | "master") => Line::Main(name.to_owned()),
        name => match ReleaseLine::of(name, RELEASE_BRANCHES) {
            Some(line) => Line::Release(line),
            None => Line::Branch(name.to_owned()),
        },
    }
}

/// A commit of which nothing is known but its name.
fn alone(component: &ComponentName, commit: &CommitId, branch: Option<&str>, session: &Session) -> Reserve {
    let fact = CommitFact {
        id: commit.clone(),
        parents: Vec::new(),
        author: "unknown".to_owned(),
        subject: "imported".to_owned(),
        bump: Bump::Patch,
        outside: false,
    };
    let history = History {
        commits: vec![fact],
        tags: BTreeMap::new(),
        manifest: None,
        truncated: false,
        shallow: false,
        tips: true,
        releases: Vec::new(),
    };
    Reserve {
        inputs: inputs(component, commit),
        commit: commit.clone(),
        tree: String::new(),
        line: line_of(branch),
        history,
        head: None,
        scheme: None,
        bump: None,
        holder: queue::holder(session),
        process: process::own(),
        again: None,
        platforms: Vec::new(),
        platform: None,
        waited_for: None,
        gone: None,
        number: None,
    }
}

/// What is going to be stored.
struct Imported {
    source: Source,
    digest: Digest,
    attached: Vec<Digest>,
    /// The id that an image had where `docker save` wrote it.
    image_id: Option<Digest>,
    bytes: u64,
}

async fn take(
    place: &Place,
    component: &ComponentName,
    work: &Path,
    session: &Session,
) -> Result<Imported, Failure> {
    let path = session.settings.directory().join(&place.path);
    if !path.exists() {
        return Err(Failure::new(Exit::NotFound, format!("{} is not there", path.display())));
    }
    let layout_dir = work.join("layout");
    match place.format {
        Format::Oci | Format::OciArchive => take_image(place, &path, &layout_dir, session).await,
        Format::DockerArchive => {
            let repacked = finished::repack(&path, &layout_dir, &Platform::host()).await;
            let (image, image_id) = repacked.map_err(|error| finished_failure(&error))?;
            session.output.warn(format!(
                "docker save keeps no digest of an image: it was {image_id} and is {} now",
                image.packaged.manifest
            ));
            session
                .output
                .say("  hint: docker buildx build --output type=oci,dest=image.oci writes one that is kept");
            Ok(Imported { image_id: Some(image_id), ..Imported::of(image, &layout_dir).await? })
        }
        Format::Zip => take_file(files::FileKind::Zip, path, component, work).await,
        Format::Qcow2 if !is_qcow2(&path) => {
            Err(Failure::usage(format!("{} is no qcow2 image", path.display()))
                .hint("raw:FILE, if it is a raw one"))
        }
        // Who starts it as a raw disk would meet the header of qcow2 in its first sector.
        Format::Raw if is_qcow2(&path) => {
            Err(Failure::usage(format!("{} is a qcow2 image", path.display())).hint("qcow2:FILE"))
        }
        Format::Qcow2 | Format::Raw => take_file(files::FileKind::Vm, path, component, work).await,
    }
}

/// QEMU, docs/interop/qcow2.rst, "Header": the magic. A file that cannot be read is told of when it is.
fn is_qcow2(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"QFI\xfb"
}

/// An image keeps its bytes. An index for several platforms is taken whole.
async fn take_image(
    place: &Place,
    path: &Path,
    layout_dir: &Path,
    session: &Session,
) -> Result<Imported, Failure> {
    match finished::take(path, layout_dir, &Platform::host()).await {
        Ok(image) => {
            image.notes.iter().for_each(|note| session.output.warn(note));
            Imported::of(image, layout_dir).await
        }
        Err(FinishedError::Several { .. }) => {
            let from = push::open(&format!("{}:{}", place.format.as_str(), path.display()), session).await?;
            let (digest, source) = (from.digest, from.source);
            Ok(Imported { source, digest, attached: Vec::new(), image_id: None, bytes: 0 })
        }
        Err(error) => Err(finished_failure(&error)),
    }
}

async fn take_file(
    kind: files::FileKind,
    path: PathBuf,
    component: &ComponentName,
    work: &Path,
) -> Result<Imported, Failure> {
    let tag = "imported".parse().expect("it is a tag");
    let packaged = files::package(&FilesRequest {
        paths: &[path],
        kind: Some(kind),
        artifact_type: None,
        component,
        tag: &tag,
        scratch: &work.join("layer"),
    })
    .await;
    let bundle =
        packaged.map_err(|error| Failure::from_error(Exit::Usage, &error).hints(error.hint()))?.bundle;
    let entry = bundle.resolve(Select::Only).map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    let digest = entry.digest.clone();
    Ok(Imported { source: Source::Bundle(bundle), digest, attached: Vec::new(), image_id: None, bytes: 0 })
}

fn finished_failure(error: &FinishedError) -> Failure {
    let exit = if error.is_callers() { Exit::Usage } else { Exit::Fault };
    let other = matches!(error, FinishedError::Image(BaseError::NoImage { .. }))
        .then_some("to store what is no container image: semel push FROM COMPONENT@VERSION");
    Failure::from_error(exit, error).hints(error.hint()).hints(other.map(str::to_owned))
}

impl Imported {
    async fn of(image: finished::Finished, layout_dir: &Path) -> Result<Self, Failure> {
        let layout =
            Layout::open(layout_dir).await.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
        Ok(Self {
            source: Source::Endpoint(Endpoint::Layout(layout)),
            digest: image.packaged.manifest,
            attached: image.attached,
            image_id: None,
            bytes: image.packaged.bytes,
        })
    }
}

enum Reserved {
    Already(Report),
    Yours(Granted),
}

/// The right to be the commit's artefact: taken, had already, or refused because another one has it.
async fn reserved(
    args: &ImportArgs,
    origin: &Origin,
    digest: &Digest,
    session: &Session,
) -> Result<Reserved, Failure> {
    let lookup = Lookup {
        inputs: origin.request.inputs.clone(),
        commit: origin.commit.clone(),
        line: origin.request.line.clone(),
    };
    match session.client.call(&lookup).await? {
        Reservation::Built(built) if built.digest == *digest => Ok(already(origin, built, session)),
        Reservation::Built(built) if !args.again => match imported_before(origin, digest, session).await? {
            Some(before) => Ok(already(origin, before, session)),
            None => Err(other_artefact(origin, &built.version, &built.digest, digest)),
        },
        _ => reserve(args, origin, digest, session).await,
    }
}

/// What was imported for the commit before it got another artefact: it keeps the name that it has.
async fn imported_before(
    origin: &Origin,
    digest: &Digest,
    session: &Session,
) -> Result<Option<reserve::Built>, Failure> {
    let ask = Inspect { component: origin.component.clone(), version: digest.to_string() };
    let found = match session.client.call(&ask).await {
        Ok(found) => found.artefact,
        Err(error) if error.class() == ErrorClass::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if found.expired.is_some() || found.commit.as_ref() != Some(&origin.commit) {
        return Ok(None);
    }
    let Artefact { version: Some(version), number: Some(number), published: Some(time), .. } = found else {
        return Ok(None);
    };
    let (digest, commit) = (digest.clone(), origin.commit.clone());
    Ok(Some(reserve::Built { number, version, digest, commit, time }))
}

fn already(origin: &Origin, built: reserve::Built, session: &Session) -> Reserved {
    session
        .output
        .done(format!("{} (build {}) was already imported: nothing to do", built.version, built.number));
    Reserved::Already(Report { reused: true, ..Report::whole(&origin.component, built) })
}

fn other_artefact(origin: &Origin, version: &Version, has: &Digest, digest: &Digest) -> Failure {
    let commit = origin.commit.short();
    Failure::new(Exit::Conflict, format!("{commit} has an artefact already: {} {version}", origin.component))
        .because([format!("that is {has}, and this is {digest}")])
        .hint("the same commit gives the same artefact; another one needs a reason: --again --reason TEXT")
}

async fn reserve(
    args: &ImportArgs,
    origin: &Origin,
    digest: &Digest,
    session: &Session,
) -> Result<Reserved, Failure> {
    let again = args.reason.clone().filter(|_| args.again);
    let mut request = Reserve { again, ..origin.request.clone() };
    loop {
        let failure = match (session.client.call(&request).await?, &origin.source) {
            (Reservation::Yours(granted), _) => match &granted.lost {
                Some(lost) if lost.digest != *digest => {
                    let failure = other_artefact(origin, &granted.version, &lost.digest, digest)
                        .because([format!("of that one {} is missing from the store", lost.missing)]);
                    let holding = queue::holding(&origin.component, None, &granted);
                    drop(session.client.call(&Release { holding }).await);
                    failure
                }
                _ => return Ok(Reserved::Yours(granted)),
            },
            (Reservation::HistoryNeeded { .. }, Some(source)) => {
                request.history = version::tell(source, Some(&request.history)).await?;
                continue;
            }
            (Reservation::HistoryNeeded { .. }, None) => {
                Failure::usage(format!("no version for {}: its history is not here", origin.commit.short()))
                    .hint("run it in a clone of the project that has the commit")
            }
            (Reservation::Built(built), _) if built.digest == *digest => {
                return Ok(already(origin, built, session));
            }
            (Reservation::Built(built), _) => other_artefact(origin, &built.version, &built.digest, digest)
                .hint("a reason stands for one artefact: give another one with --reason"),
            (Reservation::Running(running), _)
                if request.gone != Some(running.attempt)
                    && running.process.as_ref().is_some_and(process::has_ended) =>
            {
                request.gone = Some(running.attempt);
                continue;
            }
            (Reservation::Running(running), _) => Failure::new(
                Exit::TryAgain,
                format!("{} is being imported by {}", running.version, running.holder),
            ),
            (Reservation::Unknown | Reservation::Part(_) | Reservation::Failed(_), _) => {
                Failure::fault("the reservation has no outcome")
            }
        };
        return Err(failure);
    }
}

async fn publish(
    place: &Place,
    reason: Option<&str>,
    imported: &Imported,
    origin: &Origin,
    granted: Granted,
    session: &Session,
) -> Result<Report, Failure> {
    let component = &origin.component;
    session.output.done(format!("reserved {} (build {})", granted.version, granted.number));
    let holding = queue::holding(component, None, &granted);
    let lease = queue::Lease::keep(session, holding.clone());
    let stored = tokio::select! {
        stored = store(place, reason, imported, origin, &holding, session) => stored,
        () = super::stopped() => {
            drop(lease);
            return Err(queue::give_back(holding, &granted.version, session).await);
        }
    };
    // A renewal that came after the lease was given up would bring it back.
    drop(lease);
    let built = match stored {
        Ok(built) => built,
        Err(failure) => return Err(build::record_failure(failure.into(), &holding, session).await),
    };
    session.output.done(format!(
        "imported {component} {} (build {}){}",
        built.version,
        built.number,
        size(imported)
    ));
    let (version, of) = (&built.version, super::naming(component, session));
    session.output.next(format!("semel deploy {version} ENV{of}   or   semel inspect {version}{of}"));
    Ok(Report::whole(component, built))
}

/// Stores the artefact and commits it.
async fn store(
    place: &Place,
    reason: Option<&str>,
    imported: &Imported,
    origin: &Origin,
    holding: &Holding,
    session: &Session,
) -> Result<reserve::Built, Failure> {
    let component = &origin.component;
    let to = Endpoint::Registry { client: session.client.registry(), name: component.clone() };
    let transfer = Transfer::told(&session.output, "store");
    for digest in [&imported.digest].into_iter().chain(&imported.attached) {
        let copied = copy(&imported.source, &to, digest, None, &transfer.listener()).await;
        copied.map_err(|error| Failure::not_copied(&error))?;
    }
    transfer.finish();
    let predicate = provenance::imported(&ImportFacts {
        component,
        commit: &origin.commit,
        format: place.format.as_str(),
        artefact: &imported.digest,
        image_id: imported.image_id.as_ref(),
        again: reason,
        program_version: env!("CARGO_PKG_VERSION"),
        time: now(),
    });
    let commit = reserve::Commit {
        holding: holding.clone(),
        digest: imported.digest.clone(),
        claims: vec![Claim::provenance(predicate)],
        log: None,
    };
    match session.client.call(&commit).await?.finished {
        Finished::Built(built) => Ok(built),
        Finished::Part(_) => Err(Failure::fault("an import has no parts")),
    }
}

fn size(imported: &Imported) -> String {
    match imported.bytes {
        0 => String::new(),
        bytes => format!(", {}", crate::output::bytes(bytes)),
    }
}

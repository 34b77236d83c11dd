//! Pipeline: the steps of a build, in their order.

mod complete;
mod error;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use semel_model::digest::Digest;
use semel_model::name::EnvironmentName;
use semel_model::pipeline::EvidenceResult;
use semel_model::platform::Platform;
use semel_model::statement::Claim;
use semel_oci::layout::Layout;
use serde_json::{Value, json};

use crate::base::{Base, BaseSources};
use crate::cache::{self, Cache};
use crate::checkout;
use crate::closure;
use crate::collect::{self, CollectError, PackFile};
use crate::finished;
use crate::lint::{self, FrontEnd, LintError, LintRequest, Stored};
use crate::log::{Listener, Secret};
use crate::package::{self, PackageError, PackageRequest, Packaged};
use crate::provenance::{self, BuilderInfo, Facts, Range, digest_of_file};
use crate::recipe::{self, Cancel, Phase, RunError, RunReport, RunRequest, Varied};
use crate::rootfs::Rootfs;
use crate::sandbox::{HostEnvironment, Room, Sandbox};
use crate::sbom::{self, Sbom, SbomRequest};
use crate::snapshot::{self, Packed};
use crate::source::Source;

use complete::Finished;
pub use error::{Blame, BuildError};

/// The predicate type of a contract that stands beside an artefact: `{contract}`, as it would be in the annotation.
pub const CONTRACT: &str = "https://semel.dev/contract/v1";

/// What is built, and with what.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The source.
    pub source: Source,
    /// A directory for everything that the build writes; it exists and is empty. The caller removes it.
    pub work: PathBuf,
    /// What the commands see of the host.
    pub host: HostEnvironment,
    /// What holds them back.
    pub sandbox: Sandbox,
    /// What `fetch` sees and nothing else does.
    pub secrets: Vec<Secret>,
    /// Where caches lie; without it, a build begins with empty ones and leaves none.
    pub caches: Option<PathBuf>,
    /// The running program, which guards and confines the commands; they find it in `SEMEL`.
    pub semel: PathBuf,
    /// What the artefact runs on.
    pub platform: Platform,
    /// Where base images are.
    pub bases: BaseSources,
    /// Who builds.
    pub builder: BuilderInfo,
    /// The commits since the previous version, where they are known.
    pub range: Option<Range>,
    /// Now.
    pub started: Timestamp,
    /// What is otherwise than in a build, for a rebuild.
    pub varied: Varied,
}

/// The steps that are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The source tree is laid out.
    Checkout,
    /// What earlier builds left is brought in, and kept for later ones.
    Caches,
    /// The project's commands run.
    Recipe,
    /// The artefact's files are found.
    Collect,
    /// They become layers and a manifest.
    Package,
    /// What must not be inside is looked for.
    Lint,
    /// The artefact is looked at: whether it has what it needs.
    Check,
    /// The packages that it is made of are listed.
    Describe,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkout => "check out",
            Self::Caches => "caches",
            Self::Recipe => "build",
            Self::Collect => "collect",
            Self::Package => "package",
            Self::Lint => "lint",
            Self::Check => "check",
            Self::Describe => "describe",
        })
    }
}

/// Who wants to know how far a build is. Calls come from several threads.
pub trait Progress: Send + Sync {
    /// A step begins.
    fn started(&self, step: Step) {
        let _ = step;
    }

    /// A step is done.
    fn finished(&self, step: Step, took: Duration) {
        let _ = (step, took);
    }

    /// Something should be known, and the build goes on.
    fn note(&self, note: &str) {
        let _ = note;
    }

    /// A command printed a line.
    fn line(&self, line: &str) {
        let _ = line;
    }
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The OCI layout with the artefact; its only manifest.
    pub layout_dir: PathBuf,
    /// The artefact.
    pub packaged: Packaged,
    /// The manifest of the source snapshot beside it in the layout.
    pub snapshot: Option<Digest>,
    /// Manifests in the layout that are about the artefact, and were made before by its builder.
    pub attached: Vec<Digest>,
    /// What the builder says about it, provenance first.
    pub claims: Vec<Claim>,
    /// Whether the artefact has inside what it needs.
    pub closure: closure::Report,
    /// How many packages it is made of, as far as they are known.
    pub packages: usize,
    /// How the commands ran.
    pub report: RunReport,
    /// What they printed.
    pub log: PathBuf,
    /// How long each step took.
    pub timings: Vec<(Step, Duration)>,
}

/// Builds. Dropping the future ends the project's commands, with everything that they started.
pub async fn run(request: BuildRequest, progress: Arc<dyn Progress>) -> Result<Built, BuildError> {
    let build = Build { request: Arc::new(request), progress, timings: Vec::new() };
    build.run().await
}

/// An artefact that was built once more, in its layout.
#[derive(Debug, Clone)]
pub struct Remade {
    /// The OCI layout with the artefact.
    pub layout_dir: PathBuf,
    /// The artefact.
    pub packaged: Packaged,
}

/// Builds as far as the bytes, for a rebuild that is compared and thrown away. What the linter and the other checks would say
/// about them today is no part of that: waivers run out, and rules come.
pub async fn remake(request: BuildRequest, progress: Arc<dyn Progress>) -> Result<Remade, BuildError> {
    let mut build = Build { request: Arc::new(request), progress, timings: Vec::new() };
    let packaged = build.make().await?.artefact.packaged;
    Ok(Remade { layout_dir: build.request.layout_dir(), packaged })
}

struct Build {
    request: Arc<BuildRequest>,
    progress: Arc<dyn Progress>,
    timings: Vec<(Step, Duration)>,
}

impl Build {
    async fn run(mut self) -> Result<Built, BuildError> {
        let began = Instant::now();
        let Made { packed, caches, mut report, artefact } = self.make().await?;
        let Artefact { packaged, files, below, attached } = artefact;
        let base = below.map(Arc::new);
        let config = self.config_of(&packaged).await?;
        let (linted_files, linted_base) = (Arc::clone(&files), base.clone());
        let linted = self
            .step(Step::Lint, move |request, progress, _| {
                run_lint(request, progress, &linted_files, linted_base.as_deref(), config.as_ref())
            })
            .await?;
        let (config, ran) = (packaged.config.clone(), report.phases.clone());
        let packed_bytes = packaged.layers.iter().map(|layer| layer.size).sum();
        let (closure, rootfs) = self
            .step(Step::Check, move |request, progress, cancel| {
                let (base, config) = (base.as_deref(), &config);
                let finished = Finished { request, files: &files, base, config, packed_bytes };
                let rootfs = finished.rootfs();
                Ok((finished.check(&rootfs, took_by(&ran), progress, cancel)?, rootfs))
            })
            .await?;
        let subject = packaged.manifest.clone();
        let sbom =
            self.step(Step::Describe, move |request, _, _| describe(request, &rootfs, &subject)).await?;
        report.log_digest = self.request.log_digest()?;
        let snapshot = self.keep_source(packed.as_ref(), &packaged).await?;
        let took = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::ZERO);
        let finished = self.request.started.checked_add(took).unwrap_or(self.request.started);
        let provenance = provenance::predicate(&Facts {
            source: &self.request.source,
            report: &report,
            caches: &caches,
            packaged: &packaged,
            snapshot: snapshot.as_ref(),
            platform: &self.request.platform,
            builder: &self.request.builder,
            range: self.request.range.as_ref(),
            started: self.request.started,
            finished,
        });
        self.keep_caches(caches).await?;
        Ok(Built {
            layout_dir: self.request.layout_dir(),
            packaged,
            snapshot,
            attached,
            packages: sbom.packages,
            claims: self.claims(provenance, [linted, complete::claim(&closure), sbom.claim()]),
            closure,
            report,
            log: self.request.log(),
            timings: self.timings,
        })
    }

    /// From the commit to the bytes.
    async fn make(&mut self) -> Result<Made, BuildError> {
        let packed = self.step(Step::Checkout, lay_out).await?;
        let caches = self.take_caches().await?;
        let report = self.step(Step::Recipe, run_recipe).await?;
        let artefact = self.artefact().await?;
        Ok(Made { packed, caches, report, artefact })
    }

    /// Puts the packed source beside the artefact.
    async fn keep_source(
        &self,
        packed: Option<&Packed>,
        packaged: &Packaged,
    ) -> Result<Option<Digest>, BuildError> {
        let Some(packed) = packed else { return Ok(None) };
        let layout_dir = self.request.layout_dir();
        Ok(Some(snapshot::attach(packed, &self.request.source, packaged, &layout_dir).await?))
    }

    async fn take_caches(&mut self) -> Result<Vec<Cache>, BuildError> {
        if self.request.source.project.definition.build.cache.is_empty() {
            return Ok(Vec::new());
        }
        self.step(Step::Caches, |request, _, _| {
            let (source, room) = (&request.source, request.room()?);
            Ok(match &request.caches {
                Some(caches) => cache::take(caches, source, &room, request.started.into())?,
                None => cache::leave_empty(source, &room).map(|()| Vec::new())?,
            })
        })
        .await
    }

    /// The last step, as the files of the artefact may lie in one of them.
    async fn keep_caches(&mut self, caches: Vec<Cache>) -> Result<(), BuildError> {
        if caches.is_empty() {
            return Ok(());
        }
        self.step(Step::Caches, move |_, _, _| Ok(cache::keep(&caches)?)).await
    }

    /// Runs a step away from the threads that wait for the network.
    async fn step<T: Send + 'static>(
        &mut self,
        step: Step,
        work: impl FnOnce(&BuildRequest, &Arc<dyn Progress>, &Cancel) -> Result<T, BuildError> + Send + 'static,
    ) -> Result<T, BuildError> {
        let started = self.begin(step);
        let stop = StopOnDrop(Cancel::default());
        let (request, progress, cancel) =
            (Arc::clone(&self.request), Arc::clone(&self.progress), stop.0.clone());
        let done = tokio::task::spawn_blocking(move || work(&request, &progress, &cancel)).await;
        let done = done.unwrap_or_else(|panic| {
            Err(BuildError::Work { dir: self.request.work.clone(), source: io::Error::other(panic) })
        })?;
        self.end(step, started);
        Ok(done)
    }

    /// The artefact: packaged from files, or as the project's own builder wrote it.
    async fn artefact(&mut self) -> Result<Artefact, BuildError> {
        if let Some(from) = self.request.source.project.definition.artefact.from.clone() {
            return self.take(&from).await;
        }
        let files = self
            .step(Step::Collect, |request, _, _| {
                let spec = &request.source.project.definition.artefact;
                let project = &request.source.project;
                let files = collect::collect(&request.tree(), spec);
                let files = files.map_err(|error| error.of_project(project))?;
                collect::check_names(&files, spec.kind)?;
                Ok(Arc::new(files))
            })
            .await?;
        let (packaged, below) = self.package(&files).await?;
        Ok(Artefact { packaged, files, below, attached: Vec::new() })
    }

    async fn take(&mut self, from: &str) -> Result<Artefact, BuildError> {
        let started = self.begin(Step::Package);
        let request = Arc::clone(&self.request);
        let path = checkout_path(&request.tree(), from)?;
        let taken = finished::take(&path, &request.layout_dir(), &request.platform).await?;
        taken.image.check_platform(&request.platform)?;
        taken.notes.iter().for_each(|note| self.progress.note(note));
        self.end(Step::Package, started);
        let finished::Finished { packaged, image, attached, .. } = taken;
        Ok(Artefact { packaged, files: Arc::default(), below: Some(image), attached })
    }

    /// What the builder says. An image that is taken as it is cannot hold its contract, so that stands beside it.
    fn claims(&self, provenance: Value, reports: [Claim; 3]) -> Vec<Claim> {
        let definition = &self.request.source.project.definition;
        let apart = definition.artefact.from.is_some() && !definition.config.0.is_empty();
        let contract = apart.then(|| Claim {
            predicate_type: CONTRACT.to_owned(),
            predicate: json!({ "contract": definition.config }),
            result: EvidenceResult::Info,
        });
        [Claim::provenance(provenance)].into_iter().chain(reports).chain(contract).collect()
    }

    async fn package(&mut self, files: &Arc<Vec<PackFile>>) -> Result<(Packaged, Option<Base>), BuildError> {
        let started = self.begin(Step::Package);
        let request = Arc::clone(&self.request);
        let source = &request.source;
        let definition = &source.project.definition;
        let base = match &definition.artefact.base {
            Some(base) => {
                let (dir, now) = (source.project_dir(), request.started.into());
                Some(Base::open(&dir, base, &request.platform, &request.bases, now).await?)
            }
            None => None,
        };
        let packaged = package::package(&PackageRequest {
            files,
            definition,
            commit: &source.commit,
            committed_seconds: source.committed_seconds,
            remote: source.remote.as_deref(),
            platform: &request.platform,
            base: base.as_ref(),
            layout_dir: &request.layout_dir(),
            threads: package::cores(),
        })
        .await?;
        self.end(Step::Package, started);
        Ok((packaged, base))
    }

    /// The configuration of an artefact, where it is JSON.
    async fn config_of(&self, packaged: &Packaged) -> Result<Option<Value>, BuildError> {
        let layout = Layout::open(self.request.layout_dir())
            .await
            .map_err(|source| PackageError::Layout { source })?;
        let bytes =
            layout.read_blob(&packaged.config).await.map_err(|source| PackageError::Layout { source })?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    fn begin(&self, step: Step) -> Instant {
        self.progress.started(step);
        Instant::now()
    }

    fn end(&mut self, step: Step, started: Instant) {
        let took = started.elapsed();
        self.progress.finished(step, took);
        self.timings.push((step, took));
    }
}

impl BuildRequest {
    fn room(&self) -> Result<Room, BuildError> {
        Room::below(&self.work).map_err(|source| BuildError::Work { dir: self.work.clone(), source })
    }

    fn tree(&self) -> PathBuf {
        self.work.join("tree")
    }

    fn layout_dir(&self) -> PathBuf {
        self.work.join("layout")
    }

    fn log(&self) -> PathBuf {
        log_in(&self.work)
    }

    fn log_digest(&self) -> Result<Digest, BuildError> {
        let log = self.log();
        Ok(digest_of_file(&log).map_err(|source| RunError::Log { log, source })?)
    }
}

fn lay_out(
    request: &BuildRequest,
    progress: &Arc<dyn Progress>,
    _: &Cancel,
) -> Result<Option<Packed>, BuildError> {
    collect::check(&request.source.project.definition.artefact)?;
    let laid = checkout::materialise(&request.source, &request.tree(), &request.work.join("attributes"))?;
    laid.notes.iter().for_each(|note| progress.note(note));
    let limit = request.source.project.snapshot_limit_bytes;
    if limit == 0 {
        return Ok(None);
    }
    if laid.bytes() > limit {
        progress.note(&format!(
            "the source tree has {} MB, and up to {} MB are kept beside an artefact: raise [source] snapshot to keep it",
            laid.bytes() / 1_000_000,
            limit / 1_000_000
        ));
        return Ok(None);
    }
    // Before the first command runs: it may change the tree.
    Ok(Some(snapshot::pack(&request.source, &laid, request.work.join("source"))?))
}

fn took_by(phases: &[(Phase, Duration)]) -> Duration {
    phases.iter().map(|(_, took)| *took).sum()
}

fn listener(progress: &Arc<dyn Progress>) -> Listener {
    let progress = Arc::clone(progress);
    Arc::new(move |line: &str| progress.line(line))
}

fn run_recipe(
    request: &BuildRequest,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<RunReport, BuildError> {
    let room = request.room()?;
    let run = RunRequest {
        room: &room,
        sandbox: &request.sandbox,
        secrets: &request.secrets,
        build: &request.source.project.definition.build,
        commit: &request.source.commit,
        committed_seconds: request.source.committed_seconds,
        platform: &request.platform,
        host: &request.host,
        semel: &request.semel,
        log: &request.log(),
        varied: &request.varied,
    };
    Ok(recipe::run(&run, &listener(progress), cancel)?)
}

/// What must not be inside stops the build; the rest becomes a claim.
fn run_lint(
    request: &BuildRequest,
    progress: &Arc<dyn Progress>,
    files: &[PackFile],
    base: Option<&Base>,
    config: Option<&Value>,
) -> Result<Claim, BuildError> {
    let project = &request.source.project;
    let values_files = lint::values_files(&request.source).map_err(LintError::from)?;
    let report = lint::lint(LintRequest {
        files,
        stored: base.map(Stored::of_base).into_iter().collect(),
        contract: &project.definition.config,
        environments: project.pipeline.environments.keys().map(EnvironmentName::as_str).collect(),
        front_end: Some(FrontEnd { definition: &project.definition, tree: &request.tree() }),
        values_files: &values_files,
        config,
        waivers: &project.waivers,
        today: request.started.to_zoned(TimeZone::UTC).date(),
    })?;
    if report.errors().next().is_some() {
        return Err(BuildError::Forbidden(Box::new(report)));
    }
    report.notes().for_each(|note| progress.note(&note));
    Ok(report.claim())
}

/// What the first steps of a build left.
struct Made {
    /// The source, packed.
    packed: Option<Packed>,
    caches: Vec<Cache>,
    report: RunReport,
    artefact: Artefact,
}

/// What a build made, in its layout.
struct Artefact {
    packaged: Packaged,
    /// Its own files.
    files: Arc<Vec<PackFile>>,
    /// What lies below them; of an image that was taken, all of it.
    below: Option<Base>,
    attached: Vec<Digest>,
}

/// A path of the tree that must not lead out of it.
fn checkout_path(tree: &Path, from: &str) -> Result<PathBuf, BuildError> {
    let path = tree.join(from);
    let unread = |source| BuildError::Work { dir: path.clone(), source };
    match std::fs::canonicalize(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        real => {
            let (real, root) = (real.map_err(unread)?, std::fs::canonicalize(tree).map_err(unread)?);
            if real.starts_with(root) {
                return Ok(real);
            }
            Err(CollectError::Outside { from: from.to_owned(), to: real }.into())
        }
    }
}

fn describe(request: &BuildRequest, rootfs: &Rootfs, subject: &Digest) -> Result<Sbom, BuildError> {
    let source = &request.source;
    Ok(sbom::describe(&SbomRequest {
        rootfs,
        has_base: source.project.definition.artefact.base.is_some(),
        tree: &request.tree(),
        entries: &source.entries,
        component: &source.project.component,
        kind: source.project.definition.artefact.kind,
        subject,
        committed_seconds: source.committed_seconds,
        semel: &request.builder.version,
    })?)
}

struct StopOnDrop(Cancel);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Where the log of a build lies in its work directory: also that of a build that failed.
pub fn log_in(work: &Path) -> PathBuf {
    work.join("build.log")
}

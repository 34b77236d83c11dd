//! `semel lint`: look at files, a layout or a stored artefact for what must not be inside.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use semel_build::collect::PackKind;
use semel_build::lint::{self, Finding, FrontEnd, LintError, LintRequest, Report, Stored, ValuesFile};
use semel_build::source::Source;
use semel_engine::artefact::Artefact;
use semel_engine::look::versions::Inspection;
use semel_model::config::Contract;
use semel_model::name::EnvironmentName;
use semel_model::project::Waiver;
use semel_model::statement::{LINT, predicate_name};
use semel_oci::copy::{Endpoint, copy};
use semel_oci::layout::Layout;
use semel_server::api::calls::{Evidence, Inspect};
use serde::Serialize;
use serde_json::Value;

use super::{Outcome, build};
use crate::cli::{Cli, LintArgs};
use crate::output::{self, Output, counted, table};
use crate::progress::Transfer;
use crate::project::{self, Found};
use crate::report::{Exit, Failure};
use crate::session::{Session, now};
use crate::settings::Settings;

pub(super) async fn run(args: &LintArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    let project = project::find(settings.directory())?;
    let words = args.what.as_deref().unwrap_or(".");
    let path: PathBuf = settings.directory().join(words).components().collect();
    let looked = if path.exists() {
        at_path(&path, words, project.as_ref(), &settings).await?
    } else {
        let session = Session::open(cli, settings, output).await?;
        of_version(words, cli, project.as_ref(), &session).await?
    };
    show(&looked, output);
    Ok(if looked.report.errors().next().is_some() { Exit::Difference } else { Exit::Done })
}

/// What was looked at, and what was found.
struct Looked {
    artefact: Option<Artefact>,
    report: Report,
    /// What the build said, where it is stored with the artefact.
    stored: Option<StoredReport>,
}

/// The report that a builder attached.
#[derive(Debug, Serialize)]
struct StoredReport {
    time: String,
    result: String,
    verified: bool,
    /// None, where its signature does not verify.
    report: Value,
}

/// Files on disk: with the contract, the waivers and the committed values of the project here.
async fn at_path(
    path: &Path,
    words: &str,
    project: Option<&Found>,
    settings: &Settings,
) -> Result<Looked, Failure> {
    let mut subject = Subject::of(project);
    if path.join("oci-layout").is_file() {
        subject.stored = of_layout(path).await?;
        subject.contract = subject.stored.first().map(|one| one.contract.clone()).unwrap_or_default();
    } else {
        subject.files_at = Some((path.to_owned(), shown(words)));
        subject.contract = project.map(|found| found.project.definition.config.clone()).unwrap_or_default();
    }
    if project.is_some() {
        // Values that are not committed are not looked for, so without a commit there are none.
        let source = build::resolve(&build::Wanted::default(), settings).await.ok();
        subject.values_files = source.as_ref().map(values_files).transpose()?.unwrap_or_default();
    }
    Ok(Looked { artefact: None, report: subject.look().await?, stored: None })
}

/// As it was written, without what leads nowhere.
fn shown(words: &str) -> Vec<u8> {
    let parts = Path::new(words).components();
    let named: PathBuf = parts.filter(|part| matches!(part, Component::Normal(_))).collect();
    named.into_os_string().into_encoded_bytes()
}

fn values_files(source: &Source) -> Result<Vec<ValuesFile>, Failure> {
    lint::values_files(source).map_err(|error| Failure::from_error(Exit::Usage, &error))
}

async fn of_layout(path: &Path) -> Result<Vec<Stored>, Failure> {
    let unread = |error: &dyn std::error::Error| Failure::from_error(Exit::Usage, error);
    let layout = Layout::open(path).await.map_err(|error| unread(&error))?;
    let mut stored = Vec::new();
    for entry in layout.entries().await.map_err(|error| unread(&error))? {
        stored.extend(Stored::open(&layout, &entry.digest).await.map_err(|error| unread(&error))?);
    }
    Ok(stored)
}

/// An artefact of the store: every layer, with the contract that it carries.
async fn of_version(
    words: &str,
    cli: &Cli,
    project: Option<&Found>,
    session: &Session,
) -> Result<Looked, Failure> {
    let found = find(words, cli, session).await.map_err(|failure| nor_a_file(words, failure))?;
    let component = found.artefact.component.clone();
    super::require_bytes(&found.artefact, session.output)?;
    let fault = |error: &dyn std::error::Error| Failure::from_error(Exit::Fault, error);
    let dir = session.work_dir()?;
    let layout = Layout::create(dir.path().join("layout")).await.map_err(|error| fault(&error))?;
    let from = Endpoint::Registry { client: session.client.registry(), name: component.clone() };
    let digest = &found.artefact.digest;
    let transfer = Transfer::new(&session.output, "fetch");
    let to = Endpoint::Layout(layout.clone());
    let copied = copy(&from, &to, digest, None, &transfer.listener()).await;
    transfer.finish();
    copied.map_err(|error| Failure::not_copied(&error))?;
    let mut subject = Subject::of(project.filter(|found| found.project.component == component));
    subject.stored = Stored::open(&layout, digest).await.map_err(|error| fault(&error))?;
    subject.contract = found.contract.clone();
    let report = subject.look().await?;
    let stored = stored_report(&found, session).await?;
    Ok(Looked { artefact: Some(found.artefact), report, stored })
}

async fn find(words: &str, cli: &Cli, session: &Session) -> Result<Inspection, Failure> {
    let (component, version) = super::artefact(words, cli, session)?;
    Ok(session.client.call(&Inspect { component, version }).await?)
}

/// A word that means no artefact may have been meant as a path.
fn nor_a_file(words: &str, failure: Failure) -> Failure {
    match failure.exit {
        Exit::Usage | Exit::NotFound => Failure::new(Exit::NotFound, format!("{words} is no file here"))
            .because(["nor is it an artefact: ".to_owned() + &failure.message])
            .hints(failure.hints),
        _ => failure,
    }
}

/// What the build said of the artefact, where that was attached.
async fn stored_report(found: &Inspection, session: &Session) -> Result<Option<StoredReport>, Failure> {
    let kind = predicate_name(LINT);
    if !found.evidence.iter().any(|line| line.kind == kind) {
        return Ok(None);
    }
    let Artefact { component, digest, .. } = &found.artefact;
    let ask = Evidence { component: component.clone(), version: digest.to_string(), kind: kind.to_owned() };
    let said = session.client.call(&ask).await?;
    Ok(Some(StoredReport {
        time: said.evidence.time.to_string(),
        result: said.evidence.result.to_string(),
        verified: said.evidence.verified,
        report: said.predicate,
    }))
}

/// Everything that a look needs, owned, because it happens on a thread of its own.
#[derive(Default)]
struct Subject {
    /// Where files are, and what their paths begin with.
    files_at: Option<(PathBuf, Vec<u8>)>,
    stored: Vec<Stored>,
    contract: Contract,
    values_files: Vec<ValuesFile>,
    project: Option<Found>,
}

impl Subject {
    fn of(project: Option<&Found>) -> Self {
        Self { project: project.cloned(), ..Self::default() }
    }

    async fn look(self) -> Result<Report, Failure> {
        let looked = tokio::task::spawn_blocking(move || self.look_now()).await;
        looked.map_err(|error| Failure::fault(error.to_string()))?.map_err(|error| {
            let exit = if matches!(error, LintError::Waiver(_)) { Exit::Usage } else { Exit::Fault };
            Failure::from_error(exit, &error)
        })
    }

    fn look_now(self) -> Result<Report, LintError> {
        let mut files = match &self.files_at {
            Some((path, shown)) => lint::files_at(path, shown)
                .map_err(|source| LintError::Read { path: path.clone(), source })?,
            None => Vec::new(),
        };
        let project = self.project.as_ref();
        if let Some(found) = project {
            // They belong to environments, and no build takes them.
            let apart: Vec<Arc<Path>> =
                found.project.values_files().into_iter().map(|file| found.dir.join(file).into()).collect();
            files.retain(|file| !matches!(&file.kind, PackKind::File { from, .. } if apart.contains(from)));
        }
        let environments = project.into_iter().flat_map(|found| found.project.pipeline.environments.keys());
        lint::lint(LintRequest {
            files: &files,
            stored: self.stored,
            contract: &self.contract,
            environments: environments.map(EnvironmentName::as_str).collect(),
            front_end: project
                .map(|found| FrontEnd { definition: &found.project.definition, tree: &found.dir }),
            values_files: &self.values_files,
            config: None,
            waivers: project.map_or(&[], |found| &found.project.waivers),
            today: now().to_zoned(TimeZone::UTC).date(),
        })
    }
}

fn show(looked: &Looked, output: Output) {
    let report = &looked.report;
    if output.is_json() {
        let claim = report.claim();
        let waivers = |waivers: &[Waiver]| -> Vec<Value> {
            let shown = |Waiver { rule, path, reason, until }: &Waiver| serde_json::json!({ "rule": rule, "path": path, "reason": reason, "until": until.to_string() });
            waivers.iter().map(shown).collect()
        };
        output.json(&serde_json::json!({
            "artefact": looked.artefact, "result": claim.result, "report": claim.predicate, "stored": looked.stored,
            "lapsed": waivers(&report.lapsed), "idle": waivers(&report.idle),
        }));
        return;
    }
    match &looked.stored {
        Some(StoredReport { time, result, report, verified: true }) => {
            let count = report["findings"].as_array().map_or(0, Vec::len);
            output.say(format!("  its build found {count} ({result}, {time})"));
        }
        Some(StoredReport { time, .. }) => {
            output.warn(format!("the report of its build ({time}) does NOT verify: semel audit verify"));
        }
        None => {}
    }
    if !report.findings.is_empty() {
        let rows = report.findings.iter().map(row).collect();
        output.data(&table(&["", "rule", "where", "what"], rows));
    }
    let fixes: std::collections::BTreeSet<&str> =
        report.errors().map(|finding| finding.fix.as_str()).collect();
    fixes.into_iter().for_each(|fix| output.say(format!("  fix: {fix}")));
    report.judgements().for_each(|note| output.warn(note));
    let errors = report.errors().count();
    let files = counted(usize::try_from(report.files).unwrap_or(usize::MAX), "file");
    let seen = format!("looked at {files}, {}", output::bytes(report.bytes));
    match (errors, report.findings.len() - errors) {
        (0, 0) => output.done(format!("nothing found; {seen}")),
        (errors, warnings) => {
            let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
            output.warn(format!("{errors}, {warnings}; {seen}"));
        }
    }
}

fn row(finding: &Finding) -> Vec<String> {
    vec![finding.severity.to_string(), finding.rule.clone(), finding.shown_place(), finding.what.clone()]
}

//! `semel build --check`: whether an artefact comes out the same again, recorded as evidence about it.
//!
//! ```text
//! the artefact → its commit, in this clone → rebuild otherwise → compare → sign and attach
//! ```
//!
//! Nothing of the store changes but the evidence: what was rebuilt is thrown away.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use semel_build::check::cause::{self, Marks};
use semel_build::check::compare::{self, Side};
use semel_build::check::rebuild::{self, Machine, Plan};
use semel_build::pipeline::{Blame, BuildRequest, Progress, Remade};
use semel_build::source::Source;
use semel_engine::attest::{Attached, Attest};
use semel_engine::look::versions::{EvidenceLine, Inspection};
use semel_engine::reserve::{Lookup, Reservation};
use semel_model::digest::Digest;
use semel_model::keep::Holder;
use semel_model::name::CommitId;
use semel_model::pipeline::EvidenceResult;
use semel_model::platform::Platform;
use semel_model::reproducibility::{Builder, DIFFERENCES_MAX, LeftOut, NAME, Report};
use semel_model::statement::{PROVENANCE, predicate_name};
use semel_model::version::ArtefactWord;
use semel_oci::copy::{Endpoint, Source as From};
use semel_oci::descriptor::Descriptor;
use semel_oci::files::{self, Overwrite};
use semel_oci::media_type;
use semel_oci::reference::TagOrDigest;
use semel_server::api::calls::Inspect;
use serde_json::json;

use super::build::{self, Wanted};
use super::surroundings::{self, Asked};
use super::told::Told;
use super::{Outcome, require_bytes};
use crate::cli::{BuildArgs, CheckWord, Cli, Parts};
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;

/// Where an artefact says which repository it comes from (image-spec 1.1, annotations.md).
const SOURCE_ANNOTATION: &str = "org.opencontainers.image.source";
/// Where it says from which commit (the same).
const REVISION_ANNOTATION: &str = "org.opencontainers.image.revision";

pub(super) async fn run(how: CheckWord, args: &BuildArgs, cli: &Cli, session: &Session) -> Outcome {
    let subject = subject(find(args, cli, session).await?, args.platform.as_ref(), session).await?;
    require_bytes(&subject.found.artefact, session.output)?;
    let source = source_of(&subject, session).await?;
    let dir = session.work_dir()?;
    let asked = Asked { secrets: args.secrets.clone(), sandbox: args.sandbox, no_cache: true };
    let recipe = &source.project.definition.build;
    let surroundings = surroundings::find(&asked, recipe, session)?;
    surroundings::tell(&surroundings.sandbox, recipe, session.output);
    let mut request = build::request(source, surroundings, &dir.path(), session)
        .map_err(|error| build::build_failure(&error, session))?;
    if let Some(platform) = &subject.platform {
        request.platform = platform.clone();
    }
    let began = Instant::now();
    let checked = tokio::select! {
        checked = check(how, &subject, &request, session) => checked?,
        () = super::stopped() => return Err(Failure::new(Exit::Interrupted, "broken off; nothing was recorded")),
    };
    let attached = attach(&subject.found, &checked, session).await?;
    tell(&subject, &checked, &attached, began.elapsed().as_secs(), session);
    Ok(match checked.result() {
        EvidenceResult::Pass => Exit::Done,
        _ => Exit::NotDeterministic,
    })
}

/// The artefact that a version, a digest or a revision names; without one, what was built from the commit checked out.
async fn find(args: &BuildArgs, cli: &Cli, session: &Session) -> Result<Inspection, Failure> {
    let word = args.revision.as_deref();
    if let Some(word) = word.filter(|word| word.parse::<ArtefactWord>().is_ok()) {
        let (component, version) = super::artefact(word, cli, session)?;
        match session.client.call(&Inspect { component, version }).await.map_err(Failure::from) {
            Err(failure) if failure.exit == Exit::NotFound && !word.contains('@') => {}
            found => return found,
        }
    }
    let wanted = Wanted { revision: args.revision.clone(), branch: args.branch.clone(), ..Wanted::default() };
    let source = build::resolve(&wanted, &session.settings).await?;
    build::require_component(cli, &source)?;
    let lookup =
        Lookup { inputs: source.inputs.clone(), commit: source.commit.clone(), line: source.line.clone() };
    let Reservation::Built(built) = session.client.call(&lookup).await? else {
        let commit = source.commit.short();
        return Err(Failure::new(Exit::NotFound, format!("nothing was built from commit {commit} yet"))
            .hint(format!("semel build {commit}")));
    };
    let component = source.project.component.clone();
    Ok(session.client.call(&Inspect { component, version: built.digest.to_string() }).await?)
}

/// What is built once more: an artefact, or one platform's part of it.
struct Subject {
    /// It.
    found: Inspection,
    /// What people call it.
    name: String,
    /// The part's platform; none: it is an artefact for one platform.
    platform: Option<Platform>,
}

/// The artefact itself. Of one with parts: the part that was named by its digest or its platform, else the one for this
/// machine.
async fn subject(found: Inspection, asked: Option<&Parts>, session: &Session) -> Result<Subject, Failure> {
    let index = found.holders.iter().find_map(|holder| match holder {
        Holder::Index { digest } if found.artefact.commit.is_none() => Some(digest.to_string()),
        _ => None,
    });
    let named = match asked {
        Some(Parts::All) => {
            return Err(Failure::usage("one part is checked at a time").hint("name it: --platform OS/ARCH"));
        }
        Some(Parts::One(platform)) => Some(platform),
        None => None,
    };
    let component = found.artefact.component.clone();
    let inspect = |version: String| Inspect { component: component.clone(), version };
    let (whole, part) = match index {
        Some(index) => (session.client.call(&inspect(index)).await?, Some(found)),
        None if media_type::is_index(&found.media_type) => (found, None),
        None if named.is_some() => return Err(build::one_platform()),
        None => return Ok(Subject { name: found.artefact.name(), found, platform: None }),
    };
    let platforms: Vec<Platform> = whole.parts.iter().filter_map(|part| part.platform.clone()).collect();
    let listed = match &part {
        // What is named by its digest is that part, whatever else is asked for.
        Some(part) => whole.parts.iter().find(|one| one.digest == part.artefact.digest),
        None => {
            let hint = || platforms.first().map(|first| format!("name one of them: --platform {first}"));
            let platform = build::one_of(&platforms, named).map_err(|failure| failure.hints(hint()))?;
            whole.parts.iter().find(|one| one.platform.as_ref() == Some(&platform))
        }
    };
    let Some((digest, platform)) = listed.and_then(|one| Some((&one.digest, one.platform.clone()?))) else {
        return Err(Failure::usage(format!("{} does not say what its parts run on", whole.artefact.name())));
    };
    if let Some(named) = named.filter(|named| **named != platform) {
        return Err(Failure::usage(format!("{digest} is the part for {platform}, not for {named}")));
    }
    let found = match part {
        Some(part) => part,
        None => session.client.call(&inspect(digest.to_string())).await?,
    };
    let name = format!("{} for {platform}", whole.artefact.name());
    Ok(Subject { found, name, platform: Some(platform) })
}

/// The source of an artefact, as far as this clone has it.
async fn source_of(subject: &Subject, session: &Session) -> Result<Source, Failure> {
    let Subject { found, name, .. } = subject;
    let artefact = &found.artefact;
    let Some(commit) = commit_of(found) else {
        return Err(Failure::usage(format!("{name} was not built from a commit that is known here"))
            .because(["what was pushed or imported cannot be rebuilt".to_owned()]));
    };
    let wanted = Wanted { revision: Some(commit.to_string()), ..Wanted::default() };
    let mut source =
        build::resolve(&wanted, &session.settings).await.map_err(|failure| match failure.exit {
            Exit::NotFound => {
                let what = format!("{name} was built from commit {commit}, which is not in this clone");
                Failure::new(Exit::NotFound, what).hint(format!("git fetch origin {commit}"))
            }
            _ => failure,
        })?;
    if source.project.component != artefact.component {
        return Err(build::another_project(&source, &artefact.component));
    }
    // Where this clone comes from is no property of the source.
    source.remote = found.annotations.get(SOURCE_ANNOTATION).cloned();
    Ok(source)
}

/// The commit that became these bytes, which has not always given them their name. Copies come without provenance that can be
/// verified here; then what the bytes themselves say of it counts. What was imported has provenance, and no such commit.
fn commit_of(found: &Inspection) -> Option<CommitId> {
    let is_provenance = |line: &EvidenceLine| line.verified && line.kind == predicate_name(PROVENANCE);
    if found.built_from.is_some() || found.evidence.iter().any(is_provenance) {
        return found.built_from.clone();
    }
    let named = found.artefact.commit.clone()?;
    let said = found.annotations.get(REVISION_ANNOTATION).and_then(|commit| commit.parse().ok());
    Some(said.unwrap_or(named))
}

async fn check(
    how: CheckWord,
    subject: &Subject,
    request: &BuildRequest,
    session: &Session,
) -> Result<Report, Failure> {
    let found = &subject.found;
    let (work, sandbox) = (&request.work, request.sandbox.level());
    let place = |name: &str| {
        let dir = work.join(name);
        std::fs::create_dir_all(&dir)
            .map(|()| dir)
            .map_err(|error| Failure::fault(format!("cannot use {}: {error}", work.display())))
    };
    let machine = Machine::look(&request.host, work);
    let plan = match how {
        CheckWord::Varied => Plan::of(&machine, sandbox, &request.source),
        CheckWord::Quick => Plan::quick(),
    };
    session.output.say(format!("{} at {}", subject.name, request.source.commit.short()));
    let again = place("again")?;
    let told = Arc::new(Told::new(session.output));
    let built =
        rebuild::rebuild(request, &machine, &plan.made, &again, Arc::clone(&told) as Arc<dyn Progress>).await;
    told.finish();
    let built = built.map_err(|error| {
        let failure = build::build_failure(&error, session);
        // A command may not bear what was varied; what else is missing is missing either way.
        let may_differ = error.blame() == Blame::Command && !plan.made.is_empty();
        failure.hints(may_differ.then(|| "without variations: semel build --check=quick".to_owned()))
    })?;
    let committed = &found.artefact.digest;
    let mut differences = Vec::new();
    if built.packaged.manifest != *committed {
        let marks = Marks {
            places: own_places(&again, request),
            started: request.started,
            user: machine.other.clone(),
            made: plan.made.clone(),
        };
        let places = compare_with(found, &built, &place("committed")?, &place("scratch")?, session).await?;
        differences = places.iter().map(|place| cause::explain(place, &marks)).collect();
    }
    let more_differences = differences.len().saturating_sub(DIFFERENCES_MAX) as u64;
    differences.truncate(DIFFERENCES_MAX);
    let builder = &request.builder;
    Ok(Report {
        build_key: request.source.inputs.key(),
        platform: request.platform.to_string(),
        committed: committed.clone(),
        built: built.packaged.manifest,
        builder: Builder { id: builder.id.clone(), version: builder.version.clone() },
        variations: plan.made.iter().map(ToString::to_string).collect(),
        left_out: plan
            .left_out
            .into_iter()
            .map(|(variation, reason)| LeftOut { variation: variation.to_string(), reason })
            .collect(),
        differences,
        more_differences,
    })
}

/// What the commands of the rebuild saw as their own directories.
fn own_places(again: &Path, request: &BuildRequest) -> Vec<String> {
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let inside = rebuild::inside(again, request);
    vec![shown(again), shown(&inside.tree), shown(&inside.home)]
}

/// Fetches what the rebuild does not have as well, and compares.
async fn compare_with(
    found: &Inspection,
    built: &Remade,
    dir: &Path,
    scratch: &Path,
    session: &Session,
) -> Result<Vec<compare::Found>, Failure> {
    let fault = |error: &dyn std::error::Error| Failure::from_error(Exit::Fault, error);
    let artefact = &found.artefact;
    let registry = session.client.registry();
    let wanted = TagOrDigest::Digest(artefact.digest.clone());
    let manifest =
        registry.get_manifest(&artefact.component, &wanted).await.map_err(|error| fault(&error))?;
    let one = Side::new(dir, &manifest.bytes).map_err(|error| fault(&error))?;
    let other = Side::open(&built.layout_dir, &built.packaged.manifest).map_err(|error| fault(&error))?;
    let missing: Vec<Digest> = compare::wanted(&one, &other);
    let pieces = manifest.parsed.config.into_iter().chain(manifest.parsed.layers);
    let blobs: Vec<_> = pieces
        .filter(|piece: &Descriptor| missing.contains(&piece.digest))
        .map(|piece| (compare::blob_path(dir, &piece.digest), piece))
        .collect();
    for (path, _) in &blobs {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| fault(&error))?;
        }
    }
    let from = From::Endpoint(Endpoint::Registry { client: registry, name: artefact.component.clone() });
    let transfer = Transfer::new(&session.output, "compare");
    let fetched = files::write(&blobs, &from, Overwrite::Refused, &transfer.listener()).await;
    transfer.finish();
    fetched.map_err(|error| fault(&error))?;
    let scratch = scratch.to_owned();
    let compared = tokio::task::spawn_blocking(move || compare::compare(&one, &other, &scratch)).await;
    compared.map_err(|panic| fault(&panic))?.map_err(|error| fault(&error))
}

/// Signs the report and attaches it.
async fn attach(found: &Inspection, report: &Report, session: &Session) -> Result<Attached, Failure> {
    let artefact = &found.artefact;
    let bytes = serde_json::to_vec(report).map_err(|error| Failure::fault(error.to_string()))?;
    let stored = session.client.registry().put_bytes(&artefact.component, Bytes::from(bytes)).await;
    let attest = Attest {
        component: artefact.component.clone(),
        version: artefact.digest.to_string(),
        kind: NAME.to_owned(),
        result: None,
        report: Some(stored.map_err(|error| Failure::from_error(Exit::Fault, &error))?),
        environment: None,
        comment: None,
    };
    Ok(session.client.call(&attest).await?)
}

/// How many differences are said; all that are known are in the report.
const SAID: usize = 10;

fn tell(subject: &Subject, report: &Report, attached: &Attached, seconds: u64, session: &Session) {
    let (output, Subject { found, name, .. }) = (session.output, subject);
    let how = match report.variations.len() {
        0 => format!("rebuilt in {seconds} s, nothing varied"),
        1 => format!("rebuilt in {seconds} s, 1 variation"),
        many => format!("rebuilt in {seconds} s, {many} variations"),
    };
    if report.result() == EvidenceResult::Pass {
        output.done(format!("{name} is reproducible: identical ({how})"));
    } else {
        output.warn(format!("{name} is not reproducible ({how})"));
    }
    for difference in report.differences.iter().take(SAID) {
        let path = difference.path.as_deref().unwrap_or_default();
        output.say(format!("  {} {path}", difference.place));
        output.say(format!("    {}: {:?} → {:?}", difference.what, difference.committed, difference.built));
        if let (Some(cause), Some(fix)) = (&difference.cause, &difference.fix) {
            output.say(format!("    cause: {cause}"));
            output.say(format!("    fix: {fix}"));
        }
    }
    let more = report.differences.len().saturating_sub(SAID) as u64 + report.more_differences;
    if more > 0 {
        output.say(format!("  and {more} more differences"));
    }
    for LeftOut { variation, reason } in &report.left_out {
        output.say(format!("  not varied: {variation} ({reason})"));
    }
    let recorded = if attached.already { "was recorded before" } else { "recorded, signed" };
    output.say(format!("  evidence: {NAME} = {} ({recorded})", attached.result));
    if output.is_json() {
        output.json(&json!({"artefact": found.artefact, "report": report, "evidence": attached}));
    } else {
        output.data(report.built.as_str());
    }
}

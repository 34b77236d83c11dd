//! `semel pull`: take an artefact out, as files or as the whole of it.

use std::path::{Path, PathBuf};

use semel_engine::look::versions::Inspection;
use semel_oci::archive;
use semel_oci::copy::{Copied, CopyError, Endpoint, Source, copy};
use semel_oci::layout::{Layout, Select};
use semel_oci::reference::Place;
use semel_server::api::calls::Inspect;
use serde_json::json;

use super::push::{
    HOME_ANNOTATION, REVISION_ANNOTATION, With, copy_attached, summary, transferred, with_attached,
};
use super::{Outcome, take};
use crate::cli::{Cli, PullArgs};
use crate::output::Output;
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;

pub(super) async fn run(args: &PullArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    let session = Session::open(cli, settings, output).await?;
    let (component, version) = super::artefact(&args.version, cli, &session)?;
    let found = session.client.call(&Inspect { component: component.clone(), version }).await?;
    super::require_bytes(&found.artefact, output)?;
    let wanted = Wanted {
        from: Source::Endpoint(Endpoint::Registry { client: session.client.registry(), name: component }),
        found,
        force: args.force,
        with: With::of(args.alone),
    };
    let here = |path: &PathBuf| session.settings.directory().join(path);
    let is_files = !args.to.starts_with("oci:") && !args.to.contains("-archive:") && !args.to.contains("://");
    if is_files {
        return take::run(&wanted, &args.to, &here(&PathBuf::from(&args.to)), &session).await;
    }
    match args.to.parse() {
        Ok(Place::Layout { directory, tag, digest: None }) => {
            to_layout(&wanted, &here(&directory), tag.as_deref(), &session).await
        }
        Ok(Place::Archive { file, tag, digest: None }) if args.to.starts_with("oci-") => {
            to_archive(&wanted, &here(&file), tag.as_deref(), &session).await
        }
        Ok(_) => Err(Failure::usage(format!("`{}` is no place that can be written to", args.to))
            .hint("write a directory, a file, oci:DIR[:NAME] or oci-archive:FILE")),
        Err(error) => Err(Failure::from_error(Exit::Usage, &error)),
    }
}

/// What is taken out.
pub(super) struct Wanted {
    /// The component's repository.
    pub(super) from: Source,
    pub(super) found: Inspection,
    /// Whether something else at the destination is replaced.
    pub(super) force: bool,
    /// What goes with it into a layout or an archive.
    pub(super) with: With,
}

async fn to_layout(wanted: &Wanted, dir: &Path, tag: Option<&str>, session: &Session) -> Outcome {
    let Filled { copied, name, attached } = fill_layout(wanted, dir, tag, session).await?;
    let found = &wanted.found;
    session.output.done(format!(
        "{} is in {} ({}{})",
        found.artefact.name(),
        dir.display(),
        summary(&copied),
        with_attached(attached)
    ));
    if session.output.is_json() {
        let artefact = &found.artefact;
        let transfer = transferred(&copied);
        session
            .output
            .json(&json!({"artefact": artefact, "layout": dir, "name": name, "transfer": transfer}));
    } else {
        session.output.data(copied.descriptor.digest.as_str());
    }
    Ok(Exit::Done)
}

/// A layout that an artefact was copied to.
struct Filled {
    copied: Copied,
    /// The name that the artefact has there.
    name: Option<String>,
    /// How many manifests are attached to it there.
    attached: usize,
}

/// Copies into a layout, and says there which store gives the component its versions.
async fn fill_layout(
    wanted: &Wanted,
    dir: &Path,
    tag: Option<&str>,
    session: &Session,
) -> Result<Filled, Failure> {
    let found = &wanted.found;
    let layout = Layout::create(dir).await.map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    let name = tag.map(str::to_owned).or_else(|| found.artefact.version.as_ref().map(ToString::to_string));
    let to = Endpoint::Layout(layout.clone());
    let transfer = Transfer::told(&session.output, "pull");
    let digest = &found.artefact.digest;
    let copied = copy(&wanted.from, &to, digest, name.as_deref(), &transfer.listener()).await;
    let attached = match &copied {
        Ok(copied) => copy_attached(&wanted.from, &to, copied, wanted.with, &transfer).await,
        Err(_) => Ok(0),
    };
    transfer.finish();
    let (copied, attached) = (copied.map_err(|error| not_fetched(&error))?, attached?);
    let home = Some(format!("{}/{}", found.home, found.artefact.component));
    let commit = found.artefact.commit.as_ref().map(ToString::to_string);
    for (key, value) in [(HOME_ANNOTATION, home), (REVISION_ANNOTATION, commit)] {
        let Some(value) = value else { continue };
        let annotated = layout.annotate(&copied.descriptor.digest, key, &value).await;
        annotated.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    }
    Ok(Filled { copied, name, attached })
}

/// Why an artefact did not come. What was denied stays so, however often it is asked for.
pub(super) fn not_fetched(error: &CopyError) -> Failure {
    match error {
        CopyError::Registry(refused) if refused.is_denied() => Failure::from_error(Exit::NotAllowed, error)
            .hint("who rejected it can let it be fetched again: semel accept VERSION"),
        _ => Failure::not_copied(error).hint("run it again: what arrived is not fetched again"),
    }
}

/// Collects the artefact in a layout beside the file, so that a broken-off pull is completed, and makes one file of it.
async fn to_archive(wanted: &Wanted, file: &Path, tag: Option<&str>, session: &Session) -> Outcome {
    let digest = &wanted.found.artefact.digest;
    let already = match file.exists() {
        true => holds(file, digest, wanted.force).await?,
        false => false,
    };
    if !already {
        let beside = take::beside(file)?;
        let Filled { copied, name, .. } = fill_layout(wanted, &beside, tag, session).await?;
        let layout = Layout::open(&beside).await.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
        // An attempt before may have left another artefact there.
        let written = archive::write(&layout, &copied.descriptor.digest, name.as_deref(), file).await;
        written.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
        // What stays behind is only in the way of nothing: the next pull would use it.
        drop(std::fs::remove_dir_all(&beside));
    }
    let name = wanted.found.artefact.name();
    let was = if already { "was in" } else { "is in" };
    session.output.done(format!("{name} {was} {}", file.display()));
    if session.output.is_json() {
        session.output.json(&json!({"artefact": wanted.found.artefact, "archive": file, "already": already}));
    } else {
        session.output.data(digest.as_str());
    }
    Ok(Exit::Done)
}

/// Whether the file is an archive with this artefact; something else is in the way.
async fn holds(file: &Path, digest: &semel_model::digest::Digest, force: bool) -> Result<bool, Failure> {
    let there = archive::open(file).await;
    let same = there.is_ok_and(|bundle| bundle.resolve(Select::Digest(digest)).is_ok());
    if same || force {
        return Ok(same);
    }
    Err(take::in_the_way(&[file.to_owned()]))
}

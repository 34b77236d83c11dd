//! `semel push`: copy an artefact into the store and name it.

use semel_engine::publish::{Bind, Bound};
use semel_model::digest::Digest;
use semel_model::name::{CommitId, ComponentName, Tag};
use semel_model::version::{TagMeaning, TagPolicy, meaning_of};
use semel_oci::client::RegistryClient;
use semel_oci::copy::{Copied, Endpoint, copy};
use semel_oci::layout::{Layout, Select};
use semel_oci::reference::{Place, TagOrDigest, registry_base};
use semel_oci::transport::Transport;

use super::{Outcome, component};
use crate::cli::{Cli, PushArgs};
use crate::output::bytes;
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &PushArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, tag) = destination(&args.to, cli, session)?;
    let from = open(&args.from, session).await?;
    refuse_renamed_copy(&from, &component, &tag, session).await?;
    let copied = copy_in(&from, &component, session).await?;
    let bind = Bind {
        component: component.clone(),
        tag,
        digest: copied.descriptor.digest.clone(),
        commit: super::commit(args.commit.as_ref())?.or_else(|| from.commit.clone()),
        location: None,
        home: from.home_of(&component),
        absent: false,
    };
    name(bind, session).await
}

/// A copy keeps the name that its home gave it: another one may come to mean other bytes there.
pub(super) async fn refuse_renamed_copy(
    from: &From,
    component: &ComponentName,
    tag: &Tag,
    session: &Session,
) -> Result<(), Failure> {
    let Some(home) = from.home_of(component) else { return Ok(()) };
    let is_version = matches!(meaning_of(tag, TagPolicy::Release, &[]), TagMeaning::Version(_));
    if !is_version || from.tag.as_ref() == Some(tag) || session.facts().await?.id == home {
        return Ok(());
    }
    let name = from.tag.as_ref().map_or_else(|| "another name".to_owned(), ToString::to_string);
    Err(Failure::new(
        Exit::NotAllowed,
        format!("this is a copy of {name} from store {home}, which alone gives it versions"),
    )
    .hint(format!("push it as {name}")))
}

fn destination(text: &str, cli: &Cli, session: &Session) -> Result<(ComponentName, Tag), Failure> {
    let usage = |error: semel_model::name::InvalidName| Failure::from_error(Exit::Usage, &error);
    match text.split_once('@') {
        Some((name, tag)) => Ok((name.parse().map_err(usage)?, tag.parse().map_err(usage)?)),
        None => Ok((component(cli, session)?, text.parse().map_err(usage)?)),
    }
}

/// An artefact somewhere.
pub(super) struct From {
    pub(super) endpoint: Endpoint,
    pub(super) digest: Digest,
    /// The tag that it has there.
    pub(super) tag: Option<Tag>,
    /// Where it is, pinned, for people and records.
    pub(super) place: String,
    /// `STORE/COMPONENT`: which store gives which component its versions, if the place says so.
    home: Option<String>,
    /// Its commit, if the place says so.
    pub(super) commit: Option<CommitId>,
}

impl From {
    /// The store that gives a component its versions, if this is a copy of that component's.
    pub(super) fn home_of(&self, component: &ComponentName) -> Option<String> {
        let (store, named) = self.home.as_deref()?.split_once('/')?;
        (named == component.as_str()).then(|| store.to_owned())
    }
}

/// The annotation of a layout's entry that names the store that gives the component its versions: `STORE/COMPONENT`.
pub(super) const HOME_ANNOTATION: &str = "dev.semel.home";
/// The annotation of a layout's entry that names the commit (image-spec 1.1, annotations.md).
pub(super) const REVISION_ANNOTATION: &str = "org.opencontainers.image.revision";

/// Finds an artefact: `oci:DIR[:NAME]`, or an image in a registry.
pub(super) async fn open(text: &str, session: &Session) -> Result<From, Failure> {
    let place: Place = text.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    match place {
        Place::Layout { directory, tag, digest } => {
            let dir = session.settings.directory().join(&directory);
            let failed = |error| Failure::from_error(Exit::Verification, &error);
            let layout =
                Layout::open(&dir).await.map_err(|error| Failure::from_error(Exit::NotFound, &error))?;
            let select = match (&digest, &tag) {
                (Some(digest), _) => Select::Digest(digest),
                (None, Some(tag)) => Select::Tag(tag.as_ref()),
                (None, None) => Select::Only,
            };
            let entry = layout.resolve(select).await.map_err(failed)?;
            let found = entry.annotations.get("org.opencontainers.image.ref.name").cloned();
            Ok(From {
                home: entry.annotations.get(HOME_ANNOTATION).cloned(),
                commit: entry.annotations.get(REVISION_ANNOTATION).and_then(|c| c.parse().ok()),
                tag: found.and_then(|name| name.parse().ok()),
                place: format!("oci:{}@{}", dir.display(), entry.digest),
                digest: entry.digest,
                endpoint: Endpoint::Layout(layout),
            })
        }
        Place::Registry(reference) => {
            let host = reference.host.clone().unwrap_or_default();
            let transport = Transport::remote(&registry_base(&host))
                .map_err(|error| Failure::from_error(Exit::Usage, &error))?;
            let client = RegistryClient::new(transport);
            let target = reference.target().unwrap_or_else(latest);
            let manifest = client.get_manifest(&reference.name, &target).await.map_err(|error| {
                let exit = if error.is_not_found() { Exit::NotFound } else { Exit::Fault };
                Failure::from_error(exit, &error)
            })?;
            let digest = manifest.descriptor.digest;
            Ok(From {
                endpoint: Endpoint::Registry { client, name: reference.name.clone() },
                place: format!("{host}/{}@{digest}", reference.name),
                tag: reference.tag.clone(),
                digest,
                home: None,
                commit: None,
            })
        }
        Place::Component(reference) => {
            Err(Failure::usage(format!("`{reference}` names no place that bytes can be copied from"))
                .hint("write oci:DIR[:NAME], or host/name:tag"))
        }
    }
}

fn latest() -> TagOrDigest {
    TagOrDigest::Tag("latest".parse().expect("latest is a tag"))
}

/// Copies an artefact into the session's store, by digest.
pub(super) async fn copy_in(
    from: &From,
    component: &ComponentName,
    session: &Session,
) -> Result<Copied, Failure> {
    let to = Endpoint::Registry { client: session.client.registry(), name: component.clone() };
    let transfer = Transfer::new(&session.output, "push");
    let copied = copy(&from.endpoint, &to, &from.digest, None, &transfer.listener()).await;
    transfer.finish();
    let copied = copied.map_err(|error| {
        Failure::from_error(Exit::Verification, &error)
            .hint("nothing was named; what arrived whole stays and is not sent again")
    })?;
    session.output.done(format!(
        "{} copied ({}), {} there already",
        count(copied.blobs_copied),
        bytes(copied.bytes_copied),
        count(copied.blobs_skipped)
    ));
    Ok(copied)
}

/// A number of blobs.
pub(super) fn count(blobs: usize) -> String {
    if blobs == 1 { "1 blob".to_owned() } else { format!("{blobs} blobs") }
}

/// Names a stored artefact and says what is true now.
pub(super) async fn name(bind: Bind, session: &Session) -> Outcome {
    let component = bind.component.clone();
    let digest = bind.digest.clone();
    let bound = session.client.call(&bind).await?;
    let output = session.output;
    match &bound {
        Bound::Published { version, .. } => {
            output.done(format!("{component} {version} is {digest}, for ever"));
            output.next(format!(
                "semel attest {component}@{version} …   or   semel promote {component}@{version} ENV"
            ));
        }
        Bound::Already { name, .. } => output.done(format!("{component} {name} was already {digest}")),
        Bound::Moved { channel, from, .. } => {
            let from = from.as_ref().map(|from| format!(" (it was {})", from.short())).unwrap_or_default();
            output.done(format!(
                "channel {channel} of {component} points to {digest} now{from}; its history is kept"
            ));
        }
        Bound::Refused(refused) => {
            let next = refused.next_free.as_ref().map(|next| format!("push it as {component}@{next}"));
            return Err(Failure::new(Exit::Conflict, refused.reason.clone()).hints(next).answer(&bound));
        }
    }
    if output.is_json() {
        output.json(&bound);
    } else {
        output.data(&format!("{component}@{digest}"));
    }
    Ok(Exit::Done)
}

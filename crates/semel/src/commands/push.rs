//! `semel push`: store an artefact, from wherever it is, and name it.

use std::path::{Path, PathBuf};

use semel_build::files::{self, FilesRequest, PackagedFiles};
use semel_engine::publish::{Bind, Bound};
use semel_model::digest::Digest;
use semel_model::name::{CommitId, ComponentName, Tag};
use semel_model::version::{TagMeaning, TagPolicy, meaning_of};
use semel_oci::bundle::{Bundle, BundleError};
use semel_oci::client::RegistryClient;
use semel_oci::copy::{Copied, Endpoint, Source, Tally, copy};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, REF_NAME, Select};
use semel_oci::reference::{Place, TagOrDigest, registry_base};
use semel_oci::transport::Transport;
use semel_oci::{archive, attached};
use serde_json::{Value, json};

use super::{Outcome, component, draft};
use crate::cli::{Cli, FileKind, PushArgs};
use crate::output::bytes;
use crate::progress::{Transfer, spinner};
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &PushArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, tag) = destination(&args.to, cli, session)?;
    let (from, _work) = match local_files(args, session)? {
        Some(paths) => {
            let work = session.work_dir()?;
            (package(&paths, args, (&component, &tag), &work.path(), session).await?, Some(work))
        }
        None => (open(&args.from[0], session).await?, None),
    };
    refuse_renamed_copy(&from, &component, &tag, session).await?;
    let copied = copy_in(&from, &component, With::of(args.alone), session).await?;
    let bind = Bind {
        component: component.clone(),
        tag,
        digest: copied.descriptor.digest.clone(),
        commit: super::commit(args.commit.as_ref())?.or_else(|| from.commit.clone()),
        location: None,
        home: from.home_of(&component),
        absent: false,
    };
    if args.draft {
        return draft::open(bind, args.term, session).await;
    }
    name(bind, &copied, session).await
}

/// The files that are meant, if files are meant: paths that are there, or that can be nothing else.
fn local_files(args: &PushArgs, session: &Session) -> Result<Option<Vec<PathBuf>>, Failure> {
    let path_of = |text: &String| {
        let path = session.settings.directory().join(text);
        let scheme = text.contains("://") || text.starts_with("oci:") || text.contains("-archive:");
        let clearly = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
        (!scheme && (clearly || args.from.len() > 1 || path.exists())).then_some(path)
    };
    let paths: Vec<PathBuf> = args.from.iter().filter_map(path_of).collect();
    if paths.is_empty() && args.from.len() == 1 {
        return match (&args.kind, &args.artifact_type) {
            (None, None) => Ok(None),
            _ => Err(Failure::usage(format!("`{}` is no file here", args.from[0]))
                .hint("--kind and --type are for files; an artefact keeps what it is")),
        };
    }
    if paths.len() < args.from.len() {
        return Err(Failure::usage("several sources must all be files"));
    }
    let missing = paths.iter().filter(|path| !path.exists());
    let missing: Vec<String> = missing.map(|path| format!("{} is not there", path.display())).collect();
    if !missing.is_empty() {
        return Err(
            Failure::new(Exit::NotFound, "not everything that is to be pushed is there").because(missing)
        );
    }
    Ok(Some(paths))
}

/// Makes an artefact of files.
async fn package(
    paths: &[PathBuf],
    args: &PushArgs,
    (component, tag): (&ComponentName, &Tag),
    work: &Path,
    session: &Session,
) -> Result<From, Failure> {
    let artifact_type = args.artifact_type.as_deref();
    if let Some(text) = artifact_type.filter(|text| !is_media_type(text)) {
        return Err(Failure::usage(format!("`{text}` is no media type"))
            .hint("such as --type application/vnd.example.report.v1+json"));
    }
    let request = FilesRequest {
        paths,
        kind: args.kind.map(kind_of),
        artifact_type,
        component,
        tag,
        scratch: &work.join("layer"),
    };
    let reading = spinner(&session.output, "reading".to_owned());
    let packaged = files::package(&request).await;
    reading.finish_and_clear();
    let PackagedFiles { kind, bundle } = packaged.map_err(|error| {
        let failure = Failure::from_error(Exit::Usage, &error).hints(error.hint());
        match args.kind {
            None if paths.iter().all(|path| path.is_file()) => {
                failure.hint("--kind file stores it as it is, whatever it is")
            }
            _ => failure,
        }
    })?;
    session.output.done(format!("{} is of kind {kind}", args.from.join(", ")));
    let entry = bundle.resolve(Select::Only).map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    Ok(From {
        digest: entry.digest.clone(),
        tag: None,
        place: args.from.join(", "),
        home: None,
        commit: None,
        source: Source::Bundle(bundle),
    })
}

fn kind_of(kind: FileKind) -> files::FileKind {
    match kind {
        FileKind::File => files::FileKind::File,
        FileKind::Zip => files::FileKind::Zip,
        FileKind::Vm => files::FileKind::Vm,
        FileKind::Chart => files::FileKind::Chart,
        FileKind::Archive => files::FileKind::Archive,
    }
}

/// RFC 6838, 4.2: `type/subtype`, each a restricted name.
fn is_media_type(text: &str) -> bool {
    let is_name = |name: &str| {
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        first
            && name.len() <= 127
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_name(kind) && is_name(subtype))
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
    pub(super) source: Source,
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
    /// What the index of a layout or an archive says.
    fn entry(entry: &Descriptor, place: String, source: Source) -> Self {
        let annotation = |key: &str| entry.annotations.get(key);
        Self {
            home: annotation(HOME_ANNOTATION).cloned(),
            commit: annotation(REVISION_ANNOTATION).and_then(|commit| commit.parse().ok()),
            tag: annotation(REF_NAME).and_then(|name| name.parse().ok()),
            place,
            digest: entry.digest.clone(),
            source,
        }
    }

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

/// Finds an artefact: `oci:DIR[:NAME]`, an archive, or an image in a registry.
pub(super) async fn open(text: &str, session: &Session) -> Result<From, Failure> {
    let place: Place = text.parse().map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    match place {
        Place::Layout { directory, tag, digest } => {
            let dir = session.settings.directory().join(&directory);
            let failed = |error| Failure::from_error(Exit::Verification, &error);
            let layout =
                Layout::open(&dir).await.map_err(|error| Failure::from_error(Exit::NotFound, &error))?;
            let entry = layout.resolve(select(&tag, &digest)).await.map_err(failed)?;
            let place = format!("oci:{}@{}", dir.display(), entry.digest);
            Ok(From::entry(&entry, place, Source::Endpoint(Endpoint::Layout(layout))))
        }
        Place::Archive { file, tag, digest } => {
            let path = session.settings.directory().join(&file);
            let (bundle, entry) = open_archive(&path, &tag, &digest).await?;
            let place = format!("oci-archive:{}@{}", path.display(), entry.digest);
            Ok(From::entry(&entry, place, Source::Bundle(bundle)))
        }
        Place::Registry(reference) => {
            let host = reference.host.clone().unwrap_or_default();
            let transport = Transport::remote(&registry_base(&host))
                .map_err(|error| Failure::from_error(Exit::Usage, &error))?;
            let client = RegistryClient::new(transport);
            let target = reference.target().unwrap_or_else(latest);
            let manifest =
                client.get_manifest(&reference.name, &target).await.map_err(|error| {
                    match error.is_not_found() {
                        true => Failure::from_error(Exit::NotFound, &error),
                        false => Failure::not_copied(&error),
                    }
                })?;
            let digest = manifest.descriptor.digest;
            Ok(From {
                source: Source::Endpoint(Endpoint::Registry { client, name: reference.name.clone() }),
                place: format!("{host}/{}@{digest}", reference.name),
                tag: reference.tag.clone(),
                digest,
                home: None,
                commit: None,
            })
        }
        Place::Component(reference) => Err(Failure::usage(format!(
            "`{reference}` is no file here, and no place that bytes can be copied from"
        ))
        .hint("write a path, oci:DIR[:NAME], oci-archive:FILE, or host/name:tag")),
    }
}

fn select<'a>(tag: &'a Option<String>, digest: &'a Option<Digest>) -> Select<'a> {
    match (digest, tag) {
        (Some(digest), _) => Select::Digest(digest),
        (None, Some(tag)) => Select::Tag(tag),
        (None, None) => Select::Only,
    }
}

/// Opens an archive and finds an artefact in it.
pub(super) async fn open_archive(
    path: &Path,
    tag: &Option<String>,
    digest: &Option<Digest>,
) -> Result<(Bundle, Descriptor), Failure> {
    if !path.exists() {
        return Err(Failure::new(Exit::NotFound, format!("{} is not there", path.display())));
    }
    let bundle =
        archive::open(path).await.map_err(|error| Failure::from_error(Exit::Verification, &error))?;
    let entry = bundle
        .resolve(select(tag, digest))
        .cloned()
        .map_err(|error: BundleError| Failure::from_error(Exit::Verification, &error))?;
    Ok((bundle, entry))
}

fn latest() -> TagOrDigest {
    TagOrDigest::Tag("latest".parse().expect("latest is a tag"))
}

/// What goes with an artefact when it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    /// What is attached to it.
    Attached,
    /// Nothing.
    Nothing,
}

impl With {
    /// As the option says.
    pub(super) fn of(alone: bool) -> Self {
        if alone { Self::Nothing } else { Self::Attached }
    }
}

/// Copies an artefact into the session's store, by digest.
pub(super) async fn copy_in(
    from: &From,
    component: &ComponentName,
    with: With,
    session: &Session,
) -> Result<Copied, Failure> {
    let to = Endpoint::Registry { client: session.client.registry(), name: component.clone() };
    let transfer = Transfer::told(&session.output, "push");
    let copied = copy(&from.source, &to, &from.digest, None, &transfer.listener()).await;
    let attached = match &copied {
        Ok(copied) => copy_attached(&from.source, &to, copied, with, &transfer).await,
        Err(_) => Ok(0),
    };
    transfer.finish();
    let copied = copied.map_err(|error| {
        Failure::not_copied(&error).hint("nothing was named; what arrived whole stays and is not sent again")
    })?;
    session.output.done(format!("{}{}", summary(&copied), with_attached(attached?)));
    Ok(copied)
}

/// Copies what is attached to an artefact that was copied; says how many manifests that were.
pub(super) async fn copy_attached(
    from: &Source,
    to: &Endpoint,
    copied: &Copied,
    with: With,
    transfer: &Transfer,
) -> Result<usize, Failure> {
    if with == With::Nothing {
        return Ok(0);
    }
    let attached = attached::copy_attached(from, to, &copied.descriptor, &transfer.listener()).await;
    attached.map_err(|error| {
        Failure::not_copied(&error)
            .because([format!("it is attached to {}", copied.descriptor.digest)])
            .hint("--alone leaves out what is attached")
    })
}

/// How much came along, in a few words.
pub(super) fn with_attached(attached: usize) -> String {
    match attached {
        0 => String::new(),
        _ => format!(", with {attached} attached"),
    }
}

/// What a copy has done, in one line.
pub(super) fn summary(copied: &Copied) -> String {
    let mounted = match copied.mounted.blobs {
        0 => String::new(),
        _ => format!(", {} taken from other components", count(copied.mounted.blobs)),
    };
    let Tally { blobs, bytes: sent } = copied.sent;
    format!(
        "{} copied ({}), {} there already{mounted}",
        count(blobs),
        bytes(sent),
        count(copied.existing.blobs)
    )
}

/// A number of blobs.
pub(super) fn count(blobs: usize) -> String {
    if blobs == 1 { "1 blob".to_owned() } else { format!("{blobs} blobs") }
}

/// The bytes of a copy, for programs.
pub(super) fn transferred(copied: &Copied) -> Value {
    json!({
        "uploaded_bytes": copied.sent.bytes,
        "existing_bytes": copied.existing.bytes,
        "mounted_bytes": copied.mounted.bytes,
    })
}

/// Names a stored artefact and says what is true now.
pub(super) async fn name(bind: Bind, copied: &Copied, session: &Session) -> Outcome {
    let bound = session.client.call(&bind).await?;
    tell(&bound, &bind.component, Some(copied), session)
}

/// What became of a name, and what was copied for it.
pub(super) fn tell(
    bound: &Bound,
    component: &ComponentName,
    copied: Option<&Copied>,
    session: &Session,
) -> Outcome {
    let output = session.output;
    let digest = match bound {
        Bound::Published { version, digest } => {
            output.done(format!("{component} {version} is {digest}, for ever"));
            output.next(format!(
                "semel attest {component}@{version} …   or   semel promote {component}@{version} ENV"
            ));
            digest
        }
        Bound::Already { name, digest } => {
            output.done(format!("{component} {name} was already {digest}"));
            digest
        }
        Bound::Moved { channel, digest, from } => {
            let from = from.as_ref().map(|from| format!(" (it was {})", from.short())).unwrap_or_default();
            output.done(format!(
                "channel {channel} of {component} points to {digest} now{from}; its history is kept"
            ));
            digest
        }
        Bound::Refused(refused) => {
            let next = refused.next_free.as_ref().map(|next| format!("push it as {component}@{next}"));
            return Err(Failure::new(Exit::Conflict, refused.reason.clone()).hints(next).answer(bound));
        }
    };
    if output.is_json() {
        let mut answer = json!(bound);
        if let Some(copied) = copied {
            answer["size"] = json!(copied.descriptor.size.saturating_add(copied.bytes()));
            answer["transfer"] = transferred(copied);
        }
        output.json(&answer);
    } else {
        output.data(&format!("{component}@{digest}"));
    }
    Ok(Exit::Done)
}

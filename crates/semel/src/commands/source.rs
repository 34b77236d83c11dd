//! `semel source`: the source that an artefact was built from, also when its repository is gone.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use semel_build::snapshot;
use semel_engine::artefact::Artefact;
use semel_engine::look::versions::Inspection;
use semel_model::digest::Digest;
use semel_model::version::known_as;
use semel_oci::copy::{Endpoint, Source};
use semel_oci::descriptor::Descriptor;
use semel_oci::files::{self, Overwrite};
use semel_oci::media_type;
use semel_oci::reference::TagOrDigest;
use semel_server::api::calls::Inspect;
use semel_store::durable::{self, Access};
use serde_json::json;

use super::Outcome;
use crate::cli::{Cli, SourceArgs};
use crate::output::counted;
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &SourceArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = super::artefact(&args.version, cli, session)?;
    let found = session.client.call(&Inspect { component, version }).await?;
    let place = Place::of(args.output.as_deref(), &found.artefact, session)?;
    let snapshot = find(&found, session).await?;
    let layer = layer_of(&found.artefact, &snapshot, session).await?;
    let work = session.work_dir()?;
    let file = work.path().join("source");
    fetch(&found.artefact, &layer, &file, session).await?;
    let to = place.clone();
    let put = tokio::task::spawn_blocking(move || to.put(&file)).await;
    let files = put.map_err(|panic| Failure::fault(panic.to_string()))??;
    place.tell(&found.artefact, &snapshot, files, session);
    Ok(Exit::Done)
}

/// The snapshot that the signed provenance of the artefact names, or that of one of its parts.
async fn find(found: &Inspection, session: &Session) -> Result<Digest, Failure> {
    if let Some(source) = &found.source {
        return Ok(source.clone());
    }
    let component = &found.artefact.component;
    if media_type::is_index(&found.media_type) {
        let digest = TagOrDigest::Digest(found.artefact.digest.clone());
        let index = session.client.registry().get_manifest(component, &digest).await;
        for part in index.map_err(|error| Failure::from_error(Exit::Fault, &error))?.parsed.manifests {
            let ask = Inspect { component: component.clone(), version: part.digest.to_string() };
            if let Some(source) = session.client.call(&ask).await?.source {
                return Ok(source);
            }
        }
    }
    let commit = found.artefact.commit.as_ref().map(|commit| format!("git switch --detach {commit}"));
    Err(Failure::new(Exit::NotFound, format!("no source is kept of {}", found.artefact.name()))
        .because([
            "it was not built here, [source] snapshot is off, or the source tree is larger than that allows"
                .to_owned(),
        ])
        .hints(commit))
}

/// The packed tree that a snapshot's manifest names.
async fn layer_of(artefact: &Artefact, snapshot: &Digest, session: &Session) -> Result<Descriptor, Failure> {
    let wanted = TagOrDigest::Digest(snapshot.clone());
    let manifest = session.client.registry().get_manifest(&artefact.component, &wanted).await;
    let manifest = manifest.map_err(|error| {
        let exit = if error.is_not_found() { Exit::NotFound } else { Exit::Fault };
        Failure::from_error(exit, &error)
    })?;
    match manifest.parsed.layers.as_slice() {
        [layer] if manifest.parsed.artifact_type.as_deref() == Some(media_type::SEMEL_SOURCE) => {
            Ok(layer.clone())
        }
        _ => Err(Failure::new(Exit::Verification, format!("{snapshot} is no source snapshot"))),
    }
}

async fn fetch(
    artefact: &Artefact,
    layer: &Descriptor,
    file: &Path,
    session: &Session,
) -> Result<(), Failure> {
    let from = Endpoint::Registry { client: session.client.registry(), name: artefact.component.clone() };
    let transfer = Transfer::new(&session.output, "source");
    let wanted = [(file.to_owned(), layer.clone())];
    let fetched =
        files::write(&wanted, &Source::Endpoint(from), Overwrite::Refused, &transfer.listener()).await;
    transfer.finish();
    fetched.map(drop).map_err(|error| Failure::not_copied(&error))
}

/// Where the source goes.
#[derive(Clone)]
enum Place {
    /// A new directory.
    Directory(PathBuf),
    /// A new tar file, compressed with gzip or not.
    Tar { file: PathBuf, gzip: bool },
    /// Standard output, as a tar stream.
    Output,
}

impl Place {
    fn of(text: Option<&str>, artefact: &Artefact, session: &Session) -> Result<Self, Failure> {
        if text == Some("-") {
            if io::stdout().is_terminal() {
                return Err(Failure::usage("a tar stream is nothing for a terminal")
                    .hint("semel source VERSION -o - | tar -tv"));
            }
            return Ok(Self::Output);
        }
        let name = text.map_or_else(|| directory_name(artefact), str::to_owned);
        let path = session.settings.directory().join(&name);
        if path.symlink_metadata().is_ok() {
            return Err(is_there(&path));
        }
        Ok(match [".tar", ".tar.gz", ".tgz"].map(|ending| name.ends_with(ending)) {
            [false, false, false] => Self::Directory(path),
            [tar, ..] => Self::Tar { file: path, gzip: !tar },
        })
    }

    /// Puts the source there, as a whole or not at all; gives the number of files of a directory.
    fn put(&self, layer: &Path) -> Result<Option<usize>, Failure> {
        let failed = |error: io::Error| {
            Failure::fault(format!("cannot write {}", self.shown())).because([error.to_string()])
        };
        match self {
            Self::Directory(path) => {
                let beside =
                    tempfile::TempDir::with_prefix_in(".semel-source-", parent(path)).map_err(failed)?;
                let tree = beside.path().join("tree");
                let restored = snapshot::restore(layer, &tree);
                let files = restored.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
                durable::rename_into_place(&tree, path).map_err(failed)?;
                Ok(Some(files))
            }
            Self::Tar { file, gzip } => {
                let temporary = parent(file).join(durable::temporary_name(".semel-source-"));
                let written = write_tar(layer, &temporary, *gzip)
                    .and_then(|()| durable::move_into_place(&temporary, file));
                match written {
                    Ok(true) => Ok(None),
                    Ok(false) => Err(is_there(file)),
                    Err(error) => {
                        // What is left of it is of no use to anybody.
                        drop(fs::remove_file(&temporary));
                        Err(failed(error))
                    }
                }
            }
            Self::Output => {
                let mut tar = snapshot::tar_of(layer).map_err(failed)?;
                match io::copy(&mut tar, &mut io::stdout()) {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
                    _ => Ok(None),
                }
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Directory(path) | Self::Tar { file: path, .. } => path.display().to_string(),
            Self::Output => "to standard output".to_owned(),
        }
    }

    fn tell(&self, artefact: &Artefact, snapshot: &Digest, files: Option<usize>, session: &Session) {
        let (output, name) = (session.output, artefact.name());
        let path = match self {
            Self::Directory(path) | Self::Tar { file: path, .. } => path,
            Self::Output => return,
        };
        let files = files.map(|files| format!(" ({})", counted(files, "file"))).unwrap_or_default();
        output.done(format!("the source of {name} is in {}{files}", path.display()));
        if output.is_json() {
            output.json(&json!({"artefact": artefact, "snapshot": snapshot, "path": path}));
        } else {
            output.data(&path.display().to_string());
        }
    }
}

/// Whatever is there may have been worked on since.
fn is_there(path: &Path) -> Failure {
    Failure::usage(format!("{} is there already, and nothing is overwritten", path.display()))
        .hint("name another place: -o PLACE")
}

fn write_tar(layer: &Path, file: &Path, gzip: bool) -> io::Result<()> {
    let mut to = durable::create_new(file, Access::Shared)?;
    if gzip {
        io::copy(&mut fs::File::open(layer)?, &mut to)?;
    } else {
        io::copy(&mut snapshot::tar_of(layer)?, &mut to)?;
    }
    to.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `shop-api-1.4.2`
fn directory_name(artefact: &Artefact) -> String {
    let version = known_as(artefact.version.as_ref(), &artefact.digest);
    format!("{}-{version}", artefact.component.as_str().replace('/', "-"))
}

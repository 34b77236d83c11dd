//! Taking the files of an artefact out, for `semel pull`: each file under its name, an archive as a directory.
//!
//! What is there already and the same is left alone; what is something else is named, and replaced only by `--force`. A
//! file or a directory appears whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use semel_oci::chunked::ChunkedFile;
use semel_oci::closure::{ManifestSource as _, ReadManifest};
use semel_oci::descriptor::Descriptor;
use semel_oci::files::{self, FilesError, InvalidFiles, Overwrite, Written};
use semel_oci::manifest::ParsedManifest;
use semel_oci::media_type;
use semel_store::durable;
use semel_targets::directory::unpack_file;
use serde_json::json;

use super::Outcome;
use super::pull::{Wanted, not_fetched};
use crate::output::bytes;
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;

/// What was done, and where.
struct Taken {
    place: PathBuf,
    written: Written,
}

/// `text` is how the place was written: a slash at its end means a directory.
pub(super) async fn run(wanted: &Wanted, text: &str, place: &Path, session: &Session) -> Outcome {
    if media_type::is_index(&wanted.found.media_type) {
        return Err(several(wanted, text));
    }
    let ReadManifest { parsed, .. } = manifest(wanted).await?;
    let taken = if parsed.artifact_type.as_deref() == Some(media_type::SEMEL_ARCHIVE) {
        tree(wanted, &parsed, place, session).await?
    } else if ChunkedFile::is_in(&parsed) {
        chunked(wanted, &parsed, text, place, session).await?
    } else {
        named(wanted, &parsed, text, place, session).await?
    };
    let Taken { place, written } = taken;
    let artefact = &wanted.found.artefact;
    let name = artefact.name();
    session.output.done(match written.files {
        0 => format!("{name} was in {} already", place.display()),
        _ => format!("{name} is in {} ({} written)", place.display(), bytes(written.bytes)),
    });
    if session.output.is_json() {
        let written = json!({"files": written.files, "bytes": written.bytes, "existing": written.existing});
        session.output.json(&json!({"artefact": artefact, "path": place, "written": written}));
    } else {
        session.output.data(artefact.digest.as_str());
    }
    Ok(Exit::Done)
}

/// How what has no files is taken out.
const WHOLE: &str = "take the whole of it: oci:DIR, or oci-archive:FILE";

/// An index has no files, but the parts of what is no image do.
fn several(wanted: &Wanted, text: &str) -> Failure {
    let found = &wanted.found;
    let component = &found.artefact.component;
    let has_files =
        found.artifact_type.as_deref().is_some_and(|kind| kind.starts_with("application/vnd.semel."));
    let parts = found.parts.iter().filter(|_| has_files).map(|part| {
        let platform = part.platform.as_ref().map_or_else(|| "another".to_owned(), ToString::to_string);
        format!("{platform}: semel pull {component}@{} {text}", part.digest)
    });
    Failure::usage(format!("{} is for several platforms, and has no files of its own", found.artefact.name()))
        .hints(parts)
        .hint(WHOLE)
}

async fn manifest(wanted: &Wanted) -> Result<ReadManifest, Failure> {
    let found = &wanted.found;
    let descriptor = wanted.from.find(&found.artefact.digest).await;
    let read = match descriptor {
        Ok(descriptor) => wanted.from.read_manifest(&descriptor).await,
        Err(error) => Err(error),
    };
    read.map_err(|error| not_fetched(&error))
}

/// A disk image: one file, whose bytes are the layers.
async fn chunked(
    wanted: &Wanted,
    parsed: &ParsedManifest,
    text: &str,
    place: &Path,
    session: &Session,
) -> Result<Taken, Failure> {
    let file = ChunkedFile::read(parsed, &wanted.from).await;
    let file = file.map_err(|error| Failure::not_copied(&error))?;
    let into_directory = text.ends_with('/') || place.is_dir();
    let place = if into_directory { place.join(&file.name) } else { place.to_owned() };
    let overwrite = if wanted.force { Overwrite::Forced } else { Overwrite::Refused };
    let transfer = Transfer::told(&session.output, "pull");
    let written = file.write(&parsed.layers, &place, &wanted.from, overwrite, &transfer.listener()).await;
    transfer.finish();
    Ok(Taken { place, written: written.map_err(failed)? })
}

async fn named(
    wanted: &Wanted,
    parsed: &ParsedManifest,
    text: &str,
    place: &Path,
    session: &Session,
) -> Result<Taken, Failure> {
    let into_directory = text.ends_with('/') || place.is_dir();
    let files = match (files::named(parsed), parsed.layers.as_slice()) {
        (Ok(files), _) if files.len() > 1 || into_directory => files::below(place, &files).map_err(failed)?,
        (Ok(files), _) => files.into_iter().map(|file| (place.to_owned(), file.blob)).collect(),
        // One file without a name gets the one that it is given; the layer of an image is no file.
        (Err(InvalidFiles::Unnamed), [layer]) if !into_directory && !is_image(parsed) => {
            vec![(place.to_owned(), layer.clone())]
        }
        (Err(error), _) => {
            let message = format!("{} cannot be taken out as files", wanted.found.artefact.name());
            return Err(Failure::new(Exit::Usage, message).because([error.to_string()]).hint(WHOLE));
        }
    };
    let written = fetch(wanted, &files, session).await?;
    Ok(Taken { place: place.to_owned(), written })
}

fn is_image(parsed: &ParsedManifest) -> bool {
    parsed.layers.iter().any(|layer| {
        let kind = &layer.media_type;
        kind.starts_with("application/vnd.oci.image.layer.") || kind.starts_with("application/vnd.docker.")
    })
}

async fn fetch(
    wanted: &Wanted,
    files: &[(PathBuf, Descriptor)],
    session: &Session,
) -> Result<Written, Failure> {
    let overwrite = if wanted.force { Overwrite::Forced } else { Overwrite::Refused };
    let transfer = Transfer::told(&session.output, "pull");
    let written = files::write(files, &wanted.from, overwrite, &transfer.listener()).await;
    transfer.finish();
    written.map_err(failed)
}

fn failed(error: FilesError) -> Failure {
    match error {
        FilesError::Differ { paths } => in_the_way(&paths),
        FilesError::Fetch { .. } => {
            Failure::not_copied(&error).hint("run it again: what arrived is not fetched again")
        }
        _ => Failure::from_error(Exit::Usage, &error),
    }
}

/// Something else is where something is to be written.
pub(super) fn in_the_way(paths: &[PathBuf]) -> Failure {
    let there = paths.iter().map(|path| format!("{} is something else", path.display()));
    Failure::new(Exit::Usage, "nothing was written: it would replace what is there")
        .because(there)
        .hint("name another place, or --force")
}

/// A place beside another one, for what arrives over several attempts.
pub(super) fn beside(place: &Path) -> Result<PathBuf, Failure> {
    let name = place.file_name().ok_or_else(|| Failure::usage(format!("{} has no name", place.display())))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".semel-pull");
    Ok(place.with_file_name(hidden))
}

/// An archive: its layers are fetched beside the directory, unpacked there, and appear there in one step.
async fn tree(
    wanted: &Wanted,
    parsed: &ParsedManifest,
    place: &Path,
    session: &Session,
) -> Result<Taken, Failure> {
    let place = place.components().collect::<PathBuf>();
    let scratch = beside(&place)?;
    let layers: Vec<(PathBuf, Descriptor)> = parsed
        .layers
        .iter()
        .map(|layer| (scratch.join(layer.digest.as_str().replacen(':', "-", 1)), layer.clone()))
        .collect();
    fetch(wanted, &layers, session).await?;
    let bytes = layers.iter().fold(0_u64, |sum, (_, layer)| sum.saturating_add(layer.size));
    let (to, force) = (place.clone(), wanted.force);
    let (kept, here) = (scratch.clone(), session.settings.directory().to_owned());
    let put = tokio::task::spawn_blocking(move || unpack(&layers, &kept, &to, &here, force)).await;
    let put = put.unwrap_or_else(|panic| Err(Failure::fault(panic.to_string())));
    // The next pull can use the layers, unless they are broken.
    let is_of_use = put.as_ref().is_err_and(|failure| failure.exit != Exit::Verification);
    if !is_of_use {
        // What stays behind is in the way of nothing.
        drop(fs::remove_dir_all(&scratch));
    }
    let written = match put? {
        true => Written { files: parsed.layers.len(), bytes, existing: 0 },
        false => Written { files: 0, bytes: 0, existing: parsed.layers.len() },
    };
    Ok(Taken { place, written })
}

/// Unpacks layers and puts the tree in its place; `false`: the same was there.
fn unpack(
    layers: &[(PathBuf, Descriptor)],
    scratch: &Path,
    place: &Path,
    here: &Path,
    force: bool,
) -> Result<bool, Failure> {
    let write = |error: &io::Error| Failure::from_error(Exit::Fault, error);
    let unpacked = tempfile::TempDir::with_prefix_in("tree", scratch).map_err(|error| write(&error))?;
    let tree = unpacked.path().join("tree");
    fs::create_dir(&tree).map_err(|error| write(&error))?;
    for (file, layer) in layers {
        unpack_file(file, &tree).map_err(|error| {
            Failure::from_error(Exit::Verification, &error)
                .because([format!("it is in layer {}", layer.digest)])
        })?;
    }
    let occupied = match fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => place.symlink_metadata().is_ok(),
    };
    if place.symlink_metadata().is_ok() {
        let difference = first_difference(&tree, place).map_err(|error| write(&error))?;
        match difference {
            None => return Ok(false),
            Some(path) if occupied && !force => return Err(in_the_way(&[path])),
            Some(_) => {}
        }
    }
    if place.canonicalize().is_ok_and(|place| here.canonicalize().is_ok_and(|here| here.starts_with(place))) {
        return Err(Failure::usage("a directory cannot be replaced from within").hint("name a new one"));
    }
    replace(&tree, place).map_err(|error| write(&error))?;
    Ok(true)
}

/// Puts the tree where something may be. What was there goes only when the tree is in its place; until then it is there, or
/// beside it, whatever happens.
fn replace(tree: &Path, place: &Path) -> io::Result<()> {
    if place.symlink_metadata().is_err() {
        return durable::rename_into_place(tree, place);
    }
    match durable::exchange(tree, place) {
        // What was there lies where the tree lay, and goes with it.
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            replace_in_steps(tree, place)
        }
        Err(error) => Err(error),
    }
}

/// For file systems that cannot exchange two names.
fn replace_in_steps(tree: &Path, place: &Path) -> io::Result<()> {
    let aside = place.with_file_name(durable::temporary_name(".semel-before-"));
    durable::rename_into_place(place, &aside)?;
    if let Err(error) = durable::rename_into_place(tree, place) {
        return Err(match durable::rename_into_place(&aside, place) {
            Ok(()) => error,
            Err(_) => {
                io::Error::new(error.kind(), format!("{error}; what was there is at {} now", aside.display()))
            }
        });
    }
    match aside.symlink_metadata()?.is_dir() {
        true => fs::remove_dir_all(&aside),
        false => fs::remove_file(&aside),
    }
}

/// The first path of `there` that is not as in `wanted`: its kind, bytes, target, or whether it can be executed.
fn first_difference(wanted: &Path, there: &Path) -> io::Result<Option<PathBuf>> {
    let (left, right) = (fs::symlink_metadata(wanted)?, fs::symlink_metadata(there)?);
    let differs = || Ok(Some(there.to_owned()));
    if left.file_type() != right.file_type() {
        return differs();
    }
    if left.is_symlink() {
        return if fs::read_link(wanted)? == fs::read_link(there)? { Ok(None) } else { differs() };
    }
    if left.is_file() {
        let runs = |metadata: &fs::Metadata| metadata.permissions().mode() & 0o111 != 0;
        let same = left.len() == right.len() && runs(&left) == runs(&right) && same_bytes(wanted, there)?;
        return if same { Ok(None) } else { differs() };
    }
    let mut names = names_in(wanted)?;
    names.extend(names_in(there)?);
    names.sort();
    names.dedup();
    for name in names {
        let (wanted, there) = (wanted.join(&name), there.join(&name));
        if wanted.symlink_metadata().is_err() || there.symlink_metadata().is_err() {
            return Ok(Some(there));
        }
        if let Some(path) = first_difference(&wanted, &there)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Whether two files of one length have the same bytes.
fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    use std::io::Read as _;
    let mut one = fs::File::open(one)?;
    let mut other = fs::File::open(other)?;
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_the_place_of_whatever_is_there_in_one_step_or_in_several() {
        for put in [replace, replace_in_steps] {
            let dir = tempfile::tempdir().unwrap();
            let (tree, place) = (dir.path().join("tree"), dir.path().join("place"));
            fs::create_dir_all(place.join("old")).unwrap();
            fs::create_dir_all(tree.join("new")).unwrap();
            put(&tree, &place).unwrap();
            assert_eq!(names_in(&place).unwrap(), ["new"]);
            assert!(!tree.join("new").exists());
        }
    }

    #[test]
    fn what_was_there_stays_when_the_tree_cannot_take_its_place() {
        for put in [replace, replace_in_steps] {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().join("place");
            fs::create_dir_all(place.join("old")).unwrap();
            put(&dir.path().join("gone"), &place).unwrap_err();
            assert_eq!(names_in(&place).unwrap(), ["old"]);
        }
    }
}

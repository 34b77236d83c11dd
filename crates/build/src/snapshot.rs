//! Snapshot: the source tree as it was laid out, kept beside the artefact that was built from it.
//!
//! It is packed before the first command runs, by the rules of packaging format 1, so that the same commit gives the same
//! bytes. It holds what the source tree holds: neither the project file nor the values of environments. Described in
//! docs/format.md, "Source snapshot".

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::Layout;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use tar::EntryType;

use crate::checkout::{self, CheckoutError, LaidOut};
use crate::package::{self, PackageError, Packaged, PackagedLayer};
use crate::source::Source;

/// The annotation that has the digest of the source tree.
pub const SOURCE_TREE_ANNOTATION: &str = "dev.semel.source-tree";

/// A source tree that was packed, and not yet attached to anything.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    layer: PackagedLayer,
    file: PathBuf,
}

/// Packs a source tree into `file`, which does not exist yet.
pub(crate) fn pack(source: &Source, laid: &LaidOut, file: PathBuf) -> Result<Packed, PackageError> {
    let mtime = u64::try_from(source.committed_seconds).unwrap_or(0);
    let layer = package::pack_tree(&laid.files, mtime, &file)?;
    Ok(Packed { layer, file })
}

/// Puts a packed source tree beside its artefact in the layout; gives the digest of the manifest that says so.
pub(crate) async fn attach(
    packed: &Packed,
    source: &Source,
    artefact: &Packaged,
    layout_dir: &Path,
) -> Result<Digest, PackageError> {
    let failed = |source| PackageError::Layout { source };
    let layout = Layout::open(layout_dir).await.map_err(failed)?;
    package::put_in_place(&packed.file, &layout.blob_path(&packed.layer.digest))?;
    layout.add_bytes(media_type::OCI_EMPTY, b"{}").await.map_err(failed)?;
    let subject = Descriptor::new(&artefact.media_type, artefact.manifest.clone(), artefact.size);
    let layer = Descriptor::new(media_type::OCI_LAYER_GZIP, packed.layer.digest.clone(), packed.layer.size);
    let annotations = Annotations::from([
        ("org.opencontainers.image.created".to_owned(), package::timestamp(source.committed_seconds)),
        ("org.opencontainers.image.revision".to_owned(), source.commit.to_string()),
        (SOURCE_TREE_ANNOTATION.to_owned(), source.source_tree().to_string()),
    ]);
    let manifest =
        ImageManifest::referrer(&subject, media_type::SEMEL_SOURCE, vec![layer], annotations).encode();
    let added =
        layout.add_manifest(&manifest.descriptor.digest, &manifest.descriptor.media_type, &manifest.bytes);
    added.await.map_err(failed)?;
    Ok(manifest.descriptor.digest)
}

/// Why a snapshot cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is no snapshot, or broken.
    #[error("cannot read the source snapshot")]
    Read(#[source] io::Error),
    /// It has something that no source tree has.
    #[error("the source snapshot has an entry `{path}` that is no file, directory or link")]
    Special {
        /// The entry.
        path: String,
    },
    /// A name that would never be laid out.
    #[error("the source snapshot cannot be restored")]
    Name(#[source] CheckoutError),
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The tar stream of a snapshot that is a file.
pub fn tar_of(file: &Path) -> io::Result<impl Read + use<>> {
    Ok(GzDecoder::new(BufReader::with_capacity(64 * 1024, File::open(file)?)))
}

/// Restores a snapshot into `dest`, a directory that does not exist yet; gives the number of files. Contents, kinds,
/// permissions and times are those of the tree that was built from.
pub fn restore(file: &Path, dest: &Path) -> Result<usize, SnapshotError> {
    let stream = tar_of(file).map_err(SnapshotError::Read)?;
    let mut archive = tar::Archive::new(stream);
    fs::create_dir(dest).map_err(|source| SnapshotError::Write { path: dest.to_owned(), source })?;
    let (mut links, mut directories, mut files) = (Vec::new(), Vec::new(), 0);
    for entry in archive.entries().map_err(SnapshotError::Read)? {
        let mut entry = entry.map_err(SnapshotError::Read)?;
        let name = entry.path_bytes().into_owned();
        let name = name.strip_suffix(b"/").unwrap_or(&name);
        checkout::check_name(name).map_err(SnapshotError::Name)?;
        let path = dest.join(OsStr::from_bytes(name));
        let seconds = entry.header().mtime().map_err(SnapshotError::Read)?;
        match entry.header().entry_type() {
            EntryType::Directory => {
                make_dir(&path).map_err(|source| SnapshotError::Write { path: path.clone(), source })?;
                directories.push((path, seconds));
            }
            EntryType::Regular => {
                write(&mut entry, &path, seconds)?;
                files += 1;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
                links.push((path, target, seconds));
                files += 1;
            }
            _ => return Err(SnapshotError::Special { path: String::from_utf8_lossy(name).into_owned() }),
        }
    }
    // Links come last: no file is ever written through one.
    for (path, target, seconds) in links {
        let made = symlink(OsStr::from_bytes(&target), &path).and_then(|()| date(&path, seconds));
        made.map_err(|source| SnapshotError::Write { path, source })?;
    }
    for (path, seconds) in directories.into_iter().rev() {
        date(&path, seconds).map_err(|source| SnapshotError::Write { path, source })?;
    }
    Ok(files)
}

fn make_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn write(entry: &mut tar::Entry<'_, impl Read>, path: &Path, seconds: u64) -> Result<(), SnapshotError> {
    let unwritten = |source| SnapshotError::Write { path: path.to_owned(), source };
    let mode = entry.header().mode().map_err(SnapshotError::Read)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritten)?;
    let expected = entry.size();
    let copied = io::copy(entry, &mut file).map_err(unwritten)?;
    if copied != expected {
        return Err(SnapshotError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    file.set_permissions(Permissions::from_mode(mode & 0o755)).map_err(unwritten)?;
    date(path, seconds).map_err(unwritten)
}

fn date(path: &Path, seconds: u64) -> io::Result<()> {
    checkout::date(path, i64::try_from(seconds).unwrap_or(i64::MAX))
}

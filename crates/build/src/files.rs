//! Files that something else made, as an artefact: a serverless package, a disk image, a Helm chart, a file tree, or files
//! as they are.
//!
//! The bytes are hashed where they lie and described by a manifest; only a file tree is packed. The same files give the
//! same digest, whoever packages them, wherever, whenever: no time, no owner and no version is in the bytes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use semel_model::name::{ComponentName, Tag};
use semel_oci::bundle::{Bundle, Content};
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::files::TITLE;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use semel_oci::source::Piece;

use crate::chart::{Chart, InvalidChart};
use crate::collect::{self, CollectError};
use crate::disk::{self, Format, InvalidDisk};
use crate::package::{self, ARCHIVE_CONFIG, PackageError};
use crate::zip::ZIP;
use crate::zip::read::{self, InvalidZip};

const ANY_BYTES: &str = "application/octet-stream";

/// What kind of artefact files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Files as they are.
    File,
    /// A serverless package, byte for byte.
    Zip,
    /// A disk image, qcow2 or raw.
    Vm,
    /// A Helm chart.
    Chart,
    /// A file tree.
    Archive,
}

/// What is packaged.
#[derive(Debug, Clone, Copy)]
pub struct FilesRequest<'a> {
    /// One or several files, or one directory.
    pub paths: &'a [PathBuf],
    /// The kind, if the files shall not say it.
    pub kind: Option<FileKind>,
    /// The `artifactType`, if it is not that of the kind.
    pub artifact_type: Option<&'a str>,
    /// Where it is going to be stored, which must be right for a chart.
    pub component: &'a ComponentName,
    /// Under which name.
    pub tag: &'a Tag,
    /// Where a file tree is packed: a name beside which nothing lies, in a directory that exists.
    pub scratch: &'a Path,
}

/// Files as an artefact.
#[derive(Debug, Clone)]
pub struct PackagedFiles {
    /// What kind it has.
    pub kind: FileKind,
    /// Its manifest and its blobs.
    pub bundle: Bundle,
}

/// Why files cannot be an artefact.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files cannot have the kind.
    #[error("{path} cannot be pushed as {kind}: {reason}")]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind.
        kind: FileKind,
        /// Why not.
        reason: String,
    },
    /// Two files of one name.
    #[error("two files are named `{name}`: {first} and {second}")]
    Twice {
        /// The name.
        name: String,
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A file without a name that could be written down.
    #[error("{path} has no name that is text")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A disk image.
    #[error("{path} cannot be pushed as it is")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: InvalidDisk,
    },
    /// A serverless package.
    #[error("{path} cannot be pushed as a zip")]
    Zip {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: InvalidZip,
    },
    /// A chart.
    #[error("{path} cannot be pushed as a chart")]
    Chart {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: InvalidChart,
    },
    /// A file tree.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// A file tree.
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl FilesError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk { source, .. } => source.hint().map(str::to_owned),
            Self::Collect(error) => error.hint(),
            Self::Package(error) => error.hint(),
            _ => None,
        }
    }
}

impl FileKind {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Zip => "zip",
            Self::Vm => "vm",
            Self::Chart => "chart",
            Self::Archive => "archive",
        }
    }

    /// The `artifactType`; that of a chart is the type of its configuration.
    fn artifact_type(self) -> Option<&'static str> {
        match self {
            Self::File => Some(media_type::SEMEL_FILE),
            Self::Zip => Some(media_type::SEMEL_ZIP),
            Self::Vm => Some(media_type::SEMEL_VM),
            Self::Chart => None,
            Self::Archive => Some(media_type::SEMEL_ARCHIVE),
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Finds out what the files are, hashes them and describes them.
pub async fn package(request: &FilesRequest<'_>) -> Result<PackagedFiles, FilesError> {
    let kind = match request.kind {
        Some(kind) => kind,
        None => kind_of(request.paths)?,
    };
    let parts = match (kind, request.paths) {
        (FileKind::Archive, [dir]) if dir.is_dir() => tree(dir, request.scratch).await?,
        (FileKind::File, paths) => plain(paths).await?,
        (_, [path]) if !path.is_dir() => one(kind, path, request).await?,
        (_, paths) => return Err(unfit(kind, paths)),
    };
    let manifest = ImageManifest {
        artifact_type: request.artifact_type.or(kind.artifact_type()).map(str::to_owned),
        config: parts.config.0,
        layers: parts.layers.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
        subject: None,
        annotations: parts.annotations,
    };
    let layers = parts.layers.into_iter().map(|(layer, piece)| (layer.digest, Content::Piece(piece)));
    let config = (manifest.config.digest.clone(), Content::Bytes(parts.config.1));
    let blobs: HashMap<_, _> = layers.chain([config]).collect();
    let shown: Vec<_> = request.paths.iter().map(|path| path.display().to_string()).collect();
    Ok(PackagedFiles { kind, bundle: Bundle::of(shown.join(", "), &manifest.encode(), blobs) })
}

/// What a manifest is made of.
struct Parts {
    config: (Descriptor, Bytes),
    layers: Vec<(Descriptor, Piece)>,
    annotations: Annotations,
}

/// What files are by themselves: by name, where that is what everybody goes by, and by their first bytes.
fn kind_of(paths: &[PathBuf]) -> Result<FileKind, FilesError> {
    let [path] = paths else { return Ok(FileKind::File) };
    if path.is_dir() {
        return Ok(FileKind::Archive);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let head = head(path)?;
    Ok(match () {
        () if ends(&[".zip"]) => FileKind::Zip,
        () if ends(&[".qcow2", ".raw", ".img"]) && Format::is_evident(&head) => FileKind::Vm,
        () if ends(&[".tgz"]) && holds_chart(path)? => FileKind::Chart,
        () => FileKind::File,
    })
}

fn holds_chart(path: &Path) -> Result<bool, FilesError> {
    match Chart::read(path) {
        Ok(chart) => Ok(chart.is_some()),
        // It is called `.tgz` and is something else, or broken: then it is a file as any other.
        Err(InvalidChart::Read(_)) => Ok(false),
        Err(source) => Err(FilesError::Chart { path: path.to_owned(), source }),
    }
}

fn unfit(kind: FileKind, paths: &[PathBuf]) -> FilesError {
    let directory = paths.iter().find(|path| path.is_dir());
    let reason = match (kind, directory) {
        (FileKind::Archive, None) => "it is no directory",
        (_, Some(_)) if paths.len() == 1 => "it is a directory",
        _ => "it must be the only one",
    };
    let path = directory.or(paths.first()).cloned().unwrap_or_default();
    FilesError::Kind { path, kind, reason: reason.to_owned() }
}

async fn plain(paths: &[PathBuf]) -> Result<Parts, FilesError> {
    let mut named: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for path in paths {
        if path.is_dir() {
            return Err(unfit(FileKind::File, paths));
        }
        let name = name_of(path)?;
        if let Some(first) = named.insert(name.clone(), path) {
            return Err(FilesError::Twice { name, first: first.clone(), second: path.clone() });
        }
    }
    let mut layers = Vec::new();
    for (name, path) in named {
        layers.push(layer(path, ANY_BYTES, Some(name)).await?);
    }
    Ok(Parts { config: empty(), layers, annotations: Annotations::new() })
}

async fn one(kind: FileKind, path: &Path, request: &FilesRequest<'_>) -> Result<Parts, FilesError> {
    let media_type = match kind {
        FileKind::Chart => return chart(path, request).await,
        FileKind::Zip => {
            let checked = std::fs::File::open(path).and_then(|mut file| read::check(&mut file));
            checked
                .map_err(|source| FilesError::Read { path: path.to_owned(), source })?
                .map_err(|source| FilesError::Zip { path: path.to_owned(), source })?;
            ZIP
        }
        FileKind::Vm => {
            let format = Format::of(&head(path)?);
            format.map_err(|source| FilesError::Disk { path: path.to_owned(), source })?.media_type()
        }
        FileKind::File | FileKind::Archive => return Err(unfit(kind, request.paths)),
    };
    let layers = vec![layer(path, media_type, Some(name_of(path)?)).await?];
    Ok(Parts { config: empty(), layers, annotations: Annotations::new() })
}

/// As `helm push` stores it, so that Helm finds it.
async fn chart(path: &Path, request: &FilesRequest<'_>) -> Result<Parts, FilesError> {
    let invalid = |source| FilesError::Chart { path: path.to_owned(), source };
    let chart = Chart::read(path).map_err(invalid)?.ok_or_else(|| FilesError::Kind {
        path: path.to_owned(),
        kind: FileKind::Chart,
        reason: "there is no Chart.yaml in it".to_owned(),
    })?;
    chart.check_name(request.component, request.tag).map_err(invalid)?;
    let config = Bytes::from(chart.config());
    Ok(Parts {
        config: (Descriptor::of(media_type::HELM_CONFIG, &config), config),
        layers: vec![layer(path, media_type::HELM_CHART, None).await?],
        annotations: chart.annotations(),
    })
}

async fn tree(dir: &Path, scratch: &Path) -> Result<Parts, FilesError> {
    let files = Arc::new(collect::tree(dir)?);
    let packed = package::tree(&files, scratch).await?;
    let read = |source| FilesError::Read { path: scratch.to_owned(), source };
    let piece = Piece::whole(scratch).map_err(read)?;
    let layer = Descriptor::new(media_type::OCI_LAYER_GZIP, packed.digest, packed.size);
    let config = Bytes::from(package::archive_config(&[], &[]));
    Ok(Parts {
        config: (Descriptor::of(ARCHIVE_CONFIG, &config), config),
        layers: vec![(layer, piece)],
        annotations: Annotations::new(),
    })
}

fn empty() -> (Descriptor, Bytes) {
    (Descriptor::empty(), Bytes::from_static(b"{}"))
}

async fn layer(
    path: &Path,
    media_type: &str,
    title: Option<String>,
) -> Result<(Descriptor, Piece), FilesError> {
    let read = |source| FilesError::Read { path: path.to_owned(), source };
    let piece = Piece::whole(path).map_err(read)?;
    let digest = piece.digest().await.map_err(read)?;
    let mut descriptor = Descriptor::new(media_type, digest, piece.size());
    descriptor.annotations.extend(title.map(|title| (TITLE.to_owned(), title)));
    Ok((descriptor, piece))
}

fn head(path: &Path) -> Result<Vec<u8>, FilesError> {
    let mut head = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(disk::HEAD_BYTES as u64).read_to_end(&mut head));
    read.map_err(|source| FilesError::Read { path: path.to_owned(), source })?;
    Ok(head)
}

fn name_of(path: &Path) -> Result<String, FilesError> {
    let name =
        path.file_name().and_then(|name| name.to_str()).filter(|name| !name.contains(char::is_control));
    name.map(str::to_owned).ok_or_else(|| FilesError::Name { path: path.to_owned() })
}

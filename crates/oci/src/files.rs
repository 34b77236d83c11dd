//! The files of an artefact whose layers are files: each has its name in `org.opencontainers.image.title` (image-spec 1.1
//! `annotations.md`), as ORAS and Semel write it; a Helm chart is named by its own name and version.
//!
//! Which files there are is decided first, from the manifest alone; a name that leads out of the directory is refused.
//! Then they are brought there, several at a time, each whole or not at all, and what was there already stays.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::client::Pushed;
use crate::copy::{Counted, Event, Progress, Source};
use crate::descriptor::Descriptor;
use crate::manifest::ParsedManifest;
use crate::media_type;
use crate::partial::{self, Existing, Holes, PartialError};
use crate::source::{BlobSource, Piece};

/// The annotation by which a layer has the name of a file (image-spec 1.1 `annotations.md`).
pub const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";
/// How many files are on their way at the same time.
const PARALLEL: usize = 4;

/// A file of an artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path, relative and inside.
    pub name: PathBuf,
    /// Its bytes.
    pub blob: Descriptor,
}

/// Why an artefact has no files to take out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFiles {
    /// It is an image, an index or something that only its own tools know.
    #[error("its layers have no file names")]
    Unnamed,
    /// A name that would lead somewhere else.
    #[error("its file name `{name}` is not a relative path that stays inside")]
    Name {
        /// What the annotation says, in part.
        name: String,
    },
    /// Two files on one path.
    #[error("two of its files would be `{name}`")]
    Twice {
        /// The path.
        name: String,
    },
}

/// Why files were not brought to where they should be. What arrived is whole and is found by the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// They are there and are others.
    #[error("{} is there already and is something else", shown(.paths))]
    Differ {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes did not come, or others came.
    #[error("cannot fetch what is to be written to {path}")]
    Fetch {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What becomes of files that are there and are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing is written, and they are named.
    Refused,
    /// They are replaced, each in one step.
    Forced,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// How many files were written.
    pub files: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many were there already.
    pub existing: usize,
}

/// The files of an artefact, as its manifest names them, sorted.
pub fn named(manifest: &ParsedManifest) -> Result<Vec<NamedFile>, InvalidFiles> {
    let mut files = BTreeMap::new();
    for blob in &manifest.layers {
        let name = title_of(manifest, blob).ok_or(InvalidFiles::Unnamed)?;
        let path = inner_path(&name).ok_or_else(|| InvalidFiles::Name { name: short(&name) })?;
        if files.insert(path, blob.clone()).is_some() {
            return Err(InvalidFiles::Twice { name: short(&name) });
        }
    }
    // A file cannot lie below another one. Sorted by components, what lies below comes right behind.
    for (above, below) in files.keys().zip(files.keys().skip(1)) {
        if below.starts_with(above) {
            return Err(InvalidFiles::Twice { name: short(&above.to_string_lossy()) });
        }
    }
    match files.is_empty() {
        true => Err(InvalidFiles::Unnamed),
        false => Ok(files.into_iter().map(|(name, blob)| NamedFile { name, blob }).collect()),
    }
}

/// Where the files lie in a directory. What lies there already must not lead elsewhere: a link is no directory.
pub fn below(directory: &Path, files: &[NamedFile]) -> Result<Vec<(PathBuf, Descriptor)>, FilesError> {
    let mut placed = Vec::new();
    for file in files {
        let above = file.name.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        for above in above.map(|above| directory.join(above)) {
            if above.symlink_metadata().is_ok_and(|there| !there.is_dir()) {
                return Err(FilesError::Write { path: above, source: io::ErrorKind::NotADirectory.into() });
            }
        }
        placed.push((directory.join(&file.name), file.blob.clone()));
    }
    Ok(placed)
}

/// Brings files to where they should be: each blob with the path that it gets. Nothing is written when one of the paths
/// holds something else, unless that is to be replaced. What a killed attempt left is not fetched again.
pub async fn write(
    files: &[(PathBuf, Descriptor)],
    source: &Source,
    overwrite: Overwrite,
    progress: &Progress,
) -> Result<Written, FilesError> {
    let bytes = files.iter().fold(0_u64, |sum, (_, blob)| sum.saturating_add(blob.size));
    progress.tell(Event::Planned { blobs: files.len(), bytes });
    let mut missing = Vec::new();
    let mut differ = Vec::new();
    for (path, blob) in files {
        match look(path, blob).await? {
            Found::Same => progress.tell(Event::Done(blob.clone(), Pushed::Existed)),
            Found::Nothing => missing.push((path, blob, Existing::Kept)),
            Found::Other if overwrite == Overwrite::Forced => missing.push((path, blob, Existing::Replaced)),
            Found::Other => differ.push(path.clone()),
        }
    }
    if !differ.is_empty() {
        return Err(FilesError::Differ { paths: differ });
    }
    let fetched: Vec<u64> = stream::iter(&missing)
        .map(|(path, blob, existing)| fetch(path, blob, *existing, source, progress))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    Ok(Written { files: fetched.len(), bytes: fetched.iter().sum(), existing: files.len() - fetched.len() })
}

enum Found {
    Nothing,
    Same,
    Other,
}

async fn look(path: &Path, blob: &Descriptor) -> Result<Found, FilesError> {
    let read = |source| FilesError::Read { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(source) => Err(read(source)),
        Ok(there) if there.is_dir() => Err(read(io::ErrorKind::IsADirectory.into())),
        Ok(there) if !there.is_file() || there.len() != blob.size => Ok(Found::Other),
        Ok(_) => {
            let piece = Piece::whole(path).map_err(read)?;
            let digest = piece.digest_with(blob.digest.algorithm()).await.map_err(read)?;
            Ok(if digest == blob.digest { Found::Same } else { Found::Other })
        }
    }
}

async fn fetch(
    path: &Path,
    blob: &Descriptor,
    existing: Existing,
    source: &Source,
    progress: &Progress,
) -> Result<u64, FilesError> {
    let from = Counted::new(source, blob, progress);
    receive(blob, &from, path, existing, Holes::Written).await?;
    progress.tell(Event::Done(blob.clone(), Pushed::Sent));
    Ok(blob.size)
}

/// Brings the bytes of one file to where they should be; `false`: they were there.
pub(crate) async fn bring(
    wanted: &Descriptor,
    from: &dyn BlobSource,
    path: &Path,
    overwrite: Overwrite,
    holes: Holes,
) -> Result<bool, FilesError> {
    let existing = match (look(path, wanted).await?, overwrite) {
        (Found::Same, _) => return Ok(false),
        (Found::Nothing, _) => Existing::Kept,
        (Found::Other, Overwrite::Forced) => Existing::Replaced,
        (Found::Other, Overwrite::Refused) => {
            return Err(FilesError::Differ { paths: vec![path.to_owned()] });
        }
    };
    receive(wanted, from, path, existing, holes).await?;
    Ok(true)
}

async fn receive(
    wanted: &Descriptor,
    from: &dyn BlobSource,
    path: &Path,
    existing: Existing,
    holes: Holes,
) -> Result<(), FilesError> {
    let write = |source| FilesError::Write { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    tokio::fs::create_dir_all(directory).await.map_err(write)?;
    match partial::receive(wanted, from, directory, path, existing, holes).await {
        Ok(_) => Ok(()),
        Err(PartialError::Write { path, source }) => Err(FilesError::Write { path, source }),
        Err(PartialError::Source(source)) => Err(FilesError::Fetch { path: path.to_owned(), source }),
        Err(PartialError::WrongBytes(mismatch)) => {
            let source = io::Error::new(io::ErrorKind::InvalidData, mismatch);
            Err(FilesError::Fetch { path: path.to_owned(), source })
        }
        Err(PartialError::Taken) => Err(FilesError::Differ { paths: vec![path.to_owned()] }),
    }
}

/// The name of a layer's file. Helm names its charts in the annotations of the manifest.
fn title_of(manifest: &ParsedManifest, blob: &Descriptor) -> Option<String> {
    let own = blob.annotations.get(TITLE).cloned();
    own.or_else(|| {
        let chart = blob.media_type == media_type::HELM_CHART;
        let annotation = |key| manifest.annotations.get(key).filter(|_| chart);
        Some(format!("{}-{}.tgz", annotation(TITLE)?, annotation(VERSION)?))
    })
}

/// A relative path whose every component is a name.
pub(crate) fn inner_path(name: &str) -> Option<PathBuf> {
    let path = Path::new(name);
    let inside = !name.is_empty()
        && !name.contains(['\0', '\n'])
        && !name.ends_with('/')
        && path.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| path.components().collect())
}

/// The beginning of somebody else's words.
fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn shown(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().take(5).map(|path| path.display().to_string()).collect();
    let more = paths.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ImageManifest;

    fn named_by(titles: &[&str]) -> Result<Vec<String>, InvalidFiles> {
        let layers = titles.iter().map(|title| {
            let mut blob = Descriptor::of("application/octet-stream", title.as_bytes());
            blob.annotations.insert(TITLE.to_owned(), (*title).to_owned());
            blob
        });
        let manifest = ImageManifest {
            artifact_type: Some("application/x".into()),
            config: Descriptor::empty(),
            layers: layers.collect(),
            subject: None,
            annotations: BTreeMap::new(),
        };
        let parsed = ParsedManifest::parse(&manifest.encode().bytes, None).unwrap();
        let files = named(&parsed)?;
        Ok(files.into_iter().map(|file| file.name.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn files_are_named_by_their_titles_and_no_name_leads_out() {
        assert_eq!(named_by(&["b", "a/x", "a/y"]).unwrap(), ["a/x", "a/y", "b"]);
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a/..", ".", "./", "a/", "a\0b", "a\nb"] {
            assert!(matches!(named_by(&[bad]), Err(InvalidFiles::Name { .. })), "{bad:?}");
        }
        for twice in [["a", "a//"], ["a", "a"], ["a", "a/b"], ["a/b", "a/b/c"]] {
            assert!(named_by(&twice).is_err(), "{twice:?}");
        }
        assert_eq!(named_by(&[]), Err(InvalidFiles::Unnamed));
    }
}

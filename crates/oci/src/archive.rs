//! Artefacts in one file: a tar of an OCI image layout (image-spec 1.1 `image-layout.md`), as `skopeo`, `podman` and
//! `buildx` write it, and what `docker save` writes (Docker "Image Tarball Specification" 1.2).
//!
//! An archive is read where it lies: its table of entries is walked once, and blobs are stretches of the file. It is read
//! as something that anyone may have made: no name in it becomes a path.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use semel_model::digest::Digest;
use serde::Deserialize;
use tar::EntryType;

use crate::attached;
use crate::bundle::{Bundle, Content};
use crate::compression::{Compression, MAGIC_BYTES};
use crate::copy::CopyError;
use crate::descriptor::{Annotations, Descriptor};
use crate::layout::{Layout, LayoutError, REF_NAME, Select};
use crate::manifest::{ImageManifest, Index, InvalidManifest, MAX_MANIFEST_BYTES, ParsedManifest};
use crate::media_type;
use crate::partial::{Existing, give_name, open_alone};
use crate::source::Piece;

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const DOCKER_INDEX: &str = "manifest.json";
/// More entries than any image has: what is said about each is held in memory.
const MAX_ENTRIES: usize = 1_000_000;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("cannot read the archive {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is an archive of something else.
    #[error("{path} is no archive of an image: {reason}")]
    Other {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// Its index is not well-formed.
    #[error("{path} has no valid index")]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// What is to be written in it cannot be read.
    #[error("cannot read what the archive {path} is made of")]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CopyError>,
    },
    /// It cannot be written.
    #[error("cannot write the archive {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens an archive of either format.
pub async fn open(path: &Path) -> Result<Bundle, ArchiveError> {
    let owned = path.to_owned();
    let listed = tokio::task::spawn_blocking(move || Contents::list(&owned)).await;
    let read = |source| ArchiveError::Read { path: path.to_owned(), source };
    let contents = listed.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(read)?;
    if contents.find(MARKER).is_some() {
        return contents.as_layout(path);
    }
    if contents.find(DOCKER_INDEX).is_some() {
        return contents.as_docker(path).await;
    }
    let reason = format!("it has neither `{MARKER}` nor `{DOCKER_INDEX}`");
    Err(ArchiveError::Other { path: path.to_owned(), reason })
}

/// Writes one artefact of a layout as an archive, durably and whole: its entry of that name in the index, what it needs, and
/// what is attached to it. What else lies in the layout stays out, so that the same gives the same bytes. A file that has the
/// name is replaced.
pub async fn write(
    layout: &Layout,
    digest: &Digest,
    name: Option<&str>,
    path: &Path,
) -> Result<(), ArchiveError> {
    let parts = Parts::of(layout, digest, name).await;
    let parts =
        parts.map_err(|source| ArchiveError::Layout { path: path.to_owned(), source: Box::new(source) })?;
    let (root, to) = (layout.root().to_owned(), path.to_owned());
    let written = tokio::task::spawn_blocking(move || write_tar(&root, &parts, &to)).await;
    let written = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    written.map_err(|source| ArchiveError::Write { path: path.to_owned(), source })
}

/// What goes from a layout into an archive.
struct Parts {
    /// The bytes of `index.json`.
    index: Vec<u8>,
    /// Paths in the layout, in order.
    blobs: Vec<String>,
}

impl Parts {
    async fn of(layout: &Layout, digest: &Digest, name: Option<&str>) -> Result<Self, CopyError> {
        let named = |entry: &&Descriptor| {
            entry.digest == *digest && entry.annotations.get(REF_NAME).map(String::as_str) == name
        };
        let entries = layout.entries().await?;
        let entry = match entries.iter().find(named) {
            Some(entry) => entry.clone(),
            None => layout.resolve(Select::Digest(digest)).await?,
        };
        let mut digests = BTreeSet::new();
        add_closure(layout, &entry, &mut digests).await?;
        for attached in attached::named(std::slice::from_ref(&entry), digest)? {
            add_closure(layout, &layout.resolve(Select::Digest(&attached)).await?, &mut digests).await?;
        }
        let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
        let mut blobs: Vec<String> = digests.iter().map(path).collect();
        blobs.sort_unstable();
        let index = Index {
            artifact_type: None,
            manifests: vec![entry],
            subject: None,
            annotations: Annotations::new(),
        };
        Ok(Self { index: index.encode().bytes.to_vec(), blobs })
    }
}

/// Adds what is reachable from a manifest and lies in the layout.
async fn add_closure(
    layout: &Layout,
    root: &Descriptor,
    digests: &mut BTreeSet<Digest>,
) -> Result<(), LayoutError> {
    let closure = layout.closure(root).await?;
    digests.extend(closure.manifests.into_iter().map(|manifest| manifest.descriptor.digest));
    digests.extend(closure.blobs.into_iter().map(|blob| blob.digest));
    for blob in closure.optional_blobs {
        if layout.blob_size(&blob.digest).await?.is_some() {
            digests.insert(blob.digest);
        }
    }
    Ok(())
}

/// What lies where in the file.
struct Contents {
    files: HashMap<String, Piece>,
    /// Entries that stand for others.
    links: HashMap<String, String>,
}

impl Contents {
    fn list(path: &Path) -> io::Result<Self> {
        let whole = Piece::whole(path)?;
        refuse_compressed(&whole)?;
        let mut archive = tar::Archive::new(std::fs::File::open(path)?);
        let mut contents = Self { files: HashMap::new(), links: HashMap::new() };
        for entry in archive.entries_with_seek()? {
            contents.add(&whole, &entry?)?;
        }
        Ok(contents)
    }

    fn add<R: Read>(&mut self, whole: &Piece, entry: &tar::Entry<'_, R>) -> io::Result<()> {
        // A name that is no text is none that we look for.
        let Some(name) = inner_name(&entry.path_bytes()) else { return Ok(()) };
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                let piece = whole.part(entry.raw_file_position(), entry.size())?;
                self.files.insert(name, piece);
            }
            EntryType::Link => {
                if let Some(to) = entry.link_name_bytes().and_then(|to| inner_name(&to)) {
                    self.links.insert(name, to);
                }
            }
            EntryType::Symlink => {
                let beside = Path::new(&name).parent().unwrap_or(Path::new(""));
                let to = entry.link_name_bytes().unwrap_or_default();
                let to = beside.join(std::ffi::OsStr::from_bytes(&to));
                if let Some(to) = inner_name(to.as_os_str().as_bytes()) {
                    self.links.insert(name, to);
                }
            }
            _ => {}
        }
        match self.files.len() + self.links.len() {
            0..=MAX_ENTRIES => Ok(()),
            _ => Err(io::Error::other(format!("it has more than {MAX_ENTRIES} entries"))),
        }
    }

    /// A file, also by another name.
    fn find(&self, name: &str) -> Option<&Piece> {
        let mut name = name;
        // Links may form a circle; old images have one step.
        for _ in 0..8 {
            match self.links.get(name) {
                Some(to) => name = to,
                None => return self.files.get(name),
            }
        }
        None
    }

    fn read_small(&self, name: &str, path: &Path) -> Result<Vec<u8>, ArchiveError> {
        let other = |reason| ArchiveError::Other { path: path.to_owned(), reason };
        let piece = self.find(name).ok_or_else(|| other(format!("it has no `{name}`")))?;
        if piece.size() > MAX_MANIFEST_BYTES as u64 {
            return Err(other(format!("`{name}` has {} bytes", piece.size())));
        }
        piece.read_now().map_err(|source| ArchiveError::Read { path: path.to_owned(), source })
    }

    fn as_layout(&self, path: &Path) -> Result<Bundle, ArchiveError> {
        let index = self.read_small(INDEX, path)?;
        let index = ParsedManifest::parse(&index, Some(media_type::OCI_INDEX))
            .map_err(|source| ArchiveError::Index { path: path.to_owned(), source })?;
        let blobs = self.files.keys().chain(self.links.keys()).filter_map(|name| {
            let digest = blob_digest(name)?;
            Some((digest, Content::Piece(self.find(name)?.clone())))
        });
        Ok(Bundle::claimed(path.display().to_string(), index.manifests, blobs.collect()))
    }

    /// The images of `docker save`, as OCI manifests over the layers that are there.
    async fn as_docker(&self, path: &Path) -> Result<Bundle, ArchiveError> {
        let index = self.read_small(DOCKER_INDEX, path)?;
        let images: Vec<DockerImage> = serde_json::from_slice(&index).map_err(|error| {
            ArchiveError::Other { path: path.to_owned(), reason: format!("`{DOCKER_INDEX}`: {error}") }
        })?;
        let mut blobs = HashMap::new();
        let mut entries = Vec::new();
        for image in images {
            let manifest = self.docker_manifest(&image, path, &mut blobs).await?.encode();
            let digest = manifest.descriptor.digest.clone();
            blobs.insert(digest, Content::Bytes(manifest.bytes));
            let names = image.repo_tags.unwrap_or_default();
            let named = names.iter().map(|name| {
                let mut entry = manifest.descriptor.clone();
                entry.annotations.insert(REF_NAME.to_owned(), tag_of(name).to_owned());
                entry
            });
            entries.extend(named);
            if names.is_empty() {
                entries.push(manifest.descriptor);
            }
        }
        Ok(Bundle::claimed(path.display().to_string(), entries, blobs).of_docker())
    }

    async fn docker_manifest(
        &self,
        image: &DockerImage,
        path: &Path,
        blobs: &mut HashMap<Digest, Content>,
    ) -> Result<ImageManifest, ArchiveError> {
        let config = Bytes::from(self.read_small(&image.config, path)?);
        let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
        blobs.insert(config_descriptor.digest.clone(), Content::Bytes(config));
        let mut layers = Vec::new();
        for name in &image.layers {
            let missing =
                || ArchiveError::Other { path: path.to_owned(), reason: format!("it has no layer `{name}`") };
            let piece = inner_name(name.as_bytes()).and_then(|name| self.find(&name)).ok_or_else(missing)?;
            let read = |source| ArchiveError::Read { path: path.to_owned(), source };
            let first = piece.first(MAGIC_BYTES).map_err(read)?;
            let digest = piece.digest().await.map_err(read)?;
            let media_type = Compression::of_bytes(&first).layer_type();
            layers.push(Descriptor::new(media_type, digest.clone(), piece.size()));
            blobs.insert(digest, Content::Piece(piece.clone()));
        }
        Ok(ImageManifest {
            artifact_type: None,
            config: config_descriptor,
            layers,
            subject: None,
            annotations: Annotations::new(),
        })
    }
}

/// One entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn refuse_compressed(whole: &Piece) -> io::Result<()> {
    match Compression::of_bytes(&whole.first(MAGIC_BYTES)?) {
        Compression::None => Ok(()),
        compression => Err(io::Error::other(format!("it is {compression}: uncompress it first"))),
    }
}

/// A name in the archive in one spelling. `None`: no text, or leading out of the archive.
fn inner_name(bytes: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    for part in std::str::from_utf8(bytes).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn blob_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// `docker.io/library/api:1.4.2` → `1.4.2`.
fn tag_of(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => name,
    }
}

fn write_tar(root: &Path, parts: &Parts, to: &Path) -> io::Result<()> {
    let name = to.file_name().ok_or_else(|| io::Error::other("it has no name"))?.as_bytes();
    let temporary = to.with_file_name(std::ffi::OsStr::from_bytes(&[b".", name, b".part"].concat()));
    let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "somebody else writes it");
    let file = open_alone(&temporary)?.ok_or_else(busy)?;
    file.set_len(0)?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(1024 * 1024, file));
    append_file(&mut archive, root, MARKER)?;
    append(&mut archive, INDEX, parts.index.len() as u64, parts.index.as_slice())?;
    for name in &parts.blobs {
        append_file(&mut archive, root, name)?;
    }
    let mut file = archive.into_inner()?;
    file.flush()?;
    file.get_ref().sync_all()?;
    give_name(&temporary, to, Existing::Replaced)
}

fn append_file(archive: &mut tar::Builder<impl Write>, root: &Path, name: &str) -> io::Result<()> {
    let file = std::fs::File::open(root.join(name))?;
    let size_bytes = file.metadata()?.len();
    append(archive, name, size_bytes, file)
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size_bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size_bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_an_archive_never_leads_out_of_it() {
        let cases = [
            ("./blobs//sha256/x", Some("blobs/sha256/x")),
            ("a/../b", Some("b")),
            ("../b", None),
            ("a/../../b", None),
            ("/index.json", Some("index.json")),
        ];
        for (name, expected) in cases {
            assert_eq!(inner_name(name.as_bytes()).as_deref(), expected, "{name}");
        }
        assert_eq!(inner_name(b"\xff"), None);
    }

    #[test]
    fn the_tag_of_a_saved_image_is_what_follows_its_repository() {
        for (name, tag) in [("api:1.4.2", "1.4.2"), ("h:5000/a/b:x", "x"), ("h:5000/a", "h:5000/a")] {
            assert_eq!(tag_of(name), tag);
        }
    }
}

//! OCI image layouts: artefacts as a directory (image-spec 1.1 `image-layout.md`).
//!
//! ```text
//! oci-layout           {"imageLayoutVersion":"1.0.0"}
//! index.json           which manifests there are, and under which names
//! blobs/sha256/9f86…   everything else, each under its digest
//! ```
//!
//! A layout is read as something that anyone may have made: every byte that comes out was hashed. What is written
//! arrives whole or not at all: a temporary name, a flush to the disk, a rename.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use semel_model::digest::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::body::{BoxRead, CHUNK_BYTES};
use crate::closure::{self, Closure, ManifestSource, ReadManifest, TooManyManifests};
use crate::descriptor::{Annotations, Descriptor, null_is_empty};
use crate::manifest::{InvalidManifest, MAX_MANIFEST_BYTES, ParsedManifest};
use crate::media_type;
use crate::partial::{self, Existing, Holes, PartialError};
use crate::source::BlobSource;
use crate::verify::{Mismatch, VerifyingReader};

/// The annotation by which an entry of `index.json` has a name (image-spec 1.1 `annotations.md`).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const LAYOUT_VERSION: &str = "1.0.0";

/// An image layout on the disk.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

/// Which of a layout's manifests is meant.
#[derive(Debug, Clone, Copy)]
pub enum Select<'a> {
    /// The only one.
    Only,
    /// The one with this name.
    Tag(&'a str),
    /// The one with this digest: an entry, or a manifest that is only among the blobs.
    Digest(&'a Digest),
}

/// Why a layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// There is no layout at this place.
    #[error("{path} is not an OCI image layout: {reason}")]
    NotALayout {
        /// The directory.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// The place is taken by something else.
    #[error("{path} holds something else already; a new OCI image layout needs an empty directory")]
    Occupied {
        /// The directory.
        path: PathBuf,
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
    /// `index.json` is not well-formed.
    #[error("{path} is not a valid index")]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// A manifest is not well-formed.
    #[error("{path} is not a valid manifest")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// The index names nothing like that.
    #[error("{path} has no manifest {wanted} (it has: {known})")]
    NoSuchManifest {
        /// The layout.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// Several manifests, and none was chosen.
    #[error("{path} has {count} manifests; name one of: {known}")]
    Ambiguous {
        /// The layout.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// Their names, or digests where they have none.
        known: String,
    },
    /// A blob is not there.
    #[error("{path} is missing")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not the ones that the digest names.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        #[source]
        source: Mismatch,
    },
    /// A document is larger than anyone needs.
    #[error("{path} has {size} bytes; at most {MAX_MANIFEST_BYTES} are accepted")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Indexes within indexes without end.
    #[error(transparent)]
    TooManyManifests(#[from] TooManyManifests),
    /// The bytes to be stored are not the ones that the digest names. Nothing was stored.
    #[error("what was given for {path} is something else")]
    WrongBytes {
        /// Where it would have been written.
        path: PathBuf,
        /// What was expected and what was found.
        #[source]
        source: Mismatch,
    },
    /// The bytes to be written cannot be read.
    #[error("cannot read what is to be written to {path}")]
    Source {
        /// Where it would have been written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Layout {
    /// Opens an existing layout.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let layout = Self { root: root.into() };
        layout.check_marker().await?;
        Ok(layout)
    }

    /// Makes a layout in a new or empty directory, or opens the one that is there.
    pub async fn create(root: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let layout = Self { root: root.into() };
        if file_exists(&layout.root.join(MARKER)).await {
            layout.check_marker().await?;
            return Ok(layout);
        }
        layout.require_empty().await?;
        let blobs = layout.root.join("blobs").join(Algorithm::Sha256.as_str());
        tokio::fs::create_dir_all(&blobs)
            .await
            .map_err(|source| LayoutError::Write { path: blobs, source })?;
        layout.write_index(&IndexFile::new()).await?;
        // The marker is last: a directory that has one is complete.
        let marker = serde_json::to_vec(&Marker { image_layout_version: LAYOUT_VERSION.to_owned() });
        layout.replace(MARKER, &marker.expect("the marker is one text")).await?;
        Ok(layout)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies, or would.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// The entries of `index.json`.
    pub async fn entries(&self) -> Result<Vec<Descriptor>, LayoutError> {
        Ok(self.read_index().await?.manifests)
    }

    /// Finds one manifest.
    pub async fn resolve(&self, select: Select<'_>) -> Result<Descriptor, LayoutError> {
        let entries = self.entries().await?;
        match select {
            Select::Only => self.only(entries),
            Select::Tag(tag) => {
                let found: Vec<_> =
                    entries.iter().filter(|entry| ref_name(entry) == Some(tag)).cloned().collect();
                match distinct(&found) {
                    0 => Err(self.no_such(format!("named `{tag}`"), &entries)),
                    _ => self.only(found),
                }
            }
            Select::Digest(digest) => match entries.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Ok(entry.clone()),
                None if self.blob_size(digest).await?.is_some() => self.descriptor_of(digest).await,
                None => Err(self.no_such(digest.to_string(), &entries)),
            },
        }
    }

    /// How many bytes a blob has on the disk; `None` when it is not there. The bytes are not looked at.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, LayoutError> {
        let path = self.blob_path(digest);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Err(not_a_file(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LayoutError::Read { path, source }),
        }
    }

    /// Whether a blob is here and whole, which is found out by reading it.
    pub async fn holds(&self, descriptor: &Descriptor) -> Result<bool, LayoutError> {
        if self.blob_size(&descriptor.digest).await? != Some(descriptor.size) {
            return Ok(false);
        }
        let mut reader = self.open_blob(descriptor).await?;
        match tokio::io::copy(&mut reader, &mut tokio::io::sink()).await {
            Ok(_) => Ok(true),
            Err(error) if Mismatch::of(&error).is_some() => Ok(false),
            Err(source) => Err(LayoutError::Read { path: self.blob_path(&descriptor.digest), source }),
        }
    }

    /// Opens a blob for reading. The reader fails with a [`Mismatch`] unless the bytes are the right ones; a wrong
    /// size is found at once.
    pub async fn open_blob(&self, descriptor: &Descriptor) -> Result<BoxRead, LayoutError> {
        let path = self.blob_path(&descriptor.digest);
        let found_size = self
            .blob_size(&descriptor.digest)
            .await?
            .ok_or_else(|| LayoutError::Missing { path: path.clone() })?;
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file,
            Err(source) => return Err(LayoutError::Read { path, source }),
        };
        let what = path.display().to_string();
        let mut reader = VerifyingReader::new(file, what, descriptor.digest.clone(), Some(descriptor.size));
        if found_size != descriptor.size {
            return Err(damage_of(path, &mut reader).await);
        }
        Ok(Box::pin(reader))
    }

    /// The bytes of a small blob, such as a manifest or a configuration.
    pub async fn read_blob(&self, digest: &Digest) -> Result<Bytes, LayoutError> {
        let path = self.blob_path(digest);
        let size =
            self.blob_size(digest).await?.ok_or_else(|| LayoutError::Missing { path: path.clone() })?;
        let bytes = read_small(&path, size).await?;
        Mismatch::check(&path.display().to_string(), digest, None, &bytes)
            .map_err(|source| LayoutError::Damaged { path, source })?;
        Ok(bytes)
    }

    /// Reads and checks one manifest.
    pub async fn read_manifest(&self, descriptor: &Descriptor) -> Result<ReadManifest, LayoutError> {
        let path = self.blob_path(&descriptor.digest);
        let bytes = self.read_blob(&descriptor.digest).await?;
        let what = path.display().to_string();
        if let Err(source) = Mismatch::check(&what, &descriptor.digest, Some(descriptor.size), &bytes) {
            return Err(LayoutError::Damaged { path, source });
        }
        let parsed = ParsedManifest::parse(&bytes, Some(&descriptor.media_type))
            .map_err(|source| LayoutError::Manifest { path, source })?;
        Ok(ReadManifest { descriptor: descriptor.clone(), bytes, parsed })
    }

    /// Everything that is reachable from a manifest. Manifests are read and checked, blobs are only listed.
    pub async fn closure(&self, root: &Descriptor) -> Result<Closure, LayoutError> {
        closure::walk(self, root).await
    }

    /// Stores the bytes of a descriptor, unless they are here already, and says whether it had to. Bytes that are here
    /// but damaged are replaced. Nothing is left behind when the given ones are wrong.
    pub async fn add_blob(
        &self,
        descriptor: &Descriptor,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<bool, LayoutError> {
        if self.holds(descriptor).await? {
            return Ok(false);
        }
        let path = self.blob_path(&descriptor.digest);
        let what = path.display().to_string();
        let reader = VerifyingReader::new(reader, what, descriptor.digest.clone(), Some(descriptor.size));
        let temporary = self.stage(reader, &path).await?;
        temporary.publish(&path).await?;
        Ok(true)
    }

    /// Stores a blob that can be read from any position. What an attempt before has left of it stays, and is not read
    /// again; how many bytes that were is the answer.
    pub async fn receive(
        &self,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<u64, LayoutError> {
        let path = self.blob_path(&descriptor.digest);
        let received =
            partial::receive(descriptor, source, &self.root, &path, Existing::Replaced, Holes::Written).await;
        received.map_err(|error| match error {
            PartialError::Write { path, source } => LayoutError::Write { path, source },
            PartialError::Source(source) => LayoutError::Source { path, source },
            PartialError::WrongBytes(source) => LayoutError::WrongBytes { path, source },
            PartialError::Taken => LayoutError::Write { path, source: io::ErrorKind::AlreadyExists.into() },
        })
    }

    /// Stores a small blob.
    pub async fn add_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, LayoutError> {
        let descriptor = Descriptor::of(media_type, bytes);
        self.add_blob(&descriptor, bytes).await?;
        Ok(descriptor)
    }

    /// Stores a manifest that is part of another one: it gets no entry in `index.json`.
    pub async fn add_manifest(
        &self,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, LayoutError> {
        let path = self.blob_path(digest);
        ParsedManifest::parse(bytes, Some(media_type))
            .map_err(|source| LayoutError::Manifest { path, source })?;
        let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
        self.add_blob(&descriptor, bytes).await?;
        Ok(descriptor)
    }

    /// Stores a manifest and enters it in `index.json`, under a name if there is one. An entry that had the name
    /// before loses it to this one. Its blobs must have been added before.
    pub async fn put_manifest(
        &self,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
        name: Option<&str>,
    ) -> Result<Descriptor, LayoutError> {
        let mut descriptor = self.add_manifest(digest, media_type, bytes).await?;
        if let Some(name) = name {
            descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        }
        let _lock = self.lock().await?;
        let mut index = self.read_index().await?;
        index.enter(descriptor.clone());
        self.write_index(&index).await?;
        Ok(descriptor)
    }

    /// Adds an annotation to the entries of an artefact in `index.json`, which is no part of its digest.
    pub async fn annotate(&self, digest: &Digest, name: &str, value: &str) -> Result<(), LayoutError> {
        let _lock = self.lock().await?;
        let mut index = self.read_index().await?;
        for entry in index.manifests.iter_mut().filter(|entry| entry.digest == *digest) {
            entry.annotations.insert(name.to_owned(), value.to_owned());
        }
        self.write_index(&index).await
    }

    async fn check_marker(&self) -> Result<(), LayoutError> {
        let refused = |reason: String| LayoutError::NotALayout { path: self.root.clone(), reason };
        let path = self.root.join(MARKER);
        let size = match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(refused(format!("`{MARKER}` is no file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(refused(format!("it has no file `{MARKER}`")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(refused("it is no directory".into()));
            }
            Err(source) => return Err(LayoutError::Read { path, source }),
        };
        let bytes = read_small(&path, size).await?;
        let marker: Marker =
            serde_json::from_slice(&bytes).map_err(|error| refused(format!("`{MARKER}`: {error}")))?;
        match marker.image_layout_version == LAYOUT_VERSION {
            true => Ok(()),
            false => Err(refused(format!(
                "its version is `{}`, not {LAYOUT_VERSION}",
                marker.image_layout_version
            ))),
        }
    }

    async fn require_empty(&self) -> Result<(), LayoutError> {
        let read = |source| LayoutError::Read { path: self.root.clone(), source };
        match tokio::fs::read_dir(&self.root).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(read(source)),
            Ok(mut entries) => {
                while let Some(entry) = entries.next_entry().await.map_err(read)? {
                    // What an interrupted `create` may have left.
                    let name = entry.file_name();
                    if name != "blobs" && name != INDEX && !name.as_encoded_bytes().starts_with(b".semel-") {
                        return Err(LayoutError::Occupied { path: self.root.clone() });
                    }
                }
                Ok(())
            }
        }
    }

    fn only(&self, entries: Vec<Descriptor>) -> Result<Descriptor, LayoutError> {
        match distinct(&entries) {
            1 => Ok(entries.into_iter().next().expect("one digest is at least one entry")),
            0 => Err(self.no_such("at all".to_owned(), &entries)),
            count => Err(LayoutError::Ambiguous { path: self.root.clone(), count, known: known(&entries) }),
        }
    }

    fn no_such(&self, wanted: String, entries: &[Descriptor]) -> LayoutError {
        LayoutError::NoSuchManifest { path: self.root.clone(), wanted, known: known(entries) }
    }

    /// The descriptor of a manifest that no index names: its type is what its body says.
    async fn descriptor_of(&self, digest: &Digest) -> Result<Descriptor, LayoutError> {
        let bytes = self.read_blob(digest).await?;
        let path = self.blob_path(digest);
        let parsed =
            ParsedManifest::parse(&bytes, None).map_err(|source| LayoutError::Manifest { path, source })?;
        Ok(Descriptor::new(parsed.media_type, digest.clone(), bytes.len() as u64))
    }

    /// Writes a stream under a temporary name and flushes it to the disk.
    async fn stage(
        &self,
        mut reader: impl AsyncRead + Send + Unpin,
        path: &Path,
    ) -> Result<Temporary, LayoutError> {
        let (temporary, mut file) = Temporary::create(&self.root).await?;
        let write = |source| LayoutError::Write { path: temporary.0.clone(), source };
        let mut buffer = Vec::with_capacity(CHUNK_BYTES);
        loop {
            buffer.clear();
            if reader.read_buf(&mut buffer).await.map_err(|error| source_error(path, error))? == 0 {
                break;
            }
            file.write_all(&buffer).await.map_err(write)?;
        }
        file.flush().await.map_err(write)?;
        file.sync_data().await.map_err(write)?;
        Ok(temporary)
    }

    async fn read_index(&self) -> Result<IndexFile, LayoutError> {
        let path = self.root.join(INDEX);
        let size = match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(not_a_file(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LayoutError::Missing { path });
            }
            Err(source) => return Err(LayoutError::Read { path, source }),
        };
        let bytes = read_small(&path, size).await?;
        let invalid = |source| LayoutError::Index { path: path.clone(), source };
        ParsedManifest::parse(&bytes, Some(media_type::OCI_INDEX)).map_err(invalid)?;
        serde_json::from_slice(&bytes).map_err(|error| invalid(InvalidManifest::Malformed(error)))
    }

    async fn write_index(&self, index: &IndexFile) -> Result<(), LayoutError> {
        let bytes = serde_json::to_vec(index).expect("an index is JSON");
        self.replace(INDEX, &bytes).await
    }

    /// Replaces a small file of the layout in one step.
    async fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let path = self.root.join(name);
        let temporary = self.stage(bytes, &path).await?;
        temporary.publish(&path).await
    }

    /// Keeps other processes from changing `index.json` between our reading and our writing of it.
    async fn lock(&self) -> Result<std::fs::File, LayoutError> {
        let path = self.root.join(MARKER);
        let locking = path.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(&locking)?;
            file.lock()?;
            Ok(file)
        });
        let locked = locked.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        locked.map_err(|source| LayoutError::Write { path, source })
    }
}

impl ManifestSource for Layout {
    type Error = LayoutError;

    async fn read_manifest(&self, descriptor: &Descriptor) -> Result<ReadManifest, LayoutError> {
        Self::read_manifest(self, descriptor).await
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// `index.json`, with the fields kept that we do not change.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    manifests: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
}

impl IndexFile {
    fn new() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: Annotations::new(),
        }
    }

    /// A name points to one entry; the entry that had it stays, without it, unless it is the same artefact.
    fn enter(&mut self, descriptor: Descriptor) {
        self.media_type = Some(media_type::OCI_INDEX.to_owned());
        let name = ref_name(&descriptor).map(str::to_owned);
        if let Some(name) = &name {
            for entry in self.manifests.iter_mut().filter(|entry| ref_name(entry) == Some(name)) {
                entry.annotations.remove(REF_NAME);
            }
        }
        // An entry without a name is worth nothing beside one of the same artefact.
        let same = |entry: &Descriptor| entry.digest == descriptor.digest;
        if name.is_none() && self.manifests.iter().any(same) {
            return;
        }
        self.manifests.retain(|entry| !(same(entry) && ref_name(entry).is_none()));
        self.manifests.push(descriptor);
    }
}

/// A file under a temporary name, removed when it is dropped without having been published.
struct Temporary(PathBuf);

impl Temporary {
    async fn create(root: &Path) -> Result<(Self, tokio::fs::File), LayoutError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = root.join(format!(".semel-{}-{number}.tmp", std::process::id()));
            match tokio::fs::OpenOptions::new().write(true).create_new(true).open(&path).await {
                Ok(file) => return Ok((Self(path), file)),
                // Left by a process that was killed and had our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(LayoutError::Write { path, source }),
            }
        }
    }

    /// Gives the file its name, durably.
    async fn publish(self, path: &Path) -> Result<(), LayoutError> {
        let write = |source| LayoutError::Write { path: path.to_owned(), source };
        let directory = path.parent().expect("every file of a layout lies in a directory").to_owned();
        tokio::fs::create_dir_all(&directory).await.map_err(write)?;
        #[expect(clippy::disallowed_methods, reason = "this is where a layout makes its renames durable")]
        tokio::fs::rename(&self.0, path).await.map_err(write)?;
        let synced = tokio::task::spawn_blocking(move || std::fs::File::open(directory)?.sync_all());
        synced.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(write)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already after a rename; and if it stays, it is a file that nobody reads.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn file_exists(path: &Path) -> bool {
    tokio::fs::symlink_metadata(path).await.is_ok()
}

async fn read_small(path: &Path, size: u64) -> Result<Bytes, LayoutError> {
    if size > MAX_MANIFEST_BYTES as u64 {
        return Err(LayoutError::TooLarge { path: path.to_owned(), size });
    }
    let bytes = tokio::fs::read(path).await;
    bytes.map(Bytes::from).map_err(|source| LayoutError::Read { path: path.to_owned(), source })
}

/// Reads on to say which digest a file of the wrong size has.
async fn damage_of(path: PathBuf, reader: &mut VerifyingReader<tokio::fs::File>) -> LayoutError {
    match tokio::io::copy(reader, &mut tokio::io::sink()).await {
        // It grew to its right size while we looked.
        Ok(_) => LayoutError::Read { path, source: io::Error::other("the file is being changed") },
        Err(source) => match Mismatch::of(&source) {
            Some(mismatch) => LayoutError::Damaged { path, source: mismatch.clone() },
            None => LayoutError::Read { path, source },
        },
    }
}

fn source_error(path: &Path, source: io::Error) -> LayoutError {
    match Mismatch::of(&source) {
        Some(mismatch) => LayoutError::WrongBytes { path: path.to_owned(), source: mismatch.clone() },
        None => LayoutError::Source { path: path.to_owned(), source },
    }
}

fn not_a_file(path: PathBuf) -> LayoutError {
    LayoutError::Read { path, source: io::Error::other("it is no regular file") }
}

fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(REF_NAME).map(String::as_str)
}

fn distinct(entries: &[Descriptor]) -> usize {
    entries.iter().map(|entry| &entry.digest).collect::<HashSet<_>>().len()
}

fn known(entries: &[Descriptor]) -> String {
    let names: Vec<_> =
        entries.iter().map(|entry| ref_name(entry).unwrap_or(entry.digest.as_str())).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

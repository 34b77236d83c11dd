//! An artefact whose bytes lie where they lie: in files as they are, or inside an archive. Nothing is copied or unpacked
//! before it is sent, so a disk image of many GiB needs no second place.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use semel_model::digest::Digest;
use tokio::io::AsyncReadExt as _;

use crate::body::BoxRead;
use crate::closure::{ManifestSource, ReadManifest, TooManyManifests};
use crate::descriptor::Descriptor;
use crate::layout::{REF_NAME, Select};
use crate::manifest::{EncodedManifest, InvalidManifest, MAX_MANIFEST_BYTES, ParsedManifest};
use crate::source::{BlobSource as _, Piece};
use crate::verify::{Mismatch, VerifyingReader};

/// Blobs by digest, each in memory or a stretch of a file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What it is, for messages.
    place: String,
    contents: Arc<HashMap<Digest, Content>>,
    /// Whether the digests were found by hashing. Those of other people's archives are claims.
    hashed: bool,
    /// The artefacts in it.
    entries: Vec<Descriptor>,
    /// Whether it is what `docker save` writes.
    docker: bool,
}

/// Where a blob is.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file.
    Piece(Piece),
}

/// Why a blob of a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is not there.
    #[error("{place} has no blob {digest}")]
    Missing {
        /// The bundle.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// No artefact is meant by that.
    #[error("{place} has no manifest {wanted} (it has: {known})")]
    NoSuchManifest {
        /// The bundle.
        place: String,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// Several artefacts, and none was chosen.
    #[error("{place} has several manifests; name one of: {known}")]
    Ambiguous {
        /// The bundle.
        place: String,
        /// Their names, or digests where they have none.
        known: String,
    },
    /// It has another size than the manifest says.
    #[error("{place} has {found} bytes of {digest}, which should have {expected}")]
    Size {
        /// The bundle.
        place: String,
        /// The blob.
        digest: Digest,
        /// The size in the manifest.
        expected: u64,
        /// The size here.
        found: u64,
    },
    /// It cannot be read.
    #[error("cannot read {digest} of {place}")]
    Read {
        /// The bundle.
        place: String,
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no manifest.
    #[error("{digest} of {place} is not a valid manifest")]
    Manifest {
        /// The bundle.
        place: String,
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// Indexes within indexes without end.
    #[error(transparent)]
    TooManyManifests(#[from] TooManyManifests),
}

impl Bundle {
    /// One artefact whose blobs were hashed.
    pub fn of(place: String, root: &EncodedManifest, blobs: HashMap<Digest, Content>) -> Self {
        let mut contents = blobs;
        contents.insert(root.descriptor.digest.clone(), Content::Bytes(root.bytes.clone()));
        Self {
            place,
            contents: Arc::new(contents),
            hashed: true,
            entries: vec![root.descriptor.clone()],
            docker: false,
        }
    }

    /// What somebody else's archive says that it holds.
    pub(crate) fn claimed(place: String, entries: Vec<Descriptor>, blobs: HashMap<Digest, Content>) -> Self {
        Self { place, contents: Arc::new(blobs), hashed: false, entries, docker: false }
    }

    /// The same, as what `docker save` writes.
    pub(crate) fn of_docker(self) -> Self {
        Self { docker: true, ..self }
    }

    /// Whether this is what `docker save` writes: its manifests were made here, and nobody else knows their digests.
    pub fn is_docker(&self) -> bool {
        self.docker
    }

    /// Finds one artefact.
    pub fn resolve(&self, select: Select<'_>) -> Result<&Descriptor, BundleError> {
        let (wanted, found): (String, Vec<_>) = match select {
            Select::Only => ("at all".to_owned(), self.entries.iter().collect()),
            Select::Tag(tag) => (
                format!("named `{tag}`"),
                self.entries.iter().filter(|entry| name_of(entry) == tag).collect(),
            ),
            Select::Digest(digest) => {
                (digest.to_string(), self.entries.iter().filter(|entry| entry.digest == *digest).collect())
            }
        };
        let known = || {
            let shown = |entry| match name_of(entry) {
                "" => entry.digest.as_str(),
                name => name,
            };
            let known: Vec<&str> = self.entries.iter().map(shown).collect();
            if known.is_empty() { "nothing".to_owned() } else { known.join(", ") }
        };
        match found.as_slice() {
            [] => Err(BundleError::NoSuchManifest { place: self.place.clone(), wanted, known: known() }),
            [first, rest @ ..] if rest.iter().all(|entry| entry.digest == first.digest) => Ok(first),
            _ => Err(BundleError::Ambiguous { place: self.place.clone(), known: known() }),
        }
    }

    /// The artefacts in it.
    pub(crate) fn entries(&self) -> &[Descriptor] {
        &self.entries
    }

    /// A manifest that no entry names.
    pub(crate) async fn descriptor_of(&self, digest: &Digest) -> Result<Descriptor, BundleError> {
        let bytes = self.small(digest).await?;
        let parsed = ParsedManifest::parse(&bytes, None).map_err(|source| BundleError::Manifest {
            place: self.place.clone(),
            digest: digest.clone(),
            source,
        })?;
        Ok(Descriptor::new(parsed.media_type, digest.clone(), bytes.len() as u64))
    }

    /// Whether it has a blob. The bytes are not looked at.
    pub fn has(&self, digest: &Digest) -> bool {
        self.contents.contains_key(digest)
    }

    /// Opens a blob from a position on. From the beginning, the reader fails unless the bytes are the right ones; a
    /// rest cannot be verified.
    pub async fn open(&self, blob: &Descriptor, offset: u64) -> Result<BoxRead, BundleError> {
        let content = self.find(&blob.digest)?;
        if content.size() != blob.size {
            return Err(BundleError::Size {
                place: self.place.clone(),
                digest: blob.digest.clone(),
                expected: blob.size,
                found: content.size(),
            });
        }
        let opened = match content {
            Content::Bytes(bytes) => bytes.open(offset).await,
            Content::Piece(piece) => piece.open(offset).await,
        };
        let reader = opened.map_err(|source| self.unread(&blob.digest, source))?;
        if self.hashed || offset > 0 {
            return Ok(reader);
        }
        let what = format!("{} of {}", blob.digest, self.place);
        Ok(Box::pin(VerifyingReader::new(reader, what, blob.digest.clone(), Some(blob.size))))
    }

    fn find(&self, digest: &Digest) -> Result<&Content, BundleError> {
        let missing = || BundleError::Missing { place: self.place.clone(), digest: digest.clone() };
        self.contents.get(digest).ok_or_else(missing)
    }

    fn unread(&self, digest: &Digest, source: io::Error) -> BundleError {
        BundleError::Read { place: self.place.clone(), digest: digest.clone(), source }
    }

    async fn small(&self, digest: &Digest) -> Result<Bytes, BundleError> {
        let content = self.find(digest)?;
        if content.size() > MAX_MANIFEST_BYTES as u64 {
            let text = format!("{} bytes are more than a manifest may have", content.size());
            return Err(self.unread(digest, io::Error::other(text)));
        }
        let read = async {
            match content {
                Content::Bytes(bytes) => Ok(bytes.clone()),
                Content::Piece(piece) => {
                    let mut bytes = Vec::new();
                    piece.open(0).await?.read_to_end(&mut bytes).await?;
                    Ok(bytes.into())
                }
            }
        };
        let bytes = read.await.map_err(|source| self.unread(digest, source))?;
        let checked = Mismatch::check(&self.place, digest, None, &bytes);
        checked
            .map_err(|mismatch| self.unread(digest, io::Error::new(io::ErrorKind::InvalidData, mismatch)))?;
        Ok(bytes)
    }
}

fn name_of(entry: &Descriptor) -> &str {
    entry.annotations.get(REF_NAME).map(String::as_str).unwrap_or_default()
}

impl Content {
    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Piece(piece) => piece.size(),
        }
    }
}

impl ManifestSource for Bundle {
    type Error = BundleError;

    async fn read_manifest(&self, descriptor: &Descriptor) -> Result<ReadManifest, BundleError> {
        let bytes = self.small(&descriptor.digest).await?;
        let parsed = ParsedManifest::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| {
            BundleError::Manifest { place: self.place.clone(), digest: descriptor.digest.clone(), source }
        })?;
        let size = bytes.len() as u64;
        Ok(ReadManifest {
            descriptor: Descriptor::new(&parsed.media_type, descriptor.digest.clone(), size),
            bytes,
            parsed,
        })
    }
}

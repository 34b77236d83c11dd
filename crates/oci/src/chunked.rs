//! A large file whose bytes are the layers of an artefact, in chunks of one size: a disk image.
//!
//! ```text
//! configuration   {v, name, digest, size, chunk_size, …}      the file as a whole
//! layers          chunk, chunk, …                             each one member of gzip (RFC 1952), in the file's order
//! ```
//!
//! The chunks arrive one after the other, each verified before it is unpacked: memory holds one of them, and the one before.
//! What is zero is left out of the file where the file system can do that. The file gets its name when the whole has the
//! right digest; what came before a broken connection or a killed process is kept, hashed again and not fetched again.

use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryStreamExt as _, stream};
use semel_model::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use crate::body::BoxRead;
use crate::client::Pushed;
use crate::copy::{Counted, Event, Progress, Source};
use crate::descriptor::Descriptor;
use crate::files::{self, FilesError, Overwrite, Written};
use crate::manifest::ParsedManifest;
use crate::partial::Holes;
use crate::source::BlobSource;
use crate::verify::Mismatch;

/// The configuration of a disk image.
pub const DISK_CONFIG: &str = "application/vnd.semel.vm.config.v1+json";
/// One chunk of it, compressed.
pub const CHUNK: &str = "application/vnd.semel.vm.chunk.v1+gzip";
/// No chunk is larger, unpacked, in bytes: whoever reads one holds it in memory.
pub const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// What the configuration says about the file; other fields say what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkedFile {
    /// 1.
    pub v: u32,
    /// Its name.
    pub name: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The length of every chunk but the last, in bytes.
    pub chunk_size: u64,
}

/// No configuration is larger, in bytes.
const MOST_CONFIG_BYTES: u64 = 1 << 20;

/// Why the layers of an artefact are not a file in chunks.
#[derive(Debug, thiserror::Error)]
pub enum InvalidChunks {
    /// The configuration did not come.
    #[error("cannot read its configuration")]
    Read {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The configuration is not one.
    #[error("its configuration is not that of a disk image")]
    Config {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// It is written by a newer program.
    #[error("its configuration has version {v}, and this program reads 1")]
    Newer {
        /// The version.
        v: u32,
    },
    /// The layers are not the chunks of that file.
    #[error("its layers are not the chunks that its configuration describes")]
    Layers,
    /// The name would lead somewhere else.
    #[error("its file name is not a name")]
    Name,
}

impl ChunkedFile {
    /// Whether an artefact is a file in chunks: its configuration says so.
    pub fn is_in(manifest: &ParsedManifest) -> bool {
        manifest.config.as_ref().is_some_and(|config| config.media_type == DISK_CONFIG)
    }

    /// Reads the configuration of an artefact, and compares it with the layers of the manifest.
    pub async fn read(manifest: &ParsedManifest, source: &Source) -> Result<Self, InvalidChunks> {
        let Some(config) = &manifest.config else { return Err(InvalidChunks::Layers) };
        let silent = Progress::ignored();
        let read = read_whole(&Counted::new(source, config, &silent), config, MOST_CONFIG_BYTES).await;
        Self::of(manifest, &read.map_err(|source| InvalidChunks::Read { source })?)
    }

    fn of(manifest: &ParsedManifest, config: &[u8]) -> Result<Self, InvalidChunks> {
        let file: Self = serde_json::from_slice(config).map_err(|source| InvalidChunks::Config { source })?;
        if file.v != 1 {
            return Err(InvalidChunks::Newer { v: file.v });
        }
        let count = file.size.checked_div(file.chunk_size).unwrap_or(u64::MAX);
        let expected = count.saturating_add(u64::from(count.saturating_mul(file.chunk_size) != file.size));
        // Deflate makes nothing much larger than it is (RFC 1951, 3.2.4).
        let most = file.chunk_size.saturating_add(file.chunk_size / 64 + 1024);
        let good = (1..=CHUNK_BYTES_MAX).contains(&file.chunk_size)
            && manifest.layers.len() as u64 == expected
            && manifest.layers.iter().all(|layer| layer.media_type == CHUNK && layer.size <= most);
        if !good {
            return Err(InvalidChunks::Layers);
        }
        match files::inner_path(&file.name) {
            Some(path) if path.components().count() == 1 => Ok(file),
            _ => Err(InvalidChunks::Name),
        }
    }

    /// Brings the file to where it should be. What is there and the same stays; what is something else is replaced only
    /// if it shall be.
    pub async fn write(
        &self,
        chunks: &[Descriptor],
        place: &Path,
        source: &Source,
        overwrite: Overwrite,
        progress: &Progress,
    ) -> Result<Written, FilesError> {
        let bytes = chunks.iter().fold(0_u64, |sum, chunk| sum.saturating_add(chunk.size));
        progress.tell(Event::Planned { blobs: chunks.len(), bytes });
        let whole = Descriptor::new("application/octet-stream", self.digest.clone(), self.size);
        let from = Unpacked { file: self, chunks, source, progress };
        let wrote = files::bring(&whole, &from, place, overwrite, Holes::Left).await?;
        Ok(Written {
            files: usize::from(wrote),
            bytes: if wrote { self.size } else { 0 },
            existing: usize::from(!wrote),
        })
    }
}

/// The bytes of the file, from any position on.
struct Unpacked<'a> {
    file: &'a ChunkedFile,
    chunks: &'a [Descriptor],
    source: &'a Source,
    progress: &'a Progress,
}

impl BlobSource for Unpacked<'_> {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        async move {
            let next = usize::try_from(offset / self.file.chunk_size).map_err(io::Error::other)?;
            for kept in &self.chunks[..next.min(self.chunks.len())] {
                self.progress.tell(Event::Done(kept.clone(), Pushed::Existed));
            }
            let state = Unpacking {
                file: self.file.clone(),
                chunks: self.chunks.to_vec(),
                next,
                skip: usize::try_from(offset % self.file.chunk_size).map_err(io::Error::other)?,
                source: self.source.clone(),
                progress: self.progress.clone(),
                last: None,
            };
            let bytes = stream::try_unfold(state, |mut state| async move {
                Ok::<_, io::Error>(state.unpack().await?.map(|bytes| (bytes, state)))
            });
            Ok(Box::pin(StreamReader::new(Box::pin(bytes.into_stream()))) as BoxRead)
        }
        .boxed()
    }
}

/// Chunks on their way.
struct Unpacking {
    file: ChunkedFile,
    chunks: Vec<Descriptor>,
    next: usize,
    /// How many bytes of the next chunk are there already.
    skip: usize,
    source: Source,
    progress: Progress,
    /// The chunk before: where a disk is empty, they are all the same.
    last: Option<(Digest, Bytes)>,
}

impl Unpacking {
    async fn unpack(&mut self) -> io::Result<Option<Bytes>> {
        let Some(chunk) = self.chunks.get(self.next).cloned() else { return Ok(None) };
        let bytes = match self.last.take() {
            Some((digest, bytes)) if digest == chunk.digest => bytes,
            _ => self.fetch(&chunk).await?,
        };
        self.progress.tell(Event::Done(chunk.clone(), Pushed::Sent));
        self.last = Some((chunk.digest, bytes.clone()));
        self.next += 1;
        let skip = std::mem::take(&mut self.skip).min(bytes.len());
        Ok(Some(bytes.slice(skip..)))
    }

    async fn fetch(&self, chunk: &Descriptor) -> io::Result<Bytes> {
        let counted = Counted::new(&self.source, chunk, &self.progress);
        let packed = read_whole(&counted, chunk, chunk.size).await?;
        let begin = self.file.chunk_size.saturating_mul(self.next as u64);
        let length = self.file.chunk_size.min(self.file.size.saturating_sub(begin));
        tokio::task::spawn_blocking(move || gunzip(&packed, length)).await.map_err(io::Error::other)?
    }
}

/// A blob in memory, verified.
async fn read_whole(from: &Counted<'_>, blob: &Descriptor, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.open(0).await?.take(most.saturating_add(1)).read_to_end(&mut bytes).await;
    let checked = read.and_then(|_| {
        let what = format!("the blob {}", blob.digest);
        Mismatch::check(&what, &blob.digest, Some(blob.size), &bytes).map_err(io::Error::other)
    });
    match checked {
        Ok(()) => Ok(bytes),
        // As text: what was written of the chunks before is good, and is kept.
        Err(error) if Mismatch::of(&error).is_some() => {
            Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Unpacks a chunk, which must be neither more nor less than one member of gzip, of exactly this length.
fn gunzip(packed: &[u8], length: u64) -> io::Result<Bytes> {
    let mut decoder = GzDecoder::new(packed);
    let mut bytes = Vec::new();
    // One byte more, so that the end of the member is reached, and checked.
    decoder.by_ref().take(length.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length || !decoder.into_inner().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk has not the length of a chunk"));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use serde_json::{Value, json};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn a_chunk_is_one_member_of_the_right_length_or_is_refused() {
        let packed = gzip(b"some bytes");
        assert_eq!(gunzip(&packed, 10).unwrap(), "some bytes");
        let mut broken = packed.clone();
        *broken.last_mut().unwrap() ^= 1;
        let bomb = gzip(&vec![0; 1 << 20]);
        for (packed, length) in [
            (&packed[..], 9),
            (&packed, 11),
            (&packed[..packed.len() - 1], 10),
            (&[&packed[..], &packed].concat(), 10),
            (&broken, 10),
            (b"no gzip", 10),
            (&bomb, 10),
        ] {
            assert!(gunzip(packed, length).is_err());
        }
    }

    fn manifest(size: u64, chunks: &[(u64, &str)]) -> ParsedManifest {
        let layers: Vec<Value> = chunks
            .iter()
            .map(|(size, kind)| json!({ "mediaType": kind, "digest": Digest::of(b"chunk"), "size": size }))
            .collect();
        let bytes = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": DISK_CONFIG, "digest": Digest::of(b"config"), "size": size },
            "layers": layers
        });
        ParsedManifest::parse(bytes.to_string().as_bytes(), None).unwrap()
    }

    fn config(changes: &Value) -> Vec<u8> {
        let mut config =
            json!({ "v": 1, "name": "a.raw", "digest": Digest::of(b"file"), "size": 10, "chunk_size": 8 });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config.to_string().into_bytes()
    }

    #[test]
    fn a_configuration_that_does_not_describe_the_layers_is_refused() {
        let two = manifest(1, &[(30, CHUNK), (25, CHUNK)]);
        let (one, huge) = (manifest(1, &[(30, CHUNK)]), manifest(1, &[(30, CHUNK), (2000, CHUNK)]));
        let other = manifest(1, &[(30, CHUNK), (25, "application/zip")]);
        let (none, none_at_all) = (json!({}), json!({ "size": 0 }));
        assert!(ChunkedFile::of(&two, &config(&none)).is_ok());
        assert!(ChunkedFile::of(&manifest(1, &[]), &config(&none_at_all)).is_ok());
        for (manifest, changes, problem) in [
            (&one, &none, "not the chunks"),
            (&huge, &none, "not the chunks"),
            (&other, &none, "not the chunks"),
            (&two, &json!({ "size": 17 }), "not the chunks"),
            (&two, &json!({ "size": u64::MAX, "chunk_size": 1 }), "not the chunks"),
            (&two, &json!({ "chunk_size": 0 }), "not the chunks"),
            (&two, &json!({ "size": 100 << 20, "chunk_size": 65 << 20 }), "not the chunks"),
            (&two, &json!({ "v": 2 }), "version 2"),
            (&two, &json!({ "name": "../a" }), "not a name"),
            (&two, &json!({ "name": "a/b" }), "not a name"),
            (&two, &json!({ "size": -1 }), "not that of a disk image"),
        ] {
            let told = ChunkedFile::of(manifest, &config(changes)).unwrap_err().to_string();
            assert!(told.contains(problem), "{told}");
        }
    }
}

//! Disk images as chunks of one size, each a blob by itself: versions share those in which they do not differ.
//!
//! ```text
//! image  │ 4 MiB │ 4 MiB │ … │ rest │      each chunk is one member of gzip (RFC 1952) and one layer
//! ```
//!
//! The layers of the manifest are the chunks in their order, so the layers one after the other are the image as gzip
//! would write it in several members. These bytes are frozen. Decision 20 says why the chunks have the size that they have.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use flate2::{Compression, GzBuilder};
use semel_model::canonical;
use semel_model::digest::{Algorithm, Digest, Hasher};
use semel_oci::chunked::{CHUNK, ChunkedFile, DISK_CONFIG};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::Layout;
use semel_oci::media_type;
use serde_json::json;

use crate::collect::{PackFile, PackKind};
use crate::disk::Disk;
use crate::package::{self, Content, PackageError, PackageRequest, PackagedLayer};

/// The size of a chunk, unless the image is so large that there would be too many.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// A manifest that names more becomes larger than registries take.
const MOST_CHUNKS: u64 = 8192;
/// How many bytes are held at once, compressed or not, beside one chunk.
const HELD_BYTES: u64 = 64 * 1024 * 1024;
/// The level of the deflate implementation that the workspace holds at one version.
const LEVEL: u32 = 3;

/// Cuts the disk image of an artefact and puts the chunks into the layout.
pub(crate) async fn content(request: &PackageRequest<'_>, layout: &Layout) -> Result<Content, PackageError> {
    let spec = &request.definition.artefact;
    let name = spec.image.clone().unwrap_or_default();
    let file_name = name.rsplit('/').next().unwrap_or(&name);
    let (size, from, stamp) = match request.files {
        // Of a directory, the file in it would have a name of its own.
        [PackFile { path, kind: PackKind::File { size, from, stamp, .. }, .. }]
            if *path == file_name.as_bytes() =>
        {
            (*size, from.clone(), *stamp)
        }
        _ => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "a disk image is one file");
            return Err(PackageError::Unfit { path: name.into(), source });
        }
    };
    let unread = |source| PackageError::Read { path: from.clone(), source };
    let disk = Disk::read(&from)
        .map_err(unread)?
        .and_then(|disk| disk.fits(spec.disk.as_ref()).map(|()| disk))
        .map_err(|source| PackageError::Disk { path: name.clone(), source })?;
    let cut = cut(&from, chunk_size(size), request.threads, layout).await?;
    package::read_unchanged(&from, size, &stamp, |_| Ok(()))?;
    let mut config = json!(ChunkedFile {
        v: 1,
        name: file_name.to_owned(),
        digest: cut.digest,
        size,
        chunk_size: chunk_size(size),
    });
    config["format"] = json!(disk.format.as_str());
    config["virtual_size"] = json!(disk.virtual_size_bytes);
    if let Some(firmware) = spec.disk.as_ref().and_then(|disk| disk.firmware) {
        config["firmware"] = json!(firmware);
    }
    Ok(Content {
        artifact_type: Some(media_type::SEMEL_VM),
        config_type: DISK_CONFIG,
        config: canonical::bytes(&config),
        diff_ids: Vec::new(),
        layers: cut.layers.iter().map(packaged).collect(),
        descriptors: cut.layers,
    })
}

fn packaged(chunk: &Descriptor) -> PackagedLayer {
    let (digest, diff_id) = (chunk.digest.clone(), chunk.digest.clone());
    PackagedLayer { name: None, digest, diff_id, size: chunk.size, files: 0 }
}

/// An image in chunks.
struct Cut {
    layers: Vec<Descriptor>,
    digest: Digest,
}

async fn cut(
    image: &Path,
    chunk_bytes: u64,
    threads: NonZeroUsize,
    layout: &Layout,
) -> Result<Cut, PackageError> {
    let unread = |source| PackageError::Read { path: image.to_owned(), source };
    let file = File::open(image).map_err(unread)?;
    let mut chunks = Chunks::of(file, chunk_bytes, threads);
    let mut layers = Vec::new();
    loop {
        let compressing = tokio::task::spawn_blocking(move || {
            let compressed = chunks.next();
            (chunks, compressed)
        });
        let (back, compressed) = compressing.await.map_err(|panic| unread(io::Error::other(panic)))?;
        let compressed = compressed.map_err(unread)?;
        chunks = back;
        if compressed.is_empty() {
            return Ok(Cut { layers, digest: chunks.finish() });
        }
        for chunk in compressed {
            let added = layout.add_bytes(CHUNK, &chunk).await;
            layers.push(added.map_err(|source| PackageError::Layout { source })?);
        }
    }
}

/// The size of the chunks of an image: the smallest power of two that makes no more than a manifest can name.
fn chunk_size(image_bytes: u64) -> u64 {
    let mut size = CHUNK_BYTES;
    while image_bytes.div_ceil(size) > MOST_CHUNKS {
        size *= 2;
    }
    size
}

/// Reads an image in its chunks, some at a time.
struct Chunks {
    file: File,
    chunk_bytes: u64,
    at_once: usize,
    hasher: Hasher,
}

impl Chunks {
    /// Chunks of an image that at most so many threads compress; the bytes do not depend on it.
    fn of(file: File, chunk_bytes: u64, threads: NonZeroUsize) -> Self {
        let held = usize::try_from(HELD_BYTES / chunk_bytes).unwrap_or(usize::MAX).max(1);
        Self { file, chunk_bytes, at_once: threads.get().min(held), hasher: Hasher::new(Algorithm::Sha256) }
    }

    /// The next chunks, compressed; none: the image is at its end.
    fn next(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut plain = Vec::new();
        while plain.len() < self.at_once {
            let mut chunk = Vec::new();
            (&self.file).take(self.chunk_bytes).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            self.hasher.update(&chunk);
            plain.push(chunk);
        }
        std::thread::scope(|scope| {
            let working: Vec<_> = plain.iter().map(|chunk| scope.spawn(|| compress(chunk))).collect();
            let done = working.into_iter().map(|one| {
                one.join().unwrap_or_else(|_| Err(io::Error::other("the compression of a chunk was ended")))
            });
            done.collect()
        })
    }

    /// The digest of the whole image.
    fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

fn compress(chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(LEVEL));
    gzip.write_all(chunk)?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use flate2::read::MultiGzDecoder;

    use super::*;

    fn chunks_of(image: &[u8], chunk_bytes: u64, threads: usize) -> (Vec<Vec<u8>>, Digest) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(image).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut chunks = Chunks::of(file, chunk_bytes, NonZeroUsize::new(threads).unwrap());
        let mut all = Vec::new();
        loop {
            let some = chunks.next().unwrap();
            if some.is_empty() {
                return (all, chunks.finish());
            }
            all.extend(some);
        }
    }

    #[test]
    fn the_chunks_one_after_the_other_are_the_image_however_many_threads_there_are() {
        let image: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let (one, digest) = chunks_of(&image, 65_536, 1);
        assert_eq!((&digest, one.len()), (&Digest::of(&image), 7));
        let mut read = Vec::new();
        MultiGzDecoder::new(one.concat().as_slice()).read_to_end(&mut read).unwrap();
        assert_eq!(read, image);
        assert_eq!(chunks_of(&image, 65_536, 5), (one, digest));
    }

    #[test]
    fn chunks_grow_with_an_image_that_a_manifest_could_not_name() {
        for (image, chunk) in [(0, 4), (32 << 10, 4), ((32 << 10) + 1, 8), (1 << 20, 128)] {
            assert_eq!(chunk_size(image << 20), chunk << 20, "{image} MiB");
        }
    }

    #[test]
    fn the_bytes_of_a_chunk_are_frozen() {
        let image: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let compressed = compress(&image).unwrap();
        assert_eq!(
            Digest::of(&compressed).as_str(),
            "sha256:322a3682b80d4d18137aec03fbe1ce5f4d3a6581016de26aab58af695d861883"
        );
    }
}

//! Disk images as chunks of one size, each a blob by itself: versions share those in which they do not differ.
//!
//! ```text
//! image  │ 4 MiB │ 4 MiB │ … │ rest │      each chunk is one member of gzip (RFC 1952) and one layer
//! ```
//!
//! The layers of the manifest are the chunks in their order, so the layers one after the other are the image as gzip
//! would write it in several members. These bytes are frozen. Decision 20 says why the chunks have the size that they have.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use semel_model::canonical;
use semel_model::digest::{Algorithm, Digest, Hasher};
use semel_oci::chunked::{CHUNK, CHUNK_BYTES_MAX, ChunkedFile, DISK_CONFIG};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::Layout;
use semel_oci::media_type;
use serde_json::json;

use crate::collect::{PackFile, PackKind, Stamp};
use crate::disk::{Disk, InvalidDisk};
use crate::package::{self, Content, PackageError, PackageRequest, PackagedLayer};

/// The size of a chunk, unless the image is so large that there would be too many.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// So that a manifest stays below 2 MB: registries take 4 MiB, and some of them fewer layers.
const MOST_CHUNKS: u64 = 8192;
/// How many bytes of chunks are held at once; what they are compressed to is held beside them.
const HELD_BYTES: u64 = 64 * 1024 * 1024;
/// An image in more chunks than a manifest names, or in larger ones than are read, is none.
const MOST_BYTES: u64 = MOST_CHUNKS * CHUNK_BYTES_MAX;
/// The level of the deflate implementation that the workspace holds at one version.
const LEVEL: u32 = 3;

/// Cuts the disk image of an artefact and puts the chunks into the layout.
pub(crate) async fn content(request: &PackageRequest<'_>, layout: &Layout) -> Result<Content, PackageError> {
    let spec = &request.definition.artefact;
    let image = Image::of(request)?;
    let unread = |source| PackageError::Read { path: image.from.to_owned(), source };
    let disk = Disk::read(image.from)
        .map_err(unread)?
        .and_then(|disk| disk.fits(spec.disk.as_ref()).map(|()| disk))
        .map_err(|source| PackageError::Disk { path: image.path.to_owned(), source })?;
    let chunk_size = chunk_size(image.size);
    let cut = cut(image.from, chunk_size, request.threads, layout).await?;
    package::read_unchanged(image.from, image.size, image.stamp, |_| Ok(()))?;
    let (name, digest, size) = (image.name.to_owned(), cut.digest, image.size);
    let mut config = json!(ChunkedFile { v: 1, name, digest, size, chunk_size });
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
        layers: cut.layers,
        descriptors: cut.descriptors,
    })
}

/// The image that is packaged.
struct Image<'a> {
    /// As the definition has it.
    path: &'a str,
    /// The last part of that.
    name: &'a str,
    from: &'a Path,
    size: u64,
    stamp: &'a Stamp,
}

impl<'a> Image<'a> {
    fn of(request: &PackageRequest<'a>) -> Result<Self, PackageError> {
        let path = request.definition.artefact.image.as_deref().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or(path);
        match request.files.as_slice() {
            // Of a directory, the file in it would have a name of its own.
            [PackFile { path: found, kind: PackKind::File { size, from, stamp, .. }, .. }]
                if **found == *name.as_bytes() =>
            {
                let too_large = InvalidDisk::TooLong { bytes: *size, most: MOST_BYTES };
                match *size <= MOST_BYTES {
                    true => Ok(Self { path, name, from, size: *size, stamp }),
                    false => Err(PackageError::Disk { path: path.to_owned(), source: too_large }),
                }
            }
            _ => Err(PackageError::Disk { path: path.to_owned(), source: InvalidDisk::NoFile }),
        }
    }
}

/// An image in chunks.
struct Cut {
    layers: Vec<PackagedLayer>,
    descriptors: Vec<Descriptor>,
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
    let (mut layers, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let compressing = tokio::task::spawn_blocking(move || {
            let compressed = chunks.next();
            (chunks, compressed)
        });
        let (back, compressed) = compressing.await.map_err(|panic| unread(io::Error::other(panic)))?;
        let compressed = compressed.map_err(unread)?;
        chunks = back;
        if compressed.is_empty() {
            return Ok(Cut { layers, descriptors, digest: chunks.finish() });
        }
        for chunk in compressed {
            let added = layout.add_bytes(CHUNK, &chunk.packed).await;
            let added = added.map_err(|source| PackageError::Layout { source })?;
            let (digest, size) = (added.digest.clone(), added.size);
            layers.push(PackagedLayer { name: None, digest, diff_id: chunk.plain, size, files: 0 });
            descriptors.push(added);
        }
    }
}

/// The size of the chunks of an image: [`CHUNK_BYTES`], doubled until there are no more than a manifest can name.
fn chunk_size(image_bytes: u64) -> u64 {
    image_bytes.div_ceil(MOST_CHUNKS).next_power_of_two().max(CHUNK_BYTES)
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

    /// The next chunks; none: the image is at its end.
    fn next(&mut self) -> io::Result<Vec<Chunk>> {
        let mut plain = Vec::new();
        while plain.len() < self.at_once {
            let mut chunk = Vec::with_capacity(usize::try_from(self.chunk_bytes).map_err(io::Error::other)?);
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

/// One chunk.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    packed: Vec<u8>,
    /// The digest of what was packed.
    plain: Digest,
}

fn compress(chunk: &[u8]) -> io::Result<Chunk> {
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::new(LEVEL));
    gzip.write_all(chunk)?;
    Ok(Chunk { packed: gzip.finish()?, plain: Digest::of(chunk) })
}

/// Reads chunks that lie in files as what they are together.
pub(crate) struct Joined {
    ahead: std::vec::IntoIter<PathBuf>,
    open: Option<GzDecoder<BufReader<File>>>,
}

impl Joined {
    /// Reads these files, one after the other.
    pub(crate) fn of(chunks: Vec<PathBuf>) -> Self {
        Self { ahead: chunks.into_iter(), open: None }
    }
}

impl Read for Joined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = &mut self.open {
                match chunk.read(buffer)? {
                    0 if !buffer.is_empty() => self.open = None,
                    some => return Ok(some),
                }
            }
            let Some(next) = self.ahead.next() else { return Ok(0) };
            self.open = Some(GzDecoder::new(BufReader::new(File::open(next)?)));
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::read::MultiGzDecoder;

    use super::*;

    fn chunks_of(image: &[u8], chunk_bytes: u64, threads: usize) -> (Vec<Chunk>, Digest) {
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
        let packed: Vec<&[u8]> = one.iter().map(|chunk| chunk.packed.as_slice()).collect();
        let mut read = Vec::new();
        MultiGzDecoder::new(packed.concat().as_slice()).read_to_end(&mut read).unwrap();
        assert_eq!(read, image);
        let file = |bytes: &&[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let files: Vec<_> = packed.iter().map(file).collect();
        read.clear();
        let paths = files.iter().map(|file| file.path().to_owned()).collect();
        Joined::of(paths).read_to_end(&mut read).unwrap();
        assert_eq!(read, image);
        assert_eq!(chunks_of(&image, 65_536, 5), (one, digest));
    }

    #[test]
    fn chunks_grow_with_an_image_that_a_manifest_could_not_name() {
        for (image, chunk) in [(0, 4), (32 << 10, 4), ((32 << 10) + 1, 8), (1 << 19, 64)] {
            assert_eq!(chunk_size(image << 20), chunk << 20, "{image} MiB");
        }
        assert_eq!(chunk_size(MOST_BYTES), CHUNK_BYTES_MAX);
    }

    #[test]
    fn the_bytes_of_a_chunk_are_frozen() {
        let image: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let compressed = compress(&image).unwrap();
        assert_eq!(
            Digest::of(&compressed.packed).as_str(),
            "sha256:322a3682b80d4d18137aec03fbe1ce5f4d3a6581016de26aab58af695d861883"
        );
    }
}

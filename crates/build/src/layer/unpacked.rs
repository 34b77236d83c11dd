//! Unpacked: layers as plain tar files, kept by the digests of the layers.
//!
//! A file is there whole or not at all, and is hashed before each use: what was damaged since is unpacked once more. Any of
//! them may be removed between builds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use semel_model::digest::{Digest, Hasher};
use semel_oci::compression::Compression;

/// What nobody used for so long is removed.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A directory of unpacked layers; it is made when it is needed.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    dir: PathBuf,
}

/// A layer as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    /// Where its bytes are.
    pub(crate) blob: PathBuf,
    /// How they are stored.
    pub(crate) compression: Compression,
    /// Their digest.
    pub(crate) digest: Digest,
    /// The digest of the tar file that they are of.
    pub(crate) diff_id: Digest,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// It cannot be read, or goes beyond a limit.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It has other bytes than its digest says.
    #[error("its bytes have the digest {found}")]
    Damaged { found: Digest },
    /// It unpacks to something else than the configuration of its image says.
    #[error("it unpacks to {found}, and the image's configuration says {expected}")]
    DiffId { found: Digest, expected: Digest },
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Unpacked {
    pub(crate) fn below(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The plain tar file of a layer, with the bytes that `diff_id` names. `now` counts as its last use.
    pub(crate) fn file(&self, layer: &Packed, now: SystemTime) -> Result<PathBuf, UnpackError> {
        let place = self.dir.join(name_of(layer));
        if !has_digest(&place, &layer.diff_id) {
            self.unpack(layer, &place)?;
        }
        // Where that cannot be noted, as in a cache that is only read, it is swept earlier and unpacked again.
        drop(File::options().append(true).open(&place).and_then(|file| file.set_modified(now)));
        Ok(place)
    }

    fn unpack(&self, layer: &Packed, place: &Path) -> Result<(), UnpackError> {
        let found = copy_hashed(&mut File::open(&layer.blob)?, &mut io::sink(), &layer.digest, place)?;
        if found != layer.digest {
            return Err(UnpackError::Damaged { found });
        }
        let unwritten = |source| UnpackError::Write { path: place.to_owned(), source };
        fs::create_dir_all(&self.dir).map_err(unwritten)?;
        let temporary = Temporary::beside(place);
        let mut file = temporary.create().map_err(unwritten)?;
        let mut tar = super::open(&layer.blob, layer.compression)?;
        let found = copy_hashed(&mut tar, &mut file, &layer.diff_id, place)?;
        if found != layer.diff_id {
            return Err(UnpackError::DiffId { found, expected: layer.diff_id.clone() });
        }
        temporary.publish(place).map_err(unwritten)
    }

    /// Removes what nobody used for a long time, and what a crash left. What cannot be removed now is left to the next one.
    pub(crate) fn sweep(&self, now: SystemTime) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let unused = used.is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > UNUSED));
            if unused {
                drop(fs::remove_file(entry.path()));
            }
        }
    }
}

/// With how it is stored: bytes that were unpacked by the right media type are no answer to whoever names another one.
fn name_of(layer: &Packed) -> String {
    let stored = match layer.compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    format!("{}-{}{stored}.tar", layer.digest.algorithm().as_str(), layer.digest.hex())
}

/// What is not there, cannot be read or is damaged counts as missing.
fn has_digest(file: &Path, digest: &Digest) -> bool {
    let read = |mut file: File| copy_hashed(&mut file, &mut io::sink(), digest, Path::new("")).ok();
    File::open(file).ok().and_then(read).is_some_and(|found| found == *digest)
}

/// Copies a stream to its end, and says what digest it has, in the algorithm of `like`.
fn copy_hashed(
    from: &mut impl Read,
    to: &mut impl Write,
    like: &Digest,
    place: &Path,
) -> Result<Digest, UnpackError> {
    let mut hasher = Hasher::new(like.algorithm());
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(some) => {
                hasher.update(&buffer[..some]);
                let written = to.write_all(&buffer[..some]);
                written.map_err(|source| UnpackError::Write { path: place.to_owned(), source })?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A file under a name of its own, which is removed unless it is published.
struct Temporary(PathBuf);

/// Builds of one process do not have one name.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Temporary {
    fn beside(place: &Path) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(place.with_extension(format!("{}-{number}", std::process::id())))
    }

    /// A file of this name can only be left by a process that is gone.
    fn create(&self) -> io::Result<File> {
        File::options().write(true).create(true).truncate(true).open(&self.0)
    }

    #[expect(clippy::disallowed_methods, reason = "it is hashed before each use, and may be lost")]
    fn publish(&self, place: &Path) -> io::Result<()> {
        fs::rename(&self.0, place)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Published, it is not there any more.
        drop(fs::remove_file(&self.0));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of tests need not last")]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_unpacked_once_and_again_when_it_is_damaged_or_was_swept() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        let bytes = b"the bytes of a tar file";
        fs::write(&blob, bytes).unwrap();
        let digest = Digest::of(bytes);
        let layer = Packed {
            blob: blob.clone(),
            compression: Compression::None,
            digest: digest.clone(),
            diff_id: digest,
        };
        let unpacked = Unpacked::below(&dir.path().join("unpacked"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let place = unpacked.file(&layer, now).unwrap();
        assert_eq!(fs::read(&place).unwrap(), bytes);
        assert_eq!(fs::metadata(&place).unwrap().modified().unwrap(), now);

        fs::remove_file(&blob).unwrap();
        assert_eq!(unpacked.file(&layer, now).unwrap(), place, "the layer is not read again");
        fs::write(&blob, bytes).unwrap();
        fs::write(&place, b"something else").unwrap();
        assert_eq!(fs::read(unpacked.file(&layer, now).unwrap()).unwrap(), bytes);

        unpacked.sweep(now + UNUSED);
        assert!(place.exists());
        unpacked.sweep(now + UNUSED + Duration::from_secs(1));
        assert!(!place.exists());
    }

    #[test]
    fn what_was_unpacked_by_its_type_is_no_answer_to_another_type() {
        let dir = tempfile::tempdir().unwrap();
        let (blob, plain) = (dir.path().join("blob"), b"the bytes of a tar file");
        let stored = zstd::encode_all(&plain[..], 1).unwrap();
        fs::write(&blob, &stored).unwrap();
        let packed = |compression| Packed {
            blob: blob.clone(),
            compression,
            digest: Digest::of(&stored),
            diff_id: Digest::of(plain),
        };
        let unpacked = Unpacked::below(&dir.path().join("unpacked"));
        unpacked.file(&packed(Compression::Zstd), SystemTime::UNIX_EPOCH).unwrap();
        for compression in [Compression::None, Compression::Gzip] {
            let error = unpacked.file(&packed(compression), SystemTime::UNIX_EPOCH).unwrap_err().to_string();
            let expected =
                format!("it is compressed with Zstandard, and its media type says that it is {compression}");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn what_is_not_what_its_digests_say_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, b"bytes").unwrap();
        let (right, wrong) = (Digest::of(b"bytes"), Digest::of(b"other bytes"));
        let unpacked = Unpacked::below(&dir.path().join("unpacked"));
        for (digest, diff_id) in [(&wrong, &right), (&right, &wrong)] {
            let (blob, digest, diff_id) = (blob.clone(), digest.clone(), diff_id.clone());
            let layer = Packed { blob, compression: Compression::None, digest, diff_id };
            let error = unpacked.file(&layer, SystemTime::UNIX_EPOCH).unwrap_err().to_string();
            assert!(error.contains(right.as_str()), "{error}");
            let left = fs::read_dir(dir.path().join("unpacked")).map_or(0, Iterator::count);
            assert_eq!(left, 0);
        }
    }
}

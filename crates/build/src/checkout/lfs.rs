//! Git LFS: the files whose content lies beside the repository, named by its SHA-256.
//!
//! Sources: git-lfs, `docs/spec.md` ("The Pointer") and `docs/man/git-lfs-config.adoc` (`lfs.storage`). Nothing is
//! fetched and git-lfs itself is not run: what is not in the local store is named.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use semel_model::digest::{Algorithm, Digest, Hasher};

use super::tree::Repository;
use crate::git::{Git, GitError};

/// A pointer is smaller than this, in bytes.
pub(super) const SMALLER_THAN: u64 = 1024;

/// What a pointer says of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The digest of the content.
    pub(super) oid: Digest,
    /// Its length in bytes.
    pub(super) size: u64,
    /// Whether extensions changed it on the way, which only they can undo.
    pub(super) extended: bool,
}

/// The names that the format has had.
const VERSIONS: [&str; 3] =
    ["https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2"];

impl Pointer {
    /// Reads a pointer; `None`: it is something else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|_| (bytes.len() as u64) < SMALLER_THAN)?;
        let mut lines = text.lines();
        let version = lines.next()?.strip_prefix("version ")?;
        VERSIONS.contains(&version).then_some(())?;
        let (mut oid, mut size, mut extended) = (None, None, false);
        for line in lines {
            match line.split_once(' ')? {
                ("oid", value) => oid = Some(value.parse().ok()?),
                ("size", value) => size = Some(value.parse().ok()?),
                (key, _) => extended |= key.starts_with("ext-"),
            }
        }
        let oid = oid.filter(|oid: &Digest| oid.algorithm() == Algorithm::Sha256)?;
        Some(Self { oid, size: size?, extended })
    }
}

/// Which of these paths of a repository the commit's own attributes give to LFS, whatever this host is configured to do.
///
/// Git matches the patterns: the commit's `.gitattributes` above the paths are laid out in an empty repository of
/// `scratch`, a directory that does not exist yet.
pub(super) fn tracked(
    repository: &Repository,
    paths: &[Vec<u8>],
    scratch: &Path,
) -> Result<BTreeSet<Vec<u8>>, AttributesError> {
    let git = Git::bare_of_settings(scratch);
    fs::create_dir_all(scratch)?;
    git.run(&["init", "--quiet", "--template="])?;
    let above: BTreeSet<&[u8]> = paths.iter().flat_map(|path| directories_above(path)).collect();
    let mut objects = repository.git.objects()?;
    for dir in above {
        let name = [dir, b".gitattributes"].concat();
        let asked = [repository.commit.as_bytes(), b":", &name].concat();
        let Some((object, bytes)) = objects.whole_bytes(&asked)? else { continue };
        if object.kind == "blob" {
            let file = scratch.join(OsStr::from_bytes(&name));
            fs::create_dir_all(file.parent().unwrap_or(scratch))?;
            OpenOptions::new().write(true).create_new(true).open(&file)?.write_all(&bytes)?;
        }
    }
    let input = paths.iter().flat_map(|path| [path.as_slice(), b"\0"].concat()).collect();
    let answer = git.feed(&["check-attr", "--stdin", "-z", "filter"], input)?;
    // `PATH<NUL>ATTRIBUTE<NUL>VALUE<NUL>`
    let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
    Ok(fields.chunks_exact(3).filter(|field| field[2] == b"lfs").map(|field| field[0].to_vec()).collect())
}

/// The directories of a path from the top, each empty or ending in `/`.
fn directories_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    std::iter::once(0).chain(slashes).map(|end| &path[..end])
}

/// The attributes could not be asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttributesError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where a repository's contents can lie: its own store, and those of the repositories that it borrows objects from.
pub(super) fn stores(repository: &Repository) -> Result<Vec<PathBuf>, GitError> {
    let configured = repository.git.start(&["config", "-z", "--type=path", "lfs.storage"])?.answer()?.bytes;
    let own = match configured.strip_suffix(b"\0") {
        Some(path) if !path.is_empty() => repository.common_dir.join(OsStr::from_bytes(path)),
        _ => repository.common_dir.join("lfs"),
    };
    let mut stores = vec![own.join("objects")];
    let objects = repository.common_dir.join("objects");
    // Most repositories borrow nothing.
    let borrowed = fs::read(objects.join("info/alternates")).unwrap_or_default();
    for line in borrowed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#') {
        let there = objects.join(OsStr::from_bytes(line));
        stores.extend(there.parent().map(|dir| dir.join("lfs/objects")));
    }
    Ok(stores)
}

/// The file of a store that has the content.
pub(super) fn find(stores: &[PathBuf], pointer: &Pointer) -> Option<PathBuf> {
    let hex = pointer.oid.hex();
    let place = |store: &PathBuf| store.join(&hex[..2]).join(&hex[2..4]).join(hex);
    let has_it =
        |file: &PathBuf| file.metadata().is_ok_and(|found| found.is_file() && found.len() == pointer.size);
    stores.iter().map(place).find(has_it)
}

/// Copies the content over a pointer; `false`: these are other bytes.
pub(super) fn copy(from: &Path, to: &File, pointer: &Pointer) -> io::Result<bool> {
    let mut from = File::open(from)?;
    let mut to = to;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let some = from.read(&mut buffer)?;
        if some == 0 {
            return Ok(size == pointer.size && hasher.finish() == pointer.oid);
        }
        hasher.update(&buffer[..some]);
        to.write_all(&buffer[..some])?;
        size += some as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_from_what_only_looks_like_one() {
        let oid = "sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let pointer = |text: &str| Pointer::parse(text.as_bytes());
        let good = format!("version https://git-lfs.github.com/spec/v1\noid {oid}\nsize 12345\n");
        let expected = Pointer { oid: oid.parse().unwrap(), size: 12345, extended: false };
        assert_eq!(pointer(&good), Some(expected.clone()));
        assert_eq!(pointer(&good.replace("git-lfs.github", "hawser.github")), Some(expected));
        let extended = good.replace("oid", "ext-0-case sha256:00\noid");
        assert!(pointer(&extended).unwrap().extended);
        for bad in [
            "",
            "version https://git-lfs.github.com/spec/v1\n",
            &good.replace("v1", "v9"),
            &good.replace("sha256:4d", "sha256:"),
            &good.replace("12345", "many"),
            &good.replace("sha256", "md5"),
            &format!("# about\n{good}"),
            &format!("{good}{}", "x y\n".repeat(300)),
        ] {
            assert_eq!(pointer(bad), None, "{bad}");
        }
    }
}

//! The record of an unpacked artefact: one canonical JSON line per file, sorted by path, with a digest of its own.
//!
//! Says later whether anything was added, removed or edited: quickly (kind, mode, size, time of modification) or in
//! full (every byte hashed again).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use semel_model::canonical;
use semel_model::digest::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};

/// One file of an unpacked artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TreeLine {
    /// Relative to the artefact's root.
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum What {
    /// A directory.
    Dir { mode: u32 },
    /// A regular file; `mtime` in seconds since 1970.
    File { mode: u32, size: u64, mtime: i64, sha256: String },
    /// A symbolic link, as data.
    Link { to: String },
}

/// How closely files are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closeness {
    /// Kind, mode, size and time.
    Quick,
    /// Every byte as well.
    Full,
}

/// The record of what is on disk now, as the bytes of the `.tree` file.
pub(super) fn record(dir: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for path in paths(dir)? {
        let what = look_at(&dir.join(&path), true)?;
        bytes.extend_from_slice(&canonical::bytes(&TreeLine { path, what }));
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Compares what is on disk with a record. Gives the first difference, to be read behind the artefact's name.
pub(super) fn first_difference(
    dir: &Path,
    record: &[u8],
    closeness: Closeness,
) -> io::Result<Option<String>> {
    let Some(lines) = parse(record) else { return Ok(Some("its record is damaged".to_owned())) };
    if !dir.is_dir() {
        return Ok(Some("it is gone".to_owned()));
    }
    let found = paths(dir)?;
    let mut recorded = lines.iter().peekable();
    for path in &found {
        match recorded.next_if(|line| line.path <= *path) {
            Some(line) if line.path == *path => {
                if !agrees(&dir.join(path), &line.what, closeness)? {
                    return Ok(Some(format!("`{path}` was edited")));
                }
            }
            Some(line) => return Ok(Some(format!("`{}` was removed", line.path))),
            None => return Ok(Some(format!("`{path}` was added"))),
        }
    }
    Ok(recorded.next().map(|line| format!("`{}` was removed", line.path)))
}

fn parse(record: &[u8]) -> Option<Vec<TreeLine>> {
    record
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|l| serde_json::from_slice(l).ok())
        .collect()
}

fn agrees(path: &Path, recorded: &What, closeness: Closeness) -> io::Result<bool> {
    let full = closeness == Closeness::Full;
    Ok(match (look_at(path, full)?, recorded) {
        (What::File { mode, size, mtime, .. }, What::File { mode: m, size: s, mtime: t, .. }) if !full => {
            (mode, size, mtime) == (*m, *s, *t)
        }
        (found, recorded) => found == *recorded,
    })
}

/// Everything below a directory, sorted. A path that is no UTF-8 cannot be ours and is shown as well as it can be.
fn paths(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(inside) = open.pop() {
        for entry in fs::read_dir(dir.join(&inside))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = if inside.is_empty() { name.into_owned() } else { format!("{inside}/{name}") };
            if entry.file_type()?.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn look_at(path: &Path, hash: bool) -> io::Result<What> {
    let meta = fs::symlink_metadata(path)?;
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_symlink() {
        let to = fs::read_link(path)?.to_string_lossy().into_owned();
        Ok(What::Link { to })
    } else if meta.is_dir() {
        Ok(What::Dir { mode })
    } else if meta.is_file() {
        let sha256 = if hash { hash_file(path)?.hex().to_owned() } else { String::new() };
        Ok(What::File { mode, size: meta.len(), mtime: meta.mtime(), sha256 })
    } else {
        // A socket or a pipe: nothing that we unpacked, so it equals no line of a record.
        Ok(What::Link { to: "\0".to_owned() })
    }
}

fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("app")).unwrap();
        fs::write(dir.path().join("app/run"), "one").unwrap();
        fs::write(dir.path().join("app.d"), "sorts between").unwrap();
        std::os::unix::fs::symlink("run", dir.path().join("app/link")).unwrap();
        dir
    }

    fn difference(dir: &Path, record: &[u8], closeness: Closeness) -> Option<String> {
        first_difference(dir, record, closeness).unwrap()
    }

    #[test]
    fn an_untouched_tree_has_no_difference_and_one_record() {
        let dir = sample();
        let record = record(dir.path()).unwrap();
        assert_eq!(record, super::record(dir.path()).unwrap());
        for closeness in [Closeness::Quick, Closeness::Full] {
            assert_eq!(difference(dir.path(), &record, closeness), None);
        }
    }

    #[test]
    fn every_change_is_seen_and_named() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 6] = [
            (|dir| fs::write(dir.join("app/run"), "longer").unwrap(), "`app/run` was edited"),
            (|dir| fs::remove_file(dir.join("app/run")).unwrap(), "`app/run` was removed"),
            (|dir| fs::write(dir.join("app/extra"), "").unwrap(), "`app/extra` was added"),
            (|dir| fs::write(dir.join("zzz"), "").unwrap(), "`zzz` was added"),
            (
                |dir| fs::set_permissions(dir.join("app/run"), fs::Permissions::from_mode(0o4755)).unwrap(),
                "`app/run` was edited",
            ),
            (
                |dir| {
                    fs::remove_file(dir.join("app/link")).unwrap();
                    std::os::unix::fs::symlink("other", dir.join("app/link")).unwrap();
                },
                "`app/link` was edited",
            ),
        ];
        for (change, expected) in changes {
            let dir = sample();
            let record = record(dir.path()).unwrap();
            change(dir.path());
            assert_eq!(difference(dir.path(), &record, Closeness::Quick).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_edit_that_hides_its_time_is_found_by_hashing() {
        let dir = sample();
        let path = dir.path().join("app/run");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        };
        write("one");
        let record = record(dir.path()).unwrap();
        write("two");
        assert_eq!(difference(dir.path(), &record, Closeness::Quick), None);
        assert_eq!(difference(dir.path(), &record, Closeness::Full).as_deref(), Some("`app/run` was edited"));
    }

    #[test]
    fn a_damaged_record_is_a_difference() {
        let dir = sample();
        assert_eq!(difference(dir.path(), b"{", Closeness::Quick).as_deref(), Some("its record is damaged"));
    }
}

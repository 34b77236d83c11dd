//! What the application prints: written by the supervisor into `log/app.log`, rotated by size, read by `semel logs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::durable::{self, At, FileError};
use super::{Layout, RootError};

/// How large a log grows before it is set aside, and how many older ones are kept.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
const KEPT: u32 = 3;

/// How much of the end of a log is looked at for its last lines.
const TAIL_BYTES_MAX: u64 = 1024 * 1024;

/// A place in the log, to read on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogMark {
    inode: u64,
    offset: u64,
}

/// The last lines of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Oldest first, without line ends.
    pub lines: Vec<String>,
    /// Where they end.
    pub mark: LogMark,
}

/// The last lines that the application printed.
pub fn tail(root: &Path, lines: usize) -> Result<Tail, RootError> {
    let layout = Layout::open(root)?;
    let mark = mark(&layout);
    let mut bytes = last_bytes(&layout.app_log(), 0)?;
    if count_lines(&bytes) <= lines {
        let mut older = last_bytes(&rotated(&layout.app_log(), 1), 0)?;
        older.append(&mut bytes);
        bytes = older;
    }
    Ok(Tail { lines: last_lines(&bytes, lines), mark })
}

/// What was printed since a mark, and the mark to ask with next time. To follow a log, ask again now and then.
pub fn since(root: &Path, mark: LogMark) -> Result<(Vec<u8>, LogMark), RootError> {
    let layout = Layout::open(root)?;
    let path = layout.app_log();
    let Ok(mut file) = File::open(&path) else { return Ok((Vec::new(), mark)) };
    let mut read = || -> io::Result<(Vec<u8>, LogMark)> {
        let inode = file.metadata()?.ino();
        let mut bytes = Vec::new();
        let offset = if inode == mark.inode {
            mark.offset
        } else {
            bytes = rest_of_rotated(&layout, mark);
            0
        };
        file.seek(SeekFrom::Start(offset))?;
        let n = Read::by_ref(&mut file).take(TAIL_BYTES_MAX).read_to_end(&mut bytes)? as u64;
        Ok((bytes, LogMark { inode, offset: offset + n }))
    };
    Ok(read().at("read", &path)?)
}

/// Where the log ends now.
pub(super) fn mark(layout: &Layout) -> LogMark {
    fs::metadata(layout.app_log())
        .map(|meta| LogMark { inode: meta.ino(), offset: meta.len() })
        .unwrap_or_default()
}

/// The last lines printed after a mark.
pub(super) fn tail_since(layout: &Layout, mark: LogMark, lines: usize) -> Vec<String> {
    let path = layout.app_log();
    let same = fs::metadata(&path).is_ok_and(|meta| meta.ino() == mark.inode);
    let bytes = last_bytes(&path, if same { mark.offset } else { 0 }).unwrap_or_default();
    last_lines(&bytes, lines)
}

/// What stands in the log that was set aside since the mark was taken.
fn rest_of_rotated(layout: &Layout, mark: LogMark) -> Vec<u8> {
    let path = rotated(&layout.app_log(), 1);
    match fs::metadata(&path) {
        Ok(meta) if meta.ino() == mark.inode => last_bytes(&path, mark.offset).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// The end of a file, from an offset on at most; nothing if it is not there.
fn last_bytes(path: &Path, from: u64) -> Result<Vec<u8>, FileError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("open", path)?,
    };
    let mut read = || -> io::Result<Vec<u8>> {
        let end = file.metadata()?.len();
        let start = from.max(end.saturating_sub(TAIL_BYTES_MAX)).min(end);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(end - start).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().at("read", path)
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn last_lines(bytes: &[u8], lines: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(ToString::to_string).collect()
}

fn rotated(path: &Path, n: u32) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!("{name}.{n}"))
}

/// A log that is set aside when it has grown.
#[derive(Debug)]
pub(super) struct RotatedLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl RotatedLog {
    /// Opens a log at its end.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        Self::open_with(path, BYTES_MAX)
    }

    fn open_with(path: &Path, bytes_max: u64) -> Result<Self, FileError> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).at("open", path)?;
        let bytes = file.metadata().at("look at", path)?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > self.bytes_max {
            set_aside(&self.path)?;
            *self = Self::open_with(&self.path, self.bytes_max)?;
        }
        self.file.write_all(bytes).at("append to", &self.path)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Sets a log aside if it has grown; for one that another program writes.
pub(super) fn rotate_if_large(path: &Path) -> Result<(), FileError> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > BYTES_MAX) {
        set_aside(path)?;
    }
    Ok(())
}

fn set_aside(path: &Path) -> Result<(), FileError> {
    for n in (1..KEPT).rev() {
        let older = rotated(path, n);
        if older.exists() {
            durable::rename(&older, &rotated(path, n + 1))?;
        }
    }
    durable::rename(path, &rotated(path, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_has_grown_is_set_aside_three_times_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let mut log = RotatedLog::open_with(&path, 10).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n", "eight\n", "nine\n"]
        {
            log.write(line.as_bytes()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["app.log", "app.log.1", "app.log.2", "app.log.3"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "nine\n");
    }

    #[test]
    fn a_log_is_followed_across_its_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        layout.make_directories().unwrap();
        layout.claim(&"dev".parse().unwrap(), &"api".parse().unwrap()).unwrap();
        let mut log = RotatedLog::open_with(&layout.app_log(), 12).unwrap();
        log.write(b"one\n").unwrap();
        let first = tail(dir.path(), 10).unwrap();
        assert_eq!(first.lines, ["one"]);
        log.write(b"two\n").unwrap();
        log.write(b"three\n").unwrap();
        let (bytes, mark) = since(dir.path(), first.mark).unwrap();
        assert_eq!(bytes, b"two\nthree\n");
        assert_eq!(since(dir.path(), mark).unwrap().0, b"");
        assert_eq!(tail(dir.path(), 2).unwrap().lines, ["two", "three"]);
    }
}

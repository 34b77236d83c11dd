//! Build log: what the project's commands print, and when; without secrets, and bounded.
//!
//! The bytes are a format (docs/format.md, "Build log"): a first line that says so, and a line for each line that was
//! printed, with the milliseconds since the commands began and a mark. What was printed can be told from it byte for
//! byte, the secrets and what was left out excepted. Of a long log the beginning and the end are kept.

mod excerpt;
mod mask;
mod read;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use mask::{Secret, TooShort};
pub use read::{Line, Mark, harmless, lines, more_lines, raw};

use excerpt::Excerpt;
use mask::Mask;

/// The first line of a log.
pub const FIRST_LINE: &[u8] = b"semel build log 1\n";

/// How much of a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of its beginning, in bytes.
    pub head_bytes: u64,
    /// Of its end, in bytes.
    pub tail_bytes: u64,
}

/// 64 MiB: the beginning, where it says what is built with what, and the end, where it says what went wrong.
pub(crate) const BOUNDS: Bounds = Bounds { head_bytes: 32 << 20, tail_bytes: 32 << 20 };

/// How long a line may become before it is written in pieces, in bytes.
const LONGEST: usize = 8 * 1024;

/// Hears of each line, made harmless for a terminal.
pub type Listener = Arc<dyn Fn(&str) + Send + Sync>;

/// A log that is being written. Clones write to the same log; what comes after its end is dropped.
#[derive(Clone)]
pub struct BuildLog(Arc<Mutex<Writing>>);

struct Writing {
    kept: Kept,
    mask: Mask,
    listener: Listener,
    /// The line that has not ended, and when it began.
    line: Vec<u8>,
    line_began: Duration,
    excerpt: Excerpt,
    ended: bool,
}

impl fmt::Debug for BuildLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildLog").finish_non_exhaustive()
    }
}

impl BuildLog {
    /// Begins a log in a file that does not exist yet.
    pub fn create(path: &Path, masks: &[Secret], bounds: Bounds, listener: Listener) -> io::Result<Self> {
        let mut kept = Kept::create(path, bounds)?;
        kept.write(FIRST_LINE)?;
        kept.head.flush()?;
        Ok(Self::over(kept, masks, listener))
    }

    /// Goes on with a log that was completed. What is added is bounded for itself.
    pub fn resume(path: &Path, masks: &[Secret], bounds: Bounds, listener: Listener) -> io::Result<Self> {
        let head = OpenOptions::new().append(true).open(path)?;
        Ok(Self::over(Kept::over(head, path, bounds)?, masks, listener))
    }

    fn over(kept: Kept, masks: &[Secret], listener: Listener) -> Self {
        Self(Arc::new(Mutex::new(Writing {
            kept,
            mask: Mask::new(masks),
            listener,
            line: Vec::new(),
            line_began: Duration::ZERO,
            excerpt: Excerpt::default(),
            ended: false,
        })))
    }

    /// A command begins, so long after the first one did.
    pub fn begin(&self, phase: &str, command: &str, at: Duration) -> io::Result<()> {
        let mut log = self.lock();
        log.end_line(at, Mark::Piece)?;
        let heading = format!("{phase}: {command}");
        let mut heading = [log.mask.take(heading.as_bytes()), log.mask.end()].concat();
        heading.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        log.put(at, Mark::Phase, &heading)?;
        log.excerpt = Excerpt::default();
        Ok(())
    }

    /// Takes what a command printed.
    pub fn take(&self, bytes: &[u8], at: Duration) -> io::Result<()> {
        let mut log = self.lock();
        if log.ended {
            return Ok(());
        }
        let shown = log.mask.take(bytes);
        log.add(&shown, at)
    }

    /// What a command printed is complete.
    pub(crate) fn end_command(&self, at: Duration) -> io::Result<()> {
        self.lock().end_command(at)
    }

    /// Completes the file.
    pub fn end(&self, at: Duration) -> io::Result<()> {
        let mut log = self.lock();
        if log.ended {
            return Ok(());
        }
        log.end_command(at)?;
        log.ended = true;
        log.kept.end(at)
    }

    /// What came since the last command began: all of it, or its first and its last lines.
    pub fn excerpt(&self) -> Vec<String> {
        self.lock().excerpt.lines()
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Writing {
    fn add(&mut self, bytes: &[u8], at: Duration) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.is_empty() {
                self.line_began = at;
            }
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.line.extend_from_slice(end);
                    self.end_line(at, Mark::Line)?;
                }
                None => self.line.extend_from_slice(piece),
            }
            if self.line.len() >= LONGEST {
                self.end_line(at, Mark::Piece)?;
            }
        }
        // Others read along.
        self.kept.head.flush()
    }

    fn end_command(&mut self, at: Duration) -> io::Result<()> {
        let shown = self.mask.end();
        self.add(&shown, at)?;
        self.end_line(at, Mark::Piece)?;
        self.kept.head.flush()
    }

    /// Writes the line; without its end there may be nothing to write.
    fn end_line(&mut self, at: Duration, mark: Mark) -> io::Result<()> {
        if self.line.is_empty() && mark == Mark::Piece {
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let at = if line.is_empty() { at } else { self.line_began };
        self.put(at, mark, &line)
    }

    fn put(&mut self, at: Duration, mark: Mark, text: &[u8]) -> io::Result<()> {
        self.kept.write(&line_of(at, mark, text))?;
        let shown = match mark {
            Mark::Phase => format!("== {}", harmless(text)),
            _ => harmless(text),
        };
        (self.listener)(&shown);
        self.excerpt.add(shown);
        Ok(())
    }
}

/// `MILLISECONDS MARK TEXT<NEWLINE>`
fn line_of(at: Duration, mark: Mark, text: &[u8]) -> Vec<u8> {
    let mut line = format!("{} {} ", at.as_millis(), char::from(mark.byte())).into_bytes();
    line.extend_from_slice(text);
    line.push(b'\n');
    line
}

/// The beginning in the file, and the end in a ring beside it until it is complete.
struct Kept {
    head: BufWriter<File>,
    head_left: u64,
    ring: File,
    ring_bytes: u64,
    /// How many bytes came behind the beginning.
    behind: u64,
}

impl Kept {
    fn create(path: &Path, bounds: Bounds) -> io::Result<Self> {
        Self::over(OpenOptions::new().write(true).create_new(true).open(path)?, path, bounds)
    }

    fn over(head: File, path: &Path, bounds: Bounds) -> io::Result<Self> {
        let beside = path.with_extension("log-end");
        let ring = OpenOptions::new().read(true).write(true).create_new(true).open(&beside)?;
        // It has no name that anybody needs.
        std::fs::remove_file(&beside)?;
        Ok(Self {
            head: BufWriter::new(head),
            head_left: bounds.head_bytes,
            ring,
            ring_bytes: bounds.tail_bytes,
            behind: 0,
        })
    }

    /// A line is kept in one place or the other, never divided.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.behind == 0 && length <= self.head_left {
            self.head_left -= length;
            return self.head.write_all(line);
        }
        let mut rest = line;
        while !rest.is_empty() {
            let at = self.behind % self.ring_bytes;
            let some = rest.len().min(usize::try_from(self.ring_bytes - at).unwrap_or(usize::MAX));
            self.ring.write_all_at(&rest[..some], at)?;
            self.behind += some as u64;
            rest = &rest[some..];
        }
        Ok(())
    }

    fn end(&mut self, at: Duration) -> io::Result<()> {
        let lost = self.behind.saturating_sub(self.ring_bytes);
        let lost = lost + if lost > 0 { self.rest_of_line(lost)? } else { 0 };
        if lost > 0 {
            let words = format!("{lost} bytes of the log are left out here");
            self.head.write_all(&line_of(at, Mark::Words, words.as_bytes()))?;
        }
        let mut from = lost;
        let mut buffer = vec![0; 64 * 1024];
        while from < self.behind {
            let some = self.read(from, &mut buffer)?;
            self.head.write_all(&buffer[..some])?;
            from += some as u64;
        }
        self.head.flush()
    }

    /// How many bytes it is from a place in the ring to the next line.
    fn rest_of_line(&self, from: u64) -> io::Result<u64> {
        let mut buffer = [0; 4096];
        let mut at = from;
        while at < self.behind {
            let some = self.read(at, &mut buffer)?;
            if let Some(end) = buffer[..some].iter().position(|byte| *byte == b'\n') {
                return Ok(at - from + end as u64 + 1);
            }
            at += some as u64;
        }
        Ok(self.behind - from)
    }

    /// Reads what came `from` bytes behind the beginning, as far as it lies together.
    fn read(&self, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let at = from % self.ring_bytes;
        let together = (self.behind - from).min(self.ring_bytes - at);
        let some = buffer.len().min(usize::try_from(together).unwrap_or(usize::MAX));
        self.ring.read_exact_at(&mut buffer[..some], at)?;
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LARGE: Bounds = Bounds { head_bytes: 1 << 20, tail_bytes: 1 << 20 };

    fn written(bounds: Bounds, masks: &[Secret], fill: impl FnOnce(&BuildLog)) -> Vec<u8> {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("build.log");
        let log = BuildLog::create(&path, masks, bounds, Arc::new(|_: &str| {})).unwrap();
        fill(&log);
        log.end(Duration::from_millis(9_000)).unwrap();
        log.take(b"too late", Duration::ZERO).unwrap();
        std::fs::read(path).unwrap()
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_bytes_of_a_build_log_are_frozen() {
        let bytes = written(LARGE, &[Secret::new("TOKEN", "hunter22").unwrap()], |log| {
            log.begin("fetch", "curl -u me:hunter22 x\necho", at(0)).unwrap();
            log.take(b"one\ntw", at(12)).unwrap();
            log.take(b"o\n\nhunt", at(3_400)).unwrap();
            log.take(b"er22 \xff\x1b[1m", at(3_500)).unwrap();
            log.end_command(at(3_600)).unwrap();
            log.begin("run", "make", at(3_700)).unwrap();
        });
        let expected =
            b"semel build log 1\n0 = fetch: curl -u me:[secret TOKEN] x echo\n12 | one\n12 | two\n\
            3400 | \n3500 > [secret TOKEN] \xff\x1b[1m\n3700 = run: make\n";
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(expected));
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_log_goes_on_after_its_end() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("build.log");
        for (phase, resumed) in [("run", false), ("smoke", true)] {
            let quiet: Listener = Arc::new(|_: &str| {});
            let log = match resumed {
                false => BuildLog::create(&path, &[], LARGE, quiet),
                true => BuildLog::resume(&path, &[], LARGE, quiet),
            };
            let log = log.unwrap();
            log.begin(phase, "x", at(1)).unwrap();
            log.take(b"said", at(2)).unwrap();
            log.end(at(3)).unwrap();
        }
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "semel build log 1\n1 = run: x\n2 > said\n1 = smoke: x\n2 > said\n"
        );
    }

    #[test]
    fn of_a_long_log_the_beginning_and_the_end_are_kept() {
        let bytes = written(Bounds { head_bytes: 60, tail_bytes: 40 }, &[], |log| {
            for n in 0..100 {
                log.take(format!("line {n}\n").as_bytes(), at(n)).unwrap();
            }
        });
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "semel build log 1\n0 | line 0\n1 | line 1\n2 | line 2\n\
             9000 . 1208 bytes of the log are left out here\n97 | line 97\n98 | line 98\n99 | line 99\n"
        );
    }

    #[test]
    fn nothing_is_left_out_of_a_log_that_just_fits() {
        let fill = |log: &BuildLog| (0..12).for_each(|n| log.take(b"0123456789\n", at(n)).unwrap());
        let whole = written(LARGE, &[], fill);
        let bounds = Bounds { head_bytes: 50, tail_bytes: whole.len() as u64 - 48 };
        assert_eq!(written(bounds, &[], fill), whole);
    }

    proptest! {
        #[test]
        fn what_was_printed_is_told_byte_for_byte(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 0..20)
        ) {
            let bytes = written(LARGE, &[], |log| {
                for (n, piece) in pieces.iter().enumerate() {
                    log.take(piece, at(n as u64)).unwrap();
                }
            });
            prop_assert_eq!(raw(&bytes), pieces.concat());
        }
    }

    #[test]
    fn a_line_without_an_end_is_written_in_pieces() {
        let long = vec![b'x'; 3 * LONGEST / 2];
        let bytes =
            written(LARGE, &[], |log| long.chunks(1000).for_each(|piece| log.take(piece, at(1)).unwrap()));
        assert_eq!(raw(&bytes), long);
        assert_eq!(lines(&bytes).count(), 2);
    }
}

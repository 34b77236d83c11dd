//! Watch: one command below its guard, from its start to its end: its output into the log, its time, its being stopped.

use std::io::{self, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;

use crate::log::BuildLog;

/// A handle by which another thread stops the commands of a build. Stopping twice, or after the end, does nothing.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Cancelling>);

#[derive(Debug, Default)]
struct Cancelling {
    state: Mutex<CancelState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct CancelState {
    stopped: bool,
    /// The input of the guard of the command that runs. Closed, it is what ends the command.
    guard: Option<ChildStdin>,
    running: bool,
}

/// How long a caller who stops a command waits for the end of everything that it started. A process that waits for a
/// disk or a file server ends when that answers.
const ENDING: Duration = Duration::from_secs(10);

impl Cancel {
    /// Ends the command that runs, with everything that it started, and lets no further one begin. When this returns,
    /// nothing of the command runs any more.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.guard = None;
        drop(self.0.ended.wait_timeout_while(state, ENDING, |state| state.running));
    }

    /// Whether it was stopped.
    fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn watch(&self, guard: Option<ChildStdin>) {
        let mut state = self.lock();
        state.running = true;
        state.guard = guard.filter(|_| !state.stopped);
    }

    /// The command took too long, or need not go on.
    fn give_up(&self) {
        self.lock().guard = None;
    }

    fn end(&self) {
        let mut state = self.lock();
        state.guard = None;
        state.running = false;
        self.0.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, CancelState> {
        self.0.state.lock().expect("no holder of this lock can panic")
    }
}

/// The times in a log: since the first command of the build began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// How long the commands took that another clock measured.
    pub(crate) before: Duration,
    /// Since when this one measures.
    pub(crate) began: Instant,
}

impl Clock {
    pub(crate) fn now(self) -> Duration {
        self.before + self.began.elapsed()
    }
}

/// How a command ended.
pub(crate) enum Ended {
    With(ExitStatus),
    TooLate,
    Stopped,
}

/// Why a command could not be watched to its end.
pub(crate) enum WatchError {
    /// It could not be started, or waited for.
    Start(io::Error),
    /// What it printed could not be kept.
    Log(io::Error),
}

/// How long output is still read after a command ended, when something that may not be ended holds the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a command of [`crate::sandbox`] to its end, for `limit` at most.
pub(crate) fn watch(
    command: Command,
    log: &BuildLog,
    clock: Clock,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Ended, WatchError> {
    let output = Output { log: log.clone(), clock, awaited: None };
    run(command, output, limit, cancel).map(|(ended, _)| ended)
}

/// Runs a command of [`crate::sandbox`] until it prints what is awaited, which ends it; else says how it ended.
pub(crate) fn watch_until(
    command: Command,
    awaited: &str,
    log: &BuildLog,
    clock: Clock,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Option<Ended>, WatchError> {
    let awaited =
        Awaited { text: Finder::new(awaited).into_owned(), before: Vec::new(), cancel: cancel.clone() };
    let output = Output { log: log.clone(), clock, awaited: Some(awaited) };
    let (ended, heard) = run(command, output, limit, cancel)?;
    Ok((!heard).then_some(ended))
}

/// How it ended, and whether it had printed what is awaited.
fn run(
    mut command: Command,
    output: Output,
    limit: Duration,
    cancel: &Cancel,
) -> Result<(Ended, bool), WatchError> {
    if cancel.is_stopped() {
        return Ok((Ended::Stopped, false));
    }
    let (reader, mut child) = spawn(&mut command).map_err(WatchError::Start)?;
    // The writing ends of the pipe must be the child's alone.
    drop(command);
    cancel.watch(child.stdin.take());
    let drained = output.read_all(reader);
    let (status, too_late) = wait(child, limit, cancel).map_err(WatchError::Start)?;
    let heard = drained.recv_timeout(DRAIN).unwrap_or(Ok(false)).map_err(WatchError::Log)?;
    let ended = match too_late {
        _ if cancel.is_stopped() => Ended::Stopped,
        true => Ended::TooLate,
        false => Ended::With(status),
    };
    Ok((ended, heard))
}

fn spawn(command: &mut Command) -> io::Result<(PipeReader, Child)> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
    Ok((reader, command.spawn()?))
}

/// Waits for the guard, which ends after the command and everything that the command started.
fn wait(mut child: Child, limit: Duration, cancel: &Cancel) -> io::Result<(ExitStatus, bool)> {
    let (tell, ended) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver waits for this, or has ended together with its process.
        let _ = tell.send(child.wait());
    });
    let (status, too_late) = match ended.recv_timeout(limit) {
        Ok(status) => (Ok(status), false),
        Err(_) => {
            cancel.give_up();
            (ended.recv(), true)
        }
    };
    cancel.end();
    let status = status.map_err(io::Error::other)?;
    Ok((status?, too_late))
}

/// Where the output of a command goes.
struct Output {
    log: BuildLog,
    clock: Clock,
    awaited: Option<Awaited>,
}

impl Output {
    /// Reads to the end. Tells whether what is awaited was printed, or why the output could not be kept.
    fn read_all(mut self, mut reader: PipeReader) -> mpsc::Receiver<io::Result<bool>> {
        let (tell, done) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            let mut read = Ok(false);
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    // A full disk must not stop the command in the middle of a write.
                    Ok(some) => read = read.and_then(|heard| Ok(self.take(&buffer[..some])? || heard)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        read = read.and(Err(error));
                        break;
                    }
                }
            }
            let ended = self.log.end_command(self.clock.now());
            let _ = tell.send(read.and_then(|heard| ended.map(|()| heard)));
        });
        done
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.log.take(bytes, self.clock.now())?;
        Ok(self.awaited.as_mut().is_some_and(|awaited| awaited.is_in(bytes)))
    }
}

/// What ends a command once it was printed.
struct Awaited {
    text: Finder<'static>,
    /// The last bytes before these: it may come in two pieces.
    before: Vec<u8>,
    cancel: Cancel,
}

impl Awaited {
    fn is_in(&mut self, bytes: &[u8]) -> bool {
        self.before.extend_from_slice(bytes);
        let heard = self.text.find(&self.before).is_some();
        if heard {
            self.cancel.give_up();
        }
        self.before.drain(..self.before.len().saturating_sub(self.text.needle().len()));
        heard
    }
}

/// `exited with code 1`, `was ended by signal 9`.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        // The convention of shells, which the guard keeps to, and what holds a command inside its own namespaces too.
        (Some(code @ 129..=192), _) => format!("was ended by signal {}", code - 128),
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

//! Talking to a supervisor: a socket in `run/`, one JSON line asked, one JSON line answered.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use semel_model::deployment::HealthState;
use semel_model::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::time::Instant;

use super::durable::{At, FileError};
use super::{Generation, Layout, RootError, logs};

/// How long a supervisor may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take: a child is given 10 s to stop.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How large an answer may be.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// What a supervisor is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "command")]
pub(super) enum Request {
    /// How it stands.
    Status,
    /// Stop what runs and start what `current` names.
    Switch,
    /// Stop what runs and end.
    Stop,
}

/// How a supervisor stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The supervisor's process.
    pub supervisor: i32,
    /// What is switched on; none: nothing is.
    pub generation: Option<Generation>,
    /// Its deployment key.
    pub key: Option<Digest>,
    /// The release's process; none: it does not run now.
    pub pid: Option<i32>,
    /// What the newest check said.
    pub health: HealthState,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// How often the process ended by itself since it was last well or was switched on.
    pub exits: u32,
    /// How it ended the last time.
    pub last_exit: Option<String>,
}

/// Why a supervisor could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The socket.
    #[error("cannot talk to the supervisor at {path}")]
    Talk {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path that no socket can have.
    #[error(
        "{path} is too long for a socket ({} characters at most): choose a shorter target path",
        SOCKET_PATH_MAX
    )]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// It could not be started.
    #[error("cannot start the supervisor {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was started and did not come up.
    #[error("the supervisor {program} did not come up: {what} (its log is {log})")]
    NotUp {
        /// The program.
        program: PathBuf,
        /// What happened instead.
        what: String,
        /// Where it wrote.
        log: PathBuf,
    },
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The program that supervises a root: `semel supervise --root ROOT`, told by the caller. It is started with no
/// variables at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnSupervisor {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, the root included.
    pub args: Vec<String>,
}

/// How the supervisor of a root stands; none: there is none.
pub async fn status(root: &Path) -> Result<Option<Status>, ControlError> {
    ask_root(root, Request::Status).await
}

/// Stops the release and its supervisor. Gives how it stood at the end; none: there was none.
pub async fn stop(root: &Path) -> Result<Option<Status>, ControlError> {
    ask_root(root, Request::Stop).await
}

/// Stops the release and starts what is switched on; none: there is no supervisor.
pub async fn restart(root: &Path) -> Result<Option<Status>, ControlError> {
    ask_root(root, Request::Switch).await
}

/// Sees to it that a root has a supervisor. It outlives this process.
pub async fn ensure_supervisor(root: &Path, spawn: &SpawnSupervisor) -> Result<Status, ControlError> {
    ensure(&Layout::open(root)?, spawn).await
}

async fn ask_root(root: &Path, request: Request) -> Result<Option<Status>, ControlError> {
    match Layout::find(root)? {
        None => Ok(None),
        Some((layout, _)) => ask(&layout, request).await,
    }
}

pub(super) async fn ensure(layout: &Layout, spawn: &SpawnSupervisor) -> Result<Status, ControlError> {
    if let Some(status) = ask(layout, Request::Status).await? {
        return Ok(status);
    }
    let mut started = start(layout, spawn)?;
    let until = Instant::now() + UP_WITHIN;
    loop {
        // One that lost the race for the lock ends because the winner answers, so it is looked at before the winner is.
        let ended = started.try_wait().ok().flatten();
        if let Some(status) = ask(layout, Request::Status).await? {
            return Ok(status);
        }
        if Instant::now() > until || ended.is_some_and(|status| !status.success()) {
            let what = ended.map_or_else(|| "it does not answer".to_owned(), |status| status.to_string());
            return Err(ControlError::NotUp {
                program: spawn.program.clone(),
                what,
                log: layout.supervisor_log(),
            });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The supervisor inherits no variables: it lives long, and those of whoever deploys may hold credentials.
fn start(layout: &Layout, spawn: &SpawnSupervisor) -> Result<tokio::process::Child, ControlError> {
    let path = layout.supervisor_log();
    logs::rotate_if_large(&path)?;
    let log = std::fs::OpenOptions::new().append(true).create(true).open(&path).at("open", &path)?;
    let second = log.try_clone().at("open", &path)?;
    let mut command = Command::new(&spawn.program);
    command
        .args(&spawn.args)
        .env_clear()
        .current_dir(layout.root())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second);
    command.spawn().map_err(|source| ControlError::Spawn { program: spawn.program.clone(), source })
}

/// Asks the supervisor; none: there is none.
pub(super) async fn ask(layout: &Layout, request: Request) -> Result<Option<Status>, ControlError> {
    let path = socket(layout);
    let talk = |source: io::Error| ControlError::Talk { path: path.clone(), source };
    let stream = match connect(&path)? {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(talk(error)),
    };
    match tokio::time::timeout(ANSWER_WITHIN, exchange(stream, request)).await {
        Err(_) => Err(talk(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))),
        // It ended while it was asked.
        Ok(Err(error)) if is_gone(&error) => Ok(None),
        Ok(Err(error)) => Err(talk(error)),
        Ok(Ok(status)) => Ok(Some(status)),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn exchange(mut stream: UnixStream, request: Request) -> io::Result<Status> {
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut answer).await?;
    if answer.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Answers one caller: reads what is asked, hands it to `answer`, writes what that says.
pub(super) async fn serve<F>(mut stream: UnixStream, answer: impl FnOnce(Request) -> F) -> io::Result<()>
where
    F: Future<Output = Option<Status>>,
{
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(LINE_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    let request = serde_json::from_slice(&line)?;
    if let Some(status) = answer(request).await {
        let mut reply = serde_json::to_vec(&status)?;
        reply.push(b'\n');
        stream.write_all(&reply).await?;
    }
    Ok(())
}

/// Opens the socket; only whoever holds the supervisor's lock does.
pub(super) fn listen(layout: &Layout) -> Result<UnixListener, ControlError> {
    let path = socket(layout);
    let talk = |source: io::Error| ControlError::Talk { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(talk(error)),
        _ => {}
    }
    let near = Near::of(&path)?;
    UnixListener::bind(&near.path).map_err(talk)
}

pub(super) fn socket(layout: &Layout) -> PathBuf {
    layout.run().join("control.sock")
}

fn connect(path: &Path) -> Result<io::Result<UnixStream>, ControlError> {
    let near = Near::of(path)?;
    let connected = StdUnixStream::connect(&near.path).and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    Ok(connected)
}

/// What `sun_path` holds on Linux (108) and macOS (104), less the NUL.
const SOCKET_PATH_MAX: usize = 103;

/// A path of a socket that is short enough, valid as long as this value lives.
struct Near {
    path: PathBuf,
    _dir: Option<std::fs::File>,
}

impl Near {
    /// Linux reaches a directory by an open descriptor of it, whatever the length of its name.
    fn of(path: &Path) -> Result<Self, ControlError> {
        use std::os::fd::AsRawFd;
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Self { path: path.to_owned(), _dir: None });
        }
        let (parent, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
        match std::fs::File::open(parent) {
            Ok(dir) if cfg!(target_os = "linux") => {
                let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
                Ok(Self { path: short, _dir: Some(dir) })
            }
            _ => Err(ControlError::PathTooLong { path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_root_with_a_long_path_is_reached_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("x".repeat(200));
        let layout = Layout::create(&root).unwrap();
        layout.make_directories().unwrap();
        assert!(ask(&layout, Request::Status).await.unwrap().is_none());
        let listener = listen(&layout).unwrap();
        let status = Status {
            supervisor: 1,
            generation: None,
            key: None,
            pid: None,
            health: HealthState::Unknown,
            reason: None,
            exits: 0,
            last_exit: None,
        };
        let answer = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, async |_| Some(status.clone())).await.unwrap();
        };
        let (asked, ()) = tokio::join!(ask(&layout, Request::Status), answer);
        assert_eq!(asked.unwrap(), Some(status.clone()));
    }
}

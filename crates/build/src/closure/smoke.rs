//! Smoke: the project's own commands, run inside the finished artefact.
//!
//! That something starts is the only complete proof that it has what it needs. An image is laid out as files and becomes
//! the root of the command, read-only, with an empty `/tmp`, no network, no files of this machine and no processes but
//! its own. An archive has no root: it lies beside the system directories of this machine. Where nothing here can hold a
//! command back like that, it is not run, and the report says why.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, PipeReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use semel_model::project::{Kind, words};

use super::report::{SmokeOutcome, Smoked};
use super::{USUAL_PATH, shown};
use crate::log::BuildLog;
use crate::recipe::Cancel;
use crate::rootfs::{self, Node, Rootfs};
use semel_model::platform::Platform;

/// How long a smoke command may take: it shows that something starts, not that it works.
const LIMIT: Duration = Duration::from_secs(120);

/// What is run, and where.
#[derive(Debug, Clone, Copy)]
pub struct SmokeRequest<'a> {
    /// The finished artefact.
    pub rootfs: &'a Rootfs,
    /// Which kind it is.
    pub kind: Kind,
    /// What it runs on.
    pub platform: &'a Platform,
    /// The commands.
    pub commands: &'a [String],
    /// The variables that the artefact starts with, `NAME=value`.
    pub environment: &'a [String],
    /// Where it starts.
    pub workdir: Option<&'a str>,
    /// The directories in which programs of this machine are looked for.
    pub host_path: &'a str,
    /// A directory that does not exist yet, where the artefact is laid out.
    pub scratch: &'a Path,
    /// How long the commands before these took: the times in the log go on.
    pub before: Duration,
}

/// Why the artefact did not pass.
#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    /// A command ended with an error, or not in time.
    #[error("smoke: `{command}` {ending}")]
    Failed {
        /// The command as the definition has it.
        command: String,
        /// `exited with code 1`, `was ended by signal 11`, `took longer than 120 s and was ended`.
        ending: String,
        /// The last lines that it printed.
        tail: Vec<String>,
    },
    /// The caller stopped it.
    #[error("smoke: stopped")]
    Stopped,
    /// The artefact could not be laid out.
    #[error("smoke: cannot lay out {path} of the artefact")]
    LayOut {
        /// The path inside.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The command could not be started or watched.
    #[error("smoke: cannot run `{command}`")]
    Start {
        /// The command as the definition has it.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl SmokeError {
    /// The last lines that a failed command printed.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Failed { tail, .. } => tail,
            Self::Stopped | Self::LayOut { .. } | Self::Start { .. } => &[],
        }
    }
}

/// Runs the commands one after the other; the first that fails ends it.
pub fn run(request: &SmokeRequest<'_>, log: &BuildLog, cancel: &Cancel) -> Result<Vec<Smoked>, SmokeError> {
    let jail = match Jail::find(request) {
        Ok(jail) => jail,
        Err(reason) => return Ok(Smoked::none_ran(request.commands, &reason)),
    };
    lay_out(request.rootfs, request.scratch)?;
    let clock = Clock { before: request.before, began: Instant::now() };
    let mut passed = Vec::new();
    for command in request.commands {
        One { request, jail: &jail, command, log, clock }.run(cancel)?;
        let (outcome, sandbox) = (SmokeOutcome::Passed, Some(jail.name()));
        passed.push(Smoked { command: command.clone(), outcome, sandbox, reason: None });
    }
    Ok(passed)
}

/// Writes the artefact as files. Copies, so that nothing that runs there can change what was packaged.
fn lay_out(rootfs: &Rootfs, top: &Path) -> Result<(), SmokeError> {
    let failed = |path: &[u8]| {
        let path = shown(path);
        move |source| SmokeError::LayOut { path, source }
    };
    fs::create_dir_all(top).map_err(failed(b""))?;
    // Parents come before what is in them, and no parent is a link.
    for (path, node) in rootfs.entries() {
        let place = top.join(std::ffi::OsStr::from_bytes(path));
        lay_out_one(node, &place).map_err(failed(path))?;
    }
    for dir in ["proc", "dev", "tmp"] {
        if rootfs.get(dir.as_bytes()).is_none() {
            fs::create_dir(top.join(dir)).map_err(failed(dir.as_bytes()))?;
        }
    }
    Ok(())
}

fn lay_out_one(node: &Node, place: &Path) -> io::Result<()> {
    match node {
        Node::Directory { mode } => {
            fs::create_dir(place)?;
            fs::set_permissions(place, Permissions::from_mode(mode & 0o777 | 0o700))
        }
        Node::Symlink { target } => symlink(std::ffi::OsStr::from_bytes(target), place),
        Node::File { mode, .. } => {
            io::copy(&mut rootfs::open(node)?, &mut File::create_new(place)?)?;
            fs::set_permissions(place, Permissions::from_mode(mode & 0o777))
        }
        Node::Special => Ok(()),
    }
}

/// What holds a command inside the artefact.
enum Jail {
    /// The program `bwrap`.
    Bubblewrap(PathBuf),
    /// The program `unshare` of util-linux: the same namespaces, without `/proc` and `/dev`.
    Unshare(PathBuf),
}

impl Jail {
    /// The strongest that works here; else why there is none.
    fn find(request: &SmokeRequest<'_>) -> Result<Self, String> {
        let (made_for, here) = (&request.platform.architecture, Platform::host().architecture);
        if *made_for != here {
            return Err(format!("it is made for {made_for}, and this machine is {here}"));
        }
        if let Some(program) = bubblewrap(request.host_path) {
            return Ok(Self::Bubblewrap(program));
        }
        let unshare = on_path(request.host_path, "unshare");
        match unshare {
            Some(program)
                if request.kind == Kind::Image
                    && works(Command::new(&program).args(UNSHARED).arg("true")) =>
            {
                Ok(Self::Unshare(program))
            }
            _ => Err("neither bubblewrap nor user namespaces can be used here: semel doctor".to_owned()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Bubblewrap(_) => "bubblewrap",
            Self::Unshare(_) => "namespaces",
        }
    }

    /// The command inside the artefact that is laid out at `top`.
    fn command(&self, request: &SmokeRequest<'_>, words: &[String]) -> Command {
        let top = request.scratch;
        let workdir = request.workdir.unwrap_or("/");
        match self {
            Self::Bubblewrap(program) => {
                let mut command = Command::new(program);
                command.args(APART);
                match request.kind {
                    Kind::Image => command.arg("--ro-bind").arg(top).arg("/").args(["--chdir", workdir]),
                    Kind::Archive | Kind::Zip | Kind::Vm => command
                        .args(host_directories())
                        .arg("--ro-bind")
                        .arg(top)
                        .args([BESIDE, "--chdir", BESIDE]),
                };
                command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"]).args(words);
                command
            }
            Self::Unshare(program) => {
                let mut command = Command::new(program);
                let mut root = OsString::from("--root=");
                root.push(top);
                command.args(UNSHARED).arg(root).arg(format!("--wd={workdir}")).arg("--").args(words);
                command
            }
        }
    }
}

/// Namespaces and rights: of users, processes, network, names and what they share.
const APART: [&str; 5] = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"];

const UNSHARED: [&str; 9] =
    ["--user", "--map-root-user", "--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child"];

/// Where an archive lies for its smoke commands.
const BESIDE: &str = "/artefact";

/// What of this machine an archive sees: programs, libraries and how they are found.
fn host_directories() -> Vec<OsString> {
    let mut words = Vec::new();
    for dir in ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"]
    {
        match fs::read_link(dir) {
            Ok(target) => words.extend(["--symlink".into(), target.into_os_string(), dir.into()]),
            Err(_) => words.extend(["--ro-bind-try", dir, dir].map(OsString::from)),
        }
    }
    words
}

/// The program `bwrap`, where it works.
pub(crate) fn bubblewrap(path: &str) -> Option<PathBuf> {
    let program = on_path(path, "bwrap")?;
    let words = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"];
    works(Command::new(&program).args(words)).then_some(program)
}

/// A program in one of the directories of a `PATH`.
pub(crate) fn on_path(path: &str, program: &str) -> Option<PathBuf> {
    path.split(':')
        .map(|dir| Path::new(dir).join(program))
        .find(|place| place.is_absolute() && place.is_file())
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

struct One<'a> {
    request: &'a SmokeRequest<'a>,
    jail: &'a Jail,
    command: &'a str,
    log: &'a BuildLog,
    clock: Clock,
}

/// The times in the log.
#[derive(Debug, Clone, Copy)]
struct Clock {
    before: Duration,
    began: Instant,
}

impl Clock {
    fn now(self) -> Duration {
        self.before + self.began.elapsed()
    }
}

/// How soon a command ends after the caller stopped it.
const ATTENTION: Duration = Duration::from_millis(100);
/// How long output is still read after a command ended.
const DRAIN: Duration = Duration::from_secs(2);

impl One<'_> {
    fn run(&self, cancel: &Cancel) -> Result<(), SmokeError> {
        let unstarted = |source| SmokeError::Start { command: self.command.to_owned(), source };
        self.log.begin("smoke", self.command, self.clock.now()).map_err(unstarted)?;
        let status = self.finish(cancel).map_err(unstarted)?;
        self.log.end_command(self.clock.now()).map_err(unstarted)?;
        let ending = match status {
            Ended::With(status) if status.success() => return Ok(()),
            Ended::With(status) => ending(status),
            Ended::TooLate => format!("took longer than {} s and was ended", LIMIT.as_secs()),
            Ended::Stopped => return Err(SmokeError::Stopped),
        };
        Err(SmokeError::Failed { command: self.command.to_owned(), ending, tail: self.log.last_lines() })
    }

    fn finish(&self, cancel: &Cancel) -> io::Result<Ended> {
        let words: Vec<String> =
            words(self.command).unwrap_or_default().into_iter().map(|word| self.inside(word)).collect();
        let (reader, writer) = io::pipe()?;
        let mut command = self.jail.command(self.request, &words);
        command.env_clear().env("PATH", USUAL_PATH).env("HOME", "/");
        command.envs(self.request.environment.iter().filter_map(|entry| entry.split_once('=')));
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        // The writing ends of the pipe must be the child's alone.
        drop(command);
        let drained = self.drain(reader);
        let group = Pid::from_child(&child);
        let judged = wait(group, cancel);
        // Not reaped yet, so the number is still its own; bubblewrap takes everything inside with it.
        let _ = kill_process_group(group, Signal::KILL);
        let status = child.wait()?;
        let _ = drained.recv_timeout(DRAIN);
        Ok(judged.unwrap_or(Ended::With(status)))
    }

    /// An archive's own paths are below the place where it lies.
    fn inside(&self, word: String) -> String {
        let own = self.request.kind != Kind::Image
            && word.starts_with('/')
            && self.request.rootfs.resolve(word.as_bytes()).is_ok();
        if own { format!("{BESIDE}{word}") } else { word }
    }

    fn drain(&self, mut reader: PipeReader) -> mpsc::Receiver<()> {
        let (log, clock) = (self.log.clone(), self.clock);
        let (tell, drained) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(some @ 1..) = reader.read(&mut buffer) {
                // A full disk must not stop the command in the middle of a write.
                let _ = log.take(&buffer[..some], clock.now());
            }
            let _ = tell.send(());
        });
        drained
    }
}

enum Ended {
    With(ExitStatus),
    TooLate,
    Stopped,
}

/// Waits for the leader of a group and leaves it to be reaped; `None`: it ended by itself.
fn wait(leader: Pid, cancel: &Cancel) -> Option<Ended> {
    let (tell, ended) = mpsc::channel();
    std::thread::spawn(move || {
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        let _ = tell.send(());
    });
    let began = Instant::now();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(ATTENTION) {
        if cancel.is_stopped() {
            return Some(Ended::Stopped);
        }
        if began.elapsed() > LIMIT {
            return Some(Ended::TooLate);
        }
    }
    None
}

/// Both programs tell of a signal by the convention of shells.
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code @ 129..=192), _) => format!("was ended by signal {}", code - 128),
        (Some(code), _) => format!("exited with code {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

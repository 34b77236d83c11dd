//! Smoke: the project's own commands, run inside the finished artefact.
//!
//! That something starts is the only complete proof that it has what it needs. An image is laid out as files and becomes
//! the root of the command, read-only, with an empty `/tmp`, no network, no files of this machine and no processes but
//! its own. An archive has no root: it lies beside the system directories of this machine. Where nothing here can hold a
//! command back like that, it is not run, and the report says why.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use semel_model::platform::Platform;
use semel_model::project::{Kind, words};

use super::report::{SmokeOutcome, Smoked};
use super::{USUAL_PATH, shown};
use crate::log::BuildLog;
use crate::rootfs::{self, Node, Rootfs};
use crate::sandbox::{Jail, Shown};
use crate::watch::{self, Cancel, Clock, Ended, WatchError};

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
    /// The running program, which guards the commands.
    pub semel: &'a Path,
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
        /// Of what it printed, the first and the last lines.
        excerpt: Vec<String>,
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
    /// What it printed could not be kept.
    #[error("smoke: cannot keep what `{command}` prints")]
    Log {
        /// The command as the definition has it.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl SmokeError {
    /// Of what a failed command printed, the first and the last lines.
    pub fn excerpt(&self) -> &[String] {
        match self {
            Self::Failed { excerpt, .. } => excerpt,
            Self::Stopped | Self::LayOut { .. } | Self::Start { .. } | Self::Log { .. } => &[],
        }
    }
}

/// Runs the commands one after the other; the first that fails ends it.
pub fn run(request: &SmokeRequest<'_>, log: &BuildLog, cancel: &Cancel) -> Result<Vec<Smoked>, SmokeError> {
    let jail = match find(request) {
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

/// What can hold the commands inside; else why nothing can.
fn find(request: &SmokeRequest<'_>) -> Result<Jail, String> {
    let (made_for, here) = (&request.platform.architecture, Platform::host().architecture);
    if *made_for != here {
        return Err(format!("it is made for {made_for}, and this machine is {here}"));
    }
    Jail::find(request.host_path, shown_inside(request))
}

/// Where an archive lies for its smoke commands.
const BESIDE: &str = "/artefact";

fn shown_inside<'a>(request: &SmokeRequest<'a>) -> Shown<'a> {
    let top = request.scratch;
    match request.kind {
        Kind::Image => Shown::AsRoot { top, workdir: request.workdir.unwrap_or("/") },
        Kind::Archive | Kind::Zip | Kind::Vm => Shown::Beside { top, place: BESIDE },
    }
}

struct One<'a> {
    request: &'a SmokeRequest<'a>,
    jail: &'a Jail,
    command: &'a str,
    log: &'a BuildLog,
    clock: Clock,
}

impl One<'_> {
    fn run(&self, cancel: &Cancel) -> Result<(), SmokeError> {
        let command = || self.command.to_owned();
        let unlogged = |source| SmokeError::Log { command: command(), source };
        self.log.begin("smoke", self.command, self.clock.now()).map_err(unlogged)?;
        let ending = match watch::watch(self.inside_jail(), self.log, self.clock, LIMIT, cancel) {
            Ok(Ended::With(status)) if status.success() => return Ok(()),
            Ok(Ended::With(status)) => watch::ending(status),
            Ok(Ended::TooLate) => format!("took longer than {} s and was ended", LIMIT.as_secs()),
            Ok(Ended::Stopped) => return Err(SmokeError::Stopped),
            Err(WatchError::Start(source)) => return Err(SmokeError::Start { command: command(), source }),
            Err(WatchError::Log(source)) => return Err(unlogged(source)),
        };
        Err(SmokeError::Failed { command: command(), ending, excerpt: self.log.excerpt() })
    }

    fn inside_jail(&self) -> std::process::Command {
        let words: Vec<String> =
            words(self.command).unwrap_or_default().into_iter().map(|word| self.inside(word)).collect();
        let own = self.request.environment.iter().filter_map(|entry| entry.split_once('='));
        let variables: Vec<_> = [("PATH", USUAL_PATH), ("HOME", "/")].into_iter().chain(own).collect();
        self.jail.command(shown_inside(self.request), &words, &variables, self.request.semel)
    }

    /// An archive's own paths are below the place where it lies.
    fn inside(&self, word: String) -> String {
        let own = self.request.kind != Kind::Image
            && word.starts_with('/')
            && self.request.rootfs.resolve(word.as_bytes()).is_ok();
        if own { format!("{BESIDE}{word}") } else { word }
    }
}

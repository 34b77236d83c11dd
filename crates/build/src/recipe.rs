//! Recipe: the project's own commands, run in the clean tree.
//!
//! The environment is cleared and then set from a fixed list, so that nothing of the caller's reaches the build by
//! accident. Each command runs in a process group of its own; when it ends, is stopped or takes too long, everything in
//! the group ends with it. What the commands print goes to a log file and, line by line, to the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use semel_model::digest::Digest;
use semel_model::name::CommitId;
use semel_model::project::{BuildSpec, Command as Recipe};

use crate::log::{self, BuildLog, Listener, Secret};
use crate::provenance::digest_of_file;

/// What is run, where, and with which surroundings.
#[derive(Debug, Clone, Copy)]
pub struct RunRequest<'a> {
    /// The clean tree; the commands' working directory.
    pub dir: &'a Path,
    /// An empty directory outside the tree, the commands' `HOME`.
    pub home: &'a Path,
    /// The commands.
    pub build: &'a BuildSpec,
    /// The commit, for `SOURCE_COMMIT`.
    pub commit: &'a CommitId,
    /// Its time, for `SOURCE_DATE_EPOCH`.
    pub committed_seconds: i64,
    /// What the host provides.
    pub host: &'a HostEnvironment,
    /// The running program, for `SEMEL`.
    pub semel: &'a Path,
    /// The log file, which does not exist yet.
    pub log: &'a Path,
    /// What must not be seen in the log.
    pub masks: &'a [Secret],
}

/// What a build takes from the host: where programs and toolchains are. Anything else is cleared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostEnvironment {
    /// The variables that are handed on.
    pub variables: BTreeMap<String, String>,
}

/// Toolchains whose place follows from `HOME` unless a variable says otherwise.
const BESIDE_HOME: [(&str, &str); 2] = [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")];

impl HostEnvironment {
    /// Picks from the caller's variables, and resolves what would follow from `HOME` before `HOME` changes.
    pub fn of(variables: &BTreeMap<String, String>) -> Self {
        let mut picked = BTreeMap::new();
        for name in ["PATH", "JAVA_HOME", "GOROOT"] {
            if let Some(value) = variables.get(name) {
                picked.insert(name.to_owned(), value.clone());
            }
        }
        for (name, below) in BESIDE_HOME {
            let usual = || {
                let dir = Path::new(variables.get("HOME")?).join(below);
                dir.is_dir().then(|| dir.to_string_lossy().into_owned())
            };
            if let Some(value) = variables.get(name).cloned().or_else(usual) {
                picked.insert(name.to_owned(), value);
            }
        }
        Self { variables: picked }
    }
}

/// How much of the host a command could reach. Recorded in the provenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Everything that the caller may reach.
    None,
}

impl Sandbox {
    /// The word in the provenance.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
        }
    }
}

/// The commands of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// May use the network.
    Fetch,
    /// Builds.
    Run,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetch => "fetch",
            Self::Run => "run",
        })
    }
}

/// How the commands ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// What held them back.
    pub sandbox: Sandbox,
    /// The phases that there were, and how long each took.
    pub phases: Vec<(Phase, Duration)>,
    /// The names of the variables that they saw.
    pub variables: Vec<String>,
    /// The digest of the log.
    pub log_digest: Digest,
}

/// Why the commands did not get to their end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A program is not on the host.
    #[error("{phase}: cannot find the program `{program}`")]
    NoProgram {
        /// When.
        phase: Phase,
        /// Its name.
        program: String,
    },
    /// A command ended with an error.
    #[error("{phase}: `{command}` {ending}")]
    Failed {
        /// When.
        phase: Phase,
        /// The command as the project file has it.
        command: String,
        /// `exited with code 1`, `was ended by signal 9`.
        ending: String,
        /// The last lines that it printed.
        tail: Vec<String>,
        /// Everything that it printed.
        log: PathBuf,
    },
    /// A command took too long and was ended.
    #[error("{phase}: `{command}` took longer than {limit} and was ended")]
    TimedOut {
        /// When.
        phase: Phase,
        /// The command as the project file has it.
        command: String,
        /// How long it may take.
        limit: semel_model::duration::Span,
        /// The last lines that it printed.
        tail: Vec<String>,
        /// Everything that it printed.
        log: PathBuf,
    },
    /// The caller stopped it.
    #[error("{phase}: stopped")]
    Stopped {
        /// When.
        phase: Phase,
    },
    /// The command could not be started or watched.
    #[error("{phase}: cannot run `{command}`")]
    Start {
        /// When.
        phase: Phase,
        /// The command as the project file has it.
        command: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The log could not be written or read.
    #[error("cannot write the build log {}", .log.display())]
    Log {
        /// The file.
        log: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// The last lines that a failed command printed, at most twenty.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Failed { tail, .. } | Self::TimedOut { tail, .. } => tail,
            _ => &[],
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProgram { program, .. } => format!("install {program}, or put its directory on the PATH"),
            Self::Failed { log, .. } => format!("the whole output: {}", log.display()),
            Self::TimedOut { .. } => "raise [build] timeout, such as timeout = \"60m\"".to_owned(),
            Self::Stopped { .. } | Self::Start { .. } | Self::Log { .. } => return None,
        })
    }
}

/// A handle by which another thread stops a recipe. Stopping twice, or after the end, does nothing.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Mutex<CancelState>>);

#[derive(Debug, Default)]
struct CancelState {
    stopped: bool,
    group: Option<Pid>,
}

impl Cancel {
    /// Ends the command that runs, with everything that it started, and lets no further one begin.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        end_group(state.group);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn watch(&self, group: Pid) {
        let mut state = self.lock();
        state.group = Some(group);
        if state.stopped {
            end_group(state.group);
        }
    }

    fn lock(&self) -> MutexGuard<'_, CancelState> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

fn end_group(group: Option<Pid>) {
    if let Some(group) = group {
        // The group may be gone already, which is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Runs `fetch`, then `run`. `line` is called, from another thread, with each line that they print.
pub fn run(request: &RunRequest<'_>, line: &Listener, cancel: &Cancel) -> Result<RunReport, RunError> {
    let environment = environment(request);
    let unlogged = |source| RunError::Log { log: request.log.to_owned(), source };
    let log =
        BuildLog::create(request.log, request.masks, log::BOUNDS, Arc::clone(line)).map_err(unlogged)?;
    let began = Instant::now();
    let ran = run_phases(request, &environment, &log, began, cancel);
    // Also the log of a build that failed is complete.
    let ended = log.end(began.elapsed()).map_err(unlogged);
    let phases = ran?;
    ended?;
    let log_digest = digest_of_file(request.log).map_err(unlogged)?;
    let variables = environment.into_keys().collect();
    Ok(RunReport { sandbox: Sandbox::None, phases, variables, log_digest })
}

fn run_phases(
    request: &RunRequest<'_>,
    environment: &BTreeMap<String, String>,
    log: &BuildLog,
    began: Instant,
    cancel: &Cancel,
) -> Result<Vec<(Phase, Duration)>, RunError> {
    let mut phases = Vec::new();
    for (phase, command) in [(Phase::Fetch, &request.build.fetch), (Phase::Run, &request.build.run)] {
        if let Some(command) = command {
            let started = Instant::now();
            let one = OneCommand { request, environment, phase, recipe: command, output: log, began };
            one.run(cancel)?;
            phases.push((phase, started.elapsed()));
        }
    }
    Ok(phases)
}

/// The fixed list, with the project's own variables on top.
fn environment(request: &RunRequest<'_>) -> BTreeMap<String, String> {
    let mut environment = request.host.variables.clone();
    let fixed = [
        ("HOME", request.home.to_string_lossy().into_owned()),
        ("TZ", "UTC".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("SOURCE_DATE_EPOCH", request.committed_seconds.max(0).to_string()),
        ("SOURCE_COMMIT", request.commit.to_string()),
        ("SEMEL", request.semel.to_string_lossy().into_owned()),
    ];
    environment.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    environment.extend(request.build.env.clone());
    environment
}

/// How long output is still read after a command ended, when something that left its group holds the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

struct OneCommand<'a> {
    request: &'a RunRequest<'a>,
    environment: &'a BTreeMap<String, String>,
    phase: Phase,
    recipe: &'a Recipe,
    output: &'a BuildLog,
    /// When the first command began.
    began: Instant,
}

impl OneCommand<'_> {
    fn run(&self, cancel: &Cancel) -> Result<(), RunError> {
        self.find_program()?;
        if cancel.is_stopped() {
            return Err(RunError::Stopped { phase: self.phase });
        }
        let began =
            self.output.begin(&self.phase.to_string(), &self.recipe.to_string(), self.began.elapsed());
        began.map_err(|error| self.unlogged(error))?;
        let (reader, child) = self.spawn().map_err(|source| self.unstarted(source))?;
        let drained = read_all(reader, self.output.clone(), self.began);
        let (status, timed_out) = self.wait(child, cancel).map_err(|source| self.unstarted(source))?;
        if let Ok(Err(error)) = drained.recv_timeout(DRAIN) {
            return Err(self.unlogged(error));
        }
        self.judge(status, timed_out, cancel, self.output.last_lines())
    }

    /// The shell that sets the umask would say only that it did not find something.
    fn find_program(&self) -> Result<(), RunError> {
        let program = self.recipe.argv()[0];
        let path = self.environment.get("PATH").map(String::as_str).unwrap_or_default();
        let there = if program.contains('/') {
            self.request.dir.join(program).exists()
        } else {
            path.split(':').any(|dir| Path::new(dir).join(program).is_file())
        };
        let missing = || RunError::NoProgram { phase: self.phase, program: program.to_owned() };
        there.then_some(()).ok_or_else(missing)
    }

    /// The command behind a shell that only sets the umask: a program cannot set it for a child without changing its
    /// own.
    fn spawn(&self) -> io::Result<(PipeReader, Child)> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "umask 022; exec \"$@\"", "semel"])
            .args(self.recipe.argv())
            .current_dir(self.request.dir)
            .env_clear()
            .envs(self.environment)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let child = command.spawn()?;
        Ok((reader, child))
    }

    /// Waits for the command, and leaves nothing of its group behind.
    fn wait(&self, mut child: Child, cancel: &Cancel) -> io::Result<(ExitStatus, bool)> {
        let group = Pid::from_child(&child);
        cancel.watch(group);
        let ended = wait_without_reaping(group);
        let timed_out = match ended.recv_timeout(self.request.build.timeout.to_std()) {
            Err(RecvTimeoutError::Timeout) => {
                end_group(Some(group));
                let _ = ended.recv();
                true
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => false,
        };
        // While the command is not reaped, the group's number cannot belong to anybody else.
        let mut state = cancel.lock();
        end_group(state.group.take());
        drop(state);
        Ok((child.wait()?, timed_out))
    }

    fn judge(
        &self,
        status: ExitStatus,
        timed_out: bool,
        cancel: &Cancel,
        tail: Vec<String>,
    ) -> Result<(), RunError> {
        let command = self.recipe.to_string();
        let log = self.request.log.to_owned();
        if cancel.is_stopped() {
            Err(RunError::Stopped { phase: self.phase })
        } else if timed_out {
            let limit = self.request.build.timeout;
            Err(RunError::TimedOut { phase: self.phase, command, limit, tail, log })
        } else if status.success() {
            Ok(())
        } else {
            Err(RunError::Failed { phase: self.phase, command, ending: ending(status), tail, log })
        }
    }

    fn unstarted(&self, source: io::Error) -> RunError {
        RunError::Start { phase: self.phase, command: self.recipe.to_string(), source }
    }

    fn unlogged(&self, source: io::Error) -> RunError {
        RunError::Log { log: self.request.log.to_owned(), source }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Tells when the leader of a group has ended, and leaves it to be reaped.
fn wait_without_reaping(leader: Pid) -> mpsc::Receiver<()> {
    let (tell, ended) = mpsc::channel();
    std::thread::spawn(move || {
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        // The receiver waits for this, or has ended together with its process.
        let _ = tell.send(());
    });
    ended
}

fn read_all(mut reader: PipeReader, output: BuildLog, began: Instant) -> mpsc::Receiver<io::Result<()>> {
    let (tell, done) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        let mut logged = Ok(());
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                // A full disk must not stop the command in the middle of a write.
                Ok(some) => logged = logged.and_then(|()| output.take(&buffer[..some], began.elapsed())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    logged = logged.and(Err(error));
                    break;
                }
            }
        }
        let ended = output.end_command(began.elapsed());
        let _ = tell.send(logged.and(ended));
    });
    done
}

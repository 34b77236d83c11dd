//! Recipe: the project's own commands, run in the clean tree.
//!
//! The environment is cleared and then set from a fixed list, so that nothing of the caller's reaches the build by
//! accident. Each command runs in the build's [`Sandbox`], below a guard; when it ends, is stopped or takes too long,
//! everything that it started ends with it. `fetch` may use the network and sees the secrets that the project names,
//! `run` has neither. What the commands print goes to a log file and, line by line, to the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use semel_model::digest::Digest;
use semel_model::name::CommitId;
use semel_model::platform::Platform;
use semel_model::project::{BuildSpec, Command as Recipe};

use crate::log::{self, BuildLog, Listener, Secret};
use crate::provenance::digest_of_file;
use crate::sandbox::{HostEnvironment, Permit, Room, Sandbox};

/// What is run, where, and with which surroundings.
#[derive(Debug, Clone, Copy)]
pub struct RunRequest<'a> {
    /// The clean tree, and what else the commands may write to.
    pub room: &'a Room,
    /// What holds the commands back.
    pub sandbox: &'a Sandbox,
    /// What `fetch` sees beside the fixed variables, and nobody sees in the log.
    pub secrets: &'a [Secret],
    /// The commands.
    pub build: &'a BuildSpec,
    /// The commit, for `SOURCE_COMMIT`.
    pub commit: &'a CommitId,
    /// Its time, for `SOURCE_DATE_EPOCH`.
    pub committed_seconds: i64,
    /// What the artefact runs on, for `SEMEL_PLATFORM`, `TARGETOS` and `TARGETARCH`.
    pub platform: &'a Platform,
    /// What the host provides.
    pub host: &'a HostEnvironment,
    /// The running program: its hidden verb guards and confines the commands, and they find it in `SEMEL`.
    pub semel: &'a Path,
    /// The log file, which does not exist yet.
    pub log: &'a Path,
    /// What is otherwise than in a build.
    pub varied: &'a Varied,
}

/// What a rebuild makes otherwise, to see whether the result depends on it. Nothing, in a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Varied {
    /// Variables above the fixed ones and below the project's own.
    pub variables: BTreeMap<String, String>,
    /// A program with its arguments that becomes the command behind them, inside the sandbox.
    pub wrapper: Vec<String>,
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
    /// Whether `run` could reach the network.
    pub network: bool,
    /// The phases that there were, and how long each took.
    pub phases: Vec<(Phase, Duration)>,
    /// The names of the variables that they saw.
    pub variables: Vec<String>,
    /// The names of the secrets that `fetch` saw.
    pub secrets: Vec<String>,
    /// The tools of builds that are on the path of the commands, with what each says of its version.
    pub toolchain: BTreeMap<String, String>,
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
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn watch(&self, guard: Option<ChildStdin>) {
        let mut state = self.lock();
        state.running = true;
        state.guard = guard.filter(|_| !state.stopped);
    }

    /// The command took too long.
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

/// Runs `fetch`, then `run`. `line` is called, from another thread, with each line that they print.
pub fn run(request: &RunRequest<'_>, line: &Listener, cancel: &Cancel) -> Result<RunReport, RunError> {
    let environment = environment(request);
    let unlogged = |source| RunError::Log { log: request.log.to_owned(), source };
    let log =
        BuildLog::create(request.log, request.secrets, log::BOUNDS, Arc::clone(line)).map_err(unlogged)?;
    let began = Instant::now();
    let ran = run_phases(request, &environment, &log, began, cancel);
    // Also the log of a build that failed is complete.
    let ended = log.end(began.elapsed()).map_err(unlogged);
    let phases = ran?;
    ended?;
    let toolchain = if phases.is_empty() { BTreeMap::new() } else { probe(request, &environment) };
    let log_digest = digest_of_file(request.log).map_err(unlogged)?;
    Ok(RunReport {
        sandbox: request.sandbox.clone(),
        network: request.sandbox.reaches_network(permit(Phase::Run, request.build)),
        phases,
        toolchain,
        variables: environment.into_keys().collect(),
        secrets: request.secrets.iter().map(|secret| secret.name().to_owned()).collect(),
        log_digest,
    })
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

/// Asks the tools that are there for their versions, all at once. None of them may fetch another one of its kind.
const PROBE: &str = r#"export RUSTUP_AUTO_INSTALL=0 GOTOOLCHAIN=local
for ask in "rustc --version" "cargo --version" "node --version" "npm --version" "python3 --version" \
  "go version" "java --version" "gcc --version"; do
  (
    set -- $ask
    command -v "$1" >/dev/null || exit 0
    said=$("$@" 2>/dev/null </dev/null | head -n 1)
    printf '%s\t%s\n' "$1" "$said"
  ) &
done
wait"#;
/// Whoever has not answered until then is left out.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// More is not read of the answers, in bytes.
const PROBE_BYTES: u64 = 16 * 1024;
/// An answer is not longer, in characters.
const PROBE_CHARS: usize = 120;

/// What is on the path of the commands. They are asked where the commands ran, with the rights that those had, as a
/// source tree can say which of several versions is used. A probe that fails says nothing: no build depends on it.
fn probe(request: &RunRequest<'_>, environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let words = ["/bin/sh", "-c", PROBE];
    let permit = Permit { network: false };
    let mut command = request.sandbox.command(&words, permit, request.room, request.host, request.semel);
    command.env_clear().envs(environment);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return BTreeMap::new() };
    let (tell, told) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What came before a failure counts.
            drop(output.take(PROBE_BYTES).read_to_end(&mut bytes));
            drop(tell.send(bytes));
        });
    }
    let answers = told.recv_timeout(PROBE_TIME).unwrap_or_default();
    // At its end, the guard ends whatever has not answered.
    drop(child.stdin.take());
    drop(child.wait());
    versions(&answers)
}

fn versions(answers: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(answers);
    let answer = |line: &str| {
        let (program, said) = line.split_once('\t')?;
        let said: String = said.chars().filter(|c| !c.is_control()).take(PROBE_CHARS).collect();
        (!said.is_empty()).then(|| (program.to_owned(), said))
    };
    text.lines().filter_map(answer).collect()
}

/// What a phase may do.
fn permit(phase: Phase, build: &BuildSpec) -> Permit {
    Permit { network: phase == Phase::Fetch || build.network }
}

/// The fixed list, with the project's own variables on top.
fn environment(request: &RunRequest<'_>) -> BTreeMap<String, String> {
    let inside = request.sandbox.inside(request.room, request.semel);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut environment = request.host.variables.clone();
    let fixed = [
        ("HOME", text(inside.home)),
        ("TMPDIR", text(inside.tmp)),
        ("TZ", "UTC".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("SOURCE_DATE_EPOCH", request.committed_seconds.max(0).to_string()),
        ("SOURCE_COMMIT", request.commit.to_string()),
        ("SEMEL", text(inside.semel)),
        ("SEMEL_PLATFORM", request.platform.to_string()),
        ("TARGETOS", request.platform.os.clone()),
        ("TARGETARCH", request.platform.architecture.clone()),
    ];
    environment.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
    environment.extend(request.varied.variables.clone());
    environment.extend(request.build.env.clone());
    environment
}

/// How long output is still read after a command ended, when something that may not be ended holds the pipe open.
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

    /// The shell inside would say only that it did not find something.
    fn find_program(&self) -> Result<(), RunError> {
        let program = self.recipe.argv()[0];
        let path = self.environment.get("PATH").map(String::as_str).unwrap_or_default();
        let there = if program.contains('/') {
            self.request.room.tree.join(program).exists()
        } else {
            path.split(':').any(|dir| Path::new(dir).join(program).is_file())
        };
        let missing = || RunError::NoProgram { phase: self.phase, program: program.to_owned() };
        there.then_some(()).ok_or_else(missing)
    }

    /// The command in its sandbox. Secrets reach it as variables: arguments could be read by everybody.
    fn spawn(&self) -> io::Result<(PipeReader, Child)> {
        let request = self.request;
        let (reader, writer) = io::pipe()?;
        let permit = permit(self.phase, request.build);
        let wrapper = request.varied.wrapper.iter().map(String::as_str);
        let argv: Vec<&str> = wrapper.chain(self.recipe.argv()).collect();
        let mut command = request.sandbox.command(&argv, permit, request.room, request.host, request.semel);
        command.env_clear().envs(self.environment);
        if self.phase == Phase::Fetch {
            command.envs(request.secrets.iter().map(|secret| (secret.name(), secret.value())));
        }
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn()?;
        Ok((reader, child))
    }

    /// Waits for the guard, which ends after the command and everything that the command started.
    fn wait(&self, mut child: Child, cancel: &Cancel) -> io::Result<(ExitStatus, bool)> {
        cancel.watch(child.stdin.take());
        let (tell, ended) = mpsc::channel();
        std::thread::spawn(move || {
            // The receiver waits for this, or has ended together with its process.
            let _ = tell.send(child.wait());
        });
        let (status, timed_out) = match ended.recv_timeout(self.request.build.timeout.to_std()) {
            Ok(status) => (Ok(status), false),
            Err(_) => {
                cancel.give_up();
                (ended.recv(), true)
            }
        };
        cancel.end();
        let status = status.map_err(io::Error::other)?;
        Ok((status?, timed_out))
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
        // The convention of shells, which the guard keeps to.
        (Some(code @ 129..=192), _) => format!("was ended by signal {}", code - 128),
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
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

//! Recipe: the project's own commands, run in the clean tree.
//!
//! The environment is cleared and then set from a fixed list, so that nothing of the caller's reaches the build by
//! accident. Each command runs in the build's [`Sandbox`], below a guard; when it ends, is stopped or takes too long,
//! everything that it started ends with it. `fetch` may use the network, with the caller's way out, and sees the secrets
//! that the project names; `run` has neither. What the commands print goes to a log file and, line by line, to the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use semel_model::digest::Digest;
use semel_model::name::CommitId;
use semel_model::platform::Platform;
use semel_model::project::{BuildSpec, Command as Recipe};

use crate::log::{self, BuildLog, Listener, Secret};
use crate::provenance::digest_of_file;
use crate::sandbox::{HostEnvironment, Permit, Room, Sandbox};
pub use crate::watch::Cancel;
use crate::watch::{self, Clock, Ended, WatchError};

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

/// What a sandbox keeps from a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// `/tmp`.
    Tmp,
    /// The network.
    Network,
}

/// What programs say when there is no network: the words of `getaddrinfo(3)`, curl, Node.js, Go and Rust.
const NO_NETWORK: [&str; 9] = [
    "Could not resolve host",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "network is unreachable",
    "EAI_AGAIN",
    "ENOTFOUND",
    "failed to lookup address",
    "NameResolutionError",
];

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
        /// Of what it printed, the first and the last lines.
        excerpt: Vec<String>,
        /// What it spoke of, and its sandbox keeps from it.
        lacks: Option<Lack>,
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
        /// Of what it printed, the first and the last lines.
        excerpt: Vec<String>,
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
    pub fn excerpt(&self) -> &[String] {
        match self {
            Self::Failed { excerpt, .. } | Self::TimedOut { excerpt, .. } => excerpt,
            _ => &[],
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProgram { program, .. } => format!("install {program}, or put its directory on the PATH"),
            Self::Failed { lacks: Some(Lack::Tmp), .. } => {
                "behind Landlock there is no /tmp: write to $TMPDIR, or install bubblewrap (semel doctor)"
                    .to_owned()
            }
            Self::Failed { lacks: Some(Lack::Network), .. } => {
                "`run` has no network: get what it needs in [build] fetch; or say network = true, which is recorded"
                    .to_owned()
            }
            Self::TimedOut { .. } => "raise [build] timeout, such as timeout = \"60m\"".to_owned(),
            Self::Failed { lacks: None, .. } | Self::Stopped { .. } | Self::Start { .. } | Self::Log { .. } => {
                return None;
            }
        })
    }
}

/// Runs `fetch`, then `run`. `line` is called, from another thread, with each line that they print.
pub fn run(request: &RunRequest<'_>, line: &Listener, cancel: &Cancel) -> Result<RunReport, RunError> {
    let environment = environment(request);
    let unlogged = |source| RunError::Log { log: request.log.to_owned(), source };
    let masks = [request.secrets, &request.host.way_out.secrets()].concat();
    let log = BuildLog::create(request.log, &masks, log::BOUNDS, Arc::clone(line)).map_err(unlogged)?;
    let clock = Clock { before: Duration::ZERO, began: Instant::now() };
    let ran = run_phases(request, &environment, &log, clock, cancel);
    // Also the log of a build that failed is complete.
    let ended = log.end(clock.now()).map_err(unlogged);
    let phases = ran?;
    ended?;
    let toolchain = if phases.is_empty() { BTreeMap::new() } else { probe(request, &environment) };
    let log_digest = digest_of_file(request.log).map_err(unlogged)?;
    Ok(RunReport {
        sandbox: request.sandbox.clone(),
        network: request.sandbox.reaches_network(permit(Phase::Run, request.build)),
        variables: seen(request, environment, &phases),
        phases,
        toolchain,
        secrets: request.secrets.iter().map(|secret| secret.name().to_owned()).collect(),
        log_digest,
    })
}

fn run_phases(
    request: &RunRequest<'_>,
    environment: &BTreeMap<String, String>,
    log: &BuildLog,
    clock: Clock,
    cancel: &Cancel,
) -> Result<Vec<(Phase, Duration)>, RunError> {
    let mut phases = Vec::new();
    for (phase, command) in [(Phase::Fetch, &request.build.fetch), (Phase::Run, &request.build.run)] {
        if let Some(command) = command {
            let started = Instant::now();
            let one = OneCommand { request, environment, phase, recipe: command, log, clock };
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
    if !request.sandbox.has_tmp() {
        // Java is the one toolchain that does not go by `TMPDIR`.
        let options = format!("-Djava.io.tmpdir=\"{}\"", inside.tmp.display());
        environment.insert("JAVA_TOOL_OPTIONS".to_owned(), options);
    }
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

/// What a phase sees beside the environment of all.
fn way_out(request: &RunRequest<'_>, phase: Phase) -> BTreeMap<String, String> {
    if !permit(phase, request.build).network {
        return BTreeMap::new();
    }
    let inside = request.sandbox.inside(request.room, request.semel);
    request.host.way_out.beside(&request.build.env, inside.authorities.as_deref())
}

/// The names of the variables that the phases saw.
fn seen(
    request: &RunRequest<'_>,
    environment: BTreeMap<String, String>,
    phases: &[(Phase, Duration)],
) -> Vec<String> {
    let mut names: BTreeSet<String> = environment.into_keys().collect();
    names.extend(phases.iter().flat_map(|(phase, _)| way_out(request, *phase).into_keys()));
    names.into_iter().collect()
}

struct OneCommand<'a> {
    request: &'a RunRequest<'a>,
    environment: &'a BTreeMap<String, String>,
    phase: Phase,
    recipe: &'a Recipe,
    log: &'a BuildLog,
    clock: Clock,
}

impl OneCommand<'_> {
    fn run(&self, cancel: &Cancel) -> Result<(), RunError> {
        self.find_program()?;
        let (phase, words) = (self.phase.to_string(), self.recipe.to_string());
        self.log.begin(&phase, &words, self.clock.now()).map_err(|error| self.unlogged(error))?;
        let limit = self.request.build.timeout.to_std();
        match watch::watch(self.command(), self.log, self.clock, limit, cancel) {
            Ok(ended) => self.judge(&ended),
            Err(WatchError::Start(source)) => Err(self.unstarted(source)),
            Err(WatchError::Log(source)) => Err(self.unlogged(source)),
        }
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
    fn command(&self) -> Command {
        let request = self.request;
        let permit = permit(self.phase, request.build);
        let wrapper = request.varied.wrapper.iter().map(String::as_str);
        let argv: Vec<&str> = wrapper.chain(self.recipe.argv()).collect();
        let mut command = request.sandbox.command(&argv, permit, request.room, request.host, request.semel);
        command.env_clear().envs(self.environment).envs(way_out(request, self.phase));
        if self.phase == Phase::Fetch {
            command.envs(request.secrets.iter().map(|secret| (secret.name(), secret.value())));
        }
        command
    }

    fn judge(&self, ended: &Ended) -> Result<(), RunError> {
        let (phase, command) = (self.phase, self.recipe.to_string());
        let excerpt = self.log.excerpt();
        match ended {
            Ended::With(status) if status.success() => Ok(()),
            Ended::With(status) => {
                let lacks = self.lacks(&excerpt);
                Err(RunError::Failed { phase, command, ending: watch::ending(*status), excerpt, lacks })
            }
            Ended::TooLate => {
                Err(RunError::TimedOut { phase, command, limit: self.request.build.timeout, excerpt })
            }
            Ended::Stopped => Err(RunError::Stopped { phase }),
        }
    }

    /// By what it printed, what it failed for that its sandbox keeps from it.
    fn lacks(&self, excerpt: &[String]) -> Option<Lack> {
        let (sandbox, permit) = (&self.request.sandbox, permit(self.phase, self.request.build));
        let said = |words: &str| excerpt.iter().any(|line| line.contains(words));
        if !sandbox.reaches_network(permit) && NO_NETWORK.into_iter().any(said) {
            Some(Lack::Network)
        } else {
            (!sandbox.has_tmp() && said("/tmp")).then_some(Lack::Tmp)
        }
    }

    fn unstarted(&self, source: io::Error) -> RunError {
        RunError::Start { phase: self.phase, command: self.recipe.to_string(), source }
    }

    fn unlogged(&self, source: io::Error) -> RunError {
        RunError::Log { log: self.request.log.to_owned(), source }
    }
}

//! The supervisor of one binding: what `semel supervise --root ROOT` runs.
//!
//! Starts the entrypoint of `current` with exactly the release's variables, keeps what it prints, starts it again when it
//! ends (after 1 s, then twice as long each time, at most 60 s), looks after its health, writes the journal, and does
//! what it is told over its socket. There is one per root: whoever holds the lock. It never switches anything on by
//! itself and never judges a deployment; that is [`mod@super::converge`].
//!
//! A supervisor that is killed leaves its child behind; the next one finds it, by its record and by its variables, and
//! ends it before it starts anything.

use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;
use semel_model::canonical;
use semel_model::deployment::{HealthState, RunState};
use semel_model::digest::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixListener;
use tokio::process::Child;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use super::control::{self, ControlError, Request, Status};
use super::durable::{self, FileError};
use super::health::Check;
use super::journal::{self, JournalLine};
use super::launch::{self, Launch};
use super::logs::RotatedLog;
use super::process::{self, ProcessId};
use super::{Clock, Generation, Layout, RootError};

/// How a supervisor behaves in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a process must have been up before its first health check.
    pub settle: Duration,
    /// How long a process without a health check must stay up to be well.
    pub stays_up: Duration,
    /// The pause after the first failed check; it doubles up to `check_pause_max`.
    pub check_pause: Duration,
    /// The longest pause between checks of a process that is not well.
    pub check_pause_max: Duration,
    /// The pause between checks of a process that is well.
    pub check_pause_healthy: Duration,
    /// How long one check may take.
    pub check_within: Duration,
    /// The pause before a process that ended is started again; it doubles up to `backoff_max`.
    pub backoff: Duration,
    /// The longest such pause. A process that was up for longer starts with the first pause again.
    pub backoff_max: Duration,
    /// How long a process has between being asked to stop and being killed.
    pub grace: Duration,
    /// How often the journal is written when nothing changes.
    pub journal_every: Duration,
}

impl Timing {
    /// What `semel supervise` uses.
    pub const STANDARD: Self = Self {
        settle: Duration::from_millis(300),
        stays_up: Duration::from_secs(1),
        check_pause: Duration::from_millis(100),
        check_pause_max: Duration::from_secs(2),
        check_pause_healthy: Duration::from_secs(10),
        check_within: Duration::from_secs(2),
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        journal_every: Duration::from_secs(60),
    };
}

/// How long a supervisor that holds the lock may neither answer nor be gone.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// How to supervise.
#[derive(Debug, Clone, Copy)]
pub struct Supervise {
    /// How it behaves in time.
    pub timing: Timing,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Why a supervisor ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// There is one already.
    #[error("{root} is already supervised by process {}", pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string()))]
    Already {
        /// The root.
        root: PathBuf,
        /// The other one.
        pid: Option<i32>,
    },
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
}

/// `run/child.json`: the process that the supervisor started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChildFile {
    pub(super) process: ProcessId,
    pub(super) since: Timestamp,
    pub(super) generation: Generation,
    pub(super) key: Digest,
    pub(super) artefact: Digest,
    pub(super) config: Digest,
    pub(super) program: PathBuf,
}

/// `run/health.json`: what the newest check of a process said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HealthFile {
    pub(super) time: Timestamp,
    pub(super) process: ProcessId,
    pub(super) health: HealthState,
    pub(super) reason: Option<String>,
}

pub(super) fn read_child(layout: &Layout) -> Result<Option<ChildFile>, FileError> {
    durable::read_json(&child_file(layout))
}

pub(super) fn read_health(layout: &Layout) -> Result<Option<HealthFile>, FileError> {
    durable::read_json(&health_file(layout))
}

fn child_file(layout: &Layout) -> PathBuf {
    layout.run().join("child.json")
}

fn health_file(layout: &Layout) -> PathBuf {
    layout.run().join("health.json")
}

/// Supervises a root until it is told to stop: by a request or by SIGTERM or SIGINT. SIGHUP starts the release again.
///
/// # Errors
/// [`SuperviseError::Already`] at once when the root has a supervisor.
pub async fn supervise(root: &Path, options: Supervise) -> Result<(), SuperviseError> {
    let layout = Layout::open(root)?;
    let _lock = become_the_one(&layout).await?;
    // The leader of a process group, such as a command typed at a terminal, stays where it is.
    let _ = rustix::process::setsid();
    let signals = Received::open().map_err(SuperviseError::Signals)?;
    let listener = control::listen(&layout)?;
    let (events, inbox) = mpsc::channel(16);
    let (busy, answered) = mpsc::channel(1);
    let accepting = tokio::spawn(accept(listener, events.clone(), busy));
    let left = read_child(&layout).unwrap_or_default().map(|child| child.process);
    process::end_strays(&layout, left.as_ref(), options.timing.grace).await;
    let log = Arc::new(Mutex::new(RotatedLog::open(&layout.app_log())?));
    let mut supervisor = Supervisor::new(layout, options, log, events);
    supervisor.run(inbox, signals).await;
    accepting.abort();
    finish_answers(answered).await;
    durable::remove_file(&control::socket(&supervisor.layout))?;
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct SupervisorFile {
    process: ProcessId,
}

/// Takes the supervisor's lock. One that holds it and does not answer is just coming up or just ending: either is seen
/// soon.
async fn become_the_one(layout: &Layout) -> Result<durable::Lock, SuperviseError> {
    let until = Instant::now() + SETTLED_WITHIN;
    loop {
        if let Some(lock) = durable::try_lock(&layout.run().join("supervisor.lock"))? {
            record_supervisor(layout)?;
            return Ok(lock);
        }
        let other = control::ask(layout, Request::Status).await?;
        if other.is_some() || Instant::now() > until {
            let recorded: Option<SupervisorFile> = durable::read_json(&supervisor_file(layout))?;
            let pid = other.map(|status| status.supervisor).or(recorded.map(|file| file.process.pid));
            return Err(SuperviseError::Already { root: layout.root().to_owned(), pid });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn record_supervisor(layout: &Layout) -> Result<(), FileError> {
    match ProcessId::of(own_pid()) {
        Some(process) => {
            durable::write_volatile(&supervisor_file(layout), &canonical::bytes(&SupervisorFile { process }))
        }
        None => Ok(()),
    }
}

fn supervisor_file(layout: &Layout) -> PathBuf {
    layout.run().join("supervisor.json")
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// The signals that a supervisor understands.
struct Received {
    terminate: Signals,
    interrupt: Signals,
    hang_up: Signals,
}

impl Received {
    fn open() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next thing that a signal asks for.
    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hang_up.recv() => Request::Switch,
        }
    }
}

/// What happens to a supervisor.
enum Event {
    /// Somebody asks.
    Asked(Request, oneshot::Sender<Status>),
    /// A health check of this process is done.
    Checked(ProcessId, Result<(), String>),
}

async fn accept(listener: UnixListener, events: mpsc::Sender<Event>, busy: mpsc::Sender<()>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(error = %error, "Cannot take a request");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (events, busy) = (events.clone(), busy.clone());
        tokio::spawn(async move {
            let answered = control::serve(stream, async |request| {
                let (sender, answer) = oneshot::channel();
                events.send(Event::Asked(request, sender)).await.ok()?;
                answer.await.ok()
            });
            if let Err(error) = answered.await {
                warn!(error = %error, "A request broke off");
            }
            drop(busy);
        });
    }
}

/// Waits until the answers given have been written.
async fn finish_answers(mut answered: mpsc::Receiver<()>) {
    let _ = tokio::time::timeout(Duration::from_secs(1), answered.recv()).await;
}

/// A process that runs.
struct App {
    child: Child,
    process: ProcessId,
    started: Instant,
    check: Check,
}

struct Supervisor {
    layout: Layout,
    options: Supervise,
    log: Arc<Mutex<RotatedLog>>,
    events: mpsc::Sender<Event>,
    /// What is switched on; none: nothing is, or it cannot be read.
    release: Option<Launch>,
    app: Option<App>,
    health: HealthState,
    reason: Option<String>,
    exits: u32,
    last_exit: Option<String>,
    backoff: Duration,
    start_at: Option<Instant>,
    check_at: Option<Instant>,
    check_pause: Duration,
    journaled: Option<(RunState, HealthState)>,
    journal_at: Instant,
}

#[derive(PartialEq, Eq)]
enum Flow {
    GoOn,
    End,
}

impl Supervisor {
    fn new(
        layout: Layout,
        options: Supervise,
        log: Arc<Mutex<RotatedLog>>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            layout,
            options,
            log,
            events,
            release: None,
            app: None,
            health: HealthState::Unknown,
            reason: None,
            exits: 0,
            last_exit: None,
            backoff: options.timing.backoff,
            start_at: None,
            check_at: None,
            check_pause: options.timing.check_pause,
            journaled: None,
            journal_at: Instant::now(),
        }
    }

    async fn run(&mut self, mut inbox: mpsc::Receiver<Event>, mut signals: Received) {
        self.switch().await;
        loop {
            self.write_journal();
            let wake = self.next_wake();
            let flow = tokio::select! {
                ended = ended(&mut self.app) => self.take_end(&ended),
                Some(event) = inbox.recv() => self.take(event).await,
                request = signals.next() => self.carry_out(request).await,
                () = tokio::time::sleep_until(wake) => self.wake_up().await,
            };
            if flow == Flow::End {
                return;
            }
        }
    }

    fn next_wake(&self) -> Instant {
        [self.start_at, self.check_at].into_iter().flatten().fold(self.journal_at, Instant::min)
    }

    async fn wake_up(&mut self) -> Flow {
        let now = Instant::now();
        if self.start_at.is_some_and(|at| at <= now) {
            self.end_strays().await;
            self.start();
        }
        if self.check_at.is_some_and(|at| at <= now) {
            self.check();
        }
        Flow::GoOn
    }

    async fn take(&mut self, event: Event) -> Flow {
        match event {
            Event::Asked(request, answer) => {
                let flow = self.carry_out(request).await;
                let _ = answer.send(self.status());
                flow
            }
            Event::Checked(process, result) => self.take_check(&process, result),
        }
    }

    async fn carry_out(&mut self, request: Request) -> Flow {
        match request {
            Request::Status => Flow::GoOn,
            Request::Switch => {
                self.switch().await;
                Flow::GoOn
            }
            Request::Stop => {
                self.stop().await;
                self.write_journal();
                Flow::End
            }
        }
    }

    fn status(&self) -> Status {
        let deployed = self.release.as_ref().map(|launch| &launch.deployed);
        Status {
            supervisor: own_pid(),
            generation: deployed.map(|deployed| deployed.generation),
            key: deployed.map(|deployed| deployed.key.clone()),
            pid: self.app.as_ref().map(|app| app.process.pid),
            health: self.health,
            reason: self.reason.clone(),
            exits: self.exits,
            last_exit: self.last_exit.clone(),
        }
    }

    /// Stops what runs and starts what is switched on now.
    async fn switch(&mut self) {
        self.stop().await;
        self.exits = 0;
        self.last_exit = None;
        self.backoff = self.options.timing.backoff;
        self.journaled = None;
        self.release = None;
        let Some(generation) = self.layout.current_generation() else { return };
        match launch::load(&self.layout, generation) {
            Ok(launch) => self.release = Some(launch),
            Err(error) => {
                warn!(error = %error, "Cannot load generation {generation}");
                self.last_exit = Some(format!("it could not be started: {error}"));
                return;
            }
        }
        self.start();
    }

    /// Asks the process to stop, waits, and kills what is left of its group.
    async fn stop(&mut self) {
        self.start_at = None;
        self.check_at = None;
        if let Some(mut app) = self.app.take() {
            info!(pid = app.process.pid, "Stopping");
            process::signal_group(app.process.pid, Signal::TERM);
            let _ = tokio::time::timeout(self.options.timing.grace, app.child.wait()).await;
            process::signal_group(app.process.pid, Signal::KILL);
            let _ = app.child.wait().await;
        }
        self.end_strays().await;
        self.forget_process();
    }

    /// Ends what left the process group of a release that has ended: two releases never run side by side.
    async fn end_strays(&self) {
        process::end_strays(&self.layout, None, self.options.timing.grace).await;
    }

    fn forget_process(&mut self) {
        self.health = HealthState::Unknown;
        self.reason = None;
        for file in [child_file(&self.layout), health_file(&self.layout)] {
            if let Err(error) = durable::remove_file(&file) {
                warn!(error = %error, "Cannot forget a process");
            }
        }
    }

    fn start(&mut self) {
        self.start_at = None;
        let Some(release) = self.release.clone() else { return };
        let deployed = &release.deployed;
        match self.spawn(&release) {
            Ok(app) => {
                info!(pid = app.process.pid, deployment.key = %deployed.key, "Started generation {}", deployed.generation);
                let first = if matches!(app.check, Check::StaysUp) {
                    self.options.timing.stays_up
                } else {
                    self.options.timing.settle
                };
                self.check_at = Some(app.started + first);
                self.check_pause = self.options.timing.check_pause;
                self.app = Some(app);
            }
            Err(what) => {
                warn!("Cannot start generation {}: {what}", deployed.generation);
                self.start_later(format!("it could not be started: {what}"));
            }
        }
    }

    fn spawn(&self, release: &Launch) -> Result<App, String> {
        let check = Check::prepare(release.deployed.health.as_ref(), &release.variables());
        let check = check.map_err(|error| error.to_string())?;
        let mut command = release.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", release.program().display()))?;
        let started = Instant::now();
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        // A process that ended already still has its number until it is waited for; its start does not matter then.
        let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, start: String::new() });
        if let Some(stream) = child.stdout.take() {
            tokio::spawn(keep_output(stream, self.log.clone()));
        }
        if let Some(stream) = child.stderr.take() {
            tokio::spawn(keep_output(stream, self.log.clone()));
        }
        let app = App { child, process, started, check };
        self.record_process(release, &app);
        Ok(app)
    }

    fn record_process(&self, release: &Launch, app: &App) {
        let deployed = release.deployed.clone();
        let file = ChildFile {
            process: app.process.clone(),
            since: (self.options.clock)(),
            generation: deployed.generation,
            key: deployed.key,
            artefact: deployed.artefact,
            config: deployed.config,
            program: release.program().to_owned(),
        };
        if let Err(error) = durable::write_volatile(&child_file(&self.layout), &canonical::bytes(&file)) {
            warn!(error = %error, "Cannot record the process {}", app.process.pid);
        }
    }

    fn take_end(&mut self, ended: &io::Result<ExitStatus>) -> Flow {
        let Some(app) = self.app.take() else { return Flow::GoOn };
        process::signal_group(app.process.pid, Signal::KILL);
        if app.started.elapsed() >= self.options.timing.backoff_max {
            self.backoff = self.options.timing.backoff;
        }
        let what = match ended {
            Ok(status) => describe(*status),
            Err(error) => format!("ended ({error})"),
        };
        info!(pid = app.process.pid, "The process {what}");
        self.forget_process();
        self.start_later(format!("it {what}"));
        Flow::GoOn
    }

    fn start_later(&mut self, what: String) {
        self.exits += 1;
        self.last_exit = Some(what);
        self.check_at = None;
        self.start_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(self.options.timing.backoff_max);
    }

    /// Starts a check; its result comes back as an event.
    fn check(&mut self) {
        self.check_at = None;
        let (Some(app), Some(release)) = (&self.app, &self.release) else { return };
        let (check, release, process) = (app.check.clone(), release.clone(), app.process.clone());
        let (events, within) = (self.events.clone(), self.options.timing.check_within);
        tokio::spawn(async move {
            let result = check.run(&release, within).await;
            let _ = events.send(Event::Checked(process, result)).await;
        });
    }

    /// Takes in what a check of the running process said. What it said about an earlier process is of no interest.
    fn take_check(&mut self, process: &ProcessId, result: Result<(), String>) -> Flow {
        if self.app.as_ref().is_none_or(|app| app.process != *process || !app.process.is_alive()) {
            return Flow::GoOn;
        }
        let timing = &self.options.timing;
        let pause = match &result {
            Ok(()) => {
                self.exits = 0;
                self.check_pause = timing.check_pause;
                timing.check_pause_healthy
            }
            Err(_) => {
                let pause = self.check_pause;
                self.check_pause = (pause * 2).min(timing.check_pause_max);
                pause
            }
        };
        self.check_at = Some(Instant::now() + pause);
        self.health = if result.is_ok() { HealthState::Healthy } else { HealthState::Unhealthy };
        self.reason = result.err();
        let time = (self.options.clock)();
        let file =
            HealthFile { time, process: process.clone(), health: self.health, reason: self.reason.clone() };
        if let Err(error) = durable::write_volatile(&health_file(&self.layout), &canonical::bytes(&file)) {
            warn!(error = %error, "Cannot record a health check");
        }
        Flow::GoOn
    }

    /// Writes a line when something changed or it is time.
    fn write_journal(&mut self) {
        let Some(release) = &self.release else { return };
        let state = if self.app.is_some() { RunState::Running } else { RunState::Stopped };
        let now = Instant::now();
        if self.journaled == Some((state, self.health)) && now < self.journal_at {
            return;
        }
        let deployed = release.deployed.clone();
        let line = JournalLine {
            time: (self.options.clock)(),
            generation: deployed.generation.ledger,
            key: deployed.key,
            artefact: deployed.artefact,
            config: deployed.config,
            state,
            health: self.health,
        };
        if let Err(error) = journal::append(&self.layout, &line) {
            warn!(error = %error, "Cannot write the journal");
        }
        self.journaled = Some((state, self.health));
        self.journal_at = now + self.options.timing.journal_every;
    }
}

/// Waits for the end of the process, if there is one.
async fn ended(app: &mut Option<App>) -> io::Result<ExitStatus> {
    match app {
        Some(app) => app.child.wait().await,
        None => pending().await,
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// How much of a line is held back until its end is there.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Keeps what a process prints, in whole lines where they are not too long.
async fn keep_output(mut stream: impl AsyncRead + Unpin, log: Arc<Mutex<RotatedLog>>) {
    let mut held = Vec::with_capacity(8 * 1024);
    loop {
        let read = stream.read_buf(&mut held).await.unwrap_or(0);
        let whole = match held.iter().rposition(|byte| *byte == b'\n') {
            _ if read == 0 || held.len() > LINE_BYTES_MAX => held.len(),
            Some(end) => end + 1,
            None => 0,
        };
        if whole > 0 {
            let mut log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Err(error) = log.write(&held[..whole]) {
                warn!(error = %error, "Cannot keep what the application prints");
            }
            held.drain(..whole);
        }
        if read == 0 {
            return;
        }
    }
}

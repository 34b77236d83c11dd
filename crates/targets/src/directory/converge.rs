//! Converging: making a root run what is desired, and saying what became of it.
//!
//! ```text
//! observe → plan → check needs → stage → taint → switch → start → healthy? → succeeded
//!                                  │                               └ no → back to the last that succeeded
//!                                  └ it carries a secret of this environment → refused, nothing was touched
//! ```
//!
//! One converge at a time per root: whoever wants one [`enter`]s the root first, and records what is intended only then.
//! Everything may be repeated: what runs already is verified and left alone; what a crash cut short is done again. It decides
//! nothing about promotions and records nothing in the ledger; the caller does.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use semel_model::deployment::{self, Desired, Drift, HealthState, Observed, Plan};
use semel_model::digest::Digest;
use semel_model::duration::Span;
use semel_model::name::{CommitId, ComponentName, ConfigKey, EnvironmentName};
use semel_model::pipeline::Target;
use semel_model::version::Version;
use tokio::time::Instant;
use tracing::warn;

use super::control::{self, ControlError, Request, SpawnSupervisor, Status};
use super::durable::{self, FileError, Lock};
use super::health::{Check, HealthError};
use super::launch::{self, DEPLOYMENT, LaunchError};
use super::logs::{self, LogMark};
use super::needs::{self, NeedProblem};
use super::release::ReleaseSpec;
use super::stage::{self, BlobSource, Existing, StageError, Staged};
use super::switch::{self, Deployed, Stamp};
use super::taint::{self, Searched, Sought, Suspect, TaintError, WhenFound};
use super::{Clock, Depth, Generation, Layout, RootError, collect, observe};

/// How long to wait for another converge of the same root.
const LOCK_WITHIN: Duration = Duration::from_secs(5);

/// How often a release may end by itself before it counts as one that cannot run.
const EXITS_MAX: u32 = 3;

/// How often a release that is starting is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many lines of the application's log a failure carries.
const TAIL_LINES: usize = 20;

/// What to converge to.
#[derive(Debug, Clone)]
pub struct Order {
    /// The place of this deployment in the order of the binding.
    pub generation: Generation,
    /// What is to run.
    pub desired: Desired,
    /// How it is to run.
    pub target: Target,
    /// The exact bytes of the artefact's manifest.
    pub manifest: Vec<u8>,
    /// What is known about it.
    pub facts: Facts,
    /// The resolved values of the config snapshot, secrets included.
    pub values: Values,
    /// Which of them the artefact must not carry.
    pub sought: Sought,
}

/// What is known about a deployment; given to the release as `SEMEL_*` variables and kept with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The component.
    pub component: ComponentName,
    /// The environment.
    pub environment: EnvironmentName,
    /// The artefact's version, if it has one.
    pub version: Option<Version>,
    /// Its build number, if it has one.
    pub number: Option<u64>,
    /// The commit that it was built from, if that is known.
    pub commit: Option<CommitId>,
    /// The decision that granted its promotion.
    pub decision: Option<Digest>,
}

/// Configuration values by key. Its debug form never shows a value.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values(pub BTreeMap<ConfigKey, String>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The machine that it happens on.
#[derive(Debug, Clone)]
pub struct Host {
    /// The `PATH` that releases are given.
    pub path: String,
    /// Where the time comes from.
    pub clock: Clock,
    /// The program that supervises this root.
    pub supervisor: SpawnSupervisor,
}

/// Something that a converge has got to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// This is what has to be done.
    Planned(Plan),
    /// The artefact stands in the content store.
    Staged {
        /// Whether it was there already.
        already: bool,
    },
    /// The values of this environment were searched in it.
    Searched {
        /// The keys of the secrets among them that are too short or too common to be searched.
        skipped: Vec<ConfigKey>,
    },
    /// This generation is switched on.
    Switched(Generation),
    /// It is started; now it has to become healthy.
    Waiting {
        /// Within this time.
        within: Span,
    },
    /// It did not; this generation is being switched on again.
    GoingBack(Generation),
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// What was desired runs and is well: seen, not assumed.
    Succeeded {
        /// What had to be done.
        plan: Plan,
        /// What was found of what it needs, such as `node 20.11.1`.
        needs: Vec<String>,
        /// What somebody should look at, without values.
        warnings: Vec<String>,
        /// What runs.
        observed: Observed,
    },
    /// It was started and did not become healthy.
    Failed {
        /// What had to be done.
        plan: Plan,
        /// Why, to stand alone.
        reason: String,
        /// The last lines that it printed.
        log_tail: Vec<String>,
        /// The generation that runs again instead.
        restored: Option<Generation>,
    },
    /// The artefact must not run here: it carries a value of this environment. Nothing was touched.
    Refused {
        /// Why, to stand alone: key, form and file, never a value.
        reason: String,
    },
    /// It could not be tried.
    Errored {
        /// Why, to stand alone.
        reason: String,
        /// The generation that runs again instead, if anything had been switched.
        restored: Option<Generation>,
    },
}

/// Why an order was not taken. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The root is not this binding's, or not one that we know.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Something newer was switched on here.
    #[error(
        "generation {asked} comes after generation {newest} was switched on at {root}: deploy again to get a newer one"
    )]
    Fenced {
        /// The root.
        root: PathBuf,
        /// The generation of the order.
        asked: Generation,
        /// The newest that was switched on.
        newest: Generation,
    },
    /// The same generation stood for something else.
    #[error(
        "generation {asked} at {root} stands for deployment {key} already: deploy again to get a new one"
    )]
    Taken {
        /// The root.
        root: PathBuf,
        /// The generation of the order.
        asked: Generation,
        /// What it stands for.
        key: Digest,
    },
    /// Another converge is at work.
    #[error("another deployment is being made at {root}: try again when it is done")]
    Busy {
        /// The root.
        root: PathBuf,
    },
}

impl From<FileError> for Refused {
    fn from(error: FileError) -> Self {
        Self::Root(RootError::File(error))
    }
}

/// A root that nobody else changes while this is there.
#[derive(Debug)]
pub struct Entered {
    layout: Layout,
    _lock: Lock,
}

/// Waits until nobody else changes a root, for a few seconds.
///
/// # Errors
/// [`Refused::Busy`] when somebody is still at work; else that this is no root for a binding.
pub async fn enter(root: &Path) -> Result<Entered, Refused> {
    let layout = Layout::create(root)?;
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match durable::try_lock(&layout.lock_file())? {
            Some(lock) => return Ok(Entered { layout, _lock: lock }),
            None if Instant::now() > until => return Err(Refused::Busy { root: layout.root().to_owned() }),
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

impl Entered {
    /// The newest generation that was ever switched on here, and its deployment key.
    pub fn newest(&self) -> Result<Option<(Generation, Digest)>, Refused> {
        Ok(switch::read_fence(&self.layout)?.newest.map(|stamp| (stamp.generation, stamp.key)))
    }
}

/// Makes a root run what an order says.
///
/// The same order again verifies, and changes nothing if nothing differs. A release that fails is replaced by the last
/// one that succeeded, unless it is one that succeeded itself and only had to be started again.
pub async fn converge(
    entered: &Entered,
    order: &Order,
    host: &Host,
    source: &dyn BlobSource,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Outcome, Refused> {
    let layout = entered.layout.clone();
    layout.make_directories()?;
    layout.claim(&order.facts.environment, &order.facts.component)?;
    refuse_older(&layout, order)?;
    let run = Run { layout, order, host, source, progress };
    run.sweep()?;
    let before = switch::read_fence(&run.layout)?.current;
    let observed = observe::look(&run.layout, Depth::Full, (host.clock)()).await?;
    let plan = match run.plan(&observed).await {
        Ok(plan) => plan,
        Err(trouble) => return Ok(Outcome::Errored { reason: trouble.reason(), restored: None }),
    };
    progress(Progress::Planned(plan));
    match run.carry_out(plan, observed).await {
        Ok(Done { needs, warnings, observed }) => Ok(Outcome::Succeeded { plan, needs, warnings, observed }),
        Err(stop) => Ok(run.give_up(plan, stop, before).await),
    }
}

fn refuse_older(layout: &Layout, order: &Order) -> Result<(), Refused> {
    let Some(newest) = switch::read_fence(layout)?.newest else { return Ok(()) };
    let (root, asked) = (layout.root().to_owned(), order.generation);
    if asked < newest.generation {
        return Err(Refused::Fenced { root, asked, newest: newest.generation });
    }
    if asked == newest.generation && newest.key != order.desired.key {
        return Err(Refused::Taken { root, asked, key: newest.key });
    }
    Ok(())
}

/// Why a step did not work.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The release itself is at fault, as far as can be seen.
    #[error("{0}")]
    Unwell(String),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("{}", join(.0))]
    Needs(Vec<NeedProblem>),
    /// A rule of this target says no.
    #[error("{0}")]
    Tainted(String),
    #[error(transparent)]
    Taint(#[from] TaintError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the supervisor went away while the release was starting")]
    NoSupervisor,
    #[error(transparent)]
    File(#[from] FileError),
}

impl Trouble {
    /// The error and its causes in one line, for a record that outlives the error.
    fn reason(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

fn join(problems: &[NeedProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Where a converge stopped.
struct Stop {
    trouble: Trouble,
    /// Where the log ended before the release was started; none: nothing was switched or started.
    started: Option<LogMark>,
}

impl<T: Into<Trouble>> From<T> for Stop {
    fn from(trouble: T) -> Self {
        Self { trouble: trouble.into(), started: None }
    }
}

/// What was desired runs.
struct Done {
    needs: Vec<String>,
    warnings: Vec<String>,
    observed: Observed,
}

/// A generation that can be switched on.
struct LaidOut {
    deployed: Deployed,
    warnings: Vec<String>,
}

/// One converge under way.
struct Run<'a> {
    layout: Layout,
    order: &'a Order,
    host: &'a Host,
    source: &'a dyn BlobSource,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Run<'_> {
    /// Removes what a crash left behind; nobody else writes there while we hold the lock.
    fn sweep(&self) -> Result<(), FileError> {
        let dirs = [
            self.layout.root().to_owned(),
            self.layout.store_dir(),
            self.layout.root().join("config"),
            self.layout.generations_dir(),
        ];
        dirs.iter().try_for_each(|dir| durable::sweep(dir))
    }

    /// What has to be done. Beyond the rule of the model: the release must be the one that is switched on, must have
    /// been started as it should, and must be supervised.
    async fn plan(&self, observed: &Observed) -> Result<Plan, Trouble> {
        let desired = &self.order.desired;
        let planned = deployment::plan(desired, observed);
        if planned == Plan::Switch {
            return Ok(planned);
        }
        let on = self.current()?;
        if on.is_some_and(|deployed| deployed.key != desired.key) {
            return Ok(Plan::Switch);
        }
        if planned != Plan::Nothing {
            return Ok(planned);
        }
        let drift = deployment::drift(desired, Some(observed));
        if drift.contains(&Drift::WrongArtefact) {
            Ok(Plan::Repair)
        } else if drift.contains(&Drift::ConfigDrift) || self.ask(Request::Status).await?.is_none() {
            Ok(Plan::Start)
        } else {
            Ok(Plan::Nothing)
        }
    }

    async fn carry_out(&self, plan: Plan, observed: Observed) -> Result<Done, Stop> {
        let mut warnings = Vec::new();
        let observed = match plan {
            Plan::Nothing if observed.health == HealthState::Healthy => observed,
            Plan::Nothing => {
                let mark = logs::mark(&self.layout);
                self.watch(mark).await?
            }
            Plan::Start => self.start().await?,
            Plan::Repair => {
                let laid = self.lay_out(Existing::Replace).await?;
                warnings = laid.warnings;
                self.switch_on(&laid.deployed).await?
            }
            Plan::Switch => {
                let laid = self.lay_out(Existing::Keep).await?;
                warnings = laid.warnings;
                self.switch_on(&laid.deployed).await?
            }
        };
        let deployed = self.current()?;
        self.settle(deployed.as_ref())?;
        let needs = deployed.map(|deployed| deployed.needs).unwrap_or_default();
        Ok(Done { needs, warnings, observed })
    }

    /// Everything before the switch: the artefact verified and unpacked, what it needs there, its generation written.
    async fn lay_out(&self, existing: Existing) -> Result<LaidOut, Trouble> {
        let order = self.order;
        let spec = stage::read_spec(&order.desired.artefact, &order.manifest, self.source).await?;
        let needs = needs::check(&spec.needs, &self.host.path).await.map_err(Trouble::Needs)?;
        let staged =
            stage::stage(&self.layout, &order.desired.artefact, &spec, self.source, existing).await?;
        (self.progress)(Progress::Staged { already: staged.already });
        let tree = self.layout.store(&order.desired.artefact);
        launch::check(&tree, &spec.entrypoint, &spec.workdir, &self.host.path)?;
        switch::write_values(&self.layout, &order.desired.config, &order.values.0)?;
        let searched = self.search(&spec).await?;
        let warnings = self.judge(&searched, existing)?;
        let deployed = self.describe(spec, staged, needs);
        switch::write_generation(&self.layout, &deployed, &order.manifest)?;
        let launch = launch::load(&self.layout, deployed.generation)?;
        Check::prepare(order.target.health.as_ref(), &launch.variables())?;
        Ok(LaidOut { deployed, warnings })
    }

    /// Searches the values of this environment in what was laid out.
    async fn search(&self, spec: &ReleaseSpec) -> Result<Searched, Trouble> {
        let Order { desired, values, sought, manifest, .. } = self.order;
        let suspect = Suspect { artefact: &desired.artefact, manifest, config_blob: &spec.config_blob };
        let searched = taint::search(&self.layout, suspect, &desired.config, &values.0, sought).await?;
        let secret = |key: &&ConfigKey| sought.get(*key) == Some(&WhenFound::Refuse);
        let skipped = searched.skipped.iter().map(|skipped| &skipped.key).filter(secret).cloned().collect();
        (self.progress)(Progress::Searched { skipped });
        Ok(searched)
    }

    /// What follows from what was found. What is only repaired runs already: to refuse that would leave damaged files
    /// running.
    fn judge(&self, searched: &Searched, existing: Existing) -> Result<Vec<String>, Trouble> {
        let environment = &self.order.facts.environment;
        let refuses = |key: &ConfigKey| {
            existing == Existing::Keep && self.order.sought.get(key) == Some(&WhenFound::Refuse)
        };
        if let Some(places) = searched.says(refuses) {
            return Err(Trouble::Tainted(format!(
                "the artefact carries a secret of {environment}: {places}"
            )));
        }
        let places = searched.says(|_| true);
        Ok(places
            .map(|places| format!("the artefact carries a value of {environment}: {places}"))
            .into_iter()
            .collect())
    }

    fn describe(&self, spec: ReleaseSpec, staged: Staged, needs: Vec<String>) -> Deployed {
        let Order { desired, target, facts, .. } = self.order;
        Deployed {
            v: 1,
            generation: self.order.generation,
            key: desired.key.clone(),
            artefact: desired.artefact.clone(),
            config: desired.config.clone(),
            tree: staged.tree,
            component: facts.component.clone(),
            environment: facts.environment.clone(),
            version: facts.version.clone(),
            number: facts.number,
            commit: facts.commit.clone(),
            decision: facts.decision.clone(),
            entrypoint: spec.entrypoint,
            workdir: spec.workdir,
            defaults: spec.defaults,
            needs,
            health: target.health.clone(),
            healthy_within: target.healthy_within,
            path: self.host.path.clone(),
            variables: variables(desired, facts),
        }
    }

    async fn switch_on(&self, deployed: &Deployed) -> Result<Observed, Stop> {
        let mark = logs::mark(&self.layout);
        let stopped = |trouble: Trouble| Stop { trouble, started: Some(mark) };
        switch::flip(&self.layout, deployed).map_err(|error| stopped(error.into()))?;
        (self.progress)(Progress::Switched(deployed.generation));
        self.start().await
    }

    /// Makes the supervisor start what is switched on, and watches it.
    async fn start(&self) -> Result<Observed, Stop> {
        let mark = logs::mark(&self.layout);
        self.restart().await.map_err(|trouble| Stop { trouble, started: Some(mark) })?;
        self.watch(mark).await
    }

    async fn watch(&self, mark: LogMark) -> Result<Observed, Stop> {
        let within = self.order.target.healthy_within;
        (self.progress)(Progress::Waiting { within });
        self.become_healthy(&self.order.desired, within)
            .await
            .map_err(|trouble| Stop { trouble, started: Some(mark) })
    }

    /// A supervisor that was not there starts what is switched on by itself; one that was has to be told.
    async fn restart(&self) -> Result<(), Trouble> {
        if self.ask(Request::Switch).await?.is_some() {
            return Ok(());
        }
        control::ensure(&self.layout, &self.host.supervisor).await?;
        Ok(())
    }

    /// Waits until the release is well *and* an observation reports it, or it is clear that it will not be.
    async fn become_healthy(&self, desired: &Desired, within: Span) -> Result<Observed, Trouble> {
        let until = Instant::now() + within.to_std();
        let mut seen = Vec::new();
        loop {
            let status = self.ask(Request::Status).await?.ok_or(Trouble::NoSupervisor)?;
            if let Some(why) = cannot_run(&status) {
                return Err(Trouble::Unwell(why));
            }
            if status.key.as_ref() == Some(&desired.key) && status.health == HealthState::Healthy {
                let observed = observe::look(&self.layout, Depth::Quick, (self.host.clock)()).await?;
                seen = deployment::drift(desired, Some(&observed));
                if observed.health == HealthState::Healthy && seen.is_empty() {
                    return Ok(observed);
                }
            }
            if Instant::now() > until {
                return Err(Trouble::Unwell(not_healthy(within, &status, &seen)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Remembers a success and removes what is no longer needed for going back.
    fn settle(&self, deployed: Option<&Deployed>) -> Result<(), Trouble> {
        if let Some(deployed) = deployed {
            switch::mark_succeeded(&self.layout, deployed.generation, (self.host.clock)())?;
        }
        let stamp = Stamp { generation: self.order.generation, key: self.order.desired.key.clone() };
        switch::pass(&self.layout, stamp)?;
        // What runs is right. What could not be removed now is removed the next time.
        if let Err(error) = collect::collect(&self.layout) {
            warn!(error = %error, "Cannot remove what is no longer needed");
        }
        Ok(())
    }

    /// Says what went wrong and, where something was switched, goes back.
    async fn give_up(&self, plan: Plan, stop: Stop, before: Option<Generation>) -> Outcome {
        let mut reason = stop.trouble.reason();
        let log_tail = match stop.started {
            Some(mark) => logs::tail_since(&self.layout, mark, TAIL_LINES),
            None => Vec::new(),
        };
        let unproven = stop.started.is_some() && (plan == Plan::Switch || !self.has_succeeded());
        let restored = if unproven { self.go_back(before, &mut reason).await } else { None };
        match stop.trouble {
            Trouble::Unwell(_) => Outcome::Failed { plan, reason, log_tail, restored },
            Trouble::Tainted(_) => Outcome::Refused { reason },
            _ => Outcome::Errored { reason, restored },
        }
    }

    /// Whether what is switched on was well before. What was only to be started again stays switched on.
    fn has_succeeded(&self) -> bool {
        let current = self.layout.current_generation();
        current.is_some_and(|generation| switch::has_succeeded(&self.layout, generation))
    }

    /// Switches the last generation that succeeded on again; where there is none, switches everything off, so that
    /// nothing runs that was never well.
    async fn go_back(&self, before: Option<Generation>, reason: &mut String) -> Option<Generation> {
        match self.try_to_go_back(before).await {
            Ok(restored) => restored,
            Err((generation, trouble)) => {
                reason.push_str(&format_failure(generation, &trouble));
                None
            }
        }
    }

    async fn try_to_go_back(
        &self,
        before: Option<Generation>,
    ) -> Result<Option<Generation>, (Option<Generation>, Trouble)> {
        let Some(deployed) = self.last_good(before).map_err(|error| (None, error.into()))? else {
            self.switch_off().await.map_err(|trouble| (None, trouble))?;
            return Ok(None);
        };
        let generation = deployed.generation;
        (self.progress)(Progress::GoingBack(generation));
        self.restore(&deployed).await.map_err(|trouble| (Some(generation), trouble))?;
        Ok(Some(generation))
    }

    /// The generation that ran before, if it had succeeded; else the newest other one that had.
    fn last_good(&self, before: Option<Generation>) -> Result<Option<Deployed>, FileError> {
        let mut good = switch::past(&self.layout)?;
        good.retain(|past| past.succeeded.is_some() && past.deployed.key != self.order.desired.key);
        let wanted = good.iter().position(|past| Some(past.deployed.generation) == before).unwrap_or(0);
        Ok((wanted < good.len()).then(|| good.swap_remove(wanted).deployed))
    }

    async fn restore(&self, deployed: &Deployed) -> Result<(), Trouble> {
        self.verify_again(deployed).await?;
        switch::flip(&self.layout, deployed)?;
        self.restart().await?;
        let Deployed { key, artefact, config, .. } = deployed.clone();
        self.become_healthy(&Desired { key, artefact, config }, deployed.healthy_within).await?;
        Ok(())
    }

    /// Every byte is checked again before it is switched on; what was edited is laid out anew.
    async fn verify_again(&self, deployed: &Deployed) -> Result<(), Trouble> {
        let kept = self.layout.tree_file(&deployed.artefact);
        if stage::is_intact(&self.layout, &deployed.artefact, &deployed.tree).await? {
            return Ok(());
        }
        durable::remove_file(&kept)?;
        let manifest = switch::read_manifest(&self.layout, deployed.generation)?.unwrap_or_default();
        let spec = stage::read_spec(&deployed.artefact, &manifest, self.source).await?;
        stage::stage(&self.layout, &deployed.artefact, &spec, self.source, Existing::Replace).await?;
        Ok(())
    }

    async fn switch_off(&self) -> Result<(), Trouble> {
        switch::unlink(&self.layout)?;
        self.ask(Request::Stop).await?;
        Ok(())
    }

    async fn ask(&self, request: Request) -> Result<Option<Status>, Trouble> {
        Ok(control::ask(&self.layout, request).await?)
    }

    /// What is switched on.
    fn current(&self) -> Result<Option<Deployed>, FileError> {
        match self.layout.current_generation() {
            Some(generation) => switch::read_deployed(&self.layout, generation),
            None => Ok(None),
        }
    }
}

/// Why a release will not become healthy however long one waits.
fn cannot_run(status: &Status) -> Option<String> {
    let last = status.last_exit.clone().unwrap_or_default();
    if status.exits >= EXITS_MAX {
        Some(format!("the release ended {} times; at last {last}", status.exits))
    } else if status.key.is_none() && !last.is_empty() {
        Some(format!("the release was not started: {last}"))
    } else {
        None
    }
}

/// What stood in the way when the time was up: an observation that differs says more than the health check that passed.
fn not_healthy(within: Span, status: &Status, seen: &[Drift]) -> String {
    if !seen.is_empty() && status.health == HealthState::Healthy {
        let differences: Vec<String> = seen.iter().map(ToString::to_string).collect();
        return format!(
            "the release passed its health check, but is not as it was deployed: {}",
            differences.join(", ")
        );
    }
    let why = status.reason.as_ref().or(status.last_exit.as_ref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("the release was not healthy within {within}{why}")
}

fn format_failure(generation: Option<Generation>, trouble: &Trouble) -> String {
    match generation {
        Some(generation) => {
            format!("; going back to generation {generation} failed as well: {}", trouble.reason())
        }
        None => format!("; switching it off failed as well: {}", trouble.reason()),
    }
}

/// What every release is told about itself.
fn variables(desired: &Desired, facts: &Facts) -> BTreeMap<String, String> {
    let told = [
        ("SEMEL_VERSION", facts.version.as_ref().map(ToString::to_string)),
        ("SEMEL_BUILD", facts.number.map(|number| number.to_string())),
        ("SEMEL_COMMIT", facts.commit.as_ref().map(ToString::to_string)),
        ("SEMEL_DIGEST", Some(desired.artefact.to_string())),
        ("SEMEL_ENVIRONMENT", Some(facts.environment.to_string())),
        (DEPLOYMENT, Some(desired.key.to_string())),
    ];
    told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

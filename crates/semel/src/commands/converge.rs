//! What deploy and rollback share: the values of an environment, the order to its target, and the outcome.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use semel_engine::deploy::{
    Config, Finish, Finished, Order, Outcome as Recorded, Refusal, Start, Started, SwitchedOn,
};
use semel_model::config::{self, Contract, Offered, Snapshot, Source};
use semel_model::deployment::{Observed, Plan};
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, ConfigKey, EnvironmentName};
use semel_model::pipeline::{Health, Target};
use semel_oci::client::RegistryClient;
use semel_oci::reference::TagOrDigest;
use semel_store::secrets::Vault;
use semel_targets::directory::stage::{BlobFuture, BlobSource};
use semel_targets::directory::{
    self, Depth, Entered, Facts, Generation, Host, Progress, Sought, SpawnSupervisor, Values, WhenFound,
};

use super::{naming, promote};
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session::{Session, now};

/// Where the release of a binding is laid out.
pub(super) async fn root(
    session: &Session,
    component: &ComponentName,
    environment: &EnvironmentName,
    target: &Target,
) -> Result<PathBuf, Failure> {
    match &target.path {
        Some(path) if Path::new(path).is_absolute() => Ok(PathBuf::from(path)),
        Some(path) => {
            Err(Failure::usage(format!("the target path `{path}` of {environment} is not absolute"))
                .hint("write an absolute path in semel.toml, then: semel pipeline apply"))
        }
        None => {
            let binding = format!("{}/{}", environment, component.as_str().replace('/', "%"));
            Ok(session.settings.releases().join(&session.facts().await?.id).join(binding))
        }
    }
}

/// The secrets of an environment, at this machine.
pub(super) async fn vault(session: &Session, environment: &EnvironmentName) -> Result<Vault, Failure> {
    Ok(Vault::at(&session.settings.secrets(), &session.facts().await?.id, environment))
}

/// What an environment offers: its values file, then what was set here.
pub(super) async fn offered(
    session: &Session,
    component: &ComponentName,
    environment: &EnvironmentName,
    values: Option<&str>,
    project: Option<&Path>,
) -> Result<BTreeMap<ConfigKey, Offered>, Failure> {
    let mut offered = BTreeMap::new();
    if let Some(file) = values {
        let Some(project) = project else {
            return Err(Failure::usage(format!("the values of {environment} are in {file}, relative to the project, and there is no project here"))
                .hint("run it in the project's directory, or: semel -C DIR deploy …"));
        };
        offered.extend(values_file(&project.join(file))?);
    }
    let set = vault(session, environment).await?.values(component);
    let set = set.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    offered.extend(set.into_iter().map(|(key, value)| (key, Offered { value, source: Source::Set })));
    Ok(offered)
}

fn values_file(path: &Path) -> Result<BTreeMap<ConfigKey, Offered>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read the values file {shown}: {error}"))
            .hint("create it, or change `values` in semel.toml")
    })?;
    let values = config::parse_values(&text).map_err(|error| {
        Failure::usage(format!("the values file {shown}: {error}")).hint("write one `KEY = value` per line")
    })?;
    let source = if is_private(path) { Source::Private } else { Source::File };
    Ok(values.into_iter().map(|(key, value)| (key, Offered { value, source })).collect())
}

/// Whether only its owner can read a file, and git does not track it: then it may hold secrets.
pub(super) fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let closed = std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 == 0);
    closed && !semel_build::is_tracked(path)
}

/// The configuration of a deployment: the snapshot that is recorded, and what never is.
pub(super) struct Resolved {
    pub(super) config: Config,
    pub(super) supplied: Supplied,
}

/// The values of a deployment.
#[derive(Default)]
pub(super) struct Supplied {
    values: BTreeMap<ConfigKey, String>,
    /// Which of them the artefact must not carry.
    sought: Sought,
}

/// Joins a contract with what an environment offers.
pub(super) async fn resolve(
    session: &Session,
    contract: &Contract,
    environment: &EnvironmentName,
    offered: &BTreeMap<ConfigKey, Offered>,
) -> Result<Resolved, Failure> {
    match config::resolve(contract, environment, offered) {
        Err(problems) => Ok(Resolved { config: Config::Problems(problems), supplied: Supplied::default() }),
        Ok(resolved) => {
            let key = vault(session, environment).await?.key();
            let key = key.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
            let snapshot = Snapshot::new(contract, environment, &resolved, &key);
            let sought = sought(contract, &resolved);
            let values = resolved.into_iter().map(|(key, offered)| (key, offered.value)).collect();
            Ok(Resolved { config: Config::Snapshot(snapshot), supplied: Supplied { values, sought } })
        }
    }
}

/// A secret inside an artefact is refused; of a plain value somebody should know. What the contract says itself is inside by
/// right.
fn sought(contract: &Contract, resolved: &BTreeMap<ConfigKey, Offered>) -> Sought {
    let when = |key: &ConfigKey, offered: &Offered| {
        let rule = contract.0.get(key)?;
        let by_right = rule.default.as_ref().is_some_and(|value| value.to_string() == offered.value);
        match rule.secret {
            true => Some(WhenFound::Refuse),
            false => (rule.is_telling(&offered.value) && !by_right).then_some(WhenFound::Warn),
        }
    };
    resolved.iter().filter_map(|(key, offered)| Some((key.clone(), when(key, offered)?))).collect()
}

/// A secret in a health command would stand in an argument list (invariant I15).
pub(super) fn refuse_secrets_in_health(contract: &Contract, target: &Target) -> Result<(), Failure> {
    let Some(Health::Command(words)) = &target.health else { return Ok(()) };
    let secret = contract
        .0
        .iter()
        .filter(|(_, rule)| rule.secret)
        .find(|(key, _)| words.iter().any(|word| word.contains(&format!("${{{key}}}"))));
    match secret {
        Some((key, _)) => Err(Failure::usage(format!(
            "the health command names the secret {key}: its value would stand in an argument list"
        ))
        .hint(format!("the command has {key} in its environment: read it from there"))),
        None => Ok(()),
    }
}

/// Enters the target, asks for the deployment, makes the target run it, and records how it came out. Of two that deploy at once
/// the second one waits before it records anything: it would take the first for broken off.
pub(super) async fn deploy(
    session: &Session,
    mut start: Start,
    mut supplied: Supplied,
    target: Option<&Target>,
) -> Result<Deployed, Failure> {
    if start.rollback_of.is_some() {
        // It ran here before: to refuse the way back would make an incident longer and keep no secret.
        supplied.sought.values_mut().for_each(|when| *when = WhenFound::Warn);
    }
    let entered = match target {
        Some(target) => Some(enter(session, &start, target).await?),
        None => None,
    };
    start.newest = entered.as_ref().map(|place| newest(&place.entered)).transpose()?.flatten();
    let order = match session.client.call(&start).await? {
        Started::Go(order) => order,
        Started::Refused(refusal) => return Err(refused(&refusal)),
    };
    if order.promoted {
        session.output.done(format!("{} may run in {}", order.artefact.name(), order.environment));
    }
    let Place { root, entered } = match entered {
        Some(place) if target == Some(&order.target) => place,
        // Another pipeline was put in force meanwhile.
        _ => enter(session, &start, &order.target).await?,
    };
    let outcome = match converge(session, &order, &root, &entered, supplied).await {
        // The target could not be asked at all: what was intended has an outcome all the same.
        Err(failure) if failure.exit == Exit::Fault && !order.current => {
            let recorded = Recorded::Errored { reason: failure.message.clone(), restored: None };
            drop(finish(session, &order, recorded, observe(&root).await).await);
            return Err(failure);
        }
        converged => converged?,
    };
    let observed = observe(&root).await;
    let (recorded, ended) = match outcome {
        directory::Outcome::Succeeded { plan, needs, warnings, observed } => {
            warnings.iter().for_each(|line| session.output.warn(line));
            let recorded = Recorded::Succeeded { needs, warnings };
            return succeeded(session, order, recorded, plan, observed).await;
        }
        directory::Outcome::Refused { reason } => {
            let recorded = Recorded::Refused { reason: reason.clone() };
            finish(session, &order, recorded, observed).await?;
            return Err(tainted(session, &order, reason));
        }
        directory::Outcome::Failed { reason, log_tail, restored, .. } => {
            let restored = restored.map(|generation| generation.ledger);
            let ended = Ended { reason: reason.clone(), log_tail, restored, failed: true };
            (Recorded::Failed { reason, restored }, ended)
        }
        directory::Outcome::Errored { reason, restored } => {
            let restored = restored.map(|generation| generation.ledger);
            let ended = Ended { reason: reason.clone(), log_tail: Vec::new(), restored, failed: false };
            (Recorded::Errored { reason, restored }, ended)
        }
    };
    let finished = finish(session, &order, recorded, observed).await?;
    Err(not_running(session, &order, &ended, &finished))
}

/// The root of a binding, where nobody else is at work.
struct Place {
    root: PathBuf,
    entered: Entered,
}

async fn enter(session: &Session, start: &Start, target: &Target) -> Result<Place, Failure> {
    let root = root(session, &start.component, &start.environment, target).await?;
    let entered = directory::enter(&root).await.map_err(|error| not_taken(&error))?;
    Ok(Place { root, entered })
}

fn newest(entered: &Entered) -> Result<Option<SwitchedOn>, Failure> {
    let newest = entered.newest().map_err(|error| not_taken(&error))?;
    Ok(newest.map(|(generation, key)| SwitchedOn { generation: generation.ledger, key }))
}

/// A target that takes no order now, or not this one.
fn not_taken(refused: &directory::Refused) -> Failure {
    let exit = if matches!(refused, directory::Refused::Busy { .. }) { Exit::TryAgain } else { Exit::Usage };
    Failure::from_error(exit, refused)
}

/// A deployment that runs.
#[derive(Debug)]
pub(super) struct Deployed {
    pub(super) order: Order,
    pub(super) plan: Plan,
    pub(super) observed: Observed,
    pub(super) consequences: Vec<String>,
}

async fn succeeded(
    session: &Session,
    order: Order,
    recorded: Recorded,
    plan: Plan,
    observed: Observed,
) -> Result<Deployed, Failure> {
    let finished = finish(session, &order, recorded, observed.clone()).await?;
    Ok(Deployed { order, plan, observed, consequences: finished.consequences })
}

async fn finish(
    session: &Session,
    order: &Order,
    outcome: Recorded,
    observed: Observed,
) -> Result<Finished, Failure> {
    let finish = Finish {
        component: order.artefact.component.clone(),
        environment: order.environment.clone(),
        generation: order.generation,
        outcome,
        observed,
    };
    Ok(session.client.call(&finish).await?)
}

struct Ended {
    reason: String,
    log_tail: Vec<String>,
    restored: Option<u64>,
    failed: bool,
}

fn not_running(session: &Session, order: &Order, ended: &Ended, finished: &Finished) -> Failure {
    for line in &ended.log_tail {
        session.output.say(format!("  | {line}"));
    }
    let (name, environment) = (order.artefact.name(), &order.environment);
    let of = naming(&order.artefact.component, session);
    let headline = match (ended.failed, ended.restored) {
        (true, Some(restored)) => {
            format!("{name} failed in {environment} and was rolled back: generation {restored} runs again")
        }
        (true, None) => {
            format!("{name} failed in {environment}; nothing ran there before, and nothing runs now")
        }
        (false, Some(restored)) => {
            format!("deploying {name} to {environment} went wrong; generation {restored} runs again")
        }
        (false, None) => {
            format!("deploying {name} to {environment} went wrong; what ran there was not touched")
        }
    };
    let exit = if ended.failed { Exit::Command } else { Exit::Fault };
    Failure::new(exit, headline)
        .because(std::iter::once(ended.reason.clone()).chain(finished.consequences.iter().cloned()))
        .hint(format!("semel logs {environment}{of}"))
        .hint(format!("semel why {environment}{of}"))
        .hint(format!("before a version that works is deployed: semel resume {environment}{of}"))
}

/// The target was not touched, and is not held: a repaired version can be deployed at once.
fn tainted(session: &Session, order: &Order, reason: String) -> Failure {
    let (name, environment) = (order.artefact.name(), &order.environment);
    let of = naming(&order.artefact.component, session);
    Failure::new(Exit::Refused, format!("{name} was not switched on in {environment}; nothing was touched"))
        .because([reason])
        .hint("take the value out of the source and build again; whoever has the artefact has the value")
        .hint(format!("replace it where it is valid, then: semel config set {environment} KEY{of}"))
}

/// A refused deployment: every reason at once, and what to do about each.
fn refused(refusal: &Refusal) -> Failure {
    let message = format!(
        "{} is not deployed to {}; nothing was touched",
        refusal.artefact.name(),
        refusal.environment
    );
    match &refusal.decision {
        Some(decision) => promote::refusal(message, decision),
        None => Failure::new(Exit::Refused, message)
            .because(refusal.reasons.clone())
            .hints(refusal.remedies.clone()),
    }
    .answer(refusal)
}

async fn converge(
    session: &Session,
    order: &Order,
    root: &Path,
    entered: &Entered,
    supplied: Supplied,
) -> Result<directory::Outcome, Failure> {
    let registry = session.client.registry();
    let component = order.artefact.component.clone();
    let reference = TagOrDigest::Digest(order.artefact.digest.clone());
    let manifest = registry.get_manifest(&component, &reference).await;
    let manifest = manifest.map_err(|error| Failure::from_error(Exit::Fault, &error))?;
    let wanted = wanted(order, manifest.bytes.to_vec(), supplied);
    let host = Host {
        path: session.settings.path(),
        clock: now,
        supervisor: SpawnSupervisor {
            program: session.settings.program().to_owned(),
            args: vec!["supervise".to_owned(), "--root".to_owned(), root.display().to_string()],
        },
    };
    let output = session.output;
    let source = FromRegistry { registry, component };
    let converged =
        directory::converge(entered, &wanted, &host, &source, &move |progress| tell(output, progress)).await;
    converged.map_err(|refused| not_taken(&refused))
}

/// What the target gets: an order of the ledger, with the values that stay outside of it.
fn wanted(order: &Order, manifest: Vec<u8>, supplied: Supplied) -> directory::Order {
    directory::Order {
        generation: Generation::of(order.generation),
        desired: semel_model::deployment::Desired {
            key: order.key.clone(),
            artefact: order.artefact.digest.clone(),
            config: order.config.clone(),
        },
        target: order.target.clone(),
        manifest,
        facts: Facts {
            component: order.artefact.component.clone(),
            environment: order.environment.clone(),
            version: order.artefact.version.clone(),
            number: order.artefact.number,
            commit: order.artefact.commit.clone(),
            decision: Some(order.decision.clone()),
        },
        values: Values(supplied.values),
        sought: supplied.sought,
    }
}

fn tell(output: Output, progress: Progress) {
    match progress {
        Progress::Planned(_) => {}
        Progress::Staged { already: true } => output.done("staged: every byte was there and has its digest"),
        Progress::Staged { already: false } => output.done("staged: every byte has its digest"),
        Progress::Searched { skipped } => skipped.iter().for_each(|key| {
            output.warn(format!(
                "the value of {key} is too short or too common to be searched in the artefact"
            ));
        }),
        Progress::Switched(generation) => output.done(format!("switched to generation {generation}")),
        Progress::Waiting { within } => {
            output.say(format!("  waiting until it is healthy, at most {within}"));
        }
        Progress::GoingBack(generation) => {
            output.warn(format!("not healthy: going back to generation {generation}"));
        }
    }
}

/// What runs at a root; what cannot be read counts as absent.
pub(super) async fn observe(root: &Path) -> Observed {
    directory::observe(root, Depth::Quick, now()).await.unwrap_or_else(|_| Observed::absent())
}

struct FromRegistry {
    registry: RegistryClient,
    component: ComponentName,
}

impl BlobSource for FromRegistry {
    fn blob<'a>(&'a self, digest: &'a Digest, size: u64) -> BlobFuture<'a> {
        Box::pin(async move {
            let fetched = self.registry.get_blob(&self.component, digest, Some(size)).await;
            fetched.map(|fetched| fetched.reader).map_err(std::io::Error::other)
        })
    }

    fn manifest<'a>(&'a self, digest: &'a Digest, _: u64) -> BlobFuture<'a> {
        Box::pin(async move {
            let reference = TagOrDigest::Digest(digest.clone());
            let fetched = self.registry.get_manifest(&self.component, &reference).await;
            let bytes = fetched.map_err(std::io::Error::other)?.bytes;
            Ok(Box::pin(std::io::Cursor::new(bytes)) as _)
        })
    }
}

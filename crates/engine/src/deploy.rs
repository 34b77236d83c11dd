//! Deploy: an intent before the effect, an outcome after it.
//!
//! [`start`] checks everything that can be checked before a target is touched and records the intent. Whoever is at the target
//! does the work, and [`finish()`] records how it came out. An intent without outcome is settled by the next deployment of the
//! binding, or by a repeat of the same one, which goes on with the same generation.

mod finish;

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::config::{Contract, Problem, Snapshot};
use semel_model::deployment::KeyInputs;
use semel_model::digest::Digest;
use semel_model::entry::{
    Change, DeploymentFailed, DeploymentRefused, DeploymentStarted, FailedOutcome, RejectedThing,
};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::Target;
use semel_model::promotion::Decision;
use semel_model::version::VersionWord;
use semel_store::Store;
use semel_store::ledger::Turn;
use semel_store::projections::deployment::{self, Deployment, DeploymentState};
use semel_store::projections::promotion;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::batch::{Batch, put_document, read_document};
use crate::error::EngineError;
use crate::pipeline::{self, InForce};
use crate::promote;

pub use finish::{Finish, Finished, Outcome, finish};

/// Asks for a deployment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Which component.
    pub component: ComponentName,
    /// Which of its artefacts, as a person writes it.
    pub version: String,
    /// Where.
    pub environment: EnvironmentName,
    /// The resolved configuration, or what is wrong with it.
    pub config: Config,
    /// Raised to start the same again on purpose.
    #[serde(default)]
    pub restart: u32,
    /// The digest that the words must resolve to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Digest>,
    /// The generation that this goes back from, for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// The newest that was ever switched on at the target, where the caller has entered it. A store that was restored from an
    /// older backup may not know it, and the target refuses what does not come after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<SwitchedOn>,
}

/// What was switched on at a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchedOn {
    /// Its place in the order of its binding.
    pub generation: u64,
    /// Its deployment key.
    pub key: Digest,
}

/// The highest generation that a target may tell of.
const GENERATION_MAX: u64 = 1 << 53;

/// The configuration that a deployment would run with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Config {
    /// It satisfies the contract.
    Snapshot(Snapshot),
    /// It does not.
    Problems(Vec<Problem>),
}

/// What becomes of the question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Started {
    /// Go.
    Go(Order),
    /// A rule says no; that was recorded.
    Refused(Refusal),
}

/// What a target has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// The artefact.
    pub artefact: Artefact,
    /// The media type of its manifest.
    pub media_type: String,
    /// Where.
    pub environment: EnvironmentName,
    /// The deployment's place in the order of its binding.
    pub generation: u64,
    /// The deployment key.
    pub key: Digest,
    /// The config digest.
    pub config: Digest,
    /// The target.
    pub target: Target,
    /// The decision that allows it.
    pub decision: Digest,
    /// Whether this very deployment succeeded before: verify and repair, change nothing.
    pub current: bool,
    /// Whether the promotion was granted just now.
    pub promoted: bool,
}

/// A refused deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The artefact.
    pub artefact: Artefact,
    /// Where.
    pub environment: EnvironmentName,
    /// Why, one line each.
    pub reasons: Vec<String>,
    /// What to do about it, for people: commands, and what no command does.
    pub remedies: Vec<String>,
    /// The refused promotion, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// Which artefact would be deployed, and what it needs to know about its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The artefact.
    pub artefact: Artefact,
    /// Its contract.
    pub contract: Contract,
    /// The environment's values file, relative to the project file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// The target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whether the environment is the beginning of the pipeline.
    pub first: bool,
}

/// Finds out what a deployment needs, without recording anything. Without a version: the newest that was promoted.
pub async fn plan(
    store: &Store,
    component: &ComponentName,
    version: Option<&VersionWord>,
    environment: &EnvironmentName,
    now: Timestamp,
) -> Result<Plan, EngineError> {
    let mut conn = store.reader().await?;
    let in_force = pipeline::get(store, &mut conn, component).await?;
    let binding = pipeline::binding(&in_force, environment)?.clone();
    let Some(artefact) = promote::wanted(&mut conn, component, version, environment, now).await? else {
        return Err(EngineError::not_found(format!(
            "nothing of {component} was promoted to {environment} yet"
        ))
        .with_hint(format!(
            "semel versions -c {component}   and then   semel deploy VERSION {environment} -c {component}"
        )));
    };
    artefact.require_bytes()?;
    let (_, manifest) = artefact::manifest(store, &mut conn, component, &artefact.digest).await?;
    let contract = artefact::contract(&artefact.digest, &manifest)?;
    let (values, target, first) = (binding.values, binding.target, binding.after.is_empty());
    Ok(Plan { artefact, contract, values, target, first })
}

/// Checks a deployment against every rule and records the intent, or the refusal.
pub async fn start(
    store: &Store,
    who: &Actor,
    request: Start,
    now: Timestamp,
) -> Result<Started, EngineError> {
    let word: VersionWord = request.version.parse().map_err(|e| EngineError::precondition(format!("{e}")))?;
    let mut turn = store.turn().await?;
    let artefact = artefact::find(turn.db(), &request.component, &word, now).await?;
    promote::check_expected(&artefact, request.expect.as_ref())?;
    artefact.require_bytes()?;
    let in_force = pipeline::get(store, turn.db(), &request.component).await?;
    let mut batch = Batch::new(who, now);
    let intent = match judge(store, &mut turn, &mut batch, &artefact, &request, &in_force, now).await? {
        Ok(intent) => intent,
        Err(refusal) => return refuse(turn, batch, refusal).await,
    };
    let (manifest, _) = artefact::manifest(store, turn.db(), &artefact.component, &artefact.digest).await?;
    let place = place_in_order(&mut turn, &request, &intent.key).await?;
    settle(&mut batch, place.unsettled);
    if place.fresh {
        batch.change(Change::DeploymentStarted(DeploymentStarted {
            component: request.component,
            environment: request.environment.clone(),
            generation: place.generation,
            key: intent.key.clone(),
            digest: artefact.digest.clone(),
            version: artefact.version.clone(),
            config: intent.config.clone(),
            target: intent.target_digest,
            decision: intent.decision.clone(),
            rollback_of: request.rollback_of,
        }));
    }
    turn.append(batch.into_leaves()).await?;
    Ok(Started::Go(Order {
        artefact,
        media_type: manifest.media_type,
        environment: request.environment,
        generation: place.generation,
        key: intent.key,
        config: intent.config,
        target: intent.target,
        decision: intent.decision,
        current: place.current,
        promoted: intent.promoted,
    }))
}

/// A deployment that every rule allows.
struct Intent {
    key: Digest,
    config: Digest,
    target: Target,
    target_digest: Digest,
    decision: Digest,
    promoted: bool,
}

/// Asks every rule, in the order in which their answers help most.
async fn judge(
    store: &Store,
    turn: &mut Turn,
    batch: &mut Batch,
    artefact: &Artefact,
    request: &Start,
    in_force: &InForce,
    now: Timestamp,
) -> Result<Result<Intent, Refusal>, EngineError> {
    let target = target(in_force, &request.environment)?;
    if let Some(refusal) = refused_here(turn, artefact, request).await? {
        return Ok(Err(refusal));
    }
    let snapshot = match &request.config {
        Config::Snapshot(snapshot) => snapshot,
        Config::Problems(problems) => return Ok(Err(bad_config(artefact, request, problems))),
    };
    if let Some(problems) = check_snapshot(store, turn, artefact, snapshot).await? {
        return Ok(Err(bad_config(artefact, request, &problems)));
    }
    let Allowed { decision, promoted } =
        match permission(store, turn, batch, artefact, request, in_force, now).await? {
            Ok(allowed) => allowed,
            Err(decision) => return Ok(Err(not_promoted(artefact, request, *decision))),
        };
    let (config, target_digest) = (put_document(store, snapshot)?, put_document(store, &target)?);
    let key = KeyInputs {
        v: 1,
        environment: request.environment.clone(),
        component: request.component.clone(),
        target: target_digest.clone(),
        artefact: artefact.digest.clone(),
        config: config.clone(),
        restart: request.restart,
    }
    .key();
    if let Some(refusal) = rejected_key(turn, artefact, request, &key).await? {
        return Ok(Err(refusal));
    }
    Ok(Ok(Intent { key, config, target, target_digest, decision, promoted }))
}

fn target(in_force: &InForce, environment: &EnvironmentName) -> Result<Target, EngineError> {
    let binding = pipeline::binding(in_force, environment)?;
    binding.target.clone().ok_or_else(|| {
        EngineError::precondition(format!("{environment} has no target: it is only decided about")).with_hint(
            format!(
                "semel resolve {environment} -c {}   or give it one in semel.toml: target = {{ kind = \"directory\" }}",
                in_force.component
            ),
        )
    })
}

async fn refuse(turn: Turn, mut batch: Batch, refusal: Refusal) -> Result<Started, EngineError> {
    batch.change(Change::DeploymentRefused(DeploymentRefused {
        component: refusal.artefact.component.clone(),
        environment: refusal.environment.clone(),
        digest: refusal.artefact.digest.clone(),
        reasons: brief(&refusal.reasons),
    }));
    turn.append(batch.into_leaves()).await?;
    Ok(Started::Refused(refusal))
}

/// The reasons as they are recorded: an entry stays small, however many there are.
fn brief(reasons: &[String]) -> Vec<String> {
    const MOST: usize = 20;
    let mut brief: Vec<String> =
        reasons.iter().take(MOST).map(|reason| reason.chars().take(300).collect()).collect();
    if reasons.len() > MOST {
        brief.push(format!("and {} more", reasons.len() - MOST));
    }
    brief
}

fn refusal(artefact: &Artefact, request: &Start, reasons: Vec<String>, remedies: Vec<String>) -> Refusal {
    let (artefact, environment) = (artefact.clone(), request.environment.clone());
    Refusal { artefact, environment, reasons, remedies, decision: None }
}

/// Holds and rejections. A rollback may go past a hold, as it sets one itself, but only to what succeeded here (invariant I18).
async fn refused_here(
    turn: &mut Turn,
    artefact: &Artefact,
    request: &Start,
) -> Result<Option<Refusal>, EngineError> {
    let (component, environment) = (&request.component, &request.environment);
    if request.rollback_of.is_some() {
        if !ever_succeeded(turn, artefact, environment).await? {
            let reasons = vec![format!(
                "{} never succeeded in {environment}: a rollback cannot go there",
                artefact.name()
            )];
            return Ok(Some(refusal(
                artefact,
                request,
                reasons,
                vec![format!("semel history {environment} -c {component}")],
            )));
        }
    } else if let Some(hold) = deployment::hold(turn.db(), &request.component, environment).await? {
        let reasons = vec![format!("{environment} is held since {}: {}", hold.time, hold.reason)];
        return Ok(Some(refusal(
            artefact,
            request,
            reasons,
            vec![format!("semel resume {environment} -c {component}")],
        )));
    }
    let what = RejectedThing::Digest(artefact.digest.clone());
    let rejections = promotion::rejections(turn.db(), &request.component, &what, environment).await?;
    Ok(rejections.last().map(|rejection| {
        let reasons = vec![format!("{} was rejected: {}", artefact.name(), rejection.reason)];
        refusal(artefact, request, reasons, vec![format!("semel accept {component}@{}", request.version)])
    }))
}

async fn ever_succeeded(
    turn: &mut Turn,
    artefact: &Artefact,
    environment: &EnvironmentName,
) -> Result<bool, EngineError> {
    let successes = deployment::successes(turn.db(), &artefact.component, &artefact.digest).await?;
    Ok(successes.iter().any(|success| success.environment == *environment))
}

async fn rejected_key(
    turn: &mut Turn,
    artefact: &Artefact,
    request: &Start,
    key: &Digest,
) -> Result<Option<Refusal>, EngineError> {
    let what = RejectedThing::Key(key.clone());
    let rejections =
        promotion::rejections(turn.db(), &request.component, &what, &request.environment).await?;
    Ok(rejections.last().map(|rejection| {
        let reasons = vec![format!(
            "{} failed in {} with exactly this configuration: {}",
            artefact.name(),
            request.environment,
            rejection.reason
        )];
        let remedies = vec![
            format!("semel accept {}@{} {}", request.component, request.version, request.environment),
            "a fix is a new version: semel build".to_owned(),
        ];
        refusal(artefact, request, reasons, remedies)
    }))
}

fn bad_config(artefact: &Artefact, request: &Start, problems: &[Problem]) -> Refusal {
    let reasons = problems.iter().map(ToString::to_string).collect();
    let mut remedies: Vec<String> =
        problems.iter().map(|problem| of_component(&problem.remedy, &request.component)).collect();
    remedies.dedup();
    refusal(artefact, request, reasons, remedies)
}

/// A remedy that ends with a command names the component, so that it can be pasted anywhere.
fn of_component(remedy: &str, component: &ComponentName) -> String {
    match remedy.contains("semel ") {
        true => format!("{remedy} -c {component}"),
        false => remedy.to_owned(),
    }
}

fn not_promoted(artefact: &Artefact, request: &Start, decision: Decision) -> Refusal {
    let reasons = decision.closed().map(|gate| format!("{}: {}", gate.gate, gate.reason)).collect();
    let remedies = decision.closed().filter_map(|gate| gate.remedy.as_ref());
    let remedies = remedies.map(|remedy| format!("semel {}", remedy.command)).collect();
    Refusal { decision: Some(decision), ..refusal(artefact, request, reasons, remedies) }
}

/// The contract is satisfied before a target is touched (invariant I14). Secrets were checked where they are.
async fn check_snapshot(
    store: &Store,
    turn: &mut Turn,
    artefact: &Artefact,
    snapshot: &Snapshot,
) -> Result<Option<Vec<Problem>>, EngineError> {
    let (_, manifest) = artefact::manifest(store, turn.db(), &artefact.component, &artefact.digest).await?;
    let contract = artefact::contract(&artefact.digest, &manifest)?;
    Ok(semel_model::config::check_snapshot(&contract, snapshot).err())
}

struct Allowed {
    decision: Digest,
    promoted: bool,
}

/// No proof, no run (invariant I5): a grant that holds, one that is made now, or, for a rollback, the proof kept with what
/// succeeded here.
async fn permission(
    store: &Store,
    turn: &mut Turn,
    batch: &mut Batch,
    artefact: &Artefact,
    request: &Start,
    in_force: &InForce,
    now: Timestamp,
) -> Result<Result<Allowed, Box<Decision>>, EngineError> {
    if request.rollback_of.is_some()
        && let Some(grant) =
            promotion::grant(turn.db(), &artefact.component, &request.environment, &artefact.digest).await?
    {
        return Ok(Ok(Allowed { decision: grant.decision, promoted: false }));
    }
    let decision = promote::evaluate(turn.db(), artefact, &request.environment, in_force, now).await?;
    if decision.is_granted()
        && let Some((digest, _)) =
            promote::granted_before(store, turn.db(), artefact, &request.environment, in_force).await?
    {
        return Ok(Ok(Allowed { decision: digest, promoted: false }));
    }
    let digest = promote::record(store, turn.db(), batch, artefact, &decision).await?;
    if decision.is_granted() {
        Ok(Ok(Allowed { decision: digest, promoted: true }))
    } else {
        Ok(Err(Box::new(decision)))
    }
}

struct PlaceInOrder {
    generation: u64,
    /// Whether an intent has to be recorded.
    fresh: bool,
    /// Whether this deployment succeeded before and is the newest.
    current: bool,
    /// An earlier intent without outcome.
    unsettled: Option<Deployment>,
}

/// Deployments of a binding are totally ordered (invariant I17). The same key as the newest one is the same deployment, unless
/// the target has come further than the store knows.
async fn place_in_order(turn: &mut Turn, request: &Start, key: &Digest) -> Result<PlaceInOrder, EngineError> {
    let newest = deployment::list(turn.db(), &request.component, &request.environment, 1).await?.pop();
    let further = unknown_here(request, newest.as_ref())?;
    let Some(newest) = newest else {
        let generation = further.map_or(1, |there| there + 1);
        return Ok(PlaceInOrder { generation, fresh: true, current: false, unsettled: None });
    };
    let next = newest.generation.max(further.unwrap_or(0)) + 1;
    let running = running_generation(turn, request, &newest).await?;
    let is_same = newest.key == *key && newest.rollback_of == request.rollback_of && further.is_none();
    match newest.state {
        DeploymentState::Started if is_same => {
            Ok(PlaceInOrder { generation: newest.generation, fresh: false, current: false, unsettled: None })
        }
        DeploymentState::Started => {
            Ok(PlaceInOrder { generation: next, fresh: true, current: false, unsettled: Some(newest) })
        }
        _ => match running {
            Some(running)
                if running.key == *key && running.generation == newest.generation && further.is_none() =>
            {
                Ok(PlaceInOrder {
                    generation: running.generation,
                    fresh: false,
                    current: true,
                    unsettled: None,
                })
            }
            _ => Ok(PlaceInOrder { generation: next, fresh: true, current: false, unsettled: None }),
        },
    }
}

/// The generation that the target has come to, if this store gave it to something else or to nothing.
fn unknown_here(request: &Start, newest: Option<&Deployment>) -> Result<Option<u64>, EngineError> {
    let Some(there) = &request.newest else { return Ok(None) };
    if there.generation > GENERATION_MAX {
        return Err(EngineError::invalid(format!("{} is no generation", there.generation)));
    }
    let is_known = newest.is_some_and(|newest| {
        (there.generation, &there.key) == (newest.generation, &newest.key)
            || there.generation < newest.generation
    });
    Ok((!is_known).then_some(there.generation))
}

async fn running_generation(
    turn: &mut Turn,
    request: &Start,
    newest: &Deployment,
) -> Result<Option<Deployment>, EngineError> {
    if newest.state == DeploymentState::Succeeded {
        return Ok(Some(newest.clone()));
    }
    Ok(deployment::nth_success(turn.db(), &request.component, &request.environment, 0).await?)
}

fn settle(batch: &mut Batch, unsettled: Option<Deployment>) {
    if let Some(broken_off) = unsettled {
        batch.change(Change::DeploymentFailed(DeploymentFailed {
            component: broken_off.component,
            environment: broken_off.environment,
            generation: broken_off.generation,
            outcome: FailedOutcome::Errored,
            reason: "broken off: no outcome was reported before the next deployment began".to_owned(),
            restored: None,
        }));
    }
}

/// The snapshot of a deployment.
pub(crate) fn snapshot(store: &Store, deployment: &Deployment) -> Result<Snapshot, EngineError> {
    read_document(store, &deployment.config)
}

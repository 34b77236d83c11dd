//! Promote: may this artefact run there? The decision is pure; here its inputs are gathered and its outcome recorded.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, PromotionDecided, RejectedThing};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::promotion::{Decision, Inputs, decide};
use semel_model::statement::Statement;
use semel_model::version::VersionWord;
use semel_store::Store;
use semel_store::keys::Role;
use semel_store::projections::{deployment, evidence, promotion};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artefact::{self, Artefact};
use crate::batch::{Batch, put_document, read_document};
use crate::error::EngineError;
use crate::pipeline::{self, InForce};

/// Asks for a promotion.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Which component.
    pub component: ComponentName,
    /// Which of its artefacts, as a person writes it.
    pub version: String,
    /// Where it is to run.
    pub environment: EnvironmentName,
    /// Only say what would be decided.
    #[serde(default)]
    pub plan: bool,
    /// The digest that the words must resolve to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Digest>,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Promoted {
    /// Which artefact.
    pub artefact: Artefact,
    /// Where.
    pub environment: EnvironmentName,
    /// The decision with all of its inputs.
    pub decision: Decision,
    /// The digest of the decision document.
    pub digest: Digest,
    /// Whether it was granted before, under the same policy.
    pub already: bool,
    /// Whether it was recorded; a plan is not.
    pub recorded: bool,
}

/// The predicate type of a promotion (SLSA verification summary).
pub const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";

/// Decides, and records the decision whichever way it goes. What is granted already under the policy in force stays granted.
pub async fn promote(
    store: &Store,
    who: &Actor,
    request: Promote,
    now: Timestamp,
) -> Result<Promoted, EngineError> {
    let word: VersionWord = request.version.parse().map_err(|e| EngineError::precondition(format!("{e}")))?;
    let mut turn = store.turn().await?;
    let artefact = artefact::find(turn.db(), &request.component, &word, now).await?;
    check_expected(&artefact, request.expect.as_ref())?;
    artefact.require_bytes()?;
    let in_force = pipeline::get(store, turn.db(), &request.component).await?;
    let decision = evaluate(turn.db(), &artefact, &request.environment, &in_force, now).await?;
    let promoted = |decision: Decision, digest, already, recorded| Promoted {
        artefact: artefact.clone(),
        environment: request.environment.clone(),
        decision,
        digest,
        already,
        recorded,
    };
    if request.plan {
        let digest = decision.digest();
        return Ok(promoted(decision, digest, false, false));
    }
    if decision.is_granted()
        && let Some((digest, before)) =
            granted_before(store, turn.db(), &artefact, &request.environment, &in_force).await?
    {
        return Ok(promoted(before, digest, true, true));
    }
    let mut batch = Batch::new(who, now);
    let digest = record(store, turn.db(), &mut batch, &artefact, &decision).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(promoted(decision, digest, false, true))
}

/// What was reviewed is what is promoted: the caller may name the digest that it means.
pub(crate) fn check_expected(artefact: &Artefact, expected: Option<&Digest>) -> Result<(), EngineError> {
    match expected {
        Some(expected) if *expected != artefact.digest => Err(EngineError::Conflict {
            what: format!("{} is {}, not {expected}", artefact.name(), artefact.digest),
            hint: Some("look at it again before you go on".to_owned()),
        }),
        _ => Ok(()),
    }
}

/// Gathers the inputs and decides.
pub(crate) async fn evaluate(
    conn: &mut Conn,
    artefact: &Artefact,
    environment: &EnvironmentName,
    in_force: &InForce,
    now: Timestamp,
) -> Result<Decision, EngineError> {
    let binding = pipeline::binding(in_force, environment)?;
    let about = evidence::about(conn, &artefact.component, &artefact.digest).await?;
    let rejected = RejectedThing::Digest(artefact.digest.clone());
    Ok(decide(Inputs {
        component: artefact.component.clone(),
        version: artefact.version.clone(),
        digest: artefact.digest.clone(),
        environment: environment.clone(),
        policy: in_force.digest.clone(),
        after: binding.after.clone(),
        gates: binding.gates.clone(),
        clock: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
        evidence: about.into_iter().map(|one| one.fact).collect(),
        successes: deployment::successes(conn, &artefact.component, &artefact.digest).await?,
        rejections: promotion::rejections(conn, &artefact.component, &rejected, environment).await?,
    }))
}

/// An earlier grant counts as long as the policy that it was given under is in force.
pub(crate) async fn granted_before(
    store: &Store,
    conn: &mut Conn,
    artefact: &Artefact,
    environment: &EnvironmentName,
    in_force: &InForce,
) -> Result<Option<(Digest, Decision)>, EngineError> {
    let Some(grant) = promotion::grant(conn, &artefact.component, environment, &artefact.digest).await?
    else {
        return Ok(None);
    };
    let decision: Decision = read_document(store, &grant.decision)?;
    Ok((decision.inputs.policy == in_force.digest).then_some((grant.decision, decision)))
}

/// Adds a decision to the batch: the document, and for a grant the signed summary that a target verifies offline.
pub(crate) async fn record(
    store: &Store,
    conn: &mut Conn,
    batch: &mut Batch,
    artefact: &Artefact,
    decision: &Decision,
) -> Result<Digest, EngineError> {
    let digest = put_document(store, decision)?;
    let mut body = PromotionDecided {
        component: artefact.component.clone(),
        version: artefact.version.clone(),
        digest: artefact.digest.clone(),
        environment: decision.inputs.environment.clone(),
        decision: digest.clone(),
        statement: None,
    };
    if decision.is_granted() {
        let (subject, _) = artefact::manifest(store, conn, &artefact.component, &artefact.digest).await?;
        let statement = summary(artefact, decision, &digest);
        let role = Role::Promoter(decision.inputs.environment.clone());
        let signed = batch.sign(store, &role, &artefact.component, &subject, &statement)?;
        body.statement = Some(signed.envelope);
        batch.change(Change::PromotionGranted(body));
    } else {
        batch.change(Change::PromotionRefused(body));
    }
    Ok(digest)
}

/// The verification summary of a granted promotion: it lists every piece of evidence that a gate rests on.
fn summary(artefact: &Artefact, decision: &Decision, digest: &Digest) -> Statement {
    let inputs = &decision.inputs;
    let level = inputs.environment.as_str().to_uppercase().replace('-', "_");
    let used: Vec<_> = decision
        .gates
        .iter()
        .filter_map(|gate| gate.rests_on.as_ref())
        .map(|envelope| json!({"digest": {"sha256": envelope.hex()}}))
        .collect();
    let predicate = json!({
        "verifier": {"id": "https://semel.dev/promoter/v1"},
        "timeVerified": inputs.clock,
        "resourceUri": format!("semel://{}/{}", inputs.environment, inputs.component),
        "policy": {"uri": "semel:pipeline", "digest": {"sha256": inputs.policy.hex()}},
        "inputAttestations": used,
        "verificationResult": "PASSED",
        "verifiedLevels": [format!("SEMEL_PROMOTED_{level}")],
        "slsaVersion": "1.2",
        "semel_decision": digest,
    });
    Statement::about(artefact.component.as_str(), &artefact.digest, SUMMARY, predicate)
}

/// A pinned reference, or the reasons why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Resolved {
    /// This may run there.
    Allowed {
        /// Which artefact.
        artefact: Artefact,
        /// Where its bytes can be had, besides this store.
        places: Vec<String>,
    },
    /// This may not.
    Refused {
        /// Which artefact, if one was named or found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        artefact: Option<Artefact>,
        /// Why, one line each.
        reasons: Vec<String>,
    },
}

/// What may run in an environment: a version that is named, or the newest that was granted. Changes nothing.
pub async fn resolve(
    store: &Store,
    component: &ComponentName,
    version: Option<&VersionWord>,
    environment: &EnvironmentName,
    now: Timestamp,
) -> Result<Resolved, EngineError> {
    let mut conn = store.reader().await?;
    let in_force = pipeline::get(store, &mut conn, component).await?;
    pipeline::binding(&in_force, environment)?;
    let Some(artefact) = wanted(&mut conn, component, version, environment, now).await? else {
        let reasons = vec![format!("nothing was promoted to {environment} yet")];
        return Ok(Resolved::Refused { artefact: None, reasons });
    };
    if let Some(hold) = deployment::hold(&mut conn, component, environment).await? {
        let reasons = vec![format!("{environment} is held: {}", hold.reason)];
        return Ok(Resolved::Refused { artefact: Some(artefact), reasons });
    }
    let decision = evaluate(&mut conn, &artefact, environment, &in_force, now).await?;
    let granted = granted_before(store, &mut conn, &artefact, environment, &in_force).await?.is_some();
    if !decision.is_granted() {
        let reasons = decision.closed().map(|gate| format!("{}: {}", gate.gate, gate.reason)).collect();
        return Ok(Resolved::Refused { artefact: Some(artefact), reasons });
    }
    if !granted {
        let reasons = vec![format!("{} was not promoted to {environment} yet", artefact.name())];
        return Ok(Resolved::Refused { artefact: Some(artefact), reasons });
    }
    let places = semel_store::projections::artefact::locations(&mut conn, &artefact.digest).await?;
    Ok(Resolved::Allowed { artefact, places: places.into_iter().map(|(place, _)| place).collect() })
}

/// The artefact that a word names, or the newest that was granted.
pub(crate) async fn wanted(
    conn: &mut Conn,
    component: &ComponentName,
    version: Option<&VersionWord>,
    environment: &EnvironmentName,
    now: Timestamp,
) -> Result<Option<Artefact>, EngineError> {
    if let Some(word) = version {
        return artefact::find(conn, component, word, now).await.map(Some);
    }
    let decisions = promotion::newest(conn, component, environment, 50).await?;
    match decisions.into_iter().find(|decision| decision.granted) {
        Some(grant) => artefact::by_digest(conn, component, &grant.digest).await.map(Some),
        None => Ok(None),
    }
}

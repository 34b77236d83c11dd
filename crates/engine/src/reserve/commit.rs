//! Commit: the result of a build, by who holds its lease, and what becomes of one that comes too late.
//!
//! ```text
//! the newest attempt, nothing committed → publish
//! the same result once more             → what was committed
//! an attempt that was replaced          → compared with what was committed, and recorded as evidence, if of the same commit
//! … and nothing committed               → refused: somebody else is building, or may
//! ```

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, EvidenceAttached, PartBuilt, VersionPublished};
use semel_model::name::CommitId;
use semel_model::pipeline::EvidenceResult;
use semel_model::reproducibility;
use semel_model::statement::{BUILD_TYPE, Claim, PROVENANCE, Statement, check_claims};
use semel_oci::descriptor::Descriptor;
use semel_store::Store;
use semel_store::keys::Role;
use semel_store::lease::{self, Lease};
use semel_store::ledger::Turn;
use semel_store::projections::build::{Build, Part};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::holding::{held_build, leased, require_log, taken_over};
use super::standing::provenance_of;
use super::{Built, BuiltPart, Holding, built, parts};
use crate::artefact;
use crate::batch::Batch;
use crate::build_log;
use crate::error::EngineError;
use crate::home;

/// A build's result.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The running build.
    #[serde(flatten)]
    pub holding: Holding,
    /// The artefact's manifest, stored before.
    pub digest: Digest,
    /// What the builder says about the artefact: its provenance, and every report once. Signed here.
    pub claims: Vec<Claim>,
    /// What the build printed, stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
}

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Committed {
    /// What is committed now, whoever did it.
    pub finished: Finished,
    /// How the result compares with it, when it came too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Comparison>,
}

/// A finished build, or a finished part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Finished {
    /// The artefact is published.
    Built(Built),
    /// The part is stored; the artefact is published with the last of them.
    Part(BuiltPart),
}

/// How a result that came too late compares with what was committed before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// What came.
    pub delivered: Digest,
    /// Whether it is what was committed: then the build was reproduced. None: it was built from another commit with the same
    /// source tree, which is in the bytes, so that they say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduced: Option<bool>,
}

/// The commit that provenance of a build names as its source.
pub(crate) fn built_from(provenance: &Value) -> Option<CommitId> {
    let definition = provenance.get("buildDefinition").filter(|said| said["buildType"] == BUILD_TYPE)?;
    let used = definition["resolvedDependencies"].as_array()?;
    let source = used.iter().find(|one| one["name"] == "source")?;
    source["digest"]["gitCommit"].as_str()?.parse().ok()
}

/// Commits the result of a build, and signs and attaches what its builder says. Repeating it succeeds.
///
/// A claim becomes three leaves (the stored bundle, its signature, the evidence) that name the bytes by digest, so an append
/// holds at most three times [`CLAIMS_MAX`](semel_model::statement::CLAIMS_MAX) leaves and a few more.
pub async fn commit(
    store: &Store,
    who: &Actor,
    request: Commit,
    now: Timestamp,
) -> Result<Committed, EngineError> {
    check_claims(&request.claims).map_err(|error| EngineError::invalid(error.to_string()))?;
    let mut batch = Batch::new(who, now);
    attach_claims(store, &mut batch, &request).await?;
    let mut turn = store.turn().await?;
    let build = held_build(turn.db(), &request.holding).await?;
    require_log(store, turn.db(), &build.component, request.log.as_ref()).await?;
    let parts = parts::stored(turn.db(), &build).await?;
    let lease = lease::by_token(turn.db(), leased(&build, &request.holding), &request.holding.token).await?;
    let newest = lease::newest(turn.db(), leased(&build, &request.holding)).await?;
    // A part that had gone and is built again: there is more to do than to compare it.
    let is_awaited = build.digest.is_none()
        && newest == lease
        && lease.as_ref().is_some_and(|lease| lease.delivered.is_none());
    let before = finished_before(&build, &parts, &request.holding).filter(|_| !is_awaited);
    match (before, lease) {
        (Some((committed, finished)), Some(lease)) if lease.delivered.as_ref() != Some(&request.digest) => {
            let late =
                compare(store, turn, &build, lease, &committed, &request, Batch::new(who, now)).await?;
            Ok(Committed { finished, late: Some(late) })
        }
        (Some((_, finished)), _) => Ok(Committed { finished, late: None }),
        (None, lease) => match lease.filter(|lease| newest.as_ref() == Some(lease)) {
            Some(lease) => publish(store, turn, &build, &parts, lease, &request, batch).await,
            None => Err(taken_over(&request.holding, newest.as_ref())),
        },
    }
}

/// What was committed before for what the caller has built, and how far the build is with it.
fn finished_before(build: &Build, parts: &[Part], holding: &Holding) -> Option<(Digest, Finished)> {
    let whole = |digest: &Digest| Finished::Built(built(build, build.version.clone(), digest.clone()));
    let Some(platform) = &holding.platform else {
        return build.digest.as_ref().map(|digest| (digest.clone(), whole(digest)));
    };
    let digest = parts.iter().find(|part| part.platform == *platform)?.digest.clone()?;
    let finished = match &build.digest {
        Some(published) => whole(published),
        None => Finished::Part(parts::built(build, platform.clone(), digest.clone(), parts)),
    };
    Some((digest, finished))
}

/// Signs what a builder says, before the turn: signing writes files.
async fn attach_claims(store: &Store, batch: &mut Batch, request: &Commit) -> Result<(), EngineError> {
    let mut reader = store.reader().await?;
    let component = &request.holding.component;
    let (subject, _) = artefact::manifest(store, &mut reader, component, &request.digest).await?;
    drop(reader);
    for claim in &request.claims {
        let log = request.log.clone().filter(|_| claim.predicate_type == PROVENANCE);
        attach(store, batch, &request.holding, &subject, claim.clone(), log)?;
    }
    Ok(())
}

fn attach(
    store: &Store,
    batch: &mut Batch,
    holding: &Holding,
    subject: &Descriptor,
    claim: Claim,
    attachment: Option<Digest>,
) -> Result<(), EngineError> {
    let component = &holding.component;
    let Claim { predicate_type, predicate, result } = claim;
    let statement = Statement::about(component.as_str(), &subject.digest, &predicate_type, predicate);
    let signed = batch.sign(store, &Role::Builder, component, subject, &statement)?;
    batch.change(Change::EvidenceAttached(EvidenceAttached {
        component: component.clone(),
        digest: subject.digest.clone(),
        envelope: signed.envelope,
        predicate_type,
        result,
        signer: signed.signer,
        environment: None,
        attachment,
    }));
    Ok(())
}

/// Binds the version to the result, or stores it as a part; the last part publishes the whole.
async fn publish(
    store: &Store,
    mut turn: Turn,
    build: &Build,
    parts: &[Part],
    lease: Lease,
    request: &Commit,
    mut batch: Batch,
) -> Result<Committed, EngineError> {
    home::refuse_foreign_home(store, turn.db(), &build.component).await?;
    artefact::manifest(store, turn.db(), &build.component, &request.digest).await?;
    let finished = match &request.holding.platform {
        None => {
            batch.change_first(version_of(build, &request.digest, request.log.clone()));
            Finished::Built(built(build, build.version.clone(), request.digest.clone()))
        }
        Some(platform) => {
            batch.change_first(Change::PartBuilt(PartBuilt {
                component: build.component.clone(),
                number: build.number,
                platform: platform.clone(),
                digest: request.digest.clone(),
                log: request.log.clone(),
            }));
            let parts = parts::with(parts, platform, &request.digest);
            match parts::assemble(store, &mut turn, build, &parts).await? {
                None => Finished::Part(parts::built(build, platform.clone(), request.digest.clone(), &parts)),
                Some(whole) => {
                    batch.change(whole.stored);
                    attach(store, &mut batch, &request.holding, &whole.index, whole.provenance, None)?;
                    batch.change(version_of(build, &whole.index.digest, request.log.clone()));
                    Finished::Built(built(build, build.version.clone(), whole.index.digest))
                }
            }
        }
    };
    let ended = Lease { until_millis: 0, delivered: Some(request.digest.clone()), ..lease };
    lease::set(turn.db(), leased(build, &request.holding), &ended).await?;
    build_log::forget(turn.db(), &request.holding).await?;
    turn.append(batch.into_leaves()).await?;
    Ok(Committed { finished, late: None })
}

fn version_of(build: &Build, digest: &Digest, log: Option<Digest>) -> Change {
    Change::VersionPublished(VersionPublished {
        component: build.component.clone(),
        version: build.version.clone(),
        digest: digest.clone(),
        number: Some(build.number),
        commit: Some(build.commit.clone()),
        log,
        source: None,
    })
}

/// Records whether a result that came too late is the one that was committed. Its bytes get no name.
async fn compare(
    store: &Store,
    mut turn: Turn,
    build: &Build,
    lease: Lease,
    committed: &Digest,
    request: &Commit,
    mut batch: Batch,
) -> Result<Comparison, EngineError> {
    let seen = Lease { delivered: Some(request.digest.clone()), ..lease.clone() };
    lease::set(turn.db(), leased(build, &request.holding), &seen).await?;
    let reproduced = *committed == request.digest;
    if !reproduced && is_of_another_commit(store, turn.db(), build, committed, request).await? {
        turn.append(batch.into_leaves()).await?;
        return Ok(Comparison { delivered: request.digest.clone(), reproduced: None });
    }
    // Its own bytes may be lost: they are what was built again.
    let subject = artefact::descriptor(turn.db(), &build.component, committed).await?;
    let claim = Claim {
        predicate_type: reproducibility::PREDICATE_TYPE.to_owned(),
        predicate: json!({
            "buildKey": build.key,
            "number": build.number,
            "attempt": lease.attempt,
            "platform": request.holding.platform,
            "committed": committed,
            "built": request.digest,
        }),
        result: if reproduced { EvidenceResult::Pass } else { EvidenceResult::Fail },
    };
    attach(store, &mut batch, &request.holding, &subject, claim, request.log.clone())?;
    turn.append(batch.into_leaves()).await?;
    Ok(Comparison { delivered: request.digest.clone(), reproduced: Some(reproduced) })
}

/// Whether a result was built from another commit than what was committed, as far as both say so.
async fn is_of_another_commit(
    store: &Store,
    conn: &mut Conn,
    build: &Build,
    committed: &Digest,
    request: &Commit,
) -> Result<bool, EngineError> {
    let said = request.claims.iter().find(|claim| claim.predicate_type == PROVENANCE);
    let known = provenance_of(store, conn, &build.component, committed).await?;
    let commits =
        said.and_then(|claim| built_from(&claim.predicate)).zip(known.as_ref().and_then(built_from));
    Ok(commits.is_some_and(|(one, other)| one != other))
}

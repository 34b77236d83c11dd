//! Attest: a result about an artefact, signed and linked to its digest.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, EvidenceAttached};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::pipeline::EvidenceResult;
use semel_model::reproducibility;
use semel_model::statement::{Envelope, Statement, predicate_type};
use semel_model::version::VersionWord;
use semel_oci::manifest::ParsedManifest;
use semel_store::Store;
use semel_store::keys::Role;
use semel_store::projections::evidence;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artefact::{self, Artefact};
use crate::batch::{Batch, read_document};
use crate::error::EngineError;
use crate::report;

/// A result to attach.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attest {
    /// Which component.
    pub component: ComponentName,
    /// Which of its artefacts, as a person writes it.
    pub version: String,
    /// The type: `junit`, `reproducibility`, `manual`, another short name, or a predicate type URI.
    #[serde(rename = "type")]
    pub kind: String,
    /// The result, where no report says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<EvidenceResult>,
    /// The report, stored as a blob before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Digest>,
    /// What it was made against, if it was an environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// A sentence of the person who attests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// For how long the same statement again is the same act repeated; later it is a new look at the artefact, which makes
/// evidence that had become too old for a gate young again.
const SAME_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// Evidence that is attached now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attached {
    /// About which artefact.
    pub artefact: Artefact,
    /// What it says.
    pub result: EvidenceResult,
    /// In one line.
    pub summary: String,
    /// The predicate type.
    pub predicate_type: String,
    /// The signed envelope.
    pub envelope: Digest,
    /// Whether exactly this was attached before.
    pub already: bool,
}

/// Signs a result and attaches it to an artefact. The same report again changes nothing.
pub async fn attest(
    store: &Store,
    who: &Actor,
    request: Attest,
    now: Timestamp,
) -> Result<Attached, EngineError> {
    let word: VersionWord = request.version.parse().map_err(|e| EngineError::precondition(format!("{e}")))?;
    let wanted = predicate_type(&request.kind)
        .ok_or_else(|| EngineError::precondition(format!("`{}` is no type of evidence", request.kind)))?;
    let found = read_result(store, &request)?;
    let mut turn = store.turn().await?;
    let artefact = artefact::find(turn.db(), &request.component, &word, now).await?;
    let (subject, manifest) =
        artefact::manifest(store, turn.db(), &artefact.component, &artefact.digest).await?;
    refuse_foreign_report(&found, &request.kind, &artefact, &manifest)?;
    let statement = Statement::about(artefact.component.as_str(), &artefact.digest, &wanted, found.predicate);
    if let Some(envelope) =
        attached_before(store, &mut turn, &artefact, &statement, request.environment.as_ref(), now).await?
    {
        let (result, summary) = (found.result, found.summary);
        return Ok(Attached { artefact, result, summary, predicate_type: wanted, envelope, already: true });
    }
    let mut batch = Batch::new(who, now);
    let signed = batch.sign(store, &Role::Evidence, &artefact.component, &subject, &statement)?;
    batch.change(Change::EvidenceAttached(EvidenceAttached {
        component: artefact.component.clone(),
        digest: artefact.digest.clone(),
        envelope: signed.envelope.clone(),
        predicate_type: wanted.clone(),
        result: found.result,
        signer: signed.signer,
        environment: request.environment,
        attachment: request.report,
    }));
    turn.append(batch.into_leaves()).await?;
    Ok(Attached {
        artefact,
        result: found.result,
        summary: found.summary,
        predicate_type: wanted,
        envelope: signed.envelope,
        already: false,
    })
}

struct Found {
    result: EvidenceResult,
    predicate: Value,
    summary: String,
}

fn read_result(store: &Store, request: &Attest) -> Result<Found, EngineError> {
    let comment = request.comment.clone().filter(|text| !text.is_empty());
    match (&request.report, request.kind.as_str()) {
        (Some(digest), "junit") => junit(store, digest, request),
        (None, "junit") if request.result.is_none() => {
            Err(EngineError::precondition("a junit result needs its report").with_hint(format!(
                "semel attest {}@{} --type junit results.xml",
                request.component, request.version
            )))
        }
        (Some(digest), reproducibility::NAME) => reproduction(store, digest, request),
        (attachment, _) => {
            let Some(result) = request.result else {
                let kind = &request.kind;
                let what = match attachment {
                    Some(_) => format!("a result of type {kind} cannot be read from a file"),
                    None => format!("nothing says what the result of type {kind} is"),
                };
                return Err(EngineError::precondition(what).with_hint("say it: --result pass, --result fail"));
            };
            let predicate = json!({
                "result": result,
                "comment": comment,
                "environment": request.environment,
                "attachment": attachment,
            });
            Ok(Found { result, predicate: without_nulls(predicate), summary: result.to_string() })
        }
    }
}

fn junit(store: &Store, digest: &Digest, request: &Attest) -> Result<Found, EngineError> {
    let parsed = report::junit(&read_report(store, digest)?)
        .map_err(|error| EngineError::invalid(error.to_string()))?;
    let result = parsed.result();
    refuse_other_result(request, result)?;
    let mut predicate = parsed.predicate();
    predicate["configuration"] = json!([{"name": "report", "digest": {"sha256": digest.hex()}}]);
    if let Some(environment) = &request.environment {
        predicate["semel_environment"] = json!(environment);
    }
    let summary =
        format!("{} passed, {} failed, {} skipped", parsed.passed, parsed.failed.len(), parsed.skipped);
    Ok(Found { result, predicate, summary })
}

/// A rebuild says its result itself.
fn reproduction(store: &Store, digest: &Digest, request: &Attest) -> Result<Found, EngineError> {
    let bytes = read_report(store, digest)?;
    let report =
        reproducibility::Report::parse(&bytes).map_err(|error| EngineError::invalid(error.to_string()))?;
    let result = report.result();
    refuse_other_result(request, result)?;
    Ok(Found { result, predicate: json!(report), summary: report.summary() })
}

fn read_report(store: &Store, digest: &Digest) -> Result<Vec<u8>, EngineError> {
    let size = store.blobs().size(digest)?;
    if size > report::REPORT_BYTES_MAX as u64 {
        return Err(EngineError::invalid(format!(
            "the report has {size} bytes, more than {}",
            report::REPORT_BYTES_MAX
        )));
    }
    Ok(store.blobs().read(digest)?)
}

fn refuse_other_result(request: &Attest, said: EvidenceResult) -> Result<(), EngineError> {
    if request.result.is_some_and(|claimed| claimed != said) {
        return Err(EngineError::precondition(format!("the report says {said}, --result says otherwise")));
    }
    Ok(())
}

/// A report about other bytes says nothing about these. Of an artefact for several platforms, each part counts.
fn refuse_foreign_report(
    found: &Found,
    kind: &str,
    artefact: &Artefact,
    manifest: &ParsedManifest,
) -> Result<(), EngineError> {
    let about = found.predicate.get("committed").and_then(Value::as_str);
    let mut own = [&artefact.digest].into_iter().chain(manifest.manifests.iter().map(|part| &part.digest));
    if kind != reproducibility::NAME || about.is_none() || own.any(|own| about == Some(own.as_str())) {
        return Ok(());
    }
    let about = about.unwrap_or_default();
    Err(EngineError::precondition(format!("the report is about {about}, not about {}", artefact.name())))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}

/// The envelope of the newest evidence of this type, if it says exactly the same.
async fn attached_before(
    store: &Store,
    turn: &mut semel_store::ledger::Turn,
    artefact: &Artefact,
    statement: &Statement,
    environment: Option<&EnvironmentName>,
    now: Timestamp,
) -> Result<Option<Digest>, EngineError> {
    let known = evidence::about(turn.db(), &artefact.component, &artefact.digest).await?;
    let newest = known.into_iter().rfind(|one| one.fact.predicate_type == statement.predicate_type);
    let recent =
        |one: &evidence::Evidence| now.as_millisecond() - one.fact.time.as_millisecond() < SAME_MILLIS;
    let Some(newest) = newest.filter(|one| one.fact.environment.as_ref() == environment && recent(one))
    else {
        return Ok(None);
    };
    let envelope: Envelope = read_document(store, &newest.fact.envelope)?;
    let key = store.keys().role_key(&Role::Evidence)?;
    Ok(envelope
        .verify(key.verifying_key())
        .is_ok_and(|said| said == *statement)
        .then_some(newest.fact.envelope))
}

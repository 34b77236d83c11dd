//! `semel evidence` and `semel sbom`: what is said about an artefact, word for word.

use semel_engine::look::evidence::Said;
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_model::statement::{SBOM, predicate_name};
use semel_server::api::calls::{Evidence, Inspect, Versions};
use serde_json::Value;

use super::{Outcome, component};
use crate::cli::{Cli, EvidenceArgs, SbomArgs, SbomFormat};
use crate::output::table;
use crate::report::{Exit, Failure};
use crate::session::Session;

pub(super) async fn run(args: &EvidenceArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = super::artefact(&args.version, cli, session)?;
    let Some(kind) = &args.kind else { return list(component, version, session).await };
    let said = read(component, version, kind, session).await?;
    session.output.json(if args.raw { &said.envelope } else { &said.predicate });
    Ok(Exit::Done)
}

/// The newest evidence of a type, whose signature verifies.
pub(super) async fn read(
    component: ComponentName,
    version: String,
    kind: &str,
    session: &Session,
) -> Result<Said, Failure> {
    let said = session.client.call(&Evidence { component, version, kind: kind.to_owned() }).await?;
    if said.evidence.verified {
        return Ok(said);
    }
    let name = said.artefact.name();
    Err(Failure::new(Exit::Verification, format!("the signature of the {kind} of {name} does not verify"))
        .because([format!("no key of this store signed the envelope {}", said.evidence.envelope)])
        .hint("semel audit verify"))
}

async fn list(component: ComponentName, version: String, session: &Session) -> Outcome {
    let found = session.client.call(&Inspect { component, version }).await?;
    let output = session.output;
    if output.is_json() {
        output.json(&serde_json::json!({ "artefact": found.artefact, "evidence": found.evidence }));
        return Ok(Exit::Done);
    }
    let rows = found.evidence.iter().map(|one| {
        let place = one.environment.as_ref().map(ToString::to_string).unwrap_or_default();
        let signature = if one.verified { "verifies" } else { "does NOT verify" };
        vec![one.kind.clone(), one.result.to_string(), place, one.time.to_string(), signature.to_owned()]
    });
    output.data(&table(&["TYPE", "RESULT", "ENVIRONMENT", "TIME", "SIGNATURE"], rows.collect()));
    Ok(Exit::Done)
}

/// `semel sbom`: the packages of an artefact, or the signed document.
pub(super) async fn sbom(args: &SbomArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = match &args.version {
        Some(version) => super::artefact(version, cli, session)?,
        None => newest(component(cli, session)?, session).await?,
    };
    let version = with_packages(&component, version, session).await?;
    let said = read(component, version, "sbom", session).await?;
    let output = session.output;
    if args.format == SbomFormat::Cyclonedx || output.is_json() {
        output.json(&said.predicate);
        return Ok(Exit::Done);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |one: &Value| {
        let licence = text(&one["licenses"][0]["license"]["name"]);
        let scope = if one["scope"] == "excluded" { ", for development" } else { "" };
        let found = format!("{}{scope}", text(&one["properties"][0]["value"]));
        let name = text(if one["purl"].is_string() { &one["purl"] } else { &one["bom-ref"] });
        vec![name, found, licence]
    };
    let rows: Vec<Vec<String>> =
        said.predicate["components"].as_array().into_iter().flatten().map(row).collect();
    output.data(&table(&["PACKAGE", "FOUND IN", "LICENCE"], rows));
    for one in said.predicate["metadata"]["properties"].as_array().into_iter().flatten() {
        output.warn(format!("not read: {}", text(&one["value"])));
    }
    Ok(Exit::Done)
}

/// What has the list of packages: the artefact, or of several parts the one for this machine, else the first.
async fn with_packages(
    component: &ComponentName,
    version: String,
    session: &Session,
) -> Result<String, Failure> {
    let ask = Inspect { component: component.clone(), version: version.clone() };
    let found = session.client.call(&ask).await?;
    if found.evidence.iter().any(|line| line.kind == predicate_name(SBOM)) {
        return Ok(version);
    }
    let host = Platform::host();
    let of_host = found.parts.iter().find(|part| part.platform.as_ref() == Some(&host));
    let Some(part) = of_host.or(found.parts.first()) else { return Ok(version) };
    let platform = part.platform.as_ref().map_or_else(|| "another platform".to_owned(), ToString::to_string);
    session.output.say(format!("the part of {} for {platform}, {}", found.artefact.name(), part.digest));
    Ok(part.digest.to_string())
}

async fn newest(component: ComponentName, session: &Session) -> Result<(ComponentName, String), Failure> {
    let found = session.client.call(&Versions { component: component.clone(), limit: 1 }).await?;
    match found.versions.first() {
        Some(line) => Ok((component, line.artefact.digest.to_string())),
        None => {
            Err(Failure::new(Exit::NotFound, format!("{component} has no version yet")).hint("semel build"))
        }
    }
}

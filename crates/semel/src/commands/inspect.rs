//! `semel inspect`

use semel_engine::artefact::Artefact;
use semel_engine::look::evidence::Said;
use semel_engine::look::versions::Inspection;
use semel_model::keep::Holder;
use semel_server::api::calls::Inspect;
use serde_json::Value;

use super::Outcome;
use crate::cli::{Cli, InspectArgs};
use crate::output::{Output, bytes, counted, table};
use crate::report::Exit;
use crate::session::Session;

pub(super) async fn run(args: &InspectArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, version) = super::artefact(&args.artefact.version, cli, session)?;
    let output = session.output;
    if args.provenance {
        let said = super::evidence::read(component, version, "provenance", session).await?;
        if output.is_json() {
            output.json(&said.predicate);
        } else {
            show_provenance(&said, output);
        }
        return Ok(Exit::Done);
    }
    let found = session.client.call(&Inspect { component, version }).await?;
    if output.is_json() {
        output.json(&found);
    } else if output.is_quiet() {
        output.data(&format!("{}@{}", found.artefact.component, found.artefact.digest));
    } else {
        show(&found, output);
    }
    Ok(Exit::Done)
}

fn show(found: &Inspection, output: Output) {
    let artefact = &found.artefact;
    let mut rows = vec![
        vec!["artefact".to_owned(), artefact.name()],
        vec!["digest".to_owned(), artefact.digest.to_string()],
        vec!["names".to_owned(), found.names.join(", ")],
        vec!["type".to_owned(), found.artifact_type.clone().unwrap_or_else(|| found.media_type.clone())],
        vec!["size".to_owned(), size(found)],
        vec!["home".to_owned(), format!("store {}", found.home)],
        vec!["state".to_owned(), state(artefact)],
    ];
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push(vec![name.to_owned(), value]);
        }
    };
    row("build", artefact.number.map(|number| number.to_string()));
    row("commit", artefact.commit.as_ref().map(ToString::to_string));
    let other = found.built_from.as_ref().filter(|commit| artefact.commit.as_ref() != Some(*commit));
    row("built from", other.map(|commit| format!("{commit}, which has the same source tree")));
    row("sandbox", found.sandbox.clone());
    row("published", artefact.published.clone());
    row("source", found.source.as_ref().map(ToString::to_string));
    for part in &found.parts {
        let platform = part.platform.as_ref().map_or_else(|| "other".to_owned(), ToString::to_string);
        row("part", Some(format!("{platform} {}", part.digest)));
    }
    for (place, verified) in &found.locations {
        row("also at", Some(format!("{place} (verified {verified})")));
    }
    for (key, rule) in &found.contract.0 {
        let secret = if rule.secret { ", secret" } else { "" };
        let need = match &rule.default {
            Some(default) => format!("default {default}"),
            None if rule.is_required() => "required".to_owned(),
            None => "optional".to_owned(),
        };
        row("needs", Some(format!("{key} ({}{secret}, {need})", rule.kind)));
    }
    for one in &found.evidence {
        let place = one.environment.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        let verified = if one.verified { "" } else { ", signature NOT verified" };
        row("evidence", Some(format!("{} = {}{place}, {}{verified}", one.kind, one.result, one.time)));
    }
    // That its own versions hold it is said by its names.
    for holder in found.holders.iter().filter(|holder| !matches!(holder, Holder::Version { .. })) {
        row("held by", Some(holder.to_string()));
    }
    let text = table(&["", ""], rows);
    output.data(text.trim_start_matches('\n').trim_start());
}

fn size(found: &Inspection) -> String {
    match found.parts.len() {
        0 => format!("{} in {}", bytes(found.bytes), counted(found.layers.len(), "layer")),
        parts => format!("{}; semel inspect DIGEST for each", counted(parts, "part")),
    }
}

/// How an artefact came about, a fact a line. What an importer or another builder left out is left out here.
fn show_provenance(said: &Said, output: Output) {
    let mut rows = vec![
        vec!["artefact".to_owned(), said.artefact.name()],
        vec!["signed".to_owned(), format!("{}, envelope {}", said.evidence.time, said.evidence.envelope)],
    ];
    let mut row = |name: &str, value: &Value| {
        if let Some(text) = said_plainly(value) {
            rows.push(vec![name.to_owned(), text]);
        }
    };
    let (definition, details) = (&said.predicate["buildDefinition"], &said.predicate["runDetails"]);
    row("kind of build", &definition["buildType"]);
    row("builder", &details["builder"]["id"]);
    row("semel", &details["builder"]["version"]["semel"]);
    row("began", &details["metadata"]["startedOn"]);
    row("finished", &details["metadata"]["finishedOn"]);
    let internal = &definition["internalParameters"];
    for (name, key) in [
        ("platform", "platform"),
        ("line", "line"),
        ("build key", "buildKey"),
        ("sandbox", "sandbox"),
        ("variables", "variables"),
        ("secrets", "secrets"),
        ("caches", "caches"),
        ("range", "range"),
    ] {
        row(name, &internal[key]);
    }
    for one in definition["resolvedDependencies"].as_array().into_iter().flatten() {
        row(&format!("used {}", one["name"].as_str().unwrap_or_default()), &one["digest"]);
    }
    for one in details["byproducts"].as_array().into_iter().flatten() {
        let what = if one["annotations"].is_null() { &one["digest"] } else { &one["annotations"] };
        row(&format!("made {}", one["name"].as_str().unwrap_or_default()), what);
    }
    let text = table(&["", ""], rows);
    output.data(text.trim_start_matches('\n').trim_start());
}

/// A value without brackets: `rustc 1.95.0, cargo 1.95.0`. None: there is nothing to say.
fn said_plainly(value: &Value) -> Option<String> {
    let joined = |parts: Vec<String>| Some(parts.join(", ")).filter(|text| !text.is_empty());
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => joined(items.iter().filter_map(said_plainly).collect()),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| Some(format!("{key} {}", said_plainly(value)?));
            joined(fields.iter().filter_map(field).collect())
        }
        other => Some(other.to_string()),
    }
}

/// What its name stands for: whether it should be used, and whether its bytes are here.
pub(super) fn state(artefact: &Artefact) -> String {
    match (&artefact.expired, &artefact.deprecated, &artefact.version) {
        (Some(gone), _, _) => {
            format!("expired {} by {}; pushing the same bytes brings it back", gone.time, gone.rule)
        }
        (None, Some(reason), _) => format!("deprecated: {reason}"),
        (None, None, Some(_)) => "published".to_owned(),
        (None, None, None) => "without a version".to_owned(),
    }
}

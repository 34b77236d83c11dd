//! Bom: the packages as a CycloneDX document.
//!
//! Source: CycloneDX 1.6 (ECMA-424), `bom-1.6.schema.json`. Everything in it follows from the artefact and its commit.

use jiff::Timestamp;
use semel_model::project::Kind;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::debian::Distribution;
use super::{Packages, Place, Sbom, SbomRequest, Seen};

/// Writes the document.
pub(super) fn document(request: &SbomRequest<'_>, packages: Packages) -> Sbom {
    let Packages { seen, distribution, more, unread } = packages;
    let mut unread: Vec<String> = unread.into_iter().collect();
    if more > 0 {
        unread.push(format!("{more} more packages"));
    }
    let mut components: Vec<Value> = distribution.iter().map(system).collect();
    components.extend(seen.iter().map(|(purl, seen)| component(purl, seen)));
    let subject = request.subject.as_str();
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(subject),
        "version": 1,
        "metadata": {
            "timestamp": Timestamp::from_second(request.committed_seconds).unwrap_or_default().to_string(),
            "tools": { "components": [{ "type": "application", "name": "semel", "version": request.semel }] },
            "component": {
                "type": if request.kind == Kind::Image { "container" } else { "application" },
                "bom-ref": subject,
                "name": request.component.as_str(),
                "hashes": [{ "alg": "SHA-256", "content": request.subject.hex() }],
            },
            "properties": unread.iter().map(|path| property("semel:unread", path)).collect::<Vec<_>>(),
        },
        "components": components,
    });
    if !unread.is_empty() {
        document["compositions"] = json!([{ "aggregate": "incomplete", "assemblies": [subject] }]);
    }
    Sbom { document, packages: seen.len(), unread }
}

/// A name-based UUID (RFC 9562, 5.5) in the namespace of URLs.
fn serial_number(subject: &str) -> String {
    let name = format!("https://semel.dev/sbom/{subject}");
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).urn().to_string()
}

fn system(distribution: &Distribution) -> Value {
    let mut system = json!({
        "type": "operating-system",
        "bom-ref": format!("os:{}", distribution.qualifier()),
        "name": distribution.id,
    });
    put(&mut system, "version", distribution.version.as_ref().map(|version| json!(version)));
    put(&mut system, "description", distribution.title.as_ref().map(|title| json!(title)));
    system
}

fn component(purl: &str, seen: &Seen) -> Value {
    let package = &seen.package;
    let found = match seen.place {
        Place::Artefact => "artefact",
        Place::Base => "base",
        Place::LockFile => "lock file",
    };
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "purl": purl,
        "properties": [property("semel:found", found)],
        "evidence": {
            "occurrences": seen.at.iter().map(|path| json!({ "location": path })).collect::<Vec<_>>(),
        },
    });
    put(&mut component, "group", package.namespace.as_ref().map(|group| json!(group)));
    put(&mut component, "version", package.version.as_ref().map(|version| json!(version)));
    put(&mut component, "scope", package.is_for_development.then(|| json!("excluded")));
    // By name: what packages write there is not always an SPDX expression.
    let licences = package.licence.as_ref().map(|name| json!([{ "license": { "name": name } }]));
    put(&mut component, "licenses", licences);
    component
}

fn put(value: &mut Value, key: &str, field: Option<Value>) {
    let object: Option<&mut Map<String, Value>> = value.as_object_mut();
    if let (Some(object), Some(field)) = (object, field) {
        object.insert(key.to_owned(), field);
    }
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

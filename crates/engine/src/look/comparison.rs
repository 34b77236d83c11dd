//! `semel diff VERSION VERSION`: what differs between two artefacts, as far as the ledger and documents say.
//!
//! Files are compared where somebody looks at them, not here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::name::ComponentName;
use semel_model::pipeline::EvidenceResult;
use semel_model::statement::{SBOM, predicate_name};
use semel_model::version::VersionWord;
use semel_oci::descriptor::Descriptor;
use semel_oci::files::TITLE;
use semel_oci::manifest::ParsedManifest;
use semel_oci::media_type;
use semel_store::Store;
use semel_store::projections::evidence;
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::commits::{self, Between, Commit};
use super::difference::contract_lines;
use super::versions::PlatformPart;
use crate::artefact::{self, Artefact};
use crate::error::EngineError;

/// The annotation that names the image below (image-spec 1.1, `annotations.md`).
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// No configuration of an image is longer, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What differs between two artefacts of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The first.
    pub from: Side,
    /// The second.
    pub to: Side,
    /// The commits between the two, newest first.
    pub commits: Vec<Commit>,
    /// Whether the second is the older one.
    pub backwards: bool,
    /// Packages, where both are described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<Vec<Changed>>,
    /// Keys of the contract that only one has, or that changed; none: one cannot be read any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Vec<String>>,
    /// What the configurations say about starting the artefact, and the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Vec<Changed>>,
    /// The newest result of each type of evidence.
    pub evidence: Vec<Changed>,
    /// What cannot be compared, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

impl Comparison {
    /// Whether both are the same bytes.
    pub fn is_identical(&self) -> bool {
        self.from.artefact.digest == self.to.artefact.digest
    }
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// The artefact.
    pub artefact: Artefact,
    /// Its layers, lowest first; none: its bytes are gone, or it is an index of several artefacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Layer>>,
    /// Its parts, where it is an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PlatformPart>,
}

/// A layer of an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// Its digest.
    pub digest: semel_model::digest::Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// The name of the file that it is, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Something that one of the two has, or that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// What.
    pub what: String,
    /// In the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// In the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Compares two artefacts of a component.
pub async fn compare(
    store: &Store,
    component: &ComponentName,
    first: &VersionWord,
    second: &VersionWord,
    now: Timestamp,
) -> Result<Comparison, EngineError> {
    let mut conn = store.reader().await?;
    let (first, second) = (
        artefact::find(&mut conn, component, first, now).await?,
        artefact::find(&mut conn, component, second, now).await?,
    );
    let a = Read::new(store, &mut conn, first).await?;
    let b = Read::new(store, &mut conn, second).await?;
    let are_built = a.artefact.number.is_some() && b.artefact.number.is_some();
    let between = match are_built {
        true => {
            let artefacts = [Some(&a.artefact), Some(&b.artefact)];
            commits::between(store, &mut conn, component, artefacts).await?
        }
        false => Between::default(),
    };
    let mut unknown: Vec<String> =
        [&a, &b].iter().filter_map(|read| read.artefact.gone()).map(|(what, _)| what).collect();
    if between.others > 0 {
        let older = if between.backwards { &b } else { &a };
        let (name, count) = (older.artefact.name(), between.others);
        unknown.push(format!("commits that only {name} has: {count}, on another branch"));
    }
    // A part of an index, which has no version, has no commits of its own either.
    if !are_built && (a.artefact.version.is_some() || b.artefact.version.is_some()) {
        unknown.push("the commits between them: they were not both built here".to_owned());
    }
    let packages = match (&a.packages, &b.packages) {
        (Some(a), Some(b)) => Some(changes(a, b)),
        _ => None,
    };
    // Each part has packages of its own.
    if packages.is_none() && (a.parts.is_empty() || b.parts.is_empty()) {
        unknown.push("packages: they do not both have a verified list of them".to_owned());
    }
    Ok(Comparison {
        backwards: between.backwards,
        contract: a.contract.as_ref().zip(b.contract.as_ref()).map(|(a, b)| contract_lines(a, b)),
        configuration: a.configuration.as_ref().zip(b.configuration.as_ref()).map(|(a, b)| changes(a, b)),
        evidence: changes(&a.evidence, &b.evidence),
        packages,
        commits: between.commits,
        unknown,
        from: a.side(),
        to: b.side(),
    })
}

/// An artefact with everything that is compared.
struct Read {
    artefact: Artefact,
    layers: Option<Vec<Layer>>,
    parts: Vec<PlatformPart>,
    contract: Option<semel_model::config::Contract>,
    configuration: Option<BTreeMap<String, String>>,
    packages: Option<BTreeMap<String, String>>,
    evidence: BTreeMap<String, String>,
}

impl Read {
    async fn new(store: &Store, conn: &mut Conn, artefact: Artefact) -> Result<Self, EngineError> {
        let manifest = match artefact.expired {
            None => Some(artefact::manifest(store, conn, &artefact.component, &artefact.digest).await?.1),
            // What was kept of it says something still.
            Some(_) => None,
        };
        let packages = match super::evidence::newest(store, conn, &artefact, SBOM).await {
            Err(_) if artefact.expired.is_some() => None,
            read => read?,
        };
        let is_whole = |manifest: &&ParsedManifest| !media_type::is_index(&manifest.media_type);
        Ok(Self {
            layers: manifest.as_ref().filter(is_whole).map(|manifest| layers(&manifest.layers)),
            parts: manifest.iter().flat_map(|one| &one.manifests).map(PlatformPart::from).collect(),
            contract: manifest.as_ref().map(|one| artefact::contract(&artefact.digest, one)).transpose()?,
            configuration: manifest.as_ref().map(|manifest| configuration(store, manifest)).transpose()?,
            packages: packages
                .filter(|said| said.evidence.verified)
                .map(|said| package_versions(&said.predicate)),
            evidence: results(conn, &artefact).await?,
            artefact,
        })
    }

    fn side(self) -> Side {
        Side { artefact: self.artefact, layers: self.layers, parts: self.parts }
    }
}

fn layers(layers: &[Descriptor]) -> Vec<Layer> {
    let layer = |layer: &Descriptor| Layer {
        digest: layer.digest.clone(),
        size: layer.size,
        media_type: layer.media_type.clone(),
        title: layer.annotations.get(TITLE).cloned(),
    };
    layers.iter().map(layer).collect()
}

/// The newest result of each type of evidence.
async fn results(conn: &mut Conn, artefact: &Artefact) -> Result<BTreeMap<String, String>, EngineError> {
    let all = evidence::about(conn, &artefact.component, &artefact.digest).await?;
    let result = |one: &evidence::Evidence| match one.fact.result {
        EvidenceResult::Info => "present".to_owned(),
        other => other.to_string(),
    };
    // Oldest first: the newest stays.
    Ok(all.iter().map(|one| (predicate_name(&one.fact.predicate_type).to_owned(), result(one))).collect())
}

/// What the configuration says about starting the artefact, one entry a variable, a label or a field.
fn configuration(store: &Store, manifest: &ParsedManifest) -> Result<BTreeMap<String, String>, EngineError> {
    let mut found = BTreeMap::new();
    if let Some(base) = manifest.annotations.get(BASE_DIGEST) {
        found.insert("base".to_owned(), base.clone());
    }
    let config = manifest.config.as_ref().filter(|config| config.size <= CONFIG_BYTES_MAX);
    let Some(config) = config else { return Ok(found) };
    let Ok(config) = serde_json::from_slice::<Value>(&store.blobs().read(&config.digest)?) else {
        return Ok(found);
    };
    for key in ["os", "architecture", "variant"].into_iter().chain(OF_OUR_KINDS) {
        let value = config.get(key).filter(|value| !value.is_null());
        found.extend(value.map(|value| (key.to_owned(), plain(value))));
    }
    for (key, value) in config["config"].as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("Env", Value::Array(variables)) => {
                let variables =
                    variables.iter().filter_map(Value::as_str).filter_map(|text| text.split_once('='));
                found.extend(variables.map(|(name, value)| (format!("Env {name}"), value.to_owned())));
            }
            ("Labels", Value::Object(labels)) => {
                found.extend(labels.iter().map(|(name, value)| (format!("label {name}"), plain(value))));
            }
            (_, Value::Null) => {}
            (key, value) => {
                found.insert(key.to_owned(), plain(value));
            }
        }
    }
    Ok(found)
}

/// What starts an archive, what it needs of its host, and what starts a serverless package.
const OF_OUR_KINDS: [&str; 4] = ["entrypoint", "needs", "runtime", "handler"];

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Package URLs without version and qualifiers, and the versions that are there.
fn package_versions(document: &Value) -> BTreeMap<String, String> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for component in document["components"].as_array().into_iter().flatten() {
        let Some(purl) = component["purl"].as_str() else { continue };
        let bare = purl.split('?').next().unwrap_or(purl);
        let name = bare.split('@').next().unwrap_or(bare);
        let version = component["version"].as_str().unwrap_or("without version");
        versions.entry(name.to_owned()).or_default().insert(version.to_owned());
    }
    let joined = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(", ");
    versions.into_iter().map(|(name, all)| (name, joined(all))).collect()
}

/// What differs, in the order of the names.
fn changes(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<Changed> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let changed = |name: &String| {
        let (from, to) = (a.get(name), b.get(name));
        (from != to).then(|| Changed { what: name.clone(), from: from.cloned(), to: to.cloned() })
    };
    names.into_iter().filter_map(changed).collect()
}

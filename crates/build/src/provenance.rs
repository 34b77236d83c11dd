//! Provenance: how an artefact came about, as an SLSA predicate.
//!
//! Source: SLSA 1.0, "Provenance" (<https://slsa.dev/spec/v1.0/provenance>). It names no person and no machine: authors
//! are in the ledger under pseudonyms, and paths of the host would tell a user's name, so of the variables that a
//! command saw only the names are kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;
use semel_model::canonical;
use semel_model::digest::{Algorithm, Digest, Hasher};
use semel_model::name::{CommitId, ComponentName};
use semel_model::platform::Platform;
use semel_model::statement::BUILD_TYPE;
use semel_model::version::Version;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::package::Packaged;
use crate::recipe::RunReport;
use crate::sbom;
use crate::source::Source;

/// Who builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderInfo {
    /// A URI that says who is trusted here, such as `https://semel.dev/builder/local`.
    pub id: String,
    /// The version of the program.
    pub version: String,
    /// The digest of the running program: it packaged the artefact, and commands could call it.
    pub program: Digest,
}

/// The commits that an artefact has beyond the version before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The version before it.
    pub follows: Option<Version>,
    /// The commits since then, newest first.
    pub commits: Vec<CommitId>,
    /// The pseudonyms of their authors, each once.
    pub authors: Vec<String>,
}

/// Everything that provenance is made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The source.
    pub source: &'a Source,
    /// How the commands ran.
    pub report: &'a RunReport,
    /// What earlier builds gave it.
    pub caches: &'a [Cache],
    /// What came out.
    pub packaged: &'a Packaged,
    /// The manifest of the source snapshot, if one is kept.
    pub snapshot: Option<&'a Digest>,
    /// What it runs on.
    pub platform: &'a Platform,
    /// Who built.
    pub builder: &'a BuilderInfo,
    /// The commits since the previous version, where they are known.
    pub range: Option<&'a Range>,
    /// When the build began.
    pub started: Timestamp,
    /// When the artefact was packaged.
    pub finished: Timestamp,
}

/// The digest of a file on the disk, such as the running program.
pub fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            some => hasher.update(&buffer[..some]),
        }
    }
}

/// The predicate.
pub fn predicate(facts: &Facts<'_>) -> Value {
    let source = facts.source;
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "component": source.project.component,
                "definition": source.project.definition,
            },
            "internalParameters": {
                "buildKey": source.key(),
                "sandbox": sandbox(facts.report),
                "variables": facts.report.variables,
                "secrets": facts.report.secrets,
                "caches": facts.caches.iter().map(cache).collect::<Vec<_>>(),
                "line": source.line.name(),
                "platform": facts.platform,
                "range": facts.range.map(range),
            },
            "resolvedDependencies": dependencies(facts),
        },
        "runDetails": {
            "builder": { "id": facts.builder.id, "version": { "semel": facts.builder.version } },
            "metadata": {
                "startedOn": to_seconds(facts.started),
                "finishedOn": to_seconds(facts.finished),
            },
            "byproducts": byproducts(facts),
        },
    })
}

fn byproducts(facts: &Facts<'_>) -> Vec<Value> {
    let named = |name: &str, digest: &Digest| json!({ "name": name, "digest": digest_set(digest) });
    let mut byproducts =
        vec![named("build.log", &facts.report.log_digest), named("config", &facts.packaged.config)];
    byproducts.extend(facts.snapshot.map(|snapshot| named("source", snapshot)));
    byproducts.extend(toolchain(&facts.report.toolchain));
    byproducts
}

/// The tools that were there. They are a finding and no input: the key of a build does not know them.
fn toolchain(versions: &BTreeMap<String, String>) -> Option<Value> {
    let digest = Digest::of(&canonical::bytes(versions));
    let found = json!({ "name": "toolchain", "digest": digest_set(&digest), "annotations": versions });
    (!versions.is_empty()).then_some(found)
}

/// What held the commands back, and what did not.
fn sandbox(report: &RunReport) -> Value {
    let sandbox = &report.sandbox;
    let mut said = json!({
        "level": sandbox.level().as_str(),
        "network": report.network,
        "notEnforced": sandbox.not_enforced(),
    });
    if let Some(abi) = sandbox.landlock_abi() {
        said["landlockAbi"] = json!(abi);
    }
    said
}

fn cache(cache: &Cache) -> Value {
    json!({ "path": cache.path, "warm": cache.warm })
}

/// What `externalParameters` mean: an artefact that something else built, and the commit that its importer names.
pub const IMPORT_TYPE: &str = "https://semel.dev/import/v1";

/// Everything that the provenance of an import is made of. How the artefact came about is not known here.
#[derive(Debug, Clone, Copy)]
pub struct ImportFacts<'a> {
    /// The component.
    pub component: &'a ComponentName,
    /// The commit that it was built from, which its importer claims.
    pub commit: &'a CommitId,
    /// In which form it came, such as `oci-archive`.
    pub format: &'a str,
    /// The artefact.
    pub artefact: &'a Digest,
    /// The id that it had, where its bytes had to be changed.
    pub image_id: Option<&'a Digest>,
    /// Why the commit got another artefact than it had.
    pub again: Option<&'a str>,
    /// The version of the program that imported it.
    pub program_version: &'a str,
    /// When.
    pub time: Timestamp,
}

/// The predicate of an import.
pub fn imported(facts: &ImportFacts<'_>) -> Value {
    let mut imported = json!({ "format": facts.format, "digest": digest_set(facts.artefact) });
    if let Some(id) = facts.image_id {
        imported["image_id"] = json!(id);
    }
    if let Some(reason) = facts.again {
        imported["again"] = json!(reason);
    }
    json!({
        "buildDefinition": {
            "buildType": IMPORT_TYPE,
            "externalParameters": { "component": facts.component, "imported": imported },
            "resolvedDependencies": [{
                "name": "source",
                "uri": format!("git:{}", facts.commit),
                "digest": { "gitCommit": facts.commit },
            }],
        },
        "runDetails": {
            "builder": {
                "id": "https://semel.dev/importer/local/v1",
                "version": { "semel": facts.program_version },
            },
            "metadata": { "finishedOn": to_seconds(facts.time) },
        },
    })
}

fn range(range: &Range) -> Value {
    json!({ "follows": range.follows, "commits": range.commits, "authors": range.authors })
}

fn dependencies(facts: &Facts<'_>) -> Vec<Value> {
    let source = facts.source;
    let uri = source.remote.as_ref().map(|remote| format!("git+{remote}@{}", source.commit));
    let mut dependencies = vec![
        json!({
            "name": "source",
            "uri": uri.unwrap_or_else(|| format!("git:{}", source.commit)),
            "digest": { "gitCommit": source.commit, "gitTree": source.git_tree },
            "annotations": { "sourceTree": source.source_tree(), "directory": source.prefix },
        }),
        json!({ "name": "semel", "digest": digest_set(&facts.builder.program) }),
    ];
    if let Some(base) = source.project.definition.base_digest() {
        dependencies.push(json!({ "name": "base", "digest": digest_set(&base) }));
    }
    dependencies.extend(
        sbom::lock_files(&source.entries)
            .map(|(entry, path, _)| json!({ "name": path, "digest": { "gitBlob": entry.object } })),
    );
    dependencies
}

fn digest_set(digest: &Digest) -> Value {
    json!({ digest.algorithm().as_str(): digest.hex() })
}

/// SLSA asks for RFC 3339; fractions of a second say nothing here.
fn to_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

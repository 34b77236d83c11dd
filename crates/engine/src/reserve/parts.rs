//! The parts of a build for several platforms, and the index that the last of them makes an artefact of.

use semel_model::digest::Digest;
use semel_model::entry::{Change, ManifestStored};
use semel_model::platform::Platform;
use semel_model::statement::Claim;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::Index;
use semel_store::Store;
use semel_store::ledger::Turn;
use semel_store::projections::artefact as artefacts;
use semel_store::projections::build::{self, Build, Part};
use semel_store::sql::Conn;
use serde_json::{Value, json};

use super::{BuiltPart, SourceDocument};
use crate::artefact;
use crate::batch::read_document;
use crate::error::EngineError;

/// What an index's provenance says it is: made of parts that each have a provenance of their own.
const INDEX_BUILD_TYPE: &str = "https://semel.dev/build/index/v1";
/// Who makes the index: the store, when the last part comes.
const INDEX_BUILDER: &str = "https://semel.dev/builder/store/v1";

/// An index that is stored and about to be recorded.
pub(super) struct Whole {
    pub(super) index: Descriptor,
    pub(super) stored: Change,
    pub(super) provenance: Claim,
}

/// A finished part, as its builder hears of it.
pub(super) fn built(build: &Build, platform: Platform, digest: Digest, parts: &[Part]) -> BuiltPart {
    let is_missing = |wanted: &&Platform| **wanted != platform && digest_of(parts, wanted).is_none();
    BuiltPart {
        number: build.number,
        version: build.version.clone(),
        missing: build.platforms.iter().filter(is_missing).cloned().collect(),
        commit: build.commit.clone(),
        platform,
        digest,
    }
}

/// The parts of a build. Until the whole is published, one whose bytes have gone since is as good as not built.
pub(super) async fn stored(conn: &mut Conn, build: &Build) -> Result<Vec<Part>, EngineError> {
    let mut parts = build::parts(conn, &build.component, build.number).await?;
    for part in parts.iter_mut().filter(|_| build.digest.is_none()) {
        if let Some(digest) = &part.digest
            && artefacts::manifest(conn, &build.component, digest).await?.is_none()
        {
            part.digest = None;
        }
    }
    Ok(parts)
}

fn digest_of<'a>(parts: &'a [Part], platform: &Platform) -> Option<&'a Digest> {
    parts.iter().find(|part| part.platform == *platform)?.digest.as_ref()
}

/// The parts with one more that is built.
pub(super) fn with(parts: &[Part], platform: &Platform, digest: &Digest) -> Vec<Part> {
    let others = parts.iter().filter(|part| part.platform != *platform).cloned();
    let one = Part {
        platform: platform.clone(),
        digest: Some(digest.clone()),
        log: None,
        reason: None,
        actor: None,
    };
    others.chain([one]).collect()
}

/// The index of all parts, in the order of the project's list; none while a part is missing.
pub(super) async fn assemble(
    store: &Store,
    turn: &mut Turn,
    build: &Build,
    parts: &[Part],
) -> Result<Option<Whole>, EngineError> {
    let mut entries = Vec::with_capacity(build.platforms.len());
    let mut said: Vec<Annotations> = Vec::new();
    for platform in &build.platforms {
        let Some(digest) = digest_of(parts, platform) else { return Ok(None) };
        let (descriptor, parsed) = artefact::manifest(store, turn.db(), &build.component, digest).await?;
        let (artifact_type, platform) = (parsed.artifact_type, Some(platform.to_oci()));
        entries.push(Descriptor { artifact_type, platform, ..descriptor });
        said.push(parsed.annotations);
    }
    let provenance = provenance(build, &read_document(store, &build.source)?, &entries);
    let first = entries.first().and_then(|entry| entry.artifact_type.clone());
    let artifact_type = first.filter(|one| entries.iter().all(|it| it.artifact_type.as_ref() == Some(one)));
    let encoded =
        Index { artifact_type, manifests: entries, subject: None, annotations: alike(&said) }.encode();
    store.blobs().put(&encoded.bytes)?;
    let stored = Change::ManifestStored(ManifestStored {
        component: build.component.clone(),
        digest: encoded.descriptor.digest.clone(),
        media_type: encoded.descriptor.media_type.clone(),
        size: encoded.bytes.len() as u64,
        subject: None,
    });
    Ok(Some(Whole { index: encoded.descriptor, stored, provenance: Claim::provenance(provenance) }))
}

/// What all parts say in the same words: commit, time, contract.
fn alike(said: &[Annotations]) -> Annotations {
    let Some((first, others)) = said.split_first() else { return Annotations::new() };
    let in_all = |(key, value): &(&String, &String)| others.iter().all(|it| it.get(*key) == Some(*value));
    first.iter().filter(in_all).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// How an index came about: from which commit, and from which parts. Each part says the rest.
fn provenance(build: &Build, source: &SourceDocument, entries: &[Descriptor]) -> Value {
    let digest = |digest: &Digest| json!({ digest.algorithm().as_str(): digest.hex() });
    let parts = entries.iter().zip(&build.platforms).map(|(entry, platform)| {
        json!({ "name": platform, "digest": digest(&entry.digest), "mediaType": entry.media_type })
    });
    let commit = json!({
        "name": "source",
        "uri": format!("git:{}", source.commit),
        "digest": { "gitCommit": source.commit, "gitTree": source.tree },
        "annotations": { "sourceTree": source.inputs.source },
    });
    json!({
        "buildDefinition": {
            "buildType": INDEX_BUILD_TYPE,
            "externalParameters": { "component": build.component, "platforms": build.platforms },
            "internalParameters": { "buildKey": build.key, "line": source.line.name() },
            "resolvedDependencies": std::iter::once(commit).chain(parts).collect::<Vec<_>>(),
        },
        "runDetails": { "builder": { "id": INDEX_BUILDER } },
    })
}

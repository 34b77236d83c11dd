//! The versions of a component, one of them in full, and whether its bytes are what they should be.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::config::Contract;
use semel_model::digest::Digest;
use semel_model::keep::Holder;
use semel_model::name::{CommitId, ComponentName, EnvironmentName};
use semel_model::pipeline::EvidenceResult;
use semel_model::platform::Platform;
use semel_model::statement::{Envelope, PROVENANCE, Statement, predicate_name};
use semel_model::version::VersionWord;
use semel_oci::descriptor::Descriptor;
use semel_store::Store;
use semel_store::projections::{artefact as artefacts, build, deployment, evidence};
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::batch::read_document;
use crate::component;
use crate::error::EngineError;
use crate::remove;
use crate::reserve;

/// A line of `semel versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionLine {
    /// The artefact.
    #[serde(flatten)]
    pub artefact: Artefact,
    /// Where it runs now, as far as deployments tell.
    pub environments: Vec<EnvironmentName>,
    /// The platforms that it was built for, where it has parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
}

/// The newest versions of a component, newest first.
pub async fn versions(
    store: &Store,
    name: &ComponentName,
    limit: u64,
) -> Result<Vec<VersionLine>, EngineError> {
    let mut conn = store.reader().await?;
    component::get(&mut conn, name).await?;
    let running = super::status::running(store, &mut conn, name).await?;
    let found = artefacts::versions(&mut conn, name, limit).await?;
    let numbers = || found.iter().filter_map(|published| published.number);
    let range = numbers().min().unwrap_or(0)..=numbers().max().unwrap_or(0);
    let platforms = build::platforms(&mut conn, name, range).await?;
    let lines = found.into_iter().map(|published| {
        let environments = running
            .iter()
            .filter(|(_, digest)| *digest == published.digest)
            .map(|(name, _)| name.clone())
            .collect();
        let platforms = published.number.and_then(|number| platforms.get(&number)).cloned();
        let platforms = platforms.unwrap_or_default();
        VersionLine { artefact: published.into(), environments, platforms }
    });
    Ok(lines.collect())
}

/// Everything about one artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inspection {
    /// The artefact.
    pub artefact: Artefact,
    /// All names that it has.
    pub names: Vec<String>,
    /// The media type of its manifest.
    pub media_type: String,
    /// The type of artefact, where it is no container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The bytes of its manifest and everything that it needs.
    pub bytes: u64,
    /// Its layers: digest and size.
    pub layers: Vec<Part>,
    /// Its parts, where it is an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PlatformPart>,
    /// Its annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Its configuration contract.
    pub contract: Contract,
    /// What is known about it.
    pub evidence: Vec<EvidenceLine>,
    /// Where its bytes are besides this store: place, and when that was verified.
    pub locations: Vec<(String, String)>,
    /// What its build printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// The source that it was built from, as far as its verified provenance names a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
    /// The commit whose files became its bytes, as far as its verified provenance says that it was built here. A commit with the
    /// same source tree may have given it its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_from: Option<CommitId>,
    /// What held the commands of its build back, as the provenance says: the level of the sandbox, and whether `run` had the
    /// network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The store that gives the component versions.
    pub home: String,
    /// What holds it: while one of these is there, its bytes stay.
    #[serde(default)]
    pub holders: Vec<Holder>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// One of the artefacts that an index lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlatformPart {
    /// What it runs on, where the index says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Its digest.
    pub digest: Digest,
}

impl From<&Descriptor> for PlatformPart {
    fn from(descriptor: &Descriptor) -> Self {
        let platform = descriptor.platform.as_ref().and_then(Platform::from_oci);
        Self { platform, digest: descriptor.digest.clone() }
    }
}

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceLine {
    /// Its type, short where it has a short name.
    pub kind: String,
    /// What it says.
    pub result: EvidenceResult,
    /// When it was attached.
    pub time: Timestamp,
    /// What it was made against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// The signed envelope.
    pub envelope: Digest,
    /// Whether its signature verifies under a key of this store.
    pub verified: bool,
}

/// Everything about one artefact.
pub async fn inspect(
    store: &Store,
    name: &ComponentName,
    word: &VersionWord,
    now: Timestamp,
) -> Result<Inspection, EngineError> {
    let mut conn = store.reader().await?;
    let known = component::get(&mut conn, name).await?;
    let artefact = artefact::find(&mut conn, name, word, now).await?;
    let (descriptor, manifest) = artefact::manifest_of(store, &mut conn, &artefact).await?;
    let names = artefacts::by_digest(&mut conn, artefact.digest.as_str()).await?;
    let (mut lines, mut source, mut built_from, mut sandbox) = (Vec::new(), None, None, None);
    for one in evidence::about(&mut conn, name, &artefact.digest).await? {
        let envelope: Envelope = read_document(store, &one.fact.envelope)?;
        let statement = super::evidence::verified(store, &artefact, &envelope)?;
        let verified = statement.is_some();
        source = source.or_else(|| statement.as_ref().and_then(named_source));
        built_from = built_from.or_else(|| statement.as_ref().and_then(built_from_of));
        sandbox = sandbox.or_else(|| statement.as_ref().and_then(sandbox_of));
        lines.push(EvidenceLine {
            kind: predicate_name(&one.fact.predicate_type).to_owned(),
            result: one.fact.result,
            time: one.fact.time,
            environment: one.fact.environment,
            envelope: one.fact.envelope,
            verified,
        });
    }
    let log = match artefact.number {
        Some(number) => build::by_number(&mut conn, name, number).await?.and_then(|build| build.log),
        None => None,
    };
    Ok(Inspection {
        names: names
            .into_iter()
            .filter(|one| one.component == *name)
            .map(|one| one.version.to_string())
            .collect(),
        media_type: descriptor.media_type,
        artifact_type: manifest.artifact_type.clone(),
        bytes: descriptor.size + manifest.required_blobs().iter().map(|blob| blob.size).sum::<u64>(),
        layers: manifest.layers.iter().map(|l| Part { digest: l.digest.clone(), size: l.size }).collect(),
        parts: manifest.manifests.iter().map(PlatformPart::from).collect(),
        contract: artefact::contract(&artefact.digest, &manifest)?,
        annotations: manifest.annotations,
        evidence: lines,
        locations: artefacts::locations(&mut conn, &artefact.digest).await?,
        log,
        source,
        built_from,
        sandbox,
        home: known.home,
        holders: remove::holding(&mut conn, name, &artefact.digest, now).await?,
        artefact,
    })
}

/// The source snapshot that provenance names among its byproducts.
fn named_source(statement: &Statement) -> Option<Digest> {
    let said = Some(&statement.predicate).filter(|_| statement.predicate_type == PROVENANCE)?;
    let byproducts = said.pointer("/runDetails/byproducts")?.as_array()?;
    let source = byproducts.iter().find(|one| one["name"] == "source")?;
    format!("sha256:{}", source["digest"]["sha256"].as_str()?).parse().ok()
}

fn built_from_of(statement: &Statement) -> Option<CommitId> {
    let said = Some(&statement.predicate).filter(|_| statement.predicate_type == PROVENANCE)?;
    reserve::built_from(said)
}

/// What provenance says about the sandbox of the build.
fn sandbox_of(statement: &Statement) -> Option<String> {
    let sandbox = (statement.predicate_type == PROVENANCE)
        .then(|| statement.predicate.pointer("/buildDefinition/internalParameters/sandbox"))??;
    let level = sandbox.get("level")?.as_str()?;
    let network = if sandbox.get("network")?.as_bool()? { "with" } else { "without" };
    Some(format!("{level}, `run` {network} network"))
}

/// A build and what it printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildLog {
    /// The build number.
    pub number: u64,
    /// The version that it has or will have.
    pub version: String,
    /// `reserved`, `failed` or `published`.
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it printed, as a blob. Of a build with parts that failed: of the part that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// Its parts, where it has some, in the order of its index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartLog>,
}

/// One platform's part of a build and what it printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartLog {
    /// What it runs on.
    pub platform: Platform,
    /// `missing`, `failed` or `built`.
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it printed, as a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
}

/// The log of a build, by its number or anything else that names its artefact.
pub async fn build_log(
    store: &Store,
    name: &ComponentName,
    word: &VersionWord,
    now: Timestamp,
) -> Result<BuildLog, EngineError> {
    let mut conn = store.reader().await?;
    component::get(&mut conn, name).await?;
    // A build that came to nothing has no artefact, and an artefact may have names that came after its build.
    let begun = match word {
        VersionWord::Number(number) => build::by_number(&mut conn, name, *number).await?,
        VersionWord::Version(version) => build::by_version(&mut conn, name, version).await?,
        VersionWord::Commit(commit) => artefact::build_of_commit(&mut conn, name, commit).await?,
        _ => None,
    };
    let found = match begun {
        Some(begun) => Some(begun),
        None => match artefact::find(&mut conn, name, word, now).await?.number {
            Some(number) => build::by_number(&mut conn, name, number).await?,
            None => None,
        },
    };
    let Some(found) = found else {
        return Err(EngineError::not_found(format!("{name} has no build {word}: it was not built here"))
            .with_hint(format!("semel versions -c {name}")));
    };
    let state = match found.state {
        build::BuildState::Reserved => "reserved",
        build::BuildState::Failed => "failed",
        build::BuildState::Published => "published",
    };
    let tried = build::parts(&mut conn, name, found.number).await?;
    Ok(BuildLog {
        number: found.number,
        version: found.version.to_string(),
        state: state.to_owned(),
        reason: found.reason,
        log: found.log,
        parts: found.platforms.into_iter().map(|platform| part_log(platform, &tried)).collect(),
    })
}

fn part_log(platform: Platform, tried: &[build::Part]) -> PartLog {
    let part = tried.iter().find(|part| part.platform == platform);
    let state = match part {
        Some(part) if part.reason.is_some() => "failed",
        Some(part) if part.digest.is_some() => "built",
        _ => "missing",
    };
    PartLog {
        platform,
        state: state.to_owned(),
        reason: part.and_then(|part| part.reason.clone()),
        log: part.and_then(|part| part.log.clone()),
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// The artefact.
    pub artefact: Artefact,
    /// How many blobs were hashed.
    pub blobs: u64,
    /// The bytes that they have.
    pub bytes: u64,
    /// How many signatures were checked.
    pub signatures: u64,
    /// The entry that bound the version, and the size of the tree in which it was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<(u64, u64)>,
    /// Everything that is not as it should be.
    pub problems: Vec<String>,
}

/// Hashes every byte of an artefact, checks its signatures, and proves its name in the ledger.
pub async fn verify(
    store: &Store,
    name: &ComponentName,
    word: &VersionWord,
    now: Timestamp,
) -> Result<Verified, EngineError> {
    let mut conn = store.reader().await?;
    let artefact = artefact::find(&mut conn, name, word, now).await?;
    let mut verified = Verified {
        artefact: artefact.clone(),
        blobs: 0,
        bytes: 0,
        signatures: 0,
        proved: None,
        problems: Vec::new(),
    };
    hash_closure(store, &mut conn, &artefact, &mut verified).await?;
    check_signatures(store, &mut conn, &artefact, &mut verified).await?;
    if let Some(version) = &artefact.version
        && let Some(bound) = artefacts::version(&mut conn, name, version).await?
    {
        prove(store, &mut conn, bound.seq, &mut verified).await?;
    }
    Ok(verified)
}

async fn hash_closure(
    store: &Store,
    conn: &mut semel_store::sql::Conn,
    artefact: &Artefact,
    verified: &mut Verified,
) -> Result<(), EngineError> {
    let mut open = vec![artefact.digest.clone()];
    while let Some(digest) = open.pop() {
        verified.blobs += 1;
        match store.blobs().verify(&digest) {
            Ok(bytes) => verified.bytes += bytes,
            Err(error) => {
                verified.problems.push(error.to_string());
                continue;
            }
        }
        if let Ok((_, manifest)) = artefact::manifest(store, conn, &artefact.component, &digest).await {
            open.extend(manifest.required_blobs().into_iter().map(|blob| blob.digest.clone()));
            open.extend(manifest.required_manifests().into_iter().map(|child| child.digest.clone()));
        }
    }
    Ok(())
}

async fn check_signatures(
    store: &Store,
    conn: &mut semel_store::sql::Conn,
    artefact: &Artefact,
    verified: &mut Verified,
) -> Result<(), EngineError> {
    let keys = store.keys().existing_public_keys()?;
    for one in evidence::about(conn, &artefact.component, &artefact.digest).await? {
        verified.signatures += 1;
        let about = read_document::<Envelope>(store, &one.fact.envelope).ok().is_some_and(|envelope| {
            keys.iter().any(|key| envelope.verify(key).is_ok_and(|said| said.is_about(&artefact.digest)))
        });
        if !about {
            let kind = predicate_name(&one.fact.predicate_type);
            verified.problems.push(format!("evidence {kind} ({}) does not verify", one.fact.envelope));
        }
    }
    Ok(())
}

async fn prove(
    store: &Store,
    conn: &mut semel_store::sql::Conn,
    seq: u64,
    verified: &mut Verified,
) -> Result<(), EngineError> {
    use semel_model::merkle;
    use semel_model::note::Checkpoint;
    use semel_store::ledger;
    let note = ledger::checkpoint(conn).await?;
    let signed = store.ledger_key().and_then(|key| Checkpoint::verify(&note, &key).ok());
    let leaf = ledger::read_one(conn, seq).await?.and_then(|recorded| recorded.leaf.to_bytes().ok());
    let (Some(signed), Some(leaf)) = (signed, leaf) else {
        verified.problems.push("the ledger's checkpoint does not verify".to_owned());
        return Ok(());
    };
    let proof = ledger::inclusion_proof(conn, seq, signed.size).await?;
    if merkle::verify_inclusion(seq, signed.size, &merkle::leaf_hash(&leaf), &proof, &signed.root) {
        verified.proved = Some((seq, signed.size));
    } else {
        verified.problems.push(format!("entry {seq}, which bound the version, is not in the signed ledger"));
    }
    Ok(())
}

/// Which artefact a deployment runs, for other views.
pub(crate) async fn running_version(
    conn: &mut semel_store::sql::Conn,
    one: &deployment::Deployment,
) -> Result<Artefact, EngineError> {
    artefact::by_digest(conn, &one.component, &one.digest).await
}

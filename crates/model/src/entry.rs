//! The ledger's entries: the closed list of everything that can be recorded.
//!
//! An entry's bytes are the canonical JSON of `{v, kind, time, actor, body}`. Entries name digests, not documents, and stay
//! below [`LEAF_BYTES_MAX`]. A leaf of the tree is an entry or a signature (see [`Leaf`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::allocation::{KnownCommit, Scheme};
use crate::build::Line;
use crate::canonical;
use crate::digest::Digest;
use crate::keep::Keep;
use crate::name::{CommitId, ComponentName, EnvironmentName, Tag};
use crate::pipeline::EvidenceResult;
use crate::platform::Platform;
use crate::version::{NamePattern, TagPolicy, Version};

/// The format number of entries.
pub const ENTRY_FORMAT: u32 = 1;
/// The most bytes that a leaf may have.
pub const LEAF_BYTES_MAX: usize = 16 * 1024;

/// One recorded change of meaning, or one recorded refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Format number, [`ENTRY_FORMAT`].
    pub v: u32,
    /// The appender's clock as it was read: data, never order.
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body")]
pub enum Change {
    /// The store began. Always the first entry.
    StoreCreated(StoreCreated),
    /// A component got its first name in this store.
    ComponentCreated(ComponentCreated),
    /// A version and a build number were given to a build key.
    BuildReserved(BuildReserved),
    /// A build's command failed; number and version stay with the key.
    BuildFailed(BuildFailed),
    /// A build's result for one of its platforms is stored; it has no version of its own.
    PartBuilt(PartBuilt),
    /// Another commit turned out to have the source tree of a build.
    CommitMatched(CommitMatched),
    /// A manifest and everything that it needs is stored.
    ManifestStored(ManifestStored),
    /// A version was bound to its digest, for ever.
    VersionPublished(VersionPublished),
    /// A channel points somewhere else now.
    ChannelMoved(ChannelMoved),
    /// Somebody tried to bind a version to other bytes.
    OverwriteRefused(OverwriteRefused),
    /// The bytes of a digest can also be fetched elsewhere.
    LocationRecorded(LocationRecorded),
    /// A signed statement about an artefact was accepted as evidence.
    EvidenceAttached(EvidenceAttached),
    /// A pipeline came into force.
    PipelineApplied(PipelineApplied),
    /// A digest may run in an environment.
    PromotionGranted(PromotionDecided),
    /// A digest may not run in an environment, with the reasons.
    PromotionRefused(PromotionDecided),
    /// A deployment is about to change a target.
    DeploymentStarted(DeploymentStarted),
    /// A deployment runs and was observed to.
    DeploymentSucceeded(DeploymentSucceeded),
    /// A deployment did not come to run.
    DeploymentFailed(DeploymentFailed),
    /// A deployment was refused before anything was touched.
    DeploymentRefused(DeploymentRefused),
    /// What a target runs is not what was last reported.
    ObservationChanged(ObservationChanged),
    /// What runs is not what was deployed.
    DriftDetected(DriftDetected),
    /// Nothing moves here until it is resumed.
    HoldSet(HoldSet),
    /// A hold was lifted.
    HoldReleased(HoldReleased),
    /// A digest or a deployment key may not run.
    Rejected(Rejected),
    /// A rejection was undone.
    Accepted(Rejected),
    /// A component has other rules from now on.
    ComponentChanged(ComponentChanged),
    /// A version should not be used any more, or may be again.
    VersionDeprecated(VersionDeprecated),
    /// The bytes of a version are gone by rule; its name and meaning stay.
    VersionExpired(VersionExpired),
    /// Another store becomes a component's home: this one gives it no versions any more.
    HomeMoved(HomeMoved),
    /// This store is a component's home from now on.
    HomeTaken(HomeTaken),
    /// The bytes of an expired version are back.
    VersionRevived(VersionRevived),
    /// A manifest that nothing held is no longer here.
    ManifestRemoved(ManifestRemoved),
    /// Commits that the store was told of, so that the order of versions can be that of the commits.
    CommitsRecorded(CommitsRecorded),
    /// A candidate got its final name, for ever.
    VersionFinalised(VersionFinalised),
}

/// See [`Change::StoreCreated`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCreated {
    /// The store's id.
    pub store: String,
    /// The ledger's name.
    pub origin: String,
    /// The ledger's public key as a verifier key text.
    pub ledger_key: String,
}

/// See [`Change::ComponentCreated`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentCreated {
    /// Which component.
    pub component: ComponentName,
    /// How its tags are read.
    pub policy: TagPolicy,
    /// The id of the store that gives it versions.
    pub home: String,
}

/// See [`Change::BuildReserved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BuildReserved {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// The version that the result will get.
    pub version: Version,
    /// The build key.
    pub key: Digest,
    /// The commit that asked.
    pub commit: CommitId,
    /// The line that it was built for.
    pub line: Line,
    /// The source document: commit, range of commits, authors' pseudonyms.
    pub source: Digest,
    /// The platforms that it has a part for, in the order of its index; none: it is one artefact for one platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// What it builds once more, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// The same source, built once more on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Again {
    /// The build key of the first build of this source: the one with salt 0.
    pub of: Digest,
    /// Why.
    pub reason: String,
}

/// See [`Change::BuildFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailed {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// What failed, in one line.
    pub reason: String,
    /// What the build printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// The platform whose part failed, for a build that has parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// See [`Change::PartBuilt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartBuilt {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// What it runs on.
    pub platform: Platform,
    /// The part's manifest.
    pub digest: Digest,
    /// What its build printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
}

/// See [`Change::CommitMatched`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitMatched {
    /// Which component.
    pub component: ComponentName,
    /// The commit.
    pub commit: CommitId,
    /// The build number whose artefact it shares.
    pub number: u64,
}

/// See [`Change::CommitsRecorded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitsRecorded {
    /// Whose builds they concern.
    pub component: ComponentName,
    /// The commits; as many as a leaf has room for.
    pub commits: Vec<KnownCommit>,
}

/// See [`Change::ManifestStored`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestStored {
    /// In which component.
    pub component: ComponentName,
    /// The manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it refers to, for a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

/// See [`Change::VersionPublished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct VersionPublished {
    /// Which component.
    pub component: ComponentName,
    /// The name.
    pub version: Version,
    /// What it means, for ever.
    pub digest: Digest,
    /// The build number, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The commit, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// What the build printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Digest>,
    /// The source document of the commit, where it is not that of the build: the name of a line that took the artefact of a
    /// branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Digest>,
}

/// See [`Change::VersionFinalised`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFinalised {
    /// Which component.
    pub component: ComponentName,
    /// The final name.
    pub version: Version,
    /// The candidate's name, which goes on meaning the same.
    pub candidate: Version,
    /// What both mean, for ever.
    pub digest: Digest,
    /// The build number of the candidate, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The commit of the candidate, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
}

/// See [`Change::ChannelMoved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMoved {
    /// Which component.
    pub component: ComponentName,
    /// The channel.
    pub channel: Tag,
    /// Where it pointed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// Where it points now; none: it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Digest>,
}

/// See [`Change::OverwriteRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverwriteRefused {
    /// Which component.
    pub component: ComponentName,
    /// The version.
    pub version: Version,
    /// What it means.
    pub bound: Digest,
    /// What somebody wanted it to mean.
    pub pushed: Digest,
}

/// See [`Change::LocationRecorded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationRecorded {
    /// In which component.
    pub component: ComponentName,
    /// Whose bytes.
    pub digest: Digest,
    /// Where: `registry.example/shop/api@sha256:…`, or `oci:DIR@sha256:…`.
    pub place: String,
}

/// See [`Change::EvidenceAttached`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceAttached {
    /// In which component.
    pub component: ComponentName,
    /// What it is about.
    pub digest: Digest,
    /// The DSSE envelope.
    pub envelope: Digest,
    /// What kind of statement it is.
    pub predicate_type: String,
    /// What it says.
    pub result: EvidenceResult,
    /// The hint of the key that signed it.
    pub signer: String,
    /// What it was made against, if it was an environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
    /// The document that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Digest>,
}

/// See [`Change::PipelineApplied`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineApplied {
    /// Which component.
    pub component: ComponentName,
    /// The pipeline document.
    pub pipeline: Digest,
    /// The one that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Digest>,
}

/// See [`Change::PromotionGranted`] and [`Change::PromotionRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromotionDecided {
    /// Which component.
    pub component: ComponentName,
    /// The version that was asked for, if it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Which artefact.
    pub digest: Digest,
    /// Where it may or may not run.
    pub environment: EnvironmentName,
    /// The decision document, with all of its inputs.
    pub decision: Digest,
    /// For a grant: the signed verification summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Digest>,
}

/// See [`Change::DeploymentStarted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStarted {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// Orders the deployments of this binding.
    pub generation: u64,
    /// The deployment key.
    pub key: Digest,
    /// The artefact.
    pub digest: Digest,
    /// Its version, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The config snapshot.
    pub config: Digest,
    /// The target's specification.
    pub target: Digest,
    /// The decision that allows it.
    pub decision: Digest,
    /// The generation that it goes back from, for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
}

/// See [`Change::DeploymentSucceeded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSucceeded {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// Which deployment.
    pub generation: u64,
    /// Who hashed the bytes before the switch: `semel`, or a runtime.
    pub checked_by: String,
    /// What was found on the host for each need, such as `node 20.11.1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What somebody should look at, one line each, without values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// See [`Change::DeploymentFailed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentFailed {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// Which deployment.
    pub generation: u64,
    /// In which way.
    pub outcome: FailedOutcome,
    /// Why, in one line, without values.
    pub reason: String,
    /// The generation that runs again, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
}

/// How a deployment did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailedOutcome {
    /// The new release started and failed its own health check.
    Failed,
    /// Something outside it went wrong: host, disk, fetch.
    Errored,
    /// The target did not switch it on: it carries a secret of the environment. Nothing was touched.
    Refused,
}

/// See [`Change::DeploymentRefused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRefused {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// The artefact.
    pub digest: Digest,
    /// Why, one line each, without values.
    pub reasons: Vec<String>,
}

/// See [`Change::ObservationChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationChanged {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// What the target reports.
    #[serde(flatten)]
    pub observed: crate::deployment::Observed,
}

/// See [`Change::DriftDetected`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftDetected {
    /// Which component.
    pub component: ComponentName,
    /// Where.
    pub environment: EnvironmentName,
    /// The deployment that should run.
    pub generation: u64,
    /// The differences.
    pub drift: Vec<crate::deployment::Drift>,
}

/// See [`Change::HoldSet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldSet {
    /// Where nothing moves.
    pub environment: EnvironmentName,
    /// Only this component; none: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentName>,
    /// Why.
    pub reason: String,
}

/// See [`Change::HoldReleased`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReleased {
    /// Where.
    pub environment: EnvironmentName,
    /// As in the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentName>,
}

/// See [`Change::Rejected`] and [`Change::Accepted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Which component.
    pub component: ComponentName,
    /// What.
    pub what: RejectedThing,
    /// Only in these environments; none: everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<EnvironmentName>,
    /// Why.
    pub reason: String,
    /// Whether it may not be fetched either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pulls: bool,
}

/// See [`Change::ComponentChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentChanged {
    /// Which component.
    pub component: ComponentName,
    /// How long bytes are kept, if that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// Which names are versions beside those that look like one, if that changed. Applies to names that are not given yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patterns: Option<Vec<NamePattern>>,
    /// How its versions look, if that changed. Applies to versions that are not given yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
}

/// See [`Change::VersionDeprecated`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionDeprecated {
    /// Which component.
    pub component: ComponentName,
    /// Which of its versions.
    pub version: Version,
    /// Why it should not be used; none: it may be used again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// See [`Change::VersionExpired`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionExpired {
    /// Which component.
    pub component: ComponentName,
    /// Which of its versions.
    pub version: Version,
    /// What it means, for ever.
    pub digest: Digest,
    /// The rule whose time was over, such as `trunk=90d`.
    pub rule: String,
}

/// See [`Change::HomeMoved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeMoved {
    /// Which component.
    pub component: ComponentName,
    /// The id of this store.
    pub from: String,
    /// The id of the store that becomes the home.
    pub to: String,
    /// The URL of that store, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The newest build number given.
    pub last_build: u64,
    /// How many entries the ledger of that store had. Where that store has let the home go since, this is no proof for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_size: Option<u64>,
}

/// See [`Change::HomeTaken`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeTaken {
    /// Which component.
    pub component: ComponentName,
    /// The id of the store that was its home.
    pub from: String,
    /// The id of this store.
    pub home: String,
    /// The proof that the other store records the same.
    pub proof: Digest,
}

/// See [`Change::VersionRevived`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRevived {
    /// Which component.
    pub component: ComponentName,
    /// Which of its versions.
    pub version: Version,
    /// What it means, for ever.
    pub digest: Digest,
}

/// See [`Change::ManifestRemoved`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRemoved {
    /// In which component.
    pub component: ComponentName,
    /// Which manifest.
    pub digest: Digest,
    /// Why, such as `deleted` or `branch=14d`.
    pub reason: String,
}

/// What a rejection is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RejectedThing {
    /// An artefact with any configuration.
    Digest(Digest),
    /// One artefact with one configuration at one target.
    Key(Digest),
}

/// A leaf of the ledger's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// An entry.
    Entry(Box<Entry>),
    /// The `hashedrekord` body of a signature, so that other people's verifiers find it in our ledger.
    Signature(Vec<u8>),
}

/// Why some bytes are no leaf of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLeaf {
    /// The bytes are no entry.
    #[error("the bytes are no ledger entry")]
    Malformed(#[source] serde_json::Error),
    /// It was written by a newer program.
    #[error("the entry has format {0}, this program knows {ENTRY_FORMAT}")]
    Newer(u32),
    /// The bytes are not the one spelling of their content.
    #[error("the entry is not in canonical form")]
    NotCanonical,
    /// It names a document instead of its digest.
    #[error("the entry has {0} bytes, more than {LEAF_BYTES_MAX}")]
    TooLarge(usize),
}

impl Entry {
    /// An entry of the present format.
    pub fn new(time: Timestamp, actor: Actor, change: Change) -> Self {
        Self { v: ENTRY_FORMAT, time, actor, change }
    }

    /// Reads the bytes of an entry; refuses any spelling but the canonical one.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidLeaf> {
        let entry: Self = serde_json::from_slice(bytes).map_err(InvalidLeaf::Malformed)?;
        if entry.v != ENTRY_FORMAT {
            return Err(InvalidLeaf::Newer(entry.v));
        }
        if canonical::bytes(&entry) != bytes {
            return Err(InvalidLeaf::NotCanonical);
        }
        Ok(entry)
    }
}

impl Leaf {
    /// The bytes that are hashed into the tree.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidLeaf> {
        let bytes = match self {
            Self::Entry(entry) => canonical::bytes(entry),
            Self::Signature(bytes) => bytes.clone(),
        };
        if bytes.len() > LEAF_BYTES_MAX { Err(InvalidLeaf::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads a leaf: an entry, or a `hashedrekord` body.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidLeaf> {
        if bytes.starts_with(br#"{"apiVersion":"0.0.2","kind":"hashedrekord""#) {
            return Ok(Self::Signature(bytes.to_vec()));
        }
        Entry::parse(bytes).map(|entry| Self::Entry(Box::new(entry)))
    }

    /// The name of its kind, as it stands in the ledger.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Signature(_) => "signature",
            Self::Entry(entry) => entry.change.kind(),
        }
    }
}

impl Change {
    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::StoreCreated(_) => "StoreCreated",
            Self::ComponentCreated(_) => "ComponentCreated",
            Self::BuildReserved(_) => "BuildReserved",
            Self::BuildFailed(_) => "BuildFailed",
            Self::PartBuilt(_) => "PartBuilt",
            Self::HomeMoved(_) => "HomeMoved",
            Self::HomeTaken(_) => "HomeTaken",
            Self::CommitMatched(_) => "CommitMatched",
            Self::ManifestStored(_) => "ManifestStored",
            Self::VersionPublished(_) => "VersionPublished",
            Self::ChannelMoved(_) => "ChannelMoved",
            Self::OverwriteRefused(_) => "OverwriteRefused",
            Self::LocationRecorded(_) => "LocationRecorded",
            Self::EvidenceAttached(_) => "EvidenceAttached",
            Self::PipelineApplied(_) => "PipelineApplied",
            Self::PromotionGranted(_) => "PromotionGranted",
            Self::PromotionRefused(_) => "PromotionRefused",
            Self::DeploymentStarted(_) => "DeploymentStarted",
            Self::DeploymentSucceeded(_) => "DeploymentSucceeded",
            Self::DeploymentFailed(_) => "DeploymentFailed",
            Self::DeploymentRefused(_) => "DeploymentRefused",
            Self::ObservationChanged(_) => "ObservationChanged",
            Self::DriftDetected(_) => "DriftDetected",
            Self::HoldSet(_) => "HoldSet",
            Self::HoldReleased(_) => "HoldReleased",
            Self::Rejected(_) => "Rejected",
            Self::Accepted(_) => "Accepted",
            Self::ComponentChanged(_) => "ComponentChanged",
            Self::VersionDeprecated(_) => "VersionDeprecated",
            Self::VersionExpired(_) => "VersionExpired",
            Self::VersionRevived(_) => "VersionRevived",
            Self::ManifestRemoved(_) => "ManifestRemoved",
            Self::CommitsRecorded(_) => "CommitsRecorded",
            Self::VersionFinalised(_) => "VersionFinalised",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::{ActorKind, AuthMethod};

    fn entry() -> Entry {
        let actor = Actor {
            issuer: "local".into(),
            subject: "a1b2c3d4e5f60718".into(),
            kind: ActorKind::Person,
            method: AuthMethod::Local,
            via: "cli".into(),
        };
        let published = VersionPublished {
            component: "shop/api".parse().unwrap(),
            version: "1.4.2".parse().unwrap(),
            digest: Digest::of(b"artefact"),
            number: Some(482),
            commit: None,
            log: None,
            source: None,
        };
        Entry::new("2026-11-22T19:50:00.25Z".parse().unwrap(), actor, Change::VersionPublished(published))
    }

    #[test]
    fn the_bytes_of_an_entry_are_frozen() {
        let text = String::from_utf8(Leaf::Entry(Box::new(entry())).to_bytes().unwrap()).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"actor":{"issuer":"local","kind":"person","method":"local","subject":"a1b2c3d4e5f60718","via":"cli"},"#,
                r#""body":{"component":"shop/api","digest":"sha256:4edfbd28d0483e702f24bd5247ed646f7e5752aec9d6b1461d837ccab6d27f7b","#,
                r#""number":482,"version":"1.4.2"},"kind":"VersionPublished","time":"2026-11-22T19:50:00.25Z","v":1}"#
            )
        );
        assert_eq!(Leaf::parse(text.as_bytes()).unwrap(), Leaf::Entry(Box::new(entry())));
    }

    #[test]
    fn another_spelling_of_an_entry_is_refused() {
        let bytes = Leaf::Entry(Box::new(entry())).to_bytes().unwrap();
        let spaced = String::from_utf8(bytes.clone()).unwrap().replacen(':', ": ", 1);
        assert!(matches!(Entry::parse(spaced.as_bytes()), Err(InvalidLeaf::NotCanonical)));
        let extra =
            String::from_utf8(bytes.clone()).unwrap().replacen("\"number\"", "\"extra\":1,\"number\"", 1);
        assert!(matches!(Entry::parse(extra.as_bytes()), Err(InvalidLeaf::NotCanonical)));
        let newer = String::from_utf8(bytes).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(matches!(Entry::parse(newer.as_bytes()), Err(InvalidLeaf::Newer(2))));
    }

    #[test]
    fn the_kind_in_the_bytes_is_the_kind_of_the_change() {
        let text = String::from_utf8(Leaf::Entry(Box::new(entry())).to_bytes().unwrap()).unwrap();
        assert!(text.contains(&format!("\"kind\":\"{}\"", entry().change.kind())));
    }
}

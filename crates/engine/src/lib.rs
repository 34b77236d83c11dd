//! Where the ledger is: one file per verb.
//!
//! | step | function | entry |
//! |---|---|---|
//! | reserve | [`reserve::lookup`], [`reserve::reserve`], [`allocate`] | `ComponentCreated`, `CommitsRecorded`, `BuildReserved`, `CommitMatched` |
//! | move a home | [`home::inherit`], [`home::leave`], [`home::take`] | what was given, `HomeMoved`, `HomeTaken` |
//! | store a manifest | [`store_manifest::store_manifest`] | `ManifestStored` |
//! | push | [`store_manifest::push`], [`content`] | `ManifestStored`, `VersionPublished`, `ChannelMoved`, … |
//! | publish | [`publish::bind`], [`draft::publish`], [`reserve::commit`] | `VersionPublished`, `PartBuilt` |
//! | finalise | [`finalise::finalise`] | `VersionFinalised` |
//! | pull | [`pull::find`] | |
//! | log of a running build | [`build_log::add`], [`build_log::read`] | nothing |
//! | evidence | [`attest::attest`] | `EvidenceAttached` |
//! | pipeline | [`pipeline::apply`] | `PipelineApplied` |
//! | promote | [`promote::promote`] | `PromotionGranted`, `PromotionRefused` |
//! | deploy | [`deploy::start`], [`deploy::finish`] | `DeploymentStarted`, `…Succeeded`, `…Failed`, `…Refused` |
//! | roll back | [`rollback::candidate`], then deploy | as deploy |
//! | observe | [`observe::observe`] | `ObservationChanged`, `DriftDetected` |
//! | remove | [`remove::remove_manifest`], [`publish::remove_channel`] | `ManifestRemoved`, `ChannelMoved` |
//! | collect | [`collect::collect`], [`scrub::scrub`] | `VersionExpired`, `ManifestRemoved` |
//! | deprecate | [`deprecate::deprecate`] | `VersionDeprecated` |
//! | components | [`component::create`], [`component::change`] | `ComponentCreated`, `ComponentChanged` |
//! | hold, reject | [`hold`], [`reject`] | `HoldSet`, `Rejected`, … |
//!
//! Every change of every door (command line, API, registry) ends in one of these functions, and each of them in one append
//! to the ledger. A refusal is a value in the answer; an [`error::EngineError`] is a fault or a wrong question. Knows nothing
//! of HTTP and starts no process.

pub mod error;
mod batch;
pub mod artefact;
pub mod component;
pub mod home;

pub mod allocate;
pub mod reserve;
pub mod build_log;
pub mod store_manifest;
pub mod publish;
pub mod draft;
pub mod finalise;
pub mod content;
pub mod pull;
pub mod remove;
pub mod collect;
pub mod scrub;
pub mod deprecate;
pub mod attest;
pub mod report;
pub mod pipeline;
pub mod promote;
pub mod deploy;
pub mod rollback;
pub mod observe;
pub mod hold;
pub mod reject;

pub mod look;

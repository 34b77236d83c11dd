//! Every operation of the API: where it is found, and which function of the engine does it.

use http::Method;
use jiff::Timestamp;
use schemars::JsonSchema;
use semel_engine::error::EngineError;
use semel_engine::look::{channels, comparison, difference, evidence, history, place, status, versions, why};
use semel_engine::{
    allocate, attest, build_log, collect, component, deploy, deprecate, draft, finalise, hold, home, observe,
    pipeline, promote, publish, reject, reserve, rollback, scrub,
};
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, EnvironmentName, Tag};
use semel_model::version::VersionWord;
use semel_store::{audit, ledger, recover};
use serde::{Deserialize, Serialize};

use super::{Call, Visitor};
use crate::App;

/// Shows every operation to a visitor.
pub fn each(visitor: &mut impl Visitor) {
    visitor.call::<StoreFacts>();
    visitor.call::<reserve::Lookup>();
    visitor.call::<reserve::Reserve>();
    visitor.call::<allocate::NextVersion>();
    visitor.call::<Heartbeat>();
    visitor.call::<reserve::Commit>();
    visitor.call::<reserve::Fail>();
    visitor.call::<home::Bequeath>();
    visitor.call::<home::Inherit>();
    visitor.call::<home::LeaveHome>();
    visitor.call::<home::TakeHome>();
    visitor.call::<Release>();
    visitor.call::<build_log::AddToLog>();
    visitor.call::<build_log::ReadLog>();
    visitor.call::<publish::Bind>();
    visitor.call::<draft::OpenDraft>();
    visitor.call::<draft::PublishDraft>();
    visitor.call::<finalise::Finalise>();
    visitor.call::<deprecate::Deprecate>();
    visitor.call::<attest::Attest>();
    visitor.call::<pipeline::Apply>();
    visitor.call::<ShowPipeline>();
    visitor.call::<promote::Promote>();
    visitor.call::<Resolve>();
    visitor.call::<PlanDeployment>();
    visitor.call::<deploy::Start>();
    visitor.call::<deploy::Finish>();
    visitor.call::<RollbackCandidate>();
    visitor.call::<observe::Observation>();
    visitor.call::<hold::Hold>();
    visitor.call::<reject::Judge>();
    visitor.call::<Components>();
    visitor.call::<ShowComponent>();
    visitor.call::<component::CreateComponent>();
    visitor.call::<component::ChangeComponent>();
    visitor.call::<Channels>();
    visitor.call::<ChannelHistory>();
    visitor.call::<Versions>();
    visitor.call::<Inspect>();
    visitor.call::<Evidence>();
    visitor.call::<BuildLog>();
    visitor.call::<Verify>();
    visitor.call::<Status>();
    visitor.call::<History>();
    visitor.call::<Where>();
    visitor.call::<Why>();
    visitor.call::<Diff>();
    visitor.call::<Compare>();
    visitor.call::<collect::Collect>();
    visitor.call::<scrub::Scrub>();
    visitor.call::<VerifyAudit>();
    visitor.call::<Rebuild>();
}

/// The history of a large project, told at once, has about 6 MiB.
const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Implements an operation: type, answer, method, path, summary, and what is done.
macro_rules! call {
    ($name:ty => $answer:ty, $method:ident $path:literal, $summary:literal, |$this:ident, $app:ident, $who:ident, $now:ident| $run:expr $(, bytes_max: $bytes_max:expr)? $(, refused: $refused:expr)?) => {
        impl Call for $name {
            type Answer = $answer;
            const METHOD: Method = Method::$method;
            const PATH: &'static str = $path;
            const SUMMARY: &'static str = $summary;
            $(const BODY_BYTES_MAX: usize = $bytes_max;)?

            async fn run(self, $app: &App, $who: &Actor, $now: Timestamp) -> Result<$answer, EngineError> {
                let $this = self;
                let _ = ($who, $now);
                $run
            }
            $(
                fn refused(answer: &$answer) -> bool {
                    let refused: fn(&$answer) -> bool = $refused;
                    refused(answer)
                }
            )?
        }
    };
}

/// Defines a question and implements its operation.
macro_rules! question {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

fn word(text: &str) -> Result<VersionWord, EngineError> {
    text.parse().map_err(|error| EngineError::precondition(format!("{error}")))
}

fn opt_word(text: Option<&String>) -> Result<Option<VersionWord>, EngineError> {
    text.map(|text| word(text)).transpose()
}

question!(
    /// What store this is.
    StoreFacts {}
);

/// What a store is and how far its ledger has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreDescription {
    /// Its id.
    pub id: String,
    /// The name of its ledger.
    pub origin: String,
    /// The ledger's public key as a verifier key text.
    pub ledger_key: String,
    /// How many entries the ledger has.
    pub entries: u64,
    /// The newest signed checkpoint.
    pub checkpoint: String,
}

call!(StoreFacts => StoreDescription, GET "/store", "What store this is, and its signed checkpoint", |_this, app, who, now| {
    let mut conn = app.store().reader().await?;
    Ok(StoreDescription {
        id: app.store().id().to_owned(),
        origin: app.store().origin().to_owned(),
        ledger_key: app.store().identity().ledger_key.clone(),
        entries: ledger::size(&mut conn).await?,
        checkpoint: ledger::checkpoint(&mut conn).await?,
    })
});

call!(reserve::Lookup => reserve::Reservation, POST "/builds/lookup", "Ask whether a build key was built", |this, app, who, now| {
    reserve::lookup(app.store(), who, &this, now).await
});

call!(reserve::Reserve => reserve::Reservation, POST "/builds", "Ask for the right to build a key", |this, app, who, now| {
    reserve::reserve(app.store(), who, this, now).await
}, bytes_max: HISTORY_BYTES_MAX);

call!(allocate::NextVersion => allocate::Next, POST "/builds/next", "Which version a commit has or would get; reserves nothing", |this, app, who, now| {
    allocate::next(app.store(), who, &this, now).await
}, bytes_max: HISTORY_BYTES_MAX);

/// Nothing more to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

question!(
    /// Renews the lease on a running build.
    Heartbeat {
        /// Which build, and the proof that the caller holds it.
        holding: reserve::Holding,
    }
);

call!(Heartbeat => Done, POST "/builds/heartbeat", "Renew the lease on a running build", |this, app, who, now| {
    reserve::heartbeat(app.store(), &this.holding, now).await.map(|()| Done {})
});

impl Call for reserve::Commit {
    type Answer = reserve::Committed;
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/builds/commit";
    const SUMMARY: &'static str = "Bind a build's version to its result";
    /// The reports of a large artefact are large.
    const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

    async fn run(self, app: &App, who: &Actor, now: Timestamp) -> Result<reserve::Committed, EngineError> {
        reserve::commit(app.store(), who, self, now).await
    }
}

impl Call for reserve::Fail {
    type Answer = Done;
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/builds/fail";
    const SUMMARY: &'static str = "Record that a build failed";

    async fn run(self, app: &App, who: &Actor, now: Timestamp) -> Result<Done, EngineError> {
        reserve::fail(app.store(), who, self, now).await.map(|()| Done {})
    }
}

call!(home::Bequeath => home::Bequest, GET "/components/bequest", "What the next home of a component must know", |this, app, who, now| {
    home::bequeath(app.store(), &this).await
});

impl Call for home::Inherit {
    type Answer = home::Inherited;
    const METHOD: Method = Method::POST;
    const PATH: &'static str = "/components/inherit";
    const SUMMARY: &'static str = "Learn the numbers and names that another store has given";
    /// A page of source documents.
    const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

    async fn run(self, app: &App, who: &Actor, now: Timestamp) -> Result<home::Inherited, EngineError> {
        home::inherit(app.store(), who, self, now).await
    }
}

call!(home::LeaveHome => home::Left, POST "/components/leave", "Let the home of a component go to another store", |this, app, who, now| {
    home::leave(app.store(), who, this, now).await
});

call!(home::TakeHome => home::Taken, POST "/components/take", "Become the home of a component", |this, app, who, now| {
    home::take(app.store(), who, this, now).await
});

question!(
    /// Gives the lease on a build up without a result.
    Release {
        /// Which build, and the proof that the caller holds it.
        holding: reserve::Holding,
    }
);

call!(Release => Done, POST "/builds/release", "Give the lease on a build up", |this, app, who, now| {
    reserve::release(app.store(), &this.holding).await.map(|()| Done {})
});

call!(build_log::AddToLog => build_log::Added, POST "/builds/live-log", "Add to the log of a running build", |this, app, who, now| {
    build_log::add(app.store(), this, now).await
});

call!(build_log::ReadLog => build_log::LogSoFar, GET "/builds/live-log", "What a running build has printed", |this, app, who, now| {
    build_log::read(app.store(), &this, now).await
});

call!(publish::Bind => publish::Bound, POST "/versions", "Bind a name to a stored manifest",
    |this, app, who, now| publish::bind(app.store(), who, this, now).await,
    refused: |answer| matches!(answer, publish::Bound::Refused(_)));

call!(draft::OpenDraft => draft::Drafted, POST "/drafts", "Hold a version's name for a stored manifest",
    |this, app, who, now| draft::open(app.store(), who, this, now).await,
    refused: |answer| matches!(answer, draft::Drafted::Refused(_)));

call!(draft::PublishDraft => publish::Bound, POST "/drafts/publish", "Hash everything that a draft needs and bind its name",
    |this, app, who, now| draft::publish(app.store(), who, this, now).await,
    refused: |answer| matches!(answer, publish::Bound::Refused(_)));

call!(finalise::Finalise => finalise::Finalised, POST "/versions/finalise", "Give a candidate its final name",
    |this, app, who, now| finalise::finalise(app.store(), who, this, now).await,
    refused: |answer| matches!(answer, finalise::Finalised::Refused(_)));

call!(deprecate::Deprecate => deprecate::Deprecated, POST "/deprecations", "Say that a version should not be used, or take that back", |this, app, who, now| {
    deprecate::deprecate(app.store(), who, this, now).await
});

call!(attest::Attest => attest::Attached, POST "/evidence", "Sign a result and attach it to an artefact", |this, app, who, now| {
    attest::attest(app.store(), who, this, now).await
});

call!(pipeline::Apply => pipeline::InForce, POST "/pipelines", "Put a pipeline in force", |this, app, who, now| {
    pipeline::apply(app.store(), who, this, now).await
});

question!(
    /// Shows the pipeline in force.
    ShowPipeline {
        /// Of which component.
        component: ComponentName,
    }
);

/// The pipeline in force, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PipelineFound {
    /// The pipeline.
    pub in_force: Option<pipeline::InForce>,
}

call!(ShowPipeline => PipelineFound, GET "/pipelines", "Show the pipeline in force", |this, app, who, now| {
    let mut conn = app.store().reader().await?;
    Ok(PipelineFound { in_force: pipeline::find(app.store(), &mut conn, &this.component).await? })
});

call!(promote::Promote => promote::Promoted, POST "/promotions", "Decide whether an artefact may run in an environment",
    |this, app, who, now| promote::promote(app.store(), who, this, now).await,
    refused: |answer| !answer.decision.is_granted());

question!(
    /// Asks what may run in an environment.
    Resolve {
        /// Which component.
        component: ComponentName,
        /// Which version; none: the newest that was granted.
        version: Option<String>,
        /// Where.
        environment: EnvironmentName,
    }
);

call!(Resolve => promote::Resolved, GET "/resolve", "What may run in an environment, pinned",
    |this, app, who, now| {
        let version = opt_word(this.version.as_ref())?;
        promote::resolve(app.store(), &this.component, version.as_ref(), &this.environment, now).await
    },
    refused: |answer| matches!(answer, promote::Resolved::Refused { .. }));

question!(
    /// Asks what a deployment needs.
    PlanDeployment {
        /// Which component.
        component: ComponentName,
        /// Which version; none: the newest that was granted.
        version: Option<String>,
        /// Where.
        environment: EnvironmentName,
    }
);

call!(PlanDeployment => deploy::Plan, GET "/deployments/plan", "What a deployment needs to know", |this, app, who, now| {
    let version = opt_word(this.version.as_ref())?;
    deploy::plan(app.store(), &this.component, version.as_ref(), &this.environment, now).await
});

call!(deploy::Start => deploy::Started, POST "/deployments", "Check a deployment against every rule and record the intent",
    |this, app, who, now| deploy::start(app.store(), who, this, now).await,
    refused: |answer| matches!(answer, deploy::Started::Refused(_)));

call!(deploy::Finish => deploy::Finished, POST "/deployments/finish", "Record how a deployment came out", |this, app, who, now| {
    deploy::finish(app.store(), who, this, now).await
});

question!(
    /// Asks what a rollback would go back to.
    RollbackCandidate {
        /// Which component.
        component: ComponentName,
        /// Where.
        environment: EnvironmentName,
        /// To which version; none: the newest that succeeded before.
        to: Option<String>,
    }
);

call!(RollbackCandidate => rollback::Candidate, GET "/deployments/rollback", "What a rollback would go back to", |this, app, who, now| {
    let to = opt_word(this.to.as_ref())?;
    rollback::candidate(app.store(), &this.component, &this.environment, to.as_ref(), now).await
});

call!(observe::Observation => observe::Seen, POST "/observations", "Report what a target runs", |this, app, who, now| {
    observe::observe(app.store(), who, this, now).await
});

call!(hold::Hold => hold::Held, POST "/holds", "Hold an environment, or resume it", |this, app, who, now| {
    hold::hold(app.store(), who, this, now).await
});

call!(reject::Judge => reject::Judged, POST "/rejections", "Reject an artefact, or accept it again", |this, app, who, now| {
    reject::judge(app.store(), who, this, now).await
});

question!(
    /// Lists the components.
    Components {}
);

/// The components of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComponentList {
    /// In the order of their names.
    pub components: Vec<component::ComponentFacts>,
}

call!(Components => ComponentList, GET "/components", "The components of this store", |_this, app, who, now| {
    Ok(ComponentList { components: component::list(app.store()).await? })
});

question!(
    /// Shows one component.
    ShowComponent {
        /// Which.
        component: ComponentName,
    }
);

call!(ShowComponent => component::ComponentFacts, GET "/components/show", "One component and its rules", |this, app, who, now| {
    component::show(app.store(), &this.component).await
});

call!(component::CreateComponent => component::Ruled, POST "/components", "Create a component with rules of its own", |this, app, who, now| {
    component::create(app.store(), who, this, now).await
});

call!(component::ChangeComponent => component::Ruled, POST "/components/rules", "Give a component other rules", |this, app, who, now| {
    component::change(app.store(), who, this, now).await
});

question!(
    /// Lists channels.
    Channels {
        /// Of which component.
        component: ComponentName,
        /// Only those behind this name, in byte order.
        after: Option<String>,
        /// At most so many.
        limit: u64,
    }
);

/// The channels of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelList {
    /// In the order of their names.
    pub channels: Vec<channels::ChannelLine>,
}

call!(Channels => ChannelList, GET "/channels", "Where the channels of a component point", |this, app, who, now| {
    let after = this.after.as_deref().unwrap_or_default();
    Ok(ChannelList { channels: channels::channels(app.store(), &this.component, after, this.limit).await? })
});

question!(
    /// Asks where a channel pointed.
    ChannelHistory {
        /// Of which component.
        component: ComponentName,
        /// Which channel.
        channel: Tag,
        /// At most so many.
        limit: u64,
    }
);

/// Where a channel pointed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelMoves {
    /// Newest first.
    pub moves: Vec<channels::Pointed>,
}

call!(ChannelHistory => ChannelMoves, GET "/channels/history", "Where a channel pointed, and when", |this, app, who, now| {
    Ok(ChannelMoves { moves: channels::history(app.store(), &this.component, &this.channel, this.limit).await? })
});

question!(
    /// Lists versions.
    Versions {
        /// Of which component.
        component: ComponentName,
        /// At most so many.
        limit: u64,
    }
);

/// The versions of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionList {
    /// Newest first.
    pub versions: Vec<versions::VersionLine>,
    /// Names that are held for a while and are to become versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drafts: Vec<draft::DraftFact>,
}

call!(Versions => VersionList, GET "/versions", "The newest versions of a component", |this, app, who, now| {
    Ok(VersionList {
        versions: versions::versions(app.store(), &this.component, this.limit).await?,
        drafts: draft::list(app.store(), &this.component, now).await?,
    })
});

question!(
    /// Asks for everything about one artefact.
    Inspect {
        /// Which component.
        component: ComponentName,
        /// Which of its artefacts, as a person writes it.
        version: String,
    }
);

call!(Inspect => versions::Inspection, GET "/versions/inspect", "Everything about one artefact", |this, app, who, now| {
    versions::inspect(app.store(), &this.component, &word(&this.version)?, now).await
});

question!(
    /// Asks for the newest evidence of a type.
    Evidence {
        /// Which component.
        component: ComponentName,
        /// Which of its artefacts, as a person writes it.
        version: String,
        /// The type: `provenance`, `sbom`, another short name, or a predicate type URI.
        kind: String,
    }
);

call!(Evidence => evidence::Said, GET "/evidence", "The newest evidence of a type, with its envelope", |this, app, who, now| {
    evidence::read(app.store(), &this.component, &word(&this.version)?, &this.kind, now).await
});

question!(
    /// Asks what a build printed.
    BuildLog {
        /// Which component.
        component: ComponentName,
        /// Which build: a number or anything that names its artefact.
        build: String,
    }
);

call!(BuildLog => versions::BuildLog, GET "/builds/log", "A build and where its log is", |this, app, who, now| {
    versions::build_log(app.store(), &this.component, &word(&this.build)?, now).await
});

question!(
    /// Hashes every byte of an artefact and checks what is said about it.
    Verify {
        /// Which component.
        component: ComponentName,
        /// Which of its artefacts, as a person writes it.
        version: String,
    }
);

call!(Verify => versions::Verified, GET "/versions/verify", "Hash an artefact, check its signatures, prove its name", |this, app, who, now| {
    versions::verify(app.store(), &this.component, &word(&this.version)?, now).await
});

question!(
    /// Asks what runs where.
    Status {
        /// Only this component.
        component: Option<ComponentName>,
    }
);

/// What runs where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusList {
    /// By component, in the order of its pipeline.
    pub environments: Vec<status::StatusLine>,
    /// What is not published yet, because parts of it are to come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<status::Waiting>,
}

call!(Status => StatusList, GET "/status", "What runs where", |this, app, who, now| {
    let (store, component) = (app.store(), this.component.as_ref());
    let environments = status::status(store, component, now).await?;
    Ok(StatusList { environments, waiting: status::waiting(store, component).await? })
});

question!(
    /// Asks what happened in an environment.
    History {
        /// Which component.
        component: ComponentName,
        /// Where.
        environment: EnvironmentName,
        /// At most so many.
        limit: u64,
    }
);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryList {
    /// Newest first.
    pub events: Vec<history::Happened>,
}

call!(History => HistoryList, GET "/history", "What happened in an environment", |this, app, who, now| {
    let mut conn = app.store().reader().await?;
    if let Some(in_force) = pipeline::find(app.store(), &mut conn, &this.component).await? {
        pipeline::binding(&in_force, &this.environment)?;
    }
    drop(conn);
    Ok(HistoryList { events: history::history(app.store(), &this.component, &this.environment, this.limit).await? })
});

question!(
    /// Asks where something is.
    Where {
        /// Only in this component.
        component: Option<ComponentName>,
        /// A commit, a version, a build number or a digest.
        word: String,
    }
);

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhereList {
    /// Every artefact that the word can mean.
    pub places: Vec<place::Whereabouts>,
}

call!(Where => WhereList, GET "/where", "Where a commit, version or digest is", |this, app, who, now| {
    Ok(WhereList { places: place::locate(app.store(), this.component.as_ref(), &this.word, now).await? })
});

question!(
    /// Asks why an environment runs what it runs.
    Why {
        /// Which component.
        component: ComponentName,
        /// Where.
        environment: EnvironmentName,
    }
);

call!(Why => why::Why, GET "/why", "Why an environment runs what it runs", |this, app, who, now| {
    why::why(app.store(), &this.component, &this.environment).await
});

question!(
    /// Compares two environments.
    Diff {
        /// Which component.
        component: ComponentName,
        /// The first.
        first: EnvironmentName,
        /// The second.
        second: EnvironmentName,
    }
);

call!(Diff => difference::Difference, GET "/diff", "What differs between two environments", |this, app, who, now| {
    difference::difference(app.store(), &this.component, &this.first, &this.second).await
});

question!(
    /// Compares two artefacts.
    Compare {
        /// Which component.
        component: ComponentName,
        /// The first, as a person writes it.
        first: String,
        /// The second.
        second: String,
    }
);

call!(Compare => comparison::Comparison, GET "/versions/diff", "What differs between two artefacts", |this, app, who, now| {
    let (first, second) = (word(&this.first)?, word(&this.second)?);
    comparison::compare(app.store(), &this.component, &first, &second, now).await
});

call!(collect::Collect => collect::Collected, POST "/collections", "Let bytes go by rule, or say which would", |this, app, who, now| {
    collect::collect(app.store(), who, this, now).await
});

call!(scrub::Scrub => scrub::Scrubbed, POST "/scrubs", "Hash blobs again, the longest unseen first", |this, app, who, now| {
    scrub::scrub(app.store(), this, now).await
});

question!(
    /// Verifies the whole store.
    VerifyAudit {}
);

/// What a verification of the whole store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReport {
    /// How many entries were hashed.
    pub entries: u64,
    /// How many checkpoints were compared.
    pub checkpoints: u64,
    /// How many decisions were evaluated again.
    pub decisions: u64,
    /// How many blobs were hashed.
    pub blobs: u64,
    /// The bytes that they have.
    pub blob_bytes: u64,
    /// The root of the tree.
    pub root: Digest,
    /// Everything that is not as it should be.
    pub problems: Vec<String>,
}

call!(VerifyAudit => AuditReport, POST "/audit/verify", "Verify ledger, projections, decisions and blobs", |_this, app, who, now| {
    let report = audit::verify(app.store()).await.map_err(broken)?;
    Ok(AuditReport {
        entries: report.entries,
        checkpoints: report.checkpoints,
        decisions: report.decisions,
        blobs: report.blobs,
        blob_bytes: report.blob_bytes,
        root: format!("sha256:{}", report.root).parse().unwrap_or_else(|_| Digest::of(b"")),
        problems: report.problems,
    })
});

fn broken(error: audit::AuditError) -> EngineError {
    match error {
        audit::AuditError::Sql(error) => error.into(),
        audit::AuditError::Read(error) => error.into(),
        other => {
            EngineError::Verification { what: format!("the store cannot be verified: {other}"), hint: None }
        }
    }
}

question!(
    /// Drops the projections and folds the ledger again.
    Rebuild {}
);

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rebuilt {
    /// How many entries were folded.
    pub entries: u64,
}

call!(Rebuild => Rebuilt, POST "/audit/rebuild", "Drop the projections and fold the ledger again", |_this, app, who, now| {
    let entries = recover::rebuild(app.store()).await.map_err(|error| EngineError::Verification {
        what: format!("the projections cannot be rebuilt: {error}"),
        hint: Some("semel audit verify".to_owned()),
    })?;
    Ok(Rebuilt { entries })
});

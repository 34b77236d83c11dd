//! The verbs through their public door, against a real store.

#![allow(clippy::unwrap_used, reason = "a helper of a test panics for the test")]

#[path = "../../../store/tests/it/cluster.rs"]
#[allow(dead_code, reason = "the tests of the store use all of it")]
mod cluster;

mod allocate;
mod attest;
mod build_log;
mod channels;
mod collect;
mod component;
mod deploy;
mod deprecate;
mod draft;
mod finalise;
mod hold;
mod home;
mod look;
mod observe;
mod parts;
mod promote;
mod publish;
mod reserve;
mod rollback;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use semel_engine::deploy::{Config, Finish, Order, Outcome, Start, Started};
use semel_engine::error::EngineError;
use semel_engine::pipeline::{Apply, InForce};
use semel_engine::promote::{Promote, Promoted};
use semel_engine::publish::{Bind, Bound};
use semel_engine::reserve::{Built, Commit, Committed, Finished, Granted, Holding, Reservation, Reserve};
use semel_engine::store_manifest::Manifest;
use semel_engine::{pipeline, promote as promoting, publish as publishing, reserve as reserving};
use semel_model::actor::Actor;
use semel_model::build::{BuildInputs, CommitFact, History, Line, bump_of};
use semel_model::config::{Snapshot, SnapshotEntry, Source};
use semel_model::deployment::{FilesState, HealthState, Observed, RunState};
use semel_model::digest::Digest;
use semel_model::entry::{Change, Entry, Leaf};
use semel_model::name::{CommitId, ComponentName, EnvironmentName};
use semel_model::statement::Claim;
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use semel_store::blobs::Stored;
use semel_store::sql::DatabaseUrl;
use semel_store::{Place, Store, audit, ledger};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A contract with a port that has a default, a level, and a secret.
const CONTRACT: &str = r#"{"DATABASE_URL":{"secret":true,"type":"url"},"LOG_LEVEL":{"of":["debug","info"],"type":"enum"},"PORT":{"default":8080,"type":"port"}}"#;

/// What every builder says.
fn provenance() -> Claim {
    Claim::provenance(json!({
        "buildDefinition": {"buildType": "https://semel.dev/build/v1"},
        "runDetails": {"builder": {"id": semel_model::reservation::LOCAL_BUILDER}},
    }))
}

/// With `SEMEL_TEST_POSTGRES` set, every store of these tests has its tables in PostgreSQL.
#[allow(clippy::disallowed_methods, reason = "it is for whoever runs the tests to choose")]
fn database(dir: &Path) -> Option<DatabaseUrl> {
    std::env::var_os("SEMEL_TEST_POSTGRES")?;
    let server = cluster::Cluster::get()?;
    let name = dir.file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned();
    server.create(&name);
    Some(server.url(&name).parse().unwrap())
}

/// A store of its own, somebody who works with it, and a clock that goes on by a second with every look at it.
struct World {
    store: Store,
    who: Actor,
    clock: Cell<i64>,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let database = database(dir.path());
        let place = Place { dir: dir.path().join("store"), keys: dir.path().join("keys"), database };
        let store = Store::open_or_create(&place, time(0)).await.unwrap();
        let who = store.local_actor("ana@shop.example", "test").await.unwrap();
        Self { store, who, clock: Cell::new(0), _dir: dir }
    }

    /// A world with the pipeline dev → staging → production, where staging wants a test result.
    async fn with_pipeline() -> Self {
        let world = Self::new().await;
        world.apply(&usual_pipeline()).await;
        world
    }

    fn now(&self) -> Timestamp {
        self.wait(1)
    }

    fn wait(&self, seconds: i64) -> Timestamp {
        self.clock.set(self.clock.get() + seconds);
        time(self.clock.get())
    }

    /// Stores an artefact with these bytes.
    async fn artefact(&self, content: &str) -> Digest {
        self.artefact_with(content, None).await
    }

    /// Stores an artefact with these bytes and this configuration contract.
    async fn artefact_with(&self, content: &str, contract: Option<&str>) -> Digest {
        let layer = self.upload(content.as_bytes()).await;
        self.upload(b"{}").await;
        let annotations = contract.map(|text| ("dev.semel.contract".to_owned(), text.to_owned()));
        let manifest = ImageManifest {
            artifact_type: Some(media_type::SEMEL_ARCHIVE.to_owned()),
            config: Descriptor::empty(),
            layers: vec![Descriptor::new(media_type::OCI_LAYER_TAR, layer.digest, layer.size)],
            subject: None,
            annotations: annotations.into_iter().collect(),
        }
        .encode();
        let component = component();
        let manifest = Manifest {
            component: &component,
            bytes: &manifest.bytes,
            media_type: Some(media_type::OCI_MANIFEST),
            digest: None,
        };
        semel_engine::store_manifest::store_manifest(&self.store, &self.who, manifest, self.now())
            .await
            .unwrap()
            .digest
    }

    async fn upload(&self, bytes: &[u8]) -> Stored {
        let stored = self.store.blobs().put(bytes).unwrap();
        semel_engine::content::received(&self.store, &component(), &stored.digest).await.unwrap();
        stored
    }

    async fn bind(&self, tag: &str, digest: &Digest) -> Result<Bound, EngineError> {
        publishing::bind(&self.store, &self.who, name(tag, digest), self.now()).await
    }

    /// Publishes an artefact of its own under a version.
    async fn published(&self, version: &str) -> Digest {
        let digest = self.artefact(version).await;
        let bound = self.bind(version, &digest).await.unwrap();
        assert!(matches!(bound, Bound::Published { .. }), "{bound:?}");
        digest
    }

    async fn reserve(&self, request: Reserve) -> Reservation {
        reserving::reserve(&self.store, &self.who, request, self.now()).await.unwrap()
    }

    /// Reserves what nobody has reserved.
    async fn granted(&self, request: Reserve) -> Granted {
        match self.reserve(request).await {
            Reservation::Yours(granted) => granted,
            other => panic!("not ours to build: {other:?}"),
        }
    }

    async fn commit(&self, granted: &Granted, digest: &Digest) -> Result<Built, EngineError> {
        match self.deliver(holding(granted), digest).await?.finished {
            Finished::Built(built) => Ok(built),
            Finished::Part(part) => panic!("only a part: {part:?}"),
        }
    }

    /// Comes back with a result, in time or not.
    async fn deliver(&self, holding: Holding, digest: &Digest) -> Result<Committed, EngineError> {
        let request = Commit { holding, digest: digest.clone(), claims: vec![provenance()], log: None };
        reserving::commit(&self.store, &self.who, request, self.now()).await
    }

    /// Builds the source tree `tree` of commit `n` on the main line.
    async fn built(&self, n: u8, tree: &str) -> Built {
        let granted = self.granted(request(n, tree)).await;
        let digest = self.artefact(tree).await;
        self.commit(&granted, &digest).await.unwrap()
    }

    async fn apply(&self, environments: &Value) -> InForce {
        let request = Apply {
            component: component(),
            pipeline: serde_json::from_value(json!({"v": 1, "environments": environments})).unwrap(),
            only_first: false,
        };
        pipeline::apply(&self.store, &self.who, request, self.now()).await.unwrap()
    }

    async fn attest(&self, version: &str, kind: &str, result: &str) {
        let request = serde_json::from_value(
            json!({"component": component(), "version": version, "type": kind, "result": result}),
        );
        semel_engine::attest::attest(&self.store, &self.who, request.unwrap(), self.now()).await.unwrap();
    }

    async fn promote(&self, version: &str, environment: &str) -> Promoted {
        let request = promotion(version, environment);
        promoting::promote(&self.store, &self.who, request, self.now()).await.unwrap()
    }

    async fn start(&self, request: Start) -> Started {
        semel_engine::deploy::start(&self.store, &self.who, request, self.now()).await.unwrap()
    }

    /// Begins a deployment that no rule forbids.
    async fn order(&self, request: Start) -> Order {
        match self.start(request).await {
            Started::Go(order) => order,
            Started::Refused(refusal) => panic!("refused: {:?}", refusal.reasons),
        }
    }

    /// Begins a deployment that a rule forbids, and gives the reasons and remedies.
    async fn refusal(&self, request: Start) -> (Vec<String>, Vec<String>) {
        match self.start(request).await {
            Started::Go(order) => panic!("allowed: {order:?}"),
            Started::Refused(refusal) => (refusal.reasons, refusal.remedies),
        }
    }

    async fn finish(&self, order: &Order, outcome: Outcome) -> semel_engine::deploy::Finished {
        let observed = match outcome {
            Outcome::Succeeded { .. } => running(order),
            _ => Observed::absent(),
        };
        self.finish_with(order, outcome, observed).await
    }

    async fn finish_with(
        &self,
        order: &Order,
        outcome: Outcome,
        observed: Observed,
    ) -> semel_engine::deploy::Finished {
        let request = Finish {
            component: component(),
            environment: order.environment.clone(),
            generation: order.generation,
            outcome,
            observed,
        };
        semel_engine::deploy::finish(&self.store, &self.who, request, self.now()).await.unwrap()
    }

    /// A deployment from its beginning to its success.
    async fn deployed(&self, version: &str, environment: &str) -> Order {
        let order = self.order(start(version, environment)).await;
        self.finish(&order, succeeded()).await;
        order
    }

    /// Every entry, oldest first.
    async fn entries(&self) -> Vec<Entry> {
        let mut conn = self.store.reader().await.unwrap();
        let recorded = ledger::read(&mut conn, 0, 100_000).await.unwrap();
        let entry = |leaf| match leaf {
            Leaf::Entry(entry) => Some(*entry),
            Leaf::Signature(_) => None,
        };
        recorded.into_iter().filter_map(|one| entry(one.leaf)).collect()
    }

    async fn count(&self, kind: &str) -> usize {
        self.entries().await.iter().filter(|entry| entry.change.kind() == kind).count()
    }

    /// How many leaves the ledger has: what records nothing leaves it as it is.
    async fn size(&self) -> u64 {
        ledger::size(&mut self.store.reader().await.unwrap()).await.unwrap()
    }

    /// The newest entry of a kind.
    async fn newest(&self, kind: &str) -> Change {
        let entries = self.entries().await;
        entries.into_iter().rev().find(|entry| entry.change.kind() == kind).unwrap().change
    }

    /// Everything that a scenario did is still provable.
    async fn assert_sound(&self) {
        let report = audit::verify(&self.store).await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        let recorded = self.size().await;
        assert_eq!(report.entries, recorded);
    }
}

fn time(second: i64) -> Timestamp {
    // 2100-11-22T10:00:00Z: later than the disk's clock, by which blobs have the time when they were written
    Timestamp::from_second(4_130_560_800 + second).unwrap()
}

fn component() -> ComponentName {
    "shop/api".parse().unwrap()
}

fn environment(name: &str) -> EnvironmentName {
    name.parse().unwrap()
}

fn name(tag: &str, digest: &Digest) -> Bind {
    Bind {
        component: component(),
        tag: tag.parse().unwrap(),
        digest: digest.clone(),
        commit: None,
        location: None,
        home: None,
        absent: false,
    }
}

fn commit_id(n: u8) -> CommitId {
    format!("{n:02x}").repeat(20).parse().unwrap()
}

/// Commit `n` follows commit `n - 1`, back to commit 1.
fn request(n: u8, tree: &str) -> Reserve {
    let fact = |n: u8| CommitFact {
        id: commit_id(n),
        parents: if n > 1 { vec![commit_id(n - 1)] } else { Vec::new() },
        author: "ben@shop.example".to_owned(),
        subject: format!("fix: number {n}"),
        bump: bump_of("fix: something"),
        outside: false,
    };
    Reserve {
        inputs: BuildInputs {
            v: 1,
            component: component(),
            format: 1,
            source: Digest::of(tree.as_bytes()),
            definition: Digest::of(b"definition"),
            bases: Vec::new(),
            salt: 0,
        },
        commit: commit_id(n),
        tree: commit_id(n).to_string(),
        line: Line::Main("main".to_owned()),
        history: History {
            commits: (1..=n).rev().map(fact).collect(),
            tags: BTreeMap::new(),
            manifest: None,
            truncated: false,
            shallow: false,
            tips: false,
            releases: Vec::new(),
        },
        head: None,
        scheme: None,
        bump: None,
        holder: "ana on laptop".to_owned(),
        process: None,
        again: None,
        platforms: Vec::new(),
        platform: None,
        waited_for: None,
        gone: None,
        number: None,
    }
}

fn holding(granted: &Granted) -> Holding {
    Holding { component: component(), number: granted.number, platform: None, token: granted.token.clone() }
}

fn usual_pipeline() -> Value {
    json!({
        "dev": {"target": {"kind": "directory"}},
        "staging": {"after": ["dev"], "gates": [{"evidence": "junit"}], "target": {"kind": "directory"}},
        "production": {"after": ["staging"], "target": {"kind": "directory"}},
    })
}

fn promotion(version: &str, place: &str) -> Promote {
    Promote {
        component: component(),
        version: version.to_owned(),
        environment: environment(place),
        plan: false,
        expect: None,
    }
}

fn start(version: &str, place: &str) -> Start {
    start_with(version, place, &[])
}

fn start_with(version: &str, place: &str, values: &[(&str, &str)]) -> Start {
    Start {
        component: component(),
        version: version.to_owned(),
        environment: environment(place),
        config: Config::Snapshot(snapshot(place, values, &[])),
        restart: 0,
        expect: None,
        rollback_of: None,
        newest: None,
    }
}

/// Plain values, and secrets as the commitments that stand for them.
fn snapshot(place: &str, values: &[(&str, &str)], commitments: &[(&str, &str)]) -> Snapshot {
    let plain =
        |value: &str| SnapshotEntry { source: Source::File, value: Some(value.to_owned()), commitment: None };
    let sealed =
        |value: &str| SnapshotEntry { source: Source::Set, value: None, commitment: Some(value.to_owned()) };
    let entries = values
        .iter()
        .map(|(key, value)| (key.parse().unwrap(), plain(value)))
        .chain(commitments.iter().map(|(key, value)| (key.parse().unwrap(), sealed(value))));
    Snapshot { v: 1, environment: environment(place), entries: entries.collect() }
}

fn succeeded() -> Outcome {
    Outcome::Succeeded { needs: Vec::new(), warnings: Vec::new() }
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { reason: reason.to_owned(), restored: None }
}

fn errored(reason: &str) -> Outcome {
    Outcome::Errored { reason: reason.to_owned(), restored: None }
}

/// What a target reports when it runs what was ordered.
fn running(order: &Order) -> Observed {
    Observed {
        generation: Some(order.generation),
        key: Some(order.key.clone()),
        artefact: Some(order.artefact.digest.clone()),
        config: Some(order.config.clone()),
        state: RunState::Running,
        health: HealthState::Healthy,
        files: FilesState::Intact,
        since: None,
    }
}

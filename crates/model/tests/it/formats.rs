//! Golden tests of what is written for ever: docs/format.md says what each of these documents means.
//!
//! A failure here means that stores of today could not be read, or that keys and digests of today would change. The answer
//! is a new format number, never a new expectation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use p256::ecdsa::SigningKey;
use semel_model::allocation::{KnownCommit, Scheme};
use semel_model::build::{Bump, CommitFact, Line, ReleaseLine, TreeEntry, source_tree_digest};
use semel_model::canonical;
use semel_model::config::{self, Contract, Offered, Snapshot, Source};
use semel_model::deployment::{Drift, FilesState, HealthState, Observed, RunState};
use semel_model::digest::Digest;
use semel_model::entry::{
    BuildFailed, BuildReserved, Change, ChannelMoved, CommitMatched, CommitsRecorded, ComponentChanged,
    ComponentCreated, DeploymentFailed, DeploymentRefused, DeploymentStarted, DeploymentSucceeded,
    DriftDetected, EvidenceAttached, FailedOutcome, HoldReleased, HoldSet, HomeMoved, HomeTaken, Leaf,
    LocationRecorded, ManifestRemoved, ManifestStored, ObservationChanged, OverwriteRefused, PartBuilt,
    PipelineApplied, PromotionDecided, Rejected, RejectedThing, StoreCreated, VersionDeprecated,
    VersionExpired, VersionFinalised, VersionPublished, VersionRevived,
};
use semel_model::keep::{Keep, Terms};
use semel_model::name::{CommitId, ComponentName, EnvironmentName};
use semel_model::pipeline::{EvidenceResult, Gate};
use semel_model::project::Project;
use semel_model::promotion::{EvidenceFact, Inputs, RejectionFact, SuccessFact, decide};
use semel_model::statement::{Envelope, Statement};
use semel_model::version::{TagPolicy, Version};
use serde::Serialize;
use serde_json::json;

#[test]
fn the_body_of_every_kind_of_entry_is_frozen() {
    let bodies: Vec<(&str, String)> =
        every_change().iter().map(|change| (change.kind(), body(change))).collect();
    let expected = [
        ("StoreCreated", r#"{"ledger_key":"key","origin":"0123.semel","store":"0123"}"#),
        ("ComponentCreated", r#"{"component":"shop/api","home":"0123","policy":"release"}"#),
        (
            "BuildReserved",
            concat!(
                r#"{"commit":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","component":"shop/api","key":"<key>","#,
                r#""line":{"main":"main"},"number":482,"source":"<source>","version":"1.4.2"}"#
            ),
        ),
        ("BuildFailed", r#"{"component":"shop/api","log":"<log>","number":482,"reason":"run failed"}"#),
        (
            "PartBuilt",
            concat!(
                r#"{"component":"shop/api","digest":"<artefact>","log":"<log>","number":482,"#,
                r#""platform":"linux/arm64"}"#
            ),
        ),
        (
            "HomeMoved",
            concat!(
                r#"{"component":"shop/api","from":"0123","last_build":482,"#,
                r#""place":"https://semel.example","to":"4567"}"#
            ),
        ),
        ("HomeTaken", r#"{"component":"shop/api","from":"0123","home":"4567","proof":"<proof>"}"#),
        (
            "CommitMatched",
            r#"{"commit":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","component":"shop/api","number":482}"#,
        ),
        (
            "ManifestStored",
            concat!(
                r#"{"component":"shop/api","digest":"<artefact>","#,
                r#""media_type":"application/vnd.oci.image.manifest.v1+json","size":512,"subject":"<subject>"}"#
            ),
        ),
        (
            "VersionPublished",
            concat!(
                r#"{"commit":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","component":"shop/api","#,
                r#""digest":"<artefact>","log":"<log>","number":482,"version":"1.4.2"}"#
            ),
        ),
        (
            "ChannelMoved",
            r#"{"channel":"latest","component":"shop/api","from":"<earlier>","to":"<artefact>"}"#,
        ),
        (
            "OverwriteRefused",
            r#"{"bound":"<artefact>","component":"shop/api","pushed":"<other>","version":"1.4.2"}"#,
        ),
        (
            "LocationRecorded",
            "{\"component\":\"shop/api\",\"digest\":\"<artefact>\",\"place\":\"registry.example/shop/api@sha256:…\"}",
        ),
        (
            "EvidenceAttached",
            concat!(
                r#"{"attachment":"<report>","component":"shop/api","digest":"<artefact>","#,
                r#""envelope":"<envelope>","environment":"production","#,
                r#""predicate_type":"https://in-toto.io/attestation/test-result/v0.1","result":"pass","#,
                r#""signer":"hint"}"#
            ),
        ),
        ("PipelineApplied", r#"{"component":"shop/api","pipeline":"<pipeline>","replaces":"<earlier>"}"#),
        (
            "PromotionGranted",
            concat!(
                r#"{"component":"shop/api","decision":"<decision>","digest":"<artefact>","#,
                r#""environment":"production","statement":"<statement>","version":"1.4.2"}"#
            ),
        ),
        (
            "PromotionRefused",
            concat!(
                r#"{"component":"shop/api","decision":"<decision>","digest":"<artefact>","#,
                r#""environment":"production","version":"1.4.2"}"#
            ),
        ),
        (
            "DeploymentStarted",
            concat!(
                r#"{"component":"shop/api","config":"<config>","decision":"<decision>","digest":"<artefact>","#,
                r#""environment":"production","generation":7,"key":"<key>","rollback_of":6,"target":"<target>","#,
                r#""version":"1.4.2"}"#
            ),
        ),
        (
            "DeploymentSucceeded",
            concat!(
                r#"{"checked_by":"semel","component":"shop/api","environment":"production","generation":7,"#,
                r#""needs":["node 20.11.1"]}"#
            ),
        ),
        (
            "DeploymentFailed",
            concat!(
                r#"{"component":"shop/api","environment":"production","generation":7,"outcome":"failed","#,
                r#""reason":"not healthy","restored":6}"#
            ),
        ),
        (
            "DeploymentRefused",
            concat!(
                r#"{"component":"shop/api","digest":"<artefact>","environment":"production","#,
                r#""reasons":["PORT is missing"]}"#
            ),
        ),
        (
            "ObservationChanged",
            concat!(
                r#"{"artefact":"<artefact>","component":"shop/api","config":"<config>","#,
                r#""environment":"production","files":"intact","generation":7,"health":"healthy","key":"<key>","#,
                r#""since":"2026-11-22T19:50:00.25Z","state":"running"}"#
            ),
        ),
        (
            "DriftDetected",
            concat!(
                r#"{"component":"shop/api","drift":["stale","stopped","wrong-artefact","config-drift","#,
                r#""swapped","edited","unhealthy"],"environment":"production","generation":7}"#
            ),
        ),
        ("HoldSet", r#"{"component":"shop/api","environment":"production","reason":"freeze"}"#),
        ("HoldReleased", r#"{"component":"shop/api","environment":"production"}"#),
        (
            "Rejected",
            concat!(
                r#"{"component":"shop/api","environments":["production"],"reason":"it leaks","#,
                r#""what":{"digest":"<artefact>"}}"#
            ),
        ),
        (
            "Accepted",
            concat!(
                r#"{"component":"shop/api","environments":["production"],"reason":"it leaks","#,
                r#""what":{"key":"<key>"}}"#
            ),
        ),
        (
            "Rejected",
            r#"{"component":"shop/api","pulls":true,"reason":"it leaks","what":{"digest":"<artefact>"}}"#,
        ),
        (
            "ComponentChanged",
            concat!(
                r#"{"component":"shop/api","keep":{"branch":"14d","promoted":"for ever","trunk":"30d"},"#,
                r#""patterns":["build-#"]}"#
            ),
        ),
        ("VersionDeprecated", r#"{"component":"shop/api","reason":"use 1.4.3","version":"1.4.2"}"#),
        (
            "VersionExpired",
            r#"{"component":"shop/api","digest":"<artefact>","rule":"trunk=90d","version":"1.4.2"}"#,
        ),
        ("VersionRevived", r#"{"component":"shop/api","digest":"<artefact>","version":"1.4.2"}"#),
        ("ManifestRemoved", r#"{"component":"shop/api","digest":"<artefact>","reason":"deleted"}"#),
        (
            "BuildReserved",
            concat!(
                r#"{"commit":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","component":"shop/api","key":"<key>","#,
                r#""line":{"release":{"major":1,"minor":4,"name":"release/1.4"}},"number":483,"source":"<source>","#,
                r#""version":"1.4.2"}"#
            ),
        ),
        ("ComponentChanged", r#"{"component":"shop/api","scheme":"candidate"}"#),
        (
            "CommitsRecorded",
            concat!(
                r#"{"commits":[{"author":"a1b2c3d4e5f60718","bump":"stable","#,
                r#""id":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","#,
                r#""parents":["4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2"]},{"author":"a1b2c3d4e5f60718","#,
                r#""id":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","parents":[]}],"component":"shop/api"}"#
            ),
        ),
        (
            "VersionFinalised",
            concat!(
                r#"{"candidate":"1.4.2-rc.3","commit":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","#,
                r#""component":"shop/api","digest":"<artefact>","number":482,"version":"1.4.2"}"#
            ),
        ),
    ];
    assert_eq!(bodies.len(), expected.len());
    for ((kind, body), (expected_kind, expected_body)) in bodies.iter().zip(expected) {
        assert_eq!((*kind, body.as_str()), (expected_kind, expected_body));
    }
}

#[test]
fn what_is_absent_is_left_out() {
    let published = Change::VersionPublished(VersionPublished {
        component: component(),
        version: version(),
        digest: digest("artefact"),
        number: None,
        commit: None,
        log: None,
        source: None,
    });
    assert_eq!(body(&published), r#"{"component":"shop/api","digest":"<artefact>","version":"1.4.2"}"#);
    let undeprecated = VersionDeprecated { component: component(), version: version(), reason: None };
    let change = Change::VersionDeprecated(undeprecated);
    assert_eq!(body(&change), r#"{"component":"shop/api","version":"1.4.2"}"#);
    let unchanged = ComponentChanged { component: component(), keep: None, patterns: None, scheme: None };
    assert_eq!(body(&Change::ComponentChanged(unchanged)), r#"{"component":"shop/api"}"#);
}

#[test]
fn a_pipeline_is_frozen() {
    let project = Project::parse("semel.toml", PROJECT).unwrap();
    assert_eq!(
        text(&project.pipeline),
        concat!(
            r#"{"environments":{"dev":{"target":{"health":["/app/check","now"],"healthy_within":"5s","#,
            r#""kind":"directory","path":"/srv/api"}},"production":{"after":["dev"],"#,
            r#""gates":[{"environment":"dev","evidence":"junit","max_age":"7d"},{"evidence":"manual","#,
            r#""result":"info"}],"target":{"health":"http://127.0.0.1:${PORT}/healthz","kind":"directory"},"#,
            r#""values":"config/production.toml"}},"v":1}"#
        )
    );
    assert_eq!(project.pipeline.digest(), digest_of(&project.pipeline));
}

#[test]
fn the_specification_of_a_target_is_frozen() {
    let project = Project::parse("semel.toml", PROJECT).unwrap();
    let targets: Vec<String> =
        project.pipeline.environments.values().filter_map(|one| one.target.as_ref()).map(text).collect();
    assert_eq!(
        targets,
        [
            r#"{"health":["/app/check","now"],"healthy_within":"5s","kind":"directory","path":"/srv/api"}"#,
            r#"{"health":"http://127.0.0.1:${PORT}/healthz","kind":"directory"}"#,
        ]
    );
}

#[test]
fn a_decision_is_frozen() {
    assert_eq!(
        text(&decide(inputs())),
        concat!(
            r#"{"gates":[{"gate":"not-rejected","reason":"rejected: it leaks","#,
            r#""remedy":{"command":"accept shop/api@1.4.2","who":"whoever answers for it"},"#,
            r#""verdict":"fail"},{"gate":"after dev","#,
            r#""reason":"deployed to dev as generation 3 (2026-11-22T19:50:00.25Z)","verdict":"pass"},"#,
            r#"{"gate":"after staging","reason":"never deployed successfully to staging","#,
            r#""remedy":{"command":"deploy shop/api@1.4.2 staging","who":"whoever deploys to staging"},"#,
            r#""verdict":"fail"},{"gate":"junit=pass","reason":"pass (2026-11-22T19:50:00.25Z)","#,
            r#""rests_on":"<envelope>","verdict":"pass"},{"gate":"manual=pass","#,
            r#""reason":"no evidence of type manual","#,
            r#""remedy":{"command":"attest shop/api@1.4.2 --type manual --result pass","#,
            r#""who":"whoever runs that check"},"verdict":"fail"}],"inputs":{"after":["dev","staging"],"#,
            r#""clock":"2026-11-22T19:50:00.25Z","component":"shop/api","digest":"<artefact>","#,
            r#""environment":"production","evidence":[{"envelope":"<envelope>","environment":"dev","#,
            r#""predicate_type":"https://in-toto.io/attestation/test-result/v0.1","result":"pass","#,
            r#""time":"2026-11-22T19:50:00.25Z"}],"gates":[{"evidence":"junit"},{"evidence":"manual"}],"#,
            r#""policy":"<policy>","rejections":[{"reason":"it leaks","time":"2026-11-22T19:50:00.25Z"}],"#,
            r#""successes":[{"environment":"dev","generation":3,"time":"2026-11-22T19:50:00.25Z"}],"#,
            r#""version":"1.4.2"},"outcome":"refused","v":1}"#
        )
    );
}

#[test]
fn a_config_snapshot_and_its_commitments_are_frozen() {
    let contract: Contract = serde_json::from_value(json!({
        "PORT": {"type": "port", "default": 8080},
        "TOKEN": {"type": "string", "secret": true},
    }))
    .unwrap();
    let offered = BTreeMap::from([
        ("PORT".parse().unwrap(), Offered { value: "8080".to_owned(), source: Source::Default }),
        ("TOKEN".parse().unwrap(), Offered { value: "hunter2".to_owned(), source: Source::Set }),
    ]);
    let resolved = config::resolve(&contract, &environment(), &offered).unwrap();
    let snapshot = Snapshot::new(&contract, &environment(), &resolved, &[7; 32]);
    assert_eq!(
        text(&snapshot),
        concat!(
            r#"{"entries":{"PORT":{"source":"default","value":"8080"},"#,
            r#""TOKEN":{"commitment":"2653ffd0d71ca980569d0d7108b4e8d8ccc89d39b37a723fda1e968d60a6966a","#,
            r#""source":"set"}},"environment":"production","v":1}"#
        )
    );
}

#[test]
fn the_digest_of_a_source_tree_is_frozen() {
    let file = |path: &str, mode: &str, object: &str| TreeEntry {
        path: path.into(),
        mode: mode.to_owned(),
        object: object.repeat(20),
    };
    let tree = source_tree_digest(vec![
        file("src/main.rs", "100644", "1f"),
        file("run", "100755", "2e"),
        file("link", "120000", "3d"),
    ]);
    assert_eq!(tree.as_str(), "sha256:7c76b854c7e22f3da6eef31c77c15fe1e98d8f99f15543ed80eab6ab3c0a8caa");
}

#[test]
fn a_statement_its_envelope_and_its_bundle_are_frozen() {
    let statement =
        Statement::about("shop/api", &digest("artefact"), "https://slsa.dev/provenance/v1", json!({"a": 1}));
    assert_eq!(
        text(&statement),
        concat!(
            r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"a":1},"#,
            r#""predicateType":"https://slsa.dev/provenance/v1","#,
            r#""subject":[{"digest":{"sha256":"<artefact in hex>"},"name":"shop/api"}]}"#
        )
    );
    let envelope: Envelope = serde_json::from_value(json!({
        "payload": "e30=",
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": "hint", "sig": "MAYCAQECAQE="}],
    }))
    .unwrap();
    assert_eq!(
        String::from_utf8(envelope.to_bytes()).unwrap(),
        concat!(
            r#"{"payload":"e30=","payloadType":"application/vnd.in-toto+json","#,
            r#""signatures":[{"keyid":"hint","sig":"MAYCAQECAQE="}]}"#
        )
    );
    assert_eq!(
        String::from_utf8(envelope.bundle()).unwrap(),
        concat!(
            r#"{"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","#,
            r#""signatures":[{"keyid":"hint","sig":"MAYCAQECAQE="}]},"#,
            r#""mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","#,
            r#""verificationMaterial":{"publicKey":{"hint":"hint"}}}"#
        )
    );
}

#[test]
fn the_leaf_of_a_signature_is_frozen() {
    let key = SigningKey::from_slice(&[1; 32]).unwrap();
    let statement =
        Statement::about("shop/api", &digest("artefact"), "https://slsa.dev/provenance/v1", json!({"a": 1}));
    let leaf = Envelope::sign(&statement, &key).hashedrekord(key.verifying_key()).unwrap();
    assert_eq!(Leaf::parse(&leaf).unwrap().kind(), "signature");
    assert_eq!(
        Digest::of(&leaf).as_str(),
        "sha256:2dc0738301638d7babd6f3fa95b5abd8c40e5d52967043510b2a03ba161e1478"
    );
}

#[test]
fn the_facts_about_a_commit_are_frozen() {
    let fact = CommitFact {
        id: commit(),
        parents: vec![commit()],
        author: "a1b2c3d4e5f60718".to_owned(),
        subject: "feat: refunds".to_owned(),
        bump: Bump::Minor,
        outside: false,
    };
    assert_eq!(
        text(&fact),
        concat!(
            r#"{"author":"a1b2c3d4e5f60718","bump":"minor","id":"4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2","#,
            r#""parents":["4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2ab4f1c2"],"subject":"feat: refunds"}"#
        )
    );
}

const PROJECT: &str = r#"format = 1
component = "shop/api"

[artefact]
kind = "archive"
entrypoint = ["/app/api"]
files = [{ from = "api", to = "/app/api" }]

[environment.dev]
target = { kind = "directory", path = "/srv/api", health = ["/app/check", "now"], healthy_within = "5s" }

[environment.production]
after = "dev"
gates = [{ evidence = "junit", max_age = "7d", environment = "dev" }, { evidence = "manual", result = "info" }]
values = "config/production.toml"
target = { kind = "directory", health = "http://127.0.0.1:${PORT}/healthz" }
"#;

/// One of every kind, with every field that it can have.
fn every_change() -> Vec<Change> {
    let promotion = PromotionDecided {
        component: component(),
        version: Some(version()),
        digest: digest("artefact"),
        environment: environment(),
        decision: digest("decision"),
        statement: Some(digest("statement")),
    };
    let refused = PromotionDecided { statement: None, ..promotion.clone() };
    let rejected = |what| Rejected {
        component: component(),
        what,
        environments: vec![environment()],
        reason: "it leaks".to_owned(),
        pulls: false,
    };
    vec![
        Change::StoreCreated(StoreCreated {
            store: "0123".to_owned(),
            origin: "0123.semel".to_owned(),
            ledger_key: "key".to_owned(),
        }),
        Change::ComponentCreated(ComponentCreated {
            component: component(),
            policy: TagPolicy::Release,
            home: "0123".to_owned(),
        }),
        Change::BuildReserved(BuildReserved {
            component: component(),
            number: 482,
            version: version(),
            key: digest("key"),
            commit: commit(),
            line: Line::Main("main".to_owned()),
            source: digest("source"),
            platforms: Vec::new(),
            again: None,
        }),
        Change::BuildFailed(BuildFailed {
            component: component(),
            number: 482,
            reason: "run failed".to_owned(),
            log: Some(digest("log")),
            platform: None,
        }),
        Change::PartBuilt(PartBuilt {
            component: component(),
            number: 482,
            platform: "linux/arm64".parse().unwrap(),
            digest: digest("artefact"),
            log: Some(digest("log")),
        }),
        Change::HomeMoved(HomeMoved {
            component: component(),
            from: "0123".to_owned(),
            to: "4567".to_owned(),
            place: Some("https://semel.example".to_owned()),
            last_build: 482,
            to_size: None,
        }),
        Change::HomeTaken(HomeTaken {
            component: component(),
            from: "0123".to_owned(),
            home: "4567".to_owned(),
            proof: digest("proof"),
        }),
        Change::CommitMatched(CommitMatched { component: component(), commit: commit(), number: 482 }),
        Change::ManifestStored(ManifestStored {
            component: component(),
            digest: digest("artefact"),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            size: 512,
            subject: Some(digest("subject")),
        }),
        Change::VersionPublished(VersionPublished {
            component: component(),
            version: version(),
            digest: digest("artefact"),
            number: Some(482),
            commit: Some(commit()),
            log: Some(digest("log")),
            source: None,
        }),
        Change::ChannelMoved(ChannelMoved {
            component: component(),
            channel: "latest".parse().unwrap(),
            from: Some(digest("earlier")),
            to: Some(digest("artefact")),
        }),
        Change::OverwriteRefused(OverwriteRefused {
            component: component(),
            version: version(),
            bound: digest("artefact"),
            pushed: digest("other"),
        }),
        Change::LocationRecorded(LocationRecorded {
            component: component(),
            digest: digest("artefact"),
            place: "registry.example/shop/api@sha256:…".to_owned(),
        }),
        Change::EvidenceAttached(EvidenceAttached {
            component: component(),
            digest: digest("artefact"),
            envelope: digest("envelope"),
            predicate_type: "https://in-toto.io/attestation/test-result/v0.1".to_owned(),
            result: EvidenceResult::Pass,
            signer: "hint".to_owned(),
            environment: Some(environment()),
            attachment: Some(digest("report")),
        }),
        Change::PipelineApplied(PipelineApplied {
            component: component(),
            pipeline: digest("pipeline"),
            replaces: Some(digest("earlier")),
        }),
        Change::PromotionGranted(promotion),
        Change::PromotionRefused(refused),
        Change::DeploymentStarted(DeploymentStarted {
            component: component(),
            environment: environment(),
            generation: 7,
            key: digest("key"),
            digest: digest("artefact"),
            version: Some(version()),
            config: digest("config"),
            target: digest("target"),
            decision: digest("decision"),
            rollback_of: Some(6),
        }),
        Change::DeploymentSucceeded(DeploymentSucceeded {
            component: component(),
            environment: environment(),
            generation: 7,
            checked_by: "semel".to_owned(),
            needs: vec!["node 20.11.1".to_owned()],
            warnings: Vec::new(),
        }),
        Change::DeploymentFailed(DeploymentFailed {
            component: component(),
            environment: environment(),
            generation: 7,
            outcome: FailedOutcome::Failed,
            reason: "not healthy".to_owned(),
            restored: Some(6),
        }),
        Change::DeploymentRefused(DeploymentRefused {
            component: component(),
            environment: environment(),
            digest: digest("artefact"),
            reasons: vec!["PORT is missing".to_owned()],
        }),
        Change::ObservationChanged(ObservationChanged {
            component: component(),
            environment: environment(),
            observed: Observed {
                generation: Some(7),
                key: Some(digest("key")),
                artefact: Some(digest("artefact")),
                config: Some(digest("config")),
                state: RunState::Running,
                health: HealthState::Healthy,
                files: FilesState::Intact,
                since: Some(time()),
            },
        }),
        Change::DriftDetected(DriftDetected {
            component: component(),
            environment: environment(),
            generation: 7,
            drift: vec![
                Drift::Stale,
                Drift::Stopped,
                Drift::WrongArtefact,
                Drift::ConfigDrift,
                Drift::Swapped,
                Drift::Edited,
                Drift::Unhealthy,
            ],
        }),
        Change::HoldSet(HoldSet {
            environment: environment(),
            component: Some(component()),
            reason: "freeze".to_owned(),
        }),
        Change::HoldReleased(HoldReleased { environment: environment(), component: Some(component()) }),
        Change::Rejected(rejected(RejectedThing::Digest(digest("artefact")))),
        Change::Accepted(rejected(RejectedThing::Key(digest("key")))),
        Change::Rejected(Rejected {
            environments: Vec::new(),
            pulls: true,
            ..rejected(RejectedThing::Digest(digest("artefact")))
        }),
        Change::ComponentChanged(ComponentChanged {
            component: component(),
            keep: Some("trunk=30d".parse::<Terms>().unwrap().over(Keep::default())),
            patterns: Some(vec!["build-#".parse().unwrap()]),
            scheme: None,
        }),
        Change::VersionDeprecated(VersionDeprecated {
            component: component(),
            version: version(),
            reason: Some("use 1.4.3".to_owned()),
        }),
        Change::VersionExpired(VersionExpired {
            component: component(),
            version: version(),
            digest: digest("artefact"),
            rule: "trunk=90d".to_owned(),
        }),
        Change::VersionRevived(VersionRevived {
            component: component(),
            version: version(),
            digest: digest("artefact"),
        }),
        Change::ManifestRemoved(ManifestRemoved {
            component: component(),
            digest: digest("artefact"),
            reason: "deleted".to_owned(),
        }),
        Change::BuildReserved(BuildReserved {
            component: component(),
            number: 483,
            version: version(),
            key: digest("key"),
            commit: commit(),
            line: Line::Release(ReleaseLine { name: "release/1.4".to_owned(), major: 1, minor: 4 }),
            source: digest("source"),
            platforms: Vec::new(),
            again: None,
        }),
        Change::ComponentChanged(ComponentChanged {
            component: component(),
            keep: None,
            patterns: None,
            scheme: Some(Scheme::Candidate),
        }),
        Change::CommitsRecorded(CommitsRecorded { component: component(), commits: known_commits() }),
        Change::VersionFinalised(VersionFinalised {
            component: component(),
            version: version(),
            candidate: "1.4.2-rc.3".parse().unwrap(),
            digest: digest("artefact"),
            number: Some(482),
            commit: Some(commit()),
        }),
    ]
}

/// One that asks for something, and one that changes nothing.
fn known_commits() -> Vec<KnownCommit> {
    let author = "a1b2c3d4e5f60718".to_owned();
    let asks = KnownCommit {
        id: commit(),
        parents: vec![commit()],
        author: author.clone(),
        bump: Some(Bump::Stable),
    };
    vec![asks, KnownCommit { id: commit(), parents: Vec::new(), author, bump: None }]
}

fn inputs() -> Inputs {
    let gate = |evidence: &str| Gate {
        evidence: evidence.to_owned(),
        result: EvidenceResult::Pass,
        max_age: None,
        environment: None,
    };
    Inputs {
        component: component(),
        version: Some(version()),
        digest: digest("artefact"),
        environment: environment(),
        policy: digest("policy"),
        after: vec!["dev".parse().unwrap(), "staging".parse().unwrap()],
        gates: vec![gate("junit"), gate("manual")],
        clock: time(),
        evidence: vec![EvidenceFact {
            envelope: digest("envelope"),
            predicate_type: "https://in-toto.io/attestation/test-result/v0.1".to_owned(),
            result: EvidenceResult::Pass,
            time: time(),
            environment: Some("dev".parse().unwrap()),
        }],
        successes: vec![SuccessFact { environment: "dev".parse().unwrap(), generation: 3, time: time() }],
        rejections: vec![RejectionFact { reason: "it leaks".to_owned(), time: time() }],
    }
}

fn component() -> ComponentName {
    "shop/api".parse().unwrap()
}

fn environment() -> EnvironmentName {
    "production".parse().unwrap()
}

fn version() -> Version {
    "1.4.2".parse().unwrap()
}

fn commit() -> CommitId {
    "4f1c2ab".repeat(6)[..40].parse().unwrap()
}

fn time() -> Timestamp {
    "2026-11-22T19:50:00.25Z".parse().unwrap()
}

/// The words that stand for the digests of themselves, so that expectations can be read.
const WORDS: [&str; 16] = [
    "artefact",
    "config",
    "decision",
    "earlier",
    "envelope",
    "key",
    "log",
    "other",
    "pipeline",
    "policy",
    "proof",
    "report",
    "source",
    "statement",
    "subject",
    "target",
];

fn digest(word: &str) -> Digest {
    assert!(WORDS.contains(&word), "{word}");
    Digest::of(word.as_bytes())
}

fn digest_of<T: Serialize>(document: &T) -> Digest {
    Digest::of(&canonical::bytes(document))
}

/// The canonical bytes, with the digests of [`WORDS`] written as the words.
fn text<T: Serialize>(document: &T) -> String {
    let text = String::from_utf8(canonical::bytes(document)).unwrap();
    WORDS.iter().fold(text, |text, word| {
        let digest = digest(word);
        text.replace(digest.as_str(), &format!("<{word}>")).replace(digest.hex(), &format!("<{word} in hex>"))
    })
}

fn body(change: &Change) -> String {
    text(&serde_json::to_value(change).unwrap()["body"])
}

#[test]
fn a_project_file_of_format_1_is_read_for_ever() {
    let text = include_str!("../../../../testdata/project-1/semel.toml");
    let project = semel_model::project::Project::parse("semel.toml", text).unwrap();
    assert_eq!(
        project.definition.digest().as_str(),
        "sha256:74f5c0abaed61a0827eb04b2dda98fa42906a042b5b036f933ca7de527aa2f26"
    );
    assert_eq!(
        project.pipeline.digest().as_str(),
        "sha256:4964086391e8b3fe035bf5f73cde9831558feee7c1659823aab33149a8b0c584"
    );
}

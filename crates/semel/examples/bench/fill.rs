//! A large store and the repository that it was built from.
//!
//! Through the library, many versions to an append: ten thousand builds as processes would take an hour. What is written is
//! what `semel build` and `semel attest` write: reservation, artefact, signed provenance, signed test result, each with its
//! blobs. Only the layers are small.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use semel_engine::reserve::SourceDocument;
use semel_model::actor::Actor;
use semel_model::build::{BuildInputs, Bump, CommitFact, Line};
use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::entry::{
    BuildReserved, Change, ComponentCreated, Entry, EvidenceAttached, Leaf, ManifestStored, VersionPublished,
};
use semel_model::name::{CommitId, ComponentName};
use semel_model::pipeline::EvidenceResult;
use semel_model::statement::{Envelope, PROVENANCE, Statement, key_hint, predicate_type};
use semel_model::version::{TagPolicy, Version};
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use semel_store::Store;
use semel_store::keys::Role;
use serde_json::json;

use crate::Error;
use crate::project::output;
use crate::scratch::Scratch;

/// The component that the project builds.
pub(crate) const COMPONENT: &str = "bench/service";
/// How many versions one append takes.
const VERSIONS_PER_APPEND: u64 = 50;
/// How many files the project has besides its service.
const FILES: usize = 300;

/// The version of a build that was filled in.
pub(crate) fn version(number: u64) -> Version {
    Version::final_release(1, number / 100, number % 100)
}

/// What was filled in.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) entries: u64,
    pub(crate) blobs: u64,
    pub(crate) took: Duration,
}

/// Makes a repository with one commit more than there are versions, and a store in which all but the newest are built.
pub(crate) async fn fill(scratch: &Scratch, versions: u64) -> Result<Filled, Error> {
    let started = Instant::now();
    import_commits(scratch, versions + 1)?;
    let commits = scratch.git(&["rev-list", "--reverse", "HEAD"])?;
    let commits: Vec<CommitId> = commits.lines().map(str::parse).collect::<Result<_, _>>()?;
    let store = Store::create(&scratch.store(), now()).await?;
    let mut writer = Writer::new(&store).await?;
    writer.create_component()?;
    for number in 1..=versions {
        let index = usize::try_from(number)? - 1;
        writer.build(number, &commits[index], index.checked_sub(1).map(|before| &commits[before]))?;
        if number % VERSIONS_PER_APPEND == 0 || number == versions {
            let leaves = std::mem::take(&mut writer.leaves);
            store.turn().await?.append(leaves).await?;
        }
    }
    rustix::fs::sync();
    let entries = store.turn().await?.size();
    store.close().await;
    Ok(Filled { entries, blobs: writer.blobs, took: started.elapsed() })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is a program of its own: it reads the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A project with a history, through `git fast-import`.
fn import_commits(scratch: &Scratch, count: u64) -> Result<(), Error> {
    scratch.git(&["init", "--quiet", "--initial-branch=main"])?;
    let stream = scratch.path("history");
    let mut file = std::io::BufWriter::new(File::options().write(true).create_new(true).open(&stream)?);
    for number in 1..=count {
        let message =
            if number % 100 == 0 { format!("feat: step {number}") } else { format!("fix: step {number}") };
        let seconds = 1_600_000_000 + number * 600;
        writeln!(file, "commit refs/heads/main")?;
        writeln!(
            file,
            "committer Bench <bench@example.org> {seconds} +0000\ndata {}\n{message}",
            message.len()
        )?;
        if number == 1 {
            project_files().try_for_each(|(name, text)| put(&mut file, &name, &text))?;
        }
        put(
            &mut file,
            &format!("src/part-{:03}.txt", number % FILES as u64),
            &format!("changed in step {number}\n"),
        )?;
    }
    file.flush()?;
    drop(file);
    let mut import = scratch.command(Path::new("git"), &["fast-import", "--quiet"]);
    import.stdin(Stdio::from(File::open(&stream)?));
    output(import)?;
    scratch.git(&["reset", "--quiet", "--hard", "main"])?;
    Ok(fs::remove_file(&stream)?)
}

fn put(stream: &mut impl std::io::Write, name: &str, text: &str) -> std::io::Result<()> {
    writeln!(stream, "M 100644 inline {name}\ndata {}\n{text}", text.len())
}

fn project_files() -> impl Iterator<Item = (String, String)> {
    let parts =
        (0..FILES).map(|part| (format!("src/part-{part:03}.txt"), format!("part {part}\n").repeat(40)));
    let service = "#!/bin/sh\nexec sleep 100000\n".to_owned();
    let values = |place: &str| (format!("config/{place}.toml"), format!("PLACE = \"{place}\"\n"));
    let named = [
        ("semel.toml".to_owned(), PROJECT.to_owned()),
        ("service.sh".to_owned(), service),
        values("staging"),
        values("production"),
    ];
    parts.chain(named)
}

const PROJECT: &str = r#"format = 1
component = "bench/service"

[artefact]
kind = "archive"
entrypoint = ["/service"]
files = [{ from = "service.sh", to = "/service", mode = "0755" }, { from = "src", to = "/src" }]

[config]
PLACE = { type = "string" }

[environment]
staging = { gates = [{ evidence = "junit" }], values = "config/staging.toml", target = { kind = "directory", health = ["/bin/true"] } }
production = { after = "staging", values = "config/production.toml", target = { kind = "directory", health = ["/bin/true"] } }
"#;

/// Collects the leaves of builds and writes their blobs.
struct Writer {
    store: Store,
    actor: Actor,
    component: ComponentName,
    leaves: Vec<Leaf>,
    blobs: u64,
}

impl Writer {
    async fn new(store: &Store) -> Result<Self, Error> {
        Ok(Self {
            actor: store.local_actor("bench", "bench").await?,
            component: COMPONENT.parse()?,
            store: store.clone(),
            leaves: Vec::new(),
            blobs: 0,
        })
    }

    fn create_component(&mut self) -> Result<(), Error> {
        self.blob(b"{}")?;
        let created = ComponentCreated {
            component: self.component.clone(),
            policy: TagPolicy::Release,
            home: self.store.id().to_owned(),
        };
        self.change(0, Change::ComponentCreated(created));
        Ok(())
    }

    /// Everything that a build and the test of its result record.
    fn build(&mut self, number: u64, commit: &CommitId, before: Option<&CommitId>) -> Result<(), Error> {
        self.reserve(number, commit, before)?;
        let artefact = self.artefact(number)?;
        let provenance = json!({
            "buildDefinition": {
                "buildType": "https://semel.dev/build/v1",
                "externalParameters": {"component": COMPONENT, "commit": commit},
                "resolvedDependencies": [{"uri": "git+https://example.org/bench", "digest": {"gitCommit": commit}}],
            },
            "runDetails": {"builder": {"id": "https://semel.dev/builder/local/v1"}},
        });
        let published = VersionPublished {
            component: self.component.clone(),
            version: version(number),
            digest: artefact.digest.clone(),
            number: Some(number),
            commit: Some(commit.clone()),
            log: None,
            source: None,
        };
        self.change(number, Change::VersionPublished(published));
        self.attest(number, &Role::Builder, &artefact, PROVENANCE, provenance, EvidenceResult::Info)?;
        let tested = predicate_type("junit").ok_or("junit is a type of evidence")?;
        let passed =
            json!({"result": "PASSED", "passedTests": [format!("step {number}")], "configuration": []});
        self.attest(number, &Role::Evidence, &artefact, &tested, passed, EvidenceResult::Pass)
    }

    fn reserve(&mut self, number: u64, commit: &CommitId, before: Option<&CommitId>) -> Result<(), Error> {
        let inputs = BuildInputs {
            v: 1,
            component: self.component.clone(),
            format: 1,
            source: Digest::of(format!("source {number}").as_bytes()),
            definition: Digest::of(PROJECT.as_bytes()),
            bases: Vec::new(),
            salt: 0,
        };
        let source = SourceDocument {
            v: 1,
            inputs: inputs.clone(),
            commit: commit.clone(),
            tree: commit.to_string(),
            line: Line::Main("main".to_owned()),
            head: None,
            follows: (number > 1).then(|| version(number - 1)),
            bump: Bump::Patch,
            since: vec![CommitFact {
                id: commit.clone(),
                parents: before.into_iter().cloned().collect(),
                author: self.actor.subject.clone(),
                subject: format!("fix: step {number}"),
                bump: Bump::Patch,
                outside: false,
            }],
        };
        let reserved = BuildReserved {
            component: self.component.clone(),
            number,
            version: version(number),
            key: inputs.key(),
            commit: commit.clone(),
            line: source.line.clone(),
            source: self.blob(&canonical::bytes(&source))?,
            platforms: Vec::new(),
            again: None,
        };
        self.change(number, Change::BuildReserved(reserved));
        Ok(())
    }

    fn artefact(&mut self, number: u64) -> Result<Descriptor, Error> {
        let layer = format!("the files of build {number}\n").into_bytes();
        self.blob(&layer)?;
        let manifest = ImageManifest {
            artifact_type: Some(media_type::SEMEL_ARCHIVE.to_owned()),
            config: Descriptor::empty(),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, &layer)],
            subject: None,
            annotations: BTreeMap::new(),
        };
        self.manifest(number, &manifest)
    }

    fn manifest(&mut self, number: u64, manifest: &ImageManifest) -> Result<Descriptor, Error> {
        let encoded = manifest.encode();
        let digest = self.blob(&encoded.bytes)?;
        let stored = ManifestStored {
            component: self.component.clone(),
            digest,
            media_type: encoded.descriptor.media_type.clone(),
            size: encoded.bytes.len() as u64,
            subject: manifest.subject.as_ref().map(|subject| subject.digest.clone()),
        };
        self.change(number, Change::ManifestStored(stored));
        Ok(encoded.descriptor)
    }

    fn attest(
        &mut self,
        number: u64,
        role: &Role,
        artefact: &Descriptor,
        predicate_type: &str,
        predicate: serde_json::Value,
        result: EvidenceResult,
    ) -> Result<(), Error> {
        let key = self.store.keys().role_key(role)?;
        let statement = Statement::about(COMPONENT, &artefact.digest, predicate_type, predicate);
        let envelope = Envelope::sign(&statement, &key);
        let stored = self.blob(&envelope.to_bytes())?;
        let bundle = envelope.bundle();
        self.blob(&bundle)?;
        let layer = Descriptor::of(media_type::SIGSTORE_BUNDLE, &bundle);
        let annotations =
            BTreeMap::from([("dev.sigstore.bundle.predicateType".to_owned(), predicate_type.to_owned())]);
        let referrer =
            ImageManifest::referrer(artefact, media_type::SIGSTORE_BUNDLE, vec![layer], annotations);
        self.manifest(number, &referrer)?;
        self.leaves.push(Leaf::Signature(envelope.hashedrekord(key.verifying_key())?));
        let attached = EvidenceAttached {
            component: self.component.clone(),
            digest: artefact.digest.clone(),
            envelope: stored,
            predicate_type: predicate_type.to_owned(),
            result,
            signer: key_hint(key.verifying_key()),
            environment: None,
            attachment: None,
        };
        self.change(number, Change::EvidenceAttached(attached));
        Ok(())
    }

    fn change(&mut self, number: u64, change: Change) {
        let seconds = i64::try_from(number).unwrap_or(i64::MAX) * 600;
        let time = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_600_000_000 + seconds);
        self.leaves.push(Leaf::Entry(Box::new(Entry::new(time, self.actor.clone(), change))));
    }

    /// Writes a blob where the store keeps it (`docs/format.md`), without the syncs of each: one sync follows for all.
    fn blob(&mut self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let path = self.store.blobs().path(&digest);
        fs::create_dir_all(path.parent().ok_or("a blob lies in a directory")?)?;
        File::options().write(true).create_new(true).open(&path)?.write_all(bytes)?;
        self.blobs += 1;
        Ok(digest)
    }
}

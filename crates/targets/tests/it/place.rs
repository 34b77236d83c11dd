//! A root to deploy to, releases to deploy, and a supervisor that ends with the test.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use semel_model::deployment::{Desired, KeyInputs, Observed};
use semel_model::digest::Digest;
use semel_model::duration::Span;
use semel_model::pipeline::{Health, Target, TargetKind};
use semel_oci::descriptor::Descriptor;
use semel_oci::media_type;
use semel_targets::directory::stage::BlobFuture;
use semel_targets::directory::{
    BlobSource, Depth, Facts, Generation, Host, Order, Outcome, Progress, Refused, SpawnSupervisor, Timing,
    Values, control, converge, enter, observe,
};

/// The variable that makes the test binary a supervisor.
pub(crate) const SUPERVISE: &str = "SEMEL_TEST_SUPERVISE";

/// The variable that makes the test binary deploy: a generation and a root.
pub(crate) const DEPLOY: &str = "SEMEL_TEST_DEPLOY";

pub(crate) const TIMING: Timing = Timing {
    settle: Duration::from_millis(30),
    stays_up: Duration::from_millis(200),
    check_pause: Duration::from_millis(30),
    check_pause_max: Duration::from_millis(100),
    check_pause_healthy: Duration::from_millis(200),
    check_within: Duration::from_secs(2),
    backoff: Duration::from_millis(30),
    backoff_max: Duration::from_secs(60),
    grace: Duration::from_secs(2),
    journal_every: Duration::from_millis(500),
};

/// A release that stays up until it is stopped.
pub(crate) const STAYS: &str = "#!/bin/sh\necho \"hello from $SEMEL_VERSION as $NAME\"\nexec sleep 600\n";

/// An artefact and its blobs.
#[derive(Clone)]
pub(crate) struct Artefact {
    pub(crate) digest: Digest,
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) layer: Digest,
}

/// An archive with executable files, the first of which is its entrypoint.
pub(crate) fn archive(files: &[(&str, &str)], needs: &[&str]) -> Artefact {
    of_layer(layer(files), &serde_json::json!({"v": 1, "entrypoint": [files[0].0], "needs": needs}))
}

/// A layer of executable files.
pub(crate) fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_000_000);
        tar.append_data(&mut header, path.trim_start_matches('/'), content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// An image as a container builder makes it.
pub(crate) fn image(layers: &[Vec<u8>], execution: &serde_json::Value) -> Artefact {
    let config = serde_json::to_vec(&serde_json::json!({"config": execution})).unwrap();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, &config),
        "layers": layers.iter().map(|layer| Descriptor::of(media_type::OCI_LAYER_GZIP, layer)).collect::<Vec<_>>(),
    }))
    .unwrap();
    let blobs = layers.iter().chain([&config]).map(|bytes| (Digest::of(bytes), bytes.clone())).collect();
    Artefact { digest: Digest::of(&manifest), manifest, layer: Digest::of(&layers[0]), blobs }
}

pub(crate) fn of_layer(layer: Vec<u8>, config: &serde_json::Value) -> Artefact {
    let config = serde_json::to_vec(config).unwrap();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": media_type::SEMEL_ARCHIVE,
        "config": Descriptor::of("application/vnd.semel.archive.config.v1+json", &config),
        "layers": [Descriptor::of(media_type::OCI_LAYER_GZIP, &layer)],
    }))
    .unwrap();
    let layer_digest = Digest::of(&layer);
    Artefact {
        digest: Digest::of(&manifest),
        manifest,
        layer: layer_digest.clone(),
        blobs: BTreeMap::from([(Digest::of(&config), config), (layer_digest, layer)]),
    }
}

/// A service that stays up and says that it is well, or that it is not.
pub(crate) fn service(well: bool) -> Artefact {
    let check = if well { "#!/bin/sh\nexit 0\n" } else { "#!/bin/sh\nexit 1\n" };
    archive(&[("/app/run", STAYS), ("/app/check", check)], &[])
}

/// Another artefact with the same behaviour.
pub(crate) fn other_service(note: &str) -> Artefact {
    archive(&[("/app/run", STAYS), ("/app/check", "#!/bin/sh\nexit 0\n"), ("/app/note", note)], &[])
}

/// Gives the blobs of an artefact, as they are or damaged, and counts.
pub(crate) struct Shelf {
    blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) fetched: Mutex<Vec<Digest>>,
}

impl Shelf {
    pub(crate) fn of(artefact: &Artefact) -> Self {
        Self { blobs: artefact.blobs.clone(), fetched: Mutex::default() }
    }

    pub(crate) fn with(mut self, digest: &Digest, bytes: Vec<u8>) -> Self {
        self.blobs.insert(digest.clone(), bytes);
        self
    }
}

impl BlobSource for Shelf {
    fn blob<'a>(&'a self, digest: &'a Digest, _size: u64) -> BlobFuture<'a> {
        self.fetched.lock().unwrap().push(digest.clone());
        let found = self.blobs.get(digest).cloned();
        Box::pin(async move {
            let bytes =
                found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such blob"))?;
            Ok(Box::pin(io::Cursor::new(bytes)) as std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>)
        })
    }
}

/// A binding's root and what is ordered there.
pub(crate) struct Place {
    directory: Option<tempfile::TempDir>,
    pub(crate) root: PathBuf,
    pub(crate) health: Option<Health>,
    pub(crate) healthy_within: Span,
    pub(crate) path: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Self::at(dir.path().join("dev").join("shop-api"));
        place.directory = Some(dir);
        place
    }

    /// A root that somebody else made.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self {
            root,
            directory: None,
            health: Some(Health::Command(vec!["/app/check".to_owned()])),
            healthy_within: Span::seconds(10),
            path: std::env::var("PATH").unwrap(),
        }
    }

    pub(crate) fn order(&self, generation: u64, artefact: &Artefact, values: &[(&str, &str)]) -> Order {
        let values: BTreeMap<_, _> =
            values.iter().map(|(key, value)| (key.parse().unwrap(), (*value).to_owned())).collect();
        let config = Digest::of(&serde_json::to_vec(&values).unwrap());
        let target = Target {
            kind: TargetKind::Directory,
            path: None,
            health: self.health.clone(),
            healthy_within: self.healthy_within,
        };
        let inputs = KeyInputs {
            v: 1,
            environment: "dev".parse().unwrap(),
            component: "shop/api".parse().unwrap(),
            target: target.digest(),
            artefact: artefact.digest.clone(),
            config: config.clone(),
            restart: 0,
        };
        Order {
            generation: Generation::of(generation),
            desired: Desired { key: inputs.key(), artefact: artefact.digest.clone(), config },
            target,
            manifest: artefact.manifest.clone(),
            facts: Facts {
                component: inputs.component,
                environment: inputs.environment,
                version: Some(format!("1.0.{generation}").parse().unwrap()),
                number: Some(generation),
                commit: None,
                decision: None,
            },
            sought: BTreeMap::new(),
            values: Values(values),
        }
    }

    pub(crate) fn host(&self) -> Host {
        let args = [
            format!("{SUPERVISE}={}", self.root.display()),
            std::env::current_exe().unwrap().to_string_lossy().into_owned(),
            "a_supervisor_is_this_binary_told_which_root".to_owned(),
            "--exact".to_owned(),
            "--nocapture".to_owned(),
        ];
        Host {
            path: self.path.clone(),
            clock: Timestamp::now,
            supervisor: SpawnSupervisor { program: "/usr/bin/env".into(), args: args.to_vec() },
        }
    }

    pub(crate) async fn converge(&self, order: &Order, source: &dyn BlobSource) -> Result<Outcome, Refused> {
        self.converge_telling(order, source, &|_| {}).await
    }

    pub(crate) async fn converge_telling(
        &self,
        order: &Order,
        source: &dyn BlobSource,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Outcome, Refused> {
        let entered = enter(&self.root).await?;
        converge(&entered, order, &self.host(), source, progress).await
    }

    /// Deploys and expects success.
    pub(crate) async fn deploy(
        &self,
        generation: u64,
        artefact: &Artefact,
        values: &[(&str, &str)],
    ) -> Observed {
        let order = self.order(generation, artefact, values);
        match self.converge(&order, &Shelf::of(artefact)).await.unwrap() {
            Outcome::Succeeded { observed, .. } => observed,
            other => panic!("{other:?}\n{}", self.supervisor_log()),
        }
    }

    pub(crate) async fn observe(&self, depth: Depth) -> Observed {
        observe(&self.root, depth, Timestamp::now()).await.unwrap()
    }

    /// Observes until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Observed) -> bool) -> Observed {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let observed = self.observe(Depth::Full).await;
            if holds(&observed) {
                return observed;
            }
            assert!(std::time::Instant::now() < deadline, "never came true: {what}; {observed:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn status(&self) -> control::Status {
        control::status(&self.root).await.unwrap().expect("there is a supervisor")
    }

    pub(crate) fn current(&self) -> PathBuf {
        std::fs::read_link(self.root.join("current")).unwrap()
    }

    /// Where an artefact is unpacked.
    pub(crate) fn store(&self, artefact: &Artefact) -> PathBuf {
        self.root.join("store").join(artefact.digest.as_str().replace(':', "-"))
    }

    pub(crate) fn app_log(&self) -> String {
        std::fs::read_to_string(self.root.join("log/app.log")).unwrap_or_default()
    }

    pub(crate) fn supervisor_log(&self) -> String {
        std::fs::read_to_string(self.root.join("log/supervisor.log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Blocking, because a test that failed has no time for anything else.
        let socket = self.root.join("run/control.sock");
        if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) {
            let _ = stream.write_all(b"{\"command\":\"stop\"}\n");
            let _ = io::Read::read(&mut stream, &mut [0; 64]);
        }
        // Releases are sealed; the temporary directory can only be removed by an ordinary user when they are not.
        if self.directory.is_some() {
            unseal(&self.root.join("store"));
        }
    }
}

pub(crate) fn kill(pid: i32) {
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

/// Whether a process is there and not only waited for.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Writes into a sealed release.
pub(crate) fn edit(file: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(file, content).unwrap();
}

/// Writes a program.
pub(crate) fn edit_new(file: &Path, content: &str) {
    std::fs::write(file, "").unwrap();
    edit(file, content);
}

fn unseal(dir: &Path) {
    open_dir(dir);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unseal(&entry.path());
        }
    }
}

/// Lets somebody write into a sealed directory.
pub(crate) fn open_dir(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755));
}

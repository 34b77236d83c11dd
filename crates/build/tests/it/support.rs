//! A git repository to build from, and a place to build in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use semel_build::base::BaseSources;
use semel_build::checkout::{CheckoutError, LaidOut, materialise};
use semel_build::pipeline::{self, BuildError, BuildRequest, Built, Progress, Step};
use semel_build::provenance::BuilderInfo;
use semel_build::recipe::Varied;
use semel_build::sandbox::{HostEnvironment, Level, Sandbox, preflight};
use semel_build::source::{self, Resolve, Source, SourceError};
use semel_model::digest::Digest;
use semel_oci::compression::Compression;
use semel_oci::sign_in::Logins;
use tempfile::TempDir;

pub(crate) struct Repo {
    pub(crate) dir: TempDir,
}

/// A project of one file and no commands.
pub(crate) const PLAIN: &str = r#"format = 1
component = "shop/api"

[artefact]
kind = "archive"
entrypoint = ["/app/start"]
files = [{ from = "start", to = "/app/start" }]
"#;

impl Repo {
    /// A repository with a plain project and one commit.
    pub(crate) fn plain() -> Self {
        Self::with(PLAIN, &[("start", "#!/bin/sh\n")]).executable("start").committed()
    }

    /// A repository with files that are not committed yet.
    pub(crate) fn with(project: &str, files: &[(&str, &str)]) -> Self {
        let this = Self::empty();
        this.write("semel.toml", project);
        for (path, text) in files {
            this.write(path, text);
        }
        this
    }

    pub(crate) fn empty() -> Self {
        let this = Self { dir: TempDir::new().unwrap() };
        this.git(&["init", "-q", "-b", "main"]);
        this
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn executable(self, path: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.path().join(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    pub(crate) fn committed(self) -> Self {
        self.commit("feat: begin");
        self
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    pub(crate) fn git(&self, words: &[&str]) -> String {
        git(self.path(), words)
    }

    pub(crate) fn resolve(&self) -> Result<Source, SourceError> {
        resolve_at(self.path(), None, &[])
    }

    pub(crate) fn source(&self) -> Source {
        self.resolve().unwrap()
    }

    pub(crate) fn laid_out(&self) -> Tree {
        lay_out(&self.source()).unwrap()
    }

    pub(crate) fn build(&self) -> Result<Done, BuildError> {
        build(self.source(), host())
    }

    pub(crate) fn built(&self) -> Done {
        self.build().unwrap()
    }
}

/// Git with a fixed clock and author, and without the settings of whoever runs the tests.
pub(crate) fn git(dir: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"])
        .args(words)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.org")
        .env("GIT_AUTHOR_DATE", "2024-05-06T07:08:09Z")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.org")
        .env("GIT_COMMITTER_DATE", "2024-05-06T07:08:09Z")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The time of every commit here.
pub(crate) const COMMITTED: i64 = 1_714_979_289;

pub(crate) fn resolve_at(
    dir: &Path,
    revision: Option<&str>,
    variables: &[(&str, &str)],
) -> Result<Source, SourceError> {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    source::resolve(&Resolve { start_dir: dir, revision, branch: None, variables: &variables })
}

/// A source tree that was laid out, and the directory that it lies in.
pub(crate) struct Tree {
    pub(crate) dir: TempDir,
    pub(crate) laid: LaidOut,
}

impl Tree {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("tree").join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

pub(crate) fn lay_out(source: &Source) -> Result<Tree, CheckoutError> {
    let dir = TempDir::new().unwrap();
    let laid = materialise(source, &dir.path().join("tree"), &dir.path().join("scratch"))?;
    assert!(!dir.path().join("scratch").exists());
    Ok(Tree { dir, laid })
}

/// A build that went well, and the directory that it lies in.
pub(crate) struct Done {
    pub(crate) work: TempDir,
    pub(crate) built: Built,
    pub(crate) lines: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Done {
    pub(crate) fn blob(&self, digest: &Digest) -> Vec<u8> {
        fs::read(self.built.layout_dir.join("blobs/sha256").join(digest.hex())).unwrap()
    }

    pub(crate) fn json(&self, digest: &Digest) -> serde_json::Value {
        serde_json::from_slice(&self.blob(digest)).unwrap()
    }

    pub(crate) fn manifest(&self) -> serde_json::Value {
        self.json(&self.built.packaged.manifest)
    }

    /// `MODE PATH [-> TARGET]` of each entry of a layer.
    pub(crate) fn entries(&self, layer: usize) -> Vec<String> {
        let bytes = self.blob(&self.built.packaged.layers[layer].digest);
        let plain = Compression::of_bytes(&bytes).decode(bytes.as_slice()).unwrap();
        let mut archive = tar::Archive::new(plain);
        let shown = |entry: tar::Entry<'_, _>| {
            let link = entry.link_name_bytes().map(|to| format!(" -> {}", String::from_utf8_lossy(&to)));
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            format!("{:o} {path}{}", entry.header().mode().unwrap(), link.unwrap_or_default())
        };
        archive.entries().unwrap().map(|entry| shown(entry.unwrap())).collect()
    }
}

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) lines: Mutex<Vec<String>>,
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) on_line: Option<tokio::sync::mpsc::UnboundedSender<String>>,
}

impl Progress for Recorder {
    fn started(&self, _: Step) {}

    fn finished(&self, _: Step, _: Duration) {}

    fn note(&self, note: &str) {
        self.notes.lock().unwrap().push(note.to_owned());
    }

    fn line(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
        if let Some(sender) = &self.on_line {
            let _ = sender.send(line.to_owned());
        }
    }
}

/// What commands get here: where programs are, and nothing else.
pub(crate) fn host() -> HostEnvironment {
    HostEnvironment::of(&BTreeMap::from([("PATH".to_owned(), path())]))
}

pub(crate) fn path() -> String {
    std::env::var("PATH").unwrap()
}

/// The program whose hidden verb guards and confines commands.
pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_semel-sandbox");

/// The sandbox of a level, if this host has it; otherwise the strongest.
pub(crate) fn sandbox(level: Option<Level>) -> Sandbox {
    preflight(&path()).choose(level).unwrap()
}

/// The levels that isolate and that this host has. In a CI run it must have both.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn isolating_levels() -> Vec<Level> {
    let host = preflight(&path());
    let offered = [
        (Level::Bubblewrap, host.bubblewrap.as_ref().err()),
        (Level::Landlock, host.landlock.as_ref().err()),
    ];
    for missing in offered.iter().filter_map(|(_, missing)| *missing) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "where CI=true: {missing}");
        eprintln!("left out: {missing}");
    }
    offered.into_iter().filter(|(_, missing)| missing.is_none()).map(|(level, _)| level).collect()
}

/// With the toolchains of whoever runs the tests.
pub(crate) fn host_with_toolchains() -> HostEnvironment {
    HostEnvironment::of(&std::env::vars().collect())
}

pub(crate) fn request(source: Source, work: PathBuf) -> BuildRequest {
    BuildRequest {
        source,
        bases: BaseSources { cache: work.join("bases"), store: None, logins: Logins::none() },
        work,
        host: host(),
        sandbox: sandbox(None),
        secrets: Vec::new(),
        caches: None,
        semel: PathBuf::from(HELPER),
        platform: "linux/amd64".parse().unwrap(),
        builder: BuilderInfo {
            id: "https://semel.dev/builder/test".to_owned(),
            version: "0.1.0".to_owned(),
            program: Digest::of(b"semel"),
        },
        range: None,
        started: Timestamp::from_second(1_800_000_000).unwrap(),
        varied: Varied::default(),
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn build(source: Source, host: HostEnvironment) -> Result<Done, BuildError> {
    let work = TempDir::new().unwrap();
    let request = BuildRequest { host, ..request(source, work.path().to_owned()) };
    finish(request, work)
}

/// Builds what a request says, in its work directory.
pub(crate) fn finish(request: BuildRequest, work: TempDir) -> Result<Done, BuildError> {
    let recorder = Arc::new(Recorder::default());
    let built = runtime().block_on(pipeline::run(request, recorder.clone()))?;
    let lines = recorder.lines.lock().unwrap().clone();
    let notes = recorder.notes.lock().unwrap().clone();
    Ok(Done { work, built, lines, notes })
}

/// An error with its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Processes of this host with an argument of their own.
pub(crate) fn processes(mark: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        arguments.contains(mark).then_some(arguments)
    });
    lines.collect()
}

/// Whether all programs are there. A CI run must have them; elsewhere what is lacking is said and the test is left out.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn has_all(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let lacking: Vec<&str> = programs.iter().copied().filter(|program| !is_here(program)).collect();
    if !lacking.is_empty() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "where CI=true: {lacking:?} is not installed"
        );
        eprintln!("left out: {lacking:?} is not installed");
    }
    lacking.is_empty()
}

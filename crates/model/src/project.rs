//! The project file, `semel.toml`: what a component is, how it is built, and what its environments should be.
//!
//! Unknown keys are errors that name the line, the column and the nearest key. Nothing in an `[environment.*]` table can
//! reach the artefact: the build sees only the [`Definition`].

mod rules;
mod written;

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::allocation::Scheme;
use crate::build::RELEASE_BRANCHES;
use crate::config::{Contract, InvalidContract};
use crate::digest::Digest;
use crate::duration::Span;
use crate::name::ComponentName;
use crate::pipeline::{InvalidPipeline, Pipeline};
use crate::platform::Platform;
use crate::runtime::Runtime;
pub use written::nearest;
use written::{File, find, from_toml, invalid_at};

/// The name of the project file, at the root of the project.
pub const FILE_NAME: &str = "semel.toml";

/// A project file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The component that the project builds.
    pub component: ComponentName,
    /// A store named by the file, a directory or a URL.
    pub store: Option<String>,
    /// Everything that decides what is built.
    pub definition: Definition,
    /// How versions are found, and how they should look.
    pub version: VersionSpec,
    /// How large a source tree may be to be kept beside its artefact, in bytes; 0: none is kept. It decides no byte of
    /// the artefact, so it is not part of the definition.
    pub snapshot_limit_bytes: u64,
    /// The proposed pipeline.
    pub pipeline: Pipeline,
    /// Findings of the linter that the project accepts. They change no byte, so they are no part of the definition.
    pub waivers: Vec<Waiver>,
}

/// `[[waiver]]`: a finding of the linter that is accepted for a time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The rule, such as `secret/private-key`.
    pub rule: String,
    /// The path in the artefact; `*` and `**` stand for anything.
    pub path: String,
    /// Why it is accepted.
    pub reason: String,
    /// The last day on which it holds.
    #[serde(deserialize_with = "day")]
    pub until: Date,
}

/// A date of TOML, or the same as a text.
fn day<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Date(toml::value::Datetime),
        Text(String),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Date(date) => date.to_string(),
        Written::Text(text) => text,
    };
    text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is no day: write 2027-01-31")))
}

/// `[version]`: how versions are found, and how they should look. It decides no byte, so it is no part of the definition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionSpec {
    /// How versions look: a proposal, which the store takes with the first build of the component.
    pub scheme: Option<Scheme>,
    /// What stands before the version in a tag; none: `v`, nothing, or the component's name with `-`, `@` or `/` behind it.
    pub tag_prefix: Option<String>,
    /// Which branches are release lines; `*` stands for `1.4`.
    #[serde(default = "release_branches")]
    pub release: String,
}

fn release_branches() -> String {
    RELEASE_BRANCHES.to_owned()
}

fn usual_versions() -> VersionSpec {
    VersionSpec { scheme: None, tag_prefix: None, release: release_branches() }
}

/// What decides the bytes of an artefact, beside the source tree. Part of the build key in canonical form, from which
/// optional keys that are not set are left out: a key that a later program adds changes no existing build key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The packaging format, which pins the bytes across our own upgrades.
    pub format: u32,
    /// Which tracked files belong to the source tree.
    pub source: SourceSpec,
    /// How it is built.
    pub build: BuildSpec,
    /// What comes out.
    pub artefact: ArtefactSpec,
    /// The configuration contract.
    pub config: Contract,
}

/// `[source]`: which tracked files are the source tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Files and directories, relative to the project file; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Files and directories to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// `[build]`: the project's own commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// Runs first; may use the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Command>,
    /// Builds the artefact's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Command>,
    /// Variables for both commands, beside the fixed ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How long each command may take.
    #[serde(default = "build_timeout")]
    pub timeout: Span,
    /// Directories that are kept from one build of a line to the next, relative to the tree; below `.home/`: to the
    /// commands' `HOME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache: Vec<String>,
    /// Variables of the caller's that `fetch` sees, and nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether `run` may use the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// `none`: the commands cannot be isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxWish>,
}

/// What a project asks of the sandbox. It gets the strongest that there is, unless it cannot work in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxWish {
    /// No isolation, as for commands that need devices.
    None,
}

/// The directory of a cache's path that stands for the commands' `HOME`.
pub const CACHE_HOME: &str = ".home";

fn build_timeout() -> Span {
    Span::seconds(30 * 60)
}

/// A command: a text is given to `/bin/sh -eu -c`, a list is run as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Command {
    /// For the shell.
    Shell(String),
    /// Program and arguments.
    Argv(Vec<String>),
}

impl Command {
    /// Program and arguments.
    pub fn argv(&self) -> Vec<&str> {
        match self {
            Self::Shell(text) => vec!["/bin/sh", "-eu", "-c", text],
            Self::Argv(words) => words.iter().map(String::as_str).collect(),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(text) => f.write_str(text),
            Self::Argv(words) => f.write_str(&words.join(" ")),
        }
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text for the shell, or a list of words")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Command, E> {
                Ok(Command::Shell(text.to_owned()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Command, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                if words.is_empty() {
                    return Err(serde::de::Error::custom("a command needs at least one word"));
                }
                Ok(Command::Argv(words))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `[artefact]`: what comes out of the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtefactSpec {
    /// Which kind of artefact.
    pub kind: Kind,
    /// What starts it: program and arguments, as paths inside the artefact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The files of the artefact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    /// For `image`: the image below the files, pinned: `registry/name:tag@sha256:…`, `path/to/layout@sha256:…`,
    /// `path/to/archive.tar@sha256:…` or `component@sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// For `archive`: programs that the host must have, such as `node >= 20`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// For `image`: the user that runs it, `uid` or `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For `image`: the working directory inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Commands that are run inside the finished artefact and must succeed. No shell: words at spaces, quotes keep them
    /// together ([`words`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smoke: Vec<String>,
    /// What the check of the dependencies is told.
    #[serde(default, skip_serializing_if = "ClosureSpec::is_empty")]
    pub closure: ClosureSpec,
    /// For `image`: the OCI layout or archive that the project's own builder writes, instead of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// For `image`: ports that it listens on by itself, such as `8080/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// For `image`: variables that are the same in every environment, such as `PATH` and `LANG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The platforms that it has a part for, in the order of its index; none: it is one artefact for one platform.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// What of the files stays out: patterns of paths in the artefact, `**/tests`; a directory with all that is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// For files in `image` and `archive`: how their layers are compressed.
    #[serde(default, skip_serializing_if = "Compression::is_usual")]
    pub compression: Compression,
    /// For `zip`: what starts it, a name of [`Runtime`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// For `zip`: the function that the runtime calls, in its own spelling: `thumbnailer.app.handler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// For `vm`: the disk image that the build leaves, relative to the source tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// For `vm`: what the disk must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSpec>,
}

impl ArtefactSpec {
    /// What starts a zip, where the project file says so.
    pub fn runtime(&self) -> Option<&'static Runtime> {
        self.runtime.as_deref().and_then(Runtime::find)
    }
}

/// `disk = { … }`: what a disk image must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Its format.
    pub format: DiskFormat,
    /// How large the disk may be for the machine that it is in: `20GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_virtual: Option<String>,
    /// What starts the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
}

impl DiskSpec {
    /// The largest virtual size, in bytes.
    pub fn max_virtual_bytes(&self) -> Option<u64> {
        self.max_virtual.as_deref().and_then(parse_size)
    }
}

/// The formats of disk images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// QEMU copy-on-write, version 2 or 3.
    Qcow2,
    /// The bytes of the disk as they are.
    Raw,
}

impl DiskFormat {
    /// The word in files and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// What starts a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// The older one: a boot record in the first sector.
    Bios,
    /// UEFI: a system partition.
    Uefi,
}

/// `closure = { … }`: what nobody can see from the files about what the artefact needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosureSpec {
    /// What is not in the artefact and need not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<Ignored>,
    /// Files, or directories of files, that are loaded while the artefact runs: plugins, extension modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
}

impl ClosureSpec {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.ignore.is_empty() && self.roots.is_empty()
    }
}

/// Something that the artefact does without, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignored {
    /// As what needs it calls it: a library, a program, a package.
    pub name: String,
    /// Why it need not be inside; for whoever reads the report.
    pub reason: String,
}

/// The kinds of artefacts that are built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container image.
    Image,
    /// A file tree for a directory target.
    Archive,
    /// A package for a serverless platform.
    Zip,
    /// A disk image for a virtual machine.
    Vm,
}

impl Kind {
    /// The word in files and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Archive => "archive",
            Self::Zip => "zip",
            Self::Vm => "vm",
        }
    }
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip, which everything reads.
    #[default]
    Gzip,
    /// Zstandard: smaller and faster, for platforms that read it.
    Zstd,
}

impl Compression {
    /// Whether it is the one that need not be said.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// One file or directory of the artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Where the build left it, relative to the source tree.
    pub from: String,
    /// Where it lies in the artefact, absolute.
    pub to: String,
    /// Its permissions, `0644` or `0755`; without it: as built, reduced to these two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The layer it belongs to, for images; files without one form the last layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
}

/// Why a project file was not accepted, with the place where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct InvalidProject {
    /// The file's name as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// The key that was probably meant.
    pub nearest: Option<String>,
}

/// A number with one of the units B, kB, MB, GB (of 1000) and KiB, MiB, GiB (of 1024), in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The newest packaging format that this program writes.
pub const NEWEST_FORMAT: u32 = 1;

impl Project {
    /// Reads a project file. `file` is how it is called in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidProject> {
        let read: File = toml::from_str(text).map_err(|error| from_toml(file, text, &error))?;
        let at = |needle: &str, problem: String| invalid_at(file, text, find(text, needle), problem);
        rules::check(&read).map_err(|(needle, problem)| at(needle, problem))?;
        read.config.validate().map_err(|error: InvalidContract| at(error.key.as_str(), error.to_string()))?;
        let bindings = read.environment.into_iter().map(|(name, table)| (name, table.into())).collect();
        let pipeline = Pipeline::new(bindings)
            .map_err(|error: InvalidPipeline| at("[environment", error.to_string()))?;
        let definition = Definition {
            format: read.format,
            source: SourceSpec { include: read.source.include, exclude: read.source.exclude },
            build: read.build,
            artefact: read.artefact,
            config: read.config,
        };
        let snapshot_limit_bytes = read.source.snapshot.0;
        Ok(Self {
            component: read.component,
            store: read.store,
            definition,
            snapshot_limit_bytes,
            version: read.version,
            pipeline,
            waivers: read.waiver,
        })
    }

    /// The files named by environments, which are no part of the source tree.
    pub fn values_files(&self) -> Vec<&str> {
        self.pipeline.environments.values().filter_map(|binding| binding.values.as_deref()).collect()
    }
}

impl Definition {
    /// The digest of the canonical definition.
    pub fn digest(&self) -> Digest {
        crate::canonical::digest(self)
    }

    /// The digest of the base image, if there is one.
    pub fn base_digest(&self) -> Option<Digest> {
        self.artefact.base.as_deref().and_then(split_base).map(|(_, digest)| digest)
    }
}

/// `place@sha256:…` → where the base is, and the digest of its manifest.
pub fn split_base(base: &str) -> Option<(&str, Digest)> {
    let (place, digest) = base.rsplit_once('@')?;
    (!place.is_empty()).then_some(())?;
    Some((place, digest.parse().ok()?))
}

/// `boot within 90s until 'ready'`: the smoke check of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootCheck {
    /// How long the machine has.
    pub within: Span,
    /// What it prints on its serial console when it has started.
    pub until: String,
}

impl BootCheck {
    /// Reads it; `None`: it is something else.
    pub fn parse(command: &str) -> Option<Self> {
        let words = words(command)?;
        let [boot, within, limit, until, text] = words.as_slice() else { return None };
        if (boot.as_str(), within.as_str(), until.as_str()) != ("boot", "within", "until") || text.is_empty()
        {
            return None;
        }
        Some(Self { within: limit.parse().ok()?, until: text.clone() })
    }
}

/// The words of a command that no shell reads: they end at spaces, `'…'` and `"…"` keep them together, and nothing else
/// means anything. `None`: a quote has no end.
pub fn words(command: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"format = 1
component = "shop/api"

[build]
run = "cargo build --release --locked --offline"

[artefact]
kind = "image"
entrypoint = ["/app/api"]
files = [{ from = "target/release/api", to = "/app/api", mode = "0755" }]

[config]
PORT = { type = "port", default = 8080 }
DATABASE_URL = { type = "url", secret = true }

[environment.dev]
target = { kind = "directory", health = "http://127.0.0.1:${PORT}/healthz" }

[environment.production]
after = "dev"
gates = [{ evidence = "junit" }]
values = "config/production.toml"
target = { kind = "directory", health = "http://127.0.0.1:${PORT}/healthz" }
"#;

    #[test]
    fn the_common_project_file_is_read() {
        let project = Project::parse("semel.toml", EXAMPLE).unwrap();
        assert_eq!(project.component.as_str(), "shop/api");
        assert_eq!(project.values_files(), ["config/production.toml"]);
        assert_eq!(project.pipeline.in_order().len(), 2);
        assert_eq!(
            project.definition.build.run.unwrap().argv(),
            ["/bin/sh", "-eu", "-c", "cargo build --release --locked --offline"]
        );
    }

    #[test]
    fn an_environment_cannot_change_the_definition() {
        let before = Project::parse("semel.toml", EXAMPLE).unwrap();
        let after = Project::parse("semel.toml", &EXAMPLE.replace("{ evidence = \"junit\" }", "")).unwrap();
        assert_ne!(before.pipeline, after.pipeline);
        assert_eq!(before.definition.digest(), after.definition.digest());
    }

    #[test]
    fn a_command_without_a_shell_has_the_words_that_one_sees() {
        for (command, expected) in [
            ("/app/api --version", Some(vec!["/app/api", "--version"])),
            ("  a\t'b  c' \"it's\"  d''", Some(vec!["a", "b  c", "it's", "d"])),
            ("a '' $HOME;", Some(vec!["a", "", "$HOME;"])),
            ("  ", Some(vec![])),
            ("a 'b", None),
        ] {
            let expected: Option<Vec<String>> =
                expected.map(|words| words.into_iter().map(str::to_owned).collect());
            assert_eq!(words(command), expected, "{command}");
        }
    }

    #[test]
    fn how_much_source_is_kept_changes_no_definition() {
        let with = |line: &str| Project::parse("semel.toml", &format!("{EXAMPLE}\n[source]\n{line}\n"));
        let before = Project::parse("semel.toml", EXAMPLE).unwrap();
        assert_eq!(before.snapshot_limit_bytes, 50_000_000);
        for (written, bytes) in [
            ("false", 0),
            ("true", 50_000_000),
            ("\"200 MB\"", 200_000_000),
            ("\"1GiB\"", 1 << 30),
            ("\"0 B\"", 0),
        ] {
            let project = with(&format!("snapshot = {written}")).unwrap();
            assert_eq!(project.snapshot_limit_bytes, bytes, "{written}");
            assert_eq!(project.definition.digest(), before.definition.digest(), "{written}");
        }
        for written in ["\"much\"", "\"5\"", "\"-1 MB\"", "\"99999999999 GiB\"", "7"] {
            let error = with(&format!("snapshot = {written}")).unwrap_err().to_string();
            assert!(error.contains("200 MB"), "{written}: {error}");
        }
    }

    #[test]
    fn the_digest_of_a_definition_is_frozen() {
        let project = Project::parse("semel.toml", EXAMPLE).unwrap();
        assert_eq!(
            project.definition.digest().as_str(),
            "sha256:4eaa0c1d86add6dce91b686fe5be650f8c2d6a2c4ae28d387bc924b0244a61a4"
        );
    }

    #[test]
    fn an_image_holds_no_configuration_and_one_that_is_taken_nothing_of_ours() {
        let with = |artefact: &str| {
            let text = format!("format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\n{artefact}\n");
            Project::parse("semel.toml", &text).map(drop).map_err(|error| error.problem)
        };
        let files = "files = [{ from = \"a\", to = \"/a\" }]";
        for good in [
            "from = \"image.oci\"".to_owned(),
            format!(
                "{files}\nexpose = [\"8080\", \"53/udp\"]\nenv = {{ PATH = \"/app:/bin\", LANG = \"C.UTF-8\" }}"
            ),
            format!("{files}\nbase = \"docker.io/library/debian:12@{}\"", Digest::of(b"base")),
        ] {
            assert_eq!(with(&good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            (
                format!("from = \"image.oci\"\n{files}"),
                "`files` would change the image that `from` takes as it is",
            ),
            ("from = \"../image.oci\"".to_owned(), "`from = \"../image.oci\"` is not a path inside"),
            (format!("{files}\nexpose = [\"http\"]"), "`http` is no port"),
            (format!("{files}\nenv = {{ DATABASE_URL = \"x\" }}"), "`DATABASE_URL` looks like configuration"),
            (format!("{files}\nenv = {{ api = \"https://api.example\" }}"), "`api` looks like configuration"),
            (format!("{files}\nenv = {{ SEMEL_X = \"1\" }}"), "`SEMEL_X` cannot be set"),
            (
                format!("{files}\nbase = \"debian:12\""),
                "base `debian:12` is not pinned: semel lock --update-base debian:12",
            ),
        ] {
            let problem = with(&bad).unwrap_err();
            assert!(problem.starts_with(expected), "{bad}: {problem}");
        }
    }

    #[test]
    fn layers_are_compressed_with_gzip_where_nothing_is_said() {
        let with = |lines: &str| {
            let text = format!("format = 1\ncomponent = \"a\"\n[artefact]\n{lines}\n");
            Project::parse("semel.toml", &text)
        };
        let files = "files = [{ from = \"a\", to = \"/a\" }]";
        for kind in ["image", "archive"] {
            let digest = |line: &str| {
                with(&format!("kind = \"{kind}\"\n{files}\n{line}")).unwrap().definition.digest()
            };
            assert_eq!(digest(""), digest("compression = \"gzip\""), "{kind}");
            assert_ne!(digest(""), digest("compression = \"zstd\""), "{kind}");
        }
        for (lines, expected) in [
            (
                format!("kind = \"zip\"\n{files}\ncompression = \"zstd\""),
                "only the layers of images and archives have a `compression`",
            ),
            (
                "kind = \"image\"\nfrom = \"image.oci\"\ncompression = \"zstd\"".to_owned(),
                "`compression` would change the image that `from` takes as it is",
            ),
            (
                format!("kind = \"image\"\n{files}\ncompression = \"xz\""),
                "unknown variant `xz`, expected `gzip` or `zstd`",
            ),
        ] {
            let problem = with(&lines).unwrap_err().problem;
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn a_zip_has_a_runtime_that_is_known_and_a_vm_is_its_image() {
        let with = |artefact: &str| {
            let text = format!("format = 1\ncomponent = \"a\"\n[artefact]\n{artefact}\n");
            Project::parse("semel.toml", &text).map(drop).map_err(|error| error.problem)
        };
        let zip =
            |rest: &str| with(&format!("kind = \"zip\"\nfiles = [{{ from = \"out\", to = \"/\" }}]\n{rest}"));
        let vm = |rest: &str| with(&format!("kind = \"vm\"\nimage = \"out/a.qcow2\"\n{rest}"));
        for good in [
            zip("runtime = \"python3.12/al2023\"\nhandler = \"app.handler\"\nexclude = [\"**/tests\"]"),
            zip("runtime = \"provided.al2023\""),
            zip(""),
            vm(""),
            vm("disk = { format = \"qcow2\", max_virtual = \"20GiB\", firmware = \"uefi\" }"),
            vm("smoke = [\"boot within 90s until 'gateway ready'\"]"),
        ] {
            assert_eq!(good, Ok(()));
        }
        for (bad, problem) in [
            (zip("runtime = \"python3.12/al2\""), "did you mean `python3.12/al2023`?"),
            (zip("runtime = \"pyton3.12\""), "did you mean `python3.12`?"),
            (zip("runtime = \"python3.12\""), "say which with `handler`"),
            (zip("entrypoint = [\"/a\"]"), "started by its runtime"),
            (zip("needs = [\"python >= 3\"]"), "`needs` is for archives"),
            (zip("image = \"a\""), "only a vm has an `image`"),
            (with("kind = \"vm\""), "a vm needs `image = "),
            (vm("files = [{ from = \"a\", to = \"/a\" }]"), "a vm is its `image`"),
            (vm("runtime = \"python3.12\""), "only a zip has a runtime"),
            (vm("disk = { format = \"raw\", max_virtual = \"20\" }"), "`20` is no size"),
            (vm("smoke = [\"boot\"]"), "`boot` is no check of a vm"),
        ] {
            let told = bad.unwrap_err();
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn every_mistake_names_its_place_and_the_nearest_key() {
        let cases = [
            ("[build]", "[bulid]", "4:2: unknown key `bulid`: did you mean `build`?"),
            ("entrypoint", "entripoint", "9:1: unknown key `entripoint`: did you mean `entrypoint`?"),
            (
                "kind = \"image\"",
                "kind = \"imge\"",
                "8:8: unknown variant `imge`, expected one of `image`, `archive`, `zip`, `vm`",
            ),
            (
                "after = \"dev\"",
                "after = \"test\"",
                "16:1: environment production comes after test, which is not declared",
            ),
            ("format = 1", "format = 9", "1:1: format 9 is not known here (this program writes format 1)"),
            ("mode = \"0755\"", "mode = \"4755\"", "10:58: mode \"4755\" is neither \"0644\" nor \"0755\""),
            (
                "/app/api\", mode",
                "app/api\", mode",
                "10:41: `to = \"app/api\"` is not an absolute path inside the artefact",
            ),
            (
                "[build]",
                "[build]\ncache = [\"../out\"]",
                "5:1: `../out` is not a directory inside the tree, or inside `.home/`",
            ),
            ("[build]", "[build]\nsecrets = [\"TOKEN\"]", "5:1: secrets are for `fetch`, and there is none"),
            ("[build]", "[build]\nsandbox = \"docker\"", "5:11: unknown variant `docker`, expected `none`"),
            ("type = \"port\"", "type = \"prot\"", "13:17: unknown variant `prot`"),
            (
                "kind = \"image\"",
                "kind = \"image\"\nsmoke = [\"/app/api 'x\"]",
                "9:1: a command of `smoke` needs at least one word, and an end for each quote",
            ),
            (
                "kind = \"image\"",
                "kind = \"image\"\nclosure = { ignore = [{ name = \"libcuda.so.1\", reason = \"\" }] }",
                "9:1: what is ignored needs a `name` and a `reason`",
            ),
            (
                "kind = \"image\"",
                "kind = \"image\"\nclosure = { roots = [\"app\"] }",
                "9:1: `roots` are absolute paths inside the artefact",
            ),
            (
                "default = 8080",
                "default = 0",
                "13:1: configuration key PORT: the default is not a port (1 to 65535)",
            ),
        ];
        for (from, to, expected) in cases {
            let error = Project::parse("semel.toml", &EXAMPLE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("semel.toml:{expected}")), "{to}: {error}");
        }
    }
}

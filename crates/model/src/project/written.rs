//! The project file as it is written, and where in it something stands.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    ArtefactSpec, BuildSpec, Command, InvalidProject, VersionSpec, Waiver, build_timeout, parse_size,
    usual_versions,
};
use crate::config::Contract;
use crate::name::{ComponentName, EnvironmentName};
use crate::pipeline::{Binding, Gate, Target};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) format: u32,
    pub(super) component: ComponentName,
    pub(super) store: Option<String>,
    #[serde(default)]
    pub(super) source: SourceTable,
    #[serde(default = "no_commands")]
    pub(super) build: BuildSpec,
    pub(super) artefact: ArtefactSpec,
    #[serde(default)]
    pub(super) config: Contract,
    #[serde(default = "usual_versions")]
    pub(super) version: VersionSpec,
    #[serde(default)]
    pub(super) environment: BTreeMap<EnvironmentName, EnvironmentTable>,
    #[serde(default)]
    pub(super) waiver: Vec<Waiver>,
}

/// `[source]`, with what is no part of the definition.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceTable {
    #[serde(default)]
    pub(super) include: Vec<String>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) snapshot: SnapshotLimit,
}

/// `snapshot = false`, `true` or a size such as `"200 MB"`.
pub(super) struct SnapshotLimit(pub(super) u64);

impl Default for SnapshotLimit {
    fn default() -> Self {
        Self(50_000_000)
    }
}

impl<'de> Deserialize<'de> for SnapshotLimit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`snapshot` is true, false or a size such as \"200 MB\"")]
        enum Written {
            Kept(bool),
            UpTo(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Kept(true) => Ok(Self::default()),
            Written::Kept(false) => Ok(Self(0)),
            Written::UpTo(text) => parse_size(&text).map(Self).ok_or_else(|| {
                serde::de::Error::custom(format!("`{text}` is no size: write \"200 MB\" or \"1 GiB\""))
            }),
        }
    }
}

/// `[environment.NAME]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentTable {
    #[serde(default)]
    after: Names,
    #[serde(default)]
    gates: Vec<Gate>,
    values: Option<String>,
    target: Option<Target>,
}

impl From<EnvironmentTable> for Binding {
    fn from(table: EnvironmentTable) -> Self {
        Self { after: table.after.0, gates: table.gates, values: table.values, target: table.target }
    }
}

/// `after = "dev"` or `after = ["dev", "load"]`.
#[derive(Default)]
struct Names(Vec<EnvironmentName>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = match Command::deserialize(deserializer)? {
            Command::Shell(one) => vec![one],
            Command::Argv(many) => many,
        };
        let parsed: Result<Vec<_>, _> = names.iter().map(|name| name.parse()).collect();
        parsed.map(Self).map_err(serde::de::Error::custom)
    }
}

fn no_commands() -> BuildSpec {
    BuildSpec {
        fetch: None,
        run: None,
        env: BTreeMap::new(),
        timeout: build_timeout(),
        cache: Vec::new(),
        secrets: Vec::new(),
        network: false,
        sandbox: None,
    }
}

/// Where a key stands in the text, or anything else that begins like this; else its start.
pub(super) fn find(text: &str, needle: &str) -> usize {
    let as_key = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        })
        .find_map(|(start, line)| {
            let indent = line.len() - line.trim_start().len();
            line.trim_start().starts_with(needle).then_some(start + indent)
        });
    as_key.or_else(|| text.find(needle)).unwrap_or(0)
}

/// What the parser says, in our words where a key is unknown.
pub(super) fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> InvalidProject {
    let at = error.span().map_or(0, |span| span.start);
    let message = error.message();
    let mut invalid = invalid_at(file, text, at, message.to_owned());
    if let Some((unknown, expected)) = unknown_field(message) {
        invalid.nearest = nearest(unknown, expected.iter().copied()).map(str::to_owned);
        let hint = match &invalid.nearest {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known here: {}", expected.join(", ")),
        };
        invalid.problem = format!("unknown key `{unknown}`: {hint}");
    }
    invalid
}

/// Takes serde's message about an unknown field apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    Some((unknown, rest.split('`').skip(1).step_by(2).collect()))
}

/// A problem at a byte of the text.
pub(super) fn invalid_at(file: &str, text: &str, at: usize, problem: String) -> InvalidProject {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    InvalidProject { file: file.to_owned(), line, column, problem, nearest: None }
}

/// The candidate that was probably meant, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = word.chars().count().max(3) / 3 + 1;
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, candidate)| candidate)
}

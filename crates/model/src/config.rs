//! Configuration kept outside the artefact: the contract inside its digest, the values of an environment, the snapshot
//! that joins them.
//!
//! ```text
//! contract (in the artefact)  +  values (of the environment)  ──check──►  snapshot (digest)  ──►  deployment key
//! ```

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::canonical;
use crate::digest::Digest;
use crate::duration::Span;
use crate::name::{ConfigKey, EnvironmentName, InvalidName};

/// The manifest annotation that carries the contract as canonical JSON.
pub const CONTRACT_ANNOTATION: &str = "dev.semel.contract";

/// The typed schema of the configuration that an artefact needs. Part of the artefact's digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Contract(pub BTreeMap<ConfigKey, KeyRule>);

/// What one key must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRule {
    /// The type of the value.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// Whether a value must be there; without it: exactly when there is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// The value where the environment gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Scalar>,
    /// Whether the value is a secret: never shown, recorded as a keyed commitment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// For `enum`: the values allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<String>,
    /// For `url`: the schemes allowed; empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// For `int`: the smallest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// For `int`: the largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// The version that first needed the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The version from which the key is no longer wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// One line for the person who must supply the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The types of configuration values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// Any text.
    String,
    /// A whole number.
    Int,
    /// `true` or `false`.
    Bool,
    /// An absolute URL.
    Url,
    /// 1 to 65535.
    Port,
    /// One of `of`.
    Enum,
    /// A path of an existing file at the target.
    File,
    /// A span such as `30s`.
    Duration,
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Url => "url",
            Self::Port => "port",
            Self::Enum => "enum",
            Self::File => "file",
            Self::Duration => "duration",
        })
    }
}

/// A value as TOML spells it; at the target every value is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl KeyRule {
    /// Whether an environment must have a value for it.
    pub fn is_required(&self) -> bool {
        self.required.unwrap_or(self.default.is_none())
    }

    /// Whether a plain value says where it comes from: a number, a switch, a word of a list or of a language stands in many
    /// programs by right.
    pub fn is_telling(&self, value: &str) -> bool {
        let is_words = value.chars().all(|c| c.is_alphabetic() || c == ' ');
        matches!(self.kind, ValueType::String | ValueType::Url | ValueType::File) && !is_words
    }

    /// What is wrong with a value, without repeating the value.
    fn objection(&self, value: &str) -> Option<String> {
        match self.kind {
            ValueType::String | ValueType::File => {
                value.contains('\0').then(|| "contains a NUL byte".to_owned())
            }
            ValueType::Bool => {
                (!matches!(value, "true" | "false")).then(|| "is neither true nor false".to_owned())
            }
            ValueType::Int => self.int_objection(value),
            ValueType::Port => match value.parse::<u16>() {
                Ok(1..) => None,
                _ => Some("is not a port (1 to 65535)".to_owned()),
            },
            ValueType::Enum => (!self.of.iter().any(|allowed| allowed == value))
                .then(|| format!("is none of {}", self.of.join(", "))),
            ValueType::Duration => {
                value.parse::<Span>().is_err().then(|| "is not a duration such as 30s".to_owned())
            }
            ValueType::Url => self.url_objection(value),
        }
    }

    fn int_objection(&self, value: &str) -> Option<String> {
        let Ok(number) = value.parse::<i64>() else { return Some("is not a whole number".to_owned()) };
        match (self.min, self.max) {
            (Some(min), _) if number < min => Some(format!("is below {min}")),
            (_, Some(max)) if number > max => Some(format!("is above {max}")),
            _ => None,
        }
    }

    fn url_objection(&self, value: &str) -> Option<String> {
        let scheme = value.split_once("://").filter(|(_, rest)| !rest.is_empty()).map(|(scheme, _)| scheme);
        let well_formed = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        };
        match scheme {
            Some(scheme) if well_formed(scheme) && !value.contains(char::is_whitespace) => {
                let allowed = self.schemes.is_empty() || self.schemes.iter().any(|one| one == scheme);
                (!allowed).then(|| format!("is not a URL with scheme {}", self.schemes.join(" or ")))
            }
            _ => Some("is not a URL (scheme://…)".to_owned()),
        }
    }
}

/// What is wrong with a contract itself; found when the project file is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration key {key}: {problem}")]
pub struct InvalidContract {
    /// The key whose rule makes no sense.
    pub key: ConfigKey,
    /// Why.
    pub problem: String,
}

impl Contract {
    /// Checks the contract itself: defaults fit their types, an enum names its values, a secret has no default.
    pub fn validate(&self) -> Result<(), InvalidContract> {
        for (key, rule) in &self.0 {
            let problem = if rule.kind == ValueType::Enum && rule.of.is_empty() {
                Some("an enum needs `of = [\"…\"]`".to_owned())
            } else if rule.secret && rule.default.is_some() {
                Some("a secret cannot have a default: it would be inside the artefact".to_owned())
            } else {
                rule.default
                    .as_ref()
                    .and_then(|value| rule.objection(&value.to_string()))
                    .map(|o| format!("the default {o}"))
            };
            if let Some(problem) = problem {
                return Err(InvalidContract { key: key.clone(), problem });
            }
        }
        Ok(())
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The contract's default.
    Default,
    /// The environment's values file.
    File,
    /// The environment's values file, which git does not track and only its owner can read: it may hold secrets.
    Private,
    /// `semel config set`.
    Set,
}

/// Why a values file cannot be understood. Never shows a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValues {
    /// Not TOML. The parser's own words would show the line with the value; the place is enough.
    #[error("is not TOML (line {line})")]
    Syntax {
        /// The line, from 1.
        line: usize,
    },
    /// A name that no key can have.
    #[error(transparent)]
    Key(#[from] InvalidName),
    /// A list or a table.
    #[error("{0} is neither text, nor a whole number, nor true or false")]
    Type(ConfigKey),
}

/// Reads a values file: one `KEY = value` a line, in TOML.
pub fn parse_values(text: &str) -> Result<BTreeMap<ConfigKey, String>, InvalidValues> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().map_or("", |span| &text[..text.floor_char_boundary(span.start)]);
        InvalidValues::Syntax { line: before.matches('\n').count() + 1 }
    })?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let key: ConfigKey = name.parse()?;
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            _ => return Err(InvalidValues::Type(key)),
        };
        values.insert(key, value);
    }
    Ok(values)
}

/// One value offered for a key. Its debug form never shows the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Offered {
    /// The value as text.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("source", &self.source).finish_non_exhaustive()
    }
}

/// One problem of an environment's values with a contract. Names the key, never the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// The key concerned.
    pub key: ConfigKey,
    /// What is wrong, to stand behind the key.
    pub what: String,
    /// What somebody has to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.what)
    }
}

/// Joins a contract with the values of an environment, or lists everything that is wrong with them.
pub fn resolve(
    contract: &Contract,
    environment: &EnvironmentName,
    offered: &BTreeMap<ConfigKey, Offered>,
) -> Result<BTreeMap<ConfigKey, Offered>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut resolved = BTreeMap::new();
    for (key, rule) in &contract.0 {
        match offered_for(key, rule, offered) {
            Some(value) => match rule.objection(&value.value).or_else(|| misplaced(rule, value.source)) {
                None => drop(resolved.insert(key.clone(), value)),
                Some(what) => problems.push(problem(key, rule, environment, Some(value.source), what)),
            },
            None if rule.is_required() => {
                let secret = if rule.secret { ", secret" } else { "" };
                let since = rule.since.as_ref().map(|s| format!(" since {s}")).unwrap_or_default();
                problems.push(problem(
                    key,
                    rule,
                    environment,
                    None,
                    format!("is missing ({}{secret}, required{since})", rule.kind),
                ));
            }
            None => {}
        }
    }
    for (key, value) in offered.iter().filter(|(key, _)| !contract.0.contains_key(*key)) {
        problems.push(unknown_key(key, contract, environment, value.source));
    }
    if problems.is_empty() { Ok(resolved) } else { Err(problems) }
}

fn offered_for(key: &ConfigKey, rule: &KeyRule, offered: &BTreeMap<ConfigKey, Offered>) -> Option<Offered> {
    let default =
        || rule.default.as_ref().map(|value| Offered { value: value.to_string(), source: Source::Default });
    offered.get(key).cloned().or_else(default)
}

fn misplaced(rule: &KeyRule, source: Source) -> Option<String> {
    (rule.secret && source == Source::File)
        .then(|| "is a secret and stands in a file that git tracks or others can read".to_owned())
}

/// What is wrong with a value, and what mends it where the value comes from; none: there is no value.
fn problem(
    key: &ConfigKey,
    rule: &KeyRule,
    environment: &EnvironmentName,
    source: Option<Source>,
    what: String,
) -> Problem {
    let set = format!("semel config set {environment} {key}");
    let remedy = match source {
        Some(Source::Set) => set,
        _ if rule.secret => set,
        Some(Source::File | Source::Private) => format!("set {key} in the values file of {environment}"),
        Some(Source::Default) | None => format!("set {key} in the values file of {environment}, or: {set}"),
    };
    Problem { key: key.clone(), what, remedy }
}

fn unknown_key(
    key: &ConfigKey,
    contract: &Contract,
    environment: &EnvironmentName,
    source: Source,
) -> Problem {
    let near = crate::project::nearest(key.as_str(), contract.0.keys().map(ConfigKey::as_str));
    let hint = near.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    Problem {
        key: key.clone(),
        what: format!("is not in the contract of this version{hint}"),
        remedy: match source {
            Source::Set => format!(
                "declare {key} under [config] in a new version, or: semel config unset {environment} {key}"
            ),
            _ => format!(
                "remove {key} from the values file of {environment}, or declare it under [config] in a new version"
            ),
        },
    }
}

/// The resolved configuration of one deployment, with secrets as keyed commitments. Its canonical digest is the
/// *config digest*.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Format number, 1.
    pub v: u32,
    /// For which environment.
    pub environment: EnvironmentName,
    /// The values by key.
    pub entries: BTreeMap<ConfigKey, SnapshotEntry>,
}

/// One value in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotEntry {
    /// Where it came from.
    pub source: Source,
    /// The plain value, when it is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The commitment, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<String>,
}

impl Snapshot {
    /// Makes the snapshot of resolved values. `key` is the environment's commitment key, which never leaves its target.
    pub fn new(
        contract: &Contract,
        environment: &EnvironmentName,
        resolved: &BTreeMap<ConfigKey, Offered>,
        key: &[u8; 32],
    ) -> Self {
        let entry = |name: &ConfigKey, offered: &Offered| {
            let secret = contract.0.get(name).is_some_and(|rule| rule.secret);
            let (value, commitment) = if secret {
                (None, Some(commitment(key, name, &offered.value)))
            } else {
                (Some(offered.value.clone()), None)
            };
            SnapshotEntry { source: offered.source, value, commitment }
        };
        let entries = resolved.iter().map(|(name, offered)| (name.clone(), entry(name, offered))).collect();
        Self { v: 1, environment: environment.clone(), entries }
    }

    /// The config digest.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
    }
}

/// Checks a snapshot against a contract where the secrets are not: names, plain values, and that a secret is a commitment.
pub fn check_snapshot(contract: &Contract, snapshot: &Snapshot) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for (key, rule) in &contract.0 {
        let entry = snapshot.entries.get(key);
        let what = match entry {
            None if rule.is_required() => Some(format!("is missing ({}, required)", rule.kind)),
            None => None,
            Some(entry) => match (rule.secret, &entry.value, &entry.commitment) {
                (true, None, Some(_)) => None,
                (true, _, _) => Some("is a secret and came as a plain value".to_owned()),
                (false, Some(value), None) => rule.objection(value),
                (false, _, _) => Some("came as a commitment and is no secret".to_owned()),
            },
        };
        let source = entry.map(|entry| entry.source);
        problems.extend(what.map(|what| problem(key, rule, &snapshot.environment, source, what)));
    }
    let unknown = snapshot.entries.iter().filter(|(key, _)| !contract.0.contains_key(*key));
    problems
        .extend(unknown.map(|(key, entry)| unknown_key(key, contract, &snapshot.environment, entry.source)));
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// `HMAC-SHA256(key, "semel config v1" ‖ 0x00 ‖ name ‖ 0x00 ‖ value)` in hexadecimal: equal secrets are recognisable to
/// the holder of the key and to nobody else.
pub fn commitment(key: &[u8; 32], name: &ConfigKey, value: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"semel config v1\0");
    mac.update(name.as_str().as_bytes());
    mac.update(&[0]);
    mac.update(value.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(toml: &str) -> Contract {
        toml::from_str(toml).unwrap()
    }

    fn offered(pairs: &[(&str, &str, Source)]) -> BTreeMap<ConfigKey, Offered> {
        let one = |(key, value, source): &(&str, &str, Source)| {
            (key.parse().unwrap(), Offered { value: (*value).to_owned(), source: *source })
        };
        pairs.iter().map(one).collect()
    }

    const EXAMPLE: &str = r#"
        PORT = { type = "port", default = 8080 }
        DATABASE_URL = { type = "url", schemes = ["postgres"], secret = true, since = "1.4.0" }
        LOG_LEVEL = { type = "enum", of = ["debug", "info"], default = "info" }
        WORKERS = { type = "int", min = 1, max = 64, required = false }
    "#;

    #[test]
    fn all_problems_are_listed_at_once_and_no_value_is_shown() {
        let values = offered(&[
            ("PORT", "hunter2", Source::File),
            ("LOG_LEVEL", "hunter2", Source::File),
            ("WORKERS", "99", Source::Set),
            ("LOGLEVEL", "hunter2", Source::File),
            ("REGION", "hunter2", Source::Set),
        ]);
        let problems = resolve(&contract(EXAMPLE), &"production".parse().unwrap(), &values).unwrap_err();
        let text: Vec<String> = problems.iter().map(|p| format!("{p} -> {}", p.remedy)).collect();
        assert_eq!(
            text,
            [
                "DATABASE_URL is missing (url, secret, required since 1.4.0) -> semel config set production DATABASE_URL",
                "LOG_LEVEL is none of debug, info -> set LOG_LEVEL in the values file of production",
                "PORT is not a port (1 to 65535) -> set PORT in the values file of production",
                "WORKERS is above 64 -> semel config set production WORKERS",
                "LOGLEVEL is not in the contract of this version (did you mean LOG_LEVEL?) -> remove LOGLEVEL from the values file of production, or declare it under [config] in a new version",
                "REGION is not in the contract of this version -> declare REGION under [config] in a new version, or: semel config unset production REGION",
            ]
        );
        assert!(!format!("{problems:?}{values:?}").contains("hunter2"));
    }

    #[test]
    fn a_secret_from_a_file_is_refused_and_a_set_one_becomes_a_commitment() {
        let production = "production".parse().unwrap();
        let in_file = offered(&[("DATABASE_URL", "postgres://u:pw@db/x", Source::File)]);
        assert!(resolve(&contract(EXAMPLE), &production, &in_file).is_err());
        let set = offered(&[("DATABASE_URL", "postgres://u:pw@db/x", Source::Set)]);
        let resolved = resolve(&contract(EXAMPLE), &production, &set).unwrap();
        let snapshot = Snapshot::new(&contract(EXAMPLE), &production, &resolved, &[1; 32]);
        let text = String::from_utf8(canonical::bytes(&snapshot)).unwrap();
        assert!(!text.contains("pw"), "{text}");
        let other = Snapshot::new(&contract(EXAMPLE), &production, &resolved, &[2; 32]);
        assert_ne!(snapshot.digest(), other.digest());
    }

    #[test]
    fn a_contract_that_makes_no_sense_is_named() {
        for (toml, problem) in [
            ("A = { type = \"enum\" }", "an enum needs"),
            ("A = { type = \"string\", secret = true, default = \"x\" }", "a secret cannot have a default"),
            ("A = { type = \"port\", default = 0 }", "the default is not a port"),
        ] {
            assert!(contract(toml).validate().unwrap_err().to_string().contains(problem), "{toml}");
        }
        assert_eq!(contract(EXAMPLE).validate(), Ok(()));
    }

    #[test]
    fn the_canonical_form_of_a_contract_is_frozen() {
        let text =
            String::from_utf8(canonical::bytes(&contract("PORT = { type = \"port\", default = 8080 }")))
                .unwrap();
        assert_eq!(text, r#"{"PORT":{"default":8080,"type":"port"}}"#);
    }
}

//! Versions: names that are bound once and for ever, and what a tag or a command-line word means.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{ComponentName, EnvironmentName, Tag};

/// A version name of a component: full SemVer 2.0 without build metadata, or a plain build number.
///
/// `v1.4.2` and `1.4.2` are the same name; it is kept and shown without the `v`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Semantic(semver::Version),
    Named(Tag),
}

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version (expected `1.4.2` or `1.4.2-rc.1`; `+build` cannot be part of a tag)")]
pub struct InvalidVersion(String);

impl Version {
    /// The final version `major.minor.patch`.
    pub fn final_release(major: u64, minor: u64, patch: u64) -> Self {
        Self(Form::Semantic(semver::Version::new(major, minor, patch)))
    }

    /// A SemVer version, unless it has build metadata, which no tag can carry.
    pub fn semantic(version: semver::Version) -> Result<Self, InvalidVersion> {
        if version.build.is_empty() && version.to_string().len() <= 127 {
            Ok(Self(Form::Semantic(version)))
        } else {
            Err(InvalidVersion(version.to_string()))
        }
    }

    /// A name that is a version by the component's own pattern or policy, not by SemVer.
    pub fn named(tag: Tag) -> Self {
        match tag.as_str().parse() {
            Ok(version) => version,
            Err(_) => Self(Form::Named(tag)),
        }
    }

    /// The SemVer reading, if it has one.
    pub fn as_semver(&self) -> Option<&semver::Version> {
        match &self.0 {
            Form::Semantic(version) => Some(version),
            Form::Named(_) => None,
        }
    }

    /// Whether this is `X.Y.Z` with nothing behind it.
    pub fn is_final(&self) -> bool {
        self.as_semver().is_some_and(|version| version.pre.is_empty())
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let invalid = || InvalidVersion(text.chars().take(160).collect());
        let bare = text.strip_prefix('v').unwrap_or(text);
        let version = semver::Version::parse(bare).map_err(|_| invalid())?;
        Self::semantic(version).map_err(|_| invalid())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Semantic(version) => f.pad(&version.to_string()),
            Form::Named(tag) => fmt::Display::fmt(tag, f),
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Form::Semantic(a), Form::Semantic(b)) => a.cmp(b),
            (Form::Named(a), Form::Named(b)) => a.cmp(b),
            (Form::Named(_), Form::Semantic(_)) => Ordering::Less,
            (Form::Semantic(_), Form::Named(_)) => Ordering::Greater,
        }
    }
}

impl schemars::JsonSchema for Version {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "A version name: 1.4.2, 1.4.2-rc.1"})
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<Tag>().map(Self::named).map_err(serde::de::Error::custom)
    }
}

/// How a component reads the tags that are pushed to it; recorded when the component is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TagPolicy {
    /// Version-like tags are versions; all others are channels.
    Release,
    /// Every tag is a version.
    Strict,
    /// Every tag is a channel: other people's images.
    Mirror,
}

/// Names that a component takes for versions although they do not look like one: `build-#`, `sha-*`, `release-*`.
///
/// `*` stands for any characters, `#` for one or more digits; everything else stands for itself. A pattern covers the whole name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

/// Why a text is no pattern for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no pattern for names (write letters, digits, `.`, `_` and `-`, with `*` for anything and `#` for digits: build-#)"
)]
pub struct InvalidNamePattern(String);

/// The most characters of a pattern. A name has at most 128.
const MAX_PATTERN: usize = 128;

impl NamePattern {
    /// Whether a tag is covered.
    pub fn matches(&self, tag: &Tag) -> bool {
        // The ends of all parts of the tag that the pattern up to here can cover.
        let text = tag.as_str().as_bytes();
        let mut ends = vec![false; text.len() + 1];
        ends[0] = true;
        for symbol in self.0.bytes() {
            ends = advance(symbol, &ends, text);
        }
        ends[text.len()]
    }
}

/// The ends that are possible after one more symbol of a pattern.
fn advance(symbol: u8, ends: &[bool], text: &[u8]) -> Vec<bool> {
    let mut next = vec![false; ends.len()];
    for at in 0..ends.len() {
        let before = at > 0 && ends[at - 1];
        let read = at.checked_sub(1).map(|last| text[last]);
        next[at] = match symbol {
            b'*' => ends[at] || (at > 0 && next[at - 1]),
            b'#' => read.is_some_and(|byte| byte.is_ascii_digit()) && (before || next[at - 1]),
            own => before && read == Some(own),
        };
    }
    next
}

impl FromStr for NamePattern {
    type Err = InvalidNamePattern;

    fn from_str(text: &str) -> Result<Self, InvalidNamePattern> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'*' | b'#');
        match !text.is_empty() && text.len() <= MAX_PATTERN && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidNamePattern(text.chars().take(160).collect())),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for NamePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for NamePattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NamePattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "Names that are versions: build-#, release-*"})
    }
}

/// What a tag means in a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagMeaning {
    /// Bound once, for ever.
    Version(Version),
    /// Movable, with its history.
    Channel(Tag),
    /// `sha256-<hex>.sig`, `.att`, `.sbom`: attachments of clients without the referrers API.
    Attachment(Tag),
}

/// Reads a tag under a component's policy and its own patterns. Names that were reserved are the caller's to look up first.
pub fn meaning_of(tag: &Tag, policy: TagPolicy, patterns: &[NamePattern]) -> TagMeaning {
    if is_attachment(tag.as_str()) {
        return TagMeaning::Attachment(tag.clone());
    }
    match policy {
        TagPolicy::Mirror => TagMeaning::Channel(tag.clone()),
        TagPolicy::Strict => TagMeaning::Version(Version::named(tag.clone())),
        TagPolicy::Release => match tag.as_str().parse::<Version>() {
            Ok(version) => TagMeaning::Version(version),
            Err(_) if is_commit_name(tag.as_str()) || patterns.iter().any(|pattern| pattern.matches(tag)) => {
                TagMeaning::Version(Version::named(tag.clone()))
            }
            Err(_) => TagMeaning::Channel(tag.clone()),
        },
    }
}

/// `sha-4f1c2ab`: what CI systems call an image after its commit.
fn is_commit_name(tag: &str) -> bool {
    tag.strip_prefix("sha-").is_some_and(|hex| hex.len() >= 7 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_attachment(tag: &str) -> bool {
    let Some((digest, suffix)) = tag.split_once('.') else { return false };
    let digest = digest.replacen('-', ":", 1);
    matches!(suffix, "sig" | "att" | "sbom") && digest.parse::<Digest>().is_ok()
}

/// What a person writes where a version is meant: `1.4.2`, `482`, `sha256:9c…`, `commit:4f1c2ab`, `production~1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionWord {
    /// A version name.
    Version(Version),
    /// A build number.
    Number(u64),
    /// A digest or the beginning of one (at least 7 hexadecimal digits, without `sha256:`).
    Digest(String),
    /// A commit or the beginning of one (at least 7 hexadecimal digits).
    Commit(String),
    /// What an environment ran, `back` successful deployments ago.
    Environment {
        /// Which environment.
        name: EnvironmentName,
        /// How many successful deployments to go back; 0 is the newest.
        back: u32,
    },
}

/// Why a word names no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no version (write 1.4.2, a build number such as 482, sha256:…, commit:… or an environment such as production~1)"
)]
pub struct InvalidVersionWord(String);

impl FromStr for VersionWord {
    type Err = InvalidVersionWord;

    fn from_str(text: &str) -> Result<Self, InvalidVersionWord> {
        let invalid = || InvalidVersionWord(text.chars().take(160).collect());
        let hex_prefix = |hex: &str, most: usize| {
            ((7..=most).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
                .then(|| hex.to_owned())
                .ok_or_else(invalid)
        };
        if let Some(hex) = text.strip_prefix("sha256:") {
            return Ok(Self::Digest(hex_prefix(hex, 64)?));
        }
        if let Some(hex) = text.strip_prefix("commit:") {
            return Ok(Self::Commit(hex_prefix(hex, 64)?));
        }
        if let Ok(number) = text.strip_prefix('#').unwrap_or(text).parse::<u64>() {
            return Ok(Self::Number(number));
        }
        if let Ok(version) = text.parse::<Version>() {
            return Ok(Self::Version(version));
        }
        let (name, back) = text.split_once('~').unwrap_or((text, "0"));
        match (name.parse::<EnvironmentName>(), back.parse::<u32>()) {
            (Ok(name), Ok(back)) => Ok(Self::Environment { name, back }),
            _ => text.parse::<Tag>().map(|tag| Self::Version(Version::named(tag))).map_err(|_| invalid()),
        }
    }
}

impl fmt::Display for VersionWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "{version}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Digest(hex) => write!(f, "sha256:{hex}"),
            Self::Commit(hex) => write!(f, "commit:{hex}"),
            Self::Environment { name, back: 0 } => write!(f, "{name}"),
            Self::Environment { name, back } => write!(f, "{name}~{back}"),
        }
    }
}

/// `[COMPONENT@]VERSION`, the argument of most verbs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtefactWord {
    /// The component, if it is named.
    pub component: Option<ComponentName>,
    /// Which of its artefacts.
    pub version: VersionWord,
}

/// Why a word names no artefact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidArtefactWord {
    /// The part before `@`.
    #[error(transparent)]
    Component(#[from] crate::name::InvalidName),
    /// The rest.
    #[error(transparent)]
    Version(#[from] InvalidVersionWord),
}

impl FromStr for ArtefactWord {
    type Err = InvalidArtefactWord;

    fn from_str(text: &str) -> Result<Self, InvalidArtefactWord> {
        match text.split_once('@') {
            Some((component, version)) => {
                Ok(Self { component: Some(component.parse()?), version: version.parse()? })
            }
            None => Ok(Self { component: None, version: text.parse()? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    #[test]
    fn the_usual_tag_set_of_a_release_is_read_as_versions_and_channels() {
        for version in ["1.4.2", "v1.4.2", "1.4.2-rc.1", "sha-4f1c2ab"] {
            assert!(
                matches!(meaning_of(&tag(version), TagPolicy::Release, &[]), TagMeaning::Version(_)),
                "{version}"
            );
        }
        for channel in ["1.4", "1", "v1", "latest", "3.12-slim", "20240101", "main"] {
            assert!(
                matches!(meaning_of(&tag(channel), TagPolicy::Release, &[]), TagMeaning::Channel(_)),
                "{channel}"
            );
        }
    }

    #[test]
    fn a_leading_v_is_the_same_name() {
        assert_eq!("v1.4.2".parse::<Version>().unwrap(), "1.4.2".parse().unwrap());
        assert_eq!(Version::named(tag("v1.4.2")).to_string(), "1.4.2");
    }

    #[test]
    fn policies_decide_what_a_tag_is() {
        assert_eq!(
            meaning_of(&tag("latest"), TagPolicy::Strict, &[]),
            TagMeaning::Version(Version::named(tag("latest")))
        );
        assert_eq!(meaning_of(&tag("1.4.2"), TagPolicy::Mirror, &[]), TagMeaning::Channel(tag("1.4.2")));
        let attachment = format!("sha256-{}.sig", Digest::of(b"x").hex());
        assert!(matches!(meaning_of(&tag(&attachment), TagPolicy::Strict, &[]), TagMeaning::Attachment(_)));
    }

    #[test]
    fn a_pattern_of_the_component_makes_versions_of_other_names() {
        let cases = [
            ("build-#", "build-482", true),
            ("build-#", "build-", false),
            ("build-#", "build-4x", false),
            ("#", "20240101", true),
            ("#", "1.4", false),
            ("rel-*", "rel-", true),
            ("rel-*", "xrel-1", false),
            ("*-#.#", "a-b-10.2", true),
            ("*-#.#", "a-b-10.", false),
            ("**", "x", true),
        ];
        for (pattern, name, expected) in cases {
            let pattern: NamePattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(&tag(name)), expected, "{pattern} {name}");
            let read = meaning_of(&tag(name), TagPolicy::Release, std::slice::from_ref(&pattern));
            assert_eq!(matches!(read, TagMeaning::Version(_)), expected, "{pattern} {name}");
        }
        for bad in ["", "a b", "a/b", "ä"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_word_for_a_version_is_read_as_what_it_looks_like() {
        let cases = [
            ("1.4.2", "Version(1.4.2)"),
            ("v1.4.2", "Version(1.4.2)"),
            ("482", "Number(482)"),
            ("#482", "Number(482)"),
            ("sha256:9c0ffee", "Digest(\"9c0ffee\")"),
            ("commit:4f1c2ab", "Commit(\"4f1c2ab\")"),
            ("production", "Environment { name: production, back: 0 }"),
            ("production~1", "Environment { name: production, back: 1 }"),
            ("sha-4f1c2ab", "Environment { name: sha-4f1c2ab, back: 0 }"),
        ];
        for (text, read) in cases {
            assert_eq!(format!("{:?}", text.parse::<VersionWord>().unwrap()), read, "{text}");
        }
        for bad in ["", "sha256:zz", "commit:12", "a b", "production~x"] {
            assert!(bad.parse::<VersionWord>().is_err(), "{bad}");
        }
    }

    #[test]
    fn build_metadata_is_no_part_of_a_version() {
        assert!("1.4.2+build".parse::<Version>().is_err());
    }
}

//! Versions: names that are bound once and for ever, and what a tag or a command-line word means.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::duration::Span;
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

    /// The number, if it is a build number and nothing else.
    pub fn as_number(&self) -> Option<u64> {
        match &self.0 {
            Form::Named(tag) => Some(tag.as_str()).filter(|text| !text.starts_with('0'))?.parse().ok(),
            Form::Semantic(_) => None,
        }
    }

    /// Whether this is `X.Y.Z` with nothing behind it.
    pub fn is_final(&self) -> bool {
        self.as_semver().is_some_and(|version| version.pre.is_empty())
    }
}

/// What an artefact is called where its digest in full would be too much: its version, else the first digits of the digest.
pub fn known_as(version: Option<&Version>, digest: &Digest) -> String {
    version.map_or_else(|| digest.short().to_owned(), ToString::to_string)
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

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no policy (write release, strict or mirror)")]
pub struct InvalidTagPolicy(String);

impl FromStr for TagPolicy {
    type Err = InvalidTagPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidTagPolicy> {
        match text {
            "release" => Ok(Self::Release),
            "strict" => Ok(Self::Strict),
            "mirror" => Ok(Self::Mirror),
            _ => Err(InvalidTagPolicy(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for TagPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Release => "release",
            Self::Strict => "strict",
            Self::Mirror => "mirror",
        })
    }
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

/// What a person writes where a version is meant: `1.4.2`, `482`, `sha256:9c…`, `commit:4f1c2ab`, `production~1`,
/// `latest@{2.hours.ago}`.
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
    /// What an environment ran, or a channel pointed to, at a time.
    At {
        /// Which environment or channel.
        name: Tag,
        /// When.
        time: TimeWord,
    },
}

/// A time as a person writes it: `2.hours.ago`, `2026-11-01` (its beginning, in UTC), `2026-11-01T10:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeWord {
    /// So long before somebody asks.
    Ago(Span),
    /// Then.
    On(Timestamp),
}

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time (write 2.hours.ago, 2026-11-01 or 2026-11-01T10:00:00Z)")]
pub struct InvalidTimeWord(String);

/// The units of [`TimeWord::Ago`] in seconds, the largest first.
const UNITS: [(&str, u64); 5] =
    [("week", 7 * 86_400), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];

impl TimeWord {
    /// The time that is meant by somebody who asks now.
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::On(time) => time,
            Self::Ago(span) => {
                let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                let then = now.as_millisecond().saturating_sub(millis);
                Timestamp::from_millisecond(then).unwrap_or(Timestamp::MIN)
            }
        }
    }

    fn ago(text: &str) -> Option<Self> {
        let (amount, unit) = text.strip_suffix(".ago")?.split_once('.')?;
        let amount = Some(amount).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        let singular = unit.strip_suffix('s').unwrap_or(unit);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == singular)?;
        let seconds = amount.parse::<u64>().ok()?.checked_mul(*seconds)?;
        // Longer ago than anything was recorded, and no number is too large to be counted in milliseconds.
        Some(Self::Ago(Span::seconds(Some(seconds).filter(|all| *all <= MAX_AGO)?)))
    }

    fn on(text: &str) -> Option<Self> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Some(Self::On(time));
        }
        let date: civil::Date = Some(text).filter(|text| text.len() == 10)?.parse().ok()?;
        Some(Self::On(date.to_zoned(TimeZone::UTC).ok()?.timestamp()))
    }
}

/// A thousand years in seconds.
const MAX_AGO: u64 = 1_000 * 366 * 86_400;

impl FromStr for TimeWord {
    type Err = InvalidTimeWord;

    fn from_str(text: &str) -> Result<Self, InvalidTimeWord> {
        Self::ago(text)
            .or_else(|| Self::on(text))
            .ok_or_else(|| InvalidTimeWord(text.chars().take(80).collect()))
    }
}

impl fmt::Display for TimeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(time) => write!(f, "{time}"),
            Self::Ago(span) => {
                let seconds = span.as_millis() / 1_000;
                let fits = |unit: &&(&str, u64)| seconds >= unit.1 && seconds.is_multiple_of(unit.1);
                let (unit, length) = UNITS.iter().find(fits).unwrap_or(&("second", 1));
                let plural = if seconds == *length { "" } else { "s" };
                write!(f, "{}.{unit}{plural}.ago", seconds / length)
            }
        }
    }
}

/// Why a word names no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVersionWord {
    /// It looks like none of them.
    #[error(
        "`{0}` names no version (write 1.4.2, a build number such as 482, sha256:…, commit:…, a channel such as latest, or an environment such as production~1)"
    )]
    Word(String),
    /// The part in braces.
    #[error(transparent)]
    Time(#[from] InvalidTimeWord),
}

impl FromStr for VersionWord {
    type Err = InvalidVersionWord;

    fn from_str(text: &str) -> Result<Self, InvalidVersionWord> {
        let invalid = || InvalidVersionWord::Word(text.chars().take(160).collect());
        if let Some((name, time)) = text.strip_suffix('}').and_then(|rest| rest.split_once("@{")) {
            let name = name.parse().map_err(|_| invalid())?;
            return Ok(Self::At { name, time: time.parse()? });
        }
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
            Self::At { name, time } => write!(f, "{name}@{{{time}}}"),
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
            // `latest@{2.hours.ago}` names a time, not a component.
            Some((component, version)) if !version.starts_with('{') => {
                Ok(Self { component: Some(component.parse()?), version: version.parse()? })
            }
            _ => Ok(Self { component: None, version: text.parse()? }),
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
        for bad in ["", "sha256:zz", "commit:12", "a b", "production~x", "@{2.hours.ago}", "a b@{2026-11-01}"]
        {
            assert!(bad.parse::<VersionWord>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_word_with_a_time_is_read_and_written_the_same() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let cases = [
            ("production@{2.hours.ago}", "production@{2.hours.ago}", "2026-11-22T10:00:00Z"),
            ("latest@{1.week.ago}", "latest@{1.week.ago}", "2026-11-15T12:00:00Z"),
            ("latest@{7.days.ago}", "latest@{1.week.ago}", "2026-11-15T12:00:00Z"),
            ("1.4@{90.seconds.ago}", "1.4@{90.seconds.ago}", "2026-11-22T11:58:30Z"),
            ("1.4@{1.minutes.ago}", "1.4@{1.minute.ago}", "2026-11-22T11:59:00Z"),
            ("latest@{0.seconds.ago}", "latest@{0.seconds.ago}", "2026-11-22T12:00:00Z"),
            ("latest@{2026-11-01}", "latest@{2026-11-01T00:00:00Z}", "2026-11-01T00:00:00Z"),
            ("latest@{2026-11-01T10:00:00+02:00}", "latest@{2026-11-01T08:00:00Z}", "2026-11-01T08:00:00Z"),
        ];
        for (text, shown, meant) in cases {
            let word: VersionWord = text.parse().unwrap();
            assert_eq!(word.to_string(), shown);
            assert_eq!(shown.parse::<VersionWord>().unwrap(), word);
            let VersionWord::At { time, .. } = word else { panic!("{text} has no time") };
            assert_eq!(time.before(now).to_string(), meant, "{text}");
        }
        for bad in
            ["soon", "2.hours", "two.hours.ago", "-2.hours.ago", "2.years.ago", "2026-13-01", "20261101", ""]
        {
            assert!(format!("latest@{{{bad}}}").parse::<VersionWord>().is_err(), "{bad}");
        }
        assert!("latest@{99999999999999999999.weeks.ago}".parse::<VersionWord>().is_err());
        assert!("latest@{9999999999999999.weeks.ago}".parse::<VersionWord>().is_err());
    }

    #[test]
    fn the_component_of_a_word_ends_at_the_first_at_sign_that_begins_no_time() {
        let cases = [
            ("1.4.2", None, "1.4.2"),
            ("shop/api@1.4.2", Some("shop/api"), "1.4.2"),
            ("production@{2.hours.ago}", None, "production@{2.hours.ago}"),
            ("shop/api@latest@{2026-11-01T10:00:00Z}", Some("shop/api"), "latest@{2026-11-01T10:00:00Z}"),
        ];
        for (text, component, version) in cases {
            let word: ArtefactWord = text.parse().unwrap();
            assert_eq!(word.component.map(|name| name.to_string()).as_deref(), component, "{text}");
            assert_eq!(word.version.to_string(), version, "{text}");
        }
        for bad in ["@1.4.2", "shop/api@", "shop/api@{2.hours.ago}", "Shop@1.0.0"] {
            assert!(bad.parse::<ArtefactWord>().is_err(), "{bad}");
        }
    }

    #[test]
    fn build_metadata_is_no_part_of_a_version() {
        assert!("1.4.2+build".parse::<Version>().is_err());
    }
}

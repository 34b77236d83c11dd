//! Names are kept for ever, bytes by rule: which artefacts of a component may lose their bytes, and why the others may not.
//!
//! [`judge`] is the rule. It knows no clock and no store: what holds an artefact is gathered elsewhere and given as [`Facts`].

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::duration::{InvalidSpan, Span};
use crate::name::{EnvironmentName, Tag};
use crate::version::Version;

/// How long the bytes of a component's artefacts are kept, by what the artefact was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Was promoted to some environment; counted from the newest promotion or deployment.
    #[serde(default = "for_ever")]
    pub promoted: Term,
    /// Has a final version, `1.4.2`, or a number, `482`; counted from its publication.
    #[serde(default = "ninety_days")]
    pub trunk: Term,
    /// Everything else: pre-releases, names by pattern, artefacts that no name points to any more.
    #[serde(default = "fourteen_days")]
    pub branch: Term,
}

fn for_ever() -> Term {
    Term::ForEver
}

fn ninety_days() -> Term {
    Term::For(Span::seconds(90 * 86_400))
}

fn fourteen_days() -> Term {
    Term::For(Span::seconds(14 * 86_400))
}

impl Default for Keep {
    fn default() -> Self {
        Self { promoted: for_ever(), trunk: ninety_days(), branch: fourteen_days() }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promoted={}, trunk={}, branch={}", self.promoted, self.trunk, self.branch)
    }
}

/// The terms of a [`Keep`] that somebody wants to be different; the others stay as they are.
///
/// Written `trunk=30d,branch=7d,promoted=for ever`, in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// See [`Keep::promoted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Term>,
    /// See [`Keep::trunk`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<Term>,
    /// See [`Keep::branch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Term>,
}

impl Terms {
    /// The rules with these terms in place of their own.
    pub fn over(self, keep: Keep) -> Keep {
        Keep {
            promoted: self.promoted.unwrap_or(keep.promoted),
            trunk: self.trunk.unwrap_or(keep.trunk),
            branch: self.branch.unwrap_or(keep.branch),
        }
    }
}

/// Why a text names no terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// A part is not `RULE=TERM`, names no rule, or names one again.
    #[error(
        "`{0}` is no rule for keeping bytes (write promoted, trunk or branch, each once: trunk=30d,branch=7d)"
    )]
    Rule(String),
    /// A part has no term.
    #[error("`{0}` does not say how long (write `for ever`, or a whole number and a unit: 90d, 12h)")]
    Term(String),
}

impl FromStr for Terms {
    type Err = InvalidTerms;

    fn from_str(text: &str) -> Result<Self, InvalidTerms> {
        let mut terms = Self::default();
        for part in text.split(',').map(str::trim) {
            let shown = || part.chars().take(80).collect();
            let (rule, term) = part.split_once('=').ok_or_else(|| InvalidTerms::Rule(shown()))?;
            let place = match rule.trim() {
                "promoted" => &mut terms.promoted,
                "trunk" => &mut terms.trunk,
                "branch" => &mut terms.branch,
                _ => return Err(InvalidTerms::Rule(shown())),
            };
            let term = term.trim().parse().map_err(|_| InvalidTerms::Term(shown()))?;
            if place.replace(term).is_some() {
                return Err(InvalidTerms::Rule(shown()));
            }
        }
        Ok(terms)
    }
}

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// As long as the store exists.
    ForEver,
    /// For a span of time.
    For(Span),
}

impl Term {
    /// When something that counts from `since` ends; never: `None`.
    fn end(self, since: Timestamp) -> Option<Timestamp> {
        match self {
            Self::ForEver => None,
            Self::For(span) => {
                let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
                let end = since.as_millisecond().saturating_add(millis);
                Some(Timestamp::from_millisecond(end).unwrap_or(Timestamp::MAX))
            }
        }
    }
}

impl FromStr for Term {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        match text {
            "for ever" | "forever" => Ok(Self::ForEver),
            _ => text.parse().map(Self::For),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForEver => f.write_str("for ever"),
            Self::For(span) => fmt::Display::fmt(span, f),
        }
    }
}

impl Serialize for Term {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Term {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Term".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "How long: `for ever`, `90d`, `12h`"})
    }
}

/// What holds an artefact: while one of these is there, nothing removes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "holder")]
pub enum Holder {
    /// A version means it, for ever.
    Version {
        /// Which.
        version: Version,
    },
    /// A channel points to it.
    Channel {
        /// Which.
        channel: Tag,
    },
    /// It is among the deployments that an environment runs or may go back to.
    Deployment {
        /// Where.
        environment: EnvironmentName,
        /// Which deployment of the binding.
        generation: u64,
    },
    /// An index contains it.
    Index {
        /// The index.
        digest: Digest,
    },
    /// It says something about an artefact that is known here.
    Subject {
        /// About which.
        digest: Digest,
    },
    /// A draft is to become a version.
    Draft {
        /// Which.
        version: Version,
    },
    /// It is the newest final version of its component.
    Newest {
        /// Which.
        version: Version,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { version } => write!(f, "version {version}"),
            Self::Channel { channel } => write!(f, "channel {channel}"),
            Self::Deployment { environment, generation } => {
                write!(f, "deployment {generation} of {environment}")
            }
            Self::Index { digest } => write!(f, "index {digest}"),
            Self::Subject { digest } => write!(f, "it is a statement about {digest}"),
            Self::Draft { version } => write!(f, "draft of {version}"),
            Self::Newest { version } => write!(f, "{version} is the newest version"),
        }
    }
}

/// What is known of an artefact when its bytes are judged.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Everything that holds it now, but its versions.
    pub holders: Vec<Holder>,
    /// Its versions, with the time of their publication.
    pub versions: Vec<(Version, Timestamp)>,
    /// When it was last promoted or deployed.
    pub promoted: Option<Timestamp>,
    /// When it was stored, or a channel last let go of it.
    pub last_seen: Timestamp,
}

/// Which rule a judgement follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// `keep.promoted`.
    Promoted,
    /// `keep.trunk`.
    Trunk,
    /// `keep.branch`.
    Branch,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promoted => "promoted",
            Self::Trunk => "trunk",
            Self::Branch => "branch",
        })
    }
}

/// What the rules say of an artefact's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Something holds it.
    Held(Vec<Holder>),
    /// A rule keeps it, until then or for ever.
    Kept {
        /// Which rule.
        rule: Rule,
        /// Until when.
        until: Option<Timestamp>,
    },
    /// Its time is over.
    Over {
        /// Of the rules that applied, the one that ended last.
        rule: Rule,
        /// When it ended.
        since: Timestamp,
    },
}

/// Judges the bytes of one artefact. Of several rules that apply, the most generous decides.
pub fn judge(facts: &Facts, keep: &Keep, now: Timestamp) -> Judgement {
    if !facts.holders.is_empty() {
        return Judgement::Held(facts.holders.clone());
    }
    let promoted = facts.promoted.map(|time| (Rule::Promoted, keep.promoted.end(time)));
    let of_trunk = |version: &Version| version.is_final() || version.as_number().is_some();
    let named = facts.versions.iter().map(|(version, time)| match of_trunk(version) {
        true => (Rule::Trunk, keep.trunk.end(*time)),
        false => (Rule::Branch, keep.branch.end(*time)),
    });
    let seen = (Rule::Branch, keep.branch.end(facts.last_seen));
    // "Never ends" comes after every end.
    let later = |end: &Option<Timestamp>| end.unwrap_or(Timestamp::MAX);
    let (rule, end) = named
        .chain(promoted)
        .fold(seen, |best, one| if later(&one.1) >= later(&best.1) { one } else { best });
    match end {
        Some(since) if since <= now => Judgement::Over { rule, since },
        until => Judgement::Kept { rule, until },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + n * 86_400).unwrap()
    }

    fn facts() -> Facts {
        Facts { holders: Vec::new(), versions: Vec::new(), promoted: None, last_seen: day(0) }
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn the_most_generous_rule_decides() {
        let keep = Keep::default();
        let unnamed = facts();
        let branch = Facts { versions: vec![(version("1.0.0-fix.1"), day(0))], ..facts() };
        let trunk =
            Facts { versions: vec![(version("1.0.0-rc.1"), day(0)), (version("1.0.0"), day(1))], ..facts() };
        let promoted = Facts { promoted: Some(day(2)), ..trunk.clone() };
        let cases = [
            (&unnamed, 13, "kept branch"),
            (&unnamed, 14, "over branch"),
            (&branch, 13, "kept branch"),
            (&branch, 14, "over branch"),
            (&trunk, 14, "kept trunk"),
            (&trunk, 91, "over trunk"),
            (&promoted, 9_999, "kept promoted"),
        ];
        for (facts, at, expected) in cases {
            let said = match judge(facts, &keep, day(at)) {
                Judgement::Held(_) => "held".to_owned(),
                Judgement::Kept { rule, .. } => format!("kept {rule}"),
                Judgement::Over { rule, .. } => format!("over {rule}"),
            };
            assert_eq!(said, expected, "day {at}");
        }
    }

    #[test]
    fn whatever_is_held_is_kept_at_any_age() {
        let holder = Holder::Channel { channel: "latest".parse().unwrap() };
        let held = Facts { holders: vec![holder.clone()], ..facts() };
        assert_eq!(judge(&held, &Keep::default(), day(100_000)), Judgement::Held(vec![holder]));
    }

    #[test]
    fn a_short_rule_does_not_shorten_a_long_one() {
        let keep = Keep { promoted: "1d".parse().unwrap(), ..Keep::default() };
        let trunk = Facts { versions: vec![(version("1.0.0"), day(0))], promoted: Some(day(0)), ..facts() };
        assert!(matches!(judge(&trunk, &keep, day(80)), Judgement::Kept { rule: Rule::Trunk, .. }));
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        let keep: Keep = serde_json::from_str(r#"{"trunk":"30d"}"#).unwrap();
        assert_eq!(keep.to_string(), "promoted=for ever, trunk=30d, branch=14d");
        let text = serde_json::to_string(&keep).unwrap();
        assert_eq!(serde_json::from_str::<Keep>(&text).unwrap(), keep);
        for bad in [r#"{"trunk":"soon"}"#, r#"{"trunks":"30d"}"#] {
            assert!(serde_json::from_str::<Keep>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn terms_change_only_what_they_name() {
        let terms: Terms = "branch=7d, promoted=1d".parse().unwrap();
        assert_eq!(terms.over(Keep::default()).to_string(), "promoted=1d, trunk=90d, branch=7d");
        let for_ever: Terms = "trunk=for ever".parse().unwrap();
        assert_eq!(for_ever.over(Keep::default()).trunk, Term::ForEver);
        for bad in ["", "trunk", "trunk=", "trunk=soon", "main=3d", "trunk=1d,trunk=2d", "trunk=1d,", "=1d"] {
            assert!(bad.parse::<Terms>().is_err(), "{bad}");
        }
    }
}

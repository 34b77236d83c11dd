//! Reproducibility: whether the same source gave the same bytes again (docs/format.md, "Reproducibility report").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::pipeline::EvidenceResult;

/// The short name of this evidence, for gates.
pub const NAME: &str = "reproducibility";
/// What says whether the same source gave the same bytes twice.
pub const PREDICATE_TYPE: &str = "https://semel.dev/evidence/reproducibility/v1";

/// The most differences that a report lists; how many more there are is a number.
pub const DIFFERENCES_MAX: usize = 50;

/// What became of building once more what an artefact was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// The build key of the source.
    pub build_key: Digest,
    /// The platform that was built for, such as `linux/amd64`.
    pub platform: String,
    /// What was built before: the artefact, or its part for this platform.
    pub committed: Digest,
    /// What came out this time.
    pub built: Digest,
    /// Who built this time.
    pub builder: Builder,
    /// What was made otherwise on purpose, sorted.
    pub variations: Vec<String>,
    /// What could not be made otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The first differences, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// How many there are besides.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_differences: u64,
}

/// A program that builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// Its identity, a URI.
    pub id: String,
    /// Its version.
    pub version: String,
}

/// A variation that was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Its word.
    pub variation: String,
    /// Why.
    pub reason: String,
}

/// One difference between what was built before and what came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// `manifest`, `configuration`, `layer 1`.
    pub place: String,
    /// The entry of the layer, or the field of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where in it: `line 3`, `ELF .rodata at 0x1a2f0`, `permissions`.
    pub what: String,
    /// What was built before has this there, in part.
    pub committed: String,
    /// What came out has this there, in part.
    pub built: String,
    /// What it comes from, as far as that can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a report says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReport {
    /// It is no such document.
    #[error("not a reproducibility report: {0}")]
    Malformed(String),
    /// It contradicts itself.
    #[error("the report lists differences between bytes with one digest")]
    Contradiction,
    /// It is longer than it may be.
    #[error("the report lists {0} differences, more than {DIFFERENCES_MAX}")]
    TooMany(usize),
}

impl Report {
    /// Reads a report that comes from elsewhere.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidReport> {
        let report: Self =
            serde_json::from_slice(bytes).map_err(|error| InvalidReport::Malformed(error.to_string()))?;
        let listed = report.differences.len();
        match report.result() {
            _ if listed > DIFFERENCES_MAX => Err(InvalidReport::TooMany(listed)),
            EvidenceResult::Pass if listed > 0 || report.more_differences > 0 => {
                Err(InvalidReport::Contradiction)
            }
            _ => Ok(report),
        }
    }

    /// What it comes to: the bytes are the same, or not.
    pub fn result(&self) -> EvidenceResult {
        if self.committed == self.built { EvidenceResult::Pass } else { EvidenceResult::Fail }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let variations = counted(self.variations.len() as u64, "variation");
        match self.result() {
            EvidenceResult::Pass => format!("identical, {variations}"),
            _ => {
                let differences = self.differences.len() as u64 + self.more_differences;
                format!("{}, {variations}", counted(differences, "difference"))
            }
        }
    }
}

/// `1 variation`, `2 variations`.
fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report(built: &str, differences: usize) -> Value {
        let difference =
            json!({"place": "layer 1", "path": "a", "what": "line 1", "committed": "1", "built": "2"});
        json!({
            "buildKey": Digest::of(b"key"),
            "platform": "linux/amd64",
            "committed": Digest::of(b"one"),
            "built": Digest::of(built.as_bytes()),
            "builder": {"id": "https://example.org", "version": "1"},
            "variations": ["path"],
            "differences": vec![difference; differences],
        })
    }

    #[test]
    fn a_report_says_its_result_itself_and_does_not_contradict_itself() {
        for (report, expected) in [
            (report("one", 0), Ok("identical, 1 variation".to_owned())),
            (report("two", 2), Ok("2 differences, 1 variation".to_owned())),
            (report("one", 1), Err(InvalidReport::Contradiction)),
            (report("two", 51), Err(InvalidReport::TooMany(51))),
        ] {
            let parsed = Report::parse(report.to_string().as_bytes());
            assert_eq!(parsed.as_ref().map(Report::summary).map_err(Clone::clone), expected);
            if let Ok(parsed) = parsed {
                assert_eq!(Report::parse(&serde_json::to_vec(&parsed).unwrap()), Ok(parsed));
            }
        }
        assert!(matches!(Report::parse(b"{}"), Err(InvalidReport::Malformed(_))));
    }
}

//! Findings: what was found where, in words that never repeat the value.

use std::fmt;

use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The artefact is not published.
    Error,
    /// Somebody should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Where in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A line of a text, from 1.
    Line(u64),
    /// An offset in bytes.
    Offset(u64),
}

/// Counts lines up to places that come one after the other, so that many places of one text cost no more than one.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// The line, from 1, of a byte.
    pub(super) fn line_at(&mut self, at: usize) -> u64 {
        let between = &self.text[self.at.min(at)..self.at.max(at)];
        let ends = memchr::memchr_iter(b'\n', between).count() as u64;
        self.line = if at < self.at { self.line - ends } else { self.line + ends };
        self.at = at;
        self.line
    }
}

/// Something that should not be inside an artefact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// The rule, such as `secret/aws-access-key`.
    pub rule: String,
    /// The path in the artefact, or the part of the image configuration.
    pub path: String,
    /// Where in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The layer's digest, for what came with a base or another builder's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// What it is, without its value.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Finding {
    /// The path, and where in it.
    pub fn shown_place(&self) -> String {
        match self.place {
            Some(Place::Line(line)) => format!("{}:{line}", self.path),
            Some(Place::Offset(offset)) => format!("{} at byte {offset}", self.path),
            None => self.path.clone(),
        }
    }
}

impl Finding {
    /// The finding as it counts in what other people wrote: what looks like a secret there is mostly an example, and what
    /// is set or named there is not about environments of the project.
    pub(super) fn in_example(self) -> Option<Self> {
        match self.rule.as_str() {
            "shape/contract-value" | "inlined/address" | "secret/assignment" => None,
            rule if rule.starts_with("secret/") || rule.starts_with("shape/") => {
                Some(Self { severity: Severity::Warning, ..self })
            }
            _ => Some(self),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.shown_place(), self.what, self.rule)
    }
}

/// Whether a path belongs to what other people wrote, or explains and tests: what looks like a secret there is mostly an example.
pub(super) fn is_example(path: &str) -> bool {
    const DIRECTORIES: &[&str] = &[
        "node_modules",
        "site-packages",
        "dist-packages",
        "vendor",
        "doc",
        "docs",
        "test",
        "tests",
        "testdata",
        "__tests__",
        "fixtures",
        "examples",
        "example",
        "man",
        "licenses",
    ];
    const SUFFIXES: &[&str] = &[".md", ".rst", ".markdown", ".d.ts", ".map"];
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    name.split(['.', '-', '_']).any(|word| matches!(word, "example" | "examples" | "sample" | "samples"))
        || lower.split('/').any(|part| DIRECTORIES.contains(&part) || part.ends_with(".dist-info"))
        || SUFFIXES.iter().any(|suffix| lower.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_counted_forwards_and_backwards() {
        let mut lines = Lines::of(b"a\nb\n\nc");
        for (at, line) in [(0, 1), (1, 1), (2, 2), (5, 4), (3, 2), (4, 3), (0, 1), (6, 4)] {
            assert_eq!(lines.line_at(at), line, "{at}");
        }
    }
}

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
        || is_system_library(&lower, name)
}

/// A shared library where a system keeps its own. Those that encrypt have the keys with which they test themselves
/// inside: GnuTLS, which is below each Debian image, has ten.
fn is_system_library(path: &str, name: &str) -> bool {
    let of_system = path.starts_with("/lib/") || path.starts_with("/lib64/") || path.contains("/usr/lib");
    of_system && name.starts_with("lib") && (name.contains(".so.") || name.ends_with(".so"))
}

#[cfg(test)]
mod tests {
    use super::is_example;

    #[test]
    fn what_other_people_wrote_is_told_from_what_the_project_wrote() {
        for (path, expected) in [
            ("/app/node_modules/jsonwebtoken/index.js", true),
            ("/usr/lib/python3/dist-packages/key.py", true),
            ("/app/settings.example.toml", true),
            ("/usr/lib/x86_64-linux-gnu/libgnutls.so.30.34.3", true),
            ("/usr/lib64/libgnutls.so", true),
            ("/lib/libcrypto.so.3", true),
            ("/app/lib/libshop.so", false),
            ("/usr/lib/shop/shop.key", false),
            ("/usr/bin/shop", false),
            ("/app/main.py", false),
        ] {
            assert_eq!(is_example(path), expected, "{path}");
        }
    }
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

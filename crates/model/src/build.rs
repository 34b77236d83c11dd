//! Build once: the source tree, the build key, and what the version rule is told.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::canonical;
use crate::digest::Digest;
use crate::name::{CommitId, ComponentName};
use crate::version::Version;

/// One tracked file of a source tree, as git lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeEntry {
    /// The path from the project's directory, as raw bytes.
    pub path: Vec<u8>,
    /// The git mode: `100644`, `100755`, `120000` or `160000`.
    pub mode: String,
    /// The git object that holds the content.
    pub object: String,
}

impl TreeEntry {
    /// Whether it is a submodule: `object` is then the commit that it is at.
    pub fn is_submodule(&self) -> bool {
        self.mode == "160000"
    }
}

/// The digest of a source tree: SHA-256 over `"semel source tree v1" 0x00` and, for each entry in the order of the path
/// bytes, `mode 0x20 object 0x20 path 0x00`.
pub fn source_tree_digest(mut entries: Vec<TreeEntry>) -> Digest {
    entries.sort();
    let mut hash = Sha256::new();
    hash.update(b"semel source tree v1\0");
    for entry in &entries {
        for part in [entry.mode.as_bytes(), b" ", entry.object.as_bytes(), b" ", &entry.path, b"\0"] {
            hash.update(part);
        }
    }
    Digest::from_sha256(hash.finalize().into())
}

/// What a build key is made of: only what the commit says. Toolchain, runner and clock are provenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildInputs {
    /// Format number, 1.
    pub v: u32,
    /// The component.
    pub component: ComponentName,
    /// The packaging format.
    pub format: u32,
    /// The digest of the source tree.
    pub source: Digest,
    /// The digest of the canonical definition.
    pub definition: Digest,
    /// The digests of the base images.
    pub bases: Vec<Digest>,
    /// Raised to build the same again on purpose.
    pub salt: u32,
}

impl BuildInputs {
    /// The build key.
    pub fn key(&self) -> Digest {
        canonical::digest(self)
    }
}

/// A commit as the version rule sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitFact {
    /// Its id.
    pub id: CommitId,
    /// Its parents, first parent first.
    pub parents: Vec<CommitId>,
    /// The pseudonym of its author, once the store has taken it in; the author's address on the way there.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// What it asks of the next version.
    pub bump: Bump,
    /// Whether it changes nothing of the source tree: it asks for nothing then, and brings nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
}

/// Which part of a version moves.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Bump {
    /// The last number.
    Patch,
    /// The middle number.
    Minor,
    /// The first number (the middle one before 1.0.0).
    Major,
    /// The first number, also before 1.0.0: only for somebody who says so.
    Stable,
}

impl Bump {
    /// The word in documents and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Stable => "stable",
        }
    }

    /// Reads the word in documents and tables.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Patch, Self::Minor, Self::Major, Self::Stable].into_iter().find(|bump| bump.word() == word)
    }

    /// Reads what somebody asks for in so many words: `patch`, `minor`, `major`.
    pub fn asked(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "patch" => Some(Self::Patch),
            "minor" => Some(Self::Minor),
            "major" => Some(Self::Stable),
            _ => None,
        }
    }
}

impl fmt::Display for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major | Self::Stable => "major",
        })
    }
}

/// What a commit message asks for (Conventional Commits 1.0.0). A message of any other form is a patch: every build gets
/// a version. The footer `Version-Bump: patch`, `minor` or `major` says it in so many words, and nothing else counts then.
///
/// Of a body only footers are read: a squashed commit lists messages there that are not its own.
pub fn bump_of(message: &str) -> Bump {
    let mut lines = message.lines();
    let subject = lines.next().unwrap_or("");
    let body: Vec<&str> = lines.collect();
    let asked = |line: &&str| line.strip_prefix("Version-Bump:").and_then(Bump::asked);
    if let Some(bump) = body.iter().rev().find_map(asked) {
        return bump;
    }
    let breaks = |line: &&str| line.starts_with("BREAKING CHANGE:") || line.starts_with("BREAKING-CHANGE:");
    let kind = subject.split_once(':').map_or("", |(kind, _)| kind);
    let name = kind.split('(').next().unwrap_or("").trim_end_matches('!');
    let conventional = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if body.iter().any(breaks) || (conventional && kind.ends_with('!')) {
        Bump::Major
    } else if name.eq_ignore_ascii_case("feat") {
        Bump::Minor
    } else {
        Bump::Patch
    }
}

/// The line of development that a commit is built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The main line: its builds get final-looking versions.
    Main(String),
    /// A line that goes on with `X.Y` alone: its builds get final-looking versions of that line.
    Release(ReleaseLine),
    /// Any other branch: its builds get `X.Y.Z-slug.N`.
    Branch(String),
}

/// Which branches are release lines where a project does not say: `*` stands for the numbers.
pub const RELEASE_BRANCHES: &str = "release/*";

/// A release line: the branch `release/1.4` of the versions `1.4.*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseLine {
    /// The branch's name.
    pub name: String,
    /// The first number of its versions.
    pub major: u64,
    /// The second number of its versions.
    pub minor: u64,
}

impl ReleaseLine {
    /// Reads a branch's name by a pattern such as `release/*`, whose `*` stands for `1.4`, `v1.4` or `1.4.x`.
    pub fn of(name: &str, pattern: &str) -> Option<Self> {
        let (before, after) = pattern.split_once('*')?;
        let numbers = name.strip_prefix(before)?.strip_suffix(after)?;
        let numbers = numbers.strip_prefix('v').unwrap_or(numbers);
        let numbers = numbers.strip_suffix(".x").unwrap_or(numbers);
        let (major, minor) = numbers.split_once('.')?;
        let number = |text: &str| Some(text).filter(|text| is_plain(text))?.parse().ok();
        Some(Self { name: name.to_owned(), major: number(major)?, minor: number(minor)? })
    }
}

/// Digits without a sign and without a leading zero.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

impl Line {
    /// The branch's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Main(name) | Self::Branch(name) => name,
            Self::Release(line) => &line.name,
        }
    }
}

/// What is known about the history behind a commit when it asks for a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The commit and its ancestors, newest first, as far back as they were sent.
    pub commits: Vec<CommitFact>,
    /// The final versions that tags give to the commit and to ancestors of it, also to those that were not sent.
    pub tags: BTreeMap<CommitId, Version>,
    /// The version that the project's own manifest states.
    pub manifest: Option<Version>,
    /// Whether the history ends where it does because no more was sent.
    pub truncated: bool,
    /// Whether the clone has no more, and therefore not all tags either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shallow: bool,
    /// Whether what other branches have was sent too, so that the commit's descendants are among the commits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tips: bool,
    /// The release lines that the repository has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<ReleaseLine>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_messages_ask_for_a_step() {
        for (message, bump) in [
            ("feat: refunds", Bump::Minor),
            ("feat(api)!: drop v1", Bump::Major),
            ("fix: rounding", Bump::Patch),
            ("fix: x\n\nBREAKING CHANGE: y", Bump::Major),
            ("Merge pull request #4: feat", Bump::Patch),
            ("wow! this: works", Bump::Patch),
            ("", Bump::Patch),
            ("feat: a\n\nVersion-Bump: patch", Bump::Patch),
            ("docs: a\n\nVersion-Bump: Minor\nSigned-off-by: somebody", Bump::Minor),
            ("docs: done\n\nVersion-Bump: major", Bump::Stable),
            ("feat: a\n\nVersion-Bump: enormous", Bump::Minor),
            ("chore(release): squashed (#12)\n\n* feat: refunds\n* fix!: rounding", Bump::Patch),
            ("Merge pull request #4 from a/b\n\nfeat: refunds", Bump::Patch),
            ("feat: merge of refunds (#4)", Bump::Minor),
        ] {
            assert_eq!(bump_of(message), bump, "{message}");
        }
    }

    #[test]
    fn a_release_line_is_read_from_its_name() {
        for (name, pattern, read) in [
            ("release/1.4", "release/*", Some((1, 4))),
            ("release/v2.0", "release/*", Some((2, 0))),
            ("release/1.4.x", "release/*", Some((1, 4))),
            ("1.4-stable", "*-stable", Some((1, 4))),
            ("release/1.4.2", "release/*", None),
            ("release/01.4", "release/*", None),
            ("release/autumn", "release/*", None),
            ("release/1", "release/*", None),
            ("main", "release/*", None),
            ("release/1.4", "release/1.4", None),
        ] {
            let line = ReleaseLine::of(name, pattern).map(|line| (line.major, line.minor));
            assert_eq!(line, read, "{name} by {pattern}");
        }
    }

    #[test]
    fn the_build_key_is_frozen() {
        let inputs = BuildInputs {
            v: 1,
            component: "shop/api".parse().unwrap(),
            format: 1,
            source: Digest::of(b"source"),
            definition: Digest::of(b"definition"),
            bases: vec![],
            salt: 0,
        };
        assert_eq!(
            inputs.key().as_str(),
            "sha256:660bcb2f78103a9c3046765de315ef1f7cb78f1ba56b68820f11f1aeeaf49fa4"
        );
    }

    #[test]
    fn the_source_tree_digest_does_not_depend_on_the_order_of_listing() {
        let entry = |path: &str, object: &str| TreeEntry {
            path: path.into(),
            mode: "100644".into(),
            object: object.into(),
        };
        let a = source_tree_digest(vec![entry("a", "1"), entry("b", "2")]);
        assert_eq!(a, source_tree_digest(vec![entry("b", "2"), entry("a", "1")]));
        assert_ne!(a, source_tree_digest(vec![entry("a", "2"), entry("b", "1")]));
    }
}

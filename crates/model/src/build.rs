//! Build once: the source tree, the build key, and the rule that gives a version.

use std::collections::{BTreeMap, BTreeSet};
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
}

impl fmt::Display for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        })
    }
}

/// What a commit message asks for (Conventional Commits 1.0.0). A message of any other form is a patch: every build gets
/// a version.
pub fn bump_of(message: &str) -> Bump {
    let mut lines = message.lines();
    let subject = lines.next().unwrap_or("");
    let footer = |line: &str| line.starts_with("BREAKING CHANGE:") || line.starts_with("BREAKING-CHANGE:");
    let kind = subject.split_once(':').map_or("", |(kind, _)| kind);
    let name = kind.split('(').next().unwrap_or("").trim_end_matches('!');
    let conventional = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if lines.any(footer) || (conventional && kind.ends_with('!')) {
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
    /// Any other branch: its builds get `X.Y.Z-slug.N`.
    Branch(String),
}

impl Line {
    /// The branch's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Main(name) | Self::Branch(name) => name,
        }
    }
}

/// What is known about the history behind a commit when it asks for a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The commit and its ancestors, newest first, as far back as they were sent.
    pub commits: Vec<CommitFact>,
    /// Final versions that tags give to some of them.
    pub tags: BTreeMap<CommitId, Version>,
    /// The version that the project's own manifest states.
    pub manifest: Option<Version>,
    /// Whether the history ends where it does because no more was sent.
    pub truncated: bool,
}

/// A version and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The version given.
    pub version: Version,
    /// The version that it follows, if there is one.
    pub follows: Option<Version>,
    /// The largest step that the commits since then ask for.
    pub bump: Bump,
    /// The commits since then.
    pub since: Vec<CommitId>,
}

/// Gives the next version of a component.
///
/// `built` are the final versions of this component by commit; `taken` says whether a name is bound or reserved already;
/// `number` is the build number.
pub fn allocate(
    history: &History,
    line: &Line,
    built: &BTreeMap<CommitId, Version>,
    number: u64,
    taken: impl Fn(&Version) -> bool,
) -> Allocation {
    let base = base_of(history, built);
    let since = commits_since(history, base.as_ref().map(|(commit, _)| commit));
    let bump = since.iter().map(|commit| commit.bump).max().unwrap_or(Bump::Patch);
    let start = base
        .as_ref()
        .and_then(|(_, version)| version.as_semver().cloned())
        .or_else(|| history.manifest.as_ref().and_then(|version| version.as_semver().cloned()))
        .unwrap_or(semver::Version::new(0, 0, 0));
    let mut next = step(&start, bump);
    while taken(&named(&next, line, number)) {
        next.patch += 1;
    }
    Allocation {
        version: named(&next, line, number),
        follows: base.map(|(_, version)| version),
        bump,
        since: since.iter().map(|commit| commit.id.clone()).collect(),
    }
}

/// The highest final version among the ancestors.
fn base_of(history: &History, built: &BTreeMap<CommitId, Version>) -> Option<(CommitId, Version)> {
    let known = |commit: &CommitFact| {
        let version = built.get(&commit.id).into_iter().chain(history.tags.get(&commit.id)).max()?;
        Some((version.clone(), commit.id.clone()))
    };
    history.commits.iter().filter_map(known).max().map(|(version, commit)| (commit, version))
}

fn commits_since<'a>(history: &'a History, base: Option<&CommitId>) -> Vec<&'a CommitFact> {
    let parents: BTreeMap<&CommitId, &[CommitId]> =
        history.commits.iter().map(|commit| (&commit.id, commit.parents.as_slice())).collect();
    let mut before = BTreeSet::new();
    let mut open: Vec<&CommitId> = base.into_iter().collect();
    while let Some(commit) = open.pop() {
        if before.insert(commit) {
            open.extend(parents.get(commit).copied().unwrap_or_default());
        }
    }
    history.commits.iter().filter(|commit| !before.contains(&commit.id)).collect()
}

fn step(from: &semver::Version, bump: Bump) -> semver::Version {
    match bump {
        Bump::Major if from.major > 0 => semver::Version::new(from.major + 1, 0, 0),
        Bump::Major | Bump::Minor => semver::Version::new(from.major, from.minor + 1, 0),
        Bump::Patch => semver::Version::new(from.major, from.minor, from.patch + 1),
    }
}

fn named(core: &semver::Version, line: &Line, number: u64) -> Version {
    let mut version = core.clone();
    if let Line::Branch(name) = line {
        let pre = format!("{}.{number}", slug(name));
        version.pre = semver::Prerelease::new(&pre).expect("a slug and a number are a SemVer pre-release");
    }
    Version::semantic(version).expect("there is no build metadata")
}

/// A branch's name as part of a version: `[0-9a-z-]`, at most 30 characters, never a number with a leading zero.
fn slug(name: &str) -> String {
    let mapped = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let mapped: String = mapped.take(30).collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() {
        "branch".to_owned()
    } else if trimmed.bytes().all(|b| b.is_ascii_digit()) {
        format!("b{trimmed}")
    } else {
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(n: u8, parents: &[u8], subject: &str) -> CommitFact {
        CommitFact {
            id: id(n),
            parents: parents.iter().map(|p| id(*p)).collect(),
            author: "someone".into(),
            subject: subject.into(),
            bump: bump_of(subject),
        }
    }

    fn id(n: u8) -> CommitId {
        hex::encode([n; 20]).parse().unwrap()
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn history(commits: Vec<CommitFact>) -> History {
        History { commits, tags: BTreeMap::new(), manifest: None, truncated: false }
    }

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
        ] {
            assert_eq!(bump_of(message), bump, "{message}");
        }
    }

    #[test]
    fn versions_follow_the_newest_ancestor_then_the_tag_then_the_manifest() {
        let mut h =
            history(vec![commit(3, &[2], "fix: b"), commit(2, &[1], "feat: a"), commit(1, &[], "start")]);
        let main = Line::Main("main".into());
        let free = |_: &Version| false;
        let next =
            |h: &History, built: &BTreeMap<_, _>| allocate(h, &main, built, 1, free).version.to_string();
        assert_eq!(next(&h, &BTreeMap::new()), "0.1.0");
        h.manifest = Some(version("1.3.0"));
        assert_eq!(next(&h, &BTreeMap::new()), "1.4.0");
        h.tags.insert(id(2), version("2.0.0"));
        assert_eq!(next(&h, &BTreeMap::new()), "2.0.1");
        assert_eq!(next(&h, &BTreeMap::from([(id(1), version("3.0.0"))])), "3.1.0");
    }

    #[test]
    fn a_taken_name_is_skipped_and_a_branch_never_looks_final() {
        let h = history(vec![commit(1, &[], "fix: a")]);
        let taken = |v: &Version| *v == version("0.0.1");
        assert_eq!(
            allocate(&h, &Line::Main("main".into()), &BTreeMap::new(), 7, taken).version,
            version("0.0.2")
        );
        let branch = allocate(&h, &Line::Branch("feat/Login_Page".into()), &BTreeMap::new(), 7, taken);
        assert_eq!(branch.version.to_string(), "0.0.1-feat-login-page.7");
        let digits = allocate(&h, &Line::Branch("007".into()), &BTreeMap::new(), 7, taken);
        assert_eq!(digits.version.to_string(), "0.0.1-b007.7");
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

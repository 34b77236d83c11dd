//! Which version a commit gets: a pure function of what git says and of what was given before.
//!
//! ```text
//! base    the highest final version among the ancestors, given before or by a tag; else the manifest's; else 0.0.0
//! since   the commits that the base does not have; the largest step that one of them asks for
//! below   the highest version that an ancestor has      above   the lowest that a descendant has
//! name    base ⊕ step, raised until it is higher than `below` and free; where that is not lower than `above`: a late name
//! ```
//!
//! So the ancestor has the lower version of two commits, in whatever order they are built. What was given is never computed
//! again: the same question after the answer has another answer.

mod graph;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use semver::{Prerelease, Version as Semantic};
use serde::{Deserialize, Serialize};

use crate::build::{Bump, History, Line};
use crate::name::{CommitId, Tag};
use crate::version::Version;

use graph::Graph;

/// How a component's versions look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Every build of the main line gets a final-looking `X.Y.Z`.
    #[default]
    Continuous,
    /// Builds of the main line get `X.Y.Z-rc.N`; one of them becomes `X.Y.Z` by hand, with the same digest.
    Candidate,
    /// The build number is the version.
    Number,
}

/// Why a text is no scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version scheme (write continuous, candidate or number)")]
pub struct InvalidScheme(String);

impl FromStr for Scheme {
    type Err = InvalidScheme;

    fn from_str(text: &str) -> Result<Self, InvalidScheme> {
        match text {
            "continuous" => Ok(Self::Continuous),
            "candidate" => Ok(Self::Candidate),
            "number" => Ok(Self::Number),
            _ => Err(InvalidScheme(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continuous => "continuous",
            Self::Candidate => "candidate",
            Self::Number => "number",
        })
    }
}

/// A commit as the store keeps it once it was told: enough to know later which commits are whose ancestors, and what they
/// bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownCommit {
    /// Its id.
    pub id: CommitId,
    /// Its parents, first parent first.
    pub parents: Vec<CommitId>,
    /// The pseudonym of its author.
    pub author: String,
    /// What it asks of the next version; none: it changes nothing of the source tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bump: Option<Bump>,
}

/// A version that a commit has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The commit.
    pub commit: CommitId,
    /// Its version.
    pub version: Version,
    /// Whether it was given to another commit with the same source tree: then it says nothing about the order of the two.
    pub shared: bool,
}

/// What the store knows of a component.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The commits that it was told of before.
    pub commits: Vec<KnownCommit>,
    /// The versions that commits have.
    pub given: Vec<Given>,
    /// All names that are bound or reserved.
    pub taken: HashSet<Version>,
    /// The numbers of the release lines that something was built for.
    pub lines: BTreeSet<(u64, u64)>,
}

/// Asks for a version.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// For which commit.
    pub commit: &'a CommitId,
    /// For which line.
    pub line: &'a Line,
    /// What git says.
    pub history: &'a History,
    /// How versions look.
    pub scheme: Scheme,
    /// The step that somebody wants, whatever the commits say.
    pub bump: Option<Bump>,
    /// The next build number.
    pub number: u64,
}

/// What a version goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The version of an ancestor, given before.
    Given {
        /// The version.
        version: Version,
        /// The ancestor.
        commit: CommitId,
    },
    /// The version that a tag gives to an ancestor.
    Tag {
        /// The version.
        version: Version,
        /// The ancestor.
        commit: CommitId,
    },
    /// The version that the project's manifest states.
    Manifest {
        /// The version.
        version: Version,
    },
    /// 0.0.0.
    Nothing,
}

impl Base {
    /// The version that the new one follows, if an ancestor has one.
    pub fn follows(&self) -> Option<&Version> {
        match self {
            Self::Given { version, .. } | Self::Tag { version, .. } => Some(version),
            Self::Manifest { .. } | Self::Nothing => None,
        }
    }

    fn commit(&self) -> Option<&CommitId> {
        match self {
            Self::Given { commit, .. } | Self::Tag { commit, .. } => Some(commit),
            Self::Manifest { .. } | Self::Nothing => None,
        }
    }

    fn core(&self) -> Semantic {
        let version = match self {
            Self::Given { version, .. } | Self::Tag { version, .. } | Self::Manifest { version } => {
                Some(version)
            }
            Self::Nothing => None,
        };
        version.and_then(counted).map_or(Semantic::new(0, 0, 0), core)
    }
}

/// A version and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The version given.
    pub version: Version,
    /// The build number, at least the one asked for.
    pub number: u64,
    /// What it goes on from.
    pub base: Base,
    /// The step from there.
    pub bump: Bump,
    /// The commits that the base does not have, newest first; without those that change nothing of the source tree.
    pub since: Vec<CommitId>,
    /// The version of a descendant that was built before, where the name had to be lower than that one.
    pub late_before: Option<Version>,
    /// What is not as the commits ask for it, in sentences.
    pub notes: Vec<String>,
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A version.
    Given(Box<Allocation>),
    /// It depends on commits that nobody has told of: these, or their relation to what is known.
    HistoryNeeded(Vec<CommitId>),
}

/// Gives the next version of a component.
pub fn allocate(ask: &Ask<'_>, known: &Known) -> Outcome {
    let graph = Graph::new(&ask.history.commits, &known.commits);
    let Some(at) = graph.place(ask.commit).filter(|at| graph.node(*at).known) else {
        return Outcome::HistoryNeeded(vec![ask.commit.clone()]);
    };
    let view = View::new(ask, known, &graph, at);
    if let Some(tagged) = view.tagged() {
        return Outcome::Given(Box::new(tagged));
    }
    let base = view.base(true);
    let since = view.since(&base);
    let unknown = graph.ids(&since, |node| !node.known);
    if ask.history.truncated && !unknown.is_empty() && !view.is_beginning(&base) {
        return Outcome::HistoryNeeded(unknown);
    }
    if !ask.history.tips && view.may_lie_behind_what_is_recorded() {
        return Outcome::HistoryNeeded(vec![ask.commit.clone()]);
    }
    Outcome::Given(Box::new(view.allocation(base, &since)))
}

/// A question, seen in its graph.
struct View<'a> {
    ask: &'a Ask<'a>,
    known: &'a Known,
    graph: &'a Graph<'a>,
    at: usize,
    /// Whether each commit is an ancestor, or the commit itself.
    behind: Vec<bool>,
    /// Whether each commit is a descendant, or the commit itself.
    ahead: Vec<bool>,
    /// The lowest version that a descendant was given.
    above: Option<Semantic>,
    /// The numbers of the release lines that git has.
    seen_lines: HashSet<(u64, u64)>,
}

impl<'a> View<'a> {
    fn new(ask: &'a Ask<'a>, known: &'a Known, graph: &'a Graph<'a>, at: usize) -> Self {
        let (behind, ahead) = (graph.behind(Some(at)), graph.ahead(at));
        let is_ahead = |one: &&Given| {
            !one.shared && graph.place(&one.commit).is_some_and(|place| place != at && ahead[place])
        };
        let above =
            known.given.iter().filter(is_ahead).filter_map(|one| one.version.as_semver()).min().cloned();
        let seen_lines = ask.history.releases.iter().map(|line| (line.major, line.minor)).collect();
        Self { ask, known, graph, at, behind, ahead, above, seen_lines }
    }

    fn is_behind(&self, commit: &CommitId) -> bool {
        self.graph.place(commit).is_some_and(|place| self.behind[place])
    }

    /// The versions of the commit and its ancestors that were given.
    fn given_behind(&self) -> impl Iterator<Item = &'a Given> {
        self.known.given.iter().filter(|one| self.is_behind(&one.commit))
    }

    /// What comes before: the highest version among the ancestors. `own_tag`: whether a tag of the commit itself counts.
    fn base(&self, own_tag: bool) -> Base {
        let given = self.given_behind().filter_map(|one| {
            Some((
                self.rank(&one.version)?,
                Base::Given { version: one.version.clone(), commit: one.commit.clone() },
            ))
        });
        let tags = self.ask.history.tags.iter().filter(|(commit, _)| own_tag || *commit != self.ask.commit);
        let tags = tags.filter_map(|(commit, version)| {
            Some((self.rank(version)?, Base::Tag { version: version.clone(), commit: commit.clone() }))
        });
        // Of a tag and a version that was given by the same name, the latter is at least as new.
        let highest = tags.chain(given).max_by_key(|(rank, _)| *rank).map(|(_, base)| base);
        highest.unwrap_or_else(|| {
            self.ask.history.manifest.clone().map_or(Base::Nothing, |version| Base::Manifest { version })
        })
    }

    /// How high a version is among those that others can follow: final ones, or numbers.
    fn rank(&self, version: &Version) -> Option<(u64, u64, u64)> {
        match self.ask.scheme {
            Scheme::Number => version.as_number().map(|number| (number, 0, 0)),
            _ => counted(version).filter(|_| version.is_final()).map(|v| (v.major, v.minor, v.patch)),
        }
    }

    /// The commits that the base does not have, newest first: those that were sent in their order, then the others, children
    /// before their parents.
    fn since(&self, base: &Base) -> Vec<usize> {
        let had = self.graph.behind(base.commit().and_then(|commit| self.graph.place(commit)));
        let mut since: Vec<usize> =
            (0..self.behind.len()).filter(|at| self.behind[*at] && !had[*at]).collect();
        let sent = self.ask.history.commits.len();
        if since.last().is_some_and(|last| *last >= sent) {
            let heights = self.graph.heights(self.at, &since);
            since.sort_by_key(|at| if *at < sent { (0, *at as u64) } else { (1, u64::MAX - heights[at]) });
        }
        since
    }

    /// Whether nothing was ever given and nothing is tagged: then the newest commits say what the first version is.
    fn is_beginning(&self, base: &Base) -> bool {
        self.known.given.is_empty() && base.follows().is_none() && !self.ask.history.shallow
    }

    /// Whether a recorded commit may be a descendant although nobody has told so: it and its own relatives are new, and
    /// there are recorded commits with parents that are not known.
    fn may_lie_behind_what_is_recorded(&self) -> bool {
        let is_open = |at: usize| self.graph.parents(at).any(|parent| !parent.known);
        let is_related = |at: usize| self.behind[at] || self.ahead[at];
        self.graph.recorded().any(is_open) && !self.graph.recorded().any(is_related)
    }

    /// A commit that is tagged with a version has that one, where it is free and in order: its history is not needed then.
    fn tagged(&self) -> Option<Allocation> {
        let version = self.ask.history.tags.get(self.ask.commit)?;
        let semantic = version.as_semver()?;
        let is_ours = match self.ask.line {
            Line::Main(_) => true,
            Line::Release(line) => (line.major, line.minor) == (semantic.major, semantic.minor),
            Line::Branch(_) => false,
        };
        let wanted = is_ours && self.ask.scheme == Scheme::Continuous && self.ask.bump.is_none();
        let is_higher = self.below(false).is_none_or(|below| below < *semantic);
        let is_lower = self.above.as_ref().is_none_or(|above| semantic < above);
        if !wanted || !is_higher || !is_lower || self.known.taken.contains(version) {
            return None;
        }
        let base = self.base(false);
        let since = self.since(&base);
        Some(Allocation {
            version: version.clone(),
            number: self.ask.number,
            bump: self.bump(&since),
            since: self.brought(&since),
            base,
            late_before: None,
            notes: Vec::new(),
        })
    }

    /// The step that is asked for: by somebody, else by the commits.
    fn bump(&self, since: &[usize]) -> Bump {
        let asked = since.iter().filter_map(|at| self.graph.node(*at).bump).max();
        self.ask.bump.or(asked).unwrap_or(Bump::Patch)
    }

    /// The commits among these that change something.
    fn brought(&self, since: &[usize]) -> Vec<CommitId> {
        self.graph.ids(since, |node| node.bump.is_some())
    }

    /// The highest version among the ancestors, which the new one must exceed. `own_tag`: whether a tag of the commit itself
    /// counts.
    fn below(&self, own_tag: bool) -> Option<Semantic> {
        let own = self.given_behind().filter(|one| !one.shared).filter_map(|one| counted(&one.version)).max();
        let shared = self.given_behind().filter_map(|one| counted(&one.version)).max();
        let tags = self.ask.history.tags.iter().filter(|(commit, _)| own_tag || *commit != self.ask.commit);
        let all = tags.filter_map(|(_, version)| counted(version)).max().max(shared);
        // What was tagged later, or came from another commit with the same tree, gives way to what descendants have.
        let gives_way = self.above.as_ref().is_some_and(|above| all.is_some_and(|all| all >= above));
        if gives_way { own.cloned() } else { all.cloned() }
    }

    fn allocation(&self, base: Base, since: &[usize]) -> Allocation {
        let mut allocation = Allocation {
            version: numbered(self.ask.number),
            number: self.ask.number,
            bump: self.bump(since),
            since: self.brought(since),
            base,
            late_before: None,
            notes: Vec::new(),
        };
        if self.ask.scheme == Scheme::Number && !matches!(self.ask.line, Line::Branch(_)) {
            allocation.number = self.free_number();
            allocation.version = numbered(allocation.number);
        } else {
            self.order(&mut allocation, since);
        }
        allocation
    }

    /// Gives the name that its step leads to, or one that is lower than what descendants have.
    fn order(&self, allocation: &mut Allocation, since: &[usize]) {
        let below = self.below(true);
        let start = self.first_core(allocation);
        if matches!(self.ask.line, Line::Main(_)) && self.is_closed(&start) {
            let (line, Semantic { major, minor, .. }) = (self.ask.line.name(), &start);
            allocation.notes.push(format!("{line} leaves {major}.{minor}, which has a release line"));
        }
        allocation.version = self.settle(start, below.as_ref());
        let is_late = |above: &&Semantic| allocation.version.as_semver().is_some_and(|name| name >= *above);
        let Some(above) = self.above.as_ref().filter(is_late) else { return };
        let height = self.graph.heights(self.at, since).get(&self.at).copied().unwrap_or(0);
        match self.late(below.as_ref(), above, height) {
            Some(late) => {
                allocation.version = late;
                allocation.late_before = Version::semantic(above.clone()).ok();
            }
            None => {
                allocation.notes.push(format!("a descendant has {above} already, and no lower name is free"));
            }
        }
    }

    /// The version that the step leads to, before anything else is looked at.
    fn first_core(&self, allocation: &mut Allocation) -> Semantic {
        let (base, bump) = (allocation.base.core(), allocation.bump);
        match self.ask.line {
            Line::Release(line) if (base.major, base.minor) < (line.major, line.minor) => {
                Semantic::new(line.major, line.minor, 0)
            }
            Line::Release(line) => {
                if bump > Bump::Patch {
                    allocation.notes.push(format!(
                        "{} gets a patch where its commits ask for a {bump} version: it stays {}.{}",
                        line.name, line.major, line.minor
                    ));
                    allocation.bump = Bump::Patch;
                }
                if (base.major, base.minor) != (line.major, line.minor) {
                    allocation.notes.push(format!("{} has {base} behind it, which is higher", line.name));
                }
                step(&base, Bump::Patch)
            }
            Line::Main(_) | Line::Branch(_) if self.ask.scheme == Scheme::Number => base,
            Line::Main(_) | Line::Branch(_) => step(&base, bump),
        }
    }

    /// The name for a core, raised until it is higher than everything behind, free, and not of a release line.
    fn settle(&self, mut at: Semantic, below: Option<&Semantic>) -> Version {
        loop {
            if matches!(self.ask.line, Line::Main(_)) && self.is_closed(&at) {
                at = Semantic::new(at.major, at.minor + 1, 0);
                continue;
            }
            match self.named(&at) {
                Some(name) if below.is_none_or(|below| name.as_semver().is_some_and(|name| name > below)) => {
                    return name;
                }
                Some(_) => {
                    at = below.map(core).filter(|core| *core > at).unwrap_or_else(|| step(&at, Bump::Patch));
                }
                None => at = step(&at, Bump::Patch),
            }
        }
    }

    /// Whether a release line goes on with these versions, so that the main line does not.
    fn is_closed(&self, core: &Semantic) -> bool {
        let numbers = (core.major, core.minor);
        self.seen_lines.contains(&numbers) || self.known.lines.contains(&numbers)
    }

    /// The line's name for a core, if it is free.
    fn named(&self, core: &Semantic) -> Option<Version> {
        let name = match (self.ask.line, self.ask.scheme) {
            (Line::Branch(branch), _) => with_pre(core, &format!("{}.{}", slug(branch), self.ask.number)),
            (_, Scheme::Candidate) => {
                let is_final = Version::semantic(core.clone()).ok()?;
                let next = self.newest_candidate(core) + 1;
                (!self.known.taken.contains(&is_final)).then(|| with_pre(core, &format!("rc.{next}")))?
            }
            _ => Version::semantic(core.clone()).ok(),
        }?;
        (!self.known.taken.contains(&name)).then_some(name)
    }

    fn newest_candidate(&self, wanted: &Semantic) -> u64 {
        let of_core =
            self.known.taken.iter().filter_map(Version::as_semver).filter(|one| core(one) == *wanted);
        of_core.filter_map(candidate_number).max().unwrap_or(0)
    }

    fn free_number(&self) -> u64 {
        let mut number = self.ask.number;
        while self.known.taken.contains(&numbered(number)) {
            number += 1;
        }
        number
    }

    /// A name between what ancestors and what descendants have: `core-late.<height>.<build>` of the lowest descendant, and where
    /// names of branches are in the way, the same behind as much of their names as is needed.
    ///
    /// There is always one between names that were given here, which end in a number above 0: the second form is lower than `above`
    /// and higher than all that does not share its beginning, the third is higher than `below` and lower than all that does not.
    fn late(&self, below: Option<&Semantic>, above: &Semantic, height: u64) -> Option<Version> {
        let tail = format!("late.{height}.{}", self.ask.number);
        let short = with_pre(above, &tail);
        let under_above =
            above.pre.rsplit_once('.').map(|(front, _)| with_pre(above, &format!("{front}.0.{tail}")));
        let before_above = (!above.pre.is_empty()).then(|| with_pre(above, &format!("0.{tail}")));
        let over_below = below.filter(|below| !below.pre.is_empty());
        let over_below = over_below.map(|below| with_pre(below, &format!("{}.{tail}", below.pre)));
        let forms = [Some(short), under_above, before_above, over_below];
        let fits = |name: &Version| {
            let inside = |name: &Semantic| name < above && below.is_none_or(|below| name > below);
            name.as_semver().is_some_and(inside) && !self.known.taken.contains(name)
        };
        forms.into_iter().flatten().flatten().find(fits)
    }
}

fn step(from: &Semantic, bump: Bump) -> Semantic {
    match bump {
        Bump::Stable => Semantic::new(from.major + 1, 0, 0),
        Bump::Major if from.major > 0 => Semantic::new(from.major + 1, 0, 0),
        Bump::Major | Bump::Minor => Semantic::new(from.major, from.minor + 1, 0),
        Bump::Patch => Semantic::new(from.major, from.minor, from.patch + 1),
    }
}

/// A version that others can follow. Beyond 2^53 nothing counts on (RFC 8785, 3.2.2.3: there JSON has no whole numbers).
fn counted(version: &Version) -> Option<&Semantic> {
    const END: u64 = 1 << 53;
    version.as_semver().filter(|version| version.major.max(version.minor).max(version.patch) < END)
}

fn core(version: &Semantic) -> Semantic {
    Semantic::new(version.major, version.minor, version.patch)
}

/// `None` where the name would be too long for a tag.
fn with_pre(core: &Semantic, pre: &str) -> Option<Version> {
    let pre = Prerelease::new(pre)
        .expect("slugs, words and numbers without leading zeros are pre-release identifiers");
    Version::semantic(Semantic { pre, ..core.clone() }).ok()
}

fn numbered(number: u64) -> Version {
    Version::named(number.to_string().parse::<Tag>().expect("a number is a tag"))
}

/// The number of a candidate: 3 of `1.4.0-rc.3`.
pub fn candidate_number(version: &Semantic) -> Option<u64> {
    version.pre.strip_prefix("rc.")?.parse().ok()
}

/// A branch's name as part of a version: `[0-9a-z-]`, at most 30 characters, never a number, and never a word that means
/// something there.
fn slug(name: &str) -> String {
    let mapped = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let mapped: String = mapped.take(30).collect();
    let trimmed = mapped.trim_matches('-');
    match trimmed {
        "" => "branch".to_owned(),
        "late" | "rc" => format!("b-{trimmed}"),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => format!("b{digits}"),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::build::{CommitFact, ReleaseLine, bump_of};

    fn id(n: usize) -> CommitId {
        format!("{n:040x}").parse().unwrap()
    }

    fn version(text: &str) -> Version {
        Version::named(text.parse().unwrap())
    }

    fn main_line() -> Line {
        Line::Main("main".into())
    }

    fn release(numbers: &str) -> Line {
        Line::Release(ReleaseLine::of(&format!("release/{numbers}"), "release/*").unwrap())
    }

    fn branch(name: &str) -> Line {
        Line::Branch(name.into())
    }

    /// A repository and the store that gives its commits versions. Commits are their places.
    #[derive(Default)]
    struct World {
        commits: Vec<(Vec<usize>, Bump)>,
        tags: BTreeMap<usize, Version>,
        manifest: Option<Version>,
        scheme: Scheme,
        known: Known,
        /// How many commits are sent, where that is not all.
        limit: Option<usize>,
        number: u64,
    }

    impl World {
        /// Commits of these messages, each the child of the one before.
        fn of(messages: &[&str]) -> Self {
            let mut world = Self::default();
            for (at, message) in messages.iter().enumerate() {
                world.commits.push((at.checked_sub(1).into_iter().collect(), bump_of(message)));
            }
            world
        }

        fn commit(&mut self, parents: &[usize], message: &str) -> usize {
            self.commits.push((parents.to_vec(), bump_of(message)));
            self.commits.len() - 1
        }

        fn ancestors(&self, of: usize) -> BTreeSet<usize> {
            let (mut all, mut open) = (BTreeSet::new(), vec![of]);
            while let Some(at) = open.pop() {
                if all.insert(at) {
                    open.extend(&self.commits[at].0);
                }
            }
            all
        }

        fn history(&self, of: usize, limit: Option<usize>, tips: bool) -> History {
            let behind = self.ancestors(of);
            let all = (0..self.commits.len()).filter(|at| tips || behind.contains(at)).rev();
            let sent: Vec<usize> = all.take(limit.unwrap_or(usize::MAX)).collect();
            let fact = |at: &usize| CommitFact {
                id: id(*at),
                parents: self.commits[*at].0.iter().map(|parent| id(*parent)).collect(),
                author: "someone".into(),
                subject: String::new(),
                bump: self.commits[*at].1,
                outside: false,
            };
            let tags = self.tags.iter().filter(|(at, _)| behind.contains(at));
            History {
                truncated: !tips && sent.len() < behind.len(),
                commits: sent.iter().map(fact).collect(),
                tags: tags.map(|(at, version)| (id(*at), version.clone())).collect(),
                manifest: self.manifest.clone(),
                shallow: false,
                tips,
                releases: Vec::new(),
            }
        }

        fn ask(&self, at: usize, line: &Line, history: &History, bump: Option<Bump>) -> Outcome {
            let commit = id(at);
            let ask =
                Ask { commit: &commit, line, history, scheme: self.scheme, bump, number: self.number + 1 };
            allocate(&ask, &self.known)
        }

        /// What would be given.
        fn asked(&self, at: usize, line: &Line) -> Allocation {
            self.answered(at, line).0
        }

        /// What would be given, and the commits that were sent for it.
        fn answered(&self, at: usize, line: &Line) -> (Allocation, Vec<CommitFact>) {
            let mut history = self.history(at, self.limit, false);
            let mut outcome = self.ask(at, line, &history, None);
            if matches!(outcome, Outcome::HistoryNeeded(_)) {
                history = self.history(at, None, true);
                outcome = self.ask(at, line, &history, None);
            }
            match outcome {
                Outcome::Given(allocation) => (*allocation, history.commits),
                Outcome::HistoryNeeded(commits) => panic!("{commits:?} of the whole history"),
            }
        }

        /// Gives a version, and keeps what a store keeps.
        fn build(&mut self, at: usize, line: &Line) -> Version {
            let (allocation, sent) = self.answered(at, line);
            let told: HashSet<CommitId> = self.known.commits.iter().map(|one| one.id.clone()).collect();
            self.known.commits.extend(sent.into_iter().filter(|fact| !told.contains(&fact.id)).map(|fact| {
                KnownCommit { id: fact.id, parents: fact.parents, author: fact.author, bump: Some(fact.bump) }
            }));
            self.number = allocation.number;
            self.give(at, &allocation.version, false);
            if let Line::Release(line) = line {
                self.known.lines.insert((line.major, line.minor));
            }
            allocation.version
        }

        fn give(&mut self, at: usize, version: &Version, shared: bool) {
            assert!(self.known.taken.insert(version.clone()), "{version} is given twice");
            self.known.given.push(Given { commit: id(at), version: version.clone(), shared });
        }
    }

    fn versions(world: &mut World, builds: &[(usize, Line)]) -> Vec<String> {
        builds.iter().map(|(at, line)| world.build(*at, line).to_string()).collect()
    }

    #[test]
    fn the_first_version_follows_the_newest_tag_then_the_manifest_then_nothing() {
        let mut world = World::of(&["start", "feat: a", "fix: b"]);
        assert_eq!(world.asked(2, &main_line()).version, version("0.1.0"));
        world.manifest = Some(version("1.3.0"));
        assert_eq!(world.asked(2, &main_line()).version, version("1.4.0"));
        world.tags.insert(1, version("2.0.0"));
        assert_eq!(world.asked(2, &main_line()).version, version("2.0.1"));
        world.give(0, &version("3.0.0"), false);
        let highest = world.asked(2, &main_line());
        assert_eq!((highest.version, highest.base.follows()), (version("3.1.0"), Some(&version("3.0.0"))));
        assert_eq!(highest.since, [id(2), id(1)]);
    }

    #[test]
    fn a_tagged_commit_has_the_version_of_its_tag_once() {
        let mut world = World::of(&["start", "feat: a"]);
        world.tags.insert(1, version("1.0.0"));
        world.limit = Some(1);
        assert_eq!(world.asked(1, &branch("x")).version, version("1.0.1-x.1"));
        assert_eq!(versions(&mut world, &[(1, main_line()), (1, main_line())]), ["1.0.0", "1.0.1"]);
    }

    #[test]
    fn before_1_0_0_only_somebody_who_says_so_moves_the_first_number() {
        for (message, expected) in [
            ("feat!: a", "0.2.0"),
            ("fix: a\n\nBREAKING CHANGE: b", "0.2.0"),
            ("fix: a\n\nVersion-Bump: major", "1.0.0"),
            ("feat!: a\n\nVersion-Bump: patch", "0.1.1"),
        ] {
            let mut world = World::of(&["feat: start", message]);
            world.build(0, &main_line());
            assert_eq!(world.build(1, &main_line()), version(expected), "{message}");
        }
        let world = World::of(&["feat: start"]);
        let history = world.history(0, None, false);
        for (bump, expected) in [(Bump::Stable, "1.0.0"), (Bump::Patch, "0.0.1")] {
            let Outcome::Given(given) = world.ask(0, &main_line(), &history, Some(bump)) else { panic!() };
            assert_eq!(given.version, version(expected));
        }
    }

    #[test]
    fn a_taken_name_is_skipped_and_a_branch_never_looks_final() {
        let mut world = World::of(&["fix: a"]);
        world.number = 6;
        world.known.taken.insert(version("0.0.1"));
        for (line, expected) in [
            (main_line(), "0.0.2"),
            (branch("feat/Login_Page"), "0.0.1-feat-login-page.7"),
            (branch("007"), "0.0.1-b007.7"),
            (branch("late"), "0.0.1-b-late.7"),
            (branch("rc"), "0.0.1-b-rc.7"),
            (branch("/"), "0.0.1-branch.7"),
            (branch("pr-12"), "0.0.1-pr-12.7"),
        ] {
            assert_eq!(world.asked(0, &line).version, version(expected), "{line:?}");
        }
    }

    #[test]
    fn a_release_line_stays_its_own_and_the_main_line_leaves_it() {
        let mut world = World::of(&["feat: a", "fix: b", "feat: c"]);
        world.tags.insert(0, version("1.4.0"));
        let hotfix = world.commit(&[1], "feat: d");
        let built = [(1, main_line()), (hotfix, release("1.4")), (2, main_line()), (2, release("2.0"))];
        assert_eq!(versions(&mut world, &built), ["1.4.1", "1.4.2", "1.5.0", "2.0.0"]);
        let left = world.commit(&[1], "fix: f");
        let left = world.asked(left, &main_line());
        assert_eq!(left.version.to_string(), "1.5.1");
        assert_eq!(left.notes, ["main leaves 1.4, which has a release line"]);
        let back = world.commit(&[2, hotfix], "Merge branch 'release/1.4'");
        assert_eq!(
            world.asked(back, &main_line()).version,
            version("2.1.0"),
            "2.0 has a line of its own too"
        );
        let capped = world.commit(&[hotfix], "feat: e");
        let capped = world.asked(capped, &release("1.4"));
        assert_eq!((capped.version.to_string(), capped.bump), ("1.4.3".into(), Bump::Patch));
        assert_eq!(
            capped.notes,
            ["release/1.4 gets a patch where its commits ask for a minor version: it stays 1.4"]
        );
    }

    #[test]
    fn an_ancestor_that_is_built_late_gets_a_lower_version() {
        let mut world = World::of(&["feat: a", "fix: b", "fix: c", "fix: d"]);
        world.tags.insert(0, version("1.4.0"));
        let built = [(3, main_line()), (2, main_line()), (1, main_line())];
        assert_eq!(versions(&mut world, &built), ["1.4.1", "1.4.1-late.2.2", "1.4.1-late.1.3"]);
        let side = world.commit(&[1], "fix: e");
        let merged = world.commit(&[side], "fix: f");
        assert_eq!(world.build(merged, &branch("refunds")), version("1.4.1-refunds.4"));
        let late = world.asked(side, &branch("refunds"));
        assert_eq!(late.version, version("1.4.1-late.2.5"));
        assert_eq!(late.late_before, Some(version("1.4.1-refunds.4")));
    }

    #[test]
    fn candidates_are_counted_until_one_is_final() {
        let mut world = World::of(&["feat: a", "fix: b", "fix: c", "feat: d"]);
        world.scheme = Scheme::Candidate;
        world.tags.insert(0, version("1.4.0"));
        assert_eq!(versions(&mut world, &[(1, main_line()), (2, main_line())]), ["1.4.1-rc.1", "1.4.1-rc.2"]);
        assert_eq!(world.asked(3, &main_line()).version, version("1.5.0-rc.1"));
        world.give(1, &version("1.4.1"), true);
        let patch = world.commit(&[2], "fix: e");
        assert_eq!(world.asked(patch, &main_line()).version, version("1.4.2-rc.1"), "1.4.1 is final");
        assert_eq!(world.asked(patch, &branch("x")).version, version("1.4.2-x.3"));
    }

    #[test]
    fn build_numbers_are_versions_where_somebody_wants_that() {
        let mut world = World::of(&["feat: a", "fix: b"]);
        world.scheme = Scheme::Number;
        world.known.taken.insert(version("2"));
        assert_eq!(versions(&mut world, &[(0, main_line()), (1, main_line())]), ["1", "3"]);
        assert_eq!(world.asked(1, &branch("x")).version, version("0.0.0-x.4"));
        assert_eq!(world.asked(1, &main_line()).base.follows(), Some(&version("3")));
    }

    #[test]
    fn what_no_git_says_gives_a_version_all_the_same() {
        let mut world = World::of(&["feat: a", "fix: b", "fix: c"]);
        let most = u64::MAX;
        world.tags.insert(0, Version::final_release(most, 0, 0));
        world.give(1, &Version::final_release(1, 0, most), false);
        world.manifest = Some(Version::final_release(0, most, 0));
        assert_eq!(world.asked(2, &main_line()).version, version("0.1.0"), "nothing follows these");
        let mut history = world.history(2, None, false);
        let last = history.commits.len() - 1;
        history.commits[last].parents = vec![id(2), id(0)];
        history.releases = (0..100_000)
            .map(|minor| ReleaseLine::of(&format!("release/0.{minor}"), "release/*").unwrap())
            .collect();
        let Outcome::Given(given) = world.ask(2, &main_line(), &history, None) else { panic!() };
        assert_eq!(given.version, version("0.100000.0"), "a commit that is its own ancestor is no end");
        world.give(2, &version("9.0.0"), false);
        assert!(matches!(world.ask(0, &main_line(), &history, None), Outcome::Given(_)));
    }

    #[test]
    fn a_history_that_ends_too_early_is_asked_for() {
        let mut world = World::of(&["feat: a", "fix: b", "fix: c", "fix: d"]);
        let mut short = world.history(3, Some(2), false);
        let Outcome::Given(given) = world.ask(3, &main_line(), &short, None) else {
            panic!("nothing was given")
        };
        assert_eq!(given.version, version("0.0.1"), "the newest commits say what the first version is");
        short.shallow = true;
        assert_eq!(world.ask(3, &main_line(), &short, None), Outcome::HistoryNeeded(vec![id(1)]));
        world.build(1, &main_line());
        let Outcome::Given(given) = world.ask(3, &main_line(), &short, None) else { panic!("it connects") };
        assert_eq!(given.version, version("0.1.1"));
        let none = world.history(3, Some(0), false);
        assert_eq!(world.ask(3, &main_line(), &none, None), Outcome::HistoryNeeded(vec![id(3)]));
    }

    #[test]
    fn a_commit_older_than_everything_recorded_is_placed_by_the_branches_around_it() {
        let mut world = World::of(&["feat: a", "fix: b", "fix: c", "fix: d"]);
        world.tags.insert(2, version("1.0.0"));
        world.limit = Some(2);
        assert_eq!(world.build(3, &main_line()), version("1.0.1"));
        world.tags.clear();
        let alone = world.history(0, None, false);
        assert_eq!(world.ask(0, &main_line(), &alone, None), Outcome::HistoryNeeded(vec![id(0)]));
        world.manifest = Some(version("3.0.0"));
        assert_eq!(world.asked(0, &main_line()).version, version("1.0.1-late.1.2"));
    }

    #[test]
    fn commits_outside_the_source_tree_ask_for_nothing_and_bring_nothing() {
        let world = World::of(&["fix: a", "feat!: another project"]);
        let mut history = world.history(1, None, false);
        history.commits[0].outside = true;
        let Outcome::Given(given) = world.ask(1, &main_line(), &history, None) else { panic!() };
        assert_eq!((given.version, given.since), (version("0.0.1"), vec![id(0)]));
    }

    /// One commit of a random repository: its parents, counted back, its message and its line.
    fn any_commit() -> impl Strategy<Value = (Vec<usize>, Bump, Line)> {
        let parents = prop_oneof![
            6 => (0..4usize).prop_map(|back| vec![back]),
            3 => (0..3usize, 0..12usize).prop_map(|(near, far)| vec![near, far]),
            1 => Just(Vec::new()),
        ];
        let bump = prop_oneof![
            8 => Just(Bump::Patch),
            3 => Just(Bump::Minor),
            1 => Just(Bump::Major),
            1 => Just(Bump::Stable),
        ];
        let line = prop_oneof![
            6 => Just(main_line()),
            1 => (0..3u64, 0..4u64).prop_map(|(major, minor)| release(&format!("{major}.{minor}"))),
            2 => "[a-z0-9]{1,3}".prop_map(|name| branch(&name)),
            1 => prop_oneof![Just(branch("zeta")), Just(branch("late")), Just(branch("rc")), Just(branch("0"))],
        ];
        (parents, bump, line)
    }

    fn any_scheme() -> impl Strategy<Value = Scheme> {
        prop_oneof![3 => Just(Scheme::Continuous), 1 => Just(Scheme::Candidate)]
    }

    fn any_repository() -> impl Strategy<Value = Vec<(Vec<usize>, Bump, Line)>> {
        proptest::collection::vec(any_commit(), 2..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn in_any_repository_and_any_order_of_builds_names_are_unique_and_ancestors_lower(
            commits in any_repository(),
            order in proptest::collection::vec(any::<Index>(), 1..80),
            tags in proptest::collection::vec((any::<Index>(), 0..2u64, 0..3u64), 0..3),
            limit in proptest::option::of(1..10usize),
            scheme in any_scheme(),
            finalised in any::<u8>(),
        ) {
            let mut world = World { scheme, limit, ..World::default() };
            let mut lines = Vec::new();
            for (at, (back, bump, line)) in commits.into_iter().enumerate() {
                let parents: BTreeSet<usize> = back.iter().filter_map(|back| at.checked_sub(back + 1)).collect();
                world.commits.push((parents.into_iter().rev().collect(), bump));
                lines.push(line);
            }
            // A tag on a root is there before anything is built, and lower than everything that follows.
            for (place, major, minor) in tags {
                let roots: Vec<usize> =
                    (0..world.commits.len()).filter(|at| world.commits[*at].0.is_empty()).collect();
                world.tags.insert(*place.get(&roots), Version::final_release(major, minor, 0));
            }
            let mut built: Vec<(usize, Semantic)> = Vec::new();
            for (turn, place) in order.iter().enumerate() {
                let at = place.index(world.commits.len());
                if built.iter().any(|(before, _)| *before == at) {
                    continue;
                }
                let given = world.build(at, &lines[at]).as_semver().cloned().expect("it is SemVer");
                let is_final = Version::semantic(core(&given)).unwrap();
                let finalise = turn % 5 == usize::from(finalised % 5) && candidate_number(&given).is_some();
                if finalise && !world.known.taken.contains(&is_final) {
                    world.give(at, &is_final, true);
                }
                built.push((at, given));
            }
            for (at, given) in &built {
                let ancestors = world.ancestors(*at);
                for (other, lower) in built.iter().filter(|(other, _)| other != at && ancestors.contains(other)) {
                    prop_assert!(lower < given, "{other} is an ancestor of {at}, and {lower} is not lower than {given}");
                }
                let looks_final = given.pre.is_empty();
                prop_assert!(!looks_final || !matches!(lines[*at], Line::Branch(_)), "{given} on {:?}", lines[*at]);
            }
        }
    }
}

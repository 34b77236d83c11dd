//! Graph: the commits that a version depends on, by number, and which of them can be reached from which.

use std::collections::{HashMap, HashSet};

use super::KnownCommit;
use crate::build::{Bump, CommitFact};
use crate::name::CommitId;

/// The commits that are known, by number: those that were sent in their order, then those that were recorded, then those
/// that are only named as parents.
pub(super) struct Graph<'a> {
    index: HashMap<&'a CommitId, usize>,
    nodes: Vec<Node<'a>>,
    parents: Vec<Vec<usize>>,
}

/// A commit in its graph.
pub(super) struct Node<'a> {
    id: &'a CommitId,
    /// What it asks of the next version; none: it changes nothing.
    pub(super) bump: Option<Bump>,
    /// Whether somebody told of it, now or before; else it is only named as a parent.
    pub(super) known: bool,
    /// Whether somebody told of it before.
    pub(super) recorded: bool,
}

impl<'a> Graph<'a> {
    pub(super) fn new(sent: &'a [CommitFact], recorded: &'a [KnownCommit]) -> Self {
        let mut this = Self { index: HashMap::new(), nodes: Vec::new(), parents: Vec::new() };
        for fact in sent {
            let at = this.enter(&fact.id);
            let bump = (!fact.outside).then_some(fact.bump);
            this.nodes[at] = Node { id: &fact.id, bump, known: true, recorded: false };
        }
        for one in recorded {
            let at = this.enter(&one.id);
            // What is said now about what a commit brings counts: the project may have named other files since.
            let bump = if this.nodes[at].known { this.nodes[at].bump } else { one.bump };
            this.nodes[at] = Node { id: &one.id, bump, known: true, recorded: true };
        }
        let named = sent.iter().map(|fact| (&fact.id, &fact.parents));
        let named = named.chain(recorded.iter().map(|one| (&one.id, &one.parents)));
        for (id, parents) in named {
            let parents = parents.iter().map(|parent| this.enter(parent)).collect();
            let at = this.enter(id);
            this.parents[at] = parents;
        }
        this
    }

    fn enter(&mut self, id: &'a CommitId) -> usize {
        let next = self.nodes.len();
        let at = *self.index.entry(id).or_insert(next);
        if at == next {
            self.nodes.push(Node { id, bump: None, known: false, recorded: false });
            self.parents.push(Vec::new());
        }
        at
    }

    /// The number of a commit, also of one that is only named as a parent.
    pub(super) fn place(&self, id: &CommitId) -> Option<usize> {
        self.index.get(id).copied()
    }

    pub(super) fn node(&self, at: usize) -> &Node<'a> {
        &self.nodes[at]
    }

    /// The ids of those of these commits that are such.
    pub(super) fn ids(&self, of: &[usize], such: impl Fn(&Node<'a>) -> bool) -> Vec<CommitId> {
        of.iter().map(|at| &self.nodes[*at]).filter(|node| such(node)).map(|node| node.id.clone()).collect()
    }

    pub(super) fn parents(&self, at: usize) -> impl Iterator<Item = &Node<'a>> {
        self.parents[at].iter().map(|parent| &self.nodes[*parent])
    }

    /// The numbers of all commits that were recorded.
    pub(super) fn recorded(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].recorded)
    }

    /// Whether each commit is this one or an ancestor of it; none is, where there is no commit.
    pub(super) fn behind(&self, at: Option<usize>) -> Vec<bool> {
        reach(&self.parents, at)
    }

    /// Whether each commit is this one or a descendant of it.
    pub(super) fn ahead(&self, at: usize) -> Vec<bool> {
        let mut children = vec![Vec::new(); self.nodes.len()];
        for (child, parents) in self.parents.iter().enumerate() {
            parents.iter().for_each(|parent| children[*parent].push(child));
        }
        reach(&children, Some(at))
    }

    /// The length of the longest path to each of these commits that leads from one of them through them alone.
    pub(super) fn heights(&self, from: usize, among: &[usize]) -> HashMap<usize, u64> {
        let among: HashSet<usize> = among.iter().copied().collect();
        let mut heights: HashMap<usize, u64> = HashMap::new();
        let mut open: Vec<usize> = Some(from).filter(|at| among.contains(at)).into_iter().collect();
        let mut entered = HashSet::new();
        while let Some(at) = open.last().copied() {
            let parents = self.parents[at].iter().filter(|parent| among.contains(parent));
            let missing: Vec<usize> =
                parents.clone().filter(|parent| !heights.contains_key(parent)).copied().collect();
            // What is missing still when a commit comes up again is its own ancestor, which no git says.
            if !entered.insert(at) || missing.is_empty() {
                let highest = parents.filter_map(|parent| heights.get(parent)).max().copied().unwrap_or(0);
                heights.insert(at, highest + 1);
                open.pop();
            } else {
                open.extend(missing);
            }
        }
        heights
    }
}

/// Everything that can be reached along these links, with where it begins.
fn reach(links: &[Vec<usize>], from: Option<usize>) -> Vec<bool> {
    let mut reached = vec![false; links.len()];
    let mut open: Vec<usize> = from.into_iter().collect();
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut reached[at], true) {
            open.extend(&links[at]);
        }
    }
    reached
}

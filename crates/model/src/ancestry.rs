//! Ancestry: which commits one commit has behind it, as far as a store was told of them.

use std::collections::{HashMap, HashSet};

use crate::allocation::KnownCommit;
use crate::name::CommitId;

/// The commits of a component, by their parents.
#[derive(Debug)]
pub struct Ancestry<'a> {
    commits: HashMap<&'a CommitId, &'a KnownCommit>,
}

impl<'a> Ancestry<'a> {
    /// That of these commits.
    pub fn new(commits: &'a [KnownCommit]) -> Self {
        Self { commits: commits.iter().map(|one| (&one.id, one)).collect() }
    }

    /// The commit and all its ancestors that are known; none: nobody has told of the commit.
    pub fn behind(&self, commit: &CommitId) -> Option<HashSet<&'a CommitId>> {
        let mut open = vec![*self.commits.get(commit)?];
        let mut behind = HashSet::new();
        while let Some(one) = open.pop() {
            if behind.insert(&one.id) {
                open.extend(one.parents.iter().filter_map(|parent| self.commits.get(parent).copied()));
            }
        }
        Some(behind)
    }

    /// Those of them that change something of the source tree.
    pub fn changing(&self, among: impl IntoIterator<Item = &'a CommitId>) -> HashSet<&'a CommitId> {
        let changes = |id: &&CommitId| self.commits.get(id).is_some_and(|one| one.bump.is_some());
        among.into_iter().filter(changes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Bump;

    fn id(n: u8) -> CommitId {
        hex::encode([n; 20]).parse().unwrap()
    }

    fn commit(n: u8, parents: &[u8], bump: Option<Bump>) -> KnownCommit {
        let parents = parents.iter().map(|parent| id(*parent)).collect();
        KnownCommit { id: id(n), parents, author: "somebody".to_owned(), bump }
    }

    #[test]
    fn a_commit_has_behind_it_what_can_be_reached_and_nothing_of_other_branches() {
        let patch = Some(Bump::Patch);
        // 1 ─ 2 ─ 4 (merge of 3) and, beside them, 5; 9 was never told of.
        let commits = [
            commit(1, &[9], patch),
            commit(2, &[1], None),
            commit(3, &[1], patch),
            commit(4, &[2, 3], patch),
            commit(5, &[1], patch),
        ];
        let ancestry = Ancestry::new(&commits);
        let behind = |n: u8| ancestry.behind(&id(n)).map(|all| all.into_iter().cloned().collect());
        let set = |all: &[u8]| Some(all.iter().map(|n| id(*n)).collect::<HashSet<CommitId>>());
        for (of, expected) in [(1, set(&[1])), (4, set(&[1, 2, 3, 4])), (5, set(&[1, 5])), (9, None)] {
            assert_eq!(behind(of), expected, "{of}");
        }
        let all = ancestry.behind(&id(4)).unwrap();
        assert_eq!(ancestry.changing(all).len(), 3, "2 changes nothing");
    }
}

//! The ledger's Merkle tree (RFC 6962 §2.1, as used by C2SP `tlog-tiles`).
//!
//! Complete subtrees are addressed as `(level, index)`: level 0 holds the leaf hashes, and node `(l, i)` covers the leaves
//! `i·2^l` up to `(i+1)·2^l`. A reader gives access to them; proofs and roots are computed from O(log n) of them.

use sha2::{Digest as _, Sha256};

/// A SHA-256 tree hash.
pub type Hash = [u8; 32];

/// The hash of a leaf: `SHA-256(0x00 ‖ bytes)`.
pub fn leaf_hash(bytes: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(bytes).finalize().into()
}

/// The hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves: `SHA-256()`.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The address of a complete subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// 0 for leaves.
    pub level: u32,
    /// Counted from the left within the level.
    pub index: u64,
}

/// The complete subtrees that make up the leaves `start..end`, from left to right.
pub fn subtrees(start: u64, end: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = start;
    while at < end {
        let aligned = if at == 0 { 63 } else { at.trailing_zeros() };
        let fits = 63 - (end - at).leading_zeros();
        let level = aligned.min(fits);
        nodes.push(Node { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The nodes that become complete when leaf `index` is added, from the leaf's parent upwards.
pub fn completed_by(index: u64) -> Vec<Node> {
    let size = index + 1;
    (1..=size.trailing_zeros()).map(|level| Node { level, index: index >> level }).collect()
}

/// Which complete subtrees are needed to compute the root of a tree of `size` leaves.
pub fn root_nodes(size: u64) -> Vec<Node> {
    subtrees(0, size)
}

/// The root from the hashes of [`root_nodes`], in that order.
pub fn root_of(hashes: &[Hash]) -> Hash {
    fold_right(hashes).unwrap_or_else(empty_root)
}

fn fold_right(hashes: &[Hash]) -> Option<Hash> {
    let (last, rest) = hashes.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// The edge at which a tree grows: its largest complete subtrees. The next nodes and the root follow from it, with nothing
/// looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Hash>,
}

impl Frontier {
    /// That of a tree of `size` leaves, from the hashes of its [`root_nodes`], in that order.
    pub fn new(size: u64, hashes: Vec<Hash>) -> Self {
        debug_assert_eq!(hashes.len() as u64, u64::from(size.count_ones()));
        Self { size, hashes }
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        root_of(&self.hashes)
    }

    /// Adds a leaf by its hash; gives the nodes that become complete, from the leaf's parent upwards.
    pub fn push(&mut self, leaf: Hash) -> Vec<(Node, Hash)> {
        let (mut hash, mut completed) = (leaf, Vec::new());
        for node in completed_by(self.size) {
            let left = self.hashes.pop().expect("a node that becomes complete has a left half");
            hash = node_hash(&left, &hash);
            completed.push((node, hash));
        }
        self.hashes.push(hash);
        self.size += 1;
        completed
    }
}

/// One hash of a proof: the root of a run of leaves, as complete subtrees from left to right.
pub type ProofStep = Vec<Node>;

/// Which subtree roots prove that leaf `index` is in the tree of `size` leaves (RFC 6962 §2.1.1).
///
/// Each step's hash is [`root_of`] its nodes' hashes. Empty when `index` is not in the tree.
pub fn inclusion_steps(index: u64, size: u64) -> Vec<ProofStep> {
    let mut steps = Vec::new();
    if index < size {
        inclusion_within(index, 0, size, &mut steps);
    }
    steps
}

fn inclusion_within(index: u64, start: u64, end: u64, steps: &mut Vec<ProofStep>) {
    if end - start == 1 {
        return;
    }
    let middle = start + split_point(end - start);
    if index < middle {
        inclusion_within(index, start, middle, steps);
        steps.push(subtrees(middle, end));
    } else {
        inclusion_within(index, middle, end, steps);
        steps.push(subtrees(start, middle));
    }
}

/// Which subtree roots prove that the tree of `old` leaves is a prefix of that of `new` (RFC 6962 §2.1.2).
pub fn consistency_steps(old: u64, new: u64) -> Vec<ProofStep> {
    let mut steps = Vec::new();
    if 0 < old && old < new {
        consistency_within(old, 0, new, true, &mut steps);
    }
    steps
}

fn consistency_within(old: u64, start: u64, end: u64, whole: bool, steps: &mut Vec<ProofStep>) {
    if old == end {
        if !whole {
            steps.push(subtrees(start, end));
        }
        return;
    }
    let middle = start + split_point(end - start);
    if old <= middle {
        consistency_within(old, start, middle, whole, steps);
        steps.push(subtrees(middle, end));
    } else {
        consistency_within(old, middle, end, false, steps);
        steps.push(subtrees(start, middle));
    }
}

/// The largest power of two below `n` (for `n > 1`).
fn split_point(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Whether `proof` shows that a leaf with hash `leaf` stands at `index` in the tree of `size` leaves with this `root`.
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree (`old`, `old_root`) is a prefix of the tree (`new`, `new_root`).
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    if old > new {
        return false;
    }
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut rest = proof.iter();
    let first = if at == 0 { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The recursive definition of RFC 6962 §2.1, for comparison.
    fn definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let middle = usize::try_from(split_point(leaves.len() as u64)).unwrap();
                node_hash(&definition(&leaves[..middle]), &definition(&leaves[middle..]))
            }
        }
    }

    fn leaves(size: u64) -> Vec<Hash> {
        (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    fn stored(leaves: &[Hash]) -> HashMap<Node, Hash> {
        let mut nodes = HashMap::new();
        for (index, hash) in (0u64..).zip(leaves) {
            nodes.insert(Node { level: 0, index }, *hash);
            for node in completed_by(index) {
                let child = |n| Node { level: node.level - 1, index: node.index * 2 + n };
                let hash = node_hash(&nodes[&child(0)], &nodes[&child(1)]);
                nodes.insert(node, hash);
            }
        }
        nodes
    }

    fn hashes(steps: &[ProofStep], nodes: &HashMap<Node, Hash>) -> Vec<Hash> {
        steps.iter().map(|step| root_of(&step.iter().map(|node| nodes[node]).collect::<Vec<_>>())).collect()
    }

    #[test]
    fn the_root_follows_the_definition_of_rfc_6962() {
        assert_eq!(
            hex::encode(empty_root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let all = leaves(130);
        let nodes = stored(&all);
        for size in 0..=130 {
            let parts: Vec<Hash> = root_nodes(size as u64).iter().map(|node| nodes[node]).collect();
            assert_eq!(root_of(&parts), definition(&all[..size]), "size {size}");
        }
    }

    #[test]
    fn a_frontier_grows_into_the_same_tree_from_wherever_it_begins() {
        let all = leaves(130);
        let nodes = stored(&all);
        for start in [0usize, 1, 2, 63, 64, 100] {
            let parts = root_nodes(start as u64).iter().map(|node| nodes[node]).collect();
            let mut frontier = Frontier::new(start as u64, parts);
            for (index, leaf) in all.iter().enumerate().skip(start) {
                let completed = frontier.push(*leaf);
                let places: Vec<Node> = completed.iter().map(|(node, _)| *node).collect();
                assert_eq!(places, completed_by(index as u64));
                assert!(completed.iter().all(|(node, hash)| nodes[node] == *hash), "leaf {index}");
                assert_eq!(frontier.root(), definition(&all[..=index]), "from {start} to {index}");
            }
            assert_eq!(frontier.size(), 130);
        }
    }

    proptest! {
        #[test]
        fn a_leaf_is_proved_in_its_place_and_nowhere_else(size in 1u64..200, pick in 0u64..200, other in 0u64..200) {
            let (index, other) = (pick % size, other % size);
            let all = leaves(size);
            let nodes = stored(&all);
            let root = definition(&all);
            let proof = hashes(&inclusion_steps(index, size), &nodes);
            prop_assert!(verify_inclusion(index, size, &all[index as usize], &proof, &root));
            prop_assert_eq!(verify_inclusion(other, size, &all[index as usize], &proof, &root), other == index);
            prop_assert!(!verify_inclusion(index, size, &leaf_hash(b"forged"), &proof, &root));
        }

        #[test]
        fn an_earlier_tree_is_proved_a_prefix_and_a_forged_one_is_not(new in 1u64..200, pick in 0u64..200) {
            let old = pick % (new + 1);
            let all = leaves(new);
            let nodes = stored(&all);
            let (old_root, new_root) = (definition(&all[..old as usize]), definition(&all));
            let proof = hashes(&consistency_steps(old, new), &nodes);
            prop_assert!(verify_consistency(old, &old_root, new, &new_root, &proof));
            prop_assert!(!verify_consistency(old, &leaf_hash(b"forged"), new, &new_root, &proof));
        }
    }
}

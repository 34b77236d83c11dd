//! Inputs near the ones of a corpus, the same in every run: what a fuzzer does, on a stable compiler and in a few seconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Pieces that matter to some parser of ours.
const WORDS: [&str; 24] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "\"manifests\":[],",
    "\"config\":null,",
    "\\u0000",
    "18446744073709551616",
    "-1",
    "1e9",
    "/",
    "..",
    "%2f",
    "%2e%2e",
    "@sha256:",
    "uploads/",
    "bytes=",
    "-",
    "\u{feff}",
    "\0",
];

/// Checks a property for each input of a corpus, and for so many mutations of them.
///
/// # Panics
///
/// When the property does not hold, naming the input.
pub(crate) fn each(corpus: &Path, mutations: u64, property: fn(&[u8])) {
    let seeds = read(corpus);
    assert!(!seeds.is_empty(), "{} is empty", corpus.display());
    seeds.iter().for_each(|seed| hold(property, seed));
    for number in 0..mutations {
        hold(property, &mutated(&seeds, &mut Chance(number)));
    }
}

fn read(corpus: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(corpus).expect("the corpus is a part of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("it can be read")).collect()
}

fn hold(property: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| property(input))).is_err() {
        panic!("the property does not hold for b\"{}\"", input.escape_ascii());
    }
}

fn mutated(seeds: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len() + 1);
        let end = at + chance.below(input.len() - at + 1).min(40);
        match chance.below(6) {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 if at < input.len() => input[at] = chance.byte(),
            2 => drop(input.drain(at..end)),
            3 => drop(input.splice(at..at, input[at..end].to_vec())),
            4 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len() + 1);
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            _ => drop(input.splice(at..at, WORDS[chance.below(WORDS.len())].bytes())),
        }
    }
    input
}

/// SplitMix64 (Steele, Lea, Flood 2014): a number gives the same inputs everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is smaller than a length")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

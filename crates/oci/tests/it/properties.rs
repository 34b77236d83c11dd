//! The properties of `fuzz/`, for its corpus and some thousand mutations of it.

#[path = "../../../../fuzz/properties/manifest.rs"]
mod manifest;
#[path = "../../../../fuzz/properties/mutate.rs"]
mod mutate;
#[path = "../../../../fuzz/properties/range.rs"]
mod range;
#[path = "../../../../fuzz/properties/reference.rs"]
mod reference;

use std::path::PathBuf;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

#[test]
fn whatever_is_accepted_as_a_manifest_is_one_thing_for_every_reader() {
    mutate::each(&corpus("manifest"), 20_000, manifest::check);
}

#[test]
fn whatever_is_accepted_as_a_reference_has_one_spelling() {
    mutate::each(&corpus("reference"), 50_000, reference::check);
}

#[test]
fn whatever_is_accepted_as_a_range_lies_inside() {
    mutate::each(&corpus("range"), 50_000, range::check);
}

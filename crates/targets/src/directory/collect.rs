//! Removing what no generation needs any more.
//!
//! Kept are the generation that is on, the newest that succeeded, and every artefact and configuration that one of them
//! names. A listing that fails ends the work before anything is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::durable::{self, At, FileError};
use super::{Layout, store_name, switch};

/// How many generations that succeeded are kept to go back to.
const SUCCEEDED_KEPT: usize = 5;

/// Collects; only whoever holds the converge lock may.
pub(super) fn collect(layout: &Layout) -> Result<(), FileError> {
    let all = switch::past(layout)?;
    let succeeded = all.iter().filter(|past| past.succeeded.is_some()).take(SUCCEEDED_KEPT);
    let kept: Vec<_> =
        succeeded.chain(all.iter().filter(|past| past.current)).map(|past| &past.deployed).collect();
    let generations: BTreeSet<String> = kept.iter().map(|deployed| deployed.generation.to_string()).collect();
    let configs: BTreeSet<String> = kept.iter().map(|deployed| deployed.config.hex().to_owned()).collect();
    let artefacts: BTreeSet<String> = kept
        .iter()
        .map(|deployed| store_name(&deployed.artefact))
        .flat_map(|name| [format!("{name}.tree"), name])
        .collect();

    let mut unneeded = not_in(&layout.generations_dir(), &generations)?;
    unneeded.extend(not_in(&layout.root().join("config"), &configs)?);
    let mut store = not_in(&layout.store_dir(), &artefacts)?;
    // A tree without its record counts as never unpacked, so the record goes first.
    store.sort_by_key(|path| path.extension().is_none_or(|extension| extension != "tree"));
    unneeded.extend(store);
    unneeded.iter().try_for_each(|path| remove(path))
}

fn not_in(dir: &Path, kept: &BTreeSet<String>) -> Result<Vec<PathBuf>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Gives a directory a temporary name first, so that a crash leaves no half of it under its own.
fn remove(path: &Path) -> Result<(), FileError> {
    let aside = durable::temporary_beside(path);
    durable::rename(path, &aside)?;
    durable::remove_tree(&aside)
}

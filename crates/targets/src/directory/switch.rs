//! Switching: a generation directory that holds artefact and configuration, and one symlink that names it.
//!
//! A generation is fenced: a lower one than the newest ever switched on is refused. The fence is written before the
//! link is flipped, so a crash between the two is seen as a link that is not where it should be, and repaired.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::duration::Span;
use semel_model::name::{CommitId, ComponentName, ConfigKey, EnvironmentName};
use semel_model::pipeline::Health;
use semel_model::version::Version;
use serde::{Deserialize, Serialize};

use super::durable::{self, At, FileError};
use super::{Generation, Layout, RootError, store_name};

/// What a generation runs: `deployment.json`. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Format number, 1.
    pub v: u32,
    /// Its place in the order of the binding.
    pub generation: Generation,
    /// The deployment key.
    pub key: Digest,
    /// The artefact.
    pub artefact: Digest,
    /// The config digest.
    pub config: Digest,
    /// The digest of the record of the unpacked files.
    pub tree: Digest,
    /// The component.
    pub component: ComponentName,
    /// The environment.
    pub environment: EnvironmentName,
    /// The artefact's version, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Its build number, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The commit that it was built from, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The decision that granted its promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Digest>,
    /// The program and its arguments, as paths inside the artefact.
    pub entrypoint: Vec<String>,
    /// The directory inside the artefact to run in.
    pub workdir: String,
    /// The artefact's own variables, below the environment's values.
    pub defaults: BTreeMap<String, String>,
    /// What was found of what it needs, such as `node 20.11.1`.
    pub needs: Vec<String>,
    /// The health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How long it may take to become healthy.
    pub healthy_within: Span,
    /// The `PATH` of the host, as it was found.
    pub path: String,
    /// The `SEMEL_*` variables that it is given.
    pub variables: BTreeMap<String, String>,
}

/// A generation that is laid out at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// What it runs.
    pub deployed: Deployed,
    /// When it was found healthy; none: it never was, so nothing goes back to it.
    pub succeeded: Option<Timestamp>,
    /// Whether it is switched on.
    pub current: bool,
}

/// The generations laid out in a binding's root, newest first. Those that succeeded can be gone back to without
/// fetching anything.
pub fn generations(root: &Path) -> Result<Vec<Past>, RootError> {
    match Layout::find(root)? {
        None => Ok(Vec::new()),
        Some((layout, _)) => Ok(past(&layout)?),
    }
}

/// `fence.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fence {
    /// The newest generation ever switched on here.
    pub(super) newest: Option<Stamp>,
    /// The generation that `current` has to name; none: nothing is on.
    pub(super) current: Option<Generation>,
}

/// A generation and what it stood for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) generation: Generation,
    pub(super) key: Digest,
}

/// The `succeeded` marker of a generation.
#[derive(Debug, Serialize, Deserialize)]
struct Succeeded {
    time: Timestamp,
}

pub(super) fn read_fence(layout: &Layout) -> Result<Fence, FileError> {
    Ok(durable::read_json(&layout.fence_file())?.unwrap_or_default())
}

/// What a generation runs; none: it is not laid out here.
pub(super) fn read_deployed(layout: &Layout, generation: Generation) -> Result<Option<Deployed>, FileError> {
    durable::read_json(&layout.generation(generation).join("deployment.json"))
}

/// The exact bytes of a generation's manifest.
pub(super) fn read_manifest(layout: &Layout, generation: Generation) -> Result<Option<Vec<u8>>, FileError> {
    durable::read_if_there(&layout.generation(generation).join("manifest.json"))
}

/// The values of a config snapshot, as they were resolved; none: they are not here, or not as they were written.
pub(super) fn read_values(
    layout: &Layout,
    config: &Digest,
) -> Result<Option<BTreeMap<String, String>>, FileError> {
    let dir = layout.config_dir(config);
    let env = dir.join("env");
    let (bytes, sum) = (durable::read_if_there(&env)?, durable::read_if_there(&dir.join("sum"))?);
    match (bytes, sum) {
        (Some(bytes), Some(sum)) if sum == Digest::of(&bytes).as_str().as_bytes() => {
            Ok(Some(durable::parse(&env, &bytes)?))
        }
        _ => Ok(None),
    }
}

/// Writes the values of a config snapshot, unless they are there.
pub(super) fn write_values(
    layout: &Layout,
    config: &Digest,
    values: &BTreeMap<ConfigKey, String>,
) -> Result<(), FileError> {
    let bytes = canonical::bytes(values);
    let dir = layout.config_dir(config);
    let sum = Digest::of(&bytes);
    let there = durable::read_if_there(&dir.join("env"))?.is_some_and(|found| found == bytes)
        && durable::read_if_there(&dir.join("sum"))?.is_some_and(|found| found == sum.as_str().as_bytes());
    if there {
        return Ok(());
    }
    durable::create_dirs(&dir, 0o700)?;
    durable::write(&dir.join("env"), &bytes, 0o400)?;
    durable::write(&dir.join("sum"), sum.as_str().as_bytes(), 0o400)
}

/// Lays out a generation. A crash leaves none, or the whole one; the same generation again is the same.
pub(super) fn write_generation(
    layout: &Layout,
    deployed: &Deployed,
    manifest: &[u8],
) -> Result<(), FileError> {
    let dir = layout.generation(deployed.generation);
    if dir.exists() {
        return fill_generation(&dir, deployed, manifest);
    }
    let new = durable::temporary_beside(&dir);
    durable::create_dirs(&new, 0o755)?;
    fill_generation(&new, deployed, manifest)?;
    durable::rename(&new, &dir)
}

fn fill_generation(dir: &Path, deployed: &Deployed, manifest: &[u8]) -> Result<(), FileError> {
    durable::write(&dir.join("manifest.json"), manifest, 0o444)?;
    durable::symlink(&Path::new("../../store").join(store_name(&deployed.artefact)), &dir.join("artefact"))?;
    durable::symlink(&Path::new("../../config").join(deployed.config.hex()), &dir.join("config"))?;
    durable::write(&dir.join("deployment.json"), &canonical::bytes(deployed), 0o444)
}

/// Switches a generation on: first the fence, then the link.
pub(super) fn flip(layout: &Layout, deployed: &Deployed) -> Result<(), FileError> {
    let mut fence = read_fence(layout)?;
    fence.current = Some(deployed.generation);
    raise(&mut fence, Stamp { generation: deployed.generation, key: deployed.key.clone() });
    write_fence(layout, &fence)?;
    let to = Path::new("generations").join(deployed.generation.to_string());
    durable::symlink(&to, &layout.current())
}

/// Switches everything off.
pub(super) fn unlink(layout: &Layout) -> Result<(), FileError> {
    let fence = Fence { current: None, ..read_fence(layout)? };
    write_fence(layout, &fence)?;
    durable::remove_file(&layout.current())
}

/// Remembers that an order was carried out without a switch, so that nothing older comes after it.
pub(super) fn pass(layout: &Layout, stamp: Stamp) -> Result<(), FileError> {
    let before = read_fence(layout)?;
    let mut after = before.clone();
    raise(&mut after, stamp);
    if after == before { Ok(()) } else { write_fence(layout, &after) }
}

fn raise(fence: &mut Fence, stamp: Stamp) {
    if fence.newest.as_ref().is_none_or(|newest| newest.generation < stamp.generation) {
        fence.newest = Some(stamp);
    }
}

fn write_fence(layout: &Layout, fence: &Fence) -> Result<(), FileError> {
    durable::write(&layout.fence_file(), &canonical::bytes(fence), 0o644)
}

/// Marks a generation as one that can be gone back to. The first time counts.
pub(super) fn mark_succeeded(
    layout: &Layout,
    generation: Generation,
    now: Timestamp,
) -> Result<(), FileError> {
    if has_succeeded(layout, generation) {
        return Ok(());
    }
    let path = layout.generation(generation).join("succeeded");
    durable::write(&path, &canonical::bytes(&Succeeded { time: now }), 0o444)
}

/// Whether a generation can be gone back to.
pub(super) fn has_succeeded(layout: &Layout, generation: Generation) -> bool {
    layout.generation(generation).join("succeeded").exists()
}

/// Every generation that is laid out, newest first.
pub(super) fn past(layout: &Layout) -> Result<Vec<Past>, FileError> {
    let dir = layout.generations_dir();
    let current = layout.current_generation();
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let name = entry.at("list", &dir)?.file_name();
        let Some(generation) = name.to_str().and_then(|name| name.parse::<Generation>().ok()) else {
            continue;
        };
        let Some(deployed) = read_deployed(layout, generation)? else { continue };
        let succeeded: Option<Succeeded> =
            durable::read_json(&layout.generation(generation).join("succeeded"))?;
        found.push(Past {
            deployed,
            succeeded: succeeded.map(|s| s.time),
            current: current == Some(generation),
        });
    }
    found.sort_by_key(|past| std::cmp::Reverse(past.deployed.generation));
    Ok(found)
}

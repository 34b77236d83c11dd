//! What runs: asked of the process, not of the symlink.
//!
//! The supervisor's record says which process to look at; the kernel says whether it lives, from which files it was
//! started and with which variables. Where there is no `/proc`, or the process overwrote its variables, the record stands
//! in. A link that is not where the last switch put it counts as an edited file: what is started next would be another
//! release.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use semel_model::deployment::{FilesState, HealthState, Observed, RunState};
use semel_model::digest::Digest;

use super::durable::{self, FileError};
use super::health::Check;
use super::launch::{self, DEPLOYMENT};
use super::process::{self, Traces};
use super::stage::blocking;
use super::supervise::{self, ChildFile, Timing};
use super::switch::{self, Deployed};
use super::tree::{self, Closeness};
use super::{Generation, Layout, RootError};

/// How long the supervisor's last word on health holds.
const HEALTH_HOLDS: SignedDuration = SignedDuration::from_secs(30);

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Kind, mode, size and time of every file; the supervisor's last word on health, if it is no older than 30 s.
    Quick,
    /// Every byte of every file; a health check made now.
    Full,
}

/// What runs in a root at this moment. Where nothing was ever deployed: [`Observed::absent`].
pub async fn observe(root: &Path, depth: Depth, now: Timestamp) -> Result<Observed, RootError> {
    match Layout::find(root)? {
        None => Ok(Observed::absent()),
        Some((layout, _)) => Ok(look(&layout, depth, now).await?),
    }
}

pub(super) async fn look(layout: &Layout, depth: Depth, now: Timestamp) -> Result<Observed, FileError> {
    let (found, child) = {
        let layout = layout.clone();
        blocking(move || look_at_process(&layout, depth)).await?
    };
    let health = match (&child, depth) {
        (None, _) => HealthState::Unknown,
        (Some(child), Depth::Quick) => last_health(layout, child, now)?,
        (Some(child), Depth::Full) => fresh_health(layout, child, now).await?,
    };
    if child.is_some_and(|child| !child.process.is_alive()) {
        // It ended while it was looked at.
        let layout = layout.clone();
        return blocking(move || not_running(&layout, depth)).await;
    }
    Ok(Observed { health, ..found })
}

/// Everything but health.
fn look_at_process(layout: &Layout, depth: Depth) -> Result<(Observed, Option<ChildFile>), FileError> {
    match supervise::read_child(layout)?.filter(|child| child.process.is_alive()) {
        Some(child) => Ok((running(layout, &child, depth)?, Some(child))),
        None => Ok((not_running(layout, depth)?, None)),
    }
}

fn running(layout: &Layout, child: &ChildFile, depth: Depth) -> Result<Observed, FileError> {
    let traces = process::traces(child.process.pid);
    let deployed = switch::read_deployed(layout, child.generation)?;
    let files = match &deployed {
        Some(deployed) => files(layout, deployed, depth)?,
        None => FilesState::Edited,
    };
    Ok(Observed {
        generation: Some(child.generation.ledger),
        key: key_of(child, &traces),
        artefact: artefact_of(layout, child, &traces),
        config: config_of(layout, child, deployed.as_ref(), &traces)?,
        state: RunState::Running,
        health: HealthState::Unknown,
        files,
        since: Some(child.since),
    })
}

fn key_of(child: &ChildFile, traces: &Traces) -> Option<Digest> {
    match &traces.variables {
        Some(variables) => variables.get(DEPLOYMENT)?.parse().ok(),
        None => Some(child.key.clone()),
    }
}

fn artefact_of(layout: &Layout, child: &ChildFile, traces: &Traces) -> Option<Digest> {
    let said =
        |variables: &std::collections::BTreeMap<String, String>| variables.get("SEMEL_DIGEST")?.parse().ok();
    process::artefact_in(layout, traces).or_else(|| match &traces.variables {
        // A program of the host that went elsewhere (such as an interpreter after `chdir`) shows no path of ours.
        Some(variables) if !in_temporary(layout, traces) => said(variables),
        Some(_) => None,
        None => Some(child.artefact.clone()),
    })
}

/// Whether a process runs from files that were replaced under it.
fn in_temporary(layout: &Layout, traces: &Traces) -> bool {
    let mut paths = traces.executable.iter().chain(&traces.workdir);
    paths.any(|path| path.starts_with(layout.store_dir()) && layout.artefact_of(path).is_none())
}

/// The config snapshot, if every value of it is what the process was started with.
fn config_of(
    layout: &Layout,
    child: &ChildFile,
    deployed: Option<&Deployed>,
    traces: &Traces,
) -> Result<Option<Digest>, FileError> {
    let Some(variables) = &traces.variables else { return Ok(Some(child.config.clone())) };
    let Some(deployed) = deployed.filter(|deployed| deployed.config == child.config) else { return Ok(None) };
    let Some(values) = switch::read_values(layout, &deployed.config)? else { return Ok(None) };
    let given = values.iter().all(|(key, value)| variables.get(key) == Some(value));
    Ok(given.then(|| child.config.clone()))
}

fn not_running(layout: &Layout, depth: Depth) -> Result<Observed, FileError> {
    let fence = switch::read_fence(layout)?;
    let on = layout.current_generation();
    if fence.current.is_none() && on.is_none() {
        return Ok(Observed::absent());
    }
    let deployed = match on {
        Some(generation) => switch::read_deployed(layout, generation)?,
        None => None,
    };
    let stopped = Observed { state: RunState::Stopped, files: FilesState::Edited, ..Observed::absent() };
    let Some(deployed) = deployed else { return Ok(stopped) };
    let files = files(layout, &deployed, depth)?;
    Ok(Observed {
        generation: Some(deployed.generation.ledger),
        key: Some(deployed.key),
        artefact: Some(deployed.artefact),
        config: Some(deployed.config),
        files,
        ..stopped
    })
}

/// Whether everything that a generation consists of is as it was written.
fn files(layout: &Layout, deployed: &Deployed, depth: Depth) -> Result<FilesState, FileError> {
    let intact = link_is_right(layout)?
        && generation_is_right(layout, deployed.generation, deployed)
        && switch::read_values(layout, &deployed.config)?.is_some()
        && tree_is_right(layout, deployed, depth)?;
    Ok(if intact { FilesState::Intact } else { FilesState::Edited })
}

fn link_is_right(layout: &Layout) -> Result<bool, FileError> {
    let fence = switch::read_fence(layout)?;
    Ok(fence.current.is_some() && fence.current == layout.current_generation())
}

fn generation_is_right(layout: &Layout, generation: Generation, deployed: &Deployed) -> bool {
    let dir = layout.generation(generation);
    let leads_to = |link: &str, to: &Path| fs::canonicalize(dir.join(link)).is_ok_and(|found| found == to);
    leads_to("artefact", &layout.store(&deployed.artefact))
        && leads_to("config", &layout.config_dir(&deployed.config))
}

fn tree_is_right(layout: &Layout, deployed: &Deployed, depth: Depth) -> Result<bool, FileError> {
    let Some(record) = durable::read_if_there(&layout.tree_file(&deployed.artefact))? else {
        return Ok(false);
    };
    if Digest::of(&record) != deployed.tree {
        return Ok(false);
    }
    let closeness = match depth {
        Depth::Quick => Closeness::Quick,
        Depth::Full => Closeness::Full,
    };
    let dir = layout.store(&deployed.artefact);
    let difference = tree::first_difference(&dir, &record, closeness);
    Ok(difference.map_err(|source| FileError::new("compare", &dir, source))?.is_none())
}

/// What the supervisor said last about this process.
fn last_health(layout: &Layout, child: &ChildFile, now: Timestamp) -> Result<HealthState, FileError> {
    let said = supervise::read_health(layout)?.filter(|said| said.process == child.process);
    let holds = said.filter(|said| now.duration_since(said.time) <= HEALTH_HOLDS);
    Ok(holds.map_or(HealthState::Unknown, |said| said.health))
}

/// Makes the check now. A process without one is well when it has stayed up.
async fn fresh_health(layout: &Layout, child: &ChildFile, now: Timestamp) -> Result<HealthState, FileError> {
    let Ok(launch) = launch::load(layout, child.generation) else { return Ok(HealthState::Unknown) };
    let Ok(check) = Check::prepare(launch.deployed.health.as_ref(), &launch.variables()) else {
        return Ok(HealthState::Unknown);
    };
    if matches!(check, Check::StaysUp) {
        let up = Duration::try_from(now.duration_since(child.since)).unwrap_or_default();
        let well = up >= Timing::STANDARD.stays_up;
        return if well { Ok(HealthState::Healthy) } else { last_health(layout, child, now) };
    }
    let checked = check.run(&launch, Timing::STANDARD.check_within).await;
    Ok(if checked.is_ok() && child.process.is_alive() {
        HealthState::Healthy
    } else {
        HealthState::Unhealthy
    })
}

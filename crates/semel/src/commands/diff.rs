//! `semel diff`: two environments, or two artefacts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use semel_build::difference::{self, Entry, FileChange};
use semel_build::layer::layer_tar;
use semel_build::rootfs::Rootfs;
use semel_engine::artefact::Artefact;
use semel_engine::look::comparison::{Changed, Comparison, Layer};
use semel_model::name::{ComponentName, EnvironmentName};
use semel_oci::chunked::CHUNK;
use semel_oci::copy::{Endpoint, Source};
use semel_oci::descriptor::Descriptor;
use semel_oci::files::{self, Overwrite};
use semel_server::api::calls::{Compare, Diff, ShowPipeline};
use serde::Serialize;

use super::{Outcome, component};
use crate::cli::{Cli, DiffArgs};
use crate::output::{Output, bytes};
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::{Session, now};
use crate::workdir::WorkDir;

/// So many lines of each part are shown to a person; `--json` has all.
const LINES_SHOWN: usize = 40;

pub(super) async fn run(args: &DiffArgs, cli: &Cli, session: &Session) -> Outcome {
    if let (Ok(first), Ok(second)) = (args.first.parse(), args.second.parse()) {
        let component = component(cli, session)?;
        if are_environments(&component, [&first, &second], session).await? {
            return environments(component, first, second, session).await;
        }
    }
    artefacts(args, cli, session).await
}

async fn are_environments(
    component: &ComponentName,
    names: [&EnvironmentName; 2],
    session: &Session,
) -> Result<bool, Failure> {
    let found = session.client.call(&ShowPipeline { component: component.clone() }).await?;
    let known = found.in_force.map(|in_force| in_force.pipeline.environments).unwrap_or_default();
    Ok(names.iter().all(|name| known.contains_key(*name)))
}

async fn environments(
    component: ComponentName,
    first: EnvironmentName,
    second: EnvironmentName,
    session: &Session,
) -> Outcome {
    let ask = Diff { component, first: first.clone(), second: second.clone() };
    let found = session.client.call(&ask).await?;
    let output = session.output;
    let exit = if found.is_empty() { Exit::Done } else { Exit::Difference };
    if output.is_json() {
        output.json(&found);
        return Ok(exit);
    }
    let name = |artefact: Option<&Artefact>| artefact.map_or_else(|| "nothing".to_owned(), Artefact::name);
    output.data(&format!("{first}: {}", name(found.from.as_ref())));
    output.data(&format!("{second}: {}", name(found.to.as_ref())));
    if found.is_empty() {
        output.done("the same artefact with the same plain configuration");
        return Ok(exit);
    }
    if found.from.as_ref().map(|a| &a.digest) == found.to.as_ref().map(|a| &a.digest) {
        output.data("the same artefact");
    } else {
        let which = if found.backwards { &first } else { &second };
        output.data(&format!("{} commits that only {which} has:", found.commits.len()));
        found
            .commits
            .iter()
            .for_each(|commit| output.data(&format!("  {} {}", commit.id.short(), commit.subject)));
    }
    found.config.iter().for_each(|key| output.data(&format!("config {} {}", key.key, key.how)));
    found.contract.iter().for_each(|line| output.data(&format!("contract {line}")));
    Ok(exit)
}

/// Two artefacts in full, for `--json`.
#[derive(Debug, Serialize)]
struct Compared {
    identical: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// None: the bytes of one are gone, or it is an index of several artefacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileChange>>,
}

async fn artefacts(args: &DiffArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, first) = super::artefact(&args.first, cli, session)?;
    let (other, second) = super::artefact(&args.second, cli, session)?;
    if component != other {
        return Err(Failure::usage(format!("{component} and {other} are two components"))
            .hint("compare two artefacts of one component"));
    }
    let mut comparison =
        session.client.call(&Compare { component: component.clone(), first, second }).await?;
    let identical = comparison.is_identical();
    let files = match (identical, &comparison.from.layers, &comparison.to.layers) {
        (true, ..) => Some(Vec::new()),
        (false, Some(from), Some(to)) => Some(changed_files(&component, from, to, session).await?),
        _ => {
            comparison.unknown.push("files: the bytes of both are needed, of one platform".to_owned());
            None
        }
    };
    let compared = Compared { identical, comparison, files };
    if session.output.is_json() {
        session.output.json(&compared);
    } else {
        show(&compared, session.output);
    }
    Ok(if identical { Exit::Done } else { Exit::Difference })
}

/// Which files differ. Layers that are trees are fetched and compared inside; layers that are single files by their digests.
async fn changed_files(
    component: &ComponentName,
    from: &[Layer],
    to: &[Layer],
    session: &Session,
) -> Result<Vec<FileChange>, Failure> {
    if from.iter().chain(to).any(|layer| layer.title.is_some() || layer.media_type == CHUNK) {
        return Ok(whole_files(from, to));
    }
    let base = session.settings.work();
    let work = WorkDir::new(&base, now().into())
        .map_err(|error| Failure::fault(format!("cannot work below {}: {error}", base.display())))?;
    fetch(component, from.iter().chain(to), &work.path(), session).await?;
    let (from, to, place) = (from.to_vec(), to.to_vec(), work.path());
    let compared = tokio::task::spawn_blocking(move || compare(&from, &to, &place)).await;
    compared.map_err(|panic| Failure::fault(panic.to_string()))?
}

/// Files that are layers: a serverless package, the chunks of a disk image, whatever was pushed as files.
fn whole_files(from: &[Layer], to: &[Layer]) -> Vec<FileChange> {
    let (from, to) = (by_name(from), by_name(to));
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let entry = |layer: &&Layer| Entry::File { mode: "644".to_owned(), size: layer.size };
    let changed = |path: &String| {
        let (from, to) = (from.get(path), to.get(path));
        let same = from.map(|layer| &layer.digest) == to.map(|layer| &layer.digest);
        (!same).then(|| FileChange { path: path.clone(), from: from.map(entry), to: to.map(entry) })
    };
    names.into_iter().filter_map(changed).collect()
}

/// Layers by their names. A chunk has none but its place, from 1 on.
fn by_name(layers: &[Layer]) -> BTreeMap<String, &Layer> {
    let name = |(at, layer): (usize, &Layer)| match &layer.title {
        Some(title) => title.clone(),
        None if layer.media_type == CHUNK => format!("chunk {:04}", at + 1),
        None => layer.digest.to_string(),
    };
    layers.iter().enumerate().map(|one| (name(one), one.1)).collect()
}

async fn fetch(
    component: &ComponentName,
    layers: impl Iterator<Item = &Layer>,
    to: &Path,
    session: &Session,
) -> Result<(), Failure> {
    let mut wanted: Vec<_> = layers
        .map(|layer| {
            let blob = Descriptor::new(layer.media_type.clone(), layer.digest.clone(), layer.size);
            (to.join(layer.digest.hex()), blob)
        })
        .collect();
    wanted.sort_by(|(a, _), (b, _)| a.cmp(b));
    wanted.dedup_by(|(a, _), (b, _)| a == b);
    let from = Endpoint::Registry { client: session.client.registry(), name: component.clone() };
    let transfer = Transfer::new(&session.output, "layers");
    let fetched =
        files::write(&wanted, &Source::Endpoint(from), Overwrite::Refused, &transfer.listener()).await;
    transfer.finish();
    fetched.map(drop).map_err(|error| Failure::from_error(Exit::Verification, &error))
}

/// Lays the layers that both have over one another once, then what is left of each.
fn compare(from: &[Layer], to: &[Layer], place: &Path) -> Result<Vec<FileChange>, Failure> {
    let shared = from.iter().zip(to).take_while(|(a, b)| a.digest == b.digest).count();
    let below = laid_out(Rootfs::default(), &from[..shared], place, "shared")?;
    let a = laid_out(below.clone(), &from[shared..], place, "from")?;
    let b = laid_out(below, &to[shared..], place, "to")?;
    difference::difference(&a, &b).map_err(|error| Failure::from_error(Exit::Fault, &error))
}

fn laid_out(mut rootfs: Rootfs, layers: &[Layer], place: &Path, name: &str) -> Result<Rootfs, Failure> {
    for (number, layer) in layers.iter().enumerate() {
        let copy = place.join(format!("{name}-{number}.tar"));
        let tar = layer_tar(&layer.media_type, &place.join(layer.digest.hex())).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("a layer of type {} cannot be looked into", layer.media_type))
        })?;
        tar.and_then(|tar| rootfs.add_layer(tar, &copy)).map_err(|error| {
            Failure::from_error(Exit::Verification, &error)
                .because([format!("it is in layer {}", layer.digest)])
        })?;
    }
    Ok(rootfs)
}

fn show(compared: &Compared, output: Output) {
    let Comparison { from, to, commits, packages, contract, configuration, evidence, .. } =
        &compared.comparison;
    for (sign, side) in [("-", from), ("+", to)] {
        output.data(&format!("{sign} {} {}", side.artefact.name(), side.artefact.digest.short()));
    }
    if compared.identical {
        output.done("the same artefact, byte for byte");
        return;
    }
    let which = if compared.comparison.backwards { from } else { to };
    let commits = commits.iter().map(|commit| format!("{} {}", commit.id.short(), commit.subject));
    part(&format!("commits that only {} has", which.artefact.name()), commits, output);
    part("files", compared.files.iter().flatten().map(file_line), output);
    part("packages", packages.iter().flatten().map(changed_line), output);
    part("contract", contract.iter().flatten().cloned(), output);
    part("configuration", configuration.iter().flatten().map(changed_line), output);
    part("evidence", evidence.iter().map(changed_line), output);
    part("not compared", compared.comparison.unknown.iter().cloned(), output);
}

/// A part of the screen, unless it is empty.
fn part(title: &str, lines: impl Iterator<Item = String>, output: Output) {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return;
    }
    output.data(&format!("{title} ({}):", lines.len()));
    lines.iter().take(LINES_SHOWN).for_each(|line| output.data(&format!("  {line}")));
    if lines.len() > LINES_SHOWN {
        output.data(&format!("  … and {} more, all of them with --json", lines.len() - LINES_SHOWN));
    }
}

fn changed_line(changed: &Changed) -> String {
    match (&changed.from, &changed.to) {
        (None, Some(to)) => format!("+ {} {to}", changed.what),
        (Some(from), None) => format!("- {} {from}", changed.what),
        (from, to) => {
            let text = |side: &Option<String>| side.clone().unwrap_or_default();
            format!("~ {} {} → {}", changed.what, text(from), text(to))
        }
    }
}

fn file_line(change: &FileChange) -> String {
    match (&change.from, &change.to) {
        (None, Some(to)) => format!("+ {} {}", change.path, entry(to)),
        (Some(from), None) => format!("- {} {}", change.path, entry(from)),
        (Some(from), Some(to)) if entry(from) != entry(to) => {
            format!("~ {} {} → {}", change.path, entry(from), entry(to))
        }
        _ => format!("~ {} other bytes of the same length", change.path),
    }
}

fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Directory { mode } => format!("directory {mode}"),
        Entry::File { mode, size } if mode == "755" => format!("{}, executable", bytes(*size)),
        Entry::File { size, .. } => bytes(*size),
        Entry::Link { target } => format!("link to {target}"),
        Entry::Special => "device".to_owned(),
    }
}

//! `semel diff`: two environments, or two artefacts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use semel_build::difference::{self, Entry, FileChange};
use semel_build::layer::{is_layer, layer_tar};
use semel_build::rootfs::Rootfs;
use semel_engine::artefact::Artefact;
use semel_engine::look::comparison::{Changed, Comparison, Layer};
use semel_engine::look::versions::PlatformPart;
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, EnvironmentName};
use semel_model::platform::Platform;
use semel_oci::chunked::CHUNK;
use semel_oci::copy::{Endpoint, Source};
use semel_oci::descriptor::Descriptor;
use semel_oci::files::{self, Overwrite};
use semel_server::api::calls::{Compare, Diff, ShowPipeline};
use serde::Serialize;

use super::{Outcome, component};
use crate::cli::{Cli, DiffArgs};
use crate::output::{Output, bytes, counted};
use crate::progress::Transfer;
use crate::report::{Exit, Failure};
use crate::session::Session;

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
        let (which, other) = if found.backwards { (&first, &second) } else { (&second, &first) };
        output.data(&format!("{} that only {which} has:", counted(found.commits.len(), "commit")));
        found
            .commits
            .iter()
            .for_each(|commit| output.data(&format!("  {} {}", commit.id.short(), commit.subject)));
        if let Some(others) = found.others {
            let others = counted(others, "commit");
            output.data(&format!("{others} that only {other} has: they lie on different branches"));
        }
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
    /// None: the bytes of one are gone, or nobody can look inside, or it is an index of several artefacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<FileChange>>,
    /// The parts of both, where both have some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<ComparedPart>,
}

/// What the two have for one platform.
#[derive(Debug, Serialize)]
struct ComparedPart {
    platform: Option<Platform>,
    /// The part of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Digest>,
    /// The part of the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Digest>,
    /// What differs, where both have one and it is not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
}

async fn artefacts(args: &DiffArgs, cli: &Cli, session: &Session) -> Outcome {
    let (component, first) = super::artefact(&args.first, cli, session)?;
    let (other, second) = super::artefact(&args.second, cli, session)?;
    if component != other {
        return Err(Failure::usage(format!("{component} and {other} are two components"))
            .hint("compare two artefacts of one component"));
    }
    let mut compared = two(&component, first, second, session).await?;
    if !compared.identical {
        let Comparison { from, to, .. } = &compared.comparison;
        compared.parts = parts(&component, &from.parts, &to.parts, session).await?;
    }
    if session.output.is_json() {
        session.output.json(&compared);
    } else {
        show(&compared, session.output);
    }
    Ok(if compared.identical { Exit::Done } else { Exit::Difference })
}

/// Compares two artefacts, without what their parts have inside.
async fn two(
    component: &ComponentName,
    first: String,
    second: String,
    session: &Session,
) -> Result<Compared, Failure> {
    let mut comparison =
        session.client.call(&Compare { component: component.clone(), first, second }).await?;
    let identical = comparison.is_identical();
    let have_parts = !comparison.from.parts.is_empty() && !comparison.to.parts.is_empty();
    let files = match (&comparison.from.layers, &comparison.to.layers) {
        _ if identical => Some(Vec::new()),
        (Some(from), Some(to)) => match from.iter().chain(to).find(|layer| is_opaque(layer)) {
            None => Some(changed_files(component, from, to, session).await?),
            Some(layer) => {
                let kind = &layer.media_type;
                comparison.unknown.push(format!("files: nobody can look into a layer of type {kind}"));
                None
            }
        },
        _ if have_parts => None,
        _ => {
            comparison.unknown.push("files: the bytes of both are needed, of one platform".to_owned());
            None
        }
    };
    Ok(Compared { identical, comparison, files, parts: Vec::new() })
}

/// Whether a layer is compared as it is: a file with a name, or a chunk of a disk image.
fn is_whole(layer: &Layer) -> bool {
    layer.title.is_some() || layer.media_type == CHUNK
}

/// A serverless package, whoever packed it.
fn is_zip(layer: &Layer) -> bool {
    layer.media_type == "application/zip"
}

fn is_opaque(layer: &Layer) -> bool {
    !is_whole(layer) && !is_layer(&layer.media_type)
}

/// Compares the parts of two indexes, platform by platform. Where only one of the two is an index, there is nothing to compare.
async fn parts(
    component: &ComponentName,
    from: &[PlatformPart],
    to: &[PlatformPart],
    session: &Session,
) -> Result<Vec<ComparedPart>, Failure> {
    let mut parts = Vec::new();
    if from.is_empty() || to.is_empty() {
        return Ok(parts);
    }
    let digest = |of: &[PlatformPart], platform: &Option<Platform>| {
        of.iter().find(|part| part.platform == *platform).map(|part| part.digest.clone())
    };
    let mut platforms: Vec<&Option<Platform>> = Vec::new();
    for part in to.iter().chain(from) {
        if !platforms.contains(&&part.platform) {
            platforms.push(&part.platform);
        }
    }
    for platform in platforms {
        let (from, to) = (digest(from, platform), digest(to, platform));
        let compared = match (&from, &to) {
            (Some(from), Some(to)) if from != to => {
                Some(two(component, from.to_string(), to.to_string(), session).await?)
            }
            _ => None,
        };
        parts.push(ComparedPart { platform: platform.clone(), from, to, compared });
    }
    Ok(parts)
}

/// Which files differ. Layers that are trees and serverless packages are fetched and compared inside; other layers that are
/// single files by their digests.
async fn changed_files(
    component: &ComponentName,
    from: &[Layer],
    to: &[Layer],
    session: &Session,
) -> Result<Vec<FileChange>, Failure> {
    let work = session.work_dir()?;
    if let ([a], [b]) = (from, to)
        && is_zip(a)
        && is_zip(b)
    {
        fetch(component, [a, b].into_iter(), &work.path(), session).await?;
        let place = |layer: &Layer| work.path().join(layer.digest.hex());
        let compared = difference::of_zips(&place(a), &place(b));
        if let Some(files) = compared.map_err(|error| Failure::from_error(Exit::Fault, &error))? {
            return Ok(files);
        }
    }
    if from.iter().chain(to).any(is_whole) {
        return Ok(whole_files(from, to));
    }
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
    fetched.map(drop).map_err(|error| Failure::not_copied(&error))
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
            Failure::fault(format!("a layer of type {} cannot be looked into", layer.media_type))
        })?;
        tar.and_then(|tar| rootfs.add_layer(tar, &copy)).map_err(|error| {
            Failure::from_error(Exit::Verification, &error)
                .because([format!("it is in layer {}", layer.digest)])
        })?;
    }
    Ok(rootfs)
}

fn show(compared: &Compared, output: Output) {
    let Comparison { from, to, commits, unknown, backwards, .. } = &compared.comparison;
    for (sign, side) in [("-", from), ("+", to)] {
        output.data(&format!("{sign} {} {}", side.artefact.name(), side.artefact.digest.short()));
    }
    if compared.identical {
        output.done("the same artefact, byte for byte");
        return;
    }
    let which = if *backwards { from } else { to };
    let commits = commits.iter().map(|commit| format!("{} {}", commit.id.short(), commit.subject));
    section(&format!("commits that only {} has", which.artefact.name()), commits, output);
    show_inside(compared, "", output);
    for part in &compared.parts {
        let name = part.platform.as_ref().map_or_else(|| "other".to_owned(), ToString::to_string);
        match (&part.compared, &part.from, &part.to) {
            (Some(compared), ..) if show_inside(compared, &format!("{name} "), output) => {}
            (Some(_), ..) => output.data(&format!("{name}: the same inside")),
            (None, Some(from), None) => output.data(&format!("- {name} {}", from.short())),
            (None, None, Some(to)) => output.data(&format!("+ {name} {}", to.short())),
            (None, ..) => output.data(&format!("{name}: the same, byte for byte")),
        }
    }
    section("not compared", unknown.iter().cloned(), output);
}

/// What two artefacts have inside, behind the name of their platform where they are parts. Says whether there is anything.
fn show_inside(compared: &Compared, of: &str, output: Output) -> bool {
    let Comparison { packages, contract, configuration, evidence, unknown, .. } = &compared.comparison;
    let shown = [
        section(&format!("{of}files"), compared.files.iter().flatten().map(file_line), output),
        section(&format!("{of}packages"), packages.iter().flatten().map(changed_line), output),
        section(&format!("{of}contract"), contract.iter().flatten().cloned(), output),
        section(&format!("{of}configuration"), configuration.iter().flatten().map(changed_line), output),
        section(&format!("{of}evidence"), evidence.iter().map(changed_line), output),
        !of.is_empty() && section(&format!("{of}not compared"), unknown.iter().cloned(), output),
    ];
    shown.contains(&true)
}

/// A part of the screen, unless it is empty. Says whether it is there.
fn section(title: &str, lines: impl Iterator<Item = String>, output: Output) -> bool {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return false;
    }
    output.data(&format!("{title} ({}):", lines.len()));
    lines.iter().take(LINES_SHOWN).for_each(|line| output.data(&format!("  {line}")));
    if lines.len() > LINES_SHOWN {
        output.data(&format!("  … and {} more, all of them with --json", lines.len() - LINES_SHOWN));
    }
    true
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

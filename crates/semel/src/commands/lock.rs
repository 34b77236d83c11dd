//! `semel lock`: which image is the base, pinned, and whether its tag means another one by now.
//!
//! The only verb that changes a `semel.toml` that is there, and only when it is told to: one value, with everything around it
//! as it is.

use std::path::Path;
use std::str::FromStr as _;

use semel_build::base::{BaseSources, newest};
use semel_model::digest::Digest;
use semel_model::project::{FILE_NAME, split_base};
use semel_store::durable::{self, Access};
use serde::Serialize;
use toml_edit::DocumentMut;

use super::{Outcome, build};
use crate::cli::{Cli, LockArgs};
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;

/// What is pinned, for `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// As the project file has it now.
    base: Option<String>,
    /// What its tag means now; none when it has no tag, or the registry cannot be asked.
    newest: Option<Digest>,
    /// Whether that is another image.
    newer: bool,
    /// Whether the file was changed.
    changed: bool,
}

pub(super) async fn run(args: &LockArgs, cli: &Cli, settings: Settings, output: Output) -> Outcome {
    let mut file = ProjectFile::find(settings.directory())?;
    // A base that is not pinned yet makes the file one that no other verb accepts, and none is needed to ask a registry.
    let (sources, store) = (build::base_sources(&settings, None), Session::open(cli, settings, output).await);
    let sources = match &store {
        Ok(session) => build::base_sources(&session.settings, Some(session)),
        Err(_) => sources,
    };
    let report = match &args.update_base {
        Some(wanted) => update(&mut file, wanted.as_deref(), &sources, output).await?,
        None => look(&file, &sources, output).await?,
    };
    if output.is_json() {
        output.json(&report);
    } else if let Some(base) = &report.base {
        output.data(base);
    }
    Ok(Exit::Done)
}

async fn look(file: &ProjectFile, sources: &BaseSources, output: Output) -> Result<Report, Failure> {
    let Some(base) = file.base() else {
        output.say("there is no base, so nothing floats");
        return Ok(Report { base: None, newest: None, newer: false, changed: false });
    };
    let Some((name, pinned)) = split_base(&base) else {
        return Err(Failure::usage(format!("base `{base}` is not pinned"))
            .hint(format!("semel lock --update-base {base}")));
    };
    let newest = newest(&file.dir, name, sources).await;
    let newest = newest
        .inspect_err(|error| output.warn(format!("whether there is a newer one is not known: {error}")))
        .ok()
        .flatten();
    let newer = newest.as_ref().is_some_and(|newest| *newest != pinned);
    match &newest {
        Some(newest) if newer => {
            output.say(format!("{name} is {newest} by now"));
            output.next("semel lock --update-base".to_owned());
        }
        Some(_) => output.done(format!("{name} is still that image")),
        None => output.done(format!("{name} is pinned")),
    }
    Ok(Report { base: Some(base.clone()), newest, newer, changed: false })
}

async fn update(
    file: &mut ProjectFile,
    wanted: Option<&str>,
    sources: &BaseSources,
    output: Output,
) -> Result<Report, Failure> {
    let before = file.base();
    let known = before.as_deref().map(|base| split_base(base).map_or(base, |(name, _)| name));
    let name = wanted.or(known).ok_or_else(|| {
        Failure::usage("there is no base that could be updated")
            .hint("semel lock --update-base docker.io/library/debian:12")
    })?;
    let name = split_base(name).map_or(name, |(name, _)| name).to_owned();
    let found = newest(&file.dir, &name, sources)
        .await
        .map_err(|error| Failure::from_error(Exit::NotFound, &error).hints(error.hint()))?;
    let digest = found.ok_or_else(|| {
        Failure::usage(format!("`{name}` has no tag, so nothing says which image is the newest"))
            .hint(format!("semel lock --update-base {name}:TAG"))
    })?;
    let base = format!("{name}@{digest}");
    let changed = before.as_deref() != Some(&base);
    if changed {
        file.set_base(&base)?;
        output.done(format!("{FILE_NAME} pins {name} to {digest}"));
        output.next(format!("git commit {FILE_NAME}   and then   semel build"));
    } else {
        output.done(format!("{name} is still that image"));
    }
    Ok(Report { base: Some(base), newest: Some(digest), newer: false, changed })
}

/// The project file as it is written, which need not be valid: an unpinned base is why somebody comes here.
struct ProjectFile {
    dir: std::path::PathBuf,
    document: DocumentMut,
}

impl ProjectFile {
    fn find(from: &Path) -> Result<Self, Failure> {
        for dir in from.ancestors() {
            let path = dir.join(FILE_NAME);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let document = DocumentMut::from_str(&text);
                    let document = document.map_err(|error| {
                        Failure::usage(format!("{} is no TOML", path.display())).because([error.to_string()])
                    })?;
                    return Ok(Self { dir: dir.to_owned(), document });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(
                        Failure::from_error(Exit::Fault, &error).because([path.display().to_string()])
                    );
                }
            }
        }
        Err(Failure::usage(format!("there is no {FILE_NAME} in {} or above it", from.display()))
            .hint("semel init"))
    }

    fn base(&self) -> Option<String> {
        Some(self.document.get("artefact")?.get("base")?.as_str()?.to_owned())
    }

    /// Changes the one value; a comment behind it stays.
    fn set_base(&mut self, base: &str) -> Result<(), Failure> {
        let artefact = self.document.get_mut("artefact").and_then(|item| item.as_table_like_mut());
        let artefact =
            artefact.ok_or_else(|| Failure::usage(format!("{FILE_NAME} has no table [artefact]")))?;
        let mut value = toml_edit::Value::from(base);
        match artefact.get_mut("base") {
            Some(item) => {
                if let Some(old) = item.as_value() {
                    *value.decor_mut() = old.decor().clone();
                }
                *item = toml_edit::Item::Value(value);
            }
            None => drop(artefact.insert("base", toml_edit::Item::Value(value))),
        }
        let path = self.dir.join(FILE_NAME);
        durable::replace(&path, self.document.to_string().as_bytes(), Access::Shared)
            .map_err(|error| Failure::from_error(Exit::Fault, &error).because([path.display().to_string()]))
    }
}

//! What a build gets of the caller's: a sandbox that works here, the secrets of `fetch`, the caches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use semel_build::log::Secret;
use semel_build::sandbox::{Level, Sandbox, preflight};
use semel_model::project::{BuildSpec, SandboxWish};

use super::converge::is_private;
use crate::cli::SecretFile;
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::session::Session;
use crate::settings::Settings;

/// What was asked for on the command line.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) secrets: Vec<SecretFile>,
    pub(super) sandbox: Option<Level>,
    pub(super) no_cache: bool,
}

/// What the commands of a build run in.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) sandbox: Sandbox,
    pub(super) secrets: Vec<Secret>,
    pub(super) caches: Option<PathBuf>,
}

/// Finds everything, or refuses before anything is reserved.
pub(super) fn find(asked: &Asked, build: &BuildSpec, session: &Session) -> Result<Surroundings, Failure> {
    let settings = &session.settings;
    Ok(Surroundings {
        secrets: secrets(&asked.secrets, build, settings)?,
        sandbox: sandbox(asked.sandbox, build, settings)?,
        caches: (!asked.no_cache).then(|| settings.caches()),
    })
}

fn sandbox(asked: Option<Level>, build: &BuildSpec, settings: &Settings) -> Result<Sandbox, Failure> {
    let level = match (asked, build.sandbox) {
        (Some(asked), Some(SandboxWish::None)) if asked != Level::None => {
            return Err(Failure::usage(format!(
                "the project cannot be built in a sandbox, and {asked} was asked for"
            ))
            .because(["[build] sandbox = \"none\" in its semel.toml".to_owned()]));
        }
        (_, Some(SandboxWish::None)) => Some(Level::None),
        (asked, None) => asked,
    };
    preflight(&settings.path()).choose(level).map_err(|unavailable| {
        Failure::usage(unavailable.to_string())
            .because([unavailable.missing.reason])
            .hints(unavailable.missing.fix)
            .hint("semel doctor")
    })
}

/// Says what holds the commands back, and loudly when nothing does.
pub(super) fn tell(sandbox: &Sandbox, build: &BuildSpec, output: Output) {
    if build.fetch.is_none() && build.run.is_none() {
        return;
    }
    let because = sandbox.weaker_because();
    match sandbox.level() {
        Level::Bubblewrap => {}
        Level::Landlock if because.is_empty() => {}
        Level::Landlock => output.say(format!("  sandbox landlock: {}", because.join("; "))),
        Level::None => {
            let why = match because {
                [] => "as was asked for".to_owned(),
                reasons => format!("{}: semel doctor", reasons.join("; ")),
            };
            output.warn(format!(
                "NO SANDBOX: the commands can reach your files, your processes and the network ({why})"
            ));
        }
    }
    if build.network && sandbox.level() != Level::None {
        output.warn("`run` may use the network: [build] network = true");
    }
}

/// The values of `[build] secrets`: each from the file that was named for it, else from the environment.
fn secrets(files: &[SecretFile], build: &BuildSpec, settings: &Settings) -> Result<Vec<Secret>, Failure> {
    let mut values = BTreeMap::new();
    for SecretFile { name, file } in files {
        if !build.secrets.contains(name) {
            return Err(Failure::usage(format!("`{name}` is not one of this project's secrets"))
                .hint(format!("declare it in semel.toml: [build] secrets = [\"{name}\"]")));
        }
        values.insert(name.clone(), read(&settings.directory().join(file))?);
    }
    let mut missing = Vec::new();
    for name in build.secrets.iter().filter(|name| !values.contains_key(*name)).collect::<Vec<_>>() {
        match settings.variable(name) {
            Some(value) => drop(values.insert(name.clone(), value.to_owned())),
            None => missing.push(name.as_str()),
        }
    }
    match missing.as_slice() {
        [] => values.into_iter().map(secret).collect(),
        [first, ..] => {
            Err(Failure::usage(format!("`fetch` needs secrets that are not here: {}", missing.join(", ")))
                .hint(format!("set the variable {first}, or semel build --secret {first}=FILE")))
        }
    }
}

fn secret((name, value): (String, String)) -> Result<Secret, Failure> {
    Secret::new(name, value).map_err(|error| Failure::from_error(Exit::Usage, &error))
}

fn read(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("cannot read {shown}, which holds a secret")).because([error.to_string()])
    })?;
    if !is_private(file) {
        return Err(Failure::usage(format!(
            "others can read {shown}, which holds a secret, or git tracks it"
        ))
        .hint(format!("chmod 600 {shown}, and keep it out of git")));
    }
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

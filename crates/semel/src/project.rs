//! The project that the command was given in: its file in the working directory, which proposes and names.

use std::path::{Path, PathBuf};

use semel_model::name::ComponentName;
use semel_model::project::{FILE_NAME, Project};

use crate::report::{Exit, Failure};

/// A project file as it lies in the working directory.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// What it says.
    pub(crate) project: Project,
}

/// The nearest project file at or above a directory.
pub(crate) fn find(from: &Path) -> Result<Option<Found>, Failure> {
    for dir in from.ancestors() {
        let path = dir.join(FILE_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => return parse(dir, &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::from_error(Exit::Fault, &error).because([path.display().to_string()]));
            }
        }
    }
    Ok(None)
}

fn parse(dir: &Path, text: &str) -> Result<Found, Failure> {
    let project = Project::parse(FILE_NAME, text).map_err(|error| {
        let place = dir.join(FILE_NAME);
        Failure::from_error(Exit::Usage, &error).hint(format!("correct {}", place.display()))
    })?;
    Ok(Found { dir: dir.to_owned(), project })
}

/// The project, which must be there.
pub(crate) fn get(from: &Path) -> Result<Found, Failure> {
    find(from)?.ok_or_else(|| {
        Failure::usage(format!("there is no {FILE_NAME} in {} or above it", from.display()))
            .hint("semel init")
    })
}

/// The component: named, or the project's.
pub(crate) fn component(named: Option<&ComponentName>, from: &Path) -> Result<ComponentName, Failure> {
    match named {
        Some(name) => Ok(name.clone()),
        None => match find(from)? {
            Some(found) => Ok(found.project.component),
            None => Err(Failure::usage("which component? There is no semel.toml here that names one")
                .hint("name it: -c COMPONENT, or COMPONENT@VERSION")),
        },
    }
}

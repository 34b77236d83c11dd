//! From a generation to a command line: which program, which arguments, which directory, which variables.
//!
//! Paths of an entrypoint mean files inside the artefact where it has them, and files of the host where it has not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::durable::FileError;
use super::needs::{find_on_path, is_program};
use super::switch::{self, Deployed};
use super::{Generation, Layout, elf, unpack};

/// The variable by which a process of ours is recognised: the deployment key.
pub(super) const DEPLOYMENT: &str = "SEMEL_DEPLOYMENT";

/// Why a release cannot be started here.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    /// The entrypoint names nothing.
    #[error("the entrypoint `{word}` is neither a program inside the artefact nor one of this host")]
    NoProgram {
        /// As the artefact says it.
        word: String,
    },
    /// The entrypoint is there, but nobody may run it.
    #[error(
        "the entrypoint `{word}` is a file inside the artefact without execute permission: set mode = \"0755\""
    )]
    NotExecutable {
        /// As the artefact says it.
        word: String,
    },
    /// The program wants a root file system of its own.
    #[error(
        "`{word}` is linked to the loader {loader} inside the artefact, which works only with a root file system of its own: \
         use a podman target, or link the program statically"
    )]
    OwnLoader {
        /// As the artefact says it.
        word: String,
        /// The loader, as the program names it.
        loader: String,
    },
    /// The program wants a loader that is nowhere.
    #[error("`{word}` needs the loader {loader}, which this host does not have: link the program statically")]
    NoLoader {
        /// As the artefact says it.
        word: String,
        /// The loader, as the program names it.
        loader: String,
    },
    /// The generation is not laid out.
    #[error("generation {generation} is not laid out")]
    NoGeneration {
        /// Which one.
        generation: Generation,
    },
    /// Its values are not there, or not as they were written.
    #[error("the configuration values of generation {generation} are missing or were edited")]
    NoValues {
        /// Whose.
        generation: Generation,
    },
    /// A file of ours.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A release, ready to be started.
#[derive(Clone)]
pub(super) struct Launch {
    pub(super) deployed: Deployed,
    /// The environment's values, secrets included.
    pub(super) values: BTreeMap<String, String>,
    words: Words,
    home: PathBuf,
    tree: PathBuf,
}

/// Reads a generation and resolves its entrypoint.
pub(super) fn load(layout: &Layout, generation: Generation) -> Result<Launch, LaunchError> {
    let deployed =
        switch::read_deployed(layout, generation)?.ok_or(LaunchError::NoGeneration { generation })?;
    let values =
        switch::read_values(layout, &deployed.config)?.ok_or(LaunchError::NoValues { generation })?;
    let tree = layout.store(&deployed.artefact);
    let words = resolve(&tree, &deployed.entrypoint, &deployed.workdir, &deployed.path)?;
    Ok(Launch { deployed, values, words, home: layout.home(), tree })
}

impl Launch {
    /// The command that starts the release.
    pub(super) fn command(&self) -> Command {
        self.command_of(&self.words)
    }

    /// A command of the health check, with the variables of the release except the one that marks its process.
    pub(super) fn check_command(&self, words: &[String]) -> Result<Command, LaunchError> {
        let words = resolve(&self.tree, words, &self.deployed.workdir, &self.deployed.path)?;
        let mut command = self.command_of(&words);
        command.env_remove(DEPLOYMENT);
        Ok(command)
    }

    fn command_of(&self, words: &Words) -> Command {
        let mut command = Command::new(&words.program);
        command.args(&words.arguments).current_dir(&words.workdir).env_clear().envs(self.variables());
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Every variable of the release. What we say is above what the environment says, which is above the artefact's
    /// own; `PYTHONDONTWRITEBYTECODE` keeps an interpreter that runs as root from writing into the sealed release.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([
            ("PATH".to_owned(), self.deployed.path.clone()),
            ("HOME".to_owned(), self.home.to_string_lossy().into_owned()),
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ]);
        all.extend(self.deployed.defaults.clone());
        all.extend(self.values.clone());
        all.extend(self.deployed.variables.clone());
        all
    }

    /// The program that is started.
    pub(super) fn program(&self) -> &Path {
        &self.words.program
    }
}

/// Whether a release could be started here: its program is there and has what it needs to run.
pub(super) fn check(
    tree: &Path,
    entrypoint: &[String],
    workdir: &str,
    path: &str,
) -> Result<(), LaunchError> {
    let words = resolve(tree, entrypoint, workdir, path)?;
    let word = || entrypoint[0].clone();
    let real = std::fs::canonicalize(&words.program).unwrap_or_else(|_| words.program.clone());
    if !real.starts_with(tree) {
        return Ok(());
    }
    let loader = elf::interpreter(&real).map_err(|source| FileError::new("read", &real, source))?;
    match loader {
        Some(loader) if inside(tree, Path::new(&loader)).is_some() => {
            Err(LaunchError::OwnLoader { word: word(), loader })
        }
        Some(loader) if !Path::new(&loader).exists() => Err(LaunchError::NoLoader { word: word(), loader }),
        _ => Ok(()),
    }
}

/// A resolved command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words {
    program: PathBuf,
    arguments: Vec<String>,
    workdir: PathBuf,
}

/// The words of an entrypoint as this host has to be told them.
///
/// A first word with a `/` is a file inside the artefact if it has that file, else a path of the host; one without is
/// looked up on the `PATH`. A later word that begins with `/` and names something inside the artefact is rewritten.
fn resolve(tree: &Path, words: &[String], workdir: &str, path: &str) -> Result<Words, LaunchError> {
    let workdir =
        inside(tree, Path::new(workdir)).filter(|dir| dir.is_dir()).unwrap_or_else(|| tree.to_owned());
    let (first, rest) = words.split_first().ok_or_else(|| LaunchError::NoProgram { word: String::new() })?;
    let missing = || LaunchError::NoProgram { word: first.clone() };
    let program = if !first.contains('/') {
        find_on_path(first, path).ok_or_else(missing)?
    } else {
        let from = workdir.strip_prefix(tree).unwrap_or(Path::new(""));
        match inside(tree, &from.join(first)) {
            Some(file) if is_program(&file) => file,
            Some(file) if file.is_file() => return Err(LaunchError::NotExecutable { word: first.clone() }),
            _ => {
                Some(PathBuf::from(first)).filter(|p| p.is_absolute() && is_program(p)).ok_or_else(missing)?
            }
        }
    };
    let rewrite = |word: &String| {
        let named = Some(word.as_str()).filter(|word| word.starts_with('/') && *word != "/");
        let found = named.and_then(|word| inside(tree, Path::new(word)));
        found.map_or_else(|| word.clone(), |path| path.to_string_lossy().into_owned())
    };
    Ok(Words { program, arguments: rest.iter().map(rewrite).collect(), workdir })
}

/// The file that a path of the artefact means, if there is one. Prefers the path as it is written, because programs
/// look at the name that they are called by; a link that leads out is followed as if the artefact were everything.
fn inside(tree: &Path, path: &Path) -> Option<PathBuf> {
    let plain =
        path.components().filter(|c| !matches!(c, std::path::Component::RootDir)).collect::<PathBuf>();
    let written = if plain.as_os_str().is_empty() { tree.to_owned() } else { tree.join(plain) };
    if std::fs::canonicalize(&written).is_ok_and(|real| real.starts_with(tree)) {
        return Some(written);
    }
    unpack::resolve_inside(tree, path).map(|found| tree.join(found)).filter(|found| found.exists())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let tree = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(tree.join("app/bin")).unwrap();
        for (file, mode) in [("app/api", 0o755), ("app/bin/tool", 0o755), ("app/server.js", 0o644)] {
            fs::write(tree.join(file), "#!/bin/sh\n").unwrap();
            fs::set_permissions(tree.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/app/api", tree.join("start")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.join("leak")).unwrap();
        (dir, tree)
    }

    fn words(tree: &Path, words: &[&str], workdir: &str) -> Result<Vec<String>, LaunchError> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let found = resolve(tree, &words, workdir, "/usr/bin:/bin")?;
        let program = found.program.to_string_lossy().into_owned();
        let all = std::iter::once(program)
            .chain(found.arguments)
            .chain([found.workdir.to_string_lossy().into_owned()]);
        Ok(all.map(|word| word.replace(tree.to_str().unwrap(), "T")).collect())
    }

    #[test]
    fn paths_mean_the_artefact_where_it_has_them() {
        let (_dir, tree) = tree();
        let cases: [(&[&str], &str, &[&str]); 6] = [
            (
                &["/app/api", "/app/server.js", "/etc/hosts", "-x"],
                "/",
                &["T/app/api", "T/app/server.js", "/etc/hosts", "-x", "T"],
            ),
            (&["/bin/sh", "/app"], "/app", &["/bin/sh", "T/app", "T/app"]),
            (&["./bin/tool"], "/app", &["T/app/bin/tool", "T/app"]),
            (&["/start"], "/missing", &["T/app/api", "T"]),
            (&["/app/api", "/leak", "/"], "/", &["T/app/api", "/leak", "/", "T"]),
            (&["/app/../app/api"], "/", &["T/app/../app/api", "T"]),
        ];
        for (given, workdir, expected) in cases {
            assert_eq!(words(&tree, given, workdir).unwrap(), expected, "{given:?}");
        }
        assert!(words(&tree, &["sh"], "/").unwrap()[0].ends_with("/sh"));
    }

    #[test]
    fn an_entrypoint_that_is_no_program_is_named() {
        let (_dir, tree) = tree();
        assert!(matches!(words(&tree, &["/app/none"], "/"), Err(LaunchError::NoProgram { .. })));
        assert!(matches!(words(&tree, &["no-such-program-here"], "/"), Err(LaunchError::NoProgram { .. })));
        assert!(matches!(words(&tree, &["/app/server.js"], "/"), Err(LaunchError::NotExecutable { .. })));
        assert!(matches!(words(&tree, &[], "/"), Err(LaunchError::NoProgram { .. })));
    }
}

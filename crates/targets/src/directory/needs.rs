//! What an archive needs of its host: programs on the `PATH`, in a version that will do.
//!
//! A need is checked by asking the program itself (`PROGRAM --version`); what it answers is recorded with the deployment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use semel_model::deployment::Need;
use tokio::process::Command;

/// How long a program may take to say its version.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why a host does not meet a need.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NeedProblem {
    /// The program is not there.
    #[error("needs {need}: there is no `{}` on the PATH of this host; install it", need.program)]
    Missing {
        /// The need.
        need: Need,
    },
    /// The program is there and says nothing.
    #[error("needs {need}: `{} --version` {what}", program.display())]
    Silent {
        /// The need.
        need: Need,
        /// The program that was asked.
        program: PathBuf,
        /// What it did instead.
        what: String,
    },
    /// The program is too old.
    #[error("needs {need}: {} is {found}; install a newer one", program.display())]
    TooOld {
        /// The need.
        need: Need,
        /// The program that was asked.
        program: PathBuf,
        /// What it is.
        found: String,
    },
}

/// Checks every need against the programs on `path`. Gives what was found, such as `node 20.11.1`, or all problems at
/// once.
pub async fn check(needs: &[Need], path: &str) -> Result<Vec<String>, Vec<NeedProblem>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for need in needs {
        match check_one(need, path).await {
            Ok(version) => found.push(version),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// The first executable file of this name on a `PATH`.
pub(crate) fn find_on_path(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(name))
        .find(|file| is_program(file))
}

/// Whether there is an executable file.
pub(crate) fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

async fn check_one(need: &Need, path: &str) -> Result<String, NeedProblem> {
    let Some(program) = find_on_path(&need.program, path) else {
        return Err(NeedProblem::Missing { need: need.clone() });
    };
    let silent = |what: String| NeedProblem::Silent { need: need.clone(), program: program.clone(), what };
    let mut command = Command::new(&program);
    command.arg("--version").env_clear().env("PATH", path).env("HOME", "/nonexistent").current_dir("/");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(ANSWER_WITHIN, command.output()).await {
        Err(_) => return Err(silent(format!("did not answer within {} s", ANSWER_WITHIN.as_secs()))),
        Ok(Err(error)) => return Err(silent(format!("cannot be run: {error}"))),
        Ok(Ok(output)) => output,
    };
    let printed = [output.stdout, output.stderr].concat();
    match Need::version_in(&String::from_utf8_lossy(&printed)) {
        Some(version) if need.is_met_by(&version) => Ok(format!("{} {version}", need.program)),
        Some(version) => Err(NeedProblem::TooOld { need: need.clone(), program, found: version }),
        None if need.at_least.is_none() => Ok(need.program.clone()),
        None => Err(silent("names no version".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(dir: &Path, name: &str, prints: &str) {
        let file = dir.join(name);
        std::fs::write(&file, format!("#!/bin/sh\necho '{prints}'\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn every_need_is_answered_by_the_program_itself() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path(), "node", "v20.11.1");
        program(dir.path(), "oldpython", "Python 3.8.2");
        program(dir.path(), "mute", "");
        let path = dir.path().to_str().unwrap();
        let need = |text: &str| Need::parse(text).unwrap();
        let found = check(&[need("node >= 20"), need("mute")], path).await.unwrap();
        assert_eq!(found, ["node 20.11.1", "mute"]);
        let needs = [need("node >= 22"), need("oldpython >= 3.11"), need("mute >= 1"), need("ruby")];
        let problems = check(&needs, path).await.unwrap_err();
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("needs node >= 22: ") && texts[0].contains("is 20.11.1"), "{texts:?}");
        assert!(texts[1].contains("is 3.8.2"), "{texts:?}");
        assert!(texts[2].contains("names no version"), "{texts:?}");
        assert!(texts[3].contains("no `ruby` on the PATH"), "{texts:?}");
    }
}

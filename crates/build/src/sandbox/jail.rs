//! Jail: what holds a command inside a finished artefact.
//!
//! A copy of the artefact is the root of the command, which may write there as in a container, or lies read-only beside the
//! system's directories; around it there is an empty `/tmp`, no network, nothing else of this machine and no processes but its
//! own. The programs of the artefact may need another C library than this program does, so nothing of ours can run inside: what
//! restricts itself in a build does not here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{SHELL, bubblewrap, guarded, preflight, view};

/// A way to hold a command inside, which works on this host.
#[derive(Debug)]
pub(crate) enum Jail {
    /// The program `bwrap`.
    Bubblewrap(PathBuf),
    /// The program `unshare` of util-linux: the same namespaces, without `/proc` and `/dev`.
    Unshare(PathBuf),
}

/// What a command sees of an artefact that is laid out as files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown<'a> {
    /// It is the root, and the command starts in this directory of it.
    AsRoot { top: &'a Path, workdir: &'a str },
    /// It lies at this place beside the system's directories, where the command starts.
    Beside { top: &'a Path, place: &'a str },
}

impl Jail {
    /// The strongest that works here; else why there is none. `path` is the caller's `PATH`.
    pub(crate) fn find(path: &str, shown: Shown<'_>) -> Result<Self, String> {
        let missing = match preflight::try_bubblewrap(path) {
            Ok(program) => return Ok(Self::Bubblewrap(program)),
            Err(missing) => missing,
        };
        match (preflight::on_path(path, "unshare"), shown) {
            (Some(program), Shown::AsRoot { .. })
                if works(Command::new(&program).args(UNSHARED).arg("true")) =>
            {
                Ok(Self::Unshare(program))
            }
            _ => Err(format!("{missing}: semel doctor")),
        }
    }

    /// The word in the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bubblewrap(_) => "bubblewrap",
            Self::Unshare(_) => "namespaces",
        }
    }

    /// A process that runs `words` inside, with these variables, below a guard, as [`super::Sandbox::command`] does.
    pub(crate) fn command(
        &self,
        shown: Shown<'_>,
        words: &[String],
        variables: &[(&str, &str)],
        semel: &Path,
    ) -> Command {
        let mut line: Vec<OsString> = SHELL.map(OsString::from).to_vec();
        line.extend(match self {
            Self::Bubblewrap(program) => bubblewrapped(program, shown, words, variables),
            Self::Unshare(program) => unshared(program, shown, words),
        });
        let mut command = guarded(line, Path::new("/"), semel);
        command.env_clear();
        if let Self::Unshare(_) = self {
            command.envs(variables.iter().copied());
        }
        command
    }
}

/// The variables are the command's alone: those of an artefact must not say to a program of the host what it loads.
fn bubblewrapped(
    program: &Path,
    shown: Shown<'_>,
    words: &[String],
    variables: &[(&str, &str)],
) -> Vec<OsString> {
    let mut line = bubblewrap::Line::of(program);
    line.words(&bubblewrap::APART);
    line.words(&["--unshare-net"]);
    for (name, value) in variables {
        line.words(&["--setenv", name, value]);
    }
    match shown {
        Shown::AsRoot { top, workdir } => {
            line.bind("--bind", top, Path::new("/"));
            line.words(&["--chdir", workdir]);
        }
        Shown::Beside { top, place } => {
            for dir in view::system() {
                line.system(&dir);
            }
            for path in view::etc(false) {
                line.bind("--ro-bind", &path, &path);
            }
            line.bind("--ro-bind", top, Path::new(place));
            line.words(&["--chdir", place]);
        }
    }
    line.words(&["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"]);
    line.0.extend(words.iter().map(OsString::from));
    line.0
}

const UNSHARED: [&str; 9] =
    ["--user", "--map-root-user", "--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child"];

fn unshared(program: &Path, shown: Shown<'_>, words: &[String]) -> Vec<OsString> {
    let (top, workdir) = match shown {
        Shown::AsRoot { top, workdir } => (top, workdir),
        Shown::Beside { top, place } => (top, place),
    };
    let mut root = OsString::from("--root=");
    root.push(top);
    let mut line = vec![program.as_os_str().to_owned()];
    line.extend(UNSHARED.map(OsString::from));
    line.extend([root, format!("--wd={workdir}").into(), "--".into()]);
    line.extend(words.iter().map(OsString::from));
    line
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

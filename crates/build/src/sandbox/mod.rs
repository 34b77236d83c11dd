//! Sandbox: what a project's own commands can reach while they run.
//!
//! ```text
//! preflight → Preflight::choose → Sandbox::command                                     ended by
//!  what this    the strongest       guard → bwrap → confine → /bin/sh → the command    its input being closed
//!  host offers  level that works    guard ────────→ confine → /bin/sh → the command
//! ```
//!
//! There are three levels. [`Level::Bubblewrap`] gives a command namespaces of its own: a file system with the system
//! and the toolchains read-only and the tree at a fixed path, no processes but its own, and in `run` no network.
//! [`Level::Landlock`] needs no namespaces: the kernel refuses paths outside a list, and a seccomp filter refuses
//! sockets and whatever reaches other processes. [`Level::None`] isolates nothing. Whatever the level, a command runs
//! below a `guard`, which ends everything that it started.
//!
//! A process can restrict itself, and never another one. So this program is its own helper: [`help`] is what a hidden
//! verb of the binary calls, first as the guard, then, inside, to restrict itself before it becomes the command.

mod preflight;
mod way_out;
mod view;
mod bubblewrap;
mod jail;
mod guard;
mod confine;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use confine::Confinement;
pub(crate) use jail::{Jail, Shown};
pub use preflight::{Missing, Preflight, Unavailable, preflight};
pub(crate) use preflight::{on_path, try_bubblewrap};
pub use view::HostEnvironment;
pub use way_out::WayOut;

/// How much of the host a command is kept from. Weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is kept from it.
    None,
    /// The kernel refuses files and system calls; processes and the network are the host's.
    Landlock,
    /// Namespaces of its own.
    Bubblewrap,
}

impl Level {
    /// The word in the provenance, in messages and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Landlock => "landlock",
            Self::Bubblewrap => "bubblewrap",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no sandbox: bubblewrap, landlock or none")]
pub struct UnknownLevel(String);

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        [Self::None, Self::Landlock, Self::Bubblewrap]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// The sandbox of a build: a level that this host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    kind: Kind,
    weaker_because: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    None,
    Landlock { abi: u32 },
    Bubblewrap { program: PathBuf },
}

/// What `run` and `fetch` may do beside building.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Whether the network can be reached.
    pub network: bool,
}

/// The directories of one build. All of them exist; commands may write to all of them but `etc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The clean tree; the commands' working directory.
    pub tree: PathBuf,
    /// Their `HOME`.
    pub home: PathBuf,
    /// Their temporary directory.
    pub tmp: PathBuf,
    /// Files that stand in for those of the host's `/etc`.
    pub etc: PathBuf,
}

/// Where a command finds its directories and the running program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The working directory.
    pub tree: PathBuf,
    /// `HOME`.
    pub home: PathBuf,
    /// `TMPDIR`.
    pub tmp: PathBuf,
    /// `SEMEL`.
    pub semel: PathBuf,
    /// The certificate authorities of the caller's way out, by their numbers; without it, they lie where the host has them.
    pub authorities: Option<PathBuf>,
}

impl Room {
    /// Makes the directories of a build below its work directory.
    pub fn below(work: &Path) -> io::Result<Self> {
        let room = Self {
            tree: work.join("tree"),
            home: work.join("home"),
            tmp: work.join("tmp"),
            etc: work.join("etc"),
        };
        for dir in [&room.tree, &room.home, &room.tmp, &room.etc] {
            std::fs::create_dir_all(dir)?;
        }
        bubblewrap::write_etc(&room.etc)?;
        Ok(room)
    }
}

impl Sandbox {
    /// Nothing is isolated; why nothing stronger is used.
    fn none(because: Vec<String>) -> Self {
        Self { kind: Kind::None, weaker_because: because }
    }

    /// Its level.
    pub fn level(&self) -> Level {
        match self.kind {
            Kind::None => Level::None,
            Kind::Landlock { .. } => Level::Landlock,
            Kind::Bubblewrap { .. } => Level::Bubblewrap,
        }
    }

    /// The version of the kernel's Landlock interface, where that is what isolates.
    pub fn landlock_abi(&self) -> Option<u32> {
        match self.kind {
            Kind::Landlock { abi } => Some(abi),
            Kind::None | Kind::Bubblewrap { .. } => None,
        }
    }

    /// Why it is not a stronger one; empty when there is none, or when a weaker one was asked for.
    pub fn weaker_because(&self) -> &[String] {
        &self.weaker_because
    }

    /// What a command could do all the same, in words that stay: they are in the provenance.
    pub fn not_enforced(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::None => vec!["anything"],
            Kind::Landlock { abi } => confine::not_enforced(abi),
            Kind::Bubblewrap { .. } => Vec::new(),
        }
    }

    /// Whether a command with this permit can reach the network.
    pub(crate) fn reaches_network(&self, permit: Permit) -> bool {
        permit.network || self.level() == Level::None
    }

    /// Whether a command can write to `/tmp`, its own or the host's.
    pub(crate) fn has_tmp(&self) -> bool {
        self.level() != Level::Landlock
    }

    /// Where a command finds its directories.
    pub fn inside(&self, room: &Room, semel: &Path) -> Inside {
        match self.kind {
            Kind::Bubblewrap { .. } => bubblewrap::inside(),
            Kind::None | Kind::Landlock { .. } => Inside {
                tree: room.tree.clone(),
                home: room.home.clone(),
                tmp: room.tmp.clone(),
                semel: semel.to_owned(),
                authorities: None,
            },
        }
    }

    /// A process that runs `words` in this sandbox, below a guard. When its standard input is closed, or it is at its
    /// end, everything that `words` started is ended; only then does it exit, with the code that `words` exited with,
    /// or 128 and the signal.
    pub fn command(
        &self,
        words: &[&str],
        permit: Permit,
        room: &Room,
        host: &HostEnvironment,
        semel: &Path,
    ) -> Command {
        let mut line = self.outside(permit, room, host, semel);
        line.extend(SHELL.map(OsString::from));
        line.extend(words.iter().map(OsString::from));
        guarded(line, &room.tree, semel)
    }

    /// The programs that come before the shell.
    fn outside(&self, permit: Permit, room: &Room, host: &HostEnvironment, semel: &Path) -> Vec<OsString> {
        match &self.kind {
            Kind::None => Vec::new(),
            Kind::Landlock { .. } => {
                let confinement = Confinement::with_landlock(permit, room, host, semel);
                Order::Confine(confinement).line(semel)
            }
            Kind::Bubblewrap { program } => {
                let mut line = bubblewrap::line(program, permit, room, host, semel);
                line.extend(
                    Order::Confine(Confinement::inside_namespaces()).line(&bubblewrap::inside().semel),
                );
                line
            }
        }
    }
}

/// A process that runs a line of words below a guard, which leaves nothing of it behind: when its standard input is
/// closed, or the line is at its end, what is left of it is ended.
pub(crate) fn guarded(line: Vec<OsString>, dir: &Path, semel: &Path) -> Command {
    let mut command = Command::new(semel);
    command.arg(VERB).arg(Order::Guard.to_json()).arg("--").args(line).current_dir(dir);
    command
}

/// A program cannot set the umask for a child without changing its own, and cannot know which files it was started with
/// itself: the shell does both. Nine is the highest that every shell can name, and higher than what runners hand on.
const SHELL: [&str; 4] =
    ["/bin/sh", "-c", "umask 022; exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec \"$@\"", "semel"];

/// The hidden verb by which this program calls itself.
pub const VERB: &str = "sandbox";

/// What the helper is told, as JSON in its first argument. Never a secret: arguments can be read by everybody.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Watch over a command.
    Guard,
    /// Give up rights, then become the command.
    Confine(Confinement),
}

impl Order {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("paths that are UTF-8 and numbers are JSON")
    }

    fn line(&self, semel: &Path) -> Vec<OsString> {
        [semel.as_os_str(), VERB.as_ref(), self.to_json().as_ref(), "--".as_ref()]
            .map(OsString::from)
            .to_vec()
    }
}

/// Does what the hidden verb is told, in a process of its own and before any other thread is there. Returns the exit
/// code.
pub fn help(order: &str, command: &[OsString]) -> io::Result<u8> {
    let order: Order = serde_json::from_str(order).map_err(io::Error::other)?;
    let [program, arguments @ ..] = command else {
        return Err(io::Error::other("there is no command"));
    };
    match order {
        Order::Guard => guard::watch(program, arguments),
        Order::Confine(confinement) => Err(confine::become_confined(&confinement, program, arguments)),
    }
}

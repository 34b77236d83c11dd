//! The `directory` target: a content store, generations that hold artefact *and* configuration, one symlink to switch,
//! and a supervisor per binding.
//!
//! ```text
//! root/
//!   target.json                   whose root this is, and its format
//!   lock                          flock: one converge at a time
//!   fence.json                    the newest generation ever switched on, and the one that is on
//!   store/sha256-<hex>/           an artefact, unpacked once, without write bits
//!   store/sha256-<hex>.tree       what was unpacked: written last, so an artefact without it was never complete
//!   config/<hex>/env              0400: the resolved values of one config snapshot, secrets included
//!   config/<hex>/searched-…       which of them an artefact was found to carry, without the values
//!   generations/<n>/              deployment.json, manifest.json, artefact -> store/…, config -> config/…, succeeded
//!   current -> generations/<n>    flips code and configuration in one rename
//!   run/                          the supervisor's lock, socket and what it knows about the process
//!   log/                          what the application and the supervisor print
//! ```
//!
//! Reading order: the layout (here), [`release`] (what an artefact asks to run), [`stage`] and [`switch`] (laying it
//! out), `taint` (what must not be in it), [`mod@supervise`] and [`control`] (running it), [`mod@observe`] (what runs), [`mod@converge`] (all of it, in order).

mod collect;
mod durable;
mod elf;
mod health;
mod journal;
mod launch;
mod process;
mod taint;
mod tree;
mod unpack;

pub mod control;
pub mod converge;
pub mod logs;
pub mod needs;
pub mod observe;
pub mod release;
pub mod stage;
pub mod supervise;
pub mod switch;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::name::{ComponentName, EnvironmentName};
use serde::{Deserialize, Serialize};

pub use control::{SpawnSupervisor, Status};
pub use converge::{Entered, Facts, Host, Order, Outcome, Progress, Refused, Values, converge, enter};
pub use durable::FileError;
pub use journal::{JournalLine, journal};
pub use observe::{Depth, observe};
pub use process::ProcessId;
pub use release::{InvalidRelease, ReleaseSpec};
pub use stage::BlobSource;
pub use supervise::{Supervise, SuperviseError, Timing, supervise};
pub use switch::{Deployed, Past, generations};
pub use taint::{Sought, WhenFound};
pub use unpack::{UnpackError, unpack_file};

/// Where the time comes from.
pub type Clock = fn() -> Timestamp;

/// The format of a root that this program writes.
const FORMAT: u32 = 1;

/// The place of a deployment in the order of its binding: the ledger's generation, then the steps taken at the target
/// while the ledger could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The generation that the ledger gave.
    pub ledger: u64,
    /// The local step after it; 0 for what the ledger ordered.
    pub step: u32,
}

impl Generation {
    /// A generation that the ledger gave.
    pub const fn of(ledger: u64) -> Self {
        Self { ledger, step: 0 }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            0 => write!(f, "{}", self.ledger),
            step => write!(f, "{}.{step}", self.ledger),
        }
    }
}

/// Why a text is no generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a generation (a number, or a number, a dot and a local step)")]
pub struct InvalidGeneration(String);

impl FromStr for Generation {
    type Err = InvalidGeneration;

    fn from_str(text: &str) -> Result<Self, InvalidGeneration> {
        let invalid = || InvalidGeneration(text.chars().take(80).collect());
        let (ledger, step) = text.split_once('.').unwrap_or((text, "0"));
        let this = Self {
            ledger: ledger.parse().map_err(|_| invalid())?,
            step: step.parse().map_err(|_| invalid())?,
        };
        if this.to_string() == text { Ok(this) } else { Err(invalid()) }
    }
}

/// Why a directory cannot be used as the root of a binding.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A newer program wrote it.
    #[error("{root} has format {found}, newer than this program knows ({FORMAT}): use the newer semel there")]
    Newer {
        /// The directory.
        root: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Something else is deployed there.
    #[error(
        "{root} belongs to {component} in {environment}: give each component and environment a target path of its own"
    )]
    OtherBinding {
        /// The directory.
        root: PathBuf,
        /// Whose component it holds.
        component: ComponentName,
        /// Of which environment.
        environment: EnvironmentName,
    },
    /// There are files, but none of ours says what they are.
    #[error("{root} is not empty and holds no target.json: choose an empty directory for the target")]
    Foreign {
        /// The directory.
        root: PathBuf,
    },
    /// Nothing was ever deployed there.
    #[error("nothing was ever deployed to {root}")]
    Absent {
        /// The directory.
        root: PathBuf,
    },
    /// A file of ours is unreadable.
    #[error(transparent)]
    File(#[from] FileError),
}

/// `target.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TargetFile {
    /// Format number.
    v: u32,
    environment: EnvironmentName,
    component: ComponentName,
}

/// The paths of one binding's root.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Canonical, so that it compares with what `/proc` says.
    root: PathBuf,
}

impl Layout {
    /// Opens a root to deploy to, making it if it is not there. Its directories and whose it is, are settled by
    /// [`make_directories`](Self::make_directories) and [`claim`](Self::claim), under the lock: what is written without it,
    /// the one who holds it would sweep away.
    fn create(root: &Path) -> Result<Self, RootError> {
        durable::create_dirs(root, 0o755)?;
        if Self::find(root)?.is_none() {
            let foreign = refuse_foreign(root);
            // Somebody else may have claimed it since.
            if foreign.is_err() && Self::find(root)?.is_none() {
                foreign?;
            }
        }
        Ok(Self { root: canonical_root(root)? })
    }

    /// Makes the root this binding's, unless it is another's.
    fn claim(&self, environment: &EnvironmentName, component: &ComponentName) -> Result<(), RootError> {
        match Self::find(&self.root)? {
            None => {
                let (v, environment, component) = (FORMAT, environment.clone(), component.clone());
                let target = TargetFile { v, environment, component };
                Ok(durable::write(&self.target_file(), &canonical::bytes(&target), 0o644)?)
            }
            Some((_, target)) if target.environment == *environment && target.component == *component => {
                Ok(())
            }
            Some((_, target)) => Err(RootError::OtherBinding {
                root: self.root.clone(),
                component: target.component,
                environment: target.environment,
            }),
        }
    }

    /// Opens a root where something was deployed.
    fn open(root: &Path) -> Result<Self, RootError> {
        match Self::find(root)? {
            Some((layout, _)) => Ok(layout),
            None => Err(RootError::Absent { root: root.to_owned() }),
        }
    }

    /// Looks for a root; none: nothing was ever deployed there.
    fn find(root: &Path) -> Result<Option<(Self, TargetFile)>, RootError> {
        let path = root.join("target.json");
        let Some(bytes) = durable::read_if_there(&path)? else { return Ok(None) };
        /// Only what every format has.
        #[derive(Deserialize)]
        struct AnyFormat {
            v: u32,
        }
        let AnyFormat { v } = durable::parse(&path, &bytes)?;
        if v > FORMAT {
            return Err(RootError::Newer { root: root.to_owned(), found: v });
        }
        let target = durable::parse(&path, &bytes)?;
        Ok(Some((Self { root: canonical_root(root)? }, target)))
    }

    fn make_directories(&self) -> Result<(), FileError> {
        for (path, mode) in [
            (self.store_dir(), 0o755),
            (self.root.join("generations"), 0o755),
            (self.root.join("config"), 0o700),
            (self.run(), 0o700),
            (self.home(), 0o700),
            (self.root.join("log"), 0o700),
        ] {
            durable::create_dirs(&path, mode)?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn target_file(&self) -> PathBuf {
        self.root.join("target.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }

    fn fence_file(&self) -> PathBuf {
        self.root.join("fence.json")
    }

    fn store_dir(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where an artefact is unpacked.
    fn store(&self, artefact: &Digest) -> PathBuf {
        self.store_dir().join(store_name(artefact))
    }

    /// The record of what was unpacked.
    fn tree_file(&self, artefact: &Digest) -> PathBuf {
        self.store_dir().join(format!("{}.tree", store_name(artefact)))
    }

    fn config_dir(&self, config: &Digest) -> PathBuf {
        self.root.join("config").join(config.hex())
    }

    fn generations_dir(&self) -> PathBuf {
        self.root.join("generations")
    }

    fn generation(&self, generation: Generation) -> PathBuf {
        self.generations_dir().join(generation.to_string())
    }

    fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    fn home(&self) -> PathBuf {
        self.run().join("home")
    }

    fn app_log(&self) -> PathBuf {
        self.root.join("log").join("app.log")
    }

    fn supervisor_log(&self) -> PathBuf {
        self.root.join("log").join("supervisor.log")
    }

    /// The generation that `current` points to.
    fn current_generation(&self) -> Option<Generation> {
        let link = fs::read_link(self.current()).ok()?;
        link.strip_prefix("generations").ok()?.to_str()?.parse().ok()
    }

    /// The artefact whose unpacked tree a path lies in.
    fn artefact_of(&self, path: &Path) -> Option<Digest> {
        let inside = path.strip_prefix(self.store_dir()).ok()?;
        let name = inside.components().next()?.as_os_str().to_str()?;
        name.replacen('-', ":", 1).parse().ok()
    }
}

/// `sha256-9f86…`: a digest as a file name.
fn store_name(artefact: &Digest) -> String {
    artefact.as_str().replacen(':', "-", 1)
}

fn canonical_root(root: &Path) -> Result<PathBuf, FileError> {
    fs::canonicalize(root).map_err(|source| FileError::new("resolve", root, source))
}

/// A directory with other people's files is never taken over. What a crash left before `target.json` is ours.
fn refuse_foreign(root: &Path) -> Result<(), RootError> {
    const OURS: [&str; 6] = ["store", "generations", "config", "run", "log", "lock"];
    let list = || -> io::Result<bool> {
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if !OURS.contains(&name.as_ref()) && !durable::is_temporary(&name) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match list() {
        Ok(true) => Err(RootError::Foreign { root: root.to_owned() }),
        Ok(false) => Ok(()),
        Err(source) => Err(FileError::new("list", root, source).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(root: &Path, environment: &str) -> Result<Layout, RootError> {
        let layout = Layout::create(root)?;
        layout.claim(&environment.parse().unwrap(), &"shop/api".parse().unwrap())?;
        Ok(layout)
    }

    #[test]
    fn a_root_belongs_to_one_binding() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), "dev").unwrap();
        create(dir.path(), "dev").unwrap();
        let error = create(dir.path(), "production").unwrap_err().to_string();
        assert!(error.contains("belongs to shop/api in dev"), "{error}");
    }

    #[test]
    fn a_root_of_a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("target.json"), r#"{"v":2,"shape":"unknown"}"#).unwrap();
        let error = create(dir.path(), "dev").unwrap_err().to_string();
        assert!(error.contains("has format 2"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_with_other_files_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        assert!(matches!(create(dir.path(), "dev"), Err(RootError::Foreign { .. })));
    }

    #[test]
    fn generations_are_ordered_and_have_one_spelling() {
        let parse = |text: &str| text.parse::<Generation>();
        assert!(parse("7.1").unwrap() > parse("7").unwrap());
        assert!(parse("10").unwrap() > parse("9.3").unwrap());
        for bad in ["", "07", "7.0", "7.x", "-1", "a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

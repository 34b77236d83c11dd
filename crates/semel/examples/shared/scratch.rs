//! The temporary directory with everything that is measured, and the commands that run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// One directory, removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Scratch {
    pub(crate) fn new(program: PathBuf) -> Result<Self, Error> {
        let dir = tempfile::Builder::new().prefix("semel-bench-").tempdir()?;
        std::fs::create_dir(dir.path().join("project"))?;
        Ok(Self { dir, program })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The keys of all stores here.
    pub(crate) fn keys(&self) -> PathBuf {
        self.path("config/semel/keys")
    }

    /// A command of Semel in the directory of the project.
    pub(crate) fn semel<S: AsRef<str>>(&self, words: &[S]) -> Command {
        self.command(&self.program, words)
    }

    /// Any command there, with nothing of the caller's environment but the `PATH`.
    pub(crate) fn command<S: AsRef<str>>(&self, program: &Path, words: &[S]) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "a benchmark has no settings: it looks for git where its caller does"
        )]
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut command = Command::new(program);
        command
            .args(words.iter().map(AsRef::as_ref))
            .current_dir(self.path("project"))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("USER", "bench")
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null());
        command
    }
}

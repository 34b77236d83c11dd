//! What the environment says, read once: variables, directories, the user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::credentials;

/// Everything that comes from outside the command line.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    program: PathBuf,
}

impl Settings {
    /// Reads the environment of the process.
    pub(crate) fn read() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            variables,
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("semel")),
        }
    }

    /// One variable; an empty one counts as not set.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The same, as if some variables were not set.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.variables.retain(|name, _| !names.contains(&name.as_str()));
        self
    }

    /// All variables.
    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Where the command was given.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The same, somewhere else.
    pub(crate) fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = self.directory.join(directory);
        self
    }

    /// The running program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Whether this is a CI runner, which is gone when its job is done.
    pub(crate) fn is_ci(&self) -> bool {
        self.variable("CI").is_some_and(|value| value != "false" && value != "0")
    }

    /// The user's name: a claim.
    pub(crate) fn user(&self) -> String {
        let named = self
            .variable("SEMEL_ACTOR")
            .or_else(|| self.variable("USER"))
            .or_else(|| self.variable("LOGNAME"));
        named.map_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()), str::to_owned)
    }

    fn home(&self) -> PathBuf {
        self.variable("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
    }

    fn xdg(&self, variable: &str, below_home: &str) -> PathBuf {
        let named = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.unwrap_or_else(|| self.home().join(below_home))
    }

    /// The user's own store.
    pub(crate) fn own_store(&self) -> PathBuf {
        self.xdg("XDG_DATA_HOME", ".local/share").join("semel")
    }

    /// Where releases of directory targets run that name no path.
    pub(crate) fn releases(&self) -> PathBuf {
        self.xdg("XDG_STATE_HOME", ".local/state").join("semel/run")
    }

    /// Where builds work.
    pub(crate) fn work(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache").join("semel/build")
    }

    /// What builds leave for later ones.
    pub(crate) fn caches(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache").join("semel/caches")
    }

    /// What was fetched of base images.
    pub(crate) fn bases(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache").join("semel/bases")
    }

    /// Where other programs keep who one is at registries.
    pub(crate) fn registry_logins(&self) -> Vec<PathBuf> {
        credentials::files(|name| self.variable(name).map(PathBuf::from), &self.home())
    }

    /// The keys of all stores.
    pub(crate) fn keys(&self) -> PathBuf {
        self.xdg("XDG_CONFIG_HOME", ".config").join("semel/keys")
    }

    /// The secrets of all environments.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.xdg("XDG_CONFIG_HOME", ".config").join("semel/secrets")
    }

    /// The `PATH`, as a text.
    pub(crate) fn path(&self) -> String {
        self.variable("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin").to_owned()
    }
}

//! View: what of the host a command may read. The system, and the toolchains that the caller uses; nothing else of his.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::WayOut;

/// What a build takes from the host: where programs and toolchains are, and how the network is reached. Anything else is
/// cleared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostEnvironment {
    /// The variables that are handed on.
    pub variables: BTreeMap<String, String>,
    /// Directories outside the system that commands may read, as the host names them.
    pub toolchains: Vec<PathBuf>,
    /// What commands see in addition that may use the network.
    pub way_out: WayOut,
}

/// Toolchains that a variable names, and where they lie below `HOME` unless it does.
///
/// `CARGO_HOME` is not one of them: it holds the caller's tokens beside the programs, and it is written to by every
/// build. A build has one of its own below its own `HOME`, and finds the programs on the `PATH`.
const TOOLCHAINS: [(&str, Option<&str>); 5] = [
    ("GOROOT", None),
    ("JAVA_HOME", None),
    ("NVM_DIR", Some(".nvm")),
    ("PYENV_ROOT", Some(".pyenv")),
    ("RUSTUP_HOME", Some(".rustup")),
];

/// Where a system keeps its programs and libraries.
const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"];

/// What of `/etc` programs need to work at all. The rest is about this host, and some of it is secret.
const ETC: [&str; 21] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "perl",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// Names in `/etc` that carry a version.
const ETC_BEGINS_WITH: [&str; 3] = ["java-", "python2", "python3"];

/// What is asked before a name of the network is known.
const ETC_NETWORK: [&str; 3] = ["gai.conf", "hosts", "resolv.conf"];

impl HostEnvironment {
    /// Picks from the caller's variables, and resolves what would follow from `HOME` before `HOME` changes.
    pub fn of(variables: &BTreeMap<String, String>) -> Self {
        let home = variables.get("HOME").map(PathBuf::from);
        let mut host = Self { way_out: WayOut::of(variables), ..Self::default() };
        for (name, below_home) in TOOLCHAINS {
            let usual = || {
                let dir = home.as_ref()?.join(below_home?);
                dir.is_dir().then(|| dir.to_string_lossy().into_owned())
            };
            if let Some(value) = variables.get(name).cloned().or_else(usual) {
                host.toolchains.push(PathBuf::from(&value));
                host.variables.insert(name.to_owned(), value);
            }
        }
        if let Some(path) = variables.get("PATH") {
            host.toolchains.extend(path.split(':').map(PathBuf::from).flat_map(with_libraries));
            host.variables.insert("PATH".to_owned(), path.clone());
        }
        host.toolchains.retain(|dir| is_toolchain(dir, home.as_deref()));
        host.toolchains.sort();
        host.toolchains.dedup();
        host
    }

    /// Everything of the host that can be read and run, apart from devices and what the kernel tells.
    pub(super) fn readable(&self, network: bool) -> Vec<PathBuf> {
        let mut paths = system();
        paths.extend(etc(network));
        paths.extend(self.toolchains.clone());
        paths
    }
}

/// Programs in `…/bin` often are links to, or load, what lies in `…/lib`.
fn with_libraries(dir: PathBuf) -> Vec<PathBuf> {
    let beside = dir.parent().filter(|_| dir.ends_with("bin")).map(|parent| parent.join("lib"));
    std::iter::once(dir).chain(beside).collect()
}

/// A directory that exists, is not the system's anyway, and does not contain the caller's home.
fn is_toolchain(dir: &Path, home: Option<&Path>) -> bool {
    let Ok(real) = dir.canonicalize() else { return false };
    let home = home.and_then(|home| home.canonicalize().ok());
    dir.is_absolute()
        && real.is_dir()
        && real.parent().is_some()
        && !SYSTEM.iter().any(|system| real.starts_with(system))
        && !home.is_some_and(|home| home.starts_with(&real))
}

/// The system's directories that there are here, links among them.
pub(super) fn system() -> Vec<PathBuf> {
    SYSTEM.iter().map(PathBuf::from).filter(|dir| dir.symlink_metadata().is_ok()).collect()
}

/// The files and directories of `/etc` that there are here.
pub(super) fn etc(network: bool) -> Vec<PathBuf> {
    let etc = Path::new("/etc");
    let versioned = std::fs::read_dir(etc).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let versioned = versioned
        .filter_map(|name| name.into_string().ok())
        .filter(|name| ETC_BEGINS_WITH.iter().any(|begin| name.starts_with(begin)));
    let mut names: Vec<String> = ETC.iter().map(ToString::to_string).chain(versioned).collect();
    if network {
        names.extend(ETC_NETWORK.map(str::to_owned));
    }
    names.sort();
    names.into_iter().map(|name| etc.join(name)).filter(|path| path.exists()).collect()
}

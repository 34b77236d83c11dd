//! Python: installed distributions, and lock files.
//!
//! Sources: "Core metadata specifications" and "Recording installed projects" of the Python Packaging User Guide; PEP 751
//! (`pylock.toml`); the lock files of uv, Poetry, PDM and Pipenv.

use serde::Deserialize;
use serde_json::Value;

use super::package::{Ecosystem, Package};

/// Whether a path is the metadata of an installed distribution.
pub(super) fn is_installed(path: &[u8]) -> bool {
    path.ends_with(b".dist-info/METADATA")
        || path.ends_with(b".egg-info/PKG-INFO")
        || path.ends_with(b".egg-info")
}

/// Reads the headers of a `METADATA` or `PKG-INFO`; a description may follow and be cut off.
pub(super) fn installed(bytes: &[u8]) -> Option<Package> {
    let text = String::from_utf8_lossy(bytes);
    let header = |wanted: &str| {
        let mut headers =
            text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let package = Package::new(Ecosystem::Pypi, header("Name")?, Some(header("Version")?))?;
    Some(package.licensed(header("License-Expression").or_else(|| header("License"))))
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default, alias = "packages")]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: Option<String>,
}

/// Reads `uv.lock`, `poetry.lock`, `pdm.lock` or `pylock.toml`.
pub(super) fn locked(bytes: &[u8]) -> Option<Vec<Package>> {
    let lock: Lock = toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let package = |one: Locked| Package::new(Ecosystem::Pypi, &one.name, Some(&one.version?));
    Some(lock.package.into_iter().filter_map(package).collect())
}

/// Reads `Pipfile.lock`.
pub(super) fn pipenv(bytes: &[u8]) -> Option<Vec<Package>> {
    let lock: Value = serde_json::from_slice(bytes).ok()?;
    let mut found = Vec::new();
    for (group, is_for_development) in [("default", false), ("develop", true)] {
        for (name, entry) in lock[group].as_object().into_iter().flatten() {
            let version = entry["version"].as_str().and_then(|version| version.strip_prefix("=="));
            let package = version.and_then(|version| Package::new(Ecosystem::Pypi, name, Some(version)));
            found.extend(package.map(|package| Package { is_for_development, ..package }));
        }
    }
    Some(found)
}

/// Reads the lines of `requirements.txt` that are pinned to one version.
pub(super) fn requirements(bytes: &[u8]) -> Vec<Package> {
    let text = String::from_utf8_lossy(bytes);
    let pinned = |line: &str| {
        let line = line.split([';', '#', '\\']).next()?;
        let line = line.split(" --hash").next()?;
        let (name, version) = line.split_once("==")?;
        let name = name.split('[').next()?.trim();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let version = version.trim_start_matches('=').trim();
        let is_exact = !version.contains(['*', ',', ' ']);
        Package::new(Ecosystem::Pypi, name, Some(version)).filter(|_| is_name && is_exact)
    };
    text.lines().filter_map(pinned).collect()
}

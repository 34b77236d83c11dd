//! Node: whether packages have the packages that they depend on, where `require` and `import` look for them.
//!
//! Sources: Node.js, "Modules: CommonJS modules", "Loading from node_modules folders"; npm, "package.json",
//! "package-lock.json".

use std::collections::BTreeMap;

use serde::Deserialize;

use super::report::{Finding, Rule, Severity};
use super::{Check, ClosureError, ignore_hint, metadata, shown};
use crate::rootfs::Node;

/// What of a package.json matters here. Whatever has another shape is taken as absent: Node does the same.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Package {
    dependencies: BTreeMap<String, serde_json::Value>,
    optional_dependencies: BTreeMap<String, serde_json::Value>,
    peer_dependencies: BTreeMap<String, serde_json::Value>,
    peer_dependencies_meta: BTreeMap<String, PeerMeta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PeerMeta {
    optional: bool,
}

/// npm's own list of what it installed (`node_modules/.package-lock.json`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lock {
    packages: BTreeMap<String, Locked>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Locked {
    optional: bool,
    dev: bool,
    dev_optional: bool,
    peer: bool,
    extraneous: bool,
}

/// Checks every package of the artefact.
pub(super) fn check(check: &mut Check<'_>) -> Result<(), ClosureError> {
    for (path, node) in check.rootfs().files() {
        if let Some(dir) = path.strip_suffix(b"package.json").filter(|dir| is_package(dir)) {
            let package: Package = serde_json::from_str(&metadata(path, node)?).unwrap_or_default();
            check_package(check, path, node, dir, &package);
        } else if path.ends_with(b"node_modules/.package-lock.json") {
            let lock: Lock = serde_json::from_str(&metadata(path, node)?).unwrap_or_default();
            check_lock(check, path, node, &lock);
        }
    }
    Ok(())
}

/// Whether a directory, with a slash behind, holds a package: not one that is deeper inside another.
fn is_package(dir: &[u8]) -> bool {
    let parts: Vec<&[u8]> = dir.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let Some(modules) = parts.iter().rposition(|part| *part == b"node_modules") else {
        return dir.is_empty() || dir.ends_with(b"/");
    };
    match &parts[modules + 1..] {
        [name] => !name.starts_with(b"@"),
        [scope, _] => scope.starts_with(b"@"),
        _ => false,
    }
}

fn check_package(check: &mut Check<'_>, path: &[u8], node: &Node, dir: &[u8], package: &Package) {
    let own = if node.is_of_base() { Severity::Warning } else { Severity::Error };
    // Without a directory of packages above it, everything may have been bundled into one file.
    let severity = if has_packages(check, dir) { own } else { Severity::Warning };
    for name in package.dependencies.keys().filter(|name| !package.optional_dependencies.contains_key(*name))
    {
        if !is_installed(check, dir, name) {
            missing(check, path, name, "depends on", severity);
        }
    }
    let is_optional =
        |name: &String| package.peer_dependencies_meta.get(name).is_some_and(|meta| meta.optional);
    for name in package.peer_dependencies.keys().filter(|name| !is_optional(name)) {
        if !is_installed(check, dir, name) {
            missing(check, path, name, "expects beside it", Severity::Warning);
        }
    }
}

fn missing(check: &mut Check<'_>, path: &[u8], name: &str, how: &str, severity: Severity) {
    check.find(Finding {
        severity,
        rule: Rule::NodePackage,
        path: shown(path),
        needs: Some(name.to_owned()),
        explanation: format!("{how} {name}, which is in no node_modules that it sees"),
        fix: format!(
            "install it (npm ci --omit=dev) and put node_modules into [artefact] files, or say why not: {}",
            ignore_hint(name)
        ),
        chain: Vec::new(),
    });
}

/// The directories in which a package in `dir` looks for others: `node_modules` beside it and above it.
fn looked_in(dir: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    let above = crate::collect::parents(dir).chain([dir]).map(<[u8]>::to_vec);
    let mut above: Vec<Vec<u8>> = above.chain([Vec::new()]).collect();
    above.sort();
    // Node does not look for `node_modules/node_modules`.
    above.retain(|dir| dir != b"node_modules" && !dir.ends_with(b"/node_modules"));
    above.into_iter().rev().map(|dir| [dir.as_slice(), b"/node_modules"].concat())
}

fn has_packages(check: &Check<'_>, dir: &[u8]) -> bool {
    looked_in(dir).any(|modules| check.rootfs().resolve(&modules).is_ok())
}

fn is_installed(check: &Check<'_>, dir: &[u8], name: &str) -> bool {
    looked_in(dir)
        .any(|modules| check.rootfs().resolve(&[&modules, b"/".as_slice(), name.as_bytes()].concat()).is_ok())
}

fn check_lock(check: &mut Check<'_>, path: &[u8], node: &Node, lock: &Lock) {
    let root = path.strip_suffix(b"node_modules/.package-lock.json").unwrap_or_default();
    let needed = |locked: &Locked| {
        !(locked.optional || locked.dev || locked.dev_optional || locked.peer || locked.extraneous)
    };
    for name in lock.packages.iter().filter(|(_, locked)| needed(locked)).map(|(name, _)| name) {
        if check.rootfs().resolve(&[root, name.as_bytes()].concat()).is_err() {
            let severity = if node.is_of_base() { Severity::Warning } else { Severity::Error };
            let name = name.rsplit_once("node_modules/").map_or(name.as_str(), |(_, name)| name);
            missing(check, path, name, "lists", severity);
        }
    }
}

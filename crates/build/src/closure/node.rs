//! Node: whether packages have the packages that they depend on, where `require` and `import` look for them.
//!
//! Sources: Node.js, "Modules: CommonJS modules", "Loading from node_modules folders"; npm, "package.json",
//! "package-lock.json".

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::report::{Finding, Rule, Severity};
use super::{Check, ClosureError, ignore_hint, metadata, shown};
use crate::rootfs::Node;

/// What of a package.json matters here. What has another shape is taken as absent, each for itself: npm does the same.
struct Package(Value);

impl Package {
    /// Node reads over a byte order mark. `None`: it is no JSON.
    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).ok().map(Self)
    }

    fn names(&self, table: &str) -> impl Iterator<Item = &String> {
        self.0.get(table).and_then(Value::as_object).into_iter().flat_map(|table| table.keys())
    }

    fn has(&self, table: &str, name: &str) -> bool {
        self.0.get(table).is_some_and(|table| table.get(name).is_some())
    }

    fn is_optional_peer(&self, name: &str) -> bool {
        let meta = self.0.get("peerDependenciesMeta").and_then(|meta| meta.get(name));
        meta.and_then(|meta| meta.get("optional")) == Some(&Value::Bool(true))
    }
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
            match Package::read(&metadata(path, node)?) {
                Some(package) => check_package(check, path, node, dir, &package),
                None => unreadable(check, path),
            }
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
    for name in package.names("dependencies").filter(|name| !package.has("optionalDependencies", name)) {
        if !is_installed(check, dir, name) {
            missing(check, path, name, "depends on", severity);
        }
    }
    for name in package.names("peerDependencies").filter(|name| !package.is_optional_peer(name)) {
        if !is_installed(check, dir, name) {
            missing(check, path, name, "expects beside it", Severity::Warning);
        }
    }
}

/// What it depends on is not known then, and Node refuses to load what lies below it.
fn unreadable(check: &mut Check<'_>, path: &[u8]) {
    check.find(Finding {
        severity: Severity::Warning,
        rule: Rule::NodePackage,
        path: shown(path),
        needs: None,
        explanation: "is no JSON, so what it depends on cannot be checked".to_owned(),
        fix: "install that package once more, or leave it out of [artefact] files".to_owned(),
        chain: Vec::new(),
    });
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

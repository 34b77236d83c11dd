//! Npm: installed packages, and lock files of the versions 1 to 3.
//!
//! Sources: npm documentation, `package.json` and `package-lock.json`.

use serde_json::{Map, Value};

use super::package::{Ecosystem, Package};

/// Lock files nest their packages; this deep at most, which is deeper than npm goes.
const DEPTH_MAX: usize = 64;

/// Whether a path is the `package.json` of an installed package, and not one that a package has inside.
pub(super) fn is_installed(path: &[u8]) -> bool {
    let Some(dir) = path.strip_suffix(b"/package.json") else { return false };
    let mut parts = dir.rsplit(|byte| *byte == b'/').skip(1);
    match parts.next() {
        Some(b"node_modules") => true,
        Some(scope) if scope.starts_with(b"@") => parts.next() == Some(b"node_modules"),
        _ => false,
    }
}

/// Reads the `package.json` of an installed package.
pub(super) fn installed(bytes: &[u8]) -> Option<Package> {
    let read: Value = serde_json::from_slice(bytes).ok()?;
    let package = Package::of_path(Ecosystem::Npm, read["name"].as_str()?, Some(read["version"].as_str()?))?;
    let licence = &read["license"];
    Some(package.licensed(licence.as_str().or_else(|| licence["type"].as_str())))
}

/// Reads `package-lock.json` or `npm-shrinkwrap.json`.
pub(super) fn locked(bytes: &[u8]) -> Option<Vec<Package>> {
    let read: Value = serde_json::from_slice(bytes).ok()?;
    let mut found = Vec::new();
    if let Some(packages) = read["packages"].as_object() {
        found.extend(packages.iter().filter_map(|(place, entry)| placed(place, entry)));
    } else {
        nested(read["dependencies"].as_object()?, 0, &mut found);
    }
    Some(found)
}

/// Versions 2 and 3 list packages by the place where they are laid out.
fn placed(place: &str, entry: &Value) -> Option<Package> {
    if entry["link"] == true {
        return None;
    }
    // Without `node_modules` in its place it is the project itself, or a part of it.
    let (_, name) = place.rsplit_once("node_modules/")?;
    let name = entry["name"].as_str().unwrap_or(name);
    let package = Package::of_path(Ecosystem::Npm, name, Some(entry["version"].as_str()?))?;
    let package = Package { is_for_development: entry["dev"] == true, ..package };
    Some(package.licensed(entry["license"].as_str()))
}

/// Version 1 lists packages below those that need them.
fn nested(dependencies: &Map<String, Value>, depth: usize, found: &mut Vec<Package>) {
    if depth > DEPTH_MAX {
        return;
    }
    for (name, entry) in dependencies {
        let package = entry["version"].as_str().and_then(|version| {
            let package = Package::of_path(Ecosystem::Npm, name, Some(version))?;
            Some(Package { is_for_development: entry["dev"] == true, ..package })
        });
        found.extend(package);
        if let Some(inner) = entry["dependencies"].as_object() {
            nested(inner, depth + 1, found);
        }
    }
}

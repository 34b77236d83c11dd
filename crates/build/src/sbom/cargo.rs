//! Cargo: what was compiled.
//!
//! Sources: the Cargo book, `Cargo.lock`; cargo-auditable, `PARSING.md` (the section `.dep-v0`).

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

use super::package::{Ecosystem, Package};

/// The section of a program that names what was compiled into it.
pub(super) const SECTION: &str = ".dep-v0";
/// No list is longer when it is unpacked, in bytes: the bound that `PARSING.md` recommends.
const LIST_BYTES_MAX: u64 = 8 << 20;

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
}

/// Reads `Cargo.lock`.
pub(super) fn locked(bytes: &[u8]) -> Option<Vec<Package>> {
    let lock: Lock = toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let package = |one: &Locked| Package::new(Ecosystem::Cargo, &one.name, Some(&one.version));
    Some(lock.package.iter().filter_map(package).collect())
}

#[derive(Deserialize)]
struct Compiled {
    packages: Vec<CompiledPackage>,
}

#[derive(Deserialize)]
struct CompiledPackage {
    name: String,
    version: String,
    #[serde(default)]
    kind: Option<String>,
}

/// Reads the section of a program.
pub(super) fn compiled(section: &[u8]) -> Option<Vec<Package>> {
    let mut list = Vec::new();
    ZlibDecoder::new(section).take(LIST_BYTES_MAX).read_to_end(&mut list).ok()?;
    let read: Compiled = serde_json::from_slice(&list).ok()?;
    let package = |one: &CompiledPackage| {
        let package = Package::new(Ecosystem::Cargo, &one.name, Some(&one.version))?;
        Some(Package { is_for_development: one.kind.as_deref() == Some("build"), ..package })
    };
    Some(read.packages.iter().filter_map(package).collect())
}

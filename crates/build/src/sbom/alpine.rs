//! Alpine: the database of apk.
//!
//! Source: apk-tools, `doc/apk-package.5.scd` and `src/package.c` (the fields of an installed package).

use super::debian::Distribution;
use super::package::{Ecosystem, Package};

/// Reads `lib/apk/db/installed`.
pub(super) fn packages(bytes: &[u8], distribution: &Distribution) -> Vec<Package> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut record = Record::default();
    for line in text.lines().chain([""]) {
        match line.split_once(':') {
            Some(("P", name)) => record.name = name,
            Some(("V", version)) => record.version = version,
            Some(("A", architecture)) => record.architecture = architecture,
            Some(("o", origin)) => record.origin = origin,
            Some(("L", licence)) => record.licence = licence,
            None if line.is_empty() => found.extend(std::mem::take(&mut record).package(distribution)),
            _ => {}
        }
    }
    found
}

#[derive(Default)]
struct Record<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    origin: &'a str,
    licence: &'a str,
}

impl Record<'_> {
    fn package(self, distribution: &Distribution) -> Option<Package> {
        if self.version.is_empty() {
            return None;
        }
        let owner = if distribution.id.is_empty() { "alpine" } else { &distribution.id };
        let package = Package::new(Ecosystem::Apk, self.name, Some(self.version))?.within(owner)?;
        let mut package = package.licensed(Some(self.licence));
        package.qualify("arch", self.architecture);
        if !distribution.id.is_empty() {
            package.qualify("distro", &distribution.qualifier());
        }
        if !self.origin.is_empty() && self.origin != self.name {
            package.qualify("upstream", self.origin);
        }
        Some(package)
    }
}

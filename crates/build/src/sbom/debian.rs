//! Debian: the database of dpkg, and the name of the distribution.
//!
//! Sources: dpkg, `deb-control(5)` and `dpkg-query(1)`; os-release(5).

use std::collections::BTreeMap;

use super::package::{Ecosystem, Package};

/// What a system calls itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Such as `debian`.
    pub(super) id: String,
    /// Such as `12`; rolling distributions have none.
    pub(super) version: Option<String>,
    /// For people.
    pub(super) title: Option<String>,
}

impl Distribution {
    /// `debian-12`
    pub(super) fn qualifier(&self) -> String {
        match &self.version {
            Some(version) => format!("{}-{version}", self.id),
            None => self.id.clone(),
        }
    }
}

/// Reads `os-release`.
pub(super) fn distribution(bytes: &[u8]) -> Option<Distribution> {
    let text = String::from_utf8_lossy(bytes);
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| (key, value.trim_matches(['"', '\''])))
        .collect();
    let field = |key: &str| {
        let value = fields.get(key).filter(|value| !value.is_empty() && value.len() <= 100)?;
        (!value.chars().any(char::is_control)).then(|| (*value).to_owned())
    };
    Some(Distribution { id: field("ID")?, version: field("VERSION_ID"), title: field("PRETTY_NAME") })
}

/// Reads the stanzas of `status` or of a file in `status.d`.
pub(super) fn packages(bytes: &[u8], distribution: &Distribution) -> Vec<Package> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut stanza = BTreeMap::new();
    // The last stanza need not end in an empty line.
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            found.extend(package(&stanza, distribution));
            stanza.clear();
        } else if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) {
            stanza.insert(key, value.trim());
        }
    }
    found
}

fn package(stanza: &BTreeMap<&str, &str>, distribution: &Distribution) -> Option<Package> {
    // A removed package keeps its stanza as long as it has configuration files.
    let is_installed = stanza.get("Status").is_none_or(|status| status.ends_with(" installed"));
    let (name, version) = (stanza.get("Package")?, stanza.get("Version")?);
    let mut package = Package::new(Ecosystem::Deb, name, Some(version)).filter(|_| is_installed)?;
    let owner = if distribution.id.is_empty() { "debian" } else { &distribution.id };
    package = package.within(owner)?;
    if let Some(architecture) = stanza.get("Architecture") {
        package.qualify("arch", architecture);
    }
    if !distribution.id.is_empty() {
        package.qualify("distro", &distribution.qualifier());
    }
    if let Some(source) = stanza.get("Source") {
        package.qualify("upstream", &upstream(source));
    }
    Some(package)
}

/// `glibc (2.36-9)` is `glibc@2.36-9`: advisories speak of source packages.
fn upstream(source: &str) -> String {
    match source.split_once(" (") {
        Some((name, version)) => format!("{name}@{}", version.trim_end_matches(')')),
        None => source.to_owned(),
    }
}

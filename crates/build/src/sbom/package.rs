//! Package: one piece of somebody's software, and its package URL.
//!
//! Source: package-url specification, `PURL-SPECIFICATION.rst` and `PURL-TYPES.rst`.

use std::fmt::Write as _;

/// Names and versions are not longer than this, in bytes; what is longer was not written by a package manager.
const TEXT_BYTES_MAX: usize = 512;
/// So much is kept of what a package says about its licence, in characters.
const LICENCE_CHARS_MAX: usize = 200;

/// Who publishes packages of a kind, and how its names are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ecosystem {
    Apk,
    Cargo,
    Deb,
    Generic,
    Golang,
    Maven,
    Npm,
    Pypi,
}

impl Ecosystem {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apk => "apk",
            Self::Cargo => "cargo",
            Self::Deb => "deb",
            Self::Generic => "generic",
            Self::Golang => "golang",
            Self::Maven => "maven",
            Self::Npm => "npm",
            Self::Pypi => "pypi",
        }
    }

    /// A name as package URLs of this type write it.
    fn spelled(self, name: &str) -> String {
        match self {
            Self::Apk | Self::Deb | Self::Golang | Self::Npm => name.to_lowercase(),
            // As its index writes it (PEP 503), which is how advisories name it.
            Self::Pypi => {
                let parts: Vec<&str> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
                parts.join("-").to_lowercase()
            }
            Self::Cargo | Self::Generic | Self::Maven => name.to_owned(),
        }
    }
}

/// A package, as a reader found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) ecosystem: Ecosystem,
    /// Whose it is: a distribution, a scope, a group; may have several parts, with slashes between.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) version: Option<String>,
    /// What else tells it apart, in the order of the keys.
    pub(super) qualifiers: Vec<(&'static str, String)>,
    pub(super) licence: Option<String>,
    /// Whether it serves to build or to test, and does not run.
    pub(super) is_for_development: bool,
}

impl Package {
    pub(super) fn new(ecosystem: Ecosystem, name: &str, version: Option<&str>) -> Option<Self> {
        let (name, version) = (name.trim(), version.map(str::trim).filter(|version| !version.is_empty()));
        (is_text(name) && version.is_none_or(is_text)).then(|| Self {
            ecosystem,
            namespace: None,
            name: name.to_owned(),
            version: version.map(str::to_owned),
            qualifiers: Vec::new(),
            licence: None,
            is_for_development: false,
        })
    }

    /// A name of which the part before the last slash is the namespace: `@angular/core`, `github.com/go-chi/chi`.
    pub(super) fn of_path(ecosystem: Ecosystem, path: &str, version: Option<&str>) -> Option<Self> {
        match path.rsplit_once('/') {
            Some((namespace, name)) => Self::new(ecosystem, name, version)?.within(namespace),
            None => Self::new(ecosystem, path, version),
        }
    }

    pub(super) fn within(self, namespace: &str) -> Option<Self> {
        is_text(namespace).then(|| Self { namespace: Some(namespace.to_owned()), ..self })
    }

    /// Tells it apart further. What no package manager writes is left out.
    pub(super) fn qualify(&mut self, key: &'static str, value: &str) {
        if is_text(value) {
            self.qualifiers.push((key, value.to_owned()));
        }
    }

    pub(super) fn licensed(self, licence: Option<&str>) -> Self {
        let licence = licence.map(str::trim).filter(|licence| !licence.is_empty());
        let short = |licence: &str| {
            licence.lines().next()?.chars().take(LICENCE_CHARS_MAX).collect::<String>().into()
        };
        Self { licence: licence.and_then(short), ..self }
    }

    /// `pkg:npm/%40angular/core@17.0.1`
    pub(super) fn purl(&self) -> String {
        let mut purl = format!("pkg:{}", self.ecosystem.as_str());
        let namespace = self.namespace.iter().flat_map(|namespace| namespace.split('/'));
        for part in namespace.filter(|part| !part.is_empty()) {
            purl.push('/');
            let part = match self.ecosystem {
                Ecosystem::Maven => part.to_owned(),
                other => other.spelled(part),
            };
            encode(&part, &mut purl);
        }
        purl.push('/');
        encode(&self.ecosystem.spelled(&self.name), &mut purl);
        if let Some(version) = &self.version {
            purl.push('@');
            encode(version, &mut purl);
        }
        let mut between = '?';
        for (key, value) in &self.qualifiers {
            purl.push(between);
            purl.push_str(key);
            purl.push('=');
            encode(value, &mut purl);
            between = '&';
        }
        purl
    }
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Percent-encodes everything but letters, digits, `.-_~` and the colon.
fn encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            to.push(char::from(byte));
        } else {
            write!(to, "%{byte:02X}").expect("a string takes every text");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_spelled_as_their_type_asks_for() {
        let cases = [
            (Package::new(Ecosystem::Cargo, "serde", Some("1.0.228")), "pkg:cargo/serde@1.0.228"),
            (
                Package::of_path(Ecosystem::Npm, "@angular/core", Some("17.0.1")),
                "pkg:npm/%40angular/core@17.0.1",
            ),
            (Package::new(Ecosystem::Pypi, "Typing_Extensions", Some("4")), "pkg:pypi/typing-extensions@4"),
            (Package::new(Ecosystem::Pypi, "lazr.restfulclient", Some("1")), "pkg:pypi/lazr-restfulclient@1"),
            (
                Package::of_path(Ecosystem::Golang, "github.com/BurntSushi/toml", Some("v1.3.2")),
                "pkg:golang/github.com/burntsushi/toml@v1.3.2",
            ),
            (
                Package::new(Ecosystem::Deb, "libc6", Some("1:2.36-9+deb12u4")),
                "pkg:deb/libc6@1:2.36-9%2Bdeb12u4",
            ),
            (Package::new(Ecosystem::Generic, "a b", None), "pkg:generic/a%20b"),
        ];
        for (package, purl) in cases {
            assert_eq!(package.unwrap().purl(), purl);
        }
    }

    #[test]
    fn what_no_package_manager_writes_is_no_package() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        for name in ["", " ", "a\nb", &long] {
            assert_eq!(Package::new(Ecosystem::Npm, name, Some("1")), None, "{name:?}");
        }
    }
}

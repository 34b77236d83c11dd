//! Glibc: versions of the GNU C library, and which systems have which.

use std::fmt;

use semel_model::runtime::Runtime;

/// A version, such as 2.34.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl Version {
    /// The version that a runtime has.
    pub(super) fn of_runtime(runtime: &Runtime) -> Self {
        let (major, minor) = runtime.system.glibc();
        Self(major, minor)
    }

    /// The version in the name of a symbol version: `GLIBC_2.2.5` → 2.2. Others, such as `GLIBC_PRIVATE`, have none.
    pub(super) fn of_symbol(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix("GLIBC_")?.split('.');
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The C library of systems that artefacts commonly run on, by the age of the library (the systems' own package lists).
const SYSTEMS: [(&str, Version); 11] = [
    ("Amazon Linux 2", Version(2, 26)),
    ("RHEL 8", Version(2, 28)),
    ("Debian 11", Version(2, 31)),
    ("Ubuntu 20.04", Version(2, 31)),
    ("Amazon Linux 2023", Version(2, 34)),
    ("RHEL 9", Version(2, 34)),
    ("Ubuntu 22.04", Version(2, 35)),
    ("Debian 12", Version(2, 36)),
    ("Ubuntu 24.04", Version(2, 39)),
    ("RHEL 10", Version(2, 39)),
    ("Debian 13", Version(2, 41)),
];

/// The systems of the list that have a version: `Debian 12 and Ubuntu 24.04`, at most three.
pub(super) fn systems_with(version: Version) -> String {
    let names: Vec<&str> =
        SYSTEMS.iter().filter(|(_, has)| *has >= version).map(|(name, _)| *name).take(3).collect();
    names.join(", ")
}

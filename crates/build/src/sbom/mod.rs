//! Sbom: which packages an artefact is made of.
//!
//! ```text
//! inside the artefact   dpkg, apk, npm, Python distributions, jars, programs of Go and of cargo-auditable
//! in the source tree    lock files: what may be compiled in or bundled, and cannot be seen from outside any more
//! ```
//!
//! One reader per kind of file, each a function of bytes: whatever the bytes say, it ends, with packages or without.
//! What was seen in the artefact, in its base and in a lock file alone is told apart. The same artefact has the same
//! description, byte for byte.

mod alpine;
mod bom;
mod cargo;
mod debian;
mod go;
mod java;
mod npm;
mod package;
mod python;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use semel_model::build::TreeEntry;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::pipeline::EvidenceResult;
use semel_model::project::Kind;
use semel_model::statement::{Claim, SBOM};
use serde_json::Value;

use crate::closure::elf::{self, ElfError};
use crate::rootfs::{self, Node, Rootfs, shown};
use debian::Distribution;
use package::Package;

/// More packages are not listed; the list says then that it is not complete. No system has so many, and a signed
/// statement of so many still fits into one answer.
pub const PACKAGES_MAX: usize = 20_000;
/// So many places are named of one package.
const PLACES_MAX: usize = 20;

/// Databases of packages, and lock files, are not longer, in bytes.
const DATABASE_BYTES_MAX: u64 = 64 << 20;
/// A `package.json` is not longer, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// The headers of a Python distribution stand in front of its description, within so many bytes.
const HEADERS_BYTES: u64 = 64 << 10;
/// A section that names packages is not longer, in bytes.
const SECTION_BYTES_MAX: u64 = 8 << 20;

/// What is described.
#[derive(Debug, Clone, Copy)]
pub struct SbomRequest<'a> {
    /// The finished artefact.
    pub rootfs: &'a Rootfs,
    /// Whether what lies below the artefact's own files is a base; else another builder wrote all of it.
    pub has_base: bool,
    /// The source tree, as the project's commands left it.
    pub tree: &'a Path,
    /// The files of the commit, of which the lock files are read.
    pub entries: &'a [TreeEntry],
    /// Whose artefact it is.
    pub component: &'a ComponentName,
    /// What kind of artefact.
    pub kind: Kind,
    /// Its manifest: what the description is about.
    pub subject: &'a Digest,
    /// The time of its commit, in seconds since 1970 UTC.
    pub committed_seconds: i64,
    /// The version of the describing program.
    pub semel: &'a str,
}

/// The packages of an artefact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// A CycloneDX 1.6 document.
    pub document: Value,
    /// How many packages it names.
    pub packages: usize,
    /// What could name packages and was not understood, or was left out.
    pub unread: Vec<String>,
}

impl Sbom {
    /// What the builder says about it: signed and attached to the artefact.
    pub fn claim(self) -> Claim {
        Claim { predicate_type: SBOM.to_owned(), predicate: self.document, result: EvidenceResult::Info }
    }
}

/// Why an artefact could not be described.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// A file could not be read.
    #[error("cannot read {} to list packages", .path.display())]
    Read {
        /// Its path, in the artefact or on the disk.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Describes an artefact.
pub fn describe(request: &SbomRequest<'_>) -> Result<Sbom, SbomError> {
    let mut packages = Packages { distribution: distribution(request.rootfs)?, ..Packages::default() };
    for (path, node) in request.rootfs.files() {
        let place = if request.has_base && node.is_of_base() { Place::Base } else { Place::Artefact };
        packages.read(place, path, node).map_err(|source| failed(Path::new(&shown(path)), source))?;
    }
    for (_, path, lock) in lock_files(request.entries) {
        packages.read_lock(request.tree, path, lock)?;
    }
    Ok(bom::document(request, packages))
}

fn failed(path: &Path, source: io::Error) -> SbomError {
    SbomError::Read { path: path.to_owned(), source }
}

/// The lock files of a source tree.
pub(crate) fn lock_files(entries: &[TreeEntry]) -> impl Iterator<Item = (&TreeEntry, &str, Lock)> {
    let files = entries.iter().filter(|entry| entry.mode.starts_with("100"));
    files.filter_map(|entry| {
        let path = std::str::from_utf8(&entry.path).ok()?;
        Some((entry, path, Lock::of(path.rsplit('/').next()?)?))
    })
}

/// A kind of lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    Cargo,
    Npm,
    Python,
    Pipenv,
    Requirements,
}

impl Lock {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "Cargo.lock" => Self::Cargo,
            "package-lock.json" | "npm-shrinkwrap.json" => Self::Npm,
            "uv.lock" | "poetry.lock" | "pdm.lock" | "pylock.toml" => Self::Python,
            "Pipfile.lock" => Self::Pipenv,
            _ if name.starts_with("requirements") && name.ends_with(".txt") => Self::Requirements,
            _ => return None,
        })
    }

    fn read(self, bytes: &[u8]) -> Option<Vec<Package>> {
        match self {
            Self::Cargo => cargo::locked(bytes),
            Self::Npm => npm::locked(bytes),
            Self::Python => python::locked(bytes),
            Self::Pipenv => python::pipenv(bytes),
            Self::Requirements => Some(python::requirements(bytes)),
        }
    }
}

/// The name of the system inside, if there is one.
fn distribution(rootfs: &Rootfs) -> Result<Option<Distribution>, SbomError> {
    let found =
        [&b"etc/os-release"[..], b"usr/lib/os-release"].iter().find_map(|path| rootfs.resolve_file(path));
    let Some(found) = found else { return Ok(None) };
    let bytes = beginning(found.node, HEADERS_BYTES);
    Ok(debian::distribution(&bytes.map_err(|source| failed(Path::new(&shown(found.path)), source))?))
}

/// Where a package was seen; what comes first says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In the artefact's own files.
    Artefact,
    /// In its base.
    Base,
    /// In a lock file of the source tree alone.
    LockFile,
}

/// What is known of one package.
#[derive(Debug)]
struct Seen {
    package: Package,
    place: Place,
    /// Paths in the artefact, or in the source tree.
    at: BTreeSet<String>,
}

/// All packages, by package URL.
#[derive(Debug, Default)]
struct Packages {
    seen: BTreeMap<String, Seen>,
    distribution: Option<Distribution>,
    /// How many were left out.
    more: usize,
    unread: BTreeSet<String>,
}

impl Packages {
    /// Reads a file of the artefact, if it can say anything.
    fn read(&mut self, place: Place, path: &[u8], node: &Node) -> io::Result<()> {
        let at = shown(path);
        let system = || self.distribution.clone().unwrap_or_default();
        match Holds::of(path) {
            Holds::Dpkg => {
                let found = whole(node, DATABASE_BYTES_MAX)?.map(|bytes| debian::packages(&bytes, &system()));
                self.add(place, &at, found);
            }
            Holds::Apk => {
                let found = whole(node, DATABASE_BYTES_MAX)?.map(|bytes| alpine::packages(&bytes, &system()));
                self.add(place, &at, found);
            }
            Holds::Npm => {
                let bytes = whole(node, MANIFEST_BYTES_MAX)?;
                self.add(place, &at, bytes.and_then(|bytes| npm::installed(&bytes)).map(|one| vec![one]));
            }
            Holds::Python => {
                let found = python::installed(&beginning(node, HEADERS_BYTES)?);
                self.add(place, &at, found.map(|one| vec![one]));
            }
            Holds::Jar => self.read_jar(place, &at, node)?,
            Holds::Rpm => {
                self.unread.insert(at);
            }
            Holds::Anything => self.read_program(place, &at, node)?,
        }
        Ok(())
    }

    fn read_jar(&mut self, place: Place, at: &str, node: &Node) -> io::Result<()> {
        let name = at.rsplit('/').next().unwrap_or(at);
        let Some(jar) = java::read(name, rootfs::open(node)?) else {
            self.unread.insert(at.to_owned());
            return Ok(());
        };
        for (package, inside) in jar.packages {
            self.add(place, &within(at, &inside), Some(vec![package]));
        }
        self.unread.extend(jar.unread.iter().map(|inside| within(at, inside)));
        Ok(())
    }

    /// A program may say what was compiled into it; one that cannot be read says nothing.
    fn read_program(&mut self, place: Place, at: &str, node: &Node) -> io::Result<()> {
        let Node::File { size, .. } = node else { return Ok(()) };
        let mut file = rootfs::open(node)?;
        let mut magic = [0; elf::MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != elf::MAGIC {
            return Ok(());
        }
        let sections = elf::sections(&mut file, *size, &[cargo::SECTION, go::SECTION], SECTION_BYTES_MAX);
        for (name, bytes) in match sections {
            Ok(sections) => sections,
            Err(ElfError::Broken(_)) => return Ok(()),
            Err(ElfError::Read(error)) => return Err(error),
        } {
            let found = if name == cargo::SECTION { cargo::compiled(&bytes) } else { go::linked(&bytes) };
            self.add(place, at, found);
        }
        Ok(())
    }

    /// Reads a lock file of the source tree, if the commands left it there.
    fn read_lock(&mut self, tree: &Path, path: &str, lock: Lock) -> Result<(), SbomError> {
        let file = tree.join(path);
        let metadata = fs::symlink_metadata(&file);
        let Some(metadata) = metadata.ok().filter(fs::Metadata::is_file) else { return Ok(()) };
        if metadata.len() > DATABASE_BYTES_MAX {
            self.unread.insert(path.to_owned());
            return Ok(());
        }
        let mut bytes = Vec::new();
        let read = File::open(&file).and_then(|file| file.take(DATABASE_BYTES_MAX).read_to_end(&mut bytes));
        read.map_err(|source| failed(&file, source))?;
        self.add(Place::LockFile, path, lock.read(&bytes));
        Ok(())
    }

    fn add(&mut self, place: Place, at: &str, found: Option<Vec<Package>>) {
        let Some(found) = found else {
            self.unread.insert(at.to_owned());
            return;
        };
        for package in found {
            let purl = package.purl();
            let is_full = self.seen.len() >= PACKAGES_MAX;
            match self.seen.get_mut(&purl) {
                Some(seen) => seen.again(package, place, at),
                None if is_full => self.more += 1,
                None => {
                    let at = BTreeSet::from([at.to_owned()]);
                    self.seen.insert(purl, Seen { package, place, at });
                }
            }
        }
    }
}

impl Seen {
    fn again(&mut self, package: Package, place: Place, at: &str) {
        self.package.is_for_development &= package.is_for_development;
        self.package.licence = self.package.licence.take().or(package.licence);
        if place < self.place {
            self.place = place;
            self.at.clear();
        }
        if place == self.place && self.at.len() < PLACES_MAX {
            self.at.insert(at.to_owned());
        }
    }
}

/// What a file can say, by its path.
#[derive(Debug, Clone, Copy)]
enum Holds {
    Dpkg,
    Apk,
    Rpm,
    Npm,
    Python,
    Jar,
    Anything,
}

impl Holds {
    fn of(path: &[u8]) -> Self {
        const STATUS_D: &[u8] = b"var/lib/dpkg/status.d/";
        match path {
            b"var/lib/dpkg/status" => Self::Dpkg,
            _ if path.starts_with(STATUS_D) && !path.ends_with(b".md5sums") => Self::Dpkg,
            b"lib/apk/db/installed" | b"usr/lib/apk/db/installed" => Self::Apk,
            b"var/lib/rpm/rpmdb.sqlite" | b"usr/lib/sysimage/rpm/rpmdb.sqlite" | b"var/lib/rpm/Packages" => {
                Self::Rpm
            }
            _ if npm::is_installed(path) => Self::Npm,
            _ if python::is_installed(path) => Self::Python,
            _ if java::is_jar(path) => Self::Jar,
            _ => Self::Anything,
        }
    }
}

fn within(at: &str, inside: &str) -> String {
    if inside.is_empty() { at.to_owned() } else { format!("{at}!/{inside}") }
}

/// All of a file, unless it is longer than that.
fn whole(node: &Node, most: u64) -> io::Result<Option<Vec<u8>>> {
    match node {
        Node::File { size, .. } if *size <= most => beginning(node, most).map(Some),
        _ => Ok(None),
    }
}

fn beginning(node: &Node, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    rootfs::open(node)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

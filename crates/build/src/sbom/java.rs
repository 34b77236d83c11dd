//! Java: what is inside a jar, and inside the jars that it has inside.
//!
//! Sources: the JAR file specification (manifest); Apache Maven Archiver (`pom.properties`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek};

use zip::ZipArchive;

use super::package::{Ecosystem, Package};

/// Jars lie in jars so deep: a web application in an enterprise application, and its libraries.
const DEPTH_MAX: usize = 3;
/// All jars that are open inside one another are in memory; so many bytes at most, together.
const INNER_BYTES_MAX: u64 = 64 << 20;
/// How much is unpacked of one jar and all that it has inside, in bytes.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;
/// A description is not longer, in bytes.
const TEXT_BYTES_MAX: u64 = 256 << 10;

/// What a jar has inside, and the inner jars that were not read.
#[derive(Debug, Default)]
pub(super) struct Jar {
    /// Packages, and where inside: an empty text for the jar itself.
    pub(super) packages: Vec<(Package, String)>,
    pub(super) unread: Vec<String>,
    /// How much was unpacked, in bytes.
    unpacked: u64,
}

/// Whether a path is that of a jar, by its ending.
pub(super) fn is_jar(path: &[u8]) -> bool {
    [&b".jar"[..], b".war", b".ear"].iter().any(|ending| path.to_ascii_lowercase().ends_with(ending))
}

/// Reads a jar whose file has this name.
pub(super) fn read(name: &str, file: impl Read + Seek) -> Option<Jar> {
    let mut jar = Jar::default();
    jar.open(name, "", file, 0, INNER_BYTES_MAX)?;
    Some(jar)
}

impl Jar {
    fn open(
        &mut self,
        name: &str,
        inside: &str,
        file: impl Read + Seek,
        depth: usize,
        left: u64,
    ) -> Option<()> {
        let mut archive = ZipArchive::new(file).ok()?;
        let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(Cow::into_owned).collect();
        let is_pom =
            |name: &&String| name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties");
        let poms: Vec<Package> = names
            .iter()
            .filter(is_pom)
            .filter_map(|pom| of_pom(&self.entry(&mut archive, pom, TEXT_BYTES_MAX)?))
            .collect();
        if poms.is_empty() {
            let manifest =
                self.entry(&mut archive, "META-INF/MANIFEST.MF", TEXT_BYTES_MAX).unwrap_or_default();
            let package = of_manifest(&manifest).or_else(|| of_name(name));
            self.packages.extend(package.map(|package| (package, inside.to_owned())));
        }
        self.packages.extend(poms.into_iter().map(|package| (package, inside.to_owned())));
        for inner in names.iter().filter(|name| is_jar(name.as_bytes())) {
            let place = if inside.is_empty() { inner.clone() } else { format!("{inside}!/{inner}") };
            let bytes = (depth < DEPTH_MAX).then(|| self.entry(&mut archive, inner, left)).flatten();
            let read = bytes.and_then(|bytes| {
                let left = left.saturating_sub(bytes.len() as u64);
                let name = inner.rsplit('/').next().unwrap_or(inner);
                self.open(name, &place, Cursor::new(bytes), depth + 1, left)
            });
            if read.is_none() {
                self.unread.push(place);
            }
        }
        Some(())
    }

    /// The bytes of an entry that has at most so many, while the jar as a whole has not unpacked to too much.
    fn entry(
        &mut self,
        archive: &mut ZipArchive<impl Read + Seek>,
        name: &str,
        most: u64,
    ) -> Option<Vec<u8>> {
        let most = most.min(UNPACKED_BYTES_MAX.saturating_sub(self.unpacked));
        let mut bytes = Vec::new();
        let file = archive.by_name(name).ok()?;
        let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes);
        self.unpacked += bytes.len() as u64;
        read.ok()?;
        (bytes.len() as u64 <= most).then_some(bytes)
    }
}

fn of_pom(bytes: &[u8]) -> Option<Package> {
    let text = String::from_utf8_lossy(bytes);
    let properties: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let version = properties.get("version").copied();
    Package::new(Ecosystem::Maven, properties.get("artifactId")?, version)?.within(properties.get("groupId")?)
}

/// What a manifest says of its jar. Without the group of its maker, nobody knows it by this name: it is generic.
fn of_manifest(bytes: &[u8]) -> Option<Package> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace("\n ", "");
    let main: BTreeMap<&str, &str> =
        text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": ")).collect();
    let first = |keys: &[&str]| keys.iter().find_map(|key| main.get(key).copied()).map(str::trim);
    let version = first(&["Implementation-Version", "Bundle-Version", "Specification-Version"]);
    let name = first(&["Bundle-SymbolicName", "Implementation-Title", "Automatic-Module-Name"])?;
    let name = name.split(';').next().unwrap_or(name);
    match first(&["Implementation-Vendor-Id"]) {
        Some(group) => Package::new(Ecosystem::Maven, name, version)?.within(group),
        None => Package::new(Ecosystem::Generic, name, version),
    }
}

/// `guava-33.0.0-jre.jar`: the version begins with the first digit behind a hyphen.
fn of_name(file: &str) -> Option<Package> {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let begins = stem.as_bytes().windows(2).position(|pair| pair[0] == b'-' && pair[1].is_ascii_digit());
    match begins {
        Some(at) => Package::new(Ecosystem::Generic, &stem[..at], Some(&stem[at + 1..])),
        None => Package::new(Ecosystem::Generic, stem, None),
    }
}

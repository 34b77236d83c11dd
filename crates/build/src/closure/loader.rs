//! Loader: where the dynamic loaders of glibc and musl look for a library.
//!
//! Sources: ld.so(8), "DESCRIPTION"; glibc's elf/dl-load.c and musl's ldso/dynlink.c for what is not written there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::elf::{Machine, Object};
use super::format::Format;
use super::{Check, text};
use crate::rootfs::{self, Node, Rootfs};

/// The two C libraries whose loaders are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Libc {
    Glibc,
    Musl,
}

impl Libc {
    /// The C library by the loader that a program names.
    pub(super) fn of_loader(path: &[u8]) -> Self {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        if name.starts_with(b"ld-musl-") { Self::Musl } else { Self::Glibc }
    }

    /// The C library of a root, for what is not reached from a program.
    pub(super) fn of_root(rootfs: &Rootfs) -> Self {
        let loaders: Vec<&[u8]> = [&b"lib"[..], b"lib64"]
            .into_iter()
            .filter_map(|dir| rootfs.resolve(dir).ok())
            .flat_map(|dir| rootfs.children(dir.path))
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(b"ld-"))
            .collect();
        let musl = |name: &&[u8]| Self::of_loader(name) == Self::Musl;
        if !loaders.is_empty() && loaders.iter().all(musl) { Self::Musl } else { Self::Glibc }
    }
}

/// An object in the order in which it is loaded.
#[derive(Debug)]
pub(super) struct Loaded<'a> {
    /// Where it lies, links resolved.
    pub(super) path: &'a [u8],
    /// The directory by which it was found, which is what `$ORIGIN` means.
    pub(super) origin: Vec<u8>,
    /// What it needs.
    pub(super) object: &'a Object,
    /// Which object loads it.
    pub(super) by: Option<Rc<Self>>,
    /// How many objects are between the program and this one.
    pub(super) depth: usize,
}

/// Programs load libraries ten deep; a chain without an end must not exhaust the stack.
pub(super) const DEEPEST_LOAD: usize = 200;

impl Loaded<'_> {
    /// The objects between the program and this one, it included, the program first.
    pub(super) fn chain(&self) -> Vec<&[u8]> {
        let mut chain: Vec<&[u8]> = self.ancestors().map(|loaded| loaded.path).collect();
        chain.reverse();
        chain
    }

    fn ancestors(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |loaded| loaded.by.as_deref())
    }
}

/// Where a library was found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) path: &'a [u8],
    pub(super) origin: Vec<u8>,
    pub(super) object: &'a Object,
}

/// What the search for a library came to.
pub(super) enum Search<'a> {
    Found(Found<'a>),
    /// Not there; where something of the name lies that is made for another machine.
    Missing {
        foreign: Option<&'a [u8]>,
    },
}

/// The settings of the loader in an artefact.
pub(super) struct Loader<'a> {
    rootfs: &'a Rootfs,
    formats: &'a BTreeMap<&'a [u8], Format>,
    machine: Machine,
    /// `LD_LIBRARY_PATH` of the artefact.
    library_path: Vec<Vec<u8>>,
    /// The directories of /etc/ld.so.conf and what it includes.
    configured: Vec<Vec<u8>>,
    /// The directories of musl's own list.
    musl: Vec<Vec<u8>>,
    /// Whether the usual directories are inside the artefact.
    has_root: bool,
}

impl<'a> Loader<'a> {
    pub(super) fn new(check: &Check<'a>, machine: Machine) -> Self {
        let rootfs = check.rootfs();
        let library_path = check.variable("LD_LIBRARY_PATH").unwrap_or_default();
        Self {
            rootfs,
            formats: check.formats,
            machine,
            library_path: split(library_path.as_bytes(), |byte| matches!(byte, b':' | b';')),
            configured: configured(rootfs),
            musl: musl_directories(rootfs, machine),
            has_root: !check.has_host(),
        }
    }

    /// Looks for a library as the loader of an object does.
    pub(super) fn search(&self, libc: Libc, from: &Loaded<'a>, name: &[u8]) -> Search<'a> {
        let mut foreign = None;
        for place in self.places(libc, from, name) {
            let Some(found) = self.rootfs.resolve_file(&place) else { continue };
            match self.formats.get(found.path) {
                Some(Format::Object(object)) if object.machine == self.machine => {
                    let origin = directory(&place);
                    return Search::Found(Found { path: found.path, origin, object });
                }
                // A loader goes on looking when an object is not for this machine.
                _ => foreign = foreign.or(Some(found.path)),
            }
        }
        Search::Missing { foreign }
    }

    /// The paths that are tried, in their order.
    fn places(&self, libc: Libc, from: &Loaded<'a>, name: &[u8]) -> Vec<Vec<u8>> {
        if name.contains(&b'/') {
            return self.expand(name, &from.origin);
        }
        let directories = match libc {
            Libc::Glibc => self.glibc_directories(from),
            Libc::Musl => self.musl_directories(from),
        };
        directories.into_iter().map(|dir| [dir.as_slice(), b"/", name].concat()).collect()
    }

    fn glibc_directories(&self, from: &Loaded<'a>) -> Vec<Vec<u8>> {
        let mut dirs = Vec::new();
        if from.object.runpath.is_none() {
            // Of what loads it, too; where an object has DT_RUNPATH, its DT_RPATH means nothing.
            for above in from.ancestors().filter(|above| above.object.runpath.is_none()) {
                dirs.extend(above.object.rpath.iter().flat_map(|dir| self.expand(dir, &above.origin)));
            }
        }
        dirs.extend(self.library_path.iter().flat_map(|dir| self.expand(dir, &from.origin)));
        let own = from.object.runpath.iter().flatten();
        dirs.extend(own.flat_map(|dir| self.expand(dir, &from.origin)));
        if self.has_root && !from.object.no_default_directories {
            dirs.extend(self.configured.iter().cloned());
            dirs.extend(self.usual());
        }
        dirs
    }

    /// musl makes no difference between the two paths, and hands both on.
    fn musl_directories(&self, from: &Loaded<'a>) -> Vec<Vec<u8>> {
        let mut dirs = self.library_path.clone();
        for above in from.ancestors() {
            let own = above.object.runpath.as_ref().unwrap_or(&above.object.rpath);
            dirs.extend(own.iter().flat_map(|dir| self.expand(dir, &above.origin)));
        }
        if self.has_root {
            dirs.extend(self.musl.iter().cloned());
        }
        dirs
    }

    /// Where glibc looks without being told; Debian and its children have the directories of a triplet.
    fn usual(&self) -> Vec<Vec<u8>> {
        let triplet = self.machine.triplet().unwrap_or_default();
        ["lib64", "lib"]
            .iter()
            .map(|lib| (*lib).to_owned())
            .chain([format!("lib/{triplet}")])
            .flat_map(|lib| [format!("/{lib}"), format!("/usr/{lib}")])
            .map(String::into_bytes)
            .collect()
    }

    /// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM`. What remains relative depends on where the program is started, and is
    /// no path of the artefact; of an archive, only what is relative to the object is inside.
    fn expand(&self, path: &[u8], origin: &[u8]) -> Vec<Vec<u8>> {
        let path = text(path);
        let beside = path.starts_with("$ORIGIN") || path.starts_with("${ORIGIN}");
        if !(beside || (self.has_root && path.starts_with('/'))) {
            return Vec::new();
        }
        let triplet = self.machine.triplet().unwrap_or_default();
        let platform = triplet.split('-').next().unwrap_or_default();
        let path = replaced(&replaced(&path, "ORIGIN", &text(origin)), "PLATFORM", platform);
        if !path.contains("$LIB") && !path.contains("${LIB}") {
            return vec![path.into_bytes()];
        }
        let lib = format!("lib/{triplet}");
        ["lib64", &lib, "lib"].iter().map(|lib| replaced(&path, "LIB", lib).into_bytes()).collect()
    }
}

fn replaced(path: &str, token: &str, with: &str) -> String {
    path.replace(&format!("${{{token}}}"), with).replace(&format!("${token}"), with)
}

/// The directory of a path, with a slash in front.
pub(super) fn directory(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let dir = &path[..end];
    if dir.starts_with(b"/") { dir.to_vec() } else { [b"/", dir].concat() }
}

fn split(bytes: &[u8], at: impl Fn(u8) -> bool) -> Vec<Vec<u8>> {
    bytes.split(|byte| at(*byte)).filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Settings are short; more is not read of them, in bytes.
const LONGEST_SETTING: u64 = 64 * 1024;

fn setting(rootfs: &Rootfs, path: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read;
    let found = rootfs.resolve_file(path)?;
    let mut bytes = Vec::new();
    rootfs::open(found.node).ok()?.take(LONGEST_SETTING).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// How many files of settings are read.
const MOST_SETTINGS: usize = 1024;

/// The directories that are configured: ldconfig(8), one per line, `#` begins a comment, `include PATTERN` reads other
/// files in its place. A file is read once, whoever includes it.
fn configured(rootfs: &Rootfs) -> Vec<Vec<u8>> {
    let mut ahead = vec![Setting::File(b"/etc/ld.so.conf".to_vec())];
    let (mut read, mut dirs) = (BTreeSet::new(), Vec::new());
    while let Some(next) = ahead.pop() {
        match next {
            Setting::Directory(dir) => dirs.push(dir),
            Setting::File(path) => {
                if read.len() < MOST_SETTINGS && read.insert(path.clone()) {
                    ahead.extend(settings_of(rootfs, &path).into_iter().rev());
                }
            }
        }
    }
    dirs
}

/// What a line of the settings says.
enum Setting {
    Directory(Vec<u8>),
    File(Vec<u8>),
}

fn settings_of(rootfs: &Rootfs, path: &[u8]) -> Vec<Setting> {
    let bytes = setting(rootfs, path).unwrap_or_default();
    let mut said = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if let Some(patterns) = line.strip_prefix(b"include") {
            for pattern in split(patterns, |byte| byte.is_ascii_whitespace()).into_iter().take(MOST_SETTINGS)
            {
                said.extend(matching(rootfs, &directory(path), &pattern).into_iter().map(Setting::File));
            }
        } else if line.starts_with(b"/") {
            said.push(Setting::Directory(line.to_vec()));
        }
        // Who includes more than is ever read says the same again.
        said.truncate(64 * MOST_SETTINGS);
    }
    said
}

/// The files that a pattern names; `*` may stand in its last part.
fn matching(rootfs: &Rootfs, beside: &[u8], pattern: &[u8]) -> Vec<Vec<u8>> {
    let pattern = if pattern.starts_with(b"/") { pattern.to_vec() } else { [beside, b"/", pattern].concat() };
    let dir = directory(&pattern);
    let name = &pattern[dir.len() + 1..];
    let Some(star) = name.iter().position(|byte| *byte == b'*') else { return vec![pattern] };
    let (before, after) = (&name[..star], &name[star + 1..]);
    let Ok(found) = rootfs.resolve(&dir) else { return Vec::new() };
    let fits = |name: &[u8]| {
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    rootfs
        .children(found.path)
        .filter(|(name, node)| fits(name) && !matches!(node, Node::Directory { .. }))
        .map(|(name, _)| [dir.as_slice(), b"/", name].concat())
        .collect()
}

/// musl's ldso/dynlink.c: /etc/ld-musl-ARCH.path, else a fixed list.
fn musl_directories(rootfs: &Rootfs, machine: Machine) -> Vec<Vec<u8>> {
    let architecture = machine.triplet().and_then(|triplet| triplet.split('-').next()).unwrap_or_default();
    let listed = setting(rootfs, format!("etc/ld-musl-{architecture}.path").as_bytes());
    let listed = listed.unwrap_or_else(|| b"/lib:/usr/local/lib:/usr/lib".to_vec());
    split(&listed, |byte| matches!(byte, b':' | b'\n'))
}

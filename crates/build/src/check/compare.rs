//! Compare: two artefacts of one source, from the outside in.
//!
//! The manifests are compared field by field, then the configurations, then the layers entry by entry, then the content of
//! the entries that differ. What has the same digest is never read, so the layers of a base cost nothing. A layer is
//! unpacked once into a plain file; of its files only small windows are in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use semel_model::digest::Digest;
use semel_oci::compression::Compression;
use semel_oci::manifest::MAX_MANIFEST_BYTES;
use serde_json::Value;

use super::content::{self, Detail, What};
use crate::layer::{self, Room};
use crate::rootfs::Opened;

/// One of two artefacts.
#[derive(Debug, Clone)]
pub struct Side {
    layout: PathBuf,
    manifest: Value,
}

/// A place where they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `manifest`, `configuration`, `layer 1`.
    pub place: String,
    /// The entry of the layer, or the field of the document.
    pub path: Option<String>,
    /// In which ways, the first one first. Never empty.
    pub details: Vec<Detail>,
}

/// Why two artefacts could not be compared.
#[derive(Debug, thiserror::Error)]
#[error("cannot compare {what}")]
pub struct CompareError {
    what: String,
    #[source]
    source: io::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> CompareError {
    let what = what.into();
    move |source| CompareError { what, source }
}

impl Side {
    /// An artefact of which some blobs lie in an OCI layout, at `blobs/<algorithm>/<hex>`.
    pub fn new(layout: &Path, manifest: &[u8]) -> Result<Self, CompareError> {
        let manifest = serde_json::from_slice(manifest)
            .map_err(|error| failed("a manifest that is no JSON")(io::Error::other(error)))?;
        Ok(Self { layout: layout.to_owned(), manifest })
    }

    /// The same, with its manifest in the layout.
    pub fn open(layout: &Path, manifest: &Digest) -> Result<Self, CompareError> {
        let path = blob_path(layout, manifest);
        let bytes = read_document(&path).map_err(failed(path.display().to_string()))?;
        Self::new(layout, &bytes)
    }

    /// What the manifest says of the artefact.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.manifest.get("annotations")?.get(key)?.as_str()
    }

    fn config(&self) -> Option<Piece> {
        Piece::of(self.manifest.get("config")?)
    }

    fn layers(&self) -> Vec<Piece> {
        let layers = self.manifest.get("layers").and_then(Value::as_array);
        layers.into_iter().flatten().filter_map(Piece::of).collect()
    }

    fn path_of(&self, piece: &Piece) -> PathBuf {
        blob_path(&self.layout, &piece.digest)
    }

    fn read_config(&self) -> Result<Value, CompareError> {
        let Some(piece) = self.config() else { return Ok(Value::Null) };
        let what = || failed(format!("the configuration {}", piece.digest));
        let bytes = read_document(&self.path_of(&piece)).map_err(what())?;
        serde_json::from_slice(&bytes).map_err(|error| what()(io::Error::other(error)))
    }
}

/// Reads a manifest or a configuration, which are not longer than the registry takes them.
fn read_document(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_MANIFEST_BYTES {
        let limit = format!("it has more than {MAX_MANIFEST_BYTES} bytes, which is the limit");
        return Err(io::Error::new(io::ErrorKind::InvalidData, limit));
    }
    Ok(bytes)
}

/// Where a blob lies in an OCI layout (image-spec 1.1, image-layout.md, "Blobs").
pub fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// The blobs of the first artefact that the comparison reads: those that the second does not have.
pub fn wanted(one: &Side, other: &Side) -> Vec<Digest> {
    let pieces = |side: &Side| side.config().into_iter().chain(side.layers()).map(|piece| piece.digest);
    let there: Vec<Digest> = pieces(other).collect();
    pieces(one).filter(|digest| !there.contains(digest)).collect()
}

/// Something that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    digest: Digest,
    media_type: String,
}

impl Piece {
    fn of(descriptor: &Value) -> Option<Self> {
        let text = |key: &str| descriptor.get(key).and_then(Value::as_str);
        Some(Self { digest: text("digest")?.parse().ok()?, media_type: text("mediaType")?.to_owned() })
    }

    fn compression(&self) -> Option<Compression> {
        Compression::of_layer(&self.media_type)
    }
}

/// Everything in which two artefacts differ, outermost first. `scratch` is an existing directory for what is unpacked.
pub fn compare(committed: &Side, built: &Side, scratch: &Path) -> Result<Vec<Found>, CompareError> {
    let mut found = fields(
        "manifest",
        &committed.manifest,
        &built.manifest,
        &["/config/digest", "/config/size", "/layers"],
    );
    let (layers, others) = (committed.layers(), built.layers());
    if committed.config() != built.config() {
        let (one, other) = (committed.read_config()?, built.read_config()?);
        found.extend(fields("configuration", &one, &other, &["/rootfs/diff_ids"]));
    }
    if layers.len() != others.len() {
        let detail = Detail::new(What::Field, layers.len(), others.len());
        found.push(Found {
            place: "manifest".to_owned(),
            path: Some("/layers".to_owned()),
            details: vec![detail],
        });
    }
    for (at, (one, other)) in layers.iter().zip(&others).enumerate() {
        if one.digest != other.digest {
            let pair = Pair { place: format!("layer {}", at + 1), scratch };
            found.extend(pair.layer(&committed.path_of(one), &built.path_of(other), one, other)?);
        }
    }
    Ok(found)
}

/// The fields of two documents that differ, without those that only repeat other differences.
fn fields(place: &str, one: &Value, other: &Value, without: &[&str]) -> Vec<Found> {
    let (one, other) = (leaves(one, without), leaves(other, without));
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| ABSENT.to_owned());
    differ
        .map(|name| Found {
            place: place.to_owned(),
            path: Some(name.clone()),
            details: vec![Detail::new(What::Field, shown(one.get(name)), shown(other.get(name)))],
        })
        .collect()
}

/// The leaves of a document by their JSON pointers (RFC 6901).
fn leaves(document: &Value, without: &[&str]) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    let mut open = vec![(String::new(), document)];
    while let Some((name, value)) = open.pop() {
        let below = |key: &str| format!("{name}/{}", key.replace('~', "~0").replace('/', "~1"));
        match value {
            _ if without.contains(&name.as_str()) => {}
            Value::Object(map) if !map.is_empty() => {
                open.extend(map.iter().map(|(key, value)| (below(key), value)));
            }
            Value::Array(list) if !list.is_empty() => {
                open.extend(list.iter().enumerate().map(|(at, value)| (below(&at.to_string()), value)));
            }
            Value::String(text) => drop(leaves.insert(name, text.clone())),
            other => drop(leaves.insert(name, other.to_string())),
        }
    }
    leaves
}

/// Two layers at the same place.
struct Pair<'a> {
    place: String,
    scratch: &'a Path,
}

impl Pair<'_> {
    fn layer(&self, one: &Path, other: &Path, of: &Piece, and: &Piece) -> Result<Vec<Found>, CompareError> {
        let failed = || failed(self.place.clone());
        let (Some(compression), Some(other_compression)) = (of.compression(), and.compression()) else {
            return self.blob(one, other).map_err(failed());
        };
        let one = Tree::unpack(one, compression, &self.scratch.join("one")).map_err(failed())?;
        let other = Tree::unpack(other, other_compression, &self.scratch.join("other")).map_err(failed())?;
        let found = self.trees(&one, &other).map_err(failed())?;
        if found.is_empty() {
            let detail = Detail::new(What::Compression, &of.digest, &and.digest);
            return Ok(vec![self.found(None, vec![detail])]);
        }
        Ok(found)
    }

    /// A layer that is a file itself: a package, a disk image or a part of one.
    fn blob(&self, one: &Path, other: &Path) -> io::Result<Vec<Found>> {
        let details = content::differences("", &mut File::open(one)?, &mut File::open(other)?)?;
        Ok(if details.is_empty() { Vec::new() } else { vec![self.found(None, details)] })
    }

    fn trees(&self, one: &Tree, other: &Tree) -> io::Result<Vec<Found>> {
        let mut paths: Vec<&Vec<u8>> = one.entries.keys().chain(other.entries.keys()).collect();
        paths.sort();
        paths.dedup();
        let mut found = Vec::new();
        for path in paths {
            let details = match (one.entries.get(path), other.entries.get(path)) {
                (Some(entry), Some(twin)) => self.entries(path, (one, entry), (other, twin))?,
                (Some(_), None) => vec![Detail::new(What::Entry, shown(path), ABSENT)],
                (None, Some(_)) => vec![Detail::new(What::Entry, ABSENT, shown(path))],
                (None, None) => Vec::new(),
            };
            if !details.is_empty() {
                found.push(self.found(Some(shown(path)), details));
            }
        }
        pair_absent(&mut found);
        Ok(found)
    }

    fn entries(&self, path: &[u8], one: (&Tree, &Entry), other: (&Tree, &Entry)) -> io::Result<Vec<Detail>> {
        let (entry, twin) = (one.1, other.1);
        let mut details = Vec::new();
        for (name, value, twin) in [
            ("type", entry.kind.clone(), twin.kind.clone()),
            ("permissions", format!("{:04o}", entry.mode), format!("{:04o}", twin.mode)),
            ("link", shown(&entry.link), shown(&twin.link)),
            ("time", entry.modified.to_string(), twin.modified.to_string()),
            ("owner", entry.owner.clone(), twin.owner.clone()),
        ] {
            if value != twin {
                details.push(Detail::new(What::Metadata(name), value, twin));
            }
        }
        if entry.kind == twin.kind && entry.is_file() {
            let (mut this, mut that) = (one.0.open(entry)?, other.0.open(twin)?);
            details.extend(content::differences(&shown(path), &mut this, &mut that)?);
        }
        Ok(details)
    }

    fn found(&self, path: Option<String>, details: Vec<Detail>) -> Found {
        Found { place: self.place.clone(), path, details }
    }
}

/// Where one entry is gone and one has come in the same directory, it is likely the same under another name.
fn pair_absent(found: &mut Vec<Found>) {
    let dir = |one: &Found| {
        let path = one.path.as_deref().unwrap_or_default();
        path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned()
    };
    let (mut gone, mut came) = (BTreeMap::<String, VecDeque<usize>>::new(), Vec::new());
    for (at, one) in found.iter().enumerate() {
        match one.details.as_slice() {
            [Detail { what: What::Entry, built, .. }] if built == ABSENT => {
                gone.entry(dir(one)).or_default().push_back(at);
            }
            [Detail { what: What::Entry, committed, .. }] if committed == ABSENT => came.push(at),
            _ => {}
        }
    }
    let mut merged = BTreeSet::new();
    for at in came {
        if let Some(twin) = gone.get_mut(&dir(&found[at])).and_then(VecDeque::pop_front) {
            let built = std::mem::take(&mut found[at].details[0].built);
            found[twin].details[0].built = built;
            found[twin].details[0].what = What::Name;
            merged.insert(at);
        }
    }
    let mut at = 0..;
    found.retain(|_| at.next().is_none_or(|at| !merged.contains(&at)));
}

/// What stands in the place of what one of two does not have.
const ABSENT: &str = "(absent)";

/// A layer as a plain tar file, and where its entries are in it.
struct Tree {
    file: PathBuf,
    entries: BTreeMap<Vec<u8>, Entry>,
}

struct Entry {
    kind: String,
    mode: u32,
    link: Vec<u8>,
    modified: u64,
    owner: String,
    offset: u64,
    size: u64,
}

impl Entry {
    fn is_file(&self) -> bool {
        self.kind == "file"
    }
}

impl Tree {
    fn unpack(layer: &Path, compression: Compression, file: &Path) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a file of the work directory need not last")]
        let mut plain = File::create(file)?;
        io::copy(&mut layer::open(layer, compression)?, &mut plain)?;
        let mut entries = BTreeMap::new();
        layer::walk(layer::open(file, Compression::None)?, &mut Room::default(), |entry| {
            entries.insert(entry.path_bytes().into_owned(), Entry::of(entry)?);
            Ok(())
        })?;
        Ok(Self { file: file.to_owned(), entries })
    }

    fn open(&self, entry: &Entry) -> io::Result<Opened> {
        Opened::range(&self.file, entry.offset, entry.size)
    }
}

impl Entry {
    fn of<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Regular => "file".to_owned(),
            tar::EntryType::Directory => "directory".to_owned(),
            tar::EntryType::Symlink => "symbolic link".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        Ok(Self {
            kind,
            mode: header.mode()?,
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            modified: header.mtime()?,
            owner: format!("{}:{}", header.uid()?, header.gid()?),
            offset: entry.raw_file_position(),
            size: entry.size(),
        })
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_and_what_came_in_a_directory_are_paired_in_their_order() {
        let entry = |path: &str, committed: &str, built: &str| Found {
            place: "layer 1".to_owned(),
            path: Some(path.to_owned()),
            details: vec![Detail::new(What::Entry, committed, built)],
        };
        let gone = |path: &str| entry(path, path, ABSENT);
        let came = |path: &str| entry(path, ABSENT, path);
        let mut found =
            vec![gone("a/1"), came("a/2"), gone("a/3"), came("a/4"), came("a/5"), came("b/1"), gone("c/1")];
        pair_absent(&mut found);
        let told = |one: &Found| {
            let detail = &one.details[0];
            format!("{} {} {}", detail.what, detail.committed, detail.built)
        };
        let told: Vec<String> = found.iter().map(told).collect();
        let expected = [
            "name a/1 a/2",
            "name a/3 a/4",
            "entry (absent) a/5",
            "entry (absent) b/1",
            "entry c/1 (absent)",
        ];
        assert_eq!(told, expected);
    }
}

//! Unpacks layers into a directory: OCI image specification 1.1, layer.md, without leaving the directory.
//!
//! Refuses entries that lead out of it, devices and pipes, and a layer that grows out of proportion; drops set-user-id bits;
//! keeps symbolic links as data and follows them only inside. Reads a stream once, in bounded memory.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use semel_oci::compression::{Compression, Padded, most_bytes};
use tar::EntryType;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is broken, or cannot be read.
    #[error("cannot read the layer's tar stream")]
    Read(#[source] io::Error),
    /// An entry outside.
    #[error("its entry `{path}` leads out of the artefact")]
    Outside {
        /// The entry.
        path: String,
    },
    /// A device, a pipe and the like.
    #[error("its entry `{path}` is a {kind}, which a release cannot hold")]
    Special {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// A name that is no text.
    #[error("its entry `{path}` has a name that is no UTF-8")]
    Name {
        /// The entry, as far as it is text.
        path: String,
    },
    /// A hard link to nothing.
    #[error("its entry `{path}` links to `{to}`, which is no file of the artefact")]
    HardLink {
        /// The entry.
        path: String,
        /// What it links to.
        to: String,
    },
    /// It has too many entries.
    #[error("it has more than {entries} entries")]
    TooMany {
        /// How many it may have.
        entries: usize,
    },
    /// The directory cannot be written to.
    #[error("cannot unpack its entry `{path}`")]
    Write {
        /// The entry.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks a layer that is a file, compressed or not, whose digest was checked.
pub fn unpack_file(layer_file: &Path, into: &Path) -> Result<(), UnpackError> {
    let opened = File::open(layer_file).and_then(|file| {
        let room = Room::for_layer(file.metadata()?.len());
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let tar = Compression::of_bytes(reader.fill_buf()?).decode(reader)?;
        Ok((tar, room))
    });
    let (tar, room) = opened.map_err(UnpackError::Read)?;
    layer(tar, into, room)
}

/// How much a layer may become: a compressor makes one byte of a thousand zeros, and a sparse file is as long as it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// How many bytes may come out of it.
    bytes: u64,
    /// How many entries it may have.
    entries: usize,
}

impl Room {
    /// The room for a layer of so many stored bytes: as much as whoever packed it kept to, and a million entries.
    pub(super) fn for_layer(size_bytes: u64) -> Self {
        Self { bytes: most_bytes(size_bytes), entries: 1_000_000 }
    }
}

/// Unpacks one layer over those below it, and reads it to its end: behind the last entry stand the checksums of what was
/// unpacked.
pub(super) fn layer(stream: impl Read, into: &Path, room: Room) -> Result<(), UnpackError> {
    let head_left = Cell::new(0);
    let content_end = Rc::new(Cell::new(0));
    let stream = Padded::new(stream, Rc::clone(&content_end));
    let mut archive = tar::Archive::new(Bounded { stream, bytes_left: room.bytes, head_left: &head_left });
    let mut entries = archive.entries().map_err(UnpackError::Read)?;
    let mut of_this_layer = HashSet::new();
    let (mut entries_left, mut files_left) = (room.entries, room.bytes);
    loop {
        head_left.set(HEAD_BYTES);
        let Some(entry) = entries.next() else { break };
        head_left.set(room.bytes);
        let mut entry = entry.map_err(UnpackError::Read)?;
        content_end.set(entry.raw_file_position().saturating_add(entry.size()));
        entries_left = entries_left.checked_sub(1).ok_or(UnpackError::TooMany { entries: room.entries })?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if matches!(entry.header().entry_type(), EntryType::XGlobalHeader) {
            continue;
        }
        let path = inner_path(&entry.path_bytes())?;
        if path.as_os_str().is_empty() {
            continue;
        }
        let write = |source: io::Error| UnpackError::Write { path: shown.clone(), source };
        if whiteout(into, &path, &of_this_layer).map_err(write)? {
            continue;
        }
        files_left = files_left.checked_sub(entry.size()).ok_or_else(|| write(too_large()))?;
        unpack(&mut entry, into, &path, &shown)?;
        of_this_layer.insert(path);
    }
    head_left.set(room.bytes);
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop).map_err(UnpackError::Read)
}

/// How many bytes may stand between the contents of two entries: headers, long names, extensions. They are held in memory.
const HEAD_BYTES: u64 = 1024 * 1024;

/// A stream that fails, rather than ends, when too much has come out of it.
struct Bounded<'a, R> {
    stream: R,
    bytes_left: u64,
    /// The same between two entries' contents.
    head_left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.bytes_left = self.bytes_left.checked_sub(read as u64).ok_or_else(too_large)?;
        self.head_left.set(self.head_left.get().checked_sub(read as u64).ok_or_else(too_large)?);
        Ok(read)
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the layer unpacks to far more than its own size")
}

/// Takes the write bits from everything, so that nobody edits a release by accident.
pub(super) fn seal(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            seal(&entry.path())?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode();
            fs::set_permissions(entry.path(), fs::Permissions::from_mode((mode & 0o555) | 0o400))?;
        }
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o555))
}

/// A path inside the artefact that a path of the artefact means, following links as if the artefact were the whole
/// file system. The path need not exist.
pub(super) fn resolve_inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    let mut open: Vec<PathBuf> = parts(path);
    let mut links = 0;
    while let Some(part) = open.pop() {
        match part.components().next() {
            Some(Component::ParentDir) => drop(found.pop()),
            Some(Component::Normal(name)) => {
                let step = found.join(name);
                match fs::read_link(root.join(&step)) {
                    Ok(to) => {
                        links += 1;
                        if links > 40 {
                            return None;
                        }
                        if to.is_absolute() {
                            found = PathBuf::new();
                        }
                        open.extend(parts(&to));
                    }
                    Err(_) => found = step,
                }
            }
            _ => {}
        }
    }
    Some(found)
}

/// The components of a path, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// An entry's path, relative; `..` is refused, a leading `/` or `./` means the root.
fn inner_path(bytes: &[u8]) -> Result<PathBuf, UnpackError> {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| UnpackError::Name { path: shown() })?;
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(UnpackError::Outside { path: shown() });
            }
        }
    }
    Ok(path)
}

/// layer.md, "Whiteouts": `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq` all that they put in a directory.
fn whiteout(into: &Path, path: &Path, of_this_layer: &HashSet<PathBuf>) -> io::Result<bool> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let Some(hidden) = name.strip_prefix(".wh.") else { return Ok(false) };
    let parent = path.parent().unwrap_or(Path::new(""));
    let Some(inside) = resolve_inside(into, parent) else { return Ok(true) };
    if hidden == ".wh..opq" {
        if let Ok(entries) = fs::read_dir(into.join(&inside)) {
            for entry in entries {
                let path = inside.join(entry?.file_name());
                remove_lower(into, &path, of_this_layer)?;
            }
        }
    } else if !hidden.is_empty() && hidden != "." && hidden != ".." {
        remove_lower(into, &inside.join(hidden), of_this_layer)?;
    }
    Ok(true)
}

/// Removes what lower layers put at a path, but nothing that this layer put there.
fn remove_lower(into: &Path, path: &Path, of_this_layer: &HashSet<PathBuf>) -> io::Result<()> {
    let full = into.join(path);
    let is_dir = fs::symlink_metadata(&full).is_ok_and(|meta| meta.is_dir());
    if !of_this_layer.iter().any(|kept| kept.starts_with(path)) {
        return remove(&full);
    }
    if is_dir {
        for entry in fs::read_dir(&full)? {
            remove_lower(into, &path.join(entry?.file_name()), of_this_layer)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

fn unpack(
    entry: &mut tar::Entry<'_, impl Read>,
    into: &Path,
    path: &Path,
    shown: &str,
) -> Result<(), UnpackError> {
    let write = |source: io::Error| UnpackError::Write { path: shown.to_owned(), source };
    let special = |kind: &'static str| UnpackError::Special { path: shown.to_owned(), kind };
    let target = place(into, path, shown)?;
    match entry.header().entry_type() {
        EntryType::Directory => make_dir(&target).map_err(write),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            write_file(entry, &target).map_err(write)
        }
        EntryType::Symlink => {
            let to = link_name(entry, shown)?;
            remove(&target).and_then(|()| std::os::unix::fs::symlink(&to, &target)).map_err(write)
        }
        EntryType::Link => {
            let to = link_name(entry, shown)?;
            let inside =
                inner_path(to.as_bytes()).map_err(|_| UnpackError::Outside { path: shown.to_owned() })?;
            let source = place(into, &inside, shown)?;
            if !fs::symlink_metadata(&source).is_ok_and(|meta| meta.is_file()) {
                return Err(UnpackError::HardLink { path: shown.to_owned(), to });
            }
            if source == target {
                return Ok(());
            }
            remove(&target).and_then(|()| fs::hard_link(&source, &target)).map_err(write)
        }
        EntryType::Char | EntryType::Block => Err(special("device")),
        EntryType::Fifo => Err(special("pipe")),
        _ => Err(special("thing of an unknown kind")),
    }
}

/// Where an entry goes: its parent with links followed inside the artefact, made if it is not there.
fn place(into: &Path, path: &Path, shown: &str) -> Result<PathBuf, UnpackError> {
    let outside = || UnpackError::Outside { path: shown.to_owned() };
    let name = path.file_name().ok_or_else(outside)?;
    let parent = resolve_inside(into, path.parent().unwrap_or(Path::new(""))).ok_or_else(outside)?;
    let full = into.join(parent);
    fs::create_dir_all(&full).map_err(|source| UnpackError::Write { path: shown.to_owned(), source })?;
    Ok(full.join(name))
}

fn make_dir(target: &Path) -> io::Result<()> {
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_dir() => Ok(()),
        _ => remove(target).and_then(|()| fs::create_dir(target)),
    }
}

fn write_file(entry: &mut tar::Entry<'_, impl Read>, target: &Path) -> io::Result<()> {
    remove(target)?;
    let mode = entry.header().mode()? & 0o777;
    let modified = entry.header().mtime()?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    let expected = entry.size();
    let written = io::copy(entry, &mut file)?;
    if written != expected {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{written} of {expected} bytes are there"),
        ));
    }
    finish_file(&file, mode, modified)
}

fn finish_file(file: &File, mode: u32, modified: u64) -> io::Result<()> {
    let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(modified));
    file.set_modified(modified.unwrap_or(SystemTime::UNIX_EPOCH))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn link_name(entry: &tar::Entry<'_, impl Read>, shown: &str) -> Result<String, UnpackError> {
    let bytes = entry.link_name_bytes().unwrap_or_default();
    String::from_utf8(bytes.into_owned()).map_err(|_| UnpackError::Name { path: shown.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: Room = Room { bytes: 1_000_000, entries: 1_000 };

    enum Item<'a> {
        File(&'a str, &'a str, u32),
        Dir(&'a str),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
        Kind(&'a str, EntryType),
    }
    use Item::{Dir, File as Plain, Hard, Kind, Link};

    fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let (path, kind, content, mode, link) = match item {
                Plain(path, content, mode) => (path, EntryType::Regular, *content, *mode, ""),
                Dir(path) => (path, EntryType::Directory, "", 0o755, ""),
                Link(path, to) => (path, EntryType::Symlink, "", 0o777, *to),
                Hard(path, to) => (path, EntryType::Link, "", 0o644, *to),
                Kind(path, kind) => (path, *kind, "", 0o644, ""),
            };
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_mtime(1_000_000);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(layers: &[&[Item<'_>]]) -> Result<tempfile::TempDir, UnpackError> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        for items in layers {
            layer(tar_of(items).as_slice(), &dir.path().join("tree"), SMALL)?;
        }
        Ok(dir)
    }

    fn read(dir: &tempfile::TempDir, path: &str) -> Option<String> {
        fs::read_to_string(dir.path().join("tree").join(path)).ok()
    }

    #[test]
    fn nothing_is_written_outside() {
        let cases: [&[Item<'_>]; 4] = [
            &[Plain("../evil", "x", 0o644)],
            &[Plain("a/../../evil", "x", 0o644)],
            &[Plain("a", "x", 0o644), Hard("b", "../../evil")],
            &[Hard("b", "missing")],
        ];
        for items in cases {
            assert!(unpacked(&[items]).is_err());
        }
        let dir =
            unpacked(&[&[Link("out", "../.."), Plain("out/evil", "x", 0o644), Plain("/rooted", "y", 0o644)]])
                .unwrap();
        assert!(!dir.path().join("evil").exists());
        assert_eq!(
            read(&dir, "evil").as_deref(),
            Some("x"),
            "a link is followed as if the artefact were everything"
        );
        assert_eq!(read(&dir, "rooted").as_deref(), Some("y"));
    }

    #[test]
    fn a_link_is_replaced_and_not_written_through() {
        let dir =
            unpacked(&[&[Plain("real", "kept", 0o644), Link("x", "real")], &[Plain("x", "new", 0o644)]])
                .unwrap();
        assert_eq!(read(&dir, "real").as_deref(), Some("kept"));
        assert_eq!(read(&dir, "x").as_deref(), Some("new"));
    }

    #[test]
    fn upper_layers_hide_what_lower_layers_put_there() {
        let lower: &[Item<'_>] =
            &[Dir("etc"), Plain("etc/a", "a", 0o644), Plain("etc/b", "b", 0o644), Plain("d/x", "x", 0o644)];
        let upper: &[Item<'_>] =
            &[Plain("etc/.wh.a", "", 0o644), Plain("d/new", "n", 0o644), Plain("d/.wh..wh..opq", "", 0o644)];
        let dir = unpacked(&[lower, upper]).unwrap();
        assert_eq!(read(&dir, "etc/a"), None);
        assert_eq!(read(&dir, "etc/b").as_deref(), Some("b"));
        assert_eq!(read(&dir, "d/x"), None);
        assert_eq!(read(&dir, "d/new").as_deref(), Some("n"));
        assert_eq!(read(&dir, "etc/.wh.a"), None);
    }

    #[test]
    fn devices_and_pipes_are_refused_by_name() {
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
            let error = unpacked(&[&[Kind("dev/null", kind)]]).unwrap_err().to_string();
            assert!(error.contains("`dev/null`"), "{error}");
        }
    }

    #[test]
    fn sealed_files_cannot_be_written_and_set_nobodys_id() {
        let dir = unpacked(&[&[Plain("run", "x", 0o4755), Plain("data", "x", 0o200)]]).unwrap();
        let tree = dir.path().join("tree");
        seal(&tree).unwrap();
        let mode = |name: &str| fs::metadata(tree.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("run"), mode("data"), mode("")), (0o555, 0o400, 0o555));
        super::super::durable::remove_tree(&tree).unwrap();
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let whole = tar_of(&[Plain("a", &"x".repeat(2000), 0o644)]);
        let dir = tempfile::tempdir().unwrap();
        assert!(layer(&whole[..1000], dir.path(), SMALL).is_err());
        assert!(layer(&whole[..512 + 1999], dir.path(), SMALL).is_err());
    }

    /// As `umoci insert` writes it.
    #[test]
    fn a_stream_may_end_with_the_content_of_its_last_entry() {
        let whole = tar_of(&[Plain("a", "first", 0o644), Plain("b", "second", 0o644)]);
        let dir = tempfile::tempdir().unwrap();
        layer(&whole[..3 * 512 + "second".len()], dir.path(), SMALL).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "second");
    }

    /// Why a layer was not unpacked, with the cause.
    fn refusal(archive: &[u8], room: Room) -> String {
        let dir = tempfile::tempdir().unwrap();
        let error = layer(archive, dir.path(), room).unwrap_err();
        let written: u64 =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(written <= room.bytes, "{written} bytes were written");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_fills_the_disk() {
        let large = "x".repeat(40_000);
        let bomb = tar_of(&[Plain("a", &large, 0o644), Plain("b", &large, 0o644)]);
        let said = refusal(&bomb, Room { bytes: 50_000, ..SMALL });
        assert!(said.contains("far more than its own size"), "{said}");
        let said = refusal(&tar_of(&[Dir("a"), Dir("b"), Dir("c")]), Room { entries: 2, ..SMALL });
        assert!(said.contains("more than 2 entries"), "{said}");
        let behind_the_end = [tar_of(&[Dir("a")]), vec![0; 50_000]].concat();
        let said = refusal(&behind_the_end, Room { bytes: 50_000, ..SMALL });
        assert!(said.contains("far more than its own size"), "{said}");
    }

    #[test]
    fn a_name_without_end_is_not_held_in_memory() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(HEAD_BYTES);
        header.set_cksum();
        builder.append(&header, io::repeat(b'x').take(HEAD_BYTES)).unwrap();
        let archive = builder.into_inner().unwrap();
        let said = refusal(&archive, Room { bytes: u64::MAX, ..SMALL });
        assert!(said.contains("far more than its own size"), "{said}");
    }

    /// A sparse file needs no bytes in the archive: what it becomes is counted, not what it takes.
    #[test]
    fn a_sparse_file_as_long_as_it_likes_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_path("sparse").unwrap();
        header.set_entry_type(EntryType::GNUSparse);
        header.set_mode(0o644);
        header.set_size(0);
        // 8 GiB, of which the last 0 bytes are there.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize.copy_from_slice(b"77777777777\0");
        gnu.sparse[0].offset.copy_from_slice(b"77777777777\0");
        gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, io::empty()).unwrap();
        let said = refusal(&builder.into_inner().unwrap(), SMALL);
        assert!(said.contains("`sparse`") && said.contains("far more than its own size"), "{said}");
    }

    /// CVE-2025-62518 (tokio-tar), CVE-2026-33056 (tar): two sizes of one entry, and what one reader skips as content
    /// another one takes for the next entry.
    #[test]
    fn an_entry_hidden_in_another_is_not_seen() {
        let hidden = tar_of(&[Plain("evil", "x", 0o644)]);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("size", hidden.len().to_string().as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("outer").unwrap();
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, hidden.as_slice()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        layer(builder.into_inner().unwrap().as_slice(), dir.path(), SMALL).unwrap();
        assert_eq!(fs::read(dir.path().join("outer")).unwrap(), hidden, "the size of the extension holds");
        assert!(!dir.path().join("evil").exists());
    }

    /// Paths and link targets that try every way out.
    fn any_path() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("a"),
            Just("b"),
            Just(".."),
            Just("."),
            Just(""),
            Just(".wh.a"),
            Just(".wh..wh..opq")
        ];
        proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #[test]
        fn no_archive_reaches_what_is_outside(entries in proptest::collection::vec((0..4, any_path(), any_path()), 1..12)) {
            let dir = tempfile::tempdir().unwrap();
            let tree = dir.path().join("deep/tree");
            fs::create_dir_all(&tree).unwrap();
            for name in ["a", "b", "deep/a", "deep/b"] {
                fs::write(dir.path().join(name), "outside").unwrap();
            }
            for (kind, path, to) in &entries {
                let item = match kind {
                    0 => Plain(path, "inside", 0o644),
                    1 => Dir(path),
                    2 => Link(path, to),
                    _ => Hard(path, to),
                };
                // An archive may be refused; what matters is what it could reach before.
                let _ = layer(tar_of(&[item]).as_slice(), &tree, SMALL);
            }
            let mut left: Vec<_> = fs::read_dir(dir.path().join("deep")).unwrap().map(|e| e.unwrap().file_name()).collect();
            left.sort();
            prop_assert_eq!(left, ["a", "b", "tree"]);
            prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
            for name in ["a", "b", "deep/a", "deep/b"] {
                prop_assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "outside");
            }
        }
    }
}

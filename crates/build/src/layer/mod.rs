//! Layer: the tar stream of a layer of an image, read as something that anyone may have made.
//!
//! A digest says that bytes are the ones that were asked for, not that they mean well: a few kilobytes can unpack to a
//! full disk, a name can be as long as the memory, a path can lead out. Whoever reads a layer reads it here, within
//! limits, and what goes beyond them is an error that names the limit.
//!
//! Source: image-spec 1.1, `layer.md`.

mod listing;
mod unpacked;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use semel_oci::compression::{Compression, Padded, most_bytes};
use tar::EntryType;

use crate::collect::lexical;
pub(crate) use listing::Listing;
pub(crate) use unpacked::{Packed, UnpackError, Unpacked};

/// The tar stream of a layer that is a file, within its limit.
pub(crate) fn open(file: &Path, compression: Compression) -> io::Result<impl Read + use<>> {
    let stored = File::open(file)?;
    let size = stored.metadata()?.len();
    unpacked(BufReader::with_capacity(256 * 1024, stored), size, compression)
}

/// The tar stream of a layer of so many stored bytes, which fails where it becomes longer than [`most_bytes`] of them.
pub(crate) fn unpacked<'a>(
    stored: impl BufRead + 'a,
    stored_bytes: u64,
    compression: Compression,
) -> io::Result<impl Read + 'a> {
    let most = most_bytes(stored_bytes);
    Ok(Bounded { stream: compression.decode(stored)?, left: most, most })
}

/// Whether a layer of this type is a tar file that is read here.
pub fn is_layer(media_type: &str) -> bool {
    Compression::of_layer(media_type).is_some()
}

/// The tar stream of a layer whose bytes lie in a file; none: it is no tar file, or one that is not read here.
pub fn layer_tar(media_type: &str, file: &Path) -> Option<io::Result<impl Read + use<>>> {
    Some(open(file, Compression::of_layer(media_type)?))
}

/// What a layer is refused for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It unpacks to too much.
    #[error("it unpacks to more than {most} bytes, which is the limit for a layer of its size")]
    Bytes { most: u64 },
    /// Too many files.
    #[error("with it the image has more than {most} entries, which is the limit")]
    Entries { most: u64 },
    /// Too many or too long names.
    #[error(
        "with it the names of the image's entries have more than {most} bytes together, which is the limit"
    )]
    Names { most: u64 },
    /// A name that no system could open.
    #[error("it has an entry whose name or link has {length} bytes; the limit is {PATH_BYTES_MAX}")]
    LongName { length: usize },
    /// Headers without an end.
    #[error("it has an entry with a header of more than {HEAD_BYTES_MAX} bytes, which is the limit")]
    Head,
    /// A path that leads out.
    #[error("its entry `{path}` leads out of the image")]
    Outside { path: String },
    /// A file with holes.
    #[error("its entry `{path}` is a sparse file, which a layer may not hold")]
    Sparse { path: String },
    /// A second name of what cannot have one.
    #[error("its entry `{path}` is a second name of `{first}`, which is no file of the image")]
    HardLink { path: String, first: String },
    /// A deletion of nothing.
    #[error("its entry `{path}` deletes nothing that could be there")]
    Whiteout { path: String },
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidData, refused)
    }
}

/// The length of a path that Linux opens (`PATH_MAX` of limits.h), in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// What may stand between the contents of two entries, in bytes: headers, long names, extensions. It is held in memory.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// No image has so many files.
const ENTRIES_MAX: u64 = 2_000_000;
/// Names of an image are held in memory; so many bytes at most.
pub(crate) const NAMES_BYTES_MAX: u64 = 512 << 20;

/// What the layers of one image may still bring.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    entries: u64,
    names_bytes: u64,
}

impl Default for Room {
    /// That of an image without layers.
    fn default() -> Self {
        Self { entries: ENTRIES_MAX, names_bytes: NAMES_BYTES_MAX }
    }
}

impl Room {
    fn take<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> Result<(), Refused> {
        let (path, link) = (entry.path_bytes().len(), link_of(entry).len());
        if path.max(link) > PATH_BYTES_MAX {
            return Err(Refused::LongName { length: path.max(link) });
        }
        let entries = self.entries.checked_sub(1);
        self.entries = entries.ok_or(Refused::Entries { most: ENTRIES_MAX })?;
        let names = self.names_bytes.checked_sub((path + link) as u64);
        self.names_bytes = names.ok_or(Refused::Names { most: NAMES_BYTES_MAX })?;
        Ok(())
    }
}

/// An entry of a layer that is being walked through.
pub(crate) type Entry<'a, R> = tar::Entry<'a, Heads<R>>;

/// Goes through the entries of a tar stream, and then to the end of the stream: what stands behind the last entry is
/// part of the layer too.
pub(crate) fn walk<R: Read>(
    tar: R,
    room: &mut Room,
    mut visit: impl FnMut(&mut Entry<'_, R>) -> io::Result<()>,
) -> io::Result<()> {
    let left = Rc::new(Cell::new(0));
    let content_end = Rc::new(Cell::new(0));
    let tar = Padded::new(tar, Rc::clone(&content_end));
    let mut archive = tar::Archive::new(Heads { tar, left: Rc::clone(&left) });
    let mut entries = archive.entries()?;
    loop {
        left.set(HEAD_BYTES_MAX);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry?;
        left.set(u64::MAX);
        content_end.set(entry.raw_file_position().saturating_add(entry.size()));
        let kind = entry.header().entry_type();
        if kind == EntryType::GNUSparse {
            return Err(Refused::Sparse { path: shown(&entry.path_bytes()) }.into());
        }
        room.take(&entry)?;
        if kind != EntryType::XGlobalHeader {
            visit(&mut entry)?;
        }
        io::copy(&mut entry, &mut io::sink())?;
    }
    left.set(u64::MAX);
    io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop)
}

/// The path of an entry in its one spelling, without a slash in front; empty for the top.
pub(crate) fn path_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, Refused> {
    inside(&entry.path_bytes())
}

/// The path of the file that a hard link is a second name of.
pub(crate) fn first_name_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, Refused> {
    inside(&link_of(entry))
}

/// What a link says, as raw bytes.
pub(crate) fn link_of<'a, R: Read>(entry: &'a tar::Entry<'_, R>) -> std::borrow::Cow<'a, [u8]> {
    entry.link_name_bytes().unwrap_or_default()
}

fn inside(path: &[u8]) -> Result<Vec<u8>, Refused> {
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(Refused::Outside { path: shown(path) });
    }
    Ok(lexical(path))
}

/// What an entry hides of the layers below its own (layer.md, "Whiteouts").
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whiteout<'a> {
    /// This path, and everything in it.
    Itself { dir: &'a [u8], name: &'a [u8] },
    /// Everything in this directory.
    Inside(&'a [u8]),
}

impl<'a> Whiteout<'a> {
    /// By the path of the entry; none: it is an entry as any other.
    pub(crate) fn of(path: &'a [u8]) -> Result<Option<Self>, Refused> {
        let (dir, base) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        match base.strip_prefix(b".wh.") {
            None => Ok(None),
            Some(b".wh..opq") => Ok(Some(Self::Inside(dir))),
            Some(b"" | b"." | b"..") => Err(Refused::Whiteout { path: shown(path) }),
            Some(name) => Ok(Some(Self::Itself { dir, name })),
        }
    }
}

pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// A stream that fails, rather than ends, where it becomes too long.
struct Bounded<R> {
    stream: R,
    left: u64,
    most: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.stream.read(buffer)?;
        self.left = self.left.checked_sub(some as u64).ok_or(Refused::Bytes { most: self.most })?;
        Ok(some)
    }
}

/// A stream that fails where too much of it stands between the contents of two entries.
pub(crate) struct Heads<R> {
    tar: Padded<R>,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Heads<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.tar.read(buffer)?;
        self.left.set(self.left.get().checked_sub(some as u64).ok_or(Refused::Head)?);
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    /// A tar file of empty files.
    fn files<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            builder.append_data(&mut header(EntryType::Regular, 0), name, io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn refusal(tar: &[u8], mut room: Room) -> String {
        walk(tar, &mut room, |entry| Ok(path_of(entry).map(drop)?)).unwrap_err().to_string()
    }

    #[test]
    fn an_image_has_only_so_many_entries_and_names() {
        let tar = files(["a", "b", "c"]);
        let room = |entries, names_bytes| Room { entries, names_bytes };
        let mut enough = room(6, 6);
        for _ in 0..2 {
            walk(tar.as_slice(), &mut enough, |_| Ok(())).unwrap();
        }
        assert!(refusal(&tar, enough).contains("more than 2000000 entries"));
        assert!(refusal(&tar, room(2, 100)).contains("more than 2000000 entries"));
        assert!(refusal(&tar, room(100, 2)).contains("more than 536870912 bytes together"));
    }

    #[test]
    fn what_stands_in_front_of_an_entry_is_not_held_in_memory_without_an_end() {
        let mut builder = tar::Builder::new(Vec::new());
        let name = vec![b'x'; 2 << 20];
        let mut long = header(EntryType::GNULongName, name.len() as u64);
        builder.append_data(&mut long, "././@LongLink", name.as_slice()).unwrap();
        assert!(
            refusal(&builder.into_inner().unwrap(), Room::default())
                .contains("a header of more than 1048576")
        );
        let long = "x".repeat(PATH_BYTES_MAX + 1);
        assert!(refusal(&files([long.as_str()]), Room::default()).contains("4097 bytes; the limit is 4096"));
    }

    #[test]
    fn a_layer_may_end_with_the_content_of_its_last_entry_and_not_within() {
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["a", "b"] {
            builder.append_data(&mut header(EntryType::Regular, 3), name, &b"abc"[..]).unwrap();
        }
        let tar = builder.into_inner().unwrap();
        let walked = |end: usize| {
            let mut found = Vec::new();
            walk(&tar[..end], &mut Room::default(), |entry| entry.read_to_end(&mut found).map(drop))?;
            io::Result::Ok(found)
        };
        for end in [3 * 512 + 3, 3 * 512 + 400, 4 * 512, tar.len()] {
            assert_eq!(walked(end).unwrap(), b"abcabc", "{end}");
        }
        for end in [512, 512 + 1, 2 * 512 + 1, 3 * 512, 3 * 512 + 2] {
            assert!(walked(end).is_err(), "{end}");
        }
    }

    #[test]
    fn a_whiteout_says_what_it_hides() {
        let itself = |dir: &'static str, name: &'static str| {
            Some(Whiteout::Itself { dir: dir.as_bytes(), name: name.as_bytes() })
        };
        for (path, hides) in [
            ("etc/passwd", None),
            ("etc/.wh.passwd", itself("etc", "passwd")),
            (".wh.etc", itself("", "etc")),
            ("etc/.wh..wh..opq", Some(Whiteout::Inside(b"etc"))),
            (".wh..wh..opq", Some(Whiteout::Inside(b""))),
            ("a/.wh", None),
        ] {
            assert_eq!(Whiteout::of(path.as_bytes()).unwrap(), hides, "{path}");
        }
        for path in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(Whiteout::of(path.as_bytes()).is_err(), "{path}");
        }
    }
}

//! The tar bytes of packaging format 1; [`crate::compress`] compresses them.
//!
//! These bytes are frozen: a change here is a new format number. Source: POSIX.1-2017 `pax`, "ustar Interchange Format" and
//! "pax Interchange Format".

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

use semel_model::digest::Digest;
use semel_model::project::Compression;

use crate::compress::Compressor;

const BLOCK: usize = 512;
/// The largest number that eleven octal digits hold.
const LARGEST: u64 = 0o777_7777_7777;

/// Writes one layer: tar, hashed, compressed, hashed again.
pub(crate) struct LayerWriter<W> {
    to: Compressor<W>,
    mtime: u64,
}

/// A finished layer.
pub(crate) struct Layer {
    /// The digest of the tar bytes.
    pub(crate) diff_id: Digest,
    /// How many tar bytes there are.
    pub(crate) tar_size: u64,
    /// The digest of the compressed bytes.
    pub(crate) digest: Digest,
    /// How many compressed bytes there are.
    pub(crate) size: u64,
}

impl<W: Write + Send + 'static> LayerWriter<W> {
    /// Starts a layer whose entries all carry this time, in seconds, and that at most so many threads compress.
    pub(crate) fn new(inner: W, mtime: u64, compression: Compression, threads: NonZeroUsize) -> Self {
        Self { to: Compressor::new(inner, compression, threads), mtime }
    }

    pub(crate) fn directory(&mut self, path: &[u8]) -> io::Result<()> {
        self.header(&[path, b"/"].concat(), b'5', 0o755, 0, b"")
    }

    pub(crate) fn symlink(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        self.header(path, b'2', 0o777, 0, target)
    }

    /// Writes a file of exactly `size` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when there are fewer, [`io::ErrorKind::InvalidData`] when there are more.
    pub(crate) fn file(
        &mut self,
        path: &[u8],
        mode: u32,
        size: u64,
        mut content: impl Read,
    ) -> io::Result<()> {
        self.header(path, b'0', mode, size, b"")?;
        if self.to.take_from(&mut content, size)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if content.read(&mut [0])? != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.pad(size)
    }

    /// Ends the layer.
    pub(crate) fn finish(mut self) -> io::Result<Layer> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        let mut done = self.to.finish()?;
        done.inner.flush()?;
        Ok(Layer { diff_id: done.plain, tar_size: done.plain_size, digest: done.digest, size: done.size })
    }

    fn header(&mut self, path: &[u8], kind: u8, mode: u32, size: u64, link: &[u8]) -> io::Result<()> {
        let split = split_path(path);
        let mut records = Vec::new();
        if split.is_none() {
            records.extend(record("path", path));
        }
        if link.len() > 100 {
            records.extend(record("linkpath", link));
        }
        if size > LARGEST {
            records.extend(record("size", size.to_string().as_bytes()));
        }
        if self.mtime > LARGEST {
            records.extend(record("mtime", self.mtime.to_string().as_bytes()));
        }
        if !records.is_empty() {
            let head = ustar(
                b"././@PaxHeader",
                b"",
                b'x',
                0o644,
                records.len() as u64,
                self.mtime.min(LARGEST),
                b"",
            );
            self.to.write_all(&head)?;
            self.to.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let (prefix, name) = split.unwrap_or((b"", &path[..path.len().min(100)]));
        let size = if size > LARGEST { 0 } else { size };
        let link = &link[..link.len().min(100)];
        self.to.write_all(&ustar(name, prefix, kind, mode, size, self.mtime.min(LARGEST), link))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
        if over == 0 { Ok(()) } else { self.to.write_all(&[0; BLOCK][over..]) }
    }
}

/// One header block.
fn ustar(name: &[u8], prefix: &[u8], kind: u8, mode: u32, size: u64, mtime: u64, link: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(329, b"0000000");
    put(337, b"0000000");
    put(345, prefix);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// The path as `prefix` and `name`, if it fits: the shortest prefix that leaves at most 100 bytes.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes
        .filter(|at| (1..=155).contains(at))
        .map(|at| (&path[..at], &path[at + 1..]))
        .find(|(_, name)| (1..=100).contains(&name.len()))
}

/// `LENGTH KEY=VALUE<NEWLINE>`, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use flate2::read::GzDecoder;

    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    fn layer(compression: Compression, fill: impl FnOnce(&mut LayerWriter<File>)) -> (Vec<u8>, Layer) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = LayerWriter::new(file.reopen().unwrap(), 1_700_000_000, compression, TWO);
        fill(&mut writer);
        let layer = writer.finish().unwrap();
        (std::fs::read(file.path()).unwrap(), layer)
    }

    #[test]
    fn another_reader_finds_what_was_written_whatever_the_length_of_its_name() {
        let paths: Vec<Vec<u8>> = vec![
            b"a".to_vec(),
            "ö/\u{1f600}".into(),
            b"not \xff utf-8\n".to_vec(),
            [b"d/".as_slice(), &[b'n'; 98]].concat(),
            [&[b'd'; 120], b"/".as_slice(), &[b'n'; 90]].concat(),
            [&[b'd'; 160], b"/".as_slice(), &[b'n'; 90]].concat(),
            vec![b'x'; 255],
        ];
        let (bytes, _) = layer(Compression::Gzip, |layer| {
            for path in &paths {
                layer.file(path, 0o755, 3, &b"abc"[..]).unwrap();
            }
            layer.symlink(b"short", b"a").unwrap();
            layer.symlink(b"long", &[b't'; 150]).unwrap();
            layer.directory(b"dir").unwrap();
        });
        let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
                (1_700_000_000, 0, 0)
            );
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let link = entry.link_name_bytes().map(|bytes| bytes.len()).unwrap_or_default();
            found.push((entry.path_bytes().into_owned(), content.len(), link));
        }
        let mut expected: Vec<_> = paths.into_iter().map(|path| (path, 3, 0)).collect();
        expected.extend([(b"short".to_vec(), 0, 1), (b"long".to_vec(), 0, 150), (b"dir/".to_vec(), 0, 0)]);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_bytes_of_a_layer_are_frozen() {
        let big: Vec<u8> =
            (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (compression, digest) in [
            (Compression::Gzip, "sha256:eb51fc626503e405a79d56da96102bd6b708a60feec0ae9bb71a825cc005b19d"),
            (Compression::Zstd, "sha256:5345540b881c1c790102a80800ffaf5e8708360f92af8ab4856a7615c3c1f08c"),
        ] {
            let (bytes, written) = layer(compression, |layer| {
                layer.directory(b"app").unwrap();
                layer.file(b"app/api", 0o755, big.len() as u64, big.as_slice()).unwrap();
                layer.file(b"app/text", 0o644, 12_000, "some text\n\n\n".repeat(1000).as_bytes()).unwrap();
                layer.symlink(b"app/link", b"api").unwrap();
            });
            if compression == Compression::Gzip {
                assert_eq!(&bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
            }
            assert_eq!(written.size, bytes.len() as u64);
            assert_eq!(written.digest, Digest::of(&bytes));
            assert_eq!(
                written.diff_id.as_str(),
                "sha256:ce5338e8551d1a726ee6ffa2dc0c5a0465c89aa4d748c5ef31cf9e3993ea46bc"
            );
            assert_eq!(written.digest.as_str(), digest, "{compression:?}");
        }
    }

    #[test]
    fn a_file_that_is_longer_or_shorter_than_it_was_is_refused() {
        for (size, kind) in [(2, io::ErrorKind::InvalidData), (4, io::ErrorKind::UnexpectedEof)] {
            let mut writer = LayerWriter::new(Vec::new(), 0, Compression::Gzip, TWO);
            assert_eq!(writer.file(b"a", 0o644, size, &b"abc"[..]).unwrap_err().kind(), kind);
        }
    }
}

//! Bytes that can be read again from any position, and files of which it is known that they did not change meanwhile.

use std::future::ready;
use std::io::{self, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use semel_model::digest::{Algorithm, Digest, Hasher};
use semel_model::name::ComponentName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, ReadBuf, Take};

use crate::body::{BoxRead, CHUNK_BYTES};

/// Bytes that can be read again from any position: what a transfer needs to go on after a broken connection.
pub trait BlobSource: Send + Sync {
    /// Opens the bytes from a position on.
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>>;

    /// A repository of the registry that they are sent to which has them already.
    fn repository(&self) -> Option<&ComponentName> {
        None
    }
}

/// The bytes of a file, whatever they are by now.
#[derive(Debug, Clone)]
pub struct FileSource(pub PathBuf);

/// A stretch of a file as it was when it was looked at. Reading it fails when the file has changed since.
#[derive(Debug, Clone)]
pub struct Piece {
    path: PathBuf,
    offset: u64,
    size: u64,
    stamp: Stamp,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Piece {
    /// A whole file. Nothing is read yet.
    pub fn whole(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let (size, stamp) = (metadata.len(), Stamp::of(&metadata));
        Ok(Self { path: path.to_owned(), offset: 0, size, stamp })
    }

    /// A stretch of this one, which must lie inside.
    pub fn part(&self, offset: u64, size: u64) -> io::Result<Self> {
        match offset.checked_add(size) {
            Some(end) if end <= self.size => Ok(Self { offset: self.offset + offset, size, ..self.clone() }),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before it")),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All bytes in memory: for small ones.
    pub(crate) fn read_now(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        std::fs::File::open(&self.path)?.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }

    /// The first bytes, so many or all that there are.
    pub(crate) fn first(&self, most: usize) -> io::Result<Vec<u8>> {
        self.part(0, self.size.min(most as u64))?.read_now()
    }

    /// Hashes the bytes with SHA-256; memory does not grow with them.
    pub async fn digest(&self) -> io::Result<Digest> {
        self.digest_with(Algorithm::Sha256).await
    }

    pub(crate) async fn digest_with(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let mut reader = BlobSource::open(self, 0).await?;
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = Vec::with_capacity(CHUNK_BYTES);
        while reader.read_buf(&mut buffer).await? > 0 {
            hasher.update(&buffer);
            buffer.clear();
        }
        Ok(hasher.finish())
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl BlobSource for Bytes {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let reader: BoxRead = Box::pin(io::Cursor::new(self.slice(start..)));
        ready(Ok(reader)).boxed()
    }
}

impl BlobSource for FileSource {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        async move {
            let mut file = tokio::fs::File::open(&self.0).await?;
            file.seek(SeekFrom::Start(offset)).await?;
            Ok(Box::pin(file) as BoxRead)
        }
        .boxed()
    }
}

impl BlobSource for Piece {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        async move {
            let watched = std::fs::File::open(&self.path)?;
            let mut file = tokio::fs::File::from_std(watched.try_clone()?);
            file.set_max_buf_size(CHUNK_BYTES);
            file.seek(SeekFrom::Start(self.offset + offset)).await?;
            let inner = file.take(self.size.saturating_sub(offset));
            let unchanged = Unchanged { inner, watched, path: self.path.clone(), stamp: self.stamp };
            unchanged.check()?;
            Ok(Box::pin(unchanged) as BoxRead)
        }
        .boxed()
    }
}

/// Reads a file and fails, before it hands out the last bytes, when the file is not what it was.
struct Unchanged {
    inner: Take<tokio::fs::File>,
    watched: std::fs::File,
    path: PathBuf,
    stamp: Stamp,
}

impl Unchanged {
    fn check(&self) -> io::Result<()> {
        match Stamp::of(&self.watched.metadata()?) == self.stamp {
            true => Ok(()),
            false => Err(io::Error::other(format!("{} changed while it was read", self.path.display()))),
        }
    }
}

impl AsyncRead for Unchanged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let ended = self.inner.limit() == 0 || buf.filled().len() == before;
        if ended && let Err(changed) = self.check() {
            buf.set_filled(before);
            return Poll::Ready(Err(changed));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(piece: &Piece, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        BlobSource::open(piece, offset).await?.read_to_end(&mut bytes).await.map(|_| bytes)
    }

    #[tokio::test]
    async fn a_stretch_of_a_file_is_read_from_any_position_while_the_file_is_the_same() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(b"semel semel", 0).unwrap();
        let whole = Piece::whole(file.path()).unwrap();
        let part = whole.part(6, 5).unwrap();
        assert_eq!(
            (read(&part, 0).await.unwrap(), read(&part, 3).await.unwrap()),
            (b"semel".into(), b"el".into())
        );
        assert_eq!(part.digest().await.unwrap(), Digest::of(b"semel"));
        assert!(whole.part(6, 6).is_err() && whole.part(u64::MAX, 2).is_err());

        let mut open = BlobSource::open(&part, 0).await.unwrap();
        file.as_file().write_all_at(b"semel simul", 0).unwrap();
        let error = open.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("changed while it was read"), "{error}");
        assert!(read(&part, 0).await.is_err(), "nor is it opened any more");
    }
}

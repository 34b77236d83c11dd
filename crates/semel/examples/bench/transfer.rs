//! A large blob into `semel serve` and out again, and how much memory the server takes for it.

use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use semel_model::digest::{Algorithm, Digest, Hasher};
use semel_model::name::ComponentName;
use semel_oci::client::{BlobSource, RegistryClient};
use semel_oci::transport::{BoxRead, Transport};
use tokio::io::{AsyncRead, ReadBuf};

use crate::content::{MIB, block};
use crate::scratch::Scratch;
use crate::{Error, Line, memory};

const MEMORY_MIB: u64 = 64;

pub(crate) async fn measure(scratch: &Scratch, blob_mib: u64) -> Result<Vec<Line>, Error> {
    let content = Content { size: blob_mib * MIB };
    let started = Instant::now();
    let digest = content.digest();
    let hashed = started.elapsed();

    let mut server = Server::start(scratch)?;
    let client = RegistryClient::new(Transport::remote(&server.address)?);
    let name: ComponentName = "bench/large".parse()?;
    let started = Instant::now();
    client.put_blob(&name, &digest, content.size, &content).await?;
    let pushed = started.elapsed();
    let after_push = server.peak_memory_mib()?;
    let started = Instant::now();
    let mut fetched = client.get_blob(&name, &digest, Some(content.size)).await?;
    let bytes = tokio::io::copy(&mut fetched.reader, &mut tokio::io::sink()).await?;
    let pulled = started.elapsed();
    let peak = server.peak_memory_mib()?;
    server.stop()?;

    let blob = scratch.path("serve/blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let copied = copy_and_sync(&blob, &scratch.path("copy"))?;
    let rate = |took: Duration| format!("{:.0} MiB/s", (bytes / MIB) as f64 / took.as_secs_f64());
    let memory = |what: &str, mib: u64| {
        Line::at_most(
            format!("memory of the server {what}"),
            format!("{mib} MiB"),
            format!("< {MEMORY_MIB} MiB"),
            mib < MEMORY_MIB,
        )
    };
    Ok(vec![
        Line::fact("blob", format!("{blob_mib} MiB")),
        Line::fact("peer: SHA-256 on one core", rate(hashed)),
        Line::fact("peer: copy of the file, then fsync", rate(copied)),
        Line::fact("push", rate(pushed)),
        Line::fact("pull, verified by the client", rate(pulled)),
        memory("after the push (VmHWM)", after_push),
        memory("after the pull (VmHWM)", peak),
    ])
}

/// Bytes that are made as they are read, the same every time.
#[derive(Debug, Clone, Copy)]
struct Content {
    size: u64,
}

impl Content {
    fn digest(self) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let block = block();
        let mut left = self.size;
        while left > 0 {
            let length = left.min(MIB);
            hasher.update(&block[..usize::try_from(length).unwrap_or(block.len())]);
            left -= length;
        }
        hasher.finish()
    }
}

impl BlobSource for Content {
    fn open(&self, offset: u64) -> Pin<Box<dyn Future<Output = io::Result<BoxRead>> + Send + '_>> {
        let reader = ContentReader { block: block(), at: offset, size: self.size };
        Box::pin(async move { Ok(Box::pin(reader) as BoxRead) })
    }
}

struct ContentReader {
    block: Vec<u8>,
    at: u64,
    size: u64,
}

impl AsyncRead for ContentReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = usize::try_from(self.at % MIB).unwrap_or(0);
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let length = buffer.remaining().min(self.block.len() - start).min(left);
        buffer.put_slice(&self.block[start..start + length]);
        self.at += length as u64;
        Poll::Ready(Ok(()))
    }
}

/// `semel serve` on a store of its own.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(scratch: &Scratch) -> Result<Self, Error> {
        let store = scratch.path("serve").display().to_string();
        let mut command = scratch.semel(&["serve", "--listen", "127.0.0.1:0", "--store", &store]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.as_mut().ok_or("the server has a standard output")?;
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        Ok(Self { child, address: line.trim().to_owned() })
    }

    fn peak_memory_mib(&self) -> Result<u64, Error> {
        Ok(memory::of(self.child.id(), "VmHWM")?.div_ceil(MIB))
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only when the measurement failed is it still there.
        drop(self.stop());
    }
}

/// Through a buffer: a copy inside the kernel or a shared extent would be no peer.
fn copy_and_sync(from: &std::path::Path, to: &std::path::Path) -> Result<Duration, Error> {
    let started = Instant::now();
    let mut source = std::fs::File::open(from)?;
    let mut target = std::fs::File::options().write(true).create_new(true).open(to)?;
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            length => target.write_all(&buffer[..length])?,
        }
    }
    target.sync_all()?;
    Ok(started.elapsed())
}

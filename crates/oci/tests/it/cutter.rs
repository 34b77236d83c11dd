//! Transfers over a line that breaks again and again, and attempts that were killed.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use semel_model::digest::Digest;
use semel_oci::client::{BlobSource, Pushed};
use semel_oci::copy::{Endpoint, Event, Progress, Source, copy};
use semel_oci::descriptor::Descriptor;
use semel_oci::files::{self, FilesError, Overwrite};
use semel_oci::layout::Layout;
use semel_oci::manifest::{EncodedManifest, ImageManifest};
use semel_oci::media_type;
use semel_oci::transport::{BoxRead, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::artefacts::pattern;
use crate::registry::{Registry, patient};

const LARGE: usize = 6_000_000;

/// A proxy before a registry that cuts each connection after some bytes, in either direction. How many these are is
/// drawn from a fixed sequence; after `cuts` of them the line is good.
async fn cutter(registry: &Registry, cuts: u64) -> (Transport, Arc<AtomicU64>) {
    let address = registry.listen().await;
    let target = address.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = Transport::remote(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let counted = done.clone();
    tokio::spawn(async move {
        let mut drawn: u64 = 7;
        while let Ok((client, _)) = listener.accept().await {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let cut = (counted.load(Ordering::Relaxed) < cuts).then_some(100_000 + (drawn >> 33) % 1_500_000);
            tokio::spawn(pass_on(client, target.clone(), cut, counted.clone()));
        }
    });
    (transport, done)
}

async fn pass_on(client: TcpStream, target: String, cut: Option<u64>, cuts: Arc<AtomicU64>) {
    let server = TcpStream::connect(target).await.unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let limit = cut.unwrap_or(u64::MAX);
    let was_cut = tokio::select! {
        cut = carry(from_client, to_server, limit) => cut,
        cut = carry(from_server, to_client, limit) => cut,
    };
    cuts.fetch_add(u64::from(was_cut), Ordering::Relaxed);
}

/// Carries bytes until the limit, and says whether that was reached.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    limit: u64,
) -> bool {
    let mut left = limit;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return false };
        if to.write_all(&buffer[..read]).await.is_err() {
            return false;
        }
        left = left.saturating_sub(read as u64);
        if left == 0 {
            return true;
        }
    }
}

/// An artefact of three large blobs.
async fn stored(layout: &Layout) -> EncodedManifest {
    let mut layers = Vec::new();
    for first in [1_u8, 2, 3] {
        let bytes = [&[first], &pattern(LARGE)[..]].concat();
        layers.push(layout.add_bytes("application/octet-stream", &bytes).await.unwrap());
    }
    let config = layout.add_bytes(media_type::OCI_EMPTY, b"{}").await.unwrap();
    let artifact_type = Some("application/x".into());
    let annotations = Default::default();
    let manifest = ImageManifest { artifact_type, config, layers, subject: None, annotations }.encode();
    layout
        .put_manifest(&manifest.descriptor.digest, media_type::OCI_MANIFEST, &manifest.bytes, None)
        .await
        .unwrap();
    manifest
}

#[tokio::test]
async fn pushes_and_pulls_arrive_over_a_line_that_breaks_at_any_byte() {
    let directory = tempfile::tempdir().unwrap();
    let near = Layout::create(directory.path().join("near")).await.unwrap();
    let manifest = stored(&near).await;
    let digest = &manifest.descriptor.digest;
    let registry = Registry::default();
    let (transport, cuts) = cutter(&registry, 24).await;
    let far = Endpoint::Registry { client: patient(transport), name: "shop/api".parse().unwrap() };

    let told = Arc::new(AtomicU64::new(0));
    let heard = told.clone();
    let progress = Progress::to(move |event| {
        if let Event::Bytes(bytes) = event {
            heard.fetch_add(bytes, Ordering::Relaxed);
        }
    });
    let pushed = copy(&Endpoint::Layout(near), &far, digest, None, &progress).await.unwrap();
    assert_eq!((pushed.sent.blobs, pushed.sent.bytes), (4, 3 * (LARGE as u64 + 1) + 2));
    assert_eq!(told.load(Ordering::Relaxed), pushed.sent.bytes, "no byte counts twice");
    let cut_in_push = cuts.load(Ordering::Relaxed);
    assert!(cut_in_push > 3, "the line broke {cut_in_push} times");
    let received = registry.with(|state| state.received);
    assert!(received < 4 * LARGE, "{received} bytes were sent in all: what had arrived was not sent again");

    let (transport, cuts) = cutter(&registry, 24).await;
    let far = Endpoint::Registry { client: patient(transport), name: "shop/api".parse().unwrap() };
    let back = Layout::create(directory.path().join("back")).await.unwrap();
    copy(&far, &Endpoint::Layout(back.clone()), digest, None, &Progress::ignored()).await.unwrap();
    assert!(cuts.load(Ordering::Relaxed) > 3);
    let root = back.resolve(semel_oci::layout::Select::Digest(digest)).await.unwrap();
    for blob in back.closure(&root).await.unwrap().blobs {
        assert!(back.holds(&blob).await.unwrap());
    }
}

/// Gives so many bytes, then breaks; notes where it was asked to begin.
struct Breaking {
    bytes: Bytes,
    gives: usize,
    asked: Mutex<Vec<u64>>,
}

impl Breaking {
    fn after(bytes: &Bytes, gives: usize) -> Self {
        Self { bytes: bytes.clone(), gives, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap().clone()
    }
}

impl BlobSource for Breaking {
    fn open(&self, offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        self.asked.lock().unwrap().push(offset);
        let start = usize::try_from(offset).unwrap();
        let end = (start + self.gives).min(self.bytes.len());
        let mut pieces = vec![Ok(self.bytes.slice(start..end))];
        if end < self.bytes.len() {
            pieces.push(Err(io::Error::other("killed")));
        }
        let reader = tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces));
        std::future::ready(Ok(Box::pin(reader) as BoxRead)).boxed()
    }
}

fn leftovers(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "part")).collect()
}

#[tokio::test]
async fn what_an_attempt_left_is_not_fetched_again_unless_it_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).await.unwrap();
    let bytes = pattern(1_000_000);
    let blob = Descriptor::of("application/octet-stream", &bytes);

    assert!(layout.receive(&blob, &Breaking::after(&bytes, 300_000)).await.is_err());
    let second = Breaking::after(&bytes, 500_000);
    assert!(layout.receive(&blob, &second).await.is_err());
    assert_eq!((second.asked(), layout.blob_size(&blob.digest).await.unwrap()), (vec![300_000], None));
    let third = Breaking::after(&bytes, usize::MAX / 2);
    assert_eq!((layout.receive(&blob, &third).await.unwrap(), third.asked()), (800_000, vec![800_000]));
    assert!(layout.holds(&blob).await.unwrap() && leftovers(directory.path()).is_empty());

    // What a crash left may be anything: zeros, more than there can be, nothing.
    for (left, asked) in
        [(vec![0; 400_000], vec![400_000, 0]), (vec![0; 2_000_000], vec![0]), (vec![], vec![0])]
    {
        std::fs::remove_file(layout.blob_path(&blob.digest)).unwrap();
        let name = format!(".semel-{}.part", blob.digest.as_str().replace(':', "-"));
        std::fs::write(directory.path().join(name), left).unwrap();
        let again = Breaking::after(&bytes, usize::MAX / 2);
        assert_eq!((layout.receive(&blob, &again).await.unwrap(), again.asked()), (0, asked));
        assert!(layout.holds(&blob).await.unwrap());
    }

    let wrong = Descriptor::of("application/octet-stream", b"else");
    let wrong = Descriptor { size: blob.size, ..wrong };
    assert!(layout.receive(&wrong, &bytes).await.is_err());
    assert!(leftovers(directory.path()).is_empty(), "wrong bytes are not kept");
}

#[tokio::test]
async fn several_that_fetch_the_same_do_not_disturb_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).await.unwrap();
    let bytes = pattern(2_000_000);
    let blob = Descriptor::of("application/octet-stream", &bytes);
    let all = futures_util::future::join_all((0..8).map(|_| layout.receive(&blob, &bytes))).await;
    assert!(all.into_iter().all(|received| received.is_ok()));
    assert!(layout.holds(&blob).await.unwrap() && leftovers(directory.path()).is_empty());
}

#[tokio::test]
async fn a_registry_takes_a_blob_from_another_of_its_repositories() {
    let registry = Registry::default();
    let client = patient(Transport::remote(&registry.listen().await).unwrap());
    let digest = client.put_bytes(&"shop/api".parse().unwrap(), pattern(10)).await.unwrap();
    registry.with(|state| state.apart = true);
    let pushed = client.put_blob(&"other/name".parse().unwrap(), &digest, 10, &pattern(10)).await.unwrap();
    assert_eq!((pushed, registry.with(|state| state.received)), (Pushed::Mounted, 10));
}

#[tokio::test]
async fn files_are_written_whole_never_over_others_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::default();
    let client = registry.client();
    let name: semel_model::name::ComponentName = "shop/api".parse().unwrap();
    client.put_bytes(&name, pattern(500)).await.unwrap();
    let source = Source::from(&Endpoint::Registry { client, name });
    let place = directory.path().join("deep/a.bin");
    let wanted = [(place.clone(), Descriptor::of("application/octet-stream", &pattern(500)))];
    let write = |overwrite| {
        let (wanted, source) = (&wanted, &source);
        async move { files::write(wanted, source, overwrite, &Progress::ignored()).await }
    };
    let first = write(Overwrite::Refused).await.unwrap();
    assert_eq!((first.files, first.bytes, first.existing), (1, 500, 0));
    let again = write(Overwrite::Refused).await.unwrap();
    assert_eq!((again.files, again.existing), (0, 1));
    std::fs::write(&place, "mine").unwrap();
    let refused = write(Overwrite::Refused).await.unwrap_err();
    assert!(matches!(&refused, FilesError::Differ { paths } if *paths == [place.clone()]), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "mine");
    write(Overwrite::Forced).await.unwrap();
    assert_eq!(Digest::of(&std::fs::read(&place).unwrap()), Digest::of(&pattern(500)));
}

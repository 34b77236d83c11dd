//! The registry client.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Response, StatusCode};
use semel_model::digest::{Algorithm, Digest};
use semel_model::name::ComponentName;
use semel_oci::client::{BlobSource, ClientError, FileSource, Pushed, RegistryClient, Retry};
use semel_oci::descriptor::Descriptor;
use semel_oci::error::ErrorCode;
use semel_oci::manifest::{EncodedManifest, ImageManifest, Index};
use semel_oci::media_type;
use semel_oci::reference::TagOrDigest;
use semel_oci::transport::{Body, BoxRead, Transport};
use semel_oci::verify::Mismatch;
use tokio::io::AsyncReadExt as _;

use crate::artefacts::pattern;
use crate::registry::{Fault, Registry, always, patient};

const LARGE: usize = 3_000_000;

fn name() -> ComponentName {
    "shop/api".parse().unwrap()
}

fn tag(text: &str) -> TagOrDigest {
    TagOrDigest::Tag(text.parse().unwrap())
}

async fn read(mut reader: BoxRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.map(|_| bytes)
}

#[tokio::test]
async fn blobs_of_every_size_arrive_and_are_sent_once() {
    for length in [0, 1, 1024 * 1024, 1024 * 1024 + 1, LARGE] {
        let registry = Registry::default();
        let (bytes, client) = (pattern(length), registry.client());
        let digest = Digest::of(&bytes);
        assert!(!client.has_blob(&name(), &digest).await.unwrap());
        assert_eq!(client.put_blob(&name(), &digest, length as u64, &bytes).await.unwrap(), Pushed::Sent);
        assert_eq!(client.put_blob(&name(), &digest, length as u64, &bytes).await.unwrap(), Pushed::Existed);
        assert_eq!(
            registry.with(|state| (state.blobs[&digest].clone(), state.received)),
            (bytes.clone(), length)
        );
        for size in [None, Some(length as u64)] {
            let blob = client.get_blob(&name(), &digest, size).await.unwrap();
            assert_eq!(blob.size, Some(length as u64));
            assert_eq!(read(blob.reader).await.unwrap(), bytes);
        }
    }
}

#[tokio::test]
async fn a_file_is_sent_under_a_sha512_digest() {
    let registry = Registry::default();
    let directory = tempfile::tempdir().unwrap();
    let bytes = pattern(LARGE);
    std::fs::write(directory.path().join("x"), &bytes).unwrap();
    let digest = Digest::of_with(Algorithm::Sha512, &bytes);
    let source = FileSource(directory.path().join("x"));
    registry.with(|state| state.faults.push_back(Fault::BreakAfter(2_000_000)));
    registry.client().put_blob(&name(), &digest, LARGE as u64, &source).await.unwrap();
    assert_eq!(registry.with(|state| state.received), LARGE);
}

#[tokio::test]
async fn an_upload_goes_on_after_every_fault() {
    let cases: [(&[Fault], usize, usize); 8] = [
        (&[Fault::BreakAfter(1_000_000)], LARGE, LARGE),
        (&[Fault::BreakAfter(1_000_000), Fault::BreakAfter(500_000)], LARGE, LARGE),
        (&[Fault::BreakAfter(LARGE)], LARGE, LARGE),
        (&[Fault::Busy], LARGE, LARGE),
        (&[Fault::Forget], LARGE, LARGE),
        (&[Fault::LoseAnswer], LARGE, LARGE),
        // One byte is not told from none: the upload starts anew.
        (&[Fault::BreakAfter(1)], LARGE, LARGE + 1),
        // A small blob is sent again as a whole.
        (&[Fault::BreakAfter(10)], 1000, 1010),
    ];
    for (faults, length, received) in cases {
        let registry = Registry::default();
        registry.with(|state| state.faults.extend(faults));
        let bytes = pattern(length);
        let digest = Digest::of(&bytes);
        let pushed = registry.client().put_blob(&name(), &digest, length as u64, &bytes).await;
        assert_eq!(pushed.unwrap(), Pushed::Sent, "{faults:?}");
        assert_eq!(
            registry.with(|state| (state.blobs[&digest].clone(), state.received)),
            (bytes, received),
            "{faults:?}"
        );
    }
}

#[tokio::test]
async fn an_upload_gives_up_when_it_breaks_again_and_again() {
    let registry = Registry::default();
    registry.with(|state| state.faults.extend([Fault::Busy; 4]));
    let bytes = pattern(LARGE);
    let error =
        registry.client().put_blob(&name(), &Digest::of(&bytes), LARGE as u64, &bytes).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert!(error.entry().is_none() && error.to_string().contains("shop/api"), "{error}");
}

#[tokio::test]
async fn bytes_that_are_not_the_promised_ones_are_refused_by_the_registry() {
    let registry = Registry::default();
    let promised = Digest::of(b"other");
    let error = registry.client().put_blob(&name(), &promised, 5, &Bytes::from("semel")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::DigestInvalid));
}

struct Failing;

impl BlobSource for Failing {
    fn open(&self, _offset: u64) -> BoxFuture<'_, io::Result<BoxRead>> {
        let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
            Ok(pattern(1000)),
            Err(io::Error::other("the disk is gone")),
        ]));
        std::future::ready(Ok(Box::pin(broken) as BoxRead)).boxed()
    }
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_not_blamed_on_the_registry() {
    let registry = Registry::default();
    let remote = Transport::remote(&registry.listen().await).unwrap();
    for transport in [registry.transport(), remote] {
        let client = patient(transport);
        let error = client.put_blob(&name(), &Digest::of(b"x"), LARGE as u64, &Failing).await.unwrap_err();
        let ClientError::Source { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), "the disk is gone");
    }
    // A file that became shorter.
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x"), b"short").unwrap();
    let source = FileSource(directory.path().join("x"));
    let error = registry.client().put_blob(&name(), &Digest::of(b"x"), 100, &source).await.unwrap_err();
    assert!(matches!(error, ClientError::Source { .. }), "{error:?}");
}

#[tokio::test]
async fn a_forged_or_truncated_blob_is_refused_and_named() {
    let registry = Registry::default();
    let client = registry.client();
    let digest = client.put_bytes(&name(), pattern(LARGE)).await.unwrap();
    let mut forged = pattern(LARGE).to_vec();
    forged[LARGE - 1] ^= 1;
    for forged in [forged.into(), pattern(LARGE - 1), pattern(LARGE + 1), Bytes::new()] {
        registry.with(|state| state.forged = Some(forged));
        for size in [None, Some(LARGE as u64)] {
            let blob = client.get_blob(&name(), &digest, size).await.unwrap();
            let error = read(blob.reader).await.unwrap_err();
            let mismatch = Mismatch::of(&error).unwrap().to_string();
            assert!(mismatch.contains("shop/api") && mismatch.contains(digest.as_str()), "{mismatch}");
        }
    }
}

#[tokio::test]
async fn the_rest_of_a_blob_is_read_also_from_a_server_without_ranges() {
    let registry = Registry::default();
    let client = registry.client();
    client.put_bytes(&name(), pattern(1000)).await.unwrap();
    let blob = Descriptor::of("application/x", &pattern(1000));
    assert_eq!(read(client.read_blob(&name(), &blob, 900)).await.unwrap(), pattern(1000)[900..]);
    let whole = patient(always(|| Response::new(Body::full(pattern(1000)))));
    assert_eq!(read(whole.read_blob(&name(), &blob, 900)).await.unwrap(), pattern(1000)[900..]);
    let other_part = patient(always(|| {
        let part = Response::builder().status(206).header("content-range", "bytes 800-999/1000");
        part.body(Body::full(pattern(1000).slice(800..))).unwrap()
    }));
    let error = read(other_part.read_blob(&name(), &blob, 900)).await.unwrap_err();
    assert!(error.to_string().contains("shop/api"), "{error}");
}

/// A registry that gives these statuses one after the other, the last one for ever, and how often it was asked.
fn giving(statuses: &'static [u16]) -> (RegistryClient, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let client = patient(always(move || {
        let at = counted.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1);
        let answer = Response::builder().status(statuses[at]).header("retry-after", "0");
        answer.body(if statuses[at] == 200 { Body::full(plain().bytes) } else { Body::empty() }).unwrap()
    }));
    (client, asked)
}

#[tokio::test]
async fn what_passes_is_asked_again_and_a_refusal_is_not() {
    let cases: [(&'static [u16], Option<u16>, usize); 7] = [
        (&[200], None, 1),
        (&[503, 429, 502, 200], None, 4),
        (&[503], Some(503), 4),
        (&[429], Some(429), 4),
        (&[401], Some(401), 1),
        (&[404], Some(404), 1),
        (&[500], Some(500), 1),
    ];
    for (statuses, refused, times) in cases {
        let (client, asked) = giving(statuses);
        let manifest = client.get_manifest(&name(), &tag("1")).await;
        let status = manifest.err().map(|error| error.status().unwrap().as_u16());
        assert_eq!((status, asked.load(Ordering::Relaxed)), (refused, times), "{statuses:?}");
    }
    let (client, asked) = giving(&[503, 200]);
    assert!(client.has_blob(&name(), &Digest::of(b"x")).await.unwrap());
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_registry_that_never_answered_is_not_waited_for() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let pause = std::time::Duration::from_secs(3600);
    let client =
        RegistryClient::new(Transport::remote(&nobody).unwrap()).with_retry(Retry { times: 1, pause });
    let error = client.has_blob(&name(), &Digest::of(b"x")).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

fn evidence(subject: &Descriptor, kind: &str) -> EncodedManifest {
    ImageManifest::referrer(subject, kind, vec![Descriptor::empty()], Default::default()).encode()
}

fn plain() -> EncodedManifest {
    ImageManifest {
        artifact_type: Some(media_type::SEMEL_ARCHIVE.into()),
        config: Descriptor::empty(),
        layers: vec![],
        subject: None,
        annotations: Default::default(),
    }
    .encode()
}

#[tokio::test]
async fn manifests_come_back_byte_for_byte() {
    let registry = Registry::default();
    let client = registry.client();
    let EncodedManifest { bytes, descriptor } = plain();
    assert_eq!(client.head_manifest(&name(), &tag("1.4.2")).await.unwrap(), None);
    let error = client.get_manifest(&name(), &tag("1.4.2")).await.unwrap_err();
    assert!(error.is_not_found() && error.code() == Some(ErrorCode::ManifestUnknown), "{error:?}");
    let push = |reference| {
        let (client, bytes, media_type) = (client.clone(), bytes.clone(), descriptor.media_type.clone());
        async move { client.put_manifest(&name(), &reference, bytes, &media_type).await }
    };
    let error = push(tag("1.4.2")).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ManifestBlobUnknown));
    client.put_bytes(&name(), Bytes::from("{}")).await.unwrap();
    let pushed = push(tag("1.4.2")).await.unwrap();
    assert_eq!((&pushed.digest, pushed.subject), (&descriptor.digest, None));
    for reference in [tag("1.4.2"), TagOrDigest::Digest(descriptor.digest.clone())] {
        let head = client.head_manifest(&name(), &reference).await.unwrap().unwrap();
        assert_eq!((head.digest, head.size), (Some(descriptor.digest.clone()), Some(descriptor.size)));
        let manifest = client.get_manifest(&name(), &reference).await.unwrap();
        assert_eq!((manifest.bytes, &manifest.descriptor.digest), (bytes.clone(), &descriptor.digest));
        assert_eq!(manifest.parsed.artifact_type.as_deref(), Some(media_type::SEMEL_ARCHIVE));
    }
}

#[tokio::test]
async fn a_refusal_carries_the_words_of_the_registry() {
    let registry = Registry::default();
    let client = registry.client();
    client.put_bytes(&name(), Bytes::from("{}")).await.unwrap();
    let first = plain();
    client.put_manifest(&name(), &tag("1"), first.bytes.clone(), media_type::OCI_MANIFEST).await.unwrap();
    let other = evidence(&first.descriptor, "application/x");
    let error =
        client.put_manifest(&name(), &tag("1"), other.bytes, media_type::OCI_MANIFEST).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (Some(StatusCode::CONFLICT), Some(ErrorCode::Denied)));
    let text = format!(
        "cannot push shop/api:1: the registry answered 409 Conflict: DENIED: bound to {}",
        first.descriptor.digest
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_manifest_that_is_not_what_was_asked_for_is_refused() {
    let wanted = Digest::of(b"wanted");
    let said = wanted.clone();
    let lying = patient(always(move || {
        Response::builder()
            .header("docker-content-digest", said.as_str())
            .body(Body::full(plain().bytes))
            .unwrap()
    }));
    for reference in [TagOrDigest::Digest(wanted), tag("1")] {
        let error = lying.get_manifest(&name(), &reference).await.unwrap_err();
        assert!(matches!(error, ClientError::Damaged { .. }), "{error:?}");
    }
    let html = patient(always(|| Response::new(Body::full("<html>"))));
    let error = html.get_manifest(&name(), &tag("1")).await.unwrap_err();
    assert!(matches!(error, ClientError::Manifest { .. }), "{error:?}");
    let endless = patient(always(|| Response::new(Body::from_reader(tokio::io::repeat(b' '), None))));
    let error = endless.get_manifest(&name(), &tag("1")).await.unwrap_err();
    assert!(matches!(error, ClientError::Answer { .. }), "{error:?}");
    let wrong = Digest::of(b"else");
    let confused = patient(always(move || {
        Response::builder()
            .status(201)
            .header("docker-content-digest", wrong.as_str())
            .body(Body::empty())
            .unwrap()
    }));
    let pushed = confused.put_manifest(&name(), &tag("1"), plain().bytes, media_type::OCI_MANIFEST).await;
    assert!(matches!(pushed, Err(ClientError::Protocol { .. })));
}

#[tokio::test]
async fn an_upload_without_a_usable_address_is_an_error_and_no_panic() {
    for location in [None, Some("relative/path"), Some("http://"), Some("")] {
        let client = patient(always(move || {
            let answer = Response::builder().status(if location.is_none() { 404 } else { 202 });
            let answer = location.into_iter().fold(answer, |answer, text| answer.header("location", text));
            answer.body(Body::empty()).unwrap()
        }));
        let bytes = Bytes::from("semel");
        let missing = client.put_blob(&name(), &Digest::of(&bytes), 5, &bytes).await;
        assert!(missing.is_err(), "{location:?}");
    }
}

#[tokio::test]
async fn all_pages_of_tags_are_read() {
    let registry = Registry::default();
    let digest = Digest::of(b"x");
    let tags = ["1.0.0", "1.1.0", "1.2.0", "2.0.0", "latest"];
    registry.with(|state| state.tags.extend(tags.map(|tag| (tag.to_owned(), digest.clone()))));
    let listed = registry.client().tags(&name()).await.unwrap();
    assert_eq!(listed, tags.map(|tag| tag.parse().unwrap()));
    assert_eq!(registry.requests("GET"), 3);
    let empty = patient(always(|| Response::new(Body::full(r#"{"name":"a","tags":null}"#))));
    assert_eq!(empty.tags(&name()).await.unwrap(), []);
}

#[tokio::test]
async fn referrers_are_listed_also_by_registries_that_cannot() {
    let registry = Registry::default();
    let client = registry.client();
    client.put_bytes(&name(), Bytes::from("{}")).await.unwrap();
    let subject = plain();
    client.put_manifest(&name(), &tag("1"), subject.bytes.clone(), media_type::OCI_MANIFEST).await.unwrap();
    let (sbom, test) =
        (evidence(&subject.descriptor, "a/sbom+json"), evidence(&subject.descriptor, "a/test"));
    for manifest in [&sbom, &test] {
        let reference = TagOrDigest::Digest(manifest.descriptor.digest.clone());
        let pushed =
            client.put_manifest(&name(), &reference, manifest.bytes.clone(), media_type::OCI_MANIFEST).await;
        assert_eq!(pushed.unwrap().subject.as_ref(), Some(&subject.descriptor.digest));
    }
    let digest = subject.descriptor.digest.clone();
    assert_eq!(client.referrers(&name(), &digest).await.unwrap().len(), 2);
    assert_eq!(client.referrers(&name(), &Digest::of(b"none")).await.unwrap(), []);

    registry.with(|state| state.without_referrers = true);
    assert_eq!(client.referrers(&name(), &digest).await.unwrap(), []);
    let manifests = vec![sbom.descriptor, test.descriptor];
    let list =
        Index { artifact_type: None, manifests, subject: None, annotations: Default::default() }.encode();
    let fallback = tag(&digest.as_str().replace(':', "-"));
    client.put_manifest(&name(), &fallback, list.bytes, media_type::OCI_INDEX).await.unwrap();
    assert_eq!(client.referrers(&name(), &digest).await.unwrap().len(), 2);
}

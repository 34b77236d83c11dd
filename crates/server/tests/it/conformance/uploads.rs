//! Every way by which a blob comes in, and what goes wrong on the way.

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use semel_model::digest::{Algorithm, Digest};
use semel_oci::transport::Body;

use super::{ALGORITHMS, Registry};
use crate::{Heard, pattern, refused};

/// How a client sends the bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `POST ?digest=` with the bytes.
    Post,
    /// `POST`, then `PUT` with the bytes.
    PostPut,
    /// One chunk with its range, then an empty `PUT`.
    Chunk,
    /// Three chunks with their ranges, then an empty `PUT`.
    Chunks,
    /// Two chunks with their ranges, the third one with the `PUT`.
    LastChunkInPut,
    /// `PATCH` without a range and without a length, then an empty `PUT`.
    Stream,
}

const WAYS: [Way; 6] = [Way::Post, Way::PostPut, Way::Chunk, Way::Chunks, Way::LastChunkInPut, Way::Stream];

/// Sends a blob, and gives the answer to the request that ends it.
async fn push(registry: &Registry, way: Way, start: &str, bytes: &Bytes, digest: &Digest) -> Heard {
    if way == Way::Post {
        let path = format!("{start}?digest={digest}");
        return registry.send("POST", &path, &[], bytes.clone()).await;
    }
    let heard = registry.send("POST", start, &[], "").await;
    assert_eq!((heard.status, heard.header("range")), (202, "0-0"));
    let upload = heard.header("location");
    let finish = format!("{upload}?digest={digest}");
    let third = bytes.len() / 3;
    match way {
        Way::Post => unreachable!("it was sent above"),
        Way::PostPut => return registry.send("PUT", &finish, &[], bytes.clone()).await,
        Way::Chunk => chunk(registry, "PATCH", upload, bytes, 0, bytes.len()).await,
        Way::Chunks | Way::LastChunkInPut => {
            chunk(registry, "PATCH", upload, bytes, 0, third).await;
            chunk(registry, "PATCH", upload, bytes, third, 2 * third).await;
            if way == Way::LastChunkInPut {
                return chunk(registry, "PUT", &finish, bytes, 2 * third, bytes.len()).await;
            }
            chunk(registry, "PATCH", upload, bytes, 2 * third, bytes.len()).await
        }
        Way::Stream => {
            let heard = send_stream(registry, upload, bytes).await;
            assert_eq!((heard.status, heard.header("range")), (202, range(bytes.len()).as_str()));
            heard
        }
    };
    registry.send("PUT", &finish, &[], "").await
}

async fn chunk(
    registry: &Registry,
    method: &str,
    path: &str,
    bytes: &Bytes,
    from: usize,
    to: usize,
) -> Heard {
    // A chunk of no bytes cannot say its range.
    let content_range = format!("{from}-{}", to.saturating_sub(1));
    let headers: &[(&str, &str)] = if from < to { &[("content-range", &content_range)] } else { &[] };
    let heard = registry.send(method, path, headers, bytes.slice(from..to)).await;
    if method == "PATCH" {
        assert_eq!((heard.status, heard.header("range")), (202, range(to).as_str()), "{heard:?}");
        assert!(!heard.header("location").is_empty());
    }
    heard
}

async fn send_stream(registry: &Registry, upload: &str, bytes: &Bytes) -> Heard {
    let pieces: Vec<Bytes> = bytes.chunks(10_000).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(piece)));
    let body = Body::new(StreamBody::new(stream::iter(frames)));
    let answer = registry.transport.send(Request::patch(upload).body(body).unwrap()).await.unwrap();
    Heard::of(answer).await
}

/// How a server says that it has so many bytes of an upload. Of none it says the same as of one.
fn range(size: usize) -> String {
    format!("0-{}", size.saturating_sub(1))
}

#[tokio::test]
async fn a_blob_comes_in_by_every_way_of_the_specification() {
    let registry = Registry::new().await;
    for algorithm in ALGORITHMS {
        for (number, way) in WAYS.into_iter().enumerate() {
            for size in [0, 2, 4_096, 200_000] {
                let bytes = if size == 0 { Bytes::new() } else { pattern(size + number) };
                let digest = Digest::of_with(algorithm, &bytes);
                let start = registry.path("blobs/uploads/");
                let heard = push(&registry, way, &start, &bytes, &digest).await;
                let case = format!("{way:?} {digest} {size}");
                assert_eq!(
                    (heard.status, heard.header("docker-content-digest")),
                    (201, digest.as_str()),
                    "{case}: {heard:?}"
                );
                assert_eq!(registry.head(&format!("blobs/{digest}")).await.status, 200, "{case}");
                let got = registry.send("GET", heard.header("location"), &[], "").await;
                assert_eq!((got.status, got.body), (200, bytes), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn an_algorithm_may_be_announced_and_the_digest_at_the_end_decides() {
    let registry = Registry::new().await;
    let bytes = pattern(100_000);
    for announced in ALGORITHMS {
        let start = registry.path(&format!("blobs/uploads/?digest-algorithm={}", announced.as_str()));
        for algorithm in ALGORITHMS {
            for way in [Way::PostPut, Way::Chunks, Way::Stream] {
                let digest = Digest::of_with(algorithm, &bytes);
                let heard = push(&registry, way, &start, &bytes, &digest).await;
                assert_eq!(heard.status, 201, "{announced:?} {algorithm:?} {way:?}");
                let wrong = Digest::of_with(algorithm, b"something else");
                let heard = push(&registry, way, &start, &bytes, &wrong).await;
                assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
            }
        }
    }
    for unknown in ["md5", "sha384", ""] {
        let start = registry.path(&format!("blobs/uploads/?digest-algorithm={unknown}"));
        let heard = registry.send("POST", &start, &[], "").await;
        assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"), "{unknown}");
    }
}

#[tokio::test]
async fn a_wrong_digest_is_refused_by_every_way_and_nothing_becomes_visible() {
    let registry = Registry::new().await;
    for algorithm in ALGORITHMS {
        let wrong = Digest::of_with(algorithm, registry.component.as_bytes());
        for way in WAYS {
            for size in [0, 4_096, 200_000] {
                let bytes = [registry.component.as_bytes(), &pattern(size), b"?"].concat().into();
                let start = registry.path("blobs/uploads/");
                let heard = push(&registry, way, &start, &bytes, &wrong).await;
                assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"), "{way:?} {wrong}");
                assert!(heard.message().contains(wrong.as_str()), "{}", heard.message());
                for digest in [&wrong, &Digest::of_with(algorithm, &bytes)] {
                    assert_eq!(registry.head(&format!("blobs/{digest}")).await.status, 404, "{way:?}");
                }
            }
        }
    }
    for query in ["", "?digest=", "?digest=sha256:abc", "?digest=md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let upload = registry.start().await;
        let heard = registry.send("PUT", &format!("{upload}{query}"), &[], "semel").await;
        assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"), "{query}");
    }
}

#[tokio::test]
async fn a_refused_blob_leaves_nothing_behind() {
    let Some((registry, house)) = Registry::own().await else { return };
    let wrong = Digest::of(b"something else");
    for way in WAYS {
        push(&registry, way, &registry.path("blobs/uploads/"), &pattern(100_000), &wrong).await;
    }
    assert!(house.store.blobs().uploads().files().unwrap().is_empty());
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_with_the_place_to_go_on_and_the_session_survives() {
    let registry = Registry::new().await;
    let bytes = pattern(3_000);
    let digest = Digest::of(&bytes);
    let upload = registry.start().await;
    let finish = format!("{upload}?digest={digest}");
    let chunks = [(0, 1_000), (1_000, 2_000), (2_000, 3_000)];
    for (have, end) in chunks {
        // Every other chunk, also as the last one.
        let others = chunks.into_iter().filter(|(from, _)| *from != have);
        for (method, path, (from, to)) in
            others.flat_map(|other| [("PATCH", &upload, other), ("PUT", &finish, other)])
        {
            let content_range = format!("{from}-{}", to - 1);
            let headers = [("content-range", content_range.as_str())];
            let heard = registry.send(method, path, &headers, bytes.slice(from..to)).await;
            assert_eq!(heard.refusal(), refused(416, "BLOB_UPLOAD_INVALID"), "{method} {content_range}");
            let place = (upload.as_str(), range(have));
            assert_eq!((heard.header("location"), heard.header("range").to_owned()), place);
            for method in ["GET", "HEAD"] {
                let heard = registry.send(method, &upload, &[], "").await;
                assert_eq!((heard.status, heard.body.len()), (204, 0));
                assert_eq!((heard.header("location"), heard.header("range").to_owned()), place);
            }
        }
        if end < bytes.len() {
            chunk(&registry, "PATCH", &upload, &bytes, have, end).await;
        }
    }
    let heard = chunk(&registry, "PUT", &finish, &bytes, 2_000, 3_000).await;
    assert_eq!(heard.status, 201);
    assert_eq!(registry.send("GET", heard.header("location"), &[], "").await.body, bytes);
}

#[tokio::test]
async fn a_chunk_that_is_not_what_it_says_is_refused() {
    let registry = Registry::new().await;
    let upload = registry.start().await;
    for (said, size) in [("0-99", 10), ("0-9", 100), ("0-0", 2)] {
        let heard = registry.send("PATCH", &upload, &[("content-range", said)], pattern(size)).await;
        assert_eq!((heard.refusal(), heard.header("range")), (refused(400, "SIZE_INVALID"), "0-0"), "{said}");
    }
    for malformed in ["x", "bytes 0-9/10", "9-0", "0-", "-9", "0-9-", "+0-9", "0-99999999999999999999"] {
        let heard = registry.send("PATCH", &upload, &[("content-range", malformed)], pattern(10)).await;
        assert_eq!(heard.refusal(), refused(400, "BLOB_UPLOAD_INVALID"), "{malformed}");
    }
    chunk(&registry, "PATCH", &upload, &pattern(10), 0, 10).await;
}

#[tokio::test]
async fn an_upload_that_has_ended_is_gone() {
    let registry = Registry::new().await;
    let digest = Digest::of(b"semel");
    let end = |upload: &str, way: &str| match way {
        "cancelled" => ("DELETE", upload.to_owned(), 204),
        "finished" => ("PUT", format!("{upload}?digest={digest}"), 201),
        _ => ("PUT", format!("{upload}?digest={}", Digest::of(b"other")), 400),
    };
    for way in ["cancelled", "finished", "refused"] {
        let upload = registry.start().await;
        registry.send("PATCH", &upload, &[], "semel").await;
        let (method, path, status) = end(&upload, way);
        assert_eq!(registry.send(method, &path, &[], "").await.status, status, "{way}");
        for (method, query) in
            [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("PUT", &format!("?digest={digest}"))]
        {
            let heard = registry.send(method, &format!("{upload}{query}"), &[], "semel").await;
            assert_eq!(heard.refusal(), refused(404, "BLOB_UPLOAD_UNKNOWN"), "{way}: {method}");
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_here_is_mounted_without_its_bytes() {
    let registry = Registry::new().await;
    let other = registry.beside("other");
    for algorithm in ALGORITHMS {
        let bytes = registry.component.as_bytes();
        let digest = registry.push_blob_as(algorithm, Bytes::copy_from_slice(bytes)).await;
        for from in [format!("&from={}", registry.component), String::new()] {
            let path = other.path(&format!("blobs/uploads/?mount={digest}{from}"));
            let heard = other.send("POST", &path, &[], "").await;
            assert_eq!(
                (heard.status, heard.header("docker-content-digest")),
                (201, digest.as_str()),
                "{from}"
            );
            assert_eq!(heard.header("location"), other.path(&format!("blobs/{digest}")));
            assert_eq!(other.get(&format!("blobs/{digest}")).await.body, bytes);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_mounted_is_uploaded() {
    let registry = Registry::new().await;
    let bytes = Bytes::copy_from_slice(registry.component.as_bytes());
    let absent = Digest::of(&bytes);
    let other = registry.beside("other");
    let elsewhere = other.push_blob(format!("only in {}", other.component)).await;
    for query in [
        format!("mount={elsewhere}&from={}", registry.component),
        format!("mount={elsewhere}&from={}/none", registry.component),
        format!("mount={elsewhere}&from=Not/A/Name"),
        format!("mount={absent}&from={}", registry.component),
        format!("mount={absent}&from=no/such"),
        format!("mount={absent}"),
        "mount=sha256:abc&from=some/where".to_owned(),
        "mount=".to_owned(),
        "from=some/where".to_owned(),
    ] {
        let path = registry.path(&format!("blobs/uploads/?{query}"));
        let heard = registry.send("POST", &path, &[], "").await;
        assert_eq!((heard.status, heard.header("range")), (202, "0-0"), "{query}");
        assert_eq!(registry.send("DELETE", heard.header("location"), &[], "").await.status, 204);
    }
    let path = registry.path(&format!("blobs/uploads/?mount={absent}"));
    let heard = registry.send("POST", &path, &[], "").await;
    let finish = format!("{}?digest={absent}", heard.header("location"));
    assert_eq!(registry.send("PUT", &finish, &[], bytes).await.status, 201);
}

#[test]
fn any_split_into_chunks_gives_the_blob() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let registry = runtime.block_on(Registry::new());
    let splits = (prop::collection::vec(1..80_000_usize, 1..5), any::<bool>(), any::<bool>(), 0..2_usize);
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&splits, |(sizes, ranges, last_in_put, algorithm)| {
        runtime.block_on(push_split(&registry, &sizes, ranges, last_in_put, ALGORITHMS[algorithm]));
        Ok(())
    });
    checked.unwrap();
}

async fn push_split(
    registry: &Registry,
    sizes: &[usize],
    ranges: bool,
    last_in_put: bool,
    algorithm: Algorithm,
) {
    let bytes = pattern(sizes.iter().sum());
    let upload = registry.start().await;
    let finish = format!("{upload}?digest={}", Digest::of_with(algorithm, &bytes));
    let (mut from, mut finished) = (0, None);
    for (number, size) in sizes.iter().enumerate() {
        let piece = bytes.slice(from..from + size);
        let content_range = format!("{from}-{}", from + size - 1);
        let headers: &[(&str, &str)] = if ranges { &[("content-range", &content_range)] } else { &[] };
        from += size;
        if last_in_put && number + 1 == sizes.len() {
            finished = Some(registry.send("PUT", &finish, headers, piece).await);
        } else {
            let heard = registry.send("PATCH", &upload, headers, piece).await;
            assert_eq!((heard.status, heard.header("range")), (202, range(from).as_str()));
        }
    }
    let heard = match finished {
        Some(heard) => heard,
        None => registry.send("PUT", &finish, &[], "").await,
    };
    assert_eq!(heard.status, 201);
    assert_eq!(registry.send("GET", heard.header("location"), &[], "").await.body, bytes);
}

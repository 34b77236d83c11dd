//! Parts of a blob.

use super::Registry;
use crate::{pattern, refused};

#[tokio::test]
async fn parts_of_a_blob_are_fetched_by_range() {
    let registry = Registry::new().await;
    let bytes = pattern(3_000);
    let digest = registry.push_blob(bytes.clone()).await;
    let path = registry.path(&format!("blobs/{digest}"));
    let cases = [
        ("bytes=500-1499", 500..1500),
        ("bytes=500-", 500..3000),
        ("bytes=-500", 2500..3000),
        ("bytes=2000-5000", 2000..3000),
        ("bytes=0-0", 0..1),
        ("bytes=2999-2999", 2999..3000),
        ("bytes=0-2999", 0..3000),
        ("bytes=-9999", 0..3000),
        ("bytes=0-18446744073709551616", 0..3000),
        ("Bytes= 1-2 ", 1..3),
    ];
    for (range, part) in cases {
        let heard = registry.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, &heard.body[..]), (206, &bytes[part.clone()]), "{range}");
        assert_eq!(heard.header("content-range"), format!("bytes {}-{}/3000", part.start, part.end - 1));
        assert_eq!(heard.header("content-length"), part.len().to_string());
        assert_eq!(heard.header("docker-content-digest"), digest.as_str());
    }
}

#[tokio::test]
async fn a_range_without_a_byte_of_the_blob_is_refused_with_its_size() {
    let registry = Registry::new().await;
    let digest = registry.push_blob(pattern(3_000)).await;
    let path = registry.path(&format!("blobs/{digest}"));
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=3000-", "bytes=-0", "bytes=99999999999999999999-"]
    {
        let heard = registry.send("GET", &path, &[("range", range)], "").await;
        assert_eq!(heard.refusal(), refused(416, "SIZE_INVALID"), "{range}");
        assert_eq!(heard.header("content-range"), "bytes */3000", "{range}");
    }
    let empty = registry.push_blob("").await;
    let path = registry.path(&format!("blobs/{empty}"));
    assert_eq!(registry.send("GET", &path, &[("range", "bytes=0-0")], "").await.status, 416);
}

#[tokio::test]
async fn what_is_no_single_range_of_bytes_gets_the_whole() {
    let registry = Registry::new().await;
    let bytes = pattern(3_000);
    let digest = registry.push_blob(bytes.clone()).await;
    let path = registry.path(&format!("blobs/{digest}"));
    for range in ["bytes=0-1,5-6", "lines=0-1", "bytes", "bytes=a-b", "bytes=--1", "bytes=1 0-20"] {
        let heard = registry.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, &heard.body), (200, &bytes), "{range}");
    }
    let heard = registry.send("HEAD", &path, &[("range", "bytes=0-9")], "").await;
    assert_eq!((heard.status, heard.header("content-length")), (200, "3000"));
}

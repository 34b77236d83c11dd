//! Fetching content by its digest.

use bytes::Bytes;
use semel_model::digest::Digest;

use super::{ALGORITHMS, Registry};
use crate::{pattern, refused};

#[tokio::test]
async fn a_blob_comes_back_whole_whatever_its_size_and_algorithm() {
    let registry = Registry::new().await;
    let contents = [Bytes::new(), "{}".into(), pattern(1_024), pattern(65_536), pattern(300_000)];
    for algorithm in ALGORITHMS {
        for bytes in &contents {
            let digest = registry.push_blob_as(algorithm, bytes.clone()).await;
            for (method, body) in [("HEAD", Bytes::new()), ("GET", bytes.clone())] {
                let path = registry.path(&format!("blobs/{digest}"));
                let heard = registry.send(method, &path, &[], "").await;
                assert_eq!((heard.status, &heard.body), (200, &body), "{method} {digest}");
                let expected = [
                    ("content-length", bytes.len().to_string()),
                    ("content-type", "application/octet-stream".to_owned()),
                    ("docker-content-digest", digest.to_string()),
                    ("etag", format!("\"{digest}\"")),
                    ("accept-ranges", "bytes".to_owned()),
                    ("cache-control", "max-age=31536000, immutable".to_owned()),
                ];
                for (header, value) in expected {
                    assert_eq!(heard.header(header), value, "{method} {digest} {header}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_not_here_is_unknown() {
    let registry = Registry::new().await;
    for algorithm in ALGORITHMS {
        let rest = format!("blobs/{}", Digest::of_with(algorithm, b"never pushed"));
        assert_eq!(registry.get(&rest).await.refusal(), refused(404, "BLOB_UNKNOWN"));
        let heard = registry.head(&rest).await;
        assert_eq!((heard.status, heard.body.len()), (404, 0));
    }
}

#[tokio::test]
async fn a_blob_of_another_component_is_unknown_and_does_not_make_a_manifest_whole() {
    let registry = Registry::new().await;
    let other = registry.beside("other");
    let content = format!("only in {}", other.component);
    let image = other.prepare(&content).await;
    let rest = format!("blobs/{}", Digest::of(content.as_bytes()));
    assert_eq!(other.get(&rest).await.body, content);
    assert_eq!(registry.get(&rest).await.refusal(), refused(404, "BLOB_UNKNOWN"));
    assert_eq!(registry.delete(&rest).await.refusal(), refused(404, "BLOB_UNKNOWN"));
    assert_eq!(registry.put("latest", &image).await.refusal(), refused(400, "MANIFEST_BLOB_UNKNOWN"));
    // Who has the bytes may say so.
    registry.prepare(&content).await;
    assert_eq!(registry.put("latest", &image).await.status, 201);
    assert_eq!(registry.get(&rest).await.body, content);
}

#[tokio::test]
async fn a_digest_is_named_in_its_one_spelling() {
    let registry = Registry::new().await;
    let hex = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    registry.push_blob("{}").await;
    let spellings = [format!("sha256:{hex}"), format!("sha256%3A{hex}")];
    for good in spellings {
        assert_eq!(registry.get(&format!("blobs/{good}")).await.status, 200, "{good}");
    }
    let malformed = [
        "sha256".to_owned(),
        "sha256:".to_owned(),
        hex.to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("SHA256:{hex}"),
        format!("sha256:{hex}0"),
        format!("sha256:{}", &hex[1..]),
        format!("sha512:{hex}"),
        format!("sha384:{}", &[hex, hex].concat()[..96]),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
    ];
    for bad in malformed {
        assert_eq!(
            registry.get(&format!("blobs/{bad}")).await.refusal(),
            refused(400, "DIGEST_INVALID"),
            "{bad}"
        );
    }
}

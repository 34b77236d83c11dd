//! Conditional requests: what a client has already is not sent again, and what must be new is not overwritten.

use super::Registry;
use crate::{pattern, refused};

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let registry = Registry::new().await;
    let blob = registry.push_blob(pattern(2_000)).await;
    let image = registry.push("latest", "content").await.digest();
    let cases = [
        (format!("blobs/{blob}"), &blob),
        (format!("manifests/{image}"), &image),
        ("manifests/latest".to_owned(), &image),
    ];
    for (rest, digest) in cases {
        let path = registry.path(&rest);
        for method in ["GET", "HEAD"] {
            let has = [format!("\"{digest}\""), "*".to_owned(), format!("\"x\", W/\"{digest}\"")];
            for tags in has {
                let heard = registry.send(method, &path, &[("if-none-match", &tags)], "").await;
                assert_eq!((heard.status, heard.body.len()), (304, 0), "{method} {rest} {tags}");
                assert_eq!(heard.header("etag"), format!("\"{digest}\""));
            }
            for tags in ["\"x\"", digest.as_str(), ""] {
                let heard = registry.send(method, &path, &[("if-none-match", tags)], "").await;
                assert_eq!(heard.status, 200, "{method} {rest} {tags}");
            }
        }
    }
}

#[tokio::test]
async fn a_part_is_given_only_of_what_the_client_has_begun_to_fetch() {
    let registry = Registry::new().await;
    let digest = registry.push_blob(pattern(2_000)).await;
    let path = registry.path(&format!("blobs/{digest}"));
    let own = format!("\"{digest}\"");
    let weak = format!("W/{own}");
    let cases =
        [(own.as_str(), 206), ("\"another\"", 200), (&weak, 200), ("Sun, 22 Nov 2026 10:00:00 GMT", 200)];
    for (tag, status) in cases {
        let headers = [("range", "bytes=0-9"), ("if-range", tag)];
        assert_eq!(registry.send("GET", &path, &headers, "").await.status, status, "{tag}");
    }
}

#[tokio::test]
async fn a_name_that_must_be_new_is_refused_when_it_is_not() {
    let registry = Registry::new().await;
    let first = registry.prepare("first").await;
    let second = registry.prepare("second").await;
    let headers = [("content-type", first.media_type.as_str()), ("if-none-match", "*")];
    for reference in ["latest", "1.0.0", first.digest().as_str()] {
        let path = registry.path(&format!("manifests/{reference}"));
        let heard = registry.send("PUT", &path, &headers, first.bytes.clone()).await;
        // The digest is here since the first of the names.
        let is_digest = reference.starts_with("sha256:");
        assert_eq!(heard.status, if is_digest { 412 } else { 201 }, "{reference}");
        let again = if is_digest { [&first, &first] } else { [&first, &second] };
        for manifest in again {
            let heard = registry.send("PUT", &path, &headers, manifest.bytes.clone()).await;
            assert_eq!(heard.refusal(), refused(412, "DENIED"), "{reference}");
            assert_eq!(heard.detail()["bound"], first.digest().as_str(), "{reference}");
        }
        assert_eq!(registry.get(&format!("manifests/{reference}")).await.body, first.bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_create_one_name_one_does() {
    let registry = Registry::new().await;
    let mut images = Vec::new();
    for number in 0..12 {
        images.push(registry.prepare(&format!("image {number}")).await);
    }
    let path = registry.path("manifests/newest");
    let headers = [("content-type", images[0].media_type.as_str()), ("if-none-match", "*")];
    let pushes = images.iter().map(|image| registry.send("PUT", &path, &headers, image.bytes.clone()));
    let heard = futures_util::future::join_all(pushes).await;
    let created: Vec<usize> = (0..images.len()).filter(|index| heard[*index].status == 201).collect();
    let [winner] = created.as_slice() else { panic!("{created:?} were created") };
    for (number, loser) in heard.iter().enumerate().filter(|(number, _)| number != winner) {
        assert_eq!(loser.refusal(), refused(412, "DENIED"), "{number}");
        assert_eq!(loser.detail()["bound"], images[*winner].digest().as_str());
    }
    assert_eq!(registry.get("manifests/newest").await.body, images[*winner].bytes);
}

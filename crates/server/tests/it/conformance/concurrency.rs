//! Many clients at once.

use futures_util::future::{join, join_all};
use semel_model::digest::Digest;
use serde_json::json;

use super::Registry;
use crate::{pattern, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_blob_pushed_by_many_at_once_is_whole() {
    let registry = Registry::new().await;
    for size in [1_000, 300_000] {
        let bytes = pattern(size);
        let digest = Digest::of(&bytes);
        let at_once = registry.path(&format!("blobs/uploads/?digest={digest}"));
        let pushes = (0..16).map(|number| {
            let (registry, bytes, at_once, digest) = (&registry, bytes.clone(), &at_once, &digest);
            async move {
                if number % 2 == 0 {
                    return registry.send("POST", at_once, &[], bytes).await;
                }
                let upload = registry.start().await;
                let heard = registry.send("PATCH", &upload, &[], bytes).await;
                assert_eq!(heard.status, 202);
                registry.send("PUT", &format!("{upload}?digest={digest}"), &[], "").await
            }
        });
        for heard in join_all(pushes).await {
            assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
        }
        assert_eq!(registry.get(&format!("blobs/{digest}")).await.body, bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_artefact_pushed_by_many_at_once_is_stored_once() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    let digest = image.digest();
    let references = ["1.0.0", "latest", digest.as_str()];
    let pushes = (0..24).map(|number| registry.put(references[number % 3], &image));
    for heard in join_all(pushes).await {
        assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
    }
    for reference in references {
        assert_eq!(registry.get(&format!("manifests/{reference}")).await.body, image.bytes);
    }
    assert_eq!(registry.get("tags/list").await.json()["tags"], json!(["1.0.0", "latest"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_pushes_of_one_version_one_wins_and_the_others_are_told() {
    let registry = Registry::new().await;
    let mut images = Vec::new();
    for number in 0..50 {
        images.push(registry.prepare(&format!("image {number}")).await);
    }
    let heard = join_all(images.iter().map(|image| registry.put("1.0.0", image))).await;
    let winners: Vec<usize> = (0..50).filter(|number| heard[*number].status == 201).collect();
    let [winner] = winners.as_slice() else { panic!("{winners:?} won") };
    let bound = images[*winner].digest();
    for (number, loser) in heard.iter().enumerate().filter(|(number, _)| number != winner) {
        assert_eq!(loser.refusal(), refused(409, "DENIED"), "{number}");
        assert_eq!(loser.detail()["bound"], bound.as_str());
        assert!(loser.message().contains(bound.as_str()));
    }
    assert_eq!(registry.get("manifests/1.0.0").await.body, images[*winner].bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_channel_moved_by_many_at_once_points_to_one_of_them() {
    let registry = Registry::new().await;
    let mut images = Vec::new();
    for number in 0..10 {
        images.push(registry.prepare(&format!("image {number}")).await);
    }
    for heard in join_all(images.iter().map(|image| registry.put("latest", image))).await {
        assert_eq!(heard.status, 201);
    }
    let found = registry.get("manifests/latest").await;
    let image = images.iter().find(|image| image.bytes == found.body).unwrap();
    assert_eq!(found.header("docker-content-digest"), image.digest().as_str());
}

#[tokio::test]
async fn two_requests_to_one_upload_do_not_mix() {
    let registry = Registry::new().await;
    for size in [1_000, 100_000] {
        for _ in 0..10 {
            let (upload, bytes) = (registry.start().await, pattern(size));
            let range = format!("0-{}", size - 1);
            let headers = [("content-range", range.as_str())];
            let patch = || registry.send("PATCH", &upload, &headers, bytes.clone());
            let (one, two) = join(patch(), patch()).await;
            let mut statuses = [one.status, two.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [202, 416]);
            let finish = format!("{upload}?digest={}", Digest::of(&bytes));
            assert_eq!(registry.send("PUT", &finish, &[], "").await.status, 201);
        }
    }
}

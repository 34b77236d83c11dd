//! What is answered from memory: the same as without it.

use semel_model::digest::Digest;

use crate::House;

impl House {
    /// A number of the page of metrics.
    async fn measured(&self, name: &str) -> u64 {
        let page = String::from_utf8(self.get("/metrics").await.body.to_vec()).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse().unwrap()
    }
}

#[tokio::test]
async fn a_name_means_what_it_was_last_given() {
    let house = House::new().await;
    let path = "/v2/shop/api/manifests/latest";
    for content in ["a", "b", "a"] {
        let image = house.push("latest", content).await;
        for _ in 0..2 {
            let heard = house.get(path).await;
            assert_eq!((heard.status, heard.body), (200, image.bytes.clone()));
            let head = house.send("HEAD", path, &[], "").await;
            assert_eq!(head.header("docker-content-digest"), image.descriptor.digest.as_str());
            assert_eq!(head.header("content-length"), image.bytes.len().to_string());
        }
    }
    assert_eq!(house.send("DELETE", path, &[], "").await.status, 202);
    assert_eq!(house.get(path).await.status, 404);
}

#[tokio::test]
async fn the_second_answer_is_that_of_the_first_and_comes_from_memory() {
    let house = House::new().await;
    let image = house.push("1.0.0", "a").await;
    let digest = &image.descriptor.digest;
    let layer = Digest::of(b"a");
    for (hits, path) in [
        "/v2/shop/api/manifests/1.0.0".to_owned(),
        format!("/v2/shop/api/manifests/{digest}"),
        format!("/v2/shop/api/blobs/{layer}"),
    ]
    .iter()
    .enumerate()
    {
        let first = house.get(path).await;
        let second = house.get(path).await;
        assert_eq!((first.status, &first.headers, &first.body), (200, &second.headers, &second.body));
        assert_eq!(house.measured("semel_memory_hits_total").await, hits as u64 + 1);
    }
}

#[tokio::test]
async fn bytes_that_are_gone_are_missed_after_the_next_change() {
    let house = House::new().await;
    let image = house.push("1.0.0", "a").await;
    let layer = Digest::of(b"a");
    let paths = [
        ("/v2/shop/api/manifests/1.0.0".to_owned(), image.descriptor.digest.clone(), 500),
        (format!("/v2/shop/api/blobs/{layer}"), layer, 404),
    ];
    for (path, digest, _) in &paths {
        assert_eq!(house.get(path).await.status, 200);
        std::fs::remove_file(house.store.blobs().path(digest)).unwrap();
    }
    house.push("1.0.1", "b").await;
    for (path, _, status) in &paths {
        for method in ["GET", "HEAD"] {
            assert_eq!(house.send(method, path, &[], "").await.status, *status, "{method} {path}");
        }
    }
    assert_eq!(house.measured("semel_damaged_reads_total").await, 2);
}

#[tokio::test]
async fn a_part_of_a_small_blob_is_cut_from_memory() {
    let house = House::new().await;
    let digest = house.push_blob("semel factum").await;
    let path = format!("/v2/shop/api/blobs/{digest}");
    for (range, status, said) in [
        ("bytes=0-4", 206, "semel"),
        ("bytes=-6", 206, "factum"),
        ("bytes=6-99", 206, "factum"),
        ("bytes=12-", 416, ""),
    ] {
        let heard = house.send("GET", &path, &[("range", range)], "").await;
        assert_eq!(heard.status, status, "{range}");
        if status == 206 {
            assert_eq!(heard.body, said, "{range}");
        }
    }
}

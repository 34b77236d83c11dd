//! Uploads: every way by which a blob comes in, and what goes wrong on the way.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use semel_model::digest::Digest;

use crate::{House, pattern, refused};

const UPLOADS: &str = "/v2/shop/api/blobs/uploads/";

async fn start(house: &House) -> String {
    let heard = house.send("POST", UPLOADS, &[], "").await;
    assert_eq!(heard.status, 202);
    assert!(!heard.header("docker-upload-uuid").is_empty());
    heard.header("location").to_owned()
}

#[tokio::test]
async fn a_blob_comes_in_by_every_way_of_the_specification() {
    let house = House::new().await;
    for (way, bytes) in [
        ("at once", pattern(5_000)),
        ("put", pattern(5_001)),
        ("stream", pattern(5_002)),
        ("empty", Bytes::new()),
    ] {
        let digest = Digest::of(&bytes);
        let heard = match way {
            "at once" => house.send("POST", &format!("{UPLOADS}?digest={digest}"), &[], bytes.clone()).await,
            "stream" => {
                let upload = start(&house).await;
                let heard = house.send("PATCH", &upload, &[], bytes.clone()).await;
                assert_eq!((heard.status, heard.header("range")), (202, "0-5001"));
                house.send("PUT", &format!("{}?digest={digest}", heard.header("location")), &[], "").await
            }
            _ => {
                house
                    .send("PUT", &format!("{}?digest={digest}", start(&house).await), &[], bytes.clone())
                    .await
            }
        };
        assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()), "{way}");
        let got = house.get(heard.header("location")).await;
        assert_eq!((got.status, got.body), (200, bytes), "{way}");
    }
    assert_eq!(house.send("POST", &format!("{UPLOADS}?digest-algorithm=sha512"), &[], "").await.status, 202);
    let heard = house.send("POST", &format!("{UPLOADS}?digest-algorithm=md5"), &[], "").await;
    assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
}

#[tokio::test]
async fn a_blob_that_is_here_is_mounted_and_another_one_is_uploaded() {
    let house = House::new().await;
    let digest = house.push_blob("shared").await;
    for from in ["&from=shop/api", ""] {
        let heard =
            house.send("POST", &format!("/v2/other/blobs/uploads/?mount={digest}{from}"), &[], "").await;
        assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
        assert_eq!(heard.header("location"), format!("/v2/other/blobs/{digest}"));
    }
    let absent = Digest::of(b"absent");
    let heard =
        house.send("POST", &format!("/v2/other/blobs/uploads/?mount={absent}&from=shop/api"), &[], "").await;
    assert_eq!(heard.status, 202);
    let heard =
        house.send("PUT", &format!("{}?digest={absent}", heard.header("location")), &[], "absent").await;
    assert_eq!(heard.status, 201);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_by_every_way_and_leaves_nothing() {
    let house = House::new().await;
    let wrong = Digest::of(b"something else");
    let at_once = house.send("POST", &format!("{UPLOADS}?digest={wrong}"), &[], "semel").await;
    let put = house.send("PUT", &format!("{}?digest={wrong}", start(&house).await), &[], "semel").await;
    let upload = start(&house).await;
    house.send("PATCH", &upload, &[], "semel").await;
    let streamed = house.send("PUT", &format!("{upload}?digest={wrong}"), &[], "").await;
    for heard in [at_once, put, streamed] {
        assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
        assert!(heard.message().contains(wrong.as_str()), "{}", heard.message());
    }
    for digest in [&wrong, &Digest::of(b"semel")] {
        assert_eq!(house.get(&format!("/v2/shop/api/blobs/{digest}")).await.status, 404);
    }
    assert_eq!(std::fs::read_dir(house.store.dir().join("uploads")).unwrap().count(), 0);
    for query in ["", "?digest=sha256:abc"] {
        let heard = house.send("PUT", &format!("{}{query}", start(&house).await), &[], "semel").await;
        assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"));
    }
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_with_the_place_to_go_on_and_the_session_survives() {
    let house = House::new().await;
    let bytes = pattern(30);
    let digest = Digest::of(&bytes);
    let upload = start(&house).await;
    let finish = format!("{upload}?digest={digest}");
    let out_of_order =
        [("PATCH", upload.as_str(), "10-19"), ("PATCH", &upload, "20-29"), ("PUT", &finish, "25-29")];

    for (have, range) in [(0, "0-0"), (10, "0-9"), (20, "0-19")] {
        for (method, path, chunk) in
            out_of_order.iter().filter(|(_, _, chunk)| !chunk.starts_with(&format!("{have}-")))
        {
            let first: usize = chunk.split('-').next().unwrap().parse().unwrap();
            let last: usize = chunk.split('-').nth(1).unwrap().parse().unwrap();
            let heard =
                house.send(method, path, &[("content-range", chunk)], bytes.slice(first..=last)).await;
            assert_eq!(heard.refusal(), refused(416, "BLOB_UPLOAD_INVALID"));
            assert_eq!((heard.header("location"), heard.header("range")), (upload.as_str(), range));
            let heard = house.get(&upload).await;
            assert_eq!(
                (heard.status, heard.header("location"), heard.header("range")),
                (204, upload.as_str(), range)
            );
        }
        if have < 20 {
            let chunk = format!("{have}-{}", have + 9);
            let heard = house
                .send("PATCH", &upload, &[("content-range", &chunk)], bytes.slice(have..have + 10))
                .await;
            assert_eq!(heard.status, 202);
        }
    }
    let heard = house.send("PUT", &finish, &[("content-range", "20-29")], bytes.slice(20..)).await;
    assert_eq!(heard.status, 201);
    assert_eq!(house.get(heard.header("location")).await.body, bytes);
}

#[tokio::test]
async fn a_chunk_that_is_not_what_it_says_is_refused() {
    let house = House::new().await;
    let upload = start(&house).await;
    let heard = house.send("PATCH", &upload, &[("content-range", "0-99")], pattern(10)).await;
    assert_eq!((heard.refusal(), heard.header("range")), (refused(400, "SIZE_INVALID"), "0-0"));
    for bad in ["x", "bytes 0-9/10", "9-0"] {
        let heard = house.send("PATCH", &upload, &[("content-range", bad)], pattern(10)).await;
        assert_eq!(heard.refusal(), refused(400, "BLOB_UPLOAD_INVALID"), "{bad}");
    }
    let heard = house.send("PATCH", &upload, &[("content-range", "0-9")], pattern(10)).await;
    assert_eq!(heard.status, 202);
}

#[tokio::test]
async fn a_cancelled_upload_is_gone() {
    let house = House::new().await;
    let upload = start(&house).await;
    house.send("PATCH", &upload, &[], "semel").await;
    assert_eq!(house.send("DELETE", &upload, &[], "").await.status, 204);
    for (method, query) in [
        ("GET", String::new()),
        ("DELETE", String::new()),
        ("PUT", format!("?digest={}", Digest::of(b"semel"))),
    ] {
        let heard = house.send(method, &format!("{upload}{query}"), &[], "").await;
        assert_eq!(heard.refusal(), refused(404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
}

#[tokio::test]
async fn two_requests_to_one_session_do_not_mix() {
    let house = House::new().await;
    for _ in 0..20 {
        let (upload, bytes) = (start(&house).await, pattern(100_000));
        let headers = [("content-range", "0-99999")];
        let both = futures_util::future::join(
            house.send("PATCH", &upload, &headers, bytes.clone()),
            house.send("PATCH", &upload, &headers, bytes.clone()),
        );
        let (one, two) = both.await;
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 416]);
        let heard = house.send("PUT", &format!("{upload}?digest={}", Digest::of(&bytes)), &[], "").await;
        assert_eq!(heard.status, 201);
    }
}

#[test]
fn any_split_into_chunks_gives_the_blob() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let house = runtime.block_on(House::new());
    let cuts = (1..100_000usize, prop::collection::vec(0.0..1.0_f64, 0..6), any::<bool>(), any::<bool>());
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&cuts, |(length, cuts, ranges, last_in_put)| {
        runtime.block_on(push_in_chunks(&house, length, &cuts, ranges, last_in_put));
        Ok(())
    });
    checked.unwrap();
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a small length"
)]
async fn push_in_chunks(house: &House, length: usize, cuts: &[f64], ranges: bool, last_in_put: bool) {
    let bytes = pattern(length);
    let mut ends: Vec<usize> =
        cuts.iter().map(|share| (share * length as f64) as usize).chain([length]).collect();
    ends.sort_unstable();
    ends.dedup();
    let upload = start(house).await;
    let digest = Digest::of(&bytes);
    let mut begin = 0;
    let mut finished = None;
    for end in ends.into_iter().filter(|end| *end > 0) {
        let range = format!("{begin}-{}", end - 1);
        let headers: &[(&str, &str)] = if ranges { &[("content-range", &range)] } else { &[] };
        let chunk = bytes.slice(begin..end);
        if end == length && last_in_put {
            finished = Some(house.send("PUT", &format!("{upload}?digest={digest}"), headers, chunk).await);
        } else {
            let heard = house.send("PATCH", &upload, headers, chunk).await;
            assert_eq!((heard.status, heard.header("range")), (202, format!("0-{}", end - 1).as_str()));
        }
        begin = end;
    }
    let heard = match finished {
        Some(heard) => heard,
        None => house.send("PUT", &format!("{upload}?digest={digest}"), &[], "").await,
    };
    assert_eq!(heard.status, 201);
    assert_eq!(house.get(heard.header("location")).await.body, bytes);
}

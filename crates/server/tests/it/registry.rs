//! The registry: what each endpoint answers, and the rules of names.

use std::collections::BTreeMap;

use bytes::Bytes;
use semel_engine::pipeline;
use semel_model::digest::{Algorithm, Digest};
use semel_model::entry::{BuildReserved, Change, ComponentCreated, DeploymentStarted, DeploymentSucceeded};
use semel_model::pipeline::{Binding, Pipeline};
use semel_model::version::TagPolicy;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{EncodedManifest, ImageManifest, Index};
use semel_oci::media_type;
use semel_oci::reference::TagOrDigest;
use serde_json::json;

use crate::{Heard, House, config, image, name, now, pattern, refused};

#[tokio::test]
async fn the_base_says_that_this_is_a_registry() {
    let house = House::new().await;
    for path in ["/v2", "/v2/"] {
        let heard = house.get(path).await;
        assert_eq!((heard.status, &heard.body[..]), (200, b"{}".as_slice()));
        assert_eq!(heard.header("docker-distribution-api-version"), "registry/2.0");
    }
    assert_eq!(house.get("/healthz").await.status, 200);
    assert_eq!(house.get("/elsewhere").await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_the_code_of_the_specification() {
    let house = House::new().await;
    house.push("1.0.0", "a").await;
    let absent = Digest::of(b"absent");
    let cases = [
        ("GET", "/v2/shop", 404, "UNSUPPORTED"),
        ("GET", "/v2/A/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/shop/api/blobs/sha256:abc", 400, "DIGEST_INVALID"),
        ("GET", "/v2/shop/api/blobs/ABSENT", 404, "BLOB_UNKNOWN"),
        ("HEAD", "/v2/shop/api/blobs/ABSENT", 404, ""),
        ("DELETE", "/v2/shop/api/blobs/ABSENT", 405, "UNSUPPORTED"),
        ("PUT", "/v2/shop/api/blobs/ABSENT", 405, "UNSUPPORTED"),
        ("GET", "/v2/shop/api/manifests/ABSENT", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/shop/api/manifests/9.9.9", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/shop/api/manifests/-x", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/other/manifests/1.0.0", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/other/tags/list", 404, "NAME_UNKNOWN"),
        ("POST", "/v2/shop/api/manifests/1.0.0", 405, "UNSUPPORTED"),
        ("PUT", "/v2/shop/api/manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/shop/api/manifests/9.9.9", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "/v2/other/manifests/1.0.0", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/shop/api/blobs/uploads/", 405, "UNSUPPORTED"),
        ("GET", "/v2/shop/api/blobs/uploads/x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "/v2/shop/api/blobs/uploads/x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "/v2/shop/api/blobs/uploads/x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", "/v2/shop/api/blobs/uploads/x?digest=ABSENT", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("POST", "/v2/shop/api/tags/list", 405, "UNSUPPORTED"),
        ("POST", "/v2/_catalog", 405, "UNSUPPORTED"),
        ("GET", "/v2/shop/api/tags/list?n=x", 400, "UNSUPPORTED"),
        ("GET", "/v2/shop/api/referrers/x", 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/", 405, "UNSUPPORTED"),
    ];
    for (method, path, status, code) in cases {
        let heard = house.send(method, &path.replace("ABSENT", absent.as_str()), &[], "").await;
        if method == "HEAD" {
            assert_eq!((heard.status, heard.body.len()), (status, 0), "{method} {path}");
        } else {
            assert_eq!(heard.refusal(), refused(status, code), "{method} {path}");
            assert_eq!(heard.header("content-type"), "application/json");
        }
        assert!(status != 405 || !heard.header("allow").is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_blob_is_fetched_whole_and_never_changes() {
    let house = House::new().await;
    let bytes = pattern(300_000);
    let digest = house.push_blob(bytes.clone()).await;
    for repository in ["shop/api", "any/other"] {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let tag = format!("\"{digest}\"");
        for method in ["GET", "HEAD"] {
            let heard = house.send(method, &path, &[], "").await;
            assert_eq!(heard.status, 200);
            assert_eq!(heard.body, if method == "GET" { bytes.clone() } else { Bytes::new() });
            for (header, value) in [
                ("content-length", "300000"),
                ("content-type", "application/octet-stream"),
                ("docker-content-digest", digest.as_str()),
                ("etag", &tag),
                ("accept-ranges", "bytes"),
                ("cache-control", "max-age=31536000, immutable"),
            ] {
                assert_eq!(heard.header(header), value, "{method} {header}");
            }
            for list in [&tag, "*", &format!("\"x\", W/{tag}")] {
                let heard = house.send(method, &path, &[("if-none-match", list)], "").await;
                assert_eq!((heard.status, heard.body.len(), heard.header("etag")), (304, 0, tag.as_str()));
            }
            assert_eq!(house.send(method, &path, &[("if-none-match", "\"x\"")], "").await.status, 200);
        }
    }
}

#[tokio::test]
async fn parts_of_a_blob_are_fetched_by_range() {
    let house = House::new().await;
    let bytes = pattern(3_000);
    let digest = house.push_blob(bytes.clone()).await;
    let path = format!("/v2/shop/api/blobs/{digest}");
    let cases = [
        ("bytes=500-1499", 500..1500),
        ("bytes=500-", 500..3000),
        ("bytes=-500", 2500..3000),
        ("bytes=2000-5000", 2000..3000),
        ("bytes=0-0", 0..1),
        ("bytes=-9999", 0..3000),
    ];
    for (range, part) in cases {
        let heard = house.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, &heard.body[..]), (206, &bytes[part.clone()]), "{range}");
        assert_eq!(heard.header("content-range"), format!("bytes {}-{}/3000", part.start, part.end - 1));
        assert_eq!(heard.header("content-length"), part.len().to_string());
    }
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=3000-", "bytes=-0"] {
        let heard = house.send("GET", &path, &[("range", range)], "").await;
        assert_eq!((heard.status, heard.header("content-range")), (416, "bytes */3000"), "{range}");
    }
    let other = [("range", "bytes=0-9"), ("if-range", "\"another\"")];
    assert_eq!(house.send("GET", &path, &other, "").await.status, 200);
    let tag = format!("\"{digest}\"");
    assert_eq!(house.send("GET", &path, &[("range", "bytes=0-9"), ("if-range", &tag)], "").await.status, 206);
    assert_eq!(house.send("GET", &path, &[("range", "bytes=0-1,5-6")], "").await.status, 200);
    assert_eq!(house.send("HEAD", &path, &[("range", "bytes=0-9")], "").await.status, 200);
}

#[tokio::test]
async fn an_artefact_comes_back_byte_for_byte_under_each_of_its_names() {
    let house = House::new().await;
    let image = house.push("v1.4.2", "a").await;
    assert_eq!(house.put("latest", &image).await.status, 201);
    let digest = image.descriptor.digest.to_string();
    let tag = format!("\"{digest}\"");
    for reference in [digest.as_str(), "v1.4.2", "1.4.2", "latest"] {
        let path = format!("/v2/shop/api/manifests/{reference}");
        for method in ["GET", "HEAD"] {
            let heard = house.send(method, &path, &[], "").await;
            assert_eq!(heard.status, 200, "{method} {reference}");
            assert_eq!(heard.body, if method == "GET" { image.bytes.clone() } else { Bytes::new() });
            assert_eq!(heard.header("content-type"), media_type::OCI_MANIFEST);
            assert_eq!(heard.header("content-length"), image.bytes.len().to_string());
            assert_eq!(heard.header("docker-content-digest"), digest);
            assert_eq!(heard.header("etag"), tag);
            assert_eq!(heard.header("cache-control").contains("immutable"), reference == digest);
            assert_eq!(house.send(method, &path, &[("if-none-match", &tag)], "").await.status, 304);
        }
    }
    // Stored in one repository, it is not in another.
    assert_eq!(house.get(&format!("/v2/other/manifests/{digest}")).await.status, 404);
}

#[tokio::test]
async fn a_push_says_what_it_stored() {
    let house = House::new().await;
    let image = house.prepare("a").await;
    let digest = image.descriptor.digest.to_string();
    for reference in ["1.0.0", "latest", digest.as_str(), "1.0.0"] {
        let heard = house.put(reference, &image).await;
        assert_eq!(
            (heard.status, heard.header("docker-content-digest")),
            (201, digest.as_str()),
            "{reference}"
        );
        assert_eq!(house.get(heard.header("location")).await.body, image.bytes);
    }
    let spaced = [image.bytes.as_ref(), b"\n  "].concat();
    let heard = house.send("PUT", "/v2/shop/api/manifests/spaced", &[], spaced.clone()).await;
    assert_eq!(heard.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/spaced").await.body, spaced);
}

#[tokio::test]
async fn a_version_is_bound_once_and_an_overwrite_names_what_is_bound() {
    let house = House::new().await;
    let first = house.push("1.4.2", "first").await;
    let second = house.prepare("second").await;
    for tag in ["1.4.2", "v1.4.2"] {
        let heard = house.put(tag, &second).await;
        assert_eq!(heard.refusal(), refused(409, "DENIED"));
        let bound = first.descriptor.digest.as_str();
        assert!(heard.message().contains(bound) && heard.message().contains("1.4.3"), "{}", heard.message());
        assert!(!heard.message().contains('\n'));
        let pushed = second.descriptor.digest.as_str();
        let detail =
            json!({"reason": "version_bound", "bound": bound, "pushed": pushed, "next_free": "1.4.3"});
        assert_eq!(heard.detail(), detail);
    }
    assert_eq!(house.put("1.4.2", &first).await.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/1.4.2").await.body, first.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_pushes_of_one_version_one_wins_and_the_others_are_told() {
    let house = House::new().await;
    let mut images = Vec::new();
    for number in 0..50 {
        images.push(house.prepare(&format!("image {number}")).await);
    }
    let house = std::sync::Arc::new(house);
    let mut pushes = Vec::new();
    for image in images.clone() {
        let house = std::sync::Arc::clone(&house);
        pushes.push(tokio::spawn(async move { house.put("1.0.0", &image).await }));
    }
    let mut heard: Vec<Heard> = Vec::new();
    for push in pushes {
        heard.push(push.await.unwrap());
    }
    let winners: Vec<usize> = (0..50).filter(|i| heard[*i].status == 201).collect();
    let [winner] = winners.as_slice() else { panic!("{winners:?} won") };
    let bound = images[*winner].descriptor.digest.as_str();
    for (number, loser) in heard.iter().enumerate().filter(|(number, _)| number != winner) {
        assert_eq!(loser.refusal(), refused(409, "DENIED"), "{number}");
        assert_eq!(loser.detail()["bound"], bound);
        assert!(loser.message().contains(bound));
    }
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.header("docker-content-digest"), bound);
}

#[tokio::test]
async fn a_channel_moves_and_can_be_removed_and_a_version_cannot() {
    let house = House::new().await;
    let first = house.push("1.0.0", "first").await;
    for (tag, content) in [("latest", "first"), ("latest", "second"), ("latest", "first")] {
        let image = house.push(tag, content).await;
        assert_eq!(house.get("/v2/shop/api/manifests/latest").await.body, image.bytes);
    }
    assert_eq!(house.send("DELETE", "/v2/shop/api/manifests/latest", &[], "").await.status, 202);
    assert_eq!(house.get("/v2/shop/api/manifests/latest").await.refusal(), refused(404, "MANIFEST_UNKNOWN"));
    let digest = first.descriptor.digest.as_str();
    let attached = format!("{}.sig", digest.replace(':', "-"));
    house.push(&attached, "signature").await;
    for reference in ["1.0.0", "v1.0.0", digest, &attached] {
        let path = format!("/v2/shop/api/manifests/{reference}");
        let heard = house.send("DELETE", &path, &[], "").await;
        assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"), "{reference}");
        assert_eq!(heard.header("allow"), "GET, HEAD, PUT");
        assert_eq!(house.get(&path).await.status, 200);
    }
    let layer = format!("/v2/shop/api/blobs/{}", Digest::of(b"first"));
    assert_eq!(house.send("DELETE", &layer, &[], "").await.status, 405);
    assert_eq!(house.get(&layer).await.status, 200);
}

#[tokio::test]
async fn an_environment_is_a_tag_that_only_deployments_move() {
    let house = House::new().await;
    let image = house.push("1.0.0", "first").await;
    let who = house.store.local_actor("ana", "cli").await.unwrap();
    let environments = BTreeMap::from([("production".parse().unwrap(), binding())]);
    let pipeline = Pipeline::new(environments).unwrap();
    let apply = pipeline::Apply { component: name(), pipeline, only_first: false };
    pipeline::apply(&house.store, &who, apply, now()).await.unwrap();
    assert_eq!(house.get("/v2/shop/api/manifests/production").await.status, 404);

    let heard = house.put("production", &image).await;
    assert_eq!(heard.refusal(), refused(409, "DENIED"));
    assert_eq!(heard.detail()["reason"], "environment");

    deploy(&house, &image).await;
    assert_eq!(house.get("/v2/shop/api/manifests/production").await.body, image.bytes);
    assert_eq!(house.get("/v2/shop/api/tags/list").await.json()["tags"], json!(["1.0.0", "production"]));
    let heard = house.send("DELETE", "/v2/shop/api/manifests/production", &[], "").await;
    assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"));
}

fn binding() -> Binding {
    serde_json::from_value(json!({})).unwrap()
}

async fn deploy(house: &House, image: &EncodedManifest) {
    let some = Digest::of(b"some document");
    let started = DeploymentStarted {
        component: name(),
        environment: "production".parse().unwrap(),
        generation: 1,
        key: some.clone(),
        digest: image.descriptor.digest.clone(),
        version: None,
        config: some.clone(),
        target: some.clone(),
        decision: some,
        rollback_of: None,
    };
    let succeeded = DeploymentSucceeded {
        component: name(),
        environment: "production".parse().unwrap(),
        generation: 1,
        checked_by: "semel".to_owned(),
        needs: Vec::new(),
    };
    record(house, vec![Change::DeploymentStarted(started), Change::DeploymentSucceeded(succeeded)]).await;
}

async fn record(house: &House, changes: Vec<Change>) {
    let who = house.store.local_actor("ana", "cli").await.unwrap();
    house.store.turn().await.unwrap().record(&who, now(), changes).await.unwrap();
}

#[tokio::test]
async fn a_name_that_a_build_has_reserved_is_refused_with_a_free_one() {
    let house = House::new().await;
    let created =
        ComponentCreated { component: name(), policy: TagPolicy::Release, home: house.store.id().to_owned() };
    let reserved = BuildReserved {
        component: name(),
        number: 7,
        version: "2.0.0".parse().unwrap(),
        key: Digest::of(b"key"),
        commit: "a".repeat(40).parse().unwrap(),
        line: semel_model::build::Line::Main("main".to_owned()),
        source: Digest::of(b"source"),
    };
    record(&house, vec![Change::ComponentCreated(created), Change::BuildReserved(reserved)]).await;
    let image = house.prepare("a").await;
    let heard = house.put("2.0.0", &image).await;
    assert_eq!(heard.refusal(), refused(409, "DENIED"));
    assert_eq!(heard.detail()["reason"], "version_reserved");
    assert_eq!(heard.detail()["next_free"], "2.0.1");
}

#[tokio::test]
async fn a_manifest_needs_its_content_and_its_form() {
    let house = House::new().await;
    let image = image("a", None);
    let heard = house.put("1.0.0", &image).await;
    assert_eq!(heard.refusal(), refused(400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(heard.detail()["digest"], Digest::of(config("a").as_bytes()).as_str());
    house.prepare("a").await;

    let wrong = Digest::of(b"other");
    assert_eq!(house.put(wrong.as_str(), &image).await.refusal(), refused(400, "DIGEST_INVALID"));
    let path = "/v2/shop/api/manifests/1.0.0";
    for bad in ["", "{", "[]", "{\"schemaVersion\":1}"] {
        let heard = house.send("PUT", path, &[("content-type", media_type::OCI_MANIFEST)], bad).await;
        assert_eq!(heard.refusal(), refused(400, "MANIFEST_INVALID"), "{bad}");
    }
    let heard = house.send("PUT", path, &[("content-type", "text/plain")], image.bytes.clone()).await;
    assert_eq!(heard.refusal(), refused(400, "MANIFEST_INVALID"));
    assert_eq!(house.get("/v2/shop/api/tags/list").await.status, 404, "nothing was stored");
}

#[tokio::test]
async fn a_manifest_may_be_large_but_not_endless() {
    let house = House::new().await;
    house.prepare("a").await;
    let large = |count: usize| {
        let annotations = (0..count).map(|i| (format!("key.{i}"), "x".repeat(10_000))).collect();
        let mut manifest = ImageManifest {
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, config("a").as_bytes()),
            layers: Vec::new(),
            subject: None,
            annotations: Annotations::new(),
        };
        manifest.annotations = annotations;
        manifest.encode()
    };
    let manifest = large(390);
    assert_eq!(house.put("1.0.0", &manifest).await.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.body, manifest.bytes);
    assert_eq!(house.put("1.0.1", &large(840)).await.refusal(), refused(413, "SIZE_INVALID"));
    assert_eq!(house.put("1.0.1", &large(4_000)).await.refusal(), refused(413, "SIZE_INVALID"));
}

#[tokio::test]
async fn sha512_is_as_good_as_sha256() {
    let house = House::new().await;
    let layer = Bytes::from_static(b"a layer");
    let digest = Digest::of_with(Algorithm::Sha512, &layer);
    // The session is opened without saying so.
    let upload = house.send("POST", "/v2/shop/api/blobs/uploads/", &[], "").await;
    let upload = upload.header("location").to_owned();
    assert_eq!(house.send("PATCH", &upload, &[], layer.clone()).await.status, 202);
    let heard = house.send("PUT", &format!("{upload}?digest={digest}"), &[], "").await;
    assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
    assert_eq!(house.get(heard.header("location")).await.body, layer);

    house.prepare("a").await;
    let manifest = image("a", None);
    let digest = Digest::of_with(Algorithm::Sha512, &manifest.bytes);
    let heard = house.put(&format!("{digest}?tag=1.0.0"), &manifest).await;
    assert_eq!((heard.status, heard.header("docker-content-digest")), (201, digest.as_str()));
    for reference in [digest.as_str(), "1.0.0"] {
        let heard = house.get(&format!("/v2/shop/api/manifests/{reference}")).await;
        assert_eq!(
            (heard.body, heard.headers["docker-content-digest"].to_str().unwrap()),
            (manifest.bytes.clone(), digest.as_str())
        );
    }
}

#[tokio::test]
async fn a_push_by_digest_gives_several_tags_and_says_which() {
    let house = House::new().await;
    let image = house.prepare("a").await;
    let digest = &image.descriptor.digest;
    let heard = house.put(&format!("{digest}?tag=1.0.0&tag=1.0&tag=latest"), &image).await;
    assert_eq!(heard.status, 201);
    let accepted: Vec<_> = heard.headers.get_all("oci-tag").iter().collect();
    assert_eq!(accepted, ["1.0.0", "1.0", "latest"]);
    assert_eq!(house.get("/v2/shop/api/tags/list").await.json()["tags"], json!(["1.0", "1.0.0", "latest"]));

    let other = house.prepare("b").await;
    let heard = house.put(&format!("{}?tag=edge&tag=1.0.0", other.descriptor.digest), &other).await;
    assert_eq!(heard.refusal(), refused(409, "DENIED"));
    assert_eq!(heard.header("oci-tag"), "edge");
    let heard = house.put(&format!("{digest}?tag=-x"), &image).await;
    assert_eq!(heard.refusal(), refused(400, "NAME_INVALID"));
    let many: Vec<String> = (0..65).map(|i| format!("tag=t{i}")).collect();
    assert_eq!(house.put(&format!("{digest}?{}", many.join("&")), &image).await.status, 414);
}

#[tokio::test]
async fn a_name_that_must_be_new_is_refused_when_it_is_not() {
    let house = House::new().await;
    let image = house.prepare("a").await;
    let digest = image.descriptor.digest.as_str();
    let headers = [("content-type", media_type::OCI_MANIFEST), ("if-none-match", "*")];
    for reference in ["latest", "1.0.0"] {
        let path = format!("/v2/shop/api/manifests/{reference}");
        assert_eq!(house.send("PUT", &path, &headers, image.bytes.clone()).await.status, 201);
        let heard = house.send("PUT", &path, &headers, image.bytes.clone()).await;
        assert_eq!(heard.refusal(), refused(412, "DENIED"));
        assert_eq!(heard.detail()["bound"], digest);
    }
    let heard =
        house.send("PUT", &format!("/v2/shop/api/manifests/{digest}"), &headers, image.bytes.clone()).await;
    assert_eq!(heard.refusal(), refused(412, "DENIED"));
}

#[tokio::test]
async fn tags_are_listed_in_pages_that_lead_to_one_another() {
    let house = House::new().await;
    let image = house.push("1.0.0", "a").await;
    let mut expected = vec!["1.0.0".to_owned()];
    for number in 0..7 {
        let tag = format!("t{number}");
        assert_eq!(house.put(&tag, &image).await.status, 201);
        expected.push(tag);
    }
    let mut path = "/v2/shop/api/tags/list?n=3".to_owned();
    let mut pages = Vec::new();
    loop {
        let heard = house.get(&path).await;
        assert_eq!(heard.json()["name"], "shop/api");
        pages.push(serde_json::from_value::<Vec<String>>(heard.json()["tags"].clone()).unwrap());
        let Some(link) = heard.header("link").strip_prefix('<') else { break };
        path = link.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
    assert_eq!(pages.concat(), expected);

    let tags = |heard: Heard| heard.json()["tags"].clone();
    assert_eq!(tags(house.get("/v2/shop/api/tags/list?last=t4").await), json!(["t5", "t6"]));
    assert_eq!(tags(house.get("/v2/shop/api/tags/list?last=t6").await), json!([]));
    let none = house.get("/v2/shop/api/tags/list?n=0").await;
    assert_eq!((none.header("link"), none.json()["tags"].clone()), ("", json!([])));
    assert_eq!(house.get("/v2/shop/api/tags/list?n=8").await.header("link"), "");
    let listed = house.client().tags(&name()).await.unwrap();
    assert_eq!(listed.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_catalogue_lists_the_components_in_pages() {
    let house = House::new().await;
    assert_eq!(house.get("/v2/_catalog").await.json(), json!({"repositories": []}));
    let image = house.push("1.0.0", "a").await;
    let headers = [("content-type", media_type::OCI_MANIFEST)];
    for component in ["a/one", "z"] {
        let path = format!("/v2/{component}/manifests/1.0.0");
        assert_eq!(house.send("PUT", &path, &headers, image.bytes.clone()).await.status, 201);
    }
    assert_eq!(house.get("/v2/_catalog").await.json()["repositories"], json!(["a/one", "shop/api", "z"]));
    let first = house.get("/v2/_catalog?n=2").await;
    assert_eq!(first.json()["repositories"], json!(["a/one", "shop/api"]));
    assert_eq!(first.header("link"), "</v2/_catalog?n=2&last=shop/api>; rel=\"next\"");
    assert_eq!(house.get("/v2/_catalog?n=2&last=shop/api").await.json()["repositories"], json!(["z"]));
}

#[tokio::test]
async fn referrers_are_listed_with_their_types_and_annotations() {
    let house = House::new().await;
    let unknown = Digest::of(b"unknown");
    for repository in ["shop/api", "no/such"] {
        let heard = house.get(&format!("/v2/{repository}/referrers/{unknown}")).await;
        assert_eq!((heard.status, heard.header("content-type")), (200, media_type::OCI_INDEX));
        assert_eq!(
            heard.json(),
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []})
        );
    }
    // The subject need not be there yet.
    let subject = image("subject", None).descriptor;
    house.push_blob("{}").await;
    let evidence = ImageManifest::referrer(
        &subject,
        "application/vnd.example.evidence",
        Vec::new(),
        Annotations::from([("by".to_owned(), "ana".to_owned())]),
    )
    .encode();
    house.prepare("attached").await;
    let attached = image("attached", Some(subject.clone()));
    let index = Index {
        artifact_type: None,
        manifests: Vec::new(),
        subject: Some(subject.clone()),
        annotations: Annotations::new(),
    }
    .encode();
    for manifest in [&evidence, &attached, &index] {
        let heard = house.put(manifest.descriptor.digest.as_str(), manifest).await;
        assert_eq!((heard.status, heard.header("oci-subject")), (201, subject.digest.as_str()), "{heard:?}");
    }
    let path = format!("/v2/shop/api/referrers/{}", subject.digest);
    let heard = house.get(&path).await;
    assert_eq!(heard.header("oci-filters-applied"), "");
    let listed = heard.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 3);
    let of = |manifest: &EncodedManifest| {
        let digest = manifest.descriptor.digest.as_str();
        listed.iter().find(|listed| listed["digest"] == digest).unwrap().clone()
    };
    assert_eq!(of(&evidence)["artifactType"], "application/vnd.example.evidence");
    assert_eq!(of(&evidence)["annotations"], json!({"by": "ana"}));
    assert_eq!(of(&evidence)["size"], evidence.bytes.len());
    assert_eq!(of(&attached)["artifactType"], media_type::OCI_CONFIG);
    assert_eq!(of(&index)["mediaType"], media_type::OCI_INDEX);
    assert!(of(&index).get("artifactType").is_none());

    let heard = house.get(&format!("{path}?artifactType=application%2Fvnd.example.evidence")).await;
    assert_eq!(heard.header("oci-filters-applied"), "artifactType");
    assert_eq!(heard.json()["manifests"].as_array().unwrap().len(), 1);
    let found =
        house.client().referrers(&name(), &subject.digest, Some("application/vnd.example.evidence")).await;
    assert_eq!(found.unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_distributed_may_be_absent_and_indexes_need_their_parts() {
    let house = House::new().await;
    let image = house.prepare("a").await;
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let manifest = ImageManifest {
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, config("a").as_bytes()),
        layers: vec![Descriptor::of(foreign, b"elsewhere")],
        subject: None,
        annotations: Annotations::new(),
    };
    assert_eq!(house.put("foreign", &manifest.encode()).await.status, 201);
    let index = Index {
        artifact_type: None,
        manifests: vec![image.descriptor.clone()],
        subject: None,
        annotations: Annotations::new(),
    }
    .encode();
    assert_eq!(house.put("1.0.0", &index).await.refusal(), refused(400, "MANIFEST_BLOB_UNKNOWN"));
    assert_eq!(house.put(image.descriptor.digest.as_str(), &image).await.status, 201);
    assert_eq!(house.put("1.0.0", &index).await.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.header("content-type"), media_type::OCI_INDEX);
}

#[tokio::test]
async fn damage_is_a_fault_and_never_makes_a_name_disappear() {
    let house = House::new().await;
    let image = house.push("1.0.0", "a").await;
    let path = house.store.blobs().path(&image.descriptor.digest);
    std::fs::remove_file(&path).unwrap();
    for method in ["GET", "HEAD"] {
        let heard = house.send(method, "/v2/shop/api/manifests/1.0.0", &[], "").await;
        assert_eq!(heard.status, 500);
        assert!(!String::from_utf8_lossy(&heard.body).contains("sha256"));
    }
    assert_eq!(house.get("/v2/shop/api/tags/list").await.json()["tags"], json!(["1.0.0"]));
    // The same bytes heal it.
    assert_eq!(house.put("1.0.0", &image).await.status, 201);
    assert_eq!(house.get("/v2/shop/api/manifests/1.0.0").await.body, image.bytes);
}

#[tokio::test]
async fn our_own_client_pushes_and_pulls() {
    let house = House::new().await;
    let client = house.client();
    let image = image("a", None);
    for bytes in [config("a"), "a".to_owned()] {
        client.put_bytes(&name(), bytes.into()).await.unwrap();
    }
    let tag = TagOrDigest::Tag("1.0.0".parse().unwrap());
    client.put_manifest(&name(), &tag, image.bytes.clone(), media_type::OCI_MANIFEST).await.unwrap();
    let pulled = client.get_manifest(&name(), &tag).await.unwrap();
    assert_eq!(pulled.parsed.layers[0].digest, Digest::of(b"a"));
    let head = client.head_manifest(&name(), &tag).await.unwrap().unwrap();
    assert_eq!(head.digest, Some(image.descriptor.digest));
}

#[tokio::test]
async fn who_asks_is_what_the_request_claims_else_the_servers_own_user() {
    let house = House::new().await;
    let long = "x".repeat(300);
    let cases = [
        (vec![("semel-actor", "Zoë"), ("semel-via", "cli")], ("Zoë", "cli")),
        (vec![("semel-actor", " "), ("semel-via", "registry")], ("ana", "api")),
        (vec![("semel-actor", long.as_str())], ("ana", "api")),
        (vec![], ("ana", "api")),
    ];
    for (claims, (name, via)) in cases {
        let mut headers = http::HeaderMap::new();
        for (header, value) in claims {
            headers.insert(header, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let caller = house.app.caller(&headers);
        assert_eq!((caller.name.as_str(), caller.via), (name, via));
        let actor = house.app.actor(&headers).await.unwrap();
        assert_eq!(
            (house.store.name_of(&actor.subject).await.unwrap().as_str(), actor.via.as_str()),
            (name, via)
        );
    }
}

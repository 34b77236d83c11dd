//! Names: a version means one digest for ever, a channel moves, and a component's name has one spelling.

use serde_json::json;

use super::Registry;
use crate::refused;

#[tokio::test]
async fn a_version_pushed_again_with_its_digest_is_created_again() {
    let registry = Registry::new().await;
    let image = registry.push("1.4.2", "content").await;
    for reference in ["1.4.2", "v1.4.2", image.digest().as_str(), "1.4.2"] {
        let heard = registry.put(reference, &image).await;
        assert_eq!((heard.status, heard.header("docker-content-digest")), (201, image.digest().as_str()));
    }
    assert_eq!(registry.get("tags/list").await.json()["tags"], json!(["1.4.2"]));
}

#[tokio::test]
async fn a_version_cannot_come_to_mean_another_digest() {
    let registry = Registry::new().await;
    let first = registry.push("1.4.2", "first").await;
    let second = registry.prepare("second").await;
    let (bound, pushed) = (first.digest(), second.digest());
    let by_parameter = format!("{pushed}?tag=1.4.2");
    for reference in ["1.4.2", "v1.4.2", &by_parameter, "1.4.2"] {
        let heard = registry.put(reference, &second).await;
        assert_eq!(heard.refusal(), refused(409, "DENIED"), "{reference}");
        let message = heard.message();
        assert!(message.contains(bound.as_str()) && message.contains("1.4.3"), "{message}");
        assert!(!message.contains('\n'));
        let detail = heard.detail();
        for (field, value) in [
            ("reason", "version_bound"),
            ("bound", bound.as_str()),
            ("pushed", pushed.as_str()),
            ("next_free", "1.4.3"),
        ] {
            assert_eq!(detail[field], value, "{reference}");
        }
        assert!(detail["bound_at"].as_str().is_some_and(|time| time.contains('T')), "{detail}");
        assert_eq!(registry.get("manifests/1.4.2").await.body, first.bytes);
    }
}

#[tokio::test]
async fn what_looks_like_a_version_is_one_and_all_else_moves() {
    let registry = Registry::new().await;
    let first = registry.prepare("first").await;
    let second = registry.prepare("second").await;
    let versions = ["1.4.2", "v2.0.0", "1.4.2-rc.1", "0.0.1-feat-x.7", "sha-4f1c2ab"];
    let channels = ["1.4", "1", "v1", "latest", "3.12-slim", "20240101", "sha-xyz", "edge", "_"];
    for tag in versions.iter().chain(&channels) {
        assert_eq!(registry.put(tag, &first).await.status, 201, "{tag}");
    }
    for tag in versions {
        assert_eq!(registry.put(tag, &second).await.refusal(), refused(409, "DENIED"), "{tag}");
        assert_eq!(registry.get(&format!("manifests/{tag}")).await.body, first.bytes, "{tag}");
    }
    for tag in channels {
        assert_eq!(registry.put(tag, &second).await.status, 201, "{tag}");
        assert_eq!(registry.get(&format!("manifests/{tag}")).await.body, second.bytes, "{tag}");
        assert_eq!(registry.put(tag, &first).await.status, 201, "{tag} goes back");
    }
}

#[tokio::test]
async fn the_tags_that_a_pipeline_pushes_for_two_releases_in_a_row_are_all_created() {
    let registry = Registry::new().await;
    for (content, tags) in [
        ("first", ["1.4.2", "1.4", "1", "latest", "sha-4f1c2ab"]),
        ("second", ["1.4.3", "1.4", "1", "latest", "sha-9d0e1f2"]),
    ] {
        let image = registry.prepare(content).await;
        for tag in tags {
            assert_eq!(registry.put(tag, &image).await.status, 201, "{content} {tag}");
            assert_eq!(registry.get(&format!("manifests/{tag}")).await.body, image.bytes, "{tag}");
        }
    }
}

#[tokio::test]
async fn of_several_tags_those_before_the_refused_one_are_given_and_named() {
    let registry = Registry::new().await;
    registry.push("1.0.0", "first").await;
    let second = registry.prepare("second").await;
    let heard = registry.put(&format!("{}?tag=edge&tag=1.0.0&tag=late", second.digest()), &second).await;
    assert_eq!(heard.refusal(), refused(409, "DENIED"));
    let accepted: Vec<_> = heard.headers.get_all("oci-tag").iter().collect();
    assert_eq!(accepted, ["edge"]);
    assert_eq!(registry.get("manifests/edge").await.body, second.bytes);
    assert_eq!(registry.get("manifests/late").await.status, 404);
}

#[tokio::test]
async fn a_component_has_a_name_of_the_specification() {
    let registry = Registry::new().await;
    let root = &registry.component;
    for good in ["a", "a/b/c/d", "a-b__c.d---e", "blobs/uploads", "manifests/tags/list", "0/9"] {
        let heard = registry.send("GET", &format!("/v2/{root}/{good}/tags/list"), &[], "").await;
        assert_eq!(heard.refusal(), refused(404, "NAME_UNKNOWN"), "{good}");
    }
    let long = "a".repeat(300);
    for bad in ["A", "a..b", "a_-b", "-a", "a-", "a/", "/a", "a//b", "a___b", "é", &long] {
        let encoded = bad.replace('é', "%C3%A9");
        let heard = registry.send("GET", &format!("/v2/{root}/{encoded}/tags/list"), &[], "").await;
        assert_eq!(heard.refusal(), refused(400, "NAME_INVALID"), "{bad}");
    }
}

//! The list of a component's tags, in pages.

use serde_json::json;

use super::Registry;
use crate::{Heard, refused};

fn tags(heard: &Heard) -> Vec<String> {
    assert_eq!((heard.status, heard.header("content-type")), (200, "application/json"));
    serde_json::from_value(heard.json()["tags"].clone()).unwrap()
}

/// Where a page says that the next one is.
fn next(heard: &Heard) -> Option<String> {
    let link = heard.header("link").strip_prefix('<')?;
    Some(link.strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

/// Pushes one image by ten names, and gives them in the order of their bytes.
async fn ten_tags(registry: &Registry) -> Vec<String> {
    let image = registry.prepare("content").await;
    let names = ["_x", "latest", "Zeta", "1.0.0", "1.0", "1", "a.b-c_d", "alpha", "9", "sha-4f1c2ab"];
    for name in names {
        assert_eq!(registry.put(name, &image).await.status, 201, "{name}");
    }
    let mut sorted: Vec<String> = names.map(str::to_owned).to_vec();
    sorted.sort_unstable();
    sorted
}

#[tokio::test]
async fn the_list_has_every_tag_once_in_the_order_of_their_bytes() {
    let registry = Registry::new().await;
    let expected = ten_tags(&registry).await;
    let heard = registry.get("tags/list").await;
    assert_eq!(heard.json(), json!({"name": registry.component, "tags": expected}));
    assert_eq!(heard.header("link"), "");
    let heard = registry.head("tags/list").await;
    assert_eq!((heard.status, heard.body.len()), (200, 0));
}

#[tokio::test]
async fn pages_of_any_size_lead_to_one_another_until_the_end() {
    let registry = Registry::new().await;
    let expected = ten_tags(&registry).await;
    for size in 1..=11 {
        let mut path = registry.path(&format!("tags/list?n={size}"));
        let mut pages = Vec::new();
        loop {
            let heard = registry.send("GET", &path, &[], "").await;
            pages.push(tags(&heard));
            let Some(link) = next(&heard) else { break };
            assert!(link.starts_with(&registry.path("tags/list?")) && link.contains(&format!("n={size}")));
            path = link;
        }
        assert_eq!(pages.concat(), expected, "n={size}");
        assert_eq!(pages.len(), expected.len().div_ceil(size), "n={size}");
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == size), "n={size}");
    }
}

#[tokio::test]
async fn a_list_begins_behind_the_last_one_named_whether_it_exists_or_not() {
    let registry = Registry::new().await;
    let all = ten_tags(&registry).await;
    let behind = |last: &str| all.iter().filter(|tag| tag.as_str() > last).cloned().collect::<Vec<_>>();
    for last in ["", "0", "1", "1.0", "1.0.0", "5", "A", "latest", "m", "sha-4f1c2ab", "~", "%7F", "zzzz"] {
        let decoded = last.replace("%7F", "\u{7f}");
        let heard = registry.get(&format!("tags/list?last={last}")).await;
        assert_eq!((tags(&heard), heard.header("link")), (behind(&decoded), ""), "last={last}");
    }
    let heard = registry.get("tags/list?n=2&last=latest").await;
    assert_eq!(tags(&heard), behind("latest"));
}

#[tokio::test]
async fn the_size_of_a_page_is_a_number_and_too_large_a_one_is_as_good_as_the_most() {
    let registry = Registry::new().await;
    let all = ten_tags(&registry).await;
    let none = registry.get("tags/list?n=0").await;
    assert_eq!((tags(&none), none.header("link")), (Vec::new(), ""));
    for large in ["10", "10000", "10001", "18446744073709551615", "99999999999999999999999"] {
        let heard = registry.get(&format!("tags/list?n={large}")).await;
        assert_eq!((tags(&heard), heard.header("link")), (all.clone(), ""), "n={large}");
    }
    for bad in ["", "x", "-1", "+1", "1.5", "0x10", "%20"] {
        let heard = registry.get(&format!("tags/list?n={bad}")).await;
        assert_eq!(heard.refusal(), refused(400, "UNSUPPORTED"), "n={bad}");
    }
}

#[tokio::test]
async fn a_component_that_is_not_here_has_no_list() {
    let registry = Registry::new().await;
    assert_eq!(registry.get("tags/list").await.refusal(), refused(404, "NAME_UNKNOWN"));
}

#[tokio::test]
async fn a_component_whose_manifests_have_no_names_has_an_empty_list() {
    let registry = Registry::new().await;
    let image = registry.prepare("content").await;
    assert_eq!(registry.put(image.digest().as_str(), &image).await.status, 201);
    let heard = registry.get("tags/list").await;
    assert_eq!((heard.status, tags(&heard)), (200, Vec::new()));
    assert_eq!(registry.get("manifests/1.0.0").await.refusal(), refused(404, "MANIFEST_UNKNOWN"));
}

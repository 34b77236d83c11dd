//! The list of components, in pages.

use semel_model::digest::Digest;
use serde_json::json;

use super::Registry;
use crate::refused;

#[tokio::test]
async fn the_components_are_listed_in_pages() {
    let Some((registry, _house)) = Registry::own().await else { return };
    let catalog = |query: &str| {
        let path = format!("/v2/_catalog{query}");
        let registry = &registry;
        async move { registry.send("GET", &path, &[], "").await }
    };
    assert_eq!(catalog("").await.json(), json!({"repositories": []}));
    for suffix in ["a", "c"] {
        registry.beside(suffix).push("latest", "content").await;
    }
    let unnamed = registry.beside("b");
    let image = unnamed.prepare("content").await;
    assert_eq!(unnamed.put(Digest::of(&image.bytes).as_str(), &image).await.status, 201);
    let names = ["a", "b", "c"].map(|suffix| registry.beside(suffix).component);
    let all = catalog("").await;
    assert_eq!((all.json(), all.header("link")), (json!({"repositories": names}), ""));

    let first = catalog("?n=2").await;
    assert_eq!(first.json(), json!({"repositories": names[..2]}));
    assert_eq!(first.header("link"), format!("</v2/_catalog?n=2&last={}>; rel=\"next\"", names[1]));
    let second = catalog(&format!("?n=2&last={}", names[1])).await;
    assert_eq!((second.json(), second.header("link")), (json!({"repositories": names[2..]}), ""));

    let none = catalog("?n=0").await;
    assert_eq!((none.json(), none.header("link")), (json!({"repositories": []}), ""));
    assert_eq!(catalog("?n=99999999999999999999999").await.json(), json!({"repositories": names}));
    assert_eq!(catalog("?last=zzz").await.json(), json!({"repositories": []}));
    assert_eq!(catalog("?n=x").await.refusal(), refused(400, "UNSUPPORTED"));
}

//! What refers to an artefact.

use semel_model::digest::Digest;
use semel_oci::descriptor::Descriptor;
use semel_oci::media_type;
use serde_json::{Value, json};

use super::{ALGORITHMS, Document, Registry};
use crate::{Heard, refused};

const SBOM: &str = "application/spdx+json";
const SCAN: &str = "application/vnd.example.scan.v1+json";

fn listed(heard: &Heard) -> Vec<Value> {
    assert_eq!((heard.status, heard.header("content-type")), (200, media_type::OCI_INDEX), "{heard:?}");
    let index = heard.json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(media_type::OCI_INDEX)));
    index["manifests"].as_array().unwrap().clone()
}

/// A manifest about another one.
fn about(subject: &Digest, changes: &Value) -> Document {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::empty(),
        "layers": [Descriptor::empty()],
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 100},
    });
    for (field, value) in changes.as_object().unwrap() {
        document[field] = value.clone();
    }
    if document["mediaType"] == media_type::OCI_INDEX {
        for field in ["config", "layers"] {
            document.as_object_mut().unwrap().remove(field);
        }
    }
    Document::new(document["mediaType"].as_str().unwrap(), &document)
}

/// Pushes `count` manifests about a subject, every third of them a scan, and gives their digests in order.
async fn attach(registry: &Registry, subject: &Digest, count: usize, note: &str) -> Vec<Digest> {
    registry.push_blob("{}").await;
    let mut digests = Vec::new();
    for number in 0..count {
        let artifact_type = if number % 3 == 0 { SCAN } else { SBOM };
        let changes = json!({"artifactType": artifact_type, "annotations": {"number": number.to_string(), "note": note}});
        let manifest = about(subject, &changes);
        let heard = registry.put(manifest.digest().as_str(), &manifest).await;
        assert_eq!((heard.status, heard.header("oci-subject")), (201, subject.as_str()));
        digests.push(manifest.digest());
    }
    digests.sort_unstable();
    digests
}

/// Follows the links from a page on, and gives the pages.
async fn pages(registry: &Registry, first: &str) -> Vec<Vec<Value>> {
    let (mut path, mut pages) = (registry.path(first), Vec::new());
    loop {
        let heard = registry.send("GET", &path, &[], "").await;
        assert!(heard.body.len() <= 4 * 1024 * 1024, "a page has {} bytes", heard.body.len());
        pages.push(listed(&heard));
        let Some(link) = heard.header("link").strip_prefix('<') else { return pages };
        path = link.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
}

fn digests(descriptors: &[Value]) -> Vec<Digest> {
    descriptors
        .iter()
        .map(|descriptor| serde_json::from_value(descriptor["digest"].clone()).unwrap())
        .collect()
}

#[tokio::test]
async fn what_nobody_refers_to_has_an_empty_list_wherever_it_is_asked_for() {
    let registry = Registry::new().await;
    let image = registry.push("latest", "content").await;
    let unknown = registry.beside("unknown");
    for algorithm in ALGORITHMS {
        for digest in [image.digest(), Digest::of_with(algorithm, b"unknown")] {
            for registry in [&registry, &unknown] {
                let heard = registry.get(&format!("referrers/{digest}")).await;
                assert_eq!(listed(&heard), Vec::<Value>::new());
                assert_eq!((heard.header("link"), heard.header("oci-filters-applied")), ("", ""));
            }
        }
    }
    for bad in ["latest", "sha256:abc", "x"] {
        let heard = registry.get(&format!("referrers/{bad}")).await;
        assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"), "{bad}");
    }
}

#[tokio::test]
async fn a_referrer_is_listed_with_its_type_and_its_annotations() {
    let registry = Registry::new().await;
    registry.push_blob("{}").await;
    registry.push_blob("{\"os\":\"linux\"}").await;
    // The subject need not be there yet.
    for algorithm in ALGORITHMS {
        let subject = Digest::of_with(algorithm, registry.component.as_bytes());
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{\"os\":\"linux\"}");
        let index = json!({"mediaType": media_type::OCI_INDEX, "manifests": []});
        let typed_index = json!({"mediaType": media_type::OCI_INDEX, "manifests": [], "artifactType": SCAN});
        let cases = [
            (json!({"artifactType": SBOM, "annotations": {"by": "ana", "é": "ü"}}), Some(SBOM)),
            (json!({"config": config}), Some(media_type::OCI_CONFIG)),
            (index, None),
            (typed_index, Some(SCAN)),
        ];
        for (changes, artifact_type) in &cases {
            let manifest = about(&subject, changes);
            let heard = registry.put(manifest.digest().as_str(), &manifest).await;
            assert_eq!((heard.status, heard.header("oci-subject")), (201, subject.as_str()), "{heard:?}");
            let all = listed(&registry.get(&format!("referrers/{subject}")).await);
            let found = all.iter().find(|listed| listed["digest"] == manifest.digest().as_str()).unwrap();
            assert_eq!(found["mediaType"], manifest.media_type.as_str());
            assert_eq!(found["size"], manifest.bytes.len());
            assert_eq!(found.get("artifactType").and_then(Value::as_str), *artifact_type);
            assert_eq!(found.get("annotations"), changes.get("annotations"));
        }
        assert_eq!(listed(&registry.get(&format!("referrers/{subject}")).await).len(), cases.len());
        // Another component has its own.
        assert_eq!(listed(&registry.beside("x").get(&format!("referrers/{subject}")).await).len(), 0);
    }
}

#[tokio::test]
async fn a_list_is_filtered_by_type_and_says_so() {
    let registry = Registry::new().await;
    let subject = registry.push("latest", "content").await.digest();
    attach(&registry, &subject, 7, "").await;
    for (filter, count) in [(SCAN, 3), (SBOM, 4), ("application/none", 0)] {
        let encoded = filter.replace('/', "%2F").replace('+', "%2B");
        let heard = registry.get(&format!("referrers/{subject}?artifactType={encoded}")).await;
        assert_eq!(heard.header("oci-filters-applied"), "artifactType");
        let found = listed(&heard);
        assert_eq!(found.len(), count, "{filter}");
        assert!(found.iter().all(|descriptor| descriptor["artifactType"] == filter));
    }
    let heard = registry.get(&format!("referrers/{subject}?artifactType=")).await;
    assert_eq!((listed(&heard).len(), heard.header("oci-filters-applied")), (7, ""));
}

#[tokio::test]
async fn pages_of_any_size_lead_to_one_another_until_the_end() {
    let registry = Registry::new().await;
    let subject = registry.push("latest", "content").await.digest();
    let all = attach(&registry, &subject, 10, "").await;
    for size in [1, 3, 5, 10, 11] {
        let pages = pages(&registry, &format!("referrers/{subject}?n={size}")).await;
        assert_eq!(digests(&pages.concat()), all, "n={size}");
        assert_eq!(pages.len(), all.len().div_ceil(size), "n={size}");
        let filter = SCAN.replace('+', "%2B");
        let path = format!("referrers/{subject}?artifactType={filter}&n={size}");
        let scans = self::pages(&registry, &path).await;
        assert_eq!(scans.len(), 4_usize.div_ceil(size), "what the filter leaves out fills no page: n={size}");
        assert_eq!(scans.concat().len(), 4, "n={size}");
        assert!(scans.concat().iter().all(|scan| scan["artifactType"] == SCAN));
    }
    let behind = registry.get(&format!("referrers/{subject}?last={}", all[6])).await;
    assert_eq!(digests(&listed(&behind)), all[7..]);
    let none = registry.get(&format!("referrers/{subject}?n=0")).await;
    assert_eq!((listed(&none).len(), none.header("link")), (0, ""));
    let heard = registry.get(&format!("referrers/{subject}?n=x")).await;
    assert_eq!(heard.refusal(), refused(400, "UNSUPPORTED"));
}

#[tokio::test]
async fn a_list_that_is_larger_than_a_manifest_may_be_is_given_in_pages() {
    let registry = Registry::new().await;
    let subject = registry.push("latest", "content").await.digest();
    let all = attach(&registry, &subject, 11, &"x".repeat(1_000_000)).await;
    let pages = pages(&registry, &format!("referrers/{subject}")).await;
    assert_eq!(digests(&pages.concat()), all);
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 3]);
}

#[tokio::test]
async fn a_referrer_that_cannot_be_read_hides_no_other() {
    let Some((registry, house)) = Registry::own().await else { return };
    let subject = registry.push("latest", "content").await.digest();
    let all = attach(&registry, &subject, 3, "").await;
    std::fs::remove_file(house.store.blobs().path(&all[1])).unwrap();
    let found = listed(&registry.get(&format!("referrers/{subject}")).await);
    assert_eq!(digests(&found), all);
    assert_eq!(found[1].get("artifactType"), None);
}

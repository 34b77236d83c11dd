//! What can be deleted, and what is kept and says why.

use semel_model::digest::Digest;

use super::Registry;
use super::manifests::{sets, subject_of};
use crate::refused;

#[tokio::test]
async fn a_channel_is_deleted_at_once_and_can_be_given_again() {
    let registry = Registry::new().await;
    for content in ["first", "second"] {
        let image = registry.push("latest", content).await;
        let heard = registry.delete("manifests/latest").await;
        assert_eq!((heard.status, heard.body.len()), (202, 0));
        for method in ["GET", "DELETE"] {
            let heard = registry.send(method, &registry.path("manifests/latest"), &[], "").await;
            assert_eq!(heard.refusal(), refused(404, "MANIFEST_UNKNOWN"), "{method}");
        }
        assert_eq!(registry.get("tags/list").await.json()["tags"], serde_json::json!([]));
        assert_eq!(registry.get(&format!("manifests/{}", image.digest())).await.body, image.bytes);
    }
}

#[tokio::test]
async fn a_version_and_what_it_needs_are_kept() {
    let registry = Registry::new().await;
    let image = registry.push("1.0.0", "content").await;
    let digest = image.digest();
    for reference in ["1.0.0", "v1.0.0", digest.as_str()] {
        let rest = format!("manifests/{reference}");
        let heard = registry.delete(&rest).await;
        assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"), "{reference}");
        assert!(heard.header("allow").contains("GET"), "{reference}");
        assert_eq!(registry.get(&rest).await.body, image.bytes, "{reference}");
    }
    for content in [crate::config("content"), "content".to_owned()] {
        let rest = format!("blobs/{}", Digest::of(content.as_bytes()));
        let heard = registry.delete(&rest).await;
        assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"), "{content}");
        assert!(heard.header("allow").contains("GET"), "{content}");
        assert_eq!(registry.get(&rest).await.body, content);
    }
}

#[tokio::test]
async fn attachments_of_older_clients_are_kept() {
    let registry = Registry::new().await;
    let image = registry.push("1.0.0", "content").await;
    for suffix in ["sig", "att", "sbom"] {
        let tag = format!("{}.{suffix}", image.digest().as_str().replace(':', "-"));
        let attached = registry.push(&tag, suffix).await;
        assert_eq!(registry.delete(&format!("manifests/{tag}")).await.refusal(), refused(405, "UNSUPPORTED"));
        assert_eq!(registry.get(&format!("manifests/{tag}")).await.body, attached.bytes);
    }
}

#[tokio::test]
async fn what_is_not_here_cannot_be_deleted() {
    let registry = Registry::new().await;
    let absent = Digest::of(registry.component.as_bytes());
    for reference in ["1.0.0", "latest", absent.as_str()] {
        let heard = registry.delete(&format!("manifests/{reference}")).await;
        assert_eq!(heard.refusal(), refused(404, "NAME_UNKNOWN"), "{reference}");
    }
    registry.push("latest", "content").await;
    for reference in ["1.0.0", "-x", absent.as_str()] {
        let heard = registry.delete(&format!("manifests/{reference}")).await;
        assert_eq!(heard.refusal(), refused(404, "MANIFEST_UNKNOWN"), "{reference}");
    }
    for reference in ["sha256:abc", "md5:00"] {
        let heard = registry.delete(&format!("manifests/{reference}")).await;
        assert_eq!(heard.refusal(), refused(400, "DIGEST_INVALID"), "{reference}");
    }
}

#[tokio::test]
async fn what_was_accepted_for_deletion_is_gone_at_once() {
    for set in sets() {
        let registry = Registry::new().await;
        set.push_blobs(&registry).await;
        for manifest in &set.manifests {
            assert_eq!(registry.put(set.name, manifest).await.status, 201, "{}", set.name);
        }
        // The name, then manifests before what they need, then blobs. What is said about an artefact is kept as long as it.
        let name = format!("manifests/{}", set.name);
        let (own, about): (Vec<_>, Vec<_>) =
            set.manifests.iter().rev().partition(|manifest| subject_of(manifest).is_empty());
        let manifests =
            own.into_iter().chain(about).map(|manifest| format!("manifests/{}", manifest.digest()));
        let blobs = set.blobs.iter().map(|blob| format!("blobs/{}", Digest::of(blob)));
        for rest in [name].into_iter().chain(manifests).chain(blobs) {
            let heard = registry.delete(&rest).await;
            assert_eq!((heard.status, heard.body.len()), (202, 0), "{} {rest}: {heard:?}", set.name);
            assert_eq!(registry.head(&rest).await.status, 404, "{} {rest}", set.name);
            assert_eq!(registry.delete(&rest).await.status, 404, "{} {rest}", set.name);
        }
        assert_eq!(registry.get("tags/list").await.json()["tags"], serde_json::json!([]));
    }
}

#[tokio::test]
async fn a_blob_that_was_never_here_is_not_deleted() {
    let registry = Registry::new().await;
    let rest = format!("blobs/{}", Digest::of(registry.component.as_bytes()));
    assert_eq!(registry.delete(&rest).await.refusal(), refused(404, "BLOB_UNKNOWN"));
}

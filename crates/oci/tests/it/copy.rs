//! Copies between layouts and registries.

use std::sync::{Arc, Mutex};

use semel_model::digest::Digest;
use semel_oci::client::Pushed;
use semel_oci::copy::{CopyError, Endpoint, Event, Progress, Tally, copy};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, Select};
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use semel_oci::transport::Transport;

use crate::artefacts::Example;
use crate::registry::{Fault, Registry, patient};

fn repository(registry: &Registry) -> Endpoint {
    Endpoint::Registry { client: registry.client(), name: "shop/api".parse().unwrap() }
}

#[tokio::test]
async fn an_artefact_travels_from_layout_to_registry_to_registry_to_layout() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let digest = example.index.descriptor.digest.clone();
    let first = Endpoint::Layout(example.layout(&directory.path().join("first")).await);
    let (near, far) = (Registry::default(), Registry::default());
    let client = patient(Transport::remote(&far.listen().await).unwrap());
    let over_socket = Endpoint::Registry { client, name: "other/name".parse().unwrap() };
    let last = Layout::create(directory.path().join("last")).await.unwrap();

    let ignored = Progress::ignored();
    let copied = copy(&first, &repository(&near), &digest, Some("1.4.2"), &ignored).await.unwrap();
    assert_eq!((copied.manifests, copied.sent.blobs, copied.existing.blobs), (3, 5, 0));
    assert_eq!(near.with(|state| state.tags["1.4.2"].clone()), digest);
    copy(&repository(&near), &over_socket, &digest, None, &ignored).await.unwrap();
    assert!(far.with(|state| state.tags.is_empty() && state.manifests.contains_key(&digest)));
    copy(&over_socket, &Endpoint::Layout(last.clone()), &digest, Some("again"), &ignored).await.unwrap();

    let root = last.resolve(Select::Tag("again")).await.unwrap();
    assert_eq!(root.digest, digest);
    for blob in last.closure(&root).await.unwrap().blobs {
        assert!(last.holds(&blob).await.unwrap());
    }
}

#[tokio::test]
async fn a_repeated_copy_sends_nothing_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let digest = example.index.descriptor.digest.clone();
    let source = Endpoint::Layout(example.layout(&directory.path().join("a")).await);
    let registry = Registry::default();
    let layout = Layout::create(directory.path().join("b")).await.unwrap();
    let total: u64 = example.blobs.iter().map(|(blob, _)| blob.size).sum();
    for destination in [repository(&registry), Endpoint::Layout(layout)] {
        for repeated in [false, true] {
            let events = Arc::new(Mutex::new(Vec::new()));
            let heard = events.clone();
            let progress = Progress::to(move |event| heard.lock().unwrap().push(event));
            let copied = copy(&source, &destination, &digest, None, &progress).await.unwrap();
            let all = Tally { blobs: 5, bytes: total };
            let (sent, existing) = if repeated { (Tally::default(), all) } else { (all, Tally::default()) };
            assert_eq!((copied.sent, copied.existing), (sent, existing));
            let events = events.lock().unwrap();
            assert_eq!(events[0], Event::Planned { blobs: 5, bytes: total });
            let bytes: u64 =
                events.iter().map(|event| if let Event::Bytes(bytes) = event { *bytes } else { 0 }).sum();
            assert_eq!(bytes, copied.sent.bytes);
            let skipped =
                events.iter().filter(|event| matches!(event, Event::Done(_, Pushed::Existed))).count();
            assert_eq!(skipped, copied.existing.blobs);
        }
    }
}

#[tokio::test]
async fn a_copy_goes_on_when_the_connection_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let digest = example.index.descriptor.digest.clone();
    let from_layout = Endpoint::Layout(example.layout(directory.path()).await);
    let (registry, second) = (Registry::default(), Registry::default());
    for (source, destination) in [(&from_layout, &registry), (&repository(&registry), &second)] {
        destination.with(|state| state.faults.push_back(Fault::BreakAfter(1_500_000)));
        copy(source, &repository(destination), &digest, None, &Progress::ignored()).await.unwrap();
        assert!(destination.with(|state| state.manifests.contains_key(&digest)));
    }
}

#[tokio::test]
async fn damage_at_the_source_stops_the_copy_before_the_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let digest = example.index.descriptor.digest.clone();
    let layout = example.layout(&directory.path().join("a")).await;
    let damaged = &example.blobs[0].0;
    let mut bytes = example.blobs[0].1.to_vec();
    bytes[2_000_000] ^= 1;
    std::fs::write(layout.blob_path(&damaged.digest), bytes).unwrap();
    let source = Endpoint::Layout(layout);
    let registry = Registry::default();
    let target = Layout::create(directory.path().join("b")).await.unwrap();
    for destination in [repository(&registry), Endpoint::Layout(target.clone())] {
        let error = copy(&source, &destination, &digest, None, &Progress::ignored()).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(
            text.contains(damaged.digest.as_str()) && text.contains("Mismatch") || text.contains("Content"),
            "{text}"
        );
    }
    assert!(registry.with(|state| state.manifests.is_empty() && !state.blobs.contains_key(&damaged.digest)));
    assert!(target.entries().await.unwrap().is_empty());
    assert_eq!(target.blob_size(&damaged.digest).await.unwrap(), None);
}

#[tokio::test]
async fn layers_that_lie_elsewhere_travel_only_when_they_are_here() {
    let directory = tempfile::tempdir().unwrap();
    let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    let (here, absent) = (Descriptor::of(kind, b"here"), Descriptor::of(kind, b"absent"));
    let manifest = ImageManifest {
        artifact_type: None,
        config: Descriptor::empty(),
        layers: vec![here.clone(), absent],
        subject: None,
        annotations: Default::default(),
    };
    let encoded = manifest.encode();
    let layout = Layout::create(directory.path()).await.unwrap();
    layout.add_bytes(media_type::OCI_EMPTY, b"{}").await.unwrap();
    layout.add_bytes(kind, b"here").await.unwrap();
    let digest = &encoded.descriptor.digest;
    layout.put_manifest(digest, media_type::OCI_MANIFEST, &encoded.bytes, None).await.unwrap();
    let registry = Registry::default();
    let copied =
        copy(&Endpoint::Layout(layout), &repository(&registry), digest, None, &Progress::ignored()).await;
    assert_eq!(copied.unwrap().sent.blobs, 2);
    assert!(registry.with(|state| state.blobs.contains_key(&here.digest)));
}

#[tokio::test]
async fn a_copy_that_cannot_begin_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let source = Endpoint::Layout(example.layout(directory.path()).await);
    let registry = Registry::default();
    let digest = &example.index.descriptor.digest;
    let named = copy(&source, &repository(&registry), digest, Some("not a tag"), &Progress::ignored()).await;
    assert!(matches!(named, Err(CopyError::Name { .. })));
    let unknown = Digest::of(b"unknown");
    let error =
        copy(&source, &repository(&registry), &unknown, None, &Progress::ignored()).await.unwrap_err();
    assert!(error.to_string().contains(unknown.as_str()));
    let error =
        copy(&repository(&registry), &source, &unknown, None, &Progress::ignored()).await.unwrap_err();
    assert!(matches!(error, CopyError::Registry(error) if error.is_not_found()));
}

//! Layouts: what is written is read, and damage is found and named.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use semel_model::digest::{Algorithm, Digest};
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::{Layout, LayoutError, Select};
use semel_oci::media_type;
use semel_oci::verify::Mismatch;
use tokio::io::AsyncReadExt as _;

use crate::artefacts::Example;

async fn read(layout: &Layout, descriptor: &Descriptor) -> Result<Vec<u8>, String> {
    let mut reader = layout.open_blob(descriptor).await.map_err(|error| described(&error))?;
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Mismatch::of(&error).unwrap().to_string()),
    }
}

/// The error with its causes.
fn described(error: &LayoutError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_artefact_that_was_written_is_found_and_read() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    example.layout(directory.path()).await;
    let layout = Layout::open(directory.path()).await.unwrap();
    let wanted = example.index.descriptor.digest.clone();
    for select in [Select::Only, Select::Tag("1.4.2"), Select::Digest(&wanted)] {
        let root = layout.resolve(select).await.unwrap();
        assert_eq!(root.digest, wanted);
        let closure = layout.closure(&root).await.unwrap();
        assert_eq!((closure.manifests.len(), closure.blobs.len()), (3, 5));
        assert_eq!(closure.manifests[2].descriptor.digest, wanted);
    }
    for (descriptor, bytes) in &example.blobs {
        assert_eq!(read(&layout, descriptor).await.as_deref(), Ok(&bytes[..]));
    }
    let child = example.images[0].descriptor.digest.clone();
    assert_eq!(layout.resolve(Select::Digest(&child)).await.unwrap().media_type, media_type::OCI_MANIFEST);
    // Nothing but the layout itself: no temporary files.
    assert_eq!(files(directory.path()).len(), 2 + 3 + 5);
}

#[tokio::test]
async fn what_cannot_be_found_is_said_together_with_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let layout = example.layout(directory.path()).await;
    let image = &example.images[0];
    let put = |name| {
        layout.put_manifest(&image.descriptor.digest, &image.descriptor.media_type, &image.bytes, name)
    };
    put(Some("part")).await.unwrap();
    let text = |error: LayoutError| error.to_string();
    let missing = text(layout.resolve(Select::Tag("2.0.0")).await.unwrap_err());
    assert!(missing.contains("named `2.0.0`") && missing.contains("1.4.2, part"), "{missing}");
    let ambiguous = text(layout.resolve(Select::Only).await.unwrap_err());
    assert!(ambiguous.contains("2 manifests") && ambiguous.contains("1.4.2, part"), "{ambiguous}");
    let unknown = Digest::of(b"unknown");
    assert!(text(layout.resolve(Select::Digest(&unknown)).await.unwrap_err()).contains(unknown.as_str()));
    let empty = Layout::create(directory.path().join("new")).await.unwrap();
    assert!(text(empty.resolve(Select::Only).await.unwrap_err()).contains("it has: nothing"));
}

#[tokio::test]
async fn a_name_points_to_the_manifest_that_got_it_last() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let layout = example.layout(directory.path()).await;
    for (image, name) in
        [(0, Some("latest")), (1, Some("latest")), (1, Some("latest")), (1, None), (1, Some("x"))]
    {
        let image = &example.images[image];
        let Descriptor { digest, media_type, .. } = &image.descriptor;
        layout.put_manifest(digest, media_type, &image.bytes, name).await.unwrap();
    }
    let second = &example.images[1].descriptor.digest;
    assert_eq!(&layout.resolve(Select::Tag("latest")).await.unwrap().digest, second);
    assert_eq!(&layout.resolve(Select::Tag("x")).await.unwrap().digest, second);
    // 1.4.2, the first image without its name, the second one under its two names.
    assert_eq!(layout.entries().await.unwrap().len(), 4);
}

#[tokio::test]
async fn writers_at_the_same_time_lose_no_entry() {
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    let layout = example.layout(directory.path()).await;
    let image = &example.images[0];
    let names: Vec<String> = (0..20).map(|i| format!("n{i}")).collect();
    let writers = names.iter().map(|name| {
        layout.put_manifest(&image.descriptor.digest, &image.descriptor.media_type, &image.bytes, Some(name))
    });
    futures_util::future::try_join_all(writers).await.unwrap();
    assert_eq!(layout.entries().await.unwrap().len(), 21);
}

#[tokio::test]
async fn every_damage_to_a_blob_is_found_and_names_file_and_digests() {
    let example = Example::new();
    let (descriptor, bytes) = &example.blobs[0];
    let mut flipped = bytes.to_vec();
    flipped[0] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    let damages = [flipped, bytes[..bytes.len() - 1].to_vec(), longer, Vec::new()];
    for damage in damages {
        let directory = tempfile::tempdir().unwrap();
        let layout = example.layout(directory.path()).await;
        let path = layout.blob_path(&descriptor.digest);
        std::fs::write(&path, &damage).unwrap();
        let text = read(&layout, descriptor).await.unwrap_err();
        assert!(text.contains(path.to_str().unwrap()) && text.contains(descriptor.digest.as_str()), "{text}");
        let found = Digest::of(&damage);
        assert!(text.contains(found.as_str()) || damage.len() > bytes.len(), "{text}");
        assert!(!layout.holds(descriptor).await.unwrap());
        // Given the right bytes, it heals.
        assert!(layout.add_blob(descriptor, &bytes[..]).await.unwrap());
        assert_eq!(read(&layout, descriptor).await.as_deref(), Ok(&bytes[..]));
    }
}

#[tokio::test]
async fn every_damage_to_a_manifest_is_found() {
    let example = Example::new();
    let child = &example.images[1];
    for damage in [&b"{}"[..], b"", &child.bytes[1..]] {
        let directory = tempfile::tempdir().unwrap();
        let layout = example.layout(directory.path()).await;
        let path = layout.blob_path(&child.descriptor.digest);
        std::fs::write(&path, damage).unwrap();
        let root = layout.resolve(Select::Only).await.unwrap();
        let text = described(&layout.closure(&root).await.unwrap_err());
        for part in [path.to_str().unwrap(), child.descriptor.digest.as_str(), Digest::of(damage).as_str()] {
            assert!(text.contains(part), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = layout.closure(&root).await.unwrap_err();
        assert!(matches!(error, LayoutError::Missing { .. }), "{error}");
    }
}

#[tokio::test]
async fn wrong_bytes_are_not_stored_and_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path().join("new/layout")).await.unwrap();
    let before = files(directory.path());
    let promised = Descriptor::of("text/plain", b"semel");
    for wrong in [&b"semul"[..], b"seme", b"semel!", b""] {
        let error = layout.add_blob(&promised, wrong).await.unwrap_err();
        assert!(matches!(error, LayoutError::WrongBytes { .. }), "{error}");
    }
    let error =
        layout.put_manifest(&promised.digest, media_type::OCI_MANIFEST, b"{", None).await.unwrap_err();
    assert!(matches!(error, LayoutError::Manifest { .. }), "{error}");
    assert_eq!(files(directory.path()), before);
    let stored = layout.add_bytes("text/plain", b"semel").await.unwrap();
    assert_eq!(stored, promised);
    assert_eq!(layout.read_blob(&promised.digest).await.unwrap(), "semel");
    assert!(!layout.add_blob(&promised, &b"semel"[..]).await.unwrap());
}

#[tokio::test]
async fn blobs_may_lie_under_sha512() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).await.unwrap();
    let descriptor = Descriptor::new("text/plain", Digest::of_with(Algorithm::Sha512, b"semel"), 5);
    layout.add_blob(&descriptor, &b"semel"[..]).await.unwrap();
    assert_eq!(read(&layout, &descriptor).await.unwrap(), b"semel");
}

#[tokio::test]
async fn a_directory_that_is_no_layout_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let open = |path: PathBuf| async move { Layout::open(path).await.unwrap_err().to_string() };
    assert!(open(root.join("absent")).await.contains("no file `oci-layout`"));
    std::fs::write(root.join("file"), "x").unwrap();
    assert!(open(root.join("file")).await.contains("no directory"));
    let error = Layout::create(root).await.unwrap_err();
    assert!(matches!(error, LayoutError::Occupied { .. }), "{error}");
    assert_eq!(files(root).len(), 1);
    for (marker, expected) in [("{", "EOF"), (r#"{"imageLayoutVersion":"2.0.0"}"#, "version is `2.0.0`")] {
        std::fs::write(root.join("oci-layout"), marker).unwrap();
        let text = open(root.into()).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_broken_index_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).await.unwrap();
    let path = directory.path().join("index.json");
    for broken in [
        "",
        "{}",
        r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#,
        r#"{"schemaVersion":2,"layers":[]}"#,
    ] {
        std::fs::write(&path, broken).unwrap();
        let error = layout.entries().await.unwrap_err();
        assert!(matches!(&error, LayoutError::Index { path: named, .. } if *named == path), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(layout.entries().await, Err(LayoutError::Missing { .. })));
}

#[tokio::test]
async fn indexes_within_indexes_without_end_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).await.unwrap();
    let mut child = Vec::new();
    for _ in 0..20 {
        let index = semel_oci::manifest::Index {
            artifact_type: None,
            manifests: std::mem::take(&mut child),
            subject: None,
            annotations: Default::default(),
        };
        let encoded = index.encode();
        layout.add_manifest(&encoded.descriptor.digest, media_type::OCI_INDEX, &encoded.bytes).await.unwrap();
        child = vec![encoded.descriptor];
    }
    let error = layout.closure(&child[0]).await.unwrap_err();
    assert!(matches!(error, LayoutError::TooManyManifests(_)), "{error}");
}

//! Other people's tools read what we write, and the other way round.

use std::process::Command;

use semel_oci::layout::{Layout, Select};
use semel_oci::reference::Place;

use crate::artefacts::Example;

/// Whether the program is there. On a build server it must be.
#[allow(clippy::print_stderr, reason = "a test that does nothing says so")]
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

#[tokio::test]
async fn skopeo_copies_our_layout_and_we_read_its_copy() {
    if !have("skopeo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let example = Example::new();
    example.layout(&directory.path().join("ours")).await;
    let place = |name: &str| format!("oci:{}:1.4.2", directory.path().join(name).display());
    // The layers are no real archives, which skopeo would otherwise compress.
    let run = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--preserve-digests", &place("ours"), &place("theirs")])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    let Place::Layout { directory, tag, .. } = place("theirs").parse().unwrap() else { panic!("no layout") };
    let theirs = Layout::open(directory).await.unwrap();
    let root = theirs.resolve(Select::Tag(&tag.unwrap())).await.unwrap();
    assert_eq!(root.digest, example.index.descriptor.digest);
    let closure = theirs.closure(&root).await.unwrap();
    assert_eq!((closure.manifests.len(), closure.blobs.len()), (3, 5));
    for blob in &closure.blobs {
        assert!(theirs.holds(blob).await.unwrap());
    }
}

//! skopeo: copies between layouts and registries, and converts when it is told to.

use std::fs;
use std::path::PathBuf;

use semel_model::digest::Digest;
use semel_oci::media_type;

use super::story::{self, Client};
use super::{Shop, succeeded};
use crate::environment::{Ran, has};
use crate::layout::{Layout, only_entry};

/// skopeo, with one layout for each image.
pub(super) struct Skopeo<'a>(pub(super) &'a Shop);

impl Skopeo<'_> {
    /// Copies, with more words before source and target.
    pub(super) fn copy(&self, words: &[&str], from: &str, to: &str) -> Ran {
        let first = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        self.0.run("skopeo", &[&first[..], words, &[from, to]].concat())
    }

    /// Fetches into an empty layout, and gives it.
    pub(super) fn fetch(&self, words: &[&str], reference: &str) -> PathBuf {
        let dir = tempfile::tempdir_in(self.0.path("")).unwrap().keep();
        let target = format!("oci:{}:x", dir.display());
        succeeded(reference, self.copy(words, &format!("docker://{reference}"), &target));
        dir
    }

    fn layout(&self, label: &str) -> Layout {
        Layout::create(self.0.path(&format!("layout-{label}")))
    }
}

impl Client for Skopeo<'_> {
    fn make(&self, label: &str) {
        let layout = self.layout(label);
        layout.name(&[("made", &layout.small(label))]);
    }

    fn push(&self, label: &str, reference: &str) -> Ran {
        self.copy(&[], &self.layout(label).place("made"), &format!("docker://{reference}"))
    }

    fn pull(&self, reference: &str) -> String {
        only_entry(&self.fetch(&[], reference))
    }
}

#[test]
fn skopeo_goes_through_the_story() {
    if has("skopeo") {
        let shop = Shop::open();
        story::tell(&shop, &Skopeo(&shop));
    }
}

#[test]
fn schema_2_is_served_byte_for_byte_as_it_was_pushed() {
    if !has("skopeo") {
        return;
    }
    let shop = Shop::open();
    let skopeo = Skopeo(&shop);
    skopeo.make("first");
    let remote = |tag: &str| format!("docker://{}", shop.reference(tag));
    let dir = |name: &str| format!("dir:{}", shop.path(name).display());
    let converted =
        skopeo.copy(&["--format", "v2s2"], &skopeo.layout("first").place("made"), &dir("converted"));
    succeeded("to schema 2", converted);
    succeeded("push", skopeo.copy(&["--preserve-digests"], &dir("converted"), &remote("2.0.0")));
    let pushed = fs::read(shop.path("converted").join("manifest.json")).unwrap();
    let served = shop.manifest("2.0.0");
    assert_eq!(served.header("content-type"), media_type::DOCKER_MANIFEST);
    assert_eq!(served.header("docker-content-digest"), Digest::of(&pushed).as_str());
    assert_eq!(served.body, pushed);
    succeeded("pull", skopeo.copy(&[], &remote("2.0.0"), &dir("pulled")));
    assert_eq!(fs::read(shop.path("pulled").join("manifest.json")).unwrap(), pushed);
}

//! skopeo: copies between layouts and registries, and converts when it is told to.

use std::fs;
use std::path::PathBuf;

use semel_model::digest::Digest;
use semel_oci::descriptor::Annotations;
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
fn schema_2_and_lists_of_it_are_served_byte_for_byte_as_they_were_pushed() {
    if !has("skopeo") {
        return;
    }
    let shop = Shop::open();
    let skopeo = Skopeo(&shop);
    let layout = skopeo.layout("of-two");
    let images = ["amd64", "arm64"].map(|architecture| {
        let layer = layout.layer("greeting", architecture);
        (architecture, layout.image(architecture, &[layer], Annotations::new()))
    });
    layout.name(&[("image", &images[0].1), ("list", &layout.index(&images))]);
    let dir = |name: &str| format!("dir:{}", shop.path(name).display());
    let manifest = |name: &str| fs::read(shop.path(name).join("manifest.json")).unwrap();
    for (made, tag, media_type) in
        [("image", "2.0.0", media_type::DOCKER_MANIFEST), ("list", "2.1.0", media_type::DOCKER_MANIFEST_LIST)]
    {
        let (converted, pulled) = (format!("converted-{made}"), format!("pulled-{made}"));
        let remote = format!("docker://{}", shop.reference(tag));
        let copy = |words: &[&str], from: &str, to: &str| {
            succeeded(made, skopeo.copy(&[&["--all"], words].concat(), from, to))
        };
        copy(&["--format=v2s2"], &layout.place(made), &dir(&converted));
        copy(&["--preserve-digests"], &dir(&converted), &remote);
        let served = shop.manifest(tag);
        assert_eq!(served.header("content-type"), media_type);
        assert_eq!(served.body, manifest(&converted));
        assert_eq!(served.header("docker-content-digest"), Digest::of(&served.body).as_str());
        copy(&[], &remote, &dir(&pulled));
        assert_eq!(manifest(&pulled), manifest(&converted));
    }
}

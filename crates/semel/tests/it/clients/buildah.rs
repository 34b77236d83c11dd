//! buildah: builds, pushes and pulls; compresses as it is told to.

use semel_oci::media_type;
use serde_json::json;

use super::podman::Podman;
use super::story::{self, Client as _};
use super::{Shop, busybox, succeeded};
use crate::environment::{has, met};

#[test]
fn buildah_goes_through_the_story() {
    if has("buildah") && met(busybox().is_some(), "busybox is not installed") {
        let shop = Shop::open();
        story::tell(&shop, &Podman { shop: &shop, program: "buildah" });
    }
}

#[test]
fn layers_compressed_with_zstd_come_back_as_they_were() {
    if !has("buildah") || !met(busybox().is_some(), "busybox is not installed") {
        return;
    }
    let shop = Shop::open();
    let buildah = Podman { shop: &shop, program: "buildah" };
    buildah.make("first");
    let words = ["push", "--tls-verify=false", "--compression-format=zstd", "localhost/made:first"];
    let target = format!("docker://{}", shop.reference("1.4.2"));
    succeeded("push", buildah.run("made", &[&words[..], &[&target]].concat()));
    let manifest = shop.manifest("1.4.2");
    assert_eq!(manifest.json()["layers"][0]["mediaType"], json!(media_type::OCI_LAYER_ZSTD));
    assert_eq!(buildah.pull(&shop.reference("1.4.2")), manifest.header("docker-content-digest"));
}

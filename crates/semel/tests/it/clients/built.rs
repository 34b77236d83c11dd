//! Images that Semel builds, pulled and run by others, however their layers are compressed.

use std::fs;

use semel_oci::media_type;
use serde_json::Value;

use super::docker::{self, Docker};
use super::podman::Podman;
use super::skopeo::Skopeo;
use super::story::Client as _;
use super::{Shop, busybox, succeeded};
use crate::environment::{TestEnvironment, has, has_all, met};

const IMAGE: &str = r#"format = 1
component = "shop/api"

[artefact]
kind = "image"
compression = "gzip"
entrypoint = ["/busybox", "cat", "/greeting"]
files = [
  { from = "busybox", to = "/busybox", layer = "programs" },
  { from = "greeting", to = "/greeting" },
]
"#;

/// A shop with two versions that differ in their compression only, and the digests of both. The larger layer has several
/// blocks.
fn shop() -> Option<(Shop, [String; 2])> {
    let busybox = busybox();
    if !met(busybox.is_some(), "busybox is not installed") {
        return None;
    }
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", IMAGE);
    environment.write("greeting", "first");
    fs::copy(busybox?, environment.dir().join("busybox")).unwrap();
    environment.commit("feat: begin");
    let gzip = environment.build();
    environment.edit("semel.toml", "\"gzip\"", "\"zstd\"");
    environment.commit("perf: smaller layers");
    let zstd = environment.build();
    let shop = Shop::around(environment);
    for (digest, layer) in [(&gzip, media_type::OCI_LAYER_GZIP), (&zstd, media_type::OCI_LAYER_ZSTD)] {
        let manifest = shop.manifest(digest).json();
        let types = manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["mediaType"]);
        assert_eq!(types.collect::<Vec<_>>(), [layer, layer]);
    }
    Some((shop, [gzip, zstd]))
}

#[test]
fn podman_runs_what_semel_built_with_either_compression() {
    if !has_all(&["podman", "runc"])
        || !met(rustix::process::geteuid().is_root(), "containers are run as root only")
    {
        return;
    }
    let Some((shop, digests)) = shop() else { return };
    let podman = Podman { shop: &shop, program: "podman" };
    for digest in digests {
        let reference = shop.reference(&digest);
        assert_eq!(podman.pull(&reference), digest);
        assert_eq!(podman.ok("pulled", &["run", "--rm", "--network=host", &reference]), "first");
    }
}

#[test]
fn docker_runs_what_semel_built_with_either_compression() {
    if !Docker::is_here() {
        return;
    }
    let Some((shop, digests)) = shop() else { return };
    for (ran, digest) in docker::ran(&shop, &digests).into_iter().zip(&digests) {
        assert_eq!(ran, "first", "{digest}");
    }
}

#[test]
fn skopeo_finds_in_either_compression_what_the_configuration_names() {
    if !has("skopeo") {
        return;
    }
    let Some((shop, digests)) = shop() else { return };
    for digest in digests {
        let dir = shop.path(&format!("plain-{}", &digest[7..19]));
        let (from, to) = (format!("docker://{}", shop.reference(&digest)), format!("dir:{}", dir.display()));
        succeeded("skopeo", Skopeo(&shop).copy(&["--dest-decompress"], &from, &to));
        let read =
            |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap() };
        let manifest = read("manifest.json");
        let config = manifest["config"]["digest"].as_str().unwrap();
        let plain = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone());
        let named = read(&config["sha256:".len()..])["rootfs"]["diff_ids"].clone();
        assert_eq!(plain.collect::<Value>(), named);
    }
}

//! Artefacts of every shape: what Semel builds, many platforms, many layers, large manifests, layers that are elsewhere.

use std::fs;

use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;

use super::curl::Curl;
use super::docker::{self, Docker};
use super::podman::Podman;
use super::skopeo::Skopeo;
use super::story::Client as _;
use super::{NAME, Shop, succeeded};
use crate::environment::{TestEnvironment, has};
use crate::layout::{Layout, only_entry};

/// As large as the manifests that other people's clients read.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// More would be beyond what Docker Engine unpacks.
const LAYERS: usize = 100;

#[test]
fn what_was_built_is_pulled_by_its_version_and_by_its_digest() {
    if !has("skopeo") {
        return;
    }
    let environment = TestEnvironment::project();
    environment.make_it_an_image();
    environment.edit("semel.toml", "tiny/service", NAME);
    environment.commit("feat: an image");
    let digest = environment.build();
    let shop = Shop::around(environment);
    for reference in ["0.1.0", &digest] {
        let reference = shop.reference(reference);
        assert_eq!(Skopeo(&shop).pull(&reference), digest, "{reference}");
        if has("podman") {
            let podman = Podman { shop: &shop, program: "podman" };
            assert_eq!(podman.pull(&reference), digest, "{reference}");
        }
    }
    if Docker::is_here() {
        assert_eq!(docker::pulled(&shop, &[("0.1.0", &[]), (&digest, &[])]), [&*digest, &*digest]);
    }
    let repository = format!("docker://{}/{NAME}", shop.serving.address);
    let tags = shop.ok("skopeo", &["list-tags", "--tls-verify=false", &repository]);
    assert!(tags.contains("\"0.1.0\""), "{tags}");
}

#[test]
fn an_index_of_two_platforms_is_copied_whole_and_each_client_takes_its_own() {
    if !has("skopeo") {
        return;
    }
    let shop = Shop::open();
    let layout = Layout::create(shop.path("layout"));
    let platforms = ["amd64", "arm64"].map(|architecture| {
        let layer = layout.layer("greeting", architecture);
        (architecture, layout.image(architecture, &[layer], Annotations::new()))
    });
    let index = layout.index(&platforms);
    layout.name(&[("made", &index)]);
    push(&shop, &["--all"], &layout, "1.4.2");
    assert_eq!(shop.digest("1.4.2"), index.digest.as_str());
    let whole = Skopeo(&shop).fetch(&["--all"], &shop.reference("1.4.2"));
    assert_eq!(only_entry(&whole), index.digest.as_str());
    for (architecture, image) in &platforms {
        let words = format!("--override-arch={architecture}");
        let copied = shop.ok(
            "skopeo",
            &[
                &words,
                "inspect",
                "--raw",
                "--tls-verify=false",
                &format!("docker://{}", shop.reference(image.digest.as_str())),
            ],
        );
        assert_eq!(Digest::of(copied.as_bytes()), image.digest, "{architecture}");
    }
    if has("podman") {
        let podman = Podman { shop: &shop, program: "podman" };
        for (architecture, image) in &platforms {
            let words = ["pull", "--quiet", "--tls-verify=false", "--arch", architecture];
            podman.ok(architecture, &[&words[..], &[&shop.reference("1.4.2")]].concat());
            let inspect = ["image", "inspect", "--format", "{{.Architecture}} {{.RepoDigests}}"];
            let found = podman.ok(architecture, &[&inspect[..], &[&shop.reference("1.4.2")]].concat());
            assert!(found.starts_with(architecture), "{found}");
            assert!(found.contains(image.digest.as_str()), "{found}");
        }
    }
    if Docker::is_here() {
        let arm = docker::pulled(&shop, &[("1.4.2", &["--platform=linux/arm64"])]);
        assert_eq!(arm, [index.digest.as_str()]);
    }
}

#[test]
fn an_image_of_a_hundred_layers_and_a_manifest_of_four_mebibytes_are_pushed_and_pulled() {
    if !has("skopeo") {
        return;
    }
    let shop = Shop::open();
    let many = Layout::create(shop.path("many"));
    let layers: Vec<_> = (0..LAYERS).map(|number| many.layer(&format!("file-{number}"), "x")).collect();
    let deep = many.image("amd64", &layers, Annotations::new());
    many.name(&[("made", &deep)]);
    push(&shop, &[], &many, "100.0.0");

    let large = Layout::create(shop.path("large"));
    let wide = of_size(&large, MANIFEST_BYTES);
    assert_eq!(wide.size, MANIFEST_BYTES as u64);
    large.name(&[("made", &wide)]);
    push(&shop, &[], &large, "4.0.0");

    for (tag, pushed) in [("100.0.0", &deep), ("4.0.0", &wide)] {
        assert_eq!(shop.digest(tag), pushed.digest.as_str(), "{tag}");
        assert_eq!(Skopeo(&shop).pull(&shop.reference(tag)), pushed.digest.as_str(), "{tag}");
        if has("podman") {
            let podman = Podman { shop: &shop, program: "podman" };
            assert_eq!(podman.pull(&shop.reference(tag)), pushed.digest.as_str(), "{tag}");
        }
    }
    if Docker::is_here() {
        let pulled = docker::pulled(&shop, &[("100.0.0", &[]), ("4.0.0", &[])]);
        assert_eq!(pulled, [deep.digest.as_str(), wide.digest.as_str()]);
    }
    shop.environment.ok(&["audit", "verify"]);
}

/// An image whose manifest has so many bytes.
fn of_size(layout: &Layout, bytes: usize) -> Descriptor {
    let text = |length: usize| Annotations::from([("text".to_owned(), "x".repeat(length))]);
    let with = |length: usize| layout.image("amd64", &[layout.layer("greeting", "wide")], text(length));
    let least = usize::try_from(with(0).size).unwrap();
    with(bytes - least)
}

/// Layers that their maker does not allow to be passed on: Windows images have some.
#[test]
fn an_image_whose_layers_are_elsewhere_is_pushed_and_pulled_without_them() {
    if !has("skopeo") || !has("curl") {
        return;
    }
    for layer_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let shop = Shop::open();
        let layout = Layout::create(shop.path("layout"));
        let own = layout.layer("greeting", "own");
        let foreign = layout.layer("greeting", "foreign");
        let elsewhere = Descriptor {
            urls: vec!["https://example.org/layer".to_owned()],
            ..Descriptor::new(layer_type, foreign.descriptor.digest.clone(), foreign.descriptor.size)
        };
        fs::remove_file(layout.path(&elsewhere.digest)).unwrap();
        let manifest = ImageManifest {
            artifact_type: None,
            layers: vec![elsewhere.clone(), own.descriptor.clone()],
            config: layout.config("amd64", &[foreign, own]),
            subject: None,
            annotations: Annotations::new(),
        };
        let image = layout.manifest(&manifest.encode());
        layout.name(&[("made", &image)]);
        push(&shop, &["--preserve-digests"], &layout, "1.4.2");
        assert_eq!(shop.digest("1.4.2"), image.digest.as_str(), "{layer_type}");
        let fetched = Skopeo(&shop).fetch(&["--preserve-digests"], &shop.reference("1.4.2"));
        assert_eq!(only_entry(&fetched), image.digest.as_str(), "{layer_type}");
        let absent = Curl(&shop).ask(&["--output", "/dev/null"], &format!("blobs/{}", elsewhere.digest), "");
        assert_ne!(absent.code, 0, "nobody uploaded it");
    }
}

/// Layers compressed with Zstandard: skopeo makes them of those that it is given.
#[test]
fn skopeo_recompresses_with_zstd_and_gets_that_back() {
    if !has("skopeo") {
        return;
    }
    let shop = Shop::open();
    let layout = Layout::create(shop.path("layout"));
    layout.name(&[("made", &layout.small("packed"))]);
    push(&shop, &["--dest-compress-format=zstd", "--dest-decompress=false"], &layout, "1.4.2");
    let served = shop.manifest("1.4.2");
    let kind = served.json()["layers"][0]["mediaType"].as_str().unwrap().to_owned();
    assert_eq!(kind, media_type::OCI_LAYER_ZSTD);
    assert_eq!(Skopeo(&shop).pull(&shop.reference("1.4.2")), served.header("docker-content-digest"));
}

fn push(shop: &Shop, words: &[&str], layout: &Layout, tag: &str) {
    let target = format!("docker://{}", shop.reference(tag));
    succeeded(tag, Skopeo(shop).copy(words, &layout.place("made"), &target));
}

//! Images that others made: as bases, and as what a build gives.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use semel_build::finished;
use semel_model::digest::Digest;
use semel_model::platform::Platform;
use semel_oci::archive;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::Layout;
use semel_oci::manifest::{ImageManifest, Index};
use semel_oci::media_type;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Done, Repo, finish, request, runtime, told};

/// A tar file with one file in it.
fn tar(path: &str, mode: u32) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(mode);
    builder.append_data(&mut header, path, &b"abc"[..]).unwrap();
    builder.into_inner().unwrap()
}

/// An image of one layer in a layout, without an entry in its index.
async fn image(layout: &Layout, media_type: &str, plain: &[u8], stored: &[u8]) -> Descriptor {
    image_for("amd64", layout, media_type, plain, stored).await
}

async fn image_for(
    architecture: &str,
    layout: &Layout,
    media_type: &str,
    plain: &[u8],
    stored: &[u8],
) -> Descriptor {
    let config = json!({
        "os": "linux",
        "architecture": architecture,
        "config": { "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(plain)] },
    });
    let config = layout.add_bytes(media_type::OCI_CONFIG, config.to_string().as_bytes()).await.unwrap();
    let layer = layout.add_bytes(media_type, stored).await.unwrap();
    let manifest = manifest(config, vec![layer]).encode();
    let (descriptor, bytes) = (&manifest.descriptor, &manifest.bytes);
    layout.add_manifest(&descriptor.digest, &descriptor.media_type, bytes).await.unwrap()
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> ImageManifest {
    ImageManifest { artifact_type: None, config, layers, subject: None, annotations: Annotations::new() }
}

fn for_platform(mut descriptor: Descriptor, os: &str, architecture: &str) -> Descriptor {
    descriptor.platform = Some(json!({ "os": os, "architecture": architecture }));
    descriptor
}

/// The one entry of a layout: an index, as buildx writes it.
async fn enter(layout: &Layout, manifests: Vec<Descriptor>) -> Digest {
    let index =
        Index { artifact_type: None, manifests, subject: None, annotations: Annotations::new() }.encode();
    let (digest, kind) = (&index.descriptor.digest, &index.descriptor.media_type);
    layout.put_manifest(digest, kind, &index.bytes, Some("latest")).await.unwrap().digest
}

/// A statement about an image, as BuildKit stores it.
async fn attestation(layout: &Layout, image: &Descriptor, media_type: &str) -> Descriptor {
    let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "predicate": {} }).to_string();
    let mut layer = layout.add_bytes(media_type, statement.as_bytes()).await.unwrap();
    layer.annotations.insert("in-toto.io/predicate-type".into(), "https://slsa.dev/provenance/v0.2".into());
    let config = layout.add_bytes(media_type::OCI_CONFIG, b"{}").await.unwrap();
    let encoded = manifest(config, vec![layer]).encode();
    let (descriptor, bytes) = (&encoded.descriptor, &encoded.bytes);
    let added = layout.add_manifest(&descriptor.digest, &descriptor.media_type, bytes).await.unwrap();
    let mut listed = for_platform(added, "unknown", "unknown");
    listed.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
    listed.annotations.insert("vnd.docker.reference.digest".into(), image.digest.to_string());
    listed
}

const TAKEN: &str = r#"format = 1
component = "shop/api"

[artefact]
kind = "image"
from = "image.oci"

[config]
PORT = { type = "port" }
"#;

#[test]
fn an_image_keeps_its_digest_and_what_buildx_said_about_it_refers_to_it() {
    let repo = Repo::with(TAKEN, &[]);
    let root = runtime().block_on(async {
        let layout = Layout::create(repo.path().join("image.oci")).await.unwrap();
        let plain = tar("bin/run", 0o755);
        let image = image(&layout, media_type::OCI_LAYER_TAR, &plain, &plain).await;
        let about = attestation(&layout, &image, "application/vnd.in-toto+json").await;
        let odd = attestation(&layout, &image, "application/x-odd").await;
        enter(&layout, vec![for_platform(image.clone(), "linux", "amd64"), about, odd]).await;
        image.digest
    });
    repo.commit("feat: begin");
    let done = repo.built();
    assert_eq!(done.built.packaged.manifest, root);
    assert_eq!(done.built.packaged.diff_ids, [Digest::of(&tar("bin/run", 0o755)).to_string()]);
    let claims: Vec<_> = done.built.claims.iter().map(|claim| claim.predicate_type.as_str()).collect();
    assert!(claims.contains(&"https://semel.dev/contract/v1"), "{claims:?}");
    let [attached] = done.built.attached.as_slice() else { panic!("{:?}", done.built.attached) };
    let referrer: Value = done.json(attached);
    assert_eq!(referrer["subject"]["digest"], json!(root));
    assert_eq!(referrer["artifactType"], "application/vnd.in-toto+json");
    assert_eq!(referrer["annotations"]["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v0.2");
}

#[test]
fn what_cannot_be_taken_as_it_is_is_refused_with_the_way_out() {
    let take = |path: &Path| {
        let into = TempDir::new().unwrap();
        let taken = runtime().block_on(finished::take(path, &into.path().join("l"), &platform()));
        taken.map(drop).map_err(|error| (told(&error), error.hint().unwrap_or_default()))
    };
    let dir = TempDir::new().unwrap();
    let (error, _) = take(&dir.path().join("nothing")).unwrap_err();
    assert!(error.starts_with("the build left no "), "{error}");

    let saved = dir.path().join("saved.tar");
    fs::write(&saved, docker_save(<[u8]>::to_vec)).unwrap();
    let (error, hint) = take(&saved).unwrap_err();
    assert!(error.contains("docker save") && hint.contains("type=oci"), "{error} {hint}");

    let several = dir.path().join("several");
    runtime().block_on(async {
        let layout = Layout::create(&several).await.unwrap();
        let plain = tar("a", 0o644);
        let one = image(&layout, media_type::OCI_LAYER_TAR, &plain, &plain).await;
        let two = for_platform(one.clone(), "linux", "arm64");
        enter(&layout, vec![for_platform(one, "linux", "amd64"), two]).await;
    });
    let (error, hint) = take(&several).unwrap_err();
    assert!(
        error.contains("2 images, for linux/amd64, linux/arm64") && hint.contains("--platform"),
        "{error}"
    );

    let repo = Repo::with(TAKEN, &[]);
    runtime().block_on(async {
        let layout = Layout::create(repo.path().join("image.oci")).await.unwrap();
        let plain = tar("a", 0o644);
        let image = image_for("arm64", &layout, media_type::OCI_LAYER_TAR, &plain, &plain).await;
        enter(&layout, vec![for_platform(image, "linux", "arm64")]).await;
    });
    repo.commit("feat: begin");
    let error = told(&repo.build().err().unwrap());
    assert!(
        error.ends_with("image.oci is made for linux/arm64, and the artefact for linux/amd64"),
        "{error}"
    );

    let repo = Repo::with(&TAKEN.replace("image.oci", "out"), &[("x", "")]);
    std::os::unix::fs::symlink("/etc", repo.path().join("out")).unwrap();
    repo.commit("feat: begin");
    let error = told(&repo.build().err().unwrap());
    assert!(error.contains("leads out of the source tree"), "{error}");
}

fn platform() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// How a plain layer is stored.
type Store = fn(&[u8]) -> Vec<u8>;

/// What `docker save` writes: a configuration, layers, and a list.
fn docker_save(store: Store) -> Vec<u8> {
    let layer = tar("bin/run", 0o755);
    let stored = store(&layer);
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
    })
    .to_string();
    let list = json!([{ "Config": "c.json", "RepoTags": ["api:1"], "Layers": ["l/layer.tar"] }]).to_string();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in
        [("c.json", config.as_bytes()), ("l/layer.tar", &stored), ("manifest.json", list.as_bytes())]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn what_docker_saved_is_compressed_once_and_always_the_same() {
    let dir = TempDir::new().unwrap();
    let repack = |name: &str, store: Store| {
        let (saved, layout) = (dir.path().join("saved.tar"), dir.path().join(name));
        fs::write(&saved, docker_save(store)).unwrap();
        runtime().block_on(finished::repack(&saved, &layout, &platform())).unwrap()
    };
    let (one, id) = repack("one", <[u8]>::to_vec);
    assert_eq!(repack("two", <[u8]>::to_vec).0.packaged, one.packaged);
    // Some programs leave layers as they found them.
    assert_eq!(repack("gzip", gzip).0.packaged, one.packaged);
    assert_eq!(repack("zstd", |plain| zstd::encode_all(plain, 0).unwrap()).0.packaged, one.packaged);
    assert_eq!(one.packaged.config, id, "the configuration, which gives an image its old id, is kept");
    assert_eq!(one.packaged.layers[0].diff_id, Digest::of(&tar("bin/run", 0o755)));
    assert_ne!(one.packaged.layers[0].digest, one.packaged.layers[0].diff_id);
}

#[test]
fn a_saved_layer_that_is_broken_or_a_bomb_is_refused_where_it_is_read() {
    let cases: [(Store, &str); 3] = [
        (|plain| with_its_end_cut(zstd::encode_all(plain, 0).unwrap()), "incomplete frame"),
        (|plain| with_its_end_cut(gzip(plain)), "unexpected end of file"),
        (
            |_| zstd::encode_all(io::repeat(0).take((256 << 20) + 1), 0).unwrap(),
            "it unpacks to more than 268435456 bytes, which is the limit for a layer of its size",
        ),
    ];
    for (store, cause) in cases {
        let dir = TempDir::new().unwrap();
        let saved = dir.path().join("saved.tar");
        fs::write(&saved, docker_save(store)).unwrap();
        let taken = runtime().block_on(finished::repack(&saved, &dir.path().join("layout"), &platform()));
        let error = taken.unwrap_err();
        let layer = Digest::of(&store(&tar("bin/run", 0o755)));
        assert_eq!(told(&error), format!("cannot compress layer {layer} of {}: {cause}", saved.display()));
        assert!(error.is_callers(), "{error}");
    }
}

fn with_its_end_cut(mut stored: Vec<u8>) -> Vec<u8> {
    stored.truncate(stored.len() - 2);
    stored
}

#[test]
fn a_base_may_be_an_archive_with_zstd_layers_and_is_read_once() {
    let repo = Repo::with("", &[("tool", "x")]);
    let digest = runtime().block_on(async {
        let dir = TempDir::new().unwrap();
        let layout = Layout::create(dir.path()).await.unwrap();
        let plain = tar("bin/run", 0o755);
        let stored = zstd::encode_all(plain.as_slice(), 0).unwrap();
        let image = image(&layout, media_type::OCI_LAYER_ZSTD, &plain, &stored).await;
        let digest = enter(&layout, vec![for_platform(image, "linux", "amd64")]).await;
        archive::write(&layout, &digest, Some("latest"), &repo.path().join("base.tar")).await.unwrap();
        digest
    });
    repo.write(".gitignore", "base.tar\n");
    let project = |name: &str| {
        format!(
            "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nbase = \"{name}@{digest}\"\nenv = {{ PATH = \"/bin\" }}\nexpose = [\"8080\"]\nfiles = [{{ from = \"tool\", to = \"/bin/tool\" }}]\n"
        )
    };
    repo.write("semel.toml", &project("base.tar"));
    repo.commit("feat: begin");
    let done = repo.built();
    let config = done.json(&done.built.packaged.config);
    assert_eq!(config["config"]["Labels"], json!({ "a": "b" }));
    assert_eq!(config["config"]["Env"], json!(["PATH=/bin"]));
    assert_eq!(config["config"]["ExposedPorts"], json!({ "8080/tcp": {} }));
    assert_eq!(done.manifest()["layers"][0]["mediaType"], media_type::OCI_LAYER_ZSTD);

    repo.write("semel.toml", &project("shop/base"));
    repo.commit("fix: base");
    let error = told(&repo.build().err().unwrap());
    assert_eq!(error, "the base shop/base is of a store, and no store is in use");
    repo.write("semel.toml", &project("no base at all"));
    repo.commit("fix: base");
    let error = told(&repo.build().err().unwrap());
    assert!(
        error.starts_with("the base no base at all is neither a file or directory of the project"),
        "{error}"
    );
}

/// A tar file of entries that no careful program writes: name, kind, link, text.
fn hostile(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        fields.realsize.copy_from_slice(b"00000000000\0");
        header.set_cksum();
        builder.append(&header, *text).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Builds on a base of one layer, as gzip; gives the layer's digest, and the error with its hint.
fn build_on(stored: &[u8], diff_id: &str, architecture: &str) -> (Digest, Result<Done, (String, String)>) {
    let repo = Repo::with("", &[("tool", "x")]);
    let layer = Digest::of(stored);
    let base = runtime().block_on(async {
        let layout = Layout::create(repo.path().join("base")).await.unwrap();
        let config = json!({
            "os": "linux", "architecture": architecture,
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = layout.add_bytes(media_type::OCI_CONFIG, config.to_string().as_bytes()).await.unwrap();
        let layer = layout.add_bytes(media_type::OCI_LAYER_GZIP, stored).await.unwrap();
        let manifest = manifest(config, vec![layer]).encode();
        let (descriptor, bytes) = (&manifest.descriptor, &manifest.bytes);
        layout.add_manifest(&descriptor.digest, &descriptor.media_type, bytes).await.unwrap().digest
    });
    repo.write(".gitignore", "base\n");
    repo.write("semel.toml", &format!(
        "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nbase = \"base@{base}\"\nfiles = [{{ from = \"tool\", to = \"/tool\" }}]\n"
    ));
    repo.commit("feat: begin");
    (layer, repo.build().map_err(|error| (told(&error), error.hint().unwrap_or_default())))
}

#[test]
fn a_hostile_base_is_refused_with_its_layer_and_the_limit() {
    use tar::EntryType::{Directory, GNULongName, GNUSparse, Link, Regular, Symlink};
    let zeros = vec![0; (256 << 20) + 1];
    let long = vec![b'x'; (1 << 20) + 1];
    let longer = [vec![b'x'; 5000], vec![0]].concat();
    let whole = hostile(&[("etc/passwd", Regular, "", b"root")]);
    let cases: &[(&str, Vec<u8>, &str)] = &[
        (
            "a bomb",
            hostile(&[("zeros", Regular, "", &zeros)]),
            "more than 268435456 bytes, which is the limit",
        ),
        ("an escape", hostile(&[("../../etc/passwd", Regular, "", b"x")]), "`../../etc/passwd` leads out"),
        ("an escape by dots", hostile(&[("a/../../b", Directory, "", b"")]), "`a/../../b` leads out"),
        ("a hard link out", hostile(&[("x", Link, "../../etc/shadow", b"")]), "`../../etc/shadow` leads out"),
        (
            "a hard link to nothing",
            hostile(&[("x", Link, "/etc/shadow", b"")]),
            "`x` is a second name of `etc/shadow`",
        ),
        (
            "a hard link to a directory",
            hostile(&[("d", Directory, "", b""), ("x", Link, "d", b"")]),
            "`x` is a second name of `d`",
        ),
        (
            "a hard link through a link",
            hostile(&[("d", Symlink, "/etc", b""), ("x", Link, "d/shadow", b"")]),
            "`x` is a second name of `d/shadow`",
        ),
        ("a whiteout of nothing", hostile(&[("etc/.wh.", Regular, "", b"")]), "`etc/.wh.` deletes nothing"),
        (
            "a whiteout of what is above",
            hostile(&[("etc/.wh...", Regular, "", b"")]),
            "`etc/.wh...` deletes nothing",
        ),
        ("a sparse file", hostile(&[("holes", GNUSparse, "", b"")]), "`holes` is a sparse file"),
        (
            "a header without an end",
            hostile(&[("././@LongLink", GNULongName, "", &long), ("x", Regular, "", b"")]),
            "a header of more than 1048576 bytes, which is the limit",
        ),
        (
            "a name that nobody can open",
            hostile(&[("././@LongLink", GNULongName, "", &longer), ("x", Regular, "", b"")]),
            "5000 bytes; the limit is 4096",
        ),
        ("a tar file that breaks off", whole[..512 + 2].to_vec(), "unexpected EOF"),
        ("no tar file", b"no tar file at all, and longer than a header. ".repeat(20), "cksum"),
    ];
    for (what, plain, said) in cases {
        let (layer, built) = build_on(&gzip(plain), Digest::of(plain).as_str(), "amd64");
        let (error, hint) = built.err().unwrap_or_else(|| panic!("{what} is taken"));
        assert!(
            error.starts_with(&format!("cannot read layer {layer} of the image base: ")),
            "{what}: {error}"
        );
        assert!(error.contains(said), "{what}: {error}");
        assert!(hint.contains("another base"), "{what}: {hint}");
    }
    let stored = gzip(&whole);
    let (_, built) = build_on(&stored[..stored.len() - 12], Digest::of(&whole).as_str(), "amd64");
    assert!(built.is_err(), "a gzip file that breaks off");
}

#[test]
fn what_a_layer_of_a_base_unpacks_to_is_what_its_image_says() {
    let (one, other) = (tar("a", 0o644), tar("b", 0o644));
    let (_, built) = build_on(&gzip(&one), Digest::of(&other).as_str(), "amd64");
    let (error, _) = built.err().unwrap();
    let expected = format!(
        "it unpacks to {}, and the image's configuration says {}",
        Digest::of(&one),
        Digest::of(&other)
    );
    assert!(error.ends_with(&expected), "{error}");
    let (error, _) = build_on(&gzip(&one), "sha256:what", "amd64").1.err().unwrap();
    assert!(
        error.starts_with("the configuration of the image base names layer 1 by what is no digest"),
        "{error}"
    );
}

#[test]
fn devices_of_a_base_are_left_alone_and_a_base_for_another_processor_is_refused() {
    let plain = hostile(&[
        ("dev/null", tar::EntryType::Char, "", b""),
        ("run/pipe", tar::EntryType::Fifo, "", b""),
        ("etc/.wh.gone", tar::EntryType::Regular, "", b""),
        ("etc/.wh..wh..opq", tar::EntryType::Regular, "", b""),
    ]);
    let built = |architecture| build_on(&gzip(&plain), Digest::of(&plain).as_str(), architecture).1;
    built("amd64").unwrap();
    let (error, hint) = built("arm64").err().unwrap();
    assert_eq!(error, "the image base is made for linux/arm64, and the artefact for linux/amd64");
    assert!(hint.contains("platforms = [\"linux/arm64\"] in [artefact]"), "{hint}");
}

#[test]
fn a_base_is_unpacked_once_and_damage_is_mended() {
    let plain = tar("bin/run", 0o755);
    let cache = TempDir::new().unwrap();
    let repo = Repo::with("", &[("tool", "x")]);
    let base = runtime().block_on(async {
        let layout = Layout::create(repo.path().join("base")).await.unwrap();
        image(&layout, media_type::OCI_LAYER_GZIP, &plain, &gzip(&plain)).await.digest
    });
    repo.write(".gitignore", "base\n");
    repo.write("semel.toml", &format!(
        "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nbase = \"base@{base}\"\nfiles = [{{ from = \"tool\", to = \"/tool\" }}]\n"
    ));
    repo.commit("feat: begin");
    let build = || {
        let work = TempDir::new().unwrap();
        let mut request = request(repo.source(), work.path().to_owned());
        request.bases.cache = cache.path().join("bases");
        finish(request, work).unwrap().built.packaged.manifest
    };
    let first = build();
    let kept: Vec<_> =
        fs::read_dir(cache.path().join("bases/unpacked")).unwrap().map(|one| one.unwrap().path()).collect();
    let [tar] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(fs::read(tar).unwrap(), plain);
    fs::write(tar, "damaged").unwrap();
    assert_eq!(build(), first);
    assert_eq!(fs::read(tar).unwrap(), plain);
}

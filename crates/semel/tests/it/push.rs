//! Everything that is no build goes into a store with `semel push` and comes out with `semel pull`, the same to the byte.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use semel_model::digest::Digest;
use semel_oci::descriptor::Descriptor;
use semel_oci::layout::Layout;
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;

use crate::environment::{COMPONENT, TestEnvironment, finish, has};

/// An empty zip file.
const ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A world with a file of each kind, and what each is.
fn stocked() -> (TestEnvironment, Vec<(&'static str, &'static str)>) {
    let environment = TestEnvironment::empty();
    let mut disk = vec![0; 3_000_000];
    disk[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    put(&environment.dir().join("handler.zip"), ZIP);
    put(&environment.dir().join("server.qcow2"), disk);
    put(&environment.dir().join("report.txt"), "all is well\n");
    let kinds = vec![
        ("handler.zip", media_type::SEMEL_ZIP),
        ("server.qcow2", media_type::SEMEL_VM),
        ("report.txt", media_type::SEMEL_FILE),
    ];
    (environment, kinds)
}

#[test]
fn a_server_that_went_away_is_to_be_tried_again_and_bytes_are_not_blamed() {
    let (environment, _) = stocked();
    let serving = environment.serve();
    let server = format!("http://{}", serving.address);
    environment.ok(&["--server", &server, "push", "report.txt", "shop/thing@1.0.0"]);
    let image = format!("{}/shop/thing:1.0.0", serving.address);
    drop(serving);
    for words in [&["push", "report.txt", "shop/thing@1.0.1"][..], &["push", &image, "shop/copy@1.0.0"]] {
        let ran = environment.semel(&[&["--server", &server][..], words].concat());
        assert_eq!(ran.code, 75, "{ran:?}");
    }
}

#[test]
fn files_of_every_kind_come_back_the_same_from_a_store_and_from_a_server() {
    let (environment, kinds) = stocked();
    let serving = environment.serve();
    let server = format!("http://{}", serving.address);
    for place in [&["--store", "../other"][..], &["--server", &server]] {
        let semel = |words: &[&str]| environment.ok(&[place, words].concat());
        for (number, (name, artifact_type)) in kinds.iter().enumerate() {
            let version = format!("shop/thing@1.0.{number}");
            let digest = semel(&["push", name, &version]).digest();
            let inspected = semel(&["--json", "inspect", &version]).json();
            assert_eq!(inspected["artifact_type"], *artifact_type, "{inspected}");
            let whole = fs::read(environment.dir().join(name)).unwrap();
            assert_eq!(inspected["layers"][0]["digest"], Digest::of(&whole).as_str(), "byte for byte");

            let again = semel(&["--json", "push", name, &version]).json();
            assert_eq!((&again["outcome"], &again["digest"]), (&"already".into(), &digest.as_str().into()));
            assert_eq!(again["transfer"]["uploaded_bytes"], 0, "{again}");

            let to = format!("../out/{name}");
            assert_eq!(semel(&["pull", &version, &to]).value(), digest);
            assert_eq!(fs::read(environment.dir().join(&to)).unwrap(), whole);
            assert!(semel(&["pull", &version, &to]).stderr.contains("already"));
            fs::remove_dir_all(environment.beside("out")).unwrap();
        }
        let refused = environment.semel(&[place, &["push", "report.txt", "shop/thing@1.0.0"]].concat());
        assert_eq!(refused.code, 5, "a version keeps its meaning: {refused:?}");
    }
}

#[test]
fn a_push_of_several_files_is_pulled_into_a_directory_and_overwrites_nothing() {
    let (environment, _) = stocked();
    environment.ok(&[
        "push",
        "report.txt",
        "handler.zip",
        "shop/files@1.0.0",
        "--type",
        "application/x.report",
    ]);
    let inspected = environment.ok(&["--json", "inspect", "shop/files@1.0.0"]).json();
    assert_eq!(inspected["artifact_type"], "application/x.report");
    put(&environment.beside("out/report.txt"), "mine");
    let refused = environment.semel(&["pull", "shop/files@1.0.0", "../out"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("out/report.txt") && refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(fs::read_to_string(environment.beside("out/report.txt")).unwrap(), "mine");
    assert!(!environment.beside("out/handler.zip").exists(), "all or nothing");
    environment.ok(&["pull", "shop/files@1.0.0", "../out", "--force"]);
    assert_eq!(fs::read_to_string(environment.beside("out/report.txt")).unwrap(), "all is well\n");
    assert_eq!(fs::read(environment.beside("out/handler.zip")).unwrap(), ZIP);
    assert_eq!(fs::read_dir(environment.beside("out")).unwrap().count(), 2, "nothing else is left there");
}

#[test]
fn a_broken_off_pull_is_completed_from_what_it_left() {
    let (environment, _) = stocked();
    environment.ok(&["push", "server.qcow2", "shop/disk@1.0.0"]);
    let whole = fs::read(environment.dir().join("server.qcow2")).unwrap();
    let part = format!("../out/.semel-{}.part", Digest::of(&whole).as_str().replace(':', "-"));
    for left in [&whole[..1_000_000], b"something else"] {
        put(&environment.dir().join(&part), left);
        environment.ok(&["pull", "shop/disk@1.0.0", "../out/"]);
        assert_eq!(fs::read(environment.beside("out/server.qcow2")).unwrap(), whole);
        assert_eq!(fs::read_dir(environment.beside("out")).unwrap().count(), 1);
        fs::remove_dir_all(environment.beside("out")).unwrap();
    }
}

#[test]
fn what_cannot_be_pushed_is_refused_before_anything_is_sent() {
    let (environment, _) = stocked();
    put(&environment.dir().join("not.zip"), "no zip");
    put(&environment.dir().join("tree/x"), "x");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["./gone", "a/b@1.0.0"], 4, "gone is not there"),
        (&["report.txt", "gone", "a/b@1.0.0"], 4, "gone is not there"),
        (&["gone", "a/b@1.0.0"], 2, "is no file here"),
        (&["not.zip", "a/b@1.0.0"], 2, "hint: --kind file"),
        (&["tree", "report.txt", "a/b@1.0.0"], 2, "must be the only one"),
        (&["report.txt", "a/b@1.0.0", "--type", "report"], 2, "no media type"),
        (&["oci:x", "a/b@1.0.0", "--kind", "zip"], 2, "--kind and --type are for files"),
        (&["oci-archive:gone.tar", "a/b@1.0.0"], 4, "gone.tar is not there"),
        (&["oci-archive:report.txt", "a/b@1.0.0"], 7, "report.txt"),
    ];
    for (words, code, says) in cases {
        let ran = environment.semel(&[&["push"], words].concat());
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{words:?}: {ran:?}");
    }
    assert_eq!(environment.semel(&["versions", "-c", "a/b"]).code, 4, "there is not even a component");
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_refused() {
    let environment = TestEnvironment::empty();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (number, title) in ["../evil", "/evil", "a/../../evil"].into_iter().enumerate() {
        let dir = format!("layout{number}");
        runtime.block_on(titled(&environment.beside(&dir), title));
        let version = format!("shop/evil@1.0.{number}");
        environment.ok(&["push", &format!("oci:../{dir}"), &version]);
        let refused = environment.semel(&["pull", &version, "../out/"]);
        assert_eq!(refused.code, 2, "{title}: {refused:?}");
        assert!(refused.stderr.contains("stays inside"), "{title}: {refused:?}");
    }
    assert!(!environment.beside("evil").exists() && !environment.beside("out").exists());
    // Nor does a link that lies there already lead out.
    runtime.block_on(titled(&environment.beside("below"), "link/evil"));
    environment.ok(&["push", "oci:../below", "shop/evil@2.0.0"]);
    fs::create_dir_all(environment.beside("out")).unwrap();
    symlink("..", environment.beside("out/link")).unwrap();
    assert_eq!(environment.semel(&["pull", "shop/evil@2.0.0", "../out"]).code, 2);
    assert!(!environment.beside("evil").exists());
}

#[test]
fn an_archive_with_a_broken_layer_is_not_taken_out_and_the_layer_is_named() {
    let environment = TestEnvironment::empty();
    let broken = [&b"\x28\xb5\x2f\xfd"[..], &[0xff; 100]].concat();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let layout = Layout::create(environment.beside("broken")).await.unwrap();
        let layer = layout.add_bytes(media_type::OCI_LAYER_ZSTD, &broken).await.unwrap();
        enter(&layout, media_type::SEMEL_ARCHIVE, layer).await;
    });
    environment.ok(&["push", "oci:../broken", "shop/broken@1.0.0"]);
    let refused = environment.semel(&["pull", "shop/broken@1.0.0", "../out"]);
    assert_eq!(refused.code, 7, "{refused:?}");
    assert!(refused.stderr.contains(&format!("it is in layer {}", Digest::of(&broken))), "{refused:?}");
    for nothing in ["out", ".out.semel-pull"] {
        assert!(!environment.beside(nothing).exists(), "{nothing}");
    }
}

/// A layout with an artefact of one file of a name.
async fn titled(dir: &Path, title: &str) {
    let layout = Layout::create(dir).await.unwrap();
    let mut file = layout.add_bytes("application/x", title.as_bytes()).await.unwrap();
    file.annotations.insert("org.opencontainers.image.title".into(), title.into());
    enter(&layout, "application/x", file).await;
}

/// Enters an artefact of one layer.
async fn enter(layout: &Layout, artifact_type: &str, layer: Descriptor) {
    layout.add_bytes(media_type::OCI_EMPTY, b"{}").await.unwrap();
    let manifest = ImageManifest {
        artifact_type: Some(artifact_type.into()),
        config: Descriptor::empty(),
        layers: vec![layer],
        subject: None,
        annotations: Default::default(),
    };
    let manifest = manifest.encode();
    let digest = &manifest.descriptor.digest;
    layout.put_manifest(digest, media_type::OCI_MANIFEST, &manifest.bytes, None).await.unwrap();
}

#[test]
fn an_archive_of_an_image_is_one_file_and_the_same_every_time() {
    let (environment, _) = stocked();
    let digest = environment.ok(&["push", "report.txt", "server.qcow2", "shop/files@1.0.0"]).digest();
    environment.ok(&["pull", "shop/files@1.0.0", "oci-archive:../one.tar"]);
    // What a broken-off pull of something else left is no part of it.
    environment.ok(&["push", "handler.zip", "shop/zip@1.0.0"]);
    environment.ok(&["pull", "shop/zip@1.0.0", "oci:../.two.tar.semel-pull"]);
    environment.ok(&["pull", "shop/files@1.0.0", "oci-archive:../two.tar"]);
    let one = fs::read(environment.beside("one.tar")).unwrap();
    assert!(
        one == fs::read(environment.beside("two.tar")).unwrap(),
        "the same artefact gives the same bytes"
    );
    let there: Vec<_> = fs::read_dir(environment.beside("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("tar"))
        .collect();
    assert_eq!(there.len(), 2, "nothing else is left there: {there:?}");

    let from = "oci-archive:../one.tar";
    assert_eq!(environment.ok(&["--store", "../other", "push", from, "shop/files@1.0.0"]).digest(), digest);
    assert!(environment.ok(&["pull", "shop/files@1.0.0", from]).stderr.contains("was in"));
    let refused = environment.semel(&["pull", "shop/zip@1.0.0", from]);
    assert_eq!(refused.code, 2, "{refused:?}");

    // A bit of the disk image flips.
    let mut damaged = one;
    let at = damaged.windows(3).position(|bytes| bytes == b"QFI").unwrap() + 1_000_000;
    damaged[at] ^= 1;
    fs::write(environment.beside("damaged.tar"), damaged).unwrap();
    let refused =
        environment.semel(&["--store", "../third", "push", "oci-archive:../damaged.tar", "shop/files@1.0.0"]);
    assert_eq!(refused.code, 7, "{refused:?}");
    let blob = Digest::of(&fs::read(environment.dir().join("server.qcow2")).unwrap());
    assert!(refused.stderr.contains(blob.hex()), "the blob is named: {refused:?}");
}

#[test]
fn archives_are_exchanged_with_skopeo_and_docker_save() {
    if !has("skopeo") {
        return;
    }
    let environment = TestEnvironment::project();
    environment.make_it_an_image();
    environment.commit("feat: an image");
    let digest = environment.build();
    environment.ok(&["pull", "0.1.0", "oci-archive:../ours.tar"]);
    let place = |scheme: &str, name: &str| format!("{scheme}:{}", environment.beside(name).display());
    let skopeo = |from: &str, to: &str| {
        let mut command = environment.program("skopeo");
        command.args(["--insecure-policy", "copy", "--preserve-digests", from, to]);
        finish(command, "")
    };
    let copied = skopeo(&place("oci-archive", "ours.tar"), &place("oci-archive", "theirs.tar"));
    assert_eq!(copied.code, 0, "{copied:?}");
    let pushed = environment.ok(&["push", "oci-archive:../theirs.tar", "other/copy@0.1.0"]);
    assert_eq!(pushed.digest(), digest);

    // What `docker save` writes has no manifest: the layers are the same, uncompressed, and so is what they unpack to.
    let mut command = environment.program("skopeo");
    let target = format!("{}:shop/api:1.0.0", place("docker-archive", "saved.tar"));
    command.args(["--insecure-policy", "copy", &place("oci-archive", "ours.tar"), &target]);
    let saved = finish(command, "");
    assert_eq!(saved.code, 0, "{saved:?}");
    environment.ok(&["push", "docker-archive:../saved.tar:1.0.0", "other/saved@1.0.0"]);
    let inspected = environment.ok(&["--json", "inspect", "other/saved@1.0.0"]).json();
    assert_eq!(inspected["layers"].as_array().unwrap().len(), 1, "{inspected}");
    environment.ok(&["audit", "verify"]);
}

/// A thing in a tree: a file, a program, a directory or a link to a name.
#[derive(Debug, Clone)]
enum Item {
    File(Vec<u8>),
    Program(Vec<u8>),
    Dir,
    Link(String),
}

fn any_tree() -> impl Strategy<Value = Vec<(String, Item)>> {
    let name = "[a-cä]{1,3}|[a-z]{101}|\\.[a-z ]{1,4}";
    let path = vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let item = prop_oneof![
        vec(any::<u8>(), 0..2000).prop_map(Item::File),
        vec(any::<u8>(), 0..10).prop_map(Item::Program),
        Just(Item::Dir),
        name.prop_map(Item::Link),
    ];
    vec((path, item), 0..12)
}

/// Lays a tree out. What cannot be, because something else is there, is left out.
fn lay_out(dir: &Path, tree: &[(String, Item)]) {
    fs::create_dir_all(dir).unwrap();
    for (path, item) in tree {
        let path = dir.join(path);
        let above = path.parent().unwrap();
        if path.symlink_metadata().is_ok() || fs::create_dir_all(above).is_err() {
            continue;
        }
        // Through a link, something could be laid out elsewhere.
        if above.canonicalize().unwrap() != dir.canonicalize().unwrap().join(above.strip_prefix(dir).unwrap())
        {
            continue;
        }
        match item {
            Item::File(bytes) => fs::write(&path, bytes).unwrap(),
            Item::Program(bytes) => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            Item::Dir => fs::create_dir(&path).unwrap(),
            Item::Link(to) => symlink(to, &path).unwrap(),
        }
    }
}

/// Everything in a directory: path, what it is, its bytes or target.
fn described(dir: &Path) -> Vec<(String, String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let (kind, bytes) = if metadata.is_symlink() {
                ("link".to_owned(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            } else if metadata.is_dir() {
                open.push(path.clone());
                ("directory".to_owned(), Vec::new())
            } else {
                (format!("file {:o}", metadata.permissions().mode() & 0o111), fs::read(&path).unwrap())
            };
            found.push((path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(), kind, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn a_file_tree_comes_back_as_it_was_whatever_is_in_it() {
    let environment = TestEnvironment::empty();
    let runs = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&any_tree(), |tree| {
        let number = runs.replace(runs.get() + 1);
        let (name, version, out) =
            (format!("t{number}"), format!("shop/tree@1.0.{number}"), format!("../o{number}"));
        lay_out(&environment.dir().join(&name), &tree);
        let digest = environment.ok(&["push", &name, &version]).digest();
        // Another directory with the same in it is the same artefact.
        let twin = format!("twin{number}");
        lay_out(&environment.dir().join(&twin), &tree);
        prop_assert_eq!(environment.ok(&["push", &twin, &version]).digest(), digest);
        environment.ok(&["pull", &version, &out]);
        prop_assert_eq!(described(&environment.dir().join(&out)), described(&environment.dir().join(&name)));
        prop_assert!(environment.ok(&["pull", &version, &out]).stderr.contains("already"));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_directory_with_something_else_in_it_is_not_touched() {
    let environment = TestEnvironment::empty();
    put(&environment.dir().join("tree/a"), "a");
    environment.ok(&["push", "tree", "shop/tree@1.0.0"]);
    put(&environment.beside("out/thesis"), "mine");
    let refused = environment.semel(&["pull", "shop/tree@1.0.0", "../out"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert_eq!(described(&environment.beside("out")).len(), 1);
    environment.ok(&["pull", "shop/tree@1.0.0", "../out", "--force"]);
    assert_eq!(described(&environment.beside("out")), described(&environment.dir().join("tree")));
}

#[test]
fn what_is_attached_goes_along_into_another_store_unless_somebody_leaves_it_out() {
    let environment = TestEnvironment::project();
    environment.build();
    let attached = |layout: &str| -> Vec<String> {
        let index = fs::read(environment.beside(layout).join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "other programs find one image: {index}");
        let names = index["manifests"][0]["annotations"]["dev.semel.attached"].as_str().unwrap_or_default();
        let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        names.sort();
        names
    };
    environment.ok(&["pull", "0.1.0", "oci:../first"]);
    let statements = attached("first");
    let digests: BTreeSet<String> = statements.iter().cloned().collect();
    assert!(statements.len() > 2 && digests.len() == statements.len(), "{statements:?}");
    environment.ok(&["pull", "0.1.0", "oci-archive:../first.tar"]);
    environment.ok(&["pull", "0.1.0", "oci:../bare", "--alone"]);
    assert_eq!(attached("bare"), [""; 0]);
    let serving = environment.serve();
    let registry = format!("{}/{COMPONENT}:0.1.0", serving.address);
    let none = Vec::new();
    for (number, (from, more, expected)) in [
        ("oci:../first", None, &statements),
        ("oci-archive:../first.tar", None, &statements),
        (registry.as_str(), None, &statements),
        ("oci:../bare", None, &none),
        (registry.as_str(), Some("--alone"), &none),
    ]
    .into_iter()
    .enumerate()
    {
        let (store, layout) = (format!("../store{number}"), format!("layout{number}"));
        let version = format!("{COMPONENT}@0.1.0");
        let words = ["--store", &store, "push", from, &version];
        environment.ok(&words.into_iter().chain(more).collect::<Vec<_>>());
        environment.ok(&["--store", &store, "pull", &version, &format!("oci:../{layout}")]);
        assert_eq!(attached(&layout), *expected, "{from} {more:?}");
        environment.ok(&["--store", &store, "audit", "verify"]);
    }
}

//! Other people's clients against a listening server.

use std::io::Write as _;
use std::path::Path;

use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::Layout;
use semel_oci::manifest::{EncodedManifest, ImageManifest};
use semel_oci::media_type;
use tokio::process::Command;

use crate::serving::Open;

/// Whether the program is there. On a build server it must be.
#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
#[expect(clippy::disallowed_methods, reason = "the environment of the test decides")]
fn have(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

struct Ran {
    ok: bool,
    stdout: Vec<u8>,
    stderr: String,
}

async fn run(program: &str, arguments: &[&str], home: &Path) -> Ran {
    let output = Command::new(program).args(arguments).env("HOME", home).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ran { ok: output.status.success(), stdout: output.stdout, stderr }
}

/// A layout of an image with one empty layer, `oci:DIR:1.4.2`, and its manifest.
async fn layout(directory: &Path, label: &str) -> EncodedManifest {
    let archive = [0; 1024];
    // Compressed, since skopeo compresses what is not.
    let mut layer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    layer.write_all(&archive).unwrap();
    let layer = layer.finish().unwrap();
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"Labels\":{{\"label\":\"{label}\"}}}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{}\"]}}}}",
        Digest::of(&archive)
    );
    let image = ImageManifest {
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, config.as_bytes()),
        layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, &layer)],
        subject: None,
        annotations: Annotations::new(),
    };
    let encoded = image.encode();
    let layout = Layout::create(directory).await.unwrap();
    layout.add_blob(&image.config, config.as_bytes()).await.unwrap();
    layout.add_blob(&image.layers[0], &layer[..]).await.unwrap();
    let EncodedManifest { bytes, descriptor } = &encoded;
    layout.put_manifest(&descriptor.digest, &descriptor.media_type, bytes, Some("1.4.2")).await.unwrap();
    encoded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_pushes_and_pulls_and_the_digest_stays() {
    if !have("skopeo") {
        return;
    }
    let (open, home) = (Open::new().await, tempfile::tempdir().unwrap());
    let path = |name: &str| home.path().join(name);
    let image = layout(&path("ours"), "first").await;
    let place = |name: &str| format!("oci:{}:1.4.2", path(name).display());
    let remote = format!("docker://{}/shop/api:1.4.2", open.address);
    let push = [
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &place("ours"),
        &remote,
    ];
    for _ in 0..2 {
        let ran = run("skopeo", &push, home.path()).await;
        assert!(ran.ok, "{}", ran.stderr);
    }
    let pull = ["--insecure-policy", "copy", "--src-tls-verify=false", &remote, &place("theirs")];
    let ran = run("skopeo", &pull, home.path()).await;
    assert!(ran.ok, "{}", ran.stderr);
    let inspect = ["inspect", "--tls-verify=false", "--format={{.Digest}}", &remote];
    let ran = run("skopeo", &inspect, home.path()).await;
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout).trim(),
        image.descriptor.digest.as_str(),
        "{}",
        ran.stderr
    );
    let theirs = path("theirs").join("blobs/sha256").join(image.descriptor.digest.hex());
    assert_eq!(std::fs::read(theirs).unwrap(), image.bytes);
    let tags = run(
        "skopeo",
        &["list-tags", "--tls-verify=false", &format!("docker://{}/shop/api", open.address)],
        home.path(),
    )
    .await;
    assert!(String::from_utf8_lossy(&tags.stdout).contains("\"1.4.2\""), "{}", tags.stderr);

    // Another image under the same version: told why, and not converted and pushed again.
    layout(&path("other"), "second").await;
    let push = ["--insecure-policy", "copy", "--dest-tls-verify=false", &place("other"), &remote];
    let ran = run("skopeo", &push, home.path()).await;
    assert!(!ran.ok && ran.stderr.contains(image.descriptor.digest.as_str()), "{}", ran.stderr);
    assert!(ran.stderr.contains("1.4.3") && !ran.stderr.contains("attempted"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_and_buildah_pull_and_push() {
    for program in ["podman", "buildah"] {
        if !have(program) {
            continue;
        }
        let (open, home) = (Open::new().await, tempfile::tempdir().unwrap());
        let image = layout(&home.path().join("ours"), "first").await;
        let pushed = semel_push(&open, home.path(), &image).await;
        let storage = [
            format!("--root={}", home.path().join("root").display()),
            format!("--runroot={}", home.path().join("run").display()),
            "--storage-driver=vfs".to_owned(),
        ];
        let with_storage = |arguments: &[&str]| {
            storage.iter().cloned().chain(arguments.iter().map(ToString::to_string)).collect::<Vec<_>>()
        };
        let remote = |tag: &str| format!("{}/shop/api:{tag}", open.address);
        for arguments in [
            with_storage(&["pull", "--tls-verify=false", &remote("1.4.2")]),
            with_storage(&[
                "push",
                "--tls-verify=false",
                &remote("1.4.2"),
                &format!("docker://{}", remote("edge")),
            ]),
        ] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ran = run(program, &arguments, home.path()).await;
            assert!(ran.ok, "{program}: {}", ran.stderr);
        }
        let heard = open.house.get("/v2/shop/api/manifests/edge").await;
        assert_eq!(heard.status, 200, "{program}");
        assert_eq!(open.house.get(&pushed).await.body, image.bytes);
    }
}

/// Pushes the image of a layout inside the process and gives the path of its manifest.
async fn semel_push(open: &Open, home: &Path, image: &EncodedManifest) -> String {
    for blob in std::fs::read_dir(home.join("ours/blobs/sha256")).unwrap() {
        open.house.push_blob(std::fs::read(blob.unwrap().path()).unwrap()).await;
    }
    assert_eq!(open.house.put("1.4.2", image).await.status, 201);
    format!("/v2/shop/api/manifests/{}", image.descriptor.digest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_takes_a_part_and_goes_on_from_there() {
    if !have("curl") {
        return;
    }
    let (open, home) = (Open::new().await, tempfile::tempdir().unwrap());
    let bytes = crate::pattern(200_000);
    let digest = open.house.push_blob(bytes.clone()).await;
    let address = format!("http://{}/v2/shop/api/blobs/{digest}", open.address);
    let ran = run("curl", &["-sS", "--fail", "--range", "1000-1999", &address], home.path()).await;
    assert_eq!(ran.stdout, bytes[1000..2000], "{}", ran.stderr);

    let ran = run("curl", &["-sS", "--fail", "--continue-at", "150000", &address], home.path()).await;
    assert_eq!(ran.stdout, bytes[150_000..], "{}", ran.stderr);
    let ran = run("curl", &["-sS", "--fail", "-I", &address], home.path()).await;
    assert!(
        String::from_utf8_lossy(&ran.stdout).to_lowercase().contains("content-length: 200000"),
        "{}",
        ran.stderr
    );
}

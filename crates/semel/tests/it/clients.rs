//! Other people's clients get from `semel serve` what `semel build` printed.

use std::fs;

use semel_model::digest::Digest;

use crate::environment::{Serving, TestEnvironment, finish, has};

#[test]
fn skopeo_copies_the_digest_that_was_built() {
    if !has("skopeo") {
        return;
    }
    let (environment, digest, serving) = served();
    for (source, dir) in [
        (format!("docker://{}/tiny/image:0.1.0", serving.address), "by-version"),
        (format!("docker://{}/tiny/image@{digest}", serving.address), "by-digest"),
    ] {
        let target = format!("oci:{}:x", environment.beside(dir).display());
        run(
            &environment,
            "skopeo",
            &["--insecure-policy", "copy", "--src-tls-verify=false", &source, &target],
        );
        let index = fs::read_to_string(environment.beside(dir).join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["manifests"][0]["digest"], digest, "{source}");
    }
}

#[test]
fn skopeo_pushes_and_cannot_overwrite() {
    if !has("skopeo") {
        return;
    }
    let (environment, digest, serving) = served();
    environment.ok(&["pull", "0.1.0", "oci:../one"]);
    environment.edit("run.sh", "hello", "welcome");
    environment.commit("fix: greet warmly");
    environment.build();
    environment.ok(&["pull", "0.1.1", "oci:../two"]);
    let target = format!("docker://{}/other/pushed:1.0.0", serving.address);
    let from = |layout: &str| format!("oci:{}", environment.beside(layout).display());
    let words = |from: &str| {
        ["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", from, &target]
            .map(str::to_owned)
    };
    for _ in 0..2 {
        run(&environment, "skopeo", &words(&from("one")).each_ref().map(String::as_str));
    }
    let mut command = environment.program("skopeo");
    command.args(words(&from("two")));
    let refused = finish(command, "");
    assert_ne!(refused.code, 0, "a version is never bound again");
    assert!(refused.stderr.contains("1.0.0"), "{}", refused.stderr);
    let bound = environment.ok(&["--json", "inspect", "other/pushed@1.0.0"]).json();
    assert_eq!(bound["artefact"]["digest"], digest);
    environment.ok(&["audit", "verify"]);
}

#[test]
fn podman_pulls_by_digest() {
    if !has("podman") {
        return;
    }
    let (environment, digest, serving) = served();
    let place = |name: &str| environment.beside(name).display().to_string();
    let (root, runroot) = (place("containers"), place("run-containers"));
    let storage = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let reference = format!("{}/tiny/image@{digest}", serving.address);
    let policy = environment.beside("policy.json");
    fs::write(&policy, "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}").unwrap();
    let policy = policy.display().to_string();
    run(
        &environment,
        "podman",
        &[
            &storage[..],
            &["pull", "--quiet", "--tls-verify=false", "--signature-policy", &policy, &reference],
        ]
        .concat(),
    );
    let shown = run(
        &environment,
        "podman",
        &[&storage[..], &["image", "inspect", "--format", "{{.Digest}}", &reference]].concat(),
    );
    assert_eq!(shown.trim(), digest);
}

#[test]
fn curl_gets_whole_blobs_and_parts_of_them() {
    if !has("curl") {
        return;
    }
    let (environment, digest, serving) = served();
    let base = format!("http://{}/v2/tiny/image", serving.address);
    let manifest = run(&environment, "curl", &["--silent", "--fail", &format!("{base}/manifests/0.1.0")]);
    assert_eq!(Digest::of(manifest.as_bytes()).as_str(), digest);
    let parsed: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let config = format!("{base}/blobs/{}", parsed["config"]["digest"].as_str().unwrap());
    let whole = run(&environment, "curl", &["--silent", "--fail", &config]);
    let part = run(&environment, "curl", &["--silent", "--fail", "--range", "2-11", &config]);
    assert_eq!(part, whole[2..12]);
    let rest = run(&environment, "curl", &["--silent", "--fail", "--range", "5-", &config]);
    assert_eq!(rest, whole[5..]);
    let unknown = format!("{base}/manifests/9.9.9");
    let status = run(
        &environment,
        "curl",
        &["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &unknown],
    );
    assert_eq!(status, "404");
}

/// An image project that is built and served.
fn served() -> (TestEnvironment, String, Serving) {
    let environment = TestEnvironment::project();
    environment.edit("semel.toml", "kind = \"archive\"", "kind = \"image\"");
    environment.edit("semel.toml", "tiny/service", "tiny/image");
    environment.commit("feat: an image");
    let digest = environment.build();
    let serving = environment.serve();
    (environment, digest, serving)
}

fn run(environment: &TestEnvironment, program: &str, words: &[&str]) -> String {
    let mut command = environment.program(program);
    command.args(words);
    let ran = finish(command, "");
    assert_eq!(ran.code, 0, "{program} {words:?}: {}", ran.stderr);
    ran.stdout
}

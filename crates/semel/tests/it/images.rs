//! Images: the same whoever builds them, on bases that are pinned, from other builders, and imported.

use std::fs;
use std::path::Path;
use std::process::Command;

use semel_oci::media_type;

use crate::environment::{TestEnvironment, at_another_time, finish, has, has_all};
use crate::http;

const IMAGE: &str = r#"format = 1
component = "tiny/image"

[artefact]
kind = "image"
files = [{ from = "run.sh", to = "/run.sh" }, { from = "share", to = "/share", layer = "share" }]
"#;

const COMMIT: &str = "1234567890123456789012345678901234567890";

/// A repository with an image of two layers.
fn project() -> TestEnvironment {
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", IMAGE);
    environment.write("run.sh", "hello\n");
    environment.write("share/b/text", "text\n");
    environment.write("share/a", &"a long line\n".repeat(200_000));
    environment.commit("feat: begin");
    environment
}

#[test]
fn the_digest_depends_on_nobody_and_on_no_machine() {
    let environment = project();
    let mut digests = Vec::new();
    let build = |script: &str, variables: &[(&str, &str)], number: usize| {
        let store = environment.beside(&format!("store{number}"));
        let mut command = environment.program("sh");
        command
            .args(["-c", script, "sh"])
            .arg(env!("CARGO_BIN_EXE_semel"))
            .arg("--store")
            .arg(store)
            .args(["build", "-q"]);
        command.envs(variables.iter().copied());
        let ran = finish(command, "");
        assert_eq!(ran.code, 0, "{script}: {ran:?}");
        ran.digest()
    };
    let mut scripts = vec![
        "exec \"$@\"".to_owned(),
        "umask 077; exec \"$@\"".to_owned(),
        format!("cp -r . {0} && cd {0} && exec \"$@\"", environment.beside("elsewhere").display()),
    ];
    for (program, script) in [
        ("taskset", "exec taskset -c 0 \"$@\"".to_owned()),
        ("faketime", at_another_time("+400d")),
        ("setarch", "exec setarch -R \"$@\"".to_owned()),
    ] {
        if has(program) {
            scripts.push(script);
        }
    }
    let foreign =
        [("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("USER", "bo"), ("LOGNAME", "bo")];
    for (number, script) in scripts.iter().enumerate() {
        digests.push(build(script, if number == 0 { &[] } else { &foreign }, number));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn an_image_is_one_manifest_and_what_is_said_about_it_only_refers_to_it() {
    let environment = project();
    let digest = environment.ok(&["build"]).digest();
    let serving = environment.serve();
    // Services that run functions read no index, and nothing but an image in what is named.
    let get = |path: &str| {
        let accepted = [("accept", media_type::OCI_MANIFEST)];
        let answer =
            http::send(&serving.address, "GET", &format!("/v2/tiny/image/{path}"), &accepted, b"").unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    };
    let named = get("manifests/0.1.0");
    assert_eq!(named.header("content-type"), media_type::OCI_MANIFEST);
    assert_eq!(named.header("docker-content-digest"), digest);
    let layers = named.json()["layers"].as_array().unwrap().clone();
    assert!(
        layers.len() == 2 && layers.iter().all(|layer| layer["mediaType"] == media_type::OCI_LAYER_GZIP),
        "{layers:?}"
    );
    assert_eq!(get("tags/list").json()["tags"], serde_json::json!(["0.1.0"]));
    let about = get(&format!("referrers/{digest}")).json();
    assert!(!about["manifests"].as_array().unwrap().is_empty(), "{about}");
}

#[test]
fn what_is_imported_is_its_commits_artefact_once() {
    let environment = project();
    let digest = environment.ok(&["build"]).digest();
    environment.ok(&["pull", "0.1.0", "oci-archive:../image.tar"]);
    environment.ok(&["pull", "0.1.0", "oci:../image"]);
    let import = |from: &str, more: &[&str]| {
        environment.semel(&[&["import", from, "--commit", COMMIT, "-c", "tiny/other"], more].concat())
    };
    let first = import("oci-archive:../image.tar", &[]);
    assert_eq!((first.code, first.digest()), (0, digest.clone()), "{first:?}");
    let again = import("oci:../image", &["--json"]).json();
    let first_number = again["number"].clone();
    assert_eq!((&again["reused"], &again["digest"]), (&true.into(), &digest.as_str().into()));

    environment.write("share/b/text", "another\n");
    environment.commit("fix: text");
    let other = environment.ok(&["build"]).digest();
    environment.ok(&["pull", "0.1.1", "oci:../other"]);
    let refused = import("oci:../other", &[]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains(&digest) && refused.stderr.contains(&other), "{refused:?}");
    assert!(refused.stderr.contains("--again --reason"), "{refused:?}");
    let given = import("oci:../other", &["--again", "--reason", "the first one was cut off"]);
    assert_eq!((given.code, given.digest()), (0, other), "{given:?}");
    let older = import("oci:../image", &["--json"]).json();
    assert_eq!((&older["reused"], &older["digest"]), (&true.into(), &digest.as_str().into()));
    assert_eq!(older["number"], first_number, "it keeps the name that it has");

    let bad = import("image.tar", &[]);
    assert_eq!(bad.code, 2, "{bad:?}");
    environment.ok(&["push", "share/b/text", "tiny/text@1.0.0"]);
    environment.ok(&["pull", "tiny/text@1.0.0", "oci:../text"]);
    let text = import("oci:../text", &[]);
    let said = "text holds no container image: it is of type application/vnd.semel.file.v1";
    assert!(text.code == 2 && text.stderr.contains(said), "{text:?}");
    assert!(text.stderr.contains("hint: to store what is no container image: semel push"), "{text:?}");
    let missing = import("zip:../nothing.zip", &[]);
    assert_eq!(missing.code, 4, "{missing:?}");
}

#[test]
fn an_import_gets_a_name_of_its_commits_line_and_of_a_store_that_lasts() {
    let environment = project();
    environment.edit(
        "semel.toml",
        "[artefact]",
        "[artefact]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]",
    );
    environment.commit("feat: two platforms");
    let commit = environment.git(&["rev-parse", "HEAD"]);
    fs::write(environment.dir().join("handler.zip"), b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .unwrap();
    let import = |more: &[&str]| {
        environment.command(&[&["--json", "import", "zip:handler.zip", "--commit"], more].concat())
    };
    let mut in_ci = import(&[&commit]);
    in_ci.env("CI", "true");
    let refused = finish(in_ci, "");
    assert_eq!(refused.code, 2, "the store would die with the runner: {refused:?}");
    for (words, version) in [
        (&[commit.as_str()][..], "0.1.0"),
        (&[COMMIT, "-c", "tiny/trunk"], "0.0.1"),
        (&[COMMIT, "-c", "tiny/branch", "--branch", "feat/x"], "0.0.1-feat-x.1"),
        (&[COMMIT, "-c", "tiny/released", "--branch", "release/1.4"], "1.4.0"),
    ] {
        let imported = finish(import(words), "").json();
        assert_eq!(imported["version"], version, "{words:?}: {imported}");
    }
    environment.write("semel.toml", "format = 7\n");
    environment.commit("fix: break it");
    let commit = environment.git(&["rev-parse", "HEAD"]);
    let broken = finish(import(&[&commit, "-c", "tiny/image"]), "");
    assert_eq!(broken.code, 2, "what is not understood is not passed over: {broken:?}");
}

#[test]
fn packages_and_disks_are_imported_byte_for_byte() {
    let environment = TestEnvironment::empty();
    fs::write(environment.dir().join("handler.zip"), b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .unwrap();
    let words = ["import", "zip:handler.zip", "--commit", COMMIT, "-c", "tiny/handler"];
    let version = environment.ok(&[&["--json"][..], &words].concat()).json();
    assert_eq!(version["commit"], COMMIT);
    let inspected = environment.ok(&["--json", "inspect", "tiny/handler@0.0.1"]).json();
    assert_eq!(inspected["artifact_type"], "application/vnd.semel.zip.v1");
    fs::write(environment.dir().join("disk.qcow2"), b"no disk").unwrap();
    let bad = environment.semel(&["import", "qcow2:disk.qcow2", "--commit", COMMIT, "-c", "tiny/disk"]);
    assert_eq!(bad.code, 2, "{bad:?}");
    fs::write(environment.dir().join("disk.qcow2"), b"QFI\xfb and so on").unwrap();
    let other = environment.semel(&["import", "raw:disk.qcow2", "--commit", COMMIT, "-c", "tiny/disk"]);
    assert_eq!(other.code, 2, "{other:?}");
    assert!(other.stderr.contains("is a qcow2 image\n  hint: qcow2:FILE"), "{other:?}");
    let unnamed = environment.semel(&["import", "zip:handler.zip", "--commit", "HEAD", "-c", "tiny/handler"]);
    assert_eq!(unnamed.code, 2, "{unnamed:?}");
    assert!(unnamed.stderr.contains("--commit $(git rev-parse HEAD)"), "{unnamed:?}");
}

#[test]
fn a_base_is_pinned_by_one_command_that_changes_one_value() {
    let environment = project();
    let digest = environment.ok(&["build"]).digest();
    let serving = environment.serve();
    let name = format!("{}/tiny/image:0.1.0", serving.address);
    let text = |base: &str| {
        format!(
            "format = 1 # the first\ncomponent = \"tiny/web\"\n\n[artefact]\nkind = \"image\"\n# what it stands on\nbase = \"{base}\"   # moves\nfiles = [\n  {{ from = \"run.sh\", to = \"/web\" }},\n]\n"
        )
    };
    environment.write("semel.toml", &text(&name));
    environment.commit("feat: web");
    let refused = environment.semel(&["build"]);
    assert!(refused.code == 2 && refused.stderr.contains("semel lock --update-base"), "{refused:?}");
    assert_eq!(environment.semel(&["lock"]).code, 2);
    let misspelt = environment.semel(&["lock", "--update-base", "tiny/image@0.1.0"]);
    let spelt = "hint: an image is named with a colon: tiny/image:0.1.0";
    assert!(misspelt.stderr.contains(spelt), "{misspelt:?}");

    let pinned = environment.ok(&["lock", "--update-base"]);
    assert_eq!(pinned.value(), format!("{name}@{digest}"));
    let written = fs::read_to_string(environment.dir().join("semel.toml")).unwrap();
    assert_eq!(written, text(&format!("{name}@{digest}")), "nothing else has changed");
    let known = environment.ok(&["--json", "lock"]).json();
    assert_eq!((&known["newer"], &known["newest"]), (&false.into(), &digest.as_str().into()));
    environment.commit("fix: pin");
    let built = environment.ok(&["build"]).digest();

    // What was fetched is kept: the registry may be gone.
    drop(serving);
    environment.write("run.sh", "other\n");
    environment.commit("fix: other");
    assert_ne!(environment.ok(&["build"]).digest(), built);

    environment.write("semel.toml", &text(&format!("tiny/image@{digest}")));
    environment.commit("fix: from the store");
    environment.ok(&["build"]);
}

/// An image of busybox, made by buildah, in three forms.
fn by_buildah(environment: &TestEnvironment) {
    let script = "b='buildah --storage-driver vfs --root ../s --runroot ../r'
        c=$($b from scratch) && $b add -q $c run.sh /run.sh
        $b commit -q $c made && $b push -q made oci-archive:../made.oci:v1
        $b push -q --compression-format zstd made oci:../zstd:v1 && $b push -q made docker-archive:../made.tar:made:v1";
    let mut command = environment.program("sh");
    command.args(["-ec", script]);
    let ran = finish(command, "");
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn an_image_of_buildah_keeps_its_digest_from_builder_to_puller() {
    if !has_all(&["buildah", "skopeo"]) {
        return;
    }
    let environment = project();
    by_buildah(&environment);
    let listed = inspect(&environment, "oci-archive:../made.oci:v1");
    environment.write(
        "semel.toml",
        "format = 1\ncomponent = \"tiny/made\"\n[build]\nrun = \"cp $HERE/made.oci made.oci\"\nenv = { HERE = \"WHERE\" }\nsandbox = \"none\"\n[artefact]\nkind = \"image\"\nfrom = \"made.oci\"\n",
    );
    environment.edit("semel.toml", "WHERE", environment.beside("").to_str().unwrap());
    environment.commit("feat: made");
    assert_eq!(environment.ok(&["build"]).digest(), listed);
    for (from, component) in [
        ("oci-archive:../made.oci", "tiny/one"),
        ("oci:../zstd", "tiny/two"),
        ("docker-archive:../made.tar", "tiny/three"),
    ] {
        let digest = environment.ok(&["import", from, "--commit", COMMIT, "-c", component]).digest();
        let serving = environment.serve();
        let pulled = inspect(&environment, &format!("docker://{}/{component}:0.0.1", serving.address));
        assert_eq!(pulled, digest, "{from}");
        if component == "tiny/one" {
            assert_eq!(digest, listed);
        }
    }
}

fn inspect(environment: &TestEnvironment, image: &str) -> String {
    let mut command: Command = environment.program("skopeo");
    command.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}", image]);
    let ran = finish(command, "");
    assert_eq!(ran.code, 0, "{image}: {ran:?}");
    ran.value()
}

#[test]
fn the_cache_of_bases_heals_what_is_damaged() {
    let environment = project();
    let digest = environment.ok(&["build"]).digest();
    environment.write(
        "semel.toml",
        &format!(
            "format = 1\ncomponent = \"tiny/web\"\n[artefact]\nkind = \"image\"\nbase = \"tiny/image@{digest}\"\nfiles = [{{ from = \"run.sh\", to = \"/web\" }}]\n"
        ),
    );
    environment.commit("feat: web");
    environment.ok(&["build"]);
    let cache = environment.beside("cache/semel/bases/blobs/sha256");
    let largest = largest_file(&cache);
    fs::write(&largest, b"damaged").unwrap();
    environment.write("run.sh", "other\n");
    environment.commit("fix: other");
    environment.ok(&["build"]);
    assert_ne!(fs::read(&largest).unwrap(), b"damaged");
}

fn largest_file(dir: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|file| file.metadata().unwrap().len()).unwrap()
}

#[test]
fn an_archive_is_deployed_checked_and_taken_out_however_its_layer_is_compressed() {
    let environment = TestEnvironment::project();
    environment.edit("semel.toml", "kind = \"archive\"", "kind = \"archive\"\ncompression = \"zstd\"");
    environment.commit("perf: a smaller layer");
    let digest = environment.build();
    environment.ok(&["deploy", "0.1.0", "dev"]);
    let status = environment.ok(&["--json", "status"]).json();
    assert_eq!(status["environments"][0]["observed"]["artefact"], digest.as_str(), "{status:#}");
    environment.ok(&["pull", "0.1.0", "../out"]);
    let script = |path: &Path| fs::read_to_string(path.join("run.sh")).unwrap();
    assert_eq!(script(&environment.beside("out")), script(&environment.dir()));
    let checked = environment.ok(&["build", "--check"]).value();
    assert_eq!(checked, digest);

    environment.edit("semel.toml", "compression = \"zstd\"", "compression = \"gzip\"");
    environment.commit("revert: gzip again");
    assert_ne!(environment.build(), digest);
    environment.ok(&["deploy", "0.1.1", "dev"]);
    let compared = environment.semel(&["--json", "diff", "0.1.0", "0.1.1"]).json();
    assert_eq!(compared["files"], serde_json::json!([]), "{compared}");
}

//! Packages for serverless platforms and disk images: built, stored, looked into, taken out, imported.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::environment::{TestEnvironment, finish, has_all};

const VM: &str = r#"format = 1
component = "edge/gateway"

[build]
run = "truncate -s 9M disk.raw && printf '\\125\\252' | dd of=disk.raw bs=1 seek=510 conv=notrunc && cat tail >> disk.raw"

[artefact]
kind = "vm"
image = "disk.raw"
"#;

/// Nine empty MiB, and one sector that is not.
fn disk() -> TestEnvironment {
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", VM);
    environment.write("tail", &"a".repeat(512));
    environment.commit("feat: begin");
    environment
}

fn image(tail: &str) -> Vec<u8> {
    let mut image = vec![0; 9 << 20];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image.extend_from_slice(tail.repeat(512).as_bytes());
    image
}

#[test]
fn a_disk_image_comes_back_whole_with_holes_and_what_is_there_stays() {
    let environment = disk();
    environment.ok(&["build"]);
    environment.ok(&["pull", "0.1.0", "../out/"]);
    let place = environment.beside("out/disk.raw");
    assert_eq!(fs::read(&place).unwrap(), image("a"));
    let metadata = fs::metadata(&place).unwrap();
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let again = environment.ok(&["pull", "0.1.0", "../out/disk.raw"]);
    assert!(again.stderr.contains("already"), "{again:?}");
    fs::write(&place, "mine").unwrap();
    let refused = environment.semel(&["pull", "0.1.0", "../out/"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    environment.ok(&["pull", "0.1.0", "../out/", "--force"]);
    assert_eq!(fs::read(&place).unwrap(), image("a"));
}

#[test]
fn a_disk_image_goes_on_where_it_was_broken_off_and_a_wrong_beginning_is_found() {
    let environment = disk();
    environment.ok(&["build"]);
    let whole = image("a");
    fs::create_dir(environment.beside("out")).unwrap();
    let digest = semel_model::digest::Digest::of(&whole);
    let partial = environment.beside(&format!("out/.semel-sha256-{}.part", digest.hex()));
    for beginning in [whole[..5_000_000].to_vec(), vec![7; 5_000_000]] {
        fs::write(&partial, beginning).unwrap();
        environment.ok(&["pull", "0.1.0", "../out/disk.raw"]);
        let place = environment.beside("out/disk.raw");
        assert_eq!(fs::read(&place).unwrap(), whole);
        fs::remove_file(place).unwrap();
        assert!(!partial.exists());
    }
}

#[test]
fn versions_of_a_disk_image_share_what_is_the_same() {
    let environment = disk();
    environment.ok(&["build"]);
    environment.write("tail", &"b".repeat(512));
    environment.commit("fix: tail");
    environment.ok(&["build"]);
    let blobs = |version: &str| {
        environment.ok(&["pull", "--alone", version, &format!("oci:../{version}")]);
        let layout = environment.beside(version).join("blobs");
        let blobs = environment.bytes_below(&layout).into_iter();
        blobs.map(|(path, _)| path.strip_prefix(&layout).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (one, two) = (blobs("0.1.0"), blobs("0.1.1"));
    // The chunk with the boot record, and the one that is empty.
    assert_eq!(one.iter().filter(|blob| two.contains(blob)).count(), 2, "{one:?} {two:?}");
    environment.ok(&["pull", "0.1.1", "../two.raw"]);
    assert_eq!(fs::read(environment.beside("two.raw")).unwrap(), image("b"));
    let difference = environment.semel(&["diff", "0.1.0", "0.1.1"]);
    assert_eq!(difference.code, 1, "{difference:?}");
    assert!(difference.stdout.contains("files (1):\n  ~ chunk 0003 "), "{difference:?}");
}

/// Put together here, so that no scanner finds it in this file.
fn secret() -> String {
    format!("{}{}", "AK", "IAQWERTYUIOP234567")
}

const WAIVER: &str = r#"
[[waiver]]
rule = "secret/aws-access-key"
path = "**"
reason = "for a while"
until = 2999-01-01
"#;

const ZIP: &str = r#"format = 1
component = "shop/thumbnailer"

[artefact]
kind = "zip"
runtime = "python3.12"
handler = "app.handler"
files = [{ from = "app.py", to = "/" }]
"#;

#[test]
fn a_secret_in_a_stored_package_or_across_the_chunks_of_a_stored_disk_is_found() {
    // In the disk it begins ten bytes before the second chunk does.
    let disk = VM.replace("cat tail >> disk.raw", "dd if=tail of=disk.raw bs=1 seek=4194294 conv=notrunc");
    for (project, name, text, place) in [
        (ZIP, "app.py", format!("def handler(event, context):\n    return '{}'\n", secret()), "/app.py:2 "),
        (&disk, "tail", secret(), "/disk.raw"),
    ] {
        let environment = TestEnvironment::repository();
        environment.write("semel.toml", &format!("{project}{WAIVER}"));
        environment.write(name, &text);
        environment.commit("feat: begin");
        environment.ok(&["build"]);
        environment.write("semel.toml", project);
        let found = environment.semel(&["lint", "0.1.0"]);
        assert_eq!(found.code, 1, "{found:?}");
        assert!(found.stdout.contains(place), "{found:?}");
    }
}

const COMMIT: &str = "0123456789012345678901234567890123456789";

#[test]
fn a_zip_is_imported_byte_for_byte_unless_it_would_be_unpacked_elsewhere() {
    let environment = TestEnvironment::repository();
    environment.write("semel.toml", ZIP);
    environment.write("app.py", "def handler(event, context): pass\n");
    environment.commit("feat: begin");
    environment.ok(&["build"]);
    environment.ok(&["pull", "0.1.0", "../app.zip"]);
    let zip = fs::read(environment.beside("app.zip")).unwrap();
    let import = |name: &str| {
        environment.semel(&["import", &format!("zip:../{name}"), "--commit", COMMIT, "-c", "tiny/app"])
    };
    for (bad, name, problem) in [
        (
            replaced(&zip, "app.py", "../.py"),
            "out.zip",
            "its member `../.py` leads out of where it is unpacked",
        ),
        (
            replaced(&zip, "app.py", "/pp.py"),
            "top.zip",
            "its member `/pp.py` leads out of where it is unpacked",
        ),
        (zip[..zip.len() - 30].to_vec(), "cut.zip", "it is no zip file"),
    ] {
        fs::write(environment.beside(name), bad).unwrap();
        let refused = import(name);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(problem), "{refused:?}");
    }
    let imported = import("app.zip");
    assert_eq!(imported.code, 0, "{imported:?}");
    environment.ok(&["pull", "tiny/app@0.0.1", "../back/"]);
    assert_eq!(fs::read(environment.beside("back/app.zip")).unwrap(), zip);
}

#[test]
fn two_packages_differ_in_the_files_that_they_unpack_to_whoever_packed_them() {
    let environment = TestEnvironment::repository();
    let two = "files = [{ from = \"app.py\", to = \"/\" }, { from = \"lib\", to = \"/lib\" }]";
    let zip = ZIP.replace("files = [{ from = \"app.py\", to = \"/\" }]", two);
    environment.write("semel.toml", &zip);
    environment.write("app.py", "def handler(event, context): pass\n");
    environment.write("lib/same.py", "A = 1\n");
    environment.write("lib/gone.py", "B = 1\n");
    environment.commit("feat: begin");
    environment.ok(&["build"]);
    environment.edit("app.py", "pass", "None");
    environment.git(&["mv", "lib/gone.py", "lib/tool.py"]);
    environment.write("semel.toml", &zip.replace("to = \"/lib\" }", "to = \"/lib\", mode = \"0755\" }"));
    environment.commit("fix: move");
    environment.ok(&["build"]);
    environment.ok(&["pull", "0.1.1", "../app.zip"]);
    environment.ok(&["import", "zip:../app.zip", "--commit", COMMIT]);
    let differ = environment.semel(&["diff", "0.1.0", "0.1.1"]);
    assert_eq!(differ.code, 1, "{differ:?}");
    let expected = "files (4):\n  ~ /app.py other bytes of the same length\n  - /lib/gone.py 6 B\n  \
                    ~ /lib/same.py 6 B → 6 B, executable\n  + /lib/tool.py 6 B, executable\n";
    assert!(differ.stdout.contains(expected), "{}", differ.stdout);
    let imported = environment.semel(&["--json", "diff", "0.1.1", "0.0.1"]).json();
    assert_eq!(imported["files"], serde_json::json!([]), "{imported:#}");
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

#[test]
fn a_qcow2_image_stands_alone_wherever_it_comes_from() {
    if !has_all(&["qemu-img"]) {
        return;
    }
    let environment = TestEnvironment::repository();
    let qemu = |words: &[&str]| {
        let mut command = environment.program("qemu-img");
        command.args(words);
        let ran = finish(command, "");
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    let (alone, overlay) = ("../alone.qcow2", "../overlay.qcow2");
    fs::write(environment.beside("disk.raw"), image("a")).unwrap();
    qemu(&["convert", "-O", "qcow2", "../disk.raw", alone]);
    qemu(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "alone.qcow2", overlay]);
    let import = |from: &str| {
        environment.semel(&["import", &format!("qcow2:{from}"), "--commit", COMMIT, "-c", "a/b"])
    };
    let refused = import(overlay);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("lies on a backing file"), "{refused:?}");
    assert!(refused.stderr.contains("hint: qemu-img convert -O qcow2"), "{refused:?}");
    assert_eq!(import(alone).code, 0);
    environment.ok(&["pull", "a/b@0.0.1", "../back/"]);
    let bytes = fs::read(environment.beside("alone.qcow2")).unwrap();
    assert_eq!(fs::read(environment.beside("back/alone.qcow2")).unwrap(), bytes);

    let vm = |name: &str, disk: &str| {
        format!(
            "format = 1\ncomponent = \"a/c\"\n[build]\nrun = \"mkdir out && cp {name} out/disk.qcow2\"\n[artefact]\nkind = \"vm\"\nimage = \"out/disk.qcow2\"\n{disk}"
        )
    };
    for (name, disk, problem) in [
        ("overlay.qcow2", "", Some("lies on a backing file")),
        (
            "alone.qcow2",
            "disk = { format = \"qcow2\", max_virtual = \"9MiB\" }\n",
            Some("max_virtual allows 9437184"),
        ),
        ("alone.qcow2", "disk = { format = \"raw\" }\n", Some("is qcow2, and [artefact] disk says raw")),
        ("alone.qcow2", "disk = { format = \"qcow2\", max_virtual = \"10MiB\" }\n", None),
    ] {
        environment.write("semel.toml", &vm(name, disk));
        fs::copy(environment.beside(name), environment.dir().join(name)).unwrap();
        environment.commit("feat: again");
        let built = environment.semel(&["build"]);
        match problem {
            None => assert_eq!(built.code, 0, "{built:?}"),
            Some(problem) => {
                assert_eq!(built.code, 2, "{built:?}");
                assert!(built.stderr.contains(problem) && built.stderr.contains("hint: "), "{built:?}");
            }
        }
    }
    let version = environment.ok(&["build", "--json"]).json()["version"].as_str().unwrap().to_owned();
    environment.ok(&["pull", &version, "../built.qcow2"]);
    assert_eq!(fs::read(environment.beside("built.qcow2")).unwrap(), bytes);
}

//! Packages for serverless platforms and disk images: built, stored, taken out; and the two examples of them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::environment::{Ran, TestEnvironment, finish, has_all, met};

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
        environment.ok(&["pull", version, &format!("oci:../{version}")]);
        let layout = environment.beside(version).join("blobs");
        let blobs = environment.bytes_below(&layout).into_iter();
        blobs.map(|(path, _)| path.strip_prefix(&layout).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (one, two) = (blobs("0.1.0"), blobs("0.1.1"));
    // The chunk with the boot record, and the one that is empty.
    assert_eq!(one.iter().filter(|blob| two.contains(blob)).count(), 2, "{one:?} {two:?}");
    environment.ok(&["pull", "0.1.1", "../two.raw"]);
    assert_eq!(fs::read(environment.beside("two.raw")).unwrap(), image("b"));
}

/// An example, in a repository of its own.
fn example(name: &str) -> TestEnvironment {
    let environment = TestEnvironment::repository();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    for (path, bytes) in environment.bytes_below(&from) {
        let path = path.strip_prefix(&from).unwrap();
        environment.write(&path.to_string_lossy(), &String::from_utf8(bytes).unwrap());
    }
    environment.commit("feat: begin");
    environment
}

/// The programs of the system alone: those of a version manager lie in a home, and the sandbox shows none.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn built(environment: &TestEnvironment) -> Ran {
    let mut command = environment.command(&["build", "-q"]);
    command.env("PATH", SYSTEM);
    finish(command, "")
}

/// Builds an example twice, in two places; nothing when what it fetches cannot be reached.
fn built_twice(name: &str, signs_of_no_network: &[&str]) -> Option<TestEnvironment> {
    let (one, other) = (example(name), example(name));
    let first = built(&one);
    let reached = !signs_of_no_network.iter().any(|sign| first.stderr.contains(sign));
    if !met(reached, "what the example fetches cannot be reached") {
        return None;
    }
    assert_eq!(first.code, 0, "{first:?}");
    let second = built(&other);
    assert_eq!(second.code, 0, "{second:?}");
    assert_eq!(first.digest(), second.digest());
    Some(one)
}

#[test]
fn the_python_example_is_the_same_zip_twice_and_its_modules_are_inside() {
    let pip = SYSTEM.split(':').any(|dir| Path::new(dir).join("pip").is_file());
    if !has_all(&["python3"]) || !met(pip, "pip is not installed") {
        return;
    }
    let Some(environment) = built_twice("python-zip", &["NewConnectionError", "No matching distribution"])
    else {
        return;
    };
    environment.ok(&["pull", "0.1.0", "../function.zip"]);
    // The compiled module is for Python 3.12 alone; that it is there and whole can be seen everywhere.
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
                  print(sorted(n for n in z.namelist() if 'thumbnailer' in n or '_imaging.c' in n))";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(environment.beside("function.zip"))
        .output()
        .unwrap();
    let listed = String::from_utf8_lossy(&output.stdout);
    assert!(listed.contains("PIL/_imaging.cpython-312-x86_64-linux-gnu.so"), "{output:?}");
    assert!(listed.contains("thumbnailer/app.py"), "{output:?}");
}

#[test]
fn the_debian_example_is_the_same_disk_twice_and_its_machine_starts() {
    let programs = ["mmdebstrap", "bsdtar", "objcopy", "mkfs.fat", "mcopy", "qemu-system-x86_64"];
    if !has_all(&programs) || !met(Path::new("/usr/share/ovmf/OVMF.fd").is_file(), "ovmf is not installed") {
        return;
    }
    let Some(environment) = built_twice("debian-vm", &["Temporary failure resolving", "Could not connect"])
    else {
        return;
    };
    let log = environment.ok(&["build", "log", "1"]);
    assert!(log.stdout.contains("gateway ready"), "{log:?}");
    environment.ok(&["pull", "0.1.0", "../gateway.raw"]);
    assert!(fs::metadata(environment.beside("gateway.raw")).unwrap().len() >= 64 << 20);
}

//! Disk images: their chunks, and what is looked at before they are published.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use semel_build::pipeline::{self, Blame, BuildError, BuildRequest};
use semel_build::sandbox::Level;
use semel_model::digest::Digest;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Done, Recorder, Repo, has_all, isolating_levels, path, processes, request, runtime, sandbox, told,
};

const VM: &str = r#"format = 1
component = "edge/gateway"

[build]
run = "mkdir out && truncate -s 9M out/disk.raw && printf '\\125\\252' | dd of=out/disk.raw bs=1 seek=510 conv=notrunc && cat tail >> out/disk.raw"

[artefact]
kind = "vm"
image = "out/disk.raw"
disk = { format = "raw", max_virtual = "20GiB", firmware = "bios" }
"#;

fn vm_with(changes: &[(&str, &str)], tail: &str) -> Repo {
    let project = changes.iter().fold(VM.to_owned(), |text, (from, to)| text.replace(from, to));
    Repo::with(&project, &[("tail", tail)]).committed()
}

/// One sector.
fn sector(byte: &str) -> String {
    byte.repeat(512)
}

fn layers(done: &Done) -> Vec<String> {
    let manifest = done.manifest();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_disk_image_is_its_chunks_and_versions_share_those_that_are_the_same() {
    let (one, other) = (vm_with(&[], &sector("a")).built(), vm_with(&[], &sector("b")).built());
    let manifest = one.manifest();
    assert_eq!(manifest["artifactType"], "application/vnd.semel.vm.v1");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.semel.vm.chunk.v1+gzip");
    let (first, second) = (layers(&one), layers(&other));
    assert_eq!((first.len(), &first[..2]), (3, &second[..2]));
    assert_ne!(first[2], second[2]);
    let packed: Vec<u8> =
        first.iter().flat_map(|digest| one.blob(&digest.parse::<Digest>().unwrap())).collect();
    let mut image = Vec::new();
    MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut image).unwrap();
    assert_eq!(image.len(), (9 << 20) + 512);
    assert_eq!(
        one.json(&one.built.packaged.config),
        json!({
            "v": 1, "name": "disk.raw", "format": "raw", "firmware": "bios", "digest": Digest::of(&image),
            "size": image.len(), "virtual_size": image.len(), "chunk_size": 4 << 20
        })
    );
}

#[test]
fn the_digest_of_a_disk_image_is_frozen() {
    assert_eq!(
        vm_with(&[], &sector("a")).built().built.packaged.manifest.as_str(),
        "sha256:10ecc9d7a5b187a8c3ebf498f89d9ca3c72cb1cd4948fd342827d00862ca62dc"
    );
}

#[test]
fn an_image_that_is_not_what_the_project_says_is_refused() {
    for (changes, tail, problem) in [
        (
            &[("format = \"raw\"", "format = \"qcow2\"")][..],
            sector("a"),
            "is raw, and [artefact] disk says qcow2",
        ),
        (&[("20GiB", "1 MiB")], sector("a"), "max_virtual allows 1048576"),
        (&[("seek=510", "seek=511")], sector("a"), "neither a boot record nor a partition table"),
        (&[], "a".to_owned(), "no whole sectors"),
        (&[("image = \"out/disk.raw\"", "image = \"out\"")], sector("a"), "a disk image is one file"),
    ] {
        let error = vm_with(changes, &tail).build().map(drop).unwrap_err();
        assert!(told(&error).contains(problem), "{}", told(&error));
        assert_eq!(error.blame(), Blame::Caller);
    }
}

/// The code of a boot record that says `ready` on the first serial port and halts, for `printf`:
/// `xor ax, ax; mov ds, ax; mov si, text; next: lodsb; test al, al; jz end; mov dx, 3f8h; out dx, al; jmp next; end: hlt`.
const SAYS_READY: &str =
    r"\061\300\216\330\276\025\174\254\204\300\164\006\272\370\003\356\353\365\364\353\375ready\015\012\000";

/// A machine that must say this so soon, and says `ready`.
fn machine(within: &str, until: &str) -> Repo {
    let code = SAYS_READY.replace('\\', "\\\\");
    let run = format!("printf '{code}' | dd of=out/disk.raw bs=1 conv=notrunc && cat tail");
    let smoke = format!("kind = \"vm\"\nsmoke = [\"boot within {within} until '{until}'\"]");
    vm_with(&[("kind = \"vm\"", &smoke), ("cat tail", &run)], &sector("a"))
}

#[test]
fn a_machine_that_says_what_is_awaited_passes_and_another_one_does_not() {
    if !has_all(&["qemu-system-x86_64"]) {
        return;
    }
    let done = machine("90s", "ready").built();
    let smoked = &done.built.closure.smoke[0];
    assert_eq!((smoked.sandbox, &smoked.reason), (Some("qemu"), &None));
    assert!(done.lines.iter().any(|line| line.trim_end().ends_with("ready")), "{:?}", done.lines);
    let error = machine("3s", "steady").build().map(drop).unwrap_err();
    assert!(matches!(error, BuildError::Boot(_)), "{}", told(&error));
    assert!(error.to_string().contains("did not say 'steady' within 3 s"), "{error}");
}

/// A directory with all programs of this host but one.
fn without_bubblewrap(programs: &Path) -> String {
    fs::create_dir(programs).unwrap();
    for file in
        std::env::split_paths(&path()).flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
    {
        if file.file_name() != "bwrap" {
            // The first of a name counts.
            let _ = symlink(file.path(), programs.join(file.file_name()));
        }
    }
    programs.display().to_string()
}

#[test]
fn a_machine_ends_with_the_build_also_where_there_is_no_bubblewrap() {
    if !has_all(&["qemu-system-x86_64"]) {
        return;
    }
    for level in [isolating_levels().first().copied(), Some(Level::None)] {
        let (repo, work) = (machine("600s", "steady"), TempDir::new().unwrap());
        let mark = work.path().display().to_string();
        let mut request =
            BuildRequest { sandbox: sandbox(level), ..request(repo.source(), work.path().to_owned()) };
        if level == Some(Level::None) {
            let path = without_bubblewrap(&work.path().join("programs"));
            request.host.variables.insert("PATH".to_owned(), path);
        }
        runtime().block_on(async {
            let (sender, mut said) = tokio::sync::mpsc::unbounded_channel();
            let recorder = Arc::new(Recorder { on_line: Some(sender), ..Recorder::default() });
            let build = tokio::spawn(pipeline::run(request, recorder));
            while said.recv().await.is_some_and(|line| !line.trim_end().ends_with("ready")) {}
            assert!(processes(&mark).iter().any(|line| line.contains("qemu-system")), "{level:?}");
            build.abort();
            assert!(build.await.unwrap_err().is_cancelled());
        });
        assert_eq!(processes(&mark), [""; 0], "{level:?}");
    }
}

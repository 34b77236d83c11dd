//! Files that something else made: what they are taken for, and the digests that they have for ever.

use std::fs;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use semel_build::files::{FileKind, FilesError, FilesRequest, PackagedFiles, package};
use semel_oci::closure::{ManifestSource as _, ReadManifest};
use semel_oci::layout::Select;
use tempfile::TempDir;

/// An empty zip file.
const ZIP: &[u8] = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const CHART: &str = "apiVersion: v2\nname: shop\nversion: 1.2.3\ndescription: sells things\n";

fn qcow2(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
    bytes
}

fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

fn tgz(path: &str, text: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::new(6)));
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

struct Files {
    dir: TempDir,
}

impl Files {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join("in").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Self { dir }
    }

    fn package(&self, names: &[&str], kind: Option<FileKind>) -> Result<PackagedFiles, FilesError> {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.dir.path().join("in").join(name)).collect();
        let request = FilesRequest {
            paths: &paths,
            kind,
            artifact_type: None,
            component: &"charts/shop".parse().unwrap(),
            tag: &"1.2.3".parse().unwrap(),
            scratch: &self.dir.path().join(format!("layer of {}", names.join(" ").replace('/', " "))),
        };
        tokio::runtime::Runtime::new().unwrap().block_on(package(&request))
    }

    fn manifest(&self, names: &[&str]) -> (FileKind, ReadManifest) {
        let packaged = self.package(names, None).unwrap();
        let root = packaged.bundle.resolve(Select::Only).unwrap().clone();
        let read = packaged.bundle.read_manifest(&root);
        (packaged.kind, tokio::runtime::Runtime::new().unwrap().block_on(read).unwrap())
    }
}

#[test]
fn the_digests_of_all_kinds_are_frozen() {
    let chart = tgz("shop/Chart.yaml", CHART);
    let (qcow2, disk) = (qcow2(&[]), disk());
    let files = Files::with(&[
        ("handler.zip", ZIP),
        ("server.qcow2", &qcow2),
        ("server.img", &disk),
        ("shop-1.2.3.tgz", &chart),
        ("report.txt", b"all is well\n"),
        ("tree/bin/run", b"#!/bin/sh\n"),
        ("tree/etc/empty", b""),
    ]);
    let cases: [(&[&str], FileKind, &str, &str); 7] = [
        (
            &["handler.zip"],
            FileKind::Zip,
            "application/vnd.semel.zip.v1",
            "sha256:606710a98469c7a1f9ace0d74c4f1545241b955a37cb49348ea066a5a4f33d12",
        ),
        (
            &["server.qcow2"],
            FileKind::Vm,
            "application/vnd.semel.vm.v1",
            "sha256:4123f33f8dc7626cb79451d5e91ca433dadaf9fe004b5462864d4e205e2842f0",
        ),
        (
            &["server.img"],
            FileKind::Vm,
            "application/vnd.semel.vm.v1",
            "sha256:6b04b7eb68734c95b00967d76b2b0d8775033b9647ac629b865385fc3db99477",
        ),
        (
            &["shop-1.2.3.tgz"],
            FileKind::Chart,
            "application/vnd.cncf.helm.config.v1+json",
            "sha256:5511177ffcef1d016e422b0e468c6140978986f9c30fdacac5651c9f5e632969",
        ),
        (
            &["report.txt"],
            FileKind::File,
            "application/vnd.semel.file.v1",
            "sha256:a182e55961dd943b9fcac51da5c65c55f2671db9c6078c244fdcd81e5451e6b6",
        ),
        (
            &["report.txt", "handler.zip"],
            FileKind::File,
            "application/vnd.semel.file.v1",
            "sha256:190751b6f381d13cbcd883ecc1bcb0c223318b4b7e00fb926ebab8809a756142",
        ),
        (
            &["tree"],
            FileKind::Archive,
            "application/vnd.semel.archive.v1",
            "sha256:6a335ddfe57067353f0ec7b67b231f4c13f2102d3a6995d4f2bb29cde5da6603",
        ),
    ];
    let found: Vec<_> = cases.iter().map(|(names, ..)| files.manifest(names)).collect();
    let found: Vec<_> = found
        .iter()
        .map(|(kind, read)| {
            (*kind, read.parsed.artifact_type.clone().unwrap(), read.descriptor.digest.to_string())
        })
        .collect();
    let expected: Vec<_> = cases
        .iter()
        .map(|(_, kind, artifact_type, digest)| (*kind, (*artifact_type).to_owned(), (*digest).to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_order_in_which_files_are_named_does_not_matter_and_their_bytes_are_the_layers() {
    let files = Files::with(&[("b", b"second"), ("a", b"first")]);
    let (_, one) = files.manifest(&["a", "b"]);
    let (_, other) = files.manifest(&["b", "a"]);
    assert_eq!(one.descriptor, other.descriptor);
    let digests: Vec<_> = one.parsed.layers.iter().map(|layer| layer.digest.clone()).collect();
    assert_eq!(digests, [b"first".as_slice(), b"second"].map(semel_model::digest::Digest::of));
}

#[test]
fn a_file_is_taken_for_what_it_is_and_not_for_what_it_is_called() {
    let chart = tgz("shop/Chart.yaml", CHART);
    let other = tgz("shop/deep/Chart.yaml", CHART);
    let (qcow2, disk) = (qcow2(&[]), disk());
    let files = Files::with(&[
        ("a.tgz", &chart),
        ("b.tgz", &other),
        ("c.tgz", b"no archive"),
        ("a.img", b"a picture"),
        ("a.iso", &disk),
        ("a.bin", &qcow2),
        ("A.ZIP", ZIP),
    ]);
    for (name, kind) in [
        ("a.tgz", FileKind::Chart),
        ("b.tgz", FileKind::File),
        ("c.tgz", FileKind::File),
        ("a.img", FileKind::File),
        ("a.iso", FileKind::File),
        ("a.bin", FileKind::File),
        ("A.ZIP", FileKind::Zip),
    ] {
        assert_eq!(files.manifest(&[name]).0, kind, "{name}");
    }
    for (name, kind) in [("a.bin", FileKind::Vm), ("a.iso", FileKind::Vm), ("a.tgz", FileKind::File)] {
        assert_eq!(files.package(&[name], Some(kind)).unwrap().kind, kind, "{name}");
    }
}

#[test]
fn what_files_cannot_be_is_said_with_the_reason() {
    let backed = qcow2(&[(15, 1)]);
    let renamed = tgz("store/Chart.yaml", &CHART.replace("name: shop", "name: store"));
    let nameless = tgz("shop/Chart.yaml", "version: 1.2.3\n");
    let files = Files::with(&[
        ("a.zip", b"no zip"),
        ("b.qcow2", &backed),
        ("c.tgz", &renamed),
        ("d.tgz", &nameless),
        ("e/x", b"1"),
        ("f/x", b"2"),
    ]);
    let cases: [(&[&str], Option<FileKind>, &str); 9] = [
        (&["a.zip"], None, "no zip file"),
        (&["b.qcow2"], None, "backing file"),
        (&["c.tgz"], None, "charts/store@1.2.3"),
        (&["d.tgz"], None, "no text `name`"),
        (&["a.zip"], Some(FileKind::Archive), "no directory"),
        (&["e"], Some(FileKind::Zip), "is a directory"),
        (&["e", "f"], None, "must be the only one"),
        (&["e/x", "f/x"], None, "two files are named `x`"),
        (&["gone"], None, "gone"),
    ];
    for (names, kind, reason) in cases {
        let error = files.package(names, kind).unwrap_err();
        let told: Vec<String> =
            std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                .map(ToString::to_string)
                .collect();
        assert!(told.iter().any(|text| text.contains(reason)), "{names:?}: {told:?}");
    }
}

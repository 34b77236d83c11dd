//! The merged view of an artefact: own files over the layers of a base, links followed inside.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use proptest::prelude::*;
use semel_build::collect::{PackFile, PackKind};
use semel_build::rootfs::{self, Node, Resolved, Rootfs, Unresolved};
use tempfile::TempDir;

/// An entry of a layer: a directory, a file with its text, a link, a second name.
enum Entry<'a> {
    Dir(&'a str),
    File(&'a str, &'a str),
    Link(&'a str, &'a str),
    Again(&'a str, &'a str),
    Device(&'a str),
}
use Entry::{Again, Device, Dir, File as Text, Link};

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(0);
        let (path, kind, target, text) = match *entry {
            Dir(path) => (path, tar::EntryType::Directory, None, ""),
            Text(path, text) => (path, tar::EntryType::Regular, None, text),
            Link(path, target) => (path, tar::EntryType::Symlink, Some(target), ""),
            Again(path, first) => (path, tar::EntryType::Link, Some(first), ""),
            Device(path) => (path, tar::EntryType::Char, None, ""),
        };
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        match target {
            Some(target) => archive.append_link(&mut header, path, target).unwrap(),
            None => archive.append_data(&mut header, path, text.as_bytes()).unwrap(),
        }
    }
    archive.into_inner().unwrap()
}

/// Layers, lowest first, and the directory where they lie.
fn layers(layers: &[&[Entry<'_>]]) -> (Rootfs, TempDir) {
    let dir = TempDir::new().unwrap();
    let mut rootfs = Rootfs::default();
    for (number, layer) in layers.iter().enumerate() {
        rootfs.add_layer(tar(layer).as_slice(), &dir.path().join(number.to_string())).unwrap();
    }
    (rootfs, dir)
}

/// Each path with `/` behind a directory, ` -> TARGET` behind a link, `=TEXT` behind a file.
fn listing(rootfs: &Rootfs) -> Vec<String> {
    let shown = |(path, node): (&[u8], &Node)| {
        let path = String::from_utf8_lossy(path).into_owned();
        match node {
            Node::Directory { .. } => format!("{path}/"),
            Node::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
            Node::File { .. } => format!("{path}={}", text(node)),
            Node::Special => format!("{path} (special)"),
        }
    };
    rootfs.entries().map(shown).collect()
}

fn text(node: &Node) -> String {
    let mut text = String::new();
    rootfs::open(node).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn own(path: &str, kind: PackKind) -> PackFile {
    PackFile { path: path.as_bytes().into(), layer: None, kind }
}

fn own_file(dir: &TempDir, path: &str, text: &str) -> PackFile {
    let from = dir.path().join(path.replace('/', "-"));
    fs::write(&from, text).unwrap();
    own(path, PackKind::File { mode: 0o755, size: text.len() as u64, from: from.into(), stamp: [0; 6] })
}

#[test]
fn layers_cover_each_other_as_the_specification_says() {
    let (rootfs, _dir) = layers(&[
        &[
            Dir("etc"),
            Text("etc/kept", "1"),
            Text("etc/gone", "1"),
            Text("etc/changed", "1"),
            Text("opt/all/a", "1"),
            Text("opt/all/b", "1"),
            Text("was/a/directory", "1"),
            Text("file", "1"),
        ],
        &[
            Text("etc/.wh.gone", ""),
            Text("etc/changed", "2"),
            Text("opt/all/new", "2"),
            Text("opt/all/.wh..wh..opq", ""),
            Text("was/a", "now a file"),
            Dir("file"),
            Again("file/second", "etc/changed"),
            Device("dev/null"),
        ],
    ]);
    let expected = [
        "dev/",
        "dev/null (special)",
        "etc/",
        "etc/changed=2",
        "etc/kept=1",
        "file/",
        "file/second=2",
        "opt/",
        "opt/all/",
        "opt/all/new=2",
        "was/",
        "was/a=now a file",
    ];
    assert_eq!(listing(&rootfs), expected);
}

#[test]
fn own_files_lie_over_the_base_and_follow_its_linked_directories() {
    let (base, dir) = layers(&[&[
        Dir("usr/bin"),
        Link("bin", "usr/bin"),
        Text("usr/bin/old", "base"),
        Text("usr/bin/covered", "base"),
    ]]);
    let files = [
        own("bin", PackKind::Dir),
        own_file(&dir, "bin/covered", "own"),
        own_file(&dir, "bin/deep/er/tool", "own"),
        own("bin/link", PackKind::Symlink { target: b"/etc/x".to_vec() }),
    ];
    let expected = [
        "bin -> usr/bin",
        "usr/",
        "usr/bin/",
        "usr/bin/covered=own",
        "usr/bin/deep/",
        "usr/bin/deep/er/",
        "usr/bin/deep/er/tool=own",
        "usr/bin/link -> /etc/x",
        "usr/bin/old=base",
    ];
    assert_eq!(listing(&Rootfs::new(&files, Some(base))), expected);
}

#[test]
fn links_are_followed_inside_as_after_chroot() {
    let (rootfs, _dir) = layers(&[&[
        Text("usr/lib/libz.so.1.3", "z"),
        Link("usr/lib/libz.so.1", "libz.so.1.3"),
        Link("lib", "/usr/lib"),
        Link("up", "../../../usr"),
        Link("usr/back", "../lib"),
        Link("circle/a", "b"),
        Link("circle/b", "a"),
        Link("dangling", "usr/nothing/x"),
    ]]);
    let cases: [(&str, Result<&str, Unresolved>); 11] = [
        ("/lib/libz.so.1", Ok("usr/lib/libz.so.1.3")),
        ("lib/../lib/./libz.so.1", Ok("usr/lib/libz.so.1.3")),
        ("/../../up/lib/libz.so.1", Ok("usr/lib/libz.so.1.3")),
        ("usr/back/libz.so.1", Ok("usr/lib/libz.so.1.3")),
        ("lib/", Ok("usr/lib")),
        ("/", Ok("")),
        ("..", Ok("")),
        ("circle/a", Err(Unresolved::Circle)),
        ("dangling", Err(Unresolved::Missing(b"usr/nothing".to_vec()))),
        ("lib/libz.so.1/x", Err(Unresolved::Missing(b"usr/lib/libz.so.1.3".to_vec()))),
        ("missing/../lib", Err(Unresolved::Missing(b"missing".to_vec()))),
    ];
    for (path, expected) in cases {
        let found = rootfs.resolve(path.as_bytes()).map(|Resolved { path, .. }| path);
        assert_eq!(found, expected.as_ref().map(|path| path.as_bytes()).map_err(Clone::clone), "{path}");
    }
}

#[test]
fn a_file_is_read_and_sought_within_its_own_bytes() {
    let (rootfs, _dir) = layers(&[&[Text("a", "before"), Text("b", "0123456789"), Text("c", "after")]]);
    let mut file = rootfs::open(rootfs.get(b"b").unwrap()).unwrap();
    let mut rest = String::new();
    assert_eq!(file.seek(SeekFrom::End(-3)).unwrap(), 7);
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "789");
    assert_eq!(file.seek(SeekFrom::Current(-9)).unwrap(), 1);
    assert!(file.seek(SeekFrom::Current(-9)).is_err());
    assert_eq!(file.seek(SeekFrom::Start(99)).unwrap(), 99);
    assert_eq!(file.read(&mut [0; 4]).unwrap(), 0);
    assert!(rootfs::open(rootfs.get(b"").unwrap()).is_err());
}

#[test]
fn the_entries_of_a_directory_are_listed_without_those_below_them() {
    let (rootfs, _dir) = layers(&[&[Text("a/x", ""), Text("a/y/z", ""), Text("ab/x", ""), Text("a.b", "")]]);
    let names = |dir: &[u8]| -> Vec<String> {
        rootfs.children(dir).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    };
    assert_eq!(names(b"a"), ["x", "y"]);
    assert_eq!(names(b""), ["a", "a.b", "ab"]);
}

#[test]
fn a_broken_layer_is_an_error_and_no_panic() {
    let dir = TempDir::new().unwrap();
    let whole = tar(&[Text("a", "text"), Text("b", "text")]);
    for (number, bytes) in
        [&whole[..512 + 2], &whole[..1300], b"no tar at all".as_slice()].into_iter().enumerate()
    {
        let copy = dir.path().join(number.to_string());
        assert!(Rootfs::default().add_layer(bytes, &copy).is_err(), "{number}");
    }
    let lone = tar(&[Again("a", "missing")]);
    assert!(Rootfs::default().add_layer(lone.as_slice(), &dir.path().join("lone")).is_err());
    assert!(File::open(dir.path().join("lone")).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_resolved_path_has_no_link_in_it_and_resolves_to_itself(
        links in proptest::collection::vec(("[ab]{1,2}(/[ab]){0,2}", "/?([ab]|\\.\\.)(/([ab]|\\.\\.)){0,3}"), 0..8),
        asked in "/?([ab]|\\.\\.)(/([ab]|\\.\\.)){0,5}",
    ) {
        let kinds = links.iter().map(|(path, target)| own(path, PackKind::Symlink { target: target.clone().into() }));
        let rootfs = Rootfs::new(&kinds.collect::<Vec<_>>(), None);
        if let Ok(found) = rootfs.resolve(asked.as_bytes()) {
            let is_link = matches!(found.node, Node::Symlink { .. });
            prop_assert!(!is_link);
            prop_assert_eq!(rootfs.resolve(found.path), Ok(found));
            let above = (0..found.path.len()).filter(|at| found.path[*at] == b'/').map(|at| &found.path[..at]);
            for dir in above {
                let is_directory = matches!(rootfs.get(dir), Some(Node::Directory { .. }));
                prop_assert!(is_directory);
            }
        }
    }
}

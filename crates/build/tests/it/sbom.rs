//! Whether the packages of artefacts are found: systems, installed packages, programs, jars and lock files.

use std::fs;
use std::io::Write as _;

use std::process::Command;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;
use semel_build::collect;
use semel_build::rootfs::Rootfs;
use semel_build::sbom::{self, PACKAGES_MAX, Sbom, SbomRequest};
use semel_model::build::TreeEntry;
use semel_model::digest::Digest;
use semel_model::project::{Definition, Kind, Project};
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::has_all;

/// What is described: files of an artefact, of its base, and of the source tree.
struct Tree {
    dir: TempDir,
    locks: Vec<String>,
}

impl Tree {
    fn new() -> Self {
        let this = Self { dir: TempDir::new().unwrap(), locks: Vec::new() };
        for top in ["own", "base", "source"] {
            fs::create_dir(this.dir.path().join(top)).unwrap();
        }
        this
    }

    fn with(self, top: &str, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        let file = self.dir.path().join(top).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
        self
    }

    fn own(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.with("own", path, bytes)
    }

    fn base(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.with("base", path, bytes)
    }

    fn lock(mut self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.locks.push(path.to_owned());
        self.with("source", path, bytes)
    }

    fn describe(&self) -> Sbom {
        let mut rootfs = Rootfs::default();
        let mut layer = tar::Builder::new(Vec::new());
        layer.append_dir_all("", self.dir.path().join("base")).unwrap();
        let copies = TempDir::new().unwrap();
        rootfs.add_layer(layer.into_inner().unwrap().as_slice(), &copies.path().join("layer")).unwrap();
        let files = collect::collect(&self.dir.path().join("own"), &definition().artefact).unwrap();
        let entry = |path: &String| TreeEntry {
            path: path.clone().into_bytes(),
            mode: "100644".to_owned(),
            object: "0".repeat(40),
        };
        sbom::describe(&SbomRequest {
            rootfs: &Rootfs::new(&files, Some(rootfs)),
            has_base: true,
            tree: &self.dir.path().join("source"),
            entries: &self.locks.iter().map(entry).collect::<Vec<_>>(),
            component: &"shop/api".parse().unwrap(),
            kind: Kind::Image,
            subject: &Digest::of(b"an artefact"),
            committed_seconds: 1_700_000_000,
            semel: "0.1.0",
        })
        .unwrap()
    }

    /// Package URL and where it was found, one a line.
    fn found(&self) -> Vec<String> {
        let document = self.describe().document;
        let line = |one: &Value| {
            let scope = if one["scope"] == "excluded" { ", excluded" } else { "" };
            Some(format!("{} ({}{scope})", one["purl"].as_str()?, one["properties"][0]["value"].as_str()?))
        };
        document["components"].as_array().unwrap().iter().filter_map(line).collect()
    }
}

fn definition() -> Definition {
    let text =
        "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nfiles = [{ from = \".\", to = \"/\" }]";
    Project::parse("semel.toml", text).unwrap().definition
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An object of 64 bits with one section.
fn elf(name: &str, content: &[u8]) -> Vec<u8> {
    let texts = [b"\0", name.as_bytes(), b"\0"].concat();
    let (content_at, texts_at) = (64, 64 + content.len());
    let table_at = texts_at + texts.len();
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let header: [&[u8]; 13] = [
        &2_u16.to_le_bytes(),
        &62_u16.to_le_bytes(),
        &1_u32.to_le_bytes(),
        &[0; 16],
        &(table_at as u64).to_le_bytes(),
        &[0; 4],
        &64_u16.to_le_bytes(),
        &56_u16.to_le_bytes(),
        &0_u16.to_le_bytes(),
        &64_u16.to_le_bytes(),
        &3_u16.to_le_bytes(),
        &2_u16.to_le_bytes(),
        &[],
    ];
    bytes.extend(header.concat());
    bytes.extend(content);
    bytes.extend(&texts);
    bytes.extend([0; 64]);
    for (name_at, kind, offset, size) in
        [(1_u32, 1_u32, content_at, content.len()), (0, 3, texts_at, texts.len())]
    {
        bytes.extend(name_at.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 16]);
        bytes.extend((offset as u64).to_le_bytes());
        bytes.extend((size as u64).to_le_bytes());
        bytes.extend([0; 24]);
    }
    bytes
}

fn auditable(list: &Value) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(list.to_string().as_bytes()).unwrap();
    elf(".dep-v0", &encoder.finish().unwrap())
}

/// What the Go linker writes, with texts that are short enough for a length of two bytes.
fn go_program(modules: &str) -> Vec<u8> {
    let text = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap();
        [&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8], bytes].concat()
    };
    let marked = [&[b'x'; 16], modules.as_bytes(), &[b'y'; 16]].concat();
    let head = [b"\xff Go buildinf:\x08\x02".as_slice(), &[0; 16]].concat();
    elf(".go.buildinfo", &[head, text(b"go1.22.1"), text(&marked)].concat())
}

const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";

#[test]
fn the_packages_of_a_debian_base_are_found() {
    let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc (2.36-9)\nVersion: 2.36-9+deb12u4\nDescription: GNU C Library\n with: more\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: tzdata\nStatus: install ok installed\nArchitecture: all\nVersion: 2024a-0";
    let tree = Tree::new()
        .base("etc/os-release", DEBIAN)
        .base("var/lib/dpkg/status", status)
        .base("var/lib/dpkg/status.d/netbase", "Package: netbase\nVersion: 6.4\nArchitecture: all\n")
        .base("var/lib/dpkg/status.d/netbase.md5sums", "Package: none\nVersion: 1\n");
    assert_eq!(
        tree.found(),
        [
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc%402.36-9 (base)",
            "pkg:deb/debian/netbase@6.4?arch=all&distro=debian-12 (base)",
            "pkg:deb/debian/tzdata@2024a-0?arch=all&distro=debian-12 (base)",
        ]
    );
    let system = &tree.describe().document["components"][0];
    assert_eq!((&system["name"], &system["version"]), (&json!("debian"), &json!("12")));
}

#[test]
fn the_packages_of_an_alpine_base_are_found() {
    let installed = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld-musl-x86_64.so.1\n\nP:ssl_client\nV:1.36.1-r5\nA:x86_64\nL:GPL-2.0-only\no:busybox\n";
    let tree = Tree::new()
        .base("etc/os-release", "ID=alpine\nVERSION_ID=3.18.4\n")
        .base("lib/apk/db/installed", installed);
    assert_eq!(
        tree.found(),
        [
            "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4 (base)",
            "pkg:apk/alpine/ssl_client@1.36.1-r5?arch=x86_64&distro=alpine-3.18.4&upstream=busybox (base)",
        ]
    );
    let musl = &tree.describe().document["components"][1];
    assert_eq!(musl["licenses"], json!([{"license": {"name": "MIT"}}]));
}

#[test]
fn installed_packages_are_found_and_what_they_have_inside_is_not_taken_for_one() {
    let tree = Tree::new()
        .own("app/package.json", r#"{"name": "app", "version": "0.0.1"}"#)
        .own(
            "app/node_modules/left-pad/package.json",
            r#"{"name": "left-pad", "version": "1.3.0", "license": "WTFPL"}"#,
        )
        .own("app/node_modules/@a/b/package.json", r#"{"name": "@a/b", "version": "2.0.0"}"#)
        .own("app/node_modules/@a/b/test/package.json", r#"{"name": "fixture", "version": "9.9.9"}"#)
        .own("app/node_modules/left-pad/node_modules/c/package.json", r#"{"name": "c", "version": "3.0.0"}"#)
        .own(
            "usr/lib/python3/site-packages/Flask-3.0.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0.0\nLicense: BSD\n\nName: not-this\n",
        )
        .own("usr/lib/python3/dist-packages/six.egg-info", "Name: six\nVersion: 1.16.0\n");
    assert_eq!(
        tree.found(),
        [
            "pkg:npm/%40a/b@2.0.0 (artefact)",
            "pkg:npm/c@3.0.0 (artefact)",
            "pkg:npm/left-pad@1.3.0 (artefact)",
            "pkg:pypi/flask@3.0.0 (artefact)",
            "pkg:pypi/six@1.16.0 (artefact)",
        ]
    );
}

#[test]
fn what_was_compiled_in_is_found_in_the_program_and_else_in_the_lock_file() {
    let list = json!({"packages": [
        {"name": "app", "version": "0.1.0", "source": "local", "root": true, "dependencies": [1]},
        {"name": "serde", "version": "1.0.200", "source": "crates.io"},
        {"name": "cc", "version": "1.0.90", "source": "crates.io", "kind": "build"},
    ]});
    let lock = "version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.200\"\n[[package]]\nname = \"windows-sys\"\nversion = \"0.52.0\"\n";
    let tree = Tree::new().own("app/api", auditable(&list)).lock("Cargo.lock", lock);
    assert_eq!(
        tree.found(),
        [
            "pkg:cargo/app@0.1.0 (artefact)",
            "pkg:cargo/cc@1.0.90 (artefact, excluded)",
            "pkg:cargo/serde@1.0.200 (artefact)",
            "pkg:cargo/windows-sys@0.52.0 (lock file)",
        ]
    );
}

#[test]
fn the_modules_of_a_go_program_are_found_with_those_that_were_put_in_the_place_of_others() {
    let modules = "path\texample.com/app\nmod\texample.com/app\t(devel)\t\ndep\tgithub.com/BurntSushi/toml\tv1.3.2\th1:x=\ndep\tgolang.org/x/net\tv0.1.0\n=>\tgolang.org/x/net\tv0.2.0\th1:y=\nbuild\t-compiler=gc\n";
    assert_eq!(
        Tree::new().own("app/api", go_program(modules)).found(),
        [
            "pkg:golang/example.com/app (artefact)",
            "pkg:golang/github.com/burntsushi/toml@v1.3.2 (artefact)",
            "pkg:golang/golang.org/x/net@v0.2.0 (artefact)",
            "pkg:golang/stdlib@1.22.1 (artefact)",
        ]
    );
}

#[test]
fn jars_are_read_with_the_jars_inside_them_up_to_a_depth() {
    let pom = |name: &str| format!("#Generated\ngroupId=org.example\nartifactId={name}\nversion=1.0\n");
    let mut jar = zipped(&[("META-INF/maven/org.example/deepest/pom.properties", pom("deepest").as_bytes())]);
    for name in ["d3", "d2", "d1", "d0"] {
        let at = format!("META-INF/maven/org.example/{name}/pom.properties");
        jar = zipped(&[(at.as_str(), pom(name).as_bytes()), ("lib/inner.jar", &jar)]);
    }
    let titled =
        b"Manifest-Version: 1.0\r\nImplementation-Title: titl\r\n ed\r\nImplementation-Version: 2.0\r\n";
    let tree = Tree::new()
        .own("app/app.jar", jar)
        .own("app/guava-33.0.0-jre.jar", zipped(&[("a.class", b"")]))
        .own("app/t.jar", zipped(&[("META-INF/MANIFEST.MF", titled)]))
        .own("app/broken.jar", "PK no jar");
    assert_eq!(
        tree.found(),
        [
            "pkg:generic/guava@33.0.0-jre (artefact)",
            "pkg:generic/titled@2.0 (artefact)",
            "pkg:maven/org.example/d0@1.0 (artefact)",
            "pkg:maven/org.example/d1@1.0 (artefact)",
            "pkg:maven/org.example/d2@1.0 (artefact)",
            "pkg:maven/org.example/d3@1.0 (artefact)",
        ]
    );
    let sbom = tree.describe();
    let deepest = "/app/app.jar!/lib/inner.jar!/lib/inner.jar!/lib/inner.jar!/lib/inner.jar";
    assert_eq!(sbom.unread, [deepest, "/app/broken.jar"]);
    assert_eq!(sbom.document["compositions"][0]["aggregate"], "incomplete");
}

#[test]
fn lock_files_of_every_kind_are_read() {
    let cases: [(&str, &str, &[&str]); 8] = [
        (
            "package-lock.json",
            r#"{"lockfileVersion": 1, "dependencies": {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0", "dev": true}}}}}"#,
            &["pkg:npm/a@1.0.0 (lock file)", "pkg:npm/b@2.0.0 (lock file, excluded)"],
        ),
        (
            "web/package-lock.json",
            r#"{"lockfileVersion": 3, "packages": {"": {"version": "0"}, "lib": {"version": "9"}, "node_modules/lib": {"link": true}, "node_modules/a/node_modules/@s/b": {"version": "2.0.0"}}}"#,
            &["pkg:npm/%40s/b@2.0.0 (lock file)"],
        ),
        (
            "uv.lock",
            "version = 1\n[[package]]\nname = \"idna\"\nversion = \"3.6\"\n[[package]]\nname = \"local\"\n",
            &["pkg:pypi/idna@3.6 (lock file)"],
        ),
        (
            "poetry.lock",
            "[[package]]\nname = \"idna\"\nversion = \"3.6\"\n",
            &["pkg:pypi/idna@3.6 (lock file)"],
        ),
        (
            "pylock.toml",
            "lock-version = \"1.0\"\n[[packages]]\nname = \"idna\"\nversion = \"3.6\"\n",
            &["pkg:pypi/idna@3.6 (lock file)"],
        ),
        (
            "Pipfile.lock",
            r#"{"default": {"idna": {"version": "==3.6"}}, "develop": {"pytest": {"version": "==8.0"}}}"#,
            &["pkg:pypi/idna@3.6 (lock file)", "pkg:pypi/pytest@8.0 (lock file, excluded)"],
        ),
        (
            "requirements-prod.txt",
            "# pinned\nidna==3.6 --hash=sha256:abc\nrequests[socks]==2.31.0 ; python_version > '3'\nloose>=1\nwild==1.*\n-r other.txt\n",
            &["pkg:pypi/idna@3.6 (lock file)", "pkg:pypi/requests@2.31.0 (lock file)"],
        ),
        ("Cargo.lock", "no lock file", &[]),
    ];
    for (path, text, expected) in cases {
        let tree = Tree::new().lock(path, text);
        assert_eq!(tree.found(), expected, "{path}");
        let unread: &[&str] = if expected.is_empty() { &[path] } else { &[] };
        assert_eq!(tree.describe().unread, unread, "{path}");
    }
}

#[test]
fn the_same_artefact_has_the_same_description() {
    let tree = Tree::new()
        .base("etc/os-release", DEBIAN)
        .own("node_modules/a/package.json", r#"{"name": "a", "version": "1"}"#);
    let (first, second) = (tree.describe().document, tree.describe().document);
    assert_eq!(first, second);
    assert_eq!(first["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(first["serialNumber"], "urn:uuid:88fc5a32-d3f4-5348-8fa0-625078f2324c");
}

#[test]
fn a_list_that_is_too_long_says_that_it_is_not_complete() {
    let package = |number: usize| format!("[[package]]\nname = \"p{number}\"\nversion = \"1.0.0\"\n");
    let lock = (0..=PACKAGES_MAX).map(package).collect::<Vec<_>>().concat();
    let sbom = Tree::new().lock("Cargo.lock", lock).describe();
    assert_eq!(sbom.packages, PACKAGES_MAX);
    assert_eq!(sbom.unread, ["1 more packages"]);
    // With the signature it must fit into one request.
    assert!(sbom.document.to_string().len() < 10 << 20, "{}", sbom.document.to_string().len());
}

/// Validates with the schema that CycloneDX publishes.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(str(problem) if problem else 0)
";

#[test]
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn descriptions_are_valid_cyclonedx() {
    let here = |program: &str| has_all(&[program]);
    if !here("python3") {
        return;
    }
    let library = Command::new("python3")
        .args(["-c", "import cyclonedx.validation.json, jsonschema"])
        .output()
        .unwrap();
    if !library.status.success() {
        assert!(std::env::var_os("CI").is_none(), "the Python library cyclonedx is missing");
        eprintln!("left out: pip install 'cyclonedx-python-lib[json-validation]'");
        return;
    }
    let tree = Tree::new()
        .base("etc/os-release", DEBIAN)
        .base(
            "var/lib/dpkg/status",
            "Package: a\nVersion: 1\nStatus: install ok installed\nArchitecture: all\n",
        )
        .own("a/broken.jar", "none")
        .own(
            "node_modules/@s/a/package.json",
            r#"{"name": "@s/a", "version": "1", "license": "(MIT OR odd)"}"#,
        )
        .lock("Pipfile.lock", r#"{"develop": {"pytest": {"version": "==8.0"}}}"#);
    for document in [tree.describe().document, Tree::new().describe().document] {
        let mut child = Command::new("python3")
            .args(["-c", VALIDATE])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(document.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}\n{document:#}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Paths at which something is read.
const READ: [&str; 9] = [
    "etc/os-release",
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "node_modules/a/package.json",
    "a-1.dist-info/METADATA",
    "a.jar",
    "cargo-program",
    "go-program",
    "elf",
];

fn is_described(at: &str, bytes: &[u8]) {
    Tree::new().own(at, bytes).describe();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read_to_an_end(at in 0..READ.len(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        is_described(READ[at], &bytes);
        let start: &[u8] = match READ[at] {
            "elf" => b"\x7fELF\x02\x01\x01",
            "a.jar" => b"PK\x03\x04",
            _ => b"{",
        };
        is_described(READ[at], &[start, &bytes].concat());
    }

    #[test]
    fn programs_and_jars_with_a_few_wrong_bytes_are_read_to_an_end(
        kind in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match kind {
            0 => auditable(&json!({"packages": [{"name": "a", "version": "1"}]})),
            1 => go_program("mod\texample.com/a\tv1.0.0\n"),
            _ => zipped(&[("META-INF/MANIFEST.MF", b"Implementation-Title: a\n"), ("b.jar", b"PK")]),
        };
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        is_described(READ[5 + kind % 2], &bytes);
        bytes.truncate(cut.index(bytes.len()));
        is_described(READ[5 + kind % 2], &bytes);
    }

    #[test]
    fn any_lock_file_is_read_to_an_end(
        name in prop::sample::select(vec!["Cargo.lock", "package-lock.json", "uv.lock", "Pipfile.lock", "requirements.txt"]),
        text in r#"([{}\[\]":,=\n]|"?(packages|package|dependencies|name|version|node_modules/a|1\.0)"?){0,40}"#,
    ) {
        Tree::new().lock(name, text).describe();
    }
}

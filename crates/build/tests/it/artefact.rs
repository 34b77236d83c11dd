//! What comes out: files, layers, manifests, and the bytes that never change.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use semel_build::checkout;
use semel_build::collect::{self, PackFile};
use semel_build::package::{self, PackageRequest, Packaged};
use semel_build::pipeline::{Blame, BuildError};
use semel_model::digest::Digest;
use semel_model::project::{Definition, Project};
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::Index;
use semel_oci::media_type;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{COMMITTED, Done, PLAIN, Repo, build, host_with_toolchains, request, runtime, told};

const IMAGE: &str = r#"format = 1
component = "shop/api"

[build]
run = "mkdir -p out/share/empty && cp start out/api && ln -s ../api out/share/link && head -c 100000 /dev/zero > out/share/data && chmod 4711 out/api"

[artefact]
kind = "image"
entrypoint = ["/app/api", "--serve"]
user = "1000:1000"
workdir = "/app"
files = [
  { from = "out", to = "/app" },
  { from = "lib", to = "/usr/lib/api", layer = "lib", mode = "0644" },
]

[config]
PORT = { type = "port", default = 8080 }
"#;

/// An image whose program needs nothing.
fn image() -> Repo {
    image_with("")
}

fn image_with(start: &str) -> Repo {
    let repo = Repo::with(IMAGE, &[("start", start), ("lib/a/b", "b"), ("lib/c", "c")]).executable("start");
    repo.git(&["remote", "add", "origin", "git@forge.example:shop/api.git"]);
    repo.committed()
}

#[test]
fn an_image_has_its_layers_its_configuration_and_its_contract() {
    let done = image().built();
    assert_eq!(
        done.entries(0),
        [
            "755 usr/",
            "755 usr/lib/",
            "755 usr/lib/api/",
            "755 usr/lib/api/a/",
            "644 usr/lib/api/a/b",
            "644 usr/lib/api/c"
        ]
    );
    assert_eq!(
        done.entries(1),
        [
            "755 app/",
            "755 app/api",
            "755 app/share/",
            "644 app/share/data",
            "755 app/share/empty/",
            "777 app/share/link -> ../api"
        ]
    );
    let packaged = &done.built.packaged;
    let names: Vec<_> = packaged.layers.iter().map(|layer| (layer.name.as_deref(), layer.files)).collect();
    assert_eq!(names, [(Some("lib"), 2), (None, 2)]);
    let config = done.json(&packaged.config);
    assert_eq!(
        config["config"],
        json!({ "Entrypoint": ["/app/api", "--serve"], "User": "1000:1000", "WorkingDir": "/app" })
    );
    assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("amd64")));
    assert_eq!(config["created"], "2024-05-06T07:08:09Z");
    assert_eq!(config["rootfs"]["diff_ids"], json!(packaged.diff_ids));
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    let annotations = done.manifest()["annotations"].clone();
    assert_eq!(annotations["dev.semel.contract"], r#"{"PORT":{"default":8080,"type":"port"}}"#);
    assert_eq!(annotations["org.opencontainers.image.source"], "https://forge.example/shop/api");
    assert_eq!(annotations["org.opencontainers.image.created"], "2024-05-06T07:08:09Z");
    assert_eq!(annotations.as_object().unwrap().len(), 4);
}

#[test]
fn the_digest_of_an_image_is_frozen() {
    // No shell is in it, so it is packaged without being checked.
    let repo = image_with("#!/bin/sh\n");
    let source = repo.source();
    let (tree, into) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    checkout::materialise(&source, &tree.path().join("tree"), &into.path().join("attributes")).unwrap();
    let definition = &source.project.definition;
    let run = definition.build.run.as_ref().unwrap();
    let argv = run.argv();
    let ran = Command::new(argv[0]).args(&argv[1..]).current_dir(tree.path().join("tree")).status();
    assert!(ran.unwrap().success());
    let packaged = runtime().block_on(package::package(&PackageRequest {
        files: &Arc::new(collect::collect(&tree.path().join("tree"), &definition.artefact).unwrap()),
        definition,
        commit: &source.commit,
        committed_seconds: source.committed_seconds,
        remote: source.remote.as_deref(),
        platform: &request(source.clone(), into.path().to_owned()).platform,
        base: None,
        layout_dir: &into.path().join("layout"),
        threads: NonZeroUsize::MIN,
    }));
    assert_eq!(
        packaged.unwrap().manifest.as_str(),
        "sha256:0a6958540e3e38784c63e20621931c7f9bba61949857af5565a46fb76530cdab"
    );
}

#[test]
fn the_digest_of_an_archive_is_frozen() {
    let project = PLAIN.replace("[\"/app/start\"]", "[\"node\", \"/app/start\"]\nneeds = [\"node >= 20\"]");
    let repo = Repo::with(&project, &[("start", "#!/bin/sh\n")]).executable("start").committed();
    let done = repo.built();
    let packaged = &done.built.packaged;
    assert_eq!(packaged.artifact_type.as_deref(), Some("application/vnd.semel.archive.v1"));
    assert_eq!(
        done.json(&packaged.config),
        json!({ "v": 1, "entrypoint": ["node", "/app/start"], "needs": ["node >= 20"] })
    );
    assert_eq!(done.manifest()["layers"].as_array().unwrap().len(), 1);
    let length = |digest: &serde_json::Value| digest["size"].as_u64().unwrap();
    let manifest = done.manifest();
    assert_eq!(packaged.bytes, packaged.size + length(&manifest["config"]) + length(&manifest["layers"][0]));
    assert_eq!(
        packaged.manifest.as_str(),
        "sha256:41d7af902ee9ff7c615dc2c2f21d13948459172dac33a834f1c1cc235531fbc3"
    );
}

/// Everything that format 1 has a rule for: names of more than 100 and 255 bytes, names that are no text, links, empty files
/// and directories, modes that it drops, layers by name, a file of several compressed blocks.
fn every_rule(dir: &Path) {
    use std::os::unix::ffi::OsStringExt;
    let long = format!("long/{}/{}", "d".repeat(120), "n".repeat(90));
    let longest = format!("long/{}/{}", "d".repeat(200), "n".repeat(200));
    for (path, mode) in [
        ("program", 0o4755),
        ("open", 0o666),
        ("closed", 0o400),
        ("shared/lib.so", 0o755),
        ("ö/\u{1f600}", 0o644),
        (&long, 0o644),
        (&longest, 0o644),
    ] {
        write(dir, path, mode);
    }
    fs::write(dir.join("empty"), "").unwrap();
    fs::create_dir(dir.join("nothing")).unwrap();
    let unreadable = std::ffi::OsString::from_vec(b"not \xff text\n".to_vec());
    fs::write(dir.join(unreadable), "x").unwrap();
    symlink("program", dir.join("link")).unwrap();
    symlink(format!("long/{}/../../open", "d".repeat(120)), dir.join("far")).unwrap();
    let numbers = (0..700_000_u32).flat_map(|n| (n % 5_003).wrapping_mul(2_654_435_761).to_le_bytes());
    fs::write(dir.join("large"), numbers.collect::<Vec<u8>>()).unwrap();
}

#[test]
fn the_bytes_of_format_1_are_frozen_for_every_kind() {
    let dir = TempDir::new().unwrap();
    every_rule(dir.path());
    let shown = |packaged: &Packaged| {
        let layers = packaged.layers.iter().flat_map(|layer| [&layer.diff_id, &layer.digest]);
        let all = layers.chain([&packaged.config, &packaged.manifest]);
        all.map(|digest| digest.hex()[..16].to_owned()).collect::<Vec<_>>()
    };
    let frozen = |artefact: &str| {
        let definition = definition(artefact);
        let files = collect::collect(dir.path(), &definition.artefact).unwrap();
        let into = TempDir::new().unwrap();
        shown(&pack(&files, &definition, into.path()).unwrap())
    };
    let image = r#"kind = "image"
entrypoint = ["/srv/program"]
user = "7:8"
workdir = "/srv"
files = [{ from = ".", to = "/srv" }, { from = "shared", to = "/usr/lib", layer = "lib" }, { from = "open", to = "/bin/x", mode = "0755", layer = "tools" }]"#;
    assert_eq!(frozen(image), GOLDEN_IMAGE);
    let zstd = "\ncompression = \"zstd\"";
    assert_eq!(frozen(&format!("{image}{zstd}")), GOLDEN_ZSTD_IMAGE);
    let archive = r#"kind = "archive"
entrypoint = ["node", "/srv/program"]
needs = ["node >= 20"]
files = [{ from = ".", to = "/srv" }]"#;
    assert_eq!(frozen(archive), GOLDEN_ARCHIVE);
    assert_eq!(frozen(&format!("{archive}{zstd}")), GOLDEN_ZSTD_ARCHIVE);
}

/// The first digits of: uncompressed and compressed digest of each layer, configuration, manifest.
const GOLDEN_IMAGE: [&str; 8] = [
    "e25e6a90798b3178",
    "41456063e8d3924a",
    "6cb4dc65e3474726",
    "90d602a430296d7f",
    "3d88facdf322ca74",
    "7434fe050e5b8f67",
    "08852b354877fb47",
    "dacbf39826a587ea",
];
const GOLDEN_ZSTD_IMAGE: [&str; 8] = [
    "e25e6a90798b3178",
    "29d4679baa392868",
    "6cb4dc65e3474726",
    "4d8b50c4b0ccd9ad",
    "3d88facdf322ca74",
    "1e48da79afe54afa",
    "08852b354877fb47",
    "76bd5aebe27a9074",
];
const GOLDEN_ARCHIVE: [&str; 4] =
    ["3d88facdf322ca74", "7434fe050e5b8f67", "dfa3ed6e99c84bd4", "4ae9d79a66d692fe"];
const GOLDEN_ZSTD_ARCHIVE: [&str; 4] =
    ["3d88facdf322ca74", "1e48da79afe54afa", "dfa3ed6e99c84bd4", "329b7451f363835c"];

#[test]
fn layers_are_compressed_as_the_project_says_and_hold_the_same() {
    let built = |compression: &str| {
        let project = IMAGE.replace("kind = \"image\"", &format!("kind = \"image\"\n{compression}"));
        let repo =
            Repo::with(&project, &[("start", ""), ("lib/a/b", "b"), ("lib/c", "c")]).executable("start");
        repo.committed().built()
    };
    let (unsaid, gzip, zstd) = (built(""), built("compression = \"gzip\""), built("compression = \"zstd\""));
    let types = |done: &Done| {
        let manifest = done.manifest();
        let layers = manifest["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["mediaType"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(&unsaid), [media_type::OCI_LAYER_GZIP; 2]);
    assert_eq!(types(&zstd), [media_type::OCI_LAYER_ZSTD; 2]);
    let packaged = |done: &Done| done.built.packaged.clone();
    assert_eq!(packaged(&unsaid).layers, packaged(&gzip).layers);
    assert_eq!(packaged(&unsaid).diff_ids, packaged(&zstd).diff_ids);
    assert_eq!((zstd.entries(0), zstd.entries(1)), (gzip.entries(0), gzip.entries(1)));
}

#[test]
fn building_twice_gives_the_same_digest_and_no_clock_is_in_the_bytes() {
    let repo = image();
    let (first, second) = (repo.built(), repo.built());
    assert_ne!(first.work.path(), second.work.path());
    assert_eq!(first.built.packaged, second.built.packaged);
}

#[test]
fn a_base_lies_below_the_files_and_is_verified() {
    let base = Repo::with(
        r#"format = 1
component = "base"
[artefact]
kind = "image"
entrypoint = ["/usr/bin/run"]
user = "7"
files = [{ from = "root", to = "/" }]
"#,
        &[("root/usr/bin/run", ""), ("root/usr/lib/x", "")],
    )
    .executable("root/usr/bin/run");
    symlink("usr/bin", base.path().join("root/bin")).unwrap();
    let base = base.committed().built();
    let repo = Repo::with("", &[("tool", "")]).executable("tool");
    let copied =
        Command::new("cp").arg("-r").arg(&base.built.layout_dir).arg(repo.path().join("base")).status();
    assert!(copied.unwrap().success());
    repo.write(".gitignore", "base\n");
    let project = |digest: &str, entrypoint: &str| {
        format!(
            "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nbase = \"base@{digest}\"\nentrypoint = [\"{entrypoint}\"]\nfiles = [{{ from = \"tool\", to = \"/bin/tool\" }}]\n"
        )
    };
    let digest = base.built.packaged.manifest.as_str();
    repo.write("semel.toml", &project(digest, "/bin/run"));
    repo.commit("feat: begin");
    let done = repo.built();
    assert_eq!(done.entries(0), ["755 bin/tool"], "the link /bin of the base is left as it is");
    let config = done.json(&done.built.packaged.config);
    assert_eq!(config["config"]["User"], "7");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(config["history"].as_array().unwrap().len(), 2);
    assert_eq!(done.manifest()["annotations"]["org.opencontainers.image.base.digest"], digest);

    repo.write("semel.toml", &project(digest, "/usr/bin/nothing"));
    repo.commit("fix: entrypoint");
    let error = repo.build().err().unwrap();
    let problems: Vec<String> = error.problems().into_iter().map(|(problem, _)| problem).collect();
    assert_eq!(problems, ["/usr/bin/nothing is not among the files of the artefact"]);

    let index = index_of(&repo.path().join("base"), &base.built.packaged);
    repo.write("semel.toml", &project(&index, "/bin/run"));
    repo.commit("fix: index");
    assert_eq!(repo.built().built.packaged.diff_ids, done.built.packaged.diff_ids);

    let layer = &base.built.packaged.layers[0].digest;
    let blob = repo.path().join("base/blobs/sha256").join(layer.hex());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let error = told(&repo.build().err().unwrap());
    assert!(error.contains("base") && error.contains(layer.hex()), "{error}");
    repo.write("semel.toml", &project(&format!("sha256:{}", "0".repeat(64)), "/bin/run"));
    repo.commit("fix: base");
    let error = told(&repo.build().err().unwrap());
    assert!(error.starts_with("cannot read the base base: "), "{error}");
}

/// Puts an index for two platforms above an image, and gives its digest.
fn index_of(layout: &Path, image: &Packaged) -> String {
    let part = |architecture: &str, digest: &Digest| {
        let mut part = Descriptor::new(image.media_type.clone(), digest.clone(), image.size);
        part.platform = Some(json!({ "os": "linux", "architecture": architecture }));
        part
    };
    let manifests = vec![part("arm64", &Digest::of(b"elsewhere")), part("amd64", &image.manifest)];
    let index =
        Index { artifact_type: None, manifests, subject: None, annotations: Annotations::new() }.encode();
    fs::write(layout.join("blobs/sha256").join(index.descriptor.digest.hex()), &index.bytes).unwrap();
    index.descriptor.digest.to_string()
}

/// A tree to collect from, and the files that are named in it.
fn collect(files: &str, make: impl FnOnce(&Path)) -> Result<Vec<PackFile>, String> {
    let dir = TempDir::new().unwrap();
    make(dir.path());
    let definition = definition(&format!("files = [{files}]"));
    let found = collect::collect(dir.path(), &definition.artefact).map_err(|error| told(&error))?;
    Ok(found)
}

fn definition(artefact: &str) -> Definition {
    let kind = if artefact.contains("kind = ") { "" } else { "kind = \"archive\"" };
    let text = format!("format = 1\ncomponent = \"a\"\n[artefact]\n{kind}\n{artefact}\n");
    Project::parse("semel.toml", &text).unwrap().definition
}

fn write(dir: &Path, path: &str, mode: u32) {
    fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
    fs::write(dir.join(path), path).unwrap();
    fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_cannot_be_collected_is_named() {
    type Case = (&'static str, fn(&Path), &'static str);
    let cases: [Case; 11] = [
        (
            "{ from = \"target/release/api\", to = \"/api\" }",
            |dir| {
                write(dir, "target/release/apl", 0o755);
                write(dir, "target/release/build.log", 0o644);
            },
            "the build left no `target/release/api`; target/release has apl, build.log (did you mean `apl`?)",
        ),
        ("{ from = \"a\", to = \"/a\" }", |_| {}, "the build left no `a`; the tree is empty"),
        (
            "{ from = \"a\", to = \"/a\" }",
            |dir| symlink("/etc/hosts", dir.join("a")).unwrap(),
            "`a` leads out of the source tree, to /etc/hosts",
        ),
        (
            "{ from = \"d/hosts\", to = \"/a\" }",
            |dir| symlink("/etc", dir.join("d")).unwrap(),
            "`d/hosts` leads out of the source tree, to /etc/hosts",
        ),
        (
            "{ from = \"d\", to = \"/a\" }",
            |dir| {
                write(dir, "d/x", 0o644);
                symlink("../../x", dir.join("d/up")).unwrap();
            },
            "the link `d/up` → `../../x` leads out of the artefact",
        ),
        (
            "{ from = \"d\", to = \"/a\" }",
            |dir| {
                write(dir, "d/x", 0o644);
                symlink("/etc/hosts", dir.join("d/abs")).unwrap();
            },
            "the link `d/abs` → `/etc/hosts` leads out of the artefact",
        ),
        (
            "{ from = \"d\", to = \"/a\" }",
            |dir| {
                fs::create_dir(dir.join("d")).unwrap();
                assert!(Command::new("mkfifo").arg(dir.join("d/pipe")).status().unwrap().success());
            },
            "`d/pipe` is a named pipe; an artefact holds files, directories and links",
        ),
        (
            "{ from = \"a\", to = \"/x\" }, { from = \"b\", to = \"//x\" }",
            |dir| {
                write(dir, "a", 0o644);
                write(dir, "b", 0o644);
            },
            "two files would be `/x` in the artefact: from `a` and from `b`",
        ),
        (
            "{ from = \"a\", to = \"/x\" }, { from = \"b\", to = \"/x/y\" }",
            |dir| {
                write(dir, "a", 0o644);
                write(dir, "b", 0o644);
            },
            "two files would be `/x` in the artefact: from `a` and from `b`",
        ),
        (
            "{ from = \"d\", to = \"/\" }",
            |dir| write(dir, "d/.wh.x", 0o644),
            "`.wh.x`: a name that begins with `.wh.` would delete a file of the layer below",
        ),
        (
            "{ from = \"d\", to = \"/\" }",
            |dir| {
                fs::create_dir(dir.join("d")).unwrap();
                drop(std::os::unix::net::UnixListener::bind(dir.join("d/s")).unwrap());
            },
            "`d/s` is a socket; an artefact holds files, directories and links",
        ),
    ];
    for (files, make, expected) in cases {
        assert_eq!(collect(files, make).unwrap_err(), expected);
    }
}

#[test]
fn files_get_two_modes_and_links_are_kept() {
    let found = collect("{ from = \"d\", to = \"/app\" }, { from = \"one\", to = \"/bin/\" }", |dir| {
        write(dir, "d/plain", 0o600);
        write(dir, "d/program", 0o4710);
        symlink("plain", dir.join("d/link")).unwrap();
        symlink("nowhere", dir.join("d/dangling")).unwrap();
        write(dir, "real/one", 0o700);
        symlink("real/one", dir.join("one")).unwrap();
    });
    let shown: Vec<String> = found
        .unwrap()
        .iter()
        .map(|file| match &file.kind {
            collect::PackKind::File { mode, .. } => format!("{} {mode:o}", file.shown()),
            collect::PackKind::Symlink { target } => {
                format!("{} -> {}", file.shown(), String::from_utf8_lossy(target))
            }
            collect::PackKind::Dir => format!("{}/", file.shown()),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "/app/",
            "/app/dangling -> nowhere",
            "/app/link -> plain",
            "/app/plain 644",
            "/app/program 755",
            "/bin/one 755"
        ]
    );
}

fn pack(files: &[PackFile], definition: &Definition, into: &Path) -> Result<Packaged, package::PackageError> {
    let platform = "linux/arm64".parse().unwrap();
    let commit = "0123456789012345678901234567890123456789".parse().unwrap();
    runtime().block_on(package::package(&PackageRequest {
        files: &Arc::new(files.to_vec()),
        definition,
        commit: &commit,
        committed_seconds: COMMITTED,
        remote: None,
        platform: &platform,
        base: None,
        layout_dir: &into.join("layout"),
        threads: NonZeroUsize::new(3).unwrap(),
    }))
}

#[test]
fn what_no_target_would_lay_out_has_no_version() {
    let zeros = "/out/zeros` makes a layer that unpacks to more than 268435456 bytes; no target lays out what becomes more than 200 times its size";
    for (run, compression, problem, hint) in [
        (
            r#"mkdir out; touch "$(printf 'out/bad\377name')""#,
            "gzip",
            "`/app/bad\u{fffd}name` has a name that is no UTF-8; a directory target knows the files of an archive by text",
            "exclude",
        ),
        // As long as the limit: the header of the file does not fit.
        ("mkdir out; truncate -s 256M out/zeros", "gzip", zeros, "exclude"),
        ("mkdir out; truncate -s 256M out/zeros", "zstd", zeros, "compression = \"gzip\""),
    ] {
        let project = format!(
            "format = 1\ncomponent = \"a\"\n[build]\nrun = {run:?}\n[artefact]\nkind = \"archive\"\n\
             compression = \"{compression}\"\nfiles = [{{ from = \"out\", to = \"/app\" }}]\n"
        );
        let repo = Repo::with(&project, &[("a", "a")]).committed();
        let refused = build(repo.source(), host_with_toolchains()).map(drop).unwrap_err();
        assert!(refused.to_string().ends_with(problem), "{refused}");
        assert!(refused.hint().is_some_and(|told| told.contains(hint)), "{refused}");
        assert_eq!(refused.blame(), Blame::Caller);
    }
}

#[test]
fn a_file_that_changes_while_it_is_packaged_is_refused() {
    let changes: [fn(&Path); 4] = [
        |path| fs::write(path, "other length").unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| {
            // Another file of the same length.
            fs::rename(path, path.with_extension("old")).unwrap();
            fs::write(path, "a").unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/hosts", path).unwrap();
        },
    ];
    for change in changes {
        let (dir, into) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        write(dir.path(), "a", 0o644);
        let definition = definition("files = [{ from = \"a\", to = \"/a\" }]");
        let files = collect::collect(dir.path(), &definition.artefact).unwrap();
        change(&dir.path().join("a"));
        let error = pack(&files, &definition, into.path()).unwrap_err();
        assert!(error.to_string().contains("/a"), "{error}");
    }
}

#[test]
fn provenance_names_what_was_used_and_nobody() {
    let done = image().built();
    let text = done.built.claims[0].predicate.to_string();
    for private in ["ada@example.org", "Ada", done.work.path().to_str().unwrap(), "/usr/bin"] {
        assert!(!text.contains(private), "{private}");
    }
    let provenance = &done.built.claims[0].predicate;
    let definition = &provenance["buildDefinition"];
    assert_eq!(definition["internalParameters"]["caches"], serde_json::json!([]));
    assert_eq!(definition["externalParameters"]["definition"]["artefact"]["kind"], "image");
    let names: Vec<_> =
        definition["resolvedDependencies"].as_array().unwrap().iter().map(|d| &d["name"]).collect();
    assert_eq!(names, ["source", "semel"]);
    let commit = &definition["resolvedDependencies"][0]["digest"]["gitCommit"];
    assert_eq!(done.manifest()["annotations"]["org.opencontainers.image.revision"], *commit);
    assert_eq!(provenance["runDetails"]["metadata"]["startedOn"], "2027-01-15T08:00:00Z");
}

#[test]
fn provenance_names_lock_files_platform_and_the_tools_that_were_there() {
    let project = PLAIN.replace("[artefact]", "[build]\nrun = \"true\"\n\n[artefact]");
    let files = [("start", "#!/bin/sh\n"), ("web/package-lock.json", "{}")];
    let done = Repo::with(&project, &files).executable("start").committed().built();
    let provenance = &done.built.claims[0].predicate;
    let used = provenance["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let lock = used.iter().find(|one| one["name"] == "web/package-lock.json").unwrap();
    // `git hash-object` of `{}`.
    assert_eq!(lock["digest"]["gitBlob"], "9e26dfeeb6e641a33dae4961196235bdb965b21b");
    assert_eq!(provenance["buildDefinition"]["internalParameters"]["platform"], "linux/amd64");
    let made = provenance["runDetails"]["byproducts"].as_array().unwrap();
    let tools = made.iter().find(|one| one["name"] == "toolchain").unwrap();
    assert!(tools["annotations"]["gcc"].as_str().unwrap().starts_with("gcc "), "{tools}");
    follows_slsa(provenance);
}

/// The rules of SLSA 1.2, "Build: Provenance", "Schema" and "Parsing rules".
fn follows_slsa(provenance: &Value) {
    let (definition, details) = (&provenance["buildDefinition"], &provenance["runDetails"]);
    for uri in [&definition["buildType"], &details["builder"]["id"]] {
        assert!(uri.as_str().unwrap().starts_with("https://"), "{uri}");
    }
    assert!(definition["externalParameters"].is_object());
    for time in ["startedOn", "finishedOn"] {
        let time = details["metadata"][time].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
    for list in [&definition["resolvedDependencies"], &details["byproducts"]] {
        for one in list.as_array().unwrap() {
            let known = ["uri", "digest", "name", "downloadLocation", "mediaType", "content", "annotations"];
            assert!(one.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{one}");
            assert!(["uri", "digest", "content"].iter().any(|key| !one[key].is_null()), "{one}");
        }
    }
    for (object, known) in [
        (provenance, &["buildDefinition", "runDetails"][..]),
        (definition, &["buildType", "externalParameters", "internalParameters", "resolvedDependencies"]),
        (details, &["builder", "metadata", "byproducts"]),
        (&details["builder"], &["id", "version", "builderDependencies"]),
        (&details["metadata"], &["invocationId", "startedOn", "finishedOn"]),
    ] {
        // Fields of one's own have the name of their vendor and an underscore; there are none.
        assert!(object.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{object}");
    }
}

#[test]
fn a_missing_output_fails_the_build_with_a_hint() {
    let repo =
        Repo::with(&PLAIN.replace("from = \"start\"", "from = \"begin\""), &[("start", "")]).committed();
    let error = repo.build().err().unwrap();
    assert!(matches!(error, BuildError::Collect(_)) && error.hint().is_some(), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_bytes_do_not_depend_on_order_place_permissions_or_time(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[a-d]{1,3}){0,3}\\.f", (any::<bool>(), "[ -~]{0,300}"), 1..12),
    ) {
        let definition = definition("files = [{ from = \".\", to = \"/srv\" }]");
        let make = |reversed: bool, modes: [u32; 2]| {
            let (dir, into) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            let mut order: Vec<_> = files.iter().collect();
            if reversed {
                order.reverse();
            }
            for (path, (executable, text)) in order {
                write(dir.path(), path, 0o644);
                fs::write(dir.path().join(path), text).unwrap();
                let mode = fs::Permissions::from_mode(modes[usize::from(*executable)]);
                fs::set_permissions(dir.path().join(path), mode).unwrap();
            }
            let found = collect::collect(dir.path(), &definition.artefact).unwrap();
            pack(&found, &definition, into.path()).unwrap()
        };
        prop_assert_eq!(make(false, [0o644, 0o755]), make(true, [0o600, 0o700]));
    }
}

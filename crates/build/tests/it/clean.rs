//! The clean source tree: submodules, LFS, odd names, and repositories of every kind.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use semel_build::checkout::CheckoutError;
use semel_build::pipeline::BuildError;
use semel_build::snapshot;
use semel_model::digest::Digest;
use tempfile::TempDir;

use crate::support::{COMMITTED, PLAIN, Repo, build, git, host, lay_out, resolve_at, told};

fn url(repo: &Repo) -> String {
    format!("file://{}", repo.path().display())
}

fn submodule_of(repo: &Repo, inner: &Repo, path: &str) {
    repo.git(&["submodule", "add", "-q", "--name", "the-lib", &url(inner), path]);
    repo.commit("feat: submodule");
}

/// A project with a submodule, and a submodule in that.
fn nested() -> (Repo, Repo, Repo) {
    let deepest = Repo::with("", &[("deep", "deep\n")]).committed();
    let inner = Repo::with("", &[("lib.c", "int x;\n"), ("doc/a", "doc\n")]).executable("lib.c").committed();
    submodule_of(&inner, &deepest, "sub/deepest");
    let repo = Repo::plain();
    submodule_of(&repo, &inner, "vendor/lib");
    repo.git(&["submodule", "update", "-q", "--init", "--recursive"]);
    (repo, inner, deepest)
}

#[test]
fn submodules_are_laid_out_with_the_submodules_in_them() {
    let (repo, inner, _) = nested();
    repo.write("vendor/lib/lib.c", "changed in the working tree");
    let tree = repo.laid_out();
    assert_eq!(tree.read("vendor/lib/lib.c"), "int x;\n");
    assert_eq!(tree.read("vendor/lib/sub/deepest/deep"), "deep\n");
    let metadata = fs::metadata(tree.path("vendor/lib/lib.c")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o755, COMMITTED));
    assert!(!tree.path("vendor/lib/.git").exists());

    let before = repo.source();
    inner.write("lib.c", "int y;\n");
    inner.commit("fix: y");
    let newer = inner.git(&["rev-parse", "HEAD"]);
    git(&repo.path().join("vendor/lib"), &["fetch", "-q", &url(&inner), &newer]);
    git(&repo.path().join("vendor/lib"), &["checkout", "-q", "--force", &newer]);
    assert_eq!(repo.source().key(), before.key(), "nothing is committed");
    repo.commit("fix: newer lib");
    assert_ne!(repo.source().key(), before.key(), "the submodule's commit is part of the source tree");
    assert_eq!(repo.laid_out().read("vendor/lib/lib.c"), "int y;\n");
}

#[test]
fn a_submodule_is_found_wherever_its_commit_is() {
    let expected = |repo: &Path| {
        let source = resolve_at(repo, None, &[]).unwrap();
        assert_eq!(lay_out(&source).unwrap().read("vendor/lib/lib.c"), "int x;\n");
    };
    // In the repository that git keeps for it, when the working tree is gone.
    let (repo, inner, _deepest) = nested();
    fs::remove_dir_all(repo.path().join("vendor")).unwrap();
    expected(repo.path());

    // In a worktree of the project, which has none of its own.
    let beside = TempDir::new().unwrap();
    let worktree = beside.path().join("worktree");
    repo.git(&["worktree", "add", "-q", worktree.to_str().unwrap()]);
    expected(&worktree);

    // In a repository inside the working tree that git was not told of by name.
    let inner_commit = inner.git(&["rev-parse", "HEAD"]);
    let plain = Repo::plain();
    git(plain.path(), &["clone", "-q", "--recurse-submodules", &url(&inner), "vendor/lib"]);
    plain.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{inner_commit},vendor/lib")]);
    plain.git(&["commit", "-q", "-m", "feat: vendor"]);
    expected(plain.path());

    // Among the objects of the project itself, also borrowed ones.
    let bare = Repo::with("", &[("lib.c", "int x;\n")]).committed();
    let borrowing = Repo::plain();
    let objects = bare.path().join(".git/objects");
    fs::write(borrowing.path().join(".git/objects/info/alternates"), objects.as_os_str().as_bytes()).unwrap();
    let commit = bare.git(&["rev-parse", "HEAD"]);
    borrowing.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},vendor/lib")]);
    borrowing.git(&["commit", "-q", "-m", "feat: vendor"]);
    expected(borrowing.path());
}

#[test]
fn a_submodule_that_is_not_here_is_named_with_the_command_that_fetches_it() {
    let (repo, inner, deepest) = nested();
    let clone = TempDir::new().unwrap();
    git(clone.path(), &["clone", "-q", &url(&repo), "."]);
    for (missing, of, done) in [("vendor/lib", &inner, true), ("vendor/lib/sub/deepest", &deepest, false)] {
        let error = lay_out(&resolve_at(clone.path(), None, &[]).unwrap()).err().unwrap();
        let commit = of.git(&["rev-parse", "HEAD"]);
        let expected = format!("the submodule `{missing}` is at commit {commit}, which is not here");
        assert_eq!(error.to_string(), expected);
        let hint = format!("git submodule update --init --recursive \"{missing}\"");
        assert_eq!(error.hint(), Some(hint));
        if done {
            git(clone.path(), &["submodule", "update", "-q", "--init", missing]);
        }
    }
}

#[test]
fn include_and_exclude_reach_into_a_submodule() {
    let (repo, ..) = nested();
    for (spec, expected) in [
        (
            "exclude = [\"vendor/lib/doc\", \"start\", \".gitmodules\"]",
            &[
                "/vendor/lib",
                "/vendor/lib/.gitmodules",
                "/vendor/lib/lib.c",
                "/vendor/lib/semel.toml",
                "/vendor/lib/sub/deepest",
                "/vendor/lib/sub/deepest/deep",
                "/vendor/lib/sub/deepest/semel.toml",
            ][..],
        ),
        ("include = [\"vendor/lib/doc\"]", &["/vendor/lib", "/vendor/lib/doc/a"]),
        ("exclude = [\"vendor\", \".gitmodules\"]", &["/start"]),
    ] {
        repo.write("semel.toml", &format!("{PLAIN}\n[source]\n{spec}\n"));
        repo.commit("fix: spec");
        let paths: Vec<_> = repo.laid_out().laid.files.iter().map(|file| file.shown()).collect();
        assert_eq!(paths, expected, "{spec}");
    }
}

#[test]
fn a_submodule_cannot_lead_out_of_the_repository() {
    let secret = Repo::with("", &[("secret", "x")]).committed();
    let commit = secret.git(&["rev-parse", "HEAD"]);
    for name in ["../../../elsewhere", "/elsewhere", ".."] {
        let repo = Repo::plain();
        repo.write(".gitmodules", &format!("[submodule \"{name}\"]\n\tpath = lib\n\turl = x\n"));
        repo.git(&["add", ".gitmodules"]);
        repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lib")]);
        repo.git(&["commit", "-q", "-m", "feat: evil"]);
        let error = lay_out(&repo.source()).err().unwrap();
        assert!(matches!(error, CheckoutError::Submodule { .. }), "{error}");
    }
}

const ATTRIBUTES: &str = "*.bin filter=lfs diff=lfs merge=lfs -text\nplain.bin -filter\n";

fn pointer(content: &[u8]) -> (Digest, String) {
    let oid = Digest::of(content);
    let text = format!("version https://git-lfs.github.com/spec/v1\noid {oid}\nsize {}\n", content.len());
    (oid, text)
}

fn put(store: &Path, oid: &Digest, content: &[u8]) -> PathBuf {
    let dir = store.join("objects").join(&oid.hex()[..2]).join(&oid.hex()[2..4]);
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(oid.hex());
    fs::write(&file, content).unwrap();
    file
}

/// A project with two LFS files, one of them in a directory with attributes of its own, and pointers that are text.
fn with_lfs() -> (Repo, Digest, Digest) {
    let ((one, first), (two, second)) = (pointer(b"one\n"), pointer(&[7; 300_000]));
    let files = [
        ("start", "#!/bin/sh\n"),
        (".gitattributes", ATTRIBUTES),
        ("a.bin", first.as_str()),
        ("sub/b.dat", second.as_str()),
        ("sub/.gitattributes", "*.dat filter=lfs\n"),
        ("plain.bin", first.as_str()),
        ("doc/pointer.txt", first.as_str()),
        ("raw.bin", "never was a pointer"),
    ];
    (Repo::with(PLAIN, &files).executable("sub/b.dat").committed(), one, two)
}

#[test]
fn what_the_commit_gives_to_lfs_comes_from_the_local_store() {
    let (repo, one, two) = with_lfs();
    // What this host sets says nothing about the commit.
    fs::write(repo.path().join(".git/info/attributes"), "* filter=lfs\n").unwrap();
    repo.write(".gitattributes", "");
    put(&repo.path().join(".git/lfs"), &one, b"one\n");
    put(&repo.path().join(".git/lfs"), &two, &[7; 300_000]);
    let tree = repo.laid_out();
    assert_eq!(tree.read("a.bin"), "one\n");
    assert_eq!(fs::read(tree.path("sub/b.dat")).unwrap(), [7; 300_000]);
    let metadata = fs::metadata(tree.path("sub/b.dat")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o755, COMMITTED));
    assert_eq!(tree.read("plain.bin"), pointer(b"one\n").1);
    assert_eq!(tree.read("doc/pointer.txt"), pointer(b"one\n").1);
    assert_eq!(tree.read("raw.bin"), "never was a pointer");
    let sizes: u64 = tree.laid.bytes();
    assert!(sizes > 300_000 && sizes < 302_000, "{sizes}");
}

#[test]
fn the_store_of_lfs_may_be_elsewhere_borrowed_or_a_submodules() {
    let (repo, one, two) = with_lfs();
    let elsewhere = TempDir::new().unwrap();
    put(elsewhere.path(), &one, b"one\n");
    put(elsewhere.path(), &two, &[7; 300_000]);
    repo.git(&["config", "lfs.storage", elsewhere.path().to_str().unwrap()]);
    assert_eq!(repo.laid_out().read("a.bin"), "one\n");

    let clone = TempDir::new().unwrap();
    git(clone.path(), &["clone", "-q", "--shared", repo.path().to_str().unwrap(), "."]);
    let source = resolve_at(clone.path(), None, &[]).unwrap();
    assert!(matches!(lay_out(&source).err().unwrap(), CheckoutError::LfsMissing { .. }));
    put(&repo.path().join(".git/lfs"), &one, b"one\n");
    put(&repo.path().join(".git/lfs"), &two, &[7; 300_000]);
    assert_eq!(lay_out(&source).unwrap().read("a.bin"), "one\n");

    let above = Repo::plain();
    submodule_of(&above, &repo, "lib");
    put(&above.path().join(".git/modules/the-lib/lfs"), &one, b"one\n");
    put(&above.path().join(".git/modules/the-lib/lfs"), &two, &[7; 300_000]);
    assert_eq!(above.laid_out().read("lib/a.bin"), "one\n");
}

#[test]
fn contents_of_lfs_that_are_missing_or_damaged_are_listed_all_at_once() {
    let (repo, one, two) = with_lfs();
    let error = lay_out(&repo.source()).err().unwrap();
    let expected = format!(
        "the contents of 2 files are not here, but with Git LFS: `a.bin` (oid {}, 4 bytes), `sub/b.dat` (oid {}, 300000 bytes)",
        one.hex(),
        two.hex()
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().starts_with("git lfs pull"));

    put(&repo.path().join(".git/lfs"), &one, b"two\n");
    put(&repo.path().join(".git/lfs"), &two, &[7; 300_000]);
    let error = lay_out(&repo.source()).err().unwrap();
    let CheckoutError::LfsDamaged { files } = &error else { panic!("{error}") };
    assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a.bin"]);
}

#[test]
fn a_project_below_the_root_has_the_attributes_above_it() {
    let (oid, text) = pointer(b"content");
    let repo = Repo::with("", &[(".gitattributes", "*.bin filter=lfs\n")]);
    repo.write("services/web/semel.toml", PLAIN);
    repo.write("services/web/a.bin", &text);
    repo.commit("feat: web");
    put(&repo.path().join(".git/lfs"), &oid, b"content");
    let source = resolve_at(&repo.path().join("services/web"), None, &[]).unwrap();
    assert_eq!(lay_out(&source).unwrap().read("a.bin"), "content");
}

#[test]
fn paths_that_differ_only_in_case_are_noted_and_laid_out_here() {
    let repo = Repo::with(
        PLAIN,
        &[("start", "x"), ("Makefile", "1"), ("makefile", "2"), ("Doc/a", ""), ("doc/b", "")],
    );
    let tree = repo.committed().laid_out();
    assert_eq!((tree.read("Makefile"), tree.read("makefile")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(
        tree.laid.notes,
        [
            "`Doc` and `doc`, `Makefile` and `makefile` differ only in case: macOS and Windows users cannot check this out"
        ]
    );
}

#[test]
fn names_as_long_as_the_disk_allows_are_laid_out_and_longer_ones_are_named() {
    let repo = Repo::plain();
    let long = "n".repeat(255);
    let deep = format!("{}/{}", vec!["d".repeat(200); 10].join("/"), long);
    repo.write(&long, "long");
    repo.write(&deep, "deep");
    repo.commit("feat: long");
    let tree = repo.laid_out();
    assert_eq!((tree.read(&long), tree.read(&deep)), ("long".to_owned(), "deep".to_owned()));

    let blob = repo.git(&["rev-parse", &format!("HEAD:{long}")]);
    let longer = "n".repeat(256);
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{longer}")]);
    repo.git(&["commit", "-q", "-m", "feat: longer"]);
    let error = lay_out(&repo.source()).err().unwrap();
    assert!(told(&error).contains(&longer) && told(&error).contains("name too long"), "{}", told(&error));
}

#[test]
fn a_link_out_of_the_tree_is_source_and_never_artefact() {
    let project =
        PLAIN.replace("{ from = \"start\", to = \"/app/start\" }", "{ from = \"lib\", to = \"/lib\" }");
    let project = project.replace("entrypoint = [\"/app/start\"]\n", "");
    for target in ["../../etc/passwd", "/etc/passwd", "../../start"] {
        let repo = Repo::with(&project, &[("start", "x"), ("lib/file", "x")]);
        symlink(target, repo.path().join("lib/link")).unwrap();
        let repo = repo.committed();
        assert_eq!(fs::read_link(repo.laid_out().path("lib/link")).unwrap(), Path::new(target));
        let error = repo.build().err().unwrap();
        assert!(matches!(error, BuildError::Collect(_)), "{error}");
    }
}

#[test]
fn the_repository_may_be_of_any_kind() {
    let repo = Repo::plain();
    let key = repo.source().key();
    let place = TempDir::new().unwrap();
    let dir = |name: &str| place.path().join(name);
    let path = |name: &str| dir(name).to_str().unwrap().to_owned();
    git(place.path(), &["clone", "-q", "--bare", &url(&repo), "bare"]);
    git(place.path(), &["clone", "-q", "--shared", repo.path().to_str().unwrap(), "borrowing"]);
    repo.git(&["worktree", "add", "-q", &path("worktree")]);
    git(place.path(), &["clone", "-q", "--sparse", &url(&repo), "sparse"]);
    git(&dir("sparse"), &["sparse-checkout", "set", "--no-cone", "/nothing"]);
    for name in ["bare", "borrowing", "worktree", "sparse"] {
        let source = resolve_at(&dir(name), None, &[]).unwrap();
        assert_eq!(source.key(), key, "{name}");
        assert_eq!(lay_out(&source).unwrap().read("start"), "#!/bin/sh\n", "{name}");
    }
}

#[test]
fn a_repository_with_sha256_objects_is_built_from() {
    let dir = TempDir::new().unwrap();
    git(dir.path(), &["init", "-q", "-b", "main", "--object-format=sha256"]);
    let repo = Repo { dir };
    repo.write("semel.toml", PLAIN);
    repo.write("start", "#!/bin/sh\n");
    let repo = repo.executable("start");
    repo.write("a.bin", &pointer(b"content").1);
    repo.write(".gitattributes", ATTRIBUTES);
    repo.commit("feat: begin");
    put(&repo.path().join(".git/lfs"), &pointer(b"content").0, b"content");
    let source = repo.source();
    assert_eq!(source.commit.as_str().len(), 64);
    assert_eq!(lay_out(&source).unwrap().read("a.bin"), "content");
    build(source, host()).map(drop).unwrap();
}

#[test]
fn a_partial_clone_fetches_what_it_lacks_or_says_from_where_it_could_not() {
    let repo = Repo::plain();
    repo.write("lib/a", "a");
    repo.write("lib/b", "b");
    repo.commit("feat: lib");
    repo.git(&["config", "uploadpack.allowFilter", "true"]);
    repo.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let place = TempDir::new().unwrap();
    let clone = |name: &str| {
        git(place.path(), &["clone", "-q", "--no-checkout", "--filter=blob:none", &url(&repo), name]);
        place.path().join(name)
    };
    let near = resolve_at(&clone("near"), None, &[]).unwrap();
    assert_eq!(lay_out(&near).unwrap().read("lib/b"), "b");

    let far = clone("far");
    let source = resolve_at(&far, None, &[]).unwrap();
    let gone = place.path().join("gone");
    git(&far, &["remote", "set-url", "origin", gone.to_str().unwrap()]);
    let error = lay_out(&source).err().unwrap();
    let text = "the clone is partial, and the remote origin does not give it the content of `";
    assert!(error.to_string().starts_with(text) && error.to_string().ends_with(" and 2 others"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("git fetch --refetch --no-filter origin"));
}

#[test]
fn a_blob_that_a_repository_lost_is_named() {
    let repo = Repo::plain();
    let source = repo.source();
    let blob = repo.git(&["rev-parse", "HEAD:start"]);
    fs::remove_file(repo.path().join(".git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let error = lay_out(&source).err().unwrap();
    assert_eq!(error.to_string(), format!("the repository has no content for `start` (object {blob})"));
}

/// A source tree with everything that is special about one.
fn odd_project() -> (Repo, Repo) {
    let inner = Repo::with("", &[("lib.c", "int x;\n")]).executable("lib.c").committed();
    let (oid, text) = pointer(b"content");
    let files = [
        ("start", "#!/bin/sh\n"),
        (".gitattributes", "*.bin filter=lfs\n"),
        ("a.bin", text.as_str()),
        ("dir/.wh.name", "a name"),
        ("config/production.toml", "PLACE = \"hunter2\"\n"),
    ];
    let project = format!("{PLAIN}\n[environment.dev]\nvalues = \"config/production.toml\"\n");
    let repo = Repo::with(&project, &files).executable("start");
    put(&repo.path().join(".git/lfs"), &oid, b"content");
    repo.write(&format!("{}/x", "d".repeat(200)), "long");
    for name in [&b"\xff\xfe"[..], b"line\nbreak", b"-rf"] {
        fs::write(repo.path().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    for (name, target) in [("inside", "start"), ("outside", "/etc/passwd"), ("dir/up", "../../..")] {
        symlink(target, repo.path().join(name)).unwrap();
    }
    submodule_of(&repo, &inner, "vendor/lib");
    (repo, inner)
}

/// Path, kind with permissions, time and content of everything below a directory.
fn everything_below(dir: &Path) -> Vec<(Vec<u8>, u32, i64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            fs::read(&path).unwrap()
        };
        let name = path.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec();
        // The directory itself is the caller's.
        if !name.is_empty() {
            found.push((name, metadata.mode(), metadata.mtime(), content));
        }
    }
    found.sort();
    found
}

#[test]
fn a_source_snapshot_restores_what_was_laid_out_file_by_file() {
    let (repo, _inner) = odd_project();
    let source = repo.source();
    let laid = lay_out(&source).unwrap();
    let done = build(source.clone(), host()).unwrap();
    let manifest = done.json(done.built.snapshot.as_ref().unwrap());
    assert_eq!(manifest["artifactType"], "application/vnd.semel.source.v1");
    assert_eq!(manifest["subject"]["digest"], done.built.packaged.manifest.as_str());
    assert_eq!(manifest["annotations"]["dev.semel.source-tree"], source.source_tree().as_str());
    let layer: Digest = manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let file = done.built.layout_dir.join("blobs/sha256").join(layer.hex());
    let place = TempDir::new().unwrap();
    let restored = place.path().join("restored");
    snapshot::restore(&file, &restored).unwrap();
    assert_eq!(everything_below(&restored), everything_below(&laid.path("")));
    assert!(!restored.join("semel.toml").exists() && !restored.join("config").exists());
    assert!(snapshot::restore(&file, &restored).is_err(), "nothing is written over");

    let statement = done.built.claims[0].predicate.to_string();
    assert!(statement.contains(done.built.snapshot.as_ref().unwrap().hex()), "the provenance names it");
    assert_eq!(build(source, host()).unwrap().blob(&layer), done.blob(&layer));
}

#[test]
fn the_bytes_of_a_source_snapshot_are_frozen() {
    let done = Repo::plain().built();
    let snapshot = done.built.snapshot.as_ref().unwrap();
    let layer = done.json(snapshot)["layers"][0]["digest"].clone();
    assert_eq!(
        (layer.as_str().unwrap(), snapshot.as_str()),
        (
            "sha256:3a3d77a871bc01abb1505a5665f7ca2c34bae159c3800e95b38fad5fd3cd70b0",
            "sha256:656cdf314cd50cd26040edc490a612def09c4fd503bdbaf7e230f30a28cbb846"
        )
    );
}

#[test]
fn a_source_tree_is_kept_as_far_as_the_project_file_allows() {
    for (spec, kept, noted) in [
        ("snapshot = false", false, false),
        ("snapshot = \"5 B\"", false, true),
        ("snapshot = \"1 kB\"", true, false),
        ("", true, false),
    ] {
        let repo = Repo::with(&format!("{PLAIN}\n[source]\n{spec}\n"), &[("start", "#!/bin/sh\n")]);
        let done = repo.executable("start").committed().built();
        assert_eq!((done.built.snapshot.is_some(), !done.notes.is_empty()), (kept, noted), "{spec}");
    }
}

#[test]
fn a_snapshot_made_by_hand_cannot_write_outside() {
    let place = TempDir::new().unwrap();
    let outside = place.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let entry = |archive: &mut tar::Builder<Vec<u8>>, path: &str, kind, link: Option<&Path>| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_mtime(0);
        link.iter().for_each(|link| header.set_link_name(link).unwrap());
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    };
    let cases: [&[(&str, tar::EntryType, Option<&Path>)]; 4] = [
        &[("../evil", tar::EntryType::Regular, None)],
        &[(".git/config", tar::EntryType::Regular, None)],
        &[("out", tar::EntryType::Symlink, Some(&outside)), ("out/evil", tar::EntryType::Regular, None)],
        &[("device", tar::EntryType::Char, None)],
    ];
    for (n, case) in cases.into_iter().enumerate() {
        let mut archive = tar::Builder::new(Vec::new());
        case.iter().for_each(|(path, kind, link)| entry(&mut archive, path, *kind, *link));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &archive.into_inner().unwrap()).unwrap();
        let file = place.path().join(format!("{n}.tar.gz"));
        fs::write(&file, gzip.finish().unwrap()).unwrap();
        assert!(snapshot::restore(&file, &place.path().join(n.to_string())).is_err(), "{n}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{n}");
        assert!(!place.path().join("evil").exists());
    }
}

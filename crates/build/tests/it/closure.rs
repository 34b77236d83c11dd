//! Whether artefacts have inside what they need: real programs, crafted ones, scripts, Python and Node trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use semel_build::closure::{self, Question, Report, Rule, Severity, SmokeOutcome};
use semel_build::collect;
use semel_build::pipeline::{self, Blame, BuildRequest, Quiet};
use semel_build::rootfs::Rootfs;
use semel_model::platform::Platform;
use semel_model::project::{Definition, Project};
use tempfile::TempDir;

use crate::support::{Repo, has_all, request, runtime};

/// A tree that is to be an artefact, with the definition of it.
struct Tree {
    dir: TempDir,
    artefact: String,
    environment: Vec<String>,
    architecture: &'static str,
}

impl Tree {
    /// An image whose files are the tree.
    fn image(artefact: &str) -> Self {
        Self::of("image", artefact)
    }

    /// An archive whose files are the tree.
    fn archive(artefact: &str) -> Self {
        Self::of("archive", artefact)
    }

    fn of(kind: &str, artefact: &str) -> Self {
        let artefact = format!("kind = \"{kind}\"\nfiles = [{{ from = \".\", to = \"/\" }}]\n{artefact}");
        Self { dir: TempDir::new().unwrap(), artefact, environment: Vec::new(), architecture: "amd64" }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(path), bytes).unwrap();
        self
    }

    fn executable(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        let this = self.file(path, bytes);
        fs::set_permissions(this.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        this
    }

    fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.path(path)).unwrap();
        self
    }

    /// Compiles C into the tree. `{}` among the words stands for the top of the tree.
    fn compiled(self, to: &str, source: &str, words: &[&str]) -> Self {
        self.with("gcc", to, source, words)
    }

    fn with(self, compiler: &str, to: &str, source: &str, words: &[&str]) -> Self {
        let scratch = TempDir::new().unwrap();
        let file = scratch.path().join("source.c");
        fs::write(&file, source).unwrap();
        let top = self.dir.path().to_string_lossy().into_owned();
        let words = words.iter().map(|word| word.replace("{}", &top));
        let output =
            Command::new(compiler).arg("-o").arg(self.path(to)).arg(&file).args(words).output().unwrap();
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
        self
    }

    /// Takes files of this machine along, under the same paths.
    fn taking(self, paths: &[&str]) -> Self {
        for path in paths {
            fs::copy(path, self.path(path)).unwrap();
        }
        self
    }

    fn without(self, path: &str) -> Self {
        fs::remove_file(self.path(path)).unwrap();
        self
    }

    fn check(&self) -> Report {
        let definition = definition(&self.artefact);
        let files = collect::collect(self.dir.path(), &definition.artefact).unwrap();
        let platform: Platform = format!("linux/{}", self.architecture).parse().unwrap();
        closure::check(&Question {
            rootfs: &Rootfs::new(&files, None),
            kind: definition.artefact.kind,
            platform: &platform,
            start: &definition.artefact.entrypoint,
            environment: &self.environment,
            needs: &definition.artefact.needs,
            smoke: &definition.artefact.smoke,
            closure: &definition.artefact.closure,
            runtime: definition.artefact.runtime(),
            handler: definition.artefact.handler.as_deref(),
            packed_bytes: 0,
        })
        .unwrap()
    }

    /// `severity: path explanation (reached by …)` of each finding.
    fn found(&self) -> Vec<String> {
        self.check().findings.iter().map(shown).collect()
    }
}

fn shown(finding: &closure::Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
    };
    format!("{severity}: {finding}")
}

fn definition(artefact: &str) -> Definition {
    let text = format!("format = 1\ncomponent = \"a\"\n[artefact]\n{artefact}");
    Project::parse("semel.toml", &text).unwrap().definition
}

const NONE: [&str; 0] = [];
const MAIN: &str = "extern int own(void); int main(void) { return own(); }";
const OWN: &str = "int own(void) { return 0; }";

/// The loader and the C library of this machine, as a Debian system has them.
const GLIBC: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"];

#[test]
fn what_starts_the_artefact_is_in_it_and_can_be_executed() {
    let tree = |kind: &str, start: &str| {
        Tree::of(kind, &format!("entrypoint = {start}"))
            .executable("app/program", "")
            .file("app/text", "")
            .link("app/link", "program")
            .link("app/circle", "circle")
    };
    let cases = [
        ("archive", "[\"/app/program\"]", None),
        ("archive", "[\"/app/link\"]", None),
        ("archive", "[\"/bin/sh\", \"/app/program\"]", None),
        ("archive", "[\"/app/missing\"]", Some("/app/missing is not among the files of the artefact")),
        ("archive", "[\"/app/circle\"]", Some("/app/circle is not among the files of the artefact")),
        ("archive", "[\"/app/text\"]", Some("/app/text is not executable")),
        ("archive", "[\"/app\"]", Some("/app is not a file")),
        ("archive", "[\"bin/x\"]", Some("bin/x is neither an absolute path nor a bare word")),
        ("archive", "[\"node\"]", Some("node is looked up on the host, so `needs` must name it")),
        ("archive", "[\"node\"]\nneeds = [\"node >= 20\"]", None),
        ("image", "[\"/bin/sh\"]", Some("/bin/sh is not among the files of the artefact")),
        ("image", "[\"program\"]", Some("program is on no directory of the artefact's PATH")),
    ];
    for (kind, start, problem) in cases {
        let expected: Vec<String> = problem.iter().map(|problem| format!("error: {problem}")).collect();
        assert_eq!(tree(kind, start).found(), expected, "{kind} {start}");
    }
    let mut on_path = tree("image", "[\"program\"]");
    on_path.environment = vec!["PATH=/usr/bin:/app".to_owned()];
    assert_eq!(on_path.found(), NONE);
}

#[test]
fn a_library_that_was_left_out_is_named_with_its_user_and_the_way_to_it() {
    if !has_all(&["gcc"]) {
        return;
    }
    let tree = Tree::image("entrypoint = [\"/app/main\"]")
        .taking(&GLIBC)
        .compiled(
            "usr/lib/libdeep.so.1",
            "int deep(void) { return 0; }",
            &["-shared", "-Wl,-soname,libdeep.so.1"],
        )
        .compiled(
            "usr/lib/libown.so.1",
            "extern int deep(void); int own(void) { return deep(); }",
            &["-shared", "-Wl,-soname,libown.so.1", "{}/usr/lib/libdeep.so.1"],
        )
        .compiled("app/main", MAIN, &["{}/usr/lib/libown.so.1", "-Wl,--allow-shlib-undefined"]);
    assert_eq!(tree.found(), NONE);
    let report = tree.check();
    assert_eq!((report.objects, report.is_complete()), (5, true));

    let tree = tree.without("usr/lib/libdeep.so.1");
    assert_eq!(
        tree.found(),
        [
            "error: /usr/lib/libown.so.1 needs libdeep.so.1, which is not in the artefact (reached by /app/main)"
        ]
    );
    assert!(tree.check().findings[0].fix.contains("ignore = [{ name = \"libdeep.so.1\", reason = \"…\" }]"));
    let mut ignored = tree;
    ignored.artefact += "\nclosure = { ignore = [{ name = \"libdeep.so.1\", reason = \"never called\" }] }";
    assert_eq!(ignored.found(), NONE);
}

#[test]
fn libraries_are_found_where_the_program_says() {
    if !has_all(&["gcc"]) {
        return;
    }
    let shared = ["-shared", "-Wl,-soname,libown.so.1"];
    let tree = |place: &str, words: &[&str]| {
        let library = format!("{{}}/{place}/libown.so.1");
        let words: Vec<&str> = [library.as_str()].into_iter().chain(words.iter().copied()).collect();
        Tree::image("entrypoint = [\"/app/bin/main\"]")
            .taking(&GLIBC)
            .compiled(&format!("{place}/libown.so.1"), OWN, &shared)
            .compiled("app/bin/main", MAIN, &words)
    };
    let elsewhere = "error: /app/bin/main needs libown.so.1; /app/lib/libown.so.1 has that name, but the loader does not look there";
    assert_eq!(tree("app/lib", &[]).found(), [elsewhere]);
    for words in [
        ["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--enable-new-dtags"],
        ["-Wl,-rpath,$ORIGIN/../lib", "-Wl,--disable-new-dtags"],
        ["-Wl,-rpath,/nowhere:/app/lib", "-Wl,--enable-new-dtags"],
    ] {
        assert_eq!(tree("app/lib", &words).found(), NONE, "{words:?}");
    }
    assert_eq!(tree("app/lib64", &["-Wl,-rpath,/app/$LIB"]).found(), NONE);
    assert_eq!(tree("usr/lib/x86_64-linux-gnu", &[]).found(), NONE);
    let configured = tree("app/lib", &[])
        .file("etc/ld.so.conf", "# comment\ninclude /etc/ld.so.conf.d/*.conf\n")
        .file("etc/ld.so.conf.d/app.conf", "/app/lib # here\n");
    assert_eq!(configured.found(), NONE);
    let mut by_variable = tree("app/lib", &[]);
    by_variable.environment = vec!["LD_LIBRARY_PATH=/x:/app/lib".to_owned()];
    assert_eq!(by_variable.found(), NONE);
    let through_links = tree("app/lib", &["-Wl,-rpath,/opt/lib"]).link("opt", "/app");
    assert_eq!(through_links.found(), NONE);
}

#[test]
fn a_c_library_that_is_too_old_is_told_with_both_versions() {
    if !has_all(&["gcc"]) {
        return;
    }
    // Both libraries define symbols of a version; the program was linked with the newer one.
    let script = TempDir::new().unwrap();
    let version = |text: &str| {
        let file = script.path().join("map");
        fs::write(&file, text).unwrap();
        format!("-Wl,--version-script={}", file.display())
    };
    let shared = ["-shared", "-nostdlib", "-Wl,-soname,libc.so.6"];
    let newer = version("GLIBC_2.2.5 { local: *; }; GLIBC_2.99 { global: own; } GLIBC_2.2.5;");
    let tree = Tree::image("entrypoint = [\"/main\"]").compiled(
        "usr/lib/libc.so.6",
        OWN,
        &[&shared[..], &[&newer]].concat(),
    );
    let linked = ["-nostdlib", "-Wl,-e,main", "{}/usr/lib/libc.so.6"];
    let tree = tree.compiled("main", MAIN, &linked).taking(&GLIBC[..1]);
    assert_eq!(tree.found(), NONE);
    assert_eq!(tree.check().glibc.as_deref(), Some("2.99"));
    let older = version("GLIBC_2.2.5 { global: own; }; GLIBC_2.36 { } GLIBC_2.2.5;");
    let tree = tree.compiled("usr/lib/libc.so.6", OWN, &[&shared[..], &[&older]].concat());
    assert_eq!(
        tree.found(),
        ["error: /main needs GLIBC_2.99 of libc.so.6, and /usr/lib/libc.so.6 has GLIBC_2.36 at most"]
    );
}

#[test]
fn the_loader_of_a_program_is_inside() {
    if !has_all(&["gcc", "musl-gcc"]) {
        return;
    }
    let tree = Tree::image("entrypoint = [\"/main\"]").compiled("main", "int main(void) { return 0; }", &[]);
    assert_eq!(
        tree.found(),
        [
            "error: /main is started by the loader /lib64/ld-linux-x86-64.so.2, which is not in the artefact",
            "error: /main needs libc.so.6, which is not in the artefact"
        ]
    );
    let fixed = Tree::image("entrypoint = [\"/main\"]").with(
        "musl-gcc",
        "main",
        "int main(void) { return 0; }",
        &["-static"],
    );
    assert_eq!((fixed.found(), fixed.check().objects), (Vec::new(), 1));
    let musl =
        Tree::image("entrypoint = [\"/main\"]").with("musl-gcc", "main", "int main(void) { return 0; }", &[]);
    assert_eq!(
        musl.found(),
        ["error: /main is started by the loader /lib/ld-musl-x86_64.so.1, which is not in the artefact"]
    );
    let loader = fs::canonicalize("/lib/ld-musl-x86_64.so.1").unwrap();
    let musl = musl.executable("lib/ld-musl-x86_64.so.1", fs::read(loader).unwrap());
    assert_eq!(musl.found(), NONE);
}

#[test]
fn only_what_is_loaded_from_the_start_must_be_complete() {
    if !has_all(&["gcc"]) {
        return;
    }
    let shared = ["-shared", "-Wl,-soname,libown.so.1"];
    let tree = Tree::image("entrypoint = [\"/bin/start\"]")
        .executable("bin/start", "")
        .taking(&GLIBC)
        .compiled("libown.so.1", OWN, &shared)
        .compiled("plugins/one.so", MAIN, &["-shared", "-fPIC", "{}/libown.so.1"]);
    assert_eq!(
        tree.found(),
        [
            "notice: /plugins/one.so needs libown.so.1; /libown.so.1 has that name, but the loader does not look there"
        ]
    );
    let mut tree = tree.without("libown.so.1");
    assert_eq!(tree.found(), ["warning: /plugins/one.so needs libown.so.1, which is not in the artefact"]);
    tree.artefact += "\nclosure = { roots = [\"/plugins\"] }";
    assert_eq!(
        tree.found(),
        [
            "error: /plugins/one.so needs libown.so.1, which is not in the artefact (reached by closure.roots /plugins)"
        ]
    );
    tree.artefact = tree.artefact.replace("/plugins", "/nothing");
    assert_eq!(
        tree.found()[0],
        "error: /nothing is not among the files of the artefact (reached by closure.roots /nothing)"
    );
}

#[test]
fn objects_for_another_machine_are_told() {
    if !has_all(&["gcc"]) {
        return;
    }
    let mut tree = Tree::image("entrypoint = [\"/main\"]").compiled(
        "main",
        "int main(void) { return 0; }",
        &["-static"],
    );
    let mut bytes = fs::read(tree.path("main")).unwrap();
    // e_machine, gABI chapter 4: 183 is AArch64.
    bytes[18..20].copy_from_slice(&183u16.to_le_bytes());
    let foreign = Tree::image("entrypoint = [\"/main\"]").executable("main", &bytes);
    assert_eq!(foreign.found(), ["error: /main is made for aarch64, and the artefact for linux/amd64"]);
    tree.architecture = "arm64";
    assert_eq!(tree.found(), ["error: /main is made for x86_64, and the artefact for linux/arm64"]);
    let aside =
        Tree::image("entrypoint = [\"/start\"]").executable("start", "").file("testdata/main", &bytes);
    assert_eq!(
        aside.found(),
        ["notice: /testdata/main is made for aarch64, and the artefact for linux/amd64"]
    );
    let mac = Tree::image("entrypoint = [\"/main\"]").executable("main", b"\xcf\xfa\xed\xfe");
    assert_eq!(mac.found(), ["error: /main is made for macOS, and the artefact for linux/amd64"]);
    let cut = Tree::image("entrypoint = [\"/main\"]").executable("main", &bytes[..100]);
    assert_eq!(cut.check().findings[0].rule, Rule::Object);
}

#[test]
fn scripts_are_run_by_programs_that_are_inside() {
    let tree = |line: &str| {
        Tree::image("entrypoint = [\"/run\"]")
            .executable("run", line)
            .executable("usr/bin/env", "")
            .executable("usr/bin/node", "")
            .executable("usr/bin/wrapped", "#!/usr/bin/missing\n")
    };
    let wrapped = "error: /usr/bin/wrapped is run by /usr/bin/missing, which is not in the artefact, or cannot be executed";
    let warned = wrapped.replace("error", "warning");
    let cases = [
        ("#!/usr/bin/node\n", None),
        ("#! /usr/bin/env node\n", None),
        ("#!/usr/bin/env -S A=1 node --flag\n", None),
        (
            "#!/bin/sh\n",
            Some("error: /run is run by /bin/sh, which is not in the artefact, or cannot be executed"),
        ),
        (
            "#!/usr/bin/env python3\n",
            Some("error: /run is run by python3, which is not in the artefact, or cannot be executed"),
        ),
        ("#!node\n", Some("error: /run has a first line that names `node`, which is no absolute path")),
        (
            "#!/usr/bin/node\r\n",
            Some(
                "error: /run has a first line that ends with CR LF, so the kernel looks for a program whose name ends with CR",
            ),
        ),
    ];
    for (line, problem) in cases {
        let expected: Vec<String> =
            problem.iter().map(|text| (*text).to_owned()).chain([warned.clone()]).collect();
        assert_eq!(tree(line).found(), expected, "{line:?}");
    }
    assert_eq!(tree("#!/usr/bin/wrapped\n").found(), [format!("{wrapped} (reached by /run)")]);
}

#[test]
fn a_script_that_was_installed_for_another_place_is_told_where_its_program_is() {
    let tree = |start: &str| {
        Tree::image(start)
            .executable("app/venv/bin/serve", "#!/build/venv/bin/python3\n")
            .executable("app/venv/bin/python3", "")
            .executable("usr/bin/python3", "")
    };
    let report = tree("entrypoint = [\"/app/venv/bin/serve\"]").check();
    let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
    assert_eq!(
        shown(finding),
        "error: /app/venv/bin/serve is run by /build/venv/bin/python3, which is not in the artefact; /app/venv/bin/python3 is"
    );
    assert_eq!(
        finding.fix,
        "begin it with #!/app/venv/bin/python3, or start it as an argument of /app/venv/bin/python3"
    );
    // As an argument of its interpreter it is read, and its first line is a comment.
    for start in [
        "entrypoint = [\"/usr/bin/python3\", \"/app/venv/bin/serve\"]",
        "entrypoint = [\"python3\", \"/app/venv/bin/serve\"]",
    ] {
        assert_eq!(tree(start).check().findings[0].severity, Severity::Warning, "{start}");
    }
    let wrapped = tree("entrypoint = [\"/init\", \"/app/venv/bin/serve\"]").executable("init", "");
    assert_eq!(wrapped.check().findings[0].severity, Severity::Error, "another program executes it");

    for (line, problem) in [
        ("#!/usr/bin/python3\n", None),
        ("#!/usr/bin/env python3\n", None),
        (
            "#!/build/venv/bin/python3\n",
            Some("error: /app/bin/serve is run by /build/venv/bin/python3, a place that no other host has"),
        ),
    ] {
        let start = "entrypoint = [\"/app/bin/serve\"]\nneeds = [\"python3\"]";
        let tree = Tree::archive(start).executable("app/bin/serve", line);
        let expected: Vec<String> = problem.map(str::to_owned).into_iter().collect();
        assert_eq!(tree.found(), expected, "{line:?}");
    }
}

#[test]
fn an_archive_says_what_it_takes_from_its_host() {
    if !has_all(&["gcc"]) {
        return;
    }
    let shared = ["-shared", "-Wl,-soname,libown.so.1"];
    let tree = Tree::archive("entrypoint = [\"/app/run\"]\nneeds = [\"python3 >= 3.11\"]")
        .executable("app/run", "#!/bin/sh\n")
        .executable("app/tool", "#!/usr/bin/env python3\n")
        .compiled("app/libown.so.1", OWN, &shared)
        .compiled("app/main", MAIN, &["{}/app/libown.so.1", "-Wl,-rpath,$ORIGIN"]);
    let report = tree.check();
    assert_eq!(report.findings, []);
    let host: Vec<&str> = report.host.iter().map(|need| need.name.as_str()).collect();
    assert_eq!(host, ["/lib64/ld-linux-x86-64.so.2", "libc.so.6", "sh"]);
    assert!(report.host[1].version.as_ref().unwrap().starts_with("GLIBC_2."), "{report:?}");

    let mut lacking = tree.without("app/libown.so.1");
    lacking.artefact = lacking.artefact.replace("/app/run", "/app/main").replace("python3 >= 3.11", "node");
    assert_eq!(
        lacking.found(),
        [
            "error: /app/main needs libown.so.1, which is not in the artefact",
            "warning: /app/tool is run by python3, which the artefact does not say that its host must have"
        ]
    );
}

/// An installed Python distribution.
fn installed(tree: Tree, site: &str, name: &str, version: &str, more: &str, tag: &str) -> Tree {
    let dir = format!("{site}/{}-{version}.dist-info", name.replace('-', "_"));
    tree.file(
        &format!("{dir}/METADATA"),
        format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}\nRequires-Dist: text\n"),
    )
    .file(&format!("{dir}/WHEEL"), format!("Wheel-Version: 1.0\nTag: {tag}\n"))
}

#[test]
fn python_distributions_have_what_they_require() {
    let site = "app/lib/python3.11/site-packages";
    let tree = |requires: &str| {
        let tree = installed(
            Tree::image(""),
            site,
            "My.App",
            "1.0",
            &format!("Requires-Dist: {requires}\n"),
            "py3-none-any",
        );
        let tree = installed(
            tree,
            site,
            "Requests",
            "2.31.0",
            "Requires-Dist: PySocks; extra == 'socks'\n",
            "py3-none-any",
        );
        installed(tree, site, "typing_extensions", "4.8.0", "", "py3-none-any")
    };
    let at = "error: /app/lib/python3.11/site-packages/My.App-1.0.dist-info/METADATA";
    let cases = [
        ("requests (>=2.0,<3)", None),
        ("Typing.Extensions ~= 4.8", None),
        ("tomli; python_version < '3.11'", None),
        ("colorama; sys_platform == 'win32'", None),
        ("pytest; extra == 'test'", None),
        ("tomli; python_version >= '3.11'", Some(format!("{at} requires tomli, which is not in the artefact"))),
        ("requests>=2.32", Some(format!("{at} requires requests >=2.32, and the artefact has 2.31.0"))),
        (
            "requests[socks]",
            Some("error: /app/lib/python3.11/site-packages/Requests-2.31.0.dist-info/METADATA requires pysocks, which is not in the artefact".to_owned()),
        ),
    ];
    for (requires, problem) in cases {
        assert_eq!(tree(requires).found(), Vec::from_iter(problem), "{requires}");
    }
}

#[test]
fn a_distribution_may_carry_another_version_inside_it() {
    let site = "app/lib/python3.11/site-packages";
    let tree =
        installed(Tree::image(""), site, "app", "1.0", "Requires-Dist: packaging >= 24\n", "py3-none-any");
    let tree =
        installed(tree, &format!("{site}/setuptools/_vendor"), "packaging", "21.0", "", "py3-none-any");
    assert_eq!(tree.check().findings.len(), 1);
    let tree = installed(tree, site, "packaging", "24.1", "", "py3-none-any");
    assert_eq!(tree.found(), NONE);
}

#[test]
fn python_wheels_are_for_the_platform() {
    let site = "app/lib/python3.11/site-packages";
    let wheel = |tag: &str| installed(Tree::image(""), site, "numpy", "1.26", "", tag);
    assert_eq!(wheel("cp311-cp311-manylinux_2_17_x86_64").found(), NONE);
    assert_eq!(
        wheel("cp311-cp311-macosx_11_0_arm64").found(),
        [
            "error: /app/lib/python3.11/site-packages/numpy-1.26.dist-info/WHEEL is of a wheel for cp311-cp311-macosx_11_0_arm64, and the artefact is for linux/amd64 and Python 3.11"
        ]
    );
    assert_eq!(wheel("cp312-cp312-manylinux_2_17_x86_64").check().findings[0].rule, Rule::PythonPlatform);
}

/// A zip for a version of Python, with a handler and an extension module that is made for this machine's C library.
fn function(python: &str) -> Tree {
    let threads = "#include <pthread.h>\nint go(void) { return pthread_create(0, 0, 0, 0); }\n";
    let module = format!("lib.cpython-{}-x86_64-linux-gnu.so", python.replace('.', ""));
    Tree::of("zip", &format!("runtime = \"python{python}\"\nhandler = \"app.handler\"\n"))
        .file("app.py", "def handler(event, context): pass\n")
        .compiled(&module, threads, &["-shared", "-fPIC"])
}

#[test]
fn an_extension_module_needs_no_newer_c_library_than_its_runtime_has() {
    if !has_all(&["gcc"]) || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let fits = function("3.12");
    // Since 2.34 threads are in libc itself; before, they were elsewhere.
    let needs = fits.check().glibc.is_some_and(|version| version == "2.34");
    assert_eq!(fits.found(), NONE);
    if needs {
        assert_eq!(
            function("3.11").found(),
            [
                "error: /lib.cpython-311-x86_64-linux-gnu.so needs GLIBC_2.34 of libc.so.6, and the runtime python3.11 has GLIBC_2.26 at most (reached by Python 3.11)"
            ]
        );
    }
}

#[test]
fn a_handler_is_taken_apart_as_its_runtime_does() {
    let no = |place: &str| vec![format!("error: {place}")];
    for (runtime, handler, file, text, expected) in [
        ("python3.12", "src/app.go", "src/app.py", "def go(a, b): pass", vec![]),
        ("python3.12", "src.app.go", "src/app/__init__.py", "go = 1", vec![]),
        ("python3.12", "app.go", "app.cpython-312-x86_64-linux-gnu.so", "", vec![]),
        ("python3.12", "go", "go.py", "", no("go names no function")),
        ("nodejs22.x", "src/app.go", "src/app.mjs", "export function go() {}", vec![]),
        ("nodejs22.x", "app.api.go", "app.js", "exports.api = {}", vec![]),
        (
            "nodejs22.x",
            "app.go",
            "app.js",
            "exports.run = 1",
            no("app.go is not seen in /app.js, which defines no go"),
        ),
        ("ruby3.4", "app.App::Handler.process", "app.rb", "module App\nend", vec![]),
        ("java21", "com.example.App::go", "com/example/App.class", "", vec![]),
        (
            "python3.12",
            "app.go",
            "app.py",
            "def main():\n    go = 1\n",
            vec!["warning: app.go is not seen in /app.py, which defines no go".to_owned()],
        ),
    ] {
        let artefact = format!("runtime = \"{runtime}\"\nhandler = \"{handler}\"\n");
        assert_eq!(Tree::of("zip", &artefact).file(file, text).found(), expected, "{runtime} {handler}");
    }
}

#[test]
fn a_runtime_brings_what_its_platform_says_and_nothing_else() {
    let requires = "Requires-Dist: boto3 >= 1\nRequires-Dist: requests\n";
    let zip = Tree::of("zip", "runtime = \"python3.12\"\nhandler = \"app.handler\"\n")
        .file("app.py", "from app import handler\n");
    let zip = installed(zip, ".", "tool", "1.0", requires, "cp312-cp312-manylinux_2_17_x86_64");
    let zip = installed(zip, ".", "other", "1.0", "", "cp311-cp311-manylinux_2_17_x86_64");
    let found = zip.found();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().any(|one| one.contains("requires requests, which is not in the artefact")),
        "{found:?}"
    );
    assert!(found.iter().any(|one| one.contains("is of a wheel for cp311")), "{found:?}");
}

#[test]
fn node_packages_have_what_they_depend_on() {
    let tree = || {
        Tree::image("")
            .file("app/package.json", r#"{"dependencies": {"a": "1", "@s/b": "^2"}, "devDependencies": {"jest": "1"}}"#)
            .file("app/node_modules/a/package.json", r#"{"dependencies": {"c": "1", "o": "1"}, "optionalDependencies": {"o": "1"}}"#)
            .file("app/node_modules/@s/b/package.json", r#"{"dependencies": {"a": "1"}, "peerDependencies": {"p": "1", "q": "1"}, "peerDependenciesMeta": {"q": {"optional": true}}}"#)
            .file("app/node_modules/a/test/package.json", r#"{"dependencies": {"fixture": "1"}}"#)
            .file("app/node_modules/p/package.json", "{}")
    };
    let nested = tree().file("app/node_modules/a/node_modules/c/package.json", "{}");
    assert_eq!(nested.found(), NONE);
    assert_eq!(
        tree().found(),
        ["error: /app/node_modules/a/package.json depends on c, which is in no node_modules that it sees"]
    );
    let without_peer = nested.without("app/node_modules/p/package.json");
    fs::remove_dir(without_peer.path("app/node_modules/p")).unwrap();
    assert_eq!(
        without_peer.found(),
        [
            "warning: /app/node_modules/@s/b/package.json expects beside it p, which is in no node_modules that it sees"
        ]
    );
    let bundled = Tree::image("").file("app/package.json", r#"{"dependencies": {"a": "1"}}"#);
    assert_eq!(
        bundled.found(),
        ["warning: /app/package.json depends on a, which is in no node_modules that it sees"]
    );
    let locked = tree().file("app/node_modules/c/package.json", "no JSON").file(
        "app/node_modules/.package-lock.json",
        r#"{"packages": {"node_modules/a": {}, "node_modules/gone": {}, "node_modules/dev": {"dev": true}, "node_modules/opt": {"optional": true}}}"#,
    );
    assert_eq!(
        locked.found(),
        [
            "error: /app/node_modules/.package-lock.json lists gone, which is in no node_modules that it sees",
            "warning: /app/node_modules/c/package.json is no JSON, so what it depends on cannot be checked",
        ]
    );
}

#[test]
fn what_is_odd_in_one_table_of_a_package_hides_nothing_of_the_others() {
    for odd in [
        "\"peerDependencies\": []",
        "\"peerDependenciesMeta\": {\"p\": {\"optional\": \"yes\"}}",
        "\"optionalDependencies\": 1",
    ] {
        let package = format!("\u{feff}{{ \"dependencies\": {{ \"a\": \"1\" }}, {odd} }}");
        let tree =
            Tree::image("").file("app/package.json", package).file("app/node_modules/b/package.json", "{}");
        assert_eq!(
            tree.found(),
            ["error: /app/package.json depends on a, which is in no node_modules that it sees"],
            "{odd}"
        );
    }
}

#[test]
fn the_report_is_canonical_and_leaves_out_what_is_absent() {
    let tree = Tree::image("entrypoint = [\"/run\"]").executable("run", "#!/bin/sh\n");
    let report = String::from_utf8(semel_model::canonical::bytes(&tree.check())).unwrap();
    assert_eq!(
        report,
        r#"{"findings":[{"explanation":"is run by /bin/sh, which is not in the artefact, or cannot be executed","fix":"put it into [artefact] files or the base, or say why not: closure = { ignore = [{ name = \"/bin/sh\", reason = \"…\" }] }","needs":"/bin/sh","path":"/run","rule":"script","severity":"error"}],"objects":0,"platform":"linux/amd64","v":1}"#
    );
}

/// A small program of this machine, to be damaged.
fn program() -> Vec<u8> {
    let tree = Tree::image("").compiled("main", "int main(void) { return 0; }", &["-s"]);
    fs::read(tree.path("main")).unwrap()
}

#[test]
fn damaged_objects_are_findings_and_never_a_panic() {
    if !has_all(&["gcc"]) {
        return;
    }
    let whole = program();
    let damage = (
        any::<bool>(),
        proptest::collection::vec((0..whole.len().min(4096), any::<u8>()), 0..24),
        0..whole.len(),
    );
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((cut, changes, length) in damage)| {
        let mut bytes = whole.clone();
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        bytes.truncate(if cut { length } else { whole.len() });
        let tree = Tree::image("entrypoint = [\"/main\"]").executable("main", &bytes);
        tree.check();
    });
}

/// A library for this platform that is nothing but the names of others, with a directory in which they are looked for.
fn naming(needed: &[String]) -> Vec<u8> {
    let mut texts = vec![0];
    let mut entries = Vec::new();
    for name in needed {
        entries.push((1_u64, texts.len() as u64));
        texts.extend(name.as_bytes());
        texts.push(0);
    }
    let dynamic_at = 64 + 2 * 56_u64;
    let texts_at = dynamic_at + (entries.len() as u64 + 2) * 16;
    entries.extend([(5, texts_at), (0, 0)]);
    let end = texts_at + texts.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([3_u16, 62].map(u16::to_le_bytes).concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0_u64, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 56, 2, 64, 0, 0].map(u16::to_le_bytes).concat());
    for (kind, at, size) in [(1_u32, 0, end), (2, dynamic_at, texts_at - dynamic_at)] {
        bytes.extend([kind, 4].map(u32::to_le_bytes).concat());
        bytes.extend([at, at, at, size, size, 8].map(u64::to_le_bytes).concat());
    }
    bytes.extend(entries.iter().flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat()));
    bytes.extend(texts);
    bytes
}

#[test]
fn libraries_that_load_each_other_without_an_end_are_told_and_not_followed() {
    let one = |number: usize| format!("lib{number}.so");
    let start = Tree::image("entrypoint = [\"/lib/lib0.so\"]");
    let tree = (0..400).fold(start, |tree, number| {
        tree.executable(&format!("/lib/{}", one(number)), naming(&[one(number + 1)]))
    });
    let found = tree.found();
    assert!(found.iter().any(|found| found.contains("a chain of 200 others")), "{found:?}");

    let many: Vec<String> = (0..10_000).map(|number| format!("{number:0200}")).collect();
    let tree = Tree::image("entrypoint = [\"/main\"]").executable("/main", naming(&many));
    let found = tree.found();
    assert!(found[0].contains("more than 1048576 bytes of them"), "{found:?}");
}

#[test]
fn settings_of_the_loader_that_include_each_other_are_read_once() {
    let include = "include /etc/ld.so.conf.d/*.conf\n";
    let start = Tree::image("entrypoint = [\"/main\"]").file("etc/ld.so.conf", include);
    let tree = (0..40).fold(start, |tree, number| {
        let text = format!("{}/opt/{number}\n{include}", include.repeat(40));
        tree.file(&format!("etc/ld.so.conf.d/{number}.conf"), text)
    });
    let tree = tree.executable("main", naming(&["libx.so".to_owned()])).file("opt/39/libx.so", naming(&[]));
    assert_eq!(tree.found(), NONE);
}

#[test]
fn a_sparse_gigabyte_is_checked_without_reading_it() {
    if !has_all(&["gcc"]) {
        return;
    }
    let tree = Tree::image("entrypoint = [\"/main\"]").executable("main", program());
    let file = fs::OpenOptions::new().write(true).open(tree.path("main")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(tree.check().findings.len(), 2);
}

#[test]
fn this_machine_s_own_programs_are_complete() {
    let programs: BTreeMap<&str, Vec<String>> = ["/bin/sh", "/usr/bin/env"]
        .into_iter()
        .filter_map(|program| Some((program, libraries(program)?)))
        .collect();
    for (program, libraries) in programs {
        let libraries: Vec<&str> = libraries.iter().map(String::as_str).collect();
        let tree = Tree::image(&format!("entrypoint = [\"{program}\"]")).taking(&libraries);
        let tree = tree.executable(program, fs::read(program).unwrap());
        assert_eq!(tree.found(), NONE, "{program}");
        assert_eq!(tree.check().objects, 1 + libraries.len(), "{program} and what the loader would load");
    }
}

/// A project of a C program, statically linked, with smoke commands.
fn smoking(artefact: &str, source: &str, smoke: &str) -> Repo {
    let project = format!(
        "format = 1\ncomponent = \"a\"\n[build]\nrun = \"gcc -static -o main main.c\"\n[artefact]\n{artefact}\nentrypoint = [\"/app/main\"]\nfiles = [{{ from = \"main\", to = \"/app/main\" }}]\nsmoke = {smoke}\n"
    );
    Repo::with(&project, &[("main.c", source)]).committed()
}

/// Says what it sees, and fails with the code that it is given.
const LOOKING: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
    printf("passwd %d\n", access("/etc/passwd", F_OK) == 0);
    printf("writable %d\n", fopen("/app/new", "w") != NULL);
    printf("tmp %d\n", fopen("/tmp/new", "w") != NULL);
    printf("home %s\n", getenv("HOME"));
    printf("secret %d\n", getenv("CARGO_HOME") != NULL || getenv("USER") != NULL);
    char line[256];
    FILE *net = fopen("/proc/net/dev", "r");
    int others = 0;
    while (net && fgets(line, sizeof line, net)) others += strchr(line, ':') && !strstr(line, "lo:");
    printf("networks %d\n", others);
    return count > 1 ? atoi(words[1]) : 0;
}
"#;

#[test]
fn smoke_commands_run_inside_the_artefact_and_see_nothing_else() {
    if !has_all(&["gcc", "bwrap"]) {
        return;
    }
    let done = smoking("kind = \"image\"", LOOKING, "[\"/app/main 0\", \"/app/main\"]").built();
    let smoke: Vec<_> =
        done.built.closure.smoke.iter().map(|one| (one.command.as_str(), one.outcome)).collect();
    assert_eq!(smoke, [("/app/main 0", SmokeOutcome::Passed), ("/app/main", SmokeOutcome::Passed)]);
    assert_eq!(done.built.closure.summary(), "1 object, smoke 2/2");
    let seen = ["passwd 0", "writable 1", "tmp 1", "home /", "secret 0", "networks 0"];
    let expected: Vec<String> =
        ["== smoke: /app/main 0"].iter().chain(&seen).map(|line| (*line).to_owned()).collect();
    let at = done.lines.iter().position(|line| *line == expected[0]).unwrap();
    assert_eq!(done.lines[at..at + expected.len()], expected);
    let log = fs::read(&done.built.log).unwrap();
    assert!(String::from_utf8_lossy(&log).contains(" = smoke: /app/main\n"));
    let claim =
        done.built.claims.iter().find(|claim| claim.predicate_type == closure::PREDICATE_TYPE).unwrap();
    assert_eq!(claim.predicate["smoke"][0]["sandbox"], "bubblewrap");
}

#[test]
fn a_smoke_command_that_fails_leaves_no_artefact() {
    if !has_all(&["gcc", "bwrap"]) {
        return;
    }
    for (source, smoke, told) in [
        (LOOKING, "[\"/app/main 3\"]", "smoke: `/app/main 3` exited with code 3"),
        (
            "int main(void) { return *(volatile int *)0; }",
            "[\"/app/main\"]",
            "smoke: `/app/main` was ended by signal 11",
        ),
    ] {
        let error = smoking("kind = \"image\"", source, smoke).build().err().unwrap();
        assert_eq!((error.to_string().as_str(), error.blame()), (told, Blame::Command));
        assert!(
            source != LOOKING || error.excerpt().contains(&"networks 0".to_owned()),
            "{:?}",
            error.excerpt()
        );
    }
}

#[test]
fn the_smoke_commands_of_an_archive_use_programs_of_the_host() {
    if !has_all(&["gcc", "bwrap", "sh"]) {
        return;
    }
    let commands =
        "[\"/app/main\", \"sh -c 'test -x /artefact/app/main && ! test -e /root && ! test -e /tmp/x'\"]";
    let archive = smoking("kind = \"archive\"\nneeds = [\"sh\"]", LOOKING, commands);
    let done = archive.built();
    assert_eq!(done.built.closure.summary(), "1 object, the host has sh, smoke 2/2");
    assert!(done.lines.contains(&"writable 0".to_owned()), "{:?}", done.lines);
}

#[test]
fn smoke_commands_for_another_machine_are_recorded_as_not_run() {
    let repo = Repo::with(
        "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nentrypoint = [\"/main\"]\nfiles = [{ from = \"main\", to = \"/main\" }]\nsmoke = [\"/main\"]\n",
        &[("main", "")],
    );
    let repo = repo.executable("main").committed();
    let source = repo.source();
    let work = TempDir::new().unwrap();
    let elsewhere: Platform = "linux/s390x".parse().unwrap();
    let request = BuildRequest { platform: elsewhere, ..request(source, work.path().to_owned()) };
    let built = runtime().block_on(pipeline::run(request, Arc::new(Quiet))).unwrap();
    let [smoke] = built.closure.smoke.as_slice() else { panic!("{:?}", built.closure) };
    assert_eq!(smoke.outcome, SmokeOutcome::NotRun);
    assert!(smoke.reason.as_ref().unwrap().starts_with("it is made for s390x, and this machine is "));
}

#[test]
fn a_build_without_what_it_needs_is_refused_with_every_problem() {
    let repo = Repo::with(
        "format = 1\ncomponent = \"a\"\n[artefact]\nkind = \"image\"\nentrypoint = [\"/run\"]\nfiles = [{ from = \"run\", to = \"/run\" }, { from = \"m\", to = \"/m\" }]\n",
        &[
            ("run", "#!/bin/sh\n"),
            ("m/package.json", "{\"dependencies\": {\"a\": \"1\"}}"),
            ("m/node_modules/b/package.json", "{}"),
        ],
    );
    let error = repo.executable("run").committed().build().err().unwrap();
    assert_eq!(error.blame(), Blame::Artefact);
    assert_eq!(error.to_string(), "the artefact is not complete: 2 problems");
    let problems: Vec<String> = error.problems().into_iter().map(|(problem, _)| problem).collect();
    assert_eq!(
        problems,
        [
            "/run is run by /bin/sh, which is not in the artefact, or cannot be executed",
            "/m/package.json depends on a, which is in no node_modules that it sees"
        ]
    );
}

/// The files that the loader of this machine would load for a program.
fn libraries(program: &str) -> Option<Vec<String>> {
    let output = Command::new("ldd").arg(Path::new(program)).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned);
    Some(paths.collect()).filter(|paths: &Vec<String>| !paths.is_empty())
}

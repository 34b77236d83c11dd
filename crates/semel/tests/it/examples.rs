//! The examples as a user meets them: each is copied into a repository of its own, built from two clones that have a
//! store each, and run as its kind runs.
//!
//! With `--nocapture` each prints its row of a table: path, outcome, digest, size, time of the first and of the second
//! build.

use std::ffi::OsString;
use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::environment::{Ran, TestEnvironment, finish, free_port, has_all, met};
use crate::http::{Answer, send};

/// A project below `examples/`.
#[derive(Debug, Clone, Copy)]
struct Example {
    /// Its directory.
    path: &'static str,
    /// The programs that it is built with.
    built_with: &'static [&'static str],
    /// Where it fetches from.
    registry: Option<&'static str>,
}

const RUST_SERVICE: Example =
    Example { path: "rust-service", built_with: &["cargo", "cc"], registry: Some("index.crates.io") };
const NODE_SERVICE: Example = npm("node-service");
const STATIC_SITE: Example =
    Example { path: "static-site", built_with: &["python3"], registry: Some("pypi.org") };
const FRONT_END_INLINED: Example = npm("front-end/inlined");
const FRONT_END_REPAIRED: Example = npm("front-end/repaired");
const LIBRARY_MISSING: Example = c("c-missing-library/missing");
const LIBRARY_REPAIRED: Example = c("c-missing-library/repaired");

const PYTHON_ZIP: Example =
    Example { path: "python-zip", built_with: &["python3"], registry: Some("pypi.org") };
const DEBIAN_VM: Example = Example {
    path: "debian-vm",
    built_with: &["mmdebstrap", "bsdtar", "objcopy", "mkfs.fat", "mcopy", "qemu-system-x86_64"],
    registry: Some("deb.debian.org"),
};

const ALL: [Example; 9] = [
    RUST_SERVICE,
    NODE_SERVICE,
    STATIC_SITE,
    FRONT_END_INLINED,
    FRONT_END_REPAIRED,
    LIBRARY_MISSING,
    LIBRARY_REPAIRED,
    PYTHON_ZIP,
    DEBIAN_VM,
];

impl Example {
    fn can_be_built(&self) -> bool {
        let reaches =
            |registry: &str| met(can_be_reached(registry), &format!("{registry} cannot be reached"));
        has_all(self.built_with) && self.registry.is_none_or(reaches)
    }
}

fn can_be_reached(host: &str) -> bool {
    let addresses = [443, 80].into_iter().filter_map(|port| (host, port).to_socket_addrs().ok()).flatten();
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(10)).is_ok())
}

const fn npm(path: &'static str) -> Example {
    Example { path, built_with: &["npm", "node"], registry: Some("registry.npmjs.org") }
}

const fn c(path: &'static str) -> Example {
    Example { path, built_with: &["cc"], registry: None }
}

#[test]
fn every_example_is_short_explained_listed_and_built_here() {
    let readme = fs::read_to_string(examples().join("../README.md")).unwrap();
    let projects = projects_below(&examples());
    assert!(projects.len() >= ALL.len(), "{projects:?}");
    for project in projects {
        let path = project.strip_prefix(examples()).unwrap().to_str().unwrap();
        let lines = fs::read_to_string(project.join("semel.toml")).unwrap().lines().count();
        assert!(lines <= 25, "examples/{path}/semel.toml has {lines} lines");
        let top = examples().join(path.split('/').next().unwrap());
        assert!(top.join("README.md").is_file(), "{} has no README.md", top.display());
        let link = format!("(examples/{})", top.file_name().unwrap().display());
        assert!(readme.contains(&link), "README.md does not lead to {link}");
        assert!(ALL.iter().any(|example| example.path == path), "no test builds examples/{path}");
    }
}

#[test]
fn a_rust_service_is_an_image_of_one_file_on_nothing_and_answers() {
    if !met(cfg!(target_arch = "x86_64"), "the example names x86-64 as its target") {
        return;
    }
    let Some(environment) = published(&RUST_SERVICE) else { return };
    let answer = deployed(&environment, "/celsius/21.5");
    assert_eq!(answer.json(), json!({ "celsius": 21.5, "fahrenheit": 70.7 }));
}

#[test]
fn a_node_service_has_its_packages_inside_and_answers() {
    let Some(environment) = published(&NODE_SERVICE) else { return };
    assert_eq!(deployed(&environment, "/words/oak").json(), json!({ "word": "oak", "count": 1 }));
}

#[test]
fn a_node_service_without_one_of_its_packages_is_refused() {
    if !NODE_SERVICE.can_be_built() {
        return;
    }
    let environment = copied(&NODE_SERVICE);
    environment.edit("semel.toml", "--no-fund\"", "--no-fund && rm -r node_modules/qs\"");
    environment.commit("feat: be smaller");
    let (ran, _) = build(&environment);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stderr.contains("node_modules/express/package.json") && ran.stderr.contains("qs"), "{ran:?}");
}

#[test]
fn a_static_site_is_made_from_its_lock_file_and_served() {
    let Some(environment) = published(&STATIC_SITE) else { return };
    let page = String::from_utf8(deployed(&environment, "/oak.html").body).unwrap();
    assert!(page.contains("<td>acorn, on a long stalk</td>"), "{page}");
}

#[test]
fn a_front_end_with_an_inlined_address_is_refused() {
    let Some((environment, ran)) = refused(&FRONT_END_INLINED) else { return };
    assert!(ran.stderr.contains("`VITE_API_URL` (.env.production)"), "{ran:?}");
    assert!(!ran.stderr.contains("api.shop.net"), "{ran:?}");
    assert_eq!(environment.ok(&["versions", "-q"]).stdout, "");
}

#[test]
fn a_front_end_that_reads_its_address_at_run_time_is_published_and_gets_it() {
    let Some(environment) = published(&FRONT_END_REPAIRED) else { return };
    let script = String::from_utf8(deployed(&environment, "/env.js").body).unwrap();
    assert!(script.contains("window.env = {\"API_URL\":\"http://127.0.0.1:8091\"}"), "{script}");
}

#[test]
fn a_program_whose_library_was_left_out_is_refused_by_name() {
    let Some((environment, ran)) = refused(&LIBRARY_MISSING) else { return };
    assert!(ran.stderr.contains("/app/bin/checksum") && ran.stderr.contains("libz.so.1"), "{ran:?}");
    assert_eq!(environment.ok(&["versions", "-q"]).stdout, "");
}

#[test]
fn a_program_with_its_library_beside_it_is_published_and_uses_that_one() {
    let Some(environment) = published(&LIBRARY_REPAIRED) else { return };
    environment.ok(&["pull", "0.1.0", "../out"]);
    let program = environment.beside("out/app/bin/checksum");
    let mut summing = environment.program(&program);
    summing.arg("wood");
    assert_eq!(finish(summing, "").value(), "3c9d190d");
    let mut loading = environment.program(&program);
    loading.env("LD_TRACE_LOADED_OBJECTS", "1");
    let loaded = finish(loading, "").stdout;
    assert!(loaded.contains("out/app/bin/../lib/libz.so.1"), "{loaded}");
}

#[test]
fn a_python_function_is_a_zip_with_its_compiled_modules_inside() {
    let Some(environment) = published(&PYTHON_ZIP) else { return };
    environment.ok(&["pull", "0.1.0", "../function.zip"]);
    // The compiled module is for Python 3.12 alone; that it is there and whole can be seen everywhere.
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
                  print(sorted(n for n in z.namelist() if 'thumbnailer' in n or '_imaging.c' in n))";
    let mut listing = environment.program("python3");
    listing.args(["-c", script]).arg(environment.beside("function.zip"));
    let listed = finish(listing, "").stdout;
    assert!(listed.contains("PIL/_imaging.cpython-312-x86_64-linux-gnu.so"), "{listed}");
    assert!(listed.contains("thumbnailer/app.py"), "{listed}");
}

#[test]
fn a_debian_machine_starts_from_its_disk() {
    if !met(Path::new("/usr/share/ovmf/OVMF.fd").is_file(), "ovmf is not installed") {
        return;
    }
    let Some(environment) = published(&DEBIAN_VM) else { return };
    let log = environment.ok(&["build", "log", "1"]);
    assert!(log.stdout.contains("gateway ready"), "{log:?}");
    environment.ok(&["pull", "0.1.0", "../gateway.raw"]);
    assert!(fs::metadata(environment.beside("gateway.raw")).unwrap().len() >= 64 << 20);
}

/// The directory of all examples.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// The directories with a project file.
fn projects_below(dir: &Path) -> Vec<PathBuf> {
    if dir.join("semel.toml").is_file() {
        return vec![dir.to_owned()];
    }
    let listing = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    listing.filter(|path| path.is_dir()).flat_map(|path| projects_below(&path)).collect()
}

/// An example in a repository of its own.
fn copied(example: &Example) -> TestEnvironment {
    let environment = TestEnvironment::repository();
    let from = examples().join(example.path);
    for (path, bytes) in environment.bytes_below(&from) {
        let path = path.strip_prefix(&from).unwrap();
        environment.write(path.to_str().unwrap(), &String::from_utf8(bytes).unwrap());
    }
    environment.commit("feat: begin");
    environment
}

/// The same commit at another path, with another store.
fn cloned(environment: &TestEnvironment) -> TestEnvironment {
    let clone = TestEnvironment::empty();
    clone.git(&["clone", "--quiet", environment.dir().to_str().unwrap(), "."]);
    clone
}

/// Builds, and says how long it took.
fn build(environment: &TestEnvironment) -> (Ran, Duration) {
    let mut building = environment.command(&["build"]);
    building.envs(toolchains());
    let began = Instant::now();
    let ran = finish(building, "");
    (ran, began.elapsed())
}

/// The toolchains in the home of whoever runs the tests: the environment of a test has another one.
fn toolchains() -> impl Iterator<Item = (&'static str, OsString)> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let usual = [("RUSTUP_HOME", ".rustup"), ("PYENV_ROOT", ".pyenv"), ("NVM_DIR", ".nvm")];
    usual.into_iter().filter_map(move |(name, below)| {
        let place = std::env::var_os(name).unwrap_or_else(|| home.join(below).into_os_string());
        Path::new(&place).is_dir().then_some((name, place))
    })
}

/// An example that was published with one digest from two clones. Nothing: it cannot be built here.
fn published(example: &Example) -> Option<TestEnvironment> {
    example.can_be_built().then_some(())?;
    let environment = copied(example);
    let (first, took) = build(&environment);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let (second, took_again) = build(&cloned(&environment));
    assert_eq!(first.digest(), second.digest(), "{}\n{}", first.stderr, second.stderr);
    let bytes = &environment.ok(&["--json", "inspect", &first.value()]).json()["bytes"];
    row(example, "published", &first.digest(), &format!("{bytes} bytes"), &[took, took_again]);
    Some(environment)
}

/// An example that was refused from two clones for the same reasons. Nothing: it cannot be built here.
fn refused(example: &Example) -> Option<(TestEnvironment, Ran)> {
    example.can_be_built().then_some(())?;
    let environment = copied(example);
    let (first, took) = build(&environment);
    assert_eq!(first.code, 7, "{first:?}");
    let (second, took_again) = build(&cloned(&environment));
    assert_eq!(reasons(&first), reasons(&second));
    row(example, "refused", "", "", &[took, took_again]);
    Some((environment, first))
}

fn reasons(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter(|line| line.starts_with("  because:")).collect()
}

#[expect(clippy::print_stderr, reason = "the table is for people")]
fn row(example: &Example, outcome: &str, digest: &str, size: &str, took: &[Duration]) {
    let took: Vec<String> = took.iter().map(|took| format!("{:.1} s", took.as_secs_f64())).collect();
    eprintln!("| {} | {outcome} | {digest} | {size} | {} |", example.path, took.join(" | "));
}

/// Deploys on a port that is free, and asks for a path.
fn deployed(environment: &TestEnvironment, path: &str) -> Answer {
    let port = free_port();
    let set = environment.piped(&["config", "set", "dev", "PORT"], &port.to_string());
    assert_eq!(set.code, 0, "{set:?}");
    environment.ok(&["deploy", "dev"]);
    let answer = send(&format!("127.0.0.1:{port}"), "GET", path, &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer
}

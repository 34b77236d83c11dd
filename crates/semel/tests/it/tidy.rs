//! Rules about the repository itself: the crate graph, the documents, the words.
//!
//! A rule that can be checked is checked here, by `cargo test`, and nowhere else. What clippy checks is not repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// The crates in the order of ARCHITECTURE.md, each with the crates that it may use.
const GRAPH: [(&str, &[&str]); 8] = [
    ("model", &[]),
    ("oci", &["model"]),
    ("store", &["model", "oci"]),
    ("build", &["model", "oci"]),
    ("targets", &["model", "oci"]),
    ("engine", &["model", "oci", "store"]),
    ("server", &["model", "oci", "store", "engine"]),
    ("semel", &["model", "oci", "store", "build", "targets", "engine", "server"]),
];

/// Dependencies that stop at a boundary, with the crates that may have them.
const BOUNDARIES: [(&str, &[&str]); 9] = [
    ("sqlx", &["store"]),
    ("rusqlite", &["store"]),
    ("reqwest", &["oci"]),
    ("axum", &["server"]),
    ("hyper", &["server"]),
    ("clap", &["semel"]),
    ("anyhow", &["semel"]),
    ("quick-xml", &["engine"]),
    ("aes-gcm", &["store"]),
];

/// What the model is free of: it does no input or output and starts nothing.
const NOT_IN_MODEL: [&str; 7] =
    ["tokio", "futures-util", "http", "rustix", "tempfile", "getrandom", "tracing"];

#[test]
fn the_crate_graph_is_the_one_that_is_drawn() {
    let metadata = metadata();
    let drawn: BTreeSet<&str> = GRAPH.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<String> = metadata.packages.iter().map(short_name).collect();
    assert_eq!(found, drawn.iter().map(|name| (*name).to_owned()).collect(), "crates of the workspace");
    for package in &metadata.packages {
        let name = short_name(package);
        let (_, allowed) = GRAPH.iter().find(|(drawn, _)| *drawn == name).expect("compared above");
        for used in dependencies(package).filter_map(|used| used.strip_prefix("semel-").map(str::to_owned)) {
            assert!(allowed.contains(&used.as_str()), "crate {name} must not use crate {used}");
        }
    }
}

#[test]
fn a_dependency_stops_at_its_boundary() {
    let metadata = metadata();
    for (dependency, owners) in BOUNDARIES {
        let users: Vec<String> = metadata
            .packages
            .iter()
            .filter(|package| dependencies(package).any(|used| used == dependency))
            .map(short_name)
            .collect();
        for user in users {
            assert!(
                owners.contains(&user.as_str()),
                "{dependency} belongs to {owners:?}, and {user} uses it"
            );
        }
    }
    let model =
        metadata.packages.iter().find(|package| short_name(package) == "model").expect("it is in the graph");
    for used in dependencies(model) {
        assert!(!NOT_IN_MODEL.contains(&used.as_str()), "the model must not use {used}");
    }
}

#[test]
fn every_shared_dependency_is_used_by_some_crate() {
    let metadata = metadata();
    let used: BTreeSet<String> = metadata
        .packages
        .iter()
        .flat_map(|package| package.dependencies.iter().map(|dependency| dependency.name.clone()))
        .collect();
    for name in workspace_dependencies() {
        assert!(used.contains(&name), "[workspace.dependencies] {name} is used by no crate");
    }
}

#[test]
fn every_version_of_a_dependency_stands_in_the_workspace() {
    for (path, text) in files(&root().join("crates"), &["toml"]) {
        let mut section = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if section.ends_with("dependencies") && line.contains('=') {
                let shared = line.contains("workspace = true") || line.contains(".workspace=true");
                assert!(shared, "{}: `{line}` has a version of its own", shown(&path));
            }
        }
    }
}

#[test]
fn the_code_map_names_every_file_and_no_other() {
    let architecture = read("ARCHITECTURE.md");
    for (name, _) in GRAPH {
        let section = section_of(&architecture, name);
        let named = paths_in(section);
        let source = root().join("crates").join(name).join("src");
        for path in &named {
            assert!(source.join(path).exists(), "ARCHITECTURE.md: crates/{name} has no src/{path}");
        }
        for (path, _) in files(&source, &["rs"]) {
            let path = path.strip_prefix(&source).expect("it was found there").to_string_lossy().into_owned();
            let covered =
                named.iter().any(|one| *one == path || (one.ends_with('/') && path.starts_with(one)));
            assert!(covered, "ARCHITECTURE.md does not say what crates/{name}/src/{path} is");
        }
    }
}

#[test]
fn every_source_file_begins_with_what_it_is() {
    for (path, text) in files(&root().join("crates"), &["rs"]) {
        assert!(text.starts_with("//! "), "{} does not begin with a module comment", shown(&path));
    }
}

#[test]
fn only_the_program_prints() {
    for (path, text) in sources().filter(|(path, _)| !path.starts_with(root().join("crates/semel"))) {
        for word in ["println!", "print!(", "eprintln!", "eprint!(", "dbg!("] {
            let found = code_lines(&text).find(|line| line.contains(word));
            assert!(found.is_none(), "{} prints: {}", shown(&path), found.unwrap_or_default());
        }
    }
}

#[test]
fn no_test_is_switched_off_and_nothing_is_left_to_do() {
    for (path, text) in files(&root().join("crates"), &["rs"]).into_iter().filter(|(path, _)| !is_this(path))
    {
        for word in ["#[ignore", "todo!(", "unimplemented!(", "TODO", "FIXME"] {
            assert!(!text.contains(word), "{} contains {word}", shown(&path));
        }
    }
}

#[test]
fn documents_and_sources_speak_of_semel_alone() {
    let forbidden = [
        "/work/",
        "/root/",
        "/tmp/brief",
        "/home/",
        "work session",
        "this session",
        "issues show",
        "helper session",
    ];
    let texts = documents().into_iter().chain(files(&root().join("crates"), &["rs", "toml", "sql"]));
    for (path, text) in texts.filter(|(path, _)| !is_this(path)) {
        for word in forbidden {
            let line = text.lines().position(|line| line.contains(word));
            // A path in a home directory may be an example in a test, never a fact in a document.
            let example = word == "/home/" && path.extension().is_some_and(|extension| extension == "rs");
            assert!(line.is_none() || example, "{}:{}: `{word}`", shown(&path), line.unwrap_or_default() + 1);
        }
    }
}

#[test]
fn we_write_artefact_where_the_format_does_not_say_otherwise() {
    for (path, text) in documents() {
        for (number, line) in text.lines().enumerate() {
            let prose: String = line.split('`').step_by(2).collect();
            let american = prose.to_lowercase().contains("artifact");
            assert!(!american, "{}:{}: {line}", shown(&path), number + 1);
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let beside = path.parent().expect("a file has a directory").join(file);
            assert!(beside.exists(), "{}: the link to {target} leads nowhere", shown(&path));
        }
    }
}

#[test]
fn every_test_that_the_controls_name_exists() {
    for document in ["docs/controls.md", "docs/format.md"] {
        let text = read(document);
        let named = tests_in(&text);
        assert!(!named.is_empty(), "{document} names no test");
        for name in named {
            assert!(is_test(&name), "{document}: there is no test {name}");
        }
    }
}

#[test]
fn every_invariant_has_a_place_in_the_controls() {
    let controls = read("docs/controls.md");
    for number in 1..=20 {
        assert!(controls.contains(&format!("**I{number} ")), "docs/controls.md does not state I{number}");
    }
}

#[test]
fn every_decision_is_listed_with_its_title() {
    let list = read("docs/decisions/README.md");
    let decisions = files(&root().join("docs/decisions"), &["md"]);
    for (path, text) in decisions.iter().filter(|(path, _)| !path.ends_with("README.md")) {
        let file = path.file_name().expect("it was listed").to_string_lossy();
        let title = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
        assert!(list.contains(&format!("]({file})")), "docs/decisions/README.md does not list {file}");
        assert!(
            !title.is_empty() && list.contains(title),
            "docs/decisions/README.md does not have the title of {file}"
        );
        for part in ["## Context", "## Decision", "## Alternatives", "## Consequences"] {
            assert!(text.contains(part), "{file} has no part `{part}`");
        }
    }
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = read("CHANGELOG.md");
    let metadata = metadata();
    let version =
        metadata.packages.iter().map(|package| package.version.to_string()).next().unwrap_or_default();
    let known = changelog.contains("## [Unreleased]") || changelog.contains(&format!("## [{version}]"));
    assert!(known, "CHANGELOG.md has neither [Unreleased] nor [{version}]");
}

#[test]
fn the_readme_mentions_every_verb() {
    let readme = read("README.md");
    let verbs = verbs();
    assert!(verbs.len() > 20, "found only {verbs:?}");
    for verb in verbs {
        // In code, because verbs are English words: between one backtick or three.
        let code = readme.split('`').skip(1).step_by(2);
        let mut words = code.flat_map(|span| span.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')));
        assert!(words.any(|word| word == verb), "README.md does not mention `semel {verb}`");
    }
}

/// The verbs of `semel --help`, as the enum of the command line names them.
fn verbs() -> BTreeSet<String> {
    let source = read("crates/semel/src/cli.rs");
    let (_, rest) = source.split_once("enum Verb {\n").expect("the verbs are one enum");
    let (body, _) = rest.split_once("\n}").expect("the enum ends");
    let mut verbs = BTreeSet::new();
    let mut hidden = false;
    for line in body.lines().filter_map(|line| line.strip_prefix("    ")) {
        hidden |= line.contains("hide = true");
        if line.starts_with(|first: char| first.is_ascii_uppercase()) {
            let name = line.split(['(', ',', ' ']).next().unwrap_or_default().to_lowercase();
            if !std::mem::take(&mut hidden) {
                verbs.insert(name);
            }
        }
    }
    verbs
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies in crates/semel").to_owned()
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .expect("the workspace describes itself")
}

/// `semel-model` → `model`; the binary's own crate is `semel`.
fn short_name(package: &Package) -> String {
    let name = package.name.to_string();
    name.strip_prefix("semel-").map_or(name.clone(), str::to_owned)
}

/// What a crate is built with, tests aside.
fn dependencies(package: &Package) -> impl Iterator<Item = String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.clone())
}

fn workspace_dependencies() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let (_, rest) =
        manifest.split_once("[workspace.dependencies]\n").expect("the workspace shares its dependencies");
    rest.lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The text below `### crates/NAME`, up to the next heading.
fn section_of<'a>(architecture: &'a str, name: &str) -> &'a str {
    let heading = format!("### `crates/{name}`\n");
    let (_, rest) =
        architecture.split_once(&heading).unwrap_or_else(|| panic!("ARCHITECTURE.md has no {heading}"));
    rest.split("\n#").next().unwrap_or(rest)
}

/// What stands in backticks and is written as a source file or a directory.
fn paths_in(section: &str) -> BTreeSet<String> {
    let spans = section.split('`').skip(1).step_by(2);
    let is_path = |span: &&str| {
        let written_so = span.ends_with(".rs") || span.ends_with('/');
        written_so && !span.contains([' ', '<', '*']) && !span.starts_with(['/', '.'])
    };
    // Files of other crates and tests are written with more than the path below `src`.
    let below_source = |span: &&str| !span.starts_with("crates/") && !span.starts_with("tests/");
    spans.filter(is_path).filter(below_source).map(str::to_owned).collect()
}

/// `crate::module::name` in backticks, where the first word is one of our crates and the last a sentence.
fn tests_in(text: &str) -> BTreeSet<String> {
    let spans = text.split('`').skip(1).step_by(2);
    let named = |span: &&str| {
        let known = GRAPH.iter().any(|(name, _)| span.split("::").next() == Some(name));
        known && span.rsplit("::").next().is_some_and(|last| last.matches('_').count() >= 2)
    };
    spans.filter(named).map(str::to_owned).collect()
}

/// Whether `crate::module::name` (unit tests) or `crate::it::module::name` (integration tests) is a test.
fn is_test(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let [krate, module @ .., function] = parts.as_slice() else { return false };
    let directory = root().join("crates").join(krate);
    let (base, module) = match module {
        ["it", rest @ ..] if is_declared(&directory, rest) => (directory.join("tests/it"), rest),
        ["it", ..] => return false,
        rest => (directory.join("src"), rest),
    };
    let path = module.iter().fold(base, |path, part| path.join(part));
    let candidates =
        [path.with_extension("rs"), path.join("mod.rs"), path.join("main.rs"), path.join("lib.rs")];
    candidates.iter().filter_map(|file| fs::read_to_string(file).ok()).any(|text| has_test(&text, function))
}

/// Whether the integration tests of a crate have this module: a file alone is no test.
fn is_declared(directory: &Path, module: &[&str]) -> bool {
    let main = fs::read_to_string(directory.join("tests/it/main.rs")).unwrap_or_default();
    module.first().is_none_or(|first| main.lines().any(|line| line.trim() == format!("mod {first};")))
}

fn has_test(text: &str, function: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = |line: &str| line.contains(&format!("fn {function}("));
    let Some(at) = lines.iter().position(|line| begins(line)) else { return false };
    let attributes =
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    attributes.into_iter().any(|line| line.contains("test"))
}

/// The documents of the repository.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = files(&root().join("docs"), &["md"]);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        found.push((root().join(name), read(name)));
    }
    found
}

/// The sources of the crates without their tests.
fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    GRAPH.into_iter().flat_map(|(name, _)| files(&root().join("crates").join(name).join("src"), &["rs"]))
}

/// Every file below a directory with one of the endings, in the order of their paths.
fn files(directory: &Path, endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let listing =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for item in listing.flatten() {
            let path = item.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
                let text =
                    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.insert(path, text);
            }
        }
    }
    found.into_iter().collect()
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

/// This file names what it forbids.
fn is_this(path: &Path) -> bool {
    path.ends_with("semel/tests/it/tidy.rs")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

//! A proposed project file works as it is.

use std::process::Command;

use semel_build::detect::{DetectError, Host, propose};
use semel_model::project::Project;

use crate::support::{Repo, build, host_with_toolchains};

const DYNAMIC: Host = Host { static_target: None };

fn proposed(repo: &Repo, host: &Host) -> String {
    let proposal = propose(repo.path(), host).unwrap();
    let project = Project::parse("semel.toml", &proposal.semel_toml).unwrap();
    assert!(proposal.semel_toml.starts_with("format = 1 "), "{}", proposal.semel_toml);
    assert_eq!(
        project.pipeline.in_order().iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["dev", "production"]
    );
    proposal.semel_toml
}

/// Writes the proposal, commits it and builds.
fn build_as_it_is(repo: &Repo, host: &Host) -> Vec<String> {
    let text = proposed(repo, host);
    assert!(text.lines().count() <= 20, "{text}");
    repo.write("semel.toml", &text);
    repo.commit("feat: semel");
    let done = build(repo.source(), host_with_toolchains()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    done.entries(0)
}

fn here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    found
}

fn repo(files: &[(&str, &str)]) -> Repo {
    let repo = Repo::empty();
    for (path, text) in files {
        repo.write(path, text);
    }
    repo
}

#[test]
fn a_plain_project_is_an_archive_of_its_files() {
    let repo = repo(&[("index.html", "hello"), ("start.sh", "exec sleep 1\n")]);
    repo.git(&["remote", "add", "origin", "git@forge.example:shop/My_Site.git"]);
    assert_eq!(build_as_it_is(&repo, &DYNAMIC), ["755 app/", "644 app/index.html", "644 app/start.sh"]);
    let text = proposed(&repo, &DYNAMIC);
    assert!(
        text.contains("component = \"my-site\"") && text.contains("[\"/bin/sh\", \"/app/start.sh\"]"),
        "{text}"
    );
}

#[test]
fn what_nobody_here_can_build_is_said() {
    for (files, said) in [
        (vec![("go.mod", "module x\n")], Some("nothing here is built by go.mod yet: write the command")),
        (
            vec![("Dockerfile", "FROM scratch\n")],
            Some("nothing here is built by Dockerfile yet: let [build] run"),
        ),
        (vec![("index.html", "hello")], None),
        // A Makefile beside what is understood is for people.
        (vec![("Makefile", "x:\n"), ("app.py", ""), ("requirements.txt", "flask\n")], None),
    ] {
        let warnings = propose(repo(&files).path(), &DYNAMIC).unwrap().warnings;
        assert_eq!(warnings.len(), said.iter().count(), "{warnings:?}");
        assert!(said.is_none_or(|said| warnings[0].starts_with(said)), "{warnings:?}");
    }
    let front_end = repo(&[("package.json", r#"{"scripts":{"build":"vite build"}}"#)]);
    let refused = propose(front_end.path(), &DYNAMIC).unwrap_err();
    assert!(refused.hint().is_some_and(|hint| hint.contains("from = \"dist\"")), "{refused}");
}

#[test]
fn a_node_project_starts_what_npm_starts() {
    let server = "require('http').createServer((q, r) => r.end(q.url === '/healthz' ? 'ok' : '')).listen(process.env.PORT)";
    let manifest = r#"{"name":"api","scripts":{"start":"node server.js"},"engines":{"node":">=20.1"}}"#;
    let repo = repo(&[
        ("package.json", manifest),
        ("server.js", server),
        (".env.example", "PORT=8080\nAPI_TOKEN=hunter2\n"),
    ]);
    let entries = build_as_it_is(&repo, &DYNAMIC);
    assert!(entries.contains(&"644 app/server.js".to_owned()), "{entries:?}");
    let text = proposed(&repo, &DYNAMIC);
    for expected in [
        "entrypoint = [\"node\", \"/app/server.js\"]",
        "needs = [\"node >= 20.1\"]",
        "PORT = { type = \"port\", default = 8080 }",
        "API_TOKEN = { type = \"string\", secret = true }",
        "health = \"http://127.0.0.1:${PORT}/healthz\"",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("[build]"), "{text}");
}

#[test]
fn names_are_taken_from_somebodys_own_variables_and_values_never_are() {
    let repo = repo(&[
        ("start.sh", "exec sleep 1\n"),
        (".env", "PORT=8080\nMAIL_FROM=shop@shop.net\nAPI_TOKEN=hunter2\n"),
    ]);
    let proposal = propose(repo.path(), &DYNAMIC).unwrap();
    let text = &proposal.semel_toml;
    assert!(
        text.contains("PORT = { type = \"port\" }")
            && text.contains("API_TOKEN = { type = \"string\", secret = true }"),
        "{text}"
    );
    assert!(!text.contains("shop.net") && !text.contains("hunter2") && !text.contains("8080"), "{text}");
    assert_eq!(proposal.warnings.len(), 1);
    assert!(proposal.warnings[0].starts_with(".env holds the values of one environment"));
    repo.write(".gitignore", ".env\n");
    assert!(
        propose(repo.path(), &DYNAMIC).unwrap().warnings.is_empty(),
        "what no commit holds is in no build"
    );
}

#[test]
fn node_dependencies_are_installed_as_the_lock_file_says() {
    let manifest =
        r#"{"scripts":{"start":"next start -p 3000","build":"next build"},"dependencies":{"next":"1"}}"#;
    let repo = repo(&[("package.json", manifest), ("package-lock.json", "{}")]);
    let text = proposed(&repo, &DYNAMIC);
    for expected in [
        "fetch = \"npm ci --ignore-scripts --no-audit --no-fund\"",
        "run = \"npm run build\"",
        "entrypoint = [\"node\", \"/app/node_modules/.bin/next\", \"start\", \"-p\", \"3000\"]",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    repo.write(".gitignore", "package-lock.json\n");
    let text = proposed(&repo, &DYNAMIC);
    assert!(
        text.contains("npm install --no-package-lock"),
        "a lock file that is not committed locks nothing: {text}"
    );
}

#[test]
fn a_python_project_has_its_packages_beside_it() {
    let repo = repo(&[
        ("app.py", "print('x')\n"),
        ("pyproject.toml", "[project]\nname = \"x\"\nrequires-python = \">=3.9\"\n"),
    ]);
    assert_eq!(build_as_it_is(&repo, &DYNAMIC), ["755 app/", "644 app/app.py", "644 app/pyproject.toml"]);
    let text = proposed(&repo, &DYNAMIC);
    assert!(
        text.contains("needs = [\"python3 >= 3.9\"]") && text.contains("[\"python3\", \"/app/app.py\"]"),
        "{text}"
    );
    repo.write("requirements.txt", "flask==3.0.0\n");
    assert!(proposed(&repo, &DYNAMIC).contains("--target . -r requirements.txt"));
}

#[test]
fn a_cargo_project_is_built_by_cargo() {
    if !here("cargo") {
        return;
    }
    let manifest = "[package]\nname = \"api\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n";
    let lock = "version = 3\n\n[[package]]\nname = \"api\"\nversion = \"0.1.0\"\n";
    let repo = repo(&[
        ("Cargo.toml", manifest),
        ("Cargo.lock", lock),
        ("src/main.rs", "fn main() {}\n"),
        (".gitignore", "target\n"),
    ]);
    assert_eq!(build_as_it_is(&repo, &DYNAMIC), ["755 app/", "755 app/api"]);
    let text = proposed(&repo, &DYNAMIC);
    assert!(
        text.contains("kind = \"archive\"") && text.contains("cargo build --release --locked --offline\""),
        "{text}"
    );
    let host = Host { static_target: Some("x86_64-unknown-linux-gnu".to_owned()) };
    let text = proposed(&repo, &host);
    for expected in [
        "kind = \"image\"",
        "--offline --target x86_64-unknown-linux-gnu\"",
        "env = { RUSTFLAGS = \"-C target-feature=+crt-static\" }",
        "target/x86_64-unknown-linux-gnu/release/api",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    if Host::look() == host {
        assert_eq!(build_as_it_is(&repo, &host), ["755 app/", "755 app/api"]);
    }
    repo.write("Cargo.lock", &format!("{lock}\n[[package]]\nname = \"openssl-sys\"\nversion = \"0.9.0\"\n"));
    assert!(proposed(&repo, &host).contains("kind = \"archive\""), "what cannot be static is no image");
}

#[test]
fn the_program_of_a_workspace_is_found_among_its_members() {
    let member = |name: &str| format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\n");
    let (lib, one, two) = (member("lib"), member("one"), member("two"));
    let repo = repo(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
        ("crates/lib/Cargo.toml", &lib),
        ("crates/lib/src/lib.rs", ""),
        ("crates/one/Cargo.toml", &one),
        ("crates/one/src/main.rs", ""),
        ("crates/two/Cargo.toml", &two),
        ("crates/two/src/main.rs", ""),
    ]);
    assert!(proposed(&repo, &DYNAMIC).contains("cargo build --release --offline --bin one"));
}

#[test]
fn a_project_without_a_program_is_told_so() {
    for (name, text) in [
        ("Cargo.toml", "[package]\nname = \"x\"\nversion = \"0.1.0\"\n"),
        ("package.json", "{\"name\":\"x\"}"),
        ("requirements.txt", "flask\n"),
    ] {
        let error = propose(repo(&[(name, text)]).path(), &DYNAMIC).unwrap_err();
        assert!(matches!(&error, DetectError::NoProgram { file } if file == name), "{error}");
    }
    let error = propose(repo(&[("package.json", "{")]).path(), &DYNAMIC).unwrap_err();
    assert!(error.to_string().starts_with("cannot understand package.json: "), "{error}");
}

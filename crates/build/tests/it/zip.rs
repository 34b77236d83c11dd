//! Packages for serverless platforms: their bytes, and what is looked at before they are published.

use std::fs;
use std::process::Command;

use semel_build::closure::{Report, Rule, Severity};
use semel_build::pipeline::BuildError;
use semel_model::digest::Digest;
use serde_json::json;

use crate::support::{Done, Repo, has_all, told};

const ZIP: &str = r#"format = 1
component = "shop/thumbnailer"

[build]
run = "mkdir -p out/app/tests && cp app.py out/app/main.py && touch out/app/__init__.py out/app/tests/a.py && ln -s main.py out/app/link.py"

[artefact]
kind = "zip"
runtime = "python3.12/al2023"
handler = "app.main.handler"
files = [{ from = "out", to = "/" }]
exclude = ["**/tests"]

[config]
BUCKET = { type = "string" }
"#;

const APP: &str = "def handler(event, context):\n    return 'made'\n";

fn zip_with(changes: &[(&str, &str)], app: &str) -> Repo {
    let project = changes.iter().fold(ZIP.to_owned(), |text, (from, to)| text.replace(from, to));
    Repo::with(&project, &[("app.py", app)]).committed()
}

fn zip() -> Done {
    zip_with(&[], APP).built()
}

fn layer(done: &Done) -> &Digest {
    &done.built.packaged.layers[0].digest
}

#[test]
fn a_zip_is_one_layer_byte_for_byte_and_says_how_it_is_started() {
    let done = zip();
    let manifest = done.manifest();
    assert_eq!(manifest["artifactType"], "application/vnd.semel.zip.v1");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/zip");
    assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "function.zip");
    assert_eq!(manifest["annotations"]["dev.semel.contract"], r#"{"BUCKET":{"type":"string"}}"#);
    assert_eq!(
        done.json(&done.built.packaged.config),
        json!({ "v": 1, "architecture": "amd64", "runtime": "python3.12/al2023", "handler": "app.main.handler" })
    );
    assert!(done.blob(layer(&done)).starts_with(b"PK\x03\x04"));
}

#[test]
fn the_digest_of_a_zip_is_frozen() {
    assert_eq!(
        zip().built.packaged.manifest.as_str(),
        "sha256:d55a4393f9de652201e76f5d29dde8bab0fc6fdbb5ea40449c3581244e72e4c0"
    );
}

#[test]
fn a_zip_is_read_by_the_programs_that_people_have() {
    let done = zip();
    let file = done.work.path().join("function.zip");
    fs::write(&file, done.blob(layer(&done))).unwrap();
    let run = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).arg(&file).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    if has_all(&["unzip"]) {
        assert!(run("unzip", &["-t"]).contains("No errors detected"));
        let listed = run("unzip", &["-Z", "-T"]);
        for line in [
            "-rw-r--r--  2.0 unx",
            "drwxr-xr-x  2.0 unx",
            "lrwxrwxrwx  2.0 unx",
            "20240506.070808 app/main.py",
        ] {
            assert!(listed.contains(line), "{line}: {listed}");
        }
    }
    if has_all(&["python3"]) {
        let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(z.namelist(), z.read('app/main.py'))";
        let listed = run("python3", &["-c", script]);
        assert!(listed.contains("['app/', 'app/__init__.py', 'app/link.py', 'app/main.py']"), "{listed}");
        assert!(listed.contains("return 'made'"), "{listed}");
    }
    if has_all(&["bsdtar"]) {
        assert!(run("bsdtar", &["-tf"]).contains("app/main.py"));
    }
}

#[test]
fn a_handler_that_is_not_there_stops_the_build() {
    let no_function = |app: &str| match zip_with(&[], app).build().map(drop).unwrap_err() {
        BuildError::Incomplete(report) => problems(&report),
        other => panic!("{}", told(&other)),
    };
    assert_eq!(
        no_function("def other(event, context): pass\n"),
        ["app.main.handler is not seen in /app/main.py, which defines no handler"]
    );
    let error = zip_with(&[("app.main.handler", "app.start.handler")], APP).build().map(drop).unwrap_err();
    let BuildError::Incomplete(report) = error else { panic!("{}", told(&error)) };
    assert_eq!(
        problems(&report),
        [
            "app.start.handler is in none of the files of the artefact: there is no /app/start.py and no /app/start/__init__.py"
        ]
    );
    assert_eq!(report.findings[0].rule, Rule::Handler);
}

#[test]
fn a_runtime_that_brings_nothing_starts_the_bootstrap_at_the_root() {
    let bootstrap = |command: &str| {
        let custom = [
            ("python3.12/al2023", "provided.al2023"),
            ("handler = \"app.main.handler\"\n", ""),
            ("touch ", command),
        ];
        zip_with(&custom, APP).build()
    };
    for (command, problem) in [
        ("touch ", "/bootstrap is not among"),
        ("cp app.py out/bootstrap && chmod 644 out/bootstrap && touch ", "/bootstrap is not executable"),
    ] {
        let error = bootstrap(command).map(drop).unwrap_err();
        let BuildError::Incomplete(report) = error else { panic!("{}", told(&error)) };
        assert!(problems(&report)[0].starts_with(problem), "{report:?}");
    }
    bootstrap("echo '#!/bin/sh' > out/bootstrap && chmod 700 out/bootstrap && touch ").map(drop).unwrap();
}

#[test]
fn what_a_zip_cannot_hold_is_refused_and_named() {
    let repo = zip_with(&[("touch ", "touch 'out/app/a\\\\b.py' ")], APP);
    let error = repo.build().map(drop).unwrap_err();
    assert!(told(&error).contains("a\\b.py cannot be packaged: a zip holds names"), "{}", told(&error));
    let repo = zip_with(&[("\"**/tests\"", "\"[\"")], APP);
    let error = repo.build().map(drop).unwrap_err();
    assert!(told(&error).contains("`exclude` has a pattern"), "{}", told(&error));
}

#[test]
fn a_zip_that_is_larger_than_the_platform_takes_is_refused() {
    let large = [("touch ", "truncate -s 251M out/app/large && touch ")];
    let error = zip_with(&large, APP).build().map(drop).unwrap_err();
    let BuildError::Incomplete(report) = error else { panic!("{}", told(&error)) };
    assert_eq!(problems(&report), ["the zip has 251 MB when it is unpacked, and the platform takes 250 MB"]);
}

fn problems(report: &Report) -> Vec<String> {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

//! What must not be inside an artefact.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use semel_build::lint::Scanner;
use semel_build::pipeline::{Blame, BuildError};
use semel_model::digest::Digest;
use semel_model::statement::LINT;
use serde_json::{Value, json};

use crate::support::{Done, Repo};

/// Put together here, so that no scanner finds it in this file.
fn secret() -> String {
    format!("{}{}", "AK", "IAQWERTYUIOP234567")
}

/// A project whose artefact is everything below `app/`.
fn project(more: &str) -> String {
    format!(
        "format = 1\ncomponent = \"shop/api\"\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"app\", to = \"/app\" }}]\n{more}"
    )
}

fn forbidden(error: &BuildError) -> Vec<String> {
    assert_eq!(error.blame(), Blame::Artefact, "{error}");
    error.problems().into_iter().map(|(problem, _)| problem).collect()
}

fn report(done: &Done) -> &Value {
    &done.built.claims.iter().find(|claim| claim.predicate_type == LINT).unwrap().predicate
}

#[test]
fn everything_that_must_not_be_inside_is_named_at_once_and_no_value_is_repeated() {
    let config = "[config]\nDATABASE_URL = { type = \"url\", secret = true }\n[environment.factory]\n";
    let repo = Repo::with(
        &project(config),
        &[
            ("app/main.py", &format!("import os\nKEY = \"{}\"\n", secret())),
            ("app/.env", "LEVEL=debug\n"),
            ("app/config.factory.yaml", "level: debug\n"),
            ("app/start.sh", "export DATABASE_URL=postgres://db.shop.net/shop\n"),
            ("app/fine.txt", "nothing to see\n"),
        ],
    )
    .committed();
    let error = repo.build().map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the artefact carries what it must not: 4 found");
    assert!(error.hint().unwrap().contains("[[waiver]]"));
    let found = forbidden(&error);
    assert_eq!(
        found,
        [
            "/app/main.py:2: an AWS access key (AKIA…, 20 characters) [secret/aws-access-key]",
            "/app/start.sh:1: a value for `DATABASE_URL`, which the contract leaves to the environment [shape/contract-value]",
            "/app/.env: variables of one environment [shape/env-file]",
            "/app/config.factory.yaml: configuration of the environment `factory` [shape/environment-file]",
        ]
    );
}

#[test]
fn of_many_findings_in_one_file_the_first_are_told_and_the_rest_counted() {
    let keys = format!("key = {}\n", secret()).repeat(150);
    let repo = Repo::with(&project(""), &[("app/keys", &keys)]).committed();
    let found = forbidden(&repo.build().map(|_| ()).unwrap_err());
    assert_eq!(found.len(), 100);
    let last =
        "/app/keys:100: an AWS access key (AKIA…, 20 characters), and 50 more of this rule in this file";
    assert!(found.iter().any(|found| found.starts_with(last)), "{found:?}");
}

#[test]
fn what_pip_installed_is_other_peoples_wherever_it_lies() {
    let documented = "\"\"\"amqp://guest:hunter2@broker.shop.net\"\"\"\n";
    let record = ("app/lib/kombu-5.3.dist-info/RECORD", "kombu/transport/azure.py,sha256=x,1\n");
    let files = [("app/lib/kombu/transport/azure.py", documented), record];
    let done = Repo::with(&project(""), &files).committed().built();
    let found = &report(&done)["findings"];
    assert_eq!(
        (&found[0]["severity"], &found[0]["rule"]),
        (&json!("warning"), &json!("secret/password-in-url"))
    );
    let own = Repo::with(&project(""), &[files[0], record, ("app/lib/own.py", documented)]).committed();
    assert_eq!(
        forbidden(&own.build().map(|_| ()).unwrap_err()),
        ["/app/lib/own.py:1: a password in a URL (h…, 7 characters) [secret/password-in-url]"]
    );
}

#[test]
fn a_front_end_with_an_inlined_address_is_not_published() {
    let build = "[build]\nrun = \"VITE_API=https://api.shop.net/v1 sh bundle.sh\"\n";
    let repo = Repo::with(
        &project(build),
        &[("bundle.sh", "mkdir -p app\nprintf 'fetch(\"%s/orders\")' \"$VITE_API\" > app/main.js\n")],
    )
    .committed();
    let found = forbidden(&repo.build().map(|_| ()).unwrap_err());
    assert_eq!(
        found,
        ["/app/main.js:1: the value that `VITE_API` ([build] run) had during the build [inlined/variable]"]
    );
}

#[test]
fn a_value_of_the_repository_inside_the_artefact_is_found() {
    let config = "[config]\nPAYMENTS = { type = \"url\" }\nGREETING = { type = \"string\", default = \"good day to you\" }\nSALT = { type = \"string\" }\n[environment.production]\nvalues = \"config/production.toml\"\n";
    let values = "PAYMENTS = \"https://pay.shop.net/v2\"\nGREETING = \"good day to you\"\nSALT = \"correct-horse-battery\"\n";
    let repo = Repo::with(
        &project(config),
        &[
            ("config/production.toml", values),
            ("app/client.py", "PAY = \"https:\\/\\/pay.shop.net\\/v2\"\n"),
            ("app/greet.py", "print('good day to you', 'Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5')\n"),
        ],
    )
    .committed();
    let found = forbidden(&repo.build().map(|_| ()).unwrap_err());
    assert_eq!(
        found,
        [
            "/app/client.py: the value that config/production.toml gives `PAYMENTS`, escaped for JSON [taint/value]"
        ]
    );
    repo.write("app/client.py", "import os\nPAY = os.environ['PAYMENTS']\n");
    repo.commit("fix: read the address");
    let done = repo.built();
    let warned = &report(&done)["findings"];
    assert_eq!(warned[0]["path"], "/app/greet.py");
    assert_eq!(warned[0]["what"], "the value that config/production.toml gives `SALT`, in base64");
    assert_eq!(warned[1], Value::Null, "a default of the contract is inside by right");
}

#[test]
fn a_waiver_lets_its_finding_pass_until_it_runs_out_and_is_part_of_the_report() {
    let file = ("app/test.key", format!("{}\n", secret()));
    let waiver = |until: &str| {
        format!(
            "[[waiver]]\nrule = \"secret/aws-access-key\"\npath = \"/app/*.key\"\nreason = \"revoked, kept for a test\"\nuntil = {until}\n"
        )
    };
    let repo = Repo::with(&project(&waiver("2999-12-31")), &[(file.0, &file.1)]).committed();
    let done = repo.built();
    let waived = &report(&done)["waived"][0];
    assert_eq!(waived["reason"], "revoked, kept for a test");
    assert_eq!(waived["finding"]["rule"], "secret/aws-access-key");
    assert!(!report(&done).to_string().contains(&secret()));
    let key = repo.source().key();
    repo.write("semel.toml", &project(&waiver("2020-01-01")));
    repo.commit("fix: waiver");
    assert_eq!(repo.source().key(), key, "a waiver changes no byte");
    let error = repo.build().map(|_| ()).unwrap_err();
    assert_eq!(forbidden(&error).len(), 1);
    let hint = error.hint().unwrap();
    assert!(hint.contains("for /app/*.key ran out on 2020-01-01"), "{hint}");
    repo.write("semel.toml", &project(&waiver("2999-12-31").replace("revoked, kept for a test", "x")));
    repo.commit("fix: reason");
    let error = repo.resolve().map(|_| ()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("needs a reason") && cause.contains("10 characters or more"), "{cause}");
}

#[test]
fn a_secret_in_a_base_is_found_even_if_a_later_layer_deletes_it() {
    let layers = [layer("srv/key.txt", secret().as_bytes()), layer("srv/.wh.key.txt", b"")];
    let repo = on_base(&layers, &[]);
    let found = forbidden(&repo.build().map(|_| ()).unwrap_err());
    assert_eq!(
        found,
        [
            "/srv/key.txt:1: an AWS access key (AKIA…, 20 characters), deleted by a later layer and still in the bytes [secret/aws-access-key]"
        ]
    );
}

#[test]
fn an_address_of_one_environment_in_the_variables_of_a_base_is_found() {
    let repo = on_base(&[layer("srv/x", b"x")], &["PATH=/bin", "API_URL=https://api.staging.shop.net"]);
    let error = repo.build().map(|_| ()).unwrap_err();
    assert_eq!(
        forbidden(&error),
        [
            "image configuration: Env API_URL: the address `api.staging.shop.net`, which belongs to one environment [inlined/address]"
        ]
    );
    assert!(error.problems()[0].1.contains("[config]"), "{:?}", error.problems());
}

/// A project with one file, on a base of these layers with these variables.
fn on_base(layers: &[(Vec<u8>, Digest)], env: &[&str]) -> Repo {
    let repo = Repo::with("", &[("tool", "#!/bin/sh\n"), (".gitignore", "base\n")]);
    let base = write_base(&repo, layers, env);
    repo.write(
        "semel.toml",
        &format!(
            "format = 1\ncomponent = \"shop/api\"\n[artefact]\nkind = \"image\"\nbase = \"base@{base}\"\n\
             files = [{{ from = \"tool\", to = \"/tool\" }}]\n"
        ),
    );
    repo.committed()
}

/// A compressed layer of one file, and the digest of its tar bytes.
fn layer(path: &str, content: &[u8]) -> (Vec<u8>, Digest) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, path, content).unwrap();
    let tar = archive.into_inner().unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
    gzip.write_all(&tar).unwrap();
    (gzip.finish().unwrap(), Digest::of(&tar))
}

/// Writes an OCI layout `base` into the project, and gives the digest of its manifest.
fn write_base(repo: &Repo, layers: &[(Vec<u8>, Digest)], env: &[&str]) -> Digest {
    let dir = repo.path().join("base");
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": env }, "rootfs": { "type": "layers", "diff_ids": diff_ids }
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers: Vec<_> =
        layers.iter().map(|(bytes, _)| blob("application/vnd.oci.image.layer.v1.tar+gzip", bytes)).collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers })
        .to_string();
    let descriptor = blob(media_type, manifest.as_bytes());
    fs::write(dir.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string()).unwrap();
    fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string())
        .unwrap();
    Digest::of(manifest.as_bytes())
}

#[test]
fn no_bytes_make_the_scanner_fail() {
    use proptest::prelude::*;
    const ANCHORS: &[&str] = &[
        "-----BEGIN PRIVATE KEY-----",
        "://a:b@",
        "eyJhbGciOi.eyJ.",
        "SG.",
        "AKIA",
        "xoxb-1",
        "_authToken=",
    ];
    let pieces = prop_oneof![
        proptest::sample::select(ANCHORS).prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..80),
        Just(vec![b'a'; 5000]),
    ];
    proptest!(ProptestConfig::with_cases(200), |(pieces in proptest::collection::vec(pieces, 0..20))| {
        let bytes = pieces.concat();
        let length = Scanner::new().stream(bytes.as_slice(), &mut |_| {}).unwrap();
        prop_assert_eq!(length, bytes.len() as u64);
    });
}

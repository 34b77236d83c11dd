//! Golden tests of the documents that more than the model writes: docs/format.md says what they mean.
//!
//! A failure here means that what exists today could not be read. The answer is a new format number, never a new
//! expectation.

use jiff::Timestamp;
use semel_engine::reserve::SourceDocument;
use semel_model::build::{BuildInputs, Bump, CommitFact, Line};
use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::name::CommitId;
use semel_store::backup::Manifest;
use semel_store::{DatabaseKind, Identity};

#[test]
fn the_identity_of_a_store_is_frozen() {
    let identity = Identity {
        format: 1,
        id: "0123456789abcdef".to_owned(),
        origin: "0123456789abcdef.semel".to_owned(),
        ledger_key: "a key".to_owned(),
        database: None,
    };
    let text =
        r#"{"format":1,"id":"0123456789abcdef","ledger_key":"a key","origin":"0123456789abcdef.semel"}"#;
    assert_eq!(canonical_text(&identity), text);
    assert_eq!(serde_json::from_str::<Identity>(text).unwrap(), identity);

    let elsewhere = Identity { database: Some(DatabaseKind::Postgresql), ..identity };
    let text = text.replace(r#""format""#, r#""database":"postgresql","format""#);
    assert_eq!(canonical_text(&elsewhere), text);
    assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), elsewhere);
}

#[test]
fn the_description_of_a_backup_is_frozen() {
    let manifest = Manifest {
        format: 1,
        store: "0123456789abcdef".to_owned(),
        entries: 7,
        checkpoint: "note\n".to_owned(),
        time: "2026-11-22T19:50:00Z".parse::<Timestamp>().unwrap(),
    };
    let text = concat!(
        r#"{"checkpoint":"note\n","entries":7,"format":1,"store":"0123456789abcdef","#,
        r#""time":"2026-11-22T19:50:00Z"}"#
    );
    assert_eq!(canonical_text(&manifest), text);
    assert_eq!(serde_json::from_str::<Manifest>(text).unwrap(), manifest);
}

#[test]
fn the_source_document_of_a_build_is_frozen() {
    let commit: CommitId = "4f1c2ab".repeat(6)[..40].parse().unwrap();
    let document = SourceDocument {
        v: 1,
        inputs: BuildInputs {
            v: 1,
            component: "shop/api".parse().unwrap(),
            format: 1,
            source: Digest::of(b"source"),
            definition: Digest::of(b"definition"),
            bases: vec![Digest::of(b"base")],
            salt: 0,
        },
        commit: commit.clone(),
        tree: "tree".to_owned(),
        line: Line::Branch("refunds".to_owned()),
        head: None,
        follows: Some("1.4.1".parse().unwrap()),
        bump: Bump::Minor,
        since: vec![CommitFact {
            id: commit,
            parents: Vec::new(),
            author: "a1b2c3d4e5f60718".to_owned(),
            subject: "feat: refunds".to_owned(),
            bump: Bump::Minor,
            outside: false,
        }],
    };
    let text = canonical_text(&document)
        .replace(Digest::of(b"source").as_str(), "<source>")
        .replace(Digest::of(b"definition").as_str(), "<definition>")
        .replace(Digest::of(b"base").as_str(), "<base>")
        .replace(document.commit.as_str(), "<commit>");
    assert_eq!(
        text,
        concat!(
            r#"{"bump":"minor","commit":"<commit>","follows":"1.4.1","#,
            r#""inputs":{"bases":["<base>"],"component":"shop/api","definition":"<definition>","format":1,"#,
            r#""salt":0,"source":"<source>","v":1},"line":{"branch":"refunds"},"#,
            r#""since":[{"author":"a1b2c3d4e5f60718","bump":"minor","id":"<commit>","parents":[],"#,
            r#""subject":"feat: refunds"}],"tree":"tree","v":1}"#
        )
    );
}

fn canonical_text<T: serde::Serialize>(document: &T) -> String {
    String::from_utf8(canonical::bytes(document)).unwrap()
}

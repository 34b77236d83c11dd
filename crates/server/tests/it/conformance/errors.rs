//! Refusals: a closed list of codes, in one form.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use semel_model::digest::Digest;
use semel_oci::error::ErrorCode;
use semel_oci::transport::Body;

use super::Registry;
use crate::{Heard, refused};

/// Method, path below the component, headers, body, status and code.
type Row =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, u16, ErrorCode);

const OCI: [(&str, &str); 1] = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
const NEEDY: &str = r#"{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":2},"layers":[]}"#;

/// `HERE` is a blob and `BOUND` a version of the component, `UPLOAD` an open upload, `ABSENT` a digest that is not here.
const ROWS: [Row; 23] = [
    ("GET", "blobs/ABSENT", &[], "", 404, ErrorCode::BlobUnknown),
    (
        "PATCH",
        "blobs/uploads/UPLOAD",
        &[("content-range", "5-9")],
        "semel",
        416,
        ErrorCode::BlobUploadInvalid,
    ),
    ("PATCH", "blobs/uploads/UPLOAD", &[("content-range", "x")], "semel", 400, ErrorCode::BlobUploadInvalid),
    ("PATCH", "blobs/uploads/UPLOAD", &[("content-range", "0-9")], "semel", 400, ErrorCode::SizeInvalid),
    ("GET", "blobs/uploads/none", &[], "", 404, ErrorCode::BlobUploadUnknown),
    ("PUT", "blobs/uploads/none?digest=ABSENT", &[], "", 404, ErrorCode::BlobUploadUnknown),
    ("POST", "blobs/uploads/?digest=ABSENT", &[], "semel", 400, ErrorCode::DigestInvalid),
    ("POST", "blobs/uploads/?digest-algorithm=md5", &[], "", 400, ErrorCode::DigestInvalid),
    ("GET", "blobs/sha256:abc", &[], "", 400, ErrorCode::DigestInvalid),
    ("GET", "blobs/HERE", &[("range", "bytes=9-1")], "", 416, ErrorCode::SizeInvalid),
    ("PUT", "manifests/latest", &OCI, NEEDY, 400, ErrorCode::ManifestBlobUnknown),
    ("PUT", "manifests/latest", &OCI, "{", 400, ErrorCode::ManifestInvalid),
    ("PUT", "manifests/latest", &[("content-type", "text/plain")], "{}", 400, ErrorCode::ManifestInvalid),
    ("GET", "manifests/9.9.9", &[], "", 404, ErrorCode::ManifestUnknown),
    ("GET", "manifests/ABSENT", &[], "", 404, ErrorCode::ManifestUnknown),
    ("GET", "Upper/tags/list", &[], "", 400, ErrorCode::NameInvalid),
    ("GET", "none/tags/list", &[], "", 404, ErrorCode::NameUnknown),
    ("GET", "none/manifests/latest", &[], "", 404, ErrorCode::NameUnknown),
    ("PUT", "manifests/1.0.0", &[("if-none-match", "*")], "BYTES", 412, ErrorCode::Denied),
    ("DELETE", "manifests/1.0.0", &[], "", 405, ErrorCode::Unsupported),
    ("POST", "tags/list", &[], "", 405, ErrorCode::Unsupported),
    ("GET", "tags/list?n=x", &[], "", 400, ErrorCode::Unsupported),
    ("GET", "nothing", &[], "", 404, ErrorCode::Unsupported),
];

/// The form of every refusal.
fn assert_form(heard: &Heard, case: &str) {
    assert_eq!(heard.header("content-type"), "application/json", "{case}");
    assert_eq!(heard.header("content-length"), heard.body.len().to_string(), "{case}");
    let body = heard.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{case}: {body}");
    let entry = body["errors"][0].as_object().unwrap();
    assert!(entry.keys().all(|key| matches!(key.as_str(), "code" | "message" | "detail")), "{case}: {body}");
    let message = heard.message();
    assert!(!message.is_empty() && message.len() < 400 && !message.contains('\n'), "{case}: {message}");
}

#[tokio::test]
async fn every_refusal_has_the_form_and_a_code_of_the_specification() {
    let registry = Registry::new().await;
    let image = registry.push("1.0.0", "content").await;
    let here = Digest::of(b"content");
    let absent = Digest::of(registry.component.as_bytes());
    let upload = registry.start().await;
    let id = upload.rsplit('/').next().unwrap();
    for (method, rest, headers, body, status, code) in ROWS {
        let rest =
            rest.replace("ABSENT", absent.as_str()).replace("HERE", here.as_str()).replace("UPLOAD", id);
        let body = if body == "BYTES" { image.bytes.clone() } else { Bytes::from_static(body.as_bytes()) };
        let heard = registry.send(method, &registry.path(&rest), headers, body).await;
        let case = format!("{method} {rest}");
        assert_eq!(heard.refusal(), refused(status, code.as_str()), "{case}");
        assert_form(&heard, &case);
    }
}

#[tokio::test]
async fn a_refusal_of_head_has_no_body() {
    let registry = Registry::new().await;
    registry.push("1.0.0", "content").await;
    for (method, rest, headers, _, status, _) in ROWS.iter().filter(|row| row.0 == "GET") {
        let rest = rest.replace("ABSENT", Digest::of(b"absent").as_str());
        if *status == 416 || rest.contains("uploads") {
            continue;
        }
        let heard = registry.send("HEAD", &registry.path(&rest), headers, "").await;
        assert_eq!((heard.status, heard.body.len()), (*status, 0), "{method} {rest}");
    }
}

#[test]
fn every_code_is_the_answer_to_some_request() {
    let told: BTreeSet<&str> = ROWS.iter().map(|row| row.5.as_str()).chain(["TOOMANYREQUESTS"]).collect();
    // Nobody signs in yet, so nobody is asked to.
    let all = ErrorCode::ALL.iter().map(|code| code.as_str()).filter(|code| *code != "UNAUTHORIZED");
    assert_eq!(told, all.collect());
}

#[tokio::test]
async fn who_writes_to_an_upload_under_way_is_asked_to_come_again() {
    let Some((registry, _house)) = Registry::own().await else { return };
    let upload = registry.start().await;
    let begun = stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"se")))]);
    let endless = Body::new(StreamBody::new(begun.chain(stream::pending())));
    let under_way = registry.transport.send(Request::patch(&upload).body(endless).unwrap());
    tokio::time::pause();
    let patch = registry.send("PATCH", &upload, &[], "mel");
    let (heard, ()) = tokio::select! {
        biased;
        answer = under_way => panic!("{answer:?}"),
        both = join(patch, tokio::time::advance(Duration::from_secs(6))) => both,
    };
    assert_eq!(heard.refusal(), refused(429, "TOOMANYREQUESTS"));
    assert_eq!(heard.header("retry-after"), "1");
    assert_form(&heard, "PATCH");
}

//! The base of the API, and what every answer has in common.

use super::Registry;
use crate::refused;

#[tokio::test]
async fn the_base_says_that_this_is_a_registry() {
    let registry = Registry::new().await;
    for path in ["/v2", "/v2/"] {
        for (method, body) in [("GET", "{}"), ("HEAD", "")] {
            let heard = registry.send(method, path, &[], "").await;
            assert_eq!((heard.status, &heard.body[..]), (200, body.as_bytes()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_answer_says_which_protocol_is_spoken() {
    let registry = Registry::new().await;
    let digest = registry.push_blob("a blob").await;
    for rest in ["", "tags/list", "manifests/none", &format!("blobs/{digest}"), "blobs/x", "nothing/here"] {
        let heard = registry.get(rest).await;
        assert_eq!(heard.header("docker-distribution-api-version"), "registry/2.0", "{rest}");
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_answered_with_those_that_it_knows() {
    let registry = Registry::new().await;
    let digest = registry.push_blob("a blob").await;
    let upload = registry.start().await;
    let paths = [
        ("/v2/".to_owned(), "GET, HEAD"),
        ("/v2/_catalog".to_owned(), "GET, HEAD"),
        (registry.path("tags/list"), "GET, HEAD"),
        (registry.path(&format!("referrers/{digest}")), "GET, HEAD"),
        (registry.path("blobs/uploads/"), "POST"),
        (upload, "GET, HEAD, PATCH, PUT, DELETE"),
        (registry.path(&format!("blobs/{digest}")), "GET, HEAD, DELETE"),
        (registry.path("manifests/latest"), "GET, HEAD, PUT, DELETE"),
    ];
    for (path, known) in paths {
        let known: Vec<&str> = known.split(", ").collect();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"] {
            if known.contains(&method) {
                continue;
            }
            let heard = registry.send(method, &path, &[], "").await;
            assert_eq!(heard.status, 405, "{method} {path}");
            if method != "HEAD" {
                assert_eq!(heard.refusal(), refused(405, "UNSUPPORTED"), "{method} {path}");
            }
            // Whether something may be deleted also depends on what it is.
            let allowed = heard.header("allow").split(", ").filter(|method| *method != "DELETE");
            let expected = known.iter().copied().filter(|method| *method != "DELETE");
            assert_eq!(allowed.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{method} {path}");
        }
    }
}

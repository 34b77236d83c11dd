//! The API as it is described: a change of it is seen in review.

use semel_server::api::openapi;

#[test]
fn the_described_api_is_what_was_reviewed() {
    insta::assert_json_snapshot!("openapi", openapi::document());
}

#[test]
fn every_operation_has_a_summary_and_an_answer() {
    let document = openapi::document();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 25, "{}", paths.len());
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 10), "{method} {path}");
            assert!(
                operation["responses"]["200"]["content"]["application/json"]["schema"].is_object(),
                "{method} {path}"
            );
        }
    }
}

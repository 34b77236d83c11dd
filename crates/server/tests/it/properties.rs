//! The property of uploads of `fuzz/`, for its corpus and some hundred mutations of it.

#[path = "../../../../fuzz/properties/mutate.rs"]
mod mutate;
#[path = "../../../../fuzz/properties/upload.rs"]
mod upload;

use std::path::Path;

#[test]
fn whatever_is_sent_to_an_upload_the_session_has_what_was_accepted() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/upload");
    mutate::each(&corpus, 300, upload::check);
}

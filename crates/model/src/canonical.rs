//! Canonical JSON (RFC 8785): the one spelling of a document, so that its digest means its content.

use serde::Serialize;

use crate::digest::Digest;

/// The canonical bytes of a document.
///
/// # Panics
/// When the value cannot be JSON at all (a map with keys that are no strings): a defect in the type, not in data.
pub fn bytes<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(document).expect("our documents are JSON objects with text keys")
}

/// The digest of a document's canonical bytes.
pub fn digest<T: Serialize>(document: &T) -> Digest {
    Digest::of(&bytes(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_nothing_is_added() {
        let document = serde_json::json!({"b": [1, "é\u{7}"], "a": {"z": null, "y": true}});
        assert_eq!(
            String::from_utf8(bytes(&document)).unwrap(),
            "{\"a\":{\"y\":true,\"z\":null},\"b\":[1,\"é\\u0007\"]}"
        );
    }
}

//! What holds for all bytes that somebody sends as a manifest.

use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::{ImageManifest, Index, ParsedManifest};
use semel_oci::media_type;
use serde_json::Value;

/// The first byte says which content type comes with the rest.
const SENT: [Option<&str>; 6] = [
    None,
    Some(media_type::OCI_MANIFEST),
    Some(media_type::OCI_INDEX),
    Some(media_type::DOCKER_MANIFEST),
    Some(media_type::DOCKER_MANIFEST_LIST),
    Some("application/json"),
];

/// What is accepted is one thing, for every reader, and stays it when it is written again.
pub(crate) fn check(data: &[u8]) {
    let Some((first, document)) = data.split_first() else { return };
    let sent = SENT[usize::from(*first) % SENT.len()];
    let Ok(parsed) = ParsedManifest::parse(document, sent) else { return };
    is_one_thing(&parsed, sent);
    reads_the_same_elsewhere(document, &parsed);
    survives_writing(parsed);
}

fn is_one_thing(parsed: &ParsedManifest, sent: Option<&str>) {
    assert!(media_type::is_manifest(&parsed.media_type));
    assert!(sent.is_none_or(|sent| sent == parsed.media_type));
    match parsed.is_index() {
        true => assert!(parsed.config.is_none() && parsed.layers.is_empty()),
        false => assert!(parsed.config.is_some() && parsed.manifests.is_empty()),
    }
}

/// A lenient reader, which takes the last of two keys, sees the same.
fn reads_the_same_elsewhere(document: &[u8], parsed: &ParsedManifest) {
    let lenient: Value = serde_json::from_slice(document).expect("what is accepted is JSON");
    let written = serde_json::to_vec(&lenient).expect("a value can be written");
    let again = ParsedManifest::parse(&written, Some(&parsed.media_type));
    assert_eq!(again.as_ref().ok(), Some(parsed), "{again:?}");
}

fn survives_writing(parsed: ParsedManifest) {
    // Kept as it is in the bytes; nothing of ours reads it.
    let plain = |descriptors: Vec<Descriptor>| -> Vec<Descriptor> {
        descriptors.into_iter().map(|descriptor| Descriptor { platform: None, ..descriptor }).collect()
    };
    let single = |descriptor: Option<Descriptor>| plain(descriptor.into_iter().collect()).pop();
    let expected = ParsedManifest {
        media_type: if parsed.is_index() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST }
            .to_owned(),
        config: single(parsed.config),
        layers: plain(parsed.layers),
        manifests: plain(parsed.manifests),
        subject: single(parsed.subject),
        ..parsed
    };
    let ParsedManifest { artifact_type, config, layers, manifests, subject, annotations, .. } =
        expected.clone();
    let encoded = match config {
        Some(config) => ImageManifest { artifact_type, config, layers, subject, annotations }.encode(),
        None => Index { artifact_type, manifests, subject, annotations }.encode(),
    };
    let again = ParsedManifest::parse(&encoded.bytes, Some(&encoded.descriptor.media_type));
    assert_eq!(again.ok(), Some(expected));
}

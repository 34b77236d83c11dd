//! Descriptors: the pointer of the OCI formats, which says type, digest and size of what it points to.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use semel_model::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize};

use crate::media_type;

/// Annotations of a descriptor or a manifest, by key.
pub type Annotations = BTreeMap<String, String>;

/// An OCI content descriptor (image-spec 1.1 `descriptor.md`).
///
/// Written in one frozen order of keys, with whatever is empty left out. Fields that the specification does not name
/// are not kept: who needs the document as it was keeps its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// Other places of the same bytes.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by key.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
    /// The bytes themselves in base64, when they are small enough to travel along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// For which machine a manifest of an index is made; kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<serde_json::Value>,
    /// What an artefact is, when the descriptor points to a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor that says only type, digest and size.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: Annotations::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of some bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The descriptor of the empty object `{}` (image-spec 1.1 `manifest.md`, "Guidance for an Empty Descriptor").
    pub fn empty() -> Self {
        Self::of(media_type::OCI_EMPTY, b"{}")
    }

    /// The embedded bytes, if there are some. `None` also when they are not what digest and size say.
    pub fn embedded(&self) -> Option<Vec<u8>> {
        let bytes = BASE64.decode(self.data.as_ref()?).ok()?;
        (bytes.len() as u64 == self.size && self.digest.matches(&bytes)).then_some(bytes)
    }
}

/// Reads `null` like an absent field: Go programs write an empty list so.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_written_in_one_order_and_without_empty_fields() {
        let plain = serde_json::to_string(&Descriptor::empty()).unwrap();
        assert_eq!(
            plain,
            "{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e\
             94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2}"
        );
        let mut full = Descriptor::empty();
        full.urls.push("https://example.com/x".into());
        full.annotations.insert("k".into(), "v".into());
        full.data = Some("e30=".into());
        full.platform = Some(serde_json::json!({"os": "linux"}));
        full.artifact_type = Some(media_type::SEMEL_ARCHIVE.into());
        let text = serde_json::to_string(&full).unwrap();
        let order =
            ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];
        let places: Vec<_> = order.iter().map(|key| text.find(&format!("\"{key}\"")).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
        assert_eq!(serde_json::from_str::<Descriptor>(&text).unwrap(), full);
    }

    #[test]
    fn embedded_bytes_are_given_only_when_they_are_the_right_ones() {
        let mut descriptor = Descriptor::empty();
        assert_eq!(descriptor.embedded(), None);
        descriptor.data = Some("e30=".into());
        assert_eq!(descriptor.embedded(), Some(b"{}".to_vec()));
        descriptor.data = Some("W10=".into());
        assert_eq!(descriptor.embedded(), None);
    }

    #[test]
    fn null_lists_are_read_as_empty() {
        let text = format!(
            r#"{{"mediaType":"x","digest":"{}","size":2,"urls":null,"annotations":null,"unknown":1}}"#,
            Descriptor::empty().digest
        );
        let read: Descriptor = serde_json::from_str(&text).unwrap();
        assert!(read.urls.is_empty() && read.annotations.is_empty());
    }
}

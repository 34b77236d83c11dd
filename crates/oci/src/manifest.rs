//! Manifests: reading them without losing a byte, and writing them in one spelling.
//!
//! A manifest's identity is the digest of its bytes, so bytes are never rebuilt from what was parsed:
//! [`ParsedManifest`] is a summary beside them. What Semel writes itself ([`ImageManifest`], [`Index`]) is canonical
//! JSON, so the same content always has the same digest.

use std::cell::Cell;
use std::fmt;

use bytes::Bytes;
use semel_model::canonical;
use semel_model::digest::Digest;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::descriptor::{Annotations, Descriptor, null_is_empty};
use crate::media_type;

/// The most bytes that a manifest may have: the 4 MiB that the specification asks for (distribution-spec 1.1, "Pushing
/// Manifests"), and no more, since other registries take no more.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// How deep the JSON of a manifest may be nested.
const MAX_DEPTH: usize = 32;

/// How many JSON values a manifest may hold. As many descriptors as fit into [`MAX_MANIFEST_BYTES`] hold two thirds of it;
/// without a limit, a manifest of `[],[],[]` takes twenty times its size in memory.
const MAX_VALUES: usize = 256 * 1024;

/// The largest size that every reader counts alike, and that canonical JSON can say (RFC 7493 §2.2).
const MAX_SIZE: u64 = (1 << 53) - 1;

/// What a manifest says, for those who need to act on it. The bytes stay with the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedManifest {
    /// What the document is, one of [`media_type::MANIFEST_TYPES`].
    pub media_type: String,
    /// What the artefact is: the field `artifactType`, else for an image manifest the type of its configuration.
    pub artifact_type: Option<String>,
    /// The configuration of an image manifest.
    pub config: Option<Descriptor>,
    /// The layers of an image manifest.
    pub layers: Vec<Descriptor>,
    /// The entries of an index.
    pub manifests: Vec<Descriptor>,
    /// The artefact that this one is about (a referrer).
    pub subject: Option<Descriptor>,
    /// Free text by key.
    pub annotations: Annotations,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// Beyond [`MAX_MANIFEST_BYTES`].
    #[error("the manifest has {size} bytes; at most {MAX_MANIFEST_BYTES} are accepted")]
    TooLarge {
        /// How many it has.
        size: usize,
    },
    /// No JSON, or JSON with a repeated key, or nested too deep, or with a field of the wrong type.
    #[error("the manifest is not well-formed")]
    Malformed(#[source] serde_json::Error),
    /// `schemaVersion` is not 2.
    #[error("the manifest's schemaVersion is {found}; only 2 is accepted")]
    SchemaVersion {
        /// What it is.
        found: String,
    },
    /// A type that is none of a manifest.
    #[error("`{media_type}` is not the media type of a manifest")]
    MediaType {
        /// The type.
        media_type: String,
    },
    /// The body says another type than the request or the descriptor.
    #[error("the manifest says that it is `{body}` but was sent as `{content_type}`")]
    Disagreement {
        /// What the body says.
        body: String,
        /// What was said about it.
        content_type: String,
    },
    /// Fields of an image and of an index in one document: two readers would see two artefacts.
    #[error("the manifest has `{field}`, which does not belong in `{media_type}`")]
    Mixed {
        /// The field that does not belong.
        field: &'static str,
        /// What the document is.
        media_type: String,
    },
    /// A field that some readers would take for another one.
    #[error("the manifest has `{field}`, which some readers take for `{meant}`")]
    Spelling {
        /// As it is written.
        field: String,
        /// The field of the specification.
        meant: &'static str,
    },
    /// A field that must be there is not.
    #[error("the manifest lacks `{field}`")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A size that some readers would take for another one.
    #[error("the descriptor of {digest} says {size} bytes, which not every reader can count")]
    Size {
        /// The descriptor's digest.
        digest: Digest,
        /// The size in bytes.
        size: u64,
    },
    /// The embedded data of a descriptor is not what its digest and size say.
    #[error("the data embedded in the descriptor of {digest} does not match it")]
    EmbeddedData {
        /// The descriptor's digest.
        digest: Digest,
    },
}

impl ParsedManifest {
    /// Reads a manifest. The content type is what the request, the answer or the descriptor says; without one the
    /// body must say it or leave no doubt.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, InvalidManifest> {
        let document = read_document(bytes)?;
        let media_type = decide_media_type(&document, content_type)?;
        let parsed = match media_type::is_index(&media_type) {
            true => read_index(document, media_type)?,
            false => read_image(document, media_type)?,
        };
        parsed.check_descriptors()?;
        Ok(parsed)
    }

    /// Whether it is a manifest of manifests.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// The blobs that must be present for the artefact to be whole: configuration, layers, and what an index lists that
    /// is no manifest. Non-distributable layers are not among them; see [`Self::optional_blobs`].
    pub fn required_blobs(&self) -> Vec<&Descriptor> {
        let layers = self.layers.iter().filter(|layer| !media_type::is_nondistributable(&layer.media_type));
        let listed = self.manifests.iter().filter(|entry| !media_type::is_manifest(&entry.media_type));
        self.config.iter().chain(layers).chain(listed).collect()
    }

    /// The blobs that may lie elsewhere.
    pub fn optional_blobs(&self) -> Vec<&Descriptor> {
        self.layers.iter().filter(|layer| media_type::is_nondistributable(&layer.media_type)).collect()
    }

    /// The manifests that an index lists.
    pub fn required_manifests(&self) -> Vec<&Descriptor> {
        self.manifests.iter().filter(|entry| media_type::is_manifest(&entry.media_type)).collect()
    }

    fn check_descriptors(&self) -> Result<(), InvalidManifest> {
        let all = self.config.iter().chain(&self.layers).chain(&self.manifests).chain(&self.subject);
        for descriptor in all {
            if descriptor.size > MAX_SIZE {
                let (digest, size) = (descriptor.digest.clone(), descriptor.size);
                return Err(InvalidManifest::Size { digest, size });
            }
            if descriptor.data.is_some() && descriptor.embedded().is_none() {
                return Err(InvalidManifest::EmbeddedData { digest: descriptor.digest.clone() });
            }
        }
        Ok(())
    }
}

/// An image manifest to be written, also that of an archive, a serverless package or a piece of evidence
/// (image-spec 1.1 `manifest.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// What the artefact is, when it is no container image.
    pub artifact_type: Option<String>,
    /// The configuration; [`Descriptor::empty`] when there is none.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The artefact that this one is about.
    pub subject: Option<Descriptor>,
    /// Free text by key.
    pub annotations: Annotations,
}

/// An index to be written (image-spec 1.1 `image-index.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// What the artefact is.
    pub artifact_type: Option<String>,
    /// The entries, in the order that clients try.
    pub manifests: Vec<Descriptor>,
    /// The artefact that this one is about.
    pub subject: Option<Descriptor>,
    /// Free text by key.
    pub annotations: Annotations,
}

/// A manifest in its final bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedManifest {
    /// The bytes, canonical JSON.
    pub bytes: Bytes,
    /// The descriptor that points to them: type, digest, size and `artifactType`.
    pub descriptor: Descriptor,
}

impl ImageManifest {
    /// An artefact that is about another one: evidence, an SBOM, a signature. Its payload is in its layers.
    ///
    /// Of the subject only type, digest and size are kept, so that the same evidence about the same artefact has the
    /// same digest whoever writes it.
    pub fn referrer(
        subject: &Descriptor,
        artifact_type: &str,
        layers: Vec<Descriptor>,
        annotations: Annotations,
    ) -> Self {
        let subject = Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size);
        Self {
            artifact_type: Some(artifact_type.to_owned()),
            config: Descriptor::empty(),
            layers,
            subject: Some(subject),
            annotations,
        }
    }

    /// The final bytes.
    pub fn encode(&self) -> EncodedManifest {
        let wire = Wire {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST,
            artifact_type: self.artifact_type.as_deref(),
            config: Some(&self.config),
            layers: Some(&self.layers),
            manifests: None,
            subject: self.subject.as_ref(),
            annotations: &self.annotations,
        };
        wire.encode()
    }
}

impl Index {
    /// The final bytes.
    pub fn encode(&self) -> EncodedManifest {
        let wire = Wire {
            schema_version: 2,
            media_type: media_type::OCI_INDEX,
            artifact_type: self.artifact_type.as_deref(),
            config: None,
            layers: None,
            manifests: Some(&self.manifests),
            subject: self.subject.as_ref(),
            annotations: &self.annotations,
        };
        wire.encode()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    schema_version: u32,
    media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<&'a [Descriptor]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifests: Option<&'a [Descriptor]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
}

impl Wire<'_> {
    fn encode(&self) -> EncodedManifest {
        let bytes = canonical::bytes(self);
        let mut descriptor = Descriptor::of(self.media_type, &bytes);
        descriptor.artifact_type = self.artifact_type.map(str::to_owned);
        EncodedManifest { bytes: bytes.into(), descriptor }
    }
}

/// The fields that matter, each told apart from its absence.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: Value,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    /// Of the Docker format before schema 2.
    #[serde(default)]
    fs_layers: Option<Value>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: Annotations,
    /// Whether `manifests` is there at all: Go programs write an empty list as `null`.
    #[serde(skip)]
    lists_manifests: bool,
}

fn read_document(bytes: &[u8]) -> Result<Document, InvalidManifest> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(InvalidManifest::TooLarge { size: bytes.len() });
    }
    let value = strict_json(bytes).map_err(InvalidManifest::Malformed)?;
    require_one_reading(&value)?;
    let lists_manifests = value.get("manifests").is_some();
    let mut document: Document = serde_json::from_value(value).map_err(InvalidManifest::Malformed)?;
    document.lists_manifests = lists_manifests;
    if document.schema_version != 2 {
        let found = match &document.schema_version {
            Value::Null => "absent".to_owned(),
            other => other.to_string().chars().take(40).collect(),
        };
        return Err(InvalidManifest::SchemaVersion { found });
    }
    Ok(document)
}

/// Refuses what only some readers would understand: a list of values where an object is meant, which ours would take,
/// and a field of the specification in another case, which readers written in Go take for the field itself.
fn require_one_reading(document: &Value) -> Result<(), InvalidManifest> {
    let list = |field| document.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let single = ["config", "subject"].into_iter().filter_map(|field| document.get(field));
    let descriptors = single.chain(list("layers")).chain(list("manifests")).filter(|value| !value.is_null());
    check_fields(document, &MANIFEST_FIELDS)?;
    descriptors.into_iter().try_for_each(|descriptor| check_fields(descriptor, &DESCRIPTOR_FIELDS))
}

const MANIFEST_FIELDS: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "fsLayers",
    "subject",
    "annotations",
];

const DESCRIPTOR_FIELDS: [&str; 8] =
    ["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];

fn check_fields(value: &Value, specified: &[&'static str]) -> Result<(), InvalidManifest> {
    let Some(object) = value.as_object() else {
        let error = serde::de::Error::custom("a manifest and its descriptors are JSON objects");
        return Err(InvalidManifest::Malformed(error));
    };
    // Both directions: the long s and the Kelvin sign are each changed by one of them only.
    let fold = |text: &str| text.to_lowercase().to_uppercase();
    for field in object.keys().filter(|field| !specified.contains(&field.as_str())) {
        let folded = fold(field);
        if let Some(meant) = specified.iter().find(|name| fold(name) == folded) {
            return Err(InvalidManifest::Spelling { field: field.chars().take(40).collect(), meant });
        }
    }
    Ok(())
}

fn decide_media_type(document: &Document, content_type: Option<&str>) -> Result<String, InvalidManifest> {
    let sent = content_type.map(media_type::essence).filter(|sent| !sent.is_empty());
    let body = non_empty(document.media_type.clone());
    let decided = match (body, sent) {
        (Some(body), Some(sent)) if body != sent => {
            return Err(InvalidManifest::Disagreement { body, content_type: sent });
        }
        (Some(said), _) | (None, Some(said)) => said,
        (None, None) if document.lists_manifests => media_type::OCI_INDEX.to_owned(),
        (None, None) => media_type::OCI_MANIFEST.to_owned(),
    };
    if !media_type::is_manifest(&decided) {
        return Err(InvalidManifest::MediaType { media_type: decided.chars().take(160).collect() });
    }
    Ok(decided)
}

fn read_index(document: Document, media_type: String) -> Result<ParsedManifest, InvalidManifest> {
    for (present, field) in [
        (document.config.is_some(), "config"),
        (document.layers.is_some(), "layers"),
        (document.fs_layers.is_some(), "fsLayers"),
    ] {
        if present {
            return Err(InvalidManifest::Mixed { field, media_type });
        }
    }
    if !document.lists_manifests {
        return Err(InvalidManifest::Missing { field: "manifests" });
    }
    Ok(ParsedManifest {
        media_type,
        artifact_type: non_empty(document.artifact_type),
        config: None,
        layers: Vec::new(),
        manifests: document.manifests.unwrap_or_default(),
        subject: document.subject,
        annotations: document.annotations,
    })
}

fn read_image(document: Document, media_type: String) -> Result<ParsedManifest, InvalidManifest> {
    for (present, field) in
        [(document.manifests.is_some(), "manifests"), (document.fs_layers.is_some(), "fsLayers")]
    {
        if present {
            return Err(InvalidManifest::Mixed { field, media_type });
        }
    }
    let config = document.config.ok_or(InvalidManifest::Missing { field: "config" })?;
    let artifact_type =
        non_empty(document.artifact_type).or_else(|| non_empty(Some(config.media_type.clone())));
    Ok(ParsedManifest {
        media_type,
        artifact_type,
        config: Some(config),
        layers: document.layers.unwrap_or_default(),
        manifests: Vec::new(),
        subject: document.subject,
        annotations: document.annotations,
    })
}

fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// JSON in which every key stands once, nothing is nested deeper than [`MAX_DEPTH`] and there are at most [`MAX_VALUES`]:
/// of a key that stands twice, one reader takes the first value and another the last.
fn strict_json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let values_left = Cell::new(MAX_VALUES);
    let strict = Strict { depth_left: MAX_DEPTH, values_left: &values_left };
    let value = strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth_left: usize,
    values_left: &'a Cell<usize>,
}

impl Strict<'_> {
    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        match self.values_left.get().checked_sub(1) {
            Some(left) => {
                self.values_left.set(left);
                Ok(())
            }
            None => Err(E::custom(format_args!("more than {MAX_VALUES} values"))),
        }
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(deeper)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut fields = serde_json::Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(deeper)?;
            if fields.contains_key(&key) {
                return Err(serde::de::Error::custom(format_args!("the key `{key}` stands twice")));
            }
            fields.insert(key, value);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer() -> Value {
        json!({"mediaType": media_type::OCI_LAYER_GZIP, "digest": Digest::of(b"layer"), "size": 5})
    }

    fn config() -> Value {
        json!({"mediaType": media_type::OCI_CONFIG, "digest": Digest::of(b"{}"), "size": 2})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config(), "layers": [layer()]})
    }

    fn with(mut document: Value, key: &str, value: Value) -> Value {
        document[key] = value;
        document
    }

    fn parse(document: &Value, content_type: Option<&str>) -> Result<ParsedManifest, InvalidManifest> {
        ParsedManifest::parse(document.to_string().as_bytes(), content_type)
    }

    #[test]
    fn an_image_manifest_is_summarised() {
        let parsed = parse(&with(image(), "unknown", json!(1)), Some(media_type::OCI_MANIFEST)).unwrap();
        assert_eq!(parsed.artifact_type.as_deref(), Some(media_type::OCI_CONFIG));
        assert_eq!(parsed.required_blobs().len(), 2);
        assert!(parsed.required_manifests().is_empty() && !parsed.is_index());
    }

    #[test]
    fn the_type_of_a_document_comes_from_the_body_the_request_or_its_fields() {
        let untyped = with(image(), "mediaType", Value::Null);
        let index = json!({"schemaVersion": 2, "manifests": null});
        let cases = [
            (image(), None, media_type::OCI_MANIFEST),
            (untyped.clone(), None, media_type::OCI_MANIFEST),
            (
                untyped.clone(),
                Some("application/vnd.docker.distribution.manifest.v2+json"),
                media_type::DOCKER_MANIFEST,
            ),
            (
                image(),
                Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
                media_type::OCI_MANIFEST,
            ),
            (index, None, media_type::OCI_INDEX),
        ];
        for (document, content_type, expected) in cases {
            assert_eq!(parse(&document, content_type).unwrap().media_type, expected, "{document}");
        }
    }

    #[test]
    fn documents_that_two_readers_could_read_differently_are_refused() {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        let wrong_data = with(layer(), "data", json!("e30="));
        let cases = [
            (with(image(), "manifests", json!([])), None, "`manifests`, which does not belong"),
            (with(index.clone(), "layers", json!([layer()])), None, "`layers`, which does not belong"),
            (with(index.clone(), "config", config()), None, "`config`, which does not belong"),
            (with(image(), "fsLayers", json!([])), None, "`fsLayers`, which does not belong"),
            (image(), Some(media_type::OCI_INDEX), "was sent as"),
            (with(image(), "mediaType", json!("text/plain")), None, "not the media type of a manifest"),
            (with(image(), "schemaVersion", json!(1)), None, "schemaVersion is 1"),
            (with(image(), "schemaVersion", Value::Null), None, "schemaVersion is absent"),
            (with(image(), "config", Value::Null), None, "lacks `config`"),
            (json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX}), None, "lacks `manifests`"),
            (with(image(), "layers", json!([wrong_data])), None, "does not match"),
            (
                with(image(), "layers", json!([with(layer(), "digest", json!("sha256:x"))])),
                None,
                "not well-formed",
            ),
            (with(image(), "layers", json!([with(layer(), "size", json!(-1))])), None, "not well-formed"),
            (
                with(image(), "layers", json!([with(layer(), "size", json!(1_u64 << 53))])),
                None,
                "not every reader",
            ),
            (with(image(), "annotations", json!({"a": 1})), None, "not well-formed"),
            (with(image(), "Layers", json!([])), None, "`Layers`, which some readers take for `layers`"),
            (with(image(), "layer\u{17f}", json!([])), None, "which some readers take for `layers`"),
            (with(image(), "config", with(config(), "SIZE", json!(9))), None, "some readers take for `size`"),
            (json!([2, media_type::OCI_MANIFEST]), None, "not well-formed"),
            (with(image(), "config", json!(["text/plain", Digest::of(b"{}"), 2])), None, "not well-formed"),
            (with(image(), "layers", json!([["text/plain", Digest::of(b"{}"), 2]])), None, "not well-formed"),
        ];
        for (document, content_type, expected) in cases {
            let message = parse(&document, content_type).unwrap_err().to_string();
            assert!(message.contains(expected), "{document}: {message}");
        }
    }

    #[test]
    fn repeated_keys_deep_nesting_and_trailing_bytes_are_refused() {
        let twice = r#"{"schemaVersion":2,"config":null,"config":null}"#.to_owned();
        let twice_inside = r#"{"schemaVersion":2,"annotations":{"a":"1","a":"2"}}"#.to_owned();
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(40), "]".repeat(40));
        let bottomless = "[".repeat(100_000);
        let trailing = format!("{} x", image());
        let many = format!("{{\"x\":[{}0]}}", "0,".repeat(MAX_VALUES));
        let bom = "\u{feff}{}".to_owned();
        for text in [twice, twice_inside, deep, bottomless, many, trailing, String::new(), bom] {
            let error = ParsedManifest::parse(text.as_bytes(), None).unwrap_err();
            assert!(matches!(error, InvalidManifest::Malformed(_)), "{error:?}");
        }
    }

    #[test]
    fn large_manifests_are_accepted_up_to_the_limit() {
        let annotations: Annotations = (0..390).map(|i| (format!("k{i}"), "v".repeat(10_000))).collect();
        let large = with(image(), "annotations", json!(annotations));
        assert_eq!(parse(&large, None).unwrap().annotations.len(), 390);
        let error = ParsedManifest::parse(&vec![b' '; MAX_MANIFEST_BYTES + 1], None).unwrap_err();
        assert!(matches!(error, InvalidManifest::TooLarge { .. }));
    }

    #[test]
    fn layers_that_lie_elsewhere_are_not_required() {
        let foreign = json!({
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "digest": Digest::of(b"far"),
            "size": 3, "urls": ["https://example.com/far"],
        });
        let parsed = parse(&with(image(), "layers", json!([layer(), foreign])), None).unwrap();
        assert_eq!(parsed.required_blobs().len(), 2);
        assert_eq!(parsed.optional_blobs()[0].digest, Digest::of(b"far"));
    }

    #[test]
    fn an_index_requires_its_manifests_and_the_blobs_that_it_lists() {
        let child = Descriptor::of(media_type::OCI_MANIFEST, b"child");
        let cache = Descriptor::of(media_type::OCI_LAYER_GZIP, b"cache");
        let manifests = vec![child.clone(), cache.clone()];
        let index = Index { artifact_type: None, manifests, subject: None, annotations: Annotations::new() };
        let parsed = ParsedManifest::parse(&index.encode().bytes, None).unwrap();
        assert_eq!(parsed.required_manifests(), [&child]);
        assert_eq!(parsed.required_blobs(), [&cache]);
        assert_eq!(parsed.artifact_type, None);
    }

    #[test]
    fn what_is_written_is_canonical_and_reads_back() {
        let subject = Descriptor::of(media_type::OCI_MANIFEST, b"subject");
        let payload = Descriptor::of(media_type::SIGSTORE_BUNDLE, b"payload");
        let annotations = Annotations::from([("org.example.a".into(), "b".into())]);
        let manifest = ImageManifest::referrer(
            &subject,
            media_type::SIGSTORE_BUNDLE,
            vec![payload.clone()],
            annotations.clone(),
        );
        let encoded = manifest.encode();
        assert!(
            encoded
                .bytes
                .starts_with(br#"{"annotations":{"org.example.a":"b"},"artifactType":"application/"#)
        );
        assert_eq!(encoded.descriptor.digest, Digest::of(&encoded.bytes));
        assert_eq!(encoded.descriptor.artifact_type.as_deref(), Some(media_type::SIGSTORE_BUNDLE));
        let parsed = ParsedManifest::parse(&encoded.bytes, Some(&encoded.descriptor.media_type)).unwrap();
        assert_eq!(parsed.subject, Some(subject));
        assert_eq!(parsed.layers, [payload]);
        assert_eq!(parsed.annotations, annotations);
        assert_eq!(parsed.config, Some(Descriptor::empty()));
    }

    #[test]
    fn the_spelling_of_an_image_manifest_is_frozen() {
        let manifest = ImageManifest {
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, b"{}"),
            layers: vec![Descriptor::of(media_type::OCI_LAYER_GZIP, b"layer")],
            subject: None,
            annotations: Annotations::new(),
        };
        let expected = format!(
            r#"{{"config":{{"digest":"{}","mediaType":"application/vnd.oci.image.config.v1+json","size":2}},"layers":[{{"digest":"{}","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":5}}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}}"#,
            Digest::of(b"{}"),
            Digest::of(b"layer")
        );
        assert_eq!(manifest.encode().bytes, expected.as_bytes());
    }
}

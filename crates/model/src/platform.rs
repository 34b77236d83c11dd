//! Platforms: what a part of an artefact runs on, in the words of the OCI image specification (image-index.md).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// An operating system and a processor: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7`, where the architecture has variants.
    pub variant: Option<String>,
}

/// Why some text names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: write os/architecture, such as linux/amd64")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The platform of images that are built here: Linux, on the processor that this program was compiled for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// As a descriptor of an index says it (image-index.md, `platform`).
    pub fn to_oci(&self) -> Value {
        let mut value = json!({ "architecture": self.architecture, "os": self.os });
        if let Some(variant) = &self.variant {
            value["variant"] = json!(variant);
        }
        value
    }

    /// Reads what a descriptor of an index says.
    pub fn from_oci(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let variant = text("variant").map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", text("os")?, text("architecture")?).parse().ok()
    }

    /// Whether a descriptor of an index is for this platform. A part that names no variant is for every one.
    pub fn is_met_by(&self, platform: &Value) -> bool {
        let text = |key: &str| platform.get(key).and_then(Value::as_str);
        let variant = text("variant");
        text("os") == Some(&self.os)
            && text("architecture") == Some(&self.architecture)
            && (self.variant.is_none() || variant.is_none() || variant == self.variant.as_deref())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.variant {
            Some(variant) => f.pad(&format!("{}/{}/{variant}", self.os, self.architecture)),
            None => f.pad(&format!("{}/{}", self.os, self.architecture)),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        let words: Vec<&str> = text.split('/').collect();
        let owned = |word: &str| word.to_owned();
        match words.as_slice() {
            [os, architecture] if is_word(os) && is_word(architecture) => {
                Ok(Self { os: owned(os), architecture: owned(architecture), variant: None })
            }
            [os, architecture, variant] if words.iter().all(|word| is_word(word)) => {
                Ok(Self { os: owned(os), architecture: owned(architecture), variant: Some(owned(variant)) })
            }
            _ => Err(InvalidPlatform(text.to_owned())),
        }
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Platform {
    fn schema_name() -> Cow<'static, str> {
        "Platform".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An operating system and a processor, such as linux/amd64."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_an_operating_system_and_a_processor() {
        for text in ["linux/amd64", "linux/arm/v7", "wasi/wasm"] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), text);
            assert_eq!(Platform::from_oci(&platform.to_oci()), Some(platform));
        }
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/a b", "all"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_without_a_variant_is_for_every_one() {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        for (wanted, part, met) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/arm64", "linux/amd64", false),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/v6", false),
        ] {
            assert_eq!(parse(wanted).is_met_by(&parse(part).to_oci()), met, "{wanted} by {part}");
        }
    }
}

//! Names: components, environments, tags.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no name of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what} name: {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, text: text.chars().take(160).collect(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "description": concat!("A ", $what, " name: ", $rule)})
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_newtype!(
    /// A component, which is also its OCI repository name (distribution-spec 1.1, "Pulling manifests": `<name>`).
    ComponentName,
    "component",
    "lower-case letters, digits, `.`, `_`, `-` and `/` between them, at most 200 characters",
    is_component
);

text_newtype!(
    /// An environment: `[a-z][a-z0-9-]{0,29}`, so it can never be read as a version.
    EnvironmentName,
    "environment",
    "a lower-case letter, then lower-case letters, digits and `-`, at most 30 characters",
    is_environment
);

text_newtype!(
    /// An OCI tag (distribution-spec 1.1): a version or a channel, see [`crate::version::TagMeaning`].
    Tag,
    "tag",
    "letters, digits, `_`, `.` and `-`, not starting with `.` or `-`, at most 128 characters",
    is_tag
);

text_newtype!(
    /// A key of the configuration contract, which is also the name of an environment variable.
    ConfigKey,
    "configuration key",
    "a letter or `_`, then letters, digits and `_`; the prefix `SEMEL_` is reserved",
    is_config_key
);

text_newtype!(
    /// A git commit: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
    CommitId,
    "commit",
    "40 or 64 lower-case hexadecimal digits",
    is_commit
);

impl CommitId {
    /// The first seven digits, as git shows them.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

fn is_component(text: &str) -> bool {
    text.len() <= 200 && !text.is_empty() && text.split('/').all(is_component_part)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component_part(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well =
        bytes.first().is_some_and(|b| alphanumeric(*b)) && bytes.last().is_some_and(|b| alphanumeric(*b));
    if !ends_well {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

fn is_environment(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 30
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_config_key(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 128
        && !text.starts_with("SEMEL_")
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_names_follow_the_distribution_specification() {
        for good in ["a", "shop/api", "a.b_c__d-e---f/g0", "0"] {
            assert!(good.parse::<ComponentName>().is_ok(), "{good}");
        }
        for bad in ["", "A", "/a", "a/", "a//b", "a..b", "a___b", "-a", "a-", "a b", "ä", "a/../b", "a.-b"] {
            assert!(bad.parse::<ComponentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_environment_is_never_version_like() {
        for good in ["dev", "production", "eu-west-2"] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        for bad in ["", "1", "1.4.2", "Prod", "v1.2.3", "a_b", "averyveryverylongenvironmentname"] {
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_prefix_of_injected_variables_is_reserved() {
        assert!("SEMEL_VERSION".parse::<ConfigKey>().is_err());
        assert!("PORT".parse::<ConfigKey>().is_ok());
        assert!("1PORT".parse::<ConfigKey>().is_err());
    }
}

//! Helm charts: what their `Chart.yaml` says.
//!
//! Source: Helm, "The Chart.yaml File" and "Use OCI-based registries": the configuration of the artefact is `Chart.yaml` as
//! JSON, the tag is the version with `_` in place of `+`, the last part of the repository is the name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use semel_model::canonical;
use semel_model::name::{ComponentName, Tag};
use semel_oci::descriptor::Annotations;
use serde::Deserialize;
use serde_json::Value;

const CHART_FILE: &str = "Chart.yaml";
/// Larger than any that a person writes.
const MAX_CHART_FILE_BYTES: u64 = 1024 * 1024;
/// How much of an archive is uncompressed in search of it.
const MAX_SEARCHED_BYTES: u64 = 256 * 1024 * 1024;

/// What is in a chart's `Chart.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    name: String,
    version: String,
    all: Value,
}

/// Why a file is no chart, or not this one.
#[derive(Debug, thiserror::Error)]
pub enum InvalidChart {
    /// It cannot be read.
    #[error("the chart cannot be read")]
    Read(#[source] io::Error),
    /// `Chart.yaml` is no YAML, or does not say what it must.
    #[error("its {CHART_FILE} {0}")]
    Content(String),
    /// It is stored under another name or version.
    #[error("it is {found}, so it is pushed as {wanted}")]
    Name {
        /// Its own name and version.
        found: String,
        /// What Helm would ask for.
        wanted: String,
    },
}

impl Chart {
    /// Reads a chart archive; `None`: it is an archive of something else.
    pub fn read(archive: &Path) -> Result<Option<Self>, InvalidChart> {
        let found = find_chart_file(archive).map_err(InvalidChart::Read)?;
        found.map(|text| Self::parse(&text)).transpose()
    }

    fn parse(text: &str) -> Result<Self, InvalidChart> {
        let content = |problem: String| InvalidChart::Content(problem);
        let invalid = |error| content(format!("is not valid YAML: {error}"));
        let mut all: Value = serde_saphyr::from_str(text).map_err(invalid)?;
        let texts: Texts = serde_saphyr::from_str(text).map_err(invalid)?;
        texts.put_into(&mut all);
        let field = |key: &str| match all.get(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            _ => Err(content(format!("has no text `{key}`"))),
        };
        Ok(Self { name: field("name")?, version: field("version")?, all })
    }

    /// The configuration of the artefact: `Chart.yaml` as canonical JSON.
    pub fn config(&self) -> Vec<u8> {
        canonical::bytes(&self.all)
    }

    /// The annotations that Helm sets, without the time.
    pub fn annotations(&self) -> Annotations {
        let text = |key: &str| self.all.get(key).and_then(Value::as_str).map(str::to_owned);
        let source = self.all.get("sources").and_then(|sources| sources.get(0)).and_then(Value::as_str);
        let pairs = [
            ("title", Some(self.name.clone())),
            ("version", Some(self.version.clone())),
            ("description", text("description")),
            ("url", text("home")),
            ("source", source.map(str::to_owned)),
        ];
        let named =
            |(key, value): (&str, Option<String>)| Some((format!("org.opencontainers.image.{key}"), value?));
        pairs.into_iter().filter_map(named).collect()
    }

    /// Whether Helm would find the chart under this name.
    pub(crate) fn check_name(&self, component: &ComponentName, tag: &Tag) -> Result<(), InvalidChart> {
        let (above, last) = match component.as_str().rsplit_once('/') {
            Some((above, last)) => (format!("{above}/"), last),
            None => (String::new(), component.as_str()),
        };
        let wanted_tag = self.version.replace('+', "_");
        if last == self.name && tag.as_str() == wanted_tag {
            return Ok(());
        }
        Err(InvalidChart::Name {
            found: format!("{} {}", self.name, self.version),
            wanted: format!("{above}{}@{wanted_tag}", self.name),
        })
    }
}

/// What is text for Helm also where its author wrote a number without quotes, as in `appVersion: 1.10`. As a number in the
/// configuration, Helm could not read the chart; and it would be another number.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Texts {
    version: Option<String>,
    app_version: Option<String>,
    kube_version: Option<String>,
    annotations: Option<BTreeMap<String, Option<String>>>,
    dependencies: Option<Vec<Dependency>>,
}

#[derive(Deserialize)]
struct Dependency {
    version: Option<String>,
}

impl Texts {
    /// Replaces what YAML made of the texts by what is written.
    fn put_into(self, all: &mut Value) {
        let fields =
            [("version", self.version), ("appVersion", self.app_version), ("kubeVersion", self.kube_version)];
        for (key, text) in fields {
            put(all.get_mut(key), text);
        }
        for (key, text) in self.annotations.into_iter().flatten() {
            put(all.get_mut("annotations").and_then(|annotations| annotations.get_mut(&key)), text);
        }
        for (number, dependency) in self.dependencies.into_iter().flatten().enumerate() {
            let there = all.get_mut("dependencies").and_then(|dependencies| dependencies.get_mut(number));
            put(there.and_then(|dependency| dependency.get_mut("version")), dependency.version);
        }
    }
}

fn put(there: Option<&mut Value>, text: Option<String>) {
    if let (Some(there), Some(text)) = (there, text) {
        *there = Value::String(text);
    }
}

/// `NAME/Chart.yaml`, the first one at that depth.
fn find_chart_file(archive: &Path) -> io::Result<Option<String>> {
    let unpacked = MultiGzDecoder::new(File::open(archive)?).take(MAX_SEARCHED_BYTES);
    for entry in tar::Archive::new(unpacked).entries()? {
        let entry = entry?;
        let path = entry.path_bytes();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let mut parts = path.split(|byte| *byte == b'/');
        let at_depth = parts.next().is_some() && parts.next() == Some(CHART_FILE.as_bytes());
        if at_depth && parts.next().is_none() {
            if entry.size() > MAX_CHART_FILE_BYTES {
                return Err(io::Error::other(format!("its {CHART_FILE} has {} bytes", entry.size())));
            }
            let mut text = String::new();
            entry.take(MAX_CHART_FILE_BYTES).read_to_string(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v2\nname: shop\nversion: 1.2.3+5\ndescription: >\n  sells\n  things\nsources: [https://example.com/shop]\nkeywords:\n- a\n";

    #[test]
    fn a_chart_says_what_helm_reads() {
        let chart = Chart::parse(TEXT).unwrap();
        assert_eq!(
            String::from_utf8(chart.config()).unwrap(),
            "{\"apiVersion\":\"v2\",\"description\":\"sells things\\n\",\"keywords\":[\"a\"],\"name\":\"shop\",\
             \"sources\":[\"https://example.com/shop\"],\"version\":\"1.2.3+5\"}"
        );
        assert_eq!(chart.annotations()["org.opencontainers.image.source"], "https://example.com/shop");
    }

    #[test]
    fn what_is_text_for_helm_is_what_was_written_also_without_quotes() {
        let text = "name: shop\nversion: 1.20\nappVersion: 1.10\nkubeVersion: 1.3e1\ndescription: ~\n\
                    annotations: {beta: true, port: 0080, none: ~}\n\
                    dependencies: [{name: db, version: 14.0}, {name: cache}]\n";
        let chart = Chart::parse(text).unwrap();
        assert_eq!(
            String::from_utf8(chart.config()).unwrap(),
            "{\"annotations\":{\"beta\":\"true\",\"none\":null,\"port\":\"0080\"},\"appVersion\":\"1.10\",\
             \"dependencies\":[{\"name\":\"db\",\"version\":\"14.0\"},{\"name\":\"cache\"}],\
             \"description\":null,\"kubeVersion\":\"1.3e1\",\"name\":\"shop\",\"version\":\"1.20\"}"
        );
        assert!(chart.check_name(&"shop".parse().unwrap(), &"1.20".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_chart_is_stored_where_helm_looks_for_it() {
        let chart = Chart::parse(TEXT).unwrap();
        let check = |component: &str, tag: &str| {
            chart
                .check_name(&component.parse().unwrap(), &tag.parse().unwrap())
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("charts/shop", "1.2.3_5"), Ok(()));
        for (component, tag) in [("charts/store", "1.2.3_5"), ("charts/shop", "1.2.3"), ("shop", "v1.2.3_5")]
        {
            assert!(check(component, tag).unwrap_err().contains("shop@1.2.3_5"), "{component} {tag}");
        }
    }

    #[test]
    fn what_does_not_say_name_and_version_is_no_chart() {
        for text in
            ["", "name: shop", "name: shop\nversion: {}", "- a", "name: [", "name: ''\nversion: 1.0.0"]
        {
            assert!(Chart::parse(text).is_err(), "{text}");
        }
    }
}

//! What an artefact asks to run: read from its manifest and its configuration blob.
//!
//! Two shapes are understood: an image (OCI image specification 1.1, config.md: `Entrypoint`, `Cmd`, `WorkingDir`,
//! `Env`) and our archive, whose configuration blob is `{"v":1,"entrypoint":[…],"needs":[…]}`. Nothing is fetched here.

use std::collections::BTreeMap;

use semel_model::deployment::{InvalidNeed, Need};
use semel_model::digest::Digest;
use semel_model::platform::Platform;
use semel_oci::compression::Compression;
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::{InvalidManifest, ParsedManifest};
use semel_oci::media_type;
use serde::Deserialize;

/// The media type of an archive's configuration blob.
pub const ARCHIVE_CONFIG: &str = "application/vnd.semel.archive.config.v1+json";

/// How large a configuration blob may be.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What an artefact asks to run, and the layers that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseSpec {
    /// The program and its arguments, as paths inside the artefact.
    pub entrypoint: Vec<String>,
    /// The directory inside the artefact to run in, beginning with `/`.
    pub workdir: String,
    /// Variables that hold where the environment's values say nothing.
    pub defaults: BTreeMap<String, String>,
    /// What the host must have.
    pub needs: Vec<Need>,
    /// The layers, lowest first.
    pub(crate) layers: Vec<Layer>,
    /// The configuration blob, as it is.
    pub(crate) config_blob: Vec<u8>,
}

/// One layer and how it is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// Why an artefact cannot run in a directory.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRelease {
    /// Not a manifest at all.
    #[error("the manifest cannot be read")]
    Manifest(#[source] InvalidManifest),
    /// A list of artefacts, none of which is for this machine.
    #[error("this is an index of {parts} artefacts, none of them for {host}")]
    Index {
        /// How many it lists.
        parts: usize,
        /// What this machine is.
        host: Platform,
    },
    /// A list of lists.
    #[error("this is an index of indexes: deploy the digest of one artefact")]
    Nested,
    /// Something that nobody can start.
    #[error(
        "an artefact of type {found} is neither an image nor a Semel archive: a directory target cannot run it"
    )]
    Kind {
        /// What its manifest says.
        found: String,
    },
    /// The configuration blob is broken.
    #[error("its configuration blob cannot be read")]
    Config(#[source] serde_json::Error),
    /// The configuration blob is one of a later format.
    #[error(
        "its archive configuration has format {found}, newer than this program knows (1): use the newer semel"
    )]
    Newer {
        /// The format.
        found: u32,
    },
    /// Nothing to start.
    #[error("it names no entrypoint: set `entrypoint` under [artefact] and build it again")]
    NoEntrypoint,
    /// A need that cannot be understood.
    #[error("its list of needs cannot be read")]
    Need(#[source] InvalidNeed),
    /// A layer that cannot be unpacked here.
    #[error(
        "layer {digest} has media type {media_type}, which a directory target cannot unpack (tar, tar+gzip and tar+zstd can)"
    )]
    Layer {
        /// Which layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
}

impl ReleaseSpec {
    /// Reads an artefact's manifest and its configuration blob. Both must have been checked against their digests.
    pub fn from_artefact(manifest: &[u8], config: &[u8]) -> Result<Self, InvalidRelease> {
        let manifest = parse_manifest(manifest)?;
        let kind = kind_of(&manifest)?;
        let layers = manifest.layers.iter().map(layer).collect::<Result<_, _>>()?;
        let spec = match kind {
            Kind::Image => from_image(config, layers)?,
            Kind::Archive => from_archive(config, layers)?,
        };
        if spec.entrypoint.first().is_none_or(String::is_empty) {
            return Err(InvalidRelease::NoEntrypoint);
        }
        Ok(spec)
    }
}

/// The configuration blob that a manifest names.
pub(crate) fn config_of(manifest: &[u8]) -> Result<Descriptor, InvalidRelease> {
    let manifest = parse_manifest(manifest)?;
    kind_of(&manifest)?;
    manifest.config.ok_or(InvalidRelease::NoEntrypoint)
}

/// The part of an index that this machine runs; none: the manifest is no index.
pub(crate) fn part_for_host(manifest: &[u8]) -> Result<Option<Descriptor>, InvalidRelease> {
    let manifest = ParsedManifest::parse(manifest, None).map_err(InvalidRelease::Manifest)?;
    if !manifest.is_index() {
        return Ok(None);
    }
    let (host, parts) = (Platform::host(), manifest.manifests.len());
    let is_for_host =
        |part: &Descriptor| part.platform.as_ref().is_some_and(|platform| host.is_met_by(platform));
    match manifest.manifests.into_iter().find(is_for_host) {
        Some(part) => Ok(Some(part)),
        None => Err(InvalidRelease::Index { parts, host }),
    }
}

fn parse_manifest(bytes: &[u8]) -> Result<ParsedManifest, InvalidRelease> {
    let manifest = ParsedManifest::parse(bytes, None).map_err(InvalidRelease::Manifest)?;
    if manifest.is_index() {
        return Err(InvalidRelease::Nested);
    }
    Ok(manifest)
}

enum Kind {
    Image,
    Archive,
}

fn kind_of(manifest: &ParsedManifest) -> Result<Kind, InvalidRelease> {
    let config = manifest.config.as_ref().map_or("", |config| config.media_type.as_str());
    let artifact_type = manifest.artifact_type.as_deref().unwrap_or(config);
    match (artifact_type, config) {
        (media_type::SEMEL_ARCHIVE, _) | (_, ARCHIVE_CONFIG) => Ok(Kind::Archive),
        (_, config) if media_type::is_image_config(config) => Ok(Kind::Image),
        (found, _) => Err(InvalidRelease::Kind { found: found.to_owned() }),
    }
}

fn layer(descriptor: &Descriptor) -> Result<Layer, InvalidRelease> {
    let media_type = descriptor.media_type.as_str();
    let (digest, size) = (descriptor.digest.clone(), descriptor.size);
    match Compression::of_layer(media_type) {
        Some(compression) => Ok(Layer { digest, size, compression }),
        None => Err(InvalidRelease::Layer { digest, media_type: media_type.to_owned() }),
    }
}

/// OCI image specification 1.1, config.md: the properties that matter here; all may be missing or null.
#[derive(Deserialize)]
struct ImageConfig {
    config: Option<ImageExecution>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct ImageExecution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    env: Option<Vec<String>>,
}

/// `PATH` and `HOME` of an image describe a file system of its own, which a directory target does not give it.
const NOT_DEFAULTS: [&str; 2] = ["PATH", "HOME"];

fn from_image(config: &[u8], layers: Vec<Layer>) -> Result<ReleaseSpec, InvalidRelease> {
    let parsed: ImageConfig = serde_json::from_slice(config).map_err(InvalidRelease::Config)?;
    let execution = parsed.config.unwrap_or_default();
    let words = execution.entrypoint.into_iter().flatten().chain(execution.cmd.into_iter().flatten());
    let variables = execution.env.into_iter().flatten();
    let pairs =
        variables.filter_map(|v| v.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    Ok(ReleaseSpec {
        entrypoint: words.collect(),
        workdir: execution.working_dir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".to_owned()),
        defaults: pairs.filter(|(name, _)| !NOT_DEFAULTS.contains(&name.as_str())).collect(),
        needs: Vec::new(),
        layers,
        config_blob: config.to_vec(),
    })
}

#[derive(Deserialize)]
struct ArchiveConfig {
    v: u32,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    needs: Vec<String>,
}

fn from_archive(config: &[u8], layers: Vec<Layer>) -> Result<ReleaseSpec, InvalidRelease> {
    let parsed: ArchiveConfig = serde_json::from_slice(config).map_err(InvalidRelease::Config)?;
    if parsed.v > 1 {
        return Err(InvalidRelease::Newer { found: parsed.v });
    }
    let needs = parsed.needs.iter().map(|need| Need::parse(need)).collect::<Result<_, _>>();
    Ok(ReleaseSpec {
        entrypoint: parsed.entrypoint,
        workdir: "/".to_owned(),
        defaults: BTreeMap::new(),
        needs: needs.map_err(InvalidRelease::Need)?,
        layers,
        config_blob: config.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(config_type: &str, layer_type: &str) -> Vec<u8> {
        let config = Descriptor::of(config_type, b"{}");
        let layer = Descriptor::of(layer_type, b"layer");
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer],
        }))
        .unwrap()
    }

    #[test]
    fn an_image_says_what_to_run_and_keeps_its_path_to_itself() {
        let config = br#"{"config":{"Entrypoint":["/app/api"],"Cmd":["--serve"],"WorkingDir":"/app",
            "Env":["PATH=/usr/bin","LANG=C.UTF-8","EMPTY="]}}"#;
        let spec =
            ReleaseSpec::from_artefact(&manifest(media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP), config);
        let spec = spec.unwrap();
        assert_eq!(spec.entrypoint, ["/app/api", "--serve"]);
        assert_eq!(spec.workdir, "/app");
        assert_eq!(spec.defaults.keys().collect::<Vec<_>>(), ["EMPTY", "LANG"]);
        assert_eq!(spec.layers[0].compression, Compression::Gzip);
    }

    #[test]
    fn an_archive_says_what_it_needs() {
        let config = br#"{"v":1,"entrypoint":["node","/app/server.js"],"needs":["node >= 20"]}"#;
        let spec =
            ReleaseSpec::from_artefact(&manifest(ARCHIVE_CONFIG, media_type::OCI_LAYER_TAR), config).unwrap();
        assert_eq!(spec.needs[0].to_string(), "node >= 20");
        assert_eq!(spec.layers[0].compression, Compression::None);
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_reason() {
        let image = manifest(media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP);
        let cases: [(Vec<u8>, &[u8], &str); 5] = [
            (image.clone(), b"{}", "names no entrypoint"),
            (image.clone(), b"not json", "configuration blob cannot be read"),
            (manifest("application/vnd.cncf.helm.config.v1+json", media_type::OCI_LAYER_TAR), b"{}", "helm"),
            (manifest(media_type::OCI_CONFIG, "application/x.tar+encrypted"), b"{}", "tar+encrypted"),
            (manifest(ARCHIVE_CONFIG, media_type::OCI_LAYER_TAR), br#"{"v":2}"#, "format 2"),
        ];
        for (manifest, config, expected) in cases {
            let error = ReleaseSpec::from_artefact(&manifest, config).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! OCI layouts of whatever shape a test needs, written blob by blob.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use semel_model::digest::Digest;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::REF_NAME;
use semel_oci::manifest::{EncodedManifest, ImageManifest, Index};
use semel_oci::media_type;
use serde_json::json;

/// A directory with blobs and an `index.json` that names some of them.
pub(crate) struct Layout {
    dir: PathBuf,
}

/// One layer, as its manifest and its configuration know it.
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    /// The digest before compression.
    pub(crate) diff_id: Digest,
}

impl Layout {
    /// An empty one.
    pub(crate) fn create(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        Self { dir }
    }

    /// As skopeo and umoci name it.
    pub(crate) fn place(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.dir.display())
    }

    /// Adds a blob.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, bytes);
        fs::write(self.path(&descriptor.digest), bytes).unwrap();
        descriptor
    }

    /// Adds a compressed layer of one file.
    pub(crate) fn layer(&self, file: &str, content: &str) -> Layer {
        let archive = archive(file, content);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&archive).unwrap();
        let descriptor = self.blob(media_type::OCI_LAYER_GZIP, &encoder.finish().unwrap());
        Layer { descriptor, diff_id: Digest::of(&archive) }
    }

    /// Adds the configuration of an image.
    pub(crate) fn config(&self, architecture: &str, layers: &[Layer]) -> Descriptor {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        self.blob(media_type::OCI_CONFIG, config.to_string().as_bytes())
    }

    /// Adds an image.
    pub(crate) fn image(&self, architecture: &str, layers: &[Layer], annotations: Annotations) -> Descriptor {
        let manifest = ImageManifest {
            artifact_type: None,
            config: self.config(architecture, layers),
            layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
            subject: None,
            annotations,
        };
        self.manifest(&manifest.encode())
    }

    /// Adds an image of one file.
    pub(crate) fn small(&self, content: &str) -> Descriptor {
        self.image("amd64", &[self.layer("greeting", content)], Annotations::new())
    }

    /// Adds an index of images, each with its architecture.
    pub(crate) fn index(&self, images: &[(&str, Descriptor)]) -> Descriptor {
        let on = |(architecture, image): &(&str, Descriptor)| Descriptor {
            platform: Some(json!({"architecture": architecture, "os": "linux"})),
            ..image.clone()
        };
        let index = Index {
            artifact_type: None,
            manifests: images.iter().map(on).collect(),
            subject: None,
            annotations: Annotations::new(),
        };
        self.manifest(&index.encode())
    }

    /// Adds a manifest.
    pub(crate) fn manifest(&self, manifest: &EncodedManifest) -> Descriptor {
        fs::write(self.path(&manifest.descriptor.digest), &manifest.bytes).unwrap();
        manifest.descriptor.clone()
    }

    /// Names what was added, instead of what had names before.
    pub(crate) fn name(&self, names: &[(&str, &Descriptor)]) {
        let entry = |(name, descriptor): &(&str, &Descriptor)| Descriptor {
            annotations: BTreeMap::from([(REF_NAME.to_owned(), (*name).to_owned())]),
            ..(*descriptor).clone()
        };
        let entries: Vec<Descriptor> = names.iter().map(entry).collect();
        let index = json!({"schemaVersion": 2, "manifests": entries});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// The file of a blob.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }
}

/// The digest of the only entry of a layout.
pub(crate) fn only_entry(dir: &Path) -> String {
    let index = fs::read_to_string(dir.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{index}");
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// A tar archive of one file.
fn archive(file: &str, content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, file, content.as_bytes()).unwrap();
    archive.into_inner().unwrap()
}

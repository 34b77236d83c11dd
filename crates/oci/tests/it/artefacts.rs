//! Small artefacts to work with.

use bytes::Bytes;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::Layout;
use semel_oci::manifest::{EncodedManifest, ImageManifest, Index};
use semel_oci::media_type;

/// An index of two images that share a layer.
pub(crate) struct Example {
    pub(crate) blobs: Vec<(Descriptor, Bytes)>,
    pub(crate) images: Vec<EncodedManifest>,
    pub(crate) index: EncodedManifest,
}

pub(crate) fn pattern(length: usize) -> Bytes {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

fn blob(media_type: &str, bytes: impl Into<Bytes>) -> (Descriptor, Bytes) {
    let bytes = bytes.into();
    (Descriptor::of(media_type, &bytes), bytes)
}

impl Example {
    pub(crate) fn new() -> Self {
        let shared = blob(media_type::OCI_LAYER_GZIP, pattern(3_000_000));
        let mut blobs = vec![shared.clone()];
        let mut images = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let config = blob(media_type::OCI_CONFIG, format!("{{\"architecture\":\"{architecture}\"}}"));
            let layer = blob(media_type::OCI_LAYER_GZIP, format!("layer of {architecture}"));
            let manifest = ImageManifest {
                artifact_type: None,
                config: config.0.clone(),
                layers: vec![shared.0.clone(), layer.0.clone()],
                subject: None,
                annotations: Annotations::new(),
            };
            images.push(manifest.encode());
            blobs.extend([config, layer]);
        }
        let manifests = images.iter().map(|image| image.descriptor.clone()).collect();
        let index = Index { artifact_type: None, manifests, subject: None, annotations: Annotations::new() };
        Self { blobs, images, index: index.encode() }
    }

    /// The example in a new layout, under the name `1.4.2`.
    pub(crate) async fn layout(&self, directory: &std::path::Path) -> Layout {
        let layout = Layout::create(directory).await.unwrap();
        for (descriptor, bytes) in &self.blobs {
            assert!(layout.add_blob(descriptor, &bytes[..]).await.unwrap());
        }
        for EncodedManifest { bytes, descriptor } in &self.images {
            layout.add_manifest(&descriptor.digest, &descriptor.media_type, bytes).await.unwrap();
        }
        let EncodedManifest { bytes, descriptor } = &self.index;
        layout.put_manifest(&descriptor.digest, &descriptor.media_type, bytes, Some("1.4.2")).await.unwrap();
        layout
    }
}

//! Media types: what a blob or a manifest says that it is.
//!
//! Sources: image-spec 1.1 `media-types.md`; Docker "Image Manifest V 2, Schema 2"; Sigstore bundle 0.3; DSSE 1.0.

/// An OCI image manifest (also every artefact that is no image).
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index: several manifests under one digest.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The configuration of an OCI image.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The configuration of a Docker image (image manifest version 2, schema 2).
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// An uncompressed layer.
pub const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer compressed with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer compressed with Zstandard.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The empty JSON object `{}`, where a configuration or a layer is required and there is nothing to say.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// `artifactType` of an artefact of kind `archive`: a file tree.
pub const SEMEL_ARCHIVE: &str = "application/vnd.semel.archive.v1";
/// `artifactType` of an artefact of kind `zip`: a serverless package, byte for byte.
pub const SEMEL_ZIP: &str = "application/vnd.semel.zip.v1";
/// `artifactType` of an artefact of kind `vm`: a disk image.
pub const SEMEL_VM: &str = "application/vnd.semel.vm.v1";
/// `artifactType` of the source tree that an artefact was built from.
pub const SEMEL_SOURCE: &str = "application/vnd.semel.source.v1";
/// `artifactType` of an artefact of kind `file`: files as they are.
pub const SEMEL_FILE: &str = "application/vnd.semel.file.v1";
/// The configuration of a Helm chart: its `Chart.yaml` as JSON (Helm, "Use OCI-based registries").
pub const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// The archive of a Helm chart.
pub const HELM_CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// A Sigstore bundle, version 0.3.
pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The manifest types that Semel reads, in the order in which a client prefers them.
pub const MANIFEST_TYPES: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST];

/// Whether the type is one of the configuration of a container image.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether the type is one of a manifest or an index.
pub fn is_manifest(media_type: &str) -> bool {
    MANIFEST_TYPES.contains(&media_type)
}

/// Whether the type is one of an index: a manifest of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether the type says that the bytes live elsewhere and need not be in the repository.
///
/// image-spec 1.1 `layer.md`, "Non-Distributable Layers" (deprecated, but still found), and Docker's foreign layers.
pub(crate) fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}

/// The type alone: lower case, without parameters such as `; charset=utf-8`.
pub(crate) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_is_compared_without_its_parameters() {
        assert_eq!(essence(" Application/VND.oci.image.index.v1+json ; charset=utf-8"), OCI_INDEX);
        assert_eq!(essence(""), "");
    }

    #[test]
    fn manifests_indexes_and_absent_layers_are_told_apart() {
        assert!(is_manifest(DOCKER_MANIFEST) && !is_index(DOCKER_MANIFEST));
        assert!(is_manifest(DOCKER_MANIFEST_LIST) && is_index(DOCKER_MANIFEST_LIST));
        assert!(!is_manifest(OCI_CONFIG));
        assert!(is_nondistributable("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"));
        assert!(is_nondistributable("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
        assert!(!is_nondistributable(OCI_LAYER_GZIP));
    }
}

//! Zip: packages for serverless platforms, packed, and read.
//!
//! `write.rs` has the frozen bytes; `read.rs` looks into what is there, whoever packed it.

pub(crate) mod read;
mod write;

use std::fs::OpenOptions;
use std::io::{self, BufWriter};
use std::path::Path;

use semel_model::canonical;
use semel_oci::descriptor::Descriptor;
use semel_oci::files::TITLE;
use semel_oci::layout::Layout;
use semel_oci::media_type;
use serde_json::json;

use crate::collect::PackKind;
use crate::package::{self, Content, PackageError, PackageRequest, PackagedLayer};
use crate::planned::Planned;
use crate::provenance::digest_of_file;
use crate::rootfs::shown;
use write::ZipWriter;

/// The configuration of an artefact of kind `zip`: `{v, architecture, runtime?, handler?}` in canonical JSON.
pub const ZIP_CONFIG: &str = "application/vnd.semel.zip.config.v1+json";
/// The media type of its one layer: the zip as it is, so that its digest is what the platform reports of it.
pub(crate) const ZIP: &str = "application/zip";
/// The name of the zip when it is taken out.
const NAME: &str = "function.zip";

/// Packs the files of an artefact and puts the zip into the layout.
pub(crate) async fn content(request: &PackageRequest<'_>, layout: &Layout) -> Result<Content, PackageError> {
    let scratch = request.layout_dir.with_extension("zip");
    let planned = Planned::all(request.files);
    let (seconds, place) = (request.committed_seconds, scratch.clone());
    let written = tokio::task::spawn_blocking(move || write(&planned, seconds, &place)).await;
    let layer = written.unwrap_or_else(|panic| {
        Err(PackageError::Write { path: scratch.clone(), source: io::Error::other(panic) })
    })?;
    package::put_in_place(&scratch, &layout.blob_path(&layer.digest))?;
    let spec = &request.definition.artefact;
    let mut config = json!({ "v": 1, "architecture": request.platform.architecture });
    for (key, value) in [("runtime", &spec.runtime), ("handler", &spec.handler)] {
        if let Some(value) = value {
            config[key] = json!(value);
        }
    }
    let mut descriptor = Descriptor::new(ZIP, layer.digest.clone(), layer.size);
    descriptor.annotations.insert(TITLE.to_owned(), NAME.to_owned());
    Ok(Content {
        artifact_type: Some(media_type::SEMEL_ZIP),
        config_type: ZIP_CONFIG,
        config: canonical::bytes(&config),
        diff_ids: vec![layer.diff_id.to_string()],
        descriptors: vec![descriptor],
        layers: vec![layer],
    })
}

fn write(planned: &Planned, seconds: i64, scratch: &Path) -> Result<PackagedLayer, PackageError> {
    let unwritten = |source| PackageError::Write { path: scratch.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).open(scratch).map_err(unwritten)?;
    let mut zip = ZipWriter::new(BufWriter::with_capacity(256 * 1024, file), seconds);
    let mut files = 0;
    for (path, kind) in planned.entries() {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::InvalidInput => PackageError::Unfit { path: shown(path).into(), source },
            _ => unwritten(source),
        };
        match kind {
            PackKind::Dir => zip.directory(path).map_err(failed)?,
            PackKind::Symlink { target } => zip.symlink(path, target).map_err(failed)?,
            PackKind::File { mode, size, from, stamp } => {
                let add = |file: &std::fs::File| zip.file(path, *mode, *size, file);
                package::read_unchanged(from, *size, stamp, add)
                    .map_err(|error| error.of_writing(scratch))?;
                files += 1;
            }
        }
    }
    let file =
        zip.finish().map_err(unwritten)?.into_inner().map_err(|error| unwritten(error.into_error()))?;
    let size = file.metadata().map_err(unwritten)?.len();
    // Headers are written twice, so the bytes can be hashed only when all are there.
    let digest = digest_of_file(scratch).map_err(unwritten)?;
    Ok(PackagedLayer { name: None, diff_id: digest.clone(), digest, size, files })
}

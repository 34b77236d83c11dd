//! Package: the artefact's files as layers, configuration and manifest, in an OCI layout.
//!
//! `format = 1` in the project file pins every byte: the same files under the same paths, at the same commit, give the
//! same digest whoever packages them, wherever, whenever. No version, no host name and no clock is in the bytes. Files
//! are streamed: memory does not grow with their size.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::OFlags;
use semel_model::canonical;
use semel_model::config::CONTRACT_ANNOTATION;
use semel_model::digest::Digest;
use semel_model::name::CommitId;
use semel_model::platform::Platform;
use semel_model::project::{Compression, Definition, Kind};
use semel_oci::compression::most_bytes;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::layout::{Layout, LayoutError};
use semel_oci::manifest::ImageManifest;
use semel_oci::media_type;
use serde_json::{Map, Value, json};

use crate::archive::LayerWriter;
use crate::base::{Base, BaseError};
use crate::chunks;
use crate::collect::{PackFile, PackKind, Stamp, stamp};
use crate::disk::InvalidDisk;
use crate::planned::Planned;
use crate::zip;

/// The configuration of an artefact of kind `archive`: `{v, entrypoint, needs}` in canonical JSON.
pub const ARCHIVE_CONFIG: &str = "application/vnd.semel.archive.config.v1+json";

/// What is packaged.
#[derive(Debug, Clone, Copy)]
pub struct PackageRequest<'a> {
    /// The files, as [`crate::collect::collect`] found them.
    pub files: &'a Arc<Vec<PackFile>>,
    /// The definition.
    pub definition: &'a Definition,
    /// The commit.
    pub commit: &'a CommitId,
    /// Its time: the only time in the bytes.
    pub committed_seconds: i64,
    /// Where the repository comes from.
    pub remote: Option<&'a str>,
    /// What it runs on; a base is for nothing else, and may say more of it.
    pub platform: &'a Platform,
    /// The image below the files.
    pub base: Option<&'a Base>,
    /// A directory that does not exist yet, where the OCI layout goes.
    pub layout_dir: &'a Path,
    /// How many threads compress; the bytes do not depend on it.
    pub threads: NonZeroUsize,
}

/// An artefact in an OCI layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packaged {
    /// The digest of the manifest: the artefact's identity.
    pub manifest: Digest,
    /// The media type of the manifest.
    pub media_type: String,
    /// What the artefact is, when it is no container image.
    pub artifact_type: Option<String>,
    /// The length of the manifest in bytes.
    pub size: u64,
    /// The digest of the configuration.
    pub config: Digest,
    /// The layers that were made here, lowest first; those of a base are below them.
    pub layers: Vec<PackagedLayer>,
    /// The digests of all uncompressed layers, the base's included, lowest first.
    pub diff_ids: Vec<String>,
    /// The length of the manifest and everything that it names, in bytes.
    pub bytes: u64,
}

/// One layer that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagedLayer {
    /// The name in the definition.
    pub name: Option<String>,
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// The digest of the uncompressed bytes.
    pub diff_id: Digest,
    /// How many compressed bytes there are.
    pub size: u64,
    /// How many regular files are in it.
    pub files: usize,
}

/// Why an artefact could not be packaged.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file changed between being found and being read: something of the build still runs.
    #[error("{} changed while it was packaged", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A layer could not be written.
    #[error("cannot write the layer {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be said in this kind of artefact.
    #[error("{} cannot be packaged", .path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A layer that nobody would unpack.
    #[error(
        "`{}` makes a layer that unpacks to more than {most} bytes; no target lays out what becomes more than 200 times its size", .path.display()
    )]
    Growth {
        /// The largest file of the layer; the layer where it has none.
        path: PathBuf,
        /// How much a layer of its size may become.
        most: u64,
        /// How it is compressed.
        compression: Compression,
    },
    /// The disk image is not one that can be kept.
    #[error("{path} cannot be packaged as it is")]
    Disk {
        /// The image, as the definition names it.
        path: String,
        /// Why not.
        #[source]
        source: InvalidDisk,
    },
    /// The base could not be used.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The layout could not be written.
    #[error("cannot write the OCI layout")]
    Layout {
        /// The cause.
        #[source]
        source: LayoutError,
    },
}

impl PackageError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk { source, .. } => source.hint().map(str::to_owned),
            Self::Changed { .. } => Some("let [build] run wait for everything that it starts".to_owned()),
            Self::Growth { compression, .. } => {
                let zeros = "let the program make a file of zeros when it starts, and leave it out with [artefact] exclude";
                Some(match compression {
                    Compression::Gzip => zeros.to_owned(),
                    Compression::Zstd => format!(
                        "{zeros}; if there is none, compression = \"gzip\" makes a larger layer, which may become more"
                    ),
                })
            }
            Self::Unfit { .. } => Some("rename it, or leave it out with [artefact] exclude".to_owned()),
            Self::Base(error) => error.hint(),
            Self::Write { source, .. } if is_full(source) => Some(
                "make room there, or let XDG_CACHE_HOME name a directory with more: semel doctor".to_owned(),
            ),
            Self::Read { .. } | Self::Write { .. } | Self::Layout { .. } => None,
        }
    }

    /// Files are read while what is made of them is written: no reading fills a disk.
    pub(crate) fn of_writing(self, written: &Path) -> Self {
        match self {
            Self::Read { source, .. } if is_full(&source) => Self::Write { path: written.to_owned(), source },
            other => other,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Packages the files. What was written before an error stays behind in `layout_dir`, which is the caller's to remove.
pub async fn package(request: &PackageRequest<'_>) -> Result<Packaged, PackageError> {
    let created = timestamp(request.committed_seconds);
    let layout =
        Layout::create(request.layout_dir).await.map_err(|source| PackageError::Layout { source })?;
    if let Some(base) = request.base {
        base.copy_layers(&layout).await?;
    }
    let content = match request.definition.artefact.kind {
        Kind::Image | Kind::Archive => tree_content(request, &layout, &created).await?,
        Kind::Zip => zip::content(request, &layout).await?,
        Kind::Vm => chunks::content(request, &layout).await?,
    };
    let config = layout
        .add_bytes(content.config_type, &content.config)
        .await
        .map_err(|source| PackageError::Layout { source })?;
    let Content { artifact_type, layers, descriptors, diff_ids, .. } = content;
    let manifest = manifest_of(request, artifact_type, config, descriptors, &created);
    let encoded = manifest.encode();
    let descriptor = &encoded.descriptor;
    layout
        .put_manifest(&descriptor.digest, &descriptor.media_type, &encoded.bytes, None)
        .await
        .map_err(|source| PackageError::Layout { source })?;
    let below = manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
    Ok(Packaged {
        manifest: descriptor.digest.clone(),
        media_type: descriptor.media_type.clone(),
        artifact_type: manifest.artifact_type.clone(),
        size: descriptor.size,
        config: manifest.config.digest.clone(),
        bytes: descriptor.size + manifest.config.size + below,
        layers,
        diff_ids,
    })
}

/// What an artefact of one kind is made of.
pub(crate) struct Content {
    /// What it is, when it is no container image.
    pub(crate) artifact_type: Option<&'static str>,
    /// The media type of the configuration.
    pub(crate) config_type: &'static str,
    /// The configuration.
    pub(crate) config: Vec<u8>,
    /// The layers that were made here, in their order.
    pub(crate) layers: Vec<PackagedLayer>,
    /// The same, as the manifest names them.
    pub(crate) descriptors: Vec<Descriptor>,
    /// The digests of all uncompressed layers, the base's included.
    pub(crate) diff_ids: Vec<String>,
}

/// Files as layers of tar, for images and archives.
async fn tree_content(
    request: &PackageRequest<'_>,
    layout: &Layout,
    created: &str,
) -> Result<Content, PackageError> {
    let mut layers = Vec::new();
    for plan in plan_layers(request) {
        layers.push(write_layer(plan, layout).await?);
    }
    let spec = &request.definition.artefact;
    let is_archive = spec.kind == Kind::Archive;
    let (config_type, config, diff_ids) = if is_archive {
        (ARCHIVE_CONFIG, archive_config(&spec.entrypoint, &spec.needs), own_diff_ids(&layers))
    } else {
        let (config, diff_ids) = image_config(request, &layers, created);
        (media_type::OCI_CONFIG, config, diff_ids)
    };
    let layer_type = match spec.compression {
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    };
    let descriptors =
        layers.iter().map(|layer| Descriptor::new(layer_type, layer.digest.clone(), layer.size)).collect();
    let artifact_type = is_archive.then_some(media_type::SEMEL_ARCHIVE);
    Ok(Content { artifact_type, config_type, config, layers, descriptors, diff_ids })
}

/// How many threads can run at once here.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Packs the entries of a file tree as it is into one layer, a file named `scratch` that does not exist yet. There is no
/// commit, so every time in it is 0.
pub(crate) async fn tree(files: &Arc<Vec<PackFile>>, scratch: &Path) -> Result<PackagedLayer, PackageError> {
    write_plan(tree_plan(files, 0, scratch)).await
}

/// The same at once, with the time of a commit, in seconds, for all entries.
pub(crate) fn pack_tree(
    files: &Arc<Vec<PackFile>>,
    mtime: u64,
    scratch: &Path,
) -> Result<PackagedLayer, PackageError> {
    write_entries(&tree_plan(files, mtime, scratch)).map(|(layer, _)| layer)
}

fn tree_plan(files: &Arc<Vec<PackFile>>, mtime: u64, scratch: &Path) -> LayerPlan {
    let planned = Planned::all(files);
    let compression = Compression::Gzip;
    LayerPlan { name: None, planned, mtime, compression, scratch: scratch.to_owned(), threads: cores() }
}

/// A layer to be written.
struct LayerPlan {
    name: Option<String>,
    planned: Planned,
    mtime: u64,
    compression: Compression,
    scratch: PathBuf,
    threads: NonZeroUsize,
}

/// Layers in the order in which their names first appear in the definition; files without a name come last. An archive
/// has one layer.
fn plan_layers(request: &PackageRequest<'_>) -> Vec<LayerPlan> {
    let spec = &request.definition.artefact;
    let mut names: Vec<Option<&String>> = Vec::new();
    for name in spec.files.iter().filter_map(|file| file.layer.as_ref()) {
        if !names.contains(&Some(name)) {
            names.push(Some(name));
        }
    }
    names.push(None);
    if spec.kind == Kind::Archive {
        names = vec![None];
    }
    let below: HashSet<&[u8]> = request.base.iter().flat_map(|base| base.listing.directories()).collect();
    let belongs = |file: &PackFile, name| spec.kind == Kind::Archive || file.layer.as_ref() == name;
    let plans = names.into_iter().enumerate().map(|(at, name)| LayerPlan {
        name: name.cloned(),
        planned: Planned::new(request.files, |file| belongs(file, name), &below),
        mtime: u64::try_from(request.committed_seconds).unwrap_or(0),
        compression: spec.compression,
        scratch: request.layout_dir.with_extension(format!("layer{at}")),
        threads: request.threads,
    });
    // A manifest needs a layer (image-spec, manifest.md, "layers"), be it an empty one.
    let nothing = request.base.is_none() && request.files.is_empty();
    plans.filter(|plan| !plan.planned.is_empty() || (nothing && plan.name.is_none())).collect()
}

async fn write_layer(plan: LayerPlan, layout: &Layout) -> Result<PackagedLayer, PackageError> {
    let scratch = plan.scratch.clone();
    let layer = write_plan(plan).await?;
    put_in_place(&scratch, &layout.blob_path(&layer.digest))?;
    Ok(layer)
}

async fn write_plan(plan: LayerPlan) -> Result<PackagedLayer, PackageError> {
    let path = plan.scratch.clone();
    let write = move || {
        let (layer, tar_size) = write_entries(&plan)?;
        check_growth(&plan, layer.size, tar_size)?;
        Ok(layer)
    };
    let written = tokio::task::spawn_blocking(write).await;
    written.unwrap_or_else(|panic| Err(PackageError::Write { path, source: io::Error::other(panic) }))
}

#[expect(clippy::disallowed_methods, reason = "the layout is scratch: it lasts as long as the build does")]
pub(crate) fn put_in_place(scratch: &Path, place: &Path) -> Result<(), PackageError> {
    fs::rename(scratch, place).map_err(|source| PackageError::Write { path: place.to_owned(), source })
}

/// Writes a layer; gives it with the length of its tar file, in bytes.
fn write_entries(plan: &LayerPlan) -> Result<(PackagedLayer, u64), PackageError> {
    let unwritten = |source| PackageError::Write { path: plan.scratch.clone(), source };
    let file = OpenOptions::new().write(true).create_new(true).open(&plan.scratch).map_err(unwritten)?;
    let file = BufWriter::with_capacity(256 * 1024, file);
    let mut layer = LayerWriter::new(file, plan.mtime, plan.compression, plan.threads);
    let mut files = 0;
    for (path, kind) in plan.planned.entries() {
        match kind {
            PackKind::Dir => layer.directory(path).map_err(unwritten)?,
            PackKind::Symlink { target } => layer.symlink(path, target).map_err(unwritten)?,
            PackKind::File { mode, size, from, stamp } => {
                read_unchanged(from, *size, stamp, |file| layer.file(path, *mode, *size, file))
                    .map_err(|error| error.of_writing(&plan.scratch))?;
                files += 1;
            }
        }
    }
    let done = layer.finish().map_err(unwritten)?;
    let (name, tar_size) = (plan.name.clone(), done.tar_size);
    let layer = PackagedLayer { name, digest: done.digest, diff_id: done.diff_id, size: done.size, files };
    Ok((layer, tar_size))
}

/// Whether whoever unpacks the layer, ourselves included, will take it for what it is and not for an attack.
fn check_growth(plan: &LayerPlan, size: u64, tar_size: u64) -> Result<(), PackageError> {
    let most = most_bytes(size);
    if tar_size <= most {
        return Ok(());
    }
    let files = plan.planned.entries().filter_map(|(_, kind)| match kind {
        PackKind::File { size, from, .. } => Some((*size, from)),
        PackKind::Symlink { .. } | PackKind::Dir => None,
    });
    let path = files.max().map_or(plan.scratch.as_path(), |(_, from)| from).to_owned();
    Err(PackageError::Growth { path, most, compression: plan.compression })
}

/// Reads a file that must be as it was found, before and after.
pub(crate) fn read_unchanged(
    from: &Path,
    size: u64,
    seen: &Stamp,
    read: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), PackageError> {
    let unread = |source| PackageError::Read { path: from.to_owned(), source };
    let changed = || PackageError::Changed { path: from.to_owned() };
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag of open(2) is an int");
    let file = match OpenOptions::new().read(true).custom_flags(no_follow).open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed()),
        file => file.map_err(unread)?,
    };
    let same = |file: &File| file.metadata().map(|now| now.len() == size && stamp(&now) == *seen);
    if !same(&file).map_err(unread)? {
        return Err(changed());
    }
    read(&file).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => changed(),
        io::ErrorKind::InvalidInput => PackageError::Unfit { path: from.to_owned(), source: error },
        _ => unread(error),
    })?;
    if same(&file).map_err(unread)? { Ok(()) } else { Err(changed()) }
}

fn image_config(
    request: &PackageRequest<'_>,
    layers: &[PackagedLayer],
    created: &str,
) -> (Vec<u8>, Vec<String>) {
    let mut config = request.base.and_then(|base| base.config.as_object().cloned()).unwrap_or_default();
    let below = config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")).and_then(Value::as_array);
    let below: Vec<String> =
        below.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let history = history_of(&config, below.len(), layers, created);
    let diff_ids: Vec<String> = below.into_iter().chain(own_diff_ids(layers)).collect();
    let mut run = config.remove("config").and_then(|run| run.as_object().cloned()).unwrap_or_default();
    set_run_fields(&mut run, request.definition);
    let has_architecture = config.contains_key("architecture");
    for (key, value) in request.platform.to_oci().as_object().into_iter().flatten() {
        if key == "os" || !has_architecture {
            config.entry(key).or_insert_with(|| value.clone());
        }
    }
    config.retain(|key, _| {
        matches!(key.as_str(), "os" | "architecture" | "variant" | "os.version" | "os.features")
    });
    config.insert("created".into(), json!(created));
    config.insert("config".into(), Value::Object(run));
    config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    config.insert("history".into(), history);
    (canonical::bytes(&config), diff_ids)
}

/// What the definition says about running, on top of what the base says.
fn set_run_fields(run: &mut Map<String, Value>, definition: &Definition) {
    let spec = &definition.artefact;
    if !spec.entrypoint.is_empty() {
        run.insert("Entrypoint".into(), json!(spec.entrypoint));
        run.remove("Cmd");
    }
    for (key, value) in [("User", &spec.user), ("WorkingDir", &spec.workdir)] {
        if let Some(value) = value {
            run.insert(key.into(), json!(value));
        }
    }
    if !spec.env.is_empty() {
        run.insert("Env".into(), env_over(run.get("Env"), &spec.env));
    }
    for port in &spec.expose {
        let port = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
        let ports = run.entry("ExposedPorts").or_insert_with(|| json!({}));
        // What a base has in this place and is no object is replaced.
        let mut listed = ports.as_object().cloned().unwrap_or_default();
        listed.insert(port, json!({}));
        *ports = Value::Object(listed);
    }
}

/// The variables of the base in their order, with these values, and then what it has not.
fn env_over(below: Option<&Value>, own: &BTreeMap<String, String>) -> Value {
    let below = below.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = below.map(str::to_owned).collect();
    for (key, value) in own {
        let line = format!("{key}={value}");
        match lines.iter_mut().find(|line| name(line) == *key) {
            Some(known) => *known = line,
            None => lines.push(line),
        }
    }
    json!(lines)
}

/// One line per layer; where the base has none of its own, it gets them too, because readers pair them with layers.
fn history_of(config: &Map<String, Value>, below: usize, layers: &[PackagedLayer], created: &str) -> Value {
    let told = config.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let full = |line: &&Value| line.get("empty_layer").and_then(Value::as_bool) != Some(true);
    let mut lines = if told.iter().filter(full).count() == below {
        told
    } else {
        vec![json!({ "created": created, "created_by": "base" }); below]
    };
    for layer in layers {
        let name = layer.name.as_deref().unwrap_or("files");
        lines.push(json!({ "created": created, "created_by": format!("semel format 1: {name}") }));
    }
    Value::Array(lines)
}

fn own_diff_ids(layers: &[PackagedLayer]) -> Vec<String> {
    layers.iter().map(|layer| layer.diff_id.to_string()).collect()
}

pub(crate) fn archive_config(entrypoint: &[String], needs: &[String]) -> Vec<u8> {
    canonical::bytes(&json!({ "v": 1, "entrypoint": entrypoint, "needs": needs }))
}

fn manifest_of(
    request: &PackageRequest<'_>,
    artifact_type: Option<&str>,
    config: Descriptor,
    own: Vec<Descriptor>,
    created: &str,
) -> ImageManifest {
    let below = request.base.iter().flat_map(|base| base.layers.iter().cloned());
    ImageManifest {
        artifact_type: artifact_type.map(str::to_owned),
        config,
        layers: below.chain(own).collect(),
        subject: None,
        annotations: annotations(request, created),
    }
}

/// image-spec 1.1, annotations.md, "Pre-Defined Annotation Keys". The version is not among them: it is a name that the
/// repository gives, and the bytes must not depend on it.
fn annotations(request: &PackageRequest<'_>, created: &str) -> Annotations {
    let mut annotations = Annotations::new();
    let mut set = |key: &str, value: String| drop(annotations.insert(key.to_owned(), value));
    set("org.opencontainers.image.created", created.to_owned());
    set("org.opencontainers.image.revision", request.commit.to_string());
    if let Some(remote) = request.remote {
        set("org.opencontainers.image.source", remote.to_owned());
    }
    if let Some(base) = request.base {
        set("org.opencontainers.image.base.name", base.name.clone());
        set("org.opencontainers.image.base.digest", base.digest.to_string());
    }
    let contract = &request.definition.config;
    if !contract.0.is_empty() {
        let text = String::from_utf8(canonical::bytes(contract)).expect("JSON is UTF-8");
        set(CONTRACT_ANNOTATION, text);
    }
    annotations
}

/// RFC 3339 in UTC. A time before 1970 is written as 1970, as in the layers.
pub(crate) fn timestamp(seconds: i64) -> String {
    Timestamp::from_second(seconds.max(0)).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_of_what_was_written_and_not_of_what_was_read() {
        for (kind, is_of_layer) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::QuotaExceeded, true),
            (io::ErrorKind::NotFound, false),
        ] {
            let error = PackageError::Read { path: "/tree/a".into(), source: kind.into() };
            let error = error.of_writing(Path::new("/layout.layer0"));
            assert_eq!(error.to_string() == "cannot write the layer /layout.layer0", is_of_layer, "{error}");
            assert_eq!(error.hint().is_some(), is_of_layer, "{error}");
        }
    }
}

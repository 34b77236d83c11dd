//! The closure of an artefact: its manifests and all that they refer to.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use semel_model::digest::Digest;

use crate::descriptor::Descriptor;
use crate::manifest::ParsedManifest;

/// How deep indexes may be nested in indexes.
const MAX_NESTING: usize = 16;
/// How many bytes all manifests of an artefact may have together: they are held in memory.
const MAX_MANIFESTS_BYTES: u64 = 64 * 1024 * 1024;

/// A manifest as it was read: its descriptor, its bytes and what they say.
#[derive(Debug, Clone)]
pub struct ReadManifest {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes, which have the descriptor's digest.
    pub bytes: Bytes,
    /// What they say.
    pub parsed: ParsedManifest,
}

/// Everything that an artefact consists of, each digest once.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    /// The manifests, children before parents; the last one is the artefact itself.
    pub manifests: Vec<ReadManifest>,
    /// The blobs that must be present.
    pub blobs: Vec<Descriptor>,
    /// The blobs that may lie elsewhere (non-distributable layers).
    pub optional_blobs: Vec<Descriptor>,
}

/// An artefact that is too much to walk through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{digest} is an index of too many manifests (at most {MAX_NESTING} levels and {MAX_MANIFESTS_BYTES} bytes)"
)]
pub struct TooManyManifests {
    /// The artefact.
    pub digest: Digest,
}

/// Where manifests can be read.
pub trait ManifestSource {
    /// Why one cannot be read.
    type Error: From<TooManyManifests>;

    /// Reads and checks the manifest that a descriptor points to.
    fn read_manifest(
        &self,
        descriptor: &Descriptor,
    ) -> impl Future<Output = Result<ReadManifest, Self::Error>> + Send;
}

/// Walks through everything that is reachable from a manifest. Manifests are read, blobs are only listed.
pub async fn walk<S: ManifestSource + Sync>(source: &S, root: &Descriptor) -> Result<Closure, S::Error> {
    let too_many = || TooManyManifests { digest: root.digest.clone() };
    let mut closure = Closure::default();
    let mut seen = HashSet::from([root.digest.clone()]);
    let mut bytes: u64 = 0;
    let mut open = vec![Open::new(source.read_manifest(root).await?)];
    while let Some(top) = open.last_mut() {
        let Some(child) = top.children.pop_front() else {
            closure.manifests.extend(open.pop().map(|done| done.manifest));
            continue;
        };
        if !seen.insert(child.digest.clone()) {
            continue;
        }
        bytes = child.size.saturating_add(bytes);
        if open.len() >= MAX_NESTING || bytes > MAX_MANIFESTS_BYTES {
            return Err(too_many().into());
        }
        open.push(Open::new(source.read_manifest(&child).await?));
    }
    closure.list_blobs(&mut seen);
    Ok(closure)
}

struct Open {
    manifest: ReadManifest,
    children: VecDeque<Descriptor>,
}

impl Open {
    fn new(manifest: ReadManifest) -> Self {
        let children = manifest.parsed.required_manifests().into_iter().cloned().collect();
        Self { manifest, children }
    }
}

impl Closure {
    fn list_blobs(&mut self, seen: &mut HashSet<Digest>) {
        for manifest in &self.manifests {
            let required = manifest.parsed.required_blobs().into_iter();
            self.blobs.extend(required.filter(|blob| seen.insert(blob.digest.clone())).cloned());
        }
        // After all required ones: what one manifest requires is not optional because another does not.
        for manifest in &self.manifests {
            let optional = manifest.parsed.optional_blobs().into_iter();
            self.optional_blobs.extend(optional.filter(|blob| seen.insert(blob.digest.clone())).cloned());
        }
    }
}

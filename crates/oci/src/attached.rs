//! What is attached to an artefact: the manifests that are about it or one of its parts, and those that are about these
//! (distribution-spec 1.1, "Referrers").
//!
//! A registry lists them. In a layout and in an archive they lie among the blobs, and the artefact's entry in `index.json`
//! names them in an annotation: as entries of their own they would make other programs ask which entry is meant.

use std::collections::{HashSet, VecDeque};

use semel_model::digest::Digest;
use semel_model::name::ComponentName;

use crate::client::RegistryClient;
use crate::closure;
use crate::copy::{CopyError, Endpoint, Progress, Source, copy_unnamed};
use crate::descriptor::Descriptor;
use crate::layout::Select;

/// The annotation of an entry that names what is attached: digests with spaces between them.
pub const ATTACHED: &str = "dev.semel.attached";
/// How many attached manifests are copied with an artefact at most.
const MOST: usize = 1_000;

/// Copies what is attached to an artefact that is at the destination already; says how many manifests that were.
pub async fn copy_attached(
    source: &Source,
    destination: &Endpoint,
    artefact: &Descriptor,
    progress: &Progress,
) -> Result<usize, CopyError> {
    let attached = find(source, artefact).await?;
    for one in &attached {
        copy_unnamed(source, destination, one, progress).await?;
    }
    if let Endpoint::Layout(layout) = destination
        && !attached.is_empty()
    {
        let digests: Vec<&str> = attached.iter().map(|one| one.digest.as_str()).collect();
        layout.annotate(&artefact.digest, ATTACHED, &digests.join(" ")).await?;
    }
    Ok(attached.len())
}

/// What is attached to an artefact, each manifest behind the one that it is about.
async fn find(source: &Source, artefact: &Descriptor) -> Result<Vec<Descriptor>, CopyError> {
    let mut attached = Vec::new();
    match source {
        Source::Endpoint(Endpoint::Registry { client, name }) => {
            return listed(source, client, name, artefact).await;
        }
        Source::Endpoint(Endpoint::Layout(layout)) => {
            for digest in named(&layout.entries().await?, &artefact.digest)? {
                attached.push(layout.resolve(Select::Digest(&digest)).await?);
            }
        }
        Source::Bundle(bundle) => {
            for digest in named(bundle.entries(), &artefact.digest)? {
                attached.push(bundle.descriptor_of(&digest).await?);
            }
        }
    }
    Ok(attached)
}

async fn listed(
    source: &Source,
    client: &RegistryClient,
    name: &ComponentName,
    artefact: &Descriptor,
) -> Result<Vec<Descriptor>, CopyError> {
    let parts = closure::walk(source, artefact).await?.manifests;
    let mut subjects: VecDeque<Digest> = parts.into_iter().map(|part| part.descriptor.digest).collect();
    let mut seen: HashSet<Digest> = subjects.iter().cloned().collect();
    let mut attached = Vec::new();
    while let Some(subject) = subjects.pop_front() {
        for one in client.referrers(name, &subject).await? {
            if seen.insert(one.digest.clone()) {
                subjects.push_back(one.digest.clone());
                attached.push(Descriptor::new(one.media_type, one.digest, one.size));
            }
        }
        if attached.len() > MOST {
            return Err(CopyError::TooMuchAttached { digest: artefact.digest.clone(), most: MOST });
        }
    }
    Ok(attached)
}

/// What the entries of `index.json` name as attached to an artefact.
pub(crate) fn named(entries: &[Descriptor], artefact: &Digest) -> Result<Vec<Digest>, CopyError> {
    let texts = entries
        .iter()
        .filter(|entry| entry.digest == *artefact)
        .filter_map(|entry| entry.annotations.get(ATTACHED));
    let digests: Result<Vec<Digest>, _> =
        texts.flat_map(|text| text.split_whitespace()).map(str::parse).collect();
    match digests {
        Err(source) => Err(CopyError::Attached { digest: artefact.clone(), source }),
        Ok(digests) if digests.len() > MOST => {
            Err(CopyError::TooMuchAttached { digest: artefact.clone(), most: MOST })
        }
        Ok(digests) => Ok(digests),
    }
}

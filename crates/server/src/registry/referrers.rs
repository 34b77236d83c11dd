//! What refers to an artefact: an index made from the manifests themselves, in pages and in the order of their digests.

use std::io;

use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{Index, ParsedManifest};
use semel_oci::media_type;
use semel_oci::route::Route;
use semel_store::blobs::{BlobError, Blobs};
use semel_store::projections::artefact::{self, Manifest};

use super::page::Page;
use super::{Asked, OCI_FILTERS_APPLIED, Result};
use crate::App;

/// The most manifests that are looked at for one page.
const MOST: u64 = 1_000;
/// How many bytes the descriptors of a page may have before it ends: clients take no longer an index than a manifest, of
/// which the specification asks them for 4 MiB.
const PAGE_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// How many bytes of manifests are read for a page before it ends, whether or not a filter lets them through.
const READ_BYTES: u64 = 32 * 1024 * 1024;

/// `GET /v2/<name>/referrers/<digest>`. What nobody refers to, or is not here, has an empty index.
///
/// With a filter a page may be short or empty and still lead on: it is a page of all referrers.
pub(super) async fn list(app: &App, asked: &Asked, name: &ComponentName, subject: &Digest) -> Result {
    asked.require_read()?;
    let page = Page::asked_for(asked, MOST)?;
    // One more than the page has says whether there are more.
    let stored =
        artefact::referrers(&mut app.store().reader().await?, name, subject, &page.after, page.size + 1)
            .await?;
    let (stored, more) = page.cut(stored);
    let filter = asked.query.first("artifactType").filter(|wanted| !wanted.is_empty());
    let listed = describe_all(app, subject, stored, filter).await?;
    let index = Index {
        artifact_type: None,
        manifests: listed.descriptors,
        subject: None,
        annotations: Annotations::new(),
    };
    let mut response = answer(&index, filter.is_some());
    if let Some(last) = listed.last.filter(|_| more || listed.cut_short) {
        let route = Route::Referrers { name: name.clone(), digest: subject.clone() };
        let kept = filter.map(|wanted| ("artifactType", wanted));
        page.lead_on(&mut response, &route, kept.as_slice(), last.as_str());
    }
    Ok(response)
}

/// The descriptors of a page.
#[derive(Default)]
struct Listed {
    descriptors: Vec<Descriptor>,
    /// The last manifest that was looked at.
    last: Option<Digest>,
    /// Whether the page was full before the manifests for it were at their end.
    cut_short: bool,
}

/// Reads the manifests of a page, on a thread that may wait for the disk.
async fn describe_all(
    app: &App,
    subject: &Digest,
    stored: Vec<Manifest>,
    filter: Option<&str>,
) -> Result<Listed> {
    let (blobs, filter) = (app.store().blobs().clone(), filter.map(str::to_owned));
    let path = blobs.path(subject);
    let described = tokio::task::spawn_blocking(move || fill_page(&blobs, stored, filter.as_deref())).await;
    let failed =
        |error| BlobError::Io { action: "list what refers to", path, source: io::Error::other(error) };
    Ok(described.map_err(failed)?)
}

fn fill_page(blobs: &Blobs, stored: Vec<Manifest>, filter: Option<&str>) -> Listed {
    let (mut listed, mut size, mut read_bytes) = (Listed::default(), 0, 0);
    for manifest in stored {
        read_bytes += manifest.size;
        if read_bytes > READ_BYTES && listed.last.is_some() {
            listed.cut_short = true;
            break;
        }
        let digest = manifest.digest.clone();
        let descriptor = describe(blobs, manifest);
        if filter.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted)) {
            size += size_of(&descriptor);
            if size > PAGE_BYTES && !listed.descriptors.is_empty() {
                listed.cut_short = true;
                break;
            }
            listed.descriptors.push(descriptor);
        }
        listed.last = Some(digest);
    }
    listed
}

/// How many bytes a descriptor takes in an index.
fn size_of(descriptor: &Descriptor) -> usize {
    semel_model::canonical::bytes(descriptor).len() + 1
}

/// A referrer whose bytes are damaged is listed by what is recorded of it: it must not hide the others.
fn describe(blobs: &Blobs, manifest: Manifest) -> Descriptor {
    let Manifest { digest, media_type, size, .. } = manifest;
    let read = blobs.read(&digest).map_err(|error| error.to_string());
    let parsed = read.and_then(|bytes| {
        ParsedManifest::parse(&bytes, Some(&media_type)).map_err(|error| error.to_string())
    });
    if let Err(error) = &parsed {
        tracing::error!(manifest.digest = %digest, error, "A referrer cannot be read");
    }
    let mut descriptor = Descriptor::new(media_type, digest, size);
    if let Ok(parsed) = parsed {
        descriptor.artifact_type = parsed.artifact_type;
        descriptor.annotations = parsed.annotations;
    }
    descriptor
}

fn answer(index: &Index, filtered: bool) -> Response {
    let content_type = [(CONTENT_TYPE, media_type::OCI_INDEX)];
    let mut response = (StatusCode::OK, content_type, index.encode().bytes).into_response();
    if filtered {
        response.headers_mut().insert(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    response
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use semel_store::{Place, Store};

    use super::*;

    /// By what is recorded of the sizes: it is known before anything is read.
    #[tokio::test]
    async fn a_page_ends_when_much_was_read_for_it_whatever_the_filter() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::embedded(dir.path().join("store"), dir.path().join("keys"));
        let store = Store::open_or_create(&place, Timestamp::UNIX_EPOCH).await.unwrap();
        let referrer = |number: u8, size| Manifest {
            digest: Digest::of(&[number]),
            media_type: media_type::OCI_MANIFEST.to_owned(),
            size,
            subject: None,
            seen: String::new(),
        };
        for (size, read) in [(1, 5), (READ_BYTES / 2, 2), (READ_BYTES / 3, 3), (READ_BYTES * 2, 1)] {
            let stored: Vec<_> = (0..5).map(|number| referrer(number, size)).collect();
            let last = stored[read - 1].digest.clone();
            let listed = fill_page(store.blobs(), stored, Some("application/x"));
            assert_eq!((listed.last, listed.cut_short), (Some(last), read < 5), "{size}");
        }
    }
}

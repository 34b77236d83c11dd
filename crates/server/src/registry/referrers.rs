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

/// How many bytes even the smallest manifest counts for: opening a file costs as much as reading these.
const LEAST_BYTES: u64 = 4 * 1024;

/// `GET /v2/<name>/referrers/<digest>`. What nobody refers to, or is not here, has an empty index.
///
/// A filter is applied before the page is cut; only where much had to be read for it, a page may be short or empty and still
/// lead on.
pub(super) async fn list(app: &App, asked: &Asked, name: &ComponentName, subject: &Digest) -> Result {
    asked.require_read()?;
    let page = Page::asked_for(asked, MOST)?;
    let filter = asked.query.first("artifactType").filter(|wanted| !wanted.is_empty());
    let listed = read_page(app, name, subject, &page, filter).await?;
    let index = Index {
        artifact_type: None,
        manifests: listed.descriptors,
        subject: None,
        annotations: Annotations::new(),
    };
    let mut response = answer(&index, filter.is_some());
    if let Some(last) = listed.last.filter(|_| listed.more) {
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
    /// How many bytes they take.
    bytes: usize,
    /// How many bytes of manifests were read for them.
    read_bytes: u64,
    /// The last manifest that was looked at.
    last: Option<Digest>,
    /// Whether the page ended before all manifests were looked at.
    is_full: bool,
    /// Whether there are manifests behind the last one.
    more: bool,
}

/// Reads manifests until the page is full.
async fn read_page(
    app: &App,
    name: &ComponentName,
    subject: &Digest,
    page: &Page,
    filter: Option<&str>,
) -> Result<Listed> {
    let at_once = if filter.is_some() && page.size > 0 { MOST } else { page.size };
    let (mut listed, mut after) = (Listed::default(), page.after.clone());
    loop {
        let looked = Page { size: at_once, after };
        // One more than is looked at says whether there are more.
        let mut conn = app.store().reader().await?;
        let stored = artefact::referrers(&mut conn, name, subject, &looked.after, at_once + 1).await?;
        drop(conn);
        let (stored, more) = looked.cut(stored);
        listed = describe_all(app, subject, listed, stored, page.size, filter).await?;
        listed.more = more || listed.is_full;
        match &listed.last {
            Some(last) if more && !listed.is_full => after = last.to_string(),
            _ => return Ok(listed),
        }
    }
}

/// Reads manifests for a page, on a thread that may wait for the disk.
async fn describe_all(
    app: &App,
    subject: &Digest,
    listed: Listed,
    stored: Vec<Manifest>,
    wanted: u64,
    filter: Option<&str>,
) -> Result<Listed> {
    let (blobs, filter) = (app.store().blobs().clone(), filter.map(str::to_owned));
    let path = blobs.path(subject);
    let fill = move || fill_page(&blobs, listed, stored, wanted, filter.as_deref());
    let failed =
        |error| BlobError::Io { action: "list what refers to", path, source: io::Error::other(error) };
    Ok(tokio::task::spawn_blocking(fill).await.map_err(failed)?)
}

fn fill_page(
    blobs: &Blobs,
    mut listed: Listed,
    stored: Vec<Manifest>,
    wanted: u64,
    filter: Option<&str>,
) -> Listed {
    for manifest in stored {
        listed.read_bytes += manifest.size.max(LEAST_BYTES);
        if listed.read_bytes > READ_BYTES && listed.last.is_some() {
            listed.is_full = true;
            break;
        }
        let digest = manifest.digest.clone();
        let descriptor = describe(blobs, manifest);
        if filter.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted)) {
            let bytes = listed.bytes + size_of(&descriptor);
            let has_room = bytes <= PAGE_BYTES && (listed.descriptors.len() as u64) < wanted;
            if !has_room && !listed.descriptors.is_empty() {
                listed.is_full = true;
                break;
            }
            listed.bytes = bytes;
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
            let listed = fill_page(store.blobs(), Listed::default(), stored, MOST, Some("application/x"));
            assert_eq!((listed.last, listed.is_full), (Some(last), read < 5), "{size}");
        }
    }
}

//! What refers to an artefact: an index made from the manifests themselves.

use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_oci::descriptor::{Annotations, Descriptor};
use semel_oci::manifest::{Index, ParsedManifest};
use semel_oci::media_type;
use semel_store::projections::artefact;

use super::{Asked, OCI_FILTERS_APPLIED, Result};
use crate::App;

/// `GET /v2/<name>/referrers/<digest>`. What nobody refers to, or is not here, has an empty index.
pub(super) async fn list(app: &App, asked: &Asked, name: &ComponentName, subject: &Digest) -> Result {
    asked.require_read()?;
    let stored = artefact::referrers(&mut app.store().reader().await?, name, subject).await?;
    let mut manifests: Vec<Descriptor> = stored.into_iter().map(|manifest| describe(app, manifest)).collect();
    let filter = asked.query.first("artifactType").filter(|wanted| !wanted.is_empty());
    if let Some(wanted) = filter {
        manifests.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
    }
    let index = Index { artifact_type: None, manifests, subject: None, annotations: Annotations::new() };
    Ok(answer(&index, filter.is_some()))
}

/// A referrer whose bytes are damaged is listed by what is recorded of it: it must not hide the others.
fn describe(app: &App, manifest: artefact::Manifest) -> Descriptor {
    let artefact::Manifest { digest, media_type, size, .. } = manifest;
    let read = app.store().blobs().read(&digest).map_err(|error| error.to_string());
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

//! Lists of tags and of components, in pages and in the order of their bytes.

use axum::response::Response;
use http::StatusCode;
use semel_model::name::ComponentName;
use semel_oci::route::Route;
use semel_store::projections::{artefact, component};
use serde_json::{Value, json};

use super::page::Page;
use super::{Asked, Result, json as json_answer, names};
use crate::App;

/// The most entries of a page.
const MOST: u64 = 10_000;

/// `GET /v2/<name>/tags/list`: versions, channels, and environments with a deployment.
pub(super) async fn list(app: &App, asked: &Asked, name: &ComponentName) -> Result {
    asked.require_read()?;
    let page = Page::asked_for(asked, MOST)?;
    let mut conn = app.store().reader().await?;
    names::require_component(&mut conn, name).await?;
    let (tags, more) = page.cut(artefact::tags(&mut conn, name, &page.after, page.size + 1).await?);
    let next = tags.last().filter(|_| more);
    let body = json!({"name": name, "tags": tags});
    Ok(answer(&page, &Route::Tags { name: name.clone() }, &body, next))
}

/// `GET /v2/_catalog`: the components, also those that have manifests and no name for any of them yet.
pub(super) async fn catalog(app: &App, asked: &Asked) -> Result {
    asked.require_read()?;
    let page = Page::asked_for(asked, MOST)?;
    let mut conn = app.store().reader().await?;
    let (names, more) = page.cut(component::names(&mut conn, &page.after, page.size + 1).await?);
    let next = names.last().filter(|_| more);
    Ok(answer(&page, &Route::Catalog, &json!({"repositories": names}), next))
}

fn answer(page: &Page, route: &Route, body: &Value, next: Option<&String>) -> Response {
    let mut response = json_answer(StatusCode::OK, body.to_string());
    if let Some(last) = next {
        page.lead_on(&mut response, route, &[], last);
    }
    response
}

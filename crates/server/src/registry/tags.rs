//! Lists of tags and of components, in pages and in the order of their bytes.

use axum::response::Response;
use http::header::LINK;
use http::{HeaderValue, StatusCode};
use semel_model::name::ComponentName;
use semel_oci::error::ErrorCode;
use semel_oci::route::Route;
use semel_store::projections::{artefact, component};
use serde_json::json;

use super::{Asked, Result, json as json_answer, names};
use crate::App;
use crate::error::Refusal;

/// How many entries a page has when the client does not say.
const PAGE: u64 = 1_000;
/// The most entries of a page.
const MAX_PAGE: u64 = 10_000;

/// `GET /v2/<name>/tags/list`: versions, channels, and environments with a deployment.
pub(super) async fn list(app: &App, asked: &Asked, name: &ComponentName) -> Result {
    asked.require_read()?;
    let page = Page::asked_for(asked)?;
    let mut conn = app.store().reader().await?;
    names::require_component(&mut conn, name).await?;
    let tags = artefact::tags(&mut conn, name, &page.after, page.size + 1).await?;
    let (tags, next) = page.cut(tags);
    let body = json!({"name": name, "tags": tags});
    Ok(page.answer(&Route::Tags { name: name.clone() }, &body, next.as_deref()))
}

/// `GET /v2/_catalog`: the components.
pub(super) async fn catalog(app: &App, asked: &Asked) -> Result {
    asked.require_read()?;
    let page = Page::asked_for(asked)?;
    let mut conn = app.store().reader().await?;
    let components = component::list(&mut conn, &page.after, page.size + 1).await?;
    let names = components.into_iter().map(|component| component.name.to_string()).collect();
    let (names, next) = page.cut(names);
    Ok(page.answer(&Route::Catalog, &json!({"repositories": names}), next.as_deref()))
}

/// Which part of a list is asked for.
struct Page {
    size: u64,
    /// Behind which entry it begins.
    after: String,
}

impl Page {
    fn asked_for(asked: &Asked) -> Result<Self> {
        let size = match asked.query.first("n") {
            None => PAGE,
            Some(text) => text.parse::<u64>().map_err(|_| {
                let message = "`n` is the number of entries of a page";
                Refusal::with_status(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
            })?,
        };
        let after = asked.query.first("last").unwrap_or_default().to_owned();
        Ok(Self { size: size.min(MAX_PAGE), after })
    }

    /// The entries of the page, and the last of them when the list goes on. A page of no entries leads nowhere.
    fn cut(&self, mut entries: Vec<String>) -> (Vec<String>, Option<String>) {
        let size = usize::try_from(self.size).expect("a page is small");
        let more = entries.len() > size;
        entries.truncate(size);
        let next = entries.last().filter(|_| more).cloned();
        (entries, next)
    }

    fn answer(&self, route: &Route, body: &serde_json::Value, next: Option<&str>) -> Response {
        let mut response = json_answer(StatusCode::OK, body.to_string());
        if let Some(last) = next {
            let link = format!("<{route}?n={}&last={last}>; rel=\"next\"", self.size);
            let link = HeaderValue::from_str(&link).expect("names and tags are visible ASCII");
            response.headers_mut().insert(LINK, link);
        }
        response
    }
}

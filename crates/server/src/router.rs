//! All paths of the server as one service.
//!
//! Called from the network by [`crate::serve`], or inside the process through
//! [`semel_oci::transport::Transport::in_process`].

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use semel_store::health;

use crate::error::{Refusal, causes};
use crate::{App, api, metrics, registry};

/// The service that answers every request.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(measured))
        .route("/v2", any(registry::handle))
        .route("/v2/", any(registry::handle))
        .route("/v2/{*path}", any(registry::handle))
        .merge(api::routes())
        .fallback(nothing_here)
        .with_state(app)
}

/// Whether the store can be worked with. What is wrong is named; its causes are in the log.
async fn healthz(State(app): State<App>) -> Response {
    let Err(unwell) = health::check(app.store()).await else { return "ok\n".into_response() };
    let chain: Vec<String> = causes(&unwell).map(ToString::to_string).collect();
    tracing::error!(error = chain.join(": "), "The store is not well");
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], format!("{unwell}\n")).into_response()
}

async fn measured(State(app): State<App>) -> Response {
    match health::figures(app.store()).await {
        Ok(figures) => ([(CONTENT_TYPE, metrics::MEDIA_TYPE)], app.metrics().page(&figures)).into_response(),
        Err(error) => Refusal::from(error).into_response(),
    }
}

async fn nothing_here(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(160).collect();
    let text = format!("there is nothing at {path}: the API is under /api/v1/, the registry under /v2/\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

//! All paths of the server as one service.
//!
//! Called from the network by [`crate::serve`], or inside the process through
//! [`semel_oci::transport::Transport::in_process`].

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use http::StatusCode;

use crate::{App, api, registry};

/// The service that answers every request.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v2", any(registry::handle))
        .route("/v2/", any(registry::handle))
        .route("/v2/{*path}", any(registry::handle))
        .merge(api::routes())
        .fallback(nothing_here)
        .with_state(app)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn nothing_here(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(160).collect();
    let text = format!("there is nothing at {path}: the API is under /api/v1/, the registry under /v2/\n");
    (StatusCode::NOT_FOUND, text).into_response()
}

//! The JSON API under `/api/v1`.
//!
//! Every operation is a type: its fields are the question, [`Call::Answer`] is the answer, and the constants say where it is
//! found. [`routes`] serves them, [`crate::client::Client`] asks them, and [`openapi::document`] describes them, all from
//! the same list in [`calls`].

pub mod calls;
pub mod openapi;

use std::future::Future;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use schemars::JsonSchema;
use semel_engine::error::EngineError;
use semel_model::actor::Actor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::App;
use crate::error::{answer_to, causes};

/// One operation of the API.
pub trait Call: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// What is answered when it could be done, or when a rule refused it.
    type Answer: Serialize + DeserializeOwned + JsonSchema + Send;
    /// GET looks, POST may change something.
    const METHOD: Method;
    /// The path below `/api/v1`.
    const PATH: &'static str;
    /// What it does, in one line.
    const SUMMARY: &'static str;
    /// The most bytes that the question may have.
    const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

    /// Does it.
    fn run(
        self,
        app: &App,
        who: &Actor,
        now: Timestamp,
    ) -> impl Future<Output = Result<Self::Answer, EngineError>> + Send;

    /// Whether the answer is a refusal by a rule, which is sent as 409.
    fn refused(_answer: &Self::Answer) -> bool {
        false
    }
}

/// What is sent instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorAnswer {
    /// What kind of error it is.
    pub class: ErrorClass,
    /// What is wrong, in one line.
    pub message: String,
    /// Why, cause by cause; only told to the process itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The kinds of errors, each with its own exit code on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// The question makes no sense as it stands.
    Precondition,
    /// The input can never be accepted.
    Invalid,
    /// Something that was named is not there.
    NotFound,
    /// A name would get another meaning.
    Conflict,
    /// Not allowed to this caller, or here.
    NotAllowed,
    /// Bytes or signatures do not verify.
    Verification,
    /// The same call may succeed later.
    TryAgain,
    /// Something broke.
    Fault,
}

impl ErrorClass {
    fn of(error: &EngineError) -> Self {
        use semel_store::blobs::BlobError;
        use semel_store::ledger::AppendError;
        match error {
            EngineError::Precondition { .. } => Self::Precondition,
            EngineError::Invalid { .. } | EngineError::Append(AppendError::Leaf(_)) => Self::Invalid,
            EngineError::NotFound { .. } | EngineError::Blob(BlobError::Unknown(_)) => Self::NotFound,
            EngineError::Conflict { .. } => Self::Conflict,
            EngineError::NotAllowed { .. } => Self::NotAllowed,
            EngineError::Verification { .. } | EngineError::Blob(BlobError::Damaged(_)) => Self::Verification,
            EngineError::TryAgain { .. }
            | EngineError::Append(AppendError::HeadMoved { .. } | AppendError::Collected(_)) => {
                Self::TryAgain
            }
            _ if crate::error::is_database_away(error) => Self::TryAgain,
            _ => Self::Fault,
        }
    }
}

/// The routes of the API, with their full paths.
pub fn routes() -> Router<App> {
    let mut routes = Routes(Router::new());
    calls::each(&mut routes);
    routes.0.route("/api/v1/openapi.json", get(|| async { json(StatusCode::OK, &openapi::document()) }))
}

/// Somebody who wants to see every operation once.
pub trait Visitor {
    /// One operation.
    fn call<C: Call>(&mut self);
}

struct Routes(Router<App>);

impl Visitor for Routes {
    fn call<C: Call>(&mut self) {
        let handler: MethodRouter<App> =
            if C::METHOD == Method::GET { get(look::<C>) } else { post(act::<C>) };
        let handler = handler.layer(DefaultBodyLimit::max(C::BODY_BYTES_MAX));
        let routes = std::mem::take(&mut self.0);
        self.0 = routes.route(&format!("/api/v1{}", C::PATH), handler);
    }
}

async fn act<C: Call>(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    match serde_json::from_slice::<C>(&body) {
        Ok(call) => answer(&app, &headers, call).await,
        Err(error) => malformed(&error.to_string()),
    }
}

async fn look<C: Call>(State(app): State<App>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let uri = format!("/?{}", query.unwrap_or_default()).parse::<http::Uri>();
    match uri.map_err(|error| error.to_string()).and_then(|uri| {
        Query::<C>::try_from_uri(&uri).map_err(|error| {
            std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })
    }) {
        Ok(Query(call)) => answer(&app, &headers, call).await,
        Err(error) => malformed(&error),
    }
}

fn malformed(problem: &str) -> Response {
    let error = ErrorAnswer {
        class: ErrorClass::Precondition,
        message: format!("the request cannot be read: {problem}"),
        causes: Vec::new(),
        hint: Some("GET /api/v1/openapi.json describes every request".to_owned()),
    };
    json(StatusCode::BAD_REQUEST, &error)
}

async fn answer<C: Call>(app: &App, headers: &HeaderMap, call: C) -> Response {
    let who = match app.actor(headers).await {
        Ok(who) => who,
        Err(error) => return failure(app, &error.into()),
    };
    match call.run(app, &who, app.now()).await {
        Ok(answer) if C::refused(&answer) => json(StatusCode::CONFLICT, &answer),
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => failure(app, &error),
    }
}

fn failure(app: &App, error: &EngineError) -> Response {
    let told = answer_to(error);
    let mut body =
        ErrorAnswer { class: ErrorClass::of(error), message: told.text, causes: Vec::new(), hint: told.hint };
    if app.is_local() {
        body.message = error.to_string();
        body.causes = causes(error).skip(1).map(ToString::to_string).collect();
    }
    let mut response = json(told.status, &body);
    if told.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let bytes = serde_json::to_vec(value).expect("answers are JSON");
    let mut response = (status, bytes).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

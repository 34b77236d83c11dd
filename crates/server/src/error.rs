//! Errors on their way out: which status, and what may be said.
//!
//! What the caller can act on is said in full. What went wrong inside is logged with its causes, and the answer says only
//! that it did: paths, statements and keys are nobody's business over there.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use semel_engine::error::EngineError;
use semel_oci::error::{ErrorBody, ErrorCode};
use semel_store::blobs::BlobError;
use semel_store::ledger::AppendError;
use semel_store::sql::SqlError;
use serde_json::Value;

/// After how many seconds a request that lost a race may come again.
const RETRY_SECONDS: u16 = 1;

/// What is answered to an error of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// One line for a person.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The answer to an error of the engine. A fault is logged here, with its causes.
pub fn answer_to(error: &EngineError) -> Answer {
    if is_database_away(error) {
        log_fault(error);
        let text = "the database of the store cannot be reached; try again".to_owned();
        return Answer { status: StatusCode::SERVICE_UNAVAILABLE, text, hint: None };
    }
    let status = status_of(error);
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        log_fault(error);
        let text = match status {
            StatusCode::INSUFFICIENT_STORAGE => {
                "the disk of the store has no room: what was stored is kept, and an upload goes on where it stopped once there is"
            }
            _ => "the server failed; its log says why",
        };
        return Answer { status, text: text.to_owned(), hint: None };
    }
    Answer { status, text: text_of(error), hint: error.hint().map(str::to_owned) }
}

/// What the caller can act on is said by the cause where the engine adds nothing to it.
fn text_of(error: &EngineError) -> String {
    match error {
        EngineError::Blob(error) => error.to_string(),
        EngineError::Append(AppendError::Leaf(cause)) => format!("this cannot be recorded: {cause}"),
        EngineError::Append(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn status_of(error: &EngineError) -> StatusCode {
    match error {
        other if is_disk_full(other) => StatusCode::INSUFFICIENT_STORAGE,
        EngineError::NotFound { .. }
        | EngineError::Blob(BlobError::Unknown(_) | BlobError::UnknownUpload(_)) => StatusCode::NOT_FOUND,
        EngineError::Blob(BlobError::Source(source)) if source.kind() == std::io::ErrorKind::TimedOut => {
            StatusCode::REQUEST_TIMEOUT
        }
        EngineError::Precondition { .. } | EngineError::Blob(BlobError::Source(_)) => StatusCode::BAD_REQUEST,
        EngineError::Invalid { .. }
        | EngineError::Verification { .. }
        | EngineError::Append(AppendError::Leaf(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        EngineError::Blob(BlobError::WrongDigest { .. }) => StatusCode::UNPROCESSABLE_ENTITY,
        EngineError::Conflict { .. } | EngineError::Blob(BlobError::OutOfOrder { .. }) => {
            StatusCode::CONFLICT
        }
        EngineError::NotAllowed { .. } => StatusCode::FORBIDDEN,
        EngineError::Blob(BlobError::BusyUpload(_)) => StatusCode::TOO_MANY_REQUESTS,
        EngineError::TryAgain { .. }
        | EngineError::Append(AppendError::HeadMoved { .. } | AppendError::Collected(_)) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn is_disk_full(error: &EngineError) -> bool {
    use std::io::{Error, ErrorKind};
    let full = |cause: &Error| matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    causes(error).any(|cause| {
        cause.downcast_ref().is_some_and(full)
            || cause.downcast_ref::<SqlError>().is_some_and(SqlError::is_disk_full)
    })
}

/// Whether the same may succeed later, when the store's database is back.
pub(crate) fn is_database_away(error: &EngineError) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<SqlError>()).any(SqlError::is_away)
}

fn log_fault(error: &EngineError) {
    let chain: Vec<String> = causes(error).map(ToString::to_string).collect();
    tracing::error!(error = chain.join(": "), "A request failed inside the server");
}

/// What the registry answers to a request that it does not fulfil.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    /// No code says that the server failed, so a fault is told as plain text.
    code: Option<ErrorCode>,
    message: String,
    detail: Option<Value>,
    headers: HeaderMap,
}

impl Refusal {
    /// A refusal with the status that usually goes with the code.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::with_status(code.status(), code, message)
    }

    pub(crate) fn with_status(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        let (message, headers) = (message.into(), HeaderMap::new());
        Self(Box::new(Parts { status, code: Some(code), message, detail: None, headers }))
    }

    /// Says it in other words.
    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Adds what a program may want to know.
    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.0.detail = Some(detail);
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers.extend(headers);
        self
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let answer = answer_to(&error);
        let status = match &error {
            // The distribution specification asks for 400.
            EngineError::Blob(BlobError::WrongDigest { .. }) => StatusCode::BAD_REQUEST,
            _ => answer.status,
        };
        let (message, headers) = (answer.text, HeaderMap::new());
        let refusal = Self(Box::new(Parts { status, code: code_of(&error), message, detail: None, headers }));
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                refusal.header(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS))
            }
            _ => refusal,
        }
    }
}

fn code_of(error: &EngineError) -> Option<ErrorCode> {
    Some(match error {
        other if is_disk_full(other) => return None,
        EngineError::Blob(BlobError::Unknown(_)) => ErrorCode::BlobUnknown,
        EngineError::Blob(BlobError::UnknownUpload(_)) => ErrorCode::BlobUploadUnknown,
        EngineError::Blob(BlobError::Source(_) | BlobError::OutOfOrder { .. }) => {
            ErrorCode::BlobUploadInvalid
        }
        EngineError::Blob(BlobError::WrongDigest { .. }) => ErrorCode::DigestInvalid,
        EngineError::NotFound { .. } => ErrorCode::ManifestUnknown,
        EngineError::Precondition { .. }
        | EngineError::Invalid { .. }
        | EngineError::Verification { .. }
        | EngineError::Conflict { .. }
        | EngineError::NotAllowed { .. } => ErrorCode::Denied,
        EngineError::TryAgain { .. }
        | EngineError::Append(AppendError::HeadMoved { .. } | AppendError::Collected(_))
        | EngineError::Blob(BlobError::BusyUpload(_)) => ErrorCode::TooManyRequests,
        _ => return None,
    })
}

macro_rules! through_engine {
    ($($error:ty),*) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                EngineError::from(error).into()
            }
        })*
    };
}
through_engine!(BlobError, SqlError, AppendError);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Parts { status, code, message, detail, headers } = *self.0;
        let (content_type, body) = match code {
            Some(code) => ("application/json", ErrorBody::new(code, message, detail).to_bytes()),
            None => ("text/plain; charset=utf-8", format!("{message}\n").into_bytes()),
        };
        let mut response = (status, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().extend(headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use semel_model::digest::Digest;

    use super::*;

    fn io_error(kind: io::ErrorKind) -> EngineError {
        let path = "/srv/store/uploads/x".into();
        BlobError::Io { action: "write", path, source: io::Error::new(kind, "secret detail") }.into()
    }

    #[test]
    fn every_kind_of_error_has_its_class_of_status() {
        let digest = Digest::of(b"semel");
        let cases: [(EngineError, u16); 12] = [
            (EngineError::not_found("x"), 404),
            (EngineError::precondition("x"), 400),
            (EngineError::invalid("x"), 422),
            (EngineError::Conflict { what: "x".into(), hint: None }, 409),
            (EngineError::NotAllowed { what: "x".into(), hint: None }, 403),
            (EngineError::Verification { what: "x".into(), hint: None }, 422),
            (EngineError::TryAgain { what: "x".into() }, 503),
            (AppendError::HeadMoved { expected: 1, found: 2 }.into(), 503),
            (BlobError::Damaged(digest.clone()).into(), 500),
            (BlobError::Unknown(digest).into(), 404),
            (BlobError::BusyUpload("x".into()).into(), 429),
            (io_error(io::ErrorKind::PermissionDenied), 500),
        ];
        for (error, status) in cases {
            assert_eq!(answer_to(&error).status.as_u16(), status, "{error}");
        }
    }

    #[test]
    fn what_went_wrong_inside_is_not_told() {
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull] {
            let answer = answer_to(&io_error(kind));
            assert!(!answer.text.contains("/srv") && !answer.text.contains("secret"), "{}", answer.text);
        }
        assert_eq!(answer_to(&io_error(io::ErrorKind::StorageFull)).status.as_u16(), 507);
    }

    #[test]
    fn a_hint_and_the_cause_reach_the_caller() {
        let answer = answer_to(&EngineError::not_found("no such thing").with_hint("semel build"));
        assert_eq!((answer.text.as_str(), answer.hint.as_deref()), ("no such thing", Some("semel build")));
    }

    #[test]
    fn a_lost_race_may_be_tried_again() {
        for error in
            [EngineError::TryAgain { what: "again".into() }, BlobError::BusyUpload("x".into()).into()]
        {
            assert_eq!(Refusal::from(error).into_response().headers()[RETRY_AFTER], "1");
        }
    }
}

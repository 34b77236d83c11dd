//! The typed client of the JSON API: the same operations, asked inside the process or over HTTP.

use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use semel_oci::client::RegistryClient;
use semel_oci::transport::{Body, BodyError};
use semel_oci::transport::{Transport, TransportError};
use serde_json::Value;

use crate::api::{Call, ErrorAnswer, ErrorClass};
use crate::{ACTOR_HEADER, VIA_HEADER};

/// The most bytes that an answer may have.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Asks a server, or the server's router inside this process.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    actor: String,
}

/// An operation did not give its answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server could not be asked.
    #[error("cannot reach the server")]
    Transport(#[from] TransportError),
    /// It answered that it could not.
    #[error("{}", .0.message)]
    Answered(Box<ErrorAnswer>),
    /// It answered something else than this client understands.
    #[error("the server answered {status} to {path}, which this program does not understand")]
    Strange {
        /// The status.
        status: StatusCode,
        /// What was asked.
        path: String,
    },
    /// The answer broke off.
    #[error("the answer to {path} broke off")]
    BrokenOff {
        /// What was asked.
        path: String,
        /// Why.
        #[source]
        source: BodyError,
    },
}

impl CallError {
    /// What kind of error it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Answered(answer) => answer.class,
            Self::Transport(error) if error.is_connect() || error.is_timeout() => ErrorClass::TryAgain,
            _ => ErrorClass::Fault,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Answered(answer) => answer.hint.as_deref(),
            Self::Transport(error) if error.is_connect() => Some("is the server running? semel serve"),
            _ => None,
        }
    }
}

impl Client {
    /// A client that speaks for somebody: a claim, recorded as one.
    pub fn new(transport: Transport, actor: impl Into<String>) -> Self {
        Self { transport, actor: actor.into() }
    }

    /// The OCI side of the same server.
    pub fn registry(&self) -> RegistryClient {
        RegistryClient::new(self.transport.clone())
    }

    /// Where the server is, when it is not this process.
    pub fn base(&self) -> Option<&str> {
        self.transport.base()
    }

    /// Asks. A refusal by a rule is an answer like any other.
    pub async fn call<C: Call>(&self, call: &C) -> Result<C::Answer, CallError> {
        let path = format!("/api/v1{}", C::PATH);
        let request = self.request(call, &path);
        let response = self.transport.send(request).await?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect_limited(ANSWER_BYTES_MAX)
            .await
            .map_err(|source| CallError::BrokenOff { path: path.clone(), source })?;
        let strange = || CallError::Strange { status, path: path.clone() };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| strange());
        }
        if status == StatusCode::CONFLICT
            && let Ok(answer) = serde_json::from_slice::<C::Answer>(&bytes)
            && C::refused(&answer)
        {
            return Ok(answer);
        }
        let answer: ErrorAnswer = serde_json::from_slice(&bytes).map_err(|_| strange())?;
        Err(CallError::Answered(Box::new(answer)))
    }

    fn request<C: Call>(&self, call: &C, path: &str) -> Request<Body> {
        let question = serde_json::to_value(call).expect("questions are JSON");
        let request = Request::builder()
            .method(C::METHOD)
            .header(VIA_HEADER, "cli")
            .header(ACTOR_HEADER, self.actor.as_bytes());
        let request = if C::METHOD == Method::GET {
            request.uri(format!("{path}{}", query(&question))).body(Body::empty())
        } else {
            let body = Body::full(serde_json::to_vec(&question).expect("questions are JSON"));
            request.uri(path).header(CONTENT_TYPE, "application/json").body(body)
        };
        request.expect("paths and queries are well-formed, and names are checked when they are read")
    }
}

/// The fields of a flat question as a query.
fn query(question: &Value) -> String {
    let mut parts = Vec::new();
    for (name, value) in question.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        parts.push(format!("{name}={}", percent_encoded(&text)));
    }
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex_digits(byte));
        }
    }
    encoded
}

fn hex_digits(byte: u8) -> String {
    format!("{byte:02X}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_become_queries_without_what_is_not_said() {
        let question =
            serde_json::json!({"component": "shop/api", "version": null, "word": "a b&c=é", "limit": 5});
        assert_eq!(query(&question), "?component=shop%2Fapi&limit=5&word=a%20b%26c%3D%C3%A9");
    }
}

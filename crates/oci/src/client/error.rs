//! Why a registry did not do what it was asked.

use std::io;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};

use super::header_text;
use crate::error::{ErrorBody, ErrorCode, ErrorEntry};
use crate::manifest::InvalidManifest;
use crate::sign_in::SignInError;
use crate::transport::{Body, BodyError, TransportError};
use crate::verify::Mismatch;

const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Why a registry did not do what it was asked. Each error names what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There was no answer.
    #[error("cannot {operation}")]
    Transport {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// The registry said no.
    #[error("cannot {operation}: the registry answered {status}{}", entries_text(.entries))]
    Refused {
        /// What was attempted.
        operation: String,
        /// The status of the answer.
        status: StatusCode,
        /// What the answer says; empty when it is not in the format of a registry.
        entries: Vec<ErrorEntry>,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry wants to know who asks, and who could say so does not.
    #[error("cannot {operation}: the registry wants to know who asks")]
    SignIn {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: SignInError,
    },
    /// The answer broke off or is too long.
    #[error("cannot {operation}")]
    Answer {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// The bytes received are not the ones asked for.
    #[error("cannot {operation}: the registry sent something else")]
    Damaged {
        /// What was attempted.
        operation: String,
        /// What was expected and what was found.
        #[source]
        source: Mismatch,
    },
    /// What was received is no manifest.
    #[error("cannot {operation}: the registry sent no valid manifest")]
    Manifest {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// The answer breaks the protocol.
    #[error("cannot {operation}: {problem}")]
    Protocol {
        /// What was attempted.
        operation: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The bytes to be sent cannot be read.
    #[error("cannot {operation}: the source cannot be read")]
    Source {
        /// What was attempted.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// The status of the registry's answer.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The first error of the registry's answer.
    pub fn entry(&self) -> Option<&ErrorEntry> {
        match self {
            Self::Refused { entries, .. } => entries.first(),
            _ => None,
        }
    }

    /// The code of the registry's answer, if it is one of the specification.
    pub fn code(&self) -> Option<ErrorCode> {
        self.entry()?.known_code()
    }

    /// Whether the registry has no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether the registry will not let this caller.
    pub fn is_denied(&self) -> bool {
        self.status() == Some(StatusCode::FORBIDDEN)
    }

    /// Whether the registry was not reached at all.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Transport { source, .. } if source.is_connect())
    }

    /// Whether the same may succeed in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Answer { source: BodyError::Read(_), .. } => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// What the registry says in a refusal.
pub(super) async fn refused(operation: String, answer: Response<Body>) -> ClientError {
    let status = answer.status();
    let asked = header_text(answer.headers(), RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
    // A body that cannot be read takes nothing away from the refusal.
    let bytes = answer.into_body().collect_limited(MAX_ERROR_BYTES).await.unwrap_or_default();
    let entries = ErrorBody::parse(&bytes).unwrap_or_default().errors;
    ClientError::Refused { operation, status, entries, retry_after: asked.map(Duration::from_secs) }
}

fn entries_text(entries: &[ErrorEntry]) -> String {
    let texts: Vec<_> = entries.iter().take(5).map(ErrorEntry::to_string).collect();
    if texts.is_empty() { String::new() } else { format!(": {}", texts.join("; ")) }
}

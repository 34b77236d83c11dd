//! Errors as a registry says them (distribution-spec 1.1, "Error Codes").

use std::error::Error;
use std::str::FromStr;
use std::{fmt, io};

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The closed list of codes. A server answers with no other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is not here.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The digest is malformed, or not the one of the bytes.
    DigestInvalid,
    /// The manifest refers to something that is not here.
    ManifestBlobUnknown,
    /// The manifest breaks its format. Some clients convert a manifest and push again when they see this.
    ManifestInvalid,
    /// There is no such manifest.
    ManifestUnknown,
    /// The repository name is malformed.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// The length is not the one of the bytes.
    SizeInvalid,
    /// Sign in first.
    Unauthorized,
    /// Not allowed, or refused by a rule.
    Denied,
    /// Not something that this registry does.
    Unsupported,
    /// Slow down.
    TooManyRequests,
}

impl ErrorCode {
    /// All codes, in the order of the specification.
    pub const ALL: [Self; 14] = [
        Self::BlobUnknown,
        Self::BlobUploadInvalid,
        Self::BlobUploadUnknown,
        Self::DigestInvalid,
        Self::ManifestBlobUnknown,
        Self::ManifestInvalid,
        Self::ManifestUnknown,
        Self::NameInvalid,
        Self::NameUnknown,
        Self::SizeInvalid,
        Self::Unauthorized,
        Self::Denied,
        Self::Unsupported,
        Self::TooManyRequests,
    ];

    /// The code as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
        }
    }

    /// The status that usually goes with it. An answer may choose another one (`DENIED` with 409 for a name that is
    /// bound, `BLOB_UPLOAD_INVALID` with 416 for a chunk out of order).
    pub fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown | Self::BlobUploadUnknown | Self::ManifestUnknown | Self::NameUnknown => {
                StatusCode::NOT_FOUND
            }
            // 400 for a manifest without its content, as the reference registry answers: nothing that the path of the
            // request names is missing, and 404 would say so.
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// A code that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no error code of the OCI distribution specification")]
pub struct UnknownErrorCode(String);

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;

    fn from_str(text: &str) -> Result<Self, UnknownErrorCode> {
        let found = Self::ALL.into_iter().find(|code| code.as_str() == text);
        found.ok_or_else(|| UnknownErrorCode(text.chars().take(80).collect()))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The JSON body of an error answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong; at least one entry when we write it.
    pub errors: Vec<ErrorEntry>,
}

/// One entry of an error answer. The code is text, since other registries have codes of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// The code, see [`ErrorCode`].
    #[serde(default)]
    pub code: String,
    /// One line for a person.
    #[serde(default)]
    pub message: String,
    /// Anything that a program may want to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl ErrorBody {
    /// A body with one entry.
    pub fn new(code: ErrorCode, message: impl Into<String>, detail: Option<serde_json::Value>) -> Self {
        let entry = ErrorEntry { code: code.as_str().to_owned(), message: message.into(), detail };
        Self { errors: vec![entry] }
    }

    /// The bytes to send, as `application/json`.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an error body is text and JSON values")
    }

    /// Reads the body of an answer. `None` when it is not in the format: a proxy in between answers in HTML.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl ErrorEntry {
    /// The code, when it is one of the list.
    pub(crate) fn known_code(&self) -> Option<ErrorCode> {
        self.code.parse().ok()
    }
}

impl fmt::Display for ErrorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.is_empty() {
            true => write!(f, "{}", self.code),
            false => write!(f, "{}: {}", self.code, self.message),
        }
    }
}

/// The first cause of one kind behind an error, or the error itself. Errors that travelled through readers and writers are
/// found inside the [`io::Error`] that carried them, which does not name them as its source.
pub(crate) fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_has_an_error_status() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert!(code.status().is_client_error(), "{code}");
        }
        assert!("TAG_INVALID".parse::<ErrorCode>().is_err());
    }

    #[test]
    fn an_error_body_is_written_and_read_in_the_form_of_the_specification() {
        let body =
            ErrorBody::new(ErrorCode::Denied, "1.4.2 is bound", Some(serde_json::json!({"bound": "x"})));
        let text = r#"{"errors":[{"code":"DENIED","message":"1.4.2 is bound","detail":{"bound":"x"}}]}"#;
        assert_eq!(String::from_utf8(body.to_bytes()).unwrap(), text);
        assert_eq!(ErrorBody::parse(text.as_bytes()), Some(body));
        let foreign = ErrorBody::parse(br#"{"errors":[{"code":"TAG_IMMUTABLE"}]}"#).unwrap();
        assert_eq!(foreign.errors[0].known_code(), None);
        assert_eq!(ErrorBody::parse(b"<html>"), None);
    }
}

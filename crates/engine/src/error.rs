//! What can go wrong with a question. Refusals by a rule are no errors: they are values in the answers.

use semel_store::blobs::BlobError;
use semel_store::keys::KeyError;
use semel_store::ledger::{AppendError, ReadError};
use semel_store::sql::SqlError;

/// A verb could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Something that was named is not there.
    #[error("{what}")]
    NotFound {
        /// What is not there.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The question makes no sense as it stands; the caller has to change it.
    #[error("{what}")]
    Precondition {
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The input can never be accepted.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It would give a name another meaning.
    #[error("{what}")]
    Conflict {
        /// What the name means.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The caller may not do this here.
    #[error("{what}")]
    NotAllowed {
        /// What is not allowed.
        what: String,
        /// Where or by whom it is.
        hint: Option<String>,
    },
    /// Bytes or signatures are not what they should be.
    #[error("{what}")]
    Verification {
        /// What did not verify.
        what: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Another process moved first; the same call may succeed now.
    #[error("{what}")]
    TryAgain {
        /// What happened.
        what: String,
    },
    /// The ledger cannot be written.
    #[error("the change was not recorded")]
    Append(#[from] AppendError),
    /// The ledger cannot be read.
    #[error("the ledger cannot be read")]
    Read(#[from] ReadError),
    /// The database failed.
    #[error("the store's database failed")]
    Sql(#[from] SqlError),
    /// A blob failed.
    #[error("the store's blobs failed")]
    Blob(#[from] BlobError),
    /// A key failed.
    #[error("the store's keys failed")]
    Key(#[from] KeyError),
    /// A stored document is not what it should be.
    #[error("document {digest} of the store cannot be read")]
    Document {
        /// Which.
        digest: semel_model::digest::Digest,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl EngineError {
    /// Something is not there.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into(), hint: None }
    }

    /// The question makes no sense.
    pub fn precondition(what: impl Into<String>) -> Self {
        Self::Precondition { what: what.into(), hint: None }
    }

    /// The input can never be accepted.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::NotFound { hint, .. }
            | Self::Precondition { hint, .. }
            | Self::Invalid { hint, .. }
            | Self::Conflict { hint, .. }
            | Self::NotAllowed { hint, .. }
            | Self::Verification { hint, .. } => *hint = Some(text.into()),
            _ => {}
        }
        self
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::NotFound { hint, .. }
            | Self::Precondition { hint, .. }
            | Self::Invalid { hint, .. }
            | Self::Conflict { hint, .. }
            | Self::NotAllowed { hint, .. }
            | Self::Verification { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}

//! Who did something.

use serde::{Deserialize, Serialize};

/// The one who caused an entry. `subject` is a pseudonym: the table that resolves it can be erased without touching
/// history.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Who vouches for the subject: `local`, or the URL of an identity provider.
    pub issuer: String,
    /// The pseudonym of the subject under that issuer.
    pub subject: String,
    /// What kind of being it is.
    pub kind: ActorKind,
    /// How it was recognised.
    pub method: AuthMethod,
    /// Through which door it came: `cli`, `api`, `registry`.
    pub via: String,
}

/// What kind of being acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// A human being.
    Person,
    /// A program such as a CI job.
    Workload,
    /// Semel's own agent at a target.
    Agent,
}

/// How an actor was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// The user of this machine says so: a claim, shown as one.
    Local,
    /// A token of ours.
    Token,
    /// A verified token of an identity provider.
    Oidc,
    /// Possession of a key.
    Key,
}

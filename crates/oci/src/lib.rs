//! The OCI formats and the wire.
//!
//! Everything that Semel says to, or reads from, a registry or an OCI image layout goes through here: how a manifest
//! looks, how a place is written, what a request path means, and the one client and the one [`transport::Transport`]
//! by which all HTTP of Semel's clients goes. It knows nothing of versions, evidence or environments, keeps no state
//! of its own, and never trusts bytes that it has not hashed.
//!
//! Reading order: the formats ([`media_type`], [`compression`], [`descriptor`], [`manifest`], [`mod@reference`]), the protocol
//! ([`route`], [`range`], [`error`]), bytes at rest ([`verify`], [`closure`], [`source`], [`layout`], [`bundle`],
//! [`archive`]), bytes on the wire ([`transport`], [`client`]), and both together ([`copy`], [`attached`], [`files`],
//! [`chunked`]).

pub mod compression;
pub mod descriptor;
pub mod manifest;
pub mod media_type;
pub mod reference;

pub mod error;
pub mod range;
pub mod route;

pub mod archive;
pub mod bundle;
pub mod closure;
pub mod layout;
mod partial;
pub mod source;
pub mod verify;

mod body;
pub mod client;
pub mod sign_in;
pub mod transport;

pub mod copy;
pub mod attached;
pub mod files;
pub mod chunked;

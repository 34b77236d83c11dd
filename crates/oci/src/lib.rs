//! The OCI formats and the wire.
//!
//! Everything that Semel says to, or reads from, a registry or an OCI image layout goes through here: how a manifest
//! looks, how a place is written, what a request path means, and the one client and the one [`transport::Transport`]
//! by which all HTTP of Semel's clients goes. It knows nothing of versions, evidence or environments, keeps no state
//! of its own, and never trusts bytes that it has not hashed.
//!
//! Reading order: the formats ([`media_type`], [`descriptor`], [`manifest`], [`reference`]), the protocol
//! ([`route`], [`range`], [`error`]), bytes at rest ([`verify`], [`layout`]), bytes on the wire ([`transport`],
//! [`client`]), and both together ([`copy`]).

pub mod media_type;
pub mod descriptor;
pub mod manifest;
pub mod reference;

pub mod route;
pub mod range;
pub mod error;

pub mod verify;
pub mod layout;

mod body;
pub mod transport;
pub mod client;

pub mod copy;

//! Check: whether a commit gives the same bytes again, and if not, what differs first and why.
//!
//! ```text
//! rebuild::rebuild → compare::compare → cause::explain
//! the same commit,   manifest, config,   what it comes from,
//! otherwise          layers, content     and what to do
//! ```
//!
//! A difference blocks nothing by itself: it is a fact about the project, recorded as evidence for whoever asks for it.

pub mod cause;
pub mod compare;
mod content;
pub mod rebuild;

pub use content::{Detail, What};

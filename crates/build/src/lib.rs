//! Where the source is: from a commit to the bytes of an artefact.
//!
//! ```text
//! source::resolve → checkout::materialise → recipe::run → collect::collect → package::package → provenance::predicate
//!    commit, key        a clean tree         the project's    the files      layers, config,     how it came
//!                                            own commands     it names       manifest            about
//! ```
//!
//! Each step is one function in one file; [`pipeline::run`] calls them in order. Nothing here knows the ledger, HTTP or
//! SQL: whether a build is needed at all, and which version it gets, is decided elsewhere. Time and environment are
//! arguments. The working directory of the project is never written, and never read for content but for a base layout, of
//! which every byte is hashed.
//!
//! [`files`] makes artefacts of what something else built: packages, disk images, charts, file trees.
//!
//! Reading order:
//!
//! - [`source`], [`checkout`]
//! - [`recipe`] with [`sandbox`], [`cache`] and [`log`]
//! - [`collect`], [`layer`], [`base`], [`package`] with [`zip`]
//! - [`rootfs`], [`lint`], [`closure`], `boot`, [`sbom`]
//! - [`snapshot`], [`provenance`], [`pipeline`]
//! - for `semel build --check`: [`check`]
//! - for `semel init`: [`detect`]
//! - for `semel diff`: [`difference`]
//! - for `semel push`: [`files`] with [`disk`] and [`chart`]

mod archive;
pub mod base;
mod boot;
pub mod check;
pub mod checkout;
mod chunks;
pub mod closure;
pub mod collect;
mod compress;
pub mod finished;
mod git;
pub mod lint;
pub mod layer;
pub mod log;
pub mod package;
pub mod pipeline;
mod planned;
pub mod provenance;
pub mod recipe;
pub mod rootfs;
pub mod sandbox;
pub mod cache;
pub mod sbom;
pub mod snapshot;
pub mod source;
mod watch;
pub mod zip;

pub mod detect;

pub mod difference;

pub mod chart;
pub mod disk;
pub mod files;

pub use git::{GitError, is_tracked, version as git_version};

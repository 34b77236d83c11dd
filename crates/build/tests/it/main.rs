//! From real git repositories to artefacts, through the public door.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]
#![allow(clippy::disallowed_methods, reason = "tests make files that need not last, and look for programs")]

mod artefact;
mod commands;
mod caches;
mod detection;
mod files;
mod images;
mod lint;
mod rootfs;
mod sandbox;
mod sbom;
mod sources;
mod check;
mod clean;
mod closure;
mod support;
mod vm;
mod zip;

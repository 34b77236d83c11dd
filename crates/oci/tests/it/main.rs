//! The crate through its public door: layouts on a real disk, the client against a small registry, in process and
//! over a real socket.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests damage files on purpose")]

mod artefacts;
mod registry;
mod sign_in;

mod client;
mod copy;
mod cutter;
mod layout;
mod properties;
mod tools;
mod transport;

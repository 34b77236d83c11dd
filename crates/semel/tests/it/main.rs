//! The tests of the program and of the repository.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod formats;
mod tidy;

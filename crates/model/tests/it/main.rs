//! The formats of the model, through its public door.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod formats;
mod project_file;

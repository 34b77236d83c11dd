//! The tests of the program and of the repository.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests write files and read the environment as other people do"
)]

#[path = "../../../store/tests/it/cluster.rs"]
#[allow(dead_code, reason = "the tests of the store use all of it")]
mod cluster;
mod environment;
mod http;
mod layout;
mod lint;
mod random;
mod transcript;

mod bad_input;
mod building;
mod check;
mod clients;
mod describe;
mod examples;
mod formats;
mod images;
mod kill;
mod output;
mod packages;
mod push;
mod races;
mod repository;
mod serve_kill;
mod serve_stop;
mod servers;
mod source;
mod story;
mod sandbox;
mod tidy;
mod tour;
mod versions;

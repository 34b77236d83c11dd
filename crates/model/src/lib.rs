//! The nouns and the rules of Semel.
//!
//! Everything here is a value or a pure function of values: no I/O, no clock, no randomness, no async.
//! Time is an argument. What the other crates may do is decided here; doing it is their work.
//!
//! Reading order: the identities ([`digest`], [`name`], [`version`]), what a project asks for ([`project`],
//! [`platform`], [`runtime`], [`config`], [`pipeline`]), what is recorded ([`actor`], [`entry`], [`merkle`], [`note`],
//! [`statement`], [`reproducibility`]), and the rules ([`build`], [`allocation`], [`ancestry`], [`reservation`],
//! [`promotion`], [`deployment`], [`keep`], [`taint`]).

pub mod digest;
pub mod name;
pub mod version;
pub mod canonical;

pub mod project;
pub mod platform;
pub mod config;
pub mod pipeline;
pub mod runtime;
pub mod duration;

pub mod actor;
pub mod entry;
pub mod merkle;
pub mod note;
pub mod statement;
pub mod reproducibility;

pub mod build;
pub mod allocation;
pub mod ancestry;
pub mod reservation;
pub mod promotion;
pub mod deployment;
pub mod keep;
pub mod taint;

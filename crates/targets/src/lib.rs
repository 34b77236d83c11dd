//! Where it runs: target drivers.
//!
//! A driver makes one binding (environment, component) run what is desired and says what runs there. Today there is one:
//! [`directory`], releases laid out in a directory of this machine under a supervisor of our own.
//!
//! Knows nothing of the ledger, of SQL or of HTTP servers: facts come in with the order, bytes come from a
//! [`BlobSource`](directory::BlobSource), time and environment are arguments.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests write files as other people do"))]

pub mod directory;

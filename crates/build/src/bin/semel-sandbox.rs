//! The hidden verb `semel sandbox`, alone: what the tests of this crate, which cannot use the binary's crate, build with.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use semel_build::sandbox::{VERB, help};

fn main() -> io::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [verb, order, dashes, command @ ..] if verb == VERB && dashes == "--" => {
            help(&order.to_string_lossy(), command).map(ExitCode::from)
        }
        _ => Err(io::Error::other(format!("expected: {VERB} JSON -- COMMAND"))),
    }
}

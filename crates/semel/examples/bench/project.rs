//! The project that is built, its store, and what is run to the end in it.

use std::path::Path;
use std::process::Command;

use semel_store::Place;

use crate::Error;
use crate::scratch::Scratch;

impl Scratch {
    /// The large store, where the program looks for the user's own.
    pub(crate) fn store(&self) -> Place {
        Place::embedded(self.path("data/semel"), self.keys())
    }

    /// Runs git in the project and gives what it printed.
    pub(crate) fn git(&self, words: &[&str]) -> Result<String, Error> {
        output(self.command(Path::new("git"), words))
    }
}

/// Runs a command to its end; anything but success is an error with what it said.
pub(crate) fn output(mut command: Command) -> Result<String, Error> {
    let done = command.output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    Err(format!("{command:?} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr)).into())
}

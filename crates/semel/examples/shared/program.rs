//! The program that is measured.

use std::path::PathBuf;
use std::process::Command;

use crate::Error;

/// Builds the program as it is released; a benchmark measures nothing else.
pub(crate) fn release_build() -> Result<PathBuf, Error> {
    let built = Command::new(env!("CARGO")).args(["build", "--release", "--package", "semel"]).status()?;
    if !built.success() {
        return Err("the release build failed".into());
    }
    let example = std::env::current_exe()?;
    let target = example.ancestors().nth(3).ok_or("a benchmark runs from the target directory")?;
    Ok(target.join("release/semel"))
}

//! What is measured, and how long.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::rows::ROWS;

/// What the caller asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The rows to measure; none: all.
    only: Vec<String>,
    /// Small stores and short rounds: whether it works, not how fast.
    pub(crate) quick: bool,
    /// One JSON object instead of text.
    pub(crate) json: bool,
    /// The program; none: the release build of this workspace, made first.
    pub(crate) program: Option<PathBuf>,
    runs: Option<usize>,
}

impl Options {
    pub(crate) fn parse(words: &[String]) -> Result<Self, Error> {
        let mut options = Self { only: Vec::new(), quick: false, json: false, program: None, runs: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} has no value"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = true,
                "--only" => options.only.push(known_row(value()?)?),
                "--program" => options.program = Some(std::fs::canonicalize(value()?)?),
                "--runs" => options.runs = Some(value()?.parse::<usize>()?.max(1)),
                other => return Err(format!("`{other}` is no option of the benchmark").into()),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == row)
    }

    /// How often everything is measured.
    pub(crate) fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// How long a round of requests takes.
    pub(crate) fn round(&self) -> Duration {
        Duration::from_millis(if self.quick { 700 } else { 2_500 })
    }

    /// One of two sizes.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn known_row(name: &str) -> Result<String, Error> {
    if ROWS.iter().any(|row| row.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    Err(format!("there is no row `{name}`; the rows are {}", names.join(", ")).into())
}

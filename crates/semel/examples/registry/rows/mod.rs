//! The rows of the table of speed, each in a file.

mod pull;
mod get;
mod push;
mod small;
mod manifest;
mod memory;
mod start;
mod scale;

use crate::report::Report;
use crate::{Bench, Error};

/// A row.
pub(crate) struct Row {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// Measures it, figure by figure.
    pub(crate) measure: fn(&Bench, &mut Report) -> Result<(), Error>,
}

/// All rows, in the order in which they are measured.
pub(crate) const ROWS: [Row; 8] = [
    Row { name: pull::ROW, measure: pull::measure },
    Row { name: get::ROW, measure: get::measure },
    Row { name: push::ROW, measure: push::measure },
    Row { name: small::ROW, measure: small::measure },
    Row { name: manifest::ROW, measure: manifest::measure },
    Row { name: memory::ROW, measure: memory::measure },
    Row { name: start::ROW, measure: start::measure },
    Row { name: scale::ROW, measure: scale::measure },
];

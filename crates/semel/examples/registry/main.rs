//! What the registry of Semel does beside its peers: Debian's `docker-registry`, and `nginx` with static files.
//!
//! ```text
//! crates/semel/examples/registry/install
//! cargo run --release -p semel --example registry -- [--only ROW] [--quick] [--runs N] [--program FILE] [--json]
//! ```
//!
//! All servers run on loopback with the same client, one measured after the other in every round, and a figure is the median
//! of its rounds. Semel is the release build (or another: `--program`) and writes durably, as it always does;
//! `docker-registry` writes as it does by default. It ends with exit code 1 when a target is missed. Everything lies in a
//! temporary directory, of which the full run takes up to 25 GiB at a time, and `--quick` 8.

#![expect(clippy::print_stdout, reason = "the report of a benchmark is its output")]

#[path = "../shared/program.rs"]
mod program;
#[path = "../shared/scratch.rs"]
mod scratch;
#[path = "../shared/content.rs"]
mod content;
#[path = "../shared/memory.rs"]
mod memory;

mod options;
mod interrupt;
mod servers;
mod http;
mod load;
mod layer;
mod push;
mod artefact;
mod fetch;
mod usage;
mod machine;
mod figure;
mod contest;
mod peers;
mod fill;
mod report;
mod rows;

use std::process::ExitCode;

use tempfile::TempDir;

use crate::options::Options;
use crate::report::Report;
use crate::scratch::Scratch;

/// Whatever went wrong; a benchmark has nobody to recover for.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<ExitCode, Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut options = Options::parse(&words)?;
    let program = options.program.take().map_or_else(program::release_build, Ok)?;
    interrupt::watch()?;
    let bench = Bench { scratch: Scratch::new(program)?, options };
    machine::require_disk(&bench.scratch.path(""))?;
    let mut report = Report::new(bench.options.json);
    for row in rows::ROWS.iter().filter(|row| bench.options.wants(row.name)) {
        (row.measure)(&bench, &mut report)?;
    }
    Ok(if report.finish()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What every row needs.
struct Bench {
    scratch: Scratch,
    options: Options,
}

impl Bench {
    /// A directory for the servers of one figure.
    fn space(&self) -> Result<TempDir, Error> {
        Ok(tempfile::Builder::new().prefix("servers-").tempdir_in(self.scratch.path(""))?)
    }
}

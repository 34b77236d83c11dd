//! What Semel costs: the verbs on a large store, memory and speed of large blobs, durable appends.
//!
//! ```text
//! cargo run --release -p semel --example bench -- [--versions 10000] [--runs 31] [--blob-mib 2048] [--program FILE]
//! ```
//!
//! Measures the release build of the program that a user runs (or another: `--program`), as processes, in one run with its peers: other programs that
//! do the least that could be done. Times are medians; targets are those of the design. It ends with exit code 1 when a
//! target is missed. Everything lies in a temporary directory.

#![expect(clippy::print_stdout, reason = "the report of a benchmark is its output")]

#[path = "../shared/program.rs"]
mod program;
#[path = "../shared/scratch.rs"]
mod scratch;
#[path = "../shared/content.rs"]
mod content;
#[path = "../shared/memory.rs"]
mod memory;

mod project;
mod fill;
mod verbs;
mod transfer;
mod appends;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::scratch::Scratch;

/// Whatever went wrong; a benchmark has nobody to recover for.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// What is measured, and how often.
#[derive(Debug, Clone)]
struct Options {
    versions: u64,
    runs: usize,
    blob_mib: u64,
    /// What is measured; none: the release build of this workspace, made first.
    program: Option<PathBuf>,
}

/// A line of the report.
#[derive(Debug)]
struct Line {
    what: String,
    measured: String,
    target: String,
    met: bool,
}

impl Line {
    /// A figure that nothing is asked of: a peer, a rate.
    fn fact(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self { what: what.into(), measured: measured.into(), target: String::new(), met: true }
    }

    /// A figure with the most that it may be.
    fn at_most(
        what: impl Into<String>,
        measured: impl Into<String>,
        target: impl Into<String>,
        met: bool,
    ) -> Self {
        Self { what: what.into(), measured: measured.into(), target: target.into(), met }
    }
}

fn main() -> Result<ExitCode, Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let [word, rest @ ..] = words.as_slice()
        && word == appends::WRITER
    {
        return runtime.block_on(appends::write(rest)).map(|()| ExitCode::SUCCESS);
    }
    let options = parse(&words)?;
    let program = options.program.clone().map_or_else(program::release_build, Ok)?;
    let scratch = Scratch::new(program)?;
    let lines = runtime.block_on(measure(&scratch, &options))?;
    Ok(if lines.iter().all(|line| line.met) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(scratch: &Scratch, options: &Options) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::new();
    let filled = fill::fill(scratch, options.versions).await?;
    println!(
        "a store with {} versions: {} entries, {} blobs, filled in {:.1} s",
        options.versions,
        filled.entries,
        filled.blobs,
        filled.took.as_secs_f64()
    );
    for section in [
        ("a verb, as a process of its own (median; 95th percentile)", verbs::measure(scratch, options)?),
        ("durable appends to the same store, one entry each", appends::measure(scratch)?),
        ("one large blob through `semel serve`", transfer::measure(scratch, options.blob_mib).await?),
    ] {
        show(section.0, &section.1);
        lines.extend(section.1);
    }
    Ok(lines)
}

fn show(title: &str, lines: &[Line]) {
    println!("\n{title}");
    for line in lines {
        let target = match (line.target.as_str(), line.met) {
            ("", _) => String::new(),
            (target, true) => format!("{target}: met"),
            (target, false) => format!("{target}: MISSED"),
        };
        println!("  {:<46} {:>26}   {target}", line.what, line.measured);
    }
}

fn parse(words: &[String]) -> Result<Options, Error> {
    let mut options = Options { versions: 10_000, runs: 31, blob_mib: 2048, program: None };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} has no value", pair[0]).into()) };
        match name.as_str() {
            "--versions" => options.versions = value.parse::<u64>()?.max(100),
            "--runs" => options.runs = value.parse::<usize>()?.max(3),
            "--blob-mib" => options.blob_mib = value.parse()?,
            "--program" => options.program = Some(std::fs::canonicalize(value)?),
            other => return Err(format!("`{other}` is no option of the benchmark").into()),
        }
    }
    Ok(options)
}

//! How fast the linter looks for secrets and for values of an environment, beside programs that do less.
//!
//! ```text
//! cargo run --release -p semel-build --example scan -- [DIRECTORY] [MIB] [RUNS]
//! ```
//!
//! The corpus is what lies below a directory (`/usr`), joined to one file of so many MiB (512). Every line is the median of
//! as many runs (7), on one core, with the file in the page cache. `grep` gets the anchors of the rules as fixed texts and
//! counts lines; `sha256sum` is what a registry does with every byte anyway.

#![expect(clippy::disallowed_methods, reason = "a benchmark writes what nobody keeps")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use semel_build::collect::PackKind;
use semel_build::lint::{LintRequest, Scanner, files_at, lint};
use semel_model::config::Contract;
use semel_model::name::ConfigKey;
use semel_model::taint::Taint;

const CONTRACT: &str =
    r#"{"DATABASE_URL":{"type":"url","secret":true},"PORT":{"type":"port"},"LOG_LEVEL":{"type":"string"}}"#;

const MIB: u64 = 1 << 20;

/// What is kept: 500 MB/s for each core.
const LEAST_MB_PER_SECOND: f64 = 500.0;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "/usr".to_owned()));
    let mib: u64 = args.next().map_or(Ok(512), |word| word.parse())?;
    let runs: usize = args.next().map_or(Ok(7), |word| word.parse())?;
    let scratch = std::env::temp_dir().join(format!("semel-scan-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let done = measure(&dir, &scratch, mib * MIB, runs);
    fs::remove_dir_all(&scratch)?;
    done
}

fn measure(dir: &Path, scratch: &Path, bytes_max: u64, runs: usize) -> Result<(), Box<dyn Error>> {
    let corpus = scratch.join("corpus");
    let bytes = join(dir, &corpus, bytes_max)?;
    let anchors = scratch.join("anchors");
    fs::write(&anchors, Scanner::anchors().collect::<Vec<_>>().join("\n"))?;
    let scanner = Scanner::new();
    let taint = twenty_values()?;
    let secrets = median(runs, || scan(&scanner, &corpus))?;
    let values = median(runs, || search(&taint, &corpus))?;
    let grep =
        median(runs, || run(Command::new("grep").args(["-c", "-a", "-F", "-f"]).arg(&anchors).arg(&corpus)))?;
    let everything = median(runs, || look(&corpus, bytes))?;
    let sum = median(runs, || run(Command::new("sha256sum").arg(&corpus)))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{} MB below {}, median of {runs}", bytes / 1_000_000, dir.display())?;
    for (name, took) in [
        ("secrets", secrets),
        ("values of an environment (20)", values),
        ("every rule, as pieces of 1 MiB", everything),
        ("grep -F -f anchors", grep),
        ("sha256sum", sum),
    ] {
        let speed = bytes as f64 / 1e6 / took.as_secs_f64();
        let ratio = took.as_secs_f64() / secrets.as_secs_f64();
        writeln!(
            out,
            "{name:<32} {:>7.0} ms {speed:>7.0} MB/s  {ratio:>5.2} × the time of secrets",
            took.as_secs_f64() * 1e3
        )?;
    }
    let speed = bytes as f64 / 1e6 / secrets.as_secs_f64();
    if speed < LEAST_MB_PER_SECOND {
        return Err(format!("{speed:.0} MB/s is less than {LEAST_MB_PER_SECOND}").into());
    }
    Ok(())
}

/// Joins the files below a directory, in the order of their names.
fn join(dir: &Path, corpus: &Path, bytes_max: u64) -> io::Result<u64> {
    let mut to = io::BufWriter::new(File::create(corpus)?);
    let mut written = 0;
    for file in files_at(dir, b"")? {
        let PackKind::File { from, .. } = file.kind else { continue };
        let Ok(from) = File::open(from) else { continue };
        written += io::copy(&mut from.take(bytes_max - written), &mut to)?;
        if written == bytes_max {
            break;
        }
    }
    to.flush()?;
    Ok(written)
}

fn twenty_values() -> Result<Taint, Box<dyn Error>> {
    let mut values = Vec::new();
    for n in 0..20 {
        let key: ConfigKey = format!("KEY_{n}").parse()?;
        values.push((key, format!("https://user{n}:pass{}@host{n}.shop.net/{}", n * 7_919, n * 104_729)));
    }
    Ok(Taint::new(values.iter().map(|(key, value)| (key, value.as_str())))?)
}

fn scan(scanner: &Scanner, corpus: &Path) -> io::Result<()> {
    scanner.stream(File::open(corpus)?, &mut |_| {}).map(drop)
}

/// Everything that a build looks for, in files of 1 MiB that configure something.
fn look(corpus: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::open(corpus)?;
    let dir = corpus.with_extension("d");
    if !dir.exists() {
        fs::create_dir(&dir)?;
        for n in 0..bytes / MIB {
            let mut piece = Vec::new();
            (&mut file).take(MIB).read_to_end(&mut piece)?;
            fs::write(dir.join(format!("{n}.json")), piece)?;
        }
    }
    let contract: Contract = serde_json::from_str(CONTRACT).map_err(io::Error::other)?;
    let files = files_at(&dir, b"app")?;
    let request = LintRequest {
        files: &files,
        stored: Vec::new(),
        contract: &contract,
        environments: vec!["dev", "production"],
        front_end: None,
        values_files: &[],
        config: None,
        waivers: &[],
        today: jiff::civil::date(2026, 11, 23),
    };
    lint(request).map(drop).map_err(io::Error::other)
}

fn search(taint: &Taint, corpus: &Path) -> io::Result<()> {
    let (mut file, mut stream) = (File::open(corpus)?, taint.stream());
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.feed(&buffer[..read]),
        }
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    // With nowhere to print to, grep would stop at the first line.
    command.env("LC_ALL", "C").stderr(Stdio::null()).output().map(drop)
}

fn median(runs: usize, mut work: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let mut took = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let began = Instant::now();
        work()?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

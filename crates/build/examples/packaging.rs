//! What packaging costs, beside others, in one run: `cargo run --release -p semel-build --example packaging -- TREE [RUNS]`.
//!
//! TREE is a directory, such as one of 1 GB with sources and programs. Semel makes a compressed layer with its digests of it,
//! with gzip and with Zstandard, and each peer one with gzip. Where a peer is not installed, its row is left out. Times are
//! medians; the processor time is that of all threads, so a rate per core can be told on a machine with any number of them.
//! Memory is the peak of this process.

#![allow(clippy::print_stdout, reason = "this is a program")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use semel_build::collect;
use semel_build::package::{self, PackageRequest};
use semel_model::platform::Platform;
use semel_model::project::Project;

type Failed = Box<dyn Error>;

/// What one run cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall_seconds: f64,
    processor_seconds: f64,
    layer_bytes: u64,
}

fn main() -> Result<(), Failed> {
    let mut words = std::env::args().skip(1);
    let tree = PathBuf::from(words.next().ok_or("which tree? packaging TREE [RUNS]")?).canonicalize()?;
    let runs: usize = words.next().map_or(Ok(3), |word| word.parse())?;
    let bytes = size_of(&tree)?;
    let megabytes = bytes as f64 / 1e6;
    println!("{} with {megabytes:.0} MB, {runs} runs", tree.display());
    println!("{:<22} {:>8} {:>10} {:>14} {:>8}", "", "seconds", "processor", "MB/s per core", "MB out");
    let cores = std::thread::available_parallelism()?;
    let gzip = row("semel", megabytes, runs, || packaged(&tree, "gzip", cores))?;
    row("semel, one thread", megabytes, runs, || packaged(&tree, "gzip", NonZeroUsize::MIN))?;
    let zstd = row("semel, zstd", megabytes, runs, || packaged(&tree, "zstd", cores))?;
    row("semel, zstd, 1 thread", megabytes, runs, || packaged(&tree, "zstd", NonZeroUsize::MIN))?;
    println!("{:<22} {} MiB", "  peak memory", peak_memory_kib()? / 1024);
    let scratch = tempfile::tempdir()?;
    let to = scratch.path().display();
    let from = tree.display();
    let peers = [
        (
            "umoci",
            "umoci insert",
            format!(
                "cd {to} && rm -rf u && umoci init --layout u && umoci new --image u:a && umoci insert --image u:a {from} /app && du -sb u"
            ),
        ),
        ("pigz", "tar | pigz -p1", format!("tar -C {from} -c . | pigz -p1 > {to}/p && du -sb {to}/p")),
        (
            "buildah",
            "buildah add, commit",
            format!(
                "cd {to} && rm -rf s r b && b='buildah --storage-driver vfs --root {to}/s --runroot {to}/r' && c=$($b from scratch) && $b add -q $c {from} /app && $b commit -q $c oci-archive:{to}/b && du -sb {to}/b"
            ),
        ),
    ];
    for (program, name, script) in peers {
        if Command::new(program).arg("--version").output().is_err() {
            println!("{name:<22} is not installed");
            continue;
        }
        let peer = row(name, megabytes, runs, || shell(&script))?;
        for (how, own) in [("semel", gzip), ("semel, zstd", zstd)] {
            println!(
                "{:<22} {how}: {:.1} times as fast, {:.1} times per core",
                "",
                peer.wall_seconds / own.wall_seconds,
                peer.processor_seconds / own.processor_seconds
            );
        }
    }
    Ok(())
}

fn row(
    name: &str,
    megabytes: f64,
    runs: usize,
    run: impl Fn() -> Result<Cost, Failed>,
) -> Result<Cost, Failed> {
    let mut costs = (0..runs.max(1)).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    costs.sort_by(|a, b| a.wall_seconds.total_cmp(&b.wall_seconds));
    let cost = costs[costs.len() / 2];
    println!(
        "{name:<22} {:>8.2} {:>10.2} {:>14.0} {:>8.0}",
        cost.wall_seconds,
        cost.processor_seconds,
        megabytes / cost.processor_seconds,
        cost.layer_bytes as f64 / 1e6
    );
    Ok(cost)
}

fn packaged(tree: &Path, compression: &str, threads: NonZeroUsize) -> Result<Cost, Failed> {
    let text = format!(
        "format = 1\ncomponent = \"bench\"\n[artefact]\nkind = \"archive\"\ncompression = \"{compression}\"\nfiles = [{{ from = \".\", to = \"/app\" }}]\n"
    );
    let definition = Project::parse("semel.toml", &text)?.definition;
    let into = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    measured(Clock::Own, || {
        let files = Arc::new(collect::collect(tree, &definition.artefact)?);
        let packaged = runtime.block_on(package::package(&PackageRequest {
            files: &files,
            definition: &definition,
            commit: &"0123456789012345678901234567890123456789".parse()?,
            committed_seconds: 1_700_000_000,
            remote: None,
            platform: &Platform::host(),
            base: None,
            layout_dir: &into.path().join("layout"),
            threads,
        }))?;
        Ok(packaged.bytes)
    })
}

fn shell(script: &str) -> Result<Cost, Failed> {
    measured(Clock::Children, || {
        let output = Command::new("/bin/sh").args(["-euc", script]).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let text = String::from_utf8(output.stdout)?;
        let last = text.lines().last().and_then(|line| line.split_whitespace().next());
        Ok(last.ok_or("no size")?.parse()?)
    })
}

#[derive(Clone, Copy)]
enum Clock {
    Own,
    Children,
}

impl Clock {
    /// proc(5), `/proc/self/stat`: utime and stime, or those of children that were waited for, in hundredths of a second.
    fn seconds(self) -> Result<f64, Failed> {
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let first = match self {
            Self::Own => 11,
            Self::Children => 13,
        };
        let ticks: Result<Vec<f64>, _> =
            fields[first..first + 2].iter().map(|field| field.parse::<f64>()).collect();
        Ok(ticks?.iter().sum::<f64>() / 100.0)
    }
}

fn measured(clock: Clock, work: impl FnOnce() -> Result<u64, Failed>) -> Result<Cost, Failed> {
    let (before, began) = (clock.seconds()?, Instant::now());
    let layer_bytes = work()?;
    let wall_seconds = began.elapsed().as_secs_f64();
    Ok(Cost { wall_seconds, processor_seconds: clock.seconds()? - before, layer_bytes })
}

fn peak_memory_kib() -> Result<u64, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn size_of(tree: &Path) -> Result<u64, Failed> {
    let mut sum = 0;
    for entry in std::fs::read_dir(tree)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

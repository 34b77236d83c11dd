//! What the machine did meanwhile: figures from a busy machine say little, so every figure comes with this.

use std::fs;
use std::path::Path;

use rustix::fs::{statfs, statvfs};
use serde::Serialize;

use crate::Error;

/// `TMPFS_MAGIC` of `statfs(2)`.
const MEMORY_FILE_SYSTEM: u64 = 0x0102_1994;

/// The machine while a figure was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Machine {
    /// How many processes were ready to run when it began, averaged over a minute (`proc_loadavg(5)`).
    pub(crate) load: f64,
    /// The share of all processor time that nobody used.
    pub(crate) idle_share: f64,
}

/// A look at the machine's counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    load: f64,
    idle: u64,
    all: u64,
}

impl Watch {
    pub(crate) fn start() -> Result<Self, Error> {
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_ascii_whitespace().next().ok_or("the system tells its load")?.parse()?;
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().ok_or("the system tells its times")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in the first two (`proc_stat(5)`).
        let times: Vec<u64> =
            line.split_ascii_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { load, idle: times[3] + times[4], all: times.iter().sum() })
    }

    pub(crate) fn stop(self) -> Result<Machine, Error> {
        let now = Self::start()?;
        let all = (now.all - self.all).max(1);
        Ok(Machine { load: self.load, idle_share: now.idle.saturating_sub(self.idle) as f64 / all as f64 })
    }
}

/// Refuses a directory in memory, where durable writes cost nothing.
pub(crate) fn require_disk(dir: &Path) -> Result<(), Error> {
    if statfs(dir)?.f_type as u64 == MEMORY_FILE_SYSTEM {
        return Err(
            format!("{} lies in memory; name a directory on a disk with TMPDIR", dir.display()).into()
        );
    }
    Ok(())
}

/// Refuses when a row would fill the disk.
pub(crate) fn require_space(dir: &Path, bytes: u64) -> Result<(), Error> {
    let disk = statvfs(dir)?;
    let free = disk.f_bavail * disk.f_frsize;
    if free < bytes {
        let gib = |bytes: u64| bytes >> 30;
        return Err(format!("{} has {} GiB left, {} are needed", dir.display(), gib(free), gib(bytes)).into());
    }
    Ok(())
}

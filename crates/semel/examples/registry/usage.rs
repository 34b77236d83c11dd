//! What a server has used so far, summed over its processes (`proc(5)`).

use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use crate::servers::Server;
use crate::{Error, memory};

/// In how many ticks the system counts a second of processor time: `USER_HZ`, which is 100 on every architecture of today
/// (Linux, `include/uapi/asm-generic/param.h`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Counters that only grow.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time, of its threads and on their behalf in the kernel.
    pub(crate) cpu: Duration,
    /// Bytes that went to the disk, or will.
    pub(crate) written_bytes: u64,
}

impl Usage {
    pub(crate) fn of(server: &Server) -> Result<Self, Error> {
        let mut usage = Self::default();
        for process in server.processes()? {
            usage.cpu += cpu(process)?;
            usage.written_bytes += written_bytes(process)?;
        }
        Ok(usage)
    }

    /// What was used since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { cpu: self.cpu - before.cpu, written_bytes: self.written_bytes - before.written_bytes }
    }
}

/// Lets the peak of memory begin anew (`clear_refs` 5 resets `VmHWM`).
pub(crate) fn forget_peak(server: &Server) -> Result<(), Error> {
    for process in server.processes()? {
        File::options().write(true).open(format!("/proc/{process}/clear_refs"))?.write_all(b"5")?;
    }
    Ok(())
}

/// The most memory that was resident since the peak was forgotten, in bytes.
pub(crate) fn peak_bytes(server: &Server) -> Result<u64, Error> {
    sum(server, "VmHWM")
}

/// The memory that is resident now, in bytes.
pub(crate) fn resident_bytes(server: &Server) -> Result<u64, Error> {
    sum(server, "VmRSS")
}

fn sum(server: &Server, field: &str) -> Result<u64, Error> {
    server.processes()?.into_iter().map(|process| memory::of(process, field)).sum()
}

fn cpu(process: u32) -> Result<Duration, Error> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name stands in parentheses and may hold anything; behind it `utime` and `stime` are the 12th and 13th field.
    let (_, fields) = stat.rsplit_once(')').ok_or("a process has a name")?;
    let times = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = times.sum::<Result<u64, _>>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

fn written_bytes(process: u32) -> Result<u64, Error> {
    let io = fs::read_to_string(format!("/proc/{process}/io"))?;
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(written.ok_or("the system does not count what a process writes")?.trim().parse()?)
}

//! How much memory a process takes.

use crate::Error;

/// A figure of `proc_pid_status(5)` in bytes: `VmHWM`, the most that was resident so far, or `VmRSS`, what is resident now.
pub(crate) fn of(process: u32, field: &str) -> Result<u64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let line = line.ok_or_else(|| format!("the system does not tell {field} of process {process}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

//! This process, as other processes of the same machine can look for it.

use std::fs;

use semel_model::digest::Digest;
use semel_model::reservation::Process;
use semel_targets::directory::ProcessId;

/// This process; none where the machine does not say which it is.
pub(crate) fn own() -> Option<Process> {
    let id = ProcessId::of(i32::try_from(std::process::id()).ok()?)?;
    Some(Process { host: host()?, pid: id.pid, start: id.start })
}

/// Whether a process of this machine has ended. Of another machine's nothing is known.
pub(crate) fn has_ended(process: &Process) -> bool {
    let known = host().is_some_and(|host| host == process.host);
    known && !ProcessId { pid: process.pid, start: process.start.clone() }.is_alive()
}

/// This boot of this machine and the namespace of its process numbers, hashed: nobody needs to know which machine it is.
fn host() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let text = format!("{} {}", boot.trim(), namespace.display());
    Some(Digest::of(text.as_bytes()).short().to_owned())
}

/// Whether this process was started with the hangup of its terminal ignored, as `nohup` does. A handler would undo that.
pub(crate) fn ignores_hangup() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, rustix::process::Signal::HUP))
}

/// Source: proc_pid_status(5), `SigIgn`: a mask in hexadecimal digits, the first signal lowest.
fn ignores(status: &str, signal: rustix::process::Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_a_process_says_what_it_ignores() {
        use rustix::process::Signal;
        for (mask, hangup, interrupt) in
            [("0000000000000001", true, false), ("0000000000001002", false, true), ("0", false, false)]
        {
            let status = format!("Name:\tsemel\nSigBlk:\t000000000000000f\nSigIgn:\t{mask}\n");
            assert_eq!((ignores(&status, Signal::HUP), ignores(&status, Signal::INT)), (hangup, interrupt));
        }
    }

    #[test]
    fn a_process_knows_itself_and_says_nothing_of_other_machines() {
        let Some(own) = own() else { return };
        assert!(!has_ended(&own));
        let ended = Process { start: "another start".to_owned(), ..own };
        assert!(has_ended(&ended));
        assert!(!has_ended(&Process { host: "elsewhere".to_owned(), ..ended }));
    }
}

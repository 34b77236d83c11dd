//! Guard: the process above a command, which leaves nothing of it behind.
//!
//! It adopts every process below it that loses its parent (a child subreaper), so that also what forked twice and made
//! a session of its own stays below it. When the command is at its end, or standard input is closed because the build
//! was stopped or is gone itself, it ends its children until it has none, and only then exits.
//!
//! Only own children are ended, never what `/proc` says about others: the number of a child that was not waited for
//! belongs to nobody else.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
    waitid, waitpid,
};

/// The command's process, until it was waited for.
type Leader = Arc<Mutex<Option<Pid>>>;

/// Runs a command and everything below it to its end. Returns the code that the command exited with, or 128 and the
/// signal that ended it.
pub(super) fn watch(program: &OsString, arguments: &[OsString]) -> io::Result<u8> {
    // Without a terminal of its own a command cannot type into the caller's. Fails for the leader of a group, which
    // whoever starts a guard can avoid.
    rustix::process::setsid()?;
    adopt_orphans()?;
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).spawn()?;
    let pid = Pid::from_child(&child);
    let leader = Arc::new(Mutex::new(Some(pid)));
    stop_when_closed(Arc::clone(&leader));
    let status = wait_for(pid, &leader)?;
    end_everything();
    Ok(code(status))
}

#[cfg(target_os = "linux")]
fn adopt_orphans() -> io::Result<()> {
    // The argument only says whether; any process number does.
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Elsewhere a process that leaves its group leaves the guard.
#[cfg(not(target_os = "linux"))]
fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// Ends the command when nobody holds the other end of standard input any more.
fn stop_when_closed(leader: Leader) {
    std::thread::spawn(move || {
        // Nothing is ever written there; an error means the same as the end.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        if let Some(pid) = *leader.lock().expect(HOLDERS) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
    });
}

const HOLDERS: &str = "no holder of this lock can panic";

/// Waits for the command, and meanwhile for every process that was adopted.
fn wait_for(pid: Pid, leader: &Leader) -> io::Result<WaitStatus> {
    loop {
        wait_without_reaping()?;
        let mut held = leader.lock().expect(HOLDERS);
        if waitid(WaitId::Pid(pid), ENDED | WaitIdOptions::NOHANG)?.is_none() {
            wait(WaitOptions::NOHANG)?;
            continue;
        }
        // While it is not waited for, its number, which is that of its group, cannot belong to anybody else.
        let _ = kill_process_group(pid, Signal::KILL);
        *held = None;
        if let Some((_, status)) = waitpid(Some(pid), WaitOptions::empty())? {
            return Ok(status);
        }
    }
}

/// An end that is looked at and left to be waited for.
const ENDED: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOWAIT);

/// Until some child has ended.
fn wait_without_reaping() -> io::Result<()> {
    loop {
        match waitid(WaitId::All, ENDED) {
            Err(Errno::INTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Ends what is left. What belongs to another user, because it was allowed to become one, is left alone.
fn end_everything() {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(_) => return,
            Ok(None) => {
                let ended =
                    children().into_iter().filter(|child| kill_process(*child, Signal::KILL).is_ok()).count();
                if ended == 0 || wait_without_reaping().is_err() {
                    return;
                }
            }
        }
    }
}

/// This process's children, also those that it adopted.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let listing = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    listing
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (pid, parent) = of_stat(&stat)?;
            (parent == own.as_raw_pid()).then(|| Pid::from_raw(pid)).flatten()
        })
        .collect()
}

/// Process and parent of a line of `/proc/PID/stat` (proc_pid_stat(5)): `PID (NAME) STATE PARENT …`, where the name may
/// contain anything.
fn of_stat(stat: &str) -> Option<(i32, i32)> {
    let (pid, rest) = stat.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    Some((pid.parse().ok()?, rest.split(' ').nth(1)?.parse().ok()?))
}

fn code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::of_stat;

    #[test]
    fn parents_are_found_whatever_a_process_calls_itself() {
        for (stat, expected) in [
            ("42 (sh) S 1 42 42 0", Some((42, 1))),
            ("42 (a) S 7 (b) R 12 42", Some((42, 12))),
            ("42 (kthread)", None),
            ("", None),
        ] {
            assert_eq!(of_stat(stat), expected, "{stat}");
        }
    }
}

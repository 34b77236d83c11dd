//! Processes of this host, as the kernel tells about them.
//!
//! A process is known by its number *and* its start, because numbers are used again. On Linux `/proc` is read; elsewhere
//! `ps` gives the start and the supervisor's own record stands in for the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Layout;
use super::launch::DEPLOYMENT;

/// A process that cannot be mistaken for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// Its start: field 22 of `/proc/<pid>/stat` (proc(5)), or what `ps` prints.
    pub start: String,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: start_of(pid)? })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        start_of(self.pid).is_some_and(|start| start == self.start)
    }
}

/// What a running process shows about where it came from.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pub(super) executable: Option<PathBuf>,
    pub(super) workdir: Option<PathBuf>,
    pub(super) arguments: Vec<PathBuf>,
    /// The variables that it was started with; none: it overwrote them, or may not be read.
    pub(super) variables: Option<BTreeMap<String, String>>,
}

/// Reads the traces of a process. Empty where there is no `/proc`.
pub(super) fn traces(pid: i32) -> Traces {
    let dir = Path::new("/proc").join(pid.to_string());
    let words = |name: &str| {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
    };
    let pairs = words("environ");
    let variables: BTreeMap<String, String> = pairs
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    Traces {
        executable: fs::read_link(dir.join("exe")).ok(),
        workdir: fs::read_link(dir.join("cwd")).ok(),
        arguments: words("cmdline").into_iter().map(PathBuf::from).collect(),
        variables: variables.contains_key(DEPLOYMENT).then_some(variables),
    }
}

/// Sends a signal to a process group; a group that is gone is fine.
pub(super) fn signal_group(pid: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(pid).filter(|_| pid > 1) {
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// Ends the processes of releases of this root that nobody supervises: what a supervisor that was killed left behind,
/// and what left its process group. Only to be called while no release is running.
pub(super) async fn end_strays(layout: &Layout, left: Option<&ProcessId>, grace: Duration) {
    let found = |layout: &Layout| {
        let left = left.filter(|process| process.is_alive()).cloned();
        strays(layout).into_iter().chain(left).collect::<Vec<_>>()
    };
    let first = found(layout);
    if first.is_empty() {
        return;
    }
    signal_all(&first, Signal::TERM);
    let until = Instant::now() + grace;
    while Instant::now() < until && first.iter().any(ProcessId::is_alive) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal_all(&found(layout), Signal::KILL);
}

fn signal_all(processes: &[ProcessId], signal: Signal) {
    for process in processes.iter().filter(|process| process.is_alive()) {
        if let Some(pid) = Pid::from_raw(process.pid).filter(|_| process.pid > 1) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// The processes that were started as a deployment and have a file of this root's store as program, argument or
/// directory.
fn strays(layout: &Layout) -> Vec<ProcessId> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let traces = traces(*pid);
        traces.variables.is_some() && artefact_in(layout, &traces).is_some()
    };
    pids.filter(is_ours).filter_map(ProcessId::of).collect()
}

/// The artefact that a process was started from, as its traces tell.
pub(super) fn artefact_in(layout: &Layout, traces: &Traces) -> Option<semel_model::digest::Digest> {
    let files = traces.executable.iter().chain(&traces.arguments).chain(&traces.workdir);
    files.into_iter().find_map(|path| layout.artefact_of(path))
}

#[cfg(target_os = "linux")]
fn start_of(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may itself contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (!matches!(state, "Z" | "X")).then(|| start.to_owned())
}

#[cfg(not(target_os = "linux"))]
fn start_of(pid: i32) -> Option<String> {
    let output = std::process::Command::new("ps")
        .args(["-o", "stat=,lstart=", "-p", &pid.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (state, start) = text.trim().split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| start.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_not_another_with_its_number() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let this = ProcessId::of(pid).unwrap();
        assert!(this.is_alive());
        assert!(!ProcessId { start: "0".to_owned(), ..this }.is_alive());
    }

    #[test]
    fn a_process_that_ended_is_not_alive_although_nobody_asked_for_its_status() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while ProcessId::of(pid).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}

//! The supervisor's journal: what ran and how it was, a line on every change and at least one a minute.
//!
//! The next verb takes it in; silence between two lines means that nobody looked.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use semel_model::canonical;
use semel_model::deployment::{HealthState, RunState};
use semel_model::digest::Digest;
use serde::{Deserialize, Serialize};

use super::durable::{self, At, FileError};
use super::{Layout, RootError};

/// How large the journal grows before it is set aside; one older one is kept.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One look of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// When.
    pub time: Timestamp,
    /// The ledger's generation of what is switched on.
    pub generation: u64,
    /// Its deployment key.
    pub key: Digest,
    /// Its artefact.
    pub artefact: Digest,
    /// Its config snapshot.
    pub config: Digest,
    /// Whether it runs.
    pub state: RunState,
    /// Whether it is well.
    pub health: HealthState,
}

/// What the supervisor saw after a moment, oldest first; everything that is kept when no moment is given.
pub fn journal(root: &Path, after: Option<Timestamp>) -> Result<Vec<JournalLine>, RootError> {
    let Some((layout, _)) = Layout::find(root)? else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for path in [older(&layout), file(&layout)] {
        let bytes = durable::read_if_there(&path)?.unwrap_or_default();
        // A line that a crash cut short says nothing.
        let parsed = bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<JournalLine>(line).ok());
        lines.extend(parsed.filter(|line| after.is_none_or(|after| line.time > after)));
    }
    Ok(lines)
}

/// Appends a line.
pub(super) fn append(layout: &Layout, line: &JournalLine) -> Result<(), FileError> {
    let path = file(layout);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > BYTES_MAX) {
        durable::rename(&path, &older(layout))?;
    }
    let mut bytes = canonical::bytes(line);
    bytes.push(b'\n');
    let append = || -> io::Result<()> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?.write_all(&bytes)
    };
    append().at("append to", &path)
}

fn file(layout: &Layout) -> PathBuf {
    layout.run().join("observations.jsonl")
}

fn older(layout: &Layout) -> PathBuf {
    layout.run().join("observations.jsonl.1")
}

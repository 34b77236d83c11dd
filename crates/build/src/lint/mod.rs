//! Lint: what must not be inside an artefact, searched in everything that it carries.
//!
//! ```text
//! secrets   known forms of credentials, in every layer, also in files that a later layer deletes, and in the image configuration
//! shapes    files that belong to an environment, and values for keys of the contract
//! inlined   values that a front end was compiled with
//! ```
//!
//! Findings name the place and the rule, and never the value. A finding of severity `error` stops the build, unless a waiver
//! of the project file covers it that has not run out.

mod finding;
mod inlined;
mod scan;
mod secrets;
mod shapes;
mod waiver;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use semel_model::digest::Digest;
use semel_model::pipeline::EvidenceResult;
use semel_model::project::{Definition, Waiver};
use semel_model::statement::{Claim, LINT};
use serde_json::{Value, json};

pub use finding::{Finding, Place, Severity};
pub use scan::{Scanner, WINDOW_BYTES};
pub use waiver::InvalidWaiver;

use crate::base::Base;
use crate::collect::{PackFile, PackKind, lexical};
use crate::rootfs::shown;
use shapes::Shapes;

/// Text that is looked at as a whole may be this long, in bytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// What is looked at.
#[derive(Debug)]
pub struct LintRequest<'a> {
    /// The files that were packaged.
    pub files: &'a [PackFile],
    /// The image below them.
    pub base: Option<&'a Base>,
    /// The definition of the build.
    pub definition: &'a Definition,
    /// The names of the project's environments.
    pub environments: Vec<&'a str>,
    /// The directory with the source tree, for values that a front end is compiled with.
    pub tree: &'a Path,
    /// The image configuration.
    pub config: Option<&'a Value>,
    /// What the project waives.
    pub waivers: &'a [Waiver],
    /// The day on which the build began: waivers run out.
    pub today: Date,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Findings that count, the gravest first.
    pub findings: Vec<Finding>,
    /// Findings that a waiver covers, with its reason and its last day.
    pub waived: Vec<(Finding, Waiver)>,
    /// Waivers that ran out, or that cover nothing.
    pub idle: Vec<Waiver>,
    /// How many files were looked at.
    pub files: u64,
    /// How many bytes were looked at.
    pub bytes: u64,
}

impl Report {
    /// The findings that stop a build.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }

    /// What a person should know of a build that is published all the same.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let warnings = self.findings.iter().map(|finding| format!("lint: {finding}"));
        let waived = self.waived.iter().map(|(finding, waiver)| {
            format!("lint: waived until {}: {finding} ({})", waiver.until, waiver.reason)
        });
        let idle = self.idle.iter().map(|waiver| {
            format!(
                "lint: the waiver of {} for {} until {} covers nothing",
                waiver.rule, waiver.path, waiver.until
            )
        });
        warnings.chain(waived).chain(idle)
    }

    /// How to go on after errors.
    pub fn hint(&self) -> Option<String> {
        let first = self.errors().next()?;
        Some(format!(
            "if that is meant to be there, say so in semel.toml: [[waiver]] rule = \"{}\", path = \"{}\", reason = \"…\", until = DATE",
            first.rule, first.path
        ))
    }

    /// What the builder says about it: signed and attached to the artefact.
    pub fn claim(&self) -> Claim {
        let waived: Vec<_> = self
            .waived
            .iter()
            .map(|(finding, waiver)| {
                json!({ "finding": finding, "reason": waiver.reason, "until": waiver.until.to_string() })
            })
            .collect();
        let result = match (self.errors().next(), self.findings.is_empty()) {
            (Some(_), _) => EvidenceResult::Fail,
            (None, false) => EvidenceResult::Warn,
            (None, true) => EvidenceResult::Pass,
        };
        let predicate = json!({
            "v": 1, "files": self.files, "bytes": self.bytes, "findings": self.findings, "waived": waived
        });
        Claim { predicate_type: LINT.to_owned(), predicate, result }
    }
}

/// Why an artefact could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LintError {
    /// A waiver cannot be understood.
    #[error(transparent)]
    Waiver(#[from] InvalidWaiver),
    /// A file could not be read.
    #[error("cannot read {} for the linter", .path.display())]
    Read {
        /// The path on disk.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A layer could not be read.
    #[error("cannot read layer {layer} for the linter")]
    Layer {
        /// Its digest.
        layer: Digest,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Looks at an artefact.
pub fn lint(request: &LintRequest<'_>) -> Result<Report, LintError> {
    let mut linter = Linter {
        shapes: Shapes::new(request.definition, &request.environments),
        inlined: inlined::Values::of(request.definition, request.tree)?,
        scanner: Scanner::new(),
        findings: Vec::new(),
        files: 0,
        bytes: 0,
    };
    for file in request.files {
        linter.file(file)?;
    }
    if let Some(base) = request.base {
        linter.base(base)?;
    }
    if let Some(config) = request.config {
        linter.config(config);
    }
    let Linter { mut findings, files, bytes, .. } = linter;
    findings.sort();
    findings.dedup();
    let judged = waiver::judge(findings, request.waivers, request.today)?;
    Ok(Report { findings: judged.open, waived: judged.waived, idle: judged.idle, files, bytes })
}

struct Linter {
    shapes: Shapes,
    inlined: inlined::Values,
    scanner: Scanner,
    findings: Vec<Finding>,
    files: u64,
    bytes: u64,
}

impl Linter {
    fn file(&mut self, file: &PackFile) -> Result<(), LintError> {
        let PackKind::File { from, size, .. } = &file.kind else { return Ok(()) };
        let failed = |source| LintError::Read { path: from.clone(), source };
        self.content(&file.shown(), *size, File::open(from).map_err(failed)?).map_err(failed)
    }

    /// Looks at every layer of the image below, also at what a later one deletes.
    fn base(&mut self, base: &Base) -> Result<(), LintError> {
        let visible: HashSet<&[u8]> = base.files.iter().map(|file| file.path.as_slice()).collect();
        for layer in &base.layers {
            let before = self.findings.len();
            let read = base.open_layer(layer).and_then(|tar| self.layer(tar));
            read.map_err(|source| LintError::Layer { layer: layer.digest.clone(), source })?;
            for finding in &mut self.findings[before..] {
                finding.layer = Some(layer.digest.to_string());
                if !visible.contains(finding.path.trim_start_matches('/').as_bytes()) {
                    finding.what.push_str(", deleted by a later layer and still in the bytes");
                }
            }
        }
        Ok(())
    }

    fn layer(&mut self, tar: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries()? {
            let entry = entry?;
            if entry.header().entry_type().is_file() {
                let path = shown(&lexical(&entry.path_bytes()));
                let size = entry.size();
                self.content(&path, size, entry)?;
            }
        }
        Ok(())
    }

    /// Looks at one file, which is read once: from its beginning to its end, in bounded pieces.
    fn content(&mut self, path: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.files += 1;
        self.findings.extend(self.shapes.name(path));
        let findings = &mut self.findings;
        let mut found = |hit: scan::Hit| findings.push(hit.finding(path));
        if size > TEXT_BYTES_MAX {
            self.bytes += self.scanner.stream(content, &mut found)?;
            return Ok(());
        }
        let mut whole = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        content.take(TEXT_BYTES_MAX).read_to_end(&mut whole)?;
        self.bytes += self.scanner.stream(whole.as_slice(), &mut found)?;
        if !whole.contains(&0) {
            self.findings.extend(self.shapes.text(path, &whole));
            self.findings.extend(secrets::assignments(path, &whole));
        }
        self.findings.extend(self.inlined.find(path, &whole));
        Ok(())
    }

    /// Looks at the variables, labels and history of an image.
    fn config(&mut self, config: &Value) {
        for (place, text) in texts_of(config) {
            let path = format!("image configuration: {place}");
            let findings = &mut self.findings;
            let scanned = self.scanner.stream(text.as_bytes(), &mut |hit: scan::Hit| {
                findings.push(hit.finding(&path));
            });
            self.bytes += scanned.unwrap_or(0);
            self.findings.extend(self.shapes.text(&path, text.as_bytes()));
        }
    }
}

/// The texts of an image configuration that people write (OCI image-spec, config.md: `config.Env`, `config.Labels`, `history`).
fn texts_of(config: &Value) -> Vec<(String, &str)> {
    let inner = config.get("config");
    let env = inner.and_then(|inner| inner.get("Env")).and_then(Value::as_array);
    let labels = inner.and_then(|inner| inner.get("Labels")).and_then(Value::as_object);
    let history = config.get("history").and_then(Value::as_array);
    let mut texts = Vec::new();
    for text in env.into_iter().flatten().filter_map(Value::as_str) {
        texts.push((format!("Env {}", text.split('=').next().unwrap_or("")), text));
    }
    for (name, text) in labels.into_iter().flatten() {
        texts.extend(text.as_str().map(|text| (format!("label {name}"), text)));
    }
    for (index, step) in history.into_iter().flatten().enumerate() {
        let created_by = step.get("created_by").and_then(Value::as_str);
        texts.extend(created_by.map(|text| (format!("history {}", index + 1), text)));
    }
    texts
}

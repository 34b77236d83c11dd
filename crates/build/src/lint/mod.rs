//! Lint: what must not be inside an artefact, searched in everything that it carries.
//!
//! ```text
//! secrets   known forms of credentials, in every layer, also in files that a later layer deletes, and in the image configuration
//! shapes    files that belong to an environment, and values for keys of the contract
//! inlined   values that a front end was compiled with
//! taint     values of environments that stand in the repository
//! ```
//!
//! What is compressed or encrypted inside a file is not opened; a serverless package and the chunks of a disk image are. Findings name the place and the rule, and never the value. A finding of severity `error` stops the build, unless a waiver
//! of the project file covers it that has not run out.

mod committed;
mod finding;
mod inlined;
mod installed;
mod scan;
mod secrets;
mod shapes;
mod stored;
mod waiver;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use semel_model::config::Contract;
use semel_model::digest::Digest;
use semel_model::pipeline::EvidenceResult;
use semel_model::project::{Definition, Waiver};
use semel_model::statement::{Claim, LINT};
use semel_model::taint::{Stream, TooMany};
use serde_json::{Value, json};

pub use committed::{CommittedError, ValuesFile, values_files};
pub use finding::{Finding, Place, Severity};
pub use scan::Scanner;
pub use stored::{Stored, StoredError};
pub use waiver::InvalidWaiver;

use committed::Committed;
use installed::Installed;
use stored::{Packing, StoredLayer};

use crate::chunks::Joined;
use crate::collect::{PackFile, PackKind};
use crate::layer::{self, Room};
use crate::rootfs::shown;
use crate::zip::{ZIP, read};
use shapes::Shapes;

/// Text that is looked at as a whole may be this long, in bytes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// How many findings of one rule in one file are told one by one; of the rest, how many they are.
const FINDINGS_MAX: usize = 100;

/// How many warnings are said.
const WARNINGS_SAID: usize = 5;

/// What is looked at.
#[derive(Debug)]
pub struct LintRequest<'a> {
    /// Files on disk, such as those that were packaged.
    pub files: &'a [PackFile],
    /// What is stored already, such as the image below them.
    pub stored: Vec<Stored>,
    /// The keys that environments give values.
    pub contract: &'a Contract,
    /// The names of the project's environments.
    pub environments: Vec<&'a str>,
    /// What a front end may have been compiled with.
    pub front_end: Option<FrontEnd<'a>>,
    /// The values of environments that stand in the repository.
    pub values_files: &'a [ValuesFile],
    /// The image configuration.
    pub config: Option<&'a Value>,
    /// What the project waives.
    pub waivers: &'a [Waiver],
    /// The day on which the build began: waivers run out.
    pub today: Date,
}

/// Where values come from that bundlers compile in.
#[derive(Debug, Clone, Copy)]
pub struct FrontEnd<'a> {
    /// The definition of the build.
    pub definition: &'a Definition,
    /// The directory with the source tree.
    pub tree: &'a Path,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Findings that count, the gravest first.
    pub findings: Vec<Finding>,
    /// Findings that a waiver covers, with its reason and its last day.
    pub waived: Vec<(Finding, Waiver)>,
    /// Waivers that ran out, and would cover a finding that counts.
    pub lapsed: Vec<Waiver>,
    /// Waivers that cover nothing.
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

    /// What a person should know of a build that is published all the same. Of the warnings of one rule in one file the first
    /// is said, and of many the first few; all are in the claim.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let alike = |a: &Finding, b: &Finding| (&a.rule, &a.path) == (&b.rule, &b.path);
        let warnings = self.findings.chunk_by(alike).take(WARNINGS_SAID).map(|group| match group {
            [one] => format!("lint: {one}"),
            group => format!("lint: {}, and {} more like it in this file", group[0], group.len() - 1),
        });
        let more: usize = self.findings.chunk_by(alike).skip(WARNINGS_SAID).map(<[Finding]>::len).sum();
        let more =
            (more > 0).then(|| format!("lint: {more} more warnings; the report that is signed has all"));
        warnings.chain(more).chain(self.judgements())
    }

    /// What became of the waivers.
    pub fn judgements(&self) -> impl Iterator<Item = String> {
        let waived = self.waived.iter().map(|(finding, waiver)| {
            format!("lint: waived until {}: {finding} ({})", waiver.until, waiver.reason)
        });
        let idle = self.idle.iter().map(|waiver| {
            format!(
                "lint: the waiver of {} for {} until {} covers nothing",
                waiver.rule, waiver.path, waiver.until
            )
        });
        let lapsed = self.lapsed.iter().map(|waiver| {
            format!("lint: the waiver of {} for {} ran out on {}", waiver.rule, waiver.path, waiver.until)
        });
        waived.chain(lapsed).chain(idle)
    }

    /// How to go on after errors.
    pub fn hint(&self) -> Option<String> {
        let first = self.errors().next()?;
        if let Some(Waiver { rule, path, until, .. }) = self.lapsed.first() {
            return Some(format!(
                "the waiver of {rule} for {path} ran out on {until}: if it still holds, write a later `until` in semel.toml"
            ));
        }
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
    /// The values of the repository cannot be searched.
    #[error(transparent)]
    Committed(#[from] CommittedError),
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
pub fn lint(request: LintRequest<'_>) -> Result<Report, LintError> {
    let too_many = |error: TooMany| CommittedError::from(error);
    let mut linter = Linter {
        shapes: Shapes::new(request.contract, &request.environments),
        inlined: inlined::Values::of(request.front_end)?,
        committed: Committed::new(request.values_files, request.contract).map_err(too_many)?,
        scanner: Scanner::new(),
        installed: Installed::default(),
        findings: Vec::new(),
        files: 0,
        bytes: 0,
    };
    for file in request.files {
        linter.file(file)?;
    }
    for stored in request.stored {
        linter.stored(stored)?;
    }
    if let Some(config) = request.config {
        linter.config(config);
    }
    let Linter { findings, installed, files, bytes, .. } = linter;
    let mut findings = installed.judge(findings);
    findings.sort();
    findings.dedup();
    let judged = waiver::judge(findings, request.waivers, request.today)?;
    let waiver::Judged { open: findings, waived, lapsed, idle } = judged;
    Ok(Report { findings, waived, lapsed, idle, files, bytes })
}

/// The regular files below a directory, or one file, as they would lie in an artefact under `shown`, a path without a slash
/// in front.
///
/// The repository of a clone is left out; it is no part of what is packaged.
pub fn files_at(path: &Path, shown: &[u8]) -> io::Result<Vec<PackFile>> {
    let mut files = Vec::new();
    if path.is_dir() {
        let inside = if shown.is_empty() { Vec::new() } else { [shown, b"/"].concat() };
        gather(path, &inside, &mut files)?;
    } else {
        files.push(pack_file(path, shown.to_vec(), path.metadata()?.len()));
    }
    Ok(files)
}

fn gather(dir: &Path, inside: &[u8], files: &mut Vec<PackFile>) -> io::Result<()> {
    let mut entries = std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = [inside, name.as_encoded_bytes()].concat();
        let kind = entry.file_type()?;
        if kind.is_dir() && name != ".git" {
            gather(&entry.path(), &[&path, b"/".as_slice()].concat(), files)?;
        } else if kind.is_file() {
            files.push(pack_file(&entry.path(), path, entry.metadata()?.len()));
        }
    }
    Ok(())
}

fn pack_file(from: &Path, path: Vec<u8>, size: u64) -> PackFile {
    let kind = PackKind::File { mode: 0o644, size, from: from.into(), stamp: [0; 6] };
    PackFile { path: path.into(), layer: None, kind }
}

struct Linter {
    shapes: Shapes,
    inlined: inlined::Values,
    committed: Committed,
    scanner: Scanner,
    installed: Installed,
    findings: Vec<Finding>,
    files: u64,
    bytes: u64,
}

impl Linter {
    fn file(&mut self, file: &PackFile) -> Result<(), LintError> {
        let PackKind::File { from, size, .. } = &file.kind else { return Ok(()) };
        let failed = |source| LintError::Read { path: from.to_path_buf(), source };
        self.content(&file.shown(), *size, File::open(from).map_err(failed)?).map_err(failed)
    }

    /// Looks at every layer, also at what a later one deletes.
    fn stored(&mut self, mut stored: Stored) -> Result<(), LintError> {
        let visible = stored.list()?;
        let mut room = Room::default();
        for layer in &stored.layers {
            let before = self.findings.len();
            self.layer(layer, &mut room)
                .map_err(|source| LintError::Layer { layer: layer.digest.clone(), source })?;
            let is_tar = matches!(layer.packing, Packing::Tar(_));
            for finding in &mut self.findings[before..] {
                finding.layer = Some(layer.digest.to_string());
                let path = finding.path.trim_start_matches('/');
                if is_tar && !visible.has(path.as_bytes()) {
                    finding.what.push_str(", deleted by a later layer and still in the bytes");
                }
            }
        }
        if let Some(config) = &stored.config {
            self.config(config);
        }
        Ok(())
    }

    fn layer(&mut self, layer: &StoredLayer, room: &mut Room) -> io::Result<()> {
        match &layer.packing {
            Packing::Tar(compression) => self.tar(layer::open(&layer.path, *compression)?, room),
            Packing::File(name) => {
                let size = layer.path.metadata()?.len();
                self.content(name, size, File::open(&layer.path)?)
            }
            Packing::Zip => self.zip(layer),
            Packing::Chunks { name, size, chunks } => {
                self.content(&format!("/{name}"), *size, Joined::of(chunks.clone()))
            }
            Packing::Other(media_type) => {
                self.findings.push(unopened(layer, media_type));
                Ok(())
            }
        }
    }

    fn zip(&mut self, layer: &StoredLayer) -> io::Result<()> {
        let mut file = File::open(&layer.path)?;
        let Some(members) = read::members(&mut file)? else {
            self.findings.push(unopened(layer, ZIP));
            return Ok(());
        };
        for member in members.iter().filter(|member| !member.name.ends_with('/')) {
            match read::open(&mut file, member)? {
                Some(content) => self.content(&format!("/{}", member.name), member.size.into(), content)?,
                None => self.findings.push(unopened(layer, ZIP)),
            }
        }
        Ok(())
    }

    fn tar(&mut self, tar: impl Read, room: &mut Room) -> io::Result<()> {
        layer::walk(tar, room, |entry| {
            if entry.header().entry_type().is_file() {
                let path = shown(&layer::path_of(entry)?);
                let size = entry.size();
                self.content(&path, size, entry)?;
            }
            Ok(())
        })
    }

    /// Looks at one file, which is read once: from its beginning to its end, in bounded pieces.
    fn content(&mut self, path: &str, size: u64, content: impl Read) -> io::Result<()> {
        self.files += 1;
        let mut found = OfFile::default();
        found.extend(self.shapes.name(path));
        let mut searched = Searched { content, stream: self.committed.stream() };
        if size > TEXT_BYTES_MAX {
            let mut hit = |hit: scan::Hit| found.add(hit.finding(path));
            self.bytes += self.scanner.stream(&mut searched, &mut hit)?;
        } else {
            let mut whole = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            searched.by_ref().take(TEXT_BYTES_MAX).read_to_end(&mut whole)?;
            self.bytes += whole.len() as u64;
            self.installed.read(path, &whole);
            self.whole(path, &whole, &mut found);
        }
        found.extend(self.committed.findings(path, searched.stream));
        self.findings.extend(found.into_findings());
        Ok(())
    }

    fn whole(&self, path: &str, bytes: &[u8], found: &mut OfFile) {
        self.scanner.bytes(bytes, &mut |hit: scan::Hit| found.add(hit.finding(path)));
        if memchr::memchr(0, bytes).is_none() {
            found.extend(self.shapes.text(path, bytes));
            found.extend(secrets::assignments(path, bytes));
        }
        found.extend(self.inlined.find(path, bytes));
    }

    /// Looks at the variables, labels and history of an image.
    fn config(&mut self, config: &Value) {
        for (place, text) in texts_of(config) {
            let path = format!("image configuration: {place}");
            let findings = &mut self.findings;
            self.scanner.bytes(text.as_bytes(), &mut |hit: scan::Hit| findings.push(hit.finding(&path)));
            self.bytes += text.len() as u64;
            let mut stream = self.committed.stream();
            stream.feed(text.as_bytes());
            self.findings.extend(self.committed.findings(&path, stream));
            self.findings.extend(self.shapes.text(&path, text.as_bytes()));
            if place.starts_with("Env ") {
                self.findings.extend(self.inlined.variable(&path, text));
            }
        }
    }
}

/// The findings of one file.
#[derive(Default)]
struct OfFile {
    by_rule: BTreeMap<String, (Vec<Finding>, usize)>,
}

impl OfFile {
    fn add(&mut self, finding: Finding) {
        let (told, more) = self.by_rule.entry(finding.rule.clone()).or_default();
        if told.len() < FINDINGS_MAX {
            told.push(finding);
        } else {
            *more += 1;
        }
    }

    fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }

    fn into_findings(self) -> impl Iterator<Item = Finding> {
        self.by_rule.into_values().flat_map(|(mut told, more)| {
            if let Some(last) = told.last_mut().filter(|_| more > 0) {
                last.what = format!("{}, and {more} more of this rule in this file", last.what);
            }
            told
        })
    }
}

fn unopened(layer: &StoredLayer, media_type: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        rule: "look/unopened".to_owned(),
        path: format!("layer {}", layer.digest.short()),
        place: None,
        layer: None,
        what: format!("a layer of type {media_type}, which is not opened here"),
        fix: "store layers as tar, tar+gzip, tar+zstd or zip, so that what is in them can be seen".to_owned(),
    }
}

/// Passes bytes on, and searches them for values on the way.
struct Searched<'a, R> {
    content: R,
    stream: Stream<'a>,
}

impl<R: Read> Read for Searched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = self.content.read(buffer)?;
        self.stream.feed(&buffer[..some]);
        Ok(some)
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

//! Closure: whether a finished artefact has inside what it needs.
//!
//! ```text
//! files ──► what they are (format) ──► from where it starts (start) ──► what is loaded (object, loader, elf)
//!                                                                   └─► what runs scripts (script)
//! metadata ──► Python distributions (python), Node packages (node)
//! ```
//!
//! Everything is read from the artefact as it was packaged, nothing from this machine. What is loaded from the entrypoint,
//! from declared roots and from smoke commands must be complete; elsewhere in the artefact, something that lacks a library
//! may never be used, so that is a warning. All problems are found at once. Running is the last proof: [`smoke`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use semel_model::deployment::Need;
use semel_model::project::{ClosureSpec, Kind};
use semel_model::runtime::Runtime;

use crate::rootfs::{self, Node, Rootfs, shown};
use semel_model::platform::Platform;

pub(crate) mod elf;
mod format;
mod glibc;
mod loader;
mod node;
mod object;
mod python;
mod report;
mod script;
mod serverless;
mod start;

pub mod smoke;

use elf::Machine;

pub use report::{Finding, HostNeed, PREDICATE_TYPE, Report, Rule, Severity, SmokeOutcome, Smoked};

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The finished artefact.
    pub rootfs: &'a Rootfs,
    /// Which kind it is.
    pub kind: Kind,
    /// What it runs on.
    pub platform: &'a Platform,
    /// What starts it: program and arguments.
    pub start: &'a [String],
    /// The variables that it starts with, `NAME=value`.
    pub environment: &'a [String],
    /// The programs that its host must have.
    pub needs: &'a [String],
    /// The commands that will be run inside.
    pub smoke: &'a [String],
    /// What the project says about it.
    pub closure: &'a ClosureSpec,
    /// What starts a zip, where that is known.
    pub runtime: Option<&'static Runtime>,
    /// The function that the runtime calls.
    pub handler: Option<&'a str>,
    /// The length of a zip, in bytes.
    pub packed_bytes: u64,
}

/// A file of the artefact could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} of the artefact")]
pub struct ClosureError {
    path: String,
    #[source]
    source: io::Error,
}

/// Checks an artefact. Commands are not run here: the report says nothing about smoke.
pub fn check(question: &Question<'_>) -> Result<Report, ClosureError> {
    let formats = format::read_all(question.rootfs)?;
    let mut check = Check::new(question, &formats);
    let starts = start::find(&mut check);
    object::check(&mut check, &starts);
    python::check(&mut check)?;
    node::check(&mut check)?;
    serverless::check(&mut check)?;
    Ok(check.report())
}

/// A check that is under way: what is asked, and what was found.
struct Check<'a> {
    question: &'a Question<'a>,
    formats: &'a BTreeMap<&'a [u8], format::Format>,
    needs: Vec<Need>,
    /// One finding for one file, rule and need: the first is the gravest.
    findings: BTreeMap<(String, Rule, Option<String>), Finding>,
    host: BTreeMap<String, Option<String>>,
    /// The objects that are loaded from a start.
    reached: BTreeSet<&'a [u8]>,
    glibc: Option<glibc::Version>,
}

impl<'a> Check<'a> {
    fn new(question: &'a Question<'a>, formats: &'a BTreeMap<&'a [u8], format::Format>) -> Self {
        let needs = question.needs.iter().filter_map(|need| Need::parse(need).ok()).collect();
        Self {
            question,
            formats,
            needs,
            findings: BTreeMap::new(),
            host: BTreeMap::new(),
            reached: BTreeSet::new(),
            glibc: None,
        }
    }

    fn rootfs(&self) -> &'a Rootfs {
        self.question.rootfs
    }

    /// Whether what is not inside is the host's: an archive and a zip have no root of their own.
    fn has_host(&self) -> bool {
        self.question.kind != Kind::Image
    }

    fn find(&mut self, finding: Finding) {
        let ignored =
            |name: &String| self.question.closure.ignore.iter().any(|ignored| ignored.name == *name);
        if finding.needs.as_ref().is_some_and(ignored) {
            return;
        }
        let key = (finding.path.clone(), finding.rule, finding.needs.clone());
        self.findings.entry(key).or_insert(finding);
    }

    /// The host must have something; of two versions the newer counts.
    fn ask_host(&mut self, name: String, version: Option<String>) {
        let asked = self.host.entry(name).or_default();
        let newer = |text: &Option<String>| text.as_deref().and_then(glibc::Version::of_symbol);
        if asked.is_none() || newer(&version) > newer(asked) {
            *asked = version;
        }
    }

    /// The need for a program that the project declares.
    fn declared(&self, program: &str) -> Option<&Need> {
        self.needs.iter().find(|need| need.program == program)
    }

    /// A variable that the artefact starts with.
    fn variable(&self, name: &str) -> Option<&'a str> {
        let mut set = self.question.environment.iter().rev();
        set.find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| value)
    }

    /// A program of the artefact by its name, looked up as `execvp(3)` does.
    fn on_path(&self, program: &str) -> Option<&'a [u8]> {
        let path = self.variable("PATH").unwrap_or(USUAL_PATH);
        path.split(':').filter(|dir| !dir.is_empty()).find_map(|dir| {
            let found = self.rootfs().resolve_file(format!("{dir}/{program}").as_bytes())?;
            is_executable(found.node).then_some(found.path)
        })
    }

    fn report(self) -> Report {
        let mut findings: Vec<Finding> = self.findings.into_values().collect();
        findings.sort();
        Report {
            objects: self.reached.len(),
            glibc: self.glibc.map(|version| version.to_string()),
            host: self.host.into_iter().map(|(name, version)| HostNeed { name, version }).collect(),
            findings,
            ..Report::empty(self.question.platform)
        }
    }
}

/// Where container runtimes look for programs when the image does not say.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn is_executable(node: &Node) -> bool {
    matches!(node, Node::File { mode, .. } if mode & 0o111 != 0)
}

/// No metadata is longer, in bytes; what is, is not metadata.
const LONGEST_METADATA: u64 = 32 * 1024 * 1024;

/// A file of metadata, as text.
fn metadata(path: &[u8], node: &Node) -> Result<String, ClosureError> {
    let mut bytes = Vec::new();
    let read = rootfs::open(node).and_then(|file| file.take(LONGEST_METADATA).read_to_end(&mut bytes));
    read.map_err(|source| ClosureError { path: shown(path), source })?;
    Ok(text(&bytes))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How to say that something need not be inside.
fn ignore_hint(name: &str) -> String {
    format!("closure = {{ ignore = [{{ name = \"{name}\", reason = \"…\" }}] }}")
}

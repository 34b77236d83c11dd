//! Report: what the check of the dependencies found. Frozen in `docs/format.md`.

use std::fmt;

use semel_model::platform::Platform;
use serde::Serialize;

/// The predicate type of a closure report.
pub const PREDICATE_TYPE: &str = "https://semel.dev/evidence/closure/v1";

/// Whether an artefact has inside what it needs. No time is in it; of the machine, whether and in what `smoke` ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// 1.
    pub v: u32,
    /// What it runs on: `linux/amd64`.
    pub platform: String,
    /// How many objects are loaded from what starts the artefact, and from its roots.
    pub objects: usize,
    /// The newest version of the C library that they need, such as `2.34`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glibc: Option<String>,
    /// For an artefact without a root of its own: what the host has to provide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<HostNeed>,
    /// What was found, errors first.
    pub findings: Vec<Finding>,
    /// How the smoke commands went, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub smoke: Vec<Smoked>,
}

/// Something that an artefact takes from its host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostNeed {
    /// A library, a loader or a program.
    pub name: String,
    /// At least this version: `GLIBC_2.34`, `20`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl fmt::Display for HostNeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} ({version})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which rule it breaks.
    pub rule: Rule,
    /// The file that it is about.
    pub path: String,
    /// What that file needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
    /// What is wrong, as the end of a sentence that begins with the path.
    pub explanation: String,
    /// What to do about it.
    pub fix: String,
    /// How the file is reached: from what starts the artefact up to the file before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.explanation)?;
        match self.chain.as_slice() {
            [] => Ok(()),
            chain => write!(f, " (reached by {})", chain.join(" → ")),
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The artefact cannot run: it is not published.
    Error,
    /// A part of it that may never be used cannot run.
    Warning,
    /// Worth knowing.
    Notice,
}

/// The rules of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// What starts the artefact is inside, and can be executed.
    Entrypoint,
    /// What is loaded is made for the platform.
    Architecture,
    /// The loader of a program is inside.
    Interpreter,
    /// The libraries of an object are inside, where its loader looks.
    Library,
    /// A library defines the versions of symbols that are needed of it.
    SymbolVersion,
    /// An object can be read.
    Object,
    /// The program that runs a script is inside.
    Script,
    /// A Python distribution has the distributions that it requires.
    PythonRequirement,
    /// A Python distribution was made for the platform.
    PythonPlatform,
    /// A Node package has the packages that it depends on.
    NodePackage,
    /// What the runtime of a zip calls is inside.
    Handler,
    /// A zip is no larger than its platform takes, and for a processor that it has.
    Platform,
}

/// How a smoke command went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Smoked {
    /// The command as the definition has it.
    pub command: String,
    /// `passed`, or `not-run`: a command that failed leaves no artefact.
    pub outcome: SmokeOutcome,
    /// What held it back: `bubblewrap`, `namespaces`, `qemu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<&'static str>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The ways in which a smoke command of an artefact that is published can have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmokeOutcome {
    /// It ended with 0.
    Passed,
    /// Nothing here could run it.
    NotRun,
}

impl Smoked {
    /// None of these commands was run, and why not.
    pub(crate) fn none_ran(commands: &[String], reason: &str) -> Vec<Self> {
        let one = |command: &String| Self {
            command: command.clone(),
            outcome: SmokeOutcome::NotRun,
            sandbox: None,
            reason: Some(reason.to_owned()),
        };
        commands.iter().map(one).collect()
    }
}

impl Report {
    /// Nothing was looked for yet. Of a disk image, a whole system, that is all that is ever said.
    pub fn empty(platform: &Platform) -> Self {
        Self {
            v: 1,
            platform: format!("{}/{}", platform.os, platform.architecture),
            objects: 0,
            glibc: None,
            host: Vec::new(),
            findings: Vec::new(),
            smoke: Vec::new(),
        }
    }

    /// What forbids the artefact.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }

    /// Whether nothing forbids the artefact.
    pub fn is_complete(&self) -> bool {
        self.errors().next().is_none()
    }

    /// `14 objects, newest GLIBC_2.34, 2 warnings, smoke 2/2`.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if self.objects > 0 {
            parts.push(counted(self.objects, "object"));
        }
        parts.extend(self.glibc.iter().map(|version| format!("newest GLIBC_{version}")));
        if !self.host.is_empty() {
            let needs: Vec<String> = self.host.iter().map(HostNeed::to_string).collect();
            parts.push(format!("the host has {}", needs.join(" and ")));
        }
        for (severity, word) in [(Severity::Error, "problem"), (Severity::Warning, "warning")] {
            let count = self.findings.iter().filter(|finding| finding.severity == severity).count();
            if count > 0 {
                parts.push(counted(count, word));
            }
        }
        if !self.smoke.is_empty() {
            let passed = self.smoke.iter().filter(|smoked| smoked.outcome == SmokeOutcome::Passed).count();
            parts.push(format!("smoke {passed}/{}", self.smoke.len()));
        }
        parts.join(", ")
    }
}

fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

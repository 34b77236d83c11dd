//! The pipeline of a component: its environments as a directed acyclic graph, with gates, values and targets.
//!
//! The project file proposes one; `semel pipeline apply` puts it in force. Its canonical digest is the policy digest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::Digest;
use crate::duration::Span;
use crate::name::EnvironmentName;

/// A component's bindings, as they are stored and compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Format number, 1.
    pub v: u32,
    /// The binding of each environment.
    pub environments: BTreeMap<EnvironmentName, Binding>,
}

/// What holds for one component in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The environments that a digest must have succeeded in before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<EnvironmentName>,
    /// What else must hold before a promotion is granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// The file with the environment's plain values, relative to the project file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// Where it runs; none: this environment is only decided about (`semel resolve`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// A typed predicate over an artefact and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Evidence of this type must exist with this result: `junit`, `provenance`, or a predicate type URI.
    pub evidence: String,
    /// Which result opens the gate.
    #[serde(default = "pass", skip_serializing_if = "is_pass")]
    pub result: EvidenceResult,
    /// How old the evidence may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// Only evidence made against this environment counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
}

fn pass() -> EvidenceResult {
    EvidenceResult::Pass
}

fn is_pass(result: &EvidenceResult) -> bool {
    *result == EvidenceResult::Pass
}

/// What a piece of evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceResult {
    /// It is as it should be.
    Pass,
    /// It is not.
    Fail,
    /// Acceptable, with remarks.
    Warn,
    /// Nothing can be concluded.
    Inconclusive,
    /// A description without a judgement.
    Info,
}

impl std::fmt::Display for EvidenceResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Warn => "warn",
            Self::Inconclusive => "inconclusive",
            Self::Info => "info",
        })
    }
}

/// Where an environment runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The driver.
    pub kind: TargetKind,
    /// For `directory`: where releases are laid out; without it a directory of the user's own is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The health check: a URL that must answer 2xx, or a command that must exit 0. `${KEY}` stands for a configuration
    /// value. Without it, an entrypoint that stays up is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How long a release may take to become healthy.
    #[serde(default = "healthy_within", skip_serializing_if = "is_healthy_within")]
    pub healthy_within: Span,
}

fn healthy_within() -> Span {
    Span::seconds(30)
}

fn is_healthy_within(span: &Span) -> bool {
    *span == healthy_within()
}

/// The drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Content store, generation directories, one symlink switch, our own supervisor.
    Directory,
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Health {
    /// `http://…`: GET must answer 2xx.
    Url(String),
    /// A command and its arguments: must exit 0.
    Command(Vec<String>),
}

impl Target {
    /// The digest of the target's specification, part of the deployment key.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
    }
}

/// What is wrong with a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPipeline {
    /// `after` names an environment that does not exist.
    #[error("environment {environment} comes after {missing}, which is not declared")]
    UnknownUpstream {
        /// Whose binding.
        environment: EnvironmentName,
        /// The name that is not there.
        missing: EnvironmentName,
    },
    /// The environments wait for each other.
    #[error("environments wait for each other: {0}")]
    Cycle(String),
    /// A health check that cannot be run.
    #[error(
        "environment {environment}: health = \"{health}\" is neither an http:// URL nor a list of words (write [\"command\", \"argument\"])"
    )]
    Health {
        /// Whose binding.
        environment: EnvironmentName,
        /// As it was written.
        health: String,
    },
}

impl Pipeline {
    /// A pipeline of these bindings, if they form a directed acyclic graph.
    pub fn new(environments: BTreeMap<EnvironmentName, Binding>) -> Result<Self, InvalidPipeline> {
        let this = Self { v: 1, environments };
        this.check_references()?;
        this.check_order()?;
        Ok(this)
    }

    /// The policy digest.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
    }

    /// The environments in an order in which each stands after its upstreams.
    pub fn in_order(&self) -> Vec<&EnvironmentName> {
        let mut done = Vec::new();
        while done.len() < self.environments.len() {
            let next: Vec<_> = self.ready(&done.iter().copied().collect());
            if next.is_empty() {
                break;
            }
            done.extend(next);
        }
        done
    }

    fn ready<'a>(&'a self, done: &BTreeSet<&'a EnvironmentName>) -> Vec<&'a EnvironmentName> {
        self.environments
            .iter()
            .filter(|(name, binding)| {
                !done.contains(name) && binding.after.iter().all(|up| done.contains(up))
            })
            .map(|(name, _)| name)
            .collect()
    }

    fn check_references(&self) -> Result<(), InvalidPipeline> {
        for (environment, binding) in &self.environments {
            if let Some(missing) = binding.after.iter().find(|up| !self.environments.contains_key(*up)) {
                return Err(InvalidPipeline::UnknownUpstream {
                    environment: environment.clone(),
                    missing: missing.clone(),
                });
            }
            if let Some(Health::Url(url)) = binding.target.as_ref().and_then(|target| target.health.as_ref())
                && !url.starts_with("http://")
            {
                return Err(InvalidPipeline::Health {
                    environment: environment.clone(),
                    health: url.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_order(&self) -> Result<(), InvalidPipeline> {
        let ordered = self.in_order();
        if ordered.len() == self.environments.len() {
            return Ok(());
        }
        let stuck: Vec<&str> = self
            .environments
            .keys()
            .filter(|name| !ordered.contains(name))
            .map(EnvironmentName::as_str)
            .collect();
        Err(InvalidPipeline::Cycle(stuck.join(" → ")))
    }

    /// What this pipeline changes against the one in force, one line per difference.
    pub fn differences_from(&self, earlier: Option<&Self>) -> Vec<String> {
        let none = BTreeMap::new();
        let before = earlier.map_or(&none, |pipeline| &pipeline.environments);
        let mut lines = Vec::new();
        for (name, binding) in &self.environments {
            match before.get(name) {
                None => lines.push(format!("+ {name}{}", describe_after(binding))),
                Some(old) if old != binding => lines.extend(changes(name, old, binding)),
                Some(_) => {}
            }
        }
        lines.extend(
            before
                .keys()
                .filter(|name| !self.environments.contains_key(*name))
                .map(|name| format!("- {name}")),
        );
        lines
    }
}

fn describe_after(binding: &Binding) -> String {
    let names: Vec<&str> = binding.after.iter().map(EnvironmentName::as_str).collect();
    let after = if names.is_empty() { String::new() } else { format!(" after {}", names.join(", ")) };
    let gates = if binding.gates.is_empty() {
        String::new()
    } else {
        format!(", gates: {}", gate_list(&binding.gates))
    };
    format!("{after}{gates}")
}

fn gate_list(gates: &[Gate]) -> String {
    let words: Vec<String> = gates.iter().map(ToString::to_string).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.evidence, self.result)?;
        if let Some(environment) = &self.environment {
            write!(f, " in {environment}")?;
        }
        if let Some(age) = &self.max_age {
            write!(f, " within {age}")?;
        }
        Ok(())
    }
}

fn changes(name: &EnvironmentName, old: &Binding, new: &Binding) -> Vec<String> {
    let mut lines = Vec::new();
    if old.after != new.after {
        let words =
            |binding: &Binding| binding.after.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        lines.push(format!("~ {name}: after [{}] → [{}]", words(old), words(new)));
    }
    if old.gates != new.gates {
        lines.push(format!("~ {name}: gates {} → {}", gate_list(&old.gates), gate_list(&new.gates)));
    }
    if old.values != new.values {
        let word = |values: &Option<String>| values.clone().unwrap_or_else(|| "none".to_owned());
        lines.push(format!("~ {name}: values {} → {}", word(&old.values), word(&new.values)));
    }
    if old.target != new.target {
        lines.push(format!("~ {name}: target changed"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(toml: &str) -> Result<Pipeline, InvalidPipeline> {
        Pipeline::new(toml::from_str(toml).unwrap())
    }

    #[test]
    fn environments_stand_after_their_upstreams() {
        let text = "[production]\nafter = [\"staging\", \"load\"]\n[load]\nafter = [\"dev\"]\n[staging]\nafter = [\"dev\"]\n[dev]\n";
        let pipeline = pipeline(text).unwrap();
        let names: Vec<&str> = pipeline.in_order().into_iter().map(EnvironmentName::as_str).collect();
        assert_eq!(names, ["dev", "load", "staging", "production"]);
    }

    #[test]
    fn a_cycle_and_an_unknown_upstream_are_named() {
        let cycle = pipeline("[a]\nafter = [\"b\"]\n[b]\nafter = [\"a\"]\n").unwrap_err();
        assert_eq!(cycle.to_string(), "environments wait for each other: a → b");
        let unknown = pipeline("[a]\nafter = [\"z\"]\n").unwrap_err();
        assert_eq!(unknown.to_string(), "environment a comes after z, which is not declared");
    }

    #[test]
    fn a_weaker_gate_is_visible_as_a_difference() {
        let strict = pipeline("[a]\ngates = [{ evidence = \"junit\", max_age = \"7d\" }]\n").unwrap();
        let weak = pipeline("[a]\n[b]\nafter = [\"a\"]\n").unwrap();
        assert_eq!(
            weak.differences_from(Some(&strict)),
            ["~ a: gates junit=pass within 7d → none", "+ b after a"]
        );
        assert_eq!(strict.differences_from(Some(&strict)), Vec::<String>::new());
    }
}

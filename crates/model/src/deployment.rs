//! Deployments: their key, what must be done to make one run, and how what runs differs from it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::Digest;
use crate::name::{ComponentName, EnvironmentName};

/// What a deployment key is made of. Equal keys mean equal running systems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInputs {
    /// Format number, 1.
    pub v: u32,
    /// Where.
    pub environment: EnvironmentName,
    /// What.
    pub component: ComponentName,
    /// The digest of the target's specification.
    pub target: Digest,
    /// The digest of the artefact.
    pub artefact: Digest,
    /// The config digest.
    pub config: Digest,
    /// Raised to start the same again on purpose.
    pub restart: u32,
}

impl KeyInputs {
    /// The deployment key.
    pub fn key(&self) -> Digest {
        canonical::digest(self)
    }
}

/// What a target reports that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Observed {
    /// The generation of the running release; none: nothing of ours runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Its deployment key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// The artefact that the running process was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artefact: Option<Digest>,
    /// The config snapshot that it was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Digest>,
    /// Whether it runs.
    pub state: RunState,
    /// Whether it says that it is well.
    pub health: HealthState,
    /// Whether the release's files are as they were unpacked.
    pub files: FilesState,
    /// Since when the process runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Whether a release's process is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// The process runs.
    Running,
    /// A release is switched on, but its process is not there.
    Stopped,
    /// Nothing was ever switched on here.
    Absent,
}

/// What the health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It passed.
    Healthy,
    /// It failed.
    Unhealthy,
    /// It was not made, or not lately enough.
    Unknown,
}

/// Whether a release's files are as they were unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilesState {
    /// Every file is as it was.
    Intact,
    /// Something was added, removed or edited.
    Edited,
    /// They were not looked at.
    Unknown,
}

impl Observed {
    /// What is reported where nothing was ever deployed.
    pub fn absent() -> Self {
        Self {
            generation: None,
            key: None,
            artefact: None,
            config: None,
            state: RunState::Absent,
            health: HealthState::Unknown,
            files: FilesState::Unknown,
            since: None,
        }
    }

    /// Whether two reports say the same about what runs, whatever the time of its start.
    pub fn same_as(&self, other: &Self) -> bool {
        Self { since: None, ..self.clone() } == Self { since: None, ..other.clone() }
    }
}

/// What a deployment asks a target to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Desired {
    /// The deployment key.
    pub key: Digest,
    /// The artefact.
    pub artefact: Digest,
    /// The config snapshot.
    pub config: Digest,
}

/// What has to be done at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// It runs as it should: verify, change nothing.
    Nothing,
    /// The release is in place, its process is not: start it.
    Start,
    /// The release's files were edited: lay them out anew and start it.
    Repair,
    /// Another release runs, or none: stage and switch.
    Switch,
}

/// Decides what makes a target run what is desired. Applying the plan makes the next plan [`Plan::Nothing`].
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    if observed.key.as_ref() != Some(&desired.key) {
        return Plan::Switch;
    }
    match (observed.files, observed.state) {
        (FilesState::Edited, _) => Plan::Repair,
        (_, RunState::Stopped | RunState::Absent) => Plan::Start,
        (_, RunState::Running) if observed.health == HealthState::Unhealthy => Plan::Start,
        (_, RunState::Running) => Plan::Nothing,
    }
}

/// One way in which what runs differs from what was deployed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// Nothing was reported, or not lately enough.
    Stale,
    /// The process is not there.
    Stopped,
    /// Another artefact runs.
    WrongArtefact,
    /// It runs with another configuration.
    ConfigDrift,
    /// It runs, with the same bytes and configuration, but not as this deployment.
    Swapped,
    /// Files of the release were added, removed or edited.
    Edited,
    /// It says that it is not well.
    Unhealthy,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stale => "not observed lately",
            Self::Stopped => "stopped",
            Self::WrongArtefact => "another artefact runs",
            Self::ConfigDrift => "runs with another configuration",
            Self::Swapped => "another deployment runs",
            Self::Edited => "files were edited",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// How what runs differs from what was deployed; empty: it does not.
pub fn drift(desired: &Desired, observed: Option<&Observed>) -> Vec<Drift> {
    let Some(observed) = observed else { return vec![Drift::Stale] };
    let mut found = Vec::new();
    if observed.state != RunState::Running {
        found.push(Drift::Stopped);
    } else if observed.artefact.as_ref() != Some(&desired.artefact) {
        found.push(Drift::WrongArtefact);
    } else if observed.config.as_ref() != Some(&desired.config) {
        found.push(Drift::ConfigDrift);
    } else if observed.key.as_ref() != Some(&desired.key) {
        found.push(Drift::Swapped);
    }
    if observed.files == FilesState::Edited {
        found.push(Drift::Edited);
    }
    if observed.state == RunState::Running && observed.health == HealthState::Unhealthy {
        found.push(Drift::Unhealthy);
    }
    found
}

/// A program that the host must have, such as `node >= 20`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The program, found on the `PATH`.
    pub program: String,
    /// The smallest version that will do; none: any.
    pub at_least: Option<Vec<u64>>,
}

/// Why a text is no need.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a need (write `node` or `node >= 20`)")]
pub struct InvalidNeed(String);

impl Need {
    /// Reads `program` or `program >= version`.
    pub fn parse(text: &str) -> Result<Self, InvalidNeed> {
        let invalid = || InvalidNeed(text.to_owned());
        let (program, version) = match text.split_once(">=") {
            Some((program, version)) => (program.trim(), Some(version.trim())),
            None => (text.trim(), None),
        };
        let named = !program.is_empty()
            && program.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+'));
        if !named {
            return Err(invalid());
        }
        let at_least = version.map(|v| numbers(v).ok_or_else(invalid)).transpose()?;
        Ok(Self { program: program.to_owned(), at_least })
    }

    /// The version in what a program prints for `--version`, as a text such as `20.11.1`.
    pub fn version_in(printed: &str) -> Option<String> {
        printed
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | '(' | ')'))
            .map(|word| word.trim_start_matches('v'))
            .map(|word| word.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or(""))
            .map(|word| word.trim_end_matches('.'))
            .find(|word| word.contains('.') && numbers(word).is_some())
            .map(str::to_owned)
    }

    /// Whether a version that was found will do.
    pub fn is_met_by(&self, found: &str) -> bool {
        match (&self.at_least, numbers(found)) {
            (None, _) => true,
            (Some(least), Some(found)) => found >= *least,
            (Some(_), None) => false,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        if let Some(least) = &self.at_least {
            let words: Vec<String> = least.iter().map(u64::to_string).collect();
            write!(f, " >= {}", words.join("."))?;
        }
        Ok(())
    }
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn desired() -> Desired {
        Desired { key: Digest::of(b"key"), artefact: Digest::of(b"artefact"), config: Digest::of(b"config") }
    }

    fn running() -> Observed {
        Observed {
            generation: Some(3),
            key: Some(desired().key),
            artefact: Some(desired().artefact),
            config: Some(desired().config),
            state: RunState::Running,
            health: HealthState::Healthy,
            files: FilesState::Intact,
            since: None,
        }
    }

    fn any_observed() -> impl Strategy<Value = Observed> {
        let digest = || prop_oneof![Just(None), Just(Some(desired().key)), Just(Some(Digest::of(b"other")))];
        let state = prop_oneof![Just(RunState::Running), Just(RunState::Stopped), Just(RunState::Absent)];
        let health =
            prop_oneof![Just(HealthState::Healthy), Just(HealthState::Unhealthy), Just(HealthState::Unknown)];
        let files =
            prop_oneof![Just(FilesState::Intact), Just(FilesState::Edited), Just(FilesState::Unknown)];
        (digest(), digest(), digest(), state, health, files).prop_map(
            |(key, artefact, config, state, health, files)| Observed {
                generation: None,
                key,
                artefact,
                config,
                state,
                health,
                files,
                since: None,
            },
        )
    }

    /// What a target reports after it did what the plan says.
    fn applied(plan: Plan, observed: &Observed) -> Observed {
        if plan == Plan::Nothing { observed.clone() } else { running() }
    }

    proptest! {
        #[test]
        fn after_a_plan_nothing_is_left_to_do(observed in any_observed()) {
            let after = applied(plan(&desired(), &observed), &observed);
            prop_assert_eq!(plan(&desired(), &after), Plan::Nothing);
        }
    }

    #[test]
    fn each_way_of_differing_has_its_name() {
        let other = Some(Digest::of(b"other"));
        let cases: [(Option<Observed>, &[Drift], Plan); 8] = [
            (Some(running()), &[], Plan::Nothing),
            (None, &[Drift::Stale], Plan::Switch),
            (Some(Observed { state: RunState::Stopped, ..running() }), &[Drift::Stopped], Plan::Start),
            (Some(Observed { files: FilesState::Edited, ..running() }), &[Drift::Edited], Plan::Repair),
            (
                Some(Observed { health: HealthState::Unhealthy, ..running() }),
                &[Drift::Unhealthy],
                Plan::Start,
            ),
            (
                Some(Observed { artefact: other.clone(), key: other.clone(), ..running() }),
                &[Drift::WrongArtefact],
                Plan::Switch,
            ),
            (
                Some(Observed { config: other.clone(), key: other.clone(), ..running() }),
                &[Drift::ConfigDrift],
                Plan::Switch,
            ),
            (Some(Observed { key: other, ..running() }), &[Drift::Swapped], Plan::Switch),
        ];
        for (observed, expected, step) in cases {
            assert_eq!(drift(&desired(), observed.as_ref()), expected);
            assert_eq!(plan(&desired(), &observed.unwrap_or_else(Observed::absent)), step);
        }
    }

    #[test]
    fn the_deployment_key_is_frozen() {
        let inputs = KeyInputs {
            v: 1,
            environment: "production".parse().unwrap(),
            component: "shop/api".parse().unwrap(),
            target: Digest::of(b"target"),
            artefact: Digest::of(b"artefact"),
            config: Digest::of(b"config"),
            restart: 0,
        };
        assert_eq!(
            inputs.key().as_str(),
            "sha256:0e48ea857b9809488eba5f7b96bbd6b95599a37b866f6c9e0014c5a54c8ded4d"
        );
    }

    #[test]
    fn needs_are_read_and_compared_as_numbers() {
        let need = Need::parse("node >= 20").unwrap();
        for (printed, version, met) in [
            ("v20.11.1\n", "20.11.1", true),
            ("Python 3.11.7", "3.11.7", false),
            ("git version 2.47.3 (x)", "2.47.3", false),
            ("openjdk version \"21.0.1\" 2025", "", false),
            ("jq-1.6", "", false),
        ] {
            let found = Need::version_in(printed).unwrap_or_default();
            assert_eq!(found, version, "{printed}");
            assert_eq!(need.is_met_by(&found), met, "{printed}");
        }
        assert_eq!(need.to_string(), "node >= 20");
        assert!(Need::parse("node > 20").is_err());
        assert!(Need::parse("").is_err());
        assert!(Need::parse("python3").unwrap().is_met_by("anything"));
    }
}

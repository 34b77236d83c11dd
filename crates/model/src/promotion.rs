//! Promotion: may this artefact run in that environment?
//!
//! [`decide`] is a pure function of recorded inputs, so that a decision can be evaluated again years later and must come
//! out the same. Missing, unknown or unreadable is never a pass.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::Digest;
use crate::name::{ComponentName, EnvironmentName};
use crate::pipeline::{EvidenceResult, Gate};
use crate::statement::{predicate_name, predicate_type};
use crate::version::Version;

/// Everything that a decision is made from. Recorded with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Which component.
    pub component: ComponentName,
    /// The version that was asked for, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Which artefact.
    pub digest: Digest,
    /// Where it is to run.
    pub environment: EnvironmentName,
    /// The pipeline in force.
    pub policy: Digest,
    /// The environments that it must have succeeded in.
    pub after: Vec<EnvironmentName>,
    /// The gates of the environment.
    pub gates: Vec<Gate>,
    /// The time of the decision.
    pub clock: Timestamp,
    /// The evidence about the artefact, oldest first.
    pub evidence: Vec<EvidenceFact>,
    /// Where it succeeded, oldest first.
    pub successes: Vec<SuccessFact>,
    /// The rejections that apply to it here.
    pub rejections: Vec<RejectionFact>,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceFact {
    /// The signed envelope.
    pub envelope: Digest,
    /// What kind of statement it is.
    pub predicate_type: String,
    /// What it says.
    pub result: EvidenceResult,
    /// When it was accepted.
    pub time: Timestamp,
    /// What it was made against, if it was an environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentName>,
}

/// A deployment of the artefact that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuccessFact {
    /// Where.
    pub environment: EnvironmentName,
    /// Which deployment.
    pub generation: u64,
    /// When.
    pub time: Timestamp,
}

/// A rejection of the artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectionFact {
    /// Why.
    pub reason: String,
    /// Since when.
    pub time: Timestamp,
}

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Open.
    Pass,
    /// Closed.
    Fail,
    /// It cannot be said, which is as good as closed.
    Unknown,
}

/// One gate's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateResult {
    /// The gate, in words: `not-rejected`, `after staging`, `junit=pass`.
    pub gate: String,
    /// What it says.
    pub verdict: Verdict,
    /// Why, in one line.
    pub reason: String,
    /// The envelope or nothing that it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_on: Option<Digest>,
    /// For a closed gate: what opens it, and who can do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// What opens a closed gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remedy {
    /// Who can do it.
    pub who: String,
    /// The command that does it, without the program's name.
    pub command: String,
}

/// A decision with its inputs, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Format number, 1.
    pub v: u32,
    /// What it was made from.
    pub inputs: Inputs,
    /// The answer of every gate.
    pub gates: Vec<GateResult>,
    /// Granted exactly when every gate passed.
    pub outcome: Outcome,
}

/// How a decision came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It may run there.
    Granted,
    /// It may not.
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
        })
    }
}

impl Decision {
    /// The digest under which it is recorded.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
    }

    /// Whether it grants.
    pub fn is_granted(&self) -> bool {
        self.outcome == Outcome::Granted
    }

    /// The gates that are closed.
    pub fn closed(&self) -> impl Iterator<Item = &GateResult> {
        self.gates.iter().filter(|gate| gate.verdict != Verdict::Pass)
    }
}

/// Evaluates every gate. The same inputs give the same decision, for ever.
pub fn decide(inputs: Inputs) -> Decision {
    let mut gates = vec![not_rejected(&inputs)];
    gates.extend(inputs.after.iter().map(|upstream| succeeded_in(&inputs, upstream)));
    gates.extend(inputs.gates.iter().map(|gate| evidence(&inputs, gate)));
    let granted = gates.iter().all(|gate| gate.verdict == Verdict::Pass);
    let outcome = if granted { Outcome::Granted } else { Outcome::Refused };
    Decision { v: 1, inputs, gates, outcome }
}

fn not_rejected(inputs: &Inputs) -> GateResult {
    let gate = "not-rejected".to_owned();
    match inputs.rejections.last() {
        None => passed(gate, "nobody rejected it".to_owned(), None),
        Some(rejection) => closed(
            gate,
            Verdict::Fail,
            format!("rejected: {}", rejection.reason),
            Remedy {
                who: "whoever answers for it".to_owned(),
                command: format!("accept {}", artefact(inputs)),
            },
        ),
    }
}

fn succeeded_in(inputs: &Inputs, upstream: &EnvironmentName) -> GateResult {
    let gate = format!("after {upstream}");
    match inputs.successes.iter().rfind(|success| success.environment == *upstream) {
        Some(success) => passed(
            gate,
            format!("deployed to {upstream} as generation {} ({})", success.generation, success.time),
            None,
        ),
        None => closed(
            gate,
            Verdict::Fail,
            format!("never deployed successfully to {upstream}"),
            Remedy {
                who: format!("whoever deploys to {upstream}"),
                command: format!("deploy {} {upstream}", artefact(inputs)),
            },
        ),
    }
}

/// The newest piece of evidence of the wanted type counts: an older pass does not hide a later failure.
fn evidence(inputs: &Inputs, gate: &Gate) -> GateResult {
    let name = gate.to_string();
    let attest = |inputs: &Inputs| {
        let short = predicate_name(&gate.evidence);
        let source = if short == "junit" { "results.xml" } else { "--result pass" };
        Remedy {
            who: "whoever runs that check".to_owned(),
            command: format!("attest {} --type {short} {source}", artefact(inputs)),
        }
    };
    let Some(wanted) = predicate_type(&gate.evidence) else {
        let reason = format!("`{}` is no type of evidence", gate.evidence);
        let command = "pipeline apply".to_owned();
        return closed(
            name,
            Verdict::Unknown,
            reason,
            Remedy { who: "whoever owns the pipeline".to_owned(), command },
        );
    };
    let matches = |fact: &&EvidenceFact| {
        fact.predicate_type == wanted && (gate.environment.is_none() || gate.environment == fact.environment)
    };
    let Some(newest) = inputs.evidence.iter().rfind(matches) else {
        let reason = format!("no evidence of type {}", predicate_name(&wanted));
        return closed(name, Verdict::Fail, reason, attest(inputs));
    };
    if newest.result != gate.result {
        let reason = format!("the newest says {} ({})", newest.result, newest.time);
        return closed(name, Verdict::Fail, reason, attest(inputs));
    }
    match gate.max_age {
        Some(limit) if age_millis(inputs.clock, newest.time) > u128::from(limit.as_millis()) => {
            let reason = format!("the newest is older than {limit} ({})", newest.time);
            closed(name, Verdict::Fail, reason, attest(inputs))
        }
        _ => passed(name, format!("{} ({})", newest.result, newest.time), Some(newest.envelope.clone())),
    }
}

/// How long ago something was; a time in the future counts as now.
fn age_millis(clock: Timestamp, time: Timestamp) -> u128 {
    u128::try_from(clock.as_millisecond().saturating_sub(time.as_millisecond())).unwrap_or(0)
}

fn artefact(inputs: &Inputs) -> String {
    let version = inputs.version.as_ref().map_or_else(|| inputs.digest.to_string(), ToString::to_string);
    format!("{}@{version}", inputs.component)
}

fn passed(gate: String, reason: String, rests_on: Option<Digest>) -> GateResult {
    GateResult { gate, verdict: Verdict::Pass, reason, rests_on, remedy: None }
}

fn closed(gate: String, verdict: Verdict, reason: String, remedy: Remedy) -> GateResult {
    GateResult { gate, verdict, reason, rests_on: None, remedy: Some(remedy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUNIT: &str = "https://in-toto.io/attestation/test-result/v0.1";

    fn at(hour: i8) -> Timestamp {
        format!("2026-11-22T{hour:02}:00:00Z").parse().unwrap()
    }

    fn inputs() -> Inputs {
        Inputs {
            component: "shop/api".parse().unwrap(),
            version: Some("1.4.2".parse().unwrap()),
            digest: Digest::of(b"artefact"),
            environment: "production".parse().unwrap(),
            policy: Digest::of(b"policy"),
            after: vec!["staging".parse().unwrap()],
            gates: vec![gate("junit", None)],
            clock: at(12),
            evidence: vec![fact(EvidenceResult::Pass, 10)],
            successes: vec![SuccessFact {
                environment: "staging".parse().unwrap(),
                generation: 4,
                time: at(9),
            }],
            rejections: vec![],
        }
    }

    fn gate(evidence: &str, max_age: Option<&str>) -> Gate {
        Gate {
            evidence: evidence.into(),
            result: EvidenceResult::Pass,
            max_age: max_age.map(|text| text.parse().unwrap()),
            environment: None,
        }
    }

    fn fact(result: EvidenceResult, hour: i8) -> EvidenceFact {
        EvidenceFact {
            envelope: Digest::of(&[hour.unsigned_abs()]),
            predicate_type: JUNIT.into(),
            result,
            time: at(hour),
            environment: None,
        }
    }

    fn refusal(inputs: Inputs) -> String {
        let decision = decide(inputs);
        assert_eq!(decision.outcome, Outcome::Refused);
        let lines: Vec<String> = decision
            .closed()
            .map(|gate| format!("{}: {} [{}]", gate.gate, gate.reason, gate.remedy.as_ref().unwrap().command))
            .collect();
        lines.join("; ")
    }

    #[test]
    fn it_is_granted_when_every_gate_passes() {
        let decision = decide(inputs());
        assert!(decision.is_granted(), "{decision:?}");
        assert_eq!(decision.gates.len(), 3);
        assert_eq!(decision.gates[2].rests_on, Some(Digest::of(&[10])));
    }

    #[test]
    fn every_closed_gate_says_what_is_missing_and_what_opens_it() {
        let nothing = Inputs { evidence: vec![], successes: vec![], ..inputs() };
        assert_eq!(
            refusal(nothing),
            "after staging: never deployed successfully to staging [deploy shop/api@1.4.2 staging]; \
             junit=pass: no evidence of type junit [attest shop/api@1.4.2 --type junit results.xml]"
        );
        let rejected = vec![RejectionFact { reason: "loses orders".into(), time: at(11) }];
        assert_eq!(
            refusal(Inputs { rejections: rejected, ..inputs() }),
            "not-rejected: rejected: loses orders [accept shop/api@1.4.2]"
        );
    }

    #[test]
    fn a_later_failure_is_not_hidden_by_an_earlier_pass() {
        let evidence = vec![fact(EvidenceResult::Pass, 10), fact(EvidenceResult::Fail, 11)];
        assert!(refusal(Inputs { evidence, ..inputs() }).contains("the newest says fail"));
    }

    #[test]
    fn evidence_ages_by_the_clock_of_the_decision() {
        let gates = vec![gate("junit", Some("90m"))];
        assert!(refusal(Inputs { gates: gates.clone(), ..inputs() }).contains("older than 90m"));
        let fresh = vec![fact(EvidenceResult::Pass, 11)];
        assert!(decide(Inputs { gates, evidence: fresh, ..inputs() }).is_granted());
    }

    #[test]
    fn evidence_of_another_environment_does_not_count_where_one_is_named() {
        let mut wanted = gate("junit", None);
        wanted.environment = Some("staging".parse().unwrap());
        let gates = vec![wanted];
        assert!(refusal(Inputs { gates: gates.clone(), ..inputs() }).contains("no evidence"));
        let mut there = fact(EvidenceResult::Pass, 10);
        there.environment = Some("staging".parse().unwrap());
        assert!(decide(Inputs { gates, evidence: vec![there], ..inputs() }).is_granted());
    }

    #[test]
    fn a_recorded_decision_comes_out_the_same_again() {
        let decision = decide(inputs());
        let stored: Decision = serde_json::from_slice(&canonical::bytes(&decision)).unwrap();
        assert_eq!(decide(stored.inputs.clone()), stored);
    }

    #[test]
    fn a_gate_that_means_nothing_is_never_a_pass() {
        let decision = decide(Inputs { gates: vec![gate("Not A Type", None)], ..inputs() });
        assert_eq!(decision.gates[2].verdict, Verdict::Unknown);
        assert!(!decision.is_granted());
    }
}

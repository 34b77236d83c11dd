//! Waivers: what a project accepts, why, and until when.

use globset::{Glob, GlobMatcher};
use jiff::civil::Date;
use semel_model::project::Waiver;

use super::finding::Finding;

/// A waiver that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the path `{path}` of the waiver for {rule} is no pattern")]
pub struct InvalidWaiver {
    /// Its rule.
    pub rule: String,
    /// Its path.
    pub path: String,
    /// The cause.
    #[source]
    pub source: globset::Error,
}

/// Findings, judged.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) open: Vec<Finding>,
    pub(super) waived: Vec<(Finding, Waiver)>,
    /// Ran out, and would cover what is open.
    pub(super) lapsed: Vec<Waiver>,
    /// Cover nothing.
    pub(super) idle: Vec<Waiver>,
}

/// Lays the waivers over the findings. A waiver holds to the end of its last day.
pub(super) fn judge(
    findings: Vec<Finding>,
    waivers: &[Waiver],
    today: Date,
) -> Result<Judged, InvalidWaiver> {
    let compiled: Vec<Covering<'_>> = waivers.iter().map(Covering::new).collect::<Result<_, _>>()?;
    let mut judged = Judged::default();
    let mut used = vec![false; waivers.len()];
    for finding in findings {
        let covering = compiled.iter().position(|one| one.waiver.until >= today && one.covers(&finding));
        match covering {
            Some(index) => {
                used[index] = true;
                judged.waived.push((finding, waivers[index].clone()));
            }
            None => judged.open.push(finding),
        }
    }
    let unused = compiled.iter().zip(used).filter(|(_, used)| !used).map(|(one, _)| one);
    let (lapsed, idle) = unused.partition::<Vec<_>, _>(|one| judged.open.iter().any(|open| one.covers(open)));
    judged.lapsed = lapsed.into_iter().map(|one| one.waiver.clone()).collect();
    judged.idle = idle.into_iter().map(|one| one.waiver.clone()).collect();
    Ok(judged)
}

struct Covering<'a> {
    waiver: &'a Waiver,
    path: GlobMatcher,
}

impl<'a> Covering<'a> {
    fn new(waiver: &'a Waiver) -> Result<Self, InvalidWaiver> {
        let path = Glob::new(&waiver.path).map_err(|source| InvalidWaiver {
            rule: waiver.rule.clone(),
            path: waiver.path.clone(),
            source,
        })?;
        Ok(Self { waiver, path: path.compile_matcher() })
    }

    fn covers(&self, finding: &Finding) -> bool {
        finding.rule == self.waiver.rule && self.path.is_match(&finding.path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn a_waiver_covers_its_rule_at_its_path_until_its_last_day() {
        let finding = |path: &str| Finding {
            severity: Severity::Error,
            rule: "secret/private-key".to_owned(),
            path: path.to_owned(),
            place: None,
            layer: None,
            what: "a private key".to_owned(),
            fix: "take it out".to_owned(),
        };
        let waiver = |path: &str, until: &str| Waiver {
            rule: "secret/private-key".to_owned(),
            path: path.to_owned(),
            reason: "a key of the test suite".to_owned(),
            until: until.parse().unwrap(),
        };
        let today = "2026-11-23".parse().unwrap();
        // Findings that are waived and that are open; waivers that have run out and that cover nothing.
        for (pattern, until, expected) in [
            ("/app/test.key", "2026-11-23", [1, 0, 0, 0]),
            ("/app/**", "2027-01-01", [1, 0, 0, 0]),
            ("/app/*.key", "2027-01-01", [1, 0, 0, 0]),
            ("/app/test.key", "2026-11-22", [0, 1, 1, 0]),
            ("/other/**", "2027-01-01", [0, 1, 0, 1]),
            ("/other/**", "2026-11-22", [0, 1, 0, 1]),
        ] {
            let judged = judge(vec![finding("/app/test.key")], &[waiver(pattern, until)], today).unwrap();
            let Judged { open, waived, lapsed, idle } = judged;
            let counted = [waived.len(), open.len(), lapsed.len(), idle.len()];
            assert_eq!(counted, expected, "{pattern} {until}");
        }
    }
}

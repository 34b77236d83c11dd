//! Figures: what each server reached, and whether that is enough.

use serde::{Serialize, Serializer};

use crate::Error;
use crate::load::Outcome;
use crate::machine::Machine;
use crate::usage::Usage;

const MIB: f64 = 1024.0 * 1024.0;

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    MibPerSecond,
    PerSecond,
    Millis,
    Mib,
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MibPerSecond => "MiB/s",
            Self::PerSecond => "/s",
            Self::Millis => "ms",
            Self::Mib => "MiB",
        }
    }
}

/// What one server reached.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub(crate) server: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    /// How long one piece of work takes; none when none was finished in its time.
    pub(crate) p50_millis: Option<f64>,
    pub(crate) p99_millis: Option<f64>,
    /// Processor time of the server for one piece of work, where that is what is counted.
    pub(crate) cpu_micros_per_request: Option<f64>,
    /// Processor time of the server for the content of a GiB, where bytes are what is counted.
    pub(crate) cpu_seconds_per_gib: Option<f64>,
    /// The most memory that was resident.
    pub(crate) memory_peak_mib: Option<f64>,
    /// Bytes to the disk for each byte that was pushed.
    pub(crate) written_per_byte: Option<f64>,
}

impl Measured {
    /// A value that stands alone.
    pub(crate) fn alone(server: &str, value: f64, unit: Unit) -> Self {
        Self {
            server: server.to_owned(),
            value,
            unit,
            p50_millis: None,
            p99_millis: None,
            cpu_micros_per_request: None,
            cpu_seconds_per_gib: None,
            memory_peak_mib: None,
            written_per_byte: None,
        }
    }

    /// A rate: of bytes or of pieces of work.
    pub(crate) fn rate(server: &str, unit: Unit, outcome: &Outcome, used: Usage, peak_bytes: u64) -> Self {
        let bytes = (outcome.received + outcome.sent) as f64;
        let done = outcome.latencies.len() as f64;
        let seconds = outcome.took.as_secs_f64();
        let cpu = used.cpu.as_secs_f64();
        let counts_bytes = unit == Unit::MibPerSecond;
        let value = if counts_bytes { bytes / MIB } else { done } / seconds;
        Self {
            p50_millis: outcome.quantile_millis(0.5),
            p99_millis: outcome.quantile_millis(0.99),
            cpu_micros_per_request: (!counts_bytes && done > 0.0).then(|| cpu / done * 1e6),
            cpu_seconds_per_gib: counts_bytes.then(|| cpu / bytes * MIB * 1024.0),
            memory_peak_mib: Some(mib(peak_bytes)),
            written_per_byte: (outcome.sent > 0).then(|| used.written_bytes as f64 / outcome.sent as f64),
            ..Self::alone(server, value, unit)
        }
    }

    /// The same with the memory for its value.
    pub(crate) fn by_memory(self) -> Self {
        Self { value: self.memory_peak_mib.unwrap_or_default(), unit: Unit::Mib, ..self }
    }

    /// The round in the middle, by value.
    pub(crate) fn median(mut rounds: Vec<Self>) -> Result<Self, Error> {
        rounds.sort_by(|one, other| one.value.total_cmp(&other.value));
        let middle = rounds.len() / 2;
        rounds.into_iter().nth(middle).ok_or_else(|| "nothing was measured".into())
    }
}

/// What is asked of a figure.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// A value with what is asked of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    /// What the value is: `× nginx`.
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) target: Bound,
    pub(crate) met: bool,
}

impl Verdict {
    pub(crate) fn new(what: impl Into<String>, value: f64, target: Bound) -> Self {
        let met = match target {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
            Bound::Below(limit) => value < limit,
        };
        Self { what: what.into(), value, target, met }
    }
}

/// One figure of the report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) measured: Vec<Measured>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Shares and other values that nothing is asked of.
    pub(crate) facts: Vec<(String, f64)>,
    pub(crate) machine: Machine,
}

impl Figure {
    /// What a server reached.
    pub(crate) fn of(&self, server: &str) -> Result<&Measured, Error> {
        let measured = self.measured.iter().find(|measured| measured.server == server);
        measured.ok_or_else(|| format!("{}: {server} was not measured", self.what).into())
    }

    /// Asks that the first server reaches at least so many times what the second does.
    pub(crate) fn at_least(mut self, server: &str, times: f64, peer: &str) -> Result<Self, Error> {
        let ratio = self.of(server)?.value / self.of(peer)?.value;
        self.verdicts.push(Verdict::new(format!("× {peer}"), ratio, Bound::AtLeast(times)));
        Ok(self)
    }

    /// Asks that the first server reaches at most so many times what the second does.
    pub(crate) fn at_most(mut self, base: &str, times: f64, server: &str) -> Result<Self, Error> {
        let ratio = self.of(base)?.value / self.of(server)?.value;
        self.verdicts.push(Verdict::new(format!("× as long: {server}"), ratio, Bound::AtMost(times)));
        Ok(self)
    }

    /// Asks that a server is within a limit.
    pub(crate) fn within(mut self, server: &str, target: Bound) -> Result<Self, Error> {
        let measured = self.of(server)?;
        let verdict = Verdict::new(measured.unit.name(), measured.value, target);
        self.verdicts.push(verdict);
        Ok(self)
    }

    /// Adds a value that nothing is asked of.
    pub(crate) fn fact(mut self, what: &str, value: f64) -> Self {
        self.facts.push((what.to_owned(), value));
        self
    }
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

//! The report: text while it is measured, or one JSON object at the end.

use serde_json::json;

use crate::Error;
use crate::figure::{Bound, Figure, Measured, Unit, Verdict};

/// Collects the figures.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, figures: Vec::new() }
    }

    /// Takes a figure, and shows it at once unless JSON is asked for.
    pub(crate) fn add(&mut self, figure: Figure) {
        if !self.json {
            show(&figure);
        }
        self.figures.push(figure);
    }

    /// Ends the report; whether all targets are met.
    pub(crate) fn finish(self) -> Result<bool, Error> {
        let missed: Vec<&Figure> =
            self.figures.iter().filter(|figure| figure.verdicts.iter().any(|verdict| !verdict.met)).collect();
        if self.json {
            let object = json!({"met": missed.is_empty(), "figures": self.figures});
            println!("{}", serde_json::to_string_pretty(&object)?);
        } else if missed.is_empty() {
            println!("all targets are met");
        } else {
            println!("missed:");
            for figure in &missed {
                println!("  {}", figure.what);
            }
        }
        Ok(missed.is_empty())
    }
}

fn show(figure: &Figure) {
    let machine = figure.machine;
    println!("{}   [load {:.1}, {:.0} % idle]", figure.what, machine.load, machine.idle_share * 100.0);
    for measured in &figure.measured {
        println!("  {}", line(measured));
    }
    for (what, value) in &figure.facts {
        println!("  {what}: {value:.2}");
    }
    for verdict in &figure.verdicts {
        println!("  {}", judged(verdict));
    }
    println!();
}

fn line(measured: &Measured) -> String {
    let digits = usize::from(measured.value < 100.0);
    let value = format!("{:.digits$} {}", measured.value, measured.unit.name());
    let is_rate = matches!(measured.unit, Unit::MibPerSecond | Unit::PerSecond);
    let besides = [
        (is_rate && measured.p50_millis.is_none()).then(|| "none finished in its time".to_owned()),
        measured.p50_millis.map(|millis| format!("p50 {millis:.2} ms")),
        measured.p99_millis.map(|millis| format!("p99 {millis:.2} ms")),
        measured.cpu_micros_per_request.map(|micros| format!("CPU {micros:.1} µs")),
        measured.cpu_seconds_per_gib.map(|seconds| format!("CPU {seconds:.2} s/GiB")),
        measured.memory_peak_mib.map(|mib| format!("memory {mib:.0} MiB")),
        measured.written_per_byte.map(|times| format!("written {times:.2} ×")),
    ];
    let besides: Vec<String> = besides.into_iter().flatten().collect();
    format!("{:<22} {value:>14}   {}", measured.server, besides.join(", ")).trim_end().to_owned()
}

fn judged(verdict: &Verdict) -> String {
    let target = match verdict.target {
        Bound::AtLeast(least) => format!("at least {least}"),
        Bound::AtMost(most) => format!("at most {most}"),
        Bound::Below(limit) => format!("below {limit}"),
    };
    let met = if verdict.met { "met" } else { "MISSED" };
    format!("{:.3} {}, {target}: {met}", verdict.value, verdict.what)
}

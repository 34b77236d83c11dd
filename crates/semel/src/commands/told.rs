//! What a person is told of a build while it runs.

use std::time::Duration;

use semel_build::closure::{self, Severity};
use semel_build::pipeline::{Progress, Step};

use crate::output::Output;
use crate::progress;

/// Tells a person how far the build is.
pub(super) struct Told {
    output: Output,
    bar: indicatif::ProgressBar,
}

impl Told {
    pub(super) fn new(output: Output) -> Self {
        Self { output, bar: progress::spinner(&output, "check out".to_owned()) }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Told {
    fn started(&self, step: Step) {
        self.bar.set_message(step.to_string());
    }

    fn finished(&self, step: Step, took: Duration) {
        let line = format!("{step:<10} {:.1} s", took.as_secs_f32());
        self.bar.suspend(|| self.output.done(line));
    }

    fn note(&self, note: &str) {
        self.bar.suspend(|| self.output.warn(note));
    }

    fn line(&self, line: &str) {
        self.bar.set_message(format!("build: {}", line.chars().take(160).collect::<String>()));
    }
}

/// How many warnings are said; all are in the report.
const WARNINGS_SAID: usize = 5;

pub(super) fn say_closure(closure: &closure::Report, output: Output) {
    let warnings = closure.findings.iter().filter(|finding| finding.severity == Severity::Warning);
    for warning in warnings.take(WARNINGS_SAID) {
        output.warn(warning.to_string());
    }
    let summary = closure.summary();
    output.done(if summary.is_empty() {
        "closure complete".to_owned()
    } else {
        format!("closure complete: {summary}")
    });
}

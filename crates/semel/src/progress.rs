//! Long work shows that it goes on: a bar where a person looks, nothing where nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use semel_oci::copy::{Event, Progress};

use crate::output::Output;

/// A bar for bytes on their way.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    bar: ProgressBar,
    skipped: Arc<AtomicU64>,
}

impl Transfer {
    pub(crate) fn new(output: &Output, word: &'static str) -> Self {
        let target = if output.is_quiet() || output.is_json() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_message(word);
        let style = ProgressStyle::with_template("  {msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, skipped: Arc::default() }
    }

    /// What a copy tells.
    pub(crate) fn listener(&self) -> Progress {
        let this = self.clone();
        Progress::to(move |event| match event {
            Event::Planned { bytes, .. } => this.bar.set_length(bytes),
            Event::Bytes(bytes) => this.bar.inc(bytes),
            Event::Skipped(blob) => {
                this.skipped.fetch_add(blob.size, Ordering::Relaxed);
                this.bar.inc(blob.size);
            }
            Event::Copied(_) => {}
        })
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line that moves while something else works.
pub(crate) fn spinner(output: &Output, message: String) -> ProgressBar {
    let target = if output.is_quiet() || output.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(None, target).with_message(message);
    let style = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

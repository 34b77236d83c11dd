//! Long work shows that it goes on: a bar where a person looks, a line for each finished part where a program does.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use semel_oci::client::Pushed;
use semel_oci::copy::{Event, Progress};

use crate::output::{Output, bytes};

/// A bar for bytes on their way.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    bar: ProgressBar,
    word: &'static str,
    done: Arc<AtomicUsize>,
    /// Where each finished blob is a line of its own.
    lines: Option<Output>,
}

impl Transfer {
    /// Shows a bar, and nothing where nobody looks.
    pub(crate) fn new(output: &Output, word: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, target(output)).with_message(word);
        let style =
            ProgressStyle::with_template("  {msg} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, word, done: Arc::default(), lines: None }
    }

    /// Shows a bar, and in a pipe a line for each blob.
    pub(crate) fn told(output: &Output, word: &'static str) -> Self {
        let lines = (!std::io::stderr().is_terminal()).then_some(*output);
        Self { lines, ..Self::new(output, word) }
    }

    /// What a copy tells.
    pub(crate) fn listener(&self) -> Progress {
        let this = self.clone();
        Progress::to(move |event| match event {
            Event::Planned { bytes, .. } => this.bar.set_length(bytes),
            Event::Bytes(bytes) => this.bar.inc(bytes),
            // They were not sent now: the rate is of what moves.
            Event::Kept(bytes) => this.there_already(bytes),
            Event::Done(blob, pushed) => {
                if pushed != Pushed::Sent {
                    this.there_already(blob.size);
                }
                let done = this.done.fetch_add(1, Ordering::Relaxed) + 1;
                this.bar.set_message(format!("{} {done}", this.word));
                if let Some(output) = &this.lines {
                    output.say(format!(
                        "  {} {:>11}  {}",
                        blob.digest.short(),
                        bytes(blob.size),
                        how(pushed)
                    ));
                }
            }
        })
    }

    fn there_already(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.bar.reset_eta();
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn how(pushed: Pushed) -> &'static str {
    match pushed {
        Pushed::Sent => "copied",
        Pushed::Mounted => "taken from another component",
        Pushed::Existed => "there already",
    }
}

fn target(output: &Output) -> ProgressDrawTarget {
    if output.is_quiet() || output.is_json() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    }
}

/// A line that moves while something else works.
pub(crate) fn spinner(output: &Output, message: String) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(output)).with_message(message);
    let style = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

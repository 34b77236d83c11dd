//! What is said: data on standard output, messages on standard error.
//!
//! A pipe that nobody reads any more ends the output, never the program; any other place that takes no data, such as a full
//! disk, is a fault. Colour only where a person looks and wants it; no
//! meaning by colour alone.
//!
//! A command that is proposed means the same store and project as the one that proposes it: it repeats the words that say
//! where they are.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use clap::CommandFactory as _;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Cli;

/// How the caller wants to be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// The words that say where things are, each followed by a space.
    place: &'static str,
}

impl Output {
    pub(crate) fn new(cli: &Cli) -> Self {
        // Once in the life of the process, and everywhere at hand.
        Self { json: cli.json, quiet: cli.quiet, place: cli.place().leak() }
    }

    /// A text with the commands in it as the caller has to type them.
    pub(crate) fn proposed(&self, text: &str) -> String {
        placed(text, self.place)
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// One JSON object on standard output.
    pub(crate) fn json(&self, value: &impl Serialize) {
        let text = serde_json::to_string_pretty(value).expect("answers are JSON");
        self.data(&text);
    }

    /// A line of data on standard output.
    pub(crate) fn data(&self, line: &str) {
        note_loss(writeln!(anstream::stdout(), "{line}"));
    }

    /// Bytes on standard output, as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout();
        note_loss(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    /// What is true now, or what happens: a line on standard error, unless the caller wants only the essential value.
    pub(crate) fn say(&self, line: impl Display) {
        if !self.quiet && !self.json {
            drop(writeln!(anstream::stderr(), "{line}"));
        }
    }

    /// A finished step.
    pub(crate) fn done(&self, line: impl Display) {
        self.say(format!("{} {line}", painted(AnsiColor::Green, "✓")));
    }

    /// Something that is not as it should be.
    pub(crate) fn warn(&self, line: impl Display) {
        let line = self.proposed(&line.to_string());
        self.say(format!("{} {line}", painted(AnsiColor::Yellow, "!")));
    }

    /// What comes next.
    pub(crate) fn next(&self, command: impl Display) {
        self.say(format!("  next: {}", self.proposed(&command.to_string())));
    }

    /// The headline of a failure.
    pub(crate) fn problem(&self, word: &str, message: &str) {
        let (word, message) = (painted(AnsiColor::Red, &format!("{word}:")), self.proposed(message));
        drop(writeln!(anstream::stderr(), "{word} {message}"));
    }

    /// A line below it.
    pub(crate) fn note(&self, word: &str, line: &str) {
        drop(writeln!(anstream::stderr(), "  {word}: {}", self.proposed(line)));
    }
}

/// What is between two commands, where either may be meant.
const BETWEEN: &str = "   ";

/// Puts words behind the name of the program in each command of a text that does not say itself where it applies.
fn placed(text: &str, place: &str) -> String {
    const PROGRAM: &str = "semel ";
    let (mut placed, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(PROGRAM) {
        let (before, words) = rest.split_at(at + PROGRAM.len());
        placed.push_str(before);
        if rest[..at].chars().next_back().is_none_or(|last| last.is_whitespace() || "`(".contains(last))
            && is_command(words)
        {
            placed.push_str(place);
        }
        rest = words;
    }
    placed + rest
}

/// Whether these words are a verb with its own, in the place where the caller is.
fn is_command(words: &str) -> bool {
    let command = words.split(BETWEEN).next().and_then(|one| one.split('`').next()).unwrap_or_default();
    let verb = command.split([' ', ':', ',', ')']).next().unwrap_or_default();
    let is_elsewhere = ["--store", "--server", "-C "].iter().any(|word| command.contains(word));
    verb != "serve" && !is_elsewhere && Cli::command().find_subcommand(verb).is_some()
}

/// Why the process's one standard output did not take data, if it did not.
static LOSS: OnceLock<io::Error> = OnceLock::new();

fn note_loss(written: io::Result<()>) {
    if let Err(error) = written {
        // The first cause is told.
        drop(LOSS.set(error));
    }
}

/// Why data is missing on standard output.
pub(crate) fn loss() -> Option<&'static io::Error> {
    LOSS.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Whether nothing more can be written to standard output, for who would write without end.
pub(crate) fn is_over() -> bool {
    LOSS.get().is_some()
}

fn painted(colour: AnsiColor, text: &str) -> String {
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{text}{style:#}")
}

/// A table without lines, for people and for `grep`.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// How long ago something was, in one short word.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return time.to_owned() };
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..60 => "just now".to_owned(),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `1 commit`, `2 commits`.
pub(crate) fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_command_means_the_place_of_the_one_that_proposes_it() {
        let cases = [
            ("semel status", "semel --store s status"),
            ("to undo it: semel accept a@1", "to undo it: semel --store s accept a@1"),
            (
                "semel deploy 1 dev   or   semel logs dev",
                "semel --store s deploy 1 dev   or   semel --store s logs dev",
            ),
            ("run `semel recover`, then go on", "run `semel --store s recover`, then go on"),
            ("look (semel pipeline diff)", "look (semel --store s pipeline diff)"),
            (
                "semel restore x --store NEW-DIR   or   semel gc",
                "semel restore x --store NEW-DIR   or   semel --store s gc",
            ),
            ("is the server running? semel serve", "is the server running? semel serve"),
            (
                "the program semel is in /usr/lib/semel status",
                "the program semel is in /usr/lib/semel status",
            ),
            ("man -l /tmp/semel.1", "man -l /tmp/semel.1"),
        ];
        for (text, expected) in cases {
            assert_eq!(placed(text, "--store s "), expected);
            assert_eq!(placed(text, ""), text);
        }
    }

    #[test]
    fn sizes_counts_and_ages_are_short() {
        assert_eq!([counted(0, "commit"), counted(1, "commit")], ["0 commits", "1 commit"]);
        assert_eq!(
            [bytes(0), bytes(1_023), bytes(1_536), bytes(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let cases = [
            ("2026-11-22T11:59:59Z", "just now"),
            ("2026-11-22T11:10:00Z", "50 min ago"),
            ("2026-11-21T12:00:00Z", "24 h ago"),
            ("2026-11-01T12:00:00Z", "21 days ago"),
            ("2026-11-23T12:00:00Z", "just now"),
        ];
        for (time, word) in cases {
            assert_eq!(ago(time, now), word);
        }
    }

    #[test]
    fn a_table_has_no_lines_and_no_trailing_space() {
        let text = table(&["A", "B"], vec![vec!["1".into(), "two".into()]]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| !line.ends_with(' ')));
    }
}

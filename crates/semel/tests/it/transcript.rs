//! Transcripts: what was typed and what was answered, with everything that differs from run to run replaced by a name, so
//! that equal things stay equal: the second digest that appears is `<digest 2>` wherever it appears.

use std::fmt::Write as _;

use crate::environment::{Ran, TestEnvironment};

/// A transcript that is being written.
#[derive(Default)]
pub(crate) struct Transcript {
    text: String,
    digests: Vec<String>,
    commits: Vec<String>,
    others: Vec<String>,
}

impl Transcript {
    /// Runs the program and writes down what came of it.
    pub(crate) fn run(&mut self, environment: &TestEnvironment, words: &[&str]) -> Ran {
        let ran = environment.semel(words);
        self.write(&format!("semel {}", words.join(" ")), environment, &ran);
        ran
    }

    /// Says what happens between two commands.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.text, "\n# {line}").unwrap();
    }

    /// Writes a command down that was run elsewhere.
    pub(crate) fn write(&mut self, line: &str, environment: &TestEnvironment, ran: &Ran) {
        writeln!(self.text, "\n$ {line}").unwrap();
        for (mark, text) in [("2> ", &ran.stderr), ("", &ran.stdout)] {
            for line in text.lines() {
                let line = self.named(&line.replace(&*environment.beside("").to_string_lossy(), "<test>/"));
                writeln!(self.text, "  {mark}{}", unpadded(&line)).unwrap();
            }
        }
        if ran.code != 0 {
            writeln!(self.text, "  (exit {})", ran.code).unwrap();
        }
    }

    /// The text, to be compared with a snapshot.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// One line with names for what differs from run to run.
    fn named(&mut self, line: &str) -> String {
        let mut named = String::new();
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (before, from) = rest.split_at(start);
            named.push_str(before);
            let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            let name = self.name_of(word);
            named.push_str(name.as_deref().unwrap_or(word));
            rest = after;
        }
        named.push_str(rest);
        named
    }

    fn name_of(&mut self, word: &str) -> Option<String> {
        let hexadecimal = word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hexadecimal {
            return None;
        }
        match word.len() {
            64 | 12 => Some(name(&mut self.digests, "digest", word, 12)),
            40 | 7 => Some(name(&mut self.commits, "commit", word, 7)),
            16 => Some(name(&mut self.others, "id", word, 16)),
            _ => None,
        }
    }
}

/// One line without the padding of its columns, which depends on what differs; what it begins with stays.
fn unpadded(line: &str) -> String {
    let text = line.trim_start();
    let columns: Vec<&str> = text.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    format!("{}{}", &line[..line.len() - text.len()], columns.join("  "))
}

/// The name of a word, which may be written in full or short.
fn name(known: &mut Vec<String>, what: &str, word: &str, short: usize) -> String {
    let key = &word[..short];
    let at = known.iter().position(|one| one == key).unwrap_or_else(|| {
        known.push(key.to_owned());
        known.len() - 1
    });
    let length = if word.len() == short && short < 16 { ", short" } else { "" };
    format!("<{what} {}{length}>", at + 1)
}

/// What a snapshot leaves out beside: times and sizes.
pub(crate) fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, name) in [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (r"just now|\d+ min ago", "<ago>"),
        (r"\b\d+\.\d s\b", "<seconds>"),
        (r"\b\d+(\.\d)? (B|KiB|MiB)\b", "<size>"),
        (r"✓ \d+ (signed checkpoints|decisions|blobs)", "✓ <n> $1"),
    ] {
        settings.add_filter(pattern, name);
    }
    settings
}

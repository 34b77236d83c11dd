//! Scan: known forms of secrets in a stream of bytes.
//!
//! Each rule has anchors, short literal texts that every secret of its form contains. One pass finds all anchors of all
//! rules; only around an anchor is anything looked at more closely. Memory is two windows, whatever the length of the stream.

use std::io::{self, Read};
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::finding::{Finding, Lines, Place, Severity, is_example};
use super::secrets::{RULES, Rule};

/// How many bytes are read at a time.
const WINDOW_BYTES: usize = 256 * 1024;
/// How far a secret may reach behind its anchor.
const AHEAD_BYTES: usize = 4096;
/// How far it may begin before its anchor.
const BEHIND_BYTES: usize = 256;

/// All rules, ready to search.
#[derive(Debug)]
pub struct Scanner {
    anchors: AhoCorasick,
    /// The rule of each anchor.
    rules: Vec<&'static Rule>,
}

/// A secret in a stream.
#[derive(Debug)]
pub struct Hit {
    rule: &'static Rule,
    place: Place,
    shown: String,
}

impl Hit {
    /// The finding for a file.
    pub(super) fn finding(&self, path: &str) -> Finding {
        let harmless = !self.rule.proven && (is_example(path) || self.is_of_self_test(path));
        let severity = if harmless { Severity::Warning } else { self.rule.severity };
        Finding {
            severity,
            rule: format!("secret/{}", self.rule.id),
            path: path.to_owned(),
            place: Some(self.place),
            layer: None,
            what: format!("{} ({})", self.rule.what, self.shown),
            fix: "take it out of what is packaged, give it to the environment (`semel config set`), and replace it where it is valid: \
                  whoever has an old build has it"
                .to_owned(),
        }
    }
}

impl Hit {
    /// Libraries of cryptography carry keys by which they test themselves when they are loaded (FIPS 140-3 asks for that),
    /// such as the `libgnutls` that is in every Debian: everybody has these.
    fn is_of_self_test(&self, path: &str) -> bool {
        const DIRECTORIES: &[&str] = &["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/"];
        let name = path.rsplit('/').next().unwrap_or(path);
        self.rule.id == "private-key"
            && matches!(self.place, Place::Offset(_))
            && DIRECTORIES.iter().any(|dir| path.starts_with(dir))
            && (name.ends_with(".so") || name.contains(".so."))
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// Prepares the search.
    pub fn new() -> Self {
        let rules: Vec<_> = RULES.iter().flat_map(|rule| rule.anchors.iter().map(move |_| rule)).collect();
        let anchors = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .kind(Some(AhoCorasickKind::DFA))
            .build(Self::anchors())
            .expect("a few short literals make a small automaton");
        Self { anchors, rules }
    }

    /// The texts of which every secret of a known form contains one.
    pub fn anchors() -> impl Iterator<Item = &'static str> {
        RULES.iter().flat_map(|rule| rule.anchors).copied()
    }

    /// Searches a stream to its end and gives its length in bytes.
    ///
    /// # Errors
    /// What reading gives.
    pub fn stream(&self, mut content: impl Read, found: &mut impl FnMut(Hit)) -> io::Result<u64> {
        let mut window = Window::new();
        loop {
            let ended = window.fill(&mut content)?;
            let length = window.bytes.len();
            // An anchor near the end is looked at when more bytes are behind it.
            let until = if ended { length } else { length.saturating_sub(AHEAD_BYTES) };
            let mut lines = Lines::of(&window.bytes);
            window.from = self.search(&window.bytes, window.from, until, |rule, range| {
                let place = match window.text {
                    true => Place::Line(window.lines + lines.line_at(range.start)),
                    false => Place::Offset(window.base + range.start as u64),
                };
                found(Hit { rule, place, shown: shown(&window.bytes[range]) });
            });
            if ended {
                return Ok(window.base + window.bytes.len() as u64);
            }
            window.slide();
        }
    }

    /// Searches bytes that are all at hand.
    pub fn bytes(&self, bytes: &[u8], found: &mut impl FnMut(Hit)) {
        let (text, mut lines) = (is_text(bytes), Lines::of(bytes));
        self.search(bytes, 0, bytes.len(), |rule, range| {
            let place = match text {
                true => Place::Line(lines.line_at(range.start)),
                false => Place::Offset(range.start as u64),
            };
            found(Hit { rule, place, shown: shown(&bytes[range]) });
        });
    }

    /// Whether further anchors follow at once: then it is a list of them, as in every program that looks for secrets.
    fn is_table(&self, behind: &[u8]) -> bool {
        self.anchors.is_match(behind)
    }

    /// Looks at every anchor from `at` to `until`; says where the search goes on.
    fn search(
        &self,
        bytes: &[u8],
        mut at: usize,
        until: usize,
        mut found: impl FnMut(&'static Rule, Range<usize>),
    ) -> usize {
        while at < until {
            let input = aho_corasick::Input::new(bytes).span(at..bytes.len());
            let Some(anchor) = self.anchors.find(input).filter(|anchor| anchor.start() < until) else {
                break;
            };
            let rule = self.rules[anchor.pattern().as_usize()];
            at = anchor.start() + 1;
            let Some(range) = (rule.verify)(bytes, anchor.start()..anchor.end()) else { continue };
            if self.is_table(&bytes[anchor.end().min(range.end)..range.end]) {
                continue;
            }
            at = at.max(range.end);
            found(rule, range);
        }
        at.max(until)
    }
}

/// The beginning of a secret and its length: enough to find it, too little to use it. Of a short one it is less.
fn shown(secret: &[u8]) -> String {
    let most = (secret.len() / 5).min(4);
    let head: String =
        secret.iter().take(most).map(|byte| char::from(*byte)).filter(char::is_ascii_graphic).collect();
    format!("{head}…, {} characters", secret.len())
}

/// As far as its beginning tells.
fn is_text(bytes: &[u8]) -> bool {
    memchr::memchr(0, &bytes[..bytes.len().min(8192)]).is_none()
}

/// How many lines end in it.
fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The part of a stream that is in memory.
struct Window {
    bytes: Vec<u8>,
    /// Where the window begins in the stream.
    base: u64,
    /// Where the search goes on in the window.
    from: usize,
    /// How many lines ended before the window.
    lines: u64,
    /// Whether the stream looks like text.
    text: bool,
}

impl Window {
    fn new() -> Self {
        let bytes = Vec::with_capacity(WINDOW_BYTES + AHEAD_BYTES + BEHIND_BYTES);
        Self { bytes, base: 0, from: 0, lines: 0, text: true }
    }

    /// Reads until the window is full; says whether the stream has ended.
    fn fill(&mut self, content: &mut impl Read) -> io::Result<bool> {
        let had = self.bytes.len();
        content.by_ref().take(WINDOW_BYTES as u64).read_to_end(&mut self.bytes)?;
        if self.base == 0 && had == 0 {
            self.text = is_text(&self.bytes);
        }
        Ok(self.bytes.len() - had < WINDOW_BYTES)
    }

    /// Drops what was searched, but for what a secret may reach back to.
    fn slide(&mut self) {
        let gone = self.from.min(self.bytes.len()).saturating_sub(BEHIND_BYTES);
        if self.text {
            self.lines += lines(&self.bytes[..gone]);
        }
        self.bytes.drain(..gone);
        self.base += gone as u64;
        self.from -= gone;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(bytes: &[u8]) -> Vec<(&'static str, Place)> {
        let mut hits = Vec::new();
        Scanner::new().stream(bytes, &mut |hit| hits.push((hit.rule.id, hit.place))).unwrap();
        hits
    }

    #[test]
    fn a_secret_is_found_wherever_the_windows_are_cut() {
        let secret = format!("\nkey = {}{} ", "AKIA", "QWERTYUIOP234567");
        for before in [
            0,
            1,
            WINDOW_BYTES - 5,
            WINDOW_BYTES - 30,
            WINDOW_BYTES,
            WINDOW_BYTES + 4000,
            3 * WINDOW_BYTES - 9,
        ] {
            let mut bytes = vec![b'.'; before];
            bytes.extend(secret.as_bytes());
            for after in [0, 5, AHEAD_BYTES + 1, 2 * WINDOW_BYTES] {
                let mut all = bytes.clone();
                all.resize(bytes.len() + after, b'\n');
                assert_eq!(
                    hits(&all),
                    [("aws-access-key", Place::Line(2))],
                    "{before} before, {after} after"
                );
            }
        }
    }

    #[test]
    fn of_a_secret_a_fifth_is_shown_at_most() {
        let cases = [
            ("AKIAQWERTYUIOP234567", "AKIA…, 20 characters"),
            ("hunter2hunter2", "hu…, 14 characters"),
            ("abc", "…, 3 characters"),
        ];
        for (secret, words) in cases {
            assert_eq!(shown(secret.as_bytes()), words);
        }
    }

    #[test]
    fn the_keys_of_the_system_s_own_libraries_are_a_warning() {
        let key = format!("-----BEGIN EC {}\n{}\n", "PRIVATE KEY-----", "aB3dE5fG7hJ9".repeat(8));
        let binary = [b"\x7fELF\0".as_slice(), key.as_bytes()].concat();
        for (path, bytes, severity) in [
            ("/usr/lib/x86_64-linux-gnu/libgnutls.so.30.34.3", binary.as_slice(), Severity::Warning),
            ("/lib64/libfreeblpriv3.so", &binary, Severity::Warning),
            ("/usr/lib/x86_64-linux-gnu/libgnutls.so.30.34.3", key.as_bytes(), Severity::Error),
            ("/usr/lib/x86_64-linux-gnu/key.pem", &binary, Severity::Error),
            ("/app/lib/libshop.so", &binary, Severity::Error),
            ("/usr/lib/service/server", &binary, Severity::Error),
        ] {
            let mut found = Vec::new();
            Scanner::new().bytes(bytes, &mut |hit| found.push(hit.finding(path).severity));
            assert_eq!(found, [severity], "{path}");
        }
    }

    #[test]
    fn in_a_binary_the_offset_is_told() {
        let mut bytes = vec![0; 1000];
        bytes.extend(format!("\n{}{}\0", "AKIA", "QWERTYUIOP234567").as_bytes());
        assert_eq!(hits(&bytes), [("aws-access-key", Place::Offset(1001))]);
    }
}

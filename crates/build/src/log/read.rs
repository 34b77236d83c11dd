//! Reading a build log: its lines, what was printed, and how that is shown.

use std::fmt::Write as _;
use std::time::Duration;

use super::FIRST_LINE;

/// What a line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// `=`: a command begins.
    Phase,
    /// `|`: a line that was printed.
    Line,
    /// `>`: a piece of a line; it goes on with the next one, or its end was never printed.
    Piece,
    /// `.`: Semel's own words.
    Words,
}

impl Mark {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Phase => b'=',
            Self::Line => b'|',
            Self::Piece => b'>',
            Self::Words => b'.',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Phase, Self::Line, Self::Piece, Self::Words].into_iter().find(|mark| mark.byte() == byte)
    }
}

/// A line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was printed, since the commands began. A log from before this format has no times.
    pub at: Option<Duration>,
    /// What it is.
    pub mark: Mark,
    /// Its bytes, without the line's end.
    pub text: &'a [u8],
}

/// The lines of a stretch of a log that begins behind its first line.
pub fn more_lines(stretch: &[u8]) -> impl Iterator<Item = Line<'_>> {
    stretch.split_inclusive(|byte| *byte == b'\n').map(parsed)
}

/// The lines of a log. What is not of this format is taken as printed.
pub fn lines(log: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let (text, marked) = match log.strip_prefix(FIRST_LINE) {
        Some(rest) => (rest, true),
        None => (log, false),
    };
    let ended = text.split_inclusive(|byte| *byte == b'\n');
    ended.map(move |line| if marked { parsed(line) } else { plain(line) })
}

fn plain(line: &[u8]) -> Line<'_> {
    match line.strip_suffix(b"\n") {
        Some(text) => Line { at: None, mark: Mark::Line, text },
        None => Line { at: None, mark: Mark::Piece, text: line },
    }
}

fn parsed(line: &[u8]) -> Line<'_> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = text.splitn(3, |byte| *byte == b' ');
    let at = parts.next().and_then(|millis| std::str::from_utf8(millis).ok()?.parse().ok());
    let mark = parts.next().and_then(|mark| if let [byte] = mark { Mark::of(*byte) } else { None });
    match (at, mark, parts.next()) {
        (Some(at), Some(mark), Some(text)) => Line { at: Some(Duration::from_millis(at)), mark, text },
        _ => plain(line),
    }
}

/// What was printed, byte for byte, apart from masked secrets and what was left out.
pub fn raw(log: &[u8]) -> Vec<u8> {
    let mut printed = Vec::with_capacity(log.len());
    for line in lines(log) {
        match line.mark {
            Mark::Line => printed.extend([line.text, b"\n"].concat()),
            Mark::Piece => printed.extend(line.text),
            Mark::Phase | Mark::Words => {}
        }
    }
    printed
}

/// A line as it can be shown on a terminal: without sequences that colour it or move the cursor, with bytes that are no
/// text and characters that nobody sees in a readable form, and of a line that wrote over itself what stood there last.
pub fn harmless(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
    let mut shown = String::new();
    for chunk in without_sequences(last).utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\t' || !is_hidden(character) {
                shown.push(character);
            } else {
                shown.extend(character.escape_default());
            }
        }
        for byte in chunk.invalid() {
            // Writing to a text cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Control characters, and those that change the direction or the joining of what is around them.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Leaves out control sequences (ECMA-48 5.4: `ESC [`, parameters, one final byte) and strings for the terminal (`ESC ]`
/// and its like, up to BEL or `ESC \`). What is no whole sequence stays.
fn without_sequences(line: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((first, behind)) = rest.split_first() {
        let length = if *first == 0x1b { sequence(behind) } else { 0 };
        if length == 0 {
            kept.push(*first);
        }
        rest = &behind[length..];
    }
    kept
}

/// The length of the sequence behind an escape character; 0: there is none.
fn sequence(behind: &[u8]) -> usize {
    match behind.first() {
        Some(b'[') => {
            let body = behind[1..].iter().take_while(|byte| matches!(byte, 0x20..=0x3f)).count();
            match behind.get(1 + body) {
                Some(0x40..=0x7e) => body + 2,
                _ => 0,
            }
        }
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let bell = behind.iter().position(|byte| *byte == 0x07).map(|at| at + 1);
            let ended = behind.windows(2).position(|two| two == b"\x1b\\").map(|at| at + 2);
            bell.into_iter().chain(ended).min().unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_harm_a_terminal_is_shown_as_text_or_not_at_all() {
        let cases: [(&[u8], &str); 12] = [
            (b"plain\ttext", "plain\ttext"),
            (b"\x1b[1;31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07left", "left"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"10%\r50%\r100%\r", "100%"),
            (b"\x1b[2J\x1b[Hcleared", "cleared"),
            (b"\x1bc", "\\u{1b}c"),
            (b"\x1b]52;c;never ended", "\\u{1b}]52;c;never ended"),
            (b"\xff\xfe\x00", "\\xff\\xfe\\u{0}"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            ("größe \u{1f600}".as_bytes(), "größe \u{1f600}"),
        ];
        for (line, expected) in cases {
            assert_eq!(harmless(line), expected);
        }
    }

    #[test]
    fn a_log_from_before_the_format_is_shown_as_it_is() {
        let log = b"== run: make\none\ntwo";
        assert_eq!(raw(log), log);
        assert!(lines(log).all(|line| line.at.is_none()));
    }

    #[test]
    fn a_damaged_line_is_taken_as_printed() {
        let log = b"semel build log 1\n12 | one\nxx\n13 ? two\n";
        let found: Vec<_> = lines(log).map(|line| (line.mark, line.text)).collect();
        assert_eq!(found, [(Mark::Line, &b"one"[..]), (Mark::Line, b"xx"), (Mark::Line, b"13 ? two")]);
    }
}

//! Masking: a secret's value never reaches the log, whichever of the usual ways it was written in.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use semel_model::taint::{escaped_for_json, percent_encoded};

/// A shorter value would be found in every other word, and masking it would make the log unreadable.
const SHORTEST: usize = 4;

/// A value that must not be seen in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    value: String,
}

/// A value that cannot be masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of the secret {name} has fewer than {SHORTEST} bytes: it cannot be kept out of a log")]
pub struct TooShort {
    /// Which secret.
    pub name: String,
}

impl Secret {
    /// A secret that can be masked.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Result<Self, TooShort> {
        let (name, value) = (name.into(), value.into());
        if value.trim().len() < SHORTEST { Err(TooShort { name }) } else { Ok(Self { name, value }) }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, for the command that may have it.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Replaces what is secret in bytes that come in pieces of any size.
pub(super) struct Mask {
    /// What is looked for and what stands in its place, the longest first.
    forms: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which bytes a form can begin with.
    begins: [bool; 256],
    /// The end of what came, as long as it may be the beginning of a form.
    held: Vec<u8>,
}

impl Mask {
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let mut forms: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for secret in secrets {
            let instead = format!("[secret {}]", secret.name).into_bytes();
            forms.extend(forms_of(&secret.value).into_iter().map(|form| (form, instead.clone())));
        }
        forms.sort_by(|one, other| other.0.len().cmp(&one.0.len()).then_with(|| one.cmp(other)));
        forms.dedup_by(|one, other| one.0 == other.0);
        let mut begins = [false; 256];
        forms.iter().for_each(|(form, _)| begins[usize::from(form[0])] = true);
        Self { forms, begins, held: Vec::new() }
    }

    /// Takes bytes, and gives back what can be shown of them and of those before.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let certain = self.held.len() - self.undecided();
        self.release(certain)
    }

    /// Gives back what is left: nothing follows.
    pub(super) fn end(&mut self) -> Vec<u8> {
        self.release(self.held.len())
    }

    /// How many bytes at the end may be the beginning of a form.
    fn undecided(&self) -> usize {
        let longest = self.forms.first().map_or(0, |(form, _)| form.len().saturating_sub(1));
        let begins = |length: &usize| {
            let end = &self.held[self.held.len() - length..];
            self.begins[usize::from(end[0])]
                && self.forms.iter().any(|(form, _)| form.len() > *length && form.starts_with(end))
        };
        (1..=longest.min(self.held.len())).rev().find(begins).unwrap_or(0)
    }

    fn release(&mut self, certain: usize) -> Vec<u8> {
        let mut shown = Vec::with_capacity(certain);
        let mut at = 0;
        while at < certain {
            let rest = &self.held[at..];
            let found = self.begins[usize::from(rest[0])]
                .then(|| self.forms.iter().find(|(form, _)| rest.starts_with(form)))
                .flatten();
            match found {
                Some((form, instead)) => {
                    shown.extend_from_slice(instead);
                    at += form.len();
                }
                None => {
                    shown.push(rest[0]);
                    at += 1;
                }
            }
        }
        self.held.drain(..at.min(self.held.len()));
        shown
    }
}

/// The ways in which a value is commonly written: as it is, each of its lines, for JSON, in URLs, by a shell, in hexadecimal
/// and in base64, also in the middle of something longer.
fn forms_of(value: &str) -> Vec<Vec<u8>> {
    let trimmed = value.trim();
    let mut forms = vec![trimmed.as_bytes().to_vec()];
    forms.extend(trimmed.lines().map(|line| line.trim().as_bytes().to_vec()));
    forms.extend(escaped_for_json(trimmed));
    forms.extend(percent_encoded(trimmed));
    // A shell that shows what it runs (`set -x`).
    forms.push(trimmed.replace('\'', r"'\''").into_bytes());
    // What is encoded may be the value with the line end that a file or an `echo` gave it.
    for bytes in [value.as_bytes(), trimmed.as_bytes()] {
        forms.extend([hexadecimal(bytes, false), hexadecimal(bytes, true)]);
        forms.extend(base64_of(bytes));
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

fn hexadecimal(value: &[u8], upper: bool) -> Vec<u8> {
    let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    value.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

/// The characters that follow from the value alone, whatever stands before and behind it.
fn base64_of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for alphabet in [STANDARD, URL_SAFE] {
        let engine = GeneralPurpose::new(&alphabet, GeneralPurposeConfig::new());
        // A character holds six bits: of those at the edges, some come from a neighbour.
        for (before, first) in [(0, 0), (1, 2), (2, 3)] {
            let bytes = [vec![0; before], value.to_vec()].concat();
            let whole = bytes.len() * 8 / 6;
            let text = engine.encode(&bytes).into_bytes();
            forms.push(text[first.min(whole)..whole].to_vec());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[Secret], pieces: &[&[u8]]) -> String {
        let mut mask = Mask::new(secrets);
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| mask.take(piece)).collect();
        shown.extend(mask.end());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn every_common_way_to_write_a_value_is_masked() {
        let secret = [Secret::new("TOKEN", "p@ss w\"ord?ÿ~").unwrap()];
        let engine = base64::engine::general_purpose::STANDARD;
        let cases = [
            "p@ss w\"ord?ÿ~".to_owned(),
            r#"{"a":"p@ss w\"ord?ÿ~"}"#.to_owned(),
            "https://x/?t=p%40ss%20w%22ord%3F%C3%BF~".to_owned(),
            "https://x/?t=p%40ss%20w%22ord%3f%c3%bf~".to_owned(),
            "t=p%40ss+w%22ord%3F%C3%BF~".to_owned(),
            "704073732077226f72643fc3bf7e".to_owned(),
            "704073732077226F72643FC3BF7E".to_owned(),
            engine.encode("p@ss w\"ord?ÿ~"),
            engine.encode("p@ss w\"ord?ÿ~\n"),
            engine.encode("user:p@ss w\"ord?ÿ~"),
            engine.encode("me:p@ss w\"ord?ÿ~ and more"),
            engine.encode("a:p@ss w\"ord?ÿ~x"),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode("p@ss w\"ord?ÿ~"),
        ];
        for case in cases {
            let shown = masked(&secret, &[case.as_bytes()]);
            assert!(shown.contains("[secret TOKEN]"), "{case}: {shown}");
        }
        assert_eq!(masked(&secret, &[b"p@ss w\"or"]), "p@ss w\"or");
    }

    #[test]
    fn a_value_with_letters_of_both_cases_and_odd_characters_is_masked_as_other_programs_write_it() {
        let secret = [Secret::new("TOKEN", "Pä&s/W<o'rd(1)").unwrap()];
        for (who, text) in [
            ("lower-case digits in a URL", "P%c3%a4%26s%2fW%3co%27rd%281%29"),
            ("encodeURIComponent", "P%C3%A4%26s%2FW%3Co'rd(1)"),
            ("Python's json", r"P\u00e4&s/W<o'rd(1)"),
            ("PHP's json", r"P\u00e4&s\/W<o'rd(1)"),
            ("Go's json", r"Pä\u0026s/W\u003co'rd(1)"),
            ("bash -x", r"Pä&s/W<o'\''rd(1)"),
        ] {
            assert_eq!(masked(&secret, &[text.as_bytes()]), "[secret TOKEN]", "{who}");
        }
    }

    #[test]
    fn each_line_of_a_value_is_masked() {
        let key = [Secret::new("KEY", "-----BEGIN-----\nAAAABBBB\n-----END-----\n").unwrap()];
        assert_eq!(masked(&key, &[b"x AAAABBBB y\n"]), "x [secret KEY] y\n");
    }

    #[test]
    fn the_longest_value_wins_where_one_contains_another() {
        let secrets = [Secret::new("A", "abcd").unwrap(), Secret::new("B", "abcdefgh").unwrap()];
        assert_eq!(masked(&secrets, &[b"abcd", b"efgh abcd"]), "[secret B] [secret A]");
    }

    #[test]
    fn nothing_is_held_back_that_cannot_be_secret() {
        let mut mask = Mask::new(&[Secret::new("A", "abcdef").unwrap()]);
        assert_eq!(mask.take(b"done\n"), b"done\n");
        assert_eq!(mask.take(b"xabc"), b"x");
        assert_eq!(mask.take(b"xyz"), b"abcxyz");
    }

    #[test]
    fn a_short_value_is_refused_and_a_value_is_not_shown_for_debugging() {
        assert_eq!(Secret::new("PIN", "123\n").unwrap_err().name, "PIN");
        assert!(!format!("{:?}", Secret::new("T", "hunter22").unwrap()).contains("hunter22"));
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_in_which_pieces_the_bytes_come(
            text in "[abc]{0,40}",
            cuts in prop::collection::vec(0usize..40, 0..6),
        ) {
            let secrets = [Secret::new("A", "abca").unwrap(), Secret::new("B", "cabbac").unwrap()];
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &text.as_bytes()[two[0]..two[1]]).collect();
            let shown = masked(&secrets, &pieces);
            prop_assert_eq!(&shown, &masked(&secrets, &[text.as_bytes()]));
            prop_assert!(!shown.contains("abca") && !shown.contains("cabbac"), "{}", shown);
        }
    }
}

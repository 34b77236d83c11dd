//! Taint: the values of an environment, searched in bytes that must not carry them.
//!
//! A value is looked for as it is and in the forms in which it usually travels: base64 (wherever it lies in what was
//! encoded, both alphabets), hexadecimal, percent-encoded, and escaped for JSON. A finding names the key and the form,
//! never the value. Nothing is read here: bytes are handed over piece by piece, and memory is bounded by the values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::name::ConfigKey;

/// A shorter value is found by chance in anything large, in bytes.
pub const VALUE_BYTES_MIN: usize = 8;

/// Of a longer value its middle is searched, in bytes: beginnings and ends are what many values share, such as the
/// first and last line of a key.
pub const PIECE_BYTES_MAX: usize = 64;

/// Fewer different bytes are a row of noughts or dashes.
const DISTINCT_BYTES_MIN: usize = 4;

/// Up to this sum of lengths in bytes the search is a table that is fast and at most a few MiB large.
const TABLE_BYTES_MAX: usize = 32 * 1024;

/// What stands in the bytes of many programs, whoever configures them.
const COMMON: &[&str] = &[
    "127.0.0.1",
    "0.0.0.0",
    "application",
    "changeme",
    "combined",
    "continue",
    "critical",
    "database",
    "default",
    "development",
    "disabled",
    "enabled",
    "http://localhost",
    "https://localhost",
    "internal",
    "localhost",
    "memcached",
    "mongodb",
    "password",
    "postgres",
    "postgresql",
    "preview",
    "production",
    "rabbitmq",
    "required",
    "sandbox",
    "staging",
    "standard",
    "testing",
    "username",
    "verbose",
    "verify-full",
    "warning",
];

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As it is.
    Plain,
    /// In base64 (RFC 4648, sections 4 and 5).
    Base64,
    /// As hexadecimal digits.
    Hex,
    /// Percent-encoded (RFC 3986, section 2.1).
    Url,
    /// Escaped as in a JSON text (RFC 8259, section 7).
    Json,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "as it is",
            Self::Base64 => "in base64",
            Self::Hex => "in hexadecimal",
            Self::Url => "percent-encoded",
            Self::Json => "escaped for JSON",
        })
    }
}

/// A value that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Found {
    /// Whose value.
    pub key: ConfigKey,
    /// In which form.
    pub form: Form,
}

/// A value that is not searched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// Whose value.
    pub key: ConfigKey,
    /// Why.
    pub why: Why,
}

/// Why a value is not searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It is shorter than [`VALUE_BYTES_MIN`].
    TooShort,
    /// It says nothing about where it comes from.
    TooCommon,
}

/// Values, ready to be searched. Its debug form shows their keys only.
pub struct Taint {
    search: Option<AhoCorasick>,
    /// What each pattern of the search means.
    meanings: Vec<BTreeSet<Found>>,
    /// The longest pattern, in bytes.
    longest: usize,
    skipped: Vec<Skipped>,
}

impl fmt::Debug for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: BTreeSet<_> = self.meanings.iter().flatten().map(|found| &found.key).collect();
        f.debug_struct("Taint").field("keys", &keys).field("skipped", &self.skipped).finish_non_exhaustive()
    }
}

/// There are so many values that no search can be made of them.
#[derive(Debug, thiserror::Error)]
#[error("cannot search {values} values at once")]
pub struct TooMany {
    /// How many.
    pub values: usize,
}

impl Taint {
    /// Prepares the search for values by their keys.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a ConfigKey, &'a str)>) -> Result<Self, TooMany> {
        let mut patterns: BTreeMap<Vec<u8>, BTreeSet<Found>> = BTreeMap::new();
        let mut skipped = Vec::new();
        let mut count = 0;
        for (key, value) in values {
            count += 1;
            match refusal(value) {
                Some(why) => skipped.push(Skipped { key: key.clone(), why }),
                None => add_forms(key, value, &mut patterns),
            }
        }
        let (patterns, meanings): (Vec<_>, Vec<_>) = patterns.into_iter().unzip();
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let total: usize = patterns.iter().map(Vec::len).sum();
        let kind = (total <= TABLE_BYTES_MAX).then_some(AhoCorasickKind::DFA);
        let search = match patterns.is_empty() {
            true => None,
            false => Some(
                AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .kind(kind)
                    .build(&patterns)
                    .map_err(|_| TooMany { values: count })?,
            ),
        };
        Ok(Self { search, meanings, longest, skipped })
    }

    /// Whether there is anything to search for.
    pub fn is_empty(&self) -> bool {
        self.search.is_none()
    }

    /// The values that are not searched.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Begins to search one stream of bytes.
    pub fn stream(&self) -> Stream<'_> {
        Stream { taint: self, seam: Vec::new(), found: BTreeSet::new() }
    }

    /// Searches bytes that are all at hand.
    pub fn find(&self, bytes: &[u8]) -> BTreeSet<Found> {
        let mut stream = self.stream();
        stream.feed(bytes);
        stream.found()
    }
}

/// One stream of bytes that is being searched.
pub struct Stream<'a> {
    taint: &'a Taint,
    /// The last bytes that were fed: a value may begin in them.
    seam: Vec<u8>,
    found: BTreeSet<Found>,
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("found", &self.found).finish_non_exhaustive()
    }
}

impl Stream<'_> {
    /// Takes the next piece, of any length.
    pub fn feed(&mut self, piece: &[u8]) {
        let Some(search) = &self.taint.search else { return };
        let keep = self.taint.longest - 1;
        // A value that is cut in two begins in the seam and ends in the first bytes of the piece.
        if !self.seam.is_empty() {
            self.seam.extend_from_slice(&piece[..piece.len().min(keep)]);
            let seam = std::mem::take(&mut self.seam);
            self.note(search, &seam);
            self.seam = seam;
        }
        self.note(search, piece);
        if piece.len() >= keep {
            self.seam.clear();
            self.seam.extend_from_slice(&piece[piece.len() - keep..]);
        } else if self.seam.is_empty() {
            self.seam.extend_from_slice(piece);
        } else {
            let over = self.seam.len().saturating_sub(keep);
            self.seam.drain(..over);
        }
    }

    /// What was found.
    pub fn found(self) -> BTreeSet<Found> {
        self.found
    }

    fn note(&mut self, search: &AhoCorasick, bytes: &[u8]) {
        for hit in search.find_overlapping_iter(bytes) {
            let meaning = &self.taint.meanings[hit.pattern().as_usize()];
            if !meaning.is_subset(&self.found) {
                self.found.extend(meaning.iter().cloned());
            }
        }
    }
}

fn refusal(value: &str) -> Option<Why> {
    let trimmed = value.trim();
    let distinct: BTreeSet<u8> = trimmed.bytes().collect();
    let lower = trimmed.to_ascii_lowercase();
    let is_number = trimmed.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_'));
    if trimmed.len() < VALUE_BYTES_MIN {
        Some(Why::TooShort)
    } else if distinct.len() < DISTINCT_BYTES_MIN
        || COMMON.contains(&lower.as_str())
        || (is_number && trimmed.len() < 12)
    {
        Some(Why::TooCommon)
    } else {
        None
    }
}

fn add_forms(key: &ConfigKey, value: &str, patterns: &mut BTreeMap<Vec<u8>, BTreeSet<Found>>) {
    let piece = middle(value.trim());
    let forms = [
        (Form::Plain, vec![piece.as_bytes().to_vec()]),
        (Form::Base64, in_base64(piece.as_bytes())),
        (Form::Hex, vec![hex::encode(piece).into_bytes(), hex::encode_upper(piece).into_bytes()]),
        (Form::Url, percent_encoded(piece)),
        (Form::Json, escaped_for_json(piece)),
    ];
    for (form, texts) in forms {
        for text in texts {
            // A form that changes nothing is the plain one.
            let form = if text == piece.as_bytes() { Form::Plain } else { form };
            patterns.entry(text).or_default().insert(Found { key: key.clone(), form });
        }
    }
}

/// The middle of a text, at most [`PIECE_BYTES_MAX`] long.
fn middle(value: &str) -> &str {
    let spare = value.len().saturating_sub(PIECE_BYTES_MAX);
    let mut from = spare / 2;
    while !value.is_char_boundary(from) {
        from += 1;
    }
    let mut to = value.len() - spare.div_ceil(2);
    while !value.is_char_boundary(to) {
        to -= 1;
    }
    &value[from..to]
}

/// What of the encoded text does not depend on the bytes around the value, for each of the three places where a value can
/// begin in a group of three bytes.
fn in_base64(value: &[u8]) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    for before in 0..3 {
        let padded = [&[0; 2][..before], value].concat();
        let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            texts.push(engine.encode(&padded).as_bytes()[from..to].to_vec());
        }
    }
    texts
}

/// A text as programs encode it for a URL: with everything encoded that may be, as `encodeURIComponent` does, and as forms are
/// sent; with digits in both cases.
pub fn percent_encoded(value: &str) -> Vec<Vec<u8>> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let component = |byte: u8| unreserved(byte) || b"!'()*".contains(&byte);
    let kept: [&dyn Fn(u8) -> bool; 2] = [&unreserved, &component];
    let mut texts = Vec::new();
    for keep in kept {
        for upper in [true, false] {
            let text = percent_encode(value, keep, upper);
            texts.push(text.replace("%20", "+").into_bytes());
            texts.push(text.into_bytes());
        }
    }
    texts
}

fn percent_encode(value: &str, keep: &dyn Fn(u8) -> bool, upper: bool) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match (keep(byte), upper) {
            (true, _) => text.push(char::from(byte)),
            (false, true) => write!(text, "%{byte:02X}").expect("a text takes everything"),
            (false, false) => write!(text, "%{byte:02x}").expect("a text takes everything"),
        }
    }
    text
}

/// A text as programs escape it inside of JSON: as most do, with escaped slashes, in ASCII alone, and safe for HTML as Go does.
pub fn escaped_for_json(value: &str) -> Vec<Vec<u8>> {
    let quoted = serde_json::Value::from(value).to_string();
    let plain = quoted[1..quoted.len() - 1].to_owned();
    let mut ascii = String::new();
    for unit in plain.chars() {
        match unit.is_ascii() {
            true => ascii.push(unit),
            false => unit
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|half| write!(ascii, "\\u{half:04x}").expect("a text takes everything")),
        }
    }
    let slashed = plain.replace('/', "\\/");
    let ascii_slashed = ascii.replace('/', "\\/");
    let in_html = plain.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    [plain, ascii, slashed, ascii_slashed, in_html].map(String::into_bytes).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALUE: &str = "postgres://shop:pä\"ss/wörd?@db.shop.net/shop";

    fn taint(values: &[(&str, &str)]) -> Taint {
        let keys: Vec<ConfigKey> = values.iter().map(|(key, _)| key.parse().unwrap()).collect();
        Taint::new(keys.iter().zip(values.iter().map(|(_, value)| *value))).unwrap()
    }

    fn forms(taint: &Taint, bytes: &[u8]) -> Vec<String> {
        taint.find(bytes).into_iter().map(|found| format!("{} {}", found.key, found.form)).collect()
    }

    #[test]
    fn a_value_is_found_in_every_form_in_which_it_travels() {
        let taint = taint(&[("DATABASE_URL", VALUE)]);
        let upper =
            percent_encode(VALUE, &|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte), true);
        for (text, form) in [
            (VALUE.to_owned(), "as it is"),
            (hex::encode(VALUE), "in hexadecimal"),
            (hex::encode_upper(VALUE), "in hexadecimal"),
            (upper.clone(), "percent-encoded"),
            (upper.to_lowercase(), "percent-encoded"),
            (serde_json::json!({ "a": VALUE }).to_string(), "escaped for JSON"),
            (serde_json::json!({ "a": VALUE }).to_string().replace('/', "\\/"), "escaped for JSON"),
            (
                "\"postgres://shop:p\\u00e4\\\"ss/w\\u00f6rd?@db.shop.net/shop\"".to_owned(),
                "escaped for JSON",
            ),
        ] {
            assert_eq!(
                forms(&taint, format!("x={text};").as_bytes()),
                [format!("DATABASE_URL {form}")],
                "{text}"
            );
        }
    }

    #[test]
    fn what_says_nothing_is_skipped_and_named() {
        for (value, why) in [
            ("", Some(Why::TooShort)),
            ("hunter2", Some(Why::TooShort)),
            ("  short  ", Some(Why::TooShort)),
            ("localhost", Some(Why::TooCommon)),
            ("Production", Some(Why::TooCommon)),
            ("00000000", Some(Why::TooCommon)),
            ("104857600", Some(Why::TooCommon)),
            ("2026-11-23", Some(Why::TooCommon)),
            ("hunter22", None),
            ("4111111111111234", None),
        ] {
            let taint = taint(&[("KEY", value)]);
            assert_eq!(taint.skipped().first().map(|skipped| skipped.why), why, "{value}");
            assert_eq!(taint.is_empty(), why.is_some(), "{value}");
        }
    }

    #[test]
    fn one_value_of_two_keys_names_both_and_one_inside_another_is_found_too() {
        let taint = taint(&[("A", "correct horse"), ("B", "correct horse"), ("C", "correct horse battery")]);
        assert_eq!(forms(&taint, b"correct horse battery"), ["A as it is", "B as it is", "C as it is"]);
        assert_eq!(forms(&taint, b"correct horse"), ["A as it is", "B as it is"]);
    }

    #[test]
    fn keys_that_begin_alike_are_told_apart_by_their_middle() {
        let pem = |body: char| {
            format!(
                "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC{}\n-----END PRIVATE KEY-----\n",
                String::from_iter((0..900).map(|n| char::from_u32(u32::from(body) + n % 20).unwrap()))
            )
        };
        let taint = taint(&[("TLS_KEY", &pem('A'))]);
        assert_eq!(forms(&taint, pem('A').as_bytes()), ["TLS_KEY as it is"]);
        assert_eq!(forms(&taint, pem('a').as_bytes()), Vec::<String>::new());
    }

    #[test]
    fn no_debug_form_shows_a_value() {
        let taint = taint(&[("TOKEN", "correct horse")]);
        let mut stream = taint.stream();
        stream.feed(b"a correct horse");
        assert!(!format!("{taint:?} {stream:?}").contains("horse"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn base64_is_found_wherever_the_value_lies(
            value in "[a-zA-Z0-9+/?~:@.-]{12,90}",
            before in proptest::collection::vec(any::<u8>(), 0..7),
            after in proptest::collection::vec(any::<u8>(), 0..7),
            url_safe in any::<bool>(),
        ) {
            let taint = taint(&[("TOKEN", &value)]);
            prop_assume!(!taint.is_empty());
            let bytes = [before.as_slice(), value.as_bytes(), after.as_slice()].concat();
            let text = if url_safe { URL_SAFE_NO_PAD.encode(bytes) } else { STANDARD_NO_PAD.encode(bytes) };
            prop_assert_eq!(forms(&taint, text.as_bytes()), ["TOKEN in base64"]);
        }

        #[test]
        fn how_a_stream_is_cut_changes_nothing(
            pieces in proptest::collection::vec("[a-d ]{0,6}|correct horse|battery|Y29ycmVjdCBob3JzZQ", 0..12),
            cuts in proptest::collection::vec(1_usize..40, 1..40),
        ) {
            let taint = taint(&[("A", "correct horse"), ("B", "horsebattery")]);
            let whole = pieces.concat().into_bytes();
            let mut stream = taint.stream();
            let (mut rest, mut cuts) = (whole.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(cuts.next().unwrap()));
                stream.feed(piece);
                rest = behind;
            }
            prop_assert_eq!(stream.found(), taint.find(&whole));
        }
    }
}

//! Byte ranges: of a download (`Range`, RFC 9110 §14) and of a chunk of an upload (`Content-Range`).

use std::ops::RangeInclusive;

/// What the `Range` header of a request means for a representation of a given size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Answer 206 with these bytes, first and last inclusive.
    Satisfiable(RangeInclusive<u64>),
    /// Answer 416.
    Unsatisfiable,
    /// Answer as if the header were not there: another unit, several ranges, or no range at all.
    Ignore,
}

/// Reads a `Range` header against the size in bytes of what was asked for.
///
/// One range is served; several are ignored, as RFC 9110 §14.2 allows. A range that ends before it begins is
/// unsatisfiable here, not ignored: the conformance suite of the distribution specification asks for 416.
pub fn requested(header: &str, size: u64) -> Requested {
    let Some(set) = strip_unit(header) else { return Requested::Ignore };
    let Some((first, last)) = set.trim().split_once('-') else { return Requested::Ignore };
    match (position(first), position(last)) {
        (Some(Position::Absent), Some(Position::At(length))) => suffix(length, size),
        (Some(Position::At(first)), Some(Position::Absent)) => between(first, u64::MAX, size),
        (Some(Position::At(first)), Some(Position::At(last))) => between(first, last, size),
        _ => Requested::Ignore,
    }
}

/// The `Content-Range` of an answer with status 206: `bytes 0-99/1000`.
pub fn content_range(range: &RangeInclusive<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start(), range.end())
}

/// The part of an upload that one chunk carries, first and last byte inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Position of the first byte.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
}

impl Chunk {
    /// How many bytes the chunk has.
    pub fn length(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

/// Why a text is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the range of a chunk (expected `first-last`, such as `0-1023`)")]
pub struct InvalidChunk(String);

/// Reads the `Content-Range` of a chunk, and the `Range` of an upload's status: `0-1023`
/// (distribution-spec 1.1, "Pushing a blob in chunks"). A leading `bytes=` is accepted, since some registries send it.
pub fn chunk(header: &str) -> Result<Chunk, InvalidChunk> {
    let invalid = || InvalidChunk(header.chars().take(80).collect());
    let text = header.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-').ok_or_else(invalid)?;
    match (exact(first), exact(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Chunk { first, last }),
        _ => Err(invalid()),
    }
}

fn strip_unit(header: &str) -> Option<&str> {
    let (unit, set) = header.trim().split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

enum Position {
    Absent,
    At(u64),
}

/// A position, with those beyond 64 bits taken as the largest: they lie behind the end of everything.
fn position(text: &str) -> Option<Position> {
    let text = text.trim();
    match text.bytes().all(|b| b.is_ascii_digit()) {
        false => None,
        true if text.is_empty() => Some(Position::Absent),
        true => Some(Position::At(text.parse().unwrap_or(u64::MAX))),
    }
}

fn exact(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn suffix(length: u64, size: u64) -> Requested {
    match (length, size) {
        (0, _) | (_, 0) => Requested::Unsatisfiable,
        _ => Requested::Satisfiable(size.saturating_sub(length)..=size - 1),
    }
}

fn between(first: u64, last: u64, size: u64) -> Requested {
    if first >= size || first > last {
        return Requested::Unsatisfiable;
    }
    Requested::Satisfiable(first..=last.min(size - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_mean_what_the_specification_says() {
        use Requested::{Ignore, Satisfiable, Unsatisfiable};
        let cases = [
            ("bytes=0-0", 10, Satisfiable(0..=0)),
            ("bytes=0-", 10, Satisfiable(0..=9)),
            ("bytes=3-5", 10, Satisfiable(3..=5)),
            ("bytes=5-99", 10, Satisfiable(5..=9)),
            ("Bytes = 3 - 5", 10, Satisfiable(3..=5)),
            ("bytes=-3", 10, Satisfiable(7..=9)),
            ("bytes=-30", 10, Satisfiable(0..=9)),
            ("bytes=0-99999999999999999999999", 10, Satisfiable(0..=9)),
            ("bytes=-99999999999999999999999", 10, Satisfiable(0..=9)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=5-0", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=0-1,3-4", 10, Ignore),
            ("items=0-1", 10, Ignore),
            ("bytes", 10, Ignore),
            ("bytes=", 10, Ignore),
            ("bytes=-", 10, Ignore),
            ("bytes=a-b", 10, Ignore),
            ("bytes=+1-2", 10, Ignore),
            ("", 10, Ignore),
        ];
        for (header, size, expected) in cases {
            assert_eq!(requested(header, size), expected, "{header} of {size}");
        }
        assert_eq!(content_range(&(3..=5), 10), "bytes 3-5/10");
    }

    #[test]
    fn chunks_are_read_in_their_one_spelling() {
        assert_eq!(chunk("0-1023"), Ok(Chunk { first: 0, last: 1023 }));
        assert_eq!(chunk("bytes=0-0").map(Chunk::length), Ok(1));
        for bad in ["", "-", "1-0", "0-", "-5", "a-b", "0-1-2", "bytes 0-1/2", "0-99999999999999999999"] {
            assert!(chunk(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_a_range_outside_the_representation(header in "(bytes=)?[0-9a, -]{0,30}", size in 0..1000_u64) {
            if let Requested::Satisfiable(range) = requested(&header, size) {
                prop_assert!(range.start() <= range.end() && *range.end() < size);
            }
        }

        #[test]
        fn every_range_within_the_representation_is_served_as_asked(first in 0..1000_u64, more in 0..1000_u64, rest in 1..1000_u64) {
            let (last, size) = (first + more, first + more + rest);
            prop_assert_eq!(requested(&format!("bytes={first}-{last}"), size), Requested::Satisfiable(first..=last));
            prop_assert_eq!(requested(&format!("bytes=-{rest}"), size), Requested::Satisfiable(last..=size - 1));
            prop_assert_eq!(chunk(&format!("{first}-{last}")), Ok(Chunk { first, last }));
        }
    }
}

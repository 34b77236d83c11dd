//! What holds for every header that names a part of something.

use semel_oci::range::{Chunk, Requested, chunk, content_range, requested};

/// The first eight bytes are the size of what is asked for, the rest is the header.
pub(crate) fn check(data: &[u8]) {
    let Some((size, header)) = data.split_first_chunk::<8>() else { return };
    let (size, Ok(header)) = (u64::from_le_bytes(*size), std::str::from_utf8(header)) else { return };
    is_inside(header, size);
    has_one_spelling(header);
}

/// No answer has a byte that is not there, or one byte twice.
fn is_inside(header: &str, size: u64) {
    let Requested::Satisfiable(range) = requested(header, size) else { return };
    let (first, last) = (*range.start(), *range.end());
    assert!(first <= last && last < size, "{range:?} of {size}");
    let said = content_range(&range, size);
    assert_eq!(said, format!("bytes {first}-{last}/{size}"));
    assert_eq!(requested(&format!("bytes={first}-{last}"), size), Requested::Satisfiable(range));
}

fn has_one_spelling(header: &str) {
    let Ok(read) = chunk(header) else { return };
    let Chunk { first, last } = read;
    assert!(first <= last && read.length() >= 1);
    assert_eq!(chunk(&format!("{first}-{last}")), Ok(read));
}

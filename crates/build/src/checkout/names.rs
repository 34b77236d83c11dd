//! Names: which paths of a commit are never written, and which are one file on other people's disks.

use std::collections::BTreeMap;

use super::CheckoutError;

/// A tree that was made by hand may contain what git refuses to check out (`verify_path` in git's `read-cache.c`): names
/// that lead out of the tree, and names that some file system takes for `.git`.
pub(crate) fn check(path: &[u8]) -> Result<(), CheckoutError> {
    if path.split(|byte| *byte == b'/').any(is_unsafe) {
        return Err(CheckoutError::Unsafe { path: shown(path) });
    }
    Ok(())
}

fn is_unsafe(part: &[u8]) -> bool {
    matches!(part, b"" | b"." | b"..") || part.contains(&0) || is_git_directory(part)
}

/// `.git` as case-insensitive file systems, HFS+ (which ignores some characters) and NTFS (which has short names, and
/// ignores dots and spaces at the end) read it.
fn is_git_directory(part: &[u8]) -> bool {
    let text = String::from_utf8_lossy(part);
    let seen: String = text.chars().filter(|character| !is_ignored(*character)).collect();
    let seen = seen.trim_end_matches(['.', ' ']).to_ascii_lowercase();
    seen == ".git" || seen == "git~1"
}

/// Characters that HFS+ leaves out when it compares names.
fn is_ignored(character: char) -> bool {
    matches!(character, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

/// The pairs of files or directories that are one on a file system that ignores case, in the order of their bytes.
pub(super) fn twins<'a>(paths: impl Iterator<Item = &'a [u8]>) -> Vec<(String, String)> {
    let mut seen: BTreeMap<String, &[u8]> = BTreeMap::new();
    let mut found = Vec::new();
    for path in paths {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let name = &path[..end];
            let first = *seen.entry(folded(name)).or_insert(name);
            let pair = (shown(first), shown(name));
            if first != name && !found.contains(&pair) {
                found.push(pair);
            }
        }
    }
    found
}

/// The other path of a commit that is in the way of this one.
pub(super) fn twin_of<'a>(path: &[u8], mut paths: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let wanted = folded(path);
    let below = format!("{wanted}/");
    let is_other =
        |other: &&[u8]| *other != path && (folded(other) == wanted || folded(other).starts_with(&below));
    paths.find(is_other).map(shown)
}

fn folded(path: &[u8]) -> String {
    // Bytes that are no text are compared as they are.
    path.utf8_chunks().fold(String::new(), |text, chunk| {
        let invalid: String = chunk.invalid().iter().map(|byte| format!("\0{byte:02x}")).collect();
        text + &chunk.valid().to_lowercase() + &invalid
    })
}

/// For messages.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_or_mean_git_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            ".git",
            ".GiT/config",
            "sub/.git",
            ".git. .",
            "GIT~1",
            ".g\u{200c}it",
            "\u{feff}.git",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        for good in [".gitignore", ".github/x", "git", "..a", "a..", "...", "-rf", ".git2", "git~2"] {
            assert!(check(good.as_bytes()).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn paths_that_differ_in_case_alone_are_found_once() {
        type Case = (&'static [&'static [u8]], &'static [(&'static str, &'static str)]);
        let cases: [Case; 5] = [
            (&[b"README", b"readme"], &[("README", "readme")]),
            (&[b"Doc/a", b"doc/b", b"doc/c"], &[("Doc", "doc")]),
            (&[b"\xc3\x84", b"\xc3\xa4"], &[("\u{c4}", "\u{e4}")]),
            (&[b"a", b"b", b"a/c"], &[]),
            (&[b"\xff", b"\xfe"], &[]),
        ];
        for (paths, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(twins(paths.iter().copied()), expected);
        }
        assert_eq!(twin_of(b"readme", [b"a".as_slice(), b"README"].into_iter()).as_deref(), Some("README"));
        assert_eq!(twin_of(b"d", [b"d".as_slice(), b"d/evil"].into_iter()).as_deref(), Some("d/evil"));
    }
}

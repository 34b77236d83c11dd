//! Go: the modules that a program was linked from.
//!
//! Source: the Go standard library, `debug/buildinfo` and `runtime/debug` (`ParseBuildInfo`), since Go 1.18.

use super::package::{Ecosystem, Package};

/// The section of a program that says how it was built.
pub(super) const SECTION: &str = ".go.buildinfo";
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Where the flags are, and the flag of texts that follow instead of pointers to them.
const FLAGS_AT: usize = 15;
const FLAG_INLINE: u8 = 2;
const TEXTS_AT: usize = 32;
/// The module text stands between two marks of so many bytes.
const MARK_BYTES: usize = 16;

/// Reads the section of a program. Programs of Go before 1.18 have pointers there, and are not read.
pub(super) fn linked(section: &[u8]) -> Option<Vec<Package>> {
    let head = section.get(..TEXTS_AT)?;
    if !head.starts_with(MAGIC) || head[FLAGS_AT] & FLAG_INLINE == 0 {
        return None;
    }
    let (version, rest) = text(&section[TEXTS_AT..])?;
    let (modules, _) = text(rest)?;
    let version = std::str::from_utf8(version).ok()?;
    let release = version.strip_prefix("go").unwrap_or(version).split(' ').next();
    let mut found: Vec<Package> = Package::new(Ecosystem::Golang, "stdlib", release).into_iter().collect();
    let modules = modules.get(MARK_BYTES..modules.len().saturating_sub(MARK_BYTES)).unwrap_or_default();
    for line in String::from_utf8_lossy(modules).lines() {
        let mut fields = line.split('\t');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("mod" | "dep"), Some(path), version) => found.extend(module(path, version)),
            // The line says what really stands in the place of the one before it.
            (Some("=>"), Some(path), version) => {
                found.pop();
                found.extend(module(path, version));
            }
            _ => {}
        }
    }
    Some(found)
}

fn module(path: &str, version: Option<&str>) -> Option<Package> {
    Package::of_path(Ecosystem::Golang, path, version.filter(|version| *version != "(devel)"))
}

/// A text with its length in front, as an unsigned LEB128.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut at) = (0_u64, 0_u32);
    loop {
        let byte = *bytes.get(usize::try_from(at).ok()?)?;
        length |= u64::from(byte & 0x7f).checked_shl(at * 7)?;
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at >= 9 {
            return None;
        }
    }
    bytes.get(usize::try_from(at).ok()?..)?.split_at_checked(usize::try_from(length).ok()?)
}

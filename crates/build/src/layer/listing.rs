//! Listing: which paths layers lay out together, as their entries name them: links are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use tar::EntryType;

use super::{Room, Whiteout, path_of, walk};

/// The paths, without a slash in front.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    paths: BTreeMap<Vec<u8>, Listed>,
    layers: u32,
    room: Room,
}

#[derive(Debug, Clone)]
struct Listed {
    /// Whether something can lie below it: it is a directory, or a link that may lead to one.
    holds_others: bool,
    layer: u32,
}

impl Listing {
    /// Applies the next layer (image-spec, layer.md, "Applying Changesets").
    pub(crate) fn add(&mut self, tar: impl Read) -> io::Result<()> {
        self.layers += 1;
        let mut room = std::mem::take(&mut self.room);
        let mut hidden = BTreeSet::new();
        walk(tar, &mut room, |entry| {
            let path = path_of(entry)?;
            match Whiteout::of(&path)? {
                Some(Whiteout::Inside(dir)) => self.hide_below(dir, &mut hidden),
                Some(Whiteout::Itself { dir, name }) => {
                    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
                    let path = [dir, slash, name].concat();
                    if self.paths.get(&path).is_some_and(|listed| listed.layer < self.layers) {
                        self.paths.remove(&path);
                    }
                    self.hide_below(&path, &mut hidden);
                }
                None if path.is_empty() => {}
                None => {
                    let kind = entry.header().entry_type();
                    let holds_others = matches!(kind, EntryType::Directory | EntryType::Symlink);
                    self.paths.insert(path, Listed { holds_others, layer: self.layers });
                }
            }
            Ok(())
        })?;
        self.room = room;
        Ok(())
    }

    /// Takes away what the layers below have in a directory. Once is enough, however often a layer says so.
    fn hide_below(&mut self, dir: &[u8], hidden: &mut BTreeSet<Vec<u8>>) {
        if !hidden.insert(dir.to_vec()) {
            return;
        }
        let prefix = if dir.is_empty() { Vec::new() } else { [dir, b"/"].concat() };
        let inside = self.paths.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        let lower = inside.filter(|(_, listed)| listed.layer < self.layers);
        let gone: Vec<Vec<u8>> = lower.map(|(path, _)| path.clone()).collect();
        for path in gone {
            self.paths.remove(&path);
        }
    }

    /// Whether something lies there.
    pub(crate) fn has(&self, path: &[u8]) -> bool {
        self.paths.contains_key(path)
    }

    /// The directories, and the links that may lead to some.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &[u8]> {
        self.paths.iter().filter(|(_, listed)| listed.holds_others).map(|(path, _)| path.as_slice())
    }
}

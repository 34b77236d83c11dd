//! What goes into one layer, in its order: the files that were given to it, and the directories above them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::collect::{PackFile, PackKind, parents};

/// The entries of a layer, sorted by the bytes of their paths, each below a directory that is among them or in the base. The
/// files are shared: there may be hundreds of thousands.
#[derive(Debug)]
pub(crate) struct Planned {
    files: Arc<Vec<PackFile>>,
    order: Vec<Place>,
}

#[derive(Debug)]
enum Place {
    Given(usize),
    Above(Box<[u8]>),
}

impl Planned {
    /// Those of the files that belong to the layer. A directory that the base has is left out: it may be a link there, or have
    /// permissions of its own.
    pub(crate) fn new(
        files: &Arc<Vec<PackFile>>,
        belongs: impl Fn(&PackFile) -> bool,
        below: &HashSet<&[u8]>,
    ) -> Self {
        let mut places: BTreeMap<&[u8], Option<usize>> = BTreeMap::new();
        for (at, file) in files.iter().enumerate().filter(|(_, file)| belongs(file)) {
            for parent in parents(&file.path).filter(|parent| !below.contains(parent)) {
                places.entry(parent).or_default();
            }
            if file.kind != PackKind::Dir || !below.contains(&*file.path) {
                places.insert(&file.path, Some(at));
            }
        }
        let place = |(path, given): (&[u8], Option<usize>)| match given {
            Some(at) => Place::Given(at),
            None => Place::Above(path.into()),
        };
        let order = places.into_iter().map(place).collect();
        Self { files: Arc::clone(files), order }
    }

    /// All files, from no base.
    pub(crate) fn all(files: &Arc<Vec<PackFile>>) -> Self {
        Self::new(files, |_| true, &HashSet::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The path and the kind of each entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &PackKind)> {
        self.order.iter().map(|place| match place {
            Place::Given(at) => (&*self.files[*at].path, &self.files[*at].kind),
            Place::Above(path) => (&**path, &PackKind::Dir),
        })
    }
}

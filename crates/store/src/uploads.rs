//! Where bytes lie until they have their name: `uploads/<digits>/<name>`.
//!
//! ext4 and its kin take the inode of a file from the group of its directory; where they keep no journal, they look past each
//! that was given up there in the last minutes. In one directory for all uploads that search was half of the work of a small
//! push; the subdirectories lie apart (see `durable::lay_apart`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::durable::{self, Access};

/// The `uploads` directory of a store. Operational: what a crash leaves here is removed once nobody has touched it for long.
#[derive(Debug, Clone)]
pub struct Uploads {
    dir: PathBuf,
}

impl Uploads {
    /// That of a store in a directory.
    pub fn of(store: &Path) -> Self {
        Self { dir: store.join("uploads") }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a file lies, by the two random digits at the end of its name.
    pub fn path(&self, name: &str) -> PathBuf {
        let digits = name.get(name.len().saturating_sub(2)..).unwrap_or(name);
        self.dir.join(digits).join(name)
    }

    /// Begins a file; its directory comes with the first one.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let first = match durable::create_new(path, Access::Shared) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dir.is_dir() => path.parent(),
            other => return other,
        };
        // Nothing to lose in it yet: the directory need not be durable.
        match std::fs::create_dir(first.unwrap_or(&self.dir)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => durable::create_new(path, Access::Shared),
        }
    }

    /// Every file here; also where stores of earlier versions had them, beside the subdirectories.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for item in std::fs::read_dir(&self.dir)? {
            let item = item?;
            if !item.file_type()?.is_dir() {
                files.push(item.path());
                continue;
            }
            for item in std::fs::read_dir(item.path())? {
                files.push(item?.path());
            }
        }
        Ok(files)
    }

    /// How many of them are upload sessions: these alone are named by nothing but their id.
    pub(crate) fn count_sessions(&self) -> u64 {
        let files = self.files().unwrap_or_default();
        let names = files.iter().filter_map(|file| file.file_name()?.to_str());
        names.filter(|name| is_session(name)).count() as u64
    }
}

/// Whether a name is the id of an upload session: 32 hexadecimal digits.
pub(crate) fn is_session(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

//! Taint: the values of this environment, searched in an artefact before it is switched on.
//!
//! The values are here already, so nobody else is given them. What is searched: every file that was laid out, the manifest
//! and the configuration blob. What was found is kept beside the values, so that an artefact is searched once for each
//! configuration.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use semel_model::canonical;
use semel_model::digest::Digest;
use semel_model::name::ConfigKey;
use semel_model::taint::{Form, Found, Skipped, Stream, Taint, TooMany};
use serde::{Deserialize, Serialize};

use super::durable::{self, At, FileError};
use super::stage::blocking;
use super::{Layout, store_name};

/// How much of a file is read at a time, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// How many places are kept of each key; the rest is counted. No key hides another one.
const PLACES_MAX: usize = 50;
/// The form of what a search leaves behind; what another program left in another form is searched again.
const FORM: u32 = 2;

/// How many places a reason names.
const PLACES_SAID: usize = 5;

/// Which values are searched, and what it means that one is found.
pub type Sought = BTreeMap<ConfigKey, WhenFound>;

/// What it means that a value is found in an artefact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFound {
    /// The artefact is not switched on.
    Refuse,
    /// Somebody should look.
    Warn,
}

/// What a search came to. It holds no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Searched {
    v: u32,
    /// The keys whose values were searched.
    keys: Vec<ConfigKey>,
    /// Where values were found, as far as they are kept.
    places: Vec<FoundAt>,
    /// In how many more places, by key.
    more: BTreeMap<ConfigKey, u64>,
    /// The values that were not searched.
    pub(super) skipped: Vec<Skipped>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FoundAt {
    key: ConfigKey,
    form: Form,
    path: String,
}

/// Why nothing was searched.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaintError {
    /// The values make no search.
    #[error(transparent)]
    Values(#[from] TooMany),
    /// A file of the target could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// An artefact that is laid out, and what it comes from.
pub(super) struct Suspect<'a> {
    pub(super) artefact: &'a Digest,
    pub(super) manifest: &'a [u8],
    pub(super) config_blob: &'a [u8],
}

/// Searches the values of a config snapshot, or takes what was found before.
pub(super) async fn search(
    layout: &Layout,
    suspect: Suspect<'_>,
    config: &Digest,
    values: &BTreeMap<ConfigKey, String>,
    sought: &Sought,
) -> Result<Searched, TaintError> {
    let keys: Vec<ConfigKey> = sought.keys().cloned().collect();
    let record = layout.config_dir(config).join(format!("searched-{}", store_name(suspect.artefact)));
    let before: Option<Searched> = durable::read_json(&record).unwrap_or_default();
    if let Some(searched) = before.filter(|before| before.v == FORM && before.keys == keys) {
        return Ok(searched);
    }
    let taint = Taint::new(keys.iter().filter_map(|key| Some((key, values.get(key)?.as_str()))))?;
    let texts = [("manifest", suspect.manifest.to_vec()), ("configuration", suspect.config_blob.to_vec())];
    let tree = layout.store(suspect.artefact);
    blocking(move || {
        let skipped = taint.skipped().to_vec();
        let mut search =
            Search { taint, buffer: vec![0; PIECE_BYTES], places: Vec::new(), more: BTreeMap::new() };
        for (name, bytes) in texts {
            let mut stream = search.taint.stream();
            stream.feed(&bytes);
            let found = stream.found();
            search.note(name, found);
        }
        search.dir(&tree, "")?;
        let Search { places, more, .. } = search;
        let searched = Searched { v: FORM, keys, places, more, skipped };
        durable::write(&record, &canonical::bytes(&searched), 0o400)?;
        Ok(searched)
    })
    .await
}

impl Searched {
    /// What was found of the values for which `when` holds, in one line; none: nothing of them.
    pub(super) fn says(&self, when: impl Fn(&ConfigKey) -> bool) -> Option<String> {
        let all: Vec<String> = self
            .places
            .iter()
            .filter(|place| when(&place.key))
            .map(|place| format!("the value of {} {} in {}", place.key, place.form, place.path))
            .collect();
        let unkept: u64 = self.more.iter().filter(|(key, _)| when(key)).map(|(_, more)| more).sum();
        let more = all.len().saturating_sub(PLACES_SAID) as u64 + unkept;
        let more = if more > 0 { format!(", and in {more} more places") } else { String::new() };
        let said = all.iter().take(PLACES_SAID).cloned().collect::<Vec<_>>().join(", ");
        (!all.is_empty()).then(|| format!("{said}{more}"))
    }
}

struct Search {
    taint: Taint,
    buffer: Vec<u8>,
    places: Vec<FoundAt>,
    more: BTreeMap<ConfigKey, u64>,
}

impl Search {
    /// Looks at every regular file below a directory, in the order of the names.
    fn dir(&mut self, dir: &Path, shown: &str) -> Result<(), FileError> {
        if self.taint.is_empty() {
            return Ok(());
        }
        let entries = fs::read_dir(dir).at("list", dir)?;
        let mut entries = entries.collect::<Result<Vec<_>, _>>().at("list", dir)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let shown = format!("{shown}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().at("look at", &path)?;
            if kind.is_dir() {
                self.dir(&path, &shown)?;
            } else if kind.is_file() {
                self.file(&path, &shown)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, shown: &str) -> Result<(), FileError> {
        let mut file = File::open(path).at("open", path)?;
        let mut stream: Stream<'_> = self.taint.stream();
        loop {
            let read = file.read(&mut self.buffer).at("read", path)?;
            if read == 0 {
                break;
            }
            stream.feed(&self.buffer[..read]);
        }
        let found = stream.found();
        self.note(shown, found);
        Ok(())
    }

    fn note(&mut self, path: &str, found: impl IntoIterator<Item = Found>) {
        for Found { key, form } in found {
            if self.places.iter().filter(|place| place.key == key).count() < PLACES_MAX {
                self.places.push(FoundAt { key, form, path: path.to_owned() });
            } else {
                *self.more.entry(key).or_default() += 1;
            }
        }
    }
}

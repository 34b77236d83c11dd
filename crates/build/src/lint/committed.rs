//! Committed: the values of environments that stand in the repository, searched in the artefact.
//!
//! Whoever builds can read these anyway. Nothing else is asked for: secrets of an environment are searched where they
//! are, at its target, and never given to a builder.

use std::collections::{BTreeMap, BTreeSet};

use semel_model::config::{self, Contract, InvalidValues};
use semel_model::name::ConfigKey;
use semel_model::taint::{Form, Stream, Taint, TooMany};

use super::finding::{Finding, Severity, is_example};
use crate::git::GitError;
use crate::source::Source;

/// One values file of the commit.
#[derive(Clone, PartialEq, Eq)]
pub struct ValuesFile {
    path: String,
    values: BTreeMap<ConfigKey, String>,
}

impl std::fmt::Debug for ValuesFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValuesFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why the values of a commit cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum CommittedError {
    /// The repository gives no answer.
    #[error("cannot read the values file {path} of the commit")]
    Git {
        /// As the project file names it.
        path: String,
        /// Why.
        #[source]
        source: GitError,
    },
    /// A values file cannot be understood.
    #[error("the values file {path} of the commit cannot be read")]
    Values {
        /// As the project file names it.
        path: String,
        /// Why.
        #[source]
        source: InvalidValues,
    },
    /// There are too many values.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// The values files that the commit holds. One that git does not track is no part of it and is not looked for.
pub fn values_files(source: &Source) -> Result<Vec<ValuesFile>, CommittedError> {
    let paths: BTreeSet<&str> = source.project.values_files().into_iter().collect();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let first = paths.first().map(|path| (*path).to_owned()).unwrap_or_default();
    let mut objects = source.git().objects().map_err(|source| CommittedError::Git { path: first, source })?;
    let mut files = Vec::new();
    for path in paths {
        let name = format!("{}:{}{path}", source.commit, source.prefix);
        let unread = |source| CommittedError::Git { path: path.to_owned(), source };
        let Some((_, bytes)) = objects.whole(&name).map_err(unread)? else { continue };
        let values = config::parse_values(&String::from_utf8_lossy(&bytes))
            .map_err(|source| CommittedError::Values { path: path.to_owned(), source })?;
        files.push(ValuesFile { path: path.to_owned(), values });
    }
    Ok(files)
}

/// The values, ready to be searched.
#[derive(Debug)]
pub(super) struct Committed {
    taint: Taint,
    /// The files that give each key a value, and how grave it is that one is found.
    keys: BTreeMap<ConfigKey, (BTreeSet<String>, Severity)>,
}

impl Committed {
    /// What the contract says itself, a number, a switch or a word of a list is inside by right.
    pub(super) fn new(files: &[ValuesFile], contract: &Contract) -> Result<Self, TooMany> {
        let mut keys: BTreeMap<ConfigKey, (BTreeSet<String>, Severity)> = BTreeMap::new();
        let mut sought = Vec::new();
        for (file, key, value) in
            files.iter().flat_map(|file| file.values.iter().map(move |(key, value)| (file, key, value)))
        {
            let rule = contract.0.get(key);
            let by_right =
                rule.and_then(|rule| rule.default.as_ref()).is_some_and(|d| d.to_string() == *value);
            if by_right || rule.is_some_and(|rule| !rule.secret && !rule.is_telling(value)) {
                continue;
            }
            // An address of one environment is in no artefact by chance.
            let severity = if value.contains("://") { Severity::Error } else { Severity::Warning };
            let known = keys.entry(key.clone()).or_insert_with(|| (BTreeSet::new(), severity));
            known.0.insert(file.path.clone());
            known.1 = known.1.min(severity);
            sought.push((key, value.as_str()));
        }
        Ok(Self { taint: Taint::new(sought)?, keys })
    }

    /// Begins to search a file.
    pub(super) fn stream(&self) -> Stream<'_> {
        self.taint.stream()
    }

    /// What a search of a file came to.
    pub(super) fn findings(&self, path: &str, stream: Stream<'_>) -> Vec<Finding> {
        let found = stream.found().into_iter();
        found.filter_map(|found| self.finding(path, &found.key, found.form)).collect()
    }

    fn finding(&self, path: &str, key: &ConfigKey, form: Form) -> Option<Finding> {
        let (files, severity) = self.keys.get(key)?;
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        Some(Finding {
            severity: if is_example(path) { Severity::Warning } else { *severity },
            rule: "taint/value".to_owned(),
            path: path.to_owned(),
            place: None,
            layer: None,
            what: format!("the value that {} gives `{key}`, {form}", files.join(" or ")),
            fix: format!(
                "read `{key}` when the program starts: the same bytes must run in every environment"
            ),
        })
    }
}

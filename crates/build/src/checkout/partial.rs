//! Partial clones: contents that were left out when cloning are fetched at once, where git would ask for them one by one.

use std::collections::BTreeMap;

use super::CheckoutError;
use super::names::shown;
use super::tree::Repository;
use crate::git::GitError;

/// Fetches the contents that a repository lacks and could have from the remote that promised them. A repository that
/// lacks some and has no such remote is left to whoever reads them.
pub(super) fn complete(repository: &Repository) -> Result<(), CheckoutError> {
    let Some(remote) = promisor(repository)? else { return Ok(()) };
    let missing = missing(repository)?;
    let Some(first) = missing.values().next() else { return Ok(()) };
    let words = [
        "-c",
        "fetch.negotiationAlgorithm=noop",
        "fetch",
        &remote,
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--recurse-submodules=no",
        "--filter=blob:none",
        "--stdin",
    ];
    let input = missing.keys().flat_map(|object| format!("{object}\n").into_bytes()).collect();
    let fetched = repository.git.feed(&words, input);
    fetched.map(drop).map_err(|source| CheckoutError::Promised {
        path: shown(first),
        more: missing.len() - 1,
        remote: remote.clone(),
        source,
    })
}

/// The first remote that promised what was left out (`remote.<name>.promisor` in `git-config(1)`).
fn promisor(repository: &Repository) -> Result<Option<String>, GitError> {
    let words = ["config", "-z", "--type=bool", "--get-regexp", r"^remote\..*\.promisor$"];
    let answer = repository.git.start(&words)?.answer()?;
    let text = String::from_utf8_lossy(&answer.bytes);
    let remotes = text.split('\0').filter_map(|record| record.strip_suffix("\ntrue"));
    Ok(remotes
        .filter_map(|key| key.strip_prefix("remote.")?.strip_suffix(".promisor"))
        .map(str::to_owned)
        .next())
}

/// The objects of the tree that are not here, each with the path of a file that needs it.
fn missing(repository: &Repository) -> Result<BTreeMap<String, Vec<u8>>, GitError> {
    let words = ["rev-list", "--objects", "--no-walk", "--missing=print", &repository.commit];
    let listed = repository.git.run(&words)?;
    let wanted: BTreeMap<&str, &[u8]> =
        repository.files.iter().map(|entry| (entry.object.as_str(), entry.path.as_slice())).collect();
    let text = String::from_utf8_lossy(&listed);
    // `?OBJECT` for what is not here.
    let absent = text.lines().filter_map(|line| line.strip_prefix('?'));
    Ok(absent
        .filter_map(|object| wanted.get(object).map(|path| (object.to_owned(), path.to_vec())))
        .collect())
}

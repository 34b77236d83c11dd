//! Which files a source tree has when its submodules are opened, and which repository has their content.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use semel_model::build::TreeEntry;

use super::CheckoutError;
use super::names::{self, shown};
use crate::git::{Git, GitError};
use crate::source::{self, Source};

/// A repository that files of the tree come from: the project's, or a submodule's.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) git: Git,
    /// The commit whose files are laid out.
    pub(super) commit: String,
    /// Where its root is in the source tree, empty or ending in `/`.
    pub(super) at: Vec<u8>,
    /// What lies above the source tree: the project's directory in the repository, empty or ending in `/`.
    pub(super) prefix: Vec<u8>,
    /// Its own directory, and the one that it shares with the repository that it is a worktree of.
    pub(super) git_dir: PathBuf,
    pub(super) common_dir: PathBuf,
    /// Where it is checked out.
    top: Option<PathBuf>,
    pub(super) files: Vec<TreeEntry>,
}

impl Repository {
    fn open(
        git: Git,
        commit: &str,
        at: Vec<u8>,
        prefix: Vec<u8>,
        top: Option<PathBuf>,
    ) -> Result<Self, GitError> {
        let answer = git.run(&["rev-parse", "--absolute-git-dir", "--git-common-dir"])?;
        let mut lines = answer.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
        let git_dir = PathBuf::from(lines.next().unwrap_or_default());
        // It may be said relative to where git was started.
        let common_dir = git.dir().join(lines.next().unwrap_or_default());
        Ok(Self { git, commit: commit.to_owned(), at, prefix, git_dir, common_dir, top, files: Vec::new() })
    }

    /// A path of the source tree as this repository calls it.
    pub(super) fn own_path(&self, path: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), path.strip_prefix(self.at.as_slice()).unwrap_or(path)].concat()
    }
}

/// Lists the files, submodules within submodules included. The first repository is the project's.
pub(super) fn expand(source: &Source) -> Result<(Vec<Repository>, Vec<Vec<u8>>), CheckoutError> {
    let prefix = source.prefix.as_bytes().to_vec();
    let top = Some(source.repository.clone());
    let mut root = Repository::open(source.git(), source.commit.as_str(), Vec::new(), prefix, top)?;
    root.files = source.entries.clone();
    let (mut done, mut open, mut directories) = (Vec::new(), vec![root], Vec::new());
    while let Some(mut repository) = open.pop() {
        let (links, files): (Vec<_>, Vec<_>) =
            std::mem::take(&mut repository.files).into_iter().partition(TreeEntry::is_submodule);
        repository.files = files;
        let names = if links.is_empty() { BTreeMap::new() } else { submodule_names(&repository)? };
        for link in links {
            names::check(&link.path)?;
            let name = names.get(&repository.own_path(&link.path)).map(PathBuf::as_path);
            open.push(submodule(source, &repository, &link, name)?);
            directories.push(link.path);
        }
        done.push(repository);
    }
    Ok((done, directories))
}

/// Finds the repository of a submodule and lists its files.
fn submodule(
    source: &Source,
    parent: &Repository,
    link: &TreeEntry,
    name: Option<&Path>,
) -> Result<Repository, CheckoutError> {
    let missing = || CheckoutError::Submodule { path: shown(&link.path), commit: link.object.clone() };
    let (git, top) = find(parent, link, name).ok_or_else(missing)?;
    let at = [link.path.as_slice(), b"/"].concat();
    let mut found = Repository::open(git, &link.object, at, Vec::new(), top)?;
    for mut entry in source::list(&found.git, &link.object)? {
        entry.path = [found.at.as_slice(), &entry.path].concat();
        if source::is_chosen(&source.project, &entry) {
            found.files.push(entry);
        }
    }
    Ok(found)
}

/// Where the commit of a submodule can be: in the repository that git keeps for it, in the one of its working tree, or
/// among the objects of the repository around it and what that borrows from.
fn find(parent: &Repository, link: &TreeEntry, name: Option<&Path>) -> Option<(Git, Option<PathBuf>)> {
    let own_path = parent.own_path(&link.path);
    let top = parent.top.as_ref().map(|top| top.join(OsStr::from_bytes(&own_path)));
    let kept = name
        .into_iter()
        .flat_map(|name| [&parent.git_dir, &parent.common_dir].map(|dir| dir.join("modules").join(name)));
    let mut places: Vec<Git> = kept.filter(|dir| dir.is_dir()).map(|dir| Git::of(&dir)).collect();
    // Without a `.git` of its own, git would find the repository around it.
    places.extend(top.as_ref().filter(|top| top.join(".git").exists()).map(|top| Git::at(top)));
    places.push(Git::of(&parent.git_dir));
    let git = places.into_iter().find(|git| git.has_commit(&link.object))?;
    Some((git, top))
}

/// `.gitmodules` of the commit: the names of submodules by their paths in the repository. A name is a path below
/// `modules` in the repository's directory, so one that leads elsewhere is no name.
fn submodule_names(repository: &Repository) -> Result<BTreeMap<Vec<u8>, PathBuf>, GitError> {
    let blob = format!("--blob={}:.gitmodules", repository.commit);
    // No such file, or nothing in it: the other places remain.
    let answer =
        repository.git.start(&["config", "-z", &blob, "--get-regexp", r"^submodule\..*\.path$"])?.answer()?;
    let records = answer.bytes.split(|byte| *byte == 0).filter_map(|record| {
        let end = record.iter().position(|byte| *byte == b'\n')?;
        let name = record[..end].strip_prefix(b"submodule.")?.strip_suffix(b".path")?;
        let name = PathBuf::from(OsStr::from_bytes(name));
        let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
        (inside && !name.as_os_str().is_empty()).then(|| (record[end + 1..].to_vec(), name))
    });
    Ok(records.collect())
}

//! Source: which commit is built, which of its files count, and what it is called.
//!
//! Only the commit is read, never the working directory: the project file is the commit's, the files are the commit's,
//! and uncommitted changes are listed for a notice and otherwise ignored. Nothing is written.

mod history;
mod line;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use semel_model::build::{BuildInputs, Line, TreeEntry, source_tree_digest};
use semel_model::digest::Digest;
use semel_model::name::CommitId;
use semel_model::project::{FILE_NAME, InvalidProject, Project};

use crate::git::{Git, GitError, Objects, Running};

pub use history::{Depth, deepen, history};
pub use line::{NO_BRANCH, Provider};
use line::{Refs, Runner};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Resolve<'a> {
    /// Where to start looking; the repository and the project lie here or above.
    pub start_dir: &'a Path,
    /// Any revision that git understands; `None`: `HEAD`.
    pub revision: Option<&'a str>,
    /// The branch that it is built for, where the caller knows better than git and the runner.
    pub branch: Option<&'a str>,
    /// The environment variables of the caller: a CI runner says there which branch it builds.
    pub variables: &'a BTreeMap<String, String>,
}

/// A commit of a project, read.
#[derive(Debug, Clone)]
pub struct Source {
    /// The top of the working tree (of a bare repository: the repository itself).
    pub repository: PathBuf,
    /// The project's directory in the repository, empty or ending in `/`.
    pub prefix: String,
    /// The commit.
    pub commit: CommitId,
    /// Its git tree.
    pub git_tree: String,
    /// When it was committed, in seconds since 1970 UTC.
    pub committed_seconds: i64,
    /// Its project file.
    pub project: Project,
    /// The files of the source tree, with paths relative to the project's directory, in the order of the path bytes.
    pub entries: Vec<TreeEntry>,
    /// What the build key is made of; its `source` is the digest of the source tree.
    pub inputs: BuildInputs,
    /// The line of development.
    pub line: Line,
    /// For a merge commit that a forge made to try a request out: the commit that was requested to be merged.
    pub head: Option<CommitId>,
    /// The files of the working tree that differ from the current commit, relative to the project's directory and none
    /// outside it. A directory of which nothing is committed is named itself, with a slash at its end.
    pub uncommitted: Vec<String>,
    /// Where the repository comes from, as an `https` URL where one can be told, without credentials.
    pub remote: Option<String>,
    /// Whether the clone is shallow.
    pub shallow: bool,
    /// The CI runner that this is, as far as its variables tell.
    pub provider: Option<Provider>,
}

impl Source {
    /// The project's directory in the working tree.
    pub(crate) fn project_dir(&self) -> PathBuf {
        self.repository.join(&self.prefix)
    }

    /// The build key.
    pub fn key(&self) -> Digest {
        self.inputs.key()
    }

    /// The digest of the source tree.
    pub fn source_tree(&self) -> &Digest {
        &self.inputs.source
    }

    pub(crate) fn git(&self) -> Git {
        Git::at(&self.repository)
    }

    /// The history behind the commit is not here, and does not come.
    pub(crate) fn too_shallow(&self, cause: GitError) -> SourceError {
        SourceError::ShallowClone { commit: self.commit.clone(), provider: self.provider, cause }
    }
}

/// Why there is nothing to build.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No repository at or above the directory.
    #[error("{} is not in a git repository", .dir.display())]
    NotARepository {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A repository without commits.
    #[error("the repository {} has no commit yet", .repository.display())]
    NoCommit {
        /// The repository.
        repository: PathBuf,
    },
    /// The revision names no commit.
    #[error("`{revision}` is no commit of the repository {}", .repository.display())]
    UnknownRevision {
        /// As it was asked for.
        revision: String,
        /// The repository.
        repository: PathBuf,
        /// Whether the clone is shallow, so that the commit may exist elsewhere.
        shallow: bool,
    },
    /// The commit has no project file, at or above the directory.
    #[error("commit {commit} has no {FILE_NAME}")]
    NoProjectFile {
        /// The commit.
        commit: CommitId,
        /// The file of the working tree that is not committed, if there is one.
        uncommitted: Option<PathBuf>,
    },
    /// The project file was not accepted.
    #[error("cannot use the project file of commit {commit}")]
    Project {
        /// The commit.
        commit: CommitId,
        /// Line, column and problem.
        #[source]
        source: InvalidProject,
    },
    /// `[source] include` names something that the commit does not have.
    #[error("`include` names `{pattern}`, and commit {commit} has no such file or directory")]
    EmptyInclude {
        /// The commit.
        commit: CommitId,
        /// As it was written.
        pattern: String,
    },
    /// No file is left.
    #[error("the source tree of commit {commit} is empty")]
    Empty {
        /// The commit.
        commit: CommitId,
    },
    /// The history is needed and was cut off when cloning.
    #[error(
        "the clone is shallow: the history behind commit {commit} is missing, and the version follows from it"
    )]
    ShallowClone {
        /// The commit.
        commit: CommitId,
        /// Where the clone was made, for the hint.
        provider: Option<Provider>,
        /// Why it could not be fetched.
        #[source]
        cause: GitError,
    },
    /// Git did not answer.
    #[error(transparent)]
    Git(#[from] GitError),
}

impl SourceError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotARepository { .. } => "git init && git add . && git commit".to_owned(),
            Self::NoCommit { .. } => "git add . && git commit".to_owned(),
            Self::UnknownRevision { shallow: true, .. } => "git fetch --unshallow".to_owned(),
            Self::UnknownRevision { .. } => "git log --oneline --all".to_owned(),
            Self::NoProjectFile { uncommitted: Some(file), .. } => {
                format!("git add {} && git commit", file.display())
            }
            Self::NoProjectFile { uncommitted: None, .. } => "semel init".to_owned(),
            Self::Project { .. } => format!("correct {FILE_NAME} and commit it"),
            Self::EmptyInclude { .. } => {
                "write files and directories relative to the project; patterns are not known".to_owned()
            }
            Self::Empty { .. } => "commit the files, or look at [source] include and exclude".to_owned(),
            Self::ShallowClone { provider, .. } => Provider::unshallow(*provider).to_owned(),
            Self::Git(_) => return None,
        })
    }
}

/// Resolves a revision to the commit, its source tree and its build key.
///
/// All that git has to say is asked at once where that is possible: what an unchanged build costs is paid here.
pub fn resolve(request: &Resolve<'_>) -> Result<Source, SourceError> {
    let git = Git::at(request.start_dir);
    let place = git.start(&PLACE)?;
    let refs = git.start(&line::REFS)?;
    let remotes = git.start(&["config", "-z", "--get-regexp", r"^remote\..*\.url$"])?;
    let status = git.start(&STATUS)?;
    let mut objects = git.objects()?;

    let place = read_place(place, request.start_dir)?;
    let commit = read_commit(&mut objects, request.revision, &place)?;
    let (prefix, text) = find_project_file(&mut objects, &commit, &place)?;
    let tree = format!("{}:{}", commit.id, prefix.trim_end_matches('/'));
    let listing = start_list(&Git::at(&place.repository), &tree)?;
    let file = format!("{prefix}{FILE_NAME}");
    let project = Project::parse(&file, &text)
        .map_err(|source| SourceError::Project { commit: commit.id.clone(), source })?;
    let entries = select(read_listing(listing)?, &project, &commit.id)?;

    let remotes = read_remotes(remotes)?;
    let runner = Runner::of(request.variables);
    let refs = Refs::read(refs, !remotes.is_empty(), &project.version.release)?;
    let line = line::line_of(&git, request, &runner, &refs, &commit.id, place.head.as_deref())?;
    let inputs = BuildInputs {
        v: 1,
        component: project.component.clone(),
        format: project.definition.format,
        source: source_tree_digest(entries.clone()),
        definition: project.definition.digest(),
        bases: project.definition.base_digest().into_iter().collect(),
        // How often the same source was built before on purpose: the store knows.
        salt: 0,
    };
    let head = runner.requested(request, &commit.parents);
    Ok(Source {
        uncommitted: read_changes(status, &prefix)?,
        remote: line::public_remote(&remotes),
        repository: place.repository,
        prefix,
        commit: commit.id,
        git_tree: commit.tree,
        committed_seconds: commit.seconds,
        project,
        entries,
        inputs,
        line,
        head,
        shallow: place.shallow,
        provider: runner.provider,
    })
}

const PLACE: [&str; 8] = [
    "rev-parse",
    "--is-shallow-repository",
    "--absolute-git-dir",
    "--show-prefix",
    "--is-inside-work-tree",
    "--show-toplevel",
    "--symbolic-full-name",
    "HEAD",
];

const STATUS: [&str; 5] = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal"];

/// Where the caller stands.
struct Place {
    repository: PathBuf,
    prefix: String,
    shallow: bool,
    /// `refs/heads/main`, or `HEAD` when it is detached.
    head: Option<String>,
}

/// Reads as many lines as there are: without a commit, or in a bare repository, git stops in the middle.
fn read_place(running: Running, dir: &Path) -> Result<Place, SourceError> {
    let answer = running.answer()?;
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    let mut lines = text.lines();
    let (Some(shallow), Some(git_dir)) = (lines.next(), lines.next()) else {
        return Err(match answer.failure {
            Some(error @ GitError::Failed { .. }) if !error.to_string().contains("not a git repository") => {
                error.into()
            }
            _ => SourceError::NotARepository { dir: dir.to_owned() },
        });
    };
    let prefix = lines.next().unwrap_or_default().to_owned();
    let top = match lines.next() {
        Some("true") => lines.next(),
        _ => None,
    };
    let complete = answer.failure.is_none();
    Ok(Place {
        repository: PathBuf::from(top.unwrap_or(git_dir)),
        prefix,
        shallow: shallow == "true",
        head: lines.next().filter(|_| complete).map(str::to_owned),
    })
}

struct Commit {
    id: CommitId,
    parents: Vec<CommitId>,
    tree: String,
    seconds: i64,
}

fn read_commit(objects: &mut Objects, revision: Option<&str>, place: &Place) -> Result<Commit, SourceError> {
    let name = revision.unwrap_or("HEAD");
    let found = match name {
        "" => None,
        name => objects.whole(&format!("{name}^{{commit}}"))?,
    };
    let Some((object, bytes)) = found else {
        return Err(match revision {
            None => SourceError::NoCommit { repository: place.repository.clone() },
            Some(revision) => SourceError::UnknownRevision {
                revision: revision.to_owned(),
                repository: place.repository.clone(),
                shallow: place.shallow,
            },
        });
    };
    let text = String::from_utf8_lossy(&bytes);
    let header =
        |key: &str| text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(key));
    // `committer NAME <ADDRESS> SECONDS ZONE`
    let seconds =
        header("committer ").and_then(|line| line.rsplit(' ').nth(1)).and_then(|word| word.parse().ok());
    let malformed = || GitError::Malformed {
        command: "git cat-file --batch".to_owned(),
        what: format!("commit {}", object.id),
    };
    Ok(Commit {
        id: object.id.parse().map_err(|_| malformed())?,
        parents: parents_of(&text),
        tree: header("tree ").ok_or_else(malformed)?.to_owned(),
        seconds: seconds.ok_or_else(malformed)?,
    })
}

/// The parents that a commit object names.
fn parents_of(text: &str) -> Vec<CommitId> {
    let head = text.lines().take_while(|line| !line.is_empty());
    head.filter_map(|line| line.strip_prefix("parent ")?.parse().ok()).collect()
}

/// The nearest directory at or above the caller's that has a project file in the commit.
fn find_project_file(
    objects: &mut Objects,
    commit: &Commit,
    place: &Place,
) -> Result<(String, String), SourceError> {
    let mut prefix = place.prefix.as_str();
    loop {
        if let Some((object, bytes)) = objects.whole(&format!("{}:{prefix}{FILE_NAME}", commit.id))?
            && object.kind == "blob"
        {
            return Ok((prefix.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
        }
        if prefix.is_empty() {
            break;
        }
        let parent = prefix.trim_end_matches('/').rfind('/').map_or(0, |slash| slash + 1);
        prefix = &prefix[..parent];
    }
    let start = place.repository.join(&place.prefix);
    let candidates = start.ancestors().take_while(|dir| dir.starts_with(&place.repository));
    let uncommitted = candidates.map(|dir| dir.join(FILE_NAME)).find(|file| file.is_file());
    Err(SourceError::NoProjectFile { commit: commit.id.clone(), uncommitted })
}

/// Lists the files of a tree; submodules are entries like files.
pub(crate) fn list(git: &Git, tree: &str) -> Result<Vec<TreeEntry>, GitError> {
    read_listing(start_list(git, tree)?)
}

fn start_list(git: &Git, tree: &str) -> Result<Running, GitError> {
    git.start(&["ls-tree", "-r", "-z", "--full-tree", tree])
}

/// `MODE TYPE OBJECT<TAB>PATH<NUL>` for each file, `git-ls-tree(1)`, "Output format".
fn read_listing(running: Running) -> Result<Vec<TreeEntry>, GitError> {
    let bytes = running.finish()?;
    let malformed =
        || GitError::Malformed { command: "git ls-tree".to_owned(), what: "an entry of the tree".to_owned() };
    bytes
        .split(|byte| *byte == 0)
        .filter(|record| !record.is_empty())
        .map(|record| {
            let tab = record.iter().position(|byte| *byte == b'\t').ok_or_else(malformed)?;
            let head = std::str::from_utf8(&record[..tab]).map_err(|_| malformed())?;
            let mut words = head.split(' ');
            let (Some(mode), Some(_), Some(object)) = (words.next(), words.next(), words.next()) else {
                return Err(malformed());
            };
            Ok(TreeEntry {
                path: record[tab + 1..].to_vec(),
                mode: mode.to_owned(),
                object: object.to_owned(),
            })
        })
        .collect()
}

/// The source tree of a listing. A submodule is in it as the commit that it is at.
fn select(all: Vec<TreeEntry>, project: &Project, commit: &CommitId) -> Result<Vec<TreeEntry>, SourceError> {
    let names_something =
        |one: &String| all.iter().any(|entry| covers(one, &entry.path) || is_inside(one, entry));
    if let Some(pattern) = project.definition.source.include.iter().find(|one| !names_something(one)) {
        return Err(SourceError::EmptyInclude { commit: commit.clone(), pattern: pattern.clone() });
    }
    let mut chosen: Vec<TreeEntry> = all.into_iter().filter(|entry| is_chosen(project, entry)).collect();
    chosen.sort();
    if chosen.is_empty() && project.definition.artefact.base.is_none() {
        return Err(SourceError::Empty { commit: commit.clone() });
    }
    Ok(chosen)
}

/// Whether an entry belongs to the source tree: what `[source]` names, less the project file (what counts of it is in the
/// definition) and less the values files (they belong to environments).
pub(crate) fn is_chosen(project: &Project, entry: &TreeEntry) -> bool {
    let spec = &project.definition.source;
    let includes = |one: &String| covers(one, &entry.path) || is_inside(one, entry);
    entry.path != FILE_NAME.as_bytes()
        && !project.values_files().iter().any(|file| plain(file) == entry.path)
        && (spec.include.is_empty() || spec.include.iter().any(includes))
        && !spec.exclude.iter().any(|one| covers(one, &entry.path))
}

/// Whether a file or directory of `[source]` lies inside this submodule.
fn is_inside(named: &str, entry: &TreeEntry) -> bool {
    let rest = plain(named).strip_prefix(entry.path.as_slice());
    entry.is_submodule() && rest.is_some_and(|rest| rest.starts_with(b"/"))
}

/// Whether a file or directory of `[source]` is or contains this file.
fn covers(named: &str, path: &[u8]) -> bool {
    let named = plain(named);
    named.is_empty() || path.strip_prefix(named).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// `./config/` → `config`, `.` → the empty path.
fn plain(path: &str) -> &[u8] {
    let mut path = path.trim_end_matches('/');
    while let Some(rest) = path.strip_prefix("./") {
        path = rest.trim_start_matches('/');
    }
    if path == "." { b"" } else { path.as_bytes() }
}

/// `KEY<NEWLINE>VALUE<NUL>` for each remote.
fn read_remotes(running: Running) -> Result<Vec<(String, String)>, GitError> {
    // Exit code 1 says that there is none.
    let bytes = running.answer()?.bytes;
    let text = String::from_utf8_lossy(&bytes);
    let pairs = text.split('\0').filter_map(|record| record.split_once('\n'));
    Ok(pairs.map(|(key, url)| (key.to_owned(), url.to_owned())).collect())
}

/// A remote's address as other people would write it, without credentials.
pub(crate) fn public_remote_of(url: &str) -> Option<String> {
    line::public_remote(&[(String::new(), url.to_owned())])
}

/// `XY PATH<NUL>` for each file. A bare repository has no answer, and no changes.
fn read_changes(running: Running, prefix: &str) -> Result<Vec<String>, GitError> {
    let bytes = running.answer()?.bytes;
    let below = |record: &[u8]| {
        let path = record.get(3..)?.strip_prefix(prefix.as_bytes())?;
        Some(String::from_utf8_lossy(path).into_owned())
    };
    Ok(bytes.split(|byte| *byte == 0).filter_map(below).collect())
}

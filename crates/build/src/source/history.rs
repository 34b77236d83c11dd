//! The history behind a commit: what the version rule needs to know of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use semel_model::build::{CommitFact, History, ReleaseLine, bump_of};
use semel_model::name::CommitId;
use semel_model::project::FILE_NAME;
use semel_model::version::Version;

use super::line::branch_of;
use super::{Source, SourceError};
use crate::git::{Git, GitError, Objects, Running};

/// How much of the history is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The commit and its newest ancestors.
    Near,
    /// Everything that the clone has, of all branches.
    Whole,
}

/// How many commits are read where the newest will do.
const NEAR: usize = 500;
/// How many are read at most: what is asked over the network stays below the server's limit.
const MOST: usize = 20_000;
/// How long completing a clone may take.
const DEEPENING: Duration = Duration::from_secs(120);

/// Reads a commit and its ancestors, newest first, with the final versions that tags give them, the version in the
/// project's own manifest, and the release lines that there are.
///
/// A shallow clone gives what it has. Whether that is enough is for who knows the versions that were given before.
pub fn history(source: &Source, depth: Depth) -> Result<History, SourceError> {
    let limit = match depth {
        Depth::Near => NEAR,
        Depth::Whole => MOST,
    };
    let git = source.git();
    let count = format!("--max-count={}", limit + 1);
    let mut words =
        vec!["log", "-z", "--format=%H%n%P%n%ae%n%B", "--encoding=UTF-8", &count, source.commit.as_str()];
    if depth == Depth::Whole {
        words.extend(["--branches", "--remotes"]);
    }
    let log = git.start(&words)?;
    let merged = format!("--merged={}", source.commit);
    let tags = git.start(&["for-each-ref", TAG_FORMAT, &merged, "refs/tags"])?;
    let branches = git.start(&["for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes"])?;
    let mut objects = git.objects()?;
    let manifest = manifest_version(&mut objects, source)?;
    let mut commits = read_log(log)?;
    let more = commits.len() > limit;
    commits.truncate(limit);
    if source.shallow {
        restore_parents(&mut objects, &mut commits, source)?;
    }
    mark_outside(&git, &mut commits, source)?;
    let own_prefix = source.project.version.tag_prefix.as_deref();
    Ok(History {
        commits,
        tags: read_tags(tags, own_prefix, source.project.component.as_str())?,
        manifest,
        truncated: source.shallow || more,
        shallow: source.shallow,
        tips: depth == Depth::Whole && !source.shallow,
        releases: read_releases(branches, &source.project.version.release)?,
    })
}

/// Fetches the history that a shallow clone has left out; its files are not fetched. A clone that has it stays as it is.
///
/// # Errors
/// [`SourceError::ShallowClone`], with how the clone is made whole where it was made.
pub fn deepen(source: &mut Source) -> Result<(), SourceError> {
    if !source.shallow {
        return Ok(());
    }
    let fetch = ["fetch", "--quiet", "--unshallow", "--filter=blob:none"];
    source.git().run_within(&fetch, DEEPENING).map_err(|cause| source.too_shallow(cause))?;
    source.shallow = false;
    Ok(())
}

fn read_log(running: Running) -> Result<Vec<CommitFact>, GitError> {
    let bytes = running.finish()?;
    let text = String::from_utf8_lossy(&bytes);
    let malformed = || GitError::Malformed { command: "git log".to_owned(), what: "a commit".to_owned() };
    let records =
        text.split('\0').map(|record| record.trim_start_matches('\n')).filter(|record| !record.is_empty());
    records
        .map(|record| {
            let mut parts = record.splitn(4, '\n');
            let id = parts.next().unwrap_or_default().parse().map_err(|_| malformed())?;
            let parents = parts.next().unwrap_or_default().split_whitespace();
            let parents: Result<_, _> = parents.map(str::parse).collect();
            let author = parts.next().unwrap_or_default().to_owned();
            let message = parts.next().unwrap_or_default();
            Ok(CommitFact {
                id,
                parents: parents.map_err(|_| malformed())?,
                author,
                subject: message.lines().next().unwrap_or_default().to_owned(),
                bump: bump_of(message),
                outside: false,
            })
        })
        .collect()
}

/// Where a shallow clone ends, git shows commits without parents; the commits themselves name them.
///
/// What such a commit changes cannot be seen there, so where that counts it is left out: then it must be asked for.
fn restore_parents(
    objects: &mut Objects,
    commits: &mut Vec<CommitFact>,
    source: &Source,
) -> Result<(), GitError> {
    let mut cut = HashSet::new();
    for fact in commits.iter_mut().filter(|fact| fact.parents.is_empty()) {
        let Some((_, bytes)) = objects.whole(fact.id.as_str())? else { continue };
        fact.parents = super::parents_of(&String::from_utf8_lossy(&bytes));
        if !fact.parents.is_empty() {
            cut.insert(fact.id.clone());
        }
    }
    if !paths_of(source).is_empty() {
        commits.retain(|fact| !cut.contains(&fact.id));
    }
    Ok(())
}

/// Marks the commits that change no file of the project. A merge changes what it brings to its first parent.
fn mark_outside(git: &Git, commits: &mut [CommitFact], source: &Source) -> Result<(), GitError> {
    let paths = paths_of(source);
    if paths.is_empty() {
        return Ok(());
    }
    const CHANGED: [&str; 7] = [
        "diff-tree",
        "--stdin",
        "--root",
        "-r",
        "--diff-merges=first-parent",
        "--name-only",
        "--format=commit %H",
    ];
    let words: Vec<&str> =
        CHANGED.into_iter().chain(["--"]).chain(paths.iter().map(String::as_str)).collect();
    let asked: String = commits.iter().flat_map(|fact| [fact.id.as_str(), "\n"]).collect();
    let bytes = git.feed(&words, asked.into_bytes())?;
    let text = String::from_utf8_lossy(&bytes);
    let inside: HashSet<&str> = text.lines().filter_map(|line| line.strip_prefix("commit ")).collect();
    for fact in commits.iter_mut() {
        fact.outside = !inside.contains(fact.id.as_str());
    }
    Ok(())
}

/// What the project is made of, as git's path specifications; empty: the whole repository.
fn paths_of(source: &Source) -> Vec<String> {
    let (prefix, spec) = (&source.prefix, &source.project.definition.source);
    let values = source.project.values_files();
    if prefix.is_empty() && spec.include.is_empty() && spec.exclude.is_empty() && values.is_empty() {
        return Vec::new();
    }
    let plain = |path: &str| String::from_utf8_lossy(super::plain(path)).into_owned();
    let place = |magic: &str, path: &str| {
        format!(":({magic}){}", format!("{prefix}{}", plain(path)).trim_end_matches('/'))
    };
    let whole = [".".to_owned()];
    let included = if spec.include.is_empty() { &whole[..] } else { &spec.include };
    let included = included.iter().map(String::as_str).chain([FILE_NAME]);
    let left_out = spec.exclude.iter().map(String::as_str).chain(values);
    let included = included.map(|path| place("top,literal", path));
    included.chain(left_out.map(|path| place("top,exclude,literal", path))).collect()
}

const TAG_FORMAT: &str = "--format=%(refname:strip=2)%00%(objectname)%00%(*objectname)";

/// The highest final version that tags give to each commit. Where some are the component's own by name, others are not its.
fn read_tags(
    running: Running,
    own_prefix: Option<&str>,
    component: &str,
) -> Result<BTreeMap<CommitId, Version>, GitError> {
    let bytes = running.finish()?;
    let text = String::from_utf8_lossy(&bytes);
    let last = component.rsplit('/').next().unwrap_or(component);
    let (mut own, mut general) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let mut parts = line.split('\0');
        let name = parts.next().unwrap_or_default();
        let (tag, commit) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // An annotated tag is an object of its own; what it stands for comes after it.
        let commit = if commit.is_empty() { tag } else { commit };
        let (Some(named), Ok(commit)) = (TagName::read(name, own_prefix, last), commit.parse::<CommitId>())
        else {
            continue;
        };
        let tags = if named.is_own { &mut own } else { &mut general };
        let known = tags.entry(commit).or_insert_with(|| named.version.clone());
        if *known < named.version {
            *known = named.version;
        }
    }
    Ok(if own.is_empty() { general } else { own })
}

/// What a tag says.
#[derive(Debug, PartialEq, Eq)]
struct TagName {
    version: Version,
    /// Whether it names the component.
    is_own: bool,
}

impl TagName {
    /// `PREFIX1.4.2` where the project names a prefix; else `v1.4.2`, `1.4.2`, and `api-1.4.2`, `api@1.4.2`, `api/v1.4.2` for a
    /// component `…/api`.
    fn read(tag: &str, prefix: Option<&str>, last: &str) -> Option<Self> {
        let of_component = || tag.strip_prefix(last).and_then(|rest| rest.strip_prefix(['-', '@', '/']));
        let (rest, is_own) = match prefix {
            Some(prefix) => (tag.strip_prefix(prefix)?, true),
            None => of_component().map_or((tag, false), |rest| (rest, true)),
        };
        let version = rest.parse::<Version>().ok().filter(Version::is_final)?;
        Some(Self { version, is_own })
    }
}

fn read_releases(running: Running, pattern: &str) -> Result<Vec<ReleaseLine>, GitError> {
    let bytes = running.finish()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter_map(branch_of).filter_map(|name| ReleaseLine::of(name, pattern));
    let lines: BTreeSet<ReleaseLine> = lines.collect();
    Ok(lines.into_iter().collect())
}

/// The final version in the first manifest of the project that states one.
fn manifest_version(objects: &mut Objects, source: &Source) -> Result<Option<Version>, GitError> {
    for file in ["Cargo.toml", "package.json", "pyproject.toml"] {
        let Some((_, bytes)) = objects.whole(&format!("{}:{}{file}", source.commit, source.prefix))? else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let stated = match file {
            "Cargo.toml" => cargo_version(&text),
            "package.json" => npm_version(&text),
            _ => python_version(&text),
        };
        let stated = stated.and_then(|text| text.parse::<Version>().ok());
        // 0.0.0 is what a manifest says that says nothing.
        if let Some(version) = stated.filter(|v| v.is_final() && *v != Version::final_release(0, 0, 0)) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

fn cargo_version(text: &str) -> Option<String> {
    let manifest: toml::Table = text.parse().ok()?;
    let package = |table: &toml::Value| table.get("package")?.get("version")?.as_str().map(str::to_owned);
    let manifest = toml::Value::Table(manifest);
    package(&manifest).or_else(|| manifest.get("workspace").and_then(package))
}

fn npm_version(text: &str) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_str(text).ok()?;
    manifest.get("version")?.as_str().map(str::to_owned)
}

fn python_version(text: &str) -> Option<String> {
    let manifest = toml::Value::Table(text.parse().ok()?);
    let poetry = || manifest.get("tool")?.get("poetry")?.get("version");
    let version = manifest.get("project").and_then(|project| project.get("version")).or_else(poetry)?;
    version.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_give_final_versions_in_the_usual_spellings() {
        for (tag, prefix, read) in [
            ("v1.4.2", None, Some(("1.4.2", false))),
            ("1.4.2", None, Some(("1.4.2", false))),
            ("api-1.4.2", None, Some(("1.4.2", true))),
            ("api-v1.4.2", None, Some(("1.4.2", true))),
            ("api@1.4.2", None, Some(("1.4.2", true))),
            ("api/v1.4.2", None, Some(("1.4.2", true))),
            ("web-1.4.2", None, None),
            ("v1.4", None, None),
            ("v1.4.2-rc.1", None, None),
            ("latest", None, None),
            ("backend-v1.4.2", Some("backend-"), Some(("1.4.2", true))),
            ("v1.4.2", Some("backend-"), None),
            ("1.4.2", Some(""), Some(("1.4.2", true))),
        ] {
            let named =
                TagName::read(tag, prefix, "api").map(|named| (named.version.to_string(), named.is_own));
            assert_eq!(named, read.map(|(version, is_own)| (version.to_owned(), is_own)), "{tag}");
        }
    }

    #[test]
    fn manifests_state_versions_in_their_own_ways() {
        assert_eq!(cargo_version("[package]\nversion = \"1.2.3\"").as_deref(), Some("1.2.3"));
        let inherited = "[package]\nversion.workspace = true\n[workspace.package]\nversion = \"0.3.0\"";
        assert_eq!(cargo_version(inherited).as_deref(), Some("0.3.0"));
        assert_eq!(npm_version("{\"version\":\"2.0.0\"}").as_deref(), Some("2.0.0"));
        assert_eq!(python_version("[project]\nversion = \"3.1.4\"").as_deref(), Some("3.1.4"));
        assert_eq!(python_version("[tool.poetry]\nversion = \"3.1.4\"").as_deref(), Some("3.1.4"));
        assert_eq!(cargo_version("not toml ["), None);
    }
}

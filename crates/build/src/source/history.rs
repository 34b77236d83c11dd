//! The history behind a commit: what the version rule needs to know of it.

use std::collections::{BTreeMap, HashSet};

use semel_model::build::{CommitFact, History, bump_of};
use semel_model::name::CommitId;
use semel_model::version::Version;

use super::{Source, SourceError};
use crate::git::{GitError, Objects, Running};

/// Reads the commit and at most `limit - 1` of its ancestors, newest first, with the final versions that tags give them
/// and the version in the project's own manifest.
///
/// # Errors
/// [`SourceError::ShallowClone`] when the history was cut off by the clone, unless the commit itself is tagged with a
/// version: a version must not depend on how deep somebody cloned.
pub fn history(source: &Source, limit: usize) -> Result<History, SourceError> {
    let git = source.git();
    let count = format!("--max-count={}", limit.max(1).saturating_add(1));
    let log = git.start(&[
        "log",
        "-z",
        "--format=%H%n%P%n%ae%n%B",
        "--encoding=UTF-8",
        &count,
        source.commit.as_str(),
    ])?;
    let tags = git.start(&[
        "for-each-ref",
        "--format=%(refname:strip=2)%00%(objectname)%00%(*objectname)",
        "refs/tags",
    ])?;
    let manifest = manifest_version(&mut git.objects()?, source)?;
    let mut commits = read_log(log)?;
    let mut tags = read_tags(tags, source)?;
    if source.shallow && !tags.contains_key(&source.commit) {
        return Err(SourceError::ShallowClone { commit: source.commit.clone(), provider: source.provider });
    }
    let truncated = source.shallow || commits.len() > limit.max(1);
    commits.truncate(limit.max(1));
    let known: HashSet<&CommitId> = commits.iter().map(|fact| &fact.id).collect();
    tags.retain(|commit, _| known.contains(commit));
    Ok(History { commits, tags, manifest, truncated })
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
            })
        })
        .collect()
}

/// The highest final version that tags give to each commit.
fn read_tags(running: Running, source: &Source) -> Result<BTreeMap<CommitId, Version>, GitError> {
    let bytes = running.finish()?;
    let text = String::from_utf8_lossy(&bytes);
    let component = source.project.component.as_str();
    let last = component.rsplit('/').next().unwrap_or(component);
    let mut tags = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.split('\0');
        let name = parts.next().unwrap_or_default();
        let (tag, commit) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // An annotated tag is an object of its own; what it stands for comes after it.
        let commit = if commit.is_empty() { tag } else { commit };
        if let (Some(version), Ok(commit)) = (version_of_tag(name, last), commit.parse::<CommitId>()) {
            let known = tags.entry(commit).or_insert_with(|| version.clone());
            if *known < version {
                *known = version;
            }
        }
    }
    Ok(tags)
}

/// `v1.4.2`, `1.4.2`, and `api-1.4.2`, `api@1.4.2`, `api/v1.4.2` for a component `…/api`.
fn version_of_tag(tag: &str, last: &str) -> Option<Version> {
    let own = tag.strip_prefix(last).and_then(|rest| rest.strip_prefix(['-', '@', '/']));
    own.unwrap_or(tag).parse::<Version>().ok().filter(Version::is_final)
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
        for (tag, version) in [
            ("v1.4.2", Some("1.4.2")),
            ("1.4.2", Some("1.4.2")),
            ("api-1.4.2", Some("1.4.2")),
            ("api@1.4.2", Some("1.4.2")),
            ("api/v1.4.2", Some("1.4.2")),
            ("web-1.4.2", None),
            ("v1.4", None),
            ("v1.4.2-rc.1", None),
            ("latest", None),
        ] {
            assert_eq!(version_of_tag(tag, "api").map(|v| v.to_string()).as_deref(), version, "{tag}");
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

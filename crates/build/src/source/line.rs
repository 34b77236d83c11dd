//! The line of development that a commit is built for, and where its repository lives.
//!
//! A runner that builds a pull request must never give a final-looking version, whatever the branch is called.

use std::collections::{BTreeMap, BTreeSet};

use semel_model::build::{Line, ReleaseLine};
use semel_model::name::CommitId;

use super::{Resolve, SourceError};
use crate::git::{Git, GitError, Running};

/// A CI service, recognised by its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// GitHub Actions (also Gitea and Forgejo Actions).
    GitHub,
    /// GitLab CI.
    GitLab,
    /// Azure Pipelines.
    Azure,
    /// Bitbucket Pipelines.
    Bitbucket,
    /// Buildkite.
    Buildkite,
    /// Drone, and Woodpecker, which comes from it.
    Drone,
    /// Jenkins.
    Jenkins,
    /// Travis CI.
    Travis,
    /// AppVeyor.
    AppVeyor,
    /// Any other.
    Other,
}

impl Provider {
    /// How the whole history is had there.
    pub(super) fn unshallow(provider: Option<Self>) -> &'static str {
        match provider {
            Some(Self::GitHub) => "set `fetch-depth: 0` under `with:` of actions/checkout",
            Some(Self::GitLab) => "set the variable `GIT_DEPTH: 0` in .gitlab-ci.yml",
            Some(Self::Azure) => "set `fetchDepth: 0` at the `checkout:` step",
            Some(Self::Bitbucket) => "set `depth: full` under `clone:` in bitbucket-pipelines.yml",
            Some(Self::Buildkite) => {
                "take `--depth` out of BUILDKITE_GIT_CLONE_FLAGS and BUILDKITE_GIT_FETCH_FLAGS"
            }
            Some(Self::Drone) => {
                "take `depth` out of `clone:` (Woodpecker: set `partial: false` and no `depth`)"
            }
            Some(Self::Jenkins) => "take `Shallow clone` out of the job's git behaviours",
            Some(Self::Travis) => "set `depth: false` under `git:` in .travis.yml",
            Some(Self::AppVeyor) => "take `clone_depth` out of appveyor.yml",
            Some(Self::Other) | None => "git fetch --unshallow",
        }
    }
}

/// What a CI runner's variables say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runner {
    pub(super) provider: Option<Provider>,
    /// The number of the pull request.
    request: Option<String>,
    /// The commit that is requested to be merged, where the runner names it.
    requested: Option<CommitId>,
    branch: Option<String>,
    main: Option<String>,
}

/// The variables by which services are recognised.
const PROVIDERS: [(&str, Provider); 13] = [
    ("GITHUB_ACTIONS", Provider::GitHub),
    ("GITLAB_CI", Provider::GitLab),
    ("TF_BUILD", Provider::Azure),
    ("BITBUCKET_BUILD_NUMBER", Provider::Bitbucket),
    ("BUILDKITE", Provider::Buildkite),
    ("DRONE", Provider::Drone),
    ("CI_PIPELINE_FORGE_URL", Provider::Drone),
    ("JENKINS_URL", Provider::Jenkins),
    ("TRAVIS", Provider::Travis),
    ("APPVEYOR", Provider::AppVeyor),
    ("CIRCLECI", Provider::Other),
    ("SEMAPHORE", Provider::Other),
    ("CODEBUILD_BUILD_ID", Provider::Other),
];

/// Variables with the number of a pull or merge request.
const REQUEST: [&str; 10] = [
    "CI_MERGE_REQUEST_IID",
    "SYSTEM_PULLREQUEST_PULLREQUESTNUMBER",
    "BUILDKITE_PULL_REQUEST",
    "DRONE_PULL_REQUEST",
    "BITBUCKET_PR_ID",
    "CHANGE_ID",
    "TRAVIS_PULL_REQUEST",
    "CI_COMMIT_PULL_REQUEST",
    "SEMAPHORE_GIT_PR_NUMBER",
    "APPVEYOR_PULL_REQUEST_NUMBER",
];

/// Variables with the commit that is requested to be merged.
const REQUESTED: [&str; 4] = [
    "CI_MERGE_REQUEST_SOURCE_BRANCH_SHA",
    "SYSTEM_PULLREQUEST_SOURCECOMMITID",
    "TRAVIS_PULL_REQUEST_SHA",
    "SEMAPHORE_GIT_PR_SHA",
];

/// Variables with a branch's name.
const BRANCH: [&str; 9] = [
    "CI_COMMIT_BRANCH",
    "BUILDKITE_BRANCH",
    "DRONE_BRANCH",
    "CIRCLE_BRANCH",
    "BITBUCKET_BRANCH",
    "BRANCH_NAME",
    "TRAVIS_BRANCH",
    "SEMAPHORE_GIT_BRANCH",
    "APPVEYOR_REPO_BRANCH",
];

/// Variables with a full ref: `refs/heads/main`, `refs/pull/12/merge`.
const FULL_REF: [&str; 3] = ["GITHUB_REF", "BUILD_SOURCEBRANCH", "CODEBUILD_WEBHOOK_HEAD_REF"];

impl Runner {
    pub(super) fn of(variables: &BTreeMap<String, String>) -> Self {
        let has = |name: &str| variables.contains_key(name);
        let known = PROVIDERS.into_iter().find(|(name, _)| has(name)).map(|(_, provider)| provider);
        let provider = known.or_else(|| has("CI").then_some(Provider::Other));
        // Names that anybody may use for anything count only on a runner.
        let trusted = |name: &str| provider.is_some() || !matches!(name, "BRANCH_NAME" | "CHANGE_ID");
        let get =
            |name: &&str| variables.get(*name).filter(|value| !value.is_empty() && trusted(name)).cloned();
        let full = FULL_REF.iter().find_map(get);
        let in_full =
            |prefix: &str| full.as_deref().and_then(|full| full.strip_prefix(prefix)).map(str::to_owned);
        let pull = in_full("refs/pull/").and_then(|rest| rest.split('/').next().map(str::to_owned));
        let unnumbered = || get(&"GITHUB_HEAD_REF");
        // `pr/12`, beside `branch/main` and `tag/v1`.
        let triggered = || get(&"CODEBUILD_WEBHOOK_TRIGGER")?.strip_prefix("pr/").map(str::to_owned);
        let request = REQUEST
            .iter()
            .find_map(get)
            .filter(|number| number != "false")
            .or(pull)
            .or_else(triggered)
            .or_else(unnumbered);
        let requested = REQUESTED.iter().find_map(get).and_then(|commit| commit.parse().ok());
        let branch = in_full("refs/heads/").or_else(|| {
            // `GITHUB_REF_NAME` is the tag's name in a build of a tag.
            let named = get(&"GITHUB_REF_NAME")
                .filter(|_| get(&"GITHUB_REF_TYPE").is_none_or(|kind| kind == "branch"));
            named.filter(|_| full.is_none()).or_else(|| BRANCH.iter().find_map(get))
        });
        Self { provider, request, requested, branch, main: get(&"CI_DEFAULT_BRANCH") }
    }

    /// The commit that is requested to be merged, where the one that is built is a merge made to try that out: the runner names
    /// it, or it is the second parent.
    pub(super) fn requested(&self, request: &Resolve<'_>, parents: &[CommitId]) -> Option<CommitId> {
        self.request.as_ref().filter(|_| builds_head(request) && request.branch.is_none())?;
        match parents {
            [_, second] => Some(
                self.requested.clone().filter(|one| parents.contains(one)).unwrap_or_else(|| second.clone()),
            ),
            _ => None,
        }
    }
}

/// The call whose answer [`Refs::read`] takes.
pub(super) const REFS: [&str; 4] =
    ["for-each-ref", "--format=%(refname)%00%(symref)", "refs/heads", "refs/remotes/origin/HEAD"];

/// The branches of the repository.
pub(super) struct Refs {
    local: Vec<String>,
    /// The branch that `origin/HEAD` stands for.
    origin_main: Option<String>,
    has_remote: bool,
    /// Which branches are release lines.
    release: String,
}

impl Refs {
    pub(super) fn read(running: Running, has_remote: bool, release: &str) -> Result<Self, GitError> {
        let bytes = running.finish()?;
        let text = String::from_utf8_lossy(&bytes);
        let mut this = Self { local: Vec::new(), origin_main: None, has_remote, release: release.to_owned() };
        for (name, symbolic) in text.lines().filter_map(|line| line.split_once('\0')) {
            if let Some(branch) = name.strip_prefix("refs/heads/") {
                this.local.push(branch.to_owned());
            } else {
                this.origin_main = symbolic.strip_prefix("refs/remotes/origin/").map(str::to_owned);
            }
        }
        Ok(this)
    }

    /// The name of the main line: what the runner or the remote says, else `main`, `master`, or the only branch of a
    /// repository without remotes (with a remote, the only local branch may be any that somebody cloned).
    fn main<'a>(&'a self, runner: &'a Runner) -> Option<&'a str> {
        let told = runner.main.as_deref().or(self.origin_main.as_deref());
        let usual =
            || ["main", "master"].into_iter().find(|name| self.local.iter().any(|branch| branch == name));
        let only = || match self.local.as_slice() {
            [one] if !self.has_remote => Some(one.as_str()),
            _ => None,
        };
        told.or_else(usual).or_else(only)
    }

    fn line(&self, runner: &Runner, branch: &str) -> Line {
        let is_main = self.main(runner).map_or(matches!(branch, "main" | "master"), |main| main == branch);
        match ReleaseLine::of(branch, &self.release) {
            _ if is_main => Line::Main(branch.to_owned()),
            Some(line) => Line::Release(line),
            None => Line::Branch(branch.to_owned()),
        }
    }
}

/// What stands for the branch of a commit that lies on none, or on several of which none is the main one.
pub const NO_BRANCH: &str = "detached";

/// The line that a commit is built for: what the caller says, else the runner, else the branch that is checked out, else
/// where the commit lies.
pub(super) fn line_of(
    git: &Git,
    request: &Resolve<'_>,
    runner: &Runner,
    refs: &Refs,
    commit: &CommitId,
    head: Option<&str>,
) -> Result<Line, SourceError> {
    if let Some(branch) = request.branch {
        return Ok(refs.line(runner, branch));
    }
    if builds_head(request) {
        if let Some(number) = &runner.request {
            return Ok(Line::Branch(format!("pr-{number}")));
        }
        let current = head.and_then(|head| head.strip_prefix("refs/heads/"));
        if let Some(branch) = runner.branch.as_deref().or(current) {
            return Ok(refs.line(runner, branch));
        }
    }
    if let Some(branch) =
        request.revision.filter(|revision| refs.local.iter().any(|branch| branch == revision))
    {
        return Ok(refs.line(runner, branch));
    }
    line_containing(git, runner, refs, commit)
}

fn builds_head(request: &Resolve<'_>) -> bool {
    request.revision.is_none_or(|revision| revision == "HEAD")
}

/// The branch of a ref, here or at a remote.
pub(super) fn branch_of(name: &str) -> Option<&str> {
    let at_remote = || name.strip_prefix("refs/remotes/")?.split_once('/').map(|(_, branch)| branch);
    name.strip_prefix("refs/heads/").or_else(at_remote).filter(|branch| *branch != "HEAD")
}

/// The main line if the commit is on it, else the only release line that has it, else the only branch, else `detached`.
fn line_containing(git: &Git, runner: &Runner, refs: &Refs, commit: &CommitId) -> Result<Line, SourceError> {
    let bytes = git.run(&[
        "for-each-ref",
        "--format=%(refname)",
        "--contains",
        commit.as_str(),
        "refs/heads",
        "refs/remotes",
    ])?;
    let text = String::from_utf8_lossy(&bytes);
    let names: BTreeSet<&str> = text.lines().filter_map(branch_of).collect();
    let lines: Vec<Line> = names.into_iter().map(|name| refs.line(runner, name)).collect();
    let main = lines.iter().find(|line| matches!(line, Line::Main(_)));
    let releases: Vec<&Line> = lines.iter().filter(|line| matches!(line, Line::Release(_))).collect();
    Ok(match (main, releases.as_slice(), lines.as_slice()) {
        (Some(main), _, _) => main.clone(),
        (None, [one], _) => (*one).clone(),
        (None, [], [one]) => one.clone(),
        (None, _, _) => Line::Branch(NO_BRANCH.to_owned()),
    })
}

/// The address of `origin`, else of the first remote, as other people would write it: `https`, no credentials, no query,
/// no `.git`. The form is the same for clones over ssh and https, because it goes into the artefact. A remote that is a
/// path of this machine is nobody's business.
pub(super) fn public_remote(remotes: &[(String, String)]) -> Option<String> {
    let origin = remotes.iter().find(|(key, _)| key == "remote.origin.url").or(remotes.first());
    origin.and_then(|(_, url)| public_url(url))
}

fn public_url(url: &str) -> Option<String> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest.split(['?', '#']).next()?),
        Some(("ssh" | "git" | "git+ssh", rest)) => ("https", rest),
        Some(_) => return None,
        None => return scp_like(url),
    };
    let (authority, path) = rest.split_once('/')?;
    let host = authority.rsplit('@').next()?;
    let host = if url.starts_with("http") { host } else { host.split(':').next()? };
    spelled(scheme, host, path)
}

/// `git@host:path`; what has a slash before the colon is a path of this machine.
fn scp_like(url: &str) -> Option<String> {
    let (authority, path) = url.split_once(':').filter(|(before, _)| !before.contains('/'))?;
    spelled("https", authority.rsplit('@').next()?, path)
}

fn spelled(scheme: &str, host: &str, path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!host.is_empty() && !path.is_empty()).then(|| format!("{scheme}://{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refs(local: &[&str], origin_main: Option<&str>, has_remote: bool) -> Refs {
        Refs {
            local: local.iter().map(|name| (*name).to_owned()).collect(),
            origin_main: origin_main.map(str::to_owned),
            has_remote,
            release: "release/*".to_owned(),
        }
    }

    #[test]
    fn a_remote_is_told_without_credentials_and_in_one_spelling() {
        for (url, public) in [
            (
                "https://user:hunter2@forge.example/shop/api.git?token=hunter2",
                Some("https://forge.example/shop/api"),
            ),
            ("https://hunter2@forge.example:8443/shop/api/", Some("https://forge.example:8443/shop/api")),
            ("git@forge.example:shop/api.git", Some("https://forge.example/shop/api")),
            ("ssh://git:hunter2@forge.example:2222/shop/api.git", Some("https://forge.example/shop/api")),
            ("http://forge.example/a", Some("http://forge.example/a")),
            ("/srv/git/api.git", None),
            ("../api", None),
            ("file:///home/someone/api", None),
            ("", None),
        ] {
            assert_eq!(public_url(url).as_deref(), public, "{url}");
        }
    }

    #[test]
    fn a_runner_says_which_branch_or_request_it_builds() {
        for (given, branch, request) in [
            (&[("GITHUB_REF", "refs/heads/feat/x"), ("GITHUB_REF_NAME", "feat/x")][..], Some("feat/x"), None),
            (
                &[
                    ("GITHUB_REF", "refs/pull/12/merge"),
                    ("GITHUB_HEAD_REF", "main"),
                    ("GITHUB_REF_NAME", "12/merge"),
                ],
                None,
                Some("12"),
            ),
            (
                &[("GITHUB_REF", "refs/tags/v1"), ("GITHUB_REF_TYPE", "tag"), ("GITHUB_REF_NAME", "v1")],
                None,
                None,
            ),
            (&[("GITHUB_REF_NAME", "main")], Some("main"), None),
            (&[("GITLAB_CI", "true"), ("CI_COMMIT_BRANCH", "main")], Some("main"), None),
            (&[("CI_MERGE_REQUEST_IID", "7")], None, Some("7")),
            (&[("BUILD_SOURCEBRANCH", "refs/heads/main")], Some("main"), None),
            (&[("BUILDKITE_BRANCH", "main"), ("BUILDKITE_PULL_REQUEST", "false")], Some("main"), None),
            (&[("JENKINS_URL", "x"), ("BRANCH_NAME", "PR-3"), ("CHANGE_ID", "3")], Some("PR-3"), Some("3")),
            (&[("PATH", "/bin"), ("BRANCH_NAME", "mine")], None, None),
            (&[("DRONE_BRANCH", "main"), ("DRONE_PULL_REQUEST", "9")], Some("main"), Some("9")),
            (&[("CIRCLE_BRANCH", "pull/12")], Some("pull/12"), None),
            (&[("BITBUCKET_BRANCH", "feat/x"), ("BITBUCKET_PR_ID", "4")], Some("feat/x"), Some("4")),
            (&[("TRAVIS_BRANCH", "main"), ("TRAVIS_PULL_REQUEST", "false")], Some("main"), None),
            (&[("TRAVIS_BRANCH", "main"), ("TRAVIS_PULL_REQUEST", "8")], Some("main"), Some("8")),
            (&[("SEMAPHORE_GIT_BRANCH", "main"), ("SEMAPHORE_GIT_PR_NUMBER", "5")], Some("main"), Some("5")),
            (
                &[
                    ("CI_PIPELINE_FORGE_URL", "x"),
                    ("CI_COMMIT_BRANCH", "main"),
                    ("CI_COMMIT_PULL_REQUEST", "6"),
                ],
                Some("main"),
                Some("6"),
            ),
            (
                &[("APPVEYOR_REPO_BRANCH", "main"), ("APPVEYOR_PULL_REQUEST_NUMBER", "3")],
                Some("main"),
                Some("3"),
            ),
            (
                &[("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/main"), ("CODEBUILD_WEBHOOK_TRIGGER", "pr/2")],
                Some("main"),
                Some("2"),
            ),
            (
                &[
                    ("CODEBUILD_WEBHOOK_HEAD_REF", "refs/heads/main"),
                    ("CODEBUILD_WEBHOOK_TRIGGER", "branch/main"),
                ],
                Some("main"),
                None,
            ),
        ] {
            let runner = Runner::of(&variables(given));
            assert_eq!((runner.branch.as_deref(), runner.request.as_deref()), (branch, request), "{given:?}");
        }
    }

    #[test]
    fn the_commit_that_is_requested_to_be_merged_is_the_second_parent_or_what_the_runner_says() {
        let id = |digit: &str| digit.repeat(40).parse::<CommitId>().unwrap();
        let none = BTreeMap::new();
        let asked = |revision| Resolve {
            start_dir: std::path::Path::new("."),
            revision,
            branch: None,
            variables: &none,
        };
        let source = ("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", &*"a".repeat(40));
        let (main, head) = (id("b"), id("a"));
        for (given, parents, revision, expected) in [
            (
                &[("GITHUB_REF", "refs/pull/12/merge")][..],
                vec![main.clone(), head.clone()],
                None,
                Some(&head),
            ),
            (&[("CI_MERGE_REQUEST_IID", "7"), source], vec![head.clone(), main.clone()], None, Some(&head)),
            (&[("CI_MERGE_REQUEST_IID", "7"), source], vec![main.clone()], None, None),
            (&[("GITHUB_REF", "refs/pull/12/merge")], vec![main.clone(), head.clone()], Some("HEAD~1"), None),
            (&[("GITHUB_REF", "refs/heads/main")], vec![main.clone(), head.clone()], None, None),
        ] {
            let runner = Runner::of(&variables(given));
            assert_eq!(runner.requested(&asked(revision), &parents).as_ref(), expected, "{given:?}");
        }
    }

    #[test]
    fn only_the_main_line_gets_final_looking_versions() {
        let none = Runner::default();
        for (refs, branch, main) in [
            (refs(&["main", "x"], None, false), "main", true),
            (refs(&["main", "x"], None, false), "x", false),
            (refs(&["trunk"], None, false), "trunk", true),
            (refs(&["feature"], None, true), "feature", false),
            (refs(&["main", "develop"], Some("develop"), true), "main", false),
            (refs(&["main", "develop"], Some("develop"), true), "develop", true),
            (refs(&[], None, true), "master", true),
        ] {
            assert_eq!(matches!(refs.line(&none, branch), Line::Main(_)), main, "{branch} {:?}", refs.local);
        }
    }
}

//! `semel doctor`: what this host offers, what is missing, why, and what would change that.
//!
//! It changes nothing and makes no store. Nothing is asked over the network but a server that is configured.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use semel_build::sandbox::{Level, Preflight, Unavailable, preflight};
use semel_model::entry::Leaf;
use semel_oci::transport::Transport;
use semel_server::api::calls::StoreFacts;
use semel_server::client::Client;
use semel_store::{Store, health, ledger, network_file_system};
use serde::Serialize;

use super::Outcome;
use crate::cli::Cli;
use crate::output::{Output, bytes};
use crate::project;
use crate::report::{Exit, Failure};
use crate::session::{self, Where, now};
use crate::settings::Settings;

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    name: &'static str,
    /// How it is.
    state: State,
    /// In words.
    what: String,
    /// What would change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Good,
    /// Something could be better, or is there for few.
    Note,
    /// Something that is needed, or configured, does not work.
    Problem,
}

/// The answer, for `--json`.
#[derive(Debug, Serialize)]
struct Report {
    works: bool,
    findings: Vec<Finding>,
}

pub(super) async fn run(cli: &Cli, settings: &Settings, output: Output) -> Outcome {
    let mut findings = vec![kernel(), git()];
    let preflight = preflight(&settings.path());
    findings.extend(sandboxes(&preflight));
    findings.extend(project(settings, &preflight));
    findings.push(place_to_work(settings));
    findings.extend(store_or_server(cli, settings).await);
    findings.extend(runner(settings));
    findings.extend(programs(settings));
    let works = findings.iter().all(|finding| finding.state != State::Problem);
    if output.is_json() {
        output.json(&Report { works, findings });
    } else {
        findings.iter().for_each(|finding| show(finding, output));
    }
    Ok(if works { Exit::Done } else { Exit::Difference })
}

fn show(finding: &Finding, output: Output) {
    if output.is_quiet() && finding.state == State::Good {
        return;
    }
    let mark = match finding.state {
        State::Good => "✓",
        State::Note => "-",
        State::Problem => "✗",
    };
    output.data(&format!("{mark} {:<11} {}", finding.name, finding.what));
    if let Some(fix) = &finding.fix {
        output.data(&format!("{:14}hint: {fix}", ""));
    }
}

impl Finding {
    fn new(name: &'static str, state: State, what: impl Into<String>) -> Self {
        Self { name, state, what: what.into(), fix: None }
    }

    fn fix(mut self, fix: Option<impl Into<String>>) -> Self {
        self.fix = fix.map(Into::into);
        self
    }

    /// Something failed, and the failure says what to do.
    fn of(name: &'static str, failure: Failure) -> Self {
        let because = failure.because.iter().map(|reason| format!(": {reason}")).collect::<String>();
        let fix = failure.hints.into_iter().next();
        Self::new(name, State::Problem, format!("{}{because}", failure.message)).fix(fix)
    }
}

fn kernel() -> Finding {
    let host = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let what = format!("{} {} {}", text(host.sysname()), text(host.release()), text(host.machine()));
    Finding::new("kernel", State::Good, what)
}

fn git() -> Finding {
    match semel_build::git_version() {
        Ok(version) => Finding::new("git", State::Good, version),
        Err(error) => Finding::new("git", State::Problem, error.to_string()).fix(Some("apt-get install git")),
    }
}

/// Each level, and the one that a build gets.
fn sandboxes(preflight: &Preflight) -> Vec<Finding> {
    let bubblewrap = match &preflight.bubblewrap {
        Ok(program) => Finding::new("bubblewrap", State::Good, format!("works ({})", program.display())),
        Err(missing) => {
            Finding::new("bubblewrap", State::Note, missing.reason.clone()).fix(missing.fix.clone())
        }
    };
    let landlock = match preflight.choose(Some(Level::Landlock)) {
        Ok(sandbox) => {
            let (abi, left) = (sandbox.landlock_abi().unwrap_or_default(), sandbox.not_enforced().join("; "));
            let left = if left.is_empty() { left } else { format!(" (leaves open: {left})") };
            Finding::new("landlock", State::Good, format!("works, version {abi}{left}"))
        }
        Err(Unavailable { missing, .. }) => {
            Finding::new("landlock", State::Note, missing.reason).fix(missing.fix)
        }
    };
    let level = preflight.choose(None).map_or(Level::None, |sandbox| sandbox.level());
    let (state, what) = match level {
        Level::None => (State::Note, "none: commands of a build reach everything that you can".to_owned()),
        level => (State::Good, format!("builds use {level}")),
    };
    vec![bubblewrap, landlock, Finding::new("sandbox", state, what)]
}

/// What the project here asks for.
fn project(settings: &Settings, preflight: &Preflight) -> Option<Finding> {
    let found = match project::find(settings.directory()) {
        Ok(found) => found?,
        Err(failure) => return Some(Finding::of("project", failure)),
    };
    let build = &found.project.definition.build;
    let component = &found.project.component;
    let isolated = preflight.choose(None).is_ok_and(|sandbox| sandbox.level() != Level::None);
    let missing: Vec<&str> =
        build.secrets.iter().filter(|name| settings.variable(name).is_none()).map(String::as_str).collect();
    Some(if !missing.is_empty() {
        let what =
            format!("{component}: secrets of `fetch` are not in the environment: {}", missing.join(", "));
        Finding::new("project", State::Note, what).fix(Some("semel build --secret NAME=FILE"))
    } else if build.sandbox.is_some() && isolated {
        let what = format!("{component}: is built without a sandbox, as its semel.toml says");
        Finding::new("project", State::Note, what)
    } else {
        Finding::new("project", State::Good, component.to_string())
    })
}

/// Less is too little for a build.
const LITTLE: u64 = 2 << 30;
/// Less is too little for anything.
const NOTHING: u64 = 64 << 20;

fn place_to_work(settings: &Settings) -> Finding {
    let place = settings.work();
    let finding = disk("work", &place, "XDG_CACHE_HOME=DIR on a larger disk");
    match network_file_system(existing(&place)) {
        Ok(Some(kind)) if finding.state == State::Good => {
            let what =
                format!("{} lies on a network file system ({kind}): builds are slow there", place.display());
            Finding::new("work", State::Note, what).fix(Some("XDG_CACHE_HOME=DIR on a local disk"))
        }
        _ => finding,
    }
}

/// Whether there is room at a place, and whether it can be written; `fix` makes room.
fn disk(name: &'static str, place: &Path, fix: &str) -> Finding {
    let at = existing(place);
    let shown = place.display();
    let writable = rustix::fs::access(at, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    match (writable, rustix::fs::statvfs(at)) {
        (Err(error), _) => {
            Finding::new(name, State::Problem, format!("{} cannot be written: {error}", at.display()))
        }
        (_, Err(error)) => {
            Finding::new(name, State::Problem, format!("cannot look at {}: {error}", at.display()))
        }
        (Ok(()), Ok(disk)) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let state = match free {
                ..NOTHING => State::Problem,
                NOTHING..LITTLE => State::Note,
                _ => State::Good,
            };
            let fix = (state != State::Good).then_some(fix);
            Finding::new(name, state, format!("{shown}, {} free", bytes(free))).fix(fix)
        }
    }
}

/// The nearest directory that is there.
fn existing(place: &Path) -> &Path {
    place.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"))
}

async fn store_or_server(cli: &Cli, settings: &Settings) -> Vec<Finding> {
    match session::place(cli, settings) {
        Err(failure) => vec![Finding::of("store", failure)],
        Ok((Where::Server(url), _)) => vec![server(&url, settings).await],
        Ok((Where::Store(dir), named)) => {
            let mut findings = store(dir, cli, settings).await;
            if settings.is_ci() && !named {
                let what =
                    "a CI runner, and no store is named: builds are refused, as the store would die with it";
                let fix = "SEMEL_SERVER=URL, SEMEL_STORE=DIR, or store = \"…\" in semel.toml";
                findings.push(Finding::new("store", State::Problem, what).fix(Some(fix)));
            }
            findings
        }
    }
}

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

async fn server(url: &str, settings: &Settings) -> Finding {
    let transport = match Transport::remote(url) {
        Ok(transport) => transport,
        Err(error) => return Finding::of("server", Failure::from_error(Exit::Usage, &error)),
    };
    let client = Client::new(transport, settings.user());
    match tokio::time::timeout(PATIENCE, client.call(&StoreFacts {})).await {
        Ok(Ok(facts)) => {
            let what = format!("{url} answers: store {}, {} entries", facts.id, facts.entries);
            Finding::new("server", State::Good, what)
        }
        Ok(Err(error)) => Finding::of("server", error.into()),
        Err(_) => {
            let what = format!("{url} does not answer within {} s", PATIENCE.as_secs());
            Finding::new("server", State::Problem, what)
        }
    }
}

async fn store(dir: std::path::PathBuf, cli: &Cli, settings: &Settings) -> Vec<Finding> {
    let place = match session::in_directory(dir, cli, settings) {
        Ok(place) => place,
        Err(failure) => return vec![Finding::of("database", failure)],
    };
    let mut findings = vec![disk("store", &place.dir, "semel gc   says what could go")];
    if let Ok(Some(kind)) = network_file_system(existing(&place.dir)) {
        let what =
            format!("{} lies on a network file system ({kind}), which loses data", place.dir.display());
        findings.push(Finding::new("store", State::Problem, what).fix(Some("--store DIR on a local disk")));
        return findings;
    }
    match session::open_existing(&place).await {
        Ok(Some(store)) => findings.extend(health_of(&store).await),
        Ok(None) => findings.push(Finding::new("store", State::Good, "is made by its first use")),
        Err(failure) => findings.push(Finding::of("store", failure)),
    }
    findings
}

async fn health_of(store: &Store) -> Vec<Finding> {
    if let Err(error) = health::check(store).await {
        return vec![
            Finding::of("store", Failure::from_error(Exit::Fault, &error)).fix(Some("semel audit verify")),
        ];
    }
    match newest(store).await {
        Ok((entries, newest)) => {
            let kind = if store.identity().database.is_some() { "PostgreSQL" } else { "SQLite" };
            let what = format!("{} answers and can be written: {entries} entries, {kind}", store.id());
            vec![Finding::new("store", State::Good, what), clock(newest, now())]
        }
        Err(failure) => vec![Finding::of("store", failure)],
    }
}

/// How many entries the ledger has, and when the newest was made.
async fn newest(store: &Store) -> Result<(u64, Option<Timestamp>), Failure> {
    /// Among so many leaves one is an entry: signatures follow what they sign.
    const BACK: u64 = 64;
    let fault = |error: &dyn std::error::Error| Failure::from_error(Exit::Fault, error);
    let mut conn = store.reader().await.map_err(|error| fault(&error))?;
    let size = ledger::size(&mut conn).await.map_err(|error| fault(&error))?;
    let leaves =
        ledger::read(&mut conn, size.saturating_sub(BACK), BACK).await.map_err(|error| fault(&error))?;
    let times = leaves.into_iter().filter_map(|recorded| match recorded.leaf {
        Leaf::Entry(entry) => Some(entry.time),
        Leaf::Signature(_) => None,
    });
    Ok((size, times.max()))
}

/// The clock is data, never order; but a lease and a time to live go by it.
fn clock(newest: Option<Timestamp>, now: Timestamp) -> Finding {
    let behind = newest.map_or(SignedDuration::ZERO, |newest| newest.duration_since(now));
    if behind > SignedDuration::from_secs(60) {
        let what = format!("{now} is {} s before the newest entry of the store", behind.as_secs());
        Finding::new("clock", State::Problem, what).fix(Some("set the clock: timedatectl set-ntp true"))
    } else {
        Finding::new("clock", State::Good, now.to_string())
    }
}

fn runner(settings: &Settings) -> Option<Finding> {
    const PROVIDERS: [(&str, &str); 6] = [
        ("GITHUB_ACTIONS", "GitHub Actions"),
        ("GITLAB_CI", "GitLab CI"),
        ("TF_BUILD", "Azure Pipelines"),
        ("BUILDKITE", "Buildkite"),
        ("CIRCLECI", "CircleCI"),
        ("JENKINS_URL", "Jenkins"),
    ];
    let named = PROVIDERS.iter().find(|(variable, _)| settings.variable(variable).is_some());
    let name = named.map(|(_, name)| *name).or_else(|| settings.is_ci().then_some("a runner (CI is set)"));
    name.map(|name| Finding::new("CI", State::Good, name))
}

/// Programs that some verbs use, or some projects.
fn programs(settings: &Settings) -> Vec<Finding> {
    const OPTIONAL: [(&str, &str); 4] = [
        ("python3", "projects in Python"),
        ("node", "projects in JavaScript"),
        ("podman", "running images"),
        ("git-lfs", "repositories with files of Git LFS"),
    ];
    let path = settings.path();
    let found =
        |program: &str| path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.is_file());
    OPTIONAL
        .into_iter()
        .map(|(program, purpose)| match found(program) {
            Some(file) => Finding::new(program, State::Good, file.display().to_string()),
            None => Finding::new(program, State::Note, format!("not installed; only for {purpose}")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_clock_that_is_behind_the_ledger_is_a_problem() {
        let cases = [
            (None, State::Good),
            (Some(900), State::Good),
            (Some(1_030), State::Good),
            (Some(1_100), State::Problem),
        ];
        for (newest, state) in cases {
            assert_eq!(clock(newest.map(at), at(1_000)).state, state, "{newest:?}");
        }
    }
}

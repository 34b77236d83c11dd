//! Detect: a project file for a project that has none, for `semel init`.
//!
//! The proposal is meant to work as it is, and to be read: few lines, nothing that is a default. It looks at files of the
//! working directory and runs nothing of the project. What looks like a secret is never copied.

mod cargo;
mod contract;
mod npm;
mod python;

use std::io;
use std::path::{Path, PathBuf};

use semel_model::name::ComponentName;

use crate::git::Git;
use crate::source::public_remote_of;

pub use cargo::Host;

/// A project file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its text.
    pub semel_toml: String,
    /// The files that it follows from.
    pub looked_at: Vec<String>,
    /// What stands in the way of an artefact without configuration.
    pub warnings: Vec<String>,
    /// What puts the file into the next commit, and the project with it where no commit has it yet: words for a shell.
    pub to_add: &'static str,
}

/// Why there is no proposal.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A manifest could not be understood.
    #[error("cannot understand {file}: {problem}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The project makes nothing that could be deployed.
    #[error("{file} names no program, so there is nothing to deploy")]
    NoProgram {
        /// The manifest.
        file: String,
    },
}

impl DetectError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let alone = "semel init -C DIR, the directory of one program; of what is no program, such as the pages of a front \
                     end, say in semel.toml what the build leaves: files = [{ from = \"dist\", to = \"/public\" }]";
        matches!(self, Self::NoProgram { .. }).then_some(alone)
    }
}

/// What one kind of project needs.
#[derive(Debug, Default)]
struct Recipe {
    fetch: Option<String>,
    run: Option<String>,
    env: Option<String>,
    kind: &'static str,
    entrypoint: Vec<String>,
    files: String,
    needs: Option<String>,
    /// The file where the program begins; it may tell which path answers a health check.
    source: Option<PathBuf>,
}

/// Proposes a project file for a directory.
pub fn propose(dir: &Path, host: &Host) -> Result<Proposal, DetectError> {
    let mut look = Look { dir, looked_at: Vec::new() };
    let recipe = match (cargo::recipe(&mut look, host)?, npm::recipe(&mut look)?) {
        (Some(recipe), _) | (None, Some(recipe)) => recipe,
        (None, None) => python::recipe(&mut look)?.unwrap_or_else(|| plain(&mut look)),
    };
    let contract = contract::of_example(&mut look)?;
    let health = contract.has_port.then(|| health_path(&recipe));
    let semel_toml = render(&component_of(dir), &recipe, &contract.lines, health);
    let mut warnings = contract::warnings(&look);
    warnings.extend(unbuilt(&look, &recipe));
    Ok(Proposal { semel_toml, looked_at: look.looked_at, warnings, to_add: to_add(dir) })
}

fn to_add(dir: &Path) -> &'static str {
    let knows = |words: &[&str]| Git::at(dir).run(words).is_ok();
    if !knows(&["rev-parse", "--git-dir"]) {
        "git init && git add ."
    } else if !knows(&["rev-parse", "--quiet", "--verify", "HEAD"]) {
        "git add ."
    } else {
        "git add semel.toml"
    }
}

/// Reads files of the project, and remembers which.
struct Look<'a> {
    dir: &'a Path,
    looked_at: Vec<String>,
}

impl Look<'_> {
    fn text(&mut self, name: &str) -> Result<Option<String>, DetectError> {
        let path = self.dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                self.looked_at.push(name.to_owned());
                Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(source) => Err(DetectError::Read { path, source }),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.dir.join(name).is_file()
    }

    /// Whether a file is there and will be in a commit.
    fn has_for_commit(&self, name: &str) -> bool {
        let ignored = || {
            let answer =
                Git::at(self.dir).start(&["check-ignore", "-q", name]).and_then(crate::git::Running::answer);
            answer.is_ok_and(|answer| answer.failure.is_none())
        };
        self.has(name) && !ignored()
    }
}

/// All files; started by a start script, if there is one.
fn plain(look: &mut Look<'_>) -> Recipe {
    let script = ["start.sh", "run.sh", "server.sh"].into_iter().find(|name| look.has(name));
    look.looked_at.extend(script.map(str::to_owned));
    Recipe {
        kind: "archive",
        entrypoint: script.map(|name| vec!["/bin/sh".to_owned(), format!("/app/{name}")]).unwrap_or_default(),
        files: everything(),
        source: script.map(|name| look.dir.join(name)),
        ..Recipe::default()
    }
}

/// Files of build tools whose projects are not understood here, and what makes an artefact of one.
const OTHERS: [(&str, &str); 12] = [
    ("go.mod", RUN),
    ("pom.xml", RUN),
    ("build.gradle", RUN),
    ("build.gradle.kts", RUN),
    ("CMakeLists.txt", RUN),
    ("meson.build", RUN),
    ("Makefile", RUN),
    ("Gemfile", RUN),
    ("composer.json", RUN),
    ("mix.exs", RUN),
    ("Dockerfile", IMAGE),
    ("Containerfile", IMAGE),
];
const RUN: &str = "write the command that builds it as [build] run, and what it leaves as `files`";
const IMAGE: &str =
    "let [build] run write an OCI archive, and take that with kind = \"image\" and from = \"image.oci\"";

/// What the proposal leaves to its reader, where it packages the files as they are.
fn unbuilt(look: &Look<'_>, recipe: &Recipe) -> Option<String> {
    let built = recipe.fetch.is_some() || recipe.run.is_some();
    let (file, how) = OTHERS.iter().find(|(file, _)| !built && look.has(file))?;
    Some(format!("nothing here is built by {file} yet: {how}"))
}

fn everything() -> String {
    "{ from = \".\", to = \"/app\" }".to_owned()
}

/// The name of the repository, or of the directory if the project is not all of it.
fn component_of(dir: &Path) -> ComponentName {
    let git = Git::at(dir);
    let run = |words: &[&str]| git.run(words).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let at_top = run(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.trim().is_empty());
    let remote = run(&["config", "--get", "remote.origin.url"]).filter(|_| at_top);
    let from_remote = remote.and_then(|url| public_remote_of(url.trim()));
    let last = from_remote.as_deref().and_then(|url| url.rsplit('/').next()).map(str::to_owned);
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let of_dir = || full.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = last.or_else(of_dir).unwrap_or_default();
    component_like(&name).parse().unwrap_or_else(|_| "app".parse().expect("it is a component name"))
}

/// `My_Shop  API` → `my-shop-api`.
fn component_like(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// The path that the program itself mentions, among the usual ones.
fn health_path(recipe: &Recipe) -> &'static str {
    let text = recipe.source.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    ["/healthz", "/health", "/readyz", "/ping"].into_iter().find(|path| text.contains(path)).unwrap_or("/")
}

/// How long the common file may be, in lines.
const LINES: usize = 20;

fn render(component: &ComponentName, recipe: &Recipe, contract: &[String], health: Option<&str>) -> String {
    let mut lines = vec![
        "format = 1   # pins the packaging bytes across our own upgrades".to_owned(),
        format!("component = {}", quoted(component.as_str())),
    ];
    let commands = [("fetch", &recipe.fetch), ("run", &recipe.run)];
    if commands.iter().any(|(_, command)| command.is_some()) {
        lines.extend([String::new(), "[build]".to_owned()]);
        let set = commands.into_iter().filter_map(|(key, command)| Some((key, command.as_ref()?)));
        lines.extend(set.map(|(key, command)| format!("{key} = {}", quoted(command))));
        lines.extend(recipe.env.as_ref().map(|env| format!("env = {{ {env} }}")));
    }
    lines.extend([String::new(), "[artefact]".to_owned(), format!("kind = {}", quoted(recipe.kind))]);
    if !recipe.entrypoint.is_empty() {
        let words: Vec<String> = recipe.entrypoint.iter().map(|word| quoted(word)).collect();
        lines.push(format!("entrypoint = [{}]", words.join(", ")));
    }
    lines.push(format!("files = [{}]", recipe.files));
    lines.extend(recipe.needs.as_ref().map(|needs| format!("needs = [{}]", quoted(needs))));
    if !contract.is_empty() {
        lines.extend([
            String::new(),
            "[config]   # names and types; values belong to environments".to_owned(),
        ]);
        lines.extend(contract.iter().cloned());
    }
    let health =
        health.map(|path| format!(", health = \"http://127.0.0.1:${{PORT}}{path}\"")).unwrap_or_default();
    let target = format!("target = {{ kind = \"directory\"{health} }}");
    lines.extend([
        String::new(),
        "[environment]".to_owned(),
        format!("dev = {{ {target} }}"),
        format!("production = {{ after = \"dev\", {target} }}"),
    ]);
    if lines.len() > LINES {
        lines.retain(|line| !line.is_empty());
    }
    lines.join("\n") + "\n"
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

//! Start: where the artefact is entered, and what must therefore be complete.

use semel_model::project::{Kind, words};
use semel_model::runtime::Language;

use super::format::Format;
use super::report::{Finding, Rule, Severity};
use super::{Check, Node, is_executable, shown};

/// A file from which others are loaded.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// Its place in the artefact.
    pub(super) path: &'a [u8],
    /// What it is reached by, for people: empty for the entrypoint, `closure.roots`.
    pub(super) by: Vec<String>,
}

/// The entrypoint, the files that it is given, the programs of the smoke commands, and the declared roots. What is not
/// there is among the findings.
pub(super) fn find<'a>(check: &mut Check<'a>) -> Vec<Start<'a>> {
    let mut starts = Vec::new();
    let question = check.question;
    if let Some((program, arguments)) = question.start.split_first() {
        starts.extend(find_program(check, program, &[]));
        for argument in arguments.iter().filter(|argument| argument.starts_with('/')) {
            let found = check.rootfs().resolve_file(argument.as_bytes());
            let found = found.filter(|found| !reads_script(check, program, found.path));
            starts.extend(found.map(|found| Start { path: found.path, by: vec![program.clone()] }));
        }
    }
    for command in question.smoke {
        let by = [format!("smoke `{command}`")];
        if let Some(program) = words(command).unwrap_or_default().first() {
            starts.extend(find_program(check, program, &by));
        }
    }
    if let Some(runtime) = question.runtime {
        match runtime.language {
            Language::Provided => starts.extend(find_bootstrap(check)),
            Language::Python(major, minor) => starts.extend(extension_modules(check, (major, minor))),
            Language::Node | Language::Java | Language::DotNet | Language::Ruby => {}
        }
    }
    for root in &question.closure.roots {
        starts.extend(find_root(check, root));
    }
    starts
}

/// Whether a program reads a script itself: then its first line, which is for the kernel, is a comment.
fn reads_script(check: &Check<'_>, program: &str, script: &[u8]) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    let language = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&language) && matches!(check.formats.get(script), Some(Format::Script(_)))
}

/// Programs that read scripts, by their names without a version.
const INTERPRETERS: [&str; 14] = [
    "sh", "ash", "bash", "dash", "ksh", "zsh", "python", "pypy", "node", "nodejs", "perl", "ruby", "php",
    "lua",
];

/// A first word with a slash in front is a path inside the artefact, or, for an archive, of the host; a bare word is
/// looked up on the `PATH`, for an archive on the host's, which it may rely on if it says what it `needs`.
fn find_program<'a>(check: &mut Check<'a>, word: &str, by: &[String]) -> Option<Start<'a>> {
    let problem = if word.starts_with('/') {
        let found = check.rootfs().resolve(word.as_bytes()).ok();
        match found {
            Some(found) if is_executable(found.node) => {
                return Some(Start { path: found.path, by: by.to_vec() });
            }
            Some(found) if matches!(found.node, Node::File { .. }) => "is not executable",
            Some(_) => "is not a file",
            None if check.has_host() && !shares_directory(check, word) => {
                check.ask_host(word.to_owned(), None);
                return None;
            }
            None => "is not among the files of the artefact",
        }
    } else if word.contains('/') {
        "is neither an absolute path nor a bare word"
    } else if check.question.kind == Kind::Zip {
        // A bare word is a program of the runtime, which is not here.
        return None;
    } else if !check.has_host() {
        match check.on_path(word) {
            Some(path) => return Some(Start { path, by: by.to_vec() }),
            None => "is on no directory of the artefact's PATH",
        }
    } else if let Some(need) = check.declared(word) {
        let version = need
            .at_least
            .as_ref()
            .map(|version| version.iter().map(u64::to_string).collect::<Vec<_>>().join("."));
        check.ask_host(word.to_owned(), version);
        return None;
    } else {
        "is looked up on the host, so `needs` must name it"
    };
    let fix = match problem {
        "is not executable" => "set mode = \"0755\" for it in [artefact] files",
        _ => "correct `entrypoint`, `smoke`, `needs` or `files` in [artefact]",
    };
    report(check, word, problem, fix, by);
    None
}

/// What a runtime without a language starts.
fn find_bootstrap<'a>(check: &mut Check<'a>) -> Option<Start<'a>> {
    if check.rootfs().get(b"bootstrap").is_some() {
        return find_program(check, "/bootstrap", &[]);
    }
    let problem = "is not among the files of the artefact, and the runtime starts it";
    report(check, "/bootstrap", problem, "put the program at the root of the zip, under this name", &[]);
    None
}

/// The extension modules that this version of Python loads (PEP 3149, PEP 384): each may be imported by the handler.
fn extension_modules<'a>(check: &Check<'a>, (major, minor): (u32, u32)) -> Vec<Start<'a>> {
    let own = format!(".cpython-{major}{minor}-");
    let is_one = |path: &[u8]| {
        let name = path.rsplit(|byte| *byte == b'/').next().map(String::from_utf8_lossy).unwrap_or_default();
        name.ends_with(".so") && (name.contains(&own) || name.ends_with(".abi3.so"))
    };
    let by = vec![format!("Python {major}.{minor}")];
    let found = check.formats.keys().copied().filter(|path| is_one(path));
    found.map(|path| Start { path, by: by.clone() }).collect()
}

/// A root is a file, or a directory that stands for every file in it.
fn find_root<'a>(check: &mut Check<'a>, root: &str) -> Vec<Start<'a>> {
    let by = vec![format!("closure.roots {root}")];
    let Ok(found) = check.rootfs().resolve(root.as_bytes()) else {
        report(
            check,
            root,
            "is not among the files of the artefact",
            "correct closure.roots in [artefact]",
            &by,
        );
        return Vec::new();
    };
    if matches!(found.node, Node::File { .. }) {
        return vec![Start { path: found.path, by }];
    }
    let inside = |path: &&&[u8]| {
        path.strip_prefix(found.path).is_some_and(|rest| rest.starts_with(b"/") || found.path.is_empty())
    };
    check.formats.keys().filter(inside).map(|path| Start { path, by: by.clone() }).collect()
}

/// Whether the artefact has the directory at the top of a path: then the path is meant to be inside.
fn shares_directory(check: &Check<'_>, path: &str) -> bool {
    let top = path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    check.rootfs().get(top.as_bytes()).is_some()
}

fn report(check: &mut Check<'_>, path: &str, problem: &str, fix: &str, by: &[String]) {
    check.find(Finding {
        severity: Severity::Error,
        rule: Rule::Entrypoint,
        path: if path.starts_with('/') {
            shown(path.trim_start_matches('/').as_bytes())
        } else {
            path.to_owned()
        },
        needs: None,
        explanation: problem.to_owned(),
        fix: fix.to_owned(),
        chain: by.to_vec(),
    });
}

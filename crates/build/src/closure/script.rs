//! Script: the first line of a text that says which program runs it (execve(2), "Interpreter scripts").

use super::report::{Finding, Rule, Severity};
use super::{Check, USUAL_PATH, ignore_hint, is_executable, shown, text};

/// A first line: the program, and the words behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shebang {
    program: String,
    words: Vec<String>,
}

impl Shebang {
    /// Reads the beginning of a script.
    pub(super) fn parse(head: &[u8]) -> Self {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = text(line.strip_prefix(b"#!").unwrap_or(line));
        let mut words = line.trim_matches([' ', '\t']).split([' ', '\t']).filter(|word| !word.is_empty());
        let program = words.next().unwrap_or_default().to_owned();
        Self { program, words: words.map(str::to_owned).collect() }
    }

    /// What `env` is to start: its first word that is neither an option nor a variable.
    fn behind_env(&self) -> Option<&str> {
        let is_env = self.program.rsplit('/').next() == Some("env");
        let mut words = self.words.iter().map(String::as_str);
        words.find(|word| !word.starts_with('-') && !word.contains('=')).filter(|_| is_env)
    }
}

/// Where a script leads.
pub(super) enum Runs<'a> {
    /// To programs inside the artefact: the one of the first line, and the one that `env` starts.
    Inside(Vec<&'a [u8]>),
    /// To a program of the host, or nowhere, which is among the findings.
    Elsewhere,
}

/// Checks that what runs a script is there.
pub(super) fn check<'a>(
    check: &mut Check<'a>,
    path: &[u8],
    shebang: &Shebang,
    severity: Severity,
    chain: &[String],
) -> Runs<'a> {
    let place = Place { path, severity, chain };
    if check.has_host() {
        on_host(check, &place, shebang);
        return Runs::Elsewhere;
    }
    let mut inside = Vec::new();
    match check.rootfs().resolve_file(shebang.program.as_bytes()) {
        _ if !shebang.program.starts_with('/') => relative(check, &place, &shebang.program),
        Some(found) if is_executable(found.node) => inside.push(found.path),
        _ => missing(check, &place, &shebang.program),
    }
    if let Some(program) = shebang.behind_env() {
        match check.on_path(program) {
            Some(found) => inside.push(found),
            None => missing(check, &place, program),
        }
    }
    Runs::Inside(inside)
}

struct Place<'a> {
    path: &'a [u8],
    severity: Severity,
    chain: &'a [String],
}

/// The programs that POSIX promises at these places, or that every Linux system has there.
const OF_EVERY_HOST: [&str; 3] = ["/bin/sh", "/usr/bin/sh", "/usr/bin/env"];

fn on_host(check: &mut Check<'_>, place: &Place<'_>, shebang: &Shebang) {
    let program = shebang.behind_env().unwrap_or(&shebang.program);
    let name = program.rsplit('/').next().unwrap_or(program);
    if OF_EVERY_HOST.contains(&program) || name == "sh" {
        check.ask_host("sh".to_owned(), None);
    } else if check.declared(name).is_none() {
        let (explanation, fix) = (
            format!("is run by {program}, which the artefact does not say that its host must have"),
            format!("needs = [\"{name}\"] in [artefact]"),
        );
        report(check, place, program, explanation, fix);
    } else if program.strip_suffix(name).is_some_and(|dir| !dir.is_empty() && !is_usual(dir)) {
        let (explanation, fix) = (
            format!("is run by {program}, a place that no other host has"),
            format!("begin it with #!/usr/bin/env {name}, or start it as an argument of {name}"),
        );
        report(check, place, program, explanation, fix);
    }
}

/// Whether a directory, with a slash behind it, is one of those where hosts have their programs.
fn is_usual(dir: &str) -> bool {
    USUAL_PATH.split(':').any(|usual| Some(usual) == dir.strip_suffix('/'))
}

fn relative(check: &mut Check<'_>, place: &Place<'_>, program: &str) {
    let explanation = format!("has a first line that names `{program}`, which is no absolute path");
    report(check, place, program, explanation, format!("write #!/usr/bin/env {program}"));
}

fn missing(check: &mut Check<'_>, place: &Place<'_>, program: &str) {
    let (explanation, fix) = if program.ends_with('\r') {
        (
            "has a first line that ends with CR LF, so the kernel looks for a program whose name ends with CR"
                .to_owned(),
            "write it with LF alone, such as with `* text=auto eol=lf` in .gitattributes".to_owned(),
        )
    } else if let Some(there) = elsewhere(check, program) {
        (
            format!("is run by {program}, which is not in the artefact; {there} is"),
            format!("begin it with #!{there}, or start it as an argument of {there}"),
        )
    } else {
        (
            format!("is run by {program}, which is not in the artefact, or cannot be executed"),
            format!("put it into [artefact] files or the base, or say why not: {}", ignore_hint(program)),
        )
    };
    report(check, place, program.trim_end_matches('\r'), explanation, fix);
}

/// The program where it is in the artefact, for a script that was installed for another place: of those with its name and
/// that of its directory (`/build/venv/bin/python`, `/app/venv/bin/python`) the one whose path ends most alike.
fn elsewhere(check: &Check<'_>, program: &str) -> Option<String> {
    let parts = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let wanted = parts(program.as_bytes());
    let alike = |path: &[u8]| parts(path).iter().zip(&wanted).take_while(|(part, twin)| part == twin).count();
    let name = wanted.first()?;
    let named = check.rootfs().entries().map(|(path, _)| path).filter(|path| path.ends_with(name));
    let best = named.map(|path| (alike(path), path)).filter(|(alike, _)| *alike >= 2).max()?.1;
    let found = check.rootfs().resolve_file(best)?;
    is_executable(found.node).then(|| shown(best))
}

fn report(check: &mut Check<'_>, place: &Place<'_>, program: &str, explanation: String, fix: String) {
    check.find(Finding {
        severity: place.severity,
        rule: Rule::Script,
        path: shown(place.path),
        needs: Some(program.to_owned()),
        explanation,
        fix,
        chain: place.chain.to_vec(),
    });
}

//! Serverless: whether the platform takes a zip, and finds in it the function that it calls.
//!
//! The handler is looked for in the text of its file, as a person would: nothing is run. A file that is not there, or a name
//! that is nowhere in it, is an error; a name that is in it, and not where it would be seen from outside, is a warning.

use semel_model::runtime::{ARCHITECTURES, DIRECT_BYTES_MAX, Language, Runtime, UNPACKED_BYTES_MAX};

use super::report::{Finding, Rule, Severity};
use super::{Check, ClosureError, LONGEST_METADATA, Node, metadata};

pub(super) fn check(check: &mut Check<'_>) -> Result<(), ClosureError> {
    let Some(runtime) = check.question.runtime else { return Ok(()) };
    check_platform(check, runtime);
    match check.question.handler {
        Some(handler) => check_handler(check, runtime, handler),
        None => Ok(()),
    }
}

fn check_platform(check: &mut Check<'_>, runtime: &Runtime) {
    let size = |node: &Node| if let Node::File { size, .. } = node { *size } else { 0 };
    let unpacked: u64 = check.rootfs().files().map(|(_, node)| size(node)).sum();
    if unpacked > UNPACKED_BYTES_MAX {
        let explanation = format!(
            "has {} MB when it is unpacked, and the platform takes {} MB",
            unpacked / (1 << 20),
            UNPACKED_BYTES_MAX / (1 << 20)
        );
        let fix =
            "leave out what is not needed with `exclude`, or build kind = \"image\", which may have 10 GB";
        find(check, Severity::Error, Rule::Platform, "the zip", explanation, fix);
    } else if check.question.packed_bytes > DIRECT_BYTES_MAX {
        let explanation = format!(
            "has {} MB, and more than {} MB cannot be uploaded directly",
            check.question.packed_bytes / (1 << 20),
            DIRECT_BYTES_MAX / (1 << 20)
        );
        let fix = "upload it through the platform's object store";
        find(check, Severity::Warning, Rule::Platform, "the zip", explanation, fix);
    }
    let architecture = &check.question.platform.architecture;
    if !ARCHITECTURES.contains(&architecture.as_str()) {
        let explanation =
            format!("is for {architecture}, and {} runs on {}", runtime.name, ARCHITECTURES.join(", "));
        find(check, Severity::Error, Rule::Platform, "the zip", explanation, "build it for one of these");
    }
}

/// The file and the function that a handler names, as the language's own runtime takes it apart: Python at the last dot,
/// Node and Ruby at the first one of the last name; what follows there is looked up in what was found. Other languages have
/// archives of their own, which are not looked into.
fn check_handler(check: &mut Check<'_>, runtime: &Runtime, handler: &str) -> Result<(), ClosureError> {
    let name_at = handler.rfind('/').map_or(0, |slash| slash + 1);
    let (dot, endings): (_, &[&str]) = match runtime.language {
        Language::Python(..) => (handler.rfind('.'), &[".py", "/__init__.py"]),
        Language::Node => (handler[name_at..].find('.').map(|dot| name_at + dot), &[".js", ".mjs", ".cjs"]),
        Language::Ruby => (handler[name_at..].find('.').map(|dot| name_at + dot), &[".rb"]),
        Language::Java | Language::DotNet | Language::Provided => return Ok(()),
    };
    let Some((module, function)) = dot.map(|dot| (&handler[..dot], &handler[dot + 1..])) else {
        let fix = "write handler = \"module.function\"";
        find(check, Severity::Error, Rule::Handler, handler, "names no function".to_owned(), fix);
        return Ok(());
    };
    let path = match runtime.language {
        Language::Python(..) => module.replace('.', "/"),
        _ => module.to_owned(),
    };
    let places: Vec<String> = endings.iter().map(|ending| format!("{path}{ending}")).collect();
    let Some(found) = places.iter().find_map(|place| check.rootfs().resolve_file(place.as_bytes())) else {
        if !is_compiled(check, &path) {
            let explanation =
                format!("is in none of the files of the artefact: there is no /{}", places.join(" and no /"));
            let fix = "correct `handler`, or where `files` puts the code";
            find(check, Severity::Error, Rule::Handler, handler, explanation, fix);
        }
        return Ok(());
    };
    if matches!(found.node, Node::File { size, .. } if *size > LONGEST_METADATA) {
        return Ok(());
    }
    let text = metadata(found.path, found.node)?;
    let file = String::from_utf8_lossy(found.path);
    let outermost = function.split(['.', ':']).next().unwrap_or(function);
    let defined = match runtime.language {
        Language::Python(..) => python_defines(&text, outermost),
        Language::Node => node_exports(&text, outermost),
        _ => words_of(&text).any(|word| word == outermost),
    };
    // Where the word is there, it may be defined in a way that cannot be seen: only its absence is certain.
    let severity = match words_of(&text).any(|word| word == outermost) {
        _ if defined => return Ok(()),
        true => Severity::Warning,
        false => Severity::Error,
    };
    let explanation = format!("is not seen in /{file}, which defines no {outermost}");
    find(check, severity, Rule::Handler, handler, explanation, "correct `handler`, or define it there");
    Ok(())
}

/// A module that is an extension, or byte code alone: it cannot be looked into.
fn is_compiled(check: &Check<'_>, path: &str) -> bool {
    let begins = format!("{path}.");
    let ends = [".so", ".pyc"];
    check.rootfs().files().any(|(file, _)| {
        let file = String::from_utf8_lossy(file);
        file.starts_with(&begins) && ends.iter().any(|end| file.ends_with(end))
    })
}

/// Whether a module has a name at its top: a definition, an assignment or an import, which may stand in `if` or `try`.
fn python_defines(text: &str, name: &str) -> bool {
    let (mut is_inside, mut is_text, mut is_open_import) = (false, false, false);
    for line in text.lines() {
        let was_text = is_text;
        is_text ^= (line.matches("\"\"\"").count() + line.matches("'''").count()) % 2 == 1;
        let code = line.split('#').next().unwrap_or_default().trim_end();
        if was_text || code.is_empty() {
            continue;
        }
        let words: Vec<&str> = words_of(code).collect();
        let is_top = !code.starts_with([' ', '\t', ')']);
        if is_top {
            is_inside = matches!(words.first(), Some(&("def" | "class" | "async")));
        } else if is_inside {
            continue;
        }
        let is_import = is_open_import || matches!(words.first(), Some(&("from" | "import")));
        is_open_import = is_import && (is_open_import || code.contains('(')) && !code.contains(')');
        let defines = match words.as_slice() {
            words if is_import => imported(words).contains(&name) || code.ends_with('*'),
            ["async", "def", defined, ..] | ["def" | "class", defined, ..] => *defined == name,
            [first, ..] => *first == name && code.contains('='),
            [] => false,
        };
        if defines {
            return true;
        }
    }
    false
}

/// The names of an import, or of a line within its parentheses.
fn imported<'a, 'b>(words: &'b [&'a str]) -> &'b [&'a str] {
    words.iter().position(|word| *word == "import").map_or(words, |at| &words[at + 1..])
}

/// Whether a module exports a name, in CommonJS or in ECMAScript.
fn node_exports(text: &str, name: &str) -> bool {
    let exports = words_of(text).any(|word| matches!(word, "exports" | "export"));
    let re_exports = text.contains("export *") || text.contains("module.exports = require(");
    exports && (re_exports || words_of(text).any(|word| word == name))
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '$')).filter(|word| !word.is_empty())
}

fn find(check: &mut Check<'_>, severity: Severity, rule: Rule, path: &str, explanation: String, fix: &str) {
    let path = path.to_owned();
    check.find(Finding {
        severity,
        rule,
        path,
        needs: None,
        explanation,
        fix: fix.to_owned(),
        chain: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_python_is_found_where_an_import_finds_it() {
        for (text, expected) in [
            ("def handler(event, context):\n    pass\n", true),
            ("async def handler(event, context): pass\n", true),
            ("handler = make()\n", true),
            ("handler: Handler = make()\n", true),
            ("from .app import handler\n", true),
            ("from .app import main as handler\n", true),
            ("from handler import main\n", false),
            ("from .app import (\n    main,\n    handler,\n)\n", true),
            ("from .app import *\n", true),
            ("try:\n    from fast import handler\nexcept ImportError:\n    from slow import handler\n", true),
            ("class App:\n    def handler(self): pass\n", false),
            ("def main():\n    handler = 1\n", false),
            ("\"\"\"\ndef handler(): is what you write\n\"\"\"\n", false),
            ("# handler = 1\nprint(handler)\n", false),
            ("def handlers(): pass\n", false),
            ("", false),
        ] {
            assert_eq!(python_defines(text, "handler"), expected, "{text}");
        }
    }

    #[test]
    fn a_function_of_node_is_found_in_both_kinds_of_modules() {
        for (text, expected) in [
            ("exports.handler = async () => {}", true),
            ("module.exports = { handler }", true),
            ("module.exports = require('./app')", true),
            ("export const handler = async () => {}", true),
            ("export * from './app.js'", true),
            ("const handler = async () => {}", false),
            ("exports.main = 1", false),
        ] {
            assert_eq!(node_exports(text, "handler"), expected, "{text}");
        }
    }
}

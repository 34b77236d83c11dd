//! Inlined: values that a front end was compiled with, and so is bound to one environment.
//!
//! Bundlers replace variables with certain prefixes by their values. What such variables had during the build is looked for
//! in what came out; and addresses that can only belong to one environment are found by their form.

use std::fs;
use std::io;

use aho_corasick::AhoCorasick;
use semel_model::project::{Command, Definition};

use super::finding::{Finding, Lines, Place, Severity, is_example};
use super::{FrontEnd, LintError};

/// Variables that bundlers compile in: Next.js, Vite, Create React App, Nuxt, Gatsby, Expo, SvelteKit and Astro, Vue CLI, Storybook.
const PREFIXES: &[&str] = &[
    "NEXT_PUBLIC_",
    "VITE_",
    "REACT_APP_",
    "NUXT_PUBLIC_",
    "GATSBY_",
    "EXPO_PUBLIC_",
    "PUBLIC_",
    "VUE_APP_",
    "STORYBOOK_",
];
/// Where bundlers look for them, in the project's directory.
const ENV_FILES: &[&str] =
    &[".env", ".env.local", ".env.production", ".env.production.local", ".env.staging", ".env.development"];
/// Labels of host names that say which environment they belong to, or that nobody outside can reach them.
const LABELS: &[&str] = &[
    "staging", "stage", "stg", "dev", "test", "qa", "uat", "preprod", "prod", "sandbox", "internal", "intra",
    "corp", "local", "lan", "svc",
];
/// Where everybody's documentation and standards lie: their hosts say nothing about the environments of a project.
const PUBLIC: &[&str] = &[
    "android.com",
    "apache.org",
    "apple.com",
    "chromium.org",
    "facebook.com",
    "github.com",
    "google.com",
    "microsoft.com",
    "mozilla.org",
    "mysql.com",
    "nodejs.org",
    "oracle.com",
    "python.org",
    "rust-lang.org",
    "stackexchange.com",
    "w3.org",
    "whatwg.org",
    "wikipedia.org",
];
/// Values shorter than this say nothing.
const VALUE_BYTES_MIN: usize = 8;

/// A variable of the build.
#[derive(Debug)]
struct Pair {
    name: String,
    value: String,
    /// Where it is set.
    from: String,
}

impl Pair {
    fn new(name: &str, value: &str, from: &str) -> Self {
        let value = value.trim().trim_matches(['"', '\'']);
        Self { name: name.trim().to_owned(), value: value.to_owned(), from: from.to_owned() }
    }
}

/// What a front end may have been compiled with.
#[derive(Debug)]
pub(super) struct Values {
    pairs: Vec<Pair>,
    search: Option<AhoCorasick>,
    /// `://`, before which a scheme stands.
    schemes: AhoCorasick,
}

impl Values {
    /// Takes them from the definition, from its commands, and from the files that bundlers read.
    pub(super) fn of(front_end: Option<FrontEnd<'_>>) -> Result<Self, LintError> {
        let Some(FrontEnd { definition, tree }) = front_end else { return Ok(Self::new([])) };
        let mut found = definition_pairs(definition);
        for file in ENV_FILES {
            let path = tree.join(file);
            match fs::read(&path) {
                Ok(bytes) => found.extend(pairs_of(&String::from_utf8_lossy(&bytes), file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(LintError::Read { path, source }),
            }
        }
        Ok(Self::new(found))
    }

    fn new(found: impl IntoIterator<Item = Pair>) -> Self {
        let compiled_in = |pair: &Pair| PREFIXES.iter().any(|prefix| pair.name.starts_with(prefix));
        let long = |pair: &Pair| pair.value.len() >= VALUE_BYTES_MIN;
        let pairs: Vec<_> = found.into_iter().filter(|pair| compiled_in(pair) && long(pair)).collect();
        let search =
            AhoCorasick::new(pairs.iter().map(|pair| &pair.value)).ok().filter(|_| !pairs.is_empty());
        Self { pairs, search, schemes: AhoCorasick::new(["://"]).expect("one short literal") }
    }

    /// Looks at one file that may be part of a front end.
    pub(super) fn find(&self, path: &str, bytes: &[u8]) -> Vec<Finding> {
        const FORMATS: &[&str] = &[".js", ".mjs", ".cjs", ".html", ".css", ".json"];
        if !FORMATS.iter().any(|format| path.ends_with(format)) {
            return Vec::new();
        }
        let mut findings = Vec::new();
        if let Some(search) = &self.search {
            let mut lines = Lines::of(bytes);
            for found in search.find_iter(bytes) {
                let Pair { name, from, .. } = &self.pairs[found.pattern().as_usize()];
                let what = format!("the value that `{name}` ({from}) had during the build");
                findings.push(inlined("inlined/variable", path, lines.line_at(found.start()), what, PAGE));
            }
        }
        if !is_example(path) {
            findings.extend(self.addresses(path, bytes, PAGE));
        }
        findings
    }

    /// Looks at a variable of an image, `NAME=value`.
    pub(super) fn variable(&self, path: &str, text: &str) -> Vec<Finding> {
        let fix = "declare the variable in [config], and give its value to each environment";
        let found = self.addresses(path, text.as_bytes(), fix);
        found.map(|finding| Finding { place: None, ..finding }).collect()
    }

    fn addresses(&self, path: &str, bytes: &[u8], fix: &str) -> impl Iterator<Item = Finding> {
        let mut lines = Lines::of(bytes);
        self.schemes.find_iter(bytes).filter_map(move |found| {
            let host = environment_host(bytes, found.start(), found.end())?;
            let what = format!("the address `{host}`, which belongs to one environment");
            Some(inlined("inlined/address", path, lines.line_at(found.start()), what, fix))
        })
    }
}

/// What to do about a value in a front end.
const PAGE: &str = "read it when the page is loaded: serve a small file, such as /env.js, that the server writes from its configuration";

fn inlined(rule: &str, path: &str, line: u64, what: String, fix: &str) -> Finding {
    Finding {
        severity: Severity::Error,
        rule: rule.to_owned(),
        path: path.to_owned(),
        place: Some(Place::Line(line)),
        layer: None,
        what,
        fix: fix.to_owned(),
    }
}

/// Variables that the definition sets: in its table, or in front of a command.
fn definition_pairs(definition: &Definition) -> Vec<Pair> {
    let build = &definition.build;
    let mut pairs: Vec<_> =
        build.env.iter().map(|(name, value)| Pair::new(name, value, "[build] env")).collect();
    for (key, command) in [("fetch", &build.fetch), ("run", &build.run)] {
        let text = command.as_ref().map(Command::to_string).unwrap_or_default();
        let set = text.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.extend(set.map(|(name, value)| Pair::new(name, value, &format!("[build] {key}"))));
    }
    pairs
}

/// The `NAME=value` lines of a file.
fn pairs_of(text: &str, file: &str) -> Vec<Pair> {
    let lines = text.lines().filter_map(|line| line.trim().trim_start_matches("export ").split_once('='));
    lines.map(|(name, value)| Pair::new(name, value, file)).collect()
}

/// The host of an `http` or `ws` URL, when its name says which environment it belongs to.
fn environment_host(bytes: &[u8], colon: usize, host_at: usize) -> Option<String> {
    let before = &bytes[colon.saturating_sub(5)..colon];
    if ![b"http".as_slice(), b"https", b"ws", b"wss"].iter().any(|scheme| before.ends_with(scheme)) {
        return None;
    }
    let host: Vec<u8> = bytes[host_at..]
        .iter()
        .take(253)
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        .copied()
        .collect();
    let host = String::from_utf8(host).ok()?.to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    if labels.len() >= 2 && PUBLIC.contains(&labels[labels.len() - 2..].join(".").as_str()) {
        return None;
    }
    let telling = |label: &&str| label.split('-').any(|word| LABELS.contains(&word));
    let registered = labels.len().saturating_sub(2);
    let named = labels.len() >= 3 && labels[..registered].iter().any(telling);
    let last = labels.last()?;
    let private = labels.len() >= 2 && matches!(*last, "internal" | "local" | "lan" | "corp" | "svc")
        || is_private_address(&host);
    (named || private).then_some(host)
}

/// RFC 1918.
fn is_private_address(host: &str) -> bool {
    host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_private())
}

#[cfg(test)]
mod tests {
    use semel_model::project::Project;

    use super::*;

    fn values(build: &str, env: &str) -> Values {
        let text = format!(
            "format = 1\ncomponent = \"a\"\n[build]\n{build}\n[artefact]\nkind = \"archive\"\nfiles = [{{ from = \"a\", to = \"/a\" }}]\n"
        );
        let definition = Project::parse("semel.toml", &text).unwrap().definition;
        Values::new(definition_pairs(&definition).into_iter().chain(pairs_of(env, ".env.production")))
    }

    #[test]
    fn a_value_that_was_compiled_in_is_found_wherever_it_came_from() {
        let bundle = b"const a=1;\nfetch(\"https://shop.net/v1/orders\")";
        for (build, env, from) in [
            ("env = { VITE_API = \"https://shop.net/v1\" }", "", "[build] env"),
            ("run = \"VITE_API=https://shop.net/v1 npm run build\"", "", "[build] run"),
            ("", "# shop\nVITE_API=\"https://shop.net/v1\"\n", ".env.production"),
        ] {
            let found = values(build, env).find("/public/main.js", bundle);
            assert_eq!(found.len(), 1, "{from}");
            assert_eq!((found[0].rule.as_str(), found[0].place), ("inlined/variable", Some(Place::Line(2))));
            assert!(found[0].what.contains(from), "{}", found[0].what);
            assert!(!found[0].what.contains("shop.net"), "the value is not repeated");
        }
        assert_eq!(values("env = { API = \"https://shop.net/v1\" }", "").find("/public/main.js", bundle), []);
    }

    #[test]
    fn an_address_of_one_environment_is_found_by_its_form() {
        for (url, found) in [
            ("https://api.staging.shop.net/v1", true),
            ("https://api-dev.shop.net/v1", true),
            ("http://orders.shop.internal:8080/", true),
            ("http://10.1.2.3/", true),
            ("wss://events.prod.shop.net", true),
            ("https://reactjs.org/docs", false),
            ("http://www.w3.org/2000/svg", false),
            ("http://localhost/", false),
            ("https://dev.to/x", false),
            ("http://dev.w3.org/csswg/css-color/", false),
            ("ftp://files.staging.shop.net/", false),
        ] {
            let bundle = format!("x=\"{url}\"");
            let findings = values("", "").find("/public/main.js", bundle.as_bytes());
            assert_eq!(findings.len(), usize::from(found), "{url}");
        }
        assert_eq!(
            values("", "").find("/app/node_modules/a/main.js", b"\"https://api.staging.shop.net\""),
            []
        );
    }
}

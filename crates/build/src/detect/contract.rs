//! The configuration contract, guessed from `.env.example`.

use semel_model::name::ConfigKey;

use super::{DetectError, Look, quoted};

/// Lines for `[config]`.
#[derive(Debug, Default)]
pub(super) struct Guess {
    pub(super) lines: Vec<String>,
    pub(super) has_port: bool,
}

/// Files with the values of one environment.
const OWN: [&str; 5] = [".env", ".env.local", ".env.development", ".env.staging", ".env.production"];

const EXAMPLES: [&str; 4] = [".env.example", ".env.sample", ".env.template", ".env.dist"];

/// Reads the first example file that there is; else the names in `.env`, whose values are somebody's own.
pub(super) fn of_example(look: &mut Look<'_>) -> Result<Guess, DetectError> {
    for name in EXAMPLES {
        if let Some(text) = look.text(name)? {
            return Ok(of_text(&text, rule));
        }
    }
    let own = look.text(".env")?.unwrap_or_default();
    Ok(of_text(&own, rule_without_default))
}

/// What each file of variables that would be in a commit means for the artefact.
pub(super) fn warnings(look: &Look<'_>) -> Vec<String> {
    let committed = OWN.into_iter().filter(|name| look.has_for_commit(name));
    committed
        .map(|name| {
            format!("{name} holds the values of one environment: keep it out of git and of `files`; a build that packages it is refused")
        })
        .collect()
}

fn of_text(text: &str, rule: fn(&str, &str) -> String) -> Guess {
    let mut guess = Guess::default();
    let mut seen = Vec::new();
    for (key, value) in text.lines().filter_map(assignment) {
        if !seen.contains(&key) {
            guess.has_port |= key.as_str() == "PORT";
            guess.lines.push(format!("{key} = {{ {} }}", rule(key.as_str(), &value)));
            seen.push(key);
        }
    }
    guess
}

/// `export KEY="value"  # comment`; anything else on a line is no assignment.
fn assignment(line: &str) -> Option<(ConfigKey, String)> {
    let line = line.trim();
    let (key, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let value = value.trim();
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim(),
    };
    Some((key.trim().parse().ok()?, value.to_owned()))
}

fn rule_without_default(key: &str, value: &str) -> String {
    let secret = if is_secret(key, value) { ", secret = true" } else { "" };
    format!("type = \"{}\"{secret}", kind_of(key, value))
}

fn rule(key: &str, value: &str) -> String {
    let kind = kind_of(key, value);
    if is_secret(key, value) {
        return format!("type = \"{kind}\", secret = true");
    }
    let default = match kind {
        _ if value.is_empty() || value.contains('$') => return format!("type = \"{kind}\""),
        "port" | "int" | "bool" => value.to_owned(),
        _ => quoted(value),
    };
    format!("type = \"{kind}\", default = {default}")
}

fn kind_of(key: &str, value: &str) -> &'static str {
    let is_url = value.split_once("://").is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && !value.contains(char::is_whitespace)
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    // Only what TOML and the contract read as the same number: no sign, no leading zero.
    let number = value.parse::<i64>().ok().filter(|number| number.to_string() == value);
    if (key == "PORT" || key.ends_with("_PORT"))
        && number.is_some_and(|number| (1..=65_535).contains(&number))
    {
        "port"
    } else if number.is_some() {
        "int"
    } else if matches!(value, "true" | "false") {
        "bool"
    } else if is_url {
        "url"
    } else {
        "string"
    }
}

/// By its name, or because the value carries credentials or looks like a key.
fn is_secret(key: &str, value: &str) -> bool {
    const NAMES: [&str; 10] = [
        "SECRET",
        "TOKEN",
        "PASSWORD",
        "PASSWD",
        "KEY",
        "CREDENTIAL",
        "PRIVATE",
        "DSN",
        "DATABASE_URL",
        "PASSPHRASE",
    ];
    let upper = key.to_ascii_uppercase();
    let in_url = value.split_once("://").is_some_and(|(_, rest)| {
        rest.split('/')
            .next()
            .and_then(|authority| authority.rsplit_once('@'))
            .is_some_and(|(user, _)| user.contains(':'))
    });
    NAMES.iter().any(|name| upper.contains(name)) || in_url || looks_random(value)
}

/// Twenty or more characters of the alphabets that keys are written in, letters and digits mixed.
fn looks_random(value: &str) -> bool {
    value.len() >= 20
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/' | b'='))
        && value.bytes().filter(u8::is_ascii_digit).count() >= 3
        && value.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_guessed_and_no_secret_is_copied() {
        let example = r#"
# comment
PORT=8080
export LOG_LEVEL="info"   # how much
DEBUG=false
WORKERS=4
ZIP=00123
PAYMENTS_URL=https://pay.example/v1
DATABASE_URL=postgres://app:hunter2@db/app
QUEUE=amqp://app:hunter2@mq/
API_KEY=hunter2
SESSION=f3a91c0077b14ee2a9d8c6e5
EMPTY=
HOME_DIR=$HOME/x
SEMEL_X=1
not an assignment
PORT=9090
"#;
        let guess = of_text(example, rule);
        assert!(guess.has_port);
        assert_eq!(
            guess.lines,
            [
                "PORT = { type = \"port\", default = 8080 }",
                "LOG_LEVEL = { type = \"string\", default = \"info\" }",
                "DEBUG = { type = \"bool\", default = false }",
                "WORKERS = { type = \"int\", default = 4 }",
                "ZIP = { type = \"string\", default = \"00123\" }",
                "PAYMENTS_URL = { type = \"url\", default = \"https://pay.example/v1\" }",
                "DATABASE_URL = { type = \"url\", secret = true }",
                "QUEUE = { type = \"url\", secret = true }",
                "API_KEY = { type = \"string\", secret = true }",
                "SESSION = { type = \"string\", secret = true }",
                "EMPTY = { type = \"string\" }",
                "HOME_DIR = { type = \"string\" }",
            ]
        );
        assert!(!format!("{guess:?}").contains("hunter2"));
    }
}

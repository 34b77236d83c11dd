//! The known forms of secrets. Prefixes and lengths are those that the issuers publish.

use std::ops::Range;

use super::finding::{Finding, Place, Severity, is_example};

/// One form.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: &'static str,
    pub(super) severity: Severity,
    /// Whether the form is so particular that it is no example, wherever it lies.
    pub(super) proven: bool,
    pub(super) what: &'static str,
    /// Texts of which each secret contains one.
    pub(super) anchors: &'static [&'static str],
    /// Where the secret is, given all bytes at hand and the place of the anchor.
    pub(super) verify: Verify,
}

type Verify = fn(&[u8], Range<usize>) -> Option<Range<usize>>;

const fn error(
    id: &'static str,
    what: &'static str,
    anchors: &'static [&'static str],
    verify: Verify,
) -> Rule {
    Rule { id, severity: Severity::Error, proven: false, what, anchors, verify }
}

const fn warning(
    id: &'static str,
    what: &'static str,
    anchors: &'static [&'static str],
    verify: Verify,
) -> Rule {
    Rule { id, severity: Severity::Warning, proven: false, what, anchors, verify }
}

/// All forms.
pub(super) const RULES: &[Rule] = &[
    error("private-key", "a private key", &["PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"], private_key),
    error("age-key", "an age identity", &["AGE-SECRET-KEY-1"], |b, a| run(b, a, upper_digit, 58, 58)),
    error("aws-access-key", "an AWS access key", &["AKIA", "ASIA"], |b, a| {
        run(b, a, base32, 16, 16).filter(|range| !b[range.clone()].ends_with(b"EXAMPLE"))
    }),
    error("github-token", "a GitHub token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], |b, a| {
        run(b, a, alnum, 36, 36)
    }),
    error("github-token", "a GitHub token", &["github_pat_"], |b, a| run(b, a, word, 82, 82)),
    error("gitlab-token", "a GitLab token", &["glpat-", "glptt-", "gldt-", "glrt-"], |b, a| {
        run(b, a, word_dash, 20, 64)
    }),
    error("npm-token", "an npm token", &["npm_"], |b, a| run(b, a, alnum, 36, 36)),
    error("npm-token", "a token of an npm registry", &["_authToken="], assigned),
    error("pypi-token", "a PyPI token", &["pypi-AgEIcHlwaS5vcmc"], |b, a| run(b, a, word_dash, 50, 1000)),
    error("slack-token", "a Slack token", &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-"], slack),
    error("slack-webhook", "a Slack webhook", &["hooks.slack.com/services/T"], |b, a| {
        run(b, a, word_slash, 30, 80)
    }),
    error("stripe-key", "a live Stripe key", &["sk_live_", "rk_live_"], |b, a| run(b, a, alnum, 20, 247)),
    warning("google-api-key", "a Google API key", &["AIza"], |b, a| run(b, a, word_dash, 35, 35)),
    error("google-oauth-secret", "a Google OAuth client secret", &["GOCSPX-"], |b, a| {
        run(b, a, word_dash, 28, 28)
    }),
    error("azure-storage-key", "an Azure storage key", &["AccountKey="], |b, a| run(b, a, base64, 86, 88)),
    error("sendgrid-key", "a SendGrid key", &["SG."], sendgrid),
    error("vault-token", "a Vault token", &["hvs.", "hvb."], |b, a| run(b, a, word_dash, 90, 400)),
    error("digitalocean-token", "a DigitalOcean token", &["dop_v1_", "doo_v1_"], |b, a| {
        run(b, a, lower_hex, 64, 64)
    }),
    error("shopify-token", "a Shopify token", &["shpat_", "shpss_"], |b, a| run(b, a, hexadecimal, 32, 32)),
    error("openai-key", "an OpenAI key", &["sk-proj-"], |b, a| run(b, a, word_dash, 40, 300)),
    error("anthropic-key", "an Anthropic key", &["sk-ant-"], |b, a| run(b, a, word_dash, 80, 300)),
    error("huggingface-token", "a Hugging Face token", &["hf_"], |b, a| run(b, a, alnum, 34, 34)),
    error("databricks-token", "a Databricks token", &["dapi"], |b, a| run(b, a, lower_hex, 32, 32)),
    error("doppler-token", "a Doppler token", &["dp.pt.", "dp.st."], |b, a| run(b, a, word_dash, 40, 80)),
    warning("jwt", "a JSON web token", &["eyJhbGciOi", "eyJ0eXAiOi"], jwt),
    error("password-in-url", "a password in a URL", &["://"], password_in_url),
];

/// A secret that is its anchor and between `least` and `most` bytes of a set, with something else around it.
fn run(
    bytes: &[u8],
    anchor: Range<usize>,
    set: fn(u8) -> bool,
    least: usize,
    most: usize,
) -> Option<Range<usize>> {
    let before = anchor.start.checked_sub(1).map(|at| bytes[at]);
    if before.is_some_and(word) {
        return None;
    }
    let length = bytes[anchor.end..].iter().take(most + 1).take_while(|byte| set(**byte)).count();
    let whole = anchor.start..anchor.end + length;
    let varied = distinct(&bytes[anchor.end..whole.end]) >= 6;
    (length >= least && length <= most && varied).then_some(whole)
}

/// RFC 7468: a label of private keys, then base64 lines. Only the label stands in every program that reads keys.
fn private_key(bytes: &[u8], anchor: Range<usize>) -> Option<Range<usize>> {
    const LABELS: &[&[u8]] = &[b"", b"RSA ", b"EC ", b"DSA ", b"OPENSSH ", b"ENCRYPTED ", b"PGP "];
    let head = &bytes[..anchor.start];
    let begin = LABELS
        .iter()
        .find_map(|label| head.strip_suffix(*label)?.strip_suffix(b"-----BEGIN ").map(<[u8]>::len))?;
    // Line ends may be escaped, as in JSON.
    let body = bytes[anchor.end..].iter().take(400);
    let kept = body.filter(|byte| !matches!(byte, b'\n' | b'\r' | b' ' | b'\\' | b'"' | b','));
    let key = kept.take_while(|byte| base64(**byte) || matches!(byte, b':' | b'-')).count();
    (key >= 64).then_some(begin..anchor.end)
}

/// `name=value`, where the value is none of the ways to say that it comes from elsewhere.
fn assigned(bytes: &[u8], anchor: Range<usize>) -> Option<Range<usize>> {
    let quoted = |byte: &&u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b',');
    let length = bytes[anchor.end..].iter().take(200).take_while(quoted).count();
    let range = anchor.end..anchor.end + length;
    (length >= 16 && !is_placeholder(&bytes[range.clone()])).then_some(range)
}

fn slack(bytes: &[u8], anchor: Range<usize>) -> Option<Range<usize>> {
    let digits = bytes[anchor.end..].iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    if digits < 9 {
        return None;
    }
    run(bytes, anchor, word_dash, 24, 120)
}

fn sendgrid(bytes: &[u8], anchor: Range<usize>) -> Option<Range<usize>> {
    let first = run(bytes, anchor, word_dash, 22, 22)?;
    let rest = bytes.get(first.end..)?.strip_prefix(b".")?;
    let length = rest.iter().take(44).take_while(|byte| word_dash(**byte)).count();
    (length == 43).then_some(first.start..first.end + 44)
}

/// RFC 7515, section 3.1: three base64url parts, the first two of them JSON objects.
fn jwt(bytes: &[u8], anchor: Range<usize>) -> Option<Range<usize>> {
    let part = |from: usize| bytes[from..].iter().take(3000).take_while(|byte| word_dash(**byte)).count();
    let first = anchor.start + part(anchor.start);
    let second = first + 1;
    if bytes.get(first) != Some(&b'.') || !bytes[second..].starts_with(b"eyJ") {
        return None;
    }
    let third = second + part(second) + 1;
    if bytes.get(third - 1) != Some(&b'.') {
        return None;
    }
    let signature = part(third);
    (signature >= 20).then_some(anchor.start..third + signature)
}

/// RFC 3986, section 3.2.1: `scheme://user:password@host`.
fn password_in_url(bytes: &[u8], anchor: Range<usize>) -> Option<Range<usize>> {
    let scheme = bytes[..anchor.start].iter().rev().take(24).take_while(|byte| scheme_byte(**byte)).count();
    if scheme < 2 {
        return None;
    }
    let rest = &bytes[anchor.end..];
    let authority = &rest[..rest.iter().take(300).take_while(|byte| authority_byte(**byte)).count()];
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    let colon = authority[..at].iter().position(|byte| *byte == b':')?;
    let (password, host) = (&authority[colon + 1..at], &authority[at + 1..]);
    if password.len() < 3 || host.is_empty() || is_placeholder(password) || is_example_host(host) {
        return None;
    }
    let start = anchor.end + colon + 1;
    Some(start..start + password.len())
}

fn is_example_host(host: &[u8]) -> bool {
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let name = host.split(':').next().unwrap_or("");
    matches!(name, "localhost" | "127.0.0.1" | "host" | "hostname" | "server" | "proxy" | "domain")
        || name
            .split('.')
            .any(|label| matches!(label, "example" | "test" | "invalid" | "localhost" | "foo" | "bar"))
        || is_placeholder(host.as_bytes())
}

/// Whether a value says where a value would stand.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    const WORDS: &[&str] = &[
        "pass",
        "secret",
        "changeme",
        "change-me",
        "example",
        "placeholder",
        "dummy",
        "redacted",
        "your",
        "xxx",
        "***",
        "...",
        "user",
        "token",
        "1234",
        "foo",
        "bar",
        "test",
        "none",
        "null",
        "undefined",
    ];
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let templated = text.contains(['$', '{', '<', '%', '*', '`', '[', '\\', '\'', '"', '+', '#', '(']);
    templated || distinct(value) < 3 || WORDS.iter().any(|word| text.contains(word))
}

/// Values for names that say "secret", in files that configure something. A guess, so never more than a warning.
pub(super) fn assignments(path: &str, text: &[u8]) -> Vec<Finding> {
    const SUFFIXES: &[&str] =
        &[".env", ".ini", ".cfg", ".conf", ".properties", ".toml", ".yaml", ".yml", ".json", ".xml"];
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let configures = name.starts_with(".env") || SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    if !configures || is_example(path) || name.contains("lock") {
        return Vec::new();
    }
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    lines.filter_map(|(line, number)| assignment(path, line, number)).collect()
}

fn assignment(path: &str, line: &[u8], number: u64) -> Option<Finding> {
    // A word that ends in "token" is as often a place in a list.
    const NAMES: &[&str] = &[
        "password",
        "passwd",
        "secret",
        "apikey",
        "privatekey",
        "accesskey",
        "secretkey",
        "credential",
        "credentials",
        "accesstoken",
        "refreshtoken",
        "authtoken",
        "apitoken",
        "bearertoken",
    ];
    let at = line.iter().position(|byte| matches!(byte, b'=' | b':'))?;
    let name = String::from_utf8_lossy(&line[..at]).trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    let value = line[at + 1..].trim_ascii();
    let value = value.strip_suffix(b",").unwrap_or(value);
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    let plain = name.replace(['-', '_', '.'], "");
    let named = plain == "token" || NAMES.iter().any(|word| plain.ends_with(word));
    let graphic = value.iter().all(u8::is_ascii_graphic);
    // Words and paths of a program have no digits.
    let mixed = value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic);
    if !named
        || !graphic
        || !mixed
        || !(12..=512).contains(&value.len())
        || is_placeholder(value)
        || entropy(value) < 3.3
    {
        return None;
    }
    Some(Finding {
        severity: Severity::Warning,
        rule: "secret/assignment".to_owned(),
        path: path.to_owned(),
        place: Some(Place::Line(number)),
        layer: None,
        what: format!("`{name}` has a value that looks like a secret ({} characters)", value.len()),
        fix: "declare the key in [config] with `secret = true` and give its value to each environment"
            .to_owned(),
    })
}

/// Shannon's entropy in bits for each byte.
fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = value.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|p| -p * p.log2())
        .sum()
}

/// How many different bytes there are.
fn distinct(value: &[u8]) -> usize {
    let mut seen = [false; 256];
    value.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count()
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn word_dash(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn word_slash(byte: u8) -> bool {
    word(byte) || byte == b'/'
}

fn upper_digit(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn base32(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7')
}

fn base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

fn lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn hexadecimal(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-')
}

/// What may stand between `//` and the path, and can stand in a password that was not encoded.
fn authority_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'`' | b',' | b';' | b')' | b'|')
}

#[cfg(test)]
mod tests {
    use super::super::scan::Scanner;

    /// The rules that fire. Secrets are put together here, so that no scanner finds them in this file.
    fn fired(text: &str) -> Vec<String> {
        let mut fired = Vec::new();
        Scanner::new()
            .stream(text.as_bytes(), &mut |hit| fired.push(hit.finding("/app/settings").rule))
            .unwrap();
        fired
    }

    const MIXED: &str =
        "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2bC3dE4fG5hJ6kL7mN8pQ9rS0tU1vW2xY3zA4bC5dE6fG7hJ8";

    #[test]
    fn every_form_is_found() {
        let m = |n: usize| &MIXED[..n];
        let hex = "0123456789abcdef".repeat(4);
        let pem = format!("-----BEGIN EC {}\n{}\n", "PRIVATE KEY-----", m(70));
        let escaped = format!("\"-----BEGIN {}\\n{}\\n\"", "PRIVATE KEY-----", m(70));
        for (text, rule) in [
            (pem, "private-key"),
            (escaped, "private-key"),
            (format!("{}{}", "AK", "IAQWERTYUIOP234567"), "aws-access-key"),
            (format!("{}_{}", "ghp", m(36)), "github-token"),
            (format!("{}-{}", "glpat", m(20)), "gitlab-token"),
            (format!("//registry/:{}={}", "_authToken", m(36)), "npm-token"),
            (format!("{}_{}", "npm", m(36)), "npm-token"),
            (format!("{}-123456789012-{}", "xoxb", m(24)), "slack-token"),
            (format!("{}_live_{}", "sk", m(24)), "stripe-key"),
            (format!("{}za{}", "AI", m(35)), "google-api-key"),
            (format!("{}.{}.{}", "SG", m(22), m(43)), "sendgrid-key"),
            (format!("{}.{1}{1}", "hvs", m(50)), "vault-token"),
            (format!("{}_v1_{hex}", "dop"), "digitalocean-token"),
            (format!("{}.{}J9.{}", "eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIx", m(43)), "jwt"),
            (format!("postgres://shop:{}@db.shop.net/shop", m(9)), "password-in-url"),
        ] {
            assert_eq!(fired(&format!("x = \"{text}\"\n")), [format!("secret/{rule}")], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        for text in [
            "-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY----- is the label",
            "AKIAIOSFODNN7EXAMPLE",
            "XAKIAQWERTYUIOP234567",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "//registry.npmjs.org/:_authToken=${NPM_TOKEN_FROM_ENV}",
            "postgres://user:password@localhost/db",
            "postgres://shop:${DB_PASSWORD}@db.shop.net/shop",
            "https://user:hunter77@example.com/",
            "http://[::1]:8080/a@b",
            "see https://docs.rs/tokio:1@2",
            "glpat-glptt-gldt-glrt-npm_pypi-AgEIcHlwaS5vcmc",
        ] {
            assert_eq!(fired(text), Vec::<String>::new(), "{text}");
        }
    }
}

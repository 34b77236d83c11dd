//! Requirement: `requests[socks] >= 2.8, != 2.9; python_version < "3.9"` (PyPA, "Dependency specifiers", PEP 508).

use std::collections::BTreeSet;
use std::fmt;

use super::version::{Specifier, Version};

/// What a distribution requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    /// The name in its one spelling.
    pub(super) name: String,
    /// The extras of it that are required, in their one spelling.
    pub(super) extras: Vec<String>,
    specifiers: Vec<Specifier>,
    marker: Option<Marker>,
}

/// When a requirement holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Marker {
    All(Vec<Self>),
    Any(Vec<Self>),
    Compare { left: Operand, operator: String, right: Operand },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    Variable(String),
    Text(String),
}

/// What markers are evaluated for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The version of Python, if it is known.
    pub(super) python: Option<(u32, u32)>,
    /// The processor as Linux calls it: `x86_64`.
    pub(super) machine: String,
}

/// A name in its one spelling (PyPA, "Names and normalization", PEP 503).
pub(super) fn normal(name: &str) -> String {
    let parts = name.trim().split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

impl Requirement {
    /// Reads a requirement; `None`: it cannot be read.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (what, marker) = match text.split_once(';') {
            Some((what, marker)) => (what, Some(Parser::of(marker)?.marker()?)),
            None => (text, None),
        };
        let what = what.trim();
        let end =
            what.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).unwrap_or(what.len());
        let (name, rest) = what.split_at(end);
        let rest = rest.trim();
        let (extras, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((extras, rest)) => (extras, rest.trim()),
            None => ("", rest),
        };
        // `name @ URL` says where it came from, not which version it is.
        let versions = if rest.starts_with('@') { "" } else { rest.trim_matches(['(', ')']) };
        let listed =
            |text: &str| text.split(',').filter(|part| !part.trim().is_empty()).map(str::to_owned).collect();
        let (extras, versions): (Vec<String>, Vec<String>) = (listed(extras), listed(versions));
        Some(Self {
            name: Some(normal(name)).filter(|name| !name.is_empty())?,
            extras: extras.iter().map(|extra| normal(extra)).collect(),
            specifiers: versions.iter().map(|one| Specifier::parse(one)).collect::<Option<_>>()?,
            marker,
        })
    }

    /// Whether it holds here, for a distribution that is asked for with these extras. What is not known does not hold: no
    /// problem is made up.
    pub(super) fn applies(&self, surroundings: &Surroundings, extras: &BTreeSet<String>) -> bool {
        self.marker.as_ref().is_none_or(|marker| marker.holds(surroundings, extras) == Some(true))
    }

    /// Whether a version will do.
    pub(super) fn allows(&self, version: &Version) -> bool {
        self.specifiers.iter().all(|specifier| specifier.allows(version))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.extras.is_empty() {
            write!(f, "[{}]", self.extras.join(","))?;
        }
        let versions: Vec<String> = self.specifiers.iter().map(Specifier::to_string).collect();
        if versions.is_empty() { Ok(()) } else { write!(f, " {}", versions.join(",")) }
    }
}

impl Marker {
    fn holds(&self, surroundings: &Surroundings, extras: &BTreeSet<String>) -> Option<bool> {
        match self {
            Self::All(parts) => decided(parts, false, surroundings, extras),
            Self::Any(parts) => decided(parts, true, surroundings, extras),
            Self::Compare { left, operator, right } => compare(left, operator, right, surroundings, extras),
        }
    }
}

/// What several markers come to, of which one that is `decisive` decides; what is not known decides nothing.
fn decided(
    parts: &[Marker],
    decisive: bool,
    surroundings: &Surroundings,
    extras: &BTreeSet<String>,
) -> Option<bool> {
    let mut all_known = true;
    for part in parts {
        match part.holds(surroundings, extras) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(!decisive)
}

fn compare(
    left: &Operand,
    operator: &str,
    right: &Operand,
    surroundings: &Surroundings,
    extras: &BTreeSet<String>,
) -> Option<bool> {
    if let (Operand::Variable(name), Operand::Text(extra)) | (Operand::Text(extra), Operand::Variable(name)) =
        (left, right)
        && name == "extra"
    {
        return Some(extras.contains(&normal(extra)) == (operator != "!="));
    }
    let (one, other) = (surroundings.value(left)?, surroundings.value(right)?);
    let about_version = [left, right].iter().any(|side| matches!(side, Operand::Variable(name) if name.ends_with("_version") && name != "platform_version"));
    if about_version && !matches!(operator, "in" | "not in") {
        let version = Version::parse(&one)?;
        return Some(Specifier::parse(&format!("{operator}{other}"))?.allows(&version));
    }
    Some(match operator {
        "==" | "===" => one == other,
        "!=" => one != other,
        "<" => one < other,
        "<=" => one <= other,
        ">" => one > other,
        ">=" => one >= other,
        "in" => other.contains(&one),
        "not in" => !other.contains(&one),
        _ => return None,
    })
}

impl Surroundings {
    fn value(&self, operand: &Operand) -> Option<String> {
        let Operand::Variable(name) = operand else {
            let Operand::Text(text) = operand else { return None };
            return Some(text.clone());
        };
        let python = || self.python.map(|(major, minor)| format!("{major}.{minor}"));
        match name.as_str() {
            "os_name" => Some("posix".to_owned()),
            "sys_platform" => Some("linux".to_owned()),
            "platform_system" => Some("Linux".to_owned()),
            "platform_machine" => Some(self.machine.clone()),
            "platform_python_implementation" => Some("CPython".to_owned()),
            "implementation_name" => Some("cpython".to_owned()),
            "python_version" | "implementation_version" => python(),
            // The third number is not known; comparisons are with the beginning of a series, nearly always.
            "python_full_version" => python().map(|version| format!("{version}.99")),
            _ => None,
        }
    }

    /// Whether a wheel with a tag can be used: `cp311-cp311-manylinux_2_17_x86_64`
    /// (PyPA, "Platform compatibility tags").
    pub(super) fn accepts(&self, tag: &str) -> bool {
        let mut parts = tag.split('-');
        let (pythons, abis, platforms) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let for_platform = |platform: &str| {
            let of_linux =
                ["linux_", "manylinux", "musllinux"].iter().any(|system| platform.starts_with(system));
            platform == "any" || (of_linux && platform.ends_with(&self.machine))
        };
        let for_python = |python: &str| match (self.python, python.strip_prefix("cp3")) {
            (Some((3, minor)), Some(wanted)) if abis == "abi3" => {
                wanted.parse::<u32>().is_ok_and(|least| minor >= least)
            }
            (Some((3, minor)), Some(wanted)) => wanted.parse() == Ok(minor),
            // Without a known version, or for every Python 3.
            _ => !python.starts_with("py2") && !python.starts_with("cp2"),
        };
        platforms.split('.').any(for_platform) && pythons.split('.').any(for_python)
    }
}

/// Reads a marker: comparisons, `and`, `or`, parentheses.
struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(String),
}

/// Nobody nests deeper; metadata of strangers must not exhaust the stack.
const DEEPEST: usize = 32;

impl Parser {
    fn of(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let (token, after) = if first == '\'' || first == '"' {
                let (inside, after) = rest[1..].split_once(first)?;
                (Token::Text(inside.to_owned()), after)
            } else if first == '(' || first == ')' {
                (Token::Sign(first.to_string()), &rest[1..])
            } else {
                let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
                let kind = is_word(first);
                let ends =
                    |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '\'' | '"') || is_word(c) != kind;
                let end = rest.find(ends).unwrap_or(rest.len());
                let token = rest[..end].to_owned();
                (if kind { Token::Word(token) } else { Token::Sign(token) }, &rest[end..])
            };
            tokens.push(token);
            rest = after.trim_start();
        }
        Some(Self { tokens, at: 0, depth: 0 })
    }

    fn marker(mut self) -> Option<Marker> {
        let marker = self.any()?;
        (self.at == self.tokens.len()).then_some(marker)
    }

    fn any(&mut self) -> Option<Marker> {
        let mut parts = vec![self.all()?];
        while self.takes(&Token::Word("or".to_owned())) {
            parts.push(self.all()?);
        }
        Some(Marker::Any(parts))
    }

    fn all(&mut self) -> Option<Marker> {
        let mut parts = vec![self.one()?];
        while self.takes(&Token::Word("and".to_owned())) {
            parts.push(self.one()?);
        }
        Some(Marker::All(parts))
    }

    fn one(&mut self) -> Option<Marker> {
        if self.takes(&Token::Sign("(".to_owned())) {
            self.depth += 1;
            let inside = (self.depth <= DEEPEST).then(|| self.any())??;
            self.depth -= 1;
            return self.takes(&Token::Sign(")".to_owned())).then_some(inside);
        }
        let left = self.operand()?;
        let operator = match self.next()? {
            Token::Word(word) if word == "not" => match self.next()? {
                Token::Word(word) if word == "in" => "not in".to_owned(),
                _ => return None,
            },
            Token::Word(word) | Token::Sign(word) => word,
            Token::Text(_) => return None,
        };
        Some(Marker::Compare { left, operator, right: self.operand()? })
    }

    fn operand(&mut self) -> Option<Operand> {
        match self.next()? {
            Token::Word(word) => Some(Operand::Variable(word.replace('.', "_"))),
            Token::Text(text) => Some(Operand::Text(text)),
            Token::Sign(_) => None,
        }
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn takes(&mut self, token: &Token) -> bool {
        let there = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(there);
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_in_every_spelling() {
        for (text, expected) in [
            ("requests", "requests"),
            ("Zope.Interface >= 5.0", "zope-interface >=5.0"),
            ("requests[security,Socks_5]>=2.8.1,!=2.9", "requests[security,socks-5] >=2.8.1,!=2.9"),
            ("pytz (>=2020)", "pytz >=2020"),
            ("pip @ https://example.org/pip.zip", "pip"),
        ] {
            assert_eq!(Requirement::parse(text).unwrap().to_string(), expected, "{text}");
        }
        for none in ["", "[x]", "a b", "a >> 1", "a; x", "a; (x == 'y'", "a; 'x' 'y' 'z'", "a; os_name == 'x"]
        {
            assert_eq!(Requirement::parse(none), None, "{none}");
        }
        let deep = format!("a; {}os_name == 'x'", "(".repeat(100_000));
        assert_eq!(Requirement::parse(&deep), None);
        let here = Surroundings { python: None, machine: String::new() };
        for (word, expected) in [("and", false), ("or", true)] {
            let long = format!("a; os_name == 'x'{}", format!(" {word} os_name == 'posix'").repeat(300_000));
            assert_eq!(Requirement::parse(&long).unwrap().applies(&here, &BTreeSet::new()), expected);
        }
    }

    #[test]
    fn markers_hold_for_the_target_and_not_for_this_machine() {
        let here = Surroundings { python: Some((3, 11)), machine: "aarch64".to_owned() };
        let extras = BTreeSet::from(["socks".to_owned()]);
        for (marker, expected) in [
            ("python_version < '3.9'", false),
            ("python_version >= \"3.9\"", true),
            ("python_full_version >= '3.11.0a1'", true),
            ("python_version in '3.10 3.11'", true),
            ("platform_machine == 'x86_64'", false),
            ("sys_platform == 'win32' or os.name == 'posix'", true),
            ("platform_system != 'Linux' and python_version > '2'", false),
            ("(extra == 'socks') and (python_version>='3')", true),
            ("extra == 'Tests'", false),
            ("'linux' not in sys_platform", false),
            ("something_new == 'x'", false),
            ("something_new == 'x' or sys_platform == 'linux'", true),
        ] {
            let applies = Requirement::parse(&format!("a; {marker}")).unwrap().applies(&here, &extras);
            assert_eq!(applies, expected, "{marker}");
        }
        let unknown = Surroundings { python: None, ..here };
        assert!(!Requirement::parse("a; python_version < '3.9'").unwrap().applies(&unknown, &extras));
    }

    #[test]
    fn wheels_are_accepted_for_the_platform_they_were_made_for() {
        let here = Surroundings { python: Some((3, 11)), machine: "x86_64".to_owned() };
        for (tag, expected) in [
            ("py3-none-any", true),
            ("py2.py3-none-any", true),
            ("py2-none-any", false),
            ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", true),
            ("cp311-cp311-musllinux_1_2_x86_64", true),
            ("cp311-cp311-manylinux_2_17_aarch64", false),
            ("cp311-cp311-macosx_11_0_arm64", false),
            ("cp310-cp310-linux_x86_64", false),
            ("cp38-abi3-linux_x86_64", true),
            ("cp312-abi3-linux_x86_64", false),
        ] {
            assert_eq!(here.accepts(tag), expected, "{tag}");
        }
    }
}

//! Version: versions of Python distributions and what is said about them (PyPA, "Version specifiers", PEP 440).

use std::cmp::Ordering;

/// A version in the order of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    epoch: u64,
    release: Vec<u64>,
    pre: Option<(Phase, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    local: String,
}

/// The phases before a release, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Alpha,
    Beta,
    Candidate,
}

impl Version {
    /// Reads a version in any spelling that the specification allows.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix('v').unwrap_or(&text);
        let (public, local) = text.split_once('+').unwrap_or((text, ""));
        let (epoch, rest) = public.split_once('!').unwrap_or(("0", public));
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (release, suffix) = rest.split_at(end);
        let release = release.trim_end_matches('.').split('.').map(|part| part.parse().ok());
        let mut version = Self {
            epoch: epoch.parse().ok()?,
            release: release.collect::<Option<_>>()?,
            pre: None,
            post: None,
            dev: None,
            local: local.to_owned(),
        };
        version.read_suffix(suffix).then_some(version)
    }

    /// Words and numbers behind the release: `a1`, `.post2`, `-3`, `.dev4`.
    fn read_suffix(&mut self, suffix: &str) -> bool {
        let mut rest = suffix;
        while !rest.is_empty() {
            let separated = rest.trim_start_matches(['.', '-', '_']);
            let word_end = separated.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(separated.len());
            let (word, after) = separated.split_at(word_end);
            let number = after.trim_start_matches(['.', '-', '_']);
            let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            let value = number[..digits].parse().unwrap_or(0);
            match word {
                "a" | "alpha" => self.pre = Some((Phase::Alpha, value)),
                "b" | "beta" => self.pre = Some((Phase::Beta, value)),
                "c" | "rc" | "pre" | "preview" => self.pre = Some((Phase::Candidate, value)),
                "post" | "rev" | "r" => self.post = Some(value),
                "dev" => self.dev = Some(value),
                // `1.0-1` is a post release.
                "" if digits > 0 && rest.starts_with('-') => self.post = Some(value),
                _ => return false,
            }
            rest = if digits == 0 { after } else { &number[digits..] };
        }
        true
    }

    /// Where pre- and post-releases stand beside their release.
    fn rank(&self) -> (u8, Option<(Phase, u64)>, Option<u64>, bool, u64) {
        let before = match (self.pre, self.post, self.dev) {
            (None, None, Some(_)) => 0,
            (Some(_), _, _) => 1,
            (None, _, _) => 2,
        };
        (before, self.pre, self.post, self.dev.is_none(), self.dev.unwrap_or(0))
    }

    fn part(&self, at: usize) -> u64 {
        self.release.get(at).copied().unwrap_or(0)
    }

    fn public(&self) -> Self {
        Self { local: String::new(), ..self.clone() }
    }

    fn starts_with(&self, prefix: &Self) -> bool {
        self.epoch == prefix.epoch && (0..prefix.release.len()).all(|at| self.part(at) == prefix.part(at))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let longest = self.release.len().max(other.release.len());
        let release = (0..longest).map(|at| self.part(at).cmp(&other.part(at))).find(|order| order.is_ne());
        let order = self.epoch.cmp(&other.epoch).then(release.unwrap_or(Ordering::Equal));
        Some(order.then_with(|| self.rank().cmp(&other.rank())).then_with(|| self.local.cmp(&other.local)))
    }
}

/// One clause about versions: `>=1.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Specifier {
    operator: &'static str,
    text: String,
}

/// The longer ones come before those that they begin with.
const OPERATORS: [&str; 8] = ["===", "==", "!=", "~=", "<=", ">=", "<", ">"];

impl Specifier {
    /// Reads one clause.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let operator = OPERATORS.into_iter().find(|operator| text.starts_with(operator))?;
        let version = text[operator.len()..].trim();
        version.starts_with(|c: char| c.is_ascii_alphanumeric()).then_some(())?;
        Some(Self { operator, text: version.to_owned() })
    }

    /// Whether a version fits. A clause that cannot be read allows everything.
    pub(super) fn allows(&self, version: &Version) -> bool {
        if let Some(prefix) = self.text.strip_suffix(".*") {
            let Some(prefix) = Version::parse(prefix) else { return true };
            return version.starts_with(&prefix) == (self.operator != "!=");
        }
        let Some(wanted) = Version::parse(&self.text) else { return true };
        // Where nobody asks for a local part, it does not count.
        let version = if wanted.local.is_empty() { version.public() } else { version.clone() };
        match self.operator {
            "==" | "===" => version.partial_cmp(&wanted) == Some(Ordering::Equal),
            "!=" => version.partial_cmp(&wanted) != Some(Ordering::Equal),
            "<=" => version <= wanted,
            ">=" => version >= wanted,
            // A pre-release of the version that is named is not before it, and a post-release not behind it.
            "<" => {
                version < wanted
                    && (wanted.pre.is_some() || version.pre.is_none() || !version.starts_with(&wanted))
            }
            ">" => {
                version > wanted
                    && (wanted.post.is_some() || version.post.is_none() || !version.starts_with(&wanted))
            }
            _ => {
                let mut prefix = wanted.public();
                prefix.release.pop();
                version >= wanted && version.starts_with(&prefix)
            }
        }
    }
}

impl std::fmt::Display for Specifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.operator, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_the_order_of_the_specification() {
        let ordered = [
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.0.15",
            "1.1.dev1",
            "1!0.5",
        ];
        for pair in ordered.windows(2) {
            let versions: Vec<_> = pair.iter().map(|text| Version::parse(text).unwrap()).collect();
            assert!(versions[0] < versions[1], "{pair:?}");
        }
    }

    #[test]
    fn spellings_of_a_version_are_one() {
        for (one, other) in
            [("1.0", "1"), ("v1.0-RC.1", "1.0rc1"), ("1.0-1", "1.0.post1"), ("1.0alpha", "1.0a0")]
        {
            let (one, other) = (Version::parse(one).unwrap(), Version::parse(other).unwrap());
            assert_eq!(one.partial_cmp(&other), Some(Ordering::Equal), "{one:?} {other:?}");
        }
        for none in ["", "one", "1.0x2", "1..0", "1.0.garbage"] {
            assert_eq!(Version::parse(none), None, "{none}");
        }
    }

    #[test]
    fn specifiers_allow_what_the_specification_says() {
        let cases = [
            (">=1.2", "1.2.0", true),
            (">=1.2", "1.10", true),
            (">=1.2", "1.2rc1", false),
            ("<2", "1.9.9", true),
            ("<2", "2.0rc1", false),
            (">1.7", "1.7.0.post1", false),
            (">1.7", "1.7.1", true),
            ("!=1.5", "1.5.0", false),
            ("!=1.5.*", "1.5.3", false),
            ("==1.5.*", "1.5.3", true),
            ("==1.5", "1.5.0+local", true),
            ("~=2.2", "2.9", true),
            ("~=2.2", "3.0", false),
            ("~=1.4.5", "1.4.9", true),
            ("~=1.4.5", "1.5", false),
            ("===1.0", "1.0", true),
            ("<=1.0", "1.0.1", false),
        ];
        for (specifier, version, expected) in cases {
            let allows = Specifier::parse(specifier).unwrap().allows(&Version::parse(version).unwrap());
            assert_eq!(allows, expected, "{specifier} {version}");
        }
    }
}

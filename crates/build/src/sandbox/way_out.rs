//! Way out: how the caller's programs reach the network, for the commands that may use it too.
//!
//! Behind a proxy, or an authority of a company's own that looks into TLS, nothing can be fetched without the variables
//! that say so. They tell how bytes come and not what they are: no build key knows them, and the provenance has their
//! names. Of the files that they name, each is readable, and nothing around it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::view;
use crate::log::Secret;

/// Variables that name a proxy, and what is reached without one. Some programs read the one spelling, some the other.
const PROXIES: [&str; 8] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variables that name certificate authorities: a file, or a directory of files. Of directories there may be a list, with
/// colons between them.
const AUTHORITIES: [&str; 8] = [
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

/// The caller's variables about proxies and certificate authorities.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WayOut {
    variables: BTreeMap<String, String>,
    authorities: Vec<PathBuf>,
}

impl WayOut {
    /// Picks from the caller's variables. A path of an authority is resolved, as a link may lead to where nothing can be
    /// read; what is not there, or too much to be shown, stays as he wrote it, and the program that looks for it says so.
    pub(super) fn of(variables: &BTreeMap<String, String>) -> Self {
        let home = variables.get("HOME").and_then(|home| Path::new(home).canonicalize().ok());
        let mut way_out = Self::default();
        for (name, value) in given(&PROXIES, variables) {
            way_out.variables.insert(name.to_owned(), value.to_owned());
        }
        for (name, value) in given(&AUTHORITIES, variables) {
            let found = |path: &str| {
                let Some(real) = resolve(path, home.as_deref()) else { return path.to_owned() };
                way_out.authorities.push(PathBuf::from(&real));
                real
            };
            let paths: Vec<String> = value.split(':').map(found).collect();
            way_out.variables.insert(name.to_owned(), paths.join(":"));
        }
        // What every command can read stays where it is: links in its directories may lead on.
        let system: Vec<PathBuf> = view::system().into_iter().chain(view::etc(true)).collect();
        way_out.authorities.retain(|path| !system.iter().any(|dir| path.starts_with(dir)));
        way_out.authorities.sort();
        way_out.authorities.dedup();
        way_out
    }

    /// The variables for a command of a project, which has variables of its own: these win, in either spelling. `dir` is
    /// where the command finds the authorities, by their numbers; without it, they are where they are.
    pub(crate) fn beside(
        &self,
        own: &BTreeMap<String, String>,
        dir: Option<&Path>,
    ) -> BTreeMap<String, String> {
        let is_own = |name: &str| own.keys().any(|key| key.eq_ignore_ascii_case(name));
        let place = |path: &str| {
            let number = self.authorities.iter().position(|authority| authority == Path::new(path));
            match (dir, number) {
                (Some(dir), Some(number)) => format!("{}/{number}", dir.display()),
                _ => path.to_owned(),
            }
        };
        let inside = |value: &str| value.split(':').map(place).collect::<Vec<_>>().join(":");
        let others = self.variables.iter().filter(|(name, _)| !is_own(name));
        others.map(|(name, value)| (name.clone(), inside(value))).collect()
    }

    /// Files and directories that hold certificates and are to be shown, as they lie on the host; their numbers are those
    /// of this order.
    pub(super) fn authorities(&self) -> &[PathBuf] {
        &self.authorities
    }

    /// What nobody may see in a log: a proxy's address with user information, and what it is made of. A part that is too
    /// short to be found alone is hidden with the rest of it.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let hidden = |(name, value)| {
            let parts = parts_of_user_information(value).into_iter();
            parts.filter_map(move |part| Secret::new(name, part).ok())
        };
        given(&PROXIES, &self.variables).flat_map(hidden).collect()
    }
}

/// Addresses of proxies have passwords in them.
impl fmt::Debug for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WayOut")
            .field("variables", &self.variables.keys())
            .field("authorities", &self.authorities)
            .finish()
    }
}

/// Those of these variables that are set.
fn given<'a>(
    names: &'a [&str],
    variables: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    names.iter().filter_map(|name| Some((*name, variables.get(*name)?.as_str())))
}

/// Where a file or directory really lies. None: it is not there, or a directory at the top of the file system or around
/// the caller's home, which holds more than certificates.
fn resolve(path: &str, home: Option<&Path>) -> Option<String> {
    let path = Path::new(path);
    let real = if path.is_absolute() { path.canonicalize().ok()? } else { return None };
    let is_top = real.parent().is_none_or(|parent| parent.parent().is_none());
    let is_narrow = !is_top && !home.is_some_and(|home| home.starts_with(&real));
    let is_authority = real.is_file() || (real.is_dir() && is_narrow);
    is_authority.then(|| real.into_os_string().into_string().ok())?
}

/// The address of a proxy, its user information and the password in it (RFC 3986, section 3.2.1), as they are written and
/// decoded. Nothing, when it has none. The scheme may be missing, and a password may have an `@` in it.
fn parts_of_user_information(address: &str) -> Vec<String> {
    let authority = address.split_once("://").map_or(address, |(_, authority)| authority);
    let Some((information, _)) = authority.rsplit_once('@') else { return Vec::new() };
    let password = information.split_once(':').map(|(_, password)| password);
    let parts = [Some(address), Some(information), password].into_iter().flatten();
    parts
        .flat_map(|part| [part.to_owned(), percent_decode_str(part).decode_utf8_lossy().into_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn way_out(variables: &[(&str, &str)]) -> WayOut {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        WayOut::of(&owned.collect())
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of a test need not last")]
    fn authorities_are_resolved_and_what_is_missing_or_too_much_is_not_shown() {
        let dir = TempDir::new().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let at = |name: &str| top.join(name).to_str().unwrap().to_owned();
        for name in ["home", "home/authorities", "more"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        fs::write(top.join("home/company.pem"), "").unwrap();
        symlink("home/company.pem", top.join("link.pem")).unwrap();
        let (home, file) = (at("home"), at("home/company.pem"));
        for (name, value, expected, shown) in [
            ("SSL_CERT_FILE", file.clone(), file.clone(), vec![file.clone()]),
            ("PIP_CERT", at("link.pem"), file.clone(), vec![file.clone()]),
            (
                "REQUESTS_CA_BUNDLE",
                at("home/authorities"),
                at("home/authorities"),
                vec![at("home/authorities")],
            ),
            (
                "SSL_CERT_DIR",
                format!("{}:/no/such:{}", at("more"), at("home/authorities")),
                format!("{}:/no/such:{}", at("more"), at("home/authorities")),
                vec![at("home/authorities"), at("more")],
            ),
            ("CURL_CA_BUNDLE", at("absent.pem"), at("absent.pem"), vec![]),
            ("SSL_CERT_FILE", "company.pem".to_owned(), "company.pem".to_owned(), vec![]),
            ("SSL_CERT_FILE", String::new(), String::new(), vec![]),
            ("SSL_CERT_FILE", "/dev/null".to_owned(), "/dev/null".to_owned(), vec![]),
            ("SSL_CERT_DIR", home.clone(), home.clone(), vec![]),
            ("SSL_CERT_DIR", at(""), at(""), vec![]),
            ("SSL_CERT_DIR", "/:/etc".to_owned(), "/:/etc".to_owned(), vec![]),
            ("SSL_CERT_DIR", "/usr/share".to_owned(), "/usr/share".to_owned(), vec![]),
        ] {
            let way_out = way_out(&[("HOME", &home), (name, &value), ("SSL_CERT", &file)]);
            let handed: Vec<(&str, &str)> =
                way_out.variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(handed, [(name, expected.as_str())]);
            let shown: Vec<PathBuf> = shown.into_iter().map(PathBuf::from).collect();
            assert_eq!(way_out.authorities(), shown, "{name}={value}");
        }
    }

    #[test]
    fn a_password_is_hidden_in_every_form_and_a_proxy_without_one_is_not() {
        for (value, hidden) in [
            (
                "http://ada:p%40ssword@proxy.example:3128",
                vec![
                    "http://ada:p%40ssword@proxy.example:3128",
                    "http://ada:p@ssword@proxy.example:3128",
                    "ada:p%40ssword",
                    "ada:p@ssword",
                    "p%40ssword",
                    "p@ssword",
                ],
            ),
            ("a:b@proxy", vec!["a:b@proxy"]),
            ("http://ada:p@ss@proxy", vec!["http://ada:p@ss@proxy", "ada:p@ss", "p@ss"]),
            ("socks5h://token@proxy", vec!["socks5h://token@proxy", "token"]),
            ("http://proxy.example:3128", vec![]),
            ("", vec![]),
        ] {
            let way_out = way_out(&[("HTTPS_PROXY", value), ("SSL_CERT_FILE", "/authority@company.pem")]);
            let mut secrets: Vec<String> =
                way_out.secrets().iter().map(|secret| secret.value().to_owned()).collect();
            secrets.dedup();
            assert_eq!(secrets, hidden, "{value}");
            assert!(!format!("{way_out:?}").contains("proxy"), "{way_out:?}");
        }
    }

    #[test]
    fn what_the_project_says_wins_in_either_spelling() {
        let variables = [("https_proxy", "http://one"), ("HTTPS_PROXY", "http://one"), ("no_proxy", "two")];
        let own = BTreeMap::from([("HTTPS_PROXY".to_owned(), String::new())]);
        let left = BTreeMap::from([("no_proxy".to_owned(), "two".to_owned())]);
        assert_eq!(way_out(&variables).beside(&own, None), left);
    }
}

//! Who one is at registries: what `docker login` and `podman login` keep, and the helpers that they name.
//!
//! Sources: docker `config.json` ("auths", "credHelpers", "credsStore"), containers-auth.json(5), and the protocol of
//! docker-credential-helpers: the host on standard input, `{"Username", "Secret"}` on standard output. Read when a registry
//! asks, never before, and never written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use semel_oci::sign_in::{Login, Logins};
use serde::Deserialize;

use crate::settings::Settings;

/// What the files of this user say.
pub(crate) fn logins(settings: &Settings) -> Logins {
    let (files, path) = (settings.registry_logins(), settings.path());
    Logins::from_lookup(move |host| files.iter().find_map(|file| Config::read(file)?.login(host, &path)))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
}

impl Config {
    /// A file that is not there, or that cannot be read, says nothing.
    fn read(file: &PathBuf) -> Option<Self> {
        let text = std::fs::read(file).ok()?;
        let read = serde_json::from_slice(&text);
        read.inspect_err(|error| tracing::warn!("{} is not read: {error}", file.display())).ok()
    }

    fn login(&self, host: &str, path: &str) -> Option<Login> {
        let names = names_of(host);
        let helper = names.iter().find_map(|name| self.cred_helpers.get(*name)).or(self.creds_store.as_ref());
        let helped = helper.and_then(|helper| names.iter().find_map(|name| ask_helper(helper, name, path)));
        helped.or_else(|| names.iter().find_map(|name| decode(self.auths.get(*name)?.auth.as_deref()?)))
    }
}

/// What a host is called in these files.
fn names_of(host: &str) -> Vec<&str> {
    match host {
        "registry-1.docker.io" => vec!["https://index.docker.io/v1/", "docker.io", "index.docker.io"],
        host => vec![host],
    }
}

fn decode(auth: &str) -> Option<Login> {
    let pair = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some(Login { user: user.to_owned(), password: password.to_owned() })
}

fn ask_helper(name: &str, host: &str, path: &str) -> Option<Login> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    // A name with a slash would be a path, and the file may come from anywhere.
    if name.contains('/') {
        return None;
    }
    let mut helper = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .inspect_err(|error| tracing::warn!("docker-credential-{name} cannot be asked: {error}"))
        .ok()?;
    helper.stdin.take()?.write_all(host.as_bytes()).ok()?;
    let output = helper.wait_with_output().ok()?;
    let answer: Answer = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())?;
    Some(Login { user: answer.username, password: answer.secret })
}

/// Where these files are, the most particular first.
pub(crate) fn files(variable: impl Fn(&str) -> Option<PathBuf>, home: &Path) -> Vec<PathBuf> {
    let docker = variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker"));
    let named = variable("REGISTRY_AUTH_FILE");
    let podman = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    named.into_iter().chain(podman).chain([docker.join("config.json")]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "files of a test need not last")]
    fn what_docker_login_keeps_is_found_under_every_name_of_a_host() {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("docker-credential-test");
        std::fs::write(
            &helper,
            "#!/bin/sh\nread host\n[ \"$host\" = helped.example ] && echo '{\"Username\":\"bo\",\"Secret\":\"t\"}'\n",
        )
        .unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config: Config = serde_json::from_str(
            r#"{"auths": {"ghcr.io": {"auth": "YW5hOnA6dw=="}, "https://index.docker.io/v1/": {"auth": "YW5hOmh1Yg=="}},
                "credHelpers": {"helped.example": "test", "../x": "../x"}, "HttpHeaders": {}}"#,
        )
        .unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let login =
            |host: &str| config.login(host, &path).map(|login| format!("{} {}", login.user, login.password));
        assert_eq!(login("ghcr.io").as_deref(), Some("ana p:w"));
        assert_eq!(login("registry-1.docker.io").as_deref(), Some("ana hub"));
        assert_eq!(login("helped.example").as_deref(), Some("bo t"));
        assert_eq!(login("elsewhere.example"), None);
    }
}

//! Whether a release is well: GET answers 2xx, or a command exits 0.
//!
//! `${KEY}` in a check stands for a variable of the release. What is said about a failed check shows the check as it was
//! written, never a value.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use semel_model::pipeline::Health;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::launch::Launch;
use super::process;

/// Why a check cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HealthError {
    /// A value that the check names is not there.
    #[error(
        "the health check names ${{{key}}}, which has no value: declare it under [config] or correct the check"
    )]
    NoValue {
        /// The key.
        key: String,
    },
    /// `${` without `}`.
    #[error("the health check `{text}` has a `${{` without a `}}`")]
    Unclosed {
        /// As it was written.
        text: String,
    },
    /// Not a URL that can be asked.
    #[error("the health check `{text}` is no http:// URL")]
    NoUrl {
        /// As it was written.
        text: String,
    },
}

/// A check with its values filled in.
#[derive(Clone)]
pub(super) enum Check {
    /// A program that stays up is well.
    StaysUp,
    /// GET.
    Http { shown: String, authority: String, path: String },
    /// A command.
    Command { shown: String, words: Vec<String> },
}

impl Check {
    /// Fills in the values of a release.
    pub(super) fn prepare(
        health: Option<&Health>,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, HealthError> {
        match health {
            None => Ok(Self::StaysUp),
            Some(Health::Url(text)) => http(text, &expand(text, variables)?),
            Some(Health::Command(words)) => {
                let filled = words.iter().map(|word| expand(word, variables)).collect::<Result<_, _>>()?;
                Ok(Self::Command { shown: words.join(" "), words: filled })
            }
        }
    }

    /// Makes the check. The error says what happened instead, to stand alone.
    pub(super) async fn run(&self, launch: &Launch, within: Duration) -> Result<(), String> {
        match self {
            Self::StaysUp => Ok(()),
            Self::Http { shown, authority, path } => {
                let asked = tokio::time::timeout(within, get(authority, path)).await;
                match asked {
                    Err(_) => Err(format!("GET {shown} gave no answer within {} s", within.as_secs_f32())),
                    Ok(Err(error)) => Err(format!("GET {shown}: {error}")),
                    Ok(Ok(200..=299)) => Ok(()),
                    Ok(Ok(status)) => Err(format!("GET {shown} answered {status}")),
                }
            }
            Self::Command { shown, words } => run_command(launch, shown, words, within).await,
        }
    }
}

/// Replaces every `${KEY}`.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, HealthError> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (key, after) =
            after.split_once('}').ok_or_else(|| HealthError::Unclosed { text: text.to_owned() })?;
        filled.push_str(before);
        filled.push_str(variables.get(key).ok_or_else(|| HealthError::NoValue { key: key.to_owned() })?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn http(shown: &str, url: &str) -> Result<Check, HealthError> {
    let no_url = || HealthError::NoUrl { text: shown.to_owned() };
    let rest = url.strip_prefix("http://").ok_or_else(no_url)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('#').next().unwrap_or("");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let clean = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !clean(authority) || !clean(&path) || authority.contains('@') {
        return Err(no_url());
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    Ok(Check::Http { shown: shown.to_owned(), authority, path })
}

/// The status of a GET (RFC 9112, §3 and §4): the head of one exchange is all that a health check needs.
async fn get(authority: &str, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: semel\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut buffer = [0; 256];
    while !head.contains(&b'\n') && head.len() < 4096 {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.split_whitespace();
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse().ok()).filter(|_| is_http);
    status.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

async fn run_command(launch: &Launch, shown: &str, words: &[String], within: Duration) -> Result<(), String> {
    let mut command = launch.check_command(words).map_err(|error| format!("check `{shown}`: {error}"))?;
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let cannot = |error: std::io::Error| format!("check `{shown}` cannot be run: {error}");
    let mut child = command.spawn().map_err(cannot)?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    match tokio::time::timeout(within, child.wait()).await {
        Err(_) => {
            group.into_iter().for_each(|group| process::signal_group(group, Signal::KILL));
            Err(format!("check `{shown}` did not end within {} s", within.as_secs_f32()))
        }
        Ok(Err(error)) => Err(cannot(error)),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("check `{shown}`: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        BTreeMap::from([("PORT".to_owned(), "8080".to_owned()), ("TOKEN".to_owned(), "hunter2".to_owned())])
    }

    #[test]
    fn values_are_filled_in_and_never_shown() {
        let health = Health::Url("http://127.0.0.1:${PORT}/healthz?t=${TOKEN}".to_owned());
        let Check::Http { shown, authority, path } = Check::prepare(Some(&health), &variables()).unwrap()
        else {
            panic!("a URL is asked");
        };
        assert_eq!((authority.as_str(), path.as_str()), ("127.0.0.1:8080", "/healthz?t=hunter2"));
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, authority, path) in [
            ("http://localhost", "localhost:80", "/"),
            ("http://[::1]:9/x#y", "[::1]:9", "/x"),
            ("http://[::1]", "[::1]:80", "/"),
            ("http://h:1?q", "h:1", "/?q"),
        ] {
            let health = Health::Url(url.to_owned());
            let Check::Http { authority: a, path: p, .. } =
                Check::prepare(Some(&health), &variables()).unwrap()
            else {
                panic!("a URL is asked");
            };
            assert_eq!((a.as_str(), p.as_str()), (authority, path));
        }
    }

    #[test]
    fn a_check_that_cannot_be_made_is_named() {
        for (url, expected) in [
            ("http://h/${NOPE}", "names ${NOPE}"),
            ("http://h/${PORT", "without a `}`"),
            ("https://h/", "is no http:// URL"),
            ("http:///x", "is no http:// URL"),
            ("http://h/ x", "is no http:// URL"),
        ] {
            let error =
                Check::prepare(Some(&Health::Url(url.to_owned())), &variables()).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! Signing in to a registry, as far as reading needs it: the token authentication of distribution ("Token Authentication
//! Specification") and Basic (RFC 7617).
//!
//! A registry that wants to know who asks says so with 401 and a challenge. A Bearer challenge names a service that gives
//! tokens, to anonymous clients too, which is how public images are fetched from most registries.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, StatusCode, Uri};
use serde::Deserialize;

use crate::body::{Body, BodyError};
use crate::client::query_value;
use crate::transport::{Transport, TransportError};

/// Far more than any token has.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Name and password for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password, or a token that stands for one.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    fn header(&self) -> Option<HeaderValue> {
        let pair = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Who one is at which registry.
#[derive(Clone)]
pub struct Logins(Arc<Lookup>);

type Lookup = dyn Fn(&str) -> Option<Login> + Send + Sync;

impl Logins {
    /// Nobody, anywhere.
    pub fn none() -> Self {
        Self::from_lookup(|_| None)
    }

    /// Asks for each registry by its host, such as `ghcr.io` or `127.0.0.1:5000`. The lookup may take a moment.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<Login> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// Who one is there.
    pub fn of(&self, host: &str) -> Option<Login> {
        (self.0)(host)
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins")
    }
}

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The first challenge of an answer that can be met (RFC 9110, 11.6.1).
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        values.filter_map(|value| value.to_str().ok()).find_map(Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        let mut take = |name: &str| {
            let at = parameters.iter().position(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(parameters.swap_remove(at).1)
        };
        Some(Self::Bearer { realm: take("realm")?, service: take("service"), scope: take("scope") })
    }
}

/// `key="value", key=value`, where a quoted value may hold commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').map_or((after, ""), |(value, rest)| (value, rest)),
        };
        found.push((key.trim_matches([' ', ',']).to_owned(), value.trim().to_owned()));
        rest = after;
    }
    found
}

/// The service that a registry names gave no token.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Nothing can be asked there.
    #[error("`{realm}` is no address of a service that gives tokens")]
    Realm {
        /// Where the registry says that it is.
        realm: String,
    },
    /// The registry is spoken to over an encrypted way, and the service would not be.
    #[error("the service {realm} that gives tokens is not encrypted")]
    Unencrypted {
        /// Where it is.
        realm: String,
    },
    /// It did not answer.
    #[error("{realm} gave no token")]
    Transport {
        /// Where it is.
        realm: String,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// It said no.
    #[error("{realm} gave no token: it answered {status}")]
    Refused {
        /// Where it is.
        realm: String,
        /// What it answered.
        status: StatusCode,
    },
    /// Its answer broke off or is too long.
    #[error("the answer of {realm} cannot be read")]
    Answer {
        /// Where it is.
        realm: String,
        /// Why.
        #[source]
        source: BodyError,
    },
    /// Its answer holds no token.
    #[error("{realm} gave no token that can be used")]
    Token {
        /// Where it is.
        realm: String,
    },
}

/// What to send with the next request to a registry that asks who it is; `None` when there is nothing that would help.
pub(crate) async fn authorise(
    challenge: &Challenge,
    registry: &str,
    login: Option<&Login>,
) -> Result<Option<HeaderValue>, SignInError> {
    let Challenge::Bearer { realm, service, scope } = challenge else {
        return Ok(login.and_then(Login::header));
    };
    let unusable = || SignInError::Token { realm: realm.clone() };
    let token = fetch_token(realm, service.as_deref(), scope.as_deref(), registry, login).await?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Asks the service for a token. A password goes only where the way is encrypted, or to this machine.
async fn fetch_token(
    realm: &str,
    service: Option<&str>,
    scope: Option<&str>,
    registry: &str,
    login: Option<&Login>,
) -> Result<String, SignInError> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let at = || realm.to_owned();
    let (transport, path) = service_at(realm, registry)?;
    let asked = [("service", service), ("scope", scope)];
    let asked = asked.iter().filter_map(|(key, value)| Some(format!("{key}={}", query_value((*value)?))));
    let (path, query) =
        path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
    let query: Vec<String> = query.map(str::to_owned).into_iter().chain(asked).collect();
    let mut request = Request::get(format!("{path}?{}", query.join("&")));
    if let Some(header) = login.and_then(Login::header) {
        request = request.header(AUTHORIZATION, header);
    }
    let request = request.body(Body::empty()).map_err(|_| SignInError::Realm { realm: at() })?;
    let answer =
        transport.send(request).await.map_err(|source| SignInError::Transport { realm: at(), source })?;
    if answer.status() != StatusCode::OK {
        return Err(SignInError::Refused { realm: at(), status: answer.status() });
    }
    let bytes = answer.into_body().collect_limited(MAX_ANSWER_BYTES).await;
    let bytes = bytes.map_err(|source| SignInError::Answer { realm: at(), source })?;
    let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
    let token = answer.and_then(|answer| answer.token.or(answer.access_token));
    token.ok_or_else(|| SignInError::Token { realm: at() })
}

/// The service that gives tokens, and the path at which it is asked.
fn service_at(realm: &str, registry: &str) -> Result<(Transport, String), SignInError> {
    let nowhere = || SignInError::Realm { realm: realm.to_owned() };
    let uri: Uri = realm.parse().map_err(|_| nowhere())?;
    // A registry that is spoken to in the clear may be anybody, but not lead a password out of the encryption.
    if uri.scheme_str() != Some("https") && registry.starts_with("https://") {
        return Err(SignInError::Unencrypted { realm: realm.to_owned() });
    }
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(nowhere()) };
    let transport = Transport::remote(&format!("{scheme}://{authority}")).map_err(|_| nowhere())?;
    Ok((transport, uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) })
        };
        let cases = [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/debian:pull,push\"",
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/debian:pull,push"),
                ),
            ),
            ("Bearer realm=https://a/t, service=b", bearer("https://a/t", Some("b"), None)),
            ("Bearer service=\"b\"", None),
            ("Negotiate abc", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }
}

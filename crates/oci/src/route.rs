//! Request paths under `/v2/` (distribution-spec 1.1, "Endpoints").
//!
//! A repository name may contain slashes and words such as `blobs`, so a path is read from its end. A [`Route`] is
//! also how the client writes a path: reading and writing are inverse.

use std::fmt;
use std::str::FromStr;

use http::StatusCode;
use semel_model::digest::Digest;
use semel_model::name::ComponentName;

use crate::error::{ErrorBody, ErrorCode};
use crate::reference::{InvalidReference, TagOrDigest};

/// What a path under `/v2/` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// The repository.
        name: ComponentName,
        /// Which blob.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/`
    Uploads {
        /// The repository.
        name: ComponentName,
    },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload {
        /// The repository.
        name: ComponentName,
        /// Which upload: letters, digits, `-`, `_`, `.`, `=`, at most 128 characters.
        id: String,
    },
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// The repository.
        name: ComponentName,
        /// Which manifest.
        reference: TagOrDigest,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// The repository.
        name: ComponentName,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The repository.
        name: ComponentName,
        /// The subject.
        digest: Digest,
    },
}

/// Why a path names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoute {
    /// No endpoint has this form.
    #[error("`{path}` is no endpoint of the registry API")]
    NoEndpoint {
        /// The path.
        path: String,
    },
    /// The repository name is malformed.
    #[error("`{name}` is not a valid repository name")]
    Name {
        /// What stands in its place.
        name: String,
    },
    /// The digest is malformed.
    #[error("`{digest}` is not a digest")]
    Digest {
        /// What stands in its place.
        digest: String,
    },
    /// The tag is malformed, so there can be no such manifest.
    #[error("`{tag}` is not a tag")]
    Tag {
        /// What stands in its place.
        tag: String,
    },
    /// The upload identifier is malformed, so there can be no such upload.
    #[error("there is no upload `{id}`")]
    Upload {
        /// What stands in its place.
        id: String,
    },
}

impl InvalidRoute {
    /// The code to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoEndpoint { .. } => ErrorCode::Unsupported,
            Self::Name { .. } => ErrorCode::NameInvalid,
            Self::Digest { .. } => ErrorCode::DigestInvalid,
            // Not MANIFEST_INVALID, which makes some clients convert their manifest and push again.
            Self::Tag { .. } => ErrorCode::ManifestUnknown,
            Self::Upload { .. } => ErrorCode::BlobUploadUnknown,
        }
    }

    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint { .. } => StatusCode::NOT_FOUND,
            _ => self.code().status(),
        }
    }

    /// The body to answer with.
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code(), self.to_string(), None)
    }
}

impl FromStr for Route {
    type Err = InvalidRoute;

    /// Reads the path of a request, without its query. Percent-encoding is undone segment by segment.
    fn from_str(path: &str) -> Result<Self, InvalidRoute> {
        let no_endpoint = || InvalidRoute::NoEndpoint { path: shown(path) };
        let rest = path.strip_prefix("/v2").ok_or_else(no_endpoint)?;
        if matches!(rest, "" | "/") {
            return Ok(Self::Base);
        }
        let rest = rest.strip_prefix('/').ok_or_else(no_endpoint)?;
        let segments: Option<Vec<String>> = rest.split('/').map(percent_decoded).collect();
        let segments = segments.ok_or_else(no_endpoint)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["_catalog"] => Ok(Self::Catalog),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads { name: component(name)? })
            }
            [name @ .., "blobs", "uploads", id] => {
                Ok(Self::Upload { name: component(name)?, id: upload_id(id)? })
            }
            [name @ .., "blobs", hash] => Ok(Self::Blob { name: component(name)?, digest: digest(hash)? }),
            [name @ .., "manifests", word] => {
                Ok(Self::Manifest { name: component(name)?, reference: reference(word)? })
            }
            [name @ .., "referrers", hash] => {
                Ok(Self::Referrers { name: component(name)?, digest: digest(hash)? })
            }
            [name @ .., "tags", "list"] => Ok(Self::Tags { name: component(name)? }),
            _ => Err(no_endpoint()),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("/v2/"),
            Self::Catalog => f.write_str("/v2/_catalog"),
            Self::Blob { name, digest } => write!(f, "/v2/{name}/blobs/{digest}"),
            Self::Uploads { name } => write!(f, "/v2/{name}/blobs/uploads/"),
            Self::Upload { name, id } => write!(f, "/v2/{name}/blobs/uploads/{id}"),
            Self::Manifest { name, reference } => write!(f, "/v2/{name}/manifests/{reference}"),
            Self::Tags { name } => write!(f, "/v2/{name}/tags/list"),
            Self::Referrers { name, digest } => write!(f, "/v2/{name}/referrers/{digest}"),
        }
    }
}

/// `None` when an escape is broken, no UTF-8, or a slash: `a%2Fb` is one segment and never two.
fn percent_decoded(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, more) = rest.split_first_chunk::<2>()?;
        bytes.extend(hex::decode(digits).ok()?);
        rest = more;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('/'))
}

fn component(segments: &[&str]) -> Result<ComponentName, InvalidRoute> {
    let name = segments.join("/");
    name.parse().map_err(|_| InvalidRoute::Name { name: shown(&name) })
}

fn digest(text: &str) -> Result<Digest, InvalidRoute> {
    text.parse().map_err(|_| InvalidRoute::Digest { digest: shown(text) })
}

fn reference(text: &str) -> Result<TagOrDigest, InvalidRoute> {
    text.parse().map_err(|error| match error {
        InvalidReference::Digest { .. } => InvalidRoute::Digest { digest: shown(text) },
        _ => InvalidRoute::Tag { tag: shown(text) },
    })
}

fn upload_id(text: &str) -> Result<String, InvalidRoute> {
    let fits = (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'='));
    fits.then(|| text.to_owned()).ok_or_else(|| InvalidRoute::Upload { id: shown(text) })
}

fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn read(path: &str) -> Result<Route, InvalidRoute> {
        path.replace("DIGEST", DIGEST).parse()
    }

    #[test]
    fn every_endpoint_is_recognised() {
        let name = |text: &str| -> ComponentName { text.parse().unwrap() };
        let digest: Digest = DIGEST.parse().unwrap();
        let tag = |text: &str| TagOrDigest::Tag(text.parse().unwrap());
        let by_digest = TagOrDigest::Digest(digest.clone());
        let cases = [
            ("/v2", Route::Base),
            ("/v2/", Route::Base),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/a/blobs/DIGEST", Route::Blob { name: name("a"), digest: digest.clone() }),
            ("/v2/a/b/c/blobs/DIGEST", Route::Blob { name: name("a/b/c"), digest: digest.clone() }),
            ("/v2/a/blobs/uploads/", Route::Uploads { name: name("a") }),
            ("/v2/a/blobs/uploads", Route::Uploads { name: name("a") }),
            ("/v2/a/blobs/uploads/x-1", Route::Upload { name: name("a"), id: "x-1".into() }),
            ("/v2/a/manifests/1.4.2", Route::Manifest { name: name("a"), reference: tag("1.4.2") }),
            ("/v2/a/manifests/DIGEST", Route::Manifest { name: name("a"), reference: by_digest }),
            ("/v2/a/tags/list", Route::Tags { name: name("a") }),
            ("/v2/a/referrers/DIGEST", Route::Referrers { name: name("a"), digest: digest.clone() }),
            // Words of the API as parts of a name.
            ("/v2/a/manifests/list", Route::Manifest { name: name("a"), reference: tag("list") }),
            ("/v2/tags/tags/list", Route::Tags { name: name("tags") }),
            (
                "/v2/blobs/uploads/manifests/x",
                Route::Manifest { name: name("blobs/uploads"), reference: tag("x") },
            ),
            ("/v2/manifests/blobs/DIGEST", Route::Blob { name: name("manifests"), digest: digest.clone() }),
            ("/v2/a/blobs/uploads/blobs/uploads/", Route::Uploads { name: name("a/blobs/uploads") }),
            // Clients that encode the colon.
            (
                "/v2/a/blobs/sha256%3A44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                Route::Blob { name: name("a"), digest },
            ),
        ];
        for (path, route) in cases {
            assert_eq!(read(path), Ok(route), "{path}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_path_is_said_by_its_code() {
        let long = format!("/v2/{}/tags/list", "a".repeat(201));
        let cases = [
            ("/", ErrorCode::Unsupported, 404),
            ("/v3/", ErrorCode::Unsupported, 404),
            ("/v2x", ErrorCode::Unsupported, 404),
            ("/v2/a", ErrorCode::Unsupported, 404),
            ("/v2//", ErrorCode::Unsupported, 404),
            ("/v2/a/tags", ErrorCode::Unsupported, 404),
            ("/v2/a%2Fb/tags/list", ErrorCode::Unsupported, 404),
            ("/v2/a%zz/tags/list", ErrorCode::Unsupported, 404),
            ("/v2/a%c3/tags/list", ErrorCode::Unsupported, 404),
            ("/v2/tags/list", ErrorCode::NameInvalid, 400),
            ("/v2/A/tags/list", ErrorCode::NameInvalid, 400),
            ("/v2/a//b/tags/list", ErrorCode::NameInvalid, 400),
            ("/v2/../b/tags/list", ErrorCode::NameInvalid, 400),
            (&long, ErrorCode::NameInvalid, 400),
            ("/v2/a/blobs/sha256:abc", ErrorCode::DigestInvalid, 400),
            ("/v2/a/blobs/", ErrorCode::DigestInvalid, 400),
            ("/v2/a/referrers/x", ErrorCode::DigestInvalid, 400),
            ("/v2/a/manifests/sha256:baddigeststring", ErrorCode::DigestInvalid, 400),
            ("/v2/a/manifests/-x", ErrorCode::ManifestUnknown, 404),
            ("/v2/a/manifests/", ErrorCode::ManifestUnknown, 404),
            ("/v2/a/blobs/uploads/a%20b", ErrorCode::BlobUploadUnknown, 404),
        ];
        for (path, code, status) in cases {
            let error = read(path).unwrap_err();
            assert_eq!((error.code(), error.status().as_u16()), (code, status), "{path}");
            assert_eq!(error.body().errors[0].code, code.as_str());
        }
    }

    fn routes() -> impl Strategy<Value = Route> {
        let word = prop::sample::select(vec![
            "a",
            "blobs",
            "uploads",
            "manifests",
            "tags",
            "list",
            "referrers",
            "x-1",
        ]);
        let name = prop::collection::vec(word, 1..5).prop_map(|words| words.join("/").parse().unwrap());
        let digest = "[0-9a-f]{64}".prop_map(|hex| format!("sha256:{hex}").parse().unwrap());
        let reference = prop_oneof![
            "[A-Za-z0-9_][A-Za-z0-9._-]{0,12}".prop_map(|tag| TagOrDigest::Tag(tag.parse().unwrap())),
            digest.clone().prop_map(TagOrDigest::Digest),
        ];
        (0..6, name, digest, reference, "[A-Za-z0-9_.=-]{1,20}").prop_map(
            |(kind, name, digest, reference, id)| match kind {
                0 => Route::Blob { name, digest },
                1 => Route::Uploads { name },
                2 => Route::Upload { name, id },
                3 => Route::Manifest { name, reference },
                4 => Route::Tags { name },
                _ => Route::Referrers { name, digest },
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(route in routes()) {
            prop_assert_eq!(route.to_string().parse(), Ok(route));
        }

        #[test]
        fn no_path_makes_reading_fail_otherwise_than_by_an_error(path in "/v2[/a-z%0-9:._]{0,40}") {
            let _ = path.parse::<Route>();
        }
    }
}

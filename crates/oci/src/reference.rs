//! References: how an artefact and the place where it lies are written.
//!
//! `shop/api:1.4.2` is a component of the store in use, `127.0.0.1:5000/shop/api@sha256:…` is a repository of a
//! registry, `oci:DIR:TAG` is an image layout in the file system, `oci-archive:FILE:TAG` one in a file. Nothing here looks
//! anything up.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use semel_model::digest::{Digest, InvalidDigest};
use semel_model::name::{ComponentName, InvalidName, Tag};

/// A tag or a digest: what stands behind `manifests/` in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagOrDigest {
    /// By name.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

/// `[host/]name[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Which registry, as `host` or `host:port`; none for the store in use.
    pub host: Option<String>,
    /// Which repository.
    pub name: ComponentName,
    /// Under which tag.
    pub tag: Option<Tag>,
    /// With which content. It decides when there is a tag as well.
    pub digest: Option<Digest>,
}

/// Where an artefact lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An OCI image layout: `oci:DIR`, `oci:DIR:TAG`, `oci:DIR@sha256:…`.
    Layout {
        /// The directory.
        directory: PathBuf,
        /// The value of `org.opencontainers.image.ref.name`.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// A tar of an image layout, `oci-archive:FILE[:TAG]`, or of what `docker save` writes, `docker-archive:FILE[:TAG]`:
    /// the file itself says which of the two it is.
    Archive {
        /// The file.
        file: PathBuf,
        /// As for a layout; the tag of the image.
        tag: Option<String>,
        /// The manifest's digest.
        digest: Option<Digest>,
    },
    /// A repository of a registry; the reference has a host.
    Registry(Reference),
    /// A component of the store in use; the reference has no host.
    Component(Reference),
}

const ARCHIVES: [&str; 2] = ["oci-archive:", "docker-archive:"];

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// The repository part.
    #[error("`{text}` is not a reference (expected `[host/]name[:tag][@sha256:…]`)")]
    Name {
        /// What was written.
        text: String,
        /// What is wrong with the name.
        #[source]
        source: InvalidName,
    },
    /// The tag.
    #[error("`{text}` has an invalid tag")]
    Tag {
        /// What was written.
        text: String,
        /// What is wrong with the tag.
        #[source]
        source: InvalidName,
    },
    /// The digest.
    #[error("`{text}` has an invalid digest")]
    Digest {
        /// What was written.
        text: String,
        /// What is wrong with the digest.
        #[source]
        source: InvalidDigest,
    },
    /// The host.
    #[error("`{text}` has an invalid host (expected `registry.example.com` or `127.0.0.1:5000`)")]
    Host {
        /// What was written.
        text: String,
    },
    /// A registry is meant and none is named.
    #[error("`{text}` names no registry (write `docker://host/name:tag`)")]
    NoHost {
        /// What was written.
        text: String,
    },
    /// A layout is meant and no directory is named.
    #[error("`{text}` names no directory or file (write `oci:DIR`, `oci:DIR:TAG` or `oci-archive:FILE`)")]
    NoDirectory {
        /// What was written.
        text: String,
    },
    /// A scheme that is not ours.
    #[error(
        "`{text}` has an unknown scheme (write `oci:DIR`, `oci-archive:FILE`, `docker://host/name:tag` or `host/name:tag`)"
    )]
    Scheme {
        /// What was written.
        text: String,
    },
}

impl Reference {
    /// What to ask the repository for: the digest if there is one, else the tag.
    pub fn target(&self) -> Option<TagOrDigest> {
        let digest = self.digest.clone().map(TagOrDigest::Digest);
        digest.or_else(|| self.tag.clone().map(TagOrDigest::Tag))
    }
}

/// The address of a registry: plain HTTP on the loopback interface, where nothing can listen in, HTTPS everywhere else.
/// Docker Hub answers at another name than it has in references.
pub fn registry_base(host: &str) -> String {
    if is_docker_hub(host) {
        return "https://registry-1.docker.io".to_owned();
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    let local = name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    format!("{}://{host}", if local { "http" } else { "https" })
}

fn is_docker_hub(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io")
}

impl FromStr for TagOrDigest {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        // A tag has no colon, so what has one was meant as a digest.
        if text.contains(':') {
            let digest =
                text.parse().map_err(|source| InvalidReference::Digest { text: shown(text), source })?;
            return Ok(Self::Digest(digest));
        }
        let tag = text.parse().map_err(|source| InvalidReference::Tag { text: shown(text), source })?;
        Ok(Self::Tag(tag))
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.pad(tag.as_str()),
            Self::Digest(digest) => f.pad(digest.as_str()),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let (rest, digest) = split_digest(text)?;
        let (host, rest) = split_host(text, rest)?;
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        // Docker Hub's own images: `docker.io/debian` is `docker.io/library/debian`.
        let official = host.as_deref().is_some_and(is_docker_hub) && !name.contains('/');
        let name = if official { format!("library/{name}") } else { name.to_owned() };
        let name = name.parse().map_err(|source| InvalidReference::Name { text: shown(text), source })?;
        let tag = tag
            .map(|tag| tag.parse().map_err(|source| InvalidReference::Tag { text: shown(text), source }))
            .transpose()?;
        Ok(Self { host, name, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        write!(f, "{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Place {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if let Some(reference) = text.strip_prefix("docker://") {
            let reference: Reference = reference.parse()?;
            return match reference.host {
                Some(_) => Ok(Self::Registry(reference)),
                None => Err(InvalidReference::NoHost { text: shown(text) }),
            };
        }
        if text.contains("://") {
            return Err(InvalidReference::Scheme { text: shown(text) });
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (directory, tag, digest) = path_tag_digest(text, rest)?;
            return Ok(Self::Layout { directory, tag, digest });
        }
        if let Some(rest) = ARCHIVES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            let (file, tag, digest) = path_tag_digest(text, rest)?;
            return Ok(Self::Archive { file, tag, digest });
        }
        let reference: Reference = text.parse()?;
        Ok(if reference.host.is_some() { Self::Registry(reference) } else { Self::Component(reference) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout { directory: path, tag, digest } | Self::Archive { file: path, tag, digest } => {
                let scheme = if matches!(self, Self::Layout { .. }) { "oci:" } else { ARCHIVES[0] };
                write!(f, "{scheme}{}", path.display())?;
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
            }
            Self::Registry(reference) => write!(f, "docker://{reference}"),
            Self::Component(reference) => write!(f, "{reference}"),
        }
    }
}

fn split_digest(text: &str) -> Result<(&str, Option<Digest>), InvalidReference> {
    let Some((rest, digest)) = text.split_once('@') else { return Ok((text, None)) };
    let digest = digest.parse().map_err(|source| InvalidReference::Digest { text: shown(text), source })?;
    Ok((rest, Some(digest)))
}

/// The first segment is a host when no component could begin like it: it has a `.`, a `:` or is `localhost`. The same
/// rule as Docker's, so that a reference means the same in both.
fn split_host<'a>(text: &str, rest: &'a str) -> Result<(Option<String>, &'a str), InvalidReference> {
    let Some((first, path)) = rest.split_once('/') else { return Ok((None, rest)) };
    if first != "localhost" && !first.contains(['.', ':']) {
        return Ok((None, rest));
    }
    if !is_host(first) {
        return Err(InvalidReference::Host { text: shown(text) });
    }
    Ok((Some(first.to_owned()), path))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => match text.find(':') {
            Some(colon) => text.split_at(colon),
            None => (text, ""),
        },
    };
    let port_fits = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port),
        None => port.is_empty(),
    };
    let label_fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    port_fits && name.len() <= 253 && name.split('.').all(label_fits)
}

/// Like other tools that speak of layouts, the first colon ends the path.
fn path_tag_digest(
    text: &str,
    rest: &str,
) -> Result<(PathBuf, Option<String>, Option<Digest>), InvalidReference> {
    let (rest, digest) = match rest.rsplit_once('@') {
        Some((rest, digest)) if digest.starts_with("sha256:") || digest.starts_with("sha512:") => {
            let digest =
                digest.parse().map_err(|source| InvalidReference::Digest { text: shown(text), source })?;
            (rest, Some(digest))
        }
        _ => (rest, None),
    };
    let (directory, tag) = match rest.split_once(':') {
        Some((directory, tag)) => (directory, Some(tag.to_owned()).filter(|tag| !tag.is_empty())),
        None => (rest, None),
    };
    if directory.is_empty() {
        return Err(InvalidReference::NoDirectory { text: shown(text) });
    }
    Ok((PathBuf::from(directory), tag, digest))
}

/// The beginning of what was written: an error message is no place for a megabyte.
fn shown(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn references_are_taken_apart_as_docker_does() {
        let cases = [
            ("api", None, "api", None, None),
            ("api:1.4.2", None, "api", Some("1.4.2"), None),
            ("shop/api", None, "shop/api", None, None),
            ("127.0.0.1:5000/shop/api:1.4.2", Some("127.0.0.1:5000"), "shop/api", Some("1.4.2"), None),
            ("localhost/api", Some("localhost"), "api", None, None),
            ("[::1]:5000/api:x", Some("[::1]:5000"), "api", Some("x"), None),
            ("ghcr.io/a/b:1@DIGEST", Some("ghcr.io"), "a/b", Some("1"), Some(DIGEST)),
            ("shop/api@DIGEST", None, "shop/api", None, Some(DIGEST)),
        ];
        for (text, host, name, tag, digest) in cases {
            let text = text.replace("DIGEST", DIGEST);
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.host.as_deref(), host, "{text}");
            assert_eq!(reference.name.as_str(), name, "{text}");
            assert_eq!(reference.tag.as_ref().map(Tag::as_str), tag, "{text}");
            assert_eq!(reference.digest.as_ref().map(Digest::as_str), digest, "{text}");
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let cases = [
            "",
            "Shop/api",
            "a:",
            "a:-x",
            "a@sha256:zz",
            "a@",
            "ho_st.x/a",
            "host.x:0/a",
            "host.x:99999/a",
            "-h.x/a",
            "[zz]:5000/a",
            "host.x/",
            "a b",
            "host.x/a:b:c",
            "a/../b",
        ];
        for bad in cases {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn places_are_told_apart_by_how_they_are_written() {
        let layout = |directory: &str, tag: Option<&str>, digest: Option<&str>| Place::Layout {
            directory: directory.into(),
            tag: tag.map(str::to_owned),
            digest: digest.map(|digest| digest.parse().unwrap()),
        };
        let with_digest = format!("oci:dist/image@{DIGEST}");
        let with_both = format!("oci:dist/image:1.4.2@{DIGEST}");
        let cases = [
            ("oci:dist/image", layout("dist/image", None, None)),
            ("oci:./image:1.4.2", layout("./image", Some("1.4.2"), None)),
            ("oci:image:docker.io/library/x:1", layout("image", Some("docker.io/library/x:1"), None)),
            (
                "oci-archive:a.tar:1",
                Place::Archive { file: "a.tar".into(), tag: Some("1".into()), digest: None },
            ),
            ("docker-archive:/a.tar", Place::Archive { file: "/a.tar".into(), tag: None, digest: None }),
            (&with_digest, layout("dist/image", None, Some(DIGEST))),
            (&with_both, layout("dist/image", Some("1.4.2"), Some(DIGEST))),
            ("docker://127.0.0.1:5000/a:1", Place::Registry("127.0.0.1:5000/a:1".parse().unwrap())),
            ("ghcr.io/a/b:1", Place::Registry("ghcr.io/a/b:1".parse().unwrap())),
            ("a/b:1", Place::Component("a/b:1".parse().unwrap())),
        ];
        for (text, place) in cases {
            assert_eq!(text.parse(), Ok(place.clone()), "{text}");
            assert_eq!(place.to_string().parse(), Ok(place), "{text}");
        }
        for bad in ["oci:", "oci::tag", "docker://api:1", "https://ghcr.io/a/b", "oci:d@sha256:zz", ""] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_loopback_interface_is_spoken_to_in_plain_http() {
        for local in ["localhost:5000", "127.0.0.1:5000", "[::1]:80", "127.1.2.3", "LOCALHOST"] {
            assert_eq!(registry_base(local), format!("http://{local}"));
        }
        for far in ["ghcr.io", "10.0.0.1:5000", "localhost.example.com", "[fe80::1]"] {
            assert_eq!(registry_base(far), format!("https://{far}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "([a-z.]{1,6}(:[0-9]{1,5})?/)?[a-z0-9/._-]{1,20}(:[A-Za-z0-9._-]{1,9})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_reading_fail_otherwise_than_by_an_error(text in "\\PC{0,40}") {
            let _ = text.parse::<Reference>();
            let _ = text.parse::<Place>();
            let _ = text.parse::<TagOrDigest>();
            let _ = registry_base(&text);
        }
    }
}

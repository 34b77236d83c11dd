//! Which artefact is meant: from what a person writes to a digest.

use schemars::JsonSchema;
use semel_model::config::{CONTRACT_ANNOTATION, Contract};
use semel_model::digest::Digest;
use semel_model::name::{CommitId, ComponentName};
use semel_model::version::{Version, VersionWord};
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ParsedManifest;
use semel_store::Store;
use semel_store::projections::artefact::{self, Published};
use semel_store::projections::{build, deployment};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;

/// An artefact that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artefact {
    /// Which component.
    pub component: ComponentName,
    /// Its newest version name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Its build number, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Its identity.
    pub digest: Digest,
    /// The commit that it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
}

impl Artefact {
    /// `component@version`, or the digest where there is no version.
    pub fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.component),
            None => format!("{} {}", self.component, self.digest),
        }
    }
}

impl From<Published> for Artefact {
    fn from(published: Published) -> Self {
        Self {
            component: published.component,
            version: Some(published.version),
            number: published.number,
            digest: published.digest,
            commit: published.commit,
            published: Some(published.time),
        }
    }
}

/// Finds the artefact that a word means in a component.
pub async fn find(
    conn: &mut Conn,
    component: &ComponentName,
    word: &VersionWord,
) -> Result<Artefact, EngineError> {
    let found = match word {
        VersionWord::Version(version) => by_version(conn, component, version).await?,
        VersionWord::Number(number) => by_number(conn, component, *number).await?,
        VersionWord::Digest(hex) => by_digest(conn, component, hex).await?,
        VersionWord::Commit(commit) => by_commit(conn, component, commit).await?,
        VersionWord::Environment { name, back } => {
            let skip = u64::from(*back);
            match deployment::nth_success(conn, component, name, skip).await? {
                Some(deployment) => by_digest(conn, component, deployment.digest.hex()).await?,
                None => by_version(conn, component, &Version::named(tag_of(word)?)).await?,
            }
        }
    };
    found.ok_or_else(|| unknown(component, word))
}

fn tag_of(word: &VersionWord) -> Result<semel_model::name::Tag, EngineError> {
    word.to_string().parse().map_err(|_| EngineError::not_found(format!("`{word}` names no version")))
}

fn unknown(component: &ComponentName, word: &VersionWord) -> EngineError {
    let (what, hint) = match word {
        VersionWord::Environment { .. } => (
            format!(
                "{component} has no version `{word}`, and nothing was deployed to an environment of that name"
            ),
            "semel status".to_owned(),
        ),
        VersionWord::Commit(commit) => (
            format!("no version of {component} was built from commit {commit}"),
            format!("semel build {commit}"),
        ),
        _ => (
            format!("{component} has no version {word} in this store"),
            format!("semel versions -c {component}"),
        ),
    };
    EngineError::not_found(what).with_hint(hint)
}

async fn by_version(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Artefact>, EngineError> {
    if let Some(found) = artefact::version(conn, component, version).await? {
        return Ok(Some(found.into()));
    }
    match build::by_version(conn, component, version).await? {
        Some(reserved) => Err(unfinished(&reserved)),
        None => Ok(None),
    }
}

async fn by_number(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
) -> Result<Option<Artefact>, EngineError> {
    if let Some(found) = artefact::by_number(conn, component, number).await? {
        return Ok(Some(found.into()));
    }
    match build::by_number(conn, component, number).await? {
        Some(reserved) => Err(unfinished(&reserved)),
        None => Ok(None),
    }
}

fn unfinished(reserved: &build::Build) -> EngineError {
    let why = reserved
        .reason
        .clone()
        .map_or_else(|| "its build has not finished".to_owned(), |r| format!("its build failed: {r}"));
    EngineError::not_found(format!(
        "{} {} (build {}) is reserved, but {why}",
        reserved.component, reserved.version, reserved.number
    ))
    .with_hint(format!("semel build log {} -c {}", reserved.number, reserved.component))
}

async fn by_digest(
    conn: &mut Conn,
    component: &ComponentName,
    hex: &str,
) -> Result<Option<Artefact>, EngineError> {
    let beginning = format!("sha256:{hex}");
    let mut published = artefact::by_digest(conn, &beginning).await?;
    published.retain(|one| one.component == *component);
    let mut digests: Vec<&Digest> = published.iter().map(|one| &one.digest).collect();
    digests.dedup();
    if digests.len() > 1 {
        return Err(EngineError::precondition(format!(
            "{beginning}… is the beginning of more than one digest"
        )));
    }
    if let Some(newest) = published.pop() {
        return Ok(Some(newest.into()));
    }
    let mut stored = artefact::manifests_by_digest(conn, &beginning).await?;
    stored.retain(|(name, _)| name == component);
    match stored.as_slice() {
        [(_, digest)] => Ok(Some(Artefact {
            component: component.clone(),
            version: None,
            number: None,
            digest: digest.clone(),
            commit: None,
            published: None,
        })),
        [] => Ok(None),
        _ => Err(EngineError::precondition(format!("{beginning}… is the beginning of more than one digest"))),
    }
}

async fn by_commit(
    conn: &mut Conn,
    component: &ComponentName,
    commit: &str,
) -> Result<Option<Artefact>, EngineError> {
    let builds = build::by_commit(conn, commit).await?;
    let mut of_component = builds.into_iter().filter(|(_, build)| build.component == *component);
    match of_component.find(|(_, build)| build.digest.is_some()) {
        Some((_, build)) => by_number(conn, component, build.number).await,
        None => Ok(None),
    }
}

/// What has expired is not on its way anywhere: its bytes may be gone.
pub(crate) async fn require_kept(conn: &mut Conn, artefact: &Artefact) -> Result<(), EngineError> {
    let versions = artefact::versions_of(conn, &artefact.component, &artefact.digest).await?;
    match versions.into_iter().find_map(|one| one.expired) {
        None => Ok(()),
        Some(expired) => Err(EngineError::precondition(format!(
            "the bytes of {} were removed on {} by the rule {}",
            artefact.name(),
            expired.time,
            expired.rule
        ))
        .with_hint(format!("push {} again: the same bytes bring it back", artefact.digest))),
    }
}

/// What is inside a stored manifest.
pub(crate) async fn manifest(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<(Descriptor, ParsedManifest), EngineError> {
    let Some(row) = artefact::manifest(conn, component, digest).await? else {
        return Err(EngineError::not_found(format!("{component} has no manifest {digest} in this store")));
    };
    let parsed = parse(store, digest, Some(&row.media_type))?;
    Ok((Descriptor::new(row.media_type, digest.clone(), row.size), parsed))
}

/// What is inside a manifest whose bytes are here, recorded or about to be.
pub(crate) fn parse(
    store: &Store,
    digest: &Digest,
    media_type: Option<&str>,
) -> Result<ParsedManifest, EngineError> {
    let bytes = store.blobs().read(digest)?;
    ParsedManifest::parse(&bytes, media_type).map_err(|error| EngineError::Verification {
        what: format!("manifest {digest} cannot be read: {error}"),
        hint: None,
    })
}

/// The configuration contract inside an artefact; empty where it has none.
pub(crate) fn contract(digest: &Digest, manifest: &ParsedManifest) -> Result<Contract, EngineError> {
    match manifest.annotations.get(CONTRACT_ANNOTATION) {
        None => Ok(Contract::default()),
        Some(text) => serde_json::from_str(text)
            .map_err(|source| EngineError::Document { digest: digest.clone(), source }),
    }
}

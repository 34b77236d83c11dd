//! Which artefact is meant: from what a person writes to a digest.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::config::{CONTRACT_ANNOTATION, Contract};
use semel_model::digest::Digest;
use semel_model::name::{CommitId, ComponentName, EnvironmentName, Tag};
use semel_model::platform::Platform;
use semel_model::version::{Version, VersionWord};
use semel_oci::descriptor::Descriptor;
use semel_oci::manifest::ParsedManifest;
use semel_store::Store;
use semel_store::draft;
use semel_store::projections::artefact::{self, Published};
use semel_store::projections::build;
use semel_store::projections::deployment::{self, DeploymentState};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::home;

/// An artefact that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artefact {
    /// Which component.
    pub component: ComponentName,
    /// The version that it was asked for, or is known by.
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
    /// Why it should not be used any more, if somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// That its bytes are gone, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expired>,
}

/// The bytes of a version are gone by rule; its name and its meaning stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expired {
    /// Since when (RFC 3339).
    pub time: String,
    /// The rule whose time was over, such as `trunk=90d`.
    pub rule: String,
}

impl Artefact {
    /// `shop/api 1.4.2`; the digest in the place of the version where there is none.
    pub fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.component),
            None => format!("{} {}", self.component, self.digest),
        }
    }

    /// That its bytes are gone by rule, in one line, and what brings them back; none: they are here.
    pub fn gone(&self) -> Option<(String, String)> {
        let Expired { time, rule } = self.expired.as_ref()?;
        let name = self.name();
        let what = if rule == home::ELSEWHERE {
            format!("the bytes of {name} are in the store that was its home until {time}")
        } else {
            format!("the bytes of {name} were removed on {time} by the rule {rule}; its name and digest stay")
        };
        let Self { component, digest, version, .. } = self;
        let tag = version.as_ref().map_or_else(|| "VERSION".to_owned(), ToString::to_string);
        let hint = format!(
            "pushing {digest} again, from wherever it still is, brings it back: semel --store OTHER pull {component}@{digest} oci:DIR   and here   \
             semel push oci:DIR {component}@{tag}"
        );
        Some((what, hint))
    }

    /// What is to be run must have its bytes.
    pub(crate) fn require_bytes(&self) -> Result<(), EngineError> {
        match self.gone() {
            Some((what, hint)) => Err(EngineError::not_found(what).with_hint(hint)),
            None => Ok(()),
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
            deprecated: published.deprecated,
            expired: published.expired.map(|gone| Expired { time: gone.time, rule: gone.rule }),
        }
    }
}

/// Finds the artefact that a word means in a component, at a time: words such as `production@{2.hours.ago}` count from it.
/// A channel is looked for where nothing else has the name.
pub async fn find(
    conn: &mut Conn,
    component: &ComponentName,
    word: &VersionWord,
    now: Timestamp,
) -> Result<Artefact, EngineError> {
    let found = match word {
        VersionWord::Version(version) => by_version(conn, component, version, now).await?,
        VersionWord::Number(number) => match by_number(conn, component, *number).await? {
            Some(found) => Some(found),
            None => by_version(conn, component, &Version::named(tag_of(word)?), now).await?,
        },
        VersionWord::Digest(hex) => by_beginning(conn, component, &format!("sha256:{hex}")).await?,
        VersionWord::Commit(commit) => by_commit(conn, component, commit).await?,
        VersionWord::Environment { name, back } => {
            let skip = u64::from(*back);
            match deployment::nth_success(conn, component, name, skip).await? {
                Some(deployment) => Some(by_digest(conn, component, &deployment.digest).await?),
                None if skip > 0 => return Err(never_ran(component, name, skip)),
                None => by_version(conn, component, &Version::named(tag_of(word)?), now).await?,
            }
        }
        VersionWord::At { name, time } => Some(at(conn, component, name, time.before(now)).await?),
    };
    match found {
        Some(found) => Ok(found),
        None => match by_channel(conn, component, word).await? {
            Some(found) => Ok(found),
            None => Err(unknown(component, word)),
        },
    }
}

fn tag_of(word: &VersionWord) -> Result<Tag, EngineError> {
    word.to_string().parse().map_err(|_| EngineError::not_found(format!("`{word}` names no version")))
}

async fn by_channel(
    conn: &mut Conn,
    component: &ComponentName,
    word: &VersionWord,
) -> Result<Option<Artefact>, EngineError> {
    let Ok(channel) = word.to_string().parse::<Tag>() else { return Ok(None) };
    match artefact::channel(conn, component, &channel).await? {
        Some(digest) => by_digest(conn, component, &digest).await.map(Some),
        None => Ok(None),
    }
}

/// What an environment ran, or a channel pointed to, at a time.
async fn at(
    conn: &mut Conn,
    component: &ComponentName,
    name: &Tag,
    time: Timestamp,
) -> Result<Artefact, EngineError> {
    if let Ok(environment) = name.as_str().parse::<EnvironmentName>() {
        let successes = successes(conn, component, &environment).await?;
        if !successes.is_empty() {
            let ran = successes.into_iter().find(|(finished, _)| *finished <= time);
            let (_, digest) = ran.ok_or_else(|| {
                EngineError::not_found(format!(
                    "nothing of {component} was deployed to {environment} by {time}"
                ))
                .with_hint(format!("semel history {environment} -c {component}"))
            })?;
            return by_digest(conn, component, &digest).await;
        }
    }
    let moved = artefact::channel_move_before(conn, component, name, &time.to_string()).await?;
    match moved.and_then(|one| one.digest) {
        Some(digest) => by_digest(conn, component, &digest).await,
        None => Err(EngineError::not_found(format!(
            "at {time}, {component} had no channel {name}, and nothing was deployed to an environment of that name"
        ))
        .with_hint(format!("semel channels {name} -c {component}"))),
    }
}

/// The deployments of an environment that succeeded, with the time of their outcome, newest first.
async fn successes(
    conn: &mut Conn,
    component: &ComponentName,
    environment: &EnvironmentName,
) -> Result<Vec<(Timestamp, Digest)>, EngineError> {
    const ALL: u64 = i64::MAX.unsigned_abs();
    let all = deployment::list(conn, component, environment, ALL).await?;
    let read = |one: deployment::Deployment| {
        let finished = one.finished.as_deref().and_then(|time| time.parse().ok());
        finished.filter(|_| one.state == DeploymentState::Succeeded).zip(Some(one.digest))
    };
    Ok(all.into_iter().filter_map(read).collect())
}

/// `production~3` of an environment in which fewer deployments succeeded.
fn never_ran(component: &ComponentName, environment: &EnvironmentName, back: u64) -> EngineError {
    let count = back + 1;
    EngineError::not_found(format!(
        "fewer than {count} deployments of {component} succeeded in {environment}"
    ))
    .with_hint(format!("semel history {environment} -c {component}"))
}

fn unknown(component: &ComponentName, word: &VersionWord) -> EngineError {
    let (what, hint) = match word {
        VersionWord::Environment { .. } => (
            format!(
                "{component} has no version and no channel `{word}`, and nothing was deployed to an environment of that name"
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
    now: Timestamp,
) -> Result<Option<Artefact>, EngineError> {
    if let Some(found) = artefact::version(conn, component, version).await? {
        return Ok(Some(found.into()));
    }
    let drafted = draft::get(conn, component, version).await?;
    if drafted.is_some_and(|open| open.until_millis > now.as_millisecond()) {
        return Err(EngineError::not_found(format!(
            "{component} {version} is a draft, which has no version yet"
        ))
        .with_hint(format!("semel publish {component}@{version}")));
    }
    match build::by_version(conn, component, version).await? {
        Some(reserved) => Err(unfinished(conn, &reserved).await?),
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
        Some(reserved) => Err(unfinished(conn, &reserved).await?),
        None => Ok(None),
    }
}

/// Why a reserved version is not there yet, and who goes on with it.
async fn unfinished(conn: &mut Conn, reserved: &build::Build) -> Result<EngineError, EngineError> {
    let build::Build { component, number, version, reason, .. } = reserved;
    let missing = missing_parts(conn, reserved).await?;
    let log = format!("semel build log {number} -c {component}");
    let (why, hint) = match (reason, missing.first()) {
        (Some(reason), _) => (format!("its build failed: {reason}"), log),
        (None, Some(first)) => {
            let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let hint = format!("where that can be built: semel build --platform {first}");
            (format!("its parts are not complete: {} to come", names.join(", ")), hint)
        }
        (None, None) => ("its build has not finished".to_owned(), log),
    };
    let what = format!("{component} {version} (build {number}) is reserved, but {why}");
    Ok(EngineError::not_found(what).with_hint(hint))
}

/// The platforms that a build has no part for yet.
pub(crate) async fn missing_parts(
    conn: &mut Conn,
    reserved: &build::Build,
) -> Result<Vec<Platform>, EngineError> {
    let parts = build::parts(conn, &reserved.component, reserved.number).await?;
    let is_built =
        |platform: &Platform| parts.iter().any(|part| part.platform == *platform && part.digest.is_some());
    Ok(reserved.platforms.iter().filter(|platform| !is_built(platform)).cloned().collect())
}

/// The artefact of a digest that something in the ledger names.
pub(crate) async fn by_digest(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Artefact, EngineError> {
    by_beginning(conn, component, digest.as_str()).await?.ok_or_else(|| {
        EngineError::not_found(format!("{component} has no manifest {digest} any more"))
            .with_hint("push the same bytes again")
    })
}

/// The artefact of a digest, or of a digest with this beginning.
async fn by_beginning(
    conn: &mut Conn,
    component: &ComponentName,
    beginning: &str,
) -> Result<Option<Artefact>, EngineError> {
    let mut published = artefact::by_digest(conn, beginning).await?;
    published.retain(|one| one.component == *component);
    let mut digests: Vec<&Digest> = published.iter().map(|one| &one.digest).collect();
    digests.sort_unstable_by_key(|digest| digest.as_str());
    digests.dedup();
    let ambiguous =
        || EngineError::precondition(format!("{beginning}… is the beginning of more than one digest"));
    if digests.len() > 1 {
        return Err(ambiguous());
    }
    if let Some(best) = best_name(published) {
        return Ok(Some(best.into()));
    }
    let mut stored = artefact::manifests_by_digest(conn, beginning).await?;
    stored.retain(|(name, _)| name == component);
    match stored.as_slice() {
        [(_, digest)] => Ok(Some(Artefact {
            component: component.clone(),
            version: None,
            number: None,
            digest: digest.clone(),
            commit: None,
            published: None,
            deprecated: None,
            expired: None,
        })),
        [] => Ok(None),
        _ => Err(ambiguous()),
    }
}

/// Of several names of one artefact the one that people know it by: the newest that is SemVer, else the newest.
pub(crate) fn best_name(published: Vec<Published>) -> Option<Published> {
    published.into_iter().max_by_key(|one| (one.version.as_semver().is_some(), one.seq))
}

/// The artefact that a commit, or a commit with this beginning, was built as.
pub(crate) async fn by_commit(
    conn: &mut Conn,
    component: &ComponentName,
    commit: &str,
) -> Result<Option<Artefact>, EngineError> {
    match build_of_commit(conn, component, commit).await? {
        Some(build) => by_number(conn, component, build.number).await,
        None => Ok(None),
    }
}

/// The newest build of a commit that is published, else the newest that was begun.
pub(crate) async fn build_of_commit(
    conn: &mut Conn,
    component: &ComponentName,
    commit: &str,
) -> Result<Option<build::Build>, EngineError> {
    let found = build::by_commit(conn, commit).await?.into_iter().map(|(_, build)| build);
    let builds: Vec<_> = found.filter(|build| build.component == *component).collect();
    let published = builds.iter().position(|build| build.digest.is_some());
    Ok(builds.into_iter().nth(published.unwrap_or(0)))
}

/// What is inside a stored manifest.
pub(crate) async fn manifest(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<(Descriptor, ParsedManifest), EngineError> {
    let descriptor = descriptor(conn, component, digest).await?;
    let parsed = parse(store, digest, Some(&descriptor.media_type))?;
    Ok((descriptor, parsed))
}

/// What the ledger says of a stored manifest, whether or not its bytes are here.
pub(crate) async fn descriptor(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Descriptor, EngineError> {
    match artefact::manifest(conn, component, digest).await? {
        Some(row) => Ok(Descriptor::new(row.media_type, digest.clone(), row.size)),
        None => Err(EngineError::not_found(format!("{component} has no manifest {digest} in this store"))),
    }
}

/// What is inside an artefact that was found; one whose bytes never were here says where they are.
pub(crate) async fn manifest_of(
    store: &Store,
    conn: &mut Conn,
    found: &Artefact,
) -> Result<(Descriptor, ParsedManifest), EngineError> {
    match manifest(store, conn, &found.component, &found.digest).await {
        Err(EngineError::NotFound { .. }) if found.expired.is_some() => {
            found.require_bytes()?;
            Err(EngineError::not_found(format!("{} has no manifest any more", found.name())))
        }
        read => read,
    }
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

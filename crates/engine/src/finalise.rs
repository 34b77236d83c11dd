//! Finalise: a candidate gets its final name, once. The digest is the same, so is all that is known about it.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::candidate_number;
use semel_model::digest::Digest;
use semel_model::entry::{Change, VersionFinalised};
use semel_model::name::{ComponentName, Tag};
use semel_model::version::{Version, VersionWord};
use semel_store::Store;
use semel_store::projections::artefact::{self as artefacts, Published};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::artefact::{self, Artefact};
use crate::component;
use crate::error::EngineError;
use crate::home;
use crate::publish::{Bind, Bound, Giving, Overwrite};

/// Gives a candidate its final name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finalise {
    /// Which component.
    pub component: ComponentName,
    /// The candidate, as a person writes it: `1.4.0-rc.3`, a build number, a digest.
    pub version: String,
}

/// What became of a final name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Finalised {
    /// The candidate has it.
    Final {
        /// The final name.
        version: Version,
        /// The candidate's name.
        candidate: Version,
        /// What both mean.
        digest: Digest,
        /// Whether it had it before.
        already: bool,
    },
    /// The name means something else, and that cannot change.
    Refused(Overwrite),
}

/// Gives a candidate its final name. The same again changes nothing; where the name means other bytes, that is refused and
/// recorded.
pub async fn finalise(
    store: &Store,
    who: &Actor,
    request: Finalise,
    now: Timestamp,
) -> Result<Finalised, EngineError> {
    let word: VersionWord =
        request.version.parse().map_err(|error| EngineError::precondition(format!("{error}")))?;
    let name = &request.component;
    let mut giving = Giving::begin(store, who, now).await?;
    home::refuse_foreign_home(store, giving.turn.db(), name).await?;
    component::get(giving.turn.db(), name).await?;
    let found = artefact::find(giving.turn.db(), name, &word, now).await?;
    let candidate = candidate(giving.turn.db(), &found, &word).await?;
    let version = final_of(&candidate.version);
    let (candidate, digest) = (candidate.version.clone(), candidate.digest);
    if let Some(already) = had(giving.turn.db(), name, &digest, &version).await? {
        return Ok(Finalised::Final { version, candidate: already, digest, already: true });
    }
    found.require_bytes()?;
    giving.require_bytes(name, &digest).await?;
    let bind = Bind {
        component: name.clone(),
        tag: tag_of(&version),
        digest: digest.clone(),
        commit: found.commit.clone(),
        location: None,
        home: None,
        absent: false,
    };
    match giving.hindrance(&bind, &version).await? {
        None => {}
        Some(Bound::Refused(refused)) => {
            let refused = explained(giving.turn.db(), name, &version, refused).await?;
            giving.finish().await?;
            return Ok(Finalised::Refused(refused));
        }
        // Somebody has given the name to the same bytes by hand.
        Some(_) => return Ok(Finalised::Final { version, candidate, digest, already: true }),
    }
    giving.batch.change(Change::VersionFinalised(VersionFinalised {
        component: name.clone(),
        version: version.clone(),
        candidate: candidate.clone(),
        digest: digest.clone(),
        number: found.number,
        commit: found.commit,
    }));
    giving.finish().await?;
    Ok(Finalised::Final { version, candidate, digest, already: false })
}

/// A refusal in the words of candidates, where another one was first.
async fn explained(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
    refused: Overwrite,
) -> Result<Overwrite, EngineError> {
    let Some(first) = artefacts::candidate_of(conn, component, version).await? else { return Ok(refused) };
    let reason = finalised_already(version, &first);
    Ok(Overwrite { next_free: Some(next_candidate(version)), reason, ..refused })
}

/// The candidate that is meant: the one that was named, else the newest among the names of the artefact.
async fn candidate(conn: &mut Conn, found: &Artefact, word: &VersionWord) -> Result<Published, EngineError> {
    let mut names = artefacts::by_digest(conn, found.digest.as_str()).await?;
    names.retain(|one| one.component == found.component && number_of(&one.version).is_some());
    let named = match word {
        VersionWord::Version(version) if number_of(version).is_some() => {
            names.into_iter().find(|one| one.version == *version)
        }
        _ => names.pop(),
    };
    named.ok_or_else(|| {
        EngineError::precondition(format!("{} is no candidate: only X.Y.Z-rc.N becomes X.Y.Z", found.name()))
            .with_hint(format!("semel versions -c {}", found.component))
    })
}

fn number_of(version: &Version) -> Option<u64> {
    version.as_semver().and_then(candidate_number)
}

/// The candidate under whose name an artefact became this version; an artefact that became another one becomes no second.
async fn had(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    version: &Version,
) -> Result<Option<Version>, EngineError> {
    match artefacts::finalised_of(conn, component, digest).await?.into_iter().next() {
        None => Ok(None),
        Some((candidate, of)) if of == *version => Ok(Some(candidate)),
        Some((candidate, of)) => Err(EngineError::Conflict {
            what: format!("{digest} is final already: {candidate} became {of}"),
            hint: Some(format!("semel inspect {component}@{of}")),
        }),
    }
}

/// `1.4.0` of `1.4.0-rc.3`.
pub(crate) fn final_of(candidate: &Version) -> Version {
    let core = candidate.as_semver().map_or((0, 0, 0), |core| (core.major, core.minor, core.patch));
    Version::final_release(core.0, core.1, core.2)
}

fn tag_of(version: &Version) -> Tag {
    version.to_string().parse().expect("a version is a tag")
}

/// The first candidate of the version after a final one.
fn next_candidate(version: &Version) -> Version {
    let core = version.as_semver().map_or((0, 0, 0), |core| (core.major, core.minor, core.patch));
    format!("{}.{}.{}-rc.1", core.0, core.1, core.2 + 1).parse().expect("it is a version")
}

fn finalised_already(version: &Version, candidate: &Version) -> String {
    format!("{version} is finalised (it is {candidate}); next is {}", next_candidate(version))
}

/// Why a candidate cannot be given any more: its version is final.
pub(crate) async fn closed(
    conn: &mut Conn,
    component: &ComponentName,
    candidate: &Version,
) -> Result<Option<(String, Version)>, EngineError> {
    if number_of(candidate).is_none() {
        return Ok(None);
    }
    let version = final_of(candidate);
    let finalised = artefacts::candidate_of(conn, component, &version).await?;
    Ok(finalised.map(|known| (finalised_already(&version, &known), next_candidate(&version))))
}

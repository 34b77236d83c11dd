//! Standing: how a key stands, and which of the builds of a source answers. Finding it out changes nothing.

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::build::{BuildInputs, Line};
use semel_model::digest::Digest;
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_model::reservation::{Choice, Maker, Process, Relative, Unusable, choose, is_branch, may_take};
use semel_model::statement::{Envelope, PROVENANCE};
use semel_store::keys::Role;
use semel_store::lease::{self, Lease, Leased};
use semel_store::projections::build::{self, Build, Part};
use semel_store::projections::{artefact as artefacts, evidence};
use semel_store::sql::Conn;
use semel_store::{Store, content};
use serde_json::Value;

use super::{Built, BuiltPart, FailedAttempt, Lost, RETRY_MILLIS, Reservation, Running, built, parts};
use crate::batch::read_document;
use crate::error::EngineError;
use crate::home;

/// What is asked about a key.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    pub(super) who: &'a Actor,
    pub(super) component: &'a ComponentName,
    /// The key with salt 0.
    pub(super) first: Digest,
    pub(super) line: &'a Line,
    pub(super) again: Option<&'a str>,
    pub(super) platform: Option<&'a Platform>,
    pub(super) waited_for: Option<u64>,
    pub(super) gone: Option<(u64, &'a Process)>,
    pub(super) number: Option<u64>,
}

impl<'a> Question<'a> {
    pub(super) fn new(who: &'a Actor, inputs: &'a BuildInputs, line: &'a Line) -> Self {
        Self {
            who,
            component: &inputs.component,
            first: BuildInputs { salt: 0, ..inputs.clone() }.key(),
            line,
            again: None,
            platform: None,
            waited_for: None,
            gone: None,
            number: None,
        }
    }
}

/// How a key stands.
pub(super) enum Standing {
    /// It is published, with a name that serves the line that asks.
    Built(Box<Build>, Built),
    /// It is published, and the line that asks has no name for it yet.
    Unnamed(Box<Build>, Digest),
    /// The part that is asked for is built, the whole is not.
    Part(Box<Build>, BuiltPart),
    /// Somebody is building it, or has just failed to.
    Busy(Reservation),
    /// It is reserved, with this salt, and nobody is building it.
    Free(Box<Build>, u32),
    /// It is published, with this salt, bytes of it are missing, and nobody is building it.
    Lost(Box<Build>, u32, Lost),
    /// Nothing that is there answers.
    New { salt: u32, reason: Option<String> },
}

/// Finds out how a key stands.
pub(super) async fn standing(
    store: &Store,
    conn: &mut Conn,
    question: &Question<'_>,
    now: Timestamp,
) -> Result<Standing, EngineError> {
    let mut family = build::family(conn, question.component, &question.first).await?;
    let mut relatives = Vec::with_capacity(family.len());
    for build in &family {
        relatives.push(Relative {
            is_published: build.digest.is_some(),
            may_be_taken: build.digest.is_none() || is_takable(store, conn, question, build).await?,
            is_gone: is_gone(conn, build).await?,
            reason: build.again.clone(),
        });
    }
    match choice(question, &family, &relatives)? {
        Choice::New { salt, because } => {
            let reason = match because {
                None => question.again.map(str::to_owned),
                Some(Unusable::Distrusted) => Some(distrust(question.line)),
                Some(Unusable::Gone) => Some("the bytes of what there is were removed by a rule".to_owned()),
            };
            Ok(Standing::New { salt, reason })
        }
        Choice::Member(place) => {
            let salt = u32::try_from(place).unwrap_or(u32::MAX);
            let may_be_taken = relatives[place].may_be_taken;
            let build = Box::new(family.swap_remove(place));
            match build.digest.clone() {
                Some(digest) if may_be_taken => match lost(store, conn, &build, &digest).await? {
                    None => published(conn, question, build, digest).await,
                    Some(lost) => Ok(match unleased(conn, question, build, None, salt, now).await? {
                        Standing::Free(build, salt) => Standing::Lost(build, salt, lost),
                        leased => leased,
                    }),
                },
                Some(digest) => {
                    let built = built(&build, build.version.clone(), digest);
                    Ok(Standing::Built(build, built))
                }
                None => unpublished(conn, question, build, salt, now).await,
            }
        }
    }
}

/// Which of the builds of a source answers: the one that is named, or the one that the rule chooses.
fn choice(question: &Question<'_>, family: &[Build], relatives: &[Relative]) -> Result<Choice, EngineError> {
    let Some(number) = question.number else { return Ok(choose(relatives, question.again)) };
    let place = family.iter().position(|build| build.number == number);
    place.map(Choice::Member).ok_or_else(|| {
        EngineError::not_found(format!("{} has no build {number} of this source", question.component))
    })
}

fn distrust(line: &Line) -> String {
    format!("what there is was built by somebody who may not build {}", line.name())
}

/// Whether the bytes of a published build were removed by a rule. Those that are in the store that was its home are not.
async fn is_gone(conn: &mut Conn, build: &Build) -> Result<bool, EngineError> {
    if build.digest.is_none() {
        return Ok(false);
    }
    let named = artefacts::version(conn, &build.component, &build.version).await?;
    Ok(named.and_then(|named| named.expired).is_some_and(|expired| expired.rule != home::ELSEWHERE))
}

/// What is missing of a published artefact that should be here: the file was lost, or was damaged and put aside. Only whether
/// it is there is looked at.
async fn lost(
    store: &Store,
    conn: &mut Conn,
    build: &Build,
    digest: &Digest,
) -> Result<Option<Lost>, EngineError> {
    let named = artefacts::version(conn, &build.component, &build.version).await?;
    if named.is_some_and(|named| named.expired.is_some()) {
        return Ok(None);
    }
    let missing = content::first_missing(conn, store.blobs(), [digest]).await?;
    Ok(missing.map(|missing| Lost { digest: digest.clone(), missing }))
}

/// Whether a published build may be taken for the line that asks. How it was made is looked up only where that decides.
async fn is_takable(
    store: &Store,
    conn: &mut Conn,
    question: &Question<'_>,
    build: &Build,
) -> Result<bool, EngineError> {
    if is_branch(question.line) || !is_branch(&build.line) {
        return Ok(true);
    }
    let makers = makers(conn, build).await?;
    if makers.is_empty() {
        return Ok(false);
    }
    for (actor, digest) in makers {
        let builder = builder_of(store, conn, &build.component, &digest).await?;
        let maker = Maker { line: &build.line, actor: &actor, builder: builder.as_deref() };
        if !may_take(question.line, question.who, maker) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Who made which bytes of a published build: one, or one for each part.
async fn makers(conn: &mut Conn, build: &Build) -> Result<Vec<(Actor, Digest)>, EngineError> {
    if build.platforms.is_empty() {
        return Ok(build.actor.clone().zip(build.digest.clone()).into_iter().collect());
    }
    let parts = build::parts(conn, &build.component, build.number).await?;
    Ok(parts.into_iter().filter_map(|part| part.actor.zip(part.digest)).collect())
}

/// Who an artefact's provenance says built it (SLSA, `runDetails.builder.id`).
async fn builder_of(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<String>, EngineError> {
    let said = provenance_of(store, conn, component, digest).await?;
    let id = said.as_ref().and_then(|said| said.pointer("/runDetails/builder/id")?.as_str());
    Ok(id.map(str::to_owned))
}

/// The provenance of an artefact. Only what the builder's key signed counts.
pub(super) async fn provenance_of(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<Value>, EngineError> {
    let key = store.keys().role_key(&Role::Builder)?;
    for one in evidence::about(conn, component, digest).await? {
        if one.fact.predicate_type != PROVENANCE {
            continue;
        }
        let envelope: Envelope = read_document(store, &one.fact.envelope)?;
        let said = envelope.verify(key.verifying_key()).ok().filter(|said| said.is_about(digest));
        if let Some(said) = said {
            return Ok(Some(said.predicate));
        }
    }
    Ok(None)
}

async fn published(
    conn: &mut Conn,
    question: &Question<'_>,
    build: Box<Build>,
    digest: Digest,
) -> Result<Standing, EngineError> {
    let names = artefacts::names_of_build(conn, &build.component, build.number).await?;
    let given_since = names.into_iter().rfind(|name| *name != build.version);
    let version = match (is_branch(question.line), is_of_branch(&build), given_since) {
        (false, true, None) => return Ok(Standing::Unnamed(build, digest)),
        (false, true, Some(version)) => version,
        _ => build.version.clone(),
    };
    let built = built(&build, version, digest);
    Ok(Standing::Built(build, built))
}

/// Whether a build has a name that serves branches alone. One that is its number is the same on every line.
pub(super) fn is_of_branch(build: &Build) -> bool {
    is_branch(&build.line) && build.version.to_string() != build.number.to_string()
}

async fn unpublished(
    conn: &mut Conn,
    question: &Question<'_>,
    build: Box<Build>,
    salt: u32,
    now: Timestamp,
) -> Result<Standing, EngineError> {
    let parts = parts::stored(conn, &build).await?;
    let here = parts.iter().find(|part| Some(&part.platform) == question.platform);
    if let Some(part) = here
        && let Some(digest) = &part.digest
    {
        let part = parts::built(&build, part.platform.clone(), digest.clone(), &parts);
        return Ok(Standing::Part(build, part));
    }
    unleased(conn, question, build, here, salt, now).await
}

/// Whether somebody is building what can be built, or has just failed to.
async fn unleased(
    conn: &mut Conn,
    question: &Question<'_>,
    build: Box<Build>,
    here: Option<&Part>,
    salt: u32,
    now: Timestamp,
) -> Result<Standing, EngineError> {
    let leased = Leased { component: &build.component, key: &build.key, platform: question.platform };
    let newest = lease::newest(conn, leased).await?;
    if let Some(held) = newest.filter(|lease| lease.is_live(now) && !question.found_gone(lease)) {
        return Ok(Standing::Busy(running(&build, held)));
    }
    if let Some(attempt) = question.waited_for
        && let Some(waited_for) = lease::of_attempt(conn, leased, attempt).await?
        && waited_for.failed
    {
        return Ok(Standing::Busy(failed_attempt(&build, here, waited_for)));
    }
    Ok(Standing::Free(build, salt))
}

impl Question<'_> {
    /// Whether the holder is a process of the caller's machine that the caller looked for in vain.
    fn found_gone(&self, lease: &Lease) -> bool {
        let Some((attempt, own)) = self.gone else { return false };
        attempt == lease.attempt && lease.process.as_ref().is_some_and(|holder| holder.host == own.host)
    }
}

fn running(build: &Build, lease: Lease) -> Reservation {
    Reservation::Running(Running {
        holder: lease.holder,
        number: build.number,
        version: build.version.clone(),
        attempt: lease.attempt,
        process: lease.process,
        retry_millis: RETRY_MILLIS,
    })
}

fn failed_attempt(build: &Build, part: Option<&Part>, lease: Lease) -> Reservation {
    let (reason, log) = match part {
        Some(part) => (part.reason.clone(), part.log.is_some()),
        None => (build.reason.clone(), build.log.is_some()),
    };
    Reservation::Failed(FailedAttempt {
        holder: lease.holder,
        number: build.number,
        version: build.version.clone(),
        reason: reason.unwrap_or_else(|| "it came to nothing".to_owned()),
        has_log: log,
    })
}

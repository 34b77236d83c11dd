//! Home: the one store that gives a component its versions and numbers, and how that moves to another store.
//!
//! ```text
//! inherit  the new store learns every number and name, as a store of copies
//! leave    the old one records where the home goes, and gives nothing from then on
//! inherit  what was given in between
//! take     the new one is the home: it has every number, and the proof that the old one left
//! ```
//!
//! Every step may be repeated. Between leaving and taking no store is the home; there is no moment with two. Names and
//! numbers move; bytes, evidence and deployments stay where they are and are copied as ever.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::allocation::Scheme;
use semel_model::digest::Digest;
use semel_model::entry::{
    Again, BuildReserved, Change, ComponentChanged, ComponentCreated, Entry, HomeMoved, HomeTaken,
    VersionExpired, VersionPublished,
};
use semel_model::keep::Keep;
use semel_model::merkle;
use semel_model::name::ComponentName;
use semel_model::note::{Checkpoint, LedgerKey};
use semel_model::version::{NamePattern, TagPolicy};
use semel_store::ledger::{self, Turn};
use semel_store::projections::artefact::{self, Published};
use semel_store::projections::build::{self, Build};
use semel_store::projections::component::{self, Component};
use semel_store::sql::Conn;
use semel_store::{Store, lease};
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, put_document};
use crate::component as components;
use crate::error::EngineError;

/// How many builds and names are handed over at once: their entries go into one append.
pub const PAGE: u64 = 250;
/// How many bytes the source documents of a page have together, unless one alone has more.
const PAGE_BYTES: usize = 16 * 1024 * 1024;
/// The numbers that builds have.
const BUILD_NUMBERS: RangeInclusive<u64> = 1..=0xffff_ffff;
/// How many hexadecimal digits the id of a store has.
const STORE_ID_DIGITS: usize = 16;
/// The longest URL that is recorded, in bytes.
const PLACE_BYTES_MAX: usize = 500;
/// Why the bytes of a name that was handed over are not here: they never were.
pub(crate) const ELSEWHERE: &str = "home moved";

/// Asks for what a component's next home must know, behind a build number and a place in the ledger.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bequeath {
    /// Which component.
    pub component: ComponentName,
    /// Builds behind this number.
    pub after_number: u64,
    /// Names behind this place.
    pub after_seq: u64,
}

/// A page of what a component's next home must know. It was the last one when it holds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bequest {
    /// How the component's tags are read.
    pub policy: TagPolicy,
    /// How long bytes are kept.
    pub keep: Keep,
    /// Which names are versions beside those that look like one.
    pub patterns: Vec<NamePattern>,
    /// How its versions look, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Builds, by number.
    pub builds: Vec<BequeathedBuild>,
    /// Names, in the order in which they were given.
    pub names: Vec<VersionPublished>,
    /// The place of the last of these names in the old ledger.
    pub seq: u64,
}

/// A build number and what it was given for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BequeathedBuild {
    /// As it was recorded.
    pub reserved: BuildReserved,
    /// The source document that the record names.
    pub source: String,
}

/// Versions of a component come from its home alone (invariant I3).
pub(crate) async fn refuse_foreign_home(
    store: &Store,
    conn: &mut Conn,
    name: &ComponentName,
) -> Result<(), EngineError> {
    let Some(known) = component::get(conn, name).await? else { return Ok(()) };
    if known.home == store.id() {
        return Ok(());
    }
    let what = if known.moved.is_some() {
        format!("the home of {name} has moved to store {}; this store gives it no versions", known.home)
    } else {
        format!("{name} gets its versions from store {}; this store holds copies and gives none", known.home)
    };
    let hint = match &known.place {
        Some(url) => format!("build against that store: --server {url}"),
        None => "build against that store: --store DIR or --server URL".to_owned(),
    };
    Err(EngineError::NotAllowed { what, hint: Some(hint) })
}

/// One page of what the home knows.
pub async fn bequeath(store: &Store, request: &Bequeath) -> Result<Bequest, EngineError> {
    let mut conn = store.reader().await?;
    let name = &request.component;
    let known = components::get(&mut conn, name).await?;
    let (mut builds, mut bytes) = (Vec::new(), 0);
    for build in build::after(&mut conn, name, request.after_number, PAGE).await? {
        let source = String::from_utf8_lossy(&store.blobs().read(&build.source)?).into_owned();
        bytes += source.len();
        if bytes > PAGE_BYTES && !builds.is_empty() {
            break;
        }
        builds.push(BequeathedBuild { reserved: reserved(build), source });
    }
    let names = artefact::versions_after(&mut conn, name, request.after_seq, PAGE).await?;
    let seq = names.last().map_or(request.after_seq, |last| last.seq);
    let Component { policy, keep, patterns, scheme, .. } = known;
    let names = names.into_iter().map(published).collect();
    Ok(Bequest { policy, keep, patterns, scheme, builds, names, seq })
}

fn reserved(build: Build) -> BuildReserved {
    let again = build.again.map(|reason| Again { of: build.family, reason });
    BuildReserved {
        component: build.component,
        number: build.number,
        version: build.version,
        key: build.key,
        commit: build.commit,
        line: build.line,
        source: build.source,
        platforms: build.platforms,
        again,
    }
}

/// What a build printed stays with the store that built.
fn published(name: Published) -> VersionPublished {
    VersionPublished {
        component: name.component,
        version: name.version,
        digest: name.digest,
        number: name.number,
        commit: name.commit,
        log: None,
        source: None,
    }
}

/// Tells a store what the home of a component knows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inherit {
    /// Which component.
    pub component: ComponentName,
    /// The store that knows it.
    pub from: String,
    /// What it knows.
    pub bequest: Bequest,
}

/// What a store has learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inherited {
    /// Builds and names that were new to it.
    pub new: u64,
}

/// Records builds and names that another store has given, so that they are given to nothing else. The same again changes
/// nothing; what contradicts what is known here is refused, and then nothing is recorded.
pub async fn inherit(
    store: &Store,
    who: &Actor,
    request: Inherit,
    now: Timestamp,
) -> Result<Inherited, EngineError> {
    let Inherit { component: name, from, bequest } = request;
    check_bequest(&name, &bequest)?;
    for one in &bequest.builds {
        store.blobs().put(one.source.as_bytes())?;
    }
    let mut turn = store.turn().await?;
    let mut batch = Batch::new(who, now);
    match component::get(turn.db(), &name).await? {
        None => create(&mut batch, &name, &from, &bequest),
        Some(known) if known.home == store.id() => return already_known(&mut turn, &bequest).await,
        Some(known) if known.home == from => {}
        Some(known) => return Err(other_home(&name, &known.home)),
    }
    let mut new = 0;
    for one in bequest.builds {
        new += inherit_build(&mut turn, &mut batch, one.reserved).await?;
    }
    for one in bequest.names {
        new += inherit_name(&mut turn, &mut batch, one).await?;
    }
    turn.append(batch.into_leaves()).await?;
    Ok(Inherited { new })
}

/// What is handed over is about the component alone: anything else has a home of its own.
fn check_bequest(name: &ComponentName, bequest: &Bequest) -> Result<(), EngineError> {
    let refuse = |what: String| Err(EngineError::invalid(what));
    if bequest.builds.len() as u64 > PAGE || bequest.names.len() as u64 > PAGE {
        return refuse(format!("at most {PAGE} builds and {PAGE} names are handed over at once"));
    }
    for BequeathedBuild { reserved, source } in &bequest.builds {
        let number = reserved.number;
        if reserved.component != *name {
            return refuse(format!("build {number} is one of {}, not of {name}", reserved.component));
        }
        if !BUILD_NUMBERS.contains(&number) {
            return refuse(format!("{number} is no build number"));
        }
        if Digest::of(source.as_bytes()) != reserved.source {
            return refuse(format!("the source document of build {number} is another one"));
        }
    }
    for given in &bequest.names {
        if given.component != *name {
            return refuse(format!("{} is a version of {}, not of {name}", given.version, given.component));
        }
        if given.log.is_some() {
            return refuse(format!("the log of {} stays with the store that built it", given.version));
        }
    }
    Ok(())
}

/// The component as a copy, with the rules that it has at home.
fn create(batch: &mut Batch, name: &ComponentName, home: &str, bequest: &Bequest) {
    let (component, home) = (name.clone(), home.to_owned());
    batch.change(Change::ComponentCreated(ComponentCreated { component, policy: bequest.policy, home }));
    batch.change(Change::ComponentChanged(ComponentChanged {
        component: name.clone(),
        keep: Some(bequest.keep),
        patterns: Some(bequest.patterns.clone()).filter(|patterns| !patterns.is_empty()),
        scheme: bequest.scheme,
    }));
}

fn other_home(name: &ComponentName, home: &str) -> EngineError {
    EngineError::NotAllowed {
        what: format!("{name} gets its versions from store {home}"),
        hint: Some("move its home from there".to_owned()),
    }
}

/// This store is the home already, because the move was completed before: then it knows everything. A component of the same
/// name that began here knows nothing of it, and would give the same numbers once more.
async fn already_known(turn: &mut Turn, bequest: &Bequest) -> Result<Inherited, EngineError> {
    for BequeathedBuild { reserved: one, .. } in &bequest.builds {
        if !knows_build(turn, one).await? {
            return Err(contradiction(&one.component, &format!("build {}", one.number)));
        }
    }
    for one in &bequest.names {
        let known = artefact::version(turn.db(), &one.component, &one.version).await?;
        if known.is_none_or(|known| known.digest != one.digest) {
            return Err(contradiction(&one.component, &one.version.to_string()));
        }
    }
    Ok(Inherited { new: 0 })
}

async fn inherit_build(turn: &mut Turn, batch: &mut Batch, one: BuildReserved) -> Result<u64, EngineError> {
    if knows_build(turn, &one).await? {
        return Ok(0);
    }
    batch.change(Change::BuildReserved(one));
    Ok(1)
}

async fn knows_build(turn: &mut Turn, one: &BuildReserved) -> Result<bool, EngineError> {
    match build::by_number(turn.db(), &one.component, one.number).await? {
        Some(known) if known.key == one.key && known.version == one.version => Ok(true),
        Some(known) => Err(contradiction(&one.component, &format!("build {}", known.number))),
        None => Ok(false),
    }
}

async fn inherit_name(turn: &mut Turn, batch: &mut Batch, one: VersionPublished) -> Result<u64, EngineError> {
    let VersionPublished { component, version, digest, .. } = one.clone();
    match artefact::version(turn.db(), &component, &version).await? {
        Some(known) if known.digest != digest => return Err(contradiction(&component, &version.to_string())),
        Some(known) if known.number == one.number => return Ok(0),
        Some(known) if known.number.is_some() => {
            return Err(contradiction(&component, &version.to_string()));
        }
        // A copy that was pushed here is known by its name alone.
        Some(_) => batch.change(Change::VersionPublished(one)),
        None => {
            batch.change(Change::VersionPublished(one));
            if artefact::manifest(turn.db(), &component, &digest).await?.is_none() {
                let rule = ELSEWHERE.to_owned();
                batch.change(Change::VersionExpired(VersionExpired { component, version, digest, rule }));
            }
        }
    }
    Ok(1)
}

fn contradiction(name: &ComponentName, what: &str) -> EngineError {
    EngineError::Conflict {
        what: format!("{what} of {name} means something else in this store: its home cannot move here"),
        hint: Some("move it to a store that knows nothing of it yet".to_owned()),
    }
}

/// Lets a component's home go to another store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaveHome {
    /// Which component.
    pub component: ComponentName,
    /// The id of the store that becomes the home.
    pub to: String,
    /// Where that store is, for people who ask here; none: it is a directory, whose name is nobody's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// How many entries the ledger of that store has; needed where it was the home before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_size: Option<u64>,
}

/// The proof that a component's home has left a store: an entry of its ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The place of the entry.
    pub seq: u64,
    /// The entry.
    pub entry: String,
    /// The hashes that lead from it to the root, hexadecimal.
    pub inclusion: Vec<String>,
    /// The signed checkpoint with that root.
    pub checkpoint: String,
    /// The ledger's public key as a verifier key text.
    pub ledger_key: String,
}

/// Records that another store becomes the home of a component; this one gives nothing from then on. Repeating it gives the
/// same proof. While something is being built, the home stays.
pub async fn leave(
    store: &Store,
    who: &Actor,
    request: LeaveHome,
    now: Timestamp,
) -> Result<Left, EngineError> {
    let LeaveHome { component: name, to, place, to_size } = request;
    check_destination(&to, place.as_deref())?;
    let mut turn = store.turn().await?;
    let known = components::get(turn.db(), &name).await?;
    let seq = match known.moved {
        Some(seq) if known.home == to => {
            drop(turn);
            seq
        }
        _ if known.home != store.id() => return Err(other_home(&name, &known.home)),
        _ if to == store.id() => {
            return Err(EngineError::precondition(format!("this store is the home of {name}")));
        }
        _ => {
            if let Some(holder) = lease::holder_of_any(turn.db(), &name, now).await? {
                return Err(EngineError::TryAgain { what: format!("{name} is being built by {holder}") });
            }
            let from = store.id().to_owned();
            let (component, last_build) = (name.clone(), known.last_build);
            let mut batch = Batch::new(who, now);
            batch.change(Change::HomeMoved(HomeMoved { component, from, to, place, last_build, to_size }));
            turn.append(batch.into_leaves()).await?
        }
    };
    prove(store, seq).await
}

/// A home that leaves for nowhere is nobody's for ever.
fn check_destination(to: &str, place: Option<&str>) -> Result<(), EngineError> {
    let is_id = to.len() == STORE_ID_DIGITS && to.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_id {
        return Err(EngineError::invalid("a home moves to a store, which is named by its id")
            .with_hint("semel move-home --to DIR or --to URL finds it out"));
    }
    let is_url = |place: &str| {
        let is_printed = place.len() <= PLACE_BYTES_MAX && place.bytes().all(|b| b.is_ascii_graphic());
        is_printed && (place.starts_with("http://") || place.starts_with("https://"))
    };
    match place {
        Some(place) if !is_url(place) => {
            Err(EngineError::invalid("the place of a store is an http or https URL"))
        }
        _ => Ok(()),
    }
}

async fn prove(store: &Store, seq: u64) -> Result<Left, EngineError> {
    let mut conn = store.reader().await?;
    let checkpoint = ledger::checkpoint(&mut conn).await?;
    let broken = || EngineError::Verification {
        what: "the ledger's own checkpoint cannot be used".to_owned(),
        hint: Some("semel audit verify".to_owned()),
    };
    let size = Checkpoint::read_unverified(&checkpoint).map_err(|_| broken())?.size;
    let leaf = ledger::read_one(&mut conn, seq).await?.and_then(|one| one.leaf.to_bytes().ok());
    let inclusion = ledger::inclusion_proof(&mut conn, seq, size).await?;
    Ok(Left {
        seq,
        entry: String::from_utf8(leaf.ok_or_else(broken)?).map_err(|_| broken())?,
        inclusion: inclusion.iter().map(hex::encode).collect(),
        checkpoint,
        ledger_key: store.identity().ledger_key.clone(),
    })
}

/// Makes a store the home of a component that has left another one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeHome {
    /// Which component.
    pub component: ComponentName,
    /// That it has left.
    pub left: Left,
}

/// A component's home is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// The newest build number that was given before; the next one follows it.
    pub last_build: u64,
    /// Whether it was here before.
    pub already: bool,
}

/// Makes this store the home, once it knows every build number that the old one has given and has the proof that the old
/// one gives no more. Repeating it changes nothing.
pub async fn take(
    store: &Store,
    who: &Actor,
    request: TakeHome,
    now: Timestamp,
) -> Result<Taken, EngineError> {
    let TakeHome { component: name, left } = request;
    let moved = read_proof(&left)?;
    if moved.component != name || moved.to != store.id() {
        return Err(EngineError::invalid(format!("this is no proof that the home of {name} moved here")));
    }
    let proof = put_document(store, &left)?;
    let mut turn = store.turn().await?;
    let known = components::get(turn.db(), &name).await?;
    let last_build = known.last_build;
    if build::count_up_to(turn.db(), &name, moved.last_build).await? < moved.last_build {
        let what = format!("this store does not know all {} builds of {name} yet", moved.last_build);
        return Err(EngineError::precondition(what).with_hint("run the same command again"));
    }
    if known.home == store.id() {
        return Ok(Taken { last_build, already: true });
    }
    if known.home != moved.from {
        return Err(other_home(&name, &known.home));
    }
    if known.moved.is_some_and(|left_here| moved.to_size.is_none_or(|size| size <= left_here)) {
        let what = format!(
            "since this proof was made, the home of {name} has left this store: it proves nothing now"
        );
        return Err(EngineError::Verification { what, hint: Some("move the home once more".to_owned()) });
    }
    let mut batch = Batch::new(who, now);
    let taken = HomeTaken { component: name, from: moved.from, home: store.id().to_owned(), proof };
    batch.change(Change::HomeTaken(taken));
    turn.append(batch.into_leaves()).await?;
    Ok(Taken { last_build, already: false })
}

/// The entry that a proof is about, if the proof holds.
fn read_proof(left: &Left) -> Result<HomeMoved, EngineError> {
    let refuse = |what: &str| EngineError::Verification { what: what.to_owned(), hint: None };
    let key = LedgerKey::parse(&left.ledger_key).ok_or_else(|| refuse("the proof has no ledger key"))?;
    let signed = Checkpoint::verify(&left.checkpoint, &key)
        .map_err(|_| refuse("the checkpoint of the proof is not signed with its ledger key"))?;
    let hash = |text: &String| {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok().map(|()| hash)
    };
    let inclusion: Option<Vec<_>> = left.inclusion.iter().map(hash).collect();
    let inclusion = inclusion.ok_or_else(|| refuse("the proof's hashes cannot be read"))?;
    let leaf = merkle::leaf_hash(left.entry.as_bytes());
    if !merkle::verify_inclusion(left.seq, signed.size, &leaf, &inclusion, &signed.root) {
        return Err(refuse("the entry of the proof is not in the signed ledger"));
    }
    match Entry::parse(left.entry.as_bytes()).map(|entry| entry.change) {
        Ok(Change::HomeMoved(moved)) => Ok(moved),
        _ => Err(refuse("the entry of the proof does not move a home")),
    }
}

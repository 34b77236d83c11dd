//! Collect: names are kept for ever, bytes by rule.
//!
//! 1. *judge*: every artefact that still has its bytes is judged by its component's rules ([`semel_model::keep`]); one whose time is over
//!    expires (its versions stay, their bytes may go), or is forgotten when it has no version.
//! 2. *purge*: what lay in the trash long enough is removed.
//! 3. *sweep*: a blob that nothing in any component needs, and that nobody relied on for a while, goes into the trash, from
//!    where it comes back when it is asked for.
//!
//! What is needed is asked of the database, never derived from a listing of files: a listing only proposes. Whatever cannot
//! be read stops the collection before anything is removed; missing bytes are reported and never remove a name.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::duration::Span;
use semel_model::entry::{Change, ManifestRemoved, VersionExpired};
use semel_model::keep::{self, Facts, Holder, Judgement, Rule};
use semel_model::name::ComponentName;
use semel_model::version::Version;
use semel_oci::manifest::ParsedManifest;
use semel_oci::media_type;
use semel_store::blobs::BlobError;
use semel_store::projections::artefact::{self, Manifest};
use semel_store::projections::component::{self, Component};
use semel_store::projections::{deployment, document, promotion};
use semel_store::sql::Conn;
use semel_store::{Store, content, live_log, scrub};
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::error::EngineError;
use crate::remove;

/// Asks for a collection.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// How long nobody must have relied on a blob; a day, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// How long a blob lies in the trash; a week, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash: Option<Span>,
}

/// How long nobody must have relied on a blob.
const GRACE: Span = Span::seconds(86_400);
/// How long a blob lies in the trash.
const TRASH: Span = Span::seconds(7 * 86_400);

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// How many artefacts were judged.
    pub judged: u64,
    /// Each artefact whose time is over, with what becomes of it.
    pub over: Vec<Ended>,
    /// Each artefact whose time would be over, were it not held, with its holders.
    pub held: Vec<Kept>,
    /// How many bytes each rule frees, once the blobs are swept.
    pub freed: BTreeMap<String, u64>,
    /// What went into the trash: number and bytes.
    pub swept: Amount,
    /// What nothing needs, but somebody relied on not long ago.
    pub young: Amount,
    /// What was removed from the trash for good.
    pub purged: Amount,
    /// What lies in the trash now.
    pub in_trash: Amount,
    /// Abandoned uploads that were removed: what killed commands and servers left.
    #[serde(default)]
    pub uploads: Amount,
    /// Blobs that were found damaged and are still missing.
    pub damaged: Vec<Digest>,
}

/// A number of blobs and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// How many.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }
}

/// An artefact whose time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// Which component.
    pub component: ComponentName,
    /// The artefact.
    pub digest: Digest,
    /// Its versions, which stay and mean the same.
    pub versions: Vec<Version>,
    /// The rule that ended last, with its term, such as `trunk=90d`.
    pub rule: String,
    /// When it ended (RFC 3339).
    pub since: String,
}

/// An artefact that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    /// Which component.
    pub component: ComponentName,
    /// The artefact.
    pub digest: Digest,
    /// What holds it.
    pub holders: Vec<Holder>,
}

/// Judges, purges and sweeps.
pub async fn collect(
    store: &Store,
    who: &Actor,
    request: Collect,
    now: Timestamp,
) -> Result<Collected, EngineError> {
    require_whole(store).await?;
    // A backup copies blobs: nothing is moved away below it.
    let _alone = store.keep_blobs_in_place().await?;
    let mut done = Collected { dry_run: request.dry_run, ..Collected::default() };
    judge_all(store, who, &mut done, now).await?;
    // Before the sweep: what goes into the trash now lies there until another time.
    purge(store, &mut done, before(now, request.trash.unwrap_or(TRASH))).await?;
    let grace = before(now, request.grace.unwrap_or(GRACE));
    sweep(store, &mut done, grace).await?;
    // An upload under way was touched just now: a shorter time would end it.
    clear_uploads(store, &mut done, grace.min(before(now, GRACE))).await?;
    if !done.dry_run {
        clear_live_logs(store, grace.min(before(now, GRACE))).await?;
    }
    done.damaged = scrub::damaged(store).await?.into_iter().map(|(digest, _)| digest).collect();
    Ok(done)
}

fn before(now: Timestamp, span: Span) -> Timestamp {
    let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(now.as_millisecond().saturating_sub(millis)).unwrap_or(Timestamp::MIN)
}

/// Nothing is collected unless the blobs are this store's, and what every manifest needs is known.
async fn require_whole(store: &Store) -> Result<(), EngineError> {
    store.require_own_blobs().map_err(|error| EngineError::Verification {
        what: error.to_string(),
        hint: Some("mount the file system of the store's blobs".to_owned()),
    })?;
    let mut turn = store.turn().await?;
    let read = content::read_all(turn.db(), store.blobs()).await?;
    turn.append(Vec::new()).await?;
    match read.unreadable.first() {
        None => Ok(()),
        Some(error) => Err(EngineError::Verification {
            what: format!(
                "nothing is collected while {} manifests cannot be read, so that what they need is unknown; the first: {error}",
                read.unreadable.len()
            ),
            hint: Some("push those artefacts again: the same bytes heal the store".to_owned()),
        }),
    }
}

/// How many components or artefacts are read at once.
const PAGE: u64 = 500;

/// How often what was held by something whose own time was over is judged again: indexes of indexes.
const ROUNDS: usize = 8;

/// Judges everything until nothing more is over. A dry run counts the parts of an index with the index.
async fn judge_all(
    store: &Store,
    who: &Actor,
    done: &mut Collected,
    now: Timestamp,
) -> Result<(), EngineError> {
    for _ in 0..ROUNDS {
        let mut round = Collected::default();
        let components = components(store).await?;
        let mut over = Vec::new();
        for component in &components {
            over.push((component, judge_component(store, component, &mut round, now).await?));
        }
        count_freed(store, &round.over, done).await?;
        if done.judged == 0 {
            (done.judged, done.held) = (round.judged, std::mem::take(&mut round.held));
        }
        let none = round.over.is_empty();
        done.over.append(&mut round.over);
        if none || done.dry_run {
            return Ok(());
        }
        for (component, over) in over {
            for page in over.chunks(ENDED_AT_ONCE) {
                end(store, who, component, page, now).await?;
            }
        }
    }
    Ok(())
}

/// How many artefacts end in one turn.
const ENDED_AT_ONCE: usize = 200;

/// All components, also those that have manifests and no name yet.
async fn components(store: &Store) -> Result<Vec<Component>, EngineError> {
    let mut conn = store.reader().await?;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = component::list(&mut conn, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.name.to_string();
        all.extend(page);
    }
    for name in artefact::unnamed_components(&mut conn).await? {
        all.push(crate::component::new(name, store.id()));
    }
    Ok(all)
}

async fn judge_component(
    store: &Store,
    component: &Component,
    round: &mut Collected,
    now: Timestamp,
) -> Result<Vec<Manifest>, EngineError> {
    let (mut over, mut after) = (Vec::new(), String::new());
    loop {
        let page = artefact::with_bytes(&mut store.reader().await?, &component.name, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(over) };
        after = last.digest.to_string();
        over.extend(judge_page(store, component, &page, round, now).await?);
    }
}

/// Judges artefacts outside of any turn; returns those whose time seems to be over.
async fn judge_page(
    store: &Store,
    component: &Component,
    page: &[Manifest],
    done: &mut Collected,
    now: Timestamp,
) -> Result<Vec<Manifest>, EngineError> {
    let mut conn = store.reader().await?;
    let newest = remove::newest(&mut conn, &component.name).await?;
    let newest = newest.map(|one| (one.digest, one.version));
    let mut over = Vec::new();
    for manifest in page {
        done.judged += 1;
        let mut facts = times(&mut conn, component, manifest).await?;
        // Most are young; only of the others it is asked what holds them.
        if !matches!(keep::judge(&facts, &component.keep, now), Judgement::Over { .. }) {
            continue;
        }
        facts.holders = holders(store, &mut conn, component, manifest, newest.as_ref(), now).await?;
        match keep::judge(&facts, &component.keep, now) {
            Judgement::Over { rule, since } => {
                done.over.push(ended(component, manifest, &facts, rule, since));
                over.push(manifest.clone());
            }
            Judgement::Held(holders) => done.held.push(Kept {
                component: component.name.clone(),
                digest: manifest.digest.clone(),
                holders,
            }),
            Judgement::Kept { .. } => {}
        }
    }
    Ok(over)
}

fn ended(component: &Component, manifest: &Manifest, facts: &Facts, rule: Rule, since: Timestamp) -> Ended {
    let term = match rule {
        Rule::Promoted => component.keep.promoted,
        Rule::Trunk => component.keep.trunk,
        Rule::Branch => component.keep.branch,
    };
    Ended {
        component: component.name.clone(),
        digest: manifest.digest.clone(),
        versions: facts.versions.iter().map(|(version, _)| version.clone()).collect(),
        rule: format!("{rule}={term}"),
        since: since.to_string(),
    }
}

/// What is known of an artefact but for its holders.
async fn times(conn: &mut Conn, component: &Component, manifest: &Manifest) -> Result<Facts, EngineError> {
    let (name, digest) = (&component.name, &manifest.digest);
    let read = |text: &str| text.parse::<Timestamp>().unwrap_or(Timestamp::MAX);
    let versions = artefact::versions_of(conn, name, digest).await?;
    let granted = promotion::last_granted(conn, name, digest).await?;
    let deployed = deployment::last_deployed(conn, name, digest).await?;
    Ok(Facts {
        holders: Vec::new(),
        versions: versions.into_iter().map(|one| (one.version, read(&one.time))).collect(),
        promoted: granted.iter().chain(&deployed).map(|time| read(time)).max(),
        last_seen: read(&manifest.seen),
    })
}

async fn holders(
    store: &Store,
    conn: &mut Conn,
    component: &Component,
    manifest: &Manifest,
    newest: Option<&(Digest, Version)>,
    now: Timestamp,
) -> Result<Vec<Holder>, EngineError> {
    let mut holders = remove::holders(conn, &component.name, &manifest.digest, now).await?;
    if let Some(subject) = &manifest.subject
        && is_expired(conn, &component.name, subject).await?
        && is_source(store, manifest)?
    {
        holders.retain(|holder| !matches!(holder, Holder::Subject { .. }));
    }
    if let Some((_, version)) = newest.filter(|(digest, _)| *digest == manifest.digest) {
        holders.push(Holder::Newest { version: version.clone() });
    }
    Ok(holders)
}

/// Whether an artefact has versions, and its bytes may go.
async fn is_expired(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<bool, EngineError> {
    let versions = artefact::versions_of(conn, component, digest).await?;
    Ok(versions.iter().any(|version| version.expired.is_some()))
}

/// Whether a manifest is the source that an artefact was built from. That is no statement about it: it is bytes, which go
/// with the artefact's.
fn is_source(store: &Store, manifest: &Manifest) -> Result<bool, EngineError> {
    let bytes = store.blobs().read(&manifest.digest)?;
    let parsed = ParsedManifest::parse(&bytes, Some(&manifest.media_type));
    Ok(parsed.is_ok_and(|parsed| parsed.artifact_type.as_deref() == Some(media_type::SEMEL_SOURCE)))
}

/// Records that the time of artefacts is over. Each is judged once more in the turn: something may hold it by now.
async fn end(
    store: &Store,
    who: &Actor,
    component: &Component,
    over: &[Manifest],
    now: Timestamp,
) -> Result<(), EngineError> {
    let mut turn = store.turn().await?;
    let mut batch = Batch::new(who, now);
    let newest = remove::newest(turn.db(), &component.name).await?.map(|one| (one.digest, one.version));
    for manifest in over {
        let mut facts = times(turn.db(), component, manifest).await?;
        facts.holders = holders(store, turn.db(), component, manifest, newest.as_ref(), now).await?;
        let Judgement::Over { rule, since } = keep::judge(&facts, &component.keep, now) else { continue };
        let ended = ended(component, manifest, &facts, rule, since);
        tracing::info!(component = %component.name, manifest.digest = %ended.digest, rule = ended.rule, "Bytes may go");
        if ended.versions.is_empty() {
            batch.change(Change::ManifestRemoved(ManifestRemoved {
                component: component.name.clone(),
                digest: ended.digest.clone(),
                reason: ended.rule.clone(),
            }));
        }
        for version in ended.versions {
            batch.change(Change::VersionExpired(VersionExpired {
                component: component.name.clone(),
                version,
                digest: ended.digest.clone(),
                rule: ended.rule.clone(),
            }));
        }
    }
    turn.append(batch.into_leaves()).await?;
    Ok(())
}

/// The snapshots of the source that an artefact was built from: there is one, if any.
async fn sources_of(
    store: &Store,
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Digest>, EngineError> {
    let mut sources = Vec::new();
    for manifest in artefact::referrers(conn, component, digest, "", PAGE).await? {
        if is_source(store, &manifest)? {
            sources.push(manifest.digest);
        }
    }
    Ok(sources)
}

/// Which bytes go with the artefacts whose time is over: those that nothing else needs. Parts of an index that nothing but such
/// indexes holds go with it, and so does the source that it was built from.
async fn count_freed(store: &Store, over: &[Ended], done: &mut Collected) -> Result<(), EngineError> {
    let mut conn = store.reader().await?;
    let mut rules: BTreeMap<Digest, &str> = BTreeMap::new();
    for ended in over {
        for digest in content::parts(&mut conn, &ended.digest).await? {
            for source in sources_of(store, &mut conn, &ended.component, &digest).await? {
                rules.entry(source).or_insert(&ended.rule);
            }
            rules.entry(digest).or_insert(&ended.rule);
        }
    }
    let mut counted = BTreeSet::new();
    for (manifest, rule) in &rules {
        for (digest, size) in content::of(&mut conn, manifest).await? {
            if rules.contains_key(&digest)
                || !counted.insert(digest.clone())
                || !store.blobs().contains(&digest)
            {
                continue;
            }
            let needing = content::needing(&mut conn, &digest, rules.len() as u64 + 1).await?;
            let document = document::is_named(&mut conn, &digest).await?;
            if !document && needing.iter().all(|one| rules.contains_key(one)) {
                *done.freed.entry((*rule).to_owned()).or_insert(0) += size;
            }
        }
    }
    Ok(())
}

/// How many blobs go into the trash in one turn.
const SWEEP: usize = 100;

/// Puts what nothing needs into the trash. That a blob is not needed is asked again in the turn that moves it.
async fn sweep(store: &Store, done: &mut Collected, grace: Timestamp) -> Result<(), EngineError> {
    let blobs = store.blobs().clone();
    let listed = tokio::task::spawn_blocking(move || blobs.list());
    let all =
        listed.await.map_err(std::io::Error::other).and_then(|listed| listed).map_err(list_failed(store))?;
    let mut conn = store.reader().await?;
    let mut unneeded = Vec::new();
    for digest in all {
        if !content::is_needed(&mut conn, &digest).await? {
            unneeded.push(digest);
        }
    }
    drop(conn);
    for chunk in unneeded.chunks(SWEEP) {
        sweep_chunk(store, chunk, done, grace).await?;
    }
    Ok(())
}

fn list_failed(store: &Store) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = store.dir().join("blobs");
    move |source| BlobError::Io { action: "list", path, source }.into()
}

async fn sweep_chunk(
    store: &Store,
    chunk: &[Digest],
    done: &mut Collected,
    grace: Timestamp,
) -> Result<(), EngineError> {
    let mut turn = store.turn().await?;
    for digest in chunk {
        let (held, size) = match (store.blobs().last_held(digest), store.blobs().size(digest)) {
            (Ok(held), Ok(size)) => (held, size),
            // Gone in the meantime.
            (Err(BlobError::Unknown(_)), _) | (_, Err(BlobError::Unknown(_))) => continue,
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
        if content::is_needed(turn.db(), digest).await? {
            continue;
        }
        if held > grace {
            done.young.add(size);
            continue;
        }
        done.swept.add(size);
        if !done.dry_run {
            tracing::info!(blob = %digest, size, "Nothing needs a blob: into the trash");
            store.blobs().discard(digest)?;
            turn.touch();
        }
    }
    turn.append(Vec::new()).await?;
    Ok(())
}

/// Removes what lay in the trash long enough. What something needs after all goes back to its place.
async fn purge(store: &Store, done: &mut Collected, limit: Timestamp) -> Result<(), EngineError> {
    let trashed = store.blobs().trashed().map_err(list_failed(store))?;
    let mut turn = store.turn().await?;
    for one in trashed {
        if one.since > limit {
            done.in_trash.add(one.size);
        } else if content::is_needed(turn.db(), &one.digest).await? {
            tracing::warn!(blob = %one.digest, "What lay in the trash is needed: back to its place");
            store.blobs().hold(&one.digest)?;
        } else {
            done.purged.add(one.size);
            if !done.dry_run {
                tracing::info!(blob = %one.digest, size = one.size, "Out of the trash for good");
                store.blobs().purge(&one.digest)?;
                if !store.blobs().contains(&one.digest) {
                    content::forget(turn.db(), &one.digest).await?;
                }
                turn.touch();
            }
        }
    }
    turn.append(Vec::new()).await?;
    Ok(())
}

/// Forgets what builds printed that were killed, and that nobody has tried again since.
async fn clear_live_logs(store: &Store, limit: Timestamp) -> Result<(), EngineError> {
    let mut jotting = store.jotting().await?;
    live_log::forget_lapsed(jotting.db(), limit.as_millisecond()).await?;
    Ok(jotting.keep().await?)
}

/// Removes uploads that nobody went on with, also where no server runs that would.
async fn clear_uploads(store: &Store, done: &mut Collected, limit: Timestamp) -> Result<(), EngineError> {
    let (blobs, dry_run, since) = (store.blobs().clone(), done.dry_run, limit.into());
    let cleared = tokio::task::spawn_blocking(move || match dry_run {
        true => blobs.idle_uploads(since),
        false => blobs.remove_idle_uploads(since),
    });
    let cleared = cleared.await.map_err(std::io::Error::other).map_err(list_failed(store))??;
    for size in cleared {
        done.uploads.add(size);
    }
    Ok(())
}

//! Artefacts: manifests, versions, channels, locations.

use semel_model::digest::Digest;
use semel_model::entry::{
    ChannelMoved, Entry, LocationRecorded, ManifestRemoved, ManifestStored, OverwriteRefused,
    VersionDeprecated, VersionExpired, VersionFinalised, VersionPublished, VersionRevived,
};
use semel_model::name::{CommitId, ComponentName, Tag};
use semel_model::version::Version;

use crate::sql::{Conn, Row, SqlError, opt_text, text};

/// A stored manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// When it was stored, or a channel last let go of it.
    pub seen: String,
}

/// A published version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Which component.
    pub component: ComponentName,
    /// Its name.
    pub version: Version,
    /// What it means.
    pub digest: Digest,
    /// Its build number, if it was built here.
    pub number: Option<u64>,
    /// Its commit, if it is known.
    pub commit: Option<CommitId>,
    /// What its build printed.
    pub log: Option<Digest>,
    /// When it was published.
    pub time: String,
    /// The place of its entry.
    pub seq: u64,
    /// Why it should not be used any more, if somebody said so.
    pub deprecated: Option<String>,
    /// When and by which rule its bytes were removed, if they were.
    pub expired: Option<Expired>,
}

/// The bytes of a version are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Since when.
    pub time: String,
    /// The rule whose time was over, such as `trunk=90d`.
    pub rule: String,
}

/// The columns that [`read_published`] takes, in its order.
macro_rules! select_version {
    ($rest:literal) => {
        concat!(
            "SELECT component, name, digest, number, commit_id, log, time, seq, deprecated, expired, expired_rule ",
            "FROM version ",
            $rest
        )
    };
}

/// The columns that [`read_manifest`] takes, in its order.
macro_rules! select_manifest {
    ($rest:literal) => {
        concat!("SELECT digest, media_type, size, subject, seen ", "FROM manifest ", $rest)
    };
}

pub(super) async fn manifest_stored(
    conn: &mut Conn,
    entry: &Entry,
    body: &ManifestStored,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO manifest (component, digest, media_type, size, subject, seen) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT DO NOTHING",
        &[
            text(&body.component),
            text(&body.digest),
            body.media_type.as_str().into(),
            body.size.into(),
            opt_text(body.subject.as_ref()),
            text(&entry.time),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn manifest_removed(conn: &mut Conn, body: &ManifestRemoved) -> Result<(), SqlError> {
    conn.execute(
        "DELETE FROM manifest WHERE component = $1 AND digest = $2",
        &[text(&body.component), text(&body.digest)],
    )
    .await
    .map(drop)
}

pub(super) async fn deprecated(conn: &mut Conn, body: &VersionDeprecated) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE version SET deprecated = $3 WHERE component = $1 AND name = $2",
        &[text(&body.component), text(&body.version), body.reason.clone().into()],
    )
    .await
    .map(drop)
}

pub(super) async fn expired(conn: &mut Conn, entry: &Entry, body: &VersionExpired) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE version SET expired = $3, expired_rule = $4 WHERE component = $1 AND name = $2",
        &[text(&body.component), text(&body.version), text(&entry.time), body.rule.as_str().into()],
    )
    .await
    .map(drop)
}

/// A revived version counts from now on, for its bytes were needed again.
pub(super) async fn revived(conn: &mut Conn, entry: &Entry, body: &VersionRevived) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE version SET expired = NULL, expired_rule = NULL WHERE component = $1 AND name = $2",
        &[text(&body.component), text(&body.version)],
    )
    .await?;
    see(conn, &body.component, &body.digest, entry).await
}

/// The time from which an artefact without names is counted.
async fn see(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    entry: &Entry,
) -> Result<(), SqlError> {
    conn.execute(
        "UPDATE manifest SET seen = $3 WHERE component = $1 AND digest = $2",
        &[text(component), text(digest), text(&entry.time)],
    )
    .await
    .map(drop)
}

pub(super) async fn published(
    conn: &mut Conn,
    seq: u64,
    entry: &Entry,
    body: &VersionPublished,
) -> Result<(), SqlError> {
    let known = match body.number {
        Some(number) => number_copy(conn, body, number).await?,
        None => false,
    };
    if !known {
        insert(conn, seq, entry, body).await?;
    }
    match body.number {
        Some(number) => super::build::published(conn, entry, body, number).await,
        None => Ok(()),
    }
}

/// A name that came as a copy learns its build number when its component's home moves here; any other repetition of a name
/// breaks the table's key.
async fn number_copy(conn: &mut Conn, body: &VersionPublished, number: u64) -> Result<bool, SqlError> {
    let known = conn
        .execute(
            "UPDATE version SET number = $4, commit_id = $5 \
             WHERE component = $1 AND name = $2 AND digest = $3 AND number IS NULL",
            &[
                text(&body.component),
                text(&body.version),
                text(&body.digest),
                number.into(),
                opt_text(body.commit.as_ref()),
            ],
        )
        .await?;
    Ok(known > 0)
}

async fn insert(conn: &mut Conn, seq: u64, entry: &Entry, body: &VersionPublished) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO version (component, name, digest, number, commit_id, log, time, seq) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            text(&body.component),
            text(&body.version),
            text(&body.digest),
            body.number.into(),
            opt_text(body.commit.as_ref()),
            opt_text(body.log.as_ref()),
            text(&entry.time),
            seq.into(),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn finalised(
    conn: &mut Conn,
    seq: u64,
    entry: &Entry,
    body: &VersionFinalised,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO version (component, name, digest, number, commit_id, time, seq, candidate) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        &[
            text(&body.component),
            text(&body.version),
            text(&body.digest),
            body.number.into(),
            opt_text(body.commit.as_ref()),
            text(&entry.time),
            seq.into(),
            text(&body.candidate),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn channel_moved(
    conn: &mut Conn,
    seq: u64,
    entry: &Entry,
    body: &ChannelMoved,
) -> Result<(), SqlError> {
    let place = [text(&body.component), text(&body.channel)];
    if let Some(from) = &body.from {
        see(conn, &body.component, from, entry).await?;
    }
    conn.execute("DELETE FROM channel WHERE component = $1 AND name = $2", &place).await?;
    if let Some(to) = &body.to {
        let [component, name] = place;
        conn.execute(
            "INSERT INTO channel (component, name, digest) VALUES ($1, $2, $3)",
            &[component, name, text(to)],
        )
        .await?;
    }
    conn.execute(
        "INSERT INTO channel_move (component, name, seq, digest, time) VALUES ($1, $2, $3, $4, $5)",
        &[
            text(&body.component),
            text(&body.channel),
            seq.into(),
            opt_text(body.to.as_ref()),
            text(&entry.time),
        ],
    )
    .await
    .map(drop)
}

pub(super) async fn overwrite_refused(
    conn: &mut Conn,
    entry: &Entry,
    body: &OverwriteRefused,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO overwrite_refused (component, version, pushed, actor, day) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
        &[
            text(&body.component),
            text(&body.version),
            text(&body.pushed),
            entry.actor.subject.as_str().into(),
            day(&entry.time.to_string()).into(),
        ],
    )
    .await
    .map(drop)
}

/// The date of a time in RFC 3339.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

pub(super) async fn location_recorded(
    conn: &mut Conn,
    entry: &Entry,
    body: &LocationRecorded,
) -> Result<(), SqlError> {
    conn.execute(
        "DELETE FROM location WHERE digest = $1 AND place = $2",
        &[text(&body.digest), body.place.as_str().into()],
    )
    .await?;
    conn.execute(
        "INSERT INTO location (digest, place, verified_at) VALUES ($1, $2, $3)",
        &[text(&body.digest), body.place.as_str().into(), text(&entry.time)],
    )
    .await
    .map(drop)
}

/// Whether such a refusal was recorded today already.
pub async fn refused_today(
    conn: &mut Conn,
    refused: &OverwriteRefused,
    actor: &str,
    now: jiff::Timestamp,
) -> Result<bool, SqlError> {
    let row = conn
        .row(
            "SELECT day FROM overwrite_refused \
             WHERE component = $1 AND version = $2 AND pushed = $3 AND actor = $4 AND day = $5",
            &[
                text(&refused.component),
                text(&refused.version),
                text(&refused.pushed),
                actor.into(),
                day(&now.to_string()).into(),
            ],
        )
        .await?;
    Ok(row.is_some())
}

/// A manifest of a component.
pub async fn manifest(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Option<Manifest>, SqlError> {
    let row = conn
        .row(select_manifest!("WHERE component = $1 AND digest = $2"), &[text(component), text(digest)])
        .await?;
    Ok(row.as_ref().map(read_manifest))
}

/// So many manifests that refer to a digest, by digest, behind one of them.
pub async fn referrers(
    conn: &mut Conn,
    component: &ComponentName,
    subject: &Digest,
    after: &str,
    limit: u64,
) -> Result<Vec<Manifest>, SqlError> {
    let rows = conn
        .rows(
            select_manifest!(
                "WHERE component = $1 AND subject = $2 AND digest > $3 ORDER BY digest LIMIT $4"
            ),
            &[text(component), text(subject), after.into(), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read_manifest).collect())
}

fn read_manifest(row: &Row) -> Manifest {
    Manifest {
        digest: super::parsed(row.text(0)),
        media_type: row.text(1),
        size: row.count(2),
        subject: super::opt_parsed(row.opt_text(3)),
        seen: row.text(4),
    }
}

/// What a version means.
pub async fn version(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Published>, SqlError> {
    let row = conn
        .row(select_version!("WHERE component = $1 AND name = $2"), &[text(component), text(version)])
        .await?;
    Ok(row.as_ref().map(read_published))
}

/// The versions of a digest in a component, oldest first.
pub async fn versions_of(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Published>, SqlError> {
    let rows = conn
        .rows(
            select_version!("WHERE digest = $2 AND component = $1 ORDER BY seq"),
            &[text(component), text(digest)],
        )
        .await?;
    Ok(rows.iter().map(read_published).collect())
}

/// Those of them whose bytes are gone by rule.
pub async fn expired_versions(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Version>, SqlError> {
    let versions = versions_of(conn, component, digest).await?;
    Ok(versions.into_iter().filter(|one| one.expired.is_some()).map(|one| one.version).collect())
}

/// The version of a build number; of several, the one that was given last.
pub async fn by_number(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
) -> Result<Option<Published>, SqlError> {
    let row = conn
        .row(
            select_version!("WHERE component = $1 AND number = $2 ORDER BY seq DESC LIMIT 1"),
            &[text(component), number.into()],
        )
        .await?;
    Ok(row.as_ref().map(read_published))
}

/// The names of a build, in the order in which they were given.
pub async fn names_of_build(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
) -> Result<Vec<Version>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name FROM version WHERE component = $1 AND number = $2 ORDER BY seq",
            &[text(component), number.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| super::version(row.text(0))).collect())
}

/// The versions that a digest, or a digest with this beginning, has, oldest first.
pub async fn by_digest(conn: &mut Conn, beginning: &str) -> Result<Vec<Published>, SqlError> {
    let rows = conn
        .rows(
            select_version!("WHERE digest >= $1 AND digest < $2 ORDER BY seq"),
            &[beginning.into(), format!("{beginning}g").into()],
        )
        .await?;
    Ok(rows.iter().map(read_published).collect())
}

/// The candidates of a component that have a final name, with that name: those of a digest.
pub async fn finalised_of(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<(Version, Version)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT candidate, name FROM version \
             WHERE component = $1 AND digest = $2 AND candidate IS NOT NULL ORDER BY seq",
            &[text(component), text(digest)],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (super::version(row.text(0)), super::version(row.text(1)))).collect())
}

/// The candidate that a version is the final name of.
pub async fn candidate_of(
    conn: &mut Conn,
    component: &ComponentName,
    version: &Version,
) -> Result<Option<Version>, SqlError> {
    let row = conn
        .row(
            "SELECT candidate FROM version WHERE component = $1 AND name = $2",
            &[text(component), text(version)],
        )
        .await?;
    Ok(row.and_then(|row| row.opt_text(0)).map(super::version))
}

/// The digests of manifests with this beginning, with their components.
pub async fn manifests_by_digest(
    conn: &mut Conn,
    beginning: &str,
) -> Result<Vec<(ComponentName, Digest)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT component, digest FROM manifest WHERE digest >= $1 AND digest < $2 ORDER BY component, digest",
            &[beginning.into(), format!("{beginning}g").into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (super::parsed(row.text(0)), super::parsed(row.text(1)))).collect())
}

/// The newest versions of a component, newest first.
pub async fn versions(
    conn: &mut Conn,
    component: &ComponentName,
    limit: u64,
) -> Result<Vec<Published>, SqlError> {
    let rows = conn
        .rows(
            select_version!("WHERE component = $1 ORDER BY seq DESC LIMIT $2"),
            &[text(component), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read_published).collect())
}

/// So many versions of a component behind a place in the ledger, oldest first.
pub async fn versions_after(
    conn: &mut Conn,
    component: &ComponentName,
    seq: u64,
    limit: u64,
) -> Result<Vec<Published>, SqlError> {
    const AFTER: &str = select_version!("WHERE component = $1 AND seq > $2 ORDER BY seq LIMIT $3");
    let rows = conn.rows(AFTER, &[text(component), seq.into(), limit.into()]).await?;
    Ok(rows.iter().map(read_published).collect())
}

fn read_published(row: &Row) -> Published {
    Published {
        component: super::parsed(row.text(0)),
        version: super::version(row.text(1)),
        digest: super::parsed(row.text(2)),
        number: row.opt_count(3),
        commit: super::opt_parsed(row.opt_text(4)),
        log: super::opt_parsed(row.opt_text(5)),
        time: row.text(6),
        seq: row.count(7),
        deprecated: row.opt_text(8),
        expired: row.opt_text(9).zip(row.opt_text(10)).map(|(time, rule)| Expired { time, rule }),
    }
}

/// Where a channel points.
pub async fn channel(
    conn: &mut Conn,
    component: &ComponentName,
    channel: &Tag,
) -> Result<Option<Digest>, SqlError> {
    let row = conn
        .row(
            "SELECT digest FROM channel WHERE component = $1 AND name = $2",
            &[text(component), text(channel)],
        )
        .await?;
    Ok(row.map(|row| super::parsed(row.text(0))))
}

/// The channels of a component behind a name, in byte order, and where they point.
pub async fn channels(
    conn: &mut Conn,
    component: &ComponentName,
    after: &str,
    limit: u64,
) -> Result<Vec<(Tag, Digest)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name, digest FROM channel WHERE component = $1 AND name > $2 ORDER BY name LIMIT $3",
            &[text(component), after.into(), limit.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (super::parsed(row.text(0)), super::parsed(row.text(1)))).collect())
}

/// Where a channel pointed and when, newest first.
pub async fn channel_moves(
    conn: &mut Conn,
    component: &ComponentName,
    channel: &Tag,
    limit: u64,
) -> Result<Vec<ChannelMove>, SqlError> {
    let rows = conn
        .rows(
            "SELECT digest, time, seq FROM channel_move WHERE component = $1 AND name = $2 \
             ORDER BY seq DESC LIMIT $3",
            &[text(component), text(channel), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read_move).collect())
}

/// The last move of a channel that was recorded before a time in RFC 3339 (milliseconds, UTC).
pub async fn channel_move_before(
    conn: &mut Conn,
    component: &ComponentName,
    channel: &Tag,
    time: &str,
) -> Result<Option<ChannelMove>, SqlError> {
    let moves = channel_moves(conn, component, channel, i64::MAX.unsigned_abs()).await?;
    Ok(moves.into_iter().find(|one| super::is_at_or_before(&one.time, time)))
}

/// A channel moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelMove {
    /// Where it pointed from then on; none: it was removed.
    pub digest: Option<Digest>,
    /// When.
    pub time: String,
    /// The place of its entry.
    pub seq: u64,
}

fn read_move(row: &Row) -> ChannelMove {
    ChannelMove { digest: super::opt_parsed(row.opt_text(0)), time: row.text(1), seq: row.count(2) }
}

/// The channels of a component that point to a digest.
pub async fn channels_of(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<Vec<Tag>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name FROM channel WHERE component = $1 AND digest = $2 ORDER BY name",
            &[text(component), text(digest)],
        )
        .await?;
    Ok(rows.into_iter().map(|row| super::parsed(row.text(0))).collect())
}

/// The digests of a component that have bytes, in order behind one; with the time from which those without names count.
pub async fn with_bytes(
    conn: &mut Conn,
    component: &ComponentName,
    after: &str,
    limit: u64,
) -> Result<Vec<Manifest>, SqlError> {
    let rows = conn
        .rows(
            select_manifest!(
                "WHERE component = $1 AND digest > $2 AND NOT EXISTS (SELECT 1 FROM version \
                 WHERE version.component = manifest.component AND version.digest = manifest.digest \
                 AND version.expired IS NOT NULL) ORDER BY digest LIMIT $3"
            ),
            &[text(component), after.into(), limit.into()],
        )
        .await?;
    Ok(rows.iter().map(read_manifest).collect())
}

/// The tags of a component behind a name, in byte order: versions, channels, and environments with a deployment.
pub async fn tags(
    conn: &mut Conn,
    component: &ComponentName,
    after: &str,
    limit: u64,
) -> Result<Vec<String>, SqlError> {
    let rows = conn
        .rows(
            "SELECT name FROM version WHERE component = $1 AND name > $2 \
             UNION SELECT name FROM channel WHERE component = $1 AND name > $2 \
             UNION SELECT environment FROM deployment WHERE component = $1 AND environment > $2 AND state = 'succeeded' \
             ORDER BY 1 LIMIT $3",
            &[text(component), after.into(), limit.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| row.text(0)).collect())
}

/// Where else the bytes of a digest are.
pub async fn locations(conn: &mut Conn, digest: &Digest) -> Result<Vec<(String, String)>, SqlError> {
    let rows = conn
        .rows("SELECT place, verified_at FROM location WHERE digest = $1 ORDER BY place", &[text(digest)])
        .await?;
    Ok(rows.into_iter().map(|row| (row.text(0), row.text(1))).collect())
}

/// Whether a component has manifests, be it without a name yet.
pub async fn has_manifests(conn: &mut Conn, component: &ComponentName) -> Result<bool, SqlError> {
    Ok(conn.row("SELECT 1 FROM manifest WHERE component = $1 LIMIT 1", &[text(component)]).await?.is_some())
}

/// The components that have manifests and no name yet, which no entry created.
pub async fn unnamed_components(conn: &mut Conn) -> Result<Vec<ComponentName>, SqlError> {
    let rows = conn
        .rows(
            "SELECT DISTINCT component FROM manifest WHERE NOT EXISTS \
             (SELECT 1 FROM component WHERE component.name = manifest.component) ORDER BY component",
            &[],
        )
        .await?;
    Ok(rows.into_iter().map(|row| super::parsed(row.text(0))).collect())
}

/// Every manifest, for checking that its bytes are there; with whether those of what it needs must be, which is so unless
/// it has expired in every component.
pub(crate) async fn all_manifests(conn: &mut Conn) -> Result<Vec<(Digest, bool)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT digest, CAST(MIN(CASE WHEN EXISTS (SELECT 1 FROM version WHERE version.component = manifest.component \
             AND version.digest = manifest.digest AND version.expired IS NOT NULL) THEN 1 ELSE 0 END) AS BIGINT) \
             FROM manifest GROUP BY digest ORDER BY digest",
            &[],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (super::parsed(row.text(0)), row.int(1) == 0)).collect())
}

/// How many versions of a component were published behind a place in the ledger.
pub async fn published_after(conn: &mut Conn, component: &ComponentName, seq: u64) -> Result<u64, SqlError> {
    let row = conn
        .row("SELECT COUNT(*) FROM version WHERE component = $1 AND seq > $2", &[text(component), seq.into()])
        .await?;
    Ok(row.map_or(0, |row| row.count(0)))
}

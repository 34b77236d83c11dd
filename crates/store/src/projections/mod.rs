//! State is a fold: what each leaf of the ledger does to the tables, and how they are asked.
//!
//! [`apply`] is the whole fold. It is used by every append, by `semel rebuild` and by `semel audit verify`, and nothing else
//! writes to these tables.

pub mod component;
pub mod build;
pub mod commit;
pub mod artefact;
pub mod evidence;
pub mod pipeline;
pub mod promotion;
pub mod deployment;
pub mod document;

use semel_model::entry::{Change, Entry, Leaf};
use semel_model::name::{ComponentName, EnvironmentName};

use crate::ledger::{self, ReadError};
use crate::schema;
use crate::sql::{Conn, SqlError, text};

/// Folds one leaf into the tables.
pub async fn apply(conn: &mut Conn, seq: u64, leaf: &Leaf) -> Result<(), SqlError> {
    let Leaf::Entry(entry) = leaf else { return Ok(()) };
    match &entry.change {
        Change::StoreCreated(_) => Ok(()),
        Change::ComponentCreated(body) => component::created(conn, body).await,
        Change::ComponentChanged(body) => component::changed(conn, body).await,
        Change::BuildReserved(body) => build::reserved(conn, entry, body).await,
        Change::BuildFailed(body) => build::failed(conn, body).await,
        Change::HomeMoved(body) => component::home_moved(conn, seq, body).await,
        Change::HomeTaken(body) => component::home_taken(conn, body).await,
        Change::PartBuilt(body) => build::part_built(conn, entry, body).await,
        Change::CommitMatched(body) => build::matched(conn, &body.component, &body.commit, body.number).await,
        Change::CommitsRecorded(body) => commit::recorded(conn, body).await,
        Change::ManifestStored(body) => artefact::manifest_stored(conn, entry, body).await,
        Change::ManifestRemoved(body) => artefact::manifest_removed(conn, body).await,
        Change::VersionDeprecated(body) => artefact::deprecated(conn, body).await,
        Change::VersionExpired(body) => artefact::expired(conn, entry, body).await,
        Change::VersionRevived(body) => artefact::revived(conn, entry, body).await,
        Change::VersionPublished(body) => artefact::published(conn, seq, entry, body).await,
        Change::VersionFinalised(body) => artefact::finalised(conn, seq, entry, body).await,
        Change::ChannelMoved(body) => artefact::channel_moved(conn, seq, entry, body).await,
        Change::OverwriteRefused(body) => artefact::overwrite_refused(conn, entry, body).await,
        Change::LocationRecorded(body) => artefact::location_recorded(conn, entry, body).await,
        Change::EvidenceAttached(body) => evidence::attached(conn, seq, entry, body).await,
        Change::PipelineApplied(body) => pipeline::applied(conn, seq, entry, body).await,
        Change::PromotionGranted(body) => promotion::decided(conn, seq, entry, body, "granted").await,
        Change::PromotionRefused(body) => promotion::decided(conn, seq, entry, body, "refused").await,
        Change::DeploymentStarted(body) => deployment::started(conn, entry, body).await,
        Change::DeploymentSucceeded(body) => deployment::succeeded(conn, entry, body).await,
        Change::DeploymentFailed(body) => deployment::failed(conn, entry, body).await,
        Change::DeploymentRefused(_) | Change::DriftDetected(_) => Ok(()),
        Change::ObservationChanged(body) => deployment::observed(conn, entry, body).await,
        Change::HoldSet(body) => deployment::hold_set(conn, entry, body).await,
        Change::HoldReleased(body) => deployment::hold_released(conn, body).await,
        Change::Rejected(body) => promotion::rejected(conn, entry, body).await,
        Change::Accepted(body) => promotion::accepted(conn, body).await,
    }?;
    document::named(conn, &entry.change).await?;
    remember_event(conn, seq, entry).await
}

/// What happened in an environment is found again by its name.
async fn remember_event(conn: &mut Conn, seq: u64, entry: &Entry) -> Result<(), SqlError> {
    for (environment, component) in places(&entry.change) {
        let component = component.map_or("", ComponentName::as_str);
        conn.execute(
            "INSERT INTO event (environment, component, seq) VALUES ($1, $2, $3)",
            &[text(environment), component.into(), seq.into()],
        )
        .await?;
    }
    Ok(())
}

/// The environments that a change concerns.
fn places(change: &Change) -> Vec<(&EnvironmentName, Option<&ComponentName>)> {
    match change {
        Change::PromotionGranted(b) | Change::PromotionRefused(b) => {
            vec![(&b.environment, Some(&b.component))]
        }
        Change::DeploymentStarted(b) => vec![(&b.environment, Some(&b.component))],
        Change::DeploymentSucceeded(b) => vec![(&b.environment, Some(&b.component))],
        Change::DeploymentFailed(b) => vec![(&b.environment, Some(&b.component))],
        Change::DeploymentRefused(b) => vec![(&b.environment, Some(&b.component))],
        Change::ObservationChanged(b) => vec![(&b.environment, Some(&b.component))],
        Change::DriftDetected(b) => vec![(&b.environment, Some(&b.component))],
        Change::HoldSet(b) => vec![(&b.environment, b.component.as_ref())],
        Change::HoldReleased(b) => vec![(&b.environment, b.component.as_ref())],
        Change::Rejected(b) | Change::Accepted(b) => {
            b.environments.iter().map(|environment| (environment, Some(&b.component))).collect()
        }
        _ => Vec::new(),
    }
}

/// Drops every projection and folds the whole ledger again, in the connection's transaction.
pub async fn rebuild(conn: &mut Conn) -> Result<u64, ReadError> {
    for (table, _) in schema::projections() {
        conn.clear(table).await?;
    }
    let mut seq = 0;
    loop {
        let leaves = ledger::read(conn, seq, 1_000).await?;
        if leaves.is_empty() {
            return Ok(seq);
        }
        for recorded in &leaves {
            apply(conn, recorded.seq, &recorded.leaf).await?;
        }
        seq += leaves.len() as u64;
    }
}

/// Every projection as lines of text, in the order of their keys.
pub async fn dump(conn: &mut Conn) -> Result<Vec<(&'static str, Vec<String>)>, SqlError> {
    let mut tables = Vec::new();
    for (table, key) in schema::projections() {
        tables.push((table, conn.dump(table, key).await?));
    }
    Ok(tables)
}

/// Reads a value that the fold wrote: its type was checked then.
#[expect(clippy::needless_pass_by_value, reason = "columns come as owned texts")]
pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: String) -> T {
    text.parse().expect("the fold writes only well-formed values")
}

/// As [`parsed`], for what may be absent.
fn opt_parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: Option<String>) -> Option<T> {
    text.map(parsed)
}

/// Whether a recorded time lies at or before another; a text that is no time lies nowhere.
fn is_at_or_before(time: &str, limit: &str) -> bool {
    let read = |text: &str| text.parse::<jiff::Timestamp>().ok();
    read(time).zip(read(limit)).is_some_and(|(time, limit)| time <= limit)
}

/// Versions are read through the tag that they are.
fn version(text: String) -> semel_model::version::Version {
    semel_model::version::Version::named(parsed(text))
}

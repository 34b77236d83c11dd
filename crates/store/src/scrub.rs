//! Scrub: hashes what lies in the store again, the longest unseen first, and puts aside what is damaged.
//!
//! Damage never removes a name. A blob that is put aside counts as missing, which `audit verify` and `status` of the
//! collection report, and the next push of its bytes heals it.

use std::collections::HashMap;
use std::io;

use jiff::Timestamp;
use semel_model::digest::Digest;

use crate::Store;
use crate::blobs::BlobError;
use crate::projections::parsed;
use crate::sql::{Conn, SqlError, text};

/// The blobs could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// They could not be listed.
    #[error("cannot list the blobs of the store")]
    List(#[source] io::Error),
    /// One of them could not be read or put aside.
    #[error("cannot check a blob")]
    Blob(#[from] BlobError),
    /// The results could not be kept.
    #[error("cannot keep the results of the check")]
    Sql(#[from] SqlError),
    /// The results could not be made durable.
    #[error("cannot keep the results of the check")]
    Append(#[from] crate::ledger::AppendError),
}

/// What was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Those that were damaged and are put aside now.
    pub damaged: Vec<Digest>,
    /// Those that were damaged before and are whole again.
    pub healed: Vec<Digest>,
    /// How many blobs there are that were not reached this time.
    pub left: u64,
}

/// What the system says when a sector cannot be read.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
/// How many results are kept at once.
const CHUNK: usize = 64;

/// Checks blobs, the longest unseen first, until `most_bytes` were read.
pub async fn scrub(store: &Store, most_bytes: u64, now: Timestamp) -> Result<Scrubbed, ScrubError> {
    let blobs = store.blobs().clone();
    let all = tokio::task::spawn_blocking(move || blobs.list());
    let mut due = all.await.map_err(io::Error::other).and_then(|listed| listed).map_err(ScrubError::List)?;
    let known = checked(&mut store.reader().await?).await?;
    due.sort_by_key(|digest| known.get(digest).map_or(i64::MIN, |(millis, _)| *millis));
    let (mut done, mut rest) = (Scrubbed::default(), due.as_slice());
    while !rest.is_empty() && done.bytes < most_bytes {
        let chunk = &rest[..rest.len().min(CHUNK)];
        let (results, seen) = check(store, chunk, most_bytes - done.bytes).await?;
        keep(store, &results, &known, now, &mut done).await?;
        rest = &rest[seen..];
    }
    done.left = rest.len() as u64;
    Ok(done)
}

/// A blob's size when it is whole; `None` when it is damaged.
type Checked = (Digest, Option<u64>);

/// Hashes blobs on a thread that may wait, until enough bytes were read; says how many of the digests it has seen.
async fn check(
    store: &Store,
    digests: &[Digest],
    most_bytes: u64,
) -> Result<(Vec<Checked>, usize), ScrubError> {
    let (blobs, digests) = (store.blobs().clone(), digests.to_vec());
    let work = move || {
        let (mut results, mut bytes, mut seen) = (Vec::with_capacity(digests.len()), 0, 0);
        for digest in digests {
            if bytes >= most_bytes {
                break;
            }
            seen += 1;
            match blobs.verify(&digest) {
                Ok(size) => {
                    bytes += size;
                    results.push((digest, Some(size)));
                }
                Err(BlobError::Damaged(_)) => results.push((digest, None)),
                // A sector that cannot be read is damage; whatever else fails is not the blob's fault.
                Err(BlobError::Io { source, .. }) if source.raw_os_error() == Some(EIO) => {
                    results.push((digest, None));
                }
                // Collected in the meantime.
                Err(BlobError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((results, seen))
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| ScrubError::List(io::Error::other(error)))?
}

async fn keep(
    store: &Store,
    results: &[Checked],
    known: &HashMap<Digest, (i64, bool)>,
    now: Timestamp,
    done: &mut Scrubbed,
) -> Result<(), ScrubError> {
    let mut turn = store.turn().await?;
    for (digest, size) in results {
        done.blobs += 1;
        match size {
            Some(size) => {
                done.bytes += size;
                if known.get(digest).is_some_and(|(_, damaged)| *damaged) {
                    done.healed.push(digest.clone());
                }
            }
            None => {
                // Pushed again or collected since it was looked at.
                let Some(aside) = store.blobs().quarantine(digest)? else { continue };
                tracing::error!(blob = %digest, aside = %aside.display(), "A blob is damaged and was put aside");
                turn.touch();
                done.damaged.push(digest.clone());
            }
        }
        let damaged = size.is_none().then(|| now.to_string());
        turn.db()
            .execute(
                "INSERT INTO checked (digest, checked_millis, damaged) VALUES ($1, $2, $3) \
                 ON CONFLICT (digest) DO UPDATE SET checked_millis = $2, damaged = $3",
                &[text(digest), now.as_millisecond().into(), damaged.into()],
            )
            .await?;
    }
    turn.append(Vec::new()).await?;
    Ok(())
}

/// When each blob was last checked, and whether it was damaged then.
async fn checked(conn: &mut Conn) -> Result<HashMap<Digest, (i64, bool)>, SqlError> {
    let rows = conn.rows("SELECT digest, checked_millis, damaged FROM checked", &[]).await?;
    let read = |row: &crate::sql::Row| (parsed(row.text(0)), (row.int(1), row.opt_text(2).is_some()));
    Ok(rows.iter().map(read).collect())
}

/// The blobs that were found damaged and are not whole again, with the time.
pub async fn damaged(store: &Store) -> Result<Vec<(Digest, String)>, SqlError> {
    let rows = store
        .reader()
        .await?
        .rows("SELECT digest, damaged FROM checked WHERE damaged IS NOT NULL ORDER BY digest", &[])
        .await?;
    let found = rows.into_iter().map(|row| (parsed::<Digest>(row.text(0)), row.text(1)));
    Ok(found.filter(|(digest, _)| !store.blobs().contains(digest)).collect())
}

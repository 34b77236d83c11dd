//! How a store is: whether it answers, and what can be counted in it at any time.

use std::io::{self, Write as _};
use std::path::Path;

use crate::durable::{self, Access};
use crate::ledger;
use crate::sql::SqlError;
use crate::{OpenError, Store};

/// Why a store cannot be worked with. What is said can be told to anybody; the cause is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// Nothing can be read at its place, for instance because a disk is not mounted.
    #[error("the identity of the store cannot be read")]
    Identity(#[source] OpenError),
    /// Another store lies at its place.
    #[error("another store lies at the place of this one")]
    Exchanged,
    /// The database does not answer.
    #[error("the database of the store does not answer")]
    Database(#[source] SqlError),
    /// Nothing can be written, for instance because the disk is full.
    #[error("the disk of the store cannot be written")]
    Disk(#[source] io::Error),
}

/// What is counted in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// How many leaves the ledger has.
    pub ledger_leaves: u64,
    /// How many uploads have begun and not ended.
    pub open_uploads: u64,
    /// How many bytes lie in the trash.
    pub trash_bytes: u64,
}

/// Tries everything that every change needs: the store's identity, its database, and a small durable write.
pub async fn check(store: &Store) -> Result<(), Unwell> {
    let dir = store.dir().to_owned();
    let identity = blocking(move || crate::read_identity(&dir)).await.map_err(Unwell::Identity)?;
    if identity.id != store.id() {
        return Err(Unwell::Exchanged);
    }
    let mut conn = store.reader().await.map_err(Unwell::Database)?;
    ledger::size(&mut conn).await.map_err(Unwell::Database)?;
    let uploads = store.blobs().uploads().clone();
    blocking(move || write_canary(uploads.dir())).await.map_err(Unwell::Disk)
}

/// Counts.
pub async fn figures(store: &Store) -> Result<Figures, SqlError> {
    let ledger_leaves = ledger::size(&mut store.reader().await?).await?;
    let (uploads, trash) = (store.blobs().uploads().clone(), store.dir().join("trash"));
    let (open_uploads, trash_bytes) = blocking(move || (uploads.count_sessions(), bytes_in(&trash))).await;
    Ok(Figures { ledger_leaves, open_uploads, trash_bytes })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("looking at a store does not panic")
}

fn write_canary(dir: &Path) -> io::Result<()> {
    let path = dir.join(durable::temporary_name("canary-"));
    let mut file = durable::create_new(&path, Access::Private)?;
    let written = file.write_all(b"alive\n").and_then(|()| file.sync_data());
    // Also when it could not be written: on a full disk many of them would lie there.
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

fn bytes_in(dir: &Path) -> u64 {
    let Ok(listing) = std::fs::read_dir(dir) else { return 0 };
    let size = |item: std::fs::DirEntry| match item.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&item.path()),
        Ok(metadata) => metadata.len(),
        // What goes away while it is counted does not count.
        Err(_) => 0,
    };
    listing.flatten().map(size).sum()
}

//! `semel recover` and `semel rebuild`: from the entry files to the ledger, from the ledger to the projections.

use std::path::{Path, PathBuf};

use semel_model::entry::Leaf;
use semel_model::note::{Checkpoint, LedgerKey};

use crate::blobs::Blobs;
use crate::entry_files::{Batch, EntryFiles};
use crate::ledger::{self, AppendError, ReadError};
use crate::lock::StoreLock;
use crate::schema::Migrated;
use crate::sql::{Conn, Db, SqlError};
use crate::{
    OpenError, Place, Store, content, durable, mark_unmarked_blobs, projections, read_identity,
    refuse_foreign_database, refuse_other_database, schema,
};

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// How many entries the store has now.
    pub entries: u64,
    /// How many of them were taken from the entry files.
    pub taken: u64,
    /// Where the damaged database lies that was there before.
    pub aside: Option<PathBuf>,
}

/// A store could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It is no store, or of a newer format.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The entry files cannot be read.
    #[error("cannot read the entry files")]
    Files(#[source] std::io::Error),
    /// The entry files do not continue what is there.
    #[error(
        "the entry files continue at entry {found}, but the ledger ends at {expected}: a file is missing"
    )]
    Gap {
        /// Where the ledger ends.
        expected: u64,
        /// Where the files continue.
        found: u64,
    },
    /// A batch is not what was signed.
    #[error("the entries up to {0} are not the ones that were signed")]
    NotSigned(u64),
    /// The database failed.
    #[error("cannot write the recovered database")]
    Sql(#[from] SqlError),
    /// The schema failed.
    #[error("cannot prepare the recovered database")]
    Schema(#[from] schema::SchemaError),
    /// The ledger failed.
    #[error("cannot write the recovered ledger")]
    Append(#[from] AppendError),
    /// The ledger cannot be read.
    #[error("cannot read the recovered ledger")]
    Read(#[from] ReadError),
    /// The new database could not be put in place.
    #[error("cannot put the recovered database in place")]
    Place(#[source] std::io::Error),
}

/// Restores the database of a store from its entry files: a lost or damaged one whole, one that is behind from where it ends.
pub async fn recover(place: &Place) -> Result<Recovered, RecoverError> {
    let identity = read_identity(&place.dir)?;
    refuse_other_database(place, &identity)?;
    let key = LedgerKey::parse(&identity.ledger_key).ok_or(RecoverError::NotSigned(0))?;
    let lock = StoreLock::at(place.dir.join("store.lock"));
    let _held = lock.acquire().await.map_err(RecoverError::Place)?;
    let contents = EntryFiles::at(place.dir.join("ledger")).read().map_err(RecoverError::Files)?;
    let mut leaves = contents.batches.iter().flat_map(|batch| &batch.leaves);
    let any_manifest = leaves.any(|leaf| Leaf::parse(leaf).is_ok_and(|leaf| leaf.kind() == "ManifestStored"));
    mark_unmarked_blobs(&place.dir, &identity.id, any_manifest).map_err(RecoverError::Place)?;
    let source = Source { place, store: &identity.id, batches: &contents.batches, key: &key };
    let database = place.dir.join("semel.db");
    let is_there = place.database.is_some() || database.exists();
    if is_there && !source.is_damaged(&database).await? {
        let mut conn = place.open_database().connect().await?;
        refuse_foreign_database(place, schema::owner(&mut conn).await?.as_deref(), source.store)?;
        return source.extend(&mut conn).await;
    }
    durable::sweep(&place.dir).map_err(RecoverError::Place)?;
    let temporary = place.dir.join(durable::temporary_name(".tmp-recover-"));
    let mut conn = Db::at(&temporary).connect().await?;
    let recovered = source.extend(&mut conn).await?;
    // Closing writes the journal into the file, which is whole under its name from then on.
    conn.close().await?;
    let aside = is_there.then(|| place.dir.join(durable::temporary_name("semel.db.damaged-")));
    make_room(&place.dir, aside.as_deref()).map_err(RecoverError::Place)?;
    durable::rename_into_place(&temporary, &database).map_err(RecoverError::Place)?;
    Ok(Recovered { aside, ..recovered })
}

/// Puts a damaged database aside. The journal of a lost or damaged one would be played into the new one.
fn make_room(dir: &Path, aside: Option<&Path>) -> std::io::Result<()> {
    for name in ["semel.db-wal", "semel.db-shm"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match aside {
        Some(aside) => durable::rename_into_place(&dir.join("semel.db"), aside),
        None => durable::sync_dir(dir),
    }
}

/// What is recovered from, and for which store.
struct Source<'a> {
    place: &'a Place,
    store: &'a str,
    batches: &'a [Batch],
    key: &'a LedgerKey,
}

impl Source<'_> {
    /// Whether the database in the store's directory is no whole database, or does not say what was signed while the files
    /// have all of it. One in a server is not ours to replace.
    async fn is_damaged(&self, database: &Path) -> Result<bool, RecoverError> {
        if self.place.database.is_some() {
            return Ok(false);
        }
        match self.is_as_signed(database).await {
            Ok(is_as_signed) => Ok(!is_as_signed),
            Err(error) if error.is_damage() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    async fn is_as_signed(&self, database: &Path) -> Result<bool, SqlError> {
        let mut conn = Db::at(database).connect().await?;
        if !conn.has_whole_pages().await? {
            return Ok(false);
        }
        let files_end = self.batches.last().map_or(0, Batch::end);
        let is_own = schema::owner(&mut conn).await?.is_some_and(|owner| owner == self.store);
        if !is_own || ledger::size(&mut conn).await? > files_end {
            return Ok(true);
        }
        for batch in self.batches {
            let here = ledger::leaves(&mut conn, batch.first, batch.end()).await?;
            if !here.iter().zip(&batch.leaves).all(|(here, signed)| here == signed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn extend(&self, conn: &mut Conn) -> Result<Recovered, RecoverError> {
        conn.begin_defining().await?;
        let migrated = schema::apply_migrations(conn).await?;
        let owner = schema::claim(conn, self.store).await?;
        refuse_foreign_database(self.place, Some(&owner), self.store)?;
        if migrated == Migrated::Older {
            projections::rebuild(conn).await?;
        }
        let before = ledger::size(conn).await?;
        for batch in self.batches.iter().filter(|batch| batch.first >= before) {
            take_in(conn, batch, self.key).await?;
        }
        for error in content::read_all(conn, &Blobs::at(&self.place.dir)).await?.unreadable {
            tracing::error!(%error, "A manifest cannot be read; run `semel audit verify`");
        }
        conn.commit().await?;
        let entries = ledger::size(conn).await?;
        Ok(Recovered { entries, taken: entries - before, aside: None })
    }
}

async fn take_in(conn: &mut Conn, batch: &Batch, key: &LedgerKey) -> Result<(), RecoverError> {
    let size = ledger::size(conn).await?;
    if batch.first != size {
        return Err(RecoverError::Gap { expected: size, found: batch.first });
    }
    let leaves: Vec<Leaf> = batch
        .leaves
        .iter()
        .map(|bytes| Leaf::parse(bytes))
        .collect::<Result<_, _>>()
        .map_err(AppendError::Leaf)?;
    let mut frontier = ledger::frontier(conn, size).await?;
    ledger::insert(conn, &mut frontier, &leaves, &batch.leaves).await?;
    let signed = Checkpoint::verify(&batch.note, key).map_err(|_| RecoverError::NotSigned(batch.end()))?;
    if (signed.size, signed.root) != (frontier.size(), frontier.root()) {
        return Err(RecoverError::NotSigned(batch.end()));
    }
    Ok(ledger::store_note(conn, signed.size, &batch.note).await?)
}

/// Drops the projections of a store and folds the ledger again; returns how many leaves were folded.
pub async fn rebuild(store: &Store) -> Result<u64, RecoverError> {
    let mut turn = store.turn().await?;
    let folded = projections::rebuild(turn.db()).await?;
    turn.append(Vec::new()).await?;
    Ok(folded)
}

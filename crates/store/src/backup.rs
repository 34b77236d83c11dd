//! `semel backup` and `semel restore`: a store with its keys, as a directory.
//!
//! ```text
//! backup.json                 what it is: format, store, how far the ledger had come
//! store/                      store.json, semel.db, ledger/, blobs/
//! keys/                       the store's keys (0700)
//! ```
//!
//! Tables that are in PostgreSQL are not copied: the ledger's files say all that they say but the names behind pseudonyms,
//! which are learned again. A backup of either kind is restored with either kind of database.
//!
//! Blobs never change, so a second backup into the same directory copies only what is new.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use semel_model::digest::Algorithm;
use serde::{Deserialize, Serialize};

use crate::durable::{self, Access};
use crate::keys::create_private_dir;
use crate::ledger::{self, AppendError, ReadError};
use crate::recover::{self, RecoverError};
use crate::sql::{Conn, SqlError};
use crate::{Identity, OpenError, Place, Store, read_identity, schema};

/// `backup.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of backups, 1.
    pub format: u32,
    /// The store's id.
    pub store: String,
    /// How many entries the ledger had.
    pub entries: u64,
    /// The signed checkpoint.
    pub checkpoint: String,
    /// When it was made.
    pub time: Timestamp,
}

/// What a backup or a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// How many entries the copy holds.
    pub entries: u64,
    /// How many blobs were copied.
    pub blobs: u64,
    /// How many were there already.
    pub kept: u64,
}

/// A backup or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database failed.
    #[error("cannot copy the store's database")]
    Sql(#[from] SqlError),
    /// The others could not be kept from recording for a moment.
    #[error("cannot take a turn at the store")]
    Turn(#[from] AppendError),
    /// The ledger cannot be read.
    #[error("cannot read the ledger")]
    Read(#[from] ReadError),
    /// A file failed.
    #[error("cannot copy to {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory holds something else.
    #[error("{0} is no backup of this store")]
    Foreign(PathBuf),
    /// There is no backup.
    #[error("{0} is no backup")]
    NotABackup(PathBuf),
    /// The place is taken.
    #[error("{0} is not empty; restore into a new directory")]
    NotEmpty(PathBuf),
    /// The tables cannot be made from the ledger's files.
    #[error("the database of the restored store cannot be made")]
    Recover(#[from] RecoverError),
    /// The restored store cannot be opened.
    #[error("the restored store cannot be opened")]
    Open(#[from] OpenError),
}

/// Copies a store and its keys into a directory, while others may go on recording. Ledger and keys are copied in one turn,
/// so that the keys have signed exactly what the copied ledger holds; then every blob that it can name, which were durable
/// before.
pub async fn backup(store: &Store, to: &Path, now: Timestamp) -> Result<Copied, BackupError> {
    refuse_foreign(store, to)?;
    let target = to.join("store");
    for dir in ["blobs", "ledger", "uploads", "trash"] {
        durable::create_dir(&target.join(dir)).map_err(at(&target))?;
    }
    let keys = to.join("keys");
    create_private_dir(&keys).map_err(at(&keys))?;
    // A collection would move blobs away between the tables and their copy.
    let _in_place = store.keep_blobs_in_place().await?;
    let turn = store.turn().await?;
    let mut conn = store.reader().await?;
    let checkpoint = ledger::checkpoint(&mut conn).await?;
    let entries = ledger::size(&mut conn).await?;
    copy_database(&mut conn, &target).await?;
    copy_all(&store.dir().join("ledger"), &target.join("ledger"))?;
    copy_all(store.keys().dir(), &keys)?;
    drop(turn);
    let (blobs, kept) = copy_blobs(store.dir(), &target)?;
    copy_file(&store.dir().join("store.json"), &target.join("store.json"))?;
    let manifest = Manifest { format: 1, store: store.id().to_owned(), entries, checkpoint, time: now };
    let path = to.join("backup.json");
    let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    durable::replace(&path, &bytes, Access::Shared).map_err(at(&path))?;
    Ok(Copied { entries, blobs, kept })
}

async fn copy_database(conn: &mut Conn, target: &Path) -> Result<(), BackupError> {
    let temporary = target.join(durable::temporary_name(".tmp-db-"));
    if conn.copy_to(&temporary).await? {
        durable::rename_into_place(&temporary, &target.join("semel.db")).map_err(at(target))?;
    }
    Ok(())
}

fn refuse_foreign(store: &Store, to: &Path) -> Result<(), BackupError> {
    match read_manifest(to) {
        Ok(manifest) if manifest.store != store.id() => Err(BackupError::Foreign(to.to_owned())),
        Ok(_) => Ok(()),
        Err(_) if is_empty(to) => durable::create_dir(to).map_err(at(to)),
        // A backup that was broken off has no manifest yet, but the store's own identity.
        Err(_) => match read_identity(&to.join("store")) {
            Ok(identity) if identity.id == store.id() => Ok(()),
            _ if to.join("store").is_dir() => Ok(()),
            _ => Err(BackupError::Foreign(to.to_owned())),
        },
    }
}

/// Reads what a backup says it is.
pub fn read_manifest(dir: &Path) -> Result<Manifest, BackupError> {
    let bytes = fs::read(dir.join("backup.json")).map_err(|_| BackupError::NotABackup(dir.to_owned()))?;
    serde_json::from_slice(&bytes).map_err(|_| BackupError::NotABackup(dir.to_owned()))
}

/// Restores a backup into a place that is empty or not there. Keys that this machine has already are kept: they know how
/// far the ledger was signed, so that an old copy cannot fork it.
pub async fn restore(from: &Path, place: &Place) -> Result<Copied, BackupError> {
    let manifest = read_manifest(from)?;
    if !is_empty(&place.dir) {
        return Err(BackupError::NotEmpty(place.dir.clone()));
    }
    refuse_foreign_database(&manifest, place).await?;
    for dir in ["blobs", "ledger", "uploads", "trash"] {
        durable::create_dir(&place.dir.join(dir)).map_err(at(&place.dir))?;
    }
    let source = from.join("store");
    let (blobs, kept) = copy_blobs(&source, &place.dir)?;
    copy_all(&source.join("ledger"), &place.dir.join("ledger"))?;
    let database = source.join("semel.db");
    let copied = place.database.is_none() && database.exists();
    if copied {
        copy_file(&database, &place.dir.join("semel.db"))?;
    }
    let keys = place.keys.join(&manifest.store);
    if !keys.exists() {
        create_private_dir(&keys).map_err(at(&keys))?;
        copy_all(&from.join("keys"), &keys)?;
    }
    write_identity(&source, place)?;
    if !copied {
        recover::recover(place).await?;
    }
    let store = Store::open(place).await?;
    let entries = ledger::size(&mut store.reader().await?).await?;
    Ok(Copied { entries, blobs, kept })
}

/// The store is the one of the backup, with the database of its new place.
fn write_identity(source: &Path, place: &Place) -> Result<(), BackupError> {
    let identity = Identity { database: place.database_kind(), ..read_identity(source)? };
    let bytes = serde_json::to_vec_pretty(&identity).expect("an identity is JSON");
    let path = place.dir.join("store.json");
    durable::replace(&path, &bytes, Access::Shared).map_err(at(&path))
}

/// A database of another store is refused before anything is copied; one of this store is brought up to date.
async fn refuse_foreign_database(manifest: &Manifest, place: &Place) -> Result<(), BackupError> {
    if place.database.is_none() {
        return Ok(());
    }
    let mut conn = place.open_database().connect().await?;
    let owner = schema::owner(&mut conn).await?;
    Ok(crate::refuse_foreign_database(place, owner.as_deref(), &manifest.store)?)
}

fn is_empty(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut listing) => listing.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Copies the files of a directory, replacing older copies.
fn copy_all(from: &Path, to: &Path) -> Result<(), BackupError> {
    for item in fs::read_dir(from).map_err(at(from))? {
        let item = item.map_err(at(from))?;
        if item.file_type().map_err(at(from))?.is_file() {
            copy_file(&item.path(), &to.join(item.file_name()))?;
        }
    }
    Ok(())
}

/// Copies the blobs of a store that the copy does not have, and says whose they are.
fn copy_blobs(from: &Path, to: &Path) -> Result<(u64, u64), BackupError> {
    let (mut copied, mut kept) = (0, 0);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let source = from.join("blobs").join(algorithm.as_str());
        if !source.exists() {
            continue;
        }
        let target = to.join("blobs").join(algorithm.as_str());
        durable::create_dir(&target).map_err(at(&target))?;
        let (more, already) = copy_missing(&source, &target)?;
        copied += more;
        kept += already;
    }
    let owner = Path::new("blobs").join(crate::OWNER_FILE);
    copy_file(&from.join(&owner), &to.join(&owner))?;
    Ok((copied, kept))
}

/// Copies the files below a directory that the copy does not have, and counts both.
fn copy_missing(from: &Path, to: &Path) -> Result<(u64, u64), BackupError> {
    let (mut copied, mut kept) = (0, 0);
    for item in fs::read_dir(from).map_err(at(from))? {
        let item = item.map_err(at(from))?;
        let target = to.join(item.file_name());
        if item.file_type().map_err(at(from))?.is_dir() {
            durable::create_dir(&target).map_err(at(&target))?;
            let (more, already) = copy_missing(&item.path(), &target)?;
            copied += more;
            kept += already;
        } else if target.exists() {
            kept += 1;
        } else {
            copy_file(&item.path(), &target)?;
            copied += 1;
        }
    }
    Ok((copied, kept))
}

fn copy_file(from: &Path, to: &Path) -> Result<(), BackupError> {
    let temporary = to.with_file_name(durable::temporary_name(".tmp-copy-"));
    let copied = fs::copy(from, &temporary)
        .and_then(|_| fs::File::open(&temporary)?.sync_data())
        .and_then(|()| durable::rename_into_place(&temporary, to));
    copied.map_err(at(to))
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + '_ {
    move |source| BackupError::Io { path: path.to_owned(), source }
}

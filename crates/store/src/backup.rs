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
//! Blobs never change, so a second backup into the same directory copies only what is new. A backup that is broken off leaves
//! the one before it whole: what names blobs gets its name behind them. A restore that is broken off leaves no store, and the
//! same restore goes on with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use semel_model::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::blobs::{BlobError, Blobs, verify_file};
use crate::durable::{self, Access};
use crate::keys::create_private_dir;
use crate::ledger::{self, AppendError, ReadError};
use crate::lock::StoreLock;
use crate::recover::{self, RecoverError};
use crate::sql::{Conn, SqlError};
use crate::{Identity, OpenError, Place, RESTORING, Store, read_identity, schema};

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
    /// Those that are not in the copy, because their bytes are damaged where they were copied from.
    pub damaged: Vec<Digest>,
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
    /// A blob could not be checked.
    #[error("cannot check a copied blob")]
    Blob(#[from] BlobError),
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
/// before. Only then do database, ledger and keys take the place of an older copy, in this order: each is ahead of the next,
/// as after a crash of the store.
pub async fn backup(store: &Store, to: &Path, now: Timestamp) -> Result<Copied, BackupError> {
    refuse_foreign(store, to)?;
    // A collection would move blobs away between the tables and their copy; and another backup waits.
    let _in_place = store.keep_blobs_in_place().await?;
    let (target, keys) = (to.join("store"), to.join("keys"));
    for dir in ["blobs", "ledger", "uploads", "trash"] {
        durable::create_dir(&target.join(dir)).map_err(at(&target))?;
    }
    create_private_dir(&keys).map_err(at(&keys))?;
    for dir in [&target, &target.join("ledger"), &keys] {
        durable::sweep(dir).map_err(at(dir))?;
    }
    let turn = store.turn().await?;
    let mut conn = store.reader().await?;
    let checkpoint = ledger::checkpoint(&mut conn).await?;
    let entries = ledger::size(&mut conn).await?;
    let mut ready = copy_database(&mut conn, &target).await?;
    ready.append(&mut copy_all(&store.dir().join("ledger"), &target.join("ledger"))?);
    ready.append(&mut copy_all(store.keys().dir(), &keys)?);
    drop(turn);
    let CopiedBlobs { copied, kept, damaged } = copy_blobs(store.dir(), &target)?;
    ready.push(copy_file(&store.dir().join("store.json"), &target.join("store.json"))?);
    put_in_place(ready)?;
    let manifest = Manifest { format: 1, store: store.id().to_owned(), entries, checkpoint, time: now };
    let path = to.join("backup.json");
    let bytes = serde_json::to_vec_pretty(&manifest).expect("a manifest is JSON");
    durable::replace(&path, &bytes, Access::Shared).map_err(at(&path))?;
    Ok(Copied { entries, blobs: copied, kept, damaged })
}

/// A copy that is whole and durable under a temporary name.
struct Ready {
    temporary: PathBuf,
    path: PathBuf,
}

/// Gives copies their names, in their order.
fn put_in_place(ready: Vec<Ready>) -> Result<(), BackupError> {
    ready.into_iter().try_for_each(|Ready { temporary, path }| {
        durable::rename_into_place(&temporary, &path).map_err(at(&path))
    })
}

async fn copy_database(conn: &mut Conn, target: &Path) -> Result<Vec<Ready>, BackupError> {
    let temporary = target.join(durable::temporary_name(".tmp-db-"));
    match conn.copy_to(&temporary).await? {
        true => Ok(vec![Ready { temporary, path: target.join("semel.db") }]),
        false => Ok(Vec::new()),
    }
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

/// Restores a backup into a place that is empty or not there, or goes on with a restore of it that was broken off. Keys that
/// this machine has already are kept: they know how far the ledger was signed, so that an old copy cannot fork it.
pub async fn restore(from: &Path, place: &Place) -> Result<Copied, BackupError> {
    let manifest = read_manifest(from)?;
    refuse_taken(place, &manifest)?;
    refuse_foreign_database(&manifest, place).await?;
    durable::create_dir(&place.dir).map_err(at(&place.dir))?;
    let lock = StoreLock::at(place.dir.join(LOCK)).acquire().await.map_err(at(&place.dir))?;
    // Somebody else may have been quicker.
    refuse_taken(place, &manifest)?;
    let source = from.join("store");
    let begun = place.dir.join(RESTORING);
    write_identity(&source, place, &begun)?;
    for dir in ["blobs", "ledger", "uploads", "trash"] {
        durable::create_dir(&place.dir.join(dir)).map_err(at(&place.dir))?;
    }
    for dir in [&place.dir, &place.dir.join("ledger")] {
        durable::sweep(dir).map_err(at(dir))?;
    }
    let CopiedBlobs { copied, kept, damaged } = copy_blobs(&source, &place.dir)?;
    put_in_place(copy_all(&source.join("ledger"), &place.dir.join("ledger"))?)?;
    let database = source.join("semel.db");
    let whole = place.database.is_none() && database.exists();
    if whole {
        put_in_place(vec![copy_file(&database, &place.dir.join("semel.db"))?])?;
    }
    restore_keys(&from.join("keys"), place, &manifest.store)?;
    let identity = place.dir.join("store.json");
    put_in_place(vec![Ready { temporary: begun, path: identity }])?;
    drop(lock);
    if !whole {
        recover::recover(place).await?;
    }
    let store = Store::open(place).await?;
    let entries = ledger::size(&mut store.reader().await?).await?;
    Ok(Copied { entries, blobs: copied, kept, damaged })
}

/// The lock of a store, which is there as soon as somebody asks whose the place is.
const LOCK: &str = "store.lock";

/// The keys come as one: a part of them would be taken for all.
fn restore_keys(from: &Path, place: &Place, store: &str) -> Result<(), BackupError> {
    let keys = place.keys.join(store);
    if keys.exists() {
        return Ok(());
    }
    let temporary = place.keys.join(format!(".tmp-{store}"));
    create_private_dir(&temporary).map_err(at(&temporary))?;
    durable::sweep(&temporary).map_err(at(&temporary))?;
    put_in_place(copy_all(from, &temporary)?)?;
    put_in_place(vec![Ready { temporary, path: keys }])
}

/// A place is free that is empty, or where a restore of the same store was broken off.
fn refuse_taken(place: &Place, manifest: &Manifest) -> Result<(), BackupError> {
    let begun = fs::read(place.dir.join(RESTORING)).ok();
    let begun = begun.and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok());
    let goes_on =
        begun.is_some_and(|begun| begun.id == manifest.store) && !place.dir.join("store.json").exists();
    match goes_on || is_empty(&place.dir) {
        true => Ok(()),
        false => Err(BackupError::NotEmpty(place.dir.clone())),
    }
}

/// The store is the one of the backup, with the database of its new place.
fn write_identity(source: &Path, place: &Place, path: &Path) -> Result<(), BackupError> {
    let identity = Identity { database: place.database_kind(), ..read_identity(source)? };
    let bytes = serde_json::to_vec_pretty(&identity).expect("an identity is JSON");
    durable::replace(path, &bytes, Access::Shared).map_err(at(path))
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
        Ok(mut listing) => listing.all(|item| item.is_ok_and(|item| item.file_name() == LOCK)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Copies the files of a directory, to take the place of older copies.
fn copy_all(from: &Path, to: &Path) -> Result<Vec<Ready>, BackupError> {
    let mut ready = Vec::new();
    for item in fs::read_dir(from).map_err(at(from))? {
        let item = item.map_err(at(from))?;
        if item.file_type().map_err(at(from))?.is_file() && !durable::is_temporary(&item.file_name()) {
            ready.push(copy_file(&item.path(), &to.join(item.file_name()))?);
        }
    }
    Ok(ready)
}

/// What became of the blobs.
#[derive(Default)]
struct CopiedBlobs {
    copied: u64,
    kept: u64,
    damaged: Vec<Digest>,
}

/// Copies the blobs of a store that the copy does not have, and says whose they are. Each copy is hashed before it gets its
/// name: what is damaged would be kept for whole by every later copy.
fn copy_blobs(from: &Path, to: &Path) -> Result<CopiedBlobs, BackupError> {
    let (source, target) = (Blobs::at(from), Blobs::at(to));
    let mut done = CopiedBlobs::default();
    for digest in source.list().map_err(at(from))? {
        let (blob, copy) = (source.path(&digest), target.path(&digest));
        let size = source.size(&digest)?;
        if target.size(&digest).is_ok_and(|kept| kept == size) {
            done.kept += 1;
            continue;
        }
        let shard = copy.parent().unwrap_or(to);
        durable::create_dir(shard).map_err(at(shard))?;
        durable::sweep(shard).map_err(at(shard))?;
        let ready = copy_file(&blob, &copy)?;
        match verify_file(&ready.temporary, &digest) {
            Ok(_) => {
                put_in_place(vec![ready])?;
                done.copied += 1;
            }
            Err(BlobError::Damaged(_)) => {
                fs::remove_file(&ready.temporary).map_err(at(&copy))?;
                done.damaged.push(digest);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let owner = Path::new("blobs").join(crate::OWNER_FILE);
    put_in_place(vec![copy_file(&from.join(&owner), &to.join(&owner))?])?;
    Ok(done)
}

fn copy_file(from: &Path, to: &Path) -> Result<Ready, BackupError> {
    let temporary = to.with_file_name(durable::temporary_name(".tmp-copy-"));
    let copied = fs::copy(from, &temporary).and_then(|_| fs::File::open(&temporary)?.sync_data());
    copied.map_err(at(to))?;
    Ok(Ready { temporary, path: to.to_owned() })
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + '_ {
    move |source| BackupError::Io { path: path.to_owned(), source }
}

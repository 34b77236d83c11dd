//! What lasts: blobs, the ledger, and what is folded from it.
//!
//! ```text
//! store.json  store.lock  semel.db  generation  ledger/entries-<n>  blobs/sha256/ab/abcdef…  uploads/ab/<id>  trash/
//! ```
//!
//! The tables are in `semel.db`, or in a PostgreSQL database: then `store.json` says so and there is no `semel.db`.
//!
//! The only SQL, the only private keys and the only writes into a store are here. Knows nothing of HTTP.

pub mod durable;
pub mod keys;
pub mod secrets;
mod lock;
pub use lock::{is_read_only, network_file_system};

pub mod sql;
pub mod schema;
mod entry_files;
pub mod ledger;
pub mod projections;
pub mod lease;
pub mod live_log;
pub mod content;
pub mod draft;
mod generation;

pub mod blobs;
mod blob_reader;
mod trash;
pub mod uploads;
pub mod scrub;

pub mod health;
pub mod audit;
pub mod recover;
pub mod backup;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use semel_model::actor::{Actor, ActorKind, AuthMethod};
use semel_model::entry::{Change, StoreCreated};
use semel_model::note::{Checkpoint, LedgerKey};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::blobs::Blobs;
use crate::durable::Access;
use crate::entry_files::EntryFiles;
use crate::generation::Generation;
use crate::keys::{KeyError, KeyRing};
use crate::ledger::{AppendError, Jotting, ReadError, Turn, Writer};
use crate::lock::StoreLock;
use crate::projections::artefact;
use crate::schema::{Migrated, SchemaError};
use crate::sql::{Conn, DatabaseUrl, Db, SqlError};
use crate::uploads::Uploads;

/// The format of the store's directory that this program writes and reads.
pub const STORE_FORMAT: u32 = 1;

/// `store.json`: what a store is, before anything else is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The format of the directory.
    pub format: u32,
    /// The store's id, made when it was created.
    pub id: String,
    /// The name of its ledger, host-like.
    pub origin: String,
    /// The ledger's public key as a verifier key text.
    pub ledger_key: String,
    /// Where its tables are, if not in `semel.db` beside this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseKind>,
}

/// A database that is not part of a store's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseKind {
    /// PostgreSQL.
    Postgresql,
}

/// Where a store and its keys are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The store's directory.
    pub dir: PathBuf,
    /// The directory with the keys of all stores.
    pub keys: PathBuf,
    /// The database with its tables; none: `semel.db` in its directory.
    pub database: Option<DatabaseUrl>,
}

impl Place {
    /// A store whose tables are in its own directory.
    pub fn embedded(dir: PathBuf, keys: PathBuf) -> Self {
        Self { dir, keys, database: None }
    }

    fn database_kind(&self) -> Option<DatabaseKind> {
        self.database.as_ref().map(|_| DatabaseKind::Postgresql)
    }

    /// How messages call the database.
    fn database_name(&self) -> String {
        self.database.as_ref().map_or_else(|| "semel.db".to_owned(), ToString::to_string)
    }

    fn open_database(&self) -> Db {
        match &self.database {
            Some(url) => Db::of(url),
            None => Db::at(&self.dir.join("semel.db")),
        }
    }
}

/// An open store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    identity: Identity,
    keys: KeyRing,
    db: Db,
    /// What writes, when no turn has it.
    writer: Arc<Mutex<Writer>>,
    groups: AtomicU64,
    generation: Generation,
    lock: StoreLock,
    files: EntryFiles,
    blobs: Blobs,
}

/// The blobs stay where they are until this is dropped.
#[derive(Debug)]
pub struct BlobsInPlace {
    _held: lock::Held,
}

/// A store could not be opened or created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("there is no store at {0}")]
    Missing(PathBuf),
    /// Something else lies there.
    #[error("{0} is not empty and is no store")]
    NotAStore(PathBuf),
    /// A restore was broken off there.
    #[error("the restore into {0} was broken off: run the same `semel restore` again")]
    HalfRestored(PathBuf),
    /// A newer program made it.
    #[error(
        "the store at {dir} has format {found}; this program knows format {STORE_FORMAT} and leaves it alone: use a newer semel"
    )]
    Newer {
        /// Where.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its database is gone.
    #[error("the store at {dir} has lost its database {database}: run `semel recover`")]
    NoDatabase {
        /// Where.
        dir: PathBuf,
        /// What is lost.
        database: String,
    },
    /// Its tables are in PostgreSQL, and nobody says where.
    #[error("the store at {0} keeps its tables in PostgreSQL: name the database")]
    DatabaseNotNamed(PathBuf),
    /// A database is named, and its tables are not in any.
    #[error("the store at {0} keeps its tables in its own semel.db, not in PostgreSQL")]
    DatabaseNamed(PathBuf),
    /// The database belongs to another store.
    #[error("the database {database} belongs to store {owner}, not to the store at {dir}")]
    ForeignDatabase {
        /// Which store was opened.
        dir: PathBuf,
        /// With which database.
        database: String,
        /// The id of the store that it belongs to.
        owner: String,
    },
    /// Its blobs are somebody else's, or a file system is not mounted.
    #[error(
        "{path} is not the blobs of store {id}: is the right file system mounted there? Nothing was read, collected or changed"
    )]
    ForeignBlobs {
        /// The directory of the blobs.
        path: PathBuf,
        /// Whose they should be.
        id: String,
    },
    /// It lies where neither locks nor durable writes can be relied on.
    #[error(
        "{dir} lies on a network file system ({kind}), where a store would lose data; put it on a local disk"
    )]
    NetworkFileSystem {
        /// Where.
        dir: PathBuf,
        /// Which kind.
        kind: &'static str,
    },
    /// Reading its database means writing beside it.
    #[error("the store in {dir} cannot be written to here, and without that its database cannot be read")]
    NotWritable {
        /// Where.
        dir: PathBuf,
        /// What the database says.
        #[source]
        source: SqlError,
    },
    /// A file or directory failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `store.json` is damaged.
    #[error("cannot read {path}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The database failed.
    #[error("cannot open the store's database")]
    Sql(#[from] SqlError),
    /// The schema failed.
    #[error("cannot prepare the store's database")]
    Schema(#[from] SchemaError),
    /// A key failed.
    #[error("cannot make the store's keys")]
    Key(#[from] KeyError),
    /// The ledger could not be folded into new tables.
    #[error("cannot fold the store's ledger again")]
    Fold(#[from] ReadError),
    /// The first entry failed.
    #[error("cannot begin the store's ledger")]
    Append(#[from] AppendError),
}

impl Store {
    /// Opens the store at a place, or creates it when the place is empty or not there.
    pub async fn open_or_create(place: &Place, now: Timestamp) -> Result<Self, OpenError> {
        match Self::open(place).await {
            Err(OpenError::Missing(_)) => Self::create(place, now).await,
            Ok(store) if store.is_unfinished().await? => {
                store.begin_ledger(now).await?;
                Ok(store)
            }
            other => other,
        }
    }

    /// The blobs say whose they are, so that an empty or foreign file system mounted in their place is never taken for a store
    /// that lost everything, and never collected.
    pub fn require_own_blobs(&self) -> Result<(), OpenError> {
        let path = self.dir().join("blobs").join(OWNER_FILE);
        match std::fs::read_to_string(&path) {
            Ok(owner) if owner.trim() == self.id() => Ok(()),
            _ => Err(OpenError::ForeignBlobs { path: self.dir().join("blobs"), id: self.id().to_owned() }),
        }
    }

    /// Whether a crash broke the creation off before the first entry.
    async fn is_unfinished(&self) -> Result<bool, OpenError> {
        Ok(ledger::size(&mut self.reader().await?).await? == 0)
    }

    /// Opens a store. A store of a newer format is refused before anything is written. A creation that a crash broke off
    /// is finished.
    pub async fn open(place: &Place) -> Result<Self, OpenError> {
        let identity = read_identity(&place.dir)?;
        refuse_network(&place.dir)?;
        refuse_other_database(place, &identity)?;
        let lost = || OpenError::NoDatabase { dir: place.dir.clone(), database: place.database_name() };
        let needed = holds_entries(&place.dir)?;
        if needed && place.database.is_none() && !place.dir.join("semel.db").exists() {
            return Err(lost());
        }
        let store = Self::assemble(place, identity);
        if needed && place.database.is_some() && store.is_empty_database().await? {
            return Err(lost());
        }
        store.prepare_database(place).await.map_err(|error| not_writable(&place.dir, error))?;
        store.require_own_blobs()?;
        // A store that cannot be written can still be read; who appends to it will hear why it cannot.
        drop(create_empty(&place.dir));
        drop(store.finish_broken_append().await);
        Ok(store)
    }

    /// What the database has and the entry files do not was recorded by somebody who crashed before the files: others may
    /// rely on it, so it must not be lost with the database. The checkpoint that is remembered last of all tells cheaply.
    async fn finish_broken_append(&self) -> Result<(), AppendError> {
        let note = self.keys().last_checkpoint()?;
        let finished =
            note.and_then(|note| Checkpoint::read_unverified(&note).ok()).map_or(0, |signed| signed.size);
        if finished >= ledger::size(&mut self.reader().await?).await? {
            return Ok(());
        }
        // Whoever takes a turn finds that the files are behind, and levels them.
        self.turn().await?.append(Vec::new()).await.map(drop)
    }

    /// Creates a store. Racing creators end up with one.
    pub async fn create(place: &Place, now: Timestamp) -> Result<Self, OpenError> {
        let dir = &place.dir;
        prepare_directory(dir)?;
        refuse_network(dir)?;
        let held = StoreLock::at(dir.join("store.lock")).acquire().await.map_err(io_error("lock", dir))?;
        let path = dir.join("store.json");
        if !path.exists() {
            if dir.join("semel.db").exists() {
                return Err(OpenError::NotAStore(dir.clone()));
            }
            refuse_taken_database(place).await?;
            let identity = new_identity(place)?;
            mark_blobs(dir, &identity.id).map_err(io_error("mark", dir))?;
            let bytes = serde_json::to_vec_pretty(&identity).expect("an identity is JSON");
            durable::create(&path, &bytes, Access::Shared).map_err(io_error("write", &path))?;
        }
        drop(held);
        let store = Self::open(place).await?;
        store.begin_ledger(now).await?;
        Ok(store)
    }

    /// Writes the first entry, unless it is there.
    async fn begin_ledger(&self, now: Timestamp) -> Result<(), OpenError> {
        let turn = self.turn().await?;
        if turn.size() > 0 {
            return Ok(());
        }
        let actor = local_actor(self.keys().pseudonym("local", "store")?, "store");
        let created = StoreCreated {
            store: self.id().to_owned(),
            origin: self.origin().to_owned(),
            ledger_key: self.identity().ledger_key.clone(),
        };
        turn.record(&actor, now, vec![Change::StoreCreated(created)]).await?;
        Ok(())
    }

    fn assemble(place: &Place, identity: Identity) -> Self {
        let dir = place.dir.clone();
        Self(Arc::new(Inner {
            keys: KeyRing::at(&place.keys, &identity.id),
            db: place.open_database(),
            writer: Arc::default(),
            groups: AtomicU64::new(0),
            generation: Generation::at(&dir.join("generation")),
            lock: StoreLock::at(dir.join("store.lock")),
            files: EntryFiles::at(dir.join("ledger")),
            blobs: Blobs::at(&dir),
            identity,
            dir,
        }))
    }

    /// Whether a server's database holds no ledger, as a new one in the place of one that was lost.
    async fn is_empty_database(&self) -> Result<bool, OpenError> {
        let mut conn = self.connect().await?;
        Ok(schema::owner(&mut conn).await?.is_none() || ledger::size(&mut conn).await? == 0)
    }

    /// Brings the tables up to date. A database of another store is refused before anything is written to it.
    async fn prepare_database(&self, place: &Place) -> Result<(), OpenError> {
        let mut conn = self.reader().await?;
        let owner = schema::owner(&mut conn).await?;
        refuse_foreign_database(place, owner.as_deref(), self.id())?;
        if owner.is_some() && schema::is_current(&mut conn).await? {
            return Ok(());
        }
        let _held = self.0.lock.acquire().await.map_err(io_error("lock", &self.0.dir))?;
        conn.begin_defining().await?;
        match self.bring_up_to_date(&mut conn, place).await {
            Ok(()) => Ok(conn.commit().await?),
            Err(error) => {
                conn.rollback().await?;
                Err(error)
            }
        }
    }

    /// Migrates, claims and folds in one transaction: a crash leaves the database as it was.
    async fn bring_up_to_date(&self, conn: &mut Conn, place: &Place) -> Result<(), OpenError> {
        let migrated = schema::apply_migrations(conn).await?;
        let owner = schema::claim(conn, self.id()).await?;
        refuse_foreign_database(place, Some(&owner), self.id())?;
        match migrated {
            Migrated::New => Ok(()),
            Migrated::Older => self.fold_again(conn).await,
        }
    }

    /// An older database has columns and tables that nothing was folded into yet.
    async fn fold_again(&self, conn: &mut Conn) -> Result<(), OpenError> {
        projections::rebuild(conn).await?;
        let any_manifest = !artefact::all_manifests(conn).await?.is_empty();
        let marked = mark_unmarked_blobs(self.dir(), self.id(), any_manifest);
        marked.map_err(io_error("mark", self.dir()))?;
        self.require_own_blobs()?;
        for error in content::read_all(conn, self.blobs()).await?.unreadable {
            tracing::error!(%error, "A manifest cannot be read; run `semel audit verify`");
        }
        Ok(())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The store's id.
    pub fn id(&self) -> &str {
        &self.0.identity.id
    }

    /// The ledger's name.
    pub fn origin(&self) -> &str {
        &self.0.identity.origin
    }

    /// What the store is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The ledger's public key.
    pub fn ledger_key(&self) -> Option<LedgerKey> {
        LedgerKey::parse(&self.0.identity.ledger_key)
    }

    /// The keys.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    /// The blobs.
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }

    pub(crate) fn entry_files(&self) -> &EntryFiles {
        &self.0.files
    }

    pub(crate) fn lock(&self) -> &StoreLock {
        &self.0.lock
    }

    /// A connection for reading.
    pub async fn reader(&self) -> Result<Conn, SqlError> {
        self.0.db.reader().await
    }

    pub(crate) async fn writer(&self) -> OwnedMutexGuard<Writer> {
        Arc::clone(&self.0.writer).lock_owned().await
    }

    pub(crate) fn next_group(&self) -> u64 {
        self.0.groups.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn generation_file(&self) -> &Generation {
        &self.0.generation
    }

    /// A number that changes with everything that a name or the readability of a blob rests on, in whatever process of this
    /// host. What was read from the database *after* asking for it is true while it stays the same. Costs one system call.
    pub fn generation(&self) -> u64 {
        self.0.generation.now()
    }

    pub(crate) async fn connect(&self) -> Result<Conn, SqlError> {
        self.0.db.connect().await
    }

    /// Waits for the right to rely on blobs staying where they are, or to move them: a backup and a collection take turns.
    pub async fn keep_blobs_in_place(&self) -> Result<BlobsInPlace, AppendError> {
        let lock = StoreLock::at(self.dir().join("blobs.lock"));
        let held = lock
            .acquire()
            .await
            .map_err(|source| AppendError::Io { what: "the lock of the blobs", source })?;
        Ok(BlobsInPlace { _held: held })
    }

    /// Waits for the exclusive right to decide and to record.
    pub async fn turn(&self) -> Result<Turn, AppendError> {
        Turn::take(self, true).await
    }

    /// Waits for the right to change operational tables, for what may be lost with the power but not with a process: waiting
    /// for the disk would cost more than it is worth.
    pub async fn jotting(&self) -> Result<Jotting, AppendError> {
        Jotting::take(self).await
    }

    /// The actor for somebody whom this machine vouches for, under a pseudonym.
    pub async fn local_actor(&self, name: &str, via: &str) -> Result<Actor, AppendError> {
        let subject = self.keys().pseudonym("local", name)?;
        let mut reader = self.reader().await?;
        let known =
            reader.row("SELECT name FROM identity WHERE subject = $1", &[subject.as_str().into()]).await?;
        if known.is_none() {
            let mut turn = self.turn().await?;
            turn.db()
                .execute(
                    "INSERT INTO identity (subject, issuer, name) VALUES ($1, 'local', $2) ON CONFLICT DO NOTHING",
                    &[subject.as_str().into(), name.into()],
                )
                .await?;
            turn.append(Vec::new()).await?;
        }
        Ok(local_actor(subject, via))
    }

    /// What the table of identities says about a pseudonym; the pseudonym itself when it was erased.
    pub async fn name_of(&self, subject: &str) -> Result<String, SqlError> {
        let row = self
            .reader()
            .await?
            .row("SELECT name FROM identity WHERE subject = $1", &[subject.into()])
            .await?;
        Ok(row.map_or_else(|| subject.to_owned(), |row| row.text(0)))
    }

    /// Closes the connections for reading, once what was recorded is remembered for good.
    pub async fn close(&self) {
        self.writer().await.settle().await;
        self.0.db.close().await;
    }
}

fn local_actor(subject: String, via: &str) -> Actor {
    Actor {
        issuer: "local".to_owned(),
        subject,
        kind: ActorKind::Person,
        method: AuthMethod::Local,
        via: via.to_owned(),
    }
}

/// Reads what a directory says it is.
pub(crate) fn read_identity(dir: &Path) -> Result<Identity, OpenError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let path = dir.join("store.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::Missing(dir.to_owned()));
        }
        Err(source) => return Err(OpenError::Io { action: "read", path, source }),
    };
    let damaged = |source| OpenError::Identity { path: path.clone(), source };
    let format: Format = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format.format > STORE_FORMAT {
        return Err(OpenError::Newer { dir: dir.to_owned(), found: format.format });
    }
    serde_json::from_slice(&bytes).map_err(damaged)
}

/// The file among the blobs that names the store that they belong to.
const OWNER_FILE: &str = "store-id";

/// A store of an older program has blobs that do not say whose they are. Where there should be some and are none, nothing is
/// marked: it may be a file system that is not mounted.
pub(crate) fn mark_unmarked_blobs(dir: &Path, id: &str, should_be_some: bool) -> io::Result<()> {
    let blobs = dir.join("blobs");
    let any = std::fs::read_dir(blobs.join("sha256")).is_ok_and(|mut listing| listing.next().is_some());
    match (any || !should_be_some) && !blobs.join(OWNER_FILE).exists() {
        true => mark_blobs(dir, id),
        false => Ok(()),
    }
}

/// Marks blobs as those of a store.
pub(crate) fn mark_blobs(dir: &Path, id: &str) -> io::Result<()> {
    durable::replace(&dir.join("blobs").join(OWNER_FILE), format!("{id}\n").as_bytes(), Access::Shared)
}

/// What a store is, while it is restored: it is none before everything is there.
const RESTORING: &str = "restoring.json";

/// The directories that hold nothing most of the time: not everything that copies a store keeps them.
fn create_empty(dir: &Path) -> Result<(), OpenError> {
    let trash = dir.join("trash");
    durable::create_dir(&trash).map_err(io_error("create", &trash))?;
    let uploads = Uploads::of(dir);
    if uploads.dir().is_dir() { Ok(()) } else { create_apart(uploads.dir()) }
}

/// The directory whose subdirectories hold the blobs.
const BLOBS: &str = "blobs/sha256";

fn prepare_directory(dir: &Path) -> Result<(), OpenError> {
    if dir.join(RESTORING).exists() {
        return Err(OpenError::HalfRestored(dir.to_owned()));
    }
    let mut foreign = false;
    if let Ok(listing) = std::fs::read_dir(dir) {
        let ours = [
            "store.json",
            "blobs.lock",
            "store.lock",
            "semel.db",
            "generation",
            "blobs",
            "ledger",
            "uploads",
            "trash",
            "quarantine",
        ];
        foreign = listing.flatten().any(|item| {
            let name = item.file_name().to_string_lossy().into_owned();
            !ours.iter().any(|own| name.starts_with(own)) && !name.starts_with(".tmp-")
        });
    }
    if foreign {
        return Err(OpenError::NotAStore(dir.to_owned()));
    }
    create_apart(dir)?;
    let ledger = dir.join("ledger");
    durable::create_dir(&ledger).map_err(io_error("create", &ledger))?;
    create_empty(dir)?;
    create_apart(&dir.join(BLOBS))
}

/// Creates a directory, if it is not there, whose subdirectories lie apart.
fn create_apart(dir: &Path) -> Result<(), OpenError> {
    durable::create_dir(dir).and_then(|()| durable::lay_apart(dir)).map_err(io_error("create", dir))
}

/// A store is opened with the kind of database that it was created with, so that nobody begins an empty one beside it.
fn refuse_other_database(place: &Place, identity: &Identity) -> Result<(), OpenError> {
    match (identity.database, place.database_kind()) {
        (Some(_), None) => Err(OpenError::DatabaseNotNamed(place.dir.clone())),
        (None, Some(_)) => Err(OpenError::DatabaseNamed(place.dir.clone())),
        _ => Ok(()),
    }
}

/// A new store gets a database of its own.
async fn refuse_taken_database(place: &Place) -> Result<(), OpenError> {
    if place.database.is_none() {
        return Ok(());
    }
    let mut conn = place.open_database().connect().await?;
    match schema::owner(&mut conn).await? {
        Some(owner) => Err(foreign_database(place, owner)),
        None => Ok(()),
    }
}

/// An owner is refused that is not the store.
fn refuse_foreign_database(place: &Place, owner: Option<&str>, store: &str) -> Result<(), OpenError> {
    match owner {
        Some(owner) if owner != store => Err(foreign_database(place, owner.to_owned())),
        _ => Ok(()),
    }
}

fn foreign_database(place: &Place, owner: String) -> OpenError {
    OpenError::ForeignDatabase { dir: place.dir.clone(), database: place.database_name(), owner }
}

/// Whether the store had a database once.
fn holds_entries(dir: &Path) -> Result<bool, OpenError> {
    let size = EntryFiles::at(dir.join("ledger")).size().map_err(io_error("read", dir))?;
    Ok(size > 0)
}

fn new_identity(place: &Place) -> Result<Identity, OpenError> {
    let id = hex::encode(&keys::random()[..8]);
    let origin = format!("{id}.semel");
    let key = KeyRing::at(&place.keys, &id).create_ledger_key()?;
    let ledger_key = LedgerKey { origin: origin.clone(), key: key.verifying_key() }.to_string();
    Ok(Identity { format: STORE_FORMAT, id, origin, ledger_key, database: place.database_kind() })
}

fn refuse_network(dir: &Path) -> Result<(), OpenError> {
    match lock::network_file_system(dir).map_err(io_error("look at", dir))? {
        Some(kind) => Err(OpenError::NetworkFileSystem { dir: dir.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Says so where a database could not be opened because its directory cannot be written to.
fn not_writable(dir: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Sql(source)
            if source.is_closed() && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err() =>
        {
            OpenError::NotWritable { dir: dir.to_owned(), source }
        }
        other => other,
    }
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

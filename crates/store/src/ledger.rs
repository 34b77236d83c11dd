//! The ledger: append, read, prove.
//!
//! A change is made in a [`Turn`]: the only writer among all processes, at a known size, with the projections at that size.
//! [`Turn::append`] writes leaves, tree nodes and projections. Turns that wait for each other share one transaction, which
//! is closed with a signed checkpoint; then the batch is made durable in the entry files, and only then do their callers
//! hear of it.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::digest::Digest;
use semel_model::entry::{Change, Entry, InvalidLeaf, Leaf};
use semel_model::merkle::{self, Frontier, Hash, Node};
use semel_model::note::{Checkpoint, NoteError};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinHandle;

use crate::entry_files::{Batch, Tail};
use crate::keys::KeyError;
use crate::lock::Held;
use crate::projections;
use crate::sql::{Conn, SqlError, Value};
use crate::{Store, content};

/// How far the ledger has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many leaves it has.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
}

/// A leaf as it lies in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place.
    pub seq: u64,
    /// What it says.
    pub leaf: Leaf,
}

/// A change could not be recorded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The database failed.
    #[error("cannot write to the ledger")]
    Sql(#[from] SqlError),
    /// A file of the store could not be written.
    #[error("cannot write {what} of the store")]
    Io {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else appended since the head was read.
    #[error("the ledger moved from {expected} to {found} entries; try again")]
    HeadMoved {
        /// What the caller decided on.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A collection took what the change names for unneeded, between its being stored and being named.
    #[error("blob {0} was collected while it was recorded; try again")]
    Collected(Digest),
    /// A leaf is too large or malformed.
    #[error("cannot record an entry")]
    Leaf(#[from] InvalidLeaf),
    /// The ledger's key is not usable.
    #[error("cannot sign the ledger")]
    Key(#[from] KeyError),
    /// The ledger is behind what this key has signed, or differs from it.
    #[error(
        "this store holds {found} entries, but its key has signed {signed}: it is an older copy, and signing would fork its \
         history. Bring back ledger/entries-* of the newer copy and run `semel recover`"
    )]
    Behind {
        /// How many entries are here.
        found: u64,
        /// How many were signed.
        signed: u64,
    },
    /// What is here is not what this key has signed.
    #[error(
        "the first {signed} entries of this store are not the ones that its key has signed; run `semel audit verify`"
    )]
    Forked {
        /// How many entries were signed.
        signed: u64,
    },
    /// The entry files are ahead of the database, or another store's.
    #[error(
        "the entry files of this store end at entry {files}, and the database, which holds {found}, knows nothing of that: \
         it is an older copy, or they belong to another store; run `semel recover`"
    )]
    OtherFiles {
        /// How many entries the database has.
        found: u64,
        /// How many the files have.
        files: u64,
    },
    /// The changes that were to become durable together did not.
    #[error(transparent)]
    Together(Arc<Self>),
    /// Whoever was to make the change durable went away.
    #[error("the ledger's writer was stopped before the change was durable; try again")]
    Abandoned,
}

/// A proof or an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error("cannot read the ledger")]
    Sql(#[from] SqlError),
    /// An entry is not what it should be.
    #[error("entry {seq} of the ledger is damaged")]
    Leaf {
        /// Its place.
        seq: u64,
        /// Why.
        #[source]
        source: InvalidLeaf,
    },
    /// A hash of the tree is missing or no hash.
    #[error("the tree of the ledger is damaged at level {level}, node {index}")]
    Node {
        /// The level.
        level: u32,
        /// The index.
        index: u64,
    },
    /// The checkpoint is not valid.
    #[error("the ledger's checkpoint is not valid")]
    Checkpoint(#[from] NoteError),
    /// There is no checkpoint.
    #[error("the ledger has no checkpoint")]
    NoCheckpoint,
}

/// The writing side of a store in one process: a connection, and the turns whose transaction is open.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    conn: Option<Conn>,
    group: Option<Group>,
    /// How many leaves the entry files are known to have, and where they end.
    in_files: u64,
    tail: Option<Tail>,
    /// The newest checkpoint that was signed here.
    signed: Option<Checkpoint>,
    /// The edge of the ledger's tree, as it was when this writer last wrote.
    frontier: Option<Frontier>,
    /// The newest checkpoint beside the keys on its way to the disk. None: it is not known whether it is there.
    remembering: Option<JoinHandle<Result<(), KeyError>>>,
    /// Whether the connection commits for the process alone.
    relaxed: bool,
}

/// Turns that share one transaction, one checkpoint and one sync of everything. None of them is acknowledged before all are
/// durable. A new turn joins while the one that will close the group waits behind it for its place in the queue.
#[derive(Debug)]
struct Group {
    id: u64,
    /// How many leaves the ledger had before it.
    base: u64,
    /// How many it has behind the last turn that is kept.
    size: u64,
    /// The edge of the tree there, once something is appended to it.
    frontier: Option<Frontier>,
    /// The leaves of the turns that are kept.
    leaves: Vec<Vec<u8>>,
    /// How many turns are kept in it.
    turns: usize,
    /// Whether it must survive the loss of power. Others may lose what is operational with the power, not with the process.
    to_disk: bool,
    /// Whether a turn was given up in the middle, and its statements are still to be undone.
    dirty: bool,
    /// The ledger's key, once the ledger was found to extend what it has signed.
    key: Option<SigningKey>,
    /// Whether something changed that is no entry and that answers from memory rest on.
    touched: bool,
    outcome: watch::Sender<Option<Outcome>>,
    /// The lock among processes.
    _lock: Held,
}

type Outcome = Result<(), Arc<AppendError>>;

/// The most turns that are made durable at once.
const MAX_TURNS: usize = 64;

/// The exclusive right to decide and to record. Given up when it is dropped.
#[derive(Debug)]
pub struct Turn {
    store: Store,
    writer: OwnedMutexGuard<Writer>,
    kept: bool,
}

impl Turn {
    pub(crate) async fn take(store: &Store, to_disk: bool) -> Result<Self, AppendError> {
        let mut writer = store.writer().await;
        let full = |group: &Group| group.turns >= MAX_TURNS || (to_disk && !group.to_disk);
        if writer.group.as_ref().is_some_and(full) {
            writer = Writer::close(writer, store).await;
        }
        writer.undo_given_up().await?;
        match writer.group {
            Some(_) => writer.conn()?.script("SAVEPOINT turn").await?,
            None => writer.open_group(store, to_disk).await?,
        }
        Ok(Self { store: store.clone(), writer, kept: false })
    }

    /// How many leaves the ledger has, with those of turns that are not durable yet. Everything read in this turn belongs
    /// to it.
    pub fn size(&self) -> u64 {
        self.group().size
    }

    fn group(&self) -> &Group {
        self.writer.group.as_ref().expect("a turn has its group until it is kept")
    }

    fn group_mut(&mut self) -> &mut Group {
        self.writer.group.as_mut().expect("a turn has its group until it is kept")
    }

    /// The database, with the projections at [`Turn::size`].
    pub fn db(&mut self) -> &mut Conn {
        self.writer.conn.as_mut().expect("a turn has its connection until it is dropped")
    }

    /// Says that this turn changes what is no entry, but what others may answer from memory: a blob came, went, or may be
    /// read elsewhere. See [`Store::generation`].
    pub fn touch(&mut self) {
        self.group_mut().touched = true;
    }

    /// Records changes by one actor at one time. See [`Turn::append`].
    pub async fn record(
        self,
        actor: &Actor,
        now: Timestamp,
        changes: Vec<Change>,
    ) -> Result<u64, AppendError> {
        let entry = |change| Leaf::Entry(Box::new(Entry::new(to_millis(now), actor.clone(), change)));
        self.append(changes.into_iter().map(entry).collect()).await
    }

    /// Appends leaves; returns the sequence number of the first, once they are durable. With no leaves, only what was written
    /// to operational tables is kept.
    pub async fn append(mut self, leaves: Vec<Leaf>) -> Result<u64, AppendError> {
        let first = self.size();
        let bytes: Vec<Vec<u8>> = leaves.iter().map(Leaf::to_bytes).collect::<Result<_, _>>()?;
        let mut frontier = None;
        if !leaves.is_empty() {
            self.refuse_to_fork().await?;
            let mut grown = self.frontier().await?;
            let blobs = self.store.blobs().clone();
            content::require_documents(self.db(), &blobs, &leaves).await?;
            insert(self.db(), &mut grown, &leaves, &bytes).await?;
            content::read_leaves(self.db(), &blobs, &leaves).await?;
            frontier = Some(grown);
        }
        if self.group().turns > 0 {
            self.db().script("RELEASE SAVEPOINT turn").await?;
        }
        let mut outcome = self.keep(bytes, frontier);
        let made = outcome.wait_for(Option::is_some).await.map(|made| made.clone());
        match made {
            Ok(Some(Ok(()))) => Ok(first),
            Ok(Some(Err(error))) => Err(AppendError::Together(error)),
            Ok(None) | Err(_) => Err(AppendError::Abandoned),
        }
    }

    /// Leaves the turn in its group, and lets the next one in. The first of a group sees to it that it is closed: it queues
    /// again, behind those who wait already, and they join. Whoever waits for the outcome may go away; it is closed all
    /// the same.
    fn keep(mut self, leaves: Vec<Vec<u8>>, frontier: Option<Frontier>) -> watch::Receiver<Option<Outcome>> {
        self.kept = true;
        let store = self.store.clone();
        let group = self.group_mut();
        group.turns += 1;
        group.size += leaves.len() as u64;
        group.leaves.extend(leaves);
        group.frontier = frontier.or(group.frontier.take());
        let (id, outcome, is_first) = (group.id, group.outcome.subscribe(), group.turns == 1);
        drop(self);
        if is_first {
            tokio::spawn(async move {
                let mut writer = store.writer().await;
                if writer.group.as_ref().is_some_and(|group| group.id == id) {
                    writer.close_group(&store).await;
                }
            });
        }
        outcome
    }

    /// The edge of the tree at which this turn appends: known to the group, or to this writer if nobody else has written
    /// since, or read.
    async fn frontier(&mut self) -> Result<Frontier, AppendError> {
        let size = self.size();
        let known = self.group().frontier.as_ref().or(self.writer.frontier.as_ref());
        match known.filter(|frontier| frontier.size() == size) {
            Some(frontier) => Ok(frontier.clone()),
            None => frontier(self.db(), size).await.map_err(read_to_append),
        }
    }

    /// Signs only what extends what this key has signed before (invariant I9).
    async fn refuse_to_fork(&mut self) -> Result<(), AppendError> {
        if self.group().key.is_some() {
            return Ok(());
        }
        let (store, base) = (self.store.clone(), self.group().base);
        let key = store.keys().ledger_key(store.ledger_key().as_ref())?;
        let remembered = store.keys().last_checkpoint()?;
        if let Some(signed) = remembered.and_then(|note| Checkpoint::read_unverified(&note).ok()) {
            if signed.size > base {
                return Err(AppendError::Behind { found: base, signed: signed.size });
            }
            // What this very writer signed last needs no proof that it is what is here.
            let own = self.writer.signed.as_ref() == Some(&signed);
            if !own && root(self.db(), signed.size).await.map_err(read_to_append)? != signed.root {
                return Err(AppendError::Forked { signed: signed.size });
            }
        }
        // A writer that knows where the files end has written that end.
        if self.writer.tail.is_none()
            && let Some(files) = other_files(&store, self.db()).await?
        {
            return Err(AppendError::OtherFiles { found: base, files });
        }
        self.group_mut().key = Some(key);
        Ok(())
    }
}

/// Where the entry files end, if that is no end that this ledger ever had: what they hold was signed too, and is not here.
async fn other_files(store: &Store, conn: &mut Conn) -> Result<Option<u64>, AppendError> {
    let failed = |source| AppendError::Io { what: "the entry files", source };
    let Some(last) = store.entry_files().last().map_err(failed)? else { return Ok(None) };
    let here = conn.row("SELECT note FROM checkpoint WHERE size = $1", &[last.end().into()]).await?;
    Ok((here.map(|row| row.text(0)).as_ref() != Some(&last.note)).then(|| last.end()))
}

/// A turn that changes operational tables alone: it records nothing, and is kept while this machine has power.
#[derive(Debug)]
pub struct Jotting(Turn);

impl Jotting {
    pub(crate) async fn take(store: &Store) -> Result<Self, AppendError> {
        Turn::take(store, false).await.map(Self)
    }

    /// The database.
    pub fn db(&mut self) -> &mut Conn {
        self.0.db()
    }

    /// As [`Turn::touch`].
    pub fn touch(&mut self) {
        self.0.touch();
    }

    /// Keeps what was written.
    pub async fn keep(self) -> Result<(), AppendError> {
        self.0.append(Vec::new()).await.map(drop)
    }
}

/// A transaction of which no turn was kept is given up with its connection; of one that others share, only this turn's part.
impl Drop for Turn {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match &mut self.writer.group {
            Some(group) if group.turns > 0 => group.dirty = true,
            _ => *self.writer = Writer::default(),
        }
    }
}

impl Writer {
    fn conn(&mut self) -> Result<&mut Conn, AppendError> {
        self.conn.as_mut().ok_or(AppendError::Abandoned)
    }

    /// Begins a transaction, with the right of all processes to write.
    async fn open_group(&mut self, store: &Store, to_disk: bool) -> Result<(), AppendError> {
        let lock =
            store.lock().acquire().await.map_err(|source| AppendError::Io { what: "the lock", source })?;
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                self.relaxed = false;
                store.connect().await?
            }
        };
        if self.relaxed == to_disk {
            conn.commit_to_disk(to_disk).await?;
            self.relaxed = !to_disk;
        }
        conn.begin().await?;
        let size = size(&mut conn).await?;
        // What somebody committed and could not write to the files is not acknowledged by anybody before it is there.
        if self.in_files != size {
            finish_broken_append(store, &mut conn, size).await?;
            (self.in_files, self.tail, self.remembering) = (size, None, None);
        }
        store
            .generation_file()
            .level(size)
            .map_err(|source| AppendError::Io { what: "the generation", source })?;
        self.conn = Some(conn);
        self.group = Some(Group {
            id: store.next_group(),
            base: size,
            size,
            frontier: None,
            leaves: Vec::new(),
            turns: 0,
            to_disk,
            dirty: false,
            key: None,
            touched: false,
            outcome: watch::Sender::new(None),
            _lock: lock,
        });
        Ok(())
    }

    async fn undo_given_up(&mut self) -> Result<(), AppendError> {
        if self.group.as_ref().is_some_and(|group| group.dirty) {
            self.conn()?.script("ROLLBACK TO SAVEPOINT turn; RELEASE SAVEPOINT turn").await?;
            self.group.as_mut().expect("it is there").dirty = false;
        }
        Ok(())
    }

    /// Closes the open group. Whoever waits for that may go away: a commit that is under way is finished all the same, so that
    /// its turns hear what became of them.
    pub(crate) async fn close(mut this: OwnedMutexGuard<Self>, store: &Store) -> OwnedMutexGuard<Self> {
        // What is not for the disk is closed at once.
        if this.group.as_ref().is_none_or(|group| !group.to_disk) {
            this.close_group(store).await;
            return this;
        }
        let closer = store.clone();
        let closed = tokio::spawn(async move {
            this.close_group(&closer).await;
            this
        });
        match closed.await {
            Ok(this) => this,
            // The program ends.
            Err(_) => store.writer().await,
        }
    }

    /// Makes a group durable and tells all of its turns. On a failure the connection is closed, which gives up what it had
    /// not committed.
    async fn close_group(&mut self, store: &Store) {
        if self.group.is_none() {
            return;
        }
        let made = self.make_durable(store).await.map_err(Arc::new);
        if made.is_err() {
            self.conn = None;
        }
        if let Some(group) = self.group.take() {
            drop(group.outcome.send(Some(made)));
        }
    }

    /// Database, entry files, the checkpoint beside the keys: in this order, each before the next. The checkpoint reaches the
    /// disk while the next group works, and before that is committed: so a loss of power takes no more from the memory of
    /// the key than the newest group, which is on the disk here.
    async fn make_durable(&mut self, store: &Store) -> Result<(), AppendError> {
        self.undo_given_up().await?;
        let Some(group) = &mut self.group else { return Ok(()) };
        let (base, size, touched) = (group.base, group.size, group.touched);
        let conn = self.conn.as_mut().ok_or(AppendError::Abandoned)?;
        let (Some(key), Some(frontier)) = (&group.key, group.frontier.take()) else {
            if touched {
                store.generation_file().moving().map_err(generation_failed)?;
            }
            match group.to_disk {
                true => conn.commit().await?,
                false => conn.commit_relaxed().await?,
            }
            return advance(store, size, touched);
        };
        let checkpoint =
            Checkpoint { origin: store.origin().to_owned(), size: frontier.size(), root: frontier.root() };
        let note = checkpoint.sign(key);
        store_note(conn, size, &note).await?;
        let before = self.remembering.take().unwrap_or_else(|| checkpoint_to_disk(store));
        before.await.map_err(|_| AppendError::Abandoned)??;
        store.generation_file().moving().map_err(generation_failed)?;
        // Looking for the end of the files is for those who do not know it.
        self.tail = match self.tail.take().filter(Tail::is_here) {
            Some(tail) => {
                let batch = Batch { first: base, leaves: std::mem::take(&mut group.leaves), note };
                let store = store.clone();
                conn.commit_then(move || write_files(&store, tail, batch, touched)).await??
            }
            None => {
                conn.commit().await?;
                advance(store, size, touched)?;
                let tail = level_files(store, conn).await?;
                store.keys().remember_checkpoint(&note)?;
                tail
            }
        };
        self.remembering = Some(checkpoint_to_disk(store));
        (self.in_files, self.signed, self.frontier) = (size, Some(checkpoint), Some(frontier));
        Ok(())
    }

    /// Waits until the newest checkpoint is on the disk.
    pub(crate) async fn settle(&mut self) {
        if let Some(remembering) = self.remembering.take() {
            // Whoever signs next makes it durable first, and hears why it cannot.
            drop(remembering.await);
        }
    }
}

fn checkpoint_to_disk(store: &Store) -> JoinHandle<Result<(), KeyError>> {
    let keys = store.keys().clone();
    tokio::task::spawn_blocking(move || keys.checkpoint_to_disk())
}

/// What follows the commit of a batch: the generation, then the entry file behind its known end, then the checkpoint.
fn write_files(store: &Store, tail: Tail, batch: Batch, touched: bool) -> Result<Option<Tail>, AppendError> {
    advance(store, batch.end(), touched)?;
    let failed = |source| AppendError::Io { what: "the entry files", source };
    let batches = [batch];
    let tail = store.entry_files().append(Some(tail), &batches).map_err(failed)?;
    store.keys().remember_checkpoint(&batches[0].note)?;
    Ok(tail)
}

/// Finishes the append of somebody who stopped, or lost power, between the database and the checkpoint beside the keys: others
/// may rely on what the database says, so it must not be lost with it. Files that end before what was finished once are
/// damaged, and a ledger that does not extend what the key has signed is another one: neither is for this to mend, and
/// `semel audit verify` reports both.
async fn finish_broken_append(store: &Store, conn: &mut Conn, size: u64) -> Result<(), AppendError> {
    let have =
        store.entry_files().size().map_err(|source| AppendError::Io { what: "the entry files", source })?;
    let finished = store.keys().last_checkpoint()?.and_then(|note| Checkpoint::read_unverified(&note).ok());
    let known = finished.as_ref().map_or(0, |signed| signed.size);
    if known >= size || have < known || (have >= size && finished.is_none()) {
        return Ok(());
    }
    if let Some(signed) = finished
        && root(conn, known).await.map_err(read_to_append)? != signed.root
    {
        return Ok(());
    }
    if other_files(store, conn).await?.is_some() {
        return Ok(());
    }
    if have < size {
        level_files(store, conn).await?;
    }
    let note = checkpoint(conn).await.map_err(read_to_append)?;
    Ok(store.keys().remember_checkpoint(&note)?)
}

/// Moves the generation of the store on, before anybody hears of the change.
fn advance(store: &Store, size: u64, touched: bool) -> Result<(), AppendError> {
    let generation = store.generation_file();
    let moved = generation.level(size).and_then(|()| if touched { generation.bump() } else { Ok(()) });
    moved.map_err(generation_failed)
}

fn generation_failed(source: std::io::Error) -> AppendError {
    AppendError::Io { what: "the generation", source }
}

/// Brings the entry files level with the database: this batch, and any whose writer crashed before its file.
async fn level_files(store: &Store, conn: &mut Conn) -> Result<Option<Tail>, AppendError> {
    let failed = |source| AppendError::Io { what: "the entry files", source };
    let files = store.entry_files();
    let have = files.repair().map_err(failed)?;
    let missing = batches_from(conn, have).await.map_err(read_to_append)?;
    files.append(None, &missing).map_err(failed)
}

/// Times are recorded in milliseconds.
fn to_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

fn read_to_append(error: ReadError) -> AppendError {
    match error {
        ReadError::Sql(error) => AppendError::Sql(error),
        other => AppendError::Io { what: "the ledger's tree", source: std::io::Error::other(other) },
    }
}

/// Inserts leaves at the edge of the tree, which grows by them, and folds them into the projections.
pub(crate) async fn insert(
    conn: &mut Conn,
    frontier: &mut Frontier,
    leaves: &[Leaf],
    bytes: &[Vec<u8>],
) -> Result<(), AppendError> {
    let (expected, found) = (frontier.size(), size(conn).await?);
    if found != expected {
        return Err(AppendError::HeadMoved { expected, found });
    }
    for ((seq, leaf), bytes) in (expected..).zip(leaves).zip(bytes) {
        insert_leaf(conn, frontier, leaf, bytes).await?;
        projections::apply(conn, seq, leaf).await?;
    }
    Ok(())
}

async fn insert_leaf(
    conn: &mut Conn,
    frontier: &mut Frontier,
    leaf: &Leaf,
    bytes: &[u8],
) -> Result<(), AppendError> {
    let (time, actor) = match leaf {
        Leaf::Entry(entry) => (entry.time.to_string(), entry.actor.subject.clone()),
        Leaf::Signature(_) => (String::new(), String::new()),
    };
    let (seq, hash) = (frontier.size(), merkle::leaf_hash(bytes));
    let text = String::from_utf8(bytes.to_vec()).expect("leaves are JSON");
    conn.execute(
        "INSERT INTO entry (seq, kind, time, actor, leaf_hash, leaf) VALUES ($1, $2, $3, $4, $5, $6)",
        &[seq.into(), leaf.kind().into(), time.into(), actor.into(), hex::encode(hash).into(), text.into()],
    )
    .await?;
    for (node, hash) in frontier.push(hash) {
        conn.execute(
            "INSERT INTO node (level, idx, hash) VALUES ($1, $2, $3)",
            &[u64::from(node.level).into(), node.index.into(), hex::encode(hash).into()],
        )
        .await?;
    }
    Ok(())
}

pub(crate) async fn store_note(conn: &mut Conn, size: u64, note: &str) -> Result<(), SqlError> {
    conn.execute("INSERT INTO checkpoint (size, note) VALUES ($1, $2)", &[size.into(), note.into()])
        .await
        .map(drop)
}

/// How many leaves the ledger has.
pub async fn size(conn: &mut Conn) -> Result<u64, SqlError> {
    let row = conn.row("SELECT COALESCE(MAX(seq) + 1, 0) FROM entry", &[]).await?;
    Ok(row.map_or(0, |row| row.count(0)))
}

/// The head.
pub async fn head(conn: &mut Conn) -> Result<Head, ReadError> {
    let size = size(conn).await?;
    Ok(Head { size, root: root(conn, size).await? })
}

/// The edge of the tree when it had `size` leaves.
pub(crate) async fn frontier(conn: &mut Conn, size: u64) -> Result<Frontier, ReadError> {
    let hashes = hashes_at(conn, &merkle::root_nodes(size)).await?;
    Ok(Frontier::new(size, hashes))
}

/// The root of the tree when it had `size` leaves.
pub async fn root(conn: &mut Conn, size: u64) -> Result<Hash, ReadError> {
    root_of(conn, &merkle::root_nodes(size)).await
}

async fn root_of(conn: &mut Conn, nodes: &[Node]) -> Result<Hash, ReadError> {
    Ok(merkle::root_of(&hashes_at(conn, nodes).await?))
}

async fn hashes_at(conn: &mut Conn, nodes: &[Node]) -> Result<Vec<Hash>, ReadError> {
    let mut hashes = Vec::with_capacity(nodes.len());
    for node in nodes {
        hashes.push(hash_at(conn, *node).await?);
    }
    Ok(hashes)
}

async fn hash_at(conn: &mut Conn, node: Node) -> Result<Hash, ReadError> {
    let row = if node.level == 0 {
        conn.row("SELECT leaf_hash FROM entry WHERE seq = $1", &[node.index.into()]).await?
    } else {
        let values = [Value::from(u64::from(node.level)), node.index.into()];
        conn.row("SELECT hash FROM node WHERE level = $1 AND idx = $2", &values).await?
    };
    let damaged = ReadError::Node { level: node.level, index: node.index };
    let hash = row.and_then(|row| hex::decode(row.text(0)).ok()).and_then(|bytes| bytes.try_into().ok());
    hash.ok_or(damaged)
}

/// The leaves from `from` on, at most `limit`.
pub async fn read(conn: &mut Conn, from: u64, limit: u64) -> Result<Vec<Recorded>, ReadError> {
    let rows = conn
        .rows(
            "SELECT seq, leaf FROM entry WHERE seq >= $1 ORDER BY seq LIMIT $2",
            &[from.into(), limit.into()],
        )
        .await?;
    rows.into_iter().map(|row| parse(row.count(0), &row.text(1))).collect()
}

/// One leaf.
pub async fn read_one(conn: &mut Conn, seq: u64) -> Result<Option<Recorded>, ReadError> {
    let row = conn.row("SELECT seq, leaf FROM entry WHERE seq = $1", &[seq.into()]).await?;
    row.map(|row| parse(row.count(0), &row.text(1))).transpose()
}

/// The newest leaves that concern an environment and a component, newest first.
pub async fn events(
    conn: &mut Conn,
    environment: &str,
    component: &str,
    limit: u64,
) -> Result<Vec<Recorded>, ReadError> {
    let rows = conn
        .rows(
            "SELECT entry.seq, entry.leaf FROM event JOIN entry ON entry.seq = event.seq \
             WHERE event.environment = $1 AND event.component IN ($2, '') ORDER BY event.seq DESC LIMIT $3",
            &[environment.into(), component.into(), limit.into()],
        )
        .await?;
    rows.into_iter().map(|row| parse(row.count(0), &row.text(1))).collect()
}

fn parse(seq: u64, text: &str) -> Result<Recorded, ReadError> {
    let leaf = Leaf::parse(text.as_bytes()).map_err(|source| ReadError::Leaf { seq, source })?;
    Ok(Recorded { seq, leaf })
}

/// The newest signed checkpoint.
pub async fn checkpoint(conn: &mut Conn) -> Result<String, ReadError> {
    let row = conn.row("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1", &[]).await?;
    row.map(|row| row.text(0)).ok_or(ReadError::NoCheckpoint)
}

/// The signed checkpoints with more than `after` leaves, oldest first.
pub async fn checkpoints(conn: &mut Conn, after: u64) -> Result<Vec<(u64, String)>, ReadError> {
    let rows =
        conn.rows("SELECT size, note FROM checkpoint WHERE size > $1 ORDER BY size", &[after.into()]).await?;
    Ok(rows.into_iter().map(|row| (row.count(0), row.text(1))).collect())
}

/// The hashes that prove leaf `index` in the tree of `size` leaves.
pub async fn inclusion_proof(conn: &mut Conn, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
    proof(conn, &merkle::inclusion_steps(index, size)).await
}

/// The hashes that prove the tree of `old` leaves a prefix of that of `new`.
pub async fn consistency_proof(conn: &mut Conn, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
    proof(conn, &merkle::consistency_steps(old, new)).await
}

async fn proof(conn: &mut Conn, steps: &[merkle::ProofStep]) -> Result<Vec<Hash>, ReadError> {
    let mut hashes = Vec::with_capacity(steps.len());
    for step in steps {
        hashes.push(root_of(conn, step).await?);
    }
    Ok(hashes)
}

/// The batches that the database has from `from` on, cut as they were committed.
pub(crate) async fn batches_from(conn: &mut Conn, from: u64) -> Result<Vec<Batch>, ReadError> {
    let mut batches = Vec::new();
    let mut first = from;
    for (size, note) in checkpoints(conn, from).await? {
        batches.push(Batch { first, leaves: leaves(conn, first, size).await?, note });
        first = size;
    }
    Ok(batches)
}

/// The bytes of the leaves from `from` on, up to `end`.
pub(crate) async fn leaves(conn: &mut Conn, from: u64, end: u64) -> Result<Vec<Vec<u8>>, SqlError> {
    let statement = "SELECT leaf FROM entry WHERE seq >= $1 AND seq < $2 ORDER BY seq";
    let rows = conn.rows(statement, &[from.into(), end.into()]).await?;
    Ok(rows.iter().map(|row| row.text(0).into_bytes()).collect())
}

//! The ledger: append, read, prove.
//!
//! A change is made in a [`Turn`]: the only writer among all processes, at a known head, with the projections at that head.
//! [`Turn::append`] is one transaction: leaves, tree nodes, projections and the signed checkpoint; then the batch is made
//! durable in the entry files, and only then does the caller hear of it.

use jiff::Timestamp;
use semel_model::actor::Actor;
use semel_model::entry::{Change, Entry, InvalidLeaf, Leaf};
use semel_model::merkle::{self, Hash, Node};
use semel_model::note::{Checkpoint, NoteError};
use tokio::sync::OwnedMutexGuard;

use crate::Store;
use crate::entry_files::Batch;
use crate::keys::{KeyError, KeyRing};
use crate::lock::Held;
use crate::projections;
use crate::sql::{Conn, SqlError, Value};

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

/// The exclusive right to decide and to record. Given up when it is dropped.
#[derive(Debug)]
pub struct Turn {
    store: Store,
    conn: Option<Conn>,
    committed: bool,
    head: Head,
    // Given up in this order: the connection (in `drop`), the lock among processes, the place in this process.
    _lock: Held,
    writer: OwnedMutexGuard<Option<Conn>>,
}

impl Turn {
    pub(crate) async fn take(store: &Store) -> Result<Self, AppendError> {
        let mut writer = store.writer().await;
        let lock =
            store.lock().acquire().await.map_err(|source| AppendError::Io { what: "the lock", source })?;
        let mut conn = match writer.take() {
            Some(conn) => conn,
            None => store.connect().await?,
        };
        conn.begin().await?;
        let head = head(&mut conn).await.map_err(read_to_append)?;
        Ok(Self { store: store.clone(), conn: Some(conn), committed: false, head, writer, _lock: lock })
    }

    /// The head that everything read in this turn belongs to.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The database, with the projections at [`Turn::head`].
    pub fn db(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("a turn has its connection until it is dropped")
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

    /// Appends leaves; returns the sequence number of the first. With no leaves, only what was written to operational
    /// tables is kept.
    pub async fn append(mut self, leaves: Vec<Leaf>) -> Result<u64, AppendError> {
        let first = self.head.size;
        if leaves.is_empty() {
            self.commit().await?;
            return Ok(first);
        }
        let keys = self.store.keys().clone();
        self.refuse_to_fork(&keys).await?;
        let bytes: Vec<Vec<u8>> = leaves.iter().map(Leaf::to_bytes).collect::<Result<_, _>>()?;
        let expected = self.head.clone();
        insert(self.db(), &expected, &leaves, &bytes).await?;
        let origin = self.store.origin().to_owned();
        let note = sign(self.db(), &origin, &keys).await?;
        self.commit().await?;
        self.level_files().await?;
        keys.remember_checkpoint(&note)?;
        Ok(first)
    }

    async fn commit(&mut self) -> Result<(), AppendError> {
        self.db().commit().await?;
        self.committed = true;
        Ok(())
    }

    /// Signs only what extends what this key has signed before (invariant I9).
    async fn refuse_to_fork(&mut self, keys: &KeyRing) -> Result<(), AppendError> {
        let Some(note) = keys.last_checkpoint()? else { return Ok(()) };
        let Ok(signed) = Checkpoint::read_unverified(&note) else { return Ok(()) };
        if signed.size > self.head.size {
            return Err(AppendError::Behind { found: self.head.size, signed: signed.size });
        }
        let root = root(self.db(), signed.size).await.map_err(read_to_append)?;
        if root == signed.root { Ok(()) } else { Err(AppendError::Forked { signed: signed.size }) }
    }

    /// Finishes the append of somebody who crashed between the database and the entry files. Files that end before what was
    /// finished once are damaged, which is not for this to mend: `semel audit verify` reports them.
    pub(crate) async fn finish_broken_append(mut self, finished: u64) -> Result<(), AppendError> {
        let keys = self.store.keys().clone();
        self.refuse_to_fork(&keys).await?;
        self.commit().await?;
        let have = self.store.entry_files().size();
        if have.map_err(|source| AppendError::Io { what: "the entry files", source })? < finished {
            return Ok(());
        }
        self.level_files().await?;
        let note = checkpoint(self.db()).await.map_err(read_to_append)?;
        Ok(keys.remember_checkpoint(&note)?)
    }

    /// Brings the entry files level with the database: this batch, and any whose writer crashed before its file.
    async fn level_files(&mut self) -> Result<(), AppendError> {
        let failed = |source| AppendError::Io { what: "the entry files", source };
        let files = self.store.entry_files().clone();
        let have = files.repair().map_err(failed)?;
        let missing = batches_from(self.db(), have).await.map_err(read_to_append)?;
        files.append(&missing).map_err(failed)
    }
}

/// A connection whose transaction was not committed is closed, which gives the transaction up; one that was goes back for the
/// next turn.
impl Drop for Turn {
    fn drop(&mut self) {
        let conn = self.conn.take();
        *self.writer = conn.filter(|_| self.committed);
    }
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

/// Inserts leaves behind an expected head and folds them into the projections.
pub(crate) async fn insert(
    conn: &mut Conn,
    expected: &Head,
    leaves: &[Leaf],
    bytes: &[Vec<u8>],
) -> Result<(), AppendError> {
    let found = size(conn).await?;
    if found != expected.size {
        return Err(AppendError::HeadMoved { expected: expected.size, found });
    }
    for ((seq, leaf), bytes) in (expected.size..).zip(leaves).zip(bytes) {
        insert_leaf(conn, seq, leaf, bytes).await?;
        projections::apply(conn, seq, leaf).await?;
    }
    Ok(())
}

async fn insert_leaf(conn: &mut Conn, seq: u64, leaf: &Leaf, bytes: &[u8]) -> Result<(), AppendError> {
    let (time, actor) = match leaf {
        Leaf::Entry(entry) => (entry.time.to_string(), entry.actor.subject.clone()),
        Leaf::Signature(_) => (String::new(), String::new()),
    };
    let hash = merkle::leaf_hash(bytes);
    let text = String::from_utf8(bytes.to_vec()).expect("leaves are JSON");
    conn.execute(
        "INSERT INTO entry (seq, kind, time, actor, leaf_hash, leaf) VALUES ($1, $2, $3, $4, $5, $6)",
        &[seq.into(), leaf.kind().into(), time.into(), actor.into(), hex::encode(hash).into(), text.into()],
    )
    .await?;
    for node in merkle::completed_by(seq) {
        let left = hash_at(conn, Node { level: node.level - 1, index: node.index * 2 })
            .await
            .map_err(read_to_append)?;
        let right = hash_at(conn, Node { level: node.level - 1, index: node.index * 2 + 1 })
            .await
            .map_err(read_to_append)?;
        conn.execute(
            "INSERT INTO node (level, idx, hash) VALUES ($1, $2, $3)",
            &[
                u64::from(node.level).into(),
                node.index.into(),
                hex::encode(merkle::node_hash(&left, &right)).into(),
            ],
        )
        .await?;
    }
    Ok(())
}

async fn sign(conn: &mut Conn, origin: &str, keys: &KeyRing) -> Result<String, AppendError> {
    let head = head(conn).await.map_err(read_to_append)?;
    let checkpoint = Checkpoint { origin: origin.to_owned(), size: head.size, root: head.root };
    let note = checkpoint.sign(&keys.ledger_key()?);
    store_note(conn, head.size, &note).await?;
    Ok(note)
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

/// The root of the tree when it had `size` leaves.
pub async fn root(conn: &mut Conn, size: u64) -> Result<Hash, ReadError> {
    root_of(conn, &merkle::root_nodes(size)).await
}

async fn root_of(conn: &mut Conn, nodes: &[Node]) -> Result<Hash, ReadError> {
    let mut hashes = Vec::with_capacity(nodes.len());
    for node in nodes {
        hashes.push(hash_at(conn, *node).await?);
    }
    Ok(merkle::root_of(&hashes))
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

/// The newest leaves that concern an environment, newest first; of one component, if one is named.
pub async fn events(
    conn: &mut Conn,
    environment: &str,
    component: Option<&str>,
    limit: u64,
) -> Result<Vec<Recorded>, ReadError> {
    let rows = match component {
        Some(component) => {
            conn.rows(
                "SELECT entry.seq, entry.leaf FROM event JOIN entry ON entry.seq = event.seq \
                 WHERE event.environment = $1 AND event.component IN ($2, '') ORDER BY event.seq DESC LIMIT $3",
                &[environment.into(), component.into(), limit.into()],
            )
            .await?
        }
        None => {
            conn.rows(
                "SELECT entry.seq, entry.leaf FROM event JOIN entry ON entry.seq = event.seq \
                 WHERE event.environment = $1 ORDER BY event.seq DESC LIMIT $2",
                &[environment.into(), limit.into()],
            )
            .await?
        }
    };
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
        let rows = conn
            .rows(
                "SELECT leaf FROM entry WHERE seq >= $1 AND seq < $2 ORDER BY seq",
                &[first.into(), size.into()],
            )
            .await?;
        batches.push(Batch {
            first,
            leaves: rows.iter().map(|row| row.text(0).into_bytes()).collect(),
            note,
        });
        first = size;
    }
    Ok(batches)
}

//! `semel audit verify`: is everything that the store says still what was recorded?
//!
//! Nothing is trusted but the ledger's key. Every problem is listed; none stops the search for the next.

use std::collections::BTreeSet;

use semel_model::digest::Digest;
use semel_model::entry::Leaf;
use semel_model::merkle::{self, Frontier, Hash};
use semel_model::note::Checkpoint;
use semel_model::promotion::{self, Decision};

use crate::Store;
use crate::blobs::BlobError;
use crate::entry_files::Contents;
use crate::ledger::{self, ReadError, Writer};
use crate::projections::{self, artefact, document, promotion as promotions};
use crate::schema;
use crate::sql::{Conn, Db, SqlError};

/// What was looked at, and what was wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many leaves were hashed.
    pub entries: u64,
    /// How many signed checkpoints were compared with the tree.
    pub checkpoints: u64,
    /// How many decisions were evaluated again.
    pub decisions: u64,
    /// How many blobs were hashed.
    pub blobs: u64,
    /// The bytes that they have.
    pub blob_bytes: u64,
    /// The root of the tree, in hexadecimal.
    pub root: String,
    /// Everything that is not as it should be, one line each.
    pub problems: Vec<String>,
}

/// The verification itself could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The database failed.
    #[error("cannot read the store's database")]
    Sql(#[from] SqlError),
    /// The schema failed.
    #[error("cannot prepare a database for comparison")]
    Schema(#[from] schema::SchemaError),
    /// The ledger cannot be read.
    #[error("cannot read the ledger")]
    Read(#[from] ReadError),
    /// The entry files cannot be read.
    #[error("cannot read the entry files")]
    Files(#[source] std::io::Error),
    /// The moment to verify cannot be chosen.
    #[error("cannot lock the store")]
    Lock(#[source] std::io::Error),
}

/// Verifies a whole store as it is at one moment; others may go on recording meanwhile.
pub async fn verify(store: &Store) -> Result<Report, AuditError> {
    let mut report = Report::default();
    let Moment { mut conn, size, files, memory } = Moment::choose(store).await?;
    let tree = hash_entries(&mut conn, size, &mut report).await?;
    compare_checkpoints(store, &mut conn, &tree, &mut report).await?;
    compare_with_memory(memory, &tree, &mut report);
    compare_files(files, &tree, &mut report);
    compare_projections(&mut conn, size, &mut report).await?;
    replay_decisions(store, &mut conn, &mut report).await?;
    hash_blobs(store, &mut conn, size, &mut report).await?;
    Ok(report)
}

/// What there is at one moment between two turns, when database, entry files and memory say the same.
struct Moment {
    /// Reads what the database was then. Closed afterwards, which ends its transaction.
    conn: Conn,
    size: u64,
    files: Contents,
    /// The newest checkpoint that this machine remembers.
    memory: Option<Checkpoint>,
}

impl Moment {
    async fn choose(store: &Store) -> Result<Self, AuditError> {
        // What others of this process have decided becomes durable first: their lock is the one that is taken next.
        let _writer = Writer::close(store.writer().await, store).await;
        let _held = store.lock().acquire_to_read().await.map_err(AuditError::Lock)?;
        let mut conn = store.connect().await?;
        conn.begin_reading().await?;
        // The first read is what chooses the state that all others see.
        let size = ledger::size(&mut conn).await?;
        let files = store.entry_files().read().map_err(AuditError::Files)?;
        let memory = store.keys().last_checkpoint().ok().flatten();
        let memory = memory.and_then(|note| Checkpoint::read_unverified(&note).ok());
        Ok(Self { conn, size, files, memory })
    }
}

/// The tree, computed anew from the leaves alone.
struct Tree {
    edge: Frontier,
    /// The hashes of the complete subtrees, by level and index; those of the leaves are the first level. Every checkpoint is a
    /// handful of them: there are nearly as many checkpoints as leaves.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    fn new() -> Self {
        Self { edge: Frontier::new(0, Vec::new()), levels: vec![Vec::new()] }
    }

    fn push(&mut self, leaf: Hash) {
        self.levels[0].push(leaf);
        for (node, hash) in self.edge.push(leaf) {
            let level = node.level as usize;
            self.levels.resize_with(self.levels.len().max(level + 1), Vec::new);
            self.levels[level].push(hash);
        }
    }

    fn leaves(&self) -> &[Hash] {
        &self.levels[0]
    }

    /// The root when the tree had `size` leaves; none: it never had so many.
    fn root(&self, size: u64) -> Option<Hash> {
        if size > self.edge.size() {
            return None;
        }
        let hash = |node: &merkle::Node| {
            self.levels.get(node.level as usize)?.get(usize::try_from(node.index).ok()?).copied()
        };
        let parts: Option<Vec<Hash>> = merkle::root_nodes(size).iter().map(hash).collect();
        Some(merkle::root_of(&parts?))
    }
}

async fn hash_entries(conn: &mut Conn, size: u64, report: &mut Report) -> Result<Tree, AuditError> {
    let mut tree = Tree::new();
    let mut last_time = None;
    let mut from = 0;
    while from < size {
        let rows = conn
            .rows(
                "SELECT seq, kind, time, actor, leaf_hash, leaf FROM entry WHERE seq >= $1 ORDER BY seq LIMIT 1000",
                &[from.into()],
            )
            .await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let seq = row.count(0);
            if seq != tree.edge.size() {
                report.problems.push(format!("entry {} is missing from the ledger", tree.edge.size()));
                return Ok(tree);
            }
            let text = row.text(5);
            let hash = merkle::leaf_hash(text.as_bytes());
            if hex::encode(hash) != row.text(4) {
                report.problems.push(format!("entry {seq} does not have the hash that was recorded for it"));
            }
            match Leaf::parse(text.as_bytes()) {
                Ok(leaf) => {
                    let (time, actor) = match &leaf {
                        Leaf::Entry(entry) => (entry.time.to_string(), entry.actor.subject.clone()),
                        Leaf::Signature(_) => (String::new(), String::new()),
                    };
                    if (leaf.kind(), time.as_str(), actor.as_str())
                        != (&row.text(1), &row.text(2), &row.text(3))
                    {
                        report
                            .problems
                            .push(format!("the columns of entry {seq} do not say what its bytes say"));
                    }
                    if let Leaf::Entry(entry) = &leaf {
                        last_time = last_time.max(Some(entry.time));
                    }
                }
                Err(error) => report.problems.push(format!("entry {seq}: {error}")),
            }
            tree.push(hash);
        }
        from = tree.edge.size();
    }
    report.entries = tree.edge.size();
    Ok(tree)
}

/// Every checkpoint that was ever signed must be a prefix of what is there now (invariant I9), and the newest must cover
/// all of it.
async fn compare_checkpoints(
    store: &Store,
    conn: &mut Conn,
    tree: &Tree,
    report: &mut Report,
) -> Result<(), AuditError> {
    let Some(key) = store.ledger_key() else {
        report.problems.push("store.json names no valid ledger key".to_owned());
        return Ok(());
    };
    let mut newest = 0;
    for (size, note) in ledger::checkpoints(conn, 0).await? {
        newest = size;
        report.checkpoints += 1;
        match Checkpoint::verify(&note, &key) {
            Err(error) => report.problems.push(format!("checkpoint {size}: {error}")),
            Ok(checkpoint) if checkpoint.size != size => {
                report.problems.push(format!("checkpoint {size} was signed for {} entries", checkpoint.size));
            }
            Ok(checkpoint) if tree.root(size) != Some(checkpoint.root) => {
                report.problems.push(format!("the first {size} entries are not the ones that were signed"));
            }
            Ok(_) => {}
        }
    }
    if newest != report.entries {
        report
            .problems
            .push(format!("{} entries, but the newest checkpoint covers {newest}", report.entries));
    }
    match tree.root(report.entries) {
        Some(root) => {
            report.root = hex::encode(root);
            if ledger::root(conn, report.entries).await.ok() != Some(root) {
                report.problems.push("the stored tree hashes are not those of the entries".to_owned());
            }
        }
        None => report.problems.push("the tree cannot be computed".to_owned()),
    }
    Ok(())
}

/// What this machine has signed or seen before must still be there.
fn compare_with_memory(memory: Option<Checkpoint>, tree: &Tree, report: &mut Report) {
    let Some(seen) = memory else { return };
    if seen.size > report.entries {
        report
            .problems
            .push(format!("this machine has signed {} entries, the store has {}", seen.size, report.entries));
    } else if tree.root(seen.size) != Some(seen.root) {
        report
            .problems
            .push(format!("the first {} entries are not the ones that this machine has signed", seen.size));
    }
}

fn compare_files(contents: Contents, tree: &Tree, report: &mut Report) {
    if let Some((path, _)) = contents.torn {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.problems.push(format!("ledger/{name} has damaged or unfinished bytes at its end"));
    }
    let mut seq = 0u64;
    for batch in &contents.batches {
        if batch.first != seq {
            report
                .problems
                .push(format!("the entry files continue at {} where {seq} was expected", batch.first));
            return;
        }
        for leaf in &batch.leaves {
            let same = usize::try_from(seq).ok().and_then(|at| tree.leaves().get(at))
                == Some(&merkle::leaf_hash(leaf));
            if !same {
                report
                    .problems
                    .push(format!("entry {seq} in the entry files is not the one in the database"));
            }
            seq += 1;
        }
    }
    if seq < report.entries {
        report.problems.push(format!("the entry files hold {seq} of {} entries", report.entries));
    }
}

/// Folds the ledger again in a database of its own and compares every table.
async fn compare_projections(conn: &mut Conn, size: u64, report: &mut Report) -> Result<(), AuditError> {
    let mut fresh = Db::in_memory()?;
    schema::migrate(&mut fresh).await?;
    let mut from = 0;
    while from < size {
        let leaves = match ledger::read(conn, from, 1_000).await {
            Ok(leaves) => leaves,
            // Damaged entries are reported already; nothing can be folded from them.
            Err(ReadError::Leaf { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if leaves.is_empty() {
            break;
        }
        for recorded in &leaves {
            projections::apply(&mut fresh, recorded.seq, &recorded.leaf).await?;
        }
        from += leaves.len() as u64;
    }
    let (stored, folded) = (projections::dump(conn).await?, projections::dump(&mut fresh).await?);
    for ((table, stored), (_, folded)) in stored.into_iter().zip(folded) {
        if stored != folded {
            let (stored, folded): (BTreeSet<_>, BTreeSet<_>) =
                (stored.into_iter().collect(), folded.into_iter().collect());
            let extra = stored.difference(&folded).count();
            let lost = folded.difference(&stored).count();
            let example = stored.symmetric_difference(&folded).next().cloned().unwrap_or_default();
            report.problems.push(format!(
                "table {table} is not what the ledger says: {extra} rows too many, {lost} missing, such as: {}",
                example.replace('\t', " ")
            ));
        }
    }
    Ok(())
}

/// The same inputs must give the same decision, years later (invariant I10).
async fn replay_decisions(store: &Store, conn: &mut Conn, report: &mut Report) -> Result<(), AuditError> {
    for (seq, digest, granted) in promotions::all_decisions(conn).await? {
        report.decisions += 1;
        let decision: Option<Decision> =
            store.blobs().read(&digest).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match decision {
            None => report.problems.push(format!("the decision of entry {seq} cannot be read ({digest})")),
            Some(decision) => {
                let again = promotion::decide(decision.inputs.clone());
                if !same_answers(&again, &decision) || decision.is_granted() != granted {
                    report
                        .problems
                        .push(format!("the decision of entry {seq} does not follow from its inputs"));
                }
            }
        }
    }
    Ok(())
}

/// Whether two decisions say the same: which gates, their verdicts and the outcome. The words of a reason may be improved by
/// a later program.
fn same_answers(a: &Decision, b: &Decision) -> bool {
    let answers = |decision: &Decision| -> Vec<_> {
        decision.gates.iter().map(|gate| (gate.gate.clone(), gate.verdict, gate.rests_on.clone())).collect()
    };
    a.outcome == b.outcome && answers(a) == answers(b)
}

async fn hash_blobs(
    store: &Store,
    conn: &mut Conn,
    size: u64,
    report: &mut Report,
) -> Result<(), AuditError> {
    let mut named = BTreeSet::new();
    let mut from = 0;
    while from < size {
        let Ok(leaves) = ledger::read(conn, from, 1_000).await else { break };
        if leaves.is_empty() {
            break;
        }
        for recorded in &leaves {
            if let Leaf::Entry(entry) = &recorded.leaf {
                named.extend(document::of(&entry.change));
            }
        }
        from += leaves.len() as u64;
    }
    for (digest, has_bytes) in artefact::all_manifests(conn).await? {
        // The bytes of what has expired may be gone; what it says stays.
        if has_bytes {
            match contents_of(store, &digest) {
                Ok(contents) => named.extend(contents),
                Err(problem) => report.problems.push(problem),
            }
        }
        named.insert(digest);
    }
    for digest in named {
        report.blobs += 1;
        match store.blobs().verify(&digest) {
            Ok(size) => report.blob_bytes += size,
            Err(BlobError::Unknown(_)) => report.problems.push(format!("blob {digest} is missing")),
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    Ok(())
}

/// The blobs that a manifest needs. A manifest whose bytes are gone or damaged is reported as a blob.
fn contents_of(store: &Store, digest: &Digest) -> Result<Vec<Digest>, String> {
    let Ok(bytes) = store.blobs().read(digest) else { return Ok(Vec::new()) };
    let manifest = semel_oci::manifest::ParsedManifest::parse(&bytes, None)
        .map_err(|error| format!("manifest {digest} cannot be read: {error}"))?;
    let needed = manifest.required_blobs().into_iter().filter(|descriptor| descriptor.embedded().is_none());
    Ok(needed.map(|descriptor| descriptor.digest.clone()).collect())
}

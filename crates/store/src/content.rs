//! What manifests need, and who may read it: the ground on which collection stands.
//!
//! Operational: read from the bytes of the manifests that the ledger names, in the turn that stores them, and again by
//! [`read_all`] when the database was lost. Reachability is asked here, for a digest in all components at once, and never
//! derived from a listing of files.

use std::collections::BTreeSet;

use semel_model::digest::Digest;
use semel_model::entry::{Change, Leaf};
use semel_model::name::ComponentName;
use semel_oci::manifest::{InvalidManifest, ParsedManifest};

use crate::blobs::{BlobError, Blobs};
use crate::ledger::AppendError;
use crate::projections::{document, parsed};
use crate::sql::{Conn, SqlError, Value, text};

/// A manifest could not be read for what it needs.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Its bytes are gone or damaged.
    #[error("cannot read what manifest {digest} needs")]
    Bytes {
        /// Which manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// They are no manifest that this program can read.
    #[error("cannot read what manifest {digest} needs")]
    Form {
        /// Which manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// The documents that new leaves name for the first time are here. They were put here before the turn, and a collection may
/// have had its own since.
pub(crate) async fn require_documents(
    conn: &mut Conn,
    blobs: &Blobs,
    leaves: &[Leaf],
) -> Result<(), AppendError> {
    for digest in changes(leaves).flat_map(document::of) {
        if !is_here(blobs, &digest)? && !document::is_named(conn, &digest).await? {
            return Err(AppendError::Collected(digest));
        }
    }
    Ok(())
}

fn changes(leaves: &[Leaf]) -> impl Iterator<Item = &Change> {
    leaves.iter().filter_map(|leaf| match leaf {
        Leaf::Entry(entry) => Some(&entry.change),
        Leaf::Signature(_) => None,
    })
}

/// Whether a blob is in its place, also one that was on its way out. For whoever has the turn: it stays.
fn is_here(blobs: &Blobs, digest: &Digest) -> Result<bool, AppendError> {
    if blobs.contains(digest) {
        return Ok(true);
    }
    blobs
        .hold(digest)
        .map_err(|error| AppendError::Io { what: "a blob", source: std::io::Error::other(error) })
}

/// Reads what the manifests of new leaves need. Their bytes are in the store before the leaves are.
pub(crate) async fn read_leaves(conn: &mut Conn, blobs: &Blobs, leaves: &[Leaf]) -> Result<(), AppendError> {
    for change in changes(leaves) {
        let Change::ManifestStored(body) = change else { continue };
        if !is_here(blobs, &body.digest)? {
            return Err(AppendError::Collected(body.digest.clone()));
        }
        match read(conn, blobs, &body.component, &body.digest, &body.media_type).await {
            // Whoever collects reads it again, and stops where that fails.
            Err(ContentError::Sql(error)) => return Err(error.into()),
            Err(error) => tracing::error!(%error, "A manifest cannot be read"),
            Ok(()) => require_blobs(conn, blobs, &body.digest).await?,
        }
    }
    Ok(())
}

/// The blobs of a new manifest are here.
async fn require_blobs(conn: &mut Conn, blobs: &Blobs, manifest: &Digest) -> Result<(), AppendError> {
    let statement = "SELECT digest FROM content WHERE manifest = $1 AND role = 'content' ORDER BY digest";
    for row in conn.rows(statement, &[text(manifest)]).await? {
        let digest = parsed(row.text(0));
        if !is_here(blobs, &digest)? {
            return Err(AppendError::Collected(digest));
        }
    }
    Ok(())
}

/// Reads what one manifest needs, and lets its component read that.
async fn read(
    conn: &mut Conn,
    blobs: &Blobs,
    component: &ComponentName,
    digest: &Digest,
    media_type: &str,
) -> Result<(), ContentError> {
    let bytes =
        blobs.read(digest).map_err(|source| ContentError::Bytes { digest: digest.clone(), source })?;
    let parsed = ParsedManifest::parse(&bytes, Some(media_type))
        .map_err(|source| ContentError::Form { digest: digest.clone(), source })?;
    let size = bytes.len() as u64;
    add(conn, digest, digest, size, "self").await?;
    for needed in parsed.required_blobs() {
        // What is embedded need not lie anywhere else.
        let role = if needed.embedded().is_some() { "optional" } else { "content" };
        add(conn, digest, &needed.digest, needed.size, role).await?;
        link(conn, component, &needed.digest).await?;
    }
    for needed in parsed.optional_blobs() {
        add(conn, digest, &needed.digest, needed.size, "optional").await?;
        link(conn, component, &needed.digest).await?;
    }
    for child in parsed.required_manifests() {
        add(conn, digest, &child.digest, child.size, "manifest").await?;
    }
    Ok(())
}

async fn add(
    conn: &mut Conn,
    manifest: &Digest,
    digest: &Digest,
    size: u64,
    role: &'static str,
) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO content (manifest, digest, size, role) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        &[text(manifest), text(digest), Value::from(size), role.into()],
    )
    .await
    .map(drop)
}

/// What became of reading manifests.
#[derive(Debug, Default)]
pub struct ReadManifests {
    /// How many were read now.
    pub read: u64,
    /// Those that could not be: what they need is unknown, so nothing may be taken for unneeded.
    pub unreadable: Vec<ContentError>,
}

/// Reads every manifest of the store that was not read yet.
pub async fn read_all(conn: &mut Conn, blobs: &Blobs) -> Result<ReadManifests, SqlError> {
    let rows = conn
        .rows(
            "SELECT component, digest, media_type FROM manifest WHERE NOT EXISTS \
             (SELECT 1 FROM content WHERE content.manifest = manifest.digest AND content.digest = manifest.digest) \
             ORDER BY component, digest",
            &[],
        )
        .await?;
    let mut done = ReadManifests::default();
    for row in &rows {
        match read(conn, blobs, &parsed(row.text(0)), &parsed(row.text(1)), &row.text(2)).await {
            Ok(()) => done.read += 1,
            Err(ContentError::Sql(error)) => return Err(error),
            Err(error) => done.unreadable.push(error),
        }
    }
    Ok(done)
}

/// Lets a component's clients read a blob: it was uploaded or mounted there, or a manifest there needs it.
pub async fn link(conn: &mut Conn, component: &ComponentName, digest: &Digest) -> Result<(), SqlError> {
    conn.execute(
        "INSERT INTO readable (component, digest) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        &[text(component), text(digest)],
    )
    .await
    .map(drop)
}

/// Takes a blob away from a component's clients. Its bytes stay until nothing needs them.
pub async fn unlink(conn: &mut Conn, component: &ComponentName, digest: &Digest) -> Result<(), SqlError> {
    conn.execute(
        "DELETE FROM readable WHERE component = $1 AND digest = $2",
        &[text(component), text(digest)],
    )
    .await
    .map(drop)
}

/// Whether a component's clients may read a blob.
pub async fn is_readable(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
) -> Result<bool, SqlError> {
    let row = conn
        .row("SELECT 1 FROM readable WHERE component = $1 AND digest = $2", &[text(component), text(digest)])
        .await?;
    Ok(row.is_some())
}

/// Whether the clients of some component may read a blob.
pub async fn is_readable_somewhere(conn: &mut Conn, digest: &Digest) -> Result<bool, SqlError> {
    Ok(conn.row("SELECT 1 FROM readable WHERE digest = $1 LIMIT 1", &[text(digest)]).await?.is_some())
}

/// The manifests of a component, not expired, that need a digest, as blob or as part of an index; at most `limit`.
pub async fn needed_by(
    conn: &mut Conn,
    component: &ComponentName,
    digest: &Digest,
    limit: u64,
) -> Result<Vec<Digest>, SqlError> {
    let rows = conn
        .rows(
            "SELECT content.manifest FROM content JOIN manifest \
             ON manifest.digest = content.manifest AND manifest.component = $1 \
             WHERE content.digest = $2 AND content.role <> 'self' AND NOT EXISTS (SELECT 1 FROM version \
             WHERE version.component = manifest.component AND version.digest = manifest.digest \
             AND version.expired IS NOT NULL) ORDER BY content.manifest LIMIT $3",
            &[text(component), text(digest), limit.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| parsed(row.text(0))).collect())
}

/// The first digest that artefacts need and that is not in the store, looking through their parts. Each is looked at once,
/// however often it is named: an index of indexes could name more than anybody can count.
pub async fn first_missing(
    conn: &mut Conn,
    blobs: &Blobs,
    manifests: impl IntoIterator<Item = &Digest>,
) -> Result<Option<Digest>, SqlError> {
    let (mut open, mut seen): (Vec<_>, _) = (manifests.into_iter().cloned().collect(), BTreeSet::new());
    while let Some(manifest) = open.pop() {
        if !seen.insert(manifest.clone()) {
            continue;
        }
        let rows = conn
            .rows(
                "SELECT digest, role FROM content WHERE manifest = $1 AND role <> 'optional' ORDER BY digest",
                &[text(&manifest)],
            )
            .await?;
        for row in &rows {
            let digest: Digest = parsed(row.text(0));
            if !blobs.contains(&digest) {
                return Ok(Some(digest));
            }
            if row.text(1) == "manifest" {
                open.push(digest);
            }
        }
    }
    Ok(None)
}

/// An artefact and everything that it needs, through its parts.
pub async fn closure(conn: &mut Conn, manifest: &Digest) -> Result<Vec<Digest>, SqlError> {
    let (mut open, mut seen) = (vec![(manifest.clone(), true)], BTreeSet::new());
    while let Some((digest, is_manifest)) = open.pop() {
        if !seen.insert(digest.clone()) || !is_manifest {
            continue;
        }
        let rows = conn
            .rows(
                "SELECT digest, role FROM content WHERE manifest = $1 AND role <> 'self' ORDER BY digest",
                &[text(&digest)],
            )
            .await?;
        open.extend(rows.iter().map(|row| (parsed(row.text(0)), row.text(1) == "manifest")));
    }
    Ok(seen.into_iter().collect())
}

/// An artefact and its parts that are held by nothing but indexes among them: no version means them, and no index outside
/// contains them.
pub async fn parts(conn: &mut Conn, manifest: &Digest) -> Result<BTreeSet<Digest>, SqlError> {
    let mut parts = BTreeSet::from([manifest.clone()]);
    let mut open = vec![manifest.clone()];
    while let Some(index) = open.pop() {
        let rows = conn
            .rows(
                "SELECT digest FROM content WHERE manifest = $1 AND role = 'manifest' AND NOT EXISTS \
                 (SELECT 1 FROM version WHERE version.digest = content.digest) ORDER BY digest",
                &[text(&index)],
            )
            .await?;
        for row in rows {
            let part: Digest = parsed(row.text(0));
            let mut containing = needing(conn, &part, parts.len() as u64 + 2).await?;
            containing.retain(|one| *one != part);
            if containing.iter().all(|one| parts.contains(one)) && parts.insert(part.clone()) {
                open.push(part);
            }
        }
    }
    Ok(parts)
}

/// Whether something in any component needs a blob: an entry that names it, or an artefact that has not expired. The bytes
/// of a manifest itself are kept as long as the store knows it.
pub async fn is_needed(conn: &mut Conn, digest: &Digest) -> Result<bool, SqlError> {
    Ok(document::is_named(conn, digest).await? || !needing(conn, digest, 1).await?.is_empty())
}

/// The artefacts of all components, not expired, that need a blob; at most `limit`.
pub async fn needing(conn: &mut Conn, digest: &Digest, limit: u64) -> Result<Vec<Digest>, SqlError> {
    let rows = conn
        .rows(
            "SELECT DISTINCT content.manifest FROM content JOIN manifest ON manifest.digest = content.manifest \
             WHERE content.digest = $1 AND (content.role = 'self' OR NOT EXISTS (SELECT 1 FROM version \
             WHERE version.component = manifest.component AND version.digest = manifest.digest \
             AND version.expired IS NOT NULL)) LIMIT $2",
            &[text(digest), limit.into()],
        )
        .await?;
    Ok(rows.into_iter().map(|row| parsed(row.text(0))).collect())
}

/// Nobody may read a blob that is gone.
pub async fn forget(conn: &mut Conn, digest: &Digest) -> Result<(), SqlError> {
    conn.execute("DELETE FROM readable WHERE digest = $1", &[text(digest)]).await.map(drop)
}

/// What a manifest needs, with sizes; without the manifest itself.
pub async fn of(conn: &mut Conn, manifest: &Digest) -> Result<Vec<(Digest, u64)>, SqlError> {
    let rows = conn
        .rows(
            "SELECT digest, size FROM content WHERE manifest = $1 AND role <> 'self' ORDER BY digest",
            &[text(manifest)],
        )
        .await?;
    Ok(rows.into_iter().map(|row| (parsed(row.text(0)), row.count(1))).collect())
}

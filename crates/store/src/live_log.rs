//! Live logs: what running builds have printed so far. Operational: a lost piece is missing from what waiters see, and from
//! nothing else.

use semel_model::name::ComponentName;

use crate::sql::{Conn, SqlError, text};

/// Whose log it is.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Which component.
    pub component: &'a ComponentName,
    /// The build number.
    pub number: u64,
    /// The part that is built; empty: the whole.
    pub part: &'a str,
    /// Which attempt.
    pub attempt: u64,
}

/// A stretch of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How many bytes of the log come before it.
    pub at_byte: u64,
    /// The stretch.
    pub text: String,
}

impl Piece {
    fn end(&self) -> u64 {
        self.at_byte + self.text.len() as u64
    }
}

/// How many bytes of a log are here.
pub async fn length(conn: &mut Conn, log: Running<'_>) -> Result<u64, SqlError> {
    let row = conn
        .row(
            "SELECT at_byte + size FROM live_log WHERE component = $1 AND number = $2 AND part = $3 AND attempt = $4 \
             ORDER BY at_byte DESC LIMIT 1",
            &[text(log.component), log.number.into(), log.part.into(), log.attempt.into()],
        )
        .await?;
    Ok(row.map_or(0, |row| row.count(0)))
}

/// Adds a piece, and forgets those of earlier attempts.
pub async fn add(conn: &mut Conn, log: Running<'_>, piece: &Piece) -> Result<(), SqlError> {
    if piece.at_byte == 0 {
        conn.execute(
            "DELETE FROM live_log WHERE component = $1 AND number = $2 AND part = $3 AND attempt < $4",
            &[text(log.component), log.number.into(), log.part.into(), log.attempt.into()],
        )
        .await?;
    }
    conn.execute(
        "INSERT INTO live_log (component, number, part, attempt, at_byte, size, piece) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            text(log.component),
            log.number.into(),
            log.part.into(),
            log.attempt.into(),
            piece.at_byte.into(),
            (piece.text.len() as u64).into(),
            piece.text.as_str().into(),
        ],
    )
    .await
    .map(drop)
}

/// The log from a byte on, at most `limit` pieces, joined. Bytes that are not here are left out.
pub async fn read(conn: &mut Conn, log: Running<'_>, from: u64, limit: u64) -> Result<Piece, SqlError> {
    let rows = conn
        .rows(
            "SELECT at_byte, piece FROM live_log WHERE component = $1 AND number = $2 AND part = $3 AND attempt = $4 \
             AND at_byte + size > $5 ORDER BY at_byte LIMIT $6",
            &[
                text(log.component),
                log.number.into(),
                log.part.into(),
                log.attempt.into(),
                from.into(),
                limit.into(),
            ],
        )
        .await?;
    let mut joined = Piece { at_byte: from, text: String::new() };
    for row in rows {
        let piece = Piece { at_byte: row.count(0), text: row.text(1) };
        if joined.text.is_empty() {
            joined.at_byte = from.max(piece.at_byte);
        } else if piece.at_byte > joined.end() {
            break;
        }
        let known = usize::try_from(joined.end().saturating_sub(piece.at_byte)).unwrap_or(usize::MAX);
        joined.text.push_str(piece.text.get(known..).unwrap_or_default());
    }
    Ok(joined)
}

/// Forgets what attempts printed whose leases ended before a time (in milliseconds since 1970), or are lost: nobody goes on
/// with them.
pub async fn forget_lapsed(conn: &mut Conn, before_millis: i64) -> Result<(), SqlError> {
    conn.execute(
        "DELETE FROM live_log WHERE NOT EXISTS (SELECT 1 FROM build JOIN lease \
         ON lease.component = build.component AND lease.build_key = build.build_key \
         WHERE build.component = live_log.component AND build.number = live_log.number \
         AND lease.platform = live_log.part AND lease.attempt = live_log.attempt AND lease.until_millis >= $1)",
        &[before_millis.into()],
    )
    .await
    .map(drop)
}

/// Forgets what a build, or one part of it, printed.
pub async fn forget(
    conn: &mut Conn,
    component: &ComponentName,
    number: u64,
    part: &str,
) -> Result<(), SqlError> {
    conn.execute(
        "DELETE FROM live_log WHERE component = $1 AND number = $2 AND part = $3",
        &[text(component), number.into(), part.into()],
    )
    .await
    .map(drop)
}

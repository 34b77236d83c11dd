//! The log of a running build, for those who wait for it.
//!
//! Who builds adds what was printed; who waits asks from where it has read on. Nothing of it is recorded: when the build
//! has ended, its log is a blob.

use jiff::Timestamp;
use schemars::JsonSchema;
use semel_model::name::ComponentName;
use semel_model::platform::Platform;
use semel_store::Store;
use semel_store::lease::{self, Leased};
use semel_store::live_log::{self, Piece, Running};
use semel_store::projections::build::{self, BuildState};
use semel_store::sql::Conn;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::reserve::{self, Holding};

/// How much of a running build's log is kept, in bytes. The blob has the rest.
pub const MOST_BYTES: u64 = 4 << 20;
/// The largest piece that is taken, in bytes.
pub const PIECE_BYTES: usize = 64 << 10;
/// How many pieces one answer has at most.
const PIECES: u64 = 16;

/// Adds to the log of a running build. Repeating it changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddToLog {
    /// Which build, and the proof that the caller holds it.
    pub holding: Holding,
    /// How many bytes of the log come before this.
    pub at_byte: u64,
    /// What was printed, in the form of a build log, as far as it is text.
    pub text: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// How many bytes of the log are here now.
    pub length: u64,
    /// Whether no more is taken.
    pub full: bool,
}

/// Adds to the log of a running build.
pub async fn add(store: &Store, request: AddToLog, now: Timestamp) -> Result<Added, EngineError> {
    if request.text.len() > PIECE_BYTES {
        return Err(EngineError::invalid(format!("a piece of a log has at most {PIECE_BYTES} bytes")));
    }
    let mut jotting = store.jotting().await?;
    let (build, lease) = reserve::held(jotting.db(), &request.holding).await?;
    let part = part_of(request.holding.platform.as_ref());
    let log =
        Running { component: &build.component, number: build.number, part: &part, attempt: lease.attempt };
    let length = live_log::length(jotting.db(), log).await?;
    let piece = unknown(length, request.at_byte, &request.text);
    let full = piece.at_byte.saturating_add(piece.text.len() as u64) > MOST_BYTES;
    // What comes late would stay for ever.
    let adds = !full && !piece.text.is_empty() && lease.is_live(now);
    if adds {
        live_log::add(jotting.db(), log, &piece).await?;
    }
    jotting.keep().await?;
    let length = if adds { piece.at_byte + piece.text.len() as u64 } else { length };
    Ok(Added { length, full })
}

/// The part of a piece that is not here yet. No database takes a NUL character in a text.
fn unknown(length: u64, at_byte: u64, text: &str) -> Piece {
    let known = usize::try_from(length.saturating_sub(at_byte)).unwrap_or(usize::MAX);
    let rest = text.get(known..).unwrap_or_default().replace('\0', " ");
    Piece { at_byte: at_byte.max(length), text: rest }
}

/// Asks what a running build has printed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadLog {
    /// Which component.
    pub component: ComponentName,
    /// The build number.
    pub number: u64,
    /// The attempt that was read so far; 0: none.
    pub attempt: u64,
    /// How many bytes of that were read.
    pub from_byte: u64,
    /// The part, for a build that has parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// What a running build has printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSoFar {
    /// Whether the build is not finished, as far as it is known: somebody holds it.
    pub running: bool,
    /// Who builds, while somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The attempt; another one than before begins at its first byte.
    pub attempt: u64,
    /// How many bytes come before the text; more than were read: the others are lost.
    pub at_byte: u64,
    /// What follows, in the form of a build log; empty: nothing yet.
    pub text: String,
}

/// What a running build has printed, from where the caller has read on.
pub async fn read(store: &Store, request: &ReadLog, now: Timestamp) -> Result<LogSoFar, EngineError> {
    let mut conn = store.reader().await?;
    let Some(build) = build::by_number(&mut conn, &request.component, request.number).await? else {
        let (component, number) = (&request.component, request.number);
        return Err(EngineError::not_found(format!("{component} has no build {number}")));
    };
    let platform = request.platform.as_ref();
    let leased = Leased { component: &build.component, key: &build.key, platform };
    let lease = lease::newest(&mut conn, leased).await?;
    let attempt = lease.as_ref().map_or(request.attempt, |lease| lease.attempt);
    let from = if attempt == request.attempt { request.from_byte } else { 0 };
    let part = part_of(platform);
    let log = Running { component: &build.component, number: build.number, part: &part, attempt };
    let piece = live_log::read(&mut conn, log, from, PIECES).await?;
    let live = lease.filter(|lease| build.state != BuildState::Published && lease.is_live(now));
    Ok(LogSoFar {
        running: live.is_some(),
        holder: live.map(|lease| lease.holder),
        attempt,
        at_byte: piece.at_byte,
        text: piece.text,
    })
}

fn part_of(platform: Option<&Platform>) -> String {
    platform.map(ToString::to_string).unwrap_or_default()
}

/// Forgets what a build printed, in the turn that ends it.
pub(crate) async fn forget(conn: &mut Conn, ended: &Holding) -> Result<(), EngineError> {
    let part = part_of(ended.platform.as_ref());
    Ok(live_log::forget(conn, &ended.component, ended.number, &part).await?)
}

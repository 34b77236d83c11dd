//! Limits: what one client may take of the server.
//!
//! How many upload sessions it may have open, how long they lie there when nobody goes on, how slowly a body may come, how much
//! of the disk stays free. A limit says no before anything is lost: a session that exists keeps what it has, and reads go on.
//! Owns who opened which session, in memory; never looks at what is uploaded.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::HeaderValue;
use http::header::RETRY_AFTER;
use http_body::Body as _;
use semel_oci::error::ErrorCode;
use semel_store::blobs::{BlobError, Blobs, Space};
use tokio::time::Instant;

use crate::App;
use crate::error::Refusal;

/// After how many seconds a client with too many uploads may ask again.
const RETRY_SECONDS: u16 = 60;
/// How long the server waits for a body in sum before its rate counts, and then again and again.
const STRETCH: Duration = Duration::from_secs(60);
/// After how many bytes of a body the disk is looked at again.
const LOOK_BYTES: u64 = 64 * 1024 * 1024;
/// How long nobody must have gone on with a session before it gives way to a new one of a client that has as many as it may.
const GIVES_WAY: Duration = Duration::from_secs(60 * 60);
/// How often idle sessions are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What one client may take of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many upload sessions an address may have open; one more takes the place of one that nobody went on with for an
    /// hour, or is answered 429 `TOOMANYREQUESTS`. On loopback, all programs of the machine are one client. 256 by default.
    pub uploads_per_client: usize,
    /// How long an upload session may lie idle before it is removed. 24 hours by default.
    pub upload_ttl: Duration,
    /// What of the disk stays free; an upload that would take it is answered 507.
    pub reserve: Reserve,
    /// How long a client may send nothing in the middle of a body; then 408. 60 seconds by default.
    pub body_silence: Duration,
    /// How many bytes a second a body must bring on average over each minute in which the server waited for it; else 408.
    /// 1 KiB by default: less than any line in use, and enough to end who sends a byte now and then.
    pub body_bytes_per_second: u64,
    /// How long a client may take none of an answer that is there for it; then the connection ends. 5 minutes by default.
    pub read_silence: Duration,
}

/// What of a disk stays free for the ledger: the smaller of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// So many bytes.
    pub bytes: u64,
    /// So many hundredths of the disk.
    pub percent: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uploads_per_client: 256,
            upload_ttl: Duration::from_secs(24 * 60 * 60),
            reserve: Reserve { bytes: 1024 * 1024 * 1024, percent: 5 },
            body_silence: Duration::from_secs(60),
            body_bytes_per_second: 1024,
            read_silence: Duration::from_secs(5 * 60),
        }
    }
}

impl Reserve {
    /// Whether a disk has more free than what stays free, after so many bytes more.
    fn leaves_room(self, space: Space, more_bytes: u64) -> bool {
        let share = u128::from(space.size_bytes) * u128::from(self.percent) / 100;
        let free = u128::from(space.free_bytes.saturating_sub(more_bytes));
        free > share.min(u128::from(self.bytes))
    }
}

/// Who sends a request, as far as the connection tells. A header says nothing: anybody can write one.
///
/// Goes with the request as an extension; without it, the request comes from inside this process and is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// The client at an address. An IPv6 client has 2^64 addresses; what it has in common is their first half.
    pub fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            canonical => Self(canonical),
        }
    }
}

/// Which sessions each client opened. Those that have ended are looked for only when a client seems to have too many, and
/// in the hourly sweep. Each process counts for itself, and a restart forgets who opened what; the time to live does not.
#[derive(Debug, Default)]
pub(crate) struct OpenUploads(Mutex<HashMap<Client, HashSet<String>>>);

impl OpenUploads {
    /// Begins a session, unless its client has as many as it may, and has gone on with each of them not long ago.
    fn begin(
        &self,
        client: Client,
        most: usize,
        blobs: &Blobs,
        idle_since: SystemTime,
    ) -> Result<String, Refusal> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = clients.entry(client).or_default();
        if open.len() >= most {
            open.retain(|id| is_open(blobs, id));
        }
        if open.len() >= most {
            // On loopback, a client is everybody: what one of them left must not be in the way of all others.
            let Some(gone) = blobs.remove_most_idle(open.iter(), idle_since)?.cloned() else {
                return Err(too_many(most));
            };
            tracing::info!(upload = gone, "An upload that nobody went on with gave way to a new one");
            open.remove(&gone);
        }
        let id = blobs.begin_upload()?;
        open.insert(id.clone());
        Ok(id)
    }

    fn forget_ended(&self, blobs: &Blobs) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, open| {
            open.retain(|id| is_open(blobs, id));
            !open.is_empty()
        });
    }
}

/// A session that cannot be looked at counts: a failing disk is no reason to open more.
fn is_open(blobs: &Blobs, id: &str) -> bool {
    !matches!(blobs.upload_size(id), Err(BlobError::UnknownUpload(_)))
}

fn too_many(most: usize) -> Refusal {
    let message = format!(
        "{most} uploads of this client are open, as many as it may have: finish some or cancel them, then try again"
    );
    Refusal::new(ErrorCode::TooManyRequests, message).header(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS))
}

/// Begins an upload session for a client, if it may have one more and the disk has room.
pub(crate) fn begin_upload(app: &App, client: Option<Client>) -> Result<String, Refusal> {
    require_room(app, 0).map_err(BlobError::Source)?;
    let blobs = app.store().blobs();
    match client {
        Some(client) => {
            let most = app.limits().uploads_per_client;
            app.open_uploads().begin(client, most, blobs, before_now(app, GIVES_WAY))
        }
        None => Ok(blobs.begin_upload()?),
    }
}

/// Only what stays free for the ledger is left of the disk.
#[derive(Debug, thiserror::Error)]
#[error("{} MiB are free, which stay free for the ledger", .free_bytes >> 20)]
struct NoRoom {
    free_bytes: u64,
}

fn require_room(app: &App, more_bytes: u64) -> io::Result<()> {
    let space = app.store().blobs().space()?;
    match app.limits().reserve.leaves_room(space, more_bytes) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::StorageFull, NoRoom { free_bytes: space.free_bytes })),
    }
}

/// The bytes of a request as they come. Silence, crawling and a disk without room for what was announced end them with an
/// error.
pub(crate) fn received(app: &App, body: Body) -> impl Stream<Item = io::Result<Bytes>> + Unpin + use<> {
    let announced = body.size_hint().lower();
    let data = body.into_data_stream();
    let begun = Receiving { app: app.clone(), data, announced, pace: Pace::default(), unlooked: 0 };
    let next = |receiving: Option<Receiving>| async move {
        let mut receiving = receiving?;
        match receiving.piece().await.transpose()? {
            Ok(piece) => Some((Ok(piece), Some(receiving))),
            Err(error) => Some((Err(error), None)),
        }
    };
    Box::pin(stream::unfold(Some(begun), next))
}

struct Receiving {
    app: App,
    data: BodyDataStream,
    /// How many bytes are to come, as far as the client said.
    announced: u64,
    pace: Pace,
    /// How many bytes may still come before the disk is looked at.
    unlooked: u64,
}

impl Receiving {
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let limits = self.app.limits();
        let begun = Instant::now();
        let Ok(next) = tokio::time::timeout(limits.body_silence, self.data.next()).await else {
            return Err(too_slow());
        };
        let Some(piece) = next.transpose().map_err(io::Error::other)? else { return Ok(None) };
        let length = piece.len() as u64;
        if self.pace.falls_behind(begun.elapsed(), length, limits.body_bytes_per_second) {
            return Err(too_slow());
        }
        self.look_at_disk(length)?;
        self.announced = self.announced.saturating_sub(length);
        Ok(Some(piece))
    }

    fn look_at_disk(&mut self, length: u64) -> io::Result<()> {
        if self.unlooked >= length {
            self.unlooked -= length;
            return Ok(());
        }
        self.unlooked = LOOK_BYTES;
        require_room(&self.app, self.announced.max(length))
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the body comes too slowly")
}

/// How fast a body comes. What the server itself takes to write is not the client's time.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts a piece, and says at the end of each stretch whether too little came in it.
    fn falls_behind(&mut self, waited: Duration, bytes: u64, bytes_per_second: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < STRETCH {
            return false;
        }
        let stretch = std::mem::take(self);
        u128::from(stretch.bytes) * 1_000 < u128::from(bytes_per_second) * stretch.waited.as_millis()
    }
}

/// Removes what nobody goes on with, now and every hour, until it is dropped.
pub(crate) async fn sweep_forever(app: App) {
    let mut hourly = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        hourly.tick().await;
        let app = app.clone();
        drop(tokio::task::spawn_blocking(move || sweep(&app)).await);
    }
}

fn before_now(app: &App, span: Duration) -> SystemTime {
    SystemTime::from(app.now()).checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn sweep(app: &App) {
    let blobs = app.store().blobs();
    match blobs.remove_idle_uploads(before_now(app, app.limits().upload_ttl)) {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => tracing::info!(removed = removed.len(), "Removed uploads that nobody went on with"),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "Idle uploads stay"),
    }
    app.open_uploads().forget_ended(blobs);
}

/// Lets the system end a connection whose client takes nothing of what was sent to it: otherwise an answer that nobody reads
/// keeps its connection for ever.
#[cfg(target_os = "linux")]
pub(crate) fn end_when_unread(stream: &tokio::net::TcpStream, limits: &Limits) {
    let millis = u32::try_from(limits.read_silence.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
        tracing::debug!(%error, "A connection may stay unread for ever");
    }
}

/// Elsewhere the system's own patience decides.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_when_unread(_stream: &tokio::net::TcpStream, _limits: &Limits) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_the_smaller_of_bytes_and_share() {
        let gib = |n: u64| n << 30;
        let reserve = Limits::default().reserve;
        let cases = [
            (gib(100), gib(1), false),
            (gib(100), gib(1) + 1, true),
            (gib(10), gib(10) / 20, false),
            (gib(10), gib(10) / 20 + 1, true),
            (u64::MAX, gib(2), true),
            (0, 0, false),
        ];
        for (size_bytes, free_bytes, room) in cases {
            let space = Space { size_bytes, free_bytes };
            assert_eq!(reserve.leaves_room(space, 0), room, "{space:?}");
        }
        let space = Space { size_bytes: gib(100), free_bytes: gib(3) };
        for (more_bytes, room) in [(gib(2) - 1, true), (gib(2), false), (u64::MAX, false)] {
            assert_eq!(reserve.leaves_room(space, more_bytes), room, "{more_bytes} more");
        }
    }

    #[test]
    fn a_client_is_an_address_or_half_of_one() {
        let client = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.2"), client("192.0.2.1"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn a_body_falls_behind_in_any_stretch_however_fast_it_began() {
        let mut pace = Pace::default();
        assert!(!pace.falls_behind(Duration::from_secs(60), 1 << 30, 1024));
        assert!(!pace.falls_behind(Duration::from_secs(59), 1, 1024), "the stretch is not over");
        assert!(pace.falls_behind(Duration::from_secs(1), 1, 1024));
        let mut steady = Pace::default();
        assert!((0..600).all(|_| !steady.falls_behind(Duration::from_secs(1), 1024, 1024)));
    }

    /// What the system does with it is told in tcp(7).
    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_connection_whose_answer_nobody_takes_has_an_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let (server, _) = accepted.unwrap();
        end_when_unread(&server, &Limits::default());
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&server).unwrap(), 300_000);
        drop(client);
    }
}

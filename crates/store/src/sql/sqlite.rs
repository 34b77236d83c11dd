//! SQLite, in this process.
//!
//! A statement of the store takes a few microseconds, and handing it to another thread takes longer than that: so a statement
//! runs on the thread that asks. What waits for the disk or for another process (opening, the end of a transaction, a
//! migration, a copy) goes to a thread that may wait.
//!
//! Where the file system is mounted read-only there is no place for what readers of a write-ahead log share. A database without
//! such a log is read as it lies there.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::types::Value as Cell;
use rusqlite::{ErrorCode, MAIN_DB, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{DriverError, STATEMENTS, Value};
use crate::lock::is_read_only;

/// How many connections read at once.
const READERS: u32 = 4;
/// After how many pages (of 4 KiB) in the write-ahead log they are carried over to the database. Indexes over digests are
/// written at random: the longer the log, the more often the same page is carried over but once.
const WAL_PAGES: u32 = 4096;
/// How long another process is waited for that has the database locked.
const BUSY: Duration = Duration::from_secs(30);
/// How long passes until it is asked again where SQLite does not wait by itself.
const AGAIN: Duration = Duration::from_millis(2);

/// A connection. One of [`Readers`] goes back to them, unless it is in a transaction.
#[derive(Debug)]
pub(super) struct Connection {
    /// None: whoever worked with it was not waited for.
    raw: Option<rusqlite::Connection>,
    place: Option<Place>,
}

/// A reader's place, kept as long as it reads.
#[derive(Debug)]
struct Place {
    readers: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Opens the database in a file, which is created when it is not there.
    pub(super) async fn open(file: &Path) -> Result<Self, DriverError> {
        let file = file.to_owned();
        let raw = tokio::task::spawn_blocking(move || open(&file)).await??;
        Ok(Self { raw: Some(raw), place: None })
    }

    /// A database in memory.
    pub(super) fn in_memory() -> Result<Self, DriverError> {
        Ok(Self { raw: Some(rusqlite::Connection::open_in_memory()?), place: None })
    }

    fn raw(&self) -> Result<&rusqlite::Connection, DriverError> {
        self.raw.as_ref().ok_or(DriverError::BrokenOff)
    }

    /// The first rows that a statement selects, at most `limit`.
    pub(super) fn select(
        &self,
        statement: &str,
        values: &[Value],
        limit: usize,
    ) -> Result<Vec<Vec<Cell>>, DriverError> {
        Ok(select(self.raw()?, statement, values, limit)?)
    }

    /// Runs a statement and says how many rows it changed.
    pub(super) fn execute(&self, statement: &str, values: &[Value]) -> Result<u64, DriverError> {
        let mut prepared = self.raw()?.prepare_cached(statement)?;
        bind(&mut prepared, values)?;
        Ok(prepared.raw_execute()? as u64)
    }

    /// Runs statements that wait for nobody.
    pub(super) fn script(&self, statements: &str) -> Result<(), DriverError> {
        Ok(self.raw()?.execute_batch(statements)?)
    }

    /// Begins a transaction. Nobody waits for a thread unless another process has the database locked.
    pub(super) async fn begin(&mut self, statement: &'static str) -> Result<(), DriverError> {
        let raw = self.raw()?;
        raw.busy_timeout(Duration::ZERO)?;
        let begun = raw.execute_batch(statement);
        raw.busy_timeout(BUSY)?;
        match begun {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                self.waiting(move |raw| raw.execute_batch(statement)).await
            }
            other => Ok(other?),
        }
    }

    /// Does what waits for the disk or for others on a thread that may wait.
    pub(super) async fn waiting<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DriverError> {
        let raw = self.raw.take().ok_or(DriverError::BrokenOff)?;
        let (raw, done) = tokio::task::spawn_blocking(move || {
            let done = work(&raw);
            (raw, done)
        })
        .await?;
        self.raw = Some(raw);
        Ok(done?)
    }

    /// Closes the connection; that of a reader goes back.
    pub(super) async fn close(mut self) -> Result<(), DriverError> {
        if self.place.is_some() {
            return Ok(());
        }
        let Some(raw) = self.raw.take() else { return Ok(()) };
        Ok(tokio::task::spawn_blocking(move || raw.close().map_err(|(_, error)| error)).await??)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (Some(raw), Some(place)) = (self.raw.take(), &self.place) else { return };
        // One in the middle of a transaction is closed, which gives that up; and one that cannot write is opened anew, for it
        // does not hear of those who can.
        let is_lasting = raw.is_autocommit() && raw.is_readonly(MAIN_DB) == Ok(false);
        if is_lasting && !place.readers.places.is_closed() {
            place.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(raw);
        }
    }
}

/// Connections for reading, which are opened when they are first needed.
#[derive(Debug, Clone)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<rusqlite::Connection>>,
}

impl Readers {
    /// Readers of the database in a file.
    pub(super) fn of(file: &Path) -> Self {
        let places = Arc::new(Semaphore::new(READERS as usize));
        Self(Arc::new(Shared { file: file.to_owned(), places, idle: Mutex::default() }))
    }

    /// The file of the database.
    pub(super) fn file(&self) -> &Path {
        &self.0.file
    }

    /// Waits for a connection that nobody reads with.
    pub(super) async fn acquire(&self) -> Result<Connection, DriverError> {
        let permit = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| DriverError::Closed)?;
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut conn = match idle {
            Some(raw) => Connection { raw: Some(raw), place: None },
            None => Connection::open(&self.0.file).await?,
        };
        conn.place = Some(Place { readers: Arc::clone(&self.0), _permit: permit });
        Ok(conn)
    }

    /// Waits until nobody reads any more, and closes all connections.
    pub(super) async fn close(&self) {
        // Closed before: nothing is left to do.
        let Ok(_all) = self.0.places.acquire_many(READERS).await else { return };
        self.0.places.close();
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn open(file: &Path) -> rusqlite::Result<rusqlite::Connection> {
    match open_among_others(file) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && lies_still(file) => {
            open_as_it_lies(file)
        }
        opened => opened,
    }
}

/// Whether nobody changes a database: it is mounted read-only here, and who wrote to it elsewhere would have a log.
fn lies_still(file: &Path) -> bool {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let has_log = Path::new(&log).try_exists().unwrap_or(true);
    !has_log && is_read_only(file)
}

/// Opens a database for reading that nobody changes (SQLite, `immutable=1`).
fn open_as_it_lies(file: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let escaped = file.as_os_str().as_bytes().iter().map(|byte| match is_plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    let uri = format!("file:{}?immutable=1", escaped.collect::<String>());
    let raw = rusqlite::Connection::open_with_flags(uri, flags)?;
    raw.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(raw)
}

fn open_among_others(file: &Path) -> rusqlite::Result<rusqlite::Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let raw = rusqlite::Connection::open_with_flags(file, flags)?;
    raw.busy_timeout(BUSY)?;
    keep_write_ahead_log(&raw)?;
    raw.pragma_update(None, "synchronous", "FULL")?;
    raw.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    raw.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(raw)
}

/// Lets the database write ahead. SQLite waits for nobody there: of several that open a new database at once, those are told
/// that it is locked who meet the one that changes it.
fn keep_write_ahead_log(raw: &rusqlite::Connection) -> rusqlite::Result<()> {
    let began = Instant::now();
    loop {
        match raw.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && began.elapsed() < BUSY =>
            {
                thread::sleep(AGAIN);
            }
            other => return other,
        }
    }
}

/// As [`Connection::select`].
pub(super) fn select(
    raw: &rusqlite::Connection,
    statement: &str,
    values: &[Value],
    limit: usize,
) -> rusqlite::Result<Vec<Vec<Cell>>> {
    let mut prepared = raw.prepare_cached(statement)?;
    bind(&mut prepared, values)?;
    let columns = prepared.column_count();
    let (mut found, mut rows) = (Vec::new(), prepared.raw_query());
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        found.push((0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?);
    }
    Ok(found)
}

/// Binds values by the numbers of the parameters: to SQLite, `$1` is a name, and its place is that of its first occurrence.
fn bind(prepared: &mut rusqlite::Statement<'_>, values: &[Value]) -> rusqlite::Result<()> {
    for place in 1..=prepared.parameter_count() {
        let number =
            prepared.parameter_name(place).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
        let value = number.and_then(|number| values.get(number.checked_sub(1)?));
        match value.ok_or(rusqlite::Error::InvalidParameterCount(values.len(), place))? {
            Value::Text(text) => prepared.raw_bind_parameter(place, super::without_zero(text))?,
            Value::Int(number) => prepared.raw_bind_parameter(place, number)?,
            Value::Null => prepared.raw_bind_parameter(place, rusqlite::types::Null)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn whoever_comes_first_creates_the_database_and_the_others_wait() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("semel.db");
            let together = Barrier::new(8);
            thread::scope(|scope| {
                let all: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            together.wait();
                            open(&file)
                        })
                    })
                    .collect();
                for opened in all {
                    let raw = opened.join().unwrap().unwrap();
                    let mode: String =
                        raw.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
                    assert_eq!(mode, "wal");
                }
            });
        }
    }
}

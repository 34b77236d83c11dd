//! The only code that knows the database drivers.
//!
//! Values are text, 64-bit integers and nothing else, and every statement is a constant: one SQL text serves SQLite and
//! PostgreSQL. Everything else sees [`Conn`], [`Value`] and [`Row`]. What the two do not share (how a turn begins, how the
//! tables are listed, how text compares) is in `Conn::begin`, `Conn::tables` and `Conn::define`.

mod sqlite;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rusqlite::types::Value as Cell;
use sqlx::encode::IsNull;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, PgTypeInfo,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Postgres, Row as _, SqlSafeStr};

/// How many prepared statements a connection keeps: all that the store has.
const STATEMENTS: usize = 512;

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SqlError {
    what: String,
    is_away: bool,
    is_disk_full: bool,
    #[source]
    source: Box<DriverError>,
}

/// What a driver says.
#[derive(Debug, thiserror::Error)]
enum DriverError {
    /// SQLite.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// The thread that waited was stopped.
    #[error("the thread that waited for the disk was stopped")]
    Stopped(#[from] tokio::task::JoinError),
    /// Somebody else began to work with the connection and went away.
    #[error("the connection was given up in the middle of a statement")]
    BrokenOff,
    /// The store was closed.
    #[error("the database was closed")]
    Closed,
}

impl SqlError {
    fn of(statement: &str, source: impl Into<DriverError>) -> Self {
        let source = source.into();
        let shown: String =
            statement.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(90).collect();
        let (is_away, is_disk_full) = (is_lost(&source), is_disk_full(&source));
        let said = match is_away {
            true => "the connection to the database was lost at",
            false => "the database refused",
        };
        Self { what: format!("{said} `{shown}`"), is_away, is_disk_full, source: Box::new(source) }
    }

    fn connecting(to: &impl fmt::Display, source: sqlx::Error) -> Self {
        let source = Box::new(source.into());
        let what = format!("cannot connect to the database {to}");
        Self { what, is_away: true, is_disk_full: false, source }
    }

    /// Whether the file of the database is damaged, or no database.
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self.sqlite_code(), Some(DatabaseCorrupt | NotADatabase))
    }

    /// Whether the file of the database, or one beside it, could not be opened.
    pub(crate) fn is_closed(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, ReadOnly};
        matches!(self.sqlite_code(), Some(CannotOpen | ReadOnly))
    }

    fn sqlite_code(&self) -> Option<rusqlite::ErrorCode> {
        match &*self.source {
            DriverError::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// Whether the database could not be reached, so that the same may succeed later.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    /// Whether the database's disk has no room.
    pub fn is_disk_full(&self) -> bool {
        self.is_disk_full
    }
}

/// Whether the connection is gone, so that asking the same again needs a new one.
///
/// The codes are PostgreSQL's, appendix A: class 08 (connection exception), 57P01 to 57P03 (the server goes down).
fn is_lost(error: &DriverError) -> bool {
    match error {
        DriverError::Postgres(sqlx::Error::Io(_)) => true,
        DriverError::Postgres(sqlx::Error::Database(error)) => error.code().is_some_and(|code| {
            code.starts_with("08") || ["57P01", "57P02", "57P03"].contains(&code.as_ref())
        }),
        _ => false,
    }
}

/// PostgreSQL says it by code 53100 (its appendix A).
fn is_disk_full(error: &DriverError) -> bool {
    match error {
        DriverError::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
        DriverError::Postgres(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| code == "53100")
        }
        _ => false,
    }
}

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Int(i64),
    /// Nothing.
    Null,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// What is recorded stays far below 2^63. Who asks for what lies behind that, asks for what is not there.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Makes a value of anything that is shown as text: digests, names, versions, times.
pub fn text(value: &impl ToString) -> Value {
    Value::Text(value.to_string())
}

/// As [`text`], for what may be absent.
pub fn opt_text(value: Option<&impl ToString>) -> Value {
    value.map(ToString::to_string).into()
}

/// PostgreSQL has no text with this character. The ledger's own bytes are JSON, where it is written otherwise.
fn without_zero(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

/// A parameter that says nothing, not even of which type it is: the column decides.
struct Nothing;

/// The pseudo-type `unknown` of PostgreSQL's `pg_type`, which a parameter has whose type is to be inferred.
const UNKNOWN: Oid = Oid(705);

impl sqlx::Type<Postgres> for Nothing {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(UNKNOWN)
    }
}

impl sqlx::Encode<'_, Postgres> for Nothing {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        Ok(IsNull::Yes)
    }
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

fn bind<'q>(query: Query<'q>, values: &'q [Value]) -> Query<'q> {
    values.iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(without_zero(text)),
        Value::Int(number) => query.bind(*number),
        Value::Null => query.bind(Nothing),
    })
}

/// One row of an answer. Asking for a column that is not there, or as the wrong type, is a defect of the program.
#[derive(Debug)]
pub struct Row(Answer);

#[derive(Debug)]
enum Answer {
    Sqlite(Vec<Cell>),
    Postgres(PgRow),
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self(Answer::Sqlite(cells))
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Self(Answer::Postgres(row))
    }
}

impl Row {
    /// A text column.
    pub fn text(&self, index: usize) -> String {
        self.opt_text(index).expect("the statement selects text here")
    }

    /// A text column that may be null.
    pub fn opt_text(&self, index: usize) -> Option<String> {
        match &self.0 {
            Answer::Sqlite(cells) => match &cells[index] {
                Cell::Text(text) => Some(text.clone()),
                Cell::Null => None,
                other => panic!("the statement selects text here, not {other:?}"),
            },
            Answer::Postgres(row) => row.try_get(index).expect("the statement selects text here"),
        }
    }

    /// A number.
    pub fn int(&self, index: usize) -> i64 {
        self.opt_int(index).expect("the statement selects a number here")
    }

    fn opt_int(&self, index: usize) -> Option<i64> {
        match &self.0 {
            Answer::Sqlite(cells) => match &cells[index] {
                Cell::Integer(number) => Some(*number),
                Cell::Null => None,
                other => panic!("the statement selects a number here, not {other:?}"),
            },
            Answer::Postgres(row) => row.try_get(index).expect("the statement selects a number here"),
        }
    }

    /// A number that is never negative.
    pub fn count(&self, index: usize) -> u64 {
        u64::try_from(self.int(index)).expect("counts are never negative")
    }

    /// Such a number, which may be null.
    pub fn opt_count(&self, index: usize) -> Option<u64> {
        self.opt_int(index).map(|number| u64::try_from(number).expect("counts are never negative"))
    }

    /// The whole row as one line of text, for comparing tables.
    pub fn line(&self) -> String {
        let columns: Vec<Option<String>> = match &self.0 {
            Answer::Sqlite(cells) => cells.iter().map(shown).collect(),
            Answer::Postgres(row) => (0..row.columns().len())
                .map(|index| row.try_get(index).unwrap_or_else(|_| Some(self.int(index).to_string())))
                .collect(),
        };
        let escaped = columns.into_iter().map(|column| {
            column.map_or_else(
                || "\\N".to_owned(),
                |shown| shown.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n"),
            )
        });
        escaped.collect::<Vec<_>>().join("\t")
    }
}

/// A cell as text, unless it is null.
fn shown(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Text(text) => Some(text.clone()),
        Cell::Integer(number) => Some(number.to_string()),
        other => panic!("no table has a column of another type: {other:?}"),
    }
}

/// Which of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A file of this machine.
    Sqlite,
    /// A server.
    Postgres,
}

/// One connection.
#[derive(Debug)]
pub struct Conn(Line);

#[derive(Debug)]
enum Line {
    Sqlite(sqlite::Connection),
    Postgres(Box<Remote>),
}

/// A connection that is nobody else's, or one that goes back to its pool.
#[derive(Debug)]
enum Held {
    Owned(PgConnection),
    Pooled(sqlx::pool::PoolConnection<Postgres>),
}

impl Held {
    fn raw(&mut self) -> &mut PgConnection {
        match self {
            Self::Owned(conn) => conn,
            Self::Pooled(conn) => conn,
        }
    }

    /// Nobody gets a pooled connection that may still be in a transaction.
    fn never_give_back(&mut self) {
        if let Self::Pooled(conn) = self {
            conn.close_on_drop();
        }
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Owned(conn) => conn.close().await,
            Self::Pooled(_) => Ok(()),
        }
    }
}

/// A connection to a server, which may be lost and made anew as long as no transaction depends on it.
#[derive(Debug)]
struct Remote {
    held: Held,
    to: DatabaseUrl,
    in_transaction: bool,
}

impl Remote {
    fn new(held: Held, to: &DatabaseUrl) -> Self {
        Self { held, to: to.clone(), in_transaction: false }
    }

    /// Whether the same may be asked again over a new connection: nothing was begun, so nothing can be half done.
    fn may_begin_again(&self, error: &DriverError) -> bool {
        !self.in_transaction && is_lost(error)
    }

    async fn select(
        &mut self,
        statement: impl SqlSafeStr,
        values: &[Value],
    ) -> Result<Vec<Row>, DriverError> {
        let rows = bind(sqlx::query(statement), values).fetch_all(self.held.raw()).await?;
        Ok(rows.into_iter().map(Row::from).collect())
    }

    async fn run(&mut self, statements: impl SqlSafeStr) -> Result<(), DriverError> {
        Ok(sqlx::raw_sql(statements).execute(self.held.raw()).await.map(drop)?)
    }

    async fn end<T: Send + 'static>(
        &mut self,
        statement: &'static str,
        then: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        self.run(statement).await?;
        self.in_transaction = false;
        Ok(tokio::task::spawn_blocking(then).await?)
    }

    async fn reconnect(&mut self) -> Result<(), SqlError> {
        self.held = Held::Owned(self.to.connect().await?);
        Ok(())
    }
}

impl Conn {
    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        match self.0 {
            Line::Sqlite(_) => Dialect::Sqlite,
            Line::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The rows that a statement selects. Outside of a transaction, a lost connection is replaced once.
    pub async fn rows(&mut self, statement: &'static str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        let mut rows = self.select(statement, values).await;
        if self.replaced(&rows).await? {
            rows = self.select(statement, values).await;
        }
        rows.map_err(|error| SqlError::of(statement, error))
    }

    /// The first row that a statement selects. Outside of a transaction, a lost connection is replaced once.
    pub async fn row(&mut self, statement: &'static str, values: &[Value]) -> Result<Option<Row>, SqlError> {
        let mut row = self.select_first(statement, values).await;
        if self.replaced(&row).await? {
            row = self.select_first(statement, values).await;
        }
        row.map_err(|error| SqlError::of(statement, error))
    }

    async fn select(&mut self, statement: &'static str, values: &[Value]) -> Result<Vec<Row>, DriverError> {
        match &mut self.0 {
            Line::Sqlite(conn) => {
                Ok(conn.select(statement, values, usize::MAX)?.into_iter().map(Row::from).collect())
            }
            Line::Postgres(remote) => remote.select(statement, values).await,
        }
    }

    async fn select_first(
        &mut self,
        statement: &'static str,
        values: &[Value],
    ) -> Result<Option<Row>, DriverError> {
        match &mut self.0 {
            Line::Sqlite(conn) => Ok(conn.select(statement, values, 1)?.pop().map(Row::from)),
            Line::Postgres(remote) => {
                let row = bind(sqlx::query(statement), values).fetch_optional(remote.held.raw()).await?;
                Ok(row.map(Row::from))
            }
        }
    }

    /// Makes a lost connection anew where nothing depends on the old one. Says whether it did.
    async fn replaced<T>(&mut self, outcome: &Result<T, DriverError>) -> Result<bool, SqlError> {
        match (&mut self.0, outcome) {
            (Line::Postgres(remote), Err(error)) if remote.may_begin_again(error) => {
                remote.reconnect().await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Runs a statement and says how many rows it changed. Never repeated: whether a lost statement took effect is unknown.
    pub async fn execute(&mut self, statement: &'static str, values: &[Value]) -> Result<u64, SqlError> {
        let done = match &mut self.0 {
            Line::Sqlite(conn) => conn.execute(statement, values),
            Line::Postgres(remote) => {
                let done = bind(sqlx::query(statement), values).execute(remote.held.raw()).await;
                done.map(|done| done.rows_affected()).map_err(DriverError::from)
            }
        };
        done.map_err(|error| SqlError::of(statement, error))
    }

    /// Says whether what is committed from now on must survive the loss of power, or only that of the process.
    pub(crate) async fn commit_to_disk(&mut self, to_disk: bool) -> Result<(), SqlError> {
        self.script(match (self.dialect(), to_disk) {
            // Copying the journal into the database waits for the disk: that is left to those who wait for it anyway, as long
            // as there are any.
            (Dialect::Sqlite, true) => "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 1000",
            (Dialect::Sqlite, false) => "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000",
            (Dialect::Postgres, true) => "SET synchronous_commit = on",
            (Dialect::Postgres, false) => "SET synchronous_commit = off",
        })
        .await
    }

    /// Runs several statements without parameters, which wait for nobody.
    pub async fn script(&mut self, statements: &'static str) -> Result<(), SqlError> {
        let done = match &mut self.0 {
            Line::Sqlite(conn) => conn.script(statements),
            Line::Postgres(remote) => remote.run(statements).await,
        };
        done.map_err(|error| SqlError::of(statements, error))
    }

    /// Runs a migration. Text compares byte by byte in SQLite; in PostgreSQL it would compare as the database's language
    /// does, unless the column says otherwise.
    pub(crate) async fn define(&mut self, migration: &'static str) -> Result<(), SqlError> {
        let done = match &mut self.0 {
            Line::Sqlite(conn) => conn.waiting(move |raw| raw.execute_batch(migration)).await,
            Line::Postgres(remote) => {
                let bytewise = migration.replace(" TEXT", " TEXT COLLATE \"C\"");
                remote.run(AssertSqlSafe(bytewise)).await
            }
        };
        done.map_err(|error| SqlError::of(migration, error))
    }

    /// The names of the tables, in order.
    pub async fn tables(&mut self) -> Result<Vec<String>, SqlError> {
        let statement = match self.dialect() {
            Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
            Dialect::Postgres => {
                "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
            }
        };
        Ok(self.rows(statement, &[]).await?.into_iter().map(|row| row.text(0)).collect())
    }

    /// All rows of a declared table in the order of its key, as lines. The names come from `schema::TABLES` alone.
    pub(crate) async fn dump(
        &mut self,
        table: &'static str,
        key: &'static str,
    ) -> Result<Vec<String>, SqlError> {
        let statement = format!("SELECT * FROM {table} ORDER BY {key}");
        let (asked, whole) = (statement.clone(), usize::MAX);
        let rows: Result<Vec<Row>, DriverError> = match &mut self.0 {
            Line::Sqlite(conn) => {
                let cells = conn.waiting(move |raw| sqlite::select(raw, &asked, &[], whole)).await;
                cells.map(|cells| cells.into_iter().map(Row::from).collect())
            }
            Line::Postgres(remote) => remote.select(AssertSqlSafe(asked), &[]).await,
        };
        Ok(rows.map_err(|error| SqlError::of(&statement, error))?.iter().map(Row::line).collect())
    }

    /// Empties a declared table.
    pub(crate) async fn clear(&mut self, table: &'static str) -> Result<(), SqlError> {
        let statement = format!("DELETE FROM {table}");
        let asked = statement.clone();
        let done = match &mut self.0 {
            Line::Sqlite(conn) => conn.waiting(move |raw| raw.execute_batch(&asked)).await,
            Line::Postgres(remote) => remote.run(AssertSqlSafe(asked)).await,
        };
        done.map_err(|error| SqlError::of(&statement, error))
    }

    /// Begins a transaction that will write, when it is its turn: in PostgreSQL, writers of all processes queue at the one
    /// row of the table `turn`, and each sees what the one before it committed.
    pub async fn begin(&mut self) -> Result<(), SqlError> {
        self.begin_with("BEGIN IMMEDIATE", "BEGIN; UPDATE turn SET number = number + 1").await
    }

    /// Begins a transaction in which every read sees what the first one saw.
    pub async fn begin_reading(&mut self) -> Result<(), SqlError> {
        self.begin_with("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// Begins a transaction that makes tables, before there is a `turn` to queue at. The number of the lock is "semel" in
    /// ASCII.
    pub(crate) async fn begin_defining(&mut self) -> Result<(), SqlError> {
        self.begin_with("BEGIN IMMEDIATE", "BEGIN; SELECT pg_advisory_xact_lock(495622907244)").await
    }

    async fn begin_with(&mut self, sqlite: &'static str, postgres: &'static str) -> Result<(), SqlError> {
        let statement = match self.dialect() {
            Dialect::Sqlite => sqlite,
            Dialect::Postgres => postgres,
        };
        let mut begun = self.run_begin(statement).await;
        if self.replaced(&begun).await? {
            begun = self.run_begin(statement).await;
        }
        begun.map_err(|error| SqlError::of(statement, error))?;
        if let Line::Postgres(remote) = &mut self.0 {
            remote.held.never_give_back();
            remote.in_transaction = true;
        }
        Ok(())
    }

    async fn run_begin(&mut self, statement: &'static str) -> Result<(), DriverError> {
        match &mut self.0 {
            Line::Sqlite(conn) => conn.begin(statement).await,
            Line::Postgres(remote) => remote.run(statement).await,
        }
    }

    /// Makes the transaction durable.
    pub async fn commit(&mut self) -> Result<(), SqlError> {
        self.commit_then(|| ()).await
    }

    /// Makes the transaction durable, and then does something else that waits for the disk.
    pub(crate) async fn commit_then<T: Send + 'static>(
        &mut self,
        then: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        self.end("COMMIT", then).await
    }

    /// Ends a transaction that need not be on the disk (see [`Conn::commit_to_disk`]).
    pub(crate) async fn commit_relaxed(&mut self) -> Result<(), SqlError> {
        match &mut self.0 {
            Line::Sqlite(conn) => conn.script("COMMIT").map_err(|error| SqlError::of("COMMIT", error)),
            Line::Postgres(_) => self.commit().await,
        }
    }

    /// Gives the transaction up.
    pub async fn rollback(&mut self) -> Result<(), SqlError> {
        self.end("ROLLBACK", || ()).await
    }

    async fn end<T: Send + 'static>(
        &mut self,
        statement: &'static str,
        then: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        let ended = match &mut self.0 {
            Line::Sqlite(conn) => {
                conn.waiting(move |raw| raw.execute_batch(statement).map(|()| then())).await
            }
            Line::Postgres(remote) => remote.end(statement, then).await,
        };
        ended.map_err(|error| SqlError::of(statement, error))
    }

    /// Closes the connection; a pooled one goes back to its pool.
    pub async fn close(self) -> Result<(), SqlError> {
        let closed = match self.0 {
            Line::Sqlite(conn) => conn.close().await,
            Line::Postgres(remote) => remote.held.close().await.map_err(DriverError::from),
        };
        closed.map_err(|error| SqlError::of("(close)", error))
    }

    /// Whether every page of a database that is a file is as it should be.
    pub(crate) async fn has_whole_pages(&mut self) -> Result<bool, SqlError> {
        Ok(self.row("PRAGMA integrity_check(1)", &[]).await?.is_some_and(|row| row.text(0) == "ok"))
    }

    /// Writes a consistent copy of a database that is a file to a new file. Says whether it is one.
    pub(crate) async fn copy_to(&mut self, file: &Path) -> Result<bool, SqlError> {
        let Line::Sqlite(conn) = &mut self.0 else { return Ok(false) };
        let name = file.to_string_lossy().into_owned();
        let done = conn.waiting(move |raw| raw.execute("VACUUM INTO ?1", [name])).await;
        done.map(|_| true).map_err(|error| SqlError::of("VACUUM INTO", error))
    }
}

/// Which PostgreSQL database: `postgres://USER@HOST/NAME`, with the parameters of libpq (`?host=/run/postgresql`,
/// `?sslmode=verify-full`, `?options=-csearch_path=semel`). What it does not say comes from `PGHOST`, `PGPASSWORD`,
/// `~/.pgpass` and so on, as for every client of PostgreSQL. Shown without its password.
#[derive(Clone)]
pub struct DatabaseUrl {
    options: PgConnectOptions,
    has_password: bool,
}

/// A text is no [`DatabaseUrl`]. The text, which may hold a password, is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// It begins otherwise.
    #[error("a database is named as postgres://USER@HOST/NAME")]
    Scheme,
    /// A part of it makes no sense.
    #[error("the name of the database, postgres://…, makes no sense")]
    Parts(#[source] sqlx::Error),
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let has_password = holds_password(rest.ok_or(InvalidDatabaseUrl::Scheme)?);
        let mut options: PgConnectOptions = text.parse().map_err(InvalidDatabaseUrl::Parts)?;
        if !text.contains("statement-cache-capacity=") {
            options = options.statement_cache_capacity(STATEMENTS);
        }
        let options = options.application_name("semel").disable_statement_logging();
        Ok(Self { options, has_password })
    }
}

fn holds_password(rest: &str) -> bool {
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || query.split('&').any(|parameter| parameter.starts_with("password="))
}

impl DatabaseUrl {
    /// Whether its text held a password.
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    async fn connect(&self) -> Result<sqlx::PgConnection, SqlError> {
        self.options.connect().await.map_err(|error| SqlError::connecting(self, error))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        write!(f, "postgres://{}@", options.get_username())?;
        match options.get_socket() {
            Some(socket) => write!(f, "{}:{}", socket.display(), options.get_port())?,
            None => write!(f, "{}:{}", options.get_host(), options.get_port())?,
        }
        write!(f, "/{}", options.get_database().unwrap_or(options.get_username()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// A database: readers from a pool, and connections of one's own for writing.
#[derive(Debug, Clone)]
pub struct Db(Source);

#[derive(Debug, Clone)]
enum Source {
    Sqlite(sqlite::Readers),
    Postgres { to: Box<DatabaseUrl>, readers: PgPool },
}

impl Db {
    /// A database in a file.
    pub fn at(file: &Path) -> Self {
        Self(Source::Sqlite(sqlite::Readers::of(file)))
    }

    /// A database of a server. A lost connection is noticed by whoever asks next, who makes a new one.
    pub fn of(to: &DatabaseUrl) -> Self {
        let readers = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(10))
            .test_before_acquire(false)
            .connect_lazy_with(to.options.clone());
        Self(Source::Postgres { to: Box::new(to.clone()), readers })
    }

    /// A connection for reading.
    pub async fn reader(&self) -> Result<Conn, SqlError> {
        match &self.0 {
            Source::Sqlite(readers) => {
                let conn = readers.acquire().await.map_err(|error| SqlError::of("(connect)", error))?;
                Ok(Conn(Line::Sqlite(conn)))
            }
            Source::Postgres { readers, to } => {
                let conn = readers.acquire().await.map_err(|error| SqlError::connecting(to, error))?;
                Ok(Conn(Line::Postgres(Box::new(Remote::new(Held::Pooled(conn), to)))))
            }
        }
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> Result<Conn, SqlError> {
        match &self.0 {
            Source::Sqlite(readers) => {
                let conn = sqlite::Connection::open(readers.file()).await;
                Ok(Conn(Line::Sqlite(conn.map_err(|error| SqlError::of("(connect)", error))?)))
            }
            Source::Postgres { to, .. } => {
                let conn = to.connect().await?;
                Ok(Conn(Line::Postgres(Box::new(Remote::new(Held::Owned(conn), to)))))
            }
        }
    }

    /// An empty database in memory.
    pub(crate) fn in_memory() -> Result<Conn, SqlError> {
        let conn = sqlite::Connection::in_memory().map_err(|error| SqlError::of("(connect)", error))?;
        Ok(Conn(Line::Sqlite(conn)))
    }

    /// Closes all readers.
    pub async fn close(&self) {
        match &self.0 {
            Source::Sqlite(readers) => readers.close().await,
            Source::Postgres { readers, .. } => readers.close().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_shown_without_its_password() {
        let cases = [
            ("postgres://ana:geheim@db.example/semel", "postgres://ana@db.example:5432/semel", true),
            ("postgresql://ana@db.example:6000/s?password=geheim", "postgres://ana@db.example:6000/s", true),
            ("postgres://ana@localhost/s?host=/run/pg", "postgres://ana@/run/pg:5432/s", false),
            ("postgres://ana@db.example/s?sslmode=require", "postgres://ana@db.example:5432/s", false),
        ];
        for (text, shown, has_password) in cases {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.has_password()), (shown, has_password), "{text}");
            assert!(!format!("{url:?}").contains("geheim"), "{text}");
        }
    }

    #[test]
    fn what_is_no_database_is_refused_without_being_repeated() {
        for text in ["mysql://ana:geheim@db/semel", "postgres://ana:geheim@db:port/semel", "geheim", ""] {
            let mut said = String::new();
            let refused: InvalidDatabaseUrl = text.parse::<DatabaseUrl>().unwrap_err();
            let mut cause: Option<&dyn std::error::Error> = Some(&refused);
            while let Some(error) = cause {
                said.push_str(&error.to_string());
                cause = error.source();
            }
            assert!(!said.contains("geheim"), "{said}");
        }
    }
}

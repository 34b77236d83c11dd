//! The only code that knows the database driver.
//!
//! Values are text, 64-bit integers and nothing else, and every statement is a constant: one SQL text is to serve SQLite and
//! PostgreSQL. Everything else sees [`Conn`], [`Value`] and [`Row`].

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, ValueRef as _};

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[error("the database refused `{statement}`")]
pub struct SqlError {
    statement: String,
    #[source]
    source: sqlx::Error,
}

impl SqlError {
    fn of(statement: &str, source: sqlx::Error) -> Self {
        let shown: String =
            statement.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(90).collect();
        Self { statement: shown, source }
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

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).expect("sequence numbers and sizes stay below 2^63"))
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

/// One row of an answer. Asking for a column that is not there, or as the wrong type, is a defect of the program.
#[derive(Debug)]
pub struct Row(SqliteRow);

impl Row {
    /// A text column.
    pub fn text(&self, index: usize) -> String {
        self.0.try_get(index).expect("the statement selects text here")
    }

    /// A text column that may be null.
    pub fn opt_text(&self, index: usize) -> Option<String> {
        self.0.try_get(index).expect("the statement selects text here")
    }

    /// A number.
    pub fn int(&self, index: usize) -> i64 {
        self.0.try_get(index).expect("the statement selects a number here")
    }

    /// A number that is never negative.
    pub fn count(&self, index: usize) -> u64 {
        u64::try_from(self.int(index)).expect("counts are never negative")
    }

    /// Such a number, which may be null.
    pub fn opt_count(&self, index: usize) -> Option<u64> {
        let number: Option<i64> = self.0.try_get(index).expect("the statement selects a number here");
        number.map(|number| u64::try_from(number).expect("counts are never negative"))
    }

    /// The whole row as one line of text, for comparing tables.
    pub fn line(&self) -> String {
        let column = |index: usize| {
            let raw = self.0.try_get_raw(index).expect("the column is there");
            if raw.is_null() {
                return "\\N".to_owned();
            }
            let as_text: Result<String, _> = self.0.try_get(index);
            let shown = as_text.unwrap_or_else(|_| self.int(index).to_string());
            shown.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
        };
        (0..self.0.columns().len()).map(column).collect::<Vec<_>>().join("\t")
    }
}

/// One connection.
#[derive(Debug)]
pub struct Conn(Inner);

#[derive(Debug)]
enum Inner {
    Owned(SqliteConnection),
    Pooled(sqlx::pool::PoolConnection<sqlx::Sqlite>),
}

impl Conn {
    fn raw(&mut self) -> &mut SqliteConnection {
        match &mut self.0 {
            Inner::Owned(conn) => conn,
            Inner::Pooled(conn) => conn,
        }
    }

    /// The rows that a statement selects.
    pub async fn rows(&mut self, statement: &'static str, values: &[Value]) -> Result<Vec<Row>, SqlError> {
        let rows = bind(sqlx::query(statement), values).fetch_all(self.raw()).await;
        Ok(rows.map_err(|error| SqlError::of(statement, error))?.into_iter().map(Row).collect())
    }

    /// The first row that a statement selects.
    pub async fn row(&mut self, statement: &'static str, values: &[Value]) -> Result<Option<Row>, SqlError> {
        let row = bind(sqlx::query(statement), values).fetch_optional(self.raw()).await;
        Ok(row.map_err(|error| SqlError::of(statement, error))?.map(Row))
    }

    /// Runs a statement and says how many rows it changed.
    pub async fn execute(&mut self, statement: &'static str, values: &[Value]) -> Result<u64, SqlError> {
        let done = bind(sqlx::query(statement), values).execute(self.raw()).await;
        Ok(done.map_err(|error| SqlError::of(statement, error))?.rows_affected())
    }

    /// Runs several statements without parameters.
    pub async fn script(&mut self, statements: &'static str) -> Result<(), SqlError> {
        let done = sqlx::raw_sql(statements).execute(self.raw()).await;
        done.map(drop).map_err(|error| SqlError::of(statements, error))
    }

    /// All rows of a declared table in the order of its key, as lines. The names come from `schema::TABLES` alone.
    pub(crate) async fn dump(
        &mut self,
        table: &'static str,
        key: &'static str,
    ) -> Result<Vec<String>, SqlError> {
        let statement = format!("SELECT * FROM {table} ORDER BY {key}");
        let rows = sqlx::query(AssertSqlSafe(statement.clone())).fetch_all(self.raw()).await;
        Ok(rows
            .map_err(|error| SqlError::of(&statement, error))?
            .into_iter()
            .map(|row| Row(row).line())
            .collect())
    }

    /// Empties a declared table.
    pub(crate) async fn clear(&mut self, table: &'static str) -> Result<(), SqlError> {
        let statement = format!("DELETE FROM {table}");
        let done = sqlx::query(AssertSqlSafe(statement.clone())).execute(self.raw()).await;
        done.map(drop).map_err(|error| SqlError::of(&statement, error))
    }

    /// Begins a transaction that will write.
    pub async fn begin(&mut self) -> Result<(), SqlError> {
        self.script("BEGIN IMMEDIATE").await
    }

    /// Begins a transaction in which every read sees what the first one saw.
    pub async fn begin_reading(&mut self) -> Result<(), SqlError> {
        self.script("BEGIN").await
    }

    /// Makes the transaction durable.
    pub async fn commit(&mut self) -> Result<(), SqlError> {
        self.script("COMMIT").await
    }

    /// Gives the transaction up.
    pub async fn rollback(&mut self) -> Result<(), SqlError> {
        self.script("ROLLBACK").await
    }

    /// Closes the connection; a pooled one goes back to its pool.
    pub async fn close(self) -> Result<(), SqlError> {
        match self.0 {
            Inner::Owned(conn) => conn.close().await.map_err(|error| SqlError::of("(close)", error)),
            Inner::Pooled(_) => Ok(()),
        }
    }

    /// Writes a consistent copy of the whole database to a new file.
    pub async fn copy_to(&mut self, file: &Path) -> Result<(), SqlError> {
        let done =
            sqlx::query("VACUUM INTO $1").bind(file.to_string_lossy().into_owned()).execute(self.raw()).await;
        done.map(drop).map_err(|error| SqlError::of("VACUUM INTO", error))
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind<'q>(query: Query<'q>, values: &[Value]) -> Query<'q> {
    values.iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text.clone()),
        Value::Int(number) => query.bind(*number),
        Value::Null => query.bind(None::<String>),
    })
}

/// A database: readers from a pool, and connections of one's own for writing.
#[derive(Debug, Clone)]
pub struct Db {
    options: SqliteConnectOptions,
    readers: SqlitePool,
}

impl Db {
    /// A database in a file.
    pub fn at(file: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30))
            .disable_statement_logging();
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options.clone());
        Self { options, readers }
    }

    /// A connection for reading.
    pub async fn reader(&self) -> Result<Conn, SqlError> {
        let conn = self.readers.acquire().await.map_err(|error| SqlError::of("(connect)", error))?;
        Ok(Conn(Inner::Pooled(conn)))
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> Result<Conn, SqlError> {
        let conn = self.options.connect().await.map_err(|error| SqlError::of("(connect)", error))?;
        Ok(Conn(Inner::Owned(conn)))
    }

    /// An empty database in memory.
    pub async fn in_memory() -> Result<Conn, SqlError> {
        let options = SqliteConnectOptions::new().in_memory(true).disable_statement_logging();
        let conn = options.connect().await.map_err(|error| SqlError::of("(connect)", error))?;
        Ok(Conn(Inner::Owned(conn)))
    }

    /// Closes all readers.
    pub async fn close(&self) {
        self.readers.close().await;
    }
}

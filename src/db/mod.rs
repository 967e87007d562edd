//! The database: which one, its pool of connections, and transactions. Knows no table.

mod migrations;
mod write_queue;

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{rt::time::timeout, web};
use diesel::{
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    prelude::*,
    r2d2::{HandleError, ManageConnection, Pool, R2D2Connection},
    result::{ConnectionError, DatabaseErrorKind, Error as QueryError},
};
use secrecy::ExposeSecret;
use thiserror::Error;

use crate::{
    config::{DatabaseConfig, DatabaseKind, DatabaseUrl},
    db::write_queue::WriteTurns,
};

/// How long a statement waits for another's lock.
#[cfg(feature = "sqlite")]
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request waits for a connection of the pool. The pool tries to connect at least twice
/// in that time, so a database that is back is found within half of it.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(3);

/// How long a request waits for the database in all: what a server that hangs does not keep to.
const DEADLINE: Duration = Duration::from_secs(20);

/// Nobody is told that a write has failed which then comes to pass.
#[cfg(feature = "sqlite")]
const _: () = assert!(
    crate::db::write_queue::PATIENCE.as_millis()
        + CONNECTION_PATIENCE.as_millis()
        + PATIENCE.as_millis()
        < DEADLINE.as_millis()
);

/// How long a connection may idle in the pool: less than any server's patience (PythonAnywhere's
/// MySQL ends it after 300 s).
const IDLE: Duration = Duration::from_secs(240);

/// Set once per connection.
#[cfg(feature = "sqlite")]
const SQLITE_SETTINGS: &str =
    "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;";
#[cfg(feature = "postgres")]
const POSTGRES_SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '10s';";
/// The comments are code: the first one for MariaDB, the other for MySQL.
#[cfg(feature = "mysql")]
const MYSQL_SETTINGS: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET SESSION innodb_lock_wait_timeout = 5, lock_wait_timeout = 5, sql_mode = 'TRADITIONAL'
    /*M! , max_statement_time = 10 */
    /*!80000 , max_execution_time = 10000 */";

/// A connection to whichever database the settings name.
#[derive(diesel::MultiConnection)]
pub enum DbConnection {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    #[cfg(feature = "mysql")]
    Mysql(MysqlConnection),
}

/// Why a query gave no answer. Never holds a password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DbError {
    /// There is no database to ask at the moment; later there may be.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    #[error("the database refused a query: {0}")]
    Query(QueryError),
    #[error("a migration failed: {0}")]
    Migration(String),
}

impl From<QueryError> for DbError {
    fn from(error: QueryError) -> Self {
        if is_full_disk(&error) {
            Self::Unavailable(format!("{error}; make room on the disk that it lies on"))
        } else if is_passing(&error) {
            Self::Unavailable(error.to_string())
        } else {
            Self::Query(error)
        }
    }
}

/// In the words of the databases.
fn is_full_disk(error: &QueryError) -> bool {
    let words = ["disk is full", "No space left on device", "Got error 28", "is full"];
    matches!(error, QueryError::DatabaseError(_, info)
        if words.iter().any(|words| info.message().contains(words)))
}

/// Whether the same query may well succeed in a while.
pub(crate) fn is_passing(error: &QueryError) -> bool {
    use DatabaseErrorKind::{
        ClosedConnection, ReadOnlyTransaction, SerializationFailure, UnableToSendCommand,
    };
    match error {
        QueryError::BrokenTransactionManager => true,
        QueryError::DatabaseError(kind, info) => {
            let waited = [
                "database is locked",
                "lock timeout",
                "statement timeout",
                // Of MySQL and MariaDB.
                "Lock wait timeout",
                "Deadlock",
                "max_statement_time",
                "gone away",
                "Lost connection",
                "Server shutdown",
            ];
            matches!(
                kind,
                ClosedConnection | ReadOnlyTransaction | SerializationFailure | UnableToSendCommand
            ) || waited.iter().any(|words| info.message().contains(words))
        }
        _ => false,
    }
}

/// The database behind a pool of connections. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Db {
    pool: Pool<Manager>,
    failures: Failures,
    manager: Manager,
    turns: WriteTurns,
}

impl Db {
    /// Makes the pool. Connections are opened as they are needed: a database that is away is an
    /// error of the query that wants it.
    #[must_use]
    pub fn new(config: &DatabaseConfig) -> Self {
        let manager = Manager { url: config.url.clone() };
        let failures = Failures::default();
        let pool = Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            .idle_timeout(Some(IDLE))
            .connection_timeout(CONNECTION_PATIENCE)
            .error_handler(Box::new(failures.clone()))
            .build_unchecked(manager.clone());
        let turns = WriteTurns::new(config.url.kind);
        Self { pool, failures, manager, turns }
    }

    /// Runs `query` on a thread for blocking work.
    pub async fn run<T, F>(&self, query: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<T> + Send + 'static,
        T: Send + 'static,
    {
        within_deadline(self.run_to_end(query)).await
    }

    async fn run_to_end<T, F>(&self, query: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<T> + Send + 'static,
        T: Send + 'static,
    {
        if let Some(reason) = self.away() {
            return Err(DbError::Unavailable(reason));
        }
        let pool = self.pool.clone();
        let answer = web::block(move || {
            let mut conn = pool.get().map_err(|e| DbError::Unavailable(e.to_string()))?;
            query(&mut conn).map_err(DbError::from)
        });
        answer.await.map_err(|e| DbError::Unavailable(e.to_string()))?
    }

    /// Why there is no connection and will be none soon.
    fn away(&self) -> Option<String> {
        if self.pool.state().connections > 0 { None } else { self.failures.recent() }
    }

    /// Like [`Db::run`], in a transaction that is rolled back if `change` fails.
    pub async fn write<T, F>(&self, change: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<T> + Send + 'static,
        T: Send + 'static,
    {
        within_deadline(self.write_to_end(change)).await
    }

    /// How many connections are open, and how many of them are not in use.
    pub(crate) fn connections(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections, state.idle_connections)
    }

    /// Likewise, however long it takes: for whoever must know what has become of it.
    pub(crate) async fn write_to_end<T, F>(&self, change: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<T> + Send + 'static,
        T: Send + 'static,
    {
        let turn = self.turns.wait().await?;
        self.run_to_end(move |conn| {
            let written = conn.write_transaction(change);
            drop(turn);
            written
        })
        .await
    }

    /// Asks the database for nothing, to see whether it answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.run(R2D2Connection::ping).await
    }

    /// Applies the pending migrations and returns their names. Of several processes that do this
    /// at once, one works and the others wait for it.
    pub fn migrate(&self) -> Result<Vec<String>, DbError> {
        let conn = self.manager.connect().map_err(|e| DbError::Unavailable(e.to_string()))?;
        migrations::run(conn).map_err(|e| DbError::Migration(e.to_string()))
    }

    /// How many migrations of this build the database lacks.
    pub fn pending_migrations(&self) -> Result<usize, DbError> {
        let conn = self.manager.connect().map_err(|e| DbError::Unavailable(e.to_string()))?;
        migrations::pending(conn).map_err(|e| DbError::Migration(e.to_string()))
    }
}

/// Nobody waits longer than that; what is asked goes on.
pub(crate) async fn within_deadline<T>(
    answer: impl Future<Output = Result<T, DbError>>,
) -> Result<T, DbError> {
    let too_late = |_| DbError::Unavailable(format!("no answer within {DEADLINE:?}"));
    timeout(DEADLINE, answer).await.map_err(too_late)?
}

impl DbConnection {
    /// SQL for the database's own clock, in milliseconds since 1970.
    pub(crate) fn now_millis(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => "CAST(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(3)) * 1000 AS SIGNED)",
        }
    }

    /// A transaction that means to write.
    ///
    /// On SQLite it takes the write lock at once: one that reads first and takes it later fails
    /// without waiting if another has written in between.
    fn write_transaction<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> QueryResult<T>,
    ) -> QueryResult<T> {
        self.begin_write()?;
        match change(self) {
            Ok(value) => {
                <Self as Connection>::TransactionManager::commit_transaction(self)?;
                Ok(value)
            }
            Err(error) => {
                <Self as Connection>::TransactionManager::rollback_transaction(self)?;
                Err(error)
            }
        }
    }

    fn begin_write(&mut self) -> QueryResult<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(conn) => {
                AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(conn) => AnsiTransactionManager::begin_transaction(conn),
            #[cfg(feature = "mysql")]
            Self::Mysql(conn) => AnsiTransactionManager::begin_transaction(conn),
        }
    }
}

/// Opens connections for the pool.
#[derive(Clone, Debug)]
struct Manager {
    url: DatabaseUrl,
}

impl DbConnection {
    /// Opens one connection, without a pool.
    pub fn open(url: &DatabaseUrl) -> Result<Self, ConnectionError> {
        let kind = url.kind;
        let url = url.secret.expose_secret();
        match kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => {
                let mut conn = SqliteConnection::establish(url)?;
                prepare(&mut conn, SQLITE_SETTINGS)?;
                Ok(DbConnection::Sqlite(conn))
            }
            #[cfg(feature = "postgres")]
            DatabaseKind::Postgres => {
                let mut conn = PgConnection::establish(url)?;
                prepare(&mut conn, POSTGRES_SETTINGS)?;
                Ok(DbConnection::Postgres(conn))
            }
            #[cfg(feature = "mysql")]
            DatabaseKind::Mysql => {
                let mut conn = MysqlConnection::establish(url)?;
                prepare(&mut conn, MYSQL_SETTINGS)?;
                Ok(DbConnection::Mysql(conn))
            }
        }
    }
}

fn prepare(conn: &mut impl SimpleConnection, settings: &str) -> Result<(), ConnectionError> {
    conn.batch_execute(settings).map_err(ConnectionError::CouldntSetupConfiguration)
}

impl ManageConnection for Manager {
    type Connection = DbConnection;
    type Error = ConnectError;

    fn connect(&self) -> Result<DbConnection, ConnectError> {
        DbConnection::open(&self.url)
            .map_err(|error| ConnectError(self.url.without_secrets(&error.to_string())))
    }

    /// A connection that the server has closed is replaced before anybody gets it. SQLite has no
    /// server.
    fn is_valid(&self, conn: &mut DbConnection) -> Result<(), ConnectError> {
        match conn {
            #[cfg(feature = "sqlite")]
            DbConnection::Sqlite(_) => Ok(()),
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            conn => conn
                .ping()
                .map_err(|error| ConnectError(self.url.without_secrets(&error.to_string()))),
        }
    }

    fn has_broken(&self, conn: &mut DbConnection) -> bool {
        conn.is_broken()
    }
}

/// Why a connection could not be opened, without secrets.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
struct ConnectError(String);

/// The last failure to connect. The pool goes on trying by itself; meanwhile nobody has to wait for
/// what will not come.
#[derive(Clone, Debug, Default)]
struct Failures(Arc<Mutex<Option<Failure>>>);

#[derive(Debug)]
struct Failure {
    last: Instant,
    reason: String,
    complained: Instant,
}

/// How often it is said that the database is away.
const COMPLAINT: Duration = Duration::from_secs(60);

impl Failures {
    /// Why the last try has failed, if another is under way or about to begin.
    fn recent(&self) -> Option<String> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |failure: &&Failure| failure.last.elapsed() < CONNECTION_PATIENCE;
        failure.as_ref().filter(is_recent).map(|failure| failure.reason.clone())
    }
}

impl HandleError<ConnectError> for Failures {
    fn handle_error(&self, error: ConnectError) {
        let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = failure.as_ref().map(|failure| failure.complained);
        let complained = before.filter(|at| at.elapsed() <= COMPLAINT).unwrap_or_else(|| {
            log::warn!("cannot connect to the database: {error}");
            now
        });
        *failure = Some(Failure { last: now, reason: error.to_string(), complained });
    }
}

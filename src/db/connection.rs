//! One connection: how it is opened and configured, and its transactions.

use std::time::Duration;

use diesel::{
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    prelude::*,
    result::ConnectionError,
};
use secrecy::ExposeSecret;

use super::error::DbError;
use crate::config::{DatabaseKind, DatabaseUrl};

/// The time for which a statement waits for another connection's lock.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time that a statement may take on a server.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the configured database.
#[derive(diesel::MultiConnection)]
pub enum DbConnection {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    #[cfg(feature = "mysql")]
    Mysql(MysqlConnection),
}

impl DbConnection {
    /// Opens a connection without a pool, and configures it.
    pub fn open(url: &DatabaseUrl) -> Result<Self, ConnectionError> {
        let kind = url.kind;
        let url = url.secret.expose_secret();
        let mut conn = match kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => Self::Sqlite(SqliteConnection::establish(url)?),
            #[cfg(feature = "postgres")]
            DatabaseKind::Postgres => Self::Postgres(PgConnection::establish(url)?),
            #[cfg(feature = "mysql")]
            DatabaseKind::Mysql => Self::Mysql(MysqlConnection::establish(url)?),
        };
        let settings = conn.settings();
        conn.batch_execute(&settings).map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }

    /// SQL that configures a new connection.
    fn settings(&self) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => format!(
                "PRAGMA busy_timeout = {}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
                LOCK_TIMEOUT.as_millis()
            ),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => format!(
                "SET lock_timeout = {}; SET statement_timeout = {};",
                LOCK_TIMEOUT.as_millis(),
                STATEMENT_TIMEOUT.as_millis()
            ),
            // The comments are code: the first one for MariaDB, the second one for MySQL.
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => format!(
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
                 SET SESSION innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock},
                 sql_mode = 'TRADITIONAL' /*M! , max_statement_time = {statement} */
                 /*!80000 , max_execution_time = {statement}000 */",
                lock = LOCK_TIMEOUT.as_secs(),
                statement = STATEMENT_TIMEOUT.as_secs()
            ),
        }
    }

    /// Begins a transaction that writes.
    ///
    /// On SQLite it takes the write lock at its begin: a transaction that reads first and writes
    /// later fails at once, without waiting, if another has written in between.
    pub(super) fn begin_write(&mut self) -> QueryResult<()> {
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

    /// Runs `change` in the transaction that was begun, and commits it; rolls it back if `change` fails.
    pub(super) fn end_write<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
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
}

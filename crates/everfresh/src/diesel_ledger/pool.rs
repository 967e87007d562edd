//! A pool of connections as the database of a ledger.

use std::{fmt, future::Future};

use diesel::{
    QueryResult,
    connection::{AnsiTransactionManager, Connection, TransactionManager},
    r2d2::{ConnectionManager, Pool, R2D2Connection},
};
use thiserror::Error;

use super::{
    database::DieselDatabase,
    table::{Dialect, LedgerConnection},
};

/// A pool of connections (Diesel's feature `r2d2`), and the kind of its database.
///
/// The connections need limits for statements that wait, or a write waits as long as the database lets it:
/// on SQLite `PRAGMA busy_timeout`, without which a write fails while another is going on; on PostgreSQL
/// `statement_timeout`. Set them in [`CustomizeConnection`](diesel::r2d2::CustomizeConnection).
pub struct DieselPool<C: R2D2Connection + 'static> {
    pool: Pool<ConnectionManager<C>>,
    dialect: Dialect,
}

/// The reason that a query has no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DieselPoolError {
    /// No connection could be opened, or none was free in time.
    #[error("no connection to the database: {0}")]
    Connection(String),
    /// The database refused the query, or the connection broke.
    #[error(transparent)]
    Query(#[from] diesel::result::Error),
    /// The runtime is shutting down.
    #[error("the query was not run: {0}")]
    NotRun(#[from] tokio::task::JoinError),
}

impl<C> DieselPool<C>
where
    C: LedgerConnection + R2D2Connection<TransactionManager = AnsiTransactionManager> + 'static,
{
    /// Uses the connections of a pool.
    #[must_use]
    pub fn new(pool: Pool<ConnectionManager<C>>, dialect: Dialect) -> Self {
        Self { pool, dialect }
    }

    fn run<T, F>(
        &self,
        query: F,
    ) -> impl Future<Output = Result<T, DieselPoolError>> + Send + use<T, F, C>
    where
        F: FnOnce(&mut C) -> Result<T, DieselPoolError> + Send + 'static,
        T: Send + 'static,
    {
        let pool = self.pool.clone();
        let run = tokio::task::spawn_blocking(move || {
            let conn = pool.get();
            let mut conn = conn.map_err(|error| DieselPoolError::Connection(error.to_string()))?;
            query(&mut conn)
        });
        async { run.await? }
    }
}

/// On SQLite, takes the write lock: a transaction that reads first and writes later fails at once, without
/// waiting, if another has written in between.
fn begin<C>(conn: &mut C, dialect: Dialect) -> QueryResult<()>
where
    C: Connection<TransactionManager = AnsiTransactionManager>,
{
    match dialect {
        Dialect::Sqlite => AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE"),
        Dialect::Postgres | Dialect::Mysql => AnsiTransactionManager::begin_transaction(conn),
    }
}

impl<C> DieselDatabase for DieselPool<C>
where
    C: LedgerConnection + R2D2Connection<TransactionManager = AnsiTransactionManager> + 'static,
{
    type Connection = C;
    type Error = DieselPoolError;

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn read<T, F>(&self, query: F) -> impl Future<Output = Result<T, DieselPoolError>> + Send
    where
        F: FnOnce(&mut C) -> Result<T, DieselPoolError> + Send + 'static,
        T: Send + 'static,
    {
        self.run(query)
    }

    fn write<T, F>(&self, change: F) -> impl Future<Output = Result<T, DieselPoolError>> + Send
    where
        F: FnOnce(&mut C) -> Result<T, DieselPoolError> + Send + 'static,
        T: Send + 'static,
    {
        let dialect = self.dialect;
        self.run(move |conn| {
            begin(conn, dialect)?;
            match change(conn) {
                Ok(value) => {
                    AnsiTransactionManager::commit_transaction(conn)?;
                    Ok(value)
                }
                Err(error) => {
                    AnsiTransactionManager::rollback_transaction(conn)?;
                    Err(error)
                }
            }
        })
    }
}

impl<C: R2D2Connection> Clone for DieselPool<C> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), dialect: self.dialect }
    }
}

impl<C: R2D2Connection> fmt::Debug for DieselPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DieselPool").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

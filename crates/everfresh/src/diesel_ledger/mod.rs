//! The ledger in a database of Diesel, and writes in its transactions.
//!
//! - [`DieselDatabase`]: how an app runs queries. [`DieselPool`] is one over a pool of connections.
//! - [`DieselLedger`]: the rows, in the table `cache_invalidations`.
//! - [`DieselWriter`]: a transaction, its row and its invalidation in one call.

mod pool;
mod table;

use std::{fmt, fmt::Display, future::Future, time::Duration};

pub use self::{
    pool::{DieselPool, DieselPoolError},
    table::{Dialect, LedgerConnection, RowId},
};
use crate::{
    cache::Cache,
    freshness::{
        invalidation::Invalidation,
        replay::Ledger,
        write::{Attempt, Writer},
    },
};

/// The database of an app. Cloning is cheap.
///
/// Implement it for the type through which the app runs its queries, so that deadlines and limits of the app
/// hold for the ledger too. An app without such a type uses [`DieselPool`].
pub trait DieselDatabase: Clone + Send + Sync + 'static {
    /// A connection of the app: of Diesel, or an enum of them with `#[derive(MultiConnection)]`.
    type Connection: LedgerConnection;
    /// The reason that a query has no result.
    type Error: Display + From<diesel::result::Error> + Send + 'static;

    /// Returns the kind of the database.
    fn dialect(&self) -> Dialect;

    /// Runs a query on a thread for blocking work.
    fn read<T, F>(&self, query: F) -> impl Future<Output = Result<T, Self::Error>> + Send
    where
        F: FnOnce(&mut Self::Connection) -> Result<T, Self::Error> + Send + 'static,
        T: Send + 'static;

    /// Runs `change` in a transaction on a thread for blocking work, and rolls it back if `change` fails.
    ///
    /// It must not return before the outcome is known, so it has no time limit of its own: limit the
    /// statements, in the settings of the database.
    fn write<T, F>(&self, change: F) -> impl Future<Output = Result<T, Self::Error>> + Send
    where
        F: FnOnce(&mut Self::Connection) -> Result<T, Self::Error> + Send + 'static,
        T: Send + 'static;
}

/// The invalidations that are not confirmed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backlog {
    /// The number of rows.
    pub rows: u64,
    /// The age of the oldest.
    pub oldest: Option<Duration>,
}

/// A [`Ledger`] in the table `cache_invalidations`, which is made by [`Dialect::migration`].
#[derive(Clone, Debug)]
pub struct DieselLedger<D>(pub D);

impl<D: DieselDatabase> DieselLedger<D> {
    /// Inserts a row in the transaction of a write that does not use a [`DieselWriter`]: call it in
    /// [`Attempt::announce`].
    pub fn insert(
        conn: &mut D::Connection,
        invalidation: &Invalidation,
    ) -> diesel::QueryResult<RowId> {
        table::insert(conn, invalidation)
    }

    /// Counts the invalidations that are not confirmed: those of the moment, and those that wait for a
    /// server that cannot be reached.
    pub async fn backlog(&self) -> Result<Backlog, D::Error> {
        let dialect = self.0.dialect();
        self.0.read(move |conn| Ok(table::backlog(conn, dialect)?)).await
    }
}

impl<D: DieselDatabase> Ledger for DieselLedger<D> {
    type Error = D::Error;
    type Id = RowId;

    async fn left(
        &self,
        after: Option<&RowId>,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(RowId, Invalidation)>, D::Error> {
        let (after, dialect) = (after.copied(), self.0.dialect());
        self.0.read(move |conn| Ok(table::left(conn, dialect, after, age, limit)?)).await
    }

    async fn remove(&self, ids: &[RowId]) -> Result<(), D::Error> {
        let ids = ids.to_vec();
        self.0.write(move |conn| Ok(table::remove(conn, &ids).map(drop)?)).await
    }

    async fn merge(&self, ids: &[RowId], into: &Invalidation) -> Result<(), D::Error> {
        let (ids, into) = (ids.to_vec(), into.clone());
        let merge = move |conn: &mut D::Connection| match table::remove(conn, &ids)? {
            0 => Ok(()),
            _ => Ok(table::insert(conn, &into).map(drop)?),
        };
        self.0.write(merge).await
    }
}

impl Cache {
    /// Starts a [`DieselWriter`]. See [`Cache::writer`] for the tasks that it starts.
    ///
    /// Panics outside of a Tokio runtime.
    pub fn diesel_writer<D: DieselDatabase>(&self, database: D) -> DieselWriter<D> {
        DieselWriter { writer: self.writer(DieselLedger(database.clone())), database }
    }
}

/// Runs writes in transactions of Diesel, and deletes the entries that they make wrong. Cloning is cheap.
///
/// ```
/// use diesel::{prelude::*, r2d2::{ConnectionManager, Pool}, connection::SimpleConnection};
/// use everfresh::{Cache, Dialect, DieselPool, Invalidation};
///
/// diesel::table! { task (id) { id -> Integer, name -> Text, } }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let url = folder.path().join("app.db").display().to_string();
/// let pool = Pool::new(ConnectionManager::<SqliteConnection>::new(url))?;
/// // Once, in a migration:
/// pool.get()?.batch_execute("CREATE TABLE task (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")?;
/// pool.get()?.batch_execute(Dialect::Sqlite.migration())?;
///
/// let cache = Cache::memory(1 << 20).build();
/// let writer = cache.diesel_writer(DieselPool::new(pool, Dialect::Sqlite));
///
/// let added = writer.write(|conn| {
///     let added = diesel::insert_into(task::table).values(task::name.eq("Milk")).execute(conn)?;
///     Ok((added, Invalidation::of(["tasks"])))
/// });
/// assert_eq!(added.await?, 1);
/// # Ok(())
/// # }
/// ```
pub struct DieselWriter<D> {
    writer: Writer<RowId>,
    database: D,
}

impl<D: DieselDatabase> DieselWriter<D> {
    /// Runs `change` in a transaction, and its invalidation, to their end, even if the returned future is
    /// dropped. `change` returns its result, and the entries that it makes wrong; an empty [`Invalidation`]
    /// if it has changed nothing. If it returns an error, the transaction is rolled back.
    ///
    /// When this returns, the entries are deleted, or the row is in the ledger.
    pub async fn write<T, F>(&self, change: F) -> Result<T, D::Error>
    where
        F: FnOnce(&mut D::Connection) -> Result<(T, Invalidation), D::Error> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.database.clone();
        let transaction = move |attempt: Attempt| async move {
            let in_transaction = move |conn: &mut D::Connection| {
                let (value, invalidation) = change(conn)?;
                // In the same transaction: a committed write cannot lose its invalidation.
                let row = attempt.announce(invalidation, |row| table::insert(conn, row))?;
                Ok((value, row))
            };
            database.write(in_transaction).await
        };
        self.writer.write(transaction).await
    }
}

impl<D: Clone> Clone for DieselWriter<D> {
    fn clone(&self) -> Self {
        Self { writer: self.writer.clone(), database: self.database.clone() }
    }
}

impl<D> fmt::Debug for DieselWriter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DieselWriter").field("writer", &self.writer).finish_non_exhaustive()
    }
}

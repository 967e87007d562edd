//! A write and its invalidation in one call.

use std::fmt;

use super::{
    database::DieselDatabase,
    ledger::DieselLedger,
    table::{self, RowId},
};
use crate::{
    cache::Cache,
    freshness::{
        invalidation::Invalidation,
        write::{Attempt, Writer},
    },
};

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

//! The rows of invalidations.

use std::time::Duration;

use super::{
    database::DieselDatabase,
    table::{self, Backlog, RowId},
};
use crate::freshness::{invalidation::Invalidation, replay::Ledger};

/// A [`Ledger`] in the table `cache_invalidations`, which is made by [`Dialect::migration`](crate::Dialect::migration).
#[derive(Clone, Debug)]
pub struct DieselLedger<D>(pub D);

impl<D: DieselDatabase> DieselLedger<D> {
    /// Inserts a row in the transaction of a write that does not use a [`DieselWriter`](crate::DieselWriter): call it in
    /// [`Attempt::announce`](crate::Attempt::announce).
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
        let (ids, dialect) = (ids.to_vec(), self.0.dialect());
        let remove = move |conn: &mut D::Connection| {
            table::do_not_wait_for_disk(conn, dialect)?;
            Ok(table::remove(conn, &ids).map(drop)?)
        };
        self.0.write(remove).await
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

//! The database, as the toolkit needs it for its ledger: the table `cache_invalidations`.

use everfresh::{Dialect, DieselDatabase};

use super::{Db, DbConnection, DbError, pool::Pool};
use crate::config::DatabaseKind;

impl DieselDatabase for Db {
    type Connection = DbConnection;
    type Error = DbError;

    fn dialect(&self) -> Dialect {
        match self.kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            DatabaseKind::Postgres => Dialect::Postgres,
            #[cfg(feature = "mysql")]
            DatabaseKind::Mysql => Dialect::Mysql,
        }
    }

    async fn read<T, F>(&self, query: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> Result<T, DbError> + Send + 'static,
        T: Send + 'static,
    {
        // It can run once only, so its connection is checked before.
        let read = move |pool: &Pool| query(&mut *pool.get_checked()?);
        self.within_deadline(self.run(read)).await
    }

    async fn write<T, F>(&self, change: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> Result<T, DbError> + Send + 'static,
        T: Send + 'static,
    {
        self.write_to_end(change).await
    }
}

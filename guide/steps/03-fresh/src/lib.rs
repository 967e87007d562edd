//! What the programs of chapter 3 share: the ledger's table, and the cached list.

use diesel::SqliteConnection;
use everfresh::{Cache, Dialect, DieselLedger, DieselPool, EnvironmentError};
use step_01::database::Database;

pub type Pool = DieselPool<SqliteConnection>;

// ANCHOR: open
/// Opens the cache of a database, which holds the ledger.
pub fn open_cache(database: &Database, prefix: &str) -> Result<(Cache, Pool), EnvironmentError> {
    let pool = pool(database);
    let cache = Cache::from_env_with_ledger(DieselLedger(pool.clone()))?.prefix(prefix).build();
    Ok((cache, pool))
}
// ANCHOR_END: open

pub fn pool(database: &Database) -> Pool {
    DieselPool::new(database.pool.clone(), Dialect::Sqlite)
}

/// Opens a cache without a ledger.
pub fn open_plain_cache(prefix: &str) -> Result<Cache, EnvironmentError> {
    Ok(Cache::from_env()?.prefix(prefix).build())
}

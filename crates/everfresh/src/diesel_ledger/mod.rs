//! The ledger in a database of Diesel, and writes in its transactions.
//!
//! - [`database`]: how an app runs queries. [`pool`] does it over a pool of connections.
//! - [`ledger`]: the rows, in the table `cache_invalidations`.
//! - [`writer`]: a transaction, its row and its invalidation in one call.

pub(crate) mod database;
pub(crate) mod ledger;
pub(crate) mod pool;
pub(crate) mod table;
pub(crate) mod writer;

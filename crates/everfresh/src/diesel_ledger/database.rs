//! The database of an app.

use std::{fmt::Display, future::Future};

use super::table::{Dialect, LedgerConnection};

/// The database of an app. Cloning is cheap.
///
/// Implement it for the type through which the app runs its queries, so that deadlines and limits of the app
/// hold for the ledger too. An app without such a type uses [`DieselPool`](crate::DieselPool).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a database for `diesel_writer`",
    note = "wrap a pool of r2d2: `DieselPool::new(pool, Dialect::…)`"
)]
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

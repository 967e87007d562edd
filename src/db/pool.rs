//! The connection pool, and the last failure to connect.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diesel::r2d2::{HandleError, ManageConnection, R2D2Connection};
use thiserror::Error;

use super::connection::DbConnection;
use crate::config::{DatabaseConfig, DatabaseUrl};

/// The longest time that a request waits for a connection. The pool tries to connect at least twice in
/// that time, so it notices within half of it that the database is back.
pub(crate) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time that a connection may be idle: less than servers allow (PythonAnywhere's MySQL
/// closes idle connections after 300 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(240);

/// A pool of connections. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    connections: diesel::r2d2::Pool<Manager>,
    failures: ConnectFailures,
    manager: Manager,
}

impl Pool {
    /// Creates a pool that opens connections as they are needed: a database that cannot be reached
    /// fails the query, not the start.
    pub(super) fn new(config: &DatabaseConfig) -> Self {
        let manager = Manager { url: config.url.clone() };
        let failures = ConnectFailures::default();
        let connections = diesel::r2d2::Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            .idle_timeout(Some(IDLE_TIMEOUT))
            .connection_timeout(CONNECTION_TIMEOUT)
            .error_handler(Box::new(failures.clone()))
            .build_unchecked(manager.clone());
        Self { connections, failures, manager }
    }

    /// Blocks until a connection is free, for at most [`CONNECTION_TIMEOUT`].
    pub(super) fn get(
        &self,
    ) -> Result<impl std::ops::DerefMut<Target = DbConnection> + use<>, String> {
        self.connections.get().map_err(|error| error.to_string())
    }

    /// Opens a connection that does not belong to the pool.
    pub(super) fn connect(&self) -> Result<DbConnection, String> {
        self.manager.connect().map_err(|error| error.to_string())
    }

    /// Returns why the database cannot be reached, if there is no connection and the last attempt has
    /// just failed: then waiting for the pool would be in vain.
    pub(super) fn outage(&self) -> Option<String> {
        if self.connections.state().connections > 0 { None } else { self.failures.recent() }
    }

    /// Returns the numbers of open and of idle connections.
    pub(super) fn size(&self) -> (u32, u32) {
        let state = self.connections.state();
        (state.connections, state.idle_connections)
    }
}

/// Opens and checks connections for the pool.
#[derive(Clone, Debug)]
struct Manager {
    url: DatabaseUrl,
}

impl ManageConnection for Manager {
    type Connection = DbConnection;
    type Error = ConnectError;

    fn connect(&self) -> Result<DbConnection, ConnectError> {
        DbConnection::open(&self.url)
            .map_err(|error| ConnectError(self.url.without_secrets(&error.to_string())))
    }

    /// Replaces connections that the server has closed before a query uses them. SQLite has no
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

/// The reason that a connection could not be opened, without secrets.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
struct ConnectError(String);

/// The last failure to connect. The pool goes on trying in the background.
#[derive(Clone, Debug, Default)]
struct ConnectFailures(Arc<Mutex<Option<ConnectFailure>>>);

#[derive(Debug)]
struct ConnectFailure {
    at: Instant,
    reason: String,
}

impl ConnectFailures {
    /// Returns the reason of a failure so recent that the next attempt has not ended yet.
    fn recent(&self) -> Option<String> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = failure.as_ref().filter(|f| f.at.elapsed() < CONNECTION_TIMEOUT)?;
        Some(failure.reason.clone())
    }
}

impl HandleError<ConnectError> for ConnectFailures {
    fn handle_error(&self, error: ConnectError) {
        let failure = ConnectFailure { at: Instant::now(), reason: error.to_string() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

//! The connection pool, and the last failure to connect.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diesel::{
    r2d2::{HandleError, ManageConnection, PooledConnection, R2D2Connection},
    result::Error as QueryError,
};
use thiserror::Error;

use super::{connection::DbConnection, error::DbError};
use crate::config::{DatabaseConfig, DatabaseUrl};

/// The longest time that a request waits for a connection; once more, if the server has ended the one that it got. The
/// pool tries to connect at least twice in that time, so it notices within half of it that the database is back.
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
            // See `Pool::attempt`.
            .test_on_check_out(false)
            .connection_timeout(CONNECTION_TIMEOUT)
            .error_handler(Box::new(failures.clone()))
            .build_unchecked(manager.clone());
        Self { connections, failures, manager }
    }

    /// Runs `attempt` on a connection, and returns both. If the server has ended that connection, runs it once more
    /// on one that has just been checked, so `attempt` must not have had an effect when its connection has ended.
    ///
    /// To check each connection before it is used would cost a round trip per query.
    pub(super) fn attempt<T>(
        &self,
        attempt: impl Fn(&mut DbConnection) -> Result<T, DbError>,
    ) -> Result<(PooledConnection<Manager>, T), DbError> {
        let mut conn = self.get()?;
        match attempt(&mut conn) {
            Err(_) if self.check(&mut conn).is_err() => {}
            outcome => return outcome.map(|value| (conn, value)),
        }
        drop(conn);
        let mut conn = self.get_checked()?;
        attempt(&mut conn).map(|value| (conn, value))
    }

    /// Returns a connection that answers.
    pub(super) fn get_checked(&self) -> Result<PooledConnection<Manager>, DbError> {
        let until = Instant::now() + CONNECTION_TIMEOUT;
        // After a restart of the server, all connections that were idle have ended.
        loop {
            let mut conn = self.get_until(until)?;
            match self.check(&mut conn) {
                Ok(()) => return Ok(conn),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Checks that the server answers. The pool discards the connection if not. SQLite has no server.
    fn check(&self, pooled: &mut Pooled) -> Result<(), DbError> {
        let answer = match &mut pooled.conn {
            #[cfg(feature = "sqlite")]
            DbConnection::Sqlite(_) => Ok(()),
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            conn => conn.ping(),
        };
        pooled.has_ended = answer.is_err();
        let reason = |error: QueryError| self.manager.url.without_secrets(&error.to_string());
        answer.map_err(|error| DbError::Unavailable(reason(error)))
    }

    /// Blocks until a connection is free, for at most [`CONNECTION_TIMEOUT`].
    fn get(&self) -> Result<PooledConnection<Manager>, DbError> {
        self.get_until(Instant::now() + CONNECTION_TIMEOUT)
    }

    fn get_until(&self, until: Instant) -> Result<PooledConnection<Manager>, DbError> {
        let conn = self.connections.get_timeout(until.saturating_duration_since(Instant::now()));
        conn.map_err(|error| DbError::Unavailable(error.to_string()))
    }

    /// Opens a connection that does not belong to the pool.
    pub(super) fn connect(&self) -> Result<DbConnection, String> {
        self.manager.connect().map(|pooled| pooled.conn).map_err(|error| error.to_string())
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

/// A connection of the pool.
pub(super) struct Pooled {
    conn: DbConnection,
    /// Whether it is known that it does not answer.
    has_ended: bool,
}

impl Deref for Pooled {
    type Target = DbConnection;

    fn deref(&self) -> &DbConnection {
        &self.conn
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut DbConnection {
        &mut self.conn
    }
}

/// Opens connections for the pool.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    url: DatabaseUrl,
}

impl ManageConnection for Manager {
    type Connection = Pooled;
    type Error = ConnectError;

    fn connect(&self) -> Result<Pooled, ConnectError> {
        DbConnection::open(&self.url)
            .map(|conn| Pooled { conn, has_ended: false })
            .map_err(|error| ConnectError(self.url.without_secrets(&error.to_string())))
    }

    /// Is not called: [`Pool::attempt`] finds out which connections have ended.
    fn is_valid(&self, _: &mut Pooled) -> Result<(), ConnectError> {
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.has_ended || pooled.conn.is_broken()
    }
}

/// The reason that a connection could not be opened, without secrets.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub(super) struct ConnectError(String);

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

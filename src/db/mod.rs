//! The database: queries and transactions on a pool of connections. Knows no table.

mod connection;
mod error;
mod ledger;
mod migrations;
mod outage;
mod pool;
#[cfg(feature = "sqlite")]
mod sqlite_file;
mod write_queue;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use actix_web::{rt::time::timeout, web};
use diesel::{QueryResult, r2d2::R2D2Connection};

pub use self::{connection::DbConnection, error::DbError};
use self::{outage::OutageLog, pool::Pool, write_queue::WriteQueue};
use crate::config::{DatabaseConfig, DatabaseKind};

/// The longest time that a request waits for the database in all, in case the server hangs.
const DEADLINE: Duration = Duration::from_secs(20);

// The waits add up to less than DEADLINE, so a write reported as failed cannot still commit.
#[cfg(feature = "sqlite")]
const _: () = assert!(
    write_queue::QUEUE_TIMEOUT.as_millis()
        + pool::CONNECTION_TIMEOUT.as_millis()
        + connection::LOCK_TIMEOUT.as_millis()
        < DEADLINE.as_millis()
);

/// The database. Cloning shares its pool.
#[derive(Clone, Debug)]
pub struct Db {
    kind: DatabaseKind,
    pool: Pool,
    write_queue: WriteQueue,
    outages: OutageLog,
    #[cfg(feature = "sqlite")]
    file: sqlite_file::SqliteFile,
}

impl Db {
    /// Creates the pool. Connections are opened as they are needed: a database that cannot be reached
    /// fails the query, not the start.
    #[must_use]
    pub fn new(config: &DatabaseConfig) -> Self {
        let kind = config.url.kind;
        Self {
            kind,
            pool: Pool::new(config),
            write_queue: WriteQueue::new(kind),
            outages: OutageLog::default(),
            #[cfg(feature = "sqlite")]
            file: sqlite_file::SqliteFile::default(),
        }
    }

    /// Runs `query`, which must only read, on a thread for blocking work. It runs once more if the server has ended
    /// its connection.
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, DbError>
    where
        F: Fn(&mut DbConnection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Into<DbError> + 'static,
    {
        let read = move |pool: &Pool| {
            pool.attempt(|conn| query(conn).map_err(Into::into)).map(|(_, value)| value)
        };
        self.within_deadline(self.run(read)).await
    }

    /// Runs `change` in a transaction, which is rolled back if `change` fails.
    pub async fn write<T, F>(&self, change: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> QueryResult<T> + Send + 'static,
        T: Send + 'static,
    {
        let change = |conn: &mut DbConnection| change(conn).map_err(DbError::from);
        self.within_deadline(self.write_to_end(change)).await
    }

    /// Like [`Db::write`], but without the request deadline. Use it when the outcome must be known.
    async fn write_to_end<T, F>(&self, change: F) -> Result<T, DbError>
    where
        F: FnOnce(&mut DbConnection) -> Result<T, DbError> + Send + 'static,
        T: Send + 'static,
    {
        let place = self.write_queue.enter().await?;
        self.run(move |pool| {
            // A connection that has ended is noticed at the begin, when nothing has been changed.
            let (mut conn, ()) = pool.attempt(|conn| Ok(conn.begin_write()?))?;
            let written = conn.end_write(change);
            drop(place);
            written
        })
        .await
    }

    /// Runs `query` on a thread for blocking work.
    async fn run<T, F>(&self, query: F) -> Result<T, DbError>
    where
        F: FnOnce(&Pool) -> Result<T, DbError> + Send + 'static,
        T: Send + 'static,
    {
        if let Some(reason) = self.pool.outage() {
            return Err(DbError::Unavailable(reason));
        }
        let db = self.clone();
        let result = web::block(move || {
            #[cfg(feature = "sqlite")]
            db.file.check()?;
            query(&db.pool)
        });
        result.await.map_err(|e| DbError::Unavailable(e.to_string()))?
    }

    /// Returns the numbers of open and of idle connections.
    pub(crate) fn connections(&self) -> (u32, u32) {
        self.pool.size()
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.read(DbConnection::ping).await
    }

    /// Prepares the database at the start of the app: migrates SQLite. Other databases are shared by
    /// several processes and migrated by a step of the deployment; if they are not up to date, logs
    /// that, in the background: they may be slow, or unavailable for a moment.
    #[cfg_attr(
        not(feature = "sqlite"),
        expect(clippy::unnecessary_wraps, reason = "only SQLite is migrated here")
    )]
    pub(crate) fn prepare(&self) -> Result<(), DbError> {
        match self.kind {
            #[cfg(feature = "sqlite")]
            DatabaseKind::Sqlite => {
                for name in self.migrate()? {
                    log::info!("applied migration {name}");
                }
            }
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => {
                let db = self.clone();
                std::thread::spawn(move || match db.pending_migrations() {
                    Ok(0) => {}
                    Ok(_) => log::warn!("the database is not up to date; run `tasklist migrate`"),
                    Err(error) => log::warn!("{error}"),
                });
            }
        }
        Ok(())
    }

    /// Applies the pending migrations and returns their names. If several processes do so at once,
    /// one works and the others wait for it.
    pub fn migrate(&self) -> Result<Vec<String>, DbError> {
        #[cfg_attr(not(feature = "sqlite"), expect(unused_mut, reason = "used with SQLite"))]
        let mut conn = self.pool.connect().map_err(DbError::Unavailable)?;
        #[cfg(feature = "sqlite")]
        self.file.remember(&mut conn)?;
        migrations::run(conn).map_err(|e| DbError::Migration(e.to_string()))
    }

    /// Returns the number of migrations of this build that have not been applied.
    pub fn pending_migrations(&self) -> Result<usize, DbError> {
        let conn = self.pool.connect().map_err(DbError::Unavailable)?;
        migrations::pending(conn).map_err(|e| DbError::Migration(e.to_string()))
    }

    /// Stops waiting for a result after [`DEADLINE`]; the query itself goes on. Logs the beginning and the
    /// end of an outage.
    pub(crate) async fn within_deadline<T>(
        &self,
        result: impl Future<Output = Result<T, DbError>>,
    ) -> Result<T, DbError> {
        let too_late = |_| DbError::Unavailable(format!("no answer within {DEADLINE:?}"));
        let start = Instant::now();
        let outcome = timeout(DEADLINE, result).await.map_err(too_late).flatten();
        self.outages.observe(start, &outcome);
        outcome
    }
}

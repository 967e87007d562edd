//! The migrations of each database, which are part of the binary, applied under a lock: of several
//! processes that do it at once, one works and the others wait for it.

#[cfg(feature = "sqlite")]
use std::time::{Duration, Instant};

use diesel::{connection::SimpleConnection, prelude::*};
#[cfg(feature = "mysql")]
use diesel::{
    dsl::sql,
    sql_types::{Integer, Nullable},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::db::DbConnection;
#[cfg(feature = "sqlite")]
use crate::db::{PATIENCE, is_passing};

#[cfg(feature = "sqlite")]
const SQLITE_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
#[cfg(feature = "postgres")]
const POSTGRES_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");
#[cfg(feature = "mysql")]
const MYSQL_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/mysql");

/// Any number, the same in every process: the advisory lock around migrations.
#[cfg(feature = "postgres")]
const POSTGRES_MIGRATION_LOCK: &str = "SELECT pg_advisory_lock(8386103215462740841)";

/// Such locks are the whole server's: one per database. Waits for a day.
#[cfg(feature = "mysql")]
const MYSQL_MIGRATION_LOCK: &str = "GET_LOCK(CONCAT('migrate ', MD5(DATABASE())), 86400)";

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Applies those that are pending, and returns their names.
pub(crate) fn run(conn: DbConnection) -> Result<Vec<String>, Failure> {
    match conn {
        #[cfg(feature = "sqlite")]
        DbConnection::Sqlite(mut conn) => run_on_sqlite(&mut conn),
        #[cfg(feature = "postgres")]
        DbConnection::Postgres(mut conn) => run_on_postgres(&mut conn),
        #[cfg(feature = "mysql")]
        DbConnection::Mysql(mut conn) => run_on_mysql(&mut conn),
    }
}

/// How many are pending.
pub(crate) fn pending(conn: DbConnection) -> Result<usize, Failure> {
    let pending = match conn {
        #[cfg(feature = "sqlite")]
        DbConnection::Sqlite(mut conn) => conn.pending_migrations(SQLITE_MIGRATIONS)?.len(),
        #[cfg(feature = "postgres")]
        DbConnection::Postgres(mut conn) => conn.pending_migrations(POSTGRES_MIGRATIONS)?.len(),
        #[cfg(feature = "mysql")]
        DbConnection::Mysql(mut conn) => conn.pending_migrations(MYSQL_MIGRATIONS)?.len(),
    };
    Ok(pending)
}

/// The write lock keeps other processes out.
#[cfg(feature = "sqlite")]
fn run_on_sqlite(conn: &mut SqliteConnection) -> Result<Vec<String>, Failure> {
    use_write_ahead_log(conn)?;
    conn.immediate_transaction(|conn| {
        let applied = conn.run_pending_migrations(SQLITE_MIGRATIONS)?;
        Ok(applied.iter().map(ToString::to_string).collect())
    })
}

/// With it, readers and a writer do not wait for each other. The mode is kept in the file. The
/// change needs the file for itself, and does not wait for it as other statements do.
#[cfg(feature = "sqlite")]
fn use_write_ahead_log(conn: &mut SqliteConnection) -> QueryResult<()> {
    let begun = Instant::now();
    loop {
        match conn.batch_execute("PRAGMA journal_mode = WAL") {
            Err(error) if is_passing(&error) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

/// The lock ends with the connection.
#[cfg(feature = "postgres")]
fn run_on_postgres(conn: &mut PgConnection) -> Result<Vec<String>, Failure> {
    conn.batch_execute("SET lock_timeout = 0; SET statement_timeout = 0;")?;
    conn.batch_execute(POSTGRES_MIGRATION_LOCK)?;
    let applied = conn.run_pending_migrations(POSTGRES_MIGRATIONS)?;
    Ok(applied.iter().map(ToString::to_string).collect())
}

/// Likewise. What defines tables cannot be rolled back there: each migration is one statement that
/// does no harm when it is run again.
#[cfg(feature = "mysql")]
fn run_on_mysql(conn: &mut MysqlConnection) -> Result<Vec<String>, Failure> {
    conn.batch_execute(
        "SET SESSION lock_wait_timeout = 86400 /*M! , max_statement_time = 0 */
         /*!80000 , max_execution_time = 0 */",
    )?;
    let lock = diesel::select(sql::<Nullable<Integer>>(MYSQL_MIGRATION_LOCK));
    if lock.get_result::<Option<i32>>(conn)? != Some(1) {
        return Err("another process has been at work for a day".into());
    }
    let applied = conn.run_pending_migrations(MYSQL_MIGRATIONS)?;
    Ok(applied.iter().map(ToString::to_string).collect())
}

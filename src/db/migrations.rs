//! Applies the migrations, which are embedded in the binary, under a lock: if several processes migrate
//! at once, one works and the others wait for it.

#[cfg(feature = "sqlite")]
use std::time::{Duration, Instant};

use diesel::{connection::SimpleConnection, prelude::*};
#[cfg(feature = "mysql")]
use diesel::{
    dsl::sql,
    sql_types::{Integer, Nullable},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connection::DbConnection;
#[cfg(feature = "sqlite")]
use super::{connection::LOCK_TIMEOUT, error::is_transient};

#[cfg(feature = "sqlite")]
const SQLITE_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
#[cfg(feature = "postgres")]
const POSTGRES_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");
#[cfg(feature = "mysql")]
const MYSQL_MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/mysql");

/// The advisory lock around migrations: an arbitrary number, the same in every process.
#[cfg(feature = "postgres")]
const POSTGRES_MIGRATION_LOCK: &str = "SELECT pg_advisory_lock(8386103215462740841)";

/// The lock around migrations. Locks are global to the server, so its name contains the database.
/// Waits for up to a day.
#[cfg(feature = "mysql")]
const MYSQL_MIGRATION_LOCK: &str = "GET_LOCK(CONCAT('migrate ', MD5(DATABASE())), 86400)";

type MigrationError = Box<dyn std::error::Error + Send + Sync>;

/// Applies the pending migrations and returns their names.
pub(super) fn run(conn: DbConnection) -> Result<Vec<String>, MigrationError> {
    match conn {
        #[cfg(feature = "sqlite")]
        DbConnection::Sqlite(mut conn) => run_on_sqlite(&mut conn),
        #[cfg(feature = "postgres")]
        DbConnection::Postgres(mut conn) => run_on_postgres(&mut conn),
        #[cfg(feature = "mysql")]
        DbConnection::Mysql(mut conn) => run_on_mysql(&mut conn),
    }
}

/// Returns the number of pending migrations.
pub(super) fn pending(conn: DbConnection) -> Result<usize, MigrationError> {
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

/// Migrates under SQLite's write lock.
#[cfg(feature = "sqlite")]
fn run_on_sqlite(conn: &mut SqliteConnection) -> Result<Vec<String>, MigrationError> {
    use_write_ahead_log(conn)?;
    conn.immediate_transaction(|conn| {
        let applied = conn.run_pending_migrations(SQLITE_MIGRATIONS)?;
        Ok(applied.iter().map(ToString::to_string).collect())
    })
}

/// Switches the file to WAL mode, in which readers and a writer do not wait for each other. The mode
/// is stored in the file. The change needs exclusive access and ignores `busy_timeout`, hence the
/// loop.
#[cfg(feature = "sqlite")]
fn use_write_ahead_log(conn: &mut SqliteConnection) -> QueryResult<()> {
    let begun = Instant::now();
    loop {
        match conn.batch_execute("PRAGMA journal_mode = WAL") {
            Err(error) if is_transient(&error) && begun.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

/// Migrates under an advisory lock, which ends with the connection.
#[cfg(feature = "postgres")]
fn run_on_postgres(conn: &mut PgConnection) -> Result<Vec<String>, MigrationError> {
    conn.batch_execute("SET lock_timeout = 0; SET statement_timeout = 0;")?;
    conn.batch_execute(POSTGRES_MIGRATION_LOCK)?;
    let applied = conn.run_pending_migrations(POSTGRES_MIGRATIONS)?;
    Ok(applied.iter().map(ToString::to_string).collect())
}

/// Migrates under a named lock, which ends with the connection. DDL cannot be rolled back on MySQL, so
/// each migration is one statement that can be repeated.
#[cfg(feature = "mysql")]
fn run_on_mysql(conn: &mut MysqlConnection) -> Result<Vec<String>, MigrationError> {
    conn.batch_execute(
        "SET SESSION lock_wait_timeout = 86400 /*M! , max_statement_time = 0 */
         /*!80000 , max_execution_time = 0 */",
    )?;
    let lock = diesel::select(sql::<Nullable<Integer>>(MYSQL_MIGRATION_LOCK));
    if lock.get_result::<Option<i32>>(conn)? != Some(1) {
        return Err("another process has held the migration lock for a day".into());
    }
    let applied = conn.run_pending_migrations(MYSQL_MIGRATIONS)?;
    Ok(applied.iter().map(ToString::to_string).collect())
}

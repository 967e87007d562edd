//! The ledger over rusqlite, as an example for databases other than those of Diesel: what an app implements,
//! and how its transactions announce what they make wrong.
//!
//! ```sh
//! cargo run -p everfresh --example rusqlite
//! ```

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use everfresh::{Attempt, Cache, Invalidation, Ledger, Lifetime, Memo};
use rusqlite::{Connection, Error, Row, ToSql, params, params_from_iter};

/// The database of the app. Its queries are short; a real app would run them on threads for blocking work,
/// and have a pool.
#[derive(Clone)]
struct Database(Arc<Mutex<Connection>>);

impl Database {
    fn open(file: &str) -> Result<Self, Error> {
        let conn = Connection::open(file)?;
        conn.execute_batch("CREATE TABLE IF NOT EXISTS task (name TEXT NOT NULL)")?;
        conn.execute_batch(include_str!("../migrations/sqlite.sql"))?;
        Ok(Self(Arc::new(Mutex::new(conn))))
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts a row of the ledger. Its id is random and never used again.
fn insert(conn: &Connection, invalidation: &Invalidation) -> Result<i64, Error> {
    let row = params![rand::random::<i64>(), invalidation.to_text()];
    conn.execute("INSERT INTO cache_invalidations (id, keys) VALUES (?, ?)", row)?;
    Ok(conn.last_insert_rowid())
}

fn delete(conn: &Connection, ids: &[i64]) -> Result<usize, Error> {
    let places = vec!["?"; ids.len()].join(",");
    let delete = format!("DELETE FROM cache_invalidations WHERE id IN ({places})");
    conn.execute(&delete, params_from_iter(ids))
}

fn read(row: &Row<'_>) -> Result<(i64, Invalidation), Error> {
    let text: String = row.get(1)?;
    // A text of another program names no keys; the row is removed.
    Ok((row.get(0)?, Invalidation::from_text(&text).unwrap_or_default()))
}

impl Ledger for Database {
    type Error = Error;
    type Id = i64;

    /// Rows in the order of their ids. One from the future was inserted before a clock was set back.
    async fn left(
        &self,
        after: Option<&i64>,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(i64, Invalidation)>, Error> {
        let conn = self.conn();
        let mut left = conn.prepare_cached(
            "WITH clock AS (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) now)
             SELECT id, keys FROM cache_invalidations, clock
             WHERE (created_at <= now - ?1 OR created_at > now) AND (?2 IS NULL OR id > ?2)
             ORDER BY id LIMIT ?3",
        )?;
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values: [&dyn ToSql; 3] = [&age, &after, &limit];
        left.query_map(values, read)?.collect()
    }

    async fn remove(&self, ids: &[i64]) -> Result<(), Error> {
        delete(&self.conn(), ids).map(drop)
    }

    async fn merge(&self, ids: &[i64], into: &Invalidation) -> Result<(), Error> {
        let mut conn = self.conn();
        let transaction = conn.transaction()?;
        if delete(&transaction, ids)? > 0 {
            insert(&transaction, into)?;
        }
        transaction.commit()
    }
}

/// The names of all tasks.
const TASKS: Memo<(), Vec<String>> = Memo::new("tasks", Lifetime::Forever);

async fn tasks(cache: &Cache, database: &Database) -> Result<Vec<String>, Error> {
    let query = async || {
        let conn = database.conn();
        let mut tasks = conn.prepare_cached("SELECT name FROM task ORDER BY rowid")?;
        tasks.query_map([], |row| row.get(0))?.collect()
    };
    TASKS.call(cache, &(), query).await
}

/// Adds a task. Writes what is read before and after it.
async fn run(mut out: impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let database = Database::open(":memory:")?;
    // With memcached: `Cache::from_env_with_ledger(database.clone())?`. In one process no rows are stored.
    let cache = Cache::memory(64 << 20).build();
    let writer = cache.writer(database.clone());
    writeln!(out, "before: {:?}", tasks(&cache, &database).await?)?;

    let written = writer.write(|attempt: Attempt| async move {
        let mut conn = database.conn();
        let transaction = conn.transaction()?;
        transaction.execute("INSERT INTO task (name) VALUES (?)", ["Milk"])?;
        // The last step before the commit.
        let tasks = Invalidation::of([TASKS.key(&())]);
        let row = attempt.announce(tasks, |invalidation| insert(&transaction, invalidation))?;
        transaction.commit()?;
        drop(conn);
        Ok::<_, Error>((database, row))
    });
    let database = written.await?;
    writeln!(out, "after: {:?}", tasks(&cache, &database).await?)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(io::stdout()).await
}

#[cfg(test)]
#[tokio::test]
async fn a_new_task_is_shown() {
    let mut out = Vec::new();
    run(&mut out).await.expect("the example works");
    assert_eq!(String::from_utf8_lossy(&out), "before: []\nafter: [\"Milk\"]\n");
}

#[cfg(all(test, feature = "testing"))]
#[tokio::test]
async fn the_ledger_fulfils_its_contract() {
    let database = Database::open(":memory:").expect("a database in memory");
    everfresh::testing::ledger_suite(&database, async |invalidation| {
        insert(&database.conn(), &invalidation).expect("a row");
    })
    .await;
}

//! Writes and their ledger in a database of Diesel. The tests of the app do the same on each database.

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
};
use everfresh::{
    Cache, Dialect, DieselLedger, DieselPool, DieselPoolError, DieselWriter, Invalidation, Ledger,
    Lifetime, testing::ledger_suite,
};
use memcached_client::Protocol;
use tempfile::TempDir;
use test_support::{
    memcached::{Kind, Memcached},
    wait::eventually,
};

diesel::table! {
    task (id) {
        id -> Integer,
        name -> Text,
    }
}

type Database = DieselPool<SqliteConnection>;

/// Lets a writer wait for another one.
#[derive(Debug)]
struct Patience;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Patience {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        conn.batch_execute("PRAGMA busy_timeout = 5000").map_err(diesel::r2d2::Error::QueryError)
    }
}

/// Creates a database with the tables of the app and of the ledger.
fn database() -> (Database, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("app.sqlite3").display().to_string();
    let connections = ConnectionManager::<SqliteConnection>::new(url);
    let pool = Pool::builder().max_size(2).connection_customizer(Box::new(Patience));
    let pool = pool.build(connections).unwrap();
    let mut conn = pool.get().unwrap();
    conn.batch_execute("CREATE TABLE task (id INTEGER PRIMARY KEY, name TEXT NOT NULL)").unwrap();
    conn.batch_execute(Dialect::Sqlite.migration()).unwrap();
    (DieselPool::new(pool, Dialect::Sqlite), folder)
}

async fn names(database: &Database) -> Vec<String> {
    use everfresh::DieselDatabase;

    let read = |conn: &mut SqliteConnection| Ok(task::table.select(task::name).load(conn)?);
    database.read(read).await.unwrap()
}

async fn add(writer: &DieselWriter<Database>, name: &'static str) -> Result<(), DieselPoolError> {
    let added = writer.write(move |conn| {
        diesel::insert_into(task::table).values(task::name.eq(name)).execute(conn)?;
        Ok(((), Invalidation::of(["tasks"])))
    });
    added.await
}

#[tokio::test]
async fn the_ledger_fulfils_its_contract() {
    use everfresh::DieselDatabase;

    let (database, _folder) = database();
    ledger_suite(&DieselLedger(database.clone()), async |invalidation| {
        let insert = move |conn: &mut _| Ok(DieselLedger::<Database>::insert(conn, &invalidation)?);
        database.write(insert).await.map(drop).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_write_deletes_its_entries_and_settles_its_row() {
    let server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let (database, _folder) = database();
    let ledger = DieselLedger(database.clone());
    cache.set("tasks", &"none", Lifetime::Forever).await;
    add(&cache.diesel_writer(database.clone()), "Milk").await.unwrap();
    assert_eq!(names(&database).await, ["Milk"]);
    assert_eq!(cache.get::<String>("tasks").await, None);
    eventually("the row is removed", async || ledger.backlog().await.unwrap().rows == 0).await;
}

#[tokio::test]
async fn the_row_of_an_unconfirmed_invalidation_is_replayed_when_the_server_is_back() {
    let mut server = Memcached::start(Kind::Plain);
    let cache = Cache::memcached(server.client(Protocol::Binary)).build();
    let (database, _folder) = database();
    let ledger = DieselLedger(database.clone());
    let writer = cache.diesel_writer(database.clone());
    server.kill();
    add(&writer, "Milk").await.unwrap();
    assert_eq!(ledger.backlog().await.unwrap().rows, 1);
    assert!(ledger.backlog().await.unwrap().oldest.is_some());
    assert!(server.run());
    // By a task that the writer has started: an app cannot forget it.
    eventually("the row is replayed", async || ledger.backlog().await.unwrap().rows == 0).await;
}

#[tokio::test]
async fn a_write_that_fails_is_rolled_back_and_deletes_no_entry() {
    let cache = Cache::memory(1 << 20).build();
    let (database, _folder) = database();
    let writer = cache.diesel_writer(database.clone());
    cache.set("tasks", &"none", Lifetime::Forever).await;
    let failed = writer.write(|conn| {
        diesel::insert_into(task::table).values(task::name.eq("Milk")).execute(conn)?;
        Err::<((), Invalidation), _>(diesel::result::Error::RollbackTransaction.into())
    });
    assert!(matches!(failed.await, Err(DieselPoolError::Query(_))));
    assert_eq!(names(&database).await, [""; 0]);
    assert_eq!(cache.get::<String>("tasks").await.as_deref(), Some("none"));
}

#[tokio::test]
async fn a_write_that_changes_nothing_or_shares_no_cache_stores_no_row() {
    let (database, _folder) = database();
    let ledger = DieselLedger(database.clone());
    let stored = async |cache: Cache, invalidation: Invalidation| {
        let writer = cache.diesel_writer(database.clone());
        let written = writer.write(move |conn| {
            let before = diesel::sql_query("SELECT 1").execute(conn)?;
            Ok((before, invalidation))
        });
        written.await.unwrap();
        ledger.left(None, std::time::Duration::ZERO, 10).await.unwrap().len()
    };
    let unreachable = || Cache::failing().build();
    assert_eq!(stored(unreachable(), Invalidation::default()).await, 0);
    assert_eq!(stored(Cache::memory(1 << 20).build(), Invalidation::of(["k"])).await, 0);
    assert_eq!(stored(unreachable(), Invalidation::of(["k"])).await, 1, "else it is stored");
}

#[tokio::test]
async fn writers_that_read_first_wait_for_each_other() {
    let cache = Cache::memory(1 << 20).build();
    let (database, _folder) = database();
    let writer = cache.diesel_writer(database.clone());
    let all = (0..20).map(|_| {
        writer.write(|conn| {
            // Without the write lock, a transaction that has read may not write after another.
            let tasks: i64 = task::table.count().get_result(conn)?;
            let name = task::name.eq(format!("task {tasks}"));
            diesel::insert_into(task::table).values(name).execute(conn)?;
            Ok(((), Invalidation::of(["tasks"])))
        })
    });
    for written in futures_util::future::join_all(all).await {
        written.unwrap();
    }
    let expected: Vec<_> = (0..20).map(|task| format!("task {task}")).collect();
    assert_eq!(names(&database).await, expected);
}

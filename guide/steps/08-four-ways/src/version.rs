//! Versions: the number of the last write is a part of the key, so an old entry is never asked for.

use actix_web::Result;
use diesel::{QueryResult, RunQueryDsl, SqliteConnection, prelude::*};
use everfresh::{Cache, Lifetime, Memo};
use step_01::database::{Database, Task};

diesel::table! {
    version (id) {
        id -> Integer,
        number -> Integer,
    }
}

/// Creates the table with the number. In an app of your own, a migration.
pub async fn prepare(database: &Database) -> Result<()> {
    let create = |conn: &mut SqliteConnection| {
        let create = "CREATE TABLE IF NOT EXISTS version (id INTEGER PRIMARY KEY, number INTEGER)";
        diesel::sql_query(create).execute(conn)?;
        diesel::sql_query("INSERT OR IGNORE INTO version VALUES (1, 1)").execute(conn).map(drop)
    };
    database.run(create).await
}

// ANCHOR: version
const TASKS: Memo<i32, Vec<Task>> = Memo::new("versioned tasks", Lifetime::Forever);

pub async fn tasks(cache: &Cache, database: &Database) -> Result<Vec<Task>> {
    // A query, but a cheap one. It must not come from the cache.
    let number = database.run(|conn| version::table.select(version::number).first(conn)).await?;
    TASKS.call(cache, &number, async || database.tasks().await).await
}

/// In the transaction of the write.
pub fn count_up(conn: &mut SqliteConnection) -> QueryResult<()> {
    let next = version::number.eq(version::number + 1);
    diesel::update(version::table).set(next).execute(conn).map(drop)
}
// ANCHOR_END: version

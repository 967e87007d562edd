//! A write with Diesel: the change, the row of the ledger and the deletions in one call.
//!
//! ```sh
//! cargo run -p everfresh --features diesel --example ledger
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use std::error::Error;

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{ConnectionManager, Pool},
};
use everfresh::{Cache, Dialect, DieselPool, Invalidation, Lifetime, Memo};

diesel::table! {
    task (id) {
        id -> Integer,
        name -> Text,
    }
}

const NAMES: Memo<(), Vec<String>> = Memo::new("names", Lifetime::Forever);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tasks.sqlite3").display().to_string();
    let pool = Pool::new(ConnectionManager::<SqliteConnection>::new(file))?;
    let tables = "CREATE TABLE task (id INTEGER PRIMARY KEY, name TEXT NOT NULL)";
    pool.get()?.batch_execute(tables)?;
    // In an app, this is part of a migration.
    pool.get()?.batch_execute(Dialect::Sqlite.migration())?;

    let cache = Cache::memory(1 << 20).build();
    let writer = cache.diesel_writer(DieselPool::new(pool.clone(), Dialect::Sqlite));
    let names = async || {
        let read = async || {
            println!("reading the table");
            Ok::<_, Failure>(task::table.select(task::name).load::<String>(&mut pool.get()?)?)
        };
        NAMES.call(&cache, &(), read).await
    };

    for name in ["Milk", "Tea"] {
        // It runs to its end even if the visitor leaves. If the commit fails, or its outcome is unknown, the keys
        // are deleted all the same.
        let added = writer.write(move |conn| {
            diesel::insert_into(task::table).values(task::name.eq(name)).execute(conn)?;
            Ok(((), Invalidation::of([NAMES.key(&())])))
        });
        added.await?;
        println!("{}", names().await?.join(", "));
        println!("{}", names().await?.join(", "));
    }
    Ok(())
}

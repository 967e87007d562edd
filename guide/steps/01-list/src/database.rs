//! The tasks, in a SQLite database.

use std::fmt::Display;

use actix_web::{Error, error::ErrorInternalServerError, web};
use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{self, ConnectionManager, CustomizeConnection, Pool},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use serde::{Deserialize, Serialize};

// ANCHOR: schema
diesel::table! {
    task (id) {
        id -> Integer,
        name -> Text,
    }
}

#[derive(Clone, Debug, Deserialize, Queryable, Serialize)]
pub struct Task {
    pub id: i32,
    pub name: String,
}
// ANCHOR_END: schema

/// The migrations, compiled into the program.
const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

// ANCHOR: database
/// A pool of connections.
#[derive(Clone)]
pub struct Database {
    pub pool: Pool<ConnectionManager<SqliteConnection>>,
}

impl Database {
    /// Opens the database in `guide.sqlite3`, or in the file that `DATABASE` names, and brings its tables up to date.
    pub fn open() -> Result<Self, Box<dyn std::error::Error>> {
        Self::open_file(&file())
    }

    pub fn open_file(file: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let database = Self::connect(file)?;
        database.migrate()?;
        Ok(database)
    }

    /// Opens a database as it is.
    pub fn connect(file: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let pool = Pool::builder().max_size(4).connection_customizer(Box::new(Patience));
        Ok(Self { pool: pool.build(ConnectionManager::new(file))? })
    }

    pub fn migrate(&self) -> Result<(), Box<dyn std::error::Error>> {
        let migrated = self.pool.get()?.run_pending_migrations(MIGRATIONS).map(drop);
        Ok(migrated.map_err(|error| error.to_string())?)
    }

    /// Runs a query on a thread for blocking work, so that other visitors do not wait.
    pub async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let pool = self.pool.clone();
        let run = move || {
            let mut conn = pool.get().map_err(|error| error.to_string())?;
            query(&mut conn).map_err(|error| error.to_string())
        };
        web::block(run).await?.map_err(failed)
    }

    pub async fn tasks(&self) -> Result<Vec<Task>, Error> {
        self.run(|conn| task::table.order(task::id).load(conn)).await
    }

    pub async fn insert(&self, name: String) -> Result<(), Error> {
        self.run(move |conn| insert(conn, &name)).await
    }

    pub async fn delete(&self, id: i32) -> Result<(), Error> {
        self.run(move |conn| delete(conn, id)).await
    }
}
// ANCHOR_END: database

/// The file of the database.
pub fn file() -> String {
    std::env::var("DATABASE").unwrap_or("guide.sqlite3".to_owned())
}

pub fn insert(conn: &mut SqliteConnection, name: &str) -> QueryResult<()> {
    diesel::insert_into(task::table).values(task::name.eq(name)).execute(conn).map(drop)
}

pub fn delete(conn: &mut SqliteConnection, id: i32) -> QueryResult<()> {
    diesel::delete(task::table.find(id)).execute(conn).map(drop)
}

/// An error for the visitor. Its cause is printed for you.
pub fn failed(cause: impl Display) -> Error {
    eprintln!("{cause}");
    ErrorInternalServerError("Something went wrong. Try again.")
}

/// Lets a writer wait for another one, instead of failing at once.
#[derive(Debug)]
struct Patience;

impl CustomizeConnection<SqliteConnection, r2d2::Error> for Patience {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), r2d2::Error> {
        let settings = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL";
        conn.batch_execute(settings).map_err(r2d2::Error::QueryError)
    }
}

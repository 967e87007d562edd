//! Databases for tests, and access to them without the app.

use diesel::{
    RunQueryDsl, connection::SimpleConnection, dsl::sql, select, sql_query, sql_types::BigInt,
};
use tasklist::db::DbConnection;
use tempfile::TempDir;

/// An empty database that only one test uses.
pub struct TestDatabase {
    /// The URL, as in `DATABASE_URL`.
    pub url: String,
    /// Deletes the files of an SQLite database when it is dropped.
    _folder: Option<TempDir>,
}

fn open(url: &str) -> DbConnection {
    DbConnection::open(&url.parse().unwrap()).unwrap()
}

impl TestDatabase {
    /// Creates an SQLite database in a temporary folder.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/tasks.sqlite3", folder.path().display());
        Self { url, _folder: Some(folder) }
    }

    /// Returns an existing database, which the caller removes.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), _folder: None }
    }

    /// Creates a database on the PostgreSQL server that `bin/test` started.
    pub fn postgres() -> Self {
        Self::postgres_on(&server("TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432"))
    }

    /// Creates a database on the PostgreSQL server that `bin/test` started, with a URL that uses TLS
    /// and a password.
    pub fn postgres_with_tls() -> Self {
        let example = "postgres://user:password@127.0.0.1:5432";
        Self::postgres_on(&server("TEST_POSTGRES_TLS_URL", example))
    }

    fn postgres_on(server: &str) -> Self {
        let name = format!("tasklist_{}", unique());
        let mut conn = open(&format!("{server}/postgres"));
        conn.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        Self { url: format!("{server}/{name}"), _folder: None }
    }

    /// Creates a database on the MariaDB server that `bin/test` started. Its name contains a `$`, as on
    /// PythonAnywhere.
    pub fn mysql() -> Self {
        let server = server("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306");
        let name = format!("tasklist${}", unique());
        let (place, options) = server.split_once('?').unwrap_or((&server, ""));
        let mut conn = open(&format!("{place}/mysql?{options}"));
        conn.batch_execute(&format!("CREATE DATABASE `{name}`")).unwrap();
        Self { url: format!("{place}/{name}?{options}"), _folder: None }
    }

    /// Returns `sqlite`, `postgres` or `mysql`, which is also the folder below `migrations/`.
    pub fn kind(&self) -> &str {
        self.url.split(':').next().unwrap()
    }

    /// Runs SQL on a new connection. Transactions and locks last until the connection is dropped.
    pub fn execute(&self, sql: &str) -> DbConnection {
        let mut conn = open(&self.url);
        conn.batch_execute(sql).unwrap();
        conn
    }

    /// Drops everything that the migrations have made.
    pub fn clear(&self) {
        if self.kind() == "postgres" {
            drop(self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public"));
            return;
        }
        for table in
            ["task", "task_totals", "cache_invalidations", "sessions", "__diesel_schema_migrations"]
        {
            drop(self.execute(&format!("DROP TABLE IF EXISTS {table}")));
        }
    }

    /// Blocks all writes until the returned connection is dropped.
    pub fn lock(&self) -> DbConnection {
        self.execute(match self.kind() {
            "postgres" => "BEGIN; LOCK TABLE task IN EXCLUSIVE MODE",
            "mysql" => "LOCK TABLES task READ",
            _ => "BEGIN IMMEDIATE",
        })
    }

    /// Counts the tasks in the database.
    pub fn number_of_tasks(&self) -> usize {
        let count = select(sql::<BigInt>("(SELECT COUNT(*) FROM task)"));
        usize::try_from(count.get_result::<i64>(&mut open(&self.url)).unwrap()).unwrap()
    }

    /// Returns the result of SQLite's integrity check: `ok`, or a list of faults.
    pub fn integrity(&self) -> String {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            integrity_check: String,
        }
        let rows = sql_query("PRAGMA integrity_check").load::<Row>(&mut open(&self.url)).unwrap();
        rows.into_iter().map(|row| row.integrity_check).collect()
    }

    /// Closes all connections to the database, as a server does with idle ones.
    pub fn end_connections(&self) {
        match self.kind() {
            "postgres" => drop(self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )),
            "mysql" => drop(self.execute(
                // A connection may end before it is killed (error 1094, unknown thread).
                "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END; \
                 FOR other IN (SELECT id FROM information_schema.processlist \
                 WHERE db = DATABASE() AND id <> CONNECTION_ID()) \
                 DO KILL other.id; END FOR; END",
            )),
            other => panic!("{other} has no server"),
        }
    }

    /// Runs a statement. Returns whether it succeeded.
    pub fn try_execute(&self, sql: &str) -> bool {
        sql_query(sql).execute(&mut open(&self.url)).is_ok()
    }

    /// Returns whether a connection can be opened.
    pub fn is_ready(&self) -> bool {
        DbConnection::open(&self.url.parse().unwrap()).is_ok()
    }

    /// Returns the unix socket of the server.
    pub fn socket(&self) -> std::path::PathBuf {
        let socket = if self.kind() == "mysql" {
            self.url.split_once("unix_socket=").unwrap().1.to_owned()
        } else {
            format!("{}/.s.PGSQL.5432", self.url.split(['@', '/']).nth(3).unwrap())
        };
        socket.replace("%2F", "/").into()
    }

    /// Returns the URL of the database behind a proxy on `port`.
    pub fn at_port(&self, port: u16) -> String {
        let (place, _) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (_, name) = place.rsplit_once('/').unwrap();
        let user = if self.kind() == "mysql" { "root" } else { "postgres" };
        format!("{}://{user}@127.0.0.1:{port}/{name}", self.kind())
    }
}

/// Returns the URL of a server that `bin/test` starts.
fn server(variable: &str, example: &str) -> String {
    let advice = format!("{variable} is not set; set it to a URL like {example}, or run bin/test");
    std::env::var(variable).expect(&advice)
}

/// Returns a unique part of a name.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

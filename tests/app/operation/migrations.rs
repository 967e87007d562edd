//! Migrations: equal names on every database, reversible, and safe to run concurrently.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[cfg(feature = "postgres")]
use diesel::{RunQueryDsl, connection::SimpleConnection, dsl::sql, select, sql_types::Integer};
#[cfg(feature = "postgres")]
use tasklist::db::DbConnection;
use tempfile::tempdir;
use test_support::{app::TestApp, database::TestDatabase, on_every_database_url, program::command};

on_every_database_url![
    eight_concurrent_processes_apply_each_migration_once,
    the_diesel_cli_can_run_and_redo_the_migrations,
    the_diesel_cli_without_a_folder_stops_with_the_remedy_and_leaves_nothing,
    completed_is_added_to_a_long_list_that_an_older_version_goes_on_using,
];

fn migration_names(database: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_database_has_migrations_of_the_same_names() {
    assert_eq!(migration_names("sqlite"), migration_names("postgres"));
    assert_eq!(migration_names("sqlite"), migration_names("mysql"));
    assert!(!migration_names("sqlite").is_empty());
}

#[test]
fn every_migration_can_be_undone() {
    for database in ["sqlite", "postgres", "mysql"] {
        for name in migration_names(database) {
            let down =
                format!("{}/migrations/{database}/{name}/down.sql", env!("CARGO_MANIFEST_DIR"));
            assert!(!fs::read_to_string(&down).unwrap().trim().is_empty(), "{down}");
        }
    }
}

/// Runs `tasklist migrate` and returns its standard output.
fn migrate(database: &TestDatabase) -> String {
    let folder = tempdir().unwrap();
    let settings = [("DATABASE_URL", database.url.as_str())];
    let output = command(folder.path(), &settings).arg("migrate").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn eight_concurrent_processes_apply_each_migration_once(database: &TestDatabase) {
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| migrate(database))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let lines = outputs.iter().flat_map(|output| output.lines());
    let applied = lines.filter(|line| line.starts_with("Applied ")).count();
    assert_eq!(applied, migration_names("sqlite").len(), "{outputs:?}");
}

fn cli() -> PathBuf {
    let cli = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/diesel");
    assert!(cli.exists(), "{} is missing; run bin/setup", cli.display());
    cli
}

fn diesel(database: &TestDatabase, arguments: &[&str]) {
    let folder = format!("migrations/{}", database.kind());
    let output = Command::new(cli())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["migration", "--database-url", &database.url, "--migration-dir", &folder])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn the_diesel_cli_can_run_and_redo_the_migrations(database: &TestDatabase) {
    diesel(database, &["run"]);
    diesel(database, &["redo", "--all"]);
    assert_eq!(migrate(database), "The database is up to date.\n");
    database.execute("INSERT INTO task (name) VALUES ('Milk')");
}

fn the_diesel_cli_without_a_folder_stops_with_the_remedy_and_leaves_nothing(
    database: &TestDatabase,
) {
    let output = Command::new(cli())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["migration", "run", "--database-url", &database.url])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let remedy = format!("migrations/{}", database.kind());
    assert!(error.contains("--migration-dir") && error.contains(&remedy), "{error}");
    assert!(!database.try_execute("SELECT 1 FROM __diesel_schema_migrations"));
    diesel(database, &["run"]);
}

fn completed_is_added_to_a_long_list_that_an_older_version_goes_on_using(database: &TestDatabase) {
    const TASKS: usize = 100_000;

    let since_completed = ["revert", "--number", "2"];
    diesel(database, &["run"]);
    diesel(database, &since_completed);
    let rows = match database.kind() {
        "mysql" => "INSERT INTO task (name) SELECT CONCAT('t', seq) FROM seq_1_to_100000",
        "postgres" => "INSERT INTO task (name) SELECT 't' || n FROM generate_series(1, 100000) n",
        _ => {
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
             INSERT INTO task (name) SELECT 't' || i FROM n"
        }
    };
    drop(database.execute(rows));
    assert_eq!(migrate(database), "Applied 20261127000000\nApplied 20261129000000\n");
    // The statements of the version before.
    drop(database.execute("INSERT INTO task (name) VALUES ('old')"));
    drop(database.execute("DELETE FROM task WHERE id = 7"));
    assert!(database.try_execute("SELECT id, name FROM task ORDER BY id LIMIT 1"));
    let app = TestApp::on(TestDatabase::at(&database.url));
    let page = app.browser().get("/?page=1000000000");
    assert!(page.body.contains(&format!(">{TASKS} tasks left<")), "{}", page.body);
    assert_eq!(page.task_names().last(), Some(&"old"));
    drop(app);
    diesel(database, &since_completed);
    assert_eq!(database.number_of_tasks(), TASKS);
    drop(database.execute("INSERT INTO task (name) VALUES ('older')"));
    diesel(database, &["run"]);
}

/// The version before kept the totals in one row of PostgreSQL.
#[cfg(feature = "postgres")]
#[test]
fn totals_of_postgresql_survive_being_spread_and_gathered() {
    let database = &TestDatabase::postgres();
    diesel(database, &["run"]);
    let shows = |left: &str| {
        let app = TestApp::on(TestDatabase::at(&database.url));
        let page = app.browser().get("/").body;
        assert!(page.contains(&format!(">{left} left<")), "{page}");
    };
    drop(database.execute("INSERT INTO task (name) VALUES ('a'), ('b'), ('c'), ('d')"));
    // On other connections, most of which have other rows of the totals.
    drop(database.execute("UPDATE task SET completed = TRUE WHERE name = 'a'"));
    drop(database.execute("DELETE FROM task WHERE name IN ('a', 'b')"));
    shows("2 tasks");
    diesel(database, &["revert"]);
    drop(database.execute("DELETE FROM task WHERE name = 'c'"));
    diesel(database, &["run"]);
    shows("1 task");
}

/// Returns the number of the row of the totals that a connection to PostgreSQL changes.
#[cfg(feature = "postgres")]
fn row_of_totals(conn: &mut DbConnection) -> i32 {
    select(sql::<Integer>("pg_backend_pid() % 16")).get_result(conn).unwrap()
}

#[cfg(feature = "postgres")]
#[test]
fn a_writer_with_another_row_of_the_totals_does_not_wait_for_a_commit() {
    let database = TestDatabase::postgres();
    migrate(&database);
    drop(database.execute("INSERT INTO task (name) SELECT n::text FROM generate_series(1, 9) n"));
    let mut uncommitted = database.execute("BEGIN; UPDATE task SET completed = TRUE WHERE id = 1");
    let row = row_of_totals(&mut uncommitted);
    let mut connections =
        std::iter::repeat_with(|| database.execute("SET lock_timeout = '5s'")).take(100);
    let mut other =
        connections.find_map(|mut conn| (row_of_totals(&mut conn) != row).then_some(conn)).unwrap();
    other.batch_execute("UPDATE task SET completed = TRUE WHERE id = 2").unwrap();
}

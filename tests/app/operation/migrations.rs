//! Migrations: equal names on every database, reversible, and safe to run concurrently.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::tempdir;
use test_support::{database::TestDatabase, on_every_database_url, program::command};

on_every_database_url![
    eight_concurrent_processes_apply_each_migration_once,
    the_diesel_cli_can_run_and_redo_the_migrations,
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

fn diesel(database: &TestDatabase, arguments: &[&str]) {
    let cli = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/diesel");
    assert!(cli.exists(), "{} is missing; run bin/setup", cli.display());
    let folder = format!("migrations/{}", database.kind());
    let output = Command::new(cli)
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

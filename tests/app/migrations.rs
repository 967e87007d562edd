//! The migrations: the same on every database, and each of them reversible.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::tempdir;
use test_support::{database::TestDatabase, on_every_database_url, program::command};

on_every_database_url![
    eight_processes_that_migrate_at_once_apply_each_migration_once,
    the_diesel_cli_runs_and_redoes_them_and_the_app_agrees_with_it,
];

fn names(database: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_database_has_migrations_of_the_same_names() {
    assert_eq!(names("sqlite"), names("postgres"));
    assert_eq!(names("sqlite"), names("mysql"));
    assert!(!names("sqlite").is_empty());
}

#[test]
fn every_migration_can_be_undone() {
    for database in ["sqlite", "postgres", "mysql"] {
        for name in names(database) {
            let down =
                format!("{}/migrations/{database}/{name}/down.sql", env!("CARGO_MANIFEST_DIR"));
            assert!(!fs::read_to_string(&down).unwrap().trim().is_empty(), "{down}");
        }
    }
}

/// Runs `tasklist migrate` and returns what it prints.
fn migrate(database: &TestDatabase) -> String {
    let folder = tempdir().unwrap();
    let settings = [("DATABASE_URL", database.url.as_str())];
    let output = command(folder.path(), &settings).arg("migrate").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn eight_processes_that_migrate_at_once_apply_each_migration_once(database: &TestDatabase) {
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| migrate(database))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let applied = outputs.iter().flat_map(|output| output.lines());
    let applied = applied.filter(|line| line.starts_with("Applied "));
    assert_eq!(applied.count(), names("sqlite").len(), "{outputs:?}");
}

fn diesel(database: &TestDatabase, arguments: &[&str]) {
    let cli = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/diesel");
    assert!(cli.exists(), "{} is missing; bin/setup installs it", cli.display());
    let folder = format!("migrations/{}", database.kind());
    let output = Command::new(cli)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["migration", "--database-url", &database.url, "--migration-dir", &folder])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn the_diesel_cli_runs_and_redoes_them_and_the_app_agrees_with_it(database: &TestDatabase) {
    diesel(database, &["run"]);
    diesel(database, &["redo", "--all"]);
    assert_eq!(migrate(database), "The database is up to date.\n");
    database.execute("INSERT INTO task (name) VALUES ('Milk')");
}

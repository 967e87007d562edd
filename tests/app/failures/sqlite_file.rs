//! The file of SQLite: a full disk, a limit of its size, its loss, its permissions.

use std::{path::PathBuf, process::Command};

use tempfile::tempdir;
use test_support::{
    database::TestDatabase,
    http::Browser,
    program::{Program, command},
};

#[test]
fn a_limit_of_the_size_of_files_is_a_503_and_loses_no_task() {
    let folder = tempdir().unwrap();
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("DATABASE_URL", "sqlite://tasks.sqlite3"),
        ("PATH", "/usr/bin:/bin"),
    ];
    let app = command(folder.path(), &settings);
    let mut limited = Command::new("/bin/sh");
    // In blocks of 512 bytes.
    limited.args(["-c", r#"ulimit -f 400 && exec "$0""#]).arg(app.get_program());
    limited.current_dir(folder.path()).env_clear().envs(settings);
    let program = Program::start(limited);
    let browser = Browser::new(program.address());
    let added = add_until_refused(&browser);
    assert_eq!(browser.get("/").task_names().len(), added);
    let file = folder.path().join("tasks.sqlite3");
    let database = TestDatabase::at(&format!("sqlite://{}", file.display()));
    assert_eq!(database.number_of_tasks(), added);
}

#[test]
fn a_deleted_database_file_is_a_503_until_it_is_back() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("tasks.sqlite3");
    let url = format!("sqlite://{}", file.display());
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1"), ("DATABASE_URL", url.as_str())];
    let program = Program::start(command(folder.path(), &settings));
    let browser = Browser::new(program.address());
    assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    let aside = folder.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::copy(&aside, &file).unwrap();
        }
        assert_eq!(browser.post_form("/", &[("name", "Tea")]).status, 503, "{replaced}");
        assert_eq!(browser.get("/readyz").status, 503, "{replaced}");
        assert_eq!(browser.get("/healthz").status, 200);
    }
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(browser.get("/readyz").status, 200);
    assert_eq!(browser.post_form("/", &[("name", "Tea")]).status, 303);
    assert_eq!(browser.get("/").task_names(), ["Milk", "Tea"]);
}

#[test]
fn only_its_user_can_read_a_new_database() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempdir().unwrap();
    let settings = [("PORT", "0"), ("HOST", "127.0.0.1")];
    let program = Program::start(command(folder.path(), &settings));
    Browser::new(program.address()).post_form("/", &[("name", "Milk")]);
    for file in ["tasklist.sqlite3", "tasklist.sqlite3-wal", "tasklist.sqlite3-shm"] {
        let metadata = std::fs::metadata(folder.path().join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

/// Adds tasks until one is refused with 503, and returns the number of those that were added.
fn add_until_refused(browser: &Browser) -> usize {
    let name = "x".repeat(500);
    for added in 0..2000 {
        let reply = browser.post_form("/", &[("name", &name)]);
        if reply.status != 303 {
            let answer = (reply.status, reply.header("retry-after"));
            assert_eq!(answer, (503, "5".to_owned()), "{}", reply.body);
            return added;
        }
    }
    panic!("no task was refused");
}

#[test]
fn a_full_disk_is_a_503_and_loses_no_task() {
    // The mount namespace gives the program a small file system, which is removed when it ends.
    let folder = tempdir().unwrap();
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("DATABASE_URL", "sqlite://disk/tasks.sqlite3"),
        ("PATH", "/usr/bin:/bin"),
    ];
    let app = command(folder.path(), &settings);
    let mut in_namespace = Command::new("/usr/bin/unshare");
    in_namespace.args(["--map-root-user", "--mount", "sh", "-c"]);
    in_namespace.arg(r#"mkdir disk && mount -t tmpfs -o size=400k tmpfs disk && exec "$0""#);
    in_namespace.arg(app.get_program()).current_dir(folder.path()).env_clear().envs(settings);
    let program = Program::start(in_namespace);
    let browser = Browser::new(program.address());

    let added = add_until_refused(&browser);
    assert_eq!(browser.get("/").task_names().len(), added);

    // The namespace's files are reachable from here only through /proc.
    let root = format!("/proc/{}/root", program.id());
    let disk = PathBuf::from(root + folder.path().to_str().unwrap()).join("disk");
    let copy = folder.path().join("copy.sqlite3");
    for (from, to) in [("tasks.sqlite3", ""), ("tasks.sqlite3-wal", "-wal")] {
        std::fs::copy(disk.join(from), format!("{}{to}", copy.display())).unwrap();
    }
    let database = TestDatabase::at(&format!("sqlite://{}", copy.display()));
    assert_eq!(database.integrity(), "ok");
    assert_eq!(database.number_of_tasks(), added);
}

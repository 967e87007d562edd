//! A full disk under SQLite.

use std::{path::PathBuf, process::Command};

use tempfile::tempdir;
use test_support::{
    database::TestDatabase,
    http::Browser,
    program::{Program, command},
};

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

    let name = "x".repeat(500);
    let mut added = 0;
    let refused = loop {
        let reply = browser.post_form("/", &[("name", &name)]);
        if reply.status != 303 {
            break reply;
        }
        added += 1;
        assert!(added < 2000, "the disk did not fill up");
    };
    assert_eq!(
        (refused.status, refused.header("retry-after").as_str()),
        (503, "5"),
        "{}",
        refused.body
    );
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

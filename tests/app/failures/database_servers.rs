//! Database servers that are killed, hang, have a full disk, or refuse the password.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use tempfile::tempdir;
use test_support::{
    database::TestDatabase,
    database_server::{DatabaseServer, ServerKind},
    http::Browser,
    program::{Program, command},
    secrets::{SECRET_KEY, secret},
    wait::wait_until,
};

/// Declares each test for each kind of server.
macro_rules! on_every_kind {
    ($($test:ident),+ $(,)?) => {
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test]
            fn $test() {
                super::$test(test_support::database_server::ServerKind::Postgres);
            })+
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[test]
            fn $test() {
                super::$test(test_support::database_server::ServerKind::MariaDb);
            })+
        }
    };
}

on_every_kind![
    a_full_disk_is_a_503_and_loses_nothing,
    a_killed_server_loses_no_acknowledged_task_and_is_one_outage_in_the_log,
    a_server_that_hangs_delays_no_cached_page_and_loses_nothing,
];

const OUTAGE: &str = "the database is unavailable";

fn start(folder: &Path, url: &str) -> Program {
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("DATABASE_URL", url),
        ("SECRET_KEY", SECRET_KEY),
        ("RUST_LOG", "info,tasklist::access=off,actix_server=warn"),
    ];
    let migrated = command(folder, &settings).arg("migrate").status().unwrap();
    assert!(migrated.success());
    Program::start(command(folder, &settings))
}

fn add(browser: &Browser, name: &str) -> u16 {
    browser.post_form("/", &[("name", name)]).status
}

/// Returns the log of a program that is stopped.
fn log_of(mut program: Program) -> String {
    program.terminate();
    let (status, log) = program.wait();
    assert!(status.success(), "{log}");
    log
}

fn a_killed_server_loses_no_acknowledged_task_and_is_one_outage_in_the_log(kind: ServerKind) {
    let (folder, mut server) = (tempdir().unwrap(), DatabaseServer::start(kind, None));
    let program = start(folder.path(), &server.url("tasks"));
    let (added, failed) = (Mutex::new(BTreeSet::new()), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (added, failed, is_over) = (&added, &failed, &is_over);
            let browser = Browser::new(program.address());
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{writer}-{number}");
                    match add(&browser, &name) {
                        303 => drop(added.lock().unwrap().insert(name)),
                        503 => drop(failed.fetch_add(1, Ordering::Relaxed)),
                        other => panic!("{other}"),
                    }
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        wait_until("tasks are added", || added.lock().unwrap().len() > 50);
        server.kill();
        wait_until("writes fail", || failed.load(Ordering::Relaxed) > 10);
        server.restart();
        let before = added.lock().unwrap().len();
        wait_until("tasks are added again", || added.lock().unwrap().len() > before + 50);
        is_over.store(true, Ordering::Relaxed);
    });
    let listed = BTreeSet::from_iter(Browser::new(program.address()).all_task_names());
    let added = added.into_inner().unwrap();
    assert!(added.is_subset(&listed), "lost: {:?}", added.difference(&listed));
    let log = log_of(program);
    assert_eq!(log.matches(OUTAGE).count(), 1, "{log}");
    assert_eq!(log.matches("the database answers again").count(), 1, "{log}");
}

fn a_server_that_hangs_delays_no_cached_page_and_loses_nothing(kind: ServerKind) {
    let (folder, server) = (tempdir().unwrap(), DatabaseServer::start(kind, None));
    let program = start(folder.path(), &server.url("tasks"));
    let browser = Browser::new(program.address());
    assert_eq!(add(&browser, "Milk"), 303);
    browser.get("/");
    let cached = || Browser::new(program.address()).get("/").task_names() == ["Milk"];
    assert!(cached());
    server.signal("STOP");
    thread::scope(|scope| {
        let writer = Browser::new(program.address());
        let write = scope.spawn(move || add(&writer, "Bread"));
        for _ in 0..10 {
            assert!(cached(), "the page is served from the cache");
        }
        server.signal("CONT");
        assert_eq!(write.join().unwrap(), 303, "the write goes on");
    });
    assert_eq!(Browser::new(program.address()).get("/").task_names(), ["Milk", "Bread"]);
}

fn a_full_disk_is_a_503_and_loses_nothing(kind: ServerKind) {
    let (folder, mut server) = (tempdir().unwrap(), DatabaseServer::start(kind, Some(20_000)));
    let program = start(folder.path(), &server.url("tasks"));
    let browser = Browser::new(program.address());
    let long = "x".repeat(500);
    assert_eq!(add(&browser, "Milk"), 303);
    // The last rows that fit; those of a statement that fails are not there.
    let database = TestDatabase::at(&server.url("tasks"));
    for rows in [1000, 10] {
        let numbers = match kind {
            ServerKind::Postgres => format!("generate_series(1, {rows})"),
            ServerKind::MariaDb => format!("seq_1_to_{rows}"),
        };
        let fill = format!("INSERT INTO task (name) SELECT repeat('x', 500) FROM {numbers}");
        wait_until("the disk is full", || !database.try_execute(&fill));
    }
    let mut acknowledged = 0;
    wait_until("a task does not fit", || match add(&browser, &long) {
        303 => {
            acknowledged += 1;
            false
        }
        503 => true,
        other => panic!("{other}"),
    });
    let before = database.number_of_tasks();
    server.kill();
    server.restart();
    wait_until("tasks are added again", || add(&browser, "Bread") == 303);
    assert_eq!(database.number_of_tasks(), before + 1, "{acknowledged} were acknowledged");
    let text = log_of(program);
    assert!(text.contains("check the space on the disk of the database"), "{text}");
}

#[test]
#[cfg(all(feature = "postgres", feature = "mysql"))]
fn a_wrong_password_with_encoded_characters_is_never_shown() {
    let encode = |byte| format!("%{byte:02X}");
    let encoded = secret("database").bytes().map(encode).collect::<Vec<_>>().concat();
    let server = DatabaseServer::start(ServerKind::MariaDb, None);
    let mysql = server.url("tasks").replace("root@", &format!("stranger:{encoded}@"));
    let (_, options) = mysql.split_once('?').unwrap();
    let postgres = std::env::var("TEST_POSTGRES_TLS_URL").unwrap();
    let (_, place) = postgres.split_once('@').unwrap();
    for url in [
        format!("postgres://addon:{encoded}@{place}/tasks"),
        format!("mysql://stranger:{encoded}@localhost/tasks?{options}"),
    ] {
        let folder = tempdir().unwrap();
        let settings = [("DATABASE_URL", &*url), ("SECRET_KEY", SECRET_KEY), ("RUST_LOG", "trace")];
        let output = command(folder.path(), &settings).arg("check").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        test_support::secrets::assert_no_secret(&text);
        assert!(!text.contains(&encoded), "{text}");
        assert!(text.contains("password") || text.contains("denied"), "{text}");
    }
}

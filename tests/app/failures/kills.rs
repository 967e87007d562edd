//! `kill -9` in the middle of writes.
//!
//! `KILLS=200 cargo test --all-features --test app kills` sets the number of kills per database.

use std::{collections::BTreeSet, sync::Mutex, thread, time::Duration};

use tempfile::tempdir;
use test_support::{
    database::TestDatabase,
    http::Browser,
    memcached::{Kind, Memcached},
    on_every_database_url,
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::wait_until,
};

on_every_database_url![kills_lose_no_acknowledged_task_and_leave_no_partial_one];

const WRITERS: usize = 3;

fn kills_lose_no_acknowledged_task_and_leave_no_partial_one(database: &TestDatabase) {
    let kills = std::env::var("KILLS").map_or(8, |kills| kills.parse().unwrap());
    let memcached = Memcached::start(Kind::Plain);
    let (folder, servers) = (tempdir().unwrap(), memcached.address().to_string());
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("SECRET_KEY", SECRET_KEY),
        ("DATABASE_URL", &database.url),
        ("MEMCACHIER_SERVERS", &servers),
        ("RUST_LOG", "error"),
    ];
    let migrated = command(folder.path(), &settings).arg("migrate").output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    let (mut sent, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..kills {
        let program = Program::start(command(folder.path(), &settings));
        let names = write_until_killed(program, round);
        sent.extend(names.sent);
        acknowledged.extend(names.acknowledged);
    }
    let program = Program::start(command(folder.path(), &settings));
    let shown = || BTreeSet::from_iter(Browser::new(program.address()).all_task_names());
    wait_until("the pages show all acknowledged tasks", || acknowledged.is_subset(&shown()));
    assert!(shown().is_subset(&sent), "a page shows a name that was never sent");
    assert!(acknowledged.len() >= kills, "too few writes to test: {}", acknowledged.len());
}

/// The names of the tasks of one round.
struct TaskNames {
    sent: Vec<String>,
    acknowledged: Vec<String>,
}

/// Adds tasks from several threads and kills the program at a random moment.
fn write_until_killed(program: Program, round: usize) -> TaskNames {
    let address = program.address().to_owned();
    let (sent, acknowledged) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (sent, acknowledged, browser) = (&sent, &acknowledged, Browser::new(&address));
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("{round}-{writer}-{number}-{}", "x".repeat(100));
                    sent.lock().unwrap().push(name.clone());
                    let reply = browser.try_post_form("/", &[("name", &name)]);
                    match reply.map(|reply| reply.status) {
                        Some(303) => acknowledged.lock().unwrap().push(name),
                        Some(status) => panic!("{status}"),
                        None => break,
                    }
                }
            });
        }
        wait_until("a task is acknowledged", || !acknowledged.lock().unwrap().is_empty());
        // Hits a different step of the writes in each round.
        thread::sleep(Duration::from_micros(rand::random_range(0..20_000)));
        drop(program);
    });
    TaskNames { sent: sent.into_inner().unwrap(), acknowledged: acknowledged.into_inner().unwrap() }
}

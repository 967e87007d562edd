//! No page shows a state older than the last acknowledged write.

use std::{io::Write, net::TcpStream, thread, time::Duration};

use everfresh::{DieselDatabase, DieselLedger, testing::ledger_suite};
use memcached_client::Protocol;
use tasklist::{config::DatabaseConfig, db::Db};
use test_support::{app::TestApp, database::TestDatabase, on_every_database_url, wait::wait_until};

use super::{block_on, cached_app, count_gets};

on_every_database_url![
    a_writer_that_is_killed_after_its_commit_leaves_no_stale_page,
    a_rolled_back_write_invalidates_no_entry,
    the_ledger_fulfils_its_contract,
];

#[test]
fn a_write_invalidates_all_layers_even_if_its_process_uses_none() {
    let database = TestDatabase::sqlite();
    let (reader, server) = cached_app(TestDatabase::at(&database.url), &[]);
    let address = server.address().to_string();
    let settings = [("MEMCACHIER_SERVERS", address.as_str()), ("CACHE_LAYERS", "none")];
    let writer = TestApp::with(TestDatabase::at(&database.url), &settings);
    assert_eq!(reader.browser().get("/").task_names(), [""; 0]);
    writer.with_tasks(&["Milk"]);
    assert_eq!(reader.browser().get("/").task_names(), ["Milk"]);
}

/// Fails when a route reads a cached query, or has a cached page, that writes do not invalidate.
#[test]
fn a_write_invalidates_every_query_and_page_of_all_routes() {
    /// Entries that are checked by their content when they are read, sessions, and numbers of the cache itself.
    const PROVEN: [&str; 7] = [
        "%epoch",
        "%replay",
        "%value/",
        "list-fragment/",
        "task-fragment/",
        "view-page/",
        "session/",
    ];
    /// Entries that are in a group.
    const GROUPED: [&str; 4] = ["view//active", "view//completed", "view//?page=", "tasks.page/"];

    let (app, server) = cached_app(TestDatabase::sqlite(), &[("CACHE_KEY_PREFIX", "")]);
    app.with_tasks(&["Milk", "Tea"]);
    for write in ["/", "/1/delete"] {
        app.settle();
        for page in tasklist::routes::readable_pages() {
            assert_eq!(app.browser().get(page).status, 200, "{page}");
        }
        assert_eq!(app.browser().post_form("/", &[("name", "")]).status, 422);
        app.browser().get("/?page=2");
        for page in tasklist::routes::cached_pages() {
            let key = everfresh::view_key(page);
            assert!(server.keys().contains(&key), "{page} is cached");
        }
        assert_eq!(app.browser().post_form(write, &[("name", "Bread")]).status, 303);
        let mut left = server.keys();
        let is_of = |kinds: &[&str], key: &str| kinds.iter().any(|kind| key.starts_with(kind));
        left.retain(|key| !is_of(&PROVEN, key) && !is_of(&GROUPED, key));
        assert_eq!(left, [""; 0], "{write} must invalidate these: see Tasks::invalidation");
        for page in tasklist::routes::cached_pages() {
            assert_ne!(app.browser().get(page).cache_status(), "hit", "{page} after {write}");
        }
    }
}

#[test]
fn pages_from_the_in_process_cache_are_fresh() {
    let app = TestApp::on_sqlite();
    let names = || app.browser().get("/").task_names().join(" ");
    assert_eq!(names(), "");
    app.with_tasks(&["Milk", "Tea"]);
    assert_eq!((names(), names()), ("Milk Tea".to_owned(), "Milk Tea".to_owned()));
    app.browser().post("/1/delete");
    assert_eq!(names(), "Tea");
    assert_eq!(app.browser().get("/").header("cache-status"), "everfresh; hit");
}

#[test]
fn a_new_task_that_reuses_a_deleted_id_shows_its_own_name() {
    let (app, server) = cached_app(TestDatabase::sqlite(), &[("CACHE_KEY_PREFIX", "")]);
    app.with_tasks(&["old"]);
    app.settle();
    app.browser().get("/");
    let client = server.client(Protocol::Binary);
    let fragment = block_on(client.get("task-fragment/1")).unwrap().expect("a cached row").data;
    app.browser().post("/1/delete");
    assert!(block_on(client.get("task-fragment/1")).unwrap().is_none(), "the delete removes it");
    app.with_tasks(&["new"]);
    assert_eq!(app.browser().get("/").task_ids(), ["1"], "SQLite reuses the id");
    // A reader that read the list before the delete stores its row only now.
    block_on(client.set("task-fragment/1", &fragment[..])).unwrap();
    block_on(client.delete("view//")).unwrap();
    assert_eq!(app.browser().get("/").task_names(), ["new"]);
}

/// Simulates the killed writer by the rows that it commits: the task and its entry in the ledger.
fn a_writer_that_is_killed_after_its_commit_leaves_no_stale_page(database: &TestDatabase) {
    let (app, _server) = cached_app(TestDatabase::at(&database.url), &[]);
    assert_eq!(app.browser().get("/").task_names(), [""; 0]);
    let quote = if database.kind() == "mysql" { "`" } else { "\"" };
    database.execute(&format!(
        "BEGIN; INSERT INTO task (name) VALUES ('Milk'); \
         INSERT INTO cache_invalidations (id, {quote}keys{quote}) VALUES (7, 'tasks.all\nview//'); \
         COMMIT"
    ));
    wait_until("the page shows Milk", || app.browser().get("/").task_names() == ["Milk"]);
    // A clock that was set back leaves a row dated in the future, which must be replayed too.
    database.execute(&format!(
        "BEGIN; INSERT INTO task (name) VALUES ('Tea'); \
         INSERT INTO cache_invalidations (id, {quote}keys{quote}, created_at) \
         VALUES (8, 'tasks.all view//', 9000000000000); COMMIT"
    ));
    wait_until("the page shows Tea", || app.browser().get("/").task_names() == ["Milk", "Tea"]);
}

fn a_rolled_back_write_invalidates_no_entry(database: &TestDatabase) {
    let (app, server) = cached_app(TestDatabase::at(&database.url), &[]);
    app.with_tasks(&["Milk"]);
    app.settle();
    app.browser().get("/");
    // Without the ledger's table the write fails after its task was inserted, in one transaction.
    database.execute("ALTER TABLE cache_invalidations RENAME TO hidden");
    assert_eq!(app.browser().post_form("/", &[("name", "Tea")]).status, 500);
    database.execute("ALTER TABLE hidden RENAME TO cache_invalidations");
    let view_page = || assert_eq!(app.browser().get("/").task_names(), ["Milk"]);
    assert_eq!(count_gets(&server, view_page), (1, 0));
}

fn the_ledger_fulfils_its_contract(database: &TestDatabase) {
    let settings = DatabaseConfig { url: database.url.parse().unwrap(), pool_size: 2 };
    let db = Db::new(&settings);
    db.migrate().unwrap();
    let check = || {
        block_on(ledger_suite(&DieselLedger(db.clone()), async |invalidation| {
            let insert = move |conn: &mut _| Ok(DieselLedger::<Db>::insert(conn, &invalidation)?);
            DieselDatabase::write(&db, insert).await.map(drop).unwrap();
        }));
    };
    check();
    // The table as the toolkit's own migration makes it:
    database.execute("DROP TABLE cache_invalidations");
    database.execute(db.dialect().migration());
    check();
}

const POST_MILK: &str = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nname=Milk";

#[test]
fn a_write_whose_client_hung_up_leaves_no_stale_page() {
    let app = TestApp::on_sqlite();
    for _ in 0..60 {
        app.browser().get("/");
        send_and_reset(&app, POST_MILK);
    }
    wait_until("the writes end and the page shows them all", || {
        let before = app.database.number_of_tasks();
        let shown = app.browser().get("/").task_names().len();
        before == app.database.number_of_tasks() && shown == before
    });
    assert!(app.database.number_of_tasks() > 0, "some writes were carried out");
}

/// Sends a request and resets the connection at a random point of its processing.
fn send_and_reset(app: &TestApp, request: &str) {
    let socket = socket2::Socket::from(TcpStream::connect(("127.0.0.1", app.port)).unwrap());
    (&socket).write_all(request.as_bytes()).unwrap();
    thread::sleep(Duration::from_micros(rand::random_range(0..6000)));
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

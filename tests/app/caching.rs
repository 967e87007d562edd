//! The task list cached at every level, as memcached itself counts it.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use memcached_client::Protocol;
use tempfile::tempdir;
use test_support::{
    app::TestApp,
    counting_proxy::CountingProxy,
    database::TestDatabase,
    http::Browser,
    memcached::{Kind, Memcached},
    on_every_database_url,
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::wait_until,
};

on_every_database_url![
    every_set_of_layers_costs_what_it_should,
    a_writer_that_is_killed_after_its_commit_leaves_no_stale_page,
    a_session_in_the_database_survives_the_loss_of_the_cache,
    a_write_that_is_rolled_back_makes_nothing_wrong,
];

/// The app on its own database and memcached.
fn cached_app(database: TestDatabase, settings: &[(&str, &str)]) -> (TestApp, Memcached) {
    let server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    let mut all = vec![("MEMCACHIER_SERVERS", address.as_str())];
    all.extend(settings);
    (TestApp::with(database, &all), server)
}

fn insert_tasks(database: &TestDatabase, number: usize) {
    if number > 0 {
        let values: Vec<_> = (1..=number).map(|n| format!("('task {n}')")).collect();
        database.execute(&format!("INSERT INTO task (name) VALUES {}", values.join(",")));
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn flush(server: &Memcached) {
    run(async {
        for (_, flushed) in server.client(Protocol::Binary).flush().await {
            flushed.unwrap();
        }
    });
}

/// Gets that memcached has counted meanwhile: hits and misses.
fn gets(server: &Memcached, ask: impl FnOnce()) -> (u64, u64) {
    let stats = || (server.stat("get_hits"), server.stat("get_misses"));
    let before = stats();
    ask();
    let after = stats();
    (after.0 - before.0, after.1 - before.1)
}

fn every_set_of_layers_costs_what_it_should(database: &TestDatabase) {
    for number in [0, 1, 3, 50] {
        for layers in ["query", "query,fragment", "query,fragment,view", "fragment", "view", "none"]
        {
            database.execute("DROP TABLE IF EXISTS task");
            database.execute("DROP TABLE IF EXISTS cache_invalidations");
            database.execute("DROP TABLE IF EXISTS sessions");
            database.execute("DROP TABLE IF EXISTS __diesel_schema_migrations");
            let again = TestDatabase::at(&database.url);
            let (app, server) = cached_app(again, &[("CACHE_LAYERS", layers)]);
            insert_tasks(&app.database, number);
            costs(&app, &server, layers, number as u64);
        }
    }
}

fn costs(app: &TestApp, server: &Memcached, layers: &str, n: u64) {
    let on = |layer: &str| u64::from(layers.contains(layer));
    let (query, fragment, view) = (on("query"), on("fragment"), on("view"));
    let expect = |what: &str, cost: (u64, u64), ask: &dyn Fn()| {
        assert_eq!(gets(server, ask), cost, "{what}, {n} tasks, layers {layers}");
    };
    let look = || assert_eq!(app.browser().get("/").status, 200);
    let reload = if view == 1 { (1, 0) } else { (query + fragment * n, 0) };

    expect("cold", (0, view + query + fragment * n), &look);
    expect("reload", reload, &look);
    expect("a query that the page does not use", reload, &|| {
        app.browser().get("/?x=1");
    });
    expect("HEAD", reload, &|| {
        app.browser().send("HEAD", "/", &[], "");
    });
    if view == 1 {
        let tag = app.browser().get("/").header("etag").to_owned();
        expect("304", (1, 0), &|| {
            let reply = app.browser().send("GET", "/", &[("if-none-match", &tag)], "");
            assert_eq!(reply.status, 304);
        });
    }

    let owner = app.browser();
    assert_eq!(owner.post_form("/", &[("name", "new")]).status, 303);
    app.settle();
    expect("after adding one", (fragment * n, view + query + fragment), &look);
    expect("the page with the message", (1 + query + fragment * (n + 1), 0), &|| {
        assert_eq!(owner.get("/").flashes(), ["Added “new”."]);
    });
    expect(
        "reload after that",
        if view == 1 { (1, 0) } else { (query + fragment * (n + 1), 0) },
        &look,
    );

    let page = app.browser().get("/");
    let last = page.task_ids().last().unwrap().to_string();
    assert_eq!(owner.post(&format!("/{last}/delete")).status, 303);
    app.settle();
    expect("after deleting one", (fragment * n, view + query), &look);
    expect("reload", reload, &look);
}

#[test]
fn what_is_deleted_from_the_cache_does_not_depend_on_the_layers() {
    let database = TestDatabase::sqlite();
    let (all, server) = cached_app(TestDatabase::at(&database.url), &[]);
    let address = server.address().to_string();
    let settings = [("MEMCACHIER_SERVERS", address.as_str()), ("CACHE_LAYERS", "none")];
    let other = TestApp::with(TestDatabase::at(&database.url), &settings);
    assert_eq!(all.browser().get("/").task_names(), [""; 0]);
    other.with_tasks(&["Milk"]);
    assert_eq!(all.browser().get("/").task_names(), ["Milk"]);
}

#[test]
fn a_page_from_this_process_is_as_fresh_as_one_from_memcached() {
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
fn a_visitor_with_a_message_leaves_no_trace_of_it_for_others() {
    let (app, _server) = cached_app(TestDatabase::sqlite(), &[]);
    let owner = app.browser();
    owner.post_form("/", &[("name", "Milk")]);
    let page = owner.get("/");
    assert_eq!(page.flashes(), ["Added “Milk”."]);
    assert_eq!(page.header("cache-status"), "everfresh; fwd=bypass");
    for _ in 0..2 {
        assert_eq!(app.browser().get("/").flashes(), [""; 0]);
        assert_eq!(owner.get("/").flashes(), [""; 0]);
    }
    // The marker alone shows nothing, and goes.
    let marked = app.browser().send("GET", "/", &[("cookie", "flash=1")], "");
    assert_eq!(marked.flashes(), [""; 0]);
    assert!(marked.cookie("flash").contains("Max-Age=0"));
}

#[test]
fn a_new_task_with_a_deleted_ones_id_shows_its_own_name() {
    let (app, server) = cached_app(TestDatabase::sqlite(), &[("CACHE_KEY_PREFIX", "")]);
    app.with_tasks(&["old"]);
    app.settle();
    app.browser().get("/");
    let client = server.client(Protocol::Binary);
    let fragment = run(client.get("task-fragment/1")).unwrap().expect("the row is kept").data;
    app.browser().post("/1/delete");
    assert!(run(client.get("task-fragment/1")).unwrap().is_none(), "a delete clears it");
    app.with_tasks(&["new"]);
    assert_eq!(app.browser().get("/").task_ids(), ["1"], "SQLite has given the id again");
    // A reader that has read the list before the delete stores its row only now.
    run(client.set("task-fragment/1", &fragment[..])).unwrap();
    run(client.delete("view//")).unwrap();
    assert_eq!(app.browser().get("/").task_names(), ["new"]);
}

/// What such a writer leaves is the task and the row of the ledger.
fn a_writer_that_is_killed_after_its_commit_leaves_no_stale_page(database: &TestDatabase) {
    let (app, _server) = cached_app(TestDatabase::at(&database.url), &[]);
    assert_eq!(app.browser().get("/").task_names(), [""; 0]);
    let quote = if database.kind() == "mysql" { "`" } else { "\"" };
    database.execute(&format!(
        "BEGIN; INSERT INTO task (name) VALUES ('Milk'); \
         INSERT INTO cache_invalidations (id, {quote}keys{quote}) VALUES (7, 'tasks.all\nview//'); \
         COMMIT"
    ));
    wait_until("the page shows it", || app.browser().get("/").task_names() == ["Milk"]);
    // Also when the clock has been set back meanwhile.
    database.execute(&format!(
        "BEGIN; INSERT INTO task (name) VALUES ('Tea'); \
         INSERT INTO cache_invalidations (id, {quote}keys{quote}, created_at) \
         VALUES (8, 'tasks.all view//', 9000000000000); COMMIT"
    ));
    wait_until("the page shows it", || app.browser().get("/").task_names() == ["Milk", "Tea"]);
}

/// Sends a request and hangs up hard.
fn ask_and_reset(app: &TestApp, request: &str) {
    let socket = socket2::Socket::from(TcpStream::connect(("127.0.0.1", app.port)).unwrap());
    (&socket).write_all(request.as_bytes()).unwrap();
    // Time for the write to be somewhere on its way, another place each time.
    std::thread::sleep(std::time::Duration::from_micros(rand::random_range(0..6000)));
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[test]
fn a_write_whose_client_has_hung_up_leaves_no_stale_page() {
    let app = TestApp::on_sqlite();
    let body = "name=Milk";
    let request =
        format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let number = || app.database.number_of_tasks();
    for _ in 0..60 {
        app.browser().get("/");
        ask_and_reset(&app, &request);
    }
    wait_until("all is written that will be, and shown", || {
        let before = number();
        let shown = app.browser().get("/").task_names().len();
        before == number() && shown == before
    });
}

fn a_write_that_is_rolled_back_makes_nothing_wrong(database: &TestDatabase) {
    let (app, server) = cached_app(TestDatabase::at(&database.url), &[]);
    app.with_tasks(&["Milk"]);
    app.settle();
    app.browser().get("/");
    // Such an insert fails after the task has been stored, in the same transaction.
    database.execute("ALTER TABLE cache_invalidations RENAME TO hidden");
    assert_eq!(app.browser().post_form("/", &[("name", "Tea")]).status, 500);
    database.execute("ALTER TABLE hidden RENAME TO cache_invalidations");
    let look = || assert_eq!(app.browser().get("/").task_names(), ["Milk"]);
    assert_eq!(gets(&server, look), (1, 0));
}

#[test]
fn a_session_in_the_cache_survives_a_restart_of_the_app() {
    let (folder, server) = (tempdir().unwrap(), Memcached::start(Kind::Plain));
    let address = server.address().to_string();
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("SECRET_KEY", SECRET_KEY),
        ("MEMCACHIER_SERVERS", address.as_str()),
        ("MEMCACHE_TIMEOUT", "10s"),
    ];
    let first = Program::start(command(folder.path(), &settings));
    let added = Browser::new(first.address()).post_form("/", &[("name", "Milk")]);
    drop(first);
    let second = Program::start(command(folder.path(), &settings));
    let cookies = ["id", "flash"].map(|name| added.cookie(name).split(';').next().unwrap());
    let headers = [("cookie", &*cookies.join("; "))];
    let page = Browser::new(second.address()).send("GET", "/", &headers, "");
    assert_eq!(page.flashes(), ["Added “Milk”."]);
}

#[test]
fn a_session_survives_a_change_of_the_secret_key_if_the_one_before_is_named() {
    let new_key = SECRET_KEY.to_uppercase();
    for (previous, flashes) in [(SECRET_KEY, 1), ("", 0), (new_key.as_str(), 0)] {
        let (folder, server) = (tempdir().unwrap(), Memcached::start(Kind::Plain));
        let address = server.address().to_string();
        let start = |settings: &[(&str, &str)]| {
            let common = [
                ("PORT", "0"),
                ("HOST", "127.0.0.1"),
                ("MEMCACHIER_SERVERS", address.as_str()),
                ("MEMCACHE_TIMEOUT", "10s"),
            ];
            Program::start(command(folder.path(), &[&common, settings].concat()))
        };
        let first = start(&[("SECRET_KEY", SECRET_KEY)]);
        let added = Browser::new(first.address()).post_form("/", &[("name", "Milk")]);
        drop(first);
        let second = start(&[("SECRET_KEY", &new_key), ("SECRET_KEY_PREVIOUS", previous)]);
        let cookies = ["id", "flash"].map(|name| added.cookie(name).split(';').next().unwrap());
        let headers = [("cookie", &*format!("a=b; {}; c=d", cookies.join("; ")))];
        let page = Browser::new(second.address()).send("GET", "/", &headers, "");
        assert_eq!(page.flashes().len(), flashes, "{previous}");
    }
}

fn a_session_in_the_database_survives_the_loss_of_the_cache(database: &TestDatabase) {
    let (app, server) =
        cached_app(TestDatabase::at(&database.url), &[("SESSION_STORE", "cached_db")]);
    let browser = app.browser();
    browser.post_form("/", &[("name", "Milk")]);
    flush(&server);
    assert_eq!(browser.get("/").flashes(), ["Added “Milk”."]);
    assert_eq!(browser.get("/").flashes(), [""; 0]);
    browser.post("/1/delete");
    assert_eq!(browser.get("/").flashes(), ["Deleted “Milk”."]);
}

/// Every row of the HTTP interface, with the cache in whatever state.
fn everything_works(browser: &Browser, with_messages: bool) {
    let names = |page: &test_support::http::Reply| page.task_names().len();
    let before = names(&browser.get("/"));
    assert_eq!(browser.send("HEAD", "/", &[], "").status, 200);
    assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    let page = browser.get("/");
    assert_eq!((page.status, names(&page)), (200, before + 1));
    assert_eq!(page.flashes().is_empty(), !with_messages);
    assert_eq!(browser.post_form("/", &[("name", " ")]).status, 422);
    let id = page.task_ids().last().unwrap().to_string();
    assert_eq!(browser.post(&format!("/{id}/delete")).status, 303);
    assert_eq!(names(&browser.get("/")), before);
    assert_eq!(browser.post(&format!("/{id}/delete")).status, 303);
    assert_eq!(browser.get(&format!("/{id}/delete")).status, 405);
    assert_eq!(browser.get("/nowhere").status, 404);
    assert_eq!(browser.get("/healthz").status, 200);
    assert_eq!(browser.get("/readyz").status, 200);
}

#[test]
fn with_memcached_never_there_everything_works() {
    let address = format!("{}:11211", test_support::memcached::own_address());
    let app = TestApp::with(TestDatabase::sqlite(), &[("MEMCACHIER_SERVERS", &address)]);
    everything_works(&app.browser(), false);
    assert!(app.browser().get("/readyz").body.contains("\"cache\":\"degraded\""));
}

#[test]
fn with_memcached_refusing_the_log_in_everything_works() {
    let server = Memcached::start(Kind::Sasl);
    let address = server.address().to_string();
    let settings = [
        ("MEMCACHIER_SERVERS", address.as_str()),
        ("MEMCACHIER_USERNAME", "tester"),
        ("MEMCACHIER_PASSWORD", "wrong"),
    ];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    everything_works(&app.browser(), false);
}

#[test]
fn with_memcached_answering_garbage_everything_works() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    if stream.write_all(&[0x47; 100]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let app = TestApp::with(TestDatabase::sqlite(), &[("MEMCACHIER_SERVERS", &address)]);
    everything_works(&app.browser(), false);
}

#[test]
fn with_memcached_logged_in_to_by_sasl_everything_works() {
    let server = Memcached::start(Kind::Sasl);
    let address = server.address().to_string();
    let settings = [
        ("MEMCACHIER_SERVERS", address.as_str()),
        ("MEMCACHIER_USERNAME", test_support::memcached::USER),
        ("MEMCACHIER_PASSWORD", test_support::memcached::PASSWORD),
    ];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    everything_works(&app.browser(), true);
    assert!(app.browser().get("/readyz").body.contains("\"cache\":\"ok\""));
}

#[test]
fn with_the_text_protocol_everything_works() {
    let (app, server) = cached_app(TestDatabase::sqlite(), &[("MEMCACHE_PROTOCOL", "text")]);
    everything_works(&app.browser(), true);
    let look = || assert_eq!(app.browser().get("/").status, 200);
    look();
    assert_eq!(gets(&server, look), (1, 0));
}

/// Through an outage and back: pages are right at any time, and from the cache again afterwards.
fn through_an_outage(begin: impl Fn(&mut Memcached), end: impl Fn(&mut Memcached)) {
    let mut server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    // How long a visitor waits for a server that hangs.
    let settings = [("MEMCACHIER_SERVERS", address.as_str()), ("MEMCACHE_TIMEOUT", "3s")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    everything_works(&app.browser(), true);
    app.browser().get("/");
    begin(&mut server);
    everything_works(&app.browser(), false);
    app.with_tasks(&["Tea"]);
    end(&mut server);
    wait_until("pages come from the cache again", || {
        let page = app.browser().get("/");
        assert_eq!(page.task_names(), ["Tea"]);
        page.header("cache-status") == "everfresh; hit"
    });
    everything_works(&app.browser(), true);
}

#[test]
fn with_memcached_killed_everything_works_and_pages_are_cached_when_it_is_back() {
    through_an_outage(Memcached::kill, |server| assert!(server.run()));
}

#[test]
fn with_memcached_hung_everything_works_and_no_old_page_is_shown_when_it_goes_on() {
    through_an_outage(|server| server.signal("STOP"), |server| server.signal("CONT"));
}

#[test]
fn an_outage_is_one_line_in_the_log() {
    let (folder, mut server) = (tempdir().unwrap(), Memcached::start(Kind::Plain));
    let address = server.address().to_string();
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("MEMCACHIER_SERVERS", address.as_str()),
        ("MEMCACHE_TIMEOUT", "10s"),
    ];
    let mut program = Program::start(command(folder.path(), &settings));
    let browser = Browser::new(program.address());
    browser.get("/");
    server.kill();
    for _ in 0..20 {
        assert_eq!(browser.get("/").status, 200);
    }
    program.terminate();
    let (_, log) = program.wait();
    let lines: Vec<_> =
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let about_it = lines.iter().filter(|line| line.contains("memcached")).count();
    assert_eq!(about_it, 1, "{lines:#?}");
}

#[test]
fn lists_of_thousands_of_tasks_are_served_whole_in_few_round_trips() {
    let proxy = CountingProxy::start();
    let address = proxy.address();
    let settings = [("MEMCACHIER_SERVERS", address.as_str())];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    for (number, more) in [(2_000, 2_000), (12_000, 10_000)] {
        insert_tasks(&app.database, more);
        flush(proxy.server());
        proxy.round_trips();
        for _ in 0..3 {
            let page = app.browser().get("/");
            assert_eq!((page.status, page.task_names().len()), (200, number));
        }
        let round_trips = proxy.round_trips();
        assert!(round_trips < 100, "{round_trips} for three pages of {number} tasks");
    }
    assert_eq!(app.browser().get("/").header("cache-status"), "everfresh; hit");
}

#[test]
fn who_can_write_to_memcached_can_neither_make_nor_exchange_a_page() {
    let (app, server) = cached_app(TestDatabase::sqlite(), &[("CACHE_KEY_PREFIX", "")]);
    app.with_tasks(&["Milk"]);
    app.settle();
    app.browser().get("/");
    let client = server.client(Protocol::Binary);
    let page = || app.browser().get("/");
    let stored = |key: &str| run(client.get(key)).unwrap().unwrap().data;
    // As another app of this make would store it, which does not know the secret.
    let forged = everfresh::Cache::memcached(server.client(Protocol::Binary)).build();
    for key in ["view//", "tasks.all", "task-fragment/1"] {
        run(forged.set(key, &vec![("<script>", 1)], everfresh::Lifetime::Forever));
        assert_eq!(page().task_names(), ["Milk"], "{key}");
    }
    // A true entry under another key.
    page();
    run(client.set("task-fragment/1", &stored("tasks.all")[..])).unwrap();
    run(client.set("view//", &stored("task-fragment/1")[..])).unwrap();
    assert_eq!(page().task_names(), ["Milk"]);
    // And a damaged one.
    for key in ["tasks.all", "task-fragment/1", "view//"] {
        page();
        let mut bytes = stored(key).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        run(client.set(key, &bytes[..])).unwrap();
        if key != "view//" {
            run(client.delete("view//")).unwrap();
        }
        assert_eq!(page().task_names(), ["Milk"], "{key}");
    }
}

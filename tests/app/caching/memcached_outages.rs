//! The app while memcached is unreachable, hung, refusing the log-in or answering garbage.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use memcached_client::ServerAddress;
use tempfile::tempdir;
use test_support::{
    app::TestApp,
    database::TestDatabase,
    http::{Browser, Reply},
    memcached::{Certificate, Kind, Memcached, PASSWORD, USER, own_address},
    program::{Program, command},
    wait::wait_until,
};

use super::{cached_app, count_gets};

/// Uses each route of the app.
fn assert_everything_works(browser: &Browser) {
    let number_of_tasks = |page: &Reply| page.task_names().len();
    let before = number_of_tasks(&browser.get("/"));
    assert_eq!(browser.send("HEAD", "/", &[], "").status, 200);
    assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    let page = browser.get("/");
    assert_eq!((page.status, number_of_tasks(&page)), (200, before + 1));
    assert_eq!(page.flashes(), ["Added “Milk”."]);
    assert_eq!(browser.post_form("/", &[("name", " ")]).status, 422);
    let id = page.task_ids().last().unwrap().to_string();
    assert_eq!(browser.post(&format!("/{id}/delete")).status, 303);
    assert_eq!(number_of_tasks(&browser.get("/")), before);
    assert_eq!(browser.post(&format!("/{id}/delete")).status, 303);
    assert_eq!(browser.get(&format!("/{id}/delete")).status, 405);
    assert_eq!(browser.get("/nowhere").status, 404);
    assert_eq!(browser.get("/healthz").status, 200);
    assert_eq!(browser.get("/readyz").status, 200);
}

#[test]
fn with_memcached_unreachable_from_the_start_everything_works() {
    let address = format!("{}:11211", own_address());
    let app = TestApp::with(TestDatabase::sqlite(), &[("MEMCACHIER_SERVERS", &address)]);
    assert_everything_works(&app.browser());
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
    assert_everything_works(&app.browser());
}

/// Starts a server that answers each read with bytes of no protocol.
fn start_garbage_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    if stream.write_all(&[0x47; 100]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn with_memcached_answering_garbage_everything_works() {
    let address = start_garbage_server().to_string();
    let app = TestApp::with(TestDatabase::sqlite(), &[("MEMCACHIER_SERVERS", &address)]);
    assert_everything_works(&app.browser());
}

#[test]
fn with_a_log_in_by_sasl_everything_works() {
    let server = Memcached::start(Kind::Sasl);
    let address = server.address().to_string();
    let settings = [
        ("MEMCACHIER_SERVERS", address.as_str()),
        ("MEMCACHIER_USERNAME", USER),
        ("MEMCACHIER_PASSWORD", PASSWORD),
    ];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    assert_everything_works(&app.browser());
    assert!(app.browser().get("/readyz").body.contains("\"cache\":\"ok\""));
}

#[test]
fn with_the_protocols_of_text_everything_works() {
    for protocol in ["meta", "text"] {
        let (app, server) = cached_app(TestDatabase::sqlite(), &[("MEMCACHE_PROTOCOL", protocol)]);
        assert_everything_works(&app.browser());
        let view_page = || assert_eq!(app.browser().get("/").status, 200);
        view_page();
        assert_eq!(count_gets(&server, view_page), (1, 0), "{protocol}");
    }
}

/// Checks that pages are right before, during and after an outage, and come from the cache again.
fn assert_works_through_an_outage(begin: impl Fn(&mut Memcached), end: impl Fn(&mut Memcached)) {
    let mut server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    // The time-out bounds the delay of each page while the server hangs.
    let settings = [("MEMCACHIER_SERVERS", address.as_str()), ("MEMCACHE_TIMEOUT", "3s")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    assert_everything_works(&app.browser());
    app.browser().get("/");
    begin(&mut server);
    assert_everything_works(&app.browser());
    app.with_tasks(&["Tea"]);
    end(&mut server);
    wait_until("pages come from the cache again", || {
        let page = app.browser().get("/");
        assert_eq!(page.task_names(), ["Tea"]);
        page.header("cache-status") == "everfresh; hit"
    });
    assert_everything_works(&app.browser());
}

#[test]
fn pages_are_cached_in_a_server_with_tls() {
    let mut server = Memcached::start(Kind::TlsSasl);
    let ServerAddress::Tls { host, port } = server.address() else { panic!("no TLS") };
    server.use_certificate(&Certificate::of(&host));
    server.restart();
    let (address, ca_file) = (format!("{host}:{port}"), server.ca_file().display().to_string());
    let settings = [
        ("MEMCACHE_SERVERS", address.as_str()),
        ("MEMCACHE_USERNAME", USER),
        ("MEMCACHE_PASSWORD", PASSWORD),
        ("MEMCACHE_TLS", "yes"),
        ("MEMCACHE_CA_FILE", &ca_file),
        ("MEMCACHE_TIMEOUT", "10s"),
    ];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    assert_everything_works(&app.browser());
    app.browser().get("/");
    assert_eq!(app.browser().get("/").cache_status(), "hit");
}

#[test]
fn with_memcached_killed_everything_works_and_after_a_restart_pages_are_cached_again() {
    assert_works_through_an_outage(Memcached::kill, |server| assert!(server.run()));
}

#[test]
fn with_memcached_hung_everything_works_and_no_old_page_is_served_when_it_resumes() {
    assert_works_through_an_outage(|server| server.signal("STOP"), |server| server.signal("CONT"));
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
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    let about_memcached = warnings.iter().filter(|line| line.contains("memcached")).count();
    assert_eq!(about_memcached, 1, "{warnings:#?}");
}

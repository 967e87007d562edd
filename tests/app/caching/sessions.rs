//! Sessions and their messages, in the cache and in the database.

use tempfile::tempdir;
use test_support::{
    app::TestApp,
    database::TestDatabase,
    http::{Browser, Reply},
    memcached::{Kind, Memcached},
    on_every_database_url,
    program::{Program, command},
    secrets::SECRET_KEY,
    wait::wait_until,
};

use super::{cached_app, flush};

on_every_database_url![a_session_in_the_database_survives_the_loss_of_the_cache];

#[test]
fn a_visitor_with_a_message_leaves_no_trace_of_it_for_others() {
    let (app, _server) = cached_app(TestDatabase::sqlite(), &[]);
    let author = app.browser();
    author.post_form("/", &[("name", "Milk")]);
    let page = author.get("/");
    assert_eq!(page.flashes(), ["Added “Milk”."]);
    assert_eq!(page.header("cache-status"), "everfresh; fwd=bypass");
    for _ in 0..2 {
        assert_eq!(app.browser().get("/").flashes(), [""; 0]);
        assert_eq!(author.get("/").flashes(), [""; 0]);
    }
    // The marker cookie without a session shows no message and is removed.
    let marked = app.browser().send("GET", "/", &[("cookie", "flash=1")], "");
    assert_eq!(marked.flashes(), [""; 0]);
    assert!(marked.cookie("flash").contains("Max-Age=0"));
}

/// Returns the `name=value` parts of a reply's session and marker cookies, as a `Cookie` header.
fn session_cookies(reply: &Reply) -> String {
    ["id", "flash"].map(|name| reply.cookie(name).split(';').next().unwrap()).join("; ")
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
    let headers = [("cookie", &*session_cookies(&added))];
    let page = Browser::new(second.address()).send("GET", "/", &headers, "");
    assert_eq!(page.flashes(), ["Added “Milk”."]);
}

#[test]
fn a_session_in_a_cookie_ends_with_its_lifetime_whoever_keeps_the_cookie() {
    let settings = [("SESSION_STORE", "cookie"), ("SESSION_LIFETIME", "3s")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    let cookies = session_cookies(&app.browser().post_form("/", &[("name", "Milk")]));
    let flashes = || app.browser().get_with("/", &[("cookie", &cookies)]).flashes();
    assert_eq!(flashes(), ["Added “Milk”."]);
    wait_until("the session has ended", || flashes().is_empty());
}

#[test]
fn a_session_survives_a_new_secret_key_only_if_the_previous_one_is_set() {
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
        let headers = [("cookie", &*format!("a=b; {}; c=d", session_cookies(&added)))];
        let page = Browser::new(second.address()).send("GET", "/", &headers, "");
        assert_eq!(page.flashes().len(), flashes, "{previous}");
    }
}

#[test]
fn what_does_not_fit_into_the_session_is_deleted_without_undo() {
    let app = TestApp::with(TestDatabase::sqlite(), &[("SESSION_STORE", "cookie")]);
    let browser = app.with_tasks(&["Milk", &"🦀".repeat(500)]);
    browser.post("/1/delete");
    assert!(browser.get("/").body.contains(r#"action="/undo""#), "a short name fits");
    browser.post("/2/delete");
    let page = browser.get("/");
    assert!(page.flashes()[0].starts_with("Deleted “🦀"), "{:?}", page.flashes());
    assert!(!page.body.contains(r#"action="/undo""#));
    browser.post("/undo");
    let page = browser.get("/");
    assert!(page.flashes()[0].starts_with("There is nothing to undo"), "{:?}", page.flashes());
    assert_eq!(page.task_names(), [""; 0], "the one that was deleted before stays deleted");
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

//! Sessions, in the cache and in the database, and the messages in a cookie of their own.

use tempfile::tempdir;
use test_support::{
    app::TestApp,
    database::TestDatabase,
    http::Browser,
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
    // A cookie that the app has not signed shows no message and is removed.
    let forged = app.browser().send("GET", "/", &[("cookie", "flash=1")], "");
    assert_eq!(forged.flashes(), [""; 0]);
    assert!(forged.cookie("flash").contains("Max-Age=0"));
}

#[test]
fn only_what_can_be_undone_starts_a_session() {
    let (app, _server) = cached_app(TestDatabase::sqlite(), &[]);
    let browser = app.with_tasks(&["Milk"]);
    for change in ["/1/complete", "/1/reopen", "/complete-all"] {
        let changed = browser.post(change);
        assert_eq!((changed.status, changed.cookie("id")), (303, ""), "{change}");
    }
    assert_ne!(browser.post("/1/delete").cookie("id"), "");
    assert!(browser.post("/undo").cookie("id").contains("Max-Age=0"), "the session is empty");
}

/// Deletes the first task. Returns the cookies of the reply, as a `Cookie` header.
fn delete_first(browser: &Browser) -> String {
    let deleted = browser.post("/1/delete");
    ["id", "flash"].map(|name| deleted.cookie(name).split(';').next().unwrap()).join("; ")
}

/// Undoes the deletion of a visitor with these cookies. Returns the last message that the next page shows.
fn undo(browser: impl Fn() -> Browser, cookies: &str) -> String {
    let undone = browser().send("POST", "/undo", &[("cookie", cookies)], "");
    let messages = undone.cookie("flash").split(';').next().unwrap();
    browser().get_with("/", &[("cookie", messages)]).flashes().pop().unwrap()
}

const BROUGHT_BACK: &str = "Brought back 1 task.";

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
    let browser = Browser::new(first.address());
    browser.post_form("/", &[("name", "Milk")]);
    let cookies = delete_first(&browser);
    drop(first);
    let second = Program::start(command(folder.path(), &settings));
    assert_eq!(undo(|| Browser::new(second.address()), &cookies), BROUGHT_BACK);
}

#[test]
fn a_session_in_a_cookie_ends_with_its_lifetime_whoever_keeps_the_cookie() {
    let settings = [("SESSION_STORE", "cookie"), ("SESSION_LIFETIME", "3s")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    let cookies = delete_first(&app.with_tasks(&["Milk"]));
    assert_eq!(undo(|| app.browser(), &cookies), BROUGHT_BACK);
    wait_until("the session has ended", || undo(|| app.browser(), &cookies) != BROUGHT_BACK);
}

#[test]
fn messages_and_a_session_survive_a_new_secret_key_only_if_the_previous_one_is_set() {
    let new_key = SECRET_KEY.to_uppercase();
    for (previous, is_kept) in [(SECRET_KEY, true), ("", false), (new_key.as_str(), false)] {
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
        let browser = Browser::new(first.address());
        browser.post_form("/", &[("name", "Milk")]);
        browser.get("/");
        let cookies = format!("a=b; {}; c=d", delete_first(&browser));
        drop(first);
        let second = start(&[("SECRET_KEY", &new_key), ("SECRET_KEY_PREVIOUS", previous)]);
        let browser = || Browser::new(second.address());
        let page = browser().get_with("/", &[("cookie", &cookies)]);
        assert_eq!(page.flashes().is_empty(), !is_kept, "{previous}");
        assert_eq!(undo(browser, &cookies) == BROUGHT_BACK, is_kept, "{previous}");
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
    let browser = app.with_tasks(&["Milk"]);
    browser.post("/1/delete");
    flush(&server);
    browser.post("/undo");
    assert_eq!(browser.get("/").flashes().pop().unwrap(), BROUGHT_BACK);
    assert_eq!(browser.get("/").task_names(), ["Milk"]);
}

//! Every row of the HTTP interface.

use std::io::{BufReader, Write};
use test_support::{
    app::TestApp,
    http::{Browser, RawReply, Reply},
    on_every_database,
    program::{Program, command},
    wait::PATIENCE,
};

#[cfg(feature = "postgres")]

on_every_database![
    a_blank_or_missing_name_is_refused_and_nothing_is_stored,
    a_cross_site_form_changes_nothing,
    a_lock_that_is_held_for_too_long_is_a_503_that_says_when_to_try_again,
    a_deleted_task_is_gone_and_the_next_page_says_so_once,
    a_name_may_hold_anything_that_can_be_read,
    a_name_of_500_characters_is_accepted,
    a_name_that_is_too_long_is_refused_with_the_limit_and_kept_in_the_form,
    a_new_task_is_listed_and_the_next_page_says_so_once,
    a_query_that_the_page_does_not_use_is_ignored,
    an_internal_error_shows_its_page_and_nothing_of_itself,
    an_unknown_id_was_already_gone,
    control_characters_in_a_name_are_refused,
    flash_messages_are_bounded_and_the_latest_are_kept,
    head_answers_like_get_without_a_body,
    head_leaves_the_message_for_the_page,
    ids_that_are_no_positive_64_bit_integer_are_not_found,
    the_empty_list_shows_only_the_form,
    the_probes_answer,
    the_tasks_are_listed_oldest_first,
    white_space_around_a_name_is_trimmed,
];

fn the_empty_list_shows_only_the_form(app: &TestApp) {
    let page = app.browser().get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.body.contains("New Task"));
    assert!(page.body.contains(r#"name="name""#));
    assert!(page.body.contains(r#"placeholder="Task Name""#));
    assert!(page.body.contains(">Add Task</button>"));
    assert!(!page.body.contains("Current Tasks"));
}

fn the_tasks_are_listed_oldest_first(app: &TestApp) {
    let page = app.with_tasks(&["one", "two", "three"]).get("/");
    assert!(page.body.contains("Current Tasks"));
    assert_eq!(page.task_names(), ["one", "two", "three"]);
    assert_eq!(page.task_ids(), ["1", "2", "3"]);
}

fn a_new_task_is_listed_and_the_next_page_says_so_once(app: &TestApp) {
    let browser = app.browser();
    let answer = browser.post_form("/", &[("name", "Milk")]);
    assert_eq!((answer.status, answer.header("location").as_str()), (303, "/"));
    let page = browser.get("/");
    assert_eq!(page.task_names(), ["Milk"]);
    assert_eq!(page.flashes(), ["Added “Milk”."]);
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(browser.get("/").flashes(), [""; 0]);
    assert_eq!(app.browser().get("/").flashes(), [""; 0], "the message is for one visitor");
}

fn a_deleted_task_is_gone_and_the_next_page_says_so_once(app: &TestApp) {
    let browser = app.with_tasks(&["one", "two"]);
    let answer = browser.post("/1/delete");
    assert_eq!((answer.status, answer.header("location").as_str()), (303, "/"));
    let page = browser.get("/");
    assert_eq!(page.task_names(), ["two"]);
    assert_eq!(page.flashes(), ["Deleted “one”."]);
    assert_eq!(browser.get("/").flashes(), [""; 0]);
}

fn an_unknown_id_was_already_gone(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for id in ["2", "9223372036854775807"] {
        assert_eq!(browser.post(&format!("/{id}/delete")).status, 303);
        let page = browser.get("/");
        assert_eq!(page.flashes(), ["That task was already gone."]);
        assert_eq!(page.task_names(), ["one"]);
    }
}

fn ids_that_are_no_positive_64_bit_integer_are_not_found(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for id in ["0", "-1", "+1", "1.0", "abc", "1e0", "9223372036854775808", "%31%00", "٣", "1/1"] {
        assert_eq!(browser.post(&format!("/{}/delete", percent(id))).status, 404, "{id}");
    }
    assert_eq!(browser.get("/").task_names(), ["one"]);
}

fn percent(id: &str) -> String {
    id.replace('٣', "%D9%A3")
}

fn a_blank_or_missing_name_is_refused_and_nothing_is_stored(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for body in ["", "name=", "name=+++", "name=%20%09%0D%0A", "task=two", "name", "=", "&&&"] {
        let page = browser.post_body("/", body);
        assert_eq!(page.status, 422, "{body}");
        assert!(page.body.contains("Task name is required."), "{body}");
        assert_eq!(page.task_names(), ["one"], "{body}");
    }
    assert_eq!(browser.post("/").status, 422, "without a content type");
    assert_eq!(browser.get("/").task_names(), ["one"]);
}

fn a_name_that_is_too_long_is_refused_with_the_limit_and_kept_in_the_form(app: &TestApp) {
    let browser = app.browser();
    let name = "ä".repeat(501);
    let page = browser.post_form("/", &[("name", &name)]);
    assert_eq!(page.status, 422);
    assert!(page.body.contains("501 characters, and the limit is 500"));
    assert!(page.body.contains(&format!(r#"value="{name}""#)));
    assert_eq!(browser.get("/").task_names(), [""; 0]);
}

fn a_name_of_500_characters_is_accepted(app: &TestApp) {
    let browser = app.browser();
    let name = "🦀".repeat(500);
    assert_eq!(browser.post_form("/", &[("name", &name)]).status, 303);
    let page = browser.get("/");
    assert_eq!(page.task_names(), [name]);
    assert_eq!(page.flashes(), [format!("Added “{}…”.", "🦀".repeat(80))]);
}

fn control_characters_in_a_name_are_refused(app: &TestApp) {
    let browser = app.browser();
    for c in ["%00", "%01", "%0A", "%0D%0A", "%09", "%1B", "%7F", "%C2%85"] {
        let page = browser.post_body("/", &format!("name=a{c}b"));
        assert_eq!(page.status, 422, "{c}");
        assert!(page.body.contains("control characters"), "{c}");
    }
    assert_eq!(browser.post_body("/", "name=%00").status, 422);
    assert_eq!(browser.get("/").task_names(), [""; 0]);
}

fn white_space_around_a_name_is_trimmed(app: &TestApp) {
    assert_eq!(
        app.with_tasks(&[" \t two  words \u{3000}\n"]).get("/").task_names(),
        ["two  words"]
    );
}

fn a_name_may_hold_anything_that_can_be_read(app: &TestApp) {
    let markup = r#"<script>alert("1")</script> & 'q'"#;
    let names = [markup, "{{ 7 * 7 }} {% raw %}", "'; DROP TABLE task; --", "شراء الحليب", "👩‍👧‍👦"];
    let page = app.with_tasks(&names).get("/");
    let unescaped: Vec<_> = page.task_names().iter().map(|name| unescape(name)).collect();
    assert_eq!(unescaped, names);
    assert!(!page.body.contains("<script"));
}

fn unescape(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'")]
        .iter()
        .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
        .replace("&amp;", "&")
}

fn flash_messages_are_bounded_and_the_latest_are_kept(app: &TestApp) {
    let browser = app.browser();
    for n in 1..=9 {
        let name = format!("{n}{}", "\"".repeat(499));
        assert_eq!(browser.post_form("/", &[("name", &name)]).status, 303);
    }
    let flashes = browser.get("/").flashes();
    assert_eq!(flashes.len(), 5);
    assert!(flashes[4].starts_with("Added “9"), "{flashes:?}");
}

fn head_answers_like_get_without_a_body(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    for path in ["/", "/healthz", "/readyz", "/nowhere"] {
        let (get, head) = (browser.get(path), browser.send("HEAD", path, &[], ""));
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, "", "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

fn head_leaves_the_message_for_the_page(app: &TestApp) {
    let browser = app.browser();
    browser.post_form("/", &[("name", "Milk")]);
    assert_eq!(browser.send("HEAD", "/", &[], "").header("set-cookie"), "");
    assert_eq!(browser.get("/").flashes(), ["Added “Milk”."]);
}

fn a_lock_that_is_held_for_too_long_is_a_503_that_says_when_to_try_again(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let _holder = app.database.lock();
    let reply = browser.post_form("/", &[("name", "two")]);
    assert_eq!((reply.status, reply.header("retry-after").as_str()), (503, "5"));
    assert_error_page(&reply);
}

fn a_query_that_the_page_does_not_use_is_ignored(app: &TestApp) {
    assert_eq!(app.with_tasks(&["one"]).get("/?x=1&name=two").task_names(), ["one"]);
}

fn the_probes_answer(app: &TestApp) {
    let browser = app.browser();
    let health = browser.get("/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));
    let ready = browser.get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.header("content-type"), "application/json");
    assert!(ready.body.contains(r#""database":"ok""#));
}

fn an_internal_error_shows_its_page_and_nothing_of_itself(app: &TestApp) {
    let browser = app.browser();
    app.database.execute("DROP TABLE task");
    for reply in [browser.get("/"), browser.post_form("/", &[("name", "Milk")])] {
        assert_eq!(reply.status, 500);
        assert_error_page(&reply);
        for internal in ["table", "relation", "SELECT", "INSERT", "diesel"] {
            assert!(!reply.body.contains(internal), "{internal}: {}", reply.body);
        }
    }
}

fn a_cross_site_form_changes_nothing(app: &TestApp) {
    let browser = app.with_tasks(&["one"]);
    let headers =
        [("sec-fetch-site", "cross-site"), ("content-type", "application/x-www-form-urlencoded")];
    for (path, body) in [("/", "name=two"), ("/1/delete", "")] {
        let reply = browser.send("POST", path, &headers, body);
        assert_eq!(reply.status, 403, "{path}");
        assert_error_page(&reply);
    }
    assert_eq!(browser.get("/").task_names(), ["one"]);
}

fn assert_error_page(reply: &Reply) {
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.body.contains("/static/style-"), "in the app's own style: {}", reply.body);
    let id = reply.body.split("<code>").nth(1).and_then(|rest| rest.split('<').next());
    assert_eq!(id.map(str::len), Some(16), "with a request id: {}", reply.body);
}

// What does not depend on the database.

fn app() -> (TestApp, Browser) {
    let app = TestApp::on_sqlite();
    let browser = app.browser();
    (app, browser)
}

#[test]
fn what_is_not_there_is_a_styled_404() {
    let (_app, browser) = app();
    for path in ["/nowhere", "/1", "/static/", "/static/style.css", "/static/../Cargo.toml", "//"] {
        let reply = browser.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert_error_page(&reply);
    }
}

#[test]
fn a_wrong_method_is_a_styled_405_that_names_the_right_ones() {
    let (_app, browser) = app();
    let allowed = |method, path| {
        let reply = browser.send(method, path, &[], "");
        assert_eq!(reply.status, 405, "{method} {path}");
        if method != "HEAD" {
            assert_error_page(&reply);
        }
        let mut methods: Vec<_> = reply.header("allow").split(", ").map(str::to_owned).collect();
        methods.sort();
        methods.join(" ")
    };
    assert_eq!(allowed("GET", "/1/delete"), "POST");
    assert_eq!(allowed("HEAD", "/1/delete"), "POST");
    assert_eq!(allowed("PUT", "/"), "GET HEAD POST");
    assert_eq!(allowed("DELETE", "/"), "GET HEAD POST");
    assert_eq!(allowed("OPTIONS", "/"), "GET HEAD POST");
    assert_eq!(allowed("POST", "/healthz"), "GET HEAD");
    assert_eq!(allowed("BREW", "/healthz"), "GET HEAD");
}

#[test]
fn every_kind_of_answer_carries_the_security_headers() {
    let (_app, browser) = app();
    let asset = stylesheet(&browser);
    let tag = browser.get("/").header("etag").to_owned();
    let not_modified = browser.send("GET", "/", &[("if-none-match", &tag)], "");
    assert_eq!(not_modified.status, 304);
    let paths = ["/", "/nowhere", "/1/delete", "/healthz", asset.as_str()];
    let replies = paths.map(|path| (path, browser.get(path)));
    for (path, reply) in replies.into_iter().chain([("304", not_modified)]) {
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(reply.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(reply.header("strict-transport-security"), "", "{path}: not in development");
    }
}

fn stylesheet(browser: &Browser) -> String {
    let page = browser.get("/").body;
    let start = page.find("/static/style-").expect("the page names its stylesheet");
    page[start..].split('"').next().unwrap().to_owned()
}

#[test]
fn static_files_may_be_kept_for_ever() {
    let (_app, browser) = app();
    let reply = browser.get(&stylesheet(&browser));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "public, max-age=31536000, immutable");
    assert!(reply.body.contains(":focus-visible"));
}

#[test]
fn a_page_without_a_message_must_be_asked_for_again_each_time() {
    let (_app, browser) = app();
    assert_eq!(browser.get("/").header("cache-control"), "private, no-cache");
}

#[test]
fn a_visitor_who_has_only_looked_gets_no_cookie_and_one_who_has_read_a_message_loses_it() {
    let (app, browser) = app();
    assert_eq!(browser.get("/").header("set-cookie"), "");
    let added = browser.post_form("/", &[("name", "Milk")]);
    for name in ["id", "flash"] {
        let cookie = added.cookie(name);
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    }
    let page = browser.get("/");
    for name in ["id", "flash"] {
        assert!(page.cookie(name).contains("Max-Age=0"), "{name}");
    }
    assert_eq!(browser.get("/").header("set-cookie"), "");
    drop(app);
}

#[test]
fn a_forged_or_damaged_session_cookie_is_an_empty_session() {
    let (_app, browser) = app();
    for cookie in ["id=", "id=forged", "id=%00%ff", "id=\"", "=;;=", "id=a; id=b"] {
        let page = browser.send("GET", "/", &[("cookie", cookie)], "");
        assert_eq!(page.status, 200, "{cookie}");
        assert_eq!(page.flashes(), [""; 0], "{cookie}");
    }
}

#[test]
fn a_body_over_the_limit_is_a_styled_413() {
    let (_app, browser) = app();
    let reply = browser.post_body("/", &format!("name={}", "x".repeat(8 * 1024)));
    assert_eq!(reply.status, 413);
    assert_error_page(&reply);
    assert_eq!(browser.get("/").task_names(), [""; 0]);
}

#[test]
fn a_cached_page_is_no_way_around_the_bounds_of_a_body() {
    let (app, browser) = app();
    browser.get("/");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(chunk.repeat(2).as_bytes()).unwrap();
    let reply = RawReply::read(&mut BufReader::new(stream)).unwrap();
    assert!(reply.head.starts_with("http/1.1 413"), "{}", reply.head);
}

#[test]
fn a_body_that_does_not_arrive_is_a_408_after_its_deadline() {
    let app = TestApp::on_sqlite();
    let unending = ["content-length: 9", "transfer-encoding: chunked", "upgrade: websocket"];
    let streams = unending.map(|header| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = if header.starts_with("upgrade") { "upgrade" } else { "keep-alive" };
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\n{header}\r\n\r\n"
        )
        .unwrap();
        (header, stream)
    });
    for (header, stream) in streams {
        let reply = RawReply::read(&mut BufReader::new(stream)).unwrap();
        assert!(reply.head.starts_with("http/1.1 408"), "{header}: {}", reply.head);
    }
}

#[test]
#[cfg(feature = "postgres")]
fn without_its_database_the_app_lives_and_says_that_it_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("DATABASE_URL", "postgres://user:hunter2@127.0.0.1:1/none"),
    ];
    let mut program = Program::start(command(folder.path(), &settings));
    let browser = Browser::new(program.address());
    assert_eq!(browser.get("/healthz").status, 200);
    let ready = browser.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains(r#""database":"unavailable""#), "{}", ready.body);
    let page = browser.get("/");
    assert_eq!((page.status, page.header("retry-after").as_str()), (503, "5"));
    assert_error_page(&page);
    program.terminate();
    assert!(!program.wait().1.contains("hunter2"));
}

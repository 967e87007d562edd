//! Status codes, headers, cookies and limits that do not depend on the database.

use std::{
    io::{BufReader, Write},
    net::TcpStream,
};

use test_support::{
    app::TestApp,
    http::{Browser, RawReply},
    wait::PATIENCE,
};

use super::assert_error_page;

fn app() -> (TestApp, Browser) {
    let app = TestApp::on_sqlite();
    let browser = app.browser();
    (app, browser)
}

/// Opens a connection for requests that no HTTP client would send.
fn connect(app: &TestApp) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

const MISSING_PATHS: [&str; 6] =
    ["/nowhere", "/1/", "/static/", "/static/style.css", "/static/../Cargo.toml", "//"];

#[test]
fn a_missing_path_is_a_styled_404() {
    let (_app, browser) = app();
    for path in MISSING_PATHS {
        let reply = browser.get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert_error_page(&reply);
    }
}

/// Methods that a path does not support, and the methods that it does.
const WRONG_METHODS: [(&str, &str, &str); 7] = [
    ("GET", "/1/delete", "POST"),
    ("HEAD", "/1/delete", "POST"),
    ("PUT", "/", "GET HEAD POST"),
    ("DELETE", "/", "GET HEAD POST"),
    ("OPTIONS", "/", "GET HEAD POST"),
    ("POST", "/healthz", "GET HEAD"),
    ("BREW", "/healthz", "GET HEAD"),
];

#[test]
fn a_wrong_method_is_a_styled_405_that_names_the_allowed_ones() {
    let (_app, browser) = app();
    for (method, path, allowed) in WRONG_METHODS {
        let reply = browser.send(method, path, &[], "");
        assert_eq!(reply.status, 405, "{method} {path}");
        if method != "HEAD" {
            assert_error_page(&reply);
        }
        let mut methods: Vec<_> = reply.header("allow").split(", ").map(str::to_owned).collect();
        methods.sort();
        assert_eq!(methods.join(" "), allowed, "{method} {path}");
    }
}

#[test]
fn every_kind_of_answer_carries_the_security_headers() {
    let (_app, browser) = app();
    let asset = stylesheet(&browser);
    let tag = browser.get("/").header("etag");
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

/// Returns the path of the stylesheet that the page links to.
fn stylesheet(browser: &Browser) -> String {
    let page = browser.get("/").body;
    let start = page.find("/static/style-").expect("the page links to its stylesheet");
    page[start..].split('"').next().unwrap().to_owned()
}

#[test]
fn static_files_are_cacheable_for_a_year() {
    let (_app, browser) = app();
    let reply = browser.get(&stylesheet(&browser));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/css; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "public, max-age=31536000, immutable");
    assert!(reply.body.contains(":focus-visible"));
}

#[test]
fn a_page_without_a_message_must_be_revalidated() {
    let (_app, browser) = app();
    assert_eq!(browser.get("/").header("cache-control"), "private, no-cache");
}

#[test]
fn only_a_change_sets_cookies_and_showing_its_message_removes_that_one() {
    let (_app, browser) = app();
    assert_eq!(browser.get("/").header("set-cookie"), "");
    let added = browser.post_form("/", &[("name", "Milk")]);
    let cookie = added.cookie("flash");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    assert!(browser.get("/").cookie("flash").contains("Max-Age=0"));
    assert_eq!(browser.get("/").header("set-cookie"), "");
    // What can be undone is in a session.
    let cookie = browser.post("/1/delete").cookie("id").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
}

#[test]
fn a_name_with_controls_of_the_text_direction_does_not_reverse_the_title() {
    let (_app, browser) = app();
    browser.post_form("/", &[("name", "a\u{2069}\u{202e}b")]);
    let page = browser.get("/").body;
    assert!(page.contains("<title>Added “ab” – Task List</title>"), "{page}");
    assert!(page.contains("<bdi>a\u{2069}\u{202e}b</bdi>"), "{page}");
}

#[test]
fn deleting_an_unknown_id_starts_no_session() {
    let (_app, browser) = app();
    let deleted = browser.post("/999/delete");
    assert_eq!((deleted.status, deleted.cookie("id")), (303, ""));
    assert_eq!(browser.get("/").flashes(), ["That task was already gone."]);
    assert_eq!(browser.get("/").flashes(), [""; 0], "the message is shown once");
}

#[test]
fn messages_are_shown_together_if_no_page_was_loaded_between_them() {
    let (_app, browser) = app();
    browser.post_form("/", &[("name", "Milk")]);
    browser.post("/999/delete");
    assert_eq!(browser.get("/").flashes(), ["Added “Milk”.", "That task was already gone."]);
}

const INVALID_COOKIES: [&str; 6] = ["id=", "id=forged", "id=%00%ff", "id=\"", "=;;=", "id=a; id=b"];

#[test]
fn a_forged_or_damaged_session_cookie_is_an_empty_session() {
    let (_app, browser) = app();
    for cookie in INVALID_COOKIES {
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
fn the_body_limit_of_413_applies_to_cached_pages_too() {
    let (app, browser) = app();
    browser.get("/");
    let mut stream = connect(&app);
    let head = "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(chunk.repeat(2).as_bytes()).unwrap();
    let reply = RawReply::read(&mut BufReader::new(stream)).unwrap();
    assert!(reply.head.starts_with("http/1.1 413"), "{}", reply.head);
}

/// Requests without the body that their headers announce.
const REQUESTS_WITHOUT_THEIR_BODY: [&str; 3] = [
    "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive\r\ncontent-length: 9\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
];

#[test]
fn a_body_that_does_not_arrive_is_a_408_after_its_deadline() {
    let app = TestApp::on_sqlite();
    let streams = REQUESTS_WITHOUT_THEIR_BODY.map(|request| {
        let mut stream = connect(&app);
        stream.write_all(request.as_bytes()).unwrap();
        (request, stream)
    });
    for (request, stream) in streams {
        let reply = RawReply::read(&mut BufReader::new(stream)).unwrap();
        assert!(reply.head.starts_with("http/1.1 408"), "{request}: {}", reply.head);
    }
}

#[test]
#[cfg(feature = "postgres")]
fn without_its_database_the_app_starts_and_reports_that_it_is_not_ready() {
    use test_support::program::{Program, command};

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

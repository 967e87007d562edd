//! `/metrics`, the charts on `/cache`, and the access log.

use std::collections::HashMap;

use tempfile::tempdir;
use test_support::{
    app::TestApp,
    database::TestDatabase,
    http::Browser,
    program::{Program, command},
    secrets::SECRET_KEY,
};

/// Returns the figures of `/metrics` by name and labels.
fn metrics(browser: &Browser) -> HashMap<String, f64> {
    let page = browser.get("/metrics");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("application/openmetrics-text"));
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(page.body.ends_with("# EOF\n"));
    let lines = page.body.lines().filter(|line| !line.starts_with('#'));
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(figure).collect()
}

#[test]
fn metrics_count_requests_cache_hits_and_connections_in_openmetrics_text() {
    let app = TestApp::on_sqlite();
    let browser = app.with_tasks(&["Milk"]);
    for _ in 0..3 {
        app.browser().get("/");
    }
    browser.get("/nothing/here");
    let figures = metrics(&browser);
    let figure = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    assert!(
        (figure(r#"tasklist_http_requests_total{route="POST /",status="303"}"#) - 1.0).abs() < 0.1
    );
    assert!(
        (figure(r#"tasklist_http_requests_total{route="GET /",status="200"}"#) - 4.0).abs() < 0.1
    );
    assert!(
        (figure(r#"tasklist_http_requests_total{route="other",status="404"}"#) - 1.0).abs() < 0.1
    );
    let count = r#"tasklist_http_request_duration_seconds_count{route="GET /"}"#;
    assert!((figure(count) - 4.0).abs() < 0.1);
    assert!(figure(r#"tasklist_cache_hits_total{layer="view"}"#) >= 2.0);
    assert!(figure("tasklist_database_connections") >= 1.0);
    assert!((figure("tasklist_database_up") - 1.0).abs() < 0.1);
    assert!((figure("tasklist_ledger_rows") - 0.0).abs() < 0.1);
}

#[test]
fn in_production_metrics_need_the_admin_token() {
    let settings = [("APP_ENV", "production"), ("ADMIN_TOKEN", "a token that is long enough")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    let status = |authorization: &str| {
        app.browser().send("GET", "/metrics", &[("authorization", authorization)], "").status
    };
    assert_eq!(app.browser().get("/metrics").status, 401);
    assert_eq!(status("Bearer another token"), 401);
    assert_eq!(status("Bearer a token that is long enough"), 200);
    let hidden = TestApp::with(TestDatabase::sqlite(), &[("APP_ENV", "production")]);
    assert_eq!(hidden.browser().get("/metrics").status, 404);
}

#[test]
fn the_cache_page_shows_the_last_minutes_as_charts_and_text() {
    let app = TestApp::on_sqlite();
    app.with_tasks(&["Milk"]);
    for _ in 0..3 {
        app.browser().get("/");
    }
    let page = app.browser().get("/cache").body;
    assert_eq!(page.matches("<svg ").count(), 2);
    assert!(page.contains(r#"<rect class="foot""#), "{page}");
    let phrases = ["Last 1 min: ", " hits, ", " misses in all layers", " requests, "];
    assert!(phrases.iter().all(|phrase| page.contains(phrase)), "{page}");
}

/// Requests a missing page and stops the program. Returns the page and the access log, each line as
/// its `name=value` pairs.
fn access_log(
    settings: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> (String, Vec<HashMap<String, String>>) {
    let folder = tempdir().unwrap();
    let mut all = vec![("PORT", "0"), ("HOST", "127.0.0.1"), ("SECRET_KEY", SECRET_KEY)];
    all.extend(settings);
    let mut program = Program::start(command(folder.path(), &all));
    let page = Browser::new(program.address()).send("GET", "/nothing%20here?q=1", headers, "").body;
    program.terminate();
    let (_, output) = program.wait();
    let lines = output.lines().filter(|line| line.contains(" tasklist::access] "));
    let pairs = |line: &str| {
        let (_, pairs) = line.split_once("] ").unwrap();
        let pairs = pairs.split(' ').map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    (page, lines.map(pairs).collect())
}

#[test]
fn every_request_is_a_line_of_pairs_with_the_id_shown_on_the_error_page() {
    let forged = [("x-forwarded-for", "203.0.113.7"), ("x-request-id", "forged")];
    let (page, lines) = access_log(&[], &forged);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!((&*line["method"], &*line["path"]), ("GET", "/nothing%20here"));
    assert_eq!(line["status"], "404");
    assert!(line["micros"].parse::<u64>().is_ok());
    assert!(line["id"] != "forged" && page.contains(&line["id"]), "{page}");
}

#[test]
fn in_production_http_requests_through_a_trusted_proxy_are_redirected_to_https() {
    let trusting =
        [("APP_ENV", "production"), ("TRUSTED_PROXIES", "127.0.0.1"), ("ALLOWED_HOSTS", "*")];
    let ask = |settings: &[(&str, &str)], path: &str, scheme: &str| {
        let app = TestApp::with(TestDatabase::sqlite(), settings);
        let headers = [("x-forwarded-proto", scheme), ("host", "tasks.example:80")];
        let reply = app.browser().send("GET", path, &headers, "");
        (reply.status, reply.header("location"))
    };
    let redirect = (308, "https://tasks.example/?a=b".to_owned());
    for scheme in ["http", "HTTP", "http, http", "http,http"] {
        assert_eq!(ask(&trusting, "/?a=b", scheme), redirect, "{scheme}");
    }
    assert_eq!(ask(&trusting, "/", "https, http").0, 200, "the client used TLS");
    assert_eq!(ask(&trusting, "/", "https").0, 200);
    assert_eq!(ask(&trusting, "/healthz", "http").0, 200);
    assert_eq!(
        ask(&trusting[..1], "/", "http").0,
        200,
        "the header counts only from a trusted proxy"
    );
    assert_eq!(ask(&trusting[1..], "/", "http").0, 200, "development has no TLS");
}

#[test]
fn a_trusted_proxy_names_the_visitor_and_the_request() {
    let headers = [("x-forwarded-for", "198.51.100.1, 203.0.113.7"), ("x-request-id", "abc-123")];
    let (page, lines) = access_log(&[("TRUSTED_PROXIES", "127.0.0.0/8")], &headers);
    assert_eq!((&*lines[0]["client"], &*lines[0]["id"]), ("203.0.113.7", "abc-123"));
    assert!(page.contains("abc-123"), "{page}");
}

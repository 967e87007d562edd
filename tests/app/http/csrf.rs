//! Cross-site request forgery: the requests of a browser that may change the list.

use test_support::app::TestApp;

/// POST requests: the value of `Sec-Fetch-Site`, the kind of `Origin` (see `origin_value`) and the
/// expected status. An empty string stands for an absent header.
const POSTS: [(&str, &str, u16); 25] = [
    ("none", "", 303),
    ("none", "null", 303),
    ("none", "own", 303),
    ("none", "other port", 303),
    ("none", "other host", 303),
    ("same-origin", "", 303),
    ("same-origin", "null", 303),
    ("same-origin", "own", 303),
    ("same-origin", "other port", 303),
    ("same-origin", "other host", 303),
    ("same-site", "", 403),
    ("same-site", "null", 403),
    ("same-site", "own", 403),
    ("same-site", "other port", 403),
    ("same-site", "other host", 403),
    ("cross-site", "", 403),
    ("cross-site", "null", 403),
    ("cross-site", "own", 403),
    ("cross-site", "other port", 403),
    ("cross-site", "other host", 403),
    // Without `Sec-Fetch-Site` the origin decides; without both, the client is not a browser.
    ("", "", 303),
    ("", "null", 403),
    ("", "own", 303),
    ("", "other port", 403),
    ("", "other host", 403),
];

fn origin_value(kind: &str, port: u16) -> String {
    match kind {
        "own" => format!("http://127.0.0.1:{port}"),
        "other port" => format!("http://127.0.0.1:{}", port.wrapping_add(1)),
        "other host" => format!("http://localhost:{port}"),
        as_it_is => as_it_is.to_owned(),
    }
}

#[test]
fn a_post_is_accepted_only_from_the_site_itself_or_without_a_browser() {
    let app = TestApp::on_sqlite();
    let browser = app.browser();
    let mut added = Vec::new();
    for (site, kind, status) in POSTS {
        let name = format!("site: {site}, origin: {kind}").trim_end().to_owned();
        let origin = origin_value(kind, app.port);
        let mut headers = vec![("sec-fetch-site", site), ("origin", origin.as_str())];
        headers.retain(|(_, value)| !value.is_empty());
        for method in ["GET", "HEAD"] {
            assert_eq!(browser.send(method, "/", &headers, "").status, 200, "{method} {name}");
        }
        headers.push(("content-type", "application/x-www-form-urlencoded"));
        let form = serde_urlencoded::to_string([("name", &name)]).unwrap();
        assert_eq!(browser.send("POST", "/", &headers, &form).status, status, "{name}");
        if status == 303 {
            added.push(name);
        }
    }
    assert_eq!(browser.get("/").task_names(), added, "refused requests add no task");
}

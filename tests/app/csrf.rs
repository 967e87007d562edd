//! Which requests of a browser may change something.

use test_support::app::TestApp;

const SITES: [&str; 5] = ["none", "same-origin", "same-site", "cross-site", ""];

/// Whether a POST passes; an empty value stands for a header that is absent.
fn passes(site: &str, origin: &str) -> bool {
    match site {
        "none" | "same-origin" => true,
        "" => matches!(origin, "" | "own"),
        _ => false,
    }
}

#[test]
fn a_post_passes_only_from_the_site_itself_or_from_no_browser() {
    let app = TestApp::on_sqlite();
    let browser = app.browser();
    let port = app.port;
    let origins = [
        ("", String::new()),
        ("null", "null".to_owned()),
        ("own", format!("http://127.0.0.1:{port}")),
        ("other port", format!("http://127.0.0.1:{}", port.wrapping_add(1))),
        ("other host", format!("http://localhost:{port}")),
    ];
    let mut expected = Vec::new();
    for site in SITES {
        for (kind, origin) in &origins {
            let name = format!("site: {site}, origin: {kind}").trim_end().to_owned();
            let fields = [("sec-fetch-site", site), ("origin", origin)];
            let mut headers: Vec<_> = fields.into_iter().filter(|(_, v)| !v.is_empty()).collect();
            for method in ["GET", "HEAD"] {
                assert_eq!(browser.send(method, "/", &headers, "").status, 200, "{method} {name}");
            }
            headers.push(("content-type", "application/x-www-form-urlencoded"));
            let form = serde_urlencoded::to_string([("name", &name)]).unwrap();
            let status = browser.send("POST", "/", &headers, &form).status;
            assert_eq!(status, if passes(site, kind) { 303 } else { 403 }, "{name}");
            if passes(site, kind) {
                expected.push(name);
            }
        }
    }
    assert_eq!(browser.get("/").task_names(), expected, "what was refused changed nothing");
}

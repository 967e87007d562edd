//! The names under which the app answers: `ALLOWED_HOSTS`.

use test_support::{app::TestApp, database::TestDatabase, http::exchange, secrets::SECRET_KEY};

/// Values of `Host` that name another site, or are malformed.
const OTHER_HOSTS: [&str; 5] = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:80",
    "user@localhost",
    "a b",
];

#[test]
fn in_development_another_host_sees_and_changes_nothing() {
    let app = TestApp::on_sqlite();
    app.with_tasks(&["secret task"]);
    let browser = app.browser();
    browser.get("/");
    assert_eq!(browser.get("/").header("cache-status"), "everfresh; hit", "the page is cached");
    for host in OTHER_HOSTS {
        let page = browser.get_with("/", &[("host", host)]);
        assert_eq!(page.status, 421, "{host}");
        assert!(page.body.contains("Wrong address") && !page.body.contains("secret task"));
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{host}");
        let form = [("host", host), ("content-type", "application/x-www-form-urlencoded")];
        assert_eq!(browser.send("POST", "/", &form, "name=forged").status, 421, "{host}");
    }
    assert_eq!(browser.get("/").task_names(), ["secret task"]);
}

#[test]
fn in_development_loopback_names_and_addresses_are_answered() {
    let app = TestApp::on_sqlite();
    for host in ["localhost", "LOCALHOST:8080", "app.localhost", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(app.browser().get_with("/", &[("host", host)]).status, 200, "{host}");
    }
}

#[test]
fn in_production_the_listed_hosts_and_those_of_the_public_origin_are_answered() {
    for (setting, value) in [
        ("ALLOWED_HOSTS", "other.example, .tasks.example"),
        ("PUBLIC_ORIGIN", "https://www.tasks.example"),
    ] {
        let settings = [("APP_ENV", "production"), ("SECRET_KEY", SECRET_KEY), (setting, value)];
        let app = TestApp::with(TestDatabase::sqlite(), &settings);
        for (host, status) in [("www.tasks.example", 200), ("evil.example", 421)] {
            let page = app.browser().get_with("/", &[("host", host)]);
            assert_eq!(page.status, status, "{setting}: {host}");
        }
        assert_eq!(app.browser().get("/healthz").status, 200, "probes name the machine");
    }
}

#[test]
fn a_request_without_a_usable_host_is_refused_and_not_redirected() {
    let settings =
        [("APP_ENV", "production"), ("SECRET_KEY", SECRET_KEY), ("TRUSTED_PROXIES", "127.0.0.1")];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    for hosts in ["Host:\r\n", "Host: /\r\n", "Host: a\r\nHost: b\r\n", ""] {
        let stream = std::net::TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        let request = format!("GET / HTTP/1.1\r\n{hosts}X-Forwarded-Proto: http\r\n\r\n");
        let reply = exchange(&mut std::io::BufReader::new(stream), &request).unwrap();
        // Actix refuses two hosts, and none, by itself.
        let status = if hosts.matches("Host").count() == 1 { "421" } else { "400" };
        assert!(reply.head.starts_with(&format!("http/1.1 {status}")), "{hosts:?}: {}", reply.head);
    }
}

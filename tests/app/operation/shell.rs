//! The commands `tasklist cache …` and `tasklist check`, and the page `/cache`.

use std::process::Output;

use everfresh::{Cache, Lifetime};
use memcached_client::Protocol;
use tempfile::tempdir;
use test_support::{
    app::TestApp,
    database::TestDatabase,
    http::Browser,
    memcached::{Kind, Memcached, PASSWORD, USER},
    program::{Program, command},
    wait::wait_until,
};

/// Runs a command; returns its exit code, standard output and standard error.
fn run(settings: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let folder = tempdir().unwrap();
    let output = command(folder.path(), settings).args(arguments).output().unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn cache_commands_set_get_and_delete_values_and_name_the_server() {
    let servers = [Memcached::start(Kind::Sasl), Memcached::start(Kind::Sasl)];
    let addresses = servers.each_ref().map(|server| server.address().to_string());
    // In production the cache commands need neither SECRET_KEY nor a database.
    let listed = addresses.join(",");
    let settings = [
        ("DYNO", "run.1"),
        ("MEMCACHIER_SERVERS", listed.as_str()),
        ("MEMCACHIER_USERNAME", USER),
        ("MEMCACHIER_PASSWORD", PASSWORD),
        ("MEMCACHE_TIMEOUT", "10s"),
    ];
    let cache = |arguments: &[&str]| run(&settings, &[&["cache"], arguments].concat());

    let (code, out, err) = cache(&["set", "foo", "bär"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let server = addresses.iter().find(|address| err.contains(*address)).unwrap();
    assert_eq!(err, format!("stored tasklist:foo on {server}\n"));
    let (code, out, err) = cache(&["get", "foo"]);
    assert_eq!((code, out.as_str()), (0, "bär\n"));
    assert_eq!(err, format!("tasklist:foo is on {server}, 4 bytes\n"));
    let (code, _, err) = cache(&["delete", "foo"]);
    assert_eq!((code, err), (0, format!("deleted tasklist:foo on {server}\n")));
    for missing in ["get", "delete"] {
        let (code, out, err) = cache(&[missing, "foo"]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert_eq!(err, format!("tasklist: there is no tasklist:foo; it would be on {server}\n"));
    }

    let (code, out, err) = cache(&["ping"]);
    assert_eq!((code, out.matches("ok, memcached 1.").count()), (0, 2), "{out}{err}");
    assert!(addresses.iter().all(|address| out.contains(address)), "{out}");
    let (code, out, _) = cache(&["stats"]);
    assert_eq!((code, out.matches("get_hits ").count()), (0, 2), "{out}");
    cache(&["set", "foo", "bar"]);
    assert_eq!(cache(&["flush", "--all"]).0, 0);
    assert_eq!(cache(&["get", "foo"]).0, 1);
    let (code, _, err) = cache(&["get", "a key"]);
    assert_eq!(code, 1);
    assert!(err.contains("is not valid"), "{err}");
}

#[test]
fn an_entry_of_the_app_is_shown_decoded_with_its_stamp() {
    let server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    let settings = [("MEMCACHE_SERVERS", address.as_str())];
    let app = TestApp::with(TestDatabase::sqlite(), &settings);
    app.with_tasks(&["Milk"]);
    app.browser().get("/");
    wait_until("the list is stored", || run(&settings, &["cache", "get", "tasks.all"]).0 == 0);
    let (code, out, err) = run(&settings, &["cache", "get", "tasks.all"]);
    assert_eq!(code, 0, "{err}");
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(shown.to_string().contains("\"Milk\""), "{out}");
    assert!(err.contains("stamp: schema "), "{err}");
    let (code, out, err) = run(&settings, &["cache", "get", "view//"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("Page"), "{out}");
}

#[test]
fn a_flush_clears_the_cache_of_the_app_alone() {
    let server = Memcached::start(Kind::Plain);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let on = |prefix: &str| {
        Cache::memcached(server.client(Protocol::Binary)).prefix(prefix.to_owned()).build()
    };
    runtime.block_on(async {
        for prefix in ["tasklist:", "other:"] {
            assert!(on(prefix).set("k", &1, Lifetime::Forever).await);
        }
    });
    let settings = [("MEMCACHE_SERVERS", server.address().to_string())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (code, out, err) = run(&settings, &["cache", "flush"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert_eq!(err, "cleared the entries that begin with tasklist:\n");
    let left = runtime.block_on(async {
        [on("tasklist:").get::<u32>("k").await, on("other:").get::<u32>("k").await]
    });
    assert_eq!(left, [None, Some(1)]);
}

#[test]
fn errors_name_the_setting_to_check_and_no_password() {
    let server = Memcached::start(Kind::Sasl);
    let address = server.address().to_string();
    let settings = [
        ("MEMCACHIER_SERVERS", address.as_str()),
        ("MEMCACHIER_USERNAME", "tester"),
        ("MEMCACHIER_PASSWORD", "hunter2"),
        ("MEMCACHE_TIMEOUT", "10s"),
    ];
    for arguments in [&["cache", "ping"][..], &["cache", "get", "foo"], &["check"]] {
        let (code, out, err) = run(&settings, arguments);
        let text = out + &err;
        assert_eq!(code, 1, "{arguments:?}: {text}");
        assert!(text.contains("check MEMCACHE_SERVERS, _USERNAME and _PASSWORD"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let (code, _, err) = run(&[], &["cache", "ping"]);
    assert_eq!(code, 1);
    assert!(err.contains("name servers in MEMCACHE_SERVERS"), "{err}");
    let (code, _, err) = run(&[("MEMCACHIER_SERVERS", "a:b")], &["cache", "ping"]);
    assert_eq!(code, 2);
    assert!(err.starts_with("tasklist: MEMCACHIER_SERVERS: "), "{err}");
}

#[test]
fn check_reports_on_migrations_database_and_cache() {
    let (database, server) = (TestDatabase::sqlite(), Memcached::start(Kind::Plain));
    let address = server.address().to_string();
    let settings = [
        ("DATABASE_URL", database.url.as_str()),
        ("MEMCACHIER_SERVERS", &address),
        ("MEMCACHE_TIMEOUT", "10s"),
    ];
    let (code, out, _) = run(&settings, &["check"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("which does not exist yet: the start creates it"), "{out}");
    assert!(out.contains("migrations: applied by the start"), "{out}");
    drop(database.execute("VACUUM"));
    let (code, out, _) = run(&settings, &["check"]);
    assert_eq!(code, 1);
    assert!(out.contains("migrations: PROBLEM: 6 pending; run `tasklist migrate`"), "{out}");
    assert_eq!(run(&settings, &["migrate"]).0, 0);
    let (code, out, err) = run(&settings, &["check"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("migrations: up to date"), "{out}");
    assert!(
        out.contains(&format!("cache: memcached at {address}, from MEMCACHIER_SERVERS")),
        "{out}"
    );
    let missing = [("DATABASE_URL", "sqlite:///nowhere/at/all")];
    let (code, out, _) = run(&missing, &["check"]);
    assert_eq!(code, 1);
    assert!(out.contains("database: PROBLEM") && out.contains("check DATABASE_URL"), "{out}");
}

#[test]
fn the_cache_page_shows_hits_per_layer_and_server_statistics() {
    let server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    let app = TestApp::with(TestDatabase::sqlite(), &[("MEMCACHIER_SERVERS", &address)]);
    app.with_tasks(&["Milk", "Tea"]);
    app.settle();
    for _ in 0..3 {
        app.browser().get("/");
    }
    let page = app.browser().get("/cache");
    assert_eq!((page.status, page.header("cache-control").as_str()), (200, "no-store"));
    for expected in [
        "<th scope=\"row\">view</th><td>2</td><td>1</td><td>0</td><td>66.7\u{202f}%</td>",
        r#"<th scope="row">fragment</th>"#,
        &format!("<h3>{address} <span class=\"state good\">up</span>"),
        "<dt>get hits</dt>",
        "Every write’s invalidation has been confirmed.",
    ] {
        assert!(page.body.contains(expected), "{expected} in {}", page.body);
    }
    let refresh = "<meta http-equiv=\"refresh\"";
    assert!(!page.body.contains(refresh), "only on demand");
    for (target, is_refreshed) in [("/cache?refresh=5", true), ("/cache?refresh=0", false)] {
        assert_eq!(app.browser().get(target).body.contains(refresh), is_refreshed, "{target}");
    }
}

#[test]
fn the_cache_page_counts_from_a_reset_and_metrics_go_on() {
    let app = TestApp::on_sqlite();
    let row = |name: &str| {
        let page = app.browser().get("/cache").body;
        let row = page.split_once(&format!("<th scope=\"row\">{name}</th>")).unwrap().1;
        row.split_once("</tr>").unwrap().0.replace("</td><td>", " ").replace("<td>", "")
    };
    app.browser().get("/");
    app.browser().get("/");
    assert!(row("view").starts_with("1 1 0 50.0\u{202f}% 1 "), "{}", row("view"));
    let reset = app.browser().post("/cache?refresh=5");
    assert_eq!((reset.status, reset.header("location").as_str()), (303, "/cache?refresh=5"));
    assert!(row("view").starts_with("0 0 0 – 0 "), "{}", row("view"));
    assert!(app.browser().get("/cache").body.contains("since they were reset"));
    app.browser().get("/");
    assert!(row("view").starts_with("1 0 0 100.0\u{202f}% 0 "), "{}", row("view"));
    let metrics = app.browser().get("/metrics").body;
    assert!(metrics.contains("tasklist_cache_hits_total{layer=\"view\"} 2\n"), "{metrics}");
}

#[test]
fn the_cache_page_shows_a_server_outage_and_waiting_invalidations() {
    let mut server = Memcached::start(Kind::Plain);
    let address = server.address().to_string();
    let app = TestApp::with(TestDatabase::sqlite(), &[("MEMCACHIER_SERVERS", &address)]);
    server.kill();
    app.with_tasks(&["Milk"]);
    wait_until("the page shows the server as down", || {
        app.browser().get("/cache").body.contains("<span class=\"state bad\">down</span>")
    });
    let page = app.browser().get("/cache");
    assert!(page.body.contains("1 invalidation waits to be confirmed"), "{}", page.body);
}

#[test]
fn in_production_the_cache_page_needs_the_admin_token() {
    let (folder, key) = (tempdir().unwrap(), "k".repeat(32));
    let start = |more: &[(&str, &str)]| {
        let mut settings = vec![
            ("PORT", "0"),
            ("HOST", "127.0.0.1"),
            ("APP_ENV", "production"),
            ("SECRET_KEY", key.as_str()),
        ];
        settings.extend(more);
        Program::start(command(folder.path(), &settings))
    };
    let hidden = start(&[]);
    for method in ["GET", "POST", "PUT"] {
        let reply = Browser::new(hidden.address()).send(method, "/cache", &[], "");
        assert_eq!(reply.status, 404, "{method}");
    }
    drop(hidden);
    let protected = start(&[("ADMIN_TOKEN", "open sesame, open sesame")]);
    let browser = Browser::new(protected.address());
    let ask = |header: &str| browser.send("GET", "/cache", &[("authorization", header)], "");
    let refused = browser.get("/cache");
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").starts_with("Basic realm="));
    assert!(refused.body.contains("Password needed"), "{}", refused.body);
    // `admin:wrong` and `admin:open sesame, open sesame` in Base64.
    assert_eq!(ask("Basic YWRtaW46d3Jvbmc=").status, 401);
    assert_eq!(ask("Basic YWRtaW46b3BlbiBzZXNhbWUsIG9wZW4gc2VzYW1l").status, 200);
    assert_eq!(browser.post("/cache").status, 401, "a reset needs it, too");
}

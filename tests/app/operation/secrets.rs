//! No secret is printed, logged or served.
//!
//! The test support searches all output that a test reads for the secrets in
//! [`test_support::secrets::SECRETS`]. The tests here put these secrets into settings that fail.

use std::path::Path;

use tempfile::tempdir;
use test_support::{
    http::Browser,
    memcached::{Kind, Memcached},
    program::{Program, command},
    secrets::{SECRETS, assert_no_secret, secret},
};

/// Returns the URL of an unreachable database of each kind that is built in.
fn unreachable_databases() -> Vec<String> {
    let password = secret("database");
    let mut urls = vec!["sqlite:///nowhere/tasks.sqlite3".to_owned()];
    if cfg!(feature = "postgres") {
        urls.push(format!("postgres://user:{password}@127.0.0.1:1/tasks"));
        urls.push(format!("postgres://user:{password}@127.0.0.1:1/tasks?sslmode={password}"));
    }
    if cfg!(feature = "mysql") {
        urls.push(format!("mysql://user:{password}@127.0.0.1:1/tasks"));
    }
    urls
}

#[test]
fn without_database_and_cache_no_secret_is_logged_or_served() {
    let server = Memcached::start(Kind::Sasl);
    let (folder, address) = (tempdir().unwrap(), server.address().to_string());
    std::thread::scope(|scope| {
        for url in unreachable_databases() {
            let (folder, address) = (folder.path(), &address);
            scope.spawn(move || run_without_database_and_cache(folder, &url, address));
        }
    });
}

fn run_without_database_and_cache(folder: &Path, url: &str, memcached: &str) {
    let settings = [
        ("PORT", "0"),
        ("HOST", "127.0.0.1"),
        ("APP_ENV", "production"),
        ("DATABASE_URL", url),
        ("SECRET_KEY", secret("key")),
        ("SECRET_KEY_PREVIOUS", secret("previous")),
        ("ADMIN_TOKEN", secret("token")),
        ("MEMCACHIER_SERVERS", memcached),
        ("MEMCACHIER_USERNAME", "tester"),
        ("MEMCACHIER_PASSWORD", secret("refused")),
        ("RUST_LOG", "trace"),
    ];
    for arguments in [&["check"][..], &["migrate"], &["cache", "ping"], &["cache", "stats"]] {
        let output = command(folder, &settings).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} {url}");
        assert_no_secret(&String::from_utf8_lossy(&output.stderr));
        assert_no_secret(&String::from_utf8_lossy(&output.stdout));
    }
    if url.starts_with("sqlite") {
        // With SQLite the server does not start without its database.
        return;
    }
    let mut program = Program::start(command(folder, &settings));
    let browser = Browser::new(program.address());
    let authorization = format!("Bearer {}", secret("token"));
    for path in ["/", "/readyz", "/cache", "/metrics", "/nowhere"] {
        browser.get(path);
        browser.send("GET", path, &[("authorization", &authorization)], "");
    }
    browser.post_form("/", &[("name", "Milk")]);
    program.terminate();
    assert_no_secret(&program.wait().1);
}

/// Invalid settings; `PASSWORD` stands for the secret of the database.
const INVALID_SETTINGS: [(&str, &str); 10] = [
    ("DATABASE_URL", "PASSWORD"),
    ("DATABASE_URL", "oracle://u:PASSWORD@h/d"),
    ("DATABASE_URL", "postgres://u:PASSWORD@h@h/d"),
    ("DATABASE_URL", "postgres://u:p%PASSWORD@h/d"),
    ("DATABASE_URL", "mysql://u:PASSWORD@h"),
    ("DATABASE_URL", "mysql://u:PASSWORD@h/a%zz"),
    ("SECRET_KEY", SHORT_KEY),
    ("ADMIN_TOKEN", "short"),
    ("MEMCACHIER_SERVERS", "PASSWORD@127.0.0.1:11211"),
    ("SECRET_KEY_PREVIOUS", "short"),
];

const SHORT_KEY: &str = SECRETS[0].1;

#[test]
fn an_invalid_setting_is_rejected_without_quoting_a_secret() {
    let folder = tempdir().unwrap();
    for (name, template) in INVALID_SETTINGS {
        let value = template.replace("PASSWORD", secret("database"));
        let settings = [("APP_ENV", "production"), ("RUST_LOG", "trace"), (name, &value)];
        let output = command(folder.path(), &settings).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={template}");
        assert_no_secret(&String::from_utf8_lossy(&output.stderr));
    }
}

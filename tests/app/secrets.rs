//! Every secret setting holds a word that must be nowhere else. `support` looks for such words in all
//! that any test gets to see; here they are planted where something goes wrong.

use std::path::Path;

use tempfile::tempdir;
use test_support::{
    http::Browser,
    memcached::{Kind, Memcached},
    program::{Program, command},
    secrets::{SECRETS, assert_no_secret, secret},
};

/// A database that is not there, of each kind that is built in.
fn unreachable() -> Vec<String> {
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
fn a_secret_is_in_no_log_and_on_no_page_when_nothing_can_be_reached() {
    let server = Memcached::start(Kind::Sasl);
    let (folder, address) = (tempdir().unwrap(), server.address().to_string());
    std::thread::scope(|scope| {
        for url in unreachable() {
            let (folder, address) = (folder.path(), &address);
            scope.spawn(move || run_without_anything(folder, &url, address));
        }
    });
}

fn run_without_anything(folder: &Path, url: &str, memcached: &str) {
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
        return;
    }
    let mut program = Program::start(command(folder, &settings));
    let browser = Browser::new(program.address());
    let authorization = format!("Bearer {}", secret("token"));
    for path in ["/", "/readyz", "/cache", "/metrics", "/nothing"] {
        browser.get(path);
        browser.send("GET", path, &[("authorization", &authorization)], "");
    }
    browser.post_form("/", &[("name", "Milk")]);
    program.terminate();
    assert_no_secret(&program.wait().1);
}

#[test]
fn a_setting_that_is_refused_is_named_and_a_secret_one_not_quoted() {
    let folder = tempdir().unwrap();
    let password = secret("database");
    let urls = [
        password.to_owned(),
        format!("oracle://u:{password}@h/d"),
        format!("postgres://u:{password}@h@h/d"),
        format!("postgres://u:p%{password}@h/d"),
        format!("mysql://u:{password}@h"),
        format!("mysql://u:{password}@h/a%zz"),
    ];
    let urls = urls.iter().map(|url| ("DATABASE_URL", url.as_str()));
    let short = [("SECRET_KEY", SECRETS[0].1), ("ADMIN_TOKEN", "short")];
    let servers = format!("{password}@127.0.0.1:11211");
    let others = [("MEMCACHIER_SERVERS", servers.as_str()), ("SECRET_KEY_PREVIOUS", "short")];
    for (name, value) in urls.chain(short).chain(others) {
        let settings = [("APP_ENV", "production"), ("RUST_LOG", "trace"), (name, value)];
        let output = command(folder.path(), &settings).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert_no_secret(&String::from_utf8_lossy(&output.stderr));
    }
}

//! The app as it is deployed. On Heroku, simulated: runs the commands of the Procfile in the slug, with
//! the platform's environment variables. Elsewhere: `static_binary`.
//!
//! Needs `SLUG` (a folder made by `bin/slug`), `STATIC_BINARY` (a file made by `bin/release`), and
//! `TEST_POSTGRES_TLS_URL` (a PostgreSQL server that requires TLS and a password). `bin/test --full`
//! provides them; a plain `cargo test` skips these tests.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod static_binary;

use std::{
    env, fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
};

use diesel::{Connection, PgConnection, connection::SimpleConnection};
use test_support::{
    http::Browser,
    memcached::{Kind, Memcached, PASSWORD, USER},
    program::Program,
};

/// The slug, the add-ons, and the environment variables that describe them.
struct Platform {
    slug: PathBuf,
    settings: Vec<(&'static str, String)>,
    memcached: [Memcached; 2],
}

impl Platform {
    fn new() -> Self {
        let memcached = [Memcached::start(Kind::Sasl), Memcached::start(Kind::Sasl)];
        let servers = memcached.each_ref().map(|server| server.address().to_string());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = vec![
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("DYNO", "web.1".to_owned()),
            ("PORT", port.to_string()),
            ("DATABASE_URL", new_database()),
            ("MEMCACHIER_SERVERS", servers.join(",")),
            ("MEMCACHIER_USERNAME", USER.to_owned()),
            ("MEMCACHIER_PASSWORD", PASSWORD.to_owned()),
            ("MEMCACHE_TIMEOUT", "10s".to_owned()),
            ("SECRET_KEY", "8f".repeat(32)),
        ];
        let slug = env::var("SLUG").expect("SLUG is not set; use a folder made by bin/slug").into();
        Self { slug, settings, memcached }
    }

    /// Changes a setting.
    fn with(mut self, name: &'static str, change: impl FnOnce(&str) -> String) -> Self {
        let setting = self.settings.iter_mut().find(|(set, _)| *set == name).unwrap();
        setting.1 = change(&setting.1);
        self
    }

    /// A shell that runs a command line in the slug.
    fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("exec {line}")]).current_dir(&self.slug).env_clear();
        shell.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        shell
    }

    /// The command of the Procfile for a process type.
    fn process(&self, kind: &str) -> Command {
        let procfile = fs::read_to_string(self.slug.join("Procfile")).unwrap();
        let mut lines = procfile.lines().filter_map(|line| line.split_once(": "));
        self.shell(lines.find(|(name, _)| *name == kind).unwrap().1)
    }

    /// Runs a command line to its end, like `heroku run`.
    fn run(&self, line: &str) -> Output {
        self.shell(line).output().unwrap()
    }
}

fn new_database() -> String {
    let server = env::var("TEST_POSTGRES_TLS_URL")
        .expect("TEST_POSTGRES_TLS_URL is not set; bin/test --full starts a server and sets it");
    let name = format!("slug_{:x}", rand::random::<u64>());
    let mut conn = PgConnection::establish(&format!("{server}/postgres")).unwrap();
    conn.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    format!("{server}/{name}")
}

/// Returns standard output followed by standard error.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[test]
fn the_slug_migrates_starts_and_stores_tasks_with_tls_and_log_in() {
    let platform = Platform::new();
    let released = platform.process("release").output().unwrap();
    assert!(released.status.success(), "{}", text(&released));

    let mut web = Program::start(platform.process("web"));
    let port = &platform.settings.iter().find(|(name, _)| *name == "PORT").unwrap().1;
    let browser = Browser::new(&format!("http://127.0.0.1:{port}"));
    let added = browser.post_form("/", &[("name", "Milk")]);
    assert_eq!(added.status, 303);
    let cookie = added.cookie("flash");
    assert!(cookie.contains("Secure") && cookie.contains("HttpOnly"), "{cookie}");
    for _ in 0..2 {
        let page = browser.get("/");
        assert_eq!((page.status, page.task_names()), (200, vec!["Milk"]));
        assert!(page.header("strict-transport-security").starts_with("max-age="));
    }
    assert!(browser.get("/readyz").body.contains(r#""cache":"ok""#));

    for line in ["check", "cache ping", "cache set foo bar", "cache get foo"] {
        let output = platform.run(&format!("./target/release/tasklist {line}"));
        assert!(output.status.success(), "{line}: {}", text(&output));
    }
    web.terminate();
    assert!(web.wait().0.success());
    drop(platform.memcached);
}

#[test]
fn without_tls_the_database_refuses_and_the_release_fails() {
    let platform = Platform::new().with("DATABASE_URL", |url| format!("{url}?sslmode=disable"));
    let released = platform.process("release").output().unwrap();
    assert!(!released.status.success(), "{}", text(&released));
}

#[test]
fn with_a_wrong_password_the_check_fails_and_the_app_works_uncached() {
    let platform = Platform::new().with("MEMCACHIER_PASSWORD", |_| "wrong".to_owned());
    assert!(platform.process("release").output().unwrap().status.success());
    for line in ["check", "cache ping"] {
        let output = platform.run(&format!("./target/release/tasklist {line}"));
        assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output));
        assert!(!text(&output).contains("wrong"), "{}", text(&output));
    }
    let web = Program::start(platform.process("web"));
    let port = web.summary.split_whitespace().find_map(|word| word.rsplit_once(':'));
    let browser = Browser::new(&format!("http://127.0.0.1:{}", port.unwrap().1));
    assert_eq!(browser.post_form("/", &[("name", "Milk")]).status, 303);
    assert_eq!(browser.get("/").task_names(), ["Milk"]);
    assert!(browser.get("/readyz").body.contains(r#""cache":"degraded""#));
}

#[test]
fn a_database_missing_from_the_build_is_an_error_that_names_its_feature() {
    let platform = Platform::new().with("DATABASE_URL", |_| "mysql://u:secret@h/d".to_owned());
    let output = platform.run("./target/release/tasklist check");
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("MySQL") && text.contains("--features mysql"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

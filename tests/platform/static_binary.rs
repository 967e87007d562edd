//! The statically linked binary, in a root folder that contains only it, its data, `/etc/hosts` and
//! `/etc/nsswitch.conf`.
//!
//! Needs `STATIC_BINARY` (a file made by `bin/release`).

use std::{env, fs, os::unix::fs::MetadataExt, process::Command, thread};

use tempfile::TempDir;
use test_support::{
    http::Browser,
    memcached::{Kind, Memcached},
    program::Program,
};

use crate::{new_database, text};

/// The name of the memcached server in the root folder's `/etc/hosts`.
const CACHE: &str = "cache.test";

/// A root folder in which the binary is `/tasklist`.
struct Root {
    folder: TempDir,
    memcached: Memcached,
}

impl Root {
    fn new() -> Self {
        let (folder, memcached) = (tempfile::tempdir().unwrap(), Memcached::start(Kind::Plain));
        let binary = env::var("STATIC_BINARY").expect("STATIC_BINARY is not set; see bin/release");
        fs::copy(binary, folder.path().join("tasklist")).unwrap();
        let address = memcached.address().to_string();
        let host = address.rsplit_once(':').unwrap().0;
        let etc = folder.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("hosts"), format!("{host} {CACHE}\n")).unwrap();
        // Without `files`: the name is found only because the binary ignores this file, whose services
        // it must not load from the system.
        fs::write(etc.join("nsswitch.conf"), "hosts: dns\n").unwrap();
        Self { folder, memcached }
    }

    /// A command of the binary. Users other than root need a namespace to change the root folder.
    fn tasklist(&self, arguments: &[&str], database_url: &str) -> Command {
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let address = self.memcached.address().to_string();
        let port = address.rsplit_once(':').unwrap().1;
        let mut command = Command::new("unshare");
        command.args((!is_root).then_some("--map-root-user")).arg("--root").arg(self.folder.path());
        command.arg("/tasklist").args(arguments).env_clear().envs([
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("DATABASE_URL", database_url),
            ("MEMCACHE_SERVERS", &format!("{CACHE}:{port}")),
            ("MEMCACHE_TIMEOUT", "10s"),
            ("APP_ENV", "production"),
            ("SECRET_KEY", &"8f".repeat(32)),
        ]);
        command
    }
}

fn stores_tasks(database_url: &str) {
    let root = Root::new();
    for command in ["migrate", "check"] {
        let output = root.tasklist(&[command], database_url).output().unwrap();
        assert!(output.status.success(), "{command}: {}", text(&output));
    }
    // Several requests at once, after each of several starts, so that threads open connections at the
    // same time: an OpenSSL without locks crashes in one of three starts.
    for _ in 0..10 {
        let web = Program::start(root.tasklist(&[], database_url));
        let address = web.address();
        thread::scope(|scope| {
            for _ in 0..8 {
                let added = || Browser::new(address).post_form("/", &[("name", "Milk")]);
                scope.spawn(move || assert_eq!(added().status, 303));
            }
        });
    }
    let mut web = Program::start(root.tasklist(&[], database_url));
    let browser = Browser::new(web.address());
    assert_eq!(browser.get("/").task_names(), ["Milk"; 80]);
    assert!(browser.get("/readyz").body.contains(r#""cache":"ok""#));
    web.terminate();
    assert!(web.wait().0.success());
}

#[test]
fn in_an_empty_root_the_static_binary_stores_tasks_in_sqlite() {
    stores_tasks("sqlite:///tasks.sqlite3");
}

#[test]
fn in_an_empty_root_the_static_binary_stores_tasks_in_postgresql_over_tls() {
    stores_tasks(&new_database());
}

//! The examples, started as programs: what they print.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::process::Command;

use test_support::memcached::{Kind, Memcached, TLS_NAME};

/// Runs an example, which Cargo builds before the tests. Returns its output.
fn run(name: &str, settings: &[(&str, &str)]) -> String {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST-HASH
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "run `cargo build -p memcached-client --all-features --examples`");
    let output = Command::new(program).env_clear().envs(settings.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs an example with two servers.
fn run_with_servers(name: &str) -> String {
    let servers = [Memcached::start(Kind::Plain), Memcached::start(Kind::Plain)];
    let addresses = servers.each_ref().map(|server| server.address().to_string());
    run(name, &[("MEMCACHE_SERVERS", &addresses.join(","))])
}

#[test]
fn basic_shows_each_operation_on_one_value() {
    let expected = "get: None\n\
                    set and get: Some(\"blue\")\n\
                    add: false\n\
                    replace: true\n\
                    get: Some(\"green\")\n\
                    delete: Deleted\n";
    assert_eq!(run_with_servers("basic"), expected);
}

#[test]
fn batch_shows_many_keys_at_once() {
    let expected =
        "stored: 3\nc: Some(\"3\")\nmissing: None\na: Some(\"1\")\nfound: 2\ndeleted: 3\n";
    assert_eq!(run_with_servers("batch"), expected);
}

#[test]
fn a_loop_with_tokens_loses_no_change() {
    assert_eq!(run_with_servers("cas_loop"), "4 visitors, none lost\n");
}

#[test]
fn a_hook_is_called_for_each_operation() {
    let printed = run_with_servers("hook");
    let operations = printed.lines().filter(|line| line.ends_with("in time: true"));
    assert_eq!(operations.count(), 3, "{printed}");
}

#[test]
fn stats_show_each_server() {
    let printed = run_with_servers("stats");
    assert_eq!(printed.matches(": version 1.").count(), 2, "{printed}");
    assert_eq!(printed.matches(", outages: 0").count(), 2, "{printed}");
}

#[test]
fn tls_needs_a_trusted_certificate() {
    let server = Memcached::start(Kind::Tls);
    let servers = server.address().to_string();
    let ca_file = server.ca_file().display().to_string();
    let settings = [
        ("MEMCACHE_SERVERS", servers.as_str()),
        ("MEMCACHE_CA_FILE", &ca_file),
        ("MEMCACHE_TLS_NAME", TLS_NAME),
    ];
    assert_eq!(run("tls", &settings), "stored and read over TLS: Some(4) bytes\n");
    assert!(run("tls", &[]).starts_with("set MEMCACHE_SERVERS=tls://"));
}

//! The examples, started as programs.

#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod programs;
mod wiki;

use std::process::Command;

use test_support::{
    http::Browser,
    memcached::{Kind, Memcached},
    program::Program,
};

/// Returns a command that runs an example, which Cargo builds before the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST-HASH
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "run `cargo build --package everfresh --all-features --examples`");
    Command::new(program)
}

#[test]
fn an_app_without_actix_shows_a_new_task_in_every_search() {
    let mut command = example("axum");
    command.env_clear().env("ADDRESS", "127.0.0.1:0");
    let program = Program::start(command);
    let browser = Browser::new(program.summary.trim().rsplit(' ').next().unwrap());
    for task in ["Milk", "Tea & milk"] {
        for target in ["/", "/?q=", "/?q=M", "/?q=zzz"] {
            browser.get(target);
        }
        assert_eq!(browser.post_form("/", &[("name", task)]).status, 303);
        assert!(browser.get("/").body.contains(&task.replace('&', "&amp;")));
    }
    assert!(browser.get("/?q=Tea").body.contains("Tea &amp; milk"));
}

#[test]
fn an_address_that_sends_too_many_requests_is_refused_by_all_processes() {
    let server = Memcached::start(Kind::Plain);
    let start = || {
        let mut command = example("rate_limiter");
        command
            .env_clear()
            .env("ADDRESS", "127.0.0.1:0")
            .env("MEMCACHE_SERVERS", server.address().to_string());
        Program::start(command)
    };
    let programs = [start(), start()];
    let browsers = programs
        .each_ref()
        .map(|program| Browser::new(program.summary.trim().rsplit(' ').next().unwrap()));
    for request in 1..=22 {
        let reply = browsers[request % 2].get("/");
        assert_eq!(reply.status, if request <= 20 { 200 } else { 429 }, "request {request}");
    }
    assert_eq!(browsers[0].get("/").header("retry-after"), "60");
}

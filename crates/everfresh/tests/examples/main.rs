//! The examples, started as programs.

#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod wiki;

use std::process::Command;

use test_support::{http::Browser, program::Program};

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

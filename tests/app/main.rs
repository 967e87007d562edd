//! The whole app, from outside. `interface` runs on every database.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod caching;
mod concurrency;
mod csrf;
#[cfg(feature = "sqlite")]
mod full_disk;
mod interface;
mod kills;
mod migrations;
mod observability;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod outages;
mod program;
mod secrets;
mod settings;
mod shell;
mod shutdown;
mod slow_visitors;

//! Tests of the whole app from outside: over HTTP, and as a program.
//!
//! - `http`: the HTTP interface, request forgery, many and slow clients, shutdown
//! - `caching`: freshness, cost and outages of the cache
//! - `failures`: kills, an unreachable database, a full disk
//! - `operation`: settings, command line, migrations, logs, metrics

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod caching;
mod failures;
mod http;
mod operation;

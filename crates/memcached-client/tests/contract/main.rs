//! Tests of the client with real memcached processes and with scripted peers that misbehave.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::naive_bytecount,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod cancellation;
mod commands;
mod compression;
mod events;
mod failover;
mod login;
mod peers;
mod protocols;
mod ring;
mod sharing;
mod tls;

/// Returns a runtime that the test ends, or uses beside another.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

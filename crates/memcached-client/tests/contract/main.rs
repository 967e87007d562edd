//! The client against real memcached processes, and against peers that misbehave by script.

#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod bad_peers;
mod cancellation;
mod commands;
mod failover;
mod login;
mod peers;
mod ring;
mod servers;

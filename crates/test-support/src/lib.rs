//! Test support for the packages of this repository.
//!
//! The types start real servers and programs, and stop them when they are dropped. The functions wait
//! for conditions. All of them panic when a check fails.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

#[cfg(feature = "app")]
pub mod app;
pub mod counting_proxy;
#[cfg(feature = "app")]
pub mod database;
#[cfg(feature = "app")]
pub mod database_server;
pub mod http;
#[cfg(feature = "app")]
mod macros;
pub mod memcached;
pub mod program;
pub mod redis;
pub mod secrets;
pub mod wait;

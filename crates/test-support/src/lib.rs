//! Shared by the tests and benches of this repository.
//!
//! Helpers start real servers and programs, which end when their value is dropped, and wait for
//! conditions. A failed check is a panic.

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
pub mod http;
pub mod memcached;
pub mod program;
pub mod secrets;
pub mod wait;

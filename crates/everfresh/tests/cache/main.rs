//! The cache over every backend, with real memcached servers.

#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod backends;
mod fragments;
mod freshness;
mod lowering;
#[path = "../../../test-support/src/counting_proxy.rs"]
mod proxy;
mod sessions;
mod site;
mod together;
mod views;

#[path = "../../../test-support/src/memcached.rs"]
#[allow(dead_code)]
mod servers;

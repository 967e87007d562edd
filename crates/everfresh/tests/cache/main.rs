//! Tests of the cache on every backend, with real memcached servers.

#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod ahead;
mod backends;
mod concurrent_misses;
mod diesel_ledger;
mod fragments;
mod freshness;
mod groups;
mod long_pages;
mod lowering;
mod sessions;
mod values;
mod views;

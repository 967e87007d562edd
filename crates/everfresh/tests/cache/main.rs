//! Tests of the cache on every backend, with real memcached servers.

#![allow(unreachable_pub, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod at_hand;
mod backends;
mod clear;
mod concurrent_misses;
mod diesel_ledger;
mod fragments;
mod freshness;
mod groups;
mod lowering;
mod many;
mod memos;
mod not_kept;
mod sessions;
mod stale;
mod views;

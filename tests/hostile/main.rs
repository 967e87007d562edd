//! Attacks on a running app, and one visitor, who must be served meanwhile. Nothing else runs at the same
//! time: Cargo runs one test program after the other, and the tests here take turns.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod attack;
mod behind_nginx;
mod long_lists;
mod thousand_connections;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test runs.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

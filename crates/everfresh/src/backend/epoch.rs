//! The epoch of a cache, which a clear ends.
//!
//! Servers cannot delete the entries of one app alone. So each entry of a shared cache carries an epoch, and one
//! of another epoch is no entry. The current epoch is a number in the cache, which each process reads at its first use
//! and then every few seconds, beside the operations that ask for it. It is 0 before the first clear, then the time of the
//! last clear in milliseconds since 1970: it only grows, also if its server has lost it, and a process that cannot
//! read it is right as long as the cache was never cleared.
//!
//! The epoch is part of what an entry must prove, and not of its key: while two processes know different
//! epochs, neither finds the other's entries, but each still deletes them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

/// The time between two looks at the number.
const INTERVAL: Duration = Duration::from_secs(3);

/// The epoch as this process knows it.
#[derive(Debug)]
pub(super) struct Epoch {
    /// The key of the number; `None` if the entries are seen by this process alone.
    pub(super) key: Option<String>,
    current: AtomicU64,
    started: Instant,
    pub(super) first_look: OnceCell<()>,
    /// When to look again, in nanoseconds since the start.
    next_look: AtomicU64,
}

impl Epoch {
    pub(super) fn new(key: Option<String>) -> Self {
        let (current, next_look) = (AtomicU64::new(0), AtomicU64::new(0));
        let (started, first_look) = (Instant::now(), OnceCell::new());
        Self { key, current, started, first_look, next_look }
    }

    /// Returns the epoch; 0 before the first clear, or if it is not known.
    pub(super) fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// Notes an epoch, unless a later one is known.
    pub(super) fn advance(&self, epoch: u64) {
        self.current.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Returns whether the caller is to look at the number: one does, and no other until the next interval.
    pub(super) fn is_due(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let due = self.next_look.load(Ordering::Relaxed);
        if now < due {
            return false;
        }
        let interval = u64::try_from(INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        let next = now.saturating_add(interval);
        let won = self.next_look.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        won.is_ok()
    }
}

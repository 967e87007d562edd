//! Remembers pages that were not stored.
//!
//! Concurrent requests for such a page would wait for each other, each hoping for the result of the
//! one before. So for a while after a page was not stored, no request for it waits.

use std::time::{Duration, Instant};

/// The time for which a page is remembered that cannot be stored by its nature.
pub(super) const BY_NATURE: Duration = Duration::from_secs(30);

/// The time for which a page is remembered after its handler failed, or had a visitor with a session.
pub(super) const BY_REQUEST: Duration = Duration::from_secs(1);

/// The largest number of pages that are remembered.
const MAX_REMEMBERED: u64 = 1000;

/// Keys of pages that were not stored, and until when they are remembered.
#[derive(Debug)]
pub(super) struct Uncacheable(moka::sync::Cache<String, Instant>);

impl Uncacheable {
    pub(super) fn new() -> Self {
        let pages = moka::sync::Cache::builder();
        Self(pages.max_capacity(MAX_REMEMBERED).time_to_live(BY_NATURE).build())
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn add(&self, key: &str, time: Duration) {
        self.0.insert(key.to_owned(), Instant::now() + time);
    }
}

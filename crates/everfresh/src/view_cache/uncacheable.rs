//! Pages that are not kept.
//!
//! Those who ask for such a page at the same time would wait for each other, each hoping for what
//! the one before makes. So for a while after a page was not kept, nobody waits for it.

use std::time::{Duration, Instant};

/// For so long where it is the page's nature,
pub(super) const BY_NATURE: Duration = Duration::from_secs(30);

/// and where it has failed.
pub(super) const BY_FAILURE: Duration = Duration::from_secs(1);

/// Of so many pages at once.
const REMEMBERED: u64 = 1000;

/// What has lately not been kept, by key, and until when that counts.
#[derive(Debug)]
pub(super) struct Passes(moka::sync::Cache<String, Instant>);

impl Passes {
    pub(super) fn new() -> Self {
        let refusals = moka::sync::Cache::builder();
        Self(refusals.max_capacity(REMEMBERED).time_to_live(BY_NATURE).build())
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn add(&self, key: &str, time: Duration) {
        self.0.insert(key.to_owned(), Instant::now() + time);
    }
}

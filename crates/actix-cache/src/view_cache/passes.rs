//! Pages that are never kept.

use std::time::Duration;

/// After so many refusals in a row,
const PATIENCE: u32 = 3;

/// and for so long, a page is not looked for. Else those who ask for it at the same time would wait
/// for each other, each hoping for what the one before makes.
const MEMORY: Duration = Duration::from_secs(1);

/// Of so many pages at once.
const REMEMBERED: u64 = 1000;

/// What has lately not been kept, by key: how often in a row.
#[derive(Debug)]
pub(super) struct Passes(moka::sync::Cache<String, u32>);

impl Passes {
    pub(super) fn new() -> Self {
        let refusals =
            moka::sync::Cache::builder().max_capacity(REMEMBERED).time_to_live(MEMORY).build();
        Self(refusals)
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|times| times >= PATIENCE)
    }

    pub(super) fn note(&self, key: &str, refused: bool) {
        if refused {
            let times = self.0.get(key).unwrap_or(0);
            self.0.insert(key.to_owned(), times + 1);
        } else {
            self.0.invalidate(key);
        }
    }
}

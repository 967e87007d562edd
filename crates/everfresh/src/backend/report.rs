//! Counts and tells what happens, and says in the log, once for each layer, why a value is not kept or renewed.

use std::time::Duration;

use super::{entries::Entries, types::BackendError};
use crate::cache::events::{
    CacheEventKind, Stopwatch,
    stats::{Counters, Reason},
};

impl Entries {
    /// Counts an event, and tells it to the observers.
    pub(crate) fn note(&self, key: &str, kind: CacheEventKind, duration: Option<Duration>) {
        self.events.note(key, kind, duration);
    }

    /// Tells an event to the observers, without counting it.
    pub(crate) fn tell(&self, key: &str, kind: CacheEventKind, duration: Option<Duration>) {
        self.events.tell(key, kind, duration);
    }

    /// Starts to measure a duration, if there is an observer.
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        self.events.stopwatch()
    }

    /// Returns the counters of this layer.
    pub(crate) fn counters(&self) -> &Counters {
        &self.events.counters
    }

    /// Counts a failed operation.
    pub(super) fn checked<T>(
        &self,
        key: &str,
        outcome: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        outcome.inspect_err(|_| self.note(key, CacheEventKind::Error, None))
    }

    /// Like [`checked`](Self::checked), for the outcome of storing a value under a key: says once for each
    /// layer that a value is too large.
    pub(super) fn stored<T>(
        &self,
        key: &str,
        outcome: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if let Err(BackendError::TooLarge { bytes, limit }) = outcome
            && self.counters().is_first(Reason::TooLarge)
        {
            let layer = self.counters().layer();
            match limit.or_else(|| server_limit(self)) {
                Some(limit) => log::warn!(
                    "layer {layer}: {key} is not cached: it has {bytes} bytes, and the limit is \
                     {limit}; {}",
                    self.remedy()
                ),
                None => {
                    log::warn!("layer {layer}: {key} is not cached: {bytes} bytes are too many");
                }
            }
        }
        self.checked(key, outcome)
    }

    fn remedy(&self) -> &'static str {
        if self.is_shared() {
            "raise `Config::max_item_bytes` and the servers' own limit (memcached -I)"
        } else {
            "a value may take a quarter of the bytes of `Cache::memory`"
        }
    }

    /// Says once for each layer that a value could not be computed again.
    pub(crate) fn warn_of_failure(&self, key: &str) {
        if self.counters().is_first(Reason::Failed) {
            let layer = self.counters().layer();
            log::warn!("layer {layer}: {key} cannot be computed again; its last value is served");
        }
    }

    /// Says once for each layer that a value took too long to be stored.
    pub(crate) fn warn_of_slow(&self, key: &str, took: Duration) {
        if self.counters().is_first(Reason::TooSlow) {
            log::warn!(
                "layer {}: {key} is not cached: computing it took {took:?}, and the limit is {:?}; \
                 see `CacheBuilder::max_computation`",
                self.counters().layer(),
                self.lease_lifetime()
            );
        }
    }
}

#[cfg(feature = "memcached")]
fn server_limit(entries: &Entries) -> Option<usize> {
    entries.client().map(memcached_client::Client::max_item_bytes)
}

#[cfg(not(feature = "memcached"))]
fn server_limit(_: &Entries) -> Option<usize> {
    None
}

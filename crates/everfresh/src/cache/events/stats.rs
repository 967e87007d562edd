//! Statistics of a cache, per layer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, Serializer};

use super::event::CacheEventKind;

/// The counters of one layer, such as queries, fragments or pages.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    fills: AtomicU64,
    refused_fills: AtomicU64,
    waits: AtomicU64,
    stale: AtomicU64,
    errors: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    computations: AtomicU64,
    computing_nanos: AtomicU64,
    layer: &'static str,
    has_warned: [AtomicBool; 3],
}

/// The reason that a value is not kept, which the log tells once for each layer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    TooLarge,
    TooSlow,
    /// It could not be computed again: the last value is served.
    Failed,
}

impl Counters {
    /// Returns the name of the layer.
    pub(crate) fn layer(&self) -> &'static str {
        self.layer
    }

    /// Returns whether this is the first value of the layer that is not kept for this reason.
    pub(crate) fn is_first(&self, reason: Reason) -> bool {
        !self.has_warned[reason as usize].swap(true, Ordering::Relaxed)
    }

    pub(super) fn count(&self, kind: CacheEventKind, duration: Option<Duration>) {
        match kind {
            CacheEventKind::Hit { bytes } => self.count_hits(1, bytes),
            CacheEventKind::Stale => add(&self.stale, 1),
            CacheEventKind::Miss => self.count_misses(1),
            CacheEventKind::Computed => {
                add(&self.computations, 1);
                let nanos = duration.unwrap_or_default().as_nanos();
                add(&self.computing_nanos, u64::try_from(nanos).unwrap_or(u64::MAX));
            }
            CacheEventKind::Fill { bytes } => {
                add(&self.fills, 1);
                add(&self.bytes_written, bytes as u64);
            }
            CacheEventKind::NotKept => add(&self.refused_fills, 1),
            CacheEventKind::Wait => self.count_wait(),
            CacheEventKind::Error => add(&self.errors, 1),
        }
    }

    /// Counts hits. `bytes` is the size of all bodies together.
    pub(crate) fn count_hits(&self, hits: usize, bytes: usize) {
        add(&self.hits, hits as u64);
        add(&self.bytes_read, bytes as u64);
    }

    pub(crate) fn count_wait(&self) {
        add(&self.waits, 1);
    }

    pub(crate) fn count_misses(&self, misses: usize) {
        add(&self.misses, misses as u64);
    }

    fn all(&self) -> [&AtomicU64; 11] {
        [
            &self.hits,
            &self.misses,
            &self.fills,
            &self.refused_fills,
            &self.waits,
            &self.stale,
            &self.errors,
            &self.bytes_read,
            &self.bytes_written,
            &self.computations,
            &self.computing_nanos,
        ]
    }

    fn snapshot(&self) -> LayerStats {
        let [
            hits,
            misses,
            fills,
            refused_fills,
            waits,
            stale,
            errors,
            bytes_read,
            bytes_written,
            computations,
            nanos,
        ] = self.all().map(|counter| counter.load(Ordering::Relaxed));
        let mean = nanos.checked_div(computations).unwrap_or(0);
        LayerStats {
            hits,
            misses,
            fills,
            refused_fills,
            waits,
            stale,
            errors,
            bytes_read,
            bytes_written,
            time_saved: Duration::from_nanos(mean.saturating_mul(hits)),
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// The statistics of one layer since the cache was built.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LayerStats {
    /// Entries that were looked up and found.
    pub hits: u64,
    /// Entries that were looked up and not found.
    pub misses: u64,
    /// Values that were computed and stored.
    pub fills: u64,
    /// Values that were computed and not stored: because the entry was changed meanwhile, because
    /// the value was too large, or because the backend failed.
    pub refused_fills: u64,
    /// Waits for a value that another task or process was computing.
    pub waits: u64,
    /// Hits after the lifetime of the entry: see [`Lifetime::stale_for`](crate::Lifetime::stale_for).
    pub stale: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes of the entries that were found.
    pub bytes_read: u64,
    /// Bytes of the values that were stored.
    pub bytes_written: u64,
    /// The time that computing the hits would have taken: the mean time of a computation, times the
    /// number of hits. Serialized as a number of seconds.
    #[serde(serialize_with = "seconds")]
    pub time_saved: Duration,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl LayerStats {
    /// Returns the share of lookups that were hits, from 0 to 1; `None` before the first lookup.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }
}

/// The counters of all layers of a cache.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<BTreeMap<&'static str, Arc<Counters>>>);

impl Registry {
    pub(crate) fn layer(&self, name: &'static str) -> Arc<Counters> {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Counters { layer: name, ..Counters::default() });
        Arc::clone(layers.entry(name).or_insert_with(new))
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, LayerStats> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().map(|(name, counters)| (*name, counters.snapshot())).collect()
    }
}

//! What a cache has done, counted per layer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The counters of one layer (queries, fragments, pages, …).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    fills: AtomicU64,
    refused_fills: AtomicU64,
    waits: AtomicU64,
    errors: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    computations: AtomicU64,
    computing_nanos: AtomicU64,
}

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The bytes are those of all of them.
    Hits {
        hits: usize,
        bytes: usize,
    },
    Misses(usize),
    Fill {
        bytes: usize,
    },
    RefusedFill,
    Wait,
    Error,
    Computed(Duration),
}

impl Counters {
    pub(crate) fn count(&self, event: Event) {
        let add = |counter: &AtomicU64, number: u64| {
            counter.fetch_add(number, Ordering::Relaxed);
        };
        match event {
            Event::Hits { hits, bytes } => {
                add(&self.hits, hits as u64);
                add(&self.bytes_read, bytes as u64);
            }
            Event::Misses(misses) => add(&self.misses, misses as u64),
            Event::Fill { bytes } => {
                add(&self.fills, 1);
                add(&self.bytes_written, bytes as u64);
            }
            Event::RefusedFill => add(&self.refused_fills, 1),
            Event::Wait => add(&self.waits, 1),
            Event::Error => add(&self.errors, 1),
            Event::Computed(time) => {
                add(&self.computations, 1);
                let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                add(&self.computing_nanos, nanos);
            }
        }
    }

    fn all(&self) -> [&AtomicU64; 10] {
        [
            &self.hits,
            &self.misses,
            &self.fills,
            &self.refused_fills,
            &self.waits,
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
            errors,
            bytes_read,
            bytes_written,
            time_saved: Duration::from_nanos(mean.saturating_mul(hits)),
        }
    }
}

/// What one layer has done since the start, or since [`Cache::reset_stats`](crate::Cache).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LayerStats {
    /// Entries that were found.
    pub hits: u64,
    /// Entries that were not.
    pub misses: u64,
    /// Values that were computed and stored.
    pub fills: u64,
    /// Values that were computed and not stored, because the entry was touched meanwhile, the
    /// value was too large, or the backend failed.
    pub refused_fills: u64,
    /// Times somebody waited for a value that somebody else computed.
    pub waits: u64,
    /// Operations that the backend did not do.
    pub errors: u64,
    /// Bytes of the entries that were found.
    pub bytes_read: u64,
    /// Bytes of the values that were stored.
    pub bytes_written: u64,
    /// What the hits would have taken to compute, by the mean of the computations.
    pub time_saved: Duration,
}

impl LayerStats {
    /// Hits of all lookups, from 0 to 1; `None` before the first.
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
        Arc::clone(layers.entry(name).or_default())
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, LayerStats> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().map(|(name, counters)| (*name, counters.snapshot())).collect()
    }

    pub(crate) fn reset(&self) {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = layers.values().flat_map(|counters| counters.all());
        counters.for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}

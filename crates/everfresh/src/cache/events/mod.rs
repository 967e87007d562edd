//! Events: what a cache did, for its statistics and for observers.

mod event;
#[cfg(feature = "prometheus")]
pub(crate) mod prometheus;
pub(crate) mod stats;
#[cfg(feature = "tracing")]
mod tracing;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::event::{CacheEvent, CacheEventKind};
use self::stats::Counters;

/// An observer of events.
pub(crate) type Observer = Box<dyn Fn(&CacheEvent<'_>) + Send + Sync>;

/// The counters of one layer, and the observers of the cache. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Events {
    pub(crate) counters: Arc<Counters>,
    observers: Arc<[Observer]>,
}

impl Events {
    pub(crate) fn new(counters: Arc<Counters>, observers: Arc<[Observer]>) -> Self {
        Self { counters, observers }
    }

    /// The same observers, with the counters of another layer.
    pub(crate) fn of_layer(&self, counters: Arc<Counters>) -> Self {
        Self { counters, observers: Arc::clone(&self.observers) }
    }

    /// Counts an event, and tells it to the observers.
    pub(crate) fn note(&self, key: &str, kind: CacheEventKind, duration: Option<Duration>) {
        self.counters.count(kind, duration);
        self.tell(key, kind, duration);
    }

    /// Tells an event to the observers, without counting it.
    pub(crate) fn tell(&self, key: &str, kind: CacheEventKind, duration: Option<Duration>) {
        if !self.observers.is_empty() {
            let event = CacheEvent { layer: self.counters.layer(), key, kind, duration };
            for observe in self.observers.iter() {
                observe(&event);
            }
        }
    }

    /// Starts to measure a duration, if there is an observer.
    pub(crate) fn stopwatch(&self) -> Stopwatch {
        Stopwatch((!self.observers.is_empty()).then(Instant::now))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Measures a duration for observers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    pub(crate) fn elapsed(self) -> Option<Duration> {
        self.0.map(|begun| begun.elapsed())
    }
}

//! The statistics of a cache, and the durations of its lookups and computations, for Prometheus.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::ConstCounter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    event::{CacheEvent, CacheEventKind},
    stats::LayerStats,
};
use crate::cache::Cache;

/// The bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Metrics of a cache for the crate `prometheus-client`: the statistics of each layer, and, if the cache is built with the
/// [observer](Self::observer), histograms of durations.
///
/// ```
/// use everfresh::{Cache, CacheMetrics};
/// use prometheus_client::{encoding::text, registry::Registry};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let metrics = CacheMetrics::default();
/// let cache = Cache::memory(1 << 20).observe(metrics.observer()).build();
/// cache.get::<u32>("k").await;
///
/// let mut registry = Registry::with_prefix("app");
/// metrics.register(&mut registry, &cache);
/// let mut shown = String::new();
/// text::encode(&mut shown, &registry).unwrap();
/// assert!(shown.contains("app_cache_misses_total{layer=\"cache\"} 1\n"));
/// assert!(shown.contains("app_cache_duration_seconds_count{layer=\"cache\",step=\"lookup\"} 1\n"));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    durations: Family<Step, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Step {
    layer: &'static str,
    step: &'static str,
}

impl Default for CacheMetrics {
    fn default() -> Self {
        Self { durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)) }
    }
}

impl CacheMetrics {
    /// Returns the observer that measures durations, for [`CacheBuilder::observe`](crate::CacheBuilder::observe).
    pub fn observer(&self) -> impl Fn(&CacheEvent<'_>) + Send + Sync + use<> {
        let durations = self.durations.clone();
        move |event| {
            let step = match event.kind {
                CacheEventKind::Hit { .. } | CacheEventKind::Miss => "lookup",
                CacheEventKind::Computed => "computation",
                CacheEventKind::Wait => "wait",
                _ => return,
            };
            if let Some(duration) = event.duration {
                let step = Step { layer: event.layer, step };
                durations.get_or_create(&step).observe(duration.as_secs_f64());
            }
        }
    }

    /// Adds the metrics of a cache to a registry, of which they get the prefix.
    pub fn register(&self, registry: &mut Registry, cache: &Cache) {
        registry.register_collector(Box::new(Statistics(cache.clone())));
        let help = "Duration of lookups, waits and computations";
        registry.register_with_unit("cache_duration", help, Unit::Seconds, self.durations.clone());
    }
}

/// Reads the statistics when they are asked for.
#[derive(Debug)]
struct Statistics(Cache);

/// The name, help text and value of a metric of each layer.
type Metric = (&'static str, &'static str, fn(&LayerStats) -> u64);

const METRICS: [Metric; 7] = [
    ("cache_hits", "Entries that were found", |layer| layer.hits),
    ("cache_misses", "Entries that were not found", |layer| layer.misses),
    ("cache_stale_hits", "Entries that were served after their lifetime", |layer| layer.stale),
    ("cache_fills", "Values computed and stored", |layer| layer.fills),
    ("cache_refused_fills", "Values computed and not stored", |layer| layer.refused_fills),
    ("cache_waits", "Waits for values that others computed", |layer| layer.waits),
    ("cache_errors", "Cache operations that failed", |layer| layer.errors),
];

impl Collector for Statistics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let layers = self.0.stats();
        for (name, help, value) in METRICS {
            let counter = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for (layer, stats) in &layers {
                let counter = ConstCounter::new(value(stats));
                counter.encode(family.encode_family(&[("layer", *layer)])?)?;
            }
        }
        Ok(())
    }
}

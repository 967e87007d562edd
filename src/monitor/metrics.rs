//! Metrics of requests, cache and database: `GET /metrics`, in the `OpenMetrics` text format, which
//! Prometheus reads.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use everfresh::{Cache, LayerStats};
use futures_util::future::join;
use memcached_client::{ServerState, ServerStatus};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::admin_token::AdminAccess;
use crate::{db::Db, http::error_pages::AppError, tasks::Tasks};

/// The media type that `OpenMetrics` gives to the output of [`text::encode`].
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LayerLabel {
    layer: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ServerLabel {
    server: String,
}

/// The requests that have been answered since the start.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    /// One per label, found without a lock.
    routes: Vec<RouteMetrics>,
    /// The longest duration since the last reset, in microseconds.
    slowest: AtomicU64,
}

#[derive(Debug)]
struct RouteMetrics {
    label: &'static str,
    /// Answers with status 200, which are nearly all.
    ok: OnceLock<Counter>,
    duration: OnceLock<Histogram>,
}

/// Requests and their durations since the start, over all routes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RequestTotals {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

impl Metrics {
    /// `labels` are those of all routes.
    pub(crate) fn new(labels: impl Iterator<Item = &'static str>) -> Self {
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let requests = Family::<RequestLabels, Counter>::default();
        let new = |label| RouteMetrics { label, ok: OnceLock::new(), duration: OnceLock::new() };
        let routes = labels.map(new).collect();
        Self { requests, durations, routes, slowest: AtomicU64::new(0) }
    }

    /// Counts one request.
    pub(crate) fn observe(&self, route: &'static str, status: StatusCode, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.slowest.fetch_max(micros, Ordering::Relaxed);
        let Some(metrics) = self.routes.iter().find(|metrics| metrics.label == route) else {
            return;
        };
        let histogram = metrics
            .duration
            .get_or_init(|| self.durations.get_or_create_owned(&RouteLabel { route }));
        histogram.observe(duration.as_secs_f64());
        if status == StatusCode::OK {
            let labels = RequestLabels { route, status: 200 };
            metrics.ok.get_or_init(|| self.requests.get_or_create_owned(&labels)).inc();
        } else {
            let labels = RequestLabels { route, status: status.as_u16() };
            self.requests.get_or_create(&labels).inc();
        }
    }

    /// Returns the totals over all routes.
    pub(crate) fn totals(&self) -> RequestTotals {
        let mut totals = RequestTotals::default();
        for histogram in self.routes.iter().filter_map(|metrics| metrics.duration.get()) {
            totals.requests += histogram.count();
            totals.seconds += histogram.sum();
        }
        totals
    }

    /// Returns the longest duration since the last reset; resets it if `reset`.
    pub(crate) fn slowest(&self, reset: bool) -> Duration {
        Duration::from_micros(if reset {
            self.slowest.swap(0, Ordering::Relaxed)
        } else {
            self.slowest.load(Ordering::Relaxed)
        })
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "Requests answered", self.requests.clone());
        let help = "How long answers took, without sending them";
        registry.register("http_request_duration_seconds", help, self.durations.clone());
    }
}

/// `GET /metrics`
pub(crate) async fn show(
    req: HttpRequest,
    access: Data<AdminAccess>,
    metrics: Data<Metrics>,
    cache: Data<Cache>,
    db: Data<Db>,
    tasks: Data<Tasks>,
) -> Result<HttpResponse, AppError> {
    access.check(&req)?;
    let mut registry = Registry::with_prefix("tasklist");
    metrics.register(&mut registry);
    register_layers(&mut registry, cache.stats());
    let (reports, backlog) = join(cache.server_reports(), tasks.invalidation_backlog()).await;
    register_servers(&mut registry, reports.into_iter().map(|report| report.status));
    let (open, idle) = db.connections();
    gauge(&mut registry, "database_connections", "Connections that are open", i64::from(open));
    gauge(&mut registry, "database_connections_idle", "Of them, those not in use", i64::from(idle));
    gauge(&mut registry, "database_up", "Whether it answers", i64::from(backlog.is_ok()));
    if let Ok(backlog) = backlog {
        let help = "Invalidations that wait to be confirmed";
        gauge(&mut registry, "ledger_rows", help, backlog.rows);
    }
    let mut body = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut body, &registry);
    Ok(HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(body))
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// The name, help text and value of a metric of each layer.
type LayerMetric = (&'static str, &'static str, fn(&LayerStats) -> u64);

const LAYER_METRICS: [LayerMetric; 5] = [
    ("cache_hits", "Entries that were found", |layer| layer.hits),
    ("cache_misses", "Entries that were not", |layer| layer.misses),
    ("cache_fills", "Values computed and stored", |layer| layer.fills),
    ("cache_refused_fills", "Values computed and not stored", |layer| layer.refused_fills),
    ("cache_errors", "Operations that the cache did not do", |layer| layer.errors),
];

fn register_layers(
    registry: &mut Registry,
    layers: impl IntoIterator<Item = (&'static str, LayerStats)>,
) {
    let layers: Vec<_> = layers.into_iter().collect();
    for (name, help, value) in LAYER_METRICS {
        let family = Family::<LayerLabel, Counter>::default();
        for (layer, stats) in &layers {
            family.get_or_create(&LayerLabel { layer }).inc_by(value(stats));
        }
        registry.register(name, help, family);
    }
}

fn register_servers(registry: &mut Registry, servers: impl Iterator<Item = ServerStatus>) {
    let up = Family::<ServerLabel, Gauge>::default();
    let outages = Family::<ServerLabel, Counter>::default();
    let timeouts = Family::<ServerLabel, Counter>::default();
    for status in servers {
        let server = ServerLabel { server: status.address.to_string() };
        up.get_or_create(&server).set(i64::from(status.state == ServerState::Up));
        outages.get_or_create(&server).inc_by(status.outages);
        timeouts.get_or_create(&server).inc_by(status.timeouts);
    }
    registry.register("memcached_up", "Whether the server is used", up);
    registry.register("memcached_outages", "Times it was taken out of use", outages);
    registry.register("memcached_timeouts", "Operations not answered in time", timeouts);
}

//! Metrics of requests, cache and database: `GET /metrics`, in the `OpenMetrics` text format, which
//! Prometheus reads.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::Data,
};
use everfresh::{Cache, CacheMetrics};
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
    ok: Counter,
    duration: Histogram,
}

/// Requests and their durations since the start, over all routes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RequestTotals {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

impl Metrics {
    /// `labels` are those of all routes. Their series begin at 0, because Prometheus cannot see the
    /// first step of a series that appears with it.
    pub(crate) fn new(labels: impl Iterator<Item = &'static str>) -> Self {
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> _);
        let requests = Family::<RequestLabels, Counter>::default();
        let routes = labels
            .map(|route| RouteMetrics {
                label: route,
                ok: requests.get_or_create_owned(&RequestLabels { route, status: 200 }),
                duration: durations.get_or_create_owned(&RouteLabel { route }),
            })
            .collect();
        Self { requests, durations, routes, slowest: AtomicU64::new(0) }
    }

    /// Counts one request.
    pub(crate) fn observe(&self, route: &'static str, status: StatusCode, duration: Duration) {
        self.slowest.fetch_max(micros(duration), Ordering::Relaxed);
        let Some(metrics) = self.routes.iter().find(|metrics| metrics.label == route) else {
            return;
        };
        metrics.duration.observe(duration.as_secs_f64());
        if status == StatusCode::OK {
            metrics.ok.inc();
        } else {
            let labels = RequestLabels { route, status: status.as_u16() };
            self.requests.get_or_create(&labels).inc();
        }
    }

    /// Returns the totals over all routes.
    pub(crate) fn totals(&self) -> RequestTotals {
        let mut totals = RequestTotals::default();
        for RouteMetrics { duration, .. } in &self.routes {
            totals.requests += duration.count();
            totals.seconds += duration.sum();
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
        let help = "Time until the response was ready to be sent";
        registry.register("http_request_duration_seconds", help, self.durations.clone());
    }
}

/// Returns a duration in whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
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
    CacheMetrics::default().register(&mut registry, &cache);
    let (reports, backlog) = join(cache.server_reports(), tasks.invalidation_backlog()).await;
    register_servers(&mut registry, reports.into_iter().map(|report| report.status));
    let (open, idle) = db.connections();
    gauge(&mut registry, "database_connections", "Connections that are open", i64::from(open));
    gauge(
        &mut registry,
        "database_connections_idle",
        "Open connections that are not in use",
        i64::from(idle),
    );
    gauge(
        &mut registry,
        "database_up",
        "Whether the database answers (1) or not (0)",
        i64::from(backlog.is_ok()),
    );
    if let Ok(backlog) = backlog {
        let help = "Invalidations that are not confirmed yet";
        gauge(&mut registry, "ledger_rows", help, i64::try_from(backlog.rows).unwrap_or(i64::MAX));
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
    registry.register("memcached_up", "Whether the memcached server is up (1) or down (0)", up);
    registry.register("memcached_outages", "Times the memcached server went down", outages);
    registry.register(
        "memcached_timeouts",
        "Operations that the memcached server did not answer in time",
        timeouts,
    );
}
